//! SELECT: restrictions, selection, order, groups and limits, checked against each other.

use super::Preparation;
use super::grouping::Grouping;
use super::nearest::{NEEDS_INDEXES, Nearest};
use super::selection::{Projection, Selection};
use crate::ast::{OrderingKind, Select, Term};
use crate::expression::{Expression, prepare_term};
use crate::restrictions::{ALLOW_FILTERING, Restrictions, StatementKind};
use crate::{ColumnSpecification, CqlError};
use ceto_model::read::ColumnSelection;
use ceto_model::{Column, ColumnId, ColumnKind, CqlType, Table};
use std::sync::Arc;

/// A prepared SELECT.
#[derive(Clone, Debug)]
pub(crate) struct PreparedSelect {
    pub(crate) table: Arc<Table>,
    pub(crate) restrictions: Restrictions,
    pub(crate) selection: Selection,
    pub(crate) result_columns: Vec<ColumnSpecification>,
    pub(crate) json: bool,
    pub(crate) distinct: bool,
    pub(crate) group_by: Option<Grouping>,
    /// Rows from the last to the first.
    pub(crate) reversed: bool,
    /// Order of rows of several partitions: column index, and whether the greatest comes first.
    pub(crate) order: Vec<(usize, bool)>,
    /// Order by similarity to a vector.
    pub(crate) nearest: Option<Nearest>,
    pub(crate) limit: Option<Expression>,
    pub(crate) per_partition_limit: Option<Expression>,
    pub(crate) timeout: Option<Expression>,
    pub(crate) bypass_cache: bool,
    pub(crate) allow_filtering: bool,
    /// What a replica must return.
    pub(crate) read_columns: ColumnSelection,
    /// What each group's row shows; empty without groups.
    pub(crate) group_expressions: Vec<Expression>,
    /// Rows cannot be made without their partition key columns.
    pub(crate) needs_partition_columns: bool,
    /// Rows cannot be made without their clustering columns.
    pub(crate) needs_clustering_columns: bool,
}

impl PreparedSelect {
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        table: Arc<Table>,
        select: &Select,
    ) -> Result<Self, CqlError> {
        let selection = Selection::prepare(preparation, &table, &select.selection)?;
        let is_nearest = matches!(
            select.order_by.first().map(|ordering| &ordering.kind),
            Some(OrderingKind::NearestTo(_))
        );
        let kind = StatementKind::Select {
            allow_filtering: select.allow_filtering && !is_nearest,
        };
        let only_statics = selection.is_only_static(&table);
        let restrictions =
            Restrictions::prepare(preparation, &table, &select.where_clause, kind, only_statics);
        let restrictions = restrictions.map_err(|error| match error {
            CqlError::Invalid(text) if is_nearest && text == ALLOW_FILTERING => {
                CqlError::invalid(NEEDS_INDEXES)
            }
            other => other,
        });
        // What is wrong with the order itself is told first.
        let nearest = Nearest::prepare(preparation, &table, select)?;
        let restrictions = restrictions?;
        let group_by = Grouping::prepare(preparation, &table, select, &restrictions)?;
        if select.distinct {
            check_distinct(&table, &selection, &restrictions)?;
            if select.per_partition_limit.is_some() {
                return Err(CqlError::invalid(
                    "PER PARTITION LIMIT is not allowed with SELECT DISTINCT queries",
                ));
            }
        }
        if selection.is_aggregate() && group_by.is_none() && select.per_partition_limit.is_some() {
            return Err(CqlError::invalid(
                "PER PARTITION LIMIT is not allowed with aggregate queries.",
            ));
        }
        if nearest.is_some() && (selection.is_aggregate() || group_by.is_some()) {
            return Err(CqlError::invalid("Top-K queries can not be run with aggregation"));
        }
        let (reversed, order) = match nearest {
            Some(_) => (false, Vec::new()),
            None => order(&table, select, &restrictions)?,
        };
        let per_partition_limit = limit(
            preparation,
            &table,
            select.per_partition_limit.as_ref(),
            "[per_partition_limit]",
        )?;
        let limit = limit(preparation, &table, select.limit.as_ref(), "[limit]")?;
        let timeout = match &select.timeout {
            None => None,
            Some(term) => {
                let receiver = ColumnSpecification::new(&table, "[timeout]", CqlType::Duration);
                Some(prepare_term(preparation, term, &receiver)?)
            }
        };
        let used = |range: std::ops::Range<usize>| {
            let filtered = restrictions.filters.iter().flat_map(|filter| &filter.columns);
            let ordered = order.iter().map(|(column, _)| column);
            let grouped = group_by.is_some() && !range.is_empty();
            let mut all = selection.used.iter().chain(filtered).chain(ordered);
            grouped || all.any(|column| range.contains(column))
        };
        let key_count = table.partition_key().len();
        let needs_partition_columns = used(0..key_count);
        let needs_clustering_columns = used(key_count..key_count + table.clustering().len());
        let is_grouped = group_by.is_some() || selection.is_aggregate();
        let group_expressions = match &selection.projection {
            _ if !is_grouped => Vec::new(),
            Projection::Expressions { expressions, .. } => expressions.clone(),
            Projection::Columns(columns) => {
                columns.iter().map(|column| Expression::Column(*column)).collect()
            }
        };
        Ok(Self {
            group_expressions,
            needs_partition_columns,
            needs_clustering_columns,
            read_columns: read_columns(
                &table,
                &selection,
                &restrictions,
                select.distinct,
                nearest.as_ref(),
            ),
            result_columns: selection.result_columns(&table, select.json),
            restrictions,
            selection,
            json: select.json,
            distinct: select.distinct,
            group_by,
            reversed,
            order,
            nearest,
            limit,
            per_partition_limit,
            timeout,
            bypass_cache: select.bypass_cache,
            allow_filtering: select.allow_filtering,
            table,
        })
    }
}

