//! Operations on columns to cells: what one row of a mutation holds.

use super::write::{Located, PresentRows};
use crate::expression::{Evaluation, Expression, key_and_value, of_value, path_of};
use crate::prepare::assignment::{ColumnOperation, OperationKind};
use crate::prepare::modification::PreparedModification;
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::timestamp::{Deletion, Expiry};
use ceto_model::value::compare;
use ceto_model::value::wire::{Elements, take_value};
use ceto_model::{
    Cell, ClusteringKey, Collection, ColumnData, ColumnId, ColumnKind, CqlType, DecoratedKey, Row, Timestamp,
    UnixSeconds,
};
use std::borrow::Cow;

/// What one execution writes with.
pub(super) struct Parameters {
    pub(super) timestamp: Timestamp,
    pub(super) expiry: Option<Expiry>,
    pub(super) now: UnixSeconds,
}

impl Parameters {
    pub(super) fn deletion(&self) -> Deletion {
        Deletion {
            timestamp: self.timestamp,
            deleted_at: self.now,
        }
    }

    /// Of what a column of many cells held before this write.
    fn overwrite(&self) -> Deletion {
        Deletion {
            timestamp: Timestamp(self.timestamp.0.saturating_sub(1)),
            deleted_at: self.now,
        }
    }

    fn live(&self, value: Bytes) -> Cell {
        Cell::with_expiry(self.timestamp, value, self.expiry)
    }

    fn tombstone(&self) -> Cell {
        Cell::tombstone(self.timestamp, self.now)
    }

    fn cell(&self, value: Option<Bytes>) -> Cell {
        value.map_or_else(|| self.tombstone(), |value| self.live(value))
    }
}

/// One row (None: the static row) that operations are applied to.
pub(super) struct RowTarget<'x> {
    pub(super) key: &'x DecoratedKey,
    pub(super) row: Option<&'x ClusteringKey>,
    pub(super) parameters: &'x Parameters,
    pub(super) evaluation: &'x Evaluation<'x>,
    pub(super) present_rows: Option<&'x dyn PresentRows>,
}

