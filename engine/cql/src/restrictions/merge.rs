//! Relations on the same columns, brought together.

use super::filter::{Filter, FilterTest};
use super::{InValues, TupleValue};
use crate::CqlError;
use crate::ast::Operator;
use crate::expression::Expression;
use ceto_model::{Column, ColumnKind, Table};

/// A bound of a slice: the value, and whether it is included.
#[derive(Clone, Debug)]
pub(crate) struct Bound<T> {
    pub(crate) value: T,
    pub(crate) inclusive: bool,
}

/// What all relations on one column, or one list of columns, demand.
#[derive(Clone, Debug)]
pub(crate) enum Demand<T> {
    Equal(T),
    In(InValues<T>),
    Slice {
        lower: Option<Bound<T>>,
        upper: Option<Bound<T>>,
    },
}

impl<T> Demand<T> {
    fn is_slice(&self) -> bool {
        matches!(self, Self::Slice { .. })
    }
}

/// Restrictions by column, not yet shared out.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) single: Vec<(usize, Demand<Expression>)>,
    /// On several clustering columns, by the index of each in the table.
    pub(super) multi: Vec<(Vec<usize>, Demand<TupleValue>)>,
    pub(super) token: Option<Demand<Expression>>,
    /// CONTAINS, map entries, `!=`: these are filters whatever else there is.
    pub(super) filters: Vec<Filter>,
}

impl Merged {
    /// Indices of all restricted columns, some maybe twice.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        let single = self.single.iter().map(|(index, _)| *index);
        let multi = self.multi.iter().flat_map(|(indices, _)| indices.iter().copied());
        let filters = self
            .filters
            .iter()
            .flat_map(|filter| filter.columns.iter().copied());
        single.chain(multi).chain(filters)
    }

    pub(super) fn restricts(&self, table: &Table, kind: ColumnKind) -> bool {
        self.columns().any(|index| {
            table
                .columns()
                .get(index)
                .is_some_and(|column| column.kind == kind)
        })
    }

    /// The first column of each restriction that is a slice.
    pub(super) fn sliced_columns(&self) -> impl Iterator<Item = usize> + '_ {
        let single = self.single.iter();
        let single = single.filter_map(|(index, demand)| demand.is_slice().then_some(*index));
        let multi = self.multi.iter();
        let multi =
            multi.filter_map(|(indices, demand)| indices.first().copied().filter(|_| demand.is_slice()));
        single.chain(multi)
    }

    /// One more relation on one column.
    pub(super) fn add_single(
        &mut self,
        index: usize,
        column: &Column,
        demand: Demand<Expression>,
    ) -> Result<(), CqlError> {
        let overlapping = self
            .multi
            .iter_mut()
            .find(|(indices, _)| indices.contains(&index));
        if let Some((indices, other)) = overlapping {
            if let (Demand::Slice { .. }, Demand::Slice { .. }) = (&*other, &demand)
                && indices.first() != Some(&index)
            {
                return Err(two_inequalities(&column.name));
            }
            return merge(other, as_tuples(demand), &column.name);
        }
        match self.single.iter_mut().find(|(own, _)| *own == index) {
            Some((_, own)) => merge(own, demand, &column.name),
            None => {
                self.single.push((index, demand));
                Ok(())
            }
        }
    }

    /// One more relation on several columns.
    pub(super) fn add_multi(
        &mut self,
        indices: Vec<usize>,
        names: &str,
        demand: Demand<TupleValue>,
    ) -> Result<(), CqlError> {
        let overlapping = self.single.iter().position(|(index, _)| indices.contains(index));
        if let Some(at) = overlapping {
            let (index, own) = self.single.remove(at);
            if let (Demand::Slice { .. }, Demand::Slice { .. }) = (&own, &demand)
                && indices.first() != Some(&index)
            {
                return Err(two_inequalities(names));
            }
            let mut own = as_tuples(own);
            merge(&mut own, demand, names)?;
            self.multi.push((indices, own));
            return Ok(());
        }
        let overlaps = self
            .multi
            .iter()
            .any(|(own, _)| own.iter().any(|index| indices.contains(index)));
        let own = self
            .multi
            .iter_mut()
            .find(|(own, _)| own.first() == indices.first());
        match own {
            Some((own_indices, own)) if *own_indices == indices => merge(own, demand, names),
            // Two slices may name different numbers of columns; the longer list is the restriction's.
            Some((own_indices, own)) => {
                if indices.len() > own_indices.len() {
                    *own_indices = indices;
                }
                merge(own, demand, names)
            }
            None if overlaps => Err(CqlError::Invalid(format!(
                "{names} cannot be restricted by more than one relation"
            ))),
            None => {
                self.multi.push((indices, demand));
                Ok(())
            }
        }
    }

    /// One more relation on the token.
    pub(super) fn add_token(&mut self, names: &str, demand: Demand<Expression>) -> Result<(), CqlError> {
        match &mut self.token {
            Some(own) => merge(own, demand, names),
            None => {
                self.token = Some(demand);
                Ok(())
            }
        }
    }

    /// Takes the restriction of one column out.
    pub(super) fn take_single(&mut self, index: usize) -> Option<Demand<Expression>> {
        let at = self.single.iter().position(|(own, _)| *own == index)?;
        Some(self.single.remove(at).1)
    }

    /// Takes the restriction of several columns out whose first is `index`.
    pub(super) fn take_multi(&mut self, index: usize) -> Option<(Vec<usize>, Demand<TupleValue>)> {
        let at = self
            .multi
            .iter()
            .position(|(own, _)| own.first() == Some(&index))?;
        Some(self.multi.remove(at))
    }

    /// What is left must be tested on each row.
    pub(super) fn into_filters(self, filters: &mut Vec<Filter>) {
        for (index, demand) in self.single {
            filters.extend(into_tests(demand).into_iter().map(|test| Filter {
                columns: vec![index],
                test: match test {
                    Test::Compare(operator, value) => FilterTest::Compare(operator, value),
                    Test::In(values) => FilterTest::In(values),
                },
                analysis: None,
            }));
        }
        for (indices, demand) in self.multi {
            filters.extend(into_tests(demand).into_iter().map(|test| Filter {
                columns: indices.clone(),
                test: match test {
                    Test::Compare(operator, value) => FilterTest::CompareTuple(operator, value),
                    Test::In(values) => FilterTest::InTuples(values),
                },
                analysis: None,
            }));
        }
        filters.extend(self.filters);
    }
}

