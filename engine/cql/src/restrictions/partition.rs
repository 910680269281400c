//! Restrictions of the partition key: keys, or a range of the ring.

use super::filter::{Filter, FilterTest};
use super::merge::{Bound, Demand, Merged};
use super::{ALLOW_FILTERING, Components, InValues, StatementKind, clustering, present};
use crate::CqlError;
use crate::ast::Operator;
use crate::expression::{Evaluation, Expression};
use bytes::Bytes;
use ceto_model::key::KEY_SIZE_MAX;
use ceto_model::{CqlType, DecoratedKey, PartitionKey, PartitionRange, RingPosition, Table, Token, value};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::sync::Arc;

/// Partition keys that one statement may name at most: the product of its IN lists.
const PARTITION_KEYS_MAX: usize = 100_000;

/// Which partitions.
#[derive(Clone, Debug)]
pub(crate) struct PartitionRestrictions {
    /// One per partition key column; empty: all partitions, or those of a token range.
    keys: Vec<KeyColumn>,
    token: Option<TokenDemand>,
}

#[derive(Clone, Debug)]
struct KeyColumn {
    name: Arc<str>,
    cql_type: CqlType,
    values: KeyValues,
}

#[derive(Clone, Debug)]
enum KeyValues {
    One(Expression),
    Many(InValues<Expression>),
}

#[derive(Clone, Debug)]
enum TokenDemand {
    Equal(Expression),
    Slice {
        lower: Option<Bound<Expression>>,
        upper: Option<Bound<Expression>>,
    },
}

/// Partition keys in the order of the answer.
pub(crate) type Keys = SmallVec<[DecoratedKey; 1]>;

impl PartitionRestrictions {
    /// Takes the restrictions of the partition key out of `merged`; what cannot name keys becomes a filter.
    pub(super) fn prepare(
        table: &Table,
        merged: &mut Merged,
        kind: StatementKind,
        filters: &mut Vec<Filter>,
    ) -> Result<Self, CqlError> {
        let token = match merged.token.take() {
            None => None,
            Some(Demand::Equal(value)) => Some(TokenDemand::Equal(value)),
            Some(Demand::Slice { lower, upper }) => Some(TokenDemand::Slice { lower, upper }),
            Some(Demand::In(_)) => {
                return Err(CqlError::invalid("IN cannot be used with the token function"));
            }
        };
        let columns = table.partition_key();
        let mut demands: Vec<Option<Demand<Expression>>> = (0..columns.len())
            .map(|index| merged.take_single(index))
            .collect();
        let contains = merged
            .filters
            .iter()
            .any(|f| f.columns.iter().any(|index| *index < columns.len()));
        let missing: Vec<&str> = columns
            .iter()
            .zip(&demands)
            .filter(|(_, demand)| demand.is_none())
            .map(|(column, _)| &*column.name)
            .collect();
        let has_slice = demands
            .iter()
            .flatten()
            .any(|demand| matches!(demand, Demand::Slice { .. }));
        if let StatementKind::Update | StatementKind::Delete = kind {
            if !missing.is_empty() {
                return Err(CqlError::Invalid(format!(
                    "Some partition key parts are missing: {}",
                    missing.join(", ")
                )));
            }
            if has_slice {
                return Err(CqlError::Invalid(format!(
                    "Only EQ and IN relation are supported on the partition key (unless you use the token() function) \
                     for {} statements",
                    kind.name()
                )));
            }
        }
        let is_filtered = has_slice || contains || !missing.is_empty() && missing.len() < columns.len();
        if is_filtered
            && kind
                == (StatementKind::Select {
                    allow_filtering: false,
                })
        {
            return Err(CqlError::invalid(ALLOW_FILTERING));
        }
        if has_slice || !missing.is_empty() {
            // Back: they will be tested on each partition.
            let back = demands
                .iter_mut()
                .enumerate()
                .filter_map(|(index, d)| Some((index, d.take()?)));
            merged.single.extend(back);
            return Ok(Self {
                keys: Vec::new(),
                token,
            });
        }
        let mut keys = Vec::with_capacity(columns.len());
        for (column, demand) in columns.iter().zip(demands) {
            let values = match demand {
                Some(Demand::Equal(value)) => KeyValues::One(value),
                Some(Demand::In(values)) => KeyValues::Many(values),
                Some(Demand::Slice { .. }) | None => continue,
            };
            keys.push(KeyColumn {
                name: column.name.clone(),
                cql_type: column.cql_type.clone(),
                values,
            });
        }
        if let (Some(token), false) = (&token, keys.is_empty()) {
            filters.extend(token.as_filters());
            return Ok(Self { keys, token: None });
        }
        Ok(Self { keys, token })
    }

    /// Partitions are walked over in ring order, not named.
    pub(crate) fn is_range(&self) -> bool {
        self.keys.is_empty()
    }

    /// At most one partition is named, whatever the values.
    pub(crate) fn is_single(&self) -> bool {
        !self.is_range()
            && self
                .keys
                .iter()
                .all(|key| matches!(key.values, KeyValues::One(_)))
    }

    /// Some key column is restricted by IN.
    pub(crate) fn has_in(&self) -> bool {
        self.keys
            .iter()
            .any(|key| matches!(key.values, KeyValues::Many(_)))
    }

