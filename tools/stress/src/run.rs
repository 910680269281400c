//! From the words of a command line to an exit code: set up, warm up, run, report.

use std::ffi::OsString;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::cluster::Cluster;
use crate::options::{Operation, Options, parse};
use crate::report::{self, Progress};
use crate::worker::{Phase, Worker};

const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
const MISUSE: u8 = 2;
/// Operations of a warm-up at most.
const WARM_UP_OPERATIONS: u64 = 50_000;
/// A warm-up is at most this part of the run.
const WARM_UP_PART: u64 = 4;

const HELP: &str = "\
ceto stress: a load generator with cassandra-stress's words

Usage: ceto stress <command> [word...] [-option word...]...

Commands
  write | read | mixed | counter_write | counter_read | help

Words of a command
  n=1M               operations (K, M, B)       duration=10m      run for a time (s, m, h)
  cl=LOCAL_ONE       consistency level          no-warmup         do not warm up
  truncate=once      empty the table first      ratio(write=1,read=3)   of mixed

Options
  -rate threads=50 fixed=10000/s     at a fixed rate; latency counts from the intended start
        threads=50 throttle=10000/s  at most this rate; latency counts from the sending
  -pop seq=1..1M | dist=uniform(1..1M) | dist=gaussian(1..1M[,deviations | ,mean,deviation]) | dist=exp(1..1M)
  -node HOST,HOST [port=9042]        -port native=9042
  -schema \"replication(strategy=SimpleStrategy,factor=1) keyspace=keyspace1 compaction(...) compression=...\"
  -col n=5 size=34                   -log interval=1s
  -mode native protocolVersion=4 compression=lz4 connectionsPerShard=1 workers=1
  -errors retries=10 ignore
";

/// Runs one command line: `arguments` is what follows the word `stress`. Prints its tables to standard output and
/// returns the exit code: 0 done, 1 failed, 2 the command line is wrong.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<String> = arguments
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if matches!(
        words.first().map(String::as_str),
        Some("help" | "-help" | "--help" | "-h")
    ) {
        say(HELP);
        return SUCCESS;
    }
    let options = match parse(&words) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("stress: {error}");
            return MISUSE;
        }
    };
    match execute(&options) {
        Ok(()) => SUCCESS,
        Err(error) => {
            eprintln!("stress: {error}");
            say("\nFAILURE\n");
            FAILURE
        }
    }
}

fn execute(options: &Options) -> Result<(), String> {
    let cluster = runtime()?.block_on(Cluster::open(options))?;
    describe(&cluster);
    warm_up(&cluster, options)?;
    let workers = options.mode.workers.min(options.rate.threads);
    say(&format!(
        "Running {} with {} threads\n{}\n",
        names(options),
        options.rate.threads,
        report::heading()
    ));
    let phase = Phase::new(options.operations, options.duration, workers);
    let (progress, elapsed) = perform(&cluster, options, &phase, Some(options.log_interval))?;
    say(&report::results(progress.total(), elapsed));
    say(&report::distribution(&progress.total().total()));
    say("\nEND\n");
    Ok(())
}

fn describe(cluster: &Cluster) {
    say(&format!(
        "Connected to cluster: {}, {} node(s)\n",
        cluster.name,
        cluster.nodes.len()
    ));
    for node in &cluster.nodes {
        let shards = match node.shards {
            Some(shards) => format!("{} shard(s), port {}", shards.count, shards.port),
            None => "no shards announced".to_owned(),
        };
        say(&format!("Node {}: {shards}\n", node.address));
    }
}

/// Writes to standard output. Nobody may be reading any more; the load that was asked for goes on.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn names(options: &Options) -> String {
    let names: Vec<&str> = options
        .mix
        .0
        .iter()
        .map(|(operation, _)| operation.name())
        .collect();
    names.join(", ")
}

