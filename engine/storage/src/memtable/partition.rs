//! One partition of a memtable.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use ceto_model::key::KEY_END;
use ceto_model::{
    Cell, CellState, ClusteringKey, ColumnData, Deletion, Partition, Position, RangeTombstone,
    RangeTombstones, Row, Slice, Timestamp,
};

/// Rows kept in a sorted vector; more move to a B-tree.
const FEW_ROWS: usize = 32;
/// A collection with more cells is not measured before and after a merge.
const MEASURED_CELLS: usize = 64;

/// What a memtable knows of one partition.
#[derive(Default)]
pub(crate) struct MemtablePartition {
    pub(crate) deletion: Option<Deletion>,
    pub(crate) static_row: Option<Box<Row>>,
    pub(crate) rows: Rows,
    pub(crate) range_tombstones: RangeTombstones,
}

/// Rows by clustering key.
pub(crate) enum Rows {
    /// Sorted.
    Few(Vec<(ClusteringKey, Row)>),
    Many(BTreeMap<ClusteringKey, Row>),
}

impl Default for Rows {
    fn default() -> Rows {
        Rows::Few(Vec::new())
    }
}

impl MemtablePartition {
    /// One row and nothing else.
    pub(super) fn of_row(key: ClusteringKey, row: Row) -> MemtablePartition {
        MemtablePartition {
            rows: Rows::Few(vec![(key, row)]),
            ..MemtablePartition::default()
        }
    }

