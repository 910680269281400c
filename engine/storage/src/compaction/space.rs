//! Disk space: a compaction starts only when there is enough for it to finish.

use std::rc::Rc;

use super::strategy::{Candidate, Cut, Kind, peak_overlap};
use super::{Job, Progress};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::sstable::Sstable;

/// The part of the free space that compactions may use; the rest is for flushes and the commitlog.
const USABLE: f64 = 0.95;
/// Index, filter and what compresses a little worse, over the bytes of Data.
const OVERHEAD: f64 = 1.05;

impl Database {
    /// Makes sure that a job can finish. One that may take fewer inputs gives up its largest until it can.
    pub(super) async fn reserve_space(&self, job: &Job, progress: &Progress) -> Result<()> {
        loop {
            let free = self.env.disk().free_space(&job.table.dir).await?;
            let running = self.compactions.running.borrow();
            let reserved: u64 = running.iter().map(|other| other.still_needs()).sum();
            drop(running);
            let available = ((free as f64 * USABLE) as u64).saturating_sub(reserved);
            let needed = space_for(job);
            if needed <= available {
                progress.reserved.set(needed);
                return Ok(());
            }
            if !self.give_up_largest(job) {
                return Err(Error::SpaceNeeded { needed, available });
            }
        }
    }

    /// Only where any of the inputs may be left out, and while there are two others.
    fn give_up_largest(&self, job: &Job) -> bool {
        let may_shrink = matches!(job.kind, Kind::Compaction | Kind::Major)
            && job.output.level == 0
            && matches!(job.output.cut, Cut::Never | Cut::Halves { .. });
        let mut inputs = job.inputs.borrow_mut();
        if !may_shrink || inputs.len() <= 2 {
            return false;
        }
        let largest = (0..inputs.len()).max_by_key(|at| inputs[*at].data_size());
        let Some(largest) = largest else { return false };
        let left_out = inputs.remove(largest);
        left_out.is_compacting.set(false);
        self.compactions.reduced.set(self.compactions.reduced.get() + 1);
        true
    }
}

impl Progress {
    /// Bytes of disk that it has not taken yet, of those it was promised.
    fn still_needs(&self) -> u64 {
        self.reserved.get().saturating_sub(self.written.get())
    }
}

/// Bytes that may be on disk beside the inputs while a job runs.
fn space_for(job: &Job) -> u64 {
    let inputs = job.inputs.borrow();
    let total: u64 = inputs.iter().map(|sstable| sstable.data_size()).sum();
    let most = if job.output.is_run {
        total.min(held_back(&inputs, &job.output.cut))
    } else {
        total
    };
    (most as f64 * OVERHEAD) as u64
}

/// The most that is written before the inputs that held it are let go.
fn held_back(inputs: &[Rc<Sstable>], cut: &Cut) -> u64 {
    let candidates: Vec<Candidate<'_>> = inputs.iter().map(Candidate::of).collect();
    let total: u64 = candidates.iter().map(|candidate| candidate.size).sum();
    let output = match cut {
        Cut::Size(size) => *size,
        // A part may be larger than others; twice the mean is reckoned with.
        Cut::Parts(parts) => 2 * total / (*parts).max(1),
        _ => total,
    };
    peak_overlap(candidates.iter()) + output
}
