//! One table's part of the cache: its partitions along the ring, and what is known of the ring between them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use ceto_model::{
    DecoratedKey, Deletion, PartitionKey, PartitionRange, ReadTarget, RingPosition, Row, Table, Token,
};

use super::RowCache;
use super::partition::CachedPartition;
use super::walk::{Cursor, Met, Walked, walk};
use crate::reader::{Answer, Flow, Fragment, Scan};

/// A table whose content is at most one part in this many of the cache is taken in by scans.
const SCANNED_PART: u64 = 4;

/// What the cache can say to a read of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CacheLookup {
    /// It is not there.
    Missing,
    /// It was answered in full.
    Answered,
    /// It is there, in part: the answer given so far is void.
    Incomplete,
}

/// One table's part.
pub(crate) struct TableCache {
    pub(super) cache: Rc<RowCache>,
    this: Weak<TableCache>,
    pub(super) partitions: RefCell<BTreeMap<DecoratedKey, Rc<CachedPartition>>>,
    /// No partition lies behind the last one in the cache.
    is_end_known: Cell<bool>,
    /// Grows with each flush and whenever the table is emptied.
    phase: Cell<u64>,
    /// Rows kept of a partition; 0: the table is not cached.
    rows_max: Cell<u64>,
}

impl TableCache {
    /// Empty.
    pub(crate) fn new(cache: Rc<RowCache>, definition: &Table) -> Rc<TableCache> {
        Rc::new_cyclic(|this| TableCache {
            cache,
            this: this.clone(),
            partitions: RefCell::default(),
            is_end_known: Cell::new(false),
            phase: Cell::new(0),
            rows_max: Cell::new(rows_max(definition)),
        })
    }

    /// The table's options may have changed.
    pub(crate) fn define(&self, definition: &Table) {
        let rows_max = rows_max(definition);
        if self.rows_max.replace(rows_max) != rows_max {
            self.empty();
        }
    }

    /// Reads may use it.
    pub(crate) fn is_used(&self) -> bool {
        self.rows_max.get() > 0 && self.cache.capacity() > 0
    }

    /// Rows kept of a partition.
    pub(super) fn rows_max(&self) -> u64 {
        self.rows_max.get()
    }

    /// A scan of a table with so much content (before compression, in bytes) fills it.
    pub(crate) fn takes_scans(&self, content: u64) -> bool {
        self.is_used() && content <= self.cache.capacity() as u64 / SCANNED_PART
    }

    /// What readers began before counts no more once it changes.
    pub(crate) fn phase(&self) -> u64 {
        self.phase.get()
    }

    /// Something was flushed: readers that began before may not use it any more.
    pub(crate) fn begin_phase(&self) {
        self.phase.set(self.phase.get() + 1);
    }

    /// Forgets all, in one short step; memory is given back in the course of time.
    pub(crate) fn empty(&self) {
        self.begin_phase();
        self.is_end_known.set(false);
        self.cache.give_up(self.partitions.take());
    }

    /// Answers a read of one partition that is in no memtable, without copying what the answer does not need.
    pub(crate) fn answer(&self, key: &DecoratedKey, scan: Scan<'_>, answer: &mut Answer<'_>) -> CacheLookup {
        let partitions = self.partitions.borrow();
        let Some(partition) = partitions.get(key) else {
            return CacheLookup::Missing;
        };
        let state = partition.state.borrow();
        partition.note_use();
        if state.is_absent() {
            return CacheLookup::Answered;
        }
        answer.start(key.clone(), state.deletion);
        if let Some(row) = &state.static_row {
            answer.push(Fragment::StaticRow((**row).clone()));
        }
        let (mut cursor, mut flow) = (Cursor::default(), Flow::Continue);
        let walked = walk(
            &state,
            scan.slices,
            scan.reversed,
            &mut cursor,
            usize::MAX,
            &mut |met| {
                // A walk goes on behind a change that was the last wanted.
                if flow == Flow::Continue {
                    flow = match met {
                        Met::Row(key, row) => answer.row_at(key, row),
                        Met::Change(position, deletion) => {
                            answer.push(Fragment::DeletionChange(position, deletion))
                        }
                    };
                }
                flow == Flow::Continue
            },
        );
        match walked {
            _ if flow != Flow::Continue => {}
            Walked::Gap => return CacheLookup::Incomplete,
            Walked::Paused => {}
            Walked::Through => {
                answer.end();
            }
        }
        CacheLookup::Answered
    }

