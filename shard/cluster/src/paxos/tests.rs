//! Nodes in one place that hear each other at once, unless told otherwise: the paths of single operations, and what
//! clients are told. What holds whatever happens is for the simulation (`ceto-sim --serial`).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_internode::{ExchangeId, FailureReason, HostId, Message, PaxosMessage, RequestId};
use ceto_model::{
    Consistency, DecoratedKey, Deletion, Mutation, PartitionKey, TableId, Timestamp, UnixSeconds, WriteType,
};
use uuid::Uuid;

use super::*;
use crate::coordinator::RequestError;
use crate::replication::{ReplicaMap, Strategy};
use crate::ring::Ring;
use crate::ring::tests::{host, node};

const TIMEOUT: Duration = Duration::from_secs(1);

fn partition(name: &'static str) -> PartitionId {
    PartitionId {
        table: TableId(Uuid::from_u128(5)),
        key: DecoratedKey::new(PartitionKey(Bytes::from_static(name.as_bytes()))),
    }
}

struct Place {
    paxos: Paxos,
    actions: PaxosActions,
    states: BTreeMap<PartitionId, AcceptorState>,
    applied: Vec<Timestamp>,
    map: Arc<ReplicaMap>,
}

/// What a message is, for rules about who hears what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Prepare,
    Propose,
    Commit,
}

fn step_of(body: &PaxosMessage) -> Option<Step> {
    match body {
        PaxosMessage::Prepare { .. } => Some(Step::Prepare),
        PaxosMessage::Propose { .. } => Some(Step::Propose),
        PaxosMessage::Commit { .. } => Some(Step::Commit),
        _ => None,
    }
}

struct Bench {
    places: BTreeMap<HostId, Place>,
    wires: VecDeque<(HostId, HostId, ExchangeId, PaxosMessage)>,
    /// Requests of this kind never reach these.
    deaf: Vec<(Step, HostId)>,
    /// These cannot store.
    failing: Vec<HostId>,
    /// Conditions hold.
    holds: bool,
    /// Questions that are not answered by themselves.
    holds_back: bool,
    examined: Vec<(RequestId, Timestamp)>,
    replies: Vec<PaxosReply>,
    hints: Vec<HostId>,
    sent: Vec<Step>,
    now: Instant,
}

impl Bench {
    fn new(nodes: u128) -> Bench {
        let ring = (1..=nodes).map(|id| node(id, "east", "r", &[id as i64]));
        let ring = Arc::new(Ring::new(ring).unwrap());
        let strategy = Strategy::Simple {
            replication_factor: nodes as u32,
        };
        #[allow(clippy::disallowed_methods)] // any fixed point will do
        let now = Instant::now();
        let places = (1..=nodes).map(|id| {
            let map = Arc::new(ReplicaMap::new(ring.clone(), strategy.clone(), host(id)));
            let limits = PaxosLimits {
                queue_max: 2,
                ..PaxosLimits::default()
            };
            let place = Place {
                paxos: Paxos::new(host(id), limits, 7, now, Timestamp(1_000_000 * id as i64)),
                actions: PaxosActions::new(),
                states: BTreeMap::new(),
                applied: Vec::new(),
                map,
            };
            (host(id), place)
        });
        Bench {
            places: places.collect(),
            wires: VecDeque::new(),
            deaf: Vec::new(),
            failing: Vec::new(),
            holds: true,
            holds_back: false,
            examined: Vec::new(),
            replies: Vec::new(),
            hints: Vec::new(),
            sent: Vec::new(),
            now,
        }
    }

    fn place(&mut self, id: u128) -> &mut Place {
        self.places.get_mut(&host(id)).unwrap()
    }

    fn begin(&mut self, id: u128, kind: PaxosKind) -> Result<RequestId, RequestError> {
        let now = self.now;
        let place = self.place(id);
        let context = CasContext {
            replication: &place.map,
            serial_consistency: Consistency::Serial,
            deadline: now + TIMEOUT,
            commit_timeout: TIMEOUT,
            state_ttl: Duration::from_secs(600),
        };
        let request = place
            .paxos
            .begin(now, context, kind, partition("a"), &mut place.actions);
        self.run();
        request
    }

    fn cas(&mut self, id: u128) -> PaxosReply {
        self.begin(id, PaxosKind::Cas(Consistency::Quorum)).unwrap();
        self.replies.pop().unwrap()
    }

