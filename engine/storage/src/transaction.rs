//! Replacing sstables by others, all or nothing.
//!
//! The new sstables are written in full but for their tables of contents. Then one small file is written that names
//! new and old ones: that is the commit. Then the tables of contents are written, the old files removed when no
//! reader needs them, and at last the small file. A start that finds it finishes the rest; a start that does not find
//! it removes the new sstables, which have no contents.
//!
//! ```text
//! ceto-<shard>-<number>.txn ::= ("new " prefix "\n")* ("old " prefix "\n")* "# " xxh3 in hex of all before it "\n"
//! ```

use std::cell::Cell;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ceto_env::{Disk, Env, TaskQueue};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::sstable::{Component, Descriptor, remove_files, write_toc};

/// Largest transaction file, in bytes.
const SIZE_MAX: u64 = 16 << 20;

/// Why a replacement did not happen.
pub(crate) enum CommitFailure {
    /// Everything is as before; the new sstables may be removed.
    RolledBack(Error),
    /// Nobody knows whether it happened: no file may be touched until the next start finds out.
    Uncertain(Error),
}

/// A committed replacement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transaction {
    path: PathBuf,
    new: Vec<Descriptor>,
    old: Vec<Descriptor>,
}

/// Keeps the transaction's file until the old sstables' files are gone: held by each of them.
pub(crate) struct Pending {
    path: PathBuf,
    env: Rc<dyn Env>,
    is_removed: Cell<bool>,
}

impl Pending {
    /// Removes the file now: the old sstables' files are gone.
    pub(crate) async fn remove_file(&self) -> Result<()> {
        self.is_removed.set(true);
        Ok(self.env.disk().remove_file(&self.path).await?)
    }
}

impl Transaction {
    /// Commits: after it the new sstables count and the old ones do not.
    pub(crate) async fn commit(
        env: &Rc<dyn Env>,
        path: PathBuf,
        new: Vec<Descriptor>,
        old: Vec<Descriptor>,
    ) -> std::result::Result<Rc<Pending>, CommitFailure> {
        let disk = env.disk();
        let transaction = Transaction { path, new, old };
        match transaction.write(&*disk).await {
            Ok(()) => Ok(Rc::new(Pending {
                path: transaction.path,
                env: env.clone(),
                is_removed: Cell::new(false),
            })),
            Err(error) => match transaction.roll_back(&*disk).await {
                Ok(()) => Err(CommitFailure::RolledBack(error)),
                Err(_) => Err(CommitFailure::Uncertain(error)),
            },
        }
    }

    async fn write(&self, disk: &dyn Disk) -> Result<()> {
        disk.write_file(&self.path, self.encode().as_bytes()).await?;
        self.write_tocs(disk).await
    }

    /// Takes the file back: while it is there a start would finish the replacement.
    async fn roll_back(&self, disk: &dyn Disk) -> Result<()> {
        match disk.remove_file(&self.path).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        let dir = self
            .path
            .parent()
            .expect("a transaction lies in a table's folder");
        Ok(disk.sync_dir(dir).await?)
    }

    /// The sstables that a committed transaction puts others in place of.
    pub(crate) async fn replaced_by(disk: &dyn Disk, path: &Path) -> Result<Vec<Descriptor>> {
        match Transaction::read(disk, path).await {
            Err(Error::Disk(error)) if error.is_not_found() => Ok(Vec::new()),
            transaction => Ok(transaction?.old),
        }
    }

    /// Finishes one that a crash interrupted.
    pub(crate) async fn finish(disk: &dyn Disk, path: &Path) -> Result<()> {
        let transaction = Transaction::read(disk, path).await?;
        transaction.write_tocs(disk).await?;
        for old in &transaction.old {
            remove_files(disk, old).await?;
        }
        disk.remove_file(path).await?;
        Ok(())
    }

    /// New sstables that are complete get their contents (a later transaction may have removed some already, or have
    /// begun to: the digest goes first of all but the contents).
    async fn write_tocs(&self, disk: &dyn Disk) -> Result<()> {
        for descriptor in &self.new {
            let digest = disk.open(&descriptor.path(Component::Digest)).await;
            match digest {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => write_toc(disk, descriptor).await?,
            }
        }
        Ok(())
    }

    async fn read(disk: &dyn Disk, path: &Path) -> Result<Transaction> {
        let bytes = disk.read_file(path, SIZE_MAX).await?;
        Transaction::decode(&bytes, path)
            .ok_or_else(|| Error::corrupt(path, 0, "transaction file is not what it should be"))
    }

    fn encode(&self) -> String {
        let mut text = String::new();
        for (word, descriptors) in [("new", &self.new), ("old", &self.old)] {
            for descriptor in descriptors {
                writeln!(text, "{word} {}", descriptor.prefix()).expect("a string takes any text");
            }
        }
        let checksum = xxh3_64(text.as_bytes());
        writeln!(text, "# {checksum:016x}").expect("a string takes any text");
        text
    }

    fn decode(bytes: &[u8], path: &Path) -> Option<Transaction> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (content, checksum) = text.strip_suffix('\n')?.rsplit_once("# ")?;
        if format!("{:016x}", xxh3_64(content.as_bytes())) != checksum {
            return None;
        }
        let dir = path.parent()?;
        let mut transaction = Transaction {
            path: path.to_path_buf(),
            new: Vec::new(),
            old: Vec::new(),
        };
        for line in content.lines() {
            let (word, prefix) = line.split_once(' ')?;
            let (descriptor, _) = Descriptor::parse(dir, &format!("{prefix}-"))?;
            match word {
                "new" => transaction.new.push(descriptor),
                "old" => transaction.old.push(descriptor),
                _ => return None,
            }
        }
        Some(transaction)
    }
}

/// Name of a transaction file.
pub(crate) fn file_name(shard: u16, number: u64) -> String {
    format!("ceto-{shard}-{number}.txn")
}

/// Shard and number in a transaction file's name.
pub(crate) fn parse_file_name(name: &str) -> Option<(u16, u64)> {
    let (shard, number) = name
        .strip_prefix("ceto-")?
        .strip_suffix(".txn")?
        .split_once('-')?;
    Some((shard.parse().ok()?, number.parse().ok()?))
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_removed.get() {
            return;
        }
        let (disk, path) = (self.env.disk(), self.path.clone());
        let removal = async move {
            if let Err(error) = disk.remove_file(&path).await {
                tracing::warn!("cannot remove a finished transaction's file: {error}");
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(removal));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sstable::Generation;

    #[test]
    fn the_file_round_trips_and_damage_is_noticed() {
        let descriptor = |generation| Descriptor {
            dir: "/data/ks/t".into(),
            shard: 1,
            generation: Generation(generation),
        };
        let path = PathBuf::from("/data/ks/t").join(file_name(1, 9));
        let transaction = Transaction {
            path: path.clone(),
            new: vec![descriptor(9)],
            old: vec![descriptor(3), descriptor(4)],
        };
        let text = transaction.encode();
        assert_eq!(Transaction::decode(text.as_bytes(), &path).unwrap(), transaction);
        assert_eq!(parse_file_name("ceto-1-9.txn"), Some((1, 9)));
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 2;
            assert_eq!(Transaction::decode(&damaged, &path), None);
            assert_eq!(Transaction::decode(&text.as_bytes()[..at], &path), None);
        }
    }
}
