//! Expiry, second by second: what a read finds never depends on where the data lies.

use std::time::Duration;

use bytes::Bytes;
use ceto_env::Env;
use ceto_model::evaluate::evaluate;
use ceto_model::timestamp::{Expiry, Ttl};
use ceto_model::*;

use super::{Model, apply};
use crate::Database;
use crate::testing::*;

const PARTITIONS: u64 = 5;
const ROWS: u64 = 20;
/// Longest life, in seconds.
const LIFE_MAX: u64 = 50;

/// A row that dies, with two cells that may die at other seconds.
fn mortal_write(dice: &mut Dice, now: UnixSeconds, timestamp: i64) -> Mutation {
    let mut mutation = Mutation::new(TABLE, key(dice.below(PARTITIONS)));
    let mut expiry = || {
        let life = 1 + dice.below(LIFE_MAX) as u32;
        (dice.below(8) > 0).then(|| Expiry::after(now, Ttl(life)))
    };
    let mut row = Row {
        liveness: Some(Liveness {
            timestamp: Timestamp(timestamp),
            expiry: expiry(),
        }),
        ..Row::default()
    };
    for column in [3, 4] {
        let cell = Cell::with_expiry(Timestamp(timestamp), Bytes::from_static(b"value"), expiry());
        row.merge_column(ColumnId(column), ColumnData::Cell(cell));
    }
    let clustering = clustering(dice.below(ROWS) as u16);
    mutation.partition.row_mut(clustering).merge(row);
    mutation
}

/// Every way to read finds what the model says at this second.
async fn check(database: &Database, model: &Model, now: UnixSeconds, context: &str) {
    let mut commands = vec![read_all()];
    commands.push(ReadCommand {
        reversed: true,
        ..read_all()
    });
    for rows in [1, 7] {
        let mut page = read_all();
        page.limits.rows = rows;
        commands.push(page);
    }
    for number in 0..PARTITIONS {
        commands.push(read_of(ReadTarget::Partition(key(number))));
    }
    for mut command in commands {
        command.now = now;
        let expected = evaluate(&command, model);
        let mut found = database.read(&command).await.unwrap();
        for _ in 0..2 {
            assert_eq!(
                found.work.live_rows, expected.work.live_rows,
                "{context}: {command:?}"
            );
            assert_same(&found, &expected, context);
            // What was read once may now be answered from memory.
            match database.try_read(&command) {
                Some(result) => found = result.unwrap(),
                None => break,
            }
        }
    }
}

#[test]
fn what_expires_is_gone_at_its_second_in_memtables_sstables_and_after_compaction() {
    for seed in 0..6 {
        let (_, env) = machine(seed);
        let mut dice = Dice::new(seed);
        let mut model = Model::new();
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            for second in 0..70 {
                let now = UnixSeconds(env.clock().unix_seconds());
                if second < 20 {
                    for _ in 0..8 {
                        let write = mortal_write(&mut dice, now, second * 10 + 1);
                        apply(&mut model, &write);
                        database.write(write).await.unwrap();
                    }
                }
                check(&database, &model, now, &format!("seed {seed}, second {second}")).await;
                match second {
                    6 | 12 | 18 => database.flush(None).await.unwrap(),
                    15 | 30 | 45 => database.compact(TABLE).await.unwrap(),
                    _ => {}
                }
                let now = UnixSeconds(env.clock().unix_seconds());
                check(
                    &database,
                    &model,
                    now,
                    &format!("seed {seed}, behind second {second}"),
                )
                .await;
                env.tasks().sleep(Duration::from_secs(1)).await;
            }
        })
        .expect("nothing stands still");
        env.kill();
    }
}
