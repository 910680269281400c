//! The partition index: its pages, the top above them, and the footer.

use std::path::Path;

use bytes::Bytes;
use ceto_model::Token;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Location, long, short, tiny, write_page};
use crate::error::{Error, Result};

pub(crate) const FOOTER_SIZE: usize = 40;
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"CIDX");
const TOP_ENTRY_SIZE: usize = 24;
const ENTRY_SIZE: usize = 24;
const ROOT_SIZE: usize = 16;
const PAGE_HEADER_SIZE: usize = 8;
/// Pages do not cross a multiple of it.
const SECTOR: usize = 4096;
/// Bytes of a page's content, at most; small in tests, so that there are several pages.
const PAGE_CONTENT_MAX: usize = if cfg!(test) { 256 } else { SECTOR - 8 };

const FLAG_LARGE: u16 = 1;
const FLAG_CONTINUES_TOKEN: u16 = 2;

/// One entry of a partition page.
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

/// Writes partition pages as entries come.
#[derive(Default)]
pub(crate) struct PartitionIndexBuilder {
    entries: Vec<u8>,
    roots: Vec<u8>,
    /// Of the first entry of the page being filled.
    first: Option<(Token, bool)>,
    top: Vec<u8>,
    count: u64,
}

impl PartitionIndexBuilder {
    /// Adds an entry; a page that is full goes to `out`, the end of an index file that has `base` bytes before `out`.
    pub(crate) fn add(&mut self, entry: SummaryEntry, base: u64, out: &mut Vec<u8>) {
        let more = ENTRY_SIZE + if entry.root.is_some() { ROOT_SIZE } else { 0 };
        if PAGE_HEADER_SIZE + self.entries.len() + self.roots.len() + more > PAGE_CONTENT_MAX {
            self.close_page(base, out);
        }
        self.first.get_or_insert((entry.token, entry.continues_token));
        self.count += 1;
        let number = (self.roots.len() / ROOT_SIZE) as u16;
        let (mut flags, mut root_number) = (0, 0);
        if let Some(root) = entry.root {
            (flags, root_number) = (FLAG_LARGE, number);
            self.roots.extend_from_slice(&root.offset.to_le_bytes());
            self.roots.extend_from_slice(&root.length.to_le_bytes());
            self.roots.extend_from_slice(&[0; 4]);
        }
        if entry.continues_token {
            flags |= FLAG_CONTINUES_TOKEN;
        }
        self.entries.extend_from_slice(&entry.token.0.to_le_bytes());
        self.entries.extend_from_slice(&entry.data.offset.to_le_bytes());
        self.entries.extend_from_slice(&entry.data.length.to_le_bytes());
        self.entries.extend_from_slice(&flags.to_le_bytes());
        self.entries.extend_from_slice(&root_number.to_le_bytes());
    }

    fn close_page(&mut self, base: u64, out: &mut Vec<u8>) {
        let Some((token, continues_token)) = self.first.take() else {
            return;
        };
        let mut content = Vec::with_capacity(PAGE_HEADER_SIZE + self.entries.len() + self.roots.len());
        content.extend_from_slice(&((self.entries.len() / ENTRY_SIZE) as u16).to_le_bytes());
        content.extend_from_slice(&((self.roots.len() / ROOT_SIZE) as u16).to_le_bytes());
        content.extend_from_slice(&[0; 4]);
        content.append(&mut self.entries);
        content.append(&mut self.roots);
        let inside = ((base + out.len() as u64) % SECTOR as u64) as usize;
        if inside + content.len() + super::CHECKSUM_SIZE > SECTOR {
            out.resize(out.len() + SECTOR - inside, 0);
        }
        let page = write_page(&content, base, out);
        let flags = if continues_token { FLAG_CONTINUES_TOKEN } else { 0 };
        self.top.extend_from_slice(&token.0.to_le_bytes());
        self.top.extend_from_slice(&page.offset.to_le_bytes());
        self.top.extend_from_slice(&page.length.to_le_bytes());
        self.top.extend_from_slice(&u32::from(flags).to_le_bytes());
    }

