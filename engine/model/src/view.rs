//! Materialized views: what a write to a base table means for a view of it.
//!
//! A view is a table whose rows are a function of the base's rows. Each base row, as it is with all writes merged and all
//! deletions applied, *projects* to at most one view row; a write changes the view by the difference between the
//! projections of the row before and after it. Whoever calls holds the base partition's lock from the read of "before"
//! to the write of "after".
//!
//! There are two kinds of views, and neither needs a rule of its own for merging, reading or compaction:
//!
//! 1. **The key is the base's key in another order.** A base row has one view row for ever. The projection copies the row
//!    marker, row deletion and cells with their timestamps and expiries, so it is a homomorphism: merging projections is
//!    projecting the merge. Columns that are not selected are copied into hidden *virtual* columns without their values,
//!    because each of them can be what keeps a row alive.
//! 2. **One regular column of the base is in the key.** A base row moves between view rows as that cell changes, and may
//!    come back to one. Therefore the view has two hidden clustering columns at the end: the timestamp and the expiry of
//!    the cell in the key. So each *stay* at a view row has a key of its own. A stay that ended cannot begin again
//!    (that cell has lost against a newer one), so it is deleted by an ordinary tombstone above everything in it, which
//!    shadows nothing that comes later, whatever its timestamp. The row marker and all cells expire with the cell in the
//!    key at the latest. Where a row is written over with the same value, the tombstone is a range over all earlier
//!    stays there, so that tombstones do not pile up.
//!
//! Never: a ghost row (the stay of an older value that lives on), nor a lost one (a tombstone of an earlier stay that
//! hides a later one); `tests` and the node's comparison of base and view look for both.
//!
//! Not in the view, as in Cassandra: rows whose cell in the key is null, rows that the WHERE clause leaves out, static
//! columns.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::cell::{Cell, CellState};
use crate::comparable::{bound_before, decode_clustering, encode_clustering, encode_prefix};
use crate::key::{ClusteringKey, DecoratedKey, KEY_SIZE_MAX, PartitionKey, Position, Slice};
use crate::mutation::Mutation;
use crate::partition::Partition;
use crate::range_tombstone::RangeTombstone;
use crate::row::{Collection, ColumnData, ColumnId, Liveness, Row};
use crate::schema::{ColumnKind, Table, TableId};
use crate::timestamp::{Deletion, Expiry, Timestamp, UnixSeconds};

#[cfg(test)]
mod tests;

/// A materialized view as writes to its base see it.
#[derive(Clone, Debug)]
pub struct View {
    /// The view's table.
    pub table: Arc<Table>,
    partition: Vec<Source>,
    /// Of the clustering columns that are not hidden.
    clustering: Vec<Source>,
    /// The regular column of the base that is in the view's key.
    key_column: Option<ColumnId>,
    columns: FxHashMap<ColumnId, Copying>,
}

/// Where a key column of the view comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    PartitionKey(usize),
    Clustering(usize),
    Cell(ColumnId),
}

/// What of a base column is in the view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copying {
    Whole,
    /// Timestamps and expiries only.
    Virtual,
}

/// A row of a view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewRow {
    /// Its partition.
    pub key: DecoratedKey,
    /// Its clustering key, hidden columns too.
    pub clustering: ClusteringKey,
    /// Its content.
    pub row: Row,
}

/// Key columns of a base row, in the order of the base's columns of each kind, as wire bytes.
pub struct BaseKey {
    /// Partition key.
    pub partition: SmallVec<[Bytes; 4]>,
    /// Clustering key.
    pub clustering: SmallVec<[Bytes; 4]>,
}

/// A value that cannot be part of a view's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyTooLarge {
    /// Bytes of the view's partition or clustering key.
    pub size: usize,
}

/// Changes of views, one mutation for each of their partitions.
#[derive(Default, Debug)]
pub struct ViewUpdates(BTreeMap<(TableId, DecoratedKey), Mutation>);

