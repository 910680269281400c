//! `env`'s files on a [`MemoryDisk`], each call made of the operations that Linux makes it of.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use super::disk::MemoryDisk;
use super::faults::Operation;
use super::files::{Inode, State};
use crate::disk::{DirEntry, DiskError};
use crate::{Disk, LocalFuture, RECYCLED_HEAD, ReadFile, Segment, WriteFile};

fn named<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, DiskError> {
    result.map_err(|source| DiskError {
        operation,
        path: path.to_path_buf(),
        source,
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

impl MemoryDisk {
    fn handle(&self, path: &Path, file: Inode) -> Handle {
        Handle {
            disk: self.this.upgrade().expect("a method of a living disk runs"),
            path: path.to_path_buf(),
            file,
        }
    }

    /// Appends; when it fails some of the bytes are there.
    async fn append(&self, path: &Path, file: &Inode, bytes: &[u8]) -> io::Result<()> {
        let write = |state: &mut State| {
            self.reserve(state, bytes.len())?;
            file.borrow_mut().append(bytes);
            Ok(())
        };
        self.perform_or(Operation::Write, path, write, |_, random| {
            let some = random.below(bytes.len() as u64 + 1) as usize;
            file.borrow_mut().append(&bytes[..some]);
        })
        .await
    }

    async fn sync(&self, path: &Path, file: &Inode) -> io::Result<()> {
        let sync = std::cell::Cell::new(Some(file.borrow_mut().begin_sync()));
        let take = || sync.take().expect("one of the two ends runs, once");
        let end = |_: &mut State| {
            file.borrow_mut().end_sync(take());
            Ok(())
        };
        self.perform_or(Operation::Sync, path, end, |_, random| {
            file.borrow_mut().fail_sync(take(), random);
        })
        .await
    }

    async fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.perform(Operation::SyncFolder, path, |state| state.sync_dir(path))
            .await
    }

    async fn rename_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.perform(Operation::Rename, from, |state| state.rename(from, to))
            .await
    }

    async fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = temporary(path);
        let written = async {
            let create = |state: &mut State| state.create(&temporary);
            let file = self.perform(Operation::Create, &temporary, create).await?;
            self.append(&temporary, &file, content).await?;
            self.sync(&temporary, &file).await?;
            self.rename_file(&temporary, path).await
        };
        if let Err(error) = written.await {
            let remove = |state: &mut State| state.remove(&temporary);
            let _ = self.perform(Operation::Remove, &temporary, remove).await;
            return Err(error);
        }
        self.sync_folder(parent(path)).await
    }

    async fn make_segment(&self, path: &Path, size: usize) -> io::Result<Inode> {
        let create = |state: &mut State| match state.file(path) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => state.create(path),
        };
        let file = self.perform(Operation::Create, path, create).await?;
        let reserve = |state: &mut State| {
            self.reserve(state, size)?;
            file.borrow_mut().zero(size);
            Ok(())
        };
        if let Err(error) = self.perform(Operation::Reserve, path, reserve).await {
            // As Linux' does: half a segment is of no use.
            let remove = |state: &mut State| state.remove(path);
            let _ = self.perform(Operation::Remove, path, remove).await;
            return Err(error);
        }
        self.sync_folder(parent(path)).await?;
        Ok(file)
    }

    async fn reuse_segment(&self, from: &Path, to: &Path, size: usize) -> io::Result<Inode> {
        let recycle = |state: &mut State| {
            let file = state.file(from)?;
            let old = file.borrow().kernel.len();
            self.reserve(state, size.saturating_sub(old))?;
            file.borrow_mut().recycle(size, RECYCLED_HEAD as usize);
            Ok(file)
        };
        let file = self.perform(Operation::Reserve, from, recycle).await?;
        self.sync(from, &file).await?;
        self.rename_file(from, to).await?;
        self.sync_folder(parent(to)).await?;
        Ok(file)
    }
}

