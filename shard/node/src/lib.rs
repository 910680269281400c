//! A node as a library over `env`: what happens between a client's bytes and the storage engine.
//!
//! Wiring, no algorithms: statements are planned by `ceto-cql`, replicas are counted by `ceto-cluster`, data is kept by
//! `ceto-storage`, bytes are framed by `ceto-native`. Runs on Linux and in a simulated world alike.
//!
//! Never: a thread, a lock, a clock, a file or a socket of its own; nothing here is shared between shards but the
//! messages of [`message`].
//!
//! Read next: `connection` for where requests enter, `execute` for where they go, `pump` for how they reach storage.

pub mod answer;
mod backup;
mod batchlog;
mod compaction;
mod conditional;
pub mod connection;
pub mod control;
mod counters;
mod ddl;
mod endpoints;
pub mod execute;
mod explain;
mod figures;
mod functions;
pub mod guardrails;
pub mod hints;
mod indexed_read;
mod indexes;
mod locks;
mod login;
pub mod message;
pub mod metrics;
mod modify;
mod node;
pub mod options;
mod paxos;
pub mod peers;
mod prepared;
pub mod pump;
pub mod quantity;
mod questions;
mod race;
mod replica;
mod replies;
mod request_memory;
mod response_memory;
mod scan;
mod select;
pub mod settings;
mod shard_metrics;
mod slots;
mod spare_body;
mod speculation;
mod stalls;
pub mod stream;
pub mod system;
pub mod topology;
mod trace;
mod truncate;
pub mod views;

/// What the control thread needs of the planner.
pub mod cql {
    pub use ceto_cql::access::{AccessChange, AccessControl, AccessRules, Performer, Role};
    pub use ceto_cql::{CqlError, SchemaChange, SchemaChangeEvent, SchemaChangeKind, SchemaChangeTarget};
}

/// What the control thread needs of user-defined functions.
pub mod user_functions {
    pub use ceto_functions::{FunctionError, Programs};
}

pub use backup::{ImportOptions, SnapshotDetails, SnapshotRequest, instant_text};
pub use ceto_env::LocalFuture;
pub use ceto_storage::{CompactionStats, MajorCompaction};
pub use compaction::{CompactionFigures, HistoryRow};
pub use figures::{ReplayFigures, RowCacheFigures, TableFigures};
pub use node::{Node, NodeParts};
