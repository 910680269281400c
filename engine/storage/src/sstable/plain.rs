//! Partitions that go into a block as they came out of another one.
//!
//! Most of what a compaction moves are partitions that one input alone has, of rows of which nothing was deleted and
//! nothing expires. Nothing of them is merged or purged, so they need not become rows on the way: [`copy_items`] walks
//! over their bytes, writes the times anew (blocks have each their own base) and notes what statistics want to know.
//! What it finds anything else in is not plain, and goes the long way, as does what is malformed: the error is found there.
//!
//! Never: yields other bytes or figures than decoding and writing the same partition would; copies anything that a purge
//! could touch.

use std::ops::Range;

use bytes::Bytes;
use ceto_model::codec::{long_varint, put_bytes};
use ceto_model::key::KEY_END;
use ceto_model::{Cell, ClusteringKey, ColumnData, ColumnId, Liveness, Row, Timestamp};

use super::items::{ITEM_END, ITEM_ROW, put_length, put_row_item};
use super::row::{Base, CAPACITY_MAX, KIND_LIVE, ROW_LIVENESS, SAME_TIMESTAMP, TimeWriter};

/// A whole partition as it lies in a block: neither deletion nor static row, and these items, the end among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncodedPartition<'a> {
    pub(crate) items: &'a [u8],
    /// What their times are relative to.
    pub(crate) base: Base,
}

