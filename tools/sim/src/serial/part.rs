//! What a simulated node has for conditional updates: the production Paxos core, what its acceptor stored, and what its
//! operations wait for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_cluster::paxos::{AcceptorRule, AcceptorState, PartitionId, Paxos, PaxosActions, PaxosLimits};
use ceto_internode::{ExchangeId, HostId, PaxosMessage, RequestId};
use ceto_model::{Consistency, Timestamp};

use crate::clock::Clock;
use crate::world::Ticket;

/// An operation on the one register of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SerialOperation {
    /// Sets it if it has a value; None is none.
    Cas {
        /// That value.
        expected: Option<Bytes>,
        /// The new value.
        new: Option<Bytes>,
        /// How many replicas must have it.
        commit: Consistency,
    },
    /// Reads it.
    Read,
}

/// What an operation came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SerialAnswer {
    /// A conditional update was applied.
    pub is_applied: bool,
    /// The value that was found.
    pub found: Option<Bytes>,
}

/// An operation that its node has begun.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) ticket: Ticket,
    pub(crate) partition: u8,
    pub(crate) operation: SerialOperation,
    pub(crate) deadline: Instant,
    /// Level of reading what was decided.
    pub(crate) read_level: Consistency,
    pub(crate) found: Option<Bytes>,
}

/// Why the node reads a register.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SerialRead {
    /// For the condition of an operation.
    Examine(RequestId, Timestamp),
    /// For the client of a read.
    Answer(Ticket),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SerialPart {
    pub(crate) paxos: Paxos,
    pub(crate) actions: PaxosActions,
    pub(crate) tasks: BTreeMap<RequestId, Task>,
    /// Reads under way at the node's coordinator.
    pub(crate) reads: BTreeMap<RequestId, SerialRead>,
    /// On disk.
    pub(crate) states: BTreeMap<PartitionId, AcceptorState>,
    pub(crate) rule: AcceptorRule,
}

fn paxos(host: HostId, seed: u64, clock: &Clock, now: Duration) -> Paxos {
    let limits = PaxosLimits {
        retry_after: Duration::from_millis(80),
        ..PaxosLimits::default()
    };
    Paxos::new(host, limits, seed, clock.monotonic(now), clock.timestamp(now))
}

impl SerialPart {
    pub(crate) fn new(host: HostId, seed: u64, clock: &Clock) -> SerialPart {
        SerialPart {
            paxos: paxos(host, seed, clock, Duration::ZERO),
            actions: PaxosActions::new(),
            tasks: BTreeMap::new(),
            reads: BTreeMap::new(),
            states: BTreeMap::new(),
            rule: AcceptorRule::Sound,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.paxos.in_flight() + self.paxos.queued() + self.paxos.acceptor_waiting() + self.tasks.len()
    }

    /// Clients that wait.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        let reads = self.reads.values().filter_map(|read| match read {
            SerialRead::Answer(ticket) => Some(*ticket),
            SerialRead::Examine(..) => None,
        });
        self.tasks.values().map(|task| task.ticket).chain(reads).collect()
    }

    pub(crate) fn lose_memory(&mut self, host: HostId, seed: u64, clock: &Clock, now: Duration) {
        self.paxos = paxos(host, seed, clock, now);
        self.paxos.set_acceptor_rule(self.rule);
        self.actions = PaxosActions::new();
        self.tasks.clear();
        self.reads.clear();
    }

    pub(crate) fn set_rule(&mut self, rule: AcceptorRule) {
        self.rule = rule;
        self.paxos.set_acceptor_rule(rule);
    }

    pub(crate) fn set_wall_clock(&mut self, clock: &Clock, now: Duration) {
        self.paxos
            .set_wall_clock(clock.monotonic(now), clock.timestamp(now));
    }

    pub(crate) fn set_alive(&mut self, host: HostId, alive: bool) {
        self.paxos.set_alive(host, alive);
    }

    pub(crate) fn handle(&mut self, now: Instant, from: HostId, exchange: ExchangeId, body: PaxosMessage) {
        self.paxos.handle(now, from, exchange, body, &mut self.actions);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.paxos.next_timeout()
    }

    pub(crate) fn handle_timeouts(&mut self, now: Instant) {
        while self.paxos.next_timeout().is_some_and(|at| at <= now) {
            self.paxos.handle_timeout(now, &mut self.actions);
        }
    }
}
