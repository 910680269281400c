//! Snapshots, incremental backups.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::{TableId, Timestamp};
use uuid::Uuid;

use crate::testing::*;
use crate::{Database, Error, SnapshotNote, SnapshotPart};

fn note(created_at: i64, expires_at: Option<i64>) -> SnapshotNote {
    SnapshotNote {
        created_at,
        expires_at,
        schema: "CREATE TABLE ks.t ...".to_owned(),
        token_ranges: crate::ranges_between(&[-5, 5]),
    }
}

async fn take(database: &Database, tag: &str, flush: bool) -> Vec<String> {
    let parts = database.link_snapshot(&[TABLE], tag, flush).await.unwrap();
    let SnapshotPart { table, files } = parts.into_iter().next().unwrap();
    database
        .finish_snapshot(table, tag, files.clone(), &note(1_700_000_000_000, None))
        .await
        .unwrap();
    files
}

fn in_folder(files: Vec<PathBuf>, folder: &str) -> usize {
    files
        .iter()
        .filter(|file| file.parent().is_some_and(|parent| parent.ends_with(folder)))
        .count()
}

#[test]
fn a_snapshot_holds_what_was_there_and_outlives_compaction_truncation_drop_and_restart() {
    let (disk, env) = machine(1);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for number in 0..20 {
            database.write(row_write(number, 1, 1, b"value")).await.unwrap();
            if number == 10 {
                database.flush(None).await.unwrap();
            }
        }
        assert_eq!(take(&database, "unflushed", false).await.len(), 1);
        assert_eq!(take(&database, "whole", true).await.len(), 2);
        assert!(database.has_snapshot(TABLE, "whole").await.unwrap());
        assert!(!database.has_snapshot(TABLE, "other").await.unwrap());
        let shots = database.snapshots().await.unwrap();
        let tags: Vec<&str> = shots.iter().map(|shot| shot.tag.as_str()).collect();
        assert_eq!(tags, ["unflushed", "whole"]);
        assert!(
            shots
                .iter()
                .all(|shot| shot.true_bytes == 0 && shot.disk_bytes > 0)
        );
        assert_eq!((shots[0].keyspace.as_str(), shots[0].table.as_str()), ("ks", "t"));
        assert_eq!(shots[0].created_at, Some(1_700_000_000_000));
        database.compact(TABLE).await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        let shots = database.snapshots().await.unwrap();
        assert!(shots.iter().all(|shot| shot.true_bytes > 0), "{shots:?}");
        database.truncate(TABLE, Timestamp(1)).await.unwrap();
        database.drop_table(TABLE).await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        database.drain().await.unwrap();
    })
    .unwrap();
    env.kill();
    disk.restart_after_power_loss();
    let data: Vec<PathBuf> = files_ending(&disk, DATA, "Data.db");
    assert_eq!(
        (in_folder(data.clone(), "unflushed"), in_folder(data, "whole")),
        (1, 2)
    );
    let manifest = files_ending(&disk, DATA, "whole/manifest.json");
    let text = String::from_utf8(disk.content(&manifest[0]).unwrap()).unwrap();
    assert_eq!(text.matches("Data.db").count(), 2, "{text}");
    assert_eq!(files_ending(&disk, DATA, "whole/schema.cql").len(), 1);
    let env = MemoryEnv::new(disk.clone(), 2);
    env.block_on(async {
        let other = TableId(Uuid::from_u128(0x2222));
        let rest = schema_of(&[table_named(other, "u", |_| {})]);
        let database = Database::open(env.clone(), options(0, 1), rest.clone())
            .await
            .unwrap();
        database.finish_recovery(rest).await.unwrap();
        assert_eq!(database.snapshots().await.unwrap().len(), 2);
        let cleared = database
            .clear_snapshots(|shot| shot.tag == "whole")
            .await
            .unwrap();
        assert_eq!((cleared, database.snapshots().await.unwrap().len()), (1, 1));
        assert_eq!(database.clear_snapshots(|_| true).await.unwrap(), 1);
        // The dropped table's folder is gone with its last snapshot; the living one's is not.
        let folders = env.disk().list_dir(Path::new("/ceto/data/ks")).await.unwrap();
        assert_eq!(folders.len(), 1, "{folders:?}");
        assert!(folders[0].name.starts_with("u-"));
    })
    .unwrap();
    env.kill();
    assert_eq!(in_folder(files_ending(&disk, DATA, ""), "whole"), 0);
}

