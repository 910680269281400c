//! The answer to a read: fragments go in, limits are applied, a [`ReadResult`] comes out.
//!
//! Without `keep_tombstones` the answer holds only what is live at the command's `now`; with it also what shadows,
//! so that several replicas' answers can be merged. Limits count live rows in both cases.
//!
//! Whether a row is live is decided by all its columns, before the selection drops some: a row that lives only by
//! columns that were not asked for is in the answer, empty. With `keep_tombstones` no column is dropped, so that the
//! same can be decided after the merge of several answers.

use ceto_model::key::DecoratedKey;
use ceto_model::read::{ColumnSelection, PartitionResult, ReadCommand, ResumePoint};
use ceto_model::schema::DroppedColumn;
use ceto_model::{
    ClusteringKey, ColumnData, Deletion, Partition, Position, RangeTombstone, ReadResult, ReadTarget,
    RingPosition, Row, Slice, UnixSeconds,
};

use super::{Fragment, after_row, before_row};

/// What the reader should do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// Go on.
    Continue,
    /// The rest of this partition is not wanted; its end need not be pushed.
    NextPartition,
    /// A limit stopped the read.
    Stop,
}

/// Collects an answer.
pub(crate) struct Answer<'a> {
    command: &'a ReadCommand,
    dropped: &'a [DroppedColumn],
    result: ReadResult,
    current: Option<Current>,
    rows: u64,
    partitions: u64,
    bytes: u64,
}

struct Current {
    key: DecoratedKey,
    partition: Partition,
    is_static_live: bool,
    /// Live rows in it.
    rows: u64,
    last_row: Option<ClusteringKey>,
    /// A range deletion that has begun, and where.
    open: Option<(Position, Deletion)>,
}

impl<'a> Answer<'a> {
    /// Nothing yet.
    pub(crate) fn new(command: &'a ReadCommand, dropped: &'a [DroppedColumn]) -> Answer<'a> {
        Answer {
            command,
            dropped,
            result: ReadResult::default(),
            current: None,
            rows: 0,
            partitions: 0,
            bytes: 0,
        }
    }

    /// The work figures, to be added to.
    pub(crate) fn work(&mut self) -> &mut ceto_model::read::ReadWork {
        &mut self.result.work
    }

    /// The answer.
    pub(crate) fn finish(mut self) -> ReadResult {
        self.result.work.live_rows = self.rows;
        self.result
    }

    /// Takes the next fragment of a merged stream.
    pub(crate) fn push(&mut self, fragment: Fragment) -> Flow {
        match fragment {
            Fragment::PartitionStart(key, deletion) => self.start(key, deletion),
            Fragment::StaticRow(row) => self.static_row(row),
            Fragment::Row(key, row) => return self.row(key, row),
            Fragment::DeletionChange(position, deletion) => self.deletion_change(position, deletion),
            Fragment::PartitionEnd => return self.end(),
        }
        Flow::Continue
    }

    fn start(&mut self, key: DecoratedKey, deletion: Option<Deletion>) {
        self.result.work.tombstones += u64::from(deletion.is_some());
        self.current = Some(Current {
            key,
            partition: Partition {
                deletion: deletion.filter(|_| self.command.keep_tombstones),
                ..Partition::default()
            },
            is_static_live: false,
            rows: 0,
            last_row: None,
            open: None,
        });
    }

    fn static_row(&mut self, row: Row) {
        let (row, is_live) = self.wanted(row);
        if let (Some(row), Some(current)) = (row, &mut self.current) {
            self.bytes += row.memory_size() as u64;
            current.partition.static_row = row;
            current.is_static_live = is_live;
        }
    }

    fn deletion_change(&mut self, position: Position, deletion: Option<Deletion>) {
        self.result.work.tombstones += u64::from(deletion.is_some());
        if !self.command.keep_tombstones {
            return;
        }
        let reversed = self.command.reversed;
        if let Some(current) = &mut self.current {
            current.close_deletion(&position, reversed);
            current.open = deletion.map(|deletion| (position, deletion));
        }
    }

    fn row(&mut self, key: ClusteringKey, row: Row) -> Flow {
        let limits = &self.command.limits;
        let (row, is_live) = self.wanted(row);
        let Some(current) = &mut self.current else {
            return Flow::Continue;
        };
        if let Some(row) = row {
            self.bytes += (size_of::<ClusteringKey>() + key.0.len() + row.memory_size()) as u64;
            if current.partition.rows.is_empty() && limits.rows.min(limits.rows_per_partition) == 1 {
                current.partition.rows.reserve_exact(1);
            }
            current.partition.rows.push((key.clone(), row));
        }
        current.last_row = Some(key);
        if is_live {
            current.rows += 1;
            self.rows += 1;
        }
        // The partition's own limit first: a page that ends here goes on with the next partition.
        if current.rows >= limits.rows_per_partition {
            return match self.end() {
                Flow::Continue => Flow::NextPartition,
                stop => stop,
            };
        }
        if self.rows >= limits.rows
            || self.bytes >= limits.bytes
            || self.result.work.tombstones >= limits.tombstones
        {
            return self.stop_in_partition();
        }
        Flow::Continue
    }

    /// A limit was reached at the row just taken.
    fn stop_in_partition(&mut self) -> Flow {
        let reversed = self.command.reversed;
        if let Some(mut current) = self.current.take() {
            if let Some(last) = current.last_row.take() {
                let cut = if reversed {
                    before_row(&last)
                } else {
                    after_row(&last)
                };
                current.close_deletion(&cut, reversed);
                self.result.resume = Some(ResumePoint::Row(current.key.clone(), last));
            }
            self.add(current);
        }
        Flow::Stop
    }

    fn end(&mut self) -> Flow {
        let Some(mut current) = self.current.take() else {
            return Flow::Continue;
        };
        if let Some(last) = current.last_row.take().filter(|_| current.open.is_some()) {
            // Only when the partition was cut short by its row limit: no stream ends with an open deletion.
            let reversed = self.command.reversed;
            let cut = if reversed {
                before_row(&last)
            } else {
                after_row(&last)
            };
            current.close_deletion(&cut, reversed);
        }
        let key = current.key.clone();
        if current.rows == 0 && current.is_static_live {
            self.rows += 1;
        }
        self.partitions += u64::from(current.rows > 0 || current.is_static_live);
        self.add(current);
        let limits = &self.command.limits;
        let is_full = self.rows >= limits.rows
            || self.partitions >= limits.partitions
            || self.bytes >= limits.bytes
            || self.result.work.tombstones >= limits.tombstones;
        if !is_full {
            return Flow::Continue;
        }
        if matches!(self.command.target, ReadTarget::Range(_)) {
            self.result.resume = Some(ResumePoint::Ring(RingPosition::AfterKey(key)));
        }
        Flow::Stop
    }

    fn add(&mut self, current: Current) {
        if current.partition.is_empty() {
            return;
        }
        self.bytes += (size_of::<PartitionResult>() + current.key.key.0.len()) as u64;
        if matches!(self.command.target, ReadTarget::Partition(_)) {
            self.result.partitions.reserve_exact(1);
        }
        self.result.partitions.push(PartitionResult {
            key: current.key,
            partition: current.partition,
        });
    }

    /// The part of a row that belongs into the answer, and whether the row is live.
    fn wanted(&mut self, mut row: Row) -> (Option<Row>, bool) {
        if !self.dropped.is_empty() {
            let dropped = self.dropped;
            row.columns
                .retain(|(id, _)| dropped.iter().all(|column| column.id != *id));
        }
        let now = self.command.now;
        if self.command.keep_tombstones {
            self.result.work.tombstones += count_tombstones(&row, now);
            let is_live = row.is_live(now);
            return ((!row.is_empty()).then_some(row), is_live);
        }
        self.result.work.tombstones += keep_live(&mut row, now);
        if row.liveness.is_none() && row.columns.is_empty() {
            return (None, false);
        }
        if let ColumnSelection::Only(ids) = &self.command.columns
            && row.columns.iter().any(|(id, _)| ids.binary_search(id).is_err())
        {
            row.columns.retain(|(id, _)| ids.binary_search(id).is_ok());
        }
        (Some(row), true)
    }
}

