//! Types as Java class names: how types travel that have no option code of their own in the version spoken.
//!
//! ```text
//! class  ::= name [ '(' argument { ',' argument } ')' ]        blanks around a comma are allowed
//! vector ::= 'VectorType(' class ' , ' dimension ')'
//! udt    ::= 'UserType(' keyspace ',' hex(name) { ',' hex(field) ':' class } ')'
//! frozen ::= 'FrozenType(' class ')'                           only around what is not already inside a frozen type
//! ```
//!
//! Names may stand with or without their package. Never fails on a class it does not know: that is a
//! [`CqlType::Custom`] of the whole text.

use std::fmt::Write;
use std::sync::Arc;

use ceto_model::{CqlType, UserType, UserTypeField};

use crate::type_option::MAX_TYPE_DEPTH;

/// The package of Cassandra's types.
pub const PACKAGE: &str = "org.apache.cassandra.db.marshal.";

/// The class of a type without parameters.
fn simple_class(cql_type: &CqlType) -> Option<&'static str> {
    Some(match cql_type {
        CqlType::Ascii => "AsciiType",
        CqlType::Bigint => "LongType",
        CqlType::Blob => "BytesType",
        CqlType::Boolean => "BooleanType",
        CqlType::Counter => "CounterColumnType",
        CqlType::Date => "SimpleDateType",
        CqlType::Decimal => "DecimalType",
        CqlType::Double => "DoubleType",
        CqlType::Duration => "DurationType",
        CqlType::Empty => "EmptyType",
        CqlType::Float => "FloatType",
        CqlType::Inet => "InetAddressType",
        CqlType::Int => "Int32Type",
        CqlType::Smallint => "ShortType",
        CqlType::Text => "UTF8Type",
        CqlType::Time => "TimeType",
        CqlType::Timestamp => "TimestampType",
        CqlType::Timeuuid => "TimeUUIDType",
        CqlType::Tinyint => "ByteType",
        CqlType::Uuid => "UUIDType",
        CqlType::Varint => "IntegerType",
        _ => return None,
    })
}

fn simple_type(class: &str) -> Option<CqlType> {
    Some(match class {
        "AsciiType" => CqlType::Ascii,
        "LongType" => CqlType::Bigint,
        "BytesType" => CqlType::Blob,
        "BooleanType" => CqlType::Boolean,
        "CounterColumnType" => CqlType::Counter,
        "SimpleDateType" => CqlType::Date,
        "DecimalType" => CqlType::Decimal,
        "DoubleType" => CqlType::Double,
        "DurationType" => CqlType::Duration,
        "EmptyType" => CqlType::Empty,
        "FloatType" => CqlType::Float,
        "InetAddressType" => CqlType::Inet,
        "Int32Type" => CqlType::Int,
        "ShortType" => CqlType::Smallint,
        "UTF8Type" => CqlType::Text,
        "TimeType" => CqlType::Time,
        "TimestampType" | "DateType" => CqlType::Timestamp,
        "TimeUUIDType" => CqlType::Timeuuid,
        "ByteType" => CqlType::Tinyint,
        "UUIDType" => CqlType::Uuid,
        "IntegerType" => CqlType::Varint,
        _ => return None,
    })
}

/// The class name of a type, as Cassandra writes it.
pub fn class_name(cql_type: &CqlType) -> String {
    let mut out = String::new();
    write_class(&mut out, cql_type, false);
    out
}

/// Appends the class of `cql_type`. Inside a frozen type nothing says again that it is frozen.
fn write_class(out: &mut String, cql_type: &CqlType, inside_frozen: bool) {
    if let Some(class) = simple_class(cql_type) {
        out.push_str(PACKAGE);
        out.push_str(class);
        return;
    }
    if let CqlType::Custom(class) = cql_type {
        out.push_str(class);
        return;
    }
    let frozen_class = matches!(cql_type, CqlType::Udt { .. }) || cql_type.is_collection();
    let wrap = frozen_class && !cql_type.is_multicell() && !inside_frozen;
    if wrap {
        out.push_str(PACKAGE);
        out.push_str("FrozenType(");
    }
    out.push_str(PACKAGE);
    write_parametrized(out, cql_type, inside_frozen || !cql_type.is_multicell());
    if wrap {
        out.push(')');
    }
}

