//! How a peer broke the protocol: the error of every decoder of this crate.
//!
//! A violation carries its evidence: what was being read, at which offset, and what stood there. [`crate::error`]
//! turns it into the ERROR message that the peer gets; [`Violation::is_fatal`] says whether the connection can go on
//! after that message.

use std::fmt;

use crate::version::ProtocolVersion;

/// The configuration key that bounds the length of a request.
pub const MAX_FRAME_SIZE_KEY: &str = "native_transport_max_frame_size";

/// What bounds the length of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LengthLimit {
    /// So many bytes, by configuration ([`MAX_FRAME_SIZE_KEY`]).
    Configured(u32),
    /// So many bytes as long as STARTUP is not answered: fixed.
    BeforeStartup(u32),
    /// So many bytes, by the protocol.
    Protocol(u32),
}

impl LengthLimit {
    /// Most bytes allowed.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Configured(bytes) | Self::BeforeStartup(bytes) | Self::Protocol(bytes) => bytes,
        }
    }
}

impl From<u32> for LengthLimit {
    fn from(bytes: u32) -> Self {
        Self::Configured(bytes)
    }
}

impl fmt::Display for LengthLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(bytes) => write!(f, "{bytes} ({MAX_FRAME_SIZE_KEY})"),
            Self::BeforeStartup(bytes) => write!(f, "{bytes} of messages before STARTUP is answered"),
            Self::Protocol(bytes) => write!(f, "{bytes} of the protocol"),
        }
    }
}

/// What the peer sent that it must not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A version that is not served.
    UnsupportedVersion {
        /// The low seven bits of the first byte.
        version: u8,
        /// From the header, 0 if it did not arrive whole.
        stream: i16,
    },
    /// A version in beta, without the flag that accepts one.
    BetaVersion {
        /// Of this header.
        version: ProtocolVersion,
        /// From the header.
        stream: i16,
    },
    /// Another version than the earlier messages of this connection.
    VersionChanged {
        /// Of this header.
        got: ProtocolVersion,
        /// Of the earlier ones.
        expected: ProtocolVersion,
        /// From the header.
        stream: i16,
    },
    /// A response where a request must come, or the reverse.
    WrongDirection {
        /// The opcode byte.
        opcode: u8,
        /// From the header.
        stream: i16,
    },
    /// No such opcode.
    UnknownOpcode {
        /// The opcode byte.
        opcode: u8,
        /// From the header.
        stream: i16,
    },
    /// A body beyond the limit, before or after decompression. The decoder skips it and goes on.
    TooLarge {
        /// Bytes of the body, as the header says.
        length: u64,
        /// What allows no more.
        limit: LengthLimit,
        /// From the header.
        stream: i16,
    },
    /// A body length beyond anything the protocol allows: the input is not an envelope.
    ImpossibleLength {
        /// As the header says.
        length: u32,
        /// From the header.
        stream: i16,
    },
    /// The compression flag without a negotiated compression.
    UnexpectedCompression {
        /// From the header.
        stream: i16,
    },
    /// STARTUP asks for a compression that this version does not have.
    UnsupportedCompression {
        /// As asked for.
        name: String,
        /// Of the connection.
        version: ProtocolVersion,
    },
    /// A compressed body or frame does not decompress to the length it claims.
    Decompression {
        /// Bytes compressed.
        compressed: usize,
        /// Bytes it claims to be when decompressed.
        claimed: u64,
        /// Why not.
        reason: String,
        /// Of the envelope; None for a v5 frame.
        stream: Option<i16>,
    },
    /// The header of a v5 frame does not match its CRC24.
    FrameHeaderChecksum {
        /// In the frame.
        expected: u32,
        /// Computed.
        got: u32,
    },
    /// The payload of a v5 frame does not match its CRC32.
    FramePayloadChecksum {
        /// In the frame.
        expected: u32,
        /// Computed.
        got: u32,
    },
    /// The envelopes in v5 frames do not end where their frames end.
    FrameBoundary {
        /// What was found.
        reason: &'static str,
    },
    /// The body ends too early.
    Truncated {
        /// What was being read.
        reading: &'static str,
        /// In the body.
        offset: usize,
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        remaining: usize,
    },
    /// A length or count that cannot be.
    InvalidLength {
        /// What was being read.
        reading: &'static str,
        /// In the body, after the length.
        offset: usize,
        /// As read.
        length: i64,
    },
    /// A string is not UTF-8.
    InvalidUtf8 {
        /// What was being read.
        reading: &'static str,
        /// In the body, after the string.
        offset: usize,
    },
    /// A number that stands for nothing.
    UnknownCode {
        /// What was being read.
        reading: &'static str,
        /// In the body, after the number.
        offset: usize,
        /// As read.
        code: i64,
    },
    /// A name that stands for nothing.
    UnknownName {
        /// What was being read.
        reading: &'static str,
        /// As read, shortened.
        name: String,
    },
    /// A value outside of its range.
    OutOfRange {
        /// What was being read and which values are allowed.
        reading: &'static str,
        /// As read.
        value: i64,
    },
    /// Types nested deeper than allowed.
    TypeTooDeep {
        /// Greatest depth.
        limit: usize,
    },
}

