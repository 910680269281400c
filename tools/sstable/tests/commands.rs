//! The commands on copies of fixtures: what they print, and the exit status.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "reads and damages files"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// A copy of a fixture in a folder of its own, removed when dropped.
struct Copy {
    dir: PathBuf,
}

impl Copy {
    fn of(fixture: &str, name: &str) -> Copy {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/a")
            .join(fixture);
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let dir = dir.join("readings-00000000000000000000000000000001");
        fs::create_dir_all(&dir).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "jsonl") {
                fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
            }
        }
        Copy { dir }
    }

    fn file(&self, component: &str) -> PathBuf {
        self.dir.join(format!("ceto-a-0-1-{component}"))
    }

    fn flip(&self, component: &str, at: usize) {
        let mut bytes = fs::read(self.file(component)).unwrap();
        bytes[at] ^= 8;
        fs::write(self.file(component), bytes).unwrap();
    }

    /// Runs a command on the folder.
    fn run(&self, arguments: &[&str]) -> (u8, String, String) {
        let dir = self.dir.to_str().unwrap();
        run(&[arguments, &[dir]].concat())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.dir.parent().unwrap());
    }
}

fn run(arguments: &[&str]) -> (u8, String, String) {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let arguments = arguments.iter().map(Into::into).collect();
    let status = ceto_sstable::run_with(arguments, &mut out, &mut errors);
    (
        status,
        String::from_utf8(out).unwrap(),
        String::from_utf8(errors).unwrap(),
    )
}

#[test]
fn misuse_is_one_line_and_status_2() {
    for arguments in [
        &["frobnicate"][..],
        &["dump"],
        &["verify", "/nosuch"],
        &["stats", "/"],
        &["dump", "/etc/hostname"],
        &["scrub", "--frobnicate", "/"],
    ] {
        let (status, out, errors) = run(arguments);
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
    }
    let (status, out, errors) = run(&["--help"]);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert!(out.contains("scrub"));
}

#[test]
fn dump_takes_keys_a_folder_or_a_file() {
    let copy = Copy::of("lz4", "dump");
    let (status, out, _) = copy.run(&["dump"]);
    assert_eq!((status, out.lines().count()), (0, 5));
    let data = copy.file("Data.db");
    assert_eq!(run(&["dump", data.to_str().unwrap()]).1, out);
    let (_, keys, _) = copy.run(&["dump", "-e"]);
    assert_eq!(keys.lines().next(), Some("[\"sensor-3\"]"));
    let (_, one, _) = copy.run(&["dump", "-k", "sensor-2"]);
    assert_eq!(one.lines().count(), 1);
    assert!(one.starts_with("{\"partition\":{\"key\":[\"sensor-2\"]"), "{one}");
    let (_, others, _) = copy.run(&["dump", "-x", "sensor-2"]);
    assert_eq!(others.lines().count(), 4);
    assert!(!others.contains("sensor-2"));
    let (_, raw, _) = copy.run(&["dump", "-t"]);
    assert!(raw.contains("\"tstamp\":\"1700000000000000\""), "{raw}");
}

#[test]
fn verify_names_file_and_offset() {
    let copy = Copy::of("zstd", "verify");
    let (status, out, _) = copy.run(&["verify"]);
    assert_eq!(status, 0);
    assert!(out.ends_with("ceto-a-0-1: ok\n"), "{out}");
    copy.flip("Data.db", 300);
    let (status, out, _) = copy.run(&["verify"]);
    assert_eq!(status, 1);
    let data = copy.file("Data.db");
    assert!(
        out.contains(&format!("corrupt file {} at offset ", data.display())),
        "{out}"
    );
    let (status, _, errors) = copy.run(&["dump"]);
    assert_eq!(status, 1);
    assert!(errors.contains("Data.db at offset"), "{errors}");
}

#[test]
fn scrub_says_what_it_saved_and_what_is_lost() {
    let copy = Copy::of("lz4", "scrub");
    let before = copy.run(&["dump"]).1;
    copy.flip("Data.db", 500);
    let (status, out, errors) = copy.run(&["scrub"]);
    assert_eq!((status, errors.as_str()), (1, ""));
    assert!(
        out.contains("of 5 partitions and 40 rows as ceto-a-0-2;"),
        "{out}"
    );
    assert!(
        out.contains("\nlost: ") && out.contains("Data.db at offset"),
        "{out}"
    );
    assert_eq!(copy.run(&["verify"]).0, 0);
    let after = copy.run(&["dump"]).1;
    let kept: Vec<&str> = after.lines().collect();
    assert!(!kept.is_empty() && kept.len() < 6);
    // Partitions outside the damaged block are as they were.
    let same = kept.iter().filter(|line| before.lines().any(|old| old == **line));
    assert!(same.count() >= 3, "{after}");
    assert!(copy.dir.join("pre-scrub/ceto-a-0-1-Data.db").exists());
    let (status, out, _) = copy.run(&["scrub"]);
    assert_eq!(status, 0, "{out}");
    assert_eq!(copy.run(&["dump"]).1, after);
}

#[test]
fn stats_tell_what_sstablemetadata_tells() {
    let copy = Copy::of("everything", "stats");
    let (status, out, _) = copy.run(&["stats", "-g", "0"]);
    assert_eq!(status, 0);
    for line in [
        "Origin: flush",
        "SSTable Level: 0",
        "Repaired at: never",
        "Minimum timestamp: 1700000000000001 (2023-11-14T22:13:20.000001Z)",
        "TTL min: 60",
        "TTL max: 600000000",
        "First token: -7580726597297584863 (2:ttl)",
        "Minimum clustering: [9, \"deleted\"]",
        "Partitions: 4",
        "Partition tombstones: 1",
        "Compressor: LZ4Compressor",
        "Bloom Filter FP chance: 1",
        "Keyspace: fixtures",
        "Partition key: a int, b text",
        "Clustering columns: c int desc, d text",
    ] {
        assert!(out.lines().any(|own| own == line), "{line} in\n{out}");
    }
    assert!(!out.contains("Filter.db"));
}
