//! The core itself: operations in flight, their queues by partition, and which of them an event belongs to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceto_internode::{ExchangeId, FailureReason, HostId, Message, PaxosMessage, RequestId};
use ceto_model::{Consistency, Mutation, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};
use slab::Slab;

use super::acceptor::AcceptorState;
use super::action::{PartitionId, PaxosAction, PaxosActions};
use super::ballots::Ballots;
use super::replica::{Acceptor, AcceptorRule};
use super::round::{Around, Operation, Progress};
use crate::coordinator::RequestError;
use crate::coordinator::deadlines::Deadlines;
use crate::random::Random;
use crate::replication::ReplicaMap;

/// Timers handled in one call; the rest are due at once again.
const TIMERS_PER_CALL: usize = 256;

/// What bounds a core, and its pace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PaxosLimits {
    /// Operations begun here and not ended, those that linger among them.
    pub in_flight_max: usize,
    /// Operations that wait behind one partition's.
    pub queue_max: usize,
    /// Operations that are answered and wait for slow replicas to commit. Beyond it these get a hint at once.
    pub lingering_max: usize,
    /// Requests that wait for this node's acceptor.
    pub acceptor_max: usize,
    /// An attempt that has no proposal of its own under way is begun anew after this long without a quorum.
    pub retry_after: Duration,
    /// Longest wait after the first lost contest; it doubles with each up to `back_off_max`.
    pub back_off_min: Duration,
    /// Longest wait of all.
    pub back_off_max: Duration,
}

impl Default for PaxosLimits {
    fn default() -> Self {
        PaxosLimits {
            in_flight_max: 16_384,
            queue_max: 1_024,
            lingering_max: 4_096,
            acceptor_max: 16_384,
            retry_after: Duration::from_millis(500),
            back_off_min: Duration::from_millis(5),
            back_off_max: Duration::from_millis(100),
        }
    }
}

/// What an operation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PaxosKind {
    /// A conditional update, to be committed at this level.
    Cas(Consistency),
    /// A read at SERIAL or LOCAL_SERIAL.
    Read,
}

/// What holds for one operation as a whole.
#[derive(Clone, Copy, Debug)]
pub struct CasContext<'a> {
    /// Of the keyspace.
    pub replication: &'a Arc<ReplicaMap>,
    /// SERIAL or LOCAL_SERIAL.
    pub serial_consistency: Consistency,
    /// When the decision must have fallen.
    pub deadline: Instant,
    /// How long the commit may take after that.
    pub commit_timeout: Duration,
    /// How long acceptors keep a state. Older commits are not looked for: who forgot them has them by repair.
    pub state_ttl: Duration,
}

#[derive(Debug)]
struct Entry {
    serial: u32,
    partition: Arc<PartitionId>,
    /// The others of its partition wait for it.
    is_first: bool,
    has_replied: bool,
    operation: Box<Operation>,
}

/// One shard's proposer and acceptor. See the module.
#[derive(Debug)]
pub struct Paxos {
    local: HostId,
    shard: u16,
    down: FxHashSet<HostId>,
    limits: PaxosLimits,
    operations: Slab<Entry>,
    lingering: usize,
    /// Partitions that have an operation under way, and who waits for it.
    queues: FxHashMap<Arc<PartitionId>, VecDeque<RequestId>>,
    deadlines: Deadlines,
    next_serial: u32,
    random: Random,
    ballots: Ballots,
    acceptor: Acceptor,
    to_local: VecDeque<(ExchangeId, PaxosMessage)>,
    ready: VecDeque<RequestId>,
}

