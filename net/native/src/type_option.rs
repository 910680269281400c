//! Types in metadata: the \[option\] of the specification, section "Rows".
//!
//! ```text
//! option ::= | 0x0000 | class name [string] |                       custom
//!            | 0x0001..=0x0015 |                                    native types
//!            | 0x0020 | option |        | 0x0022 | option |         list, set of elements
//!            | 0x0021 | option | option |                           map of keys to values
//!            | 0x0030 | keyspace [string] | name [string] | count u16 | ( name [string] | option )* |     UDT
//!            | 0x0031 | count u16 | option* |                       tuple
//! ```
//!
//! A type that the spoken version has no code for (date, time, smallint, tinyint in v3; duration before v5; vector and
//! empty always) travels as custom with its class name, as Cassandra sends it. Decoding turns the class names that
//! stand for CQL types back into these.
//!
//! The wire does not say what is frozen: a decoded collection or UDT is taken as not frozen at the top and frozen
//! inside another type.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use ceto_model::type_text::{self, marshal_class, parse_marshal_class};
use ceto_model::{CqlType, UserType, UserTypeField};

use crate::version::ProtocolVersion;
use crate::violation::Violation;
use crate::wire::{Reader, put_string};

/// Greatest depth of nested types in the input.
pub const MAX_TYPE_DEPTH: usize = 32;

const CUSTOM: u16 = 0x0000;
const LIST: u16 = 0x0020;
const MAP: u16 = 0x0021;
const SET: u16 = 0x0022;
const UDT: u16 = 0x0030;
const TUPLE: u16 = 0x0031;

/// Code of a type without parameters, and the first version that knows it.
fn native_code(cql_type: &CqlType) -> Option<(u16, ProtocolVersion)> {
    use ProtocolVersion::{V3, V4, V5};
    Some(match cql_type {
        CqlType::Ascii => (0x0001, V3),
        CqlType::Bigint => (0x0002, V3),
        CqlType::Blob => (0x0003, V3),
        CqlType::Boolean => (0x0004, V3),
        CqlType::Counter => (0x0005, V3),
        CqlType::Decimal => (0x0006, V3),
        CqlType::Double => (0x0007, V3),
        CqlType::Float => (0x0008, V3),
        CqlType::Int => (0x0009, V3),
        CqlType::Timestamp => (0x000B, V3),
        CqlType::Uuid => (0x000C, V3),
        CqlType::Text => (0x000D, V3),
        CqlType::Varint => (0x000E, V3),
        CqlType::Timeuuid => (0x000F, V3),
        CqlType::Inet => (0x0010, V3),
        CqlType::Date => (0x0011, V4),
        CqlType::Time => (0x0012, V4),
        CqlType::Smallint => (0x0013, V4),
        CqlType::Tinyint => (0x0014, V4),
        CqlType::Duration => (0x0015, V5),
        _ => return None,
    })
}

fn native_type(code: u16) -> Option<CqlType> {
    Some(match code {
        0x0001 => CqlType::Ascii,
        0x0002 => CqlType::Bigint,
        0x0003 => CqlType::Blob,
        0x0004 => CqlType::Boolean,
        0x0005 => CqlType::Counter,
        0x0006 => CqlType::Decimal,
        0x0007 => CqlType::Double,
        0x0008 => CqlType::Float,
        0x0009 => CqlType::Int,
        0x000A | 0x000D => CqlType::Text,
        0x000B => CqlType::Timestamp,
        0x000C => CqlType::Uuid,
        0x000E => CqlType::Varint,
        0x000F => CqlType::Timeuuid,
        0x0010 => CqlType::Inet,
        0x0011 => CqlType::Date,
        0x0012 => CqlType::Time,
        0x0013 => CqlType::Smallint,
        0x0014 => CqlType::Tinyint,
        0x0015 => CqlType::Duration,
        _ => return None,
    })
}

