//! What nodes say to each other about conditional updates: the messages of Paxos, one round of which decides one change
//! of one partition.
//!
//! A proposer asks acceptors to promise a ballot, then to accept a proposal under it, then tells them that it is chosen.
//! An acceptor that has promised a higher ballot refuses and names it. An empty mutation is a proposal too: it changes
//! nothing, but no older proposal can be chosen after it.

use std::fmt;
use std::sync::Arc;

use ceto_model::codec::{Decoder, put_bytes, put_mutation, put_signed};
use ceto_model::{DecoratedKey, Mutation, TableId, Timestamp, Token};
use uuid::Uuid;

use crate::codec::{Decoded, decode_bool, decode_key};
use crate::message::FailureReason;

/// 100 ns intervals between the Gregorian reform, where version 1 UUIDs count from, and the Unix epoch.
const GREGORIAN_OFFSET: i64 = 0x01b2_1dd2_1381_4000;
/// Bits of a version 1 UUID that tell proposers apart.
const PROPOSER_BITS: u32 = 62;

/// The number of a round of Paxos: ordered by time, then by proposer; no two proposers ever make the same one.
///
/// Its time is the write timestamp of what is decided under it, as in Cassandra.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// Microseconds since the Unix epoch, by the proposer's clock; above every ballot that the proposer knew.
    pub micros: i64,
    /// The proposer, [`Ballot::PROPOSER_MASK`] at most.
    pub proposer: u64,
}

impl Ballot {
    /// The highest proposer.
    pub const PROPOSER_MASK: u64 = (1 << PROPOSER_BITS) - 1;

    /// The write timestamp of what is decided under it.
    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.micros)
    }

    /// As a version 1 UUID, which is how `system.paxos` keeps it.
    pub fn to_timeuuid(self) -> Uuid {
        let ticks = (self.micros.wrapping_mul(10).wrapping_add(GREGORIAN_OFFSET) as u64) & ((1 << 60) - 1);
        let (low, middle, high) = (ticks & 0xffff_ffff, (ticks >> 32) & 0xffff, ticks >> 48);
        let most = low << 32 | middle << 16 | 0x1000 | high;
        let least = 1 << 63 | (self.proposer & Self::PROPOSER_MASK);
        Uuid::from_u64_pair(most, least)
    }

    /// The ballot of a version 1 UUID; None when it is of another version or not of whole microseconds.
    pub fn from_timeuuid(uuid: Uuid) -> Option<Ballot> {
        let (most, least) = uuid.as_u64_pair();
        if (most >> 12) & 0xf != 1 || least >> 62 != 2 {
            return None;
        }
        let ticks = (most & 0xfff) << 48 | ((most >> 16) & 0xffff) << 32 | most >> 32;
        let ticks = ticks as i64 - GREGORIAN_OFFSET;
        (ticks % 10 == 0).then_some(Ballot {
            micros: ticks / 10,
            proposer: least & Self::PROPOSER_MASK,
        })
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.micros, self.proposer)
    }
}

/// A change under the ballot that proposes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// When and by whom.
    pub ballot: Ballot,
    /// What; its cells keep the timestamp of the ballot that first proposed it. Empty: nothing.
    pub mutation: Arc<Mutation>,
}

impl Proposal {
    /// It changes nothing.
    pub fn is_empty(&self) -> bool {
        self.mutation.partition.is_empty()
    }
}

/// One step of Paxos.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PaxosMessage {
    /// Promise to take part in no ballot below this one.
    Prepare {
        /// The ballot.
        ballot: Ballot,
        /// The table.
        table: TableId,
        /// The partition.
        key: DecoratedKey,
    },
    /// Promised.
    Promised {
        /// Accepted, and as far as the acceptor knows not yet chosen.
        accepted: Option<Proposal>,
        /// Newest proposal known to be chosen.
        committed: Option<Proposal>,
    },
    /// Neither promised nor accepted.
    Refused {
        /// The higher ballot that is in the way.
        promised: Ballot,
    },
    /// Accept this.
    Propose {
        /// The proposal.
        proposal: Proposal,
    },
    /// Accepted.
    Accepted,
    /// This is chosen: apply it.
    Commit {
        /// The proposal.
        proposal: Proposal,
    },
    /// Applied.
    Committed,
    /// The acceptor could not do it, or does not know whether it did.
    Failed {
        /// Why.
        reason: FailureReason,
    },
}

