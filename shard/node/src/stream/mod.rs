//! Streaming: this node pulls what a peer has of parts of the ring, when it joins, replaces, rebuilds or takes over.
//!
//! The receiver asks, the source only answers: so a pull can be broken off, resumed and throttled without a word between
//! them. Each shard of the receiver asks its share of the source's shards over bulk links, page by page
//! ([`ceto_internode::stream`]), and applies what comes as writes with their own timestamps. Merging is idempotent, so a page
//! may come twice, and whatever is written meanwhile is merged with it.
//!
//! Never: a page acknowledged by going on that is not applied, a tombstone left out, more than one page ahead of what is
//! applied, a system table pulled.
//!
//! Read next: `pull` for the receiver, `serve` for the source.

mod figures;
mod pull;
mod serve;

use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ceto_internode::{FailureReason, HostId, TokenPart};
use ceto_model::{ReadResult, TableId};

use crate::message::ReplicaFailure;
use crate::node::Node;
use crate::questions::Questions;
use figures::StreamFigures;
use serve::Source;

/// Bytes of a page, about; a row that is larger is a page of its own.
const PAGE_BYTES: u32 = 1 << 20;
/// How long a page is waited for. The source drops what was asked longer ago.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What to pull.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The table.
    pub table: TableId,
    /// The source.
    pub from: HostId,
    /// Parts of the ring.
    pub parts: Vec<TokenPart>,
}

/// How far a pull is: it grows, and may be read from any thread.
#[derive(Debug, Default)]
pub struct PullProgress {
    bytes: AtomicU64,
    partitions: AtomicU64,
    rows: AtomicU64,
    parts_done: AtomicUsize,
    is_stopped: AtomicBool,
}

impl PullProgress {
    /// Bytes of pages that are applied.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Partitions in them.
    pub fn partitions(&self) -> u64 {
        self.partitions.load(Ordering::Relaxed)
    }

    /// Rows in them.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Parts of the ring that are here in full.
    pub fn parts_done(&self) -> usize {
        self.parts_done.load(Ordering::Relaxed)
    }

    /// Ends the pull before its next page: it fails, with the parts that are done.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }
}

/// What a pull has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PullSummary {
    /// Bytes of pages.
    pub bytes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Rows.
    pub rows: u64,
}

impl PullSummary {
    /// Adds what another has brought.
    pub fn add(&mut self, other: &PullSummary) {
        self.bytes += other.bytes;
        self.partitions += other.partitions;
        self.rows += other.rows;
    }
}

/// Why a pull ended early.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamError {
    /// What happened, and what to do.
    pub text: String,
    /// Parts that are here in full all the same: what is pulled again may leave them out.
    pub done: Vec<TokenPart>,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StreamError {}

/// A page that has come.
struct Page {
    content: ReadResult,
    /// Bytes of the message.
    size: usize,
}

/// What one shard streams, in both directions.
#[derive(Default)]
pub(crate) struct Streams {
    /// Pages that are asked for.
    pages: Rc<Questions<Result<Page, ReplicaFailure>>>,
    source: Source,
    figures: StreamFigures,
}

impl Node {
    /// Pages of this peer will not come.
    pub(crate) fn stream_lost(&self, peer: HostId) {
        let text = "the link to the node was lost";
        let lost = || Err(ReplicaFailure::new(FailureReason::Timeout, text));
        self.streams.pages.lost(peer, lost);
    }
}
