//! One table on one shard: its memtables and sstables.
//!
//! A read sees the active memtable, the memtables being flushed, the cache and the sstables. What moves from one to the
//! other does so in one step without waiting, so no read sees a write twice too little: a memtable is on its way to disk
//! until the step in which its sstable comes, and from then on on its way into the cache until that has all of it.

use std::any::Any;
use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use ceto_model::{Table, TableId};
use rustc_hash::FxHashSet;

use crate::cache::{RowCache, TableCache};
use crate::commitlog::ReplayPosition;
use crate::compaction::Compacting;
use crate::error::{Error, Result};
use crate::index::IndexStore;
use crate::memtable::Memtable;
use crate::sstable::{Descriptor, Dictionary, Generation, Sstable};
use crate::wait::Event;

/// How long a dictionary serves the table's new sstables before another is trained, in microseconds: training takes
/// the processor for some tens of milliseconds.
const DICTIONARY_AGE_MAX: i64 = 3_600_000_000;

/// A table's storage on one shard.
pub(crate) struct TableStore {
    pub(crate) id: TableId,
    pub(crate) dir: PathBuf,
    pub(crate) shard: u16,
    definition: RefCell<Arc<Table>>,
    /// Writes go to the commitlog.
    pub(crate) is_durable: Cell<bool>,
    view: RefCell<View>,
    /// What is kept of its sstables in memory.
    pub(crate) cache: Rc<TableCache>,
    /// Sstables that could not be opened at start, and why. What they hide is not known, so that reads and compactions of
    /// the table fail until they are repaired or the table is truncated; writes go on.
    pub(crate) unreadable: RefCell<Vec<(Descriptor, Error)>>,
    next_generation: Cell<u64>,
    /// Numbers given out whose sstables are not part of the table yet, or never became so.
    reserved: RefCell<FxHashSet<Generation>>,
    /// Sstables that have left the table and may still have readers, and then files.
    leaving: RefCell<Vec<(Generation, Weak<Sstable>)>>,
    /// Entries of the commitlog before it are not replayed: they are in sstables, or were truncated.
    pub(crate) flushed_through: Cell<ReplayPosition>,
    /// All its commitlog entries have been replayed.
    pub(crate) is_recovered: Cell<bool>,
    /// A flush of it runs.
    pub(crate) is_flushing: Cell<bool>,
    /// Another one when the table is truncated or dropped: what was begun before counts no more.
    era: RefCell<Rc<Era>>,
    pub(crate) is_dropped: Cell<bool>,
    /// Its truncation record is being written.
    pub(crate) is_recording: Cell<bool>,
    /// It was written.
    pub(crate) recorded: Event,
    /// Its sstables or their state changed since compaction last looked.
    pub(crate) has_changed: Cell<bool>,
    /// A compaction of all sstables waits for the running ones: no other starts.
    pub(crate) major_compaction_waits: Cell<bool>,
    /// After a failure: when the next compaction may start by itself.
    pub(crate) compaction_retry_at: Cell<Option<Instant>>,
    /// Its strategy, with the options that it was made from.
    pub(crate) compacting: RefCell<Option<Rc<Compacting>>>,
    /// Compactions start on request only, whatever the table's options say.
    pub(crate) is_compaction_disabled: Cell<bool>,
    /// Its secondary indexes.
    pub(crate) indexes: RefCell<Vec<Rc<IndexStore>>>,
    pub(crate) counters: TableCounters,
}

/// A time of a table between two truncations.
///
/// Whoever writes sstables holds it until they are part of the table or their files are gone: files of a past era are
/// void, and the record that says so must outlive them.
#[derive(Default)]
pub(crate) struct Era {
    /// Set at its end; dropped with the last holder.
    until: RefCell<Option<Rc<dyn Any>>>,
}

impl Era {
    /// It is past: `until` is dropped when nobody holds it any more.
    pub(crate) fn end(&self, until: Rc<dyn Any>) {
        *self.until.borrow_mut() = Some(until);
    }
}

