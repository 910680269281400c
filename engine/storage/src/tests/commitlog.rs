//! The commitlog as a whole: compression, segments' sizes, and what failures and damage lead to.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{Fault, MemoryDisk, MemoryEnv, Operation};

use crate::testing::*;
use crate::{
    Codec, CommitFailurePolicy, CommitlogSync, Compression, Error, ReplayFailurePolicy, StorageFailure,
    StorageOptions,
};

fn compressed_by(codec: Codec) -> StorageOptions {
    StorageOptions {
        commitlog_compression: Compression {
            codec,
            ..Compression::default()
        },
        ..options(0, 1)
    }
}

#[test]
fn compressed_entries_take_less_and_come_back() {
    for codec in [Codec::Lz4, Codec::Zstd, Codec::Snappy, Codec::Deflate] {
        let (disk, env) = machine(1);
        env.block_on(async {
            let database = open(&env, compressed_by(codec)).await.unwrap();
            for number in 0..20 {
                database.write(row_write(number, 1, 1, &[7; 2000])).await.unwrap();
                // Too small to be worth it.
                database.write(row_write(number, 2, 1, b"x")).await.unwrap();
            }
            let stats = database.stats().commitlog;
            assert!(stats.appended_bytes * 3 < stats.raw_bytes, "{codec:?}: {stats:?}");
        })
        .unwrap();
        env.kill();
        // A start with another setting reads them too.
        let env = MemoryEnv::new(disk, 2);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            let result = database.read(&read_all()).await.unwrap();
            assert_eq!(result.partitions.len(), 20, "{codec:?}");
            assert_eq!(result.work.live_rows, 40, "{codec:?}");
        })
        .unwrap();
        env.kill();
    }
}

#[test]
fn the_first_segment_is_small_and_still_any_mutation_fits() {
    let large = || StorageOptions {
        commitlog_segment_size: 8 << 20,
        commitlog_total_space: 64 << 20,
        memtable_space: 64 << 20,
        ..options(0, 1)
    };
    let (disk, env) = machine(3);
    env.block_on(async {
        let database = open(&env, large()).await.unwrap();
        assert_eq!(database.stats().commitlog.disk_bytes, 1 << 20);
        database.write(row_write(1, 1, 1, b"small")).await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        assert_eq!(
            database.stats().commitlog.disk_bytes,
            1 << 20,
            "an idle shard needs no second one"
        );
        database
            .write(row_write(2, 1, 1, &vec![7; (4 << 20) - 200]))
            .await
            .unwrap();
        let error = database
            .write(row_write(3, 1, 1, &vec![7; 4 << 20]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::MutationTooLarge { max: 4194304, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("max_mutation_size"), "{error}");
    })
    .expect("nothing stands still");
    env.kill();
    let env = MemoryEnv::new(disk, 4);
    env.block_on(async {
        // The very first write may be too large for the first segment.
        let database = open(&env, large()).await.unwrap();
        database
            .write(row_write(4, 1, 1, &vec![8; 3 << 20]))
            .await
            .unwrap();
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 3);
        let small = StorageOptions {
            max_mutation_size: Some(1000),
            ..large()
        };
        assert_eq!((small.mutation_max(), large().mutation_max()), (1000, 4 << 20));
    })
    .expect("nothing stands still");
    env.kill();
}

fn log_options(policy: ReplayFailurePolicy) -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 4 << 10,
        replay_failure_policy: policy,
        ..options(0, 1)
    }
}

/// A machine whose log holds nine synced writes, the fifth of them damaged; the damaged file.
fn with_damage() -> (Rc<MemoryDisk>, PathBuf) {
    let (disk, env) = machine(6);
    env.block_on(async {
        let database = open(&env, log_options(ReplayFailurePolicy::Stop)).await.unwrap();
        for number in 0..9 {
            let value = format!("value {number}");
            database
                .write(row_write(number, 1, 1, value.as_bytes()))
                .await
                .unwrap();
        }
    })
    .unwrap();
    env.kill();
    let holds = |content: &[u8]| content.windows(7).position(|window| window == b"value 4");
    let files = files_ending(&disk, DATA, ".log");
    let (file, at) = files
        .iter()
        .find_map(|file| Some((file.clone(), holds(&disk.content(file).unwrap())?)))
        .unwrap();
    disk.flip(&file, at, 1);
    (disk, file)
}

