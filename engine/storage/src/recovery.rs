//! The start of a shard: opening tables, replaying the commitlog.
//!
//! In two stages, because the schema of the users' tables lies in the system tables:
//! 1. [`Database::open`] with the system tables' schema opens these and replays their commitlog entries.
//! 2. The caller reads the schema from them and gives it to [`Database::finish_recovery`]: it opens the other tables
//!    and replays their entries. Those of tables that are no longer in the schema are dropped.
//!
//! Until the second stage is done no commitlog segment is released.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ceto_env::{Disk, Env, LocalFuture};
use ceto_model::{Schema, Table, TableId};
use rustc_hash::FxHashSet;

use crate::commitlog::{Commitlog, ReplayPosition, Replayed, SegmentFile, replay, report_damage};
use crate::database::Database;
use crate::dropped::DroppedTables;
use crate::error::{Error, Result};
use crate::index::IndexStore;
use crate::layout::Layout;
use crate::options::StorageOptions;
use crate::poison::Poison;
use crate::sstable::{Component, Descriptor, Sstable, remove_files, unknown_version};
use crate::table::{TableStore, table_dir};
use crate::transaction::{self, Transaction};
use crate::truncation::Truncation;
use crate::wait::join_all;

/// Tables opened at the same time, and sstables of each.
const CONCURRENT_OPENS: usize = 16;

/// What is left to replay.
pub(crate) struct Recovery {
    files: Vec<SegmentFile>,
    /// Where the replay stands.
    position: Cell<ReplayPosition>,
    /// Tables whose entries were passed over because they were not known.
    unknown: RefCell<FxHashSet<TableId>>,
    /// What was found damaged has been said.
    is_damage_reported: Cell<bool>,
}

impl Recovery {
    /// Everything before it has been applied.
    pub(crate) fn replayed_through(&self) -> ReplayPosition {
        self.position.get()
    }
}

impl Database {
    /// Opens a shard's storage with the tables of `schema` and replays their commitlog entries. Call
    /// [`Database::finish_recovery`] when all tables are known.
    ///
    /// `reshard` must have been called before, once for all shards.
    pub async fn open(
        env: Rc<dyn Env>,
        options: StorageOptions,
        schema: Arc<Schema>,
    ) -> Result<Rc<Database>> {
        let disk = env.disk();
        create_dirs(&*disk, &options).await?;
        let first_segment = Layout::check(&*disk, &options.data_dir, options.shard_count).await?;
        let poison = Poison::new(options.commit_failure_policy);
        let (commitlog, files) =
            Commitlog::open(env.clone(), &options, first_segment, poison.clone()).await?;
        let dropped = DroppedTables::read(&*disk, &options.data_dir, options.shard).await?;
        let database = Database::new(env, options, poison, commitlog, dropped);
        *database.recovery.borrow_mut() = Some(Recovery {
            files,
            position: Cell::default(),
            unknown: RefCell::default(),
            is_damage_reported: Cell::new(false),
        });
        database.set_schema(schema).await?;
        database.replay_known().await?;
        database.start_ticking();
        Ok(database)
    }

    /// Takes the whole schema, replays what could not be replayed before it was known, and lets go of what is not
    /// needed.
    pub async fn finish_recovery(&self, schema: Arc<Schema>) -> Result<()> {
        self.set_schema(schema).await?;
        let has_unknown = match &*self.recovery.borrow() {
            Some(recovery) => !recovery.unknown.take().is_empty(),
            None => return Ok(()),
        };
        if has_unknown {
            self.replay_known().await?;
        }
        let recovery = self.recovery.take();
        self.note_dropped(
            recovery
                .map(|recovery| recovery.unknown.take())
                .unwrap_or_default(),
        )
        .await;
        let tables: Vec<Rc<TableStore>> = self.tables.borrow().values().cloned().collect();
        for table in &tables {
            table.is_recovered.set(true);
            // What was replayed lies in segments that an earlier process may not have synced: get it into sstables.
            if has_replayed(table, self.commitlog.first_own_segment()) {
                self.start_flush(table);
            }
        }
        self.release_segments();
        for table in &tables {
            self.compact_when_due(table);
            let indexes = table.indexes.borrow().clone();
            for index in indexes {
                self.build_when_due(table, &index).await?;
            }
        }
        Ok(())
    }

