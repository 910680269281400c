//! Compaction: sstables into fewer or better sorted ones, without what is shadowed, expired or no longer needed.
//!
//! Invariants:
//! - A tombstone goes only when gc grace is over *and* nothing it may shadow is anywhere else: not in another sstable
//!   that may have the partition, not in a memtable (and so not in the commitlog either: what is there is in a memtable
//!   or in an sstable). So deleted data never comes back.
//! - At every moment, also while a compaction runs, the table's sstables alone say all that was written: what another
//!   reader, a snapshot or a start after a crash finds is right without knowing of the compaction.
//! - After a crash at any moment each step of a compaction has happened or not (see `transaction`).
//! - Nothing is compacted before the commitlog has been replayed: what comes from there may be older than a tombstone.
//! - No compaction starts that the disk has no space to finish.
//!
//! Read next: `strategy` for what is compacted and when, `run` for how, `requests` for what operators ask for, `backlog`
//! for how much of the processor it gets.

mod backlog;
mod incremental;
mod leveled;
mod options;
mod outputs;
mod position;
mod purge;
mod requests;
mod run;
mod runs;
mod scrub;
mod shadow;
mod size_tiered;
mod space;
mod strategy;
#[cfg(test)]
mod tests;
mod time_window;
mod tombstones;
mod unified;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_env::TaskQueue;
use ceto_model::{DecoratedKey, TableId};
use uuid::Uuid;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::sstable::{Descriptor, Sstable};
use crate::table::{Era, TableStore};
use crate::wait::Event;
use options::Shadowing;
pub use requests::MajorCompaction;
pub(crate) use strategy::Compacting;
use strategy::{Candidate, Kind, Moment, Output, Plan};

/// Time after a failed compaction of a table before the next one starts by itself.
const RETRY: Duration = Duration::from_secs(30);

/// Compactions of a shard.
pub(crate) struct Compactions {
    running: RefCell<Vec<Rc<Progress>>>,
    done: Event,
    is_stopped: Cell<bool>,
    /// Some or all were stopped.
    stopped: Event,
    /// Bytes per second; 0 for no limit.
    throughput: Cell<u64>,
    /// When what was written so far is within the limit.
    paced_until: Cell<Option<Instant>>,
    listener: RefCell<Option<Listener>>,
    /// What the backlog controller saw and did last.
    pub(crate) backlog: Cell<f64>,
    pub(crate) shares: Cell<u32>,
    pub(crate) completed: Cell<u64>,
    pub(crate) aborted: Cell<u64>,
    /// Compactions that took fewer sstables than they wanted, for want of space.
    pub(crate) reduced: Cell<u64>,
}

/// Hears of every compaction that is done.
type Listener = Rc<dyn Fn(&CompactionRecord)>;

/// A compaction that is done, for the history.
#[derive(Clone, PartialEq, Debug)]
pub struct CompactionRecord {
    /// Random.
    pub id: Uuid,
    /// Of which table.
    pub table: TableId,
    /// What it was, as nodetool names it.
    pub kind: &'static str,
    /// When it was done, in milliseconds since the Unix epoch.
    pub compacted_at_ms: i64,
    /// Bytes of Data of all inputs.
    pub bytes_in: u64,
    /// Bytes of Data of all outputs.
    pub bytes_out: u64,
    /// How many partitions were in how many of the inputs.
    pub partitions_merged: Vec<(u32, u64)>,
}

/// How far a compaction is.
pub(crate) struct Progress {
    pub(crate) id: Uuid,
    pub(crate) table: TableId,
    pub(crate) kind: Kind,
    /// Bytes of all inputs.
    pub(crate) total: u64,
    pub(crate) read: Cell<u64>,
    /// Bytes read of sstables that are not inputs, for what they shadow.
    read_beside: Cell<u64>,
    pub(crate) written: Cell<u64>,
    pub(crate) started: Instant,
    is_aborted: Rc<Cell<bool>>,
    /// Number of partitions by the number of inputs that had them.
    merged: RefCell<Vec<u64>>,
    /// Bytes of disk that it may still need.
    reserved: Cell<u64>,
}

impl Progress {
    fn note_partition(&self, inputs: usize) {
        let mut merged = self.merged.borrow_mut();
        if merged.len() <= inputs {
            merged.resize(inputs + 1, 0);
        }
        if let Some(count) = merged.get_mut(inputs) {
            *count += 1;
        }
    }
}

