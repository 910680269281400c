//! `describecluster`, `gossipinfo`, `failuredetector`, `ring`, `describering`: what a node knows of its cluster.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::api::{
    ClusterDescription, Endpoints, GossipState, NodeState, RangeList, RingList, RingToken, Suspicions,
};
use crate::client::Client;
use crate::format::file_size;
use crate::run::fetch;

/// As Cassandra's `SimpleSnitch` and `GossipingPropertyFileSnitch`: data center and rack are what each node says.
const SNITCH: &str = "org.apache.cassandra.locator.GossipingPropertyFileSnitch";

const PARTITIONER: &str = "org.apache.cassandra.dht.Murmur3Partitioner";

fn by_keyspace(keyspace: Option<&String>) -> Vec<(&str, &str)> {
    keyspace.iter().map(|name| ("keyspace", name.as_str())).collect()
}

/// `describecluster`
pub(crate) fn describe(client: &Client) -> Result<String, String> {
    let cluster: ClusterDescription = fetch(client.get("/v1/cluster", &[]))?;
    let mut text = String::new();
    print_description(&mut text, &cluster).expect("writing to a string does not fail");
    Ok(text)
}

fn print_description(out: &mut dyn Write, cluster: &ClusterDescription) -> fmt::Result {
    writeln!(
        out,
        "Cluster Information:\n\tName: {}\n\tSnitch: {SNITCH}",
        cluster.name
    )?;
    writeln!(
        out,
        "\tDynamicEndPointSnitch: disabled\n\tPartitioner: {PARTITIONER}"
    )?;
    writeln!(out, "\tSchema versions:")?;
    let mut schemas: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut releases: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut datacenters: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for node in &cluster.nodes {
        let schema = match &node.schema_version {
            Some(version) if node.up => version,
            _ => "UNREACHABLE",
        };
        schemas.entry(schema).or_default().push(&node.address);
        let address = format!("{}:{}", node.address, node.port);
        releases.entry(&node.release_version).or_default().push(address);
        let (nodes, down) = datacenters.entry(&node.datacenter).or_default();
        *nodes += 1;
        *down += usize::from(!node.up);
    }
    for (version, addresses) in schemas {
        writeln!(out, "\t\t{version}: [{}]\n", addresses.join(", "))?;
    }
    let nodes_in = |state| cluster.nodes.iter().filter(|node| node.state == state).count();
    let up = cluster.nodes.iter().filter(|node| node.up).count();
    writeln!(
        out,
        "Stats for all nodes:\n\tLive: {up}\n\tJoining: {}",
        nodes_in(NodeState::Joining)
    )?;
    writeln!(
        out,
        "\tMoving: {}\n\tLeaving: {}",
        nodes_in(NodeState::Moving),
        nodes_in(NodeState::Leaving)
    )?;
    writeln!(
        out,
        "\tUnreachable: {}\n\nData Centers: ",
        cluster.nodes.len() - up
    )?;
    for (name, (nodes, down)) in datacenters {
        writeln!(out, "\t{name} #Nodes: {nodes} #Down: {down}")?;
    }
    writeln!(out, "\nDatabase versions:")?;
    for (release, addresses) in releases {
        writeln!(out, "\t{release}: [{}]\n", addresses.join(", "))?;
    }
    writeln!(out, "Keyspaces:")?;
    for (name, replication) in &cluster.keyspaces {
        let options = replication.options.iter();
        let options: Vec<String> = options.map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(
            out,
            "\t{name} -> Replication class: {} {{{}}}",
            replication.class,
            options.join(", ")
        )?;
    }
    Ok(())
}

/// `gossipinfo`
pub(crate) fn gossip(client: &Client) -> Result<String, String> {
    let gossip: GossipState = fetch(client.get("/v1/cluster/gossip", &[]))?;
    let mut nodes = gossip.nodes;
    nodes.sort_by(|left, right| left.address.cmp(&right.address));
    let mut text = String::new();
    for node in nodes {
        let head = format!(
            "/{}\n  generation:{}\n  heartbeat:{}\n",
            node.address, node.generation, node.heartbeat
        );
        text.push_str(&head);
        for (key, said) in &node.values {
            let value = match key.as_str() {
                // As long as a node has tokens.
                "TOKENS" => "<hidden>",
                _ => &said.value,
            };
            text.push_str(&format!("  {key}:{}:{value}\n", said.version));
        }
        if !node.values.contains_key("TOKENS") {
            text.push_str("  TOKENS: not present\n");
        }
    }
    Ok(text)
}