impl<'a> EncodedPartition<'a> {
    /// Of items whose times are not relative to anything ([`encode_row`]).
    pub(crate) fn absolute(items: &'a [u8]) -> EncodedPartition<'a> {
        EncodedPartition {
            items,
            base: Base::default(),
        }
    }
}

/// Appends a partition of one row, with times that are not relative to anything.
pub(crate) fn encode_row(key: &ClusteringKey, row: &Row, out: &mut Vec<u8>) {
    let mut times = TimeWriter::relative_to(Base::default());
    put_row_item(&mut times, out, (&key.0, row));
    out.push(ITEM_END);
}

/// The row of a partition that [`encode_row`] wrote, which must be plain; its values share the memory.
///
/// # Panics
/// When the bytes come from elsewhere.
pub(crate) fn only_row(items: &Bytes) -> (ClusteringKey, Row) {
    let row = || {
        let mut rest = Rest(items);
        let is_row = rest.u8()? == ITEM_ROW;
        let (key, key_end) = (rest.bytes()?, items.len() - rest.0.len());
        let key = match key {
            // Of all tables without clustering columns.
            [KEY_END] => Bytes::from_static(&[KEY_END]),
            key => items.slice(key_end - key.len()..key_end),
        };
        rest.varint()?;
        let (row, _) = plain_row(items, items.len() - rest.0.len(), Base::default())?;
        is_row.then_some((ClusteringKey(key), row))
    };
    row().expect("the memtable's own bytes are well formed")
}

/// Nothing is left of a partition that [`encode_row`] wrote when this row, which must be plain, is merged in.
pub(crate) fn is_replaced_by(items: &[u8], key: &ClusteringKey, row: &Row) -> bool {
    let replaced = || {
        let mut rest = Rest(items);
        let is_row = rest.u8()? == ITEM_ROW && *rest.bytes()? == *key.0;
        rest.varint()?;
        let mut timestamp = None;
        match rest.u8()? {
            _ if !is_row => return None,
            0 => {}
            _ => {
                timestamp = Some(rest.signed()?);
                row.liveness.filter(|own| Some(own.timestamp.0) >= timestamp)?;
            }
        }
        let mut columns = row.columns.iter();
        for _ in 0..rest.varint()? {
            let column = rest.varint()?;
            if rest.u8()? & SAME_TIMESTAMP == 0 {
                timestamp = Some(rest.signed()?);
            }
            rest.bytes()?;
            let (id, data) = columns.find(|(id, _)| u64::from(id.0) >= column)?;
            match data {
                ColumnData::Cell(cell) if u64::from(id.0) == column && Some(cell.timestamp.0) > timestamp => {
                }
                _ => return None,
            }
        }
        Some(())
    };
    replaced().is_some()
}

/// Reads a row from a place on when it is plain; its values share the memory. With the place behind it. None: it is not,
/// or it is malformed.
pub(super) fn plain_row(input: &Bytes, from: usize, base: Base) -> Option<(Row, usize)> {
    let mut rest = Rest(input.get(from..)?);
    let time = |rest: &mut Rest<'_>| Some(Timestamp(base.timestamp.wrapping_add(rest.signed()?)));
    let mut timestamp = match rest.u8()? {
        0 => None,
        ROW_LIVENESS => Some(time(&mut rest)?),
        _ => return None,
    };
    let liveness = timestamp.map(|timestamp| Liveness {
        timestamp,
        expiry: None,
    });
    let count = usize::try_from(rest.varint()?).ok()?;
    let mut columns: Vec<(ColumnId, ColumnData)> =
        Vec::with_capacity(count.min(rest.0.len()).min(CAPACITY_MAX));
    for _ in 0..count {
        let id = ColumnId(u32::try_from(rest.varint()?).ok()?);
        if columns.last().is_some_and(|(last, _)| *last >= id) {
            return None;
        }
        let timestamp = match rest.u8()? {
            KIND_LIVE => *timestamp.insert(time(&mut rest)?),
            kind if kind == KIND_LIVE | SAME_TIMESTAMP => timestamp?,
            _ => return None,
        };
        let length = rest.bytes()?.len();
        let end = input.len() - rest.0.len();
        let cell = Cell::live(timestamp, input.slice(end - length..end));
        columns.push((id, ColumnData::Cell(cell)));
    }
    let row = Row {
        liveness,
        deletion: None,
        columns,
    };
    Some((row, input.len() - rest.0.len()))
}

/// The row of a partition whose items lie at `items` in a block, when it is the only one, plain and not empty; its values
/// share the memory. None also when anything is malformed: the error is found by reading the items one by one.
pub(super) fn only_plain_row(block: &Bytes, items: Range<usize>, base: Base) -> Option<(ClusteringKey, Row)> {
    let end = items.end;
    let mut rest = Rest(block.get(items)?);
    if rest.u8()? != ITEM_ROW {
        return None;
    }
    let key = match rest.bytes()? {
        // Of all tables without clustering columns.
        [KEY_END] => Bytes::from_static(&[KEY_END]),
        key => {
            let key_end = end - rest.0.len();
            block.slice(key_end - key.len()..key_end)
        }
    };
    let length = usize::try_from(rest.varint()?).ok()?;
    let from = end - rest.0.len();
    let (row, behind) = plain_row(block, from, base)?;
    let is_only = behind - from == length && behind + 1 == end && block.get(behind) == Some(&ITEM_END);
    (is_only && !row.is_empty()).then_some((ClusteringKey(key), row))
}

/// What was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Copied<'a> {
    pub(crate) rows: u64,
    pub(crate) cells: u64,
    pub(crate) min_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// Clustering keys of the first and the last row.
    pub(crate) first: &'a [u8],
    pub(crate) last: &'a [u8],
}

/// Appends the rows of a partition, without its end, to `out`. None when it is not plain: then `out` and `times` hold a
/// part of it and must be put back.
pub(super) fn copy_items<'a>(
    encoded: EncodedPartition<'a>,
    times: &mut TimeWriter,
    out: &mut Vec<u8>,
) -> Option<Copied<'a>> {
    let mut rest = Rest(encoded.items);
    let mut copied = Copied {
        rows: 0,
        cells: 0,
        min_timestamp: i64::MAX,
        max_timestamp: i64::MIN,
        first: &[],
        last: &[],
    };
    loop {
        match rest.u8()? {
            ITEM_ROW => {}
            ITEM_END if rest.0.is_empty() && copied.rows > 0 => return Some(copied),
            _ => return None,
        }
        copied.last = rest.bytes()?;
        if copied.rows == 0 {
            copied.first = copied.last;
        }
        copied.rows += 1;
        out.push(ITEM_ROW);
        put_bytes(out, copied.last);
        let at = out.len();
        out.push(0);
        let row = Rest(rest.bytes()?);
        copy_row(row, encoded.base, times, out, &mut copied)?;
        put_length(out, at);
    }
}

