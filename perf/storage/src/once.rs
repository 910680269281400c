//! One engine in this process: loads rows, then runs one workload; for a profiler.
//!
//! `valgrind --tool=callgrind --toggle-collect='*Client*put*'` (or `*read_one*`, `*scan*`) counts only the operations.

use std::path::PathBuf;

use crate::child::perform_all;
use crate::cost::pin;
use crate::protocol::{Answer, Command, Durability, Engine, Report, Setup};
use crate::rows::KEY_SIZE;

/// What is run after the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Workload {
    /// Nothing.
    Load,
    Read,
    Scan,
    Overwrite,
    Throughput,
    Tail,
}

/// Arguments of `once`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, value_enum, default_value = "ceto")]
    engine: Engine,
    #[arg(long, value_enum, default_value = "load")]
    workload: Workload,
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
    #[arg(long, default_value_t = 100)]
    value_size: usize,
    #[arg(long, default_value_t = 4)]
    block_kib: usize,
    #[arg(long, default_value_t = 200_000)]
    operations: u64,
    #[arg(long, default_value_t = 1)]
    in_flight: u32,
    /// Part of the data that the cache may hold
    #[arg(long, default_value_t = 4.0)]
    cache: f64,
    /// Part of the cache that our engine keeps rows in
    #[arg(long, default_value_t = 0.5)]
    row_cache_part: f64,
    /// MiB of memory for memtables
    #[arg(long, default_value_t = 16)]
    memtable_mib: usize,
    /// MiB per second that compactions may write, ours and RocksDB's; 0: no limit
    #[arg(long, default_value_t = 0)]
    compaction_throughput_mib: u64,
    /// Times that the workload is run
    #[arg(long, default_value_t = 1)]
    times: u32,
    #[arg(long)]
    core: Option<usize>,
    #[arg(long, default_value = "SizeTieredCompactionStrategy")]
    compaction: String,
    /// Folder for data; it must not exist, and is removed
    #[arg(long)]
    folder: PathBuf,
}

/// Runs it, and says what it cost.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    if let Some(core) = arguments.core {
        pin(core)?;
    }
    let setup = Setup {
        engine: arguments.engine,
        folder: arguments.folder.clone(),
        core: arguments.core,
        rows: arguments.rows,
        value_size: arguments.value_size,
        block_size: arguments.block_kib << 10,
        memtable_size: arguments.memtable_mib << 20,
        row_cache_part: arguments.row_cache_part,
        compaction_throughput: arguments.compaction_throughput_mib << 20,
        compaction: arguments.compaction.clone(),
    };
    std::fs::create_dir(&setup.folder)
        .map_err(|error| format!("cannot make {}: {error}", setup.folder.display()))?;
    let data_size = setup.rows as f64 * (KEY_SIZE + setup.value_size) as f64;
    let (operations, in_flight) = (arguments.operations, arguments.in_flight);
    let open = Command::Open {
        cache_size: (data_size * arguments.cache) as usize,
        durability: Durability::Kernel,
    };
    let mut commands = vec![
        open,
        Command::Load {
            from: 0,
            to: setup.rows,
        },
    ];
    for seed in 0..u64::from(arguments.times) {
        commands.extend(match arguments.workload {
            Workload::Load => vec![],
            Workload::Read => vec![
                Command::Read {
                    operations,
                    seed,
                    in_flight,
                },
                Command::Read {
                    operations,
                    seed,
                    in_flight,
                },
            ],
            Workload::Scan => vec![Command::Scan {
                operations,
                rows: 1000,
                seed,
            }],
            Workload::Overwrite => vec![Command::Overwrite { operations, seed }],
            Workload::Throughput => vec![Command::Throughput { rows: setup.rows }],
            Workload::Tail => vec![Command::Tail {
                rate: 2000,
                seconds: 3,
                seed,
            }],
        });
    }
    commands.push(Command::Close);
    let mut outcome = Ok(());
    perform_all(setup.clone(), |perform| {
        for command in commands {
            match perform(command.clone()) {
                Answer::Done(report) => show(&command, &report, &setup),
                Answer::Failed(error) => {
                    outcome = Err(error);
                    return;
                }
            }
        }
    })?;
    std::fs::remove_dir_all(&setup.folder)
        .map_err(|error| format!("cannot remove {}: {error}", setup.folder.display()))?;
    outcome
}

fn show(command: &Command, report: &Report, setup: &Setup) {
    if report.operations == 0 && report.figures.is_empty() {
        return;
    }
    let figures = crate::figures::figures_of(report, setup.rows, setup.value_size);
    let text: Vec<String> = figures
        .iter()
        .map(|(name, value)| format!("{name} {value:.3}"))
        .collect();
    println!("{command:?}: {}", text.join(", "));
}
