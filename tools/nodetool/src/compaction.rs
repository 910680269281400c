//! The verbs about compaction.

use serde_json::{Value, json};

use crate::api::{
    AutomaticCompactions, CompactionHistory, CompactionStatistics, Done, PastCompaction, RunningCompaction,
    Stopped, Throughput,
};
use crate::arguments::{CompactArguments, OutputFormat, Target, Verb};
use crate::client::Client;
use crate::format::file_size;
use crate::run::{fetch, order};

const MEBIBYTE: u64 = 1 << 20;

/// Does what a verb asks for; what it prints.
pub(crate) fn perform(client: &Client, verb: &Verb) -> Result<String, String> {
    let nothing = |()| String::new();
    match verb {
        Verb::Compact(arguments) => compact(client, arguments).map(nothing),
        Verb::Cleanup(arguments) => order(client, "/v1/node/cleanup", &arguments.target, &[]).map(nothing),
        Verb::Scrub(arguments) => order(client, "/v1/node/scrub", &arguments.rest.target, &[]).map(nothing),
        Verb::Upgradesstables(arguments) => {
            let all = [("all", "true")];
            let options = if arguments.include_all_sstables {
                &all[..]
            } else {
                &[]
            };
            order(
                client,
                "/v1/node/upgradesstables",
                &arguments.rest.target,
                options,
            )
            .map(nothing)
        }
        Verb::Garbagecollect(arguments) => {
            let options = [("granularity", arguments.granularity.as_str())];
            order(
                client,
                "/v1/node/garbagecollect",
                &arguments.rest.target,
                &options,
            )
            .map(nothing)
        }
        Verb::Compactionstats {
            human_readable,
            vtable,
        } => {
            let statistics = fetch(client.get("/v1/compaction/stats", &[]))?;
            Ok(statistics_text(&statistics, *human_readable, *vtable))
        }
        Verb::Compactionhistory {
            human_readable,
            format,
        } => {
            let history = fetch(client.get("/v1/compaction/history", &[]))?;
            history_text(&history, *human_readable, *format)
        }
        Verb::Stop { id, kind } => stop(client, id.as_deref(), kind.as_deref()),
        Verb::Getcompactionthroughput { precise } => throughput(client, *precise),
        Verb::Setcompactionthroughput { throughput } => {
            let bytes = throughput.saturating_mul(MEBIBYTE).to_string();
            let query = [("bytes_per_second", bytes.as_str())];
            fetch(client.post::<Done>("/v1/compaction/throughput", &query)).map(|_| String::new())
        }
        Verb::Getconcurrentcompactors => {
            let statistics: CompactionStatistics = fetch(client.get("/v1/compaction/stats", &[]))?;
            let all = statistics.concurrent_compactors;
            Ok(format!(
                "Current concurrent compactors in the system is: \n{all}\n"
            ))
        }
        Verb::Enableautocompaction(target) => switch(client, target, "true").map(nothing),
        Verb::Disableautocompaction(target) => switch(client, target, "false").map(nothing),
        Verb::Statusautocompaction { all, target } => automatic(client, *all, target),
        _ => Err("not a verb about compaction".to_owned()),
    }
}

fn compact(client: &Client, arguments: &CompactArguments) -> Result<(), String> {
    let has_tokens = arguments.start_token.is_some() || arguments.end_token.is_some();
    if arguments.split_output && (arguments.user_defined || has_tokens) {
        return Err("Invalid option combination: Can not use split-output here".to_owned());
    }
    if arguments.user_defined && has_tokens {
        return Err("Invalid option combination: Can not provide tokens when using user-defined".to_owned());
    }
    if arguments.user_defined {
        if arguments.names.is_empty() {
            return Err("--user-defined needs the Data files to be compacted".to_owned());
        }
        let files = arguments.names.join(",");
        let query = [("files", files.as_str())];
        return fetch(client.post::<Done>("/v1/compaction/files", &query)).map(|_| ());
    }
    let tokens =
        [arguments.start_token, arguments.end_token].map(|token| token.map(|token| token.to_string()));
    let mut options: Vec<(&str, &str)> = Vec::new();
    if arguments.split_output {
        options.push(("split_output", "true"));
    }
    for (name, token) in ["start_token", "end_token"].into_iter().zip(&tokens) {
        options.extend(token.as_deref().map(|token| (name, token)));
    }
    let mut names = arguments.names.iter().cloned();
    let target = Target {
        keyspace: names.next(),
        tables: names.collect(),
    };
    order(client, "/v1/node/compact", &target, &options)
}

