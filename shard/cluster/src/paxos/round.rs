//! One operation's path through Paxos: what it has asked, what it was answered, and what follows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceto_internode::{Ballot, ExchangeId, FailureReason, HostId, Message, PaxosMessage, Proposal, RequestId};
use ceto_model::{Consistency, Mutation, WriteType};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::action::{PartitionId, PaxosAction, PaxosActions, PaxosReply};
use super::ballots::Ballots;
use super::commit::Commit;
use super::core::{CasContext, PaxosKind, PaxosLimits};
use crate::coordinator::RequestError;
use crate::coordinator::deadlines::Deadlines;
use crate::coordinator::error::only_timeouts;
use crate::random::Random;
use crate::replication::{Replica, ReplicaMap};

/// Whether an operation goes on after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It waits for more.
    Waits,
    /// The client has its answer; slow replicas have not committed.
    Lingers,
    /// Nothing is left to do.
    Ends,
}

/// What an operation sees of the core while it handles an event.
pub(super) struct Around<'a> {
    pub(super) now: Instant,
    pub(super) request: RequestId,
    pub(super) local: HostId,
    pub(super) down: &'a FxHashSet<HostId>,
    pub(super) limits: &'a PaxosLimits,
    pub(super) ballots: &'a mut Ballots,
    pub(super) random: &'a mut Random,
    pub(super) deadlines: &'a mut Deadlines,
    /// For this node's own acceptor.
    pub(super) to_local: &'a mut VecDeque<(ExchangeId, PaxosMessage)>,
    pub(super) out: &'a mut PaxosActions,
}

impl Around<'_> {
    pub(super) fn is_alive(&self, host: HostId) -> bool {
        host == self.local || !self.down.contains(&host)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Behind another operation of its partition.
    Queued,
    /// Lost a contest; tries again at `resume_at`.
    BackOff,
    /// Asks for promises.
    Prepare,
    /// Has the newest commit applied where promises showed it missing.
    Refresh,
    /// Has another operation's change accepted, which was found in progress.
    Replay,
    /// Commits that change.
    ReplayCommit,
    /// The condition is being evaluated.
    Examine,
    /// Has its own change accepted, or the empty one.
    Propose,
    /// Commits its own change.
    Commit,
}

/// Answers to one question.
#[derive(Debug, Default)]
struct Votes {
    awaited: SmallVec<[HostId; 4]>,
    granted: u32,
    failures: Vec<(HostId, FailureReason)>,
}

impl Votes {
    fn can_reach(&self, required: u32) -> bool {
        self.granted + self.awaited.len() as u32 >= required
    }
}

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) kind: PaxosKind,
    pub(super) partition: Arc<PartitionId>,
    pub(super) replication: Arc<ReplicaMap>,
    serial: Consistency,
    pub(super) expires_at: Instant,
    pub(super) commit_timeout: Duration,
    state_ttl: Duration,
    pub(super) phase: Phase,
    /// Of the question under way; answers to older ones do not count.
    round: u32,
    ballot: Ballot,
    /// Highest ballot seen of anybody.
    seen: Ballot,
    attempts: u32,
    resume_at: Option<Instant>,
    /// A quorum of those who take part.
    required: u32,
    votes: Votes,
    /// Who promised, and the newest commit each of them knows.
    promises: SmallVec<[(HostId, Ballot); 4]>,
    accepted: Option<Proposal>,
    committed: Option<Proposal>,
    /// Being proposed.
    proposal: Option<Proposal>,
    /// The condition held.
    applies: bool,
    /// Ballots under which its change was accepted by some, and whose fate is not known.
    in_doubt: SmallVec<[Ballot; 2]>,
    /// How many accepted the last one of these.
    doubtful_accepts: u32,
    pub(super) commit: Option<Commit>,
}

impl Operation {
    pub(super) fn new(context: &CasContext<'_>, kind: PaxosKind, partition: Arc<PartitionId>) -> Operation {
        let mut operation = Operation {
            kind,
            partition,
            replication: context.replication.clone(),
            serial: context.serial_consistency,
            expires_at: context.deadline,
            commit_timeout: context.commit_timeout,
            state_ttl: context.state_ttl,
            phase: Phase::Queued,
            round: 0,
            ballot: Ballot::default(),
            seen: Ballot::default(),
            attempts: 0,
            resume_at: None,
            required: 0,
            votes: Votes::default(),
            promises: SmallVec::new(),
            accepted: None,
            committed: None,
            proposal: None,
            applies: false,
            in_doubt: SmallVec::new(),
            doubtful_accepts: 0,
            commit: None,
        };
        operation.required = crate::consistency::quorum(operation.participants().len() as u32);
        operation
    }

