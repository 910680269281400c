//! Deterministic simulation of the cluster layer.
//!
//! Rung 1: the production protocol cores with replicas in memory, on virtual time, over a network that delays, loses,
//! duplicates, reorders, clogs and parts; nodes crash, come back, and have clocks of their own. One seed decides
//! everything, so a run repeats exactly: `ceto-sim --seed N`.
//!
//! Never: a real clock, a thread, or a default-hashed map whose order could differ between runs.
//!
//! Read next: `scenario` for the phases of a run, `oracle` for what is checked, `world` for how events flow.

pub mod clock;
pub mod faults;
pub mod linearizability;
pub mod network;
pub mod node;
pub mod oracle;
pub mod replica;
pub mod scenario;
pub mod script;
pub mod serial;
pub mod shape;
pub mod storage;
pub mod trace;
pub mod workload;
pub mod world;

pub use faults::ReplicaFault;
pub use oracle::Violation;
pub use scenario::{Outcome, run};
pub use script::Cluster;
pub use world::World;