impl View {
    /// The view `table` of `base`; None when its columns are not those of `base`.
    pub fn new(table: &Arc<Table>, base: &Table) -> Option<View> {
        let source = |id: ColumnId| {
            let column = base.column_by_id(id)?;
            Some(match column.kind {
                ColumnKind::PartitionKey => Source::PartitionKey(usize::from(column.position)),
                ColumnKind::Clustering => Source::Clustering(usize::from(column.position)),
                ColumnKind::Regular => Source::Cell(id),
                ColumnKind::Static => return None,
            })
        };
        let sources = |columns: &[crate::Column]| -> Option<Vec<Source>> {
            columns.iter().map(|column| source(column.id)).collect()
        };
        let partition = sources(table.partition_key())?;
        let clustering = sources(table.shown_clustering())?;
        let key_column = partition
            .iter()
            .chain(&clustering)
            .find_map(|source| match source {
                Source::Cell(id) => Some(*id),
                _ => None,
            });
        let regulars = table.regulars().iter();
        let base_regular = |id: ColumnId| base.regulars().iter().any(|column| column.id == id);
        let columns =
            regulars
                .filter(|column| base_regular(column.id))
                .map(|column| match column.is_hidden {
                    true => (column.id, Copying::Virtual),
                    false => (column.id, Copying::Whole),
                });
        Some(View {
            columns: columns.collect(),
            table: table.clone(),
            partition,
            clustering,
            key_column,
        })
    }

    /// A base row's key columns; None when the bytes are no keys of `base`.
    pub fn base_key(base: &Table, key: &DecoratedKey, clustering: &ClusteringKey) -> Option<BaseKey> {
        Some(BaseKey {
            partition: key.key.components(base.partition_key().len())?,
            clustering: decode_clustering(base.clustering_types(), &clustering.0).ok()?,
        })
    }

    /// The key of the base row that a view row is of; the inverse of the keys of [`View::project`].
    pub fn base_row_of(
        &self,
        base: &Table,
        key: &DecoratedKey,
        clustering: &ClusteringKey,
    ) -> Option<(DecoratedKey, ClusteringKey)> {
        let own = key.key.components(self.partition.len())?;
        let own_clustering = decode_clustering(self.table.clustering_types(), &clustering.0).ok()?;
        let mut partition = vec![Bytes::new(); base.partition_key().len()];
        let mut row = vec![Bytes::new(); base.clustering().len()];
        let values = self.partition.iter().zip(&own);
        for (source, value) in values.chain(self.clustering.iter().zip(&own_clustering)) {
            match source {
                Source::PartitionKey(at) => *partition.get_mut(*at)? = value.clone(),
                Source::Clustering(at) => *row.get_mut(*at)? = value.clone(),
                Source::Cell(_) => {}
            }
        }
        let row = encode_clustering(base.clustering_types(), &row).ok()?;
        Some((
            DecoratedKey::new(PartitionKey::from_components(&partition)),
            ClusteringKey(row),
        ))
    }

    /// The view row of a base row, which has its deletions of wider scope as its own. None: it has none. The WHERE clause
    /// is not looked at.
    pub fn project(&self, base: &BaseKey, row: &Row) -> Option<ViewRow> {
        let key_cell = match self.key_column {
            None => None,
            Some(id) => match row.column(id)? {
                ColumnData::Cell(cell) if !matches!(cell.state, CellState::Tombstone { .. }) => Some(cell),
                _ => return None,
            },
        };
        let value = |source: &Source| match source {
            Source::PartitionKey(at) => base.partition.get(*at).cloned(),
            Source::Clustering(at) => base.clustering.get(*at).cloned(),
            Source::Cell(_) => match &key_cell?.state {
                CellState::Live(value) | CellState::Expiring { value, .. } => Some(value.clone()),
                CellState::Tombstone { .. } => None,
            },
        };
        let partition: Vec<Bytes> = self.partition.iter().map(value).collect::<Option<_>>()?;
        let mut clustering: Vec<Bytes> = self.clustering.iter().map(value).collect::<Option<_>>()?;
        if let Some(cell) = key_cell {
            let expires = cell.expiry().map_or(i64::MIN, |expiry| expiry.expires_at.0);
            clustering.push(Bytes::copy_from_slice(&cell.timestamp.0.to_be_bytes()));
            clustering.push(Bytes::copy_from_slice(&expires.to_be_bytes()));
        }
        let clustering = encode_clustering(self.table.clustering_types(), &clustering).ok()?;
        Some(ViewRow {
            key: DecoratedKey::new(PartitionKey::from_components(&partition)),
            clustering: ClusteringKey(clustering),
            row: self.content(row, key_cell),
        })
    }

