//! What a compaction strategy is: it sees a table's sstables and says which to compact, and how to cut the output.
//!
//! Strategies are pure: they read no file and no clock. One object lives as long as the table's `compaction` option stays
//! the same ([`Compacting`]); `ALTER TABLE` makes another, which takes the sstables as they are. What all strategies
//! share (expired sstables, tombstone compactions of one sstable, repaired and unrepaired data apart) is here and in
//! `tombstones`.
//!
//! Never: puts repaired and unrepaired sstables into one compaction; chooses an sstable that another compaction has.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ceto_model::{Timestamp, Token};

use super::incremental::Incremental;
use super::leveled::Leveled;
use super::options::Common;
use super::size_tiered::SizeTiered;
use super::time_window::TimeWindow;
use super::tombstones;
use super::unified::Unified;
use crate::sstable::{Sstable, Statistics};

/// What a strategy knows of an sstable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Bytes of Data.
    pub(crate) size: u64,
    /// Tokens of its first and last partition.
    pub(crate) tokens: (Token, Token),
    pub(crate) statistics: &'a Statistics,
    /// Another compaction has it, or it is damaged.
    pub(crate) is_busy: bool,
}

impl<'a> Candidate<'a> {
    pub(crate) fn of(sstable: &'a Rc<Sstable>) -> Candidate<'a> {
        Candidate {
            size: sstable.data_size(),
            tokens: (sstable.first.token, sstable.last.token),
            statistics: &sstable.statistics,
            is_busy: !sstable.may_be_compacted(),
        }
    }

    /// May hold partitions that the other holds too.
    pub(crate) fn overlaps(&self, other: &Candidate<'_>) -> bool {
        self.tokens.0 <= other.tokens.1 && other.tokens.0 <= self.tokens.1
    }
}

/// The time and what else a choice depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Seconds since the Unix epoch.
    pub(crate) now: i64,
    /// Tombstones made before it are past their gc grace.
    pub(crate) gc_before: i64,
    /// No write in a memtable is older.
    pub(crate) memtables_oldest: Timestamp,
    /// Bytes of an average flushed sstable; 0: not known.
    pub(crate) flush_size: u64,
}

/// Why a compaction runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Its strategy wanted it.
    Compaction,
    /// Much of one sstable is tombstones that may go.
    Tombstones,
    /// All inputs are expired: they are dropped, not read.
    Expired,
    /// An sstable moves to another level as it is.
    Level,
    /// Somebody asked for it.
    Major,
    UserDefined,
    Cleanup,
    Scrub,
    Upgrade,
    GarbageCollect,
}

impl Kind {
    /// As `nodetool compactionstats` prints it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Compaction | Kind::Expired | Kind::Level => "Compaction",
            Kind::Tombstones => "Tombstone Compaction",
            Kind::Major => "Major Compaction",
            Kind::UserDefined => "User Defined Compaction",
            Kind::Cleanup => "Cleanup",
            Kind::Scrub => "Scrub",
            Kind::Upgrade => "Upgrade sstables",
            Kind::GarbageCollect => "Remove deleted data",
        }
    }

    /// As `nodetool stop` takes it.
    pub(crate) fn matches(self, word: &str) -> bool {
        let own = match self {
            Kind::Compaction | Kind::Expired | Kind::Level => "COMPACTION",
            Kind::Tombstones => "TOMBSTONE_COMPACTION",
            Kind::Major => "MAJOR_COMPACTION",
            Kind::UserDefined => "USER_DEFINED_COMPACTION",
            Kind::Cleanup => "CLEANUP",
            Kind::Scrub => "SCRUB",
            Kind::Upgrade => "UPGRADE_SSTABLES",
            Kind::GarbageCollect => "GARBAGE_COLLECT",
        };
        let is_compaction = matches!(self, Kind::Tombstones | Kind::Major | Kind::UserDefined);
        word.eq_ignore_ascii_case(own) || (is_compaction && word.eq_ignore_ascii_case("COMPACTION"))
    }
}

/// Where the output ends and another begins; always between two tokens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Cut {
    /// One sstable.
    Never,
    /// Sstables of about so many bytes.
    Size(u64),
    /// Each sstable half of what is left of `total`, none smaller than `least`.
    Halves { total: u64, least: u64 },
    /// At the bounds of so many equal parts of the ring.
    Parts(u64),
    /// Sstables of `size` bytes that fill level after level from the first on, each `fanout` times the one before.
    Levels { size: u64, fanout: u64 },
}

