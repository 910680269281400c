//! Read commands: what a replica is asked, and what it answers.
//!
//! A command names positions, column ids and limits; it knows no statement and no type. Filtering, functions,
//! grouping and projection happen above, on the rows it returns.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::key::{DecoratedKey, PartitionRange, Position, RingPosition, Slice};
use crate::partition::Partition;
use crate::row::ColumnId;
use crate::schema::TableId;
use crate::timestamp::UnixSeconds;

/// Slices of a partition in clustering order, disjoint.
pub type Slices = SmallVec<[Slice; 1]>;

/// Which partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadTarget {
    /// One.
    Partition(DecoratedKey),
    /// All between two points, in ring order.
    Range(PartitionRange),
}

/// Which non-key columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ColumnSelection {
    /// Every one.
    All,
    /// These, sorted. Row markers and deletions always come along, so that liveness is right.
    Only(Vec<ColumnId>),
}

impl ColumnSelection {
    /// Is among them.
    pub fn contains(&self, id: ColumnId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.binary_search(&id).is_ok(),
        }
    }
}

/// A read of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadCommand {
    /// The table.
    pub table: TableId,
    /// Partitions.
    pub target: ReadTarget,
    /// Rows of each partition. Empty: only the static row.
    pub slices: Slices,
    /// For a range that resumes inside its first partition: slices of that partition only.
    pub first_partition_slices: Option<Slices>,
    /// Rows from the last to the first.
    pub reversed: bool,
    /// Columns.
    pub columns: ColumnSelection,
    /// The second that decides what has expired.
    pub now: UnixSeconds,
    /// Limits, counted on live rows.
    pub limits: ReadLimits,
    /// Keep tombstones and shadowing deletions in the answer, for reconciling several replicas' answers; else only
    /// what is live at `now`.
    pub keep_tombstones: bool,
    /// Do not use or fill the cache.
    pub bypass_cache: bool,
    /// Only rows (partitions, for an index of a static column) that an index finds. A replica that has no such index, or
    /// not yet, reads all instead: whoever asks tests the rows.
    pub index: Option<Box<IndexSearch>>,
}

/// What is looked for in an index of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexSearch {
    /// Identity of the index.
    pub index: TableId,
    /// Which of its entries.
    pub terms: IndexTerms,
}

/// Indexed values, in the encoding of `comparable`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IndexTerms {
    /// One.
    Value(Bytes),
    /// All between two bounds.
    Between(Position, Position),
    /// Of an index of vectors: the nearest ones, about. They come in the order of the ring, as any rows. A replica whose
    /// index is not built yet reads all instead.
    Nearest {
        /// As on the wire: big-endian floats.
        vector: Bytes,
        /// How many rows of each shard.
        count: u32,
    },
}

/// When a read stops. A partition with a live static row and no live row in its slices counts as one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    /// Live rows in all.
    pub rows: u64,
    /// Live rows of each partition.
    pub rows_per_partition: u64,
    /// Partitions with something live.
    pub partitions: u64,
    /// Bytes of answer, measured by `memory_size`; the row that crosses it is still in the answer.
    pub bytes: u64,
    /// Tombstones walked over before the read stops with a short answer that can be resumed.
    pub tombstones: u64,
}

impl ReadLimits {
    /// No limit but the default page bound in bytes.
    pub const NONE: ReadLimits = ReadLimits {
        rows: u64::MAX,
        rows_per_partition: u64::MAX,
        partitions: u64::MAX,
        bytes: u64::MAX,
        tombstones: u64::MAX,
    };
}

/// The answer to a [`ReadCommand`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadResult {
    /// In ring order; rows in clustering order even for a reversed read's caller to see them as read: from the
    /// last to the first when `reversed`.
    pub partitions: Vec<PartitionResult>,
    /// Where to go on when a limit stopped the read before the end; None when everything was read.
    pub resume: Option<ResumePoint>,
    /// Work done, for tracing, metrics and warnings.
    pub work: ReadWork,
}

/// One partition of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionResult {
    /// Its key.
    pub key: DecoratedKey,
    /// Its content. With `reversed` the rows stand in descending order (the only place where rows do).
    pub partition: Partition,
}

/// The place where a read stopped: go on after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResumePoint {
    /// Inside this partition, after (before, when reversed) this bound.
    Inside(DecoratedKey, Position),
    /// At this point of the ring.
    Ring(RingPosition),
}

/// What a read walked over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadWork {
    /// Live rows found.
    pub live_rows: u64,
    /// Tombstones (cells, rows, ranges) walked over.
    pub tombstones: u64,
    /// sstables touched.
    pub sstables: u32,
    /// Bytes read from disk.
    pub disk_bytes: u64,
}
