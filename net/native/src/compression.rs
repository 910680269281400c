//! Compression of bodies (v3, v4) and of frames (v5).
//!
//! ```text
//! LZ4 body      | uncompressed length u32 | LZ4 block |
//! Snappy body   | Snappy block, which starts with its uncompressed length |
//! v5 LZ4 frame  | LZ4 block |       both lengths are in the frame header
//! ```
//!
//! Invariant: never reserves memory for a claimed length that its compressed bytes could not expand to. Both formats
//! have a greatest ratio, so a claim beyond it is refused before anything is allocated.

use bytes::{BufMut, Bytes, BytesMut};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use crate::version::ProtocolVersion;
use crate::violation::{LengthLimit, Violation};

/// An LZ4 sequence byte adds at most 255 bytes of output.
const LZ4_GREATEST_RATIO: u64 = 255;
/// A Snappy copy of three bytes gives at most 64 bytes of output.
const SNAPPY_GREATEST_RATIO: u64 = 22;
/// Output that is there without any ratio: the end of a block.
const RATIO_SLACK: u64 = 64;
/// The scratch buffer of a compressor is given back above this size.
const SCRATCH_KEPT: usize = 1 << 20;

/// What a connection compresses with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Compression {
    /// Nothing.
    #[default]
    None,
    /// LZ4 blocks.
    Lz4,
    /// Snappy blocks; not in v5.
    Snappy,
}

impl Compression {
    /// The names of the COMPRESSION list of a SUPPORTED message. Snappy is for v3 and v4 only.
    pub const SUPPORTED: [&'static str; 2] = ["lz4", "snappy"];

    /// The compression that a STARTUP message asks for by name (in any case).
    pub fn negotiate(version: ProtocolVersion, name: Option<&str>) -> Result<Compression, Violation> {
        let Some(name) = name else {
            return Ok(Compression::None);
        };
        if name.eq_ignore_ascii_case("lz4") {
            Ok(Compression::Lz4)
        } else if name.eq_ignore_ascii_case("snappy") && version < ProtocolVersion::V5 {
            Ok(Compression::Snappy)
        } else {
            Err(Violation::UnsupportedCompression {
                name: shorten(name),
                version,
            })
        }
    }
}

/// The start of a name from the input, for an error message.
pub(crate) fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Decompresses the body of an envelope. `limit` bounds the result, in bytes.
pub(crate) fn decompress_body(
    compression: Compression,
    body: Bytes,
    limit: LengthLimit,
    stream: i16,
) -> Result<Bytes, Violation> {
    match compression {
        Compression::None => Err(Violation::UnexpectedCompression { stream }),
        Compression::Lz4 => {
            let Some((claim, block)) = body.split_first_chunk::<4>() else {
                return Err(Violation::Decompression {
                    compressed: body.len(),
                    claimed: 0,
                    reason: "the uncompressed length is missing".to_owned(),
                    stream: Some(stream),
                });
            };
            let claimed = u64::from(u32::from_be_bytes(*claim));
            check_limit(claimed, limit, stream)?;
            decompress_lz4(block, claimed, Some(stream))
        }
        Compression::Snappy => {
            let failed = |claimed: u64, reason: String| Violation::Decompression {
                compressed: body.len(),
                claimed,
                reason,
                stream: Some(stream),
            };
            let claimed =
                snap::raw::decompress_len(&body).map_err(|error| failed(0, error.to_string()))? as u64;
            check_limit(claimed, limit, stream)?;
            check_ratio(claimed, body.len(), SNAPPY_GREATEST_RATIO, Some(stream))?;
            let mut output = vec![0; claimed as usize];
            let written = snap::raw::Decoder::new()
                .decompress(&body, &mut output)
                .map_err(|error| failed(claimed, error.to_string()))?;
            output.truncate(written);
            Ok(Bytes::from(output))
        }
    }
}

fn check_limit(claimed: u64, limit: LengthLimit, stream: i16) -> Result<(), Violation> {
    if claimed > u64::from(limit.bytes()) {
        return Err(Violation::TooLarge {
            length: claimed,
            limit,
            stream,
        });
    }
    Ok(())
}

fn check_ratio(claimed: u64, compressed: usize, ratio: u64, stream: Option<i16>) -> Result<(), Violation> {
    if claimed
        > (compressed as u64)
            .saturating_mul(ratio)
            .saturating_add(RATIO_SLACK)
    {
        let reason = "no block of this length expands to so many bytes".to_owned();
        return Err(Violation::Decompression {
            compressed,
            claimed,
            reason,
            stream,
        });
    }
    Ok(())
}

/// Decompresses an LZ4 block that must give exactly `claimed` bytes. `stream` is None for a v5 frame.
pub(crate) fn decompress_lz4(block: &[u8], claimed: u64, stream: Option<i16>) -> Result<Bytes, Violation> {
    check_ratio(claimed, block.len(), LZ4_GREATEST_RATIO, stream)?;
    let failed = |reason: String| Violation::Decompression {
        compressed: block.len(),
        claimed,
        reason,
        stream,
    };
    if claimed == 0 {
        // An empty body is one zero token or nothing at all, depending on who compressed it.
        return if block.iter().all(|&byte| byte == 0) {
            Ok(Bytes::new())
        } else {
            Err(failed("it claims to be empty".to_owned()))
        };
    }
    let mut output = vec![0; claimed as usize];
    let written =
        lz4_flex::block::decompress_into(block, &mut output).map_err(|error| failed(error.to_string()))?;
    if written as u64 != claimed {
        return Err(failed(format!("it gives {written} bytes")));
    }
    Ok(Bytes::from(output))
}

/// Compresses; keeps its hash table and a scratch buffer from one message to the next.
#[derive(Default)]
pub(crate) struct Compressor {
    table: Option<Box<CompressTable>>,
    snappy: Option<Box<snap::raw::Encoder>>,
    scratch: Vec<u8>,
}

impl Compressor {
    /// LZ4-compresses `input`. None if that does not make it shorter.
    pub(crate) fn lz4(&mut self, input: &[u8]) -> Option<&[u8]> {
        self.scratch.resize(get_maximum_output_size(input.len()), 0);
        let table = self.table.get_or_insert_with(Box::default);
        let written = compress_into_with_table(input, &mut self.scratch, table)
            .expect("the scratch buffer holds the greatest possible output");
        self.scratch
            .get(..written)
            .filter(|output| output.len() < input.len())
    }

