//! Files: sstable components (written once, then read at random offsets) and commitlog segments.
//!
//! Durability rules that every backend keeps:
//! - [`Segment::write`] has handed the bytes to the kernel when it returns: they survive the death of the process.
//!   They survive power loss once a later [`Segment::sync`] completed.
//! - [`WriteFile::finish`] returns after the file's bytes and size are on the device.
//! - A create, rename or remove is durable after [`Disk::sync_dir`] of its folder.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use crate::LocalFuture;

/// Bytes at the beginning of a recycled segment that are zeroed.
pub const RECYCLED_HEAD: u64 = 4096;

/// A failed disk call, with what was tried on which file.
#[derive(Debug)]
pub struct DiskError {
    /// What was tried, as a verb: "open", "read", "preallocate".
    pub operation: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl DiskError {
    /// No space (or quota) left: writes stop, reads go on, and writes may resume.
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Something ran out that comes back: space, file descriptors, memory. Nothing is broken.
    pub fn is_shortage(&self) -> bool {
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        self.is_disk_full()
            || self.source.kind() == io::ErrorKind::OutOfMemory
            || matches!(self.source.raw_os_error(), Some(ENFILE | EMFILE))
    }

    /// No such file.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} {}: {}",
            self.operation,
            self.path.display(),
            self.source
        )
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// One entry of a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Name inside the folder.
    pub name: String,
    /// A folder itself.
    pub is_dir: bool,
    /// Size in bytes (0 for folders).
    pub size: u64,
}

/// The file system.
pub trait Disk {
    /// Creates a folder and its parents; fine when it exists.
    fn create_dir_all<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Entries of a folder, sorted by name.
    fn list_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Vec<DirEntry>, DiskError>>;
    /// Removes a file that nobody reads any more: when this was its only name, reads of it may find less than was there. The
    /// name is gone at once; its space, when this returns.
    fn remove_file<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Removes an empty folder.
    fn remove_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Renames a file within one file system, replacing `to`.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Makes a second name for a file.
    fn hard_link<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Makes creates, renames and removes in this folder durable.
    fn sync_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Free bytes for this process on the file system of `path`.
    fn free_space<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<u64, DiskError>>;
    /// Creates (or truncates) a file to be written front to back with O_DIRECT.
    fn create<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Box<dyn WriteFile>, DiskError>>;
    /// Opens a file for reads at any offset, O_DIRECT.
    fn open<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Rc<dyn ReadFile>, DiskError>>;
    /// Reads a whole small file. Fails with `FileTooLarge` above `max_size` bytes.
    fn read_file<'a>(&'a self, path: &'a Path, max_size: u64) -> LocalFuture<'a, Result<Bytes, DiskError>>;
    /// Writes a whole small file durably: temporary name, sync, rename, sync of the folder.
    fn write_file<'a>(&'a self, path: &'a Path, content: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Creates a commitlog segment of exactly `size` bytes, space reserved, content zero. Fails when the disk is full, or
    /// when the file exists. The name is durable when it returns.
    fn create_segment<'a>(
        &'a self,
        path: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>>;
    /// Takes an existing segment file into use again under a new name, which is durable when it returns. Before it has that
    /// name its first [`RECYCLED_HEAD`] bytes are zero on the device; the others keep what they held.
    fn recycle_segment<'a>(
        &'a self,
        from: &'a Path,
        to: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>>;
}

/// A file being written front to back.
pub trait WriteFile {
    /// Appends; may return before the bytes are on the device. Any size, any alignment.
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>>;
    /// Bytes appended so far.
    fn position(&self) -> u64;
    /// Writes what is buffered, cuts the file to its size, syncs, closes. Returns the size.
    fn finish(self: Box<Self>) -> LocalFuture<'static, Result<u64, DiskError>>;
}

/// An open immutable file.
pub trait ReadFile {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Exactly `length` bytes from `offset`, or an error (`UnexpectedEof` past the end). Any alignment.
    fn read_at(&self, offset: u64, length: usize) -> LocalFuture<'_, Result<Bytes, DiskError>>;
    /// Where it lies, for error texts.
    fn path(&self) -> &Path;
}

/// A commitlog segment: fixed size, space reserved, written in place (a shared memory mapping on Linux, so that a
/// write is a copy and needs no call).
pub trait Segment {
    /// Copies `bytes` to `offset`. The kernel has them when this returns.
    ///
    /// # Panics
    /// When the range is not inside the segment.
    fn write(&self, offset: u64, bytes: &[u8]);
    /// Makes everything written before this call survive power loss.
    fn sync(&self) -> LocalFuture<'_, Result<(), DiskError>>;
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Where it lies.
    fn path(&self) -> &Path;
}
