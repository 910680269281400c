//! One run of conditional updates and serial reads: load under faults, healing, progress, and the check that every
//! partition's history is linearizable.
//!
//! | outcome | what the history says |
//! |---|---|
//! | applied, or the value that was found instead | that |
//! | WriteTimeout or WriteFailure of a SIMPLE write | applied: it was decided, only its commit is late |
//! | Unavailable, Overloaded, a failed read | nothing: it never took effect |
//! | any other, and a crash of the coordinator | it may have taken effect at any time, or never |

use std::time::Duration;

use bytes::Bytes;
use ceto_cluster::coordinator::RequestError;
use ceto_cluster::paxos::AcceptorRule;
use ceto_cluster::{Random, Strategy};
use ceto_model::{Consistency, WriteType};

use super::{SerialAnswer, SerialOperation};
use crate::faults::Nemesis;
use crate::linearizability::{Operation, Verdict, judge};
use crate::oracle::Violation;
use crate::replica::ReplicaFault;
use crate::scenario::Outcome;
use crate::shape::Shape;
use crate::world::{Completion, Ticket, World};

/// How a run is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SerialPlan {
    /// Virtual time under load.
    pub load: Duration,
    /// Clients that work at the same time.
    pub clients: usize,
    /// Acceptors broken on purpose.
    pub rule: AcceptorRule,
}

impl Default for SerialPlan {
    fn default() -> Self {
        SerialPlan {
            load: Duration::from_secs(8),
            clients: 6,
            rule: AcceptorRule::Sound,
        }
    }
}

/// Until the decision, and once more until the commit.
const TIMEOUT: Duration = Duration::from_millis(600);
/// After a failure.
const REFUSED_PAUSE: Duration = Duration::from_millis(300);
/// Silence after which everything that was under way has ended.
const QUIET: Duration = Duration::from_secs(5);

/// What a client did and learned.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Done {
    operation: SerialOperation,
    outcome: Known,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Known {
    /// A conditional update was applied.
    Applied,
    /// This value was found; nothing was changed.
    Found(Option<Bytes>),
    /// Nothing.
    Nothing,
}

/// The register's rule.
fn step(state: &Option<Bytes>, done: &Done) -> Option<Option<Bytes>> {
    match (&done.operation, &done.outcome) {
        (SerialOperation::Cas { expected, new, .. }, Known::Applied) => {
            (expected == state).then(|| new.clone())
        }
        (SerialOperation::Cas { expected, .. }, Known::Found(found)) => {
            (found == state && expected != state).then(|| state.clone())
        }
        (SerialOperation::Read, Known::Found(found)) => (found == state).then(|| state.clone()),
        (SerialOperation::Cas { expected, new, .. }, Known::Nothing) if expected == state => {
            Some(new.clone())
        }
        (_, Known::Nothing) => Some(state.clone()),
        (SerialOperation::Read, Known::Applied) => None,
    }
}

struct Busy {
    ticket: Ticket,
    called: u64,
    partition: u8,
    operation: SerialOperation,
}

#[derive(Default)]
struct Client {
    busy: Option<Busy>,
    next: Duration,
}

struct Run {
    world: World,
    random: Random,
    clients: Vec<Client>,
    /// Nodes that clients use.
    nodes: Vec<usize>,
    serial: Consistency,
    commit_levels: Vec<Consistency>,
    /// By partition.
    histories: Vec<Vec<Operation<Done>>>,
    /// What some client saw last, by partition.
    believed: Vec<Option<Bytes>>,
    values: u64,
    clock: u64,
    violations: Vec<Violation>,
    succeeded: u64,
    failed: u64,
}

