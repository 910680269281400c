//! Restrictions of leading clustering columns: steps, and the slices that they come to once there are values.
//!
//! A step fixes the next columns (by = or IN) or, as the last one, bounds them. All is computed in the encoding of
//! `comparable`, where a prefix and one byte make a bound.
//!
//! Columns of mixed order need care: `(a, b) > (1, 2)` with `b` descending is no interval. Such a bound is taken apart
//! into one interval per column: `a > 1`, and `a = 1 AND b > 2`.

use super::filter::Filter;
use super::merge::{Bound, Demand, Merged};
use super::{Components, InValues, StatementKind, TupleValue, present};
use crate::expression::{Evaluation, Expression, of_value};
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::comparable::{BOUND_AFTER, BOUND_BEFORE, KEY_END, encode_component};
use ceto_model::key::KEY_SIZE_MAX;
use ceto_model::value::wire::{Elements, take_value};
use ceto_model::{ClusteringKey, Column, CqlType, Position, Slice, Table};
use smallvec::SmallVec;
use std::sync::Arc;

/// Clustering prefixes that one statement may name at most: the product of its IN lists.
const CLUSTERING_PREFIXES_MAX: usize = 100_000;

/// Which rows of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusteringRestrictions {
    steps: Vec<Step>,
    /// Number of columns that the steps fix, without those of a slice.
    fixed: usize,
    /// Number of clustering columns.
    total: usize,
    /// UPDATE of a dense table: a prefix of the columns is a row's whole key.
    names_short_rows: bool,
}

/// One restriction of the next columns.
#[derive(Clone, Debug)]
enum Step {
    /// `a = 1`
    Equal(StepColumn, Expression),
    /// `a IN (1, 2)`
    In(StepColumn, InValues<Expression>),
    /// `(a, b) = (1, 2)`
    EqualTuple(Vec<StepColumn>, TupleValue),
    /// `(a, b) IN ((1, 2), (3, 4))`
    InTuples(Vec<StepColumn>, InValues<TupleValue>),
    /// `a > 1`, `(a, b) > (1, 2)`; always the last.
    Slice {
        columns: Vec<StepColumn>,
        lower: Option<Bound<TupleValue>>,
        upper: Option<Bound<TupleValue>>,
    },
}

#[derive(Clone, Debug)]
struct StepColumn {
    name: Arc<str>,
    cql_type: CqlType,
    descending: bool,
    /// Values beyond the limit of keys are refused. A read has none: it just does not find them.
    limits_size: bool,
}

/// An encoded prefix of a clustering key.
type Prefix = SmallVec<[u8; 64]>;

/// What the restrictions come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Rows {
    /// One row.
    Row(ClusteringKey),
    /// All rows between two bounds.
    Slice(Slice),
}

impl ClusteringRestrictions {
    /// Takes the restrictions that can become slices out of `merged`.
    pub(super) fn prepare(
        table: &Table,
        merged: &mut Merged,
        kind: StatementKind,
        only_statics: bool,
        filters: &[Filter],
    ) -> Result<Self, CqlError> {
        let first = table.partition_key().len();
        let columns = table.clustering();
        let allow_filtering = kind
            == (StatementKind::Select {
                allow_filtering: true,
            });
        if !allow_filtering {
            check_contains(table, merged, filters)?;
        }
        let mut restrictions = Self {
            total: columns.len(),
            ..Self::default()
        };
        restrictions.names_short_rows = kind == StatementKind::Update && table.is_dense();
        let limits_size = !matches!(kind, StatementKind::Select { .. });
        let mut sliced: Option<&Column> = None;
        while let Some(column) = columns.get(restrictions.fixed) {
            let index = first + restrictions.fixed;
            let of = |indices: &[usize]| -> Vec<StepColumn> {
                let columns = indices.iter().filter_map(|index| table.columns().get(*index));
                columns
                    .map(|column| StepColumn::new(column, limits_size))
                    .collect()
            };
            if let Some(demand) = merged.take_single(index) {
                let step = match demand {
                    Demand::Equal(value) => Step::Equal(StepColumn::new(column, limits_size), value),
                    Demand::In(values) => Step::In(StepColumn::new(column, limits_size), values),
                    Demand::Slice { lower, upper } => {
                        sliced = Some(column);
                        let tuple = |bound: Bound<Expression>| Bound {
                            value: TupleValue::Elements(vec![bound.value]),
                            inclusive: bound.inclusive,
                        };
                        Step::Slice {
                            columns: vec![StepColumn::new(column, limits_size)],
                            lower: lower.map(tuple),
                            upper: upper.map(tuple),
                        }
                    }
                };
                restrictions.fixed += usize::from(sliced.is_none());
                restrictions.steps.push(step);
            } else if let Some((indices, demand)) = merged.take_multi(index) {
                let columns = of(&indices);
                restrictions.steps.push(match demand {
                    Demand::Equal(value) => Step::EqualTuple(columns, value),
                    Demand::In(values) => Step::InTuples(columns, values),
                    Demand::Slice { lower, upper } => {
                        sliced = Some(column);
                        Step::Slice {
                            columns,
                            lower,
                            upper,
                        }
                    }
                });
                restrictions.fixed += if sliced.is_none() { indices.len() } else { 0 };
            } else {
                break;
            }
            if sliced.is_some() {
                break;
            }
        }
        restrictions.check_complete(table, merged, kind, only_statics, sliced)?;
        Ok(restrictions)
    }