    /// Notes that tables of which the commitlog has entries are in the schema no more: a crash came before their drops
    /// were noted.
    async fn note_dropped(&self, tables: FxHashSet<TableId>) {
        if tables.is_empty() {
            return;
        }
        let end = ReplayPosition {
            segment: self.commitlog.first_own_segment(),
            offset: 0,
        };
        let ends = tables.into_iter().map(|table| (table, end));
        let oldest = self.commitlog.oldest_segment();
        if let Err(error) = self.dropped.note(&*self.env.disk(), ends, oldest).await {
            tracing::warn!("dropped tables cannot be created again until this is written: {error}");
        }
    }

    /// Replays the entries of the tables that have not been recovered yet.
    async fn replay_known(&self) -> Result<()> {
        let files = match &*self.recovery.borrow() {
            Some(recovery) => {
                recovery.position.set(ReplayPosition::default());
                recovery.files.clone()
            }
            None => return Ok(()),
        };
        let tables: Vec<Rc<TableStore>> = {
            let tables = self.tables.borrow();
            tables
                .values()
                .filter(|table| !table.is_recovered.get())
                .cloned()
                .collect()
        };
        let pending: FxHashSet<TableId> = tables.iter().map(|table| table.id).collect();
        let mut applied = 0u64;
        let progress = &self.options.replay_progress;
        let has_indexes = tables.iter().any(|table| !table.indexes.borrow().is_empty());
        let report = replay(&*self.env, &files, progress, has_indexes, async |entry| {
            if let Some(recovery) = &*self.recovery.borrow() {
                recovery.position.set(entry.position);
                let table = entry.mutation.table;
                if !self.tables.borrow().contains_key(&table) {
                    recovery.unknown.borrow_mut().insert(table);
                }
            }
            if pending.contains(&entry.mutation.table) && self.replay_entry(entry).await? {
                applied += 1;
            }
            Ok(())
        })
        .await?;
        let is_reported = |recovery: &Recovery| recovery.is_damage_reported.replace(true);
        if !self.recovery.borrow().as_ref().is_some_and(is_reported) {
            let policy = self.options.replay_failure_policy;
            report_damage(&*self.env.disk(), &report.damage, policy).await?;
        }
        tables.iter().for_each(|table| table.is_recovered.set(true));
        if applied > 0 {
            let (entries, bytes) = (report.entries, report.bytes);
            tracing::info!("commitlog: replayed {applied} of {entries} entries ({bytes} bytes)");
        }
        Ok(())
    }

    /// False when the table has it already, or is gone, or was created anew since.
    async fn replay_entry(&self, entry: Replayed) -> Result<bool> {
        let Ok(table) = self.table(entry.mutation.table) else {
            return Ok(false);
        };
        if self.dropped.covers(table.id, entry.position) {
            return Ok(false);
        }
        let is_flushed = entry.position < table.flushed_through.get();
        let is_missing = |index: &Rc<IndexStore>| {
            // A graph of vectors is built from the table once all is replayed.
            index.vectors.is_none() && entry.position >= index.store.flushed_through.get()
        };
        if is_flushed && !table.indexes.borrow().iter().any(is_missing) {
            return Ok(false);
        }
        loop {
            let room = self.room.listen();
            if self.memory.get() < self.memtable_limit.get() {
                break;
            }
            self.poison.check()?;
            self.flushes.check_disk()?;
            room.await;
        }
        if is_flushed {
            // An index was not flushed when its table was.
            self.insert_entries(&table, &entry.mutation, Some(entry.position));
            self.flush_when_due();
        } else {
            self.insert(&table, entry.mutation, Some(entry.position));
        }
        Ok(true)
    }

