//! Compaction of every strategy: content, rules of the strategy, crashes, space, and what operators ask for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::evaluate::evaluate;
use ceto_model::*;

use super::{Model, apply};
use crate::sstable::Origin;
use crate::testing::*;
use crate::{Database, Error, MajorCompaction, Statistics, StorageOptions};

type Options = &'static [(&'static str, &'static str)];

/// Strategies with sizes that suit little data.
const STRATEGIES: [Options; 7] = [
    &[
        ("class", "SizeTieredCompactionStrategy"),
        ("min_sstable_size", "0"),
    ],
    &[
        ("class", "LeveledCompactionStrategy"),
        ("sstable_size_in_mb", "0.004"),
        ("fanout_size", "3"),
    ],
    &[
        ("class", "TimeWindowCompactionStrategy"),
        ("compaction_window_unit", "MINUTES"),
        ("timestamp_resolution", "SECONDS"),
    ],
    &[
        ("class", "IncrementalCompactionStrategy"),
        ("sstable_size_in_mb", "0.016"),
        ("min_sstable_size", "0"),
    ],
    &[
        ("class", "UnifiedCompactionStrategy"),
        ("target_sstable_size", "8KiB"),
        ("min_sstable_size", "0B"),
        ("flush_size_override", "4KiB"),
        ("base_shard_count", "2"),
    ],
    &[
        ("class", "UnifiedCompactionStrategy"),
        ("scaling_parameters", "L4"),
        ("target_sstable_size", "8KiB"),
        ("min_sstable_size", "0B"),
        ("flush_size_override", "4KiB"),
        ("overlap_inclusion_method", "single"),
    ],
    &[
        ("class", "UnifiedCompactionStrategy"),
        ("scaling_parameters", "T3, N"),
        ("target_sstable_size", "16KiB"),
        ("min_sstable_size", "4KiB"),
        ("flush_size_override", "2KiB"),
        ("overlap_inclusion_method", "none"),
    ],
];

fn schema_with(strategy: Options, gc_grace: u32) -> Arc<Schema> {
    schema_of(&[table_named(TABLE, "t", |builder| {
        builder.options.gc_grace_seconds = gc_grace;
        let options = strategy.iter();
        builder.options.compaction = options.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    })])
}

fn small_options() -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 8 << 10,
        commitlog_total_space: 64 << 10,
        memtable_space: 24 << 10,
        ..options(0, 1)
    }
}

fn by_hand() -> StorageOptions {
    StorageOptions {
        automatic_compaction: false,
        memtable_space: 64 << 20,
        commitlog_segment_size: 1 << 20,
        commitlog_total_space: 64 << 20,
        ..options(0, 1)
    }
}

async fn open_with(env: &Rc<MemoryEnv>, options: StorageOptions, schema: &Arc<Schema>) -> Rc<Database> {
    let database = Database::open(env.clone(), options, schema.clone())
        .await
        .unwrap();
    database.finish_recovery(schema.clone()).await.unwrap();
    database
}

async fn check(database: &Database, model: &Model, env: &MemoryEnv, context: &str) {
    let mut command = read_all();
    command.now = UnixSeconds(env.clock().unix_seconds());
    let found = database.read(&command).await.unwrap();
    assert_same(&found, &evaluate(&command, model), context);
}

fn overlap(a: &Statistics, b: &Statistics) -> bool {
    let tokens = |s: &Statistics| {
        let token = |key: &PartitionKey| Token::of(&key.0);
        (token(&s.first_key), token(&s.last_key))
    };
    let ((a_first, a_last), (b_first, b_last)) = (tokens(a), tokens(b));
    a_first <= b_last && b_first <= a_last
}

/// What holds of a table's sstables under every strategy, whatever they were before: runs and levels do not overlap.
fn check_rules(database: &Database, context: &str) {
    let all = database.sstables(TABLE);
    for (at, (_, a)) in all.iter().enumerate() {
        for (_, b) in &all[at + 1..] {
            let is_one_run = a.run.is_some() && a.run == b.run;
            assert!(
                !is_one_run || !overlap(a, b),
                "{context}: fragments of a run overlap"
            );
            let is_one_level = a.level > 0 && a.level == b.level;
            assert!(
                !is_one_level || !overlap(a, b),
                "{context}: level {} overlaps",
                a.level
            );
        }
    }
}