/// What a table did since start.
#[derive(Default)]
pub(crate) struct TableCounters {
    pub(crate) writes: Cell<u64>,
    pub(crate) reads: Cell<u64>,
    pub(crate) flushes: Cell<u64>,
    pub(crate) flushed_bytes: Cell<u64>,
    pub(crate) compactions: Cell<u64>,
    /// Bytes that compactions read.
    pub(crate) compacted_bytes: Cell<u64>,
    /// Bytes that they wrote.
    pub(crate) compaction_written_bytes: Cell<u64>,
    /// Sstables dropped unread because all in them had expired.
    pub(crate) sstables_expired: Cell<u64>,
}

/// Adds to a counter.
pub(crate) fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

/// Where a table's data is.
pub(crate) struct View {
    pub(crate) active: Rc<Memtable>,
    /// Oldest first.
    pub(crate) flushing: VecDeque<Flushing>,
    /// On disk already, but the cache does not have all of it yet.
    pub(crate) merging: Option<Rc<Memtable>>,
    pub(crate) sstables: Vec<Rc<Sstable>>,
}

/// A memtable on its way to disk.
#[derive(Clone)]
pub(crate) struct Flushing {
    pub(crate) memtable: Rc<Memtable>,
    /// All commitlog entries of the table before it are in this memtable or were flushed before.
    pub(crate) through: ReplayPosition,
    /// What became of it, once it is flushed.
    pub(crate) sstable: Rc<OnceCell<Option<Rc<Sstable>>>>,
}

impl View {
    /// All memtables that reads need, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Rc<Memtable>> {
        self.unflushed().chain(&self.merging)
    }

    /// Those whose content is nowhere else, newest first.
    pub(crate) fn unflushed(&self) -> impl Iterator<Item = &Rc<Memtable>> {
        let flushing = self.flushing.iter().rev().map(|flushing| &flushing.memtable);
        std::iter::once(&self.active)
            .chain(flushing)
            .filter(|memtable| !memtable.is_empty())
    }

    /// The active memtable is the only one.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.flushing.is_empty() && self.merging.is_none()
    }
}

impl TableStore {
    /// A table with the sstables found on disk.
    pub(crate) fn new(
        definition: Arc<Table>,
        dir: PathBuf,
        shard: u16,
        next_generation: u64,
        cache: Rc<RowCache>,
    ) -> TableStore {
        TableStore {
            id: definition.id,
            cache: TableCache::new(cache, &definition),
            dir,
            shard,
            definition: RefCell::new(definition),
            is_durable: Cell::new(true),
            view: RefCell::new(View {
                active: Rc::new(Memtable::new()),
                flushing: VecDeque::new(),
                merging: None,
                sstables: Vec::new(),
            }),
            unreadable: RefCell::default(),
            next_generation: Cell::new(next_generation),
            reserved: RefCell::default(),
            leaving: RefCell::default(),
            flushed_through: Cell::default(),
            is_recovered: Cell::new(false),
            is_flushing: Cell::new(false),
            era: RefCell::default(),
            is_dropped: Cell::new(false),
            is_recording: Cell::new(false),
            recorded: Event::default(),
            has_changed: Cell::new(true),
            major_compaction_waits: Cell::new(false),
            compaction_retry_at: Cell::new(None),
            compacting: RefCell::default(),
            is_compaction_disabled: Cell::new(false),
            indexes: RefCell::default(),
            counters: TableCounters::default(),
        }
    }

