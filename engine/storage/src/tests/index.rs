//! What an index finds is what a scan of the table finds: under random writes, flushes, compactions, truncations, kills,
//! builds and other numbers of shards.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::comparable::encode_component;
use ceto_model::evaluate::evaluate;
use ceto_model::read::{IndexSearch, IndexTerms, ReadLimits, ResumePoint};
use ceto_model::schema::{IndexDefinition, IndexTarget, TableBuilder};
use ceto_model::*;
use uuid::Uuid;

use super::{Model, apply};
use crate::testing::*;
use crate::{CommitlogSync, Database, StorageOptions, reshard};

const MAP: ColumnId = ColumnId(5);

fn definition(number: u128, column: &str, target: IndexTarget) -> IndexDefinition {
    IndexDefinition {
        name: format!("i{number}").into(),
        id: TableId(Uuid::from_u128(0x2222_0000 + number)),
        column: column.into(),
        target,
        options: BTreeMap::new(),
    }
}

fn definitions() -> Vec<IndexDefinition> {
    vec![
        definition(0, "v", IndexTarget::Simple),
        definition(1, "s", IndexTarget::Simple),
        definition(2, "c", IndexTarget::Simple),
        definition(3, "k", IndexTarget::Simple),
        definition(4, "m", IndexTarget::Values),
        definition(5, "m", IndexTarget::Keys),
        definition(6, "m", IndexTarget::Entries),
    ]
}

fn indexed_table(indexes: &[IndexDefinition]) -> Arc<Table> {
    let mut builder = TableBuilder::new(TABLE, "ks", "t");
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Blob);
    builder.add_column("c", ColumnKind::Clustering, CqlType::Smallint);
    builder.add_column("s", ColumnKind::Static, CqlType::Blob);
    builder.add_column("v", ColumnKind::Regular, CqlType::Blob);
    builder.add_column("w", ColumnKind::Regular, CqlType::Blob);
    let map = CqlType::Map {
        key: Arc::new(CqlType::Blob),
        value: Arc::new(CqlType::Blob),
        frozen: false,
    };
    builder.add_column("m", ColumnKind::Regular, map);
    builder.options.gc_grace_seconds = 100;
    builder.indexes = indexes.to_vec();
    Arc::new(builder.build())
}

async fn open_with(env: &Rc<MemoryEnv>, shard: u16, shards: u16, table: &Arc<Table>) -> Rc<Database> {
    let schema = schema_of(std::slice::from_ref(table));
    let database = Database::open(env.clone(), options(shard, shards), schema.clone())
        .await
        .unwrap();
    database.finish_recovery(schema).await.unwrap();
    database
}

fn encoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_component(&CqlType::Blob, false, value, &mut out).unwrap();
    out
}

fn write(dice: &mut Dice, shape: Shape) -> Mutation {
    let mut mutation = random_write(dice, shape);
    if !dice.one_in(3) {
        return mutation;
    }
    mutation.partition = Partition::default();
    let timestamp = Timestamp(dice.below(shape.timestamps) as i64 + 1);
    let mut map = Collection::default();
    if dice.one_in(4) {
        map.deletion = Some(deletion(timestamp.0 - 1));
    }
    let path: Bytes = encoded(&[dice.below(4) as u8]).into();
    let value = Bytes::from(vec![dice.below(3) as u8]);
    let cell = match dice.below(6) {
        0 => Cell::tombstone(timestamp, UnixSeconds(NOW.0 - 10)),
        1 => {
            let ttl = if timestamp.0 % 2 == 0 { 10 } else { 10_000_000 };
            Cell::with_expiry(
                timestamp,
                value,
                Some(Expiry::after(UnixSeconds(NOW.0 - 20), Ttl(ttl))),
            )
        }
        _ => Cell::live(timestamp, value),
    };
    map.cells.push((path, cell));
    let row = mutation
        .partition
        .row_mut(clustering(dice.below(u64::from(shape.rows)) as u16));
    row.merge_column(MAP, ColumnData::Collection(map));
    mutation
}

type Found = BTreeSet<(DecoratedKey, Option<ClusteringKey>)>;

