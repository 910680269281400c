//! The index: where partitions and rows lie in Data.
//!
//! ```text
//! Index.db ::= head (row page | partition page | padding)* top footer
//!
//! partition page   0      8       10      12  16
//!                  | xxh3 | count | roots | 0 | entry{24} * count | root{16} * roots |
//!   entry          0       8             16            20      22
//!                  | token | data offset | data length | flags | root number |
//!   root           0        8        12
//!                  | offset | length | 0 |
//!
//! top              one entry for each partition page
//!   entry          0       8        16       20
//!                  | token | offset | length | flags |
//!
//! row page         xxh3:u64 content             a node of the row index of one large partition
//!   content of a node ::= entry*
//!   content of a root ::= base{16} key:bytes flags:u8 [deletion] [static:row] height:varint entry*
//!   entry             ::= position:bytes offset:varint length:varint
//!
//! footer           0            8            16        24           32      36
//!                  | top offset | top length | entries | xxh3 of top | magic | crc32 |
//! ```
//!
//! - A *partition page* has one entry for each block of small partitions and one for each large partition, with the
//!   token of its first partition; flags: 1 a large partition, whose root is the numbered one, 2 the partition before
//!   this entry has the same token. A page fits into 4 KiB and crosses no boundary of 4 KiB (padding, zeros, makes it
//!   so): it is read with one read of one sector.
//! - The *top* has the first token of each page, and is kept in memory: 24 bytes for about 2.6 MiB of data. So finding
//!   a partition costs one read of the index at most; none when the page is cached, or when the sstable is small enough
//!   that its pages are kept in memory from the start.
//! - The *row index* of a large partition is a tree. An entry says at which position its subtree (at height 0: its
//!   data block) begins; offsets point into Index, at height 0 into Data. The root repeats the partition's header, so
//!   that a read in the middle of a large partition needs no block before the one it wants.
//! - Checksums of pages and of the top are seeded with the offset where they lie.

mod partitions;
mod rows;

pub(crate) use partitions::{
    Cursor, FOOTER_SIZE, IndexPage, PartitionIndex, PartitionIndexBuilder, SummaryEntry, Tail,
};
pub(crate) use rows::{RowIndexBuilder, find_entry};

use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};

/// Where something lies in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Location {
    /// The first byte behind it.
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// Bytes of a page's checksum.
const CHECKSUM_SIZE: usize = 8;

/// Appends a page to `out`, the end of an index file that has `base` bytes before `out`.
fn write_page(content: &[u8], base: u64, out: &mut Vec<u8>) -> Location {
    let offset = base + out.len() as u64;
    out.extend_from_slice(&xxh3_64_with_seed(content, offset).to_le_bytes());
    out.extend_from_slice(content);
    Location {
        offset,
        length: (content.len() + CHECKSUM_SIZE) as u32,
    }
}

/// Checks the page that lies at `offset`; its content.
pub(crate) fn read_page(page: &Bytes, offset: u64, file: &Path) -> Result<Bytes> {
    match page.split_first_chunk::<CHECKSUM_SIZE>() {
        Some((checksum, content)) if xxh3_64_with_seed(content, offset) == u64::from_le_bytes(*checksum) => {
            Ok(page.slice(CHECKSUM_SIZE..))
        }
        _ => Err(Error::corrupt(file, offset, "index page checksum mismatch")),
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| {
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    })
}

fn short(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| {
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    })
}

fn tiny(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |bytes| {
        u16::from_le_bytes(bytes.try_into().expect("two bytes"))
    })
}
