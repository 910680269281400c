//! Which snapshots there are, and removing them. The folders are the catalog: nothing else knows of a snapshot, so
//! none is forgotten by a restart, a change of shards or the drop of its table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ceto_env::disk::DirEntry;
use ceto_env::{Disk, DiskError};
use ceto_model::TableId;
use uuid::Uuid;

use super::{MANIFEST, SCHEMA, SNAPSHOTS, manifest_of};
use crate::database::Database;
use crate::error::Result;

/// A snapshot of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotDetails {
    /// The table's keyspace.
    pub keyspace: String,
    /// The table's name.
    pub table: String,
    /// The table's id.
    pub id: TableId,
    /// The snapshot's name.
    pub tag: String,
    /// Bytes that only it keeps: of files that the table no longer has.
    pub true_bytes: u64,
    /// Bytes of all its files.
    pub disk_bytes: u64,
    /// When it was taken, in milliseconds since the epoch; unknown without a manifest.
    pub created_at: Option<i64>,
    /// When it may be removed, likewise.
    pub expires_at: Option<i64>,
    /// Cassandra's mark for those that a repair takes.
    pub is_ephemeral: bool,
}

/// A table's folder that has snapshots.
struct Folder {
    keyspace: String,
    table: String,
    id: TableId,
    path: PathBuf,
    tags: Vec<String>,
}

impl Database {
    /// All snapshots of all tables of the node, dropped ones too, by keyspace, table and tag.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotDetails>> {
        let disk = self.env.disk();
        let mut all = Vec::new();
        for folder in folders(&*disk, &self.options.data_dir).await? {
            let live: BTreeSet<String> = list(&*disk, &folder.path)
                .await?
                .into_iter()
                .map(|entry| entry.name)
                .collect();
            for tag in &folder.tags {
                all.push(details(&*disk, &folder, tag, &live).await?);
            }
        }
        Ok(all)
    }

    /// Removes the snapshots that are `wanted`; returns how many. Folders of dropped tables go with their last one.
    pub async fn clear_snapshots(&self, wanted: impl Fn(&SnapshotDetails) -> bool) -> Result<usize> {
        let disk = self.env.disk();
        let mut removed = 0;
        for snapshot in self.snapshots().await?.iter().filter(|snapshot| wanted(snapshot)) {
            let table = self.folder_of(snapshot);
            let snapshots = table.join(SNAPSHOTS);
            remove_snapshot(&*disk, &snapshots.join(&snapshot.tag)).await?;
            disk.sync_dir(&snapshots).await?;
            removed += 1;
            if list(&*disk, &snapshots).await?.is_empty() {
                unless_gone(disk.remove_dir(&snapshots).await)?;
                let is_known = self.schema.borrow().table_by_id(snapshot.id).is_some();
                if !is_known && list(&*disk, &table).await?.is_empty() {
                    unless_gone(disk.remove_dir(&table).await)?;
                }
            }
        }
        Ok(removed)
    }

    fn folder_of(&self, snapshot: &SnapshotDetails) -> PathBuf {
        let name = format!("{}-{}", snapshot.table, snapshot.id.0.simple());
        self.options
            .data_dir
            .join("data")
            .join(&snapshot.keyspace)
            .join(name)
    }
}

/// Nothing to remove is as good as removed.
fn unless_gone(result: std::result::Result<(), DiskError>) -> Result<()> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Entries of a folder; none when it is missing.
async fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirEntry>> {
    match disk.list_dir(dir).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        entries => Ok(entries?),
    }
}

/// Name and id of the table whose folder has this name.
fn table_of_folder(name: &str) -> Option<(&str, TableId)> {
    let (table, id) = name.rsplit_once('-')?;
    Some((table, TableId(Uuid::try_parse(id).ok()?)))
}

async fn folders(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<Folder>> {
    let data = data_dir.join("data");
    let mut folders = Vec::new();
    for keyspace in list(disk, &data).await?.into_iter().filter(|entry| entry.is_dir) {
        let dir = data.join(&keyspace.name);
        for table in list(disk, &dir).await?.into_iter().filter(|entry| entry.is_dir) {
            let Some((name, id)) = table_of_folder(&table.name) else {
                continue;
            };
            let path = dir.join(&table.name);
            let tags: Vec<String> = list(disk, &path.join(SNAPSHOTS))
                .await?
                .into_iter()
                .filter(|entry| entry.is_dir)
                .map(|entry| entry.name)
                .collect();
            if !tags.is_empty() {
                folders.push(Folder {
                    keyspace: keyspace.name.clone(),
                    table: name.to_owned(),
                    id,
                    path,
                    tags,
                });
            }
        }
    }
    Ok(folders)
}

async fn details(
    disk: &dyn Disk,
    folder: &Folder,
    tag: &str,
    live: &BTreeSet<String>,
) -> Result<SnapshotDetails> {
    let dir = folder.path.join(SNAPSHOTS).join(tag);
    let (mut true_bytes, mut disk_bytes) = (0, 0);
    for entry in list(disk, &dir).await? {
        disk_bytes += entry.size;
        let is_note = entry.name == MANIFEST || entry.name == SCHEMA;
        if !is_note && !live.contains(&entry.name) {
            true_bytes += entry.size;
        }
    }
    let manifest = manifest_of(disk, &dir).await?.unwrap_or_default();
    Ok(SnapshotDetails {
        keyspace: folder.keyspace.clone(),
        table: folder.table.clone(),
        id: folder.id,
        tag: tag.to_owned(),
        true_bytes,
        disk_bytes,
        created_at: manifest.created_at(),
        expires_at: manifest.expires_at(),
        is_ephemeral: manifest.is_ephemeral(),
    })
}

/// The manifest goes first: what a crash leaves does not pass for a whole snapshot.
async fn remove_snapshot(disk: &dyn Disk, dir: &Path) -> Result<()> {
    unless_gone(disk.remove_file(&dir.join(MANIFEST)).await)?;
    disk.sync_dir(dir).await?;
    for entry in list(disk, dir).await? {
        unless_gone(disk.remove_file(&dir.join(&entry.name)).await)?;
    }
    unless_gone(disk.remove_dir(dir).await)
}
