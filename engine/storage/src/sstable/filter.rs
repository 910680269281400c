//! The bloom filter: says of most partitions that an sstable does not hold that it does not.
//!
//! Blocked: all bits of a key lie in one cache line of 512 bits, so a probe costs one memory access. Bits per key and
//! number of probes are chosen for the wanted false positive chance with the uneven load of the lines in mind.
//!
//! A key's line and the bits in it come from its token alone:
//!
//! ```text
//! mixed = token * 9e3779b97f4a7c15; mixed = (mixed ^ mixed >> 32) * d6e8feb86659fd93; mixed ^= mixed >> 32
//! line  = mixed * lines >> 64                          (of the product's 128 bits)
//! hash  = mixed * ff51afd7ed558ccd                     the i-th probe, from 0:
//!         i a multiple of 7, but not 0:                hash = hash * 9e3779b97f4a7c15 ^ hash >> 29
//!         always:                                      hash = rotate_left(hash, 9); bit = hash & 511
//! ```
//!
//! ```text
//! Filter.db  0      16       18  24      32
//!            | head | probes | 0 | lines | lines * 64 bytes | xxh3 of all before it |
//! ```

use std::path::Path;

use bytes::Bytes;
use ceto_model::Token;
use xxhash_rust::xxh3::xxh3_64;

use super::descriptor::Component;
use super::head::{HEAD_SIZE, check_head, write_head};
use crate::error::{Error, Result};

/// Bytes behind the head and before the lines.
const HEADER_SIZE: usize = 16;
const LINE_BITS: u64 = 512;
const LINE_WORDS: usize = 8;
/// Most bits spent on a key; the chance that it reaches is better than any that Cassandra allows.
const BITS_PER_KEY_MAX: f64 = 48.0;

/// A set of tokens with false positives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BloomFilter {
    lines: Vec<[u64; LINE_WORDS]>,
    probes: u16,
}

impl BloomFilter {
    /// A filter for `keys` keys that answers wrongly with a chance of `false_positive_chance`. None when the chance is
    /// 1: such a table has no filter.
    pub(crate) fn new(keys: u64, false_positive_chance: f64) -> Option<BloomFilter> {
        if false_positive_chance >= 1.0 {
            return None;
        }
        let (bits_per_key, probes) = plan(false_positive_chance);
        let bits = (keys.max(1) as f64 * bits_per_key).ceil() as u64;
        // A multiple of a power of two, so that `fit` finds a divisor.
        let lines = bits.div_ceil(LINE_BITS).max(1);
        let lines = if lines > 64 {
            lines.next_multiple_of(16)
        } else {
            lines
        };
        Some(BloomFilter {
            lines: vec![[0; LINE_WORDS]; lines as usize],
            probes,
        })
    }

