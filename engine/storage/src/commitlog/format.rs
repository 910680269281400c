//! Bytes of a commitlog segment.
//!
//! ```text
//! segment ::= header entry* end old*                  all integers little-endian
//!
//! header   0       8    10     12            14   16   24    32     40    44  48
//!          | magic | ver | shard | shard count | 0 | id | size | life | crc | 0 |
//!
//! entry    0        4                8             12           16
//!          | length | synced through | payload crc | header crc | payload, length bytes | zeros to a multiple of 8
//!
//! length  ::= bytes of the payload | 1 << 31 when it is compressed | 1 << 30 when it is of several mutations
//!
//! end     ::= 16 zeros, or as many as are left
//! old     ::= zeros, or what the file held as another segment
//!
//! payload ::= mutation+                                     not compressed
//!           | codec:u8 size of mutation+:u32 compressed
//! ```
//!
//! - Several mutations in one entry are written together: after a crash all of them are there or none. A replay sees by
//!   the length alone that there are such, for it has to make them durable before it applies them.
//! - An entry starts at a multiple of 8. A length of zero (and zero checksums) means: nothing was written here. Each entry
//!   is written together with the end behind it, which the next one overwrites.
//! - The header checksum covers the segment's id, the entry's offset and the other three fields: an entry of a
//!   segment that this file once was, or one that lies elsewhere, never passes. So a file that is used again is not
//!   filled with zeros before, which would be as many bytes as the log's own.
//! - *Synced through* is the offset up to which the segment was known to be on the device when the entry was
//!   written. Damage below it is corruption; above it, it may be what a power loss left.
//! - *Life* is the id of the first segment that the writing process made: within one life segments are synced in
//!   order, so an entry that knows of a sync in its segment vouches for all earlier segments of its life.
//! - Entries are compressed one by one: an acknowledged write is with the kernel, so none may wait in a buffer for
//!   others to be compressed with. What hardly shrinks is stored as it is.

use std::path::Path;

use bytes::Bytes;

use super::ReplayPosition;
use crate::error::{Error, Result};
use crate::sstable::{Codec, Compressor, decompress};

/// First eight bytes of a segment.
const MAGIC: [u8; 8] = *b"CETOLOG\n";
/// Format version.
const VERSION: u16 = 1;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_SIZE: u32 = 48;
/// Bytes of an entry's header.
pub(crate) const ENTRY_HEADER_SIZE: usize = 16;
/// Entries start at multiples of this.
const ALIGNMENT: usize = 8;

/// In an entry's length: its payload is compressed.
pub(super) const COMPRESSED: u32 = 1 << 31;
/// In an entry's length: it is of several mutations.
pub(super) const TOGETHER: u32 = 1 << 30;
/// Bytes before a compressed payload: codec, size.
const COMPRESSED_PREFIX: usize = 5;
/// Smaller mutations are not worth the attempt.
const COMPRESS_MIN: usize = 96;

/// Bytes that an entry with a payload of `length` takes.
pub(crate) fn entry_size(length: usize) -> usize {
    (ENTRY_HEADER_SIZE + length).next_multiple_of(ALIGNMENT)
}

/// What the header of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) id: u64,
    pub(crate) shard: u16,
    pub(crate) shard_count: u16,
    pub(crate) size: u64,
    pub(crate) life: u64,
}

impl SegmentHeader {
    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE as usize] {
        let mut bytes = [0; SEGMENT_HEADER_SIZE as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.shard.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.shard_count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.size.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.life.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None when the bytes are not a header of a known version (an intact one of another version is an error).
    fn decode(content: &[u8], file: &Path) -> Result<Option<SegmentHeader>> {
        let Some(bytes) = content.first_chunk::<{ SEGMENT_HEADER_SIZE as usize }>() else {
            return Ok(None);
        };
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..40]).to_le_bytes() != bytes[40..44] {
            return Ok(None);
        }
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let version = short(8);
        if version != VERSION {
            let text = format!(
                "{}: commitlog format {version} is not known to this version",
                file.display()
            );
            return Err(Error::Layout(text.into()));
        }
        Ok(Some(SegmentHeader {
            id: long(16),
            shard: short(10),
            shard_count: short(12),
            size: long(24),
            life: long(32),
        }))
    }
}

