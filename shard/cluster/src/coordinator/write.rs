//! Writes: every replica gets the mutation, whatever the consistency level; the level says how many acknowledgements
//! the client waits for. Who is about to be a replica counts as one, and one answer more is waited for.
//!
//! A replica that is down gets a hint at once; one that fails, or has not acknowledged by the deadline, gets it then.
//! So a write outlives its reply ("lingers") until each replica has answered or has its hint. Acknowledgements
//! allocate nothing.

use std::sync::Arc;
use std::time::Instant;

use ceto_internode::{ExchangeId, FailureReason, HostId, Message, RequestId};
use ceto_model::{Consistency, Mutation, WriteType};
use smallvec::SmallVec;

use super::action::{Action, Actions, Reply, ReplyTo};
use super::dispatch::{Coordinator, InFlight, Progress, RequestContext, Surroundings};
use super::error::{RequestError, only_timeouts};
use super::tally::Tally;
use crate::replication::Replica;

/// A write has one exchange with each replica.
const ROUND: u32 = 0;

/// A write in flight.
#[derive(Debug)]
pub(super) struct Write {
    consistency: Consistency,
    write_type: WriteType,
    tally: Tally,
    /// Replicas that were sent the mutation and have not answered.
    awaited: SmallVec<[Replica; 4]>,
    failures: Vec<(HostId, FailureReason)>,
    /// Hints on their way to disk, while one of them can satisfy ANY.
    hints_awaited: u32,
    /// For hints.
    mutation: Arc<Mutation>,
    is_replied: bool,
}

impl Coordinator {
    /// Begins a write. The reply follows as an action, unless the error is returned at once.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`] when too few replicas are alive, [`RequestError::Overloaded`] when too many
    /// requests are in flight. Nothing was done then.
    pub fn begin_write(
        &mut self,
        context: RequestContext<'_>,
        write_type: WriteType,
        mutation: Mutation,
        out: &mut Actions,
    ) -> Result<RequestId, RequestError> {
        self.admit()?;
        let RequestContext {
            replication,
            consistency,
            deadline,
        } = context;
        let replicas = replication.replicas(mutation.key.token);
        if self.is_enough(replication, consistency, replicas) {
            return Ok(self.write_here(consistency, write_type, deadline, mutation, out));
        }
        let mut write = Write {
            consistency,
            write_type,
            tally: Tally::for_write(replication, consistency, replicas.pending()),
            awaited: SmallVec::new(),
            failures: Vec::new(),
            hints_awaited: 0,
            mutation: Arc::new(mutation),
            is_replied: false,
        };
        write.awaited = self.alive(replicas.written()).copied().collect();
        // A hint will do for ANY, but there must be somebody to hint.
        if (consistency != Consistency::Any || replicas.written().is_empty())
            && let Some((required, alive)) = write.tally.shortage(&write.awaited)
        {
            return Err(RequestError::Unavailable {
                consistency,
                required,
                alive,
            });
        }
        Ok(self.replicate(write, replicas.written(), deadline, out))
    }

    /// Sends, hints, and applies: in this order, so that replicas work while this node does its part.
    fn replicate(
        &mut self,
        mut write: Write,
        replicas: &[Replica],
        deadline: Instant,
        out: &mut Actions,
    ) -> RequestId {
        let mutation = write.mutation.clone();
        let awaited = write.awaited.clone();
        if write.consistency == Consistency::Any {
            write.hints_awaited = (replicas.len() - awaited.len()) as u32;
        }
        let request = self.insert(InFlight::Write(Box::new(write)), deadline);
        let round = ROUND;
        let reply_to = ReplyTo {
            coordinator: self.local,
            exchange: ExchangeId { request, round },
        };
        for replica in awaited.iter().filter(|replica| replica.host != self.local) {
            out.push(Action::Send {
                to: replica.host,
                message: Message::Mutate {
                    exchange: reply_to.exchange,
                    mutation: mutation.clone(),
                },
            });
        }
        for replica in replicas.iter().filter(|replica| !awaited.contains(replica)) {
            out.push(Action::StoreHint {
                replica: replica.host,
                request,
                mutation: mutation.clone(),
            });
        }
        if awaited.iter().any(|replica| replica.host == self.local) {
            let mutation = Arc::unwrap_or_clone(mutation);
            out.push(Action::Apply { reply_to, mutation });
        }
        request
    }
}

