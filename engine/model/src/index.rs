//! Secondary indexes: which entries a write makes, and whether an entry still tells the truth.
//!
//! An index is a hidden table with one partition. Its rows are the entries, ordered by the indexed value and then as the
//! indexed table is:
//!
//! ```text
//! clustering ::= value [value]  token  partition-key  row
//!                               bigint blob           blob: the row's clustering key as stored; empty: the static row
//! ```
//!
//! An entry holds the *reasons* for it: for each cell of the base that has the value a cell without content, of the same
//! column, path, timestamp and expiry (for key columns: every cell of the row, and the row marker as column
//! [`MARKER`]). So an entry lives exactly as long as what it stands for would without deletions and overwrites, whatever
//! the order in which writes come: merging is the base's own.
//!
//! Invariants:
//! - Every live value of the base has a live entry. The opposite is not true: nothing is read before a write, so what is
//!   overwritten or deleted leaves its entry. Who finds one by an entry looks at the base, too ([`Index::confirms`]).
//! - A stale entry is deleted cell by cell at the cells' own timestamps, so nothing newer can be lost.
//! - An entry has an encoded key; what cannot be encoded has none.

use std::sync::Arc;

use bytes::Bytes;

use crate::cell::{Cell, CellState};
use crate::comparable::{
    BOUND_AFTER, BOUND_BEFORE, COMPONENT, KEY_END, decode_clustering, decode_component, encode_component,
};
use crate::key::{ClusteringKey, DecoratedKey, PartitionKey, Position, RingPosition};
use crate::partition::Partition;
use crate::row::{Collection, ColumnData, ColumnId, Row};
use crate::schema::{ColumnKind, IndexDefinition, IndexTarget, Similarity, Table, TableBuilder, TableId};
use crate::timestamp::UnixSeconds;
use crate::token::Token;
use crate::types::CqlType;

/// In an entry the column that stands for the row marker.
pub const MARKER: ColumnId = ColumnId(u32::MAX - 16);

/// Ids of the hidden table's key columns: beyond those of any table.
const KEY_IDS: u32 = u32::MAX - 15;

/// Characters of a hidden table's name.
const NAME_MAX: usize = 200;

/// An index, ready to be kept and asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Index {
    /// As it was defined.
    pub definition: IndexDefinition,
    /// The hidden table that holds the entries.
    pub table: Arc<Table>,
    source: Source,
    /// Types of what is indexed: one, for entries of a map two.
    types: Vec<CqlType>,
}

/// Where indexed values come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    PartitionKey(usize),
    Clustering(usize),
    /// The value of a single cell.
    Cell(ColumnId),
    /// The values of a collection's cells.
    Values(ColumnId),
    /// The paths of a collection's cells.
    Paths(ColumnId),
    /// Both.
    Entries(ColumnId),
}

/// An entry, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The indexed value, encoded.
    pub value: Bytes,
    /// The base's partition.
    pub key: DecoratedKey,
    /// The base's row; None: the static row.
    pub row: Option<ClusteringKey>,
}

impl Index {
    /// The index that a definition makes of a table; None when the table has no such column, or one of a type that the
    /// target does not fit.
    pub fn new(definition: IndexDefinition, base: &Table) -> Option<Index> {
        let column = base.column(&definition.column)?;
        let position = usize::from(column.position);
        let (source, types) = match (column.kind, definition.target, &column.cql_type) {
            (ColumnKind::PartitionKey, IndexTarget::Simple | IndexTarget::Full, cql_type) => {
                (Source::PartitionKey(position), vec![cql_type.clone()])
            }
            (ColumnKind::Clustering, IndexTarget::Simple | IndexTarget::Full, cql_type) => {
                (Source::Clustering(position), vec![cql_type.clone()])
            }
            (_, IndexTarget::Simple | IndexTarget::Full, cql_type) if !cql_type.is_multicell() => {
                (Source::Cell(column.id), vec![cql_type.clone()])
            }
            (_, IndexTarget::Values, CqlType::Set { element, .. }) => {
                (Source::Paths(column.id), vec![(**element).clone()])
            }
            (_, IndexTarget::Values, CqlType::List { element, .. }) => {
                (Source::Values(column.id), vec![(**element).clone()])
            }
            (_, IndexTarget::Values, CqlType::Map { value, .. }) => {
                (Source::Values(column.id), vec![(**value).clone()])
            }
            (_, IndexTarget::Keys, CqlType::Map { key, .. }) => {
                (Source::Paths(column.id), vec![(**key).clone()])
            }
            (_, IndexTarget::Entries, CqlType::Map { key, value, .. }) => (
                Source::Entries(column.id),
                vec![(**key).clone(), (**value).clone()],
            ),
            _ => return None,
        };
        let types: Vec<CqlType> = types.iter().map(CqlType::freeze).collect();
        let table = Arc::new(hidden_table(&definition, base, source, &types));
        Some(Index {
            definition,
            table,
            source,
            types,
        })
    }