/// Compresses the mutations that stand in `entry` behind the place of its header, when that makes them smaller, by way
/// of `other`, which then takes its place. True when it did.
pub(crate) fn compress_entry(compressor: &mut Compressor, entry: &mut Vec<u8>, other: &mut Vec<u8>) -> bool {
    let size = entry.len() - ENTRY_HEADER_SIZE;
    if size < COMPRESS_MIN {
        return false;
    }
    other.clear();
    other.resize(ENTRY_HEADER_SIZE + 1, 0);
    other.extend_from_slice(&(size as u32).to_le_bytes());
    let codec = compressor.compress(&entry[ENTRY_HEADER_SIZE..], other);
    other[ENTRY_HEADER_SIZE] = codec as u8;
    let is_smaller = codec != Codec::None && other.len() < entry.len();
    if is_smaller {
        std::mem::swap(entry, other);
    }
    is_smaller
}

/// Fills in the header of an entry whose payload already stands behind it, and pads it. `flags` are those of its length.
pub(crate) fn seal_entry(entry: &mut Vec<u8>, at: ReplayPosition, synced_through: u32, flags: u32) {
    let length = entry.len() - ENTRY_HEADER_SIZE;
    let payload_crc = crc32fast::hash(&entry[ENTRY_HEADER_SIZE..]);
    let flagged = length as u32 | flags;
    let header_crc = header_crc(at, flagged, synced_through, payload_crc);
    for (i, field) in [flagged, synced_through, payload_crc, header_crc]
        .iter()
        .enumerate()
    {
        entry[i * 4..i * 4 + 4].copy_from_slice(&field.to_le_bytes());
    }
    entry.resize(entry_size(length), 0);
}

/// Puts the end of the segment behind a sealed entry, where `room` bytes are left.
pub(crate) fn put_end(entry: &mut Vec<u8>, room: usize) {
    entry.resize(entry.len() + room.min(ENTRY_HEADER_SIZE), 0);
}

fn header_crc(at: ReplayPosition, length: u32, synced_through: u32, payload_crc: u32) -> u32 {
    let mut covered = [0; 24];
    covered[..8].copy_from_slice(&at.segment.to_le_bytes());
    covered[8..12].copy_from_slice(&at.offset.to_le_bytes());
    covered[12..16].copy_from_slice(&length.to_le_bytes());
    covered[16..20].copy_from_slice(&synced_through.to_le_bytes());
    covered[20..].copy_from_slice(&payload_crc.to_le_bytes());
    crc32fast::hash(&covered)
}

/// One entry as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u32,
    pub(crate) synced_through: u32,
    is_compressed: bool,
    /// Of several mutations.
    pub(crate) is_together: bool,
    /// As it is stored.
    pub(crate) payload: Bytes,
}

impl Entry {
    /// The encoded mutations; None when they cannot be decompressed.
    pub(crate) fn mutations(&self) -> Option<Bytes> {
        if !self.is_compressed {
            return Some(self.payload.clone());
        }
        let (prefix, stored) = self.payload.split_at_checked(COMPRESSED_PREFIX)?;
        let codec = Codec::from_number(prefix[0])?;
        let size = u32::from_le_bytes(prefix[1..].try_into().ok()?);
        decompress(codec, stored, size as usize, None).map(Bytes::from)
    }
}

/// What the next place of a segment holds.
#[derive(Debug)]
enum Place {
    Entry(Entry),
    /// Zeros: nothing was written here.
    Empty,
    /// Neither.
    Damaged,
}

/// Walks over the valid entries of a segment, and remembers the damage between them.
pub(crate) struct Entries {
    content: Bytes,
    id: u64,
    /// None when the header is damaged or of another segment.
    pub(crate) life: Option<u64>,
    at: usize,
    /// Offsets of damage that valid entries follow, and of a torn end.
    pub(crate) damage: Vec<u32>,
    /// The last damage has no valid entry behind it.
    pub(crate) has_torn_tail: bool,
}

