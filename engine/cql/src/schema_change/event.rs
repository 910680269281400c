//! What a schema change is called when it is announced.

/// A schema change as the native protocol tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemaChangeEvent {
    /// What happened.
    pub change: SchemaChangeKind,
    /// The keyspace that changed or holds what changed.
    pub keyspace: String,
    /// What changed.
    pub target: SchemaChangeTarget,
}

/// What happened to the target of a [`SchemaChangeEvent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchemaChangeKind {
    /// It is new.
    Created,
    /// It has changed.
    Updated,
    /// It is gone.
    Dropped,
}

/// What a [`SchemaChangeEvent`] is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SchemaChangeTarget {
    /// The keyspace itself.
    Keyspace,
    /// A table, by name.
    Table(String),
    /// A user-defined type, by name.
    Type(String),
    /// A user-defined function.
    Function {
        /// Its name.
        name: String,
        /// Types of its arguments, as CQL text.
        argument_types: Vec<String>,
    },
    /// A user-defined aggregate.
    Aggregate {
        /// Its name.
        name: String,
        /// Types of its arguments, as CQL text.
        argument_types: Vec<String>,
    },
}
