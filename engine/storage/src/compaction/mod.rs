//! Compaction: several sstables into one, without what is shadowed, expired or no longer needed.
//!
//! Invariants:
//! - A tombstone goes only when gc grace is over *and* nothing it may shadow is anywhere else: not in another sstable
//!   that may have the partition, not in a memtable. So deleted data never comes back.
//! - After a crash at any moment a table has exactly the old or exactly the new sstables (see `transaction`).
//! - Nothing is compacted before the commitlog has been replayed: what comes from there may be older than a tombstone.
//!
//! Read next: `strategy` for what is compacted and when, `run` for how.

mod purge;
mod run;
mod size_tiered;
mod strategy;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_env::TaskQueue;
use ceto_model::TableId;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::sstable::Sstable;
use crate::table::TableStore;
use crate::wait::Event;
use strategy::{Candidate, strategy_of};

/// Time after a failed compaction of a table before the next one starts by itself.
const RETRY: Duration = Duration::from_secs(30);

/// Compactions of a shard.
pub(crate) struct Compactions {
    running: RefCell<Vec<Rc<Progress>>>,
    done: Event,
    is_stopped: Cell<bool>,
    /// They were stopped.
    stopped: Event,
    /// Bytes per second; 0 for no limit.
    throughput: Cell<u64>,
    /// When what was written so far is within the limit.
    paced_until: Cell<Option<Instant>>,
}

/// How far a compaction is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) table: TableId,
    /// Bytes of all inputs.
    pub(crate) total: u64,
    pub(crate) read: Cell<u64>,
    pub(crate) written: Cell<u64>,
    pub(crate) started: Instant,
}

/// Sstables chosen to be compacted together; no other compaction takes them meanwhile.
pub(crate) struct Job {
    table: Rc<TableStore>,
    inputs: Vec<Rc<Sstable>>,
    epoch: u64,
}

impl Job {
    fn new(table: Rc<TableStore>, inputs: Vec<Rc<Sstable>>) -> Job {
        inputs.iter().for_each(|sstable| sstable.is_compacting.set(true));
        Job {
            epoch: table.epoch.get(),
            table,
            inputs,
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.inputs
            .iter()
            .for_each(|sstable| sstable.is_compacting.set(false));
    }
}

impl Compactions {
    /// None runs.
    pub(crate) fn new(throughput: u64) -> Compactions {
        Compactions {
            running: RefCell::default(),
            done: Event::default(),
            is_stopped: Cell::new(false),
            stopped: Event::default(),
            paced_until: Cell::new(None),
            throughput: Cell::new(throughput),
        }
    }

    /// Starts none any more, and waits for the running ones to give up.
    pub(crate) async fn stop(&self) {
        self.is_stopped.set(true);
        self.stopped.notify();
        loop {
            let done = self.done.listen();
            if self.running.borrow().is_empty() {
                return;
            }
            done.await;
        }
    }

    /// The running ones.
    pub(crate) fn running(&self) -> Vec<Rc<Progress>> {
        self.running.borrow().clone()
    }
}

impl Database {
    /// Limits what compactions of this shard write, in bytes per second; 0 for no limit.
    pub fn set_compaction_throughput(&self, bytes_per_second: u64) {
        self.compactions.throughput.set(bytes_per_second);
    }

    /// Starts a compaction of a table when its strategy wants one.
    pub(crate) fn compact_when_due(&self, table: &Rc<TableStore>) {
        if self.compactions.running.borrow().len() >= self.options.concurrent_compactions {
            table.has_changed.set(true);
            return;
        }
        let may_start = self.options.automatic_compaction
            && !self.compactions.is_stopped.get()
            && table.is_recovered.get()
            && !table.is_dropped.get()
            && !table.major_compaction_waits.get()
            && table
                .compaction_retry_at
                .get()
                .is_none_or(|at| self.env.clock().now() >= at);
        if !may_start || self.poison.check().is_err() {
            return;
        }
        let Some(job) = self.next_job(table) else { return };
        let this = self.this.upgrade().expect("a method of a living database runs");
        let table = table.clone();
        let task = async move {
            let result = this.run_job(job).await;
            this.note_result(&table, &result);
            if result.is_ok() {
                this.compact_when_due(&table);
            }
        };
        self.env.tasks().spawn(TaskQueue::Compaction, Box::pin(task));
    }

    fn next_job(&self, table: &Rc<TableStore>) -> Option<Job> {
        let inputs = {
            let view = table.view();
            let idle = view.sstables.iter().filter(|sstable| sstable.may_be_compacted());
            let idle: Vec<&Rc<Sstable>> = idle.collect();
            if idle.is_empty() {
                return None;
            }
            let candidates: Vec<Candidate<'_>> = idle.iter().map(|sstable| Candidate::of(sstable)).collect();
            let definition = table.definition();
            let now = self.env.clock().unix_seconds();
            let gc_before = now - i64::from(definition.options.gc_grace_seconds);
            let strategy = strategy_of(&definition.options.compaction);
            let chosen = strategy.next(&candidates, now, gc_before)?;
            chosen
                .into_iter()
                .filter_map(|at| idle.get(at).map(|sstable| Rc::clone(sstable)))
                .collect()
        };
        Some(Job::new(table.clone(), inputs))
    }

    /// Compacts all sstables of a table into one, and waits for it.
    pub async fn compact(&self, table: TableId) -> Result<()> {
        let table = self.table(table)?;
        table.major_compaction_waits.set(true);
        let job = loop {
            let done = self.compactions.done.listen();
            if self.compactions.is_stopped.get() {
                table.major_compaction_waits.set(false);
                return Err(Error::Closed);
            }
            let sstables = table.view().sstables.clone();
            if !sstables.iter().any(|sstable| sstable.is_compacting.get()) {
                break Job::new(table.clone(), sstables);
            }
            done.await;
        };
        table.major_compaction_waits.set(false);
        let result = if job.inputs.is_empty() {
            Ok(())
        } else {
            self.run_job(job).await
        };
        self.note_result(&table, &result);
        result
    }

    fn note_result(&self, table: &TableStore, result: &Result<()>) {
        let retry_at = match result {
            Ok(()) => None,
            Err(error) => {
                if !matches!(error, Error::Closed) {
                    tracing::error!("compaction of {} failed: {error}", table.name());
                }
                Some(self.env.clock().now() + RETRY)
            }
        };
        table.compaction_retry_at.set(retry_at);
    }

    /// Compactions that strategies want and that do not run yet.
    pub fn pending_compactions(&self) -> usize {
        let tables = self.tables.borrow();
        let pending = tables.values().map(|table| {
            let view = table.view();
            let idle = view.sstables.iter().filter(|sstable| sstable.may_be_compacted());
            let candidates: Vec<Candidate<'_>> = idle.map(Candidate::of).collect();
            strategy_of(&table.definition().options.compaction).pending(&candidates)
        });
        pending.sum()
    }
}