    /// Its row, when it has one and nothing else.
    pub(super) fn only_row(&self) -> Option<(&ClusteringKey, &Row)> {
        let has_more =
            self.deletion.is_some() || self.static_row.is_some() || !self.range_tombstones.is_empty();
        match &self.rows {
            Rows::Few(rows) if !has_more => match &rows[..] {
                [(key, row)] => Some((key, row)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes of its rows, when they are few.
    pub(super) fn rows_size(&self) -> isize {
        let Rows::Few(rows) = &self.rows else { return 0 };
        let sizes = rows
            .iter()
            .map(|(key, row)| size_of::<ClusteringKey>() + key.0.len() + row.memory_size());
        sizes.sum::<usize>() as isize
    }

    /// Merges a write in, copying what it keeps. Returns by how many bytes the memory in use grew, roughly.
    pub(crate) fn apply(&mut self, write: Partition) -> isize {
        let mut grown = 0;
        if let Some(deletion) = write.deletion {
            grown += self.delete(deletion);
        }
        for tombstone in write.range_tombstones.iter() {
            grown += self.delete_range(tombstone);
        }
        if !write.static_row.is_empty() {
            grown += self.merge_static(write.static_row);
        }
        for (key, row) in write.rows {
            grown += self.merge_row(key, row);
        }
        grown
    }

    /// Looks at a byte of each string in a small partition (see `Memtable::warm`).
    pub(crate) fn touch(&self) -> usize {
        let Rows::Few(rows) = &self.rows else { return 0 };
        let cells = rows.iter().flat_map(|(_, row)| &row.columns);
        let bytes = cells.map(|(_, data)| match data {
            ColumnData::Cell(Cell {
                state: CellState::Live(value) | CellState::Expiring { value, .. },
                ..
            }) => value.first().map_or(0, |byte| usize::from(*byte)),
            _ => 0,
        });
        bytes.sum()
    }

    /// Has rows and deletions that can be looked at in one piece: few rows, and no deleted ranges among them.
    pub(crate) fn is_small(&self) -> bool {
        self.range_tombstones.is_empty() && matches!(self.rows, Rows::Few(_))
    }

    fn delete(&mut self, deletion: Deletion) -> isize {
        if self.deletion >= Some(deletion) {
            return 0;
        }
        self.deletion = Some(deletion);
        let mut freed = self.range_tombstones.memory_size();
        self.range_tombstones.shadow_by_wider(deletion);
        freed -= self.range_tombstones.memory_size();
        if let Some(row) = &mut self.static_row {
            freed += shadow(row, deletion);
            if row.is_empty() {
                self.static_row = None;
            }
        }
        freed += self.rows.shadow(&Slice::full(), deletion);
        -(freed as isize)
    }

    fn delete_range(&mut self, tombstone: &RangeTombstone) -> isize {
        if self.deletion >= Some(tombstone.deletion) {
            return 0;
        }
        let slice = Slice {
            start: Position(Bytes::copy_from_slice(&tombstone.slice.start.0)),
            end: Position(Bytes::copy_from_slice(&tombstone.slice.end.0)),
        };
        let freed = self.rows.shadow(&slice, tombstone.deletion);
        let grown = size_of::<RangeTombstone>() + slice.start.0.len() + slice.end.0.len();
        self.range_tombstones.add(RangeTombstone {
            slice,
            deletion: tombstone.deletion,
        });
        grown as isize - freed as isize
    }

    fn merge_static(&mut self, mut row: Row) -> isize {
        if let Some(deletion) = self.deletion {
            row.shadow_by_wider(deletion);
        }
        if row.is_empty() {
            return 0;
        }
        own_bytes(None, &mut row);
        match &mut self.static_row {
            Some(own) => merge_measured(own, row),
            None => {
                let size = row.memory_size();
                self.static_row = Some(Box::new(row));
                size as isize
            }
        }
    }

    fn merge_row(&mut self, mut key: ClusteringKey, mut row: Row) -> isize {
        let mut wider = self.deletion;
        if !self.range_tombstones.is_empty() {
            wider = Deletion::strongest(wider, self.range_tombstones.covering(&key));
        }
        if let Some(deletion) = wider {
            row.shadow_by_wider(deletion);
        }
        if row.is_empty() {
            return 0;
        }
        match self.rows.get_mut(&key) {
            Some(own) => {
                own_bytes(None, &mut row);
                merge_measured(own, row)
            }
            None => {
                own_bytes(Some(&mut key), &mut row);
                let size = size_of::<ClusteringKey>() + key.0.len() + row.memory_size();
                self.rows.insert(key, row);
                size as isize
            }
        }
    }
}

impl Rows {
    fn get_mut(&mut self, key: &ClusteringKey) -> Option<&mut Row> {
        match self {
            Rows::Few(rows) => {
                let at = rows.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
                rows.get_mut(at).map(|(_, row)| row)
            }
            Rows::Many(rows) => rows.get_mut(key),
        }
    }

    /// Adds a row that is not there yet.
    fn insert(&mut self, key: ClusteringKey, row: Row) {
        match self {
            Rows::Few(rows) if rows.len() < FEW_ROWS => {
                if rows.is_empty() {
                    rows.reserve_exact(1);
                }
                let at = rows.partition_point(|(own, _)| *own < key);
                rows.insert(at, (key, row));
            }
            Rows::Few(rows) => {
                let mut many: BTreeMap<_, _> = std::mem::take(rows).into_iter().collect();
                many.insert(key, row);
                *self = Rows::Many(many);
            }
            Rows::Many(rows) => {
                rows.insert(key, row);
            }
        }
    }

    /// Removes what `deletion` shadows inside `slice`; returns the bytes freed.
    fn shadow(&mut self, slice: &Slice, deletion: Deletion) -> usize {
        let mut freed = 0;
        let mut keep = |key: &ClusteringKey, row: &mut Row| {
            freed += shadow(row, deletion);
            let is_empty = row.is_empty();
            freed += if is_empty {
                size_of::<ClusteringKey>() + key.0.len() + size_of::<Row>()
            } else {
                0
            };
            !is_empty
        };
        match self {
            Rows::Few(rows) => rows.retain_mut(|(key, row)| !slice.contains(key) || keep(key, row)),
            Rows::Many(rows) => {
                let mut empty = Vec::new();
                for (key, row) in rows.range_mut(bounds(slice)) {
                    if !keep(key, row) {
                        empty.push(key.clone());
                    }
                }
                for key in empty {
                    rows.remove(&key);
                }
            }
        }
        freed
    }

    /// Rows inside `slice`, in order.
    pub(crate) fn within<'a>(&'a self, slice: &Slice) -> RowsWithin<'a> {
        match self {
            Rows::Few(rows) => {
                let start = rows.partition_point(|(key, _)| key.0 <= slice.start.0);
                let end = rows.partition_point(|(key, _)| key.0 < slice.end.0).max(start);
                RowsWithin::Few(rows.get(start..end).unwrap_or_default().iter())
            }
            Rows::Many(rows) => RowsWithin::Many(rows.range(bounds(slice))),
        }
    }
}

/// Bounds of a slice in a map of rows. A position never equals a key, so either kind of bound will do.
fn bounds(slice: &Slice) -> (Bound<ClusteringKey>, Bound<ClusteringKey>) {
    if slice.is_empty() {
        let nowhere = ClusteringKey(slice.start.0.clone());
        return (Bound::Included(nowhere.clone()), Bound::Excluded(nowhere));
    }
    let key = |position: &Position| ClusteringKey(position.0.clone());
    (
        Bound::Excluded(key(&slice.start)),
        Bound::Included(key(&slice.end)),
    )
}

/// Rows of a slice, from both ends.
pub(crate) enum RowsWithin<'a> {
    Few(std::slice::Iter<'a, (ClusteringKey, Row)>),
    Many(std::collections::btree_map::Range<'a, ClusteringKey, Row>),
}

impl<'a> Iterator for RowsWithin<'a> {
    type Item = (&'a ClusteringKey, &'a Row);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(rows) => rows.next().map(|(key, row)| (key, row)),
            Self::Many(rows) => rows.next(),
        }
    }
}

impl DoubleEndedIterator for RowsWithin<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(rows) => rows.next_back().map(|(key, row)| (key, row)),
            Self::Many(rows) => rows.next_back(),
        }
    }
}

