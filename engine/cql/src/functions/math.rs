//! abs, exp, log, log10, round: one overload per numeric type, each with the type of its argument.

use super::{ScalarFunction, decoded, encoded};
use crate::CqlError;
use crate::expression::number::{to_decimal, to_f64};
use ceto_model::CqlType;
use ceto_model::value::{Decimal, Value};
use num_bigint::BigInt;

const NUMBERS: [CqlType; 9] = [
    CqlType::Tinyint,
    CqlType::Smallint,
    CqlType::Int,
    CqlType::Bigint,
    CqlType::Varint,
    CqlType::Float,
    CqlType::Double,
    CqlType::Decimal,
    CqlType::Counter,
];

pub(super) fn candidates(name: &str, out: &mut Vec<ScalarFunction>) {
    if !matches!(name, "abs" | "round" | "exp" | "log" | "log10") {
        return;
    }
    out.extend(NUMBERS.map(|number| {
        ScalarFunction::new(name, vec![number.clone()], number, |function, arguments, _| {
            let Some(value) = decoded(function, arguments, 0)? else {
                return Ok(None);
            };
            let result = match function.name.as_str() {
                "abs" => absolute(value),
                "round" => round(function, value)?,
                "exp" => through_double(function, value, f64::exp)?,
                "log" => through_double(function, value, f64::ln)?,
                _ => through_double(function, value, f64::log10)?,
            };
            encoded(function, result)
        })
    }));
}

fn absolute(value: Value) -> Value {
    match value {
        Value::Tinyint(n) => Value::Tinyint(n.wrapping_abs()),
        Value::Smallint(n) => Value::Smallint(n.wrapping_abs()),
        Value::Int(n) => Value::Int(n.wrapping_abs()),
        Value::Bigint(n) => Value::Bigint(n.wrapping_abs()),
        Value::Counter(n) => Value::Counter(n.wrapping_abs()),
        Value::Varint(n) => Value::Varint(n.magnitude().clone().into()),
        Value::Float(n) => Value::Float(n.abs()),
        Value::Double(n) => Value::Double(n.abs()),
        Value::Decimal(n) => Value::Decimal(Decimal::new(n.unscaled().magnitude().clone().into(), n.scale())),
        other => other,
    }
}

/// Halves go away from zero for decimals, up for floats: as Java's `BigDecimal` and `Math.round`.
fn round(function: &ScalarFunction, value: Value) -> Result<Value, CqlError> {
    Ok(match value {
        Value::Float(n) => Value::Float((n + 0.5).floor()),
        Value::Double(n) => Value::Double((n + 0.5).floor()),
        Value::Decimal(n) => Value::Decimal(round_decimal(function, &n)?),
        other => other,
    })
}

fn round_decimal(function: &ScalarFunction, number: &Decimal) -> Result<Decimal, CqlError> {
    let Ok(digits @ 1..) = u32::try_from(number.scale()) else {
        return Ok(number.clone());
    };
    if u64::from(digits) > number.unscaled().bits() + 1 {
        return Ok(Decimal::new(BigInt::ZERO, 0));
    }
    let power = crate::expression::number::power_of_ten(digits)
        .map_err(|error| function.failure(error.to_string()))?;
    let half: BigInt = &power / 2;
    let magnitude: BigInt = number.unscaled().magnitude().clone().into();
    let rounded = (magnitude + half) / power;
    let negative = number.unscaled().sign() == num_bigint::Sign::Minus;
    Ok(Decimal::new(if negative { -rounded } else { rounded }, 0))
}

/// Computes in doubles and comes back to the type of the argument.
fn through_double(
    function: &ScalarFunction,
    value: Value,
    compute: fn(f64) -> f64,
) -> Result<Value, CqlError> {
    let result = compute(to_f64(&value));
    Ok(match value {
        Value::Tinyint(_) => Value::Tinyint(result as i32 as i8),
        Value::Smallint(_) => Value::Smallint(result as i32 as i16),
        Value::Int(_) => Value::Int(result as i32),
        Value::Bigint(_) => Value::Bigint(result as i64),
        Value::Counter(_) => Value::Counter(result as i64),
        Value::Float(_) => Value::Float(result as f32),
        Value::Double(_) => Value::Double(result),
        Value::Varint(_) | Value::Decimal(_) => {
            let decimal = to_decimal(&Value::Double(result))
                .map_err(|_| function.failure(format!("the result {result} is no number of this type")))?;
            match value {
                Value::Varint(_) => {
                    Value::Varint(crate::expression::number::to_integer(&Value::Decimal(decimal))?)
                }
                _ => Value::Decimal(decimal),
            }
        }
        other => other,
    })
}
