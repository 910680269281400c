//! Rewriting an sstable with all of it that can be read: damaged blocks are passed over.
//!
//! The sstable is read in the pieces that its summary names, so that what is damaged in one does not keep the others
//! from being read. Of a large partition the part before the damage is kept.

use std::rc::Rc;

use ceto_model::{PartitionRange, ReadTarget, RingPosition, Slice, Token};

use super::outputs::Outputs;
use super::{Job, Progress};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::reader::{Fragment, FragmentSource, Scan, Step};
use crate::sstable::{Sstable, SstableReader};

/// A partition that was begun.
#[derive(Default)]
struct Open {
    is_open: bool,
    has_deletion: Option<ceto_model::Position>,
}

impl Database {
    /// Writes what can be read of one sstable.
    pub(super) async fn scrub_into(
        &self,
        job: &Job,
        inputs: &[Rc<Sstable>],
        progress: &Progress,
    ) -> Result<Vec<Rc<Sstable>>> {
        self.reserve_space(job, progress).await?;
        let options = self.job_options(job, inputs);
        let partitions = options.expected_partitions;
        let mut outputs = Outputs::new(self, job, options, partitions, progress.total);
        for sstable in inputs {
            let lost = self.scrub_sstable(job, sstable, &mut outputs, progress).await?;
            if lost > 0 {
                let file = sstable.data_path().display();
                tracing::warn!("scrub: {lost} damaged places of {file} were passed over");
            }
        }
        outputs.seal().await?;
        progress.written.set(outputs.written());
        Ok(outputs.take_sealed().0)
    }

    /// The number of damaged places.
    async fn scrub_sstable(
        &self,
        job: &Job,
        sstable: &Rc<Sstable>,
        outputs: &mut Outputs<'_>,
        progress: &Progress,
    ) -> Result<u64> {
        let tokens = sstable.block_tokens().await?;
        let mut lost = 0;
        for (at, token) in tokens.iter().enumerate() {
            let end = match tokens.get(at + 1) {
                Some(next) => RingPosition::BeforeToken(*next),
                None => RingPosition::AfterToken(Token::MAX),
            };
            let target = ReadTarget::Range(PartitionRange {
                start: RingPosition::BeforeToken(*token),
                end,
            });
            lost += u64::from(!self.scrub_range(job, sstable, &target, outputs, progress).await?);
        }
        Ok(lost)
    }

    /// False: a part of the range could not be read.
    async fn scrub_range(
        &self,
        job: &Job,
        sstable: &Rc<Sstable>,
        target: &ReadTarget,
        outputs: &mut Outputs<'_>,
        progress: &Progress,
    ) -> Result<bool> {
        let slices = [Slice::full()];
        let scan = Scan {
            target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let mut reader = SstableReader::new(sstable.clone(), scan, false, &progress.read);
        let mut open = Open::default();
        loop {
            let step = match reader.step() {
                Ok(Step::Load) => reader.load().await.map(|()| None),
                step => step.map(Some),
            };
            match step {
                Ok(Some(Step::End)) => return Ok(true),
                Ok(Some(Step::Fragment(fragment))) => {
                    if let Fragment::PartitionStart(key, _) = &fragment {
                        outputs.prepare(key.token).await?;
                        progress.note_partition(1);
                    }
                    open.note(&fragment);
                    outputs.push(fragment)?;
                }
                Ok(_) => {}
                Err(Error::Corrupt(corruption)) => {
                    tracing::warn!("scrub: {corruption}");
                    open.close(outputs)?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
            if outputs.is_full() {
                self.check_running(job)?;
                progress.written.set(outputs.write_out().await?);
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
                self.check_running(job)?;
            }
        }
    }
}

impl Open {
    fn note(&mut self, fragment: &Fragment) {
        match fragment {
            Fragment::PartitionStart(..) => {
                *self = Open {
                    is_open: true,
                    has_deletion: None,
                }
            }
            Fragment::PartitionEnd => *self = Open::default(),
            Fragment::DeletionChange(position, deletion) => {
                self.has_deletion = deletion.map(|_| position.clone());
            }
            // What holds at a row holds until just behind it, should nothing more come.
            Fragment::Row(key, _) if self.has_deletion.is_some() => {
                self.has_deletion = Some(crate::reader::after_row(key));
            }
            Fragment::Row(..) | Fragment::StaticRow(_) => {}
        }
    }

    /// Ends the partition that was begun.
    fn close(&mut self, outputs: &mut Outputs<'_>) -> Result<()> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        if let Some(position) = self.has_deletion.take() {
            outputs.push(Fragment::DeletionChange(position, None))?;
        }
        outputs.push(Fragment::PartitionEnd)
    }
}
