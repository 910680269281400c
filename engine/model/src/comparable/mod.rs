//! Order-preserving bytes: an encoding of values whose `memcmp` order is the order of their types.
//!
//! Clustering keys and the paths of collection cells are kept in this form, so that memtables, sstables, caches and
//! merges compare keys as byte strings and know no types. The planner encodes once, the result writer decodes once.
//!
//! ```text
//! component  = 0x40 payload                    a value
//!            | 0x3f                            zero bytes: before all values
//!            | 0x41                            zero bytes of a reversed component: after all values
//! payload of a reversed component: every byte complemented
//!
//! prefix     = component*                      leading clustering columns
//! key        = component* 0x38                 all clustering columns: a row
//! bound      = prefix 0x20                     before every key with this prefix
//!            | prefix 0x60                     after every key with this prefix
//!
//! payload, by type:
//!   boolean                            0 or 1
//!   tinyint smallint int bigint ...    big-endian, sign bit flipped
//!   float double                       IEEE bits, sign bit flipped, negative ones complemented; one NaN, last
//!   date time                          as they are
//!   timeuuid                           time from its high bits to its low ones, then the other bytes, sign bits flipped
//!   uuid                               version first, for version 1 the time as above; then the other bytes
//!   text ascii blob custom duration    bytes, 00 as 01 01, 01 as 01 02, then 00
//!   inet                               4 bytes, then 00, or 01 and 12 more bytes
//!   varint                             80 + length | bytes       length of at most 126; longer: ff, u32 length, bytes
//!                                      7f - length | bytes       if negative;           longer: 00, !u32 length, bytes
//!   decimal                            80                        zero
//!                                      81 exponent digits        0.DIGITS * 10^exponent
//!                                      7f and the complement of the same, if negative
//!            exponent                  80 + exponent from -60 to 60; beyond: ff or 00, i64 with its sign bit flipped
//!            digits                    1 + each pair of digits (1 to 100), then 00
//!   list set map                       components (of a map key and value in turn), then 38
//!   tuple UDT                          components, 3e for null; trailing nulls are left out; then 38
//!   composite                          00 static, 01 other; components, each with its end byte, sign bit flipped; then 38
//!   dynamic composite                  as that; before each component 40, and its class, simple and in full, as text
//!   vector                             payloads, if these have a fixed size, else components
//! ```
//!
//! Invariants:
//! - `memcmp` of two encodings is [`crate::value::compare`] of the values; of a reversed component its inverse.
//! - No encoding of a component is a prefix of another of the same type, so concatenation keeps the order, and keys and
//!   bounds of any prefix length compare as they should.
//! - Equal values have equal encodings. Decoding answers the *canonical* value: varints and decimals without needless
//!   bytes or trailing zeros, one NaN, booleans 0 or 1, tuples with all their elements.
//! - Decoding never panics and never trusts a length.

mod clustering;
mod decode;
mod encode;

#[cfg(test)]
mod tests;

pub use clustering::{
    bound_after, bound_before, decode_clustering, decode_prefix, encode_clustering, encode_prefix,
};
pub use decode::{decode_component, decode_component_into};
pub use encode::{Sink, encode_component};

pub use crate::key::{BOUND_AFTER, BOUND_BEFORE, COMPONENT, KEY_END};

/// In place of a null element of a tuple or UDT.
const NULL: u8 = 0x3e;
/// In place of a value of zero bytes.
const EMPTY: u8 = 0x3f;
/// In place of a value of zero bytes in a reversed component.
const EMPTY_REVERSED: u8 = 0x41;

/// Lengths of varints above this do not fit the first byte.
const SHORT_VARINT: usize = 126;
/// Exponents of decimals beyond this do not fit one byte.
const SHORT_EXPONENT: i64 = 60;
