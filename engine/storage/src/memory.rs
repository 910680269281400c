//! One budget for the memory of a shard's storage.
//!
//! Memtables, reads, graphs of vectors and what open sstables keep take what they need, each within a bound of its own; the caches have
//! what these leave. So caches shrink when writes come faster than flushes, and grow again after. Only memtables make
//! writes wait: there is nothing to forget in them.
//!
//! The budget is a share of what the process may use, and counts what storage holds, not what the allocator and the
//! kernel make of it. Whoever sees that ([`Database::withhold`]) takes a part of the budget away for as long as it takes:
//! first the caches shrink, and memtables are flushed and make writes wait in proportion.

use crate::database::Database;

/// Memtables may change by so many bytes before the caches are told.
const STEP: usize = 64 << 10;
/// The block cache's part of what is left for the caches.
const BLOCKS_PART: usize = 4;
/// One part in this many of the budget stays, whatever is withheld: a shard without any could do nothing at all.
const KEPT_PART: usize = 4;

impl Database {
    /// Tells the caches how much they may hold, when that has changed by much.
    pub(crate) fn balance_when_due(&self) {
        if self.memory.get().abs_diff(self.balanced_at.get()) >= STEP {
            self.balance();
        }
    }

    /// Takes `bytes` of the budget away, instead of what was taken away before; 0 gives all of it back. A quarter of the
    /// budget stays in any case.
    pub fn withhold(&self, bytes: usize) {
        let space = self.options.memory_space;
        self.withheld.set(bytes.min(space - space / KEPT_PART));
        let memtables = self.options.memtable_space as u128;
        let left = memtables * self.memory_space() as u128 / space.max(1) as u128;
        self.memtable_limit.set(left as usize);
        self.balance();
        self.flush_when_due();
        // The bound may have risen.
        self.room.notify();
    }

    /// Bytes of the budget, but for what is withheld.
    pub(crate) fn memory_space(&self) -> usize {
        self.options.memory_space - self.withheld.get()
    }

    /// Tells the caches how much they may hold.
    pub(crate) fn balance(&self) {
        let memtables = self.memory.get();
        self.balanced_at.set(memtables);
        let known = self.sstable_memory.get() + self.vector_memory.get();
        let taken = memtables + self.permits.memory() + known;
        let left = self.memory_space().saturating_sub(taken);
        self.cache
            .set_capacity(self.options.block_cache_size.min(left / BLOCKS_PART));
        // What blocks may take, not what they have: they come without anybody looking here.
        let left = left.saturating_sub(self.cache.capacity());
        self.row_cache.set_capacity(self.options.row_cache_size.min(left));
        self.row_cache.shrink();
    }

    /// Adds up what open sstables keep in memory: filters and indexes.
    pub(crate) fn measure_sstables(&self) {
        let tables = self.tables.borrow();
        let of_table = |table: &crate::table::TableStore| -> usize {
            let view = table.view();
            let sizes = view.sstables.iter();
            sizes
                .map(|sstable| sstable.filter_memory() + sstable.index_memory())
                .sum()
        };
        self.sstable_memory
            .set(tables.values().map(|table| of_table(table)).sum());
    }
}
