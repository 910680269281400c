//! Commitlog segments: shared mappings of files whose every block is reserved and written with zeros beforehand.
//!
//! A write is a copy into the page cache: the bytes are the kernel's when it returns, and survive the process. Because
//! the blocks exist, a full disk shows when the segment is made, and not later as a fault under a copy. Because they
//! were written once, a sync writes data only, no block map.
//!
//! What was written stays in the page cache, as any file's bytes do, but not in the process: a mapping lets go of its
//! pages [`RESIDENT_STEP`] by step behind the writer, so that its share of the process's memory is that and no more,
//! whatever the size of a segment.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;

use ceto_env::{DiskError, LocalFuture, RECYCLED_HEAD, Segment};

use super::DiskAccess;
use super::blocking::BlockingPool;
use super::file::OpenFile;

/// Zeros written per call. Small on purpose: the page cache keeps what one call wrote as one folio, and a copy into a
/// mapping dirties the whole folio, which the next sync then writes (with a mebibyte a sync takes many times as long).
const ZEROS: usize = 16 << 10;
/// Zeros that are on their way to the device at a time.
const WRITE_OUT: u64 = 1 << 20;
/// Bytes of a segment that are written before the mapping lets go of their pages. Letting go of one such step takes the
/// shard 20 us or so.
const RESIDENT_STEP: usize = 1 << 20;
/// Pages are let go of at multiples of this (of the kernel's page size, whichever that is).
const PAGE: usize = 64 << 10;

/// Makes the file of a segment: exactly `size` bytes, all reserved, all zero. Blocks.
pub(super) fn create(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    let outcome = fill(&file, 0, size);
    if outcome.is_err() {
        // Half a segment is of no use, and on a full disk its space is.
        let _ = std::fs::remove_file(path);
    }
    outcome.map(|()| file)
}

/// Takes over the file of a segment: exactly `size` bytes, all reserved; zero are its head and what it grew by. Blocks.
pub(super) fn recycle(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let old = file.metadata()?.len();
    if old > size {
        file.set_len(size)?;
    } else if old < size {
        fill(&file, old, size)?;
    }
    let head = vec![0; RECYCLED_HEAD.min(size) as usize];
    file.write_all_at(&head, 0)?;
    // Under its new name the file must never show its old head, not even after a power loss.
    file.sync_data()?;
    // What the page cache no longer has comes back now, and not as a fault under a copy.
    // SAFETY: a plain call on a descriptor that is open; it is advice.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_WILLNEED) };
    Ok(file)
}

/// Reserves the bytes of a file up to `size`, and writes zeros from `from` on.
fn fill(file: &File, from: u64, size: u64) -> io::Result<()> {
    if size == 0 || i64::try_from(size).is_err() {
        return Err(io::ErrorKind::InvalidInput.into());
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
    let mut offset = from;
    let mut written_out = from;
    while offset < size {
        let count = (size - offset).min(ZEROS as u64) as usize;
        file.write_all_at(&zeros[..count], offset)?;
        offset += count as u64;
        if reserved && (offset - written_out >= WRITE_OUT || offset == size) {
            // The zeros go to the device now, so that the first sync need not write them; and in pieces, because reads wait
            // behind them.
            write_out(file, written_out, offset - written_out);
            written_out = offset;
        }
    }
    if reserved {
        Ok(())
    } else {
        // Where nothing can be reserved, only written blocks are sure.
        file.sync_all()
    }
}

/// Has the kernel write a part of a file, and waits for it. What fails here fails again in a sync.
fn write_out(file: &File, offset: u64, count: u64) {
    let flags =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: a plain call on a descriptor that is open. (Sizes fit, see `fill`.)
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset as libc::off64_t,
            count as libc::off64_t,
            flags,
        )
    };
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

    /// Takes the pages of a range out of this process's memory. They stay in the page cache with what was written to
    /// them, and come back when they are touched.
    fn let_go(&self, start: usize, end: usize) {
        debug_assert!(start <= end && end <= self.length && start.is_multiple_of(PAGE));
        // SAFETY: the range is inside the mapping, which is shared with a file: no byte of it is lost. It is advice: when
        // it fails, the pages stay.
        unsafe {
            libc::madvise(
                self.memory.as_ptr().add(start).cast(),
                end - start,
                libc::MADV_DONTNEED,
            )
        };
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
    /// The pages before this offset were let go of.
    let_go: Cell<usize>,
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
            let_go: Cell::new(0),
        })
    }

    /// Lets go of what lies behind the writer, when it is enough.
    fn let_go_behind(&self, offset: usize) {
        let from = self.let_go.get();
        if offset < from {
            // Written again from an earlier place on.
            self.let_go.set(offset / PAGE * PAGE);
        } else if offset - from >= RESIDENT_STEP {
            let until = offset / PAGE * PAGE;
            self.mapping().let_go(from, until);
            self.let_go.set(until);
        }
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
        self.let_go_behind(end);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(mapping: &Mapping) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("on Linux");
        let start = format!("{:x}-", mapping.memory.as_ptr().addr());
        let own = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let line = own
            .skip(1)
            .find(|line| line.starts_with("Rss:"))
            .expect("each mapping has it");
        let kibibytes = line.split_whitespace().nth(1).expect("a number");
        kibibytes.parse::<usize>().expect("a number") << 10
    }

    #[test]
    fn what_was_let_go_of_is_neither_in_memory_nor_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("segment");
        let size = 4 << 20;
        let file = create(&path, size as u64).expect("room for it");
        let mapping = Mapping::new(&file, size as u64).expect("a mapping");
        // SAFETY: within the mapping, which nobody else uses.
        unsafe { mapping.memory.as_ptr().write_bytes(7, size) };
        assert!(resident(&mapping) >= size);
        mapping.let_go(0, size - PAGE);
        assert!(resident(&mapping) <= PAGE, "{}", resident(&mapping));
        drop(mapping);
        assert!(
            std::fs::read(&path)
                .expect("it is there")
                .iter()
                .all(|byte| *byte == 7)
        );
    }
}
