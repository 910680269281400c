//! Which nodes hold a token's replicas: Cassandra's walks around the ring.

use ceto_model::Token;
use smallvec::SmallVec;

use super::Strategy;
use crate::ring::{Datacenter, HostId, Location, NodeIndex, Ring};

/// Nodes in natural order: the first one is the primary replica.
pub(super) type Nodes = SmallVec<[NodeIndex; 6]>;

/// The same, by identity.
pub(super) type Hosts = SmallVec<[HostId; 6]>;

/// The tokens of both rings, in order: between two of them all tokens have the same replicas, in either ring.
pub(super) fn ends(ring: &Ring, other: Option<&Ring>) -> Vec<Token> {
    let rings = [Some(ring), other];
    let tokens = rings.into_iter().flatten().flat_map(Ring::tokens);
    let mut ends: Vec<Token> = tokens.map(|(token, _)| *token).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// Replicas of a token; none in a ring without tokens.
pub(super) fn place_token(strategy: &Strategy, ring: &Ring, token: Token) -> Nodes {
    ring.owner_at(token)
        .map_or_else(Nodes::new, |at| place(strategy, ring, at))
}

/// Who these are.
pub(super) fn hosts(strategy: &Strategy, ring: &Ring, token: Token) -> Hosts {
    let nodes = place_token(strategy, ring, token);
    nodes.into_iter().map(|node| ring.node(node).host).collect()
}

/// Replicas of the tokens that the ring's token at `start` owns.
fn place(strategy: &Strategy, ring: &Ring, start: usize) -> Nodes {
    match strategy {
        Strategy::Local => Nodes::new(),
        Strategy::Simple { replication_factor } => simple(ring, start, *replication_factor as usize),
        Strategy::NetworkTopology { datacenters } => network_topology(ring, start, datacenters),
    }
}

fn simple(ring: &Ring, start: usize, replication_factor: usize) -> Nodes {
    let mut nodes = Nodes::new();
    for node in ring.walk(start) {
        if nodes.len() >= replication_factor {
            break;
        }
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    nodes
}

/// What one data center still needs during the walk.
struct Wanted {
    datacenter: Datacenter,
    replicas_left: usize,
    /// Replicas that may share a rack with another, because there are fewer racks than replicas.
    rack_repeats_left: usize,
}

/// One pass for all data centers. A node is taken when its rack is new in its data center; or, while the data center
/// has fewer racks than replicas, when it comes before enough rack-sharing nodes have been taken.
fn network_topology(ring: &Ring, start: usize, datacenters: &[(String, u32)]) -> Nodes {
    let mut wanted: SmallVec<[Wanted; 4]> = datacenters
        .iter()
        .filter_map(|(name, replicas)| {
            let datacenter = ring.datacenter(name)?;
            let replicas = *replicas as usize;
            Some(Wanted {
                datacenter,
                replicas_left: replicas.min(ring.node_count(datacenter)),
                rack_repeats_left: replicas.saturating_sub(ring.rack_count(datacenter)),
            })
        })
        .filter(|wanted| wanted.replicas_left > 0)
        .collect();
    let mut nodes = Nodes::new();
    let mut racks: SmallVec<[Location; 8]> = SmallVec::new();
    for node in ring.walk(start) {
        if wanted.iter().all(|wanted| wanted.replicas_left == 0) {
            break;
        }
        let location = ring.location(node);
        let Some(wanted) = wanted
            .iter_mut()
            .find(|wanted| wanted.datacenter == location.datacenter && wanted.replicas_left > 0)
        else {
            continue;
        };
        if nodes.contains(&node) {
            continue;
        }
        if !racks.contains(&location) {
            racks.push(location);
        } else if wanted.rack_repeats_left > 0 {
            wanted.rack_repeats_left -= 1;
        } else {
            continue;
        }
        wanted.replicas_left -= 1;
        nodes.push(node);
    }
    nodes
}
