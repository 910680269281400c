//! Requests that this node alone can answer: the short way of every request to a single node.
//!
//! One replica suffices and it is here, so there is nothing to count, to choose or to merge: one action out, one
//! outcome in. Costs no allocation; what the replica answers is what the client gets, and it is asked for no tombstones.
//!
//! What is done at once need not be a request at all: where [`Coordinator::suffices_for_write`] or
//! [`Coordinator::suffices_for_read`] says so, the caller does the replica's work itself. A write that then takes its time
//! is put in flight by [`Coordinator::await_write_here`].

use std::time::Instant;

use ceto_internode::{AnswerKind, ExchangeId, FailureReason, ReadAnswer, RequestId};
use ceto_model::{Consistency, Mutation, ReadCommand, ReadTarget, Token, WriteType};

use super::action::{Action, Actions, Reply, ReplyTo};
use super::dispatch::{Coordinator, InFlight, Progress, RequestContext, Surroundings};
use super::error::RequestError;
use super::read::ReadOptions;
use crate::replication::{ReplicaMap, ReplicaSet};

/// The only exchange of such a request.
const ROUND: u32 = 0;

/// A request in flight to this node's own replica.
#[derive(Debug)]
pub(super) struct Local {
    consistency: Consistency,
    /// None for a read.
    write_type: Option<WriteType>,
}

impl Coordinator {
    /// A write of this token is done when this node's replica has it, and one more request may be in flight.
    pub fn suffices_for_write(&self, context: &RequestContext<'_>, token: Token) -> bool {
        let replicas = context.replication.replicas(token);
        self.is_enough(context.replication, context.consistency, replicas) && self.admit().is_ok()
    }

    /// What this node's replica reads of `target` is the answer.
    pub fn suffices_for_read(
        &self,
        context: &RequestContext<'_>,
        options: &ReadOptions,
        target: &ReadTarget,
    ) -> bool {
        let speculates = options.speculate_after.is_some();
        self.can_read_here(context.replication, context.consistency, speculates, target)
    }

    /// Puts a write in flight that [suffices](Self::suffices_for_write) and has been begun here; its outcome is to be fed
    /// to [`Self::applied`].
    pub fn await_write_here(&mut self, context: &RequestContext<'_>, write_type: WriteType) -> ReplyTo {
        let local = Local {
            consistency: context.consistency,
            write_type: Some(write_type),
        };
        let request = self.insert(InFlight::Local(local), context.deadline);
        self.reply_here(request)
    }

    /// This node is the only replica that matters at the level: it is a replica, one answer is enough, and there is no
    /// other to be written.
    pub(super) fn is_enough(
        &self,
        map: &ReplicaMap,
        consistency: Consistency,
        replicas: &ReplicaSet,
    ) -> bool {
        map.required(consistency) == 1 && replicas.single().is_some_and(|single| single.host == self.local)
    }

    /// This node's replica holds all of `target` and may answer alone: nobody else is to be asked even if it is slow.
    pub(super) fn can_read_here(
        &self,
        map: &ReplicaMap,
        consistency: Consistency,
        speculates: bool,
        target: &ReadTarget,
    ) -> bool {
        if map.required(consistency) != 1 {
            return false;
        }
        let replicas = match target {
            ReadTarget::Partition(key) => Some(map.replicas(key.token)),
            ReadTarget::Range(_) => map.uniform(),
        };
        replicas
            .filter(|replicas| !speculates || replicas.single().is_some())
            .and_then(|replicas| replicas.nearest().first())
            .is_some_and(|nearest| nearest.host == self.local)
    }

    pub(super) fn write_here(
        &mut self,
        consistency: Consistency,
        write_type: WriteType,
        deadline: Instant,
        mutation: Mutation,
        out: &mut Actions,
    ) -> RequestId {
        let write_type = Some(write_type);
        let request = self.insert(
            InFlight::Local(Local {
                consistency,
                write_type,
            }),
            deadline,
        );
        let reply_to = self.reply_here(request);
        out.push(Action::Apply { reply_to, mutation });
        request
    }

    pub(super) fn read_here(
        &mut self,
        consistency: Consistency,
        deadline: Instant,
        command: ReadCommand,
        out: &mut Actions,
    ) -> RequestId {
        let write_type = None;
        let request = self.insert(
            InFlight::Local(Local {
                consistency,
                write_type,
            }),
            deadline,
        );
        out.push(Action::Read {
            reply_to: self.reply_here(request),
            kind: AnswerKind::Data,
            command,
        });
        request
    }

    fn reply_here(&self, request: RequestId) -> ReplyTo {
        let round = ROUND;
        ReplyTo {
            coordinator: self.local,
            exchange: ExchangeId { request, round },
        }
    }
}

impl Local {
    pub(super) fn on_applied(
        &mut self,
        outcome: Result<(), FailureReason>,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        let outcome = outcome.map_err(|reason| self.error(reason, around));
        around.reply(Reply::Write(outcome));
        Progress::Ends
    }

    pub(super) fn on_answer(
        &mut self,
        outcome: Result<ReadAnswer, FailureReason>,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        let outcome = match outcome {
            Ok(ReadAnswer::Data(result)) => Ok(result),
            // Nobody was asked for a digest.
            Ok(ReadAnswer::Digest(_)) => return Progress::Waits,
            Err(reason) => Err(self.error(reason, around)),
        };
        around.reply(Reply::Read(outcome));
        Progress::Ends
    }

    pub(super) fn on_timer(&mut self, around: &mut Surroundings<'_>) -> Progress {
        let error = self.error(FailureReason::Timeout, around);
        around.reply(match self.write_type {
            Some(_) => Reply::Write(Err(error)),
            None => Reply::Read(Err(error)),
        });
        Progress::Ends
    }

    fn error(&self, reason: FailureReason, around: &Surroundings<'_>) -> RequestError {
        let (consistency, received, required) = (self.consistency, 0, 1);
        let failures = || vec![(around.local, reason)];
        match (self.write_type, reason) {
            (Some(write_type), FailureReason::Timeout) => RequestError::WriteTimeout {
                consistency,
                received,
                required,
                write_type,
            },
            (Some(write_type), _) => RequestError::WriteFailure {
                consistency,
                received,
                required,
                failures: failures(),
                write_type,
            },
            (None, FailureReason::Timeout) => RequestError::ReadTimeout {
                consistency,
                received,
                required,
                data_present: false,
            },
            (None, _) => RequestError::ReadFailure {
                consistency,
                received,
                required,
                failures: failures(),
                data_present: false,
            },
        }
    }
}