#[test]
fn a_snapshot_is_of_one_moment() {
    let (disk, env) = machine(3);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for number in 0..10 {
            database.write(row_write(number, 1, 1, b"before")).await.unwrap();
        }
        let mut taking = std::pin::pin!(database.link_snapshot(&[TABLE], "moment", true));
        // The memtable is switched at the first poll; what comes from here on is not in it.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(taking.as_mut().poll(&mut context).is_pending());
        for number in 10..20 {
            database.write(row_write(number, 1, 1, b"after")).await.unwrap();
        }
        database.flush(None).await.unwrap();
        database.compact(TABLE).await.unwrap();
        let parts = taking.await.unwrap();
        assert_eq!(parts[0].files.len(), 1);
    })
    .unwrap();
    env.kill();
    let data = files_ending(&disk, DATA, "Data.db");
    assert_eq!(in_folder(data, "moment"), 1);
}

#[test]
fn flushed_sstables_are_backed_up_while_that_is_on() {
    let (disk, env) = machine(4);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for round in 0..4 {
            assert_eq!(database.incremental_backups(), round % 2 == 1);
            for number in 0..5 {
                database
                    .write(row_write(round * 10 + number, 1, 1, b"value"))
                    .await
                    .unwrap();
            }
            database.flush(None).await.unwrap();
            database.set_incremental_backups(round % 2 == 0);
        }
        database.compact(TABLE).await.unwrap();
        env.tasks().sleep(Duration::from_secs(1)).await;
        assert_eq!(database.sstables(TABLE).len(), 1);
    })
    .unwrap();
    env.kill();
    let data = files_ending(&disk, DATA, "Data.db");
    assert_eq!(in_folder(data, "backups"), 2);
    // A start does not take them for the table's.
    let env = MemoryEnv::new(disk, 5);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        assert_eq!(database.sstables(TABLE).len(), 1);
        assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 20);
    })
    .unwrap();
    env.kill();
}

/// Copies the sstables of a snapshot into another folder, as an operator does.
fn copy_snapshot(disk: &MemoryDisk, tag: &str, to: &Path) -> usize {
    let folder = format!("{}/{tag}", crate::snapshot::SNAPSHOTS);
    let files = files_ending(disk, DATA, "");
    let from = files
        .iter()
        .filter(|file| file.parent().unwrap().ends_with(&folder));
    let mut count = 0;
    for file in from.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("ceto-")) {
        let content = disk.content(file).unwrap();
        disk.set_content(&to.join(file.file_name().unwrap()), content);
        count += 1;
    }
    count
}

fn table_folder(disk: &MemoryDisk) -> PathBuf {
    let files = files_ending(disk, "/ceto/data/ks", "");
    let folder = files.iter().find_map(|file| {
        let mut parents = file.ancestors();
        parents.find(|parent| parent.parent().is_some_and(|keyspace| keyspace.ends_with("ks")))
    });
    folder.unwrap().to_path_buf()
}

/// Loads all unknown sstables; returns how many.
async fn refresh(database: &Database) -> usize {
    let found = database.unknown_sstables(TABLE).await.unwrap();
    for descriptor in &found {
        database.import_sstable(TABLE, descriptor).await.unwrap();
        database.remove_imported(descriptor).await.unwrap();
    }
    found.len()
}

