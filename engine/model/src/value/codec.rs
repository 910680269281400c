//! [`Value`] from and to wire bytes.
//!
//! `decode` accepts what [`super::validate`] accepts; `encode` writes the one canonical form: sets and maps sorted
//! without duplicates, tuples and UDTs with all their fields, integers without needless bytes.

use super::canonical::pack_sorted;
use super::validate::{consumed, validate};
use super::wire::{
    Elements, put_count, put_unsigned_vint, put_value, put_vint, take_component, take_vector_element,
    take_vint, vector_element_size,
};
use super::{Decimal, Duration, Value, ValueError};
use crate::CqlType;
use bytes::Bytes;
use num_bigint::BigInt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

impl Value {
    /// Decodes the wire bytes of a value of `cql_type`; checks all that [`validate`] checks.
    pub fn decode(cql_type: &CqlType, wire: &[u8]) -> Result<Value, ValueError> {
        match cql_type {
            CqlType::List { element, .. } => Ok(Value::List(decode_elements(cql_type, element, wire)?)),
            CqlType::Set { element, .. } => Ok(Value::Set(decode_elements(cql_type, element, wire)?)),
            CqlType::Map { key, value, .. } => {
                let mut elements = Elements::new(cql_type, wire)?;
                let mut entries = Vec::with_capacity(elements.capacity() / 2);
                while let Some(key_bytes) = elements.next() {
                    let key = Value::decode(key, key_bytes?)?;
                    let value_bytes = elements.next().ok_or_else(not_enough_for_map)?;
                    entries.push((key, Value::decode(value, value_bytes?)?));
                }
                Ok(Value::Map(entries))
            }
            CqlType::Tuple(types) => decode_fields(types.iter(), wire, "tuple", |index| {
                format!("{index}th component")
            })
            .map(Value::Tuple),
            CqlType::Udt { definition, .. } => {
                let types = definition.fields.iter().map(|field| &field.cql_type);
                decode_fields(types, wire, "UDT", |index| {
                    let name = definition.fields.get(index).map_or("", |field| &field.name);
                    format!("{index}th field {name}")
                })
                .map(Value::Udt)
            }
            CqlType::Vector { element, dimension } => {
                validate(cql_type, wire)?;
                let size = vector_element_size(element);
                let mut rest = wire;
                (0..*dimension)
                    .map(|_| take_vector_element(&mut rest, size).ok_or_else(|| not_enough(cql_type)))
                    .map(|bytes| Value::decode(element, bytes?))
                    .collect::<Result<_, _>>()
                    .map(Value::Vector)
            }
            _ => {
                validate(cql_type, wire)?;
                decode_scalar(cql_type, wire).ok_or_else(|| not_enough(cql_type))
            }
        }
    }

    /// Appends the wire bytes of this value. Error: [`ValueError::Mismatch`] when it is of another kind than
    /// `cql_type`, or of another number of elements.
    pub fn encode(&self, cql_type: &CqlType, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let mismatch = || ValueError::Mismatch {
            expected: cql_type.to_string(),
            found: self.kind(),
        };
        match (cql_type, self) {
            (CqlType::List { element, .. }, Value::List(values)) => {
                put_count(out, values.len());
                for value in values {
                    put_value(out, Some(&value.to_wire(element)?));
                }
                Ok(())
            }
            (CqlType::Set { element, .. }, Value::Set(values)) => {
                let elements = values
                    .iter()
                    .map(|value| Ok((value.to_wire(element)?, None)))
                    .collect::<Result<_, ValueError>>()?;
                pack_sorted(element, elements, out);
                Ok(())
            }
            (
                CqlType::Map {
                    key: key_type,
                    value: value_type,
                    ..
                },
                Value::Map(entries),
            ) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| Ok((key.to_wire(key_type)?, Some(value.to_wire(value_type)?))))
                    .collect::<Result<_, ValueError>>()?;
                pack_sorted(key_type, entries, out);
                Ok(())
            }
            (CqlType::Tuple(types), Value::Tuple(values)) if values.len() <= types.len() => {
                encode_fields(types.iter(), values, out)
            }
            (CqlType::Udt { definition, .. }, Value::Udt(values))
                if values.len() <= definition.fields.len() =>
            {
                let types = definition.fields.iter().map(|field| &field.cql_type);
                encode_fields(types, values, out)
            }
            (CqlType::Vector { element, dimension }, Value::Vector(values)) => {
                if values.len() != usize::from(*dimension) {
                    return Err(ValueError::invalid(format!(
                        "Required {dimension} elements, but saw {}",
                        values.len()
                    )));
                }
                let size = vector_element_size(element);
                for value in values {
                    let bytes = value.to_wire(element)?;
                    match size {
                        Some(size) if size != bytes.len() => return Err(mismatch()),
                        Some(_) => {}
                        None => put_unsigned_vint(out, bytes.len() as u64),
                    }
                    out.extend_from_slice(&bytes);
                }
                Ok(())
            }
            _ => encode_scalar(cql_type, self, out).ok_or_else(mismatch),
        }
    }

    /// The wire bytes of this value; as [`Value::encode`].
    pub fn to_wire(&self, cql_type: &CqlType) -> Result<Vec<u8>, ValueError> {
        let mut out = Vec::new();
        self.encode(cql_type, &mut out)?;
        Ok(out)
    }
}

