//! The canonical wire form: what is stored when a client sends a value.
//!
//! A client may send the elements of a set or the entries of a map in any order and repeated. Stored values are sorted
//! and without repetition, so that equal values are equal bytes and elements can be found by search.

use super::validate::{consumed, validate};
use super::wire::{
    Elements, put_count, put_unsigned_vint, put_value, take_component, take_vector_element,
    vector_element_size,
};
use super::{ValueError, compare};
use crate::CqlType;
use std::borrow::Cow;

/// Checks `wire` as [`validate`] does and answers it with all sets and maps inside sorted and without duplicates; of
/// two entries of a map with equal keys the later one stays. Borrowed, without allocation, when nothing in the type
/// can be out of order.
pub fn canonical<'a>(cql_type: &CqlType, wire: &'a [u8]) -> Result<Cow<'a, [u8]>, ValueError> {
    validate(cql_type, wire)?;
    if is_always_canonical(cql_type) || wire.is_empty() {
        return Ok(Cow::Borrowed(wire));
    }
    let mut out = Vec::with_capacity(wire.len());
    put_canonical(cql_type, wire, &mut out)?;
    Ok(Cow::Owned(out))
}

/// No set or map is inside.
fn is_always_canonical(cql_type: &CqlType) -> bool {
    match cql_type {
        CqlType::Set { .. } | CqlType::Map { .. } => false,
        CqlType::List { element, .. } | CqlType::Vector { element, .. } => is_always_canonical(element),
        CqlType::Tuple(elements) => elements.iter().all(is_always_canonical),
        CqlType::Udt { definition, .. } => definition
            .fields
            .iter()
            .all(|field| is_always_canonical(&field.cql_type)),
        _ => true,
    }
}

fn put_canonical(cql_type: &CqlType, wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if wire.is_empty() {
        return Ok(());
    }
    let of = |element: &CqlType, bytes: &[u8]| {
        let mut inner = Vec::with_capacity(bytes.len());
        put_canonical(element, bytes, &mut inner).map(|()| inner)
    };
    match cql_type {
        CqlType::List { element, .. } => {
            let values = Elements::new(cql_type, wire)?
                .map(|bytes| of(element, bytes?))
                .collect::<Result<Vec<_>, _>>()?;
            put_count(out, values.len());
            for value in &values {
                put_value(out, Some(value));
            }
            Ok(())
        }
        CqlType::Set { element, .. } => {
            let elements = Elements::new(cql_type, wire)?
                .map(|bytes| Ok((of(element, bytes?)?, None)))
                .collect::<Result<_, ValueError>>()?;
            pack_sorted(element, elements, out);
            Ok(())
        }
        CqlType::Map { key, value, .. } => {
            let mut elements = Elements::new(cql_type, wire)?;
            let mut entries = Vec::with_capacity(elements.capacity() / 2);
            while let (Some(key_bytes), Some(value_bytes)) = (elements.next(), elements.next()) {
                entries.push((of(key, key_bytes?)?, Some(of(value, value_bytes?)?)));
            }
            pack_sorted(key, entries, out);
            Ok(())
        }
        CqlType::Tuple(types) => put_fields(types.iter(), wire, out),
        CqlType::Udt { definition, .. } => {
            put_fields(definition.fields.iter().map(|field| &field.cql_type), wire, out)
        }
        CqlType::Vector { element, dimension } => {
            let size = vector_element_size(element);
            let mut rest = wire;
            for _ in 0..*dimension {
                let bytes = take_vector_element(&mut rest, size)
                    .ok_or_else(|| ValueError::invalid(format!("Not enough bytes to read a {cql_type}")))?;
                let inner = of(element, bytes)?;
                if size.is_none() {
                    put_unsigned_vint(out, inner.len() as u64);
                }
                out.extend_from_slice(&inner);
            }
            Ok(())
        }
        _ => {
            out.extend_from_slice(wire);
            Ok(())
        }
    }
}

fn put_fields<'a>(
    types: impl Iterator<Item = &'a CqlType>,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let mut rest = wire;
    for field_type in types {
        match take_component(&mut rest, || "field".to_owned())? {
            None => return Ok(()),
            Some(None) => put_value(out, None),
            Some(Some(bytes)) => {
                let mut inner = Vec::with_capacity(bytes.len());
                put_canonical(field_type, bytes, &mut inner)?;
                put_value(out, Some(&inner));
            }
        }
    }
    consumed(rest, "tuple")
}

/// Elements of a set (second part None) or entries of a map, as wire bytes, in any order.
pub(super) type Entries = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Appends a set or map of these entries, sorted by `key_type`'s order; of equal keys the last entry stays.
pub(super) fn pack_sorted(key_type: &CqlType, mut entries: Entries, out: &mut Vec<u8>) {
    entries.sort_by(|a, b| compare(key_type, &a.0, &b.0));
    // The sort is stable: among equal keys the last is the latest, and the kept one takes its place.
    entries.dedup_by(|later, kept| {
        let same = compare(key_type, &later.0, &kept.0).is_eq();
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    put_count(out, entries.len());
    for (key, value) in &entries {
        put_value(out, Some(key));
        if let Some(value) = value {
            put_value(out, Some(value));
        }
    }
}
