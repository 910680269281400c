//! Dropping what a compaction need not carry on.

use std::cell::OnceCell;

use ceto_model::schema::DroppedColumn;
use ceto_model::{DecoratedKey, Deletion, Row, Timestamp, UnixSeconds};

use crate::error::Result;
use crate::reader::Fragment;

/// Where the two parts of a stream go.
pub(crate) trait Sink {
    /// Takes what is kept.
    fn keep(&mut self, fragment: Fragment) -> Result<()>;
    /// Takes the tombstones that are not kept, when [`Sink::wants_purged`].
    fn purged(&mut self, fragment: Fragment);
    fn wants_purged(&self) -> bool;
}

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
    kept: Stream,
    purged: Stream,
    oldest_elsewhere: OnceCell<Timestamp>,
}

/// What one of the two parts has of a partition.
#[derive(Default)]
struct Stream {
    deletion: Option<Deletion>,
    /// Its start was handed on.
    is_started: bool,
    announced: Option<Deletion>,
}

impl Stream {
    /// What is to be handed on when the range deletion becomes this one: nothing when it is none.
    fn has_changed(&mut self, deletion: Option<Deletion>) -> bool {
        std::mem::replace(&mut self.announced, deletion) != deletion
    }

    /// The start of the partition, the first time.
    fn start(&mut self, key: &DecoratedKey) -> Option<Fragment> {
        let is_first = !std::mem::replace(&mut self.is_started, true);
        is_first.then(|| Fragment::PartitionStart(key.clone(), self.deletion))
    }

    /// The rest of the partition.
    fn end(&mut self, key: &DecoratedKey) -> Option<[Option<Fragment>; 2]> {
        if !self.is_started && self.deletion.is_none() {
            return None;
        }
        Some([self.start(key), Some(Fragment::PartitionEnd)])
    }
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
    pub(crate) fn push(&mut self, fragment: Fragment, sink: &mut impl Sink) -> Result<()> {
        match fragment {
            Fragment::PartitionStart(key, deletion) => {
                self.start(key, deletion);
                Ok(())
            }
            Fragment::PartitionEnd => self.end(sink),
            Fragment::StaticRow(row) => self.row(row, sink, Fragment::StaticRow),
            Fragment::Row(key, row) => {
                let mut key = Some(key);
                self.row(row, sink, |row| {
                    let key = key.take().expect("a row is in one stream, or its key was copied");
                    Fragment::Row(key, row)
                })
            }
            Fragment::DeletionChange(position, deletion) => {
                let goes = deletion.is_some_and(|deletion| self.may_go(&deletion));
                let (kept, purged) = if goes { (None, deletion) } else { (deletion, None) };
                let partition = self.partition();
                if partition.kept.has_changed(kept) {
                    let start = partition.kept.start(&partition.key);
                    start.map_or(Ok(()), |start| sink.keep(start))?;
                    sink.keep(Fragment::DeletionChange(position.clone(), kept))?;
                }
                if sink.wants_purged() && partition.purged.has_changed(purged) {
                    let start = partition.purged.start(&partition.key);
                    start.into_iter().for_each(|start| sink.purged(start));
                    sink.purged(Fragment::DeletionChange(position, purged));
                }
                Ok(())
            }
        }
    }

    fn partition(&mut self) -> &mut PurgedPartition {
        self.partition.as_mut().expect("fragments lie inside partitions")
    }

    fn start(&mut self, key: DecoratedKey, deletion: Option<Deletion>) {
        self.partition = Some(PurgedPartition {
            key,
            kept: Stream::default(),
            purged: Stream::default(),
            oldest_elsewhere: OnceCell::new(),
        });
        let goes = deletion.is_some_and(|deletion| self.may_go(&deletion));
        let partition = self.partition();
        if goes {
            partition.purged.deletion = deletion;
        } else {
            partition.kept.deletion = deletion;
        }
    }

    fn end(&mut self, sink: &mut impl Sink) -> Result<()> {
        let Some(mut partition) = self.partition.take() else {
            return Ok(());
        };
        let kept = partition.kept.end(&partition.key);
        for fragment in kept.into_iter().flatten().flatten() {
            sink.keep(fragment)?;
        }
        if sink.wants_purged() {
            let purged = partition.purged.end(&partition.key);
            purged
                .into_iter()
                .flatten()
                .flatten()
                .for_each(|fragment| sink.purged(fragment));
        }
        Ok(())
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

    fn row(
        &mut self,
        mut row: Row,
        sink: &mut impl Sink,
        mut fragment: impl FnMut(Row) -> Fragment,
    ) -> Result<()> {
        for column in self.dropped {
            row.forget_column(column.id, Timestamp(column.dropped_at));
        }
        let purgeable = |timestamp| self.is_nowhere_else(timestamp);
        let purged = match sink.wants_purged() {
            true => row.purgeable_part(self.now, self.purge_before, &purgeable),
            false => None,
        };
        row.purge(self.now, self.purge_before, &purgeable);
        let partition = self.partition.as_mut().expect("fragments lie inside partitions");
        let is_kept = !row.is_empty();
        let kept = if let Some(purged) = purged {
            let start = partition.purged.start(&partition.key);
            start.into_iter().for_each(|start| sink.purged(start));
            match fragment(row) {
                // Both streams have the row.
                Fragment::Row(key, row) => {
                    sink.purged(Fragment::Row(key.clone(), purged));
                    Fragment::Row(key, row)
                }
                other => {
                    sink.purged(Fragment::StaticRow(purged));
                    other
                }
            }
        } else {
            fragment(row)
        };
        if !is_kept {
            return Ok(());
        }
        let start = partition.kept.start(&partition.key);
        start.map_or(Ok(()), |start| sink.keep(start))?;
        sink.keep(kept)
    }
}
