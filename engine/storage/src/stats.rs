//! Figures for metrics and nodetool.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_model::TableId;
use uuid::Uuid;

use crate::cache::RowCacheStats;
use crate::commitlog::CommitlogStats;
use crate::database::Database;
use crate::error::Result;
use crate::index::IndexStore;
use crate::permits::ReadStats;
use crate::sstable::Sstable;
use crate::table::TableStore;

/// Figures of one table on one shard. Counts are since start, sizes in bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct TableStats {
    /// Which table.
    pub table: TableId,
    /// Live sstables.
    pub sstables: u64,
    /// Bytes of Data of live sstables.
    pub disk_bytes: u64,
    /// The same before compression.
    pub uncompressed_bytes: u64,
    /// Bytes of Data of the largest sstable.
    pub largest_sstable_bytes: u64,
    /// Partitions, counted once in each sstable and memtable that has them.
    pub partitions_estimate: u64,
    /// Bytes of the smallest partition in an sstable, before compression, rounded down to a power of two; 0 without one.
    pub smallest_partition_bytes: u64,
    /// Partitions in sstables, counted once in each that has them.
    pub sstable_partitions: u64,
    /// Tombstones in sstables that are older than gc_grace_seconds, and what has expired so long ago.
    pub droppable_tombstones: u64,
    /// Cells and rows in sstables.
    pub cells_and_rows: u64,
    /// Bytes of the largest partition in an sstable, before compression.
    pub largest_partition_bytes: u64,
    /// Bytes of an average partition of an sstable, before compression.
    pub mean_partition_bytes: u64,
    /// Cells in sstables.
    pub cells: u64,
    /// Tombstones in sstables.
    pub tombstones: u64,
    /// Partitions in memtables.
    pub memtable_partitions: u64,
    /// Cells written to memtables that are not flushed.
    pub memtable_cells: u64,
    /// Bytes of memtables.
    pub memtable_bytes: u64,
    /// Memtables on their way to disk.
    pub pending_flushes: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes that flushes wrote.
    pub flushed_bytes: u64,
    /// Compactions done.
    pub compactions: u64,
    /// Bytes that compactions read.
    pub compacted_bytes: u64,
    /// Bytes that compactions wrote.
    pub compaction_written_bytes: u64,
    /// Compactions that its strategy wants and that do not run yet.
    pub pending_compactions: u64,
    /// Sstables dropped unread because all in them had expired.
    pub sstables_expired: u64,
    /// Sstables by level; more than one number only where there are levels.
    pub sstables_per_level: Vec<u64>,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Lookups that a bloom filter let through and that found the partition.
    pub filter_true_positives: u64,
    /// Lookups that a bloom filter let through for nothing.
    pub filter_false_positives: u64,
    /// Bytes of bloom filters.
    pub filter_bytes: u64,
    /// Bytes of indexes kept in memory.
    pub index_bytes: u64,
}

/// What nodetool calls the build of an index.
const INDEX_BUILD: &str = "Secondary index build";

/// A running compaction.
#[derive(Clone, PartialEq, Debug)]
pub struct CompactionStats {
    /// Random.
    pub id: Uuid,
    /// What it is, as nodetool names it.
    pub kind: &'static str,
    /// Of which table.
    pub table: TableId,
    /// Bytes of Data of all inputs.
    pub total_bytes: u64,
    /// Bytes read so far.
    pub read_bytes: u64,
    /// Bytes written so far.
    pub written_bytes: u64,
    /// Since its start.
    pub elapsed: Duration,
}

/// Figures of one shard's storage. Counts are since start, sizes in bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct StorageStats {
    /// Bytes of all memtables.
    pub memtable_bytes: u64,
    /// Bound of it, at which writes wait.
    pub memtable_bytes_max: u64,
    /// Writes that wait for memtable or commitlog space.
    pub waiting_writes: u64,
    /// Writes that waited too long for it.
    pub writes_timed_out: u64,
    /// Reads from disk.
    pub reads: ReadStats,
    /// Memory of memtables, caches, reads and open sstables.
    pub memory_bytes: u64,
    /// Bound of it.
    pub memory_bytes_max: u64,
    /// Tables that wait for a flush or are being flushed.
    pub pending_flushes: u64,
    /// Compactions that strategies want and that do not run yet.
    pub pending_compactions: u64,
    /// Compactions that run.
    pub running_compactions: Vec<CompactionStats>,
    /// Builds of indexes that run; nothing is known of what they write.
    pub index_builds: Vec<CompactionStats>,
    /// Compactions that may run at the same time.
    pub concurrent_compactions: u64,
    /// Compactions done.
    pub completed_compactions: u64,
    /// Compactions stopped on request.
    pub aborted_compactions: u64,
    /// Compactions that left sstables out for want of disk space.
    pub reduced_compactions: u64,
    /// Bytes per second that compactions may write; 0 for no limit.
    pub compaction_throughput: u64,
    /// Bytes that strategies would have to write now to want nothing more.
    pub compaction_backlog_bytes: u64,
    /// Shares of the processor that compaction has.
    pub compaction_shares: u64,
    /// Commitlog.
    pub commitlog: CommitlogStats,
    /// Bytes of blocks in the cache.
    pub block_cache_bytes: u64,
    /// Bound of it.
    pub block_cache_bytes_max: u64,
    /// Blocks found in the cache.
    pub block_cache_hits: u64,
    /// Blocks not found in it.
    pub block_cache_misses: u64,
    /// Row cache.
    pub row_cache: RowCacheStats,
    /// Sstables that could not be opened at start: their tables cannot be read.
    pub unreadable_sstables: u64,
    /// Writes are stopped after a disk failure, or refused because the disk is full.
    pub refuses_writes: bool,
}

