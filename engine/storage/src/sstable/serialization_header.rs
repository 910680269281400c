//! Names and types of an sstable's columns, kept in its Statistics: enough to show its content without the schema.
//!
//! Rows carry only column ids, so the header lists the columns that the table had when the sstable was written, and the
//! dropped ones. It is for people and tools; reads of a node go by the node's own schema.

use std::sync::Arc;

use ceto_model::schema::{ColumnKind, Table};
use ceto_model::type_text::marshal_class;
use ceto_model::{ColumnId, CqlType};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, WIPOffset};

use super::flat::FlatTable;
use super::statistics::slot;

/// Most columns that are read: what a damaged count may cost.
const COLUMNS_MAX: usize = 1 << 16;

/// A table as it was when an sstable of it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SerializationHeader {
    /// Keyspace.
    pub keyspace: Arc<str>,
    /// Table.
    pub table: Arc<str>,
    /// Partition key and clustering columns in order, then the others.
    pub columns: Vec<HeaderColumn>,
}

/// A column of a [`SerializationHeader`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderColumn {
    /// As in rows.
    pub id: ColumnId,
    /// Name.
    pub name: Arc<str>,
    /// Its part.
    pub kind: ColumnKind,
    /// Its type as a Java marshal class, `ReversedType` around a descending clustering column's.
    pub type_class: String,
    /// It had been dropped.
    pub is_dropped: bool,
}

/// Field numbers of a column in the flatbuffer. Never change one.
///
/// Name and class are UTF-8 (`[ubyte]`), the others `ulong`, absent when 0; the kind is 0 partition key, 1 clustering,
/// 2 static, 3 regular. Key columns stand in the order of the key.
mod field {
    pub(super) const ID: u16 = 0;
    pub(super) const NAME: u16 = 1;
    pub(super) const KIND: u16 = 2;
    pub(super) const TYPE_CLASS: u16 = 3;
    pub(super) const IS_DROPPED: u16 = 4;
}

const KINDS: [ColumnKind; 4] = [
    ColumnKind::PartitionKey,
    ColumnKind::Clustering,
    ColumnKind::Static,
    ColumnKind::Regular,
];

/// A list of columns in a flatbuffer.
pub(super) type ColumnVector<'a> = WIPOffset<Vector<'a, ForwardsUOffset<()>>>;

impl SerializationHeader {
    /// Of a table as it is now.
    pub fn of(table: &Table) -> SerializationHeader {
        let living = table.columns().iter().map(|column| HeaderColumn {
            id: column.id,
            name: column.name.clone(),
            kind: column.kind,
            type_class: marshal_class(&column.cql_type, column.descending),
            is_dropped: false,
        });
        let dropped = table.dropped.iter().map(|column| HeaderColumn {
            id: column.id,
            name: column.name.clone(),
            kind: column.kind,
            type_class: marshal_class(&column.cql_type, false),
            is_dropped: true,
        });
        SerializationHeader {
            keyspace: table.keyspace.clone(),
            table: table.name.clone(),
            columns: living.chain(dropped).collect(),
        }
    }

    /// Columns of one kind that had not been dropped, in order.
    pub fn columns_of(&self, kind: ColumnKind) -> impl Iterator<Item = &HeaderColumn> {
        self.columns
            .iter()
            .filter(move |column| column.kind == kind && !column.is_dropped)
    }

    /// A column by its id, dropped ones too.
    pub fn column(&self, id: ColumnId) -> Option<&HeaderColumn> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// Appends the columns to a flatbuffer.
    pub(super) fn put_columns<'a>(&self, builder: &mut FlatBufferBuilder<'a>) -> ColumnVector<'a> {
        let mut tables = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let name = builder.create_vector(column.name.as_bytes());
            let type_class = builder.create_vector(column.type_class.as_bytes());
            let kind = KINDS.iter().position(|kind| *kind == column.kind).unwrap_or(0);
            let start = builder.start_table();
            for (number, value) in [
                (field::ID, u64::from(column.id.0)),
                (field::KIND, kind as u64),
                (field::IS_DROPPED, u64::from(column.is_dropped)),
            ] {
                builder.push_slot::<u64>(slot(number), value, 0);
            }
            builder.push_slot_always(slot(field::NAME), name);
            builder.push_slot_always(slot(field::TYPE_CLASS), type_class);
            tables.push(WIPOffset::<()>::new(builder.end_table(start).value()));
        }
        builder.create_vector(&tables)
    }

    /// Reads the columns.
    pub(super) fn columns(tables: Vec<FlatTable<'_>>) -> Option<Vec<HeaderColumn>> {
        if tables.len() > COLUMNS_MAX {
            return None;
        }
        let column = |table: FlatTable<'_>| {
            Some(HeaderColumn {
                id: ColumnId(table.u64(field::ID).try_into().ok()?),
                name: table.text(field::NAME)?.into(),
                kind: *KINDS.get(usize::try_from(table.u64(field::KIND)).ok()?)?,
                type_class: table.text(field::TYPE_CLASS)?.to_owned(),
                is_dropped: table.u64(field::IS_DROPPED) != 0,
            })
        };
        tables.into_iter().map(column).collect()
    }
}

impl HeaderColumn {
    /// Its type, and whether it is a descending clustering column. None when the class cannot be read.
    pub fn cql_type(&self) -> Option<(CqlType, bool)> {
        ceto_model::type_text::parse_marshal_class(&self.type_class).ok()
    }
}
