//! The whole benchmark: rounds of all workloads, each workload on one engine after the other.

use std::path::PathBuf;

use serde_json::json;

use crate::child::EngineProcess;
use crate::figures::{Rounds, figures_of};
use crate::protocol::{Command, Durability, Engine, PARTITION_ROWS, Report, Setup};
use crate::rows::KEY_SIZE;

/// Large partitions, at most.
const PARTITIONS_MAX: u64 = 1000;
const COST: [&str; 2] = ["operations_per_second", "cpu_us_per_operation"];
const READ: [&str; 3] = [
    "operations_per_second",
    "cpu_us_per_operation",
    "read_amplification",
];
const WRITE: [&str; 6] = [
    "operations_per_second",
    "accepted_per_second",
    "cpu_us_per_operation",
    "write_amplification",
    "read_amplification",
    "space_amplification",
];
const TAIL: [&str; 6] = [
    "p50_us_idle",
    "p99_us_idle",
    "p50_us_compacting",
    "p99_us_compacting",
    "p99_ratio",
    "reads_compacting",
];
const THROUGHPUT: [&str; 8] = [
    "flush_mib_per_cpu_second",
    "compaction_mib_per_cpu_second",
    "bare_mib_per_cpu_second",
    "flush_mib_per_second",
    "compaction_mib_per_second",
    "bare_mib_per_second",
    "flush_over_bare",
    "compaction_over_bare",
];

/// Arguments of `run`.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Rows with the smallest values; with larger values so many that the bytes are the same
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub(crate) rows: u64,
    /// Bytes of a value; several may be given
    #[arg(long, value_delimiter = ',', default_value = "100,1024")]
    pub(crate) value_sizes: Vec<usize>,
    /// Times that everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Who takes part
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ceto,rocksdb,fjall")]
    pub(crate) engines: Vec<Engine>,
    /// Workloads, by the beginnings of their names; all by default
    #[arg(long, value_delimiter = ',')]
    pub(crate) workloads: Vec<String>,
    /// KiB of a block before compression
    #[arg(long, default_value_t = 4)]
    pub(crate) block_kib: usize,
    /// Our table's compaction strategy
    #[arg(long, default_value = "SizeTieredCompactionStrategy")]
    pub(crate) compaction: String,
    /// Part of the cache that our engine keeps rows in; the rest is for blocks
    #[arg(long, default_value_t = 0.5)]
    pub(crate) row_cache_part: f64,
    /// MiB per second that compactions may write, ours and RocksDB's; 0: no limit
    #[arg(long, default_value_t = 0)]
    pub(crate) compaction_throughput_mib: u64,
    /// The core that each engine runs on, all its threads
    #[arg(long, default_value_t = 1)]
    pub(crate) core: usize,
    /// Engines may use every core
    #[arg(long, conflicts_with = "core")]
    pub(crate) all_cores: bool,
    /// Folder for data, on the disk to be measured; what the benchmark makes in it is removed
    #[arg(long)]
    pub(crate) folder: PathBuf,
}

/// One step of a round: a name when it is measured, and what figures count.
struct Step {
    name: Option<&'static str>,
    /// When it is not measured: the workloads that need it. Empty: all do.
    serves: &'static [&'static str],
    figures: &'static [&'static str],
    command: Command,
    engines: Option<Engine>,
}

fn silent(command: Command) -> Step {
    Step {
        name: None,
        serves: &[],
        figures: &[],
        command,
        engines: None,
    }
}

/// As [`silent`], for some workloads only.
fn ahead_of(serves: &'static [&'static str], command: Command) -> Step {
    Step {
        serves,
        ..silent(command)
    }
}

fn measured(name: &'static str, figures: &'static [&'static str], command: Command) -> Step {
    Step {
        name: Some(name),
        serves: &[],
        figures,
        command,
        engines: None,
    }
}

/// Runs everything; a JSON line per workload goes to stdout, the rest to stderr.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let smallest = arguments.value_sizes.iter().copied().min().unwrap_or(100);
    for value_size in &arguments.value_sizes {
        let rows = arguments.rows * (KEY_SIZE + smallest) as u64 / (KEY_SIZE + value_size) as u64;
        run_size(arguments, rows, *value_size)?;
    }
    Ok(())
}

