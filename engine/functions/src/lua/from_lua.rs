//! Lua values as CQL values of a type. Recursion follows the type, never the data.

use std::str::FromStr;

use ceto_model::CqlType;
use ceto_model::types::UserType;
use ceto_model::value::{Decimal, Duration, Value as CqlValue, parse_literal};
use mlua::{Table, Value};
use num_bigint::BigInt;

use super::number::Number;

/// Digits of the integer part of a number that a double is written with.
const DOUBLE_DIGITS_MAX: usize = 400;

/// The CQL value; None is null. The error says what was found.
pub(super) fn convert(value: &Value, cql_type: &CqlType) -> Result<Option<CqlValue>, String> {
    if value.is_nil() {
        return Ok(None);
    }
    some(value, cql_type).map(Some)
}

fn mismatch(value: &Value, cql_type: &CqlType) -> String {
    format!("a {} is no {cql_type}", value.type_name())
}

fn some(value: &Value, cql_type: &CqlType) -> Result<CqlValue, String> {
    use CqlType as T;
    Ok(match cql_type {
        T::Text | T::Ascii => CqlValue::Text(text(value, cql_type)?),
        T::Blob | T::Composite(_) | T::DynamicComposite(_) | T::Custom(_) => match value {
            Value::String(bytes) => CqlValue::Blob(bytes.as_bytes().to_vec().into()),
            _ => return Err(mismatch(value, cql_type)),
        },
        T::Boolean => match value {
            Value::Boolean(boolean) => CqlValue::Boolean(*boolean),
            _ => return Err(mismatch(value, cql_type)),
        },
        T::Tinyint => CqlValue::Tinyint(integer(value, cql_type)? as i8),
        T::Smallint => CqlValue::Smallint(integer(value, cql_type)? as i16),
        T::Int => CqlValue::Int(integer(value, cql_type)? as i32),
        T::Bigint => CqlValue::Bigint(integer(value, cql_type)?),
        T::Counter => CqlValue::Counter(integer(value, cql_type)?),
        T::Float => CqlValue::Float(double(value, cql_type)? as f32),
        T::Double => CqlValue::Double(double(value, cql_type)?),
        T::Varint => CqlValue::Varint(varint(value, cql_type)?),
        T::Decimal => CqlValue::Decimal(number(value, cql_type)?.into_decimal()),
        T::Date => match value {
            Value::Integer(days) => {
                let days =
                    u32::try_from(*days).map_err(|_| format!("{days} is no number of days of a date"))?;
                CqlValue::Date(days)
            }
            Value::Table(table) => date_of_table(table)?,
            _ => literal(value, cql_type)?,
        },
        T::Time => match value {
            Value::Integer(nanoseconds) => CqlValue::Time(*nanoseconds),
            _ => literal(value, cql_type)?,
        },
        T::Timestamp => match value {
            Value::Integer(milliseconds) => CqlValue::Timestamp(*milliseconds),
            _ => literal(value, cql_type)?,
        },
        T::Duration => match value {
            Value::Table(table) => duration_of_table(table)?,
            _ => literal(value, cql_type)?,
        },
        T::Inet | T::Uuid | T::Timeuuid => literal(value, cql_type)?,
        T::Empty => return Err(mismatch(value, cql_type)),
        T::List { element, .. } => CqlValue::List(sequence(value, cql_type, element)?),
        T::Vector { element, dimension } => {
            let values = sequence(value, cql_type, element)?;
            if values.len() != usize::from(*dimension) {
                return Err(format!("{} elements are no {cql_type}", values.len()));
            }
            CqlValue::Vector(values)
        }
        T::Set { element, .. } => CqlValue::Set(set(value, cql_type, element)?),
        T::Map {
            key, value: content, ..
        } => CqlValue::Map(map(value, cql_type, key, content)?),
        T::Tuple(types) => CqlValue::Tuple(tuple(value, cql_type, types)?),
        T::Udt { definition, .. } => CqlValue::Udt(user_type(value, cql_type, definition)?),
    })
}

