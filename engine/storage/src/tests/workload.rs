//! Random writes, flushes, compactions and restarts against a map of partitions.

use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::evaluate::evaluate;
use ceto_model::read::{ColumnSelection, ReadLimits, ResumePoint};
use ceto_model::{ColumnId, PartitionRange, Position, ReadCommand, ReadTarget, RingPosition, Slice, Token};

use super::{Model, apply};
use crate::Database;
use crate::testing::*;

#[test]
fn what_is_written_is_read_after_flush_compaction_and_restart() {
    for seed in 0..20 {
        run(seed);
    }
}

fn run(seed: u64) {
    let disk = MemoryDisk::new(seed);
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
                match dice.below(80) {
                    0 | 1 => database.flush(None).await.unwrap(),
                    2 => database.compact(TABLE).await.unwrap(),
                    3 => env.tasks().sleep(Duration::from_secs(2)).await,
                    _ => {}
                }
            }
            check(&database, &model, &mut dice, seed).await;
            database.verify(TABLE).await.unwrap();
            if dice.one_in(2) {
                database.drain().await.unwrap();
            }
        });
        assert!(done.is_some(), "seed {seed} stands still");
        env.kill();
        disk.restart();
    }
}

async fn check(database: &Database, model: &Model, dice: &mut Dice, seed: u64) {
    let mut command = read_all();
    command.keep_tombstones = dice.one_in(2);
    command.reversed = dice.one_in(2);
    let expected = evaluate(&command, model);
    let found = database.read(&command).await.unwrap();
    assert_same(&found, &expected, &format!("seed {seed}"));
    for key in model.keys() {
        command.target = ReadTarget::Partition(key.clone());
        command.slices = [slice(5, 10), slice(20, 40)].into_iter().collect();
        let expected = evaluate(&command, model);
        let found = database.read(&command).await.unwrap();
        assert_same(&found, &expected, &format!("seed {seed}"));
    }
    command = read_all();
    command.reversed = dice.one_in(2);
    command.columns = ColumnSelection::Only(vec![ColumnId(3)]);
    let expected = evaluate(&command, model);
    check_pages(database, command, dice, &expected).await;
}

/// Reads page by page, with random limits, and compares all pages together with the whole.
async fn check_pages(
    database: &Database,
    command: ReadCommand,
    dice: &mut Dice,
    expected: &ceto_model::ReadResult,
) {
    let mut pages = ceto_model::ReadResult::default();
    let mut page = command.clone();
    loop {
        page.limits = ReadLimits {
            rows: 1 + dice.below(20),
            partitions: 1 + dice.below(4),
            bytes: 100 + dice.below(5000),
            tombstones: 1 + dice.below(50),
            ..ReadLimits::NONE
        };
        let result = database.read(&page).await.unwrap();
        let rows = result
            .partitions
            .iter()
            .map(|p| p.partition.rows.len())
            .sum::<usize>() as u64;
        assert!(rows <= page.limits.rows, "{rows} rows");
        for partition in result.partitions {
            match pages.partitions.last_mut() {
                Some(last) if last.key == partition.key => {
                    last.partition.rows.extend(partition.partition.rows)
                }
                _ => pages.partitions.push(partition),
            }
        }
        let Some(resume) = result.resume else { break };
        resume_at(&mut page, &command, resume);
    }
    assert_same(&pages, expected, "pages");
}

fn resume_at(page: &mut ReadCommand, command: &ReadCommand, resume: ResumePoint) {
    let end = RingPosition::AfterToken(Token::MAX);
    let (start, first) = match resume {
        ResumePoint::Ring(start) => (start, None),
        ResumePoint::Inside(key, bound) => {
            let rest = if command.reversed {
                Slice {
                    start: Position::before_all(),
                    end: bound,
                }
            } else {
                Slice {
                    start: bound,
                    end: Position::after_all(),
                }
            };
            (
                RingPosition::BeforeKey(key),
                Some(std::iter::once(rest).collect()),
            )
        }
    };
    page.target = ReadTarget::Range(PartitionRange { start, end });
    page.first_partition_slices = first;
}