fn stop(client: &Client, id: Option<&str>, kind: Option<&str>) -> Result<String, String> {
    let query = [("id", id), ("type", kind)];
    let query: Vec<(&str, &str)> = query
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let stopped: Stopped = fetch(client.post("/v1/compaction/stop", &query))?;
    match (id, stopped.stopped) {
        (Some(id), 0) => Err(format!("no compaction with id {id} runs")),
        _ => Ok(String::new()),
    }
}

fn throughput(client: &Client, precise: bool) -> Result<String, String> {
    let throughput: Throughput = fetch(client.get("/v1/compaction/throughput", &[]))?;
    // A limit that the shards do not share evenly is some bytes more or less in all.
    let mebibytes = (throughput.bytes_per_second as f64 / MEBIBYTE as f64 * 1000.0).round() / 1000.0;
    if precise {
        return Ok(format!("Current compaction throughput: {mebibytes:?} MiB/s\n"));
    }
    if mebibytes.fract() != 0.0 {
        return Err("Use the -d flag to quiet this error and get the exact throughput in MiB/s".to_owned());
    }
    Ok(format!("Current compaction throughput: {mebibytes:.0} MB/s\n"))
}

fn switch(client: &Client, target: &Target, enabled: &str) -> Result<(), String> {
    order(
        client,
        "/v1/compaction/automatic",
        target,
        &[("enabled", enabled)],
    )
}

fn automatic(client: &Client, all: bool, target: &Target) -> Result<String, String> {
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(target.keyspace.as_deref().map(|keyspace| ("keyspace", keyspace)));
    let mut tables: AutomaticCompactions = fetch(client.get("/v1/compaction/automatic", &query))?;
    if !target.tables.is_empty() {
        if let Some(unknown) = target
            .tables
            .iter()
            .find(|name| !tables.tables.iter().any(|table| table.table == **name))
        {
            let keyspace = target.keyspace.as_deref().unwrap_or_default();
            return Err(format!("Unknown keyspace/cf pair ({keyspace}.{unknown})"));
        }
        tables.tables.retain(|table| target.tables.contains(&table.table));
    }
    let status = |running: bool| if running { "running" } else { "not running" };
    if all {
        let rows = tables.tables.iter().map(|table| {
            vec![
                table.keyspace.clone(),
                table.table.clone(),
                status(table.running).to_owned(),
            ]
        });
        return Ok(table_text(&["Keyspace", "Table", "Status"], rows.collect()));
    }
    let running = tables.tables.iter().filter(|table| table.running).count();
    let text = match running {
        0 => "not running",
        all if all == tables.tables.len() => "running",
        _ => "partially running",
    };
    Ok(format!("{text}\n"))
}

fn size(bytes: u64, human_readable: bool) -> String {
    match human_readable {
        true => file_size(bytes),
        false => bytes.to_string(),
    }
}

fn table_text(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut lines = vec![header.iter().map(|name| (*name).to_owned()).collect()];
    lines.extend(rows);
    rows_text(&lines)
}

/// Columns as wide as their widest cell, one space between them. Rows need not be of one length.
fn rows_text(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let cells: Vec<String> = cells.collect();
        text.push_str(cells.join(" ").trim_end());
        text.push('\n');
    }
    text
}

