//! Time-window compaction, for data that comes in order of time and expires: sstables of one window are compacted with
//! each other only, those of the newest by size; a window that is over becomes one sstable, which later is dropped as
//! a whole when all in it has expired.
//!
//! The window of an sstable is that of its newest timestamp. Never: two windows in one compaction, not in a major one
//! either. Options, names and defaults are Cassandra's (TimeWindowCompactionStrategy).

use std::collections::BTreeMap;

use super::options::{parse, parse_flag};
use super::size_tiered::SizeTiered;
use super::strategy::{Candidate, CompactionStrategy, Kind, Moment, Output, Plan};

/// The strategy with its options.
pub(crate) struct TimeWindow {
    /// Length of a window in units of the timestamps.
    window: i128,
    expiry_check: i64,
    /// Tombstones alone are no reason to compact unless an option says so: they leave with their window.
    compacts_for_tombstones: bool,
    tiers: SizeTiered,
}

impl TimeWindow {
    /// Reads a table's `compaction` option.
    pub(crate) fn from_options(options: &BTreeMap<String, String>) -> TimeWindow {
        let word = |name: &str| options.get(name).map_or("", String::as_str).to_ascii_uppercase();
        let seconds: i128 = match word("compaction_window_unit").as_str() {
            "MINUTES" => 60,
            "HOURS" => 3600,
            _ => 86_400,
        };
        let per_second: i128 = match word("timestamp_resolution").as_str() {
            "SECONDS" => 1,
            "MILLISECONDS" => 1000,
            "NANOSECONDS" => 1_000_000_000,
            _ => 1_000_000,
        };
        let windows: i128 = parse(options, "compaction_window_size", 1);
        let names = ["tombstone_threshold", "tombstone_compaction_interval"];
        TimeWindow {
            window: (seconds * per_second).saturating_mul(windows.max(1)),
            expiry_check: parse(options, "expired_sstable_check_frequency_seconds", 600),
            compacts_for_tombstones: names.iter().any(|name| options.contains_key(*name))
                || parse_flag(options, "unchecked_tombstone_compaction", false),
            tiers: SizeTiered::from_options(options),
        }
    }

    /// The window that an sstable belongs to.
    pub(super) fn window_of(&self, candidate: &Candidate<'_>) -> i128 {
        i128::from(candidate.statistics.max_timestamp.0).div_euclid(self.window)
    }

    /// Candidates by window, oldest window first.
    fn windows(&self, candidates: &[Candidate<'_>]) -> BTreeMap<i128, Vec<usize>> {
        let mut windows: BTreeMap<i128, Vec<usize>> = BTreeMap::new();
        for (at, candidate) in candidates.iter().enumerate() {
            windows.entry(self.window_of(candidate)).or_default().push(at);
        }
        windows
    }

    /// Idle candidates of each window and their sizes, newest window first, and whether it is the newest.
    fn idle_windows(&self, candidates: &[Candidate<'_>]) -> Vec<(bool, Vec<usize>, Vec<u64>)> {
        let windows = self.windows(candidates);
        let newest = windows.last_key_value().map(|(window, _)| *window);
        let idle = windows.into_iter().rev().map(|(window, mut members)| {
            members.retain(|at| !candidates[*at].is_busy);
            members.sort_by_key(|at| candidates[*at].size);
            let sizes = members.iter().map(|at| candidates[*at].size).collect();
            (Some(window) == newest, members, sizes)
        });
        idle.collect()
    }
}

impl CompactionStrategy for TimeWindow {
    fn next(&self, candidates: &[Candidate<'_>], _: &Moment) -> Option<Plan> {
        for (is_newest, mut members, sizes) in self.idle_windows(candidates) {
            let inputs: Option<Vec<usize>> = if is_newest {
                let bucket = self.tiers.best_bucket(&sizes);
                bucket.map(|bucket| bucket.into_iter().map(|at| members[at]).collect())
            } else {
                members.truncate(self.tiers.max_threshold);
                (members.len() >= 2).then_some(members)
            };
            if let Some(inputs) = inputs {
                return Some(Plan {
                    inputs,
                    kind: Kind::Compaction,
                    output: Output::ONE,
                });
            }
        }
        None
    }

    fn pending(&self, candidates: &[Candidate<'_>], _: &Moment) -> usize {
        let windows = self.idle_windows(candidates).into_iter();
        let pending = windows.map(|(is_newest, members, sizes)| match is_newest {
            true => self.tiers.pending_of(&sizes),
            false if members.len() < 2 => 0,
            false => members.len().div_ceil(self.tiers.max_threshold),
        });
        pending.sum()
    }

    /// The newest window's as size-tiered compaction's; of older windows everything, once, until they are one sstable.
    fn backlog(&self, candidates: &[Candidate<'_>], _: &Moment) -> f64 {
        let windows = self.windows(candidates);
        let newest = windows.last_key_value().map(|(window, _)| *window);
        let backlog = windows.iter().map(|(window, members)| {
            let sizes: Vec<u64> = members.iter().map(|at| candidates[*at].size).collect();
            match Some(*window) == newest {
                true => self.tiers.backlog_of(&sizes),
                false if members.len() < 2 => 0.0,
                false => sizes.iter().sum::<u64>() as f64,
            }
        });
        backlog.sum()
    }

    fn major(&self, candidates: &[Candidate<'_>], _: bool) -> Vec<Plan> {
        let windows = self.windows(candidates).into_values();
        let plan = |inputs| Plan {
            inputs,
            kind: Kind::Major,
            output: Output::ONE,
        };
        windows.map(plan).collect()
    }

    fn output_for(&self, _: &[Candidate<'_>]) -> Output {
        Output::ONE
    }

    fn expiry_check(&self) -> Option<i64> {
        Some(self.expiry_check)
    }

    fn compacts_for_tombstones(&self) -> bool {
        self.compacts_for_tombstones
    }
}
