//! Reading a memtable as a stream of fragments.
//!
//! The memtable may change between two steps (it is read while it is written), so the reader keeps no reference into
//! it: it takes a partition in batches of rows and finds its place again by position.

use std::collections::VecDeque;
use std::rc::Rc;

use ceto_env::LocalFuture;
use ceto_model::{
    ClusteringKey, DecoratedKey, Deletion, PartitionRange, Position, ReadTarget, RingPosition, Row, Slice,
};

use super::Memtable;
use super::partition::MemtablePartition;
use crate::error::Result;
use crate::reader::{Fragment, FragmentSource, Scan, Step, after_row, before_row, changes_of, slices_of};

/// Rows taken at first.
const BATCH_MIN: usize = 32;
/// Rows taken at most at once.
pub(crate) const BATCH_MAX: usize = 512;

/// A scan of a memtable.
pub(crate) struct MemtableReader<'a> {
    memtable: Rc<Memtable>,
    scan: Scan<'a>,
    /// What a range scan has not reached yet.
    rest: Option<PartitionRange>,
    /// The key of a scan of one partition, until it was looked up.
    point: Option<&'a DecoratedKey>,
    current: Option<Current<'a>>,
    buffer: VecDeque<Fragment>,
}

/// A partition whose end has not been buffered yet.
struct Current<'a> {
    key: DecoratedKey,
    /// The deletion that its start announced.
    announced: Option<Deletion>,
    slices: &'a [Slice],
    /// Slices done, in reading order.
    done: usize,
    /// Where to go on inside the next slice.
    from: Option<Position>,
    /// The range deletion that was open there.
    open: Option<Deletion>,
    batch: usize,
}

impl<'a> MemtableReader<'a> {
    /// Scans `memtable`.
    pub(crate) fn new(memtable: Rc<Memtable>, scan: Scan<'a>) -> MemtableReader<'a> {
        let (rest, point) = match scan.target {
            ReadTarget::Partition(key) => (None, Some(key)),
            ReadTarget::Range(range) => (Some(range.clone()), None),
        };
        MemtableReader {
            memtable,
            scan,
            rest,
            point,
            current: None,
            buffer: VecDeque::new(),
        }
    }

    /// Buffers the beginning of the next partition; false at the end of the scan.
    fn start_partition(&mut self) -> bool {
        let key = match (self.point.take(), &mut self.rest) {
            (Some(key), _) => key.clone(),
            (None, Some(range)) => {
                let key = self
                    .memtable
                    .key_after(&range.start)
                    .filter(|key| range.contains(key));
                let Some(key) = key else {
                    self.rest = None;
                    return false;
                };
                range.start = RingPosition::AfterKey(key.clone());
                key
            }
            (None, None) => return false,
        };
        let Some(partition) = self.memtable.partition(&key) else {
            return false;
        };
        self.buffer
            .push_back(Fragment::PartitionStart(key.clone(), partition.deletion));
        if let Some(row) = &partition.static_row {
            self.buffer.push_back(Fragment::StaticRow((**row).clone()));
        }
        let mut current = Current {
            announced: partition.deletion,
            slices: slices_of(&self.scan, &key),
            key,
            done: 0,
            from: None,
            open: None,
            batch: BATCH_MIN,
        };
        let is_done = current.fill(&partition, self.scan.reversed, &mut self.buffer);
        drop(partition);
        self.current = (!is_done).then_some(current);
        true
    }

    fn continue_partition(&mut self) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let is_done = match self.memtable.partition(&current.key) {
            Some(partition) => current.fill(&partition, self.scan.reversed, &mut self.buffer),
            None => true,
        };
        self.current = (!is_done).then_some(current);
    }
}

impl FragmentSource for MemtableReader<'_> {
    fn step(&mut self) -> Result<Step> {
        loop {
            if let Some(fragment) = self.buffer.pop_front() {
                return Ok(Step::Fragment(fragment));
            }
            if self.current.is_some() {
                self.continue_partition();
            } else if !self.start_partition() {
                return Ok(Step::End);
            }
        }
    }

    fn load(&mut self) -> LocalFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn skip_partition(&mut self) {
        self.current = None;
        let end = self
            .buffer
            .iter()
            .position(|fragment| *fragment == Fragment::PartitionEnd);
        self.buffer.drain(..end.map_or(self.buffer.len(), |end| end + 1));
    }
}

