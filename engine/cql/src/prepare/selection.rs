//! The select clause: what the columns of the result are and how they come out of a row.

use super::Preparation;
use crate::ast::{self, Selectable};
use crate::expression::{AggregateCall, Expression, Raw, Typing};
use crate::{ColumnSpecification, CqlError};
use ceto_model::{ColumnKind, CqlType, Table};
use std::sync::Arc;

/// The name of the one result column of SELECT JSON.
const JSON_COLUMN: &str = "[json]";

/// A prepared select clause.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) projection: Projection,
    /// What is selected, which SELECT JSON packs into one column.
    pub(crate) columns: Vec<ColumnSpecification>,
    /// `*`
    pub(crate) is_all: bool,
    /// Columns of the table that occur, by index, sorted.
    pub(crate) used: Vec<usize>,
}

/// How a row becomes a row of the result.
#[derive(Clone, Debug)]
pub(crate) enum Projection {
    /// Each is a column of the table, by index.
    Columns(Vec<usize>),
    /// Each is computed.
    Expressions {
        expressions: Vec<Expression>,
        aggregates: Vec<AggregateCall>,
    },
}

impl Selection {
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Arc<Table>,
        selection: &ast::Selection,
    ) -> Result<Self, CqlError> {
        let shown = || {
            let columns = table.columns().iter().enumerate();
            columns.filter(|(_, column)| !column.is_hidden)
        };
        let mut expressions = Vec::new();
        let mut columns = Vec::new();
        let selectors = match selection {
            ast::Selection::All => {
                let shown: Vec<usize> = shown().map(|(index, _)| index).collect();
                return Ok(Self {
                    projection: Projection::Columns(shown.clone()),
                    columns: table
                        .shown_columns()
                        .map(|column| ColumnSpecification::of_column(table, column))
                        .collect(),
                    is_all: true,
                    used: shown,
                });
            }
            ast::Selection::AllAnd(selectors) => {
                for (index, column) in shown() {
                    expressions.push(Expression::Column(index));
                    columns.push(ColumnSpecification::of_column(table, column));
                }
                selectors
            }
            ast::Selection::Selectors(selectors) => selectors,
        };
        let mut aggregates = Vec::new();
        for selector in selectors {
            let raw = Raw::from(&selector.selectable);
            let (expression, cql_type) = prepare_raw(preparation, table, &raw, Some(&mut aggregates))?;
            let name: Arc<str> = match (&selector.alias, &selector.selectable) {
                (Some(alias), _) => alias.clone(),
                (None, Selectable::Column(name)) => name.clone(),
                (None, selectable) => name_of(selectable, &raw, &expression, table),
            };
            expressions.push(expression);
            columns.push(ColumnSpecification::new(table, name, cql_type));
        }
        let mut used = Vec::new();
        let mut note = |expression: &Expression| match expression {
            Expression::Column(column) | Expression::CellMetadata { column, .. } => used.push(*column),
            _ => {}
        };
        expressions
            .iter()
            .for_each(|expression| expression.visit(&mut note));
        let arguments = aggregates.iter().flat_map(|call| &call.arguments);
        arguments.for_each(|argument| argument.visit(&mut note));
        used.sort_unstable();
        used.dedup();
        let plain: Option<Vec<usize>> = expressions
            .iter()
            .map(|expression| match expression {
                Expression::Column(column) => Some(*column),
                _ => None,
            })
            .collect();
        let projection = match plain {
            Some(plain) => Projection::Columns(plain),
            None => Projection::Expressions {
                expressions,
                aggregates,
            },
        };
        Ok(Self {
            projection,
            columns,
            is_all: matches!(selection, ast::Selection::AllAnd(_)),
            used,
        })
    }

    /// Computes over all rows of a group.
    pub(crate) fn is_aggregate(&self) -> bool {
        !self.aggregates().is_empty()
    }

    /// What it computes over the rows of a group.
    pub(crate) fn aggregates(&self) -> &[AggregateCall] {
        match &self.projection {
            Projection::Columns(_) => &[],
            Projection::Expressions { aggregates, .. } => aggregates,
        }
    }

    /// Uses static columns, and beside them none but the partition key.
    pub(crate) fn is_only_static(&self, table: &Table) -> bool {
        let kinds = || {
            self.used
                .iter()
                .filter_map(|index| table.columns().get(*index))
                .map(|column| column.kind)
        };
        !self.is_all
            && kinds().any(|kind| kind == ColumnKind::Static)
            && kinds().all(|kind| matches!(kind, ColumnKind::Static | ColumnKind::PartitionKey))
    }

    /// The columns of the result.
    pub(crate) fn result_columns(&self, table: &Table, json: bool) -> Vec<ColumnSpecification> {
        if json {
            return vec![ColumnSpecification::new(table, JSON_COLUMN, CqlType::Text)];
        }
        self.columns.clone()
    }
}

/// The name of a result column without an alias. A cast to the type that the column has already is not there at all.
fn name_of(selectable: &Selectable, raw: &Raw<'_>, expression: &Expression, table: &Table) -> Arc<str> {
    match (selectable, expression) {
        (Selectable::Cast { .. }, Expression::Column(index)) => match table.columns().get(*index) {
            Some(column) => column.name.clone(),
            None => raw.text().into(),
        },
        _ => raw.text().into(),
    }
}

/// An expression over the columns of `table`.
pub(super) fn prepare_raw(
    preparation: &mut Preparation<'_>,
    table: &Arc<Table>,
    raw: &Raw<'_>,
    aggregates: Option<&mut Vec<AggregateCall>>,
) -> Result<(Expression, CqlType), CqlError> {
    let mut typing = Typing {
        preparation,
        table: Some(table),
        aggregates,
    };
    let partial = typing.infer(raw)?;
    typing.settle(partial)
}
