//! Rows: what one clustering key (or the static part of a partition) holds, and how two versions merge.
//!
//! Algebra: `merge` is commutative, associative and idempotent, and keeps the *normal form*: columns sorted by id,
//! cells of a collection sorted by path, and nothing that the row's or the collection's own deletion shadows. Two
//! rows that saw the same writes in any order are equal.

use bytes::Bytes;

use crate::cell::{Cell, CellState};
use crate::timestamp::{Deletion, Expiry, Timestamp, UnixSeconds};

/// Identity of a column within its table. An id belongs to one name for ever: a column that comes back under the name
/// of a dropped one has its id, and what was written up to the drop is told apart by its timestamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ColumnId(pub u32);

/// The row marker of an INSERT: the row exists even when all its columns are null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Liveness {
    /// Of the INSERT.
    pub timestamp: Timestamp,
    /// With TTL.
    pub expiry: Option<Expiry>,
}

impl Liveness {
    /// Alive at `now`.
    pub fn is_live(&self, now: UnixSeconds) -> bool {
        self.expiry.is_none_or(|expiry| !expiry.is_expired(now))
    }

    fn merge(a: Option<Liveness>, b: Option<Liveness>) -> Option<Liveness> {
        let key = |liveness: &Option<Liveness>| liveness.map(|l| (l.timestamp, l.expiry));
        if key(&a) >= key(&b) { a } else { b }
    }
}

/// One version of a row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// Row marker.
    pub liveness: Option<Liveness>,
    /// Row tombstone.
    pub deletion: Option<Deletion>,
    /// Sorted by id.
    pub columns: Vec<(ColumnId, ColumnData)>,
}

/// What a column holds in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ColumnData {
    /// Single cell.
    Cell(Cell),
    /// Multi-cell column: collection or UDT that is not frozen.
    Collection(Collection),
}

/// Cells of a multi-cell column.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Collection {
    /// Made by writing or deleting the whole column.
    pub deletion: Option<Deletion>,
    /// Sorted by path: the comparable encoding of set element or map key, the time-ordered id of a list element,
    /// the two-byte big-endian index of a UDT field.
    pub cells: Vec<(Bytes, Cell)>,
}

