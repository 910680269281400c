//! Groups: rows that become one row of the result, by GROUP BY or because of an aggregate.
//!
//! What a group's row shows beside aggregates is taken from the group's first row.

use super::row_view::RowView;
use crate::ast::CellMetadata;
use crate::expression::{AggregateCall, Evaluation, Expression, RowSource};
use crate::functions::Accumulator;
use crate::plan::PlanContext;
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::{ClusteringKey, DecoratedKey};

/// The group that is being read.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// What its rows agree in: clustering columns, encoded or decoded.
    pub(crate) prefix: Vec<u8>,
    /// By column of ORDER BY over several partitions: its value in the first row.
    pub(crate) order: Vec<Option<Bytes>>,
    accumulators: Vec<Accumulator>,
    /// By selector: its value in the first row, unless it needs aggregates.
    first: Vec<Option<Bytes>>,
    /// By column that a selector with aggregates uses: its value in the first row.
    snapshot: Vec<(usize, Option<Bytes>)>,
    /// Its last row so far; None: that was a partition without rows.
    pub(crate) last: Option<(DecoratedKey, Option<ClusteringKey>)>,
}

impl Group {
    /// Without rows.
    pub(crate) fn new(expressions: &[Expression], aggregates: &[AggregateCall]) -> Self {
        Self {
            prefix: Vec::new(),
            order: Vec::new(),
            accumulators: aggregates
                .iter()
                .map(|call| Accumulator::new(&call.function))
                .collect(),
            first: vec![None; expressions.len()],
            snapshot: Vec::new(),
            last: None,
        }
    }

    /// The first row.
    pub(crate) fn start(
        &mut self,
        expressions: &[Expression],
        evaluation: &Evaluation<'_>,
    ) -> Result<(), CqlError> {
        for (slot, expression) in self.first.iter_mut().zip(expressions) {
            if !has_aggregate(expression) {
                *slot = expression.value(evaluation)?;
                continue;
            }
            let mut columns = Vec::new();
            expression.visit(&mut |inner| {
                if let Expression::Column(column) = inner {
                    columns.push(*column);
                }
            });
            for column in columns {
                let value = Expression::Column(column).value(evaluation)?;
                self.snapshot.push((column, value));
            }
        }
        Ok(())
    }

    /// Any row.
    pub(crate) fn add(
        &mut self,
        aggregates: &[AggregateCall],
        evaluation: &Evaluation<'_>,
    ) -> Result<(), CqlError> {
        for (accumulator, call) in self.accumulators.iter_mut().zip(aggregates) {
            let arguments: Result<Vec<_>, _> = call
                .arguments
                .iter()
                .map(|argument| argument.value(evaluation))
                .collect();
            accumulator.add(&call.function, arguments?, evaluation.context)?;
        }
        Ok(())
    }

    /// The row of the result.
    pub(crate) fn finish(
        &self,
        expressions: &[Expression],
        aggregates: &[AggregateCall],
        values: &[BoundValue],
        context: &PlanContext<'_>,
    ) -> Result<Vec<Option<Bytes>>, CqlError> {
        let results = self.accumulators.iter().zip(aggregates);
        let results: Result<Vec<_>, _> = results
            .map(|(accumulator, call)| accumulator.finish(&call.function, context))
            .collect();
        let source = GroupRow {
            snapshot: &self.snapshot,
            aggregates: results?,
        };
        let evaluation = Evaluation {
            values,
            context,
            row: Some(&source),
        };
        let pairs = expressions.iter().zip(&self.first);
        pairs
            .map(|(expression, first)| match has_aggregate(expression) {
                true => expression.value(&evaluation),
                false => Ok(first.clone()),
            })
            .collect()
    }
}

fn has_aggregate(expression: &Expression) -> bool {
    let mut found = false;
    expression.visit(&mut |inner| found |= matches!(inner, Expression::Aggregate(_)));
    found
}

/// What is left of a group when all its rows have been seen.
struct GroupRow<'a> {
    snapshot: &'a [(usize, Option<Bytes>)],
    aggregates: Vec<Option<Bytes>>,
}

impl RowSource for GroupRow<'_> {
    fn value(&self, column: usize) -> Result<Option<Bytes>, CqlError> {
        let found = self.snapshot.iter().find(|(own, _)| *own == column);
        Ok(found.and_then(|(_, value)| value.clone()))
    }

    fn metadata(&self, _: usize, _: CellMetadata, _: Option<&[u8]>) -> Vec<Option<i64>> {
        Vec::new()
    }

    fn is_multicell(&self, _: usize) -> bool {
        false
    }

    fn aggregate(&self, index: usize) -> Option<Bytes> {
        self.aggregates.get(index).cloned().flatten()
    }
}

/// The clustering columns that a group's rows agree in, told apart by their lengths.
pub(crate) fn prefix_of(view: &RowView<'_>, clustering_columns: usize) -> Vec<u8> {
    let mut prefix = Vec::new();
    for position in 0..clustering_columns {
        let column = view.keys.clustering_column(position);
        prefix.extend_from_slice(
            &column
                .map_or(u32::MAX, |column| column.len() as u32)
                .to_be_bytes(),
        );
        prefix.extend_from_slice(column.unwrap_or_default());
    }
    prefix
}