impl Entries {
    /// Walks over the `content` of the file that by its name is segment `id`.
    pub(crate) fn new(content: Bytes, id: u64, file: &Path) -> Result<Entries> {
        let header = SegmentHeader::decode(&content, file)?.filter(|header| header.id == id);
        Ok(Entries {
            content,
            id,
            life: header.map(|header| header.life),
            at: SEGMENT_HEADER_SIZE as usize,
            damage: Vec::new(),
            has_torn_tail: false,
        })
    }

    fn place(&self, at: usize) -> Place {
        let Some(header) = self.content.get(at..at + ENTRY_HEADER_SIZE) else {
            return match self.content.get(at..) {
                Some(rest) if rest.iter().any(|byte| *byte != 0) => Place::Damaged,
                _ => Place::Empty,
            };
        };
        if header == [0; ENTRY_HEADER_SIZE] {
            return Place::Empty;
        }
        let [length, synced_through, payload_crc, crc] = [0, 4, 8, 12]
            .map(|i| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]));
        let position = ReplayPosition {
            segment: self.id,
            offset: at as u32,
        };
        let (flagged, length) = (length, length & !(COMPRESSED | TOGETHER));
        // The cheap test first: a search looks at old content every few bytes.
        if length as usize > self.content.len() - at {
            return Place::Damaged;
        }
        if length == 0 || crc != header_crc(position, flagged, synced_through, payload_crc) {
            return Place::Damaged;
        }
        let start = at + ENTRY_HEADER_SIZE;
        match self.content.get(start..start.saturating_add(length as usize)) {
            Some(payload) if crc32fast::hash(payload) == payload_crc => Place::Entry(Entry {
                offset: at as u32,
                synced_through,
                is_compressed: flagged & COMPRESSED != 0,
                is_together: flagged & TOGETHER != 0,
                payload: self.content.slice(start..start + length as usize),
            }),
            _ => Place::Damaged,
        }
    }

    /// The next valid entry after something that is not one.
    fn find_entry(&self, from: usize) -> Option<Entry> {
        let mut at = from;
        while at < self.content.len() {
            let page = self.content.get(at..at + ZERO_PAGE.len());
            if page == Some(&ZERO_PAGE) {
                at += ZERO_PAGE.len();
                continue;
            }
            if let Place::Entry(entry) = self.place(at) {
                return Some(entry);
            }
            at += ALIGNMENT;
        }
        None
    }
}

