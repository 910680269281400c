//! Which rows a run touches: seeds drawn from a distribution, and the random numbers behind it.
//!
//! A seed stands for one row; [`crate::content`] makes its key and its columns. The same seed is the same row in every
//! run, so that reads can check what an earlier run wrote.

/// Drawn from by each worker with a generator of its own.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Distribution {
    /// Not chosen on the command line.
    Unset,
    /// The n-th operation takes the n-th seed, and starts again after the last.
    Sequence { first: u64, last: u64 },
    /// Each seed alike.
    Uniform { first: u64, last: u64 },
    /// The bell curve; what falls outside of the bounds is drawn again.
    Gaussian {
        first: u64,
        last: u64,
        mean: f64,
        deviation: f64,
    },
    /// The lower seeds most.
    Exponential { first: u64, last: u64 },
}

/// Deviations between the middle of a bell curve and its bounds when none are given.
const DEFAULT_DEVIATIONS: f64 = 3.0;
/// Mean of the exponential distribution, as a share of its range; what falls beyond the last seed is drawn again.
const EXPONENTIAL_MEAN_SHARE: f64 = 0.2;
/// Draws of a value outside of the bounds before the nearest bound is taken.
const MAXIMUM_DRAWS: u32 = 64;

impl Distribution {
    /// The bell curve whose bounds are three deviations from its middle.
    pub(crate) fn gaussian(first: u64, last: u64) -> Self {
        Self::gaussian_of_deviations(first, last, DEFAULT_DEVIATIONS)
    }

    /// The bell curve whose bounds are `deviations` from its middle.
    pub(crate) fn gaussian_of_deviations(first: u64, last: u64, deviations: f64) -> Self {
        let (low, high) = (first as f64, last as f64);
        Self::Gaussian {
            first,
            last,
            mean: f64::midpoint(low, high),
            deviation: (high - low) / 2.0 / deviations,
        }
    }

    /// The seed of the operation numbered `index`.
    pub(crate) fn draw(&self, index: u64, random: &mut Random) -> u64 {
        match *self {
            Self::Unset => index,
            Self::Sequence { first, last } => match (last - first).checked_add(1) {
                Some(length) => first + index % length,
                None => index,
            },
            Self::Uniform { first, last } => first + random.below((last - first).saturating_add(1)),
            Self::Gaussian {
                first,
                last,
                mean,
                deviation,
            } => bounded(first, last, || mean + deviation * random.gaussian()),
            Self::Exponential { first, last } => {
                let mean = ((last - first) as f64 * EXPONENTIAL_MEAN_SHARE).max(1.0);
                bounded(first, last, || first as f64 - mean * (1.0 - random.unit()).ln())
            }
        }
    }
}

fn bounded(first: u64, last: u64, mut draw: impl FnMut() -> f64) -> u64 {
    let mut drawn = 0.0;
    for _ in 0..MAXIMUM_DRAWS {
        drawn = draw();
        if drawn >= first as f64 && drawn < last as f64 + 1.0 {
            break;
        }
    }
    (drawn as u64).clamp(first, last)
}

/// A small generator (xorshift with a multiplier). Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(mix(seed) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `bound`, which is above zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mean 0, deviation 1 (Box and Muller).
    pub(crate) fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Spreads a number over all 64 bits; different numbers stay different.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(distribution: Distribution, count: u64) -> Vec<u64> {
        let mut random = Random::new(7);
        (0..count)
            .map(|index| distribution.draw(index, &mut random))
            .collect()
    }

    #[test]
    fn a_sequence_starts_again() {
        assert_eq!(
            draws(Distribution::Sequence { first: 3, last: 5 }, 5),
            [3, 4, 5, 3, 4]
        );
        assert_eq!(
            draws(
                Distribution::Sequence {
                    first: 0,
                    last: u64::MAX
                },
                2
            ),
            [0, 1]
        );
    }

    #[test]
    fn draws_keep_to_the_bounds_and_the_shape() {
        let middle = |distribution| {
            let drawn = draws(distribution, 20_000);
            assert!(drawn.iter().all(|seed| (101..=1100).contains(seed)));
            let inner = drawn.iter().filter(|seed| (351..=850).contains(*seed)).count() as f64 / 20_000.0;
            let mean = drawn.iter().sum::<u64>() as f64 / 20_000.0;
            (inner, mean)
        };
        let (inner, mean) = middle(Distribution::Uniform {
            first: 101,
            last: 1100,
        });
        assert!(
            (0.48..0.52).contains(&inner) && (590.0..611.0).contains(&mean),
            "{inner} {mean}"
        );
        let (inner, mean) = middle(Distribution::gaussian(101, 1100));
        assert!(
            (0.85..0.89).contains(&inner) && (590.0..611.0).contains(&mean),
            "{inner} {mean}"
        );
        let (_, mean) = middle(Distribution::Exponential {
            first: 101,
            last: 1100,
        });
        assert!((280.0..310.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_single_seed_is_drawn() {
        assert_eq!(draws(Distribution::Uniform { first: 9, last: 9 }, 3), [9, 9, 9]);
        assert_eq!(draws(Distribution::gaussian(9, 9), 3), [9, 9, 9]);
        assert_eq!(
            draws(
                Distribution::Gaussian {
                    first: 1,
                    last: 5,
                    mean: 1e9,
                    deviation: 1.0
                },
                1
            ),
            [5]
        );
    }
}
