//! The pump's part for conditional updates and serial reads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_cluster::coordinator::{ReadOptions, Reply, RequestContext, RequestError};
use ceto_cluster::paxos::{AcceptorRule, CasContext, PartitionId, PaxosAction, PaxosKind, PaxosReply};
use ceto_internode::RequestId;
use ceto_model::{
    Cell, CellState, ColumnData, ColumnId, Consistency, Mutation, ReadResult, Timestamp, UnixSeconds,
};

use super::{Completion, Event, Ticket, World};
use crate::oracle::Violation;
use crate::serial::{SerialAnswer, SerialOperation, SerialRead, Task};
use crate::workload::{ReadOperation, TABLE, clustering, key};

/// The register: this column of row 0.
const COLUMN: ColumnId = ColumnId(1);
/// Longer than any run.
const STATE_TTL: Duration = Duration::from_secs(3600);

fn change(partition: u8, value: Option<&Bytes>, timestamp: Timestamp) -> Mutation {
    let mut mutation = Mutation::new(TABLE, key(partition));
    let cell = match value {
        Some(value) => Cell::live(timestamp, value.clone()),
        None => Cell::tombstone(timestamp, UnixSeconds(timestamp.0 / 1_000_000)),
    };
    mutation
        .partition
        .row_mut(clustering(0))
        .merge_column(COLUMN, ColumnData::Cell(cell));
    mutation
}

fn found(result: &ReadResult) -> Option<Bytes> {
    let rows = result.partitions.iter().flat_map(|part| &part.partition.rows);
    rows.flat_map(|(_, row)| &row.columns)
        .find_map(|(column, data)| match data {
            ColumnData::Cell(cell) if *column == COLUMN => match &cell.state {
                CellState::Live(value) => Some(value.clone()),
                _ => None,
            },
            _ => None,
        })
}

impl World {
    /// Breaks all acceptors.
    pub fn set_acceptor_rule(&mut self, rule: AcceptorRule) {
        self.nodes.iter_mut().for_each(|node| node.serial.set_rule(rule));
    }

    /// Asks `node` for a conditional update or serial read at `serial`.
    ///
    /// # Errors
    /// When it refuses at once; None when it is down.
    pub fn begin_serial(
        &mut self,
        node: usize,
        partition: u8,
        serial: Consistency,
        operation: SerialOperation,
        timeout: Duration,
    ) -> Result<Ticket, Option<RequestError>> {
        let now = self.now;
        let at = &mut self.nodes[node];
        if !at.is_up {
            return Err(None);
        }
        let local = at.clock.monotonic(now);
        let context = CasContext {
            replication: &at.map,
            serial_consistency: serial,
            deadline: local + timeout,
            commit_timeout: timeout,
            state_ttl: STATE_TTL,
        };
        let kind = match operation {
            SerialOperation::Cas { commit, .. } => PaxosKind::Cas(commit),
            SerialOperation::Read => PaxosKind::Read,
        };
        let id = PartitionId {
            table: TABLE,
            key: key(partition),
        };
        let request = at
            .serial
            .paxos
            .begin(local, context, kind, id, &mut at.serial.actions)
            .map_err(Some)?;
        // A decision and a commit, or a decision and a read.
        let ticket = self.ticket(node, timeout * 2);
        let task = Task {
            ticket,
            partition,
            operation,
            deadline: local + timeout * 2,
            read_level: match serial {
                Consistency::LocalSerial => Consistency::LocalQuorum,
                _ => Consistency::Quorum,
            },
            found: None,
        };
        self.nodes[node].serial.tasks.insert(request, task);
        self.pump(node);
        Ok(ticket)
    }

    pub(super) fn perform_serial(&mut self, at: usize, action: PaxosAction) {
        match action {
            PaxosAction::Send { to, message } => self.send(at, to, &message),
            PaxosAction::LoadState { .. } | PaxosAction::StoreState { .. } => {
                self.serial_work_or_defer(at, action)
            }
            PaxosAction::Examine {
                request,
                timestamp,
                consistency,
            } => {
                let Some(task) = self.nodes[at].serial.tasks.get(&request) else {
                    return;
                };
                let partition = task.partition;
                let why = SerialRead::Examine(request, timestamp);
                if let Err(error) = self.read_register(at, request, partition, consistency, why) {
                    self.examined(at, request, Err(error));
                }
            }
            PaxosAction::StoreHint { replica, mutation } => {
                let replica = self.index_of(replica);
                self.nodes[at].hints.push((replica, mutation));
            }
            PaxosAction::Reply { request, reply } => self.serial_reply(at, request, reply),
        }
    }

