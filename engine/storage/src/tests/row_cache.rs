//! The row cache under a whole engine: it never changes an answer, spares the disk, and keeps what is used.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ceto_env::Env;
use ceto_env::memory::MemoryEnv;
use ceto_model::evaluate::evaluate;
use ceto_model::read::{ColumnSelection, ReadLimits};
use ceto_model::*;

use super::purge::fresh_write;
use super::{Model, apply};
use crate::testing::*;
use crate::{Applied, Database, RowCacheStats, StorageOptions};

fn cached_options(row_cache_size: usize) -> StorageOptions {
    StorageOptions {
        row_cache_size,
        // Nothing but the row cache spares the disk.
        block_cache_size: 0,
        ..options(0, 1)
    }
}

fn row_cache(database: &Database) -> RowCacheStats {
    database.stats().row_cache
}

async fn open_cached(env: &Rc<MemoryEnv>, row_cache_size: usize) -> Rc<Database> {
    open(env, cached_options(row_cache_size)).await.unwrap()
}

/// A write of an element of a collection, or of all of it.
fn collection_write(dice: &mut Dice, env: &MemoryEnv, rows: u16) -> Mutation {
    let timestamp = Timestamp(env.clock().unix_micros());
    let now = UnixSeconds(env.clock().unix_seconds());
    let mut collection = Collection::default();
    if dice.one_in(3) {
        collection.deletion = Some(Deletion {
            timestamp: Timestamp(timestamp.0 - 1),
            deleted_at: now,
        });
    }
    for _ in 0..dice.below(3) {
        let path = Bytes::from(vec![dice.below(5) as u8]);
        let cell = if dice.one_in(4) {
            Cell::tombstone(timestamp, now)
        } else {
            Cell::live(timestamp, Bytes::from_static(b"element"))
        };
        collection.merge_cell(path, cell);
    }
    let mut mutation = Mutation::new(TABLE, key(dice.below(6)));
    if collection != Collection::default() {
        let row = mutation
            .partition
            .row_mut(clustering(dice.below(rows.into()) as u16));
        row.merge_column(ColumnId(8), ColumnData::Collection(collection));
    }
    mutation
}

/// Columns that are dropped and come back.
const MORTAL: [(u32, &str); 2] = [(4, "w"), (3, "v")];

/// How many of the mortal columns are dropped, and when each was last, if ever.
#[derive(Clone, Copy, Default)]
struct Drops {
    count: usize,
    at: [Option<i64>; 2],
}

impl Drops {
    fn has(self, id: ColumnId) -> bool {
        MORTAL[..self.count]
            .iter()
            .any(|(dropped, _)| ColumnId(*dropped) == id)
    }
}

/// A table with the first of its mortal columns dropped.
fn schema_without(drops: Drops, gc_grace: u32, rows_per_partition: &str) -> std::sync::Arc<Schema> {
    let table = table_named(TABLE, "t", |builder| {
        builder.options.gc_grace_seconds = gc_grace;
        let caching = &mut builder.options.caching;
        caching.insert("rows_per_partition".to_owned(), rows_per_partition.to_owned());
        builder
            .options
            .compaction
            .insert("tombstone_compaction_interval".to_owned(), "0".to_owned());
        // Many reads to a partition, so that much can happen between them.
        let compression = &mut builder.options.compression;
        compression.insert("chunk_length_in_kb".to_owned(), "1".to_owned());
        builder.columns.retain(|column| !drops.has(column.id));
        for ((id, name), dropped_at) in MORTAL.into_iter().zip(drops.at) {
            let Some(dropped_at) = dropped_at else { continue };
            builder.dropped.push(schema::DroppedColumn {
                id: ColumnId(id),
                name: name.into(),
                kind: ColumnKind::Regular,
                cql_type: CqlType::Blob,
                dropped_at,
            });
        }
    });
    schema_of(&[table])
}

/// What is left where columns were dropped.
fn forget_columns(partition: &mut Partition, drops: Drops) {
    for (_, row) in &mut partition.rows {
        row.columns.retain(|(id, _)| !drops.has(*id));
    }
    partition.rows.retain(|(_, row)| !row.is_empty());
}

