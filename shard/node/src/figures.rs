//! Figures of tables and of storage, for metrics and nodetool.

use ceto_model::{Schema, TableId};
use ceto_storage::{Database, ReadStats, RowCacheStats, StorageStats, TableStats};

use rustc_hash::FxHashMap;

use crate::metrics::Samples;
use crate::replica::TableTimes;

/// Figures of one table on one shard; [`TableFigures::add`] makes the node's.
#[derive(Clone, PartialEq, Debug)]
pub struct TableFigures {
    /// Identity.
    pub id: TableId,
    /// Keyspace.
    pub keyspace: String,
    /// Name.
    pub table: String,
    /// Live sstables.
    pub sstables: u64,
    /// Bytes of live sstables.
    pub disk_bytes: u64,
    /// The same before compression.
    pub uncompressed_bytes: u64,
    /// Bytes of the largest one.
    pub largest_sstable_bytes: u64,
    /// Bytes of the smallest partition in an sstable before compression, rounded down to a power of two; 0 without one.
    pub smallest_partition_bytes: u64,
    /// Bytes of the largest.
    pub largest_partition_bytes: u64,
    /// Partitions in sstables, counted once per sstable.
    pub sstable_partitions: u64,
    /// Tombstones in sstables that are old enough to be dropped.
    pub droppable_tombstones: u64,
    /// Cells and rows in sstables.
    pub cells_and_rows: u64,
    /// Times a filter let a read through that found something.
    pub filter_true_positives: u64,
    /// Partitions, counted once per sstable that has them.
    pub partitions_estimate: u64,
    /// Cells in memtables.
    pub memtable_cells: u64,
    /// Bytes of memtables.
    pub memtable_bytes: u64,
    /// Memtables written out.
    pub flushes: u64,
    /// Memtables being written out.
    pub pending_flushes: u64,
    /// Compactions done.
    pub compactions: u64,
    /// Reads.
    pub reads: u64,
    /// What they took in all, in nanoseconds.
    pub read_nanos: u64,
    /// Writes.
    pub writes: u64,
    /// What they took in all, in nanoseconds.
    pub write_nanos: u64,
    /// Times a filter let a read through for nothing.
    pub filter_false_positives: u64,
    /// Bytes of filters.
    pub filter_bytes: u64,
    /// Bytes of indexes in memory.
    pub index_bytes: u64,
}

impl TableFigures {
    /// Adds another shard's figures of the same table.
    pub fn add(&mut self, other: &TableFigures) {
        self.sstables += other.sstables;
        self.disk_bytes += other.disk_bytes;
        self.uncompressed_bytes += other.uncompressed_bytes;
        self.largest_sstable_bytes = self.largest_sstable_bytes.max(other.largest_sstable_bytes);
        self.smallest_partition_bytes = match (self.smallest_partition_bytes, other.smallest_partition_bytes)
        {
            (0, only) | (only, 0) => only,
            (one, other) => one.min(other),
        };
        self.largest_partition_bytes = self.largest_partition_bytes.max(other.largest_partition_bytes);
        self.sstable_partitions += other.sstable_partitions;
        self.droppable_tombstones += other.droppable_tombstones;
        self.cells_and_rows += other.cells_and_rows;
        self.filter_true_positives += other.filter_true_positives;
        self.partitions_estimate += other.partitions_estimate;
        self.memtable_cells += other.memtable_cells;
        self.memtable_bytes += other.memtable_bytes;
        self.flushes += other.flushes;
        self.pending_flushes += other.pending_flushes;
        self.compactions += other.compactions;
        self.reads += other.reads;
        self.read_nanos += other.read_nanos;
        self.writes += other.writes;
        self.write_nanos += other.write_nanos;
        self.filter_false_positives += other.filter_false_positives;
        self.filter_bytes += other.filter_bytes;
        self.index_bytes += other.index_bytes;
    }
}

/// Figures of the row cache of one shard; [`RowCacheFigures::add`] makes the node's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowCacheFigures {
    /// Rows in it.
    pub rows: u64,
    /// Memory in use, bytes.
    pub bytes: u64,
    /// Memory it may use now, bytes.
    pub bytes_max: u64,
    /// Reads that needed nothing from sstables.
    pub hits: u64,
    /// Reads that went to sstables.
    pub misses: u64,
}

