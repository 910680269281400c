//! Rows as they lie in blocks.
//!
//! Times take most of the room in small rows, so they are stored as differences: timestamps to the *base* of the block
//! (its first timestamp), seconds to its base of seconds; within a row a time that is the same as the one before is a
//! bit. Differences wrap around, so any base serves any time.
//!
//! ```text
//! row       ::= flags:u8 [timestamp [expiry]] [deletion] count (column:varint data)*
//!               flags: 1 deletion, 2 liveness, 4 liveness with expiry
//! data      ::= kind:u8 cell | kind:u8 [deletion] count (path:bytes kind:u8 cell)*
//!               kind: bits 0-1: 0 live, 1 expiring, 2 tombstone, 3 collection
//!                     4: same timestamp as before in this row; of a collection: it has a deletion
//!                     8: same expiry (of a tombstone: second) as before in this row
//! cell      ::= [timestamp] (value:bytes | value:bytes [expiry] | [second])      what a bit of kind says is left out
//! deletion  ::= timestamp second
//! expiry    ::= ttl:varint second
//! timestamp ::= signed             difference to the block's base
//! second    ::= signed             difference to the block's base
//! ```

use ceto_model::codec::{DecodeError, Decoder, put_bytes, put_signed, put_varint};
use ceto_model::row::{Collection, ColumnData, Liveness};
use ceto_model::{Cell, CellState, ColumnId, Deletion, Expiry, Row, Timestamp, Ttl, UnixSeconds};

use super::plain::plain_row;

type Parsed<T> = std::result::Result<T, DecodeError>;

const HAS_DELETION: u8 = 1;
pub(super) const ROW_LIVENESS: u8 = 2;
const ROW_EXPIRY: u8 = 4;

const KIND_MASK: u8 = 3;
pub(super) const KIND_LIVE: u8 = 0;
const KIND_EXPIRING: u8 = 1;
const KIND_TOMBSTONE: u8 = 2;
const KIND_COLLECTION: u8 = 3;
const COLLECTION_DELETION: u8 = 4;
pub(super) const SAME_TIMESTAMP: u8 = 4;
const SAME_TIME: u8 = 8;

/// Capacity taken ahead for a count that the input claims.
pub(super) const CAPACITY_MAX: usize = 64;

/// What the times of a block are relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Base {
    pub(crate) timestamp: i64,
    pub(crate) seconds: i64,
}

/// Bytes of a base.
pub(crate) const BASE_SIZE: usize = 16;

impl Base {
    /// Its bytes.
    pub(crate) fn encode(self) -> [u8; BASE_SIZE] {
        let mut bytes = [0; BASE_SIZE];
        bytes[..8].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[8..].copy_from_slice(&self.seconds.to_le_bytes());
        bytes
    }

    /// Reads it.
    pub(crate) fn decode(bytes: [u8; BASE_SIZE]) -> Base {
        let (timestamp, seconds) = bytes.split_at(8);
        Base {
            timestamp: i64::from_le_bytes(timestamp.try_into().expect("eight bytes")),
            seconds: i64::from_le_bytes(seconds.try_into().expect("eight bytes")),
        }
    }

    fn timestamp(self, decoder: &mut Decoder, what: &'static str) -> Parsed<Timestamp> {
        Ok(Timestamp(self.timestamp.wrapping_add(decoder.signed(what)?)))
    }

    fn second(self, decoder: &mut Decoder, what: &'static str) -> Parsed<UnixSeconds> {
        Ok(UnixSeconds(self.seconds.wrapping_add(decoder.signed(what)?)))
    }

    fn expiry(self, decoder: &mut Decoder) -> Parsed<Expiry> {
        let ttl = decoder.varint("ttl")?;
        let Ok(ttl) = u32::try_from(ttl) else {
            return error(decoder, "ttl");
        };
        Ok(Expiry {
            ttl: Ttl(ttl),
            expires_at: self.second(decoder, "expiry")?,
        })
    }

    fn deletion(self, decoder: &mut Decoder) -> Parsed<Deletion> {
        Ok(Deletion {
            timestamp: self.timestamp(decoder, "deletion timestamp")?,
            deleted_at: self.second(decoder, "deletion time")?,
        })
    }

    /// A deletion that may be absent.
    pub(crate) fn deletion_option(self, decoder: &mut Decoder) -> Parsed<Option<Deletion>> {
        match decoder.u8("deletion presence")? {
            0 => Ok(None),
            1 => self.deletion(decoder).map(Some),
            _ => error(decoder, "deletion presence"),
        }
    }

