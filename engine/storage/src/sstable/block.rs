//! Data blocks: the unit of compression, checksum and disk read.
//!
//! ```text
//! block   0               4            8                 12     13      14  16         24
//!         | stored length | raw length | previous length | kind | codec | 0 | checksum | stored bytes |
//!
//! raw bytes by kind, each with the base of its times at its end
//!   0 partitions       partition* offset:u32* count:u32 base      offset of each partition, for binary search
//!   1 large, first     header item* base                           the beginning of a partition of several blocks
//!   2 large, more      open:deletion? item* base                   open: the range deletion that holds at its start
//!
//! partition ::= header item* 0
//! header    ::= key:bytes flags:u8 [deletion] [static:row]         flags: 1 deletion, 2 static row
//! item      ::= 1 clustering:bytes length:varint row  |  2 position:bytes deletion?
//! deletion? ::= 0 | 1 deletion
//! base      ::= timestamp:i64 seconds:i64
//! ```
//!
//! Integers are little-endian; `bytes` and `varint` are those of the model's codec, `row` and `deletion` are described
//! in `row`. Data begins with the files' common head; the first block lies behind it, each other one behind the one
//! before. *Previous length* is the length on disk of the block before it in the same large partition (0 for the first), so that a
//! large partition can be read backwards. The checksum is xxh3 over header and stored bytes, seeded with the block's
//! offset: a block that lies elsewhere does not pass. The last block of a large partition ends with a 0 item.

use std::cell::RefCell;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::compression::{Codec, Compressor, RAW_BLOCK_MAX, decompress, decompress_into};
use super::dictionary::Dictionary;

/// Bytes of a block's header.
pub(crate) const BLOCK_HEADER_SIZE: usize = 24;
const CHECKSUM_AT: usize = 16;
/// Buffers that a thread keeps for the next blocks, and the largest of them, in bytes.
const SPARES_MAX: usize = 8;
const SPARE_SIZE_MAX: usize = 128 << 10;

thread_local! {
    /// Buffers of this thread that no block uses, the one given back last at the end: warm memory, while that of a cache
    /// that forgets is cold.
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Where a block's raw bytes lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// In an allocation of their own, of just their size: to be kept.
    Own,
    /// In a buffer that serves one block after the other, or in what was read: not to be kept.
    Shared,
}

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum BlockKind {
    Partitions = 0,
    LargeFirst = 1,
    LargeMore = 2,
}

/// A block's header, intact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHeader {
    pub(crate) stored_length: usize,
    pub(crate) raw_length: usize,
    pub(crate) previous_length: u32,
    pub(crate) kind: BlockKind,
    codec: Codec,
    checksum: u64,
}

/// A block as it is used: checked and decompressed.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) kind: BlockKind,
    pub(crate) raw: Bytes,
    /// Bytes it takes on disk.
    pub(crate) length: u32,
    pub(crate) previous_length: u32,
}

/// Appends a block that will lie at `offset`; returns its length on disk.
pub(crate) fn write_block(
    compressor: &mut Compressor,
    (kind, raw): (BlockKind, &[u8]),
    previous_length: u32,
    offset: u64,
    out: &mut Vec<u8>,
) -> u32 {
    assert!(raw.len() <= RAW_BLOCK_MAX, "a block of {} bytes", raw.len());
    let start = out.len();
    out.resize(start + BLOCK_HEADER_SIZE, 0);
    let codec = compressor.compress(raw, out);
    let stored_length = (out.len() - start - BLOCK_HEADER_SIZE) as u32;
    let header = &mut out[start..start + BLOCK_HEADER_SIZE];
    header[..4].copy_from_slice(&stored_length.to_le_bytes());
    header[4..8].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    header[8..12].copy_from_slice(&previous_length.to_le_bytes());
    header[12] = kind as u8;
    header[13] = codec as u8;
    let checksum = checksum(
        &out[start..start + CHECKSUM_AT],
        &out[start + BLOCK_HEADER_SIZE..],
        offset,
    );
    out[start + CHECKSUM_AT..start + BLOCK_HEADER_SIZE].copy_from_slice(&checksum.to_le_bytes());
    (out.len() - start) as u32
}

fn checksum(header: &[u8], stored: &[u8], offset: u64) -> u64 {
    xxh3_64_with_seed(stored, xxh3_64_with_seed(header, offset))
}

impl BlockHeader {
    /// Reads a header from the front of `bytes`; an error text when it cannot be one.
    pub(crate) fn read(bytes: &[u8]) -> std::result::Result<BlockHeader, &'static str> {
        let header = bytes
            .first_chunk::<BLOCK_HEADER_SIZE>()
            .ok_or("block header is cut short")?;
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let kind = [BlockKind::Partitions, BlockKind::LargeFirst, BlockKind::LargeMore];
        let kind = kind.into_iter().find(|kind| *kind as u8 == header[12]);
        let header = BlockHeader {
            stored_length: field(0) as usize,
            raw_length: field(4) as usize,
            previous_length: field(8),
            kind: kind.ok_or("block header names no kind of block")?,
            codec: Codec::from_number(header[13]).ok_or("block header names no codec")?,
            checksum: u64::from_le_bytes(header[CHECKSUM_AT..].try_into().expect("eight bytes")),
        };
        if bytes[14..CHECKSUM_AT] != [0, 0] {
            return Err("block header has unknown flags");
        }
        if header.raw_length > RAW_BLOCK_MAX || header.stored_length > RAW_BLOCK_MAX {
            return Err("block header claims an impossible length");
        }
        Ok(header)
    }

    /// Bytes of the whole block on disk.
    pub(crate) fn length(&self) -> usize {
        BLOCK_HEADER_SIZE + self.stored_length
    }
}

