//! This shard as a replica: reads and writes of its own storage, and what they took.
//!
//! Times are read from the clock around each of them, not taken from the turn of the event loop: most are shorter than
//! a turn. Never: knows a client, a consistency level or another shard.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_env::LocalFuture;
use ceto_internode::FailureReason;
use ceto_model::read::ReadTarget;
use ceto_model::{Mutation, ReadCommand, ReadResult, TableId};
use ceto_storage::{Applied, Error};

use crate::message::ReplicaFailure;
use crate::metrics::nanos;
use crate::node::Node;
use crate::shard_metrics::Operation;

/// What a table's reads and writes have taken on this shard in all, in nanoseconds.
#[derive(Default)]
pub(crate) struct TableTimes {
    pub(crate) reads: Cell<u64>,
    pub(crate) writes: Cell<u64>,
}

/// A write to this shard's storage that was begun.
pub(crate) enum BegunApply {
    /// Done, then.
    Done(Instant),
    /// [`Node::finish_apply`] waits for it.
    Waits(Rest),
}

/// A write that waits for room or for a sync.
pub(crate) struct WaitingApply {
    done: LocalFuture<'static, Result<(), Error>>,
    table: TableId,
    began: Instant,
    /// A build of a view waits for writes that began before it.
    _waiting: Rc<()>,
}

/// A write of which more than storage has to be done.
pub(crate) enum Rest {
    /// It waits for storage.
    Storage(WaitingApply),
    /// Its table has materialized views.
    Views(LocalFuture<'static, Result<(), ReplicaFailure>>),
}

impl Node {
    /// Applies to this shard's storage.
    pub(crate) async fn apply_here(self: Rc<Self>, mutation: Mutation) -> Result<(), ReplicaFailure> {
        match self.begin_apply(mutation)? {
            BegunApply::Done(_) => Ok(()),
            BegunApply::Waits(write) => self.finish_apply(write).await,
        }
    }

    pub(crate) fn begin_apply(self: &Rc<Self>, mutation: Mutation) -> Result<BegunApply, ReplicaFailure> {
        if self.has_views(mutation.table) {
            let work = self.clone().apply_with_views(mutation);
            return Ok(BegunApply::Waits(Rest::Views(Box::pin(work))));
        }
        self.begin_plain_apply(mutation)
    }

    /// Applies to this shard's storage and nowhere else.
    pub(crate) async fn apply_plainly(self: Rc<Self>, mutation: Mutation) -> Result<(), ReplicaFailure> {
        match self.begin_plain_apply(mutation)? {
            BegunApply::Done(_) => Ok(()),
            BegunApply::Waits(write) => self.finish_apply(write).await,
        }
    }

    pub(crate) fn begin_plain_apply(&self, mutation: Mutation) -> Result<BegunApply, ReplicaFailure> {
        self.metrics.replica_writes.increment();
        let table = mutation.table;
        let began = self.env.clock().read();
        match self.database()?.apply(mutation) {
            Ok(Applied::Done) => Ok(BegunApply::Done(self.note_write(table, began))),
            Ok(Applied::Later(done)) => Ok(BegunApply::Waits(Rest::Storage(WaitingApply {
                done,
                table,
                began,
                _waiting: self.views.waiting_write(),
            }))),
            Err(error) => Err(self.storage_failure(&error)),
        }
    }

    /// Waits until a write may be acknowledged.
    pub(crate) async fn finish_apply(&self, write: Rest) -> Result<(), ReplicaFailure> {
        let write = match write {
            Rest::Storage(write) => write,
            Rest::Views(work) => return work.await,
        };
        let outcome = write.done.await;
        self.note_write(write.table, write.began);
        outcome.map_err(|error| self.storage_failure(&error))
    }

    /// Reads one partition of this shard, if everything needed is in memory.
    pub(crate) fn try_read_here(&self, command: &ReadCommand) -> Option<Result<ReadResult, ReplicaFailure>> {
        let ReadTarget::Partition(key) = &command.target else {
            return None;
        };
        if key.token.shard(self.shard_count()) != self.shard() {
            return None;
        }
        let began = self.env.clock().read();
        let outcome = self.database().ok()?.try_read(command)?;
        self.metrics.replica_reads.increment();
        self.note_read(command.table, began);
        Some(outcome.map_err(|error| self.storage_failure(&error)))
    }

    /// Reads from this shard's storage.
    pub(crate) async fn read_here(&self, command: &ReadCommand) -> Result<ReadResult, ReplicaFailure> {
        let began = self.env.clock().read();
        self.metrics.replica_reads.increment();
        let outcome = self.database()?.read(command).await;
        self.note_read(command.table, began);
        outcome.map_err(|error| self.storage_failure(&error))
    }

    fn note_read(&self, table: TableId, began: Instant) {
        let took = self.env.clock().read().saturating_duration_since(began);
        self.metrics.latency(Operation::ReplicaRead).record(took);
        self.note_time(table, |times| &times.reads, took);
    }

    /// When it ended.
    fn note_write(&self, table: TableId, began: Instant) -> Instant {
        let ended = self.env.clock().read();
        let took = ended.saturating_duration_since(began);
        self.metrics.latency(Operation::ReplicaWrite).record(took);
        self.note_time(table, |times| &times.writes, took);
        ended
    }

    fn note_time(&self, table: TableId, of: impl Fn(&TableTimes) -> &Cell<u64>, took: Duration) {
        let mut tables = self.table_times.borrow_mut();
        let sum = of(tables.entry(table).or_default());
        sum.set(sum.get().saturating_add(nanos(took)));
    }

    /// Requests and replica work that failed by a fault of this shard's own.
    pub fn faults(&self) -> u64 {
        self.metrics.errors(ceto_native::ErrorCode::ServerError) + self.metrics.replica_faults.get()
    }

    /// What a storage error means to a coordinator.
    pub(crate) fn storage_failure(&self, error: &Error) -> ReplicaFailure {
        let reason = match error {
            Error::UnknownTable(_) => FailureReason::IncompatibleSchema,
            Error::Overloaded { .. } => FailureReason::Overloaded,
            Error::WriteWaitedTooLong { .. } | Error::ReadWaitedTooLong { .. } => FailureReason::Timeout,
            Error::DiskFull(_) | Error::Poisoned(_) | Error::Closed => FailureReason::StorageRefused,
            _ => FailureReason::Unknown,
        };
        if reason == FailureReason::Unknown {
            self.metrics.replica_faults.increment();
            tracing::error!(%error, "storage failed");
        }
        ReplicaFailure::new(reason, error.to_string())
    }
}
