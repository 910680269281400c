//! Requests: what a client asks, decoded from and encoded to the body of an envelope.
//!
//! ```text
//! body        | custom payload [bytes map], if flagged | message |
//! STARTUP     | options [string map] |
//! OPTIONS     | |
//! QUERY       | query [long string] | parameters |
//! PREPARE     | query [long string] | v5: flags u32 | keyspace [string], flag 0x01 |
//! EXECUTE     | id [short bytes] | v5: result metadata id [short bytes] | parameters |
//! BATCH       | see batch |
//! REGISTER    | event types [string list] |
//! AUTH_RESPONSE | token [bytes] |
//! ```
//!
//! What a body has behind the message is ignored, as the specification asks for.
//!
//! The hot path is EXECUTE: its decoding makes no allocation up to 16 values; ids, paging state and values share the
//! memory of the body.

mod batch;
mod parameters;

use bytes::{BufMut, Bytes, BytesMut};

pub use batch::{Batch, BatchKind, BatchStatement, StatementSource};
pub use parameters::{QueryParameters, parameter_flags};

use crate::compression::Compression;
use crate::envelope::{Envelope, flags};
use crate::opcode::Opcode;
use crate::response::EventType;
use crate::version::{Dialect, ProtocolVersion};
use crate::violation::Violation;
use crate::wire::{
    BytesMap, Reader, put_bytes, put_bytes_map, put_long_string, put_short_bytes, put_string,
    put_string_list, put_string_map,
};

/// Options of STARTUP that this crate looks at.
pub mod startup_options {
    /// Mandatory; `3.0.0` or greater.
    pub const CQL_VERSION: &str = "CQL_VERSION";
    /// A name of [`Compression::SUPPORTED`](crate::Compression::SUPPORTED).
    pub const COMPRESSION: &str = "COMPRESSION";
    /// v5: an overloaded server answers OVERLOADED instead of slowing the connection down.
    pub const THROW_ON_OVERLOAD: &str = "THROW_ON_OVERLOAD";
}

/// PREPARE flag: a keyspace follows.
const PREPARE_WITH_KEYSPACE: u32 = 0x01;

/// A request with what stands around it in its envelope.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestMessage {
    /// The client wants the request traced.
    pub tracing: bool,
    /// Of the client, for extensions; None if not flagged.
    pub custom_payload: Option<BytesMap>,
    /// The request.
    pub request: Request,
}

/// A request.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Opens the connection.
    Startup(Startup),
    /// Asks for the supported options; also a heartbeat.
    Options,
    /// Runs a statement.
    Query(Query),
    /// Prepares a statement.
    Prepare(Prepare),
    /// Runs a prepared statement.
    Execute(Execute),
    /// Runs several statements as one.
    Batch(Batch),
    /// Asks for events.
    Register(Vec<EventType>),
    /// A step of the authentication; the token may be null.
    AuthResponse(Option<Bytes>),
}

/// STARTUP.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Startup {
    /// In the order of the wire.
    pub options: Vec<(String, String)>,
}

impl Startup {
    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The compression asked for.
    pub fn compression(&self, version: ProtocolVersion) -> Result<Compression, Violation> {
        let name = self
            .option(startup_options::COMPRESSION)
            .filter(|name| !name.is_empty());
        Compression::negotiate(version, name)
    }
}

/// QUERY.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// The statement.
    pub query: String,
    /// How to run it.
    pub parameters: QueryParameters,
}

/// PREPARE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepare {
    /// The statement.
    pub query: String,
    /// Instead of that of the connection (v5).
    pub keyspace: Option<String>,
}

/// EXECUTE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Execute {
    /// Of the prepared statement.
    pub id: Bytes,
    /// Of the result metadata that the client has; only where the dialect has it.
    pub result_metadata_id: Option<Bytes>,
    /// How to run it.
    pub parameters: QueryParameters,
}

impl RequestMessage {
    /// A request without tracing and payload.
    pub fn new(request: Request) -> RequestMessage {
        RequestMessage {
            tracing: false,
            custom_payload: None,
            request,
        }
    }

    /// Decodes the body of an envelope whose header says it is a request.
    pub fn decode(dialect: Dialect, envelope: &Envelope) -> Result<RequestMessage, Violation> {
        let header = &envelope.header;
        let mut reader = Reader::new(&envelope.body);
        let custom_payload = if header.has(flags::CUSTOM_PAYLOAD) {
            Some(reader.bytes_map("the custom payload")?)
        } else {
            None
        };
        let request = Request::decode(dialect, header.opcode, &mut reader, &envelope.body)?;
        Ok(RequestMessage {
            tracing: header.has(flags::TRACING),
            custom_payload,
            request,
        })
    }