    /// A row.
    pub(crate) fn row(self, decoder: &mut Decoder) -> Parsed<Row> {
        // Most are plain; what is malformed is found below.
        if let Some((row, end)) = plain_row(decoder.rest(), 0, self) {
            decoder.skip(end, "row")?;
            return Ok(row);
        }
        RowReader {
            base: self,
            before: Before::default(),
        }
        .row(decoder)
    }
}

fn error<T>(decoder: &Decoder, what: &'static str) -> Parsed<T> {
    Err(DecodeError {
        what,
        remaining: decoder.remaining(),
    })
}

/// The times that came last in a row.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Before {
    timestamp: Option<Timestamp>,
    expiry: Option<Expiry>,
    deleted_at: Option<UnixSeconds>,
}

struct RowReader {
    base: Base,
    before: Before,
}

impl RowReader {
    fn row(&mut self, decoder: &mut Decoder) -> Parsed<Row> {
        let flags = decoder.u8("row flags")?;
        if flags & !(HAS_DELETION | ROW_LIVENESS | ROW_EXPIRY) != 0 || flags & 6 == ROW_EXPIRY {
            return error(decoder, "row flags");
        }
        let mut row = Row::default();
        if flags & ROW_LIVENESS != 0 {
            let timestamp = self.base.timestamp(decoder, "row timestamp")?;
            self.before.timestamp = Some(timestamp);
            if flags & ROW_EXPIRY != 0 {
                self.before.expiry = Some(self.base.expiry(decoder)?);
            }
            row.liveness = Some(Liveness {
                timestamp,
                expiry: self.before.expiry,
            });
        }
        if flags & HAS_DELETION != 0 {
            row.deletion = Some(self.deletion(decoder)?);
        }
        let count = decoder.count("column count")?;
        row.columns.reserve(count.min(CAPACITY_MAX));
        for _ in 0..count {
            let Ok(id) = u32::try_from(decoder.varint("column id")?) else {
                return error(decoder, "column id");
            };
            if row.columns.last().is_some_and(|(last, _)| last.0 >= id) {
                return error(decoder, "column order");
            }
            row.columns.push((ColumnId(id), self.data(decoder)?));
        }
        Ok(row)
    }

    fn deletion(&mut self, decoder: &mut Decoder) -> Parsed<Deletion> {
        let deletion = self.base.deletion(decoder)?;
        self.before.timestamp = Some(deletion.timestamp);
        self.before.deleted_at = Some(deletion.deleted_at);
        Ok(deletion)
    }

    fn data(&mut self, decoder: &mut Decoder) -> Parsed<ColumnData> {
        let kind = decoder.u8("column kind")?;
        if kind & KIND_MASK != KIND_COLLECTION {
            return Ok(ColumnData::Cell(self.cell(kind, decoder)?));
        }
        if kind & !(KIND_MASK | COLLECTION_DELETION) != 0 {
            return error(decoder, "column kind");
        }
        let mut collection = Collection::default();
        if kind & COLLECTION_DELETION != 0 {
            collection.deletion = Some(self.deletion(decoder)?);
        }
        let count = decoder.count("element count")?;
        collection.cells.reserve(count.min(CAPACITY_MAX));
        for _ in 0..count {
            let path = decoder.bytes("element path")?;
            if collection.cells.last().is_some_and(|(last, _)| *last >= path) {
                return error(decoder, "element order");
            }
            let kind = decoder.u8("cell kind")?;
            let cell = self.cell(kind, decoder)?;
            collection.cells.push((path, cell));
        }
        Ok(ColumnData::Collection(collection))
    }

    fn cell(&mut self, kind: u8, decoder: &mut Decoder) -> Parsed<Cell> {
        if kind & !(KIND_MASK | SAME_TIMESTAMP | SAME_TIME) != 0 {
            return error(decoder, "cell kind");
        }
        let timestamp = if kind & SAME_TIMESTAMP == 0 {
            self.base.timestamp(decoder, "cell timestamp")?
        } else {
            match self.before.timestamp {
                Some(timestamp) => timestamp,
                None => return error(decoder, "cell timestamp"),
            }
        };
        self.before.timestamp = Some(timestamp);
        let is_same_time = kind & SAME_TIME != 0;
        let state = match kind & KIND_MASK {
            KIND_LIVE if !is_same_time => CellState::Live(decoder.bytes("cell value")?),
            KIND_EXPIRING => {
                let value = decoder.bytes("cell value")?;
                let expiry = match self.before.expiry {
                    Some(expiry) if is_same_time => expiry,
                    None if is_same_time => return error(decoder, "cell expiry"),
                    _ => self.base.expiry(decoder)?,
                };
                self.before.expiry = Some(expiry);
                CellState::Expiring { value, expiry }
            }
            KIND_TOMBSTONE => {
                let deleted_at = match self.before.deleted_at {
                    Some(second) if is_same_time => second,
                    None if is_same_time => return error(decoder, "cell deletion time"),
                    _ => self.base.second(decoder, "cell deletion time")?,
                };
                self.before.deleted_at = Some(deleted_at);
                CellState::Tombstone { deleted_at }
            }
            _ => return error(decoder, "cell kind"),
        };
        Ok(Cell { timestamp, state })
    }
}

