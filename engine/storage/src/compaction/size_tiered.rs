//! Size-tiered compaction: sstables of about the same size are compacted together when there are enough of them.
//!
//! Options, names and defaults are Cassandra's (SizeTieredCompactionStrategy).

use std::collections::BTreeMap;

use super::options::parse;
use super::strategy::{Candidate, CompactionStrategy, Cut, Kind, Moment, Output, Plan, total};

/// Least size of what a major compaction with split output writes, in bytes.
const SPLIT_LEAST: u64 = 50 << 20;

/// The strategy with its options.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SizeTiered {
    pub(super) min_threshold: usize,
    pub(super) max_threshold: usize,
    bucket_low: f64,
    bucket_high: f64,
    /// Sstables smaller than this, in bytes, count as of one size.
    min_sstable_size: u64,
}

impl Default for SizeTiered {
    fn default() -> SizeTiered {
        SizeTiered {
            min_threshold: 4,
            max_threshold: 32,
            bucket_low: 0.5,
            bucket_high: 1.5,
            min_sstable_size: 50 << 20,
        }
    }
}

impl SizeTiered {
    /// Reads a table's `compaction` option.
    pub(crate) fn from_options(options: &BTreeMap<String, String>) -> SizeTiered {
        let default = SizeTiered::default();
        let min_threshold = parse(options, "min_threshold", default.min_threshold).max(2);
        SizeTiered {
            min_threshold,
            max_threshold: parse(options, "max_threshold", default.max_threshold).max(min_threshold),
            bucket_low: parse(options, "bucket_low", default.bucket_low),
            bucket_high: parse(options, "bucket_high", default.bucket_high),
            min_sstable_size: parse(options, "min_sstable_size", default.min_sstable_size),
        }
    }

    /// Groups of things of about the same size, smallest first; each is named by its index in `sizes`.
    pub(super) fn buckets(&self, sizes: &[u64]) -> Vec<Vec<usize>> {
        let mut by_size: Vec<usize> = (0..sizes.len()).collect();
        by_size.sort_by_key(|at| sizes[*at]);
        let mut buckets: Vec<(f64, Vec<usize>)> = Vec::new();
        let min = self.min_sstable_size as f64;
        for at in by_size {
            let size = sizes[at] as f64;
            let fits = |average: f64| {
                (size > average * self.bucket_low && size < average * self.bucket_high)
                    || (size < min && average < min)
            };
            match buckets.iter_mut().find(|(average, _)| fits(*average)) {
                Some((average, members)) => {
                    *average = (*average * members.len() as f64 + size) / (members.len() + 1) as f64;
                    members.push(at);
                }
                None => buckets.push((size, vec![at])),
            }
        }
        buckets.into_iter().map(|(_, members)| members).collect()
    }

    /// The bucket to be compacted next, of things with these sizes: the fullest, for it saves reads the most sstables;
    /// of two that are as full the one of smaller members.
    pub(super) fn best_bucket(&self, sizes: &[u64]) -> Option<Vec<usize>> {
        let full = self
            .buckets(sizes)
            .into_iter()
            .filter(|bucket| bucket.len() >= self.min_threshold);
        let mut best = full.min_by_key(|bucket| {
            let size: u64 = bucket.iter().map(|at| sizes[*at]).sum();
            (
                std::cmp::Reverse(bucket.len().min(self.max_threshold)),
                size / bucket.len() as u64,
            )
        })?;
        best.truncate(self.max_threshold);
        Some(best)
    }

    /// Compactions that buckets of these sizes ask for.
    pub(super) fn pending_of(&self, sizes: &[u64]) -> usize {
        let buckets = self.buckets(sizes);
        let full = buckets.iter().filter(|bucket| bucket.len() >= self.min_threshold);
        full.map(|bucket| bucket.len().div_ceil(self.max_threshold)).sum()
    }

    /// What is left to be written of things with these sizes. Each byte is rewritten once for each tier between its own
    /// and that of the whole: the sum of `size * log(total / size)` with the number of sstables per tier as base.
    pub(super) fn backlog_of(&self, sizes: &[u64]) -> f64 {
        let total: u64 = sizes.iter().sum();
        // A tier that is not full yet waits for writes, not for the processor.
        if sizes.len() < self.min_threshold {
            return 0.0;
        }
        let base = (self.min_threshold as f64).ln();
        let one = |size: &u64| match size {
            0 => 0.0,
            size => *size as f64 * (total as f64 / *size as f64).ln() / base,
        };
        sizes.iter().map(one).sum()
    }
}

/// Indexes of candidates that are not busy, and their sizes.
pub(super) fn idle(candidates: &[Candidate<'_>]) -> (Vec<usize>, Vec<u64>) {
    let idle = (0..candidates.len()).filter(|at| !candidates[*at].is_busy);
    idle.map(|at| (at, candidates[at].size)).unzip()
}

/// All of them, when there are any.
pub(super) fn all_as_one(candidates: &[Candidate<'_>], output: Output) -> Vec<Plan> {
    if candidates.is_empty() {
        return Vec::new();
    }
    vec![Plan {
        inputs: (0..candidates.len()).collect(),
        kind: Kind::Major,
        output,
    }]
}

impl CompactionStrategy for SizeTiered {
    fn next(&self, candidates: &[Candidate<'_>], _: &Moment) -> Option<Plan> {
        let (idle, sizes) = idle(candidates);
        let bucket = self.best_bucket(&sizes)?;
        Some(Plan {
            inputs: bucket.into_iter().map(|at| idle[at]).collect(),
            kind: Kind::Compaction,
            output: Output::ONE,
        })
    }

    fn pending(&self, candidates: &[Candidate<'_>], _: &Moment) -> usize {
        self.pending_of(&idle(candidates).1)
    }

    fn backlog(&self, candidates: &[Candidate<'_>], _: &Moment) -> f64 {
        let sizes: Vec<u64> = candidates.iter().map(|candidate| candidate.size).collect();
        self.backlog_of(&sizes)
    }

    fn major(&self, candidates: &[Candidate<'_>], splits_output: bool) -> Vec<Plan> {
        let all: Vec<usize> = (0..candidates.len()).collect();
        let cut = Cut::Halves {
            total: total(candidates, &all),
            least: SPLIT_LEAST,
        };
        let output = Output {
            cut: if splits_output { cut } else { Cut::Never },
            ..Output::ONE
        };
        all_as_one(candidates, output)
    }

    fn output_for(&self, _: &[Candidate<'_>]) -> Output {
        Output::ONE
    }
}
