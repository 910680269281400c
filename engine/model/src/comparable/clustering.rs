//! Clustering keys, prefixes and bounds: components one after the other, and one byte that ends them.

use super::{BOUND_AFTER, BOUND_BEFORE, KEY_END, Sink, decode_component_into, encode_component};
use crate::CqlType;
use crate::value::ValueError;
use bytes::Bytes;
use smallvec::SmallVec;

/// Keys of common tables fit, so that encoding one allocates once, for the answer.
type Scratch = SmallVec<[u8; 128]>;

/// The key of a row: `types` are the clustering columns, each with whether it is descending; `components` one value per
/// column, as wire bytes. A table without clustering columns has the one key of no components.
///
/// Panics when the numbers differ.
pub fn encode_clustering<B: AsRef<[u8]>>(
    types: &[(CqlType, bool)],
    components: &[B],
) -> Result<Bytes, ValueError> {
    assert_eq!(
        types.len(),
        components.len(),
        "a clustering key has one component per column"
    );
    let mut out = Scratch::new();
    put_prefix(types, components, &mut out)?;
    out.put(KEY_END);
    Ok(Bytes::copy_from_slice(&out))
}

/// The leading components of a key, without the byte that ends it: what bounds are made of.
///
/// Panics when there are more components than columns.
pub fn encode_prefix<B: AsRef<[u8]>>(
    types: &[(CqlType, bool)],
    components: &[B],
) -> Result<Bytes, ValueError> {
    assert!(
        components.len() <= types.len(),
        "a clustering prefix has no more components than columns"
    );
    let mut out = Scratch::new();
    put_prefix(types, components, &mut out)?;
    Ok(Bytes::copy_from_slice(&out))
}

fn put_prefix<B: AsRef<[u8]>>(
    types: &[(CqlType, bool)],
    components: &[B],
    out: &mut impl Sink,
) -> Result<(), ValueError> {
    types
        .iter()
        .zip(components)
        .try_for_each(|((cql_type, reversed), wire)| {
            encode_component(cql_type, *reversed, wire.as_ref(), out)
        })
}

/// The bound before every key that starts with `prefix`; of the empty prefix, before every row of a partition.
pub fn bound_before(prefix: &[u8]) -> Bytes {
    bound(prefix, BOUND_BEFORE)
}

/// The bound after every key that starts with `prefix`; of the empty prefix, after every row of a partition.
pub fn bound_after(prefix: &[u8]) -> Bytes {
    bound(prefix, BOUND_AFTER)
}

fn bound(prefix: &[u8], last: u8) -> Bytes {
    let mut out = Vec::with_capacity(prefix.len() + 1);
    out.extend_from_slice(prefix);
    out.push(last);
    out.into()
}

/// The wire bytes of all components of a key. Error: [`ValueError::Corrupt`].
pub fn decode_clustering(types: &[(CqlType, bool)], key: &[u8]) -> Result<SmallVec<[Bytes; 4]>, ValueError> {
    let (components, last) = decode_prefix(types, key)?;
    if components.len() != types.len() || last != KEY_END {
        return Err(ValueError::Corrupt("not a whole clustering key"));
    }
    Ok(components)
}

/// The wire bytes of the components of a key or bound, and its last byte: [`KEY_END`], [`BOUND_BEFORE`] or
/// [`BOUND_AFTER`]. Error: [`ValueError::Corrupt`].
pub fn decode_prefix(
    types: &[(CqlType, bool)],
    position: &[u8],
) -> Result<(SmallVec<[Bytes; 4]>, u8), ValueError> {
    let mut rest = position;
    // Wire bytes of most types are no longer than their encoding.
    let mut wire = Vec::with_capacity(position.len());
    let mut ends: SmallVec<[usize; 4]> = SmallVec::new();
    for (cql_type, reversed) in types {
        if matches!(rest, [BOUND_BEFORE | BOUND_AFTER]) {
            break;
        }
        decode_component_into(cql_type, *reversed, &mut rest, &mut wire)?;
        ends.push(wire.len());
    }
    let &[last @ (KEY_END | BOUND_BEFORE | BOUND_AFTER)] = rest else {
        return Err(ValueError::Corrupt("not the end of a clustering key or bound"));
    };
    let wire = Bytes::from(wire);
    let mut start = 0;
    let components = ends
        .iter()
        .map(|&end| wire.slice(std::mem::replace(&mut start, end)..end))
        .collect();
    Ok((components, last))
}
