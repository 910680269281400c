//! Partitions of one row, in one piece.
//!
//! Most partitions of a table without clustering columns, and those of others when they are new, have one row in which
//! nothing is deleted and nothing expires. As a row such a thing is five allocations that lie scattered; here it is one,
//! in the very form that sstables have (`sstable::row`), so that a flush copies it. What such a partition cannot hold opens
//! it ([`MemtablePartition`]), and it is packed again when it has become one plain row.
//!
//! Times in it are not relative to anything.

use bytes::Bytes;
use ceto_model::{CellState, ClusteringKey, ColumnData, Partition, Row};

use super::partition::{MemtablePartition, own_bytes};
use crate::sstable::{EncodedPartition, encode_row, is_replaced_by, only_row};

/// A partition as the memtable keeps it.
pub(crate) enum Stored {
    Packed(Packed),
    Open(Box<MemtablePartition>),
}

/// One plain row: never empty.
pub(crate) struct Packed(Bytes);

impl Stored {
    /// What a write leaves of nothing, and the bytes it takes. None: nothing is left.
    pub(super) fn new(write: Partition, scratch: &mut Vec<u8>) -> (Stored, isize) {
        if let Some((key, row)) = only_row_of(&write)
            && let Some(packed) = Packed::new(key, row, scratch)
        {
            let size = packed.memory();
            return (Stored::Packed(packed), size);
        }
        let mut open = Box::<MemtablePartition>::default();
        let grown = open.apply(write);
        (Stored::Open(open), OPEN_SIZE + grown)
    }

    /// Merges a write in. Returns by how many bytes the memory in use grew, roughly.
    pub(super) fn apply(&mut self, mut write: Partition, scratch: &mut Vec<u8>) -> isize {
        let packed = match self {
            Stored::Open(open) => return open.apply(write),
            Stored::Packed(packed) => packed,
        };
        let before = packed.memory();
        let written = only_row_of(&write).filter(|(_, row)| is_plain(row));
        if let Some((key, row)) = written.filter(|(key, row)| is_replaced_by(&packed.0, key, row)) {
            packed.write_over(key, row, scratch);
            return packed.memory() - before;
        }
        let (mut key, mut row) = packed.row();
        if written.is_some_and(|(written_key, _)| *written_key == key)
            && let Some((_, written)) = write.rows.pop()
        {
            // Of two plain rows comes a plain one: nothing of them is copied on the way.
            row.merge(written);
            if let Some(merged) = Packed::new(&key, &row, scratch) {
                let after = merged.memory();
                *self = Stored::Packed(merged);
                return after - before;
            }
        }
        own_bytes(Some(&mut key), &mut row);
        let mut open = Box::new(MemtablePartition::of_row(key, row));
        let opened = OPEN_SIZE + open.rows_size() + open.apply(write);
        let packed = open
            .only_row()
            .and_then(|(key, row)| Packed::new(key, row, scratch));
        match packed {
            Some(packed) => {
                let after = packed.memory();
                *self = Stored::Packed(packed);
                after - before
            }
            None => {
                *self = Stored::Open(open);
                opened - before
            }
        }
    }

    /// Looks at a byte of each of its parts (see `Memtable::warm`).
    pub(super) fn touch(&self) -> usize {
        match self {
            Stored::Packed(packed) => packed.0.first().map_or(0, |byte| usize::from(*byte)),
            Stored::Open(open) => open.touch(),
        }
    }
}

/// Bytes of an open partition beside its content.
const OPEN_SIZE: isize = size_of::<MemtablePartition>() as isize;

impl Packed {
    /// None when the row is not plain.
    fn new(key: &ClusteringKey, row: &Row, scratch: &mut Vec<u8>) -> Option<Packed> {
        if !is_plain(row) {
            return None;
        }
        scratch.clear();
        encode_row(key, row, scratch);
        Some(Packed(Bytes::copy_from_slice(scratch)))
    }

    /// Puts a plain row in the place of the one it holds.
    fn write_over(&mut self, key: &ClusteringKey, row: &Row, scratch: &mut Vec<u8>) {
        scratch.clear();
        encode_row(key, row, scratch);
        // Most rows stay as long as they are; the memory is there then, unless a reader holds it.
        match std::mem::take(&mut self.0).try_into_mut() {
            Ok(mut own) if own.len() == scratch.len() => {
                own.copy_from_slice(scratch);
                self.0 = own.freeze();
            }
            _ => self.0 = Bytes::copy_from_slice(scratch),
        }
    }

    fn memory(&self) -> isize {
        self.0.len() as isize
    }

    /// The row; its values share the memory.
    pub(crate) fn row(&self) -> (ClusteringKey, Row) {
        only_row(&self.0)
    }

    /// As it goes into a block.
    pub(crate) fn encoded(&self) -> EncodedPartition<'_> {
        EncodedPartition::absolute(&self.0)
    }

    /// In the form that partitions of other content have.
    pub(crate) fn open(&self) -> MemtablePartition {
        let (key, row) = self.row();
        MemtablePartition::of_row(key, row)
    }
}

/// The row of a write that has one and nothing else.
fn only_row_of(write: &Partition) -> Option<(&ClusteringKey, &Row)> {
    let has_more =
        write.deletion.is_some() || !write.static_row.is_empty() || !write.range_tombstones.is_empty();
    match &write.rows[..] {
        [(key, row)] if !has_more => Some((key, row)),
        _ => None,
    }
}

/// Nothing of it is deleted, nothing expires, and no column has several cells.
fn is_plain(row: &Row) -> bool {
    let is_live = |data: &ColumnData| match data {
        ColumnData::Cell(cell) => matches!(cell.state, CellState::Live(_)),
        ColumnData::Collection(_) => false,
    };
    !row.is_empty()
        && row.deletion.is_none()
        && row.liveness.is_none_or(|liveness| liveness.expiry.is_none())
        && row.columns.iter().all(|(_, data)| is_live(data))
}
