//! Making entries survive power loss.
//!
//! One task per log syncs; writes that wait for it wait together, so that one sync serves all of them.

use std::rc::Rc;
use std::time::Duration;

use ceto_env::Segment;

use super::ReplayPosition;
use super::writer::Commitlog;
use crate::error::Result;
use crate::options::CommitlogSync;
use crate::wait::either;

/// Time between syncs after a failed one, where the policy is to go on.
const RETRY: Duration = Duration::from_millis(500);

impl Commitlog {
    /// Writes are acknowledged only after a sync.
    pub(crate) fn acknowledges_after_sync(&self) -> bool {
        !matches!(self.mode, CommitlogSync::Periodic { .. })
    }

    /// Completes when the entry at `position` survives power loss.
    pub(crate) async fn wait_synced(&self, position: ReplayPosition) -> Result<()> {
        self.wait_until(|synced| synced > position).await
    }

    /// Makes everything appended so far survive power loss.
    pub(crate) async fn sync(&self) -> Result<()> {
        let end = self.end.get();
        self.wait_until(|synced| synced >= end).await
    }

    async fn wait_until(&self, is_enough: impl Fn(ReplayPosition) -> bool) -> Result<()> {
        let failures = self.sync_failures.get();
        loop {
            let done = self.sync_done.listen();
            if is_enough(self.synced.get()) {
                return Ok(());
            }
            self.poison.check()?;
            if self.sync_failures.get() != failures
                && let Some(error) = &*self.last_sync_failure.borrow()
            {
                return Err(error.clone());
            }
            if self.is_closed.get() {
                // The task that syncs has ended.
                return self.sync_once().await;
            }
            self.is_sync_asked.set(true);
            self.sync_wanted.notify();
            done.await;
        }
    }

    pub(super) async fn keep_synced(&self) {
        let tasks = self.env.tasks();
        while !self.is_closed.get() {
            let wanted = self.sync_wanted.listen();
            if self.synced.get() < self.end.get()
                && (self.acknowledges_after_sync() || self.is_sync_asked.replace(false))
            {
                if self.sync_once().await.is_err() {
                    if self.poison.check().is_err() {
                        return;
                    }
                    tasks.sleep(RETRY).await;
                    continue;
                }
                if let CommitlogSync::Group { window } = self.mode {
                    tasks.sleep(window).await;
                }
                continue;
            }
            match self.mode {
                CommitlogSync::Periodic { period } => {
                    either(tasks.sleep(period), wanted).await;
                    self.is_sync_asked.set(true);
                }
                CommitlogSync::Batch | CommitlogSync::Group { .. } => wanted.await,
            }
        }
    }

    async fn sync_once(&self) -> Result<()> {
        let end = self.end.get();
        let result = self.sync_segments().await;
        match &result {
            Ok(()) => self.note_synced(end),
            Err(error) => {
                self.poison.note_commit_failure(error);
                *self.last_sync_failure.borrow_mut() = Some(error.clone());
                self.sync_failures.set(self.sync_failures.get() + 1);
            }
        }
        self.sync_done.notify();
        result
    }

    async fn sync_segments(&self) -> Result<()> {
        for segment in self.unsynced_segments() {
            segment.sync().await?;
        }
        self.syncs.set(self.syncs.get() + 1);
        Ok(())
    }

    /// Oldest first, so that a synced entry implies that all before it are.
    fn unsynced_segments(&self) -> Vec<Rc<dyn Segment>> {
        let closed = self.closed.borrow();
        let active = self.active.borrow();
        let active = active.iter().map(|active| active.segment.clone());
        closed
            .iter()
            .filter_map(|closed| closed.segment.clone())
            .chain(active)
            .collect()
    }

    fn note_synced(&self, end: ReplayPosition) {
        self.synced.set(end);
        for closed in self
            .closed
            .borrow_mut()
            .iter_mut()
            .filter(|closed| closed.id < end.segment)
        {
            closed.segment = None;
        }
        if let Some(active) = &mut *self.active.borrow_mut()
            && active.id == end.segment
        {
            active.synced_through = end.offset;
        }
        self.release_synced();
    }
}