    fn check_complete(
        &self,
        table: &Table,
        merged: &Merged,
        kind: StatementKind,
        only_statics: bool,
        sliced: Option<&Column>,
    ) -> Result<(), CqlError> {
        let first = table.partition_key().len();
        let is_clustering = |index: &usize| (first..first + self.total).contains(index);
        let left = merged.columns().filter(is_clustering).min();
        let left = left.and_then(|index| table.columns().get(index));
        if kind == StatementKind::Update {
            if sliced.is_some() {
                return Err(CqlError::invalid(
                    "Slice restrictions are not supported on the clustering columns in UPDATE statements",
                ));
            }
            if !only_statics && !self.names_rows() {
                let missing: Vec<&str> = table
                    .clustering()
                    .iter()
                    .skip(self.fixed)
                    .map(|column| &*column.name)
                    .collect();
                if left.is_none() {
                    return Err(CqlError::Invalid(format!(
                        "Some clustering keys are missing: {}",
                        missing.join(", ")
                    )));
                }
            }
        }
        let allow_filtering = kind
            == (StatementKind::Select {
                allow_filtering: true,
            });
        match (left, sliced) {
            (Some(column), _)
                if merged
                    .filters
                    .iter()
                    .any(|f| f.columns == [first + usize::from(column.position)]) =>
            {
                Ok(())
            }
            (Some(column), Some(sliced)) if !allow_filtering => Err(CqlError::Invalid(format!(
                "Clustering column \"{}\" cannot be restricted (preceding column \"{}\" is restricted by a non-EQ \
                 relation)",
                column.name, sliced.name
            ))),
            (Some(column), None) if !allow_filtering => {
                let preceding = table
                    .clustering()
                    .get(self.fixed)
                    .map_or("", |column| &*column.name);
                Err(CqlError::Invalid(format!(
                    "PRIMARY KEY column \"{}\" cannot be restricted as preceding column \"{preceding}\" is not restricted",
                    column.name
                )))
            }
            _ => Ok(()),
        }
    }

    /// No clustering column is bounded or fixed.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// All clustering columns are fixed: the restriction names rows.
    pub(crate) fn names_rows(&self) -> bool {
        self.fixed == self.total || self.names_short_rows && self.fixed > 0
    }

