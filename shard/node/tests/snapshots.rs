//! Snapshots that a node takes by itself, and lets go.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ceto_env::memory::{Fault, Operation};
use ceto_model::TableId;
use ceto_native::Response;
use ceto_node::options::Limits;
use ceto_node::{ImportOptions, SnapshotRequest};
use ceto_storage::SnapshotDetails;
use support::{World, options};

const TTL: Duration = Duration::from_secs(3600);

/// A table that was truncated, with automatic snapshots that live for an hour.
fn truncated() -> (World, SnapshotDetails) {
    let mut options = options(Limits::default());
    options.storage.auto_snapshot = true;
    options.storage.auto_snapshot_ttl = Some(TTL);
    let world = World::boot_as(options, |env| env);
    world.fill(20, 100);
    let mut client = world.connect();
    let answer = world.ask(&mut client, "TRUNCATE ks.t");
    assert!(matches!(answer, Response::Void), "{answer:?}");
    let found = snapshots(&world);
    assert_eq!(found.len(), 1, "{found:?}");
    let taken = found[0].clone();
    (world, taken)
}

fn snapshots(world: &World) -> Vec<SnapshotDetails> {
    world.env.block_on(world.node.snapshots()).unwrap().unwrap()
}

#[test]
fn an_automatic_snapshot_shows_its_size_and_goes_when_its_time_is_over() {
    let (world, taken) = truncated();
    assert!(
        taken.tag.starts_with("truncated-") && taken.tag.ends_with("-t"),
        "{taken:?}"
    );
    let life = taken.expires_at.unwrap() - taken.created_at.unwrap();
    assert_eq!(life, TTL.as_millis() as i64);
    // The table has given its files up.
    world.run(Duration::from_secs(5));
    let kept = &snapshots(&world)[0];
    assert!(
        kept.true_bytes > 0 && kept.disk_bytes >= kept.true_bytes,
        "{kept:?}"
    );
    world.run(TTL - Duration::from_secs(60));
    assert_eq!(snapshots(&world).len(), 1);
    world.run(Duration::from_secs(120));
    assert_eq!(snapshots(&world), []);
}

#[test]
fn an_expired_snapshot_that_could_not_be_removed_goes_later() {
    let (world, taken) = truncated();
    world.run(TTL - Duration::from_secs(60));
    world.env.memory_disk().inject(Fault {
        operation: Operation::Remove,
        path_contains: taken.tag.clone(),
        kind: std::io::ErrorKind::Other,
        count: 1,
    });
    world.run(Duration::from_secs(90));
    assert_eq!(world.env.memory_disk().failed_operations(), 1);
    assert_eq!(snapshots(&world).len(), 1, "it is still there");
    world.run(Duration::from_secs(120));
    assert_eq!(snapshots(&world), []);
}

const SSTABLES: i32 = 3;
const ROWS: i32 = 20;

fn table(world: &World) -> TableId {
    world.node.schema().table("ks", "t").unwrap().id
}

fn rows(world: &World) -> usize {
    let mut client = world.connect();
    match world.ask(&mut client, "SELECT c FROM ks.t") {
        Response::Rows(rows) => rows.row_count() as usize,
        answer => panic!("{answer:?}"),
    }
}

/// A table whose rows are in a snapshot of some sstables, and no longer in the table.
fn emptied() -> (World, PathBuf) {
    let world = World::boot(Limits::default());
    world.fill(0, 1);
    let mut client = world.connect();
    for number in 0..SSTABLES {
        for row in 0..ROWS {
            let text = format!("INSERT INTO ks.t (k, c, v) VALUES ({}, {number}, 0xcafe)", row);
            assert!(matches!(world.ask(&mut client, &text), Response::Void));
        }
        let request = SnapshotRequest {
            tables: vec![table(&world)],
            tag: format!("part {number}"),
            flush: true,
            ttl: None,
        };
        let taken = world.env.block_on(world.node.take_snapshot(request));
        taken.unwrap().unwrap();
    }
    let answer = world.ask(&mut client, "TRUNCATE ks.t");
    assert!(matches!(answer, Response::Void), "{answer:?}");
    let folder = files(&world, "part 2/manifest.json").remove(0);
    world.run(Duration::from_secs(5));
    assert_eq!(rows(&world), 0);
    (world, folder.parent().unwrap().to_path_buf())
}

fn files(world: &World, end: &str) -> Vec<PathBuf> {
    let all = world.env.memory_disk().files().into_iter();
    all.filter(|file| file.to_string_lossy().ends_with(end)).collect()
}

fn import(world: &World, dir: &Path, options: ImportOptions) -> Result<usize, String> {
    let import = world.node.import(table(world), dir.to_path_buf(), options);
    world.env.block_on(import).unwrap()
}

#[test]
fn of_sstables_one_of_which_is_damaged_none_is_taken() {
    let (world, dir) = emptied();
    let disk = world.env.memory_disk().clone();
    let copies = ImportOptions {
        copy: true,
        ..ImportOptions::default()
    };
    let before = disk.files();
    let there: Vec<PathBuf> = before
        .iter()
        .filter(|file| file.starts_with(&dir))
        .cloned()
        .collect();
    assert!(there.len() > SSTABLES as usize * 5, "{there:?}");
    for file in &there {
        let content = disk.content(file).unwrap();
        for at in [0, content.len() / 3, content.len() / 2, content.len() - 1] {
            let context = format!("{}, byte {at}", file.display());
            disk.flip(file, at, 1 << (at % 8));
            match import(&world, &dir, copies) {
                Err(error) => {
                    assert!(error.contains(&*file.to_string_lossy()), "{context}: {error}");
                    assert_eq!(rows(&world), 0, "{context}: a part was taken");
                    assert_eq!(disk.files(), before, "{context}: files are left");
                }
                Ok(_) => panic!("{context}: nobody noticed"),
            }
            disk.set_content(file, content.clone());
        }
    }
    assert_eq!(import(&world, &dir, copies), Ok(SSTABLES as usize));
    assert_eq!(rows(&world), (SSTABLES * ROWS) as usize);
}

#[test]
fn a_refresh_takes_all_or_nothing_too() {
    let (world, dir) = emptied();
    let disk = world.env.memory_disk().clone();
    let own = dir.parent().unwrap().parent().unwrap();
    for file in disk.files().iter().filter(|file| file.starts_with(&dir)) {
        let name = file.file_name().unwrap();
        if name.to_string_lossy().starts_with("ceto-") {
            disk.set_content(&own.join(name), disk.content(file).unwrap());
        }
    }
    let refresh = || world.env.block_on(world.node.refresh(table(&world))).unwrap();
    let is_data = |file: &&PathBuf| file.to_string_lossy().ends_with("Data.db") && file.parent() == Some(own);
    let all = disk.files();
    let last = all.iter().rfind(is_data).unwrap();
    let middle = disk.content(last).unwrap().len() / 2;
    disk.flip(last, middle, 1);
    let error = refresh().unwrap_err();
    assert!(error.contains(&*last.to_string_lossy()), "{error}");
    assert_eq!(rows(&world), 0);
    disk.flip(last, middle, 1);
    assert_eq!(refresh(), Ok(SSTABLES as usize));
    assert_eq!(rows(&world), (SSTABLES * ROWS) as usize);
}
