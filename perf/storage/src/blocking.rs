//! The peers: libraries whose calls block. What is asked of them in parallel runs on threads.

#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::cost::{Moment, REMOVAL, disk_bytes};
use crate::latency::{Latencies, Schedule};
use crate::protocol::{Answer, Command, Durability, Engine, PARTITION_ROWS, Report, Setup};
use crate::rows::{Dice, Key, Values, check, key};

type Outcome<T> = Result<T, String>;

/// How often it is looked whether flushes and compactions are done.
const SETTLE_POLL: Duration = Duration::from_millis(2);
/// Threads that read at a fixed rate.
const TAIL_THREADS: u64 = 4;

/// A peer with its database open.
trait Store: Sync {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()>;
    /// Shows the value, and says whether there is one.
    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<bool>;
    /// Shows the values of up to `rows` rows from a key on.
    fn scan(&self, from: &Key, rows: u64, look: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()>;
    /// Flushes what is in memory.
    fn flush(&self) -> Outcome<()>;
    /// Flushes or compactions run, or are due.
    fn is_busy(&self) -> Outcome<bool>;
    /// Compacts everything.
    fn compact(&self) -> Outcome<()>;
    /// What was read so far shall not be found in the page cache.
    fn forget_page_cache(&self) {}
}

/// Hands commands to the peer until there are no more.
pub(crate) fn serve(setup: &Setup, answer: impl FnOnce(&mut dyn FnMut(Command) -> Answer)) {
    let mut store: Option<Box<dyn Store>> = None;
    answer(&mut |command| match perform(setup, &mut store, command) {
        Ok(report) => Answer::Done(report),
        Err(error) => Answer::Failed(error),
    });
}

fn perform(setup: &Setup, open: &mut Option<Box<dyn Store>>, command: Command) -> Outcome<Report> {
    match &command {
        Command::Open {
            cache_size,
            durability,
        } => {
            *open = Some(open_store(setup, *cache_size, *durability)?);
            return Ok(Report::default());
        }
        Command::Close => {
            *open = None;
            return Ok(Report::default());
        }
        _ => {}
    }
    let store = open.as_deref().ok_or("the database is not open")?;
    let before = Moment::now();
    let mut report = match command {
        Command::Load { from, to } => load(setup, store, from..to, before)?,
        Command::Overwrite { operations, seed } => {
            let mut dice = Dice::new(seed);
            let rows = (0..operations).map(|_| dice.below(setup.rows));
            load(setup, store, rows, before)?
        }
        Command::Write {
            operations,
            seed,
            in_flight,
        } => at_once(in_flight, operations, |number, each| {
            let (mut dice, mut values) = (
                Dice::new(seed + number),
                Values::new(setup.value_size, seed + number),
            );
            let mut value = Vec::new();
            (0..each).try_for_each(|_| {
                let row = dice.below(setup.rows);
                values.fill(row, &mut value);
                store.put(&key(row), &value)
            })
        })?,
        Command::Read {
            operations,
            seed,
            in_flight,
        } => at_once(in_flight, operations, |number, each| {
            let mut dice = Dice::new(seed + number);
            (0..each).try_for_each(|_| read(setup, store, dice.below(setup.rows)))
        })?,
        Command::Scan {
            operations,
            rows,
            seed,
        } => scan(setup, store, operations, rows, seed)?,
        Command::ScanPartitions { operations, seed, .. } => {
            scan(setup, store, operations, PARTITION_ROWS, seed)?
        }
        // To a peer a range of rows is a range of rows.
        Command::LoadPartitions { .. } => Report::default(),
        Command::Tail { rate, seconds, seed } => {
            tail(setup, store, rate, Duration::from_secs(seconds), seed)?
        }
        Command::Open { .. } | Command::Close | Command::Throughput { .. } => {
            return Err("not for peers".to_owned());
        }
    };
    report.cost = before.cost();
    std::thread::sleep(REMOVAL);
    (report.log_bytes, report.data_bytes) = disk_bytes(&setup.folder)?;
    store.forget_page_cache();
    Ok(report)
}

fn open_store(setup: &Setup, cache_size: usize, durability: Durability) -> Outcome<Box<dyn Store>> {
    Ok(match setup.engine {
        #[cfg(feature = "rocksdb")]
        Engine::Rocksdb => Box::new(rocksdb::Rocks::open(setup, cache_size, durability)?),
        #[cfg(feature = "fjall")]
        Engine::Fjall => Box::new(fjall::Fjall::open(setup, cache_size, durability)?),
        engine => return Err(format!("built without {}", engine.name())),
    })
}

/// Writes rows, and waits until nothing is left to flush or to compact.
fn load(setup: &Setup, store: &dyn Store, rows: impl Iterator<Item = u64>, since: Moment) -> Outcome<Report> {
    let mut values = Values::new(setup.value_size, 1);
    let (mut value, mut operations) = (Vec::new(), 0);
    for row in rows {
        values.fill(row, &mut value);
        store.put(&key(row), &value)?;
        operations += 1;
    }
    let accepted_seconds = since.cost().seconds;
    store.flush()?;
    while store.is_busy()? {
        std::thread::sleep(SETTLE_POLL);
    }
    Ok(Report {
        operations,
        accepted_seconds,
        ..Report::default()
    })
}

/// Shares operations between threads.
fn at_once(threads: u32, operations: u64, work: impl Fn(u64, u64) -> Outcome<()> + Sync) -> Outcome<Report> {
    let each = operations / u64::from(threads);
    if threads == 1 {
        work(0, each)?;
    } else {
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..threads)
                .map(|number| scope.spawn(move || work(number.into(), each)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a thread panicked".to_owned()))
            })
        })?;
    }
    Ok(Report {
        operations: each * u64::from(threads),
        ..Report::default()
    })
}

