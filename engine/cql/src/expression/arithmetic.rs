//! `+ - * / %` and change of sign, on numbers and between dates and durations.
//!
//! Result types are Cassandra's: of two numbers the type that holds both. Integers wrap; division by zero fails.

use super::number::{convert, is_integer, is_numeric, power_of_ten};
use super::typing::{Partial, PartialKind};
use super::{Operation, of_value};
use crate::CqlError;
use crate::ast::{ArithmeticOperator, LiteralKind};
use crate::functions::calendar;
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::value::{Decimal, Duration, Value};
use num_bigint::BigInt;

/// Digits that a quotient of decimals has at least, when it does not end earlier.
const QUOTIENT_DIGITS: i64 = 34;

/// The numeric type that holds both operands.
pub(crate) fn common_type(left: &CqlType, right: &CqlType) -> Option<CqlType> {
    use CqlType::{Bigint, Counter, Decimal, Double, Float, Int, Smallint, Tinyint, Varint};
    let rank = |cql_type: &CqlType| match cql_type {
        Tinyint => Some(0),
        Smallint => Some(1),
        Int => Some(2),
        Bigint | Counter => Some(3),
        Varint => Some(4),
        Float => Some(5),
        Double => Some(6),
        Decimal => Some(7),
        _ => None,
    };
    let (low, high) = match (rank(left)?, rank(right)?) {
        (a, b) if a <= b => (left, right),
        _ => (right, left),
    };
    Some(match (low, high) {
        (Varint, Float | Double) => Decimal,
        (Bigint | Counter, Float) => Double,
        (_, Counter) => Bigint,
        (_, other) => other.clone(),
    })
}

/// The type that an operand without a type gets beside one of type `known`.
pub(super) fn partner(known: &CqlType, open: &Partial<'_>, natural: Option<CqlType>) -> CqlType {
    let is_duration = |partial: &Partial<'_>| match &partial.kind {
        PartialKind::Literal(literal) => literal.kind == LiteralKind::Duration,
        _ => false,
    };
    if is_duration(open) || is_temporal(known) {
        return CqlType::Duration;
    }
    match natural {
        // An integer takes the type of the other side; a fraction beside an integer does not.
        Some(natural) if is_integer(known) && !is_integer(&natural) && is_numeric(&natural) => natural,
        _ if *known == CqlType::Counter => CqlType::Bigint,
        _ => known.clone(),
    }
}

/// The type of what stands to the right of an operand of type `left`, when the result is to have that type too.
pub(super) fn right_of(operator: ArithmeticOperator, left: &CqlType) -> CqlType {
    let is_shift = matches!(operator, ArithmeticOperator::Add | ArithmeticOperator::Subtract);
    match is_shift && is_temporal(left) {
        true => CqlType::Duration,
        false => left.clone(),
    }
}

fn is_temporal(cql_type: &CqlType) -> bool {
    matches!(cql_type, CqlType::Date | CqlType::Timestamp)
}

/// The type of `left operator right`.
pub(super) fn result_type(
    operator: ArithmeticOperator,
    left: &CqlType,
    right: &CqlType,
) -> Result<CqlType, CqlError> {
    use ArithmeticOperator::{Add, Subtract};
    if is_temporal(left) && *right == CqlType::Duration && matches!(operator, Add | Subtract) {
        return Ok(left.clone());
    }
    if operator == Add
        && matches!(
            (left, right),
            (CqlType::Text | CqlType::Ascii, CqlType::Text | CqlType::Ascii)
        )
    {
        return Ok(CqlType::Text);
    }
    common_type(left, right).ok_or_else(|| {
        CqlError::Invalid(format!(
            "the '{}' operation is not supported between {left} and {right}",
            operator.symbol()
        ))
    })
}

/// Fails for what has no sign.
pub(super) fn check_negation(cql_type: &CqlType) -> Result<(), CqlError> {
    if is_numeric(cql_type) {
        Ok(())
    } else {
        Err(CqlError::Invalid(format!(
            "the '-' operation is not supported on {cql_type}"
        )))
    }
}

