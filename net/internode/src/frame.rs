//! Frames: how one channel between two nodes is cut into bodies, checked and compressed.
//!
//! ```text
//! frame ::= length:u32 plain:u32 head_crc:u32 body:length body_crc:u32       integers little-endian
//! ```
//!
//! `length` is what follows the head, without the checksum; `plain` is the body's length once decompressed, or 0 when it
//! travels as it is. `head_crc` is the CRC-32 of the eight bytes before it, so that a damaged length is found before it is
//! believed; `body_crc` that of the body as it travels.
//!
//! Never: memory taken for a length that was claimed (bytes are kept as they come, a body is decompressed into what LZ4's
//! largest ratio can make of it), a body handed out before its checksum was right, a frame after a broken one.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a body's largest length, compressed or not.
pub const BODY_MAX: usize = 128 << 20;
/// Bytes before the body.
const HEAD: usize = 12;
/// Bytes after it.
const TAIL: usize = 4;
/// Shorter bodies are not worth compressing.
const COMPRESS_FROM: usize = 512;
/// LZ4 makes at most so many bytes of one.
const LZ4_RATIO_MAX: usize = 255;

/// How bodies travel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// By LZ4's block format, where that makes them shorter.
    Lz4,
}

impl Compression {
    /// The code in a handshake.
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
        }
    }

    /// Of a code.
    pub fn from_code(code: u8) -> Option<Compression> {
        [Self::None, Self::Lz4].into_iter().find(|own| own.code() == code)
    }

    /// As settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        }
    }
}

/// A stream of bytes that is none of frames; the connection is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The checksum of a head differs.
    Head,
    /// A body would be longer than [`BODY_MAX`].
    TooLong {
        /// So many bytes.
        length: u32,
    },
    /// The checksum of a body differs.
    Body,
    /// A body does not decompress to the length it claims.
    Compression,
    /// A compressed body where none was agreed on.
    NotAgreed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the checksum of a frame's head differs"),
            Self::TooLong { length } => {
                write!(f, "a frame of {length} bytes, at most {BODY_MAX} are allowed")
            }
            Self::Body => f.write_str("the checksum of a frame's body differs"),
            Self::Compression => {
                f.write_str("a compressed frame does not decompress to the length it claims")
            }
            Self::NotAgreed => f.write_str("a compressed frame on a link without compression"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Bytes that a body of so many takes at most, framed.
pub fn framed_size(body: usize) -> usize {
    HEAD + body + TAIL
}

/// Appends `body` as a frame. False, and nothing appended, when it is longer than [`BODY_MAX`].
pub fn put_frame(out: &mut BytesMut, body: &[u8], compression: Compression) -> bool {
    if body.len() > BODY_MAX {
        return false;
    }
    if compression == Compression::Lz4 && body.len() >= COMPRESS_FROM {
        let packed = lz4_flex::block::compress(body);
        if packed.len() < body.len() {
            put_parts(out, &packed, body.len() as u32);
            return true;
        }
    }
    put_parts(out, body, 0);
    true
}

fn put_parts(out: &mut BytesMut, body: &[u8], plain: u32) {
    out.reserve(framed_size(body.len()));
    let mut head = [0; 8];
    head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&plain.to_le_bytes());
    out.put_slice(&head);
    out.put_u32_le(crc32fast::hash(&head));
    out.put_slice(body);
    out.put_u32_le(crc32fast::hash(body));
}

/// Finds frames in a stream of bytes.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    compression: Compression,
}

impl FrameDecoder {
    /// Of a link on which `compression` was agreed.
    pub fn new(compression: Compression) -> FrameDecoder {
        FrameDecoder { compression }
    }

    /// Takes the first body of `input` out of it; None while it is not there in full.
    ///
    /// # Errors
    /// When the bytes are no frame. There is no going on then.
    pub fn next(&self, input: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some((length, plain)) = head_of(input)? else {
            return Ok(None);
        };
        let (length, plain) = (length as usize, plain as usize);
        if input.len() < framed_size(length) {
            return Ok(None);
        }
        input.advance(HEAD);
        let body = input.split_to(length).freeze();
        if input.get_u32_le() != crc32fast::hash(&body) {
            return Err(FrameError::Body);
        }
        match (plain, self.compression) {
            (0, _) => Ok(Some(body)),
            (_, Compression::None) => Err(FrameError::NotAgreed),
            (plain, Compression::Lz4) => decompress(&body, plain).map(Some),
        }
    }
}

