//! Reading by an index: entries in the order of the base, and the rows that they point at.
//!
//! The entries of one value are in the order of the base already. Those of several values are not: a pass over all of
//! them picks the first [`GATHERED_MAX`] in that order, so memory is bounded, and a read that goes on later passes
//! again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use ceto_model::evaluate::slices_of;
use ceto_model::index::{Entry, removal};
use ceto_model::read::{
    ColumnSelection, IndexSearch, IndexTerms, PartitionResult, ReadLimits, ResumePoint, Slices,
};
use ceto_model::{
    ClusteringKey, ColumnData, DecoratedKey, Index, Mutation, PartitionRange, Position, ReadCommand,
    ReadResult, ReadTarget, RingPosition, Row, Slice, Table,
};

use super::IndexStore;
use crate::database::Database;
use crate::error::Result;
use crate::table::{TableStore, add};

/// Entries read at once.
const ENTRIES: u64 = 256;
/// Rows of one partition read at once.
const GROUP_MAX: usize = 64;
/// Entries of several values that one read sorts.
const GATHERED_MAX: usize = 10_000;

/// An entry with its reasons.
pub(super) struct Hit {
    pub(super) at: ClusteringKey,
    pub(super) entry: Entry,
    pub(super) reasons: Row,
    /// Of an index of vectors: the vector, as on the wire.
    pub(super) vector: Bytes,
}

/// Hits in the order of the base.
pub(super) struct Hits<'a> {
    index: Rc<IndexStore>,
    definition: std::sync::Arc<Index>,
    command: &'a ReadCommand,
    range: PartitionRange,
    /// What is left of the index to be read.
    rest: Option<Slice>,
    ready: std::collections::VecDeque<Hit>,
    is_sorted: bool,
    /// More was found than could be sorted: this one is behind it.
    is_cut: bool,
    /// Hits that told no truth any more.
    pub(super) refuted: Cell<u64>,
    /// Nothing is wanted but to know that.
    pub(super) only_tests: bool,
}

impl Database {
    /// Reads what an index of the table finds; None when the index cannot be used.
    pub(crate) async fn read_by_index(
        &self,
        table: &Rc<TableStore>,
        search: &IndexSearch,
        command: &ReadCommand,
    ) -> Result<Option<ReadResult>> {
        let Some(index) = table.index(search.index).filter(|index| index.is_built.get()) else {
            return Ok(None);
        };
        add(&index.store.counters.reads, 1);
        if let IndexTerms::Nearest { vector, count } = &search.terms {
            let result = self.read_nearest(table, &index, search, (vector, *count), command);
            return Box::pin(result).await;
        }
        let mut hits = Hits::new(index, search, command);
        self.read_hits(table, &mut hits, command).await.map(Some)
    }