impl RowCacheFigures {
    /// Of a shard's storage.
    pub(crate) fn of(database: &Database) -> RowCacheFigures {
        let stats = database.stats().row_cache;
        RowCacheFigures {
            rows: stats.rows,
            bytes: stats.bytes,
            bytes_max: stats.bytes_max,
            hits: stats.hits,
            misses: stats.misses,
        }
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: &RowCacheFigures) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.bytes_max += other.bytes_max;
        self.hits += other.hits;
        self.misses += other.misses;
    }
}

/// Figures of each table of this shard.
pub(crate) fn table_figures(
    database: &Database,
    schema: &Schema,
    times: &FxHashMap<TableId, TableTimes>,
) -> Vec<TableFigures> {
    let named = |stats: TableStats| {
        let table = schema.table_by_id(stats.table)?;
        let times = times.get(&stats.table);
        Some(TableFigures {
            id: stats.table,
            keyspace: table.keyspace.to_string(),
            table: table.name.to_string(),
            sstables: stats.sstables,
            disk_bytes: stats.disk_bytes,
            uncompressed_bytes: stats.uncompressed_bytes,
            largest_sstable_bytes: stats.largest_sstable_bytes,
            smallest_partition_bytes: stats.smallest_partition_bytes,
            largest_partition_bytes: stats.largest_partition_bytes,
            sstable_partitions: stats.sstable_partitions,
            droppable_tombstones: stats.droppable_tombstones,
            cells_and_rows: stats.cells_and_rows,
            filter_true_positives: stats.filter_true_positives,
            partitions_estimate: stats.partitions_estimate,
            memtable_cells: stats.memtable_cells,
            memtable_bytes: stats.memtable_bytes,
            flushes: stats.flushes,
            pending_flushes: stats.pending_flushes,
            compactions: stats.compactions,
            reads: stats.reads,
            read_nanos: times.map_or(0, |times| times.reads.get()),
            writes: stats.writes,
            write_nanos: times.map_or(0, |times| times.writes.get()),
            filter_false_positives: stats.filter_false_positives,
            filter_bytes: stats.filter_bytes,
            index_bytes: stats.index_bytes,
        })
    };
    database.all_table_stats().into_iter().filter_map(named).collect()
}

/// How far the replay of a shard's commitlog is; counts of the pass under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplayFigures {
    /// It runs.
    pub is_running: bool,
    /// Segments read.
    pub segments_done: u64,
    /// Segments in all.
    pub segments: u64,
    /// Bytes read.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Entries read.
    pub entries: u64,
}

/// Adds the samples of the commitlog's replay.
pub(crate) fn add_replay(figures: &ReplayFigures, samples: &mut Samples) {
    let mut gauge = |name, help, value: u64| samples.gauge(name, help, &[], value as f64);
    gauge(
        "ceto_commitlog_replay_bytes",
        "Bytes of commitlog segments that the last start had to read.",
        figures.bytes,
    );
    gauge(
        "ceto_commitlog_replay_bytes_done",
        "How many of them it has read.",
        figures.bytes_done,
    );
    gauge(
        "ceto_commitlog_replay_entries",
        "Entries it has read.",
        figures.entries,
    );
}

