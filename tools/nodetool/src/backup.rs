//! `snapshot`, `listsnapshots`, `clearsnapshot` and the verbs of incremental backups.

use std::ffi::OsString;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::api::{BackupStatus, Done, Snapshot, Snapshots};
use crate::client::Client;
use crate::format::file_size;
use crate::run::fetch;

/// The arguments of `snapshot`.
#[derive(Args, Debug)]
pub(crate) struct SnapshotArguments {
    /// The name of the snapshot; the present time in milliseconds when absent
    #[arg(short = 't', long, value_name = "TAG")]
    tag: Option<String>,
    /// The table name (you must specify one and only one keyspace for using this option)
    #[arg(
        long = "table",
        visible_alias = "column-family",
        alias = "cf",
        value_name = "TABLE"
    )]
    table: Option<String>,
    /// The list of keyspace.table, separated by commas (you must not specify keyspaces)
    #[arg(
        long = "kt-list",
        alias = "kt",
        alias = "kc",
        alias = "kc.list",
        value_name = "KTLIST"
    )]
    tables: Option<String>,
    /// Do not flush memtables before snapshotting (snapshot will not contain unflushed data)
    #[arg(long, alias = "sf")]
    skip_flush: bool,
    /// How long the snapshot is kept: 30m, 12h, 7d
    #[arg(long, value_name = "TTL")]
    ttl: Option<String>,
    /// Keyspaces; all when absent
    keyspaces: Vec<String>,
}

/// The arguments of `listsnapshots`.
#[derive(Args, Debug)]
pub(crate) struct ListSnapshotsArguments {
    /// Skip snapshots with TTL
    #[arg(long, alias = "nt")]
    no_ttl: bool,
    /// Include ephemeral snapshots
    #[arg(short, long)]
    ephemeral: bool,
}

/// The arguments of `clearsnapshot`.
#[derive(Args, Debug)]
pub(crate) struct ClearSnapshotArguments {
    /// Remove the snapshot with a given name
    #[arg(short = 't', value_name = "SNAPSHOT_NAME")]
    tag: Option<String>,
    /// Remove all snapshots
    #[arg(long)]
    all: bool,
    /// Keyspaces; all when absent
    keyspaces: Vec<String>,
}

/// The arguments of `refresh`.
#[derive(Args, Debug)]
pub(crate) struct RefreshArguments {
    /// The keyspace
    keyspace: String,
    /// The table
    table: String,
}

/// The arguments of `import`. Levels and repair marks are never kept, tokens always go to the shards that own them.
#[derive(Args, Debug)]
pub(crate) struct ImportArguments {
    /// Don't verify new sstables
    #[arg(short = 'v', long)]
    no_verify: bool,
    /// Don't verify that all tokens in the new sstable are owned by the current node
    #[arg(short = 't', long)]
    no_tokens: bool,
    /// Don't invalidate the row cache when importing
    #[arg(short = 'c', long)]
    no_invalidate_caches: bool,
    /// Do a quick import without verifying sstables
    #[arg(short, long)]
    quick: bool,
    /// Run an extended verify, verifying all values in the new sstables
    #[arg(short, long)]
    extended_verify: bool,
    /// Copy data from source directories instead of moving them (-p is the port here)
    #[arg(long)]
    copy_data: bool,
    /// The keyspace
    keyspace: String,
    /// The table
    table: String,
    /// Directories to import sstables from, on the node's machine
    #[arg(required = true)]
    directories: Vec<String>,
}

/// Nodetool has options of two letters behind one dash, which the parser here would take for two options.
pub(crate) fn two_letter_option(word: OsString) -> OsString {
    match word.to_str() {
        Some("-cf" | "-kt" | "-kc" | "-sf" | "-nt" | "-ns" | "-st" | "-et" | "-id") => {
            let mut doubled = OsString::from("-");
            doubled.push(&word);
            doubled
        }
        _ => word,
    }
}

/// Takes a snapshot.
pub(crate) fn snapshot(client: &Client, arguments: &SnapshotArguments) -> Result<String, String> {
    let tag = arguments.tag.clone().unwrap_or_else(now_millis);
    let tables = arguments.tables.as_ref().map(|tables| tables.replace(' ', ""));
    if tables.is_some() && (!arguments.keyspaces.is_empty() || arguments.table.is_some()) {
        return Err(
            "When specifying the Keyspace table list (using -kt,--kt-list,-kc,--kc.list), you must not also specify \
             keyspaces to snapshot"
                .to_owned(),
        );
    }
    let mut query = vec![("tag", tag.clone())];
    let mut options = format!("skipFlush={}", arguments.skip_flush);
    if arguments.skip_flush {
        query.push(("skip_flush", "true".to_owned()));
    }
    if let Some(ttl) = &arguments.ttl {
        query.push(("ttl_seconds", ttl_seconds(ttl)?.to_string()));
        options = format!("{options}, ttl={ttl}");
    }
    if !arguments.keyspaces.is_empty() {
        query.push(("keyspaces", arguments.keyspaces.join(",")));
    }
    query.extend(arguments.table.clone().map(|table| ("table", table)));
    let what = match (&tables, &arguments.keyspaces[..]) {
        (Some(tables), _) => tables.clone(),
        (None, []) => "all keyspaces".to_owned(),
        (None, keyspaces) => keyspaces.join(", "),
    };
    query.extend(tables.map(|tables| ("tables", tables)));
    let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
    fetch(client.post::<Done>("/v1/snapshots", &query))?;
    Ok(format!(
        "Requested creating snapshot(s) for [{what}] with snapshot name [{tag}] and options {{{options}}}\n\
         Snapshot directory: {tag}\n"
    ))
}

