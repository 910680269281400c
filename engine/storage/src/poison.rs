//! The state of a shard that may no longer write.
//!
//! After a failed commitlog or sstable write nobody knows what is on the device, so the shard stops writing and says
//! so with every refused write, until it is restarted. It never half-continues. A full disk is not such a failure.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Whether writes are stopped, shared by all parts of one shard's storage.
#[derive(Clone, Default)]
pub(crate) struct Poison(Rc<RefCell<Option<Arc<str>>>>);

impl Poison {
    /// Fails when writes are stopped.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.0.borrow() {
            Some(reason) => Err(Error::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    /// Stops writes; the first reason stays.
    pub(crate) fn stop_writes(&self, cause: &Error) {
        let mut reason = self.0.borrow_mut();
        if reason.is_none() {
            tracing::error!("writes are stopped on this shard: {cause}");
            *reason = Some(cause.to_string().into());
        }
    }
}