#[test]
fn damage_in_the_middle_is_answered_as_the_policy_says() {
    let (disk, file) = with_damage();
    let start = |policy: ReplayFailurePolicy| {
        let env = MemoryEnv::new(disk.clone(), 7);
        let result = env.block_on(async {
            let database = open(&env, log_options(policy)).await?;
            let result = database.read(&read_all()).await?;
            database.flush(None).await?;
            env.tasks().sleep(Duration::from_secs(1)).await;
            Ok::<usize, Error>(result.partitions.len())
        });
        env.kill();
        result.expect("nothing stands still")
    };
    let error = start(ReplayFailurePolicy::Stop).unwrap_err().to_string();
    assert!(error.contains("commitlog_replay_failure_policy"), "{error}");
    assert!(error.contains(&file.display().to_string()), "{error}");
    let damaged = disk.content(&file).unwrap();
    // All valid entries, before and behind the damage.
    assert_eq!(start(ReplayFailurePolicy::BestEffort).unwrap(), 8);
    let copy = format!("{}.damaged", file.display());
    assert_eq!(disk.content(Path::new(&copy)).unwrap(), damaged);
    // By now they are in an sstable, and the segment is not needed.
    assert_eq!(start(ReplayFailurePolicy::Stop).unwrap(), 8);
    let (disk, _) = with_damage();
    let env = MemoryEnv::new(disk.clone(), 8);
    env.block_on(async {
        let database = open(&env, log_options(ReplayFailurePolicy::Ignore))
            .await
            .unwrap();
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 8);
    })
    .unwrap();
    env.kill();
    assert_eq!(files_ending(&disk, DATA, ".damaged"), Vec::<PathBuf>::new());
}

#[test]
fn a_replay_tells_how_far_it_is() {
    let (disk, env) = machine(9);
    let small = || StorageOptions {
        commitlog_segment_size: 4 << 10,
        ..options(0, 1)
    };
    env.block_on(async {
        let database = open(&env, small()).await.unwrap();
        for number in 0..30 {
            database.write(row_write(number, 1, 1, &[1; 500])).await.unwrap();
        }
    })
    .unwrap();
    env.kill();
    let env = MemoryEnv::new(disk, 10);
    let options = small();
    let progress = options.replay_progress.clone();
    env.block_on(async {
        open(&env, options).await.unwrap();
        let (done, all) = progress.segments();
        assert!(!progress.is_running());
        assert!(all >= 4 && done == all, "{done} of {all}");
        assert_eq!(progress.bytes().0, progress.bytes().1);
        assert_eq!(progress.entries(), 30);
    })
    .unwrap();
    env.kill();
}

fn failing(policy: CommitFailurePolicy) -> (Rc<MemoryDisk>, Rc<MemoryEnv>, StorageOptions) {
    let (disk, env) = machine(11);
    let options = StorageOptions {
        commit_failure_policy: policy,
        commitlog_sync: CommitlogSync::Batch,
        ..options(0, 1)
    };
    (disk, env, options)
}

fn fail_next_sync(disk: &MemoryDisk) {
    disk.inject(Fault {
        operation: Operation::Sync,
        path_contains: "CommitLog".to_owned(),
        kind: std::io::ErrorKind::Other,
        count: 1,
    });
}

#[test]
fn a_failed_sync_is_answered_as_the_policy_says() {
    for policy in [
        CommitFailurePolicy::Die,
        CommitFailurePolicy::Stop,
        CommitFailurePolicy::StopCommit,
    ] {
        let (disk, env, options) = failing(policy);
        env.block_on(async {
            let database = open(&env, options).await.unwrap();
            database.write(row_write(1, 1, 1, b"before")).await.unwrap();
            fail_next_sync(&disk);
            let error = database.write(row_write(2, 1, 1, b"lost")).await.unwrap_err();
            assert!(matches!(error, Error::Poisoned(_)), "{error}");
            assert!(database.write(row_write(3, 1, 1, b"refused")).await.is_err());
            match policy {
                CommitFailurePolicy::Die => {
                    assert!(matches!(database.failed().await, StorageFailure::Die(_)))
                }
                CommitFailurePolicy::Stop => {
                    assert!(matches!(database.failed().await, StorageFailure::StopServing(_)))
                }
                _ => assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 2),
            }
        })
        .expect("nothing stands still");
        env.kill();
    }
    let (disk, env, options) = failing(CommitFailurePolicy::Ignore);
    env.block_on(async {
        let database = open(&env, options).await.unwrap();
        fail_next_sync(&disk);
        let error = database.write(row_write(2, 1, 1, b"lost")).await.unwrap_err();
        assert!(matches!(error, Error::Disk(_)), "{error}");
        database.write(row_write(3, 1, 1, b"goes on")).await.unwrap();
    })
    .expect("nothing stands still");
    env.kill();
}
