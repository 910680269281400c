//! Unified compaction: levels by density, the sstable's size over the part of the ring that it covers. Each level has a
//! scaling parameter that says how many sstables may overlap in it (`t`) and how much denser the next level is (`f`):
//! `T4` is tiered (`t = f = 4`), `L10` leveled (`t = 2, f = 10`), `N` between (`t = f = 2`).
//!
//! The output of a compaction is cut at fixed points of the ring, the more the denser it is: S parts, where S is
//! `base_shard_count` until files would pass `target_sstable_size`, then doubled so often that they do not (less often
//! with `sstable_growth`), and halved while they would be below `min_sstable_size`. So any cut of a sparse output is
//! one of every denser output too, and compactions in different parts of the ring do not touch each other.
//!
//! Options, names, defaults and formulas are Cassandra 5's (UnifiedCompactionStrategy.md). Beyond it, each of those
//! parts is stored in several files so that inputs can be let go early, see `runs`. The ring is taken to be owned
//! evenly.

use std::collections::BTreeMap;

use ceto_model::Token;

use super::options::{parse, parse_share, parse_size};
use super::runs::files_per_fragment;
use super::strategy::{Candidate, CompactionStrategy, Cut, Kind, Moment, Output, Plan};

/// Bytes of a flushed sstable before one was seen, and the least that is reckoned with unless an option says so.
const FLUSH_LEAST: f64 = 1048576.0;
/// How often the base number of parts may be doubled.
const DOUBLINGS_MAX: u32 = 20;
/// Levels there may be.
const LEVELS_MAX: usize = 64;

/// Which sstables of a level take part beside those that overlap most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Inclusion {
    None,
    /// Those that overlap them.
    Single,
    /// Those that overlap them, and so on.
    Transitive,
}

/// The strategy with its options.
pub(crate) struct Unified {
    /// By level, the last for all above: 0 for `N`, `f - 2` for tiered, `2 - f` for leveled.
    scaling: Vec<i64>,
    target_size: f64,
    min_size: f64,
    base_parts: u64,
    growth: f64,
    flush_size: u64,
    sstables_max: usize,
    expiry_check: i64,
    inclusion: Inclusion,
}

impl Unified {
    /// Reads a table's `compaction` option.
    pub(crate) fn from_options(options: &BTreeMap<String, String>) -> Unified {
        let scaling = options.get("scaling_parameters").map_or("T4", String::as_str);
        let scaling: Option<Vec<i64>> = scaling
            .split(',')
            .map(|word| parse_scaling(word.trim()))
            .collect();
        let inclusion = options.get("overlap_inclusion_method");
        let sstables_max: i64 = parse(options, "max_sstables_to_compact", 0);
        Unified {
            scaling: scaling.filter(|all| !all.is_empty()).unwrap_or_else(|| vec![2]),
            target_size: parse_size(options, "target_sstable_size", 1 << 30).max(1) as f64,
            min_size: parse_size(options, "min_sstable_size", 100 << 20) as f64,
            base_parts: parse(options, "base_shard_count", 4u64).clamp(1, 1 << 16),
            growth: parse_share(options, "sstable_growth", 0.333),
            flush_size: parse_size(options, "flush_size_override", 0),
            sstables_max: match usize::try_from(sstables_max) {
                Ok(0) | Err(_) => usize::MAX,
                Ok(max) => max,
            },
            expiry_check: parse(options, "expired_sstable_check_frequency_seconds", 600),
            inclusion: match inclusion.map(|word| word.to_ascii_uppercase()).as_deref() {
                Some("NONE") => Inclusion::None,
                Some("SINGLE") => Inclusion::Single,
                _ => Inclusion::Transitive,
            },
        }
    }

    fn scaling(&self, level: usize) -> i64 {
        let last = self.scaling.last().copied().unwrap_or(2);
        self.scaling.get(level).copied().unwrap_or(last)
    }

    /// How many times denser the next level is.
    fn fanout(&self, level: usize) -> f64 {
        (2 + self.scaling(level).saturating_abs()) as f64
    }

    /// How many overlapping sstables of a level are compacted.
    fn threshold(&self, level: usize) -> usize {
        let scaling = self.scaling(level);
        if scaling <= 0 { 2 } else { 2 + scaling as usize }
    }

    /// Bytes of the lowest level's sstables, somewhat less than what a flush makes.
    fn base_size(&self, moment: &Moment) -> f64 {
        let flush = match self.flush_size {
            0 => (moment.flush_size as f64).max(FLUSH_LEAST),
            given => given as f64,
        };
        flush * (1.0 - 0.9 / self.fanout(0))
    }

    /// The number of parts of the ring that an output of this density is cut into.
    pub(super) fn parts(&self, density: f64) -> u64 {
        let base = self.base_parts;
        if self.min_size > 0.0 && density < self.min_size * base as f64 {
            // Only powers of two that divide the base, so that bounds stay bounds.
            let count = (density / self.min_size) as u64;
            let power = 1u64 << count.max(1).ilog2();
            return power.min(base & base.wrapping_neg());
        }
        let times = density / self.target_size / base as f64;
        if times <= 1.0 {
            return base;
        }
        let doublings = (times.log2() * (1.0 - self.growth)).round();
        base << (doublings.max(0.0) as u32).min(DOUBLINGS_MAX)
    }