#[test]
fn content_is_the_same_whatever_is_compacted() {
    for seed in 0..4 {
        for (number, strategy) in STRATEGIES.into_iter().enumerate() {
            run(seed * 100 + number as u64, strategy, &[]);
        }
    }
}

#[test]
fn strategies_can_be_switched_at_any_time() {
    for seed in 0..8 {
        run(1000 + seed, STRATEGIES[0], &STRATEGIES);
    }
}

/// Random writes, flushes, compactions and restarts; sometimes the strategy becomes another one.
fn run(seed: u64, strategy: Options, others: &[Options]) {
    let disk = MemoryDisk::new(seed);
    let mut dice = Dice::new(seed);
    let shape = Shape {
        partitions: 60,
        rows: 20,
        value_size: 200,
        timestamps: 1000,
        deletions: true,
    };
    let mut model = Model::new();
    let mut strategy = strategy;
    for round in 0..3 {
        let env = MemoryEnv::new(disk.clone(), seed * 100 + round);
        let done = env.block_on(async {
            let database = open_with(&env, small_options(), &schema_with(strategy, 1_000_000)).await;
            for step in 0..150 {
                let write = random_write(&mut dice, shape);
                apply(&mut model, &write);
                database.write(write).await.unwrap();
                let context = format!("seed {seed}, round {round}, step {step}, {strategy:?}");
                match dice.below(60) {
                    0..=3 => database.flush(None).await.unwrap(),
                    4 => database.compact(TABLE).await.unwrap(),
                    5 => env.tasks().sleep(Duration::from_secs(2)).await,
                    6 => check(&database, &model, &env, &context).await,
                    7 => {
                        let files: Vec<String> = database
                            .sstables(TABLE)
                            .iter()
                            .take(3)
                            .map(|(d, _)| data_file(d))
                            .collect();
                        // One of them may just be taken.
                        let _ = database.compact_files(&files).await;
                    }
                    8 => database.garbage_collect(TABLE, dice.one_in(2)).await.unwrap(),
                    9 => database.upgrade(TABLE, true).await.unwrap(),
                    10 if !others.is_empty() => {
                        strategy = others[dice.below(others.len() as u64) as usize];
                        database
                            .set_schema(schema_with(strategy, 1_000_000))
                            .await
                            .unwrap();
                    }
                    _ => {}
                }
            }
            env.tasks().sleep(Duration::from_secs(3)).await;
            let context = format!("seed {seed}, end of round {round}, {strategy:?}");
            if others.is_empty() {
                check_rules(&database, &context);
            }
            check(&database, &model, &env, &context).await;
            database.verify(TABLE).await.unwrap();
        });
        assert!(done.is_some(), "seed {seed} stands still");
        env.kill();
        disk.restart();
    }
}

fn data_file(descriptor: &crate::Descriptor) -> String {
    let path = descriptor.path(crate::Component::Data);
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Some flushed sstables that overlap, with rows that were deleted long ago and others that were written again.
async fn fill(database: &Database, env: &MemoryEnv, model: &mut Model, seed: u64) {
    let mut dice = Dice::new(seed);
    for batch in 0..5 {
        for _ in 0..25 {
            let (partition, row) = (dice.below(40), dice.below(4) as u16);
            let timestamp = env.clock().unix_micros() + dice.below(50) as i64;
            let write = if dice.one_in(3) {
                let mut write = Mutation::new(TABLE, key(partition));
                let deletion = Deletion {
                    timestamp: Timestamp(timestamp),
                    deleted_at: UnixSeconds(env.clock().unix_seconds()),
                };
                match dice.below(3) {
                    0 => write.partition.deletion = Some(deletion),
                    1 => write.partition.row_mut(clustering(row)).delete(deletion),
                    _ => write.partition.delete_range(RangeTombstone {
                        slice: slice(0, row),
                        deletion,
                    }),
                }
                write
            } else {
                row_write(partition, row, timestamp, &[batch; 150])
            };
            apply(model, &write);
            database.write(write).await.unwrap();
            env.tasks().sleep(Duration::from_millis(10)).await;
        }
        database.flush(None).await.unwrap();
    }
    // Past gc grace.
    env.tasks().sleep(Duration::from_secs(10)).await;
}

/// Every file belongs to an sstable that the table has.
fn check_files(database: &Database, disk: &MemoryDisk, context: &str) {
    let live: Vec<String> = database
        .sstables(TABLE)
        .iter()
        .map(|(d, _)| data_file(d))
        .collect();
    for file in files_ending(disk, DATA, "Data.db") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(live.contains(&name), "{context}: {name} was left behind");
    }
}

