//! The pump: performs what the coordinator core asks for, and feeds outcomes and timeouts back.
//!
//! The core decides, the pump does. Work on this node's storage that needs no wait is done at once and its outcome fed
//! back in the same call, so a write with one local replica goes through core and storage without a task. The token
//! says which shard does the work; another shard is one mailbox hop away.
//!
//! Never: decides anything about consistency, and never holds a borrow of the core while it performs an action.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ceto_cluster::coordinator::{
    Action, Actions, Coordinator, ReadOptions, Reply, ReplyTo, RequestContext, RequestError,
};
use ceto_env::TaskQueue;
use ceto_internode::{AnswerKind, ExchangeId, FailureReason, HostId, Message, RequestId};
use ceto_model::read::ReadTarget;
use ceto_model::{Mutation, ReadCommand, ReadResult, Token, WriteType};

use crate::message::{ReplicaFailure, ShardMessage};
use crate::node::Node;
use crate::replica::BegunApply;
use crate::replies::{Outcome, Replies};

/// The coordinator core with the requests that wait for it.
pub struct Pump {
    coordinator: RefCell<Coordinator>,
    replies: Replies,
    /// When the timer task will next look at the core.
    timer: RefCell<Option<Instant>>,
}

/// A failed request with what the failing replica said, when that was this node.
#[derive(Debug)]
pub struct RequestFailure {
    /// The coordinator's verdict.
    pub error: RequestError,
    /// The cause, in words.
    pub cause: Option<String>,
}

/// A write that was started.
pub(crate) enum BegunWrite {
    /// Acknowledged, then.
    Done(Instant),
    /// Its outcome comes by [`Node::write_reply`].
    Waits(RequestId),
}

impl From<RequestError> for RequestFailure {
    fn from(error: RequestError) -> Self {
        RequestFailure { error, cause: None }
    }
}

impl Pump {
    /// Around a new core.
    pub fn new(coordinator: Coordinator) -> Pump {
        Pump {
            coordinator: RefCell::new(coordinator),
            replies: Replies::default(),
            timer: RefCell::default(),
        }
    }

    /// Refuses what too few replicas are alive for.
    pub(crate) fn check_alive(&self, context: &RequestContext<'_>, token: Token) -> Result<(), RequestError> {
        self.coordinator.borrow().check_alive(context, token)
    }

    /// Who leads a write of counters.
    pub(crate) fn counter_leader(
        &self,
        context: &RequestContext<'_>,
        token: Token,
    ) -> Result<HostId, RequestError> {
        self.coordinator.borrow().counter_leader(context, token)
    }

    /// Tells the core that a hint is kept.
    pub(crate) fn hint_stored(&self, now: Instant, request: RequestId, actions: &mut Actions) {
        self.coordinator.borrow_mut().hint_stored(now, request, actions);
    }

    /// Tells the core that a peer is there or not.
    pub(crate) fn set_alive(&self, peer: HostId, is_alive: bool) {
        self.coordinator.borrow_mut().set_alive(peer, is_alive);
    }

    /// Requests in flight at the core.
    pub fn in_flight(&self) -> usize {
        self.coordinator.borrow().in_flight()
    }
}

impl Node {
    /// Carries one mutation to its replicas. Where this node's replica is enough, the mutation is applied on the spot.
    pub(crate) fn begin_write(
        self: &Rc<Self>,
        context: RequestContext<'_>,
        write_type: WriteType,
        mutation: Mutation,
    ) -> Result<BegunWrite, RequestFailure> {
        let token = mutation.key.token;
        let suffices = || self.pump.coordinator.borrow().suffices_for_write(&context, token);
        if token.shard(self.shard_count()) == self.shard() && suffices() {
            return Ok(self.write_here(&context, write_type, mutation));
        }
        let mut actions = Actions::new();
        let begun =
            self.pump
                .coordinator
                .borrow_mut()
                .begin_write(context, write_type, mutation, &mut actions);
        let request = begun?;
        self.pump.replies.expect(request);
        self.perform(&mut actions);
        Ok(BegunWrite::Waits(request))
    }

    /// The outcome of a write that was begun.
    pub(crate) async fn write_reply(self: &Rc<Self>, request: RequestId) -> Result<(), RequestFailure> {
        let (reply, cause) = self.reply_to(request).await;
        match reply {
            Reply::Write(outcome) => outcome.map_err(|error| RequestFailure { error, cause }),
            Reply::Read(_) => unreachable!("a write got the reply of a read"),
        }
    }

    fn write_here(
        self: &Rc<Self>,
        context: &RequestContext<'_>,
        write_type: WriteType,
        mutation: Mutation,
    ) -> BegunWrite {
        let applied = self.begin_apply(mutation);
        if let Ok(BegunApply::Done(at)) = applied {
            return BegunWrite::Done(at);
        }
        let mut coordinator = self.pump.coordinator.borrow_mut();
        let reply_to = coordinator.await_write_here(context, write_type);
        drop(coordinator);
        let request = reply_to.exchange.request;
        self.pump.replies.expect(request);
        let mut actions = Actions::new();
        self.feed_begun(reply_to, applied, &mut actions);
        self.perform(&mut actions);
        BegunWrite::Waits(request)
    }

