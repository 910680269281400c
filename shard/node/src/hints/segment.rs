//! Files of hints: what one of them holds, and how it is read back.
//!
//! ```text
//! file   ::= "CETOHINT" version:u32 crc:u32  entry*  zeros       crc: of the twelve bytes before it
//! entry  ::= length:u32 crc:u32 created:i64 mutation             length: of created and mutation; crc: of both
//! name   ::= <host id> "-" <shard> "-" <number> ".hints"
//! ```
//!
//! Integers are big-endian. A file is reserved in full when it is made and written as commitlog segments are, so what was
//! stored survives the death of the process without a system call. Its end is where an entry is not whole: a length of
//! zero, or a checksum that does not fit, as a torn write leaves it.
//!
//! Never: an entry used whose checksum does not fit, or an allocation because a length claims it.

use bytes::{Buf, Bytes};
use ceto_internode::HostId;
use ceto_model::Mutation;
use ceto_model::codec::{Decoder, put_mutation};
use uuid::Uuid;

const MAGIC: &[u8; 8] = b"CETOHINT";
const VERSION: u32 = 1;
/// Bytes before the first entry.
pub(super) const HEADER: usize = 16;
/// Bytes of an entry beside its content.
const ENTRY_HEAD: usize = 8;
const SUFFIX: &str = ".hints";

/// What one file is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FileName {
    pub(super) host: HostId,
    /// The shard that has written it.
    pub(super) shard: u16,
    /// In the order of writing.
    pub(super) number: u64,
}

impl FileName {
    pub(super) fn text(&self) -> String {
        format!("{}-{}-{}{SUFFIX}", self.host, self.shard, self.number)
    }

    pub(super) fn parse(text: &str) -> Option<FileName> {
        let mut parts = text.strip_suffix(SUFFIX)?.rsplitn(3, '-');
        let number = parts.next()?.parse().ok()?;
        let shard = parts.next()?.parse().ok()?;
        let host = HostId(Uuid::try_parse(parts.next()?).ok()?);
        Some(FileName { host, shard, number })
    }
}

/// The head of a file.
pub(super) fn header() -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// An entry; `created` in microseconds since the epoch.
pub(super) fn entry(created: i64, mutation: &Mutation) -> Vec<u8> {
    let mut bytes = vec![0; ENTRY_HEAD];
    bytes.extend_from_slice(&created.to_be_bytes());
    put_mutation(&mut bytes, mutation);
    let length = (bytes.len() - ENTRY_HEAD) as u32;
    let crc = crc32fast::hash(&bytes[ENTRY_HEAD..]);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..8].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// A hint read back.
#[derive(PartialEq, Debug)]
pub(super) struct Hint {
    pub(super) created: i64,
    pub(super) mutation: Mutation,
    /// Bytes of its entry.
    pub(super) size: usize,
}

/// The hints of a file, one after the other.
pub(super) struct Hints(Bytes);

impl Hints {
    /// Of a file's bytes.
    ///
    /// # Errors
    /// When they are no file of hints, or one of a later version.
    pub(super) fn open(mut file: Bytes) -> Result<Hints, String> {
        let Some(head) = file.get(..HEADER) else {
            return Err("too short for a file of hints".to_owned());
        };
        if head == header() {
            file.advance(HEADER);
            return Ok(Hints(file));
        }
        // A crash between the making of a file and its head.
        if head.iter().all(|byte| *byte == 0) {
            return Ok(Hints(Bytes::new()));
        }
        Err(match head.starts_with(MAGIC) {
            true => "a file of hints of another version".to_owned(),
            false => "no file of hints".to_owned(),
        })
    }
}

impl Iterator for Hints {
    type Item = Hint;

    fn next(&mut self) -> Option<Hint> {
        let head = self.0.get(..ENTRY_HEAD)?;
        let length = u32::from_be_bytes(head[..4].try_into().ok()?) as usize;
        let crc = u32::from_be_bytes(head[4..].try_into().ok()?);
        let end = ENTRY_HEAD.checked_add(length)?;
        if length < 8 || end > self.0.len() {
            return None;
        }
        let mut content = self.0.slice(ENTRY_HEAD..end);
        if crc32fast::hash(&content) != crc {
            return None;
        }
        let created = content.get_i64();
        let mut decoder = Decoder::new(content);
        let mutation = decoder.mutation().ok()?;
        decoder.finish("hint").ok()?;
        self.0.advance(end);
        Some(Hint {
            created,
            mutation,
            size: end,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ceto_model::{
        Cell, ClusteringKey, ColumnData, ColumnId, DecoratedKey, PartitionKey, TableId, Timestamp,
    };
    use proptest::prelude::*;

    use super::*;

    fn mutation(size: usize) -> Mutation {
        let key = DecoratedKey::new(PartitionKey(vec![b'k'; 1 + size % 7].into()));
        let mut mutation = Mutation::new(TableId(Uuid::from_u128(5)), key);
        let cell = Cell::live(Timestamp(size as i64), vec![7; size].into());
        let row = mutation
            .partition
            .row_mut(ClusteringKey(vec![0x40, 1, 0x38].into()));
        row.merge_column(ColumnId(1), ColumnData::Cell(cell));
        mutation
    }

    fn file(sizes: &[usize]) -> Vec<u8> {
        let mut bytes = header().to_vec();
        for (created, size) in sizes.iter().enumerate() {
            bytes.extend(entry(created as i64, &mutation(*size)));
        }
        bytes
    }

    proptest! {
        /// Whatever is cut off or flipped: what is read is the beginning of what was written.
        #[test]
        fn a_torn_file_gives_its_whole_entries(
            sizes in proptest::collection::vec(0usize..200, 0..8),
            cut in any::<prop::sample::Index>(),
            flip in proptest::option::of((any::<prop::sample::Index>(), 1u8..)),
        ) {
            let whole = file(&sizes);
            let mut bytes = whole.clone();
            bytes.extend([0; 64]);
            let kept = cut.index(bytes.len() + 1);
            bytes[kept..].fill(0);
            if let Some((at, mask)) = flip {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
            if let Ok(hints) = Hints::open(bytes.clone().into()) {
                let read: Vec<Hint> = hints.collect();
                prop_assert!(read.len() <= sizes.len());
                for (at, hint) in read.iter().enumerate() {
                    prop_assert_eq!(hint.created, at as i64);
                    prop_assert_eq!(&hint.mutation, &mutation(sizes[at]));
                }
            }
            let all: Vec<Hint> = Hints::open(whole.into()).unwrap().collect();
            prop_assert_eq!(all.len(), sizes.len());
        }
    }

    #[test]
    fn names_come_back_and_strangers_are_left_alone() {
        let name = FileName {
            host: HostId(Uuid::from_u128(77)),
            shard: 3,
            number: 12,
        };
        assert_eq!(FileName::parse(&name.text()), Some(name));
        for other in ["x.hints", "1-2.hints", "a-1-2.hints", "notes.txt", ".hints"] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
        assert!(Hints::open(Bytes::from_static(&[1; 40])).is_err());
        assert!(Hints::open(Bytes::from_static(&[1; 4])).is_err());
        assert_eq!(Hints::open(vec![0; 40].into()).unwrap().count(), 0);
    }
}