    fn examine(&mut self, id: HostId, request: RequestId, timestamp: Timestamp) {
        let change = self.holds.then(|| {
            let mut mutation = Mutation::new(partition("a").table, partition("a").key);
            mutation.partition.deletion = Some(Deletion {
                timestamp,
                deleted_at: UnixSeconds(1),
            });
            mutation
        });
        let now = self.now;
        let place = self.places.get_mut(&id).unwrap();
        place.paxos.examined(now, request, Ok(change), &mut place.actions);
    }

    /// Until nothing moves.
    fn run(&mut self) {
        let ids: Vec<HostId> = self.places.keys().copied().collect();
        loop {
            for id in &ids {
                while let Some(action) = self.places.get_mut(id).unwrap().actions.pop() {
                    self.perform(*id, action);
                }
            }
            let Some((from, to, exchange, body)) = self.wires.pop_front() else {
                if ids.iter().all(|id| self.places[id].actions.is_empty()) {
                    return;
                }
                continue;
            };
            let now = self.now;
            let place = self.places.get_mut(&to).unwrap();
            place.paxos.handle(now, from, exchange, body, &mut place.actions);
        }
    }

    fn perform(&mut self, id: HostId, action: PaxosAction) {
        let now = self.now;
        let fails = self.failing.contains(&id);
        let place = self.places.get_mut(&id).unwrap();
        match action {
            PaxosAction::Send { to, message } => {
                let Message::Paxos { exchange, body } = message else {
                    panic!("the core sends its own messages only");
                };
                let step = step_of(&body);
                self.sent.extend(step);
                if !step.is_some_and(|step| self.deaf.contains(&(step, to))) {
                    self.wires.push_back((id, to, exchange, body));
                }
            }
            PaxosAction::LoadState { partition } => {
                let state = place.states.get(&*partition).cloned().unwrap_or_default();
                place.paxos.loaded(now, &partition, Ok(state), &mut place.actions);
            }
            PaxosAction::StoreState {
                partition,
                state,
                apply,
            } => {
                let outcome = if fails {
                    Err(FailureReason::StorageRefused)
                } else {
                    let deletion = apply.and_then(|mutation| mutation.partition.deletion);
                    place.applied.extend(deletion.map(|deletion| deletion.timestamp));
                    place.states.insert(PartitionId::clone(&partition), state);
                    Ok(())
                };
                place.paxos.stored(now, &partition, outcome, &mut place.actions);
            }
            PaxosAction::Examine {
                request, timestamp, ..
            } => {
                self.examined.push((request, timestamp));
                if !self.holds_back {
                    self.examine(id, request, timestamp);
                }
            }
            PaxosAction::StoreHint { replica, .. } => self.hints.push(replica),
            PaxosAction::Reply { reply, .. } => self.replies.push(reply),
        }
    }

    /// Lets time pass at all nodes.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self
            .places
            .values()
            .filter_map(|place| place.paxos.next_timeout())
            .min()
            .filter(|at| *at <= end)
        {
            self.now = self.now.max(at);
            let now = self.now;
            for place in self.places.values_mut() {
                place.paxos.handle_timeout(now, &mut place.actions);
            }
            self.run();
        }
        self.now = end;
    }

    fn is_at_rest(&self) -> bool {
        self.places.values().all(|place| {
            place.paxos.in_flight() == 0 && place.paxos.queued() == 0 && place.paxos.acceptor_waiting() == 0
        })
    }
}

fn timeout(received: u32, write_type: WriteType) -> PaxosReply {
    let consistency = match write_type {
        WriteType::Cas => Consistency::Serial,
        _ => Consistency::Quorum,
    };
    PaxosReply::Cas(Err(RequestError::WriteTimeout {
        consistency,
        received,
        required: 2,
        write_type,
    }))
}

#[test]
fn one_update_takes_three_steps_and_a_failed_condition_two() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.cas(1), PaxosReply::Cas(Ok(true)));
    use Step::{Commit, Prepare, Propose};
    assert_eq!(bench.sent, [Prepare, Prepare, Propose, Propose, Commit, Commit]);
    let applied = bench.place(1).applied.clone();
    assert_eq!(applied.len(), 1);
    assert!((2..=3).all(|id| bench.place(id).applied == applied));

    bench.sent.clear();
    bench.holds = false;
    assert_eq!(bench.cas(2), PaxosReply::Cas(Ok(false)));
    assert_eq!(bench.sent, [Prepare, Prepare, Propose, Propose]);
    assert_eq!(bench.place(2).applied, applied);
    assert!(bench.is_at_rest());
}

