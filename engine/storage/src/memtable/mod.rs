//! The memtable: a table's newest writes, in memory, in the order of the sstable it will become.
//!
//! Invariants:
//! - Holds only its own copies: never a slice of a network or commitlog buffer.
//! - Always in normal form: merged, nothing shadowed kept.
//! - A partition is never seen half changed by a mutation: apply does not wait. (A reader takes partitions of up to
//!   [`reader::BATCH_MAX`] rows in one piece, larger ones in several.)
//! - Once it is being flushed nothing is applied to it any more.
//!
//! Partitions lie in a B-tree by token and key: one plain row as its bytes in one piece, the rows of other partitions in
//! a sorted vector while they are few and in a B-tree when they are many.

mod packed;
mod partition;
mod reader;
#[cfg(test)]
mod tests;

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, Deref};
use std::time::Instant;

use bytes::Bytes;
use ceto_model::{ClusteringKey, DecoratedKey, Mutation, PartitionKey, RingPosition, Row, Timestamp, Token};

use crate::commitlog::ReplayPosition;
use crate::reader::{Answer, Flow, Fragment, Scan};
pub(crate) use packed::Stored;
pub(crate) use partition::{MemtablePartition, own_bytes};
pub(crate) use reader::MemtableReader;

/// Memory of one partition beside its content: its share of a B-tree node and the key's allocation, in bytes.
const PARTITION_OVERHEAD: usize = 2 * size_of::<(DecoratedKey, Stored)>();
/// Scratch space kept between writes, in bytes.
const SCRATCH_MAX: usize = 1 << 20;

/// One table's writes since its last flush.
pub(crate) struct Memtable {
    partitions: RefCell<BTreeMap<DecoratedKey, Stored>>,
    /// Where rows are packed.
    scratch: RefCell<Vec<u8>>,
    memory: Cell<usize>,
    operations: Cell<u64>,
    cells: Cell<u64>,
    min_timestamp: Cell<Timestamp>,
    first_position: Cell<Option<ReplayPosition>>,
    /// When the first write came.
    first_write: Cell<Option<Instant>>,
    /// Has a part of writes that are one with writes of other tables.
    has_parts: Cell<bool>,
}

impl Memtable {
    /// An empty one.
    pub(crate) fn new() -> Memtable {
        Memtable {
            partitions: RefCell::default(),
            scratch: RefCell::default(),
            memory: Cell::new(0),
            operations: Cell::new(0),
            cells: Cell::new(0),
            min_timestamp: Cell::new(Timestamp(i64::MAX)),
            first_position: Cell::new(None),
            first_write: Cell::new(None),
            has_parts: Cell::new(false),
        }
    }

    /// Merges a mutation in; `position` is where it stands in the commitlog, when it does. Returns by how many bytes
    /// the memory in use grew (or shrank).
    pub(crate) fn apply(&self, mutation: Mutation, position: Option<ReplayPosition>) -> isize {
        if self.first_position.get().is_none() {
            self.first_position.set(position);
        }
        let min_timestamp = partition::min_timestamp(&mutation.partition);
        self.min_timestamp
            .set(self.min_timestamp.get().min(min_timestamp));
        self.operations.set(self.operations.get() + 1);
        self.cells
            .set(self.cells.get() + partition::cell_count(&mutation.partition));
        let mut partitions = self.partitions.borrow_mut();
        let scratch = &mut *self.scratch.borrow_mut();
        let grown = match partitions.get_mut(&mutation.key) {
            Some(partition) => partition.apply(mutation.partition, scratch),
            None => {
                let (partition, grown) = Stored::new(mutation.partition, scratch);
                let key = DecoratedKey {
                    token: mutation.key.token,
                    key: PartitionKey(Bytes::copy_from_slice(&mutation.key.key.0)),
                };
                let overhead = PARTITION_OVERHEAD + key.key.0.len();
                partitions.insert(key, partition);
                grown + overhead as isize
            }
        };
        scratch.shrink_to(SCRATCH_MAX);
        let memory = self.memory.get().saturating_add_signed(grown);
        let actual = memory as isize - self.memory.get() as isize;
        self.memory.set(memory);
        actual
    }

    /// Notes when the first write came.
    pub(crate) fn note_write(&self, now: impl FnOnce() -> Instant) {
        if self.first_write.get().is_none() {
            self.first_write.set(Some(now()));
        }
    }

    /// Notes that it has a part of writes that are one with writes of other tables, an index's among them.
    pub(crate) fn note_part(&self) {
        self.has_parts.set(true);
    }

    /// It is not to be on disk before the commitlog.
    pub(crate) fn has_parts(&self) -> bool {
        self.has_parts.get()
    }

    /// When the first write came.
    pub(crate) fn first_write(&self) -> Option<Instant> {
        self.first_write.get()
    }

