//! Tables and their columns.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::{IndexDefinition, ViewDefinition};
use crate::index::Index;
use crate::row::ColumnId;
use crate::types::CqlType;

/// Identity of a table: survives nothing but itself (a table dropped and made again has another).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub Uuid);

impl fmt::Debug for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What part a column plays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ColumnKind {
    /// Part of the partition key.
    PartitionKey,
    /// Part of the clustering key.
    Clustering,
    /// One value per partition.
    Static,
    /// One value per row.
    Regular,
}

impl ColumnKind {
    /// As in `system_schema.columns.kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PartitionKey => "partition_key",
            Self::Clustering => "clustering",
            Self::Static => "static",
            Self::Regular => "regular",
        }
    }
}

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Identity within the table.
    pub id: ColumnId,
    /// Name as stored (not quoted).
    pub name: Arc<str>,
    /// Its part.
    pub kind: ColumnKind,
    /// Index within the partition key or clustering key; 0 for others.
    pub position: u16,
    /// Its type.
    pub cql_type: CqlType,
    /// `CLUSTERING ORDER BY ... DESC`.
    pub descending: bool,
    /// A view's own, which no statement can name or gets to see.
    pub is_hidden: bool,
}

impl Column {
    /// Part of the primary key.
    pub fn is_primary_key(&self) -> bool {
        matches!(self.kind, ColumnKind::PartitionKey | ColumnKind::Clustering)
    }
}

/// A column that was dropped: its cells may still lie on disk and are skipped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DroppedColumn {
    /// Identity it had.
    pub id: ColumnId,
    /// Name it had.
    pub name: Arc<str>,
    /// Static or regular.
    pub kind: ColumnKind,
    /// Type it had; a column of this name can only come back with a compatible one.
    pub cql_type: CqlType,
    /// Microseconds since the Unix epoch.
    pub dropped_at: i64,
}

/// `WITH` options of a table, as in `system_schema.tables`. Map-valued options are kept as validated text.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // the names and meanings are Cassandra's
pub struct TableOptions {
    pub additional_write_policy: String,
    pub allow_auto_snapshot: bool,
    pub bloom_filter_fp_chance: f64,
    pub caching: BTreeMap<String, String>,
    pub cdc: bool,
    pub comment: String,
    pub compaction: BTreeMap<String, String>,
    pub compression: BTreeMap<String, String>,
    pub crc_check_chance: f64,
    pub default_time_to_live: u32,
    pub extensions: BTreeMap<String, Vec<u8>>,
    pub gc_grace_seconds: u32,
    pub incremental_backups: bool,
    pub max_index_interval: u32,
    pub memtable: String,
    pub memtable_flush_period_in_ms: u32,
    pub min_index_interval: u32,
    pub read_repair: String,
    pub speculative_retry: String,
}

impl Default for TableOptions {
    fn default() -> Self {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        Self {
            additional_write_policy: "99p".to_owned(),
            allow_auto_snapshot: true,
            bloom_filter_fp_chance: 0.01,
            caching: map(&[("keys", "ALL"), ("rows_per_partition", "NONE")]),
            cdc: false,
            comment: String::new(),
            compaction: map(&[
                (
                    "class",
                    "org.apache.cassandra.db.compaction.SizeTieredCompactionStrategy",
                ),
                ("max_threshold", "32"),
                ("min_threshold", "4"),
            ]),
            compression: map(&[
                ("chunk_length_in_kb", "16"),
                ("class", "org.apache.cassandra.io.compress.LZ4Compressor"),
            ]),
            crc_check_chance: 1.0,
            default_time_to_live: 0,
            extensions: BTreeMap::new(),
            gc_grace_seconds: 864_000,
            incremental_backups: true,
            max_index_interval: 2048,
            memtable: "default".to_owned(),
            memtable_flush_period_in_ms: 0,
            min_index_interval: 128,
            read_repair: "BLOCKING".to_owned(),
            speculative_retry: "99p".to_owned(),
        }
    }
}