fn warm_up(cluster: &Cluster, options: &Options) -> Result<(), String> {
    let operations = WARM_UP_OPERATIONS.min(options.operations / WARM_UP_PART);
    // What counters hold must come from the run alone.
    let counts = options
        .mix
        .0
        .iter()
        .any(|(operation, _)| *operation == Operation::CounterWrite);
    if !options.warm_up || operations == 0 || counts {
        return Ok(());
    }
    say(&format!(
        "Warming up {} with {operations} iterations...\n",
        names(options)
    ));
    let mut unpaced = options.clone();
    unpaced.rate.limit = None;
    let workers = options.mode.workers.min(options.rate.threads);
    let phase = Phase::new(operations, options.duration, workers);
    perform(cluster, &unpaced, &phase, None).map(|_| ())
}

/// Runs a phase on all workers; prints an interval's lines if there is an interval.
fn perform(
    cluster: &Cluster,
    options: &Options,
    phase: &Phase,
    interval: Option<Duration>,
) -> Result<(Progress, Duration), String> {
    std::thread::scope(|scope| {
        let (ready_sender, ready) = mpsc::channel();
        let (done_sender, done) = mpsc::channel();
        let mut starts = Vec::new();
        for index in 0..phase.measurements.len() {
            let (start_sender, start) = mpsc::channel();
            starts.push(start_sender);
            let (ready, done) = (ready_sender.clone(), done_sender.clone());
            scope.spawn(move || {
                let result = work(cluster, options, phase, index, &ready, &start);
                let _ = done.send(result);
            });
        }
        drop((ready_sender, done_sender));
        for _ in &starts {
            // A worker that could not connect says why when it is done.
            if ready.recv().is_err() {
                break;
            }
        }
        let start = Instant::now();
        starts.iter().for_each(|sender| {
            let _ = sender.send(start);
        });
        drop(starts);
        watch(phase, start, interval, &done)
    })
}

/// The thread of one worker: connects, says that it is ready, waits for the start, works.
fn work(
    cluster: &Cluster,
    options: &Options,
    phase: &Phase,
    index: usize,
    ready: &mpsc::Sender<()>,
    start: &mpsc::Receiver<Instant>,
) -> Result<Instant, String> {
    let runtime = runtime()?;
    let worker = runtime.block_on(Worker::open(cluster, options, phase, index));
    let _ = ready.send(());
    let worker = worker?;
    let start = start
        .recv()
        .map_err(|_| "another worker could not start".to_owned())?;
    runtime.block_on(worker.drive(start))
}

/// Reports until every worker is done. The first failure stops them all.
fn watch(
    phase: &Phase,
    start: Instant,
    interval: Option<Duration>,
    done: &mpsc::Receiver<Result<Instant, String>>,
) -> Result<(Progress, Duration), String> {
    let mut progress = Progress::default();
    let mut failure = None;
    let mut end = start;
    let mut last_report = start;
    let pause = interval.unwrap_or(Duration::from_secs(1));
    loop {
        let next_report = last_report + pause;
        match done.recv_timeout(next_report.saturating_duration_since(Instant::now())) {
            Ok(Ok(finished)) => end = end.max(finished),
            Ok(Err(error)) => {
                phase.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
                failure.get_or_insert(error);
            }
            Err(RecvTimeoutError::Timeout) => {
                report(phase, &mut progress, start, last_report, next_report, interval);
                last_report = next_report;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    report(
        phase,
        &mut progress,
        start,
        last_report,
        end.max(last_report),
        interval,
    );
    failure.map_or(Ok((progress, end - start)), Err)
}

fn report(
    phase: &Phase,
    progress: &mut Progress,
    start: Instant,
    from: Instant,
    until: Instant,
    interval: Option<Duration>,
) {
    let measurements = phase.take_measurements();
    let lines = progress.interval(&measurements, until - from, until - start);
    if interval.is_some() && !measurements.each().is_empty() {
        say(&(lines.join("\n") + "\n"));
    }
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no event loop: {error}"))
}

#[cfg(test)]
mod tests;
