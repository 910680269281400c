//! Conditional updates and reads at SERIAL over several nodes: the Paxos core, driven.
//!
//! ```text
//! the client's shard           the shard that owns the token              the same shard of other nodes
//!   conditional.rs  --begin-->   core  <------ Paxos messages ------>       core
//!        ^  |                    |  ^
//!        |  `--- examined -------+--'   state.rs: system.paxos
//!        `------ next step ------'
//! ```
//!
//! The client's shard asks for the next step and gets one: to read and judge the condition, or the end. So conditions
//! are evaluated where the statement is, and each operation begins where its partition's queue is.
//!
//! Never: a step that nobody takes. An operation that ends while its condition is judged keeps its end until the
//! judgement is there.

mod state;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ceto_cluster::RequestError;
use ceto_cluster::paxos::{
    AcceptorState, CasContext, PartitionId, Paxos, PaxosAction, PaxosActions, PaxosKind, PaxosLimits,
    PaxosReply,
};
use ceto_env::TaskQueue;
use ceto_internode::{ExchangeId, HostId, PaxosMessage, RequestId};
use ceto_model::{Consistency, Mutation, Table, Timestamp};
use rustc_hash::FxHashMap;

use crate::message::ReplicaFailure;
use crate::metrics::Samples;
use crate::node::Node;
use crate::slots::{Answer, Slots};

/// What an operation wants next of the shard that has begun it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PaxosStep {
    /// Read at this level and judge; then [`Node::paxos_examined`].
    Examine {
        request: RequestId,
        timestamp: Timestamp,
        consistency: Consistency,
    },
    /// It has ended.
    Ended(PaxosReply),
}

/// An operation to be begun.
pub(crate) struct PaxosOperation {
    pub(crate) kind: PaxosKind,
    /// SERIAL or LOCAL_SERIAL.
    pub(crate) serial_consistency: Consistency,
    pub(crate) partition: PartitionId,
    pub(crate) deadline: Instant,
}

/// The core of one shard with the operations that wait for it.
pub(crate) struct PaxosPump {
    core: RefCell<Paxos>,
    steps: Slots<PaxosStep>,
    /// Operations whose shard waits for a step.
    waiting: RefCell<FxHashMap<RequestId, u32>>,
    /// Ends that came while a condition was judged.
    early: RefCell<FxHashMap<RequestId, PaxosStep>>,
    timer: RefCell<Option<Instant>>,
}

impl PaxosPump {
    /// Of a shard of the node `local`.
    pub(crate) fn new(local: HostId, shard: u16, seed: u64, now: Instant, wall: Timestamp) -> PaxosPump {
        let core = Paxos::new(local, PaxosLimits::default(), seed, now, wall).of_shard(shard);
        PaxosPump {
            core: RefCell::new(core),
            steps: Slots::default(),
            waiting: RefCell::default(),
            early: RefCell::default(),
            timer: RefCell::default(),
        }
    }

    /// Tells the core that a peer is there or not.
    pub(crate) fn set_alive(&self, peer: HostId, is_alive: bool) {
        self.core.borrow_mut().set_alive(peer, is_alive);
    }

    fn expect(&self, request: RequestId) -> Answer<PaxosStep> {
        let (slot, answer) = self.steps.open();
        self.waiting.borrow_mut().insert(request, slot);
        answer
    }

    fn deliver(&self, request: RequestId, step: PaxosStep) {
        let slot = self.waiting.borrow_mut().remove(&request);
        match slot {
            Some(slot) => {
                self.steps.answer(slot, step);
            }
            None => {
                self.early.borrow_mut().insert(request, step);
            }
        }
    }

    /// Adds everything to `samples`.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        let core = self.core.borrow();
        for (name, help, value) in [
            (
                "ceto_paxos_in_flight",
                "Conditional updates and serial reads under way.",
                core.in_flight(),
            ),
            (
                "ceto_paxos_queued",
                "Conditional updates and serial reads that wait behind another one of their partition.",
                core.queued(),
            ),
            (
                "ceto_paxos_acceptor_waiting",
                "Steps of Paxos that wait for this shard as acceptor.",
                core.acceptor_waiting(),
            ),
        ] {
            samples.gauge(name, help, &[], value as f64);
        }
    }
}

impl Node {
    /// Begins an operation and answers its first step. Called on the shard that owns the partition.
    pub(crate) async fn begin_paxos(
        self: &Rc<Self>,
        table: Arc<Table>,
        operation: PaxosOperation,
    ) -> PaxosStep {
        let kind = operation.kind;
        let failed = |error: RequestError| {
            PaxosStep::Ended(match kind {
                PaxosKind::Cas(_) => PaxosReply::Cas(Err(error)),
                PaxosKind::Read => PaxosReply::Read(Err(error)),
            })
        };
        let Some(replication) = self.replication(&table.keyspace) else {
            let (consistency, required, alive) = (operation.serial_consistency, 1, 0);
            return failed(RequestError::Unavailable {
                consistency,
                required,
                alive,
            });
        };
        let context = CasContext {
            replication: &replication,
            serial_consistency: operation.serial_consistency,
            deadline: operation.deadline,
            commit_timeout: self.settings().limits.write_timeout,
            state_ttl: state::state_ttl(&table),
        };
        let (now, wall) = (self.env.clock().now(), self.env.clock().unix_micros());
        let mut actions = PaxosActions::new();
        let begun = {
            let mut core = self.paxos.core.borrow_mut();
            core.set_wall_clock(now, Timestamp(wall));
            core.begin(now, context, kind, operation.partition, &mut actions)
        };
        let answer = match begun {
            Ok(request) => self.paxos.expect(request),
            Err(error) => return failed(error),
        };
        self.perform_paxos(&mut actions);
        self.arm_paxos_timer();
        answer.await
    }

