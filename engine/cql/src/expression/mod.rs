//! Typed expressions: what a term or selectable computes once types and functions are known.
//!
//! [`typing`] makes them from syntax; here they are evaluated over bound values and, in SELECT, over a row. Sharing is
//! by reference: an expression never changes after it was made, and evaluating a bind variable or a column copies no
//! bytes.
//!
//! Never: knows where rows come from; that is behind [`RowSource`].

mod access;
mod arithmetic;
mod assignment;
mod cast;
mod element;
mod literal;
pub(crate) mod number;
mod raw;
mod typing;

pub(crate) use arithmetic::decimals;
pub(crate) use assignment::Assignment;
pub(crate) use element::{element_of, field_of, find_field, key_and_value, path_of, vector_elements};
pub(crate) use raw::Raw;
pub(crate) use typing::{AggregateCall, Partial, Typing, prepare_term, undefined_column};

use crate::ast::{ArithmeticOperator, CellMetadata};
use crate::functions::ScalarFunction;
use crate::plan::PlanContext;
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::value::wire::{pack_collection, put_unsigned_vint, put_value, vector_element_size};
use ceto_model::value::{ValueError, canonical};
use std::sync::Arc;

/// Something that has a value.
#[derive(Clone, Debug)]
pub(crate) enum Expression {
    /// A constant in wire bytes, or null.
    Constant(Option<Bytes>),
    /// The value of a bind variable.
    Bind(usize),
    /// A column of the present row, by index in [`ceto_model::Table::columns`].
    Column(usize),
    /// The result of an aggregate over the present group.
    Aggregate(usize),
    /// writetime, maxwritetime or ttl.
    CellMetadata {
        kind: CellMetadata,
        column: usize,
        part: CellPart,
    },
    /// A scalar function.
    Function {
        function: Arc<ScalarFunction>,
        arguments: Vec<Expression>,
    },
    /// A collection, tuple, UDT or vector of given elements; `cql_type` says which.
    Construct {
        cql_type: CqlType,
        elements: Vec<Expression>,
    },
    /// A conversion between native types.
    Cast {
        from: CqlType,
        to: CqlType,
        operand: Box<Expression>,
    },
    /// Arithmetic; both operands are converted to `cql_type` first, unless it is of dates.
    Operation(Box<Operation>),
    /// Change of sign.
    Negation {
        cql_type: CqlType,
        operand: Box<Expression>,
    },
    /// A field of a UDT value.
    Field { operand: Box<Expression>, index: usize },
    /// An element of a set, map, list or vector.
    Element {
        collection: CqlType,
        operand: Box<Expression>,
        key: Box<Expression>,
    },
    /// The part of a set or map between two keys.
    Slice {
        collection: CqlType,
        operand: Box<Expression>,
        from: Option<Box<Expression>>,
        to: Option<Box<Expression>>,
    },
}

/// `left operator right`
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) operator: ArithmeticOperator,
    pub(crate) left: Expression,
    pub(crate) left_type: CqlType,
    pub(crate) right: Expression,
    pub(crate) right_type: CqlType,
    pub(crate) result_type: CqlType,
}

/// Which cells of a column CELL metadata is asked of.
#[derive(Clone, Debug)]
pub(crate) enum CellPart {
    /// All of it.
    Whole,
    /// One element of a set or map.
    Element {
        /// Type of the key.
        key_type: CqlType,
        /// The key.
        key: Box<Expression>,
    },
    /// A field of a UDT.
    Field(usize),
}

/// The present row, or the first row of the present group.
pub(crate) trait RowSource {
    /// Wire bytes of a column.
    fn value(&self, column: usize) -> Result<Option<Bytes>, CqlError>;
    /// Timestamps or remaining seconds of the cells of a column in the order of their paths: one for a column that is a
    /// single cell. None for cells that have none.
    fn metadata(&self, column: usize, kind: CellMetadata, path: Option<&[u8]>) -> Vec<Option<i64>>;
    /// A column of many cells.
    fn is_multicell(&self, column: usize) -> bool;
    /// The result of an aggregate.
    fn aggregate(&self, index: usize) -> Option<Bytes>;
}

/// What expressions are evaluated over.
#[derive(Clone, Copy)]
pub(crate) struct Evaluation<'a> {
    pub(crate) values: &'a [BoundValue],
    pub(crate) context: &'a PlanContext<'a>,
    pub(crate) row: Option<&'a dyn RowSource>,
}

impl<'a> Evaluation<'a> {
    /// Without a row.
    pub(crate) fn new(values: &'a [BoundValue], context: &'a PlanContext<'a>) -> Self {
        Self {
            values,
            context,
            row: None,
        }
    }
}