impl Violation {
    /// The stream to answer on, when the violation is in a header. A violation in a body is answered on the stream
    /// of its envelope, which the caller knows.
    pub fn stream(&self) -> Option<i16> {
        match self {
            Self::UnsupportedVersion { stream, .. }
            | Self::BetaVersion { stream, .. }
            | Self::VersionChanged { stream, .. }
            | Self::WrongDirection { stream, .. }
            | Self::UnknownOpcode { stream, .. }
            | Self::TooLarge { stream, .. }
            | Self::ImpossibleLength { stream, .. }
            | Self::UnexpectedCompression { stream } => Some(*stream),
            Self::Decompression { stream, .. } => *stream,
            _ => None,
        }
    }

    /// Returned by a frame decoder: it has lost its place in the stream or the peer speaks something else, so the
    /// connection must be closed after the answer. Otherwise the next envelope can be decoded.
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. }
                | Self::Decompression { stream: Some(_), .. }
                | Self::UnexpectedCompression { .. }
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedVersion { version, .. } => write!(
                f,
                "Invalid or unsupported protocol version ({version}); the lowest supported version is {} and the \
                 greatest is {}",
                ProtocolVersion::LOWEST.number(),
                ProtocolVersion::GREATEST.number()
            ),
            Self::BetaVersion { version, .. } => write!(
                f,
                "Beta version of the protocol used ({}), but USE_BETA flag is unset",
                version.supported_name()
            ),
            Self::VersionChanged { got, expected, .. } => write!(
                f,
                "Invalid message version. Got {got} but previous messages on this connection had version {expected}"
            ),
            Self::WrongDirection { opcode, .. } => {
                write!(f, "Wrong protocol direction for opcode {opcode}")
            }
            Self::UnknownOpcode { opcode, .. } => write!(f, "Unknown opcode {opcode}"),
            Self::TooLarge { length, limit, .. } => write!(
                f,
                "Request is too big: length {length} exceeds maximum allowed length {limit}"
            ),
            Self::ImpossibleLength { length, .. } => {
                write!(f, "Invalid value for envelope header body length field: {length}")
            }
            Self::UnexpectedCompression { .. } => {
                f.write_str("Compressed message on a connection without negotiated compression")
            }
            Self::UnsupportedCompression { name, version } => {
                write!(
                    f,
                    "Unknown or unsupported compression algorithm for protocol {version}: {name}"
                )
            }
            Self::Decompression {
                compressed,
                claimed,
                reason,
                ..
            } => write!(
                f,
                "Cannot decompress {compressed} bytes that claim to be {claimed} bytes decompressed: {reason}"
            ),
            Self::FrameHeaderChecksum { expected, got } => {
                write!(
                    f,
                    "Frame header checksum mismatch: {expected:#08x} in the frame, {got:#08x} computed"
                )
            }
            Self::FramePayloadChecksum { expected, got } => {
                write!(
                    f,
                    "Frame payload checksum mismatch: {expected:#010x} in the frame, {got:#010x} computed"
                )
            }
            Self::FrameBoundary { reason } => write!(f, "Invalid frame: {reason}"),
            Self::Truncated {
                reading,
                offset,
                needed,
                remaining,
            } => write!(
                f,
                "Message ends too early: {reading} at offset {offset} needs {needed} bytes, {remaining} are left"
            ),
            Self::InvalidLength {
                reading,
                offset,
                length,
            } => {
                write!(f, "Invalid length {length} of {reading} before offset {offset}")
            }
            Self::InvalidUtf8 { reading, offset } => {
                write!(f, "Cannot decode {reading} before offset {offset} as UTF-8")
            }
            Self::UnknownCode {
                reading,
                offset,
                code,
            } => {
                write!(f, "Unknown code {code} for {reading} before offset {offset}")
            }
            Self::UnknownName { reading, name } => write!(f, "Invalid value '{name}' for {reading}"),
            Self::OutOfRange { reading, value } => write!(f, "{reading} (got {value})"),
            Self::TypeTooDeep { limit } => write!(f, "Type nested deeper than {limit} levels"),
        }
    }
}

impl std::error::Error for Violation {}
