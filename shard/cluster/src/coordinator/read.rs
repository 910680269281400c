//! Reads: how one begins, and the short way when one replica's answer is enough.
//!
//! When the level asks for one answer and one replica can give all of it, its answer goes to the client as it came:
//! nothing is merged and no tombstone travels. All other reads go by rounds, see `round`.

use std::time::{Duration, Instant};

use ceto_internode::{AnswerKind, FailureReason, HostId, Message, ReadAnswer, RequestId};
use ceto_model::{Consistency, PartitionRange, ReadCommand, ReadTarget};
use smallvec::SmallVec;

use super::action::{Action, Actions, Reply};
use super::dispatch::{Coordinator, InFlight, Progress, RequestContext, Surroundings};
use super::error::{RequestError, another_may_do_better, only_timeouts};
use super::round::ManyRead;
use super::tally::{Chosen, Tally};
use crate::replication::{Replica, ReplicaMap};

/// The table's `read_repair` option.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReadRepair {
    /// Replicas that differ are repaired before the client has its answer, so that quorum reads never go back in time.
    #[default]
    Blocking,
    /// Answers are merged, replicas left as they are.
    None,
}

/// How a table wants to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadOptions {
    /// What to do about replicas that differ.
    pub read_repair: ReadRepair,
    /// Ask one more replica after this long; see `SpeculativeRetry`.
    pub speculate_after: Option<Duration>,
}

/// What all replicas of a part of a read are asked, and who they are.
pub(super) struct Part {
    /// The end of the range read; None for a single partition.
    pub(super) target: ReadTarget,
    /// Alive replicas that hold all of the target, nearest first.
    pub(super) candidates: Chosen,
}

impl Part {
    /// The first part of `target` that the same replicas can answer at the level of `tally`: for a range as many
    /// vnodes as have enough alive replicas in common.
    ///
    /// # Errors
    /// What is needed and how many are alive, when they are too few.
    pub(super) fn first(
        target: &ReadTarget,
        map: &ReplicaMap,
        tally: &Tally,
        is_alive: impl Fn(&Replica) -> bool,
    ) -> Result<Part, (u32, u32)> {
        let alive = |replicas: &[Replica]| -> Chosen {
            replicas
                .iter()
                .copied()
                .filter(|replica| is_alive(replica))
                .collect()
        };
        let range = match target {
            ReadTarget::Partition(key) => {
                let candidates = alive(map.replicas(key.token).nearest());
                return match tally.shortage(&candidates) {
                    Some(shortage) => Err(shortage),
                    None => Ok(Part {
                        target: target.clone(),
                        candidates,
                    }),
                };
            }
            ReadTarget::Range(range) => range,
        };
        let (mut part, mut candidates) = match map.first_part(range) {
            Some((part, set)) => (part, alive(set.nearest())),
            // An empty range has nobody to ask; any replica answers it.
            None => (range.clone(), alive(map.replicas(range.end.token()).nearest())),
        };
        if let Some(shortage) = tally.shortage(&candidates) {
            return Err(shortage);
        }
        while part.end != range.end {
            let rest = PartitionRange {
                start: part.end.clone(),
                end: range.end.clone(),
            };
            let Some((next, set)) = map.first_part(&rest) else {
                part.end = range.end.clone();
                break;
            };
            let both: Chosen = candidates
                .iter()
                .copied()
                .filter(|replica| set.natural().contains(replica))
                .collect();
            if tally.shortage(&both).is_some() {
                break;
            }
            candidates = both;
            part.end = next.end;
        }
        Ok(Part {
            target: ReadTarget::Range(part),
            candidates,
        })
    }
}

