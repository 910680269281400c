//! Range reads of a node: every shard reads its part, and the parts are put together in ring order.
//!
//! Shards own interleaved slices of the ring, so each is asked for the whole range with the whole limits, and what
//! lies beyond the place where the first of them stopped is dropped again. The answer obeys the command's limits and
//! says where to go on, exactly as one shard's would.

use std::cmp::Ordering;
use std::rc::Rc;

use ceto_model::evaluate::slices_of;
use ceto_model::key::RingPosition;
use ceto_model::read::{PartitionResult, ReadCommand, ReadLimits, ReadResult, ResumePoint};
use ceto_model::{DecoratedKey, Position};

use crate::message::ReplicaFailure;
use crate::node::Node;

impl Node {
    /// Reads a range on all shards of this node at once.
    pub(crate) async fn read_all_shards(
        self: &Rc<Self>,
        command: ReadCommand,
    ) -> Result<ReadResult, ReplicaFailure> {
        let mut parts = Vec::with_capacity(usize::from(self.shard_count()));
        for shard in (0..self.shard_count()).filter(|shard| *shard != self.shard()) {
            parts.push(self.ask_to_read(shard, command.clone()));
        }
        let mut results = vec![self.read_here(&command).await?];
        for part in parts {
            results.push(*part.await?);
        }
        Ok(merge(&command, results))
    }
}

/// Puts shards' answers to one command together.
fn merge(command: &ReadCommand, results: Vec<ReadResult>) -> ReadResult {
    let mut merged = ReadResult::default();
    let mut horizon: Option<ResumePoint> = None;
    let mut partitions = Vec::new();
    for result in results {
        add_work(&mut merged, &result);
        partitions.extend(result.partitions);
        horizon = earlier(horizon, result.resume);
    }
    partitions.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let mut limits = command.limits;
    let mut last: Option<DecoratedKey> = None;
    for part in partitions {
        if horizon
            .as_ref()
            .is_some_and(|horizon| is_beyond(&part.key, horizon))
        {
            break;
        }
        if limits.rows == 0 || limits.partitions == 0 || limits.bytes == 0 {
            merged.resume = Some(ResumePoint::Ring(RingPosition::BeforeKey(part.key)));
            return merged;
        }
        let (part, cut) = take(command, part, &mut limits);
        last = Some(part.key.clone());
        merged.partitions.push(part);
        if cut.is_some() {
            merged.resume = cut;
            return merged;
        }
    }
    let is_exhausted = limits.rows == 0 || limits.partitions == 0 || limits.bytes == 0;
    merged.resume = match (horizon, last) {
        (Some(ResumePoint::Ring(_)), Some(last)) if is_exhausted => {
            Some(ResumePoint::Ring(RingPosition::AfterKey(last)))
        }
        (horizon, _) => horizon,
    };
    merged
}

fn add_work(merged: &mut ReadResult, part: &ReadResult) {
    merged.work.live_rows += part.work.live_rows;
    merged.work.tombstones += part.work.tombstones;
    merged.work.sstables += part.work.sstables;
    merged.work.disk_bytes += part.work.disk_bytes;
}

/// Takes what the limits still allow of a partition; and where to resume when that is not all of it.
fn take(
    command: &ReadCommand,
    mut part: PartitionResult,
    limits: &mut ReadLimits,
) -> (PartitionResult, Option<ResumePoint>) {
    let mut live = 0;
    let mut taken = part.partition.rows.len();
    for (at, (_, row)) in part.partition.rows.iter().enumerate() {
        if !row.is_live(command.now) {
            continue;
        }
        if limits.rows == 0 || limits.bytes == 0 {
            taken = at;
            break;
        }
        live += 1;
        limits.rows -= 1;
        limits.bytes = limits.bytes.saturating_sub(row.memory_size() as u64);
    }
    if live == 0 && part.partition.static_row.has_live_cell(command.now) {
        limits.rows = limits.rows.saturating_sub(1);
    }
    limits.partitions -= 1;
    let mut cut = None;
    if taken < part.partition.rows.len() {
        part.partition.rows.truncate(taken);
        cut = part.partition.rows.last().map(|(row, _)| {
            let behind = Position::behind_row(row, command.reversed);
            ResumePoint::Inside(part.key.clone(), behind)
        });
    }
    debug_assert!(!slices_of(command, &part.key).is_empty() || part.partition.rows.is_empty());
    (part, cut)
}

/// The earlier of two places to stop.
fn earlier(a: Option<ResumePoint>, b: Option<ResumePoint>) -> Option<ResumePoint> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if cmp_points(&a, &b) == Ordering::Greater {
            b
        } else {
            a
        }),
        (a, b) => a.or(b),
    }
}

fn cmp_points(a: &ResumePoint, b: &ResumePoint) -> Ordering {
    match (a, b) {
        (ResumePoint::Inside(key, _), ResumePoint::Inside(other, _)) => key.cmp(other),
        (ResumePoint::Inside(key, _), ResumePoint::Ring(position)) => position.cmp_key(key).reverse(),
        (ResumePoint::Ring(position), ResumePoint::Inside(key, _)) => position.cmp_key(key),
        (ResumePoint::Ring(a), ResumePoint::Ring(b)) => cmp_positions(a, b),
    }
}

