//! Compression of blocks, one by one.
//!
//! Compressors keep scratch memory between blocks, never content: each block decompresses on its own (those of
//! `ZstdDictionaryCompressor` with their table's dictionary).

use std::cell::RefCell;
use std::collections::BTreeMap;

use lz4_flex::block::CompressTable;
use zstd::zstd_safe::{CCtx, CDict, DCtx, compress_bound};

use super::dictionary::Dictionary;

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
    /// How dictionaries are trained, for the codec that has them.
    pub training: Training,
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
    /// Zstandard with the dictionary kept with the sstable.
    ZstdDictionary = 5,
}

/// Bounds of the training of a dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Training {
    /// Bytes of a dictionary, at most.
    pub dictionary_size_max: usize,
    /// Bytes of content that it is trained on, at most.
    pub sample_size_max: usize,
}

impl Default for Training {
    fn default() -> Training {
        Training {
            dictionary_size_max: 64 << 10,
            sample_size_max: 1 << 20,
        }
    }
}

/// Largest block that is decompressed, in bytes: what a damaged length may cost at most.
pub(crate) const RAW_BLOCK_MAX: usize = 256 << 20;
/// Chunk length when the table says nothing.
const DEFAULT_CHUNK_LENGTH: usize = 16 << 10;
/// Largest chunk, in bytes: larger ones of a table's options count as this.
const CHUNK_LENGTH_MAX: usize = 16 << 20;
/// Bounds of the training options, in bytes.
const DICTIONARY_SIZES: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 20;
const SAMPLE_SIZES: std::ops::RangeInclusive<usize> = 16 << 10..=64 << 20;
/// Cassandra's default level for Zstandard.
const DEFAULT_ZSTD_LEVEL: i32 = 3;
/// zlib's default level.
const DEFLATE_LEVEL: u8 = 6;
/// Savings below which a block is stored as it is: one part in this many.
const MIN_SAVING: usize = 16;

impl Compression {
    /// Reads a table's `compression` option. The class may stand with or without its package.
    pub fn from_options(options: &BTreeMap<String, String>) -> std::result::Result<Compression, String> {
        let mut compression = Compression::default();
        let is_enabled = options
            .get("enabled")
            .is_none_or(|enabled| enabled.eq_ignore_ascii_case("true"));
        let class = options
            .get("class")
            .or_else(|| options.get("sstable_compression"));
        let class = class.map_or("", String::as_str);
        compression.codec = match class.rsplit('.').next().unwrap_or(class) {
            "" => Codec::None,
            _ if !is_enabled => Codec::None,
            name => Codec::ALL
                .into_iter()
                .find(|codec| codec.name() == name)
                .ok_or_else(|| format!("Could not create Compression for type {name}"))?,
        };
        let chunk_length = options
            .get("chunk_length_in_kb")
            .or_else(|| options.get("chunk_length_kb"));
        if let Some(text) = chunk_length {
            let kib: usize = text
                .parse()
                .map_err(|_| format!("Invalid value for chunk_length_in_kb: {text}"))?;
            if !kib.is_power_of_two() {
                return Err("chunk_length_in_kb must be a power of 2".to_owned());
            }
            compression.chunk_length = kib.saturating_mul(1 << 10).min(CHUNK_LENGTH_MAX);
        }
        if let Some(text) = options.get("compression_level") {
            let level = text.parse().ok();
            let level = level.filter(|level| zstd::compression_level_range().contains(level));
            compression.level =
                level.ok_or_else(|| format!("Invalid value for compression_level: {text}"))?;
        }
        if let Some(text) = options.get("min_compress_ratio") {
            let ratio = text.parse().ok().filter(|ratio| *ratio >= 0.0);
            compression.min_compress_ratio =
                ratio.ok_or_else(|| format!("Invalid value {text} for min_compress_ratio"))?;
        }
        let training = &mut compression.training;
        for (name, size, bounds) in [
            (
                "training_max_dictionary_size",
                &mut training.dictionary_size_max,
                DICTIONARY_SIZES,
            ),
            (
                "training_max_total_sample_size",
                &mut training.sample_size_max,
                SAMPLE_SIZES,
            ),
        ] {
            if let Some(text) = options.get(name) {
                let bytes = size_in_bytes(text).ok_or_else(|| format!("Invalid value for {name}: {text}"))?;
                *size = bytes.clamp(*bounds.start(), *bounds.end());
            }
        }
        Ok(compression)
    }
}

/// A size with its unit, as `64KiB`.
fn size_in_bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

impl Default for Compression {
    fn default() -> Compression {
        Compression {
            codec: Codec::Lz4,
            chunk_length: DEFAULT_CHUNK_LENGTH,
            level: DEFAULT_ZSTD_LEVEL,
            min_compress_ratio: 0.0,
            training: Training::default(),
        }
    }
}

