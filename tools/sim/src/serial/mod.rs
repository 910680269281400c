//! Conditional updates and serial reads under faults: their part of a node, and runs whose histories must be linearizable.
//!
//! Never: a write to these partitions that is not conditional, since nothing is promised for a mix.
//!
//! Read next: `scenario` for a run, `../linearizability.rs` for the check.

mod part;
pub mod scenario;

pub use part::{SerialAnswer, SerialOperation};
pub(crate) use part::{SerialPart, SerialRead, Task};
pub use scenario::{SerialPlan, run};
