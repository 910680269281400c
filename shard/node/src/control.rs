//! What a shard asks of the control thread.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ceto_cql::access::AccessChange;
use ceto_cql::{CqlError, SchemaChange, SchemaChangeEvent};
use ceto_internode::HostId;
pub use ceto_storage::StorageFailure;

/// How a schema change went: what drivers are told, or None when there was nothing to change.
pub type SchemaOutcome = Result<Option<SchemaChangeEvent>, CqlError>;

/// A request to the control thread.
pub enum ControlRequest {
    /// Change the schema.
    ChangeSchema {
        /// The change, validated again where changes are ordered.
        change: Box<SchemaChange>,
        /// The shard that asks; it is told the outcome by [`Node::schema_changed`](crate::Node::schema_changed) once
        /// every shard has the new schema.
        from: u16,
        /// Its slot.
        slot: u32,
        /// The role that asks; it gets all permissions on what it makes.
        role: Option<Arc<str>>,
    },
    /// Change roles, or what is granted to them; answered as a schema change that changes nothing.
    ChangeAccess {
        /// The change.
        change: Box<AccessChange>,
        /// The role that asks; it may have lost its permissions since.
        role: Option<Arc<str>>,
        /// The shard that asks; told by [`Node::schema_changed`](crate::Node::schema_changed).
        from: u16,
        /// Its slot.
        slot: u32,
    },
    /// Change settings; answered as a schema change that changes nothing.
    ChangeSettings {
        /// All or none of them.
        changes: crate::settings::SettingChanges,
        /// The shard that asks; told by [`Node::schema_changed`](crate::Node::schema_changed).
        from: u16,
        /// Its slot.
        slot: u32,
    },
    /// Compare a password with a hash, which takes long.
    ComparePassword {
        /// What a client says.
        password: Box<str>,
        /// What is stored; None for a role that is not there or has none, which takes as long.
        hash: Option<Arc<str>>,
        /// The shard that asks; told by [`Node::password_compared`](crate::Node::password_compared).
        from: u16,
        /// Its slot.
        slot: u32,
    },
    /// A shard's storage has failed so that the node is to stop serving, or to end.
    StorageFailed(StorageFailure),
    /// A message of another node's control thread, sent by [`Node::send_control`](crate::Node::send_control). From any
    /// shard; dropped when the queue is full.
    PeerMessage {
        /// Who sent it, as its handshake said.
        from: HostId,
        /// Where it is reached, as its handshake said.
        from_address: SocketAddr,
        /// What it sent.
        body: Bytes,
    },
}

/// The way to the control thread; gives the request back when its queue is full.
pub type ControlDoor = Box<dyn Fn(ControlRequest) -> Result<(), ControlRequest>>;
