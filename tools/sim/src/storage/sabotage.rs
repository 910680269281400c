//! The engine broken on purpose, to prove that the checkers can fail.
//!
//! What an engine that forgets a step would do is done by an [`Env`] that swallows that step: to the disk both are the
//! same.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use ceto_env::disk::DirEntry;
use ceto_env::{Clock, Disk, DiskError, Env, LocalFuture, ReadFile, Segment, Tasks, WriteFile};

use super::indexes::PREFIX;

/// How the engine is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sabotage {
    /// Not at all.
    #[default]
    None,
    /// Acknowledges before the commitlog is synced.
    SkipsLogSync,
    /// Acknowledges before the kernel has the commitlog's entry.
    HoldsLog,
    /// Takes a failed commitlog sync for a good one.
    IgnoresSyncErrors,
    /// Never syncs a folder.
    SkipsFolderSync,
    /// Replays all segments but the oldest.
    SkipsSegment,
    /// Leaves sstables where they are that others have replaced, and does not note down that they were.
    LeavesInputs,
    /// Truncates without noting it down first.
    SkipsTruncationRecord,
    /// Purges what gc grace still protects, and expires what lives.
    AgesFast,
    /// Writes the parts of what is one write one after the other.
    SplitsPairs,
    /// Finds no sstable of an index when it starts, and trusts the index.
    LosesEntries,
    /// Loses one row block of an sstable in many, with its checksum right: reads of another file.
    MixesFiles,
}

impl Sabotage {
    /// All but none, with what is broken.
    pub const ALL: [Sabotage; 11] = [
        Self::SkipsLogSync,
        Self::HoldsLog,
        Self::IgnoresSyncErrors,
        Self::SkipsFolderSync,
        Self::SkipsSegment,
        Self::LeavesInputs,
        Self::SkipsTruncationRecord,
        Self::AgesFast,
        Self::SplitsPairs,
        Self::LosesEntries,
        Self::MixesFiles,
    ];
}

/// An environment that does all but what is sabotaged.
pub struct SabotagedEnv {
    env: Rc<dyn Env>,
    clock: FastClock,
    disk: Rc<SabotagedDisk>,
}

impl SabotagedEnv {
    /// Around `env`.
    pub fn around(env: Rc<dyn Env>, sabotage: Sabotage) -> Rc<dyn Env> {
        if sabotage == Sabotage::None {
            return env;
        }
        Rc::new(SabotagedEnv {
            clock: FastClock {
                env: env.clone(),
                is_fast: sabotage == Sabotage::AgesFast,
            },
            disk: Rc::new(SabotagedDisk {
                disk: env.disk(),
                sabotage,
                last_open: RefCell::default(),
                opens: Cell::new(0),
            }),
            env,
        })
    }
}

impl Env for SabotagedEnv {
    fn clock(&self) -> &dyn Clock {
        &self.clock
    }

    fn disk(&self) -> Rc<dyn Disk> {
        self.disk.clone()
    }

    fn tasks(&self) -> &dyn Tasks {
        self.env.tasks()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }
}

struct FastClock {
    env: Rc<dyn Env>,
    is_fast: bool,
}

impl Clock for FastClock {
    fn now(&self) -> Instant {
        self.env.clock().now()
    }

    fn unix_micros(&self) -> i64 {
        self.env.clock().unix_micros()
    }

    fn unix_seconds(&self) -> i64 {
        self.env.clock().unix_seconds() + if self.is_fast { 3600 } else { 0 }
    }
}

struct SabotagedDisk {
    disk: Rc<dyn Disk>,
    sabotage: Sabotage,
    last_open: RefCell<Option<Rc<dyn ReadFile>>>,
    opens: Cell<u64>,
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn is_of_index(path: &Path) -> bool {
    path.to_string_lossy().contains(PREFIX)
}

impl SabotagedDisk {
    fn segment(&self, segment: Rc<dyn Segment>) -> Rc<dyn Segment> {
        match self.sabotage {
            Sabotage::SkipsLogSync | Sabotage::HoldsLog | Sabotage::IgnoresSyncErrors => {
                Rc::new(SabotagedSegment {
                    segment,
                    sabotage: self.sabotage,
                    held: RefCell::default(),
                })
            }
            _ => segment,
        }
    }
}

impl Disk for SabotagedDisk {
    fn create_dir_all<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        self.disk.create_dir_all(path)
    }

