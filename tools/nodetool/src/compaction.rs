//! The verbs about compaction.

use std::fmt::Write;

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
            Ok(format!("Current concurrent compactors in the system is: {all}\n"))
        }
        Verb::Enableautocompaction(target) => switch(client, target, "true").map(nothing),
        Verb::Disableautocompaction(target) => switch(client, target, "false").map(nothing),
        Verb::Statusautocompaction { all, target } => automatic(client, *all, target),
        _ => Err("not a verb about compaction".to_owned()),
    }
}

fn compact(client: &Client, arguments: &CompactArguments) -> Result<(), String> {
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
    let bytes = throughput.bytes_per_second;
    if precise {
        let mebibytes = bytes as f64 / MEBIBYTE as f64;
        return Ok(format!("Current compaction throughput: {mebibytes:?} MiB/s\n"));
    }
    Ok(format!(
        "Current compaction throughput: {} MiB/s\n",
        bytes / MEBIBYTE
    ))
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

/// Columns as wide as their widest cell, one space between them.
fn table_text(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut lines = vec![
        header
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<String>>(),
    ];
    lines.extend(rows);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let cells: Vec<String> = cells.collect();
        text.push_str(cells.join(" ").trim_end());
        text.push('\n');
    }
    text
}

fn statistics_text(statistics: &CompactionStatistics, human_readable: bool, vtable: bool) -> String {
    let mut text = String::new();
    let pending: u64 = statistics.pending.iter().map(|pending| pending.tasks).sum();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<37}{value}").expect("writing to a string does not fail");
    };
    line(
        "concurrent compactors",
        statistics.concurrent_compactors.to_string(),
    );
    line("pending tasks", pending.to_string());
    for table in &statistics.pending {
        line(&table.keyspace, format!("{} {}", table.table, table.tasks));
    }
    line("compactions completed", statistics.completed.to_string());
    line("compactions aborted", statistics.aborted.to_string());
    line("compactions reduced", statistics.reduced.to_string());
    line(
        "compaction backlog",
        size(statistics.backlog_bytes, human_readable),
    );
    let throughput = statistics.throughput_bytes_per_second;
    line(
        "compaction throughput (MiB/s)",
        match throughput {
            0 => "throttling disabled (0)".to_owned(),
            bytes => format!("{:?}", bytes as f64 / MEBIBYTE as f64),
        },
    );
    if statistics.running.is_empty() {
        return text;
    }
    let progress = |running: &RunningCompaction| match running.total_bytes {
        0 => "n/a".to_owned(),
        total => format!("{:.2}%", running.completed_bytes as f64 / total as f64 * 100.0),
    };
    if vtable {
        let rows = statistics.running.iter().map(|running| {
            vec![
                running.keyspace.clone(),
                running.table.clone(),
                running.id.clone(),
                progress(running),
                running.compaction_type.clone(),
                size(running.completed_bytes, human_readable),
                running.shard.to_string(),
                size(running.total_bytes, human_readable),
                "bytes".to_owned(),
            ]
        });
        let header = [
            "keyspace",
            "table",
            "task id",
            "completion ratio",
            "kind",
            "progress",
            "shard",
            "total",
            "unit",
        ];
        text.push_str(&table_text(&header, rows.collect()));
    } else {
        let rows = statistics.running.iter().map(|running| {
            vec![
                running.id.clone(),
                running.compaction_type.clone(),
                running.keyspace.clone(),
                running.table.clone(),
                size(running.completed_bytes, human_readable),
                size(running.total_bytes, human_readable),
                "bytes".to_owned(),
                progress(running),
            ]
        });
        let header = [
            "id",
            "compaction type",
            "keyspace",
            "table",
            "completed",
            "total",
            "unit",
            "progress",
        ];
        text.push_str(&table_text(&header, rows.collect()));
    }
    let left: u64 = statistics
        .running
        .iter()
        .map(|running| running.total_bytes.saturating_sub(running.completed_bytes))
        .sum();
    let remaining = match left.checked_div(throughput) {
        None => "n/a".to_owned(),
        Some(seconds) => format!(
            "{:>3}h{:02}m{:02}s",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
    };
    writeln!(text, "Active compaction remaining time : {remaining:>10}")
        .expect("writing to a string does not fail");
    text
}

fn history_text(
    history: &CompactionHistory,
    human_readable: bool,
    format: Option<OutputFormat>,
) -> Result<String, String> {
    if format == Some(OutputFormat::Json) {
        let text = serde_json::to_string_pretty(history).map_err(|error| error.to_string())?;
        return Ok(text + "\n");
    }
    if history.compactions.is_empty() {
        return Ok("There is no compaction history\n".to_owned());
    }
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
