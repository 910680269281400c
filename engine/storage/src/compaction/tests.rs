//! What each strategy chooses, given sstables by their statistics alone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ceto_model::{Timestamp, Token};
use uuid::Uuid;

use super::leveled::Leveled;
use super::strategy::{Candidate, Compacting, Cut, Kind, Moment, Output, Plan, peak_overlap};
use super::time_window::TimeWindow;
use super::unified::{Unified, overlap_sets};
use crate::sstable::Statistics;
use crate::testing::{Dice, TABLE};

const MIB: u64 = 1 << 20;
const DAY: i64 = 86_400;

/// An sstable that is only told of.
#[derive(Clone)]
struct Told {
    size: u64,
    tokens: (i64, i64),
    statistics: Statistics,
    is_busy: bool,
}

impl Told {
    fn new(size: u64) -> Told {
        Told {
            size,
            tokens: (i64::MIN, i64::MAX),
            statistics: Statistics {
                table: TABLE,
                partitions: 10,
                rows: 50,
                cells: 50,
                min_timestamp: Timestamp(0),
                max_timestamp: Timestamp(10),
                max_expiry: i64::MAX,
                ..Statistics::default()
            },
            is_busy: false,
        }
    }

    fn tokens(self, first: i64, last: i64) -> Told {
        Told {
            tokens: (first, last),
            ..self
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Statistics)) -> Told {
        change(&mut self.statistics);
        self
    }

    fn level(self, level: u32) -> Told {
        self.with(|statistics| statistics.level = level)
    }

    fn times(self, first: i64, last: i64) -> Told {
        self.with(|statistics| {
            statistics.min_timestamp = Timestamp(first);
            statistics.max_timestamp = Timestamp(last);
        })
    }

    fn tombstones(self, made_at: i64, count: u64) -> Told {
        self.with(|statistics| {
            statistics.tombstones = count;
            statistics.tombstone_times = vec![(made_at, count)];
        })
    }
}

fn candidates(told: &[Told]) -> Vec<Candidate<'_>> {
    told.iter()
        .map(|told| Candidate {
            size: told.size,
            tokens: (Token(told.tokens.0), Token(told.tokens.1)),
            statistics: &told.statistics,
            is_busy: told.is_busy,
        })
        .collect()
}

fn moment(now: i64, gc_before: i64) -> Moment {
    Moment {
        now,
        gc_before,
        memtables_oldest: Timestamp(i64::MAX),
        flush_size: 0,
    }
}

