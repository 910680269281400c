//! What a coordinator wants done, in a buffer that is used again and again.

use std::collections::VecDeque;
use std::sync::Arc;

use ceto_internode::{AnswerKind, ExchangeId, HostId, Message, RequestId};
use ceto_model::{Mutation, ReadCommand, ReadResult};

use super::error::RequestError;

/// Whom the outcome of local work is for: the coordinator of the exchange, which may be this node itself. Opaque to
/// whoever performs the work; handed back with the outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    /// Who asked.
    pub coordinator: HostId,
    /// What it calls the exchange.
    pub exchange: ExchangeId,
}

/// The end of a client's request.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// Of a write.
    Write(Result<(), RequestError>),
    /// Of a read.
    Read(Result<ReadResult, RequestError>),
}

/// Something to do. Order matters only in that actions of one call are best performed as they come.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Apply to this node's storage, on the shard of the mutation's token; then call `applied`.
    Apply {
        /// For `applied`.
        reply_to: ReplyTo,
        /// The change.
        mutation: Mutation,
    },
    /// Read this node's storage; then call `read_done`.
    Read {
        /// For `read_done`.
        reply_to: ReplyTo,
        /// For `read_done`.
        kind: AnswerKind,
        /// What to read.
        command: ReadCommand,
    },
    /// Send to a peer; loss is allowed.
    Send {
        /// The peer.
        to: HostId,
        /// What.
        message: Message,
    },
    /// Keep for a replica that did not take its mutation; then call `hint_stored`.
    StoreHint {
        /// The replica.
        replica: HostId,
        /// For `hint_stored`.
        request: RequestId,
        /// What it missed.
        mutation: Arc<Mutation>,
    },
    /// Answer the client.
    Reply {
        /// Its request.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
}

/// Actions in order of emission.
#[derive(Clone, Default, Debug)]
pub struct Actions(VecDeque<Action>);

impl Actions {
    /// Empty.
    pub fn new() -> Actions {
        Actions::default()
    }

    /// Appends one.
    pub fn push(&mut self, action: Action) {
        self.0.push_back(action);
    }

    /// Takes the oldest one.
    pub fn pop(&mut self) -> Option<Action> {
        self.0.pop_front()
    }

    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are to be done.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
