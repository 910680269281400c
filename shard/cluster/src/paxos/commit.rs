//! The end of a conditional update that was chosen: every replica is to apply it, and the client hears when as many as its
//! level asks have done so. A replica that does not answer gets a hint.

use std::sync::Arc;

use ceto_internode::{FailureReason, HostId, PaxosMessage, Proposal};
use ceto_model::{Consistency, Mutation, WriteType};
use smallvec::SmallVec;

use super::action::{PaxosAction, PaxosReply};
use super::core::PaxosKind;
use super::round::{Around, Operation, Phase, Progress};
use crate::coordinator::RequestError;
use crate::coordinator::error::only_timeouts;
use crate::coordinator::tally::Tally;
use crate::replication::Replica;

/// The commit of the operation's own change.
#[derive(Debug)]
pub(super) struct Commit {
    tally: Tally,
    awaited: SmallVec<[Replica; 4]>,
    mutation: Arc<Mutation>,
    failures: Vec<(HostId, FailureReason)>,
    is_replied: bool,
}

impl Commit {
    /// Hints a remote replica. What this node itself missed the next operation finds.
    fn hint(&self, replica: HostId, around: &mut Around<'_>) {
        if replica == around.local {
            return;
        }
        around.out.push(PaxosAction::StoreHint {
            replica,
            mutation: self.mutation.clone(),
        });
    }

    pub(super) fn awaits(&self, host: HostId) -> bool {
        self.awaited.iter().any(|replica| replica.host == host)
    }

    fn error(&mut self, consistency: Consistency) -> RequestError {
        let (received, required) = (self.tally.received(), self.tally.required());
        let failures = std::mem::take(&mut self.failures);
        // SIMPLE, not CAS: the decision stands, only its spreading is late.
        let write_type = WriteType::Simple;
        if only_timeouts(&failures) {
            return RequestError::WriteTimeout {
                consistency,
                received,
                required,
                write_type,
            };
        }
        RequestError::WriteFailure {
            consistency,
            received,
            required,
            failures,
            write_type,
        }
    }
}

impl Operation {
    pub(super) fn begin_commit(
        &mut self,
        consistency: Consistency,
        proposal: Proposal,
        around: &mut Around<'_>,
    ) -> Progress {
        self.phase = Phase::Commit;
        self.expires_at = around.now + self.commit_timeout;
        around.deadlines.arm(self.expires_at, around.request);
        let map = self.replication.clone();
        let replicas = map.replicas(self.partition.key.token);
        let mut commit = Commit {
            tally: Tally::for_write(&map, consistency, replicas.pending()),
            awaited: SmallVec::new(),
            mutation: proposal.mutation.clone(),
            failures: Vec::new(),
            is_replied: false,
        };
        for replica in replicas.written() {
            if around.is_alive(replica.host) {
                commit.awaited.push(*replica);
            } else {
                commit.hint(replica.host, around);
            }
        }
        let hosts = commit.awaited.iter().map(|replica| replica.host).collect();
        self.ask(hosts, &PaxosMessage::Commit { proposal }, around);
        self.commit = Some(commit);
        self.settle_commit(consistency, around)
    }

    pub(super) fn on_commit_answer(
        &mut self,
        from: HostId,
        body: PaxosMessage,
        around: &mut Around<'_>,
    ) -> Progress {
        let (Some(commit), PaxosKind::Cas(consistency)) = (&mut self.commit, self.kind) else {
            return Progress::Waits;
        };
        let Some(at) = commit.awaited.iter().position(|replica| replica.host == from) else {
            return Progress::Waits;
        };
        match body {
            PaxosMessage::Committed => commit.tally.count(commit.awaited[at].datacenter),
            PaxosMessage::Failed { reason } => {
                commit.failures.push((from, reason));
                commit.hint(from, around);
            }
            // An answer to something that was not asked.
            _ => return Progress::Waits,
        }
        commit.awaited.swap_remove(at);
        self.settle_commit(consistency, around)
    }

    /// Replies as soon as it is known whether the level will be met.
    fn settle_commit(&mut self, consistency: Consistency, around: &mut Around<'_>) -> Progress {
        let Some(commit) = &mut self.commit else {
            return Progress::Waits;
        };
        if !commit.is_replied {
            // At ANY the hints that will be are enough.
            let outcome = if commit.tally.is_met() || consistency == Consistency::Any {
                Ok(true)
            } else if commit.tally.can_be_met(&commit.awaited) {
                return Progress::Waits;
            } else {
                Err(commit.error(consistency))
            };
            commit.is_replied = true;
            around.out.push(PaxosAction::Reply {
                request: around.request,
                reply: PaxosReply::Cas(outcome),
            });
        }
        if commit.awaited.is_empty() {
            Progress::Ends
        } else {
            Progress::Lingers
        }
    }

    /// Time is up for replicas that have not committed.
    pub(super) fn expire_commit(&mut self, around: &mut Around<'_>) -> Progress {
        self.stop_waiting(around);
        match (&mut self.commit, self.kind) {
            (Some(commit), PaxosKind::Cas(consistency)) if !commit.is_replied => {
                let reply = PaxosReply::Cas(Err(commit.error(consistency)));
                self.reply(reply, around)
            }
            _ => Progress::Ends,
        }
    }

    /// Gives every replica that has not committed a hint, and waits for none.
    pub(super) fn stop_waiting(&mut self, around: &mut Around<'_>) {
        if let Some(commit) = &mut self.commit {
            for replica in std::mem::take(&mut commit.awaited) {
                commit.hint(replica.host, around);
            }
        }
    }
}
