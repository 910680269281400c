//! Seeded mutations of inputs: a poor man's fuzzer that runs anywhere, with the same inputs for the same seed.

/// A small random generator (xorshift*).
pub struct Random(u64);

impl Random {
    /// `seed` must not be 0.
    pub fn new(seed: u64) -> Random {
        assert_ne!(seed, 0);
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// In `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.next().checked_rem(bound as u64).unwrap_or(0) as usize
    }
}

/// Numbers that lengths, counts and codes go wrong at.
const INTERESTING: [u32; 10] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
];

/// Changes `input` in one place or a few.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    let most = random.below(4);
    for _ in 0..=random.below(most) {
        mutate_once(random, input);
    }
}

fn mutate_once(random: &mut Random, input: &mut Vec<u8>) {
    let place = random.below(input.len());
    let Some(byte) = input.get_mut(place) else {
        input.push(random.next() as u8);
        return;
    };
    match random.below(7) {
        0 => *byte ^= 1 << random.below(8),
        1 => *byte = random.next() as u8,
        2 => input.truncate(place),
        3 => input.insert(place, random.next() as u8),
        4 => {
            input.remove(place);
        }
        5 => {
            let length = random.below(input.len() - place).min(64);
            let piece = input[place..place + length].to_vec();
            let target = random.below(input.len());
            input.splice(target..target, piece);
        }
        _ => {
            let number = INTERESTING[random.below(INTERESTING.len())].to_be_bytes();
            let number = &number[[0, 2, 3][random.below(3)]..];
            let end = (place + number.len()).min(input.len());
            input[place..end].copy_from_slice(&number[..end - place]);
        }
    }
}