    /// Reads the rows that hits point at.
    pub(super) async fn read_hits(
        &self,
        table: &Rc<TableStore>,
        hits: &mut Hits<'_>,
        command: &ReadCommand,
    ) -> Result<ReadResult> {
        let base = table.definition().clone();
        let mut result = ReadResult::default();
        let mut limits = command.limits;
        let mut in_partition = 0;
        let mut last: Option<Entry> = None;
        loop {
            let group = hits.next_group(self, &mut result).await?;
            let Some(first) = group.first() else {
                result.resume = last
                    .filter(|_| hits.is_cut)
                    .map(|last| place_behind(last, command.reversed));
                return Ok(result);
            };
            let key = first.entry.key.clone();
            if limits.rows == 0 || limits.bytes == 0 || limits.partitions == 0 {
                result.resume = Some(place_before(&result, &key, command.reversed));
                return Ok(result);
            }
            let is_same = result.partitions.last().is_some_and(|last| last.key == key);
            if !is_same {
                in_partition = 0;
            }
            let read = base_command(command, &hits.definition, &base, &group, &limits, in_partition);
            let mut found = Box::pin(self.read(&read)).await?;
            result.work.sstables += found.work.sstables;
            result.work.disk_bytes += found.work.disk_bytes;
            result.work.tombstones += found.work.tombstones;
            let resume = found.resume.take();
            let part = found.partitions.pop();
            // The static row is read before all others.
            let finds_partitions = hits.definition.finds_partitions(&base);
            let is_cut = matches!(resume, Some(ResumePoint::Inside(..))) && !finds_partitions;
            let part = self.judge(hits, &base, &group, part, is_cut, command, &mut result);
            let is_refuted = finds_partitions && part.is_none();
            if hits.only_tests {
                continue;
            }
            if let Some(part) = part {
                let rows = part.partition.rows.len() as u64;
                let is_static = rows == 0 && part.partition.static_row.has_live_cell(command.now);
                limits.rows = limits
                    .rows
                    .saturating_sub(rows.max(u64::from(is_static && !is_same)));
                in_partition += rows;
                let size: usize = part.partition.rows.iter().map(|(_, row)| row.memory_size()).sum();
                limits.bytes = limits.bytes.saturating_sub(size as u64);
                result.work.live_rows += rows;
                match result.partitions.last_mut().filter(|_| is_same) {
                    Some(last) => last.partition.rows.extend(part.partition.rows),
                    None => {
                        limits.partitions = limits.partitions.saturating_sub(1);
                        result.partitions.push(part);
                    }
                }
            }
            let tombstones = result.work.tombstones;
            // Where the limits were met just at the end of what was asked for, there may be more entries.
            if let Some(ResumePoint::Inside(..)) = resume
                && !is_refuted
            {
                result.resume = resume;
                return Ok(result);
            }
            last = group.last().map(|hit| hit.entry.clone());
            if in_partition >= command.limits.rows_per_partition {
                hits.skip_partition(&key);
            }
            if tombstones >= command.limits.tombstones {
                result.resume = last.map(|last| place_behind(last, command.reversed));
                return Ok(result);
            }
        }
    }

    /// Keeps of what was read what the entries say, and deletes entries that say something else. Where the read was cut
    /// short nobody knows about the rest.
    #[allow(clippy::too_many_arguments)] // all of one read
    fn judge(
        &self,
        hits: &Hits<'_>,
        base: &Table,
        group: &[Hit],
        part: Option<PartitionResult>,
        is_cut: bool,
        command: &ReadCommand,
        result: &mut ReadResult,
    ) -> Option<PartitionResult> {
        let definition = &hits.definition;
        let is_read = |id| command.columns.contains(id) && !command.keep_tombstones;
        if definition.column().is_some_and(|id| !is_read(id)) {
            return part;
        }
        let mut part = part;
        let row_of = |entry: &Entry| -> Option<&Row> {
            let content = &part.as_ref()?.partition;
            match &entry.row {
                None => Some(&content.static_row),
                Some(wanted) => {
                    let at = content.rows.binary_search_by(|(key, _)| key.cmp(wanted)).ok()?;
                    content.rows.get(at).map(|(_, row)| row)
                }
            }
        };
        let (mut stale, mut confirmed) = (Vec::new(), Vec::new());
        for hit in group {
            let row = row_of(&hit.entry);
            if definition.confirms(base, &hit.entry, row, command.now) {
                confirmed.push(hit.entry.row.clone());
            } else if !is_cut {
                stale.push(hit);
                if let Some(vectors) = &hits.index.vectors {
                    let cell = definition.column().and_then(|id| match row?.column(id)? {
                        ColumnData::Cell(cell) => Some(cell),
                        ColumnData::Collection(_) => None,
                    });
                    vectors.borrow_mut().refute(&hit.entry, &hit.vector, cell);
                }
            }
        }
        if definition.finds_partitions(base) {
            if confirmed.is_empty() {
                part = None;
            }
        } else if let Some(content) = part.as_mut().map(|part| &mut part.partition) {
            content
                .rows
                .retain(|(key, _)| confirmed.iter().any(|row| row.as_ref() == Some(key)));
            if content.rows.is_empty() && !confirmed.contains(&None) {
                part = None;
            }
        }
        result.work.tombstones += stale.len() as u64;
        hits.refuted.set(hits.refuted.get() + stale.len() as u64);
        if hits.index.vectors.is_none() {
            self.delete_entries(&hits.index, definition, &stale, command);
        }
        part
    }

    fn delete_entries(&self, index: &IndexStore, definition: &Index, stale: &[&Hit], command: &ReadCommand) {
        let may_write = !self.is_closed.get() && self.memory.get() < self.memtable_limit.get();
        if stale.is_empty() || !may_write || self.poison.check().is_err() {
            return;
        }
        let mut mutation = Mutation::new(definition.id(), definition.key());
        for hit in stale {
            let row = mutation.partition.row_mut(hit.at.clone());
            row.merge(removal(&hit.reasons, command.now));
        }
        self.insert_quietly(&index.store, mutation, None);
        // What shadows the rows may not be on disk yet.
        index.store.active().note_part();
        self.flush_when_due();
    }
}

