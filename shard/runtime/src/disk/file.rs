//! Files through the shard's ring: read at random offsets, or written front to back, past the page cache.
//!
//! O_DIRECT wants offsets, lengths and memory in whole blocks; both sides here hide it. Memory and writes are aligned to
//! [`ALIGNMENT`], reads to what the file wants, which may be less. Where a file system refuses O_DIRECT, the same code runs through the page cache.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ceto_env::{DiskError, LocalFuture, ReadFile, WriteFile};
use io_uring::{opcode, types};

use super::blocking::{BlockingPool, call};
use super::{DiskAccess, disk_error};
use crate::aligned::{ALIGNMENT, AlignedBuffer, ReadBuffer};
use crate::network::OutgoingSocket;
use crate::ring::Operation;

/// Size of one write of a [`WriteFile`].
const WRITE_SIZE: usize = 128 << 10;
/// Writes of one file with the kernel at a time.
const WRITES_UNDERWAY: usize = 4;
/// Space reserved ahead of the writes, at first and at most: files that grow write by write fragment, and their direct
/// writes wait for each other.
const FIRST_RESERVE: u64 = 1 << 20;
const LARGEST_RESERVE: u64 = 64 << 20;

/// What an operation of the ring keeps alive until its completion.
#[expect(dead_code, reason = "the open files are held to be dropped, not to be read")]
pub(crate) enum Held {
    Nothing,
    File(Rc<OpenFile>),
    Buffer(AlignedBuffer, Rc<OpenFile>),
    Socket(OutgoingSocket),
}

/// An open file. Closed on a helper thread: the last close of a removed file frees its blocks, which takes time.
pub(crate) struct OpenFile {
    file: Option<File>,
    path: PathBuf,
    pool: BlockingPool,
}

impl OpenFile {
    pub(super) fn new(file: File, path: PathBuf, pool: BlockingPool) -> Self {
        Self {
            file: Some(file),
            path,
            pool,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn duplicate(&self) -> io::Result<File> {
        self.file
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?
            .try_clone()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.pool.run(move || drop(file));
        }
    }
}

impl DiskAccess {
    /// Starts a write of `buffer[from..to]` at `offset`.
    fn start_write(
        &self,
        file: &Rc<OpenFile>,
        buffer: AlignedBuffer,
        from: usize,
        to: usize,
        offset: u64,
    ) -> Operation {
        let bytes = &buffer.as_slice()[from..to];
        let entry = opcode::Write::new(types::Fd(file.descriptor()), bytes.as_ptr(), bytes.len() as u32)
            .offset(offset)
            .build();
        self.metrics().disk_writes.add(1);
        // SAFETY: the entry points into the buffer, whose memory moves into the operation with its owner.
        unsafe { self.ring.start(entry, Held::Buffer(buffer, Rc::clone(file))) }
    }

    /// Fills `buffer[from..to]` from the file at `offset`. Returns the buffer and the bytes read.
    async fn read(
        &self,
        file: &Rc<OpenFile>,
        buffer: AlignedBuffer,
        (from, to): (usize, usize),
        offset: u64,
    ) -> io::Result<(AlignedBuffer, usize)> {
        let rest = &buffer.as_slice()[from..to];
        let length = u32::try_from(rest.len()).unwrap_or(1 << 30);
        let entry = opcode::Read::new(types::Fd(file.descriptor()), rest.as_ptr().cast_mut(), length)
            .offset(offset)
            .build();
        self.metrics().disk_reads.add(1);
        // SAFETY: the entry points into the buffer, whose memory moves into the operation with its owner, so that nobody
        // looks at it until the kernel has written.
        let operation = unsafe { self.ring.start(entry, Held::Buffer(buffer, Rc::clone(file))) };
        let (result, held) = operation.await;
        let Held::Buffer(buffer, _) = held else {
            unreachable!("what was put in comes back")
        };
        let read = kernel_result(result)?;
        self.metrics().disk_read_bytes.add(read as u64);
        Ok((buffer, read))
    }

