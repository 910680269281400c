//! Bound values of a request: where each one lies in the body, without a copy and without an allocation for each.
//!
//! ```text
//! values  | count u16 | ( [name string]? | length i32 | bytes )* |     length -1 null, -2 unset (v4, v5)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::version::{Dialect, ProtocolVersion};
use crate::violation::Violation;
use crate::wire::{Reader, int_length, put_string};

/// Values up to this number are held without an allocation.
const INLINE_VALUES: usize = 16;
const NULL: i32 = -1;
const UNSET: i32 = -2;

/// A value bound to a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoundValue {
    /// Deletes the column, or a null in a condition.
    Null,
    /// Leaves the column as it is (v4, v5).
    Unset,
    /// Wire bytes of the marker's type, possibly none.
    Value(Bytes),
}

/// Where a value lies in the body. A negative length is one of the marks.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u32,
    length: i32,
}

/// The values of a request, in order; names stand beside them if the request has names.
#[derive(Clone, Debug, Default)]
pub struct Values {
    body: Bytes,
    ranges: SmallVec<[Range; INLINE_VALUES]>,
    names: Option<Vec<String>>,
}

impl Values {
    /// Reads a count and as many values, each after its name if `named`.
    pub(crate) fn decode(
        reader: &mut Reader<'_>,
        body: &Bytes,
        dialect: Dialect,
        named: bool,
    ) -> Result<Values, Violation> {
        let count = usize::from(reader.u16("the number of values")?);
        let mut ranges = SmallVec::with_capacity(reader.capacity(count, if named { 6 } else { 4 }));
        let mut names = (named && count > 0).then(|| Vec::with_capacity(reader.capacity(count, 6)));
        for _ in 0..count {
            if let Some(names) = &mut names {
                names.push(reader.string("the name of a value")?.to_owned());
            }
            ranges.push(Self::decode_range(reader, dialect)?);
        }
        Ok(Values {
            body: body.clone(),
            ranges,
            names,
        })
    }

    fn decode_range(reader: &mut Reader<'_>, dialect: Dialect) -> Result<Range, Violation> {
        let reading = "a bound value";
        let length = reader.i32(reading)?;
        let start = u32::try_from(reader.position()).expect("a body is at most 256 MiB long");
        match usize::try_from(length) {
            Ok(bytes) => {
                reader.take(bytes, reading)?;
                Ok(Range { start, length })
            }
            // Version 3 knows only null, which any negative length means there.
            Err(_) if length == NULL || dialect.version == ProtocolVersion::V3 => {
                Ok(Range { start, length: NULL })
            }
            Err(_) if length == UNSET => Ok(Range { start, length }),
            Err(_) => Err(Violation::InvalidLength {
                reading,
                offset: reader.position(),
                length: i64::from(length),
            }),
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u16(u16::try_from(self.len()).expect("a request binds fewer than 65536 values"));
        for index in 0..self.len() {
            if let Some(name) = self.name(index) {
                put_string(out, name);
            }
            let Range { start, length } = self.ranges[index];
            out.put_i32(length);
            if let Ok(length) = usize::try_from(length) {
                let start = start as usize;
                out.put_slice(&self.body[start..start + length]);
            }
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// No value.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The values have names.
    pub fn is_named(&self) -> bool {
        self.names.is_some()
    }

    /// The name at `index`, if values have names and there are so many.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.as_ref()?.get(index).map(String::as_str)
    }

    /// The index of the value of this name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.names
            .as_ref()?
            .iter()
            .position(|candidate| candidate == name)
    }

    /// The bytes at `index`; None if there is no such value or it is null or unset.
    pub fn slice(&self, index: usize) -> Option<&[u8]> {
        let Range { start, length } = *self.ranges.get(index)?;
        let start = start as usize;
        self.body.get(start..start + usize::try_from(length).ok()?)
    }

    /// The value at `index`, sharing the memory of the request.
    pub fn get(&self, index: usize) -> Option<BoundValue> {
        let Range { start, length } = *self.ranges.get(index)?;
        Some(match usize::try_from(length) {
            Ok(length) => {
                let start = start as usize;
                BoundValue::Value(self.body.slice(start..start + length))
            }
            Err(_) if length == UNSET => BoundValue::Unset,
            Err(_) => BoundValue::Null,
        })
    }

    /// All values in order, sharing the memory of the request.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = BoundValue> + '_ {
        (0..self.len()).map(|index| self.get(index).expect("the index is below the length"))
    }

    /// Bytes of all values together.
    pub fn data_size(&self) -> usize {
        self.ranges
            .iter()
            .map(|range| usize::try_from(range.length).unwrap_or(0))
            .sum()
    }

    /// Starts a list of values to send.
    pub fn builder() -> ValuesBuilder {
        ValuesBuilder::default()
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names && self.iter().eq(other.iter())
    }
}

impl Eq for Values {}

/// Collects the values of a request to send, in one buffer.
#[derive(Default)]
pub struct ValuesBuilder {
    body: BytesMut,
    ranges: SmallVec<[Range; INLINE_VALUES]>,
    names: Option<Vec<String>>,
}

impl ValuesBuilder {
    /// Adds a value.
    pub fn value(mut self, bytes: &[u8]) -> Self {
        let start = u32::try_from(self.body.len()).expect("the values of a request are shorter than 256 MiB");
        self.ranges.push(Range {
            start,
            length: int_length(bytes.len()),
        });
        self.body.extend_from_slice(bytes);
        self
    }

    /// Adds a null.
    pub fn null(mut self) -> Self {
        self.ranges.push(Range {
            start: 0,
            length: NULL,
        });
        self
    }

    /// Adds an unset value; v3 has none.
    pub fn unset(mut self) -> Self {
        self.ranges.push(Range {
            start: 0,
            length: UNSET,
        });
        self
    }

    /// Adds a value.
    pub fn bound(self, value: &BoundValue) -> Self {
        match value {
            BoundValue::Null => self.null(),
            BoundValue::Unset => self.unset(),
            BoundValue::Value(bytes) => self.value(bytes),
        }
    }

    /// Names the values, in their order. Panics at [`Self::build`] unless there are as many as values.
    pub fn names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// The values.
    pub fn build(self) -> Values {
        if let Some(names) = &self.names {
            assert_eq!(names.len(), self.ranges.len(), "every value has a name");
        }
        Values {
            body: self.body.freeze(),
            ranges: self.ranges,
            names: self.names,
        }
    }
}

impl FromIterator<BoundValue> for Values {
    fn from_iter<I: IntoIterator<Item = BoundValue>>(values: I) -> Self {
        values
            .into_iter()
            .fold(Values::builder(), |builder, value| builder.bound(&value))
            .build()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sixteen_values_are_held_without_an_allocation() {
        let values = (0..INLINE_VALUES)
            .fold(Values::builder(), |builder, _| builder.value(b"v"))
            .build();
        let mut out = BytesMut::new();
        values.encode(&mut out);
        let body = out.freeze();
        let dialect = Dialect::new(ProtocolVersion::V4);
        let decoded = Values::decode(&mut Reader::new(&body), &body, dialect, false).unwrap();
        assert_eq!(decoded, values);
        assert!(!decoded.ranges.spilled());
    }

    #[test]
    fn names_find_their_values() {
        let values = Values::builder().value(b"1").null().names(["a", "b"]).build();
        assert_eq!(values.index_of("b"), Some(1));
        assert_eq!(values.index_of("c"), None);
        assert_eq!(values.get(1), Some(BoundValue::Null));
        assert_eq!(values.get(2), None);
        assert_eq!(values.data_size(), 1);
    }
}