/// Goes on before the partition `next`, which is not in the answer yet, or in the middle of the last one.
fn place_before(result: &ReadResult, next: &DecoratedKey, reversed: bool) -> ResumePoint {
    let last = result.partitions.last().filter(|last| last.key == *next);
    match last.and_then(|last| last.partition.rows.last()) {
        Some((row, _)) => ResumePoint::Inside(next.clone(), Position::behind_row(row, reversed)),
        None => ResumePoint::Ring(RingPosition::BeforeKey(next.clone())),
    }
}

/// Goes on behind what an entry points at.
fn place_behind(entry: Entry, reversed: bool) -> ResumePoint {
    match entry.row {
        Some(row) => ResumePoint::Inside(entry.key, Position::behind_row(&row, reversed)),
        None => ResumePoint::Ring(RingPosition::AfterKey(entry.key)),
    }
}

/// The read of the rows that a group of entries points at.
fn base_command(
    command: &ReadCommand,
    definition: &Index,
    base: &Table,
    group: &[Hit],
    limits: &ReadLimits,
    in_partition: u64,
) -> ReadCommand {
    let key = group.first().expect("a group is not empty").entry.key.clone();
    let slices: Slices = match definition.finds_partitions(base) {
        true => slices_of(command, &key).clone(),
        false => {
            let rows = group.iter().filter_map(|hit| hit.entry.row.as_ref());
            let mut slices: Slices = rows.map(Slice::of_row).collect();
            // Two entries may point at one row: of its value and of an earlier one.
            slices.dedup();
            slices
        }
    };
    ReadCommand {
        target: ReadTarget::Partition(key),
        slices,
        first_partition_slices: None,
        limits: ReadLimits {
            rows_per_partition: command.limits.rows_per_partition.saturating_sub(in_partition),
            ..*limits
        },
        index: None,
        ..command.clone()
    }
}

impl<'a> Hits<'a> {
    pub(super) fn new(index: Rc<IndexStore>, search: &IndexSearch, command: &'a ReadCommand) -> Hits<'a> {
        let range = match &command.target {
            ReadTarget::Range(range) => range.clone(),
            ReadTarget::Partition(key) => PartitionRange {
                start: RingPosition::BeforeKey(key.clone()),
                end: RingPosition::AfterKey(key.clone()),
            },
        };
        let (slice, is_sorted) = match &search.terms {
            IndexTerms::Value(value) => {
                let slice = Slice {
                    start: Index::position(value, &range.start),
                    end: Index::position(value, &range.end),
                };
                (slice, true)
            }
            IndexTerms::Between(start, end) => {
                let slice = Slice {
                    start: start.clone(),
                    end: end.clone(),
                };
                (slice, false)
            }
            // They come all at once.
            IndexTerms::Nearest { .. } => {
                let nothing = Slice {
                    start: ceto_model::Position::after_all(),
                    end: ceto_model::Position::after_all(),
                };
                (nothing, true)
            }
        };
        Hits {
            definition: index.definition(),
            index,
            command,
            range,
            rest: (!slice.is_empty()).then_some(slice),
            ready: std::collections::VecDeque::new(),
            is_sorted,
            is_cut: false,
            refuted: Cell::new(0),
            only_tests: false,
        }
    }

    /// Of hits that are known already, in the order of the base.
    pub(super) fn known(
        index: Rc<IndexStore>,
        search: &IndexSearch,
        command: &'a ReadCommand,
        hits: impl IntoIterator<Item = Hit>,
    ) -> Hits<'a> {
        let mut known = Hits::new(index, search, command);
        known.ready.extend(hits);
        known
    }

