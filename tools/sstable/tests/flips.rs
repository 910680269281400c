//! The damage campaign over the sstables of every released version: whichever byte of whichever file is flipped, and
//! wherever a file is cut, `verify` names the file, and what is read is right or an error that names the file too.
//!
//! A test takes a sample of the places; with `CETO_EXHAUSTIVE` set, all of them.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "reads files")]

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ceto_env::Env;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::{DecoratedKey, ReadTarget};
use ceto_storage::offline::{SstableFiles, Visit, find, verify};
use ceto_storage::{Component, Descriptor, Error, Fragment};

/// Places of each file.
const SAMPLE: usize = 12;
/// Partitions of each table that are looked up.
const LOOKUPS: usize = 5;

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    };
    let versions = folders(&root);
    versions.iter().flat_map(|version| folders(version)).collect()
}

/// The fixture's files, on a disk that can be damaged.
fn load(dir: &Path) -> (Rc<MemoryDisk>, PathBuf) {
    let (disk, to) = (MemoryDisk::new(1), PathBuf::from("/tables"));
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        disk.set_content(&to.join(path.file_name().unwrap()), fs::read(&path).unwrap());
    }
    (disk, to)
}

/// All of it, and some partitions looked up by key.
async fn content(
    env: &Rc<MemoryEnv>,
    descriptor: &Descriptor,
    keys: &[DecoratedKey],
) -> Result<Vec<Vec<Fragment>>, Error> {
    let files = SstableFiles::open(env.clone(), descriptor.clone()).await?;
    let mut all = Vec::new();
    for key in std::iter::once(None).chain(keys.iter().map(Some)) {
        let mut fragments = Vec::new();
        let visit = |fragment| {
            fragments.push(fragment);
            Visit::Go
        };
        match key {
            None => files.visit_all(visit).await?,
            Some(key) => files.visit(&ReadTarget::Partition(key.clone()), visit).await?,
        }
        all.push(fragments);
    }
    Ok(all)
}

struct Table {
    disk: Rc<MemoryDisk>,
    env: Rc<MemoryEnv>,
    descriptor: Descriptor,
    keys: Vec<DecoratedKey>,
    intact: Vec<Vec<Fragment>>,
}

impl Table {
    async fn check(&self, file: &Path, damaged: Vec<u8>, context: &str) {
        let intact = self.disk.content(file).unwrap();
        self.disk.set_content(file, damaged);
        let names = |error: &Error| error.to_string().contains(&*file.to_string_lossy());
        let faults = verify(self.env.clone(), &self.descriptor).await;
        assert!(faults.iter().any(names), "{context}: {faults:?}");
        match content(&self.env, &self.descriptor, &self.keys).await {
            Ok(found) => assert!(found == self.intact, "{context}: another answer"),
            Err(error) => assert!(names(&error), "{context}: {error}"),
        }
        self.disk.set_content(file, intact);
    }
}

#[test]
fn damage_in_released_sstables_is_noticed_or_harmless() {
    let is_whole = std::env::var_os("CETO_EXHAUSTIVE").is_some();
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut below = move |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % bound
    };
    let mut flips = 0;
    for dir in fixtures() {
        let (disk, folder) = load(&dir);
        let env = MemoryEnv::new(disk.clone(), 1);
        let done = env.block_on(async {
            env.disk().create_dir_all(&folder).await.unwrap();
            for descriptor in find(&*env.disk(), &folder).await.unwrap() {
                let mut keys = Vec::new();
                let files = SstableFiles::open(env.clone(), descriptor.clone()).await.unwrap();
                let visit = |fragment| {
                    if let Fragment::PartitionStart(key, _) = fragment {
                        keys.push(key);
                    }
                    Visit::SkipPartition
                };
                files.visit_all(visit).await.unwrap();
                let step = keys.len().div_ceil(LOOKUPS).max(1);
                let keys: Vec<DecoratedKey> = keys.into_iter().step_by(step).collect();
                let intact = content(&env, &descriptor, &keys).await.unwrap();
                assert!(verify(env.clone(), &descriptor).await.is_empty());
                let table = Table {
                    disk: disk.clone(),
                    env: env.clone(),
                    descriptor: descriptor.clone(),
                    keys,
                    intact,
                };
                for component in Component::ALL {
                    let file = descriptor.path(component);
                    let Some(content) = disk.content(&file) else {
                        continue;
                    };
                    let places: Vec<usize> = if is_whole {
                        (0..content.len()).collect()
                    } else {
                        let random = (0..SAMPLE).map(|_| below(content.len()));
                        random.chain([0, content.len() - 1]).collect()
                    };
                    for at in places {
                        let context = format!("{}: {}", dir.display(), file.display());
                        let mut damaged = content.clone();
                        damaged[at] ^= 1 << below(8);
                        table
                            .check(&file, damaged, &format!("{context}, byte {at}"))
                            .await;
                        let cut = content[..at].to_vec();
                        table.check(&file, cut, &format!("{context}, cut to {at}")).await;
                        flips += 1;
                    }
                }
            }
        });
        assert!(done.is_some(), "{} stands still", dir.display());
    }
    assert!(flips > 500, "{flips}");
}