/// All rows that a scan finds of which `test` is true; of a static column all rows of its partition.
fn scanned(model: &Model, test: &dyn Fn(&DecoratedKey, Option<&ClusteringKey>, &Row) -> bool) -> Found {
    let mut found = Found::new();
    for part in evaluate(&read_all(), model).partitions {
        let content = &part.partition;
        for (row, content) in &content.rows {
            if test(&part.key, Some(row), content) {
                found.insert((part.key.clone(), Some(row.clone())));
            }
        }
        if test(&part.key, None, &content.static_row) {
            found.insert((part.key.clone(), None));
        }
    }
    found
}

fn cell_is(row: &Row, column: u32, value: &[u8]) -> bool {
    let data = row.column(ColumnId(column));
    matches!(data, Some(ColumnData::Cell(cell)) if cell.value(NOW).is_some_and(|own| *own == *value))
}

fn entry_is(row: &Row, test: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let Some(ColumnData::Collection(map)) = row.column(MAP) else {
        return false;
    };
    let live = map.cells.iter().filter(|(_, cell)| cell.is_live(NOW));
    live.into_iter()
        .any(|(path, cell)| test(path, &cell.value(NOW).unwrap()))
}

/// What an index finds on a shard, page by page.
async fn by_index(database: &Database, number: u128, terms: IndexTerms, dice: &mut Dice) -> Found {
    let mut found = Found::new();
    let mut command = read_all();
    command.index = Some(Box::new(IndexSearch {
        index: definition(number, "", IndexTarget::Simple).id,
        terms,
    }));
    if dice.one_in(2) {
        command.limits = ReadLimits {
            rows: 1 + dice.below(20),
            tombstones: 1 + dice.below(50),
            ..ReadLimits::NONE
        };
    }
    let mut last: Option<DecoratedKey> = None;
    for _ in 0..10_000 {
        let result = database.read(&command).await.unwrap();
        for part in result.partitions {
            assert!(last.as_ref() <= Some(&part.key), "out of order");
            last = Some(part.key.clone());
            for (row, _) in &part.partition.rows {
                found.insert((part.key.clone(), Some(row.clone())));
            }
            if part.partition.static_row.has_live_cell(NOW) {
                found.insert((part.key.clone(), None));
            }
        }
        let ReadTarget::Range(range) = &mut command.target else {
            unreachable!()
        };
        match result.resume {
            None => return found,
            Some(ResumePoint::Ring(position)) => {
                range.start = position;
                command.first_partition_slices = None;
            }
            Some(ResumePoint::Inside(key, start)) => {
                let rest = Slice {
                    start,
                    end: Position::after_all(),
                };
                range.start = RingPosition::BeforeKey(key);
                command.first_partition_slices = Some(std::iter::once(rest).collect());
            }
        }
    }
    panic!("a read by an index does not end");
}

/// Rows only: whether a static row comes along is not the index's matter.
fn rows(found: Found) -> Found {
    found.into_iter().filter(|(_, row)| row.is_some()).collect()
}