    /// Takes a new schema: opens tables that are new in it, and changes the definitions of the others. Tables that are
    /// not in it stay until [`Database::drop_table`].
    pub async fn set_schema(&self, schema: Arc<Schema>) -> Result<()> {
        let mut new = Vec::new();
        for keyspace in schema.keyspaces().filter(|keyspace| !keyspace.is_virtual) {
            for definition in keyspace.tables.values().filter(|table| !table.is_virtual) {
                let known = self.tables.borrow().get(&definition.id).cloned();
                match known {
                    Some(table) => {
                        table.define(definition.clone());
                        table.is_durable.set(keyspace.durable_writes);
                    }
                    None => new.push((definition.clone(), keyspace.durable_writes)),
                }
            }
        }
        let mut keyspace_dirs = BTreeSet::new();
        for tables in new.chunks(CONCURRENT_OPENS) {
            let opens = tables
                .iter()
                .map(|(definition, is_durable)| -> LocalFuture<'_, Result<()>> {
                    Box::pin(async move {
                        let dir = table_dir(&self.options.data_dir, definition);
                        let _folder = self.enter(&dir).await;
                        let table = self.open_table(definition).await?;
                        table.is_durable.set(*is_durable);
                        table.is_recovered.set(self.recovery.borrow().is_none());
                        // Another call may have opened it meanwhile.
                        self.tables.borrow_mut().entry(table.id).or_insert(table);
                        Ok(())
                    })
                });
            keyspace_dirs.extend(tables.iter().filter_map(|(definition, _)| {
                table_dir(&self.options.data_dir, definition)
                    .parent()
                    .map(Path::to_path_buf)
            }));
            join_all(opens.collect()).await?;
        }
        if !keyspace_dirs.is_empty() {
            let disk = self.env.disk();
            for dir in &keyspace_dirs {
                disk.sync_dir(dir).await?;
            }
            disk.sync_dir(&self.options.data_dir.join("data")).await?;
        }
        for keyspace in schema.keyspaces().filter(|keyspace| !keyspace.is_virtual) {
            for definition in keyspace.tables.values().filter(|table| !table.is_virtual) {
                self.set_indexes(definition, keyspace.durable_writes).await?;
            }
        }
        *self.schema.borrow_mut() = schema;
        Ok(())
    }

    pub(crate) async fn open_table(&self, definition: &Arc<Table>) -> Result<Rc<TableStore>> {
        let dir = table_dir(&self.options.data_dir, definition);
        let disk = self.env.disk();
        if self.dropped.check(&*disk, definition.id).await? {
            self.hold_folder(&dir).await?;
        }
        let files = match TableFiles::list(&*disk, &dir).await {
            Err(error) if error.is_not_found() => {
                disk.create_dir_all(&dir).await?;
                TableFiles::default()
            }
            files => files?,
        };
        let files = files
            .finish_interrupted(&*disk, &dir, Some(self.options.shard))
            .await?;
        let next_generation = files.last_number + 1;
        let store = Rc::new(TableStore::new(
            definition.clone(),
            dir.clone(),
            self.options.shard,
            next_generation,
            self.row_cache.clone(),
        ));
        let truncation = Truncation::read(&*disk, &dir, self.options.shard).await?;
        store.flushed_through.set(truncation.position);
        let shard = self.options.shard;
        let own: Vec<Descriptor> = files.sstables.into_iter().filter(|d| d.shard == shard).collect();
        for descriptors in own.chunks(CONCURRENT_OPENS) {
            let opens = descriptors
                .iter()
                .map(|descriptor| -> LocalFuture<'_, Result<()>> {
                    Box::pin(self.open_sstable(&store, descriptor))
                });
            join_all(opens.collect()).await?;
        }
        Ok(store)
    }

    async fn open_sstable(&self, store: &TableStore, descriptor: &Descriptor) -> Result<()> {
        let sstable = match Sstable::open(self.env.clone(), descriptor.clone(), self.cache.clone()).await {
            Err(error) if error.is_damage() => {
                tracing::error!("an sstable cannot be opened, its table cannot be read: {error}");
                store.unreadable.borrow_mut().push((descriptor.clone(), error));
                return Ok(());
            }
            opened => opened?,
        };
        let written_for = sstable.statistics.shard_count;
        if written_for != self.options.shard_count {
            let file = sstable.data_path().display();
            let count = self.options.shard_count;
            let text = format!("{file} was written for {written_for} shards, not {count}: reshard first");
            return Err(Error::Layout(text.into()));
        }
        let through = sstable.statistics.flushed_through.unwrap_or_default();
        store
            .flushed_through
            .set(store.flushed_through.get().max(through));
        store.add_sstables([sstable]);
        Ok(())
    }
}

fn has_replayed(table: &TableStore, first_own_segment: u64) -> bool {
    table
        .active()
        .first_position()
        .is_some_and(|position| position.segment < first_own_segment)
}

/// Makes the folders, durably.
pub(crate) async fn create_dirs(disk: &dyn Disk, options: &StorageOptions) -> Result<()> {
    let data = options.data_dir.join("data");
    for dir in [&data, &options.commitlog_dir] {
        disk.create_dir_all(dir).await?;
        for ancestor in dir.ancestors().skip(1).take(2) {
            // Not every parent folder may be opened; the folders that matter are.
            if ancestor.starts_with(&options.data_dir) {
                disk.sync_dir(ancestor).await?;
            } else if let Err(error) = disk.sync_dir(ancestor).await {
                tracing::debug!("{error}");
            }
        }
    }
    Ok(())
}

