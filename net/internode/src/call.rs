//! What a node asks one other node to do, where no protocol core counts the answers: a call, and how it went.
//!
//! ```text
//! call ::= mutation                          kind 32, Apply
//!        | level:u8 micros mutation          kind 33, Count
//!        | table:16 timestamp                kind 34, Truncate
//! went ::= (nothing)                         kind 48, done
//!        | reason:u8 text:bytes              kind 49, failed
//! ```
//!
//! Exchanges of calls belong to the asker's table of calls, never to a coordinator.

use std::sync::Arc;

use ceto_model::codec::{Decoder, put_bytes, put_mutation, put_signed, put_varint};
use ceto_model::{Consistency, Mutation, TableId, Timestamp};

use crate::codec::{Decoded, refuse};
use crate::message::FailureReason;

/// Bytes of the text of a failure; the rest of a longer one is cut off.
pub const FAILURE_TEXT_MAX: usize = 4096;

const APPLY: u8 = 32;
const COUNT: u8 = 33;
const TRUNCATE: u8 = 34;
const DONE: u8 = 48;
const FAILED: u8 = 49;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Apply this to the receiver's own storage, whoever its replicas are by now.
    Apply(Arc<Mutation>),
    /// Lead a write of counters: add, and replicate the sums.
    Count {
        /// How many replicas are to have the sums.
        consistency: Consistency,
        /// Microseconds that it may take.
        within_micros: u64,
        /// What is added, as live cells of eight bytes, big-endian. Their timestamps mean nothing.
        increments: Arc<Mutation>,
    },
    /// Drop what of a table was written up to a moment.
    Truncate {
        /// The table.
        table: TableId,
        /// The moment.
        timestamp: Timestamp,
    },
}

/// How a call went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallOutcome {
    /// It is done.
    Done,
    /// It is not, or not in full.
    Failed {
        /// Why.
        reason: FailureReason,
        /// For people, at most [`FAILURE_TEXT_MAX`] bytes.
        text: String,
    },
}

pub(crate) fn kind_of_call(call: &Call) -> u8 {
    match call {
        Call::Apply(_) => APPLY,
        Call::Count { .. } => COUNT,
        Call::Truncate { .. } => TRUNCATE,
    }
}

pub(crate) fn put_call(out: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Apply(mutation) => put_mutation(out, mutation),
        Call::Count {
            consistency,
            within_micros,
            increments,
        } => {
            out.push(consistency.code() as u8);
            put_varint(out, *within_micros);
            put_mutation(out, increments);
        }
        Call::Truncate { table, timestamp } => {
            out.extend_from_slice(table.0.as_bytes());
            put_signed(out, timestamp.0);
        }
    }
}

pub(crate) fn kind_of_outcome(outcome: &CallOutcome) -> u8 {
    match outcome {
        CallOutcome::Done => DONE,
        CallOutcome::Failed { .. } => FAILED,
    }
}

pub(crate) fn put_outcome(out: &mut Vec<u8>, outcome: &CallOutcome) {
    if let CallOutcome::Failed { reason, text } = outcome {
        out.push(reason.code());
        put_bytes(out, failure_text(text));
    }
}

/// The call of a kind; None when it is none.
pub(crate) fn decode_call(kind: u8, decoder: &mut Decoder) -> Decoded<Option<Call>> {
    Ok(Some(match kind {
        APPLY => Call::Apply(Arc::new(decoder.mutation()?)),
        COUNT => {
            let level = Consistency::from_code(u16::from(decoder.u8("consistency")?));
            Call::Count {
                consistency: level.ok_or_else(|| refuse(decoder, "consistency"))?,
                within_micros: decoder.varint("time")?,
                increments: Arc::new(decoder.mutation()?),
            }
        }
        TRUNCATE => Call::Truncate {
            table: TableId(decoder.uuid("table")?),
            timestamp: Timestamp(decoder.signed("timestamp")?),
        },
        _ => return Ok(None),
    }))
}

/// The outcome of a kind; None when it is none.
pub(crate) fn decode_outcome(kind: u8, decoder: &mut Decoder) -> Decoded<Option<CallOutcome>> {
    Ok(Some(match kind {
        DONE => CallOutcome::Done,
        FAILED => {
            let reason = FailureReason::from_code(decoder.u8("failure reason")?);
            let text = decode_failure_text(decoder)?;
            CallOutcome::Failed { reason, text }
        }
        _ => return Ok(None),
    }))
}

/// What is sent of a text.
pub(crate) fn failure_text(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(FAILURE_TEXT_MAX)]
}

pub(crate) fn decode_failure_text(decoder: &mut Decoder) -> Decoded<String> {
    let text = decoder.bytes("failure text")?;
    if text.len() > FAILURE_TEXT_MAX {
        return Err(refuse(decoder, "failure text"));
    }
    String::from_utf8(text.into()).map_err(|_| refuse(decoder, "failure text"))
}