fn copy_row(
    mut row: Rest<'_>,
    base: Base,
    times: &mut TimeWriter,
    out: &mut Vec<u8>,
    copied: &mut Copied<'_>,
) -> Option<()> {
    let mut copy_time = |row: &mut Rest<'_>, out: &mut Vec<u8>| {
        let timestamp = base.timestamp.wrapping_add(row.signed()?);
        times.timestamp(out, Timestamp(timestamp));
        copied.min_timestamp = copied.min_timestamp.min(timestamp);
        copied.max_timestamp = copied.max_timestamp.max(timestamp);
        Some(())
    };
    let flags = row.u8()?;
    let has_liveness = match flags {
        0 => false,
        ROW_LIVENESS => true,
        _ => return None,
    };
    out.push(flags);
    if has_liveness {
        copy_time(&mut row, out)?;
    }
    let mut has_time = has_liveness;
    // What lies between two times is copied in one piece.
    let mut piece = row.0;
    let count = row.varint()?;
    if count == 0 && !has_liveness {
        return None;
    }
    let mut last = None;
    for _ in 0..count {
        let column = row.varint()?;
        if last >= Some(column) || column > u64::from(u32::MAX) {
            return None;
        }
        last = Some(column);
        match row.u8()? {
            kind if kind == KIND_LIVE | SAME_TIMESTAMP && has_time => {}
            KIND_LIVE => {
                out.extend_from_slice(&piece[..piece.len() - row.0.len()]);
                copy_time(&mut row, out)?;
                piece = row.0;
                has_time = true;
            }
            _ => return None,
        }
        row.bytes()?;
        copied.cells += 1;
    }
    out.extend_from_slice(piece);
    row.0.is_empty().then_some(())
}

