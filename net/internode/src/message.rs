//! What nodes say to each other on the data path.
//!
//! Each request carries an [`ExchangeId`] that its answer repeats. The asker chose it, the answerer only echoes it: so
//! an answer that comes late, twice, or after the asker was restarted names an exchange that no longer exists and is
//! dropped. Bodies are shared pointers because one request goes to several replicas.

use std::fmt;
use std::sync::Arc;

use ceto_model::{Mutation, ReadCommand, ReadResult};
use uuid::Uuid;

use crate::call::{Call, CallOutcome};
use crate::digest::Digest;
use crate::paxos::PaxosMessage;
use crate::repair::RepairMessage;
use crate::stream::StreamMessage;

/// Identity of a node for its whole life, whatever its address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub Uuid);

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One client request at its coordinator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId {
    /// The shard that coordinates it: answers go to that one.
    pub shard: u16,
    /// Place in the coordinator's slab: small and reused.
    pub slot: u32,
    /// Tells requests of one slot apart.
    pub serial: u32,
}

/// One question to replicas within a request; a read may need several rounds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExchangeId {
    /// The request.
    pub request: RequestId,
    /// Counts from 0 within the request.
    pub round: u32,
}

/// What an asked replica sends back of its rows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AnswerKind {
    /// The rows.
    Data,
    /// Only their digest.
    Digest,
}

/// A replica's answer to a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadAnswer {
    /// The rows.
    Data(ReadResult),
    /// Their digest.
    Digest(Digest),
}

/// Why a replica could not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FailureReason {
    /// None of the others.
    Unknown = 0,
    /// The read walked over more tombstones than allowed.
    TooManyTombstones = 1,
    /// The replica gave up waiting for itself.
    Timeout = 2,
    /// The replica does not know the table or a column.
    IncompatibleSchema = 3,
    /// The answer grew larger than allowed.
    ReadSize = 4,
    /// The replica is leaving or has been told to stop.
    NodeDown = 5,
    /// An index that the read needs is not built there.
    IndexNotAvailable = 6,
    /// The replica's storage refuses work: disk full or poisoned.
    StorageRefused = 64,
    /// The replica sheds load.
    Overloaded = 65,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [FailureReason; 9] = [
        Self::Unknown,
        Self::TooManyTombstones,
        Self::Timeout,
        Self::IncompatibleSchema,
        Self::ReadSize,
        Self::NodeDown,
        Self::IndexNotAvailable,
        Self::StorageRefused,
        Self::Overloaded,
    ];

    /// The reason of an internode code; codes of later versions read as [`FailureReason::Unknown`].
    pub fn from_code(code: u8) -> FailureReason {
        Self::ALL
            .into_iter()
            .find(|reason| reason.code() == code)
            .unwrap_or(Self::Unknown)
    }

    /// The internode code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code in the reason map of native protocol v5; reasons that it does not know become 0, "unknown".
    pub fn protocol_code(self) -> u16 {
        match self {
            Self::StorageRefused | Self::Overloaded => 0,
            known => u16::from(known.code()),
        }
    }
}

/// A message between two nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Apply this.
    Mutate {
        /// Echoed by the answer.
        exchange: ExchangeId,
        /// The change.
        mutation: Arc<Mutation>,
    },
    /// It is applied and durable as the replica's mode demands.
    MutateAck {
        /// Of the [`Message::Mutate`].
        exchange: ExchangeId,
    },
    /// Read this.
    Read {
        /// Echoed by the answer.
        exchange: ExchangeId,
        /// Rows or digest.
        kind: AnswerKind,
        /// What to read.
        command: Arc<ReadCommand>,
    },
    /// What was read.
    ReadResponse {
        /// Of the [`Message::Read`].
        exchange: ExchangeId,
        /// Rows or digest.
        answer: ReadAnswer,
    },
    /// A mutation or read that failed.
    Failure {
        /// Of the request.
        exchange: ExchangeId,
        /// Why.
        reason: FailureReason,
    },
    /// About repair. The exchange belongs to the core of repair.
    Repair {
        /// Echoed by the answer.
        exchange: ExchangeId,
        /// The step.
        body: RepairMessage,
    },
    /// About streaming. The exchange belongs to the receiver's table of pages.
    Stream {
        /// Echoed by the answer.
        exchange: ExchangeId,
        /// The step.
        body: StreamMessage,
    },
    /// A step of a conditional update or serial read. The exchange belongs to the Paxos core, not to the coordinator.
    Paxos {
        /// Echoed by the answer.
        exchange: ExchangeId,
        /// The step.
        body: PaxosMessage,
    },
    /// Work that the node itself asks for, not a coordinator.
    Call {
        /// Echoed by the answer.
        exchange: ExchangeId,
        /// What.
        call: Call,
    },
    /// How a [`Message::Call`] went.
    Called {
        /// Of the call.
        exchange: ExchangeId,
        /// How it went.
        outcome: CallOutcome,
    },
}

impl Message {
    /// The exchange that it belongs to.
    pub fn exchange(&self) -> ExchangeId {
        match self {
            Self::Mutate { exchange, .. }
            | Self::MutateAck { exchange }
            | Self::Read { exchange, .. }
            | Self::ReadResponse { exchange, .. }
            | Self::Failure { exchange, .. }
            | Self::Paxos { exchange, .. }
            | Self::Repair { exchange, .. }
            | Self::Stream { exchange, .. }
            | Self::Call { exchange, .. }
            | Self::Called { exchange, .. } => *exchange,
        }
    }
}