    /// A read needed nothing from sstables.
    pub(crate) fn note_hit(&self) {
        self.cache.note_hit();
    }

    pub(super) fn partition(&self, key: &DecoratedKey) -> Option<Rc<CachedPartition>> {
        self.partitions.borrow().get(key).cloned()
    }

    /// Has this partition, or a part of it.
    pub(crate) fn contains(&self, key: &DecoratedKey) -> bool {
        self.partitions.borrow().contains_key(key)
    }

    /// The partition as it is kept, or a new one with this head.
    pub(super) fn obtain(
        &self,
        key: &DecoratedKey,
        deletion: Option<Deletion>,
        static_row: Option<&Row>,
    ) -> Rc<CachedPartition> {
        if let Some(partition) = self.partition(key) {
            return partition;
        }
        let static_row = static_row.map(|row| {
            let mut row = row.clone();
            crate::memtable::own_bytes(None, &mut row);
            Box::new(row)
        });
        self.insert(key, deletion, static_row)
    }

    /// A new partition that nothing is on disk of.
    pub(super) fn insert_absent(&self, key: &DecoratedKey) -> Rc<CachedPartition> {
        let partition = self.insert(key, None, None);
        partition.edit(&self.cache).learn_end();
        partition
    }

    fn insert(
        &self,
        key: &DecoratedKey,
        deletion: Option<Deletion>,
        static_row: Option<Box<Row>>,
    ) -> Rc<CachedPartition> {
        let key = DecoratedKey {
            token: key.token,
            key: PartitionKey(Bytes::copy_from_slice(&key.key.0)),
        };
        let is_gap_known = self.is_known_around(&key);
        let partition = CachedPartition::new(key.clone(), self.this.clone(), deletion, static_row);
        partition.is_gap_known.set(is_gap_known);
        self.partitions.borrow_mut().insert(key, partition.clone());
        partition.edit(&self.cache).attach();
        partition
    }

    /// Takes a partition out that is being forgotten.
    pub(super) fn remove(&self, partition: &Rc<CachedPartition>) {
        let mut partitions = self.partitions.borrow_mut();
        let key = partition.key();
        if !partitions.get(key).is_some_and(|own| Rc::ptr_eq(own, partition)) {
            return;
        }
        partitions.remove(key);
        let is_nothing = partition.is_bound() || partition.state.borrow().is_absent();
        let stays_known = is_nothing && partition.is_gap_known.get();
        if !stays_known {
            let next = partitions.range((Bound::Excluded(key), Bound::Unbounded)).next();
            match next {
                Some((_, next)) => next.is_gap_known.set(false),
                None => self.is_end_known.set(false),
            }
        }
    }

    /// Nothing is kept, and of nothing it is known that it is not there.
    pub(super) fn knows_nothing(&self) -> bool {
        self.partitions.borrow().is_empty() && !self.is_end_known.get()
    }

    /// Nothing is on disk around a key that is not in the cache.
    pub(super) fn is_known_around(&self, key: &DecoratedKey) -> bool {
        let partitions = self.partitions.borrow();
        match partitions.range((Bound::Excluded(key), Bound::Unbounded)).next() {
            Some((_, next)) => next.is_gap_known.get(),
            None => self.is_end_known.get(),
        }
    }

    /// Around this key something came that is not in the cache.
    pub(super) fn unlearn_around(&self, key: &DecoratedKey) {
        let partitions = self.partitions.borrow();
        match partitions.range((Bound::Excluded(key), Bound::Unbounded)).next() {
            Some((_, next)) => next.is_gap_known.set(false),
            None => self.is_end_known.set(false),
        }
    }

