//! Moving a node's files to another number of shards, before any shard opens.
//!
//! One caller does it for all shards. The order makes it safe against a crash at any point; started again it goes on:
//! 1. The layout file says that it is under way: no shard opens until it is done.
//!    Indexes are not to be trusted from here on, also when the next start goes back to the number that they were built for.
//! 2. All commitlog segments are replayed into sstables of the new shards; then the segments are removed. (A replay
//!    that is repeated writes the same again, which merges away.)
//! 3. Each sstable of the old layout is split into one for each new shard, in one transaction.
//! 4. The layout file says that it is done.
//!
//! No schema is needed: tables are known by the ids in their folders' names, and what an sstable needs to be written
//! again stands in its statistics.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ceto_env::Env;
use ceto_model::{DecoratedKey, PartitionRange, ReadTarget, Slice, TableId};
use rustc_hash::FxHashMap;
use uuid::Uuid;

use crate::commitlog::{ReplayPosition, Replayed, SegmentFile, SegmentFiles, replay, report_damage};
use crate::dropped::DroppedTables;
use crate::error::Result;
use crate::index::distrust_all;
use crate::layout::Layout;
use crate::memtable::{Memtable, MemtableReader};
use crate::options::StorageOptions;
use crate::reader::{Fragment, FragmentSource, Scan, Step};
use crate::recovery::{TableFiles, create_dirs};
use crate::sstable::{
    BlockCache, Compression, Descriptor, Generation, Origin, SerializationHeader, Sstable, SstableReader,
    SstableWriter, WriterOptions, remove_files, write_toc,
};
use crate::transaction::{self, CommitFailure, Transaction};
use crate::truncation::Truncation;

/// Makes the files of a node those of `options.shard_count` shards. Call it once at each start, before any shard opens;
/// it does nothing when they are so already.
pub async fn reshard(env: Rc<dyn Env>, options: &StorageOptions) -> Result<()> {
    let disk = env.disk();
    create_dirs(&*disk, options).await?;
    let target = options.shard_count;
    let layout = Layout::read(&*disk, &options.data_dir).await?;
    if layout.is_some_and(|layout| layout.shards == target && !layout.is_resharding) {
        return Ok(());
    }
    let found = SegmentFiles::list(&*disk, &options.commitlog_dir).await?;
    let last_segment = found.last_id();
    let SegmentFiles {
        segments,
        free,
        temporary,
    } = found;
    let mut next = Layout {
        shards: target,
        is_resharding: true,
        first_segment: layout
            .map_or(0, |layout| layout.first_segment)
            .max(last_segment + 1),
    };
    let mut indexes = Vec::new();
    let mut work = Reshard {
        tables: find_tables(&env, &options.data_dir, &mut indexes).await?,
        cache: Rc::new(BlockCache::new(0)),
        buffered: BTreeMap::new(),
        memory: 0,
        dropped: FxHashMap::default(),
        env: env.clone(),
        target,
    };
    if !segments.is_empty() || !free.is_empty() || !temporary.is_empty() || work.has_sstables() {
        next.write(&*disk, &options.data_dir).await?;
        let from = layout.map_or(0, |layout| layout.shards);
        tracing::info!("resharding the files of {from} shards to {target}");
        for dir in &indexes {
            distrust_all(&*disk, dir).await?;
        }
        for shard in DroppedTables::shards(&*disk, &options.data_dir).await? {
            let dropped = DroppedTables::read(&*disk, &options.data_dir, shard).await?;
            work.dropped.insert(shard, dropped);
        }
        work.replay_segments(&segments, options).await?;
        let files = segments.iter().chain(&free).map(|segment| &segment.path);
        for path in files.chain(temporary.iter().map(|(_, path)| path)) {
            match disk.remove_file(path).await {
                // A copy that a crash left, which the replay has just made again and put in its place.
                Err(error) if error.is_not_found() => {}
                removed => removed?,
            }
            disk.sync_dir(&options.commitlog_dir).await?;
        }
        for dropped in std::mem::take(&mut work.dropped).into_values() {
            dropped.remove(&*disk).await?;
        }
        work.split_sstables().await?;
    }
    next.is_resharding = false;
    next.write(&*disk, &options.data_dir).await
}

struct Reshard {
    env: Rc<dyn Env>,
    target: u16,
    tables: FxHashMap<TableId, TableDir>,
    cache: Rc<BlockCache>,
    /// Replayed writes by table and new shard.
    buffered: BTreeMap<(TableId, u16), Rc<Memtable>>,
    memory: usize,
    /// By old shard.
    dropped: FxHashMap<u16, DroppedTables>,
}