    fn content(&self, row: &Row, key_cell: Option<&Cell>) -> Row {
        let mut content = Row {
            liveness: match key_cell {
                None => row.liveness,
                Some(cell) => Some(Liveness {
                    timestamp: cell.timestamp,
                    expiry: cell.expiry(),
                }),
            },
            deletion: row.deletion,
            columns: Vec::with_capacity(row.columns.len()),
        };
        let last = key_cell.and_then(Cell::expiry);
        for (id, data) in &row.columns {
            let Some(copying) = self.columns.get(id) else {
                continue;
            };
            let copy = |cell: &Cell| copy(cell, *copying, last);
            let data = match data {
                ColumnData::Cell(cell) => ColumnData::Cell(copy(cell)),
                ColumnData::Collection(collection) => ColumnData::Collection(Collection {
                    deletion: collection.deletion,
                    cells: collection
                        .cells
                        .iter()
                        .map(|(path, cell)| (path.clone(), copy(cell)))
                        .collect(),
                }),
            };
            content.columns.push((*id, data));
        }
        content
    }

    /// The size of a value in `partition` that is too large for the view's key, when there is one.
    pub fn oversized_value(&self, partition: &Partition) -> Option<usize> {
        let id = self.key_column?;
        let sizes = partition
            .rows
            .iter()
            .filter_map(|(_, row)| match row.column(id)? {
                ColumnData::Cell(cell) => Some(cell.heap_size()),
                ColumnData::Collection(_) => None,
            });
        sizes.max().filter(|size| *size > KEY_SIZE_MAX)
    }

    /// Checks that a view row's key is no larger than a key may be.
    pub fn check_key(&self, row: &ViewRow) -> Result<(), KeyTooLarge> {
        let clustering = decode_clustering(self.table.clustering_types(), &row.clustering.0);
        let of_clustering = clustering
            .iter()
            .flatten()
            .map(Bytes::len)
            .max()
            .unwrap_or_default();
        match row.key.key.0.len().max(of_clustering) {
            size if size > KEY_SIZE_MAX => Err(KeyTooLarge { size }),
            _ => Ok(()),
        }
    }

    /// Adds what becomes of the view when a base row's projection was `before` and is `after` (None: it has none, or the
    /// WHERE clause leaves it out).
    pub fn change(
        &self,
        before: Option<ViewRow>,
        after: Option<ViewRow>,
        now: UnixSeconds,
        updates: &mut ViewUpdates,
    ) {
        let before = before.filter(|before| has_data(&before.row));
        match (before, after) {
            (Some(before), Some(after))
                if (&before.key, &before.clustering) == (&after.key, &after.clustering) =>
            {
                let row = difference(after.row, &before.row);
                if !row.is_empty() {
                    self.put(after.key, after.clustering, row, updates);
                }
            }
            (before, after) => {
                let earlier = before.as_ref().and_then(|before| match &after {
                    Some(after) => self.earlier_stays(before, after),
                    None => None,
                });
                match (before, earlier) {
                    (Some(before), Some(slice)) => {
                        let deletion = end_of(&before.row, now);
                        let partition = updates.partition(&self.table, before.key);
                        partition.delete_range(RangeTombstone { slice, deletion });
                    }
                    (Some(before), None) => self.end(&before, now, updates),
                    (None, _) => {}
                }
                if let Some(after) = after.filter(|after| has_data(&after.row)) {
                    self.put(after.key, after.clustering, after.row, updates);
                }
            }
        }
    }

    /// Adds the projection in full: whatever of it the view has, it has it afterwards.
    pub fn restore(&self, row: ViewRow, updates: &mut ViewUpdates) {
        if !row.row.is_empty() {
            self.put(row.key, row.clustering, row.row, updates);
        }
    }

    /// Adds the deletion of a view row that is not, or no longer, the projection of its base row, as far as `content`
    /// has it.
    pub fn end(&self, row: &ViewRow, now: UnixSeconds, updates: &mut ViewUpdates) {
        let mut ended = Row::default();
        ended.delete(end_of(&row.row, now));
        self.put(row.key.clone(), row.clustering.clone(), ended, updates);
    }

    fn put(&self, key: DecoratedKey, clustering: ClusteringKey, row: Row, updates: &mut ViewUpdates) {
        updates.partition(&self.table, key).row_mut(clustering).merge(row);
    }

    /// All stays up to `before` at the place where `after` is another one.
    fn earlier_stays(&self, before: &ViewRow, after: &ViewRow) -> Option<Slice> {
        if self.key_column.is_none() || before.key != after.key || after.clustering <= before.clustering {
            return None;
        }
        let types = self.table.clustering_types();
        let shown = self.clustering.len();
        let place = |row: &ViewRow| {
            let components = decode_clustering(types, &row.clustering.0).ok()?;
            encode_prefix(types, components.get(..shown)?).ok()
        };
        let (own, other) = (place(before)?, place(after)?);
        (own == other).then(|| Slice {
            start: Position(bound_before(&own)),
            end: Slice::of_row(&before.clustering).end,
        })
    }
}

