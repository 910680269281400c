//! What the Paxos core wants done.

use std::collections::VecDeque;
use std::sync::Arc;

use ceto_internode::{HostId, Message, RequestId};
use ceto_model::{Consistency, DecoratedKey, Mutation, TableId, Timestamp};

use super::acceptor::AcceptorState;
use crate::coordinator::RequestError;

/// What one instance of Paxos decides about: a partition of a table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    /// The table.
    pub table: TableId,
    /// The partition.
    pub key: DecoratedKey,
}

/// The end of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PaxosReply {
    /// Of a conditional update: whether it was applied.
    Cas(Result<bool, RequestError>),
    /// Of a serial read: rows may now be read, at the level of [`PaxosAction::Examine`]; all that was decided before the
    /// read began is on a quorum.
    Read(Result<(), RequestError>),
}

/// Something to do. Sends come first, so that peers work while this node does its part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PaxosAction {
    /// Send to a peer; loss is allowed.
    Send {
        /// The peer.
        to: HostId,
        /// What.
        message: Message,
    },
    /// Read the acceptor's state of a partition (`system.paxos`); then call `loaded`.
    LoadState {
        /// Which.
        partition: Arc<PartitionId>,
    },
    /// Apply the mutation if there is one, then store the state with the table's time to live; then call `stored`.
    StoreState {
        /// Which.
        partition: Arc<PartitionId>,
        /// The new state.
        state: AcceptorState,
        /// Chosen: goes into its table, before the state is stored.
        apply: Option<Arc<Mutation>>,
    },
    /// Read what the condition is about at `consistency` and evaluate it; then call `examined` with the change, whose
    /// cells carry `timestamp`, or with None if the condition does not hold.
    Examine {
        /// For `examined`.
        request: RequestId,
        /// Above that of every change decided before.
        timestamp: Timestamp,
        /// QUORUM or LOCAL_QUORUM.
        consistency: Consistency,
    },
    /// Keep a chosen change for a replica that did not take it.
    StoreHint {
        /// The replica.
        replica: HostId,
        /// What it missed.
        mutation: Arc<Mutation>,
    },
    /// Answer whoever began the operation.
    Reply {
        /// The operation.
        request: RequestId,
        /// The answer.
        reply: PaxosReply,
    },
}

/// Actions in order of emission.
#[derive(Clone, Default, Debug)]
pub struct PaxosActions(VecDeque<PaxosAction>);

impl PaxosActions {
    /// Empty.
    pub fn new() -> PaxosActions {
        PaxosActions::default()
    }

    /// Appends one.
    pub fn push(&mut self, action: PaxosAction) {
        self.0.push_back(action);
    }

    /// Takes the oldest one.
    pub fn pop(&mut self) -> Option<PaxosAction> {
        self.0.pop_front()
    }

    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