/// Computes. None: an operand is a value of zero bytes.
pub(super) fn operate(operation: &Operation, left: &[u8], right: &[u8]) -> Result<Option<Bytes>, CqlError> {
    let Operation {
        operator,
        left_type,
        right_type,
        result_type,
        ..
    } = operation;
    if is_temporal(result_type) {
        return shift(*operator, result_type, left, right);
    }
    if *result_type == CqlType::Text {
        return Ok(Some([left, right].concat().into()));
    }
    let (Some(left), Some(right)) = (
        convert(left_type, result_type, left)?,
        convert(right_type, result_type, right)?,
    ) else {
        return Ok(None);
    };
    let failure = |message: &str| CqlError::FunctionFailure {
        keyspace: "system".to_owned(),
        name: format!("_{}", operator.symbol()),
        argument_types: vec![left_type.to_string(), right_type.to_string()],
        message: message.to_owned(),
    };
    let result = apply(*operator, left, right).map_err(|message| failure(&message))?;
    encode(result_type, &result)
}

fn encode(cql_type: &CqlType, value: &Value) -> Result<Option<Bytes>, CqlError> {
    Ok(Some(value.to_wire(cql_type).map_err(of_value)?.into()))
}

macro_rules! wrapping {
    ($operator:expr, $a:expr, $b:expr, $wrap:path) => {
        match $operator {
            ArithmeticOperator::Add => Ok($wrap($a.wrapping_add($b))),
            ArithmeticOperator::Subtract => Ok($wrap($a.wrapping_sub($b))),
            ArithmeticOperator::Multiply => Ok($wrap($a.wrapping_mul($b))),
            ArithmeticOperator::Divide | ArithmeticOperator::Modulo if $b == 0 => Err("/ by zero".to_owned()),
            ArithmeticOperator::Divide => Ok($wrap($a.wrapping_div($b))),
            ArithmeticOperator::Modulo => Ok($wrap($a.wrapping_rem($b))),
        }
    };
}

macro_rules! floating {
    ($operator:expr, $a:expr, $b:expr, $wrap:path) => {
        Ok($wrap(match $operator {
            ArithmeticOperator::Add => $a + $b,
            ArithmeticOperator::Subtract => $a - $b,
            ArithmeticOperator::Multiply => $a * $b,
            ArithmeticOperator::Divide => $a / $b,
            ArithmeticOperator::Modulo => $a % $b,
        }))
    };
}

/// Both operands are of one type.
fn apply(operator: ArithmeticOperator, left: Value, right: Value) -> Result<Value, String> {
    match (left, right) {
        (Value::Tinyint(a), Value::Tinyint(b)) => wrapping!(operator, a, b, Value::Tinyint),
        (Value::Smallint(a), Value::Smallint(b)) => wrapping!(operator, a, b, Value::Smallint),
        (Value::Int(a), Value::Int(b)) => wrapping!(operator, a, b, Value::Int),
        (Value::Bigint(a), Value::Bigint(b)) => wrapping!(operator, a, b, Value::Bigint),
        (Value::Float(a), Value::Float(b)) => floating!(operator, a, b, Value::Float),
        (Value::Double(a), Value::Double(b)) => floating!(operator, a, b, Value::Double),
        (Value::Varint(a), Value::Varint(b)) => Ok(Value::Varint(match operator {
            ArithmeticOperator::Add => a + b,
            ArithmeticOperator::Subtract => a - b,
            ArithmeticOperator::Multiply => a * b,
            ArithmeticOperator::Divide | ArithmeticOperator::Modulo if b == BigInt::ZERO => {
                return Err("BigInteger divide by zero".to_owned());
            }
            ArithmeticOperator::Divide => a / b,
            ArithmeticOperator::Modulo => a % b,
        })),
        (Value::Decimal(a), Value::Decimal(b)) => decimals(operator, &a, &b).map(Value::Decimal),
        (a, b) => Err(format!("{} and {} cannot be combined", a.kind(), b.kind())),
    }
}

