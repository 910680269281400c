//! Binary form of mutations, partitions, rows and cells: the content of commitlog entries, sstable blocks and
//! internode messages.
//!
//! Self-describing but for types: decoding needs no schema. All integers are LEB128 varints, signed ones zigzag,
//! byte strings carry their length. Decoders treat input as hostile: a length is checked against what is left before
//! anything is taken, and they return [`DecodeError`] with the offset, never panic.
//!
//! ```text
//! mutation   ::= table:16 key:bytes partition
//! partition  ::= flags:u8 [deletion] [static:row] count (clustering:bytes row)* count (start:bytes end:bytes deletion)*
//! row        ::= flags:u8 [liveness] [deletion] count (column:varint data)*
//! data       ::= kind:u8 (cell | [deletion] count (path:bytes cell)*)
//! cell       ::= kind:u8 timestamp (value:bytes | value:bytes ttl expires_at | deleted_at)
//! deletion   ::= timestamp deleted_at
//! liveness   ::= timestamp [ttl expires_at]
//! ```

use bytes::{Buf, Bytes};
use uuid::Uuid;

use crate::cell::{Cell, CellState};
use crate::key::{ClusteringKey, DecoratedKey, PartitionKey, Position, Slice};
use crate::mutation::Mutation;
use crate::partition::Partition;
use crate::range_tombstone::{RangeTombstone, RangeTombstones};
use crate::row::{Collection, ColumnData, ColumnId, Liveness, Row};
use crate::schema::TableId;
use crate::timestamp::{Deletion, Expiry, Timestamp, Ttl, UnixSeconds};

/// Bytes that are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// Bytes left in the input when it failed.
    pub remaining: usize,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed {} with {} bytes left", self.what, self.remaining)
    }
}

impl std::error::Error for DecodeError {}

/// Reads from the front of a buffer; byte strings are slices of it, not copies.
pub struct Decoder {
    input: Bytes,
}

type Decoded<T> = Result<T, DecodeError>;

impl Decoder {
    /// Reads `input`.
    pub fn new(input: Bytes) -> Decoder {
        Decoder { input }
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.input.len()
    }

