//! The shape of a simulated cluster: nodes, data centers, tokens, replication.

use std::sync::Arc;

use ceto_cluster::ring::random_tokens;
use ceto_cluster::{HostId, Random, Ring, RingNode, Strategy};
use uuid::Uuid;

/// A cluster to be.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its ring; node `i` of the simulation is the ring's node `i`.
    pub ring: Arc<Ring>,
    /// Replication of the one keyspace.
    pub strategy: Strategy,
}

impl Shape {
    /// `datacenters[i]` nodes in data center `dc{i+1}`, each node in a rack of its own, with `num_tokens` tokens.
    pub fn new(random: &mut Random, datacenters: &[usize], num_tokens: usize, strategy: Strategy) -> Shape {
        let mut nodes: Vec<RingNode> = Vec::new();
        for (at, count) in datacenters.iter().enumerate() {
            for rack in 0..*count {
                let ring = Ring::new(nodes.iter().cloned()).expect("tokens are drawn to be free");
                nodes.push(RingNode {
                    host: host(nodes.len()),
                    datacenter: format!("dc{}", at + 1).into(),
                    rack: format!("rack{}", rack + 1).into(),
                    tokens: random_tokens(random, num_tokens, &ring),
                });
            }
        }
        Shape {
            ring: Arc::new(Ring::new(nodes).expect("tokens are drawn to be free")),
            strategy,
        }
    }

    /// The shape of a run.
    pub fn of_seed(seed: u64) -> Shape {
        let mut random = Random::salted(seed, "shape");
        let num_tokens = random.between(1..=4) as usize;
        match random.below(3) {
            0 => {
                let nodes = random.between(2..=3) as usize;
                let strategy = Strategy::Simple {
                    replication_factor: nodes as u32,
                };
                Shape::new(&mut random, &[nodes], num_tokens, strategy)
            }
            1 => {
                let nodes = random.between(3..=6) as usize;
                let strategy = network(&[random.between(1..=3) as u32]);
                Shape::new(&mut random, &[nodes], num_tokens, strategy)
            }
            _ => {
                let nodes = [random.between(2..=3) as usize, random.between(2..=3) as usize];
                let replicas = nodes.map(|nodes| random.between(1..=nodes as u64) as u32);
                Shape::new(&mut random, &nodes, num_tokens, network(&replicas))
            }
        }
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.ring.nodes().len()
    }
}

fn network(replicas: &[u32]) -> Strategy {
    let datacenters = replicas
        .iter()
        .enumerate()
        .map(|(at, replicas)| (format!("dc{}", at + 1), *replicas));
    Strategy::NetworkTopology {
        datacenters: datacenters.collect(),
    }
}

/// Identity of the `at`th node.
pub fn host(at: usize) -> HostId {
    HostId(Uuid::from_u128(
        0x5eed_0000_0000_4000_8000_0000_0000_0000 + at as u128,
    ))
}