struct TableDir {
    path: PathBuf,
    sstables: Vec<Descriptor>,
    /// By old shard: what is in sstables or was truncated.
    flushed_through: FxHashMap<u16, ReplayPosition>,
    /// Columns as the newest sstable knows them.
    header: Option<Rc<SerializationHeader>>,
    next_number: Cell<u64>,
}

impl TableDir {
    fn next_number(&self) -> u64 {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        number
    }

    fn next_descriptor(&self, shard: u16) -> Descriptor {
        Descriptor {
            dir: self.path.clone(),
            shard,
            generation: Generation(self.next_number()),
        }
    }
}

/// All tables' folders, with interrupted work finished, and those of `indexes`.
async fn find_tables(
    env: &Rc<dyn Env>,
    data_dir: &Path,
    indexes: &mut Vec<PathBuf>,
) -> Result<FxHashMap<TableId, TableDir>> {
    let disk = env.disk();
    let data = data_dir.join("data");
    let mut tables = FxHashMap::default();
    for keyspace in disk
        .list_dir(&data)
        .await?
        .into_iter()
        .filter(|entry| entry.is_dir)
    {
        let keyspace = data.join(keyspace.name);
        for entry in disk
            .list_dir(&keyspace)
            .await?
            .into_iter()
            .filter(|entry| entry.is_dir)
        {
            // Indexes are built anew: nobody moves their entries.
            if entry.name.contains('.') {
                indexes.push(keyspace.join(entry.name));
                continue;
            }
            let id = entry
                .name
                .rsplit_once('-')
                .and_then(|(_, id)| Uuid::try_parse(id).ok());
            if let Some(id) = id {
                tables.insert(TableId(id), open_dir(env, keyspace.join(entry.name)).await?);
            }
        }
    }
    Ok(tables)
}

async fn open_dir(env: &Rc<dyn Env>, path: PathBuf) -> Result<TableDir> {
    let disk = env.disk();
    let files = TableFiles::list(&*disk, &path).await?;
    let files = files.finish_interrupted(&*disk, &path, None).await?;
    let mut flushed_through: FxHashMap<u16, ReplayPosition> = FxHashMap::default();
    for shard in &files.truncated {
        let truncation = Truncation::read(&*disk, &path, *shard).await?;
        flushed_through.insert(*shard, truncation.position);
    }
    let mut newest: Option<(i64, Rc<SerializationHeader>)> = None;
    for descriptor in &files.sstables {
        let statistics = Sstable::read_statistics(&*disk, descriptor).await?;
        let created_at = statistics.created_at;
        if let Some(header) = statistics.header
            && newest.as_ref().is_none_or(|(at, _)| *at < created_at)
        {
            newest = Some((created_at, header));
        }
        let through = flushed_through.entry(descriptor.shard).or_default();
        *through = (*through).max(statistics.flushed_through.unwrap_or_default());
    }
    Ok(TableDir {
        path,
        sstables: files.sstables.into_iter().collect(),
        flushed_through,
        header: newest.map(|(_, header)| header),
        next_number: Cell::new(files.last_number + 1),
    })
}

fn whole_table<'a>(target: &'a ReadTarget, slices: &'a [Slice]) -> Scan<'a> {
    Scan {
        target,
        slices,
        first_partition_slices: None,
        reversed: false,
    }
}

impl Reshard {
    fn has_sstables(&self) -> bool {
        self.tables.values().any(|table| !table.sstables.is_empty())
    }

    async fn replay_segments(&mut self, segments: &[SegmentFile], options: &StorageOptions) -> Result<()> {
        let mut by_shard: BTreeMap<u16, Vec<SegmentFile>> = BTreeMap::new();
        for segment in segments {
            by_shard.entry(segment.shard).or_default().push(segment.clone());
        }
        let env = self.env.clone();
        for (shard, segments) in by_shard {
            let report = replay(&*env, &segments, &options.replay_progress, false, async |entry| {
                self.buffer(shard, entry);
                if self.memory >= options.memtable_space {
                    self.write_buffered().await?;
                }
                Ok(())
            })
            .await?;
            report_damage(&*env.disk(), &report.damage, options.replay_failure_policy).await?;
        }
        self.write_buffered().await
    }

    fn buffer(&mut self, from: u16, entry: Replayed) {
        let Some(table) = self.tables.get(&entry.mutation.table) else {
            return;
        };
        if table
            .flushed_through
            .get(&from)
            .is_some_and(|through| entry.position < *through)
        {
            return;
        }
        let id = entry.mutation.table;
        let dropped = self.dropped.get(&from);
        if dropped.is_some_and(|dropped| dropped.covers(id, entry.position)) {
            return;
        }
        let shard = entry.mutation.key.token.shard(self.target);
        let memtable = self
            .buffered
            .entry((id, shard))
            .or_insert_with(|| Rc::new(Memtable::new()));
        self.memory = self
            .memory
            .saturating_add_signed(memtable.apply(entry.mutation, None));
    }

