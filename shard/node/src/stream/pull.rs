//! The receiver: each shard asks its share of the source's shards for all parts, and has pages applied where they belong.
//!
//! ```text
//!   lane: one shard here, one shard there, part after part
//!     ask for a page -> it is here -> ask for the next one, and meanwhile apply this one -> ...
//! ```
//!
//! With the same number of shards at both ends a lane's pages belong to its own shard. What fails for a while (a lost link, a
//! source that is busy, a commitlog that is full) is tried again from the page's beginning, a bounded number of times.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ceto_env::{LocalFuture, TaskQueue};
use ceto_internode::{FailureReason, Message, StreamMessage, TokenPart};
use ceto_model::read::{PartitionResult, ResumePoint};
use ceto_model::{Mutation, TableId};

use super::{PAGE_BYTES, PAGE_TIMEOUT, Page, Pull, PullProgress, PullSummary, StreamError};
use crate::message::ReplicaFailure;
use crate::node::Node;
use crate::race::{both, first};
use crate::replica::{BegunApply, Rest};
use crate::slots::Slots;
use crate::views::split;

/// Tries of one page before a pull is given up.
const TRIES_MAX: u32 = 16;
/// Pause before the next try: at first and at most. All together almost two minutes: a source may be started anew meanwhile.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Writes of one page that may wait for room or for a sync.
const WRITES_WAITING_MAX: usize = 128;

/// A pull that runs, as its shards see it.
struct Running {
    pull: Pull,
    /// Shards of the source.
    source_shards: u16,
    /// Of each part: the source's shards of which it is not here yet.
    lanes_left: Vec<AtomicUsize>,
    /// A lane has failed: the others need not go on.
    is_broken: AtomicBool,
    progress: Arc<PullProgress>,
}