    /// Some column is restricted by IN.
    pub(crate) fn has_in(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::In(..) | Step::InTuples(..)))
    }

    /// The clustering column at this position has one value in all rows.
    pub(crate) fn is_equal(&self, position: usize) -> bool {
        let mut at = 0;
        for step in &self.steps {
            let (width, is_equal) = match step {
                Step::Equal(..) => (1, true),
                Step::In(..) => (1, false),
                Step::EqualTuple(columns, _) => (columns.len(), true),
                Step::InTuples(columns, _) | Step::Slice { columns, .. } => (columns.len(), false),
            };
            if (at..at + width).contains(&position) {
                return is_equal;
            }
            at += width;
        }
        false
    }

    /// The prefix that all rows have, when the steps do no more than fix columns; None: they do more.
    fn single_prefix(&self, evaluation: &Evaluation<'_>) -> Result<Option<Prefix>, CqlError> {
        let mut prefix = Prefix::new();
        for step in &self.steps {
            let Step::Equal(column, value) = step else {
                return Ok(None);
            };
            column.encode(&present(value.evaluate(evaluation)?, &column.name)?, &mut prefix)?;
        }
        Ok(Some(prefix))
    }

    /// The rows, in clustering order, disjoint.
    pub(crate) fn rows(&self, evaluation: &Evaluation<'_>) -> Result<SmallVec<[Rows; 1]>, CqlError> {
        if let Some(mut prefix) = self.single_prefix(evaluation)? {
            if !self.names_rows() {
                return Ok(SmallVec::from_buf([Rows::Slice(around(&prefix))]));
            }
            prefix.push(KEY_END);
            return Ok(SmallVec::from_buf([Rows::Row(row_key(&prefix))]));
        }
        let mut prefixes: SmallVec<[Prefix; 1]> = SmallVec::from_buf([Prefix::new()]);
        let mut slice = None;
        for step in &self.steps {
            match step {
                Step::Equal(column, value) => {
                    let value = present(value.evaluate(evaluation)?, &column.name)?;
                    for prefix in &mut prefixes {
                        column.encode(&value, prefix)?;
                    }
                }
                Step::EqualTuple(columns, tuple) => {
                    let values = tuple.evaluate(evaluation, columns)?;
                    for prefix in &mut prefixes {
                        encode_all(columns, &values, prefix)?;
                    }
                }
                Step::In(column, values) => {
                    let values = values.evaluate(evaluation, &column.name)?;
                    let column = std::slice::from_ref(column);
                    let tuples = values
                        .into_iter()
                        .map(|value| SmallVec::from_iter([value]))
                        .collect();
                    prefixes = product(&prefixes, column, tuples)?;
                }
                Step::InTuples(columns, values) => {
                    prefixes = product(&prefixes, columns, values.evaluate_tuples(evaluation, columns)?)?;
                }
                Step::Slice {
                    columns,
                    lower,
                    upper,
                } => slice = Some((columns, lower, upper)),
            }
        }
        if prefixes.len() > 1 {
            prefixes.sort();
            prefixes.dedup();
        }
        if let Some((columns, lower, upper)) = slice {
            let evaluate = |bound: &Option<Bound<TupleValue>>| {
                let evaluated = bound.as_ref().map(|bound| {
                    Ok(Bound {
                        value: bound.value.evaluate(evaluation, columns)?,
                        inclusive: bound.inclusive,
                    })
                });
                evaluated.transpose()
            };
            let (lower, upper): (Option<Bound<Components>>, _) = (evaluate(lower)?, evaluate(upper)?);
            let mut rows = SmallVec::new();
            for prefix in &prefixes {
                bounded(columns, prefix, lower.as_ref(), upper.as_ref(), &mut rows)?;
            }
            return Ok(rows);
        }
        let names_rows = self.names_rows();
        let rows = prefixes.into_iter().map(|mut prefix| {
            if names_rows {
                prefix.push(KEY_END);
                return Rows::Row(row_key(&prefix));
            }
            Rows::Slice(around(&prefix))
        });
        Ok(rows.collect())
    }

    /// As [`Self::rows`], as slices.
    pub(crate) fn slices(&self, evaluation: &Evaluation<'_>) -> Result<ceto_model::read::Slices, CqlError> {
        if self.is_empty() {
            return Ok(SmallVec::from_buf([Slice::full()]));
        }
        if let Some(prefix) = self.single_prefix(evaluation)? {
            return Ok(SmallVec::from_buf([around(&prefix)]));
        }
        let rows = self.rows(evaluation)?;
        Ok(rows
            .into_iter()
            .map(|rows| match rows {
                Rows::Slice(slice) => slice,
                Rows::Row(key) => around(key.0.get(..key.0.len().saturating_sub(1)).unwrap_or_default()),
            })
            .collect())
    }
}

/// `a CONTAINS 1` on a clustering column needs ALLOW FILTERING; where a slice comes before, that is what is told.
fn check_contains(table: &Table, merged: &Merged, filters: &[Filter]) -> Result<(), CqlError> {
    let first = table.partition_key().len();
    let range = first..first + table.clustering().len();
    let all = merged.filters.iter().chain(filters);
    let mut contained = all
        .flat_map(|filter| &filter.columns)
        .filter(|index| range.contains(index));
    let Some(index) = contained.next() else {
        return Ok(());
    };
    let name = |index: usize| table.columns().get(index).map_or("", |column| &column.name);
    let mut sliced = merged.sliced_columns();
    if let Some(sliced) = sliced.find(|sliced| range.contains(sliced) && sliced < index) {
        return Err(CqlError::Invalid(format!(
            "Clustering column \"{}\" cannot be restricted (preceding column \"{}\" is restricted by a non-EQ relation)",
            name(*index),
            name(sliced)
        )));
    }
    Err(CqlError::invalid(
        "Clustering columns can only be restricted with CONTAINS with a secondary index or filtering",
    ))
}