    /// Replicas that take part, those that are about to be one among them: all, or those of this data center.
    fn participants(&self) -> SmallVec<[HostId; 4]> {
        let map = &self.replication;
        let is_local = self.serial.is_datacenter_local();
        map.replicas(self.partition.key.token)
            .written()
            .iter()
            .filter(|replica| !is_local || replica.datacenter == map.local_datacenter())
            .map(|replica| replica.host)
            .collect()
    }

    /// More than one of those who take part is only about to be a replica: a majority now and one afterwards may then have
    /// nobody in common.
    fn is_in_upheaval(&self) -> bool {
        let participants = self.participants();
        let pending = self.replication.replicas(self.partition.key.token).pending();
        let is_among = |replica: &&Replica| participants.contains(&replica.host);
        pending.iter().filter(is_among).count() > 1
    }

    fn alive_participants(&self, around: &Around<'_>) -> SmallVec<[HostId; 4]> {
        let mut hosts = self.participants();
        hosts.retain(|host| around.is_alive(*host));
        hosts
    }

    /// Sends a question, which makes answers to all earlier ones void.
    pub(super) fn ask(&mut self, hosts: SmallVec<[HostId; 4]>, body: &PaxosMessage, around: &mut Around<'_>) {
        self.round += 1;
        let exchange = ExchangeId {
            request: around.request,
            round: self.round,
        };
        for host in &hosts {
            let body = body.clone();
            if *host == around.local {
                around.to_local.push_back((exchange, body));
            } else {
                let message = Message::Paxos { exchange, body };
                around.out.push(PaxosAction::Send { to: *host, message });
            }
        }
        self.votes = Votes {
            awaited: hosts,
            ..Votes::default()
        };
    }

    fn resume_after(&mut self, wait: Duration, around: &mut Around<'_>) {
        let at = around.now + wait;
        self.resume_at = Some(at);
        if at < self.expires_at {
            around.deadlines.arm(at, around.request);
        }
    }

    /// Begins, or begins anew: under a new ballot.
    pub(super) fn attempt(&mut self, around: &mut Around<'_>) -> Progress {
        let alive = self.alive_participants(around);
        if self.is_in_upheaval() {
            // As Cassandra counts it: one more than there are.
            let alive = self.participants().len() as u32;
            let error = RequestError::Unavailable {
                consistency: self.serial,
                required: alive + 1,
                alive,
            };
            return self.fail(error, around);
        }
        if (alive.len() as u32) < self.required {
            let error = RequestError::Unavailable {
                consistency: self.serial,
                required: self.required,
                alive: alive.len() as u32,
            };
            return self.fail(error, around);
        }
        self.attempts += 1;
        self.ballot = around.ballots.next(around.now, self.seen);
        self.seen = self.ballot;
        self.promises.clear();
        (self.accepted, self.committed, self.proposal) = (None, None, None);
        self.phase = Phase::Prepare;
        let prepare = PaxosMessage::Prepare {
            ballot: self.ballot,
            table: self.partition.table,
            key: self.partition.key.clone(),
        };
        self.ask(alive, &prepare, around);
        self.resume_after(around.limits.retry_after, around);
        Progress::Waits
    }

    fn back_off(&mut self, around: &mut Around<'_>) -> Progress {
        self.phase = Phase::BackOff;
        self.round += 1;
        let doublings = self.attempts.saturating_sub(1).min(16);
        let longest = (around.limits.back_off_min * (1 << doublings)).min(around.limits.back_off_max);
        let wait = around.random.between(100..=(longest.as_micros() as u64).max(100));
        self.resume_after(Duration::from_micros(wait), around);
        Progress::Waits
    }

    /// It waits for an answer of `peer`.
    pub(super) fn awaits(&self, peer: HostId) -> bool {
        match &self.commit {
            Some(commit) => commit.awaits(peer),
            None => self.votes.awaited.contains(&peer),
        }
    }