    /// Identity of the hidden table.
    pub fn id(&self) -> TableId {
        self.definition.id
    }

    /// The one partition of the hidden table.
    pub fn key(&self) -> DecoratedKey {
        DecoratedKey::new(PartitionKey(Bytes::from_static(b"index")))
    }

    /// Of what it indexes the vectors' column, dimension and measure, when it is an index of vectors: such a one has no
    /// entries, but a graph in memory.
    pub fn vectors(&self) -> Option<(ColumnId, usize, Similarity)> {
        let (Source::Cell(id), [CqlType::Vector { element, dimension }]) =
            (self.source, self.types.as_slice())
        else {
            return None;
        };
        let is_ours = self.definition.is_storage_attached() && **element == CqlType::Float;
        let similarity = self.definition.similarity()?;
        is_ours.then_some((id, usize::from(*dimension), similarity))
    }

    /// Its column is static: what it finds is partitions.
    pub fn finds_partitions(&self, base: &Table) -> bool {
        let column = base.column(&self.definition.column);
        column.is_some_and(|column| column.kind == ColumnKind::Static)
    }

    /// The column whose cells are looked at; None for key columns.
    pub fn column(&self) -> Option<ColumnId> {
        match self.source {
            Source::PartitionKey(_) | Source::Clustering(_) => None,
            Source::Cell(id) | Source::Values(id) | Source::Paths(id) | Source::Entries(id) => Some(id),
        }
    }

    /// The entries that a write to `base` makes, as content of [`Index::key`]; None when there are none.
    pub fn entries(&self, base: &Table, key: &DecoratedKey, content: &Partition) -> Option<Partition> {
        let mut entries = Partition::default();
        let mut add = |row: Option<&ClusteringKey>, content: &Row| {
            self.for_each_value(base, key, row, content, &mut |value, column, data| {
                if let Some(entry) = self.entry_key(value, key, row) {
                    entries.row_mut(entry).merge_column(column, data);
                }
            });
        };
        if !content.static_row.columns.is_empty() {
            add(None, &content.static_row);
        }
        content
            .rows
            .iter()
            .for_each(|(row, content)| add(Some(row), content));
        (!entries.rows.is_empty()).then_some(entries)
    }

    /// Calls back with each encoded value of a row, and a reason for it.
    fn for_each_value(
        &self,
        base: &Table,
        key: &DecoratedKey,
        row: Option<&ClusteringKey>,
        content: &Row,
        found: &mut dyn FnMut(&[u8], ColumnId, ColumnData),
    ) {
        let mut buffer = Vec::new();
        match self.source {
            Source::PartitionKey(_) | Source::Clustering(_) => {
                if let Some(value) = self.key_value(base, key, row) {
                    reasons(content, &mut |column, data| found(&value, column, data));
                }
            }
            Source::Cell(id) => {
                if let Some(ColumnData::Cell(cell)) = content.column(id)
                    && let Some(value) = value_of(cell)
                    && self.encode(0, value, &mut buffer)
                {
                    found(&buffer, id, ColumnData::Cell(empty(cell)));
                }
            }
            Source::Values(id) | Source::Paths(id) | Source::Entries(id) => {
                let Some(ColumnData::Collection(collection)) = content.column(id) else {
                    return;
                };
                for (path, cell) in &collection.cells {
                    buffer.clear();
                    if self.encode_element(path, cell, &mut buffer) {
                        let cells = vec![(path.clone(), empty(cell))];
                        let reason = Collection {
                            deletion: None,
                            cells,
                        };
                        found(&buffer, id, ColumnData::Collection(reason));
                    }
                }
            }
        }
    }

