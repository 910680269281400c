//! Snapshots of the node: every shard links its part, then one writes schema and manifest; automatic ones before
//! truncation and drop; the end of those that expire.
//!
//! Never: a snapshot that counts while a shard's part of it is missing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ceto_cql::describe::{table_text, type_text};
use ceto_env::TaskQueue;
use ceto_model::{Schema, Table, TableId};
use ceto_storage::{Descriptor, SnapshotNote, ranges_between};
pub use ceto_storage::{SnapshotDetails, instant_text};
use tracing::{error, info, warn};

use crate::node::Node;

/// Time between looks for expired snapshots.
const EXPIRY_LOOK: Duration = Duration::from_secs(1);
/// Milliseconds until snapshots that could not be removed are looked at again.
const EXPIRY_RETRY: i64 = 60_000;
/// Longest name of a snapshot, in bytes: it is a folder's name.
const TAG_MAX: usize = 255;

/// A snapshot to be taken.
#[derive(Clone, Debug)]
pub struct SnapshotRequest {
    /// Of these tables.
    pub tables: Vec<TableId>,
    /// Its name.
    pub tag: String,
    /// Flush memtables first; else only what is in sstables is in it.
    pub flush: bool,
    /// How long it is kept; for ever when absent.
    pub ttl: Option<Duration>,
}

/// How sstables are loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImportOptions {
    /// Check every block first.
    pub verify: bool,
    /// Leave the files where they are.
    pub copy: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        ImportOptions {
            verify: true,
            copy: false,
        }
    }
}

impl Node {
    /// Takes a snapshot of tables, on all shards. The error is one line for the operator.
    pub async fn take_snapshot(self: &Rc<Self>, request: SnapshotRequest) -> Result<(), String> {
        check_tag(&request.tag)?;
        for table in &request.tables {
            let database = self.database().map_err(|failure| failure.message)?;
            let is_there = database.has_snapshot(*table, &request.tag).await;
            if is_there.map_err(|error| error.to_string())? {
                return Err(format!("Snapshot {} already exists.", request.tag));
            }
        }
        self.snapshot(request, true).await
    }

    /// Snapshot before a table is emptied or dropped, when `auto_snapshot` says so and the table holds anything.
    async fn snapshot_before(self: &Rc<Self>, table: TableId, what: &str) -> Result<(), String> {
        let settings = &self.options.storage;
        let schema = self.schema();
        let definition = schema
            .table_by_id(table)
            .filter(|table| !is_system(&table.keyspace));
        let (true, Some(definition)) = (settings.auto_snapshot, definition) else {
            return Ok(());
        };
        let millis = self.env.clock().unix_micros() / 1000;
        let tag = format!("{what}-{millis}-{}", definition.name);
        let request = SnapshotRequest {
            tables: vec![table],
            tag,
            flush: true,
            ttl: settings.auto_snapshot_ttl,
        };
        self.snapshot(request, false).await
    }

    /// Before a table is emptied.
    pub(crate) async fn snapshot_before_truncate(self: &Rc<Self>, table: TableId) -> Result<(), String> {
        self.snapshot_before(table, "truncated").await
    }

    /// Before a table is dropped.
    pub async fn snapshot_before_drop(self: &Rc<Self>, table: TableId) -> Result<(), String> {
        self.snapshot_before(table, "dropped").await
    }

