//! The notations of the specification (section 3): integers, strings, bytes, lists and maps, read and written.
//!
//! ```text
//! [short]      u16          [int]   i32          [long]  i64          [byte]  u8      all big-endian
//! [string]     | length u16 | UTF-8 |            [long string]  | length i32 | UTF-8 |
//! [bytes]      | length i32 | bytes |   < 0: null
//! [short bytes]| length u16 | bytes |
//! [inet]       | size u8 = 4 or 16 | address | port i32 |      [inetaddr]  without the port
//! [string list]      | count u16 | [string]* |
//! [string map]       | count u16 | ([string] [string])* |
//! [string multimap]  | count u16 | ([string] [string list])* |
//! [bytes map]        | count u16 | ([string] [bytes])* |
//! ```
//!
//! A [`Reader`] walks over a body held in one [`Bytes`], so what it cuts out shares that memory.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use ceto_model::Consistency;
use uuid::Uuid;

use crate::violation::Violation;

/// A map of names to bytes, in the order of the wire: the custom payload of a message.
pub type BytesMap = Vec<(String, Option<Bytes>)>;

/// A cursor over a body.
pub struct Reader<'a> {
    body: &'a Bytes,
    position: usize,
}

impl<'a> Reader<'a> {
    /// At the start of `body`.
    pub fn new(body: &'a Bytes) -> Self {
        Reader { body, position: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.body.len() - self.position
    }

    /// How many elements to reserve for a count read from the input: as many as the rest of the body can hold when
    /// each takes at least `element_bytes`.
    pub fn capacity(&self, count: usize, element_bytes: usize) -> usize {
        count.min(self.remaining() / element_bytes.max(1))
    }

    /// The next `length` bytes.
    #[inline]
    pub fn take(&mut self, length: usize, reading: &'static str) -> Result<&'a [u8], Violation> {
        let start = self.position;
        match start
            .checked_add(length)
            .and_then(|end| self.body.get(start..end))
        {
            Some(slice) => {
                self.position += length;
                Ok(slice)
            }
            None => Err(self.truncated(length, reading)),
        }
    }

    #[cold]
    fn truncated(&self, needed: usize, reading: &'static str) -> Violation {
        Violation::Truncated {
            reading,
            offset: self.position,
            needed,
            remaining: self.remaining(),
        }
    }

    /// The next `length` bytes, sharing the memory of the body.
    pub fn take_bytes(&mut self, length: usize, reading: &'static str) -> Result<Bytes, Violation> {
        let start = self.position;
        self.take(length, reading)?;
        Ok(self.body.slice(start..self.position))
    }

    /// All that is left.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.body.slice(self.position..);
        self.position = self.body.len();
        rest
    }

    fn array<const N: usize>(&mut self, reading: &'static str) -> Result<[u8; N], Violation> {
        let slice = self.take(N, reading)?;
        Ok(slice
            .try_into()
            .expect("take returns as many bytes as it was asked for"))
    }

    /// \[byte\].
    pub fn u8(&mut self, reading: &'static str) -> Result<u8, Violation> {
        Ok(u8::from_be_bytes(self.array(reading)?))
    }

    /// \[short\].
    pub fn u16(&mut self, reading: &'static str) -> Result<u16, Violation> {
        Ok(u16::from_be_bytes(self.array(reading)?))
    }

    /// \[int\].
    pub fn i32(&mut self, reading: &'static str) -> Result<i32, Violation> {
        Ok(i32::from_be_bytes(self.array(reading)?))
    }

    /// \[int\] as bits.
    pub fn u32(&mut self, reading: &'static str) -> Result<u32, Violation> {
        Ok(u32::from_be_bytes(self.array(reading)?))
    }

    /// \[long\].
    pub fn i64(&mut self, reading: &'static str) -> Result<i64, Violation> {
        Ok(i64::from_be_bytes(self.array(reading)?))
    }

    /// \[uuid\].
    pub fn uuid(&mut self, reading: &'static str) -> Result<Uuid, Violation> {
        Ok(Uuid::from_bytes(self.array(reading)?))
    }

    /// An \[int\] that counts something, so not negative.
    pub fn count(&mut self, reading: &'static str) -> Result<u32, Violation> {
        let count = self.i32(reading)?;
        u32::try_from(count).map_err(|_| self.invalid_length(reading, count))
    }

    fn invalid_length(&self, reading: &'static str, length: i32) -> Violation {
        Violation::InvalidLength {
            reading,
            offset: self.position,
            length: i64::from(length),
        }
    }

    fn utf8(&mut self, length: usize, reading: &'static str) -> Result<&'a str, Violation> {
        let slice = self.take(length, reading)?;
        std::str::from_utf8(slice).map_err(|_| Violation::InvalidUtf8 {
            reading,
            offset: self.position,
        })
    }

    /// \[string\].
    pub fn string(&mut self, reading: &'static str) -> Result<&'a str, Violation> {
        let length = self.u16(reading)?;
        self.utf8(usize::from(length), reading)
    }

    /// \[long string\].
    pub fn long_string(&mut self, reading: &'static str) -> Result<&'a str, Violation> {
        let length = self.count(reading)?;
        self.utf8(length as usize, reading)
    }

    /// \[bytes\]: None for any negative length.
    pub fn bytes(&mut self, reading: &'static str) -> Result<Option<Bytes>, Violation> {
        match usize::try_from(self.i32(reading)?) {
            Ok(length) => self.take_bytes(length, reading).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// \[short bytes\].
    pub fn short_bytes(&mut self, reading: &'static str) -> Result<Bytes, Violation> {
        let length = self.u16(reading)?;
        self.take_bytes(usize::from(length), reading)
    }

    /// \[consistency\].
    pub fn consistency(&mut self) -> Result<Consistency, Violation> {
        let reading = "a consistency level";
        let code = self.u16(reading)?;
        Consistency::from_code(code).ok_or_else(|| Violation::UnknownCode {
            reading,
            offset: self.position,
            code: i64::from(code),
        })
    }

    /// \[inetaddr\].
    pub fn ip_address(&mut self, reading: &'static str) -> Result<IpAddr, Violation> {
        match self.u8(reading)? {
            4 => Ok(IpAddr::from(self.array::<4>(reading)?)),
            16 => Ok(IpAddr::from(self.array::<16>(reading)?)),
            size => Err(self.invalid_length(reading, i32::from(size))),
        }
    }

    /// \[inet\].
    pub fn socket_address(&mut self, reading: &'static str) -> Result<SocketAddr, Violation> {
        let address = self.ip_address(reading)?;
        let port = self.i32(reading)?;
        let port = u16::try_from(port).map_err(|_| Violation::OutOfRange {
            reading: "A port must be in [0, 65535]",
            value: i64::from(port),
        })?;
        Ok(SocketAddr::new(address, port))
    }

    /// \[string list\].
    pub fn string_list(&mut self, reading: &'static str) -> Result<Vec<String>, Violation> {
        let count = usize::from(self.u16(reading)?);
        let mut list = Vec::with_capacity(self.capacity(count, 2));
        for _ in 0..count {
            list.push(self.string(reading)?.to_owned());
        }
        Ok(list)
    }

    /// \[string map\], in the order of the wire.
    pub fn string_map(&mut self, reading: &'static str) -> Result<Vec<(String, String)>, Violation> {
        let count = usize::from(self.u16(reading)?);
        let mut map = Vec::with_capacity(self.capacity(count, 4));
        for _ in 0..count {
            let key = self.string(reading)?.to_owned();
            map.push((key, self.string(reading)?.to_owned()));
        }
        Ok(map)
    }

    /// \[string multimap\], in the order of the wire.
    pub fn string_multimap(
        &mut self,
        reading: &'static str,
    ) -> Result<Vec<(String, Vec<String>)>, Violation> {
        let count = usize::from(self.u16(reading)?);
        let mut map = Vec::with_capacity(self.capacity(count, 4));
        for _ in 0..count {
            let key = self.string(reading)?.to_owned();
            map.push((key, self.string_list(reading)?));
        }
        Ok(map)
    }

    /// \[bytes map\], in the order of the wire.
    pub fn bytes_map(&mut self, reading: &'static str) -> Result<BytesMap, Violation> {
        let count = usize::from(self.u16(reading)?);
        let mut map = Vec::with_capacity(self.capacity(count, 6));
        for _ in 0..count {
            let key = self.string(reading)?.to_owned();
            map.push((key, self.bytes(reading)?));
        }
        Ok(map)
    }
}

/// The longest prefix of `text` that fits in a \[string\].
fn clip(text: &str) -> &str {
    let limit = usize::from(u16::MAX);
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// A count that goes into a \[short\].
///
/// Panics if it does not fit: what is counted is bounded by the schema or by the protocol itself.
fn short_count(count: usize) -> u16 {
    u16::try_from(count).expect("fewer than 65536 elements by construction")
}

/// A length that goes into an \[int\]. Panics above 2 GiB, more than any message may have.
pub(crate) fn int_length(length: usize) -> i32 {
    i32::try_from(length).expect("shorter than 2 GiB by construction")
}

/// \[string\]. Text of more than 65535 bytes is cut at a character boundary: only messages and the text of
/// expressions can be so long.
pub fn put_string(out: &mut BytesMut, text: &str) {
    let text = clip(text);
    out.put_u16(short_count(text.len()));
    out.put_slice(text.as_bytes());
}

/// \[long string\].
pub fn put_long_string(out: &mut BytesMut, text: &str) {
    out.put_i32(int_length(text.len()));
    out.put_slice(text.as_bytes());
}

/// \[bytes\].
pub fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            out.put_i32(int_length(bytes.len()));
            out.put_slice(bytes);
        }
        None => out.put_i32(-1),
    }
}

/// \[short bytes\].
pub fn put_short_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(short_count(bytes.len()));
    out.put_slice(bytes);
}

/// \[consistency\].
pub fn put_consistency(out: &mut BytesMut, consistency: Consistency) {
    out.put_u16(consistency.code());
}

/// \[inetaddr\].
pub fn put_ip_address(out: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.put_u8(16);
            out.put_slice(&address.octets());
        }
    }
}

/// \[inet\].
pub fn put_socket_address(out: &mut BytesMut, address: SocketAddr) {
    put_ip_address(out, address.ip());
    out.put_i32(i32::from(address.port()));
}

/// \[string list\].
pub fn put_string_list<S: AsRef<str>>(out: &mut BytesMut, list: &[S]) {
    out.put_u16(short_count(list.len()));
    for text in list {
        put_string(out, text.as_ref());
    }
}

/// \[string map\].
pub fn put_string_map(out: &mut BytesMut, map: &[(String, String)]) {
    out.put_u16(short_count(map.len()));
    for (key, value) in map {
        put_string(out, key);
        put_string(out, value);
    }
}

/// \[string multimap\].
pub fn put_string_multimap(out: &mut BytesMut, map: &[(String, Vec<String>)]) {
    out.put_u16(short_count(map.len()));
    for (key, values) in map {
        put_string(out, key);
        put_string_list(out, values);
    }
}

/// \[bytes map\].
pub fn put_bytes_map(out: &mut BytesMut, map: &[(String, Option<Bytes>)]) {
    out.put_u16(short_count(map.len()));
    for (key, value) in map {
        put_string(out, key);
        put_bytes(out, value.as_deref());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_claimed_count_reserves_no_more_than_the_body_can_hold() {
        let body = Bytes::from_static(&[0xff, 0xff, 0, 0]);
        let mut reader = Reader::new(&body);
        let count = usize::from(reader.u16("count").unwrap());
        assert_eq!(reader.capacity(count, 2), 1);
        let whole = Bytes::from_static(&[0xff, 0xff, 0, 0]);
        assert!(matches!(
            Reader::new(&whole).string_list("names"),
            Err(Violation::Truncated { .. })
        ));
    }

    #[test]
    fn a_text_too_long_for_a_string_is_cut_at_a_character() {
        let text = "é".repeat(40_000);
        let mut out = BytesMut::new();
        put_string(&mut out, &text);
        let body = out.freeze();
        let read = Reader::new(&body).string("text").unwrap().len();
        assert_eq!(read, 65_534);
    }

    #[test]
    fn negative_and_overlong_lengths_are_refused() {
        let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(
            Reader::new(&body).long_string("query"),
            Err(Violation::InvalidLength { length: -1, .. })
        ));
        let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 1]);
        let error = Reader::new(&body).long_string("query").unwrap_err();
        assert_eq!(
            error,
            Violation::Truncated {
                reading: "query",
                offset: 4,
                needed: 0x7fff_ffff,
                remaining: 1
            }
        );
    }
}