/// Adds storage's samples: the shard's, and a few of each client's table.
pub(crate) fn add_storage_samples(database: &Database, schema: &Schema, samples: &mut Samples) {
    add_shard(&database.stats(), samples);
    for stats in database.all_table_stats() {
        let Some(table) = schema.table_by_id(stats.table) else {
            continue;
        };
        let labels: [(&'static str, &str); 2] = [("keyspace", &table.keyspace), ("table", &table.name)];
        add_table(&stats, &labels, samples);
    }
}

fn add_shard(stats: &StorageStats, samples: &mut Samples) {
    let mut gauge = |name, help, value: u64| samples.gauge(name, help, &[], value as f64);
    gauge(
        "ceto_memtable_bytes",
        "Memory of memtables.",
        stats.memtable_bytes,
    );
    gauge(
        "ceto_memtable_bytes_max",
        "Bound of it (memtable_heap_space).",
        stats.memtable_bytes_max,
    );
    gauge(
        "ceto_waiting_writes",
        "Writes that wait for memtable or commitlog space.",
        stats.waiting_writes,
    );
    gauge(
        "ceto_storage_memory_bytes",
        "Memory of memtables, caches, reads and open sstables.",
        stats.memory_bytes,
    );
    gauge(
        "ceto_storage_memory_bytes_max",
        "Bound of it (memory_limit).",
        stats.memory_bytes_max,
    );
    gauge(
        "ceto_pending_flushes",
        "Memtables that wait for a flush or are being flushed.",
        stats.pending_flushes,
    );
    gauge(
        "ceto_pending_compactions",
        "Compactions that strategies want.",
        stats.pending_compactions,
    );
    gauge(
        "ceto_running_compactions",
        "Compactions that run.",
        stats.running_compactions.len() as u64,
    );
    gauge(
        "ceto_compaction_backlog_bytes",
        "Bytes that strategies would have to write now until nothing is left to do.",
        stats.compaction_backlog_bytes,
    );
    gauge(
        "ceto_compaction_shares",
        "Shares of the processor that the backlog gives compaction.",
        stats.compaction_shares,
    );
    gauge(
        "ceto_compaction_throughput_max",
        "Bytes per second that compactions may write; 0 for no limit (compaction_throughput).",
        stats.compaction_throughput,
    );
    gauge(
        "ceto_running_compactions_bytes",
        "Bytes of the inputs of compactions that run.",
        stats
            .running_compactions
            .iter()
            .map(|running| running.total_bytes)
            .sum(),
    );
    gauge(
        "ceto_running_compactions_read_bytes",
        "Bytes of them that were read.",
        stats
            .running_compactions
            .iter()
            .map(|running| running.read_bytes)
            .sum(),
    );
    gauge(
        "ceto_unreadable_sstables",
        "Sstables that could not be opened at start; their tables cannot be read.",
        stats.unreadable_sstables,
    );
    gauge(
        "ceto_writes_refused",
        "1 when the disk is full or has failed.",
        u64::from(stats.refuses_writes),
    );
    gauge(
        "ceto_commitlog_segments",
        "Segments that hold entries.",
        stats.commitlog.segments,
    );
    gauge(
        "ceto_commitlog_bytes",
        "Bytes of all segment files.",
        stats.commitlog.disk_bytes,
    );
    gauge(
        "ceto_cache_bytes",
        "Memory of the block cache.",
        stats.block_cache_bytes,
    );
    gauge(
        "ceto_cache_bytes_max",
        "Bound of it.",
        stats.block_cache_bytes_max,
    );
    add_row_cache(&stats.row_cache, samples);
    add_reads(&stats.reads, samples);
    let mut count = |name, help, value: u64| samples.counter(name, help, &[], value);
    count(
        "ceto_commitlog_appends_total",
        "Entries appended.",
        stats.commitlog.appends,
    );
    count(
        "ceto_commitlog_appended_bytes_total",
        "Bytes appended.",
        stats.commitlog.appended_bytes,
    );
    count(
        "ceto_commitlog_uncompressed_bytes_total",
        "Bytes of the appended entries' mutations before compression.",
        stats.commitlog.raw_bytes,
    );
    count(
        "ceto_compactions_completed_total",
        "Compactions done.",
        stats.completed_compactions,
    );
    count(
        "ceto_compactions_aborted_total",
        "Compactions stopped on request.",
        stats.aborted_compactions,
    );
    count(
        "ceto_compactions_reduced_total",
        "Compactions that left sstables out for want of disk space.",
        stats.reduced_compactions,
    );
    count(
        "ceto_writes_timed_out_total",
        "Writes that found no memtable or commitlog space in time.",
        stats.writes_timed_out,
    );
    count("ceto_commitlog_syncs_total", "Syncs.", stats.commitlog.syncs);
    count(
        "ceto_cache_hits_total",
        "Blocks found in the cache.",
        stats.block_cache_hits,
    );
    count(
        "ceto_cache_misses_total",
        "Blocks not found in it.",
        stats.block_cache_misses,
    );
}

fn add_reads(stats: &ReadStats, samples: &mut Samples) {
    let mut gauge = |name, help, value: u64| samples.gauge(name, help, &[], value as f64);
    gauge("ceto_disk_reads_running", "Reads from disk.", stats.running);
    gauge(
        "ceto_disk_reads_running_max",
        "Bound of it (concurrent_reads).",
        stats.running_max,
    );
    gauge(
        "ceto_disk_reads_waiting",
        "Reads that wait in line.",
        stats.waiting,
    );
    gauge(
        "ceto_disk_reads_bytes",
        "Memory that reads from disk hold.",
        stats.bytes,
    );
    gauge("ceto_disk_reads_bytes_max", "Bound of it.", stats.bytes_max);
    let mut count = |name, help, value: u64| samples.counter(name, help, &[], value);
    count(
        "ceto_disk_reads_admitted_total",
        "Reads from disk that began.",
        stats.admitted,
    );
    count(
        "ceto_disk_reads_queued_total",
        "Reads that had to wait in line.",
        stats.queued,
    );
    count(
        "ceto_disk_reads_timed_out_total",
        "Reads that gave up in line.",
        stats.timed_out,
    );
    count(
        "ceto_disk_reads_refused_total",
        "Reads that found the line full.",
        stats.refused,
    );
    count(
        "ceto_pages_cut_short_total",
        "Pages that ended early because reads hold all the memory they may.",
        stats.cut_short,
    );
}

fn add_row_cache(stats: &RowCacheStats, samples: &mut Samples) {
    let mut gauge = |name, help, value: u64| samples.gauge(name, help, &[], value as f64);
    gauge("ceto_row_cache_bytes", "Memory of the row cache.", stats.bytes);
    gauge("ceto_row_cache_bytes_max", "Bound of it now.", stats.bytes_max);
    gauge("ceto_row_cache_rows", "Rows in the row cache.", stats.rows);
    gauge(
        "ceto_row_cache_partitions",
        "Partitions in the row cache, in full or in part.",
        stats.partitions,
    );
    let mut count = |name, help, value: u64| samples.counter(name, help, &[], value);
    count(
        "ceto_row_cache_hits_total",
        "Reads that needed nothing from sstables.",
        stats.hits,
    );
    count(
        "ceto_row_cache_misses_total",
        "Reads that had to go to sstables.",
        stats.misses,
    );
    count(
        "ceto_row_cache_row_insertions_total",
        "Rows taken into the row cache.",
        stats.row_insertions,
    );
    count(
        "ceto_row_cache_row_evictions_total",
        "Rows forgotten for room.",
        stats.row_evictions,
    );
    count(
        "ceto_row_cache_partition_insertions_total",
        "Partitions taken into the row cache.",
        stats.partition_insertions,
    );
    count(
        "ceto_row_cache_partition_evictions_total",
        "Partitions forgotten for room.",
        stats.partition_evictions,
    );
}

fn add_table(stats: &TableStats, labels: &[(&'static str, &str)], samples: &mut Samples) {
    let mut gauge = |name, help, value: u64| samples.gauge(name, help, labels, value as f64);
    gauge("ceto_table_sstables", "Live sstables.", stats.sstables);
    gauge(
        "ceto_table_disk_bytes",
        "Bytes of live sstables.",
        stats.disk_bytes,
    );
    gauge(
        "ceto_table_memtable_bytes",
        "Memory of the table's memtables.",
        stats.memtable_bytes,
    );
    gauge(
        "ceto_table_pending_compactions",
        "Compactions that the table's strategy wants.",
        stats.pending_compactions,
    );
    let mut count = |name, help, value: u64| samples.counter(name, help, labels, value);
    count(
        "ceto_table_reads_total",
        "Reads of this shard's data.",
        stats.reads,
    );
    count(
        "ceto_table_writes_total",
        "Writes to this shard's data.",
        stats.writes,
    );
    count(
        "ceto_table_flushes_total",
        "Memtables written out.",
        stats.flushes,
    );
    count(
        "ceto_table_flushed_bytes_total",
        "Bytes that flushes wrote.",
        stats.flushed_bytes,
    );
    count(
        "ceto_table_compactions_total",
        "Compactions done.",
        stats.compactions,
    );
    count(
        "ceto_table_compacted_bytes_total",
        "Bytes that compactions read.",
        stats.compacted_bytes,
    );
    count(
        "ceto_table_compaction_written_bytes_total",
        "Bytes that compactions wrote.",
        stats.compaction_written_bytes,
    );
    count(
        "ceto_table_sstables_expired_total",
        "Sstables dropped unread because all in them had expired.",
        stats.sstables_expired,
    );
    let false_positives = stats.filter_false_positives;
    count(
        "ceto_table_filter_false_positives_total",
        "Lookups a filter let through for nothing.",
        false_positives,
    );
}