impl Codec {
    pub(crate) const ALL: [Codec; 6] = [
        Codec::None,
        Codec::Lz4,
        Codec::Zstd,
        Codec::Snappy,
        Codec::Deflate,
        Codec::ZstdDictionary,
    ];

    /// As in Cassandra's class names.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "NoopCompressor",
            Codec::Lz4 => "LZ4Compressor",
            Codec::Zstd => "ZstdCompressor",
            Codec::Snappy => "SnappyCompressor",
            Codec::Deflate => "DeflateCompressor",
            Codec::ZstdDictionary => "ZstdDictionaryCompressor",
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| *codec as u8 == number)
    }
}

/// Compresses blocks of one sstable.
pub(crate) struct Compressor {
    compression: Compression,
    dictionary: Option<CDict<'static>>,
    lz4: CompressTable,
    zstd: Option<CCtx<'static>>,
    snappy: Option<Box<snap::raw::Encoder>>,
}

impl Compressor {
    pub(crate) fn new(compression: Compression, dictionary: Option<&Dictionary>) -> Compressor {
        Compressor {
            compression,
            dictionary: dictionary.and_then(|dictionary| dictionary.encoder(compression.level)),
            lz4: CompressTable::default(),
            zstd: None,
            snappy: None,
        }
    }

    /// Appends `raw`, compressed, to `out`. Returns the codec used: what hardly shrinks is stored as it is.
    pub(crate) fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Codec {
        let start = out.len();
        let codec = match self.compression.codec {
            Codec::ZstdDictionary if self.dictionary.is_none() => Codec::Zstd,
            codec => codec,
        };
        match self.try_codec(codec, raw, out) {
            Some(written) if self.is_worth_it(written, raw.len()) => {
                out.truncate(start + written);
                codec
            }
            _ => {
                out.truncate(start);
                out.extend_from_slice(raw);
                Codec::None
            }
        }
    }

    fn is_worth_it(&self, written: usize, raw: usize) -> bool {
        match self.compression.min_compress_ratio {
            0.0 => written <= raw - raw / MIN_SAVING,
            ratio => written as f64 * ratio <= raw as f64,
        }
    }

