//! Snapshots and incremental backups: hard links to sstables, which never change.
//!
//! ```text
//! DATA/data/<keyspace>/<table>-<id>/
//!     snapshots/<tag>/    links to the table's sstables of all shards, schema.cql, and last manifest.json
//!     backups/            links to every sstable flushed while incremental backups were on
//! ```
//!
//! Invariants:
//! - Never copies data; a snapshot takes space only for what the table itself no longer has.
//! - The tables of a snapshot are of one moment of each shard: memtables are switched and sstables noted in one step.
//! - Never counts as whole without its manifest, which is written last and removed first.
//!
//! Read next: `manifest` for what is noted, `catalog` for listing and clearing.

mod catalog;
mod manifest;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ceto_env::Disk;
use ceto_model::TableId;

pub use catalog::SnapshotDetails;
pub use manifest::instant_text;
use manifest::{MANIFEST, Manifest};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::sstable::{Component, Descriptor, Sstable};
use crate::table::{Flushing, TableStore};

/// Folder of snapshots within a table's folder.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// Folder of incremental backups within a table's folder.
pub(crate) const BACKUPS: &str = "backups";
/// Largest manifest or schema that is read, in bytes.
const MANIFEST_MAX: u64 = 64 << 20;
/// The statement that makes the table again.
const SCHEMA: &str = "schema.cql";

/// What one shard has linked of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotPart {
    /// The table.
    pub table: TableId,
    /// Names of the Data files.
    pub files: Vec<String>,
}

/// What a snapshot's manifest says beside its files.
#[derive(Clone, Debug)]
pub struct SnapshotNote {
    /// When it was taken, in milliseconds since the epoch.
    pub created_at: i64,
    /// When it may be removed, likewise.
    pub expires_at: Option<i64>,
    /// The CQL that makes the table again.
    pub schema: String,
    /// First (exclusive) and last (inclusive) token of the ranges that the node held.
    pub token_ranges: Vec<(i64, i64)>,
}

/// A table at the moment of a snapshot.
struct Captured {
    table: Rc<TableStore>,
    sstables: Vec<Rc<Sstable>>,
    flushing: Vec<Flushing>,
}

impl Database {
    /// Links what this shard has of `tables` into their snapshot folders for `tag`. Tables that are not known are passed
    /// over. Without `flush` only what is in sstables already. `finish_snapshot` makes it count.
    pub async fn link_snapshot(
        &self,
        tables: &[TableId],
        tag: &str,
        flush: bool,
    ) -> Result<Vec<SnapshotPart>> {
        let captured: Vec<Captured> = tables
            .iter()
            .filter_map(|id| self.table(*id).ok())
            .map(|table| self.capture(table, flush))
            .collect();
        let mut parts = Vec::with_capacity(captured.len());
        for mut captured in captured {
            for flushing in std::mem::take(&mut captured.flushing) {
                self.wait_flushed(&captured.table, &flushing).await?;
                captured
                    .sstables
                    .extend(flushing.sstable.get().cloned().flatten());
            }
            parts.push(self.link(&captured, tag).await?);
        }
        Ok(parts)
    }

    fn capture(&self, table: Rc<TableStore>, flush: bool) -> Captured {
        if flush {
            self.start_flush(&table);
        }
        let (sstables, flushing) = {
            let view = table.view();
            let flushing = view.flushing.iter().filter(|_| flush).cloned().collect();
            (view.sstables.clone(), flushing)
        };
        Captured {
            table,
            sstables,
            flushing,
        }
    }

    async fn link(&self, captured: &Captured, tag: &str) -> Result<SnapshotPart> {
        let dir = snapshot_dir(&captured.table.dir, tag);
        let disk = self.env.disk();
        let mut part = SnapshotPart {
            table: captured.table.id,
            files: Vec::new(),
        };
        if captured.sstables.is_empty() {
            return Ok(part);
        }
        disk.create_dir_all(&dir).await?;
        for sstable in &captured.sstables {
            link_sstable(&*disk, &sstable.descriptor, &dir).await?;
            part.files.push(format!(
                "{}-{}",
                sstable.descriptor.prefix(),
                Component::Data.name()
            ));
        }
        disk.sync_dir(&dir).await?;
        Ok(part)
    }

