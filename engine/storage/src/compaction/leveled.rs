//! Leveled compaction: levels of sstables of one size, each level some times larger than the one before; in every
//! level but the lowest no two sstables overlap, so a read needs one sstable of each.
//!
//! - Level 0 takes what is flushed. When it holds enough it is compacted into level 1.
//! - A level that is too large gives one sstable after the other, in turn over the ring, to the level above.
//! - When level 0 lags far behind, its sstables are compacted with each other by size first.
//!
//! An sstable that overlaps another one of its level (brought from elsewhere, or left by another strategy) counts as of
//! level 0. Options, names and defaults are Cassandra's (LeveledCompactionStrategy).

use std::cell::RefCell;
use std::collections::BTreeMap;

use ceto_model::Token;

use super::options::{parse, parse_flag, parse_mebibytes};
use super::size_tiered::{SizeTiered, all_as_one};
use super::strategy::{Candidate, CompactionStrategy, Cut, Kind, Moment, Output, Plan, total};

/// Levels, the lowest counted.
const LEVELS: usize = 9;
/// Sstables of level 0 compacted at once; when there are more they are compacted with each other.
const LEVEL_0_MAX: usize = 32;
/// A level may be larger than its bound by this factor before it gives something away.
const SLACK: f64 = 1.001;

/// The strategy with its options.
pub(crate) struct Leveled {
    /// Bytes of an sstable above level 0.
    sstable_size: u64,
    fanout: u64,
    single_sstable_uplevel: bool,
    tiers: SizeTiered,
    /// By level: the last token that went up.
    reached: RefCell<[Option<Token>; LEVELS]>,
}

type Levels = [Vec<usize>; LEVELS];

impl Leveled {
    /// Reads a table's `compaction` option.
    pub(crate) fn from_options(options: &BTreeMap<String, String>) -> Leveled {
        Leveled {
            sstable_size: parse_mebibytes(options, "sstable_size_in_mb", 160.0),
            fanout: parse(options, "fanout_size", 10u64).max(1),
            single_sstable_uplevel: parse_flag(options, "single_sstable_uplevel", true),
            tiers: SizeTiered::from_options(options),
            reached: RefCell::default(),
        }
    }

    /// Bytes that a level may hold.
    fn bytes_max(&self, level: usize) -> f64 {
        match level {
            0 => 4.0 * self.sstable_size as f64,
            level => (self.fanout as f64).powi(level as i32) * self.sstable_size as f64,
        }
    }

