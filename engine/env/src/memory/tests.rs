#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::DiskError;

const DIR: &str = "/d";

fn machine(seed: u64) -> (Rc<MemoryDisk>, Rc<MemoryEnv>) {
    let disk = MemoryDisk::new(seed);
    let env = MemoryEnv::new(disk.clone(), seed);
    env.block_on(async {
        disk.create_dir_all(Path::new(DIR)).await.unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
    })
    .unwrap();
    (disk, env)
}

async fn write(disk: &MemoryDisk, name: &str, content: &[u8]) -> Result<(), DiskError> {
    let mut file = Disk::create(disk, &Path::new(DIR).join(name)).await?;
    file.append(content).await?;
    file.finish().await.map(drop)
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    let name = |path: std::path::PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    disk.files().into_iter().map(name).collect()
}

#[test]
fn a_process_that_dies_loses_nothing_that_the_kernel_has() {
    let (disk, env) = machine(1);
    env.block_on(async {
        write(&disk, "a", b"abc").await.unwrap();
        let segment = disk.create_segment(Path::new("/d/log"), 2048).await.unwrap();
        segment.write(1000, b"entry");
    })
    .unwrap();
    env.kill();
    disk.restart();
    assert_eq!(names(&disk), ["a", "log"]);
    assert_eq!(&disk.content(Path::new("/d/log")).unwrap()[1000..1005], b"entry");
}

/// The outcomes of many power losses after the same calls.
fn after_power_loss(prepare: impl AsyncFn(&MemoryDisk), look: impl Fn(&MemoryDisk) -> String) -> Vec<String> {
    let mut outcomes: Vec<String> = (0..200)
        .map(|seed| {
            let (disk, env) = machine(seed);
            env.block_on(prepare(&disk)).unwrap();
            env.kill();
            disk.restart_after_power_loss();
            look(&disk)
        })
        .collect();
    outcomes.sort();
    outcomes.dedup();
    outcomes
}

#[test]
fn a_power_loss_may_undo_each_name_that_was_not_synced() {
    let look = |disk: &MemoryDisk| names(disk).join(" ");
    let both = async |disk: &MemoryDisk| {
        write(disk, "a", b"abc").await.unwrap();
        write(disk, "b", b"abc").await.unwrap();
    };
    assert_eq!(after_power_loss(both, look), ["", "a", "a b", "b"]);
    let synced = async |disk: &MemoryDisk| {
        write(disk, "a", b"abc").await.unwrap();
        disk.sync_dir(Path::new(DIR)).await.unwrap();
        disk.rename(Path::new("/d/a"), Path::new("/d/b")).await.unwrap();
    };
    assert_eq!(
        after_power_loss(synced, look),
        ["a", "b"],
        "a rename is done or not"
    );
    let whole = async |disk: &MemoryDisk| {
        disk.write_file(Path::new("/d/a"), b"old").await.unwrap();
        disk.remove_file(Path::new("/d/a")).await.unwrap();
    };
    assert_eq!(after_power_loss(whole, look), ["", "a"], "a removal is undone");
}

#[test]
fn a_power_loss_may_tear_what_was_not_synced_at_sectors() {
    let look = |disk: &MemoryDisk| {
        let content = disk.content(Path::new("/d/log")).unwrap();
        let sectors = content.chunks(512).map(|sector| match sector {
            [1, .., 1] => 'n',
            [0, .., 0] => 'o',
            _ => '?',
        });
        sectors.collect()
    };
    let prepare = async |disk: &MemoryDisk| {
        let segment = disk.create_segment(Path::new("/d/log"), 1024).await.unwrap();
        segment.sync().await.unwrap();
        segment.write(0, &[1; 1024]);
    };
    assert_eq!(after_power_loss(prepare, look), ["nn", "no", "on", "oo"]);
    let synced = async |disk: &MemoryDisk| {
        prepare(disk).await;
        let path = Path::new("/d/log");
        disk.recycle_segment(path, path, 1024).await.unwrap();
    };
    assert_eq!(after_power_loss(synced, look), ["oo"]);
}

#[test]
fn a_recycled_segment_has_a_zero_head_and_its_old_content() {
    let look = |disk: &MemoryDisk| {
        let content = disk.content(Path::new("/d/log")).unwrap();
        let [head, old, new] = [0, 4096, 8192].map(|at| &content[at..at + 4096]);
        assert!(head.iter().all(|byte| *byte == 0) && old.iter().all(|byte| *byte == 1));
        match new.iter().all(|byte| *byte == 0) {
            true => "ok".to_owned(),
            false => "not zero".to_owned(),
        }
    };
    let recycled = async |disk: &MemoryDisk| {
        let path = Path::new("/d/log");
        let segment = disk.create_segment(path, 8192).await.unwrap();
        segment.write(0, &[1; 8192]);
        segment.sync().await.unwrap();
        disk.recycle_segment(path, path, 12288).await.unwrap();
    };
    assert_eq!(after_power_loss(recycled, look), ["ok"]);
}

