//! Commitlog segments: shared mappings of files whose every block is reserved and written with zeros beforehand.
//!
//! A write is a copy into the page cache: the bytes are the kernel's when it returns, and survive the process. Because
//! the blocks exist, a full disk shows when the segment is made, and not later as a fault under a copy. Because they
//! were written once, a sync writes data only, no block map.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;

use ceto_env::{DiskError, LocalFuture, Segment};

use super::DiskAccess;
use super::blocking::BlockingPool;
use super::file::OpenFile;

/// Zeros written per call. Small on purpose: the page cache keeps what one call wrote as one folio, and a copy into a
/// mapping dirties the whole folio, which the next sync then writes (with a mebibyte a sync takes many times as long).
const ZEROS: usize = 16 << 10;

/// Makes (or takes over) the file of a segment: exactly `size` bytes, all reserved, all zero. Blocks.
pub(super) fn prepare(path: &Path, size: u64, create: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(create)
        .open(path)?;
    let outcome = fill(&file, size);
    if outcome.is_err() && create {
        // Half a segment is of no use, and on a full disk its space is.
        let _ = std::fs::remove_file(path);
    }
    outcome.map(|()| file)
}

fn fill(file: &File, size: u64) -> io::Result<()> {
    if size == 0 || i64::try_from(size).is_err() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if file.metadata()?.len() > size {
        file.set_len(size)?;
    }
    // SAFETY: a plain call on a descriptor that is open. (A size above i64 was refused above.)
    let reserved = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size as libc::off_t) } == 0;
    if !reserved {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error);
        }
    }
    let zeros = [0; ZEROS];
    let mut offset = 0;
    while offset < size {
        let count = (size - offset).min(ZEROS as u64) as usize;
        file.write_all_at(&zeros[..count], offset)?;
        offset += count as u64;
    }
    if reserved {
        // Start writing the zeros out, so that the first sync need not.
        // SAFETY: a plain call on a descriptor that is open.
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        Ok(())
    } else {
        // Where nothing can be reserved, only written blocks are sure.
        file.sync_all()
    }
}

/// A mapping of a whole file, shared with the page cache.
struct Mapping {
    memory: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is plain memory, owned; it is sent to another thread only to be unmapped.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: &File, size: u64) -> io::Result<Self> {
        let length = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a fresh mapping of an open file, at an address the kernel chooses.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast::<u8>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { memory, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, unmapped once.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}

/// One segment.
pub(super) struct MappedSegment {
    access: Rc<DiskAccess>,
    /// Unmapped on a helper thread: it walks every page.
    mapping: Option<Mapping>,
    file: Rc<OpenFile>,
    pool: BlockingPool,
}

impl MappedSegment {
    pub(super) fn new(access: Rc<DiskAccess>, file: File, path: &Path, size: u64) -> io::Result<Self> {
        let mapping = Mapping::new(&file, size)?;
        let pool = access.pool.clone();
        let file = Rc::new(OpenFile::new(file, path.to_path_buf(), pool.clone()));
        Ok(Self {
            access,
            mapping: Some(mapping),
            file,
            pool,
        })
    }

    fn mapping(&self) -> &Mapping {
        self.mapping.as_ref().expect("taken only by drop")
    }
}

impl Segment for MappedSegment {
    fn write(&self, offset: u64, bytes: &[u8]) {
        let mapping = self.mapping();
        let start = usize::try_from(offset).expect("offset inside the segment");
        let end = start.checked_add(bytes.len()).expect("range inside the segment");
        assert!(
            end <= mapping.length,
            "write of {start}..{end} to a segment of {}",
            mapping.length
        );
        // SAFETY: the range is inside the mapping (checked), which nobody holds a reference to; `bytes` is other memory.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.memory.as_ptr().add(start), bytes.len())
        };
    }

    fn sync(&self) -> LocalFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            let outcome = self.access.sync(&self.file, true).await;
            outcome.map_err(|source| self.access.failed("sync", self.file.path(), source))
        })
    }

    fn size(&self) -> u64 {
        self.mapping().length as u64
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Drop for MappedSegment {
    fn drop(&mut self) {
        let mapping = self.mapping.take();
        self.pool.run(move || drop(mapping));
    }
}
