//! Responses: what a server answers, encoded to and decoded from the body of an envelope.
//!
//! ```text
//! body           | tracing id [uuid] | warnings [string list] | custom payload [bytes map] | message |
//! ERROR          | see error |
//! READY          | |
//! AUTHENTICATE   | authenticator class [string] |
//! SUPPORTED      | options [string multimap] |
//! RESULT         | kind i32 | 1 void | 2 rows | 3 keyspace [string] | 4 prepared | 5 schema change |
//! EVENT          | see event |
//! AUTH_CHALLENGE | token [bytes] |
//! AUTH_SUCCESS   | token [bytes] |
//! ```
//!
//! The parts before the message are there if their flag is set. A server writes large results with [`RowsEncoder`]
//! and never builds [`Rows`], which is what a client decodes.

mod event;
mod metadata;
mod prepared;
mod rows;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

pub use event::{
    EVENT_STREAM, Event, EventType, SchemaChange, SchemaChangeKind, SchemaTarget, StatusChangeKind,
    TopologyChangeKind,
};
pub use metadata::{ColumnSpec, EncodedColumns, ResultMetadata, metadata_flags};
pub use prepared::{Prepared, PreparedMetadata};
pub use rows::{Row, Rows, RowsEncoder, RowsHeader};

use crate::envelope::{Envelope, flags};
use crate::error::ErrorMessage;
use crate::opcode::Opcode;
use crate::version::{Dialect, ProtocolVersion};
use crate::violation::Violation;
use crate::wire::{
    BytesMap, Reader, put_bytes, put_bytes_map, put_string, put_string_list, put_string_multimap,
};

/// The first int of a RESULT.
mod result_kind {
    pub(super) const VOID: i32 = 1;
    pub(super) const ROWS: i32 = 2;
    pub(super) const SET_KEYSPACE: i32 = 3;
    pub(super) const PREPARED: i32 = 4;
    pub(super) const SCHEMA_CHANGE: i32 = 5;
}

/// A response with what stands before it in its envelope.
#[derive(Clone, PartialEq, Debug)]
pub struct ResponseMessage {
    /// What stands before the message.
    pub prefix: ResponsePrefix,
    /// The response.
    pub response: Response,
}

/// What may stand before a response. Warnings and payload do not exist in v3 and are left out there.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ResponsePrefix {
    /// Of the session in `system_traces`.
    pub tracing_id: Option<Uuid>,
    /// For people.
    pub warnings: Vec<String>,
    /// For extensions.
    pub custom_payload: Option<BytesMap>,
}

/// A response.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// The request failed.
    Error(ErrorMessage),
    /// The connection is open; also the answer to REGISTER.
    Ready,
    /// The connection needs authentication.
    Authenticate {
        /// The Java class name of the mechanism.
        authenticator: String,
    },
    /// The answer to OPTIONS.
    Supported(Vec<(String, Vec<String>)>),
    /// RESULT: nothing to say.
    Void,
    /// RESULT: rows.
    Rows(Rows),
    /// RESULT: USE has set this keyspace.
    SetKeyspace(String),
    /// RESULT: the answer to PREPARE.
    Prepared(Prepared),
    /// RESULT: the schema has changed.
    SchemaChange(SchemaChange),
    /// Something happened that the connection has registered for.
    Event(Event),
    /// A step of the authentication; the token may be null.
    AuthChallenge(Option<Bytes>),
    /// The end of the authentication; the token may be null.
    AuthSuccess(Option<Bytes>),
}

impl ResponsePrefix {
    /// The flags that the header must have.
    pub fn flags(&self, dialect: Dialect) -> u8 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let v4 = dialect.version >= ProtocolVersion::V4;
        flag(self.tracing_id.is_some(), flags::TRACING)
            | flag(v4 && !self.warnings.is_empty(), flags::WARNING)
            | flag(v4 && self.custom_payload.is_some(), flags::CUSTOM_PAYLOAD)
    }

    /// Appends what the flags say.
    pub fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        if let Some(id) = self.tracing_id {
            out.put_slice(id.as_bytes());
        }
        if dialect.version < ProtocolVersion::V4 {
            return;
        }
        if !self.warnings.is_empty() {
            put_string_list(out, &self.warnings);
        }
        if let Some(payload) = &self.custom_payload {
            put_bytes_map(out, payload);
        }
    }

    fn decode(header_flags: u8, reader: &mut Reader<'_>) -> Result<ResponsePrefix, Violation> {
        let mut prefix = ResponsePrefix::default();
        if header_flags & flags::TRACING != 0 {
            prefix.tracing_id = Some(reader.uuid("the tracing id")?);
        }
        if header_flags & flags::WARNING != 0 {
            prefix.warnings = reader.string_list("the warnings")?;
        }
        if header_flags & flags::CUSTOM_PAYLOAD != 0 {
            prefix.custom_payload = Some(reader.bytes_map("the custom payload")?);
        }
        Ok(prefix)
    }
}

