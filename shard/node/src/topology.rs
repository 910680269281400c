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
use ceto_native::Event;
use ceto_native::response::{StatusChangeKind, TopologyChangeKind};
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
    /// Failure detection holds it to be up, and it takes requests of other nodes.
    pub is_alive: bool,
    /// It takes connections of clients.
    pub serves_clients: bool,
    /// Where it is in its life.
    pub state: PeerState,
}

impl Peer {
    /// Where clients reach it.
    pub fn client_address(&self) -> SocketAddr {
        SocketAddr::new(self.rpc, self.native_port)
    }
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Who owns which tokens, this node among them; members that own none yet are in it without tokens.
    pub ring: Arc<Ring>,
    /// The ring that is being made of it, while nodes come or go: writes go to its replicas too.
    pub other: Option<Arc<Ring>>,
    /// The other nodes, sorted by host.
    pub peers: Vec<Peer>,
}

impl Topology {
    /// This node alone.
    pub fn alone(options: &NodeOptions) -> Topology {
        let ring = Ring::new([local_ring_node(options)]).expect("one node's tokens are its own");
        Topology {
            ring: Arc::new(ring),
            other: None,
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

/// What clients are told of a new topology, in the order in which they are told.
fn events(old: &Topology, new: &Topology) -> Vec<Event> {
    let is_shown = |peer: &&Peer| peer.state != PeerState::Joining;
    let shown = |topology: &'_ Topology, host| topology.peer(host).filter(is_shown).cloned();
    let changed = |change, peer: &Peer| Event::TopologyChange {
        change,
        address: peer.client_address(),
    };
    let status = |change, peer: &Peer| Event::StatusChange {
        change,
        address: peer.client_address(),
    };
    let mut events = Vec::new();
    for peer in old.peers.iter().filter(is_shown) {
        if shown(new, peer.host).is_none() {
            events.push(changed(TopologyChangeKind::RemovedNode, peer));
        }
    }
    for peer in new.peers.iter().filter(is_shown) {
        let before = shown(old, peer.host);
        match &before {
            None => events.push(changed(TopologyChangeKind::NewNode, peer)),
            Some(before) if before.tokens != peer.tokens => {
                events.push(changed(TopologyChangeKind::MovedNode, peer));
            }
            Some(_) => {}
        }
        let is_up = |peer: &Peer| peer.is_alive && peer.serves_clients;
        match (before.as_ref().is_some_and(is_up), is_up(peer)) {
            (false, true) => events.push(status(StatusChangeKind::Up, peer)),
            (true, false) => events.push(status(StatusChangeKind::Down, peer)),
            _ => {}
        }
    }
    events
}

impl Node {
    /// Tells this shard's clients what is new.
    fn notify_topology(&self, old: &Topology, new: &Topology) {
        let events = events(old, new);
        if events.is_empty() {
            return;
        }
        let connections: Vec<_> = self
            .connections
            .borrow()
            .iter()
            .filter_map(|(_, c)| c.upgrade())
            .collect();
        for connection in connections {
            events.iter().for_each(|event| connection.notify(event));
        }
    }

    /// The present topology.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
    }

    /// The ring.
    pub fn ring(&self) -> Arc<Ring> {
        self.topology.borrow().ring.clone()
    }

    /// This node's tokens: those of the ring, which may be another's that it has replaced, or those that it will have.
    pub fn tokens(&self) -> Vec<i64> {
        let ring = self.ring();
        let own = ring
            .index_of(HostId(self.options.host_id))
            .map(|at| ring.node(at));
        match own.filter(|own| !own.tokens.is_empty()) {
            Some(own) => own.tokens.iter().map(|token| token.0).collect(),
            None => self.options.tokens.clone(),
        }
    }

    /// Takes a new topology: replicas are placed anew, and peers that are down are not asked any more. Requests in flight
    /// keep the replicas they began with.
    pub fn install_topology(self: &Rc<Self>, topology: Arc<Topology>) {
        let local = HostId(self.options.host_id);
        debug_assert!(topology.peers.is_sorted_by_key(|peer| peer.host));
        debug_assert!(topology.peer(local).is_none(), "a node is not its own peer");
        let old = self.topology.replace(topology.clone());
        if !Arc::ptr_eq(&old.ring, &topology.ring) || old.other.is_some() || topology.other.is_some() {
            *self.replication.borrow_mut() = replica_maps(&self.schema(), &topology, local);
        }
        for gone in old.peers.iter().filter(|old| topology.peer(old.host).is_none()) {
            self.pump.set_alive(gone.host, true);
            self.paxos.set_alive(gone.host, true);
        }
        for peer in &topology.peers {
            self.pump.set_alive(peer.host, peer.is_alive);
            self.paxos.set_alive(peer.host, peer.is_alive);
        }
        self.update_links(&old, &topology);
        self.update_hints(&old, &topology);
        self.notify_topology(&old, &topology);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn peer(id: u8, state: PeerState, is_alive: bool) -> Peer {
        Peer {
            host: HostId(Uuid::from_u128(u128::from(id))),
            internode: SocketAddr::from(([127, 0, 0, id], 7000)),
            rpc: [127, 0, 0, id].into(),
            native_port: 9042,
            shard_count: 1,
            datacenter: "dc".into(),
            rack: "rack".into(),
            tokens: vec![Token(i64::from(id))],
            release_version: "5.0.0".into(),
            schema_version: Uuid::nil(),
            is_alive,
            serves_clients: true,
            state,
        }
    }

    fn told(old: &[Peer], new: &[Peer]) -> Vec<String> {
        let topology = |peers: &[Peer]| Topology {
            ring: Arc::default(),
            other: None,
            peers: peers.to_vec(),
        };
        events(&topology(old), &topology(new))
            .into_iter()
            .map(|event| match event {
                Event::TopologyChange { change, address } => format!("{} {address}", change.name()),
                Event::StatusChange { change, address } => format!("{} {address}", change.name()),
                Event::SchemaChange(_) => unreachable!("no schema changes"),
            })
            .collect()
    }

    #[test]
    fn clients_hear_of_nodes_once_they_serve() {
        use PeerState::{Joining, Leaving, Normal};
        let none: [&str; 0] = [];
        assert_eq!(told(&[], &[peer(2, Joining, true)]), none);
        assert_eq!(
            told(&[peer(2, Joining, true)], &[peer(2, Normal, true)]),
            ["NEW_NODE 127.0.0.2:9042", "UP 127.0.0.2:9042"]
        );
        assert_eq!(told(&[], &[peer(2, Normal, false)]), ["NEW_NODE 127.0.0.2:9042"]);
        assert_eq!(
            told(&[peer(2, Normal, true)], &[peer(2, Normal, false)]),
            ["DOWN 127.0.0.2:9042"]
        );
        assert_eq!(
            told(&[peer(2, Normal, false)], &[peer(2, Leaving, true)]),
            ["UP 127.0.0.2:9042"]
        );
        assert_eq!(
            told(&[peer(2, Normal, true)], &[]),
            ["REMOVED_NODE 127.0.0.2:9042"]
        );
        let starting = Peer {
            serves_clients: false,
            ..peer(2, Normal, true)
        };
        let (starting, serving) = (&[starting], &[peer(2, Normal, true)]);
        assert_eq!(told(&[peer(2, Normal, false)], starting), none);
        assert_eq!(told(starting, serving), ["UP 127.0.0.2:9042"]);
        assert_eq!(told(serving, starting), ["DOWN 127.0.0.2:9042"]);
        let moved = Peer {
            tokens: vec![Token(99)],
            ..peer(2, Normal, true)
        };
        assert_eq!(
            told(&[peer(2, Normal, true)], &[moved]),
            ["MOVED_NODE 127.0.0.2:9042"]
        );
    }
}