/// Checks and decompresses the block that lies at `offset` of its file and at the front of `bytes`.
pub(crate) fn read_block(
    bytes: &Bytes,
    offset: u64,
    dictionary: Option<&Dictionary>,
    memory: Memory,
) -> std::result::Result<Block, &'static str> {
    let header = BlockHeader::read(bytes)?;
    let stored = bytes
        .get(BLOCK_HEADER_SIZE..header.length())
        .ok_or("block is cut short")?;
    if checksum(&bytes[..CHECKSUM_AT], stored, offset) != header.checksum {
        return Err("block checksum mismatch");
    }
    if header.codec == Codec::ZstdDictionary && dictionary.is_none() {
        return Err("block needs a dictionary that is not there");
    }
    let (codec, raw_length) = (header.codec, header.raw_length);
    let raw = match memory {
        Memory::Shared if codec == Codec::None && stored.len() == raw_length => {
            Some(bytes.slice(BLOCK_HEADER_SIZE..header.length()))
        }
        Memory::Shared => {
            let mut buffer = SpareBuffer::take(raw_length);
            decompress_into(codec, stored, buffer.as_mut_slice(), dictionary)
                .then(|| Bytes::from_owner(buffer))
        }
        Memory::Own => decompress(codec, stored, raw_length, dictionary).map(Bytes::from),
    };
    let raw = raw.ok_or("block does not decompress")?;
    Ok(Block {
        kind: header.kind,
        raw,
        length: header.length() as u32,
        previous_length: header.previous_length,
    })
}

/// Memory of a block that nobody keeps: given back for a later one when it is no longer used.
struct SpareBuffer {
    memory: Vec<u8>,
    /// Bytes in use, from the front.
    length: usize,
}

impl SpareBuffer {
    /// `length` bytes of any content.
    fn take(length: usize) -> SpareBuffer {
        let mut memory = SPARES.with_borrow_mut(Vec::pop).unwrap_or_default();
        if memory.len() < length {
            memory.resize(length, 0);
        }
        SpareBuffer { memory, length }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl AsRef<[u8]> for SpareBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for SpareBuffer {
    fn drop(&mut self) {
        if self.memory.len() > SPARE_SIZE_MAX {
            return;
        }
        let memory = std::mem::take(&mut self.memory);
        // On a thread that is ending there is nobody to keep it for.
        let _ = SPARES.try_with(|spares| {
            if let Ok(mut spares) = spares.try_borrow_mut()
                && spares.len() < SPARES_MAX
            {
                spares.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sstable::Compression;

    #[test]
    fn a_flipped_bit_anywhere_or_another_place_is_noticed() {
        let raw = b"some row bytes, and again some row bytes, and again some row bytes".repeat(3);
        let mut bytes = Vec::new();
        let mut compressor = Compressor::new(Compression::default(), None);
        let content = (BlockKind::LargeMore, raw.as_slice());
        let length = write_block(&mut compressor, content, 99, 4096, &mut bytes);
        assert_eq!(length as usize, bytes.len());
        let block = read_block(&bytes.clone().into(), 4096, None, Memory::Own).unwrap();
        assert_eq!(
            (block.kind, &block.raw[..], block.previous_length),
            (BlockKind::LargeMore, &raw[..], 99)
        );
        assert!(read_block(&bytes.clone().into(), 8192, None, Memory::Shared).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                read_block(&damaged.into(), 4096, None, Memory::Shared).is_err(),
                "bit {bit}"
            );
        }
        for length in 0..bytes.len() {
            assert!(read_block(&bytes[..length].to_vec().into(), 4096, None, Memory::Own).is_err());
        }
    }

    #[test]
    fn a_buffer_serves_one_block_after_the_other_and_no_byte_is_left_of_the_last() {
        let mut compressor = Compressor::new(Compression::default(), None);
        let mut read = |raw: &[u8]| {
            let mut bytes = Vec::new();
            write_block(&mut compressor, (BlockKind::Partitions, raw), 0, 0, &mut bytes);
            read_block(&bytes.into(), 0, None, Memory::Shared).unwrap()
        };
        let long = read(&b"a long block, ".repeat(100));
        let address = long.raw.as_ptr();
        let second = read(&b"another at the same time, ".repeat(100));
        assert_ne!(second.raw.as_ptr(), address);
        assert_eq!(long.raw[..], b"a long block, ".repeat(100));
        drop(long);
        let short = read(&b"short, ".repeat(20));
        assert_eq!(short.raw.as_ptr(), address);
        assert_eq!(short.raw[..], b"short, ".repeat(20));
        let many: Vec<_> = (0..2 * SPARES_MAX)
            .map(|_| read(&b"block, ".repeat(20)))
            .collect();
        drop(many);
        drop(read(&vec![0; 2 * SPARE_SIZE_MAX]));
        assert_eq!(SPARES.with_borrow(Vec::len), SPARES_MAX - 1);
    }
}
