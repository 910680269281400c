//! Figures of tables and of storage, for metrics and nodetool.

use ceto_model::{Schema, TableId};
use ceto_storage::Database;

use crate::metrics::Samples;

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
    /// Writes.
    pub writes: u64,
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
        self.partitions_estimate += other.partitions_estimate;
        self.memtable_cells += other.memtable_cells;
        self.memtable_bytes += other.memtable_bytes;
        self.flushes += other.flushes;
        self.pending_flushes += other.pending_flushes;
        self.compactions += other.compactions;
        self.reads += other.reads;
        self.writes += other.writes;
        self.filter_false_positives += other.filter_false_positives;
        self.filter_bytes += other.filter_bytes;
        self.index_bytes += other.index_bytes;
    }
}

/// Figures of each table of this shard.
pub fn table_figures(_database: &Database, _schema: &Schema) -> Vec<TableFigures> {
    Vec::new()
}

/// Adds storage's samples.
pub fn add_storage_samples(_database: &Database, _schema: &Schema, _samples: &mut Samples) {}