impl Coordinator {
    /// Begins a read. The reply follows as an action, unless the error is returned at once.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`] when too few replicas are alive, [`RequestError::Overloaded`] when too many
    /// requests are in flight. Nothing was done then.
    pub fn begin_read(
        &mut self,
        now: Instant,
        context: RequestContext<'_>,
        options: ReadOptions,
        command: ReadCommand,
        out: &mut Actions,
    ) -> Result<RequestId, RequestError> {
        self.admit()?;
        let consistency = context.consistency;
        let speculates = options.speculate_after.is_some();
        if self.can_read_here(context.replication, consistency, speculates, &command.target) {
            return Ok(self.read_here(consistency, context.deadline, command, out));
        }
        let tally = Tally::new(context.replication, consistency);
        let part = Part::first(&command.target, context.replication, &tally, |replica| {
            self.alive(std::slice::from_ref(replica)).next().is_some()
        });
        let part = part.map_err(|(required, alive)| RequestError::Unavailable {
            consistency,
            required,
            alive,
        })?;
        if tally.required() == 1 && part.target == command.target {
            return Ok(self.begin_single(now, context, options, &tally, &part.candidates, command, out));
        }
        let read = ManyRead::new(&context, options, command);
        let request = self.insert(InFlight::ManyRead(Box::new(read)), context.deadline);
        let mut refused = None;
        self.with(now, request, out, |state, around| {
            if let InFlight::ManyRead(read) = state {
                refused = read.start(around).err();
            }
            Progress::Waits
        });
        match refused {
            None => Ok(request),
            Some(error) => {
                self.withdraw(request);
                Err(error)
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // one caller, which has taken them apart already
    fn begin_single(
        &mut self,
        now: Instant,
        context: RequestContext<'_>,
        options: ReadOptions,
        tally: &Tally,
        candidates: &[Replica],
        command: ReadCommand,
        out: &mut Actions,
    ) -> RequestId {
        let (chosen, spare) = tally.choose(candidates).unwrap_or_default();
        let speculate_at = options
            .speculate_after
            .filter(|_| !spare.is_empty())
            .map(|wait| now + wait)
            .filter(|at| *at < context.deadline);
        let read = SingleRead {
            consistency: context.consistency,
            deadline: context.deadline,
            awaited: chosen.iter().map(|replica| replica.host).collect(),
            failures: Vec::new(),
            spare: spare.iter().map(|replica| replica.host).collect(),
            command: Box::new(command.clone()),
            speculate_at,
        };
        let request = self.insert(InFlight::SingleRead(Box::new(read)), context.deadline);
        self.with(now, request, out, |_, around| {
            if let Some(at) = speculate_at {
                around.deadlines.arm(at, request);
            }
            if let Some(replica) = chosen.first() {
                ask(around, replica.host, 0, AnswerKind::Data, command);
            }
            Progress::Waits
        });
        request
    }
}

/// Emits the question to a replica, which may be this node.
pub(super) fn ask(
    around: &mut Surroundings<'_>,
    host: HostId,
    round: u32,
    kind: AnswerKind,
    command: ReadCommand,
) {
    let reply_to = around.reply_to(round);
    around.out.push(if host == around.local {
        Action::Read {
            reply_to,
            kind,
            command,
        }
    } else {
        Action::Send {
            to: host,
            message: Message::Read {
                exchange: reply_to.exchange,
                kind,
                command: command.into(),
            },
        }
    });
}

/// A read that one answer completes.
#[derive(Debug)]
pub(super) struct SingleRead {
    consistency: Consistency,
    deadline: Instant,
    awaited: SmallVec<[HostId; 2]>,
    failures: Vec<(HostId, FailureReason)>,
    /// Replicas that could be asked as well, nearest first: when the first is slow, or fails.
    spare: SmallVec<[HostId; 2]>,
    command: Box<ReadCommand>,
    speculate_at: Option<Instant>,
}

impl SingleRead {
    pub(super) fn awaits(&self, peer: HostId) -> bool {
        self.awaited.contains(&peer)
    }

    pub(super) fn on_answer(
        &mut self,
        from: HostId,
        _round: u32,
        outcome: Result<ReadAnswer, FailureReason>,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        let Some(at) = self.awaited.iter().position(|host| *host == from) else {
            return Progress::Waits;
        };
        match outcome {
            Ok(ReadAnswer::Data(result)) => {
                around.reply(Reply::Read(Ok(result)));
                Progress::Ends
            }
            // Nobody was asked for a digest.
            Ok(ReadAnswer::Digest(_)) => Progress::Waits,
            Err(reason) => {
                self.awaited.swap_remove(at);
                self.failures.push((from, reason));
                self.spare.retain(|host| *host != from);
                if !self.awaited.is_empty() {
                    return Progress::Waits;
                }
                // Nobody is asked any more: one that has not been asked may do better.
                if another_may_do_better(reason) && !self.spare.is_empty() {
                    let host = self.spare.remove(0);
                    self.awaited.push(host);
                    let command = ReadCommand::clone(&self.command);
                    ask(around, host, 0, AnswerKind::Data, command);
                    return Progress::Waits;
                }
                let error = self.error();
                around.reply(Reply::Read(Err(error)));
                Progress::Ends
            }
        }
    }

    pub(super) fn on_timer(&mut self, around: &mut Surroundings<'_>) -> Progress {
        if around.now >= self.deadline {
            let error = self.error();
            around.reply(Reply::Read(Err(error)));
            return Progress::Ends;
        }
        if self.speculate_at.take_if(|at| *at <= around.now).is_some() && !self.spare.is_empty() {
            let host = self.spare.remove(0);
            self.awaited.push(host);
            ask(
                around,
                host,
                0,
                AnswerKind::Data,
                ReadCommand::clone(&self.command),
            );
        }
        Progress::Waits
    }

    fn error(&self) -> RequestError {
        if only_timeouts(&self.failures) {
            return RequestError::ReadTimeout {
                consistency: self.consistency,
                received: 0,
                required: 1,
                data_present: false,
            };
        }
        RequestError::ReadFailure {
            consistency: self.consistency,
            received: 0,
            required: 1,
            failures: self.failures.clone(),
            data_present: false,
        }
    }
}
