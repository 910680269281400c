//! The row cache: what is on disk, row by row, in memory.
//!
//! For each table it holds a part of what the merge of all its sstables would yield, and it knows where that part has
//! holes: between two rows (or two partitions) that it keeps there is either nothing on disk, or it is not known. A read
//! merges the memtables with it, and goes to the sstables from the first hole on; what it finds there fills the hole.
//!
//! Invariants:
//! - Memtables, then cache, then sstables: what a write changed is in a memtable until it is in an sstable *and* the
//!   cache has been told. A memtable whose sstable is there stays in the view of readers while it is merged into the
//!   cache ([`update`]); merging is idempotent, so a reader may meet a write in both.
//! - What a reader brings from disk is kept only when no flush ended since the reader began (the table's *phase* is the
//!   same); and a reader that began before goes to its own sstables instead of the cache. So no reader sees a mixture
//!   of two times, and nothing that was flushed meanwhile is overlooked.
//! - Compaction changes nothing here: what it leaves is what was there, but for what had come of age. Truncation,
//!   dropping and sstables from elsewhere empty the table's part, in one step whatever its size.
//! - Never holds a borrow of anything across an await; never keeps bytes of a block or of a network buffer.
//!
//! Read next: `partition` for what is known of one, `eviction` for what is forgotten first, `reader` for how it is read
//! and filled.

mod entries;
mod eviction;
mod fill;
mod partition;
mod reader;
mod run;
mod table;
mod update;
mod walk;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ceto_model::DecoratedKey;

use crate::admission::Admission;
use eviction::Evictions;
use partition::CachedPartition;

pub(crate) use reader::{CacheReader, DiskSide, RestScan};
pub(crate) use table::{CacheLookup, TableCache};

/// A row that is larger than one part in this many of the cache is not kept.
const LARGEST_PART: usize = 8;
/// The cache is full when less than one part in this many of it is free: what forgets for room leaves a little.
const FREE_PART: usize = 32;
/// Bytes that a small partition takes, or so.
const BYTES_PER_PARTITION: usize = 512;

/// The cache of one shard: bounds, order of eviction, figures.
pub(crate) struct RowCache {
    evictions: RefCell<Evictions>,
    admission: RefCell<Admission>,
    /// Bytes of partitions beside their rows.
    heads: Cell<usize>,
    capacity: Cell<usize>,
    rows: Cell<u64>,
    partitions: Cell<u64>,
    counters: RowCacheCounters,
    /// Partitions of tables that were emptied, to be taken apart bit by bit.
    graves: RefCell<Vec<BTreeMap<DecoratedKey, Rc<CachedPartition>>>>,
}

/// What the cache did since start.
#[derive(Default)]
struct RowCacheCounters {
    hits: Cell<u64>,
    misses: Cell<u64>,
    row_insertions: Cell<u64>,
    row_evictions: Cell<u64>,
    partition_insertions: Cell<u64>,
    partition_evictions: Cell<u64>,
}

/// Figures of the row cache of one shard. Counts are since start, sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RowCacheStats {
    /// Memory in use.
    pub bytes: u64,
    /// Bound of it now: what memtables leave.
    pub bytes_max: u64,
    /// Rows in it.
    pub rows: u64,
    /// Partitions in it.
    pub partitions: u64,
    /// Reads that needed nothing from sstables.
    pub hits: u64,
    /// Reads that had to go to sstables.
    pub misses: u64,
    /// Rows taken in.
    pub row_insertions: u64,
    /// Rows forgotten for room.
    pub row_evictions: u64,
    /// Partitions taken in.
    pub partition_insertions: u64,
    /// Partitions forgotten for room.
    pub partition_evictions: u64,
}

impl RowCache {
    /// Of at most `capacity` bytes; 0: nothing is ever kept.
    pub(crate) fn new(capacity: usize) -> Rc<RowCache> {
        Rc::new(RowCache {
            evictions: RefCell::new(Evictions::new(capacity)),
            admission: RefCell::new(Admission::new(capacity / BYTES_PER_PARTITION)),
            heads: Cell::new(0),
            capacity: Cell::new(capacity),
            rows: Cell::new(0),
            partitions: Cell::new(0),
            counters: RowCacheCounters::default(),
            graves: RefCell::default(),
        })
    }

    /// Bytes in use.
    pub(crate) fn memory(&self) -> usize {
        self.evictions.borrow().bytes() + self.heads.get()
    }