/// Order of two points of the ring; of points around one key or token, before comes first.
fn cmp_positions(a: &RingPosition, b: &RingPosition) -> Ordering {
    match b {
        RingPosition::BeforeKey(key) => a.cmp_key(key).then_with(|| is_after(a).cmp(&false)),
        RingPosition::AfterKey(key) => a.cmp_key(key).then_with(|| is_after(a).cmp(&true)),
        RingPosition::BeforeToken(_) | RingPosition::AfterToken(_) => {
            a.token().cmp(&b.token()).then_with(|| rank(a).cmp(&rank(b)))
        }
    }
}

fn is_after(position: &RingPosition) -> bool {
    matches!(position, RingPosition::AfterKey(_) | RingPosition::AfterToken(_))
}

/// Among points of one token: before all its keys, around its keys, after them.
fn rank(position: &RingPosition) -> u8 {
    match position {
        RingPosition::BeforeToken(_) => 0,
        RingPosition::BeforeKey(_) | RingPosition::AfterKey(_) => 1,
        RingPosition::AfterToken(_) => 2,
    }
}

/// `key` was not (or not for certain) read by every shard.
fn is_beyond(key: &DecoratedKey, horizon: &ResumePoint) -> bool {
    match horizon {
        ResumePoint::Inside(last, _) => key > last,
        ResumePoint::Ring(position) => position.cmp_key(key) == Ordering::Less,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use bytes::Bytes;
    use ceto_model::evaluate::evaluate;
    use ceto_model::read::{ColumnSelection, ReadTarget};
    use ceto_model::schema::TableId;
    use ceto_model::{
        Cell, ClusteringKey, ColumnData, ColumnId, Partition, PartitionKey, PartitionRange, Slice, Timestamp,
        UnixSeconds,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn partition(rows: u8, has_static: bool) -> Partition {
        let cell = || ColumnData::Cell(Cell::live(Timestamp(1), Bytes::from_static(b"v")));
        let mut partition = Partition::default();
        if has_static {
            partition.static_row.merge_column(ColumnId(9), cell());
        }
        for row in 0..rows {
            let key = ClusteringKey(vec![0x40, row, 0x38].into());
            partition.row_mut(key).merge_column(ColumnId(1), cell());
        }
        partition
    }

    fn command(limits: ReadLimits) -> ReadCommand {
        ReadCommand {
            table: TableId(Uuid::nil()),
            target: ReadTarget::Range(PartitionRange::full()),
            slices: [Slice::full()].into_iter().collect(),
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::All,
            now: UnixSeconds(0),
            limits,
            keep_tombstones: false,
            bypass_cache: false,
            index: None,
        }
    }

    proptest! {
        /// Cut over shards and put together again, a read answers as over one store; and following the resume
        /// points reads everything exactly once.
        #[test]
        fn shards_together_answer_as_one(
            sizes in proptest::collection::vec((0u8..4, any::<bool>()), 1..12),
            shards in 1u16..4,
            rows in 1u64..6,
            partitions in 1u64..6,
        ) {
            let all: BTreeMap<DecoratedKey, Partition> = sizes
                .iter()
                .enumerate()
                .filter(|(_, (rows, has_static))| *rows > 0 || *has_static)
                .map(|(i, (rows, has_static))| {
                    (DecoratedKey::new(PartitionKey(vec![i as u8].into())), partition(*rows, *has_static))
                })
                .collect();
            let mut command = command(ReadLimits { rows, partitions, ..ReadLimits::NONE });
            let mut read = BTreeMap::new();
            for _ in 0..100 {
                let answers = (0..shards).map(|shard| {
                    evaluate(&command, all.iter().filter(|(key, _)| key.token.shard(shards) == shard))
                });
                let merged = merge(&command, answers.collect());
                let count: usize = merged.partitions.iter().map(|p| p.partition.rows.len().max(1)).sum();
                prop_assert!(count as u64 <= rows && merged.partitions.len() as u64 <= partitions);
                for part in merged.partitions {
                    let entry: &mut Partition = read.entry(part.key).or_default();
                    entry.static_row = part.partition.static_row;
                    entry.rows.extend(part.partition.rows);
                }
                let Some(resume) = merged.resume else { break };
                let start = match resume {
                    ResumePoint::Ring(position) => {
                        command.first_partition_slices = None;
                        position
                    }
                    ResumePoint::Inside(key, start) => {
                        let rest = Slice { start, end: Slice::full().end };
                        command.first_partition_slices = Some([rest].into_iter().collect());
                        RingPosition::BeforeKey(key)
                    }
                };
                command.target = ReadTarget::Range(PartitionRange { start, end: PartitionRange::full().end });
            }
            prop_assert_eq!(read, all);
        }
    }
}