    /// Bytes of the largest value that a write gives the index, not encoded; None when it gives none.
    pub fn largest_value(&self, base: &Table, key: &DecoratedKey, content: &Partition) -> Option<usize> {
        let rows = content.rows.iter().map(|(row, content)| (Some(row), content));
        let all = std::iter::once((None, &content.static_row)).chain(rows);
        let sizes = all.filter_map(|(row, content)| match self.source {
            Source::PartitionKey(position) => {
                let components = key.key.components(base.partition_key().len())?;
                components.get(position).map(Bytes::len)
            }
            Source::Clustering(position) => {
                let components = decode_clustering(base.clustering_types(), &row?.0).ok()?;
                components.get(position).map(Bytes::len)
            }
            Source::Cell(id) => match content.column(id)? {
                ColumnData::Cell(cell) => value_of(cell).map(Bytes::len),
                ColumnData::Collection(_) => None,
            },
            Source::Values(id) | Source::Paths(id) | Source::Entries(id) => match content.column(id)? {
                ColumnData::Cell(_) => None,
                ColumnData::Collection(collection) => {
                    let sizes = collection.cells.iter().filter_map(|(path, cell)| {
                        let value = value_of(cell)?.len();
                        Some(match self.source {
                            Source::Values(_) => value,
                            Source::Paths(_) => self.path_size(path),
                            _ => value + self.path_size(path),
                        })
                    });
                    sizes.max()
                }
            },
        });
        sizes.max()
    }

    fn path_size(&self, path: &[u8]) -> usize {
        let mut rest = path;
        let decoded = self
            .types
            .first()
            .map(|cql_type| decode_component(cql_type, false, &mut rest));
        decoded.and_then(Result::ok).map_or(path.len(), |wire| wire.len())
    }

    /// Appends the encoding of a value of the `at`th type; false when it has none.
    fn encode(&self, at: usize, value: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(cql_type) = self.types.get(at) else {
            return false;
        };
        let value = self.definition.analyzed(cql_type, value);
        encode_component(cql_type, false, &value, out).is_ok()
    }

    /// Appends what of a collection's cell is indexed; false when that is nothing.
    fn encode_element(&self, path: &Bytes, cell: &Cell, out: &mut Vec<u8>) -> bool {
        let Some(value) = value_of(cell) else {
            return false;
        };
        match self.source {
            Source::Values(_) => self.encode(0, value, out),
            Source::Paths(_) => self.encode_path(path, out),
            _ => self.encode_path(path, out) && self.encode(1, value, out),
        }
    }

    /// The path of a set element or map entry is the encoding already, unless the text is analyzed.
    fn encode_path(&self, path: &Bytes, out: &mut Vec<u8>) -> bool {
        let is_text = matches!(self.types.first(), Some(CqlType::Text | CqlType::Ascii));
        if !is_text || !self.definition.is_analyzed() {
            out.extend_from_slice(path);
            return true;
        }
        let Some(cql_type) = self.types.first() else {
            return false;
        };
        let mut rest: &[u8] = path;
        match decode_component(cql_type, false, &mut rest) {
            Ok(wire) => self.encode(0, &wire, out),
            Err(_) => false,
        }
    }

    /// The encoded value of an indexed key column.
    fn key_value(&self, base: &Table, key: &DecoratedKey, row: Option<&ClusteringKey>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let component = match self.source {
            Source::PartitionKey(position) => {
                let components = key.key.components(base.partition_key().len())?;
                components.get(position)?.clone()
            }
            Source::Clustering(position) => {
                let components = decode_clustering(base.clustering_types(), &row?.0).ok()?;
                components.get(position)?.clone()
            }
            _ => return None,
        };
        self.encode(0, &component, &mut out).then_some(out)
    }