    /// Bytes of its own lists, beside what they hold.
    pub(crate) fn overhead(&self) -> usize {
        self.evictions.borrow().overhead() + self.admission.borrow().memory()
    }

    /// Bytes that it may use, its lists included.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity.get()
    }

    /// Changes the bound; what is above it is forgotten with the next [`RowCache::shrink`].
    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.capacity.set(capacity);
    }

    /// There is room for more without forgetting anything.
    fn has_room(&self) -> bool {
        self.memory() + self.overhead() < self.capacity.get()
    }

    /// A partition of which nothing is kept is worth taking in: there is room, or it is read again.
    fn admits(&self, key: &DecoratedKey) -> bool {
        let capacity = self.capacity.get();
        self.memory() + self.overhead() < capacity - capacity / FREE_PART
            || self.admission.borrow_mut().admits(key.token.0 as u64)
    }

    /// Something of this size is kept.
    fn takes(&self, size: usize) -> bool {
        size <= self.capacity.get() / LARGEST_PART
    }

    /// Forgets until it is within its bound again. Call it after each thing taken in.
    pub(crate) fn shrink(&self) {
        // A place that is given up stays in the lists, free, and counts there.
        while self.memory() + self.overhead() > self.capacity.get() && self.forget_one() {}
    }

    /// Forgets what is due, or passes over it because it was used; false when nothing is left.
    fn forget_one(&self) -> bool {
        if self.bury(1) {
            return true;
        }
        let Some(candidate) = self.evictions.borrow().candidate() else {
            return false;
        };
        if candidate.owner.spend_use(candidate.place.as_deref()) {
            self.evictions.borrow_mut().keep(candidate.slot);
            return true;
        }
        self.evictions.borrow_mut().note_forgotten(&candidate);
        let (rows, partitions) = (self.rows.get(), self.partitions.get());
        candidate.owner.forget(self, candidate.place.as_deref());
        add(&self.counters.row_evictions, rows - self.rows.get());
        add(
            &self.counters.partition_evictions,
            partitions - self.partitions.get(),
        );
        true
    }

    /// Takes apart up to `max` things of emptied tables; false when nothing is left of them.
    pub(crate) fn bury(&self, max: usize) -> bool {
        let mut left = max;
        while left > 0 {
            let mut graves = self.graves.borrow_mut();
            let Some(grave) = graves.last_mut() else {
                return false;
            };
            let Some((key, partition)) = grave.first_key_value() else {
                graves.pop();
                continue;
            };
            let (key, partition) = (key.clone(), partition.clone());
            let mut editor = partition.edit(self);
            left -= editor.cut(left).max(1).min(left);
            if editor.state.entries.is_empty() {
                editor.detach();
                grave.remove(&key);
            }
        }
        true
    }

    /// Gives up a whole table's partitions.
    fn give_up(&self, partitions: BTreeMap<DecoratedKey, Rc<CachedPartition>>) {
        if !partitions.is_empty() {
            self.graves.borrow_mut().push(partitions);
        }
    }

    fn note_rows(&self, change: i64) {
        self.rows.set(self.rows.get().wrapping_add_signed(change));
        add(&self.counters.row_insertions, u64::try_from(change).unwrap_or(0));
    }

    fn note_partitions(&self, change: i64) {
        self.partitions
            .set(self.partitions.get().wrapping_add_signed(change));
        add(
            &self.counters.partition_insertions,
            u64::try_from(change).unwrap_or(0),
        );
    }

    /// A read needed nothing from sstables.
    pub(crate) fn note_hit(&self) {
        add(&self.counters.hits, 1);
    }

    /// A read went to sstables.
    fn note_miss(&self) {
        add(&self.counters.misses, 1);
    }

    /// Figures.
    pub(crate) fn stats(&self) -> RowCacheStats {
        RowCacheStats {
            bytes: (self.memory() + self.overhead()) as u64,
            bytes_max: self.capacity.get() as u64,
            rows: self.rows.get(),
            partitions: self.partitions.get(),
            hits: self.counters.hits.get(),
            misses: self.counters.misses.get(),
            row_insertions: self.counters.row_insertions.get(),
            row_evictions: self.counters.row_evictions.get(),
            partition_insertions: self.counters.partition_insertions.get(),
            partition_evictions: self.counters.partition_evictions.get(),
        }
    }
}

fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}