    /// Writes the last page, the top and the footer.
    pub(crate) fn finish(mut self, base: u64, out: &mut Vec<u8>) {
        self.close_page(base, out);
        let offset = base + out.len() as u64;
        out.extend_from_slice(&self.top);
        let footer = out.len();
        let checksum = xxh3_64_with_seed(&self.top, offset);
        for field in [offset, self.top.len() as u64, self.count, checksum] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
        let crc = crc32fast::hash(&out[footer..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
}

/// What the footer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tail {
    /// Where the top begins.
    pub(crate) offset: u64,
    /// Its bytes.
    pub(crate) length: u64,
    entries: u64,
    checksum: u64,
}

impl Tail {
    /// Reads the footer of an index file.
    pub(crate) fn read(footer: &[u8], file_size: u64, file: &Path) -> Result<Tail> {
        let damaged = |what| Error::corrupt(file, file_size.saturating_sub(FOOTER_SIZE as u64), what);
        let footer: &[u8; FOOTER_SIZE] = footer
            .try_into()
            .map_err(|_| damaged("index footer is cut short"))?;
        let (content, crc) = footer.split_at(FOOTER_SIZE - 4);
        if crc32fast::hash(content).to_le_bytes() != crc {
            return Err(damaged("index footer checksum mismatch"));
        }
        if short(content, 32) != FOOTER_MAGIC {
            return Err(damaged("index footer is not one"));
        }
        let tail = Tail {
            offset: long(content, 0),
            length: long(content, 8),
            entries: long(content, 16),
            checksum: long(content, 24),
        };
        let end = tail
            .offset
            .checked_add(tail.length)
            .and_then(|end| end.checked_add(FOOTER_SIZE as u64));
        if end != Some(file_size) || !tail.length.is_multiple_of(TOP_ENTRY_SIZE as u64) {
            return Err(damaged("index footer does not fit the file"));
        }
        Ok(tail)
    }
}

/// The partition index in memory: the top, and the pages of a small sstable.
#[derive(Debug, Default)]
pub(crate) struct PartitionIndex {
    /// First token of each page.
    tokens: Vec<Token>,
    pages: Vec<Location>,
    /// Pages whose first token is also the last one of the page before; sorted.
    continuing: Vec<u32>,
    entries: u64,
    /// The pages, when they are kept in memory.
    resident: Vec<IndexPage>,
}

/// A place in the partition index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    pub(crate) page: usize,
    /// Entry in the page; None when it is to be searched.
    pub(crate) slot: Option<usize>,
}

impl PartitionIndex {
    /// Reads the top.
    pub(crate) fn read(top: &[u8], tail: &Tail, file: &Path) -> Result<PartitionIndex> {
        let damaged = |what| Error::corrupt(file, tail.offset, what);
        if top.len() as u64 != tail.length || xxh3_64_with_seed(top, tail.offset) != tail.checksum {
            return Err(damaged("checksum of the index's top does not match"));
        }
        let mut index = PartitionIndex {
            entries: tail.entries,
            ..PartitionIndex::default()
        };
        for (number, entry) in top.chunks_exact(TOP_ENTRY_SIZE).enumerate() {
            index.tokens.push(Token(long(entry, 0) as i64));
            index.pages.push(Location {
                offset: long(entry, 8),
                length: short(entry, 16),
            });
            if short(entry, 20) & u32::from(FLAG_CONTINUES_TOKEN) != 0 {
                index.continuing.push(number as u32);
            }
        }
        let is_possible = |page: &Location| page.length as usize <= SECTOR && page.end() <= tail.offset;
        let are_in_order = index.pages.is_sorted_by(|a, b| a.end() <= b.offset) && index.tokens.is_sorted();
        if !are_in_order || !index.pages.iter().all(is_possible) {
            return Err(damaged("index's top is not what it should be"));
        }
        Ok(index)
    }

    /// Entries of all pages.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Where the pages lie.
    pub(crate) fn pages(&self) -> &[Location] {
        &self.pages
    }

    /// The token of the first partition of a page.
    pub(crate) fn first_token(&self, page: usize) -> Option<Token> {
        self.tokens.get(page).copied()
    }

    /// Bytes of all pages.
    pub(crate) fn pages_size(&self) -> usize {
        self.pages.iter().map(|page| page.length as usize).sum()
    }

    /// Keeps the pages, all of them, in order.
    pub(crate) fn keep(&mut self, pages: Vec<IndexPage>) {
        assert_eq!(pages.len(), self.pages.len(), "all pages or none");
        self.resident = pages;
    }

    /// The pages, when they are kept in memory.
    pub(crate) fn resident(&self) -> &[IndexPage] {
        &self.resident
    }

    /// The first place that may hold partitions with this token or greater ones.
    pub(crate) fn seek(&self, token: Token) -> Cursor {
        let after = self.tokens.partition_point(|first| *first < token);
        let begins_here = self.tokens.get(after) == Some(&token)
            && u32::try_from(after).is_ok_and(|after| self.continuing.binary_search(&after).is_err());
        Cursor {
            page: if begins_here {
                after
            } else {
                after.saturating_sub(1)
            },
            slot: None,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let resident: usize = self.resident.iter().map(|page| page.0.len()).sum();
        self.tokens.len() * (size_of::<Token>() + size_of::<Location>()) + resident
    }
}

/// A partition page.
#[derive(Clone, Debug)]
pub(crate) struct IndexPage(Bytes);

impl IndexPage {
    /// Takes the content of a page whose checksum was right.
    pub(crate) fn new(content: Bytes, offset: u64, file: &Path) -> Result<IndexPage> {
        let page = IndexPage(content);
        let length = PAGE_HEADER_SIZE + ENTRY_SIZE * page.len() + ROOT_SIZE * usize::from(tiny(&page.0, 2));
        if page.0.len() != length || page.len() == 0 {
            return Err(Error::corrupt(
                file,
                offset,
                "index page is not what it should be",
            ));
        }
        Ok(page)
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        usize::from(tiny(&self.0, 0))
    }

    fn token(&self, slot: usize) -> Token {
        Token(long(&self.0, PAGE_HEADER_SIZE + ENTRY_SIZE * slot) as i64)
    }