impl Database {
    /// Figures of a table; None when it is not known.
    pub fn table_stats(&self, table: TableId) -> Option<TableStats> {
        let now = self.env.clock().unix_seconds();
        self.table(table).ok().map(|table| stats_of(&table, now))
    }

    /// Figures of all tables, in the order of their ids.
    pub fn all_table_stats(&self) -> Vec<TableStats> {
        let now = self.env.clock().unix_seconds();
        let mut all: Vec<TableStats> = self
            .tables
            .borrow()
            .values()
            .map(|table| stats_of(table, now))
            .collect();
        all.sort_by_key(|stats| stats.table);
        all
    }

    /// Figures of the shard's storage.
    pub fn stats(&self) -> StorageStats {
        let now = self.env.clock().now();
        let running = self.compactions.running();
        let (block_cache_bytes, block_cache_hits, block_cache_misses) = self.cache.stats();
        StorageStats {
            memtable_bytes: self.memory.get() as u64,
            memtable_bytes_max: self.memtable_limit.get() as u64,
            waiting_writes: self.waiting_writes() as u64,
            writes_timed_out: self.writes_timed_out.get(),
            reads: self.permits.stats(),
            memory_bytes: (self.memory.get()
                + self.permits.memory()
                + self.sstable_memory.get()
                + self.vector_memory.get()
                + self.cache.memory()
                + self.row_cache.memory()
                + self.row_cache.overhead()) as u64,
            memory_bytes_max: self.memory_space() as u64,
            pending_flushes: self.flushes.pending() as u64,
            pending_compactions: self.pending_compactions() as u64,
            running_compactions: running
                .iter()
                .map(|progress| CompactionStats {
                    id: progress.id,
                    kind: progress.kind.name(),
                    table: progress.table,
                    total_bytes: progress.total,
                    read_bytes: progress.read.get(),
                    written_bytes: progress.written.get(),
                    elapsed: now.saturating_duration_since(progress.started),
                })
                .collect(),
            index_builds: self.index_builds(now),
            concurrent_compactions: self.options.concurrent_compactions as u64,
            completed_compactions: self.compactions.completed.get(),
            aborted_compactions: self.compactions.aborted.get(),
            reduced_compactions: self.compactions.reduced.get(),
            compaction_throughput: self.compactions.throughput(),
            compaction_backlog_bytes: self.compactions.backlog.get() as u64,
            compaction_shares: u64::from(self.compactions.shares.get()),
            commitlog: self.commitlog.stats(),
            block_cache_bytes,
            block_cache_bytes_max: self.cache.capacity() as u64,
            block_cache_hits,
            block_cache_misses,
            row_cache: self.row_cache.stats(),
            unreadable_sstables: {
                let tables = self.tables.borrow();
                let count = |table: &Rc<TableStore>| table.unreadable.borrow().len() as u64;
                tables.values().map(count).sum()
            },
            refuses_writes: self.check_writes().is_err(),
        }
    }

    /// Builds of indexes that run: of a table's bytes on disk, as much is taken for read as the build has of the ring behind it.
    fn index_builds(&self, now: Instant) -> Vec<CompactionStats> {
        let tables = self.tables.borrow();
        let of_table = |table: &Rc<TableStore>| {
            let total_bytes = table
                .view()
                .sstables
                .iter()
                .map(|sstable| sstable.data_size())
                .sum();
            let build = |index: &Rc<IndexStore>| {
                let progress = index.progress.get()?;
                Some(CompactionStats {
                    id: progress.id,
                    kind: INDEX_BUILD,
                    table: table.id,
                    total_bytes,
                    read_bytes: (total_bytes as f64 * progress.done) as u64,
                    written_bytes: 0,
                    elapsed: now.saturating_duration_since(progress.started),
                })
            };
            table
                .indexes
                .borrow()
                .iter()
                .filter_map(build)
                .collect::<Vec<_>>()
        };
        tables.values().flat_map(of_table).collect()
    }

    /// Fails with what keeps this shard from taking writes: its disk has failed, or is full.
    pub fn check_writes(&self) -> Result<()> {
        self.poison.check()?;
        self.commitlog.check_room()?;
        self.flushes.check_disk()
    }

