//! Damaged files: found, named, and survived.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::memory::{Fault, MemoryDisk, MemoryEnv, Operation};
use ceto_model::evaluate::evaluate;
use ceto_model::{ReadCommand, ReadResult};

use super::{Model, apply};
use crate::testing::*;
use crate::{CommitlogSync, Error, Result, StorageOptions};

/// A machine whose table has one sstable, and what is in it.
fn with_sstable(seed: u64) -> (Rc<MemoryDisk>, Model) {
    let (disk, env) = machine(seed);
    let mut dice = Dice::new(seed);
    let mut model = Model::new();
    let shape = Shape {
        partitions: 6,
        rows: 100,
        value_size: 300,
        timestamps: 1000,
        deletions: true,
    };
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for _ in 0..300 {
            let write = random_write(&mut dice, shape);
            apply(&mut model, &write);
            database.write(write).await.unwrap();
        }
        database.compact(TABLE).await.unwrap();
        database.flush(None).await.unwrap();
        database.compact(TABLE).await.unwrap();
        assert_eq!(database.sstables(TABLE).len(), 1);
        database.drain().await.unwrap();
        // Let the removals behind it end.
        ceto_env::Env::tasks(&*env).sleep(Duration::from_secs(1)).await;
    })
    .unwrap();
    env.kill();
    (disk, model)
}

fn reversed_read() -> ReadCommand {
    ReadCommand {
        reversed: true,
        ..read_all()
    }
}

/// Opens, verifies and reads everything, forward and backward.
fn read_back(disk: &Rc<MemoryDisk>) -> Result<[ReadResult; 2]> {
    let env = MemoryEnv::new(disk.clone(), 1);
    let result = env.block_on(async {
        let database = open(&env, options(0, 1)).await?;
        let forward = database.read(&read_all()).await?;
        let backward = database.read(&reversed_read()).await?;
        database.verify(TABLE).await?;
        Ok([forward, backward])
    });
    env.kill();
    result.expect("nothing stands still")
}

fn file_named(disk: &MemoryDisk, end: &str) -> PathBuf {
    let files = files_ending(disk, DATA, end);
    assert_eq!(files.len(), 1, "{end}: {files:?}");
    files[0].clone()
}

#[test]
fn a_flipped_bit_in_any_component_is_found_or_does_no_harm() {
    let (disk, model) = with_sstable(1);
    let expected = [evaluate(&read_all(), &model), evaluate(&reversed_read(), &model)];
    let mut dice = Dice::new(5);
    for end in [
        "Data.db",
        "Index.db",
        "Filter.db",
        "Statistics.db",
        "Digest.xxh3",
        "TOC.txt",
    ] {
        let file = file_named(&disk, end);
        let intact = disk.content(&file).unwrap();
        for _ in 0..60 {
            let at = dice.below(intact.len() as u64) as usize;
            disk.flip(&file, at, 1 << dice.below(8));
            match read_back(&disk) {
                Err(Error::Corrupt(corruption)) => assert_eq!(corruption.file, file, "byte {at}"),
                Err(other) => panic!("{end}, byte {at}: {other}"),
                // A filter that cannot be read is done without.
                Ok(results) => {
                    assert_eq!(end, "Filter.db", "byte {at}");
                    assert_same(&results[0], &expected[0], "forward");
                    assert_same(&results[1], &expected[1], "backward");
                }
            }
            disk.set_content(&file, intact.clone());
        }
    }
    assert!(read_back(&disk).is_ok());
}

#[test]
fn a_table_with_an_sstable_that_cannot_be_opened_takes_writes_and_a_truncation() {
    for end in ["Index.db", "Statistics.db", "Digest.xxh3", "TOC.txt"] {
        let (disk, _) = with_sstable(3);
        let file = file_named(&disk, end);
        disk.flip(&file, 0, 1);
        let env = MemoryEnv::new(disk.clone(), 1);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            assert_eq!(database.stats().unreadable_sstables, 1, "{end}");
            let error = database.read(&read_all()).await.unwrap_err();
            assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
            database.write(row_write(1, 1, 1, b"value")).await.unwrap();
            database.flush(None).await.unwrap();
            database.compact(TABLE).await.unwrap_err();
            database.truncate(TABLE, ceto_model::Timestamp(1)).await.unwrap();
            database.write(row_write(2, 1, 1, b"value")).await.unwrap();
            assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 1);
            ceto_env::Env::tasks(&*env).sleep(Duration::from_secs(1)).await;
            assert!(disk.content(&file).is_none(), "{end}: what is void is gone");
            database.drain().await.unwrap();
        })
        .unwrap();
        env.kill();
        assert_eq!(read_back(&disk).unwrap()[0].partitions.len(), 1, "{end}");
    }
}