/// An encoded key. That of tables without clustering columns is always the same.
pub(crate) fn row_key(encoded: &[u8]) -> ClusteringKey {
    ClusteringKey(match encoded {
        [KEY_END] => Bytes::from_static(&[KEY_END]),
        other => Bytes::copy_from_slice(other),
    })
}

/// Every key with this prefix: one allocation holds both bounds.
fn around(prefix: &[u8]) -> Slice {
    let mut bytes = Vec::with_capacity(2 * prefix.len() + 2);
    bytes.extend_from_slice(prefix);
    bytes.push(BOUND_BEFORE);
    bytes.extend_from_slice(prefix);
    bytes.push(BOUND_AFTER);
    let bytes = Bytes::from(bytes);
    Slice {
        start: Position(bytes.slice(..=prefix.len())),
        end: Position(bytes.slice(prefix.len() + 1..)),
    }
}

fn position(prefix: &[u8], last: u8) -> Position {
    let mut bytes = Vec::with_capacity(prefix.len() + 1);
    bytes.extend_from_slice(prefix);
    bytes.push(last);
    Position(bytes.into())
}

/// Each prefix with each of the tuples.
fn product(
    prefixes: &[Prefix],
    columns: &[StepColumn],
    tuples: Vec<Components>,
) -> Result<SmallVec<[Prefix; 1]>, CqlError> {
    if prefixes.len().saturating_mul(tuples.len()) > CLUSTERING_PREFIXES_MAX {
        return Err(too_many(CLUSTERING_PREFIXES_MAX));
    }
    let mut longer = SmallVec::with_capacity(prefixes.len() * tuples.len());
    for prefix in prefixes {
        for tuple in &tuples {
            let mut prefix = prefix.clone();
            encode_all(columns, tuple, &mut prefix)?;
            longer.push(prefix);
        }
    }
    Ok(longer)
}

/// IN lists whose product is beyond the bound.
pub(super) fn too_many(maximum: usize) -> CqlError {
    CqlError::Invalid(format!(
        "The IN restrictions of the query come to more combinations than the maximum of {maximum}"
    ))
}

fn encode_all(columns: &[StepColumn], values: &[Bytes], prefix: &mut Prefix) -> Result<(), CqlError> {
    columns
        .iter()
        .zip(values)
        .try_for_each(|(column, value)| column.encode(value, prefix))
}

/// Appends the slices of the rows after `prefix` between the bounds, in clustering order.
fn bounded(
    columns: &[StepColumn],
    prefix: &Prefix,
    lower: Option<&Bound<Components>>,
    upper: Option<&Bound<Components>>,
    out: &mut SmallVec<[Rows; 1]>,
) -> Result<(), CqlError> {
    let whole = || vec![around(prefix)];
    let lower = lower.map_or_else(|| Ok(whole()), |bound| beyond(columns, prefix, bound, true))?;
    let upper = upper.map_or_else(|| Ok(whole()), |bound| beyond(columns, prefix, bound, false))?;
    let mut slices: Vec<Slice> = Vec::new();
    for a in &lower {
        for b in &upper {
            let slice = Slice {
                start: a.start.clone().max(b.start.clone()),
                end: a.end.clone().min(b.end.clone()),
            };
            if !slice.is_empty() {
                slices.push(slice);
            }
        }
    }
    slices.sort_by(|a, b| a.start.cmp(&b.start));
    out.extend(slices.into_iter().map(Rows::Slice));
    Ok(())
}

/// The slices of what is greater (or less) than a bound, disjoint: of each column with all before it equal.
fn beyond(
    columns: &[StepColumn],
    prefix: &Prefix,
    bound: &Bound<Components>,
    greater: bool,
) -> Result<Vec<Slice>, CqlError> {
    let used: Vec<_> = columns.iter().zip(&bound.value).collect();
    let uniform = used
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.0.descending == b.0.descending));
    let mut slices = Vec::new();
    let mut equal = prefix.clone();
    let mut outer = prefix.clone();
    for (index, (column, value)) in used.iter().enumerate() {
        let is_last = index + 1 == used.len();
        column.encode(value, &mut equal)?;
        if uniform && !is_last {
            // One interval does: only its end matters.
            continue;
        }
        if uniform {
            outer = prefix.clone();
        }
        let inclusive = is_last && bound.inclusive;
        // In the order of the encoding, greater values come before in a descending column.
        slices.push(if greater != column.descending {
            Slice {
                start: position(&equal, if inclusive { BOUND_BEFORE } else { BOUND_AFTER }),
                end: position(&outer, BOUND_AFTER),
            }
        } else {
            Slice {
                start: position(&outer, BOUND_BEFORE),
                end: position(&equal, if inclusive { BOUND_AFTER } else { BOUND_BEFORE }),
            }
        });
        outer = equal.clone();
    }
    Ok(slices)
}

