//! Rows of a result: where they go, and how JSON packs them.

use crate::ColumnSpecification;
use crate::CqlError;
use crate::expression::of_value;
use bytes::Bytes;
use ceto_model::value::{self, json_name, put_json_string};

/// Takes the rows of a result, cell by cell.
pub trait RowSink {
    /// A row begins.
    fn start_row(&mut self);
    /// The next cell of the row: wire bytes, or null.
    fn cell(&mut self, value: Option<&[u8]>);
}

/// Collects rows; for tests and for results that are looked at.
impl RowSink for Vec<Vec<Option<Vec<u8>>>> {
    fn start_row(&mut self) {
        self.push(Vec::new());
    }

    fn cell(&mut self, value: Option<&[u8]>) {
        if let Some(row) = self.last_mut() {
            row.push(value.map(<[u8]>::to_vec));
        }
    }
}

/// The JSON object of one row.
pub(crate) fn json_row(
    columns: &[ColumnSpecification],
    values: &[Option<Bytes>],
) -> Result<String, CqlError> {
    let mut out = String::from("{");
    for (index, (column, value)) in columns.iter().zip(values).enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        put_json_string(&json_name(&column.name), &mut out);
        out.push_str(": ");
        match value {
            Some(wire) => out.push_str(&value::to_json(&column.cql_type, wire).map_err(of_value)?),
            None => out.push_str("null"),
        }
    }
    out.push('}');
    Ok(out)
}