#[test]
fn a_truncated_table_is_restored_from_its_snapshot_without_and_with_a_restart() {
    for restarts in [false, true] {
        let (disk, env) = machine(6);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            for number in 0..20 {
                database.write(row_write(number, 1, 1, b"value")).await.unwrap();
                if number % 10 == 9 {
                    database.flush(None).await.unwrap();
                }
            }
            take(&database, "saved", true).await;
            database.truncate(TABLE, Timestamp(1)).await.unwrap();
            database.write(row_write(100, 1, 1, b"later")).await.unwrap();
            database.flush(None).await.unwrap();
            env.tasks().sleep(Duration::from_secs(2)).await;
            assert_eq!(refresh(&database).await, 0);
            assert!(copy_snapshot(&disk, "saved", &table_folder(&disk)) >= 10);
            if !restarts {
                assert_eq!(refresh(&database).await, 2);
                assert_eq!(database.read(&read_all()).await.unwrap().partitions.len(), 21);
                assert_eq!(refresh(&database).await, 0);
            }
        })
        .unwrap();
        env.kill();
        disk.restart();
        let env = MemoryEnv::new(disk, 7);
        env.block_on(async {
            let database = open(&env, options(0, 1)).await.unwrap();
            let found = database.read(&read_all()).await.unwrap().partitions.len();
            assert_eq!(found, 21, "restarts: {restarts}");
            database.verify(TABLE).await.unwrap();
        })
        .unwrap();
        env.kill();
    }
}

#[test]
fn nothing_that_the_table_replaces_is_taken_for_new() {
    let (_, env) = machine(8);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for number in 0..8 {
            database
                .write(row_write(number % 2, 1, number as i64 + 1, b"value"))
                .await
                .unwrap();
            database.flush(None).await.unwrap();
        }
        // A reader keeps the files of what compaction replaces.
        let held = database.table(TABLE).unwrap().view().sstables.clone();
        database.compact(TABLE).await.unwrap();
        assert!(database.unknown_sstables(TABLE).await.unwrap().is_empty());
        drop(held);
        assert!(database.unknown_sstables(TABLE).await.unwrap().is_empty());
    })
    .unwrap();
    env.kill();
}

#[test]
fn sstables_of_another_layout_go_to_the_shards_that_own_their_partitions() {
    let (disk, env) = machine(9);
    let dir = PathBuf::from("/elsewhere");
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        for number in 0..200 {
            database.write(row_write(number, 1, 1, b"value")).await.unwrap();
        }
        take(&database, "one", true).await;
        env.disk().create_dir_all(&dir).await.unwrap();
        copy_snapshot(&disk, "one", &dir);
    })
    .unwrap();
    env.kill();
    let (to, env) = machine(10);
    for file in disk.files().iter().filter(|file| file.starts_with(&dir)) {
        to.set_content(file, disk.content(file).unwrap());
    }
    env.block_on(async {
        env.disk().create_dir_all(&dir).await.unwrap();
        let mut all = 0;
        for shard in 0..2 {
            let database = open(&env, options(shard, 2)).await.unwrap();
            let found = database.sstables_in(TABLE, &dir).await.unwrap();
            assert_eq!(found.len(), 1);
            database.import_sstable(TABLE, &found[0]).await.unwrap();
            let result = database.read(&read_all()).await.unwrap();
            let owned = |part: &ceto_model::read::PartitionResult| part.key.token.shard(2) == shard;
            assert!(result.partitions.iter().all(owned));
            assert!(result.partitions.len() > 50);
            all += result.partitions.len();
            // Its positions are of another log: writes here are still replayed.
            database
                .write(row_write(1000 + u64::from(shard), 1, 1, b"mine"))
                .await
                .unwrap();
        }
        assert_eq!(all, 200);
    })
    .unwrap();
    env.kill();
    let env = MemoryEnv::new(to, 11);
    env.block_on(async {
        let mut all = 0;
        for shard in 0..2 {
            let database = open(&env, options(shard, 2)).await.unwrap();
            all += database.read(&read_all()).await.unwrap().partitions.len();
        }
        assert_eq!(all, 202);
    })
    .unwrap();
    env.kill();
}