impl Current {
    fn close_deletion(&mut self, at: &Position, reversed: bool) {
        let Some((from, deletion)) = self.open.take() else {
            return;
        };
        let (start, end) = if reversed {
            (at.clone(), from)
        } else {
            (from, at.clone())
        };
        self.partition.delete_range(RangeTombstone {
            slice: Slice { start, end },
            deletion,
        });
    }
}

/// Keeps the live cells and marker; returns the number of tombstones and dead cells removed.
fn keep_live(row: &mut Row, now: UnixSeconds) -> u64 {
    let mut dead = u64::from(row.deletion.take().is_some());
    if row.liveness.is_some_and(|liveness| !liveness.is_live(now)) {
        row.liveness = None;
        dead += 1;
    }
    row.columns.retain_mut(|(_, data)| match data {
        ColumnData::Cell(cell) => {
            let is_live = cell.is_live(now);
            dead += u64::from(!is_live);
            is_live
        }
        ColumnData::Collection(collection) => {
            dead += u64::from(collection.deletion.take().is_some());
            let before = collection.cells.len();
            collection.cells.retain(|(_, cell)| cell.is_live(now));
            dead += (before - collection.cells.len()) as u64;
            !collection.cells.is_empty()
        }
    });
    dead
}

fn count_tombstones(row: &Row, now: UnixSeconds) -> u64 {
    let mut dead = u64::from(row.deletion.is_some());
    dead += u64::from(row.liveness.is_some_and(|liveness| !liveness.is_live(now)));
    for (_, data) in &row.columns {
        dead += match data {
            ColumnData::Cell(cell) => u64::from(!cell.is_live(now)),
            ColumnData::Collection(collection) => {
                let cells = collection.cells.iter().filter(|(_, cell)| !cell.is_live(now));
                cells.count() as u64 + u64::from(collection.deletion.is_some())
            }
        };
    }
    dead
}