impl StepColumn {
    fn new(column: &Column, limits_size: bool) -> Self {
        Self {
            limits_size,
            name: column.name.clone(),
            cql_type: column.cql_type.clone(),
            descending: column.descending,
        }
    }

    fn encode(&self, value: &[u8], prefix: &mut Prefix) -> Result<(), CqlError> {
        if self.limits_size && value.len() > KEY_SIZE_MAX {
            return Err(key_too_long(value.len()));
        }
        encode_component(&self.cql_type, self.descending, value, prefix).map_err(of_value)
    }
}

/// A clustering value beyond the limit.
pub(crate) fn key_too_long(length: usize) -> CqlError {
    CqlError::Invalid(format!(
        "Key length of {length} is longer than maximum of {KEY_SIZE_MAX}"
    ))
}

impl TupleValue {
    fn evaluate(&self, evaluation: &Evaluation<'_>, columns: &[StepColumn]) -> Result<Components, CqlError> {
        match self {
            Self::Elements(elements) => {
                let pairs = elements.iter().zip(columns);
                pairs
                    .map(|(value, column)| present(value.evaluate(evaluation)?, &column.name))
                    .collect()
            }
            Self::Whole { tuple, count } => {
                let names = || columns.iter().map(|c| &*c.name).collect::<Vec<_>>().join(", ");
                let wire = present(tuple.evaluate(evaluation)?, &format!("({})", names()))?;
                split_tuple(&wire, *count, &names())
            }
        }
    }
}

/// The elements of a tuple, none of them null.
pub(crate) fn split_tuple(wire: &Bytes, count: usize, names: &str) -> Result<Components, CqlError> {
    let mut rest: &[u8] = wire;
    let mut elements = Components::new();
    while !rest.is_empty() {
        match take_value(&mut rest) {
            Some(Some(element)) => elements.push(wire.slice_ref(element)),
            Some(None) => {
                return Err(CqlError::Invalid(format!(
                    "Invalid null value in condition for columns: ({names})"
                )));
            }
            None => return Err(CqlError::invalid("Not enough bytes to read a tuple")),
        }
    }
    if elements.len() > count {
        return Err(CqlError::Invalid(format!(
            "Expected {count} elements in value tuple, but got {}",
            elements.len()
        )));
    }
    Ok(elements)
}

impl InValues<Expression> {
    /// The values; null and unset are refused.
    pub(crate) fn evaluate(&self, evaluation: &Evaluation<'_>, column: &str) -> Result<Vec<Bytes>, CqlError> {
        match self {
            Self::List(values) => values
                .iter()
                .map(|value| present(value.evaluate(evaluation)?, column))
                .collect(),
            Self::Bound { list, element } => bound_list(list, element, evaluation, column),
        }
    }
}

impl InValues<TupleValue> {
    fn evaluate_tuples(
        &self,
        evaluation: &Evaluation<'_>,
        columns: &[StepColumn],
    ) -> Result<Vec<Components>, CqlError> {
        match self {
            Self::List(tuples) => tuples
                .iter()
                .map(|tuple| tuple.evaluate(evaluation, columns))
                .collect(),
            Self::Bound { list, element } => {
                let names = columns.iter().map(|c| &*c.name).collect::<Vec<_>>().join(", ");
                let tuples = bound_list(list, element, evaluation, &names)?;
                tuples
                    .iter()
                    .map(|tuple| split_tuple(tuple, columns.len(), &names))
                    .collect()
            }
        }
    }
}

/// The elements of a bound list.
pub(super) fn bound_list(
    list: &Expression,
    element: &CqlType,
    evaluation: &Evaluation<'_>,
    column: &str,
) -> Result<Vec<Bytes>, CqlError> {
    let wire = match list.evaluate(evaluation)? {
        BoundValue::Bytes(wire) => wire,
        BoundValue::Null => {
            return Err(CqlError::Invalid(format!(
                "Invalid null value for in condition for column {column}"
            )));
        }
        BoundValue::Unset => {
            return Err(CqlError::Invalid(format!(
                "Invalid unset value for column {column}"
            )));
        }
    };
    let list_type = CqlType::List {
        element: Arc::new(element.clone()),
        frozen: false,
    };
    let elements = Elements::new(&list_type, &wire).map_err(of_value)?;
    elements
        .map(|bytes| bytes.map(|bytes| wire.slice_ref(bytes)).map_err(of_value))
        .collect()
}
