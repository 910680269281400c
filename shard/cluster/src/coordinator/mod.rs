//! The coordinator: carries one client request to the replicas and their answers back to the client.
//!
//! A [`Coordinator`] is one shard's. Events go in by [`handle`](Coordinator::handle), [`applied`](Coordinator::applied),
//! [`read_done`](Coordinator::read_done), [`hint_stored`](Coordinator::hint_stored) and
//! [`handle_timeout`](Coordinator::handle_timeout); what is to be done comes out as [`Action`]s. The same core is the
//! replica's side: a peer's request becomes a local action, whose outcome becomes the answer to the peer.
//!
//! Invariants, as absences:
//! - no request gets two replies, and none is forgotten: its deadline is armed before its first action is emitted;
//! - no answer is taken from a replica that was not asked, nor twice, nor for an earlier round or an earlier life of
//!   the node: each exchange has its own name;
//! - no acknowledgement allocates; no request is begun beyond [`Limits::in_flight_max`];
//! - nothing is sent to the node itself: its own part is `Apply` or `Read`, answered synchronously or not.
//!
//! Read next: `write` for the path of a mutation, `local` for the short way of both, `read` and `round` for reads,
//! `reconcile` for how answers merge.

mod action;
mod continuation;
pub(crate) mod deadlines;
mod difference;
mod dispatch;
pub(crate) mod error;
mod local;
mod read;
mod reconcile;
mod round;
mod speculation;
pub(crate) mod tally;
mod write;

#[cfg(test)]
mod tests;

pub use action::{Action, Actions, Reply, ReplyTo};
pub use dispatch::{Coordinator, Limits, RequestContext};
pub use error::RequestError;
pub use read::{ReadOptions, ReadRepair};
pub use round::SHORT_READ_ROUNDS_MAX;
pub use speculation::SpeculativeRetry;
