//! Bounds: memory, commitlog, waiting writes, size of a mutation; truncation and dropping.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ceto_env::memory::MemoryEnv;
use ceto_env::{Env, TaskQueue};
use ceto_model::{Collection, ColumnData, ColumnId, Mutation, TableId, Timestamp};
use uuid::Uuid;

use crate::testing::*;
use crate::{Database, Error, StorageOptions};

#[test]
fn memory_and_commitlog_stay_within_their_bounds_under_load() {
    let (disk, env) = machine(1);
    let bounded = StorageOptions {
        commitlog_segment_size: 8 << 10,
        commitlog_total_space: 64 << 10,
        memtable_space: 64 << 10,
        ..options(0, 1)
    };
    let done = Rc::new(Cell::new(0));
    env.block_on(async {
        let database = open(&env, bounded.clone()).await.unwrap();
        for writer in 0..8 {
            let (database, done) = (database.clone(), done.clone());
            let task = async move {
                for number in 0..150 {
                    let write = row_write(writer * 1000 + number, 1, 1, &[7; 500]);
                    database.write(write).await.unwrap();
                }
                done.set(done.get() + 1);
            };
            env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
        }
        let log_max = bounded.commitlog_total_space;
        while done.get() < 8 {
            env.tasks().sleep(Duration::from_millis(10)).await;
            let stats = database.stats();
            // One write per waiting writer may come on top.
            assert!(
                stats.memtable_bytes <= bounded.memtable_space as u64 + 8 * 2000,
                "{stats:?}"
            );
            assert!(stats.commitlog.disk_bytes <= log_max, "{stats:?}");
            assert!(files_ending(&disk, DATA, ".log").len() as u64 * (8 << 10) <= log_max);
        }
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 1200);
    })
    .expect("nothing stands still");
    env.kill();
}

#[test]
fn too_many_waiting_writes_are_refused() {
    let (disk, env) = machine(2);
    env.block_on(async {
        let tight = StorageOptions {
            memtable_space: 4000,
            memtable_cleanup_threshold: 0.9,
            waiting_writes_max: 3,
            ..options(0, 1)
        };
        let database = open(&env, tight).await.unwrap();
        let mut waiting = Vec::new();
        let mut refused = 0;
        for number in 0..30 {
            match database.apply(row_write(number, 1, 1, &[0; 400])) {
                Ok(crate::Applied::Later(done)) => waiting.push(done),
                Ok(crate::Applied::Done) => {}
                Err(Error::Overloaded { limit, max }) => {
                    assert_eq!((limit, max), ("waiting_writes_max", 3));
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(refused > 0);
        for done in waiting {
            done.await.unwrap();
        }
    })
    .unwrap();
    env.kill();
    drop(disk);
}

#[test]
fn a_mutation_larger_than_half_a_segment_is_refused() {
    let (_, env) = machine(3);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        let error = database.write(row_write(1, 1, 1, &[0; 9000])).await.unwrap_err();
        assert!(
            matches!(error, Error::MutationTooLarge { max: 8192, .. }),
            "{error}"
        );
        database.write(row_write(1, 1, 1, &[0; 8000])).await.unwrap();
        assert!(matches!(
            database
                .write(ceto_model::Mutation::new(TableId(Uuid::from_u128(9)), key(1)))
                .await,
            Err(Error::UnknownTable(_))
        ));
    })
    .unwrap();
    env.kill();
}

#[test]
fn an_old_memtable_is_flushed_by_the_clock() {
    let (_, env) = machine(4);
    env.block_on(async {
        let table = table_named(TABLE, "t", |builder| {
            builder.options.memtable_flush_period_in_ms = 60_000
        });
        let schema = schema_of(&[table]);
        let database = Database::open(env.clone(), options(0, 1), schema.clone())
            .await
            .unwrap();
        database.finish_recovery(schema).await.unwrap();
        database.write(row_write(1, 1, 1, b"value")).await.unwrap();
        env.tasks().sleep(Duration::from_secs(50)).await;
        assert_eq!(database.sstables(TABLE).len(), 0);
        env.tasks().sleep(Duration::from_secs(20)).await;
        assert_eq!(database.sstables(TABLE).len(), 1);
    })
    .unwrap();
    env.kill();
}

#[test]
fn truncation_removes_what_was_there_and_keeps_what_comes_after_also_over_a_crash() {
    for seed in 0..20 {
        let (disk, env) = machine(seed);
        let mut dice = Dice::new(seed);
        let is_truncated = Cell::new(false);
        disk.crash_after(100 + dice.below(300));
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            for number in 0..10 {
                database
                    .write(row_write(number, 1, 1 << 50, b"old"))
                    .await
                    .unwrap();
                if number % 4 == 3 {
                    database.flush(None).await.unwrap();
                }
            }
            database.truncate(TABLE, Timestamp(1)).await.unwrap();
            is_truncated.set(true);
            assert!(database.read(&read_all()).await.unwrap().partitions.is_empty());
            for number in 100..110 {
                database.write(row_write(number, 1, 1, b"new")).await.unwrap();
            }
            database.flush(None).await.unwrap();
            env.tasks().sleep(Duration::from_secs(60)).await;
        });
        env.kill();
        disk.restart_after_power_loss();
        let env = MemoryEnv::new(disk, seed + 1);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            let result = database.read(&read_all()).await.unwrap();
            let is_old =
                |partition: &&ceto_model::read::PartitionResult| (0..10).any(|n| partition.key == key(n));
            let old = result.partitions.iter().filter(is_old).count();
            if is_truncated.get() {
                assert_eq!(old, 0, "seed {seed}");
            }
        })
        .unwrap();
        env.kill();
    }
}

