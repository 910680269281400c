//! Telling the cache what a flush has put on disk.
//!
//! The memtable's sstable is there already, and the memtable is still read; so this may take its time, partition by
//! partition, and may be given up at any point when the table is emptied meanwhile.

use std::cell::Cell;
use std::rc::Rc;

use ceto_env::Tasks;
use ceto_model::{DecoratedKey, Slice};

use super::partition::CachedPartition;
use super::table::TableCache;
use crate::memtable::Memtable;
use crate::reader::after_row;

/// Rows taken in one piece.
const BATCH: usize = 256;
/// Keys looked up at once: finding the place in the memtable costs more than going on from there.
const KEYS: usize = 64;

impl TableCache {
    /// Merges a memtable that has been flushed. What nobody has read is not brought in by a write.
    pub(crate) async fn merge_memtable(&self, memtable: &Memtable, tasks: &dyn Tasks) {
        if self.knows_nothing() {
            return;
        }
        let phase = self.phase();
        let mut keys = memtable.keys_behind(None, KEYS);
        while let Some(last) = keys.last() {
            let next = memtable.keys_behind(Some(last), KEYS);
            for key in keys {
                if self.phase() != phase {
                    return;
                }
                if let Some(partition) = self.partition_to_merge(&key) {
                    self.merge_partition(memtable, &key, &partition, phase, tasks)
                        .await;
                }
                if let Some(turn) = tasks.yield_if_due() {
                    turn.await;
                }
            }
            keys = next;
        }
    }

    /// The partition as far as it is kept; a new one where it was known that there was none, while there is room.
    fn partition_to_merge(&self, key: &DecoratedKey) -> Option<Rc<CachedPartition>> {
        if let Some(partition) = self.partition(key) {
            return Some(partition);
        }
        if !self.is_known_around(key) {
            return None;
        }
        if self.is_used() && self.cache.has_room() {
            return Some(self.insert_absent(key));
        }
        self.unlearn_around(key);
        None
    }

    async fn merge_partition(
        &self,
        memtable: &Memtable,
        key: &DecoratedKey,
        partition: &Rc<CachedPartition>,
        phase: u64,
        tasks: &dyn Tasks,
    ) {
        let mut rest = Slice::full();
        let is_first = Cell::new(true);
        loop {
            let next = memtable.with_partition(key, |written| {
                let mut editor = partition.edit(&self.cache);
                if editor.state.is_detached {
                    return None;
                }
                if is_first.replace(false) {
                    if let Some(deletion) = written.deletion {
                        editor.apply_deletion(deletion);
                    }
                    for tombstone in written.range_tombstones.iter() {
                        editor.apply_range(&tombstone.slice, tombstone.deletion);
                    }
                    if let Some(row) = &written.static_row {
                        editor.apply_static(row);
                    }
                }
                let mut last = None;
                for (at, (key, row)) in written.rows.within(&rest).enumerate() {
                    editor.apply_row(key, row, self.rows_max());
                    if at + 1 == BATCH {
                        last = Some(after_row(key));
                        break;
                    }
                }
                last
            });
            self.cache.shrink();
            let Some(Some(next)) = next else { return };
            rest.start = next;
            if let Some(turn) = tasks.yield_if_due() {
                turn.await;
            }
            if self.phase() != phase {
                return;
            }
        }
    }
}
