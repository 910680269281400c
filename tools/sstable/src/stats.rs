//! What an sstable says about itself, in the words of Cassandra's `sstablemetadata` where it has them.

use std::fmt::Write;

use ceto_model::{ColumnKind, DecoratedKey, Timestamp, UnixSeconds};
use ceto_storage::{Component, Descriptor, SerializationHeader, Statistics};

use crate::json::{Times, hex, put_value, value_text};

/// The moment of the call, and the gc grace that droppable tombstones are told for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AsOf {
    pub(crate) now: UnixSeconds,
    pub(crate) gc_grace_seconds: u32,
}

/// The text about one sstable.
pub(crate) fn stats(
    descriptor: &Descriptor,
    statistics: &Statistics,
    sizes: &[(Component, u64)],
    as_of: AsOf,
) -> String {
    let times = Times { raw: false };
    let mut lines = Lines::default();
    lines.add("SSTable", descriptor.dir.join(descriptor.prefix()).display());
    lines.add("Table id", statistics.table.0);
    lines.add(
        "Shard",
        format_args!("{} of {}", descriptor.shard, statistics.shard_count),
    );
    lines.add("Generation", descriptor.generation.0);
    lines.add("Origin", statistics.origin.name());
    lines.add("Created at", moment(times, statistics.created_at));
    if let Some(run) = statistics.run {
        lines.add("Run", run);
    }
    lines.add("SSTable Level", statistics.level);
    lines.add(
        "Repaired at",
        match statistics.repaired_at {
            0 => "never".to_owned(),
            at => moment(times, at),
        },
    );
    let pending = statistics.pending_repair.map(|id| id.to_string());
    lines.add("Pending repair", pending.unwrap_or_else(|| "--".to_owned()));
    match statistics.flushed_through {
        Some(at) => lines.add("Replay position", format_args!("{}:{}", at.segment, at.offset)),
        None => lines.add("Replay position", "--"),
    }
    content(&mut lines, statistics, times, as_of);
    storage(&mut lines, statistics, sizes);
    histograms(&mut lines, statistics, times);
    columns(&mut lines, statistics.header.as_deref());
    lines.text
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "{name}: {value}").expect("a string takes any text");
    }
}

fn moment(times: Times, micros: i64) -> String {
    times.timestamp(Timestamp(micros))
}

fn content(lines: &mut Lines, statistics: &Statistics, times: Times, as_of: AsOf) {
    let header = statistics.header.as_deref();
    lines.add("Minimum timestamp", with_number(times, statistics.min_timestamp));
    lines.add("Maximum timestamp", with_number(times, statistics.max_timestamp));
    let deletions = statistics.deletion_times;
    let second = |second: Option<i64>| second.map_or("--".to_owned(), |at| times.second(UnixSeconds(at)));
    lines.add(
        "SSTable min local deletion time",
        second(deletions.map(|(first, _)| first)),
    );
    lines.add(
        "SSTable max local deletion time",
        second(deletions.map(|(_, last)| last)),
    );
    let expiry = (statistics.max_expiry != i64::MAX).then_some(statistics.max_expiry);
    lines.add(
        "All of it dead at",
        expiry.map_or("never".to_owned(), |at| times.second(UnixSeconds(at))),
    );
    lines.add("TTL min", statistics.ttl_range.0);
    lines.add("TTL max", statistics.ttl_range.1);
    for (name, key) in [
        ("First token", &statistics.first_key),
        ("Last token", &statistics.last_key),
    ] {
        let key = DecoratedKey::new(key.clone());
        lines.add(name, format_args!("{} ({})", key.token.0, key_text(header, &key)));
    }
    if let Some((first, last)) = &statistics.clustering_bounds {
        lines.add("Minimum clustering", clustering_text(header, &first.0));
        lines.add("Maximum clustering", clustering_text(header, &last.0));
    }
    lines.add("Partitions", statistics.partitions);
    lines.add("Partition tombstones", statistics.partition_deletions);
    lines.add("Static rows", statistics.static_rows);
    lines.add("totalRows", statistics.rows);
    lines.add("totalColumnsSet", statistics.cells);
    lines.add("Tombstones", statistics.tombstones);
    let before = as_of.now.0.saturating_sub(i64::from(as_of.gc_grace_seconds));
    let ratio = statistics.droppable_tombstone_ratio(before);
    lines.add("Estimated droppable tombstones", format_args!("{ratio:.6}"));
    lines.add(
        "Largest partition",
        format_args!("{} bytes", statistics.largest_partition),
    );
}