impl Expression {
    /// The value; unset only for a bind variable itself.
    pub(crate) fn evaluate(&self, evaluation: &Evaluation<'_>) -> Result<BoundValue, CqlError> {
        match self {
            Self::Constant(value) => Ok(value.clone().into()),
            Self::Bind(index) => match evaluation.values.get(*index) {
                Some(value) => Ok(value.clone()),
                None => Err(CqlError::invalid("Invalid amount of bind variables")),
            },
            other => other.compute(evaluation).map(BoundValue::from),
        }
    }

    /// The value, where unset is not allowed or the same as null.
    pub(crate) fn value(&self, evaluation: &Evaluation<'_>) -> Result<Option<Bytes>, CqlError> {
        match self.evaluate(evaluation)? {
            BoundValue::Bytes(bytes) => Ok(Some(bytes)),
            BoundValue::Null | BoundValue::Unset => Ok(None),
        }
    }

    /// The value as an operand of arithmetic, which unset cannot be.
    fn operand(&self, evaluation: &Evaluation<'_>) -> Result<Option<Bytes>, CqlError> {
        match self.evaluate(evaluation)? {
            BoundValue::Bytes(bytes) => Ok(Some(bytes)),
            BoundValue::Null => Ok(None),
            BoundValue::Unset => Err(CqlError::invalid(
                "Invalid unset value for an operand of an operation",
            )),
        }
    }

    fn compute(&self, evaluation: &Evaluation<'_>) -> Result<Option<Bytes>, CqlError> {
        match self {
            Self::Constant(_) | Self::Bind(_) => self.value(evaluation),
            Self::Column(column) => match evaluation.row {
                Some(row) => row.value(*column),
                None => Ok(None),
            },
            Self::Aggregate(index) => Ok(evaluation.row.and_then(|row| row.aggregate(*index))),
            Self::CellMetadata { kind, column, part } => cell_metadata(evaluation, *kind, *column, part),
            Self::Function { function, arguments } => {
                let mut values = smallvec::SmallVec::<[Option<Bytes>; 4]>::new();
                for argument in arguments {
                    match argument.evaluate(evaluation)? {
                        BoundValue::Unset => {
                            return Err(CqlError::Invalid(format!(
                                "Invalid unset value for argument in call to function {}",
                                function.name
                            )));
                        }
                        BoundValue::Null => values.push(None),
                        BoundValue::Bytes(bytes) => values.push(Some(bytes)),
                    }
                }
                function.call(&values, evaluation.context)
            }
            Self::Construct { cql_type, elements } => construct(cql_type, elements, evaluation).map(Some),
            Self::Cast { from, to, operand } => match operand.value(evaluation)? {
                Some(bytes) => cast::cast(from, to, &bytes),
                None => Ok(None),
            },
            Self::Operation(operation) => {
                let left = operation.left.operand(evaluation)?;
                let right = operation.right.operand(evaluation)?;
                match (left, right) {
                    (Some(left), Some(right)) => arithmetic::operate(operation, &left, &right),
                    _ => Ok(None),
                }
            }
            Self::Negation { cql_type, operand } => match operand.operand(evaluation)? {
                Some(bytes) => arithmetic::negate(cql_type, &bytes),
                None => Ok(None),
            },
            Self::Field { operand, index } => {
                let value = operand.value(evaluation)?;
                value.map_or(Ok(None), |udt| element::field_of(&udt, *index))
            }
            Self::Element {
                collection,
                operand,
                key,
            } => match (operand.value(evaluation)?, key.value(evaluation)?) {
                (Some(bytes), Some(key)) => element::element_of(collection, &bytes, &key),
                _ => Ok(None),
            },
            Self::Slice {
                collection,
                operand,
                from,
                to,
            } => {
                let Some(bytes) = operand.value(evaluation)? else {
                    return Ok(None);
                };
                let bound = |bound: &Option<Box<Expression>>| match bound {
                    Some(bound) => bound.value(evaluation),
                    None => Ok(None),
                };
                element::slice_of(collection, &bytes, bound(from)?.as_deref(), bound(to)?.as_deref())
            }
        }
    }

    /// Depends on nothing but itself.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }

    /// Calls `visit` for each aggregate, column and nested expression.
    pub(crate) fn visit(&self, visit: &mut impl FnMut(&Expression)) {
        visit(self);
        match self {
            Self::Constant(_) | Self::Bind(_) | Self::Column(_) | Self::Aggregate(_) => {}
            Self::CellMetadata { part, .. } => {
                if let CellPart::Element { key, .. } = part {
                    key.visit(visit);
                }
            }
            Self::Function { arguments, .. } => arguments.iter().for_each(|argument| argument.visit(visit)),
            Self::Construct { elements, .. } => elements.iter().for_each(|element| element.visit(visit)),
            Self::Cast { operand, .. } | Self::Negation { operand, .. } | Self::Field { operand, .. } => {
                operand.visit(visit);
            }
            Self::Operation(operation) => {
                operation.left.visit(visit);
                operation.right.visit(visit);
            }
            Self::Element { operand, key, .. } => {
                operand.visit(visit);
                key.visit(visit);
            }
            Self::Slice {
                operand, from, to, ..
            } => {
                operand.visit(visit);
                from.iter().chain(to).for_each(|bound| bound.visit(visit));
            }
        }
    }
}