/// Writes what has times; chooses the base as it meets the first ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TimeWriter {
    timestamp: Option<i64>,
    seconds: Option<i64>,
}

impl TimeWriter {
    /// Writes relative to a base that is known already.
    pub(crate) fn relative_to(base: Base) -> TimeWriter {
        TimeWriter {
            timestamp: Some(base.timestamp),
            seconds: Some(base.seconds),
        }
    }

    /// What was written is relative to it.
    pub(crate) fn base(&self) -> Base {
        Base {
            timestamp: self.timestamp.unwrap_or_default(),
            seconds: self.seconds.unwrap_or_default(),
        }
    }

    /// Appends a timestamp; the first one becomes the base.
    pub(super) fn timestamp(&mut self, out: &mut Vec<u8>, timestamp: Timestamp) {
        let base = *self.timestamp.get_or_insert(timestamp.0);
        put_signed(out, timestamp.0.wrapping_sub(base));
    }

    fn second(&mut self, out: &mut Vec<u8>, second: UnixSeconds) {
        let base = *self.seconds.get_or_insert(second.0);
        put_signed(out, second.0.wrapping_sub(base));
    }

    fn expiry(&mut self, out: &mut Vec<u8>, expiry: Expiry) {
        put_varint(out, u64::from(expiry.ttl.0));
        self.second(out, expiry.expires_at);
    }

    fn deletion(&mut self, out: &mut Vec<u8>, deletion: Deletion) {
        self.timestamp(out, deletion.timestamp);
        self.second(out, deletion.deleted_at);
    }

    /// Appends a deletion that may be absent.
    pub(crate) fn put_deletion_option(&mut self, out: &mut Vec<u8>, deletion: Option<Deletion>) {
        out.push(u8::from(deletion.is_some()));
        if let Some(deletion) = deletion {
            self.deletion(out, deletion);
        }
    }

    /// Appends a row.
    pub(crate) fn put_row(&mut self, out: &mut Vec<u8>, row: &Row) {
        let mut before = Before::default();
        let mut flags = if row.deletion.is_some() { HAS_DELETION } else { 0 };
        if let Some(liveness) = &row.liveness {
            flags |= ROW_LIVENESS | if liveness.expiry.is_some() { ROW_EXPIRY } else { 0 };
        }
        out.push(flags);
        if let Some(liveness) = &row.liveness {
            self.timestamp(out, liveness.timestamp);
            before.timestamp = Some(liveness.timestamp);
            if let Some(expiry) = liveness.expiry {
                self.expiry(out, expiry);
                before.expiry = Some(expiry);
            }
        }
        if let Some(deletion) = row.deletion {
            self.noted_deletion(out, deletion, &mut before);
        }
        put_varint(out, row.columns.len() as u64);
        for (id, data) in &row.columns {
            put_varint(out, u64::from(id.0));
            self.data(out, data, &mut before);
        }
    }

    fn noted_deletion(&mut self, out: &mut Vec<u8>, deletion: Deletion, before: &mut Before) {
        self.deletion(out, deletion);
        before.timestamp = Some(deletion.timestamp);
        before.deleted_at = Some(deletion.deleted_at);
    }

    fn data(&mut self, out: &mut Vec<u8>, data: &ColumnData, before: &mut Before) {
        let collection = match data {
            ColumnData::Cell(cell) => return self.cell(out, cell, before),
            ColumnData::Collection(collection) => collection,
        };
        match collection.deletion {
            None => out.push(KIND_COLLECTION),
            Some(deletion) => {
                out.push(KIND_COLLECTION | COLLECTION_DELETION);
                self.noted_deletion(out, deletion, before);
            }
        }
        put_varint(out, collection.cells.len() as u64);
        for (path, cell) in &collection.cells {
            put_bytes(out, path);
            self.cell(out, cell, before);
        }
    }