/// What is left to be read; None when it ends too early.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    #[inline]
    fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.0.split_first()? {
            (byte, rest) if byte & 0x80 == 0 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        if let Some((value, length)) = long_varint(self.0) {
            self.0 = self.0.get(length..)?;
            return Some(value);
        }
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        // The tenth byte holds one bit: of timestamps beyond 2^62, which clients may name.
        let byte = self.u8()?;
        (byte <= 1).then_some(value | u64::from(byte) << 63)
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ceto_model::codec::Decoder;

    use super::super::parse::{Item, row_content};
    use super::*;
    use crate::testing::*;

    fn rows_of(encoded: EncodedPartition<'_>) -> Option<Vec<(ClusteringKey, Row)>> {
        let (mut decoder, base) = (Decoder::new(Bytes::copy_from_slice(encoded.items)), encoded.base);
        let mut rows = Vec::new();
        loop {
            match Item::read(&mut decoder, base).ok()? {
                Item::End => return (decoder.remaining() == 0).then_some(rows),
                Item::Row(key, length) => rows.push((key, row_content(&mut decoder, length, base).ok()?)),
                Item::Change(..) => return None,
            }
        }
    }

    fn encode(rows: &[(ClusteringKey, Row)], times: &mut TimeWriter) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, row) in rows {
            put_row_item(times, &mut out, (&key.0, row));
        }
        out.push(ITEM_END);
        out
    }

    fn is_plain(row: &Row) -> bool {
        use ceto_model::{CellState, ColumnData};
        let is_live = |data: &ColumnData| matches!(data, ColumnData::Cell(cell) if matches!(cell.state, CellState::Live(_)));
        row.deletion.is_none()
            && row.liveness.is_none_or(|liveness| liveness.expiry.is_none())
            && row.columns.iter().all(|(_, data)| is_live(data))
    }

    #[test]
    fn a_row_comes_back_whatever_its_timestamps() {
        let around = |power: u32| [(1i64 << power) - 1, 1 << power, -(1 << power), -(1 << power) - 1];
        let timestamps = (0..63).flat_map(around).chain([i64::MIN, i64::MIN + 1, i64::MAX]);
        for timestamp in timestamps.map(Timestamp) {
            let key = ClusteringKey(Bytes::from_static(&[KEY_END]));
            let cell = |timestamp| ColumnData::Cell(Cell::live(timestamp, Bytes::from_static(b"value")));
            let row = Row {
                liveness: Some(Liveness {
                    timestamp,
                    expiry: None,
                }),
                deletion: None,
                columns: vec![(ColumnId(1), cell(timestamp)), (ColumnId(2), cell(Timestamp(7)))],
            };
            let mut items = Vec::new();
            encode_row(&key, &row, &mut items);
            assert!(!is_replaced_by(&items, &key, &row), "{timestamp:?}");
            assert_eq!(only_row(&items.into()), (key, row), "{timestamp:?}");
        }
    }

    #[test]
    fn a_copy_is_what_decoding_and_writing_yields() {
        let mut copies = 0;
        for seed in 0..400 {
            let mut dice = Dice::new(seed);
            let shape = Shape {
                partitions: 1,
                rows: 4,
                value_size: 1 + dice.below(300),
                timestamps: 1 << dice.below(40),
                deletions: dice.one_in(4),
            };
            let rows: Vec<_> = (0..1 + dice.below(3))
                .flat_map(|_| random_write(&mut dice, shape).partition.rows)
                .collect();
            let mut from = TimeWriter::default();
            let content = encode(&rows, &mut from);
            let encoded = EncodedPartition {
                items: &content,
                base: from.base(),
            };
            // A block that has a base already, or none yet.
            let mut before = TimeWriter::default();
            if dice.one_in(2) {
                before.timestamp(&mut Vec::new(), Timestamp(dice.below(1 << 20) as i64));
            }
            let (mut times, mut out) = (before, vec![7]);
            let Some(copied) = copy_items(encoded, &mut times, &mut out) else {
                let all_plain =
                    !rows.is_empty() && rows.iter().all(|(_, row)| is_plain(row) && !row.is_empty());
                assert!(!all_plain, "seed {seed}");
                continue;
            };
            copies += 1;
            out.push(ITEM_END);
            let mut long_way = before;
            assert_eq!(out[1..], encode(&rows, &mut long_way), "seed {seed}");
            assert_eq!(times.base(), long_way.base());
            assert_eq!(
                (copied.rows, copied.first, copied.last),
                (rows.len() as u64, &rows[0].0.0[..], &rows[rows.len() - 1].0.0[..])
            );
            let cells: usize = rows.iter().map(|(_, row)| row.cell_count()).sum();
            assert_eq!(copied.cells, cells as u64);
        }
        assert!(copies > 100, "{copies}");
    }

    #[test]
    fn what_is_copied_from_damaged_bytes_could_be_decoded() {
        let mut dice = Dice::new(1);
        let shape = Shape {
            partitions: 1,
            rows: 4,
            value_size: 20,
            timestamps: 100,
            deletions: false,
        };
        let rows: Vec<_> = (0..4)
            .flat_map(|_| random_write(&mut dice, shape).partition.rows)
            .collect();
        let mut from = TimeWriter::default();
        let content = encode(&rows, &mut from);
        for bit in 0..content.len() * 8 {
            let mut damaged = content.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            for items in [&damaged[..], &content[..bit / 8]] {
                let encoded = EncodedPartition {
                    items,
                    base: from.base(),
                };
                let (mut times, mut out) = (TimeWriter::default(), Vec::new());
                if copy_items(encoded, &mut times, &mut out).is_some() {
                    out.push(ITEM_END);
                    let copy = EncodedPartition {
                        items: &out,
                        base: times.base(),
                    };
                    assert_eq!(rows_of(encoded), rows_of(copy), "bit {bit}");
                    assert!(rows_of(copy).is_some(), "bit {bit}");
                }
            }
        }
    }
}