    /// Brings the judgement of a condition: the change, or None; answers the next step.
    pub(crate) async fn paxos_examined(
        self: &Rc<Self>,
        request: RequestId,
        outcome: Result<Option<Mutation>, RequestError>,
    ) -> PaxosStep {
        if let Some(end) = self.paxos.early.borrow_mut().remove(&request) {
            return end;
        }
        let answer = self.paxos.expect(request);
        self.drive_paxos(|core, now, actions| core.examined(now, request, outcome, actions));
        answer.await
    }

    /// Takes a step of a peer.
    pub(crate) fn handle_paxos(self: &Rc<Self>, from: HostId, exchange: ExchangeId, body: PaxosMessage) {
        self.drive_paxos(|core, now, actions| core.handle(now, from, exchange, body, actions));
    }

    /// Answers of this peer will not come.
    pub(crate) fn paxos_peer_lost(self: &Rc<Self>, peer: HostId) {
        self.drive_paxos(|core, now, actions| core.peer_lost(now, peer, actions));
    }

    fn drive_paxos(self: &Rc<Self>, event: impl FnOnce(&mut Paxos, Instant, &mut PaxosActions)) {
        let mut actions = PaxosActions::new();
        event(
            &mut self.paxos.core.borrow_mut(),
            self.env.clock().now(),
            &mut actions,
        );
        self.perform_paxos(&mut actions);
        self.arm_paxos_timer();
    }

    fn perform_paxos(self: &Rc<Self>, actions: &mut PaxosActions) {
        while let Some(action) = actions.pop() {
            match action {
                PaxosAction::Send { to, message } => {
                    if self.send_message(to, &message).is_err() {
                        let now = self.env.clock().now();
                        self.paxos.core.borrow_mut().peer_lost(now, to, actions);
                    }
                }
                PaxosAction::LoadState { partition } => {
                    let node = self.clone();
                    let task = async move {
                        let outcome = node.load_paxos_state(&partition).await;
                        let outcome = outcome.map_err(|failure| note_failure(&failure));
                        node.drive_paxos(|core, now, actions| {
                            core.loaded(now, &partition, outcome, actions);
                        });
                    };
                    self.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
                }
                PaxosAction::StoreState {
                    partition,
                    state,
                    apply,
                } => {
                    let node = self.clone();
                    let task = async move {
                        let outcome = node.apply_and_store(&partition, &state, apply).await;
                        let outcome = outcome.map_err(|failure| note_failure(&failure));
                        node.drive_paxos(|core, now, actions| {
                            core.stored(now, &partition, outcome, actions);
                        });
                    };
                    self.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
                }
                PaxosAction::Examine {
                    request,
                    timestamp,
                    consistency,
                } => {
                    let step = PaxosStep::Examine {
                        request,
                        timestamp,
                        consistency,
                    };
                    self.paxos.deliver(request, step);
                }
                PaxosAction::StoreHint { replica, mutation } => self.keep_hint(replica, &mutation),
                PaxosAction::Reply { request, reply } => {
                    self.paxos.deliver(request, PaxosStep::Ended(reply));
                }
            }
        }
    }

    async fn apply_and_store(
        self: &Rc<Self>,
        partition: &PartitionId,
        state: &AcceptorState,
        apply: Option<Arc<Mutation>>,
    ) -> Result<(), ReplicaFailure> {
        if let Some(mutation) = apply {
            let mutation = Arc::unwrap_or_clone(mutation);
            self.clone().apply_here(mutation).await?;
        }
        self.store_paxos_state(partition, state).await
    }

    fn arm_paxos_timer(self: &Rc<Self>) {
        let Some(next) = self.paxos.core.borrow().next_timeout() else {
            return;
        };
        if self.paxos.timer.borrow().is_some_and(|armed| armed <= next) {
            return;
        }
        *self.paxos.timer.borrow_mut() = Some(next);
        let node = self.clone();
        let task = async move {
            let now = node.env.clock().now();
            node.env.tasks().sleep(next.saturating_duration_since(now)).await;
            if *node.paxos.timer.borrow() != Some(next) {
                return; // an earlier timer has taken over
            }
            *node.paxos.timer.borrow_mut() = None;
            node.drive_paxos(|core, now, actions| core.handle_timeout(now, actions));
        };
        self.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
    }
}

fn note_failure(failure: &ReplicaFailure) -> ceto_internode::FailureReason {
    tracing::debug!(%failure, "an acceptor's state");
    failure.reason
}
