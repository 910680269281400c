//! Random writes, flushes, compactions and restarts against a map of partitions.

use std::collections::BTreeMap;

use ceto_env::memory::MemoryEnv;
use ceto_model::evaluate::evaluate;
use ceto_model::{DecoratedKey, Mutation, Partition, ReadTarget};

use crate::testing::*;

/// What should be stored.
type Model = BTreeMap<DecoratedKey, Partition>;

fn apply(model: &mut Model, write: &Mutation) {
    model
        .entry(write.key.clone())
        .or_default()
        .merge(write.partition.clone());
}

#[test]
fn what_is_written_is_read_after_flush_and_restart() {
    for seed in 0..20 {
        run(seed);
    }
}

fn run(seed: u64) {
    let disk = ceto_env::memory::MemoryDisk::new(seed);
    let mut dice = Dice::new(seed);
    let shape = Shape {
        partitions: 12,
        rows: 60,
        value_size: 400,
        timestamps: 40,
        deletions: true,
    };
    let mut model = Model::new();
    for round in 0..4 {
        let env = MemoryEnv::new(disk.clone(), seed * 100 + round);
        let done = env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            check(&database, &model, &mut dice, seed).await;
            for _ in 0..150 {
                let write = random_write(&mut dice, shape);
                apply(&mut model, &write);
                database.write(write).await.unwrap();
                if dice.one_in(40) {
                    database.flush(None).await.unwrap();
                }
            }
            check(&database, &model, &mut dice, seed).await;
            if dice.one_in(2) {
                database.drain().await.unwrap();
            }
        });
        assert!(done.is_some(), "seed {seed} stands still");
        env.kill();
        disk.restart();
    }
}

async fn check(database: &crate::Database, model: &Model, dice: &mut Dice, seed: u64) {
    let mut command = read_all();
    command.keep_tombstones = dice.one_in(2);
    command.reversed = dice.one_in(2);
    let expected = evaluate(&command, model);
    let found = database.read(&command).await.unwrap();
    assert_same(&found, &expected, &format!("seed {seed}"));
    for (key, _) in model {
        command.target = ReadTarget::Partition(key.clone());
        command.slices = [slice(5, 10), slice(20, 40)].into_iter().collect();
        let expected = evaluate(&command, model);
        let found = database.read(&command).await.unwrap();
        assert_same(&found, &expected, &format!("seed {seed}"));
    }
}
