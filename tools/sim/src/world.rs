//! The world: virtual time, the queue of events, and the pump that carries out what coordinators ask for.
//!
//! One event at a time, in order of time and then of creation. Messages pass through the production codec. Clients are
//! told the outcome of each ticket once: a reply, or that the coordinator was lost.

mod serial;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceto_cluster::coordinator::{Action, ReadOptions, Reply, ReplyTo, RequestContext, RequestError};
use ceto_cluster::paxos::PaxosAction;
use ceto_cluster::{Random, ReplicaMap};
use ceto_internode::{HostId, Message, PaxosMessage, decode, encode};
use ceto_model::{Consistency, Mutation, ReadCommand, WriteType};

use crate::clock::Clock;
use crate::network::Network;
use crate::node::Node;
use crate::oracle::Violation;
use crate::replica::{Replica, ReplicaFault};
use crate::serial::SerialAnswer;
use crate::shape::{Shape, host};
use crate::trace::Trace;

/// Late by this much, an answer is too late: timers fire within microseconds, clocks drift by less than a percent.
const LATENESS_MAX: Duration = Duration::from_millis(50);
/// How often nodes form an opinion of each other.
const DETECTION_PERIOD: Duration = Duration::from_millis(100);
/// Periods of silence after which a peer is thought dead.
const SILENCE_MAX: u32 = 5;

/// A client's request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// How a client's request ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Completion {
    /// With an answer.
    Reply(Reply),
    /// A conditional update or serial read, with an answer.
    Serial(Result<SerialAnswer, RequestError>),
    /// The coordinator crashed; nobody knows.
    Lost,
}

/// A way for the pump to be broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PumpFault {
    /// Not broken.
    #[default]
    None,
    /// Drops one reply of sixteen.
    DropsReplies,
    /// Sends one reply of sixteen twice.
    RepliesTwice,
    /// Lets each acknowledgement count for another replica too, so that a coordinator answers with one too few.
    ForgesAcks,
}

#[derive(Debug)]
struct Waiting {
    began: Duration,
    timeout: Duration,
}

#[derive(Debug)]
enum Event {
    Deliver {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Timer {
        node: usize,
    },
    Work {
        node: usize,
        life: u32,
        action: Action,
    },
    SerialWork {
        node: usize,
        life: u32,
        action: PaxosAction,
    },
    ApplyLate {
        node: usize,
        mutation: Mutation,
    },
    Mend {
        from: usize,
        to: usize,
        trouble: u32,
    },
    Restart {
        node: usize,
        trouble: u32,
    },
    Detect,
    EndAlarm {
        observer: usize,
        subject: usize,
        trouble: u32,
    },
}

#[derive(Debug)]
struct Scheduled {
    at: Duration,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Everything.
#[derive(Debug)]
pub struct World {
    now: Duration,
    sequence: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    nodes: Vec<Node>,
    network: Network,
    random: Random,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: u64,
    completions: VecDeque<(Ticket, Completion)>,
    violations: Vec<Violation>,
    pump_fault: PumpFault,
    /// Periods for which one node (row) has not heard of another (column).
    silence: Vec<u32>,
    alarms: Vec<u32>,
    cuts: Vec<u32>,
    /// Counts healings.
    troubles: u32,
    trace: Trace,
    instant_work: bool,
}

impl World {
    /// A cluster of `shape`, all nodes up, clocks true, in fair weather.
    pub fn new(seed: u64, shape: &Shape, fault: ReplicaFault) -> World {
        #[allow(clippy::disallowed_methods)] // monotonic clocks count from here; only differences are used
        let base = Instant::now();
        let count = shape.nodes();
        let mut random = Random::salted(seed, "world");
        let nodes = (0..count)
            .map(|at| {
                let map = ReplicaMap::new(shape.ring.clone(), shape.strategy.clone(), host(at));
                let clock = Clock::new(base, 0, 0);
                Node::new(at, count, clock, Replica::new(fault), map, random.next())
            })
            .collect();
        let mut world = World {
            now: Duration::ZERO,
            sequence: 0,
            events: BinaryHeap::new(),
            nodes,
            network: Network::new(seed, count),
            random,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            completions: VecDeque::new(),
            violations: Vec::new(),
            pump_fault: PumpFault::None,
            silence: vec![0; count * count],
            alarms: vec![0; count * count],
            cuts: vec![0; count * count],
            troubles: 0,
            trace: Trace::default(),
            instant_work: false,
        };
        world.schedule(DETECTION_PERIOD, Event::Detect);
        world
    }

