//! Reconciling the answers of several replicas to one read: merge, cut, count, and find out what each replica lacks.
//!
//! A replica stops where its own rows fill the limits, so its answer is the truth only up to there. Therefore, in this
//! order:
//! 1. *cut*: nothing beyond the earliest place where any replica stopped is used, and within a partition nothing
//!    beyond the row where any replica met the limit of rows per partition;
//! 2. *merge* what is left of each answer, and note for each replica what it lacks of the merge;
//! 3. *count* live rows of the merge against the limits. Rows that one replica had live and another deleted are gone
//!    now, so there may be too few: a *short read*, which the caller continues after the cut.
//!
//! Never: a row in the result that some replica, which had to be heard about it, was not heard about.

use std::collections::BTreeMap;

use ceto_model::evaluate::live_part;
use ceto_model::read::{PartitionResult, ReadWork, ResumePoint};
use ceto_model::{
    ClusteringKey, DecoratedKey, Mutation, Partition, Position, ReadCommand, ReadLimits, ReadResult,
    RingPosition, Row,
};
use smallvec::SmallVec;

use super::continuation::{compare, reaches, up_to};
use super::difference::difference;

/// What earlier rounds of the same read have already counted of the partition that this round begins in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Carried {
    key: Option<DecoratedKey>,
    live_rows: u64,
    static_is_live: bool,
}

impl Carried {
    /// Takes an ended partition off the limits. One whose static row alone is live counts as one row.
    fn end(&self, limits: &mut ReadLimits) {
        if self.live_rows > 0 || self.static_is_live {
            limits.partitions = limits.partitions.saturating_sub(1);
            limits.rows = limits.rows.saturating_sub(u64::from(self.live_rows == 0));
        }
    }
}

/// Why a round's rows end where they end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Nothing more lies in the target.
    End,
    /// A limit of the read is met.
    Limit(ResumePoint),
    /// A replica's own limit hid what comes next.
    Short(ResumePoint),
}

impl Stop {
    fn at(point: ResumePoint, is_short: bool) -> Stop {
        if is_short {
            Self::Short(point)
        } else {
            Self::Limit(point)
        }
    }
}

/// The outcome.
#[derive(Debug)]
pub(super) struct Reconciled {
    pub(super) partitions: Vec<PartitionResult>,
    pub(super) stop: Stop,
    /// What is left of the limits.
    pub(super) limits: ReadLimits,
    pub(super) carried: Carried,
    /// For each answer, what its replica lacks.
    pub(super) repairs: Vec<Vec<Mutation>>,
    pub(super) work: ReadWork,
}

/// Reconciles `answers` to `command`, which was sent with `keep_tombstones`; the result keeps them if asked to.
pub(super) fn reconcile(
    command: &ReadCommand,
    keep_tombstones: bool,
    carried: Carried,
    answers: Vec<ReadResult>,
) -> Reconciled {
    let cut = find_cut(command, &answers);
    let mut reconciled = Reconciled {
        partitions: Vec::new(),
        stop: Stop::End,
        limits: command.limits,
        carried,
        repairs: vec![Vec::new(); answers.len()],
        work: total_work(&answers),
    };
    let count = answers.len();
    let mut by_key: BTreeMap<DecoratedKey, SmallVec<[Partition; 3]>> = BTreeMap::new();
    for (i, answer) in answers.into_iter().enumerate() {
        for PartitionResult { key, partition } in answer.partitions {
            let parts = by_key
                .entry(key)
                .or_insert_with(|| (0..count).map(|_| Partition::default()).collect());
            if let Some(part) = parts.get_mut(i) {
                *part = partition;
            }
        }
    }
    let mut run = Run {
        command,
        keep_tombstones,
        cut: cut.as_ref(),
        into: &mut reconciled,
    };
    run.end_carried(by_key.keys().next());
    for (key, parts) in by_key {
        if cut.as_ref().is_some_and(|cut| !reaches(&cut.point, &key)) {
            break;
        }
        if is_exhausted(&run.into.limits) {
            let resume = ResumePoint::Ring(RingPosition::BeforeKey(key));
            run.into.stop = Stop::Limit(resume);
            return reconciled;
        }
        if let Some(stop) = run.partition(key, parts) {
            reconciled.stop = stop;
            return reconciled;
        }
    }
    reconciled.stop = match cut {
        None => Stop::End,
        Some(cut) => {
            let is_short = cut.is_short && !is_exhausted(&reconciled.limits);
            Stop::at(cut.point, is_short)
        }
    };
    reconciled
}

/// Nothing more may be returned.
pub(super) fn is_exhausted(limits: &ReadLimits) -> bool {
    limits.rows == 0 || limits.partitions == 0 || limits.bytes == 0
}

