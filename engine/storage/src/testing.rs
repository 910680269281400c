//! What the tests of this crate share: a table, keys, random writes, a machine in memory.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::key::{BOUND_AFTER, BOUND_BEFORE, COMPONENT, KEY_END};
use ceto_model::read::{ColumnSelection, ReadResult};
use ceto_model::*;
use indexmap::IndexMap;
use uuid::Uuid;

use crate::{CommitlogSync, Database, StorageOptions};

/// Id of the table that most tests use.
pub(crate) const TABLE: TableId = TableId(Uuid::from_u128(0x1111));
/// The second that reads use.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_700_000_000);
pub(crate) const DATA: &str = "/ceto";

/// A small random source.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed ^ 0x1234_5678_9abc_def1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

pub(crate) fn table_named(
    id: TableId,
    name: &str,
    change: impl FnOnce(&mut schema::TableBuilder),
) -> Arc<Table> {
    let mut builder = schema::TableBuilder::new(id, "ks", name);
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Blob);
    builder.add_column("c", ColumnKind::Clustering, CqlType::Blob);
    builder.add_column("s", ColumnKind::Static, CqlType::Blob);
    builder.add_column("v", ColumnKind::Regular, CqlType::Blob);
    builder.add_column("w", ColumnKind::Regular, CqlType::Blob);
    builder.options.gc_grace_seconds = 100;
    change(&mut builder);
    Arc::new(builder.build())
}

pub(crate) fn schema_of(tables: &[Arc<Table>]) -> Arc<Schema> {
    let keyspace = Keyspace {
        name: "ks".into(),
        durable_writes: true,
        replication: schema::ReplicationOptions(IndexMap::new()),
        tables: tables
            .iter()
            .map(|table| (table.name.clone(), table.clone()))
            .collect(),
        types: Default::default(),
        functions: Default::default(),
        is_virtual: false,
    };
    Arc::new(Schema::default().with_keyspace(keyspace, Uuid::from_u128(1)))
}

pub(crate) fn schema() -> Arc<Schema> {
    schema_of(&[table_named(TABLE, "t", |_| {})])
}

pub(crate) fn options(shard: u16, shard_count: u16) -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 16 << 10,
        commitlog_total_space: 256 << 10,
        commitlog_sync: CommitlogSync::Batch,
        memtable_space: 256 << 10,
        compaction_throughput: 0,
        block_cache_size: 64 << 10,
        ..StorageOptions::new(DATA, shard, shard_count)
    }
}

pub(crate) fn machine(seed: u64) -> (Rc<MemoryDisk>, Rc<MemoryEnv>) {
    let disk = MemoryDisk::new(seed);
    let env = MemoryEnv::new(disk.clone(), seed);
    (disk, env)
}

/// Opens a shard and finishes its recovery.
pub(crate) async fn open(env: &Rc<MemoryEnv>, options: StorageOptions) -> crate::Result<Rc<Database>> {
    let database = Database::open(env.clone(), options, schema()).await?;
    database.finish_recovery(schema()).await?;
    Ok(database)
}

pub(crate) fn key(number: u64) -> DecoratedKey {
    DecoratedKey::new(PartitionKey(Bytes::copy_from_slice(&number.to_be_bytes())))
}

pub(crate) fn clustering(number: u16) -> ClusteringKey {
    let mut bytes = vec![COMPONENT];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.push(KEY_END);
    ClusteringKey(bytes.into())
}

pub(crate) fn position(number: u16, after: bool) -> Position {
    let mut bytes = vec![COMPONENT];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.push(if after { BOUND_AFTER } else { BOUND_BEFORE });
    Position(bytes.into())
}

pub(crate) fn slice(first: u16, last: u16) -> Slice {
    Slice {
        start: position(first, false),
        end: position(last, true),
    }
}

pub(crate) fn deletion(timestamp: i64) -> Deletion {
    Deletion {
        timestamp: Timestamp(timestamp),
        deleted_at: UnixSeconds(NOW.0 - 10),
    }
}

/// One row with one value in column 3.
pub(crate) fn row_write(partition: u64, row: u16, timestamp: i64, value: &[u8]) -> Mutation {
    let mut mutation = Mutation::new(TABLE, key(partition));
    let mut content = Row {
        liveness: Some(Liveness {
            timestamp: Timestamp(timestamp),
            expiry: None,
        }),
        ..Row::default()
    };
    let cell = Cell::live(Timestamp(timestamp), Bytes::copy_from_slice(value));
    content.merge_column(ColumnId(3), ColumnData::Cell(cell));
    mutation.partition.row_mut(clustering(row)).merge(content);
    mutation
}

/// Bounds of random writes.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) partitions: u64,
    pub(crate) rows: u16,
    pub(crate) value_size: u64,
    /// Timestamps are below it, so that they tie.
    pub(crate) timestamps: u64,
    pub(crate) deletions: bool,
}

