//! What one replica lacks of the merged state: the mutation that repairs it.

use ceto_model::row::Collection;
use ceto_model::{ColumnData, Partition, Row};

/// The least change that merges `have` up to `whole`; None when it lacks nothing. `whole` is a merge with `have` among
/// its parts.
pub(super) fn difference(whole: &Partition, have: &Partition) -> Option<Partition> {
    let mut lacking = Partition {
        deletion: whole.deletion.filter(|_| whole.deletion != have.deletion),
        static_row: row_difference(&whole.static_row, &have.static_row),
        ..Partition::default()
    };
    let mut own = have.rows.iter().peekable();
    for (key, row) in &whole.rows {
        while own.next_if(|(other, _)| other < key).is_some() {}
        let lack = match own.next_if(|(other, _)| other == key) {
            Some((_, own)) => row_difference(row, own),
            None => row.clone(),
        };
        if !lack.is_empty() {
            lacking.rows.push((key.clone(), lack));
        }
    }
    if whole.range_tombstones != have.range_tombstones {
        whole
            .range_tombstones
            .iter()
            .filter(|tombstone| !have.range_tombstones.iter().any(|own| own == *tombstone))
            .for_each(|tombstone| lacking.delete_range(tombstone.clone()));
    }
    (!lacking.is_empty()).then_some(lacking)
}

fn row_difference(whole: &Row, have: &Row) -> Row {
    if whole == have {
        return Row::default();
    }
    let columns = whole.columns.iter().filter_map(|(id, data)| {
        let lack = match have.column(*id) {
            None => Some(data.clone()),
            Some(own) if own == data => None,
            Some(own) => Some(column_difference(data, own)),
        };
        lack.map(|data| (*id, data))
    });
    Row {
        liveness: whole.liveness.filter(|_| whole.liveness != have.liveness),
        deletion: whole.deletion.filter(|_| whole.deletion != have.deletion),
        columns: columns.collect(),
    }
}

fn column_difference(whole: &ColumnData, have: &ColumnData) -> ColumnData {
    let (ColumnData::Collection(whole), ColumnData::Collection(have)) = (whole, have) else {
        return whole.clone();
    };
    let is_lacking = |path: &bytes::Bytes, cell| {
        have.cells
            .binary_search_by(|(own, _)| own.cmp(path))
            .ok()
            .and_then(|at| have.cells.get(at))
            .is_none_or(|(_, own)| own != cell)
    };
    ColumnData::Collection(Collection {
        deletion: whole.deletion.filter(|_| whole.deletion != have.deletion),
        cells: whole
            .cells
            .iter()
            .filter(|(path, cell)| is_lacking(path, cell))
            .cloned()
            .collect(),
    })
}
