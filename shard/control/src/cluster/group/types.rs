//! What group 0's log holds, and what comes of it.

use std::io::Cursor;

use bytes::Bytes;
use ceto_model::Mutation;
use ceto_model::codec::{Decoder, put_mutation, put_varint};
use ceto_node::cql::{SchemaChangeEvent, SchemaChangeKind, SchemaChangeTarget};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cluster::members::MemberChange;

openraft::declare_raft_types!(
    /// Group 0's types for the Raft library.
    pub TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = Uuid,
        Node = openraft::BasicNode,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<Uuid>;
pub(crate) type Vote = openraft::Vote<Uuid>;
pub(crate) type StoredMembership = openraft::StoredMembership<Uuid, openraft::BasicNode>;
pub(crate) type StorageError = openraft::StorageError<Uuid>;
pub(crate) type SnapshotData = Cursor<Vec<u8>>;

/// A change that is ordered by the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// Chosen by who proposes it; the proposer knows its own by it.
    pub id: Uuid,
    /// The state that it was planned against ([`Position::tables`] or [`Position::members`], by its kind). When another
    /// change came in between it has no effect, and is planned anew.
    pub planned_against: u64,
    /// What it does.
    pub change: Change,
}

/// What a command does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Writes to the tables of `system_schema` and `system_auth`.
    Tables(TableWrites),
    /// Other members.
    Members(MemberChange),
}

/// Writes to system tables.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableWrites {
    /// The mutations, encoded.
    pub mutations: MutationBytes,
    /// Their timestamp in microseconds; each command's is above all before.
    pub timestamp: i64,
    /// What drivers are told.
    pub event: Option<EventRecord>,
}

/// Encoded mutations: their number, then each; hexadecimal where it is text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MutationBytes(pub Vec<u8>);

impl MutationBytes {
    /// Of mutations.
    pub fn encode(mutations: &[Mutation]) -> MutationBytes {
        let mut out = Vec::new();
        put_varint(&mut out, mutations.len() as u64);
        for mutation in mutations {
            put_mutation(&mut out, mutation);
        }
        MutationBytes(out)
    }

    /// The mutations.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(&self) -> Result<Vec<Mutation>, String> {
        let mut decoder = Decoder::new(Bytes::from(self.0.clone()));
        let mut read = || {
            let count = decoder.count("number of mutations")?;
            let mutations: Result<Vec<_>, _> = (0..count).map(|_| decoder.mutation()).collect();
            decoder.finish("mutations")?;
            mutations
        };
        read().map_err(|error| error.to_string())
    }
}

impl Serialize for MutationBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
        let text: String = self
            .0
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
            .collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for MutationBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
                _ => None,
            })
            .collect();
        let bytes = bytes.ok_or_else(|| serde::de::Error::custom("not hexadecimal"))?;
        Ok(MutationBytes(bytes))
    }
}

/// A [`SchemaChangeEvent`] as it is in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventRecord {
    change: String,
    keyspace: String,
    target: TargetRecord,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum TargetRecord {
    Keyspace,
    Table(String),
    Type(String),
    Function(String, Vec<String>),
    Aggregate(String, Vec<String>),
}

impl From<&SchemaChangeEvent> for EventRecord {
    fn from(event: &SchemaChangeEvent) -> EventRecord {
        let change = match event.change {
            SchemaChangeKind::Created => "created",
            SchemaChangeKind::Updated => "updated",
            SchemaChangeKind::Dropped => "dropped",
        };
        let target = match event.target.clone() {
            SchemaChangeTarget::Keyspace => TargetRecord::Keyspace,
            SchemaChangeTarget::Table(name) => TargetRecord::Table(name),
            SchemaChangeTarget::Type(name) => TargetRecord::Type(name),
            SchemaChangeTarget::Function { name, argument_types } => {
                TargetRecord::Function(name, argument_types)
            }
            SchemaChangeTarget::Aggregate { name, argument_types } => {
                TargetRecord::Aggregate(name, argument_types)
            }
        };
        EventRecord {
            change: change.to_owned(),
            keyspace: event.keyspace.clone(),
            target,
        }
    }
}

impl From<EventRecord> for SchemaChangeEvent {
    fn from(record: EventRecord) -> SchemaChangeEvent {
        let change = match record.change.as_str() {
            "created" => SchemaChangeKind::Created,
            "dropped" => SchemaChangeKind::Dropped,
            _ => SchemaChangeKind::Updated,
        };
        let target = match record.target {
            TargetRecord::Keyspace => SchemaChangeTarget::Keyspace,
            TargetRecord::Table(name) => SchemaChangeTarget::Table(name),
            TargetRecord::Type(name) => SchemaChangeTarget::Type(name),
            TargetRecord::Function(name, argument_types) => {
                SchemaChangeTarget::Function { name, argument_types }
            }
            TargetRecord::Aggregate(name, argument_types) => {
                SchemaChangeTarget::Aggregate { name, argument_types }
            }
        };
        SchemaChangeEvent {
            change,
            keyspace: record.keyspace,
            target,
        }
    }
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It holds, or there was nothing to do.
    Applied,
    /// Another change came before it; nothing was changed.
    Conflict,
    /// It is impossible; nothing was changed.
    Refused(String),
}

/// Where the state machine is: what commands are planned against.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// Index of the last command that wrote to tables.
    pub tables: u64,
    /// Index of the last command that changed the members.
    pub members: u64,
    /// Highest timestamp of a command.
    pub timestamp: i64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_and_bytes_come_back_from_text() {
        let functions = |name: &str| (name.to_owned(), vec!["int".to_owned(), "text".to_owned()]);
        let (name, argument_types) = functions("f");
        let targets = [
            SchemaChangeTarget::Keyspace,
            SchemaChangeTarget::Table("t".to_owned()),
            SchemaChangeTarget::Type("u".to_owned()),
            SchemaChangeTarget::Function {
                name: name.clone(),
                argument_types: argument_types.clone(),
            },
            SchemaChangeTarget::Aggregate { name, argument_types },
        ];
        for target in targets {
            for change in [
                SchemaChangeKind::Created,
                SchemaChangeKind::Updated,
                SchemaChangeKind::Dropped,
            ] {
                let event = SchemaChangeEvent {
                    change,
                    keyspace: "k".to_owned(),
                    target: target.clone(),
                };
                let text = serde_json::to_string(&EventRecord::from(&event)).unwrap();
                let back: EventRecord = serde_json::from_str(&text).unwrap();
                assert_eq!(SchemaChangeEvent::from(back), event);
            }
        }
        let bytes = MutationBytes((0..=255).collect());
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!(serde_json::from_str::<MutationBytes>(&text).unwrap(), bytes);
        for bad in ["\"0\"", "\"zz\"", "7", "\"\u{fc}\""] {
            assert!(serde_json::from_str::<MutationBytes>(bad).is_err(), "{bad}");
        }
        for hostile in [vec![], vec![255; 9], vec![200, 1, 2, 3]] {
            assert!(MutationBytes(hostile).decode().is_err());
        }
        assert!(MutationBytes::encode(&[]).decode().unwrap().is_empty());
    }
}
