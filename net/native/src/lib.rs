//! The CQL native protocol, versions 3, 4 and 5: bytes to typed messages and back, for both ends of a connection.
//!
//! Three layers, each usable alone:
//!
//! ```text
//! socket bytes
//!   | frame::FrameDecoder            v5: frames with checksums; v3, v4: none
//!   v
//! Envelope = Header + body           envelope: 9-byte header, stream id, opcode
//!   | Request::decode, Response::decode
//!   v
//! typed message
//! ```
//!
//! The way back is [`FrameEncoder`], whose [`FrameWriter`] gives each message a buffer to write its body into and
//! adds headers, compression and checksums around it. Large results go through [`RowsEncoder`].
//!
//! Invariants:
//! - Never does input or output: bytes come in as slices and leave in a buffer of the caller's.
//! - Never panics on input; every decoder answers a [`Violation`] that says what was read, where, and what it found.
//! - Never reserves memory because a length or count in the input claims it (see [`wire::Reader::capacity`]).
//! - Never looks into a value: values are bytes, their meaning is the data model's.
//! - Never maps an error code outside of [`error`].
//!
//! Read next: `frame` for the layers below a message, `request`, `response`.

pub mod checksum;
pub mod compression;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod opcode;
pub mod request;
pub mod response;
pub mod type_option;
pub mod values;
pub mod version;
pub mod violation;
pub mod wire;

pub use compression::Compression;
pub use envelope::{Direction, Envelope, Header};
pub use error::{ErrorCode, ErrorMessage, ErrorReason};
pub use frame::{FrameDecoder, FrameEncoder, FrameWriter, UnderWay};
pub use opcode::Opcode;
pub use request::{Batch, Execute, Prepare, Query, QueryParameters, Request, RequestMessage, Startup};
pub use response::{
    ColumnSpec, EncodedColumns, Event, EventType, Prepared, Response, ResponseMessage, ResultMetadata, Rows,
    RowsEncoder, RowsHeader, SchemaChange,
};
pub use values::{BoundValue, Values};
pub use version::{Dialect, Extensions, ProtocolVersion};
pub use violation::{LengthLimit, Violation};

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