/// How the output of a compaction is written.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Output {
    pub(crate) cut: Cut,
    pub(crate) level: u32,
    /// Its sstables are fragments of one run, and inputs are let go as soon as what they held is in sealed fragments.
    pub(crate) is_run: bool,
}

impl Output {
    /// One sstable without level.
    pub(crate) const ONE: Output = Output {
        cut: Cut::Never,
        level: 0,
        is_run: false,
    };
}

/// A compaction to be done.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    /// Indexes of candidates.
    pub(crate) inputs: Vec<usize>,
    pub(crate) kind: Kind,
    pub(crate) output: Output,
}

/// Chooses what to compact.
pub(crate) trait CompactionStrategy {
    /// The compaction to be done next. `candidates` are all sstables that it may look at, those that are busy too.
    fn next(&self, candidates: &[Candidate<'_>], moment: &Moment) -> Option<Plan>;
    /// How many compactions it would start now, had it the means.
    fn pending(&self, candidates: &[Candidate<'_>], moment: &Moment) -> usize;
    /// Bytes that have to be written until it wants nothing more, roughly: what the backlog controller goes by. Progress
    /// in it must lower it.
    fn backlog(&self, candidates: &[Candidate<'_>], moment: &Moment) -> f64;
    /// The compactions that together compact everything as far as the strategy's invariants allow.
    fn major(&self, candidates: &[Candidate<'_>], splits_output: bool) -> Vec<Plan>;
    /// How the output of these candidates is written when somebody else chose them.
    fn output_for(&self, inputs: &[Candidate<'_>]) -> Output;
    /// Seconds between looks for sstables that are expired as a whole; None: no looks.
    fn expiry_check(&self) -> Option<i64> {
        None
    }
    /// A single sstable may be compacted for its tombstones.
    fn compacts_for_tombstones(&self) -> bool {
        true
    }
}

/// A table's strategy with the options it was made from.
pub(crate) struct Compacting {
    options: BTreeMap<String, String>,
    pub(crate) common: Common,
    pub(crate) strategy: Box<dyn CompactionStrategy>,
    last_expiry_check: std::cell::Cell<i64>,
}

impl Compacting {
    /// The strategy that a table's `compaction` option asks for. The option was checked when the table was made; should
    /// a value be wrong all the same, its default counts.
    pub(crate) fn new(options: &BTreeMap<String, String>) -> Compacting {
        let class = options.get("class").map_or("", String::as_str);
        let strategy: Box<dyn CompactionStrategy> = match class.rsplit('.').next().unwrap_or_default() {
            "LeveledCompactionStrategy" => Box::new(Leveled::from_options(options)),
            "TimeWindowCompactionStrategy" => Box::new(TimeWindow::from_options(options)),
            "IncrementalCompactionStrategy" => Box::new(Incremental::from_options(options)),
            "UnifiedCompactionStrategy" => Box::new(Unified::from_options(options)),
            _ => Box::new(SizeTiered::from_options(options)),
        };
        Compacting {
            options: options.clone(),
            common: Common::from_options(options),
            strategy,
            last_expiry_check: std::cell::Cell::new(i64::MIN),
        }
    }

    /// Was made from these options.
    pub(crate) fn is_of(&self, options: &BTreeMap<String, String>) -> bool {
        self.options == *options
    }

    /// The compaction to be done next.
    pub(crate) fn next(&self, candidates: &[Candidate<'_>], moment: &Moment) -> Option<Plan> {
        self.expired(candidates, moment)
            .or_else(|| {
                self.groups(candidates).into_iter().find_map(|group| {
                    let own = pick(candidates, &group);
                    let plan = self.strategy.next(&own, moment)?;
                    Some(translate(plan, &group))
                })
            })
            .or_else(|| self.for_tombstones(candidates, moment))
    }

    /// Sstables that are expired as a whole.
    fn expired(&self, candidates: &[Candidate<'_>], moment: &Moment) -> Option<Plan> {
        let period = self.strategy.expiry_check()?;
        let last = self.last_expiry_check.get();
        if last > moment.now.saturating_sub(period) && last <= moment.now {
            return None;
        }
        self.last_expiry_check.set(moment.now);
        let idle: Vec<usize> = (0..candidates.len())
            .filter(|at| !candidates[*at].is_busy && self.may_purge(candidates[*at].statistics))
            .collect();
        let inputs = tombstones::expired(candidates, &idle, moment);
        (!inputs.is_empty()).then_some(Plan {
            inputs,
            kind: Kind::Expired,
            output: Output::ONE,
        })
    }

    fn for_tombstones(&self, candidates: &[Candidate<'_>], moment: &Moment) -> Option<Plan> {
        if !self.strategy.compacts_for_tombstones() {
            return None;
        }
        let worth = |at: &usize| {
            self.may_purge(candidates[*at].statistics)
                && tombstones::is_worth_compacting(candidates, *at, &self.common, moment)
        };
        let at = (0..candidates.len()).find(worth)?;
        let chosen = &candidates[at];
        let output = self.strategy.output_for(std::slice::from_ref(chosen));
        Some(Plan {
            inputs: vec![at],
            kind: Kind::Tombstones,
            output: Output {
                level: chosen.statistics.level,
                ..output
            },
        })
    }

    /// Tombstones of this sstable may go when they are old enough.
    pub(crate) fn may_purge(&self, statistics: &Statistics) -> bool {
        !self.common.only_purge_repaired_tombstones || statistics.repaired_at > 0
    }

    /// Candidates that may meet in one compaction: unrepaired, repaired, and those of each repair that is under way.
    pub(crate) fn groups(&self, candidates: &[Candidate<'_>]) -> Vec<Vec<usize>> {
        let key = |candidate: &Candidate<'_>| {
            (
                candidate.statistics.pending_repair,
                candidate.statistics.repaired_at > 0,
            )
        };
        let keys: BTreeSet<_> = candidates.iter().map(key).collect();
        let group = |wanted| (0..candidates.len()).filter(move |at| key(&candidates[*at]) == wanted);
        keys.into_iter().map(|wanted| group(wanted).collect()).collect()
    }

    /// Compactions it would start now.
    pub(crate) fn pending(&self, candidates: &[Candidate<'_>], moment: &Moment) -> usize {
        let groups = self.groups(candidates);
        let pending = groups
            .iter()
            .map(|group| self.strategy.pending(&pick(candidates, group), moment));
        pending.sum()
    }

    /// Bytes to be written until it wants nothing more.
    pub(crate) fn backlog(&self, candidates: &[Candidate<'_>], moment: &Moment) -> f64 {
        let groups = self.groups(candidates);
        let backlog = groups
            .iter()
            .map(|group| self.strategy.backlog(&pick(candidates, group), moment));
        backlog.sum()
    }

    /// The compactions of everything.
    pub(crate) fn major(&self, candidates: &[Candidate<'_>], splits_output: bool) -> Vec<Plan> {
        let mut plans = Vec::new();
        for group in self.groups(candidates) {
            let of_group = self.strategy.major(&pick(candidates, &group), splits_output);
            plans.extend(of_group.into_iter().map(|plan| translate(plan, &group)));
        }
        plans
    }
}

fn pick<'a>(candidates: &[Candidate<'a>], group: &[usize]) -> Vec<Candidate<'a>> {
    group.iter().map(|at| candidates[*at]).collect()
}

fn translate(plan: Plan, group: &[usize]) -> Plan {
    Plan {
        inputs: plan.inputs.iter().map(|at| group[*at]).collect(),
        ..plan
    }
}

/// Bytes of candidates.
pub(crate) fn total(candidates: &[Candidate<'_>], of: &[usize]) -> u64 {
    of.iter().map(|at| candidates[*at].size).sum()
}

/// The most bytes of candidates that hold one and the same token.
pub(crate) fn peak_overlap<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>>) -> u64 {
    let mut bounds: Vec<(Token, bool, u64)> = Vec::new();
    for candidate in candidates {
        bounds.push((candidate.tokens.0, false, candidate.size));
        bounds.push((candidate.tokens.1, true, candidate.size));
    }
    // At one token beginnings come before ends.
    bounds.sort_unstable_by_key(|(token, is_end, _)| (*token, *is_end));
    let (mut now, mut most) = (0u64, 0u64);
    for (_, is_end, size) in bounds {
        if is_end {
            now = now.saturating_sub(size);
        } else {
            now += size;
            most = most.max(now);
        }
    }
    most
}
