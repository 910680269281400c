//! One partition of the cache: what is known of it, and how that is learned from disk, changed by a flush, forgotten.
//!
//! Known are always its deletion and its static row; of its rows and range deletions, the places and the gaps between
//! them that say so (see `entries`). What is known is what a merge of all sstables would yield, but for what a
//! compaction has purged since.
//!
//! Invariants: nothing kept is shadowed by a deletion that is kept; no place at a key stands for anything but that row;
//! what is known already is never replaced by what a reader brings from disk, only by what a flush adds.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::{Rc, Weak};

use bytes::Bytes;
use ceto_model::{ClusteringKey, DecoratedKey, Deletion, Position, Row, Slice, Token};

use super::RowCache;
use super::entries::{Entries, Entry, Gap, is_just_after, is_just_before, is_key, note_use};
use super::eviction::{SLOT_SIZE, SlotNumber};
use super::table::TableCache;
use crate::memtable::own_bytes;
use crate::reader::{after_row, before_row};

/// Memory of a partition beside its places: itself, its share of a B-tree node, in bytes.
const HEAD_SIZE: usize = size_of::<CachedPartition>() + 2 * size_of::<(DecoratedKey, Rc<CachedPartition>)>();

/// A partition in the cache, or a point of the ring between two of them.
pub(super) struct CachedPartition {
    key: DecoratedKey,
    table: Weak<TableCache>,
    /// No partition lies between the one before it in the cache and this one.
    pub(super) is_gap_known: Cell<bool>,
    pub(super) state: RefCell<State>,
    uses: Cell<u8>,
}

/// What is known of a partition.
pub(super) struct State {
    pub(super) deletion: Option<Deletion>,
    pub(super) static_row: Option<Box<Row>>,
    pub(super) entries: Entries,
    /// The gap behind the last place.
    pub(super) tail: Gap,
    /// Its own place in the order of eviction, while it has no entries.
    slot: Option<SlotNumber>,
    /// Bytes of the head as counted.
    head_size: usize,
    /// Entries with a row.
    pub(super) rows: u64,
    /// No longer part of the cache.
    pub(super) is_detached: bool,
}

impl State {
    /// Nothing of this partition is on disk.
    pub(super) fn is_absent(&self) -> bool {
        self.deletion.is_none()
            && self.static_row.is_none()
            && self.entries.is_empty()
            && self.tail == Gap::Known(None)
    }

    /// All of it is known, and it has few places.
    pub(super) fn is_small_and_known(&self) -> bool {
        !self.is_detached && self.tail != Gap::Unknown && self.entries.are_few_and_known()
    }

    /// Looks at a byte of each of its parts (see `run`).
    pub(super) fn touch(&self) -> usize {
        self.entries.touch()
    }

    /// The gap in which a place lies that is not in the cache.
    fn gap_around(&self, place: &[u8]) -> Gap {
        match self.entries.after(place).next() {
            Some((_, next)) => next.gap,
            None => self.tail,
        }
    }

    fn head_size(&self, key: &DecoratedKey) -> usize {
        let static_row = self.static_row.as_ref().map_or(0, |row| row.memory_size());
        HEAD_SIZE + key.key.0.len() + static_row
    }
}

impl CachedPartition {
    /// A partition of whose rows nothing is known yet. It must be put into its table, then [`Editor::attach`]ed.
    pub(super) fn new(
        key: DecoratedKey,
        table: Weak<TableCache>,
        deletion: Option<Deletion>,
        static_row: Option<Box<Row>>,
    ) -> Rc<CachedPartition> {
        let state = State {
            deletion,
            static_row,
            entries: Entries::default(),
            tail: Gap::Unknown,
            slot: None,
            head_size: 0,
            rows: 0,
            is_detached: false,
        };
        Rc::new(CachedPartition {
            key,
            table,
            is_gap_known: Cell::new(false),
            state: RefCell::new(state),
            uses: Cell::new(0),
        })
    }

    pub(super) fn key(&self) -> &DecoratedKey {
        &self.key
    }

    /// A point of the ring: not a partition. (The one partition with an empty key, which a view can have, lies where the
    /// ring begins, and there no point is kept.)
    pub(super) fn is_bound(&self) -> bool {
        self.key.key.0.is_empty() && self.key.token != Token::MIN
    }

    /// Nothing of it is on disk.
    pub(super) fn is_absent(&self) -> bool {
        self.state.borrow().is_absent()
    }

    /// Notes that its head was read.
    pub(super) fn note_use(&self) {
        note_use(&self.uses);
    }

    /// To change it.
    pub(super) fn edit<'a>(self: &'a Rc<Self>, cache: &'a RowCache) -> Editor<'a> {
        Editor {
            state: self.state.borrow_mut(),
            owner: self,
            cache,
        }
    }

