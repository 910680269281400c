//! `CAST(value AS type)`.
//!
//! From -> to, as in Cassandra: a number to any number; anything scalar to text (ascii keeps to ASCII); timeuuid to
//! timestamp and date; timestamp and date to each other; any type to itself.

use super::number::{convert, is_numeric};
use super::of_value;
use crate::CqlError;
use crate::functions::calendar;
use crate::plan::ticks_of_time_uuid;
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::value::Value;

/// Fails for casts that do not exist.
pub(super) fn check(from: &CqlType, to: &CqlType) -> Result<(), CqlError> {
    let fine = match (from, to) {
        _ if from == to => true,
        (CqlType::Blob | CqlType::Duration | CqlType::Custom(_), _) => false,
        (CqlType::Composite(_) | CqlType::DynamicComposite(_), _) => false,
        (_, CqlType::Counter) => false,
        (from, to) if is_numeric(from) && is_numeric(to) => true,
        (from, CqlType::Text | CqlType::Ascii) => !is_compound(from) && *from != CqlType::Text,
        (CqlType::Timeuuid, CqlType::Timestamp | CqlType::Date) => true,
        (CqlType::Timestamp, CqlType::Date) | (CqlType::Date, CqlType::Timestamp) => true,
        _ => false,
    };
    if fine {
        Ok(())
    } else {
        Err(CqlError::Invalid(format!("{from} cannot be cast to {to}")))
    }
}

fn is_compound(cql_type: &CqlType) -> bool {
    cql_type.is_collection()
        || matches!(
            cql_type,
            CqlType::Tuple(_) | CqlType::Udt { .. } | CqlType::Vector { .. }
        )
}

/// Converts. None: there is no such value.
pub(super) fn cast(from: &CqlType, to: &CqlType, wire: &Bytes) -> Result<Option<Bytes>, CqlError> {
    if from == to {
        return Ok(Some(wire.clone()));
    }
    if wire.is_empty() && !matches!(from, CqlType::Ascii | CqlType::Text) {
        return Ok(None);
    }
    let value = match (from, to) {
        (from, CqlType::Text | CqlType::Ascii) => return Ok(Some(text_of(from, wire)?)),
        (from, to) if is_numeric(from) => convert(from, to, wire)?,
        (CqlType::Date, CqlType::Timestamp) => match Value::decode(from, wire).map_err(of_value)? {
            Value::Date(date) => Some(Value::Timestamp(calendar::millis_of_date(date))),
            _ => None,
        },
        (from, to) => match millis_of(from, wire)? {
            Some(millis) if *to == CqlType::Date => calendar::date_of_millis(millis).map(Value::Date),
            millis => millis.map(Value::Timestamp),
        },
    };
    let wire = value.map(|value| value.to_wire(to).map_err(of_value));
    Ok(wire.transpose()?.map(Bytes::from))
}

fn millis_of(from: &CqlType, wire: &[u8]) -> Result<Option<i64>, CqlError> {
    Ok(match Value::decode(from, wire).map_err(of_value)? {
        Value::Timestamp(millis) => Some(millis),
        Value::Timeuuid(uuid) => Some(ticks_of_time_uuid(uuid).div_euclid(10_000)),
        _ => None,
    })
}

fn text_of(from: &CqlType, wire: &Bytes) -> Result<Bytes, CqlError> {
    if matches!(from, CqlType::Ascii | CqlType::Text) {
        return Ok(wire.clone());
    }
    let text = Value::decode(from, wire).map_err(of_value)?.to_text();
    Ok(text.into())
}
