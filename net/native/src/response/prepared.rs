//! RESULT of PREPARE.
//!
//! ```text
//! prepared | id [short bytes] | v5: result metadata id [short bytes] | markers | result metadata |
//! markers  | flags i32 | count i32 | v4, v5: ( pk count i32 | pk index u16 * ) | columns |
//! ```
//!
//! Flags and columns are those of result metadata; [`Extensions::LWT_MARK`] may be among the flags of the markers.

use bytes::{BufMut, Bytes, BytesMut};

use super::metadata::{ColumnSpec, EncodedColumns, ResultMetadata, decode_columns};
use crate::version::{Dialect, Extensions, ProtocolVersion};
use crate::violation::Violation;
use crate::wire::{Reader, put_short_bytes};

/// The bind markers of a statement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PreparedMetadata {
    /// In the order of their values.
    pub columns: Vec<ColumnSpec>,
    /// The marker of each component of the partition key, empty unless all components have one. Not in v3.
    pub partition_key_indices: Vec<u16>,
    /// The statement has a condition; clients are told if they have asked for it.
    pub conditional: bool,
}

/// A prepared statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// For EXECUTE.
    pub id: Bytes,
    /// Of `result`; only where the dialect has it.
    pub result_metadata_id: Option<Bytes>,
    /// Its bind markers.
    pub markers: PreparedMetadata,
    /// Of its result.
    pub result: ResultMetadata,
}

impl Prepared {
    pub(super) fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        put_short_bytes(out, &self.id);
        if dialect.has_metadata_id() {
            put_short_bytes(out, self.result_metadata_id.as_deref().unwrap_or_default());
        }
        self.markers.encode(dialect, out);
        self.result.encode(dialect.version, out);
    }

    pub(super) fn decode(dialect: Dialect, reader: &mut Reader<'_>) -> Result<Prepared, Violation> {
        let id = reader.short_bytes("the id of a prepared statement")?;
        let result_metadata_id = if dialect.has_metadata_id() {
            Some(reader.short_bytes("the id of the result metadata")?)
        } else {
            None
        };
        let markers = PreparedMetadata::decode(dialect, reader)?;
        let result = ResultMetadata::decode(reader)?;
        Ok(Prepared {
            id,
            result_metadata_id,
            markers,
            result,
        })
    }
}

impl PreparedMetadata {
    fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        let columns = EncodedColumns::encode(dialect.version, &self.columns);
        let mark = if self.conditional && dialect.extensions.lwt_mark {
            Extensions::LWT_MARK
        } else {
            0
        };
        out.put_u32(columns.flags() | mark);
        out.put_u32(columns.count());
        if dialect.version >= ProtocolVersion::V4 {
            let indices = &self.partition_key_indices;
            out.put_u32(u32::try_from(indices.len()).expect("a partition key has few components"));
            for &index in indices {
                out.put_u16(index);
            }
        }
        out.put_slice(columns.bytes());
    }

    fn decode(dialect: Dialect, reader: &mut Reader<'_>) -> Result<PreparedMetadata, Violation> {
        let flags = reader.u32("the flags of metadata")?;
        let count = reader.count("the number of bind markers")?;
        let mut partition_key_indices = Vec::new();
        if dialect.version >= ProtocolVersion::V4 {
            let reading = "the bind markers of the partition key";
            let components = reader.count(reading)? as usize;
            partition_key_indices.reserve(reader.capacity(components, 2));
            for _ in 0..components {
                partition_key_indices.push(reader.u16(reading)?);
            }
        }
        let columns = decode_columns(reader, flags, count)?;
        let conditional = dialect.extensions.lwt_mark && flags & Extensions::LWT_MARK != 0;
        Ok(PreparedMetadata {
            columns,
            partition_key_indices,
            conditional,
        })
    }
}