#[test]
fn a_dropped_table_leaves_nothing() {
    let (disk, env) = machine(5);
    env.block_on(async {
        let other = TableId(Uuid::from_u128(0x2222));
        let both = schema_of(&[table_named(TABLE, "t", |_| {}), table_named(other, "u", |_| {})]);
        let database = Database::open(env.clone(), options(0, 1), both.clone())
            .await
            .unwrap();
        database.finish_recovery(both).await.unwrap();
        for number in 0..10 {
            database.write(row_write(number, 1, 1, b"value")).await.unwrap();
            if number % 3 == 0 {
                database.flush(None).await.unwrap();
            }
        }
        assert!(!files_ending(&disk, "/ceto/data", "Data.db").is_empty());
        database.drop_table(TABLE).await.unwrap();
        assert!(matches!(
            database.write(row_write(1, 1, 1, b"value")).await,
            Err(Error::UnknownTable(_))
        ));
        env.tasks().sleep(Duration::from_secs(1)).await;
        assert_eq!(
            files_ending(&disk, "/ceto/data", ""),
            Vec::<std::path::PathBuf>::new()
        );
        let folders = env.disk().list_dir("/ceto/data/ks".as_ref()).await.unwrap();
        assert_eq!(folders.len(), 1);
        database.drop_table(TABLE).await.unwrap();
    })
    .unwrap();
    env.kill();
    // Its entries are still in the log; they are dropped.
    let env = MemoryEnv::new(disk, 6);
    env.block_on(async {
        let rest = schema_of(&[table_named(TableId(Uuid::from_u128(0x2222)), "u", |_| {})]);
        let database = Database::open(env.clone(), options(0, 1), rest.clone())
            .await
            .unwrap();
        database.finish_recovery(rest).await.unwrap();
    })
    .unwrap();
    env.kill();
}

