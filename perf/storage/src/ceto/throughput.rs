//! How fast flush and compaction go, beside a bare loop that reads, compresses and writes.
//!
//! All three are counted in bytes before compression per second of processor time, on the same disk, one after the
//! other.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::Env;
use ceto_storage::{Database, StorageOptions};
use serde_json::json;

use super::{Client, Outcome, TABLE, open};
use crate::cost::{Cost, Moment, cpu_seconds};
use crate::protocol::{Report, Setup};
use crate::rows::{Values, key};

/// Memtables, so that there is something to compact.
const FLUSHES: u64 = 4;
/// A process that uses less than a tenth of this time has nothing to do.
const QUIET: Duration = Duration::from_millis(20);
/// Bytes that the bare loop reads at once.
const READ_SIZE: usize = 256 << 10;

/// Writes `rows` rows several times over, so that every sstable holds a part of every block of the result.
pub(super) async fn measure(env: &Rc<dyn Env>, setup: &Rc<Setup>, rows: u64) -> Outcome<Report> {
    let folder = setup.folder.join("throughput");
    let mut options = StorageOptions::new(&folder, 0, 1);
    // Flushed when told to, and compacted when told to.
    options.memtable_space = 4 << 30;
    options.memtable_cleanup_threshold = 1.0;
    options.commitlog_total_space = 4 << 30;
    options.automatic_compaction = false;
    options.compaction_throughput = 0;
    // What the cache is told of a flush is not part of the flush.
    options.row_cache_size = 0;
    let client = Client {
        env: env.clone(),
        setup: setup.clone(),
        database: open(env, setup, options).await?,
        timestamp: Rc::default(),
    };
    let mut report = Report::default();
    let (mut values, mut value) = (Values::new(setup.value_size, 1), Vec::new());
    let mut flush = Cost::default();
    for part in 0..FLUSHES {
        for row in (part..rows).step_by(FLUSHES as usize) {
            values.fill(row, &mut value);
            client.put(row, &value).await?;
        }
        let before = Moment::now();
        let flushed = client.database.flush(Some(TABLE)).await;
        flushed.map_err(|error| error.to_string())?;
        flush.seconds += before.cost().seconds;
        // The memtable is freed in the background, which counts.
        be_quiet(env).await;
        flush.cpu_seconds += before.cost().cpu_seconds;
    }
    let raw = uncompressed(&client.database);
    let before = Moment::now();
    let compacted = client.database.compact(TABLE).await;
    compacted.map_err(|error| error.to_string())?;
    let compaction = before.cost();
    let drained = client.database.drain().await;
    drained.map_err(|error| error.to_string())?;
    be_quiet(env).await;
    let bare = bare_loop(env, setup, &folder, raw).await?;
    let mib = raw as f64 / f64::from(1 << 20);
    for (name, cost) in [("flush", flush), ("compaction", compaction), ("bare", bare)] {
        let figures = &mut report.figures;
        figures.insert(
            format!("{name}_mib_per_cpu_second"),
            json!(mib / cost.cpu_seconds),
        );
        figures.insert(format!("{name}_mib_per_second"), json!(mib / cost.seconds));
    }
    report.operations = rows;
    std::fs::remove_dir_all(&folder)
        .map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    Ok(report)
}

/// Waits until this process does nothing any more.
async fn be_quiet(env: &Rc<dyn Env>) {
    loop {
        let before = cpu_seconds();
        env.tasks().sleep(QUIET).await;
        if cpu_seconds() - before < QUIET.as_secs_f64() / 10.0 {
            return;
        }
    }
}

fn uncompressed(database: &Database) -> u64 {
    database
        .table_stats(TABLE)
        .map_or(0, |stats| stats.uncompressed_bytes)
}

/// Reads a file of rows, compresses it block by block, writes the blocks to another file.
async fn bare_loop(env: &Rc<dyn Env>, setup: &Setup, folder: &Path, size: u64) -> Outcome<Cost> {
    let disk = env.disk();
    let failed = |error: ceto_env::DiskError| error.to_string();
    let input = folder.join("bare-input");
    let mut file = disk.create(&input).await.map_err(failed)?;
    let (mut values, mut value, mut bytes, mut row) =
        (Values::new(setup.value_size, 2), Vec::new(), Vec::new(), 0);
    while file.position() < size {
        bytes.clear();
        while bytes.len() < READ_SIZE {
            values.fill(row, &mut value);
            bytes.extend_from_slice(&key(row));
            bytes.extend_from_slice(&value);
            row += 1;
        }
        bytes.truncate(READ_SIZE);
        file.append(&bytes).await.map_err(failed)?;
    }
    file.finish().await.map_err(failed)?;
    let before = Moment::now();
    let input = disk.open(&input).await.map_err(failed)?;
    let mut output = disk.create(&folder.join("bare-output")).await.map_err(failed)?;
    let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(setup.block_size)];
    let mut offset = 0;
    while offset < size {
        let read = input.read_at(offset, READ_SIZE).await.map_err(failed)?;
        offset += READ_SIZE as u64;
        for block in read.chunks(setup.block_size) {
            let length =
                lz4_flex::block::compress_into(block, &mut packed).map_err(|error| error.to_string())?;
            output.append(&packed[..length]).await.map_err(failed)?;
        }
        if let Some(turn) = env.tasks().yield_if_due() {
            turn.await;
        }
    }
    output.finish().await.map_err(failed)?;
    Ok(before.cost())
}