/// The earliest place where a replica stopped.
struct Cut {
    point: ResumePoint,
    /// It stopped there only because its own rows filled the limits; else a page bound was met and the page ends.
    is_short: bool,
}

impl Cut {
    fn is_inside(&self, key: &DecoratedKey) -> bool {
        matches!(&self.point, ResumePoint::Inside(own, _) if own == key)
    }
}

/// The row of one partition after which some replica was not heard.
struct RowCut {
    at: Position,
    is_short: bool,
}

fn find_cut(command: &ReadCommand, answers: &[ReadResult]) -> Option<Cut> {
    let mut earliest: Option<Cut> = None;
    for answer in answers {
        let Some(point) = &answer.resume else {
            continue;
        };
        let is_short = is_full(command, answer);
        let order = earliest.as_ref().map_or(std::cmp::Ordering::Less, |earliest| {
            compare(point, &earliest.point, command.reversed)
        });
        match (order, &mut earliest) {
            (std::cmp::Ordering::Less, _) => {
                earliest = Some(Cut {
                    point: point.clone(),
                    is_short,
                });
            }
            (std::cmp::Ordering::Equal, Some(earliest)) => earliest.is_short &= is_short,
            _ => {}
        }
    }
    earliest
}

/// The answer's own live rows fill the limits.
fn is_full(command: &ReadCommand, answer: &ReadResult) -> bool {
    let (mut rows, mut partitions) = (0u64, 0u64);
    for PartitionResult { partition, .. } in &answer.partitions {
        let live = live_rows(command, partition);
        let has_live = live > 0 || partition.static_row.has_live_cell(command.now);
        rows += live.max(u64::from(has_live));
        partitions += u64::from(has_live);
    }
    rows >= command.limits.rows || partitions >= command.limits.partitions
}

fn live_rows(command: &ReadCommand, partition: &Partition) -> u64 {
    partition
        .rows
        .iter()
        .filter(|(_, row)| row.is_live(command.now))
        .count() as u64
}

fn total_work(answers: &[ReadResult]) -> ReadWork {
    let mut total = ReadWork::default();
    for ReadResult { work, .. } in answers {
        total.live_rows = total.live_rows.max(work.live_rows);
        total.tombstones = total.tombstones.saturating_add(work.tombstones);
        total.sstables = total.sstables.saturating_add(work.sstables);
        total.disk_bytes = total.disk_bytes.saturating_add(work.disk_bytes);
    }
    total
}

/// The walk over partitions.
struct Run<'a> {
    command: &'a ReadCommand,
    keep_tombstones: bool,
    cut: Option<&'a Cut>,
    into: &'a mut Reconciled,
}