#[allow(clippy::disallowed_methods)] // a tool, outside of the simulator
fn now_millis() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().to_string()
}

/// A span with its unit, in seconds.
fn ttl_seconds(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(factor);
    seconds
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("Invalid duration: {text}; write it as 90s, 30m, 12h or 7d"))
}

/// Lists snapshots.
pub(crate) fn list_snapshots(client: &Client, arguments: &ListSnapshotsArguments) -> Result<String, String> {
    let mut query = Vec::new();
    if arguments.no_ttl {
        query.push(("no_ttl", "true"));
    }
    if arguments.ephemeral {
        query.push(("ephemeral", "true"));
    }
    let document: Snapshots = fetch(client.get("/v1/snapshots", &query))?;
    let mut text = "Snapshot Details: \n".to_owned();
    if document.snapshots.is_empty() {
        text.push_str("There are no snapshots\n");
        return Ok(text);
    }
    let mut rows = vec![heading()];
    rows.extend(document.snapshots.iter().map(cells));
    let columns = if arguments.ephemeral { COLUMNS } else { COLUMNS - 1 };
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let padded: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(text, "{}", padded.join(" ")).expect("writing to a string does not fail");
    }
    let total = file_size(document.total_true_size_bytes);
    writeln!(text, "\nTotal TrueDiskSpaceUsed: {total}\n").expect("writing to a string does not fail");
    Ok(text)
}

const COLUMNS: usize = 8;

fn heading() -> [String; COLUMNS] {
    [
        "Snapshot name",
        "Keyspace name",
        "Column family name",
        "True size",
        "Size on disk",
        "Creation time",
        "Expiration time",
        "Ephemeral",
    ]
    .map(str::to_owned)
}

fn cells(snapshot: &Snapshot) -> [String; COLUMNS] {
    [
        snapshot.name.clone(),
        snapshot.keyspace.clone(),
        snapshot.table.clone(),
        file_size(snapshot.true_size_bytes),
        file_size(snapshot.disk_size_bytes),
        snapshot.created_at.clone().unwrap_or_default(),
        snapshot.expires_at.clone().unwrap_or_default(),
        snapshot.ephemeral.to_string(),
    ]
}

/// Clears snapshots.
pub(crate) fn clear_snapshot(client: &Client, arguments: &ClearSnapshotArguments) -> Result<String, String> {
    match (&arguments.tag, arguments.all) {
        (None, false) => return Err("Specify snapshot name or --all".to_owned()),
        (Some(_), true) => return Err("Specify only one of snapshot name or --all".to_owned()),
        _ => {}
    }
    let keyspaces = arguments.keyspaces.join(",");
    let mut query = Vec::new();
    if let Some(tag) = &arguments.tag {
        query.push(("tag", tag.as_str()));
    }
    if !keyspaces.is_empty() {
        query.push(("keyspaces", keyspaces.as_str()));
    }
    fetch(client.post::<Done>("/v1/snapshots/clear", &query))?;
    let what = match &arguments.keyspaces[..] {
        [] => "all keyspaces".to_owned(),
        keyspaces => keyspaces.join(", "),
    };
    let which = match &arguments.tag {
        Some(tag) => format!("snapshot name [{tag}]"),
        None => "[all snapshots]".to_owned(),
    };
    Ok(format!(
        "Requested clearing snapshot(s) for [{what}] with {which}\n"
    ))
}

/// Loads what was put into a table's folder.
pub(crate) fn refresh(client: &Client, arguments: &RefreshArguments) -> Result<String, String> {
    let query = [
        ("keyspace", arguments.keyspace.as_str()),
        ("table", arguments.table.as_str()),
    ];
    fetch(client.post::<Done>("/v1/tables/refresh", &query))?;
    Ok("nodetool refresh is deprecated, use nodetool import instead\n".to_owned())
}

/// Loads the sstables of folders; all are tried.
pub(crate) fn import(client: &Client, arguments: &ImportArguments) -> Result<String, String> {
    let mut text = String::new();
    if arguments.quick {
        text.push_str("Doing a quick import - skipping sstable verification and row cache invalidation\n");
    }
    let mut failures = Vec::new();
    for directory in &arguments.directories {
        let mut query = vec![
            ("keyspace", arguments.keyspace.as_str()),
            ("table", arguments.table.as_str()),
            ("directory", directory.as_str()),
        ];
        if arguments.no_verify || arguments.quick {
            query.push(("no_verify", "true"));
        }
        if arguments.copy_data {
            query.push(("copy_data", "true"));
        }
        if let Err(error) = fetch(client.post::<Done>("/v1/tables/import", &query)) {
            failures.push(format!("{directory}: {error}"));
        }
    }
    if failures.is_empty() {
        return Ok(text);
    }
    Err(format!(
        "Some directories failed to import: {}",
        failures.join("; ")
    ))
}

/// Tells whether incremental backups are on.
pub(crate) fn status(client: &Client) -> Result<String, String> {
    let status: BackupStatus = fetch(client.get("/v1/backup/status", &[]))?;
    Ok(if status.running {
        "running\n"
    } else {
        "not running\n"
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(ttl_seconds(text), Ok(seconds));
        }
        for text in ["", "7", "d", "7w", "-1d", "99999999999999999999d"] {
            assert!(ttl_seconds(text).is_err(), "{text}");
        }
    }
}
