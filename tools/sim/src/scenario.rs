//! One run: load under faults, then liveness, then healing, repair, and the final check.

use std::time::Duration;

use ceto_cluster::coordinator::{ReadOptions, Reply};
use ceto_model::read::ResumePoint;
use ceto_model::{Consistency, PartitionRange, ReadTarget, RingPosition};

use crate::faults::Nemesis;
use crate::oracle::{Guarantee, Oracle, PendingRead, Violation};
use crate::replica::ReplicaFault;
use crate::shape::{Shape, host};
use crate::workload::{PARTITIONS, ROWS, ReadOperation, Workload, WriteOperation, key, partition_of};
use crate::world::{Completion, PumpFault, Ticket, World};

/// How a run is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Virtual time under load.
    pub load: Duration,
    /// Clients that work at the same time.
    pub clients: usize,
    /// Replicas broken on purpose.
    pub replica_fault: ReplicaFault,
    /// Pump broken on purpose.
    pub pump_fault: PumpFault,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            load: Duration::from_secs(10),
            clients: 6,
            replica_fault: ReplicaFault::None,
            pump_fault: PumpFault::None,
        }
    }
}

/// How a run went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What decided everything.
    pub seed: u64,
    /// Hash over all events.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Requests that were answered as asked.
    pub succeeded: u64,
    /// Requests that were refused, timed out, failed or lost.
    pub failed: u64,
    /// What must not have happened.
    pub violations: Vec<Violation>,
}

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_millis(400);
/// Silence after which everything that was under way has ended.
const QUIET: Duration = Duration::from_secs(5);
/// Requests that must succeed while all but one node are well.
const PROGRESS: usize = 12;

