//! DESCRIBE.

use super::{Name, QualifiedName};

/// `DESCRIBE target [WITH INTERNALS]`
#[derive(Clone, PartialEq, Debug)]
pub struct Describe {
    /// What.
    pub target: DescribeTarget,
    /// WITH INTERNALS
    pub with_internals: bool,
}

/// What a [`Describe`] shows.
#[derive(Clone, PartialEq, Debug)]
pub enum DescribeTarget {
    /// CLUSTER
    Cluster,
    /// [FULL] SCHEMA
    Schema {
        /// System keyspaces too.
        full: bool,
    },
    /// KEYSPACES: names only
    Keyspaces,
    /// [ONLY] KEYSPACE [name]
    Keyspace {
        /// ONLY: without what the keyspace holds.
        only: bool,
        /// None is the session's keyspace.
        name: Option<Name>,
    },
    /// TABLES: names only
    Tables,
    /// TABLE name
    Table(QualifiedName),
    /// INDEX name
    Index(QualifiedName),
    /// MATERIALIZED VIEW name
    MaterializedView(QualifiedName),
    /// TYPES: names only
    Types,
    /// TYPE name
    Type(QualifiedName),
    /// FUNCTIONS: names only
    Functions,
    /// FUNCTION name
    Function(QualifiedName),
    /// AGGREGATES: names only
    Aggregates,
    /// AGGREGATE name
    Aggregate(QualifiedName),
    /// A name alone: a keyspace, table, view or index, in this order.
    Named(QualifiedName),
}