/// Shadows a row; returns the bytes freed.
fn shadow(row: &mut Row, deletion: Deletion) -> usize {
    let before = row.memory_size();
    row.shadow_by_wider(deletion);
    before.saturating_sub(row.memory_size())
}

/// Merges a row; returns by how many bytes the memory in use grew. Measures only the columns that change, and large
/// collections not at all: there the merged part counts in full.
fn merge_measured(own: &mut Row, mut row: Row) -> isize {
    if own.deletion.is_some() || row.deletion.is_some() {
        let before = own.memory_size();
        own.merge(row);
        return own.memory_size() as isize - before as isize;
    }
    let columns = std::mem::take(&mut row.columns);
    own.merge(row);
    let mut grown = 0;
    let mut at = 0;
    for (id, data) in columns {
        // Both are sorted: the place is never before the last one.
        while own.columns.get(at).is_some_and(|(own, _)| *own < id) {
            at += 1;
        }
        match own.columns.get_mut(at) {
            Some((own, mine)) if *own == id => grown += merge_column_measured(mine, data),
            _ => {
                grown += data.memory_size() as isize;
                own.columns.insert(at, (id, data));
            }
        }
    }
    grown
}

fn merge_column_measured(own: &mut ColumnData, data: ColumnData) -> isize {
    if let (ColumnData::Cell(mine), ColumnData::Cell(_)) = (&mut *own, &data) {
        let before = mine.heap_size();
        own.merge(data);
        let after = if let ColumnData::Cell(mine) = own {
            mine.heap_size()
        } else {
            0
        };
        return after as isize - before as isize;
    }
    if own.cell_count() > MEASURED_CELLS {
        let grown = data.memory_size();
        own.merge(data);
        return grown as isize;
    }
    let before = own.memory_size();
    own.merge(data);
    own.memory_size() as isize - before as isize
}