impl Paxos {
    /// The core of a shard of the node `local`. `seed` must differ from the last life's and from other shards'. `wall` is
    /// the wall clock at `now`.
    pub fn new(local: HostId, limits: PaxosLimits, seed: u64, now: Instant, wall: Timestamp) -> Paxos {
        let mut random = Random::salted(seed ^ local.0.as_u128() as u64, "paxos");
        Paxos {
            local,
            shard: 0,
            down: FxHashSet::default(),
            limits,
            operations: Slab::new(),
            lingering: 0,
            queues: FxHashMap::default(),
            deadlines: Deadlines::default(),
            next_serial: random.next() as u32,
            ballots: Ballots::new(now, wall, &mut random),
            random,
            acceptor: Acceptor::new(limits.acceptor_max),
            to_local: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// The same, of another shard than the first.
    pub fn of_shard(mut self, shard: u16) -> Paxos {
        self.shard = shard;
        self
    }

    /// Breaks this node's acceptor, for tests.
    pub fn set_acceptor_rule(&mut self, rule: AcceptorRule) {
        self.acceptor.set_rule(rule);
    }

    /// Tells the wall clock; ballots never go back with it.
    pub fn set_wall_clock(&mut self, now: Instant, wall: Timestamp) {
        self.ballots.set(now, wall);
    }

    /// Learns that a peer is there or not.
    pub fn set_alive(&mut self, peer: HostId, alive: bool) {
        if alive {
            self.down.remove(&peer);
        } else {
            self.down.insert(peer);
        }
    }

    /// Operations begun here and not ended.
    pub fn in_flight(&self) -> usize {
        self.operations.len()
    }

    /// Operations that wait behind another one of their partition.
    pub fn queued(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    /// Requests that this node's acceptor has not answered.
    pub fn acceptor_waiting(&self) -> usize {
        self.acceptor.waiting()
    }

    /// Begins an operation. The reply follows as an action, unless the error is returned at once.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] when too many operations are in flight or wait for this partition.
    pub fn begin(
        &mut self,
        now: Instant,
        context: CasContext<'_>,
        kind: PaxosKind,
        partition: PartitionId,
        out: &mut PaxosActions,
    ) -> Result<RequestId, RequestError> {
        let in_flight_max = self.limits.in_flight_max;
        if self.operations.len() >= in_flight_max {
            return Err(RequestError::Overloaded { in_flight_max });
        }
        let queue = self.queues.get_mut(&partition);
        if let Some(queue) = &queue
            && queue.len() >= self.limits.queue_max
        {
            let in_flight_max = self.limits.queue_max;
            return Err(RequestError::Overloaded { in_flight_max });
        }
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let slot = self.operations.vacant_entry();
        let request = RequestId {
            shard: self.shard,
            slot: slot.key() as u32,
            serial,
        };
        let is_first = queue.is_none();
        let partition = Arc::new(partition);
        slot.insert(Entry {
            serial,
            partition: partition.clone(),
            is_first,
            has_replied: false,
            operation: Box::new(Operation::new(&context, kind, partition.clone())),
        });
        self.deadlines.arm(context.deadline, request);
        match queue {
            Some(queue) => queue.push_back(request),
            None => {
                self.queues.insert(partition, VecDeque::new());
                self.ready.push_back(request);
            }
        }
        self.settle(now, out);
        Ok(request)
    }

    /// Takes a message from a peer.
    pub fn handle(
        &mut self,
        now: Instant,
        from: HostId,
        exchange: ExchangeId,
        body: PaxosMessage,
        out: &mut PaxosActions,
    ) {
        if body.is_request() {
            self.acceptor.request((from, exchange), body, out);
        } else {
            self.answer(now, from, exchange, body, out);
        }
        self.settle(now, out);
    }

    /// Learns that what was sent to a peer and is not answered will not be: the connection is gone.
    pub fn peer_lost(&mut self, now: Instant, peer: HostId, out: &mut PaxosActions) {
        let awaiting: Vec<RequestId> = self
            .operations
            .iter()
            .filter(|(_, entry)| entry.operation.awaits(peer))
            .map(|(slot, entry)| RequestId {
                shard: self.shard,
                slot: slot as u32,
                serial: entry.serial,
            })
            .collect();
        for request in awaiting {
            self.with(now, request, out, |operation, around| {
                operation.on_lost(peer, around)
            });
        }
        self.settle(now, out);
    }

    /// Takes the outcome of a [`PaxosAction::LoadState`].
    pub fn loaded(
        &mut self,
        now: Instant,
        partition: &Arc<PartitionId>,
        outcome: Result<AcceptorState, FailureReason>,
        out: &mut PaxosActions,
    ) {
        self.acceptor.loaded(partition, outcome, out);
        self.settle(now, out);
    }

    /// Takes the outcome of a [`PaxosAction::StoreState`].
    pub fn stored(
        &mut self,
        now: Instant,
        partition: &Arc<PartitionId>,
        outcome: Result<(), FailureReason>,
        out: &mut PaxosActions,
    ) {
        self.acceptor.stored(partition, outcome, out);
        self.settle(now, out);
    }

    /// Takes the outcome of a [`PaxosAction::Examine`]: the change, or None when the condition does not hold.
    ///
    /// # Panics
    /// When the change is of another partition.
    pub fn examined(
        &mut self,
        now: Instant,
        request: RequestId,
        outcome: Result<Option<Mutation>, RequestError>,
        out: &mut PaxosActions,
    ) {
        self.with(now, request, out, |operation, around| {
            operation.on_examined(outcome, around)
        });
        self.settle(now, out);
    }

    /// Handles timers that are due at `now`, a bounded number of them: call again while
    /// [`next_timeout`](Paxos::next_timeout) is not later than now.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut PaxosActions) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(request) = self.deadlines.pop_due(now) else {
                break;
            };
            self.with(now, request, out, Operation::on_timer);
        }
        self.settle(now, out);
    }

