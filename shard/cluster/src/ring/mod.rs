//! The ring: which node owns which tokens, and in which data center and rack each node stands.
//!
//! A [`Ring`] is an immutable snapshot; a topology change makes a new one. Invariants: a token has one owner, tokens
//! are sorted, every node has its place even when it owns no token yet. Never: whether a node is alive.
//!
//! A node owns, for each of its tokens, the range from the previous token of the ring (excluded) to its own
//! (included); the range of the first token also wraps around the ring's end.

mod tokens;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ceto_model::Token;
use rustc_hash::FxHashMap;

pub use ceto_internode::HostId;
pub use tokens::{NUM_TOKENS_DEFAULT, random_tokens};

/// What a ring is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingNode {
    /// Identity.
    pub host: HostId,
    /// Data center.
    pub datacenter: Arc<str>,
    /// Rack within the data center.
    pub rack: Arc<str>,
    /// Tokens that it owns.
    pub tokens: Vec<Token>,
}

/// A data center of one ring, as a small number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Datacenter(pub u16);

impl Datacenter {
    /// One without nodes.
    pub const NOWHERE: Datacenter = Datacenter(u16::MAX);
}

/// Index of a node in [`Ring::nodes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIndex(pub u32);

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Location {
    /// Data center.
    pub datacenter: Datacenter,
    /// Rack, numbered across all data centers.
    pub rack: u16,
}

/// A topology that cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingError {
    /// Two nodes have one identity.
    HostTwice(HostId),
    /// Two nodes own one token.
    TokenTwice {
        /// The token.
        token: Token,
        /// One of its owners.
        first: HostId,
        /// The other.
        second: HostId,
    },
    /// More data centers or racks than [`Datacenter`] can number.
    TooManyLocations,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostTwice(host) => write!(f, "host {host} is in the ring twice"),
            Self::TokenTwice { token, first, second } => {
                write!(f, "token {token} is owned by both {first} and {second}")
            }
            Self::TooManyLocations => f.write_str("too many data centers or racks"),
        }
    }
}

impl std::error::Error for RingError {}

/// A snapshot of the topology.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    nodes: Vec<RingNode>,
    locations: Vec<Location>,
    by_host: FxHashMap<HostId, NodeIndex>,
    /// Sorted by token.
    tokens: Vec<(Token, NodeIndex)>,
    datacenters: Vec<DatacenterSummary>,
}

#[derive(Clone, Debug)]
struct DatacenterSummary {
    name: Arc<str>,
    node_count: usize,
    rack_count: usize,
}

impl Ring {
    /// The ring of `nodes`.
    ///
    /// # Errors
    /// When a host or a token is there twice, or there are more than 65,000 data centers or racks.
    pub fn new(nodes: impl IntoIterator<Item = RingNode>) -> Result<Ring, RingError> {
        let mut ring = Ring::default();
        let mut racks: BTreeMap<(Datacenter, Arc<str>), u16> = BTreeMap::new();
        for node in nodes {
            let index = NodeIndex(ring.nodes.len() as u32);
            if ring.by_host.insert(node.host, index).is_some() {
                return Err(RingError::HostTwice(node.host));
            }
            let datacenter = ring.intern_datacenter(&node.datacenter)?;
            let rack_count = racks.len();
            let rack = *racks
                .entry((datacenter, node.rack.clone()))
                .or_insert(rack_count as u16);
            if racks.len() > usize::from(u16::MAX) {
                return Err(RingError::TooManyLocations);
            }
            // Only nodes with tokens can be replicas; the others do not count as members of their data center.
            if !node.tokens.is_empty() {
                let summary = &mut ring.datacenters[usize::from(datacenter.0)];
                summary.node_count += 1;
                let location = Location { datacenter, rack };
                let is_new_rack = !ring
                    .locations
                    .iter()
                    .zip(&ring.nodes)
                    .any(|(other, node)| *other == location && !node.tokens.is_empty());
                summary.rack_count += usize::from(is_new_rack);
            }
            ring.tokens
                .extend(node.tokens.iter().map(|token| (*token, index)));
            ring.locations.push(Location { datacenter, rack });
            ring.nodes.push(node);
        }
        ring.tokens.sort_unstable();
        for pair in ring.tokens.windows(2) {
            if let [(token, first), (other, second)] = pair
                && token == other
            {
                let (first, second) = (ring.node(*first).host, ring.node(*second).host);
                return Err(RingError::TokenTwice {
                    token: *token,
                    first,
                    second,
                });
            }
        }
        Ok(ring)
    }

    fn intern_datacenter(&mut self, name: &Arc<str>) -> Result<Datacenter, RingError> {
        if let Some(datacenter) = self.datacenter(name) {
            return Ok(datacenter);
        }
        let next = u16::try_from(self.datacenters.len()).ok();
        let datacenter = next
            .map(Datacenter)
            .filter(|datacenter| *datacenter != Datacenter::NOWHERE);
        self.datacenters.push(DatacenterSummary {
            name: name.clone(),
            node_count: 0,
            rack_count: 0,
        });
        datacenter.ok_or(RingError::TooManyLocations)
    }

    /// All nodes; [`NodeIndex`] counts them.
    pub fn nodes(&self) -> &[RingNode] {
        &self.nodes
    }

    /// A node of this ring.
    ///
    /// # Panics
    /// When the index is of another ring.
    pub fn node(&self, index: NodeIndex) -> &RingNode {
        &self.nodes[index.0 as usize]
    }

    /// Where a node of this ring stands.
    ///
    /// # Panics
    /// When the index is of another ring.
    pub fn location(&self, index: NodeIndex) -> Location {
        self.locations[index.0 as usize]
    }

    /// The node with this identity.
    pub fn index_of(&self, host: HostId) -> Option<NodeIndex> {
        self.by_host.get(&host).copied()
    }

    /// All tokens in order, each with its owner.
    pub fn tokens(&self) -> &[(Token, NodeIndex)] {
        &self.tokens
    }

    /// Index in [`Ring::tokens`] of the token that owns `token`: the first one at or after it, around the end if need
    /// be; None in a ring without tokens.
    pub fn owner_at(&self, token: Token) -> Option<usize> {
        if self.tokens.is_empty() {
            return None;
        }
        let at = self.tokens.partition_point(|(own, _)| *own < token);
        Some(if at == self.tokens.len() { 0 } else { at })
    }

    /// The owners of all tokens, clockwise from the token at `start` once around; a node comes once per token.
    pub fn walk(&self, start: usize) -> impl Iterator<Item = NodeIndex> + '_ {
        let (before, from) = self.tokens.split_at(start.min(self.tokens.len()));
        from.iter().chain(before).map(|(_, node)| *node)
    }

    /// The data center of this name.
    pub fn datacenter(&self, name: &str) -> Option<Datacenter> {
        let at = self.datacenters.iter().position(|own| &*own.name == name)?;
        u16::try_from(at).ok().map(Datacenter)
    }

    /// Names of all data centers, in order of appearance.
    pub fn datacenter_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.datacenters.iter().map(|own| &own.name)
    }

    /// Nodes with tokens in a data center.
    pub fn node_count(&self, datacenter: Datacenter) -> usize {
        self.datacenters
            .get(usize::from(datacenter.0))
            .map_or(0, |own| own.node_count)
    }

    /// Racks of a data center that have a node with tokens.
    pub fn rack_count(&self, datacenter: Datacenter) -> usize {
        self.datacenters
            .get(usize::from(datacenter.0))
            .map_or(0, |own| own.rack_count)
    }
}