    /// Bytes of memory, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.memory.get()
    }

    /// Nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.operations.get() == 0
    }

    /// Cells of all writes applied.
    pub(crate) fn cells(&self) -> u64 {
        self.cells.get()
    }

    /// Partitions in it.
    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.borrow().len()
    }

    /// No write in it has an older timestamp.
    pub(crate) fn min_timestamp(&self) -> Timestamp {
        self.min_timestamp.get()
    }

    /// Where its first write stands in the commitlog.
    pub(crate) fn first_position(&self) -> Option<ReplayPosition> {
        self.first_position.get()
    }

    /// Has something of this partition.
    pub(crate) fn contains(&self, key: &DecoratedKey) -> bool {
        self.partitions.borrow().contains_key(key)
    }

    /// Answers a read of one partition that lies nowhere else, without copying what the answer does not need. False
    /// (and nothing is answered) when the partition has range deletions: then it must be read as a stream.
    pub(crate) fn answer(&self, key: &DecoratedKey, scan: Scan<'_>, answer: &mut Answer<'_>) -> bool {
        let partitions = self.partitions.borrow();
        let partition = match partitions.get(key) {
            None => return true,
            Some(Stored::Packed(packed)) => {
                answer.start(key.clone(), None);
                let (key, row) = packed.row();
                let is_wanted = scan.slices.iter().any(|slice| slice.contains(&key));
                if !is_wanted || answer.plain_row(key, row) == Flow::Continue {
                    answer.end();
                }
                return true;
            }
            Some(Stored::Open(partition)) => partition,
        };
        if !partition.range_tombstones.is_empty() {
            return false;
        }
        answer.start(key.clone(), partition.deletion);
        if let Some(row) = &partition.static_row {
            answer.push(Fragment::StaticRow((**row).clone()));
        }
        let mut take = |(key, row): (&ClusteringKey, &Row)| answer.row_at(key, row) == Flow::Continue;
        let is_whole = if scan.reversed {
            scan.slices
                .iter()
                .rev()
                .all(|slice| partition.rows.within(slice).rev().all(&mut take))
        } else {
            scan.slices
                .iter()
                .all(|slice| partition.rows.within(slice).all(&mut take))
        };
        if is_whole {
            answer.end();
        }
        true
    }

    /// The next `count` keys behind another, or the first ones.
    pub(crate) fn keys_behind(&self, last: Option<&DecoratedKey>, count: usize) -> Vec<DecoratedKey> {
        let partitions = self.partitions.borrow();
        let lower = last.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = partitions.range((lower, Bound::Unbounded)).map(|(key, _)| key);
        keys.take(count).cloned().collect()
    }

    /// What `look` makes of a partition; None when it is not here.
    pub(crate) fn with_partition<T>(
        &self,
        key: &DecoratedKey,
        look: impl FnOnce(&MemtablePartition) -> T,
    ) -> Option<T> {
        self.partition(key).map(|partition| look(&partition))
    }

    /// Shows partitions behind `after`, in order, until `look` wants no more. Nothing is copied, and nothing may wait
    /// meanwhile.
    pub(crate) fn look_behind(
        &self,
        after: Option<&DecoratedKey>,
        look: impl FnMut((&DecoratedKey, &Stored)) -> ControlFlow<()>,
    ) {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let partitions = self.partitions.borrow();
        let _ = partitions.range((lower, Bound::Unbounded)).try_for_each(look);
    }

    /// Looks at a byte of everything that the next `count` partitions behind `after` are made of. They lie scattered in
    /// memory; when little is done with each, the processor fetches the parts of several at a time, so that whoever
    /// goes through them next does not wait for each part of each.
    pub(crate) fn warm(&self, after: Option<&DecoratedKey>, count: usize) {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let partitions = self.partitions.borrow();
        let some = partitions.range((lower, Bound::Unbounded)).take(count);
        let touched = some.map(|(key, partition)| {
            key.key.0.first().map_or(0, |byte| usize::from(*byte)) + partition.touch()
        });
        std::hint::black_box(touched.sum::<usize>());
    }

    /// Its partitions, to be dropped one by one: freeing all of them takes longer than a shard may be kept busy.
    pub(crate) fn into_partitions(self) -> impl Iterator<Item = (DecoratedKey, Stored)> {
        self.partitions.into_inner().into_iter()
    }

    /// A partition, while the borrow lasts.
    fn partition(&self, key: &DecoratedKey) -> Option<Opened<'_>> {
        let stored = Ref::filter_map(self.partitions.borrow(), |partitions| partitions.get(key)).ok()?;
        if let Stored::Packed(packed) = &*stored {
            return Some(Opened::Copy(packed.open()));
        }
        let open = Ref::filter_map(stored, |stored| match stored {
            Stored::Open(open) => Some(&**open),
            Stored::Packed(_) => None,
        });
        open.ok().map(Opened::Own)
    }

    /// The first key after a point of the ring.
    fn key_after(&self, point: &RingPosition) -> Option<DecoratedKey> {
        let first_of = |token| DecoratedKey {
            token,
            key: PartitionKey(Bytes::new()),
        };
        let lower = match point {
            RingPosition::BeforeToken(token) => Bound::Included(first_of(*token)),
            RingPosition::AfterToken(token) => Bound::Included(first_of(Token(token.0.checked_add(1)?))),
            RingPosition::BeforeKey(key) => Bound::Included(key.clone()),
            RingPosition::AfterKey(key) => Bound::Excluded(key.clone()),
        };
        let partitions = self.partitions.borrow();
        let (key, _) = partitions.range((lower, Bound::Unbounded)).next()?;
        Some(key.clone())
    }
}

/// A partition that is looked at.
enum Opened<'a> {
    Own(Ref<'a, MemtablePartition>),
    /// Of one that is packed.
    Copy(MemtablePartition),
}

impl Deref for Opened<'_> {
    type Target = MemtablePartition;

    fn deref(&self) -> &MemtablePartition {
        match self {
            Opened::Own(own) => own,
            Opened::Copy(copy) => copy,
        }
    }
}
