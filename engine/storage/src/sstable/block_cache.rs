//! Uncompressed blocks and index pages kept in memory, least recently used out first.
//!
//! One per shard. Bounded by bytes of content; an entry that is larger than an eighth of the bound is not kept. While
//! it is full, a block that a read of one partition brings is kept only when it is read a second time before long
//! ([`crate::admission`]).
//! Sstables also ask here for memory to keep their whole partition index in ([`BlockCache::pin`]): a quarter of the
//! bound for all of them, on top of it.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;

use bytes::Bytes;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::block::Block;
use crate::admission::Admission;

/// Memory of an entry beside its content, in bytes.
const ENTRY_OVERHEAD: usize = 128;
const NONE: u32 = u32::MAX;
/// Partition indexes kept in memory take at most one part in this many of the bound.
const PINNED_PART: usize = 4;
/// Bytes of a small block, or so.
const BYTES_PER_BLOCK: usize = 4096;

/// Which block of which file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CacheKey {
    /// Identity of the open sstable.
    pub(crate) sstable: u64,
    /// In Index, else in Data.
    pub(crate) is_index: bool,
    pub(crate) offset: u64,
}

/// What is kept.
#[derive(Clone, Debug)]
pub(crate) enum Cached {
    Block(Block),
    Page(Bytes),
}

impl Cached {
    fn memory(&self) -> usize {
        let content = match self {
            Cached::Block(block) => block.raw.len(),
            Cached::Page(page) => page.len(),
        };
        content + ENTRY_OVERHEAD
    }
}

/// The cache.
pub(crate) struct BlockCache {
    capacity: Cell<usize>,
    entries: RefCell<Entries>,
    admission: RefCell<Admission>,
    /// Bytes of partition indexes kept in memory.
    pinned: Cell<usize>,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

#[derive(Default)]
struct Entries {
    by_key: FxHashMap<CacheKey, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    memory: usize,
    /// Most and least recently used.
    newest: u32,
    oldest: u32,
}

struct Slot {
    key: CacheKey,
    content: Option<Cached>,
    newer: u32,
    older: u32,
}

impl BlockCache {
    pub(crate) fn new(capacity: usize) -> BlockCache {
        let entries = Entries {
            newest: NONE,
            oldest: NONE,
            ..Entries::default()
        };
        BlockCache {
            capacity: Cell::new(capacity),
            entries: RefCell::new(entries),
            admission: RefCell::new(Admission::new(capacity / BYTES_PER_BLOCK)),
            pinned: Cell::new(0),
            hits: Cell::new(0),
            misses: Cell::new(0),
        }
    }

    /// Bytes that it may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity.get()
    }

    /// Bytes that it holds, without what is pinned.
    pub(crate) fn memory(&self) -> usize {
        self.entries.borrow().memory
    }

    /// Changes the bound, and forgets what is above it.
    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.capacity.set(capacity);
        self.entries.borrow_mut().shrink_to(capacity);
    }

    pub(crate) fn get(&self, key: CacheKey) -> Option<Cached> {
        let entries = &mut *self.entries.borrow_mut();
        let Some(slot) = entries.by_key.get(&key).copied() else {
            self.misses.set(self.misses.get() + 1);
            return None;
        };
        self.hits.set(self.hits.get() + 1);
        entries.unlink(slot);
        entries.link_newest(slot);
        entries.slots[slot as usize].content.clone()
    }

    /// A block of `size` bytes is worth keeping: there is room, or it was read before not long ago. If not, it has been
    /// now.
    pub(crate) fn admits(&self, key: CacheKey, size: usize) -> bool {
        if self.entries.borrow().memory + size + ENTRY_OVERHEAD <= self.capacity.get() {
            return true;
        }
        self.admission.borrow_mut().admits(FxBuildHasher.hash_one(key))
    }

    pub(crate) fn insert(&self, key: CacheKey, content: Cached) {
        let size = content.memory();
        if size > self.capacity.get() / 8 {
            return;
        }
        let entries = &mut *self.entries.borrow_mut();
        if entries.by_key.contains_key(&key) {
            return;
        }
        entries.shrink_to(self.capacity.get() - size);
        let slot = Slot {
            key,
            content: Some(content),
            newer: NONE,
            older: NONE,
        };
        let number = match entries.free.pop() {
            Some(number) => {
                entries.slots[number as usize] = slot;
                number
            }
            None => {
                entries.slots.push(slot);
                (entries.slots.len() - 1) as u32
            }
        };
        entries.by_key.insert(key, number);
        entries.memory += size;
        entries.link_newest(number);
    }

    /// Takes memory to keep an sstable's partition index in; false when there is none left: its pages are then read
    /// through the cache, one read for each lookup that finds none there.
    pub(crate) fn pin(&self, bytes: usize) -> bool {
        let pinned = self.pinned.get().saturating_add(bytes);
        if pinned > self.capacity.get() / PINNED_PART {
            return false;
        }
        self.pinned.set(pinned);
        true
    }

    /// Gives it back.
    pub(crate) fn unpin(&self, bytes: usize) {
        self.pinned.set(self.pinned.get().saturating_sub(bytes));
    }

    /// Bytes in use, hits, misses.
    pub(crate) fn stats(&self) -> (u64, u64, u64) {
        (
            self.entries.borrow().memory as u64,
            self.hits.get(),
            self.misses.get(),
        )
    }
}

impl Entries {
    fn shrink_to(&mut self, size: usize) {
        while self.memory > size && self.oldest != NONE {
            self.remove(self.oldest);
        }
    }

    fn unlink(&mut self, number: u32) {
        let (newer, older) = (
            self.slots[number as usize].newer,
            self.slots[number as usize].older,
        );
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, number: u32) {
        let older = self.newest;
        self.slots[number as usize].newer = NONE;
        self.slots[number as usize].older = older;
        match older {
            NONE => self.oldest = number,
            older => self.slots[older as usize].newer = number,
        }
        self.newest = number;
    }

    fn remove(&mut self, number: u32) {
        self.unlink(number);
        let slot = &mut self.slots[number as usize];
        self.by_key.remove(&slot.key);
        self.memory -= slot.content.take().map_or(0, |content| content.memory());
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(offset: u64) -> CacheKey {
        CacheKey {
            sstable: 1,
            is_index: true,
            offset,
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let cache = BlockCache::new(10 * (1000 + ENTRY_OVERHEAD));
        let page = || Cached::Page(vec![0; 1000].into());
        for i in 0..10 {
            cache.insert(key(i), page());
        }
        assert!(cache.get(key(0)).is_some());
        for i in 10..19 {
            cache.insert(key(i), page());
        }
        assert!(cache.get(key(0)).is_some());
        assert!((1..10).all(|i| cache.get(key(i)).is_none()));
        assert!((10..19).all(|i| cache.get(key(i)).is_some()));
        cache.insert(key(50), Cached::Page(vec![0; 100_000].into()));
        assert!(cache.get(key(50)).is_none());
        assert_eq!(cache.stats(), (10 * (1000 + ENTRY_OVERHEAD) as u64, 11, 10));
    }
}
