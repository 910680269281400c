//! Parts of values: fields of UDTs, elements and slices of collections, and the paths of their cells.

use super::of_value;
use crate::CqlError;
use crate::ast::Name;
use bytes::Bytes;
use ceto_model::comparable::encode_component;
use ceto_model::value::wire::{Elements, pack_collection, take_i32, take_unsigned_vint, vector_element_size};
use ceto_model::value::{ValueError, compare};
use ceto_model::{CqlType, value};

/// Index and type of a field of a UDT.
pub(crate) fn find_field(cql_type: &CqlType, field: &Name) -> Result<(usize, CqlType), CqlError> {
    let CqlType::Udt { definition, .. } = cql_type else {
        return Err(CqlError::Invalid(format!(
            "Invalid field selection: a value of type {cql_type} is not a user type"
        )));
    };
    let found = definition
        .fields
        .iter()
        .enumerate()
        .find(|(_, f)| f.name == *field);
    found
        .map(|(index, f)| (index, f.cql_type.clone()))
        .ok_or_else(|| {
            CqlError::Invalid(format!(
                "{}.{} of type {cql_type} has no field {field}",
                definition.keyspace, definition.name
            ))
        })
}

/// Types of the keys and elements of what can be accessed with `[key]`.
pub(crate) fn key_and_value(collection: &CqlType) -> Result<(CqlType, CqlType), CqlError> {
    match collection {
        CqlType::Map { key, value, .. } => Ok(((**key).clone(), (**value).clone())),
        CqlType::Set { element, .. } => Ok(((**element).clone(), (**element).clone())),
        CqlType::List { element, .. } | CqlType::Vector { element, .. } => {
            Ok((CqlType::Int, (**element).clone()))
        }
        other => Err(CqlError::Invalid(format!(
            "Invalid element selection: a value of type {other} is not a collection"
        ))),
    }
}

/// The path of the cell of a set element or map key in a column that is not frozen.
pub(crate) fn path_of(key_type: &CqlType, key: &[u8]) -> Result<Bytes, CqlError> {
    let mut path = Vec::with_capacity(key.len() + 2);
    encode_component(key_type, false, key, &mut path).map_err(of_value)?;
    Ok(path.into())
}

/// A field of a UDT or tuple value.
pub(crate) fn field_of(wire: &Bytes, index: usize) -> Result<Option<Bytes>, CqlError> {
    let mut rest: &[u8] = wire;
    for at in 0.. {
        let Some(length) = take_i32(&mut rest) else {
            return Ok(None);
        };
        let Ok(length) = usize::try_from(length) else {
            if at == index {
                return Ok(None);
            }
            continue;
        };
        let Some((field, after)) = rest.split_at_checked(length) else {
            return Err(of_value(ValueError::Corrupt("a field ends beyond its value")));
        };
        if at == index {
            return Ok(Some(wire.slice_ref(field)));
        }
        rest = after;
    }
    Ok(None)
}

/// The element of a set (the element itself, when it is there), map, list or vector.
pub(crate) fn element_of(collection: &CqlType, wire: &Bytes, key: &[u8]) -> Result<Option<Bytes>, CqlError> {
    match collection {
        CqlType::Map { key: key_type, .. } => {
            let mut elements = Elements::new(collection, wire).map_err(of_value)?;
            while let (Some(found), Some(value)) = (elements.next(), elements.next()) {
                if compare(key_type, found.map_err(of_value)?, key).is_eq() {
                    return Ok(Some(wire.slice_ref(value.map_err(of_value)?)));
                }
            }
            Ok(None)
        }
        CqlType::Set { element, .. } => {
            for found in Elements::new(collection, wire).map_err(of_value)? {
                let found = found.map_err(of_value)?;
                if compare(element, found, key).is_eq() {
                    return Ok(Some(wire.slice_ref(found)));
                }
            }
            Ok(None)
        }
        CqlType::List { .. } => {
            let Some(index) = index_of(key) else {
                return Ok(None);
            };
            let found = Elements::new(collection, wire).map_err(of_value)?.nth(index);
            found
                .map(|bytes| bytes.map(|b| wire.slice_ref(b)).map_err(of_value))
                .transpose()
        }
        CqlType::Vector { element, .. } => {
            let Some(index) = index_of(key) else {
                return Ok(None);
            };
            Ok(vector_elements(element, wire)
                .nth(index)
                .map(|bytes| wire.slice_ref(bytes)))
        }
        _ => Ok(None),
    }
}

fn index_of(key: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(key.try_into().ok()?)).ok()
}

/// The elements of a vector.
pub(crate) fn vector_elements<'a>(element: &CqlType, wire: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
    let size = vector_element_size(element);
    let mut rest = wire;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match size {
            Some(size) => size,
            None => usize::try_from(take_unsigned_vint(&mut rest)?).ok()?,
        };
        value::wire::take(&mut rest, length)
    })
}

/// The elements of a set or map between two keys, both included. None of a collection that is not frozen: it is null
/// when it has no elements.
pub(crate) fn slice_of(
    collection: &CqlType,
    wire: &[u8],
    from: Option<&[u8]>,
    to: Option<&[u8]>,
) -> Result<Option<Bytes>, CqlError> {
    let (key_type, is_map) = match collection {
        CqlType::Map { key, .. } => (key, true),
        CqlType::Set { element, .. } => (element, false),
        other => return Err(CqlError::Invalid(format!("a {other} has no slices"))),
    };
    let is_inside = |key: &[u8]| {
        from.is_none_or(|from| compare(key_type, key, from).is_ge())
            && to.is_none_or(|to| compare(key_type, key, to).is_le())
    };
    let mut kept = Vec::new();
    let mut count = 0;
    let mut elements = Elements::new(collection, wire).map_err(of_value)?;
    while let Some(key) = elements.next() {
        let key = key.map_err(of_value)?;
        let value = if is_map {
            elements.next().transpose().map_err(of_value)?
        } else {
            None
        };
        if is_inside(key) {
            kept.push(key);
            kept.extend(value);
            count += 1;
        }
    }
    if count == 0 && collection.is_multicell() {
        return Ok(None);
    }
    Ok(Some(pack_collection(count, kept).into()))
}
