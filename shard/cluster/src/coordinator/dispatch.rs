//! The core itself: requests in flight, and which of them an event belongs to.

use std::sync::Arc;
use std::time::Instant;

use ceto_internode::{AnswerKind, Digest, ExchangeId, FailureReason, HostId, Message, ReadAnswer, RequestId};
use ceto_model::{Consistency, ReadResult, Token};
use rustc_hash::FxHashSet;
use slab::Slab;

use super::action::{Action, Actions, Reply, ReplyTo};
use super::deadlines::Deadlines;
use super::error::RequestError;
use super::local::Local;
use super::read::SingleRead;
use super::round::ManyRead;
use super::tally::{Chosen, Tally};
use super::write::Write;
use crate::random::Random;
use crate::replication::{Replica, ReplicaMap};

/// Timers handled in one call; the rest are due at once again.
const TIMERS_PER_CALL: usize = 256;

/// What bounds a coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Requests whose client waits, plus writes that linger.
    pub in_flight_max: usize,
    /// Writes that have been answered but still wait for slow replicas. Beyond it a slow replica gets a hint at once.
    pub lingering_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            in_flight_max: 65_536,
            lingering_max: 16_384,
        }
    }
}

/// What holds for one request as a whole.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// Of the request's keyspace.
    pub replication: &'a Arc<ReplicaMap>,
    /// How many replicas must answer.
    pub consistency: Consistency,
    /// When the client gets a timeout instead of an answer.
    pub deadline: Instant,
}

/// One shard's coordinator. See the module.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) local: HostId,
    shard: u16,
    pub(super) down: FxHashSet<HostId>,
    limits: Limits,
    requests: Slab<Entry>,
    lingering: usize,
    deadlines: Deadlines,
    next_serial: u32,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    serial: u32,
    state: InFlight,
}

#[derive(Debug)]
pub(super) enum InFlight {
    Local(Local),
    Write(Box<Write>),
    SingleRead(Box<SingleRead>),
    ManyRead(Box<ManyRead>),
}

impl InFlight {
    /// It waits for an answer of `peer`.
    fn awaits(&self, peer: HostId) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Write(write) => write.awaits(peer),
            Self::SingleRead(read) => read.awaits(peer),
            Self::ManyRead(read) => read.awaits(peer),
        }
    }
}

/// Whether a request goes on after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It waits for more.
    Waits,
    /// The client has its answer; the write waits for slow replicas.
    Lingers,
    /// Nothing is left to do.
    Ends,
}

/// What a request in flight sees of the core while it handles an event.
pub(super) struct Surroundings<'a> {
    pub(super) now: Instant,
    pub(super) request: RequestId,
    pub(super) local: HostId,
    pub(super) down: &'a FxHashSet<HostId>,
    pub(super) deadlines: &'a mut Deadlines,
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) out: &'a mut Actions,
}

impl Surroundings<'_> {
    pub(super) fn reply_to(&self, round: u32) -> ReplyTo {
        ReplyTo {
            coordinator: self.local,
            exchange: ExchangeId {
                request: self.request,
                round,
            },
        }
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        let request = self.request;
        self.out.push(Action::Reply { request, reply });
    }

    pub(super) fn is_alive(&self, replica: &Replica) -> bool {
        is_alive(self.local, self.down, replica)
    }
}

fn is_alive(local: HostId, down: &FxHashSet<HostId>, replica: &Replica) -> bool {
    replica.host == local || down.is_empty() || !down.contains(&replica.host)
}

impl Coordinator {
    /// The coordinator of a shard of the node `local`. `seed` must differ from the last life's, so that answers to
    /// requests of that life are not taken for answers to this one's.
    pub fn new(local: HostId, limits: Limits, seed: u64) -> Coordinator {
        Coordinator {
            local,
            shard: 0,
            down: FxHashSet::default(),
            limits,
            requests: Slab::new(),
            lingering: 0,
            deadlines: Deadlines::default(),
            next_serial: Random::new(seed).next() as u32,
            scratch: Vec::new(),
        }
    }

    /// The same, of another shard than the first.
    pub fn of_shard(mut self, shard: u16) -> Coordinator {
        self.shard = shard;
        self
    }

    /// Learns that a peer is there or not. Requests in flight are not affected: their deadlines stand.
    pub fn set_alive(&mut self, peer: HostId, alive: bool) {
        if alive {
            self.down.remove(&peer);
        } else {
            self.down.insert(peer);
        }
    }

    /// Requests in flight, lingering writes among them.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Writes that have been answered and wait for slow replicas.
    pub fn lingering(&self) -> usize {
        self.lingering
    }

