//! Types and values for property tests.

use super::composite::put_component;
use super::{Decimal, Duration, Value};
use crate::{CqlType, UserType, UserTypeField};
use num_bigint::BigInt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;
use std::sync::Arc;
use uuid::Uuid;

/// Types that have a value literal, without nesting.
pub(crate) fn scalar_type() -> impl Strategy<Value = CqlType> {
    prop_oneof![
        Just(CqlType::Ascii),
        Just(CqlType::Bigint),
        Just(CqlType::Blob),
        Just(CqlType::Boolean),
        Just(CqlType::Date),
        Just(CqlType::Decimal),
        Just(CqlType::Double),
        Just(CqlType::Duration),
        Just(CqlType::Float),
        Just(CqlType::Inet),
        Just(CqlType::Int),
        Just(CqlType::Smallint),
        Just(CqlType::Text),
        Just(CqlType::Time),
        Just(CqlType::Timestamp),
        Just(CqlType::Timeuuid),
        Just(CqlType::Tinyint),
        Just(CqlType::Uuid),
        Just(CqlType::Varint),
    ]
}

/// Any type, frozen throughout.
pub(crate) fn any_type() -> impl Strategy<Value = CqlType> {
    let frozen = true;
    scalar_type().prop_recursive(3, 12, 3, move |inner| {
        let element = inner.clone().prop_map(Arc::new);
        prop_oneof![
            element
                .clone()
                .prop_map(move |element| CqlType::List { element, frozen }),
            element
                .clone()
                .prop_map(move |element| CqlType::Set { element, frozen }),
            (element.clone(), element.clone()).prop_map(move |(key, value)| CqlType::Map {
                key,
                value,
                frozen
            }),
            vec(inner.clone(), 1..4).prop_map(|types| CqlType::Tuple(types.into())),
            vec(inner.clone(), 1..4).prop_map(move |types| {
                let fields = types
                    .into_iter()
                    .enumerate()
                    .map(|(index, cql_type)| UserTypeField {
                        name: if index == 0 {
                            "First".into()
                        } else {
                            format!("field_{index}").into()
                        },
                        cql_type,
                    });
                let definition = Arc::new(UserType {
                    keyspace: "ks".into(),
                    name: "sample".into(),
                    fields: fields.collect(),
                });
                CqlType::Udt { definition, frozen }
            }),
            vec(inner.clone(), 1..4).prop_map(|types| CqlType::Composite(types.into())),
            inner.prop_map(|cql_type| CqlType::DynamicComposite(
                [(b'a', cql_type), (b'i', CqlType::Int)].into()
            )),
            (element, 1..4_u16).prop_map(|(element, dimension)| CqlType::Vector { element, dimension }),
        ]
    })
}

/// Numbers of all magnitudes, near zero and near the ends.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        -3..4_i64,
        any::<i64>(),
        any::<i16>().prop_map(i64::from),
        Just(i64::MAX),
        Just(i64::MIN)
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![0..3_u8, Just(0xff), any::<u8>()], 0..6)
}

/// One component of a composite: bytes of a value of the type, and the byte that ends it.
fn component(cql_type: &CqlType) -> BoxedStrategy<Vec<u8>> {
    let cql_type = cql_type.clone();
    any_value(&cql_type)
        .prop_map(move |value| {
            let mut out = Vec::new();
            put_component(
                &value.to_wire(&cql_type).expect("a sample of the type"),
                0,
                &mut out,
            )
            .expect("short");
            out
        })
        .boxed()
}

/// Some of the components from the left, perhaps of a static name, perhaps with another end.
fn composite(types: &[CqlType]) -> BoxedStrategy<Value> {
    let components: Vec<_> = types.iter().map(component).collect();
    (components, 0..=types.len(), any::<bool>(), -1..=1_i8)
        .prop_map(|(components, count, is_static, end)| {
            let mut wire = if is_static { vec![0xff, 0xff] } else { Vec::new() };
            let components = components.get(..count).unwrap_or_default().concat();
            wire.extend_from_slice(&components);
            if !components.is_empty()
                && let Some(last) = wire.last_mut()
            {
                *last = end.cast_unsigned();
            }
            Value::Blob(wire.into())
        })
        .boxed()
}

/// Components by alias and by class.
fn dynamic_composite(aliases: &[(u8, CqlType)]) -> BoxedStrategy<Value> {
    let by_alias = aliases.iter().map(|(alias, cql_type)| {
        let header = [0x80, *alias];
        component(cql_type)
            .prop_map(move |part| [&header[..], &part].concat())
            .boxed()
    });
    let by_class = component(&CqlType::Text).prop_map(|part| [b"\0\x08UTF8Type", &part[..]].concat());
    vec(Union::new(by_alias.chain([by_class.boxed()])), 0..3)
        .prop_map(|parts| Value::Blob(parts.concat().into()))
        .boxed()
}