#[test]
fn what_a_failed_sync_dropped_no_later_sync_saves() {
    let (mut lost, mut saved) = (0, 0);
    for seed in 0..40 {
        let (disk, env) = machine(seed);
        env.block_on(async {
            let segment = disk.create_segment(Path::new("/d/log"), 512).await.unwrap();
            segment.sync().await.unwrap();
            segment.write(0, &[7; 512]);
            disk.inject(Fault {
                operation: Operation::Sync,
                path_contains: "log".to_owned(),
                kind: ErrorKind::Other,
                count: 1,
            });
            segment.sync().await.unwrap_err();
            segment.sync().await.unwrap();
        })
        .unwrap();
        assert_eq!(
            disk.content(Path::new("/d/log")).unwrap(),
            [7; 512],
            "still cached"
        );
        env.kill();
        disk.restart_after_power_loss();
        match disk.content(Path::new("/d/log")).unwrap()[0] {
            0 => lost += 1,
            _ => saved += 1,
        }
    }
    assert!(lost > 0 && saved > 0, "{lost} lost, {saved} saved");
}

#[test]
fn a_composite_call_fails_between_any_two_of_its_operations() {
    let mut ends = Vec::new();
    for operation in 0..6 {
        let (disk, env) = machine(3);
        env.block_on(async {
            disk.write_file(Path::new("/d/a"), b"old").await.unwrap();
            disk.fail_operation(disk.operations() + operation, ErrorKind::Other);
            let result = disk.write_file(Path::new("/d/a"), b"new").await;
            let content = disk.content(Path::new("/d/a")).unwrap();
            ends.push((result.is_ok(), String::from_utf8(content).unwrap()));
            assert_eq!(names(&disk), ["a"], "nothing temporary stays");
        })
        .unwrap();
    }
    let end = |is_ok, content: &str| (is_ok, content.to_owned());
    let (old, new) = (end(false, "old"), end(false, "new"));
    // The last is the folder's sync: the new content is there, but perhaps not for long.
    assert_eq!(
        ends,
        [old.clone(), old.clone(), old.clone(), old, new, end(true, "new")]
    );
}

#[test]
fn flaws_hit_as_often_as_told_and_stick() {
    let (disk, env) = machine(4);
    disk.weaken(Flaw {
        operations: vec![Operation::Read],
        path_contains: "bad".to_owned(),
        kind: ErrorKind::Other,
        per_million: 300_000,
        is_sticky: true,
    });
    env.block_on(async {
        write(&disk, "bad", b"abc").await.unwrap();
        write(&disk, "good", b"abc").await.unwrap();
        let read = async |name: &str| disk.read_file(&Path::new(DIR).join(name), 9).await.is_ok();
        let mut results = Vec::new();
        for _ in 0..30 {
            assert!(read("good").await);
            results.push(read("bad").await);
        }
        let first = results.iter().position(|is_ok| !is_ok).unwrap();
        assert!(results[first..].iter().all(|is_ok| !is_ok));
        disk.clear_faults();
        assert!(read("bad").await);
    })
    .unwrap();
}

#[test]
fn rot_on_reads_leaves_the_file_whole() {
    let (disk, env) = machine(5);
    disk.rot_reads("a", 500_000);
    env.block_on(async {
        write(&disk, "a", b"abc").await.unwrap();
        let mut wrong = 0;
        for _ in 0..100 {
            let found = disk.read_file(Path::new("/d/a"), 9).await.unwrap();
            let bits: u32 = found.iter().zip(b"abc").map(|(a, b)| (a ^ b).count_ones()).sum();
            assert!(bits <= 1);
            wrong += bits;
        }
        assert!((20..80).contains(&wrong), "{wrong}");
    })
    .unwrap();
    assert_eq!(disk.content(Path::new("/d/a")).unwrap(), b"abc");
    let (path, offset, mask) = disk.rot_file("/d/").unwrap();
    assert_ne!(disk.content(&path).unwrap(), b"abc");
    disk.flip(&path, offset, mask);
    assert_eq!(disk.content(&path).unwrap(), b"abc");
}

#[test]
fn a_full_disk_refuses_what_does_not_fit() {
    let (disk, env) = machine(6);
    disk.set_capacity(1000);
    env.block_on(async {
        write(&disk, "a", &[1; 600]).await.unwrap();
        let error = write(&disk, "b", &[1; 600]).await.unwrap_err();
        assert!(error.is_disk_full());
        let error = disk.create_segment(Path::new("/d/log"), 600).await.err().unwrap();
        assert!(error.is_disk_full());
        assert_eq!(disk.free_space(Path::new(DIR)).await.unwrap(), 400);
        disk.hard_link(Path::new("/d/a"), Path::new("/d/c"))
            .await
            .unwrap();
        assert_eq!(disk.used(), 600, "a second name takes no space");
    })
    .unwrap();
    assert_eq!(names(&disk), ["a", "b", "c"]);
}

#[test]
fn operations_take_virtual_time_and_a_seed_decides_how_much() {
    let run = |seed| {
        let (disk, env) = machine(seed);
        disk.set_latency(Some(Latency {
            stalls_per_million: 500_000,
            stall: Duration::from_secs(1),
            ..Latency::SOLID_STATE
        }));
        env.block_on(async {
            for _ in 0..10 {
                write(&disk, "a", b"abc").await.unwrap();
            }
        })
        .unwrap();
        let next = env.reboot(seed);
        assert_eq!(next.elapsed(), env.elapsed(), "time goes on");
        (env.elapsed(), env.trace())
    };
    assert!(run(1).0 > Duration::from_secs(1));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