    /// Makes a file's bytes (and its size, unless `data_only`) durable.
    pub(super) async fn sync(&self, file: &Rc<OpenFile>, data_only: bool) -> io::Result<()> {
        let flags = if data_only {
            types::FsyncFlags::DATASYNC
        } else {
            types::FsyncFlags::empty()
        };
        let entry = opcode::Fsync::new(types::Fd(file.descriptor()))
            .flags(flags)
            .build();
        self.metrics().disk_syncs.add(1);
        // SAFETY: the entry points to nothing; the file stays open with the operation.
        let operation = unsafe { self.ring.start(entry, Held::File(Rc::clone(file))) };
        kernel_result(operation.await.0).map(drop)
    }

    async fn reserve(&self, file: &Rc<OpenFile>, offset: u64, length: u64) -> io::Result<()> {
        let entry = opcode::Fallocate::new(types::Fd(file.descriptor()), length)
            .offset(offset)
            .build();
        // SAFETY: as in sync.
        let operation = unsafe { self.ring.start(entry, Held::File(Rc::clone(file))) };
        kernel_result(operation.await.0).map(drop)
    }
}

/// The kernel's way to say a count or a negative error.
fn kernel_result(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// A file open for reads.
pub(super) struct DirectReader {
    access: Rc<DiskAccess>,
    file: Rc<OpenFile>,
    size: u64,
    /// Of offsets and lengths; a page is a multiple of it.
    alignment: usize,
}

impl DirectReader {
    pub(super) fn new(access: Rc<DiskAccess>, file: Rc<OpenFile>, size: u64, alignment: usize) -> Self {
        Self {
            access,
            file,
            size,
            alignment,
        }
    }

    async fn read_exactly(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if length == 0 {
            return Ok(Bytes::new());
        }
        let start = offset - offset % self.alignment as u64;
        let wanted = (end - start) as usize;
        let whole = wanted.next_multiple_of(self.alignment);
        let mut buffer = AlignedBuffer::spare(wanted);
        let mut have = 0;
        while have < wanted {
            // A short read is taken up again at its last whole block.
            let from = have - have % self.alignment;
            let (back, read) = self
                .access
                .read(&self.file, buffer, (from, whole), start + from as u64)
                .await?;
            buffer = back;
            if from + read <= have {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            have = from + read;
        }
        let skip = (offset - start) as usize;
        Ok(Bytes::from_owner(ReadBuffer::new(buffer)).slice(skip..skip + length))
    }
}

impl ReadFile for DirectReader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, length: usize) -> LocalFuture<'_, Result<Bytes, DiskError>> {
        Box::pin(async move {
            let outcome = self.read_exactly(offset, length).await;
            outcome.map_err(|source| self.access.failed("read", self.file.path(), source))
        })
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

struct WriteUnderway {
    operation: Operation,
    offset: u64,
    from: usize,
    to: usize,
}

/// A file being written front to back.
pub(super) struct DirectWriter {
    access: Rc<DiskAccess>,
    file: Rc<OpenFile>,
    /// Being filled; `filled` bytes of it count.
    buffer: AlignedBuffer,
    filled: usize,
    /// Where `buffer` will lie in the file.
    offset: u64,
    underway: VecDeque<WriteUnderway>,
    spare: Vec<AlignedBuffer>,
    reserved: u64,
    /// The file system cannot reserve.
    unreservable: bool,
    /// A write failed: nothing may be appended after the hole.
    failed: bool,
}

impl DirectWriter {
    pub(super) fn new(access: Rc<DiskAccess>, file: Rc<OpenFile>) -> Self {
        Self {
            access,
            file,
            buffer: AlignedBuffer::zeroed(WRITE_SIZE),
            filled: 0,
            offset: 0,
            underway: VecDeque::new(),
            spare: Vec::new(),
            reserved: 0,
            unreservable: false,
            failed: false,
        }
    }

    async fn append_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = &mut self.buffer.as_mut_slice()[self.filled..WRITE_SIZE];
            let count = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            room[..count].copy_from_slice(now);
            self.filled += count;
            bytes = later;
            if self.filled == WRITE_SIZE {
                self.write_buffer().await?;
            }
        }
        Ok(())
    }

