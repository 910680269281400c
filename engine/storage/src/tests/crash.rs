//! Crashes at random moments: every acknowledged write is there afterwards, and nothing that nobody wrote.

use std::cell::RefCell;
use std::rc::Rc;

use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_env::{Env, TaskQueue};
use ceto_model::Partition;

use super::{Model, apply};
use crate::testing::*;
use crate::{Codec, CommitlogSync, Compression, Database, StorageOptions};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Crash {
    /// The process dies; what the kernel has stays.
    Process,
    /// The machine loses power.
    Machine,
}

/// Acknowledged writes, and all that were tried.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) acknowledged: Model,
    pub(super) attempted: Model,
}

impl Oracle {
    /// Stored data lies between the acknowledged and the attempted: merging the former in changes nothing, and
    /// merging it into the latter changes nothing.
    pub(super) fn check(&self, stored: &Model, context: &str) {
        for (key, acknowledged) in &self.acknowledged {
            let found = stored.get(key).cloned().unwrap_or_default();
            let mut with = found.clone();
            with.merge(acknowledged.clone());
            bury(&mut with);
            assert!(
                with == found,
                "{context}: an acknowledged write to {key:?} is lost"
            );
        }
        for (key, found) in stored {
            let mut attempted = self.attempted.get(key).cloned().unwrap_or_default();
            bury(&mut attempted);
            let mut with: Partition = attempted.clone();
            with.merge(found.clone());
            assert!(with == attempted, "{context}: {key:?} holds what nobody wrote");
        }
    }
}

pub(super) async fn stored(database: &Database) -> Model {
    let mut command = read_all();
    command.keep_tombstones = true;
    let result = database.read(&command).await.unwrap();
    contents(&result).into_iter().collect()
}

/// Every mode that keeps what it acknowledges over such a crash, every codec, by turns.
fn crash_options(mode: Crash, seed: u64) -> StorageOptions {
    let millis = std::time::Duration::from_millis;
    let codecs = [
        Codec::None,
        Codec::Lz4,
        Codec::Zstd,
        Codec::Snappy,
        Codec::Deflate,
    ];
    StorageOptions {
        commitlog_sync: match (mode, seed % 3) {
            (Crash::Process, 0) => CommitlogSync::Periodic {
                period: millis(10_000),
            },
            (_, 1) => CommitlogSync::Group { window: millis(5) },
            _ => CommitlogSync::Batch,
        },
        commitlog_compression: Compression {
            codec: codecs[seed as usize % codecs.len()],
            ..Compression::default()
        },
        commitlog_segment_size: 8 << 10,
        commitlog_total_space: 48 << 10,
        memtable_space: 48 << 10,
        ..options(0, 1)
    }
}

fn run(seed: u64, mode: Crash) {
    let disk = MemoryDisk::new(seed);
    let mut dice = Dice::new(seed);
    let oracle = Rc::new(RefCell::new(Oracle::default()));
    for round in 0..12 {
        let env = MemoryEnv::new(disk.clone(), seed * 1000 + round);
        disk.crash_after(dice.below(900));
        let writer_seed = dice.next();
        let options = crash_options(mode, seed);
        env.block_on(workload(env.clone(), oracle.clone(), options, writer_seed));
        env.kill();
        match mode {
            Crash::Process => disk.restart(),
            Crash::Machine => disk.restart_after_power_loss(),
        }
        let env = MemoryEnv::new(disk.clone(), seed * 1000 + round + 500);
        // Sometimes the next start crashes too.
        if dice.one_in(3) {
            disk.crash_after(dice.below(200));
            env.block_on(open(&env, crash_options(mode, seed)));
            env.kill();
            match mode {
                Crash::Process => disk.restart(),
                Crash::Machine => disk.restart_after_power_loss(),
            }
        }
        let env = MemoryEnv::new(disk.clone(), seed * 1000 + round + 700);
        let context = format!("seed {seed}, round {round}");
        let done = env.block_on(async {
            let database = open(&env, crash_options(mode, seed))
                .await
                .unwrap_or_else(|e| panic!("{context}: {e}"));
            let found = stored(&database).await;
            oracle.borrow().check(&found, &context);
            database.verify(TABLE).await.unwrap();
        });
        assert!(done.is_some(), "{context}: stands still");
        env.kill();
        disk.restart();
    }
}

/// Several writers at once, flushes and compactions beside them, until the crash.
async fn workload(env: Rc<MemoryEnv>, oracle: Rc<RefCell<Oracle>>, options: StorageOptions, seed: u64) {
    let database = open(&env, options).await.unwrap();
    for writer in 0..4 {
        let (database, oracle) = (database.clone(), oracle.clone());
        let task = async move {
            let mut dice = Dice::new(seed + writer);
            let shape = Shape {
                partitions: 10,
                rows: 30,
                value_size: 300,
                timestamps: 1000,
                deletions: true,
            };
            for _ in 0..200 {
                let write = random_write(&mut dice, shape);
                apply(&mut oracle.borrow_mut().attempted, &write);
                database.write(write.clone()).await.unwrap();
                apply(&mut oracle.borrow_mut().acknowledged, &write);
                if dice.one_in(30) {
                    let _ = database.flush(None).await;
                }
            }
        };
        env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
    }
    for _ in 0..20 {
        env.tasks().sleep(std::time::Duration::from_millis(100)).await;
        database.compact(TABLE).await.unwrap();
    }
}

#[test]
fn acknowledged_writes_survive_the_death_of_the_process() {
    for seed in 0..25 {
        run(seed, Crash::Process);
    }
}

#[test]
fn acknowledged_writes_survive_power_loss_in_batch_and_group_mode() {
    for seed in 0..25 {
        run(seed, Crash::Machine);
    }
}
