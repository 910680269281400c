//! Values as CQL literals: text that the parser reads to the same value.

use super::calendar::{format_date, format_time, format_timestamp};
use super::validate::hex;
use super::{Value, ValueError};
use crate::CqlType;
use crate::types::quote_identifier;
use std::fmt::{Display, LowerExp, Write};

/// The CQL literal of wire bytes. Error: as [`Value::decode`].
pub fn format_literal(cql_type: &CqlType, wire: &[u8]) -> Result<String, ValueError> {
    let mut out = String::new();
    Value::decode(cql_type, wire)?.write_literal(cql_type, &mut out);
    Ok(out)
}

impl Value {
    /// The CQL literal of this value. A value of zero bytes has no literal and is written as null.
    pub fn to_literal(&self, cql_type: &CqlType) -> String {
        let mut out = String::new();
        self.write_literal(cql_type, &mut out);
        out
    }

    fn write_literal(&self, cql_type: &CqlType, out: &mut String) {
        match (self, cql_type) {
            (Self::Text(_), _) => quote(&self.to_text(), out),
            (Self::Date(_) | Self::Time(_) | Self::Timestamp(_) | Self::Inet(_), _) => {
                quote(&self.to_text(), out);
            }
            (Self::List(values), CqlType::List { element, .. })
            | (Self::Vector(values), CqlType::Vector { element, .. }) => {
                write_all(out, ["[", "]"], values, |value, out| {
                    value.write_literal(element, out)
                });
            }
            (Self::Set(values), CqlType::Set { element, .. }) => {
                write_all(out, ["{", "}"], values, |value, out| {
                    value.write_literal(element, out)
                });
            }
            (Self::Map(entries), CqlType::Map { key, value, .. }) => {
                write_all(out, ["{", "}"], entries, |(k, v), out| {
                    k.write_literal(key, out);
                    out.push_str(": ");
                    v.write_literal(value, out);
                });
            }
            (Self::Tuple(values), CqlType::Tuple(types)) => {
                write_all(
                    out,
                    ["(", ")"],
                    types.iter().enumerate(),
                    |(index, element), out| {
                        write_optional(values.get(index), element, out);
                    },
                );
            }
            (Self::Udt(values), CqlType::Udt { definition, .. }) => {
                write_all(
                    out,
                    ["{", "}"],
                    definition.fields.iter().enumerate(),
                    |(index, field), out| {
                        out.push_str(&quote_identifier(&field.name));
                        out.push_str(": ");
                        write_optional(values.get(index), &field.cql_type, out);
                    },
                );
            }
            (Self::Empty, _) => out.push_str("null"),
            _ => out.push_str(&self.to_text()),
        }
    }

    /// The text of a scalar, without quotes: what [`super::parse_literal`] reads. Of other values, no text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Blob(bytes) => format!("0x{}", hex(bytes)),
            Self::Boolean(value) => value.to_string(),
            Self::Tinyint(number) => number.to_string(),
            Self::Smallint(number) => number.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Bigint(number) | Self::Counter(number) => number.to_string(),
            Self::Varint(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
            Self::Float(number) => format_float(*number, number.is_nan(), number.is_infinite()),
            Self::Double(number) => format_float(*number, number.is_nan(), number.is_infinite()),
            Self::Date(days) => format_date(i64::from(*days) - (1 << 31)),
            Self::Time(nanoseconds) => format_time(*nanoseconds),
            Self::Timestamp(milliseconds) => format_timestamp(*milliseconds, 'T'),
            Self::Duration(duration) => duration.to_string(),
            Self::Inet(address) => address.to_string(),
            Self::Uuid(uuid) | Self::Timeuuid(uuid) => uuid.hyphenated().to_string(),
            Self::Empty
            | Self::List(_)
            | Self::Set(_)
            | Self::Map(_)
            | Self::Tuple(_)
            | Self::Udt(_)
            | Self::Vector(_) => String::new(),
        }
    }
}

/// Writes items with ", " between them.
pub(super) fn write_all<I: IntoIterator>(
    out: &mut String,
    [open, close]: [&str; 2],
    items: I,
    mut write: impl FnMut(I::Item, &mut String),
) {
    out.push_str(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write(item, out);
    }
    out.push_str(close);
}

fn write_optional(value: Option<&Option<Value>>, cql_type: &CqlType, out: &mut String) {
    match value {
        Some(Some(value)) => value.write_literal(cql_type, out),
        _ => out.push_str("null"),
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('\'');
    out.push_str(&text.replace('\'', "''"));
    out.push('\'');
}

/// As Java writes it: the fewest digits that read back to the number, at least one after the point; an exponent below
/// 0.001 and from 10000000 on.
pub(super) fn format_float(number: impl Display + LowerExp, is_nan: bool, is_infinite: bool) -> String {
    if is_nan {
        return "NaN".to_owned();
    }
    let scientific = format!("{number:e}");
    if is_infinite {
        let sign = if scientific.starts_with('-') { "-" } else { "" };
        return format!("{sign}Infinity");
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut text = String::new();
    let is_zero = mantissa.trim_start_matches('-') == "0";
    if is_zero || (-3..7).contains(&exponent) {
        write!(text, "{number}").expect("a String takes any text");
    } else {
        text.push_str(mantissa);
    }
    if !text.contains('.') {
        text.push_str(".0");
    }
    if !is_zero && !(-3..7).contains(&exponent) {
        write!(text, "E{exponent}").expect("a String takes any text");
    }
    text
}
