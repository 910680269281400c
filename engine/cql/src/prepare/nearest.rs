//! ORDER BY column ANN OF vector: the rows whose vectors are most like a given one.
//!
//! A statement of this kind has a LIMIT, no pages, no groups and no other order, and restricts only what other indexes or
//! the primary key find (Cassandra's rules, and its messages).

use super::Preparation;
use crate::ast::{OrderingKind, Select};
use crate::expression::{Evaluation, Expression, prepare_term};
use crate::restrictions::present;
use crate::{BoundValue, ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::schema::{Similarity, floats};
use ceto_model::{CqlType, Index, Table};
use std::sync::Arc;

/// Largest LIMIT.
const LIMIT_MAX: u64 = 1000;
/// A vector is as good as zero when all its numbers are this small.
const NEARLY_ZERO: f32 = 1e-6;

/// What is not found by an index or the primary key.
pub(crate) const NEEDS_INDEXES: &str =
    "ANN ordering by vector requires all restricted column(s) to be indexed";

/// The order by similarity.
#[derive(Clone, Debug)]
pub(crate) struct Nearest {
    /// Index of the vectors' column in the table.
    pub(crate) column: usize,
    pub(crate) index: Arc<Index>,
    pub(crate) similarity: Similarity,
    pub(crate) dimension: usize,
    vector: Expression,
}

impl Nearest {
    /// Of a statement that asks for it.
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Table,
        select: &Select,
    ) -> Result<Option<Nearest>, CqlError> {
        let is_nearest = |kind: &OrderingKind| matches!(kind, OrderingKind::NearestTo(_));
        let mut orderings = select.order_by.iter();
        let Some(ordering) = orderings.find(|ordering| is_nearest(&ordering.kind)) else {
            return Ok(None);
        };
        let OrderingKind::NearestTo(vector) = &ordering.kind else {
            return Ok(None);
        };
        let column = table
            .column_index(&ordering.column)
            .ok_or_else(|| crate::expression::undefined_column(table, &ordering.column))?;
        let refuse = |text| Err(CqlError::invalid(text));
        if select
            .order_by
            .iter()
            .filter(|ordering| is_nearest(&ordering.kind))
            .count()
            > 1
        {
            return refuse("Cannot specify more than one ANN ordering");
        }
        if select.order_by.len() > 1 {
            return refuse("ANN ordering does not support any other ordering");
        }
        if ordering.descending {
            return refuse("Descending ANN ordering is not supported");
        }
        let definition = &table.columns()[column];
        let (CqlType::Vector { element, .. }, name) = (&definition.cql_type, &definition.name) else {
            return refuse("ANN ordering is only supported on float vector indexes");
        };
        if **element != CqlType::Float {
            return refuse("ANN ordering is only supported on float vector indexes");
        }
        let mut indexes = table
            .indexes()
            .iter()
            .filter(|index| index.definition.column == *name);
        let Some((index, (_, dimension, similarity))) =
            indexes.find_map(|index| Some((index.clone(), index.vectors()?)))
        else {
            return refuse("ANN ordering by vector requires the column to be indexed");
        };
        if select.limit.is_none() {
            return refuse(
                "Top-K queries must have a limit specified and the limit must be less than the query page size",
            );
        }
        if select.per_partition_limit.is_some() {
            return refuse("Top-K queries do not support per-partition limits");
        }
        let receiver = ColumnSpecification::new(table, name.clone(), definition.cql_type.clone());
        Ok(Some(Nearest {
            column,
            index,
            similarity,
            dimension,
            vector: prepare_term(preparation, vector, &receiver)?,
        }))
    }

    /// The vector that rows are to be like, as on the wire and as numbers.
    pub(crate) fn vector(&self, evaluation: &Evaluation<'_>) -> Result<(Bytes, Vec<f32>), CqlError> {
        let name = &self.index.definition.column;
        let wire = match self.vector.evaluate(evaluation)? {
            BoundValue::Null => {
                return Err(CqlError::Invalid(format!(
                    "Unsupported null value for column {name}"
                )));
            }
            value => present(value, name)?,
        };
        let numbers = floats(&wire, self.dimension).ok_or_else(|| {
            CqlError::Invalid(format!(
                "Invalid vector for column {name}: not of {} floats",
                self.dimension
            ))
        })?;
        check_vector(&numbers, self.similarity)?;
        Ok((wire, numbers))
    }

    /// Refuses a LIMIT that is too large.
    pub(crate) fn check_limit(&self, rows: u64) -> Result<(), CqlError> {
        if rows <= LIMIT_MAX {
            return Ok(());
        }
        let limit = match rows {
            u64::MAX => "NO LIMIT".to_owned(),
            rows => rows.to_string(),
        };
        Err(CqlError::Invalid(format!(
            "Use of ANN OF in an ORDER BY clause requires a LIMIT that is not greater than {LIMIT_MAX}. LIMIT was {limit}"
        )))
    }
}

/// Refuses what cannot be compared.
pub(crate) fn check_vector(vector: &[f32], similarity: Similarity) -> Result<(), CqlError> {
    if let Some((at, number)) = vector.iter().enumerate().find(|(_, number)| !number.is_finite()) {
        return Err(CqlError::Invalid(format!(
            "Out-of-bounds value at vector[{at}]={number}"
        )));
    }
    if similarity == Similarity::Cosine && vector.iter().all(|number| number.abs() <= NEARLY_ZERO) {
        return Err(CqlError::invalid(
            "Zero and near-zero vectors cannot be indexed or queried with cosine similarity",
        ));
    }
    Ok(())
}

/// Refuses restrictions on a column that has only an index of vectors.
pub(crate) fn check_restricted(
    table: &Table,
    columns: impl IntoIterator<Item = usize>,
) -> Result<(), CqlError> {
    let has_vectors = |name: &str| {
        let indexes = table.indexes().iter();
        let mut of_column = indexes.filter(|index| *index.definition.column == *name);
        of_column.any(|index| index.vectors().is_some())
    };
    let mut columns = columns.into_iter().filter_map(|at| table.columns().get(at));
    match columns.any(|column| has_vectors(&column.name)) {
        true => Err(CqlError::invalid("Vector indexes only support ANN queries")),
        false => Ok(()),
    }
}