    fn cell(&mut self, out: &mut Vec<u8>, cell: &Cell, before: &mut Before) {
        let is_same_timestamp = before.timestamp == Some(cell.timestamp);
        let (kind, is_same_time) = match &cell.state {
            CellState::Live(_) => (KIND_LIVE, false),
            CellState::Expiring { expiry, .. } => (KIND_EXPIRING, before.expiry == Some(*expiry)),
            CellState::Tombstone { deleted_at } => (KIND_TOMBSTONE, before.deleted_at == Some(*deleted_at)),
        };
        let timestamp_bit = if is_same_timestamp { SAME_TIMESTAMP } else { 0 };
        out.push(kind | timestamp_bit | if is_same_time { SAME_TIME } else { 0 });
        if !is_same_timestamp {
            self.timestamp(out, cell.timestamp);
            before.timestamp = Some(cell.timestamp);
        }
        match &cell.state {
            CellState::Live(value) => put_bytes(out, value),
            CellState::Expiring { value, expiry } => {
                put_bytes(out, value);
                if !is_same_time {
                    self.expiry(out, *expiry);
                    before.expiry = Some(*expiry);
                }
            }
            CellState::Tombstone { deleted_at } => {
                if !is_same_time {
                    self.second(out, *deleted_at);
                    before.deleted_at = Some(*deleted_at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use super::*;
    use crate::testing::Dice;

    fn time(dice: &mut Dice) -> i64 {
        match dice.below(8) {
            0 => i64::MIN + dice.below(2) as i64,
            1 => i64::MAX - dice.below(2) as i64,
            2 => -(dice.below(1000) as i64),
            _ => 1_700_000_000 + dice.below(4) as i64,
        }
    }

    fn deletion(dice: &mut Dice) -> Option<Deletion> {
        dice.one_in(4).then(|| Deletion {
            timestamp: Timestamp(time(dice)),
            deleted_at: UnixSeconds(time(dice)),
        })
    }

    fn expiry(dice: &mut Dice) -> Expiry {
        Expiry {
            ttl: Ttl([1, 60, u32::MAX][dice.below(3) as usize]),
            expires_at: UnixSeconds(time(dice)),
        }
    }

    fn cell(dice: &mut Dice) -> Cell {
        let value = Bytes::from(vec![b'v'; dice.below(3) as usize]);
        Cell {
            timestamp: Timestamp(time(dice)),
            state: match dice.below(3) {
                0 => CellState::Live(value),
                1 => CellState::Expiring {
                    value,
                    expiry: expiry(dice),
                },
                _ => CellState::Tombstone {
                    deleted_at: UnixSeconds(time(dice)),
                },
            },
        }
    }

    fn row(dice: &mut Dice) -> Row {
        let liveness = dice.one_in(2).then(|| Liveness {
            timestamp: Timestamp(time(dice)),
            expiry: dice.one_in(2).then(|| expiry(dice)),
        });
        let data = |dice: &mut Dice| match dice.below(3) {
            0 => ColumnData::Collection(Collection {
                deletion: deletion(dice),
                cells: (0..dice.below(4))
                    .map(|i| (Bytes::from(vec![i as u8]), cell(dice)))
                    .collect(),
            }),
            _ => ColumnData::Cell(cell(dice)),
        };
        Row {
            liveness,
            deletion: deletion(dice),
            columns: (0..dice.below(5) as u32)
                .map(|i| (ColumnId(i * 50), data(dice)))
                .collect(),
        }
    }

    #[test]
    fn rows_round_trip_and_hostile_bytes_are_refused_without_a_panic() {
        let mut dice = Dice::new(3);
        for _ in 0..3000 {
            let rows: Vec<Row> = (0..3).map(|_| row(&mut dice)).collect();
            let mut writer = TimeWriter::default();
            let mut bytes = Vec::new();
            rows.iter().for_each(|row| writer.put_row(&mut bytes, row));
            let base = Base::decode(writer.base().encode());
            let mut decoder = Decoder::new(bytes.clone().into());
            for row in &rows {
                assert_eq!(base.row(&mut decoder).unwrap(), *row);
            }
            assert_eq!(decoder.remaining(), 0);
            if let Some(byte) = bytes.get_mut(dice.below(40) as usize) {
                *byte ^= 1 << dice.below(8);
                let mut decoder = Decoder::new(bytes.into());
                while decoder.remaining() > 0 && base.row(&mut decoder).is_ok() {}
            }
        }
    }

    #[test]
    fn times_of_a_simple_insert_take_two_bytes() {
        let at = Timestamp(1_700_000_000_123_456);
        let cell = |value: &'static [u8]| ColumnData::Cell(Cell::live(at, Bytes::from_static(value)));
        let row = Row {
            liveness: Some(Liveness {
                timestamp: at,
                expiry: None,
            }),
            deletion: None,
            columns: vec![(ColumnId(3), cell(b"four")), (ColumnId(4), cell(b""))],
        };
        let mut writer = TimeWriter::default();
        let mut bytes = Vec::new();
        writer.put_row(&mut bytes, &row);
        // Flags, timestamp, count; twice column, kind, length and value.
        assert_eq!(bytes.len(), 3 + 3 + 4 + 3);
    }
}
