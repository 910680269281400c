//! How far the replay of a shard's commitlog is: read by metrics, the readiness check and the log while it runs.

use std::cell::Cell;
use std::rc::Rc;

/// Figures of a replay, shared between the one that replays and those who look. Counts of the pass under way; a start
/// makes up to two (system tables first, then all others).
#[derive(Clone, Debug, Default)]
pub struct ReplayProgress(Rc<Figures>);

#[derive(Debug, Default)]
struct Figures {
    segments: Cell<u64>,
    segments_done: Cell<u64>,
    bytes: Cell<u64>,
    bytes_done: Cell<u64>,
    entries: Cell<u64>,
    is_running: Cell<bool>,
}

impl ReplayProgress {
    pub(super) fn begin(&self, segments: u64, bytes: u64) {
        self.0.segments.set(segments);
        self.0.bytes.set(bytes);
        self.0.segments_done.set(0);
        self.0.bytes_done.set(0);
        self.0.entries.set(0);
        self.0.is_running.set(true);
    }

    pub(super) fn add_entry(&self) {
        self.0.entries.set(self.0.entries.get() + 1);
    }

    pub(super) fn add_segment(&self, bytes: u64) {
        self.0.segments_done.set(self.0.segments_done.get() + 1);
        self.0.bytes_done.set(self.0.bytes_done.get() + bytes);
    }

    pub(super) fn end(&self) {
        self.0.is_running.set(false);
    }

    /// A replay runs.
    pub fn is_running(&self) -> bool {
        self.0.is_running.get()
    }

    /// Segments read, and segments in all.
    pub fn segments(&self) -> (u64, u64) {
        (self.0.segments_done.get(), self.0.segments.get())
    }

    /// Bytes of segments read, and of all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.0.bytes_done.get(), self.0.bytes.get())
    }

    /// Entries read.
    pub fn entries(&self) -> u64 {
        self.0.entries.get()
    }
}
