//! How far the output of a compaction is cut up so that its inputs can be let go while it runs.
//!
//! While a compaction runs, what it has written lies on disk beside those inputs that are not wholly read yet. With
//! `n` runs to be merged, at most `n` fragments are half read, and the output's own fragment is not sealed: `n + 1`
//! files. So that this stays below two fragments of the size that the options ask for, fragments are stored as files
//! of a part of that size.

use super::strategy::{Candidate, peak_overlap};

/// Most files to a fragment.
const FILES_MAX: u64 = 8;

/// Files that a fragment of `fragment` bytes is cut into, when up to `runs` of them will be merged.
pub(super) fn files_per_fragment(runs: u64) -> u64 {
    (runs + 1).div_ceil(2).next_power_of_two().min(FILES_MAX)
}

/// As many of `groups` (runs, the most urgent first) as can be merged while no more than two fragments are held back;
/// two at least.
pub(super) fn within_space(
    candidates: &[Candidate<'_>],
    mut groups: Vec<Vec<usize>>,
    fragment: u64,
) -> Vec<usize> {
    let held = |groups: &[Vec<usize>]| {
        let largest = groups.iter().flatten().map(|at| candidates[*at].size).max();
        let inputs = groups.iter().flatten().map(|at| &candidates[*at]);
        peak_overlap(inputs) + largest.unwrap_or(0).min(fragment)
    };
    while groups.len() > 2 && held(&groups) > 2 * fragment {
        groups.pop();
    }
    groups.into_iter().flatten().collect()
}
