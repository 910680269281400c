//! Incremental compaction: size-tiered compaction of runs instead of sstables. A run is cut into fragments that do not
//! overlap; while runs are merged, fragments that have been read are let go as the new ones are sealed, so a
//! compaction needs space for a few fragments, not for a second copy of all its inputs.
//!
//! Options, names and defaults are those that ScyllaDB documents for IncrementalCompactionStrategy:
//! `sstable_size_in_mb` (1000) is the fragment; `space_amplification_goal` (none) merges the largest tier with the one
//! below it once both take more than so many times the largest.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::options::{parse, parse_mebibytes};
use super::runs::{files_per_fragment, within_space};
use super::size_tiered::{SizeTiered, all_as_one};
use super::strategy::{Candidate, CompactionStrategy, Cut, Kind, Moment, Output, Plan, total};

/// The strategy with its options.
pub(crate) struct Incremental {
    /// Bytes of a fragment.
    fragment: u64,
    space_amplification_goal: Option<f64>,
    tiers: SizeTiered,
}

impl Incremental {
    /// Reads a table's `compaction` option.
    pub(crate) fn from_options(options: &BTreeMap<String, String>) -> Incremental {
        let goal: f64 = parse(options, "space_amplification_goal", 0.0);
        Incremental {
            fragment: parse_mebibytes(options, "sstable_size_in_mb", 1000.0),
            space_amplification_goal: (goal > 1.0).then_some(goal),
            tiers: SizeTiered::from_options(options),
        }
    }

    fn output(&self) -> Output {
        let files = files_per_fragment(self.tiers.min_threshold as u64);
        Output {
            cut: Cut::Size((self.fragment / files).max(1)),
            level: 0,
            is_run: true,
        }
    }

    /// Candidates by run, oldest run first. A run of which one fragment is busy is left out.
    fn runs(&self, candidates: &[Candidate<'_>], with_busy: bool) -> (Vec<Vec<usize>>, Vec<u64>) {
        let mut runs: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        let mut all: Vec<Vec<usize>> = Vec::new();
        for (at, candidate) in candidates.iter().enumerate() {
            match candidate.statistics.run {
                Some(run) => runs.entry(run).or_default().push(at),
                None => all.push(vec![at]),
            }
        }
        all.extend(runs.into_values());
        all.retain(|run| with_busy || !run.iter().any(|at| candidates[*at].is_busy));
        let created = |run: &Vec<usize>| run.iter().map(|at| candidates[*at].statistics.created_at).min();
        all.sort_by_key(created);
        let sizes = all.iter().map(|run| total(candidates, run)).collect();
        (all, sizes)
    }

    /// The two largest tiers, when they take more space than the goal allows.
    fn too_wide(&self, sizes: &[u64]) -> Option<Vec<usize>> {
        let goal = self.space_amplification_goal?;
        let mut buckets = self.tiers.buckets(sizes);
        let sum = |bucket: &Vec<usize>| bucket.iter().map(|at| sizes[*at]).sum::<u64>() as f64;
        let (largest, second) = (buckets.pop()?, buckets.pop()?);
        let both = sum(&largest) + sum(&second);
        let is_too_wide = both / sum(&largest) > goal;
        is_too_wide.then(|| second.into_iter().chain(largest).collect())
    }

    fn plan(
        &self,
        candidates: &[Candidate<'_>],
        runs: &[Vec<usize>],
        chosen: Vec<usize>,
        kind: Kind,
    ) -> Plan {
        let groups = chosen.into_iter().map(|at| runs[at].clone()).collect();
        Plan {
            inputs: within_space(candidates, groups, self.fragment),
            kind,
            output: self.output(),
        }
    }
}

impl CompactionStrategy for Incremental {
    fn next(&self, candidates: &[Candidate<'_>], _: &Moment) -> Option<Plan> {
        let (runs, sizes) = self.runs(candidates, false);
        let chosen = self.tiers.best_bucket(&sizes).or_else(|| self.too_wide(&sizes))?;
        Some(self.plan(candidates, &runs, chosen, Kind::Compaction))
    }

    fn pending(&self, candidates: &[Candidate<'_>], _: &Moment) -> usize {
        let (_, sizes) = self.runs(candidates, false);
        match self.tiers.pending_of(&sizes) {
            0 => usize::from(self.too_wide(&sizes).is_some()),
            pending => pending,
        }
    }

    fn backlog(&self, candidates: &[Candidate<'_>], _: &Moment) -> f64 {
        self.tiers.backlog_of(&self.runs(candidates, true).1)
    }

    fn major(&self, candidates: &[Candidate<'_>], _: bool) -> Vec<Plan> {
        all_as_one(candidates, self.output())
    }

    fn output_for(&self, _: &[Candidate<'_>]) -> Output {
        self.output()
    }
}
