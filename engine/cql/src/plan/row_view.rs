//! One row of a read's answer, as the columns of its table.
//!
//! Key columns are decoded once per partition or row into buffers that are used again; other columns are borrowed
//! from the answer. Multi-cell columns are put together here: cells to the wire bytes of a collection or UDT.

use crate::CqlError;
use crate::ast::CellMetadata;
use crate::expression::{RowSource, of_value};
use bytes::Bytes;
use ceto_model::cell::CellState;
use ceto_model::comparable::{BOUND_AFTER, BOUND_BEFORE, KEY_END, decode_component_into};
use ceto_model::counter::counter_value;
use ceto_model::value::wire::put_value;
use ceto_model::{
    Cell, ClusteringKey, Collection, Column, ColumnData, ColumnKind, CqlType, DecoratedKey, Position, Row,
    Table, UnixSeconds,
};
use smallvec::SmallVec;

/// Buffers for the decoded key columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyBuffers {
    partition: SmallVec<[Bytes; 4]>,
    clustering: Vec<u8>,
    ends: SmallVec<[usize; 4]>,
}

impl KeyBuffers {
    /// Takes the columns of a partition key.
    pub(crate) fn set_partition(&mut self, table: &Table, key: &DecoratedKey) -> Result<(), CqlError> {
        let components = key.key.components(table.partition_key().len());
        self.partition = components.ok_or_else(|| {
            CqlError::Invalid(format!(
                "corrupt partition key in table {}.{}",
                table.keyspace, table.name
            ))
        })?;
        Ok(())
    }

    /// Takes the columns of a clustering key; None: there is no row.
    pub(crate) fn set_clustering(
        &mut self,
        table: &Table,
        key: Option<&ClusteringKey>,
    ) -> Result<(), CqlError> {
        self.clustering.clear();
        self.ends.clear();
        let Some(key) = key else { return Ok(()) };
        let mut rest: &[u8] = &key.0;
        for (cql_type, reversed) in table.clustering_types() {
            // A row of a dense table may lack columns at the end of its key.
            if table.is_compact && matches!(rest, [KEY_END]) {
                break;
            }
            decode_component_into(cql_type, *reversed, &mut rest, &mut self.clustering).map_err(of_value)?;
            self.ends.push(self.clustering.len());
        }
        Ok(())
    }

    /// Whether a row's key, or a bound of rows, can be one of `table`.
    pub(crate) fn check_place(&mut self, table: &Table, place: &Position) -> Result<(), CqlError> {
        if place.0.last() == Some(&KEY_END) {
            return self.set_clustering(table, Some(&ClusteringKey(place.0.clone())));
        }
        let mut rest: &[u8] = &place.0;
        for (cql_type, reversed) in table.clustering_types() {
            if rest.len() <= 1 {
                break;
            }
            decode_component_into(cql_type, *reversed, &mut rest, &mut self.clustering).map_err(of_value)?;
        }
        match rest {
            [BOUND_BEFORE | BOUND_AFTER] => Ok(()),
            _ => Err(CqlError::invalid("not a bound of the table's rows")),
        }
    }

    pub(crate) fn partition_column(&self, position: usize) -> Option<&[u8]> {
        self.partition.get(position).map(Bytes::as_ref)
    }

    pub(crate) fn clustering_column(&self, position: usize) -> Option<&[u8]> {
        let start = match position.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.clustering.get(start..*self.ends.get(position)?)
    }
}

/// A row.
#[derive(Clone, Copy)]
pub(crate) struct RowView<'a> {
    pub(crate) table: &'a Table,
    pub(crate) keys: &'a KeyBuffers,
    pub(crate) static_row: &'a Row,
    /// None: only the partition and its static columns.
    pub(crate) row: Option<&'a Row>,
    pub(crate) now: UnixSeconds,
}

impl<'a> RowView<'a> {
    /// Calls `take` with the wire bytes of a column; without allocation unless it is multi-cell.
    pub(crate) fn with_value<R>(
        &self,
        column: usize,
        take: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R, CqlError> {
        let Some(column) = self.table.columns().get(column) else {
            return Ok(take(None));
        };
        let position = usize::from(column.position);
        match column.kind {
            ColumnKind::PartitionKey => Ok(take(self.keys.partition_column(position))),
            ColumnKind::Clustering => Ok(take(self.keys.clustering_column(position))),
            ColumnKind::Static | ColumnKind::Regular => match self.data(column) {
                None => Ok(take(None)),
                Some(ColumnData::Cell(cell)) => Ok(take(live_value(cell, self.now).map(Bytes::as_ref))),
                Some(ColumnData::Collection(collection)) => {
                    let wire = collection_value(&column.cql_type, collection, self.now)?;
                    Ok(take(wire.as_deref()))
                }
            },
        }
    }

    fn data(&self, column: &Column) -> Option<&'a ColumnData> {
        let row = match column.kind {
            ColumnKind::Static => self.static_row,
            _ => self.row?,
        };
        // Where it stands when the row has all columns.
        match row.columns.get(usize::from(column.position)) {
            Some((id, data)) if *id == column.id => Some(data),
            _ => row.column(column.id),
        }
    }
}

