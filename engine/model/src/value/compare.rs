//! The order of values of one type, as Cassandra has it.
//!
//! A total preorder on all bytes that [`super::validate`] accepts; zero bytes sort first. Bytes that are no value of
//! the type get some order without a panic: whoever stored them has to report them. [`crate::comparable`] is the same
//! order as `memcmp` of other bytes, and a property test holds the two together.

use super::composite::{Components, class_names};
use super::decimal::Normalized;
use super::wire::{take_component, take_i32, take_value, take_vector_element, vector_element_size};
use crate::CqlType;
use std::cmp::Ordering;

/// Compares two values of `cql_type`, given as wire bytes.
pub fn compare(cql_type: &CqlType, a: &[u8], b: &[u8]) -> Ordering {
    if a.is_empty() || b.is_empty() {
        return b.is_empty().cmp(&a.is_empty());
    }
    match cql_type {
        CqlType::Ascii
        | CqlType::Blob
        | CqlType::Text
        | CqlType::Inet
        | CqlType::Date
        | CqlType::Time
        | CqlType::Duration
        | CqlType::Empty
        | CqlType::Custom(_) => a.cmp(b),
        CqlType::Int | CqlType::Smallint | CqlType::Tinyint => signed_bytes(a, b),
        CqlType::Bigint | CqlType::Counter | CqlType::Timestamp => signed_bytes(a, b),
        CqlType::Boolean => (a != [0]).cmp(&(b != [0])),
        CqlType::Float => by(a, b, |bytes| bytes.try_into().ok().map(ordered_float)),
        CqlType::Double => by(a, b, |bytes| bytes.try_into().ok().map(ordered_double)),
        CqlType::Varint => varint(a, b),
        CqlType::Decimal => match (Normalized::from_wire(a), Normalized::from_wire(b)) {
            (Some(a), Some(b)) => a.compare(&b),
            _ => a.cmp(b),
        },
        CqlType::Timeuuid => by(a, b, |bytes| bytes.try_into().ok().map(ordered_timeuuid)),
        CqlType::Uuid => by(a, b, |bytes| bytes.try_into().ok().map(ordered_uuid)),
        CqlType::List { element, .. } | CqlType::Set { element, .. } => collection(element, element, a, b),
        CqlType::Map { key, value, .. } => collection(key, value, a, b),
        CqlType::Tuple(types) => fields(types.iter(), a, b),
        CqlType::Udt { definition, .. } => fields(definition.fields.iter().map(|f| &f.cql_type), a, b),
        CqlType::Composite(_) | CqlType::DynamicComposite(_) => composite(cql_type, a, b),
        CqlType::Vector { element, dimension } => vector(element, *dimension, a, b),
    }
}

/// Compares what `key` finds in the bytes; bytes where it finds nothing sort before all others.
fn by<K: Ord>(a: &[u8], b: &[u8], key: impl Fn(&[u8]) -> Option<K>) -> Ordering {
    match (key(a), key(b)) {
        (None, None) => a.cmp(b),
        (a, b) => a.cmp(&b),
    }
}

/// Two's complement, big-endian, of the same length.
fn signed_bytes(a: &[u8], b: &[u8]) -> Ordering {
    match (a.split_first(), b.split_first()) {
        (Some((&a_first, a_rest)), Some((&b_first, b_rest))) => {
            (a_first.cast_signed(), a_rest).cmp(&(b_first.cast_signed(), b_rest))
        }
        _ => a.len().cmp(&b.len()),
    }
}