fn text(value: &Value, cql_type: &CqlType) -> Result<String, String> {
    match value {
        Value::String(text) => match text.to_str() {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err("a string is no valid UTF-8".to_owned()),
        },
        Value::Integer(number) => Ok(number.to_string()),
        Value::Number(_) => value.to_string().map_err(|_| mismatch(value, cql_type)),
        Value::UserData(data) => match data.borrow::<Number>() {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err(mismatch(value, cql_type)),
        },
        _ => Err(mismatch(value, cql_type)),
    }
}

/// A number of any kind.
fn number(value: &Value, cql_type: &CqlType) -> Result<Number, String> {
    match value {
        Value::Integer(number) => Ok(Number::from_integer((*number).into())),
        // all digits of a whole number
        Value::Number(number) if number.fract() == 0.0 => number_of_text(&format!("{number:.0}"), cql_type),
        Value::Number(number) => number_of_text(&number.to_string(), cql_type),
        Value::String(text) => number_of_text(&text.to_string_lossy(), cql_type),
        Value::UserData(data) => match data.borrow::<Number>() {
            Ok(number) => Ok(number.clone()),
            Err(_) => Err(mismatch(value, cql_type)),
        },
        _ => Err(mismatch(value, cql_type)),
    }
}

fn number_of_text(text: &str, cql_type: &CqlType) -> Result<Number, String> {
    let text = text.trim();
    let parsed = (text.len() <= DOUBLE_DIGITS_MAX)
        .then(|| Decimal::from_str(text).ok())
        .flatten();
    parsed
        .map(Number::from_decimal)
        .ok_or_else(|| format!("'{}' is no {cql_type}", text.chars().take(64).collect::<String>()))
}

fn varint(value: &Value, cql_type: &CqlType) -> Result<BigInt, String> {
    let number = number(value, cql_type)?;
    number
        .to_integer()
        .ok_or_else(|| format!("{number} is no {cql_type}"))
}

/// Cut to 64 bits; the caller cuts further.
fn integer(value: &Value, cql_type: &CqlType) -> Result<i64, String> {
    if let Value::Integer(number) = value {
        return Ok(*number);
    }
    let whole = varint(value, cql_type)?;
    let low: BigInt = whole & BigInt::from(u64::MAX);
    // Between 0 and 2^64 now.
    Ok(u64::try_from(low).unwrap_or_default().cast_signed())
}

fn double(value: &Value, cql_type: &CqlType) -> Result<f64, String> {
    match value {
        Value::Integer(number) => Ok(*number as f64),
        Value::Number(number) => Ok(*number),
        _ => {
            let number = number(value, cql_type)?;
            let parsed = number.to_string().parse();
            parsed.map_err(|_| mismatch(value, cql_type))
        }
    }
}

/// A value that is written as in a statement.
fn literal(value: &Value, cql_type: &CqlType) -> Result<CqlValue, String> {
    let Value::String(text) = value else {
        return Err(mismatch(value, cql_type));
    };
    let text = text.to_string_lossy();
    parse_literal(cql_type, &text).map_err(|error| error.to_string())
}

fn field(table: &Table, name: &str) -> Result<i64, String> {
    let found: mlua::Result<Value> = table.raw_get(name);
    match found {
        Ok(Value::Integer(number)) => Ok(number),
        Ok(Value::Number(number)) if number.fract() == 0.0 && number.abs() < 9e15 => Ok(number as i64),
        _ => Err(format!("the field {name} of a table is no integer")),
    }
}

/// Refuses keys other than `names`.
fn check_keys(table: &Table, names: &[&str]) -> Result<(), String> {
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        let is_known = key
            .as_string()
            .is_some_and(|key| names.iter().any(|name| *key == **name));
        if !is_known {
            let key = key.to_string().unwrap_or_default();
            return Err(format!("a table has the unexpected key {key}"));
        }
    }
    Ok(())
}

fn date_of_table(table: &Table) -> Result<CqlValue, String> {
    check_keys(table, &["year", "month", "day"])?;
    let (year, month, day) = (
        field(table, "year")?,
        field(table, "month")?,
        field(table, "day")?,
    );
    let text = format!(
        "{}{:04}-{month:02}-{day:02}",
        if year < 0 { "-" } else { "" },
        year.unsigned_abs()
    );
    parse_literal(&CqlType::Date, &text).map_err(|error| error.to_string())
}

