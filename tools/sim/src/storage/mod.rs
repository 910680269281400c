//! Rung 2 for storage: the whole storage engine, all shards of a node on one thread, on a disk that fails as disks do.
//!
//! One seed decides everything: the workload, which ready task runs next, how long each disk operation takes and which
//! one fails, when the process dies or the power goes, and what the device then still has. The engine is the production
//! engine, unchanged; only [`ceto_env::Env`] is simulated.
//!
//! A run is a number of *lives* of the node: resharding when the number of shards changed, recovery (sometimes
//! interrupted), a check of everything, load with reads, flushes, compactions and truncations under faults, and an end:
//! drained, killed, or without power. After the last life everything is healed, flushed, aged past gc grace,
//! compacted and checked once more.
//!
//! Read next: `oracle` for what is checked, `scenario` for the lives, `faults` for what goes wrong, `sabotage` for the
//! proof that the checkers can fail.

pub mod faults;
pub mod indexes;
pub mod load;
pub mod node;
pub mod oracle;
pub mod pairs;
pub mod sabotage;
pub mod scenario;
pub mod workload;

pub use faults::Trouble;
pub use sabotage::Sabotage;
pub use scenario::{Outcome, Plan, run};