/// A table.
///
/// Invariants: at least one partition key column; ids are unique among columns and dropped columns and below
/// `next_column_id`; `columns` is in the order of `SELECT *`: partition key, clustering key, static columns by name,
/// regular columns by name.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    /// Identity.
    pub id: TableId,
    /// Keyspace name.
    pub keyspace: Arc<str>,
    /// Name as stored (not quoted).
    pub name: Arc<str>,
    /// `WITH` options.
    pub options: TableOptions,
    /// Has counter columns (and then no others outside the key).
    pub is_counter: bool,
    /// `WITH COMPACT STORAGE`: a row is there while one of its columns is, and columns are neither added nor dropped.
    pub is_compact: bool,
    /// Its rows are made up on each read; it cannot be written.
    pub is_virtual: bool,
    /// It is a materialized view.
    pub view: Option<Arc<ViewDefinition>>,
    /// Dropped columns.
    pub dropped: Vec<DroppedColumn>,
    /// Id that the next added column gets.
    pub next_column_id: u32,
    columns: Vec<Column>,
    by_name: FxHashMap<Arc<str>, usize>,
    partition_key_count: usize,
    clustering_count: usize,
    static_count: usize,
    /// Types and order of the clustering columns, as `comparable` takes them.
    clustering_types: Vec<(CqlType, bool)>,
    /// Secondary indexes by name.
    indexes: Vec<Arc<Index>>,
}

impl Table {
    /// All columns in the order of `SELECT *`, a view's hidden ones too.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Columns that statements can name, in the order of `SELECT *`.
    pub fn shown_columns(&self) -> impl Iterator<Item = &Column> + Clone {
        self.columns.iter().filter(|column| !column.is_hidden)
    }

    /// Clustering columns that statements can name.
    pub fn shown_clustering(&self) -> &[Column] {
        let clustering = self.clustering();
        let shown = clustering.iter().take_while(|column| !column.is_hidden).count();
        &clustering[..shown]
    }

    /// A materialized view.
    pub fn is_view(&self) -> bool {
        self.view.is_some()
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.get(*self.by_name.get(name)?)
    }

