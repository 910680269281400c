//! Doing one compaction.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ceto_env::LocalFuture;
use ceto_model::{DecoratedKey, PartitionRange, ReadTarget, Slice, Timestamp, Token, UnixSeconds};

use uuid::Uuid;

use super::options::Shadowing;
use super::outputs::Outputs;
use super::purge::{Purger, Sink};
use super::shadow::Shadowed;
use super::strategy::{Candidate, Kind, Moment};
use super::{Job, Progress, tombstones};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::reader::{Fragment, FragmentSource, Merge, Scan, Step};
use crate::sstable::{EncodedPartition, Sstable, SstableReader, WriterOptions, remove_files};
use crate::table::{TableStore, add};
use crate::transaction::{self, CommitFailure, Pending, Transaction};
use crate::wait::{Pace, either};

/// How often and how long a compaction waits for files to be gone that it let go.
const REMOVAL_LOOKS: usize = 100;
const REMOVAL_LOOK: Duration = Duration::from_millis(1);

/// How the merge of a compaction's inputs is read.
enum Source<'a> {
    Merge(Merge<'a>),
    Shadowed(Box<Shadowed<'a>>),
}

impl Source<'_> {
    fn step(&mut self) -> Result<Step> {
        match self {
            Source::Merge(merge) => merge.step(),
            Source::Shadowed(shadowed) => shadowed.step(),
        }
    }

    fn load(&mut self) -> LocalFuture<'_, Result<()>> {
        match self {
            Source::Merge(merge) => merge.load(),
            Source::Shadowed(shadowed) => shadowed.load(),
        }
    }

    fn skip_partition(&mut self) {
        match self {
            Source::Merge(merge) => merge.skip_partition(),
            Source::Shadowed(shadowed) => shadowed.skip_partition(),
        }
    }

    fn encoded(&self) -> Option<EncodedPartition<'_>> {
        match self {
            Source::Merge(merge) => merge.encoded(),
            // What others shadow has to be looked at.
            Source::Shadowed(_) => None,
        }
    }

    fn partition_sources(&self) -> usize {
        match self {
            Source::Merge(merge) => merge.partition_sources(),
            Source::Shadowed(shadowed) => shadowed.partition_sources(),
        }
    }
}

struct OutputSink<'a, 'b> {
    outputs: &'a mut Outputs<'b>,
    wants_purged: bool,
}

impl Sink for OutputSink<'_, '_> {
    fn keep(&mut self, fragment: Fragment) -> Result<()> {
        self.outputs.push(fragment)
    }

    fn purged(&mut self, fragment: Fragment) {
        self.outputs.push_purged(fragment);
    }

    fn wants_purged(&self) -> bool {
        self.wants_purged
    }
}

