//! Reads that need more than one answer: rounds of asking, comparing, merging and repairing.
//!
//! A range read goes part by part, each part being as many vnodes as enough replicas have in common. A part is read in
//! phases:
//!
//! ```text
//! compare ----all equal----------------------------> take the rows
//!    |  one replica sends rows, the others digests        ^
//!    +--they differ--> reconcile --nobody lacks anything--+
//!                         |  all send rows; merge         |
//!                         +--some lack---> repair --------+
//!                                            send each what it lacks, wait for acknowledgements
//! ```
//!
//! and then the read goes on with what a short read left out, or with the next part, until the limits are met. Each
//! question has its own round number, so an answer to an earlier question is never taken for one to a later.

use std::sync::Arc;
use std::time::Instant;

use ceto_internode::{AnswerKind, Digest, FailureReason, HostId, Message, ReadAnswer};
use ceto_model::read::ResumePoint;
use ceto_model::{Consistency, Mutation, PartitionRange, ReadCommand, ReadResult, ReadTarget};
use smallvec::SmallVec;

use super::action::{Action, Reply};
use super::continuation::after;
use super::dispatch::{Progress, RequestContext, Surroundings};
use super::error::{RequestError, another_may_do_better, only_timeouts};
use super::read::{Part, ReadOptions, ReadRepair, ask};
use super::reconcile::{Carried, Reconciled, Stop, is_exhausted, reconcile};
use super::tally::{Chosen, Tally};
use crate::replication::{Replica, ReplicaMap};

/// Short reads of one part that are continued before the page is ended where it is; the client fetches the rest.
pub const SHORT_READ_ROUNDS_MAX: u32 = 16;

/// A read in flight that goes by rounds.
#[derive(Debug)]
pub(super) struct ManyRead {
    map: Arc<ReplicaMap>,
    consistency: Consistency,
    options: ReadOptions,
    deadline: Instant,
    /// What is still to be read, with what is left of the limits.
    rest: ReadCommand,
    /// What has been read.
    result: ReadResult,
    carried: Carried,
    short_rounds: u32,
    next_round: u32,
    phase: Phase,
    /// What the replicas of the current part are asked.
    command: Arc<ReadCommand>,
    tally: Tally,
    contacts: SmallVec<[Contact; 4]>,
    spare: Chosen,
    failures: Vec<(HostId, FailureReason)>,
    speculate_at: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    Compare,
    Reconcile,
    /// Rounds of repairs that are awaited, each with its replica; then the part is done.
    Repair {
        awaited: Vec<(u32, Replica)>,
        reconciled: Box<Reconciled>,
    },
}

/// A replica that was asked.
#[derive(Debug)]
struct Contact {
    replica: Replica,
    /// Of the question whose answer is awaited.
    round: u32,
    state: ContactState,
}

#[derive(Debug)]
enum ContactState {
    Awaited,
    Rows(ReadResult),
    Digest(Digest),
    Failed,
}

impl ManyRead {
    pub(super) fn new(context: &RequestContext<'_>, options: ReadOptions, command: ReadCommand) -> ManyRead {
        ManyRead {
            map: context.replication.clone(),
            consistency: context.consistency,
            options,
            deadline: context.deadline,
            command: Arc::new(command.clone()),
            rest: command,
            result: ReadResult::default(),
            carried: Carried::default(),
            short_rounds: 0,
            next_round: 0,
            phase: Phase::Compare,
            tally: Tally::new(context.replication, context.consistency),
            contacts: SmallVec::new(),
            spare: Chosen::new(),
            failures: Vec::new(),
            speculate_at: None,
        }
    }

