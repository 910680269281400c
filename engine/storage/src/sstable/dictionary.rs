//! Dictionaries of Zstandard, trained on a sample of a table's content and kept with the sstable that uses them.
//!
//! ```text
//! Dictionary.db ::= head trained_at:8 length:8 dictionary xxh3:8
//!                   trained_at: microseconds since the Unix epoch; xxh3: of everything before it
//! ```
//!
//! The dictionary itself has zstd's own format. A writer that is to use one and is given none takes the first part of
//! its content as the sample before it writes anything: partitions lie in the order of a hash, so the first ones are
//! like the others.

use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;
use zstd::zstd_safe::{CDict, DDict};

use super::compression::Training;
use super::descriptor::Component;
use super::head::{HEAD_SIZE, check_head, write_head};
use crate::error::{Error, Result};

/// Largest dictionary that is read, in bytes.
const SIZE_MAX: usize = 1 << 20;
/// A sample is cut into pieces of about this size, in bytes, for the training to compare.
const PIECE_SIZE: usize = 1 << 10;
/// A dictionary is at most one part in this many of its sample.
const SAMPLE_PART: usize = 16;
/// Pieces below which there is nothing to learn.
const PIECES_MIN: usize = 16;

/// A dictionary, ready for use.
pub(crate) struct Dictionary {
    content: Vec<u8>,
    decoder: DDict<'static>,
    /// Microseconds since the Unix epoch.
    pub(crate) trained_at: i64,
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dictionary({} bytes)", self.content.len())
    }
}

impl Dictionary {
    fn new(content: Vec<u8>, trained_at: i64) -> Option<Dictionary> {
        Some(Dictionary {
            decoder: DDict::try_create(&content)?,
            content,
            trained_at,
        })
    }

    /// Trains one. None when the sample is too small, or has nothing in common with itself.
    pub(crate) fn train(sample: &[u8], training: Training, trained_at: i64) -> Option<Dictionary> {
        let sizes: Vec<usize> = sample.chunks(PIECE_SIZE).map(<[u8]>::len).collect();
        if sizes.len() < PIECES_MIN {
            return None;
        }
        // The training wants many times as much as it is to make, and a small table no dictionary of its own size.
        let size = training
            .dictionary_size_max
            .min(sample.len() / SAMPLE_PART)
            .min(SIZE_MAX);
        let content = zstd::dict::from_continuous(sample, &sizes, size).ok()?;
        Dictionary::new(content, trained_at)
    }

    /// For compression at a level; made anew at each call.
    pub(crate) fn encoder(&self, level: i32) -> Option<CDict<'static>> {
        CDict::try_create(&self.content, level)
    }

    /// For decompression.
    pub(crate) fn decoder(&self) -> &DDict<'static> {
        &self.decoder
    }

    /// Bytes of memory, roughly.
    pub(crate) fn memory(&self) -> usize {
        2 * self.content.len()
    }

    /// Its file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = write_head(Component::Dictionary).to_vec();
        bytes.extend_from_slice(&self.trained_at.to_le_bytes());
        bytes.extend_from_slice(&(self.content.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&self.content);
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads its file.
    pub(crate) fn decode(bytes: &Bytes, file: &Path) -> Result<Dictionary> {
        let damaged = |what: &str| Error::corrupt(file, HEAD_SIZE as u64, what);
        let rest = check_head(Component::Dictionary, bytes, file)?;
        let checksum = bytes
            .split_last_chunk::<8>()
            .filter(|(content, _)| content.len() >= HEAD_SIZE)
            .is_some_and(|(content, checksum)| xxh3_64(content) == u64::from_le_bytes(*checksum));
        if !checksum {
            return Err(damaged("dictionary checksum mismatch"));
        }
        let (numbers, rest) = rest
            .split_first_chunk::<16>()
            .ok_or_else(|| damaged("dictionary is cut short"))?;
        let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
        let content = &rest[..rest.len().saturating_sub(8)];
        if content.len() as u64 != number(8) || content.len() > SIZE_MAX {
            return Err(damaged("dictionary size mismatch"));
        }
        Dictionary::new(content.to_vec(), number(0) as i64)
            .ok_or_else(|| damaged("dictionary is not one of zstd"))
    }

    /// A dictionary for tests.
    #[cfg(test)]
    pub(crate) fn of_text() -> Dictionary {
        let words = ["the quick ", "brown fox ", "jumps ", "over ", "the lazy ", "dog "];
        let mut dice = crate::testing::Dice::new(9);
        let mut sample = String::new();
        while sample.len() < 128 << 10 {
            sample.push_str(words[dice.below(6) as usize]);
            sample.push_str(&dice.below(100).to_string());
        }
        Dictionary::train(sample.as_bytes(), Training::default(), 5).expect("words repeat")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::compression::{Codec, Compression, Compressor};
    use super::*;

    #[test]
    fn the_file_round_trips_and_damage_is_noticed() {
        let dictionary = Dictionary::of_text();
        let bytes = dictionary.encode();
        let file = Path::new("Dictionary.db");
        let read = Dictionary::decode(&bytes.clone().into(), file).unwrap();
        assert_eq!((read.content, read.trained_at), (dictionary.content, 5));
        for at in (0..bytes.len()).step_by(7).chain(0..64) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 2;
            assert!(Dictionary::decode(&damaged.into(), file).is_err());
            assert!(Dictionary::decode(&bytes[..at].to_vec().into(), file).is_err());
        }
    }

    /// Readings of sensors as JSON, so many bytes.
    fn readings(size: usize, seed: u64) -> Vec<u8> {
        let mut dice = crate::testing::Dice::new(seed);
        let mut text = String::new();
        while text.len() < size {
            let (sensor, room, value) = (dice.below(500), dice.below(40), dice.below(100_000));
            let status = ["ok", "warn", "failed"][dice.below(3) as usize];
            text.push_str(&format!(
                "{{\"sensor\":\"sensor-{sensor}\",\"room\":{room},\"status\":\"{status}\",\"value\":{value}.5}}"
            ));
        }
        text.into_bytes()
    }

    #[test]
    fn a_dictionary_makes_small_blocks_smaller() {
        let training = Training::default();
        let sample = readings(training.sample_size_max, 1);
        let dictionary = Dictionary::train(&sample, training, 0).unwrap();
        let compression = |codec| Compression {
            codec,
            ..Compression::default()
        };
        let block = readings(4 << 10, 2);
        let size = |codec| {
            let mut out = Vec::new();
            Compressor::new(compression(codec), Some(&dictionary)).compress(&block, &mut out);
            out.len()
        };
        let (with, without) = (size(Codec::ZstdDictionary), size(Codec::Zstd));
        assert!(with * 10 < without * 9, "{with} bytes with it, {without} without");
    }

    #[test]
    fn too_little_to_learn_from_gives_none() {
        assert!(Dictionary::train(&[7; 1000], Training::default(), 0).is_none());
        assert!(Dictionary::train(&[], Training::default(), 0).is_none());
    }
}
