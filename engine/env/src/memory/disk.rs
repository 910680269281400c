//! A disk in memory that knows what the kernel has and what the device has, and can lose the difference.
//!
//! Model: a file is an inode with two contents, *kernel* (what reads see) and *device* (what a power loss leaves);
//! a folder has two sets of names likewise. Syncs copy from the first to the second. A crash of the machine keeps
//! of each unsynced 512-byte sector, and of each folder's unsynced names, either state at random.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::Random;
use super::executor::Yield;
use crate::disk::{DirEntry, DiskError};
use crate::{Disk, LocalFuture, ReadFile, Segment, WriteFile};

const SECTOR: usize = 512;

/// An error to be injected.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Verb of the calls it hits, as in [`DiskError::operation`]: "append", "sync", "read"...
    pub operation: &'static str,
    /// Hits only files whose path contains this.
    pub path_contains: String,
    /// What the call answers.
    pub kind: io::ErrorKind,
    /// How many calls it hits.
    pub count: u32,
}

/// A disk in memory.
pub struct MemoryDisk {
    this: Weak<MemoryDisk>,
    state: RefCell<State>,
    random: Random,
    /// Disk calls that may still begin or end; then the machine stands still until [`MemoryDisk::restart`].
    steps_until_crash: Cell<Option<u64>>,
    crashed: Cell<bool>,
    capacity: Cell<u64>,
    faults: RefCell<Vec<Fault>>,
    calls: Cell<u64>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Inode>,
    device_names: BTreeMap<PathBuf, Inode>,
    dirs: BTreeSet<PathBuf>,
    device_dirs: BTreeSet<PathBuf>,
}

type Inode = Rc<RefCell<File>>;

#[derive(Default)]
struct File {
    kernel: Vec<u8>,
    device: Vec<u8>,
    /// Bytes that may differ between the two.
    unsynced: Range<usize>,
}

impl File {
    fn touch(&mut self, range: Range<usize>) {
        self.unsynced = if self.unsynced.is_empty() {
            range
        } else {
            self.unsynced.start.min(range.start)..self.unsynced.end.max(range.end)
        };
    }

    fn sync(&mut self) {
        self.device.clone_from(&self.kernel);
        self.unsynced = 0..0;
    }
}

impl MemoryDisk {
    /// An empty disk without bound.
    pub fn new(seed: u64) -> Rc<MemoryDisk> {
        Rc::new_cyclic(|this| MemoryDisk {
            this: this.clone(),
            state: RefCell::default(),
            random: Random::new(seed),
            steps_until_crash: Cell::new(None),
            crashed: Cell::new(false),
            capacity: Cell::new(u64::MAX),
            faults: RefCell::default(),
            calls: Cell::new(0),
        })
    }

    /// Bytes that files may take in all.
    pub fn set_capacity(&self, capacity: u64) {
        self.capacity.set(capacity);
    }

    /// Bytes that files take.
    pub fn used(&self) -> u64 {
        self.state.borrow().used()
    }

