//! What a full cache takes in: what is asked for a second time before long.
//!
//! Where reads rarely come twice, taking each thing into a cache that is full costs more than the rest of the read does,
//! and pushes out what is asked for again. So of what is asked for first only a bit is kept. Two sets of bits take turns:
//! when as many things as make a window have been noted in one, the other is emptied and goes on. So a thing is known for
//! one to two windows, whatever else is asked for: nothing that comes again within a window is kept out. One thing in
//! eight or so is known by mistake, and is taken in at once.

/// Bits of a set for each thing of a window.
const BITS_EACH: usize = 8;
const WINDOW_MIN: usize = 256;
const WINDOW_MAX: usize = 1 << 22;

/// Knows what was asked for lately.
pub(crate) struct Admission {
    noted: Vec<u64>,
    before: Vec<u64>,
    /// Things noted since the sets took turns.
    count: usize,
    /// Things that make a window; a power of two.
    window: usize,
}

impl Admission {
    /// For a cache that holds about `things`; a window has as many, within bounds of 256 and four million.
    pub(crate) fn new(things: usize) -> Admission {
        let window = things.clamp(WINDOW_MIN, WINDOW_MAX).next_power_of_two();
        let words = window * BITS_EACH / 64;
        Admission {
            noted: vec![0; words],
            before: vec![0; words],
            count: 0,
            window,
        }
    }

    /// True when the thing with this hash was asked for before; it is from now on.
    pub(crate) fn admits(&mut self, hash: u64) -> bool {
        // Hashes may be as plain as a product of what is counted up.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
        let (at, bit) = ((mixed as usize >> 6) & (self.noted.len() - 1), 1 << (mixed & 63));
        if self.noted[at] & bit != 0 {
            return true;
        }
        let was_before = self.before[at] & bit != 0;
        self.noted[at] |= bit;
        self.count += 1;
        if self.count == self.window {
            std::mem::swap(&mut self.noted, &mut self.before);
            self.noted.fill(0);
            self.count = 0;
        }
        was_before
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        (self.noted.len() + self.before.len()) * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_within_a_window_is_admitted_and_most_of_the_rest_is_not() {
        let mut admission = Admission::new(1000);
        assert_eq!(admission.memory(), 2 * 1024);
        let window = 1024;
        for turn in 0..10 {
            let things = (0..window / 2).map(|thing| turn * 1_000_003 + thing * 7919);
            let early = things.clone().filter(|thing| admission.admits(*thing)).count();
            assert!(early < 150, "turn {turn}: {early}");
            assert!(things.clone().all(|thing| admission.admits(thing)), "turn {turn}");
        }
        // Forgotten after two windows.
        let again = (0..window / 2)
            .filter(|thing| admission.admits(thing * 7919))
            .count();
        assert!(again < 150, "{again}");
    }
}
