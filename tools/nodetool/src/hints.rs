//! The verbs about hints.

use crate::api::{Done, Hints};
use crate::client::Client;
use crate::format::file_size;
use crate::run::fetch;

const HEADER: [&str; 7] = [
    "Host ID",
    "Address",
    "Rack",
    "DC",
    "Status",
    "Total files",
    "Total size",
];

/// Prints whether hints are kept.
pub(crate) fn status(client: &Client) -> Result<String, String> {
    let hints: Hints = fetch(client.get("/v1/hints", &[]))?;
    let running = if hints.enabled { "running" } else { "not running" };
    let mut text = format!("Hinted handoff is {running}\n");
    for datacenter in &hints.disabled_datacenters {
        text.push_str(&format!("Data center {datacenter} is disabled\n"));
    }
    Ok(text)
}

/// Keeps hints, or none.
pub(crate) fn enable(client: &Client, is_enabled: bool) -> Result<String, String> {
    let query = [("enabled", if is_enabled { "true" } else { "false" })];
    fetch(client.post::<Done>("/v1/hints/enable", &query)).map(|_| String::new())
}

/// Delivers no hints, or goes on.
pub(crate) fn pause(client: &Client, is_paused: bool) -> Result<String, String> {
    let query = [("paused", if is_paused { "true" } else { "false" })];
    fetch(client.post::<Done>("/v1/hints/pause", &query)).map(|_| String::new())
}

/// Removes the hints for some nodes, or all.
pub(crate) fn truncate(client: &Client, addresses: &[String]) -> Result<String, String> {
    if addresses.is_empty() {
        return fetch(client.post::<Done>("/v1/hints/truncate", &[])).map(|_| String::new());
    }
    for address in addresses {
        fetch(client.post::<Done>("/v1/hints/truncate", &[("address", address)]))?;
    }
    Ok(String::new())
}

/// Prints for whom hints wait.
pub(crate) fn list_pending(client: &Client) -> Result<String, String> {
    let hints: Hints = fetch(client.get("/v1/hints", &[]))?;
    if hints.pending.is_empty() {
        return Ok("This node does not have any pending hints\n".to_owned());
    }
    let mut rows = vec![HEADER.map(str::to_owned)];
    for pending in hints.pending {
        let known = |value: Option<String>| value.unwrap_or_else(|| "Unknown".to_owned());
        let status = pending
            .is_alive
            .map(|is_alive| if is_alive { "UP" } else { "DOWN" });
        rows.push([
            pending.host_id,
            known(pending.address),
            known(pending.rack),
            known(pending.datacenter),
            known(status.map(str::to_owned)),
            pending.files.to_string(),
            file_size(pending.bytes),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<String>>().join(" ").trim_end());
        text.push('\n');
    }
    Ok(text)
}