    /// Candidates by level; in ring order from level 1 on.
    pub(super) fn levels(&self, candidates: &[Candidate<'_>]) -> Levels {
        let mut levels = Levels::default();
        for (at, candidate) in candidates.iter().enumerate() {
            levels[(candidate.statistics.level as usize).min(LEVELS - 1)].push(at);
        }
        let (lowest, upper) = levels.split_at_mut(1);
        for level in upper {
            level.sort_by_key(|at| candidates[*at].tokens);
            let mut end: Option<Token> = None;
            level.retain(|at| {
                let (first, last) = candidates[*at].tokens;
                let fits = end.is_none_or(|end| end < first);
                if fits {
                    end = Some(last);
                } else {
                    lowest[0].push(*at);
                }
                fits
            });
        }
        levels
    }

    fn output(&self, level: usize) -> Output {
        Output {
            cut: Cut::Size(self.sstable_size),
            level: level as u32,
            is_run: false,
        }
    }

    /// Level 0 by size: when it has many more sstables than may be compacted at once.
    fn relieve_level_0(&self, candidates: &[Candidate<'_>], lowest: &[usize]) -> Option<Plan> {
        let idle: Vec<usize> = lowest
            .iter()
            .copied()
            .filter(|at| !candidates[*at].is_busy)
            .collect();
        let sizes: Vec<u64> = idle.iter().map(|at| candidates[*at].size).collect();
        let bucket = self.tiers.best_bucket(&sizes)?;
        Some(Plan {
            inputs: bucket.into_iter().map(|at| idle[at]).collect(),
            kind: Kind::Compaction,
            output: Output::ONE,
        })
    }

    /// Level 0 into level 1.
    fn out_of_level_0(&self, candidates: &[Candidate<'_>], levels: &Levels) -> Option<Plan> {
        // What is compacted into level 1 at the same time may come to overlap this.
        if levels[0].iter().any(|at| candidates[*at].is_busy) {
            return None;
        }
        let mut inputs = levels[0].clone();
        // The oldest data first, so that no level holds something newer than the one below it for long.
        inputs.sort_by_key(|at| candidates[*at].statistics.max_timestamp);
        inputs.truncate(LEVEL_0_MAX);
        let size = total(candidates, &inputs);
        if size <= self.sstable_size {
            // Not worth an sstable of level 1 yet, but many small ones are a burden on reads.
            return (inputs.len() >= self.tiers.min_threshold).then_some(Plan {
                inputs,
                kind: Kind::Compaction,
                output: Output::ONE,
            });
        }
        let overlapping = overlapping(candidates, &inputs, &levels[1])?;
        inputs.extend(overlapping);
        Some(Plan {
            inputs,
            kind: Kind::Compaction,
            output: self.output(1),
        })
    }

    /// One sstable of a level into the one above.
    fn out_of_level(&self, candidates: &[Candidate<'_>], levels: &Levels, level: usize) -> Option<Plan> {
        let own = &levels[level];
        let reached = self.reached.borrow()[level];
        let start = reached.map_or(0, |reached| {
            own.partition_point(|at| candidates[*at].tokens.0 <= reached)
        });
        let in_turn = own[start..].iter().chain(&own[..start]);
        for at in in_turn.filter(|at| !candidates[**at].is_busy) {
            let Some(overlapping) = overlapping(candidates, &[*at], &levels[level + 1]) else {
                continue;
            };
            self.reached.borrow_mut()[level] = Some(candidates[*at].tokens.1);
            let is_alone = overlapping.is_empty();
            let mut inputs = vec![*at];
            inputs.extend(overlapping);
            return Some(Plan {
                inputs,
                kind: if is_alone && self.single_sstable_uplevel {
                    Kind::Level
                } else {
                    Kind::Compaction
                },
                output: self.output(level + 1),
            });
        }
        None
    }

    fn size(&self, candidates: &[Candidate<'_>], level: &[usize]) -> f64 {
        level
            .iter()
            .filter(|at| !candidates[**at].is_busy)
            .map(|at| candidates[*at].size as f64)
            .sum()
    }
}

/// Members of a level in the token range that `inputs` span, whose output may lie anywhere in it; None when one of them
/// is busy. With it the range of a compaction has no gap, so no other one's output can come to overlap its own.
fn overlapping(candidates: &[Candidate<'_>], inputs: &[usize], level: &[usize]) -> Option<Vec<usize>> {
    let first = inputs.iter().map(|at| candidates[*at].tokens.0).min()?;
    let last = inputs.iter().map(|at| candidates[*at].tokens.1).max()?;
    let overlaps = |at: &&usize| {
        let (start, end) = candidates[**at].tokens;
        start <= last && first <= end
    };
    let found: Vec<usize> = level.iter().filter(overlaps).copied().collect();
    (!found.iter().any(|at| candidates[*at].is_busy)).then_some(found)
}

impl CompactionStrategy for Leveled {
    fn next(&self, candidates: &[Candidate<'_>], _: &Moment) -> Option<Plan> {
        let levels = self.levels(candidates);
        for level in (1..LEVELS - 1).rev() {
            if self.size(candidates, &levels[level]) <= self.bytes_max(level) * SLACK {
                continue;
            }
            if levels[0].len() > LEVEL_0_MAX
                && let Some(plan) = self.relieve_level_0(candidates, &levels[0])
            {
                return Some(plan);
            }
            if let Some(plan) = self.out_of_level(candidates, &levels, level) {
                return Some(plan);
            }
        }
        self.out_of_level_0(candidates, &levels).or_else(|| {
            (levels[0].len() > LEVEL_0_MAX)
                .then(|| self.relieve_level_0(candidates, &levels[0]))
                .flatten()
        })
    }

    fn pending(&self, candidates: &[Candidate<'_>], _: &Moment) -> usize {
        let levels = self.levels(candidates);
        let mut pending = 0;
        for (level, members) in levels.iter().enumerate().take(LEVELS - 1).skip(1) {
            let excess = self.size(candidates, members) - self.bytes_max(level) * SLACK;
            pending += (excess.max(0.0) / self.sstable_size as f64).ceil() as usize;
        }
        let idle = levels[0].iter().filter(|at| !candidates[**at].is_busy).count();
        let is_due =
            self.size(candidates, &levels[0]) > self.sstable_size as f64 || idle >= self.tiers.min_threshold;
        pending + if is_due { idle.div_ceil(LEVEL_0_MAX) } else { 0 }
    }

    /// What a level holds beyond its bound is written once into the level above, together with what it meets there:
    /// `fanout` times as much; and what comes from level 0 has all levels in use before it.
    fn backlog(&self, candidates: &[Candidate<'_>], _: &Moment) -> f64 {
        let levels = self.levels(candidates);
        let size = |level: &[usize]| total(candidates, level) as f64;
        let top = levels
            .iter()
            .rposition(|level| !level.is_empty())
            .unwrap_or(0)
            .max(1);
        let factor = 1.0 + self.fanout as f64;
        let lowest = size(&levels[0]);
        let mut backlog = if lowest > self.sstable_size as f64 {
            lowest * (2.0 + factor * (top - 1) as f64)
        } else {
            0.0
        };
        for (level, members) in levels.iter().enumerate().skip(1).take(LEVELS - 2) {
            let excess = (size(members) - self.bytes_max(level)).max(0.0);
            backlog += excess * factor * top.saturating_sub(level).max(1) as f64;
        }
        backlog
    }

    fn major(&self, candidates: &[Candidate<'_>], _: bool) -> Vec<Plan> {
        let cut = Cut::Levels {
            size: self.sstable_size,
            fanout: self.fanout,
        };
        all_as_one(
            candidates,
            Output {
                cut,
                level: 1,
                is_run: false,
            },
        )
    }

    /// Of one sstable: its level. Of several: level 0, where they may overlap.
    fn output_for(&self, inputs: &[Candidate<'_>]) -> Output {
        match inputs {
            [one] if one.statistics.level > 0 => self.output(one.statistics.level as usize),
            _ => Output::ONE,
        }
    }
}