#[test]
fn timestamps_grow_whatever_the_clocks_say() {
    let mut bench = Bench::new(3);
    // Clocks of nodes 2 and 3 are a second and two ahead of node 1's.
    for id in [3, 2, 1, 3, 1] {
        let began = bench.replies.len();
        bench.begin(id, PaxosKind::Cas(Consistency::Quorum)).unwrap();
        bench.wait(TIMEOUT / 2);
        assert_eq!(bench.replies[began..], [PaxosReply::Cas(Ok(true))]);
    }
    let applied = &bench.place(2).applied;
    assert_eq!(applied.len(), 5);
    assert!(applied.is_sorted_by(|a, b| a < b), "{applied:?}");
}

#[test]
fn operations_of_one_partition_queue_up_to_a_bound() {
    let mut bench = Bench::new(3);
    bench.holds_back = true;
    for _ in 0..3 {
        bench.begin(1, PaxosKind::Cas(Consistency::Quorum)).unwrap();
    }
    assert_eq!(bench.examined.len(), 1, "the others wait behind the first");
    let refused = bench.begin(1, PaxosKind::Read);
    assert_eq!(refused, Err(RequestError::Overloaded { in_flight_max: 2 }));
    for at in 0..3 {
        let (request, timestamp) = bench.examined[at];
        bench.examine(host(1), request, timestamp);
        bench.run();
    }
    assert_eq!(bench.replies, vec![PaxosReply::Cas(Ok(true)); 3]);
    assert!(bench.is_at_rest());
}

#[test]
fn who_waits_too_long_behind_another_learns_that_nothing_was_tried() {
    let mut bench = Bench::new(3);
    bench.holds_back = true;
    bench.begin(1, PaxosKind::Cas(Consistency::Quorum)).unwrap();
    bench.begin(1, PaxosKind::Cas(Consistency::Quorum)).unwrap();
    bench.wait(TIMEOUT * 2);
    assert_eq!(
        bench.replies,
        [timeout(1, WriteType::Cas), timeout(0, WriteType::Cas)]
    );
    assert!(bench.is_at_rest());
}

#[test]
fn too_few_acceptors_are_refused_with_the_count() {
    let mut bench = Bench::new(3);
    for id in [2, 3] {
        bench.place(1).paxos.set_alive(host(id), false);
    }
    let unavailable = RequestError::Unavailable {
        consistency: Consistency::Serial,
        required: 2,
        alive: 1,
    };
    assert_eq!(bench.cas(1), PaxosReply::Cas(Err(unavailable.clone())));
    bench.begin(1, PaxosKind::Read).unwrap();
    assert_eq!(bench.replies, [PaxosReply::Read(Err(unavailable))]);
    assert!(bench.sent.is_empty());
}

#[test]
fn a_late_commit_is_a_timeout_of_a_simple_write_and_leaves_hints() {
    let mut bench = Bench::new(3);
    bench.deaf = vec![(Step::Commit, host(2)), (Step::Commit, host(3))];
    bench.begin(1, PaxosKind::Cas(Consistency::Quorum)).unwrap();
    assert!(bench.replies.is_empty());
    bench.wait(TIMEOUT * 3);
    assert_eq!(bench.replies, [timeout(1, WriteType::Simple)]);
    bench.hints.sort();
    assert_eq!(bench.hints, [host(2), host(3)]);
    // What was decided is completed by whoever comes next.
    bench.deaf.clear();
    bench.replies.clear();
    bench.begin(2, PaxosKind::Read).unwrap();
    bench.wait(TIMEOUT);
    assert_eq!(bench.replies, [PaxosReply::Read(Ok(()))]);
    let applied = bench.place(1).applied.clone();
    assert_eq!(bench.place(2).applied, applied);
    assert!(bench.is_at_rest());
}

