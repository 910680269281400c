//! The pieces that wire bytes are made of: fixed integers, vints, lengths and counts.
//!
//! Readers take from the front of a `&mut &[u8]` and answer None when the bytes do not suffice; they never look at a
//! length field before the bytes it speaks of are there.
//!
//! ```text
//! unsigned vint   first byte: as many leading 1 bits as bytes follow, then the value, big-endian
//!                 0xxxxxxx | 10xxxxxx +1 | 110xxxxx +2 | ... | 11111111 +8
//! vint            zigzag of the signed value as unsigned vint
//! ```

use super::ValueError;
use crate::CqlType;

/// Takes a big-endian `i32` from the front.
pub fn take_i32(input: &mut &[u8]) -> Option<i32> {
    let (head, rest) = input.split_first_chunk::<4>()?;
    *input = rest;
    Some(i32::from_be_bytes(*head))
}

/// Takes `length` bytes from the front.
pub fn take<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(head)
}

/// Takes an unsigned vint from the front.
pub fn take_unsigned_vint(input: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = input.split_first()?;
    let extra = first.leading_ones() as usize;
    let (body, rest) = rest.split_at_checked(extra)?;
    *input = rest;
    // With 7 or 8 bytes following, the first byte carries no bit of the value.
    let high = if extra >= 7 {
        0
    } else {
        u64::from(first & (0x7f >> extra))
    };
    Some(
        body.iter()
            .fold(high, |value, &byte| value << 8 | u64::from(byte)),
    )
}

/// Takes a signed (zigzag) vint from the front.
pub fn take_vint(input: &mut &[u8]) -> Option<i64> {
    let raw = take_unsigned_vint(input)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Appends an unsigned vint: 1 to 9 bytes.
pub fn put_unsigned_vint(out: &mut Vec<u8>, value: u64) {
    let significant_bits = 64 - (value | 1).leading_zeros() as usize;
    let extra = if significant_bits > 56 {
        8
    } else {
        (significant_bits - 1) / 7
    };
    let bytes = value.to_be_bytes();
    if extra == 8 {
        out.push(0xff);
        out.extend_from_slice(&bytes);
        return;
    }
    let marker = !(0xff_u8 >> extra);
    let body = &bytes[7 - extra..];
    out.push(marker | body[0]);
    out.extend_from_slice(&body[1..]);
}

/// Appends a signed (zigzag) vint: 1 to 9 bytes.
pub fn put_vint(out: &mut Vec<u8>, value: i64) {
    put_unsigned_vint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes a `[value]` from the front: an `i32` length, negative for null, and so many bytes.
/// The outer None: not enough bytes.
pub fn take_value<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_i32(input)?;
    match usize::try_from(length) {
        Ok(length) => take(input, length).map(Some),
        Err(_) => Some(None),
    }
}

/// Appends a `[value]`; None is null.
pub fn put_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(bytes) => {
            let length = i32::try_from(bytes.len()).expect("a value is smaller than a frame: 256 MiB");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
}

/// The elements of a list or set, or keys and values of a map in turn. Ends with an error, once, when the bytes end
/// too early, hold a null or hold more than announced. Zero bytes are an empty collection.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: u64,
    noun: &'static str,
}

impl<'a> Elements<'a> {
    /// `collection` is a list, set or map type and says how many values belong to an element.
    pub fn new(collection: &CqlType, wire: &'a [u8]) -> Result<Self, ValueError> {
        let (noun, per_element) = match collection {
            CqlType::Set { .. } => ("set", 1),
            CqlType::Map { .. } => ("map", 2),
            _ => ("list", 1),
        };
        if wire.is_empty() {
            return Ok(Self {
                rest: wire,
                left: 0,
                noun,
            });
        }
        let mut rest = wire;
        let count = take_i32(&mut rest)
            .ok_or_else(|| ValueError::invalid(format!("Not enough bytes to read a {noun}")))?;
        let count = u64::try_from(count)
            .map_err(|_| ValueError::invalid(format!("The data cannot be deserialized as a {noun}")))?;
        Ok(Self {
            rest,
            left: count * per_element,
            noun,
        })
    }

    /// How many values can follow at most, by the bytes that are there: for capacities.
    pub fn capacity(&self) -> usize {
        (self.left as usize).min(self.rest.len() / 4)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], ValueError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            let noun = self.noun;
            return Some(Err(ValueError::invalid(format!(
                "Unexpected extraneous bytes after {noun} value"
            ))));
        }
        let error = match take_value(&mut self.rest) {
            Some(Some(element)) => {
                self.left -= 1;
                return Some(Ok(element));
            }
            Some(None) => "Null value read when not allowed".to_owned(),
            None => format!("Not enough bytes to read a {}", self.noun),
        };
        self.left = 0;
        self.rest = &[];
        Some(Err(ValueError::Invalid(error)))
    }
}

/// The bytes of a list, set or map of `count` elements: `values` are the elements in order, for a map key and value in
/// turn. Nothing is sorted.
pub fn pack_collection<'a>(count: usize, values: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    put_count(&mut out, count);
    for value in values {
        put_value(&mut out, Some(value));
    }
    out
}

/// Appends the count that a collection starts with.
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = i32::try_from(count).expect("each element has 4 bytes in a frame of at most 256 MiB");
    out.extend_from_slice(&count.to_be_bytes());
}

/// Takes one component of a tuple or UDT: None when the bytes have ended (the field is missing), else the value, where
/// None is null. `describe` names the component in the error.
pub(crate) fn take_component<'a>(
    input: &mut &'a [u8],
    describe: impl Fn() -> String,
) -> Result<Option<Option<&'a [u8]>>, ValueError> {
    if input.is_empty() {
        return Ok(None);
    }
    let length = take_i32(input)
        .ok_or_else(|| ValueError::invalid(format!("Not enough bytes to read size of {}", describe())))?;
    let Ok(length) = usize::try_from(length) else {
        return Ok(Some(None));
    };
    match take(input, length) {
        Some(bytes) => Ok(Some(Some(bytes))),
        None => Err(ValueError::invalid(format!(
            "Not enough bytes to read {}",
            describe()
        ))),
    }
}

/// The size in bytes of an element of this type inside a vector, or None when each element carries its length.
///
/// Not [`CqlType::fixed_size`]: tinyint, smallint, date and time have one size, but carry a length inside vectors.
pub fn vector_element_size(element: &CqlType) -> Option<usize> {
    match element {
        CqlType::Boolean => Some(1),
        CqlType::Int | CqlType::Float => Some(4),
        CqlType::Bigint | CqlType::Counter | CqlType::Double | CqlType::Timestamp => Some(8),
        CqlType::Uuid | CqlType::Timeuuid => Some(16),
        CqlType::Vector { element, dimension } => {
            vector_element_size(element).map(|size| size.saturating_mul(usize::from(*dimension)))
        }
        _ => None,
    }
}

/// Takes one element of a vector from the front; `size` is [`vector_element_size`].
pub(crate) fn take_vector_element<'a>(input: &mut &'a [u8], size: Option<usize>) -> Option<&'a [u8]> {
    let length = match size {
        Some(size) => size,
        None => usize::try_from(take_unsigned_vint(input)?).ok()?,
    };
    take(input, length)
}
