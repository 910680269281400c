//! The index: where partitions and rows lie in Data.
//!
//! ```text
//! Index.db ::= page* summary footer
//!
//! page     ::= xxh3:u64 content                 a node of the row index of one large partition; the checksum is
//!                                               seeded with the page's offset
//!   content of a node ::= entry*
//!   content of a root ::= key:bytes flags:u8 [deletion] [static:row] height:varint entry*
//!   entry             ::= position:bytes offset:varint length:varint
//!
//! summary entry   0       8             16            20      24            28  32            40
//!                 | token | data offset | data length | flags | root length | 0 | root offset |
//!
//! footer          0                8                16      24              32        36      40
//!                 | summary offset | summary length | count | summary xxh3  | version | crc32 |
//! ```
//!
//! - The *summary* has one entry for each block of small partitions and one for each large partition, with the token
//!   of its first partition. It is kept in memory: 24 bytes for about 16 KiB of data.
//! - The *row index* of a large partition is a tree. An entry says at which position its subtree (at height 0: its
//!   data block) begins; offsets point into Index, at height 0 into Data. The root repeats the partition's header, so
//!   that a read in the middle of a large partition needs no block before the one it wants.

use std::path::Path;

use bytes::Bytes;
use ceto_model::codec::{DecodeError, Decoder, put_bytes, put_varint};
use ceto_model::{Position, Token};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::{Error, Result};

const SUMMARY_ENTRY_SIZE: usize = 40;
pub(crate) const FOOTER_SIZE: usize = 40;
const VERSION: u32 = 1;
/// Size at which a page of a row index is full, in bytes; small in tests, so that trees get high.
const PAGE_SIZE: usize = if cfg!(test) { 200 } else { 8 << 10 };

const FLAG_LARGE: u32 = 1;
const FLAG_CONTINUES_TOKEN: u32 = 2;

/// Where something lies in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// One entry of the summary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SummaryEntry {
    pub(crate) token: Token,
    /// The block; of a large partition its first.
    pub(crate) data: Location,
    /// Of a large partition: the root of its row index.
    pub(crate) root: Option<Location>,
    /// The partition before this entry has the same token.
    pub(crate) continues_token: bool,
}

/// The summary in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Summary {
    /// First token of each entry.
    tokens: Vec<Token>,
    blocks: Vec<Location>,
    /// By entry number, sorted.
    roots: Vec<(u32, Location)>,
    /// Entry numbers, sorted.
    continuing: Vec<u32>,
}