    /// The answer of `peer` will not come.
    pub(super) fn on_lost(&mut self, peer: HostId, around: &mut Around<'_>) -> Progress {
        let reason = FailureReason::Timeout;
        self.on_answer(peer, self.round, PaxosMessage::Failed { reason }, around)
    }

    pub(super) fn on_answer(
        &mut self,
        from: HostId,
        round: u32,
        body: PaxosMessage,
        around: &mut Around<'_>,
    ) -> Progress {
        if round != self.round {
            return Progress::Waits;
        }
        if self.phase == Phase::Commit {
            return self.on_commit_answer(from, body, around);
        }
        let Some(at) = self.votes.awaited.iter().position(|host| *host == from) else {
            return Progress::Waits;
        };
        self.votes.awaited.swap_remove(at);
        match (self.phase, body) {
            (Phase::Prepare, PaxosMessage::Promised { accepted, committed }) => {
                self.on_promised(from, accepted, committed, around)
            }
            (Phase::Prepare, PaxosMessage::Refused { promised }) => {
                self.seen = self.seen.max(promised);
                self.back_off(around)
            }
            (Phase::Refresh | Phase::ReplayCommit, PaxosMessage::Committed) => {
                self.votes.granted += 1;
                self.on_others_committed(around)
            }
            (Phase::Replay | Phase::Propose, PaxosMessage::Accepted) => {
                self.votes.granted += 1;
                if self.votes.granted >= self.required {
                    return self.on_chosen(around);
                }
                self.on_less_hope(around)
            }
            (Phase::Replay | Phase::Propose, PaxosMessage::Refused { promised }) => {
                self.seen = self.seen.max(promised);
                self.on_less_hope(around)
            }
            (_, PaxosMessage::Failed { reason }) => {
                self.votes.failures.push((from, reason));
                match self.phase {
                    Phase::Prepare if !self.votes.can_reach(self.required) => self.fail_by_replicas(around),
                    Phase::Replay | Phase::Propose => self.on_less_hope(around),
                    // Begun anew when it is time: who failed may not be asked again, or may be better.
                    _ => Progress::Waits,
                }
            }
            // An answer to something that was not asked.
            _ => Progress::Waits,
        }
    }

    fn on_promised(
        &mut self,
        from: HostId,
        accepted: Option<Proposal>,
        committed: Option<Proposal>,
        around: &mut Around<'_>,
    ) -> Progress {
        let is_own = |proposal: &Proposal| {
            proposal.mutation.table == self.partition.table && proposal.mutation.key == self.partition.key
        };
        if !accepted.iter().chain(&committed).all(is_own) {
            return Progress::Waits;
        }
        self.votes.granted += 1;
        let known = committed
            .as_ref()
            .map_or(Ballot::default(), |proposal| proposal.ballot);
        self.promises.push((from, known));
        keep_newest(&mut self.accepted, accepted);
        keep_newest(&mut self.committed, committed);
        if self.votes.granted < self.required {
            return Progress::Waits;
        }
        self.on_quorum_promised(around)
    }

    fn committed_ballot(&self) -> Ballot {
        self.committed
            .as_ref()
            .map_or(Ballot::default(), |proposal| proposal.ballot)
    }

    /// A quorum has promised: what is in progress comes first, then what some of them missed.
    fn on_quorum_promised(&mut self, around: &mut Around<'_>) -> Progress {
        let committed = self.committed_ballot();
        let in_progress = self
            .accepted
            .take()
            .filter(|accepted| accepted.ballot > committed);
        if let Some(oldest) = self.in_doubt.iter().min() {
            let lives = in_progress.as_ref().filter(|accepted| accepted.ballot >= *oldest);
            match lives {
                // Nobody has proposed anything since: it is there to be completed.
                Some(own) if self.in_doubt.contains(&own.ballot) => {
                    let mutation = own.mutation.clone();
                    return self.propose(mutation, Phase::Propose, around);
                }
                None if committed < *oldest => {}
                // Others went on since, perhaps with it, perhaps without.
                _ => return self.fail_in_doubt(around),
            }
        }
        // An empty proposal in progress has nothing to complete; that it was made is enough to end older ones.
        if let Some(other) = in_progress.filter(|accepted| !accepted.is_empty()) {
            return self.propose(other.mutation, Phase::Replay, around);
        }
        let Some(newest) = self.committed.clone() else {
            return self.go_on(around);
        };
        let age = around.ballots.wall(around.now).saturating_sub(committed.micros);
        let is_kept = age < i64::try_from(self.state_ttl.as_micros()).unwrap_or(i64::MAX);
        let missing: SmallVec<[HostId; 4]> = self
            .promises
            .iter()
            .filter(|(_, known)| is_kept && *known < committed)
            .map(|(host, _)| *host)
            .collect();
        if missing.is_empty() {
            return self.go_on(around);
        }
        self.phase = Phase::Refresh;
        self.ask(missing, &PaxosMessage::Commit { proposal: newest }, around);
        Progress::Waits
    }

