//! Reading fragments out of raw blocks (their layout is in `block`).

use std::ops::Range;

use bytes::Bytes;
use ceto_model::codec::{DecodeError, Decoder};
use ceto_model::key::KEY_END;
use ceto_model::{ClusteringKey, DecoratedKey, Deletion, PartitionKey, Position, Row, Token};

use super::items::{ITEM_CHANGE, ITEM_END, ITEM_ROW, PARTITION_DELETION, PARTITION_STATIC};
use super::plain::only_plain_row;
use super::row::{BASE_SIZE, Base};

type Parsed<T> = std::result::Result<T, DecodeError>;

/// What a partition begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) key: PartitionKey,
    pub(crate) deletion: Option<Deletion>,
    pub(crate) static_row: Option<Row>,
}

impl Header {
    /// The key with its token.
    pub(crate) fn decorated_key(&self) -> DecoratedKey {
        DecoratedKey::new(self.key.clone())
    }
}

fn error<T>(decoder: &Decoder, what: &'static str) -> Parsed<T> {
    Err(DecodeError {
        what,
        remaining: decoder.remaining(),
    })
}

/// A raw block without the base of its times, and that base.
pub(crate) fn split_base(raw: &Bytes) -> Parsed<(Bytes, Base)> {
    match raw.split_last_chunk::<BASE_SIZE>() {
        Some((content, base)) => Ok((raw.slice(..content.len()), Base::decode(*base))),
        None => Err(DecodeError {
            what: "base of a block",
            remaining: raw.len(),
        }),
    }
}

/// The base and the rest of the root page of a row index.
pub(crate) fn root_page(content: Bytes) -> Parsed<(Base, Decoder)> {
    match content.first_chunk::<BASE_SIZE>() {
        Some(base) => Ok((Base::decode(*base), Decoder::new(content.slice(BASE_SIZE..)))),
        None => Err(DecodeError {
            what: "base of a row index",
            remaining: content.len(),
        }),
    }
}

/// A partition's header.
pub(crate) fn header(decoder: &mut Decoder, base: Base) -> Parsed<Header> {
    let key = PartitionKey(decoder.bytes("partition key")?);
    let flags = decoder.u8("partition flags")?;
    if flags & !(PARTITION_DELETION | PARTITION_STATIC) != 0 {
        return error(decoder, "partition flags");
    }
    let deletion = if flags & PARTITION_DELETION != 0 {
        base.deletion_option(decoder)?
    } else {
        None
    };
    let static_row = if flags & PARTITION_STATIC != 0 {
        Some(base.row(decoder)?)
    } else {
        None
    };
    Ok(Header {
        key,
        deletion,
        static_row,
    })
}

/// A row or deletion change before it is decoded in full.
pub(crate) enum Item {
    /// A row's key, and the bytes of its content, which come next.
    Row(ClusteringKey, usize),
    Change(Position, Option<Deletion>),
    /// The partition ends.
    End,
}

impl Item {
    /// The next one. Behind a row its content must be taken ([`row_content`]) or passed over.
    pub(crate) fn read(decoder: &mut Decoder, base: Base) -> Parsed<Item> {
        match decoder.u8("item kind")? {
            ITEM_END => Ok(Item::End),
            ITEM_ROW => {
                let key = clustering_key(decoder)?;
                Ok(Item::Row(key, decoder.count("row")?))
            }
            ITEM_CHANGE => {
                let position = Position(decoder.bytes("position")?);
                Ok(Item::Change(position, base.deletion_option(decoder)?))
            }
            _ => error(decoder, "item kind"),
        }
    }
}

/// Tables without clustering columns have one key, which needs no share of the block.
fn clustering_key(decoder: &mut Decoder) -> Parsed<ClusteringKey> {
    // One byte of length, and that key.
    if decoder.skip_exactly(&[1, KEY_END]) {
        return Ok(ClusteringKey(Bytes::from_static(&[KEY_END])));
    }
    Ok(ClusteringKey(decoder.bytes("clustering key")?))
}

/// A row's content of `length` bytes.
pub(crate) fn row_content(decoder: &mut Decoder, length: usize, base: Base) -> Parsed<Row> {
    let behind = decoder.remaining().checked_sub(length);
    let row = base.row(decoder)?;
    if behind != Some(decoder.remaining()) {
        return error(decoder, "row");
    }
    Ok(row)
}