    fn try_codec(&mut self, codec: Codec, raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        match codec {
            Codec::None => None,
            Codec::Lz4 => {
                out.resize(start + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                lz4_flex::block::compress_into_with_table(raw, &mut out[start..], &mut self.lz4).ok()
            }
            Codec::Zstd | Codec::ZstdDictionary => {
                out.resize(start + compress_bound(raw.len()), 0);
                let context = self.zstd.get_or_insert_with(CCtx::create);
                match &self.dictionary {
                    Some(dictionary) if codec == Codec::ZstdDictionary => context
                        .compress_using_cdict(&mut out[start..], raw, dictionary)
                        .ok(),
                    _ => context
                        .compress(&mut out[start..], raw, self.compression.level)
                        .ok(),
                }
            }
            Codec::Snappy => {
                out.resize(start + snap::raw::max_compress_len(raw.len()), 0);
                let snappy = self
                    .snappy
                    .get_or_insert_with(|| Box::new(snap::raw::Encoder::new()));
                snappy.compress(raw, &mut out[start..]).ok()
            }
            Codec::Deflate => {
                let deflated = miniz_oxide::deflate::compress_to_vec_zlib(raw, DEFLATE_LEVEL);
                out.extend_from_slice(&deflated);
                Some(deflated.len())
            }
        }
    }
}

thread_local! {
    /// Scratch memory of the shard's decompressor.
    static ZSTD: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Decompresses; None when the bytes are not `raw_length` bytes compressed by `codec`.
pub(crate) fn decompress(
    codec: Codec,
    stored: &[u8],
    raw_length: usize,
    dictionary: Option<&Dictionary>,
) -> Option<Vec<u8>> {
    if raw_length > RAW_BLOCK_MAX {
        return None;
    }
    let mut raw = vec![0; raw_length];
    decompress_into(codec, stored, &mut raw, dictionary).then_some(raw)
}

/// Decompresses into `raw`; false when the bytes are not exactly so many compressed by `codec`: then it holds anything.
pub(crate) fn decompress_into(
    codec: Codec,
    stored: &[u8],
    raw: &mut [u8],
    dictionary: Option<&Dictionary>,
) -> bool {
    let length = raw.len();
    let written = match codec {
        Codec::None => (stored.len() == length).then(|| {
            raw.copy_from_slice(stored);
            length
        }),
        Codec::Lz4 => lz4_flex::block::decompress_into(stored, raw).ok(),
        Codec::Zstd => ZSTD.with_borrow_mut(|context| context.decompress(raw, stored).ok()),
        Codec::ZstdDictionary => dictionary.and_then(|dictionary| {
            let decoder = dictionary.decoder();
            ZSTD.with_borrow_mut(|context| context.decompress_using_ddict(raw, stored, decoder).ok())
        }),
        Codec::Snappy => match snap::raw::decompress_len(stored) {
            Ok(claimed) if claimed == length => snap::raw::Decoder::new().decompress(stored, raw).ok(),
            _ => None,
        },
        Codec::Deflate => {
            let chunks = std::iter::once(stored);
            miniz_oxide::inflate::decompress_slice_iter_to_slice(raw, chunks, true, false).ok()
        }
    };
    written == Some(length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn with_codec(codec: Codec) -> Compression {
        Compression {
            codec,
            ..Compression::default()
        }
    }

    #[test]
    fn every_codec_round_trips_and_refuses_other_bytes() {
        let text = b"the quick brown fox jumps over the lazy dog ".repeat(200);
        let dictionary = Dictionary::of_text();
        for codec in Codec::ALL {
            let mut compressor = Compressor::new(with_codec(codec), Some(&dictionary));
            for _ in 0..2 {
                let mut stored = b"before".to_vec();
                assert_eq!(compressor.compress(&text, &mut stored), codec);
                let stored = stored.split_off(6);
                let read = |stored: &[u8], length| decompress(codec, stored, length, Some(&dictionary));
                assert_eq!(read(&stored, text.len()).unwrap(), text);
                assert_eq!(read(&stored, text.len() - 1), None);
                assert_eq!(read(&stored[..stored.len() / 2], text.len()), None);
                assert_eq!(read(&stored, usize::MAX), None);
            }
        }
    }

    #[test]
    fn without_a_dictionary_blocks_are_plain_zstd() {
        let text = b"the quick brown fox jumps over the lazy dog ".repeat(20);
        let mut stored = Vec::new();
        let mut compressor = Compressor::new(with_codec(Codec::ZstdDictionary), None);
        assert_eq!(compressor.compress(&text, &mut stored), Codec::Zstd);
        assert_eq!(decompress(Codec::Zstd, &stored, text.len(), None).unwrap(), text);
        assert_eq!(decompress(Codec::ZstdDictionary, &stored, text.len(), None), None);
    }

    #[test]
    fn what_does_not_shrink_enough_is_stored_as_it_is() {
        let mut dice = crate::testing::Dice::new(1);
        let noise: Vec<u8> = (0..4096).map(|_| dice.next() as u8).collect();
        let mut stored = Vec::new();
        let mut compressor = Compressor::new(Compression::default(), None);
        assert_eq!(compressor.compress(&noise, &mut stored), Codec::None);
        assert_eq!(stored, noise);
        // Half noise, half zeros: shrinks to a little more than half.
        let half: Vec<u8> = noise[..2048].iter().copied().chain([0; 2048]).collect();
        for (ratio, expected) in [(0.0, Codec::Lz4), (1.5, Codec::Lz4), (2.5, Codec::None)] {
            let compression = Compression {
                min_compress_ratio: ratio,
                ..Compression::default()
            };
            let mut compressor = Compressor::new(compression, None);
            assert_eq!(compressor.compress(&half, &mut Vec::new()), expected, "{ratio}");
        }
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
            (
                "class",
                "org.apache.cassandra.io.compress.ZstdDictionaryCompressor",
            ),
            ("chunk_length_in_kb", "64"),
            ("compression_level", "7"),
            ("min_compress_ratio", "1.5"),
            ("training_max_dictionary_size", "32KiB"),
            ("training_max_total_sample_size", "1MiB"),
        ]);
        let expected = Compression {
            codec: Codec::ZstdDictionary,
            chunk_length: 64 << 10,
            level: 7,
            min_compress_ratio: 1.5,
            training: Training {
                dictionary_size_max: 32 << 10,
                sample_size_max: 1 << 20,
            },
        };
        assert_eq!(zstd, Ok(expected));
        assert_eq!(options(&[("enabled", "false")]).unwrap().codec, Codec::None);
        assert_eq!(options(&[]).unwrap().codec, Codec::None);
        assert!(options(&[("class", "RarCompressor")]).is_err());
        assert!(options(&[("class", "LZ4Compressor"), ("chunk_length_in_kb", "3")]).is_err());
        assert!(options(&[("class", "ZstdCompressor"), ("compression_level", "99")]).is_err());
        let size = ("training_max_dictionary_size", "many");
        assert!(options(&[("class", "ZstdDictionaryCompressor"), size]).is_err());
    }
}
