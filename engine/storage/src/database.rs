//! The write path of one shard: commitlog, memtable, acknowledgement.
//!
//! Invariants:
//! - What [`Database::apply`] acknowledged is in the commitlog (unless its keyspace says otherwise) and in a memtable.
//! - A write either happens in full or is refused in full.
//! - Memory for memtables and the size of the commitlog are bounded: writes wait at the bound, at most
//!   `waiting_writes_max` of them, `waiting_writes_space` bytes beside the last one, and no longer than `write_wait_max`.
//!
//! Read next: `flush` for how memtables leave, `read` for the read path, `recovery` for the start.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ceto_env::{Env, LocalFuture};
use ceto_model::{Mutation, Schema, TableId};
use rustc_hash::FxHashMap;

use crate::cache::RowCache;
use crate::commitlog::{Appended, Commitlog, ReplayPosition};
use crate::compaction::Compactions;
use crate::dropped::DroppedTables;
use crate::error::{Error, Result};
use crate::flush::Flushes;
use crate::options::StorageOptions;
use crate::permits::{PermitLimits, ReadPermits};
use crate::poison::{Poison, StorageFailure};
use crate::recovery::Recovery;
use crate::removal::FoldersInHand;
use crate::sstable::{BlockCache, PartitionLimits};
use crate::table::{TableStore, add};
use crate::wait::{Event, either};

/// One shard's storage.
pub struct Database {
    pub(crate) this: Weak<Database>,
    pub(crate) env: Rc<dyn Env>,
    pub(crate) options: StorageOptions,
    pub(crate) poison: Poison,
    pub(crate) commitlog: Rc<Commitlog>,
    pub(crate) dropped: DroppedTables,
    pub(crate) folders: FoldersInHand,
    pub(crate) tables: RefCell<FxHashMap<TableId, Rc<TableStore>>>,
    pub(crate) schema: RefCell<Arc<Schema>>,
    pub(crate) cache: Rc<BlockCache>,
    pub(crate) row_cache: Rc<RowCache>,
    /// What is left to replay, until recovery is finished.
    pub(crate) recovery: RefCell<Option<Recovery>>,
    pub(crate) flushes: Flushes,
    pub(crate) compactions: Compactions,
    /// Compactions chosen that have not begun to run.
    pub(crate) compactions_starting: Cell<usize>,
    /// Bytes of all memtables, those being flushed too.
    pub(crate) memory: Cell<usize>,
    /// Memory was freed, or writes were stopped.
    pub(crate) room: Event,
    waiting_writes: Cell<usize>,
    pub(crate) incremental_backups: Cell<bool>,
    pub(crate) partition_limits: RefCell<Rc<PartitionLimits>>,
    waiting_write_bytes: Cell<usize>,
    pub(crate) writes_timed_out: Cell<u64>,
    pub(crate) permits: ReadPermits,
    /// Bytes of memtables when the caches were last told what is left for them.
    pub(crate) balanced_at: Cell<usize>,
    /// Bytes of the budget that storage does without, because the process needs them elsewhere.
    pub(crate) withheld: Cell<usize>,
    /// Bound of memtables: what is left of `memtable_space`.
    pub(crate) memtable_limit: Cell<usize>,
    /// Bytes of filters and indexes of open sstables, as of the last look.
    pub(crate) sstable_memory: Cell<usize>,
    /// Bytes of the graphs of vectors, as of the last look.
    pub(crate) vector_memory: Cell<usize>,
    pub(crate) is_closed: Cell<bool>,
}