/// Arithmetic of decimals.
pub(crate) fn decimals(operator: ArithmeticOperator, a: &Decimal, b: &Decimal) -> Result<Decimal, String> {
    let scale = a.scale().max(b.scale());
    let aligned = |number: &Decimal| {
        let zeros = i64::from(scale) - i64::from(number.scale());
        let zeros = u32::try_from(zeros).map_err(|error| error.to_string())?;
        Ok::<_, String>(number.unscaled() * power_of_ten(zeros).map_err(|error| error.to_string())?)
    };
    match operator {
        ArithmeticOperator::Add => Ok(Decimal::new(aligned(a)? + aligned(b)?, scale)),
        ArithmeticOperator::Subtract => Ok(Decimal::new(aligned(a)? - aligned(b)?, scale)),
        ArithmeticOperator::Multiply => {
            let scale = a.scale().checked_add(b.scale()).ok_or("exponent out of range")?;
            Ok(Decimal::new(a.unscaled() * b.unscaled(), scale))
        }
        ArithmeticOperator::Divide | ArithmeticOperator::Modulo if *b.unscaled() == BigInt::ZERO => {
            Err("/ by zero".to_owned())
        }
        ArithmeticOperator::Modulo => Ok(Decimal::new(aligned(a)? % aligned(b)?, scale)),
        ArithmeticOperator::Divide => quotient(a, b),
    }
}

fn quotient(a: &Decimal, b: &Decimal) -> Result<Decimal, String> {
    let digits = |number: &Decimal| number.unscaled().magnitude().to_string().len() as i64;
    let zeros = (QUOTIENT_DIGITS - digits(a) + digits(b)).max(0);
    let power = power_of_ten(zeros as u32).map_err(|error| error.to_string())?;
    let mut unscaled = a.unscaled() * power / b.unscaled();
    let preferred = i64::from(a.scale()) - i64::from(b.scale());
    let mut scale = preferred + zeros;
    // Trailing zeros go, down to the scale that the operands suggest.
    while scale > preferred && &unscaled % 10 == BigInt::ZERO {
        unscaled /= 10;
        scale -= 1;
    }
    Ok(Decimal::new(
        unscaled,
        i32::try_from(scale).map_err(|error| error.to_string())?,
    ))
}

/// Change of sign.
pub(super) fn negate(cql_type: &CqlType, wire: &[u8]) -> Result<Option<Bytes>, CqlError> {
    let negative = match Value::decode(cql_type, wire).map_err(of_value)? {
        Value::Tinyint(number) => Value::Tinyint(number.wrapping_neg()),
        Value::Smallint(number) => Value::Smallint(number.wrapping_neg()),
        Value::Int(number) => Value::Int(number.wrapping_neg()),
        Value::Bigint(number) => Value::Bigint(number.wrapping_neg()),
        Value::Counter(number) => Value::Counter(number.wrapping_neg()),
        Value::Varint(number) => Value::Varint(-number),
        Value::Float(number) => Value::Float(-number),
        Value::Double(number) => Value::Double(-number),
        Value::Decimal(number) => Value::Decimal(Decimal::new(-number.unscaled(), number.scale())),
        _ => return Ok(None),
    };
    encode(cql_type, &negative)
}

/// A date or timestamp moved by a duration.
fn shift(
    operator: ArithmeticOperator,
    cql_type: &CqlType,
    left: &[u8],
    right: &[u8],
) -> Result<Option<Bytes>, CqlError> {
    let duration = match Value::decode(&CqlType::Duration, right).map_err(of_value)? {
        Value::Duration(duration) => duration,
        _ => return Ok(None),
    };
    let sign = if operator == ArithmeticOperator::Subtract {
        -1
    } else {
        1
    };
    let out_of_range = || CqlError::invalid("the result of the date arithmetic is out of range");
    let moved = match Value::decode(cql_type, left).map_err(of_value)? {
        Value::Timestamp(millis) => {
            Value::Timestamp(calendar::add(millis, &duration, sign).ok_or_else(out_of_range)?)
        }
        Value::Date(days) => {
            check_days_only(&duration)?;
            let millis = calendar::millis_of_date(days);
            let moved = calendar::add(millis, &duration, sign).ok_or_else(out_of_range)?;
            Value::Date(calendar::date_of_millis(moved).ok_or_else(out_of_range)?)
        }
        _ => return Ok(None),
    };
    encode(cql_type, &moved)
}

fn check_days_only(duration: &Duration) -> Result<(), CqlError> {
    if duration.nanoseconds() % calendar::NANOSECONDS_PER_DAY == 0 {
        Ok(())
    } else {
        Err(CqlError::invalid(
            "The duration must have a day precision. Was: a duration with hours or less",
        ))
    }
}