impl Running {
    fn part_done(&self, at: usize) {
        if self.lanes_left[at].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.progress.parts_done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn done(&self) -> Vec<TokenPart> {
        let parts = self.pull.parts.iter().zip(&self.lanes_left);
        let done = parts.filter(|(_, left)| left.load(Ordering::Acquire) == 0);
        done.map(|(part, _)| *part).collect()
    }
}

/// Where a lane is.
struct Lane<'a> {
    running: &'a Running,
    /// The shard there.
    source: u16,
    part: TokenPart,
}

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
        let refused = |text: String| StreamError {
            text,
            done: Vec::new(),
        };
        self.check_streamed(pull.table)
            .map_err(|failure| refused(failure.message))?;
        let topology = self.topology();
        let peer = topology.peer(pull.from);
        let peer = peer.ok_or_else(|| refused(format!("{} is no node of the cluster", pull.from)))?;
        let source_shards = peer.shard_count.max(1);
        let table = pull.table;
        let running = Arc::new(Running {
            source_shards,
            lanes_left: (0..pull.parts.len())
                .map(|_| AtomicUsize::new(usize::from(source_shards)))
                .collect(),
            is_broken: AtomicBool::new(false),
            pull,
            progress,
        });
        let shared = running.clone();
        let outcomes = self
            .on_all_shards(move |node| {
                let (running, own) = (shared.clone(), node.clone());
                let lanes = async move { own.pull_lanes(&running).await };
                node.in_queue(TaskQueue::Streaming, lanes)
            })
            .await;
        // Pages are in commitlogs, if their keyspace has one; what is called done is to outlive a power loss.
        let flushed = self
            .on_all_shards(move |node| Box::pin(async move { node.flush(table).await }))
            .await;
        let unwritten = flushed.into_iter().find_map(Result::err);
        let mut summary = PullSummary::default();
        let mut failed = None;
        for outcome in outcomes {
            match outcome {
                Ok(part) => summary.add(&part),
                Err(text) => failed = failed.or(Some(text)),
            }
        }
        match (failed, unwritten) {
            (None, None) => Ok(summary),
            (Some(text), None) => Err(StreamError {
                text,
                done: running.done(),
            }),
            (Some(text), Some(_)) => Err(refused(text)),
            (None, Some(text)) => Err(refused(format!(
                "what was streamed cannot be written to disk: {text}"
            ))),
        }
    }

    /// Runs work in a queue of this shard.
    fn in_queue<T: 'static>(
        &self,
        queue: TaskQueue,
        work: impl Future<Output = T> + 'static,
    ) -> LocalFuture<'static, T> {
        let slots = Slots::default();
        let (slot, outcome) = slots.open();
        let task = async move {
            slots.answer(slot, work.await);
        };
        self.env.tasks().spawn(queue, Box::pin(task));
        Box::pin(outcome)
    }

    /// All lanes of this shard, one after the other.
    async fn pull_lanes(self: &Rc<Self>, running: &Running) -> Result<PullSummary, String> {
        let figures = &self.streams.figures;
        figures.pulls.set(figures.pulls.get() + 1);
        let mut summary = PullSummary::default();
        let mut outcome = Ok(());
        'parts: for (at, part) in running.pull.parts.iter().enumerate() {
            let own = |source: &u16| source % self.shard_count() == self.shard();
            for source in (0..running.source_shards).filter(own) {
                let lane = Lane {
                    running,
                    source,
                    part: *part,
                };
                outcome = self.pull_part(&lane, &mut summary).await;
                if outcome.is_err() {
                    running.is_broken.store(true, Ordering::Release);
                    break 'parts;
                }
                running.part_done(at);
            }
        }
        figures.pulls.set(figures.pulls.get() - 1);
        outcome
            .map(|()| summary)
            .map_err(|failure| self.explain(running, &failure))
    }

    /// For people.
    fn explain(&self, running: &Running, failure: &ReplicaFailure) -> String {
        let schema = self.schema();
        let table = match schema.table_by_id(running.pull.table) {
            Some(table) => format!("{}.{}", table.keyspace, table.name),
            None => "a table that was dropped".to_owned(),
        };
        let from = match self.topology().peer(running.pull.from) {
            Some(peer) => peer.internode.ip().to_string(),
            None => running.pull.from.to_string(),
        };
        format!("streaming {table} from {from} has failed: {failure}")
    }

    /// What one shard of the source has of one part.
    async fn pull_part(
        self: &Rc<Self>,
        lane: &Lane<'_>,
        summary: &mut PullSummary,
    ) -> Result<(), ReplicaFailure> {
        let mut begin: Option<ResumePoint> = None;
        let mut page = self.fetch(lane, None).await?;
        let (mut tries, mut pause) = (1, FIRST_PAUSE);
        loop {
            let resume = page.content.resume.take();
            if resume.is_some() && resume == begin {
                let text = "the source does not get on: it answers the place that it was asked to begin at";
                return Err(ReplicaFailure::new(FailureReason::Unknown, text));
            }
            let brought = page.brought(begin.as_ref());
            let partitions = page.content.partitions;
            let applied = async {
                self.apply_page(lane.running.pull.table, partitions).await?;
                self.note_page(lane.running, &brought);
                Ok(())
            };
            let (applied, next) = match &resume {
                None => (applied.await, None),
                Some(_) => {
                    let (applied, next) = both(applied, self.fetch(lane, resume.clone())).await;
                    (applied, Some(next))
                }
            };
            match applied {
                Ok(()) => {
                    summary.add(&brought);
                    (tries, pause) = (1, FIRST_PAUSE);
                }
                Err(failure) if may_pass(&failure) && tries < TRIES_MAX => {
                    self.streams.figures.retries.increment();
                    self.env.tasks().sleep(pause).await;
                    (tries, pause) = (tries + 1, (pause * 2).min(LONGEST_PAUSE));
                    page = self.fetch(lane, begin.clone()).await?;
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            match next {
                None => return Ok(()),
                Some(next) => page = next?,
            }
            begin = resume;
        }
    }

    fn note_page(&self, running: &Running, page: &PullSummary) {
        let (figures, progress) = (&self.streams.figures, &running.progress);
        figures.pages_received.increment();
        figures.bytes_received.add(page.bytes);
        figures.rows_received.add(page.rows);
        progress.bytes.fetch_add(page.bytes, Ordering::Relaxed);
        progress.partitions.fetch_add(page.partitions, Ordering::Relaxed);
        progress.rows.fetch_add(page.rows, Ordering::Relaxed);
    }

    /// A page, after as many tries as it takes and may take.
    async fn fetch(
        self: &Rc<Self>,
        lane: &Lane<'_>,
        begin: Option<ResumePoint>,
    ) -> Result<Page, ReplicaFailure> {
        let (mut tries, mut pause) = (1, FIRST_PAUSE);
        loop {
            match self.ask_for_page(lane, begin.clone()).await {
                Err(failure) if may_pass(&failure) && tries < TRIES_MAX => {
                    self.streams.figures.retries.increment();
                    self.env.tasks().sleep(pause).await;
                    (tries, pause) = (tries + 1, (pause * 2).min(LONGEST_PAUSE));
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask_for_page(
        self: &Rc<Self>,
        lane: &Lane<'_>,
        begin: Option<ResumePoint>,
    ) -> Result<Page, ReplicaFailure> {
        let running = lane.running;
        self.check_goes_on(running)?;
        let (to, shard) = (running.pull.from, self.shard());
        let (question, answer) = self.streams.pages.open(to, shard, || self.env.random());
        let message = Message::Stream {
            exchange: question.exchange(),
            body: StreamMessage::Fetch {
                table: running.pull.table,
                part: lane.part,
                from: begin,
                bytes: PAGE_BYTES,
            },
        };
        self.ask_shard(to, lane.source, &message)
            .map_err(|error| ReplicaFailure::new(error.reason(), error.to_string()))?;
        let outcome = first(answer, self.env.tasks().sleep(PAGE_TIMEOUT)).await;
        drop(question);
        let late = || ReplicaFailure::new(FailureReason::Timeout, "the node does not answer");
        outcome.unwrap_or_else(|| Err(late()))
    }

    /// # Errors
    /// When the pull was stopped, or cannot succeed any more.
    fn check_goes_on(&self, running: &Running) -> Result<(), ReplicaFailure> {
        let ended = |text: &str| Err(ReplicaFailure::new(FailureReason::Unknown, text));
        if running.progress.is_stopped.load(Ordering::Acquire) {
            return ended("it was stopped");
        }
        if running.is_broken.load(Ordering::Acquire) {
            return ended("another shard has failed");
        }
        match self.topology.borrow().peer(running.pull.from) {
            None => ended("the node has left the cluster; stream from another replica"),
            Some(peer) if peer.shard_count.max(1) != running.source_shards => {
                ended("the node has another number of shards since it was restarted; stream again")
            }
            Some(_) => Ok(()),
        }
    }

    /// Applies a page on the shards that its partitions belong to. Only here, and only to the table: views are tables in their
    /// own right, and streamed as such.
    async fn apply_page(
        self: &Rc<Self>,
        table: TableId,
        partitions: Vec<PartitionResult>,
    ) -> Result<(), ReplicaFailure> {
        // Several writes may have made more of a row than one write may be.
        let max = self.mutation_max() / 2;
        let mut by_shard = vec![Vec::new(); usize::from(self.shard_count())];
        for PartitionResult { key, partition } in partitions {
            let owner = usize::from(key.token.shard(self.shard_count()));
            let mutation = Mutation {
                table,
                key,
                partition,
            };
            by_shard[owner].extend(split(mutation, max));
        }
        let own = std::mem::take(&mut by_shard[usize::from(self.shard())]);
        let others = (0..).zip(by_shard).filter(|(_, mutations)| !mutations.is_empty());
        let asked: Vec<_> = others
            .map(|(shard, mutations)| {
                self.ask(shard, move |node| {
                    node.in_queue(TaskQueue::Streaming, node.clone().apply_streamed(mutations))
                })
            })
            .collect();
        let mut outcome = self.clone().apply_streamed(own).await;
        for answer in asked {
            outcome = answer.await.and(outcome);
        }
        outcome
    }

    /// Applies mutations that this shard owns, and waits until they may be acknowledged.
    async fn apply_streamed(self: Rc<Self>, mutations: Vec<Mutation>) -> Result<(), ReplicaFailure> {
        let mut waiting: Vec<Rest> = Vec::new();
        for mutation in mutations {
            if let BegunApply::Waits(write) = self.begin_plain_apply(mutation)? {
                waiting.push(write);
            }
            if waiting.len() >= WRITES_WAITING_MAX {
                for write in waiting.drain(..) {
                    self.finish_apply(write).await?;
                }
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        for write in waiting {
            self.finish_apply(write).await?;
        }
        Ok(())
    }
}

impl Page {
    /// What it brings, when it was asked for from there on: a partition that goes on counts where it has begun.
    fn brought(&self, begin: Option<&ResumePoint>) -> PullSummary {
        let partitions = &self.content.partitions;
        let goes_on = match (begin, partitions.first()) {
            (Some(ResumePoint::Inside(key, _)), Some(first)) => first.key == *key,
            _ => false,
        };
        let rows = partitions.iter().map(|part| part.partition.rows.len() as u64);
        PullSummary {
            bytes: self.size as u64,
            partitions: partitions.len() as u64 - u64::from(goes_on),
            rows: rows.sum(),
        }
    }
}

/// It may be different a little later.
fn may_pass(failure: &ReplicaFailure) -> bool {
    matches!(
        failure.reason,
        FailureReason::Timeout | FailureReason::Overloaded | FailureReason::NodeDown
    )
}