    fn list_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Vec<DirEntry>, DiskError>> {
        Box::pin(async move {
            let mut entries = self.disk.list_dir(path).await?;
            if self.sabotage == Sabotage::LosesEntries && is_of_index(path) {
                entries.retain(|entry| !entry.name.ends_with("TOC.txt"));
            }
            if self.sabotage == Sabotage::SkipsSegment
                && let Some(oldest) = entries.iter().position(|entry| entry.name.ends_with(".log"))
            {
                entries.remove(oldest);
            }
            Ok(entries)
        })
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        if self.sabotage == Sabotage::LeavesInputs && name_of(path).starts_with("ceto-") {
            return Box::pin(async { Ok(()) });
        }
        self.disk.remove_file(path)
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        self.disk.remove_dir(path)
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        self.disk.rename(from, to)
    }

    fn hard_link<'a>(&'a self, from: &'a Path, to: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        self.disk.hard_link(from, to)
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<(), DiskError>> {
        if self.sabotage == Sabotage::SkipsFolderSync {
            return Box::pin(async { Ok(()) });
        }
        self.disk.sync_dir(path)
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<u64, DiskError>> {
        self.disk.free_space(path)
    }

    fn create<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Box<dyn WriteFile>, DiskError>> {
        self.disk.create(path)
    }

    fn open<'a>(&'a self, path: &'a Path) -> LocalFuture<'a, Result<Rc<dyn ReadFile>, DiskError>> {
        Box::pin(async move {
            let file = self.disk.open(path).await?;
            if self.sabotage == Sabotage::MixesFiles && name_of(path).ends_with("Data.db") {
                self.opens.set(self.opens.get() + 1);
                let last = self.last_open.replace(Some(file.clone()));
                // A table now and then finds the data of the one before it, where that has the same length.
                if let Some(last) = last
                    && self.opens.get().is_multiple_of(8)
                {
                    return Ok(last);
                }
            }
            Ok(file)
        })
    }

    fn read_file<'a>(&'a self, path: &'a Path, max_size: u64) -> LocalFuture<'a, Result<Bytes, DiskError>> {
        self.disk.read_file(path, max_size)
    }

    fn write_file<'a>(&'a self, path: &'a Path, content: &'a [u8]) -> LocalFuture<'a, Result<(), DiskError>> {
        let name = name_of(path);
        let is_skipped = match self.sabotage {
            Sabotage::LeavesInputs => name.ends_with(".txn"),
            Sabotage::SkipsTruncationRecord => name.starts_with("ceto-truncated"),
            _ => false,
        };
        if is_skipped {
            return Box::pin(async { Ok(()) });
        }
        self.disk.write_file(path, content)
    }

    fn create_segment<'a>(
        &'a self,
        path: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>> {
        Box::pin(async move { Ok(self.segment(self.disk.create_segment(path, size).await?)) })
    }

    fn recycle_segment<'a>(
        &'a self,
        from: &'a Path,
        to: &'a Path,
        size: u64,
    ) -> LocalFuture<'a, Result<Rc<dyn Segment>, DiskError>> {
        Box::pin(async move { Ok(self.segment(self.disk.recycle_segment(from, to, size).await?)) })
    }
}

struct SabotagedSegment {
    segment: Rc<dyn Segment>,
    sabotage: Sabotage,
    held: RefCell<Vec<(u64, Vec<u8>)>>,
}

impl SabotagedSegment {
    fn let_go(&self) {
        for (offset, bytes) in self.held.borrow_mut().drain(..) {
            self.segment.write(offset, &bytes);
        }
    }
}

impl Segment for SabotagedSegment {
    fn write(&self, offset: u64, bytes: &[u8]) {
        if self.sabotage == Sabotage::HoldsLog {
            self.held.borrow_mut().push((offset, bytes.to_vec()));
            return;
        }
        self.segment.write(offset, bytes);
    }

    fn sync(&self) -> LocalFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.let_go();
            match self.sabotage {
                Sabotage::SkipsLogSync => Ok(()),
                Sabotage::IgnoresSyncErrors => self.segment.sync().await.or(Ok(())),
                _ => self.segment.sync().await,
            }
        })
    }

    fn size(&self) -> u64 {
        self.segment.size()
    }

    fn path(&self) -> &Path {
        self.segment.path()
    }
}