    /// Takes back one use of a place (or of the head); false when there is none.
    pub(super) fn spend_use(&self, place: Option<&[u8]>) -> bool {
        let state = self.state.borrow();
        let uses = match place {
            None => &self.uses,
            Some(place) => match state.entries.get(place) {
                Some(entry) => &entry.uses,
                None => return false,
            },
        };
        let count = uses.get();
        uses.set(count.saturating_sub(1));
        count > 0
    }

    /// Forgets a place, or the whole of a partition that has none.
    pub(super) fn forget(self: &Rc<Self>, cache: &RowCache, place: Option<&[u8]>) {
        let mut editor = self.edit(cache);
        if let Some(place) = place {
            editor.forget(place);
        }
        let is_empty = editor.state.entries.is_empty();
        drop(editor);
        if is_empty {
            if let Some(table) = self.table.upgrade() {
                table.remove(self);
            }
            self.edit(cache).detach();
        }
    }
}

/// Changes a partition and keeps the books.
pub(super) struct Editor<'a> {
    pub(super) state: RefMut<'a, State>,
    owner: &'a Rc<CachedPartition>,
    cache: &'a RowCache,
}

impl Editor<'_> {
    /// Begins to count it.
    pub(super) fn attach(&mut self) {
        self.count_head();
        self.stand_alone();
        self.cache.note_partitions(1);
    }

    /// Counts it no more.
    pub(super) fn detach(&mut self) {
        if std::mem::replace(&mut self.state.is_detached, true) {
            return;
        }
        if let Some(slot) = self.state.slot.take() {
            self.cache.evictions.borrow_mut().remove(slot);
        }
        let size = std::mem::take(&mut self.state.head_size);
        self.cache.heads.set(self.cache.heads.get() - size);
        self.cache.note_partitions(-1);
    }

    /// Removes the last places, at most `max`; how many were removed.
    pub(super) fn cut(&mut self, max: usize) -> usize {
        for removed in 0..max {
            let Some(place) = self.state.entries.last_place() else {
                return removed;
            };
            self.remove(&place);
        }
        max
    }

    fn count_head(&mut self) {
        let (old, new) = (self.state.head_size, self.state.head_size(&self.owner.key));
        self.state.head_size = new;
        self.cache.heads.set(self.cache.heads.get() + new - old);
    }

    /// Gives the head a slot of its own when it has no entries.
    fn stand_alone(&mut self) {
        if self.state.entries.is_empty() && self.state.slot.is_none() && !self.state.is_detached {
            let slot = self
                .cache
                .evictions
                .borrow_mut()
                .add(self.owner.clone(), None, SLOT_SIZE);
            self.state.slot = Some(slot);
        }
    }

    fn add(&mut self, place: Bytes, gap: Gap, covering: Option<Deletion>, row: Option<Row>) {
        let size = entry_size(&place, row.as_ref());
        let mut evictions = self.cache.evictions.borrow_mut();
        let slot = evictions.add(self.owner.clone(), Some(place.clone()), size);
        if let Some(head) = self.state.slot.take() {
            evictions.remove(head);
        }
        drop(evictions);
        if row.is_some() {
            self.state.rows += 1;
            self.cache.note_rows(1);
        }
        let entry = Entry {
            gap,
            covering,
            row,
            slot,
            uses: Cell::new(0),
        };
        self.state.entries.insert(place, entry);
    }

    fn remove(&mut self, place: &[u8]) -> Option<Entry> {
        let entry = self.state.entries.remove(place)?;
        self.cache.evictions.borrow_mut().remove(entry.slot);
        if entry.row.is_some() {
            self.state.rows -= 1;
            self.cache.note_rows(-1);
        }
        Some(entry)
    }

    /// Removes a place, and the knowledge that goes with it.
    fn forget(&mut self, place: &[u8]) {
        let Some(entry) = self.remove(place) else {
            return;
        };
        let State { entries, tail, .. } = &mut *self.state;
        let next = match entries.next_mut(place) {
            Some((_, next)) => &mut next.gap,
            None => tail,
        };
        // Nothing is lost with a place where nothing is and nothing changes.
        let is_idle = entry.row.is_none() && entry.gap == *next && !is_key(place);
        if !is_idle {
            *next = Gap::Unknown;
        }
    }

    // From here on: what a reader brings from disk.

    /// The row of this key is this one, covered by this range deletion. False: it is not kept.
    pub(super) fn learn_row(&mut self, key: &ClusteringKey, row: &Row, covering: Option<Deletion>) -> bool {
        if self.state.entries.get(&key.0).is_some() {
            return true;
        }
        if self.state.gap_around(&key.0) != Gap::Unknown {
            // A flush that is under way will bring it.
            return false;
        }
        let (mut key, mut row) = (key.clone(), row.clone());
        own_bytes(Some(&mut key), &mut row);
        if !self.cache.takes(entry_size(&key.0, Some(&row))) {
            return false;
        }
        self.add(key.0, Gap::Unknown, covering, Some(row));
        true
    }

    /// Between two places is nothing but this range deletion.
    pub(super) fn learn_gap(&mut self, start: &[u8], end: &[u8], deletion: Option<Deletion>) {
        let key = |place: &[u8]| ClusteringKey(Bytes::copy_from_slice(place));
        let is_gone = |place: &[u8]| is_key(place) && self.state.entries.get(place).is_none();
        let behind_start = is_gone(start).then(|| after_row(&key(start)));
        let before_end = is_gone(end).then(|| before_row(&key(end)));
        let start = behind_start.as_ref().map_or(start, |bound| &bound.0[..]);
        let end = before_end.as_ref().map_or(end, |bound| &bound.0[..]);
        if start >= end {
            return;
        }
        let is_inside_gap = self.bound_start(start);
        let reaches_next = self.bound_end(end);
        let mut is_first = is_inside_gap;
        let mut learn = |gap: &mut Gap| {
            if !std::mem::take(&mut is_first) && *gap == Gap::Unknown {
                *gap = Gap::Known(deletion);
            }
        };
        let State { entries, tail, .. } = &mut *self.state;
        entries.for_each_within(start, end, |_, entry| learn(&mut entry.gap));
        if is_end(end) {
            learn(tail);
        } else if reaches_next && let Some((_, next)) = entries.next_mut(end) {
            learn(&mut next.gap);
        }
    }

    /// Sees to it that a gap begins at `start`, unless all around is known. True: none does, because the next place is
    /// the first that could be behind `start`; the gap before it is not what is learned.
    fn bound_start(&mut self, start: &[u8]) -> bool {
        let entries = &self.state.entries;
        if is_start(start)
            || entries.get(start).is_some()
            || self.state.gap_around(start) != Gap::Unknown
            || entries
                .before(start)
                .next_back()
                .is_some_and(|(before, _)| is_just_after(start, before))
        {
            return false;
        }
        if entries
            .after(start)
            .next()
            .is_some_and(|(next, _)| is_just_before(start, next))
        {
            return true;
        }
        self.add(Bytes::copy_from_slice(start), Gap::Unknown, None, None);
        false
    }

    /// Sees to it that a gap ends at `end`, unless all around is known. True: the gap before the next place does.
    fn bound_end(&mut self, end: &[u8]) -> bool {
        let entries = &self.state.entries;
        if is_end(end) || entries.get(end).is_some() || self.state.gap_around(end) != Gap::Unknown {
            return false;
        }
        if entries
            .after(end)
            .next()
            .is_some_and(|(next, _)| is_just_before(end, next))
        {
            return true;
        }
        self.add(Bytes::copy_from_slice(end), Gap::Unknown, None, None);
        false
    }

    /// Nothing else is there: the partition is on disk only as far as it is known here.
    pub(super) fn learn_end(&mut self) {
        if self.state.entries.is_empty() && self.state.tail == Gap::Unknown {
            self.state.tail = Gap::Known(None);
        }
    }

    // From here on: what a flush adds.

    /// A deletion of the whole partition.
    pub(super) fn apply_deletion(&mut self, deletion: Deletion) {
        if self.state.deletion >= Some(deletion) {
            return;
        }
        let state = &mut *self.state;
        state.deletion = Some(deletion);
        if let Some(row) = &mut state.static_row {
            row.shadow_by_wider(deletion);
            if row.is_empty() {
                state.static_row = None;
            }
        }
        let weaken = |range: &mut Option<Deletion>| {
            if *range <= Some(deletion) {
                *range = None;
            }
        };
        if let Gap::Known(range) = &mut state.tail {
            weaken(range);
        }
        let (cache, rows) = (self.cache, &mut state.rows);
        state.entries.for_each_within(&[], &[0xff], |place, entry| {
            if let Gap::Known(range) = &mut entry.gap {
                weaken(range);
            }
            weaken(&mut entry.covering);
            shadow(cache, rows, place, entry, deletion);
        });
        self.count_head();
    }

    /// Changes of the static row.
    pub(super) fn apply_static(&mut self, row: &Row) {
        let mut row = row.clone();
        if let Some(deletion) = self.state.deletion {
            row.shadow_by_wider(deletion);
        }
        if row.is_empty() {
            return;
        }
        match &mut self.state.static_row {
            Some(own) => own.merge(row),
            None => self.state.static_row = Some(Box::new(row)),
        }
        self.count_head();
    }

    /// A deletion of a range.
    pub(super) fn apply_range(&mut self, slice: &Slice, deletion: Deletion) {
        if self.state.deletion >= Some(deletion) {
            return;
        }
        let slice = as_bounds(slice);
        let (start, end) = (&slice.start.0, &slice.end.0);
        if start >= end {
            return;
        }
        self.split(start, deletion);
        self.split(end, deletion);
        let strengthen = |gap: &mut Gap| {
            if let Gap::Known(range) = gap {
                *range = (*range).max(Some(deletion));
            }
        };
        let state = &mut *self.state;
        let (cache, rows) = (self.cache, &mut state.rows);
        state.entries.for_each_within(start, end, |place, entry| {
            strengthen(&mut entry.gap);
            if is_key(place) {
                entry.covering = entry.covering.max(Some(deletion));
                shadow(cache, rows, place, entry, deletion);
            }
        });
        if is_end(end) {
            strengthen(&mut state.tail);
        }
    }

    /// Makes a place where a range deletion begins or ends inside a known gap that it changes.
    fn split(&mut self, bound: &Bytes, deletion: Deletion) {
        if is_start(bound) || is_end(bound) || self.state.entries.get(bound).is_some() {
            return;
        }
        let gap = self.state.gap_around(bound);
        if matches!(gap, Gap::Known(own) if own < Some(deletion)) {
            self.add(bound.clone(), gap, None, None);
        }
    }

    /// Changes of a row. A new one is kept while there are fewer than `rows_max`.
    pub(super) fn apply_row(&mut self, key: &ClusteringKey, row: &Row, rows_max: u64) {
        let state = &mut *self.state;
        let deletion = state.deletion;
        let shadowed = |covering: Option<Deletion>| {
            let mut row = row.clone();
            if let Some(wider) = Deletion::strongest(deletion, covering) {
                row.shadow_by_wider(wider);
            }
            (!row.is_empty()).then_some(row)
        };
        if let Some(entry) = state.entries.get_mut(&key.0) {
            let Some(row) = shadowed(entry.covering) else {
                return;
            };
            match &mut entry.row {
                Some(own) => own.merge(row),
                None => {
                    entry.row = Some(row);
                    state.rows += 1;
                    self.cache.note_rows(1);
                }
            }
            resize(self.cache, &key.0, entry);
            return;
        }
        if let Gap::Known(covering) = state.gap_around(&key.0)
            && let Some(row) = shadowed(covering)
        {
            let is_kept = self.state.rows < rows_max && self.cache.takes(entry_size(&key.0, Some(&row)));
            if is_kept {
                self.add(key.0.clone(), Gap::Known(covering), covering, Some(row));
            } else {
                self.unlearn(&key.0);
            }
        }
    }

    /// The gap around a place is known no more.
    fn unlearn(&mut self, place: &[u8]) {
        let State { entries, tail, .. } = &mut *self.state;
        match entries.next_mut(place) {
            Some((_, next)) => next.gap = Gap::Unknown,
            None => *tail = Gap::Unknown,
        }
    }
}

