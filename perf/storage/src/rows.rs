//! The rows that every engine gets: keys of 16 bytes without order, values that LZ4 can halve.
//!
//! A row is named by its number. Written in the order of their numbers the rows come in random order of their keys, and
//! which keys exist is known without a list of them.

/// Bytes of a key.
pub(crate) const KEY_SIZE: usize = 16;
/// Bytes of a value that say which row it belongs to.
const TAG_SIZE: usize = 8;
/// Random bytes that values are cut from; many times more than a block holds, so that a block repeats none of them.
const POOL_SIZE: usize = 8 << 20;

/// A key.
pub(crate) type Key = [u8; KEY_SIZE];

/// The key of a row.
pub(crate) fn key(row: u64) -> Key {
    let mut key = [0; KEY_SIZE];
    key[..8].copy_from_slice(&mix(row).to_be_bytes());
    key[8..].copy_from_slice(&mix(row ^ 0x5bd1_e995_7f4a_7c15).to_be_bytes());
    key
}

/// SplitMix64's finisher: a bijection.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A small random source.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(mix(seed) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Makes values: a tag, random bytes up to half of the size, then text that repeats.
pub(crate) struct Values {
    pool: Vec<u8>,
    size: usize,
    dice: Dice,
}

impl Values {
    /// Values of `size` bytes, at least 16.
    pub(crate) fn new(size: usize, seed: u64) -> Values {
        assert!(size >= 2 * TAG_SIZE, "a value of {size} bytes holds no tag");
        let mut dice = Dice::new(7);
        let pool = (0..POOL_SIZE / 8).flat_map(|_| dice.next().to_le_bytes());
        Values {
            pool: pool.collect(),
            size,
            dice: Dice::new(seed),
        }
    }

    /// Writes a value of `row` to `out`, whose content is replaced.
    pub(crate) fn fill(&mut self, row: u64, out: &mut Vec<u8>) {
        let random = self.size / 2 - TAG_SIZE;
        let from = self.dice.below((POOL_SIZE - self.size) as u64) as usize;
        out.clear();
        out.extend_from_slice(&row.to_le_bytes());
        out.extend_from_slice(&self.pool[from..from + random]);
        out.resize(self.size, b'a' + (row % 4) as u8);
    }
}

/// A value read back must be one of the row's.
pub(crate) fn check(row: u64, value: &[u8], size: usize) -> Result<(), String> {
    if value.len() == size && value[..TAG_SIZE] == row.to_le_bytes() {
        return Ok(());
    }
    Err(format!(
        "row {row} came back with another value, of {} bytes",
        value.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_tag_and_halves() {
        let (mut values, mut value) = (Values::new(100, 1), Vec::new());
        values.fill(5, &mut value);
        assert_eq!(check(5, &value, 100), Ok(()));
        assert!(check(6, &value, 100).is_err());
        assert!(check(5, &value[..99], 100).is_err());
        let mut block = Vec::new();
        for row in 0..160 {
            values.fill(row, &mut value);
            block.extend_from_slice(&value);
        }
        let packed = lz4_flex::block::compress(&block).len();
        assert!(
            (block.len() * 4 / 10..block.len() * 7 / 10).contains(&packed),
            "{packed}"
        );
    }
}
