//! What partitions are made of in a block: header and items (their layout is in `block`), written one by one and read in
//! either direction.

use std::collections::VecDeque;

use bytes::Bytes;
use ceto_model::codec::{DecodeError, Decoder, put_bytes, put_varint};
use ceto_model::{ClusteringKey, Deletion, Position, Row};

use super::parse::{self, Item};
use super::row::{Base, TimeWriter};
use crate::reader::{Fragment, SliceFilter};

pub(crate) const PARTITION_DELETION: u8 = 1;
pub(crate) const PARTITION_STATIC: u8 = 2;
pub(crate) const ITEM_END: u8 = 0;
pub(crate) const ITEM_ROW: u8 = 1;
pub(crate) const ITEM_CHANGE: u8 = 2;

/// Appends what a partition begins with: its key, deletion and static row.
pub(super) fn put_header(
    times: &mut TimeWriter,
    out: &mut Vec<u8>,
    (key, deletion, static_row): (&[u8], Option<Deletion>, Option<&Row>),
) {
    put_bytes(out, key);
    let flags = if deletion.is_some() { PARTITION_DELETION } else { 0 }
        | if static_row.is_some() { PARTITION_STATIC } else { 0 };
    out.push(flags);
    if deletion.is_some() {
        times.put_deletion_option(out, deletion);
    }
    if let Some(row) = static_row {
        times.put_row(out, row);
    }
}

/// Appends a row with its key.
pub(super) fn put_row_item(times: &mut TimeWriter, out: &mut Vec<u8>, (key, row): (&[u8], &Row)) {
    out.push(ITEM_ROW);
    put_bytes(out, key);
    let at = out.len();
    out.push(0);
    times.put_row(out, row);
    put_length(out, at);
}

/// Writes how many bytes lie behind the place at `at` into it. It has one byte, which does for most rows; what follows
/// moves when more are needed.
pub(super) fn put_length(out: &mut Vec<u8>, at: usize) {
    let length = (out.len() - at - 1) as u64;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let end = out.len();
    put_varint(out, length);
    let width = out.len() - end;
    let mut varint = [0; 10];
    varint[..width].copy_from_slice(&out[end..]);
    out.truncate(end);
    out.resize(end + width - 1, 0);
    out.copy_within(at + 1..end, at + width);
    out[at..at + width].copy_from_slice(&varint[..width]);
}

/// Appends a deletion change.
pub(super) fn put_change_item(
    times: &mut TimeWriter,
    out: &mut Vec<u8>,
    position: &Bytes,
    deletion: Option<Deletion>,
) {
    out.push(ITEM_CHANGE);
    put_bytes(out, position);
    times.put_deletion_option(out, deletion);
}

/// An item to be read backwards.
enum ItemBefore {
    /// A row before it is decoded.
    Row(ClusteringKey, Bytes),
    /// A deletion change, with the deletion that holds before it.
    Change(Position, Option<Deletion>),
}

/// The items of a block, or the rest of them.
pub(super) struct Items {
    pub(super) decoder: Decoder,
    pub(super) base: Base,
    /// The range deletion that holds where they begin (in clustering order).
    pub(super) open: Option<Deletion>,
}

impl Items {
    /// Sends them through the filter, in reading order; true when the partition's end was among them.
    pub(super) fn take(
        mut self,
        filter: &mut SliceFilter<'_>,
        reversed: bool,
        buffer: &mut VecDeque<Fragment>,
    ) -> std::result::Result<bool, DecodeError> {
        if reversed {
            return self.take_reversed(filter, buffer);
        }
        if !filter.is_inside() {
            filter.jump(self.open);
        }
        while self.decoder.remaining() > 0 {
            match Item::read(&mut self.decoder, self.base)? {
                Item::End => return Ok(true),
                Item::Change(position, deletion) => filter.change(position, deletion, buffer),
                Item::Row(key, length) => {
                    if filter.advance(&key.0, buffer) {
                        let row = parse::row_content(&mut self.decoder, length, self.base)?;
                        buffer.push_back(Fragment::Row(key, row));
                    } else if filter.is_done() {
                        return Ok(false);
                    } else {
                        self.decoder.skip(length, "row")?;
                    }
                }
            }
        }
        Ok(false)
    }

    fn take_reversed(
        mut self,
        filter: &mut SliceFilter<'_>,
        buffer: &mut VecDeque<Fragment>,
    ) -> std::result::Result<bool, DecodeError> {
        let mut items: Vec<ItemBefore> = Vec::new();
        let mut is_last = false;
        let mut open = self.open;
        while self.decoder.remaining() > 0 && !is_last {
            match Item::read(&mut self.decoder, self.base)? {
                Item::End => is_last = true,
                Item::Change(position, deletion) => {
                    // Read backwards, what held before a change holds behind it.
                    items.push(ItemBefore::Change(position, open));
                    open = deletion;
                }
                Item::Row(key, length) => {
                    items.push(ItemBefore::Row(key, self.decoder.take(length, "row")?));
                }
            }
        }
        if !filter.is_inside() {
            filter.jump(open);
        }
        for item in items.into_iter().rev() {
            match item {
                ItemBefore::Change(position, before) => filter.change(position, before, buffer),
                ItemBefore::Row(key, content) => {
                    if filter.advance(&key.0, buffer) {
                        let length = content.len();
                        let row = parse::row_content(&mut Decoder::new(content), length, self.base)?;
                        buffer.push_back(Fragment::Row(key, row));
                    } else if filter.is_done() {
                        break;
                    }
                }
            }
        }
        Ok(is_last)
    }
}
