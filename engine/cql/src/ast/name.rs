//! Names of keyspaces, tables, types, indexes, functions, columns, fields and roles.

use std::sync::Arc;

/// One name as the schema stores it: case folded unless quoted, quotes removed.
pub type Name = Arc<str>;

/// A name with an optional keyspace: `users`, `shop.users`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct QualifiedName {
    /// The keyspace, if written; else the session's keyspace (or `system` for native functions) applies.
    pub keyspace: Option<Name>,
    /// The name itself.
    pub name: Name,
}
