//! Documents about nodes that come and go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/cluster/moves`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moves {
    /// What the node does: STARTING, JOINING, NORMAL, LEAVING, DECOMMISSIONED.
    pub mode: String,
    /// Who comes or goes.
    #[serde(default)]
    pub moving: Option<Moving>,
    /// What this node does, or did last, to have a node come or go.
    #[serde(default)]
    pub operation: Option<MoveOperation>,
    /// What this node copies, or copied last.
    #[serde(default)]
    pub receiving: Option<Copying>,
}

/// A node that comes or goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moving {
    /// Its host id.
    pub host_id: String,
    /// Its broadcast address.
    pub address: String,
    /// It comes.
    pub is_joining: bool,
}

/// How far all nodes are that copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MoveOperation {
    /// Who comes or goes.
    pub host_id: String,
    /// Its broadcast address; the host id when it is gone.
    pub address: String,
    /// How far each is, by address.
    pub nodes: BTreeMap<String, Copying>,
    /// It has ended.
    pub has_ended: bool,
    /// And this is why, when it was not done.
    #[serde(default)]
    pub failure: Option<String>,
}

/// How far one node is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Copying {
    /// Parts of the ring to copy, counted for each table.
    pub parts: u64,
    /// Of these are copied.
    pub parts_done: u64,
    /// Bytes that came, by the address of who sent them.
    pub received_bytes: BTreeMap<String, u64>,
    /// How long the rest will take; absent when it cannot be said.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// It has ended.
    pub has_ended: bool,
    /// And this is why, when it was not done.
    #[serde(default)]
    pub failure: Option<String>,
}

/// Answer of a dry run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DryRun {
    /// What would be copied.
    #[serde(default)]
    pub moves: Vec<PlannedMove>,
}

/// One line of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlannedMove {
    /// Who copies.
    pub to: String,
    /// From whom.
    pub from: String,
    /// Of which keyspace.
    pub keyspace: String,
    /// How much of the ring, 0 to 1.
    pub share: f64,
}