async fn check(shards: &[Rc<Database>], model: &Model, dice: &mut Dice, context: &str) {
    for database in shards {
        assert!(
            database
                .index_states(TABLE)
                .unwrap()
                .iter()
                .all(|(_, is_built)| *is_built),
            "{context}: not built"
        );
    }
    let mut all = |number: u128, terms: IndexTerms| {
        let shards = shards.to_vec();
        let mut dice = Dice::new(dice.next());
        async move {
            let mut found = Found::new();
            for database in &shards {
                found.extend(by_index(database, number, terms.clone(), &mut dice).await);
            }
            found
        }
    };
    let value = |wire: &[u8]| IndexTerms::Value(encoded(wire).into());
    for wire in [&[][..], &[0], &[3], &[6]] {
        let found = rows(all(0, value(wire)).await);
        assert_eq!(
            found,
            scanned(model, &|_, row, content| row.is_some()
                && cell_is(content, 3, wire)),
            "{context}: v"
        );
        let found = all(1, value(wire)).await;
        let statics = scanned(model, &|_, row, content| {
            row.is_none() && cell_is(content, 2, wire)
        });
        let has_static = |key: &DecoratedKey| statics.contains(&(key.clone(), None));
        assert_eq!(
            found,
            scanned(model, &|key, row, content| has_static(key)
                && (row.is_some() || content.has_live_cell(NOW))),
            "{context}: s"
        );
        let found = rows(all(4, value(wire)).await);
        assert_eq!(
            found,
            scanned(model, &|_, _, content| entry_is(content, |_, own| own == wire)),
            "{context}: values"
        );
        let path = encoded(wire);
        let found = rows(all(5, value(wire)).await);
        assert_eq!(
            found,
            scanned(model, &|_, _, content| entry_is(content, |own, _| own == path)),
            "{context}: keys"
        );
        let both = [path.clone(), encoded(&[1])].concat();
        let found = rows(all(6, IndexTerms::Value(both.into())).await);
        assert_eq!(
            found,
            scanned(model, &|_, _, content| entry_is(content, |own, value| own
                == path
                && value == [1])),
            "{context}: entries"
        );
    }
    // From 1, excluded, to 5, included.
    let (start, end) = (
        [encoded(&[1]), vec![0x60]].concat(),
        [encoded(&[5]), vec![0x60]].concat(),
    );
    let between = IndexTerms::Between(Position(start.into()), Position(end.into()));
    let is_between = |content: &Row| (2..=5).any(|byte| cell_is(content, 3, &[byte]));
    let wanted = scanned(model, &|_, row, content| {
        row.is_some()
            && (is_between(content)
                || matches!(content.column(ColumnId(3)), Some(ColumnData::Cell(cell)) if cell.value(NOW).is_some_and(|value| value.len() > 1 && value[..] > [1][..] && value[..] <= [5][..])))
    });
    assert_eq!(rows(all(0, between).await), wanted, "{context}: range");
    let row = clustering(3);
    let found = rows(
        all(
            2,
            IndexTerms::Value(row.0.strip_suffix(&[0x38]).unwrap().to_vec().into()),
        )
        .await,
    );
    assert_eq!(
        found,
        scanned(model, &|_, own, _| own == Some(&row)),
        "{context}: c"
    );
    let partition = key(2);
    let found = all(3, value(&partition.key.0)).await;
    assert_eq!(
        found,
        scanned(model, &|key, row, content| *key == partition
            && (row.is_some() || content.has_live_cell(NOW))),
        "{context}: k"
    );
}

fn shape() -> Shape {
    Shape {
        partitions: 6,
        rows: 8,
        value_size: 1,
        timestamps: 30,
        deletions: true,
    }
}

#[test]
fn an_index_finds_what_a_scan_finds() {
    let table = indexed_table(&definitions());
    for seed in 0..30 {
        let disk = MemoryDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        for round in 0..4 {
            let env = MemoryEnv::new(disk.clone(), seed * 100 + round);
            let context = format!("seed {seed}, round {round}");
            env.block_on(async {
                let database = open_with(&env, 0, 1, &table).await;
                let shards = [database.clone()];
                check(&shards, &model, &mut dice, &context).await;
                for _ in 0..120 {
                    let write = write(&mut dice, shape());
                    apply(&mut model, &write);
                    database.write(write).await.unwrap();
                    match dice.below(60) {
                        0 => database.flush(None).await.unwrap(),
                        1 => database.flush(Some(TABLE)).await.unwrap(),
                        2 => database
                            .flush(Some(definitions()[dice.below(7) as usize].id))
                            .await
                            .unwrap(),
                        3 => database.compact(TABLE).await.unwrap(),
                        4 => database
                            .compact(definitions()[dice.below(7) as usize].id)
                            .await
                            .unwrap(),
                        5 => check(&shards, &model, &mut dice, &context).await,
                        6 if dice.one_in(3) => {
                            database.truncate(TABLE, Timestamp(1)).await.unwrap();
                            model.clear();
                        }
                        _ => {}
                    }
                }
                check(&shards, &model, &mut dice, &context).await;
                for index in definitions() {
                    database.verify(index.id).await.unwrap();
                }
                if dice.one_in(3) {
                    database.drain().await.unwrap();
                }
            })
            .unwrap_or_else(|| panic!("{context}: stands still"));
            env.kill();
            disk.restart();
        }
    }
}

