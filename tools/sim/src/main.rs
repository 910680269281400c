//! `ceto-sim [--seed N] [--seeds COUNT]`: runs simulations, each twice when there is only one, and says what broke.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ceto_sim::scenario::{Plan, run};

fn main() -> ExitCode {
    let (mut first, mut count) = (1u64, 1u64);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|text| text.parse().ok());
        match (name.as_str(), value) {
            ("--seed", Some(seed)) => first = seed,
            ("--seeds", Some(seeds)) => count = seeds,
            _ => {
                eprintln!("usage: ceto-sim [--seed N] [--seeds COUNT]");
                return ExitCode::from(2);
            }
        }
    }
    let commit = option_env!("CETO_COMMIT").unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    println!("ceto-sim {version}, commit {commit}, {count} seeds from {first}");
    let running = Arc::new(AtomicU64::new(first));
    name_seed_on_panic(running.clone());
    let (mut failed, mut events) = (0, 0);
    for seed in first..first + count {
        running.store(seed, Ordering::Relaxed);
        let outcome = run(seed, Plan::default());
        events += outcome.events;
        if count == 1 {
            let again = run(seed, Plan::default());
            println!(
                "seed {seed}: trace {:016x}, {} events, {} requests succeeded, {} failed",
                outcome.trace, outcome.events, outcome.succeeded, outcome.failed
            );
            if again.trace != outcome.trace {
                println!(
                    "seed {seed}: NOT DETERMINISTIC, the second run's trace is {:016x}",
                    again.trace
                );
                failed += 1;
            }
        }
        if !outcome.violations.is_empty() {
            failed += 1;
            println!("seed {seed}: FAILED, replay with: ceto-sim --seed {seed}");
            outcome
                .violations
                .iter()
                .take(10)
                .for_each(|violation| println!("  {violation}"));
        }
    }
    println!("{count} seeds, {events} events, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A core's assertion names the seed that broke it.
fn name_seed_on_panic(running: Arc<AtomicU64>) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let seed = running.load(Ordering::Relaxed);
        println!("seed {seed}: PANIC, replay with: ceto-sim --seed {seed}");
        report(panic);
    }));
}