    async fn write_buffered(&mut self) -> Result<()> {
        let disk = self.env.disk();
        for ((id, shard), memtable) in std::mem::take(&mut self.buffered) {
            let Some(table) = self.tables.get(&id) else {
                continue;
            };
            let options = self.writer_options(
                id,
                memtable.partition_count() as u64,
                Compression::default(),
                0.01,
            );
            let options = WriterOptions {
                header: table.header.clone(),
                ..options
            };
            let descriptor = table.next_descriptor(shard);
            let mut writer = SstableWriter::create(disk.clone(), descriptor, options).await?;
            let (target, slices) = (ReadTarget::Range(PartitionRange::full()), [Slice::full()]);
            let mut reader = MemtableReader::new(memtable, whole_table(&target, &slices));
            while let Step::Fragment(fragment) = reader.step()? {
                writer.push(fragment)?;
                if writer.is_full() {
                    writer.write_out().await?;
                }
            }
            if let Some(descriptor) = writer.finish().await? {
                write_toc(&*disk, &descriptor).await?;
            }
        }
        self.memory = 0;
        Ok(())
    }

    fn writer_options(
        &self,
        table: TableId,
        expected_partitions: u64,
        compression: Compression,
        bloom_filter_fp_chance: f64,
    ) -> WriterOptions {
        WriterOptions {
            shard_count: self.target,
            compression,
            bloom_filter_fp_chance,
            expected_partitions,
            // Positions in the log of a shard of the old layout mean nothing in the new one.
            flushed_through: None,
            created_at: self.env.clock().unix_micros(),
            origin: Origin::Reshard,
            ..WriterOptions::new(table)
        }
    }

    async fn split_sstables(&self) -> Result<()> {
        for table in self.tables.values() {
            for descriptor in &table.sstables {
                let sstable = Sstable::open(self.env.clone(), descriptor.clone(), self.cache.clone()).await?;
                if sstable.statistics.shard_count != self.target {
                    self.split(table, sstable).await?;
                }
            }
            // A finished transaction must not come back: the shard that would finish it may be none of the new ones.
            self.env.disk().sync_dir(&table.path).await?;
        }
        Ok(())
    }

    async fn split(&self, table: &TableDir, sstable: Rc<Sstable>) -> Result<()> {
        let mut writers: BTreeMap<u16, SstableWriter> = BTreeMap::new();
        let (target, slices) = (ReadTarget::Range(PartitionRange::full()), [Slice::full()]);
        let disk_bytes = Cell::new(0);
        let scan = whole_table(&target, &slices);
        let mut reader = SstableReader::new(sstable.clone(), scan, false, &disk_bytes);
        let mut shard = 0;
        loop {
            let fragment = match reader.step()? {
                Step::End => break,
                Step::Load => {
                    reader.load().await?;
                    continue;
                }
                Step::Fragment(fragment) => fragment,
            };
            if let Fragment::PartitionStart(key, _) = &fragment {
                shard = self.writer_for(key, table, &sstable, &mut writers).await?;
            }
            let writer = writers.get_mut(&shard).expect("the partition's start made it");
            writer.push(fragment)?;
            if writer.is_full() {
                writer.write_out().await?;
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        drop(reader);
        let mut new = Vec::new();
        for writer in writers.into_values() {
            new.extend(writer.finish().await?);
        }
        let old = sstable.descriptor.clone();
        drop(sstable);
        let path = table
            .path
            .join(transaction::file_name(old.shard, table.next_number()));
        let pending = match Transaction::commit(&self.env, path, new, vec![old.clone()]).await {
            Ok(pending) => pending,
            // Either way the next start finds out and goes on.
            Err(CommitFailure::RolledBack(error) | CommitFailure::Uncertain(error)) => return Err(error),
        };
        remove_files(&*self.env.disk(), &old).await?;
        pending.remove_file().await
    }

    /// The shard of a partition; its writer is there afterwards.
    async fn writer_for(
        &self,
        key: &DecoratedKey,
        table: &TableDir,
        from: &Sstable,
        writers: &mut BTreeMap<u16, SstableWriter>,
    ) -> Result<u16> {
        let shard = key.token.shard(self.target);
        if let std::collections::btree_map::Entry::Vacant(vacant) = writers.entry(shard) {
            let old = &from.statistics;
            let options = self.writer_options(
                old.table,
                old.partitions,
                old.compression,
                old.bloom_filter_fp_chance,
            );
            let options = WriterOptions {
                repaired_at: old.repaired_at,
                pending_repair: old.pending_repair,
                header: old.header.clone(),
                ..options
            };
            let descriptor = table.next_descriptor(shard);
            vacant.insert(SstableWriter::create(self.env.disk(), descriptor, options).await?);
        }
        Ok(shard)
    }
}
