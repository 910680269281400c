//! A coordinator with replicas in memory that answer at once, and the laws that hold whatever they store.
#![allow(clippy::unwrap_used)]

mod laws;
mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_internode::{AnswerKind, Digest, FailureReason, HostId, Message, ReadAnswer};
use ceto_model::evaluate::evaluate;
use ceto_model::key::{BOUND_AFTER, BOUND_BEFORE, COMPONENT, KEY_END};
use ceto_model::read::{ColumnSelection, Slices};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, ColumnId, Consistency, DecoratedKey, Deletion, Liveness, Mutation,
    Partition, PartitionKey, PartitionRange, Position, RangeTombstone, ReadCommand, ReadLimits, ReadResult,
    ReadTarget, RingPosition, Row, Slice, TableId, Timestamp, UnixSeconds, WriteType,
};
use uuid::Uuid;

use super::*;
use crate::replication::{ReplicaMap, Strategy as Replication};
use crate::ring::Ring;
use crate::ring::tests::{host, node};

const TABLE: TableId = TableId(Uuid::from_u128(5));
const NOW: UnixSeconds = UnixSeconds(1000);

/// One replica's rows.
type Store = BTreeMap<DecoratedKey, Partition>;

fn apply(store: &mut Store, mutation: Mutation) {
    store.entry(mutation.key).or_default().merge(mutation.partition);
}

/// Coordinates on host 1; replicas answer when `run` is called.
struct Bench {
    coordinator: Coordinator,
    map: Arc<ReplicaMap>,
    stores: BTreeMap<HostId, Store>,
    silent: Vec<HostId>,
    failing: Vec<HostId>,
    /// Connections to these break when they are used.
    cut_off: Vec<HostId>,
    hints: Vec<HostId>,
    replies: Vec<Reply>,
    mutations_sent: usize,
    start: Instant,
}

impl Bench {
    fn new(nodes: usize, strategy: Replication) -> Bench {
        let span = 1i64 << 40;
        let ring = (1..=nodes as u128).map(|id| {
            let tokens: Vec<i64> = (0..3)
                .map(|i| (i64::MIN >> 1) + (i * nodes as i64 + id as i64) * span * 100_000)
                .collect();
            node(id, if id <= 3 { "east" } else { "west" }, "r", &tokens)
        });
        let ring = Arc::new(Ring::new(ring).unwrap());
        Bench {
            coordinator: Coordinator::new(host(1), Limits::default(), 1),
            map: Arc::new(ReplicaMap::new(ring, strategy, host(1))),
            stores: (1..=nodes as u128).map(|id| (host(id), Store::new())).collect(),
            silent: Vec::new(),
            failing: Vec::new(),
            cut_off: Vec::new(),
            hints: Vec::new(),
            replies: Vec::new(),
            mutations_sent: 0,
            #[allow(clippy::disallowed_methods)] // any fixed point will do
            start: Instant::now(),
        }
    }

    fn simple(nodes: usize, replication_factor: u32) -> Bench {
        Bench::new(nodes, Replication::Simple { replication_factor })
    }

    fn write(&mut self, consistency: Consistency, mutation: Mutation) -> Result<(), RequestError> {
        let mut out = Actions::new();
        let map = self.map.clone();
        let context = RequestContext {
            replication: &map,
            consistency,
            deadline: self.start + Duration::from_secs(2),
        };
        self.coordinator
            .begin_write(context, WriteType::Simple, mutation, &mut out)?;
        match self.finish(&mut out) {
            Reply::Write(outcome) => outcome,
            Reply::Read(_) => panic!("a write was answered as a read"),
        }
    }

    fn read(
        &mut self,
        consistency: Consistency,
        options: ReadOptions,
        command: ReadCommand,
    ) -> Result<ReadResult, RequestError> {
        let mut out = Actions::new();
        let map = self.map.clone();
        let context = RequestContext {
            replication: &map,
            consistency,
            deadline: self.start + Duration::from_secs(2),
        };
        self.coordinator
            .begin_read(self.start, context, options, command, &mut out)?;
        match self.finish(&mut out) {
            Reply::Read(outcome) => outcome,
            Reply::Write(_) => panic!("a read was answered as a write"),
        }
    }

    /// Runs until nothing is left to do but timers, then these; exactly one reply must come out.
    fn finish(&mut self, out: &mut Actions) -> Reply {
        self.run(self.start, out);
        while let Some(at) = self.coordinator.next_timeout() {
            self.coordinator.handle_timeout(at, out);
            self.run(at, out);
        }
        assert_eq!(self.coordinator.in_flight(), 0, "nothing may stay behind");
        assert_eq!(self.coordinator.lingering(), 0);
        assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
        self.replies.pop().unwrap()
    }