    /// Hands the buffer, padded to whole blocks, to the kernel.
    async fn write_buffer(&mut self) -> io::Result<()> {
        while self.underway.len() >= WRITES_UNDERWAY {
            self.await_write().await?;
        }
        let end = self.filled.next_multiple_of(ALIGNMENT);
        self.buffer.as_mut_slice()[self.filled..end].fill(0);
        self.reserve_until(self.offset + end as u64).await?;
        let next = self
            .spare
            .pop()
            .unwrap_or_else(|| AlignedBuffer::zeroed(WRITE_SIZE));
        let full = std::mem::replace(&mut self.buffer, next);
        let operation = self.access.start_write(&self.file, full, 0, end, self.offset);
        self.underway.push_back(WriteUnderway {
            operation,
            offset: self.offset,
            from: 0,
            to: end,
        });
        self.offset += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    async fn reserve_until(&mut self, end: u64) -> io::Result<()> {
        if end <= self.reserved || self.unreservable {
            return Ok(());
        }
        // A file of one write is small: leave it alone.
        if self.reserved == 0 && end < WRITE_SIZE as u64 {
            return Ok(());
        }
        let step = self.reserved.clamp(FIRST_RESERVE, LARGEST_RESERVE);
        match self.access.reserve(&self.file, self.reserved, step).await {
            Ok(()) => self.reserved += step,
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.unreservable = true,
            // The writes themselves will tell whether what is needed fits.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => self.unreservable = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits for the oldest write.
    async fn await_write(&mut self) -> io::Result<()> {
        let Some(mut write) = self.underway.pop_front() else {
            return Ok(());
        };
        loop {
            let (result, held) = write.operation.await;
            let Held::Buffer(buffer, _) = held else {
                unreachable!("what was put in comes back")
            };
            let written = kernel_result(result)?;
            self.access.metrics().disk_written_bytes.add(written as u64);
            if write.from + written >= write.to {
                self.spare.push(buffer);
                return Ok(());
            }
            // A short write goes on at its last whole block; one without progress means there is no room.
            let progress = written - written % ALIGNMENT;
            if progress == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            write.from += progress;
            write.offset += progress as u64;
            write.operation = self
                .access
                .start_write(&self.file, buffer, write.from, write.to, write.offset);
        }
    }

    async fn finish_file(mut self) -> io::Result<u64> {
        let size = self.offset + self.filled as u64;
        if self.filled > 0 {
            self.write_buffer().await?;
        }
        while !self.underway.is_empty() {
            self.await_write().await?;
        }
        if !size.is_multiple_of(ALIGNMENT as u64) || self.reserved > 0 {
            let file = self.file.duplicate()?;
            call(&self.access.pool, &self.access.handle, move || file.set_len(size)).await?;
        }
        self.access.sync(&self.file, false).await?;
        Ok(size)
    }

    fn poisoned() -> io::Error {
        io::Error::other("an earlier write to this file failed")
    }
}

impl WriteFile for DirectWriter {
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>> {
        Box::pin(async move {
            let outcome = if self.failed {
                Err(Self::poisoned())
            } else {
                self.append_all(bytes).await
            };
            self.failed = outcome.is_err();
            outcome.map_err(|source| self.access.failed("write", self.file.path(), source))
        })
    }

    fn position(&self) -> u64 {
        self.offset + self.filled as u64
    }

    fn finish(self: Box<Self>) -> LocalFuture<'static, Result<u64, DiskError>> {
        Box::pin(async move {
            let (access, file) = (Rc::clone(&self.access), Rc::clone(&self.file));
            let outcome = if self.failed {
                Err(Self::poisoned())
            } else {
                self.finish_file().await
            };
            outcome.map_err(|source| disk_error(&access, "write", file.path(), source))
        })
    }
}
