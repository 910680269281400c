//! `nodetool tablestats`: a block for each keyspace, in it a block for each table.

use std::fmt::{self, Display};

use crate::api::{Keyspace, Table, TableStatistics};
use crate::format::{file_size, fixed, mean, memory_size};

const US_PER_MS: f64 = 1000.0;

/// Keeps what the arguments name (`keyspace` or `keyspace.table`), or with `ignore` all but that. The error names
/// what the node has not.
pub(crate) fn select(statistics: &mut TableStatistics, names: &[String], ignore: bool) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        check(statistics, name)?;
    }
    for keyspace in &mut statistics.keyspaces {
        let whole = names.contains(&keyspace.name);
        keyspace.tables.retain(|table| {
            let named = whole
                || names
                    .iter()
                    .any(|name| split(name) == (&keyspace.name, Some(&table.name)));
            named != ignore
        });
    }
    let named = |keyspace: &Keyspace| names.contains(&keyspace.name);
    statistics
        .keyspaces
        .retain(|keyspace| !keyspace.tables.is_empty() || named(keyspace) != ignore);
    Ok(())
}

/// Keyspace and table of an argument; a table's name never holds a dot.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once('.') {
        Some((keyspace, table)) => (keyspace, Some(table)),
        None => (name, None),
    }
}

fn check(statistics: &TableStatistics, name: &str) -> Result<(), String> {
    let (keyspace_name, table_name) = split(name);
    let keyspace = statistics
        .keyspaces
        .iter()
        .find(|keyspace| keyspace.name == keyspace_name);
    let keyspace = keyspace.ok_or_else(|| format!("Unknown keyspace: {keyspace_name}"))?;
    match table_name {
        Some(table_name) if !keyspace.tables.iter().any(|table| table.name == table_name) => Err(format!(
            "Unknown tables: [{table_name}] in keyspace: {keyspace_name}"
        )),
        _ => Ok(()),
    }
}

/// Writes the blocks.
pub(crate) fn print(out: &mut dyn fmt::Write, statistics: &TableStatistics, human: bool) -> fmt::Result {
    writeln!(out, "Total number of tables: {}", statistics.total_tables)?;
    writeln!(out, "----------------")?;
    for keyspace in &statistics.keyspaces {
        print_keyspace(out, keyspace)?;
        for table in &keyspace.tables {
            print_table(&mut Block { out, human }, table)?;
        }
        writeln!(out, "----------------")?;
    }
    Ok(())
}

fn print_keyspace(out: &mut dyn fmt::Write, keyspace: &Keyspace) -> fmt::Result {
    let sum = |field: fn(&Table) -> u64| keyspace.tables.iter().map(field).sum::<u64>();
    let reads = sum(|table| table.local_read_count);
    let writes = sum(|table| table.local_write_count);
    let read_ms = sum(|table| table.local_read_latency_total_us) as f64 / US_PER_MS;
    let write_ms = sum(|table| table.local_write_latency_total_us) as f64 / US_PER_MS;
    writeln!(out, "Keyspace: {}", keyspace.name)?;
    writeln!(out, "\tRead Count: {reads}")?;
    writeln!(out, "\tRead Latency: {:?} ms", mean(read_ms, reads))?;
    writeln!(out, "\tWrite Count: {writes}")?;
    writeln!(out, "\tWrite Latency: {:?} ms", mean(write_ms, writes))?;
    writeln!(out, "\tPending Flushes: {}", sum(|table| table.pending_flushes))
}

/// Lines of one table.
struct Block<'a> {
    out: &'a mut dyn fmt::Write,
    human: bool,
}

impl Block<'_> {
    fn line(&mut self, label: &str, value: &dyn Display) -> fmt::Result {
        writeln!(self.out, "\t\t{label}: {value}")
    }

    /// A size: bytes, or with a unit when human readable.
    fn size(&mut self, label: &str, bytes: u64) -> fmt::Result {
        if self.human {
            self.line(label, &file_size(bytes))
        } else {
            self.line(label, &bytes)
        }
    }

    fn latency(&mut self, label: &str, total_us: u64, count: u64) -> fmt::Result {
        let mean_ms = mean(total_us as f64 / US_PER_MS, count);
        self.line(label, &format_args!("{} ms", fixed(mean_ms, 3)))
    }
}

fn print_table(block: &mut Block<'_>, table: &Table) -> fmt::Result {
    block.line(
        if table.is_index { "Table (index)" } else { "Table" },
        &table.name,
    )?;
    print_sstables(block, table)?;
    print_memtable_and_traffic(block, table)?;
    print_repair_and_filters(block, table)?;
    print_partitions(block, table)?;
    writeln!(block.out)
}