/// Any value of the type. Small domains, so that equal and nearly equal values meet.
pub(crate) fn any_value(cql_type: &CqlType) -> BoxedStrategy<Value> {
    fn optional(cql_type: &CqlType) -> BoxedStrategy<Option<Value>> {
        let value = any_value(cql_type);
        prop_oneof![3 => value.prop_map(Some), 1 => Just(None)].boxed()
    }
    let empty = super::validate(cql_type, &[]).is_ok();
    let value = match cql_type {
        CqlType::Ascii => "[ -c\u{0}\u{1}]{0,4}".prop_map(Value::Text).boxed(),
        CqlType::Text => "[ab\u{0}\u{1}\"'\u{e9}\u{10348}]{0,4}"
            .prop_map(Value::Text)
            .boxed(),
        CqlType::Composite(types) => composite(types),
        CqlType::DynamicComposite(aliases) => dynamic_composite(aliases),
        CqlType::Blob | CqlType::Custom(_) => bytes().prop_map(|bytes| Value::Blob(bytes.into())).boxed(),
        CqlType::Bigint => number().prop_map(Value::Bigint).boxed(),
        CqlType::Counter => number().prop_map(Value::Counter).boxed(),
        CqlType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        CqlType::Date => prop_oneof![any::<u32>(), 0x7fff_fff0..0x8000_ffff_u32]
            .prop_map(Value::Date)
            .boxed(),
        CqlType::Decimal => (
            bytes(),
            prop_oneof![-4..5_i32, -70..70_i32, any::<i32>()],
            any::<bool>(),
        )
            .prop_map(|(unscaled, scale, tenfold)| {
                let unscaled = BigInt::from_signed_bytes_be(&unscaled);
                let unscaled = if tenfold { unscaled * 1000 } else { unscaled };
                Value::Decimal(Decimal::new(unscaled, scale))
            })
            .boxed(),
        CqlType::Double => prop_oneof![any::<f64>(), number().prop_map(|n| n as f64), Just(-0.0)]
            .prop_map(Value::Double)
            .boxed(),
        CqlType::Duration => (any::<bool>(), 0..=i32::MAX, 0..99_i32, 0..=i64::MAX)
            .prop_map(|(negative, months, days, nanoseconds)| {
                let sign = if negative { -1 } else { 1 };
                let duration = Duration::new(months * sign, days * sign, nanoseconds * i64::from(sign));
                Value::Duration(duration.expect("all parts have one sign"))
            })
            .boxed(),
        CqlType::Empty => Just(Value::Empty).boxed(),
        CqlType::Float => prop_oneof![any::<f32>(), number().prop_map(|n| n as f32), Just(-0.0)]
            .prop_map(Value::Float)
            .boxed(),
        CqlType::Inet => prop_oneof![
            any::<[u8; 4]>().prop_map(Into::into),
            any::<[u8; 16]>().prop_map(Into::into)
        ]
        .prop_map(Value::Inet)
        .boxed(),
        CqlType::Int => number().prop_map(|n| Value::Int(n as i32)).boxed(),
        CqlType::Smallint => number().prop_map(|n| Value::Smallint(n as i16)).boxed(),
        CqlType::Tinyint => number().prop_map(|n| Value::Tinyint(n as i8)).boxed(),
        CqlType::Time => (0..86_400_000_000_000_i64).prop_map(Value::Time).boxed(),
        CqlType::Timestamp => prop_oneof![number(), 0..4_000_000_000_000_i64]
            .prop_map(Value::Timestamp)
            .boxed(),
        CqlType::Timeuuid => any::<u128>()
            .prop_map(|bits| Value::Timeuuid(with_version(bits, 1)))
            .boxed(),
        CqlType::Uuid => (any::<u128>(), 0..9_u8)
            .prop_map(|(bits, version)| Value::Uuid(with_version(bits, version)))
            .boxed(),
        CqlType::Varint => prop_oneof![
            number().prop_map(BigInt::from),
            bytes().prop_map(|bytes| BigInt::from_signed_bytes_be(&bytes)),
            (any::<bool>(), 120..135_usize).prop_map(|(negative, size)| {
                let sign = if negative { 0x80 } else { 0x7f };
                BigInt::from_signed_bytes_be(&vec![sign; size])
            }),
        ]
        .prop_map(Value::Varint)
        .boxed(),
        CqlType::List { element, .. } => vec(any_value(element), 0..4).prop_map(Value::List).boxed(),
        CqlType::Set { element, .. } => vec(any_value(element), 0..4).prop_map(Value::Set).boxed(),
        CqlType::Map { key, value, .. } => vec((any_value(key), any_value(value)), 0..4)
            .prop_map(Value::Map)
            .boxed(),
        CqlType::Tuple(types) => {
            let elements: Vec<_> = types.iter().map(optional).collect();
            elements.prop_map(Value::Tuple).boxed()
        }
        CqlType::Udt { definition, .. } => {
            let fields: Vec<_> = definition
                .fields
                .iter()
                .map(|field| optional(&field.cql_type))
                .collect();
            fields.prop_map(Value::Udt).boxed()
        }
        CqlType::Vector { element, dimension } => {
            let count = usize::from(*dimension);
            // An element of a fixed size has no room for zero bytes.
            vec(
                any_value(element).prop_filter("has bytes", |value| *value != Value::Empty),
                count,
            )
            .prop_map(Value::Vector)
            .boxed()
        }
    };
    let has_empty = empty
        && !matches!(
            cql_type,
            CqlType::Ascii
                | CqlType::Text
                | CqlType::Blob
                | CqlType::Composite(_)
                | CqlType::DynamicComposite(_)
                | CqlType::Custom(_)
        )
        && !cql_type.is_collection();
    match cql_type {
        CqlType::Tuple(_) | CqlType::Udt { .. } => value,
        _ if has_empty => prop_oneof![9 => value, 1 => Just(Value::Empty)].boxed(),
        _ => value,
    }
}

fn with_version(bits: u128, version: u8) -> Uuid {
    let mut bytes = bits.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | version << 4;
    Uuid::from_bytes(bytes)
}

/// A type and wire bytes of so many of its values.
pub(crate) fn typed_values(count: usize) -> impl Strategy<Value = (CqlType, Vec<Vec<u8>>)> {
    any_type().prop_flat_map(move |cql_type| {
        let values = vec(any_value(&cql_type), count);
        let of = cql_type.clone();
        let wires = values.prop_map(move |values| {
            values
                .iter()
                .map(|value| value.to_wire(&of).expect("a value of the type"))
                .collect()
        });
        (Just(cql_type), wires)
    })
}
