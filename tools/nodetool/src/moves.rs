//! `decommission`, `removenode`, `rebuild`, `netstats`: nodes that come and go.

use std::fmt::{self, Write};

use clap::Args;

use crate::api::{Copying, DryRun, MoveOperation, Moves};
use crate::client::Client;
use crate::run::fetch;

/// `decommission`
#[derive(Args, Debug)]
pub(crate) struct DecommissionArguments {
    /// Leave also when keyspaces have fewer replicas then than they want
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only say what would move where
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `removenode`
#[derive(Args, Debug)]
pub(crate) struct RemoveNodeArguments {
    /// status, force, or the host id of the node that is down
    #[arg(value_name = "STATUS|FORCE|ID")]
    pub(crate) what: String,
    /// Only say what would move where
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `rebuild`
#[derive(Args, Debug)]
pub(crate) struct RebuildArguments {
    /// Only from nodes of this data center
    #[arg(value_name = "SRC-DC-NAME")]
    pub(crate) datacenter: Option<String>,
    /// Only this keyspace
    #[arg(long = "keyspace", visible_alias = "ks", value_name = "KEYSPACE")]
    pub(crate) keyspace: Option<String>,
    /// Only say what would move where
    #[arg(long)]
    pub(crate) dry_run: bool,
}

fn order(client: &Client, path: &str, mut query: Vec<(&str, &str)>, dry_run: bool) -> Result<String, String> {
    if dry_run {
        query.push(("dry_run", "true"));
    }
    let answer: DryRun = fetch(client.post(path, &query))?;
    let mut text = String::new();
    if dry_run {
        print_plan(&mut text, &answer).expect("writing to a string does not fail");
    }
    Ok(text)
}

/// Makes this node leave.
pub(crate) fn decommission(client: &Client, arguments: &DecommissionArguments) -> Result<String, String> {
    let force = arguments.force.then_some(("force", "true"));
    let query = force.into_iter().collect();
    order(client, "/v1/cluster/decommission", query, arguments.dry_run)
}

/// Has a node that leaves stay.
pub(crate) fn abort_decommission(client: &Client, node: Option<&String>) -> Result<String, String> {
    let query = node.iter().map(|node| ("host", node.as_str())).collect();
    order(client, "/v1/cluster/decommission/abort", query, false)
}

/// Removes a node that is down, or says how far that is.
pub(crate) fn remove_node(client: &Client, arguments: &RemoveNodeArguments) -> Result<String, String> {
    match arguments.what.as_str() {
        "status" => removal_status(client),
        "force" => order(client, "/v1/cluster/remove/force", Vec::new(), false),
        host => order(
            client,
            "/v1/cluster/remove",
            vec![("host", host)],
            arguments.dry_run,
        ),
    }
}

fn removal_status(client: &Client) -> Result<String, String> {
    let moves: Moves = fetch(client.get("/v1/cluster/moves", &[]))?;
    let Some(moving) = moves.moving.filter(|moving| !moving.is_joining) else {
        return Ok("RemovalStatus: No token removals in process.\n".to_owned());
    };
    let operation = moves.operation.filter(|operation| !operation.has_ended);
    let waiting: Vec<String> = operation
        .iter()
        .flat_map(|operation| &operation.nodes)
        .filter(|(_, copying)| !copying.has_ended)
        .map(|(address, _)| format!("/{address}"))
        .collect();
    Ok(format!(
        "RemovalStatus: Removing token of {} ({}). Waiting for replication confirmation from [{}].\n",
        moving.address,
        moving.host_id,
        waiting.join(",")
    ))
}

/// Copies what this node owns from others.
pub(crate) fn rebuild(client: &Client, arguments: &RebuildArguments) -> Result<String, String> {
    let datacenter = arguments.datacenter.as_deref().map(|name| ("datacenter", name));
    let keyspace = arguments.keyspace.as_deref().map(|name| ("keyspace", name));
    let query = datacenter.into_iter().chain(keyspace).collect();
    order(client, "/v1/cluster/rebuild", query, arguments.dry_run)
}

/// What moves between nodes.
pub(crate) fn netstats(client: &Client) -> Result<String, String> {
    let moves: Moves = fetch(client.get("/v1/cluster/moves", &[]))?;
    let mut text = String::new();
    print(&mut text, &moves).expect("writing to a string does not fail");
    Ok(text)
}

fn print(out: &mut dyn Write, moves: &Moves) -> fmt::Result {
    writeln!(out, "Mode: {}", moves.mode)?;
    if let Some(moving) = &moves.moving {
        let verb = if moving.is_joining { "joins" } else { "leaves" };
        writeln!(out, "/{} ({}) {verb}", moving.address, moving.host_id)?;
    }
    let is_running = |copying: &&Copying| !copying.has_ended;
    let receiving = moves.receiving.as_ref().filter(is_running);
    if let Some(copying) = receiving {
        writeln!(out, "Receiving")?;
        print_copying(out, copying)?;
    }
    let is_running = |operation: &&MoveOperation| !operation.has_ended;
    // Who joins drives itself, and what it receives is said already.
    let operation = moves
        .operation
        .as_ref()
        .filter(is_running)
        .filter(|_| moves.mode != "JOINING");
    if let Some(operation) = operation {
        writeln!(out, "For /{} to come or go", operation.address)?;
        for (address, copying) in &operation.nodes {
            writeln!(out, "  /{address} receives")?;
            print_copying(out, copying)?;
        }
    }
    if receiving.is_none() && operation.is_none() {
        writeln!(out, "Not sending any streams.")?;
    }
    Ok(())
}

fn print_copying(out: &mut dyn Write, copying: &Copying) -> fmt::Result {
    let Copying {
        parts, parts_done, ..
    } = copying;
    let percent = 100.0 * *parts_done as f64 / (*parts).max(1) as f64;
    write!(out, "    {parts_done} of {parts} parts ({percent:.2}%)")?;
    match (copying.seconds_left, copying.has_ended) {
        (_, true) => writeln!(out, ", done")?,
        (Some(seconds), _) => writeln!(out, ", about {seconds} s left")?,
        (None, _) => writeln!(out)?,
    }
    for (from, bytes) in &copying.received_bytes {
        writeln!(out, "    {bytes} bytes from /{from}")?;
    }
    copying
        .failure
        .iter()
        .try_for_each(|failure| writeln!(out, "    failed: {failure}"))
}

fn print_plan(out: &mut dyn Write, plan: &DryRun) -> fmt::Result {
    if plan.moves.is_empty() {
        return writeln!(out, "Nothing would be copied.");
    }
    for line in &plan.moves {
        writeln!(
            out,
            "/{} would copy {:.2}% of the ring of keyspace {} from /{}",
            line.to,
            line.share * 100.0,
            line.keyspace,
            line.from
        )?;
    }
    Ok(())
}