impl Database {
    /// Compacts the sstables of a job. What fails leaves the table as it was, but for inputs that were replaced already
    /// by what holds the same.
    pub(super) async fn run_job(&self, job: Job) -> Result<()> {
        let progress = Rc::new(Progress {
            id: self.random_id(),
            table: job.table.id,
            kind: job.kind,
            total: job
                .inputs
                .borrow()
                .iter()
                .map(|sstable| sstable.data_size())
                .sum(),
            read: Cell::new(0),
            written: Cell::new(0),
            started: self.env.clock().now(),
            is_aborted: job.is_aborted.clone(),
            read_beside: Cell::new(0),
            merged: Default::default(),
            reserved: Cell::new(0),
        });
        self.compactions.running.borrow_mut().push(progress.clone());
        let result = self.compact_job(&job, &progress).await;
        let result = match result {
            Ok(()) => {
                self.record(&progress);
                Ok(())
            }
            Err(CommitFailure::RolledBack(error)) => {
                self.clean_up(&job, &error).await;
                Err(error)
            }
            Err(CommitFailure::Uncertain(error)) => {
                self.poison.stop_writes(&error);
                Err(error)
            }
        };
        // The inputs are free (or gone) before anybody hears of it.
        drop(job);
        self.compactions
            .running
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, &progress));
        self.compactions.done.notify();
        result
    }

    /// A UUID of version 4.
    pub(crate) fn random_id(&self) -> Uuid {
        let random = u128::from(self.env.random()) << 64 | u128::from(self.env.random());
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
    }

    async fn clean_up(&self, job: &Job, error: &Error) {
        let inputs = job.inputs.borrow().clone();
        match error {
            Error::Corrupt(corruption) => {
                let damaged = inputs.iter().filter(|sstable| sstable.has_file(&corruption.file));
                damaged.for_each(|sstable| sstable.is_suspect.set(true));
            }
            Error::Disk(disk) if matches!(disk.operation, "read" | "open") => {
                inputs.iter().for_each(|sstable| sstable.is_suspect.set(true));
            }
            Error::Disk(_) => self.poison.stop_writes(error),
            _ => {}
        }
        for output in job.uncommitted.take() {
            if let Err(error) = remove_files(&*self.env.disk(), &output).await {
                tracing::warn!("cannot remove what a compaction left: {error}");
                if job.is_committing.get() {
                    // It would count after a restart, beside what later compactions purge.
                    self.poison.stop_writes(&error);
                }
            }
        }
    }

    async fn compact_job(&self, job: &Job, progress: &Progress) -> std::result::Result<(), CommitFailure> {
        job.table.check_readable().map_err(CommitFailure::RolledBack)?;
        let all = job.inputs.borrow().clone();
        match job.kind {
            Kind::Expired => {}
            Kind::Level if job.moves() => {
                let moved = self
                    .relevel(job, &all[0])
                    .await
                    .map_err(CommitFailure::RolledBack)?;
                progress.written.set(moved.data_size());
                return self.commit(job, vec![moved], all).await.map(drop);
            }
            Kind::Scrub => {
                let written = self.scrub_into(job, &all, progress).await;
                let new = written.map_err(CommitFailure::RolledBack)?;
                return self.commit(job, new, all).await.map(drop);
            }
            _ => {
                // What is let go must not be held here.
                drop(all);
                self.reserve_space(job, progress)
                    .await
                    .map_err(CommitFailure::RolledBack)?;
                return self.merge_job(job, progress).await;
            }
        }
        add(&job.table.counters.sstables_expired, all.len() as u64);
        self.commit(job, Vec::new(), all).await.map(drop)
    }

    /// The inputs' content goes to a new sstable's name with another level; files are not copied.
    async fn relevel(&self, job: &Job, sstable: &Rc<Sstable>) -> Result<Rc<Sstable>> {
        self.check_running(job)?;
        let descriptor = job.table.next_descriptor();
        job.uncommitted.borrow_mut().push(descriptor.clone());
        sstable.link_as(&descriptor, job.output.level).await?;
        Sstable::open_uncommitted(self.env.clone(), descriptor, self.cache.clone()).await
    }

    /// New sstables take the place of old ones: all of them or, after a failure or a crash, none. What is returned is dead
    /// when the old files are gone.
    async fn commit(
        &self,
        job: &Job,
        new: Vec<Rc<Sstable>>,
        old: Vec<Rc<Sstable>>,
    ) -> std::result::Result<Weak<Pending>, CommitFailure> {
        let table = &job.table;
        self.check_running(job).map_err(CommitFailure::RolledBack)?;
        self.keep_flushed_position(table, &new, &old)
            .await
            .map_err(CommitFailure::RolledBack)?;
        self.check_running(job).map_err(CommitFailure::RolledBack)?;
        let path = table.dir.join(transaction::file_name(
            table.shard,
            table.next_descriptor().generation.0,
        ));
        let names = |sstables: &[Rc<Sstable>]| {
            sstables
                .iter()
                .map(|sstable| sstable.descriptor.clone())
                .collect()
        };
        job.is_committing.set(true);
        let pending = Transaction::commit(&self.env, path, names(&new), names(&old)).await?;
        job.is_committing.set(false);
        job.uncommitted
            .borrow_mut()
            .retain(|descriptor| !new.iter().any(|sstable| sstable.descriptor == *descriptor));
        if job.rewrites() {
            let bytes: u64 = old.iter().map(|sstable| sstable.data_size()).sum();
            add(&table.counters.compacted_bytes, bytes);
            let written: u64 = new.iter().map(|sstable| sstable.data_size()).sum();
            add(&table.counters.compaction_written_bytes, written);
        }
        if !table.is_in(&job.era) {
            // Truncated or dropped meanwhile: the inputs are on their way out already, the output follows.
            let until = Rc::new((pending, job.era.clone()));
            new.iter()
                .for_each(|sstable| sstable.remove_when_unused(until.clone()));
            return Ok(Weak::new());
        }
        // Until the job is done nobody else compacts what it wrote.
        new.iter().for_each(|sstable| sstable.is_compacting.set(true));
        job.outputs.borrow_mut().extend(new.iter().cloned());
        if matches!(job.kind, Kind::Cleanup | Kind::Scrub) {
            // What is no longer there, or never could be read, must not be answered from memory.
            table.cache.empty();
        }
        let replaced = table.replace_sstables(&old, new);
        assert!(replaced, "an sstable left the table while it was compacted");
        old.iter()
            .for_each(|sstable| sstable.remove_when_unused(pending.clone()));
        let is_old = |sstable: &Rc<Sstable>| old.iter().any(|old| Rc::ptr_eq(old, sstable));
        job.inputs.borrow_mut().retain(|sstable| !is_old(sstable));
        job.outputs.borrow_mut().retain(|sstable| !is_old(sstable));
        Ok(Rc::downgrade(&pending))
    }

    /// The compaction may go on.
    pub(super) fn check_running(&self, job: &Job) -> Result<()> {
        if job.is_aborted.get() {
            return Err(Error::Aborted);
        }
        if self.compactions.is_stopped.get() || !job.table.is_in(&job.era) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// How the outputs of a job are written.
    pub(super) fn job_options(&self, job: &Job, inputs: &[Rc<Sstable>]) -> WriterOptions {
        let statistics = || inputs.iter().map(|sstable| &sstable.statistics);
        let through = statistics()
            .filter_map(|statistics| statistics.flushed_through)
            .max();
        let partitions = statistics().map(|statistics| statistics.partitions).sum();
        WriterOptions {
            // The least, for what is repaired and what is not never meet.
            repaired_at: statistics()
                .map(|statistics| statistics.repaired_at)
                .min()
                .unwrap_or(0),
            pending_repair: statistics().find_map(|statistics| statistics.pending_repair),
            ..self.writer_options(&job.table, partitions, through)
        }
    }

    async fn merge_job(&self, job: &Job, progress: &Progress) -> std::result::Result<(), CommitFailure> {
        let rolled_back = CommitFailure::RolledBack;
        let table = &job.table;
        let all = job.inputs.borrow().clone();
        let options = self.job_options(job, &all);
        let partitions = options.expected_partitions;
        let mut outputs = Outputs::new(self, job, options, partitions, progress.total);
        let definition = table.definition().clone();
        let now = self.env.clock().unix_seconds();
        let may_purge = {
            let strategy = table.compacting();
            all.iter().all(|sstable| strategy.may_purge(&sstable.statistics))
        };
        let purge_before = match may_purge {
            true => now - i64::from(definition.options.gc_grace_seconds),
            false => i64::MIN,
        };
        let inputs = match may_purge {
            true => self.without_expired(job, all, purge_before),
            false => all,
        };
        let oldest_elsewhere = |key: &DecoratedKey| oldest_elsewhere(job, key);
        let (now, purge_before) = (UnixSeconds(now), UnixSeconds(purge_before));
        let mut purger = Purger::new(now, purge_before, &definition.dropped, &oldest_elsewhere);
        let target = ReadTarget::Range(PartitionRange::full());
        let slices = [Slice::full()];
        let scan = Scan {
            target: &target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let mut source = self.source_of(job, inputs, scan, progress);
        // The sstables of what was purged, until the last input has gone.
        let mut purged: Vec<Rc<Sstable>> = Vec::new();
        let mut pace = Pace::default();
        loop {
            match source.step().map_err(rolled_back)? {
                Step::End => break,
                Step::Load => source.load().await.map_err(rolled_back)?,
                Step::Fragment(fragment) => {
                    let mut is_copied = false;
                    if let Fragment::PartitionStart(key, _) = &fragment {
                        progress.note_partition(source.partition_sources());
                        if !job.keeps(key) {
                            source.skip_partition();
                            continue;
                        }
                        let token = key.token;
                        let has_sealed = outputs.prepare(token).await.map_err(rolled_back)?;
                        if has_sealed && job.output.is_run {
                            self.release(job, &mut outputs, &mut purged, token).await?;
                        }
                        if let Some(encoded) = source.encoded().filter(|_| definition.dropped.is_empty()) {
                            is_copied = outputs.push_encoded(key, encoded).map_err(rolled_back)?;
                        }
                    }
                    if is_copied {
                        source.skip_partition();
                    } else {
                        let mut sink = OutputSink {
                            outputs: &mut outputs,
                            wants_purged: job.output.is_run,
                        };
                        purger.push(fragment, &mut sink).map_err(rolled_back)?;
                    }
                }
            }
            if outputs.is_full() {
                self.check_running(job).map_err(rolled_back)?;
                let written = outputs.write_out().await.map_err(rolled_back)?;
                let before = progress.written.replace(written);
                self.slow_down(job, written.saturating_sub(before)).await;
            }
            if let Some(turn) = pace.step(self.env.tasks()) {
                turn.await;
                self.check_running(job).map_err(rolled_back)?;
            }
        }
        drop(source);
        outputs.seal().await.map_err(rolled_back)?;
        progress.written.set(outputs.written());
        let (new, unneeded) = outputs.take_sealed();
        // Nothing is left that it could shadow: it never becomes part of the table.
        drop(unneeded);
        let mut old = job.inputs.borrow().clone();
        old.extend(purged);
        let removal = self.commit(job, new, old).await?;
        // What comes next may need the space.
        self.wait_for_removal(removal).await;
        // The files of what was not needed.
        for descriptor in job.uncommitted.take() {
            if let Err(error) = remove_files(&*self.env.disk(), &descriptor).await {
                tracing::warn!("cannot remove what a compaction did not need: {error}");
            }
        }
        add(&table.counters.compactions, 1);
        Ok(())
    }

    /// Sealed outputs become part of the table; inputs that end before `next` leave it.
    async fn release(
        &self,
        job: &Job,
        outputs: &mut Outputs<'_>,
        purged: &mut Vec<Rc<Sstable>>,
        next: Token,
    ) -> std::result::Result<(), CommitFailure> {
        let is_read = |sstable: &&Rc<Sstable>| sstable.last.token < next;
        let old: Vec<Rc<Sstable>> = job.inputs.borrow().iter().filter(is_read).cloned().collect();
        if old.is_empty() {
            return Ok(());
        }
        let (mut new, new_purged) = outputs.take_sealed();
        new.extend(new_purged.iter().cloned());
        purged.extend(new_purged);
        let removal = self.commit(job, new, old).await?;
        self.wait_for_removal(removal).await;
        Ok(())
    }

    /// Waits until the files of what was let go are gone, so that they are not beside what is written next; not for long
    /// when somebody still reads them.
    async fn wait_for_removal(&self, removal: Weak<Pending>) {
        for _ in 0..REMOVAL_LOOKS {
            if removal.strong_count() == 0 {
                return;
            }
            self.env.tasks().sleep(REMOVAL_LOOK).await;
        }
    }

    /// The stream that is compacted.
    fn source_of<'a>(
        &self,
        job: &Job,
        inputs: Vec<Rc<Sstable>>,
        scan: Scan<'a>,
        progress: &'a Progress,
    ) -> Source<'a> {
        let shadowing = job.shadowing;
        let others: Vec<Rc<Sstable>> = match shadowing {
            Shadowing::None => Vec::new(),
            _ => overlapping(job, &inputs),
        };
        let merge = |sstables: Vec<Rc<Sstable>>, read: &'a Cell<u64>| {
            let sources = sstables
                .into_iter()
                .map(|sstable| -> Box<dyn FragmentSource + 'a> {
                    Box::new(SstableReader::new(sstable, scan, false, read))
                });
            Merge::new(sources.collect(), false)
        };
        let main = merge(inputs, &progress.read);
        if others.is_empty() {
            return Source::Merge(main);
        }
        let others = merge(others, &progress.read_beside);
        Source::Shadowed(Box::new(Shadowed::new(main, others, shadowing)))
    }

    /// Inputs of which anything is still needed: those that are expired as a whole are not read.
    fn without_expired(&self, job: &Job, inputs: Vec<Rc<Sstable>>, gc_before: i64) -> Vec<Rc<Sstable>> {
        let view = job.table.view();
        let candidates: Vec<Candidate<'_>> = view.sstables.iter().map(Candidate::of).collect();
        let is_input = |at: &usize| inputs.iter().any(|input| Rc::ptr_eq(input, &view.sstables[*at]));
        let among: Vec<usize> = (0..candidates.len()).filter(is_input).collect();
        let moment = Moment {
            gc_before,
            ..job.table.moment(gc_before)
        };
        let expired = tombstones::expired(&candidates, &among, &moment);
        let is_expired =
            |sstable: &Rc<Sstable>| expired.iter().any(|at| Rc::ptr_eq(&view.sstables[*at], sstable));
        // One that is let go later would come back to life for a while if what it shadows were let go first; but
        // nothing it shadows is anywhere.
        inputs
            .iter()
            .filter(|sstable| !is_expired(sstable))
            .cloned()
            .collect()
    }

    /// Waits until what all compactions of the shard have written is within the throughput limit, or until they are
    /// stopped.
    async fn slow_down(&self, job: &Job, written: u64) {
        let throughput = self.compactions.throughput.get();
        if throughput == 0 {
            return;
        }
        let now = self.env.clock().now();
        let from = self.compactions.paced_until.get().map_or(now, |at| at.max(now));
        let until = from + Duration::from_secs_f64(written as f64 / throughput as f64);
        self.compactions.paced_until.set(Some(until));
        let stopped = self.compactions.stopped.listen();
        if self.check_running(job).is_ok() {
            either(self.env.tasks().sleep(until - now), stopped).await;
        }
    }
}

