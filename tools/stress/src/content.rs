//! The key and the columns of a row, from its seed.

use crate::population::mix;

/// Bytes of a key: hexadecimal digits of 40 bits.
pub(crate) const KEY_BYTES: usize = 10;
const KEY_MASK: u64 = (1 << 40) - 1;
/// Odd, so that multiplication modulo 2^40 maps different seeds to different keys.
const KEY_FACTOR: u64 = 0x9E_3779_B97F;

/// The key of a seed. Seeds below 2^40 have different keys.
pub(crate) fn key(seed: u64) -> [u8; KEY_BYTES] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut number = seed.wrapping_mul(KEY_FACTOR) & KEY_MASK;
    let mut key = [0; KEY_BYTES];
    for digit in key.iter_mut().rev() {
        *digit = DIGITS[(number & 15) as usize];
        number >>= 4;
    }
    key
}

/// Writes the value of a column into `value`.
pub(crate) fn fill(seed: u64, column: usize, value: &mut [u8]) {
    let mut state = mix(seed ^ ((column as u64) << 48));
    for chunk in value.chunks_mut(8) {
        state = state.wrapping_mul(0xD120_2E5C_5F7A_9B4D).rotate_left(29) ^ seed;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_differ() {
        let keys: BTreeSet<_> = (0..100_000).map(key).collect();
        assert_eq!(keys.len(), 100_000);
        assert!(keys.iter().flatten().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn values_differ_by_seed_and_column_and_repeat() {
        let value = |seed, column| {
            let mut value = [0; 34];
            fill(seed, column, &mut value);
            value
        };
        assert_eq!(value(5, 1), value(5, 1));
        let all: BTreeSet<_> = (0..100)
            .flat_map(|seed| (0..5).map(move |column| value(seed, column)))
            .collect();
        assert_eq!(all.len(), 500);
    }
}