fn cell_metadata(
    evaluation: &Evaluation<'_>,
    kind: CellMetadata,
    column: usize,
    part: &CellPart,
) -> Result<Option<Bytes>, CqlError> {
    let Some(row) = evaluation.row else {
        return Ok(None);
    };
    let encode = |number: i64| match kind {
        CellMetadata::Ttl => Bytes::copy_from_slice(&(number as i32).to_be_bytes()),
        _ => Bytes::copy_from_slice(&number.to_be_bytes()),
    };
    let path = match part {
        CellPart::Whole => None,
        CellPart::Field(index) => Some(Bytes::copy_from_slice(&(*index as u16).to_be_bytes())),
        CellPart::Element { key_type, key } => match key.value(evaluation)? {
            None => return Ok(None),
            Some(key) => Some(element::path_of(key_type, &key)?),
        },
    };
    let found = row.metadata(column, kind, path.as_deref());
    let is_list = path.is_none() && row.is_multicell(column) && kind != CellMetadata::MaxWritetime;
    if is_list {
        return Ok((!found.is_empty()).then(|| pack_metadata(kind, &found).into()));
    }
    Ok(match kind {
        CellMetadata::MaxWritetime => found.into_iter().flatten().max().map(encode),
        _ => found.first().copied().flatten().map(encode),
    })
}

/// The metadata of all cells of a column, as a list.
fn pack_metadata(kind: CellMetadata, found: &[Option<i64>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(found.len() as i32).to_be_bytes());
    for number in found {
        match (number, kind) {
            (None, _) => put_value(&mut out, None),
            (Some(number), CellMetadata::Ttl) => put_value(&mut out, Some(&(*number as i32).to_be_bytes())),
            (Some(number), _) => put_value(&mut out, Some(&number.to_be_bytes())),
        }
    }
    out
}

/// The bytes of a collection, tuple, UDT or vector made of `elements`; for a map keys and values in turn.
fn construct(
    cql_type: &CqlType,
    elements: &[Expression],
    evaluation: &Evaluation<'_>,
) -> Result<Bytes, CqlError> {
    let mut values = Vec::with_capacity(elements.len());
    for element in elements {
        values.push(element.evaluate(evaluation)?);
    }
    construct_from(cql_type, &values)
}

/// As [`construct`], of values.
pub(crate) fn construct_from(cql_type: &CqlType, values: &[BoundValue]) -> Result<Bytes, CqlError> {
    if let CqlType::Tuple(_) | CqlType::Udt { .. } = cql_type {
        let mut out = Vec::new();
        for value in values {
            if value.is_unset() {
                return Err(CqlError::Invalid(format!(
                    "Invalid unset value for {} field",
                    if matches!(cql_type, CqlType::Tuple(_)) {
                        "tuple"
                    } else {
                        "user type"
                    }
                )));
            }
            put_value(&mut out, value.bytes().map(Bytes::as_ref));
        }
        return Ok(out.into());
    }
    let mut present = Vec::with_capacity(values.len());
    for value in values {
        match value {
            BoundValue::Bytes(bytes) => present.push(bytes),
            BoundValue::Null => return Err(CqlError::invalid("null is not supported inside collections")),
            BoundValue::Unset => {
                return Err(CqlError::invalid(
                    "unset value is not supported inside collections",
                ));
            }
        }
    }
    let packed = match cql_type {
        CqlType::Vector { element, .. } => pack_vector(element, &present),
        CqlType::Map { .. } => pack_collection(present.len() / 2, present.iter().map(|b| b.as_ref())),
        _ => pack_collection(present.len(), present.iter().map(|b| b.as_ref())),
    };
    let canonical = canonical(cql_type, &packed).map_err(of_value)?.into_owned();
    Ok(canonical.into())
}

fn pack_vector(element: &CqlType, values: &[&Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        if vector_element_size(element).is_none() {
            put_unsigned_vint(&mut out, value.len() as u64);
        }
        out.extend_from_slice(value);
    }
    out
}

/// A value that is not what its type demands.
pub(crate) fn of_value(error: ValueError) -> CqlError {
    CqlError::Invalid(error.to_string())
}