    fn run(&mut self, now: Instant, out: &mut Actions) {
        while let Some(action) = out.pop() {
            match action {
                Action::Apply { reply_to, mutation } => {
                    let local = host(1);
                    if let Some(outcome) = self.take(local, mutation) {
                        self.coordinator.applied(now, reply_to, outcome, out);
                    }
                }
                Action::Read {
                    reply_to,
                    kind,
                    command,
                } => {
                    if let Some(outcome) = self.look(host(1), &command) {
                        self.coordinator.read_done(now, reply_to, kind, outcome, out);
                    }
                }
                Action::Send { to, message } => {
                    assert_ne!(to, host(1), "a message to itself");
                    if self.cut_off.contains(&to) {
                        self.coordinator.peer_lost(now, to, out);
                    } else if let Some(answer) = self.answer(to, message) {
                        self.coordinator.handle(now, to, answer.clone(), out);
                        // Every network delivers twice now and then.
                        self.coordinator.handle(now, to, answer, out);
                    }
                }
                Action::StoreHint { replica, request, .. } => {
                    self.hints.push(replica);
                    self.coordinator.hint_stored(now, request, out);
                }
                Action::Reply { reply, .. } => self.replies.push(reply),
            }
        }
    }

    fn take(&mut self, at: HostId, mutation: Mutation) -> Option<Result<(), FailureReason>> {
        if self.silent.contains(&at) {
            return None;
        }
        if self.failing.contains(&at) {
            return Some(Err(FailureReason::StorageRefused));
        }
        apply(self.stores.get_mut(&at).unwrap(), mutation);
        Some(Ok(()))
    }

    fn look(&self, at: HostId, command: &ReadCommand) -> Option<Result<ReadResult, FailureReason>> {
        if self.silent.contains(&at) {
            return None;
        }
        if self.failing.contains(&at) {
            return Some(Err(FailureReason::TooManyTombstones));
        }
        Some(Ok(evaluate(command, self.stores.get(&at).unwrap())))
    }

    fn answer(&mut self, to: HostId, message: Message) -> Option<Message> {
        let exchange = message.exchange();
        let answer = match message {
            Message::Mutate { mutation, .. } => {
                self.mutations_sent += 1;
                self.take(to, Mutation::clone(&mutation))?
                    .map(|()| Message::MutateAck { exchange })
            }
            Message::Read { kind, command, .. } => {
                self.look(to, &command)?.map(|result| Message::ReadResponse {
                    exchange,
                    answer: match kind {
                        AnswerKind::Data => ReadAnswer::Data(result),
                        AnswerKind::Digest => ReadAnswer::Digest(Digest::of(&result, &mut Vec::new())),
                    },
                })
            }
            other => panic!("no replica is sent {other:?}"),
        };
        Some(answer.unwrap_or_else(|reason| Message::Failure { exchange, reason }))
    }
}

fn key(id: u8) -> DecoratedKey {
    DecoratedKey::new(PartitionKey(Bytes::from(vec![id])))
}

fn clustering(id: u8) -> ClusteringKey {
    ClusteringKey(Bytes::from(vec![COMPONENT, id, KEY_END]))
}

fn set(id: u8, row: u8, timestamp: i64) -> Mutation {
    let mut mutation = Mutation::new(TABLE, key(id));
    let cell = Cell::live(Timestamp(timestamp), Bytes::from(timestamp.to_string()));
    mutation
        .partition
        .row_mut(clustering(row))
        .merge_column(ColumnId(1), ColumnData::Cell(cell));
    mutation
}

fn delete(id: u8, row: u8, timestamp: i64) -> Mutation {
    let mut mutation = Mutation::new(TABLE, key(id));
    mutation.partition.row_mut(clustering(row)).delete(Deletion {
        timestamp: Timestamp(timestamp),
        deleted_at: NOW,
    });
    mutation
}

fn select(target: ReadTarget) -> ReadCommand {
    ReadCommand {
        table: TABLE,
        target,
        slices: Slices::from_elem(Slice::full(), 1),
        first_partition_slices: None,
        reversed: false,
        columns: ColumnSelection::All,
        now: NOW,
        limits: ReadLimits::NONE,
        keep_tombstones: false,
        bypass_cache: false,
        index: None,
    }
}

fn one(id: u8) -> ReadCommand {
    select(ReadTarget::Partition(key(id)))
}
