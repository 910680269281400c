//! Partition keys, clustering keys and the positions between them.
//!
//! Below the planner every key is a byte string and every comparison is memcmp:
//! - a [`PartitionKey`] is Cassandra's serialisation (one component: its wire bytes; several: `u16 length, bytes, 0`
//!   each). Partitions are ordered by token, then by these bytes.
//! - a [`ClusteringKey`] is the order-preserving encoding of `comparable`. A [`Position`] is a clustering key or a
//!   bound before or after all keys with some prefix, in the same encoding, so keys and bounds compare directly.
//!
//! Never: knows a type.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::token::Token;

/// Largest serialised partition key and largest clustering component: Cassandra's unsigned 16-bit limit, in bytes.
pub const KEY_SIZE_MAX: usize = 65_535;

/// Last byte of a bound that lies before every key with its prefix.
pub const BOUND_BEFORE: u8 = 0x20;
/// Last byte of a clustering key.
pub const KEY_END: u8 = 0x38;
/// First byte of each component of a clustering key or prefix.
pub const COMPONENT: u8 = 0x40;
/// Last byte of a bound that lies after every key with its prefix.
pub const BOUND_AFTER: u8 = 0x60;

/// A serialised partition key, at most [`KEY_SIZE_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(pub Bytes);

impl PartitionKey {
    /// Joins the wire values of the key's columns.
    pub fn from_components<B: AsRef<[u8]>>(components: &[B]) -> PartitionKey {
        if let [single] = components {
            return PartitionKey(Bytes::copy_from_slice(single.as_ref()));
        }
        let size = components.iter().map(|c| c.as_ref().len() + 3).sum();
        let mut key = Vec::with_capacity(size);
        for component in components {
            let bytes = component.as_ref();
            key.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            key.extend_from_slice(bytes);
            key.push(0);
        }
        PartitionKey(key.into())
    }

    /// Splits into `count` wire values; None when the bytes are not such a key.
    pub fn components(&self, count: usize) -> Option<SmallVec<[Bytes; 4]>> {
        if count == 1 {
            return Some(SmallVec::from_elem(self.0.clone(), 1));
        }
        let mut components = SmallVec::new();
        let mut at = 0;
        while at < self.0.len() {
            let length = self.0.get(at..at + 2)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let end = at + 2 + length;
            if self.0.get(end) != Some(&0) {
                return None;
            }
            components.push(self.0.slice(at + 2..end));
            at = end + 1;
        }
        (components.len() == count).then_some(components)
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// A partition key with its token; ordered as partitions lie on the ring and on disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DecoratedKey {
    /// Hash of `key`.
    pub token: Token,
    /// The key.
    pub key: PartitionKey,
}

impl DecoratedKey {
    /// Hashes `key`.
    pub fn new(key: PartitionKey) -> DecoratedKey {
        DecoratedKey {
            token: Token::of(&key.0),
            key,
        }
    }
}

impl Ord for DecoratedKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.token
            .cmp(&other.token)
            .then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for DecoratedKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A point between partitions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RingPosition {
    /// Before every key with this token.
    BeforeToken(Token),
    /// After every key with this token.
    AfterToken(Token),
    /// Just before this key.
    BeforeKey(DecoratedKey),
    /// Just after this key.
    AfterKey(DecoratedKey),
}

impl RingPosition {
    /// Where `key` lies relative to this point.
    pub fn cmp_key(&self, key: &DecoratedKey) -> Ordering {
        match self {
            Self::BeforeToken(token) => token.cmp(&key.token).then(Ordering::Less),
            Self::AfterToken(token) => token.cmp(&key.token).then(Ordering::Greater),
            Self::BeforeKey(point) => point.cmp(key).then(Ordering::Less),
            Self::AfterKey(point) => point.cmp(key).then(Ordering::Greater),
        }
    }

    /// Its token.
    pub fn token(&self) -> Token {
        match self {
            Self::BeforeToken(token) | Self::AfterToken(token) => *token,
            Self::BeforeKey(key) | Self::AfterKey(key) => key.token,
        }
    }
}

/// The partitions between two points; never wraps around the ring's end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PartitionRange {
    /// Lower end.
    pub start: RingPosition,
    /// Upper end.
    pub end: RingPosition,
}

impl PartitionRange {
    /// The whole ring.
    pub fn full() -> PartitionRange {
        PartitionRange {
            start: RingPosition::BeforeToken(Token::MIN),
            end: RingPosition::AfterToken(Token::MAX),
        }
    }

    /// `key` lies inside.
    pub fn contains(&self, key: &DecoratedKey) -> bool {
        self.start.cmp_key(key) == Ordering::Less && self.end.cmp_key(key) == Ordering::Greater
    }
}

/// A row's clustering key in the encoding of `comparable`. A table without clustering columns has one key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusteringKey(pub Bytes);

impl fmt::Debug for ClusteringKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// A clustering key, or a bound before or after all keys with some prefix (see `comparable`). A bound never equals a
/// key, so there is no inclusive or exclusive: `start < key && key < end`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub Bytes);

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// The rows between two bounds of one partition, in clustering order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Slice {
    /// Bound before the first row.
    pub start: Position,
    /// Bound after the last row.
    pub end: Position,
}

impl Slice {
    /// Every row of a partition.
    pub fn full() -> Slice {
        Slice {
            start: Position::before_all(),
            end: Position::after_all(),
        }
    }

    /// One row.
    pub fn of_row(key: &ClusteringKey) -> Slice {
        let prefix = key.0.strip_suffix(&[KEY_END]).unwrap_or(&key.0);
        let bound = |last: u8| Position([prefix, &[last]].concat().into());
        Slice {
            start: bound(BOUND_BEFORE),
            end: bound(BOUND_AFTER),
        }
    }

    /// `key` lies inside.
    pub fn contains(&self, key: &ClusteringKey) -> bool {
        self.start.0 < key.0 && key.0 < self.end.0
    }

    /// Holds no position.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

impl Position {
    /// The bound before every row of a partition.
    pub fn before_all() -> Position {
        Position(Bytes::from_static(&[BOUND_BEFORE]))
    }

    /// The bound behind a row, in the direction of a read.
    pub fn behind_row(key: &ClusteringKey, reversed: bool) -> Position {
        let row = Slice::of_row(key);
        if reversed { row.start } else { row.end }
    }

    /// The bound after every row of a partition.
    pub fn after_all() -> Position {
        Position(Bytes::from_static(&[BOUND_AFTER]))
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("0x")?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