    /// The flags that its header must have.
    pub fn flags(&self) -> u8 {
        let tracing = if self.tracing { flags::TRACING } else { 0 };
        let payload = if self.custom_payload.is_some() {
            flags::CUSTOM_PAYLOAD
        } else {
            0
        };
        tracing | payload
    }

    /// Appends the body.
    pub fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        if let Some(payload) = &self.custom_payload {
            put_bytes_map(out, payload);
        }
        self.request.encode(dialect, out);
    }
}

impl Request {
    fn decode(
        dialect: Dialect,
        opcode: Opcode,
        reader: &mut Reader<'_>,
        body: &Bytes,
    ) -> Result<Request, Violation> {
        Ok(match opcode {
            Opcode::Execute => Request::Execute(Execute::decode(dialect, reader, body)?),
            Opcode::Query => Request::Query(Query {
                query: reader.long_string("a query")?.to_owned(),
                parameters: QueryParameters::decode(dialect, reader, body)?,
            }),
            Opcode::Batch => Request::Batch(Batch::decode(dialect, reader, body)?),
            Opcode::Prepare => Request::Prepare(Prepare::decode(dialect, reader)?),
            Opcode::Startup => Request::Startup(Startup {
                options: reader.string_map("the startup options")?,
            }),
            Opcode::Options => Request::Options,
            Opcode::Register => {
                let names = reader.string_list("the event types")?;
                let types: Result<_, _> = names.iter().map(|name| EventType::from_name(name)).collect();
                Request::Register(types?)
            }
            Opcode::AuthResponse => Request::AuthResponse(reader.bytes("an authentication token")?),
            other => {
                return Err(Violation::WrongDirection {
                    opcode: other.code(),
                    stream: 0,
                });
            }
        })
    }

    /// The opcode of its envelope.
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Startup(_) => Opcode::Startup,
            Self::Options => Opcode::Options,
            Self::Query(_) => Opcode::Query,
            Self::Prepare(_) => Opcode::Prepare,
            Self::Execute(_) => Opcode::Execute,
            Self::Batch(_) => Opcode::Batch,
            Self::Register(_) => Opcode::Register,
            Self::AuthResponse(_) => Opcode::AuthResponse,
        }
    }

    fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        match self {
            Self::Startup(startup) => put_string_map(out, &startup.options),
            Self::Options => {}
            Self::Query(query) => {
                put_long_string(out, &query.query);
                query.parameters.encode(dialect, out);
            }
            Self::Prepare(prepare) => prepare.encode(dialect, out),
            Self::Execute(execute) => execute.encode(dialect, out),
            Self::Batch(batch) => batch.encode(dialect, out),
            Self::Register(types) => {
                let names: Vec<&str> = types.iter().map(|event_type| event_type.name()).collect();
                put_string_list(out, &names);
            }
            Self::AuthResponse(token) => put_bytes(out, token.as_deref()),
        }
    }
}

impl Prepare {
    fn decode(dialect: Dialect, reader: &mut Reader<'_>) -> Result<Prepare, Violation> {
        let query = reader.long_string("a query")?.to_owned();
        let flags = if dialect.version >= ProtocolVersion::V5 {
            reader.u32("the flags of PREPARE")?
        } else {
            0
        };
        let keyspace = if flags & PREPARE_WITH_KEYSPACE != 0 {
            Some(reader.string("a keyspace")?.to_owned())
        } else {
            None
        };
        Ok(Prepare { query, keyspace })
    }

    fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        put_long_string(out, &self.query);
        if dialect.version < ProtocolVersion::V5 {
            return;
        }
        match &self.keyspace {
            Some(keyspace) => {
                out.put_u32(PREPARE_WITH_KEYSPACE);
                put_string(out, keyspace);
            }
            None => out.put_u32(0),
        }
    }
}

impl Execute {
    fn decode(dialect: Dialect, reader: &mut Reader<'_>, body: &Bytes) -> Result<Execute, Violation> {
        let id = reader.short_bytes("the id of a prepared statement")?;
        let result_metadata_id = if dialect.has_metadata_id() {
            Some(reader.short_bytes("the id of the result metadata")?)
        } else {
            None
        };
        let parameters = QueryParameters::decode(dialect, reader, body)?;
        Ok(Execute {
            id,
            result_metadata_id,
            parameters,
        })
    }

    fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        put_short_bytes(out, &self.id);
        if dialect.has_metadata_id() {
            put_short_bytes(out, self.result_metadata_id.as_deref().unwrap_or_default());
        }
        self.parameters.encode(dialect, out);
    }
}

#[cfg(test)]
mod tests;