fn with_number(times: Times, timestamp: Timestamp) -> String {
    format!("{} ({})", timestamp.0, times.timestamp(timestamp))
}

fn storage(lines: &mut Lines, statistics: &Statistics, sizes: &[(Component, u64)]) {
    let compression = &statistics.compression;
    lines.add("Compressor", compression.codec.name());
    lines.add("Chunk length", format_args!("{} bytes", compression.chunk_length));
    let ratio = statistics.data_size as f64 / statistics.raw_size.max(1) as f64;
    lines.add("Compression ratio", format_args!("{ratio:.6}"));
    lines.add("Uncompressed", format_args!("{} bytes", statistics.raw_size));
    lines.add("Bloom Filter FP chance", statistics.bloom_filter_fp_chance);
    for (component, size) in sizes {
        lines.add(component.name(), format_args!("{size} bytes"));
    }
}

fn histograms(lines: &mut Lines, statistics: &Statistics, times: Times) {
    if !statistics.tombstone_times.is_empty() {
        lines.text.push_str("Estimated tombstone drop times:\n");
        for (time, count) in &statistics.tombstone_times {
            lines.add(&format!("  {}", times.second(UnixSeconds(*time))), count);
        }
    }
    for (name, counts) in [
        ("Partition Size (bytes, up to)", &statistics.partition_sizes),
        ("Cells per partition (up to)", &statistics.cell_counts),
        ("TTL (seconds, up to)", &statistics.ttls),
    ] {
        let present = || counts.iter().enumerate().filter(|(_, count)| **count > 0);
        if present().next().is_none() {
            continue;
        }
        writeln!(lines.text, "{name}:").expect("a string takes any text");
        for (bits, count) in present() {
            lines.add(&format!("  {}", (1u128 << bits) - 1), count);
        }
    }
}

fn columns(lines: &mut Lines, header: Option<&SerializationHeader>) {
    let Some(header) = header else {
        lines.add("Columns", "not known");
        return;
    };
    lines.add("Keyspace", &header.keyspace);
    lines.add("Table", &header.table);
    for (title, kind) in [
        ("Partition key", ColumnKind::PartitionKey),
        ("Clustering columns", ColumnKind::Clustering),
        ("Static columns", ColumnKind::Static),
        ("Regular columns", ColumnKind::Regular),
    ] {
        let columns: Vec<String> = header
            .columns_of(kind)
            .map(|column| {
                let text = column.cql_type().map(|(cql_type, descending)| {
                    format!("{cql_type}{}", if descending { " desc" } else { "" })
                });
                format!(
                    "{} {}",
                    column.name,
                    text.unwrap_or_else(|| column.type_class.clone())
                )
            })
            .collect();
        if !columns.is_empty() {
            lines.add(title, columns.join(", "));
        }
    }
    let dropped: Vec<&str> = header
        .columns
        .iter()
        .filter(|column| column.is_dropped)
        .map(|column| &*column.name)
        .collect();
    if !dropped.is_empty() {
        lines.add("Dropped columns", dropped.join(", "));
    }
}

fn key_text(header: Option<&SerializationHeader>, key: &DecoratedKey) -> String {
    let columns: Vec<_> = header
        .map(|header| header.columns_of(ColumnKind::PartitionKey).collect())
        .unwrap_or_default();
    match key.key.components(columns.len()) {
        Some(components) if !columns.is_empty() => {
            let texts = components.iter().zip(columns).map(|(component, column)| {
                let cql_type = column.cql_type().map(|(cql_type, _)| cql_type);
                value_text(cql_type.as_ref(), component)
            });
            texts.collect::<Vec<String>>().join(":")
        }
        _ => hex(&key.key.0),
    }
}

fn clustering_text(header: Option<&SerializationHeader>, place: &[u8]) -> String {
    let types: Option<Vec<_>> = header.and_then(|header| {
        header
            .columns_of(ColumnKind::Clustering)
            .map(|column| column.cql_type())
            .collect()
    });
    let types = types.unwrap_or_default();
    match ceto_model::comparable::decode_prefix(&types, place) {
        Ok((components, _)) => {
            let texts = components.iter().zip(&types).map(|(component, (cql_type, _))| {
                let mut text = String::new();
                put_value(Some(cql_type), component, &mut text);
                text
            });
            format!("[{}]", texts.collect::<Vec<String>>().join(", "))
        }
        Err(_) => hex(place),
    }
}
