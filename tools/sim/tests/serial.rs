//! Conditional updates: a fixed set of seeds, and proof that broken acceptors are found.
#![allow(missing_docs)]

use std::time::Duration;

use ceto_cluster::paxos::AcceptorRule;
use ceto_sim::serial::{SerialPlan, run};

#[test]
fn histories_are_linearizable() {
    let (mut succeeded, mut failed) = (0, 0);
    for seed in 1..=150 {
        println!("seed {seed}");
        let outcome = run(seed, SerialPlan::default());
        assert!(
            outcome.violations.is_empty(),
            "ceto-sim --serial --seed {seed}: {}",
            outcome.violations[0]
        );
        succeeded += outcome.succeeded;
        failed += outcome.failed;
    }
    println!("{succeeded} operations succeeded, {failed} failed");
    // A workload that mostly fails, or a nemesis that does nothing, would prove nothing.
    assert!(succeeded > 18_000, "{succeeded} operations succeeded");
    assert!(failed > 2_000, "{failed} operations failed");
    assert!(
        succeeded > failed,
        "{failed} operations failed, {succeeded} succeeded"
    );
}

#[test]
fn a_seed_decides_everything() {
    for seed in 1..=5 {
        let outcome = run(seed, SerialPlan::default());
        assert_eq!(outcome, run(seed, SerialPlan::default()), "seed {seed}");
    }
}

/// Seeds of the first so many that find acceptors which follow `rule`.
fn found(rule: AcceptorRule, seeds: u64) -> usize {
    let plan = SerialPlan {
        load: Duration::from_secs(5),
        rule,
        ..SerialPlan::default()
    };
    (1..=seeds)
        .filter(|seed| {
            run(*seed, plan)
                .violations
                .iter()
                .any(|violation| violation.checker == 9)
        })
        .count()
}

#[test]
fn broken_acceptors_are_found() {
    let rules = [
        AcceptorRule::AcceptsBelowPromise,
        AcceptorRule::HidesAccepted,
        AcceptorRule::HidesCommitted,
        AcceptorRule::ForgetsState,
        AcceptorRule::SkipsApply,
    ];
    for rule in rules {
        let found = found(rule, 40);
        println!("{rule:?}: {found} seeds of 40");
        assert!(found > 0, "{rule:?} was not found");
    }
}