    /// Asks the replicas of the next part.
    ///
    /// # Errors
    /// When too few of them are alive.
    pub(super) fn start(&mut self, around: &mut Surroundings<'_>) -> Result<(), RequestError> {
        let consistency = self.consistency;
        let unavailable = |(required, alive)| RequestError::Unavailable {
            consistency,
            required,
            alive,
        };
        self.tally = Tally::new(&self.map, consistency);
        let part = Part::first(&self.rest.target, &self.map, &self.tally, |replica| {
            around.is_alive(replica)
        })
        .map_err(unavailable)?;
        let (chosen, spare) = self
            .tally
            .choose(&part.candidates)
            .ok_or_else(|| unavailable((self.tally.required(), part.candidates.len() as u32)))?;
        self.command = Arc::new(ReadCommand {
            target: part.target,
            keep_tombstones: true,
            ..self.rest.clone()
        });
        self.phase = Phase::Compare;
        self.contacts.clear();
        self.failures.clear();
        self.spare = spare;
        self.arm_speculation(around);
        for (i, replica) in chosen.into_iter().enumerate() {
            let kind = if i == 0 {
                AnswerKind::Data
            } else {
                AnswerKind::Digest
            };
            self.contact(replica, kind, around);
        }
        Ok(())
    }

    fn contact(&mut self, replica: Replica, kind: AnswerKind, around: &mut Surroundings<'_>) {
        let round = self.take_round();
        self.contacts.push(Contact {
            replica,
            round,
            state: ContactState::Awaited,
        });
        ask(
            around,
            replica.host,
            round,
            kind,
            ReadCommand::clone(&self.command),
        );
    }

    fn take_round(&mut self) -> u32 {
        self.next_round += 1;
        self.next_round - 1
    }

    fn arm_speculation(&mut self, around: &mut Surroundings<'_>) {
        self.speculate_at = self
            .options
            .speculate_after
            .filter(|_| !self.spare.is_empty())
            .map(|wait| around.now + wait)
            .filter(|at| *at < self.deadline);
        if let Some(at) = self.speculate_at {
            around.deadlines.arm(at, around.request);
        }
    }

