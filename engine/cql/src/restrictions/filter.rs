//! Tests on rows that were read: what ALLOW FILTERING allows.
//!
//! A test on a column without a value fails, whatever it asks.

use super::clustering::{bound_list, split_tuple};
use super::{InValues, TupleValue};
use crate::ast::Operator;
use crate::expression::{Evaluation, Expression, of_value, vector_elements};
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::value::compare;
use ceto_model::value::wire::Elements;
use ceto_model::{ColumnKind, CqlType, Index, Table, Token};
use std::cmp::Ordering;
use std::sync::Arc;

/// A test on some columns, by index in the table; none for the token.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) columns: Vec<usize>,
    pub(crate) test: FilterTest,
    /// Texts are compared as this index has them.
    pub(crate) analysis: Option<Arc<Index>>,
}

/// See [`Filter`].
#[derive(Clone, Debug)]
pub(crate) enum FilterTest {
    Compare(Operator, Expression),
    In(InValues<Expression>),
    CompareTuple(Operator, TupleValue),
    InTuples(InValues<TupleValue>),
    Contains(Expression),
    ContainsKey(Expression),
    Entry { key: Expression, value: Expression },
    Token(Operator, Expression),
}

/// A filter with the values of one execution.
#[derive(Clone, Debug)]
pub(crate) struct ReadyFilter {
    columns: Vec<(usize, CqlType)>,
    test: ReadyTest,
    scope: Scope,
    analysis: Option<Arc<Index>>,
}

/// How much of a partition must be known for a test: tests of the smaller scopes are made once per partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    PartitionKey,
    Static,
    Row,
}

#[derive(Clone, Debug)]
enum ReadyTest {
    Compare(Operator, Vec<Bytes>),
    In(Vec<Vec<Bytes>>),
    Contains(Bytes),
    ContainsKey(Bytes),
    Entry { key: Bytes, value: Bytes },
    Token(Operator, Token),
}

