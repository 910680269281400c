//! Sstables of every released version of the format are read for ever, and show what they always showed.
//!
//! The files were written by `examples/write_fixtures.rs` and never change.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "reads files")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ceto_env::Env;
use ceto_model::UnixSeconds;
use ceto_sstable::{DumpOptions, FileEnv, dump};
use ceto_storage::offline::{SstableFiles, Visit, find, verify};
use ceto_storage::{Codec, Component, Fragment};

/// The moment that the golden texts are of.
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    };
    let mut all: Vec<PathBuf> = folders(&root)
        .iter()
        .flat_map(|version| folders(version))
        .collect();
    all.sort();
    all
}

#[test]
fn fixtures_show_what_they_always_showed() {
    let env = FileEnv::new();
    let fixtures = fixtures();
    assert!(fixtures.len() >= 10, "{fixtures:?}");
    for dir in fixtures {
        FileEnv::block_on(async {
            let mut out = Vec::new();
            for descriptor in find(&*env.disk(), &dir).await.unwrap() {
                let faults = verify(env.clone(), &descriptor).await;
                assert!(faults.is_empty(), "{faults:?}");
                let files = SstableFiles::open(env.clone(), descriptor).await.unwrap();
                dump(&files, &DumpOptions::default(), NOW, &mut out)
                    .await
                    .unwrap();
            }
            let golden = fs::read_to_string(dir.join("dump.jsonl")).unwrap();
            let shown = String::from_utf8(out).unwrap();
            for (number, (shown, golden)) in shown.lines().zip(golden.lines()).enumerate() {
                assert_eq!(shown, golden, "{} line {}", dir.display(), number + 1);
            }
            assert_eq!(shown.len(), golden.len(), "{}", dir.display());
        });
    }
}

#[test]
fn fixtures_have_everything_that_the_format_has() {
    let env = FileEnv::new();
    let mut codecs = BTreeSet::new();
    let (mut dictionaries, mut unfiltered) = (0, 0);
    let (statics, ranges, partitions) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let mut ttls = 0;
    for dir in fixtures() {
        FileEnv::block_on(async {
            for descriptor in find(&*env.disk(), &dir).await.unwrap() {
                let has = |component| descriptor.path(component).exists();
                dictionaries += u32::from(has(Component::Dictionary));
                unfiltered += u32::from(!has(Component::Filter));
                let files = SstableFiles::open(env.clone(), descriptor).await.unwrap();
                let statistics = files.statistics();
                codecs.insert(statistics.compression.codec.name());
                ttls += statistics.ttls.iter().sum::<u64>();
                files
                    .visit_all(|fragment| {
                        let count = match fragment {
                            Fragment::StaticRow(_) => &statics,
                            Fragment::DeletionChange(..) => &ranges,
                            Fragment::PartitionStart(_, Some(_)) => &partitions,
                            _ => return Visit::Go,
                        };
                        count.set(count.get() + 1);
                        Visit::Go
                    })
                    .await
                    .unwrap();
            }
        });
    }
    let all = [
        Codec::None,
        Codec::Lz4,
        Codec::Zstd,
        Codec::Snappy,
        Codec::Deflate,
        Codec::ZstdDictionary,
    ];
    assert_eq!(codecs, all.map(Codec::name).into());
    assert_eq!((dictionaries, unfiltered), (1, 1));
    assert!(statics.get() > 3 && ranges.get() > 8 && partitions.get() > 0 && ttls > 0);
}
