//! Writes of several tables that are one: wherever a crash comes, all of them are there afterwards or none.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ceto_env::memory::{Fault, MemoryDisk, MemoryEnv, Operation};
use ceto_env::{Env, TaskQueue};
use ceto_model::{Mutation, Schema, TableId};
use uuid::Uuid;

use crate::testing::*;
use crate::{CommitlogSync, Database, Error, StorageOptions};

const OTHER: TableId = TableId(Uuid::from_u128(0x2222));
/// Of each write: rows in the first table, then as many in the other.
const PARTS: u16 = 3;

fn two_tables() -> Arc<Schema> {
    schema_of(&[table_named(TABLE, "t", |_| {}), table_named(OTHER, "u", |_| {})])
}

fn story_options() -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 8 << 10,
        commitlog_total_space: 64 << 10,
        memtable_space: 16 << 10,
        commitlog_sync: CommitlogSync::Periodic {
            period: Duration::from_secs(10),
        },
        ..options(0, 1)
    }
}

async fn open_both(env: &Rc<MemoryEnv>) -> Rc<Database> {
    let database = Database::open(env.clone(), story_options(), two_tables())
        .await
        .unwrap();
    database.finish_recovery(two_tables()).await.unwrap();
    database
}

fn parts(number: u64) -> Vec<Mutation> {
    (0..2 * PARTS)
        .map(|part| {
            let mut write = row_write(number, part, 1, &[number as u8; 100]);
            if part >= PARTS {
                write.table = OTHER;
            }
            write
        })
        .collect()
}

/// How many rows each write has left in each table.
async fn rows_of(database: &Database, number: u64) -> [usize; 2] {
    let mut counts = [0; 2];
    for (count, table) in counts.iter_mut().zip([TABLE, OTHER]) {
        let mut command = read_of(ceto_model::ReadTarget::Partition(key(number)));
        command.table = table;
        let result = database.read(&command).await.unwrap();
        *count = result
            .partitions
            .iter()
            .map(|found| found.partition.rows.len())
            .sum();
    }
    counts
}

/// Writes and flushes until the machine stops; the numbers of writes begun and acknowledged.
fn story(env: &Rc<MemoryEnv>) -> (u64, u64) {
    let (begun, done) = (Cell::new(0), Cell::new(0));
    env.block_on(async {
        let database = open_both(env).await;
        // Somebody flushes one of the tables all the time.
        let (flushed, tasks) = (database.clone(), env.clone());
        let flushes = async move {
            loop {
                tasks.tasks().sleep(Duration::from_millis(1)).await;
                let _ = flushed.flush(Some(OTHER)).await;
            }
        };
        env.tasks().spawn(TaskQueue::MemtableFlush, Box::pin(flushes));
        for number in 0..200 {
            begun.set(number + 1);
            database.write_together(parts(number)).await.unwrap();
            done.set(number + 1);
        }
    });
    env.kill();
    (begun.get(), done.get())
}

/// All parts of each of so many writes are there or none; none of those that were not acknowledged only.
fn check(env: &Rc<MemoryEnv>, (begun, done): (u64, u64), context: &str) {
    env.block_on(async {
        let database = open_both(env).await;
        for number in 0..begun {
            let rows = rows_of(&database, number).await;
            let all = [usize::from(PARTS); 2];
            let is_whole = rows == all || rows == [0, 0] && number >= done;
            assert!(is_whole, "{context}: of write {number} there are {rows:?}");
        }
    })
    .unwrap();
    env.kill();
}

#[test]
fn after_a_crash_at_any_step_all_parts_are_there_or_none() {
    let mut half_way = 0;
    for seed in 0..240 {
        let disk = MemoryDisk::new(seed);
        let env = MemoryEnv::new(disk.clone(), seed);
        disk.crash_after(60 + seed);
        let numbers = story(&env);
        if seed % 2 == 0 {
            disk.restart();
        } else {
            disk.restart_after_power_loss();
        }
        check(&env.reboot(seed + 1000), numbers, &format!("seed {seed}"));
        half_way += u32::from(numbers.0 > numbers.1);
    }
    assert!(half_way > 40, "{half_way} crashes came in the middle of a write");
}

#[test]
fn what_a_killed_process_did_not_sync_is_not_flushed_in_part_by_the_next() {
    let mut lost = 0;
    // A write that was not synced; then, at each step of the next start and its flushes, a power loss.
    for step in 0..160 {
        let disk = MemoryDisk::new(step);
        let env = MemoryEnv::new(disk.clone(), step);
        env.block_on(async {
            let database = open_both(&env).await;
            let mut write = Box::pin(database.write_together(parts(0)));
            // It stands in the log, and waits for the sync.
            let first = std::future::poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context)));
            assert!(first.await.is_pending());
            disk.crash();
        });
        env.kill();
        disk.restart();
        let env = env.reboot(step + 1000);
        disk.crash_after(step);
        env.block_on(async {
            let database = open_both(&env).await;
            database.flush(Some(OTHER)).await.unwrap();
            std::future::pending::<()>().await;
        });
        env.kill();
        disk.restart_after_power_loss();
        let env = env.reboot(step + 2000);
        check(&env, (1, 0), &format!("step {step}"));
        disk.restart();
        let env = env.reboot(step + 3000);
        env.block_on(async {
            let database = open_both(&env).await;
            lost += u32::from(rows_of(&database, 0).await == [0, 0]);
        })
        .unwrap();
        env.kill();
    }
    assert!((10..150).contains(&lost), "{lost} of 160 writes were lost");
}

#[test]
fn what_the_log_could_not_sync_is_not_flushed_in_part() {
    for seed in 0..40 {
        let disk = MemoryDisk::new(seed);
        let env = MemoryEnv::new(disk.clone(), seed);
        env.block_on(async {
            let database = open_both(&env).await;
            disk.inject(Fault {
                operation: Operation::Sync,
                path_contains: "CommitLog".to_owned(),
                kind: std::io::ErrorKind::Other,
                count: 1,
            });
            database.write_together(parts(0)).await.unwrap_err();
            database.flush(Some(OTHER)).await.unwrap_err();
            env.tasks().sleep(Duration::from_secs(1)).await;
        })
        .unwrap();
        env.kill();
        disk.restart_after_power_loss();
        check(&env.reboot(seed + 1000), (1, 0), &format!("seed {seed}"));
    }
}

#[test]
fn together_they_are_bounded_as_one_is() {
    let (_, env) = machine(1);
    env.block_on(async {
        let database = open_both(&env).await;
        let large = (0..8).map(|row| row_write(1, row, 1, &[7; 1000])).collect();
        let error = database.write_together(large).await.unwrap_err();
        assert!(matches!(error, Error::MutationTooLarge { .. }), "{error}");
        let mut unknown = parts(2);
        unknown[5].table = TableId(Uuid::from_u128(0x3333));
        assert!(matches!(
            database.write_together(unknown).await,
            Err(Error::UnknownTable(_))
        ));
        assert_eq!(rows_of(&database, 1).await, [0, 0]);
        assert_eq!(rows_of(&database, 2).await, [0, 0]);
        database.write_together(Vec::new()).await.unwrap();
        database.write_together(parts(3)).await.unwrap();
        assert_eq!(rows_of(&database, 3).await, [3, 3]);
        assert_eq!(database.stats().commitlog.appends, 1);
    })
    .unwrap();
    env.kill();
}
