//! Which values may go where, without or with a change of type.

use super::arithmetic::right_of;
use super::typing::{Partial, PartialKind};
use crate::ast::LiteralKind;
use ceto_model::{CqlType, value};

/// How well something fits a type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Assignment {
    /// Not at all.
    Impossible,
    /// It can be read as a value of the type.
    Weak,
    /// It has this very type.
    Exact,
}

/// The bytes of a `from` are also bytes of a `to`, with the meaning that Cassandra gives them.
fn is_value_compatible(to: &CqlType, from: &CqlType) -> bool {
    use CqlType::{Ascii, Bigint, Blob, Date, Int, Text, Time, Timestamp, Timeuuid, Uuid, Varint};
    match (to, from) {
        (Text, Ascii) | (Uuid, Timeuuid) | (Bigint, Timestamp) | (Timestamp | Time, Bigint) => true,
        (Date, Int) | (Varint, Int | Bigint | Timestamp) | (Blob, _) => true,
        (CqlType::List { element: a, .. }, CqlType::List { element: b, .. })
        | (CqlType::Set { element: a, .. }, CqlType::Set { element: b, .. }) => is_value_compatible(a, b),
        (
            CqlType::Map {
                key: a_key, value: a, ..
            },
            CqlType::Map {
                key: b_key, value: b, ..
            },
        ) => is_value_compatible(a_key, b_key) && is_value_compatible(a, b),
        (CqlType::Tuple(a), CqlType::Tuple(b)) | (CqlType::Composite(a), CqlType::Composite(b)) => {
            b.len() <= a.len() && a.iter().zip(b.iter()).all(|(a, b)| is_value_compatible(a, b))
        }
        (CqlType::Udt { definition: a, .. }, CqlType::Udt { definition: b, .. }) => {
            a.keyspace == b.keyspace && a.name == b.name
        }
        (
            CqlType::Vector {
                element: a,
                dimension: a_dimension,
            },
            CqlType::Vector {
                element: b,
                dimension: b_dimension,
            },
        ) => a_dimension == b_dimension && is_value_compatible(a, b),
        _ => to == from,
    }
}

/// A literal of this kind can be a value of the type.
pub(crate) fn literal_fits(kind: LiteralKind, to: &CqlType) -> bool {
    use CqlType::*;
    // As Cassandra, which leaves it to the text whether a constant is one of a type without a CQL name.
    if matches!(to, Composite(_) | DynamicComposite(_)) {
        return true;
    }
    match kind {
        LiteralKind::String => matches!(
            to,
            Ascii | Text | Inet | Date | Time | Timestamp | Tuple(_) | Custom(_)
        ),
        LiteralKind::Integer => matches!(
            to,
            Bigint
                | Counter
                | Date
                | Decimal
                | Double
                | Duration
                | Float
                | Int
                | Smallint
                | Time
                | Timestamp
                | Tinyint
                | Varint
        ),
        LiteralKind::Float => matches!(to, Decimal | Double | Float),
        LiteralKind::Boolean => matches!(to, Boolean),
        LiteralKind::Duration => matches!(to, Duration),
        LiteralKind::Uuid => matches!(to, Uuid | Timeuuid),
        LiteralKind::Hex => matches!(to, Blob | Custom(_)),
    }
}

/// The type that a literal has when nothing else says it.
pub(crate) fn natural_type(kind: LiteralKind, text: &str) -> CqlType {
    match kind {
        LiteralKind::String => CqlType::Text,
        LiteralKind::Integer if text.parse::<i32>().is_ok() => CqlType::Int,
        LiteralKind::Integer if text.parse::<i64>().is_ok() => CqlType::Bigint,
        LiteralKind::Integer => CqlType::Varint,
        LiteralKind::Float if is_exact_double(text) => CqlType::Double,
        LiteralKind::Float => CqlType::Decimal,
        LiteralKind::Boolean => CqlType::Boolean,
        LiteralKind::Duration => CqlType::Duration,
        LiteralKind::Uuid => CqlType::Uuid,
        LiteralKind::Hex => CqlType::Blob,
    }
}

