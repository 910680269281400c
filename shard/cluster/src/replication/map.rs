//! The replica map: a strategy applied to a ring, computed once and then looked up by token.
//!
//! Made anew when the ring or the keyspace's replication changes, shared by all requests of the keyspace. A lookup is
//! a binary search over the ring's tokens and touches no allocator; on a ring where all tokens have the same replicas
//! (one node, say) it is nothing at all.

use std::sync::Arc;

use ceto_model::{Consistency, PartitionRange, RingPosition, Token};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::{Strategy, placement};
use crate::consistency::block_for;
use crate::ring::{Datacenter, HostId, NodeIndex, Ring};

/// A node in its part as replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    /// Who.
    pub host: HostId,
    /// Where.
    pub datacenter: Datacenter,
}

/// The replicas of some tokens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaSet {
    natural: Vec<Replica>,
    nearest: Vec<Replica>,
}

impl ReplicaSet {
    /// In placement order, the primary replica first.
    pub fn natural(&self) -> &[Replica] {
        &self.natural
    }

    /// Nearest first: the node itself, its rack, its data center, the rest; else in placement order.
    pub fn nearest(&self) -> &[Replica] {
        &self.nearest
    }

    /// The only replica.
    pub fn single(&self) -> Option<&Replica> {
        match &self.natural[..] {
            [single] => Some(single),
            _ => None,
        }
    }
}

/// Where a keyspace's tokens lie, as one node sees it.
#[derive(Debug)]
pub struct ReplicaMap {
    ring: Arc<Ring>,
    strategy: Strategy,
    local: HostId,
    local_datacenter: Datacenter,
    sets: Vec<ReplicaSet>,
    /// For each token of the ring, the index of its set.
    set_of_token: Vec<u32>,
    /// By code of the consistency level.
    required: [u32; Consistency::LEVELS.len()],
    each_quorum: SmallVec<[(Datacenter, u32); 4]>,
}

