//! Which nodes hold a token's replicas: Cassandra's walks around the ring.

use smallvec::SmallVec;

use super::Strategy;
use crate::ring::{Datacenter, Location, NodeIndex, Ring};

/// Nodes in natural order: the first one is the primary replica.
pub(super) type Nodes = SmallVec<[NodeIndex; 6]>;

/// Replicas of the tokens that the ring's token at `start` owns.
pub(super) fn place(strategy: &Strategy, ring: &Ring, start: usize) -> Nodes {
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