/// Bits of a float whose unsigned order is that of the numbers: -0 before 0, all NaN equal and last.
pub(crate) fn ordered_float(bytes: [u8; 4]) -> u32 {
    let bits = match f32::from_be_bytes(bytes) {
        number if number.is_nan() => f32::NAN.to_bits(),
        number => number.to_bits(),
    };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// As [`ordered_float`], of a double.
pub(crate) fn ordered_double(bytes: [u8; 8]) -> u64 {
    let bits = match f64::from_be_bytes(bytes) {
        number if number.is_nan() => f64::NAN.to_bits(),
        number => number.to_bits(),
    };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The time of a version 1 UUID, most significant part first (its own inverse is [`unordered_time`]).
fn ordered_time(high: u64) -> u64 {
    high << 48 | (high << 16 & 0xffff_0000_0000) | high >> 32
}

/// Inverse of [`ordered_time`].
fn unordered_time(ordered: u64) -> u64 {
    ordered << 32 | (ordered >> 16 & 0xffff_0000) | ordered >> 48
}

const SIGN_BITS: u64 = 0x8080_8080_8080_8080;

fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let number = u128::from_be_bytes(bytes);
    ((number >> 64) as u64, number as u64)
}

fn whole(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// A number in the order of timeuuid: time first, then the other bytes, each of them signed.
pub(crate) fn ordered_timeuuid(bytes: [u8; 16]) -> u128 {
    let (high, low) = halves(bytes);
    whole(ordered_time(high), low ^ SIGN_BITS)
}

/// Inverse of [`ordered_timeuuid`].
pub(crate) fn unordered_timeuuid(ordered: [u8; 16]) -> [u8; 16] {
    let (high, low) = halves(ordered);
    whole(unordered_time(high), low ^ SIGN_BITS).to_be_bytes()
}

/// A number in the order of uuid: version first, then the time for version 1, then the other bytes, unsigned.
pub(crate) fn ordered_uuid(bytes: [u8; 16]) -> u128 {
    let (high, low) = halves(bytes);
    let version = high >> 12 & 15;
    // The time of a version 1 UUID starts with the version already.
    let ordered = match version {
        1 => ordered_time(high),
        _ => version << 60 | (high >> 4 & 0x0fff_ffff_ffff_f000) | high & 0xfff,
    };
    whole(ordered, low)
}

/// Inverse of [`ordered_uuid`].
pub(crate) fn unordered_uuid(ordered: [u8; 16]) -> [u8; 16] {
    let (ordered, low) = halves(ordered);
    let version = ordered >> 60;
    let high = match version {
        1 => unordered_time(ordered),
        _ => (ordered & 0x0fff_ffff_ffff_f000) << 4 | version << 12 | ordered & 0xfff,
    };
    whole(high, low).to_be_bytes()
}

/// A varint without needless sign bytes: at least one byte, when there was one.
pub(crate) fn minimal_varint(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && let Some(&next) = rest.first()
        && (*first == 0 && next < 0x80 || *first == 0xff && next >= 0x80)
    {
        bytes = rest;
    }
    bytes
}

fn varint(a: &[u8], b: &[u8]) -> Ordering {
    let key = |bytes: &[u8]| {
        let negative = bytes.first().is_some_and(|&byte| byte >= 0x80);
        let length = bytes.len() as i64;
        // More bytes are more positive, or more negative.
        if negative { -length } else { length }
    };
    let (a, b) = (minimal_varint(a), minimal_varint(b));
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

/// Element by element, then the shorter one first; for a map keys and values take turns.
fn collection(first: &CqlType, second: &CqlType, mut a: &[u8], mut b: &[u8]) -> Ordering {
    let (_, _) = (take_i32(&mut a), take_i32(&mut b));
    let (mut now, mut then) = (first, second);
    loop {
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        let order = match (take_value(&mut a), take_value(&mut b)) {
            (Some(Some(a)), Some(Some(b))) => compare(now, a, b),
            (Some(a), Some(b)) => a.is_some().cmp(&b.is_some()),
            (a, b) => return a.is_some().cmp(&b.is_some()),
        };
        if order.is_ne() {
            return order;
        }
        std::mem::swap(&mut now, &mut then);
    }
}

/// Field by field; null, like a missing field, is before all values.
fn fields<'t>(types: impl Iterator<Item = &'t CqlType>, mut a: &[u8], mut b: &[u8]) -> Ordering {
    fn next<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
        take_component(input, String::new).ok()??
    }
    for field_type in types {
        let order = match (next(&mut a), next(&mut b)) {
            (Some(a), Some(b)) => compare(field_type, a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Component by component: its class where values say it, its value, its end. Then the shorter one first.
fn composite(cql_type: &CqlType, a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (Components::new(cql_type, a), Components::new(cql_type, b));
    if a.is_static() != b.is_static() {
        return b.is_static().cmp(&a.is_static());
    }
    loop {
        let (a, b) = match (a.next(), b.next()) {
            (Some(Ok(a)), Some(Ok(b))) => (a, b),
            (Some(a), Some(b)) => return a.is_ok().cmp(&b.is_ok()),
            (a, b) => return a.is_some().cmp(&b.is_some()),
        };
        let order = if a.cql_type == b.cql_type {
            compare(&a.cql_type, a.value, b.value)
        } else {
            class_names(&a.cql_type).cmp(&class_names(&b.cql_type))
        };
        let order = order.then_with(|| a.end.cmp(&b.end));
        if order.is_ne() {
            return order;
        }
    }
}

fn vector(element: &CqlType, dimension: u16, mut a: &[u8], mut b: &[u8]) -> Ordering {
    let size = vector_element_size(element);
    for _ in 0..dimension {
        let order = match (
            take_vector_element(&mut a, size),
            take_vector_element(&mut b, size),
        ) {
            (Some(a), Some(b)) => compare(element, a, b),
            (a, b) => return a.is_some().cmp(&b.is_some()),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}
