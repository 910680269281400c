//! A fixed set of seeds, and proof that a seed decides everything and that the checkers can fail.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use ceto_sim::ReplicaFault;
use ceto_sim::scenario::{Plan, run};
use ceto_sim::world::PumpFault;

#[test]
fn seeds_hold() {
    let (mut succeeded, mut failed) = (0, 0);
    for seed in 1..=150 {
        println!("seed {seed}");
        let outcome = run(seed, Plan::default());
        assert!(
            outcome.violations.is_empty(),
            "ceto-sim --seed {seed}: {}",
            outcome.violations[0]
        );
        succeeded += outcome.succeeded;
        failed += outcome.failed;
    }
    // A workload that mostly fails, or a nemesis that does nothing, would prove nothing.
    assert!(succeeded > 50_000, "{succeeded} requests succeeded");
    assert!(failed > 10_000, "{failed} requests failed");
    assert!(
        succeeded > failed,
        "{failed} requests failed, {succeeded} succeeded"
    );
}

#[test]
fn a_seed_decides_everything() {
    let traces: BTreeSet<u64> = (1..=5)
        .map(|seed| {
            let outcome = run(seed, Plan::default());
            assert_eq!(outcome, run(seed, Plan::default()), "seed {seed}");
            outcome.trace
        })
        .collect();
    assert_eq!(traces.len(), 5, "seeds differ");
}

/// The checkers that some seed of a few trips when something is broken on purpose.
fn tripped(replica_fault: ReplicaFault, pump_fault: PumpFault) -> BTreeSet<u8> {
    let plan = Plan {
        load: Duration::from_secs(5),
        replica_fault,
        pump_fault,
        ..Plan::default()
    };
    let outcomes = (1..=12).map(|seed| run(seed, plan));
    outcomes
        .flat_map(|outcome| outcome.violations)
        .map(|violation| violation.checker)
        .collect()
}

#[test]
fn broken_replicas_are_found() {
    let cases = [
        (ReplicaFault::LosesWrites, vec![1, 3]),
        (ReplicaFault::AppliesLate, vec![1]),
        (ReplicaFault::ForgetsAtCrash, vec![1]),
        (ReplicaFault::ReadsThePast, vec![1, 2]),
        (ReplicaFault::LastArrivalWins, vec![1, 3]),
        (ReplicaFault::IgnoresDeletions, vec![1, 3]),
        (ReplicaFault::CorruptsValues, vec![2]),
    ];
    for (fault, checkers) in cases {
        let tripped = tripped(fault, PumpFault::None);
        for checker in checkers {
            assert!(tripped.contains(&checker), "{fault:?} tripped only {tripped:?}");
        }
    }
}

#[test]
fn a_broken_pump_is_found() {
    let cases = [
        (PumpFault::DropsReplies, 6),
        (PumpFault::RepliesTwice, 6),
        (PumpFault::ForgesAcks, 1),
    ];
    for (fault, checker) in cases {
        let tripped = tripped(ReplicaFault::None, fault);
        assert!(tripped.contains(&checker), "{fault:?} tripped only {tripped:?}");
    }
    assert_eq!(
        tripped(ReplicaFault::None, PumpFault::None),
        BTreeSet::new(),
        "and what is whole is not"
    );
}
