//! The server-side check of wire bytes against a type, without decoding them.
//!
//! Accepts what Cassandra accepts, with its error texts: client tests and drivers match on them. Zero bytes are a value
//! of their own ("empty", neither null nor a default) for the types that have always allowed them.

use super::ValueError;
use super::composite::Components;
use super::wire::{Elements, take_component, take_vector_element, take_vint, vector_element_size};
use crate::CqlType;

/// Checks that `wire` is a value of `cql_type`. Error: always [`ValueError::Invalid`].
pub fn validate(cql_type: &CqlType, wire: &[u8]) -> Result<(), ValueError> {
    let length = wire.len();
    let check = |fine: bool, expected: &str| {
        if fine {
            Ok(())
        } else {
            Err(ValueError::invalid(format!("Expected {expected} ({length})")))
        }
    };
    match cql_type {
        CqlType::Blob | CqlType::Varint | CqlType::Custom(_) => Ok(()),
        CqlType::Ascii => match wire.iter().find(|byte| !byte.is_ascii()) {
            Some(byte) => Err(ValueError::invalid(format!(
                "Invalid byte for ascii: {}",
                byte.cast_signed()
            ))),
            None => Ok(()),
        },
        CqlType::Text => match std::str::from_utf8(wire) {
            Ok(_) => Ok(()),
            Err(_) => Err(ValueError::invalid("String didn't validate.")),
        },
        CqlType::Bigint | CqlType::Counter => check(matches!(length, 0 | 8), "8 or 0 byte long"),
        CqlType::Boolean => check(length <= 1, "1 or 0 byte value"),
        CqlType::Date => check(length == 4, "4 byte long for date"),
        CqlType::Decimal => check(length == 0 || length >= 4, "0 or at least 4 bytes"),
        CqlType::Double => check(matches!(length, 0 | 8), "8 or 0 byte value for a double"),
        CqlType::Duration => validate_duration(wire),
        CqlType::Empty => match length {
            0 => Ok(()),
            _ => Err(ValueError::invalid("EmptyType only accept empty values")),
        },
        CqlType::Float => check(matches!(length, 0 | 4), "4 or 0 byte value for a float"),
        CqlType::Inet => match length {
            0 | 4 | 16 => Ok(()),
            _ => Err(ValueError::invalid(format!(
                "Expected 4 or 16 byte inetaddress; got {}",
                hex(wire)
            ))),
        },
        CqlType::Int => check(matches!(length, 0 | 4), "4 or 0 byte int"),
        CqlType::Smallint => check(length == 2, "2 bytes for a smallint"),
        CqlType::Time => check(length == 8, "8 byte long for time"),
        CqlType::Timestamp => check(matches!(length, 0 | 8), "8 or 0 byte long for date"),
        CqlType::Tinyint => check(length == 1, "1 byte for a tinyint"),
        CqlType::Uuid => validate_uuid_length(length),
        CqlType::Timeuuid => {
            validate_uuid_length(length)?;
            match wire.get(6) {
                Some(byte) if byte >> 4 != 1 => {
                    Err(ValueError::invalid("Invalid version for TimeUUID type."))
                }
                _ => Ok(()),
            }
        }
        CqlType::List { element, .. } | CqlType::Set { element, .. } => {
            Elements::new(cql_type, wire)?.try_for_each(|bytes| validate(element, bytes?))
        }
        CqlType::Map { key, value, .. } => {
            let mut is_key = false;
            Elements::new(cql_type, wire)?.try_for_each(|bytes| {
                is_key = !is_key;
                validate(if is_key { key } else { value }, bytes?)
            })
        }
        CqlType::Tuple(elements) => {
            let mut rest = wire;
            for (index, element) in elements.iter().enumerate() {
                match take_component(&mut rest, || format!("{index}th component"))? {
                    None => return Ok(()),
                    Some(None) => {}
                    Some(Some(bytes)) => validate(element, bytes)?,
                }
            }
            consumed(rest, "tuple")
        }
        CqlType::Udt { definition, .. } => {
            let mut rest = wire;
            for (index, field) in definition.fields.iter().enumerate() {
                match take_component(&mut rest, || format!("{index}th field {}", field.name))? {
                    None => return Ok(()),
                    Some(None) => {}
                    Some(Some(bytes)) => validate(&field.cql_type, bytes)?,
                }
            }
            consumed(rest, "UDT")
        }
        CqlType::Composite(_) | CqlType::DynamicComposite(_) => {
            Components::new(cql_type, wire).try_for_each(|component| {
                let component = component?;
                validate(&component.cql_type, component.value)
            })
        }
        CqlType::Vector { element, dimension } => {
            if wire.is_empty() {
                return Err(ValueError::invalid("Invalid empty vector value"));
            }
            let mut rest = wire;
            let size = vector_element_size(element);
            for _ in 0..*dimension {
                let bytes = take_vector_element(&mut rest, size)
                    .ok_or_else(|| ValueError::invalid(format!("Not enough bytes to read a {cql_type}")))?;
                validate(element, bytes)?;
            }
            match rest.len() {
                0 => Ok(()),
                more => Err(ValueError::invalid(format!(
                    "Unexpected {more} extraneous bytes after {cql_type} value"
                ))),
            }
        }
    }
}

/// Nothing may be left after the last field of a tuple or UDT.
pub(super) fn consumed(rest: &[u8], noun: &str) -> Result<(), ValueError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(ValueError::invalid(format!(
            "Invalid remaining data after end of {noun} value"
        )))
    }
}

fn validate_uuid_length(length: usize) -> Result<(), ValueError> {
    match length {
        0 | 16 => Ok(()),
        _ => Err(ValueError::invalid(format!(
            "UUID should be 16 or 0 bytes ({length})"
        ))),
    }
}

fn validate_duration(wire: &[u8]) -> Result<(), ValueError> {
    let mut rest = wire;
    let mut next = || take_vint(&mut rest);
    let (true, Some(months), Some(days), Some(nanoseconds)) = (wire.len() >= 3, next(), next(), next())
    else {
        return Err(ValueError::invalid(format!(
            "Expected at least 3 bytes for a duration ({})",
            wire.len()
        )));
    };
    for (unit, number) in [("months", months), ("days", days)] {
        if i32::try_from(number).is_err() {
            return Err(ValueError::invalid(format!(
                "The duration {unit} must be a 32 bits integer but was: {number}"
            )));
        }
    }
    let parts = [months, days, nanoseconds];
    if parts.iter().all(|&part| part >= 0) || parts.iter().all(|&part| part <= 0) {
        Ok(())
    } else {
        Err(ValueError::invalid(format!(
            "The duration months, days and nanoseconds must be all of the same sign ({months}, {days}, {nanoseconds})"
        )))
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}