    /// What is next in the cache behind a point of the ring, and whether nothing else can lie between.
    pub(super) fn next(&self, point: &RingPosition) -> (Option<Rc<CachedPartition>>, bool) {
        let partitions = self.partitions.borrow();
        let Some(lower) = lower_bound(point) else {
            return (None, true);
        };
        match partitions.range((lower, Bound::Unbounded)).next() {
            Some((key, next)) => {
                let is_at_point = matches!(point, RingPosition::BeforeKey(point) if point == key);
                (Some(next.clone()), is_at_point || next.is_gap_known.get())
            }
            None => (None, self.is_end_known.get()),
        }
    }

    /// Between two points of the ring lies nothing that is not in the cache.
    pub(super) fn learn_range(&self, start: &RingPosition, end: &RingPosition) {
        let (Some(first), Some(last)) = (self.bound_at(start), self.bound_at(end)) else {
            return;
        };
        let partitions = self.partitions.borrow();
        let within = partitions.range((first, Bound::Unbounded));
        for (_, partition) in within.take_while(|(key, _)| match &last {
            Bound::Included(last) | Bound::Excluded(last) => *key <= last,
            Bound::Unbounded => true,
        }) {
            partition.is_gap_known.set(true);
        }
        if last == Bound::Unbounded {
            self.is_end_known.set(true);
        }
    }

    /// Sees to it that a gap of the ring can begin or end at a point. None: it cannot.
    fn bound_at(&self, point: &RingPosition) -> Option<Bound<DecoratedKey>> {
        let token = match point {
            RingPosition::BeforeToken(token) if *token == Token::MIN => return Some(Bound::Unbounded),
            RingPosition::AfterToken(token) if *token == Token::MAX => return Some(Bound::Unbounded),
            RingPosition::BeforeToken(token) => *token,
            RingPosition::AfterToken(token) => Token(token.0.checked_add(1)?),
            // Where a partition is kept a gap can end before and begin after it.
            RingPosition::BeforeKey(key) | RingPosition::AfterKey(key) => {
                let is_fine = self.contains(key) || self.is_known_around(key);
                return is_fine.then(|| Bound::Excluded(key.clone()));
            }
        };
        let key = bound(token);
        if !self.contains(&key) && !self.is_known_around(&key) {
            self.insert(&key, None, None);
        }
        Some(Bound::Excluded(key))
    }

    /// The scan's target begins here, when it is a range.
    pub(super) fn range_of<'a>(scan: &Scan<'a>) -> Option<&'a PartitionRange> {
        match scan.target {
            ReadTarget::Range(range) => Some(range),
            ReadTarget::Partition(_) => None,
        }
    }
}

/// Where partitions behind a point of the ring begin. None: none does.
pub(super) fn lower_bound(point: &RingPosition) -> Option<Bound<DecoratedKey>> {
    Some(match point {
        RingPosition::BeforeToken(token) if *token == Token::MIN => Bound::Unbounded,
        RingPosition::BeforeToken(token) => Bound::Excluded(bound(*token)),
        RingPosition::AfterToken(token) => Bound::Excluded(bound(Token(token.0.checked_add(1)?))),
        RingPosition::BeforeKey(key) => Bound::Included(key.clone()),
        RingPosition::AfterKey(key) => Bound::Excluded(key.clone()),
    })
}

/// The point before all keys of a token.
fn bound(token: Token) -> DecoratedKey {
    DecoratedKey {
        token,
        key: PartitionKey(Bytes::new()),
    }
}

/// Rows kept of a partition by the table's `caching` option: none when neither keys nor rows are to be cached, a number
/// when one is given. (Cassandra's default asks for keys only; there that names another cache.)
fn rows_max(definition: &Table) -> u64 {
    let caching = &definition.options.caching;
    let option = |name: &str| caching.get(name).map_or("NONE", String::as_str);
    match (option("keys"), option("rows_per_partition")) {
        ("NONE", "NONE") => 0,
        (_, rows) => rows.parse().unwrap_or(u64::MAX),
    }
}