impl Row {
    /// Holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.liveness.is_none() && self.deletion.is_none() && self.columns.is_empty()
    }

    /// Visible to a query at `now`: has a live marker or a live cell.
    pub fn is_live(&self, now: UnixSeconds) -> bool {
        self.liveness.is_some_and(|l| l.is_live(now)) || self.has_live_cell(now)
    }

    /// Has a live cell at `now`.
    pub fn has_live_cell(&self, now: UnixSeconds) -> bool {
        self.columns.iter().any(|(_, data)| data.is_live(now))
    }

    /// The data of a column.
    pub fn column(&self, id: ColumnId) -> Option<&ColumnData> {
        let at = self
            .columns
            .binary_search_by_key(&id, |(column, _)| *column)
            .ok()?;
        self.columns.get(at).map(|(_, data)| data)
    }

    /// Sets or merges one column; for building rows in any column order.
    pub fn merge_column(&mut self, id: ColumnId, data: ColumnData) {
        match self.columns.binary_search_by_key(&id, |(column, _)| *column) {
            Ok(at) => {
                if let Some((_, own)) = self.columns.get_mut(at) {
                    own.merge(data);
                }
            }
            Err(at) => self.columns.insert(at, (id, data)),
        }
    }

    /// Merges another version in.
    pub fn merge(&mut self, other: Row) {
        self.liveness = Liveness::merge(self.liveness, other.liveness);
        let deletion = Deletion::strongest(self.deletion, other.deletion);
        self.deletion = None;
        if self.columns.is_empty() {
            self.columns = other.columns;
        } else if let (Some((last, _)), Some((first, _))) = (self.columns.last(), other.columns.first())
            && last < first
        {
            self.columns.extend(other.columns);
        } else {
            for (id, data) in other.columns {
                self.merge_column(id, data);
            }
        }
        if let Some(deletion) = deletion {
            self.delete(deletion);
        }
    }

    /// Applies a row tombstone.
    pub fn delete(&mut self, deletion: Deletion) {
        self.deletion = Deletion::strongest(self.deletion, Some(deletion));
        self.shadow(deletion);
    }

    /// Drops what a deletion of a wider scope (partition, range) or of the row itself shadows; the row's own
    /// tombstone goes too when the wider one is at least as strong and `deletion` is not it.
    pub fn shadow(&mut self, deletion: Deletion) {
        if self.liveness.is_some_and(|l| deletion.shadows(l.timestamp)) {
            self.liveness = None;
        }
        self.columns.retain_mut(|(_, data)| data.shadow(deletion));
    }

    /// Like [`Row::shadow`], for a deletion of a wider scope: a row tombstone that adds nothing is dropped.
    pub fn shadow_by_wider(&mut self, deletion: Deletion) {
        if self.deletion.is_some_and(|own| own <= deletion) {
            self.deletion = None;
        }
        self.shadow(deletion);
    }

    /// Removes what was written to a column at or before `through`: it was dropped then.
    pub fn forget_column(&mut self, id: ColumnId, through: Timestamp) {
        let dropped = Deletion {
            timestamp: through,
            deleted_at: UnixSeconds(i64::MAX),
        };
        self.columns
            .retain_mut(|(column, data)| *column != id || data.shadow(dropped));
    }

    /// Removes what is dead at `now`: tombstones made before `purge_before` for good; expired cells become tombstones
    /// first. Never removes what `purgeable` says may still shadow data elsewhere (by timestamp).
    pub fn purge(
        &mut self,
        now: UnixSeconds,
        purge_before: UnixSeconds,
        purgeable: &dyn Fn(Timestamp) -> bool,
    ) {
        if let Some(liveness) = self.liveness
            && let Some(expiry) = liveness.expiry
            && expiry.is_expired(now)
            && expiry.deleted_at() < purge_before
            && purgeable(liveness.timestamp)
        {
            self.liveness = None;
        }
        if self
            .deletion
            .is_some_and(|d| d.deleted_at < purge_before && purgeable(d.timestamp))
        {
            self.deletion = None;
        }
        self.columns
            .retain_mut(|(_, data)| data.purge(now, purge_before, purgeable));
    }

    /// What [`Row::purge`] would remove for good, expired cells as tombstones: it shadows what the removed shadowed. None
    /// when it would remove nothing.
    pub fn purgeable_part(
        &self,
        now: UnixSeconds,
        purge_before: UnixSeconds,
        purgeable: &dyn Fn(Timestamp) -> bool,
    ) -> Option<Row> {
        let may_go =
            |deletion: &Deletion| deletion.deleted_at < purge_before && purgeable(deletion.timestamp);
        let is_dead = |liveness: &Liveness| {
            let expiry = liveness.expiry.filter(|expiry| expiry.is_expired(now));
            expiry.is_some_and(|expiry| expiry.deleted_at() < purge_before) && purgeable(liveness.timestamp)
        };
        let tombstone = |cell: &Cell| {
            let deleted_at = cell.deleted_at(now)?;
            let goes = deleted_at < purge_before && purgeable(cell.timestamp);
            goes.then(|| Cell::tombstone(cell.timestamp, deleted_at))
        };
        let mut part = Row {
            liveness: self.liveness.filter(is_dead),
            deletion: self.deletion.filter(may_go),
            columns: Vec::new(),
        };
        for (id, data) in &self.columns {
            match data {
                ColumnData::Cell(cell) => {
                    let dead = tombstone(cell).map(|cell| (*id, ColumnData::Cell(cell)));
                    part.columns.extend(dead);
                }
                ColumnData::Collection(collection) => {
                    let cells = collection.cells.iter();
                    let dead = Collection {
                        deletion: collection.deletion.filter(may_go),
                        cells: cells
                            .filter_map(|(path, cell)| Some((path.clone(), tombstone(cell)?)))
                            .collect(),
                    };
                    if dead.deletion.is_some() || !dead.cells.is_empty() {
                        part.columns.push((*id, ColumnData::Collection(dead)));
                    }
                }
            }
        }
        (!part.is_empty()).then_some(part)
    }

    /// Removes cells that `other`, another version of the row, overwrites or deletes. For dropping what is shadowed by
    /// what lies elsewhere; `other`'s wider deletions are not looked at.
    pub fn remove_overwritten(&mut self, other: &Row) {
        let loses = |mine: &Cell, theirs: &Cell| {
            let mut merged = mine.clone();
            merged.merge(theirs.clone());
            merged != *mine
        };
        self.columns
            .retain_mut(|(id, data)| match (data, other.column(*id)) {
                (ColumnData::Cell(mine), Some(ColumnData::Cell(theirs))) => !loses(mine, theirs),
                (ColumnData::Collection(mine), Some(ColumnData::Collection(theirs))) => {
                    if let Some(deletion) = theirs.deletion {
                        mine.cells.retain(|(_, cell)| !deletion.shadows(cell.timestamp));
                    }
                    mine.cells.retain(|(path, cell)| {
                        match theirs.cells.binary_search_by(|(own, _)| own.cmp(path)) {
                            Ok(at) => !theirs
                                .cells
                                .get(at)
                                .is_some_and(|(_, theirs)| loses(cell, theirs)),
                            Err(_) => true,
                        }
                    });
                    mine.deletion.is_some() || !mine.cells.is_empty()
                }
                _ => true,
            });
    }

    /// Gives every live cell an expiry (none: removes it); for building rows whose cells all expire together.
    pub fn expire_cells(&mut self, expiry: Option<Expiry>) {
        let expire = |cell: &mut Cell| {
            let value = match &cell.state {
                CellState::Live(value) | CellState::Expiring { value, .. } => value.clone(),
                CellState::Tombstone { .. } => return,
            };
            *cell = Cell::with_expiry(cell.timestamp, value, expiry);
        };
        for (_, data) in &mut self.columns {
            match data {
                ColumnData::Cell(cell) => expire(cell),
                ColumnData::Collection(collection) => {
                    collection.cells.iter_mut().for_each(|(_, cell)| expire(cell))
                }
            }
        }
    }

    /// Bytes of memory, roughly: for memtable accounting and result limits.
    pub fn memory_size(&self) -> usize {
        size_of::<Row>()
            + self
                .columns
                .iter()
                .map(|(_, data)| data.memory_size())
                .sum::<usize>()
    }

    /// Number of cells.
    pub fn cell_count(&self) -> usize {
        self.columns.iter().map(|(_, data)| data.cell_count()).sum()
    }
}

