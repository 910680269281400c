//! The storage engine of one shard beside RocksDB and fjall: same keys, values, compression, block size, memory and
//! durability, one process each, all of its threads on one core, workload by workload in turns.
//!
//! `run` is the benchmark; `once` runs workloads on one engine in this process, for profilers; `check` is a small run
//! of our own side that must succeed. Read next: `benchmark` for the workloads, `ceto` and `blocking` for the engines.

mod allocator;
mod benchmark;
#[cfg(any(feature = "rocksdb", feature = "fjall"))]
mod blocking;
mod ceto;
mod child;
mod cost;
mod figures;
mod latency;
mod once;
mod protocol;
mod rows;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: allocator::CountingAllocator = allocator::CountingAllocator;

/// The storage engine beside RocksDB and fjall.
#[derive(Parser)]
#[command(name = "ceto-perf-storage", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and print a JSON line per workload
    Run(benchmark::Arguments),
    /// Load rows and run one workload on one engine, for a profiler
    Once(once::Arguments),
    /// A small run of our own side
    Check {
        /// Folder for data
        #[arg(long)]
        folder: std::path::PathBuf,
    },
    /// An engine's process; started by `run`
    #[command(hide = true)]
    Serve,
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
        Command::Run(arguments) => benchmark::run(arguments),
        Command::Once(arguments) => once::run(arguments),
        Command::Check { folder } => benchmark::run(&benchmark::Arguments {
            rows: 20_000,
            value_sizes: vec![100, 1024],
            rounds: 1,
            engines: vec![protocol::Engine::Ceto],
            workloads: Vec::new(),
            block_kib: 4,
            compaction: "SizeTieredCompactionStrategy".to_owned(),
            row_cache_part: 0.5,
            compaction_throughput_mib: 0,
            core: 0,
            all_cores: true,
            folder: folder.clone(),
        }),
        Command::Serve => child::serve(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ceto-perf-storage: {error}");
            ExitCode::FAILURE
        }
    }
}
