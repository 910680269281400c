//! Ranges out of the cache: partitions go to the answer several at a time, straight from where they lie.
//!
//! Small partitions are most of what a scan meets, and each lies in several places of memory: the partition, its row, its
//! columns, its value, and what counts who shares key and value. Taken one by one, each place is waited for. So a run goes
//! over several partitions three times: first it looks at a byte of each place and does nothing else, so that the processor
//! fetches those of many at the same time; then it copies keys and values of plain rows behind each other while they are short;
//! then it answers with parts of that copy, which touches no count but the copy's.
//!
//! Never: answers a part of a partition. What is not known in full is left to `reader`.

use bytes::Bytes;
use ceto_model::{Cell, CellState, ClusteringKey, ColumnData, DecoratedKey, PartitionKey, RingPosition, Row};

use super::entries::{Entry, Gap};
use super::partition::{CachedPartition, State};
use super::table::{TableCache, lower_bound};
use super::walk::{Cursor, Met, walk};
use crate::reader::{Answer, Flow, Fragment, Scan, slices_of};

/// Bytes of values of a row that are copied; a longer row is shared.
const COPIED_MAX: usize = 512;
/// Bytes of a copy, to begin with.
const COPY_EXPECTED: usize = 4 << 10;

impl TableCache {
    /// Answers up to `size` partitions of a range from a point of the ring on, as far as they lie before a key and all of
    /// them and of what is between them is known; the point moves behind them. None: there is none.
    pub(super) fn answer_run(
        &self,
        scan: &Scan<'_>,
        point: &mut RingPosition,
        before: Option<&DecoratedKey>,
        size: usize,
        answer: &mut Answer<'_>,
    ) -> Option<Flow> {
        let range = TableCache::range_of(scan)?;
        if *point == range.end {
            return None;
        }
        let partitions = self.partitions.borrow();
        let ahead = partitions.range((lower_bound(point)?, std::ops::Bound::Unbounded));
        let run = || ahead.clone().take(size).map(|(_, partition)| &**partition);
        warm(run());
        let mut copy = copy(run(), answer);
        let (mut last, mut flow) = (None, None);
        for (key, partition) in ahead.take(size) {
            let is_at_point = matches!(point, RingPosition::BeforeKey(point) if point == key);
            let is_in_reach = before.is_none_or(|before| key < before) && range.end.cmp_key(key).is_gt();
            if !is_in_reach || !is_at_point && !partition.is_gap_known.get() {
                break;
            }
            let state = partition.state.borrow();
            let is_nothing = partition.is_bound() || state.is_absent();
            if !is_nothing && !state.is_small_and_known() {
                break;
            }
            partition.note_use();
            last = Some(partition);
            flow = Some(match is_nothing {
                true => Flow::Continue,
                false => match plain_row(&state).filter(|_| answer.takes_plain_rows()) {
                    Some((place, entry, row)) => {
                        entry.note_use();
                        answer_copied(partition, (place, row), scan, &mut copy, answer)
                    }
                    None => answer_whole(partition, &state, scan, answer),
                },
            });
            if flow == Some(Flow::Stop) {
                break;
            }
        }
        if let Some(last) = last {
            *point = match last.is_bound() {
                true => RingPosition::BeforeToken(last.key().token),
                false => RingPosition::AfterKey(last.key().clone()),
            };
        }
        flow
    }
}

/// A partition that is one row of short values, of which nothing is deleted and nothing expires.
fn plain_row(state: &State) -> Option<(&Bytes, &Entry, &Row)> {
    if state.deletion.is_some() || state.static_row.is_some() || state.tail != Gap::Known(None) {
        return None;
    }
    let (place, entry) = state.entries.only_row()?;
    let row = entry.row.as_ref()?;
    let is_plain = row.deletion.is_none() && row.liveness.is_none_or(|liveness| liveness.expiry.is_none());
    let mut left = COPIED_MAX;
    for (_, data) in &row.columns {
        left = left.checked_sub(live_value(data)?.len())?;
    }
    is_plain.then_some((place, entry, row))
}

