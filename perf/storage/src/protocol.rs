//! What the benchmark asks the process of an engine, and what that answers: a line of JSON each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cost::Cost;

/// Which engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// Ours.
    Ceto,
    /// RocksDB.
    Rocksdb,
    /// fjall.
    Fjall,
}

impl Engine {
    /// In results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ceto => "ceto",
            Self::Rocksdb => "rocksdb",
            Self::Fjall => "fjall",
        }
    }
}

/// What stays the same for the life of an engine's process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) engine: Engine,
    /// A folder of its own, empty at first.
    pub(crate) folder: PathBuf,
    /// The core that all its threads run on; None: all cores.
    pub(crate) core: Option<usize>,
    pub(crate) rows: u64,
    /// Bytes of a value.
    pub(crate) value_size: usize,
    /// Bytes of a block before compression.
    pub(crate) block_size: usize,
    /// Bytes of memory for writes that are not flushed.
    pub(crate) memtable_size: usize,
    /// Part of the cache that our engine keeps rows in; the rest is for blocks.
    pub(crate) row_cache_part: f64,
    /// Bytes per second that compactions may write, ours and RocksDB's; 0: no limit.
    pub(crate) compaction_throughput: u64,
    /// Our table's compaction strategy, by Cassandra's name.
    pub(crate) compaction: String,
}

/// How writes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// The kernel has a write when it is acknowledged.
    Kernel,
    /// The device has it.
    Device,
}

/// Rows of a large partition.
pub(crate) const PARTITION_ROWS: u64 = 1000;

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "do")]
pub(crate) enum Command {
    /// Opens the database, with a cache for blocks.
    Open {
        cache_size: usize,
        durability: Durability,
    },
    /// Writes the rows from one number to another, in order of their numbers; waits until nothing is left to flush or
    /// to compact.
    Load { from: u64, to: u64 },
    /// Writes rows chosen at random anew; waits as Load.
    Overwrite { operations: u64, seed: u64 },
    /// Writes rows chosen at random anew, several at a time; does not wait for flushes.
    Write {
        operations: u64,
        seed: u64,
        in_flight: u32,
    },
    /// Reads rows chosen at random.
    Read {
        operations: u64,
        seed: u64,
        in_flight: u32,
    },
    /// Reads that many rows in the order of the engine from random places.
    Scan { operations: u64, rows: u64, seed: u64 },
    /// Ours only: writes rows of partitions of [`PARTITION_ROWS`] rows each, until nothing is left to flush or to compact.
    LoadPartitions { partitions: u64 },
    /// As Scan, but ours reads a partition of [`PARTITION_ROWS`] rows each time; to the peers both are the same.
    ScanPartitions {
        operations: u64,
        partitions: u64,
        seed: u64,
    },
    /// Reads rows chosen at random at a fixed rate while nothing else runs, then while everything is compacted.
    Tail { rate: u64, seconds: u64, seed: u64 },
    /// Ours only: flush and compaction beside a bare loop.
    Throughput { rows: u64 },
    /// Closes the database.
    Close,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Operations done; of scans: rows.
    pub(crate) operations: u64,
    /// All of it.
    pub(crate) cost: Cost,
    /// Seconds until the last write was taken.
    pub(crate) accepted_seconds: f64,
    /// Bytes of data files and of logs at the end.
    pub(crate) data_bytes: u64,
    pub(crate) log_bytes: u64,
    /// Allocations of the thread that serves, when they are counted.
    #[serde(default)]
    pub(crate) allocations: Option<u64>,
    /// Further figures, by name.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub(crate) figures: serde_json::Map<String, serde_json::Value>,
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    Done(Report),
    Failed(String),
}
