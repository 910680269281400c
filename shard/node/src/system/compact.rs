//! Tables with COMPACT STORAGE in `system_schema`, where Cassandra shows how it stores them and drivers expect that.
//!
//! ```text
//! flags     dense, without compound     one clustering column
//!           compound and dense          several
//!           none of them                no clustering column: columns are shown as static, and two more are made up
//! made up   column1 text, clustering    without clustering columns
//!           value blob or counter       without clustering columns
//!           value empty                 with clustering columns, without other columns
//! ```
//!
//! Made-up columns have [`MADE_UP`] as their id and are not read back.

use ceto_model::schema::Column;
use ceto_model::{ColumnId, ColumnKind, CqlType, Table};

/// `column_id` of a column that the table does not have.
const MADE_UP: ColumnId = ColumnId(u32::MAX);
/// The same, as it is stored.
pub(super) const MADE_UP_STORED: i32 = -1;

/// `flags` of a table.
pub(super) fn flags(table: &Table) -> Vec<String> {
    let is_compound = !table.is_compact || table.clustering().len() > 1;
    let flags = [
        ("compound", is_compound),
        ("counter", table.is_counter),
        ("dense", table.is_dense()),
    ];
    let set = flags.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(name, _)| name.to_owned()).collect()
}

/// What [`flags`] has written for a table with COMPACT STORAGE.
pub(super) fn is_compact(flags: &[String]) -> bool {
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    has("dense") || !has("compound")
}

/// The columns as they are shown.
pub(super) fn shown_columns(table: &Table) -> Vec<Column> {
    let mut columns: Vec<Column> = table.shown_columns().cloned().collect();
    if !table.is_compact {
        return columns;
    }
    let value_type = match (table.is_dense(), table.is_counter) {
        (true, _) => CqlType::Empty,
        (false, true) => CqlType::Counter,
        (false, false) => CqlType::Blob,
    };
    let made_up = |name: &str, suffixes: std::ops::RangeFrom<u32>, kind, cql_type| {
        let names = suffixes.map(|number| match number {
            0 => name.to_owned(),
            number => format!("{name}{number}"),
        });
        let mut free = names.filter(|name| table.column(name).is_none());
        Column {
            id: MADE_UP,
            name: free.next().unwrap_or_default().into(),
            kind,
            position: 0,
            cql_type,
            descending: false,
            is_hidden: false,
        }
    };
    if !table.is_dense() {
        for column in columns
            .iter_mut()
            .filter(|column| column.kind == ColumnKind::Regular)
        {
            column.kind = ColumnKind::Static;
        }
        columns.push(made_up("column", 1.., ColumnKind::Clustering, CqlType::Text));
    }
    if !table.is_dense() || table.regulars().is_empty() {
        columns.push(made_up("value", 0.., ColumnKind::Regular, value_type));
    }
    columns
}

/// The kind of a column that is shown as `shown`.
pub(super) fn stored_kind(is_compact: bool, shown: ColumnKind) -> ColumnKind {
    match shown {
        ColumnKind::Static if is_compact => ColumnKind::Regular,
        kind => kind,
    }
}