/// The partitions of a block of small ones.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    raw: Bytes,
    /// Where the offsets begin.
    offsets: usize,
    count: usize,
    pub(crate) base: Base,
}

impl Partitions {
    /// Reads the end of a raw block.
    pub(crate) fn new(raw: &Bytes) -> Parsed<Partitions> {
        let (raw, base) = split_base(raw)?;
        let malformed = DecodeError {
            what: "block of partitions",
            remaining: raw.len(),
        };
        let Some(count) = raw.last_chunk::<4>() else {
            return Err(malformed);
        };
        let count = u32::from_le_bytes(*count) as usize;
        let trailer = count.checked_mul(4).and_then(|size| size.checked_add(4));
        match trailer.and_then(|trailer| raw.len().checked_sub(trailer)) {
            Some(offsets) => Ok(Partitions {
                raw,
                offsets,
                count,
                base,
            }),
            None => Err(malformed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Reads from partition number `at` on.
    pub(crate) fn decoder(&self, at: usize) -> Parsed<Decoder> {
        match self.start(at) {
            Some(start) if start <= self.offsets => Ok(Decoder::new(self.raw.slice(start..self.offsets))),
            _ => Err(DecodeError {
                what: "partition offset",
                remaining: self.raw.len(),
            }),
        }
    }

    /// Where partition number `at` begins.
    fn start(&self, at: usize) -> Option<usize> {
        let slot = self.offsets + 4 * at;
        let start = self.raw.get(slot..slot + 4).filter(|_| at < self.count)?;
        Some(u32::from_le_bytes(start.try_into().expect("four bytes")) as usize)
    }

    /// The key of partition number `at` and where its items lie, when it has neither deletion nor static row.
    pub(crate) fn bare(&self, at: usize) -> Option<(PartitionKey, Range<usize>)> {
        let end = match at + 1 < self.count {
            true => self.start(at + 1).filter(|end| *end <= self.offsets)?,
            false => self.offsets,
        };
        let key = self.key_bytes(at)?;
        let key_at = key.as_ptr().addr() - self.raw.as_ptr().addr();
        let flags_at = key_at + key.len();
        let has_nothing = flags_at < end && self.raw.get(flags_at) == Some(&0);
        has_nothing.then(|| {
            let key = PartitionKey(self.raw.slice(key_at..flags_at));
            (key, flags_at + 1..end)
        })
    }

    /// The row of a partition with these items, when there is no other and it is plain.
    pub(crate) fn only_plain_row(&self, items: Range<usize>) -> Option<(ClusteringKey, Row)> {
        only_plain_row(&self.raw, items, self.base)
    }

    /// Bytes of the block.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.raw.get(range).unwrap_or_default()
    }

    /// Reads a part of the block.
    pub(crate) fn decoder_of(&self, range: Range<usize>) -> Decoder {
        Decoder::new(self.raw.slice(range))
    }

    /// The key of partition number `at`.
    pub(crate) fn key(&self, at: usize) -> Parsed<DecoratedKey> {
        Ok(DecoratedKey::new(PartitionKey(
            self.decoder(at)?.bytes("partition key")?,
        )))
    }

    fn compare(&self, at: usize, key: &DecoratedKey) -> Parsed<std::cmp::Ordering> {
        let own = self.key_bytes(at).ok_or(DecodeError {
            what: "partition key",
            remaining: self.raw.len(),
        })?;
        Ok(Token::of(own).cmp(&key.token).then_with(|| own.cmp(&key.key.0)))
    }

    /// The key of partition number `at`, in place.
    fn key_bytes(&self, at: usize) -> Option<&[u8]> {
        let mut bytes = self.raw.get(self.start(at)?..self.offsets)?;
        let mut length = 0usize;
        // Keys have at most 65535 bytes: three bytes of length.
        for shift in [0, 7, 14] {
            let (byte, rest) = bytes.split_first()?;
            bytes = rest;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return bytes.get(..length);
            }
        }
        None
    }

    /// The number of the partition with this key, or of the first one behind it.
    pub(crate) fn find(&self, key: &DecoratedKey) -> Parsed<std::result::Result<usize, usize>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.compare(middle, key)? {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Ok(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(Err(low))
    }
}