#[test]
fn a_crash_at_any_disk_operation_leaves_the_old_or_the_new_sstables() {
    for (number, strategy) in STRATEGIES.into_iter().enumerate() {
        let seed = 50 + number as u64;
        let is_exhaustive = std::env::var_os("CETO_EXHAUSTIVE").is_some();
        let mut is_through = false;
        let mut at = 0;
        while !is_through {
            let ends = [at % 2 == 1, at % 2 == 0];
            let ends = &ends[..if is_exhaustive { 2 } else { 1 }];
            for power_loss in ends {
                let context = format!("{strategy:?}, crash at {at}, power loss {power_loss}");
                is_through = crash_at(strategy, seed, at, *power_loss, &context);
            }
            // Every operation of the first output, and some of all others.
            at += 1 + if is_exhaustive { 0 } else { at / 16 };
        }
        assert!(at > 30, "{strategy:?}: only {at} operations");
    }
}

/// True when the compaction was done before the crash.
fn crash_at(strategy: Options, seed: u64, at: u64, power_loss: bool, context: &str) -> bool {
    let schema = schema_with(strategy, 0);
    let disk = MemoryDisk::new(seed + at);
    let env = MemoryEnv::new(disk.clone(), seed);
    let model = Rc::new(RefCell::new(Model::new()));
    let is_done = env.block_on(async {
        let database = open_with(&env, by_hand(), &schema).await;
        let mut written = Model::new();
        fill(&database, &env, &mut written, seed).await;
        database.sync().await.unwrap();
        *model.borrow_mut() = written;
        disk.crash_after(at);
        database.compact(TABLE).await.unwrap();
        // The removal of the old files is part of it.
        env.tasks().sleep(Duration::from_secs(1)).await;
    });
    env.kill();
    match power_loss {
        false => disk.restart(),
        true => disk.restart_after_power_loss(),
    }
    let elapsed = env.clock().unix_micros();
    let env = MemoryEnv::new(disk.clone(), seed + 1);
    env.advance(Duration::from_micros(
        (elapsed - env.clock().unix_micros()).max(0) as u64,
    ));
    let done = env.block_on(async {
        let database = open_with(&env, by_hand(), &schema).await;
        let expected = model.borrow().clone();
        check(&database, &expected, &env, context).await;
        check_rules(&database, context);
        database.verify(TABLE).await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        check_files(&database, &disk, context);
        // And what is there can be compacted: to what is alive only.
        database.compact(TABLE).await.unwrap();
        check(&database, &expected, &env, context).await;
        let tombstones: u64 = database.sstables(TABLE).iter().map(|(_, s)| s.tombstones).sum();
        let is_mixed = strategy[0].1 == "TimeWindowCompactionStrategy";
        assert!(
            tombstones == 0 || is_mixed,
            "{context}: {tombstones} tombstones stay"
        );
    });
    assert!(done.is_some(), "{context}: stands still");
    env.kill();
    is_done.is_some() && !disk.has_crashed()
}