impl ViewUpdates {
    fn partition(&mut self, table: &Table, key: DecoratedKey) -> &mut Partition {
        match self.0.entry((table.id, key)) {
            Entry::Occupied(entry) => &mut entry.into_mut().partition,
            Entry::Vacant(entry) => {
                let mutation = Mutation::new(table.id, entry.key().1.clone());
                &mut entry.insert(mutation).partition
            }
        }
    }

    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mutations, in normal form.
    pub fn into_mutations(self) -> Vec<Mutation> {
        let mutations = self.0.into_values().map(|mut mutation| {
            mutation.partition.normalize();
            mutation
        });
        mutations.collect()
    }
}

/// A row of `partition`, with the deletions that cover it as its own; empty when there is none.
pub fn effective_row(partition: &Partition, key: &ClusteringKey) -> Row {
    let found = partition.rows.binary_search_by(|(own, _)| own.cmp(key));
    let row = found.ok().and_then(|at| partition.rows.get(at));
    let mut row = row.map(|(_, row)| row.clone()).unwrap_or_default();
    let wider = Deletion::strongest(partition.deletion, partition.range_tombstones.covering(key));
    row.deletion = Deletion::strongest(row.deletion, wider);
    row
}

/// Holds something that is or was alive, beside tombstones.
pub fn has_data(row: &Row) -> bool {
    let is_data = |cell: &Cell| !matches!(cell.state, CellState::Tombstone { .. });
    row.liveness.is_some()
        || row.columns.iter().any(|(_, data)| match data {
            ColumnData::Cell(cell) => is_data(cell),
            ColumnData::Collection(collection) => collection.cells.iter().any(|(_, cell)| is_data(cell)),
        })
}

/// Of two versions of a row, the later of which has seen all that the earlier has: what is new in it.
fn difference(after: Row, before: &Row) -> Row {
    let mut new = Row {
        liveness: after.liveness.filter(|_| after.liveness != before.liveness),
        deletion: after.deletion.filter(|_| after.deletion != before.deletion),
        columns: Vec::new(),
    };
    for (id, data) in after.columns {
        let data = match (data, before.column(id)) {
            (data, Some(same)) if data == *same => continue,
            (ColumnData::Collection(mut after), Some(ColumnData::Collection(before))) => {
                if after.deletion == before.deletion {
                    after.deletion = None;
                }
                after.cells.retain(|(path, cell)| {
                    let own = before.cells.binary_search_by(|(own, _)| own.cmp(path));
                    own.ok().and_then(|at| before.cells.get(at)).map(|(_, cell)| cell) != Some(cell)
                });
                ColumnData::Collection(after)
            }
            (data, _) => data,
        };
        new.columns.push((id, data));
    }
    new
}

/// A deletion of all that `row` holds.
fn end_of(row: &Row, now: UnixSeconds) -> Deletion {
    let of_data = |data: &ColumnData| match data {
        ColumnData::Cell(cell) => Some(cell.timestamp),
        ColumnData::Collection(collection) => {
            let cells = collection.cells.iter().map(|(_, cell)| cell.timestamp);
            cells
                .chain(collection.deletion.map(|deletion| deletion.timestamp))
                .max()
        }
    };
    let cells = row.columns.iter().filter_map(|(_, data)| of_data(data));
    let others = row.liveness.map(|liveness| liveness.timestamp).into_iter();
    let others = others.chain(row.deletion.map(|deletion| deletion.timestamp));
    Deletion {
        timestamp: cells.chain(others).max().unwrap_or(Timestamp::MIN),
        deleted_at: now,
    }
}

fn copy(cell: &Cell, copying: Copying, last: Option<Expiry>) -> Cell {
    let (value, own) = match &cell.state {
        CellState::Live(value) => (value, None),
        CellState::Expiring { value, expiry } => (value, Some(*expiry)),
        CellState::Tombstone { .. } => return cell.clone(),
    };
    let value = match copying {
        Copying::Whole => value.clone(),
        Copying::Virtual => Bytes::new(),
    };
    let expiry = match (own, last) {
        (Some(own), Some(last)) => Some(own.min(last)),
        (own, last) => own.or(last),
    };
    Cell::with_expiry(cell.timestamp, value, expiry)
}
