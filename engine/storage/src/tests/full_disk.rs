//! A full disk: writes are refused with a clear error, reads go on, writes resume when there is space.

use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{Fault, MemoryEnv, Operation};

use crate::testing::*;
use crate::{Error, StorageOptions};

fn small_options() -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 4 << 10,
        commitlog_total_space: 40 << 10,
        memtable_space: 24 << 10,
        ..options(0, 1)
    }
}

#[test]
fn writes_stop_and_resume_without_a_restart_and_nothing_is_lost() {
    for seed in 0..20 {
        let (disk, env) = machine(seed);
        let mut written = Vec::new();
        env.block_on(async {
            let database = open(&env, small_options()).await.unwrap();
            // Room for some segments and a flush or two.
            disk.set_capacity(disk.used() + 20_000 + seed % 20 * 1500);
            let mut refused = 0;
            let mut dice = Dice::new(seed);
            let mut value = || -> Vec<u8> { (0..300).map(|_| dice.next() as u8).collect() };
            for number in 0..400 {
                match database.write(row_write(number, 1, 1, &value())).await {
                    Ok(()) => written.push(number),
                    Err(error) => {
                        assert!(error.is_disk_full(), "seed {seed}: {error}");
                        assert!(error.to_string().contains("disk full"), "{error}");
                        refused += 1;
                    }
                }
                if refused == 20 {
                    break;
                }
            }
            assert!(refused > 0, "seed {seed}: the disk never filled up");
            let refusal = database.check_writes().expect_err("writes are refused");
            assert!(refusal.is_disk_full(), "seed {seed}: {refusal}");
            let result = database.read(&read_all()).await.unwrap();
            assert_eq!(result.partitions.len(), written.len(), "seed {seed}: reads go on");
            disk.set_capacity(u64::MAX);
            env.tasks().sleep(Duration::from_secs(5)).await;
            for number in 1000..1100 {
                database.write(row_write(number, 1, 1, &[1; 300])).await.unwrap();
                written.push(number);
            }
            assert!(!database.stats().refuses_writes, "seed {seed}");
        })
        .expect("nothing stands still");
        env.kill();
        let env = MemoryEnv::new(disk, seed + 1000);
        env.block_on(async {
            let database = open(&env, small_options()).await.unwrap();
            let result = database.read(&read_all()).await.unwrap();
            assert_eq!(
                result.partitions.len(),
                written.len(),
                "seed {seed}: after the restart"
            );
            database.verify(TABLE).await.unwrap();
        })
        .unwrap();
        env.kill();
    }
}

#[test]
fn a_start_on_a_full_disk_serves_reads() {
    let (disk, env) = machine(1);
    env.block_on(async {
        let database = open(&env, small_options()).await.unwrap();
        for number in 0..20 {
            database.write(row_write(number, 1, 1, b"value")).await.unwrap();
        }
    })
    .unwrap();
    env.kill();
    disk.set_capacity(disk.used());
    let env = MemoryEnv::new(disk.clone(), 2);
    env.block_on(async {
        let database = open(&env, small_options()).await.unwrap();
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 20);
        let error = database.write(row_write(21, 1, 1, b"value")).await.unwrap_err();
        assert!(matches!(error, Error::DiskFull(_)), "{error}");
        disk.set_capacity(u64::MAX);
        env.tasks().sleep(Duration::from_secs(3)).await;
        database.write(row_write(21, 1, 1, b"value")).await.unwrap();
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_compaction_without_space_leaves_the_table_as_it_was() {
    let (disk, env) = machine(3);
    env.block_on(async {
        let roomy = StorageOptions {
            memtable_space: 1 << 20,
            automatic_compaction: false,
            ..options(0, 1)
        };
        let database = open(&env, roomy).await.unwrap();
        for number in 0..60 {
            database
                .write(row_write(number, 1, 1, &[number as u8; 200]))
                .await
                .unwrap();
            if number % 20 == 0 {
                database.flush(None).await.unwrap();
            }
        }
        let before = database.sstables(TABLE).len();
        let used = disk.used();
        // There was enough when it started; then somebody else took it.
        disk.inject(Fault {
            operation: Operation::Write,
            path_contains: "Data.db".to_owned(),
            kind: std::io::ErrorKind::StorageFull,
            count: 1,
        });
        let error = database.compact(TABLE).await.unwrap_err();
        assert!(error.is_disk_full(), "{error}");
        assert!(!database.stats().refuses_writes);
        env.tasks().sleep(Duration::from_secs(1)).await;
        assert_eq!(database.sstables(TABLE).len(), before);
        assert_eq!(disk.used(), used, "nothing half-written stays");
        database.compact(TABLE).await.unwrap();
        assert_eq!(database.sstables(TABLE).len(), 1);
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 60);
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_flush_that_runs_out_of_descriptors_or_memory_is_tried_again() {
    let (disk, env) = machine(2);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        database.write(row_write(1, 1, 1, b"before")).await.unwrap();
        disk.inject(Fault {
            operation: Operation::Create,
            path_contains: "Data.db".to_owned(),
            kind: std::io::ErrorKind::OutOfMemory,
            count: 3,
        });
        if let Err(error) = database.flush(None).await {
            assert!(error.is_disk_full(), "{error}");
            assert!(error.to_string().contains("LimitNOFILE"), "{error}");
        }
        env.tasks().sleep(Duration::from_secs(30)).await;
        assert!(!database.stats().refuses_writes);
        database.write(row_write(2, 1, 1, b"after")).await.unwrap();
        database.flush(None).await.unwrap();
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 2);
    })
    .expect("nothing stands still");
    env.kill();
}

#[test]
fn a_drain_right_after_space_came_back_tries_again() {
    let (disk, env) = machine(4);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        database.write(row_write(1, 1, 1, b"kept")).await.unwrap();
        disk.inject(Fault {
            operation: Operation::Write,
            path_contains: "Data.db".to_owned(),
            kind: std::io::ErrorKind::StorageFull,
            count: 1,
        });
        let error = database.flush(None).await.unwrap_err();
        assert!(error.is_disk_full(), "{error}");
        database.drain().await.unwrap();
    })
    .expect("nothing stands still");
    env.kill();
}

#[test]
fn what_runs_out_and_comes_back_is_a_shortage() {
    const EIO: i32 = 5;
    for (errno, expected) in [
        (EIO, false),
        (12, true),
        (23, true),
        (24, true),
        (28, true),
        (122, true),
    ] {
        let error = ceto_env::DiskError {
            operation: "create",
            path: "/data".into(),
            source: std::io::Error::from_raw_os_error(errno),
        };
        assert_eq!(error.is_shortage(), expected, "{error}");
        assert_eq!(Error::from(error).is_disk_full(), expected);
    }
}
