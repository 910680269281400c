//! Dropping what a compaction need not carry on.

use std::cell::OnceCell;

use ceto_model::schema::DroppedColumn;
use ceto_model::{DecoratedKey, Deletion, Row, Timestamp, UnixSeconds};

use crate::reader::Fragment;

/// Filters a merged stream: dead data and expired tombstones go, empty partitions with them.
pub(crate) struct Purger<'a> {
    now: UnixSeconds,
    /// Tombstones made before it are past their gc grace.
    purge_before: UnixSeconds,
    dropped: &'a [DroppedColumn],
    /// For a partition: nothing outside the compaction is older than this.
    oldest_elsewhere: &'a dyn Fn(&DecoratedKey) -> Timestamp,
    partition: Option<PurgedPartition>,
}

struct PurgedPartition {
    key: DecoratedKey,
    deletion: Option<Deletion>,
    /// Its start was handed on.
    is_started: bool,
    announced: Option<Deletion>,
    oldest_elsewhere: OnceCell<Timestamp>,
}

impl<'a> Purger<'a> {
    pub(crate) fn new(
        now: UnixSeconds,
        purge_before: UnixSeconds,
        dropped: &'a [DroppedColumn],
        oldest_elsewhere: &'a dyn Fn(&DecoratedKey) -> Timestamp,
    ) -> Purger<'a> {
        Purger {
            now,
            purge_before,
            dropped,
            oldest_elsewhere,
            partition: None,
        }
    }

    /// Takes the next fragment; hands on what must be kept.
    pub(crate) fn push(
        &mut self,
        fragment: Fragment,
        out: &mut impl FnMut(Fragment) -> crate::Result<()>,
    ) -> crate::Result<()> {
        let kept = match fragment {
            Fragment::PartitionStart(key, deletion) => {
                self.start(key, deletion);
                return Ok(());
            }
            Fragment::PartitionEnd => {
                return match self.partition.take() {
                    Some(partition) if partition.is_started => out(Fragment::PartitionEnd),
                    Some(partition) if partition.deletion.is_some() => {
                        out(Fragment::PartitionStart(partition.key, partition.deletion))?;
                        out(Fragment::PartitionEnd)
                    }
                    _ => Ok(()),
                };
            }
            Fragment::StaticRow(row) => self.row(row).map(Fragment::StaticRow),
            Fragment::Row(key, row) => self.row(row).map(|row| Fragment::Row(key, row)),
            Fragment::DeletionChange(position, deletion) => {
                let deletion = deletion.filter(|deletion| !self.may_go(deletion));
                let partition = self.partition.as_mut().expect("fragments lie inside partitions");
                let is_change = partition.announced != deletion;
                partition.announced = deletion;
                is_change.then_some(Fragment::DeletionChange(position, deletion))
            }
        };
        let Some(kept) = kept else { return Ok(()) };
        let partition = self.partition.as_mut().expect("fragments lie inside partitions");
        if !partition.is_started {
            partition.is_started = true;
            out(Fragment::PartitionStart(
                partition.key.clone(),
                partition.deletion,
            ))?;
        }
        out(kept)
    }

    fn start(&mut self, key: DecoratedKey, deletion: Option<Deletion>) {
        self.partition = Some(PurgedPartition {
            key,
            deletion: None,
            is_started: false,
            announced: None,
            oldest_elsewhere: OnceCell::new(),
        });
        let kept = deletion.filter(|deletion| !self.may_go(deletion));
        if let Some(partition) = &mut self.partition {
            partition.deletion = kept;
        }
    }

    fn may_go(&self, deletion: &Deletion) -> bool {
        deletion.deleted_at < self.purge_before && self.is_nowhere_else(deletion.timestamp)
    }

    /// Nothing as old as this is outside the compaction.
    fn is_nowhere_else(&self, timestamp: Timestamp) -> bool {
        let partition = self.partition.as_ref().expect("fragments lie inside partitions");
        let oldest = partition
            .oldest_elsewhere
            .get_or_init(|| (self.oldest_elsewhere)(&partition.key));
        timestamp < *oldest
    }

    fn row(&self, mut row: Row) -> Option<Row> {
        for column in self.dropped {
            row.forget_column(column.id, Timestamp(column.dropped_at));
        }
        row.purge(self.now, self.purge_before, &|timestamp| {
            self.is_nowhere_else(timestamp)
        });
        (!row.is_empty()).then_some(row)
    }
}