    fn error<T>(&self, what: &'static str) -> Decoded<T> {
        Err(DecodeError {
            what,
            remaining: self.input.len(),
        })
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Decoded<u8> {
        self.input.try_get_u8().or_else(|_| self.error(what))
    }

    /// Unsigned varint.
    #[inline]
    pub fn varint(&mut self, what: &'static str) -> Decoded<u64> {
        // Most are lengths and counts of one byte.
        match self.input.first() {
            Some(byte) if byte & 0x80 == 0 => {
                let value = u64::from(*byte);
                self.input.advance(1);
                Ok(value)
            }
            _ => self.long_varint(what),
        }
    }

    fn long_varint(&mut self, what: &'static str) -> Decoded<u64> {
        if let Some((value, length)) = long_varint(&self.input) {
            self.input.advance(length);
            return Ok(value);
        }
        let mut value = 0u64;
        for (i, byte) in self.input.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.input.advance(i + 1);
                return Ok(value);
            }
        }
        self.error(what)
    }

    /// Signed varint.
    pub fn signed(&mut self, what: &'static str) -> Decoded<i64> {
        let value = self.varint(what)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Length and bytes.
    pub fn bytes(&mut self, what: &'static str) -> Decoded<Bytes> {
        let length = self.varint(what)?;
        match usize::try_from(length) {
            Ok(length) if length <= self.input.len() => Ok(self.input.split_to(length)),
            _ => self.error(what),
        }
    }

    /// Exactly `length` bytes.
    pub fn take(&mut self, length: usize, what: &'static str) -> Decoded<Bytes> {
        if length > self.input.len() {
            return self.error(what);
        }
        Ok(self.input.split_to(length))
    }

    /// What is left, to be looked at.
    pub fn rest(&self) -> &Bytes {
        &self.input
    }

    /// Passes over exactly `length` bytes.
    pub fn skip(&mut self, length: usize, what: &'static str) -> Decoded<()> {
        if length > self.input.len() {
            return self.error(what);
        }
        self.input.advance(length);
        Ok(())
    }

    /// Passes over these bytes, when they are next.
    #[inline]
    pub fn skip_exactly(&mut self, bytes: &[u8]) -> bool {
        let is_next = self.input.starts_with(bytes);
        if is_next {
            self.input.advance(bytes.len());
        }
        is_next
    }

    /// A UUID.
    pub fn uuid(&mut self, what: &'static str) -> Decoded<Uuid> {
        let bytes = self.take(16, what)?;
        Uuid::from_slice(&bytes).or_else(|_| self.error(what))
    }

    /// A count of things that take at least one byte each.
    pub fn count(&mut self, what: &'static str) -> Decoded<usize> {
        match usize::try_from(self.varint(what)?) {
            Ok(count) if count <= self.input.len() => Ok(count),
            _ => self.error(what),
        }
    }

    /// Fails unless everything has been read.
    pub fn finish(&self, what: &'static str) -> Decoded<()> {
        if self.input.is_empty() {
            Ok(())
        } else {
            self.error(what)
        }
    }

    fn deletion(&mut self) -> Decoded<Deletion> {
        let timestamp = Timestamp(self.signed("deletion timestamp")?);
        Ok(Deletion {
            timestamp,
            deleted_at: UnixSeconds(self.signed("deletion time")?),
        })
    }

    fn expiry(&mut self) -> Decoded<Expiry> {
        let ttl = self.varint("ttl")?;
        let Ok(ttl) = u32::try_from(ttl) else {
            return self.error("ttl");
        };
        Ok(Expiry {
            ttl: Ttl(ttl),
            expires_at: UnixSeconds(self.signed("expiry")?),
        })
    }

    fn optional_deletion(&mut self, present: bool) -> Decoded<Option<Deletion>> {
        if present {
            self.deletion().map(Some)
        } else {
            Ok(None)
        }
    }

    /// A deletion that may be absent, with its own presence byte.
    pub fn deletion_option(&mut self) -> Decoded<Option<Deletion>> {
        let present = self.u8("deletion presence")? != 0;
        self.optional_deletion(present)
    }

    /// A range tombstone.
    pub fn range_tombstone(&mut self) -> Decoded<RangeTombstone> {
        let start = Position(self.bytes("range start")?);
        let end = Position(self.bytes("range end")?);
        Ok(RangeTombstone {
            slice: Slice { start, end },
            deletion: self.deletion()?,
        })
    }

    /// A cell.
    pub fn cell(&mut self) -> Decoded<Cell> {
        let kind = self.u8("cell kind")?;
        let timestamp = Timestamp(self.signed("cell timestamp")?);
        let state = match kind {
            CELL_LIVE => CellState::Live(self.bytes("cell value")?),
            CELL_EXPIRING => {
                let value = self.bytes("cell value")?;
                CellState::Expiring {
                    value,
                    expiry: self.expiry()?,
                }
            }
            CELL_TOMBSTONE => CellState::Tombstone {
                deleted_at: UnixSeconds(self.signed("cell deletion time")?),
            },
            _ => return self.error("cell kind"),
        };
        Ok(Cell { timestamp, state })
    }

    /// A row.
    pub fn row(&mut self) -> Decoded<Row> {
        let flags = self.u8("row flags")?;
        let liveness = if flags & ROW_LIVENESS != 0 {
            let timestamp = Timestamp(self.signed("row timestamp")?);
            let expiry = if flags & ROW_EXPIRY != 0 {
                Some(self.expiry()?)
            } else {
                None
            };
            Some(Liveness { timestamp, expiry })
        } else {
            None
        };
        let deletion = self.optional_deletion(flags & HAS_DELETION != 0)?;
        let count = self.count("column count")?;
        let mut columns: Vec<(ColumnId, ColumnData)> = Vec::with_capacity(count.min(CAPACITY_MAX));
        for _ in 0..count {
            let Ok(id) = u32::try_from(self.varint("column id")?) else {
                return self.error("column id");
            };
            if columns.last().is_some_and(|(last, _)| last.0 >= id) {
                return self.error("column order");
            }
            columns.push((ColumnId(id), self.column_data()?));
        }
        Ok(Row {
            liveness,
            deletion,
            columns,
        })
    }

    fn column_data(&mut self) -> Decoded<ColumnData> {
        let kind = self.u8("column kind")?;
        if kind == COLUMN_CELL {
            return Ok(ColumnData::Cell(self.cell()?));
        }
        if kind & COLUMN_COLLECTION == 0 {
            return self.error("column kind");
        }
        let deletion = self.optional_deletion(kind & HAS_DELETION != 0)?;
        let count = self.count("element count")?;
        let mut cells: Vec<(Bytes, Cell)> = Vec::with_capacity(count.min(CAPACITY_MAX));
        for _ in 0..count {
            let path = self.bytes("element path")?;
            if cells.last().is_some_and(|(last, _)| *last >= path) {
                return self.error("element order");
            }
            cells.push((path, self.cell()?));
        }
        Ok(ColumnData::Collection(Collection { deletion, cells }))
    }

    /// A partition's content.
    pub fn partition(&mut self) -> Decoded<Partition> {
        let flags = self.u8("partition flags")?;
        let deletion = self.optional_deletion(flags & HAS_DELETION != 0)?;
        let static_row = if flags & PARTITION_STATIC != 0 {
            self.row()?
        } else {
            Row::default()
        };
        let count = self.count("row count")?;
        let mut rows: Vec<(ClusteringKey, Row)> = Vec::with_capacity(count.min(CAPACITY_MAX));
        for _ in 0..count {
            let key = ClusteringKey(self.bytes("clustering key")?);
            if rows.last().is_some_and(|(last, _)| *last >= key) {
                return self.error("row order");
            }
            rows.push((key, self.row()?));
        }
        let count = self.count("range tombstone count")?;
        let mut range_tombstones = RangeTombstones::new();
        for _ in 0..count {
            range_tombstones.add(self.range_tombstone()?);
        }
        Ok(Partition {
            deletion,
            static_row,
            rows,
            range_tombstones,
        })
    }

    /// A mutation.
    pub fn mutation(&mut self) -> Decoded<Mutation> {
        let table = TableId(self.uuid("table id")?);
        let key = DecoratedKey::new(PartitionKey(self.bytes("partition key")?));
        Ok(Mutation {
            table,
            key,
            partition: self.partition()?,
        })
    }
}