/// Other sstables of the table that may hold partitions of the inputs.
fn overlapping(job: &Job, inputs: &[Rc<Sstable>]) -> Vec<Rc<Sstable>> {
    let view = job.table.view();
    let overlaps = |sstable: &&Rc<Sstable>| {
        !inputs.iter().any(|input| Rc::ptr_eq(input, sstable))
            && inputs
                .iter()
                .any(|input| Candidate::of(input).overlaps(&Candidate::of(sstable)))
    };
    view.sstables.iter().filter(overlaps).cloned().collect()
}

/// Nothing of this partition that is not among the job's inputs is older than this.
fn oldest_elsewhere(job: &Job, key: &DecoratedKey) -> Timestamp {
    let view = job.table.view();
    let inputs = job.inputs.borrow();
    let is_input = |sstable: &Rc<Sstable>| inputs.iter().any(|input| Rc::ptr_eq(input, sstable));
    let others = view
        .sstables
        .iter()
        .filter(|sstable| sstable.may_contain(key) && !is_input(sstable));
    let others = others.map(|sstable| sstable.statistics.min_timestamp);
    let memtables = view.memtables().filter(|memtable| memtable.contains(key));
    let memtables = memtables.map(|memtable| memtable.min_timestamp());
    others.chain(memtables).min().unwrap_or(Timestamp(i64::MAX))
}

impl TableStore {
    /// No write in a memtable is older.
    pub(super) fn memtables_oldest(&self) -> Timestamp {
        let view = self.view();
        let oldest = view.memtables().map(|memtable| memtable.min_timestamp());
        oldest.min().unwrap_or(Timestamp(i64::MAX))
    }
}