fn random_command(dice: &mut Dice, env: &MemoryEnv) -> ReadCommand {
    let some_key = key(dice.below(8));
    let mut command = read_of(match dice.below(6) {
        0 => ReadTarget::Range(PartitionRange::full()),
        1 => ReadTarget::Range(PartitionRange {
            start: RingPosition::BeforeToken(some_key.token),
            end: RingPosition::AfterToken(Token::MAX),
        }),
        2 => ReadTarget::Range(PartitionRange {
            start: RingPosition::AfterToken(key(dice.below(8)).token),
            end: RingPosition::AfterToken(some_key.token),
        }),
        _ => ReadTarget::Partition(some_key),
    });
    command.now = UnixSeconds(env.clock().unix_seconds());
    command.reversed = dice.one_in(3);
    command.bypass_cache = dice.one_in(12);
    if dice.one_in(3) {
        command.columns = ColumnSelection::Only(vec![ColumnId(4)]);
    }
    command.slices = match dice.below(6) {
        0 => [slice(2, 4), slice(7, 9)].into_iter().collect(),
        1 => {
            let row = dice.below(12) as u16;
            std::iter::once(slice(row, row)).collect()
        }
        2 => std::iter::once(slice(dice.below(8) as u16, 8)).collect(),
        3 => Default::default(),
        _ => command.slices,
    };
    if dice.one_in(4) {
        command.limits = ReadLimits {
            rows: 1 + dice.below(8),
            ..ReadLimits::NONE
        };
    }
    command
}

async fn check_one(database: &Database, model: &Model, dice: &mut Dice, env: &MemoryEnv, context: &str) {
    let command = random_command(dice, env);
    let expected = evaluate(&command, model);
    let found = database.read(&command).await.unwrap();
    assert_same(&found, &expected, &format!("{context}, {command:?}"));
}

/// Everything that can happen to a table, with a cache from far too small to large enough; reads go on while flushes and
/// compactions run.
async fn run(seed: u64, env: Rc<MemoryEnv>) -> (RowCacheStats, u32) {
    let mut dice = Dice::new(seed);
    let mut model = Model::new();
    let rows = [12, 150][seed as usize / 2 % 2];
    let gc_grace = [5, 100_000][seed as usize % 2];
    let caching = ["ALL", "NONE", "7"][seed as usize % 3];
    let (mut drops, mut returns) = (Drops::default(), 0);
    let size = 2000 << (seed % 8);
    let database = Database::open(
        env.clone(),
        cached_options(size),
        schema_without(drops, gc_grace, caching),
    )
    .await
    .unwrap();
    database
        .finish_recovery(schema_without(drops, gc_grace, caching))
        .await
        .unwrap();
    for number in 0..700 {
        let context = format!("seed {seed}, step {number}");
        match dice.below(40) {
            0 | 20 => {
                let table = database.table(TABLE).unwrap();
                database.start_flush(&table);
            }
            1 => database.flush(None).await.unwrap(),
            2 => database.compact(TABLE).await.unwrap(),
            3 => {
                let jump = if dice.one_in(4) { 200 } else { 3 };
                env.tasks().sleep(Duration::from_secs(dice.below(jump))).await;
            }
            4 if dice.one_in(6) => {
                let now = Timestamp(env.clock().unix_micros());
                database.truncate(TABLE, now).await.unwrap();
                model.clear();
            }
            5 if dice.one_in(4) => {
                if drops.count == 0 || drops.count < MORTAL.len() && dice.one_in(2) {
                    drops.at[drops.count] = Some(env.clock().unix_micros());
                    drops.count += 1;
                } else {
                    // It comes back empty, under its old number.
                    drops.count -= 1;
                    returns += 1;
                }
                let schema = schema_without(drops, gc_grace, caching);
                database.set_schema(schema).await.unwrap();
                model
                    .values_mut()
                    .for_each(|partition| forget_columns(partition, drops));
            }
            6 => {
                let other = if dice.one_in(3) { "NONE" } else { caching };
                let schema = schema_without(drops, gc_grace, other);
                database.set_schema(schema).await.unwrap();
            }
            7..=19 => {
                env.tasks()
                    .sleep(Duration::from_micros(1 + dice.below(1000)))
                    .await;
                let mut write = if dice.one_in(5) {
                    collection_write(&mut dice, &env, rows)
                } else {
                    fresh_write(&mut dice, env.clock(), rows)
                };
                // Nobody can write to a column that is not there.
                forget_columns(&mut write.partition, drops);
                apply(&mut model, &write);
                database.write(write).await.unwrap();
            }
            _ => check_one(&database, &model, &mut dice, &env, &context).await,
        }
        let stats = row_cache(&database);
        assert!(
            database.row_cache.memory() <= database.row_cache.capacity(),
            "{context}: {stats:?}"
        );
    }
    let table = database.table(TABLE).unwrap();
    let stats = row_cache(&database);
    let reads = database.stats().reads;
    assert_eq!((reads.running, reads.bytes), (0, 0), "seed {seed}: {reads:?}");
    // What was given up is given back, all of it.
    table.cache.empty();
    while database.row_cache.bury(100) {}
    let empty = row_cache(&database);
    assert_eq!((empty.rows, empty.partitions), (0, 0), "seed {seed}: {empty:?}");
    assert_eq!(database.row_cache.memory(), 0, "seed {seed}: {empty:?}");
    (stats, returns)
}