enum Test<T> {
    Compare(Operator, T),
    In(InValues<T>),
}

fn into_tests<T>(demand: Demand<T>) -> Vec<Test<T>> {
    match demand {
        Demand::Equal(value) => vec![Test::Compare(Operator::Equal, value)],
        Demand::In(values) => vec![Test::In(values)],
        Demand::Slice { lower, upper } => {
            let lower = lower.map(|bound| match bound.inclusive {
                true => Test::Compare(Operator::GreaterOrEqual, bound.value),
                false => Test::Compare(Operator::Greater, bound.value),
            });
            let upper = upper.map(|bound| match bound.inclusive {
                true => Test::Compare(Operator::LessOrEqual, bound.value),
                false => Test::Compare(Operator::Less, bound.value),
            });
            lower.into_iter().chain(upper).collect()
        }
    }
}

/// The demand on one column as one on a list of one.
fn as_tuples(demand: Demand<Expression>) -> Demand<TupleValue> {
    let tuple = |value| TupleValue::Elements(vec![value]);
    let bound = |bound: Option<Bound<Expression>>| {
        bound.map(|Bound { value, inclusive }| Bound {
            value: tuple(value),
            inclusive,
        })
    };
    match demand {
        Demand::Equal(value) => Demand::Equal(tuple(value)),
        Demand::In(InValues::List(values)) => {
            Demand::In(InValues::List(values.into_iter().map(tuple).collect()))
        }
        Demand::In(InValues::Bound { list, element }) => Demand::In(InValues::Bound { list, element }),
        Demand::Slice { lower, upper } => Demand::Slice {
            lower: bound(lower),
            upper: bound(upper),
        },
    }
}

fn two_inequalities(names: &str) -> CqlError {
    CqlError::Invalid(format!(
        "Column \"{names}\" cannot be restricted by two inequalities not starting with the same column"
    ))
}

fn merge<T>(own: &mut Demand<T>, other: Demand<T>, names: &str) -> Result<(), CqlError> {
    match (own, other) {
        (
            Demand::Slice { lower, upper },
            Demand::Slice {
                lower: other_lower,
                upper: other_upper,
            },
        ) => {
            if lower.is_some() && other_lower.is_some() {
                return Err(CqlError::Invalid(format!(
                    "More than one restriction was found for the start bound on {names}"
                )));
            }
            if upper.is_some() && other_upper.is_some() {
                return Err(CqlError::Invalid(format!(
                    "More than one restriction was found for the end bound on {names}"
                )));
            }
            if other_lower.is_some() {
                *lower = other_lower;
            }
            if other_upper.is_some() {
                *upper = other_upper;
            }
            Ok(())
        }
        (Demand::Equal(_), _) | (_, Demand::Equal(_)) => Err(CqlError::Invalid(format!(
            "{names} cannot be restricted by more than one relation if it includes an Equal"
        ))),
        _ => Err(CqlError::Invalid(format!(
            "{names} cannot be restricted by more than one relation if it includes a IN"
        ))),
    }
}
