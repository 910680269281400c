//! Memtables to sstables.
//!
//! A table's memtables are flushed one after the other, oldest first, so that what an sstable says about the commitlog
//! (`flushed_through`) covers all before it. On a full disk a flush tries again until there is space; what it cannot
//! read back it removes and writes again, a few times; after any other failure the shard writes no more.
//!
//! Never: writes a memtable again while files of an earlier try are there. They would count after a restart, beside
//! tombstones that were purged because nothing else was left to shadow.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::TaskQueue;
use ceto_model::{DecoratedKey, ReadTarget, Slice, TableId};

use crate::commitlog::ReplayPosition;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::memtable::{Memtable, MemtablePartition, MemtableReader, Stored};
use crate::reader::{Fragment, FragmentSource, Scan, Step};
use crate::sstable::{
    Compression, Descriptor, Origin, PartitionLimits, SerializationHeader, Sstable, SstableWriter,
    WriterOptions, remove_files, write_toc,
};
use crate::table::{Flushing, TableStore, add};
use crate::wait::{Event, Pace};

/// Rows of given-up tables taken out of the cache at once.
const CLEANED_AT_ONCE: usize = 64;
/// Small partitions written before the clock is asked whether to give way.
const BATCH: u32 = 64;
/// Time between tries on a full disk.
const RETRY: Duration = Duration::from_secs(1);
/// How often a memtable is written when what was written cannot be read back.
const WRITES_MAX: u32 = 3;

/// Flushes of a shard.
#[derive(Default)]
pub(crate) struct Flushes {
    /// Tables with memtables to be flushed. Bounded by the number of tables.
    queue: RefCell<VecDeque<Rc<TableStore>>>,
    workers: Cell<usize>,
    /// Bytes of memtables on their way.
    flushing_memory: Cell<usize>,
    /// A flush ended, well or not.
    done: Event,
    /// Tries to write a memtable so far.
    tries: Cell<u64>,
    /// Why flushes wait, when the disk is full, and the number of the try that found it.
    disk_full: RefCell<Option<(u64, Error)>>,
}

