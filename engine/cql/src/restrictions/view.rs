//! The WHERE clause of a materialized view: which rows of the base it has.
//!
//! It restricts key columns of the view only, so whether a row is in the view depends on its key there alone: a row never
//! leaves a view but by a change of that key.

use super::filter::{Filter, ReadyFilter};
use super::merge::Merged;
use super::{StatementKind, relation};
use crate::CqlError;
use crate::ast::{Operator, RelationSubject, WhereClause};
use crate::bound::BindVariables;
use crate::expression::Evaluation;
use crate::plan::{PlanContext, RandomSource};
use crate::prepare::{Preparation, UsedFunctions};
use bytes::Bytes;
use ceto_model::view::BaseKey;
use ceto_model::{CellState, ColumnData, ColumnKind, Row, Schema, Table, Token};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Nothing random may be in a view's definition.
struct NoRandomness;

impl RandomSource for NoRandomness {
    fn next_u64(&self) -> u64 {
        0
    }
}

/// Decides which rows of a base table are in a view.
#[derive(Clone, Debug)]
pub struct ViewFilter {
    base: Arc<Table>,
    filters: Vec<ReadyFilter>,
}

/// A prepared clause, and which columns it restricts, by index in the base.
pub(crate) struct ViewRestrictions {
    pub(crate) filter: ViewFilter,
    /// By IS NOT NULL or otherwise.
    pub(crate) restricted: BTreeSet<usize>,
    /// Otherwise than by IS NOT NULL.
    pub(crate) filtered: BTreeSet<usize>,
}

impl ViewRestrictions {
    /// Prepares a clause on `base`.
    pub(crate) fn prepare(
        schema: &Schema,
        base: &Arc<Table>,
        clause: &WhereClause,
    ) -> Result<ViewRestrictions, CqlError> {
        let mut preparation = Preparation {
            schema,
            keyspace: Some(&base.keyspace),
            variables: BindVariables::new(Vec::new()),
            table: Some(base.clone()),
            used: UsedFunctions::default(),
        };
        let mut merged = Merged::default();
        let mut restricted = BTreeSet::new();
        for relation in &clause.relations {
            if relation.operator == Operator::IsNotNull {
                let RelationSubject::Column(name) = &relation.subject else {
                    return Err(CqlError::Invalid(format!("Unsupported restriction: {relation}")));
                };
                let index = base.column_index(name);
                restricted.insert(index.ok_or_else(|| crate::expression::undefined_column(base, name))?);
                continue;
            }
            if relation.operator == Operator::NotEqual {
                return Err(relation::unsupported(relation));
            }
            let kind = StatementKind::Select {
                allow_filtering: true,
            };
            relation::prepare(&mut preparation, base, relation, kind, &mut merged)?;
        }
        if !preparation.used.is_empty() {
            return Err(CqlError::invalid(
                "User-defined functions cannot be used in the WHERE clause of a materialized view",
            ));
        }
        let filtered: BTreeSet<usize> = merged.columns().collect();
        restricted.extend(&filtered);
        let mut filters: Vec<Filter> = Vec::new();
        merged.into_filters(&mut filters);
        let context = PlanContext::new(0, &NoRandomness);
        let evaluation = Evaluation::new(&[], &context);
        let ready = filters.iter().map(|filter| filter.ready(base, &evaluation));
        Ok(ViewRestrictions {
            filter: ViewFilter {
                base: base.clone(),
                filters: ready.collect::<Result<_, _>>()?,
            },
            restricted,
            filtered,
        })
    }
}

impl ViewFilter {
    /// Of a view of `base` with this clause, as it is stored.
    pub fn new(schema: &Schema, base: &Arc<Table>, where_clause: &str) -> Result<ViewFilter, CqlError> {
        let clause = crate::parse_where_clause(where_clause)?;
        Ok(ViewRestrictions::prepare(schema, base, &clause)?.filter)
    }

    /// Lets every row pass that has its key.
    pub fn is_trivial(&self) -> bool {
        self.filters.is_empty()
    }

    /// The row is in the view.
    pub fn accepts(&self, key: &BaseKey, row: &Row) -> bool {
        let value = |index: usize| -> Result<Option<Bytes>, CqlError> {
            let Some(column) = self.base.columns().get(index) else {
                return Ok(None);
            };
            let position = usize::from(column.position);
            Ok(match column.kind {
                ColumnKind::PartitionKey => key.partition.get(position).cloned(),
                ColumnKind::Clustering => key.clustering.get(position).cloned(),
                ColumnKind::Static => None,
                ColumnKind::Regular => match row.column(column.id) {
                    Some(ColumnData::Cell(cell)) => match &cell.state {
                        CellState::Live(value) | CellState::Expiring { value, .. } => Some(value.clone()),
                        CellState::Tombstone { .. } => None,
                    },
                    _ => None,
                },
            })
        };
        self.filters
            .iter()
            .all(|filter| filter.accepts(Token(0), &value).unwrap_or(false))
    }
}