#[test]
fn indexes_are_built_dropped_and_built_again() {
    for seed in 0..15 {
        let disk = MemoryDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        let env = MemoryEnv::new(disk.clone(), seed);
        let (plain, indexed) = (indexed_table(&[]), indexed_table(&definitions()));
        env.block_on(async {
            let database = open_with(&env, 0, 1, &plain).await;
            for round in 0..3 {
                for _ in 0..100 {
                    let write = write(&mut dice, shape());
                    apply(&mut model, &write);
                    database.write(write).await.unwrap();
                    if dice.one_in(40) {
                        database.flush(None).await.unwrap();
                    }
                }
                database
                    .set_schema(schema_of(std::slice::from_ref(&indexed)))
                    .await
                    .unwrap();
                for _ in 0..30 {
                    let write = write(&mut dice, shape());
                    apply(&mut model, &write);
                    database.write(write).await.unwrap();
                }
                wait_until_built(&env, &database).await;
                let context = format!("seed {seed}, round {round}");
                check(std::slice::from_ref(&database), &model, &mut dice, &context).await;
                database
                    .set_schema(schema_of(std::slice::from_ref(&plain)))
                    .await
                    .unwrap();
                assert_eq!(database.index_states(TABLE).unwrap(), []);
            }
        })
        .unwrap_or_else(|| panic!("seed {seed} stands still"));
    }
}