    /// The key of an entry; `value` is encoded.
    fn entry_key(
        &self,
        value: &[u8],
        key: &DecoratedKey,
        row: Option<&ClusteringKey>,
    ) -> Option<ClusteringKey> {
        let mut out = Vec::with_capacity(value.len() + key.key.0.len() + 32);
        out.extend_from_slice(value);
        put_partition(key, &mut out);
        let row: &[u8] = row.map_or(&[], |row| &row.0);
        encode_component(&CqlType::Blob, false, row, &mut out).ok()?;
        out.push(KEY_END);
        Some(ClusteringKey(out.into()))
    }

    /// Takes an entry's key apart; None when it is none.
    pub fn parse(&self, entry: &ClusteringKey) -> Option<Entry> {
        let components = decode_clustering(self.table.clustering_types(), &entry.0).ok()?;
        let at = self.types.len();
        let (token, key, row) = (
            components.get(at)?,
            components.get(at + 1)?,
            components.get(at + 2)?,
        );
        let token = Token(i64::from_be_bytes(token.as_ref().try_into().ok()?));
        let mut value = Vec::new();
        for (cql_type, wire) in self.types.iter().zip(&components) {
            encode_component(cql_type, false, wire, &mut value).ok()?;
        }
        Some(Entry {
            value: value.into(),
            key: DecoratedKey {
                token,
                key: PartitionKey(key.clone()),
            },
            row: (!row.is_empty()).then(|| ClusteringKey(row.clone())),
        })
    }

    /// The row as the base has it now, as far as it was read, still has the entry's value. `row`: None when there is none.
    pub fn confirms(&self, base: &Table, entry: &Entry, row: Option<&Row>, now: UnixSeconds) -> bool {
        let Some(row) = row else { return false };
        let mut is_confirmed = false;
        let mut look = |value: &[u8], _: ColumnId, data: ColumnData| {
            is_confirmed |= *value == *entry.value && data.is_live(now);
        };
        match self.source {
            Source::PartitionKey(_) | Source::Clustering(_) => return row.is_live(now),
            _ => self.for_each_value(base, &entry.key, entry.row.as_ref(), row, &mut look),
        }
        is_confirmed
    }

    /// Encodes the value that is searched for: one per type. None when it cannot be the value of any row.
    pub fn encode_value(&self, values: &[Bytes]) -> Option<Bytes> {
        let mut out = Vec::new();
        for at in 0..self.types.len() {
            if !self.encode(at, values.get(at)?, &mut out) {
                return None;
            }
        }
        Some(out.into())
    }

    /// The place before (or after) the entries of a value that point at partitions behind a place of the ring.
    pub fn position(value: &[u8], at: &RingPosition) -> Position {
        let mut out = Vec::with_capacity(value.len() + 32);
        out.extend_from_slice(value);
        let last = match at {
            RingPosition::BeforeToken(token) | RingPosition::AfterToken(token) => {
                put_token(*token, &mut out);
                match at {
                    RingPosition::BeforeToken(_) => BOUND_BEFORE,
                    _ => BOUND_AFTER,
                }
            }
            RingPosition::BeforeKey(key) | RingPosition::AfterKey(key) => {
                put_partition(key, &mut out);
                match at {
                    RingPosition::BeforeKey(_) => BOUND_BEFORE,
                    _ => BOUND_AFTER,
                }
            }
        };
        out.push(last);
        Position(out.into())
    }
}