#[test]
fn a_cut_component_is_found() {
    let (disk, _) = with_sstable(2);
    for end in ["Data.db", "Index.db", "Statistics.db", "Digest.xxh3", "TOC.txt"] {
        let file = file_named(&disk, end);
        let intact = disk.content(&file).unwrap();
        for length in [0, 1, intact.len() / 2, intact.len() - 1] {
            disk.set_content(&file, intact[..length].to_vec());
            assert!(read_back(&disk).is_err(), "{end} cut to {length}");
        }
        disk.set_content(&file, intact);
    }
    assert!(read_back(&disk).is_ok());
}

#[test]
fn a_bad_block_fails_the_read_with_its_place_and_the_node_lives() {
    let (disk, model) = with_sstable(3);
    let file = file_named(&disk, "Data.db");
    let env = MemoryEnv::new(disk.clone(), 1);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        disk.flip(&file, 2000, 1);
        let error = database.read(&read_all()).await.unwrap_err();
        let Error::Corrupt(corruption) = &error else {
            panic!("{error}")
        };
        assert_eq!(corruption.file, file);
        assert!(corruption.offset <= 2000, "{error}");
        assert!(error.to_string().contains("Data.db at offset"), "{error}");
        // The damaged table is left alone by compaction, writes and other reads go on.
        for number in 0..40 {
            database
                .write(row_write(100 + number, 1, 5000, b"new"))
                .await
                .unwrap();
        }
        assert!(database.compact(TABLE).await.is_err());
        database.flush(None).await.unwrap();
        let fresh = read_of(ceto_model::ReadTarget::Partition(key(100)));
        assert_eq!(database.read(&fresh).await.unwrap().partitions.len(), 1);
        disk.flip(&file, 2000, 1);
        let result = database.read(&read_all()).await.unwrap();
        assert!(result.partitions.len() >= model.len());
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_failed_disk_read_fails_the_read_only() {
    let (disk, _) = with_sstable(4);
    let env = MemoryEnv::new(disk.clone(), 1);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        disk.inject(Fault {
            operation: Operation::Read,
            path_contains: "Data.db".to_owned(),
            kind: std::io::ErrorKind::Other,
            count: 1,
        });
        assert!(matches!(database.read(&read_all()).await, Err(Error::Disk(_))));
        assert!(database.read(&read_all()).await.is_ok());
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_failed_sync_stops_writes_and_says_so() {
    let (disk, env) = machine(5);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        database.write(row_write(1, 1, 1, b"before")).await.unwrap();
        disk.inject(Fault {
            operation: Operation::Sync,
            path_contains: "CommitLog".to_owned(),
            kind: std::io::ErrorKind::Other,
            count: 1,
        });
        let error = database.write(row_write(2, 1, 1, b"lost")).await.unwrap_err();
        assert!(matches!(error, Error::Poisoned(_)), "{error}");
        let error = database.write(row_write(3, 1, 1, b"refused")).await.unwrap_err();
        assert!(error.to_string().contains("writes are stopped"), "{error}");
        assert!(database.stats().refuses_writes);
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 2);
    })
    .unwrap();
    env.kill();
}

fn log_options() -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 4 << 10,
        ..options(0, 1)
    }
}

/// A machine whose commitlog holds eight writes, each synced; the file that holds them.
fn with_log() -> (Rc<MemoryDisk>, PathBuf) {
    let (disk, env) = machine(6);
    env.block_on(async {
        let database = open(&env, log_options()).await.unwrap();
        for number in 0..8 {
            database
                .write(row_write(number, 1, 1, b"some value"))
                .await
                .unwrap();
        }
    })
    .unwrap();
    env.kill();
    let is_used = |file: &PathBuf| disk.content(file).unwrap()[60..].iter().any(|byte| *byte != 0);
    let mut used = files_ending(&disk, DATA, ".log").into_iter().filter(is_used);
    let file = used.next().unwrap();
    assert_eq!(used.next(), None);
    (disk, file)
}