impl Flushes {
    /// Fails while flushes wait for disk space.
    pub(crate) fn check_disk(&self) -> Result<()> {
        match &*self.disk_full.borrow() {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Fails when a try later than number `tries` found no disk space: there may be some since an earlier one.
    fn check_disk_since(&self, tries: u64) -> Result<()> {
        match &*self.disk_full.borrow() {
            Some((at, error)) if *at > tries => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// A memtable's memory is no longer on its way to disk.
    pub(crate) fn forget(&self, memory: usize) {
        self.flushing_memory
            .set(self.flushing_memory.get().saturating_sub(memory));
    }

    /// Tables waiting or being flushed.
    pub(crate) fn pending(&self) -> usize {
        self.queue.borrow().len() + self.workers.get()
    }
}

impl Database {
    /// Starts flushes when memory or commitlog fill up.
    pub(crate) fn flush_when_due(&self) {
        let dirty = self
            .memory
            .get()
            .saturating_sub(self.flushes.flushing_memory.get());
        let threshold = self.memtable_limit.get() as f64 * self.options.memtable_cleanup_threshold;
        if dirty as f64 > threshold {
            self.flush_largest();
        }
        if self.commitlog.take_segment_switch() {
            self.relieve_commitlog();
        }
    }

    fn flush_largest(&self) {
        let tables = self.tables.borrow();
        let largest = tables
            .values()
            .max_by_key(|table| table.active().memory())
            .cloned();
        drop(tables);
        if let Some(table) = largest {
            self.start_flush(&table);
        }
    }

    /// Flushes the tables that hold the oldest commitlog segments, when the log nears its size limit.
    pub(crate) fn relieve_commitlog(&self) {
        let Some(segment) = self.commitlog.pressure() else {
            return;
        };
        let holders: Vec<Rc<TableStore>> = {
            let tables = self.tables.borrow();
            let holds = |table: &&Rc<TableStore>| {
                table
                    .active()
                    .first_position()
                    .is_some_and(|position| position.segment <= segment)
            };
            tables.values().filter(holds).cloned().collect()
        };
        holders.iter().for_each(|table| self.start_flush(table));
        self.release_segments();
    }

    /// Takes the active memtable out of use and queues it.
    pub(crate) fn start_flush(&self, table: &Rc<TableStore>) {
        let Some(flushing) = table.switch_memtable(self.flushed_position(table)) else {
            return;
        };
        let memory = &self.flushes.flushing_memory;
        memory.set(memory.get() + flushing.memtable.memory());
        self.flushes.queue.borrow_mut().push_back(table.clone());
        if self.flushes.workers.get() < self.options.concurrent_flushes.max(1) {
            self.flushes.workers.set(self.flushes.workers.get() + 1);
            let this = self.this.upgrade().expect("a method of a living database runs");
            let worker = async move { this.work_on_flushes().await };
            self.env.tasks().spawn(TaskQueue::MemtableFlush, Box::pin(worker));
        }
    }

    /// Up to where the commitlog will not be needed for this table once its active memtable is flushed.
    fn flushed_position(&self, table: &TableStore) -> ReplayPosition {
        match &*self.recovery.borrow() {
            Some(recovery) if !table.is_recovered.get() => recovery.replayed_through(),
            _ => self.commitlog.end(),
        }
    }

    async fn work_on_flushes(&self) {
        loop {
            let Some(table) = self.flushes.queue.borrow_mut().pop_front() else {
                break;
            };
            if table.is_flushing.replace(true) {
                continue;
            }
            let (mut leftover, mut unreadable) = (None, 0);
            while let Some(flushing) = table.oldest_flushing() {
                let tries = self.flushes.tries.get() + 1;
                self.flushes.tries.set(tries);
                match self.flush_memtable(&table, &flushing, &mut leftover).await {
                    Ok(()) => {
                        unreadable = 0;
                        *self.flushes.disk_full.borrow_mut() = None;
                        self.bury(flushing);
                    }
                    Err(error) if error.is_disk_full() => self.note_disk_full(tries, error).await,
                    Err(error)
                        if is_unreadable(&error) && leftover.is_none() && unreadable + 1 < WRITES_MAX =>
                    {
                        unreadable += 1;
                        tracing::warn!("a memtable of {} is written again: {error}", table.name());
                    }
                    Err(error) => {
                        self.poison.stop_writes(&error);
                        self.room.notify();
                        self.flushes.done.notify();
                        return;
                    }
                }
                self.flushes.done.notify();
            }
            table.is_flushing.set(false);
        }
        self.flushes.workers.set(self.flushes.workers.get() - 1);
    }

    /// Frees a flushed memtable bit by bit, unless a read still has it.
    fn bury(&self, flushed: Flushing) {
        let Some(memtable) = Rc::into_inner(flushed.memtable) else {
            return;
        };
        let (env, mut partitions) = (self.env.clone(), memtable.into_partitions());
        let burial = async move {
            while partitions.by_ref().take(BATCH as usize).last().is_some() {
                if let Some(turn) = env.tasks().yield_if_due() {
                    turn.await;
                }
            }
        };
        self.env.tasks().spawn(TaskQueue::MemtableFlush, Box::pin(burial));
    }

    async fn note_disk_full(&self, tries: u64, error: Error) {
        if self.flushes.disk_full.borrow().is_none() {
            tracing::error!("cannot flush a memtable: {error}");
        }
        *self.flushes.disk_full.borrow_mut() = Some((tries, error));
        self.room.notify();
        self.flushes.done.notify();
        self.env.tasks().sleep(RETRY).await;
    }

    /// Flushes one memtable. What a failed try could not remove is `leftover`: the next one begins with it.
    async fn flush_memtable(
        &self,
        table: &Rc<TableStore>,
        flushing: &Flushing,
        leftover: &mut Option<Descriptor>,
    ) -> Result<()> {
        if let Some(files) = leftover {
            remove_files(&*self.env.disk(), files).await?;
            *leftover = None;
        }
        let era = table.era();
        let descriptor = table.next_descriptor();
        let written = self.write_flushed(table, flushing, descriptor.clone()).await;
        let is_void = !table.is_in(&era);
        let sstable = match written {
            Ok(sstable) if !is_void => sstable,
            failed => {
                if let Err(error) = remove_files(&*self.env.disk(), &descriptor).await {
                    tracing::warn!("cannot remove what a flush left: {error}");
                    if is_void {
                        // The truncation's record stays for it.
                        std::mem::forget(era);
                    } else {
                        *leftover = Some(descriptor);
                    }
                }
                return if is_void { Ok(()) } else { failed.map(|_| ()) };
            }
        };
        if let Some(sstable) = &sstable {
            add(&table.counters.flushes, 1);
            add(&table.counters.flushed_bytes, sstable.data_size());
        }
        table.finish_flush(flushing, sstable.clone());
        self.release_segments();
        self.compact_when_due(table);
        self.flushes.done.notify();
        if sstable.is_some() {
            self.merge_into_cache(table, flushing).await;
        }
        if table.is_in(&era) {
            self.forget_memtable(flushing);
        }
        Ok(())
    }

    /// Takes apart what the cache has given up, bit by bit.
    pub(crate) fn clean_cache(&self) {
        let (env, cache) = (self.env.clone(), self.row_cache.clone());
        let task = async move {
            while cache.bury(CLEANED_AT_ONCE) {
                if let Some(turn) = env.tasks().yield_if_due() {
                    turn.await;
                }
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    /// Tells the cache what was flushed.
    async fn merge_into_cache(&self, table: &TableStore, flushed: &Flushing) {
        let era = table.era();
        let tasks = self.env.tasks();
        table.cache.merge_memtable(&flushed.memtable, tasks).await;
        if table.is_in(&era) {
            table.finish_merge();
        }
    }

    /// The memtable as an sstable that counts; None when it held nothing.
    async fn write_flushed(
        &self,
        table: &TableStore,
        flushing: &Flushing,
        descriptor: Descriptor,
    ) -> Result<Option<Rc<Sstable>>> {
        let disk = self.env.disk();
        let partitions = flushing.memtable.partition_count() as u64;
        let mut options = self.writer_options(table, partitions, Some(flushing.through));
        options.origin = Origin::Flush;
        let mut writer = SstableWriter::create(disk.clone(), descriptor, options).await?;
        self.write_memtable(flushing, &mut writer).await?;
        let Some(descriptor) = writer.finish().await? else {
            return Ok(None);
        };
        if flushing.memtable.has_parts()
            && let Err(error) = self.commitlog.sync().await
        {
            // The operator may want that passed over.
            self.poison.check()?;
            tracing::warn!("parts of writes are flushed without the others on disk: {error}");
        }
        write_toc(&*disk, &descriptor).await?;
        let sstable = Sstable::open(self.env.clone(), descriptor, self.cache.clone()).await?;
        self.back_up(table, &sstable).await;
        Ok(Some(sstable))
    }

    /// A memtable's memory is free.
    pub(crate) fn forget_memtable(&self, flushing: &Flushing) {
        let size = flushing.memtable.memory();
        self.flushes.forget(size);
        self.memory.set(self.memory.get().saturating_sub(size));
        self.balance();
        self.room.notify();
    }

    async fn write_memtable(&self, flushing: &Flushing, writer: &mut SstableWriter) -> Result<()> {
        let mut last: Option<DecoratedKey> = None;
        loop {
            let batch = write_small_partitions(&flushing.memtable, last.as_ref(), writer)?;
            if writer.is_full() {
                writer.write_out().await?;
            }
            match batch {
                Batch::End => return Ok(()),
                Batch::Through(key) => last = Some(key),
                Batch::Before(key) => {
                    let target = ReadTarget::Partition(key);
                    self.write_partition(flushing, &target, writer).await?;
                    if let ReadTarget::Partition(key) = target {
                        last = Some(key);
                    }
                }
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
    }

    /// Writes a partition that is not small.
    async fn write_partition(
        &self,
        flushing: &Flushing,
        target: &ReadTarget,
        writer: &mut SstableWriter,
    ) -> Result<()> {
        let slices = [Slice::full()];
        let scan = Scan {
            target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let mut reader = MemtableReader::new(flushing.memtable.clone(), scan);
        let mut pace = Pace::default();
        while let Step::Fragment(fragment) = reader.step()? {
            writer.push(fragment)?;
            if writer.is_full() {
                writer.write_out().await?;
            }
            if let Some(turn) = pace.step(self.env.tasks()) {
                turn.await;
            }
        }
        Ok(())
    }

    /// What is logged of partitions that are written from now on.
    pub fn set_partition_limits(&self, limits: PartitionLimits) {
        self.partition_limits.replace(Rc::new(limits));
    }

    /// How sstables of a table are written now by a compaction; a flush says so itself.
    pub(crate) fn writer_options(
        &self,
        table: &TableStore,
        expected_partitions: u64,
        flushed_through: Option<ReplayPosition>,
    ) -> WriterOptions {
        let definition = table.definition();
        let compression =
            Compression::from_options(&definition.options.compression).unwrap_or_else(|error| {
                tracing::warn!("table {}: {error}; LZ4 is used", table.name());
                Compression::default()
            });
        let now = self.env.clock().unix_micros();
        WriterOptions {
            shard_count: self.options.shard_count,
            compression,
            bloom_filter_fp_chance: definition.options.bloom_filter_fp_chance,
            expected_partitions,
            flushed_through,
            created_at: now,
            origin: Origin::Compaction,
            dictionary: table.dictionary(now),
            header: Some(Rc::new(SerializationHeader::of(&definition))),
            limits: self.partition_limits.borrow().clone(),
            ..WriterOptions::new(table.id)
        }
    }

    /// Lets the commitlog reuse what no table needs. After a failure that stopped writes nothing goes any more: what memory
    /// says may not be what is on disk, and the next start needs the log for the latter.
    pub(crate) fn release_segments(&self) {
        if self.recovery.borrow().is_some() || self.poison.check().is_err() {
            return;
        }
        let tables = self.tables.borrow();
        let needed = tables.values().filter_map(|table| table.needed_segment()).min();
        self.commitlog.release_before(needed.unwrap_or(u64::MAX));
    }

    /// Flushes one table, or all of them, and waits for it.
    pub async fn flush(&self, table: Option<TableId>) -> Result<()> {
        let tables: Vec<Rc<TableStore>> = match table {
            Some(id) => vec![self.table(id)?],
            None => self.tables.borrow().values().cloned().collect(),
        };
        tables.iter().for_each(|table| self.start_flush(table));
        for table in tables {
            let last = table.view().flushing.back().cloned();
            if let Some(last) = last {
                self.wait_flushed(&table, &last).await?;
            }
        }
        Ok(())
    }

    /// Waits until a memtable is flushed, or void. On a full disk it waits for one more try, then fails.
    pub(crate) async fn wait_flushed(&self, table: &TableStore, flushing: &Flushing) -> Result<()> {
        let tries = self.flushes.tries.get();
        loop {
            let done = self.flushes.done.listen();
            let is_pending = table
                .view()
                .flushing
                .iter()
                .any(|other| Rc::ptr_eq(&other.memtable, &flushing.memtable));
            if !is_pending {
                return Ok(());
            }
            self.poison.check()?;
            self.flushes.check_disk_since(tries)?;
            done.await;
        }
    }

    /// Makes every write that was acknowledged so far survive power loss.
    pub async fn sync(&self) -> Result<()> {
        self.flush_replayed().await?;
        self.commitlog.sync().await
    }

    /// What was replayed lies in segments that an earlier process may not have synced: until it is in sstables, nothing
    /// vouches for it.
    async fn flush_replayed(&self) -> Result<()> {
        let own = self.commitlog.first_own_segment();
        let is_replayed = |memtable: &Memtable| {
            let first = memtable.first_position();
            first.is_some_and(|position| position.segment < own)
        };
        let tables: Vec<Rc<TableStore>> = self.tables.borrow().values().cloned().collect();
        for table in tables {
            if is_replayed(&table.active()) {
                self.start_flush(&table);
            }
            let replayed = {
                let view = table.view();
                let mut newest_first = view.flushing.iter().rev();
                newest_first
                    .find(|flushing| is_replayed(&flushing.memtable))
                    .cloned()
            };
            if let Some(replayed) = replayed {
                self.wait_flushed(&table, &replayed).await?;
            }
        }
        Ok(())
    }

    /// Flushes everything and takes no more writes.
    pub async fn drain(&self) -> Result<()> {
        self.is_closed.set(true);
        self.room.notify();
        self.commitlog.sync().await?;
        self.compactions.stop().await;
        self.flush(None).await?;
        self.release_segments();
        while self.commitlog.mark_free().await? {}
        self.commitlog.close();
        Ok(())
    }
}

/// What was written may be fine elsewhere on the device.
fn is_unreadable(error: &Error) -> bool {
    match error {
        Error::Disk(error) => matches!(error.operation, "read" | "open"),
        Error::Corrupt(_) => true,
        _ => false,
    }
}

/// How far a batch of small partitions reached.
enum Batch {
    /// To the end of the memtable.
    End,
    /// Through this partition.
    Through(DecoratedKey),
    /// To this one, which is not small.
    Before(DecoratedKey),
}

/// Writes small partitions behind `after` without waiting, as many as take well below 200 us.
fn write_small_partitions(
    memtable: &Memtable,
    after: Option<&DecoratedKey>,
    writer: &mut SstableWriter,
) -> Result<Batch> {
    memtable.warm(after, BATCH as usize);
    let (mut outcome, mut left) = (Ok(Batch::End), BATCH);
    memtable.look_behind(after, |(key, stored)| {
        let written = match stored {
            Stored::Packed(packed) => match writer.push_encoded(key, packed.encoded()) {
                Ok(false) => write_small_partition(key, &packed.open(), writer),
                written => written.map(|_| ()),
            },
            Stored::Open(partition) if partition.is_small() => write_small_partition(key, partition, writer),
            Stored::Open(_) => {
                outcome = Ok(Batch::Before(key.clone()));
                return ControlFlow::Break(());
            }
        };
        left = left.saturating_sub(1);
        match written {
            Ok(()) if left > 0 && !writer.is_full() => return ControlFlow::Continue(()),
            Ok(()) => outcome = Ok(Batch::Through(key.clone())),
            Err(error) => outcome = Err(error),
        }
        ControlFlow::Break(())
    });
    outcome
}

fn write_small_partition(
    key: &DecoratedKey,
    partition: &MemtablePartition,
    writer: &mut SstableWriter,
) -> Result<()> {
    writer.push_start(key, partition.deletion)?;
    if let Some(row) = &partition.static_row {
        writer.push(Fragment::StaticRow((**row).clone()))?;
    }
    for (key, row) in partition.rows.within(&Slice::full()) {
        writer.push_row(key, row)?;
    }
    writer.push(Fragment::PartitionEnd)
}