    /// Compares all sstables of a table and of its indexes with their digests, and reads every partition. The error names
    /// file and offset.
    pub async fn verify(&self, table: TableId) -> Result<()> {
        let table = self.table(table)?;
        let indexes = table.indexes.borrow().clone();
        for store in std::iter::once(&table).chain(indexes.iter().map(|index| &index.store)) {
            store.check_readable()?;
            let sstables = store.view().sstables.clone();
            for sstable in sstables {
                sstable.verify().await?;
            }
        }
        Ok(())
    }

    /// Descriptors and statistics of a table's live sstables, oldest first.
    pub fn sstables(&self, table: TableId) -> Vec<(crate::Descriptor, crate::Statistics)> {
        let Ok(table) = self.table(table) else {
            return Vec::new();
        };
        let view = table.view();
        let sstables = view.sstables.iter();
        let mut all: Vec<_> = sstables
            .map(|sstable| (sstable.descriptor.clone(), sstable.statistics.clone()))
            .collect();
        all.sort_by_key(|(descriptor, _)| descriptor.generation);
        all
    }
}

/// Number of sstables by level.
fn per_level(sstables: &[Rc<Sstable>]) -> Vec<u64> {
    let mut levels = vec![0];
    for sstable in sstables {
        // What a damaged level field says must not decide how much memory is taken.
        let level = (sstable.statistics.level as usize).min(64);
        if levels.len() <= level {
            levels.resize(level + 1, 0);
        }
        if let Some(count) = levels.get_mut(level) {
            *count += 1;
        }
    }
    levels
}

/// The least size, rounded down, in a histogram by number of bits.
fn smallest_of(sizes: &[u64]) -> Option<u64> {
    let bits = sizes.iter().position(|count| *count > 0)?;
    Some(if bits == 0 { 0 } else { 1 << (bits - 1).min(63) })
}

fn stats_of(table: &TableStore, now: i64) -> TableStats {
    let pending_compactions = crate::compaction::pending_of(table, now) as u64;
    let view = table.view();
    let sum = |figure: &dyn Fn(&Rc<Sstable>) -> u64| view.sstables.iter().map(figure).sum::<u64>();
    let largest = |figure: &dyn Fn(&Rc<Sstable>) -> u64| view.sstables.iter().map(figure).max().unwrap_or(0);
    let on_disk = sum(&|sstable| sstable.statistics.partitions);
    let uncompressed_bytes = sum(&|sstable| sstable.statistics.raw_size);
    let memtable_partitions: usize = view.unflushed().map(|memtable| memtable.partition_count()).sum();
    let memtable_bytes: usize = view.memtables().map(|memtable| memtable.memory()).sum();
    let counters = &table.counters;
    let gc_before = now - i64::from(table.definition().options.gc_grace_seconds);
    TableStats {
        table: table.id,
        sstables: view.sstables.len() as u64,
        disk_bytes: sum(&|sstable| sstable.data_size()),
        uncompressed_bytes,
        largest_sstable_bytes: largest(&|sstable| sstable.data_size()),
        partitions_estimate: on_disk + memtable_partitions as u64,
        smallest_partition_bytes: view
            .sstables
            .iter()
            .filter_map(|sstable| smallest_of(&sstable.statistics.partition_sizes))
            .min()
            .unwrap_or(0),
        sstable_partitions: on_disk,
        droppable_tombstones: sum(&|sstable| sstable.statistics.droppable_tombstones(gc_before)),
        cells_and_rows: sum(&|sstable| sstable.statistics.cells + sstable.statistics.rows),
        largest_partition_bytes: largest(&|sstable| sstable.statistics.largest_partition),
        mean_partition_bytes: uncompressed_bytes / on_disk.max(1),
        cells: sum(&|sstable| sstable.statistics.cells),
        tombstones: sum(&|sstable| sstable.statistics.tombstones),
        memtable_partitions: memtable_partitions as u64,
        memtable_cells: view.unflushed().map(|memtable| memtable.cells()).sum(),
        memtable_bytes: memtable_bytes as u64,
        pending_flushes: view.flushing.len() as u64,
        flushes: counters.flushes.get(),
        flushed_bytes: counters.flushed_bytes.get(),
        compactions: counters.compactions.get(),
        compacted_bytes: counters.compacted_bytes.get(),
        compaction_written_bytes: counters.compaction_written_bytes.get(),
        pending_compactions,
        sstables_expired: counters.sstables_expired.get(),
        sstables_per_level: per_level(&view.sstables),
        reads: counters.reads.get(),
        writes: counters.writes.get(),
        filter_true_positives: sum(&|sstable| sstable.lookups().0),
        filter_false_positives: sum(&|sstable| sstable.lookups().1),
        filter_bytes: sum(&|sstable| sstable.filter_memory() as u64),
        index_bytes: sum(&|sstable| sstable.index_memory() as u64),
    }
}
