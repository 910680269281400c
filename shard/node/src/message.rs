//! What shards of one node say to each other.
//!
//! The data path has its own messages: a replica's work ([`ShardMessage::Apply`], [`ShardMessage::Read`]) and its
//! answer. Everything rare (prepare, truncate, schema, metrics, admin verbs) is a closure that runs on the other
//! shard: one mechanism instead of a message per verb.
//!
//! An answer names the asker's slot; each request gets exactly one.

use std::any::Any;
use std::rc::Rc;

use ceto_env::LocalFuture;
use ceto_model::{Mutation, ReadCommand, ReadResult};

use crate::node::Node;

/// A message on the mailbox mesh.
pub enum ShardMessage {
    /// Apply a mutation whose token the receiver owns.
    Apply {
        /// Who asks.
        from: u16,
        /// Where the answer goes.
        slot: u32,
        /// The write.
        mutation: Box<Mutation>,
    },
    /// Read what the receiver owns.
    Read {
        /// Who asks.
        from: u16,
        /// Where the answer goes.
        slot: u32,
        /// The read.
        command: Box<ReadCommand>,
    },
    /// The answer to `Apply`.
    Applied {
        /// The asker's slot.
        slot: u32,
        /// How it went.
        result: Result<(), ReplicaFailure>,
    },
    /// The answer to `Read`.
    ReadDone {
        /// The asker's slot.
        slot: u32,
        /// What was found.
        result: Result<Box<ReadResult>, ReplicaFailure>,
    },
    /// Run this on the receiving shard.
    Run(Task),
    /// The answer to a `Run` that was sent by [`Node::on_shard`].
    Answer {
        /// The asker's slot.
        slot: u32,
        /// What the task returned.
        value: Box<dyn Any + Send>,
    },
}

/// Work for another shard. The future runs in that shard's control queue.
pub type Task = Box<dyn FnOnce(Rc<Node>) -> LocalFuture<'static, ()> + Send>;

/// Why a replica could not do its part.
#[derive(Clone, Debug)]
pub enum ReplicaFailure {
    /// Refused for now; the client may try again: memory or commitlog space is short, the disk is full.
    Overloaded(String),
    /// The replica failed: checksum error, poisoned shard, read over too many tombstones.
    Failed {
        /// Code of the failure for the reason map of protocol v5.
        reason: FailureReason,
        /// For the log and the error text.
        message: String,
    },
}

/// Request failure reasons of protocol v5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureReason {
    /// Anything else.
    Unknown,
    /// A read met too many tombstones.
    ReadTooManyTombstones,
}

impl FailureReason {
    /// The protocol's code.
    pub fn code(self) -> u16 {
        match self {
            Self::Unknown => 0,
            Self::ReadTooManyTombstones => 1,
        }
    }
}

impl std::fmt::Display for ReplicaFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Overloaded(message) | Self::Failed { message, .. } => f.write_str(message),
        }
    }
}
