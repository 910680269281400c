//! `ceto nodetool`: nodetool's verbs, words and tables over the admin API of a running node.
//!
//! ```text
//! arguments --parse--> Verb --http--> api documents --print--> the tables that scripts around nodetool read
//! ```
//!
//! Invariants:
//! - Never talks to anything but the admin API: whatever nodetool shows, a script can fetch.
//! - Never changes a label or a column that Cassandra 5's nodetool prints; new figures get lines of their own.
//! - Never answers success when the node did not: the exit code is 0 only if every request was.
//!
//! Read next: [`api`] for the documents, `arguments` for the verbs, then one module for each table.

mod absent;
pub mod api;
mod arguments;
mod backup;
mod client;
mod cluster;
mod compaction;
mod format;
mod hints;
mod indexes;
mod info;
mod moves;
mod run;
mod settings;
mod status;
mod tablestats;
mod views;

pub use run::run;