    /// When [`handle_timeout`](Paxos::handle_timeout) wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    fn answer(
        &mut self,
        now: Instant,
        from: HostId,
        exchange: ExchangeId,
        body: PaxosMessage,
        out: &mut PaxosActions,
    ) {
        self.with(now, exchange.request, out, |operation, around| {
            operation.on_answer(from, exchange.round, body, around)
        });
    }

    /// Lets what is between this node's own parts run until it rests.
    fn settle(&mut self, now: Instant, out: &mut PaxosActions) {
        loop {
            if let Some((exchange, body)) = self.to_local.pop_front() {
                self.acceptor.request((self.local, exchange), body, out);
            } else if let Some(((to, exchange), body)) = self.acceptor.take_answer() {
                if to == self.local {
                    self.answer(now, to, exchange, body, out);
                } else {
                    let message = Message::Paxos { exchange, body };
                    out.push(PaxosAction::Send { to, message });
                }
            } else if let Some(request) = self.ready.pop_front() {
                self.with(now, request, out, Operation::attempt);
            } else {
                return;
            }
        }
    }

    /// Lets the operation handle an event, if it is still in flight.
    fn with(
        &mut self,
        now: Instant,
        request: RequestId,
        out: &mut PaxosActions,
        event: impl FnOnce(&mut Operation, &mut Around<'_>) -> Progress,
    ) {
        let Some(entry) = self.operations.get_mut(request.slot as usize) else {
            return;
        };
        if entry.serial != request.serial {
            return;
        }
        let mut around = Around {
            now,
            request,
            local: self.local,
            down: &self.down,
            limits: &self.limits,
            ballots: &mut self.ballots,
            random: &mut self.random,
            deadlines: &mut self.deadlines,
            to_local: &mut self.to_local,
            out,
        };
        let lingered = entry.has_replied;
        let mut progress = event(&mut entry.operation, &mut around);
        if progress == Progress::Lingers && !lingered && self.lingering >= self.limits.lingering_max {
            entry.operation.stop_waiting(&mut around);
            progress = Progress::Ends;
        }
        match progress {
            Progress::Waits => {}
            Progress::Lingers => {
                self.lingering += usize::from(!lingered);
                entry.has_replied = true;
                if std::mem::take(&mut entry.is_first) {
                    let partition = entry.partition.clone();
                    self.let_next(&partition);
                }
            }
            Progress::Ends => {
                self.lingering -= usize::from(lingered);
                self.end(request);
            }
        }
    }

    fn end(&mut self, request: RequestId) {
        let entry = self.operations.remove(request.slot as usize);
        if entry.is_first {
            self.let_next(&entry.partition);
        } else if !entry.has_replied
            && let Some(queue) = self.queues.get_mut(&entry.partition)
        {
            queue.retain(|other| *other != request);
        }
        let operations = &self.operations;
        self.deadlines.clean(operations.len(), |request| {
            operations
                .get(request.slot as usize)
                .is_some_and(|entry| entry.serial == request.serial)
        });
    }

    /// The next operation of a partition may go.
    fn let_next(&mut self, partition: &Arc<PartitionId>) {
        let Some(next) = self.queues.get_mut(partition).and_then(VecDeque::pop_front) else {
            self.queues.remove(partition);
            return;
        };
        if let Some(entry) = self.operations.get_mut(next.slot as usize) {
            entry.is_first = true;
        }
        self.ready.push_back(next);
    }
}
