//! `ceto stress`: a load generator that speaks cassandra-stress's words and knows shards.
//!
//! ```text
//! words --options--> schema, cluster --> workers (one thread each) --samples--> measure --> report
//!                                          | lane: one connection to one shard, many requests in flight
//! ```
//!
//! Each worker is one thread with one loop and no locks between requests: it reads what has arrived on any of its
//! connections, issues the operations that are due, and sends what each connection has to send in one write.
//!
//! Invariants:
//! - Never lets a slow answer delay the clock of a fixed rate: the n-th operation is due at start + n / rate, and
//!   its latency counts from there, however late it was sent.
//! - Never sends a request to another shard than its token's, when the server says how many shards it has.
//! - Never has more requests in flight than `threads=`.
//! - Never counts a read as done whose row is not the one that a write of the same seed left.
//!
//! Read next: `options` for the words, `worker` for the loop, `report` for the tables.

#![allow(
    clippy::disallowed_methods,
    reason = "a load generator works on the real clock, threads and sockets"
)]

mod cluster;
mod connection;
mod content;
mod lane;
mod measure;
mod options;
mod pace;
mod population;
mod report;
mod run;
mod schema;
mod worker;

pub use run::run;
