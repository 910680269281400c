//! Restarts with other numbers of shards.

use std::rc::Rc;

use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::evaluate::evaluate;

use super::{Model, apply};
use crate::testing::*;
use crate::{Database, Error, reshard};

/// Opens all shards, in one world.
async fn open_all(env: &Rc<MemoryEnv>, shards: u16) -> Vec<Rc<Database>> {
    reshard(env.clone(), &options(0, shards)).await.unwrap();
    let mut all = Vec::new();
    for shard in 0..shards {
        all.push(open(env, options(shard, shards)).await.unwrap());
    }
    all
}

async fn check(shards: &[Rc<Database>], model: &Model, context: &str) {
    let mut command = read_all();
    command.keep_tombstones = true;
    let mut found = ceto_model::ReadResult::default();
    for (number, shard) in shards.iter().enumerate() {
        let result = shard.read(&command).await.unwrap();
        for partition in result.partitions {
            let owner = partition.key.token.shard(shards.len() as u16);
            assert_eq!(
                usize::from(owner),
                number,
                "{context}: a partition lies on the wrong shard"
            );
            found.partitions.push(partition);
        }
        shard.verify(TABLE).await.unwrap();
    }
    found.partitions.sort_by(|a, b| a.key.cmp(&b.key));
    assert_same(&found, &evaluate(&command, model), context);
}

async fn load(shards: &[Rc<Database>], model: &mut Model, dice: &mut Dice, writes: u64) {
    let shape = Shape {
        partitions: 25,
        rows: 30,
        value_size: 300,
        timestamps: 1000,
        deletions: true,
    };
    for _ in 0..writes {
        let write = random_write(dice, shape);
        apply(model, &write);
        let shard = &shards[usize::from(write.key.token.shard(shards.len() as u16))];
        shard.write(write).await.unwrap();
        if dice.one_in(60) {
            shard.flush(None).await.unwrap();
        }
    }
}

#[test]
fn one_two_three_one() {
    for seed in 0..20 {
        let disk = MemoryDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        for (round, count) in [1, 2, 2, 3, 1, 5].into_iter().enumerate() {
            let env = MemoryEnv::new(disk.clone(), seed * 10 + round as u64);
            let context = format!("seed {seed}, {count} shards");
            env.block_on(async {
                let shards = open_all(&env, count).await;
                check(&shards, &model, &context).await;
                load(&shards, &mut model, &mut dice, 150).await;
                check(&shards, &model, &context).await;
            })
            .unwrap_or_else(|| panic!("{context}: stands still"));
            env.kill();
            disk.restart();
        }
    }
}

#[test]
fn a_crash_during_it_loses_nothing() {
    for seed in 0..20 {
        let disk = MemoryDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        let mut count = 1 + dice.below(3) as u16;
        for round in 0..4 {
            let env = MemoryEnv::new(disk.clone(), seed * 100 + round);
            let context = format!("seed {seed}, round {round}, {count} shards");
            env.block_on(async {
                let shards = open_all(&env, count).await;
                check(&shards, &model, &context).await;
                load(&shards, &mut model, &mut dice, 80).await;
            })
            .unwrap_or_else(|| panic!("{context}: stands still"));
            env.kill();
            disk.restart_after_power_loss();
            // Crashes on the way to other numbers of shards, before one attempt is let through.
            for attempt in 0..3 {
                let env = MemoryEnv::new(disk.clone(), seed * 100 + round * 10 + attempt + 50);
                count = 1 + dice.below(4) as u16;
                disk.crash_after(dice.below(400));
                env.block_on(reshard(env.clone(), &options(0, count)));
                env.kill();
                disk.restart_after_power_loss();
            }
        }
    }
}

#[test]
fn a_shard_does_not_open_files_of_another_layout() {
    let (_, env) = machine(1);
    env.block_on(async {
        open_all(&env, 2).await;
        let error = Database::open(env.clone(), options(0, 3), schema())
            .await
            .err()
            .unwrap();
        assert!(matches!(error, Error::Layout(_)), "{error}");
        assert!(error.to_string().contains("reshard first"), "{error}");
    })
    .unwrap();
    env.kill();
}
