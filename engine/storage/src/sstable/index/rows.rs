//! The row index of large partitions.

use bytes::Bytes;
use ceto_model::Position;
use ceto_model::codec::{DecodeError, Decoder, put_bytes, put_varint};

use super::{Location, write_page};

/// Size at which a page of a row index is full, in bytes; small in tests, so that trees get high.
const PAGE_SIZE: usize = if cfg!(test) { 200 } else { 8 << 10 };

/// Builds the row index of one large partition, bottom up.
#[derive(Default)]
pub(crate) struct RowIndexBuilder {
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    first: Option<Bytes>,
    entries: Vec<u8>,
}

impl RowIndexBuilder {
    /// Adds a data block that begins at `position`. Pages that became full go to `out`, the end of an index file that
    /// has `base` bytes before `out`.
    pub(crate) fn add(&mut self, position: Bytes, block: Location, base: u64, out: &mut Vec<u8>) {
        self.add_at(0, position, block, base, out);
    }

    fn add_at(&mut self, height: usize, position: Bytes, target: Location, base: u64, out: &mut Vec<u8>) {
        if self.levels.len() == height {
            self.levels.push(Level::default());
        }
        let level = &mut self.levels[height];
        put_bytes(&mut level.entries, &position);
        put_varint(&mut level.entries, target.offset);
        put_varint(&mut level.entries, u64::from(target.length));
        level.first.get_or_insert(position);
        if level.entries.len() >= PAGE_SIZE {
            self.close_page(height, base, out);
        }
    }

    fn close_page(&mut self, height: usize, base: u64, out: &mut Vec<u8>) {
        let level = std::mem::take(&mut self.levels[height]);
        if let Some(first) = level.first {
            let page = write_page(&level.entries, base, out);
            self.add_at(height + 1, first, page, base, out);
        }
    }

    /// Writes the root, which begins with `header`.
    pub(crate) fn finish(mut self, header: &[u8], base: u64, out: &mut Vec<u8>) -> Location {
        let mut height = 0;
        while height + 1 < self.levels.len() {
            self.close_page(height, base, out);
            height += 1;
        }
        let mut root = header.to_vec();
        put_varint(&mut root, height as u64);
        if let Some(top) = self.levels.last() {
            root.extend_from_slice(&top.entries);
        }
        write_page(&root, base, out)
    }
}

/// Among the entries of a node: the one whose subtree holds `position` (the first when all lie behind it), and where it
/// begins.
pub(crate) fn find_entry(
    entries: Decoder,
    position: &Position,
) -> std::result::Result<(Position, Location), DecodeError> {
    let mut entries = entries;
    let mut found = None;
    while entries.remaining() > 0 {
        let start = entries.bytes("row index position")?;
        let offset = entries.varint("row index offset")?;
        let length = entries.varint("row index length")?;
        if found.is_some() && start > position.0 {
            break;
        }
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        found = Some((Position(start), Location { offset, length }));
    }
    found.ok_or(DecodeError {
        what: "row index node without entries",
        remaining: 0,
    })
}