/// The partitions that a start finds, by number.
fn recovered(disk: &Rc<MemoryDisk>) -> Result<Vec<u64>> {
    let env = MemoryEnv::new(disk.clone(), 1);
    let result = env.block_on(async {
        let database = open(&env, log_options()).await?;
        let result = database.read(&read_all()).await?;
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        let mut numbers: Vec<u64> = result
            .partitions
            .iter()
            .map(|partition| number(&partition.key.key.0))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    });
    env.kill();
    result.expect("nothing stands still")
}

/// Sets the disk back to what it was.
fn restore(disk: &MemoryDisk, saved: &[(PathBuf, Vec<u8>)]) {
    for file in disk.files() {
        disk.delete(&file);
    }
    for (file, content) in saved {
        disk.set_content(file, content.clone());
    }
}

#[test]
fn a_log_torn_at_any_byte_gives_a_prefix() {
    let (disk, file) = with_log();
    let saved: Vec<_> = disk
        .files()
        .into_iter()
        .map(|file| (file.clone(), disk.content(&file).unwrap()))
        .collect();
    let intact = disk.content(&file).unwrap();
    let end = intact.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut most = 0;
    for length in 0..=end {
        for cuts in [true, false] {
            let mut torn = intact.clone();
            if cuts {
                torn.truncate(length);
            } else {
                torn[length..].fill(0);
            }
            disk.set_content(&file, torn);
            let found = recovered(&disk).unwrap();
            assert_eq!(
                found,
                (0..found.len() as u64).collect::<Vec<_>>(),
                "torn at {length}"
            );
            assert!(found.len() >= most || cuts, "torn at {length}");
            most = most.max(found.len());
            restore(&disk, &saved);
        }
    }
    assert_eq!(most, 8);
}

#[test]
fn damage_in_what_was_synced_is_reported_with_its_place() {
    let (disk, file) = with_log();
    let saved: Vec<_> = disk
        .files()
        .into_iter()
        .map(|file| (file.clone(), disk.content(&file).unwrap()))
        .collect();
    for at in [48, 60, 70, 100, 200] {
        disk.flip(&file, at, 2);
        let error = recovered(&disk).unwrap_err();
        let Error::Corrupt(corruption) = &error else {
            panic!("{error}")
        };
        assert_eq!(corruption.file, file);
        assert!(
            corruption.offset <= at as u64 && corruption.offset + 100 > at as u64,
            "{error}"
        );
        restore(&disk, &saved);
    }
    assert_eq!(recovered(&disk).unwrap().len(), 8);
}

#[test]
fn a_power_loss_in_periodic_mode_loses_only_what_was_not_synced() {
    for seed in 0..20 {
        let (disk, env) = machine(seed);
        let periodic = StorageOptions {
            commitlog_sync: CommitlogSync::Periodic {
                period: Duration::from_secs(10),
            },
            ..log_options()
        };
        env.block_on(async {
            let database = open(&env, periodic).await.unwrap();
            for number in 0..10 {
                database.write(row_write(number, 1, 1, &[1; 200])).await.unwrap();
            }
            database.sync().await.unwrap();
            for number in 10..40 {
                database.write(row_write(number, 1, 1, &[1; 200])).await.unwrap();
            }
        })
        .unwrap();
        env.kill();
        disk.restart_after_power_loss();
        let found = recovered(&disk).unwrap();
        assert!(
            (0..10).all(|number| found.contains(&number)),
            "seed {seed}: {found:?}"
        );
    }
}

#[test]
fn a_sync_after_a_restart_is_one_of_what_was_replayed_too() {
    let periodic = || StorageOptions {
        commitlog_sync: CommitlogSync::Periodic {
            period: Duration::from_secs(10),
        },
        ..log_options()
    };
    for seed in 0..20 {
        let (disk, env) = machine(seed);
        env.block_on(async {
            let database = open(&env, periodic()).await.unwrap();
            for number in 0..10 {
                database.write(row_write(number, 1, 1, &[1; 200])).await.unwrap();
            }
        })
        .unwrap();
        env.kill();
        // The process has died, the kernel keeps what it wrote.
        disk.restart();
        let env = env.reboot(seed + 100);
        env.block_on(async {
            let database = open(&env, periodic()).await.unwrap();
            database.sync().await.unwrap();
        })
        .unwrap();
        env.kill();
        disk.restart_after_power_loss();
        let found = recovered(&disk).unwrap();
        assert!(
            (0..10).all(|number| found.contains(&number)),
            "seed {seed}: {found:?}"
        );
    }
}
