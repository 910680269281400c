//! The commitlog: every acknowledged write that is not in an sstable yet.
//!
//! One log per shard, made of preallocated segments. Invariants:
//! - An append is a copy into a mapped file: it never waits, never allocates, and the kernel has the bytes when it
//!   returns. Without room it says so and changes nothing.
//! - Positions grow: a later append, in this life of the process or a later one, has a greater [`ReplayPosition`].
//! - Segments are released strictly oldest first. So what is replayed is always a suffix of what was written, and a
//!   deletion is never lost while a write that it deleted comes back.
//! - A segment is released only when it is synced, so that one found after a power loss is as whole as later ones say.
//! - A released segment's entries never pass for entries of its next life (see `format`).
//! - The first segment after a start is small, so that a start need not prewrite a large one; the next is made when the
//!   active one is half full.
//!
//! Read next: `format` for the bytes, `writer` for appends, `segments` for their life cycle, `sync` for durability,
//! `replay` for the way back.

mod format;
mod progress;
mod replay;
mod segments;
mod sync;
mod writer;

pub use progress::ReplayProgress;
pub(crate) use replay::{Replayed, SegmentFile, SegmentFiles, replay, report_damage};
pub use segments::CommitlogStats;
pub(crate) use writer::{Appended, Commitlog};

/// A place in a shard's commitlog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReplayPosition {
    /// Identity of the segment; later segments have greater ones.
    pub segment: u64,
    /// Byte offset in it.
    pub offset: u32,
}