/// One table as in nodetool: figures, pending and running compactions share its columns.
fn statistics_text(statistics: &CompactionStatistics, human_readable: bool, vtable: bool) -> String {
    let row = |cells: &[&str]| {
        cells
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<String>>()
    };
    let mut rows = Vec::new();
    let mut line = |name: &str, value: String| rows.push(row(&[name, &value]));
    let pending: u64 = statistics.pending.iter().map(|pending| pending.tasks).sum();
    line(
        "concurrent compactors",
        statistics.concurrent_compactors.to_string(),
    );
    line("pending tasks", pending.to_string());
    let pending = statistics.pending.iter();
    rows.extend(pending.map(|table| row(&[&table.keyspace, &table.table, &table.tasks.to_string()])));
    let mut line = |name: &str, value: String| rows.push(row(&[name, &value]));
    line("compactions completed", statistics.completed.to_string());
    line("data compacted", size(statistics.compacted_bytes, human_readable));
    line("compactions aborted", statistics.aborted.to_string());
    line("compactions reduced", statistics.reduced.to_string());
    let per_hour = statistics.completed as f64 * 3600.0 / statistics.uptime_seconds.max(1) as f64;
    line("mean rate", format!("{per_hour:.2}/hour"));
    let throughput = statistics.throughput_bytes_per_second;
    line(
        "compaction throughput (MiB/s)",
        match throughput {
            0 => "throttling disabled (0)".to_owned(),
            bytes => format!("{:?}", bytes as f64 / MEBIBYTE as f64),
        },
    );
    line(
        "compaction backlog",
        size(statistics.backlog_bytes, human_readable),
    );
    if statistics.running.is_empty() {
        return rows_text(&rows);
    }
    rows.push(row(match vtable {
        true => &RUNNING_AS_VTABLE,
        false => &RUNNING,
    }));
    let running = statistics.running.iter();
    rows.extend(running.map(|running| running_row(running, human_readable, vtable)));
    let left: u64 = statistics
        .running
        .iter()
        .map(|running| running.total_bytes.saturating_sub(running.completed_bytes))
        .sum();
    let remaining = match left.checked_div(throughput) {
        None => "n/a".to_owned(),
        Some(seconds) => format!("{}h{:02}m{:02}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    };
    rows.push(row(&["active compaction remaining time", &remaining]));
    rows_text(&rows)
}

const RUNNING: [&str; 8] = [
    "id",
    "compaction type",
    "keyspace",
    "table",
    "completed",
    "total",
    "unit",
    "progress",
];
const RUNNING_AS_VTABLE: [&str; 9] = [
    "keyspace",
    "table",
    "task id",
    "completion ratio",
    "kind",
    "progress",
    "total",
    "unit",
    "shard",
];

fn running_row(running: &RunningCompaction, human_readable: bool, vtable: bool) -> Vec<String> {
    let (keyspace, table) = (running.keyspace.clone(), running.table.clone());
    let (id, kind) = (running.id.clone(), running.compaction_type.clone());
    let completed = size(running.completed_bytes, human_readable);
    let total = size(running.total_bytes, human_readable);
    let unit = "bytes".to_owned();
    let progress = match running.total_bytes {
        0 => "n/a".to_owned(),
        total => format!("{:.2}%", running.completed_bytes as f64 / total as f64 * 100.0),
    };
    if vtable {
        let shard = running.shard.to_string();
        return vec![keyspace, table, id, progress, kind, completed, total, unit, shard];
    }
    vec![id, kind, keyspace, table, completed, total, unit, progress]
}

fn history_text(
    history: &CompactionHistory,
    human_readable: bool,
    format: Option<OutputFormat>,
) -> Result<String, String> {
    let merged = |past: &PastCompaction| {
        let counts = past.rows_merged.iter();
        let counts: Vec<String> = counts
            .map(|(inputs, count)| format!("{inputs}:{count}"))
            .collect();
        format!("{{{}}}", counts.join(", "))
    };
    let properties = |past: &PastCompaction| {
        let all = past.properties.iter();
        let all: Vec<String> = all.map(|(name, value)| format!("{name}:{value}")).collect();
        format!("{{{}}}", all.join(", "))
    };
    if format == Some(OutputFormat::Json) {
        let rows = history.compactions.iter().map(|past| {
            let bytes = |bytes: u64| match human_readable {
                true => json!(file_size(bytes)),
                false => json!(bytes),
            };
            json!({
                "id": past.id,
                "keyspace_name": past.keyspace,
                "columnfamily_name": past.table,
                "compacted_at": time(past.compacted_at_ms),
                "bytes_in": bytes(past.bytes_in),
                "bytes_out": bytes(past.bytes_out),
                "rows_merged": merged(past),
                "compaction_properties": properties(past),
            })
        });
        let document = json!({ "CompactionHistory": rows.collect::<Vec<Value>>() });
        return Ok(format!("{document}\n"));
    }
    if history.compactions.is_empty() {
        return Ok("Compaction History: \nThere is no compaction history\n".to_owned());
    }
    let rows = history.compactions.iter().map(|past| {
        vec![
            past.id.clone(),
            past.keyspace.clone(),
            past.table.clone(),
            time(past.compacted_at_ms),
            size(past.bytes_in, human_readable),
            size(past.bytes_out, human_readable),
            merged(past),
            properties(past),
        ]
    });
    let header = [
        "id",
        "keyspace_name",
        "columnfamily_name",
        "compacted_at",
        "bytes_in",
        "bytes_out",
        "rows_merged",
        "compaction_properties",
    ];
    Ok(format!(
        "Compaction History: \n{}",
        table_text(&header, rows.collect())
    ))
}

/// `2026-01-31T23:59:59.123`, in UTC. The calendar's rule is Howard Hinnant's `civil_from_days`.
fn time(milliseconds: i64) -> String {
    let days = milliseconds.div_euclid(86_400_000);
    let of_day = milliseconds.rem_euclid(86_400_000);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, fraction) = (of_day / 1000, of_day % 1000);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000");
        assert_eq!(time(951_782_399_999), "2000-02-28T23:59:59.999");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000");
        assert_eq!(time(1_795_370_096_005), "2026-11-22T17:54:56.005");
    }
}