fn options(class: &str, pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let class = ("class", class);
    let pairs = std::iter::once(&class).chain(pairs);
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn strategy(class: &str, pairs: &[(&str, &str)]) -> Compacting {
    Compacting::new(&options(class, pairs))
}

fn next(strategy: &Compacting, told: &[Told]) -> Option<Plan> {
    let mut plan = strategy.next(&candidates(told), &moment(0, i64::MIN))?;
    plan.inputs.sort_unstable();
    Some(plan)
}

fn chosen(strategy: &Compacting, told: &[Told]) -> Option<Vec<usize>> {
    next(strategy, told).map(|plan| plan.inputs)
}

fn sized(sizes: &[u64]) -> Vec<Told> {
    sizes.iter().map(|size| Told::new(*size)).collect()
}

#[test]
fn size_tiered_takes_sstables_of_a_size_when_there_are_enough() {
    let default = strategy("SizeTieredCompactionStrategy", &[]);
    let chosen_of = |sizes: &[u64]| chosen(&default, &sized(sizes));
    assert_eq!(chosen_of(&[]), None);
    assert_eq!(chosen_of(&[MIB, 2 * MIB, 3 * MIB]), None);
    // All small ones count as of one size.
    assert_eq!(chosen_of(&[MIB, 30 * MIB, 1, 7 * MIB]), Some(vec![0, 1, 2, 3]));
    let sizes = [100, 1000, 110, 120, 1100, 90, 5000].map(|size| size * MIB);
    assert_eq!(chosen_of(&sizes), Some(vec![0, 2, 3, 5]));
    // The fuller bucket first.
    let sizes = [100, 100, 100, 100, 900, 900, 900, 900, 900].map(|size| size * MIB);
    assert_eq!(chosen_of(&sizes), Some(vec![4, 5, 6, 7, 8]));
    assert_eq!(chosen_of(&[100 * MIB; 50]).unwrap().len(), 32);
    let wide = [
        ("min_threshold", "2"),
        ("bucket_high", "3"),
        ("max_threshold", "3"),
    ];
    let wide = strategy("SizeTieredCompactionStrategy", &wide);
    let sizes = [100, 200, 290, 300].map(|size| size * MIB);
    assert_eq!(chosen(&wide, &sized(&sizes)).unwrap().len(), 3);
    let mut busy = sized(&[MIB; 4]);
    busy[2].is_busy = true;
    assert_eq!(chosen(&default, &busy), None);
    let pending = |count| default.pending(&candidates(&sized(&vec![MIB; count])), &moment(0, 0));
    assert_eq!((pending(3), pending(4), pending(33)), (0, 1, 2));
}

#[test]
fn a_major_compaction_may_split_its_output() {
    let tiered = strategy("SizeTieredCompactionStrategy", &[]);
    let told = sized(&[100 * MIB, 300 * MIB]);
    assert_eq!(tiered.major(&candidates(&told), false)[0].output, Output::ONE);
    let cut = tiered.major(&candidates(&told), true)[0].output.cut;
    let halves = Cut::Halves {
        total: 400 * MIB,
        least: 50 * MIB,
    };
    assert_eq!(cut, halves);
}

#[test]
fn repaired_and_unrepaired_sstables_never_meet() {
    let tiered = strategy("SizeTieredCompactionStrategy", &[]);
    let mut told = sized(&[MIB; 6]);
    for at in [0, 2, 4] {
        told[at].statistics.repaired_at = 7;
    }
    assert_eq!(chosen(&tiered, &told), None);
    told.push(Told::new(MIB));
    assert_eq!(chosen(&tiered, &told), Some(vec![1, 3, 5, 6]));
    told[6].statistics.pending_repair = Some(Uuid::from_u128(1));
    assert_eq!(chosen(&tiered, &told), None);
    assert_eq!(tiered.major(&candidates(&told), false).len(), 3);
}

#[test]
fn an_sstable_of_old_tombstones_is_compacted_alone() {
    let default = strategy("SizeTieredCompactionStrategy", &[]);
    let many = Told::new(MIB).times(100, 200).tombstones(1000, 40);
    let few = Told::new(MIB).times(150, 300).tombstones(1000, 10);
    let chosen = |strategy: &Compacting, told: &[Told], now, gc_before| {
        let plan = strategy.next(&candidates(told), &moment(now, gc_before));
        plan.map(|plan| (plan.kind, plan.inputs))
    };
    let both = [few.clone(), many.clone()];
    let one = std::slice::from_ref(&many);
    let alone = |at| Some((Kind::Tombstones, vec![at]));
    assert_eq!(
        chosen(&default, &both, 2 * DAY, 2000),
        None,
        "older data elsewhere"
    );
    assert_eq!(chosen(&default, one, 2 * DAY, 2000), alone(0));
    assert_eq!(chosen(&default, one, DAY / 2, 2000), None, "too young");
    assert_eq!(chosen(&default, one, 2 * DAY, 900), None, "in gc grace");
    assert_eq!(chosen(&default, &[few], 2 * DAY, 2000), None, "too few");
    let unchecked = [("unchecked_tombstone_compaction", "true")];
    let unchecked = strategy("SizeTieredCompactionStrategy", &unchecked);
    assert_eq!(chosen(&unchecked, &both, 2 * DAY, 2000), alone(1));
    let repaired = [("only_purge_repaired_tombstones", "true")];
    let repaired = strategy("SizeTieredCompactionStrategy", &repaired);
    assert_eq!(chosen(&repaired, one, 2 * DAY, 2000), None);
    let windows = strategy("TimeWindowCompactionStrategy", &[]);
    assert_eq!(chosen(&windows, one, 2 * DAY, 2000), None, "not unless asked for");
    let partly = [
        many.clone().tokens(0, 100),
        Told::new(MIB).times(0, 10).tokens(90, 1000),
    ];
    assert_eq!(
        chosen(&default, &partly, 2 * DAY, 2000),
        alone(0),
        "most of it is free"
    );
}

#[test]
fn expired_sstables_are_dropped_when_they_shadow_nothing() {
    let windows = strategy(
        "TimeWindowCompactionStrategy",
        &[("expired_sstable_check_frequency_seconds", "0")],
    );
    let dead = |first, last| {
        Told::new(MIB)
            .times(first, last)
            .with(|statistics| statistics.max_expiry = 500)
    };
    let live = |first, last| Told::new(MIB).times(first, last);
    let dropped = |told: &[Told], moment: &Moment| {
        let plan = windows.next(&candidates(told), moment);
        plan.filter(|plan| plan.kind == Kind::Expired)
            .map(|plan| plan.inputs)
    };
    let now = moment(DAY, 1000);
    assert_eq!(dropped(&[dead(0, 10)], &now), Some(vec![0]));
    assert_eq!(dropped(&[dead(0, 10)], &moment(DAY, 400)), None, "in gc grace");
    assert_eq!(dropped(&[dead(0, 10), live(5, 20)], &now), None, "it shadows");
    assert_eq!(dropped(&[dead(0, 10), live(11, 20)], &now), Some(vec![0]));
    let apart = [dead(0, 10).tokens(0, 10), live(5, 20).tokens(11, 20)];
    assert_eq!(dropped(&apart, &now), Some(vec![0]), "other partitions");
    let writes = Moment {
        memtables_oldest: Timestamp(10),
        ..now
    };
    assert_eq!(
        dropped(&[dead(0, 10)], &writes),
        None,
        "a memtable has older data"
    );
    // The second stays because of the third, and so the first because of the second.
    let chain = [dead(0, 10), dead(8, 30), live(25, 90)];
    assert_eq!(dropped(&chain, &now), None);
    assert_eq!(
        dropped(&[dead(0, 10), dead(8, 20), live(25, 90)], &now),
        Some(vec![0, 1])
    );
}

#[test]
fn windows_are_not_mixed() {
    let pairs = [
        ("compaction_window_unit", "MINUTES"),
        ("timestamp_resolution", "SECONDS"),
        ("min_threshold", "2"),
    ];
    let of = TimeWindow::from_options(&options("TimeWindowCompactionStrategy", &pairs));
    let windows = strategy("TimeWindowCompactionStrategy", &pairs);
    // Two of an old window, three of the newest of different sizes.
    let told = [
        Told::new(MIB).times(0, 5),
        Told::new(900 * MIB).times(0, 59),
        Told::new(MIB).times(0, 61),
        Told::new(MIB).times(0, 65),
        Told::new(900 * MIB).times(0, 66),
    ];
    assert_eq!(chosen(&windows, &told), Some(vec![2, 3]));
    assert_eq!(
        chosen(
            &windows,
            &told[..2].iter().chain(&told[4..]).cloned().collect::<Vec<_>>()
        ),
        Some(vec![0, 1])
    );
    let mut dice = Dice::new(7);
    for _ in 0..300 {
        let told: Vec<Told> = (0..dice.below(30))
            .map(|_| Told::new(1 + dice.below(1 << 30)).times(0, dice.below(400) as i64))
            .collect();
        let candidates = candidates(&told);
        let plans = windows.next(&candidates, &moment(0, i64::MIN)).into_iter();
        for plan in plans.chain(windows.major(&candidates, false)) {
            let mut windows: Vec<i128> = plan
                .inputs
                .iter()
                .map(|at| of.window_of(&candidates[*at]))
                .collect();
            windows.dedup();
            assert_eq!(windows.len(), 1);
        }
    }
}

#[test]
fn leveled_compaction_moves_data_up() {
    let pairs = [("sstable_size_in_mb", "10"), ("fanout_size", "2")];
    let leveled = strategy("LeveledCompactionStrategy", &pairs);
    let plan = |told: &[Told]| next(&leveled, told).map(|plan| (plan.inputs, plan.kind, plan.output.level));
    let told = |size: u64, level, first, last| Told::new(size * MIB).level(level).tokens(first, last);
    // Little in level 0: nothing, then with itself; much: into level 1 with what it spans there.
    assert_eq!(plan(&[told(1, 0, 0, 9), told(1, 0, 0, 9)]), None);
    let small = [
        told(1, 0, 0, 9),
        told(1, 0, 0, 9),
        told(1, 0, 0, 9),
        told(1, 0, 0, 9),
    ];
    assert_eq!(plan(&small), Some((vec![0, 1, 2, 3], Kind::Compaction, 0)));
    let large = [
        told(8, 0, 0, 9),
        told(8, 0, 50, 59),
        told(10, 1, 20, 30),
        told(10, 1, 60, 70),
    ];
    assert_eq!(
        plan(&large),
        Some((vec![0, 1, 2], Kind::Compaction, 1)),
        "a gap is filled"
    );
    let mut busy = large.clone();
    busy[2].is_busy = true;
    assert_eq!(plan(&busy), None);
    // Level 1 is too large: one goes up, with what it overlaps; without it, it only moves.
    let full = [
        told(10, 1, 0, 9),
        told(10, 1, 10, 19),
        told(10, 1, 20, 29),
        told(10, 2, 5, 12),
    ];
    assert_eq!(plan(&full), Some((vec![0, 3], Kind::Compaction, 2)));
    assert_eq!(plan(&full), Some((vec![1, 3], Kind::Compaction, 2)), "in turn");
    assert_eq!(plan(&full), Some((vec![2], Kind::Level, 2)));
    // What overlaps in its level counts as of level 0.
    let of = Leveled::from_options(&options("LeveledCompactionStrategy", &pairs));
    let crossed = [told(10, 1, 0, 9), told(10, 1, 5, 19), told(10, 1, 20, 29)];
    let levels = of.levels(&candidates(&crossed));
    assert_eq!((&levels[0][..], &levels[1][..]), (&[1][..], &[0, 2][..]));
    let many: Vec<Told> = (0..40).map(|_| told(1, 0, 0, 9)).collect();
    assert_eq!(plan(&many).unwrap().0.len(), 32);
}

#[test]
fn incremental_compaction_counts_runs() {
    let incremental = strategy("IncrementalCompactionStrategy", &[("sstable_size_in_mb", "100")]);
    let fragment = |run: u128, first: i64| {
        let told = Told::new(20 * MIB).tokens(first * 100, first * 100 + 99);
        told.with(|statistics| statistics.run = Some(Uuid::from_u128(run)))
    };
    let runs = |count: u128, fragments: i64| -> Vec<Told> {
        (0..count)
            .flat_map(|run| (0..fragments).map(move |at| (run, at)))
            .map(|(run, at)| fragment(run, at))
            .collect()
    };
    assert_eq!(chosen(&incremental, &runs(3, 10)), None);
    let plan = next(&incremental, &runs(4, 10)).unwrap();
    assert_eq!(
        (plan.inputs.len(), plan.output.cut, plan.output.is_run),
        (40, Cut::Size(25 * MIB), true)
    );
    // No more runs at once than two fragments of space allow: nine of 20 MiB beside the output's own.
    let plan = next(&incremental, &runs(20, 10)).unwrap();
    assert_eq!(plan.inputs.len(), 90);
    let mut busy = runs(4, 10);
    busy[17].is_busy = true;
    assert_eq!(chosen(&incremental, &busy), None, "a run is busy as a whole");
    let goal = [("sstable_size_in_mb", "100"), ("space_amplification_goal", "1.5")];
    let goal = strategy("IncrementalCompactionStrategy", &goal);
    let mut told = runs(1, 40);
    told.extend(runs(2, 10).into_iter().skip(10));
    assert_eq!(chosen(&goal, &told), None, "a quarter more is fine");
    told.extend(runs(3, 25).into_iter().skip(50));
    assert!(chosen(&goal, &told).is_some());
}

#[test]
fn unified_compaction_levels_by_density() {
    let pairs = [
        ("scaling_parameters", "T4, L4, N"),
        ("flush_size_override", "10MiB"),
        ("target_sstable_size", "100MiB"),
        ("min_sstable_size", "0B"),
        ("sstable_growth", "0"),
    ];
    let of = Unified::from_options(&options("UnifiedCompactionStrategy", &pairs));
    let unified = strategy("UnifiedCompactionStrategy", &pairs);
    let quarter = |size: u64, at: i64| {
        let width = 1i64 << 62;
        let first = (at - 2) * width;
        Told::new(size * MIB).tokens(first, first + (width - 1))
    };
    // 10 MiB over a quarter of the ring is as dense as 40 MiB over all of it.
    let told = [
        Told::new(10 * MIB),
        quarter(10, 0),
        quarter(50, 1),
        Told::new(200 * MIB),
    ];
    let levels = of.levels(&candidates(&told), &moment(0, 0));
    assert_eq!(levels, vec![vec![0], vec![1], vec![2, 3]]);
    // T4 below: four of a place.
    let flushes = sized(&[10 * MIB; 4]);
    assert_eq!(chosen(&unified, &flushes[..3]), None);
    let plan = next(&unified, &flushes).unwrap();
    assert_eq!((plan.inputs.len(), plan.output.cut), (4, Cut::Parts(4)));
    // L4 above: two of a place; other places are left alone.
    let told = [quarter(10, 0), quarter(11, 0), quarter(10, 1), quarter(10, 2)];
    assert_eq!(chosen(&unified, &told), Some(vec![0, 1]));
    let parts = |density: f64| of.parts(density * MIB as f64);
    assert_eq!(
        (parts(1.0), parts(400.0), parts(700.0), parts(1600.0)),
        (4, 4, 8, 16)
    );
    let least = Unified::from_options(&options("UnifiedCompactionStrategy", &[]));
    let parts = |density: f64| least.parts(density * MIB as f64);
    assert_eq!(
        (parts(1.0), parts(150.0), parts(250.0), parts(5000.0)),
        (1, 1, 2, 4)
    );
    assert_eq!(
        parts(1024.0 * 32.0),
        16,
        "the third of three doublings goes into the size"
    );
}

#[test]
fn overlaps_are_found() {
    let told = |first, last| Told::new(10).tokens(first, last);
    let all = [
        told(0, 10),
        told(5, 20),
        told(11, 30),
        told(25, 40),
        told(50, 60),
        told(52, 53),
    ];
    let sets = overlap_sets(&candidates(&all), (0..6).collect());
    assert_eq!(sets, vec![vec![0, 1], vec![1, 2], vec![2, 3], vec![4, 5]]);
    assert_eq!(peak_overlap(candidates(&all).iter()), 20);
    assert_eq!(
        peak_overlap(candidates(&[told(0, 5), told(5, 9)]).iter()),
        20,
        "both have the token 5"
    );
}

#[test]
fn backlogs_shrink_as_work_is_done() {
    for (class, pairs) in [
        ("SizeTieredCompactionStrategy", &[][..]),
        ("LeveledCompactionStrategy", &[("sstable_size_in_mb", "10")][..]),
        ("IncrementalCompactionStrategy", &[][..]),
        (
            "UnifiedCompactionStrategy",
            &[("flush_size_override", "64MiB")][..],
        ),
    ] {
        let strategy = strategy(class, pairs);
        let backlog = |sizes: &[u64]| strategy.backlog(&candidates(&sized(sizes)), &moment(0, 0));
        let before = backlog(&[64 * MIB; 8]);
        let after = backlog(&[256 * MIB, 64 * MIB, 64 * MIB, 64 * MIB]);
        assert!(before > after, "{class}: {before} {after}");
        assert_eq!(backlog(&[]), 0.0, "{class}");
        let disabled = [("enabled", "false")];
        assert!(!Compacting::new(&options(class, &disabled)).common.is_enabled);
    }
}
