//! CQL values as Lua values.

use ceto_model::CqlType;
use ceto_model::value::Value as CqlValue;
use mlua::{Lua, Result, Value};

use super::number::Number;

/// The Lua value of a CQL value of this type.
pub(super) fn convert(lua: &Lua, value: &CqlValue, cql_type: &CqlType) -> Result<Value> {
    Ok(match value {
        CqlValue::Empty => Value::Nil,
        CqlValue::Text(text) => Value::String(lua.create_string(text)?),
        CqlValue::Blob(bytes) => Value::String(lua.create_string(bytes)?),
        CqlValue::Boolean(boolean) => Value::Boolean(*boolean),
        CqlValue::Tinyint(number) => Value::Integer(i64::from(*number)),
        CqlValue::Smallint(number) => Value::Integer(i64::from(*number)),
        CqlValue::Int(number) => Value::Integer(i64::from(*number)),
        CqlValue::Bigint(number)
        | CqlValue::Counter(number)
        | CqlValue::Time(number)
        | CqlValue::Timestamp(number) => Value::Integer(*number),
        CqlValue::Date(days) => Value::Integer(i64::from(*days)),
        CqlValue::Float(number) => Value::Number(f64::from(*number)),
        CqlValue::Double(number) => Value::Number(*number),
        CqlValue::Varint(number) => {
            Value::UserData(lua.create_userdata(Number::from_integer(number.clone()))?)
        }
        CqlValue::Decimal(number) => {
            Value::UserData(lua.create_userdata(Number::from_decimal(number.clone()))?)
        }
        CqlValue::Duration(duration) => {
            let table = lua.create_table()?;
            table.raw_set("months", duration.months())?;
            table.raw_set("days", duration.days())?;
            table.raw_set("nanoseconds", duration.nanoseconds())?;
            Value::Table(table)
        }
        CqlValue::Inet(address) => Value::String(lua.create_string(address.to_string())?),
        CqlValue::Uuid(uuid) | CqlValue::Timeuuid(uuid) => {
            Value::String(lua.create_string(uuid.to_string())?)
        }
        CqlValue::List(_)
        | CqlValue::Set(_)
        | CqlValue::Map(_)
        | CqlValue::Tuple(_)
        | CqlValue::Udt(_)
        | CqlValue::Vector(_) => collection(lua, value, cql_type)?,
    })
}

fn collection(lua: &Lua, value: &CqlValue, cql_type: &CqlType) -> Result<Value> {
    let table = lua.create_table()?;
    match (value, cql_type) {
        (CqlValue::List(values), CqlType::List { element, .. })
        | (CqlValue::Vector(values), CqlType::Vector { element, .. }) => {
            for value in values {
                table.raw_push(convert(lua, value, element)?)?;
            }
        }
        (CqlValue::Set(values), CqlType::Set { element, .. }) => {
            for value in values {
                table.raw_set(convert(lua, value, element)?, true)?;
            }
        }
        (CqlValue::Map(entries), CqlType::Map { key, value, .. }) => {
            for (own_key, own_value) in entries {
                table.raw_set(convert(lua, own_key, key)?, convert(lua, own_value, value)?)?;
            }
        }
        (CqlValue::Tuple(values), CqlType::Tuple(types)) => {
            for (index, (value, cql_type)) in values.iter().zip(types.iter()).enumerate() {
                if let Some(value) = value {
                    table.raw_set(index + 1, convert(lua, value, cql_type)?)?;
                }
            }
        }
        (CqlValue::Udt(values), CqlType::Udt { definition, .. }) => {
            for (value, field) in values.iter().zip(&definition.fields) {
                if let Some(value) = value {
                    table.raw_set(&*field.name, convert(lua, value, &field.cql_type)?)?;
                }
            }
        }
        _ => {}
    }
    Ok(Value::Table(table))
}