#[test]
fn deleted_data_does_not_come_back_when_the_log_is_replayed() {
    let disk = MemoryDisk::new(9);
    let schema = schema_with(STRATEGIES[0], 0);
    let env = MemoryEnv::new(disk.clone(), 9);
    env.block_on(async {
        let database = open_with(&env, by_hand(), &schema).await;
        // The tombstone first, then what it shadows.
        let mut deletion_of_row = Mutation::new(TABLE, key(1));
        let row = deletion_of_row.partition.row_mut(clustering(1));
        row.delete(deletion(100));
        database.write(deletion_of_row).await.unwrap();
        database.flush(None).await.unwrap();
        database.write(row_write(1, 1, 50, b"older")).await.unwrap();
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(5)).await;
        database.compact(TABLE).await.unwrap();
        assert!(database.sstables(TABLE).is_empty(), "all of it was purged");
    })
    .unwrap();
    env.kill();
    disk.restart();
    let env = MemoryEnv::new(disk, 10);
    env.block_on(async {
        let database = open_with(&env, by_hand(), &schema).await;
        let result = database.read(&read_all()).await.unwrap();
        assert!(result.partitions.is_empty(), "the log's entries were in sstables");
    })
    .unwrap();
    env.kill();
}

/// Bytes that no compression makes smaller.
fn random_bytes(dice: &mut Dice, count: usize) -> Vec<u8> {
    (0..count).map(|_| dice.next() as u8).collect()
}

/// Runs of a few hundred kibibytes with the keys of all of them in each.
async fn write_runs(database: &Database, runs: u8, partitions: u64) {
    let mut dice = Dice::new(3);
    for run in 0..runs {
        for partition in 0..partitions {
            let value = random_bytes(&mut dice, 500);
            let row = u16::from(run);
            database
                .write(row_write(partition, row, 1 + i64::from(run), &value))
                .await
                .unwrap();
        }
        database.flush(None).await.unwrap();
        let newest = database
            .sstables(TABLE)
            .iter()
            .filter(|(_, s)| s.origin == Origin::Flush)
            .map(|(d, _)| data_file(d))
            .collect::<Vec<_>>();
        database.compact_files(&newest).await.unwrap();
    }
}

#[test]
fn incremental_and_unified_compactions_need_less_than_two_fragments() {
    const FRAGMENT: u64 = 2 << 20;
    for strategy in [
        &[
            ("class", "IncrementalCompactionStrategy"),
            ("sstable_size_in_mb", "2"),
        ][..],
        &[
            ("class", "UnifiedCompactionStrategy"),
            ("target_sstable_size", "2MiB"),
            ("min_sstable_size", "0B"),
            ("base_shard_count", "1"),
            ("sstable_growth", "0"),
        ][..],
    ] {
        let (disk, env) = machine(5);
        env.block_on(async {
            let database = open_with(&env, by_hand(), &schema_with(strategy, 0)).await;
            write_runs(&database, 4, 8000).await;
            env.tasks().sleep(Duration::from_secs(1)).await;
            let data: u64 = database.sstables(TABLE).iter().map(|(_, s)| s.data_size).sum();
            assert!(
                data > 7 * FRAGMENT,
                "{strategy:?}: {data} bytes are too few to tell"
            );
            let before = database.sstables(TABLE).len();
            assert!(before > 20, "{strategy:?}: {before} sstables");
            // No more than two fragments fit beside what is there.
            disk.set_capacity(disk.used() + 2 * FRAGMENT);
            database.compact(TABLE).await.unwrap();
            let after: u64 = database.sstables(TABLE).iter().map(|(_, s)| s.data_size).sum();
            assert!(after > data / 2, "{strategy:?}: nothing was lost");
            let rows: u64 = database.sstables(TABLE).iter().map(|(_, s)| s.rows).sum();
            let partitions: u64 = database.sstables(TABLE).iter().map(|(_, s)| s.partitions).sum();
            assert_eq!((rows, partitions), (32_000, 8000), "{strategy:?}: all was merged");
            let largest = database.sstables(TABLE).iter().map(|(_, s)| s.data_size).max();
            assert!(largest.unwrap() < FRAGMENT, "{strategy:?}");
        })
        .unwrap_or_else(|| panic!("{strategy:?} stands still"));
        env.kill();
    }
}

