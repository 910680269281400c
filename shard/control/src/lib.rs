//! The control thread: one tokio thread that makes the rare decisions.
//!
//! - [`cluster`]: the members of the cluster: gossip, and the log that orders changes.
//! - [`schema`]: the one path on which schema changes are ordered, made durable and spread to the shards.
//! - [`admin`]: health checks and nodetool's HTTP API.
//! - [`metrics`]: Prometheus exposition.
//!
//! It reaches shards only by messages ([`shards`]). Never: sees a row of a client's table, or holds anything that a
//! shard waits for on its data path.

pub mod admin;
mod backup;
pub mod boot;
pub mod cluster;
mod compaction;
mod endpoints;
pub mod governor;
mod hints;
mod indexes;
pub mod joined;
pub mod metrics;
mod moves;
mod passwords;
pub mod process;
pub mod pulls;
mod ring;
pub mod schema;
pub mod settings;
pub mod shards;
mod views;
