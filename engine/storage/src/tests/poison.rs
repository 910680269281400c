//! Each disk operation in turn fails: writes stop and say so, or nothing was lost by it; reads go on; never something
//! between.

use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv, Operation};
use ceto_model::Timestamp;

use super::apply;
use super::crash::{Oracle, stored};
use crate::testing::*;
use crate::{Database, Error, Result, StorageOptions};

/// Operations of a story at most: so many runs are made.
const OPERATIONS_MAX: u64 = 2000;

fn story_options() -> StorageOptions {
    StorageOptions {
        commitlog_segment_size: 4 << 10,
        commitlog_total_space: 32 << 10,
        memtable_space: 16 << 10,
        ..options(0, 1)
    }
}

/// What a shard did after one operation had failed.
#[derive(Default)]
struct Story {
    oracle: Oracle,
    /// A write was refused because writes are stopped.
    is_stopped: bool,
}

impl Story {
    async fn write(&mut self, database: &Database, number: u64) {
        let write = row_write(
            number % 40,
            (number / 40) as u16,
            number as i64,
            &[number as u8; 180],
        );
        apply(&mut self.oracle.attempted, &write);
        match database.write(write.clone()).await {
            Ok(()) => {
                assert!(
                    !self.is_stopped,
                    "write {number} was taken after writes had been stopped"
                );
                apply(&mut self.oracle.acknowledged, &write);
            }
            Err(Error::Poisoned(_)) => self.is_stopped = true,
            Err(error) => panic!("write {number}: {error}"),
        }
        assert!(!self.is_stopped || database.stats().refuses_writes);
    }

    /// Everything; a read that is the one to fail is asked again.
    async fn read_back(&self, database: &Database) -> super::Model {
        let mut command = read_all();
        command.keep_tombstones = true;
        let result = match database.read(&command).await {
            Ok(result) => result,
            Err(_) => database.read(&command).await.expect("only one operation fails"),
        };
        contents(&result).into_iter().collect()
    }

    /// Writes, flushes, a compaction and a truncation.
    async fn tell(&mut self, env: &MemoryEnv, database: &Database) -> Result<()> {
        for number in 0..60 {
            self.write(database, number).await;
        }
        let mut result = database.flush(None).await;
        let before = std::mem::take(&mut self.oracle);
        let truncated = database.truncate(TABLE, Timestamp(1)).await;
        if truncated.is_err() {
            // Whether it happened the next start finds out.
            self.oracle.attempted = before.attempted;
        }
        result = result.and(truncated);
        for number in 100..180 {
            self.write(database, number).await;
            if number % 30 == 0 {
                result = result.and(database.flush(None).await);
            }
        }
        result = result.and(database.compact(TABLE).await);
        for number in 200..220 {
            self.write(database, number).await;
        }
        env.tasks().sleep(Duration::from_secs(2)).await;
        // What failed must not have stopped reads.
        let found = self.read_back(database).await;
        if result.is_ok() {
            self.oracle.check(&found, "while it runs");
        }
        result
    }
}

/// Fails operation `number` and looks at what happens then; false when there are not so many.
fn run(number: u64, is_power_loss: bool) -> bool {
    let context = format!("operation {number} fails, power loss: {is_power_loss}");
    let disk = MemoryDisk::new(7);
    let env = MemoryEnv::new(disk.clone(), 7);
    let mut story = Story::default();
    let opened = env
        .block_on(open(&env, story_options()))
        .expect("nothing stands still")
        .expect("nothing fails yet");
    disk.fail_operation(disk.operations() + number, ErrorKind::Other);
    let result = env
        .block_on(story.tell(&env, &opened))
        .unwrap_or_else(|| panic!("{context}: stands still"));
    let failures = disk.failures();
    let Some((operation, path)) = failures.first() else {
        assert!(result.is_ok() && !story.is_stopped, "{context}: {result:?}");
        return false;
    };
    check_stopped(&story, result.is_ok(), (*operation, path), &opened, &context);
    drop(opened);
    env.kill();
    if is_power_loss {
        disk.restart_after_power_loss();
    } else {
        disk.restart();
    }
    restart(&disk, &env, &story, &context);
    true
}

/// What fails to write stops writes; what fails to read or to clean up does not.
fn check_stopped(
    story: &Story,
    is_well: bool,
    (operation, path): (Operation, &Path),
    database: &Database,
    context: &str,
) {
    use Operation::{Create, Rename, Reserve, Sync, Write};
    let is_write = matches!(operation, Create | Rename | Reserve | Sync | Write);
    let name = path.file_name().unwrap().to_string_lossy();
    // That a truncation's files are gone is noted for what somebody may copy back; a start notes it as well.
    let is_note = is_well && name.starts_with("ceto-truncated-");
    assert!(
        !is_write || is_note || database.stats().refuses_writes,
        "{context}: {operation:?} of {name}: writes go on"
    );
    if matches!(operation, Operation::Read | Operation::Open | Operation::Remove) {
        assert!(
            !story.is_stopped,
            "{context}: {operation:?} of {name} stopped writes"
        );
    }
}

fn restart(disk: &Rc<MemoryDisk>, env: &Rc<MemoryEnv>, story: &Story, context: &str) {
    let env = env.reboot(8);
    env.block_on(async {
        let database = open(&env, story_options())
            .await
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = stored(&database).await;
        story.oracle.check(&found, context);
        database.verify(TABLE).await.unwrap();
        database.write(row_write(1, 1, 1000, b"again")).await.unwrap();
    })
    .unwrap_or_else(|| panic!("{context}: stands still"));
    env.kill();
    disk.restart();
}

#[test]
fn each_failed_operation_stops_writes_or_does_no_harm() {
    let count = (0..OPERATIONS_MAX)
        .take_while(|number| run(*number, number % 2 == 0))
        .count();
    assert!(
        (100..OPERATIONS_MAX as usize).contains(&count),
        "{count} operations"
    );
}