impl Write {
    pub(super) fn is_replied(&self) -> bool {
        self.is_replied
    }

    pub(super) fn awaits(&self, peer: HostId) -> bool {
        self.awaited.iter().any(|replica| replica.host == peer)
    }

    pub(super) fn on_ack(
        &mut self,
        from: HostId,
        outcome: Result<(), FailureReason>,
        around: &mut Surroundings<'_>,
    ) -> Progress {
        let Some(at) = self.awaited.iter().position(|replica| replica.host == from) else {
            return Progress::Waits;
        };
        let replica = self.awaited.swap_remove(at);
        match outcome {
            Ok(()) => self.tally.count(replica.datacenter),
            Err(reason) => {
                self.failures.push((from, reason));
                self.hint(replica, around);
            }
        }
        self.advance(around)
    }

    pub(super) fn on_hint_stored(&mut self, around: &mut Surroundings<'_>) -> Progress {
        if self.hints_awaited == 0 || self.is_replied {
            return Progress::Waits;
        }
        self.hints_awaited -= 1;
        self.is_replied = true;
        around.reply(Reply::Write(Ok(())));
        self.progress()
    }

    pub(super) fn on_timer(&mut self, around: &mut Surroundings<'_>) -> Progress {
        self.stop_waiting(around);
        if !self.is_replied {
            self.is_replied = true;
            around.reply(Reply::Write(Err(self.timeout())));
        }
        Progress::Ends
    }

    /// Gives the replicas that have not answered their hints, and forgets them.
    pub(super) fn stop_waiting(&mut self, around: &mut Surroundings<'_>) {
        for replica in std::mem::take(&mut self.awaited) {
            self.hint(replica, around);
        }
    }

    fn advance(&mut self, around: &mut Surroundings<'_>) -> Progress {
        if !self.is_replied {
            if self.tally.is_met() {
                self.is_replied = true;
                around.reply(Reply::Write(Ok(())));
            } else if self.hints_awaited == 0
                && !self.tally.can_be_met(&self.awaited)
                // A timeout says how many have answered: it is not told before all have that may.
                && (self.awaited.is_empty() || !only_timeouts(&self.failures))
            {
                self.is_replied = true;
                around.reply(Reply::Write(Err(self.failure())));
            }
        }
        self.progress()
    }

    fn progress(&self) -> Progress {
        match (self.is_replied, self.awaited.is_empty()) {
            (false, _) => Progress::Waits,
            (true, false) => Progress::Lingers,
            (true, true) => Progress::Ends,
        }
    }

    /// Hints a remote replica. This node does not hint itself: its client hears of the failure.
    fn hint(&mut self, replica: Replica, around: &mut Surroundings<'_>) {
        if replica.host == around.local {
            return;
        }
        if self.consistency == Consistency::Any {
            self.hints_awaited += 1;
        }
        around.out.push(Action::StoreHint {
            replica: replica.host,
            request: around.request,
            mutation: self.mutation.clone(),
        });
    }

    fn timeout(&self) -> RequestError {
        RequestError::WriteTimeout {
            consistency: self.consistency,
            received: self.tally.received(),
            required: self.tally.required(),
            write_type: self.write_type,
        }
    }

    fn failure(&self) -> RequestError {
        if only_timeouts(&self.failures) {
            return self.timeout();
        }
        RequestError::WriteFailure {
            consistency: self.consistency,
            received: self.tally.received(),
            required: self.tally.required(),
            failures: self.failures.clone(),
            write_type: self.write_type,
        }
    }
}