    /// How an output of this many bytes over this share of the ring is written, `runs` having been merged.
    fn output(&self, size: u64, share: f64, runs: usize) -> Output {
        let density = size as f64 / share;
        let parts = self.parts(density);
        let file = density / parts as f64;
        let fragment = self.target_size.max(file);
        let (mut files, runs) = (1, runs.max(2) as u64);
        // Half a fragment is left for indexes and filters, and for parts that are fuller than others.
        while files < files_per_fragment(runs) && file / files as f64 * (runs + 1) as f64 > 1.5 * fragment {
            files *= 2;
        }
        Output {
            cut: Cut::Parts(parts * files),
            level: 0,
            is_run: true,
        }
    }

    fn output_of(&self, inputs: &[Candidate<'_>]) -> Output {
        let size = inputs.iter().map(|input| input.size).sum();
        let sets = overlap_sets(inputs, (0..inputs.len()).collect());
        let most = sets.iter().map(Vec::len).max().unwrap_or(1);
        self.output(size, covered_share(inputs), most.max(self.threshold(0)))
    }

    /// Idle candidates by level, by index.
    pub(super) fn levels(&self, candidates: &[Candidate<'_>], moment: &Moment) -> Vec<Vec<usize>> {
        let mut idle: Vec<(f64, usize)> = candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| !candidate.is_busy)
            .map(|(at, candidate)| (density(candidate), at))
            .collect();
        idle.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut levels = vec![Vec::new()];
        let mut bound = self.base_size(moment) * self.fanout(0);
        for (density, at) in idle {
            while density >= bound && levels.len() < LEVELS_MAX {
                bound *= self.fanout(levels.len());
                levels.push(Vec::new());
            }
            if let Some(level) = levels.last_mut() {
                level.push(at);
            }
        }
        levels
    }

    /// Groups of a level's sstables to be compacted, each with how many of it overlap at most.
    fn due(
        &self,
        candidates: &[Candidate<'_>],
        level: usize,
        members: Vec<usize>,
    ) -> Vec<(usize, Vec<usize>)> {
        let threshold = self.threshold(level);
        let sets = overlap_sets(candidates, members);
        let mut due = Vec::new();
        let mut at = 0;
        while at < sets.len() {
            // Sets that share a member with the next one form one group, unless the option says otherwise.
            let mut end = at + 1;
            let mut most = at;
            while end < sets.len() && sets[end].iter().any(|member| sets[end - 1].contains(member)) {
                if sets[end].len() > sets[most].len() {
                    most = end;
                }
                end += 1;
            }
            if sets[most].len() >= threshold {
                let taken = match self.inclusion {
                    Inclusion::None => most..most + 1,
                    Inclusion::Single => {
                        let touches = |set: &&Vec<usize>| set.iter().any(|m| sets[most].contains(m));
                        let before = sets[at..most].iter().rev().take_while(touches).count();
                        let after = sets[most + 1..end].iter().take_while(touches).count();
                        most - before..most + 1 + after
                    }
                    Inclusion::Transitive => at..end,
                };
                let mut group: Vec<usize> = sets[taken].iter().flatten().copied().collect();
                group.sort_unstable();
                group.dedup();
                due.push((sets[most].len(), self.bounded(candidates, group, &sets[most])));
            }
            at = end;
        }
        due
    }

    /// No more than `max_sstables_to_compact` of one place, the oldest data first.
    fn bounded(&self, candidates: &[Candidate<'_>], group: Vec<usize>, densest: &[usize]) -> Vec<usize> {
        let max = self.sstables_max.max(self.threshold(0));
        if densest.len() <= max {
            return group;
        }
        let mut oldest = densest.to_vec();
        oldest.sort_by_key(|at| candidates[*at].statistics.max_timestamp);
        oldest.truncate(max);
        oldest
    }
}

/// `T4`, `L10`, `N`, or the number behind them.
fn parse_scaling(word: &str) -> Option<i64> {
    let number = |digits: &str| digits.parse::<i64>().ok().filter(|fanout| *fanout >= 2);
    match (word.get(..1)?, word.get(1..)?) {
        ("N", "") => Some(0),
        ("T", digits) => Some(number(digits)? - 2),
        ("L", digits) => Some(2 - number(digits)?),
        _ => word.parse().ok(),
    }
}

/// The part of the ring between two tokens; a little when they are the same.
fn share(tokens: (Token, Token)) -> f64 {
    let width = i128::from(tokens.1.0) - i128::from(tokens.0.0) + 1;
    (width as f64 / (1u128 << 64) as f64).max(1e-9)
}

/// The part of the ring that any of the candidates covers.
fn covered_share(candidates: &[Candidate<'_>]) -> f64 {
    let mut ranges: Vec<(Token, Token)> = candidates.iter().map(|candidate| candidate.tokens).collect();
    ranges.sort_unstable();
    let mut covered = 0.0;
    let mut current: Option<(Token, Token)> = None;
    for range in ranges {
        match &mut current {
            Some(open) if range.0 <= open.1 => open.1 = open.1.max(range.1),
            _ => covered += current.replace(range).map_or(0.0, share),
        }
    }
    (covered + current.map_or(0.0, share)).clamp(1e-9, 1.0)
}

fn density(candidate: &Candidate<'_>) -> f64 {
    candidate.size as f64 / share(candidate.tokens)
}

/// The largest sets of members that all hold one token, in ring order: neighbouring sets differ, none contains another.
pub(super) fn overlap_sets(candidates: &[Candidate<'_>], mut members: Vec<usize>) -> Vec<Vec<usize>> {
    members.sort_by_key(|at| candidates[*at].tokens.0);
    let mut sets: Vec<Vec<usize>> = Vec::new();
    let mut active: Vec<usize> = Vec::new();
    for at in members {
        let first = candidates[at].tokens.0;
        // Between the ends that lie here and the beginning before them the set was at its largest.
        if active.iter().any(|member| candidates[*member].tokens.1 < first) {
            sets.push(active.clone());
            active.retain(|member| candidates[*member].tokens.1 >= first);
        }
        active.push(at);
    }
    if !active.is_empty() {
        sets.push(active);
    }
    sets
}

impl CompactionStrategy for Unified {
    fn next(&self, candidates: &[Candidate<'_>], moment: &Moment) -> Option<Plan> {
        let levels = self.levels(candidates, moment);
        let due = levels.into_iter().enumerate();
        let due = due.flat_map(|(level, members)| {
            let threshold = self.threshold(level);
            let groups = self.due(candidates, level, members);
            groups.into_iter().map(move |group| (threshold, group))
        });
        // What is furthest above its level's threshold burdens reads most; of two as far the one of fewer bytes.
        let (_, (_, inputs)) = due.min_by(|(a_threshold, a), (b_threshold, b)| {
            let excess = |threshold: usize, most: usize| most as f64 / threshold as f64;
            let size = |group: &[usize]| group.iter().map(|at| candidates[*at].size).sum::<u64>();
            excess(*b_threshold, b.0)
                .total_cmp(&excess(*a_threshold, a.0))
                .then_with(|| size(&a.1).cmp(&size(&b.1)))
        })?;
        let chosen: Vec<Candidate<'_>> = inputs.iter().map(|at| candidates[*at]).collect();
        Some(Plan {
            output: self.output_of(&chosen),
            inputs,
            kind: Kind::Compaction,
        })
    }

    fn pending(&self, candidates: &[Candidate<'_>], moment: &Moment) -> usize {
        let levels = self.levels(candidates, moment).into_iter().enumerate();
        let due = levels.map(|(level, members)| self.due(candidates, level, members).len());
        due.sum()
    }

    /// Each byte is written once (tiered) or about `f / 2` times (leveled) on its way from its level to the top one.
    fn backlog(&self, candidates: &[Candidate<'_>], moment: &Moment) -> f64 {
        let levels = self.levels(candidates, moment);
        let top = levels.len() - 1;
        let factor = |level: usize| match self.scaling(level) {
            ..0 => self.fanout(level) / 2.0,
            _ => 1.0,
        };
        let mut backlog = 0.0;
        for (level, members) in levels.into_iter().enumerate() {
            let climbs: f64 = (level..top).map(factor).sum();
            let due = self.due(candidates, level, members);
            let bytes: u64 = due
                .iter()
                .flat_map(|(_, group)| group)
                .map(|at| candidates[*at].size)
                .sum();
            backlog += bytes as f64 * (climbs + factor(level));
        }
        backlog
    }

    /// One compaction for each part of the ring in which sstables overlap: those of different parts need not wait for
    /// each other.
    fn major(&self, candidates: &[Candidate<'_>], _: bool) -> Vec<Plan> {
        let mut by_token: Vec<usize> = (0..candidates.len()).collect();
        by_token.sort_by_key(|at| candidates[*at].tokens);
        let mut groups: Vec<(Token, Vec<usize>)> = Vec::new();
        for at in by_token {
            let (first, last) = candidates[at].tokens;
            match groups.last_mut() {
                Some((end, group)) if first <= *end => {
                    *end = last.max(*end);
                    group.push(at);
                }
                _ => groups.push((last, vec![at])),
            }
        }
        let plan = |(_, inputs): (Token, Vec<usize>)| {
            let chosen: Vec<Candidate<'_>> = inputs.iter().map(|at| candidates[*at]).collect();
            Plan {
                output: self.output_of(&chosen),
                inputs,
                kind: Kind::Major,
            }
        };
        groups.into_iter().map(plan).collect()
    }

    fn output_for(&self, inputs: &[Candidate<'_>]) -> Output {
        self.output_of(inputs)
    }

    fn expiry_check(&self) -> Option<i64> {
        Some(self.expiry_check)
    }
}