impl Filter {
    /// Evaluates the right side.
    pub(crate) fn ready(&self, table: &Table, evaluation: &Evaluation<'_>) -> Result<ReadyFilter, CqlError> {
        let columns: Vec<_> = self
            .columns
            .iter()
            .filter_map(|index| Some((*index, table.columns().get(*index)?)))
            .collect();
        let names = || {
            columns
                .iter()
                .map(|(_, c)| &*c.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let present = |value: &Expression| match value.evaluate(evaluation)? {
            BoundValue::Bytes(bytes) => Ok(bytes),
            BoundValue::Null => Err(CqlError::Invalid(format!(
                "Unsupported null value for column {}",
                names()
            ))),
            BoundValue::Unset => Err(CqlError::Invalid(format!(
                "Unsupported unset value for column {}",
                names()
            ))),
        };
        let tuple = |value: &TupleValue| match value {
            TupleValue::Elements(elements) => elements.iter().map(&present).collect::<Result<Vec<_>, _>>(),
            TupleValue::Whole { tuple, count } => {
                Ok(split_tuple(&present(tuple)?, *count, &names())?.into_vec())
            }
        };
        let test = match &self.test {
            FilterTest::Compare(operator, value) => ReadyTest::Compare(*operator, vec![present(value)?]),
            FilterTest::In(values) => {
                let values = values.evaluate(evaluation, &names())?;
                ReadyTest::In(values.into_iter().map(|value| vec![value]).collect())
            }
            FilterTest::CompareTuple(operator, value) => ReadyTest::Compare(*operator, tuple(value)?),
            FilterTest::InTuples(InValues::List(tuples)) => {
                ReadyTest::In(tuples.iter().map(&tuple).collect::<Result<_, _>>()?)
            }
            FilterTest::InTuples(InValues::Bound { list, element }) => {
                let tuples = bound_list(list, element, evaluation, &names())?;
                let split = tuples.iter().map(|wire| {
                    split_tuple(wire, columns.len(), &names()).map(|elements| elements.into_vec())
                });
                ReadyTest::In(split.collect::<Result<_, _>>()?)
            }
            FilterTest::Contains(value) => ReadyTest::Contains(present(value)?),
            FilterTest::ContainsKey(value) => ReadyTest::ContainsKey(present(value)?),
            FilterTest::Entry { key, value } => {
                let present = |part: &str, value: &Expression| {
                    let absent = match value.evaluate(evaluation)? {
                        BoundValue::Bytes(bytes) => return Ok(bytes),
                        BoundValue::Null => "null",
                        BoundValue::Unset => "unset",
                    };
                    Err(CqlError::Invalid(format!(
                        "Unsupported {absent} map {part} for column {}",
                        names()
                    )))
                };
                ReadyTest::Entry {
                    key: present("key", key)?,
                    value: present("value", value)?,
                }
            }
            FilterTest::Token(operator, value) => {
                let bytes = present(value)?;
                let token = bytes.as_ref().try_into().map(i64::from_be_bytes);
                let token =
                    token.map_err(|_| CqlError::invalid("Invalid value for the partition key token"))?;
                ReadyTest::Token(*operator, Token(token))
            }
        };
        let scope = columns.iter().map(|(_, column)| match column.kind {
            ColumnKind::PartitionKey => Scope::PartitionKey,
            ColumnKind::Static => Scope::Static,
            ColumnKind::Clustering | ColumnKind::Regular => Scope::Row,
        });
        Ok(ReadyFilter {
            scope: scope.max().unwrap_or(Scope::PartitionKey),
            columns: columns
                .into_iter()
                .map(|(index, column)| (index, column.cql_type.clone()))
                .collect(),
            test,
            analysis: self.analysis.clone(),
        })
    }
}

impl ReadyFilter {
    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    /// Passes? `value` gives wire bytes of a column.
    pub(crate) fn accepts(
        &self,
        token: Token,
        value: &dyn Fn(usize) -> Result<Option<Bytes>, CqlError>,
    ) -> Result<bool, CqlError> {
        if let ReadyTest::Token(operator, wanted) = &self.test {
            return Ok(holds(*operator, token.cmp(wanted)));
        }
        let mut values = Vec::with_capacity(self.columns.len());
        for (index, _) in &self.columns {
            match value(*index)? {
                Some(bytes) => values.push(bytes),
                None => return Ok(false),
            }
        }
        let order = |wanted: &[Bytes]| {
            let mut parts = self.columns.iter().zip(values.iter().zip(wanted));
            parts
                .find_map(|((_, cql_type), (own, wanted))| {
                    Some(self.compare(cql_type, own, wanted)).filter(|order| order.is_ne())
                })
                .unwrap_or(Ordering::Equal)
        };
        match &self.test {
            ReadyTest::Compare(operator, wanted) => Ok(holds(*operator, order(wanted))),
            ReadyTest::In(all) => Ok(all.iter().any(|wanted| order(wanted).is_eq())),
            ReadyTest::Token(operator, wanted) => Ok(holds(*operator, token.cmp(wanted))),
            ReadyTest::Contains(wanted) => self.any_element(&values, |cql_type, _, element| {
                element.is_some_and(|element| self.compare(cql_type, element, wanted).is_eq())
            }),
            ReadyTest::ContainsKey(wanted) => self.any_key(&values, |key_type, key| {
                self.compare(key_type, key, wanted).is_eq()
            }),
            ReadyTest::Entry { key, value } => self.any_element(&values, |value_type, own_key, own| {
                own_key.is_some_and(|(key_type, own_key)| self.compare(key_type, own_key, key).is_eq())
                    && own.is_some_and(|own| self.compare(value_type, own, value).is_eq())
            }),
        }
    }

    fn compare(&self, cql_type: &CqlType, own: &[u8], wanted: &[u8]) -> Ordering {
        match &self.analysis {
            None => compare(cql_type, own, wanted),
            Some(index) => {
                let analyzed = |value| index.definition.analyzed(cql_type, value);
                compare(cql_type, &analyzed(own), &analyzed(wanted))
            }
        }
    }

    /// Calls `test` with the type of elements, the key if there is one, and the element.
    fn any_element(
        &self,
        values: &[Bytes],
        test: impl Fn(&CqlType, Option<(&CqlType, &[u8])>, Option<&[u8]>) -> bool,
    ) -> Result<bool, CqlError> {
        let (Some((_, collection)), Some(wire)) = (self.columns.first(), values.first()) else {
            return Ok(false);
        };
        match collection {
            CqlType::Map { key, value, .. } => {
                let mut elements = Elements::new(collection, wire).map_err(of_value)?;
                while let (Some(own_key), Some(own)) = (elements.next(), elements.next()) {
                    let (own_key, own) = (own_key.map_err(of_value)?, own.map_err(of_value)?);
                    if test(value, Some((key, own_key)), Some(own)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            CqlType::Vector { element, .. } => {
                Ok(vector_elements(element, wire).any(|own| test(element, None, Some(own))))
            }
            CqlType::List { element, .. } | CqlType::Set { element, .. } => {
                for own in Elements::new(collection, wire).map_err(of_value)? {
                    if test(element, None, Some(own.map_err(of_value)?)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn any_key(&self, values: &[Bytes], test: impl Fn(&CqlType, &[u8]) -> bool) -> Result<bool, CqlError> {
        self.any_element(values, |_, key, _| {
            key.is_some_and(|(key_type, key)| test(key_type, key))
        })
    }
}

fn holds(operator: Operator, order: Ordering) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        _ => false,
    }
}
