//! Repair: finds where replicas of a range differ by comparing hashes, and has just that made equal.
//!
//! A range is cut into parts. Every replica hashes each part; parts that all agree on are done; others are cut again, until
//! one holds few partitions ([`RepairOptions::leaf_partitions`]): that one is read at ALL with read repair, which writes to
//! each replica what it lacks. So a Merkle tree is walked without being built: nothing is stored between questions, parts
//! without differences cost one hash, and the bytes that move grow with what differs.
//!
//! ```text
//! range -> parts -> hashes of all replicas -> equal: done
//!            ^                             -> few partitions: repaired by reading
//!            '---- cut ------------------- -> else
//! ```
//!
//! Invariants, as absences:
//! - no part counts as done before all replicas had one hash of it, or it was read at ALL and repaired;
//! - parts are walked from the first token to the last: nothing before [`Repair::done_up_to`] is left, so that a session that
//!   was cut off goes on from there;
//! - no more than [`RepairOptions::repairs_max`] parts are read at once, and between two questions nobody hashes for
//!   [`RepairOptions::pause`]: the pace that clients feel;
//! - a session does not outlive a replica that fails or is silent: it ends and says who.
//!
//! What is written meanwhile may make hashes differ that would agree a moment later: that costs a read, nothing else.
//!
//! To drive it, on each shard, beside the [`Coordinator`](crate::coordinator::Coordinator):
//!
//! | when | call |
//! |---|---|
//! | a range of a table is to be repaired; all of it has the same replicas | `begin`, on any shard |
//! | a `Message::Repair` arrives | `handle` |
//! | `HashParts` is done: in the streaming queue, over all shards of this node | `hashed` |
//! | `RepairPart` is done: a range read through the coordinator at ALL, tombstones too | `repaired` |
//! | a link broke, or a message could not be sent | `peer_lost` |
//! | the timer of `next_timeout` fires | `handle_timeout` |
//! | `nodetool repair_admin cancel` | `cancel` |

mod core;

#[cfg(test)]
mod tests;

pub use core::{Repair, RepairAction, RepairActions, RepairError, RepairOptions, RepairPlan, RepairSummary};