    /// `with_empty`: also of tables that hold nothing.
    async fn snapshot(self: &Rc<Self>, request: SnapshotRequest, with_empty: bool) -> Result<(), String> {
        let created_at = self.env.clock().unix_micros() / 1000;
        let expires_at = request
            .ttl
            .map(|ttl| created_at.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
        let linking = request.clone();
        let linked = self.on_all_shards(move |node| {
            let request = linking.clone();
            Box::pin(async move {
                let database = node.database().map_err(|failure| failure.message)?;
                let parts = database.link_snapshot(&request.tables, &request.tag, request.flush);
                parts.await.map_err(|error| error.to_string())
            })
        });
        let mut files: BTreeMap<TableId, Vec<String>> = BTreeMap::new();
        for parts in linked.await {
            for part in parts? {
                files.entry(part.table).or_default().extend(part.files);
            }
        }
        let schema = self.schema();
        let mut count = 0;
        for (id, files) in files {
            let Some(table) = schema.table_by_id(id) else {
                continue;
            };
            if files.is_empty() && !with_empty {
                continue;
            }
            count += 1;
            let note = SnapshotNote {
                created_at,
                expires_at,
                schema: schema_text(&schema, table),
                token_ranges: ranges_between(&self.tokens()),
            };
            let database = self.database().map_err(|failure| failure.message)?;
            let finished = database.finish_snapshot(id, &request.tag, files, &note).await;
            finished.map_err(|error| error.to_string())?;
        }
        if count > 0 {
            info!(tag = %request.tag, tables = count, "snapshot taken");
        }
        if let Some(expires_at) = expires_at.filter(|_| count > 0) {
            self.on_shard(0, move |node| {
                Box::pin(async move { node.note_expiry(expires_at) })
            })
            .await;
        }
        Ok(())
    }

    /// All snapshots of the node.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotDetails>, String> {
        let database = self.database().map_err(|failure| failure.message)?;
        database.snapshots().await.map_err(|error| error.to_string())
    }

    /// Removes the snapshots of these keyspaces (all when there are none) with this name (any when absent).
    pub async fn clear_snapshots(&self, keyspaces: &[String], tag: Option<&str>) -> Result<usize, String> {
        let database = self.database().map_err(|failure| failure.message)?;
        let wanted = |snapshot: &SnapshotDetails| {
            (keyspaces.is_empty() || keyspaces.contains(&snapshot.keyspace))
                && tag.is_none_or(|tag| snapshot.tag == tag)
        };
        let cleared = database.clear_snapshots(wanted).await;
        cleared.map_err(|error| error.to_string())
    }

    /// Incremental backups are on.
    pub fn incremental_backups(&self) -> bool {
        self.database()
            .is_ok_and(|database| database.incremental_backups())
    }

    /// Turns incremental backups on or off, on this shard.
    pub fn set_incremental_backups(&self, is_on: bool) {
        if let Ok(database) = self.database() {
            database.set_incremental_backups(is_on);
        }
    }

    /// Loads the sstables that somebody has put into the table's folder; returns how many.
    pub async fn refresh(self: &Rc<Self>, table: TableId) -> Result<usize, String> {
        let found = self.on_all_shards(move |node| {
            Box::pin(async move {
                let database = node.database().map_err(|failure| failure.message)?;
                let unknown = database.unknown_sstables(table).await;
                unknown.map_err(|error| error.to_string())
            })
        });
        let mut sstables = Vec::new();
        for part in found.await {
            sstables.extend(part?);
        }
        self.import_sstables(table, sstables, ImportOptions::default())
            .await
    }

    /// Loads the sstables of a folder; returns how many.
    pub async fn import(
        self: &Rc<Self>,
        table: TableId,
        dir: PathBuf,
        options: ImportOptions,
    ) -> Result<usize, String> {
        let database = self.database().map_err(|failure| failure.message)?;
        if options.verify {
            let checked = database.check_snapshot_notes(&dir).await;
            checked.map_err(|error| error.to_string())?;
        }
        let found = database.sstables_in(table, &dir).await;
        let sstables = found.map_err(|error| error.to_string())?;
        self.import_sstables(table, sstables, options).await
    }

    async fn import_sstables(
        self: &Rc<Self>,
        table: TableId,
        sstables: Vec<Descriptor>,
        options: ImportOptions,
    ) -> Result<usize, String> {
        let database = self.database().map_err(|failure| failure.message)?;
        let count = sstables.len();
        let allowed = self.settings().guardrails.check_bulk_load();
        allowed.map_err(|error| error.to_string())?;
        self.check_imports(table, &sstables, options.verify).await?;
        for descriptor in sstables {
            let from = descriptor.clone();
            let taken = self.on_all_shards(move |node| {
                let from = from.clone();
                Box::pin(async move {
                    let database = node.database().map_err(|failure| failure.message)?;
                    let taken = database.import_sstable(table, &from).await;
                    taken.map_err(|error| error.to_string())
                })
            });
            for outcome in taken.await {
                outcome?;
            }
            if !options.copy {
                let removed = database.remove_imported(&descriptor).await;
                removed.map_err(|error| error.to_string())?;
            }
        }
        if count > 0 {
            info!(%table, sstables = count, "sstables loaded");
            self.rebuild_views_of(table).await?;
        }
        Ok(count)
    }

