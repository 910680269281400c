//! `ceto-sim [--serial | --storage] [--log] [--seed N] [--seeds COUNT]`: runs simulations, each twice when there is only
//! one, and says what broke. The cluster layer is simulated: reads and writes, or with `--serial` conditional updates; with
//! `--storage` the storage engine. `--log` shows what the engine logs on the way.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ceto_sim::{Violation, scenario, serial, storage};

/// Violations shown of a seed.
const SHOWN: usize = 10;

/// What both kinds of simulation say about a run.
struct Outcome {
    trace: u64,
    events: u64,
    succeeded: u64,
    failed: u64,
    violations: Vec<Violation>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cluster,
    Serial,
    Storage,
}

impl Kind {
    fn command(self) -> &'static str {
        match self {
            Kind::Cluster => "ceto-sim",
            Kind::Serial => "ceto-sim --serial",
            Kind::Storage => "ceto-sim --storage",
        }
    }
}

fn simulate(seed: u64, kind: Kind) -> Outcome {
    if kind == Kind::Storage {
        let outcome = storage::run(seed, storage::Plan::default());
        return Outcome {
            trace: outcome.trace,
            events: outcome.turns,
            succeeded: outcome.succeeded,
            failed: outcome.failed,
            violations: outcome.violations,
        };
    }
    let outcome = match kind {
        Kind::Serial => serial::run(seed, serial::SerialPlan::default()),
        _ => scenario::run(seed, scenario::Plan::default()),
    };
    Outcome {
        trace: outcome.trace,
        events: outcome.events,
        succeeded: outcome.succeeded,
        failed: outcome.failed,
        violations: outcome.violations,
    }
}

fn main() -> ExitCode {
    let (mut first, mut count, mut kind) = (1u64, 1u64, Kind::Cluster);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--storage" => {
                kind = Kind::Storage;
                continue;
            }
            "--serial" => {
                kind = Kind::Serial;
                continue;
            }
            "--log" => {
                show_log();
                continue;
            }
            _ => {}
        }
        let value = arguments.next().and_then(|text| text.parse().ok());
        match (name.as_str(), value) {
            ("--seed", Some(seed)) => first = seed,
            ("--seeds", Some(seeds)) => count = seeds,
            _ => {
                eprintln!("usage: ceto-sim [--serial | --storage] [--log] [--seed N] [--seeds COUNT]");
                return ExitCode::from(2);
            }
        }
    }
    let command = kind.command();
    let commit = option_env!("CETO_COMMIT").unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    println!("{command} {version}, commit {commit}, {count} seeds from {first}");
    let running = Arc::new(AtomicU64::new(first));
    name_seed_on_panic(running.clone(), command);
    let (mut failed, mut events) = (0, 0);
    for seed in first..first + count {
        running.store(seed, Ordering::Relaxed);
        let outcome = simulate(seed, kind);
        events += outcome.events;
        if count == 1 {
            println!(
                "seed {seed}: trace {:016x}, {} events, {} requests succeeded, {} failed",
                outcome.trace, outcome.events, outcome.succeeded, outcome.failed
            );
            let again = simulate(seed, kind);
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
            println!("seed {seed}: FAILED, replay with: {command} --seed {seed}");
            let shown = outcome.violations.iter().take(SHOWN);
            shown.for_each(|violation| println!("  {violation}"));
        }
    }
    println!("{count} seeds, {events} events, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn show_log() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .init();
}

/// An assertion names the seed that broke it.
fn name_seed_on_panic(running: Arc<AtomicU64>, command: &'static str) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let seed = running.load(Ordering::Relaxed);
        println!("seed {seed}: PANIC, replay with: {command} --seed {seed}");
        report(panic);
    }));
}