/// The files of a table's folder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct TableFiles {
    /// Sstables with a table of contents.
    pub(crate) sstables: BTreeSet<Descriptor>,
    /// Sstables without.
    incomplete: BTreeSet<Descriptor>,
    /// Shard and path of transactions.
    transactions: Vec<(u16, PathBuf)>,
    /// Shards that have a truncation record.
    pub(crate) truncated: BTreeSet<u16>,
    /// Files under temporary names.
    temporary: Vec<(u16, PathBuf)>,
    /// The greatest number in use.
    pub(crate) last_number: u64,
}

impl TableFiles {
    /// Lists a folder.
    pub(crate) async fn list(disk: &dyn Disk, dir: &Path) -> Result<TableFiles> {
        let mut files = TableFiles::default();
        let mut all = BTreeSet::new();
        for entry in disk
            .list_dir(dir)
            .await?
            .into_iter()
            .filter(|entry| !entry.is_dir)
        {
            if let Some(version) = Descriptor::other_version(&entry.name) {
                return Err(unknown_version(&dir.join(&entry.name), version));
            }
            if let Some(shard) = temporary_of(dir, &entry.name) {
                files.temporary.push((shard, dir.join(&entry.name)));
            } else if let Some((shard, number)) = transaction::parse_file_name(&entry.name) {
                files.last_number = files.last_number.max(number);
                files.transactions.push((shard, dir.join(&entry.name)));
            } else if let Some(shard) = Truncation::parse_file_name(&entry.name) {
                files.truncated.insert(shard);
            } else if let Some((descriptor, component)) = Descriptor::parse(dir, &entry.name) {
                files.last_number = files.last_number.max(descriptor.generation.0);
                match component {
                    Some(Component::Toc) => {
                        files.sstables.insert(descriptor.clone());
                    }
                    Some(_) => {}
                    // Of a later version: it goes with its sstable.
                    None => {}
                }
                all.insert(descriptor);
            }
        }
        files.incomplete = all.difference(&files.sstables).cloned().collect();
        for shard in &files.truncated {
            let truncation = Truncation::read(disk, dir, *shard).await?;
            files.last_number = files.last_number.max(truncation.last_number);
        }
        Ok(files)
    }

    /// Paths of transactions.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = &Path> {
        self.transactions.iter().map(|(_, path)| path.as_path())
    }

    /// Sstables without a table of contents.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = &Descriptor> {
        self.incomplete.iter()
    }

    /// Finishes committed transactions and removes what does not count: of one shard, or of all.
    pub(crate) async fn finish_interrupted(
        self,
        disk: &dyn Disk,
        dir: &Path,
        shard: Option<u16>,
    ) -> Result<TableFiles> {
        let is_ours = |other: u16| shard.is_none_or(|shard| shard == other);
        let mut files = self;
        let ours: Vec<PathBuf> = files
            .transactions
            .iter()
            .filter(|(shard, _)| is_ours(*shard))
            .map(|(_, path)| path.clone())
            .collect();
        if !ours.is_empty() {
            for path in ours {
                Transaction::finish(disk, &path).await?;
            }
            let last_number = files.last_number;
            files = TableFiles::list(disk, dir).await?;
            files.last_number = files.last_number.max(last_number);
        }
        for descriptor in files
            .incomplete
            .iter()
            .filter(|descriptor| is_ours(descriptor.shard))
        {
            remove_files(disk, descriptor).await?;
        }
        for (_, path) in files.temporary.iter().filter(|(shard, _)| is_ours(*shard)) {
            match disk.remove_file(path).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        let truncated = files.truncated.clone();
        for shard in truncated.into_iter().filter(|shard| is_ours(*shard)) {
            let truncation = Truncation::read(disk, dir, shard).await?;
            let is_void = |descriptor: &&Descriptor| {
                descriptor.shard == shard && descriptor.generation <= truncation.generation
            };
            let void: Vec<Descriptor> = files.sstables.iter().filter(is_void).cloned().collect();
            for descriptor in void {
                remove_files(disk, &descriptor).await?;
                files.sstables.remove(&descriptor);
            }
            if truncation.generation.0 > 0 {
                truncation.without_files().write(disk, dir, shard).await?;
            }
        }
        Ok(files)
    }
}

/// The shard that wrote a file under a temporary name.
fn temporary_of(dir: &Path, name: &str) -> Option<u16> {
    let name = name.strip_suffix(".tmp")?;
    let transaction = transaction::parse_file_name(name).map(|(shard, _)| shard);
    let sstable = || Descriptor::parse(dir, name).map(|(descriptor, _)| descriptor.shard);
    transaction
        .or_else(|| Truncation::parse_file_name(name))
        .or_else(sstable)
}
