//! What shards of one node say to each other.
//!
//! The data path has its own messages: a replica's work ([`ShardMessage::Apply`], [`ShardMessage::Read`]) and its
//! answer. Everything rare (prepare, truncate, schema, metrics, admin verbs) is a closure that runs on the other
//! shard: one mechanism instead of a message per verb.
//!
//! An answer names the asker's slot; each request gets exactly one.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use ceto_cluster::coordinator::ReplyTo;
use ceto_env::LocalFuture;
use ceto_internode::FailureReason;
use ceto_model::{Mutation, ReadCommand, ReadResult};

use crate::node::Node;

/// A message on the mailbox mesh.
pub enum ShardMessage {
    /// Apply a mutation whose token the receiver owns.
    Apply {
        /// Who asks.
        from: u16,
        /// The exchange that the outcome belongs to.
        reply_to: ReplyTo,
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
        /// As asked.
        reply_to: ReplyTo,
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

/// The way from other threads to the shards.
#[derive(Clone)]
pub struct ShardDoor {
    /// How many shards.
    pub count: u16,
    /// Sends work to one.
    pub send: Arc<dyn Fn(u16, Task) + Send + Sync>,
}

/// Why a replica could not do its part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaFailure {
    /// For the coordinator.
    pub reason: FailureReason,
    /// For people.
    pub message: String,
}

impl ReplicaFailure {
    /// A failure with its text.
    pub fn new(reason: FailureReason, message: impl Into<String>) -> ReplicaFailure {
        ReplicaFailure {
            reason,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for ReplicaFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
