//! `env`'s files on Linux: data through the shard's ring and O_DIRECT, everything else on helper threads.
//!
//! The shard's thread itself makes no call that can wait for a device, with one exception: a copy into a commitlog
//! segment can fault a page of it in.

mod blocking;
mod file;
mod removal;
mod segment;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ceto_env::disk::DirEntry;
use ceto_env::{Disk, DiskError, LocalFuture, ReadFile, Segment, WriteFile};

use crate::aligned::ALIGNMENT;
use crate::handle::ShardHandle;
use crate::metrics::RuntimeMetrics;
use crate::ring::Ring;
use blocking::call;
pub(crate) use blocking::{BlockingDone, BlockingPool, BlockingThreads};
pub(crate) use file::Held;
use file::{DirectReader, DirectWriter, OpenFile};
pub(crate) use removal::{Freeing, FreeingThread};
use segment::MappedSegment;

/// What every file of a shard needs.
pub(crate) struct DiskAccess {
    ring: Rc<Ring>,
    pool: BlockingPool,
    freeing: Freeing,
    handle: Arc<ShardHandle>,
}

impl DiskAccess {
    fn metrics(&self) -> &RuntimeMetrics {
        &self.handle.metrics
    }

    /// Counts a failure and names it.
    fn failed(&self, operation: &'static str, path: &Path, source: io::Error) -> DiskError {
        disk_error(self, operation, path, source)
    }

    fn open_file(&self, file: File, path: PathBuf) -> Rc<OpenFile> {
        Rc::new(OpenFile::new(file, path, self.pool.clone()))
    }
}

fn disk_error(access: &DiskAccess, operation: &'static str, path: &Path, source: io::Error) -> DiskError {
    // That a file is not there is an answer, not a failure of the disk.
    if source.kind() != io::ErrorKind::NotFound {
        access.metrics().disk_errors.add(1);
    }
    DiskError {
        operation,
        path: path.to_path_buf(),
        source,
    }
}

/// The file system as one shard sees it.
#[derive(Clone)]
pub(crate) struct LinuxDisk {
    access: Rc<DiskAccess>,
}

impl LinuxDisk {
    pub(crate) fn new(
        ring: Rc<Ring>,
        pool: BlockingPool,
        freeing: Freeing,
        handle: Arc<ShardHandle>,
    ) -> Self {
        Self {
            access: Rc::new(DiskAccess {
                ring,
                pool,
                freeing,
                handle,
            }),
        }
    }

    /// Runs a call on a helper thread.
    fn call<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        path: &'a Path,
        job: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> LocalFuture<'a, Result<T, DiskError>> {
        self.access.metrics().disk_calls.add(1);
        let owned = path.to_path_buf();
        let call = call(&self.access.pool, &self.access.handle, move || job(&owned));
        Box::pin(async move {
            call.await
                .map_err(|source| self.access.failed(operation, path, source))
        })
    }
}

