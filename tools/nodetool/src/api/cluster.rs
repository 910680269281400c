//! Documents about the cluster: its nodes, their tokens and ranges, and what gossip says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NodeState;

/// Answer of `GET /v1/cluster`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterDescription {
    /// The cluster's name.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<DescribedNode>,
    /// Its keyspaces and how they are replicated.
    pub keyspaces: BTreeMap<String, Replication>,
}

/// One node of [`ClusterDescription`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DescribedNode {
    /// Its broadcast address, without a port.
    pub address: String,
    /// The port between nodes.
    pub port: u16,
    /// Its data centre.
    pub datacenter: String,
    /// Whether the failure detector holds it for alive.
    pub up: bool,
    /// What it does in the ring.
    #[serde(default)]
    pub state: NodeState,
    /// The schema that it has; absent when not known.
    #[serde(default)]
    pub schema_version: Option<String>,
    /// The Cassandra release whose behaviour clients may count on.
    pub release_version: String,
}

/// How a keyspace is replicated.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replication {
    /// Name of the strategy, without a package.
    pub class: String,
    /// Its options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Answer of `GET /v1/cluster/gossip`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GossipState {
    /// Every node that gossip knows.
    pub nodes: Vec<GossipEntry>,
}

/// One node of [`GossipState`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GossipEntry {
    /// Its broadcast address, without a port.
    pub address: String,
    /// Grows with each of its starts.
    pub generation: u64,
    /// Grows with each round of gossip.
    pub heartbeat: u64,
    /// What it says of itself.
    pub values: BTreeMap<String, Said>,
}

/// A value of [`GossipEntry`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Said {
    /// The value.
    pub value: String,
    /// Grows with each change of any of the node's values.
    pub version: u64,
}

/// Answer of `GET /v1/cluster/phi`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Suspicions {
    /// The other nodes.
    pub nodes: Vec<Suspicion>,
}

/// One node of [`Suspicions`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Suspicion {
    /// Its broadcast address, without a port.
    pub address: String,
    /// How sure the failure detector is that it is down.
    pub phi: f64,
}

/// Answer of `GET /v1/cluster/ring`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RingList {
    /// Every token, ascending.
    pub tokens: Vec<RingToken>,
    /// Why there is no ownership.
    #[serde(default)]
    pub note: Option<String>,
}

/// One token of [`RingList`], and its node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RingToken {
    /// The token, in decimal.
    pub token: String,
    /// Its node's broadcast address, without a port.
    pub address: String,
    /// Its node's data centre.
    pub datacenter: String,
    /// Its node's rack.
    pub rack: String,
    /// Whether the failure detector holds the node for alive.
    pub up: bool,
    /// What the node does in the ring.
    #[serde(default)]
    pub state: NodeState,
    /// Bytes of the node's live sstables; absent when not known.
    #[serde(default)]
    pub load_bytes: Option<u64>,
    /// Share of the data that the node holds, 0 to 1; absent when not known.
    #[serde(default)]
    pub owns: Option<f64>,
}

/// Answer of `GET /v1/cluster/ranges`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeList {
    /// The schema that the answering node has.
    pub schema_version: String,
    /// The ranges between the ring's tokens.
    pub ranges: Vec<ReplicatedRange>,
}

/// One range of [`RangeList`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicatedRange {
    /// The range begins behind it.
    pub start: String,
    /// The range ends with it.
    pub end: String,
    /// Who holds it.
    pub replicas: Vec<RangeReplica>,
}

/// One node of [`ReplicatedRange`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeReplica {
    /// Broadcast address, without a port.
    pub address: String,
    /// Where clients reach it.
    pub rpc_address: String,
    /// Its data centre.
    pub datacenter: String,
    /// Its rack.
    pub rack: String,
}