    /// Adds an error to come.
    pub fn inject(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Forgets errors to come.
    pub fn clear_faults(&self) {
        self.faults.borrow_mut().clear();
    }

    /// Stops the machine after so many more beginnings and ends of disk calls.
    pub fn crash_after(&self, steps: u64) {
        self.steps_until_crash.set(Some(steps));
    }

    /// The machine stands still.
    pub fn has_crashed(&self) -> bool {
        self.crashed.get()
    }

    /// Beginnings and ends of disk calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// The process died and starts again: what the kernel had is there.
    pub fn restart(&self) {
        self.crashed.set(false);
        self.steps_until_crash.set(None);
    }

    /// The machine lost power and starts again: what was not synced is there in part.
    pub fn restart_after_power_loss(&self) {
        self.restart();
        let state = &mut *self.state.borrow_mut();
        let folders: BTreeSet<PathBuf> = state
            .names
            .keys()
            .chain(state.device_names.keys())
            .filter_map(|path| path.parent().map(Path::to_path_buf))
            .collect();
        for folder in folders {
            let in_folder = |path: &Path| path.parent() == Some(&folder);
            if self.random.below(2) == 0 {
                state.names.retain(|path, _| !in_folder(path));
                let kept = state.device_names.iter().filter(|(path, _)| in_folder(path));
                state
                    .names
                    .extend(kept.map(|(path, file)| (path.clone(), file.clone())));
            }
        }
        // The root folder has no folder whose sync could keep it.
        let lost = state
            .dirs
            .difference(&state.device_dirs)
            .filter(|dir| dir.parent().is_some());
        let lost: Vec<PathBuf> = lost.cloned().collect();
        for dir in lost {
            if self.random.below(2) == 0 {
                state.dirs.retain(|path| !path.starts_with(&dir));
                state.names.retain(|path, _| !path.starts_with(&dir));
            }
        }
        for file in state.names.values() {
            self.lose_unsynced(&mut file.borrow_mut());
        }
        state.device_names = state.names.clone();
        state.device_dirs = state.dirs.clone();
    }

    fn lose_unsynced(&self, file: &mut File) {
        let range = file.unsynced.clone();
        for start in (range.start / SECTOR * SECTOR..range.end).step_by(SECTOR) {
            let sector = start..(start + SECTOR).min(file.kernel.len());
            if self.random.below(2) == 0 && !sector.is_empty() {
                let old = file.device.get(sector.clone()).map(<[u8]>::to_vec);
                let old = old.unwrap_or_else(|| vec![0; sector.len()]);
                file.kernel[sector].copy_from_slice(&old);
            }
        }
        // A file that was not synced may also have kept its old size.
        if !range.is_empty() && file.device.len() < file.kernel.len() && self.random.below(2) == 0 {
            file.kernel.truncate(file.device.len());
        }
        file.sync();
    }

    /// All files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.borrow().names.keys().cloned().collect()
    }

