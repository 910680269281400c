//! What can go wrong in storage, with the evidence.
//!
//! Clonable and `Send`, because one failed sync answers many writes and answers cross to other shards.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ceto_env::DiskError;
use ceto_model::TableId;
use ceto_model::codec::DecodeError;

/// A failed storage operation.
#[derive(Clone, Debug)]
pub enum Error {
    /// No such table in the schema that this shard has.
    UnknownTable(TableId),
    /// A mutation larger than the commitlog takes.
    MutationTooLarge {
        /// Its encoded size in bytes.
        size: usize,
        /// Largest size in bytes.
        max: usize,
    },
    /// No space left: writes are refused until there is, reads go on.
    DiskFull(Arc<DiskError>),
    /// A failed disk call.
    Disk(Arc<DiskError>),
    /// Bytes on disk are not what was written there.
    Corrupt(Arc<Corruption>),
    /// More waits than the named bound allows.
    Overloaded {
        /// The option that bounds it.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
    /// A write found no room in memory or commitlog for too long.
    WriteWaitedTooLong {
        /// How long.
        waited: Duration,
        /// Bytes of memtables.
        memory: usize,
        /// Their bound.
        memory_max: usize,
    },
    /// A read found no permit for too long.
    ReadWaitedTooLong {
        /// How long.
        waited: Duration,
        /// Reads that have one.
        running: usize,
        /// Bytes that they hold.
        memory: usize,
    },
    /// An earlier disk failure stopped writes on this shard until restart.
    Poisoned(Arc<str>),
    /// Drained: no more writes.
    Closed,
    /// Somebody asked to stop it.
    Aborted,
    /// A compaction that could not finish on this disk was not started.
    SpaceNeeded {
        /// Bytes that it may take for a while.
        needed: u64,
        /// Bytes that it may have.
        available: u64,
    },
    /// Files on disk belong to another number of shards, or to a format this version does not know.
    Layout(Arc<str>),
}

/// Damage found in a file.
#[derive(Clone, Debug)]
pub struct Corruption {
    /// The file.
    pub file: PathBuf,
    /// Byte offset of the damaged part.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn corrupt(file: &Path, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt(Arc::new(Corruption {
            file: file.to_path_buf(),
            offset,
            what: what.into(),
        }))
    }

    pub(crate) fn decode(file: &Path, offset: u64, error: &DecodeError) -> Error {
        Error::corrupt(file, offset, error.to_string())
    }

    /// No space left, or no descriptors or memory: what failed is tried again.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::DiskFull(_))
    }

    /// A file's content is not what it was, or the file is gone.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Error::Corrupt(_)) || self.is_not_found()
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Disk(error) if error.is_not_found())
    }
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Error {
        if error.is_shortage() {
            Error::DiskFull(Arc::new(error))
        } else {
            Error::Disk(Arc::new(error))
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownTable(id) => write!(f, "no table with id {id}"),
            Error::MutationTooLarge { size, max } => {
                write!(
                    f,
                    "mutation of {size} bytes exceeds max_mutation_size ({max} bytes)"
                )
            }
            Error::DiskFull(error) if error.is_disk_full() => {
                write!(f, "disk full, writes are refused until there is space: {error}")
            }
            Error::DiskFull(error) => write!(
                f,
                "out of file descriptors or memory, writes are refused until there are some (raise `ulimit -n` or \
                 LimitNOFILE): {error}"
            ),
            Error::Disk(error) => error.fmt(f),
            Error::Corrupt(corruption) => corruption.fmt(f),
            Error::Overloaded { limit, max } => write!(f, "overloaded: {limit} ({max}) reached"),
            Error::WriteWaitedTooLong {
                waited,
                memory,
                memory_max,
            } => write!(
                f,
                "no room for the write within {waited:?}: memtables hold {memory} of {memory_max} bytes \
                 (memtable_heap_space) or the commitlog is full (commitlog_total_space), and flushes do not keep up"
            ),
            Error::ReadWaitedTooLong {
                waited,
                running,
                memory,
            } => write!(
                f,
                "the read waited {waited:?} for its turn: {running} others (concurrent_reads) hold {memory} bytes"
            ),
            Error::Poisoned(why) => write!(f, "writes are stopped on this shard after a disk failure: {why}"),
            Error::Closed => f.write_str("storage is drained"),
            Error::Aborted => f.write_str("stopped on request"),
            Error::SpaceNeeded { needed, available } => write!(
                f,
                "a compaction needs {needed} bytes of disk space for a while and may have {available}: free some, or \
                 compact fewer sstables at once"
            ),
            Error::Layout(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "corrupt file {} at offset {}: {}",
            self.file.display(),
            self.offset,
            self.what
        )
    }
}

impl std::error::Error for Error {}
