//! GROUP BY: leading columns of the primary key, the last of them perhaps by what a function makes of it.
//!
//! Rows come in the order of their keys, so that each group is one run of rows. That is also so for a function as long as it
//! is monotonic; no other can be used.

use super::Preparation;
use super::select::is_fixed;
use super::selection::prepare_raw;
use crate::CqlError;
use crate::ast::{Select, Selectable};
use crate::expression::{Expression, Raw};
use crate::restrictions::Restrictions;
use ceto_model::{ColumnKind, Table};
use std::sync::Arc;

/// Rows that are one group: those that agree in all of it.
#[derive(Clone, Debug)]
pub(crate) struct Grouping {
    /// So many leading columns of the primary key.
    pub(crate) columns: usize,
    /// Of the column behind them.
    pub(crate) by: Option<Expression>,
}

impl Grouping {
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Arc<Table>,
        select: &Select,
        restrictions: &Restrictions,
    ) -> Result<Option<Grouping>, CqlError> {
        if select.group_by.is_empty() {
            return Ok(None);
        }
        let partition_length = table.partition_key().len();
        let key_length = partition_length + table.clustering().len();
        let mut next = 0;
        let mut by = None;
        for selectable in &select.group_by {
            let index = match selectable {
                Selectable::Column(name) => {
                    let index = table
                        .column_index(name)
                        .ok_or_else(|| crate::expression::undefined_column(table, name))?;
                    if index >= key_length {
                        return Err(CqlError::Invalid(format!(
                            "Group by is currently only supported on the columns of the PRIMARY KEY, got {name}"
                        )));
                    }
                    if by.is_some() {
                        return Err(CqlError::invalid(
                            "Functions are only supported on the last element of the GROUP BY clause",
                        ));
                    }
                    index
                }
                _ => {
                    let (index, expression) = function(preparation, table, selectable)?;
                    by = Some(expression);
                    index
                }
            };
            // Columns that are fixed may be left out.
            while next < index && is_fixed(table, restrictions, next) {
                next += 1;
            }
            if next != index {
                return Err(CqlError::invalid(
                    "Group by currently only support groups of columns following their declared order in the \
                     PRIMARY KEY",
                ));
            }
            next += 1;
        }
        if next < partition_length && !restrictions.partition.is_single() {
            return Err(CqlError::invalid(
                "Group by is not supported on only a part of the partition key",
            ));
        }
        if select.distinct && next > partition_length {
            return Err(CqlError::invalid(
                "Grouping on clustering columns is not allowed for SELECT DISTINCT queries",
            ));
        }
        Ok(Some(Grouping {
            columns: next.max(partition_length) - usize::from(by.is_some()),
            by,
        }))
    }
}

/// A function of one clustering column, with the column's index.
fn function(
    preparation: &mut Preparation<'_>,
    table: &Arc<Table>,
    selectable: &Selectable,
) -> Result<(usize, Expression), CqlError> {
    let raw = Raw::from(selectable);
    let mut aggregates = Vec::new();
    let (expression, _) = prepare_raw(preparation, table, &raw, Some(&mut aggregates))?;
    if !aggregates.is_empty() {
        return Err(CqlError::Invalid(format!(
            "Aggregate functions are not supported within the GROUP BY clause, got: {}",
            raw.text()
        )));
    }
    let (mut columns, mut wrong) = (Vec::new(), None);
    expression.visit(&mut |part| match part {
        Expression::Column(column) if !columns.contains(column) => columns.push(*column),
        Expression::Column(_) | Expression::Constant(_) | Expression::Bind(_) => {}
        Expression::Function { function, .. } if function.is_monotonic() => {}
        Expression::Function { function, .. } => {
            wrong.get_or_insert_with(|| function.signature());
        }
        _ => {
            wrong.get_or_insert_with(|| raw.text());
        }
    });
    let named = || columns.iter().filter_map(|column| table.columns().get(*column));
    let (Some(index), Some(column)) = (columns.first(), named().next()) else {
        return Err(CqlError::invalid(
            "GROUP BY functions must have one clustering column name as parameter",
        ));
    };
    if columns.len() > 1 {
        let names: Vec<&str> = named().map(|column| &*column.name).collect();
        return Err(CqlError::Invalid(format!(
            "GROUP BY functions accept only one clustering column as parameter, got: {}",
            names.join(",")
        )));
    }
    if column.kind != ColumnKind::Clustering {
        return Err(CqlError::Invalid(format!(
            "Group by functions are only supported on clustering columns, got {}",
            column.name
        )));
    }
    match wrong {
        Some(signature) => Err(CqlError::Invalid(format!(
            "Only monotonic functions are supported in the GROUP BY clause. Got: {signature} "
        ))),
        None => Ok((*index, expression)),
    }
}
