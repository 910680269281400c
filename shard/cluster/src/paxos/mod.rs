//! Conditional updates and serial reads: Paxos, one instance for each partition of each table.
//!
//! A [`Paxos`] is one shard's, proposer and acceptor in one. A conditional update goes: promise from a quorum, complete
//! what is in progress, commit what some of them missed, read at the matching quorum level, evaluate the condition, have
//! the change accepted by a quorum, commit it at the statement's own level. A condition that does not hold, and a serial
//! read, have an empty change accepted instead: so whatever was proposed before them and not seen by them can never be
//! chosen. Reading and evaluating is a call-out ([`PaxosAction::Examine`]), because it is the coordinator's and CQL's.
//!
//! ```text
//! queue -> prepare -> [replay -> commit, from the start] -> [refresh] -> examine -> propose -> commit -> reply
//!             ^_________________ back-off <___________________________________________|
//! ```
//!
//! Invariants, as absences:
//! - an acceptor never promises or accepts below what it promised, and never answers before its state is stored;
//! - nothing is proposed while a chosen change may be missing from a quorum of replicas, so the read sees all of them;
//! - a change whose acceptance is in doubt is never proposed again under another ballot by guess: the next prepare shows
//!   whether it lives, and if that cannot be told the client learns that it is unknown;
//! - no two operations of this shard contend for one partition: they queue;
//! - no request gets two replies and none is forgotten: its deadline is armed before anything is sent.
//!
//! Operations begin on the shard that owns their token, so that the queue sees all of a node's operations on a partition
//! and the node's own acceptor is at hand.
//!
//! To drive it, on each shard, beside the [`Coordinator`](crate::coordinator::Coordinator):
//!
//! | when | call |
//! |---|---|
//! | a statement with IF, or a read at SERIAL | `begin`, on the shard that owns the token |
//! | a `Message::Paxos` arrives | `handle` |
//! | a link broke, or a message could not be sent | `peer_lost` |
//! | the timer of `next_timeout` fires | `handle_timeout` |
//! | `LoadState`, `StoreState` are done | `loaded`, `stored` |
//! | `Examine`: a read through the coordinator at that level has ended and the condition is evaluated | `examined` |
//! | `Reply(Read(Ok))`: | a read through the coordinator at QUORUM or LOCAL_QUORUM; its rows are the answer |
//!
//! After each call the actions are popped and performed until none is left.
//!
//! Read next: `acceptor` for the rules, `round` for an operation's path, `replica` for the order of storing.

mod acceptor;
mod action;
mod ballots;
mod commit;
mod core;
mod replica;
mod round;

#[cfg(test)]
mod tests;

pub use acceptor::{AcceptorState, Verdict};
pub use action::{PartitionId, PaxosAction, PaxosActions, PaxosReply};
pub use core::{CasContext, Paxos, PaxosKind, PaxosLimits};
pub use replica::AcceptorRule;