/// Runs `seed` as planned.
pub fn run(seed: u64, plan: Plan) -> Outcome {
    let shape = Shape::of_seed(seed);
    let mut world = World::new(seed, &shape, plan.replica_fault);
    world.set_clocks(seed, 10_000, 500_000);
    world.set_pump_fault(plan.pump_fault);
    let mut run = Run {
        oracle: Oracle::new(&world.nodes()[0].map),
        workload: Workload::new(seed),
        clients: vec![Client::default(); plan.clients],
        world,
        violations: Vec::new(),
        succeeded: 0,
        failed: 0,
    };
    run.load(seed, plan.load);
    run.liveness();
    run.heal_and_repair();
    run.check_end();
    Outcome {
        seed,
        trace: run.world.trace().hash(),
        events: run.world.trace().events(),
        succeeded: run.succeeded,
        failed: run.failed,
        violations: run.violations,
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Write(WriteOperation, Guarantee),
    Read(PendingRead),
}

#[derive(Clone, Default, Debug)]
struct Client {
    busy: Option<(Ticket, Operation)>,
    next: Duration,
}

struct Run {
    world: World,
    oracle: Oracle,
    workload: Workload,
    clients: Vec<Client>,
    violations: Vec<Violation>,
    succeeded: u64,
    failed: u64,
}

impl Run {
    fn load(&mut self, seed: u64, duration: Duration) {
        let mut nemesis = Nemesis::new(seed, &mut self.world);
        let end = self.world.now() + duration;
        while self.world.now() < end {
            let idle = self.clients.iter().filter(|client| client.busy.is_none());
            let next = idle
                .map(|client| client.next)
                .chain(self.world.next_event())
                .chain([nemesis.next(), end])
                .min()
                .unwrap_or(end);
            self.world.run_until(next);
            self.collect();
            if nemesis.next() <= self.world.now() {
                nemesis.act(&mut self.world);
            }
            for at in 0..self.clients.len() {
                let client = &self.clients[at];
                if client.busy.is_none() && client.next <= self.world.now() {
                    self.begin(at);
                }
            }
        }
        self.settle(TIMEOUT * 2);
    }

    /// Begins a client's next operation at a random node.
    fn begin(&mut self, client: usize) {
        let think = Duration::from_micros(self.workload.below(80_000) + 1);
        self.clients[client].next = self.world.now() + think;
        let node = self.workload.below(self.world.nodes().len() as u64) as usize;
        let outcome = if self.workload.wants_write() {
            let timestamp = self.world.nodes()[node].clock.timestamp(self.world.now());
            let write = self.workload.write(timestamp);
            self.begin_write(node, write)
        } else {
            let read = self.workload.read();
            self.begin_read(node, read)
        };
        match outcome {
            Some(busy) => self.clients[client].busy = Some(busy),
            None => self.failed += 1,
        }
        self.collect();
    }

    fn begin_write(&mut self, node: usize, write: WriteOperation) -> Option<(Ticket, Operation)> {
        let guarantee = Guarantee::of(write.consistency, &self.world.nodes()[node].map);
        let ticket = self
            .world
            .begin_write(node, write.consistency, write.mutation(), TIMEOUT)
            .ok()?;
        self.oracle.attempt(&write);
        Some((ticket, Operation::Write(write, guarantee)))
    }

    fn begin_read(&mut self, node: usize, operation: ReadOperation) -> Option<(Ticket, Operation)> {
        let coordinator = &self.world.nodes()[node];
        let read = PendingRead {
            began: self.world.now(),
            guarantee: Guarantee::of(operation.consistency, &coordinator.map),
            operation,
        };
        let command = read
            .operation
            .command(coordinator.clock.seconds(self.world.now()));
        let ticket = self
            .world
            .begin_read(
                node,
                read.operation.consistency,
                read.operation.options,
                command,
                TIMEOUT,
            )
            .ok()?;
        Some((ticket, Operation::Read(read)))
    }

    /// Takes what has ended to the oracle.
    fn collect(&mut self) {
        while let Some((ticket, completion)) = self.world.take_completion() {
            let client = self
                .clients
                .iter_mut()
                .find(|client| client.busy.as_ref().is_some_and(|(own, _)| *own == ticket));
            if let Some((_, operation)) = client.and_then(|client| client.busy.take()) {
                self.judge(operation, completion);
            }
        }
        self.violations.extend(self.world.take_violations());
    }

    fn judge(&mut self, operation: Operation, completion: Completion) {
        let now = self.world.now();
        let is_success = match (operation, completion) {
            (Operation::Write(write, guarantee), Completion::Reply(Reply::Write(Ok(())))) => {
                self.oracle.acknowledge(&write, now, &guarantee);
                true
            }
            (Operation::Read(read), Completion::Reply(Reply::Read(Ok(result)))) => {
                self.violations
                    .extend(self.oracle.check_read(&read, &result, now));
                true
            }
            (Operation::Write(..), Completion::Reply(Reply::Read(_)))
            | (Operation::Read(_), Completion::Reply(Reply::Write(_))) => {
                self.violation(6, "a reply of the wrong kind".to_owned());
                false
            }
            _ => false,
        };
        *(if is_success {
            &mut self.succeeded
        } else {
            &mut self.failed
        }) += 1;
    }

    fn violation(&mut self, checker: u8, text: String) {
        self.violations.push(Violation::new(checker, text));
    }

    /// Lets time pass without new requests.
    fn settle(&mut self, time: Duration) {
        self.world.run_until(self.world.now() + time);
        self.collect();
    }

    /// With all but one node well, and that one known to be dead, each request at QUORUM succeeds at once.
    fn liveness(&mut self) {
        self.world.heal();
        let nodes = self.world.nodes().len();
        let map = self.world.nodes()[0].map.clone();
        let may_miss_one = map.required(Consistency::Quorum) < map.strategy().replication_factor();
        let victim = may_miss_one.then(|| self.workload.below(nodes as u64) as usize);
        if let Some(victim) = victim {
            let until = self.world.now() + QUIET * 2;
            for node in (0..nodes).filter(|node| *node != victim) {
                self.world.cut(node, victim, until);
                self.world.cut(victim, node, until);
            }
        }
        self.settle(QUIET / 2);
        for i in 0..PROGRESS {
            let node = (0..nodes)
                .map(|offset| (i + offset) % nodes)
                .find(|node| Some(*node) != victim)
                .unwrap_or(0);
            let (failed, consistency) = (self.failed, Consistency::Quorum);
            let begun = if i % 2 == 0 {
                let timestamp = self.world.nodes()[node].clock.timestamp(self.world.now());
                let mut write = self.workload.write(timestamp);
                write.consistency = consistency;
                self.begin_write(node, write)
            } else {
                let mut read = self.workload.read();
                read.consistency = consistency;
                self.begin_read(node, read)
            };
            let is_begun = begun.is_some();
            if let Some(client) = self.clients.first_mut() {
                client.busy = begun;
            }
            self.settle(TIMEOUT);
            if !is_begun || self.failed > failed {
                let text = format!("request {i} at node {node} failed, though only {victim:?} is away");
                self.violation(0, text);
            }
        }
    }

    /// Mends everything, delivers hints, and reads the whole table at ALL, which repairs every replica.
    fn heal_and_repair(&mut self) {
        self.world.heal();
        self.settle(QUIET);
        self.world.drain_hints();
        let node = self.workload.below(self.world.nodes().len() as u64) as usize;
        let page = self.workload.below(20) + 1;
        let whole = ReadOperation {
            partition: None,
            rows: 0..=ROWS - 1,
            reversed: false,
            limit: page,
            consistency: Consistency::All,
            options: ReadOptions::default(),
        };
        let mut command = whole.command(self.world.nodes()[node].clock.seconds(self.world.now()));
        loop {
            let began =
                self.world
                    .begin_read(node, whole.consistency, whole.options, command.clone(), TIMEOUT);
            self.world.run_until(self.world.now() + TIMEOUT * 2);
            let completion = self.world.take_completion().map(|(_, completion)| completion);
            let Some(Completion::Reply(Reply::Read(Ok(result)))) = completion else {
                return self.violation(3, format!("the repairing read failed: {began:?} {completion:?}"));
            };
            // A page may end inside a partition; the next one reads that partition again from its start, and the page
            // grows until it holds a whole one.
            let start = match result.resume {
                None => return self.settle(QUIET),
                Some(ResumePoint::Ring(position)) => position,
                Some(ResumePoint::Inside(key, _)) => {
                    command.limits.rows += u64::from(ROWS);
                    RingPosition::BeforeKey(key)
                }
            };
            let end = PartitionRange::full().end;
            command.target = ReadTarget::Range(PartitionRange { start, end });
        }
    }

    fn check_end(&mut self) {
        self.collect();
        let unanswered = self.world.waiting();
        if unanswered > 0 {
            self.violation(6, format!("{unanswered} requests were never answered"));
        }
        let mut violations = Vec::new();
        for node in self.world.nodes() {
            if node.in_flight() > 0 {
                let text = format!("node {} still holds {} requests", node.at, node.in_flight());
                violations.push(Violation::new(6, text));
            }
            for held in node.replica.rows().keys() {
                if !node.map.is_replica(host(node.at), held.token) {
                    let text = format!(
                        "node {} holds partition {:?}, of which it is no replica",
                        node.at, held
                    );
                    violations.push(Violation::new(3, text));
                }
                if partition_of(held).is_none_or(|partition| partition >= PARTITIONS) {
                    violations.push(Violation::new(3, format!("nobody wrote partition {held:?}")));
                }
            }
        }
        for partition in 0..PARTITIONS {
            violations.extend(self.check_partition(partition));
        }
        self.violations.extend(violations);
    }

    fn check_partition(&self, partition: u8) -> Vec<Violation> {
        let key = key(partition);
        let map = &self.world.nodes()[0].map;
        let held: Vec<_> = map
            .replicas(key.token)
            .natural()
            .iter()
            .filter_map(|replica| map.ring().index_of(replica.host))
            .map(|node| {
                let rows = self.world.nodes()[node.0 as usize].replica.rows();
                rows.get(&key).cloned().unwrap_or_default()
            })
            .collect();
        let mut violations = Vec::new();
        if held.windows(2).any(|pair| pair[0] != pair[1]) {
            let text = format!("replicas of partition {partition} differ: {held:?}");
            violations.push(Violation::new(3, text));
        }
        for content in &held {
            violations.extend(self.oracle.check_final(partition, content));
        }
        violations
    }
}
