//! Keyspaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Table, UserFunctions};
use crate::types::UserType;

/// A named set of tables and types that are replicated alike.
#[derive(Clone, PartialEq, Debug)]
pub struct Keyspace {
    /// Name as stored (not quoted).
    pub name: Arc<str>,
    /// Whether writes go through the commitlog.
    pub durable_writes: bool,
    /// How its partitions are replicated.
    pub replication: ReplicationOptions,
    /// Tables by name.
    pub tables: BTreeMap<Arc<str>, Arc<Table>>,
    /// User types by name.
    pub types: BTreeMap<Arc<str>, Arc<UserType>>,
    /// User-defined functions and aggregates.
    pub functions: UserFunctions,
    /// Virtual keyspaces hold no data on disk and cannot be changed.
    pub is_virtual: bool,
}

/// `replication = {'class': ..., ...}` as it stands in `system_schema.keyspaces`: class by full name, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicationOptions(pub IndexMap<String, String>);

impl ReplicationOptions {
    /// Class name without its package: `SimpleStrategy`.
    pub fn strategy(&self) -> &str {
        let class = self.0.get("class").map_or("", String::as_str);
        class.rsplit('.').next().unwrap_or(class)
    }

    /// `LocalStrategy`: each node keeps its own, nothing is replicated.
    pub fn is_local(&self) -> bool {
        self.strategy() == "LocalStrategy"
    }
}
