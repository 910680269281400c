//! Compaction as operators see it: what they ask a shard for, and `system.compaction_history`.
//!
//! Each shard writes a row of the history to the shard that its key belongs to, after the compaction is done; should that
//! fail, the row is missing and nothing else. The history does not tell of its own compactions.

use std::rc::Rc;

use ceto_env::TaskQueue;
use ceto_model::value::Value;
use ceto_model::{DecoratedKey, Expiry, Partition, TableId, Timestamp, Token, Ttl, UnixSeconds};
use ceto_storage::{CompactionRecord, CompactionStats, Database, MajorCompaction, StorageStats};
use tracing::warn;
use uuid::Uuid;

use crate::node::Node;
use crate::system::definitions::{COMPACTION_HISTORY, SYSTEM};
use crate::system::row::{StoredRow, SystemRow, text};

/// Seconds that a row of the history is kept, as in Cassandra.
const KEPT: Ttl = Ttl(7 * 24 * 3600);

/// What one shard compacts and may compact.
#[derive(Clone, PartialEq, Debug)]
pub struct CompactionFigures {
    /// Compactions that run, and builds of indexes, with keyspace and table.
    pub running: Vec<(String, String, CompactionStats)>,
    /// Compactions that strategies want and that do not run, by keyspace and table; none with 0.
    pub pending: Vec<(String, String, u64)>,
    /// Bytes that compactions have read.
    pub compacted_bytes: u64,
    /// The shard's.
    pub storage: StorageStats,
}

/// A row of `system.compaction_history`.
#[derive(Clone, PartialEq, Debug)]
pub struct HistoryRow {
    /// Of the compaction.
    pub id: Uuid,
    /// Of its table.
    pub keyspace: String,
    /// Its table.
    pub table: String,
    /// When it was done, in milliseconds since the Unix epoch.
    pub compacted_at_ms: i64,
    /// Bytes of its inputs.
    pub bytes_in: i64,
    /// Bytes of its outputs.
    pub bytes_out: i64,
    /// How many partitions were in how many of the inputs.
    pub partitions_merged: Vec<(i32, i64)>,
    /// What kind of compaction it was, and the like.
    pub properties: Vec<(String, String)>,
}

impl Node {
    /// From now on what this shard compacts is noted in `system.compaction_history`.
    pub(crate) fn note_compactions(self: &Rc<Self>, database: &Database) {
        let this = Rc::downgrade(self);
        database.set_compaction_listener(Rc::new(move |record| {
            if let Some(node) = this.upgrade() {
                node.note_compaction(record);
            }
        }));
    }