/// Capacity taken ahead for a count that the input claims.
const CAPACITY_MAX: usize = 64;

const HAS_DELETION: u8 = 1;
const PARTITION_STATIC: u8 = 2;
const ROW_LIVENESS: u8 = 2;
const ROW_EXPIRY: u8 = 4;
const COLUMN_CELL: u8 = 0;
const COLUMN_COLLECTION: u8 = 2;
const CELL_LIVE: u8 = 0;
const CELL_EXPIRING: u8 = 1;
const CELL_TOMBSTONE: u8 = 2;

/// Bytes of varints that are read and written as one word.
const WORD: usize = 8;
/// The bit of each byte that says that another one follows.
const MORE: u64 = 0x8080_8080_8080_8080;

/// Reads a varint of at most [`WORD`] bytes, with as many bytes behind its beginning: its value and length. None: it is
/// longer, or too little is left.
#[inline]
pub fn long_varint(input: &[u8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*input.first_chunk::<WORD>()?);
    let ends = !word & MORE;
    if ends == 0 {
        return None;
    }
    let length = ends.trailing_zeros() as usize / 8 + 1;
    let word = word & (u64::MAX >> (64 - 8 * length)) & !MORE;
    // Groups of seven bits move together: in pairs, then in fours, then in eights.
    let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
    let word = (word & 0x0fff_ffff) | (word & 0x0fff_ffff_0000_0000) >> 4;
    Some((word, length))
}

