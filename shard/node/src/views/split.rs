//! Mutations that may have become larger than one may be: a view row, and any row that is streamed, holds what many writes
//! have brought.
//!
//! Merging the parts is merging the whole, so they are applied one after the other.

use ceto_model::{Collection, ColumnData, Mutation, Row};

/// Splits into mutations of about `max` bytes at most; a single cell is never split.
pub(crate) fn split(mutation: Mutation, max: usize) -> Vec<Mutation> {
    if mutation.memory_size() <= max {
        return vec![mutation];
    }
    let mut parts = Vec::new();
    let mut rest = Mutation::new(mutation.table, mutation.key.clone());
    let mut size = 0;
    rest.partition.deletion = mutation.partition.deletion;
    rest.partition.range_tombstones = mutation.partition.range_tombstones;
    rest.partition.static_row = mutation.partition.static_row;
    for (key, row) in mutation.partition.rows {
        for piece in split_row(row, max) {
            let own = piece.memory_size() + key.0.len();
            if size > 0 && size + own > max {
                let next = Mutation::new(rest.table, rest.key.clone());
                parts.push(std::mem::replace(&mut rest, next));
                size = 0;
            }
            size += own;
            rest.partition.row_mut(key.clone()).merge(piece);
        }
    }
    parts.push(rest);
    parts
}

/// The row marker and row deletion come first.
fn split_row(row: Row, max: usize) -> Vec<Row> {
    if row.memory_size() <= max {
        return vec![row];
    }
    let head = Row {
        liveness: row.liveness,
        deletion: row.deletion,
        columns: Vec::new(),
    };
    let mut pieces = vec![head];
    for (id, data) in row.columns {
        let data = match data {
            ColumnData::Collection(collection) if collection.cells.len() > 1 => split_cells(collection, max),
            data => vec![data],
        };
        pieces.extend(data.into_iter().map(|data| Row {
            columns: vec![(id, data)],
            ..Row::default()
        }));
    }
    pieces
}

fn split_cells(collection: Collection, max: usize) -> Vec<ColumnData> {
    let mut pieces = Vec::new();
    let mut own = Collection {
        deletion: collection.deletion,
        cells: Vec::new(),
    };
    let mut size = 0;
    for (path, cell) in collection.cells {
        let of_cell = path.len() + cell.heap_size() + 64;
        if size > 0 && size + of_cell > max {
            pieces.push(ColumnData::Collection(std::mem::take(&mut own)));
            size = 0;
        }
        size += of_cell;
        own.cells.push((path, cell));
    }
    pieces.push(ColumnData::Collection(own));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ceto_model::{
        Cell, ClusteringKey, ColumnId, DecoratedKey, Liveness, Partition, PartitionKey, TableId, Timestamp,
    };

    #[test]
    fn the_parts_make_the_whole() {
        let key = DecoratedKey::new(PartitionKey(Bytes::from_static(b"k")));
        let mut mutation = Mutation::new(TableId(uuid::Uuid::nil()), key);
        for number in 0..20u8 {
            let row = mutation
                .partition
                .row_mut(ClusteringKey(Bytes::from(vec![number, 0x38])));
            row.liveness = Some(Liveness {
                timestamp: Timestamp(1),
                expiry: None,
            });
            let cells = (0..10u8).map(|path| {
                let cell = Cell::live(Timestamp(1), Bytes::from(vec![number; 100]));
                (Bytes::from(vec![path]), cell)
            });
            let collection = Collection {
                deletion: None,
                cells: cells.collect(),
            };
            row.merge_column(ColumnId(1), ColumnData::Collection(collection));
            let cell = Cell::live(Timestamp(1), Bytes::from(vec![number; 100]));
            row.merge_column(ColumnId(2), ColumnData::Cell(cell));
        }
        for max in [100, 500, 2000, 1 << 20] {
            let parts = split(mutation.clone(), max);
            assert!(max > 10_000 || parts.len() > 5);
            let mut whole = Partition::default();
            for part in parts {
                assert!(
                    part.memory_size() <= max + 1000,
                    "{} of {max}",
                    part.memory_size()
                );
                whole.merge(part.partition);
            }
            assert_eq!(whole, mutation.partition);
        }
    }
}
