//! Values: what the bytes of a cell, a bound variable or a key component mean.
//!
//! A value travels and is stored as *wire bytes*: the body of a `[value]` of the native protocol, the same for every
//! protocol version. Most of the database only moves these bytes. The functions here are for the places that look
//! inside, all of them driven by a [`CqlType`](crate::CqlType):
//! - [`validate`] and [`canonical`] guard the door: bytes of a client become bytes of a cell;
//! - [`compare`] is the order of the type; [`crate::comparable`] is the same order for `memcmp`;
//! - [`Value`] is the decoded form, for literals, functions and tests;
//! - [`parse_literal`], [`format_literal`], [`to_json`], [`from_json_text`] are the text forms.
//!
//! ```text
//! list, set   | count i32 | ( length i32 | element )*
//! map         | count i32 | ( length i32 | key | length i32 | value )*
//! tuple, UDT  | ( length i32, -1 = null | field )*          trailing fields may be missing: null
//! vector      | element*                                    elements of a fixed size
//!             | ( length unsigned vint | element )*         other elements
//! decimal     | scale i32 | unscaled value, two's complement
//! varint      | two's complement, big-endian
//! duration    | months, days, nanoseconds: zigzag vint each
//! date        | u32, 2^31 = 1970-01-01
//! time        | i64 nanoseconds since midnight
//! inet        | 4 or 16 bytes
//! composite   | components, see `composite`
//! ```
//!
//! Invariants:
//! - Never panics on any bytes or text; recursion follows the type, whose depth the parsers bound, never the data.
//! - Never allocates what a length or count in the data merely claims.
//! - Never knows of null at the top: a null value is the absence of bytes, its handling is the caller's.

pub mod analysis;
mod calendar;
mod canonical;
mod codec;
mod compare;
pub(crate) mod composite;
mod decimal;
mod duration;
mod format;
pub mod json;
mod literal;
mod validate;
pub mod wire;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use num_bigint::BigInt;
use std::fmt;
use std::net::IpAddr;
use uuid::Uuid;

pub use canonical::canonical;
pub use compare::compare;
pub(crate) use compare::{
    minimal_varint, ordered_double, ordered_float, ordered_timeuuid, ordered_uuid, unordered_timeuuid,
    unordered_uuid,
};
pub use decimal::Decimal;
pub(crate) use decimal::Normalized;
pub use duration::Duration;
pub use format::format_literal;
pub use json::{
    JSON_DEPTH_MAX, Json, JsonError, from_json, from_json_text, json_columns, json_name, parse_json,
    put_json_string, to_json,
};
pub use literal::parse_literal;
pub use validate::validate;

/// A decoded value.
///
/// Collections keep the order of the bytes they were decoded from; [`Value::encode`] sorts sets and maps.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A value of zero bytes of a type for which these are neither a string nor a blob: it is not null.
    Empty,
    /// ascii or text.
    Text(String),
    /// blob, or a type that has only a Java class.
    Blob(Bytes),
    /// boolean.
    Boolean(bool),
    /// tinyint.
    Tinyint(i8),
    /// smallint.
    Smallint(i16),
    /// int.
    Int(i32),
    /// bigint.
    Bigint(i64),
    /// counter: its sum.
    Counter(i64),
    /// varint.
    Varint(BigInt),
    /// decimal.
    Decimal(Decimal),
    /// float.
    Float(f32),
    /// double.
    Double(f64),
    /// date: days, 2^31 being 1970-01-01.
    Date(u32),
    /// time: nanoseconds since midnight.
    Time(i64),
    /// timestamp: milliseconds since 1970-01-01T00:00Z.
    Timestamp(i64),
    /// duration.
    Duration(Duration),
    /// inet.
    Inet(IpAddr),
    /// uuid.
    Uuid(Uuid),
    /// timeuuid.
    Timeuuid(Uuid),
    /// list.
    List(Vec<Value>),
    /// set.
    Set(Vec<Value>),
    /// map.
    Map(Vec<(Value, Value)>),
    /// tuple; trailing elements may be missing and are null then.
    Tuple(Vec<Option<Value>>),
    /// Fields of a UDT in order of definition; trailing fields may be missing and are null then.
    Udt(Vec<Option<Value>>),
    /// vector.
    Vector(Vec<Value>),
}

/// Why bytes or a text are no value of a type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueError {
    /// The client's fault: bytes or text that are no value of the type. The text is meant for the client.
    Invalid(String),
    /// A [`Value`] was given to a type of another kind.
    Mismatch {
        /// The type, as CQL text.
        expected: String,
        /// The kind of the value.
        found: &'static str,
    },
    /// Stored bytes that no encoder wrote.
    Corrupt(&'static str),
}

impl ValueError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(message) => f.write_str(message),
            Self::Mismatch { expected, found } => {
                write!(f, "expected a value of type {expected}, found {found}")
            }
            Self::Corrupt(what) => write!(f, "corrupt comparable bytes: {what}"),
        }
    }
}

impl std::error::Error for ValueError {}

impl Value {
    /// What kind of value it is, for error texts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Text(_) => "text",
            Self::Blob(_) => "blob",
            Self::Boolean(_) => "boolean",
            Self::Tinyint(_) => "tinyint",
            Self::Smallint(_) => "smallint",
            Self::Int(_) => "int",
            Self::Bigint(_) => "bigint",
            Self::Counter(_) => "counter",
            Self::Varint(_) => "varint",
            Self::Decimal(_) => "decimal",
            Self::Float(_) => "float",
            Self::Double(_) => "double",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::Timestamp(_) => "timestamp",
            Self::Duration(_) => "duration",
            Self::Inet(_) => "inet",
            Self::Uuid(_) => "uuid",
            Self::Timeuuid(_) => "timeuuid",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Map(_) => "map",
            Self::Tuple(_) => "tuple",
            Self::Udt(_) => "UDT",
            Self::Vector(_) => "vector",
        }
    }
}