/// Sstables chosen to be compacted together; no other compaction takes them meanwhile.
pub(crate) struct Job {
    table: Rc<TableStore>,
    /// Those that are still part of the table.
    inputs: RefCell<Vec<Rc<Sstable>>>,
    /// What is part of the table already.
    outputs: RefCell<Vec<Rc<Sstable>>>,
    /// Names of outputs that are not.
    uncommitted: RefCell<Vec<Descriptor>>,
    era: Rc<Era>,
    kind: Kind,
    output: Output,
    shadowing: Shadowing,
    /// Only these partitions are kept.
    keeps: Option<Keeps>,
    is_aborted: Rc<Cell<bool>>,
    /// Outputs that are not part of the table may have a table of contents.
    is_committing: Cell<bool>,
}

/// Says whether a partition is to be kept.
pub(crate) type Keeps = Rc<dyn Fn(&DecoratedKey) -> bool>;

impl Job {
    fn new(table: Rc<TableStore>, inputs: Vec<Rc<Sstable>>, kind: Kind, output: Output) -> Job {
        inputs.iter().for_each(|sstable| sstable.is_compacting.set(true));
        Job {
            era: table.era(),
            shadowing: table.compacting().common.overlapping_tombstones,
            table,
            inputs: RefCell::new(inputs),
            outputs: RefCell::default(),
            uncommitted: RefCell::default(),
            kind,
            output,
            keeps: None,
            is_aborted: Rc::default(),
            is_committing: Cell::new(false),
        }
    }

    /// One sstable goes to another level as it is.
    fn moves(&self) -> bool {
        let is_alone = self.inputs.borrow().len() == 1 && self.outputs.borrow().is_empty();
        self.kind == Kind::Level && is_alone
    }

    /// Inputs are read and outputs written.
    fn rewrites(&self) -> bool {
        self.kind != Kind::Expired && !self.moves()
    }

    fn keeps(&self, key: &DecoratedKey) -> bool {
        self.keeps.as_ref().is_none_or(|keeps| keeps(key))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let (inputs, outputs) = (self.inputs.borrow(), self.outputs.borrow());
        inputs
            .iter()
            .chain(outputs.iter())
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
            throughput: Cell::new(throughput),
            paced_until: Cell::new(None),
            listener: RefCell::default(),
            backlog: Cell::new(0.0),
            shares: Cell::new(TaskQueue::Compaction.initial_shares()),
            completed: Cell::new(0),
            aborted: Cell::new(0),
            reduced: Cell::new(0),
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

    /// Bytes per second that compactions of this shard may write; 0 for no limit.
    pub(crate) fn throughput(&self) -> u64 {
        self.throughput.get()
    }
}

impl TableStore {
    /// Its strategy, as its definition asks for it now.
    pub(crate) fn compacting(&self) -> Rc<Compacting> {
        let definition = self.definition();
        let options = &definition.options.compaction;
        let mut kept = self.compacting.borrow_mut();
        match &*kept {
            Some(own) if own.is_of(options) => own.clone(),
            _ => kept.insert(Rc::new(Compacting::new(options))).clone(),
        }
    }

    /// What a choice depends on; times in seconds since the Unix epoch.
    fn moment(&self, now: i64) -> Moment {
        let counters = &self.counters;
        Moment {
            now,
            gc_before: now - i64::from(self.definition().options.gc_grace_seconds),
            memtables_oldest: self.memtables_oldest(),
            flush_size: counters.flushed_bytes.get() / counters.flushes.get().max(1),
        }
    }

    /// Compactions start by themselves.
    pub(crate) fn compacts_by_itself(&self) -> bool {
        !self.is_compaction_disabled.get() && self.compacting().common.is_enabled
    }
}

impl Database {
    /// Limits what compactions of this shard write, in bytes per second; 0 for no limit.
    pub fn set_compaction_throughput(&self, bytes_per_second: u64) {
        self.compactions.throughput.set(bytes_per_second);
        // Who waits by the old limit looks again.
        self.compactions.paced_until.set(None);
        self.compactions.stopped.notify();
    }

    /// `listener` hears of every compaction that is done.
    pub fn set_compaction_listener(&self, listener: Rc<dyn Fn(&CompactionRecord)>) {
        *self.compactions.listener.borrow_mut() = Some(listener);
    }

