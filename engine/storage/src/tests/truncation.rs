//! Truncations that somebody gives up, or that a crash cuts off.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::Timestamp;

use crate::Database;
use crate::testing::*;

const PARTITIONS: u64 = 20;

/// Half of the table in an sstable, half in memory.
async fn fill(database: &Database) {
    for number in 0..PARTITIONS {
        database.write(row_write(number, 1, 1, &[1; 100])).await.unwrap();
        if number == PARTITIONS / 2 {
            database.flush(None).await.unwrap();
        }
    }
}

async fn count(database: &Database) -> u64 {
    database.read(&read_all()).await.unwrap().partitions.len() as u64
}

/// What a start on this disk finds.
fn count_after_start(disk: &Rc<MemoryDisk>, seed: u64) -> u64 {
    let env = MemoryEnv::new(disk.clone(), seed);
    let found = env.block_on(async { count(&open(&env, options(0, 1)).await.unwrap()).await });
    env.kill();
    found.unwrap()
}

#[test]
fn a_truncation_that_is_given_up_is_done_or_was_not_begun() {
    let (mut done, mut not_begun) = (0, 0);
    for polls in 0..40 {
        let (disk, env) = machine(polls);
        let found = env
            .block_on(async {
                let database = open(&env, options(0, 1)).await.unwrap();
                fill(&database).await;
                let mut truncation = Box::pin(database.truncate(TABLE, Timestamp(1)));
                for _ in 0..polls {
                    let poll = poll_fn(|context| Poll::Ready(truncation.as_mut().poll(context)));
                    if poll.await.is_ready() {
                        break;
                    }
                    env.tasks().sleep(Duration::from_micros(1)).await;
                }
                drop(truncation);
                env.tasks().sleep(Duration::from_secs(1)).await;
                let found = count(&database).await;
                assert!(found == 0 || found == PARTITIONS, "{found} partitions are left");
                found
            })
            .unwrap();
        env.kill();
        disk.restart();
        assert_eq!(count_after_start(&disk, polls + 100), found, "{polls} polls");
        if found == 0 {
            done += 1;
        } else {
            not_begun += 1;
        }
        // Nothing of it stands in the way of the next.
        let env = MemoryEnv::new(disk.clone(), polls + 200);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            database.write(row_write(1, 1, 1, b"later")).await.unwrap();
            drop(Box::pin(database.truncate(TABLE, Timestamp(2))));
            database.truncate(TABLE, Timestamp(2)).await.unwrap();
            assert_eq!(count(&database).await, 0);
        })
        .unwrap();
        env.kill();
    }
    assert!(done > 0 && not_begun > 0, "{done} done, {not_begun} not begun");
}

#[test]
fn a_truncation_cut_off_at_any_step_is_done_or_was_not_begun() {
    let (mut done, mut not_begun) = (0, 0);
    for seed in 0..80 {
        let (disk, env) = machine(seed);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            fill(&database).await;
            disk.crash_after(seed / 2);
            database.truncate(TABLE, Timestamp(1)).await.unwrap();
            env.tasks().sleep(Duration::from_secs(1)).await;
            disk.crash();
        });
        env.kill();
        if seed % 2 == 0 {
            disk.restart();
        } else {
            disk.restart_after_power_loss();
        }
        match count_after_start(&disk, seed + 100) {
            0 => done += 1,
            PARTITIONS => not_begun += 1,
            other => panic!("seed {seed}: {other} partitions are left"),
        }
    }
    assert!(done > 10 && not_begun > 5, "{done} done, {not_begun} not begun");
}
