//! What nodes say to each other to find where replicas differ: "what is the hash of what you have there?"

use ceto_model::codec::{Decoder, put_signed, put_varint};
use ceto_model::{TableId, Token, UnixSeconds};

use crate::codec::{Decoded, decode_u32, refuse};
use crate::digest::Digest;
use crate::message::FailureReason;

/// Parts of one question.
pub const PARTS_MAX: usize = 1024;

/// A part of the ring: tokens after the first one, up to the second one, which is not before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenPart {
    /// Not of the part.
    pub after: Token,
    /// Of the part.
    pub up_to: Token,
}

/// What a replica has in a part: a sum over partitions, whatever their order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PartHash {
    /// Of contents.
    pub hash: u128,
    /// How many.
    pub partitions: u64,
}

impl PartHash {
    /// Adds a partition by the digest of its key and content.
    pub fn add(&mut self, digest: Digest) {
        self.hash = self.hash.wrapping_add(digest.0);
        self.partitions += 1;
    }
}

/// One step of repair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepairMessage {
    /// Hash this.
    Hash {
        /// The table.
        table: TableId,
        /// As of then: what has expired by then, and tombstones that gc grace has let go of, do not count.
        now: UnixSeconds,
        /// Where.
        parts: Vec<TokenPart>,
    },
    /// One hash for each part.
    Hashes {
        /// In the order of the parts.
        hashes: Vec<PartHash>,
    },
    /// It could not.
    Failed {
        /// Why.
        reason: FailureReason,
    },
}

const HASH: u8 = 24;
const HASHES: u8 = 25;
const FAILED: u8 = 26;

/// Capacity taken ahead for a count that the input claims.
const CAPACITY_MAX: usize = 64;

/// The kind byte of `message`.
pub(crate) fn kind_of(message: &RepairMessage) -> u8 {
    match message {
        RepairMessage::Hash { .. } => HASH,
        RepairMessage::Hashes { .. } => HASHES,
        RepairMessage::Failed { .. } => FAILED,
    }
}

/// Appends the body of `message`.
pub(crate) fn put_body(out: &mut Vec<u8>, message: &RepairMessage) {
    match message {
        RepairMessage::Hash { table, now, parts } => {
            out.extend_from_slice(table.0.as_bytes());
            put_signed(out, now.0);
            put_varint(out, parts.len() as u64);
            for part in parts {
                put_signed(out, part.after.0);
                put_signed(out, part.up_to.0);
            }
        }
        RepairMessage::Hashes { hashes } => {
            put_varint(out, hashes.len() as u64);
            for part in hashes {
                out.extend_from_slice(&part.hash.to_be_bytes());
                put_varint(out, part.partitions);
            }
        }
        RepairMessage::Failed { reason } => out.push(reason.code()),
    }
}

/// Reads the body of a message of `kind`; None when the kind is not of repair.
pub(crate) fn decode_body(kind: u8, decoder: &mut Decoder) -> Decoded<Option<RepairMessage>> {
    Ok(Some(match kind {
        HASH => {
            let table = TableId(decoder.uuid("table id")?);
            let now = UnixSeconds(decoder.signed("now")?);
            let count = decode_count(decoder)?;
            let mut parts = Vec::with_capacity(CAPACITY_MAX.min(count));
            for _ in 0..count {
                let after = Token(decoder.signed("token")?);
                let up_to = Token(decoder.signed("token")?);
                if after > up_to {
                    return Err(refuse(decoder, "part of the ring"));
                }
                parts.push(TokenPart { after, up_to });
            }
            RepairMessage::Hash { table, now, parts }
        }
        HASHES => {
            let count = decode_count(decoder)?;
            let mut hashes = Vec::with_capacity(CAPACITY_MAX.min(count));
            for _ in 0..count {
                let hash = decoder.uuid("hash")?.as_u128();
                let partitions = decoder.varint("partitions")?;
                hashes.push(PartHash { hash, partitions });
            }
            RepairMessage::Hashes { hashes }
        }
        FAILED => RepairMessage::Failed {
            reason: FailureReason::from_code(decoder.u8("failure reason")?),
        },
        _ => return Ok(None),
    }))
}

fn decode_count(decoder: &mut Decoder) -> Decoded<usize> {
    let count = decode_u32(decoder, "parts")? as usize;
    if count > PARTS_MAX {
        return Err(refuse(decoder, "number of parts"));
    }
    Ok(count)
}