fn write_parametrized(out: &mut String, cql_type: &CqlType, frozen: bool) {
    match cql_type {
        CqlType::List { element, .. } => write_arguments(out, "ListType(", &[element], frozen),
        CqlType::Set { element, .. } => write_arguments(out, "SetType(", &[element], frozen),
        CqlType::Map { key, value, .. } => write_arguments(out, "MapType(", &[key, value], frozen),
        CqlType::Tuple(elements) => {
            let elements: Vec<&CqlType> = elements.iter().collect();
            write_arguments(out, "TupleType(", &elements, true);
        }
        CqlType::Vector { element, dimension } => {
            out.push_str("VectorType(");
            write_class(out, element, false);
            write!(out, " , {dimension})").expect("writing to a string cannot fail");
        }
        CqlType::Udt { definition, .. } => {
            out.push_str("UserType(");
            out.push_str(&definition.keyspace);
            out.push(',');
            write_hex(out, &definition.name);
            for field in &definition.fields {
                out.push(',');
                write_hex(out, &field.name);
                out.push(':');
                write_class(out, &field.cql_type, frozen);
            }
            out.push(')');
        }
        _ => unreachable!("types without parameters are written by write_class"),
    }
}

fn write_arguments(out: &mut String, open: &str, arguments: &[&CqlType], inside_frozen: bool) {
    out.push_str(open);
    for (index, argument) in arguments.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_class(out, argument, inside_frozen);
    }
    out.push(')');
}

fn write_hex(out: &mut String, text: &str) {
    for byte in text.bytes() {
        write!(out, "{byte:02x}").expect("writing to a string cannot fail");
    }
}

/// The type of a class name. A class that is no CQL type gives [`CqlType::Custom`].
pub fn parse_class(text: &str) -> CqlType {
    parse_nested_class(text, 0)
}