fn list(state: &State, path: &Path) -> io::Result<Vec<DirEntry>> {
    if !state.dirs().contains(path) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let files = state
        .files()
        .iter()
        .filter(|(file, _)| file.parent() == Some(path));
    let mut entries: Vec<DirEntry> = files
        .map(|(path, file)| DirEntry {
            name: name(path),
            is_dir: false,
            size: file.borrow().kernel.len() as u64,
        })
        .collect();
    let dirs = state.dirs().iter().filter(|dir| dir.parent() == Some(path));
    entries.extend(dirs.map(|path| DirEntry {
        name: name(path),
        is_dir: true,
        size: 0,
    }));
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

impl Disk for MemoryDisk {
    fn create_dir_all<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let create = |state: &mut State| {
                state.create_dirs(path);
                Ok(())
            };
            let result = self.perform(Operation::CreateFolder, path, create).await;
            named("create folder", path, result)
        })
    }

    fn list_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Vec<DirEntry>, DiskError>> {
        Box::pin(async move {
            let result = self
                .perform(Operation::List, path, |state| list(state, path))
                .await;
            named("list", path, result)
        })
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let result = self
                .perform(Operation::Remove, path, |state| state.remove(path))
                .await;
            named("remove", path, result)
        })
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let remove = |state: &mut State| state.remove_dir(path);
            let result = self.perform(Operation::RemoveFolder, path, remove).await;
            named("remove folder", path, result)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move { named("rename", from, self.rename_file(from, to).await) })
    }

    fn hard_link<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let result = self
                .perform(Operation::Link, from, |state| state.link(from, to))
                .await;
            named("link", from, result)
        })
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move { named("sync folder", path, self.sync_folder(path).await) })
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<u64, DiskError>> {
        Box::pin(async move {
            let free = |state: &mut State| Ok(self.capacity.get().saturating_sub(state.used()));
            let result = self.perform(Operation::FreeSpace, path, free).await;
            named("look for free space at", path, result)
        })
    }

    fn create<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Box<dyn WriteFile>, DiskError>> {
        Box::pin(async move {
            let result = self
                .perform(Operation::Create, path, |state| state.create(path))
                .await;
            let file = named("create", path, result)?;
            Ok(Box::new(self.handle(path, file)) as Box<dyn WriteFile>)
        })
    }

    fn open<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Rc<dyn ReadFile>, DiskError>> {
        Box::pin(async move {
            let result = self
                .perform(Operation::Open, path, |state| state.file(path))
                .await;
            let file = named("open", path, result)?;
            Ok(Rc::new(self.handle(path, file)) as Rc<dyn ReadFile>)
        })
    }

    fn read_file<'a>(&'a self, path: &'a Path, max_size: u64) -> LocalFuture<'a, Result<Bytes, DiskError>> {
        Box::pin(async move {
            let read = |state: &mut State| {
                let file = state.file(path)?;
                let file = file.borrow();
                if file.kernel.len() as u64 > max_size {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                Ok(self.read_back(path, file.kernel.clone()).into())
            };
            named("read", path, self.perform(Operation::Read, path, read).await)
        })
    }

    fn write_file<'a>(&'a self, path: &'a Path, content: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move { named("write", path, self.write_small(path, content).await) })
    }

    fn create_segment<'a>(
        &'a self,
        path: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>> {
        Box::pin(async move {
            let file = self.make_segment(path, size as usize).await;
            let file = named("create segment", path, file)?;
            Ok(Rc::new(self.handle(path, file)) as Rc<dyn Segment>)
        })
    }

    fn recycle_segment<'a>(
        &'a self,
        from: &'a Path,
        to: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>> {
        Box::pin(async move {
            let file = self.reuse_segment(from, to, size as usize).await;
            let file = named("recycle segment", from, file)?;
            Ok(Rc::new(self.handle(to, file)) as Rc<dyn Segment>)
        })
    }
}

/// An open file, whatever it was opened for.
struct Handle {
    disk: Rc<MemoryDisk>,
    path: PathBuf,
    file: Inode,
}

impl WriteFile for Handle {
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let result = self.disk.append(&self.path, &self.file, bytes).await;
            named("write", &self.path, result)
        })
    }

    fn position(&self) -> u64 {
        self.file.borrow().kernel.len() as u64
    }

    fn finish(self: Box<Self>) -> LocalFuture<'static, Result<u64, DiskError>> {
        Box::pin(async move {
            let result = async {
                self.disk.append(&self.path, &self.file, &[]).await?;
                self.disk.sync(&self.path, &self.file).await
            };
            named("write", &self.path, result.await)?;
            Ok(WriteFile::position(&*self))
        })
    }
}

impl ReadFile for Handle {
    fn size(&self) -> u64 {
        self.file.borrow().kernel.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> LocalFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move {
            let read = |_: &mut State| {
                let file = self.file.borrow();
                let range = usize::try_from(offset)
                    .ok()
                    .and_then(|start| Some(start..start.checked_add(length)?));
                let bytes = range.and_then(|range| file.kernel.get(range));
                let bytes = bytes.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
                Ok(self.disk.read_back(&self.path, bytes).into())
            };
            let result = self.disk.perform(Operation::Read, &self.path, read).await;
            named("read", &self.path, result)
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Segment for Handle {
    fn write(&self, offset: u64, bytes: &[u8]) {
        let size = self.file.borrow().kernel.len();
        let start = offset as usize;
        assert!(start + bytes.len() <= size, "a write outside the segment");
        if !self.disk.has_crashed() {
            self.file.borrow_mut().write(start, bytes);
        }
    }

    fn sync(&self) -> LocalFuture<'_, Result<(), DiskError>> {
        Box::pin(async move { named("sync", &self.path, self.disk.sync(&self.path, &self.file).await) })
    }

    fn size(&self) -> u64 {
        self.file.borrow().kernel.len() as u64
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
