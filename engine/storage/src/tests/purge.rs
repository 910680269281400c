//! Compaction with tombstones that expire: what was deleted never comes back.

use std::time::Duration;

use bytes::Bytes;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_env::{Clock, Env};
use ceto_model::evaluate::evaluate;
use ceto_model::*;

use super::{Model, apply};
use crate::testing::*;
use crate::{Database, StorageOptions};

/// A write whose timestamps are the present time, so that nothing older comes after a tombstone was purged.
pub(super) fn fresh_write(dice: &mut Dice, clock: &dyn Clock, rows: u16) -> Mutation {
    let shape = Shape {
        partitions: 6,
        rows,
        value_size: 30,
        timestamps: 1,
        deletions: true,
    };
    let (timestamp, now) = (Timestamp(clock.unix_micros()), UnixSeconds(clock.unix_seconds()));
    let deletion = Deletion {
        timestamp,
        deleted_at: now,
    };
    let mut mutation = random_write(dice, shape);
    let partition = &mut mutation.partition;
    partition.deletion = partition.deletion.map(|_| deletion);
    let ranges: Vec<RangeTombstone> = partition.range_tombstones.iter().cloned().collect();
    partition.range_tombstones = ranges
        .into_iter()
        .map(|range| RangeTombstone { deletion, ..range })
        .collect();
    let ttl = dice
        .one_in(4)
        .then(|| Expiry::after(now, Ttl(1 + dice.below(30) as u32)));
    let rows = partition
        .rows
        .iter_mut()
        .map(|(_, row)| row)
        .chain([&mut partition.static_row]);
    for row in rows {
        row.deletion = row.deletion.map(|_| deletion);
        row.liveness = row.liveness.map(|_| Liveness {
            timestamp,
            expiry: ttl,
        });
        for (_, data) in &mut row.columns {
            if let ColumnData::Cell(cell) = data {
                *cell = match &cell.state {
                    CellState::Tombstone { .. } => Cell::tombstone(timestamp, now),
                    _ => Cell::with_expiry(timestamp, Bytes::from_static(b"value"), ttl),
                };
            }
        }
    }
    mutation
}

async fn check(database: &Database, model: &Model, env: &MemoryEnv, context: &str) {
    let mut command = read_all();
    command.now = UnixSeconds(env.clock().unix_seconds());
    let expected = evaluate(&command, model);
    let found = database.read(&command).await.unwrap();
    assert_same(&found, &expected, context);
}

fn purge_options() -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 4 << 10,
        commitlog_total_space: 32 << 10,
        memtable_space: 16 << 10,
        ..options(0, 1)
    }
}

#[test]
fn deleted_data_stays_deleted_and_tombstones_go_in_the_end() {
    let mut purged = 0;
    for seed in 0..20 {
        purged += u32::from(run(seed));
    }
    assert!(purged > 10, "tombstones were purged in {purged} runs only");
}

/// True when in the end no tombstone was left.
fn run(seed: u64) -> bool {
    let disk = MemoryDisk::new(seed);
    let mut dice = Dice::new(seed);
    let mut model = Model::new();
    let gc_grace = [0, 5, 60][seed as usize % 3];
    let schema = schema_of(&[table_named(TABLE, "t", |builder| {
        builder.options.gc_grace_seconds = gc_grace;
        builder
            .options
            .compaction
            .insert("tombstone_compaction_interval".to_owned(), "0".to_owned());
    })]);
    let mut is_purged = false;
    let mut elapsed = Duration::ZERO;
    for round in 0..5 {
        let env = MemoryEnv::new(disk.clone(), seed * 100 + round);
        env.advance(elapsed);
        let context = format!("seed {seed}, round {round}");
        env.block_on(async {
            let database = Database::open(env.clone(), purge_options(), schema.clone())
                .await
                .unwrap();
            database.finish_recovery(schema.clone()).await.unwrap();
            check(&database, &model, &env, &context).await;
            for _ in 0..120 {
                env.tasks()
                    .sleep(Duration::from_millis(1 + dice.below(2000)))
                    .await;
                let write = fresh_write(&mut dice, env.clock(), 12);
                apply(&mut model, &write);
                database.write(write).await.unwrap();
                match dice.below(20) {
                    0 => database.flush(None).await.unwrap(),
                    1 => database.compact(TABLE).await.unwrap(),
                    2 => check(&database, &model, &env, &context).await,
                    _ => {}
                }
            }
            check(&database, &model, &env, &context).await;
            if round == 4 {
                database.flush(None).await.unwrap();
                env.tasks().sleep(Duration::from_secs(100)).await;
                database.compact(TABLE).await.unwrap();
                check(&database, &model, &env, &context).await;
                let tombstones: u64 = database.sstables(TABLE).iter().map(|(_, s)| s.tombstones).sum();
                is_purged = tombstones == 0;
            }
        })
        .unwrap_or_else(|| panic!("{context}: stands still"));
        elapsed = Duration::from_micros((env.clock().unix_micros() - 1_700_000_000_000_000) as u64);
        env.kill();
        disk.restart();
    }
    is_purged
}

