//! Streaming: what a node asks a peer's shard for when it takes over parts of the ring, and the pages that it gets.
//!
//! ```text
//! stream ::= table:16 after up_to resume bytes     kind 40, Fetch
//!          | content                               kind 56, Page
//!          | reason:u8 text:bytes                  kind 57, Failed
//! ```
//!
//! `resume` and `content` are those of `codec`. A page holds everything, what is deleted and what expires too, with its
//! timestamps; where it says where to go on, the next question begins there. The source keeps nothing between two questions.
//!
//! Never: a part that wraps around the ring's end.

use ceto_model::codec::{Decoder, put_bytes, put_signed, put_varint};
use ceto_model::read::ResumePoint;
use ceto_model::{ReadResult, TableId, Token};

use crate::call::{decode_failure_text, failure_text};
use crate::codec::{
    Decoded, decode_read_content, decode_resume, decode_u32, put_read_content, put_resume, refuse,
};
use crate::message::FailureReason;
use crate::repair::TokenPart;

const FETCH: u8 = 40;
const PAGE: u8 = 56;
const FAILED: u8 = 57;

/// One step of streaming.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamMessage {
    /// Send a page of what the asked shard has there.
    Fetch {
        /// The table.
        table: TableId,
        /// Where.
        part: TokenPart,
        /// The place where the page before has stopped; None: at the part's beginning.
        from: Option<ResumePoint>,
        /// About how large the page may be.
        bytes: u32,
    },
    /// The page. Its figures of work are not sent.
    Page(ReadResult),
    /// It could not be read.
    Failed {
        /// Why.
        reason: FailureReason,
        /// For people, at most [`crate::call::FAILURE_TEXT_MAX`] bytes.
        text: String,
    },
}

/// The kind byte of `message`.
pub(crate) fn kind_of(message: &StreamMessage) -> u8 {
    match message {
        StreamMessage::Fetch { .. } => FETCH,
        StreamMessage::Page(_) => PAGE,
        StreamMessage::Failed { .. } => FAILED,
    }
}

/// Appends the body of `message`.
pub(crate) fn put_body(out: &mut Vec<u8>, message: &StreamMessage) {
    match message {
        StreamMessage::Fetch {
            table,
            part,
            from,
            bytes,
        } => {
            out.extend_from_slice(table.0.as_bytes());
            put_signed(out, part.after.0);
            put_signed(out, part.up_to.0);
            put_resume(out, from.as_ref());
            put_varint(out, u64::from(*bytes));
        }
        StreamMessage::Page(page) => put_read_content(out, page),
        StreamMessage::Failed { reason, text } => {
            out.push(reason.code());
            put_bytes(out, failure_text(text));
        }
    }
}

/// Reads the body of a message of `kind`; None when the kind is not of streaming.
pub(crate) fn decode_body(kind: u8, decoder: &mut Decoder) -> Decoded<Option<StreamMessage>> {
    Ok(Some(match kind {
        FETCH => {
            let table = TableId(decoder.uuid("table id")?);
            let after = Token(decoder.signed("token")?);
            let up_to = Token(decoder.signed("token")?);
            if after > up_to {
                return Err(refuse(decoder, "part of the ring"));
            }
            StreamMessage::Fetch {
                table,
                part: TokenPart { after, up_to },
                from: decode_resume(decoder)?,
                bytes: decode_u32(decoder, "size of a page")?,
            }
        }
        PAGE => StreamMessage::Page(decode_read_content(decoder)?),
        FAILED => StreamMessage::Failed {
            reason: FailureReason::from_code(decoder.u8("failure reason")?),
            text: decode_failure_text(decoder)?,
        },
        _ => return Ok(None),
    }))
}
