//! Tables that are dropped and created again under their ids: nothing of the earlier one comes back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::{Schema, Table};

use crate::testing::*;
use crate::{Database, reshard};

/// The same id, under another name: another folder.
fn renamed() -> Arc<Table> {
    table_named(TABLE, "other", |_| {})
}

async fn fill(database: &Database, flushes: bool) {
    for number in 0..20 {
        database.write(row_write(number, 1, 5, &[1; 100])).await.unwrap();
        if flushes && number == 10 {
            database.flush(None).await.unwrap();
        }
    }
}

async fn recreate(database: &Database, schema: &Arc<Schema>) {
    database.set_schema(schema_of(&[])).await.unwrap();
    database.drop_table(TABLE).await.unwrap();
    database.set_schema(schema.clone()).await.unwrap();
}

async fn open_with(env: &Rc<MemoryEnv>, shard: u16, shards: u16, schema: &Arc<Schema>) -> Rc<Database> {
    let options = options(shard, shards);
    let database = Database::open(env.clone(), options, schema_of(&[]))
        .await
        .unwrap();
    database.finish_recovery(schema.clone()).await.unwrap();
    database
}

async fn count(database: &Database) -> usize {
    database.read(&read_all()).await.unwrap().partitions.len()
}

/// Partitions that a start on this disk finds.
fn count_after_start(disk: &Rc<MemoryDisk>, seed: u64, schema: &Arc<Schema>) -> usize {
    let env = MemoryEnv::new(disk.clone(), seed);
    let found = env.block_on(async { count(&*open_with(&env, 0, 1, schema).await).await });
    env.kill();
    found.unwrap()
}

fn stop(disk: &Rc<MemoryDisk>, env: &Rc<MemoryEnv>, by_power_loss: bool) {
    disk.crash();
    env.kill();
    if by_power_loss {
        disk.restart_after_power_loss();
    } else {
        disk.restart();
    }
}

#[test]
fn a_table_created_again_has_nothing_of_the_one_before_after_a_start() {
    for seed in 0..16 {
        let (flushes, by_power_loss, truncates) = (seed & 1 == 1, seed & 2 == 2, seed & 4 == 4);
        let schema = if seed & 8 == 8 {
            schema_of(&[renamed()])
        } else {
            schema()
        };
        let (disk, env) = machine(seed);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            fill(&database, flushes).await;
            if truncates {
                database.truncate(TABLE, ceto_model::Timestamp(1)).await.unwrap();
                fill(&database, flushes).await;
            }
            recreate(&database, &schema).await;
            assert_eq!(count(&database).await, 0);
            // Older than what was there before.
            database.write(row_write(3, 1, 1, b"new")).await.unwrap();
            assert_eq!(count(&database).await, 1);
        })
        .unwrap();
        stop(&disk, &env, by_power_loss);
        for start in 0..2 {
            assert_eq!(
                count_after_start(&disk, 100 + seed + start, &schema),
                1,
                "seed {seed}"
            );
            disk.restart();
        }
    }
}

#[test]
fn a_table_dropped_before_a_start_and_created_again_after_it_has_nothing_of_the_one_before() {
    for seed in 0..8 {
        let (disk, env) = machine(seed);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            fill(&database, seed % 2 == 0).await;
            // The drop was in the schema, and nothing else of it was done.
        })
        .unwrap();
        stop(&disk, &env, seed % 4 < 2);
        let env = MemoryEnv::new(disk.clone(), seed + 50);
        env.block_on(async {
            let database = open_with(&env, 0, 1, &schema_of(&[])).await;
            database.set_schema(schema_of(&[renamed()])).await.unwrap();
            database.write(row_write(3, 1, 1, b"new")).await.unwrap();
        })
        .unwrap();
        stop(&disk, &env, false);
        assert_eq!(
            count_after_start(&disk, 100 + seed, &schema_of(&[renamed()])),
            1,
            "seed {seed}"
        );
    }
}

#[test]
fn a_crash_at_any_disk_operation_of_a_drop_brings_nothing_back_into_the_next_table() {
    for seed in 0..60 {
        let (disk, env) = machine(seed);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            fill(&database, true).await;
            database.set_schema(schema_of(&[])).await.unwrap();
            disk.crash_after(seed / 2);
            // The crash may come in its middle.
            let _ = database.drop_table(TABLE).await;
            env.tasks().sleep(Duration::from_secs(1)).await;
        });
        stop(&disk, &env, seed % 2 == 0);
        let env = MemoryEnv::new(disk.clone(), seed + 500);
        env.block_on(async {
            let database = open_with(&env, 0, 1, &schema_of(&[])).await;
            database.set_schema(schema_of(&[renamed()])).await.unwrap();
            assert_eq!(count(&database).await, 0, "seed {seed}");
            database.write(row_write(3, 1, 1, b"new")).await.unwrap();
        })
        .unwrap();
        stop(&disk, &env, seed % 2 == 0);
        assert_eq!(
            count_after_start(&disk, 1000 + seed, &schema_of(&[renamed()])),
            1,
            "seed {seed}"
        );
    }
}

#[test]
fn a_reshard_passes_over_what_was_before_a_drop() {
    for seed in 0..4 {
        let (disk, env) = machine(seed);
        env.block_on(async {
            let mut databases = Vec::new();
            for shard in 0..2 {
                databases.push(open(&env, options(shard, 2)).await.unwrap());
            }
            for number in 0..20 {
                let write = row_write(number, 1, 5, &[1; 100]);
                let shard = usize::from(write.key.token.shard(2));
                databases[shard].write(write).await.unwrap();
            }
            for database in &databases {
                recreate(database, &schema_of(&[renamed()])).await;
            }
            let write = row_write(3, 1, 1, b"new");
            databases[usize::from(write.key.token.shard(2))]
                .write(write)
                .await
                .unwrap();
        })
        .unwrap();
        stop(&disk, &env, seed % 2 == 0);
        let env = MemoryEnv::new(disk.clone(), seed + 50);
        env.block_on(async { reshard(env.clone(), &options(0, 1)).await.unwrap() })
            .unwrap();
        env.kill();
        disk.restart();
        assert_eq!(
            count_after_start(&disk, 100 + seed, &schema_of(&[renamed()])),
            1,
            "seed {seed}"
        );
    }
}

#[test]
fn what_the_commitlog_has_no_more_is_forgotten() {
    let (_, env) = machine(1);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for round in 0..30 {
            // Several segments of 16 KiB.
            for number in 0..20 {
                database.write(row_write(number, 1, 5, &[1; 4000])).await.unwrap();
            }
            recreate(&database, &schema()).await;
            env.tasks().sleep(Duration::from_secs(1)).await;
            let other = ceto_model::TableId(uuid::Uuid::from_u128(round));
            let end = [(other, database.commitlog.end())];
            let oldest = database.commitlog.oldest_segment();
            database.dropped.note(&*env.disk(), end, oldest).await.unwrap();
        }
        let known = database.dropped.len();
        assert!(known < 10, "{known} tables are known");
    })
    .unwrap();
}