/// [`parse_class`] of a class that stands `depth` levels inside of another type, counted as part of the same limit. A
/// class that is too deep gives [`CqlType::Custom`].
pub(crate) fn parse_nested_class(text: &str, depth: usize) -> CqlType {
    let mut parser = Parser { rest: text };
    match parser.class(depth, depth > 0) {
        Some(cql_type) if parser.rest.trim().is_empty() => cql_type,
        _ => CqlType::Custom(Arc::from(text)),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// A class name; None if it is neither a CQL type nor, without arguments, the class of a custom type.
    fn class(&mut self, depth: usize, inside_frozen: bool) -> Option<CqlType> {
        if depth > MAX_TYPE_DEPTH {
            return None;
        }
        let full_name = self.identifier();
        let name = full_name.strip_prefix(PACKAGE).unwrap_or(full_name);
        if let Some(cql_type) = simple_type(name) {
            return Some(cql_type);
        }
        if self.expect('(').is_none() {
            // Somebody's own class inside one of ours.
            return (name == full_name && name.contains('.')).then(|| CqlType::Custom(Arc::from(name)));
        }
        let deeper = depth + 1;
        let frozen = inside_frozen;
        let cql_type = match name {
            "FrozenType" => self.class(deeper, true)?.freeze(),
            "ReversedType" => self.class(deeper, inside_frozen)?,
            "ListType" => CqlType::List {
                element: Arc::new(self.class(deeper, frozen)?),
                frozen,
            },
            "SetType" => CqlType::Set {
                element: Arc::new(self.class(deeper, frozen)?),
                frozen,
            },
            "MapType" => {
                let key = Arc::new(self.class(deeper, frozen)?);
                self.expect(',')?;
                CqlType::Map {
                    key,
                    value: Arc::new(self.class(deeper, frozen)?),
                    frozen,
                }
            }
            "TupleType" => {
                let mut elements = vec![self.class(deeper, true)?];
                while self.expect(',').is_some() {
                    elements.push(self.class(deeper, true)?);
                }
                CqlType::Tuple(elements.into())
            }
            "VectorType" => {
                let element = Arc::new(self.class(deeper, true)?);
                self.expect(',')?;
                let dimension = self
                    .identifier()
                    .parse()
                    .ok()
                    .filter(|&dimension| dimension > 0)?;
                CqlType::Vector { element, dimension }
            }
            "UserType" => CqlType::Udt {
                definition: Arc::new(self.user_type(deeper, frozen)?),
                frozen,
            },
            _ => return None,
        };
        self.expect(')')?;
        Some(cql_type)
    }

    fn user_type(&mut self, depth: usize, inside_frozen: bool) -> Option<UserType> {
        let keyspace = Arc::from(self.identifier());
        self.expect(',')?;
        let name = Arc::from(parse_hex(self.identifier())?);
        let mut fields = Vec::new();
        while self.expect(',').is_some() {
            let name = Arc::from(parse_hex(self.identifier())?);
            self.expect(':')?;
            let cql_type = self.class(depth, inside_frozen)?;
            fields.push(UserTypeField { name, cql_type });
        }
        Some(UserType {
            keyspace,
            name,
            fields,
        })
    }

    fn identifier(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = self
            .rest
            .find(['(', ')', ',', ':', ' '])
            .unwrap_or(self.rest.len());
        let (identifier, rest) = self.rest.split_at(end);
        self.rest = rest;
        identifier
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(wanted)?;
        Some(())
    }
}

fn parse_hex(text: &str) -> Option<String> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_as_cassandra_writes_it() {
        let vector = CqlType::Vector {
            element: Arc::new(CqlType::Float),
            dimension: 3,
        };
        let class =
            "org.apache.cassandra.db.marshal.VectorType(org.apache.cassandra.db.marshal.FloatType , 3)";
        assert_eq!(class_name(&vector), class);
        assert_eq!(parse_class(class), vector);
        assert_eq!(parse_class("VectorType(FloatType,3)"), vector);
    }

    #[test]
    fn frozen_is_said_once() {
        let list = CqlType::List {
            element: Arc::new(CqlType::Int),
            frozen: true,
        };
        let map = CqlType::Map {
            key: Arc::new(CqlType::Text),
            value: Arc::new(list),
            frozen: true,
        };
        let class = class_name(&map).replace(PACKAGE, "");
        assert_eq!(class, "FrozenType(MapType(UTF8Type,ListType(Int32Type)))");
        assert_eq!(parse_class(&class), map);
    }

    #[test]
    fn a_user_type() {
        let definition = UserType {
            keyspace: "ks".into(),
            name: "ab".into(),
            fields: vec![UserTypeField {
                name: "x".into(),
                cql_type: CqlType::Int,
            }],
        };
        let udt = CqlType::Udt {
            definition: Arc::new(definition),
            frozen: false,
        };
        let class = class_name(&udt).replace(PACKAGE, "");
        assert_eq!(class, "UserType(ks,6162,78:Int32Type)");
        assert_eq!(parse_class(&class), udt);
    }

    #[test]
    fn what_is_no_cql_type_is_custom() {
        for class in [
            "com.example.Foo",
            "ListType(",
            "ListType(Int32Type",
            "VectorType(FloatType , 0)",
            "VectorType(FloatType , 70000)",
            "UserType(ks,6,78:Int32Type)",
            "Int32Type)",
            "",
        ] {
            assert_eq!(parse_class(class), CqlType::Custom(class.into()));
        }
        let deep = format!("{}Int32Type{}", "ListType(".repeat(10_000), ")".repeat(10_000));
        assert_eq!(parse_class(&deep), CqlType::Custom(deep.as_str().into()));
    }
}