/// Appends an unsigned varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        put_long_varint(out, value);
    }
}

fn put_long_varint(out: &mut Vec<u8>, mut value: u64) {
    if value < 1 << (7 * WORD) {
        let length = (63 - value.leading_zeros() as usize) / 7 + 1;
        let word = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
        let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x0fff_c000_0fff_c000) << 2;
        let word = (word & 0x007f_007f_007f_007f) | (word & 0x3f80_3f80_3f80_3f80) << 1;
        let word = word | MORE & ((1 << (8 * (length - 1))) - 1);
        let end = out.len() + length;
        out.extend_from_slice(&word.to_le_bytes());
        out.truncate(end);
        return;
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed varint.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends length and bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_deletion(out: &mut Vec<u8>, deletion: &Deletion) {
    put_signed(out, deletion.timestamp.0);
    put_signed(out, deletion.deleted_at.0);
}

/// Appends a deletion that may be absent, with its own presence byte.
pub fn put_deletion_option(out: &mut Vec<u8>, deletion: Option<&Deletion>) {
    out.push(u8::from(deletion.is_some()));
    if let Some(deletion) = deletion {
        put_deletion(out, deletion);
    }
}

fn put_expiry(out: &mut Vec<u8>, expiry: &Expiry) {
    put_varint(out, u64::from(expiry.ttl.0));
    put_signed(out, expiry.expires_at.0);
}

/// Appends a range tombstone.
pub fn put_range_tombstone(out: &mut Vec<u8>, tombstone: &RangeTombstone) {
    put_bytes(out, &tombstone.slice.start.0);
    put_bytes(out, &tombstone.slice.end.0);
    put_deletion(out, &tombstone.deletion);
}

/// A timestamp that is written several times over, as by the cells of a row: only the first time is it encoded.
struct Repeated {
    timestamp: Timestamp,
    /// Where the encoded bytes stand in the output, and how many they are; 0: nowhere yet.
    at: usize,
    length: usize,
}

impl Repeated {
    fn new() -> Repeated {
        Repeated {
            timestamp: Timestamp(0),
            at: 0,
            length: 0,
        }
    }

    #[inline]
    fn put(&mut self, out: &mut Vec<u8>, timestamp: Timestamp) {
        if self.length == WORD
            && self.timestamp == timestamp
            && let Some(bytes) = out.get(self.at..).and_then(|bytes| bytes.first_chunk::<WORD>())
        {
            let bytes = *bytes;
            out.extend_from_slice(&bytes);
            return;
        }
        let at = out.len();
        put_signed(out, timestamp.0);
        *self = Repeated {
            timestamp,
            at,
            length: out.len() - at,
        };
    }
}

/// Appends a cell.
pub fn put_cell(out: &mut Vec<u8>, cell: &Cell) {
    put_cell_after(out, cell, &mut Repeated::new());
}

fn put_cell_after(out: &mut Vec<u8>, cell: &Cell, timestamps: &mut Repeated) {
    let kind = match &cell.state {
        CellState::Live(_) => CELL_LIVE,
        CellState::Expiring { .. } => CELL_EXPIRING,
        CellState::Tombstone { .. } => CELL_TOMBSTONE,
    };
    out.push(kind);
    timestamps.put(out, cell.timestamp);
    match &cell.state {
        CellState::Live(value) => put_bytes(out, value),
        CellState::Expiring { value, expiry } => {
            put_bytes(out, value);
            put_expiry(out, expiry);
        }
        CellState::Tombstone { deleted_at } => put_signed(out, deleted_at.0),
    }
}

/// Appends a row.
pub fn put_row(out: &mut Vec<u8>, row: &Row) {
    let mut flags = 0;
    if let Some(liveness) = &row.liveness {
        flags |= ROW_LIVENESS | if liveness.expiry.is_some() { ROW_EXPIRY } else { 0 };
    }
    if row.deletion.is_some() {
        flags |= HAS_DELETION;
    }
    out.push(flags);
    let timestamps = &mut Repeated::new();
    if let Some(liveness) = &row.liveness {
        timestamps.put(out, liveness.timestamp);
        if let Some(expiry) = &liveness.expiry {
            put_expiry(out, expiry);
        }
    }
    if let Some(deletion) = &row.deletion {
        put_deletion(out, deletion);
    }
    put_varint(out, row.columns.len() as u64);
    for (id, data) in &row.columns {
        put_varint(out, u64::from(id.0));
        put_column_data(out, data, timestamps);
    }
}

fn put_column_data(out: &mut Vec<u8>, data: &ColumnData, timestamps: &mut Repeated) {
    match data {
        ColumnData::Cell(cell) => {
            out.push(COLUMN_CELL);
            put_cell_after(out, cell, timestamps);
        }
        ColumnData::Collection(collection) => {
            out.push(
                COLUMN_COLLECTION
                    | if collection.deletion.is_some() {
                        HAS_DELETION
                    } else {
                        0
                    },
            );
            if let Some(deletion) = &collection.deletion {
                put_deletion(out, deletion);
            }
            put_varint(out, collection.cells.len() as u64);
            for (path, cell) in &collection.cells {
                put_bytes(out, path);
                put_cell_after(out, cell, timestamps);
            }
        }
    }
}

/// Appends a partition's content.
pub fn put_partition(out: &mut Vec<u8>, partition: &Partition) {
    let has_static = !partition.static_row.is_empty();
    let deletion_flag = if partition.deletion.is_some() {
        HAS_DELETION
    } else {
        0
    };
    out.push(deletion_flag | if has_static { PARTITION_STATIC } else { 0 });
    if let Some(deletion) = &partition.deletion {
        put_deletion(out, deletion);
    }
    if has_static {
        put_row(out, &partition.static_row);
    }
    put_varint(out, partition.rows.len() as u64);
    for (key, row) in &partition.rows {
        put_bytes(out, &key.0);
        put_row(out, row);
    }
    put_varint(out, partition.range_tombstones.len() as u64);
    partition
        .range_tombstones
        .iter()
        .for_each(|tombstone| put_range_tombstone(out, tombstone));
}

/// Appends a mutation.
pub fn put_mutation(out: &mut Vec<u8>, mutation: &Mutation) {
    out.extend_from_slice(mutation.table.0.as_bytes());
    put_bytes(out, &mutation.key.key.0);
    put_partition(out, &mutation.partition);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// As the format says, byte by byte.
    fn plain_varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    #[test]
    fn varints_are_written_and_read_as_the_format_says() {
        let around = |bits: u32| {
            let power = 1u64.checked_shl(bits).unwrap_or(0);
            [
                power.wrapping_sub(1),
                power,
                power.wrapping_add(1),
                power ^ 0x5555_5555_5555_5555,
            ]
        };
        for value in (0..=64).flat_map(around) {
            let expected = plain_varint(value);
            let mut written = vec![7];
            put_varint(&mut written, value);
            assert_eq!(written[1..], expected, "{value:#x}");
            for behind in [0, 1, 20] {
                let mut input = expected.clone();
                input.resize(expected.len() + behind, 0xff);
                let mut decoder = Decoder::new(input.into());
                assert_eq!(decoder.varint("number"), Ok(value), "{value:#x}");
                assert_eq!(decoder.remaining(), behind);
            }
            for length in 0..expected.len() {
                let mut decoder = Decoder::new(Bytes::copy_from_slice(&expected[..length]));
                assert!(decoder.varint("number").is_err(), "{value:#x}");
            }
        }
    }
}