    fn snappy(&mut self, input: &[u8]) -> Option<&[u8]> {
        self.scratch.resize(snap::raw::max_compress_len(input.len()), 0);
        let encoder = self
            .snappy
            .get_or_insert_with(|| Box::new(snap::raw::Encoder::new()));
        let written = encoder
            .compress(input, &mut self.scratch)
            .expect("the scratch buffer holds the greatest possible output");
        self.scratch
            .get(..written)
            .filter(|output| output.len() < input.len())
    }

    /// Replaces the body that starts at `start` of `out` by its compressed form. False, and no change, if that is
    /// not shorter.
    pub(crate) fn compress_body(
        &mut self,
        compression: Compression,
        out: &mut BytesMut,
        start: usize,
    ) -> bool {
        let length = out.len() - start;
        let shorter = match compression {
            Compression::None => false,
            Compression::Lz4 => match self.lz4(&out[start..]) {
                Some(block) if block.len() + 4 < length => {
                    out.truncate(start);
                    out.put_u32(u32::try_from(length).expect("a body is shorter than 4 GiB"));
                    out.put_slice(block);
                    true
                }
                _ => false,
            },
            Compression::Snappy => match self.snappy(&out[start..]) {
                Some(block) => {
                    out.truncate(start);
                    out.put_slice(block);
                    true
                }
                None => false,
            },
        };
        self.trim();
        shorter
    }

    /// Gives an unusually large scratch buffer back.
    pub(crate) fn trim(&mut self) {
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn round_trip(compression: Compression, body: &[u8]) -> Bytes {
        let mut out = BytesMut::from(&b"head"[..]);
        out.extend_from_slice(body);
        assert!(Compressor::default().compress_body(compression, &mut out, 4));
        assert_eq!(&out[..4], b"head");
        decompress_body(compression, out.freeze().slice(4..), (1 << 20).into(), 7).unwrap()
    }

    #[test]
    fn bodies_survive() {
        let body: Vec<u8> = (0..100_000_u32).map(|i| (i / 100) as u8).collect();
        assert_eq!(round_trip(Compression::Lz4, &body), body);
        assert_eq!(round_trip(Compression::Snappy, &body), body);
    }

    #[test]
    fn the_most_compressible_body_is_within_the_ratio() {
        let body = vec![0; 1 << 20];
        assert_eq!(round_trip(Compression::Lz4, &body), body);
        assert_eq!(round_trip(Compression::Snappy, &body), body);
    }

    #[test]
    fn a_claim_beyond_the_ratio_is_refused() {
        let body = Bytes::from_static(&[0x00, 0x10, 0x00, 0x00, 1, 2, 3]);
        let error = decompress_body(Compression::Lz4, body, (1 << 28).into(), 3).unwrap_err();
        assert!(
            matches!(
                error,
                Violation::Decompression {
                    claimed: 0x10_0000,
                    ..
                }
            ),
            "{error}"
        );
        let body = Bytes::from_static(&[0x80, 0x80, 0x40, 1, 2, 3]);
        let error = decompress_body(Compression::Snappy, body, (1 << 28).into(), 3).unwrap_err();
        assert!(
            matches!(
                error,
                Violation::Decompression {
                    claimed: 0x10_0000,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_claim_beyond_the_limit_is_too_large() {
        let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 1, 2, 3]);
        let error = decompress_body(Compression::Lz4, body, 1000.into(), 3).unwrap_err();
        assert_eq!(
            error,
            Violation::TooLarge {
                length: 0x7fff_ffff,
                limit: 1000.into(),
                stream: 3
            }
        );
    }

    #[test]
    fn v5_has_no_snappy() {
        assert_eq!(
            Compression::negotiate(ProtocolVersion::V4, Some("Snappy")),
            Ok(Compression::Snappy)
        );
        assert_eq!(
            Compression::negotiate(ProtocolVersion::V5, Some("LZ4")),
            Ok(Compression::Lz4)
        );
        assert!(Compression::negotiate(ProtocolVersion::V5, Some("snappy")).is_err());
        assert!(Compression::negotiate(ProtocolVersion::V4, Some("zstd")).is_err());
    }
}