/// Removes from a row what a deletion shadows.
fn shadow(cache: &RowCache, rows: &mut u64, place: &[u8], entry: &mut Entry, deletion: Deletion) {
    let Some(row) = &mut entry.row else { return };
    row.shadow_by_wider(deletion);
    if row.is_empty() {
        entry.row = None;
        *rows -= 1;
        cache.note_rows(-1);
    }
    resize(cache, place, entry);
}

fn resize(cache: &RowCache, place: &[u8], entry: &Entry) {
    let size = entry_size(place, entry.row.as_ref());
    cache.evictions.borrow_mut().resize(entry.slot, size);
}

/// Memory of an entry, in bytes.
fn entry_size(place: &[u8], row: Option<&Row>) -> usize {
    let row = row.map_or(0, |row| row.memory_size() - size_of::<Row>());
    size_of::<(Bytes, Entry)>() + SLOT_SIZE + place.len() + row
}

fn is_start(place: &[u8]) -> bool {
    place <= &Position::before_all().0[..]
}

fn is_end(place: &[u8]) -> bool {
    place >= &Position::after_all().0[..]
}

/// The same slice between two bounds: a slice that begins or ends at a key does not hold that key.
pub(super) fn as_bounds(slice: &Slice) -> Slice {
    let key = |position: &Position| ClusteringKey(position.0.clone());
    let start = if is_key(&slice.start.0) {
        after_row(&key(&slice.start))
    } else {
        slice.start.clone()
    };
    let end = if is_key(&slice.end.0) {
        before_row(&key(&slice.end))
    } else {
        slice.end.clone()
    };
    Slice { start, end }
}