/// Moves all byte strings of a row (and its key) into one allocation of their own.
pub(crate) fn own_bytes(key: Option<&mut ClusteringKey>, row: &mut Row) {
    // The key of a table without clustering columns, which needs no memory.
    let key = key.and_then(|key| match *key.0 {
        [KEY_END] => {
            key.0 = Bytes::from_static(&[KEY_END]);
            None
        }
        _ => Some(key),
    });
    let (mut size, mut strings) = (
        key.as_ref().map_or(0, |key| key.0.len()),
        usize::from(key.is_some()),
    );
    for_each_bytes(row, &mut |bytes| {
        size += bytes.len();
        strings += 1;
    });
    if strings == 1 && key.is_none() {
        // Nothing to share the allocation with.
        for_each_bytes(row, &mut |bytes| *bytes = Bytes::copy_from_slice(bytes));
        return;
    }
    if size == 0 {
        if let Some(key) = key {
            key.0 = Bytes::new();
        }
        for_each_bytes(row, &mut |bytes| *bytes = Bytes::new());
        return;
    }
    let mut buffer = Vec::with_capacity(size);
    if let Some(key) = &key {
        buffer.extend_from_slice(&key.0);
    }
    for_each_bytes(row, &mut |bytes| buffer.extend_from_slice(bytes));
    let mut buffer = Bytes::from(buffer);
    if let Some(key) = key {
        key.0 = buffer.split_to(key.0.len());
    }
    for_each_bytes(row, &mut |bytes| {
        let length = bytes.len();
        *bytes = if length == 0 {
            Bytes::new()
        } else {
            buffer.split_to(length)
        };
    });
}

fn for_each_bytes(row: &mut Row, visit: &mut impl FnMut(&mut Bytes)) {
    let mut visit_state = |state: &mut CellState| match state {
        CellState::Live(value) | CellState::Expiring { value, .. } => visit(value),
        CellState::Tombstone { .. } => {}
    };
    // Paths and values in one order, so that sizing, copying and slicing agree.
    for (_, data) in &mut row.columns {
        match data {
            ColumnData::Cell(cell) => visit_state(&mut cell.state),
            ColumnData::Collection(collection) => {
                collection
                    .cells
                    .iter_mut()
                    .for_each(|(_, cell)| visit_state(&mut cell.state));
            }
        }
    }
    for (_, data) in &mut row.columns {
        if let ColumnData::Collection(collection) = data {
            collection.cells.iter_mut().for_each(|(path, _)| visit(path));
        }
    }
}

/// Cells of a write.
pub(crate) fn cell_count(partition: &Partition) -> u64 {
    let rows = partition.rows.iter().map(|(_, row)| row.cell_count());
    (rows.sum::<usize>() + partition.static_row.cell_count()) as u64
}

/// The oldest timestamp of anything in a write.
pub(crate) fn min_timestamp(partition: &Partition) -> Timestamp {
    let deletions = partition
        .range_tombstones
        .iter()
        .map(|tombstone| tombstone.deletion.timestamp);
    let own = partition
        .deletion
        .map_or(Timestamp(i64::MAX), |deletion| deletion.timestamp);
    let rows = partition
        .rows
        .iter()
        .map(|(_, row)| row)
        .chain([&partition.static_row]);
    let rows = rows.map(row_min_timestamp);
    deletions.chain(rows).fold(own, Timestamp::min)
}

fn row_min_timestamp(row: &Row) -> Timestamp {
    let mut min = Timestamp(i64::MAX);
    let mut add = |timestamp: Timestamp| min = min.min(timestamp);
    row.liveness.iter().for_each(|liveness| add(liveness.timestamp));
    row.deletion.iter().for_each(|deletion| add(deletion.timestamp));
    for (_, data) in &row.columns {
        match data {
            ColumnData::Cell(cell) => add(cell.timestamp),
            ColumnData::Collection(collection) => {
                collection
                    .deletion
                    .iter()
                    .for_each(|deletion| add(deletion.timestamp));
                collection.cells.iter().for_each(|(_, cell)| add(cell.timestamp));
            }
        }
    }
    min
}