#[test]
fn the_cache_never_changes_an_answer() {
    let (mut all, mut all_returns) = (RowCacheStats::default(), 0);
    for seed in 0..120 {
        let (_, env) = machine(seed);
        let (stats, returns) = env
            .block_on(run(seed, env.clone()))
            .unwrap_or_else(|| panic!("seed {seed} stands still"));
        all_returns += returns;
        all.hits += stats.hits;
        all.misses += stats.misses;
        all.row_evictions += stats.row_evictions;
        all.partition_evictions += stats.partition_evictions;
        env.kill();
    }
    // The test is one only if all of it happened.
    assert!(all_returns > 50, "{all_returns} columns came back");
    assert!(all.hits > 1000 && all.misses > 1000, "{all:?}");
    assert!(
        all.row_evictions > 1000 && all.partition_evictions > 100,
        "{all:?}"
    );
}

#[test]
fn runs_of_small_partitions_are_what_the_sstables_say() {
    let mut hits = 0;
    for seed in 0..40 {
        let (_, env) = machine(seed);
        let own = env.clone();
        let work = async move {
            let database = open_cached(&own, 1 << 20).await;
            let mut dice = Dice::new(seed);
            for round in 0..4 {
                for _ in 0..100 {
                    let shape = Shape {
                        partitions: 60,
                        rows: 1 + dice.below(1 + seed % 3) as u16,
                        // Some rows are too long to be copied.
                        value_size: if dice.one_in(4) { 900 } else { 20 },
                        timestamps: 1000,
                        deletions: dice.one_in(8),
                    };
                    if let Applied::Later(done) = database.apply(random_write(&mut dice, shape)).unwrap() {
                        done.await.unwrap();
                    }
                }
                if round < 3 {
                    database.flush(None).await.unwrap();
                }
                for number in 0..30 {
                    let mut command = random_command(&mut dice, &own);
                    command.target = ReadTarget::Range(PartitionRange {
                        start: match dice.below(3) {
                            0 => RingPosition::BeforeToken(Token::MIN),
                            1 => RingPosition::BeforeKey(key(dice.below(60))),
                            _ => RingPosition::AfterKey(key(dice.below(60))),
                        },
                        end: match dice.below(3) {
                            0 => RingPosition::BeforeKey(key(dice.below(60))),
                            1 => RingPosition::AfterKey(key(dice.below(60))),
                            _ => RingPosition::AfterToken(Token::MAX),
                        },
                    });
                    command.limits.rows = if dice.one_in(2) {
                        1 + dice.below(60)
                    } else {
                        u64::MAX
                    };
                    if dice.one_in(4) {
                        command.limits.partitions = 1 + dice.below(40);
                        command.limits.rows_per_partition = 1 + dice.below(2);
                    }
                    command.bypass_cache = true;
                    let expected = database.read(&command).await.unwrap();
                    command.bypass_cache = false;
                    for _ in 0..2 {
                        let found = database.read(&command).await.unwrap();
                        let context = format!("seed {seed}, round {round}, read {number}");
                        assert_eq!(found.partitions, expected.partitions, "{context}");
                        assert_eq!(found.resume, expected.resume, "{context}");
                        assert_eq!(found.work.live_rows, expected.work.live_rows, "{context}");
                    }
                }
            }
            row_cache(&database).hits
        };
        hits += env.block_on(work).unwrap();
        env.kill();
    }
    assert!(hits > 1000, "{hits}");
}

