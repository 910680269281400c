//! Compression of blocks, one by one.

use std::collections::BTreeMap;

/// How blocks of a table are compressed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Compression {
    /// By which algorithm.
    pub codec: Codec,
    /// Bytes of a block before compression, roughly.
    pub chunk_length: usize,
    /// Level, for codecs that have one.
    pub level: i32,
    /// A block is stored compressed only when this many times smaller, at least; 0: when it gets smaller by a sixteenth.
    pub min_compress_ratio: f64,
}

/// Compression algorithms; the number stands in each block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    None = 0,
    /// LZ4 blocks.
    Lz4 = 1,
    /// Zstandard.
    Zstd = 2,
    /// Snappy, raw.
    Snappy = 3,
    /// Deflate with zlib's header.
    Deflate = 4,
}

/// Largest block that is decompressed, in bytes: what a damaged length may cost at most.
pub(crate) const RAW_BLOCK_MAX: usize = 256 << 20;
/// Chunk length when the table says nothing.
const DEFAULT_CHUNK_LENGTH: usize = 16 << 10;
/// Cassandra's default level for Zstandard.
const DEFAULT_ZSTD_LEVEL: i32 = 3;
/// zlib's default level.
const DEFLATE_LEVEL: u8 = 6;
/// Savings below which a block is stored as it is: one part in this many.
const MIN_SAVING: usize = 16;

impl Compression {
    /// Reads a table's `compression` option. The class may stand with or without its package.
    pub fn from_options(options: &BTreeMap<String, String>) -> std::result::Result<Compression, String> {
        let is_enabled = options
            .get("enabled")
            .is_none_or(|enabled| enabled.eq_ignore_ascii_case("true"));
        let class = options
            .get("class")
            .or_else(|| options.get("sstable_compression"));
        let class = class.map_or("", String::as_str);
        let codec = match class.rsplit('.').next().unwrap_or(class) {
            _ if !is_enabled => Codec::None,
            "" | "NoopCompressor" => Codec::None,
            "LZ4Compressor" => Codec::Lz4,
            "ZstdCompressor" => Codec::Zstd,
            "SnappyCompressor" => Codec::Snappy,
            "DeflateCompressor" => Codec::Deflate,
            other => return Err(format!("Could not create Compression for type {other}")),
        };
        let chunk_length = match options
            .get("chunk_length_in_kb")
            .or_else(|| options.get("chunk_length_kb"))
        {
            None => DEFAULT_CHUNK_LENGTH,
            Some(text) => {
                let kib: usize = text
                    .parse()
                    .map_err(|_| format!("Invalid value for chunk_length_in_kb: {text}"))?;
                if !kib.is_power_of_two() || kib > 1024 {
                    return Err("chunk_length_in_kb must be a power of 2".to_owned());
                }
                kib << 10
            }
        };
        let level = match options.get("compression_level") {
            None => DEFAULT_ZSTD_LEVEL,
            Some(text) => {
                let level = text
                    .parse()
                    .ok()
                    .filter(|level| zstd::compression_level_range().contains(level));
                level.ok_or_else(|| format!("Invalid value for compression_level: {text}"))?
            }
        };
        Ok(Compression {
            codec,
            chunk_length,
            level,
            min_compress_ratio: 0.0,
        })
    }
}

impl Default for Compression {
    fn default() -> Compression {
        Compression {
            codec: Codec::Lz4,
            chunk_length: DEFAULT_CHUNK_LENGTH,
            level: DEFAULT_ZSTD_LEVEL,
            min_compress_ratio: 0.0,
        }
    }
}

impl Codec {
    const ALL: [Codec; 5] = [
        Codec::None,
        Codec::Lz4,
        Codec::Zstd,
        Codec::Snappy,
        Codec::Deflate,
    ];

    /// As in Cassandra's class names.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "NoopCompressor",
            Codec::Lz4 => "LZ4Compressor",
            Codec::Zstd => "ZstdCompressor",
            Codec::Snappy => "SnappyCompressor",
            Codec::Deflate => "DeflateCompressor",
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| *codec as u8 == number)
    }
}

