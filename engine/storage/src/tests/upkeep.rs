//! What a shard does by itself to stay small: drops what has expired, keeps tombstones for as long as it has to, gives
//! compaction more of the processor when it falls behind, flushes whoever holds the log; and snapshots cut off in their
//! middle.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::evaluate::evaluate;
use ceto_model::*;
use uuid::Uuid;

use super::{Model, apply};
use crate::testing::*;
use crate::{Component, Database, SnapshotNote, StorageOptions};

type Options<'a> = &'a [(&'a str, &'a str)];

fn schema_with(compaction: Options<'_>, gc_grace: u32) -> Arc<Schema> {
    schema_of(&[table_named(TABLE, "t", |builder| {
        builder.options.gc_grace_seconds = gc_grace;
        let options = compaction.iter();
        builder.options.compaction = options.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    })])
}

async fn open_with(env: &Rc<MemoryEnv>, options: StorageOptions, schema: &Arc<Schema>) -> Rc<Database> {
    let database = Database::open(env.clone(), options, schema.clone())
        .await
        .unwrap();
    database.finish_recovery(schema.clone()).await.unwrap();
    database
}

/// A write at the clock's time that lives for so many seconds.
fn mortal(env: &MemoryEnv, partition: u64, ttl: u32) -> Mutation {
    let now = UnixSeconds(env.clock().unix_seconds());
    let timestamp = Timestamp(env.clock().unix_micros());
    let expiry = Some(Expiry::after(now, Ttl(ttl)));
    let mut write = Mutation::new(TABLE, key(partition));
    let mut row = Row {
        liveness: Some(Liveness { timestamp, expiry }),
        ..Row::default()
    };
    let cell = Cell::with_expiry(timestamp, Bytes::from_static(b"value"), expiry);
    row.merge_column(ColumnId(3), ColumnData::Cell(cell));
    write.partition.row_mut(clustering(1)).merge(row);
    write
}

const WINDOWS: Options<'static> = &[
    ("class", "TimeWindowCompactionStrategy"),
    ("compaction_window_unit", "MINUTES"),
    ("expired_sstable_check_frequency_seconds", "1"),
];

#[test]
fn an_sstable_that_has_expired_is_dropped_unread_unless_it_shadows_something() {
    let (disk, env) = machine(1);
    let schema = schema_with(WINDOWS, 100);
    env.block_on(async {
        let database = open_with(&env, options(0, 1), &schema).await;
        let write_dead = async || {
            for partition in 0..20 {
                database.write(mortal(&env, partition, 10)).await.unwrap();
            }
            database.flush(None).await.unwrap();
        };
        write_dead().await;
        // A table that nothing happens to is looked at once a minute.
        env.tasks().sleep(Duration::from_secs(90)).await;
        assert_eq!(database.sstables(TABLE).len(), 1, "in its gc grace");
        env.tasks().sleep(Duration::from_secs(90)).await;
        assert!(database.sstables(TABLE).is_empty(), "dead and past it");
        let table = database.table_stats(TABLE).unwrap();
        assert_eq!(
            (table.sstables_expired, table.compacted_bytes),
            (1, 0),
            "nobody read it"
        );
        assert_eq!(files_ending(&disk, DATA, "Data.db").len(), 0);
        // An older write, in a memtable: dropping what expired would bring it back.
        let older = env.clock().unix_micros();
        write_dead().await;
        let late = row_write(3, 1, older - 1, b"older");
        database.write(late).await.unwrap();
        env.tasks().sleep(Duration::from_secs(200)).await;
        assert_eq!(database.sstables(TABLE).len(), 1, "it shadows a write in memory");
        let mut command = read_all();
        command.now = UnixSeconds(env.clock().unix_seconds());
        assert!(database.read(&command).await.unwrap().partitions.is_empty());
    })
    .unwrap();
    env.kill();
}