    /// Checks sstables before any of them is taken, each on one shard.
    async fn check_imports(
        self: &Rc<Self>,
        table: TableId,
        sstables: &[Descriptor],
        verify: bool,
    ) -> Result<(), String> {
        let all = sstables.to_vec();
        let checked = self.on_all_shards(move |node| {
            let all = all.clone();
            Box::pin(async move {
                let database = node.database().map_err(|failure| failure.message)?;
                let (first, step) = (usize::from(node.shard()), usize::from(node.shard_count()));
                for descriptor in all.iter().skip(first).step_by(step) {
                    let checked = database.check_import(table, descriptor, verify).await;
                    checked.map_err(|error| format!("nothing was loaded: {error}"))?;
                }
                Ok(())
            })
        });
        checked.await.into_iter().collect()
    }

    fn note_expiry(&self, at: i64) {
        let next = self.next_snapshot_expiry.get();
        self.next_snapshot_expiry
            .set(Some(next.map_or(at, |next| next.min(at))));
    }

    /// On shard 0: removes snapshots when they expire, those of earlier lives of the process too.
    pub(crate) fn start_expiring_snapshots(self: &Rc<Self>) {
        let node = self.clone();
        let task = async move {
            // What earlier lives have left is found by the first look.
            node.note_expiry(i64::MIN);
            while !node.is_storage_draining() {
                let now = node.env.clock().unix_micros() / 1000;
                if node.next_snapshot_expiry.get().is_some_and(|at| at <= now) {
                    node.next_snapshot_expiry.set(None);
                    if let Err(error) = node.expire_snapshots(now).await {
                        error!(%error, "expired snapshots remain for now");
                        node.note_expiry(now + EXPIRY_RETRY);
                    }
                }
                node.env.tasks().sleep(EXPIRY_LOOK).await;
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    async fn expire_snapshots(&self, now: i64) -> Result<(), String> {
        let database = self.database().map_err(|failure| failure.message)?;
        let is_over = |snapshot: &SnapshotDetails| snapshot.expires_at.is_some_and(|at| at <= now);
        let cleared = database
            .clear_snapshots(is_over)
            .await
            .map_err(|error| error.to_string())?;
        if cleared > 0 {
            info!(snapshots = cleared, "expired snapshots removed");
        }
        let rest = database.snapshots().await.map_err(|error| error.to_string())?;
        rest.iter()
            .filter_map(|snapshot| snapshot.expires_at)
            .for_each(|at| self.note_expiry(at));
        Ok(())
    }
}

/// A name that can be a folder's.
fn check_tag(tag: &str) -> Result<(), String> {
    if tag.is_empty() {
        return Err("You must supply a snapshot name.".to_owned());
    }
    if tag.contains('/') {
        return Err("Snapshot name cannot contain /".to_owned());
    }
    if tag.len() > TAG_MAX || tag == "." || tag == ".." || tag.contains('\0') {
        warn!(tag, "refused as a snapshot's name");
        return Err(format!(
            "Snapshot name must be a folder's name of at most {TAG_MAX} bytes"
        ));
    }
    Ok(())
}

fn is_system(keyspace: &str) -> bool {
    crate::system::definitions::SYSTEM_KEYSPACES.contains(&keyspace)
}

/// The types that the table uses (and others of its keyspace), and the table with its id.
fn schema_text(schema: &Schema, table: &Table) -> String {
    let types = schema
        .keyspace(&table.keyspace)
        .map(|keyspace| {
            keyspace
                .types
                .values()
                .map(|definition| type_text(definition))
                .collect()
        })
        .unwrap_or_default();
    let mut parts: Vec<String> = types;
    parts.push(table_text(table, true));
    parts.join("\n\n") + "\n"
}