fn duration_of_table(table: &Table) -> Result<CqlValue, String> {
    check_keys(table, &["months", "days", "nanoseconds"])?;
    let part = |name: &str| i32::try_from(field(table, name)?).map_err(|_| format!("{name} out of range"));
    let duration = Duration::new(part("months")?, part("days")?, field(table, "nanoseconds")?);
    let duration = duration.ok_or("the parts of a duration must not have different signs")?;
    Ok(CqlValue::Duration(duration))
}

fn table<'v>(value: &'v Value, cql_type: &CqlType) -> Result<&'v Table, String> {
    value.as_table().ok_or_else(|| mismatch(value, cql_type))
}

fn not_null(value: Result<Option<CqlValue>, String>) -> Result<CqlValue, String> {
    value?.ok_or_else(|| "null is not supported inside collections".to_owned())
}

fn sequence(value: &Value, cql_type: &CqlType, element: &CqlType) -> Result<Vec<CqlValue>, String> {
    let table = table(value, cql_type)?;
    let mut values = Vec::new();
    for found in table.sequence_values::<Value>() {
        let found = found.map_err(|error| error.to_string())?;
        values.push(not_null(convert(&found, element))?);
    }
    let mut keys = 0;
    for pair in table.pairs::<Value, Value>() {
        pair.map_err(|error| error.to_string())?;
        keys += 1;
    }
    if keys != values.len() {
        return Err(format!("a table that is no sequence is no {cql_type}"));
    }
    Ok(values)
}

fn set(value: &Value, cql_type: &CqlType, element: &CqlType) -> Result<Vec<CqlValue>, String> {
    let mut values = Vec::new();
    for pair in table(value, cql_type)?.pairs::<Value, Value>() {
        let (key, present) = pair.map_err(|error| error.to_string())?;
        if !matches!(present, Value::Boolean(true)) {
            return Err("the elements of a set are the keys of a table whose values are true".to_owned());
        }
        values.push(not_null(convert(&key, element))?);
    }
    Ok(values)
}

fn map(
    value: &Value,
    cql_type: &CqlType,
    key_type: &CqlType,
    value_type: &CqlType,
) -> Result<Vec<(CqlValue, CqlValue)>, String> {
    let mut entries = Vec::new();
    for pair in table(value, cql_type)?.pairs::<Value, Value>() {
        let (key, content) = pair.map_err(|error| error.to_string())?;
        let key = not_null(convert(&key, key_type))?;
        entries.push((key, not_null(convert(&content, value_type))?));
    }
    Ok(entries)
}

fn tuple(value: &Value, cql_type: &CqlType, types: &[CqlType]) -> Result<Vec<Option<CqlValue>>, String> {
    let table = table(value, cql_type)?;
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        let index = key.as_integer().and_then(|key| usize::try_from(key).ok());
        if !index.is_some_and(|index| (1..=types.len()).contains(&index)) {
            let key = key.to_string().unwrap_or_default();
            return Err(format!("a table with the key {key} is no {cql_type}"));
        }
    }
    let part = |(index, cql_type): (usize, &CqlType)| {
        let part: Value = table.raw_get(index + 1).map_err(|error| error.to_string())?;
        convert(&part, cql_type)
    };
    types.iter().enumerate().map(part).collect()
}

fn user_type(
    value: &Value,
    cql_type: &CqlType,
    definition: &UserType,
) -> Result<Vec<Option<CqlValue>>, String> {
    let table = table(value, cql_type)?;
    let names: Vec<&str> = definition.fields.iter().map(|field| &*field.name).collect();
    check_keys(table, &names)?;
    let part = |field: &ceto_model::UserTypeField| {
        let part: Value = table.raw_get(&*field.name).map_err(|error| error.to_string())?;
        convert(&part, &field.cql_type)
    };
    definition.fields.iter().map(part).collect()
}
