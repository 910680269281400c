//! Up to where the commitlog is in sstables, when the sstables that said so are gone.
//!
//! What is replayed at a start is what lies behind the furthest `flushed_through` of a table's sstables. When the
//! sstable that has it is compacted to nothing or dropped, entries before it would be replayed, and some of them may be
//! what a tombstone shadowed that was purged. So the position is noted in the truncation record first.

use std::rc::Rc;

use ceto_env::Disk;

use crate::commitlog::ReplayPosition;
use crate::database::Database;
use crate::error::Result;
use crate::sstable::Sstable;
use crate::table::TableStore;
use crate::truncation::Truncation;

impl Database {
    /// To be called before `new` take the place of `old`.
    pub(super) async fn keep_flushed_position(
        &self,
        table: &TableStore,
        new: &[Rc<Sstable>],
        old: &[Rc<Sstable>],
    ) -> Result<()> {
        let Some(lost) = lost_position(table, new, old) else {
            return Ok(());
        };
        table.take_record().await;
        let written = note_position(&*self.env.disk(), table, lost).await;
        table.give_record_back();
        written
    }
}

async fn note_position(disk: &dyn Disk, table: &TableStore, position: ReplayPosition) -> Result<()> {
    let record = Truncation::read(disk, &table.dir, table.shard).await?;
    if record.position >= position {
        return Ok(());
    }
    let record = Truncation { position, ..record };
    record.write(disk, &table.dir, table.shard).await
}

/// The position that only `old` know.
fn lost_position(table: &TableStore, new: &[Rc<Sstable>], old: &[Rc<Sstable>]) -> Option<ReplayPosition> {
    let through = |sstables: &mut dyn Iterator<Item = &Rc<Sstable>>| {
        sstables
            .filter_map(|sstable| sstable.statistics.flushed_through)
            .max()
    };
    let lost = through(&mut old.iter())?;
    let view = table.view();
    let is_old = |sstable: &&Rc<Sstable>| old.iter().any(|old| Rc::ptr_eq(old, sstable));
    let mut kept = view.sstables.iter().filter(|sstable| !is_old(sstable)).chain(new);
    (through(&mut kept) < Some(lost)).then_some(lost)
}
