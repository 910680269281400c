//! Metadata: the columns of a result or the bind markers of a prepared statement.
//!
//! ```text
//! result  | flags i32 | columns count i32 | 0x02 paging state [bytes] | 0x08 new metadata id [short bytes] | columns |
//! columns | nothing, with flag 0x04                                                     0x08 only with metadata ids
//!         | keyspace [string] | table [string] | ( name [string] | option )*           with flag 0x01
//!         | ( keyspace [string] | table [string] | name [string] | option )*           else
//! ```

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ceto_model::CqlType;

use crate::type_option::{decode_type, encode_type};
use crate::version::ProtocolVersion;
use crate::violation::Violation;
use crate::wire::{Reader, put_bytes, put_short_bytes, put_string};

/// Flags of metadata.
pub mod metadata_flags {
    /// All columns are of one table, which is given once.
    pub const GLOBAL_TABLES_SPEC: u32 = 0x01;
    /// There are more pages; a paging state follows.
    pub const HAS_MORE_PAGES: u32 = 0x02;
    /// There are no columns.
    pub const NO_METADATA: u32 = 0x04;
    /// The client has old metadata; the new id follows.
    pub const METADATA_CHANGED: u32 = 0x08;
}

use metadata_flags::{GLOBAL_TABLES_SPEC, HAS_MORE_PAGES, METADATA_CHANGED, NO_METADATA};

/// Least bytes of a column in metadata: an empty name and a native type.
const MIN_COLUMN_LENGTH: usize = 4;

/// A column of a result, or a bind marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnSpec {
    /// Of the table.
    pub keyspace: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// Of the column or marker, or the text of the expression.
    pub name: Arc<str>,
    /// Of its values.
    pub cql_type: CqlType,
}

/// Columns as a version writes them: made once for a statement, copied into each result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedColumns {
    count: u32,
    global: bool,
    bytes: Bytes,
}

impl EncodedColumns {
    /// Encodes columns.
    pub fn encode(version: ProtocolVersion, columns: &[ColumnSpec]) -> EncodedColumns {
        let mut out = BytesMut::new();
        let global = columns.split_first().is_some_and(|(first, rest)| {
            rest.iter()
                .all(|c| c.keyspace == first.keyspace && c.table == first.table)
        });
        if let Some(first) = columns.first()
            && global
        {
            put_string(&mut out, &first.keyspace);
            put_string(&mut out, &first.table);
        }
        for column in columns {
            if !global {
                put_string(&mut out, &column.keyspace);
                put_string(&mut out, &column.table);
            }
            put_string(&mut out, &column.name);
            encode_type(&mut out, version, &column.cql_type);
        }
        let count = u32::try_from(columns.len()).expect("a statement has fewer columns");
        EncodedColumns {
            count,
            global,
            bytes: out.freeze(),
        }
    }

    /// Number of columns.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn flags(&self) -> u32 {
        if self.global { GLOBAL_TABLES_SPEC } else { 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads columns; `flags` and `count` stand before them.
pub(super) fn decode_columns(
    reader: &mut Reader<'_>,
    flags: u32,
    count: u32,
) -> Result<Vec<ColumnSpec>, Violation> {
    let count = count as usize;
    let (keyspace_of, table_of) = ("the keyspace of a column", "the table of a column");
    let global: Option<(Arc<str>, Arc<str>)> = if flags & GLOBAL_TABLES_SPEC != 0 {
        Some((
            reader.string(keyspace_of)?.into(),
            reader.string(table_of)?.into(),
        ))
    } else {
        None
    };
    let mut columns = Vec::with_capacity(reader.capacity(count, MIN_COLUMN_LENGTH));
    for _ in 0..count {
        let (keyspace, table) = match &global {
            Some(table) => table.clone(),
            None => (
                reader.string(keyspace_of)?.into(),
                reader.string(table_of)?.into(),
            ),
        };
        let name = reader.string("the name of a column")?.into();
        columns.push(ColumnSpec {
            keyspace,
            table,
            name,
            cql_type: decode_type(reader)?,
        });
    }
    Ok(columns)
}

/// Metadata of a result.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResultMetadata {
    /// Number of columns; that of `columns` if these are there.
    pub column_count: u32,
    /// Where to go on; None: this was the last page.
    pub paging_state: Option<Bytes>,
    /// The id of this metadata, if it is not the one that the client has.
    pub new_metadata_id: Option<Bytes>,
    /// None if the client has asked to leave them out, or for a statement without a result.
    pub columns: Option<Vec<ColumnSpec>>,
}

impl ResultMetadata {
    /// Of a statement without a result.
    pub const NONE: ResultMetadata = ResultMetadata {
        column_count: 0,
        paging_state: None,
        new_metadata_id: None,
        columns: None,
    };

    /// These columns.
    pub fn new(columns: Vec<ColumnSpec>) -> ResultMetadata {
        let column_count = u32::try_from(columns.len()).expect("a statement has fewer columns");
        ResultMetadata {
            column_count,
            columns: Some(columns),
            ..Self::NONE
        }
    }

    /// Appends the metadata.
    pub fn encode(&self, version: ProtocolVersion, out: &mut BytesMut) {
        let columns = self
            .columns
            .as_ref()
            .map(|columns| EncodedColumns::encode(version, columns));
        put_metadata(
            out,
            self.column_count,
            columns.as_ref(),
            self.paging_state.as_deref(),
            self.new_metadata_id.as_deref(),
        );
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<ResultMetadata, Violation> {
        let flags = reader.u32("the flags of metadata")?;
        let column_count = reader.count("the number of columns")?;
        let paging_state = if flags & HAS_MORE_PAGES != 0 {
            reader.bytes("a paging state")?
        } else {
            None
        };
        let new_metadata_id = if flags & METADATA_CHANGED != 0 {
            Some(reader.short_bytes("the id of the result metadata")?)
        } else {
            None
        };
        let columns = if flags & NO_METADATA == 0 {
            Some(decode_columns(reader, flags, column_count)?)
        } else {
            None
        };
        Ok(ResultMetadata {
            column_count,
            paging_state,
            new_metadata_id,
            columns,
        })
    }
}

/// Appends metadata of a result. `columns` of None sets the flag that says so.
pub(super) fn put_metadata(
    out: &mut BytesMut,
    column_count: u32,
    columns: Option<&EncodedColumns>,
    paging_state: Option<&[u8]>,
    new_metadata_id: Option<&[u8]>,
) {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = columns.map_or(NO_METADATA, EncodedColumns::flags)
        | flag(paging_state.is_some(), HAS_MORE_PAGES)
        | flag(new_metadata_id.is_some(), METADATA_CHANGED);
    out.put_u32(flags);
    out.put_u32(column_count);
    if paging_state.is_some() {
        put_bytes(out, paging_state);
    }
    if let Some(id) = new_metadata_id {
        put_short_bytes(out, id);
    }
    if let Some(columns) = columns {
        out.put_slice(columns.bytes());
    }
}