    /// All that was chosen is on a quorum, and the floor is this operation's.
    fn go_on(&mut self, around: &mut Around<'_>) -> Progress {
        // Two proposers can have one microsecond, but cells of two changes must not have one timestamp.
        if self.committed_ballot().micros >= self.ballot.micros {
            self.seen = self.seen.max(self.committed_ballot());
            return self.attempt(around);
        }
        match self.kind {
            PaxosKind::Read => self.propose(self.nothing(), Phase::Propose, around),
            PaxosKind::Cas(_) => {
                self.phase = Phase::Examine;
                self.round += 1;
                around.out.push(PaxosAction::Examine {
                    request: around.request,
                    timestamp: self.ballot.timestamp(),
                    consistency: match self.serial {
                        Consistency::LocalSerial => Consistency::LocalQuorum,
                        _ => Consistency::Quorum,
                    },
                });
                Progress::Waits
            }
        }
    }

    fn nothing(&self) -> Arc<Mutation> {
        Arc::new(Mutation::new(self.partition.table, self.partition.key.clone()))
    }

    pub(super) fn on_examined(
        &mut self,
        outcome: Result<Option<Mutation>, RequestError>,
        around: &mut Around<'_>,
    ) -> Progress {
        if self.phase != Phase::Examine {
            return Progress::Waits;
        }
        let mutation = match outcome {
            Ok(Some(mutation)) => {
                assert!(
                    mutation.table == self.partition.table && mutation.key == self.partition.key,
                    "a change of another partition than the condition's"
                );
                self.applies = true;
                Arc::new(mutation)
            }
            Ok(None) => {
                self.applies = false;
                self.nothing()
            }
            Err(error) => return self.fail(error, around),
        };
        self.propose(mutation, Phase::Propose, around)
    }

    fn propose(&mut self, mutation: Arc<Mutation>, phase: Phase, around: &mut Around<'_>) -> Progress {
        let proposal = Proposal {
            ballot: self.ballot,
            mutation,
        };
        self.phase = phase;
        self.proposal = Some(proposal.clone());
        let alive = self.alive_participants(around);
        self.ask(alive, &PaxosMessage::Propose { proposal }, around);
        Progress::Waits
    }

    /// An acceptor refused or failed, or one more accepted: is a quorum still possible, and if not, what is known?
    fn on_less_hope(&mut self, around: &mut Around<'_>) -> Progress {
        if self.votes.can_reach(self.required) {
            return Progress::Waits;
        }
        let is_empty = self.proposal.as_ref().is_none_or(Proposal::is_empty);
        if self.phase == Phase::Replay || is_empty {
            // Whether it was accepted matters to nobody but the next attempt, which will see.
            return self.back_off(around);
        }
        if !self.votes.failures.is_empty() {
            return self.fail_by_replicas(around);
        }
        if self.votes.granted == 0 {
            if !self.votes.awaited.is_empty() {
                return Progress::Waits;
            }
            // Refused by all, so it is nowhere.
            return self.back_off(around);
        }
        self.in_doubt.push(self.ballot);
        self.doubtful_accepts = self.votes.granted;
        self.back_off(around)
    }