    /// Content of a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        state.names.get(path).map(|file| file.borrow().kernel.clone())
    }

    /// Replaces the content of a file, on the device too.
    pub fn set_content(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.state.borrow_mut();
        let file = state.names.entry(path.to_path_buf()).or_default().clone();
        state.device_names.insert(path.to_path_buf(), file.clone());
        file.borrow_mut().kernel = content;
        file.borrow_mut().sync();
    }

    /// Removes a file, on the device too.
    pub fn delete(&self, path: &Path) {
        let mut state = self.state.borrow_mut();
        state.names.remove(path);
        state.device_names.remove(path);
    }

    /// Flips bits of one byte of a file.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) {
        let mut content = self.content(path).expect("the file to be damaged exists");
        content[offset] ^= mask;
        self.set_content(path, content);
    }

    /// Half of a disk call, where a crash may hit.
    async fn step(&self) {
        self.calls.set(self.calls.get() + 1);
        match self.steps_until_crash.get() {
            Some(0) => self.crashed.set(true),
            Some(steps) => self.steps_until_crash.set(Some(steps - 1)),
            None => {}
        }
        if self.crashed.get() {
            pending::<()>().await;
        }
    }

    /// Does `action` some turns from now, unless a fault or a crash comes first.
    async fn call<T>(
        &self,
        operation: &'static str,
        path: &Path,
        action: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        self.step().await;
        Yield::turns(self.random.below(4)).await;
        if self.crashed.get() {
            pending::<()>().await;
        }
        let result = match self.take_fault(operation, path) {
            Some(kind) => Err(kind.into()),
            None => action(&mut self.state.borrow_mut()),
        };
        self.step().await;
        result.map_err(|source| DiskError {
            operation,
            path: path.to_path_buf(),
            source,
        })
    }

    fn take_fault(&self, operation: &str, path: &Path) -> Option<io::ErrorKind> {
        let path = path.to_string_lossy();
        let mut faults = self.faults.borrow_mut();
        let fault = faults.iter_mut().find(|fault| {
            fault.count > 0 && fault.operation == operation && path.contains(&fault.path_contains)
        })?;
        fault.count -= 1;
        Some(fault.kind)
    }

    fn reserve(&self, state: &State, bytes: usize) -> io::Result<()> {
        if state.used().saturating_add(bytes as u64) > self.capacity.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn handle(&self, path: &Path, file: Inode) -> Handle {
        Handle {
            disk: self.this.upgrade().expect("a method of a living disk runs"),
            path: path.to_path_buf(),
            file,
        }
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|file| file.borrow().kernel.len() as u64)
            .sum()
    }

    fn file(&self, path: &Path) -> io::Result<Inode> {
        self.names
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, path: &Path) -> io::Result<Inode> {
        self.check_folder(path)?;
        let file = Inode::default();
        self.names.insert(path.to_path_buf(), file.clone());
        Ok(file)
    }

    fn check_folder(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if parent.parent().is_some() && !self.dirs.contains(parent) => {
                Err(io::ErrorKind::NotFound.into())
            }
            _ => Ok(()),
        }
    }

    fn sync_dir(&mut self, folder: &Path) {
        let in_folder = |path: &Path| path.parent() == Some(folder);
        self.device_names.retain(|path, _| !in_folder(path));
        let names = self.names.iter().filter(|(path, _)| in_folder(path));
        self.device_names
            .extend(names.map(|(path, file)| (path.clone(), file.clone())));
        self.device_dirs.retain(|path| !in_folder(path));
        let dirs = self.dirs.iter().filter(|path| in_folder(path));
        self.device_dirs.extend(dirs.cloned());
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(self.call("create", path, move |state| {
            state.dirs.extend(path.ancestors().map(Path::to_path_buf));
            Ok(())
        }))
    }

    fn list_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Vec<DirEntry>, DiskError>> {
        Box::pin(self.call("list", path, move |state| {
            if !state.dirs.contains(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let name = |path: &Path| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            let files = state.names.iter().filter(|(file, _)| file.parent() == Some(path));
            let mut entries: Vec<DirEntry> = files
                .map(|(path, file)| DirEntry {
                    name: name(path),
                    is_dir: false,
                    size: file.borrow().kernel.len() as u64,
                })
                .collect();
            let dirs = state.dirs.iter().filter(|dir| dir.parent() == Some(path));
            entries.extend(dirs.map(|path| DirEntry {
                name: name(path),
                is_dir: true,
                size: 0,
            }));
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        }))
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(self.call("remove", path, move |state| {
            state
                .names
                .remove(path)
                .map(|_| ())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }))
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(self.call("remove", path, move |state| {
            let is_inside = |other: &Path| other != path && other.starts_with(path);
            if state.names.keys().any(|file| is_inside(file)) || state.dirs.iter().any(|dir| is_inside(dir)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            if !state.dirs.remove(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(())
        }))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(self.call("rename", from, move |state| {
            state.check_folder(to)?;
            let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_path_buf(), file);
            Ok(())
        }))
    }

    fn hard_link<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(self.call("link", from, move |state| {
            state.check_folder(to)?;
            let file = state.file(from)?;
            state.names.insert(to.to_path_buf(), file);
            Ok(())
        }))
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(self.call("sync", path, move |state| {
            state.sync_dir(path);
            Ok(())
        }))
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<u64, DiskError>> {
        Box::pin(async move {
            self.call("stat", path, |_| Ok(())).await?;
            Ok(self.capacity.get().saturating_sub(self.used()))
        })
    }

    fn create<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Box<dyn WriteFile>, DiskError>> {
        Box::pin(async move {
            let file = self.call("create", path, |state| state.create(path)).await?;
            Ok(Box::new(self.handle(path, file)) as Box<dyn WriteFile>)
        })
    }

    fn open<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Rc<dyn ReadFile>, DiskError>> {
        Box::pin(async move {
            let file = self.call("open", path, |state| state.file(path)).await?;
            Ok(Rc::new(self.handle(path, file)) as Rc<dyn ReadFile>)
        })
    }

    fn read_file<'a>(&'a self, path: &'a Path, max_size: u64) -> LocalFuture<'a, Result<Bytes, DiskError>> {
        Box::pin(self.call("read", path, move |state| {
            let file = state.file(path)?;
            let file = file.borrow();
            if file.kernel.len() as u64 > max_size {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(Bytes::copy_from_slice(&file.kernel))
        }))
    }

    fn write_file<'a>(&'a self, path: &'a Path, content: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(self.call("write", path, move |state| {
            self.reserve(state, content.len())?;
            let file = state.create(path)?;
            file.borrow_mut().kernel = content.to_vec();
            file.borrow_mut().sync();
            state.device_names.insert(path.to_path_buf(), file);
            Ok(())
        }))
    }

    fn create_segment<'a>(
        &'a self,
        path: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>> {
        Box::pin(async move {
            let create = |state: &mut State| {
                self.reserve(state, size as usize)?;
                let file = state.create(path)?;
                file.borrow_mut().kernel = vec![0; size as usize];
                file.borrow_mut().sync();
                Ok(file)
            };
            let file = self.call("preallocate", path, create).await?;
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
            let recycle = |state: &mut State| {
                let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
                let size = size as usize;
                file.borrow_mut().kernel = vec![0; size];
                file.borrow_mut().touch(0..size);
                state.names.insert(to.to_path_buf(), file.clone());
                Ok(file)
            };
            let file = self.call("recycle", from, recycle).await?;
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
        let (disk, file) = (&self.disk, &self.file);
        Box::pin(disk.call("append", &self.path, move |state| {
            disk.reserve(state, bytes.len())?;
            let mut file = file.borrow_mut();
            let start = file.kernel.len();
            file.kernel.extend_from_slice(bytes);
            file.touch(start..start + bytes.len());
            Ok(())
        }))
    }

    fn position(&self) -> u64 {
        self.file.borrow().kernel.len() as u64
    }

    fn finish(self: Box<Self>) -> LocalFuture<'static, Result<u64, DiskError>> {
        Box::pin(async move {
            let file = self.file.clone();
            let finish = move |_: &mut State| {
                file.borrow_mut().sync();
                Ok(file.borrow().kernel.len() as u64)
            };
            self.disk.call("finish", &self.path, finish).await
        })
    }
}

