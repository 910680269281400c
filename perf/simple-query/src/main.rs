//! What a prepared point read or write costs without sockets: instructions, allocations, operations per second.
//!
//! A whole node runs in memory; requests go in as the bytes of a frame, answers come out as bytes. `run` is the
//! benchmark, `once` one run of it under whatever profiler. Read next: `world` for what is and is not there, `measure`
//! for the method. See perf/README.md for how to read the figures.

mod allocator;
mod client;
mod measure;
mod workload;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use allocator::CountingAllocator;
use workload::{Operation, Workload};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Instructions, allocations and time of prepared point reads and writes, in process.
#[derive(Parser)]
#[command(name = "ceto-perf-simple-query", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot, load, run operations, end
    Once {
        /// What operations do
        #[arg(long, value_enum)]
        operation: Operation,
        /// Rows of the table
        #[arg(long, default_value_t = 10_000)]
        rows: u64,
        /// How many operations
        #[arg(long, default_value_t = 100_000)]
        operations: u64,
    },
    /// Measure, and print a JSON line per operation
    Run(measure::Arguments),
}

/// Exit status of a command that was used wrongly.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let result = match &arguments.command {
        Command::Once {
            operation,
            rows,
            operations,
        } => once(*operation, *rows, *operations),
        Command::Run(arguments) => measure::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ceto-perf-simple-query: {error}");
            ExitCode::FAILURE
        }
    }
}

fn once(operation: Operation, rows: u64, operations: u64) -> Result<(), String> {
    let cost = Workload::load(operation, rows)?.run(operations)?;
    let allocations = cost.allocations as f64 / operations.max(1) as f64;
    println!(
        "{} {:.0} op/s, {allocations:.2} allocations, {} waits",
        operation.name(),
        measure::rate(&cost),
        cost.waits
    );
    Ok(())
}
