//! The topology as this node sees it: the ring, and for each peer where it is reached and how it is.
//!
//! A value, as the schema is: the control thread makes a new one when gossip or a topology change says so, and installs
//! it on every shard ([`Node::install_topology`]). A shard never changes it and asks nobody about it.
//!
//! Never: this node among its own peers, a peer twice, or a topology that is not of this shard's ring.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ceto_cluster::{Ring, RingNode};
use ceto_internode::HostId;
use ceto_model::Token;
use uuid::Uuid;

use crate::node::Node;
use crate::node::replica_maps;
use crate::options::NodeOptions;

/// Where a node is in its life as a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerState {
    /// It owns its tokens.
    Normal,
    /// It receives the data of the tokens it will own; it is not in the ring yet.
    Joining,
    /// It gives its data away; it is in the ring.
    Leaving,
    /// It gets other tokens; it is in the ring with the present ones.
    Moving,
}

impl PeerState {
    /// As `nodetool status` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Joining => "JOINING",
            Self::Leaving => "LEAVING",
            Self::Moving => "MOVING",
        }
    }
}

/// Another node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Identity.
    pub host: HostId,
    /// Where other nodes reach it (`broadcast_address` and `storage_port`).
    pub internode: SocketAddr,
    /// Where clients reach it (`broadcast_rpc_address`).
    pub rpc: IpAddr,
    /// Its CQL port.
    pub native_port: u16,
    /// Its shards; at least 1.
    pub shard_count: u16,
    /// Data center.
    pub datacenter: Arc<str>,
    /// Rack.
    pub rack: Arc<str>,
    /// Its tokens, sorted.
    pub tokens: Vec<Token>,
    /// What clients are told of its version.
    pub release_version: Arc<str>,
    /// Its schema's version.
    pub schema_version: Uuid,
    /// Failure detection holds it to be up.
    pub is_alive: bool,
    /// Where it is in its life.
    pub state: PeerState,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Who owns which tokens, this node among them.
    pub ring: Arc<Ring>,
    /// The other nodes, sorted by host.
    pub peers: Vec<Peer>,
}

impl Topology {
    /// This node alone.
    pub fn alone(options: &NodeOptions) -> Topology {
        let ring = Ring::new([local_ring_node(options)]).expect("one node's tokens are its own");
        Topology {
            ring: Arc::new(ring),
            peers: Vec::new(),
        }
    }

    /// The peer with this identity.
    pub fn peer(&self, host: HostId) -> Option<&Peer> {
        let at = self.peers.binary_search_by_key(&host, |peer| peer.host).ok()?;
        self.peers.get(at)
    }
}

/// This node as a member of the ring.
pub fn local_ring_node(options: &NodeOptions) -> RingNode {
    RingNode {
        host: HostId(options.host_id),
        datacenter: options.datacenter.as_str().into(),
        rack: options.rack.as_str().into(),
        tokens: options.tokens.iter().map(|token| Token(*token)).collect(),
    }
}

impl Node {
    /// The present topology.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
    }

    /// The ring.
    pub fn ring(&self) -> Arc<Ring> {
        self.topology.borrow().ring.clone()
    }

    /// Takes a new topology: replicas are placed anew, and peers that are down are not asked any more. Requests in flight
    /// keep the replicas they began with.
    pub fn install_topology(self: &Rc<Self>, topology: Arc<Topology>) {
        let local = HostId(self.options.host_id);
        debug_assert!(topology.peers.is_sorted_by_key(|peer| peer.host));
        debug_assert!(topology.peer(local).is_none(), "a node is not its own peer");
        let old = self.topology.replace(topology.clone());
        if !Arc::ptr_eq(&old.ring, &topology.ring) {
            *self.replication.borrow_mut() = replica_maps(&self.schema(), &topology.ring, local);
        }
        for gone in old.peers.iter().filter(|old| topology.peer(old.host).is_none()) {
            self.pump.set_alive(gone.host, true);
        }
        for peer in &topology.peers {
            self.pump.set_alive(peer.host, peer.is_alive);
        }
    }
}