fn not_enough(cql_type: &CqlType) -> ValueError {
    ValueError::invalid(format!("Not enough bytes to read a {cql_type}"))
}

fn not_enough_for_map() -> ValueError {
    ValueError::invalid("Not enough bytes to read a map")
}

fn decode_elements(collection: &CqlType, element: &CqlType, wire: &[u8]) -> Result<Vec<Value>, ValueError> {
    let elements = Elements::new(collection, wire)?;
    let mut values = Vec::with_capacity(elements.capacity());
    for bytes in elements {
        values.push(Value::decode(element, bytes?)?);
    }
    Ok(values)
}

fn decode_fields<'a>(
    types: impl Iterator<Item = &'a CqlType>,
    wire: &[u8],
    noun: &str,
    describe: impl Fn(usize) -> String,
) -> Result<Vec<Option<Value>>, ValueError> {
    let mut rest = wire;
    let mut values = Vec::new();
    for (index, field_type) in types.enumerate() {
        match take_component(&mut rest, || describe(index))? {
            None => return Ok(values),
            Some(None) => values.push(None),
            Some(Some(bytes)) => values.push(Some(Value::decode(field_type, bytes)?)),
        }
    }
    consumed(rest, noun)?;
    Ok(values)
}

fn encode_fields<'a>(
    types: impl Iterator<Item = &'a CqlType>,
    values: &[Option<Value>],
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let mut values = values.iter();
    for field_type in types {
        match values.next() {
            Some(Some(value)) => put_value(out, Some(&value.to_wire(field_type)?)),
            Some(None) | None => put_value(out, None),
        }
    }
    Ok(())
}

