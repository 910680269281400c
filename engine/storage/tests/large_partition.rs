//! A slice of a large partition reads what it needs, forwards and reversed: bytes are counted.
//!
//! The partition has 64 MiB; `CETO_LARGE_PARTITION_MIB=1024` makes it a gigabyte (`./ci/run soak`).
#![allow(clippy::unwrap_used)]

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::comparable::{bound_after, bound_before, encode_clustering, encode_prefix};
use ceto_model::read::{ColumnSelection, ReadWork, Slices};
use ceto_model::schema::{ReplicationOptions, TableBuilder};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, ColumnKind, CqlType, DecoratedKey, Keyspace, Mutation, PartitionKey,
    Position, ReadCommand, ReadLimits, ReadTarget, Schema, Slice, Table, TableId, Timestamp, UnixSeconds,
};
use ceto_storage::{CommitlogSync, Database, StorageOptions};
use uuid::Uuid;

/// Bytes of a row's value, and about those of a row.
const ROW_SIZE: usize = 1000;
const ROW_BYTES: u64 = 1030;
const KIB: u64 = 1 << 10;

fn table() -> Arc<Table> {
    let mut builder = TableBuilder::new(TableId(Uuid::from_u128(7)), "ks", "large");
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Int);
    builder.add_column("c", ColumnKind::Clustering, CqlType::Int);
    builder.add_column("v", ColumnKind::Regular, CqlType::Blob);
    Arc::new(builder.build())
}

fn schema(table: &Arc<Table>) -> Arc<Schema> {
    let keyspace = Keyspace {
        name: "ks".into(),
        durable_writes: false,
        replication: ReplicationOptions::default(),
        tables: [(table.name.clone(), table.clone())].into(),
        types: Default::default(),
        functions: Default::default(),
        is_virtual: false,
    };
    Arc::new(Schema::default().with_keyspace(keyspace, Uuid::from_u128(1)))
}

fn key() -> DecoratedKey {
    DecoratedKey::new(PartitionKey(Bytes::from_static(&[0, 0, 0, 1])))
}

/// Bytes that do not shrink.
fn value(row: u32) -> Bytes {
    let mut state = u64::from(row) + 1;
    let next = |_| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    };
    (0..ROW_SIZE).map(next).collect()
}

fn write(table: &Table, row: u32) -> Mutation {
    let mut mutation = Mutation::new(table.id, key());
    let clustering = encode_clustering(table.clustering_types(), &[row.to_be_bytes()]).unwrap();
    let id = table.column("v").unwrap().id;
    let cell = Cell::live(Timestamp(1), value(row));
    mutation
        .partition
        .row_mut(ClusteringKey(clustering))
        .merge_column(id, ColumnData::Cell(cell));
    mutation
}

/// Rows from `first` on, `count` of them.
fn slice(table: &Table, first: u32, count: u32) -> Slice {
    let prefix = |row: u32| encode_prefix(table.clustering_types(), &[row.to_be_bytes()]).unwrap();
    Slice {
        start: Position(bound_before(&prefix(first))),
        end: Position(bound_after(&prefix(first + count - 1))),
    }
}

struct World {
    table: Arc<Table>,
    database: Rc<Database>,
    rows: u32,
}

impl World {
    /// Reads; the first and last row, and the work.
    async fn read(&self, slices: &[Slice], reversed: bool, limit: u64) -> (Vec<u32>, ReadWork) {
        let command = ReadCommand {
            table: self.table.id,
            target: ReadTarget::Partition(key()),
            slices: Slices::from(slices.to_vec()),
            first_partition_slices: None,
            reversed,
            columns: ColumnSelection::All,
            now: UnixSeconds(1),
            limits: ReadLimits {
                rows: limit,
                ..ReadLimits::NONE
            },
            keep_tombstones: false,
            bypass_cache: false,
            index: None,
        };
        let result = self.database.read(&command).await.unwrap();
        let partition = &result.partitions[0].partition;
        let mut rows = Vec::with_capacity(partition.rows.len());
        for (key, row) in &partition.rows {
            let number = u32::from_be_bytes(key.0[1..5].try_into().unwrap()) ^ 0x8000_0000;
            assert_eq!(row.columns.len(), 1);
            rows.push(number);
        }
        (rows, result.work)
    }