impl ColumnData {
    /// Has a live cell at `now`.
    pub fn is_live(&self, now: UnixSeconds) -> bool {
        match self {
            Self::Cell(cell) => cell.is_live(now),
            Self::Collection(collection) => collection.cells.iter().any(|(_, cell)| cell.is_live(now)),
        }
    }

    /// Merges another version in. A single cell and a collection cannot meet in one column id; if they do the
    /// collection stays, so that the merge remains commutative.
    pub fn merge(&mut self, other: ColumnData) {
        match (&mut *self, other) {
            (Self::Cell(mine), Self::Cell(theirs)) => mine.merge(theirs),
            (Self::Collection(mine), Self::Collection(theirs)) => mine.merge(theirs),
            (Self::Cell(_), theirs @ Self::Collection(_)) => *self = theirs,
            (Self::Collection(_), Self::Cell(_)) => {}
        }
    }

    /// Drops what `deletion` shadows; false when nothing is left.
    pub fn shadow(&mut self, deletion: Deletion) -> bool {
        match self {
            Self::Cell(cell) => !deletion.shadows(cell.timestamp),
            Self::Collection(collection) => {
                if collection.deletion.is_some_and(|own| own <= deletion) {
                    collection.deletion = None;
                }
                collection
                    .cells
                    .retain(|(_, cell)| !deletion.shadows(cell.timestamp));
                collection.deletion.is_some() || !collection.cells.is_empty()
            }
        }
    }

