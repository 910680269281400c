//! Reading: streams of fragments, their merge, and the answer made from them.
//!
//! Every source (memtable, sstable, a merge of others) yields the same grammar, partitions in ring order:
//!
//! ```text
//! stream    ::= partition*
//! partition ::= partition_start static_row? (row | deletion_change)* partition_end
//! ```
//!
//! Rows and deletion changes lie in clustering order, or in the opposite one when the scan is reversed. A *deletion
//! change* at a position says which range deletion (or none) holds from there on in reading order, until the next
//! change; before the first and after the last none holds. Positions of one partition are strictly monotonic.
//! A source yields only what lies in the scan's slices; deletion changes are cut to them.
//!
//! A source never waits inside [`FragmentSource::step`]: where bytes must come from the disk it answers
//! [`Step::Load`], and the caller awaits [`FragmentSource::load`]. So the same code serves reads that need no disk
//! without a future, and those that do.

mod answer;
mod merge;
mod slices;
#[cfg(test)]
mod tests;

use ceto_env::LocalFuture;
use ceto_model::key::{BOUND_AFTER, BOUND_BEFORE};
use ceto_model::{ClusteringKey, DecoratedKey, Deletion, Position, ReadTarget, Row, Slice};

pub(crate) use answer::{Answer, Flow};
pub(crate) use merge::Merge;
pub(crate) use slices::{SliceFilter, changes_of};

use crate::error::Result;
use crate::sstable::EncodedPartition;

/// A piece of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// Begins a partition.
    PartitionStart(DecoratedKey, Option<Deletion>),
    /// Its static row, when not empty.
    StaticRow(Row),
    /// A row, not empty.
    Row(ClusteringKey, Row),
    /// The range deletion that holds from here on.
    DeletionChange(Position, Option<Deletion>),
    /// Ends a partition.
    PartitionEnd,
}

/// What a source has next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// This.
    Fragment(Fragment),
    /// It must load first.
    Load,
    /// Nothing more.
    End,
}

/// What a source is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    /// Partitions.
    pub(crate) target: &'a ReadTarget,
    /// Slices of each partition, in clustering order, disjoint.
    pub(crate) slices: &'a [Slice],
    /// Slices of the first partition of the target's range, when they differ.
    pub(crate) first_partition_slices: Option<&'a [Slice]>,
    /// From the last row to the first.
    pub(crate) reversed: bool,
}

/// A stream of fragments.
pub(crate) trait FragmentSource {
    /// The next fragment, when it is in memory.
    fn step(&mut self) -> Result<Step>;
    /// Reads what `step` waits for.
    fn load(&mut self) -> LocalFuture<'_, Result<()>>;
    /// When `step` has answered [`Step::Load`] inside a partition: where in reading order the next row or change lies at the
    /// earliest, if that is known. Until something there is wanted it need not load.
    fn not_before(&self) -> Option<Position> {
        None
    }
    /// Goes on behind the end of the current partition: the next fragment is a partition start.
    fn skip_partition(&mut self);
    /// Between two partitions: hands whole partitions that lie before a key (None: anywhere) to the answer, several in one
    /// go, when that is cheaper than fragment by fragment. None: there is nothing of the kind, and `step` goes on.
    fn run(&mut self, _before: Option<&DecoratedKey>, _answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        Ok(None)
    }
    /// Right behind a partition's start, which told this key and no deletion: hands the whole partition to the answer, when
    /// it lies in one piece. None: nothing was handed over, and `step` goes on.
    fn hand_over(&mut self, _key: &DecoratedKey, _answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        Ok(None)
    }
    /// Right behind a partition's start: all that the source has of the partition, when it lies in one piece. Whoever
    /// takes it skips the partition.
    fn encoded(&self) -> Option<EncodedPartition<'_>> {
        None
    }
}

/// The bound just before a row.
pub(crate) fn before_row(key: &ClusteringKey) -> Position {
    bound_at(key, BOUND_BEFORE)
}

/// The bound just after a row.
pub(crate) fn after_row(key: &ClusteringKey) -> Position {
    bound_at(key, BOUND_AFTER)
}

fn bound_at(key: &ClusteringKey, bound: u8) -> Position {
    let mut bytes = key.0.to_vec();
    bytes.pop();
    bytes.push(bound);
    Position(bytes.into())
}

/// Where `first_partition_slices` apply: a range that begins inside a partition begins before its key.
pub(crate) fn slices_of<'a>(scan: &Scan<'a>, key: &DecoratedKey) -> &'a [Slice] {
    match (scan.first_partition_slices, scan.target) {
        (Some(first), ReadTarget::Range(range)) if matches!(&range.start, ceto_model::RingPosition::BeforeKey(start) if start == key) => {
            first
        }
        _ => scan.slices,
    }
}
