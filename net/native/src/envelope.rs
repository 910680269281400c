//! Envelopes: the unit that carries one message, the same in every version.
//!
//! ```text
//! 0         8        16        24        32        40
//! | version | flags  |      stream       | opcode  |
//! |                length                |  body ...
//! ```
//!
//! The top bit of `version` is the direction. `length` is that of the body; all integers are big-endian.

use bytes::{BufMut, Bytes, BytesMut};

use crate::opcode::Opcode;
use crate::version::ProtocolVersion;
use crate::violation::Violation;

/// Bytes of a header.
pub const HEADER_LENGTH: usize = 9;
/// Most bytes of a body that the specification allows. A greater length field is no envelope.
pub const MAX_BODY_LENGTH: u32 = 256 << 20;

const RESPONSE_BIT: u8 = 0x80;

/// Flags of a header.
pub mod flags {
    /// The body is compressed (v3, v4).
    pub const COMPRESSED: u8 = 0x01;
    /// Request: trace it. Response: the body starts with a tracing id.
    pub const TRACING: u8 = 0x02;
    /// The body has a custom payload.
    pub const CUSTOM_PAYLOAD: u8 = 0x04;
    /// The body has warnings.
    pub const WARNING: u8 = 0x08;
    /// The client accepts a version that is still in beta.
    pub const USE_BETA: u8 = 0x10;
}

/// Who sends a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Client to server.
    Request,
    /// Server to client.
    Response,
}

/// A decoded header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// Of the connection.
    pub version: ProtocolVersion,
    /// See [`flags`]; unknown bits are kept and mean nothing.
    pub flags: u8,
    /// Ties a response to its request; negative for messages that the server starts.
    pub stream: i16,
    /// Kind of message.
    pub opcode: Opcode,
    /// Bytes of the body.
    pub length: u32,
}

impl Header {
    /// Has all bits of `flag`.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag == flag
    }

    /// Decodes a header that must have `direction`.
    pub fn decode(bytes: &[u8; HEADER_LENGTH], direction: Direction) -> Result<Header, Violation> {
        let [first, flags, stream_high, stream_low, opcode, length @ ..] = *bytes;
        let stream = i16::from_be_bytes([stream_high, stream_low]);
        let version = first & !RESPONSE_BIT;
        let version =
            ProtocolVersion::from_number(version).ok_or(Violation::UnsupportedVersion { version, stream })?;
        if version.is_beta() && direction == Direction::Request && flags & self::flags::USE_BETA == 0 {
            return Err(Violation::BetaVersion { version, stream });
        }
        let expected_bit = match direction {
            Direction::Request => 0,
            Direction::Response => RESPONSE_BIT,
        };
        if first & RESPONSE_BIT != expected_bit {
            return Err(Violation::WrongDirection { opcode, stream });
        }
        let kind = Opcode::from_code(opcode).ok_or(Violation::UnknownOpcode { opcode, stream })?;
        if kind.direction() != direction {
            return Err(Violation::WrongDirection { opcode, stream });
        }
        let length = u32::from_be_bytes(length);
        if length > MAX_BODY_LENGTH {
            return Err(Violation::ImpossibleLength { length, stream });
        }
        Ok(Header {
            version,
            flags,
            stream,
            opcode: kind,
            length,
        })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut BytesMut) {
        let direction = match self.opcode.direction() {
            Direction::Request => 0,
            Direction::Response => RESPONSE_BIT,
        };
        out.put_u8(self.version.number() | direction);
        out.put_u8(self.flags);
        out.put_i16(self.stream);
        out.put_u8(self.opcode.code());
        out.put_u32(self.length);
    }
}

/// A header with its body, decompressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The header. After decompression its length is still that of the wire.
    pub header: Header,
    /// The body.
    pub body: Bytes,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_options_header() {
        let header = Header {
            version: ProtocolVersion::V4,
            flags: flags::TRACING,
            stream: 258,
            opcode: Opcode::Options,
            length: 0,
        };
        let mut out = BytesMut::new();
        header.encode(&mut out);
        assert_eq!(&out[..], [4, 2, 1, 2, 5, 0, 0, 0, 0]);
        let bytes: [u8; HEADER_LENGTH] = out[..].try_into().unwrap();
        assert_eq!(Header::decode(&bytes, Direction::Request), Ok(header));
        assert_eq!(
            Header::decode(&bytes, Direction::Response),
            Err(Violation::WrongDirection {
                opcode: 5,
                stream: 258
            })
        );
    }

    #[test]
    fn what_is_no_header() {
        let decode = |bytes: [u8; 9]| Header::decode(&bytes, Direction::Request).unwrap_err();
        assert_eq!(
            decode([0x42, 0, 0, 9, 5, 0, 0, 0, 0]),
            Violation::UnsupportedVersion {
                version: 0x42,
                stream: 9
            }
        );
        assert_eq!(
            decode([4, 0, 0, 9, 4, 0, 0, 0, 0]),
            Violation::UnknownOpcode { opcode: 4, stream: 9 }
        );
        assert_eq!(
            decode([4, 0, 0, 9, 8, 0, 0, 0, 0]),
            Violation::WrongDirection { opcode: 8, stream: 9 }
        );
        assert_eq!(
            decode([4, 0, 0, 9, 7, 0xff, 0xff, 0xff, 0xff]),
            Violation::ImpossibleLength {
                length: u32::MAX,
                stream: 9
            }
        );
    }
}
