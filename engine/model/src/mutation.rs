//! A mutation: the change that one write makes to one partition of one table.
//!
//! The unit of atomicity and of replication. Algebra: merging mutations of one key is commutative, associative and
//! idempotent (see `partition`), so replicas that saw the same mutations in any order, any number of times, agree.

use crate::key::DecoratedKey;
use crate::partition::Partition;
use crate::schema::TableId;

/// A change to one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mutation {
    /// The table.
    pub table: TableId,
    /// The partition.
    pub key: DecoratedKey,
    /// What changes.
    pub partition: Partition,
}

impl Mutation {
    /// Changes nothing yet.
    pub fn new(table: TableId, key: DecoratedKey) -> Mutation {
        Mutation {
            table,
            key,
            partition: Partition::default(),
        }
    }

    /// Merges a mutation of the same partition in.
    ///
    /// # Panics
    /// When table or key differ.
    pub fn merge(&mut self, other: Mutation) {
        assert!(
            self.table == other.table && self.key == other.key,
            "mutations of different partitions"
        );
        self.partition.merge(other.partition);
    }

    /// Bytes of memory, roughly.
    pub fn memory_size(&self) -> usize {
        size_of::<Mutation>() + self.key.key.0.len() + self.partition.memory_size()
    }
}