impl Summary {
    pub(crate) fn push(&mut self, entry: SummaryEntry) {
        let number = self.tokens.len() as u32;
        self.tokens.push(entry.token);
        self.blocks.push(entry.data);
        self.roots.extend(entry.root.map(|root| (number, root)));
        self.continuing.extend(entry.continues_token.then_some(number));
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Entry number `at`.
    pub(crate) fn get(&self, at: usize) -> Option<SummaryEntry> {
        let number = u32::try_from(at).ok()?;
        let root = self
            .roots
            .binary_search_by_key(&number, |(number, _)| *number)
            .ok();
        Some(SummaryEntry {
            token: *self.tokens.get(at)?,
            data: *self.blocks.get(at)?,
            root: root.and_then(|at| self.roots.get(at)).map(|(_, root)| *root),
            continues_token: self.continuing.binary_search(&number).is_ok(),
        })
    }

    /// The first entry that may hold partitions with this token or greater ones.
    pub(crate) fn seek(&self, token: Token) -> usize {
        let after = self.tokens.partition_point(|first| *first < token);
        let is_whole_token_here = self.tokens.get(after) == Some(&token)
            && u32::try_from(after).is_ok_and(|after| self.continuing.binary_search(&after).is_err());
        if is_whole_token_here {
            after
        } else {
            after.saturating_sub(1)
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.tokens.len() * (size_of::<Token>() + size_of::<Location>())
            + self.roots.len() * size_of::<(u32, Location)>()
    }

    /// Appends summary and footer to an index file that has `offset` bytes so far.
    pub(crate) fn encode(&self, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        for at in 0..self.len() {
            let Some(entry) = self.get(at) else { break };
            let flags = if entry.root.is_some() { FLAG_LARGE } else { 0 }
                | if entry.continues_token {
                    FLAG_CONTINUES_TOKEN
                } else {
                    0
                };
            let root = entry.root.unwrap_or(Location { offset: 0, length: 0 });
            out.extend_from_slice(&entry.token.0.to_le_bytes());
            out.extend_from_slice(&entry.data.offset.to_le_bytes());
            out.extend_from_slice(&entry.data.length.to_le_bytes());
            out.extend_from_slice(&flags.to_le_bytes());
            out.extend_from_slice(&root.length.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&root.offset.to_le_bytes());
        }
        let summary = &out[start..];
        let (length, checksum) = (summary.len() as u64, xxh3_64(summary));
        let footer = out.len();
        for field in [offset, length, self.len() as u64, checksum] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&VERSION.to_le_bytes());
        let crc = crc32fast::hash(&out[footer..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Where the summary lies, from the footer.
    pub(crate) fn locate(footer: &[u8], file_size: u64, file: &Path) -> Result<(u64, u64)> {
        let damaged = |what| Error::corrupt(file, file_size.saturating_sub(FOOTER_SIZE as u64), what);
        let footer: &[u8; FOOTER_SIZE] = footer
            .try_into()
            .map_err(|_| damaged("index footer is cut short"))?;
        let (content, crc) = footer.split_at(FOOTER_SIZE - 4);
        if crc32fast::hash(content).to_le_bytes() != crc {
            return Err(damaged("index footer checksum mismatch"));
        }
        if content[32..] != VERSION.to_le_bytes() {
            return Err(damaged("index of an unknown version"));
        }
        let (offset, length) = (long(content, 0), long(content, 8));
        let end = offset
            .checked_add(length)
            .and_then(|end| end.checked_add(FOOTER_SIZE as u64));
        if end != Some(file_size) {
            return Err(damaged("index footer does not fit the file"));
        }
        Ok((offset, length))
    }

    /// Reads the summary, given with the footer behind it.
    pub(crate) fn decode(bytes: &[u8], offset: u64, file: &Path) -> Result<Summary> {
        let damaged = |what| Error::corrupt(file, offset, what);
        let (summary, footer) = bytes
            .split_last_chunk::<FOOTER_SIZE>()
            .ok_or_else(|| damaged("index summary is cut short"))?;
        if xxh3_64(summary) != long(footer, 24) {
            return Err(damaged("index summary checksum mismatch"));
        }
        let count = long(footer, 16);
        if summary.len() as u64 != count.saturating_mul(SUMMARY_ENTRY_SIZE as u64) {
            return Err(damaged("index summary size mismatch"));
        }
        let mut all = Summary::default();
        for entry in summary.chunks_exact(SUMMARY_ENTRY_SIZE) {
            let flags = short(entry, 20);
            let root = Location {
                offset: long(entry, 32),
                length: short(entry, 24),
            };
            all.push(SummaryEntry {
                token: Token(long(entry, 0) as i64),
                data: Location {
                    offset: long(entry, 8),
                    length: short(entry, 16),
                },
                root: (flags & FLAG_LARGE != 0).then_some(root),
                continues_token: flags & FLAG_CONTINUES_TOKEN != 0,
            });
        }
        if !all.tokens.is_sorted() {
            return Err(damaged("index summary out of order"));
        }
        Ok(all)
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

fn write_page(content: &[u8], base: u64, out: &mut Vec<u8>) -> Location {
    let offset = base + out.len() as u64;
    out.extend_from_slice(&xxh3_64_with_seed(content, offset).to_le_bytes());
    out.extend_from_slice(content);
    Location {
        offset,
        length: content.len() as u32 + 8,
    }
}

/// Checks the page that lies at `offset`; its content.
pub(crate) fn read_page(page: &Bytes, offset: u64, file: &Path) -> Result<Bytes> {
    match page.split_first_chunk::<8>() {
        Some((checksum, content)) if xxh3_64_with_seed(content, offset) == u64::from_le_bytes(*checksum) => {
            Ok(page.slice(8..))
        }
        _ => Err(Error::corrupt(file, offset, "row index page checksum mismatch")),
    }
}

/// Among the entries of a node: the one whose subtree holds `position` (the first when all lie behind it).
pub(crate) fn find_entry(
    entries: Decoder,
    position: &Position,
) -> std::result::Result<Location, DecodeError> {
    let mut entries = entries;
    let mut found = None;
    while entries.remaining() > 0 {
        let start = entries.bytes("row index position")?;
        let offset = entries.varint("row index offset")?;
        let length = entries.varint("row index length")?;
        if found.is_some() && start > position.0 {
            break;
        }
        found = Some(Location {
            offset,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        });
    }
    found.ok_or(DecodeError {
        what: "row index node without entries",
        remaining: 0,
    })
}
