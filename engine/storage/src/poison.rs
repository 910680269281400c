//! The state of a shard that may no longer write.
//!
//! After a failed commitlog or sstable write nobody knows what is on the device, so the shard stops writing and says
//! so with every refused write, until it is restarted. It never half-continues. A full disk is not such a failure. Only
//! for the commitlog, and only when `commit_failure_policy` says so, a failure is passed over.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::options::CommitFailurePolicy;
use crate::wait::Event;

/// A failure that concerns more than this shard's writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StorageFailure {
    /// The node is to stop serving clients.
    StopServing(Arc<str>),
    /// The process is to end.
    Die(Arc<str>),
}

/// Whether writes are stopped, shared by all parts of one shard's storage.
#[derive(Clone)]
pub(crate) struct Poison(Rc<State>);

struct State {
    policy: CommitFailurePolicy,
    reason: RefCell<Option<Arc<str>>>,
    failure: RefCell<Option<StorageFailure>>,
    has_failed: Event,
}

impl Poison {
    /// Writes go on.
    pub(crate) fn new(policy: CommitFailurePolicy) -> Poison {
        Poison(Rc::new(State {
            policy,
            reason: RefCell::default(),
            failure: RefCell::default(),
            has_failed: Event::default(),
        }))
    }

    /// Fails when writes are stopped.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.0.reason.borrow() {
            Some(reason) => Err(Error::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    /// Stops writes; the first reason stays.
    pub(crate) fn stop_writes(&self, cause: &Error) {
        let mut reason = self.0.reason.borrow_mut();
        if reason.is_none() {
            tracing::error!("writes are stopped on this shard: {cause}");
            *reason = Some(cause.to_string().into());
        }
    }

    /// The commitlog could not be written; true when that is to be passed over.
    pub(crate) fn note_commit_failure(&self, cause: &Error) -> bool {
        let text: Arc<str> = cause.to_string().into();
        let failure = match self.0.policy {
            CommitFailurePolicy::Ignore => {
                tracing::error!("commitlog failure, passed over (commit_failure_policy: ignore): {cause}");
                return true;
            }
            CommitFailurePolicy::StopCommit => None,
            CommitFailurePolicy::Stop => Some(StorageFailure::StopServing(text)),
            CommitFailurePolicy::Die => Some(StorageFailure::Die(text)),
        };
        self.stop_writes(cause);
        let mut known = self.0.failure.borrow_mut();
        if known.is_none() {
            *known = failure;
        }
        drop(known);
        self.0.has_failed.notify();
        false
    }

    /// Completes at the first failure that concerns more than this shard's writes.
    pub(crate) async fn failed(&self) -> StorageFailure {
        loop {
            let failed = self.0.has_failed.listen();
            if let Some(failure) = &*self.0.failure.borrow() {
                return failure.clone();
            }
            failed.await;
        }
    }
}