    pub(super) fn on_answer(
        &mut self,
        from: HostId,
        round: u32,
        outcome: Result<ReadAnswer, FailureReason>,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(reason) => return self.on_failure(from, round, reason, around),
        };
        let is_comparing = matches!(self.phase, Phase::Compare);
        let Some(contact) = self
            .contacts
            .iter_mut()
            .find(|contact| contact.is_awaited(from, round))
        else {
            return Progress::Waits;
        };
        contact.state = match answer {
            ReadAnswer::Data(rows) => ContactState::Rows(rows),
            ReadAnswer::Digest(digest) if is_comparing => ContactState::Digest(digest),
            // Rows were asked for.
            ReadAnswer::Digest(_) => return Progress::Waits,
        };
        self.tally.count(contact.replica.datacenter);
        if !self.tally.is_met() {
            let is_over = !self.failures.is_empty() && !self.is_awaiting();
            return if is_over {
                self.fail(around)
            } else {
                Progress::Waits
            };
        }
        let step = if is_comparing {
            self.compare(around)
        } else {
            self.reconcile(around)
        };
        self.follow(step, around)
    }

    pub(super) fn on_failure(
        &mut self,
        from: HostId,
        round: u32,
        reason: FailureReason,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        if matches!(self.phase, Phase::Repair { .. }) {
            return self.on_repaired(from, round, Err(reason), around);
        }
        let Some(contact) = self
            .contacts
            .iter_mut()
            .find(|contact| contact.is_awaited(from, round))
        else {
            return Progress::Waits;
        };
        contact.state = ContactState::Failed;
        self.failures.push((from, reason));
        if another_may_do_better(reason) {
            self.stand_in(around);
        }
        let awaited = self
            .contacts
            .iter()
            .filter(|contact| matches!(contact.state, ContactState::Awaited));
        let can_be_met = self.tally.can_be_met(awaited.map(|contact| &contact.replica));
        let rows_may_come = self
            .contacts
            .iter()
            .any(|contact| matches!(contact.state, ContactState::Awaited | ContactState::Rows(_)));
        let is_awaiting = self.is_awaiting();
        // A timeout says how many have answered: it is not told before all have that may.
        if can_be_met && rows_may_come || is_awaiting && only_timeouts(&self.failures) {
            return Progress::Waits;
        }
        self.fail(around)
    }

    /// Asks a replica that has not been asked, when those that were cannot suffice any more.
    fn stand_in(&mut self, around: &mut Surroundings<'_>) {
        let counting = |contact: &&Contact| match self.phase {
            Phase::Compare => !matches!(contact.state, ContactState::Failed),
            // Digests of the first question do not count in the second.
            _ => matches!(contact.state, ContactState::Awaited | ContactState::Rows(_)),
        };
        let hopeful = self
            .contacts
            .iter()
            .filter(counting)
            .map(|contact| &contact.replica);
        let mut fresh = Tally::new(&self.map, self.consistency);
        hopeful.for_each(|replica| fresh.count(replica.datacenter));
        let rows_may_come = self
            .contacts
            .iter()
            .any(|contact| matches!(contact.state, ContactState::Awaited | ContactState::Rows(_)));
        if fresh.is_met() && rows_may_come {
            return;
        }
        let wanted = |replica: &Replica| !fresh.is_met() && fresh.wants(replica.datacenter) || fresh.is_met();
        if let Some(at) = self.spare.iter().position(wanted) {
            let replica = self.spare.remove(at);
            self.contact(replica, AnswerKind::Data, around);
        }
    }

    /// Some replica that was asked may still answer.
    fn is_awaiting(&self) -> bool {
        self.contacts
            .iter()
            .any(|contact| matches!(contact.state, ContactState::Awaited))
    }

    /// An answer of `peer` is awaited.
    pub(super) fn awaits(&self, peer: HostId) -> bool {
        match &self.phase {
            Phase::Repair { awaited, .. } => awaited.iter().any(|(_, replica)| replica.host == peer),
            _ => self.contacts.iter().any(|contact| {
                contact.replica.host == peer && matches!(contact.state, ContactState::Awaited)
            }),
        }
    }

    /// What `peer` was asked will not be answered.
    pub(super) fn on_lost(
        &mut self,
        peer: HostId,
        reason: FailureReason,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        let round = match &self.phase {
            Phase::Repair { awaited, .. } => awaited
                .iter()
                .find(|(_, replica)| replica.host == peer)
                .map(|(round, _)| *round),
            _ => self
                .contacts
                .iter()
                .find(|contact| {
                    contact.replica.host == peer && matches!(contact.state, ContactState::Awaited)
                })
                .map(|contact| contact.round),
        };
        match round {
            Some(round) => self.on_failure(peer, round, reason, around),
            None => Progress::Waits,
        }
    }

    /// Takes the outcome of a repair that was sent.
    pub(super) fn on_repaired(
        &mut self,
        from: HostId,
        round: u32,
        outcome: Result<(), FailureReason>,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        let Phase::Repair { awaited, .. } = &mut self.phase else {
            return Progress::Waits;
        };
        let Some(at) = awaited
            .iter()
            .position(|(own, replica)| *own == round && replica.host == from)
        else {
            return Progress::Waits;
        };
        let (_, replica) = awaited.swap_remove(at);
        if let Err(reason) = outcome {
            self.failures.push((from, reason));
            awaited.retain(|(_, other)| other.host != from);
            let others: SmallVec<[Replica; 4]> = distinct(awaited);
            if !self.tally.can_be_met(&others) {
                return self.fail(around);
            }
            return Progress::Waits;
        }
        if !awaited.iter().any(|(_, other)| other.host == from) {
            self.tally.count(replica.datacenter);
        }
        let step = self.finish_repair();
        self.follow(step, around)
    }

    pub(super) fn on_timer(&mut self, around: &mut Surroundings<'_>) -> Progress {
        if around.now >= self.deadline {
            return self.fail(around);
        }
        if self.speculate_at.take_if(|at| *at <= around.now).is_some()
            && !matches!(self.phase, Phase::Repair { .. })
        {
            let wanted = self
                .spare
                .iter()
                .position(|replica| self.tally.wants(replica.datacenter));
            if let Some(at) = wanted {
                let replica = self.spare.remove(at);
                self.contact(replica, AnswerKind::Data, around);
            }
        }
        Progress::Waits
    }

    /// Enough replicas answered: takes the rows if all agree, else asks all for rows.
    fn compare(&mut self, around: &mut Surroundings<'_>) -> Option<Reconciled> {
        let at = self
            .contacts
            .iter()
            .position(|contact| matches!(contact.state, ContactState::Rows(_)))?;
        let mut digests = self.contacts.iter().filter_map(|contact| match &contact.state {
            ContactState::Digest(digest) => Some(*digest),
            ContactState::Rows(rows) if self.tally.required() > 1 => Some(Digest::of(rows, around.scratch)),
            _ => None,
        });
        let first = digests.next();
        let agree = digests.all(|digest| Some(digest) == first);
        if agree {
            let contact = self.contacts.swap_remove(at);
            let rows = match contact.state {
                ContactState::Rows(rows) => rows,
                _ => ReadResult::default(),
            };
            return Some(self.merge(vec![rows]));
        }
        self.ask_for_rows(around);
        // Who stood in for another sent rows at once, so all of them may be here.
        if self.tally.is_met() {
            return self.reconcile(around);
        }
        None
    }

    /// Rows that are already here stay; replicas that sent a digest send rows now; the others are left alone.
    fn ask_for_rows(&mut self, around: &mut Surroundings<'_>) {
        self.phase = Phase::Reconcile;
        self.tally = Tally::new(&self.map, self.consistency);
        let answered = std::mem::take(&mut self.contacts);
        let mut by_digest = Chosen::new();
        for contact in answered {
            match contact.state {
                ContactState::Rows(_) => {
                    self.tally.count(contact.replica.datacenter);
                    self.contacts.push(contact);
                }
                ContactState::Digest(_) => by_digest.push(contact.replica),
                // A replica that is late with its digest can still stand in.
                ContactState::Awaited => self.spare.insert(0, contact.replica),
                ContactState::Failed => {}
            }
        }
        for replica in by_digest {
            self.contact(replica, AnswerKind::Data, around);
        }
        self.arm_speculation(around);
    }

    fn merge(&mut self, answers: Vec<ReadResult>) -> Reconciled {
        let carried = std::mem::take(&mut self.carried);
        reconcile(&self.command, self.rest.keep_tombstones, carried, answers)
    }

    /// Enough replicas sent rows: merges them and repairs those that lack something.
    fn reconcile(&mut self, around: &mut Surroundings<'_>) -> Option<Reconciled> {
        let (mut replicas, mut answers) = (Chosen::new(), Vec::new());
        for contact in std::mem::take(&mut self.contacts) {
            if let ContactState::Rows(rows) = contact.state {
                replicas.push(contact.replica);
                answers.push(rows);
            }
        }
        let mut reconciled = self.merge(answers);
        let repairs = std::mem::take(&mut reconciled.repairs);
        if self.options.read_repair == ReadRepair::None || repairs.iter().all(Vec::is_empty) {
            return Some(reconciled);
        }
        self.tally = Tally::new(&self.map, self.consistency);
        let mut awaited = Vec::new();
        for (replica, mutations) in replicas.into_iter().zip(repairs) {
            if mutations.is_empty() {
                self.tally.count(replica.datacenter);
            }
            for mutation in mutations {
                let round = self.take_round();
                awaited.push((round, replica));
                repair(around, replica.host, round, mutation);
            }
        }
        let reconciled = Box::new(reconciled);
        self.phase = Phase::Repair { awaited, reconciled };
        self.finish_repair()
    }

    fn finish_repair(&mut self) -> Option<Reconciled> {
        if !self.tally.is_met() {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Compare) {
            Phase::Repair { reconciled, .. } => Some(*reconciled),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// After a part: takes its rows, and goes on or replies.
    fn follow(&mut self, step: Option<Reconciled>, around: &mut Surroundings<'_>) -> Progress {
        let Some(reconciled) = step else {
            return Progress::Waits;
        };
        let next = self.take(reconciled);
        match next {
            Next::Part => match self.start(around) {
                Ok(()) => Progress::Waits,
                Err(error) => {
                    around.reply(Reply::Read(Err(error)));
                    Progress::Ends
                }
            },
            Next::Reply(resume) => {
                let mut result = std::mem::take(&mut self.result);
                result.resume = resume;
                around.reply(Reply::Read(Ok(result)));
                Progress::Ends
            }
        }
    }

    fn take(&mut self, reconciled: Reconciled) -> Next {
        let Reconciled {
            partitions,
            stop,
            limits,
            carried,
            work,
            ..
        } = reconciled;
        for partition in partitions {
            match self.result.partitions.last_mut() {
                Some(last) if last.key == partition.key => {
                    last.partition.rows.extend(partition.partition.rows);
                    last.partition
                        .range_tombstones
                        .merge(partition.partition.range_tombstones);
                }
                _ => self.result.partitions.push(partition),
            }
        }
        let total = &mut self.result.work;
        total.live_rows = total.live_rows.saturating_add(work.live_rows);
        total.tombstones = total.tombstones.saturating_add(work.tombstones);
        total.sstables = total.sstables.saturating_add(work.sstables);
        total.disk_bytes = total.disk_bytes.saturating_add(work.disk_bytes);
        self.rest.limits = limits;
        self.carried = carried;
        match stop {
            Stop::Limit(point) => Next::Reply(Some(point)),
            Stop::Short(point) => {
                self.short_rounds += 1;
                if self.short_rounds > SHORT_READ_ROUNDS_MAX {
                    return Next::Reply(Some(point));
                }
                match after(self.rest.clone(), &point) {
                    Some(rest) => {
                        self.rest = rest;
                        Next::Part
                    }
                    None => self.next_part(),
                }
            }
            Stop::End => self.next_part(),
        }
    }

    fn next_part(&mut self) -> Next {
        let (ReadTarget::Range(whole), ReadTarget::Range(part)) = (&self.rest.target, &self.command.target)
        else {
            return Next::Reply(None);
        };
        if part.end == whole.end {
            return Next::Reply(None);
        }
        if is_exhausted(&self.rest.limits) {
            return Next::Reply(Some(ResumePoint::Ring(part.end.clone())));
        }
        self.short_rounds = 0;
        let (start, end) = (part.end.clone(), whole.end.clone());
        self.rest.first_partition_slices = None;
        self.rest.target = ReadTarget::Range(PartitionRange { start, end });
        Next::Part
    }

    fn fail(&mut self, around: &mut Surroundings<'_>) -> Progress {
        let is_repairing = matches!(self.phase, Phase::Repair { .. });
        let data_present = is_repairing
            || self
                .contacts
                .iter()
                .any(|contact| matches!(contact.state, ContactState::Rows(_)));
        let (consistency, required) = (self.consistency, self.tally.required());
        let received = self.tally.received().min(required.saturating_sub(1));
        around.reply(Reply::Read(Err(if only_timeouts(&self.failures) {
            RequestError::ReadTimeout {
                consistency,
                received,
                required,
                data_present,
            }
        } else {
            RequestError::ReadFailure {
                consistency,
                received,
                required,
                failures: std::mem::take(&mut self.failures),
                data_present,
            }
        })));
        Progress::Ends
    }
}

/// What follows a part.
enum Next {
    Part,
    Reply(Option<ResumePoint>),
}

impl Contact {
    fn is_awaited(&self, from: HostId, round: u32) -> bool {
        self.replica.host == from && self.round == round && matches!(self.state, ContactState::Awaited)
    }
}

fn distinct(awaited: &[(u32, Replica)]) -> SmallVec<[Replica; 4]> {
    let mut replicas = SmallVec::new();
    for (_, replica) in awaited {
        if !replicas.contains(replica) {
            replicas.push(*replica);
        }
    }
    replicas
}

fn repair(around: &mut Surroundings<'_>, host: HostId, round: u32, mutation: Mutation) {
    let reply_to = around.reply_to(round);
    around.out.push(if host == around.local {
        Action::Apply { reply_to, mutation }
    } else {
        Action::Send {
            to: host,
            message: Message::Mutate {
                exchange: reply_to.exchange,
                mutation: Arc::new(mutation),
            },
        }
    });
}