/// How a write that was taken ends.
pub enum Applied {
    /// Acknowledge it.
    Done,
    /// Acknowledge it when this completes.
    Later(LocalFuture<'static, Result<()>>),
}

impl Database {
    pub(crate) fn new(
        env: Rc<dyn Env>,
        options: StorageOptions,
        poison: Poison,
        commitlog: Rc<Commitlog>,
        dropped: DroppedTables,
    ) -> Rc<Database> {
        let permits = ReadPermits::new(PermitLimits {
            count: options.concurrent_reads,
            memory: options.read_space,
            queue: options.waiting_reads_max,
            wait: options.read_wait_max,
        });
        Rc::new_cyclic(|this| Database {
            this: this.clone(),
            cache: Rc::new(BlockCache::new(options.block_cache_size)),
            row_cache: RowCache::new(options.row_cache_size.min(options.memory_space)),
            compactions: Compactions::new(options.compaction_throughput),
            incremental_backups: Cell::new(options.incremental_backups),
            partition_limits: RefCell::new(Rc::new(options.partition_limits)),
            memtable_limit: Cell::new(options.memtable_space),
            env,
            options,
            poison,
            commitlog,
            dropped,
            folders: FoldersInHand::default(),
            tables: RefCell::default(),
            schema: RefCell::default(),
            recovery: RefCell::default(),
            flushes: Flushes::default(),
            compactions_starting: Cell::new(0),
            memory: Cell::new(0),
            room: Event::default(),
            waiting_writes: Cell::new(0),
            waiting_write_bytes: Cell::new(0),
            writes_timed_out: Cell::new(0),
            permits,
            balanced_at: Cell::new(0),
            withheld: Cell::new(0),
            sstable_memory: Cell::new(0),
            vector_memory: Cell::new(0),
            is_closed: Cell::new(false),
        })
    }

    /// Applies a write. On the fast path (periodic sync, room in commitlog and memory) without waiting.
    pub fn apply(&self, mutation: Mutation) -> Result<Applied> {
        let table = self.writable(mutation.table)?;
        if self.memory.get() >= self.memtable_limit.get() {
            return self.apply_later(mutation);
        }
        let Some(position) = self.append(&table, &mutation)? else {
            return self.apply_later(mutation);
        };
        self.insert(&table, mutation, position);
        Ok(self.acknowledge(position))
    }

    /// Applies a write and waits until it may be acknowledged.
    pub async fn write(&self, mutation: Mutation) -> Result<()> {
        match self.apply(mutation)? {
            Applied::Done => Ok(()),
            Applied::Later(done) => done.await,
        }
    }

    pub(crate) fn writable(&self, id: TableId) -> Result<Rc<TableStore>> {
        self.check_writable()?;
        self.table(id)
    }