async fn wait_until_built(env: &Rc<MemoryEnv>, database: &Rc<Database>) {
    use ceto_env::Env;
    for _ in 0..1000 {
        if database
            .index_states(TABLE)
            .unwrap()
            .iter()
            .all(|(_, is_built)| *is_built)
        {
            return;
        }
        env.tasks().sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("an index is never built");
}

#[test]
fn a_build_that_a_kill_interrupts_starts_again() {
    for seed in 0..20 {
        let disk = MemoryDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        let (plain, indexed) = (indexed_table(&[]), indexed_table(&definitions()));
        let env = MemoryEnv::new(disk.clone(), seed);
        env.block_on(async {
            let database = open_with(&env, 0, 1, &plain).await;
            for _ in 0..300 {
                let write = write(&mut dice, shape());
                apply(&mut model, &write);
                database.write(write).await.unwrap();
            }
            database
                .set_schema(schema_of(std::slice::from_ref(&indexed)))
                .await
                .unwrap();
            let steps = dice.below(4);
            for _ in 0..steps {
                use ceto_env::Env;
                env.tasks().sleep(std::time::Duration::from_micros(300)).await;
            }
        })
        .unwrap();
        env.kill();
        disk.restart();
        let env = MemoryEnv::new(disk.clone(), seed + 1000);
        env.block_on(async {
            let database = open_with(&env, 0, 1, &indexed).await;
            wait_until_built(&env, &database).await;
            check(
                std::slice::from_ref(&database),
                &model,
                &mut dice,
                &format!("seed {seed}"),
            )
            .await;
        })
        .unwrap();
    }
}

#[test]
fn other_numbers_of_shards_build_indexes_anew() {
    let table = indexed_table(&definitions());
    for seed in 0..8 {
        let disk = MemoryDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        for (round, count) in [1, 3, 3, 2, 1].into_iter().enumerate() {
            let env = MemoryEnv::new(disk.clone(), seed * 10 + round as u64);
            let context = format!("seed {seed}, {count} shards");
            env.block_on(async {
                if round == 2 {
                    // A start with another number that ends before any shard opens.
                    reshard(env.clone(), &options(0, 4)).await.unwrap();
                }
                reshard(env.clone(), &options(0, count)).await.unwrap();
                let mut shards = Vec::new();
                for shard in 0..count {
                    let database = open_with(&env, shard, count, &table).await;
                    wait_until_built(&env, &database).await;
                    shards.push(database);
                }
                check(&shards, &model, &mut dice, &context).await;
                for _ in 0..80 {
                    let write = write(&mut dice, shape());
                    apply(&mut model, &write);
                    let shard = &shards[usize::from(write.key.token.shard(count))];
                    shard.write(write).await.unwrap();
                    if dice.one_in(30) {
                        shard.flush(None).await.unwrap();
                    }
                }
                check(&shards, &model, &mut dice, &context).await;
            })
            .unwrap_or_else(|| panic!("{context}: stands still"));
            env.kill();
            disk.restart();
        }
    }
}

/// Keys that an index on `v` finds for a value.
async fn keys_by_v(database: &Database, value: &[u8]) -> Vec<DecoratedKey> {
    let mut command = read_all();
    command.index = Some(Box::new(IndexSearch {
        index: definition(0, "v", IndexTarget::Simple).id,
        terms: IndexTerms::Value(encoded(value).into()),
    }));
    let found = database.read(&command).await.unwrap();
    found.partitions.into_iter().map(|part| part.key).collect()
}

/// Writes are synced in an hour, or when something asks for it.
async fn open_unsynced(env: &Rc<MemoryEnv>, table: &Arc<Table>) -> Rc<Database> {
    let options = StorageOptions {
        commitlog_sync: CommitlogSync::Periodic {
            period: Duration::from_secs(3600),
        },
        ..options(0, 1)
    };
    let schema = schema_of(std::slice::from_ref(table));
    let database = Database::open(env.clone(), options, schema.clone())
        .await
        .unwrap();
    database.finish_recovery(schema).await.unwrap();
    database
}

#[test]
fn a_power_loss_takes_a_row_and_its_entry_or_neither() {
    let table = indexed_table(&[definition(0, "v", IndexTarget::Simple)]);
    let (disk, env) = machine(40);
    env.block_on(async {
        let database = open_unsynced(&env, &table).await;
        database.write(row_write(1, 1, 1, b"old")).await.unwrap();
        database.write(row_write(2, 1, 1, b"old")).await.unwrap();
        database.flush(None).await.unwrap();
        // Of this the table comes to disk at once, its entry is in memory.
        database.write(row_write(3, 1, 1, b"new")).await.unwrap();
        database.flush(Some(TABLE)).await.unwrap();
    })
    .unwrap();
    env.kill();
    disk.restart_after_power_loss();
    let env = env.reboot(41);
    env.block_on(async {
        let database = open_unsynced(&env, &table).await;
        assert_eq!(keys_by_v(&database, b"new").await, [key(3)]);
        // Of this the entry of the old value goes to disk as deleted, when a read has found that out.
        database.write(row_write(1, 1, 5, b"new")).await.unwrap();
        assert_eq!(keys_by_v(&database, b"old").await, [key(2)]);
        let index = definition(0, "v", IndexTarget::Simple).id;
        database.flush(Some(index)).await.unwrap();
    })
    .unwrap();
    env.kill();
    disk.restart_after_power_loss();
    let env = env.reboot(42);
    env.block_on(async {
        let database = open_unsynced(&env, &table).await;
        let mut found = keys_by_v(&database, b"old").await;
        found.extend(keys_by_v(&database, b"new").await);
        found.sort();
        let mut all = [key(1), key(2), key(3)];
        all.sort();
        assert_eq!(found, all, "a row is found by the value that it has");
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_rebuild_shows_how_far_it_is() {
    let table = indexed_table(&[definition(0, "v", IndexTarget::Simple)]);
    let (disk, env) = machine(43);
    env.block_on(async {
        let database = open_with(&env, 0, 1, &table).await;
        for number in 0..3000 {
            database.write(row_write(number, 1, 1, b"value")).await.unwrap();
        }
        database.flush(None).await.unwrap();
        assert_eq!(database.stats().index_builds, []);
        disk.set_latency(Some(ceto_env::memory::Latency::SOLID_STATE));
        let names = ["i0".to_owned()];
        let mut rebuild = std::pin::pin!(database.rebuild_indexes(TABLE, &names));
        let mut seen = BTreeSet::new();
        let rebuilt = std::future::poll_fn(|context| {
            for build in database.stats().index_builds {
                assert!(build.table == TABLE && build.total_bytes > 0, "{build:?}");
                assert!(build.read_bytes <= build.total_bytes, "{build:?}");
                seen.insert(build.read_bytes);
            }
            rebuild.as_mut().poll(context)
        });
        rebuilt.await.unwrap();
        assert!(seen.len() > 2, "{seen:?}");
        assert_eq!(database.stats().index_builds, []);
        let value = IndexTerms::Value(encoded(b"value").into());
        let found = by_index(&database, 0, value, &mut Dice::new(1)).await;
        assert_eq!(found.len(), 3000);
        let none = ["nosuch".to_owned()];
        let error = database.rebuild_indexes(TABLE, &none).await.unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
    })
    .unwrap();
    env.kill();
}
