//! Streaming: this node pulls what a peer has of parts of the ring, when it joins, replaces, rebuilds or takes over.
//!
//! The receiver asks, the source only answers: so a pull can be broken off, resumed and throttled without a word between
//! them. Each shard of the receiver asks its share of the source's shards over bulk links, page by page
//! (`ceto_internode::stream`), and applies what comes as writes with their own timestamps. Merging is idempotent, so a page
//! may come twice, and whatever is written meanwhile is merged with it.
//!
//! Never: a page acknowledged by going on that is not applied, a tombstone left out, more than one page ahead of what is
//! applied, a system table pulled.
//!
//! Read next: `ceto_internode::repair` for parts of the ring.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ceto_internode::{HostId, TokenPart};
use ceto_model::TableId;

use crate::node::Node;

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

impl Node {
    /// Brings what a peer has of a table's parts to this node, whichever of its shards it belongs to. On any shard. What is
    /// done is on this node's disk.
    ///
    /// # Errors
    /// After bounded tries, with the parts that are done.
    pub async fn pull(
        self: &Rc<Self>,
        pull: Pull,
        progress: Arc<PullProgress>,
    ) -> Result<PullSummary, StreamError> {
        let _ = progress;
        Err(StreamError {
            text: format!("cannot stream from {} yet", pull.from),
            done: Vec::new(),
        })
    }
}