/// A double holds the number as it is written; others are decimals.
fn is_exact_double(text: &str) -> bool {
    let Ok(double) = text.parse::<f64>() else {
        return false;
    };
    let parse = |text: &str| value::parse_literal(&CqlType::Decimal, text)?.to_wire(&CqlType::Decimal);
    match (parse(text), parse(&format!("{double:e}"))) {
        (Ok(written), Ok(held)) => value::compare(&CqlType::Decimal, &written, &held).is_eq(),
        // NaN and the infinities are no decimals.
        _ => true,
    }
}

impl Partial<'_> {
    /// How well this fits `to`.
    pub(crate) fn assignment(&self, to: &CqlType) -> Assignment {
        let weak_if = |fits: bool| {
            if fits {
                Assignment::Weak
            } else {
                Assignment::Impossible
            }
        };
        let all = |elements: &[Partial<'_>], to: &CqlType| {
            weak_if(
                elements
                    .iter()
                    .all(|e| e.assignment(to) != Assignment::Impossible),
            )
        };
        match (&self.kind, to) {
            (PartialKind::Typed(_, own), _) => type_assignment(to, own),
            (PartialKind::Null | PartialKind::Marker(_) | PartialKind::FromJson(_), _) => Assignment::Weak,
            (PartialKind::Literal(literal), _) => weak_if(literal_fits(literal.kind, to)),
            (
                PartialKind::Operation {
                    operator,
                    left,
                    right,
                },
                _,
            ) => left
                .assignment(to)
                .min(right.assignment(&right_of(*operator, to))),
            (PartialKind::Negation(operand), _) => operand.assignment(to).min(Assignment::Weak),
            (PartialKind::List(elements), CqlType::List { element, .. }) => all(elements, element),
            (PartialKind::List(elements), CqlType::Vector { element, dimension }) => {
                if elements.len() == usize::from(*dimension) {
                    all(elements, element)
                } else {
                    Assignment::Impossible
                }
            }
            (PartialKind::Set(elements), CqlType::Set { element, .. }) => all(elements, element),
            (PartialKind::Set(elements), CqlType::Map { .. }) => weak_if(elements.is_empty()),
            (PartialKind::Map(entries), CqlType::Map { key, value, .. }) => {
                weak_if(entries.iter().all(|(k, v)| {
                    k.assignment(key) != Assignment::Impossible
                        && v.assignment(value) != Assignment::Impossible
                }))
            }
            (PartialKind::UserType { fields, .. }, CqlType::Udt { definition, .. }) => {
                weak_if(fields.iter().all(|(name, value)| {
                    let field = definition.fields.iter().find(|field| field.name == **name);
                    field.is_some_and(|field| value.assignment(&field.cql_type) != Assignment::Impossible)
                }))
            }
            (PartialKind::UserType { is_map: true, .. }, CqlType::Map { .. }) => Assignment::Weak,
            (PartialKind::Tuple(elements), CqlType::Tuple(types)) => weak_if(
                elements.len() <= types.len()
                    && elements
                        .iter()
                        .zip(types.iter())
                        .all(|(e, t)| e.assignment(t) != Assignment::Impossible),
            ),
            (PartialKind::Tuple(elements), _) => match elements.as_slice() {
                [single] => single.assignment(to),
                _ => Assignment::Impossible,
            },
            _ => Assignment::Impossible,
        }
    }
}

/// How well a value of type `own` fits `to`.
pub(crate) fn type_assignment(to: &CqlType, own: &CqlType) -> Assignment {
    if to == own || to.freeze() == own.freeze() {
        Assignment::Exact
    } else if is_value_compatible(to, own) {
        Assignment::Weak
    } else {
        Assignment::Impossible
    }
}
