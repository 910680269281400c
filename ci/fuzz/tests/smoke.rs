//! Every target over its seeds and over a fixed number of seeded mutations of them. A failure prints the input that
//! `run` panicked on, so it can become a test where it belongs.

use std::panic::catch_unwind;

use ceto_fuzz::mutate::{Random, mutate};
use ceto_fuzz::{TARGETS, Target};

const SEED: u64 = 0x0005_EED0_FCE7_0DB1;
/// Inputs for each target.
const ITERATIONS: usize = 400_000;
/// Mutations never make an input longer than this.
const MAX_LENGTH: usize = 4096;

fn run(target: &Target, input: &[u8]) {
    let result = catch_unwind(|| (target.run)(input));
    assert!(result.is_ok(), "target {} failed on {input:?}", target.name);
}

fn smoke(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of this name");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| run(target, seed));
    let mut random = Random::new(SEED);
    let mut input = Vec::new();
    for iteration in 0..ITERATIONS {
        // Sometimes the last mutation is mutated further.
        if iteration % 4 != 0 || input.is_empty() {
            input.clone_from(&seeds[random.below(seeds.len())]);
        }
        mutate(&mut random, &mut input);
        input.truncate(MAX_LENGTH);
        run(target, &input);
    }
}

#[test]
fn frame() {
    smoke("frame");
}

#[test]
fn request() {
    smoke("request");
}

#[test]
fn response() {
    smoke("response");
}

#[test]
fn value() {
    smoke("value");
}