    async fn check(&self, slices: &[Slice], reversed: bool, limit: u64, expected: &[u32], bytes_max: u64) {
        let (rows, work) = self.read(slices, reversed, limit).await;
        assert_eq!(rows, expected, "reversed: {reversed}");
        assert!(
            work.disk_bytes <= bytes_max,
            "{} bytes for {} rows, at most {bytes_max} were due; reversed: {reversed}",
            work.disk_bytes,
            rows.len()
        );
    }
}

#[test]
fn a_slice_of_a_large_partition_reads_what_it_needs() {
    let mib: u32 = std::env::var("CETO_LARGE_PARTITION_MIB").map_or(64, |text| text.parse().unwrap());
    let rows = mib * 1024;
    let disk = MemoryDisk::new(1);
    let env = MemoryEnv::new(disk.clone(), 1);
    let answer = env.block_on(async {
        let table = table();
        let options = StorageOptions {
            memtable_space: (4 * mib as usize) << 20,
            memtable_cleanup_threshold: 1.0,
            commitlog_sync: CommitlogSync::Batch,
            // Nothing is kept: every read is counted.
            block_cache_size: 0,
            row_cache_size: 0,
            ..StorageOptions::new("/ceto", 0, 1)
        };
        let database = Database::open(env.clone(), options, schema(&table))
            .await
            .unwrap();
        database.finish_recovery(schema(&table)).await.unwrap();
        for row in 0..rows {
            database.write(write(&table, row)).await.unwrap();
        }
        database.flush(Some(table.id)).await.unwrap();
        let sstables = database.sstables(table.id);
        assert_eq!(sstables.len(), 1);
        assert!(sstables[0].1.largest_partition > u64::from(mib) << 20 >> 1);
        let world = World {
            table,
            database,
            rows,
        };
        check_slices(&world).await;
    });
    assert!(answer.is_some());
}

async fn check_slices(world: &World) {
    let (table, last) = (&world.table, world.rows - 1);
    let all = [Slice::full()];
    // The root of the row index and at most two pages of it, of 8 KiB and a little; a block of 16 KiB and a little, and a
    // second one with what is read ahead from there on, 32 KiB at first.
    let index = 28 * KIB;
    let few = index + (18 + 32) * KIB;
    for row in [0, 1, 77, last / 2, last / 3 * 2, last] {
        for reversed in [false, true] {
            let one = [slice(table, row, 1)];
            world.check(&one, reversed, u64::MAX, &[row], few).await;
        }
    }
    // A hundred rows: what they take, once more for reading ahead, and the index.
    let first = last / 2;
    let hundred = [slice(table, first, 100)];
    let mut expected: Vec<u32> = (first..first + 100).collect();
    let due = 2 * 100 * ROW_BYTES + few;
    world.check(&hundred, false, u64::MAX, &expected, due).await;
    expected.reverse();
    world.check(&hundred, true, u64::MAX, &expected, due).await;
    // From either end, with a limit.
    let front: Vec<u32> = (0..10).collect();
    world.check(&all, false, 10, &front, few).await;
    let back: Vec<u32> = (0..10).map(|i| last - i).collect();
    world.check(&all, true, 10, &back, few + 32 * KIB).await;
    // Rows far apart, in one read.
    let apart = [
        slice(table, 5, 1),
        slice(table, last / 2, 1),
        slice(table, last - 5, 1),
    ];
    world
        .check(&apart, false, u64::MAX, &[5, last / 2, last - 5], 3 * few)
        .await;
    world
        .check(&apart, true, u64::MAX, &[last - 5, last / 2, 5], 3 * few)
        .await;
    // All of it, each block once.
    for reversed in [false, true] {
        let (rows, work) = world.read(&all, reversed, u64::MAX).await;
        assert_eq!(rows.len() as u32, world.rows);
        let most = u64::from(world.rows) * ROW_BYTES * 11 / 10;
        assert!(
            work.disk_bytes <= most,
            "{} of {most}, reversed: {reversed}",
            work.disk_bytes
        );
    }
}