    /// Starts compactions of a table when its strategy wants them.
    pub(crate) fn compact_when_due(&self, table: &Rc<TableStore>) {
        let may_start = self.options.automatic_compaction
            && !self.compactions.is_stopped.get()
            && table.is_recovered.get()
            && !table.is_dropped.get()
            && !table.major_compaction_waits.get()
            && table.check_readable().is_ok()
            && table.compacts_by_itself()
            && table
                .compaction_retry_at
                .get()
                .is_none_or(|at| self.env.clock().now() >= at);
        if !may_start || self.poison.check().is_err() {
            return;
        }
        let mut free = self
            .options
            .concurrent_compactions
            .saturating_sub(self.compactions.running.borrow().len() + self.compactions_starting.get());
        while free > 0 {
            let Some(job) = self.next_job(table) else { return };
            free -= 1;
            self.spawn_job(job);
        }
        table.has_changed.set(true);
    }

    fn spawn_job(&self, job: Job) {
        let this = self.this.upgrade().expect("a method of a living database runs");
        let table = job.table.clone();
        self.compactions_starting.set(self.compactions_starting.get() + 1);
        let task = async move {
            this.compactions_starting.set(this.compactions_starting.get() - 1);
            let result = this.run_job(job).await;
            this.note_result(&table, &result);
            if result.is_ok() {
                this.compact_when_due(&table);
            }
        };
        self.env.tasks().spawn(TaskQueue::Compaction, Box::pin(task));
    }

    fn next_job(&self, table: &Rc<TableStore>) -> Option<Job> {
        let moment = table.moment(self.env.clock().unix_seconds());
        let compacting = table.compacting();
        let (inputs, plan) = {
            let view = table.view();
            let candidates: Vec<Candidate<'_>> = view.sstables.iter().map(Candidate::of).collect();
            let plan = compacting.next(&candidates, &moment)?;
            (chosen(&view.sstables, &plan), plan)
        };
        Some(Job::new(table.clone(), inputs, plan.kind, plan.output))
    }

    fn note_result(&self, table: &TableStore, result: &Result<()>) {
        let retry_at = match result {
            Ok(()) => None,
            Err(error) => {
                match error {
                    Error::Closed => {}
                    Error::Aborted => tracing::info!("a compaction of {} was stopped", table.name()),
                    Error::SpaceNeeded { .. } | Error::DiskFull(_) => {
                        tracing::warn!("compaction of {} waits: {error}", table.name());
                    }
                    error => tracing::error!("compaction of {} failed: {error}", table.name()),
                }
                let aborted = &self.compactions.aborted;
                aborted.set(aborted.get() + u64::from(matches!(error, Error::Aborted)));
                Some(self.env.clock().now() + RETRY)
            }
        };
        table.compaction_retry_at.set(retry_at);
    }

    /// Notes a compaction that is done.
    fn record(&self, progress: &Progress) {
        self.compactions
            .completed
            .set(self.compactions.completed.get() + 1);
        let merged = progress.merged.borrow();
        let counted = merged.iter().enumerate().filter(|(_, count)| **count > 0);
        let record = CompactionRecord {
            id: progress.id,
            table: progress.table,
            kind: progress.kind.name(),
            compacted_at_ms: self.env.clock().unix_micros() / 1000,
            bytes_in: progress.total,
            bytes_out: progress.written.get(),
            partitions_merged: counted.map(|(inputs, count)| (inputs as u32, *count)).collect(),
        };
        let listener = self.compactions.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(&record);
        }
    }

    /// Compactions that strategies want and that do not run yet.
    pub fn pending_compactions(&self) -> usize {
        let now = self.env.clock().unix_seconds();
        let tables = self.tables.borrow();
        let pending = tables.values().map(|table| pending_of(table, now));
        pending.sum()
    }
}

/// Compactions that a table's strategy wants and that do not run yet.
pub(crate) fn pending_of(table: &TableStore, now: i64) -> usize {
    let compacting = table.compacting();
    if !table.compacts_by_itself() {
        return 0;
    }
    let moment = table.moment(now);
    let view = table.view();
    let candidates: Vec<Candidate<'_>> = view.sstables.iter().map(Candidate::of).collect();
    compacting.pending(&candidates, &moment)
}

/// The sstables that a plan names.
fn chosen(sstables: &[Rc<Sstable>], plan: &Plan) -> Vec<Rc<Sstable>> {
    let inputs = plan.inputs.iter();
    inputs.filter_map(|at| sstables.get(*at).cloned()).collect()
}