    /// Reads what this shard can answer alone and from memory; None: [`Self::read`] is needed.
    pub(crate) fn read_now(
        &self,
        context: &RequestContext<'_>,
        options: &ReadOptions,
        command: &ReadCommand,
    ) -> Option<ReadResult> {
        let coordinator = self.pump.coordinator.borrow();
        if !coordinator.suffices_for_read(context, options, &command.target) {
            return None;
        }
        self.try_read_here(command)?.ok()
    }

    /// Reads from as many replicas as the consistency level asks for.
    pub async fn read(
        self: &Rc<Self>,
        context: RequestContext<'_>,
        options: &ReadOptions,
        command: ReadCommand,
    ) -> Result<ReadResult, RequestFailure> {
        let mut actions = Actions::new();
        let now = self.env.clock().now();
        let begun =
            self.pump
                .coordinator
                .borrow_mut()
                .begin_read(now, context, *options, command, &mut actions);
        let request = begun?;
        self.pump.replies.expect(request);
        self.perform(&mut actions);
        let (reply, cause) = self.reply_to(request).await;
        match reply {
            Reply::Read(outcome) => outcome.map_err(|error| RequestFailure { error, cause }),
            Reply::Write(_) => unreachable!("a read got the reply of a write"),
        }
    }

    /// The timer is armed only for requests that really wait.
    async fn reply_to(self: &Rc<Self>, request: RequestId) -> Outcome {
        let mut reply = self.pump.replies.reply(request);
        let ready = Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(outcome) = ready {
            return outcome;
        }
        self.arm_timer();
        reply.await
    }

    /// Performs actions until none is left; outcomes that are known at once go straight back into the core.
    pub(crate) fn perform(self: &Rc<Self>, actions: &mut Actions) {
        while let Some(action) = actions.pop() {
            match action {
                Action::Apply { reply_to, mutation } => self.perform_apply(reply_to, mutation, actions),
                Action::Read {
                    reply_to,
                    kind,
                    command,
                } => self.perform_read(reply_to, kind, command, actions),
                Action::Reply { request, reply } => self.pump.replies.deliver(request, reply),
                Action::Send { to, message } => self.send_to_peer(to, message, actions),
                Action::StoreHint {
                    replica,
                    request,
                    mutation,
                } => self.store_hint(replica, Some(request), &mutation, actions),
            }
        }
    }

    /// Tells the core that a peer could not be asked.
    pub(crate) fn feed_failure(
        &self,
        peer: HostId,
        exchange: ExchangeId,
        reason: FailureReason,
        actions: &mut Actions,
    ) {
        let now = self.env.clock().now();
        let message = Message::Failure { exchange, reason };
        let mut coordinator = self.pump.coordinator.borrow_mut();
        coordinator.handle(now, peer, message, actions);
    }

    /// Takes a peer's request or answer.
    pub(crate) fn handle_peer_message(self: &Rc<Self>, from: HostId, message: Message) {
        let mut actions = Actions::new();
        let now = self.env.clock().now();
        self.pump
            .coordinator
            .borrow_mut()
            .handle(now, from, message, &mut actions);
        self.perform(&mut actions);
    }

    /// Answers of this peer that are awaited will not come.
    pub(crate) fn peer_lost(self: &Rc<Self>, peer: HostId) {
        let mut actions = Actions::new();
        let now = self.env.clock().now();
        let mut coordinator = self.pump.coordinator.borrow_mut();
        coordinator.peer_lost(now, peer, &mut actions);
        drop(coordinator);
        self.perform(&mut actions);
        self.calls_lost(peer);
        self.paxos_peer_lost(peer);
    }

    fn perform_apply(self: &Rc<Self>, reply_to: ReplyTo, mutation: Mutation, actions: &mut Actions) {
        let owner = mutation.key.token.shard(self.shard_count());
        if owner == self.shard() {
            let begun = self.begin_apply(mutation);
            return self.feed_begun(reply_to, begun, actions);
        }
        self.metrics.replica_hops.increment();
        let message = ShardMessage::Apply {
            from: self.shard(),
            reply_to,
            mutation: Box::new(mutation),
        };
        if self.mailbox.send(owner, message).is_err() {
            self.feed_applied(reply_to, Err(mailbox_full()), actions);
        }
    }

    /// Feeds the outcome of an apply here back, now or when it has it.
    fn feed_begun(
        self: &Rc<Self>,
        reply_to: ReplyTo,
        begun: Result<BegunApply, ReplicaFailure>,
        actions: &mut Actions,
    ) {
        match begun {
            Ok(BegunApply::Done(_)) => self.feed_applied(reply_to, Ok(()), actions),
            Ok(BegunApply::Waits(write)) => {
                let node = self.clone();
                let task = async move {
                    let outcome = node.finish_apply(write).await;
                    node.applied(reply_to, outcome);
                };
                self.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
            }
            Err(failure) => self.feed_applied(reply_to, Err(failure), actions),
        }
    }

