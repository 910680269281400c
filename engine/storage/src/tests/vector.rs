//! Indexes of vectors: what they find is what is nearest, under random writes, flushes, compactions, truncations, kills and
//! builds; and of many vectors nearly all of the nearest ones.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::evaluate::evaluate;
use ceto_model::read::{IndexSearch, IndexTerms, ReadLimits, ResumePoint};
use ceto_model::schema::{
    CLASS_NAME, IndexDefinition, IndexTarget, SIMILARITY_FUNCTION, Similarity, TableBuilder, floats,
};
use ceto_model::*;
use uuid::Uuid;

use super::{Model, apply};
use crate::testing::*;
use crate::{Database, StorageOptions};

const INDEX: TableId = TableId(Uuid::from_u128(0x3333));
const VECTOR: ColumnId = ColumnId(3);

fn table(dimension: u16, similarity: &str, has_index: bool) -> Arc<Table> {
    let mut builder = TableBuilder::new(TABLE, "ks", "t");
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Blob);
    builder.add_column("c", ColumnKind::Clustering, CqlType::Blob);
    builder.add_column("s", ColumnKind::Static, CqlType::Blob);
    let vector = CqlType::Vector {
        element: Arc::new(CqlType::Float),
        dimension,
    };
    builder.add_column("v", ColumnKind::Regular, vector);
    builder.add_column("w", ColumnKind::Regular, CqlType::Blob);
    builder.options.gc_grace_seconds = 100;
    if has_index {
        let options = [(CLASS_NAME, "sai"), (SIMILARITY_FUNCTION, similarity)];
        builder.indexes.push(IndexDefinition {
            name: "near".into(),
            id: INDEX,
            column: "v".into(),
            target: IndexTarget::Simple,
            options: options
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        });
    }
    Arc::new(builder.build())
}

async fn open_with(env: &Rc<MemoryEnv>, options: StorageOptions, table: &Arc<Table>) -> Rc<Database> {
    let schema = schema_of(std::slice::from_ref(table));
    let database = Database::open(env.clone(), options, schema.clone())
        .await
        .unwrap();
    database.finish_recovery(schema).await.unwrap();
    wait_until_built(env, &database).await;
    database
}

async fn wait_until_built(env: &Rc<MemoryEnv>, database: &Rc<Database>) {
    for _ in 0..1000 {
        let states = database.index_states(TABLE).unwrap();
        if states.iter().all(|(_, is_built)| *is_built) {
            return;
        }
        env.tasks().sleep(Duration::from_millis(10)).await;
    }
    panic!("the index is never built");
}

fn wire(vector: &[f32]) -> Bytes {
    vector
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect::<Vec<u8>>()
        .into()
}

/// A random write, its values made vectors.
fn write(dice: &mut Dice) -> Mutation {
    let shape = Shape {
        partitions: 6,
        rows: 8,
        value_size: 3,
        timestamps: 30,
        deletions: true,
    };
    let mut mutation = random_write(dice, shape);
    for (_, row) in &mut mutation.partition.rows {
        if let Some(ColumnData::Cell(cell)) = row.column(VECTOR)
            && let CellState::Live(value) | CellState::Expiring { value, .. } = &cell.state
        {
            let number = |at: usize| value.get(at).map_or(0.25, |byte| f32::from(*byte) + 1.0);
            let vector = wire(&[number(0), number(1), number(2)]);
            let cell = Cell::with_expiry(cell.timestamp, vector, cell.expiry());
            let others = row
                .columns
                .drain(..)
                .filter(|(id, _)| *id != VECTOR)
                .collect::<Vec<_>>();
            row.columns = others.into_iter().collect();
            row.merge_column(VECTOR, ColumnData::Cell(cell));
        }
    }
    mutation
}

type Near = BTreeMap<(DecoratedKey, ClusteringKey), Vec<f32>>;

fn add(near: &mut Near, key: &DecoratedKey, content: &Partition, dimension: usize) {
    for (row, content) in &content.rows {
        if let Some(ColumnData::Cell(cell)) = content.column(VECTOR)
            && let Some(value) = cell.value(NOW)
        {
            near.insert((key.clone(), row.clone()), floats(&value, dimension).unwrap());
        }
    }
}