    /// Some shard has linked files for this tag, or a snapshot of that name is there.
    pub async fn has_snapshot(&self, table: TableId, tag: &str) -> Result<bool> {
        let dir = snapshot_dir(&self.table(table)?.dir, tag);
        match self.env.disk().list_dir(&dir).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes schema and manifest of a snapshot whose files all shards have linked: from then on it counts.
    pub async fn finish_snapshot(
        &self,
        table: TableId,
        tag: &str,
        files: Vec<String>,
        note: &SnapshotNote,
    ) -> Result<()> {
        let table = self.table(table)?;
        let dir = snapshot_dir(&table.dir, tag);
        let disk = self.env.disk();
        let manifest = Manifest::new(files, note, &table.definition(), self.options.shard_count);
        disk.create_dir_all(&dir).await?;
        disk.write_file(&dir.join(SCHEMA), note.schema.as_bytes()).await?;
        disk.write_file(&dir.join(MANIFEST), manifest.encode().as_bytes())
            .await?;
        for parent in dir.ancestors().skip(1).take(2) {
            disk.sync_dir(parent).await?;
        }
        Ok(())
    }

    /// Links a flushed sstable into the table's folder of incremental backups, when these are on. A failure costs the
    /// backup, not the table.
    pub(crate) async fn back_up(&self, table: &TableStore, sstable: &Sstable) {
        if !self.incremental_backups.get() {
            return;
        }
        let disk = self.env.disk();
        let dir = table.dir.join(BACKUPS);
        let linked = async {
            disk.create_dir_all(&dir).await?;
            link_sstable(&*disk, &sstable.descriptor, &dir).await?;
            disk.sync_dir(&dir).await?;
            disk.sync_dir(&table.dir).await?;
            Ok::<(), crate::Error>(())
        };
        if let Err(error) = linked.await {
            tracing::error!(
                "{} is not in the incremental backups of {}: {error}",
                sstable.data_path().display(),
                table.name()
            );
        }
    }

    /// Whether flushed sstables are linked into `backups`.
    pub fn incremental_backups(&self) -> bool {
        self.incremental_backups.get()
    }

    /// Turns incremental backups on or off.
    pub fn set_incremental_backups(&self, is_on: bool) {
        self.incremental_backups.set(is_on);
    }
}

/// The folder of a table's snapshot.
fn snapshot_dir(table_dir: &Path, tag: &str) -> PathBuf {
    table_dir.join(SNAPSHOTS).join(tag)
}

/// Links all files of an sstable into another folder; a file that is linked already is left.
async fn link_sstable(disk: &dyn Disk, descriptor: &Descriptor, to: &Path) -> Result<()> {
    let target = Descriptor {
        dir: to.to_path_buf(),
        ..descriptor.clone()
    };
    link_as(disk, descriptor, &target, true).await
}

/// Links all files of an sstable under another name, the table of contents last or not at all.
pub(crate) async fn link_as(
    disk: &dyn Disk,
    from: &Descriptor,
    to: &Descriptor,
    with_contents: bool,
) -> Result<()> {
    let wanted = |component: &Component| with_contents || *component != Component::Toc;
    for component in Component::ALL.into_iter().filter(wanted) {
        match disk.hard_link(&from.path(component), &to.path(component)).await {
            // Not every sstable has every component.
            Err(error) if error.is_not_found() && component != Component::Data => {}
            Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {}
            linked => linked?,
        }
    }
    Ok(())
}

/// Checks the manifest in a folder, and the schema beside it. Nothing is wrong where neither is there. Error: the file that is
/// not what the snapshot wrote.
pub(crate) async fn verify_notes(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let path = dir.join(MANIFEST);
    let bytes = match disk.read_file(&path, MANIFEST_MAX).await {
        Err(error) if error.is_not_found() => return Ok(()),
        bytes => bytes?,
    };
    let damaged = || Error::corrupt(&path, 0, "it differs from its checksum, or is no manifest");
    let manifest = Manifest::decode(&bytes).ok_or_else(damaged)?;
    let path = dir.join(SCHEMA);
    match disk.read_file(&path, MANIFEST_MAX).await {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(schema) if manifest.is_schema(&schema) => Ok(()),
        Ok(_) => Err(Error::corrupt(
            &path,
            0,
            "it differs from the manifest's checksum",
        )),
    }
}

/// The manifest in a folder, when there is one and it is whole.
async fn manifest_of(disk: &dyn Disk, dir: &Path) -> Result<Option<Manifest>> {
    let path = dir.join(MANIFEST);
    match disk.read_file(&path, MANIFEST_MAX).await {
        Ok(bytes) => {
            let manifest = Manifest::decode(&bytes);
            if manifest.is_none() {
                tracing::warn!("{} is damaged: its snapshot never expires", path.display());
            }
            Ok(manifest)
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The ranges between a node's sorted tokens, each without its first and with its last token, that a lone node holds.
pub fn ranges_between(tokens: &[i64]) -> Vec<(i64, i64)> {
    let Some(last) = tokens.last() else {
        return vec![(i64::MIN, i64::MAX)];
    };
    let before = std::iter::once(last).chain(tokens);
    before.zip(tokens).map(|(from, to)| (*from, *to)).collect()
}
