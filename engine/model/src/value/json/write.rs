//! Values to JSON text.

use super::super::calendar::format_timestamp;
use super::super::format::write_all;
use super::super::{Value, ValueError};
use crate::CqlType;

/// The JSON of wire bytes. Error: as [`Value::decode`].
pub fn to_json(cql_type: &CqlType, wire: &[u8]) -> Result<String, ValueError> {
    let mut out = String::new();
    write(&Value::decode(cql_type, wire)?, cql_type, &mut out);
    Ok(out)
}

impl Value {
    /// The JSON of this value, which is of `cql_type`.
    pub fn to_json(&self, cql_type: &CqlType) -> String {
        let mut out = String::new();
        write(self, cql_type, &mut out);
        out
    }
}

fn write(value: &Value, cql_type: &CqlType, out: &mut String) {
    match (value, cql_type) {
        (
            Value::List(values) | Value::Set(values),
            CqlType::List { element, .. } | CqlType::Set { element, .. },
        )
        | (Value::Vector(values), CqlType::Vector { element, .. }) => {
            write_all(out, ["[", "]"], values, |value, out| write(value, element, out));
        }
        (Value::Map(entries), CqlType::Map { key, value, .. }) => {
            write_all(out, ["{", "}"], entries, |(k, v), out| {
                let name = k.to_json(key);
                if name.starts_with('"') {
                    out.push_str(&name);
                } else {
                    put_json_string(&name, out);
                }
                out.push_str(": ");
                write(v, value, out);
            });
        }
        (Value::Tuple(values), CqlType::Tuple(types)) => {
            write_all(
                out,
                ["[", "]"],
                types.iter().enumerate(),
                |(index, element), out| {
                    write_optional(values.get(index), element, out);
                },
            );
        }
        (Value::Udt(values), CqlType::Udt { definition, .. }) => {
            write_all(
                out,
                ["{", "}"],
                definition.fields.iter().enumerate(),
                |(index, field), out| {
                    put_json_string(&json_name(&field.name), out);
                    out.push_str(": ");
                    write_optional(values.get(index), &field.cql_type, out);
                },
            );
        }
        _ => write_scalar(value, out),
    }
}

fn write_optional(value: Option<&Option<Value>>, cql_type: &CqlType, out: &mut String) {
    match value {
        Some(Some(value)) => write(value, cql_type, out),
        _ => out.push_str("null"),
    }
}

fn write_scalar(value: &Value, out: &mut String) {
    match value {
        Value::Boolean(_)
        | Value::Tinyint(_)
        | Value::Smallint(_)
        | Value::Int(_)
        | Value::Bigint(_)
        | Value::Counter(_)
        | Value::Varint(_) => out.push_str(&value.to_text()),
        Value::Decimal(number) => out.push_str(&number.to_scientific()),
        // JSON knows numbers only.
        Value::Float(number) if !number.is_finite() => out.push_str("null"),
        Value::Double(number) if !number.is_finite() => out.push_str("null"),
        Value::Float(_) | Value::Double(_) => out.push_str(&value.to_text()),
        Value::Timestamp(milliseconds) => put_json_string(&format_timestamp(*milliseconds, ' '), out),
        _ => put_json_string(&value.to_text(), out),
    }
}

/// The name of a column or field as JSON has it, without the quotes of JSON: in quotes of its own when it is not all
/// in lower case.
pub fn json_name(name: &str) -> String {
    if name == name.to_lowercase() {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

/// Appends `text` as a JSON string.
pub fn put_json_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{0}'..'\u{20}' => out.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}