fn live_value(data: &ColumnData) -> Option<&Bytes> {
    match data {
        ColumnData::Cell(Cell {
            state: CellState::Live(value),
            ..
        }) => Some(value),
        _ => None,
    }
}

/// Has the processor fetch what partitions are made of. Short, so that many go on at the same time.
fn warm<'a>(partitions: impl Iterator<Item = &'a CachedPartition>) {
    let touched = partitions.map(|partition| {
        let key = partition.key().key.0.first().map_or(0, |byte| usize::from(*byte));
        key + partition.state.borrow().touch()
    });
    std::hint::black_box(touched.sum::<usize>());
}

/// Copies keys and wanted values of plain rows, in order.
fn copy<'a>(partitions: impl Iterator<Item = &'a CachedPartition>, answer: &Answer<'_>) -> Bytes {
    let mut copy = Vec::with_capacity(COPY_EXPECTED);
    for partition in partitions.filter(|_| answer.takes_plain_rows()) {
        let state = partition.state.borrow();
        if let Some((_, _, row)) = plain_row(&state) {
            copy.extend_from_slice(&partition.key().key.0);
            let wanted = row.columns.iter().filter(|(id, _)| answer.wants(*id));
            wanted
                .filter_map(|(_, data)| live_value(data))
                .for_each(|value| copy.extend_from_slice(value));
        }
    }
    Bytes::from(copy)
}

/// Answers a plain row with what is next in the copy.
fn answer_copied(
    partition: &CachedPartition,
    (place, row): (&Bytes, &Row),
    scan: &Scan<'_>,
    copy: &mut Bytes,
    answer: &mut Answer<'_>,
) -> Flow {
    let key = partition.key();
    let key = DecoratedKey {
        token: key.token,
        key: PartitionKey(copy.split_to(key.key.0.len())),
    };
    let wanted = row.columns.iter().filter(|(id, _)| answer.wants(*id));
    let mut columns = Vec::with_capacity(row.columns.len());
    columns.extend(wanted.filter_map(|(id, data)| {
        let ColumnData::Cell(cell) = data else { return None };
        let value = copy.split_to(live_value(data)?.len());
        Some((*id, ColumnData::Cell(Cell::live(cell.timestamp, value))))
    }));
    let row = Row {
        liveness: row.liveness,
        deletion: None,
        columns,
    };
    let place = ClusteringKey(place.clone());
    let is_wanted = slices_of(scan, &key).iter().any(|slice| slice.contains(&place));
    answer.start(key, None);
    let flow = match is_wanted {
        true => answer.plain_row(place, row),
        false => Flow::Continue,
    };
    end(flow, answer)
}

/// Answers a partition of which all is known.
fn answer_whole(
    partition: &CachedPartition,
    state: &State,
    scan: &Scan<'_>,
    answer: &mut Answer<'_>,
) -> Flow {
    let key = partition.key();
    let slices = slices_of(scan, key);
    answer.start(key.clone(), state.deletion);
    if let Some(row) = &state.static_row {
        answer.push(Fragment::StaticRow((**row).clone()));
    }
    let mut flow = Flow::Continue;
    walk(
        state,
        slices,
        scan.reversed,
        &mut Cursor::default(),
        usize::MAX,
        &mut |met| {
            // A walk goes on behind a change that was the last wanted.
            if flow == Flow::Continue {
                flow = match met {
                    Met::Row(key, row) => answer.row_at(key, row),
                    Met::Change(position, deletion) => {
                        answer.push(Fragment::DeletionChange(position, deletion))
                    }
                };
            }
            flow == Flow::Continue
        },
    );
    end(flow, answer)
}

/// Ends a partition whose last row was taken so.
fn end(flow: Flow, answer: &mut Answer<'_>) -> Flow {
    match flow {
        Flow::Continue => answer.end(),
        // The rest of the partition is not wanted.
        Flow::NextPartition => Flow::Continue,
        Flow::Stop => Flow::Stop,
    }
}