fn read(setup: &Setup, store: &dyn Store, row: u64) -> Outcome<()> {
    match store.get(&key(row), &mut |value| check(row, value, setup.value_size))? {
        true => Ok(()),
        false => Err(format!("row {row} is not there")),
    }
}

fn scan(setup: &Setup, store: &dyn Store, operations: u64, rows: u64, seed: u64) -> Outcome<Report> {
    let (mut dice, mut found) = (Dice::new(seed), 0);
    for _ in 0..operations {
        let mut from = [0; 16];
        from[..8].copy_from_slice(&dice.next().to_be_bytes());
        store.scan(&from, rows, &mut |value| {
            found += 1;
            match value.len() == setup.value_size {
                true => Ok(()),
                false => Err("a scanned row has a value of another size".to_owned()),
            }
        })?;
    }
    Ok(Report {
        operations: found,
        ..Report::default()
    })
}

/// Reads at a fixed rate: alone, then beside a compaction of everything.
fn tail(setup: &Setup, store: &dyn Store, rate: u64, span: Duration, seed: u64) -> Outcome<Report> {
    let mut report = Report::default();
    let begin = Instant::now();
    let idle = reads_at_rate(setup, store, rate, seed, &|| begin.elapsed() < span)?;
    idle.figures("idle", &mut report.figures);
    let is_compacting = AtomicBool::new(true);
    let busy = std::thread::scope(|scope| {
        let compaction = scope.spawn(|| {
            let begin = Instant::now();
            let mut outcome = store.compact();
            while outcome.is_ok() && begin.elapsed() < span {
                outcome = store.compact();
            }
            is_compacting.store(false, Relaxed);
            outcome
        });
        let latencies = reads_at_rate(setup, store, rate, seed + 1, &|| is_compacting.load(Relaxed))?;
        compaction
            .join()
            .unwrap_or_else(|_| Err("a thread panicked".to_owned()))?;
        Ok::<_, String>(latencies)
    })?;
    busy.figures("compacting", &mut report.figures);
    Ok(report)
}

fn reads_at_rate(
    setup: &Setup,
    store: &dyn Store,
    rate: u64,
    seed: u64,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Outcome<Latencies> {
    let reader = move |number: u64| {
        let (mut latencies, mut dice) = (Latencies::default(), Dice::new(seed * TAIL_THREADS + number));
        let mut schedule = Schedule::new(rate / TAIL_THREADS);
        while go_on() {
            let due = schedule.take();
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            read(setup, store, dice.below(setup.rows))?;
            latencies.note(due);
        }
        Ok::<_, String>(latencies)
    };
    let mut all = Latencies::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..TAIL_THREADS)
            .map(|number| scope.spawn(move || reader(number)))
            .collect();
        for thread in threads {
            let latencies = thread
                .join()
                .unwrap_or_else(|_| Err("a thread panicked".to_owned()))?;
            all.add(&latencies);
        }
        Ok::<_, String>(())
    })?;
    Ok(all)
}