/// Tombstones for the reasons of an entry, each at its own time.
pub fn removal(reasons: &Row, now: UnixSeconds) -> Row {
    let dead = |cell: &Cell| Cell::tombstone(cell.timestamp, now);
    let columns = reasons.columns.iter().map(|(id, data)| {
        let data = match data {
            ColumnData::Cell(cell) => ColumnData::Cell(dead(cell)),
            ColumnData::Collection(collection) => ColumnData::Collection(Collection {
                deletion: None,
                cells: collection
                    .cells
                    .iter()
                    .map(|(path, cell)| (path.clone(), dead(cell)))
                    .collect(),
            }),
        };
        (*id, data)
    });
    Row {
        liveness: None,
        deletion: None,
        columns: columns.collect(),
    }
}

/// Everything that makes a row be there, without contents.
fn reasons(content: &Row, found: &mut dyn FnMut(ColumnId, ColumnData)) {
    for (id, data) in &content.columns {
        match data {
            ColumnData::Cell(cell) if value_of(cell).is_some() => found(*id, ColumnData::Cell(empty(cell))),
            ColumnData::Cell(_) => {}
            ColumnData::Collection(collection) => {
                let cells = collection.cells.iter();
                let cells: Vec<_> = cells
                    .filter(|(_, cell)| value_of(cell).is_some())
                    .map(|(path, cell)| (path.clone(), empty(cell)))
                    .collect();
                if !cells.is_empty() {
                    let reason = Collection {
                        deletion: None,
                        cells,
                    };
                    found(*id, ColumnData::Collection(reason));
                }
            }
        }
    }
    if let Some(liveness) = content.liveness {
        let cell = Cell::with_expiry(liveness.timestamp, Bytes::new(), liveness.expiry);
        found(MARKER, ColumnData::Cell(cell));
    }
}

fn value_of(cell: &Cell) -> Option<&Bytes> {
    match &cell.state {
        CellState::Live(value) | CellState::Expiring { value, .. } => Some(value),
        CellState::Tombstone { .. } => None,
    }
}

fn empty(cell: &Cell) -> Cell {
    Cell::with_expiry(cell.timestamp, Bytes::new(), cell.expiry())
}

fn put_token(token: Token, out: &mut Vec<u8>) {
    out.push(COMPONENT);
    out.extend_from_slice(&(token.0 as u64 ^ (1 << 63)).to_be_bytes());
}

fn put_partition(key: &DecoratedKey, out: &mut Vec<u8>) {
    put_token(key.token, out);
    encode_component(&CqlType::Blob, false, &key.key.0, out).expect("every byte string is a blob");
}

fn hidden_table(definition: &IndexDefinition, base: &Table, source: Source, types: &[CqlType]) -> Table {
    // A folder has this name, and the id behind it.
    let name: String = format!("{}.{}", base.name, definition.name)
        .chars()
        .take(NAME_MAX)
        .collect();
    let mut builder = TableBuilder::new(definition.id, &base.keyspace, &name);
    builder.next_column_id = KEY_IDS;
    builder.add_column("index", ColumnKind::PartitionKey, CqlType::Blob);
    for (at, cql_type) in types.iter().enumerate() {
        builder.add_column(&format!("value{at}"), ColumnKind::Clustering, cql_type.clone());
    }
    builder.add_column("token", ColumnKind::Clustering, CqlType::Bigint);
    builder.add_column("key", ColumnKind::Clustering, CqlType::Blob);
    builder.add_column("row", ColumnKind::Clustering, CqlType::Blob);
    let is_reason = |id: ColumnId| match source {
        Source::PartitionKey(_) | Source::Clustering(_) => true,
        Source::Cell(own) | Source::Values(own) | Source::Paths(own) | Source::Entries(own) => own == id,
    };
    let columns = base.statics().iter().chain(base.regulars());
    for column in columns.filter(|column| is_reason(column.id)) {
        let mut reason = column.clone();
        reason.kind = ColumnKind::Regular;
        reason.name = format!("reason {}", column.name).into();
        builder.columns.push(reason);
    }
    builder.next_column_id = MARKER.0;
    builder.add_column("marker", ColumnKind::Regular, CqlType::Blob);
    builder.options.gc_grace_seconds = 0;
    builder.options.comment = format!("index {} of {}.{}", definition.name, base.keyspace, base.name);
    builder.build()
}
