//! `nodetool status`: a table of nodes for each data centre.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::{ClusterStatus, NodeState, NodeStatus};
use crate::format::file_size;

/// Cells of one line: address, load, tokens, owns, host id, rack.
type Cells = [String; 6];

/// Writes the tables, data centres by name, nodes by address.
pub(crate) fn print(out: &mut dyn fmt::Write, status: &ClusterStatus) -> fmt::Result {
    let mut datacenters: BTreeMap<&str, Vec<&NodeStatus>> = BTreeMap::new();
    for node in &status.nodes {
        datacenters.entry(&node.datacenter).or_default().push(node);
    }
    let heading = heading(status.owns_effective);
    let widths = widths(status.nodes.iter().map(cells).chain([heading.clone()]));
    for (datacenter, mut nodes) in datacenters {
        nodes.sort_by(|left, right| left.address.cmp(&right.address));
        let title = format!("Datacenter: {datacenter}");
        writeln!(out, "{title}\n{}", "=".repeat(title.chars().count()))?;
        writeln!(out, "Status=Up/Down\n|/ State=Normal/Leaving/Joining/Moving")?;
        line(out, "--", &heading, &widths)?;
        for node in nodes {
            line(out, flags(node), &cells(node), &widths)?;
        }
        writeln!(out)?;
    }
    status
        .note
        .iter()
        .try_for_each(|note| writeln!(out, "Note: {note}"))
}

fn heading(effective: bool) -> Cells {
    let owns = if effective { "Owns (effective)" } else { "Owns" };
    ["Address", "Load", "Tokens", owns, "Host ID", "Rack"].map(str::to_owned)
}

fn cells(node: &NodeStatus) -> Cells {
    let unknown = || "?".to_owned();
    [
        node.address.clone(),
        node.load_bytes.map_or_else(unknown, file_size),
        node.tokens.to_string(),
        node.owns
            .map_or_else(unknown, |share| format!("{:.1}%", share * 100.0)),
        node.host_id.clone(),
        node.rack.clone(),
    ]
}

fn flags(node: &NodeStatus) -> &'static str {
    match (node.up, node.state) {
        (true, NodeState::Normal) => "UN",
        (true, NodeState::Leaving) => "UL",
        (true, NodeState::Joining) => "UJ",
        (true, NodeState::Moving) => "UM",
        (false, NodeState::Normal) => "DN",
        (false, NodeState::Leaving) => "DL",
        (false, NodeState::Joining) => "DJ",
        (false, NodeState::Moving) => "DM",
    }
}

fn widths(rows: impl Iterator<Item = Cells>) -> [usize; 6] {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

fn line(out: &mut dyn fmt::Write, flags: &str, cells: &Cells, widths: &[usize; 6]) -> fmt::Result {
    write!(out, "{flags}")?;
    for (cell, width) in cells.iter().zip(widths) {
        write!(out, "  {cell:<width$}")?;
    }
    writeln!(out)
}
