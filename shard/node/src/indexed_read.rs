//! Reads by an index over several replicas: what the indexes find, read again as it is.
//!
//! A replica that has missed a write finds rows by values that they do not have any more, and the others, whose indexes do
//! not find these rows, send nothing that would say so. So the rows that any of the replicas finds are candidates; each
//! is then read by its key, at the level of the statement, and the statement's plan tests it. A row whose newest value is
//! acknowledged at a level that overlaps with the read's is found, since one of the replicas asked has that value.
//!
//! Never: used where one answer is enough, for a replica's own index says what the replica has.

use std::rc::Rc;

use ceto_cluster::coordinator::{ReadOptions, RequestContext};
use ceto_model::evaluate::slices_of;
use ceto_model::key::RingPosition;
use ceto_model::read::{PartitionResult, ReadLimits, ReadResult, ReadTarget, ResumePoint, Slices};
use ceto_model::{ReadCommand, Slice, Table};

use crate::modify::at_once;
use crate::node::Node;
use crate::pump::RequestFailure;

/// Candidates' partitions that are read at the same time.
const READS_AT_ONCE: usize = 32;

impl Node {
    /// Whether a read by an index has to look at the rows again.
    pub(crate) fn reads_candidates(&self, context: &RequestContext<'_>, command: &ReadCommand) -> bool {
        command.index.is_some() && self.has_peers() && context.replication.required(context.consistency) > 1
    }

    /// Reads by an index from more than one replica.
    pub(crate) async fn read_by_index(
        self: &Rc<Self>,
        context: RequestContext<'_>,
        options: &ReadOptions,
        table: &Table,
        command: ReadCommand,
    ) -> Result<ReadResult, RequestFailure> {
        let search = command.index.as_ref().map(|search| search.index);
        let mut indexes = table.indexes().iter();
        let index = indexes.find(|index| Some(index.id()) == search);
        let finds_partitions = index.is_some_and(|index| index.finds_partitions(table));
        // This repairs, too: a row that one of the replicas knows to be deleted is no candidate any more.
        let candidates = self.read(context, options, command.clone()).await?;
        let mut result = ReadResult {
            resume: candidates.resume,
            work: candidates.work,
            ..ReadResult::default()
        };
        if finds_partitions {
            self.read_partitions(context, options, &command, candidates.partitions, &mut result)
                .await?;
        } else {
            self.read_rows(context, options, &command, candidates.partitions, &mut result)
                .await?;
        }
        Ok(result)
    }

    async fn read_rows(
        self: &Rc<Self>,
        context: RequestContext<'_>,
        options: &ReadOptions,
        command: &ReadCommand,
        candidates: Vec<PartitionResult>,
        result: &mut ReadResult,
    ) -> Result<(), RequestFailure> {
        for some in candidates.chunks(READS_AT_ONCE) {
            let reads = some.iter().map(|part| {
                let mut slices: Slices = part
                    .partition
                    .rows
                    .iter()
                    .map(|(row, _)| Slice::of_row(row))
                    .collect();
                let has_rows = !slices.is_empty();
                if !has_rows {
                    slices = slices_of(command, &part.key).clone();
                }
                slices.sort_unstable_by(|a, b| a.start.cmp(&b.start));
                let read = self.read(context, options, of_partition(command, part, slices));
                async move { read.await.map(|found| (has_rows, found)) }
            });
            for outcome in at_once(reads).await {
                let (has_rows, found) = outcome?;
                add_work(result, &found);
                // A row that is gone must not leave its static row as an answer.
                let parts = found.partitions.into_iter();
                let kept = parts.filter(|part| !has_rows || !part.partition.rows.is_empty());
                result.partitions.extend(kept);
            }
        }
        Ok(())
    }

    /// Of an index of a static column: all rows of what it finds, until the limits are met.
    async fn read_partitions(
        self: &Rc<Self>,
        context: RequestContext<'_>,
        options: &ReadOptions,
        command: &ReadCommand,
        candidates: Vec<PartitionResult>,
        result: &mut ReadResult,
    ) -> Result<(), RequestFailure> {
        let mut limits = command.limits;
        for part in candidates {
            if limits.rows == 0 || limits.bytes == 0 {
                result.resume = Some(ResumePoint::Ring(RingPosition::BeforeKey(part.key)));
                return Ok(());
            }
            let slices = slices_of(command, &part.key).clone();
            let mut read = of_partition(command, &part, slices);
            read.limits = ReadLimits {
                rows: limits.rows,
                bytes: limits.bytes,
                ..command.limits
            };
            let found = self.read(context, options, read).await?;
            add_work(result, &found);
            for part in found.partitions {
                let rows = part.partition.rows.len() as u64;
                let size: usize = part.partition.rows.iter().map(|(_, row)| row.memory_size()).sum();
                limits.rows = limits.rows.saturating_sub(rows.max(1));
                limits.bytes = limits.bytes.saturating_sub(size as u64);
                result.partitions.push(part);
            }
            if let Some(ResumePoint::Inside(..)) = found.resume {
                result.resume = found.resume;
                return Ok(());
            }
            // It is read to its end now, wherever the candidates stopped.
            let is_inside = matches!(&result.resume, Some(ResumePoint::Inside(key, _)) if *key == part.key);
            if is_inside {
                result.resume = Some(ResumePoint::Ring(RingPosition::AfterKey(part.key)));
            }
        }
        Ok(())
    }
}

/// The read of a candidate's partition by its key.
fn of_partition(command: &ReadCommand, part: &PartitionResult, slices: Slices) -> ReadCommand {
    ReadCommand {
        target: ReadTarget::Partition(part.key.clone()),
        slices,
        first_partition_slices: None,
        limits: ReadLimits::NONE,
        index: None,
        ..command.clone()
    }
}

fn add_work(result: &mut ReadResult, part: &ReadResult) {
    let (sum, work) = (&mut result.work, &part.work);
    sum.live_rows = sum.live_rows.saturating_add(work.live_rows);
    sum.tombstones = sum.tombstones.saturating_add(work.tombstones);
    sum.sstables = sum.sstables.saturating_add(work.sstables);
    sum.disk_bytes = sum.disk_bytes.saturating_add(work.disk_bytes);
}