const ZERO_PAGE: [u8; 4096] = [0; 4096];

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let place = self.place(self.at);
        let entry = match place {
            Place::Entry(entry) => entry,
            Place::Empty | Place::Damaged => {
                let found = self.find_entry(self.at + ALIGNMENT);
                if found.is_some() || matches!(place, Place::Damaged) {
                    self.damage.push(self.at as u32);
                    self.has_torn_tail = found.is_none();
                }
                self.at = self.content.len();
                found?
            }
        };
        self.at = entry.offset as usize + entry_size(entry.payload.len());
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ID: u64 = 77;
    const PAYLOADS: [&[u8]; 4] = [b"one", b"the second", b"3", b"and the fourth one"];

    fn segment() -> Vec<u8> {
        let header = SegmentHeader {
            id: ID,
            shard: 0,
            shard_count: 1,
            size: 4096,
            life: 70,
        };
        let mut content = header.encode().to_vec();
        for payload in PAYLOADS {
            let mut entry = vec![0; ENTRY_HEADER_SIZE];
            entry.extend_from_slice(payload);
            let at = ReplayPosition {
                segment: ID,
                offset: content.len() as u32,
            };
            seal_entry(&mut entry, at, SEGMENT_HEADER_SIZE, 0);
            content.extend_from_slice(&entry);
        }
        content.resize(4096, 0);
        content
    }

    fn payloads(entries: &mut Entries) -> Vec<Bytes> {
        entries.by_ref().map(|entry| entry.payload).collect()
    }

    fn entries(content: Vec<u8>, id: u64) -> Entries {
        Entries::new(content.into(), id, Path::new("segment")).unwrap()
    }

    #[test]
    fn entries_come_back_in_order() {
        let mut walk = entries(segment(), ID);
        assert_eq!(payloads(&mut walk), PAYLOADS);
        assert_eq!(walk.life, Some(70));
        assert!(walk.damage.is_empty() && !walk.has_torn_tail);
    }

    #[test]
    fn entries_of_another_segment_are_not_seen() {
        let mut walk = entries(segment(), ID + 1);
        assert!(payloads(&mut walk).is_empty());
    }

    #[test]
    fn a_segment_that_was_another_ends_where_its_own_entries_end() {
        let old = segment();
        for own in 0..PAYLOADS.len() {
            for has_end in [true, false] {
                let mut content = old.clone();
                let header = SegmentHeader {
                    id: ID + 1,
                    shard: 0,
                    shard_count: 1,
                    size: 4096,
                    life: 70,
                };
                let mut at = SEGMENT_HEADER_SIZE as usize;
                content[..at].copy_from_slice(&header.encode());
                for payload in PAYLOADS.iter().rev().take(own) {
                    let mut entry = vec![0; ENTRY_HEADER_SIZE];
                    entry.extend_from_slice(payload);
                    let position = ReplayPosition {
                        segment: ID + 1,
                        offset: at as u32,
                    };
                    seal_entry(&mut entry, position, SEGMENT_HEADER_SIZE, 0);
                    let next = at + entry.len();
                    if has_end {
                        put_end(&mut entry, content.len() - next);
                    }
                    content[at..at + entry.len()].copy_from_slice(&entry);
                    at = next;
                }
                let mut walk = entries(content, ID + 1);
                let expected: Vec<_> = PAYLOADS.iter().rev().take(own).copied().collect();
                assert_eq!(payloads(&mut walk), expected);
                // Without an end the rest passes for what a power loss tore.
                let is_torn = !has_end || own == 0;
                assert_eq!(walk.damage, if is_torn { vec![at as u32] } else { vec![] });
                assert_eq!(walk.has_torn_tail, is_torn);
            }
        }
    }

    #[test]
    fn an_end_fits_what_is_left() {
        for room in 0..40 {
            let mut entry = vec![1; 24];
            put_end(&mut entry, room);
            assert_eq!(entry.len(), 24 + room.min(16));
            assert!(entry[24..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_segment_cut_at_any_byte_gives_a_prefix() {
        let whole = segment();
        for length in 0..300 {
            let mut walk = entries(whole[..length].to_vec(), ID);
            let found = payloads(&mut walk);
            assert_eq!(found, PAYLOADS[..found.len()], "cut at {length}");
        }
    }

    #[test]
    fn a_segment_zeroed_from_any_byte_gives_a_prefix() {
        let whole = segment();
        for length in SEGMENT_HEADER_SIZE as usize..300 {
            let mut torn = whole.clone();
            torn[length..].fill(0);
            let mut walk = entries(torn, ID);
            let found = payloads(&mut walk);
            assert_eq!(found, PAYLOADS[..found.len()], "torn at {length}");
            assert_eq!(walk.has_torn_tail, !walk.damage.is_empty());
        }
    }

    #[test]
    fn a_flipped_bit_is_damage_and_the_entries_behind_it_are_found() {
        let whole = segment();
        let end = 48
            + PAYLOADS
                .iter()
                .map(|payload| entry_size(payload.len()))
                .sum::<usize>();
        let mut starts = vec![48];
        for payload in PAYLOADS {
            starts.push(starts.last().unwrap() + entry_size(payload.len()));
        }
        for bit in 48 * 8..end * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let hit = starts.iter().rposition(|start| *start <= bit / 8).unwrap();
            let is_padding = bit / 8 >= starts[hit] + ENTRY_HEADER_SIZE + PAYLOADS[hit].len();
            let mut walk = entries(damaged, ID);
            let found = payloads(&mut walk);
            if is_padding {
                assert_eq!(found, PAYLOADS);
                continue;
            }
            let mut expected = PAYLOADS.to_vec();
            expected.remove(hit);
            assert_eq!(found, expected, "bit {bit}");
            assert_eq!(walk.damage, [starts[hit] as u32]);
            assert_eq!(walk.has_torn_tail, hit == PAYLOADS.len() - 1);
        }
    }
}