impl RowTarget<'_> {
    pub(super) fn fill(
        &self,
        modification: &PreparedModification,
        located: &Located,
        row: &mut Row,
    ) -> Result<(), CqlError> {
        if let Some(values) = &located.json {
            for (column, value) in modification.table.columns().iter().zip(values) {
                let is_static = column.kind == ColumnKind::Static;
                if column.is_primary_key() || is_static != self.row.is_none() {
                    continue;
                }
                if let Some(data) = self.set(&column.cql_type, value.clone())? {
                    put(row, column.id, data);
                }
            }
            return Ok(());
        }
        row.columns.reserve_exact(modification.operations.len());
        let own = modification
            .operations
            .iter()
            .filter(|operation| operation.is_static == self.row.is_none());
        for operation in own {
            // What most statements do, without the detour.
            if let OperationKind::Set(Expression::Bind(index)) = &operation.kind
                && let Some(BoundValue::Bytes(value)) = self.evaluation.values.get(*index)
                && row
                    .columns
                    .last()
                    .is_none_or(|(last, _)| *last < operation.column)
                && !operation.cql_type.is_multicell()
            {
                let cell = self.parameters.live(value.clone());
                row.columns.push((operation.column, ColumnData::Cell(cell)));
                continue;
            }
            if let Some(data) = self.apply(operation, row)? {
                put(row, operation.column, data);
            }
        }
        Ok(())
    }

    /// What the operation writes; None: nothing. `row` holds what those before it write: list positions count it in.
    fn apply(&self, operation: &ColumnOperation, row: &Row) -> Result<Option<ColumnData>, CqlError> {
        let cql_type = &operation.cql_type;
        let value = |expression: &Expression| expression.evaluate(self.evaluation);
        let cells = |cells: Vec<(Bytes, Cell)>| {
            Ok((!cells.is_empty()).then(|| {
                let mut collection = Collection::default();
                cells
                    .into_iter()
                    .for_each(|(path, cell)| collection.merge_cell(path, cell));
                ColumnData::Collection(collection)
            }))
        };
        match &operation.kind {
            OperationKind::Set(expression) => self.set(cql_type, value(expression)?),
            OperationKind::Delete => Ok(Some(
                match cql_type.is_multicell() || *cql_type == CqlType::Counter {
                    true => ColumnData::Collection(Collection {
                        deletion: Some(self.parameters.deletion()),
                        cells: Vec::new(),
                    }),
                    false => ColumnData::Cell(self.parameters.tombstone()),
                },
            )),
            OperationKind::Count { .. } => Err(CqlError::invalid(
                "Counter columns can only be incremented or decremented",
            )),
            OperationKind::Append(expression) => match value(expression)? {
                BoundValue::Bytes(wire) => cells(self.appended(cql_type, &wire)?),
                _ => Ok(None),
            },
            OperationKind::Prepend(expression) => match value(expression)? {
                BoundValue::Bytes(wire) => {
                    let elements = elements_of(cql_type, &wire)?;
                    let paths = self.evaluation.context.prepend_paths(elements.len());
                    let live = elements.into_iter().map(|element| self.parameters.live(element));
                    cells(paths.into_iter().zip(live).collect())
                }
                _ => Ok(None),
            },
            OperationKind::AddElements(expression) => match value(expression)? {
                BoundValue::Bytes(wire) => cells(self.element_cells(cql_type, &wire)?),
                _ => Ok(None),
            },
            OperationKind::RemoveElements(expression) => match value(expression)? {
                BoundValue::Bytes(wire) => {
                    let (key_type, _) = key_and_value(cql_type)?;
                    let set = CqlType::Set {
                        element: key_type.clone().into(),
                        frozen: false,
                    };
                    let keys = elements_of(&set, &wire)?;
                    let paths = keys
                        .iter()
                        .map(|key| Ok((path_of(&key_type, key)?, self.parameters.tombstone())));
                    cells(paths.collect::<Result<_, CqlError>>()?)
                }
                _ => Ok(None),
            },
            OperationKind::SetKey {
                key,
                value: expression,
            } => {
                let (key_type, _) = key_and_value(cql_type)?;
                let path = self.key_path(&key_type, value(key)?, "map")?;
                match value(expression)? {
                    BoundValue::Unset => Ok(None),
                    other => cells(vec![(path, self.parameters.cell(other.bytes().cloned()))]),
                }
            }
            OperationKind::DeleteKey(key) => {
                let (key_type, _) = key_and_value(cql_type)?;
                let what = if matches!(cql_type, CqlType::Map { .. }) {
                    "map"
                } else {
                    "set"
                };
                let path = self.key_path(&key_type, value(key)?, what)?;
                cells(vec![(path, self.parameters.tombstone())])
            }
            OperationKind::SetField {
                field,
                value: expression,
            } => match value(expression)? {
                BoundValue::Unset => Ok(None),
                other => cells(vec![(
                    field_path(*field),
                    self.parameters.cell(other.bytes().cloned()),
                )]),
            },
            OperationKind::DeleteField(field) => {
                cells(vec![(field_path(*field), self.parameters.tombstone())])
            }
            OperationKind::SetIndex {
                index,
                value: expression,
            } => {
                let new = match value(expression)? {
                    BoundValue::Unset => return Ok(None),
                    other => self.parameters.cell(other.bytes().cloned()),
                };
                cells(vec![(self.index_path(operation, value(index)?, row)?, new)])
            }
            OperationKind::DeleteIndex(index) => match value(index)? {
                BoundValue::Unset => Ok(None),
                index => cells(vec![(
                    self.index_path(operation, index, row)?,
                    self.parameters.tombstone(),
                )]),
            },
            OperationKind::RemoveValues(expression) => match value(expression)? {
                BoundValue::Bytes(wire) => cells(self.removed_values(operation, &wire, row)?),
                _ => Ok(None),
            },
        }
    }

    /// The column as a whole.
    fn set(&self, cql_type: &CqlType, value: BoundValue) -> Result<Option<ColumnData>, CqlError> {
        if !cql_type.is_multicell() {
            return Ok(match value {
                BoundValue::Unset => None,
                BoundValue::Null => Some(ColumnData::Cell(self.parameters.tombstone())),
                BoundValue::Bytes(bytes) => Some(ColumnData::Cell(self.parameters.live(bytes))),
            });
        }
        let cells = match value {
            BoundValue::Unset => return Ok(None),
            BoundValue::Null => Vec::new(),
            BoundValue::Bytes(wire) => match cql_type {
                CqlType::List { .. } => self.appended(cql_type, &wire)?,
                CqlType::Udt { .. } => self.field_cells(&wire)?,
                _ => self.element_cells(cql_type, &wire)?,
            },
        };
        Ok(Some(ColumnData::Collection(Collection {
            deletion: Some(self.parameters.overwrite()),
            cells,
        })))
    }

    fn appended(&self, cql_type: &CqlType, wire: &Bytes) -> Result<Vec<(Bytes, Cell)>, CqlError> {
        let elements = elements_of(cql_type, wire)?.into_iter();
        Ok(elements
            .map(|element| {
                (
                    self.evaluation.context.append_path(),
                    self.parameters.live(element),
                )
            })
            .collect())
    }

    /// Cells of the elements of a set or the entries of a map, sorted by path.
    fn element_cells(&self, cql_type: &CqlType, wire: &Bytes) -> Result<Vec<(Bytes, Cell)>, CqlError> {
        let mut cells = Vec::new();
        let mut elements = elements_of(cql_type, wire)?.into_iter();
        match cql_type {
            CqlType::Map { key, .. } => {
                while let (Some(entry_key), Some(value)) = (elements.next(), elements.next()) {
                    cells.push((path_of(key, &entry_key)?, self.parameters.live(value)));
                }
            }
            CqlType::Set { element, .. } => {
                for value in elements {
                    cells.push((path_of(element, &value)?, self.parameters.live(Bytes::new())));
                }
            }
            other => return Err(CqlError::Invalid(format!("{other} has no elements"))),
        }
        cells.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(cells)
    }

    fn field_cells(&self, wire: &Bytes) -> Result<Vec<(Bytes, Cell)>, CqlError> {
        let mut rest: &[u8] = wire;
        let mut cells = Vec::new();
        for field in 0.. {
            if rest.is_empty() {
                break;
            }
            match take_value(&mut rest) {
                Some(Some(value)) => {
                    cells.push((field_path(field), self.parameters.live(wire.slice_ref(value))))
                }
                Some(None) => {}
                None => return Err(CqlError::invalid("Not enough bytes to read a user type")),
            }
        }
        Ok(cells)
    }

    fn key_path(&self, key_type: &CqlType, key: BoundValue, what: &str) -> Result<Bytes, CqlError> {
        match key {
            BoundValue::Bytes(key) => path_of(key_type, &key),
            BoundValue::Null => Err(CqlError::Invalid(format!("Invalid null value for {what} key"))),
            BoundValue::Unset => Err(CqlError::Invalid(format!("Invalid unset {what} key"))),
        }
    }

    /// The cells of a list column: those that are stored, and those that `row` writes.
    fn present_list(&self, operation: &ColumnOperation, row: &Row) -> Cow<'_, Collection> {
        let stored = self
            .present_rows
            .and_then(|rows| rows.list(self.key, self.row, operation.column));
        let mut list = stored.map_or_else(|| Cow::Owned(Collection::default()), Cow::Borrowed);
        if let Some(ColumnData::Collection(pending)) = row.column(operation.column) {
            list.to_mut().merge(pending.clone());
        }
        list
    }

    fn index_path(
        &self,
        operation: &ColumnOperation,
        index: BoundValue,
        row: &Row,
    ) -> Result<Bytes, CqlError> {
        let index = match index {
            BoundValue::Bytes(bytes) => bytes.as_ref().try_into().map(i32::from_be_bytes),
            BoundValue::Null => return Err(CqlError::invalid("Invalid null value for list index")),
            BoundValue::Unset => return Err(CqlError::invalid("Invalid unset value for list index")),
        };
        let index = index.map_err(|_| CqlError::invalid("Invalid value for list index"))?;
        let now = self.parameters.now;
        let list = self.present_list(operation, row);
        let mut live = list.cells.iter().filter(|(_, cell)| cell.is_live(now));
        let size = live.clone().count();
        if size == 0 {
            return Err(CqlError::invalid(match operation.kind {
                OperationKind::DeleteIndex(_) => "Attempted to delete an element from a list which is null",
                _ => "Attempted to set an element on a list which is null",
            }));
        }
        let found = usize::try_from(index).ok().and_then(|index| live.nth(index));
        found.map(|(path, _)| path.clone()).ok_or_else(|| {
            CqlError::Invalid(format!("List index {index} out of bound, list has size {size}"))
        })
    }

    fn removed_values(
        &self,
        operation: &ColumnOperation,
        wire: &Bytes,
        row: &Row,
    ) -> Result<Vec<(Bytes, Cell)>, CqlError> {
        let CqlType::List { element, .. } = &operation.cql_type else {
            return Ok(Vec::new());
        };
        let removed = elements_of(&operation.cql_type, wire)?;
        let now = self.parameters.now;
        let list = self.present_list(operation, row);
        let equal = list.cells.iter().filter(|(_, cell)| {
            cell.value(now)
                .is_some_and(|own| removed.iter().any(|value| compare(element, value, &own).is_eq()))
        });
        Ok(equal
            .map(|(path, _)| (path.clone(), self.parameters.tombstone()))
            .collect())
    }
}

/// Columns mostly come in the order of their ids.
fn put(row: &mut Row, column: ColumnId, data: ColumnData) {
    if row.columns.last().is_none_or(|(last, _)| *last < column) {
        row.columns.push((column, data));
    } else {
        row.merge_column(column, data);
    }
}

fn field_path(field: usize) -> Bytes {
    Bytes::copy_from_slice(&(field as u16).to_be_bytes())
}

/// Elements; of a map keys and values in turn.
fn elements_of(cql_type: &CqlType, wire: &Bytes) -> Result<Vec<Bytes>, CqlError> {
    let elements = Elements::new(cql_type, wire).map_err(of_value)?;
    elements
        .map(|bytes| bytes.map(|bytes| wire.slice_ref(bytes)).map_err(of_value))
        .collect()
}