impl PreparedSelect {
    /// Rows become one row per group.
    pub(crate) fn is_grouped(&self) -> bool {
        !self.group_expressions.is_empty()
    }

    /// Every row that is read is a row of the result.
    pub(crate) fn is_direct(&self) -> bool {
        self.restrictions.filters.is_empty() && !self.is_grouped() && !self.is_sorted()
    }

    /// Rows wait until all of them are there.
    pub(crate) fn is_sorted(&self) -> bool {
        !self.order.is_empty() || self.nearest.is_some()
    }
}

fn limit(
    preparation: &mut Preparation<'_>,
    table: &Table,
    term: Option<&Term>,
    name: &str,
) -> Result<Option<Expression>, CqlError> {
    let receiver = ColumnSpecification::new(table, name, CqlType::Int);
    let prepared = term
        .map(|term| prepare_term(preparation, term, &receiver))
        .transpose()?;
    if let Some(Expression::Constant(Some(constant))) = &prepared {
        crate::plan::check_limit(constant, name)?;
    }
    Ok(prepared)
}

fn check_distinct(table: &Table, selection: &Selection, restrictions: &Restrictions) -> Result<(), CqlError> {
    let used = || {
        selection
            .used
            .iter()
            .filter_map(|index| table.columns().get(*index))
    };
    let stranger =
        used().find(|column| !matches!(column.kind, ColumnKind::PartitionKey | ColumnKind::Static));
    if let Some(stranger) = stranger {
        return Err(CqlError::Invalid(format!(
            "SELECT DISTINCT queries must only request partition key columns and/or static columns (not {})",
            stranger.name
        )));
    }
    if restrictions.restricts_clustering || restrictions.restricts_regular {
        return Err(CqlError::invalid(
            "SELECT DISTINCT with WHERE clause only supports restriction by partition key and/or static columns.",
        ));
    }
    // Named partitions come one by one anyway; in a range the key is what tells them apart.
    let requested = |column: &Column| used().any(|used| used.id == column.id);
    let missing = table.partition_key().iter().find(|column| !requested(column));
    if let (Some(missing), true) = (missing, restrictions.partition.is_range()) {
        return Err(CqlError::Invalid(format!(
            "SELECT DISTINCT queries must request all the partition key columns (missing {})",
            missing.name
        )));
    }
    Ok(())
}

/// A column of the primary key that has the same value in all rows of the answer.
pub(super) fn is_fixed(table: &Table, restrictions: &Restrictions, index: usize) -> bool {
    let key_count = table.partition_key().len();
    match index.checked_sub(key_count) {
        None => restrictions.partition.is_single(),
        Some(clustering) => restrictions.clustering.is_equal(clustering),
    }
}

/// Whether rows come in reverse, and the order to bring rows of several partitions into.
fn order(
    table: &Table,
    select: &Select,
    restrictions: &Restrictions,
) -> Result<(bool, Vec<(usize, bool)>), CqlError> {
    if select.order_by.is_empty() {
        return Ok((false, Vec::new()));
    }
    if restrictions.index.is_some() {
        return Err(CqlError::invalid(
            "ORDER BY with 2ndary indexes is not supported, except for ANN queries.",
        ));
    }
    if restrictions.partition.is_range() {
        return Err(CqlError::invalid(
            "ORDER BY is only supported when the partition key is restricted by an EQ or an IN.",
        ));
    }
    let first = table.partition_key().len();
    let mut next = 0;
    let mut reversed = None;
    let mut order = Vec::with_capacity(select.order_by.len());
    for ordering in &select.order_by {
        let column = table
            .column(&ordering.column)
            .ok_or_else(|| crate::expression::undefined_column(table, &ordering.column))?;
        if column.kind != ColumnKind::Clustering {
            return Err(CqlError::Invalid(format!(
                "Order by is currently only supported on the clustered columns of the PRIMARY KEY, got {}",
                column.name
            )));
        }
        let position = usize::from(column.position);
        while next < position && restrictions.clustering.is_equal(next) {
            next += 1;
        }
        if next != position {
            return Err(CqlError::invalid(
                "Order by currently only supports the ordering of columns following their declared order in the \
                 PRIMARY KEY",
            ));
        }
        next += 1;
        let against = ordering.descending != column.descending;
        if reversed.is_some_and(|reversed| reversed != against) {
            return Err(CqlError::invalid("Unsupported order by relation"));
        }
        reversed = Some(against);
        order.push((first + position, ordering.descending));
    }
    if !restrictions.partition.has_in() {
        order.clear();
    }
    Ok((reversed.unwrap_or(false), order))
}

/// The non-key columns that a replica must return. All static columns when whole partitions are asked for: one without
/// rows is in the answer when any of them has a value.
fn read_columns(
    table: &Table,
    selection: &Selection,
    restrictions: &Restrictions,
    distinct: bool,
    nearest: Option<&Nearest>,
) -> ColumnSelection {
    let filtered = restrictions
        .filters
        .iter()
        .flat_map(|filter| filter.columns.iter());
    let mut wanted: Vec<ColumnId> = selection
        .used
        .iter()
        .chain(filtered)
        .chain(nearest.map(|nearest| &nearest.column))
        .filter_map(|index| table.columns().get(*index))
        .filter(|column| !column.is_primary_key())
        .map(|column| column.id)
        .collect();
    if distinct || !restrictions.restricts_clustering && !restrictions.restricts_regular {
        wanted.extend(table.statics().iter().map(|column| column.id));
    }
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.len() == table.statics().len() + table.regulars().len() {
        return ColumnSelection::All;
    }
    ColumnSelection::Only(wanted)
}