    fn check_writable(&self) -> Result<()> {
        self.poison.check()?;
        if self.is_closed.get() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// A table's storage.
    pub(crate) fn table(&self, id: TableId) -> Result<Rc<TableStore>> {
        self.tables
            .borrow()
            .get(&id)
            .cloned()
            .ok_or(Error::UnknownTable(id))
    }

    /// Appends to the commitlog, when the table wants that. None: there is no room now.
    fn append(&self, table: &TableStore, mutation: &Mutation) -> Result<Option<Option<ReplayPosition>>> {
        if !table.is_durable.get() {
            return Ok(Some(None));
        }
        match self.commitlog.append(std::slice::from_ref(mutation))? {
            Appended::At(position) => Ok(Some(Some(position))),
            Appended::NoRoom => Ok(None),
        }
    }

    /// Applies to the memtable, and starts flushes when that is due.
    pub(crate) fn insert(&self, table: &TableStore, mutation: Mutation, position: Option<ReplayPosition>) {
        self.insert_only(table, mutation, position);
        self.balance_when_due();
        self.flush_when_due();
    }

    pub(crate) fn insert_only(
        &self,
        table: &TableStore,
        mutation: Mutation,
        position: Option<ReplayPosition>,
    ) {
        self.insert_entries(table, &mutation, position);
        let grown = {
            let memtable = table.active();
            memtable.note_write(|| self.env.clock().now());
            memtable.apply(mutation, position)
        };
        self.memory.set(self.memory.get().saturating_add_signed(grown));
        add(&table.counters.writes, 1);
    }

    fn acknowledge(&self, position: Option<ReplayPosition>) -> Applied {
        match position {
            Some(position) if self.commitlog.acknowledges_after_sync() => {
                let log = self.commitlog.clone();
                Applied::Later(Box::pin(async move { log.wait_synced(position).await }))
            }
            _ => Applied::Done,
        }
    }

    /// Applies when there is room.
    fn apply_later(&self, mutation: Mutation) -> Result<Applied> {
        let overloaded = |limit, max| Err(Error::Overloaded { limit, max });
        let max = self.options.waiting_writes_max;
        if self.waiting_writes.get() >= max {
            return overloaded("waiting_writes_max", max);
        }
        let (size, max) = (mutation.memory_size(), self.options.waiting_writes_space);
        // The last one is taken whatever its size: a large write behind small ones would find no place otherwise.
        if self.waiting_write_bytes.get() >= max {
            return overloaded("waiting_writes_space", max);
        }
        let this = self.this.upgrade().expect("a method of a living database runs");
        let place = WaitingWrite::new(this.clone(), size);
        Ok(Applied::Later(Box::pin(async move {
            let applied = this.apply_when_room(mutation).await;
            drop(place);
            match applied? {
                Applied::Done => Ok(()),
                Applied::Later(synced) => synced.await,
            }
        })))
    }

    async fn apply_when_room(&self, mutation: Mutation) -> Result<Applied> {
        let mut mutation = Some(mutation);
        self.when_room(|| {
            let write = mutation.take().expect("what found room is not tried again");
            let table = self.writable(write.table)?;
            match self.append(&table, &write)? {
                Some(position) => {
                    self.insert(&table, write, position);
                    Ok(Some(self.acknowledge(position)))
                }
                None => {
                    mutation = Some(write);
                    Ok(None)
                }
            }
        })
        .await
    }

    /// What `attempt` gives when there is room in memory and, as it says by something, in the commitlog.
    pub(crate) async fn when_room<T>(&self, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = self.env.clock().now() + self.options.write_wait_max;
        let mut too_late = self.env.tasks().sleep(self.options.write_wait_max);
        loop {
            let (room, log_room) = (self.room.listen(), self.commitlog.room());
            self.check_writable()?;
            if self.memory.get() < self.memtable_limit.get() {
                if let Some(done) = attempt()? {
                    return Ok(done);
                }
                self.relieve_commitlog();
            } else {
                self.flushes.check_disk()?;
                // What filled it may not have been a write: reads delete entries of indexes, caches give memory back.
                self.flush_when_due();
            }
            either(either(room, log_room), &mut too_late).await;
            if self.env.clock().now() >= deadline {
                add(&self.writes_timed_out, 1);
                return Err(Error::WriteWaitedTooLong {
                    waited: self.options.write_wait_max,
                    memory: self.memory.get(),
                    memory_max: self.memtable_limit.get(),
                });
            }
        }
    }

    /// Completes at the first failure that concerns more than this shard's writes, as `commit_failure_policy` says.
    pub fn failed(&self) -> impl Future<Output = StorageFailure> + 'static {
        let poison = self.poison.clone();
        async move { poison.failed().await }
    }

    /// Writes that wait for room.
    pub(crate) fn waiting_writes(&self) -> usize {
        self.waiting_writes.get()
    }
}

/// A place among the writes that wait, given back when it is dropped (also by a write that is given up).
struct WaitingWrite(Rc<Database>, usize);

impl WaitingWrite {
    fn new(database: Rc<Database>, size: usize) -> WaitingWrite {
        database.waiting_writes.set(database.waiting_writes.get() + 1);
        let bytes = &database.waiting_write_bytes;
        bytes.set(bytes.get() + size);
        WaitingWrite(database, size)
    }
}

impl Drop for WaitingWrite {
    fn drop(&mut self) {
        self.0.waiting_writes.set(self.0.waiting_writes.get() - 1);
        let bytes = &self.0.waiting_write_bytes;
        bytes.set(bytes.get() - self.1);
    }
}