impl Current<'_> {
    /// Buffers the next batch; true when the partition's end was buffered.
    fn fill(
        &mut self,
        partition: &MemtablePartition,
        reversed: bool,
        buffer: &mut VecDeque<Fragment>,
    ) -> bool {
        let mut left = self.batch;
        self.batch = (self.batch * 2).min(BATCH_MAX);
        while left > 0 {
            let at = if reversed {
                self.slices.len().checked_sub(self.done + 1)
            } else {
                Some(self.done)
            };
            let Some(slice) = at.and_then(|at| self.slices.get(at)) else {
                buffer.push_back(Fragment::PartitionEnd);
                return true;
            };
            let slice = match self.from.take() {
                Some(end) if reversed => Slice {
                    start: slice.start.clone(),
                    end,
                },
                Some(start) => Slice {
                    start,
                    end: slice.end.clone(),
                },
                None => slice.clone(),
            };
            left = if reversed {
                self.fill_reversed(partition, &slice, left, buffer)
            } else {
                self.fill_forward(partition, &slice, left, buffer)
            };
        }
        false
    }

    /// Buffers up to `left` rows; returns how many may still be buffered (more than 0: the slice is done).
    fn fill_forward(
        &mut self,
        partition: &MemtablePartition,
        slice: &Slice,
        left: usize,
        buffer: &mut VecDeque<Fragment>,
    ) -> usize {
        let rows = partition.rows.within(slice);
        if partition.range_tombstones.is_empty() && self.has_no_deletion(partition) {
            return self.fill_rows(rows, left, buffer, after_row);
        }
        let changes = changes_of(partition.range_tombstones.within(slice));
        self.interleave(partition, rows, changes, slice, (left, false), buffer)
    }

    fn fill_reversed(
        &mut self,
        partition: &MemtablePartition,
        slice: &Slice,
        left: usize,
        buffer: &mut VecDeque<Fragment>,
    ) -> usize {
        let rows = partition.rows.within(slice).rev();
        if partition.range_tombstones.is_empty() && self.has_no_deletion(partition) {
            return self.fill_rows(rows, left, buffer, before_row);
        }
        // What holds after a change in clustering order holds before it in reading order.
        let forward: Vec<_> = changes_of(partition.range_tombstones.within(slice)).collect();
        let before = std::iter::once(None).chain(forward.iter().map(|(_, deletion)| *deletion));
        let reversed: Vec<_> = forward
            .iter()
            .map(|(position, _)| position.clone())
            .zip(before)
            .collect();
        self.interleave(
            partition,
            rows,
            reversed.into_iter().rev(),
            slice,
            (left, true),
            buffer,
        )
    }

    /// Neither a range deletion is open nor has the partition been deleted since its start was announced.
    fn has_no_deletion(&self, partition: &MemtablePartition) -> bool {
        self.open.is_none() && partition.deletion == self.announced
    }

    fn fill_rows<'r>(
        &mut self,
        rows: impl Iterator<Item = (&'r ClusteringKey, &'r Row)>,
        mut left: usize,
        buffer: &mut VecDeque<Fragment>,
        cut: impl Fn(&ClusteringKey) -> Position,
    ) -> usize {
        for (key, row) in rows {
            buffer.push_back(Fragment::Row(key.clone(), row.clone()));
            left -= 1;
            if left == 0 {
                self.from = Some(cut(key));
                return 0;
            }
        }
        self.done += 1;
        left
    }

    fn interleave<'r>(
        &mut self,
        partition: &MemtablePartition,
        rows: impl Iterator<Item = (&'r ClusteringKey, &'r Row)>,
        changes: impl Iterator<Item = (Position, Option<Deletion>)>,
        slice: &Slice,
        (mut left, reversed): (usize, bool),
        buffer: &mut VecDeque<Fragment>,
    ) -> usize {
        // A deletion of the whole partition that came after its start was announced holds from here on.
        let late = partition
            .deletion
            .filter(|deletion| Some(*deletion) > self.announced);
        let (first, last) = if reversed {
            (&slice.end, &slice.start)
        } else {
            (&slice.start, &slice.end)
        };
        let mut changes = changes
            .map(|(position, deletion)| (position, deletion.max(late)))
            .peekable();
        if changes.peek().is_none_or(|(position, _)| position != first) {
            self.change(first, late, buffer);
        }
        for (key, row) in rows {
            let is_before = |position: &Position| {
                if reversed {
                    position.0 > key.0
                } else {
                    position.0 < key.0
                }
            };
            while let Some((position, deletion)) = changes.next_if(|(position, _)| is_before(position)) {
                self.change(&position, deletion, buffer);
            }
            buffer.push_back(Fragment::Row(key.clone(), row.clone()));
            left -= 1;
            if left == 0 {
                self.from = Some(if reversed { before_row(key) } else { after_row(key) });
                return 0;
            }
        }
        for (position, deletion) in changes.filter(|(position, _)| position != last) {
            self.change(&position, deletion, buffer);
        }
        self.done += 1;
        if self.next_first(reversed) != Some(last) {
            self.change(last, None, buffer);
        }
        left
    }

    /// Where the next slice begins, in reading order.
    fn next_first(&self, reversed: bool) -> Option<&Position> {
        if reversed {
            let at = self.slices.len().checked_sub(self.done + 1)?;
            self.slices.get(at).map(|slice| &slice.end)
        } else {
            self.slices.get(self.done).map(|slice| &slice.start)
        }
    }

    fn change(&mut self, position: &Position, deletion: Option<Deletion>, buffer: &mut VecDeque<Fragment>) {
        if self.open != deletion {
            self.open = deletion;
            buffer.push_back(Fragment::DeletionChange(position.clone(), deletion));
        }
    }
}
