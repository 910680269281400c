//! Scalar values from text: what a constant of CQL or a string of JSON means to a type.
//!
//! Which kinds of constants a type takes at all (a string for an inet, an integer for a double) is CQL's business. Here
//! the text is without its quotes, and the errors are Cassandra's.

use super::calendar::{DAY_NANOSECONDS, parse_date, parse_time, parse_timestamp};
use super::composite::parse_composite;
use super::{Value, ValueError};
use crate::CqlType;
use num_bigint::BigInt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use uuid::Uuid;

/// The value that `text` is for a scalar `cql_type`. No text is a value of zero bytes where Cassandra takes it so.
/// `text` of a blob may begin with 0x. Error: [`ValueError::Invalid`]; also for collections, tuples and UDTs.
pub fn parse_literal(cql_type: &CqlType, text: &str) -> Result<Value, ValueError> {
    let unable = |noun: &str| ValueError::invalid(format!("Unable to make {noun} from '{text}'"));
    if text.is_empty() && is_empty_from_text(cql_type) {
        return Ok(Value::Empty);
    }
    match cql_type {
        CqlType::Ascii if !text.is_ascii() => Err(ValueError::invalid(format!(
            "Invalid ASCII character in string literal: {text}"
        ))),
        CqlType::Ascii | CqlType::Text => Ok(Value::Text(text.to_owned())),
        CqlType::Blob | CqlType::Custom(_) => {
            let digits = text
                .strip_prefix("0x")
                .or_else(|| text.strip_prefix("0X"))
                .unwrap_or(text);
            match parse_hex(digits) {
                Some(bytes) => Ok(Value::Blob(bytes.into())),
                None => Err(ValueError::invalid(format!("cannot parse '{text}' as hex bytes"))),
            }
        }
        CqlType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Boolean(true)),
            "false" | "" => Ok(Value::Boolean(false)),
            _ => Err(unable("boolean")),
        },
        CqlType::Tinyint => text.parse().map(Value::Tinyint).map_err(|_| unable("byte")),
        CqlType::Smallint => text.parse().map(Value::Smallint).map_err(|_| unable("short")),
        CqlType::Int => text.parse().map(Value::Int).map_err(|_| unable("int")),
        CqlType::Bigint => text.parse().map(Value::Bigint).map_err(|_| unable("long")),
        CqlType::Counter => text.parse().map(Value::Counter).map_err(|_| unable("long")),
        CqlType::Varint => match parse_integer(text) {
            Some(number) => Ok(Value::Varint(number)),
            None => Err(ValueError::invalid(format!("unable to make int from '{text}'"))),
        },
        CqlType::Decimal => match text.parse() {
            Ok(number) => Ok(Value::Decimal(number)),
            Err(_) => Err(ValueError::invalid(format!(
                "unable to make BigDecimal from '{text}'"
            ))),
        },
        CqlType::Float => parse_float(text).map(Value::Float).ok_or_else(|| unable("float")),
        CqlType::Double => parse_float(text)
            .map(Value::Double)
            .ok_or_else(|| unable("double")),
        CqlType::Date => parse_date_literal(text).map(Value::Date),
        CqlType::Time => parse_time_literal(text).map(Value::Time),
        CqlType::Timestamp => parse_timestamp_literal(text).map(Value::Timestamp),
        CqlType::Duration => text.parse().map(Value::Duration),
        CqlType::Inet => match parse_inet(text) {
            Some(address) => Ok(Value::Inet(address)),
            None => Err(unable("inet address")),
        },
        CqlType::Uuid => parse_uuid(text).map(Value::Uuid).ok_or_else(|| unable("UUID")),
        CqlType::Timeuuid => match parse_uuid(text) {
            Some(uuid) if uuid.get_version_num() == 1 => Ok(Value::Timeuuid(uuid)),
            Some(_) => Err(ValueError::invalid("TimeUUID supports only version 1 UUIDs")),
            None => Err(ValueError::invalid(format!(
                "Unknown timeuuid representation: {text}"
            ))),
        },
        CqlType::Composite(_) | CqlType::DynamicComposite(_) => {
            parse_composite(cql_type, text).map(|wire| Value::Blob(wire.into()))
        }
        CqlType::Empty => Err(ValueError::invalid(format!("'{text}' is not empty"))),
        CqlType::List { .. }
        | CqlType::Set { .. }
        | CqlType::Map { .. }
        | CqlType::Tuple(_)
        | CqlType::Udt { .. }
        | CqlType::Vector { .. } => Err(ValueError::invalid(format!(
            "'{text}' is no constant of type {cql_type}"
        ))),
    }
}

fn is_empty_from_text(cql_type: &CqlType) -> bool {
    matches!(
        cql_type,
        CqlType::Bigint
            | CqlType::Counter
            | CqlType::Decimal
            | CqlType::Double
            | CqlType::Empty
            | CqlType::Float
            | CqlType::Inet
            | CqlType::Int
            | CqlType::Timestamp
            | CqlType::Timeuuid
            | CqlType::Uuid
            | CqlType::Varint
    )
}

/// Pairs of hexadecimal digits.
pub(super) fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

/// Digits, perhaps with a sign.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn parse_integer(text: &str) -> Option<BigInt> {
    let text = text
        .strip_prefix('+')
        .filter(|rest| !rest.starts_with('-'))
        .unwrap_or(text);
    if is_integer(text) { text.parse().ok() } else { None }
}

/// As Java reads floating point numbers: also NaN and Infinity, with a sign.
fn parse_float<F: FromStr>(text: &str) -> Option<F> {
    let magnitude = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = magnitude.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_special = ["NaN", "Infinity"]
        .iter()
        .any(|word| magnitude.eq_ignore_ascii_case(word));
    if is_number || is_special {
        text.parse().ok()
    } else {
        None
    }
}

fn parse_date_literal(text: &str) -> Result<u32, ValueError> {
    if is_raw_number(text) {
        return text.parse().map_err(|_| {
            ValueError::invalid(format!("Unable to make unsigned int (for date) from: '{text}'"))
        });
    }
    parse_date(text)
        .ok_or_else(|| ValueError::invalid(format!("Unable to coerce '{text}' to a formatted date (long)")))
}

fn parse_time_literal(text: &str) -> Result<i64, ValueError> {
    if is_raw_number(text) {
        return match text.parse() {
            Ok(nanoseconds) if (0..DAY_NANOSECONDS).contains(&nanoseconds) => Ok(nanoseconds),
            _ => Err(ValueError::invalid(format!(
                "Unable to make long (for time) from: '{text}'"
            ))),
        };
    }
    parse_time(text).ok_or_else(|| {
        ValueError::invalid(format!(
            "(TimeType) Unable to coerce '{text}' to a formatted time (long)"
        ))
    })
}

fn parse_timestamp_literal(text: &str) -> Result<i64, ValueError> {
    if is_raw_number(text) {
        return text
            .parse()
            .map_err(|_| ValueError::invalid(format!("Unable to make long (for date) from: '{text}'")));
    }
    parse_timestamp(text)
        .ok_or_else(|| ValueError::invalid(format!("Unable to coerce '{text}' to a formatted date (long)")))
}

/// The number itself, not a formatted date or time.
fn is_raw_number(text: &str) -> bool {
    is_integer(text) && !text.starts_with('+')
}

/// An address, never a host name. IPv6 may have a zone, which is not kept.
fn parse_inet(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, _) = text.split_once('%')?;
    address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// 36 characters with hyphens, nothing else.
fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 {
        None
    } else {
        Uuid::try_parse(text).ok()
    }
}
