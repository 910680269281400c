//! What a write may not give the indexes of its table.

use crate::CqlError;
use crate::prepare::nearest::check_vector;
use ceto_model::schema::{Similarity, floats};
use ceto_model::{CellState, ColumnData, ColumnId, Mutation, Partition, Table};

/// Bytes of a value that an index takes no more.
const INDEXED_SIZE_MAX: usize = 65_535;

/// Refuses values that are too large for an index that is not storage-attached, and vectors that none can have.
pub(super) fn check_indexed_values(table: &Table, mutation: &Mutation) -> Result<(), CqlError> {
    let indexes = table.indexes().iter();
    for index in table.indexes() {
        if let Some((column, dimension, similarity)) = index.vectors() {
            check_vectors(&mutation.partition, column, dimension, similarity)?;
        }
    }
    for index in indexes.filter(|index| !index.definition.is_storage_attached()) {
        let largest = index.largest_value(table, &mutation.key, &mutation.partition);
        if let Some(size) = largest.filter(|size| *size >= INDEXED_SIZE_MAX) {
            return Err(CqlError::Invalid(format!(
                "Cannot index value of size {size} for index {} on {}.{}({}) (maximum allowed size={INDEXED_SIZE_MAX})",
                index.definition.name, table.keyspace, table.name, index.definition.column
            )));
        }
    }
    Ok(())
}

/// Refuses vectors that cannot be compared with others.
fn check_vectors(
    content: &Partition,
    column: ColumnId,
    dimension: usize,
    similarity: Similarity,
) -> Result<(), CqlError> {
    let rows = content.rows.iter().map(|(_, row)| row);
    for row in rows.chain([&content.static_row]) {
        if let Some(ColumnData::Cell(cell)) = row.column(column)
            && let CellState::Live(value) | CellState::Expiring { value, .. } = &cell.state
            && let Some(vector) = floats(value, dimension)
        {
            check_vector(&vector, similarity)?;
        }
    }
    Ok(())
}