/// An sstable of all that expired beside one that lives; the drop is cut off at each operation.
#[test]
fn a_drop_that_is_cut_off_brings_nothing_back() {
    let schema = schema_with(WINDOWS, 0);
    let mut at = 0;
    loop {
        let disk = MemoryDisk::new(at);
        let env = MemoryEnv::new(disk.clone(), at);
        let mut model = Model::new();
        let dropped = env.block_on(async {
            let database = open_with(&env, options(0, 1), &schema).await;
            for partition in 0..10 {
                let write = mortal(&env, partition, 5);
                apply(&mut model, &write);
                database.write(write).await.unwrap();
            }
            database.flush(None).await.unwrap();
            let write = row_write(77, 1, env.clock().unix_micros(), b"lives");
            apply(&mut model, &write);
            database.write(write).await.unwrap();
            database.flush(None).await.unwrap();
            disk.crash_after(at);
            env.tasks().sleep(Duration::from_secs(90)).await;
            assert_eq!(database.sstables(TABLE).len(), 1);
        });
        env.kill();
        match at % 2 {
            0 => disk.restart(),
            _ => disk.restart_after_power_loss(),
        }
        let now = UnixSeconds(env.clock().unix_seconds() + 90);
        let env = env.reboot(at + 1);
        env.block_on(async {
            let database = open_with(&env, options(0, 1), &schema).await;
            let mut command = read_all();
            command.now = now;
            let found = database.read(&command).await.unwrap();
            assert_same(&found, &evaluate(&command, &model), &format!("cut off at {at}"));
        })
        .unwrap();
        env.kill();
        if dropped.is_some() {
            break;
        }
        at += 1;
    }
    assert!(at > 8, "{at} operations");
}

#[test]
fn only_repaired_tombstones_go_where_that_is_asked_for() {
    let by_hand = StorageOptions {
        automatic_compaction: false,
        ..options(0, 1)
    };
    let wary = [
        ("class", "SizeTieredCompactionStrategy"),
        ("only_purge_repaired_tombstones", "true"),
    ];
    let (_, env) = machine(2);
    env.block_on(async {
        let database = open_with(&env, by_hand, &schema_with(&wary, 0)).await;
        database.write(row_write(1, 1, 50, b"value")).await.unwrap();
        database.flush(None).await.unwrap();
        let mut write = Mutation::new(TABLE, key(1));
        write.partition.row_mut(clustering(1)).delete(deletion(100));
        database.write(write).await.unwrap();
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(10)).await;
        database.compact(TABLE).await.unwrap();
        let all = database.sstables(TABLE);
        assert_eq!((all.len(), all[0].1.tombstones), (1, 1), "nobody has repaired it");
        database.set_schema(schema_with(&wary[..1], 0)).await.unwrap();
        database.compact(TABLE).await.unwrap();
        assert!(database.sstables(TABLE).is_empty());
    })
    .unwrap();
    env.kill();
}

