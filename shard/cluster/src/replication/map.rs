//! The replica map: a strategy applied to a ring, computed once and then looked up by token.
//!
//! Made anew when the ring or the keyspace's replication changes, shared by all requests of the keyspace. A lookup is
//! a binary search over the ring's tokens and touches no allocator; on a ring where all tokens have the same replicas
//! (one node, say) it is nothing at all.
//!
//! While nodes come or go there are two rings: the one that is read, and the one that is being made. A node that has a token
//! in the second only is pending for it: it is written as the replicas are, and never read. So a set belongs to the tokens
//! between two neighbours of both rings together.

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
    /// The natural ones, then those that are pending.
    written: Vec<Replica>,
    natural_count: usize,
    nearest: Vec<Replica>,
}

impl ReplicaSet {
    /// In placement order, the primary replica first.
    pub fn natural(&self) -> &[Replica] {
        &self.written[..self.natural_count]
    }

    /// Nodes that are about to be replicas: they are written too, and never read.
    pub fn pending(&self) -> &[Replica] {
        &self.written[self.natural_count..]
    }

    /// All that a write goes to: the natural replicas, then the pending ones.
    pub fn written(&self) -> &[Replica] {
        &self.written
    }

    /// Nearest first: the node itself, its rack, its data center, the rest; else in placement order.
    pub fn nearest(&self) -> &[Replica] {
        &self.nearest
    }

    /// The only replica, and nobody is pending.
    pub fn single(&self) -> Option<&Replica> {
        match &self.written[..] {
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
    /// Where sets end: the tokens of the ring, and of the one that is being made.
    ends: Vec<Token>,
    /// For each of these, the index of its set.
    set_of_end: Vec<u32>,
    /// By code of the consistency level.
    required: [u32; Consistency::LEVELS.len()],
    each_quorum: SmallVec<[(Datacenter, u32); 4]>,
}

impl ReplicaMap {
    /// The map of `strategy` on `ring` as the node `local` sees it.
    pub fn new(ring: Arc<Ring>, strategy: Strategy, local: HostId) -> ReplicaMap {
        ReplicaMap::between(ring, None, strategy, local)
    }

    /// The map of `strategy` on `ring`, while `other` is being made of it: who has a token there only is pending. Both name
    /// data centers in one order.
    pub fn between(ring: Arc<Ring>, other: Option<&Ring>, strategy: Strategy, local: HostId) -> ReplicaMap {
        debug_assert!(other.is_none_or(|other| other.datacenter_names().eq(ring.datacenter_names())));
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
        let ends = placement::ends(&ring, other);
        let (sets, set_of_end) = match &strategy {
            Strategy::Local => (vec![only(local, local_datacenter)], vec![0; ends.len()]),
            _ => place_all(&ring, other, &ends, &strategy, local),
        };
        ReplicaMap {
            ring,
            strategy,
            local,
            local_datacenter,
            sets,
            ends,
            set_of_end,
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
        let at = self.ends.partition_point(|end| *end < token);
        // What lies after the last token belongs to the first one.
        match self.set_of_end.get(at).or(self.set_of_end.first()) {
            Some(set) => &self.sets[*set as usize],
            None => &EMPTY,
        }
    }

    /// The last tokens of the parts whose replicas may differ, in order.
    pub fn ends(&self) -> &[Token] {
        &self.ends
    }

    /// The replicas of all tokens, when they are the same.
    pub fn uniform(&self) -> Option<&ReplicaSet> {
        match &self.sets[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// `host` is a replica of `token`, or about to be one.
    pub fn is_replica(&self, host: HostId, token: Token) -> bool {
        let replicas = self.replicas(token).written();
        replicas.iter().any(|replica| replica.host == host)
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
        let tokens = &self.ends;
        let at = tokens.partition_point(|own| *own < token);
        let set = self.replicas(token);
        let same = |at: &usize| std::ptr::eq(self.replicas(tokens[*at]), set);
        // The part ends with the last token before one that belongs to other replicas; what lies after the ring's last
        // token belongs to the first one's.
        let last = (at..tokens.len()).take_while(same).last();
        let end = match last {
            Some(last) if last + 1 < tokens.len() || !self.wraps_into(set) => {
                RingPosition::AfterToken(tokens[last])
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
    written: Vec::new(),
    natural_count: 0,
    nearest: Vec::new(),
};

fn only(host: HostId, datacenter: Datacenter) -> ReplicaSet {
    let replica = Replica { host, datacenter };
    ReplicaSet {
        written: vec![replica],
        natural_count: 1,
        nearest: vec![replica],
    }
}

fn place_all(
    ring: &Ring,
    other: Option<&Ring>,
    ends: &[Token],
    strategy: &Strategy,
    local: HostId,
) -> (Vec<ReplicaSet>, Vec<u32>) {
    let mut distinct: IndexMap<(placement::Nodes, placement::Hosts), (), FxBuildHasher> = IndexMap::default();
    let set_of_end = ends
        .iter()
        .map(|end| {
            let natural = placement::place_token(strategy, ring, *end);
            let pending = other.map_or_else(Default::default, |other| {
                let hosts = placement::hosts(strategy, other, *end);
                let is_new = |host: &HostId| !natural.iter().any(|node| ring.node(*node).host == *host);
                hosts.into_iter().filter(is_new).collect()
            });
            distinct.insert_full((natural, pending), ()).0 as u32
        })
        .collect();
    let sets = distinct
        .keys()
        .map(|(natural, pending)| replica_set(ring, natural, pending, other, local))
        .collect();
    (sets, set_of_end)
}

fn replica_set(
    ring: &Ring,
    natural: &[NodeIndex],
    pending: &[HostId],
    other: Option<&Ring>,
    local: HostId,
) -> ReplicaSet {
    let own = ring.index_of(local).map(|at| ring.location(at));
    let mut by_distance: Vec<(u8, Replica)> = natural
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
    let mut written: Vec<Replica> = by_distance.iter().map(|(_, replica)| *replica).collect();
    let natural_count = written.len();
    written.extend(pending.iter().map(|host| {
        Replica {
            host: *host,
            datacenter: other
                .and_then(|other| Some(other.location(other.index_of(*host)?).datacenter))
                .unwrap_or(Datacenter::NOWHERE),
        }
    }));
    by_distance.sort_by_key(|(distance, _)| *distance);
    let nearest = by_distance.into_iter().map(|(_, replica)| replica).collect();
    ReplicaSet {
        written,
        natural_count,
        nearest,
    }
}
