//! The memory of a shard: one budget, writes that wait for room and not for ever, reads that share what they may hold.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::{Env, TaskQueue};
use ceto_model::read::{ReadLimits, ResumePoint};
use ceto_model::*;

use crate::testing::*;
use crate::{Applied, Database, Error, StorageOptions};

#[test]
fn caches_have_what_memtables_leave() {
    let (_, env) = machine(1);
    env.block_on(async {
        let options = StorageOptions {
            memory_space: 600_000,
            memtable_space: 400_000,
            memtable_cleanup_threshold: 0.9,
            row_cache_size: usize::MAX,
            block_cache_size: 50_000,
            commitlog_total_space: 4 << 20,
            ..options(0, 1)
        };
        let database = open(&env, options.clone()).await.unwrap();
        for number in 0..2000 {
            database.write(row_write(number, 1, 1, &[7; 300])).await.unwrap();
        }
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(2)).await;
        for number in 0..2000 {
            let command = read_of(ReadTarget::Partition(key(number)));
            database.read(&command).await.unwrap();
        }
        let full = database.stats();
        assert!(full.memtable_bytes < 1000, "{full:?}");
        assert!(full.row_cache.bytes > 400_000, "{full:?}");
        assert!(full.memory_bytes <= full.memory_bytes_max, "{full:?}");
        let mut least = full.row_cache.bytes;
        for number in 5000..5700 {
            database.write(row_write(number, 1, 1, &[7; 300])).await.unwrap();
            let stats = database.stats();
            // What one step of the balance may lag behind.
            assert!(
                stats.memory_bytes <= stats.memory_bytes_max + (64 << 10),
                "{stats:?}"
            );
            least = least.min(stats.row_cache.bytes);
        }
        assert!(least < 350_000, "the cache gave way: {least}");
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(2)).await;
        assert!(database.stats().row_cache.bytes_max > 450_000);
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_write_that_finds_no_room_in_time_says_so() {
    let (_, env) = machine(2);
    env.block_on(async {
        let options = StorageOptions {
            memtable_space: 4000,
            memtable_cleanup_threshold: 0.9,
            waiting_writes_space: 2500,
            write_wait_max: Duration::ZERO,
            ..options(0, 1)
        };
        let database = open(&env, options).await.unwrap();
        let mut waiting = Vec::new();
        let mut refused = 0;
        for number in 0..20 {
            match database.apply(row_write(number, 1, 1, &[0; 400])) {
                Ok(Applied::Later(done)) => waiting.push(done),
                Ok(Applied::Done) => {}
                Err(Error::Overloaded { limit, max }) => {
                    assert_eq!((limit, max), ("waiting_writes_space", 2500));
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(refused > 0);
        let mut late = 0;
        for done in waiting {
            match done.await {
                Ok(()) => {}
                Err(error @ Error::WriteWaitedTooLong { .. }) => {
                    assert!(error.to_string().contains("memtable_heap_space"), "{error}");
                    late += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(late > 0);
        let stats = database.stats();
        assert_eq!((stats.waiting_writes, stats.writes_timed_out), (0, late));
        env.tasks().sleep(Duration::from_secs(5)).await;
        database.write(row_write(99, 1, 1, &[0; 400])).await.unwrap();
    })
    .unwrap();
    env.kill();
}

/// Reads a partition page by page; the number of rows and of pages.
async fn read_pages(database: &Database, number: u64) -> (usize, usize) {
    let mut command = read_of(ReadTarget::Partition(key(number)));
    command.limits = ReadLimits {
        bytes: 1 << 20,
        ..ReadLimits::NONE
    };
    command.bypass_cache = true;
    let (mut rows, mut pages) = (0, 0);
    loop {
        let result = database.read(&command).await.unwrap();
        pages += 1;
        rows += result
            .partitions
            .iter()
            .map(|partition| partition.partition.rows.len())
            .sum::<usize>();
        match result.resume {
            Some(ResumePoint::Inside(_, start)) => command.slices[0].start = start,
            Some(other) => panic!("{other:?}"),
            None => return (rows, pages),
        }
    }
}

#[test]
fn reads_that_hold_too_much_end_their_pages_early_and_miss_nothing() {
    let (_, env) = machine(3);
    env.block_on(async {
        let options = StorageOptions {
            read_space: 400 << 10,
            concurrent_reads: 2,
            commitlog_total_space: 8 << 20,
            memtable_space: 4 << 20,
            ..options(0, 1)
        };
        let database = open(&env, options).await.unwrap();
        for number in 0..1500 {
            for partition in 0..4 {
                database
                    .write(row_write(partition, number, 1, &[7; 400]))
                    .await
                    .unwrap();
            }
        }
        database.flush(None).await.unwrap();
        // Alone, a page may hold what it was asked for, or all there is for reads.
        let (rows, alone) = read_pages(&database, 0).await;
        assert_eq!(rows, 1500);
        let done = Rc::new(Cell::new(0));
        for partition in 0..4 {
            let (database, done) = (database.clone(), done.clone());
            let task = async move {
                let (rows, pages) = read_pages(&database, partition).await;
                assert_eq!(rows, 1500);
                assert!(pages >= alone);
                done.set(done.get() + 1);
            };
            env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
        }
        while done.get() < 4 {
            env.tasks().sleep(Duration::from_millis(1)).await;
            let reads = database.stats().reads;
            assert!(reads.running <= 2, "{reads:?}");
            assert!(reads.bytes <= reads.bytes_max + (32 << 10), "{reads:?}");
        }
        let reads = database.stats().reads;
        assert!(reads.queued > 0 && reads.cut_short > 0, "{reads:?}");
        assert_eq!((reads.running, reads.waiting, reads.bytes), (0, 0, 0));
    })
    .unwrap();
    env.kill();
}
