//! From socket bytes to envelopes and back.
//!
//! In v3 and v4, and in v5 until the server has answered STARTUP with READY or AUTHENTICATE, envelopes follow each
//! other without anything between them; a body is compressed if its flag says so. From then on v5 wraps them in
//! frames with checksums:
//!
//! ```text
//! not compressed (little-endian)
//!   0              17 18      24             48
//!   | payload length |s| zeros | crc24 of 0..24 | payload | crc32 of payload: 32 bits |
//!
//! LZ4 (little-endian)
//!   0                 17                   34 35      40             64
//!   | compressed length | uncompressed length |s| zeros | crc24 of 0..40 | payload | crc32 of payload |
//!
//!   s = self-contained; uncompressed length 0: the payload was left as it is
//! ```
//!
//! A self-contained frame holds one or more whole envelopes. An envelope that does not fit in one payload has
//! several frames of its own, none of them self-contained. The compression flag of an envelope means nothing there.
//!
//! Invariants:
//! - The decoder never holds more than one envelope of the greatest allowed length, one frame, and what it was fed
//!   last.
//! - The decoder never goes on after a fatal [`Violation`](crate::Violation): it repeats it.
//! - The encoder never leaves a frame open when its [`FrameWriter`] is gone.

mod decoder;
mod encoder;
mod inflow;

pub use decoder::{FrameDecoder, UnderWay};
pub use encoder::{FrameEncoder, FrameWriter};

/// Most bytes of the payload of a v5 frame.
pub const MAX_PAYLOAD_LENGTH: usize = (1 << 17) - 1;

/// Bytes of a v5 frame header with its CRC24.
const FRAME_HEADER_LENGTH: usize = 6;
/// Bytes of a v5 frame header with its CRC24, when the connection compresses.
const COMPRESSED_FRAME_HEADER_LENGTH: usize = 8;
/// Bytes of the CRC24.
const CRC24_LENGTH: usize = 3;
/// Bytes of the CRC32 that ends a v5 frame.
const TRAILER_LENGTH: usize = 4;
/// Bits of a length field.
const LENGTH_BITS: u32 = 17;

#[cfg(test)]
mod tests;
