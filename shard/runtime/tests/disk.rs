//! Files and commitlog segments on a real file system.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::disk::DirEntry;
use ceto_env::{Disk, TaskQueue};
use support::{run, run_with};
use tempfile::TempDir;

/// A folder on the disk that is built on, where O_DIRECT works; or in memory, where it may not.
fn folder(place: &str) -> TempDir {
    TempDir::new_in(place).unwrap()
}

const PLACES: [&str; 2] = [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"];

fn with_disk<T, R>(place: &str, test: impl Fn(Rc<dyn Disk>, PathBuf) -> R + Send + Sync + 'static) -> T
where
    T: Send + 'static,
    R: Future<Output = T> + 'static,
{
    let folder = folder(place);
    let path = folder.path().to_path_buf();
    run(move |context| test(context.env.disk(), path.clone()))
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|place| ((place * 31 + seed * 17 + (place >> 8)) % 251) as u8)
        .collect()
}

#[test]
fn what_was_written_is_read_at_any_offset() {
    for place in PLACES {
        with_disk(place, |disk, folder| async move {
            for (number, size) in [0, 1, 511, 4096, 4097, 128 << 10, (128 << 10) + 1, 3_000_017]
                .into_iter()
                .enumerate()
            {
                let path = folder.join(format!("file-{number}"));
                let content = pattern(size, number);
                let mut file = disk.create(&path).await.unwrap();
                // In pieces of many sizes.
                let (mut rest, mut step) = (&content[..], 1);
                while !rest.is_empty() {
                    let count = step.min(rest.len());
                    file.append(&rest[..count]).await.unwrap();
                    rest = &rest[count..];
                    step = step * 3 + 1;
                    assert_eq!(file.position(), (size - rest.len()) as u64);
                }
                assert_eq!(file.finish().await.unwrap(), size as u64);
                assert_eq!(std::fs::read(&path).unwrap(), content);
                let file = disk.open(&path).await.unwrap();
                assert_eq!(file.size(), size as u64);
                assert_eq!(file.read_at(0, size).await.unwrap(), content);
                for (offset, length) in [(0, 1), (1, 4095), (4095, 2), (size / 2, size / 3), (size / 7, 0)] {
                    if offset + length <= size {
                        let got = file.read_at(offset as u64, length).await.unwrap();
                        assert_eq!(got, content[offset..offset + length]);
                    }
                }
                for (offset, length) in [(0, size + 1), (size, 1), (usize::MAX, 1), (1, usize::MAX)] {
                    let error = file.read_at(offset as u64, length).await.unwrap_err();
                    assert_eq!(error.source.kind(), ErrorKind::UnexpectedEof);
                }
            }
        });
    }
}

#[test]
fn many_reads_at_once() {
    with_disk(PLACES[0], |disk, folder| async move {
        let path = folder.join("file");
        let content = Rc::new(pattern(2 << 20, 4));
        let mut file = disk.create(&path).await.unwrap();
        file.append(&content).await.unwrap();
        file.finish().await.unwrap();
        let file = disk.open(&path).await.unwrap();
        let mut reads = Vec::new();
        for number in 0..500 {
            let (offset, length) = (number * 4001 % 2_000_000, number * 37 % 9000);
            reads.push((offset, length, file.read_at(offset as u64, length)));
        }
        // Started together on their first poll, dropped unread for every tenth.
        for (number, (offset, length, read)) in reads.into_iter().enumerate() {
            if number % 10 != 0 {
                assert_eq!(read.await.unwrap(), content[offset..offset + length]);
            }
        }
    });
}

#[test]
fn a_dropped_read_leaves_its_buffer_with_the_kernel() {
    with_disk(PLACES[0], |disk, folder| async move {
        let path = folder.join("file");
        std::fs::write(&path, pattern(1 << 20, 2)).unwrap();
        let file = disk.open(&path).await.unwrap();
        for _ in 0..200 {
            let mut read = file.read_at(0, 1 << 20);
            std::future::poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        assert_eq!(file.read_at(5, 100).await.unwrap(), pattern(1 << 20, 2)[5..105]);
    });
}

#[test]
fn folders_names_and_small_files() {
    with_disk(PLACES[0], |disk, folder| async move {
        let deep = folder.join("a/b/c");
        disk.create_dir_all(&deep).await.unwrap();
        disk.create_dir_all(&deep).await.unwrap();
        disk.write_file(&deep.join("two"), b"second").await.unwrap();
        disk.write_file(&deep.join("one"), b"first").await.unwrap();
        disk.write_file(&deep.join("one"), b"first again").await.unwrap();
        disk.create_dir_all(&deep.join("folder")).await.unwrap();
        let entry = |name: &str, is_dir, size| DirEntry {
            name: name.to_owned(),
            is_dir,
            size,
        };
        assert_eq!(
            disk.list_dir(&deep).await.unwrap(),
            [
                entry("folder", true, 0),
                entry("one", false, 11),
                entry("two", false, 6)
            ]
        );
        assert_eq!(
            disk.read_file(&deep.join("one"), 11).await.unwrap(),
            &b"first again"[..]
        );
        let error = disk.read_file(&deep.join("one"), 10).await.unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::FileTooLarge);
        disk.rename(&deep.join("two"), &deep.join("one")).await.unwrap();
        disk.hard_link(&deep.join("one"), &deep.join("three"))
            .await
            .unwrap();
        disk.remove_file(&deep.join("one")).await.unwrap();
        assert_eq!(
            disk.read_file(&deep.join("three"), 100).await.unwrap(),
            &b"second"[..]
        );
        disk.sync_dir(&deep).await.unwrap();
        assert!(disk.remove_dir(&deep).await.is_err(), "not empty");
        disk.remove_dir(&deep.join("folder")).await.unwrap();
        assert!(disk.free_space(&deep).await.unwrap() > 1 << 20);
        for error in [
            disk.open(&deep.join("none")).await.err().unwrap(),
            disk.read_file(&deep.join("none"), 1).await.unwrap_err(),
            disk.remove_file(&deep.join("none")).await.unwrap_err(),
            disk.list_dir(&deep.join("none")).await.unwrap_err(),
        ] {
            assert!(error.is_not_found(), "{error}");
            assert!(error.to_string().contains("none"), "{error}");
        }
        assert!(disk.open(&deep).await.is_err(), "a folder is no file");
    });
}

#[test]
fn segments_are_zero_written_in_place_and_reused() {
    for place in PLACES {
        with_disk(place, |disk, folder| async move {
            const SIZE: u64 = 3 << 20;
            let path = folder.join("segment-1");
            let segment = disk.create_segment(&path, SIZE).await.unwrap();
            assert_eq!(segment.size(), SIZE);
            assert_eq!(std::fs::read(&path).unwrap(), vec![0; SIZE as usize]);
            segment.write(0, b"begin");
            segment.write(SIZE - 3, b"end");
            segment.write(SIZE, b"");
            segment.sync().await.unwrap();
            let content = std::fs::read(&path).unwrap();
            assert_eq!(
                (&content[..5], &content[SIZE as usize - 3..]),
                (&b"begin"[..], &b"end"[..])
            );
            let error = disk.create_segment(&path, SIZE).await.err().unwrap();
            assert_eq!(
                error.source.kind(),
                ErrorKind::AlreadyExists,
                "never over another segment"
            );
            let next = folder.join("segment-2");
            // Larger, smaller, and while the first mapping is still there.
            for (from, to, size) in [(&path, &next, SIZE + 8192), (&next, &path, SIZE - 1)] {
                let again = disk.recycle_segment(from, to, size).await.unwrap();
                let mut expected = vec![0; size as usize];
                if size > SIZE {
                    expected[SIZE as usize - 3..SIZE as usize].copy_from_slice(b"end");
                } else {
                    expected[SIZE as usize - 3..].copy_from_slice(b"en");
                }
                assert!(
                    std::fs::read(to).unwrap() == expected,
                    "the head is zero, the rest as it was"
                );
                assert!(!from.exists());
                again.write(7, b"again");
                again.sync().await.unwrap();
                assert_eq!(&std::fs::read(to).unwrap()[7..12], b"again");
            }
        });
    }
}

#[test]
fn a_segment_too_large_for_the_disk_is_refused_and_leaves_nothing() {
    with_disk(PLACES[1], |disk, folder| async move {
        let path = folder.join("segment");
        let free = disk.free_space(&folder).await.unwrap();
        let error = disk.create_segment(&path, free + (64 << 20)).await.err().unwrap();
        assert!(error.is_disk_full(), "{error}");
        assert!(!path.exists());
        let segment = disk.create_segment(&path, 4096).await.unwrap();
        segment.write(0, b"there is room again");
    });
}

#[test]
fn a_write_outside_a_segment_is_our_bug() {
    let folder = folder(PLACES[0]);
    let path = folder.path().join("segment");
    let runtime = ceto_runtime::start::<u64, _>(&support::options(1), move |context| {
        let path = path.clone();
        Box::pin(async move {
            let segment = context.env.disk().create_segment(&path, 4096).await.unwrap();
            segment.write(4090, b"too long");
        })
    });
    assert!(runtime.unwrap().join().is_err());
}

#[test]
fn files_are_served_while_tasks_are_busy() {
    let folder = folder(PLACES[0]);
    let path = folder.path().to_path_buf();
    let median = run_with(&support::options(1), move |context| {
        let path = path.join("file");
        async move {
            let disk = context.env.disk();
            let mut file = disk.create(&path).await.unwrap();
            file.append(&pattern(1 << 20, 1)).await.unwrap();
            file.finish().await.unwrap();
            let file = disk.open(&path).await.unwrap();
            let stop = Rc::new(std::cell::Cell::new(false));
            let (stopped, env) = (Rc::clone(&stop), Rc::clone(&context.env));
            context.env.tasks().spawn(
                TaskQueue::Compaction,
                Box::pin(async move {
                    while !stopped.get() {
                        if let Some(turn) = env.tasks().yield_if_due() {
                            turn.await;
                        }
                    }
                }),
            );
            let mut times = Vec::new();
            for number in 0..100_u64 {
                let started = std::time::Instant::now();
                file.read_at(number * 8192, 4096).await.unwrap();
                times.push(started.elapsed());
            }
            stop.set(true);
            times.sort();
            times[50]
        }
    });
    assert!(
        median[0] < Duration::from_millis(20),
        "median read beside a busy queue: {:?}",
        median[0]
    );
}