impl PaxosMessage {
    /// For an acceptor; else for a proposer.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Prepare { .. } | Self::Propose { .. } | Self::Commit { .. }
        )
    }

    /// The token of the partition that a request is about; None for an answer.
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Prepare { key, .. } => Some(key.token),
            Self::Propose { proposal } | Self::Commit { proposal } => Some(proposal.mutation.key.token),
            _ => None,
        }
    }
}

const PREPARE: u8 = 16;
const PROMISED: u8 = 17;
const REFUSED: u8 = 18;
const PROPOSE: u8 = 19;
const ACCEPTED: u8 = 20;
const COMMIT: u8 = 21;
const COMMITTED: u8 = 22;
const FAILED: u8 = 23;

/// The kind byte of `message`.
pub(crate) fn kind_of(message: &PaxosMessage) -> u8 {
    match message {
        PaxosMessage::Prepare { .. } => PREPARE,
        PaxosMessage::Promised { .. } => PROMISED,
        PaxosMessage::Refused { .. } => REFUSED,
        PaxosMessage::Propose { .. } => PROPOSE,
        PaxosMessage::Accepted => ACCEPTED,
        PaxosMessage::Commit { .. } => COMMIT,
        PaxosMessage::Committed => COMMITTED,
        PaxosMessage::Failed { .. } => FAILED,
    }
}

/// Appends the body of `message`.
pub(crate) fn put_body(out: &mut Vec<u8>, message: &PaxosMessage) {
    match message {
        PaxosMessage::Prepare { ballot, table, key } => {
            put_ballot(out, *ballot);
            out.extend_from_slice(table.0.as_bytes());
            put_bytes(out, &key.key.0);
        }
        PaxosMessage::Promised { accepted, committed } => {
            put_proposal_option(out, accepted.as_ref());
            put_proposal_option(out, committed.as_ref());
        }
        PaxosMessage::Refused { promised } => put_ballot(out, *promised),
        PaxosMessage::Propose { proposal } | PaxosMessage::Commit { proposal } => put_proposal(out, proposal),
        PaxosMessage::Accepted | PaxosMessage::Committed => {}
        PaxosMessage::Failed { reason } => out.push(reason.code()),
    }
}

/// Reads the body of a message of `kind`; None when the kind is not of Paxos.
pub(crate) fn decode_body(kind: u8, decoder: &mut Decoder) -> Decoded<Option<PaxosMessage>> {
    Ok(Some(match kind {
        PREPARE => PaxosMessage::Prepare {
            ballot: decode_ballot(decoder)?,
            table: TableId(decoder.uuid("table id")?),
            key: decode_key(decoder)?,
        },
        PROMISED => PaxosMessage::Promised {
            accepted: decode_proposal_option(decoder)?,
            committed: decode_proposal_option(decoder)?,
        },
        REFUSED => PaxosMessage::Refused {
            promised: decode_ballot(decoder)?,
        },
        PROPOSE => PaxosMessage::Propose {
            proposal: decode_proposal(decoder)?,
        },
        ACCEPTED => PaxosMessage::Accepted,
        COMMIT => PaxosMessage::Commit {
            proposal: decode_proposal(decoder)?,
        },
        COMMITTED => PaxosMessage::Committed,
        FAILED => PaxosMessage::Failed {
            reason: FailureReason::from_code(decoder.u8("failure reason")?),
        },
        _ => return Ok(None),
    }))
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    put_signed(out, ballot.micros);
    out.extend_from_slice(&ballot.proposer.to_be_bytes());
}

fn decode_ballot(decoder: &mut Decoder) -> Decoded<Ballot> {
    let micros = decoder.signed("ballot")?;
    let mut proposer = [0; 8];
    proposer.copy_from_slice(&decoder.take(8, "ballot")?);
    Ok(Ballot {
        micros,
        proposer: u64::from_be_bytes(proposer) & Ballot::PROPOSER_MASK,
    })
}

fn put_proposal(out: &mut Vec<u8>, proposal: &Proposal) {
    put_ballot(out, proposal.ballot);
    put_mutation(out, &proposal.mutation);
}

fn decode_proposal(decoder: &mut Decoder) -> Decoded<Proposal> {
    Ok(Proposal {
        ballot: decode_ballot(decoder)?,
        mutation: Arc::new(decoder.mutation()?),
    })
}

fn put_proposal_option(out: &mut Vec<u8>, proposal: Option<&Proposal>) {
    out.push(u8::from(proposal.is_some()));
    proposal
        .into_iter()
        .for_each(|proposal| put_proposal(out, proposal));
}

fn decode_proposal_option(decoder: &mut Decoder) -> Decoded<Option<Proposal>> {
    decode_bool(decoder, "proposal")?
        .then(|| decode_proposal(decoder))
        .transpose()
}