/// Runs `seed` as planned.
pub fn run(seed: u64, plan: SerialPlan) -> Outcome {
    use Consistency::{All, Any, EachQuorum, LocalQuorum, LocalSerial, One, Quorum, Serial};
    let shape = Shape::of_seed(seed);
    let mut world = World::new(seed, &shape, ReplicaFault::None);
    world.set_clocks(seed, 10_000, 500_000);
    world.set_acceptor_rule(plan.rule);
    let mut random = Random::salted(seed, "serial");
    let all: Vec<usize> = (0..shape.nodes()).collect();
    let home = world.nodes()[0].datacenter();
    let near = all
        .iter()
        .copied()
        .filter(|node| world.nodes()[*node].datacenter() == home);
    // Data centers that decide for themselves are not linearizable together.
    let (serial, nodes) = match shape.strategy {
        Strategy::NetworkTopology { .. } if random.chance(1, 3) => (LocalSerial, near.collect()),
        _ => (Serial, all),
    };
    let mut commit_levels = vec![Quorum];
    commit_levels.extend(random.pick(&[Any, One, Quorum, LocalQuorum, EachQuorum, All]));
    let partitions = random.between(1..=3) as usize;
    let mut run = Run {
        world,
        random,
        clients: (0..plan.clients).map(|_| Client::default()).collect(),
        nodes,
        serial,
        commit_levels,
        histories: vec![Vec::new(); partitions],
        believed: vec![None; partitions],
        values: 0,
        clock: 0,
        violations: Vec::new(),
        succeeded: 0,
        failed: 0,
    };
    run.load(seed, plan.load);
    run.progress();
    run.check();
    Outcome {
        seed,
        trace: run.world.trace().hash(),
        events: run.world.trace().events(),
        succeeded: run.succeeded,
        failed: run.failed,
        violations: run.violations,
    }
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
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Begins a client's next operation.
    fn begin(&mut self, client: usize) {
        let think = Duration::from_micros(self.random.below(150_000) + 1);
        self.clients[client].next = self.world.now() + think;
        let node = self.random.pick(&self.nodes).copied().unwrap_or(0);
        let partition = self.random.below(self.histories.len() as u64) as usize;
        let operation = if self.random.chance(1, 3) {
            SerialOperation::Read
        } else {
            self.cas(partition)
        };
        self.begin_at(client, node, partition as u8, operation);
        self.collect();
    }

    fn cas(&mut self, partition: usize) -> SerialOperation {
        self.values += 1;
        let expected = if self.random.chance(7, 8) {
            self.believed[partition].clone()
        } else {
            None
        };
        let new = (!self.random.chance(1, 8)).then(|| Bytes::from(format!("v{}", self.values)));
        let commit = self.random.pick(&self.commit_levels).copied();
        SerialOperation::Cas {
            expected,
            new,
            commit: commit.unwrap_or(Consistency::Quorum),
        }
    }

    fn begin_at(&mut self, client: usize, node: usize, partition: u8, operation: SerialOperation) {
        let called = self.tick();
        let begun = self
            .world
            .begin_serial(node, partition, self.serial, operation.clone(), TIMEOUT);
        match begun {
            Ok(ticket) => {
                self.clients[client].busy = Some(Busy {
                    ticket,
                    called,
                    partition,
                    operation,
                });
            }
            Err(_) => self.fail(client),
        }
    }

    /// Takes what has ended into the histories.
    fn collect(&mut self) {
        while let Some((ticket, completion)) = self.world.take_completion() {
            let returned = self.tick();
            let is_its = |client: &Client| client.busy.as_ref().is_some_and(|busy| busy.ticket == ticket);
            let client = self.clients.iter().position(is_its).unwrap_or(0);
            if let Some(busy) = self.clients[client].busy.take() {
                self.record(client, busy, returned, completion);
            }
        }
        self.violations.extend(self.world.take_violations());
    }

    /// Who was refused does not try again at once.
    fn fail(&mut self, client: usize) {
        self.failed += 1;
        self.clients[client].next = self.world.now() + REFUSED_PAUSE;
    }

    fn record(&mut self, client: usize, busy: Busy, returned: u64, completion: Completion) {
        let outcome = match completion {
            Completion::Serial(Ok(SerialAnswer { is_applied, found })) => {
                self.succeeded += 1;
                Some(if is_applied {
                    Known::Applied
                } else {
                    Known::Found(found)
                })
            }
            Completion::Serial(Err(error)) => {
                self.fail(client);
                known_of(&error)
            }
            Completion::Lost => {
                self.fail(client);
                Some(Known::Nothing)
            }
            Completion::Reply(_) => {
                let text = "a reply of the wrong kind".to_owned();
                return self.violations.push(Violation::new(6, text));
            }
        };
        let Some(outcome) = outcome else {
            return;
        };
        let at = usize::from(busy.partition);
        match (&busy.operation, &outcome) {
            (SerialOperation::Cas { new, .. }, Known::Applied) => self.believed[at] = new.clone(),
            (_, Known::Found(found)) => self.believed[at] = found.clone(),
            _ => {}
        }
        self.histories[at].push(Operation {
            called: busy.called,
            returned: (outcome != Known::Nothing).then_some(returned),
            what: Done {
                operation: busy.operation,
                outcome,
            },
        });
    }

    fn settle(&mut self, time: Duration) {
        self.world.run_until(self.world.now() + time);
        self.collect();
    }

    /// All is well again: an operation of each kind at each node gets its answer.
    fn progress(&mut self) {
        self.settle(TIMEOUT * 3);
        self.world.heal();
        self.settle(QUIET);
        for node in self.nodes.clone() {
            for partition in 0..self.histories.len() {
                for operation in [SerialOperation::Read, self.cas(partition), SerialOperation::Read] {
                    let failed = self.failed;
                    let text = format!("{operation:?} at node {node} failed though all is well");
                    self.begin_at(0, node, partition as u8, operation);
                    self.settle(TIMEOUT);
                    if self.failed > failed {
                        self.violations.push(Violation::new(0, text));
                    }
                }
            }
        }
        self.settle(QUIET);
    }

    fn check(&mut self) {
        if self.world.waiting() > 0 {
            let text = format!("{} requests were never answered", self.world.waiting());
            self.violations.push(Violation::new(6, text));
        }
        for node in self.world.nodes() {
            let held = node.serial_in_flight() + node.in_flight();
            if held > 0 {
                let text = format!("node {} still holds {held} requests", node.at);
                self.violations.push(Violation::new(8, text));
            }
        }
        for (partition, history) in self.histories.iter().enumerate() {
            let verdict = judge(None, history, step);
            if verdict != Verdict::Linearizable {
                let text = format!(
                    "partition {partition}: {verdict:?}, {} operations\n{}",
                    history.len(),
                    shown(history)
                );
                self.violations.push(Violation::new(9, text));
            }
        }
    }
}