    /// The replicas of `replicas` that are alive.
    pub(super) fn alive<'a>(&self, replicas: &'a [Replica]) -> impl Iterator<Item = &'a Replica> {
        replicas
            .iter()
            .filter(|replica| is_alive(self.local, &self.down, replica))
    }

    /// Refuses a request that cannot succeed because too few replicas are alive; what begins later is refused by itself.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`].
    pub fn check_alive(&self, context: &RequestContext<'_>, token: Token) -> Result<(), RequestError> {
        let RequestContext {
            replication,
            consistency,
            ..
        } = *context;
        let replicas = replication.replicas(token);
        // A hint will do, but there must be somebody to hint.
        if consistency == Consistency::Any && !replicas.written().is_empty() {
            return Ok(());
        }
        let alive: Chosen = self.alive(replicas.written()).copied().collect();
        match Tally::for_write(replication, consistency, replicas.pending()).shortage(&alive) {
            None => Ok(()),
            Some((required, alive)) => Err(RequestError::Unavailable {
                consistency,
                required,
                alive,
            }),
        }
    }

    /// The replica that leads a write of counters, and none when so few replicas are alive that it cannot succeed: this
    /// node where it is one, so that nothing travels, else the nearest one.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`].
    pub fn counter_leader(&self, context: &RequestContext<'_>, token: Token) -> Result<HostId, RequestError> {
        let RequestContext {
            replication,
            consistency,
            ..
        } = *context;
        let alive: Chosen = self
            .alive(replication.replicas(token).nearest())
            .copied()
            .collect();
        let tally = Tally::new(replication, consistency);
        let (required, alive) = match (tally.shortage(&alive), alive.first()) {
            (None, Some(leader)) => return Ok(leader.host),
            (None, None) => (tally.required(), 0),
            (Some(shortage), _) => shortage,
        };
        Err(RequestError::Unavailable {
            consistency,
            required,
            alive,
        })
    }

    /// Takes a message from a peer.
    pub fn handle(&mut self, now: Instant, from: HostId, message: Message, out: &mut Actions) {
        let reply_to = ReplyTo {
            coordinator: from,
            exchange: message.exchange(),
        };
        match message {
            Message::Mutate { mutation, .. } => out.push(Action::Apply {
                reply_to,
                mutation: Arc::unwrap_or_clone(mutation),
            }),
            Message::Read { kind, command, .. } => out.push(Action::Read {
                reply_to,
                kind,
                command: Arc::unwrap_or_clone(command),
            }),
            Message::MutateAck { exchange } => self.on_ack(now, from, exchange, Ok(()), out),
            Message::ReadResponse { exchange, answer } => {
                self.on_answer(now, from, exchange, Ok(answer), out);
            }
            Message::Failure { exchange, reason } => self.on_failure(now, from, exchange, reason, out),
            // The other cores'.
            Message::Paxos { .. } | Message::Repair { .. } | Message::Stream { .. } => {}
            // The node's.
            Message::Call { .. } | Message::Called { .. } => {}
        }
    }

    /// Takes the outcome of an [`Action::Apply`].
    pub fn applied(
        &mut self,
        now: Instant,
        reply_to: ReplyTo,
        outcome: Result<(), FailureReason>,
        out: &mut Actions,
    ) {
        let ReplyTo {
            coordinator,
            exchange,
        } = reply_to;
        if coordinator == self.local {
            return self.on_ack(now, coordinator, exchange, outcome, out);
        }
        let message = match outcome {
            Ok(()) => Message::MutateAck { exchange },
            Err(reason) => Message::Failure { exchange, reason },
        };
        out.push(Action::Send {
            to: coordinator,
            message,
        });
    }

    /// Takes the outcome of an [`Action::Read`]; `kind` is the action's.
    pub fn read_done(
        &mut self,
        now: Instant,
        reply_to: ReplyTo,
        kind: AnswerKind,
        outcome: Result<ReadResult, FailureReason>,
        out: &mut Actions,
    ) {
        let ReplyTo {
            coordinator,
            exchange,
        } = reply_to;
        let outcome = outcome.map(|result| match kind {
            AnswerKind::Data => ReadAnswer::Data(result),
            AnswerKind::Digest => ReadAnswer::Digest(Digest::of(&result, &mut self.scratch)),
        });
        if coordinator == self.local {
            return self.on_answer(now, coordinator, exchange, outcome, out);
        }
        let message = match outcome {
            Ok(answer) => Message::ReadResponse { exchange, answer },
            Err(reason) => Message::Failure { exchange, reason },
        };
        out.push(Action::Send {
            to: coordinator,
            message,
        });
    }

    /// Learns that the hint of an [`Action::StoreHint`] is kept. Matters to consistency ANY only.
    pub fn hint_stored(&mut self, now: Instant, request: RequestId, out: &mut Actions) {
        self.with(now, request, out, |state, around| match state {
            InFlight::Write(write) => write.on_hint_stored(around),
            InFlight::Local(_) | InFlight::SingleRead(_) | InFlight::ManyRead(_) => Progress::Waits,
        });
    }

    fn on_ack(
        &mut self,
        now: Instant,
        from: HostId,
        exchange: ExchangeId,
        outcome: Result<(), FailureReason>,
        out: &mut Actions,
    ) {
        self.with(now, exchange.request, out, |state, around| match state {
            InFlight::Local(request) if from == around.local => request.on_applied(outcome, around),
            InFlight::Write(write) => write.on_ack(from, outcome, around),
            InFlight::ManyRead(read) => read.on_repaired(from, exchange.round, outcome, around),
            InFlight::Local(_) | InFlight::SingleRead(_) => Progress::Waits,
        });
    }

    fn on_answer(
        &mut self,
        now: Instant,
        from: HostId,
        exchange: ExchangeId,
        outcome: Result<ReadAnswer, FailureReason>,
        out: &mut Actions,
    ) {
        self.with(now, exchange.request, out, |state, around| match state {
            InFlight::Local(request) if from == around.local => request.on_answer(outcome, around),
            InFlight::SingleRead(read) => read.on_answer(from, exchange.round, outcome, around),
            InFlight::ManyRead(read) => read.on_answer(from, exchange.round, outcome, around),
            InFlight::Local(_) | InFlight::Write(_) => Progress::Waits,
        });
    }

    fn on_failure(
        &mut self,
        now: Instant,
        from: HostId,
        exchange: ExchangeId,
        reason: FailureReason,
        out: &mut Actions,
    ) {
        self.with(now, exchange.request, out, |state, around| match state {
            InFlight::Write(write) => write.on_ack(from, Err(reason), around),
            InFlight::SingleRead(read) => read.on_answer(from, exchange.round, Err(reason), around),
            InFlight::ManyRead(read) => read.on_failure(from, exchange.round, reason, around),
            // A peer has no part in it.
            InFlight::Local(_) => Progress::Waits,
        });
    }

    /// Learns that what was sent to a peer and is not answered will not be: the connection is gone. The requests concerned
    /// go on with the replicas that are left, or fail as they would at their deadlines.
    pub fn peer_lost(&mut self, now: Instant, peer: HostId, out: &mut Actions) {
        let awaiting: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, entry)| entry.state.awaits(peer))
            .map(|(slot, entry)| RequestId {
                shard: self.shard,
                slot: slot as u32,
                serial: entry.serial,
            })
            .collect();
        let lost = FailureReason::Timeout;
        for request in awaiting {
            self.with(now, request, out, |state, around| match state {
                InFlight::Local(_) => Progress::Waits,
                InFlight::Write(write) => write.on_ack(peer, Err(lost), around),
                InFlight::SingleRead(read) => read.on_answer(peer, 0, Err(lost), around),
                InFlight::ManyRead(read) => read.on_lost(peer, lost, around),
            });
        }
    }

    /// Handles timers that are due at `now`, a bounded number of them: call again while
    /// [`next_timeout`](Coordinator::next_timeout) is not later than now.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Actions) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(request) = self.deadlines.pop_due(now) else {
                return;
            };
            self.with(now, request, out, |state, around| match state {
                InFlight::Local(request) => request.on_timer(around),
                InFlight::Write(write) => write.on_timer(around),
                InFlight::SingleRead(read) => read.on_timer(around),
                InFlight::ManyRead(read) => read.on_timer(around),
            });
        }
    }

    /// When [`handle_timeout`](Coordinator::handle_timeout) wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Refuses a request beyond the bound.
    pub(super) fn admit(&self) -> Result<(), RequestError> {
        let in_flight_max = self.limits.in_flight_max;
        if self.requests.len() >= in_flight_max {
            return Err(RequestError::Overloaded { in_flight_max });
        }
        Ok(())
    }

    /// Puts a request in flight and arms its deadline.
    pub(super) fn insert(&mut self, state: InFlight, deadline: Instant) -> RequestId {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let slot = self.requests.insert(Entry { serial, state }) as u32;
        let shard = self.shard;
        let request = RequestId { shard, slot, serial };
        self.deadlines.arm(deadline, request);
        request
    }

    /// Takes a request out of flight that could not be begun after all.
    pub(super) fn withdraw(&mut self, request: RequestId) {
        self.end(request);
    }

    /// Lets the request handle an event, if it is still in flight.
    pub(super) fn with(
        &mut self,
        now: Instant,
        request: RequestId,
        out: &mut Actions,
        event: impl FnOnce(&mut InFlight, &mut Surroundings<'_>) -> Progress,
    ) {
        let Some(entry) = self.requests.get_mut(request.slot as usize) else {
            return;
        };
        if entry.serial != request.serial {
            return;
        }
        let lingered = matches!(&entry.state, InFlight::Write(write) if write.is_replied());
        let mut around = Surroundings {
            now,
            request,
            local: self.local,
            down: &self.down,
            deadlines: &mut self.deadlines,
            scratch: &mut self.scratch,
            out,
        };
        let mut progress = event(&mut entry.state, &mut around);
        if progress == Progress::Lingers && !lingered && self.lingering >= self.limits.lingering_max {
            if let InFlight::Write(write) = &mut entry.state {
                write.stop_waiting(&mut around);
            }
            progress = Progress::Ends;
        }
        match progress {
            Progress::Waits => {}
            Progress::Lingers => self.lingering += usize::from(!lingered),
            Progress::Ends => {
                self.lingering -= usize::from(lingered);
                self.end(request);
            }
        }
    }

    fn end(&mut self, request: RequestId) {
        self.requests.remove(request.slot as usize);
        let requests = &self.requests;
        self.deadlines.clean(requests.len(), |request| {
            requests
                .get(request.slot as usize)
                .is_some_and(|entry| entry.serial == request.serial)
        });
    }
}
