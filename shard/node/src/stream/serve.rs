//! The source: a shard reads pages of its own data for the nodes that ask, one after the other, no faster than
//! `stream_throughput_outbound` allows.
//!
//! Nothing is kept between two pages: each question says where to begin. So a receiver that dies leaves nothing behind.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_cluster::replication::Strategy;
use ceto_env::TaskQueue;
use ceto_internode::{ExchangeId, FailureReason, HostId, Message, StreamMessage, TokenPart};
use ceto_model::key::PartitionRange;
use ceto_model::read::{ColumnSelection, ReadCommand, ReadLimits, ReadTarget, ResumePoint};
use ceto_model::{Position, ReadResult, RingPosition, Slice, TableId, UnixSeconds};

use super::{PAGE_BYTES, PAGE_TIMEOUT, Page};
use crate::message::ReplicaFailure;
use crate::node::Node;

/// Questions of other nodes that may wait at one shard; one more is told to come again.
const FETCHES_WAITING_MAX: usize = 32;
/// Tombstones of one page, so that what is deleted is read in pieces too.
const PAGE_TOMBSTONES: u64 = 50_000;
/// A page is not made smaller than this, however slow the throttle.
const PAGE_BYTES_MIN: u64 = 4 << 10;

/// A question that waits.
pub(super) struct Fetch {
    from: HostId,
    exchange: ExchangeId,
    asked: Instant,
    table: TableId,
    part: TokenPart,
    begin: Option<ResumePoint>,
    bytes: u32,
}

/// What one shard is asked for.
#[derive(Default)]
pub(super) struct Source {
    waiting: std::cell::RefCell<VecDeque<Fetch>>,
    is_serving: Cell<bool>,
    /// The next page may be read then.
    due: Cell<Option<Instant>>,
}

impl Source {
    pub(super) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }
}

impl Node {
    /// Takes a message of a peer about streaming, of so many bytes.
    pub(crate) fn take_stream(
        self: &Rc<Self>,
        from: HostId,
        exchange: ExchangeId,
        message: StreamMessage,
        size: usize,
    ) {
        match message {
            StreamMessage::Fetch {
                table,
                part,
                from: begin,
                bytes,
            } => self.take_fetch(Fetch {
                from,
                exchange,
                asked: self.env.clock().now(),
                table,
                part,
                begin,
                bytes,
            }),
            StreamMessage::Page(content) => {
                let page = Page { content, size };
                self.streams.pages.answer(exchange, from, Ok(page));
            }
            StreamMessage::Failed { reason, text } => {
                let failure = ReplicaFailure::new(reason, text);
                self.streams.pages.answer(exchange, from, Err(failure));
            }
        }
    }

    fn take_fetch(self: &Rc<Self>, fetch: Fetch) {
        let source = &self.streams.source;
        if source.waiting() >= FETCHES_WAITING_MAX {
            let text = format!("{FETCHES_WAITING_MAX} pages to stream wait on the shard");
            let failure = ReplicaFailure::new(FailureReason::Overloaded, text);
            self.answer_fetch(&fetch, Err(failure));
            return;
        }
        source.waiting.borrow_mut().push_back(fetch);
        if source.is_serving.replace(true) {
            return;
        }
        let node = self.clone();
        let task = async move {
            loop {
                let next = node.streams.source.waiting.borrow_mut().pop_front();
                let Some(fetch) = next else { break };
                node.serve_fetch(fetch).await;
            }
            node.streams.source.is_serving.set(false);
        };
        self.env.tasks().spawn(TaskQueue::Streaming, Box::pin(task));
    }