#[test]
fn a_proposal_that_one_acceptor_took_is_completed_by_the_next() {
    let mut bench = Bench::new(3);
    bench.deaf = vec![(Step::Propose, host(2)), (Step::Propose, host(3))];
    bench.begin(1, PaxosKind::Cas(Consistency::Quorum)).unwrap();
    bench.wait(TIMEOUT * 2);
    assert_eq!(bench.replies, [timeout(1, WriteType::Cas)]);
    assert!(bench.places.values().all(|place| place.applied.is_empty()));
    bench.deaf.clear();
    bench.replies.clear();
    // Node 1's promise is among the first two that node 3 gets.
    bench.deaf = vec![(Step::Prepare, host(2))];
    bench.begin(3, PaxosKind::Read).unwrap();
    bench.wait(TIMEOUT);
    assert_eq!(bench.replies, [PaxosReply::Read(Ok(()))]);
    assert!(bench.places.values().all(|place| place.applied.len() == 1));
}

#[test]
fn a_proposal_refused_by_some_is_unknown_once_others_went_on() {
    let mut bench = Bench::new(3);
    bench.holds_back = true;
    bench.begin(1, PaxosKind::Cas(Consistency::Quorum)).unwrap();
    let (request, timestamp) = bench.examined[0];
    // Nodes 2 and 3 promise node 2's ballot meanwhile; node 1 does not hear of it.
    bench.deaf = [Step::Prepare, Step::Propose, Step::Commit]
        .map(|step| (step, host(1)))
        .to_vec();
    bench.holds_back = false;
    assert_eq!(bench.cas(2), PaxosReply::Cas(Ok(true)));
    bench.deaf.clear();
    bench.examine(host(1), request, timestamp);
    bench.run();
    bench.wait(TIMEOUT);
    let unknown = RequestError::CasWriteUnknown {
        consistency: Consistency::Serial,
        received: 1,
        required: 2,
    };
    assert_eq!(bench.replies, [PaxosReply::Cas(Err(unknown))]);
    assert!(bench.is_at_rest());
}

#[test]
fn failures_and_lost_links_are_told_at_once() {
    let mut bench = Bench::new(3);
    bench.failing = vec![host(2), host(3)];
    let PaxosReply::Cas(Err(RequestError::WriteFailure {
        failures, write_type, ..
    })) = bench.cas(1)
    else {
        panic!("not a failure: {:?}", bench.replies);
    };
    assert_eq!(write_type, WriteType::Cas);
    assert_eq!(failures.len(), 2);

    bench.failing.clear();
    bench.deaf = vec![(Step::Prepare, host(2)), (Step::Prepare, host(3))];
    bench.begin(1, PaxosKind::Cas(Consistency::Quorum)).unwrap();
    for id in [2, 3] {
        let now = bench.now;
        let place = bench.place(1);
        place.paxos.peer_lost(now, host(id), &mut place.actions);
        bench.run();
    }
    assert_eq!(bench.replies, [timeout(1, WriteType::Cas)]);
    assert!(bench.is_at_rest());
}

fn move_to(bench: &mut Bench, pending: &[u128]) {
    let nodes = bench.places.len() as u128;
    let replication_factor = nodes as u32 - pending.len() as u32;
    let ring = |without: &dyn Fn(u128) -> bool| {
        let tokens = |id| if without(id) { vec![] } else { vec![id as i64] };
        Ring::new((1..=nodes).map(|id| node(id, "east", "r", &tokens(id)))).unwrap()
    };
    let present = Arc::new(ring(&|id| pending.contains(&id)));
    let future = ring(&|id| (1..=pending.len() as u128).contains(&id));
    let strategy = Strategy::Simple { replication_factor };
    for (host, place) in &mut bench.places {
        let map = ReplicaMap::between(present.clone(), Some(&future), strategy.clone(), *host);
        place.map = Arc::new(map);
    }
}

#[test]
fn a_node_that_is_about_to_be_a_replica_votes_and_two_of_them_are_too_many() {
    let mut bench = Bench::new(4);
    move_to(&mut bench, &[4]);
    assert_eq!(bench.cas(1), PaxosReply::Cas(Ok(true)));
    assert_eq!(bench.place(4).applied.len(), 1);
    bench.place(1).paxos.set_alive(host(3), false);
    bench.place(1).paxos.set_alive(host(4), false);
    let unavailable = |required, alive| {
        PaxosReply::Cas(Err(RequestError::Unavailable {
            consistency: Consistency::Serial,
            required,
            alive,
        }))
    };
    assert_eq!(bench.cas(1), unavailable(3, 2), "three of four");

    let mut bench = Bench::new(5);
    move_to(&mut bench, &[4, 5]);
    assert_eq!(bench.cas(1), unavailable(6, 5));
}