#[test]
fn a_compaction_that_cannot_finish_does_not_start() {
    let (disk, env) = machine(6);
    env.block_on(async {
        let database = open_with(&env, by_hand(), &schema_with(STRATEGIES[0], 0)).await;
        for batch in 0..3u16 {
            for partition in 0..200 {
                database
                    .write(row_write(partition, batch, 1, &[partition as u8; 300]))
                    .await
                    .unwrap();
            }
            database.flush(None).await.unwrap();
        }
        let before = database.sstables(TABLE);
        let smallest = before.iter().map(|(_, s)| s.data_size).min().unwrap();
        let used = disk.used();
        disk.set_capacity(used + smallest);
        let error = database.compact(TABLE).await.unwrap_err();
        assert!(matches!(error, Error::SpaceNeeded { .. }), "{error}");
        assert!(error.to_string().contains("bytes of disk space"), "{error}");
        assert_eq!(database.sstables(TABLE), before);
        assert_eq!(disk.used(), used, "nothing was written");
        assert!(!database.stats().refuses_writes);
        // With space for two of them, two are compacted.
        disk.set_capacity(used + smallest * 5 / 2);
        database.compact(TABLE).await.unwrap();
        assert_eq!(database.sstables(TABLE).len(), 2);
        assert_eq!(database.stats().reduced_compactions, 2, "one each time");
    })
    .unwrap();
    env.kill();
}

#[test]
fn compactions_can_be_stopped_and_forbidden() {
    let (disk, env) = machine(7);
    env.block_on(async {
        let database = open_with(&env, by_hand(), &schema_with(STRATEGIES[0], 0)).await;
        let mut dice = Dice::new(7);
        for batch in 0..4u16 {
            for partition in 0..400 {
                database
                    .write(row_write(partition, batch, 1, &random_bytes(&mut dice, 300)))
                    .await
                    .unwrap();
            }
            database.flush(None).await.unwrap();
        }
        let before = database.sstables(TABLE);
        database.set_compaction_throughput(1000);
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hears = heard.clone();
        database.set_compaction_listener(Rc::new(move |record| hears.borrow_mut().push(record.clone())));
        let stopper = database.clone();
        let sleeper = env.clone();
        let stop = async move {
            sleeper.tasks().sleep(Duration::from_secs(20)).await;
            let running = stopper.stats().running_compactions;
            assert_eq!((running.len(), running[0].kind), (1, "Major Compaction"));
            assert!(running[0].read_bytes > 0 && running[0].total_bytes > running[0].written_bytes);
            assert_eq!(stopper.stop_compactions(None, Some("CLEANUP")), 0);
            assert_eq!(stopper.stop_compactions(Some(running[0].id), None), 1);
        };
        env.tasks()
            .spawn(ceto_env::TaskQueue::Maintenance, Box::pin(stop));
        let error = database.compact(TABLE).await.unwrap_err();
        assert!(matches!(error, Error::Aborted), "{error}");
        assert_eq!(database.sstables(TABLE), before, "the old sstables stay");
        env.tasks().sleep(Duration::from_secs(1)).await;
        check_files(&database, &disk, "stopped");
        assert!(heard.borrow().is_empty());
        assert_eq!(database.stats().aborted_compactions, 1);
        database.set_compaction_throughput(0);
        database
            .compact_major(TABLE, MajorCompaction::default())
            .await
            .unwrap();
        let record = heard.borrow()[0].clone();
        assert_eq!(record.partitions_merged, [(4, 400)]);
        assert!(record.bytes_in > record.bytes_out && record.bytes_out > 0);
        assert!(database.has_automatic_compaction(TABLE).unwrap());
        database.set_automatic_compaction(TABLE, false).unwrap();
        assert!(!database.has_automatic_compaction(TABLE).unwrap());
    })
    .unwrap();
    env.kill();
}

#[test]
fn cleanup_keeps_what_is_owned() {
    let (_, env) = machine(8);
    env.block_on(async {
        let database = open_with(&env, by_hand(), &schema_with(STRATEGIES[0], 0)).await;
        for partition in 0..50 {
            database
                .write(row_write(partition, 1, 1, b"value"))
                .await
                .unwrap();
        }
        database.flush(None).await.unwrap();
        let before = database.sstables(TABLE);
        database
            .cleanup(TABLE, vec![(Token::MIN, Token::MAX)])
            .await
            .unwrap();
        assert_eq!(
            database.sstables(TABLE),
            before,
            "all is owned: nothing is rewritten"
        );
        let owned = vec![
            (Token(0), Token(i64::MAX / 2)),
            (Token(i64::MAX / 2 + 1), Token::MAX),
        ];
        database.cleanup(TABLE, owned).await.unwrap();
        let expected = (0..50)
            .filter(|partition| key(*partition).token >= Token(0))
            .count();
        let result = database.read(&read_all()).await.unwrap();
        assert_eq!(result.partitions.len(), expected);
    })
    .unwrap();
    env.kill();
}