    /// Gives each node clocks that are off by up to `offset` microseconds and drift by up to `drift` parts per million.
    pub fn set_clocks(&mut self, seed: u64, drift: i64, offset: i64) {
        let mut random = Random::salted(seed, "clock");
        #[allow(clippy::disallowed_methods)] // see `new`
        let base = Instant::now();
        let mut within = |bound: i64| random.below(2 * bound as u64 + 1) as i64 - bound;
        for node in &mut self.nodes {
            node.clock = Clock::new(base, within(drift), within(offset));
            node.serial.set_wall_clock(&node.clock, Duration::ZERO);
        }
    }

    /// Breaks the pump.
    pub fn set_pump_fault(&mut self, fault: PumpFault) {
        self.pump_fault = fault;
    }

    /// Lets local work take no time, for scripted tests.
    pub fn set_instant_work(&mut self) {
        self.instant_work = true;
    }

    /// Virtual time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The network.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// What happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What the world itself found wrong.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// Tickets that have ended since the last call.
    pub fn take_completion(&mut self) -> Option<(Ticket, Completion)> {
        self.completions.pop_front()
    }

    /// Tickets that have not ended.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(Scheduled {
            at: at.max(self.now),
            sequence: self.sequence,
            event,
        }));
    }

    /// When the next event is due.
    pub fn next_event(&self) -> Option<Duration> {
        self.events.peek().map(|Reverse(next)| next.at)
    }

    /// Lets time pass until `until`, handling all events on the way.
    pub fn run_until(&mut self, until: Duration) {
        while self.next_event().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Handles the next event.
    pub fn step(&mut self) {
        let Some(Reverse(Scheduled { at, event, .. })) = self.events.pop() else {
            return;
        };
        self.now = at;
        match event {
            Event::Deliver { from, to, bytes } => self.deliver(from, to, bytes),
            Event::Timer { node } => self.fire_timer(node),
            Event::Work { node, life, action } => {
                if self.nodes[node].is_up && self.nodes[node].life == life {
                    self.trace.add(self.now, 2, node, &[]);
                    self.work(node, action);
                    self.pump(node);
                }
            }
            Event::SerialWork { node, life, action } => {
                if self.nodes[node].is_up && self.nodes[node].life == life {
                    self.trace.add(self.now, 7, node, &[]);
                    self.serial_work(node, action);
                    self.pump(node);
                }
            }
            Event::ApplyLate { node, mutation } => self.nodes[node].replica.apply(mutation, &mut self.random),
            // Trouble from before the last healing has ended with it.
            Event::Mend { trouble, .. }
            | Event::Restart { trouble, .. }
            | Event::EndAlarm { trouble, .. }
                if trouble != self.troubles => {}
            Event::Mend { from, to, .. } => {
                let cuts = &mut self.cuts[from * self.nodes.len() + to];
                *cuts = cuts.saturating_sub(1);
                let is_cut = *cuts > 0;
                self.network.set_cut(from, to, is_cut);
            }
            Event::Restart { node, .. } => self.restart(node),
            Event::Detect => {
                self.detect();
                self.schedule(self.now + DETECTION_PERIOD, Event::Detect);
            }
            Event::EndAlarm {
                observer, subject, ..
            } => {
                let alarms = &mut self.alarms[observer * self.nodes.len() + subject];
                *alarms = alarms.saturating_sub(1);
            }
        }
    }

    /// Asks `node` to write.
    ///
    /// # Errors
    /// When it refuses at once; None when it is down.
    pub fn begin_write(
        &mut self,
        node: usize,
        consistency: Consistency,
        mutation: Mutation,
        timeout: Duration,
    ) -> Result<Ticket, Option<RequestError>> {
        let now = self.now;
        let Node {
            is_up,
            coordinator,
            actions,
            map,
            clock,
            ..
        } = &mut self.nodes[node];
        if !*is_up {
            return Err(None);
        }
        let context = RequestContext {
            replication: map,
            consistency,
            deadline: clock.monotonic(now) + timeout,
        };
        let request = coordinator
            .begin_write(context, WriteType::Simple, mutation, actions)
            .map_err(Some)?;
        Ok(self.began(node, request, timeout))
    }

    /// Asks `node` to read.
    ///
    /// # Errors
    /// When it refuses at once; None when it is down.
    pub fn begin_read(
        &mut self,
        node: usize,
        consistency: Consistency,
        options: ReadOptions,
        command: ReadCommand,
        timeout: Duration,
    ) -> Result<Ticket, Option<RequestError>> {
        let now = self.now;
        let Node {
            is_up,
            coordinator,
            actions,
            map,
            clock,
            ..
        } = &mut self.nodes[node];
        if !*is_up {
            return Err(None);
        }
        let local = clock.monotonic(now);
        let context = RequestContext {
            replication: map,
            consistency,
            deadline: local + timeout,
        };
        let request = coordinator
            .begin_read(local, context, options, command, actions)
            .map_err(Some)?;
        Ok(self.began(node, request, timeout))
    }

    fn ticket(&mut self, node: usize, timeout: Duration) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.trace.add(self.now, 3, node, &ticket.0.to_le_bytes());
        let began = self.now;
        self.waiting.insert(ticket, Waiting { began, timeout });
        ticket
    }

    fn began(&mut self, node: usize, request: ceto_internode::RequestId, timeout: Duration) -> Ticket {
        let ticket = self.ticket(node, timeout);
        self.nodes[node].tickets.insert(request, ticket);
        self.pump(node);
        ticket
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if !self.nodes[to].is_up {
            return;
        }
        self.trace.add(self.now, 1, to, &bytes);
        let message = decode(bytes.into()).expect("what was encoded decodes");
        if self.pump_fault == PumpFault::ForgesAcks && matches!(message, Message::MutateAck { .. }) {
            let other = (0..self.nodes.len()).find(|node| *node != from && *node != to);
            self.hand_over(other.unwrap_or(from), to, message.clone());
        }
        self.hand_over(from, to, message);
        self.pump(to);
    }

    fn hand_over(&mut self, from: usize, to: usize, message: Message) {
        let node = &mut self.nodes[to];
        let local = node.clock.monotonic(self.now);
        match message {
            Message::Paxos { exchange, body } => node.serial.handle(local, host(from), exchange, body),
            message => node
                .coordinator
                .handle(local, host(from), message, &mut node.actions),
        }
    }

    fn fire_timer(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.timer_at != Some(self.now) || !node.is_up {
            return;
        }
        node.timer_at = None;
        let local = node.clock.monotonic(self.now);
        while node.coordinator.next_timeout().is_some_and(|at| at <= local) {
            node.coordinator.handle_timeout(local, &mut node.actions);
        }
        node.serial.handle_timeouts(local);
        self.pump(at);
    }

    /// Carries out a node's actions until none is left, then sets its timer.
    fn pump(&mut self, at: usize) {
        loop {
            let Some(action) = self.nodes[at].actions.pop() else {
                match self.nodes[at].serial.actions.pop() {
                    Some(action) => self.perform_serial(at, action),
                    None => break,
                }
                continue;
            };
            match action {
                Action::Apply { .. } | Action::Read { .. } => self.do_or_defer(at, action),
                Action::Send { to, message } => self.send(at, to, &message),
                Action::StoreHint {
                    replica,
                    request,
                    mutation,
                } => {
                    let replica = self.index_of(replica);
                    let node = &mut self.nodes[at];
                    node.hints.push((replica, mutation));
                    let local = node.clock.monotonic(self.now);
                    node.coordinator.hint_stored(local, request, &mut node.actions);
                }
                Action::Reply { request, reply } => self.reply(at, request, reply),
            }
        }
        let node = &mut self.nodes[at];
        let serial = node.serial.next_timeout();
        if let Some(instant) = node.coordinator.next_timeout().into_iter().chain(serial).min() {
            let due = node.clock.virtual_time(instant).max(self.now);
            if node.timer_at.is_none_or(|set| due < set) {
                node.timer_at = Some(due);
                self.schedule(due, Event::Timer { node: at });
            }
        }
    }

    fn index_of(&self, host: HostId) -> usize {
        let index = self.nodes[0].map.ring().index_of(host);
        index.expect("a node of the ring").0 as usize
    }

    fn send(&mut self, from: usize, to: HostId, message: &Message) {
        let to = self.index_of(to);
        assert_ne!(from, to, "a node sends nothing to itself");
        let mut bytes = Vec::new();
        encode(&mut bytes, message);
        let mut arrivals = self.network.send(self.now, from, to);
        if let Message::Paxos { body, .. } = message
            && matches!(body, PaxosMessage::Propose { .. })
        {
            // The acceptor's module says why.
            arrivals.truncate(1);
        }
        for at in arrivals {
            let bytes = bytes.clone();
            self.schedule(at, Event::Deliver { from, to, bytes });
        }
    }

    /// Half of the local work is done at once, as when the token's shard is this core; the rest takes its time.
    fn do_or_defer(&mut self, node: usize, action: Action) {
        if self.instant_work || self.random.chance(1, 2) {
            return self.work(node, action);
        }
        let delay = Duration::from_micros(self.random.between(1..=2000));
        let life = self.nodes[node].life;
        self.schedule(self.now + delay, Event::Work { node, life, action });
    }

    fn work(&mut self, at: usize, action: Action) {
        let local = self.nodes[at].clock.monotonic(self.now);
        match action {
            Action::Apply { reply_to, mutation } => {
                if self.nodes[at].replica.fault() == ReplicaFault::AppliesLate {
                    let delay = Duration::from_millis(self.random.between(200..=4000));
                    self.schedule(self.now + delay, Event::ApplyLate { node: at, mutation });
                } else {
                    self.nodes[at].replica.apply(mutation, &mut self.random);
                }
                self.applied(at, local, reply_to);
            }
            Action::Read {
                reply_to,
                kind,
                command,
            } => {
                let node = &mut self.nodes[at];
                let result = node.replica.read(&command, &mut self.random);
                node.coordinator
                    .read_done(local, reply_to, kind, Ok(result), &mut node.actions);
            }
            Action::Send { .. } | Action::StoreHint { .. } | Action::Reply { .. } => {}
        }
    }

    fn applied(&mut self, at: usize, local: Instant, reply_to: ReplyTo) {
        let node = &mut self.nodes[at];
        node.coordinator
            .applied(local, reply_to, Ok(()), &mut node.actions);
    }

    fn reply(&mut self, node: usize, request: ceto_internode::RequestId, reply: Reply) {
        let is_hit = self.pump_fault != PumpFault::None && self.random.chance(1, 16);
        if is_hit && self.pump_fault == PumpFault::DropsReplies {
            return;
        }
        if let Some(read) = self.nodes[node].serial.reads.remove(&request) {
            return self.serial_read_ended(node, read, reply);
        }
        let Some(ticket) = self.nodes[node].tickets.remove(&request) else {
            self.violations.push(Violation::new(
                6,
                format!("a second reply to {request:?} of node {node}"),
            ));
            return;
        };
        if is_hit && self.pump_fault == PumpFault::RepliesTwice {
            self.nodes[node].actions.push(Action::Reply {
                request,
                reply: reply.clone(),
            });
        }
        self.complete(node, ticket, Completion::Reply(reply));
    }

    fn complete(&mut self, node: usize, ticket: Ticket, completion: Completion) {
        let waiting = self.waiting.remove(&ticket).expect("a ticket that waits");
        let took = self.now - waiting.began;
        if took > waiting.timeout + LATENESS_MAX {
            let text = format!(
                "{ticket:?} was answered after {took:?}, asked for {:?}",
                waiting.timeout
            );
            self.violations.push(Violation::new(6, text));
        }
        self.trace.add(self.now, 4, node, &ticket.0.to_le_bytes());
        self.completions.push_back((ticket, completion));
    }

    /// Cuts one direction until a time. Cuts of one link add up.
    pub fn cut(&mut self, from: usize, to: usize, until: Duration) {
        self.cuts[from * self.nodes.len() + to] += 1;
        self.network.set_cut(from, to, true);
        let trouble = self.troubles;
        self.schedule(until, Event::Mend { from, to, trouble });
    }

    /// Crashes a node until a time.
    pub fn crash(&mut self, node: usize, until: Duration) {
        if !self.nodes[node].is_up {
            return;
        }
        self.trace.add(self.now, 5, node, &[]);
        let seed = self.random.next();
        let crashed = &mut self.nodes[node];
        crashed.is_up = false;
        crashed.life += 1;
        let tickets: Vec<Ticket> = std::mem::take(&mut crashed.tickets)
            .into_values()
            .chain(crashed.serial.tickets())
            .collect();
        crashed.lose_memory(seed, self.now);
        for ticket in tickets {
            self.waiting.remove(&ticket);
            self.completions.push_back((ticket, Completion::Lost));
        }
        let trouble = self.troubles;
        self.schedule(until, Event::Restart { node, trouble });
    }

    fn restart(&mut self, node: usize) {
        self.trace.add(self.now, 6, node, &[]);
        self.nodes[node].is_up = true;
    }

    /// Moves a node's wall clock.
    pub fn jump_clock(&mut self, node: usize, microseconds: i64) {
        let now = self.now;
        let node = &mut self.nodes[node];
        node.clock.jump(microseconds);
        node.serial.set_wall_clock(&node.clock, now);
    }

    /// Makes one node think another dead until a time.
    pub fn suspect(&mut self, observer: usize, subject: usize, until: Duration) {
        self.alarms[observer * self.nodes.len() + subject] += 1;
        let trouble = self.troubles;
        self.schedule(
            until,
            Event::EndAlarm {
                observer,
                subject,
                trouble,
            },
        );
    }

    /// What gossip will do: a peer that is silent for a while is thought dead, and alive once it is heard again.
    fn detect(&mut self) {
        let count = self.nodes.len();
        for observer in (0..count)
            .filter(|observer| self.nodes[*observer].is_up)
            .collect::<Vec<_>>()
        {
            for subject in (0..count).filter(|subject| *subject != observer) {
                let pair = observer * count + subject;
                let is_heard = self.nodes[subject].is_up && !self.network.is_cut(subject, observer);
                self.silence[pair] = if is_heard { 0 } else { self.silence[pair] + 1 };
                let is_dead = self.silence[pair] >= SILENCE_MAX || self.alarms[pair] > 0;
                let node = &mut self.nodes[observer];
                if node.suspects[subject] != is_dead {
                    node.suspects[subject] = is_dead;
                    node.coordinator.set_alive(host(subject), !is_dead);
                    node.serial.set_alive(host(subject), !is_dead);
                }
            }
        }
    }

    /// Ends all trouble: links are whole, weather is fair, nodes are up, alarms are off.
    pub fn heal(&mut self) {
        self.troubles += 1;
        self.network.heal();
        self.cuts.fill(0);
        self.alarms.fill(0);
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_up {
                self.restart(node);
            }
        }
    }

    /// Delivers every hint to its replica, as hinted handoff does once a node is back.
    pub fn drain_hints(&mut self) {
        for at in 0..self.nodes.len() {
            for (replica, mutation) in std::mem::take(&mut self.nodes[at].hints) {
                let mutation = Arc::unwrap_or_clone(mutation);
                self.nodes[replica].replica.apply(mutation, &mut self.random);
            }
        }
    }
}