/// Appends the option of a type.
pub fn encode_type(out: &mut BytesMut, version: ProtocolVersion, cql_type: &CqlType) {
    if let Some((code, since)) = native_code(cql_type) {
        if version >= since {
            out.put_u16(code);
        } else {
            encode_custom(out, cql_type);
        }
        return;
    }
    match cql_type {
        CqlType::List { element, .. } => {
            out.put_u16(LIST);
            encode_type(out, version, element);
        }
        CqlType::Set { element, .. } => {
            out.put_u16(SET);
            encode_type(out, version, element);
        }
        CqlType::Map { key, value, .. } => {
            out.put_u16(MAP);
            encode_type(out, version, key);
            encode_type(out, version, value);
        }
        CqlType::Tuple(elements) => {
            out.put_u16(TUPLE);
            out.put_u16(u16::try_from(elements.len()).expect("a tuple has fewer than 65536 elements"));
            for element in elements.iter() {
                encode_type(out, version, element);
            }
        }
        CqlType::Udt { definition, .. } => {
            out.put_u16(UDT);
            put_string(out, &definition.keyspace);
            put_string(out, &definition.name);
            out.put_u16(u16::try_from(definition.fields.len()).expect("a UDT has fewer than 65536 fields"));
            for field in &definition.fields {
                put_string(out, &field.name);
                encode_type(out, version, &field.cql_type);
            }
        }
        _ => encode_custom(out, cql_type),
    }
}

fn encode_custom(out: &mut BytesMut, cql_type: &CqlType) {
    out.put_u16(CUSTOM);
    put_string(out, &marshal_class(cql_type, false));
}

/// The type of a class that stands `depth` levels inside of another type. What is no CQL type, or nests too deep, is a
/// custom type.
fn type_of_class(class: &str, depth: usize) -> CqlType {
    match parse_marshal_class(class) {
        Ok((CqlType::Custom(_), _)) | Err(_) => CqlType::Custom(class.into()),
        Ok((cql_type, _)) if type_text::depth(&cql_type) + depth > MAX_TYPE_DEPTH => {
            CqlType::Custom(class.into())
        }
        Ok((cql_type, _)) if depth > 0 => cql_type.freeze(),
        Ok((cql_type, _)) => cql_type,
    }
}

/// Reads the option of a type.
pub fn decode_type(reader: &mut Reader<'_>) -> Result<CqlType, Violation> {
    decode_nested(reader, 0)
}