#[test]
fn scrub_keeps_what_can_be_read() {
    let (disk, env) = machine(9);
    env.block_on(async {
        let database = open_with(&env, by_hand(), &schema_with(STRATEGIES[0], 0)).await;
        for partition in 0..600 {
            database
                .write(row_write(partition, 1, 1, &partition.to_be_bytes().repeat(60)))
                .await
                .unwrap();
        }
        database.flush(None).await.unwrap();
        let (descriptor, statistics) = database.sstables(TABLE)[0].clone();
        disk.flip(
            &descriptor.path(crate::Component::Data),
            statistics.data_size as usize / 2,
            0x20,
        );
        assert!(database.verify(TABLE).await.is_err());
        assert!(database.compact(TABLE).await.is_err());
        database.scrub(TABLE).await.unwrap();
        database.verify(TABLE).await.unwrap();
        let found = database.read(&read_all()).await.unwrap().partitions.len();
        assert!((300..600).contains(&found), "{found} partitions are left");
        database.compact(TABLE).await.unwrap();
    })
    .unwrap();
    env.kill();
}

#[test]
fn garbage_collection_removes_what_other_sstables_shadow() {
    for cells in [false, true] {
        let (_, env) = machine(10);
        env.block_on(async {
            let database = open_with(&env, by_hand(), &schema_with(STRATEGIES[0], 1_000_000)).await;
            for partition in 0..30 {
                database
                    .write(row_write(partition, 1, 10, b"deleted later"))
                    .await
                    .unwrap();
                database
                    .write(row_write(partition, 2, 10, b"overwritten later"))
                    .await
                    .unwrap();
                database
                    .write(row_write(partition, 3, 10, b"stays"))
                    .await
                    .unwrap();
            }
            database.flush(None).await.unwrap();
            for partition in 0..30 {
                let mut write = row_write(partition, 2, 20, b"new");
                write.partition.row_mut(clustering(1)).delete(deletion(20));
                database.write(write).await.unwrap();
            }
            database.flush(None).await.unwrap();
            let before = database.read(&read_all()).await.unwrap();
            database.garbage_collect(TABLE, cells).await.unwrap();
            let after = database.sstables(TABLE);
            let old = after
                .iter()
                .find(|(_, s)| s.max_timestamp == Timestamp(10))
                .unwrap();
            assert_eq!(old.1.cells, if cells { 30 } else { 60 });
            assert_same(
                &database.read(&read_all()).await.unwrap(),
                &before,
                "garbage collection",
            );
        })
        .unwrap();
        env.kill();
    }
}

#[test]
fn upgrade_writes_anew_what_is_not_as_the_options_ask() {
    let (_, env) = machine(11);
    env.block_on(async {
        let database = open_with(&env, by_hand(), &schema_with(STRATEGIES[1], 0)).await;
        write_runs(&database, 2, 100).await;
        database.compact(TABLE).await.unwrap();
        let before = database.sstables(TABLE);
        assert!(before.iter().all(|(_, s)| s.level > 0));
        database.upgrade(TABLE, false).await.unwrap();
        assert_eq!(database.sstables(TABLE), before);
        database.upgrade(TABLE, true).await.unwrap();
        let after = database.sstables(TABLE);
        assert!(after.iter().all(|(d, _)| before.iter().all(|(old, _)| old != d)));
        let levels = |all: &[(crate::Descriptor, Statistics)]| all.iter().map(|(_, s)| s.level).max();
        assert_eq!(levels(&after), levels(&before));
        check_rules(&database, "upgrade");
    })
    .unwrap();
    env.kill();
}