#[test]
fn compaction_gets_more_of_the_processor_while_it_is_behind() {
    let (_, env) = machine(3);
    let schema = schema_with(&[("class", "SizeTieredCompactionStrategy")], 0);
    let small = StorageOptions {
        memtable_space: 24 << 10,
        compaction_throughput: 1,
        ..options(0, 1)
    };
    env.block_on(async {
        let database = open_with(&env, small, &schema).await;
        env.tasks().sleep(Duration::from_secs(7)).await;
        let idle = database.stats().compaction_shares;
        let mut dice = Dice::new(3);
        for partition in 0..5000 {
            let value: Vec<u8> = (0..300).map(|_| dice.next() as u8).collect();
            database.write(row_write(partition, 1, 1, &value)).await.unwrap();
        }
        database.flush(None).await.unwrap();
        env.tasks().sleep(Duration::from_secs(7)).await;
        let stats = database.stats();
        assert!(
            stats.compaction_backlog_bytes > 24 << 10,
            "{}",
            stats.compaction_backlog_bytes
        );
        let behind = stats.compaction_shares;
        assert!(behind > 2 * idle, "{behind} shares, {idle} when idle");
        database.set_compaction_throughput(0);
        env.tasks().sleep(Duration::from_secs(60)).await;
        let stats = database.stats();
        assert!(
            stats.compaction_shares < behind,
            "{} shares",
            stats.compaction_shares
        );
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_log_that_fills_up_flushes_the_table_that_holds_its_oldest_segment() {
    let other = TableId(Uuid::from_u128(0x2222));
    let schema = schema_of(&[table_named(TABLE, "t", |_| {}), table_named(other, "u", |_| {})]);
    let bounded = StorageOptions {
        commitlog_segment_size: 8 << 10,
        commitlog_total_space: 64 << 10,
        memtable_space: 64 << 20,
        ..options(0, 1)
    };
    let (disk, env) = machine(4);
    env.block_on(async {
        let database = open_with(&env, bounded.clone(), &schema).await;
        // Once, and never again: it alone would hold the first segment for ever.
        database.write(row_write(1, 1, 1, b"once")).await.unwrap();
        let mut names = std::collections::BTreeSet::new();
        for number in 0..1000 {
            let mut write = row_write(number, 1, 1, &[7; 500]);
            write.table = other;
            database.write(write).await.unwrap();
            let log = database.stats().commitlog.disk_bytes;
            assert!(log <= bounded.commitlog_total_space, "{log} bytes of log");
            names.extend(files_ending(&disk, DATA, ".log"));
            let at_once = files_ending(&disk, DATA, ".log").len() + files_ending(&disk, DATA, ".free").len();
            assert!(at_once <= 8, "{at_once} segment files");
        }
        assert_eq!(database.sstables(TABLE).len(), 1);
        assert!(!database.sstables(other).is_empty());
        // 560 KB went through at most 64 KB of files.
        assert!(names.len() > 40, "{} segments", names.len());
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_snapshot_that_is_cut_off_is_whole_or_has_no_manifest() {
    let (mut at, mut whole, mut parts) = (0, 0, 0);
    loop {
        let disk = MemoryDisk::new(at);
        let env = MemoryEnv::new(disk.clone(), at);
        let taken = env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            for number in 0..30 {
                database.write(row_write(number, 1, 1, b"value")).await.unwrap();
                if number == 15 {
                    database.flush(None).await.unwrap();
                }
            }
            disk.crash_after(at);
            let part = database
                .link_snapshot(&[TABLE], "tag", true)
                .await
                .unwrap()
                .remove(0);
            let note = SnapshotNote {
                created_at: 1_700_000_000_000,
                expires_at: None,
                schema: "CREATE TABLE ks.t ...".to_owned(),
                token_ranges: crate::ranges_between(&[5]),
            };
            database
                .finish_snapshot(TABLE, "tag", part.files, &note)
                .await
                .unwrap();
        });
        env.kill();
        match at % 2 {
            0 => disk.restart(),
            _ => disk.restart_after_power_loss(),
        }
        let env = env.reboot(at + 1);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 30);
            let shots = database.snapshots().await.unwrap();
            let is_whole = shots.iter().any(|shot| shot.created_at.is_some());
            if is_whole {
                whole += 1;
                for (descriptor, _) in database.sstables(TABLE).iter().take(2) {
                    for component in Component::ALL {
                        let live = descriptor.path(component);
                        let name = live.file_name().unwrap();
                        let linked = descriptor.dir.join("snapshots/tag").join(name);
                        assert_eq!(
                            disk.content(&live),
                            disk.content(&linked),
                            "cut off at {at}: {linked:?}"
                        );
                    }
                }
            } else {
                parts += 1;
                assert!(
                    taken.is_none(),
                    "cut off at {at}: a snapshot that was taken is gone"
                );
            }
            // What is left can be cleared, and the name taken again.
            database.clear_snapshots(|_| true).await.unwrap();
            assert!(!database.has_snapshot(TABLE, "tag").await.unwrap());
        })
        .unwrap();
        env.kill();
        if taken.is_some() {
            break;
        }
        at += 1;
    }
    assert!(whole > 0 && parts > 20, "{whole} whole, {parts} in part");
}