#[test]
fn an_sstable_of_another_table_is_refused_unless_its_columns_are_the_same() {
    let (disk, env): (Rc<MemoryDisk>, Rc<MemoryEnv>) = machine(12);
    env.block_on(async {
        let database = open(&env, options(0, 1)).await.unwrap();
        database.write(row_write(1, 1, 1, b"value")).await.unwrap();
        take(&database, "saved", true).await;
        let saved = table_folder(&disk).join("snapshots/saved");
        let other = TableId(Uuid::from_u128(0x2222));
        let narrow = TableId(Uuid::from_u128(0x3333));
        let mut builder = ceto_model::schema::TableBuilder::new(narrow, "ks", "another");
        builder.add_column(
            "k",
            ceto_model::ColumnKind::PartitionKey,
            ceto_model::CqlType::Blob,
        );
        builder.add_column("v", ceto_model::ColumnKind::Regular, ceto_model::CqlType::Int);
        let another = builder.build();
        let schema = schema_of(&[
            table_named(TABLE, "t", |_| {}),
            table_named(other, "same", |_| {}),
            std::sync::Arc::new(another),
        ]);
        database.set_schema(schema).await.unwrap();
        let found = database.sstables_in(TABLE, &saved).await.unwrap();
        let error = database.check_import(narrow, &found[0], true).await.unwrap_err();
        assert!(matches!(error, Error::Layout(_)), "{error}");
        database.check_import(other, &found[0], true).await.unwrap();
        database.import_sstable(other, &found[0]).await.unwrap();
        let mut command = read_all();
        command.table = other;
        assert_eq!(database.read(&command).await.unwrap().partitions.len(), 1);
        // Damage is found before anything is taken.
        let data = found[0].path(crate::Component::Data);
        let size = disk.content(&data).unwrap().len();
        disk.flip(&data, size / 2, 1);
        let error = database.check_import(other, &found[0], true).await.unwrap_err();
        assert!(error.to_string().contains(&*data.to_string_lossy()), "{error}");
    })
    .unwrap();
    env.kill();
}

#[test]
fn a_part_that_was_taken_unverified_from_a_damaged_sstable_is_not_left_over() {
    let (disk, env) = machine(13);
    let dir = PathBuf::from("/elsewhere");
    env.block_on(async {
        // Of one shard, so that each of two takes its part by writing it anew.
        let database = open(&env, options(0, 1)).await.unwrap();
        for number in 0..300 {
            let value = format!("value {number}").repeat(40);
            database
                .write(row_write(number, 1, 1, value.as_bytes()))
                .await
                .unwrap();
        }
        take(&database, "one", true).await;
        env.disk().create_dir_all(&dir).await.unwrap();
        copy_snapshot(&disk, "one", &dir);
    })
    .unwrap();
    env.kill();
    let (to, env) = machine(14);
    for file in disk.files().iter().filter(|file| file.starts_with(&dir)) {
        to.set_content(file, disk.content(file).unwrap());
    }
    env.block_on(async {
        env.disk().create_dir_all(&dir).await.unwrap();
        let database = open(&env, options(0, 2)).await.unwrap();
        let before = to.files();
        let found = database.sstables_in(TABLE, &dir).await.unwrap();
        let data = found[0].path(crate::Component::Data);
        to.flip(&data, to.content(&data).unwrap().len() * 3 / 4, 1);
        database.check_import(TABLE, &found[0], false).await.unwrap();
        let error = database.import_sstable(TABLE, &found[0]).await.unwrap_err();
        let Error::Corrupt(corruption) = error else {
            panic!("{error}");
        };
        assert!(corruption.file == data && corruption.offset > 0, "{corruption:?}");
        assert_eq!(to.files(), before, "a part is left over");
        assert!(database.read(&read_all()).await.unwrap().partitions.is_empty());
        // One that is not there whole is not passed over.
        let toc = found[0].path(crate::Component::Toc);
        to.delete(&toc);
        let error = database.sstables_in(TABLE, &dir).await.unwrap_err();
        assert!(error.to_string().contains(&*toc.to_string_lossy()), "{error}");
        let own = database.table(TABLE).unwrap().dir.clone();
        assert!(database.sstables_in(TABLE, &own).await.is_err());
    })
    .unwrap();
    env.kill();
}
