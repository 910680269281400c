//! The system keyspaces: what drivers read at connect, and where the schema itself is kept.
//!
//! `system_schema` and `system_auth` are ordinary tables, local to the node, spread over its shards by token as any
//! other; `system_traces` is replicated. `system.local`, `system.peers`, `system.peers_v2`, `system_virtual_schema` and
//! `system_views` are virtual: their rows are made up on each read from what the node knows.
//!
//! Never: reads a disk or decides anything. [`definitions`] says what the tables look like, [`schema_rows`] turns a
//! schema into rows and back, [`access_rows`] does the same for roles, [`virtual_rows`] makes the virtual tables' rows.

pub mod access_rows;
mod compact;
pub mod definitions;
mod estimates;
mod function_rows;
pub mod row;
pub mod schema_rows;
pub mod virtual_rows;

#[cfg(test)]
mod tests;