#[test]
fn users_tables_are_replayed_when_their_schema_is_known() {
    let (disk, env) = machine(7);
    let system = TableId(Uuid::from_u128(0x3333));
    let system_schema = schema_of(&[table_named(system, "system", |_| {})]);
    let whole = schema_of(&[
        table_named(system, "system", |_| {}),
        table_named(TABLE, "t", |_| {}),
    ]);
    env.block_on(async {
        let database = Database::open(env.clone(), options(0, 1), whole.clone())
            .await
            .unwrap();
        database.finish_recovery(whole.clone()).await.unwrap();
        for number in 0..50 {
            database.write(row_write(number, 1, 1, &[0; 300])).await.unwrap();
            let mut write = row_write(number, 1, 1, &[0; 300]);
            write.table = system;
            database.write(write).await.unwrap();
        }
    })
    .unwrap();
    env.kill();
    let env = MemoryEnv::new(disk, 8);
    env.block_on(async {
        let database = Database::open(env.clone(), options(0, 1), system_schema)
            .await
            .unwrap();
        // Between the stages the system tables are written and flushed; no segment may go.
        for number in 50..200 {
            let mut write = row_write(number, 1, 1, &[0; 300]);
            write.table = system;
            database.write(write).await.unwrap();
        }
        database.flush(None).await.unwrap();
        database.finish_recovery(whole).await.unwrap();
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 50);
        let mut command = read_all();
        command.table = system;
        assert_eq!(database.read(&command).await.unwrap().partitions.len(), 200);
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_drained_shard_takes_no_writes_and_has_nothing_to_replay() {
    let (disk, env) = machine(9);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for number in 0..30 {
            database.write(row_write(number, 1, 1, &[0; 200])).await.unwrap();
        }
        database.drain().await.unwrap();
        assert!(matches!(
            database.write(row_write(1, 1, 1, b"late")).await,
            Err(Error::Closed)
        ));
        database.sync().await.unwrap();
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 30);
    })
    .expect("nothing stands still");
    env.kill();
    let env = MemoryEnv::new(disk, 10);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        assert_eq!(database.table_stats(TABLE).unwrap().memtable_partitions, 0);
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 30);
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_read_of_one_partition_needs_no_wait_once_its_block_is_cached() {
    let (_, env) = machine(11);
    env.block_on(async {
        let without_rows = StorageOptions {
            row_cache_size: 0,
            ..options(0, 1)
        };
        let database = open(&env, without_rows).await.unwrap();
        let command = read_of(ceto_model::ReadTarget::Partition(key(1)));
        database.write(row_write(1, 1, 1, b"value")).await.unwrap();
        assert_eq!(database.try_read(&command).unwrap().unwrap().partitions.len(), 1);
        database.flush(None).await.unwrap();
        assert!(database.try_read(&command).is_none(), "the block must be read");
        assert_eq!(database.read(&command).await.unwrap().partitions.len(), 1);
        let result = database.try_read(&command).unwrap().unwrap();
        assert_eq!((result.partitions.len(), result.work.sstables), (1, 1));
        // The sstable is known to have nothing of another key.
        let absent = key(2);
        let command = read_of(ceto_model::ReadTarget::Partition(absent));
        assert!(
            database
                .try_read(&command)
                .unwrap()
                .unwrap()
                .partitions
                .is_empty()
        );
    })
    .unwrap();
    env.kill();
}

#[test]
fn drain_does_not_wait_for_a_slow_compaction() {
    let (_, env) = machine(12);
    env.block_on(async {
        let slow = StorageOptions {
            compaction_throughput: 1 << 10,
            memtable_space: 4 << 20,
            commitlog_total_space: 8 << 20,
            ..options(0, 1)
        };
        let database = open(&env, slow).await.unwrap();
        let mut dice = Dice::new(12);
        for number in 0..400 {
            let noise: Vec<u8> = (0..4000).map(|_| dice.next() as u8).collect();
            database.write(row_write(number, 1, 1, &noise)).await.unwrap();
            if number % 100 == 99 {
                database.flush(None).await.unwrap();
            }
        }
        // More than a megabyte at a kibibyte a second.
        env.tasks().sleep(Duration::from_secs(10)).await;
        assert_eq!(database.stats().running_compactions.len(), 1);
        let began = env.clock().now();
        database.drain().await.unwrap();
        let took = env.clock().now() - began;
        assert!(took < Duration::from_millis(100), "{took:?}");
    })
    .expect("nothing stands still");
    env.kill();
}

/// As Cassandra counts: dead cells, and rows dead as a whole; not what live content has replaced.
#[test]
fn tombstones_are_counted_where_something_is_dead() {
    let (_, env) = machine(7);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        let tombstones = async || database.read(&read_all()).await.unwrap().work.tombstones;
        let mut inserted = row_write(1, 1, 5, b"value");
        let mut collection = Collection::default();
        collection.delete(deletion(4));
        collection.merge_cell(
            Bytes::from_static(b"element"),
            ceto_model::Cell::live(Timestamp(5), Bytes::new()),
        );
        let row = inserted.partition.row_mut(clustering(1));
        row.deletion = Some(deletion(3));
        row.merge_column(ColumnId(4), ColumnData::Collection(collection));
        database.write(inserted).await.unwrap();
        assert_eq!(
            tombstones().await,
            0,
            "a live row whose collection replaced an older one"
        );
        let mut emptied = Mutation::new(TABLE, key(1));
        let dead = ceto_model::Cell::tombstone(Timestamp(6), deletion(6).deleted_at);
        let row = emptied.partition.row_mut(clustering(1));
        row.merge_column(ColumnId(3), ColumnData::Cell(dead));
        database.write(emptied).await.unwrap();
        assert_eq!(tombstones().await, 1, "a deleted cell of a live row");
        let mut deleted = Mutation::new(TABLE, key(1));
        deleted.partition.row_mut(clustering(1)).deletion = Some(deletion(9));
        database.write(deleted).await.unwrap();
        assert_eq!(tombstones().await, 1, "a deleted row");
    })
    .expect("nothing stands still");
    env.kill();
}