    fn purge(
        &mut self,
        now: UnixSeconds,
        purge_before: UnixSeconds,
        purgeable: &dyn Fn(Timestamp) -> bool,
    ) -> bool {
        match self {
            Self::Cell(cell) => !purge_cell(cell, now, purge_before, purgeable),
            Self::Collection(collection) => {
                if collection
                    .deletion
                    .is_some_and(|d| d.deleted_at < purge_before && purgeable(d.timestamp))
                {
                    collection.deletion = None;
                }
                collection
                    .cells
                    .retain_mut(|(_, cell)| !purge_cell(cell, now, purge_before, purgeable));
                collection.deletion.is_some() || !collection.cells.is_empty()
            }
        }
    }

    /// Bytes of memory, roughly.
    pub fn memory_size(&self) -> usize {
        let own = size_of::<(ColumnId, ColumnData)>();
        match self {
            Self::Cell(cell) => own + cell.heap_size(),
            Self::Collection(collection) => {
                let cells = collection.cells.iter();
                own + cells
                    .map(|(p, c)| size_of::<(Bytes, Cell)>() + p.len() + c.heap_size())
                    .sum::<usize>()
            }
        }
    }

    /// Number of cells.
    pub fn cell_count(&self) -> usize {
        match self {
            Self::Cell(_) => 1,
            Self::Collection(collection) => collection.cells.len(),
        }
    }
}

/// True when the cell may go; an expired cell that must stay becomes a tombstone.
fn purge_cell(
    cell: &mut Cell,
    now: UnixSeconds,
    purge_before: UnixSeconds,
    purgeable: &dyn Fn(Timestamp) -> bool,
) -> bool {
    match cell.deleted_at(now) {
        Some(deleted_at) if deleted_at < purge_before && purgeable(cell.timestamp) => true,
        Some(deleted_at) => {
            *cell = Cell::tombstone(cell.timestamp, deleted_at);
            false
        }
        None => false,
    }
}

impl Collection {
    /// Sets or merges the cell of `path`.
    pub fn merge_cell(&mut self, path: Bytes, cell: Cell) {
        if self.deletion.is_some_and(|d| d.shadows(cell.timestamp)) {
            return;
        }
        match self.cells.binary_search_by(|(own, _)| own.cmp(&path)) {
            Ok(at) => {
                if let Some((_, own)) = self.cells.get_mut(at) {
                    own.merge(cell);
                }
            }
            Err(at) => self.cells.insert(at, (path, cell)),
        }
    }

    /// Applies a deletion of the whole column.
    pub fn delete(&mut self, deletion: Deletion) {
        self.deletion = Deletion::strongest(self.deletion, Some(deletion));
        self.cells.retain(|(_, cell)| !deletion.shadows(cell.timestamp));
    }

    /// Merges another version in: linear, for both sides are sorted.
    pub fn merge(&mut self, other: Collection) {
        if let Some(deletion) = other.deletion {
            self.delete(deletion);
        }
        let deletion = self.deletion;
        let theirs = other
            .cells
            .into_iter()
            .filter(|(_, c)| deletion.is_none_or(|d| !d.shadows(c.timestamp)));
        if other_is_small(self.cells.len(), theirs.size_hint().1) {
            theirs.for_each(|(path, cell)| self.merge_cell(path, cell));
            return;
        }
        let mut merged = Vec::with_capacity(self.cells.len() + theirs.size_hint().1.unwrap_or(0));
        let mut mine = std::mem::take(&mut self.cells).into_iter().peekable();
        let mut theirs = theirs.peekable();
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => break,
            };
            match order {
                std::cmp::Ordering::Less => merged.extend(mine.next()),
                std::cmp::Ordering::Greater => merged.extend(theirs.next()),
                std::cmp::Ordering::Equal => {
                    if let (Some((path, mut cell)), Some((_, other))) = (mine.next(), theirs.next()) {
                        cell.merge(other);
                        merged.push((path, cell));
                    }
                }
            }
        }
        self.cells = merged;
    }
}

/// Inserting one by one beats rebuilding while few cells meet many.
fn other_is_small(mine: usize, theirs: Option<usize>) -> bool {
    theirs.is_some_and(|theirs| theirs.saturating_mul(16) < mine)
}
