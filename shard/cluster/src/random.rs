//! The seeded random numbers of the cores: SplitMix64. Equal seeds give equal numbers, which the simulator lives on.
//!
//! Never for secrets.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// A stream of its own for `concern`, so that a draw in one does not disturb the others.
    pub fn salted(seed: u64, concern: &str) -> Random {
        let mut salt = 0xcbf2_9ce4_8422_2325u64;
        for byte in concern.bytes() {
            salt = (salt ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut stream = Random::new(seed ^ salt);
        Random::new(stream.next())
    }

    /// 64 random bits.
    #[allow(clippy::should_implement_trait)] // endless: an Option would only be in the way
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From `range`, both ends included.
    pub fn between(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.below((range.end() - range.start()).saturating_add(1))
    }

    /// True in `parts` of `whole` cases.
    pub fn chance(&mut self, parts: u64, whole: u64) -> bool {
        self.below(whole) < parts
    }

    /// One of `items`; None when there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_concern() {
        let draw = |mut stream: Random| (0..4).map(|_| stream.next()).collect::<Vec<_>>();
        assert_eq!(
            draw(Random::salted(7, "network")),
            draw(Random::salted(7, "network"))
        );
        assert_ne!(
            draw(Random::salted(7, "network")),
            draw(Random::salted(7, "clock"))
        );
        assert_ne!(
            draw(Random::salted(7, "network")),
            draw(Random::salted(8, "network"))
        );
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_reach_both_ends() {
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..1000).map(|_| random.between(3..=6)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&6)));
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