    fn locate(&self, token: Token) -> (usize, u64) {
        // Tokens of a shard share bits and sstables share tokens with their index, so they are mixed first.
        let mixed = (token.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = mixed ^ (mixed >> 32);
        let line = (u128::from(mixed) * self.lines.len() as u128) >> 64;
        (line as usize, mixed.wrapping_mul(0xff51_afd7_ed55_8ccd))
    }

    /// Adds a token.
    pub(crate) fn add(&mut self, token: Token) {
        let (line, bits) = self.locate(token);
        let probes = self.probes;
        for bit in bits_of(bits, probes) {
            self.lines[line][bit / 64] |= 1 << (bit % 64);
        }
    }

    /// False: the token was never added.
    pub(crate) fn may_contain(&self, token: Token) -> bool {
        let (line, bits) = self.locate(token);
        let line = &self.lines[line];
        bits_of(bits, self.probes).all(|bit| line[bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// Makes it smaller when it was sized for many more keys than came.
    pub(crate) fn fit(&mut self, expected: u64, actual: u64) {
        let mut factor = (expected / actual.max(1)) as usize;
        while factor > 1 && !self.lines.len().is_multiple_of(factor) {
            factor -= 1;
        }
        if factor <= 1 {
            return;
        }
        // The line of a key grows with its hash, so a smaller filter's line is the union of neighbours.
        let merged = self.lines.chunks(factor).map(|lines| {
            let mut union = [0; LINE_WORDS];
            for line in lines {
                union.iter_mut().zip(line).for_each(|(all, word)| *all |= word);
            }
            union
        });
        self.lines = merged.collect();
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.lines.len() * size_of::<[u64; LINE_WORDS]>()
    }

    /// Its file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_SIZE + HEADER_SIZE + self.memory() + 8);
        bytes.extend_from_slice(&write_head(Component::Filter));
        bytes.extend_from_slice(&self.probes.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&(self.lines.len() as u64).to_le_bytes());
        self.lines
            .iter()
            .flatten()
            .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads its file.
    pub(crate) fn decode(bytes: &Bytes, file: &Path) -> Result<BloomFilter> {
        let damaged = |what: &str| Error::corrupt(file, 0, what);
        check_head(Component::Filter, bytes, file)?;
        let (content, checksum) = bytes
            .split_last_chunk::<8>()
            .ok_or_else(|| damaged("filter is cut short"))?;
        if xxh3_64(content) != u64::from_le_bytes(*checksum) {
            return Err(damaged("filter checksum mismatch"));
        }
        let (header, words) = content
            .get(HEAD_SIZE..)
            .and_then(<[u8]>::split_first_chunk::<HEADER_SIZE>)
            .ok_or_else(|| damaged("no filter header"))?;
        let count = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        if count == 0 || words.len() as u64 != count.saturating_mul(LINE_BITS / 8) {
            return Err(damaged("filter size mismatch"));
        }
        let mut lines = vec![[0; LINE_WORDS]; count as usize];
        let words = words
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
        lines
            .iter_mut()
            .flatten()
            .zip(words)
            .for_each(|(line, word)| *line = word);
        Ok(BloomFilter {
            lines,
            probes: u16::from_le_bytes([header[0], header[1]]),
        })
    }
}

/// Bit numbers inside a line: nine bits of hash for each.
fn bits_of(mut hash: u64, probes: u16) -> impl Iterator<Item = usize> {
    (0..probes).map(move |i| {
        if i % 7 == 0 && i > 0 {
            hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (hash >> 29);
        }
        hash = hash.rotate_left(9);
        (hash & (LINE_BITS - 1)) as usize
    })
}

/// Bits per key and probes that give the wanted chance.
fn plan(chance: f64) -> (f64, u16) {
    let mut bits_per_key = 2.0;
    loop {
        let ideal = (bits_per_key * std::f64::consts::LN_2).round() as u16;
        // With uneven lines fewer probes than the classic optimum do better.
        let best = (ideal.saturating_sub(4).max(1)..=ideal.max(1))
            .map(|probes| (expected_chance(bits_per_key, probes), probes))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((reached, probes)) = best
            && (reached <= chance || bits_per_key >= BITS_PER_KEY_MAX)
        {
            return (bits_per_key, probes);
        }
        bits_per_key *= 1.05;
    }
}

/// False positive chance when the number of keys in a line follows a Poisson distribution.
fn expected_chance(bits_per_key: f64, probes: u16) -> f64 {
    let mean = LINE_BITS as f64 / bits_per_key;
    let mut weight = (-mean).exp();
    let mut sum = 0.0;
    for keys in 0..(mean * 2.0) as u32 + 40 {
        let empty = (1.0 - 1.0 / LINE_BITS as f64).powf(f64::from(keys) * f64::from(probes));
        sum += weight * (1.0 - empty).powi(i32::from(probes));
        weight *= mean / f64::from(keys + 1);
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn token(i: u64) -> Token {
        Token::of(&i.to_be_bytes())
    }

    const PROBES: u64 = 400_000;

    fn measured(filter: &BloomFilter) -> f64 {
        let wrong = (0..PROBES)
            .filter(|i| filter.may_contain(token(1 << 40 | i)))
            .count();
        wrong as f64 / PROBES as f64
    }

    #[test]
    fn never_a_false_negative_and_the_wanted_chance_is_honoured() {
        for chance in [0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 0.0001] {
            let mut filter = BloomFilter::new(20_000, chance).unwrap();
            (0..20_000).for_each(|i| filter.add(token(i)));
            assert!((0..20_000).all(|i| filter.may_contain(token(i))));
            let measured = measured(&filter);
            assert!(measured < chance * 1.2 + noise(chance), "{measured} for {chance}");
            assert!(
                measured > chance * 0.3 - noise(chance),
                "wasteful: {measured} for {chance}"
            );
        }
        assert_eq!(BloomFilter::new(10, 1.0), None);
    }

    /// Three standard deviations of what is measured.
    fn noise(chance: f64) -> f64 {
        3.0 * (chance / PROBES as f64).sqrt()
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(24))]

        #[test]
        fn any_chance_and_any_number_of_keys(exponent in 0.3f64..10.0, keys in 1u64..30_000, first in 0u64..1 << 39) {
            let chance = (-exponent).exp();
            let mut filter = BloomFilter::new(keys, chance).unwrap();
            (first..first + keys).for_each(|i| filter.add(token(i)));
            assert!((first..first + keys).all(|i| filter.may_contain(token(i))));
            // The lines of a filter of few keys are filled by chance too.
            let few = 1.0 + 10.0 / (keys as f64).sqrt();
            let measured = measured(&filter);
            assert!(measured < chance * 1.25 * few + 2.0 * noise(chance), "{measured} for {chance}, {keys} keys");
        }
    }

    #[test]
    fn a_filter_made_for_too_many_keys_shrinks() {
        let mut filter = BloomFilter::new(40_000, 0.01).unwrap();
        (0..10_000).for_each(|i| filter.add(token(i)));
        let before = filter.memory();
        filter.fit(40_000, 10_000);
        assert!(filter.memory() <= before / 2);
        assert!((0..10_000).all(|i| filter.may_contain(token(i))));
        assert!(measured(&filter) < 0.02);
    }

    #[test]
    fn the_file_round_trips_and_damage_is_noticed() {
        let mut filter = BloomFilter::new(100, 0.01).unwrap();
        (0..100).for_each(|i| filter.add(token(i)));
        let bytes = filter.encode();
        let file = Path::new("Filter.db");
        assert_eq!(BloomFilter::decode(&bytes.clone().into(), file).unwrap(), filter);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(BloomFilter::decode(&damaged.into(), file).is_err());
            assert!(BloomFilter::decode(&bytes[..at].to_vec().into(), file).is_err());
        }
    }
}
