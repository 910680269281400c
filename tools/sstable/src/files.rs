//! The outside world for a tool: files by plain blocking calls, the system's clock, one thread.
//!
//! Every future is ready at once, so [`FileEnv::block_on`] only polls.
#![allow(
    clippy::disallowed_methods,
    reason = "this module implements the outside world for tools"
)]

use std::cell::Cell;
use std::fs::{self, File};
use std::future::ready;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ceto_env::disk::DirEntry;
use ceto_env::{Clock, Disk, DiskError, Env, LocalFuture, ReadFile, Segment, TaskQueue, Tasks, WriteFile};

type Answer<'a, T> = LocalFuture<'a, Result<T, DiskError>>;

/// Files, clock and tasks of a tool.
pub struct FileEnv {
    disk: Rc<FileDisk>,
    random: Cell<u64>,
}

impl FileEnv {
    /// The world as it is.
    pub fn new() -> Rc<FileEnv> {
        Rc::new(FileEnv {
            disk: Rc::new(FileDisk),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
        })
    }

    /// Runs a future to its end.
    pub fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return answer;
            }
        }
    }
}

impl Env for FileEnv {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn disk(&self) -> Rc<dyn Disk> {
        self.disk.clone()
    }

    fn tasks(&self) -> &dyn Tasks {
        self
    }

    fn random(&self) -> u64 {
        // Identities of what one run of a tool opens.
        let next = self
            .random
            .get()
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        self.random.set(next);
        next
    }
}

impl Clock for FileEnv {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_micros(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_micros() as i64)
    }
}

impl Tasks for FileEnv {
    fn spawn(&self, _: TaskQueue, task: LocalFuture<'static, ()>) {
        FileEnv::block_on(task);
    }

    fn sleep(&self, _: Duration) -> LocalFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn yield_if_due(&self) -> Option<LocalFuture<'static, ()>> {
        None
    }

    fn set_shares(&self, _: TaskQueue, _: u32) {}
}

struct FileDisk;

fn failed(operation: &'static str, path: &Path, source: io::Error) -> DiskError {
    DiskError {
        operation,
        path: path.to_path_buf(),
        source,
    }
}

/// An answer that is there already.
fn answer<'a, T: 'a>(operation: &'static str, path: &Path, result: io::Result<T>) -> Answer<'a, T> {
    Box::pin(ready(result.map_err(|source| failed(operation, path, source))))
}

fn unsupported<'a, T: 'a>(operation: &'static str, path: &Path) -> Answer<'a, T> {
    answer(operation, path, Err(io::ErrorKind::Unsupported.into()))
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        Ok(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_dir: metadata.is_dir(),
            size: if metadata.is_dir() { 0 } else { metadata.len() },
        })
    };
    let mut entries = fs::read_dir(path)?
        .map(entry)
        .collect::<io::Result<Vec<DirEntry>>>()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(path))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)?.sync_all()
}

fn read_file(path: &Path, max_size: u64) -> io::Result<Bytes> {
    if fs::metadata(path)?.len() > max_size {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(fs::read(path)?.into())
}

fn open(path: &Path) -> io::Result<Rc<dyn ReadFile>> {
    let file = File::open(path)?;
    Ok(Rc::new(OpenFile {
        size: file.metadata()?.len(),
        path: path.to_path_buf(),
        file,
    }))
}

fn create(path: &Path) -> io::Result<Box<dyn WriteFile>> {
    Ok(Box::new(NewFile {
        file: File::create(path)?,
        path: path.to_path_buf(),
        written: 0,
    }))
}

impl Disk for FileDisk {
    fn create_dir_all<'a>(&'a self, path: &'a Path) -> Answer<'a, ()> {
        answer("create", path, fs::create_dir_all(path))
    }

    fn list_dir<'a>(&'a self, path: &'a Path) -> Answer<'a, Vec<DirEntry>> {
        answer("list", path, list(path))
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> Answer<'a, ()> {
        answer("remove", path, fs::remove_file(path))
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> Answer<'a, ()> {
        answer("remove", path, fs::remove_dir(path))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Answer<'a, ()> {
        answer("rename", from, fs::rename(from, to))
    }

    fn hard_link<'a>(&'a self, from: &'a Path, to: &'a Path) -> Answer<'a, ()> {
        answer("link", from, fs::hard_link(from, to))
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> Answer<'a, ()> {
        answer("sync", path, sync_dir(path))
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> Answer<'a, u64> {
        unsupported("ask for the free space of", path)
    }

    fn create<'a>(&'a self, path: &'a Path) -> Answer<'a, Box<dyn WriteFile>> {
        answer("create", path, create(path))
    }

    fn open<'a>(&'a self, path: &'a Path) -> Answer<'a, Rc<dyn ReadFile>> {
        answer("open", path, open(path))
    }

    fn read_file<'a>(&'a self, path: &'a Path, max_size: u64) -> Answer<'a, Bytes> {
        answer("read", path, read_file(path, max_size))
    }

    fn write_file<'a>(&'a self, path: &'a Path, content: &'a [u8]) -> Answer<'a, ()> {
        answer("write", path, write_file(path, content))
    }

    fn create_segment<'a>(&'a self, path: &'a Path, _: u64) -> Answer<'a, Rc<dyn Segment>> {
        unsupported("create a commitlog segment", path)
    }

    fn recycle_segment<'a>(&'a self, _: &'a Path, to: &'a Path, _: u64) -> Answer<'a, Rc<dyn Segment>> {
        unsupported("create a commitlog segment", to)
    }
}

struct OpenFile {
    file: File,
    size: u64,
    path: PathBuf,
}

impl OpenFile {
    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

impl ReadFile for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, length: usize) -> Answer<'_, Bytes> {
        answer("read", &self.path, self.read(offset, length))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

struct NewFile {
    file: File,
    path: PathBuf,
    written: u64,
}

impl WriteFile for NewFile {
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> Answer<'a, ()> {
        let result = self.file.write_all(bytes);
        self.written += bytes.len() as u64;
        answer("append to", &self.path, result)
    }

    fn position(&self) -> u64 {
        self.written
    }

    fn finish(self: Box<Self>) -> Answer<'static, u64> {
        answer("sync", &self.path, self.file.sync_all().map(|()| self.written))
    }
}