    fn feed_applied(&self, reply_to: ReplyTo, outcome: Result<(), ReplicaFailure>, actions: &mut Actions) {
        if let Err(failure) = &outcome {
            self.pump
                .replies
                .note_failure(reply_to.exchange.request, &failure.message);
        }
        let now = self.env.clock().now();
        let outcome = outcome.map_err(|failure| failure.reason);
        self.pump
            .coordinator
            .borrow_mut()
            .applied(now, reply_to, outcome, actions);
    }

    /// The outcome of an apply that took its time.
    pub(crate) fn applied(self: &Rc<Self>, reply_to: ReplyTo, outcome: Result<(), ReplicaFailure>) {
        let mut actions = Actions::new();
        self.feed_applied(reply_to, outcome, &mut actions);
        self.perform(&mut actions);
    }

    fn perform_read(
        self: &Rc<Self>,
        reply_to: ReplyTo,
        kind: AnswerKind,
        command: ReadCommand,
        actions: &mut Actions,
    ) {
        if let Some(outcome) = self.try_read_here(&command) {
            return self.feed_read(reply_to, kind, outcome, actions);
        }
        let mut reading = Box::pin(self.clone().read_replica(command));
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => self.feed_read(reply_to, kind, outcome, actions),
            Poll::Pending => {
                let node = self.clone();
                let task = async move {
                    let outcome = reading.await;
                    let mut actions = Actions::new();
                    node.feed_read(reply_to, kind, outcome, &mut actions);
                    node.perform(&mut actions);
                };
                self.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
            }
        }
    }

    fn feed_read(
        &self,
        reply_to: ReplyTo,
        kind: AnswerKind,
        outcome: Result<ReadResult, ReplicaFailure>,
        actions: &mut Actions,
    ) {
        if let Err(failure) = &outcome {
            self.pump
                .replies
                .note_failure(reply_to.exchange.request, &failure.message);
        }
        let now = self.env.clock().now();
        let outcome = outcome.map_err(|failure| failure.reason);
        self.pump
            .coordinator
            .borrow_mut()
            .read_done(now, reply_to, kind, outcome, actions);
    }

    /// Reads this node's data: of one partition on the shard that owns it, of a range on all shards.
    async fn read_replica(self: Rc<Self>, command: ReadCommand) -> Result<ReadResult, ReplicaFailure> {
        let owner = match &command.target {
            ReadTarget::Partition(key) => key.token.shard(self.shard_count()),
            ReadTarget::Range(_) if self.shard_count() == 1 => self.shard(),
            ReadTarget::Range(_) => return self.read_all_shards(command).await,
        };
        self.read_on(owner, command).await
    }

    /// Reads the part of `shard`.
    pub(crate) async fn read_on(
        self: &Rc<Self>,
        shard: u16,
        command: ReadCommand,
    ) -> Result<ReadResult, ReplicaFailure> {
        if shard == self.shard() {
            return self.read_here(&command).await;
        }
        self.ask_to_read(shard, command).await.map(|result| *result)
    }

    /// Asks another shard to read; the question is on its way when this returns.
    pub(crate) fn ask_to_read(
        &self,
        shard: u16,
        command: ReadCommand,
    ) -> impl Future<Output = Result<Box<ReadResult>, ReplicaFailure>> + use<> {
        self.metrics.replica_hops.increment();
        let (slot, answer) = self.reads.open();
        let message = ShardMessage::Read {
            from: self.shard(),
            slot,
            command: Box::new(command),
        };
        if self.mailbox.send(shard, message).is_err() {
            self.reads.answer(slot, Err(mailbox_full()));
        }
        answer
    }

    /// Starts the task that calls the core when its next deadline comes, unless one will look early enough.
    fn arm_timer(self: &Rc<Self>) {
        let Some(next) = self.pump.coordinator.borrow().next_timeout() else {
            return;
        };
        if self.pump.timer.borrow().is_some_and(|armed| armed <= next) {
            return;
        }
        *self.pump.timer.borrow_mut() = Some(next);
        let node = self.clone();
        self.env.tasks().spawn(
            TaskQueue::Statement,
            Box::pin(async move { node.wait_for_timeouts(next).await }),
        );
    }

    async fn wait_for_timeouts(self: Rc<Self>, at: Instant) {
        let now = self.env.clock().now();
        self.env.tasks().sleep(at.saturating_duration_since(now)).await;
        if *self.pump.timer.borrow() != Some(at) {
            return; // an earlier timer has taken over
        }
        *self.pump.timer.borrow_mut() = None;
        let mut actions = Actions::new();
        let now = self.env.clock().now();
        self.pump
            .coordinator
            .borrow_mut()
            .handle_timeout(now, &mut actions);
        self.perform(&mut actions);
        self.arm_timer();
    }
}

fn mailbox_full() -> ReplicaFailure {
    ReplicaFailure::new(
        FailureReason::Overloaded,
        "the mailbox to the owning shard is full",
    )
}