/// Appends `raw`, compressed, to `out`. Returns the codec used: what hardly shrinks is stored as it is.
pub(crate) fn compress(compression: &Compression, raw: &[u8], out: &mut Vec<u8>) -> Codec {
    let start = out.len();
    let written = match compression.codec {
        Codec::None => None,
        Codec::Lz4 => {
            out.resize(start + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            lz4_flex::block::compress_into(raw, &mut out[start..]).ok()
        }
        Codec::Zstd => {
            out.resize(start + zstd::zstd_safe::compress_bound(raw.len()), 0);
            zstd::bulk::compress_to_buffer(raw, &mut out[start..], compression.level).ok()
        }
        Codec::Snappy => {
            out.resize(start + snap::raw::max_compress_len(raw.len()), 0);
            snap::raw::Encoder::new().compress(raw, &mut out[start..]).ok()
        }
        Codec::Deflate => {
            let deflated = miniz_oxide::deflate::compress_to_vec_zlib(raw, DEFLATE_LEVEL);
            out.extend_from_slice(&deflated);
            Some(deflated.len())
        }
    };
    match written {
        Some(written) if written <= raw.len() - raw.len() / MIN_SAVING => {
            out.truncate(start + written);
            compression.codec
        }
        _ => {
            out.truncate(start);
            out.extend_from_slice(raw);
            Codec::None
        }
    }
}

/// Decompresses; None when the bytes are not `raw_length` bytes compressed by `codec`.
pub(crate) fn decompress(codec: Codec, stored: &[u8], raw_length: usize) -> Option<Vec<u8>> {
    if raw_length > RAW_BLOCK_MAX {
        return None;
    }
    let mut raw = vec![0; raw_length];
    let written = match codec {
        Codec::None => return (stored.len() == raw_length).then(|| stored.to_vec()),
        Codec::Lz4 => lz4_flex::block::decompress_into(stored, &mut raw).ok()?,
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, &mut raw).ok()?,
        Codec::Snappy => {
            if snap::raw::decompress_len(stored).ok()? != raw_length {
                return None;
            }
            snap::raw::Decoder::new().decompress(stored, &mut raw).ok()?
        }
        Codec::Deflate => {
            let chunks = std::iter::once(stored);
            miniz_oxide::inflate::decompress_slice_iter_to_slice(&mut raw, chunks, true, false).ok()?
        }
    };
    (written == raw_length).then_some(raw)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_codec_round_trips_and_refuses_other_bytes() {
        let text = b"the quick brown fox jumps over the lazy dog ".repeat(200);
        for codec in Codec::ALL {
            let compression = Compression {
                codec,
                ..Compression::default()
            };
            let mut stored = b"before".to_vec();
            assert_eq!(compress(&compression, &text, &mut stored), codec);
            let stored = stored.split_off(6);
            assert_eq!(decompress(codec, &stored, text.len()).unwrap(), text);
            assert_eq!(decompress(codec, &stored, text.len() - 1), None);
            assert_eq!(decompress(codec, &stored[..stored.len() / 2], text.len()), None);
            assert_eq!(decompress(codec, &stored, usize::MAX), None);
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let mut dice = crate::testing::Dice::new(1);
        let noise: Vec<u8> = (0..4096).map(|_| dice.next() as u8).collect();
        let mut stored = Vec::new();
        assert_eq!(
            compress(&Compression::default(), &noise, &mut stored),
            Codec::None
        );
        assert_eq!(stored, noise);
    }

    #[test]
    fn options_are_read_as_cassandra_writes_them() {
        let options = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Compression::from_options(&pairs.collect())
        };
        let zstd = options(&[
            ("class", "org.apache.cassandra.io.compress.ZstdCompressor"),
            ("chunk_length_in_kb", "64"),
            ("compression_level", "7"),
        ]);
        let expected = Compression {
            codec: Codec::Zstd,
            chunk_length: 64 << 10,
            level: 7,
            min_compress_ratio: 0.0,
        };
        assert_eq!(zstd, Ok(expected));
        assert_eq!(options(&[("enabled", "false")]).unwrap().codec, Codec::None);
        assert_eq!(options(&[]).unwrap().codec, Codec::None);
        assert!(options(&[("class", "RarCompressor")]).is_err());
        assert!(options(&[("class", "LZ4Compressor"), ("chunk_length_in_kb", "3")]).is_err());
        assert!(options(&[("class", "ZstdCompressor"), ("compression_level", "99")]).is_err());
    }
}
