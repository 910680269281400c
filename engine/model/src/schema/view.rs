//! What a materialized view is defined by, beside being a table.

use std::sync::Arc;

use super::{Column, ColumnKind, Keyspace, Table, TableBuilder, TableId};
use crate::row::ColumnId;
use crate::types::CqlType;

/// Ids of the two hidden clustering columns of a view with a regular column of the base in its key.
const HIDDEN_IDS: [ColumnId; 2] = [ColumnId(u32::MAX - 32), ColumnId(u32::MAX - 31)];

/// What makes a [`Table`] a materialized view of another one.
///
/// Columns of a view have the ids of the base's columns. Beside those that users see it has hidden ones: see
/// [`crate::view`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewDefinition {
    /// The base table.
    pub base: TableId,
    /// Its name.
    pub base_name: Arc<str>,
    /// `SELECT *`: columns that are added to the base come into the view.
    pub include_all: bool,
    /// What follows WHERE, as CQL.
    pub where_clause: Arc<str>,
}

impl Table {
    /// The table that `builder` describes as a view of `base`: what comes from the base (names, types, all columns
    /// where it has all) is brought up to date, hidden columns are made anew. None when `base` lacks one of its columns,
    /// or `builder` is no view.
    pub fn view_of(base: &Table, mut builder: TableBuilder) -> Option<Table> {
        let definition = builder.view.clone()?;
        let mut columns = Vec::with_capacity(builder.columns.len());
        for column in builder.columns.drain(..).filter(|column| !column.is_hidden) {
            if definition.include_all && !column.is_primary_key() {
                continue;
            }
            let source = base.column_by_id(column.id)?;
            columns.push(Column {
                name: source.name.clone(),
                cql_type: source.cql_type.clone(),
                ..column
            });
        }
        let regular = |source: &Column, is_hidden| Column {
            name: match is_hidden {
                true => format!("virtual {}", source.name).into(),
                false => source.name.clone(),
            },
            kind: ColumnKind::Regular,
            position: 0,
            descending: false,
            is_hidden,
            ..source.clone()
        };
        if definition.include_all {
            let has = |source: &&Column| columns.iter().any(|column| column.id == source.id);
            let missing: Vec<_> = base
                .columns()
                .iter()
                .filter(|source| source.kind != ColumnKind::Static && !has(source))
                .map(|source| regular(source, false))
                .collect();
            columns.extend(missing);
        }
        let is_regular = |id| base.regulars().iter().any(|source| source.id == id);
        if columns
            .iter()
            .any(|column| column.is_primary_key() && is_regular(column.id))
        {
            let clustering = |column: &&Column| column.kind == ColumnKind::Clustering;
            let count = columns.iter().filter(clustering).count() as u16;
            for (at, (id, name)) in HIDDEN_IDS.into_iter().zip(["written", "expires"]).enumerate() {
                columns.push(Column {
                    id,
                    name: name.into(),
                    kind: ColumnKind::Clustering,
                    position: count + at as u16,
                    cql_type: CqlType::Bigint,
                    descending: false,
                    is_hidden: true,
                });
            }
        } else {
            let has = |source: &&Column| columns.iter().any(|column| column.id == source.id);
            let unselected: Vec<_> = base
                .regulars()
                .iter()
                .filter(|source| !has(source))
                .map(|source| regular(source, true))
                .collect();
            columns.extend(unselected);
        }
        builder.columns = columns;
        builder.next_column_id = base.next_column_id;
        Some(builder.build())
    }
}

impl Keyspace {
    /// The views of a table, by name.
    pub fn views_of(&self, base: TableId) -> impl Iterator<Item = &Arc<Table>> {
        let is_of = move |table: &&Arc<Table>| table.view.as_ref().is_some_and(|view| view.base == base);
        self.tables.values().filter(is_of)
    }

    /// Brings the views of `base` up to date with it.
    pub fn refresh_views(&mut self, base: &Table) {
        for table in self.tables.values_mut() {
            if table.view.as_ref().is_some_and(|view| view.base == base.id)
                && let Some(view) = Table::view_of(base, table.to_builder())
            {
                *table = Arc::new(view);
            }
        }
    }
}