/// `count` partitions of one row, on disk and nowhere else.
async fn write_partitions(database: &Database, first: u64, count: u64) {
    for number in first..first + count {
        database.write(row_write(number, 1, 1, &[7; 60])).await.unwrap();
        if number % 100 == 99 {
            database.flush(None).await.unwrap();
        }
    }
    database.flush(None).await.unwrap();
    let table = database.table(TABLE).unwrap();
    while table.view().merging.is_some() {
        database.env.tasks().sleep(Duration::from_millis(1)).await;
    }
}

/// Reads a partition; true when no sstable was needed.
async fn is_hit(database: &Database, command: &ReadCommand) -> bool {
    let before = row_cache(database);
    let found = database.read(command).await.unwrap();
    assert!(!found.partitions.is_empty());
    let after = row_cache(database);
    assert_eq!(
        after.hits + after.misses,
        before.hits + before.misses + 1,
        "each read is one or the other"
    );
    assert_eq!(after.hits > before.hits, found.work.disk_bytes == 0);
    after.hits > before.hits
}

async fn is_point_hit(database: &Database, number: u64) -> bool {
    is_hit(database, &read_of(ReadTarget::Partition(key(number)))).await
}

#[test]
fn a_scan_does_not_push_out_what_is_used() {
    let (_, env) = machine(1);
    env.block_on(async {
        let database = open_cached(&env, 100_000).await;
        write_partitions(&database, 0, 3000).await;
        // Rid of what the flushes brought in.
        database.table(TABLE).unwrap().cache.empty();
        for _ in 0..3 {
            for hot in 0..50 {
                is_point_hit(&database, hot).await;
            }
        }
        let command = read_all();
        let all = database.read(&command).await.unwrap();
        assert_eq!(all.partitions.len(), 3000);
        for cold in 50..3000 {
            assert!(!is_point_hit(&database, cold).await, "{cold}");
        }
        // A full cache takes in few of what is read once.
        let stats = row_cache(&database);
        assert!((200..1000).contains(&stats.row_evictions), "{stats:?}");
        for hot in 0..50 {
            assert!(is_point_hit(&database, hot).await, "{hot}: {stats:?}");
        }
    })
    .unwrap();
    env.kill();
}

