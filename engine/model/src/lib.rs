//! The data model: types, keys, tokens, timestamps, tombstones, cells, rows, partitions, mutations, schema, read
//! commands and their results.
//!
//! Pure: no clock, no disk, no peer, no thread. A mutation cannot reach any of them.
//!
//! Read next: `mutation` for what a write is, `row` for how writes merge, `comparable` for why nothing below the
//! planner needs to know a type.

pub mod consistency;
pub mod types;

pub use consistency::Consistency;
pub use types::{CqlType, UserType, UserTypeField};
