//! INSERT JSON: the document's members are the columns; which ones, only the values tell.

use super::Preparation;
use crate::ast::{JsonDefault, JsonValue};
use crate::expression::{Evaluation, Expression};
use crate::{BoundValue, ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::value::{from_json, json_columns};
use ceto_model::{CqlType, Table};

/// A prepared document.
#[derive(Clone, Debug)]
pub(crate) struct InsertJson {
    document: Expression,
    /// A column that the document lacks stays as it is; else it is deleted.
    default_unset: bool,
}

impl InsertJson {
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Table,
        value: &JsonValue,
        default: JsonDefault,
    ) -> Self {
        let document = match value {
            JsonValue::Literal(text) => Expression::Constant(Some(Bytes::copy_from_slice(text.as_bytes()))),
            JsonValue::Marker(marker) => {
                let receiver = ColumnSpecification::new(table, "[json]", CqlType::Text);
                preparation.bind(*marker, &receiver)
            }
        };
        Self {
            document,
            default_unset: default == JsonDefault::Unset,
        }
    }

    /// The value of every column, in the order of the table's.
    pub(crate) fn values(
        &self,
        table: &Table,
        evaluation: &Evaluation<'_>,
    ) -> Result<Vec<BoundValue>, CqlError> {
        let document = match self.document.evaluate(evaluation)? {
            BoundValue::Bytes(bytes) => bytes,
            BoundValue::Null | BoundValue::Unset => {
                return Err(CqlError::invalid("Got null for INSERT JSON values"));
            }
        };
        let text =
            std::str::from_utf8(&document).map_err(|_| CqlError::invalid("String didn't validate."))?;
        let members = json_columns(text).map_err(crate::expression::of_value)?;
        let default = if self.default_unset {
            BoundValue::Unset
        } else {
            BoundValue::Null
        };
        let mut values = vec![default; table.columns().len()];
        for (name, json) in &members {
            let index = table.column_index(name);
            let found = index.and_then(|index| Some((table.columns().get(index)?, values.get_mut(index)?)));
            let Some((column, slot)) = found else {
                return Err(CqlError::Invalid(format!(
                    "JSON values map contains unrecognized column: {name}"
                )));
            };
            let decoded = from_json(&column.cql_type, json).map_err(|error| {
                CqlError::Invalid(format!("Error decoding JSON value for {name}: {error}"))
            })?;
            *slot = match decoded {
                Some(value) => {
                    let wire = value
                        .to_wire(&column.cql_type)
                        .map_err(crate::expression::of_value)?;
                    BoundValue::Bytes(wire.into())
                }
                None => BoundValue::Null,
            };
        }
        Ok(values)
    }
}
