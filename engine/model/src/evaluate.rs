//! The meaning of a [`ReadCommand`], on partitions held in memory: slow and plain.
//!
//! Virtual tables answer by it, simulated replicas too, and the storage engine is tested against it. One rule is easy
//! to get wrong: whether a row is live is decided by *all* its columns, before the selection drops some; a row whose
//! only live cell was not selected is still in the answer, empty.

use crate::key::{DecoratedKey, Position, RingPosition, Slice};
use crate::partition::Partition;
use crate::read::{
    ColumnSelection, PartitionResult, ReadCommand, ReadLimits, ReadResult, ReadTarget, ResumePoint, Slices,
};
use crate::row::{Collection, ColumnData, Row};
use crate::timestamp::UnixSeconds;

/// Answers `command` from `partitions`, which come in ring order and in normal form.
pub fn evaluate<'a>(
    command: &ReadCommand,
    partitions: impl IntoIterator<Item = (&'a DecoratedKey, &'a Partition)>,
) -> ReadResult {
    let mut result = ReadResult::default();
    let mut limits = command.limits;
    for (key, partition) in partitions {
        if !is_target(&command.target, key) {
            continue;
        }
        if is_exhausted(&limits) {
            result.resume = Some(ResumePoint::Ring(RingPosition::BeforeKey(key.clone())));
            break;
        }
        let (content, stopped) = cut(command, key, partition, &mut limits, &mut result);
        if !content.is_empty() {
            result.partitions.push(PartitionResult {
                key: key.clone(),
                partition: content,
            });
        }
        if let Some(resume) = stopped {
            result.resume = Some(resume);
            break;
        }
    }
    result
}

fn is_target(target: &ReadTarget, key: &DecoratedKey) -> bool {
    match target {
        ReadTarget::Partition(wanted) => wanted == key,
        ReadTarget::Range(range) => range.contains(key),
    }
}

fn is_exhausted(limits: &ReadLimits) -> bool {
    limits.rows == 0 || limits.partitions == 0 || limits.bytes == 0
}

/// The slices that apply to `key`.
pub fn slices_of<'a>(command: &'a ReadCommand, key: &DecoratedKey) -> &'a Slices {
    match (&command.first_partition_slices, &command.target) {
        (Some(first), ReadTarget::Range(range)) if range.start == RingPosition::BeforeKey(key.clone()) => {
            first
        }
        _ => &command.slices,
    }
}

/// The part of one partition that belongs in the answer, and where to resume when a limit was met inside it.
fn cut(
    command: &ReadCommand,
    key: &DecoratedKey,
    partition: &Partition,
    limits: &mut ReadLimits,
    result: &mut ReadResult,
) -> (Partition, Option<ResumePoint>) {
    let slices = slices_of(command, key);
    let mut content = Partition::default();
    if command.keep_tombstones {
        content.deletion = partition.deletion;
        for slice in slices {
            partition
                .range_tombstones
                .within(slice)
                .for_each(|tombstone| content.delete_range(tombstone));
        }
    }
    content.static_row = select(command, &partition.static_row).unwrap_or_default();
    let static_is_live = partition.static_row.has_live_cell(command.now);
    let in_slices = |slice: &&Slice, key: &crate::ClusteringKey| slice.contains(key);
    let mut rows: Vec<_> = partition
        .rows
        .iter()
        .filter(|(key, _)| slices.iter().any(|slice| in_slices(&slice, key)))
        .collect();
    if command.reversed {
        rows.reverse();
    }
    let mut live_rows = 0;
    let mut stopped = None;
    for (clustering, row) in rows {
        let is_live = row.is_live(command.now);
        // The partition's own limit first: a page that ends here goes on with the next partition.
        if is_live && live_rows == command.limits.rows_per_partition {
            break;
        }
        if is_live && (limits.rows == 0 || limits.bytes == 0) {
            let last = content.rows.last().map(|(key, _)| key.clone());
            stopped = last.map(|last| {
                let behind = Position::behind_row(&last, command.reversed);
                ResumePoint::Inside(key.clone(), behind)
            });
            break;
        }
        if let Some(selected) = select(command, row) {
            limits.bytes = limits.bytes.saturating_sub(selected.memory_size() as u64);
            content.rows.push((clustering.clone(), selected));
        }
        if is_live {
            live_rows += 1;
            limits.rows -= 1;
        } else {
            result.work.tombstones += 1;
        }
    }
    if live_rows == 0 && static_is_live {
        limits.rows = limits.rows.saturating_sub(1);
    }
    if live_rows > 0 || static_is_live {
        limits.partitions -= 1;
    }
    result.work.live_rows += live_rows;
    (content, stopped)
}

/// What of a row the command wants; None when that is nothing.
fn select(command: &ReadCommand, row: &Row) -> Option<Row> {
    if command.keep_tombstones {
        return (!row.is_empty()).then(|| row.clone());
    }
    live_part(row, &command.columns, command.now)
}

/// The live part of a row at `now`, of the selected columns; None when the row is not live.
pub fn live_part(row: &Row, columns: &ColumnSelection, now: UnixSeconds) -> Option<Row> {
    if !row.is_live(now) {
        return None;
    }
    let selected = row.columns.iter().filter(|(id, _)| columns.contains(*id));
    let live = selected.filter_map(|(id, data)| match data {
        ColumnData::Cell(cell) => cell.is_live(now).then(|| (*id, data.clone())),
        ColumnData::Collection(collection) => {
            let cells: Vec<_> = collection
                .cells
                .iter()
                .filter(|(_, cell)| cell.is_live(now))
                .cloned()
                .collect();
            (!cells.is_empty()).then(|| {
                (
                    *id,
                    ColumnData::Collection(Collection {
                        deletion: None,
                        cells,
                    }),
                )
            })
        }
    });
    Some(Row {
        liveness: row.liveness.filter(|l| l.is_live(now)),
        deletion: None,
        columns: live.collect(),
    })
}