/// Lengths of a head whose checksum is right: of the body, and of what it decompresses to.
fn head_of(input: &[u8]) -> Result<Option<(u32, u32)>, FrameError> {
    let Some((head, _)) = input.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let mut fields = &head[..];
    let (length, plain, crc) = (fields.get_u32_le(), fields.get_u32_le(), fields.get_u32_le());
    if crc != crc32fast::hash(&head[..8]) {
        return Err(FrameError::Head);
    }
    for length in [length, plain] {
        if length as usize > BODY_MAX {
            return Err(FrameError::TooLong { length });
        }
    }
    Ok(Some((length, plain)))
}

fn decompress(body: &[u8], plain: usize) -> Result<Bytes, FrameError> {
    if plain > body.len().saturating_mul(LZ4_RATIO_MAX) {
        return Err(FrameError::Compression);
    }
    match lz4_flex::block::decompress(body, plain) {
        Ok(bytes) if bytes.len() == plain => Ok(bytes.into()),
        _ => Err(FrameError::Compression),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let noise = prop::collection::vec(any::<u8>(), 0..2000);
        let text = (0usize..5000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
        prop::collection::vec(prop_oneof![noise, text], 0..6)
    }

    proptest! {
        #[test]
        fn bodies_come_back_however_the_stream_is_cut(bodies in bodies(), lz4: bool, piece in 1usize..700) {
            let compression = if lz4 { Compression::Lz4 } else { Compression::None };
            let mut stream = BytesMut::new();
            for body in &bodies {
                prop_assert!(put_frame(&mut stream, body, compression));
            }
            let decoder = FrameDecoder::new(compression);
            let (mut input, mut got) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(piece) {
                input.extend_from_slice(piece);
                while let Some(body) = decoder.next(&mut input).unwrap() {
                    got.push(body.to_vec());
                }
            }
            prop_assert!(input.is_empty());
            prop_assert_eq!(got, bodies);
        }

        #[test]
        fn a_flipped_bit_is_found(body in prop::collection::vec(any::<u8>(), 0..2000), at: prop::sample::Index, bit in 0u8..8) {
            let mut stream = BytesMut::new();
            prop_assert!(put_frame(&mut stream, &body, Compression::Lz4));
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
            prop_assert!(FrameDecoder::new(Compression::Lz4).next(&mut stream).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), right_head: bool) {
            let mut input = BytesMut::from(&bytes[..]);
            if right_head && let Some((head, rest)) = bytes.split_at_checked(8) {
                input = BytesMut::from(head);
                input.put_u32_le(crc32fast::hash(head));
                input.extend_from_slice(rest);
            }
            while let Ok(Some(_)) = FrameDecoder::new(Compression::Lz4).next(&mut input) {}
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let packed = lz4_flex::block::compress(&[0; 100]);
        let mut stream = BytesMut::new();
        put_parts(&mut stream, &packed, BODY_MAX as u32);
        let error = FrameDecoder::new(Compression::Lz4).next(&mut stream);
        assert_eq!(error, Err(FrameError::Compression));
        let mut stream = BytesMut::new();
        put_parts(&mut stream, &packed, BODY_MAX as u32 + 1);
        let error = FrameDecoder::new(Compression::Lz4).next(&mut stream).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a frame of 134217729 bytes, at most 134217728 are allowed"
        );
    }

    #[test]
    fn what_repeats_is_sent_short_where_that_was_agreed_and_refused_elsewhere() {
        let mut stream = BytesMut::new();
        assert!(put_frame(&mut stream, &[1; 10_000], Compression::Lz4));
        assert!(stream.len() < 200, "{}", stream.len());
        let error = FrameDecoder::new(Compression::None).next(&mut stream);
        assert_eq!(error, Err(FrameError::NotAgreed));
    }
}