impl Disk for LinuxDisk {
    fn create_dir_all<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        self.call("create folder", path, |path| fs::create_dir_all(path))
    }

    fn list_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Vec<DirEntry>, DiskError>> {
        self.call("list", path, list)
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        let removed = self.call("remove", path, removal::remove);
        Box::pin(async move {
            if let Some(large) = removed.await? {
                let freeing = self.access.freeing.clone();
                call(&self.access.freeing.pool, &self.access.handle, move || {
                    freeing.free(&large)
                })
                .await;
            }
            Ok(())
        })
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        self.call("remove folder", path, |path| fs::remove_dir(path))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        let to = to.to_path_buf();
        self.call("rename", from, move |from| fs::rename(from, to))
    }

    fn hard_link<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        let to = to.to_path_buf();
        self.call("link", from, move |from| fs::hard_link(from, to))
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        self.call("sync folder", path, sync_folder)
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<u64, DiskError>> {
        self.call("look for free space at", path, free_space)
    }

    fn create<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Box<dyn WriteFile>, DiskError>> {
        let opened = self.call("create", path, |path| {
            open_direct(OpenOptions::new().write(true).create(true).truncate(true), path)
        });
        Box::pin(async move {
            let file = self.access.open_file(opened.await?, path.to_path_buf());
            Ok(Box::new(DirectWriter::new(Rc::clone(&self.access), file)) as Box<dyn WriteFile>)
        })
    }

    fn open<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Rc<dyn ReadFile>, DiskError>> {
        let opened = self.call("open", path, |path| {
            let file = open_direct(OpenOptions::new().read(true), path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let alignment = read_alignment(&file);
            Ok((file, metadata.len(), alignment))
        });
        Box::pin(async move {
            let (file, size, alignment) = opened.await?;
            let file = self.access.open_file(file, path.to_path_buf());
            let reader = DirectReader::new(Rc::clone(&self.access), file, size, alignment);
            Ok(Rc::new(reader) as Rc<dyn ReadFile>)
        })
    }

    fn read_file<'a>(&'a self, path: &'a Path, max_size: u64) -> LocalFuture<'a, Result<Bytes, DiskError>> {
        self.call("read", path, move |path| read_small(path, max_size))
    }

    fn write_file<'a>(&'a self, path: &'a Path, content: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>> {
        let content = content.to_vec();
        self.call("write", path, move |path| write_small(path, &content))
    }

    fn create_segment<'a>(
        &'a self,
        path: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>> {
        let made = self.call("create segment", path, move |path| {
            let file = segment::create(path, size)?;
            sync_folder(parent(path))?;
            Ok(file)
        });
        Box::pin(async move {
            let file = made.await?;
            self.map_segment(file, path, size)
        })
    }

    fn recycle_segment<'a>(
        &'a self,
        from: &'a Path,
        to: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>> {
        let target = to.to_path_buf();
        let made = self.call("recycle segment", from, move |from| {
            let file = segment::recycle(from, size)?;
            fs::rename(from, &target)?;
            sync_folder(parent(&target))?;
            Ok(file)
        });
        Box::pin(async move {
            let file = made.await?;
            self.map_segment(file, to, size)
        })
    }
}

impl LinuxDisk {
    fn map_segment(&self, file: File, path: &Path, size: u64) -> Result<Rc<dyn Segment>, DiskError> {
        MappedSegment::new(Rc::clone(&self.access), file, path, size)
            .map(|segment| Rc::new(segment) as Rc<dyn Segment>)
            .map_err(|source| self.access.failed("map", path, source))
    }
}

/// Devices have no smaller sectors, in bytes.
const SECTOR_MIN: usize = 512;

/// Opens past the page cache where the file system allows it.
fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match options.custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.custom_flags(0).open(path),
        outcome => outcome,
    }
}

/// What offsets and lengths of direct reads of a file must be multiples of: the device's sectors where the kernel says so
/// (Linux 6.1), else a page. A block that lies across two pages is read in fewer bytes so.
fn read_alignment(file: &File) -> usize {
    // SAFETY: a statx is plain numbers, for which all zeros is a value.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the path is an empty string, and the call fills the structure.
    let outcome = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut status,
        )
    };
    let is_known = outcome == 0 && status.stx_mask & libc::STATX_DIOALIGN != 0;
    let alignment = status.stx_dio_offset_align as usize;
    match is_known && alignment.is_power_of_two() && alignment >= SECTOR_MIN {
        true => alignment.min(ALIGNMENT),
        false => ALIGNMENT,
    }
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Removed since it was listed: not there.
        let Ok(metadata) = entry.metadata() else { continue };
        let is_dir = metadata.is_dir();
        entries.push(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_dir,
            size: if is_dir { 0 } else { metadata.len() },
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn free_space(path: &Path) -> io::Result<u64> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut space = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name ends with a zero, and the kernel fills the structure when it returns 0.
    if unsafe { libc::statvfs(name.as_ptr(), space.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled, see above.
    let space = unsafe { space.assume_init() };
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

fn read_small(path: &Path, max_size: u64) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let mut content = Vec::new();
    file.take(max_size.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > max_size {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content.into())
}

fn write_small(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(parent(path))
}