/// Decodes bytes that [`validate`] has accepted. None: they are too short after all.
fn decode_scalar(cql_type: &CqlType, wire: &[u8]) -> Option<Value> {
    fn fixed<const N: usize>(wire: &[u8]) -> Option<[u8; N]> {
        wire.try_into().ok()
    }
    fn text(wire: &[u8]) -> Option<String> {
        std::str::from_utf8(wire).ok().map(str::to_owned)
    }
    if wire.is_empty() {
        return Some(match cql_type {
            CqlType::Ascii | CqlType::Text => Value::Text(String::new()),
            CqlType::Blob | CqlType::Composite(_) | CqlType::DynamicComposite(_) | CqlType::Custom(_) => {
                Value::Blob(Bytes::new())
            }
            _ => Value::Empty,
        });
    }
    Some(match cql_type {
        CqlType::Ascii | CqlType::Text => Value::Text(text(wire)?),
        CqlType::Blob | CqlType::Composite(_) | CqlType::DynamicComposite(_) | CqlType::Custom(_) => {
            Value::Blob(Bytes::copy_from_slice(wire))
        }
        CqlType::Bigint => Value::Bigint(i64::from_be_bytes(fixed(wire)?)),
        CqlType::Boolean => Value::Boolean(fixed::<1>(wire)? != [0]),
        CqlType::Counter => Value::Counter(i64::from_be_bytes(fixed(wire)?)),
        CqlType::Date => Value::Date(u32::from_be_bytes(fixed(wire)?)),
        CqlType::Decimal => Value::Decimal(Decimal::from_wire(wire)?),
        CqlType::Double => Value::Double(f64::from_be_bytes(fixed(wire)?)),
        CqlType::Duration => {
            let mut rest = wire;
            let months = i32::try_from(take_vint(&mut rest)?).ok()?;
            let days = i32::try_from(take_vint(&mut rest)?).ok()?;
            Value::Duration(Duration::new(months, days, take_vint(&mut rest)?)?)
        }
        CqlType::Float => Value::Float(f32::from_be_bytes(fixed(wire)?)),
        CqlType::Inet => Value::Inet(match fixed::<4>(wire) {
            Some(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            None => IpAddr::V6(Ipv6Addr::from(fixed::<16>(wire)?)),
        }),
        CqlType::Int => Value::Int(i32::from_be_bytes(fixed(wire)?)),
        CqlType::Smallint => Value::Smallint(i16::from_be_bytes(fixed(wire)?)),
        CqlType::Time => Value::Time(i64::from_be_bytes(fixed(wire)?)),
        CqlType::Timestamp => Value::Timestamp(i64::from_be_bytes(fixed(wire)?)),
        CqlType::Timeuuid => Value::Timeuuid(Uuid::from_bytes(fixed(wire)?)),
        CqlType::Tinyint => Value::Tinyint(i8::from_be_bytes(fixed(wire)?)),
        CqlType::Uuid => Value::Uuid(Uuid::from_bytes(fixed(wire)?)),
        CqlType::Varint => Value::Varint(BigInt::from_signed_bytes_be(wire)),
        CqlType::Empty
        | CqlType::List { .. }
        | CqlType::Set { .. }
        | CqlType::Map { .. }
        | CqlType::Tuple(_)
        | CqlType::Udt { .. }
        | CqlType::Vector { .. } => return None,
    })
}

/// None: the value is of another kind than the type.
fn encode_scalar(cql_type: &CqlType, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match (cql_type, value) {
        // Zero bytes, where the type allows them.
        (_, Value::Empty) => validate(cql_type, &[]).ok()?,
        (CqlType::Ascii, Value::Text(text)) if !text.is_ascii() => return None,
        (CqlType::Ascii | CqlType::Text, Value::Text(text)) => out.extend_from_slice(text.as_bytes()),
        (CqlType::Composite(_) | CqlType::DynamicComposite(_), Value::Blob(bytes)) => {
            validate(cql_type, bytes).ok()?;
            out.extend_from_slice(bytes);
        }
        (CqlType::Blob | CqlType::Custom(_), Value::Blob(bytes)) => out.extend_from_slice(bytes),
        (CqlType::Boolean, Value::Boolean(value)) => out.push(u8::from(*value)),
        (CqlType::Tinyint, Value::Tinyint(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (CqlType::Smallint, Value::Smallint(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (CqlType::Int, Value::Int(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (CqlType::Bigint, Value::Bigint(value))
        | (CqlType::Counter, Value::Counter(value))
        | (CqlType::Time, Value::Time(value))
        | (CqlType::Timestamp, Value::Timestamp(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (CqlType::Varint, Value::Varint(value)) => out.extend_from_slice(&value.to_signed_bytes_be()),
        (CqlType::Decimal, Value::Decimal(value)) => value.put_wire(out),
        (CqlType::Float, Value::Float(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (CqlType::Double, Value::Double(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (CqlType::Date, Value::Date(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (CqlType::Duration, Value::Duration(value)) => {
            put_vint(out, i64::from(value.months()));
            put_vint(out, i64::from(value.days()));
            put_vint(out, value.nanoseconds());
        }
        (CqlType::Inet, Value::Inet(IpAddr::V4(address))) => out.extend_from_slice(&address.octets()),
        (CqlType::Inet, Value::Inet(IpAddr::V6(address))) => out.extend_from_slice(&address.octets()),
        (CqlType::Timeuuid, Value::Timeuuid(uuid)) if uuid.get_version_num() != 1 => return None,
        (CqlType::Uuid, Value::Uuid(uuid) | Value::Timeuuid(uuid))
        | (CqlType::Timeuuid, Value::Timeuuid(uuid)) => {
            out.extend_from_slice(uuid.as_bytes());
        }
        _ => return None,
    }
    Some(())
}