/// What an error says about the operation; None: that it never took effect.
fn known_of(error: &RequestError) -> Option<Known> {
    match error {
        RequestError::WriteTimeout { write_type, .. } | RequestError::WriteFailure { write_type, .. }
            if *write_type == WriteType::Simple =>
        {
            Some(Known::Applied)
        }
        RequestError::Unavailable { .. }
        | RequestError::Overloaded { .. }
        | RequestError::ReadTimeout { .. }
        | RequestError::ReadFailure { .. } => None,
        _ => Some(Known::Nothing),
    }
}

fn shown(history: &[Operation<Done>]) -> String {
    let mut sorted: Vec<_> = history.iter().collect();
    sorted.sort_by_key(|operation| operation.called);
    let text = |value: &Option<Bytes>| match value {
        Some(value) => String::from_utf8_lossy(value).into_owned(),
        None => "-".to_owned(),
    };
    let lines = sorted.into_iter().map(|operation| {
        let what = match &operation.what.operation {
            SerialOperation::Cas { expected, new, .. } => format!("{} -> {}", text(expected), text(new)),
            SerialOperation::Read => "read".to_owned(),
        };
        let outcome = match &operation.what.outcome {
            Known::Applied => "applied".to_owned(),
            Known::Found(found) => format!("found {}", text(found)),
            Known::Nothing => "?".to_owned(),
        };
        format!(
            "    {:>5}..{:?} {what}: {outcome}",
            operation.called, operation.returned
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}
