//! Doing one compaction.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ceto_model::{DecoratedKey, PartitionRange, ReadTarget, Slice, Timestamp, UnixSeconds};

use super::purge::Purger;
use super::{Job, Progress};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::reader::{FragmentSource, Merge, Scan, Step};
use crate::sstable::{Descriptor, Sstable, SstableReader, SstableWriter, remove_files};
use crate::table::{TableStore, add};
use crate::transaction::{self, CommitFailure, Transaction};
use crate::wait::{Pace, either};

impl Database {
    /// Compacts the sstables of a job. Fails without a trace: the table is as it was.
    pub(super) async fn run_job(&self, job: Job) -> Result<()> {
        let progress = Rc::new(Progress {
            table: job.table.id,
            total: job.inputs.iter().map(|sstable| sstable.data_size()).sum(),
            read: Cell::new(0),
            written: Cell::new(0),
            started: self.env.clock().now(),
        });
        self.compactions.running.borrow_mut().push(progress.clone());
        let descriptor = job.table.next_descriptor();
        let result = self.compact_into(&job, descriptor.clone(), &progress).await;
        let result = match result {
            Ok(()) => Ok(()),
            Err(CommitFailure::RolledBack(error)) => {
                self.clean_up(&job, &descriptor, &error).await;
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

    async fn clean_up(&self, job: &Job, output: &Descriptor, error: &Error) {
        match error {
            Error::Corrupt(corruption) => {
                let damaged = job
                    .inputs
                    .iter()
                    .filter(|sstable| sstable.has_file(&corruption.file));
                damaged.for_each(|sstable| sstable.is_suspect.set(true));
            }
            Error::Disk(disk) if matches!(disk.operation, "read" | "open") => {
                job.inputs.iter().for_each(|sstable| sstable.is_suspect.set(true));
            }
            Error::Disk(_) => self.poison.stop_writes(error),
            _ => {}
        }
        if let Err(error) = remove_files(&*self.env.disk(), output).await {
            tracing::warn!("cannot remove what a compaction left: {error}");
        }
    }

    async fn compact_into(
        &self,
        job: &Job,
        output: Descriptor,
        progress: &Progress,
    ) -> std::result::Result<(), CommitFailure> {
        let table = &job.table;
        let new = self
            .write_output(job, output, progress)
            .await
            .map_err(CommitFailure::RolledBack)?;
        let path = table.dir.join(transaction::file_name(
            table.shard,
            table.next_descriptor().generation.0,
        ));
        let new_files = new.iter().map(|sstable| sstable.descriptor.clone()).collect();
        let old_files = job
            .inputs
            .iter()
            .map(|sstable| sstable.descriptor.clone())
            .collect();
        let pending = Transaction::commit(&self.env, path, new_files, old_files).await?;
        add(&table.counters.compactions, 1);
        add(&table.counters.compacted_bytes, progress.total);
        if table.epoch.get() != job.epoch {
            // Truncated or dropped meanwhile: the inputs are on their way out already, the output follows.
            new.iter()
                .for_each(|sstable| sstable.remove_when_unused(pending.clone()));
            return Ok(());
        }
        let replaced = table.replace_sstables(&job.inputs, new.into_iter().collect());
        assert!(replaced, "an sstable left the table while it was compacted");
        job.inputs
            .iter()
            .for_each(|sstable| sstable.remove_when_unused(pending.clone()));
        Ok(())
    }

    /// The output, complete but not counting yet; None when nothing was left to write.
    async fn write_output(
        &self,
        job: &Job,
        output: Descriptor,
        progress: &Progress,
    ) -> Result<Option<Rc<Sstable>>> {
        let written = self.write_merged(job, output, progress).await?;
        let new = match written {
            Some(descriptor) => {
                Some(Sstable::open_uncommitted(self.env.clone(), descriptor, self.cache.clone()).await?)
            }
            None => None,
        };
        self.check_running(job)?;
        Ok(new)
    }

    fn check_running(&self, job: &Job) -> Result<()> {
        if self.compactions.is_stopped.get() || job.table.epoch.get() != job.epoch {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// All but the output's table of contents; None when nothing was left to write.
    async fn write_merged(
        &self,
        job: &Job,
        output: Descriptor,
        progress: &Progress,
    ) -> Result<Option<Descriptor>> {
        let table = &job.table;
        let partitions = job
            .inputs
            .iter()
            .map(|sstable| sstable.statistics.partitions)
            .sum();
        let through = job
            .inputs
            .iter()
            .filter_map(|sstable| sstable.statistics.flushed_through)
            .max();
        let options = self.writer_options(table, partitions, through);
        let mut writer = SstableWriter::create(self.env.disk(), output, options).await?;
        let target = ReadTarget::Range(PartitionRange::full());
        let slices = [Slice::full()];
        let scan = Scan {
            target: &target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let sources = job.inputs.iter().map(|sstable| -> Box<dyn FragmentSource + '_> {
            Box::new(SstableReader::new(sstable.clone(), scan, false, &progress.read))
        });
        let mut merge = Merge::new(sources.collect(), false);
        let definition = table.definition().clone();
        let now = self.env.clock().unix_seconds();
        let purge_before = now - i64::from(definition.options.gc_grace_seconds);
        let oldest_elsewhere = |key: &DecoratedKey| oldest_elsewhere(table, &job.inputs, key);
        let (now, purge_before) = (UnixSeconds(now), UnixSeconds(purge_before));
        let mut purger = Purger::new(now, purge_before, &definition.dropped, &oldest_elsewhere);
        let mut pace = Pace::default();
        loop {
            match merge.step()? {
                Step::End => break,
                Step::Load => merge.load().await?,
                Step::Fragment(fragment) => purger.push(fragment, &mut |kept| writer.push(kept))?,
            }
            if writer.is_full() {
                self.check_running(job)?;
                writer.write_out().await?;
                let before = progress.written.replace(writer.size());
                self.slow_down(writer.size().saturating_sub(before)).await;
            }
            if let Some(turn) = pace.step(self.env.tasks()) {
                turn.await;
                self.check_running(job)?;
            }
        }
        writer.finish().await
    }

    /// Waits until what all compactions of the shard have written is within the throughput limit, or until they are
    /// stopped.
    async fn slow_down(&self, written: u64) {
        let throughput = self.compactions.throughput.get();
        if throughput == 0 {
            return;
        }
        let now = self.env.clock().now();
        let from = self.compactions.paced_until.get().map_or(now, |at| at.max(now));
        let until = from + Duration::from_secs_f64(written as f64 / throughput as f64);
        self.compactions.paced_until.set(Some(until));
        let stopped = self.compactions.stopped.listen();
        if !self.compactions.is_stopped.get() {
            either(self.env.tasks().sleep(until - now), stopped).await;
        }
    }
}

/// Nothing of this partition that is not among `inputs` is older than this.
fn oldest_elsewhere(table: &TableStore, inputs: &[Rc<Sstable>], key: &DecoratedKey) -> Timestamp {
    let view = table.view();
    let is_input = |sstable: &Rc<Sstable>| inputs.iter().any(|input| Rc::ptr_eq(input, sstable));
    let others = view
        .sstables
        .iter()
        .filter(|sstable| !is_input(sstable) && sstable.may_contain(key));
    let others = others.map(|sstable| sstable.statistics.min_timestamp);
    let memtables = view.memtables().filter(|memtable| memtable.contains(key));
    let memtables = memtables.map(|memtable| memtable.min_timestamp());
    others.chain(memtables).min().unwrap_or(Timestamp(i64::MAX))
}