impl ReplicaMap {
    /// The map of `strategy` on `ring` as the node `local` sees it.
    pub fn new(ring: Arc<Ring>, strategy: Strategy, local: HostId) -> ReplicaMap {
        let local_index = ring.index_of(local);
        let local_datacenter = local_index.map_or(Datacenter::NOWHERE, |at| ring.location(at).datacenter);
        let local_name: &str = local_index.map_or("", |at| &ring.node(at).datacenter);
        let required = Consistency::LEVELS.map(|consistency| block_for(consistency, &strategy, local_name));
        let each_quorum = match &strategy {
            Strategy::NetworkTopology { datacenters } => datacenters
                .iter()
                .map(|(name, replicas)| {
                    (
                        ring.datacenter(name).unwrap_or(Datacenter::NOWHERE),
                        crate::consistency::quorum(*replicas),
                    )
                })
                .collect(),
            _ => SmallVec::new(),
        };
        let (sets, set_of_token) = place_all(&ring, &strategy, local, local_datacenter);
        ReplicaMap {
            ring,
            strategy,
            local,
            local_datacenter,
            sets,
            set_of_token,
            required,
            each_quorum,
        }
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The strategy.
    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// The node whose view this is.
    pub fn local(&self) -> HostId {
        self.local
    }

    /// Its data center.
    pub fn local_datacenter(&self) -> Datacenter {
        self.local_datacenter
    }

    /// Answers that `consistency` waits for.
    pub fn required(&self, consistency: Consistency) -> u32 {
        self.required[usize::from(consistency.code())]
    }

    /// Answers that EACH_QUORUM waits for in each data center; empty when the strategy knows no data centers, and then
    /// EACH_QUORUM means QUORUM.
    pub fn each_quorum(&self) -> &[(Datacenter, u32)] {
        &self.each_quorum
    }

    /// The replicas of `token`.
    pub fn replicas(&self, token: Token) -> &ReplicaSet {
        if let Some(only) = self.uniform() {
            return only;
        }
        match self.ring.owner_at(token) {
            Some(at) => &self.sets[self.set_of_token[at] as usize],
            None => &EMPTY,
        }
    }

    /// The replicas of all tokens, when they are the same.
    pub fn uniform(&self) -> Option<&ReplicaSet> {
        match &self.sets[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// `host` is a replica of `token`.
    pub fn is_replica(&self, host: HostId, token: Token) -> bool {
        self.replicas(token)
            .natural
            .iter()
            .any(|replica| replica.host == host)
    }

    /// The first part of `range` whose partitions all have the same replicas, and these; None when the range is empty.
    pub fn first_part(&self, range: &PartitionRange) -> Option<(PartitionRange, &ReplicaSet)> {
        let token = match &range.start {
            RingPosition::AfterToken(token) => Token(token.0.checked_add(1)?),
            position => position.token(),
        };
        if token > range.end.token() {
            return None;
        }
        let tokens = self.ring.tokens();
        let at = tokens.partition_point(|(own, _)| *own < token);
        let set = self.replicas(token);
        let same = |at: &usize| std::ptr::eq(self.replicas(tokens[*at].0), set);
        // The part ends with the last token before one that belongs to other replicas; what lies after the ring's last
        // token belongs to the first one's.
        let last = (at..tokens.len()).take_while(same).last();
        let end = match last {
            Some(last) if last + 1 < tokens.len() || !self.wraps_into(set) => {
                RingPosition::AfterToken(tokens[last].0)
            }
            _ => RingPosition::AfterToken(Token::MAX),
        };
        let end = if end.token() < range.end.token() {
            end
        } else {
            range.end.clone()
        };
        let start = range.start.clone();
        Some((PartitionRange { start, end }, set))
    }

    fn wraps_into(&self, set: &ReplicaSet) -> bool {
        std::ptr::eq(self.replicas(Token::MAX), set)
    }
}

static EMPTY: ReplicaSet = ReplicaSet {
    natural: Vec::new(),
    nearest: Vec::new(),
};

fn place_all(
    ring: &Ring,
    strategy: &Strategy,
    local: HostId,
    local_datacenter: Datacenter,
) -> (Vec<ReplicaSet>, Vec<u32>) {
    if *strategy == Strategy::Local {
        let replica = Replica {
            host: local,
            datacenter: local_datacenter,
        };
        let set = ReplicaSet {
            natural: vec![replica],
            nearest: vec![replica],
        };
        return (vec![set], vec![0; ring.tokens().len()]);
    }
    let mut distinct: IndexMap<placement::Nodes, (), FxBuildHasher> = IndexMap::default();
    let set_of_token = (0..ring.tokens().len())
        .map(|at| distinct.insert_full(placement::place(strategy, ring, at), ()).0 as u32)
        .collect();
    let sets = distinct
        .keys()
        .map(|nodes| replica_set(ring, nodes, local))
        .collect();
    (sets, set_of_token)
}

fn replica_set(ring: &Ring, nodes: &[NodeIndex], local: HostId) -> ReplicaSet {
    let own = ring.index_of(local).map(|at| ring.location(at));
    let mut by_distance: Vec<(u8, Replica)> = nodes
        .iter()
        .map(|node| {
            let (host, location) = (ring.node(*node).host, ring.location(*node));
            let distance = match own {
                _ if host == local => 0,
                Some(own) if own == location => 1,
                Some(own) if own.datacenter == location.datacenter => 2,
                _ => 3,
            };
            let datacenter = location.datacenter;
            (distance, Replica { host, datacenter })
        })
        .collect();
    let natural = by_distance.iter().map(|(_, replica)| *replica).collect();
    by_distance.sort_by_key(|(distance, _)| *distance);
    let nearest = by_distance.into_iter().map(|(_, replica)| replica).collect();
    ReplicaSet { natural, nearest }
}
