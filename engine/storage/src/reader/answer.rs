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
use ceto_model::{
    ClusteringKey, Collection, ColumnData, ColumnId, Deletion, Partition, Position, RangeTombstone,
    ReadResult, ReadTarget, RingPosition, Row, Slice, Table, Timestamp, UnixSeconds,
};

use super::Fragment;

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
    definition: &'a Table,
    /// The partition being taken is the last one in it.
    result: ReadResult,
    current: Option<Current>,
    rows: u64,
    partitions: u64,
    bytes: u64,
    /// Memory is short: it ends as soon as it can be resumed.
    is_cut: bool,
}

/// What the answer does not say of the partition being taken.
#[derive(Default)]
struct Current {
    is_static_live: bool,
    /// Live rows in it.
    rows: u64,
    /// The row taken last, when it is not the last one in the answer.
    last_dead: Option<ClusteringKey>,
    /// A row or the end or beginning of a range deletion was met.
    has_moved: bool,
    /// A range deletion that has begun, and where.
    open: Option<(Position, Deletion)>,
}

impl<'a> Answer<'a> {
    /// Nothing yet.
    pub(crate) fn new(command: &'a ReadCommand, definition: &'a Table) -> Answer<'a> {
        Answer {
            command,
            definition,
            result: ReadResult::default(),
            current: None,
            rows: 0,
            partitions: 0,
            bytes: 0,
            is_cut: false,
        }
    }

    /// Bytes that it holds.
    pub(crate) fn memory(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Makes the next row the last one, when the command allows short answers: those that have a bound in bytes are
    /// asked for page by page. True the first time.
    pub(crate) fn cut_short(&mut self) -> bool {
        self.command.limits.bytes != u64::MAX && !std::mem::replace(&mut self.is_cut, true)
    }

    /// The work figures, to be added to.
    pub(crate) fn work(&mut self) -> &mut ceto_model::read::ReadWork {
        &mut self.result.work
    }

    /// The answer.
    pub(crate) fn finish(mut self) -> ReadResult {
        self.drop_empty();
        self.result.work.live_rows = self.rows;
        self.result
    }

    /// Takes the next fragment of a merged stream.
    pub(crate) fn push(&mut self, fragment: Fragment) -> Flow {
        match fragment {
            Fragment::PartitionStart(key, deletion) => self.start(key, deletion),
            Fragment::StaticRow(row) => self.static_row(row),
            Fragment::Row(key, row) => return self.row(key, row),
            Fragment::DeletionChange(position, deletion) => return self.deletion_change(position, deletion),
            Fragment::PartitionEnd => return self.end(),
        }
        Flow::Continue
    }

    /// Begins a partition.
    pub(crate) fn start(&mut self, key: DecoratedKey, deletion: Option<Deletion>) {
        self.result.work.tombstones += u64::from(deletion.is_some());
        self.current = Some(Current::default());
        if matches!(self.command.target, ReadTarget::Partition(_)) {
            self.result.partitions.reserve_exact(1);
        }
        self.result.partitions.push(PartitionResult {
            key,
            partition: Partition {
                deletion: deletion.filter(|_| self.command.keep_tombstones),
                ..Partition::default()
            },
        });
    }

    fn static_row(&mut self, row: Row) {
        let (row, is_live) = self.wanted(row);
        let partition = self.result.partitions.last_mut();
        if let (Some(row), Some(current), Some(partition)) = (row, &mut self.current, partition) {
            self.bytes += row.memory_size() as u64;
            partition.partition.static_row = row;
            current.is_static_live = is_live;
        }
    }

    /// Begins or ends a range deletion. Each counts, as each is walked over: a partition of nothing else is read in
    /// pieces too.
    fn deletion_change(&mut self, position: Position, deletion: Option<Deletion>) -> Flow {
        self.result.work.tombstones += 1;
        if self.command.keep_tombstones {
            self.close_deletion(&position);
        }
        let is_full = self.is_full();
        let Some(current) = &mut self.current else {
            return Flow::Continue;
        };
        // What comes first may be where an earlier read stopped: stopping there again would be for ever.
        let is_last = match self.command.reversed {
            true => position == Position::before_all(),
            false => position == Position::after_all(),
        };
        if is_full && current.has_moved && !is_last {
            let answer = self.result.partitions.last();
            self.result.resume = answer.map(|answer| ResumePoint::Inside(answer.key.clone(), position));
            self.drop_empty();
            return Flow::Stop;
        }
        current.has_moved = true;
        if self.command.keep_tombstones {
            current.open = deletion.map(|deletion| (position, deletion));
        }
        Flow::Continue
    }

    /// Takes a row from a source that is the only one, leaving it where it is.
    pub(crate) fn row_at(&mut self, key: &ClusteringKey, row: &Row) -> Flow {
        if self.command.keep_tombstones || !self.definition.dropped.is_empty() {
            return self.row(key.clone(), row.clone());
        }
        let (row, dead) = live_part(row, &self.command.columns, self.command.now);
        self.result.work.tombstones += dead;
        let is_live = row.is_some();
        self.take(
            row.map_or_else(|| Err(key.clone()), |row| Ok((key.clone(), row))),
            is_live,
        )
    }

    /// [`Answer::plain_row`] spares work: nothing is to be looked for in such a row.
    pub(crate) fn takes_plain_rows(&self) -> bool {
        !self.command.keep_tombstones && self.definition.dropped.is_empty()
    }

    /// The column was asked for.
    pub(crate) fn wants(&self, id: ColumnId) -> bool {
        self.command.columns.contains(id)
    }

    /// Takes a row in which nothing is deleted and nothing expires, and which is not empty.
    pub(crate) fn plain_row(&mut self, key: ClusteringKey, mut row: Row) -> Flow {
        if !self.takes_plain_rows() {
            return self.row(key, row);
        }
        self.select_columns(&mut row);
        self.take(Ok((key, row)), true)
    }

    /// Takes a partition that is one such row. Never answers [`Flow::NextPartition`].
    pub(crate) fn plain_partition(&mut self, key: DecoratedKey, clustering: ClusteringKey, row: Row) -> Flow {
        self.start(key, None);
        match self.plain_row(clustering, row) {
            Flow::Continue => self.end(),
            Flow::NextPartition => Flow::Continue,
            Flow::Stop => Flow::Stop,
        }
    }

    fn row(&mut self, key: ClusteringKey, row: Row) -> Flow {
        let (row, is_live) = self.wanted(row);
        match row {
            Some(row) => self.take(Ok((key, row)), is_live),
            None => self.take(Err(key), is_live),
        }
    }

    /// Takes a row, or the key of one that does not belong into the answer.
    fn take(&mut self, row: Result<(ClusteringKey, Row), ClusteringKey>, is_live: bool) -> Flow {
        let limits = &self.command.limits;
        let (Some(current), Some(answer)) = (&mut self.current, self.result.partitions.last_mut()) else {
            return Flow::Continue;
        };
        current.has_moved = true;
        match row {
            Ok((key, row)) => {
                self.bytes += (size_of::<ClusteringKey>() + key.0.len() + row.memory_size()) as u64;
                let rows = &mut answer.partition.rows;
                if rows.is_empty() {
                    // Most partitions have one row; a vector's own first step is to four.
                    rows.reserve_exact(1);
                }
                rows.push((key, row));
                current.last_dead = None;
            }
            Err(key) => current.last_dead = Some(key),
        }
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
        if self.is_full() {
            return self.stop_in_partition();
        }
        Flow::Continue
    }

    fn is_full(&self) -> bool {
        let limits = &self.command.limits;
        self.is_cut
            || self.rows >= limits.rows
            || self.partitions >= limits.partitions
            || self.bytes >= limits.bytes
            || self.result.work.tombstones >= limits.tombstones
    }

    /// The key of the row taken last.
    fn last_row(&self) -> Option<ClusteringKey> {
        let dead = self.current.as_ref()?.last_dead.clone();
        dead.or_else(|| {
            let rows = &self.result.partitions.last()?.partition.rows;
            rows.last().map(|(key, _)| key.clone())
        })
    }

    /// A limit was reached at the row just taken.
    fn stop_in_partition(&mut self) -> Flow {
        self.cut_deletion();
        if let (Some(last), Some(answer)) = (self.last_row(), self.result.partitions.last()) {
            let behind = Position::behind_row(&last, self.command.reversed);
            self.result.resume = Some(ResumePoint::Inside(answer.key.clone(), behind));
        }
        self.drop_empty();
        Flow::Stop
    }

    /// Ends the partition.
    pub(crate) fn end(&mut self) -> Flow {
        // Only when the partition is cut short by its row limit: no stream ends with an open deletion.
        self.cut_deletion();
        let (Some(current), Some(answer)) = (self.current.take(), self.result.partitions.last()) else {
            return Flow::Continue;
        };
        if current.rows == 0 && current.is_static_live {
            self.rows += 1;
        }
        self.partitions += u64::from(current.rows > 0 || current.is_static_live);
        self.bytes += (size_of::<PartitionResult>() + answer.key.key.0.len()) as u64;
        let is_full = self.is_full();
        if is_full && matches!(self.command.target, ReadTarget::Range(_)) {
            self.result.resume = Some(ResumePoint::Ring(RingPosition::AfterKey(answer.key.clone())));
        }
        self.drop_empty();
        if is_full { Flow::Stop } else { Flow::Continue }
    }

    /// A partition of which nothing belongs into the answer is not in it.
    fn drop_empty(&mut self) {
        self.current = None;
        if self
            .result
            .partitions
            .last()
            .is_some_and(|answer| answer.partition.is_empty())
        {
            self.result.partitions.pop();
        }
    }

    /// Ends an open range deletion at the row taken last.
    fn cut_deletion(&mut self) {
        if self.current.as_ref().is_none_or(|current| current.open.is_none()) {
            return;
        }
        if let Some(last) = self.last_row() {
            self.close_deletion(&Position::behind_row(&last, self.command.reversed));
        }
    }

    fn close_deletion(&mut self, at: &Position) {
        let open = self.current.as_mut().and_then(|current| current.open.take());
        let (Some((from, deletion)), Some(answer)) = (open, self.result.partitions.last_mut()) else {
            return;
        };
        let (start, end) = if self.command.reversed {
            (at.clone(), from)
        } else {
            (from, at.clone())
        };
        answer.partition.delete_range(RangeTombstone {
            slice: Slice { start, end },
            deletion,
        });
    }

    /// The part of a row that belongs into the answer, and whether the row is live.
    fn wanted(&mut self, mut row: Row) -> (Option<Row>, bool) {
        for dropped in &self.definition.dropped {
            // A column that has not come back shows nothing; one that has shows what was written after the drop.
            let through = match self.definition.column_by_id(dropped.id) {
                Some(_) => Timestamp(dropped.dropped_at),
                None => Timestamp(i64::MAX),
            };
            row.forget_column(dropped.id, through);
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
        self.select_columns(&mut row);
        (Some(row), true)
    }

    /// Drops columns that were not asked for.
    fn select_columns(&self, row: &mut Row) {
        if let ColumnSelection::Only(ids) = &self.command.columns
            && !row.columns.iter().map(|(id, _)| id).eq(ids)
        {
            row.columns.retain(|(id, _)| ids.binary_search(id).is_ok());
        }
    }
}

/// The live part of a row, of the selected columns, as a copy; None when the row is not live. With the number of
/// tombstones and dead cells passed over.
fn live_part(row: &Row, selection: &ColumnSelection, now: UnixSeconds) -> (Option<Row>, u64) {
    let mut dead = 0;
    let liveness = row.liveness.filter(|liveness| liveness.is_live(now));
    let wanted = match selection {
        ColumnSelection::All => row.columns.len(),
        ColumnSelection::Only(ids) => ids.len().min(row.columns.len()),
    };
    let mut columns = Vec::with_capacity(wanted);
    let mut is_live = liveness.is_some();
    for (id, data) in &row.columns {
        let is_selected = selection.contains(*id);
        match data {
            ColumnData::Cell(cell) if cell.is_live(now) => {
                is_live = true;
                if is_selected {
                    columns.push((*id, ColumnData::Cell(cell.clone())));
                }
            }
            ColumnData::Cell(_) => dead += 1,
            ColumnData::Collection(collection) => {
                let mut kept = Collection::default();
                let mut live_cells = 0;
                for (path, cell) in collection.cells.iter().filter(|(_, cell)| cell.is_live(now)) {
                    live_cells += 1;
                    if is_selected {
                        kept.cells.push((path.clone(), cell.clone()));
                    }
                }
                dead += (collection.cells.len() - live_cells) as u64;
                is_live |= live_cells > 0;
                if !kept.cells.is_empty() {
                    columns.push((*id, ColumnData::Collection(kept)));
                }
            }
        }
    }
    dead += u64::from(!is_live && dead == 0 && has_deletion(row));
    let row = Row {
        liveness,
        deletion: None,
        columns,
    };
    (is_live.then_some(row), dead)
}

/// Something of the row was deleted or has expired. Cassandra counts one tombstone for a row that is dead as a whole, and
/// dead cells by themselves; it counts neither the deletion that every write of a whole collection carries nor a row
/// deletion with newer content.
fn has_deletion(row: &Row) -> bool {
    let collection_deleted = |data: &ColumnData| matches!(data, ColumnData::Collection(collection) if collection.deletion.is_some());
    row.deletion.is_some()
        || row.liveness.is_some()
        || row.columns.iter().any(|(_, data)| collection_deleted(data))
}

/// Keeps the live cells and marker; returns the number of tombstones and dead cells removed.
fn keep_live(row: &mut Row, now: UnixSeconds) -> u64 {
    let had_deletion = has_deletion(row);
    let mut dead = 0;
    row.deletion = None;
    row.liveness = row.liveness.filter(|liveness| liveness.is_live(now));
    row.columns.retain_mut(|(_, data)| match data {
        ColumnData::Cell(cell) => {
            let is_live = cell.is_live(now);
            dead += u64::from(!is_live);
            is_live
        }
        ColumnData::Collection(collection) => {
            collection.deletion = None;
            let before = collection.cells.len();
            collection.cells.retain(|(_, cell)| cell.is_live(now));
            dead += (before - collection.cells.len()) as u64;
            !collection.cells.is_empty()
        }
    });
    let is_live = row.liveness.is_some() || !row.columns.is_empty();
    dead + u64::from(!is_live && dead == 0 && had_deletion)
}

fn count_tombstones(row: &Row, now: UnixSeconds) -> u64 {
    let dead: u64 = row
        .columns
        .iter()
        .map(|(_, data)| match data {
            ColumnData::Cell(cell) => u64::from(!cell.is_live(now)),
            ColumnData::Collection(collection) => collection
                .cells
                .iter()
                .filter(|(_, cell)| !cell.is_live(now))
                .count() as u64,
        })
        .sum();
    dead + u64::from(dead == 0 && !row.is_live(now) && has_deletion(row))
}
