//! The data model: types, keys, tokens, timestamps, tombstones, cells, rows, partitions, mutations, schema, read
//! commands and their results.
//!
//! Pure: no clock, no disk, no peer, no thread. A mutation cannot reach any of them.
//!
//! Read next: `mutation` for what a write is, `row` for how writes merge, `comparable` for why nothing below the
//! planner needs to know a type.

pub mod cell;
pub mod codec;
pub mod comparable;
pub mod consistency;
pub mod counter;
pub mod evaluate;
pub mod index;
pub mod key;
pub mod mutation;
pub mod partition;
pub mod range_tombstone;
pub mod read;
pub mod row;
pub mod schema;
pub mod timestamp;
pub mod token;
pub mod type_text;
pub mod types;
pub mod value;
pub mod view;
pub mod write_type;

pub use cell::{Cell, CellState};
pub use consistency::Consistency;
pub use index::Index;
pub use key::{ClusteringKey, DecoratedKey, PartitionKey, PartitionRange, Position, RingPosition, Slice};
pub use mutation::Mutation;
pub use partition::Partition;
pub use range_tombstone::{RangeTombstone, RangeTombstones};
pub use read::{ReadCommand, ReadLimits, ReadResult, ReadTarget};
pub use row::{Collection, ColumnData, ColumnId, Liveness, Row};
pub use schema::{Column, ColumnKind, Keyspace, Schema, Table, TableId};
pub use timestamp::{Deletion, Expiry, Timestamp, Ttl, UnixSeconds};
pub use token::Token;
pub use types::{CqlType, UserType, UserTypeField};
pub use value::{Value, ValueError};
pub use view::View;
pub use write_type::WriteType;