    /// Index of a column in [`Table::columns`].
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// A column by id.
    pub fn column_by_id(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// Partition key columns in order.
    pub fn partition_key(&self) -> &[Column] {
        &self.columns[..self.partition_key_count]
    }

    /// Clustering columns in order.
    pub fn clustering(&self) -> &[Column] {
        &self.columns[self.partition_key_count..self.partition_key_count + self.clustering_count]
    }

    /// Static columns by name.
    pub fn statics(&self) -> &[Column] {
        let start = self.partition_key_count + self.clustering_count;
        &self.columns[start..start + self.static_count]
    }

    /// Regular columns by name.
    pub fn regulars(&self) -> &[Column] {
        &self.columns[self.partition_key_count + self.clustering_count + self.static_count..]
    }

    /// Has static columns.
    pub fn has_statics(&self) -> bool {
        self.static_count > 0
    }

    /// `WITH COMPACT STORAGE`, with clustering columns: at most one other column.
    pub fn is_dense(&self) -> bool {
        self.is_compact && self.clustering_count > 0
    }

    /// Types of the clustering columns and whether each is descending, as `comparable` takes them.
    pub fn clustering_types(&self) -> &[(CqlType, bool)] {
        &self.clustering_types
    }

    /// Secondary indexes, by name.
    pub fn indexes(&self) -> &[Arc<Index>] {
        &self.indexes
    }

    /// A builder with this table's content.
    pub fn to_builder(&self) -> TableBuilder {
        TableBuilder {
            id: self.id,
            keyspace: self.keyspace.clone(),
            name: self.name.clone(),
            options: self.options.clone(),
            is_compact: self.is_compact,
            is_virtual: self.is_virtual,
            view: self.view.clone(),
            dropped: self.dropped.clone(),
            next_column_id: self.next_column_id,
            columns: self.columns.clone(),
            indexes: self
                .indexes
                .iter()
                .map(|index| index.definition.clone())
                .collect(),
        }
    }
}

/// Builds a [`Table`], which sorts and indexes the columns.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // as in `Table`
pub struct TableBuilder {
    pub id: TableId,
    pub keyspace: Arc<str>,
    pub name: Arc<str>,
    pub options: TableOptions,
    pub is_compact: bool,
    pub is_virtual: bool,
    pub view: Option<Arc<ViewDefinition>>,
    pub dropped: Vec<DroppedColumn>,
    pub next_column_id: u32,
    pub columns: Vec<Column>,
    pub indexes: Vec<IndexDefinition>,
}

impl TableBuilder {
    /// An empty table with default options.
    pub fn new(id: TableId, keyspace: &str, name: &str) -> TableBuilder {
        TableBuilder {
            id,
            keyspace: keyspace.into(),
            name: name.into(),
            options: TableOptions::default(),
            is_compact: false,
            is_virtual: false,
            view: None,
            dropped: Vec::new(),
            next_column_id: 0,
            columns: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// Adds a column with the next id; key columns take the next position.
    pub fn add_column(&mut self, name: &str, kind: ColumnKind, cql_type: CqlType) -> &mut Self {
        let id = ColumnId(self.next_column_id);
        self.next_column_id += 1;
        let position = match kind {
            ColumnKind::PartitionKey | ColumnKind::Clustering => {
                self.columns.iter().filter(|column| column.kind == kind).count() as u16
            }
            ColumnKind::Static | ColumnKind::Regular => 0,
        };
        self.columns.push(Column {
            id,
            name: name.into(),
            kind,
            position,
            cql_type,
            descending: false,
            is_hidden: false,
        });
        self
    }

    /// The table.
    ///
    /// # Panics
    /// Without a partition key column, or with two columns of one name: the caller has validated the statement.
    pub fn build(mut self) -> Table {
        self.columns.sort_by(|a, b| {
            a.kind
                .cmp(&b.kind)
                .then_with(|| a.position.cmp(&b.position))
                .then_with(|| a.name.cmp(&b.name))
        });
        let count = |kind| self.columns.iter().filter(|column| column.kind == kind).count();
        let (partition_key_count, clustering_count) =
            (count(ColumnKind::PartitionKey), count(ColumnKind::Clustering));
        let static_count = count(ColumnKind::Static);
        assert!(
            partition_key_count > 0,
            "table {}.{} has no partition key",
            self.keyspace,
            self.name
        );
        let by_name: FxHashMap<Arc<str>, usize> = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| !column.is_hidden)
            .map(|(i, column)| (column.name.clone(), i))
            .collect();
        assert!(
            by_name.len() == self.columns.iter().filter(|column| !column.is_hidden).count(),
            "table {}.{} has a column twice",
            self.keyspace,
            self.name
        );
        let clustering = self
            .columns
            .iter()
            .filter(|column| column.kind == ColumnKind::Clustering);
        let mut table = Table {
            id: self.id,
            keyspace: self.keyspace,
            name: self.name,
            options: self.options,
            is_counter: self
                .columns
                .iter()
                .any(|column| column.cql_type == CqlType::Counter),
            is_compact: self.is_compact,
            is_virtual: self.is_virtual,
            view: self.view,
            dropped: self.dropped,
            next_column_id: self.next_column_id,
            clustering_types: clustering
                .map(|column| (column.cql_type.clone(), column.descending))
                .collect(),
            columns: self.columns,
            by_name,
            partition_key_count,
            clustering_count,
            static_count,
            indexes: Vec::new(),
        };
        let indexes = self.indexes.into_iter();
        table.indexes = indexes
            .filter_map(|definition| Index::new(definition, &table).map(Arc::new))
            .collect();
        table
            .indexes
            .sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        table
    }
}