    /// The next hits of one partition; none when there are no more.
    async fn next_group(&mut self, database: &Database, result: &mut ReadResult) -> Result<Vec<Hit>> {
        let mut group: Vec<Hit> = Vec::new();
        loop {
            if self.ready.is_empty() && !self.load(database, result).await? {
                return Ok(group);
            }
            while let Some(next) = self.ready.front() {
                let belongs = group
                    .first()
                    .is_none_or(|first| first.entry.key == next.entry.key);
                if !belongs || group.len() >= GROUP_MAX {
                    return Ok(group);
                }
                let next = self.ready.pop_front().expect("there is a front");
                group.push(next);
            }
            // Another load would only fill the group up.
            if !group.is_empty() {
                return Ok(group);
            }
        }
    }

    /// Nothing more of a partition is wanted.
    fn skip_partition(&mut self, key: &DecoratedKey) {
        while self.ready.front().is_some_and(|hit| hit.entry.key == *key) {
            self.ready.pop_front();
        }
        self.range.start = RingPosition::AfterKey(key.clone());
    }

    /// The entry points at something that is asked for.
    pub(super) fn is_wanted(&self, entry: &Entry) -> bool {
        let is_inside = self.range.contains(&entry.key);
        let is_in_slices = || match &entry.row {
            None => true,
            Some(row) => slices_of(self.command, &entry.key)
                .iter()
                .any(|slice| slice.contains(row)),
        };
        is_inside && is_in_slices()
    }

    /// Reads more entries; false when there are no more.
    async fn load(&mut self, database: &Database, result: &mut ReadResult) -> Result<bool> {
        if !self.is_sorted {
            return self.gather(database, result).await;
        }
        while self.ready.is_empty() {
            let Some(entries) = self.read_some(database, result).await? else {
                return Ok(false);
            };
            self.ready.extend(entries);
        }
        Ok(true)
    }

    /// Reads all entries that are left, and keeps the first ones in the order of the base.
    async fn gather(&mut self, database: &Database, result: &mut ReadResult) -> Result<bool> {
        let mut sorted: BTreeMap<(DecoratedKey, Option<ClusteringKey>, ClusteringKey), Hit> = BTreeMap::new();
        while let Some(entries) = self.read_some(database, result).await? {
            for hit in entries {
                let place = (hit.entry.key.clone(), hit.entry.row.clone(), hit.at.clone());
                sorted.insert(place, hit);
                if sorted.len() > GATHERED_MAX {
                    self.is_cut = true;
                    sorted.pop_last();
                }
            }
        }
        if self.is_cut {
            // A partition that may not be whole is left for the next read, unless it is the only one.
            let last = sorted.last_key_value().map(|((key, _, _), _)| key.clone());
            let others = sorted.keys().any(|(key, _, _)| Some(key) != last.as_ref());
            if others {
                sorted.retain(|(key, _, _), _| Some(key) != last.as_ref());
            }
        }
        self.ready.extend(sorted.into_values());
        Ok(!self.ready.is_empty())
    }

    /// The next entries as they lie in the index, those that are wanted; None when there are no more.
    async fn read_some(&mut self, database: &Database, result: &mut ReadResult) -> Result<Option<Vec<Hit>>> {
        let Some(slice) = self.rest.take() else {
            return Ok(None);
        };
        let read = ReadCommand {
            table: self.index.store.id,
            target: ReadTarget::Partition(self.definition.key()),
            slices: std::iter::once(slice.clone()).collect(),
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::All,
            now: self.command.now,
            limits: ReadLimits {
                rows: ENTRIES.min(self.command.limits.rows.max(16)),
                ..ReadLimits::NONE
            },
            keep_tombstones: false,
            bypass_cache: self.command.bypass_cache,
            index: None,
        };
        let found = Box::pin(database.read(&read)).await?;
        result.work.sstables += found.work.sstables;
        result.work.disk_bytes += found.work.disk_bytes;
        result.work.tombstones += found.work.tombstones;
        // The place may be a row that is not in the answer: a dead one.
        if let Some(ResumePoint::Inside(_, last)) = &found.resume {
            let rest = Slice {
                start: last.clone(),
                end: slice.end,
            };
            self.rest = (!rest.is_empty()).then_some(rest);
        }
        let rows = found.partitions.into_iter().flat_map(|part| part.partition.rows);
        let hits = rows.filter_map(|(at, reasons)| {
            let entry = self.definition.parse(&at)?;
            Some(Hit {
                at,
                entry,
                reasons,
                vector: Bytes::new(),
            })
        });
        let hits = hits.filter(|hit| self.is_wanted(&hit.entry));
        Ok(Some(hits.collect()))
    }
}