    fn flags(&self, slot: usize) -> u16 {
        tiny(&self.0, PAGE_HEADER_SIZE + ENTRY_SIZE * slot + 20)
    }

    /// Entry number `slot`.
    pub(crate) fn get(&self, slot: usize) -> Option<SummaryEntry> {
        if slot >= self.len() {
            return None;
        }
        let at = PAGE_HEADER_SIZE + ENTRY_SIZE * slot;
        let flags = self.flags(slot);
        let root = (flags & FLAG_LARGE != 0).then(|| {
            let number = usize::from(tiny(&self.0, at + 22));
            let at = PAGE_HEADER_SIZE + ENTRY_SIZE * self.len() + ROOT_SIZE * number;
            Location {
                offset: long(&self.0, at),
                length: short(&self.0, at + 8),
            }
        });
        Some(SummaryEntry {
            token: self.token(slot),
            data: Location {
                offset: long(&self.0, at + 8),
                length: short(&self.0, at + 16),
            },
            root,
            continues_token: flags & FLAG_CONTINUES_TOKEN != 0,
        })
    }

    /// The first entry that may hold partitions with this token or greater ones.
    pub(crate) fn seek(&self, token: Token) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.token(middle) < token {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let begins_here =
            low < self.len() && self.token(low) == token && self.flags(low) & FLAG_CONTINUES_TOKEN == 0;
        if begins_here { low } else { low.saturating_sub(1) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::read_page;
    use super::*;

    const BASE: u64 = 16;

    fn entry(number: u64, token: i64, continues_token: bool) -> SummaryEntry {
        SummaryEntry {
            token: Token(token),
            data: Location {
                offset: number * 100,
                length: 99,
            },
            root: number.is_multiple_of(3).then_some(Location {
                offset: number * 7,
                length: 77,
            }),
            continues_token,
        }
    }

    fn built(entries: &[SummaryEntry]) -> Vec<u8> {
        let mut builder = PartitionIndexBuilder::default();
        let mut out = Vec::new();
        for entry in entries {
            builder.add(*entry, BASE, &mut out);
            // Something of another kind in between, so that pages meet sector boundaries everywhere.
            out.extend_from_slice(&[1; 333]);
        }
        builder.finish(BASE, &mut out);
        out
    }

    fn opened(bytes: &[u8]) -> Result<(PartitionIndex, Vec<IndexPage>)> {
        let file = Path::new("Index.db");
        let footer = bytes.len().saturating_sub(FOOTER_SIZE);
        let tail = Tail::read(&bytes[footer..], BASE + bytes.len() as u64, file)?;
        let index = PartitionIndex::read(
            &bytes[(tail.offset - BASE) as usize..(tail.offset - BASE + tail.length) as usize],
            &tail,
            file,
        )?;
        let page = |location: &Location| {
            let start = (location.offset - BASE) as usize;
            let page = Bytes::copy_from_slice(&bytes[start..start + location.length as usize]);
            IndexPage::new(read_page(&page, location.offset, file)?, location.offset, file)
        };
        let pages = index.pages().iter().map(page).collect::<Result<_>>()?;
        Ok((index, pages))
    }

    #[test]
    fn every_entry_is_found_and_pages_stay_inside_sectors() {
        // Every fifth entry continues the token of the one before.
        let entries: Vec<SummaryEntry> = (0..200)
            .map(|i| entry(i, (i - i % 5 / 4) as i64 * 10, i % 5 == 4))
            .collect();
        let bytes = built(&entries);
        let (index, pages) = opened(&bytes).unwrap();
        assert!(pages.len() > 10);
        assert_eq!(index.entries(), 200);
        for page in index.pages() {
            assert_eq!(page.offset / SECTOR as u64, (page.end() - 1) / SECTOR as u64);
        }
        let all: Vec<SummaryEntry> = pages
            .iter()
            .flat_map(|page| (0..page.len()).filter_map(|slot| page.get(slot)))
            .collect();
        assert_eq!(all, entries);
        for token in -15..2015 {
            let cursor = index.seek(Token(token));
            let found = pages[cursor.page]
                .get(pages[cursor.page].seek(Token(token)))
                .unwrap();
            // The last entry that begins before the token, or the first that begins with it.
            let whole = entries
                .iter()
                .find(|entry| entry.token.0 == token && !entry.continues_token);
            let before = entries.iter().rfind(|entry| entry.token.0 < token);
            assert_eq!(found, *whole.or(before).unwrap_or(&entries[0]), "token {token}");
        }
    }

    #[test]
    fn damage_in_pages_top_and_footer_is_noticed() {
        let entries: Vec<SummaryEntry> = (0..40).map(|i| entry(i, i as i64, false)).collect();
        let mut builder = PartitionIndexBuilder::default();
        let mut bytes = Vec::new();
        entries
            .iter()
            .for_each(|entry| builder.add(*entry, BASE, &mut bytes));
        builder.finish(BASE, &mut bytes);
        assert!(opened(&bytes).is_ok());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert!(opened(&damaged).is_err(), "byte {at}");
            assert!(opened(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
