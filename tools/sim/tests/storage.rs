//! A fixed set of seeds of the storage simulation, and proof that a seed decides everything and that the checkers can
//! fail.
#![allow(missing_docs)]

use std::collections::BTreeSet;

use ceto_sim::storage::{Plan, Sabotage, Trouble, run};

/// Seeds from 1 on that every run of the tests takes.
const SEEDS: u64 = 40;
/// Seeds tried at most until a broken engine is found.
const SABOTAGE_SEEDS: u64 = 60;
/// Seeds that once found a defect, with what it was.
const REGRESSIONS: [(u64, &str); 7] = [
    (
        5,
        "a segment was released before it was synced, and later ones vouched for it",
    ),
    (17, "the same, with another number of shards"),
    (
        42,
        "a finished transaction came back after a power loss, of a shard that is no more",
    ),
    (
        38,
        "a truncation's record let go before a flush that was under way had ended",
    ),
    (551, "the same, after a power loss"),
    (
        411,
        "a truncation without space for its record failed halfway: memtables gone, sstables not",
    ),
    (788, "the same"),
];

fn assert_holds(seed: u64, plan: Plan) -> (u64, u64, u64) {
    println!("seed {seed}");
    let outcome = run(seed, plan);
    let violations: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
    assert!(
        violations.is_empty(),
        "ceto-sim --storage --seed {seed}: {violations:#?}"
    );
    (outcome.succeeded, outcome.failed, outcome.disk_failures)
}

#[test]
fn seeds_hold() {
    let (mut succeeded, mut failed, mut disk_failures) = (0, 0, 0);
    for seed in 1..=SEEDS {
        let (more, less, broken) = assert_holds(seed, Plan::default());
        succeeded += more;
        failed += less;
        disk_failures += broken;
    }
    // A workload that mostly fails, or a disk that never does, would prove nothing.
    assert!(succeeded > 45_000, "{succeeded} operations succeeded");
    assert!(failed > 900, "{failed} operations failed");
    assert!(disk_failures > 20, "{disk_failures} disk operations failed");
    assert!(
        succeeded > failed,
        "{failed} operations failed, {succeeded} succeeded"
    );
}

#[test]
fn seeds_that_found_a_defect_hold() {
    for (seed, _) in REGRESSIONS {
        // As they were then.
        let plan = Plan {
            pairs: Some(false),
            indexes: Some(false),
            ..Plan::default()
        };
        assert_holds(seed, plan);
    }
}

#[test]
fn writes_of_two_tables_are_there_in_both_or_in_none() {
    let pairs = Some(true);
    for seed in 1..=12 {
        let plan = Plan {
            pairs,
            ..Plan::default()
        };
        assert_holds(seed, plan);
    }
}

#[test]
fn a_seed_decides_everything() {
    let traces: BTreeSet<u64> = (1..=4)
        .map(|seed| {
            let outcome = run(seed, Plan::default());
            assert_eq!(outcome, run(seed, Plan::default()), "seed {seed}");
            outcome.trace
        })
        .collect();
    assert_eq!(traces.len(), 4, "seeds differ");
}

/// How many seeds it takes until the checker `wanted` notices that the engine is broken. The whole engine does
/// not trip it there.
fn seeds_until_tripped(sabotage: Sabotage, trouble: Option<Trouble>, wanted: u8) -> Option<u64> {
    let plan = Plan {
        trouble,
        pairs: Some(sabotage == Sabotage::SplitsPairs),
        indexes: Some(sabotage == Sabotage::LosesEntries),
        ..Plan::default()
    };
    (1..=SABOTAGE_SEEDS).find(|seed| {
        let broken = run(*seed, Plan { sabotage, ..plan });
        let found = broken.violations.iter().any(|found| found.checker == wanted);
        if found && trouble.is_some() {
            assert_eq!(run(*seed, plan).violations, [], "seed {seed}, {trouble:?}");
        }
        found
    })
}

#[test]
fn a_broken_engine_is_found() {
    let cases: [(Sabotage, Option<Trouble>, u8); 11] = [
        (Sabotage::SkipsLogSync, None, 7),
        (Sabotage::HoldsLog, None, 7),
        (Sabotage::IgnoresSyncErrors, Some(Trouble::FailedSyncs), 7),
        (Sabotage::SkipsFolderSync, None, 7),
        (Sabotage::SkipsSegment, None, 7),
        (Sabotage::LeavesInputs, None, 4),
        (Sabotage::SkipsTruncationRecord, None, 4),
        (Sabotage::AgesFast, None, 2),
        (Sabotage::SplitsPairs, None, 7),
        (Sabotage::LosesEntries, None, 2),
        (Sabotage::MixesFiles, None, 0),
    ];
    assert_eq!(cases.len(), Sabotage::ALL.len());
    for (sabotage, trouble, checker) in cases {
        let seeds = seeds_until_tripped(sabotage, trouble, checker);
        println!("{sabotage:?}: {seeds:?} seeds");
        assert!(seeds.is_some(), "{sabotage:?} never tripped checker {checker}");
    }
}