    fn note_compaction(self: &Rc<Self>, record: &CompactionRecord) {
        let schema = self.schema();
        let (Some(table), Some(history)) = (
            schema.table_by_id(record.table),
            schema.table(SYSTEM, COMPACTION_HISTORY),
        ) else {
            return;
        };
        if table.id == history.id {
            return;
        }
        let merged = record.partitions_merged.iter();
        let merged = merged.map(|(inputs, count)| {
            (
                Value::Int(inputs.cast_signed()),
                Value::Bigint(count.cast_signed()),
            )
        });
        let kind = (text("compaction_type"), text(record.kind));
        let row = SystemRow::default()
            .with("id", Value::Uuid(record.id))
            .with("bytes_in", Value::Bigint(record.bytes_in.cast_signed()))
            .with("bytes_out", Value::Bigint(record.bytes_out.cast_signed()))
            .with("columnfamily_name", text(&*table.name))
            .with("compacted_at", Value::Timestamp(record.compacted_at_ms))
            .with("compaction_properties", Value::Map(vec![kind]))
            .with("keyspace_name", text(&*table.keyspace))
            .with("rows_merged", Value::Map(merged.collect()));
        let now = UnixSeconds(self.env.clock().unix_seconds());
        let mut mutation = row.insert(history, Timestamp(self.next_timestamp()), now);
        let expiry = Some(Expiry::after(now, KEPT));
        for (_, row) in &mut mutation.partition.rows {
            row.expire_cells(expiry);
            if let Some(liveness) = &mut row.liveness {
                liveness.expiry = expiry;
            }
        }
        let owner = mutation.key.token.shard(self.shard_count());
        let node = self.clone();
        let write = async move {
            let written = node.on_shard(owner, move |node| {
                Box::pin(async move { node.apply_here(mutation).await.map_err(|failure| failure.message) })
            });
            if let Err(error) = written.await {
                warn!("a compaction is missing in system.compaction_history: {error}");
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(write));
    }

    /// This shard's part of `system.compaction_history`.
    pub async fn compaction_history(self: &Rc<Self>) -> Result<Vec<HistoryRow>, String> {
        let schema = self.schema();
        let Some(history) = schema.table(SYSTEM, COMPACTION_HISTORY) else {
            return Ok(Vec::new());
        };
        let now = UnixSeconds(self.env.clock().unix_seconds());
        let stored = self.read_whole_table(history.id).await?;
        let row = |(key, partition): &(DecoratedKey, Partition)| {
            let (clustering, row) = partition.rows.first()?;
            history_row(&StoredRow::new(history, key, clustering, row, now)?)
        };
        Ok(stored.iter().filter_map(row).collect())
    }

    /// What this shard compacts now.
    pub fn compaction_figures(&self) -> Option<CompactionFigures> {
        let database = self.database().ok()?;
        let schema = self.schema();
        let name = |id: TableId| {
            let table = schema.table_by_id(id)?;
            Some((table.keyspace.to_string(), table.name.to_string()))
        };
        let storage = database.stats();
        let all = storage.running_compactions.iter().chain(&storage.index_builds);
        let running = all.filter_map(|running| {
            let (keyspace, table) = name(running.table)?;
            Some((keyspace, table, running.clone()))
        });
        let tables = database.all_table_stats();
        let compacted_bytes = tables.iter().map(|stats| stats.compacted_bytes).sum();
        let pending = tables.into_iter().filter_map(|stats| {
            let (keyspace, table) = name(stats.table)?;
            (stats.pending_compactions > 0).then_some((keyspace, table, stats.pending_compactions))
        });
        Some(CompactionFigures {
            running: running.collect(),
            pending: pending.collect(),
            compacted_bytes,
            storage,
        })
    }

    /// Compacts a table as far as its strategy's rules allow.
    pub async fn compact(self: &Rc<Self>, table: TableId, what: MajorCompaction) -> Result<(), String> {
        let database = self.open_database()?;
        database.compact_major(table, what).await.map_err(to_text)
    }

    /// Compacts the named Data files of this shard with each other.
    pub async fn compact_files(self: &Rc<Self>, files: &[String]) -> Result<(), String> {
        self.open_database()?.compact_files(files).await.map_err(to_text)
    }

    /// This shard has an sstable with that Data file: a path, or the last part of one.
    pub fn has_data_file(&self, file: &str) -> bool {
        self.database().is_ok_and(|database| database.has_data_file(file))
    }

    /// Removes from a table what does not belong to this node.
    pub async fn cleanup(self: &Rc<Self>, table: TableId) -> Result<(), String> {
        self.flush(table).await?;
        let owned = self.owned_ranges(table);
        self.open_database()?.cleanup(table, owned).await.map_err(to_text)
    }

    /// Writes a table's sstables anew without what cannot be read.
    pub async fn scrub(self: &Rc<Self>, table: TableId) -> Result<(), String> {
        self.open_database()?.scrub(table).await.map_err(to_text)
    }

    /// Writes a table's sstables anew: those that are not as its options ask for, or all.
    pub async fn upgrade(self: &Rc<Self>, table: TableId, all: bool) -> Result<(), String> {
        self.open_database()?.upgrade(table, all).await.map_err(to_text)
    }

    /// Removes from a table's sstables what others shadow.
    pub async fn garbage_collect(self: &Rc<Self>, table: TableId, cells: bool) -> Result<(), String> {
        self.open_database()?
            .garbage_collect(table, cells)
            .await
            .map_err(to_text)
    }

    /// Stops this shard's compactions of that id (a UUID) and kind; returns how many.
    pub fn stop_compactions(&self, id: Option<&str>, kind: Option<&str>) -> usize {
        let id = match id.map(Uuid::try_parse) {
            None => None,
            Some(Ok(id)) => Some(id),
            // No compaction has such an id.
            Some(Err(_)) => return 0,
        };
        self.database()
            .map_or(0, |database| database.stop_compactions(id, kind))
    }

    /// Limits what compactions of this shard write, in bytes per second; 0: no limit.
    pub fn set_compaction_throughput(&self, bytes_per_second: u64) {
        if let Ok(database) = self.database() {
            database.set_compaction_throughput(bytes_per_second);
        }
    }

    /// Lets compactions of a table start by themselves, or not.
    pub fn set_automatic_compaction(&self, table: TableId, is_on: bool) -> Result<(), String> {
        let database = self.open_database()?;
        database.set_automatic_compaction(table, is_on).map_err(to_text)
    }

    /// Compactions of a table start by themselves.
    pub fn has_automatic_compaction(&self, table: TableId) -> Result<bool, String> {
        self.open_database()?
            .has_automatic_compaction(table)
            .map_err(to_text)
    }

    fn open_database(&self) -> Result<&Rc<Database>, String> {
        self.database().map_err(|failure| failure.message)
    }

    /// Ranges of tokens, bounds included, of which this node is a replica.
    fn owned_ranges(&self, table: TableId) -> Vec<(Token, Token)> {
        let schema = self.schema();
        let map = schema
            .table_by_id(table)
            .and_then(|table| self.replication(&table.keyspace));
        let Some(map) = map else {
            return vec![(Token::MIN, Token::MAX)];
        };
        let mut owned: Vec<(Token, Token)> = Vec::new();
        let mut start = Some(Token::MIN);
        let ends = map.ends().iter().copied().filter(|end| *end != Token::MAX);
        for end in ends.chain([Token::MAX]) {
            let Some(first) = start else { break };
            start = end.0.checked_add(1).map(Token);
            if !map.is_replica(map.local(), end) {
                continue;
            }
            match owned.last_mut() {
                Some((_, last)) if last.0.checked_add(1) == Some(first.0) => *last = end,
                _ => owned.push((first, end)),
            }
        }
        owned
    }
}

fn to_text(error: ceto_storage::Error) -> String {
    error.to_string()
}

fn history_row(row: &StoredRow<'_>) -> Option<HistoryRow> {
    Some(HistoryRow {
        id: row.uuid("id")?,
        keyspace: row.text("keyspace_name"),
        table: row.text("columnfamily_name"),
        compacted_at_ms: row.timestamp("compacted_at")?,
        bytes_in: row.bigint("bytes_in")?,
        bytes_out: row.bigint("bytes_out")?,
        partitions_merged: row.counts("rows_merged"),
        properties: row.text_map("compaction_properties"),
    })
}
