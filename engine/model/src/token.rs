//! Murmur3 tokens, byte for byte as Cassandra's `Murmur3Partitioner`, and the shard that owns a token.
//!
//! Source of the hash: MurmurHash3_x64_128 (public domain), with the tail bytes sign-extended as Cassandra's Java
//! port does; drivers do the same, so this must never be "corrected".
//! Source of the shard rule: biased-token-round-robin as shard-aware drivers implement it.

use std::fmt;

/// A position on the ring: -2^63 is the ring's start and belongs to no key but the empty one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub i64);

/// Most significant token bits that the shard rule ignores; announced to drivers.
pub const SHARDING_IGNORE_MSB: u32 = 12;

/// Full class name that drivers match on.
pub const PARTITIONER: &str = "org.apache.cassandra.dht.Murmur3Partitioner";

impl Token {
    /// Start of the ring.
    pub const MIN: Token = Token(i64::MIN);
    /// End of the ring.
    pub const MAX: Token = Token(i64::MAX);

    /// The token of a serialised partition key.
    pub fn of(key: &[u8]) -> Token {
        if key.is_empty() {
            return Token::MIN;
        }
        match murmur3_h1(key) {
            i64::MIN => Token::MAX,
            hash => Token(hash),
        }
    }

    /// The shard of a node with `shard_count` shards that owns this token.
    pub fn shard(self, shard_count: u16) -> u16 {
        let unsigned = (self.0 as u64).wrapping_add(1 << 63);
        let biased = unsigned << SHARDING_IGNORE_MSB;
        ((u128::from(biased) * u128::from(shard_count)) >> 64) as u16
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

fn mix_k1(k1: u64) -> u64 {
    k1.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_k2(k2: u64) -> u64 {
    k2.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finalize(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

/// First half of MurmurHash3_x64_128 with seed 0, in Cassandra's variant.
fn murmur3_h1(data: &[u8]) -> i64 {
    let (mut h1, mut h2) = (0u64, 0u64);
    let (blocks, tail) = data.as_chunks::<16>();
    for block in blocks {
        let (low, high) = block.split_at(8);
        let k1 = u64::from_le_bytes(low.try_into().expect("8 bytes"));
        let k2 = u64::from_le_bytes(high.try_into().expect("8 bytes"));
        h1 ^= mix_k1(k1);
        h1 = h1
            .rotate_left(27)
            .wrapping_add(h2)
            .wrapping_mul(5)
            .wrapping_add(0x52dc_e729);
        h2 ^= mix_k2(k2);
        h2 = h2
            .rotate_left(31)
            .wrapping_add(h1)
            .wrapping_mul(5)
            .wrapping_add(0x3849_5ab5);
    }
    let (mut k1, mut k2) = (0u64, 0u64);
    for (i, byte) in tail.iter().enumerate() {
        let sign_extended = *byte as i8 as i64 as u64;
        if i < 8 {
            k1 ^= sign_extended << (8 * i);
        } else {
            k2 ^= sign_extended << (8 * (i - 8));
        }
    }
    if tail.len() > 8 {
        h2 ^= mix_k2(k2);
    }
    if !tail.is_empty() {
        h1 ^= mix_k1(k1);
    }
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finalize(h1).wrapping_add(finalize(h2)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the public tests of the Python and Rust drivers.
    #[test]
    fn tokens_are_those_of_cassandra() {
        let vectors: [(&[u8], i64); 8] = [
            (b"123", -7468325962851647638),
            (&[0x00, 0xff, 0x10, 0xfa, 0x99].repeat(10), 5837342703291459765),
            (&[0xfe].repeat(8), -8927430733708461935),
            (&[0x10].repeat(8), 1446172840243228796),
            (b"9223372036854775807", 7162290910810015547),
            (b"test", -6017608668500074083),
            (b"xd", 4507812186440344727),
            (b"primary_key", -1632642444691073360),
        ];
        for (key, token) in vectors {
            assert_eq!(Token::of(key), Token(token), "{key:?}");
        }
        assert_eq!(Token::of(b""), Token::MIN);
    }

    #[test]
    fn shards_follow_the_biased_rule_and_are_even() {
        assert_eq!(Token(-9219783007514621794).shard(4), 3);
        assert_eq!(Token(9222582454147032830).shard(4), 3);
        let mut counts = [0u32; 3];
        for i in 0..30_000u32 {
            counts[usize::from(Token::of(&i.to_be_bytes()).shard(3))] += 1;
        }
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
        assert_eq!(Token::MAX.shard(1), 0);
    }
}