#[test]
fn a_tombstone_stays_while_an_older_write_lies_elsewhere() {
    let (_, env) = machine(1);
    env.block_on(async {
        let schema = schema_of(&[table_named(TABLE, "t", |builder| {
            builder.options.gc_grace_seconds = 0
        })]);
        let database = Database::open(env.clone(), options(0, 1), schema.clone())
            .await
            .unwrap();
        database.finish_recovery(schema).await.unwrap();
        let mut deletion_of_row = Mutation::new(TABLE, key(1));
        deletion_of_row
            .partition
            .row_mut(clustering(1))
            .delete(deletion(100));
        database.write(deletion_of_row).await.unwrap();
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(10)).await;
        // Older by its timestamp, in a memtable only.
        database.write(row_write(1, 1, 50, b"older")).await.unwrap();
        database.compact(TABLE).await.unwrap();
        assert!(database.read(&read_all()).await.unwrap().partitions.is_empty());
        assert_eq!(database.sstables(TABLE)[0].1.tombstones, 1);
        database.flush(None).await.unwrap();
        database.compact(TABLE).await.unwrap();
        assert!(database.sstables(TABLE).is_empty());
        assert!(database.read(&read_all()).await.unwrap().partitions.is_empty());
    })
    .unwrap();
    env.kill();
}

#[test]
fn cells_of_a_dropped_column_are_not_read_and_go_with_compaction() {
    let (_, env) = machine(2);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        database.write(row_write(1, 1, 1, &[7; 5000])).await.unwrap();
        database.flush(None).await.unwrap();
        let dropped = table_named(TABLE, "t", |builder| {
            let column = builder.columns.pop().unwrap();
            let column = if column.id == ColumnId(3) {
                column
            } else {
                std::mem::replace(&mut builder.columns[3], column)
            };
            builder.dropped.push(schema::DroppedColumn {
                id: column.id,
                name: column.name,
                kind: column.kind,
                cql_type: column.cql_type,
                dropped_at: 5,
            });
        });
        database.set_schema(schema_of(&[dropped])).await.unwrap();
        let result = database.read(&read_all()).await.unwrap();
        assert_eq!(result.partitions[0].partition.rows[0].1.columns, []);
        assert_eq!(database.sstables(TABLE)[0].1.cells, 1);
        database.compact(TABLE).await.unwrap();
        assert_eq!(database.sstables(TABLE)[0].1.cells, 0);
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 1);
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_column_that_comes_back_has_what_was_written_after_the_drop() {
    let (_, env) = machine(3);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        let values = async || -> Vec<usize> {
            let result = database.read(&read_all()).await.unwrap();
            let rows = result.partitions.iter().flat_map(|answer| &answer.partition.rows);
            rows.map(|(_, row)| row.columns.len()).collect()
        };
        database.write(row_write(1, 1, 4, b"older")).await.unwrap();
        database.write(row_write(1, 2, 5, b"as old")).await.unwrap();
        database.write(row_write(1, 3, 6, b"newer")).await.unwrap();
        assert_eq!(values().await, [1, 1, 1]);
        let dropped = |builder: &mut schema::TableBuilder| {
            let column = builder.columns.iter().find(|column| column.id == ColumnId(3));
            let column = column.unwrap().clone();
            builder.dropped.push(schema::DroppedColumn {
                id: column.id,
                name: column.name,
                kind: column.kind,
                cql_type: column.cql_type,
                dropped_at: 5,
            });
        };
        let gone = table_named(TABLE, "t", |builder| {
            dropped(builder);
            builder.columns.retain(|column| column.id != ColumnId(3));
        });
        database.set_schema(schema_of(&[gone])).await.unwrap();
        assert_eq!(values().await, [0, 0, 0], "a dropped column shows nothing");
        database.flush(None).await.unwrap();
        database.compact(TABLE).await.unwrap();
        assert_eq!(database.sstables(TABLE)[0].1.cells, 1, "what is newer stays");
        assert_eq!(values().await, [0, 0, 0]);
        let back = table_named(TABLE, "t", dropped);
        database.set_schema(schema_of(&[back])).await.unwrap();
        assert_eq!(values().await, [0, 0, 1]);
        database.write(row_write(1, 1, 7, b"new")).await.unwrap();
        database.write(row_write(1, 2, 3, b"too old")).await.unwrap();
        assert_eq!(values().await, [1, 0, 1]);
        database.compact(TABLE).await.unwrap();
        assert_eq!(values().await, [1, 0, 1]);
    })
    .unwrap();
    env.kill();
}
