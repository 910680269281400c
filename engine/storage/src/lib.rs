//! One shard's storage engine: commitlog, memtable, sstable, compaction, recovery.
//!
//! Durability: an acknowledged write is with the kernel in every mode of the commitlog, and on the device in `batch`
//! and `group` mode. Never: knows a CQL type, a client or a peer; asks the operating system for anything but through
//! `env`; loses an acknowledged write to a crash of the process.
//!
//! Read next: `database` for the write path on one screen, `reader` for the grammar that all readers share,
//! `cache` for what is kept of the disk in memory, `sstable` and `commitlog` for the files, `recovery` for the start.

mod admission;
mod cache;
mod commitlog;
mod compaction;
mod database;
mod dropped;
mod error;
mod flush;
mod import;
mod index;
mod layout;
mod maintenance;
mod memory;
mod memtable;
mod options;
mod permits;
mod poison;
mod read;
mod reader;
mod recovery;
mod removal;
mod reshard;
mod snapshot;
mod sstable;
mod stats;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod together;
mod transaction;
mod truncation;
mod wait;

pub use cache::RowCacheStats;
pub use commitlog::{CommitlogStats, ReplayPosition, ReplayProgress};
pub use compaction::{CompactionRecord, MajorCompaction};
pub use database::{Applied, Database};
pub use error::{Corruption, Error, Result};
pub use options::{CommitFailurePolicy, CommitlogSync, ReplayFailurePolicy, StorageOptions};
pub use permits::ReadStats;
pub use poison::StorageFailure;
pub use reader::Fragment;
pub use reshard::reshard;
pub use snapshot::{SnapshotDetails, SnapshotNote, SnapshotPart, instant_text, ranges_between};
pub use sstable::{
    Codec, Component, Compression, Descriptor, Generation, HeaderColumn, LoggedAbove, Origin,
    PartitionLimits, SerializationHeader, Statistics, Training, offline,
};
pub use stats::{CompactionStats, StorageStats, TableStats};
