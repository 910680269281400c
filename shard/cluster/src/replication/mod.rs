//! Replication: how many replicas a keyspace has and on which nodes they lie.
//!
//! A [`Strategy`] is what `replication = {...}` means; a [`ReplicaMap`] is that strategy applied to one ring, as one
//! node sees it. Both are immutable snapshots. Placement equals Cassandra's node for node, in its order, because
//! drivers compute it too. [`moves`] says what a change of the ring moves.

mod map;
pub mod moves;
mod options;
mod placement;

#[cfg(test)]
mod tests;

pub use map::{Replica, ReplicaMap, ReplicaSet};
pub use options::{Prepared, ReplicationError, prepare};

use ceto_model::schema::ReplicationOptions;

/// A replication strategy with its options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// Each node keeps its own data; nothing is replicated.
    Local,
    /// The next nodes clockwise, wherever they stand.
    Simple {
        /// How many.
        replication_factor: u32,
    },
    /// A number of replicas in each data center, on distinct racks as far as there are.
    NetworkTopology {
        /// Replicas of each data center, in the order of the options.
        datacenters: Vec<(String, u32)>,
    },
}

impl Strategy {
    /// The strategy of options that are in the schema.
    ///
    /// # Errors
    /// When they are not what [`prepare`] lets pass.
    pub fn from_options(options: &ReplicationOptions) -> Result<Strategy, ReplicationError> {
        options::strategy_of(options)
    }

    /// Replicas in all.
    pub fn replication_factor(&self) -> u32 {
        match self {
            Self::Local => 1,
            Self::Simple { replication_factor } => *replication_factor,
            Self::NetworkTopology { datacenters } => datacenters
                .iter()
                .fold(0, |sum, (_, replicas)| sum.saturating_add(*replicas)),
        }
    }

    /// Replicas that decide a LOCAL_QUORUM in `datacenter`: its own, or all when the strategy knows no data centers.
    pub fn local_replication_factor(&self, datacenter: &str) -> u32 {
        match self {
            Self::NetworkTopology { datacenters } => datacenters
                .iter()
                .find(|(name, _)| name == datacenter)
                .map_or(0, |(_, replicas)| *replicas),
            _ => self.replication_factor(),
        }
    }

    /// Name of Cassandra's class.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::Local => "org.apache.cassandra.locator.LocalStrategy",
            Self::Simple { .. } => "org.apache.cassandra.locator.SimpleStrategy",
            Self::NetworkTopology { .. } => "org.apache.cassandra.locator.NetworkTopologyStrategy",
        }
    }
}
