//! EVENT, and schema changes, which are also a kind of RESULT.
//!
//! ```text
//! EVENT         | "TOPOLOGY_CHANGE" | "NEW_NODE", "REMOVED_NODE", "MOVED_NODE" | address [inet] |
//!               | "STATUS_CHANGE"   | "UP", "DOWN" | address [inet] |
//!               | "SCHEMA_CHANGE"   | schema change |
//! schema change | "CREATED", "UPDATED", "DROPPED" | target | keyspace | ...
//!   "KEYSPACE"                nothing more
//!   "TABLE", "TYPE"           name
//!   "FUNCTION", "AGGREGATE"   name | argument types [string list]      from v4 on
//! ```
//!
//! All unmarked fields are \[string\]s. v3 has no functions: there it is said that their keyspace was updated.

use std::net::SocketAddr;

use bytes::BytesMut;

use crate::compression::shorten;
use crate::version::{Dialect, ProtocolVersion};
use crate::violation::Violation;
use crate::wire::{Reader, put_socket_address, put_string, put_string_list};

/// The stream of all events.
pub const EVENT_STREAM: i16 = -1;

/// Defines an enum whose variants have a name on the wire.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $reading:literal, { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }

            /// The one of this name, in any case.
            pub fn from_name(name: &str) -> Result<Self, Violation> {
                $(if name.eq_ignore_ascii_case($text) {
                    return Ok(Self::$variant);
                })+
                Err(Violation::UnknownName { reading: $reading, name: shorten(name) })
            }
        }
    };
}

named!(
    /// What a connection can register for.
    EventType, "an event type", {
        /// Nodes joined, left or moved.
        TopologyChange = "TOPOLOGY_CHANGE",
        /// Nodes went up or down.
        StatusChange = "STATUS_CHANGE",
        /// The schema changed.
        SchemaChange = "SCHEMA_CHANGE",
    }
);

named!(
    /// What happened to the ring.
    TopologyChangeKind, "a topology change", {
        /// A node joined.
        NewNode = "NEW_NODE",
        /// A node left.
        RemovedNode = "REMOVED_NODE",
        /// A node has other tokens.
        MovedNode = "MOVED_NODE",
    }
);

named!(
    /// What happened to a node.
    StatusChangeKind, "a status change", {
        /// It accepts clients.
        Up = "UP",
        /// It does not.
        Down = "DOWN",
    }
);

named!(
    /// What happened to an element of the schema.
    SchemaChangeKind, "a schema change", {
        /// It is new.
        Created = "CREATED",
        /// It is different.
        Updated = "UPDATED",
        /// It is gone.
        Dropped = "DROPPED",
    }
);

/// An element of the schema, in the keyspace of its [`SchemaChange`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SchemaTarget {
    /// The keyspace itself.
    Keyspace,
    /// A table or view; also for its indexes.
    Table(String),
    /// A user-defined type.
    Type(String),
    /// A user-defined function.
    Function {
        /// Its name.
        name: String,
        /// Its argument types, as CQL.
        argument_types: Vec<String>,
    },
    /// A user-defined aggregate.
    Aggregate {
        /// Its name.
        name: String,
        /// Its argument types, as CQL.
        argument_types: Vec<String>,
    },
}

/// A change of the schema.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SchemaChange {
    /// What happened.
    pub change: SchemaChangeKind,
    /// Where.
    pub keyspace: String,
    /// To what.
    pub target: SchemaTarget,
}

/// An event.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The ring changed.
    TopologyChange {
        /// How.
        change: TopologyChangeKind,
        /// The node's address for clients, as in the peers table.
        address: SocketAddr,
    },
    /// A node changed.
    StatusChange {
        /// How.
        change: StatusChangeKind,
        /// The node's address for clients, as in the peers table.
        address: SocketAddr,
    },
    /// The schema changed.
    SchemaChange(SchemaChange),
}

impl Event {
    /// What a connection must have registered for to get it.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::TopologyChange { .. } => EventType::TopologyChange,
            Self::StatusChange { .. } => EventType::StatusChange,
            Self::SchemaChange(_) => EventType::SchemaChange,
        }
    }

    pub(super) fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        put_string(out, self.event_type().name());
        match self {
            Self::TopologyChange { change, address } => {
                put_string(out, change.name());
                put_socket_address(out, *address);
            }
            Self::StatusChange { change, address } => {
                put_string(out, change.name());
                put_socket_address(out, *address);
            }
            Self::SchemaChange(change) => change.encode(dialect, out),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Event, Violation> {
        Ok(match EventType::from_name(reader.string("an event type")?)? {
            EventType::TopologyChange => Self::TopologyChange {
                change: TopologyChangeKind::from_name(reader.string("a topology change")?)?,
                address: reader.socket_address("the address of a node")?,
            },
            EventType::StatusChange => Self::StatusChange {
                change: StatusChangeKind::from_name(reader.string("a status change")?)?,
                address: reader.socket_address("the address of a node")?,
            },
            EventType::SchemaChange => Self::SchemaChange(SchemaChange::decode(reader)?),
        })
    }
}

impl SchemaChange {
    pub(super) fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        let (target, name, argument_types) = match &self.target {
            SchemaTarget::Keyspace => ("KEYSPACE", None, None),
            SchemaTarget::Table(name) => ("TABLE", Some(name), None),
            SchemaTarget::Type(name) => ("TYPE", Some(name), None),
            SchemaTarget::Function { name, argument_types } => ("FUNCTION", Some(name), Some(argument_types)),
            SchemaTarget::Aggregate { name, argument_types } => {
                ("AGGREGATE", Some(name), Some(argument_types))
            }
        };
        if argument_types.is_some() && dialect.version < ProtocolVersion::V4 {
            put_string(out, SchemaChangeKind::Updated.name());
            put_string(out, "KEYSPACE");
            put_string(out, &self.keyspace);
            return;
        }
        put_string(out, self.change.name());
        put_string(out, target);
        put_string(out, &self.keyspace);
        if let Some(name) = name {
            put_string(out, name);
        }
        if let Some(argument_types) = argument_types {
            put_string_list(out, argument_types);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<SchemaChange, Violation> {
        let change = SchemaChangeKind::from_name(reader.string("a schema change")?)?;
        let reading = "the target of a schema change";
        let target = reader.string(reading)?;
        let keyspace = reader.string("the keyspace of a schema change")?.to_owned();
        let mut name = || reader.string("the name of a schema element").map(str::to_owned);
        let target = match target {
            "KEYSPACE" => SchemaTarget::Keyspace,
            "TABLE" => SchemaTarget::Table(name()?),
            "TYPE" => SchemaTarget::Type(name()?),
            "FUNCTION" => SchemaTarget::Function {
                name: name()?,
                argument_types: reader.string_list("argument types")?,
            },
            "AGGREGATE" => SchemaTarget::Aggregate {
                name: name()?,
                argument_types: reader.string_list("argument types")?,
            },
            other => {
                return Err(Violation::UnknownName {
                    reading,
                    name: shorten(other),
                });
            }
        };
        Ok(SchemaChange {
            change,
            keyspace,
            target,
        })
    }
}