impl RowSource for RowView<'_> {
    fn value(&self, column: usize) -> Result<Option<Bytes>, CqlError> {
        let found = self.table.columns().get(column);
        if let Some(column) = found.filter(|column| !column.is_primary_key())
            && let Some(ColumnData::Cell(cell)) = self.data(column)
        {
            return Ok(live_value(cell, self.now).cloned());
        }
        self.with_value(column, |wire| wire.map(Bytes::copy_from_slice))
    }

    fn metadata(&self, column: usize, kind: CellMetadata, path: Option<&[u8]>) -> Vec<Option<i64>> {
        let Some(data) = self
            .table
            .columns()
            .get(column)
            .and_then(|column| self.data(column))
        else {
            return Vec::new();
        };
        let of_cell = |cell: &Cell| match kind {
            _ if !cell.is_live(self.now) => None,
            CellMetadata::Ttl => cell.expiry().map(|expiry| expiry.expires_at.0 - self.now.0),
            CellMetadata::Writetime | CellMetadata::MaxWritetime => Some(cell.timestamp.0),
        };
        match data {
            ColumnData::Cell(cell) => vec![of_cell(cell)],
            ColumnData::Collection(collection) => collection
                .cells
                .iter()
                .filter(|(own, cell)| path.is_none_or(|path| **own == *path) && cell.is_live(self.now))
                .map(|(_, cell)| of_cell(cell))
                .collect(),
        }
    }

    fn is_multicell(&self, column: usize) -> bool {
        self.table
            .columns()
            .get(column)
            .is_some_and(|column| column.cql_type.is_multicell())
    }

    fn aggregate(&self, _: usize) -> Option<Bytes> {
        None
    }
}

/// The value of a cell that is alive.
fn live_value(cell: &Cell, now: UnixSeconds) -> Option<&Bytes> {
    match &cell.state {
        CellState::Live(value) => Some(value),
        CellState::Expiring { value, expiry } => (!expiry.is_expired(now)).then_some(value),
        CellState::Tombstone { .. } => None,
    }
}

/// The wire bytes of a column of many cells; None when none of them is alive.
pub(crate) fn collection_value(
    cql_type: &CqlType,
    collection: &Collection,
    now: UnixSeconds,
) -> Result<Option<Vec<u8>>, CqlError> {
    if *cql_type == CqlType::Counter {
        return Ok(counter_value(collection, now).map(|sum| sum.to_be_bytes().to_vec()));
    }
    let live = || {
        let cells = collection.cells.iter();
        cells.filter_map(|(path, cell)| live_value(cell, now).map(|value| (path, value)))
    };
    let count = live().count();
    if count == 0 {
        return Ok(None);
    }
    let mut out = Vec::new();
    match cql_type {
        CqlType::List { .. } => {
            out.extend_from_slice(&(count as i32).to_be_bytes());
            live().for_each(|(_, value)| put_value(&mut out, Some(value)));
        }
        CqlType::Set { element, .. } => {
            out.extend_from_slice(&(count as i32).to_be_bytes());
            for (path, _) in live() {
                put_path(element, path, &mut out)?;
            }
        }
        CqlType::Map { key, .. } => {
            out.extend_from_slice(&(count as i32).to_be_bytes());
            for (path, value) in live() {
                put_path(key, path, &mut out)?;
                put_value(&mut out, Some(value));
            }
        }
        CqlType::Udt { definition, .. } => {
            let mut cells = live().peekable();
            for index in 0..definition.fields.len() {
                let own = (index as u16).to_be_bytes();
                let value = cells.next_if(|(path, _)| ***path == own).map(|(_, value)| value);
                put_value(&mut out, value.map(Bytes::as_ref));
            }
        }
        other => {
            return Err(CqlError::Invalid(format!(
                "a column of type {other} has many cells"
            )));
        }
    }
    Ok(Some(out))
}

/// Appends the element or key that a path stands for, with its length.
fn put_path(cql_type: &CqlType, path: &[u8], out: &mut Vec<u8>) -> Result<(), CqlError> {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut rest = path;
    decode_component_into(cql_type, false, &mut rest, out).map_err(of_value)?;
    let length = (out.len() - length_at - 4) as i32;
    if let Some(slot) = out.get_mut(length_at..length_at + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