fn print_sstables(block: &mut Block<'_>, table: &Table) -> fmt::Result {
    block.line("SSTable count", &table.sstable_count)?;
    block.line("Old SSTable count", &table.old_sstable_count)?;
    block.line("Max SSTable size", &memory_size(table.max_sstable_size_bytes))?;
    if !table.sstables_in_each_level.is_empty() {
        let levels: Vec<String> = table.sstables_in_each_level.iter().map(u64::to_string).collect();
        block.line("SSTables in each level", &format_args!("[{}]", levels.join(", ")))?;
    }
    block.size("Space used (live)", table.space_used_live_bytes)?;
    block.size("Space used (total)", table.space_used_total_bytes)?;
    block.size(
        "Space used by snapshots (total)",
        table.space_used_by_snapshots_bytes,
    )?;
    let off_heap = table
        .memtable_memory_bytes
        .saturating_add(table.bloom_filter_memory_bytes)
        .saturating_add(table.index_memory_bytes)
        .saturating_add(table.compression_metadata_memory_bytes);
    block.size("Off heap memory used (total)", off_heap)?;
    block.line(
        "SSTable Compression Ratio",
        &format_args!("{:.5}", table.sstable_compression_ratio),
    )?;
    block.line("Number of partitions (estimate)", &table.partitions_estimate)
}

fn print_memtable_and_traffic(block: &mut Block<'_>, table: &Table) -> fmt::Result {
    block.line("Memtable cell count", &table.memtable_cell_count)?;
    block.size("Memtable data size", table.memtable_data_bytes)?;
    block.size("Memtable off heap memory used", table.memtable_memory_bytes)?;
    block.line("Memtable switch count", &table.memtable_switch_count)?;
    block.line("Speculative retries", &table.speculative_retries)?;
    block.line("Local read count", &table.local_read_count)?;
    block.latency(
        "Local read latency",
        table.local_read_latency_total_us,
        table.local_read_count,
    )?;
    block.line("Local write count", &table.local_write_count)?;
    block.latency(
        "Local write latency",
        table.local_write_latency_total_us,
        table.local_write_count,
    )?;
    let ratio = mean(table.local_read_count as f64, table.local_write_count);
    block.line(
        "Local read/write ratio",
        &fixed(if ratio.is_nan() { 0.0 } else { ratio }, 5),
    )?;
    block.line("Pending flushes", &table.pending_flushes)
}

fn print_repair_and_filters(block: &mut Block<'_>, table: &Table) -> fmt::Result {
    let all = table.bytes_repaired.saturating_add(table.bytes_unrepaired);
    let percent = if all == 0 {
        100.0
    } else {
        table.bytes_repaired as f64 * 100.0 / all as f64
    };
    block.line(
        "Percent repaired",
        &format_args!("{:?}", (percent * 100.0).round() / 100.0),
    )?;
    block.line("Bytes repaired", &memory_size(table.bytes_repaired))?;
    block.line("Bytes unrepaired", &memory_size(table.bytes_unrepaired))?;
    block.line("Bytes pending repair", &memory_size(table.bytes_pending_repair))?;
    block.line(
        "Bloom filter false positives",
        &table.bloom_filter_false_positives,
    )?;
    block.line(
        "Bloom filter false ratio",
        &fixed(table.bloom_filter_false_ratio, 5),
    )?;
    block.size("Bloom filter space used", table.bloom_filter_space_bytes)?;
    block.size(
        "Bloom filter off heap memory used",
        table.bloom_filter_memory_bytes,
    )?;
    block.size("Index summary off heap memory used", table.index_memory_bytes)?;
    block.size(
        "Compression metadata off heap memory used",
        table.compression_metadata_memory_bytes,
    )
}

fn print_partitions(block: &mut Block<'_>, table: &Table) -> fmt::Result {
    block.line(
        "Compacted partition minimum bytes",
        &table.partition_minimum_bytes,
    )?;
    block.line(
        "Compacted partition maximum bytes",
        &table.partition_maximum_bytes,
    )?;
    block.line("Compacted partition mean bytes", &table.partition_mean_bytes)?;
    let average = |mean: Option<f64>| format!("{:?}", mean.unwrap_or(f64::NAN));
    let most = |count: Option<u64>| count.map_or_else(|| "NaN".to_owned(), |count| count.to_string());
    let live = average(table.live_cells_per_slice_average);
    block.line("Average live cells per slice (last five minutes)", &live)?;
    block.line(
        "Maximum live cells per slice (last five minutes)",
        &most(table.live_cells_per_slice_maximum),
    )?;
    let tombstones = average(table.tombstones_per_slice_average);
    block.line("Average tombstones per slice (last five minutes)", &tombstones)?;
    block.line(
        "Maximum tombstones per slice (last five minutes)",
        &most(table.tombstones_per_slice_maximum),
    )?;
    block.line(
        "Droppable tombstone ratio",
        &fixed(table.droppable_tombstone_ratio, 5),
    )
}