impl ReadFile for Handle {
    fn size(&self) -> u64 {
        self.file.borrow().kernel.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> LocalFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(self.disk.call("read", &self.path, move |_| {
            let file = self.file.borrow();
            let range = usize::try_from(offset)
                .ok()
                .and_then(|start| Some(start..start.checked_add(length)?));
            let bytes = range.and_then(|range| file.kernel.get(range));
            bytes
                .map(Bytes::copy_from_slice)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Segment for Handle {
    fn write(&self, offset: u64, bytes: &[u8]) {
        if self.disk.has_crashed() {
            return;
        }
        let mut file = self.file.borrow_mut();
        let range = offset as usize..offset as usize + bytes.len();
        file.kernel[range.clone()].copy_from_slice(bytes);
        file.touch(range);
    }

    fn sync(&self) -> LocalFuture<'_, Result<(), DiskError>> {
        // Only what was written before the call: what is written while it runs may be lost.
        let (range, bytes) = {
            let file = self.file.borrow();
            (file.unsynced.clone(), file.kernel[file.unsynced.clone()].to_vec())
        };
        Box::pin(self.disk.call("sync", &self.path, move |_| {
            let mut file = self.file.borrow_mut();
            let size = file.kernel.len();
            file.device.resize(size, 0);
            file.device[range].copy_from_slice(&bytes);
            if file.device == file.kernel {
                file.unsynced = 0..0;
            }
            Ok(())
        }))
    }

    fn size(&self) -> u64 {
        self.file.borrow().kernel.len() as u64
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