    /// The named partitions in order of their key columns, each once.
    pub(crate) fn keys(&self, evaluation: &Evaluation<'_>) -> Result<Keys, CqlError> {
        if let [key] = self.keys.as_slice()
            && let KeyValues::One(value) = &key.values
        {
            let component = present(value.evaluate(evaluation)?, &key.name)?;
            return Ok(SmallVec::from_buf([decorated_key_of_one(component)?]));
        }
        if self.is_single() {
            let mut components = Components::new();
            for key in &self.keys {
                if let KeyValues::One(value) = &key.values {
                    components.push(present(value.evaluate(evaluation)?, &key.name)?);
                }
            }
            return Ok(SmallVec::from_buf([decorated_key(&components)?]));
        }
        let mut all: Vec<Components> = vec![Components::new()];
        for key in &self.keys {
            let values = key.evaluate(evaluation)?;
            if all.len().saturating_mul(values.len()) > PARTITION_KEYS_MAX {
                return Err(clustering::too_many(PARTITION_KEYS_MAX));
            }
            let extend = |components: &Components| {
                let components = components.clone();
                values.iter().map(move |value| {
                    let mut longer = components.clone();
                    longer.push(value.clone());
                    longer
                })
            };
            all = all.iter().flat_map(extend).collect();
        }
        all.iter().map(|components| decorated_key(components)).collect()
    }

    /// The part of the ring; None when it is empty.
    pub(crate) fn range(&self, evaluation: &Evaluation<'_>) -> Result<Option<PartitionRange>, CqlError> {
        let token_of = |expression: &Expression| {
            let bytes = present(expression.evaluate(evaluation)?, "partition key token")?;
            let bytes: [u8; 8] = bytes
                .as_ref()
                .try_into()
                .map_err(|_| CqlError::invalid("Invalid value for the partition key token"))?;
            Ok::<_, CqlError>(Token(i64::from_be_bytes(bytes)))
        };
        let mut range = PartitionRange::full();
        match &self.token {
            None => {}
            Some(TokenDemand::Equal(value)) => {
                let token = token_of(value)?;
                range.start = RingPosition::BeforeToken(token);
                range.end = RingPosition::AfterToken(token);
            }
            Some(TokenDemand::Slice { lower, upper }) => {
                if let Some(bound) = lower {
                    let token = token_of(&bound.value)?;
                    range.start = match bound.inclusive {
                        true => RingPosition::BeforeToken(token),
                        false => RingPosition::AfterToken(token),
                    };
                }
                if let Some(bound) = upper {
                    let token = token_of(&bound.value)?;
                    range.end = match bound.inclusive {
                        true => RingPosition::AfterToken(token),
                        // The least token ends the ring as well as it starts it.
                        false if token == Token::MIN => range.end,
                        false => RingPosition::BeforeToken(token),
                    };
                }
            }
        }
        let is_after = |position: &RingPosition| matches!(position, RingPosition::AfterToken(_));
        let order = range.start.token().cmp(&range.end.token());
        let order = order.then(is_after(&range.start).cmp(&is_after(&range.end)));
        Ok((order == Ordering::Less).then_some(range))
    }
}

impl KeyColumn {
    /// The values, sorted, each once.
    fn evaluate(&self, evaluation: &Evaluation<'_>) -> Result<Vec<Bytes>, CqlError> {
        let mut values = match &self.values {
            KeyValues::One(value) => vec![present(value.evaluate(evaluation)?, &self.name)?],
            KeyValues::Many(values) => values.evaluate(evaluation, &self.name)?,
        };
        values.sort_by(|a, b| value::compare(&self.cql_type, a, b).then_with(|| a.cmp(b)));
        values.dedup();
        Ok(values)
    }
}

impl TokenDemand {
    fn as_filters(&self) -> Vec<Filter> {
        let filter = |operator, value: &Expression| Filter {
            columns: Vec::new(),
            test: FilterTest::Token(operator, value.clone()),
            analysis: None,
        };
        match self {
            Self::Equal(value) => vec![filter(Operator::Equal, value)],
            Self::Slice { lower, upper } => {
                let lower = lower.as_ref().map(|bound| {
                    let operator = if bound.inclusive {
                        Operator::GreaterOrEqual
                    } else {
                        Operator::Greater
                    };
                    filter(operator, &bound.value)
                });
                let upper = upper.as_ref().map(|bound| {
                    let operator = if bound.inclusive {
                        Operator::LessOrEqual
                    } else {
                        Operator::Less
                    };
                    filter(operator, &bound.value)
                });
                lower.into_iter().chain(upper).collect()
            }
        }
    }
}

/// The key of these column values; checks the sizes.
pub(crate) fn decorated_key(components: &[Bytes]) -> Result<DecoratedKey, CqlError> {
    if let [single] = components {
        return decorated_key_of_one(single.clone());
    }
    let longest = components.iter().map(Bytes::len).max().unwrap_or(0);
    checked_key(PartitionKey::from_components(components), longest)
}

/// The key of a table with one partition key column.
pub(crate) fn decorated_key_of_one(component: Bytes) -> Result<DecoratedKey, CqlError> {
    let length = component.len();
    checked_key(PartitionKey(component), length)
}

fn checked_key(key: PartitionKey, longest: usize) -> Result<DecoratedKey, CqlError> {
    if key.0.is_empty() {
        return Err(CqlError::invalid("Key may not be empty"));
    }
    if key.0.len() > KEY_SIZE_MAX || longest > KEY_SIZE_MAX {
        return Err(CqlError::Invalid(format!(
            "Key length of {} is longer than maximum of {KEY_SIZE_MAX}",
            key.0.len().max(longest)
        )));
    }
    Ok(DecoratedKey::new(key))
}