    fn on_chosen(&mut self, around: &mut Around<'_>) -> Progress {
        let Some(proposal) = self.proposal.take() else {
            return Progress::Waits;
        };
        if self.phase == Phase::Replay {
            self.phase = Phase::ReplayCommit;
            let alive = self.alive_participants(around);
            self.ask(alive, &PaxosMessage::Commit { proposal }, around);
            return Progress::Waits;
        }
        self.in_doubt.clear();
        match self.kind {
            PaxosKind::Cas(consistency) if !proposal.is_empty() => {
                self.begin_commit(consistency, proposal, around)
            }
            PaxosKind::Cas(_) => self.reply(PaxosReply::Cas(Ok(self.applies)), around),
            PaxosKind::Read => self.reply(PaxosReply::Read(Ok(())), around),
        }
    }

    /// Another operation's change is applied at one more replica.
    fn on_others_committed(&mut self, around: &mut Around<'_>) -> Progress {
        match self.phase {
            Phase::Refresh if self.votes.awaited.is_empty() && self.votes.failures.is_empty() => {
                self.go_on(around)
            }
            Phase::ReplayCommit if self.votes.granted >= self.required => self.attempt(around),
            _ => Progress::Waits,
        }
    }

    pub(super) fn on_timer(&mut self, around: &mut Around<'_>) -> Progress {
        if around.now >= self.expires_at {
            return self.expire(around);
        }
        if self.resume_at.is_none_or(|at| at > around.now) {
            return Progress::Waits;
        }
        match self.phase {
            Phase::BackOff | Phase::Prepare | Phase::Refresh | Phase::Replay | Phase::ReplayCommit => {
                self.attempt(around)
            }
            Phase::Queued | Phase::Examine | Phase::Propose | Phase::Commit => Progress::Waits,
        }
    }

    fn expire(&mut self, around: &mut Around<'_>) -> Progress {
        if self.phase == Phase::Commit {
            return self.expire_commit(around);
        }
        let error = self.timeout();
        if self.phase == Phase::Propose {
            // The client is told so much already that it may have happened.
            self.in_doubt.clear();
        }
        self.fail(error, around)
    }

    fn timeout(&self) -> RequestError {
        let (consistency, required) = (self.serial, self.required);
        match self.kind {
            PaxosKind::Cas(_) => RequestError::WriteTimeout {
                consistency,
                received: self.votes.granted.min(required.saturating_sub(1)),
                required,
                write_type: WriteType::Cas,
            },
            PaxosKind::Read => RequestError::ReadTimeout {
                consistency,
                received: 0,
                required,
                data_present: false,
            },
        }
    }

    fn fail_by_replicas(&mut self, around: &mut Around<'_>) -> Progress {
        let failures = std::mem::take(&mut self.votes.failures);
        let (consistency, required) = (self.serial, self.required);
        let error = if only_timeouts(&failures) {
            self.timeout()
        } else {
            match self.kind {
                PaxosKind::Cas(_) => RequestError::WriteFailure {
                    consistency,
                    received: self.votes.granted,
                    required,
                    failures,
                    write_type: WriteType::Cas,
                },
                PaxosKind::Read => RequestError::ReadFailure {
                    consistency,
                    received: 0,
                    required,
                    failures,
                    data_present: false,
                },
            }
        };
        self.fail(error, around)
    }

    /// Ends without a decision; says that nothing is known when something may have been accepted.
    fn fail(&mut self, error: RequestError, around: &mut Around<'_>) -> Progress {
        if !self.in_doubt.is_empty() {
            return self.fail_in_doubt(around);
        }
        let reply = match self.kind {
            PaxosKind::Cas(_) => PaxosReply::Cas(Err(error)),
            PaxosKind::Read => PaxosReply::Read(Err(error)),
        };
        self.reply(reply, around)
    }

    fn fail_in_doubt(&mut self, around: &mut Around<'_>) -> Progress {
        let error = RequestError::CasWriteUnknown {
            consistency: self.serial,
            received: self.doubtful_accepts,
            required: self.required,
        };
        self.reply(PaxosReply::Cas(Err(error)), around)
    }

    pub(super) fn reply(&mut self, reply: PaxosReply, around: &mut Around<'_>) -> Progress {
        around.out.push(PaxosAction::Reply {
            request: around.request,
            reply,
        });
        Progress::Ends
    }
}

fn keep_newest(own: &mut Option<Proposal>, other: Option<Proposal>) {
    if let Some(other) = other
        && own.as_ref().is_none_or(|own| own.ballot < other.ballot)
    {
        *own = Some(other);
    }
}
