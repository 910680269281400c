//! The acceptor of one shard: requests for one partition one after the other, each answered when its state is stored.
//!
//! While requests of a partition wait, its state stays in memory; with the last one it is dropped. A state that could not
//! be stored is dropped too, since nobody knows which one the disk has. Bound: [`Acceptor::new`]'s `waiting_max`
//! requests; more are refused as overload.

use std::collections::VecDeque;
use std::sync::Arc;

use ceto_internode::{ExchangeId, FailureReason, HostId, PaxosMessage, Proposal};
use rustc_hash::FxHashMap;

use super::acceptor::{AcceptorState, Verdict};
use super::action::{PartitionId, PaxosAction, PaxosActions};

/// How an acceptor decides. Anything but the default is wrong on purpose, for tests that prove that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AcceptorRule {
    /// As `acceptor` says.
    #[default]
    Sound,
    /// Accepts whatever it promised meanwhile.
    AcceptsBelowPromise,
    /// Says nothing of what it has accepted.
    HidesAccepted,
    /// Says nothing of what it has committed, and so is never told what it missed.
    HidesCommitted,
    /// Answers without storing.
    ForgetsState,
    /// Acknowledges a commit without applying it.
    SkipsApply,
}

type Asker = (HostId, ExchangeId);

#[derive(Debug)]
struct Waiting {
    asker: Asker,
    body: PaxosMessage,
}

#[derive(Debug, Default)]
struct Slot {
    /// None until loaded, and after a failure.
    state: Option<AcceptorState>,
    /// Whom the store under way will answer, and what.
    storing: Option<(Asker, PaxosMessage)>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
pub(super) struct Acceptor {
    slots: FxHashMap<Arc<PartitionId>, Slot>,
    waiting: usize,
    waiting_max: usize,
    rule: AcceptorRule,
    /// Answers that are ready.
    answers: VecDeque<(Asker, PaxosMessage)>,
}

impl Acceptor {
    pub(super) fn new(waiting_max: usize) -> Acceptor {
        Acceptor {
            slots: FxHashMap::default(),
            waiting: 0,
            waiting_max,
            rule: AcceptorRule::Sound,
            answers: VecDeque::new(),
        }
    }

    pub(super) fn set_rule(&mut self, rule: AcceptorRule) {
        self.rule = rule;
    }

    /// Requests that have no answer yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn take_answer(&mut self) -> Option<(Asker, PaxosMessage)> {
        self.answers.pop_front()
    }

    /// Takes a request.
    pub(super) fn request(&mut self, asker: Asker, body: PaxosMessage, out: &mut PaxosActions) {
        let Some(partition) = partition_of(&body) else {
            return;
        };
        if self.waiting >= self.waiting_max {
            let reason = FailureReason::Overloaded;
            self.answers.push_back((asker, PaxosMessage::Failed { reason }));
            return;
        }
        self.waiting += 1;
        let waiting = Waiting { asker, body };
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.waiting.push_back(waiting);
            return;
        }
        let partition = Arc::new(partition);
        let slot = self.slots.entry(partition.clone()).or_default();
        slot.waiting.push_back(waiting);
        out.push(PaxosAction::LoadState { partition });
    }

    /// Takes the outcome of a `LoadState`.
    pub(super) fn loaded(
        &mut self,
        partition: &Arc<PartitionId>,
        outcome: Result<AcceptorState, FailureReason>,
        out: &mut PaxosActions,
    ) {
        let Some(slot) = self.slots.get_mut(partition) else {
            return;
        };
        match outcome {
            Ok(state) => slot.state = Some(state),
            Err(reason) => {
                if let Some(first) = slot.waiting.pop_front() {
                    self.waiting -= 1;
                    self.answers
                        .push_back((first.asker, PaxosMessage::Failed { reason }));
                }
            }
        }
        self.go_on(partition, out);
    }

    /// Takes the outcome of a `StoreState`.
    pub(super) fn stored(
        &mut self,
        partition: &Arc<PartitionId>,
        outcome: Result<(), FailureReason>,
        out: &mut PaxosActions,
    ) {
        let Some(slot) = self.slots.get_mut(partition) else {
            return;
        };
        let Some((asker, answer)) = slot.storing.take() else {
            return;
        };
        self.waiting -= 1;
        let answer = match outcome {
            Ok(()) => answer,
            Err(reason) => {
                slot.state = None;
                PaxosMessage::Failed { reason }
            }
        };
        self.answers.push_back((asker, answer));
        self.go_on(partition, out);
    }

    /// Decides requests until one must be stored, the state must be read again, or none is left.
    fn go_on(&mut self, partition: &Arc<PartitionId>, out: &mut PaxosActions) {
        let Some(slot) = self.slots.get_mut(partition) else {
            return;
        };
        while !slot.waiting.is_empty() {
            let Some(state) = &mut slot.state else {
                out.push(PaxosAction::LoadState {
                    partition: partition.clone(),
                });
                return;
            };
            let Some(Waiting { asker, body }) = slot.waiting.pop_front() else {
                break;
            };
            let verdict = decide(self.rule, state, body);
            if verdict.is_changed || verdict.apply.is_some() {
                slot.storing = Some((asker, verdict.answer));
                out.push(PaxosAction::StoreState {
                    partition: partition.clone(),
                    state: state.clone(),
                    apply: verdict.apply,
                });
                return;
            }
            self.waiting -= 1;
            self.answers.push_back((asker, verdict.answer));
        }
        self.slots.remove(partition);
    }
}

fn decide(rule: AcceptorRule, state: &mut AcceptorState, body: PaxosMessage) -> Verdict {
    if rule == AcceptorRule::AcceptsBelowPromise
        && let PaxosMessage::Propose { proposal } = &body
    {
        state.promised = state.promised.min(proposal.ballot);
    }
    let mut verdict = match body {
        PaxosMessage::Prepare { ballot, .. } => state.prepare(ballot),
        PaxosMessage::Propose { proposal } => state.propose(proposal),
        PaxosMessage::Commit { proposal } => state.commit(proposal),
        // `partition_of` lets nothing else in.
        answer => Verdict {
            answer,
            is_changed: false,
            apply: None,
        },
    };
    match (rule, &mut verdict.answer) {
        (AcceptorRule::HidesAccepted, PaxosMessage::Promised { accepted, .. }) => *accepted = None,
        (AcceptorRule::HidesCommitted, PaxosMessage::Promised { committed, .. }) => *committed = None,
        (AcceptorRule::ForgetsState, _) if verdict.apply.is_none() => verdict.is_changed = false,
        (AcceptorRule::SkipsApply, _) => verdict.apply = None,
        _ => {}
    }
    verdict
}

fn partition_of(body: &PaxosMessage) -> Option<PartitionId> {
    match body {
        PaxosMessage::Prepare { table, key, .. } => Some(PartitionId {
            table: *table,
            key: key.clone(),
        }),
        PaxosMessage::Propose { proposal } | PaxosMessage::Commit { proposal } => {
            let Proposal { mutation, .. } = proposal;
            Some(PartitionId {
                table: mutation.table,
                key: mutation.key.clone(),
            })
        }
        _ => None,
    }
}
