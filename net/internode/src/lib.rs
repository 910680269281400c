//! Messages between nodes, and the links that carry them, sans-IO.
//!
//! Never: a socket, a clock, a retry or a route. A [`Message`] says what one replica asks or answers; `shard/cluster`
//! decides when, and the channel below decides how bytes travel. Decoding treats every byte as hostile.
//!
//! Read next: `message` for the vocabulary, `codec` for the wire form; `link` for a connection's life: `handshake`, then
//! `frame`s.

pub mod call;
pub mod codec;
pub mod digest;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod message;
pub mod paxos;
pub mod repair;
pub mod stream;

#[cfg(test)]
mod tests;

pub use call::{Call, CallOutcome};
pub use codec::{Error, decode, encode};
pub use digest::Digest;
pub use message::{AnswerKind, ExchangeId, FailureReason, HostId, Message, ReadAnswer, RequestId};
pub use paxos::{Ballot, PaxosMessage, Proposal};
pub use repair::{PartHash, RepairMessage, TokenPart};
pub use stream::StreamMessage;