/// What the index finds, page by page.
async fn by_index(database: &Database, vector: &[f32], count: u32, limits: ReadLimits) -> Near {
    let mut command = read_all();
    command.limits = limits;
    command.index = Some(Box::new(IndexSearch {
        index: INDEX,
        terms: IndexTerms::Nearest {
            vector: wire(vector),
            count,
        },
    }));
    let mut near = Near::new();
    for _ in 0..10_000 {
        let result = database.read(&command).await.unwrap();
        for part in &result.partitions {
            add(&mut near, &part.key, &part.partition, vector.len());
        }
        let ReadTarget::Range(range) = &mut command.target else {
            unreachable!()
        };
        match result.resume {
            None => return near,
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

/// The best likenesses, the best first.
fn best(near: &Near, similarity: Similarity, vector: &[f32], count: usize) -> Vec<f32> {
    let mut all: Vec<f32> = near
        .values()
        .map(|own| similarity.of(own, vector).unwrap())
        .collect();
    all.sort_by(|a, b| b.total_cmp(a));
    all.truncate(count);
    all
}

async fn check(database: &Database, model: &Model, similarity: Similarity, dice: &mut Dice, context: &str) {
    let mut all = Near::new();
    for part in evaluate(&read_all(), model).partitions {
        add(&mut all, &part.key, &part.partition, 3);
    }
    for count in [1, 5, 100] {
        let vector = [0, 1, 2].map(|_| dice.below(700) as f32 / 100.0 + 0.1);
        let limits = match dice.one_in(2) {
            true => ReadLimits::NONE,
            false => ReadLimits {
                rows: 1 + dice.below(5),
                tombstones: 1 + dice.below(20),
                ..ReadLimits::NONE
            },
        };
        let found = by_index(database, &vector, count, limits).await;
        for (place, own) in &found {
            assert_eq!(all.get(place), Some(own), "{context}: {place:?} is not so");
        }
        // A page that is cut short searches anew behind its end, and so finds more than was asked for.
        let count = count as usize;
        let (found, all) = (
            best(&found, similarity, &vector, count),
            best(&all, similarity, &vector, count),
        );
        let is_same = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5 * a.abs().max(1.0);
        assert!(
            found.len() == all.len() && found.iter().zip(&all).all(is_same),
            "{context}: {count} nearest to {vector:?}: {found:?} for {all:?}"
        );
    }
}

#[test]
fn an_index_finds_the_nearest_vectors() {
    for seed in 0..24 {
        let (name, similarity) = Similarity::ALL[seed as usize % 3];
        let table = table(3, name, true);
        let disk = MemoryDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        for round in 0..3 {
            let env = MemoryEnv::new(disk.clone(), seed * 100 + round);
            let context = format!("seed {seed}, round {round}");
            env.block_on(async {
                let database = open_with(&env, options(0, 1), &table).await;
                check(&database, &model, similarity, &mut dice, &context).await;
                for _ in 0..150 {
                    let write = write(&mut dice);
                    apply(&mut model, &write);
                    database.write(write).await.unwrap();
                    match dice.below(40) {
                        0 => database.flush(None).await.unwrap(),
                        1 => database.compact(TABLE).await.unwrap(),
                        2..4 => check(&database, &model, similarity, &mut dice, &context).await,
                        4 if dice.one_in(3) => {
                            database.truncate(TABLE, Timestamp(1)).await.unwrap();
                            model.clear();
                        }
                        _ => {}
                    }
                }
                check(&database, &model, similarity, &mut dice, &context).await;
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
fn an_index_of_vectors_is_built_while_its_table_is_written() {
    let (plain, indexed) = (table(3, "EUCLIDEAN", false), table(3, "EUCLIDEAN", true));
    for seed in 0..10 {
        let (_, env) = machine(seed);
        let (mut dice, mut model) = (Dice::new(seed), Model::new());
        env.block_on(async {
            let database = open_with(&env, options(0, 1), &plain).await;
            for number in 0..200 {
                if number == 100 {
                    let schema = schema_of(std::slice::from_ref(&indexed));
                    database.set_schema(schema).await.unwrap();
                }
                let write = write(&mut dice);
                apply(&mut model, &write);
                database.write(write).await.unwrap();
                if number > 100 && number % 20 == 0 {
                    // Built or not yet: the answer is the same.
                    check(
                        &database,
                        &model,
                        Similarity::Euclidean,
                        &mut dice,
                        "while it is built",
                    )
                    .await;
                }
            }
            wait_until_built(&env, &database).await;
            check(
                &database,
                &model,
                Similarity::Euclidean,
                &mut dice,
                "once it is built",
            )
            .await;
        })
        .unwrap();
        env.kill();
    }
}

#[test]
fn of_many_vectors_nearly_all_of_the_nearest_are_found() {
    const DIMENSION: usize = 16;
    let table = table(DIMENSION as u16, "COSINE", true);
    let (_, env) = machine(1);
    env.block_on(async {
        let options = StorageOptions {
            memtable_space: 64 << 20,
            commitlog_segment_size: 1 << 20,
            commitlog_total_space: 64 << 20,
            ..options(0, 1)
        };
        let database = open_with(&env, options, &table).await;
        let mut dice = Dice::new(1);
        let mut random = || -> Vec<f32> {
            let number = |dice: &mut Dice| dice.below(2001) as f32 / 1000.0 - 1.0;
            (0..DIMENSION).map(|_| number(&mut dice)).collect()
        };
        let mut all = Near::new();
        for number in 0..3000u64 {
            let vector = random();
            let write = row_write(number / 10, (number % 10) as u16, 1, &wire(&vector));
            all.insert((key(number / 10), clustering((number % 10) as u16)), vector);
            database.write(write).await.unwrap();
        }
        // Each third is written anew, each seventh is gone.
        for number in (0..3000u64).step_by(3) {
            let vector = random();
            let write = row_write(number / 10, (number % 10) as u16, 2, &wire(&vector));
            all.insert((key(number / 10), clustering((number % 10) as u16)), vector);
            database.write(write).await.unwrap();
        }
        for number in (0..3000u64).step_by(7) {
            let mut write = Mutation::new(TABLE, key(number / 10));
            let row = clustering((number % 10) as u16);
            write.partition.row_mut(row.clone()).delete(deletion(3));
            database.write(write).await.unwrap();
            all.remove(&(key(number / 10), row));
        }
        let (mut hits, mut wanted) = (0, 0);
        for _ in 0..50 {
            let vector = random();
            let found = by_index(&database, &vector, 10, ReadLimits::NONE).await;
            let exact = best(&all, Similarity::Cosine, &vector, 10);
            let least = exact.last().unwrap();
            let likeness = |own: &Vec<f32>| Similarity::Cosine.of(own, &vector).unwrap();
            hits += found.values().filter(|own| likeness(own) >= *least).count();
            wanted += 10;
            assert_eq!(found.len(), 10);
        }
        println!("recall {hits} of {wanted}");
        assert!(hits * 100 >= wanted * 97, "recall: {hits} of {wanted}");
        let stats = database.stats();
        assert!(stats.memory_bytes >= 3000 * DIMENSION as u64 * 4, "{stats:?}");
    })
    .unwrap();
    env.kill();
}

#[test]
fn vectors_that_need_too_much_memory_are_compared_all() {
    let table = table(3, "EUCLIDEAN", true);
    let (_, env) = machine(2);
    env.block_on(async {
        let options = StorageOptions {
            memory_space: 600 << 10,
            memtable_space: 200 << 10,
            ..options(0, 1)
        };
        let database = open_with(&env, options, &table).await;
        let mut model = Model::new();
        let mut dice = Dice::new(2);
        for number in 0..3000u64 {
            let vector = wire(&[number as f32, 1.0, 2.0]);
            let write = row_write(number / 100, (number % 100) as u16, 1, &vector);
            apply(&mut model, &write);
            database.write(write).await.unwrap();
        }
        let states = database.index_states(TABLE).unwrap();
        assert!(states.iter().all(|(_, is_built)| !is_built), "{states:?}");
        check(&database, &model, Similarity::Euclidean, &mut dice, "given up").await;
        env.tasks().sleep(Duration::from_secs(2)).await;
        let stats = database.stats();
        assert!(stats.memory_bytes <= stats.memory_bytes_max, "{stats:?}");
    })
    .unwrap();
    env.kill();
}