fn run_size(arguments: &Arguments, rows: u64, value_size: usize) -> Result<(), String> {
    let mut results: Vec<(&'static str, &'static [&'static str], Rounds)> = Vec::new();
    for round in 0..arguments.rounds {
        let setups = setups(arguments, rows, value_size);
        let mut processes = setups
            .iter()
            .map(EngineProcess::start)
            .collect::<Result<Vec<_>, _>>()?;
        for step in steps(arguments, rows, value_size, u64::from(round)) {
            // Who begins changes from round to round.
            let count = processes.len();
            for turn in 0..count {
                let process = &mut processes[(turn + round as usize) % count];
                if step.engines.is_some_and(|only| only != process.engine) {
                    continue;
                }
                let report = process.run(&step.command)?;
                let Some(name) = step.name else { continue };
                note(process.engine, name, &report, rows, value_size);
                let at = results
                    .iter()
                    .position(|(known, ..)| *known == name)
                    .unwrap_or_else(|| {
                        results.push((name, step.figures, Rounds::default()));
                        results.len() - 1
                    });
                results[at]
                    .2
                    .add(process.engine, derived(figures_of(&report, rows, value_size)));
            }
        }
        processes.into_iter().try_for_each(EngineProcess::end)?;
        for setup in &setups {
            std::fs::remove_dir_all(&setup.folder)
                .map_err(|error| format!("cannot remove {}: {error}", setup.folder.display()))?;
        }
    }
    for (name, figures, rounds) in results {
        let mut line = json!({
            "benchmark": "storage",
            "workload": name,
            "rows": rows,
            "value_bytes": value_size,
            "block_kib": arguments.block_kib,
            "compaction": arguments.compaction,
            "row_cache_part": arguments.row_cache_part,
            "compaction_throughput_mib": arguments.compaction_throughput_mib,
            "rounds": arguments.rounds,
            "cores": if arguments.all_cores { serde_json::Value::Null } else { json!(1) },
        });
        if let Some(line) = line.as_object_mut() {
            line.extend(rounds.summary(figures));
        }
        println!("{line}");
    }
    Ok(())
}

/// Figures made of others.
fn derived(mut figures: crate::figures::Figures) -> crate::figures::Figures {
    let quotient = |figures: &crate::figures::Figures, over: &str, under: &str| {
        Some(figures.get(over)? / figures.get(under)?)
    };
    for (name, over, under) in [
        ("p99_ratio", "p99_us_compacting", "p99_us_idle"),
        (
            "flush_over_bare",
            "flush_mib_per_cpu_second",
            "bare_mib_per_cpu_second",
        ),
        (
            "compaction_over_bare",
            "compaction_mib_per_cpu_second",
            "bare_mib_per_cpu_second",
        ),
    ] {
        if let Some(value) = quotient(&figures, over, under) {
            figures.insert(name.to_owned(), value);
        }
    }
    figures
}

fn note(engine: Engine, name: &str, report: &Report, rows: u64, value_size: usize) {
    let figures = derived(figures_of(report, rows, value_size));
    let shown = |name: &str| figures.get(name).map(|value| format!(" {name} {value:.3}"));
    let extra: String = TAIL
        .iter()
        .chain(&THROUGHPUT)
        .filter_map(|name| shown(name))
        .collect();
    let get = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    eprintln!(
        "{value_size:5} {name:14} {:8} {:>9.0}/s {:>8.2} us cpu  write {:.2} read {:.2} space {:.2}{extra}",
        engine.name(),
        get("operations_per_second"),
        get("cpu_us_per_operation"),
        get("write_amplification"),
        get("read_amplification"),
        get("space_amplification"),
    );
}

fn setups(arguments: &Arguments, rows: u64, value_size: usize) -> Vec<Setup> {
    let data_size = rows as usize * (KEY_SIZE + value_size);
    let setup = |engine: &Engine| Setup {
        engine: *engine,
        folder: arguments
            .folder
            .join(format!("{}-{}", engine.name(), std::process::id())),
        core: (!arguments.all_cores).then_some(arguments.core),
        rows,
        value_size,
        block_size: arguments.block_kib << 10,
        memtable_size: (data_size / 12).clamp(4 << 20, 128 << 20),
        row_cache_part: arguments.row_cache_part,
        compaction_throughput: arguments.compaction_throughput_mib << 20,
        compaction: arguments.compaction.clone(),
    };
    arguments.engines.iter().map(setup).collect()
}

fn steps(arguments: &Arguments, rows: u64, value_size: usize, seed: u64) -> Vec<Step> {
    let data_size = rows as usize * (KEY_SIZE + value_size);
    let open = |cache_size, durability| {
        silent(Command::Open {
            cache_size,
            durability,
        })
    };
    let kernel = Durability::Kernel;
    let reads = (rows / 2).clamp(1000, 1_000_000);
    let disk_reads = (rows / 20).clamp(1000, 100_000);
    let scans = (rows / 2000).clamp(20, 1000);
    // Nineteen rows of twenty.
    let fill = rows * 3;
    let read = |operations, in_flight| Command::Read {
        operations,
        seed: seed * 1000,
        in_flight,
    };
    let scan = Command::Scan {
        operations: scans,
        rows: 1000,
        seed,
    };
    // So many that every partition is cached when it is measured.
    let partitions = (rows / PARTITION_ROWS).clamp(1, PARTITIONS_MAX);
    let scan_partitions = Command::ScanPartitions {
        operations: partitions * 4,
        partitions,
        seed,
    };
    let all = vec![
        open(data_size / 10, kernel),
        measured("load", &WRITE, Command::Load { from: 0, to: rows }),
        silent(Command::Close),
        // Enough for everything in every form.
        open(data_size * 12, kernel),
        ahead_of(&["read-cached", "scan-cached"], read(fill, 32)),
        ahead_of(&["read-cached"], read(reads / 4, 1)),
        measured("read-cached", &COST, read(reads, 1)),
        // The same scans before, so that what they take is cached in the form that scans want it in.
        ahead_of(&["scan-cached"], scan.clone()),
        measured("scan-cached", &COST, scan.clone()),
        silent(Command::Close),
        open(data_size / 10, kernel),
        ahead_of(
            &["read-disk", "read-disk-16", "scan-disk", "tail"],
            read(disk_reads, 16),
        ),
        measured("read-disk", &READ, read(disk_reads / 2, 1)),
        measured("read-disk-16", &READ, read(disk_reads, 16)),
        measured("scan-disk", &READ, scan),
        measured(
            "tail",
            &TAIL,
            Command::Tail {
                rate: 2000,
                seconds: 3,
                seed,
            },
        ),
        measured(
            "overwrite",
            &WRITE,
            Command::Overwrite {
                operations: rows * 2,
                seed,
            },
        ),
        silent(Command::Close),
        open(data_size / 10, Durability::Device),
        measured(
            "synced-1",
            &COST,
            Command::Write {
                operations: disk_reads / 20,
                seed,
                in_flight: 1,
            },
        ),
        measured(
            "synced-32",
            &COST,
            Command::Write {
                operations: disk_reads,
                seed,
                in_flight: 32,
            },
        ),
        silent(Command::Close),
        // Large partitions, which would change what the workloads above compact.
        open(data_size * 12, kernel),
        ahead_of(
            &["scan-partitions-cached"],
            Command::LoadPartitions { partitions },
        ),
        ahead_of(&["scan-partitions-cached"], scan_partitions.clone()),
        measured("scan-partitions-cached", &COST, scan_partitions),
        silent(Command::Close),
        Step {
            engines: Some(Engine::Ceto),
            ..measured(
                "throughput",
                &THROUGHPUT,
                Command::Throughput {
                    rows: rows.min(2_000_000),
                },
            )
        },
    ];
    let is_named = |name: &str| {
        let wanted = &arguments.workloads;
        name == "load" || wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
    };
    let is_wanted = |step: &Step| match step.name {
        Some(name) => is_named(name),
        None => step.serves.is_empty() || step.serves.iter().any(|name| is_named(name)),
    };
    all.into_iter().filter(is_wanted).collect()
}
