//! Where a value comes from or goes to: the name and type of a bind variable, a result column or an argument.

use ceto_model::{Column, CqlType, Table};
use std::sync::Arc;

/// The name and type of one value, and the table it belongs to, as result metadata shows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnSpecification {
    /// Keyspace of the table.
    pub keyspace: Arc<str>,
    /// Name of the table.
    pub table: Arc<str>,
    /// Name of the column, bind variable or argument; Cassandra's names for those that are no column: `[limit]`,
    /// `in(k)`, `partition key token`, `arg0(f)`, ...
    pub name: Arc<str>,
    /// Type of the value.
    pub cql_type: CqlType,
}

impl ColumnSpecification {
    /// Of a column.
    pub(crate) fn of_column(table: &Table, column: &Column) -> Self {
        Self::new(table, column.name.clone(), column.cql_type.clone())
    }

    /// Of something else that belongs to a table.
    pub(crate) fn new(table: &Table, name: impl Into<Arc<str>>, cql_type: CqlType) -> Self {
        Self {
            keyspace: table.keyspace.clone(),
            table: table.name.clone(),
            name: name.into(),
            cql_type,
        }
    }

    /// A part of this value, or something derived from it.
    pub(crate) fn derived(&self, name: impl Into<Arc<str>>, cql_type: CqlType) -> Self {
        Self {
            keyspace: self.keyspace.clone(),
            table: self.table.clone(),
            name: name.into(),
            cql_type,
        }
    }
}