fn decode_nested(reader: &mut Reader<'_>, depth: usize) -> Result<CqlType, Violation> {
    if depth > MAX_TYPE_DEPTH {
        return Err(Violation::TypeTooDeep {
            limit: MAX_TYPE_DEPTH,
        });
    }
    let frozen = depth > 0;
    let deeper = depth + 1;
    let reading = "the code of a type";
    let code = reader.u16(reading)?;
    if let Some(cql_type) = native_type(code) {
        return Ok(cql_type);
    }
    Ok(match code {
        CUSTOM => type_of_class(reader.string("the class of a custom type")?, depth),
        LIST => CqlType::List {
            element: Arc::new(decode_nested(reader, deeper)?),
            frozen,
        },
        SET => CqlType::Set {
            element: Arc::new(decode_nested(reader, deeper)?),
            frozen,
        },
        MAP => {
            let key = Arc::new(decode_nested(reader, deeper)?);
            CqlType::Map {
                key,
                value: Arc::new(decode_nested(reader, deeper)?),
                frozen,
            }
        }
        TUPLE => {
            let count = usize::from(reader.u16("the number of elements of a tuple type")?);
            let mut elements = Vec::with_capacity(reader.capacity(count, 2));
            for _ in 0..count {
                elements.push(decode_nested(reader, deeper)?);
            }
            CqlType::Tuple(elements.into())
        }
        UDT => {
            let keyspace = Arc::from(reader.string("the keyspace of a user type")?);
            let name = Arc::from(reader.string("the name of a user type")?);
            let count = usize::from(reader.u16("the number of fields of a user type")?);
            let mut fields = Vec::with_capacity(reader.capacity(count, 4));
            for _ in 0..count {
                let name = Arc::from(reader.string("the name of a field")?);
                fields.push(UserTypeField {
                    name,
                    cql_type: decode_nested(reader, deeper)?,
                });
            }
            CqlType::Udt {
                definition: Arc::new(UserType {
                    keyspace,
                    name,
                    fields,
                }),
                frozen,
            }
        }
        _ => {
            return Err(Violation::UnknownCode {
                reading,
                offset: reader.position(),
                code: i64::from(code),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn encoded(version: ProtocolVersion, cql_type: &CqlType) -> Bytes {
        let mut out = BytesMut::new();
        encode_type(&mut out, version, cql_type);
        out.freeze()
    }

    #[test]
    fn types_that_a_version_lacks_travel_as_their_class() {
        for (cql_type, class, since) in [
            (CqlType::Date, "SimpleDateType", ProtocolVersion::V4),
            (CqlType::Time, "TimeType", ProtocolVersion::V4),
            (CqlType::Smallint, "ShortType", ProtocolVersion::V4),
            (CqlType::Tinyint, "ByteType", ProtocolVersion::V4),
            (CqlType::Duration, "DurationType", ProtocolVersion::V5),
        ] {
            for version in ProtocolVersion::ALL {
                let bytes = encoded(version, &cql_type);
                if version < since {
                    let name = format!("org.apache.cassandra.db.marshal.{class}");
                    assert_eq!(&bytes[..2], [0, 0]);
                    assert_eq!(&bytes[4..], name.as_bytes());
                } else {
                    assert_eq!(bytes.len(), 2);
                }
                assert_eq!(decode_type(&mut Reader::new(&bytes)).unwrap(), cql_type);
            }
        }
    }

    #[test]
    fn a_map_of_text_to_a_list_of_int() {
        let list = CqlType::List {
            element: Arc::new(CqlType::Int),
            frozen: true,
        };
        let map = CqlType::Map {
            key: Arc::new(CqlType::Text),
            value: Arc::new(list),
            frozen: false,
        };
        let bytes = encoded(ProtocolVersion::V4, &map);
        assert_eq!(&bytes[..], [0, 0x21, 0, 0x0D, 0, 0x20, 0, 9]);
        assert_eq!(decode_type(&mut Reader::new(&bytes)).unwrap(), map);
    }

    #[test]
    fn what_is_no_cql_type_is_custom() {
        for class in [
            "com.example.Foo",
            "Foo",
            "ListType(",
            "UserType(ks,6,78:Int32Type)",
            "Int32Type)",
            "",
        ] {
            assert_eq!(type_of_class(class, 0), CqlType::Custom(class.into()));
        }
        let deep = |levels| format!("{}Int32Type{}", "SetType(".repeat(levels), ")".repeat(levels));
        for (levels, depth, is_custom) in [(31, 0, false), (32, 0, true), (30, 2, true), (10_000, 0, true)] {
            let class = deep(levels);
            assert_eq!(
                matches!(type_of_class(&class, depth), CqlType::Custom(_)),
                is_custom
            );
        }
    }

    #[test]
    fn a_class_inside_a_type_is_frozen() {
        let vector = "VectorType(FloatType , 3)";
        assert!(matches!(
            type_of_class(vector, 1),
            CqlType::Vector { dimension: 3, .. }
        ));
        assert!(type_of_class("ListType(Int32Type)", 0).is_multicell());
        assert!(!type_of_class("ListType(Int32Type)", 1).is_multicell());
    }

    #[test]
    fn deep_types_are_refused() {
        let bytes = Bytes::from([0, 0x20].repeat(100_000));
        let error = decode_type(&mut Reader::new(&bytes)).unwrap_err();
        assert_eq!(
            error,
            Violation::TypeTooDeep {
                limit: MAX_TYPE_DEPTH
            }
        );
    }
}