impl Run<'_> {
    /// Counts the partition that the last round stopped in, when nothing more of it has come.
    fn end_carried(&mut self, first: Option<&DecoratedKey>) {
        if self.into.carried.key.as_ref() != first {
            std::mem::take(&mut self.into.carried).end(&mut self.into.limits);
        }
    }

    /// Takes one partition, as each replica has it; Some when the read stops in it.
    fn partition(&mut self, key: DecoratedKey, mut parts: SmallVec<[Partition; 3]>) -> Option<Stop> {
        let row_cut = self.row_cut(&key, &parts);
        if let Some(RowCut { at, .. }) = &row_cut {
            parts.iter_mut().for_each(|part| self.truncate(part, at));
        }
        if self.command.reversed {
            parts.iter_mut().for_each(|part| part.rows.reverse());
        }
        let merged = self.merge(&key, parts);
        self.count(key, merged, row_cut)
    }

    /// The last row of the partition that every replica was heard about.
    fn row_cut(&self, key: &DecoratedKey, parts: &[Partition]) -> Option<RowCut> {
        let mut earliest = match self.cut {
            Some(Cut {
                point: ResumePoint::Inside(own, at),
                is_short,
            }) if own == key => Some(RowCut {
                at: at.clone(),
                is_short: *is_short,
            }),
            _ => None,
        };
        let per_partition = self.command.limits.rows_per_partition;
        for part in parts {
            let Some((last, _)) = part.rows.last() else {
                continue;
            };
            if per_partition == u64::MAX || live_rows(self.command, part) < per_partition {
                continue;
            }
            let behind = Position::behind_row(last, self.command.reversed);
            let is_earlier = earliest.as_ref().is_none_or(|RowCut { at, .. }| {
                if self.command.reversed {
                    behind > *at
                } else {
                    behind < *at
                }
            });
            if is_earlier {
                earliest = Some(RowCut {
                    at: behind,
                    is_short: true,
                });
            }
        }
        earliest
    }

    /// Drops what lies beyond `at`.
    fn truncate(&self, part: &mut Partition, at: &Position) {
        let heard = up_to(at, self.command.reversed);
        part.rows.retain(|(key, _)| heard.contains(key));
        part.range_tombstones = part.range_tombstones.within(&heard).collect();
    }

    fn merge(&mut self, key: &DecoratedKey, parts: SmallVec<[Partition; 3]>) -> Partition {
        if parts.len() == 1 {
            return parts.into_iter().next().unwrap_or_default();
        }
        let mut merged = Partition::default();
        for part in &parts {
            merged.merge(part.clone());
        }
        for (part, repairs) in parts.iter().zip(&mut self.into.repairs) {
            if let Some(partition) = difference(&merged, part) {
                repairs.push(Mutation {
                    table: self.command.table,
                    key: key.clone(),
                    partition,
                });
            }
        }
        merged
    }

    /// Counts the merged partition against the limits and puts it, cut to them, into the result.
    fn count(&mut self, key: DecoratedKey, merged: Partition, row_cut: Option<RowCut>) -> Option<Stop> {
        let command = self.command;
        let mut carried = std::mem::take(&mut self.into.carried);
        if carried.key.as_ref() != Some(&key) {
            carried = Carried {
                key: Some(key.clone()),
                ..Carried::default()
            };
        }
        carried.static_is_live = merged.static_row.has_live_cell(command.now);
        let mut output = Partition::default();
        if self.keep_tombstones {
            output.deletion = merged.deletion;
            output.range_tombstones = merged.range_tombstones;
        }
        output.static_row = select(command, self.keep_tombstones, merged.static_row).unwrap_or_default();
        let (rows, mut end) = self.take_rows(merged.rows, &mut carried);
        output.rows = rows;
        let limits = &mut self.into.limits;
        if carried.live_rows >= limits.rows_per_partition {
            end = RowsEnd::PartitionFull;
        }
        let stop = match (end, row_cut) {
            (RowsEnd::PageFull(Some(last)), _) => {
                let behind = Position::behind_row(&last, command.reversed);
                Some(Stop::Limit(ResumePoint::Inside(key.clone(), behind)))
            }
            (RowsEnd::PageFull(None), _) => Some(Stop::Limit(ResumePoint::Ring(RingPosition::BeforeKey(
                key.clone(),
            )))),
            (RowsEnd::All, Some(RowCut { at, is_short })) => {
                let is_page_full = limits.rows == 0 || limits.bytes == 0;
                let point = ResumePoint::Inside(key.clone(), at);
                Some(Stop::at(point, is_short && !is_page_full))
            }
            (RowsEnd::All, None) | (RowsEnd::PartitionFull, _) => None,
        };
        // A partition that is gone on with is counted when it ends.
        if matches!(stop, Some(Stop::Short(_))) {
            self.into.carried = carried;
        } else {
            carried.end(limits);
        }
        let stop = stop.or_else(|| {
            // The rest of this partition is not wanted, and what comes after it is not known.
            let cut = self.cut.filter(|cut| cut.is_inside(&key))?;
            let point = ResumePoint::Ring(RingPosition::AfterKey(key.clone()));
            Some(Stop::at(point, cut.is_short && !is_exhausted(limits)))
        });
        if !output.is_empty() {
            self.into.partitions.push(PartitionResult {
                key,
                partition: output,
            });
        }
        stop
    }

    /// Takes rows, in the order of reading, until a limit is met.
    fn take_rows(
        &mut self,
        mut rows: Vec<(ClusteringKey, Row)>,
        carried: &mut Carried,
    ) -> (Vec<(ClusteringKey, Row)>, RowsEnd) {
        let limits = &mut self.into.limits;
        if self.command.reversed {
            rows.reverse();
        }
        let mut last: Option<ClusteringKey> = None;
        let mut taken = Vec::with_capacity(rows.len());
        for (clustering, row) in rows {
            let is_live = row.is_live(self.command.now);
            if is_live && carried.live_rows == limits.rows_per_partition {
                return (taken, RowsEnd::PartitionFull);
            }
            if is_live && (limits.rows == 0 || limits.bytes == 0) {
                return (taken, RowsEnd::PageFull(last));
            }
            last = Some(clustering.clone());
            if let Some(selected) = select(self.command, self.keep_tombstones, row) {
                limits.bytes = limits.bytes.saturating_sub(selected.memory_size() as u64);
                taken.push((clustering, selected));
            }
            if is_live {
                carried.live_rows += 1;
                limits.rows -= 1;
            }
        }
        (taken, RowsEnd::All)
    }
}

/// Why no more rows of a partition were taken.
enum RowsEnd {
    /// There are no more.
    All,
    /// It has as many as may be returned of one partition.
    PartitionFull,
    /// The read has as many as it may; after this row.
    PageFull(Option<ClusteringKey>),
}

fn select(command: &ReadCommand, keep_tombstones: bool, row: Row) -> Option<Row> {
    if keep_tombstones {
        return (!row.is_empty()).then_some(row);
    }
    live_part(&row, &command.columns, command.now)
}
