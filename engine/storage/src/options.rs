//! What a shard's storage is told at start.

use std::path::PathBuf;
use std::time::Duration;

use crate::commitlog::ReplayProgress;
use crate::sstable::{Codec, Compression, PartitionLimits};

/// When a write is durable against power loss. Against the death of the process it is so in every mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitlogSync {
    /// Acknowledged at once; synced every so often.
    Periodic {
        /// Time between syncs.
        period: Duration,
    },
    /// Acknowledged after a sync that starts as soon as the one before it ended.
    Batch,
    /// Acknowledged after a sync; syncs start at least this far apart.
    Group {
        /// Time between syncs.
        window: Duration,
    },
}

/// What a start does when the commitlog is damaged in a part that had been synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplayFailurePolicy {
    /// Fails, with file and offset.
    #[default]
    Stop,
    /// Applies every intact entry, keeps a copy of the damaged segment beside it, and logs an error.
    BestEffort,
    /// Applies every intact entry and logs a warning.
    Ignore,
}

/// What happens after a failed sync or creation of a commitlog segment (a full disk is no such failure).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CommitFailurePolicy {
    /// The process is to end.
    Die,
    /// Writes stop on the shard, and the node is to stop serving clients.
    #[default]
    Stop,
    /// Writes stop on the shard; reads go on.
    StopCommit,
    /// The writes that wait for the sync fail; everything goes on.
    Ignore,
}

/// Folders and limits of one shard's storage.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Holds `data/<keyspace>/<table>-<id>/`.
    pub data_dir: PathBuf,
    /// Holds commitlog segments of all shards.
    pub commitlog_dir: PathBuf,
    /// This shard.
    pub shard: u16,
    /// Shards of the node.
    pub shard_count: u16,
    /// Bytes of one segment (of the first one after a start at most 1 MiB, so that the start is quick).
    pub commitlog_segment_size: u32,
    /// Encoded bytes of the largest mutation; None for half a segment. At most that counts.
    pub max_mutation_size: Option<u32>,
    /// How entries are compressed, one by one; only codec and level count.
    pub commitlog_compression: Compression,
    /// What damage means to a start.
    pub replay_failure_policy: ReplayFailurePolicy,
    /// What a failed sync means.
    pub commit_failure_policy: CommitFailurePolicy,
    /// Where replays say how far they are.
    pub replay_progress: ReplayProgress,
    /// Bytes of all segments of this shard; at least three segments are used. Near it the oldest tables are flushed,
    /// at it writes wait.
    pub commitlog_total_space: u64,
    /// When writes are synced.
    pub commitlog_sync: CommitlogSync,
    /// Bytes of memory for memtables, reads, open sstables and caches of this shard together: the caches have what the
    /// others leave.
    pub memory_space: usize,
    /// Bytes of memory for memtables of this shard; at it writes wait.
    pub memtable_space: usize,
    /// Part of `memtable_space` at which the largest memtable is flushed.
    pub memtable_cleanup_threshold: f64,
    /// Writes that may wait for memtable or commitlog space; more are refused as overloaded.
    pub waiting_writes_max: usize,
    /// Bytes of such writes; when that many wait, more are refused as overloaded.
    pub waiting_writes_space: usize,
    /// How long a write may wait for space.
    pub write_wait_max: Duration,
    /// Reads from disk at the same time; more wait in line.
    pub concurrent_reads: usize,
    /// Bytes that these may hold together; at it no further one begins and pages end early.
    pub read_space: usize,
    /// Reads that may wait in line; more are refused as overloaded.
    pub waiting_reads_max: usize,
    /// How long a read may wait in line.
    pub read_wait_max: Duration,
    /// Memtables flushed at the same time.
    pub concurrent_flushes: usize,
    /// Compactions at the same time.
    pub concurrent_compactions: usize,
    /// Bytes per second that compaction may write; 0 for no limit.
    pub compaction_throughput: u64,
    /// Start compactions without being asked.
    pub automatic_compaction: bool,
    /// Link every flushed sstable into its table's folder `backups`.
    pub incremental_backups: bool,
    /// What is logged of partitions that are written.
    pub partition_limits: PartitionLimits,
    /// Most bytes of memory for uncompressed sstable blocks.
    pub block_cache_size: usize,
    /// Most bytes of memory for the row cache; 0 for none.
    pub row_cache_size: usize,
}

impl StorageOptions {
    /// Defaults for one shard of a node whose files are in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>, shard: u16, shard_count: u16) -> StorageOptions {
        let data_dir = data_dir.into();
        StorageOptions {
            commitlog_dir: data_dir.join("commitlog"),
            data_dir,
            shard,
            shard_count,
            commitlog_segment_size: 32 << 20,
            max_mutation_size: None,
            commitlog_compression: Compression {
                codec: Codec::None,
                ..Compression::default()
            },
            replay_failure_policy: ReplayFailurePolicy::default(),
            commit_failure_policy: CommitFailurePolicy::default(),
            replay_progress: ReplayProgress::default(),
            commitlog_total_space: 1 << 30,
            commitlog_sync: CommitlogSync::Periodic {
                period: Duration::from_secs(10),
            },
            memory_space: 512 << 20,
            memtable_space: 256 << 20,
            memtable_cleanup_threshold: 0.4,
            waiting_writes_max: 4096,
            waiting_writes_space: 32 << 20,
            write_wait_max: Duration::from_secs(60),
            concurrent_reads: 128,
            read_space: 64 << 20,
            waiting_reads_max: 4096,
            read_wait_max: Duration::from_secs(60),
            concurrent_flushes: 2,
            concurrent_compactions: 2,
            compaction_throughput: 64 << 20,
            automatic_compaction: true,
            incremental_backups: false,
            partition_limits: PartitionLimits::default(),
            block_cache_size: 64 << 20,
            row_cache_size: 256 << 20,
        }
    }

    /// Encoded bytes of the largest mutation.
    pub fn mutation_max(&self) -> usize {
        let half = self.commitlog_segment_size / 2;
        self.max_mutation_size.map_or(half, |max| max.min(half)) as usize
    }

    /// Segments that may exist at once.
    pub(crate) fn segments_max(&self) -> usize {
        let count = self.commitlog_total_space / u64::from(self.commitlog_segment_size.max(1));
        usize::try_from(count).unwrap_or(usize::MAX).max(3)
    }
}