#[test]
fn what_is_used_more_takes_the_place_of_what_is_not() {
    let (_, env) = machine(2);
    env.block_on(async {
        let database = open_cached(&env, 60_000).await;
        write_partitions(&database, 0, 1000).await;
        // One set after the other is hot; each is found in the cache before long.
        for first in [0, 300, 600] {
            for round in 0..12 {
                let mut hits = 0;
                for number in first..first + 60 {
                    hits += u64::from(is_point_hit(&database, number).await);
                }
                assert!(round < 8 || hits == 60, "{first}, round {round}: {hits} of 60");
            }
        }
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_large_partition_is_kept_and_forgotten_row_by_row() {
    let (_, env) = machine(3);
    env.block_on(async {
        let database = open_cached(&env, 100_000).await;
        for number in 0..2000 {
            database.write(row_write(1, number, 1, &[7; 100])).await.unwrap();
        }
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        let whole = read_of(ReadTarget::Partition(key(1)));
        assert!(!is_hit(&database, &whole).await);
        let stats = row_cache(&database);
        assert_eq!(stats.partitions, 1);
        assert!((100..1900).contains(&stats.rows), "{stats:?}");
        let mut rows = whole.clone();
        rows.slices = std::iter::once(slice(1950, 1999)).collect();
        // The end was read last and stays; so does what is read again.
        assert!(is_hit(&database, &rows).await);
        rows.reversed = true;
        assert!(is_hit(&database, &rows).await);
        rows.slices = std::iter::once(slice(100, 120)).collect();
        assert!(!is_hit(&database, &rows).await);
        assert!(is_hit(&database, &rows).await);
        rows.reversed = false;
        assert!(is_hit(&database, &rows).await);
        rows.slices = std::iter::once(slice(110, 121)).collect();
        assert!(!is_hit(&database, &rows).await, "row 121 was not read");
        assert!(is_hit(&database, &rows).await);
        rows.slices = [slice(101, 103), slice(107, 121)].into_iter().collect();
        assert!(is_hit(&database, &rows).await);
    })
    .unwrap();
    env.kill();
}

#[test]
fn absence_is_known_too() {
    let (_, env) = machine(4);
    env.block_on(async {
        let database = open_cached(&env, 100_000).await;
        write_partitions(&database, 0, 10).await;
        let mut command = read_all();
        assert_eq!(database.read(&command).await.unwrap().partitions.len(), 10);
        let misses = row_cache(&database).misses;
        // The scan has told of every key there is.
        command.target = ReadTarget::Range(PartitionRange {
            start: RingPosition::AfterToken(key(3).token),
            end: RingPosition::AfterToken(Token::MAX),
        });
        for _ in 0..2 {
            database.read(&command).await.unwrap();
        }
        command.target = ReadTarget::Partition(key(5));
        command.slices = std::iter::once(slice(2, 9)).collect();
        let found = database.read(&command).await.unwrap();
        assert!(found.partitions.is_empty());
        assert_eq!(row_cache(&database).misses, misses);
        // A new partition in the midst of what is known.
        database.write(row_write(77, 1, 5, b"new")).await.unwrap();
        for _ in 0..2 {
            let found = database.read(&read_all()).await.unwrap();
            assert_eq!(found.partitions.len(), 11);
            database.flush(None).await.unwrap();
            env.tasks().sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(
            row_cache(&database).misses,
            misses,
            "a flush brings it into the cache"
        );
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_partition_that_has_no_room_where_none_was_known_is_found_on_disk() {
    let (_, env) = machine(7);
    env.block_on(async {
        let database = open_cached(&env, 100_000).await;
        write_partitions(&database, 0, 10).await;
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 10);
        // Until the flush is done and the budget is balanced.
        database.row_cache.set_capacity(1);
        database.write(row_write(77, 1, 5, b"new")).await.unwrap();
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        assert_eq!(database.row_cache.capacity(), 100_000);
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 11);
        let found = database.read(&read_of(ReadTarget::Partition(key(77)))).await;
        assert_eq!(found.unwrap().partitions.len(), 1);
    })
    .unwrap();
    env.kill();
}

#[test]
fn reads_that_bypass_the_cache_leave_no_trace_in_it() {
    let (_, env) = machine(5);
    env.block_on(async {
        let database = open_cached(&env, 100_000).await;
        write_partitions(&database, 0, 100).await;
        database.table(TABLE).unwrap().cache.empty();
        while database.row_cache.bury(100) {}
        for target in [ReadTarget::Partition(key(5)), read_all().target] {
            let mut command = read_of(target);
            command.bypass_cache = true;
            let before = row_cache(&database);
            for _ in 0..2 {
                let found = database.read(&command).await.unwrap();
                assert!(!found.partitions.is_empty() && found.work.disk_bytes > 0);
            }
            assert_eq!(row_cache(&database), before);
            command.bypass_cache = false;
            database.read(&command).await.unwrap();
            let filled = row_cache(&database);
            assert_eq!(filled.misses, before.misses + 1);
            command.bypass_cache = true;
            assert!(database.read(&command).await.unwrap().work.disk_bytes > 0);
            assert_eq!(row_cache(&database), filled);
        }
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_table_that_is_not_to_be_cached_is_not() {
    let (_, env) = machine(6);
    env.block_on(async {
        let schema = schema_of(&[table_named(TABLE, "t", |builder| {
            let none = |name: &str| (name.to_owned(), "NONE".to_owned());
            builder.options.caching = [none("keys"), none("rows_per_partition")].into();
        })]);
        let database = Database::open(env.clone(), cached_options(100_000), schema.clone())
            .await
            .unwrap();
        database.finish_recovery(schema).await.unwrap();
        write_partitions(&database, 0, 20).await;
        for _ in 0..2 {
            let found = database
                .read(&read_of(ReadTarget::Partition(key(5))))
                .await
                .unwrap();
            assert!(found.work.disk_bytes > 0);
        }
        assert_eq!(
            row_cache(&database),
            RowCacheStats {
                bytes: row_cache(&database).bytes,
                bytes_max: 100_000,
                ..RowCacheStats::default()
            }
        );
    })
    .unwrap();
    env.kill();
}
