//! Conversions between the numeric types, as Java's `Number` does them: integers wrap, floats saturate.

use crate::CqlError;
use ceto_model::CqlType;
use ceto_model::value::{Decimal, Value};
use num_bigint::{BigInt, Sign};
use std::str::FromStr;

/// Zeros that a conversion of a decimal to an integer may write out; beyond, the number is refused.
const DECIMAL_ZEROS_MAX: u32 = 10_000;

/// The number in `wire`, a value of the numeric type `from`, as a value of the numeric type `to`. None for zero bytes.
pub(crate) fn convert(from: &CqlType, to: &CqlType, wire: &[u8]) -> Result<Option<Value>, CqlError> {
    let value = match Value::decode(from, wire).map_err(super::of_value)? {
        Value::Empty => return Ok(None),
        value => value,
    };
    if from == to {
        return Ok(Some(value));
    }
    Ok(Some(match to {
        CqlType::Tinyint => Value::Tinyint(to_i32(&value)? as i8),
        CqlType::Smallint => Value::Smallint(to_i32(&value)? as i16),
        CqlType::Int => Value::Int(to_i32(&value)?),
        CqlType::Bigint => Value::Bigint(to_i64(&value)?),
        CqlType::Counter => Value::Counter(to_i64(&value)?),
        CqlType::Varint => Value::Varint(to_integer(&value)?),
        CqlType::Float => Value::Float(to_f32(&value)),
        CqlType::Double => Value::Double(to_f64(&value)),
        CqlType::Decimal => Value::Decimal(to_decimal(&value)?),
        other => {
            return Err(CqlError::Invalid(format!(
                "{from} cannot be converted to {other}"
            )));
        }
    }))
}

/// tinyint to decimal, counter included.
pub(crate) fn is_numeric(cql_type: &CqlType) -> bool {
    is_integer(cql_type) || matches!(cql_type, CqlType::Float | CqlType::Double | CqlType::Decimal)
}

/// tinyint to varint, counter included.
pub(crate) fn is_integer(cql_type: &CqlType) -> bool {
    use CqlType::{Bigint, Counter, Int, Smallint, Tinyint, Varint};
    matches!(cql_type, Tinyint | Smallint | Int | Bigint | Counter | Varint)
}

fn small_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Tinyint(number) => Some(i64::from(*number)),
        Value::Smallint(number) => Some(i64::from(*number)),
        Value::Int(number) => Some(i64::from(*number)),
        Value::Bigint(number) | Value::Counter(number) => Some(*number),
        _ => None,
    }
}

fn to_i32(value: &Value) -> Result<i32, CqlError> {
    match value {
        Value::Float(number) => Ok(*number as i32),
        Value::Double(number) => Ok(*number as i32),
        other => Ok(to_i64(other)? as i32),
    }
}

fn to_i64(value: &Value) -> Result<i64, CqlError> {
    match value {
        Value::Float(number) => Ok(*number as i64),
        Value::Double(number) => Ok(*number as i64),
        other => match small_integer(other) {
            Some(number) => Ok(number),
            None => Ok(low_bits(&to_integer(other)?)),
        },
    }
}

/// The low 64 bits of the two's complement.
fn low_bits(number: &BigInt) -> i64 {
    let magnitude = number.magnitude().iter_u64_digits().next().unwrap_or(0);
    let signed = magnitude.cast_signed();
    if number.sign() == Sign::Minus {
        signed.wrapping_neg()
    } else {
        signed
    }
}

/// The whole part.
pub(crate) fn to_integer(value: &Value) -> Result<BigInt, CqlError> {
    match value {
        Value::Varint(number) => Ok(number.clone()),
        Value::Decimal(decimal) => truncate(decimal),
        Value::Float(_) | Value::Double(_) => truncate(&to_decimal(value)?),
        other => small_integer(other)
            .map(BigInt::from)
            .ok_or_else(|| no_number(other)),
    }
}

fn truncate(decimal: &Decimal) -> Result<BigInt, CqlError> {
    let zeros = decimal.scale().unsigned_abs();
    if decimal.scale() > 0 && u64::from(zeros) > decimal.unscaled().bits() {
        return Ok(BigInt::ZERO);
    }
    let power = power_of_ten(zeros)?;
    Ok(if decimal.scale() > 0 {
        decimal.unscaled() / power
    } else {
        decimal.unscaled() * power
    })
}

/// 10 to the `exponent`, up to [`DECIMAL_ZEROS_MAX`].
pub(crate) fn power_of_ten(exponent: u32) -> Result<BigInt, CqlError> {
    if exponent > DECIMAL_ZEROS_MAX {
        return Err(CqlError::Invalid(format!(
            "a decimal with an exponent of {exponent} is too large for this operation (at most {DECIMAL_ZEROS_MAX})"
        )));
    }
    Ok(BigInt::from(10).pow(exponent))
}

fn to_f32(value: &Value) -> f32 {
    match value {
        Value::Float(number) => *number,
        Value::Double(number) => *number as f32,
        other => match small_integer(other) {
            Some(number) => number as f32,
            None => text_of(other).parse().unwrap_or(f32::NAN),
        },
    }
}

/// As a double; NaN for what is no number.
pub(crate) fn to_f64(value: &Value) -> f64 {
    match value {
        Value::Float(number) => f64::from(*number),
        Value::Double(number) => *number,
        other => match small_integer(other) {
            Some(number) => number as f64,
            None => text_of(other).parse().unwrap_or(f64::NAN),
        },
    }
}

/// As a decimal: floats by their shortest digits.
pub(crate) fn to_decimal(value: &Value) -> Result<Decimal, CqlError> {
    match value {
        Value::Decimal(decimal) => Ok(decimal.clone()),
        Value::Varint(number) => Ok(Decimal::new(number.clone(), 0)),
        Value::Float(number) => decimal_of_text(&format!("{number:?}")),
        Value::Double(number) => decimal_of_text(&format!("{number:?}")),
        other => match small_integer(other) {
            Some(number) => Ok(Decimal::new(BigInt::from(number), 0)),
            None => Err(no_number(other)),
        },
    }
}

fn decimal_of_text(text: &str) -> Result<Decimal, CqlError> {
    Decimal::from_str(text).map_err(|_| CqlError::Invalid(format!("{text} cannot be converted to a decimal")))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Varint(number) => number.to_string(),
        Value::Decimal(decimal) => decimal.to_scientific(),
        _ => String::new(),
    }
}

fn no_number(value: &Value) -> CqlError {
    CqlError::Invalid(format!("a {} is no number", value.kind()))
}
