//! One budget for the memory of a shard's storage.
//!
//! Memtables, reads and what open sstables keep take what they need, each within a bound of its own; the caches have
//! what these leave. So caches shrink when writes come faster than flushes, and grow again after. Only memtables make
//! writes wait: there is nothing to forget in them.

use crate::database::Database;

/// Memtables may change by so many bytes before the caches are told.
const STEP: usize = 64 << 10;
/// The block cache's part of what is left for the caches.
const BLOCKS_PART: usize = 4;

impl Database {
    /// Tells the caches how much they may hold, when that has changed by much.
    pub(crate) fn balance_when_due(&self) {
        if self.memory.get().abs_diff(self.balanced_at.get()) >= STEP {
            self.balance();
        }
    }

    /// Tells the caches how much they may hold.
    pub(crate) fn balance(&self) {
        let memtables = self.memory.get();
        self.balanced_at.set(memtables);
        let taken = memtables + self.permits.memory() + self.sstable_memory.get();
        let left = self.options.memory_space.saturating_sub(taken);
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