    async fn serve_fetch(self: &Rc<Self>, fetch: Fetch) {
        let rate = self.stream_rate();
        if let Some(due) = self.streams.source.due.get().filter(|_| rate.is_some()) {
            let wait = due.saturating_duration_since(self.env.clock().now());
            if !wait.is_zero() {
                self.env.tasks().sleep(wait).await;
            }
        }
        // Who asked does not wait any more, and has asked again or given up.
        if self.env.clock().now().saturating_duration_since(fetch.asked) >= PAGE_TIMEOUT {
            return;
        }
        let page = self.read_page(&fetch, rate).await;
        let is_page = page.is_ok();
        let size = self.answer_fetch(&fetch, page);
        if is_page {
            self.streams.figures.pages_sent.increment();
            self.streams.figures.bytes_sent.add(size as u64);
        }
        if let Some(rate) = rate {
            let took = Duration::from_secs_f64(size as f64 / rate as f64);
            let now = self.env.clock().now();
            let due = self.streams.source.due.get().map_or(now, |due| due.max(now));
            self.streams.source.due.set(Some(due + took));
        }
    }

    /// Bytes per second that this shard may stream; None: no limit.
    fn stream_rate(&self) -> Option<u64> {
        let all = self.settings().stream_throughput;
        (all > 0).then(|| (all / u64::from(self.shard_count())).max(1))
    }

    /// The bytes of the answer.
    fn answer_fetch(self: &Rc<Self>, fetch: &Fetch, page: Result<ReadResult, ReplicaFailure>) -> usize {
        let body = match page {
            Ok(page) => StreamMessage::Page(page),
            Err(failure) => StreamMessage::Failed {
                reason: failure.reason,
                text: failure.message,
            },
        };
        let exchange = fetch.exchange;
        self.answer_peer(fetch.from, &Message::Stream { exchange, body })
    }

    /// Everything that this shard has there, up to the size of a page: what is deleted and what expires too.
    async fn read_page(&self, fetch: &Fetch, rate: Option<u64>) -> Result<ReadResult, ReplicaFailure> {
        if self.is_storage_draining() {
            let text = "the node is being stopped";
            return Err(ReplicaFailure::new(FailureReason::NodeDown, text));
        }
        self.check_streamed(fetch.table)?;
        let (start, first_partition_slices) = match &fetch.begin {
            None => (RingPosition::AfterToken(fetch.part.after), None),
            Some(ResumePoint::Ring(position)) => (position.clone(), None),
            Some(ResumePoint::Inside(key, start)) => {
                let rest = Slice {
                    start: start.clone(),
                    end: Position::after_all(),
                };
                (
                    RingPosition::BeforeKey(key.clone()),
                    Some([rest].into_iter().collect()),
                )
            }
        };
        let bytes = u64::from(fetch.bytes.min(PAGE_BYTES));
        // A page takes a second at most, or the receiver would take the source for dead.
        let bytes = rate.map_or(bytes, |rate| bytes.min(rate.max(PAGE_BYTES_MIN)));
        let command = ReadCommand {
            table: fetch.table,
            target: ReadTarget::Range(PartitionRange {
                start,
                end: RingPosition::AfterToken(fetch.part.up_to),
            }),
            slices: [Slice::full()].into_iter().collect(),
            first_partition_slices,
            reversed: false,
            columns: ColumnSelection::All,
            now: UnixSeconds(self.env.clock().unix_seconds()),
            limits: ReadLimits {
                bytes,
                tombstones: PAGE_TOMBSTONES,
                ..ReadLimits::NONE
            },
            keep_tombstones: true,
            bypass_cache: true,
            index: None,
        };
        let read = self.database()?.read(&command).await;
        read.map_err(|error| self.storage_failure(&error))
    }

    /// The table is one that has replicas.
    ///
    /// # Errors
    /// When it is not known, or each node has its own.
    pub(super) fn check_streamed(&self, table: TableId) -> Result<(), ReplicaFailure> {
        let schema = self.schema();
        let unknown = |text: String| ReplicaFailure::new(FailureReason::IncompatibleSchema, text);
        let Some(table) = schema.table_by_id(table) else {
            return Err(unknown(format!(
                "there is no table with id {}; was it dropped?",
                table.0
            )));
        };
        let map = self.replication(&table.keyspace);
        let is_own = map.is_none_or(|map| *map.strategy() == Strategy::Local);
        if table.is_virtual || is_own {
            let text = format!(
                "{}.{} is each node's own and not streamed",
                table.keyspace, table.name
            );
            return Err(unknown(text));
        }
        Ok(())
    }
}