    /// The definition it has now.
    pub(crate) fn definition(&self) -> Ref<'_, Arc<Table>> {
        self.definition.borrow()
    }

    /// Changes the definition.
    pub(crate) fn define(&self, definition: Arc<Table>) {
        self.cache.define(&definition);
        // Another strategy may want other sstables.
        self.has_changed.set(true);
        *self.definition.borrow_mut() = definition;
    }

    /// An index of it.
    pub(crate) fn index(&self, id: TableId) -> Option<Rc<IndexStore>> {
        let indexes = self.indexes.borrow();
        indexes.iter().find(|index| index.store.id == id).cloned()
    }

    /// `keyspace.table`, for logs.
    pub(crate) fn name(&self) -> String {
        let definition = self.definition.borrow();
        format!("{}.{}", definition.keyspace, definition.name)
    }

    /// Where its data is, while the borrow lasts: never across an await.
    pub(crate) fn view(&self) -> Ref<'_, View> {
        self.view.borrow()
    }

    /// The memtable that takes writes.
    pub(crate) fn active(&self) -> Ref<'_, Memtable> {
        Ref::map(self.view.borrow(), |view| &*view.active)
    }

    /// A name for a new sstable.
    pub(crate) fn next_descriptor(&self) -> Descriptor {
        let generation = self.next_generation.get();
        self.next_generation.set(generation + 1);
        self.reserved.borrow_mut().insert(Generation(generation));
        Descriptor {
            dir: self.dir.clone(),
            shard: self.shard,
            generation: Generation(generation),
        }
    }

    /// Gives out no number up to this one any more.
    pub(crate) fn skip_generation(&self, generation: Generation) {
        let next = self.next_generation.get().max(generation.0.saturating_add(1));
        self.next_generation.set(next);
    }

    /// An sstable of this number is part of the table, is being written, or is about to be removed.
    pub(crate) fn knows(&self, generation: Generation) -> bool {
        let is_live = |sstable: &Rc<Sstable>| sstable.descriptor.generation == generation;
        let is_leaving = |(number, sstable): &(Generation, Weak<Sstable>)| {
            *number == generation && sstable.strong_count() > 0
        };
        self.view.borrow().sstables.iter().any(is_live)
            || self.reserved.borrow().contains(&generation)
            || self.leaving.borrow().iter().any(is_leaving)
    }

    fn note_joining<'a>(&self, sstables: impl IntoIterator<Item = &'a Rc<Sstable>>) {
        let mut reserved = self.reserved.borrow_mut();
        for sstable in sstables {
            reserved.remove(&sstable.descriptor.generation);
        }
    }

    fn note_leaving<'a>(&self, sstables: impl IntoIterator<Item = &'a Rc<Sstable>>) {
        let mut leaving = self.leaving.borrow_mut();
        leaving.retain(|(_, sstable)| sstable.strong_count() > 0);
        let new = sstables
            .into_iter()
            .map(|sstable| (sstable.descriptor.generation, Rc::downgrade(sstable)));
        leaving.extend(new);
    }

    /// The last generation given out.
    pub(crate) fn last_generation(&self) -> Generation {
        Generation(self.next_generation.get().saturating_sub(1))
    }

    /// Puts a new memtable in place of the active one, which is then to be flushed. None when it is empty.
    pub(crate) fn switch_memtable(&self, through: ReplayPosition) -> Option<Flushing> {
        let view = &mut *self.view.borrow_mut();
        if view.active.is_empty() {
            return None;
        }
        let flushing = Flushing {
            memtable: std::mem::replace(&mut view.active, Rc::new(Memtable::new())),
            through,
            sstable: Rc::default(),
        };
        view.flushing.push_back(flushing.clone());
        Some(flushing)
    }

    /// The dictionary that blocks are to be compressed with, at a time in microseconds; None: one is to be trained.
    pub(crate) fn dictionary(&self, now: i64) -> Option<Rc<Dictionary>> {
        let view = self.view.borrow();
        let dictionaries = view.sstables.iter().filter_map(|sstable| sstable.dictionary());
        let newest = dictionaries.max_by_key(|dictionary| dictionary.trained_at)?;
        (now - newest.trained_at < DICTIONARY_AGE_MAX).then(|| newest.clone())
    }

    /// The memtable to be flushed next.
    pub(crate) fn oldest_flushing(&self) -> Option<Flushing> {
        self.view.borrow().flushing.front().cloned()
    }

    /// The memtable's sstable takes its place (None: it held nothing); the memtable is still read, until
    /// [`TableStore::finish_merge`].
    pub(crate) fn finish_flush(&self, flushed: &Flushing, sstable: Option<Rc<Sstable>>) {
        self.has_changed.set(true);
        self.cache.begin_phase();
        self.note_joining(&sstable);
        let view = &mut *self.view.borrow_mut();
        view.flushing
            .retain(|flushing| !Rc::ptr_eq(&flushing.memtable, &flushed.memtable));
        view.merging = sstable.is_some().then(|| flushed.memtable.clone());
        view.sstables.extend(sstable.clone());
        let is_first = flushed.sstable.set(sstable).is_ok();
        assert!(is_first, "a memtable was flushed twice");
        self.flushed_through
            .set(self.flushed_through.get().max(flushed.through));
    }

    /// The cache has all of the memtable that was flushed last.
    pub(crate) fn finish_merge(&self) {
        self.view.borrow_mut().merging = None;
    }

    /// Adds sstables from elsewhere: found at start, or brought later.
    pub(crate) fn add_sstables(&self, sstables: impl IntoIterator<Item = Rc<Sstable>>) {
        self.cache.empty();
        for sstable in sstables {
            self.note_joining([&sstable]);
            self.view.borrow_mut().sstables.push(sstable);
        }
    }

    /// New sstables take the place of old ones; false (and nothing happens) when an old one is no longer there.
    pub(crate) fn replace_sstables(&self, old: &[Rc<Sstable>], new: Vec<Rc<Sstable>>) -> bool {
        self.has_changed.set(true);
        let view = &mut *self.view.borrow_mut();
        let is_old = |sstable: &Rc<Sstable>| old.iter().any(|old| Rc::ptr_eq(old, sstable));
        if view.sstables.iter().filter(|sstable| is_old(sstable)).count() != old.len() {
            return false;
        }
        self.note_leaving(old);
        self.note_joining(&new);
        view.sstables.retain(|sstable| !is_old(sstable));
        view.sstables.extend(new);
        true
    }

    /// The time since the last truncation.
    pub(crate) fn era(&self) -> Rc<Era> {
        self.era.borrow().clone()
    }

    /// The table has not been truncated or dropped since.
    pub(crate) fn is_in(&self, era: &Rc<Era>) -> bool {
        Rc::ptr_eq(&self.era.borrow(), era)
    }

    /// Forgets everything up to a place of the commitlog; what is given back is to be removed, and the past era to be
    /// ended when that is on disk.
    pub(crate) fn clear(&self, through: ReplayPosition) -> (View, Rc<Era>) {
        let past = self.era.replace(Rc::default());
        self.flushed_through.set(self.flushed_through.get().max(through));
        let empty = View {
            active: Rc::new(Memtable::new()),
            flushing: VecDeque::new(),
            merging: None,
            sstables: Vec::new(),
        };
        self.cache.empty();
        let view = std::mem::replace(&mut *self.view.borrow_mut(), empty);
        self.note_leaving(&view.sstables);
        (view, past)
    }

    /// Fails while an sstable of it could not be opened.
    pub(crate) fn check_readable(&self) -> Result<()> {
        match self.unreadable.borrow().first() {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The first commitlog segment that still holds something not flushed.
    pub(crate) fn needed_segment(&self) -> Option<u64> {
        let view = self.view.borrow();
        let positions = view.unflushed().filter_map(|memtable| memtable.first_position());
        positions.map(|position| position.segment).min()
    }
}

/// Folder of a table: `DATA/data/<keyspace>/<table>-<id>`.
pub(crate) fn table_dir(data_dir: &Path, table: &Table) -> PathBuf {
    let name = format!("{}-{}", table.name, table.id.0.simple());
    data_dir.join("data").join(&*table.keyspace).join(name)
}