impl From<Response> for ResponseMessage {
    fn from(response: Response) -> Self {
        ResponseMessage {
            prefix: ResponsePrefix::default(),
            response,
        }
    }
}

impl From<ErrorMessage> for ResponseMessage {
    fn from(error: ErrorMessage) -> Self {
        Response::Error(error).into()
    }
}

impl ResponseMessage {
    /// Decodes the body of an envelope whose header says it is a response.
    pub fn decode(dialect: Dialect, envelope: &Envelope) -> Result<ResponseMessage, Violation> {
        let mut reader = Reader::new(&envelope.body);
        let prefix = ResponsePrefix::decode(envelope.header.flags, &mut reader)?;
        let response = Response::decode(dialect, envelope.header.opcode, &mut reader)?;
        Ok(ResponseMessage { prefix, response })
    }

    /// The flags that its header must have.
    pub fn flags(&self, dialect: Dialect) -> u8 {
        self.prefix.flags(dialect)
    }

    /// Appends the body.
    pub fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        self.prefix.encode(dialect, out);
        self.response.encode(dialect, out);
    }
}

impl Response {
    /// The opcode of its envelope.
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Error(_) => Opcode::Error,
            Self::Ready => Opcode::Ready,
            Self::Authenticate { .. } => Opcode::Authenticate,
            Self::Supported(_) => Opcode::Supported,
            Self::Void | Self::Rows(_) | Self::SetKeyspace(_) | Self::Prepared(_) | Self::SchemaChange(_) => {
                Opcode::Result
            }
            Self::Event(_) => Opcode::Event,
            Self::AuthChallenge(_) => Opcode::AuthChallenge,
            Self::AuthSuccess(_) => Opcode::AuthSuccess,
        }
    }

    /// Appends the message without what may stand before it.
    pub fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        match self {
            Self::Error(error) => error.encode(dialect, out),
            Self::Ready => {}
            Self::Authenticate { authenticator } => put_string(out, authenticator),
            Self::Supported(options) => put_string_multimap(out, options),
            Self::Void => out.put_i32(result_kind::VOID),
            Self::Rows(rows) => {
                out.put_i32(result_kind::ROWS);
                rows.encode(dialect, out);
            }
            Self::SetKeyspace(keyspace) => {
                out.put_i32(result_kind::SET_KEYSPACE);
                put_string(out, keyspace);
            }
            Self::Prepared(prepared) => {
                out.put_i32(result_kind::PREPARED);
                prepared.encode(dialect, out);
            }
            Self::SchemaChange(change) => {
                out.put_i32(result_kind::SCHEMA_CHANGE);
                change.encode(dialect, out);
            }
            Self::Event(event) => event.encode(dialect, out),
            Self::AuthChallenge(token) | Self::AuthSuccess(token) => put_bytes(out, token.as_deref()),
        }
    }

    pub(crate) fn decode(
        dialect: Dialect,
        opcode: Opcode,
        reader: &mut Reader<'_>,
    ) -> Result<Response, Violation> {
        Ok(match opcode {
            Opcode::Result => Self::decode_result(dialect, reader)?,
            Opcode::Error => Self::Error(ErrorMessage::decode(dialect, reader)?),
            Opcode::Ready => Self::Ready,
            Opcode::Authenticate => Self::Authenticate {
                authenticator: reader.string("the name of an authenticator")?.to_owned(),
            },
            Opcode::Supported => Self::Supported(reader.string_multimap("the supported options")?),
            Opcode::Event => Self::Event(Event::decode(reader)?),
            Opcode::AuthChallenge => Self::AuthChallenge(reader.bytes("an authentication token")?),
            Opcode::AuthSuccess => Self::AuthSuccess(reader.bytes("an authentication token")?),
            other => {
                return Err(Violation::WrongDirection {
                    opcode: other.code(),
                    stream: 0,
                });
            }
        })
    }

    fn decode_result(dialect: Dialect, reader: &mut Reader<'_>) -> Result<Response, Violation> {
        let reading = "the kind of a result";
        Ok(match reader.i32(reading)? {
            result_kind::VOID => Self::Void,
            result_kind::ROWS => Self::Rows(Rows::decode(reader)?),
            result_kind::SET_KEYSPACE => Self::SetKeyspace(reader.string("a keyspace")?.to_owned()),
            result_kind::PREPARED => Self::Prepared(Prepared::decode(dialect, reader)?),
            result_kind::SCHEMA_CHANGE => Self::SchemaChange(SchemaChange::decode(reader)?),
            code => {
                return Err(Violation::UnknownCode {
                    reading,
                    offset: reader.position(),
                    code: i64::from(code),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests;