/// A random write: rows, cells, deletions of every scope.
pub(crate) fn random_write(dice: &mut Dice, shape: Shape) -> Mutation {
    let mut mutation = Mutation::new(TABLE, key(dice.below(shape.partitions)));
    let partition = &mut mutation.partition;
    let timestamp = dice.below(shape.timestamps) as i64 + 1;
    match dice.below(if shape.deletions { 24 } else { 18 }) {
        18 => partition.deletion = Some(deletion(timestamp)),
        19..=21 => {
            let (a, b) = (
                dice.below(shape.rows.into()) as u16,
                dice.below(shape.rows.into()) as u16,
            );
            partition.delete_range(RangeTombstone {
                slice: slice(a.min(b), a.max(b)),
                deletion: deletion(timestamp),
            });
        }
        22 | 23 => partition
            .row_mut(clustering(dice.below(shape.rows.into()) as u16))
            .delete(deletion(timestamp)),
        0 => {
            let cell = random_cell(dice, shape, timestamp);
            partition
                .static_row
                .merge_column(ColumnId(2), ColumnData::Cell(cell));
        }
        kind => {
            for _ in 0..1 + dice.below(3) {
                let mut row = Row::default();
                if kind % 2 == 0 {
                    row.liveness = Some(Liveness {
                        timestamp: Timestamp(timestamp),
                        expiry: None,
                    });
                }
                let column = ColumnId(3 + dice.below(2) as u32);
                row.merge_column(column, ColumnData::Cell(random_cell(dice, shape, timestamp)));
                partition
                    .row_mut(clustering(dice.below(shape.rows.into()) as u16))
                    .merge(row);
            }
        }
    }
    mutation.partition.normalize();
    mutation
}

fn random_cell(dice: &mut Dice, shape: Shape, timestamp: i64) -> Cell {
    match dice.below(10) {
        0 => Cell::tombstone(Timestamp(timestamp), UnixSeconds(NOW.0 - 10)),
        1 => {
            // Long dead, or alive for longer than any test's clock goes; the same for equal timestamps, where the later
            // death wins over the earlier one only until compaction has made a tombstone of that.
            let ttl = if timestamp % 2 == 0 { 10 } else { 10_000_000 };
            let expiry = Expiry::after(UnixSeconds(NOW.0 - 20), Ttl(ttl));
            Cell::with_expiry(Timestamp(timestamp), random_value(dice, shape), Some(expiry))
        }
        _ => Cell::live(Timestamp(timestamp), random_value(dice, shape)),
    }
}

fn random_value(dice: &mut Dice, shape: Shape) -> Bytes {
    let size = dice.below(shape.value_size + 1);
    (0..size).map(|_| dice.below(7) as u8).collect::<Vec<u8>>().into()
}

pub(crate) fn read_of(target: ReadTarget) -> ReadCommand {
    ReadCommand {
        table: TABLE,
        target,
        slices: std::iter::once(Slice::full()).collect(),
        first_partition_slices: None,
        reversed: false,
        columns: ColumnSelection::All,
        now: NOW,
        limits: ReadLimits::NONE,
        keep_tombstones: false,
        bypass_cache: false,
        index: None,
    }
}

pub(crate) fn read_all() -> ReadCommand {
    read_of(ReadTarget::Range(PartitionRange::full()))
}

/// What has expired becomes a tombstone, as compaction makes it.
pub(crate) fn bury(partition: &mut Partition) {
    let bury = |row: &mut Row| row.purge(NOW, UnixSeconds(i64::MIN), &|_| false);
    bury(&mut partition.static_row);
    partition.rows.iter_mut().for_each(|(_, row)| bury(row));
}

/// Keys and contents of an answer, buried.
pub(crate) fn contents(result: &ReadResult) -> Vec<(DecoratedKey, Partition)> {
    let content = |answer: &read::PartitionResult| {
        let mut partition = answer.partition.clone();
        bury(&mut partition);
        (answer.key.clone(), partition)
    };
    result.partitions.iter().map(content).collect()
}

/// Fails with the first difference only: answers are long.
pub(crate) fn assert_same(found: &ReadResult, expected: &ReadResult, context: &str) {
    let (found, expected) = (contents(found), contents(expected));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.0, expected.0, "{context}: keys");
        let (key, found, expected) = (&found.0, &found.1, &expected.1);
        assert_eq!(
            found.deletion, expected.deletion,
            "{context}: deletion of {key:?}"
        );
        assert_eq!(
            found.static_row, expected.static_row,
            "{context}: static row of {key:?}"
        );
        assert_eq!(
            found.range_tombstones, expected.range_tombstones,
            "{context}: ranges of {key:?}"
        );
        for (found, expected) in found.rows.iter().zip(&expected.rows) {
            assert_eq!(found, expected, "{context}: row of {key:?}");
        }
        assert_eq!(
            found.rows.len(),
            expected.rows.len(),
            "{context}: rows of {key:?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{context}: partitions");
}

/// Files of a folder whose names end so.
pub(crate) fn files_ending(disk: &MemoryDisk, dir: &str, end: &str) -> Vec<PathBuf> {
    let inside = |path: &PathBuf| path.starts_with(Path::new(dir)) && path.to_string_lossy().ends_with(end);
    disk.files().into_iter().filter(inside).collect()
}