/// `failuredetector`
pub(crate) fn failure_detector(client: &Client) -> Result<String, String> {
    let suspicions: Suspicions = fetch(client.get("/v1/cluster/phi", &[]))?;
    let mut text = format!("{:>10},{:>16}\n", "Endpoint", "Phi");
    for node in suspicions.nodes {
        text.push_str(&format!("{:>10},{:>16.8}\n", node.address, node.phi));
    }
    Ok(text)
}

/// `ring`
pub(crate) fn ring(client: &Client, keyspace: Option<&String>) -> Result<String, String> {
    let ring: RingList = fetch(client.get("/v1/cluster/ring", &by_keyspace(keyspace)))?;
    let mut text = String::new();
    print_ring(&mut text, &ring).expect("writing to a string does not fail");
    Ok(text)
}

fn print_ring(out: &mut dyn Write, ring: &RingList) -> fmt::Result {
    let width = ring
        .tokens
        .iter()
        .map(|token| token.address.len())
        .max()
        .unwrap_or_default();
    let line = |cells: [&str; 7], out: &mut dyn Write| {
        let [address, rack, status, state, load, owns, token] = cells;
        writeln!(
            out,
            "{address:<width$}  {rack:<12}{status:<7}{state:<8}{load:<16}{owns:<20}{token:<44}"
        )
    };
    let mut datacenters: BTreeMap<&str, Vec<&RingToken>> = BTreeMap::new();
    for token in &ring.tokens {
        datacenters.entry(&token.datacenter).or_default().push(token);
    }
    writeln!(out)?;
    for (datacenter, tokens) in &datacenters {
        writeln!(out, "Datacenter: {datacenter}\n==========")?;
        line(
            ["Address", "Rack", "Status", "State", "Load", "Owns", "Token"],
            out,
        )?;
        match &tokens[..] {
            [.., _, last] => line(["", "", "", "", "", "", &last.token], out)?,
            _ => writeln!(out)?,
        }
        for token in tokens {
            let state = match token.state {
                NodeState::Normal => "Normal",
                NodeState::Leaving => "Leaving",
                NodeState::Joining => "Joining",
                NodeState::Moving => "Moving",
            };
            let load = token.load_bytes.map_or_else(|| "?".to_owned(), file_size);
            let owns = token
                .owns
                .map_or_else(|| "?".to_owned(), |share| format!("{:.2}%", share * 100.0));
            let status = if token.up { "Up" } else { "Down" };
            line(
                [
                    &token.address,
                    &token.rack,
                    status,
                    state,
                    &load,
                    &owns,
                    &token.token,
                ],
                out,
            )?;
        }
        writeln!(out)?;
    }
    let addresses = ring.tokens.iter().map(|token| &token.address);
    let nodes: std::collections::BTreeSet<&String> = addresses.collect();
    if nodes.len() < ring.tokens.len() {
        writeln!(
            out,
            "  Warning: \"nodetool ring\" is used to output all the tokens of a node."
        )?;
        writeln!(
            out,
            "  To view status related info of a node use \"nodetool status\" instead.\n"
        )?;
    }
    write!(out, "\n  ")?;
    ring.note
        .iter()
        .try_for_each(|note| writeln!(out, "Note: {note}"))
}

/// `describering`
pub(crate) fn describe_ring(client: &Client, keyspace: &str) -> Result<String, String> {
    let list: RangeList = fetch(client.get("/v1/cluster/ranges", &[("keyspace", keyspace)]))?;
    let mut text = format!("Schema Version:{}\nTokenRange: \n", list.schema_version);
    for range in &list.ranges {
        let joined = |cell: &dyn Fn(&crate::api::RangeReplica) -> String| {
            let cells: Vec<String> = range.replicas.iter().map(cell).collect();
            cells.join(", ")
        };
        let details = joined(&|replica| {
            format!(
                "EndpointDetails(host:{}, datacenter:{}, rack:{})",
                replica.address, replica.datacenter, replica.rack
            )
        });
        text.push_str(&format!(
            "\tTokenRange(start_token:{}, end_token:{}, endpoints:[{}], rpc_endpoints:[{}], endpoint_details:[{details}])\n",
            range.start,
            range.end,
            joined(&|replica| replica.address.clone()),
            joined(&|replica| replica.rpc_address.clone()),
        ));
    }
    Ok(text)
}

/// Prints where a partition lies.
pub(crate) fn endpoints(client: &Client, keyspace: &str, table: &str, key: &str) -> Result<String, String> {
    let query = [("keyspace", keyspace), ("table", table), ("key", key)];
    let found: Endpoints = fetch(client.get("/v1/cluster/endpoints", &query))?;
    Ok(found
        .endpoints
        .iter()
        .map(|address| format!("{address}\n"))
        .collect())
}