    fn read_register(
        &mut self,
        at: usize,
        request: RequestId,
        partition: u8,
        consistency: Consistency,
        why: SerialRead,
    ) -> Result<(), RequestError> {
        let now = self.now;
        let node = &mut self.nodes[at];
        let operation = ReadOperation {
            partition: Some(partition),
            rows: 0..=0,
            reversed: false,
            limit: 1,
            consistency,
            options: ReadOptions::default(),
        };
        let local = node.clock.monotonic(now);
        let deadline = node
            .serial
            .tasks
            .get(&request)
            .map_or(local, |task| task.deadline);
        let context = RequestContext {
            replication: &node.map,
            consistency,
            deadline,
        };
        let command = operation.command(node.clock.seconds(now));
        let read =
            node.coordinator
                .begin_read(local, context, operation.options, command, &mut node.actions)?;
        node.serial.reads.insert(read, why);
        Ok(())
    }

    fn examined(&mut self, at: usize, request: RequestId, outcome: Result<Option<Mutation>, RequestError>) {
        let node = &mut self.nodes[at];
        let local = node.clock.monotonic(self.now);
        let part = &mut node.serial;
        part.paxos.examined(local, request, outcome, &mut part.actions);
    }

    pub(super) fn serial_read_ended(&mut self, at: usize, read: SerialRead, reply: Reply) {
        let Reply::Read(outcome) = reply else {
            let text = "a register was read and a write was answered".to_owned();
            return self.violations.push(Violation::new(6, text));
        };
        match read {
            SerialRead::Examine(request, timestamp) => {
                let Some(task) = self.nodes[at].serial.tasks.get_mut(&request) else {
                    return;
                };
                let outcome = outcome.map(|result| {
                    task.found = found(&result);
                    match &task.operation {
                        SerialOperation::Cas { expected, new, .. } => {
                            (*expected == task.found).then(|| change(task.partition, new.as_ref(), timestamp))
                        }
                        SerialOperation::Read => None,
                    }
                });
                self.examined(at, request, outcome);
            }
            SerialRead::Answer(ticket) => {
                let answer = outcome.map(|result| SerialAnswer {
                    is_applied: false,
                    found: found(&result),
                });
                self.complete(at, ticket, Completion::Serial(answer));
            }
        }
    }

    fn serial_reply(&mut self, at: usize, request: RequestId, reply: PaxosReply) {
        let Some(task) = self.nodes[at].serial.tasks.get(&request).cloned() else {
            let text = format!("a second reply to {request:?} of node {at}: {reply:?}");
            return self.violations.push(Violation::new(6, text));
        };
        let outcome = match reply {
            PaxosReply::Read(Ok(())) => {
                let why = SerialRead::Answer(task.ticket);
                let begun = self.read_register(at, request, task.partition, task.read_level, why);
                begun.err().map(Err)
            }
            PaxosReply::Cas(Ok(is_applied)) => {
                let found = task.found.clone();
                Some(Ok(SerialAnswer { is_applied, found }))
            }
            PaxosReply::Read(Err(error)) | PaxosReply::Cas(Err(error)) => Some(Err(error)),
        };
        self.nodes[at].serial.tasks.remove(&request);
        if let Some(outcome) = outcome {
            self.complete(at, task.ticket, Completion::Serial(outcome));
        }
    }

    fn serial_work_or_defer(&mut self, at: usize, mut action: PaxosAction) {
        if self.instant_work || self.random.chance(1, 2) {
            return self.serial_work(at, action);
        }
        // A crash may come between the change and the state.
        if let PaxosAction::StoreState { apply, .. } = &mut action
            && self.random.chance(1, 2)
            && let Some(mutation) = apply.take()
        {
            let mutation = Arc::unwrap_or_clone(mutation);
            self.nodes[at].replica.apply(mutation, &mut self.random);
        }
        let delay = Duration::from_micros(self.random.between(1..=2000));
        let life = self.nodes[at].life;
        let event = Event::SerialWork {
            node: at,
            life,
            action,
        };
        self.schedule(self.now + delay, event);
    }

    pub(super) fn serial_work(&mut self, at: usize, action: PaxosAction) {
        let node = &mut self.nodes[at];
        let local = node.clock.monotonic(self.now);
        let part = &mut node.serial;
        match action {
            PaxosAction::LoadState { partition } => {
                let state = part.states.get(&*partition).cloned().unwrap_or_default();
                part.paxos.loaded(local, &partition, Ok(state), &mut part.actions);
            }
            PaxosAction::StoreState {
                partition,
                state,
                apply,
            } => {
                if let Some(mutation) = apply {
                    let mutation = Arc::unwrap_or_clone(mutation);
                    node.replica.apply(mutation, &mut self.random);
                }
                part.states.insert(PartitionId::clone(&partition), state);
                part.paxos.stored(local, &partition, Ok(()), &mut part.actions);
            }
            PaxosAction::Send { .. }
            | PaxosAction::Examine { .. }
            | PaxosAction::StoreHint { .. }
            | PaxosAction::Reply { .. } => {}
        }
    }
}
