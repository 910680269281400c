//! The whole benchmark: instructions from a run under callgrind, the rest from runs without it.
//!
//! Callgrind counts only within [`Workload::run`]: boot and load are in neither the figure nor the profile.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::workload::{Cost, Operation, Workload};

/// Operations under callgrind: enough that what happens once per commitlog segment is spread as it is in the long run.
const COUNTED_OPERATIONS: u64 = 100_000;
/// The function that callgrind counts within.
const COUNTED_FUNCTION: &str = "*workload::Workload::run*";
/// Operations before those that are timed.
const WARM_UP: u64 = 50_000;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What operations do; both by default
    #[arg(long, value_enum)]
    operation: Option<Operation>,
    /// Rows of the table
    #[arg(long, default_value_t = 10_000)]
    rows: u64,
    /// Times that the throughput is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Operations of each
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    operations: u64,
    /// Folder where callgrind.OPERATION.out, the profile of the operations, is left; see callgrind_annotate
    #[arg(long)]
    profiles: Option<PathBuf>,
    /// Without instructions
    #[arg(long)]
    no_instructions: bool,
}

/// Runs everything; a JSON line per operation goes to stdout, the rest to stderr.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let operations = arguments
        .operation
        .map_or(vec![Operation::Read, Operation::Write], |one| vec![one]);
    operations
        .into_iter()
        .try_for_each(|operation| measure(arguments, operation))
}

fn measure(arguments: &Arguments, operation: Operation) -> Result<(), String> {
    let name = operation.name();
    let instructions = match arguments.no_instructions {
        true => None,
        false => Some(instructions_per_operation(arguments, operation)?),
    };
    let mut workload = Workload::load(operation, arguments.rows)?;
    workload.run(WARM_UP.min(arguments.operations))?;
    let costs: Vec<Cost> = (0..arguments.rounds)
        .map(|_| workload.run(arguments.operations))
        .collect::<Result<_, _>>()?;
    let total: u64 = costs.iter().map(|cost| cost.operations).sum();
    let per_operation = |figure: fn(&Cost) -> u64| {
        let sum: u64 = costs.iter().map(figure).sum();
        (sum as f64 / total as f64 * 1000.0).round() / 1000.0
    };
    let mut rates: Vec<f64> = costs.iter().map(rate).collect();
    rates.sort_by(f64::total_cmp);
    let median = (rates[(rates.len() - 1) / 2] + rates[rates.len() / 2]) / 2.0;
    let (low, high) = (rates[0], rates[rates.len() - 1]);
    let allocations = per_operation(|cost| cost.allocations);
    let line = json!({
        "benchmark": "simple-query",
        "workload": name,
        "rows": arguments.rows,
        "rounds": arguments.rounds,
        "instructions_per_operation": instructions,
        "allocations_per_operation": allocations,
        "allocated_bytes_per_operation": per_operation(|cost| cost.allocated_bytes),
        "waits_per_operation": per_operation(|cost| cost.waits),
        "operations_per_second": {"median": median.round(), "low": low.round(), "high": high.round()},
    });
    println!("{line}");
    let instructions = instructions.map_or("-".to_owned(), |count| count.to_string());
    eprintln!(
        "{name:6} {instructions} instructions, {allocations} allocations, {median:.0} op/s ({low:.0} to {high:.0})"
    );
    Ok(())
}

/// Operations per second.
pub(crate) fn rate(cost: &Cost) -> f64 {
    cost.operations as f64 / cost.time.as_secs_f64()
}

fn instructions_per_operation(arguments: &Arguments, operation: Operation) -> Result<u64, String> {
    let temporary =
        tempfile::tempdir().map_err(|error| format!("cannot create a temporary folder: {error}"))?;
    let name = format!("callgrind.{}.out", operation.name());
    let profile = match &arguments.profiles {
        Some(folder) => folder.join(name),
        None => temporary.path().join(name),
    };
    Ok(callgrind(arguments.rows, operation, &profile)? / COUNTED_OPERATIONS)
}

/// Instructions of the operations of a run of `once`.
fn callgrind(rows: u64, operation: Operation, profile: &Path) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={COUNTED_FUNCTION}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["once", "--operation", operation.name()])
        .args([
            "--rows",
            &rows.to_string(),
            "--operations",
            &COUNTED_OPERATIONS.to_string(),
        ])
        .output()
        .map_err(|error| format!("cannot start valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind failed: {text}"));
    }
    match collected(&text) {
        Some(count) if count > 0 => Ok(count),
        _ => Err(format!(
            "valgrind has counted nothing within {COUNTED_FUNCTION}: {text}"
        )),
    }
}

/// The number behind `Collected :` in what callgrind prints.
fn collected(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found() {
        let text =
            "==1== Events    : Ir\n==1== Collected : 1234567\n==1== \n==1== I   refs:      1,234,567\n";
        assert_eq!(collected(text), Some(1_234_567));
        assert_eq!(collected("==1== "), None);
    }
}
