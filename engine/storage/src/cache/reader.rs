//! Reading a table through the cache: from the cache while it knows, from the sstables from there on.
//!
//! A reader changes over at most once. What it reads from the sstables goes into the cache, if the table's phase is
//! still that in which the reader began. The sstables are those that were there then.

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::rc::Rc;

use ceto_env::LocalFuture;
use ceto_model::{DecoratedKey, Deletion, PartitionRange, Position, ReadTarget, RingPosition, Slice};

use super::fill::Filler;
use super::partition::CachedPartition;
use super::table::TableCache;
use super::walk::{Cursor, Met, Walked, walk};
use crate::error::Result;
use crate::reader::{Answer, Flow, Fragment, FragmentSource, Merge, Scan, Step, slices_of};
use crate::sstable::{Sstable, SstableReader};

/// Places taken at first.
const BATCH_MIN: usize = 32;
/// Places taken at most at once.
const BATCH_MAX: usize = 512;
/// Partitions of a range taken in one go, at first (a read may want few) and at most.
const RUN_MIN: usize = 8;
const RUN_MAX: usize = 64;

/// Where a reader goes when the cache does not know.
pub(crate) struct DiskSide<'a> {
    /// All that may hold something of the scan's target, as of the reader's beginning.
    pub(crate) sstables: Vec<Rc<Sstable>>,
    /// Blocks read are kept in the block cache.
    pub(crate) caches_blocks: bool,
    /// What is read is kept in the row cache.
    pub(crate) fills: bool,
    /// Counts the bytes read.
    pub(crate) disk_bytes: &'a Cell<u64>,
    /// Room for what is left of the scan.
    pub(crate) rest: &'a RestScan,
}

/// What is left of a scan, kept for as long as the reader lives.
#[derive(Default)]
pub(crate) struct RestScan(OnceCell<Rest>);

struct Rest {
    target: ReadTarget,
    slices: Vec<Slice>,
    first_partition_slices: Option<Vec<Slice>>,
}

/// A scan of what a table has on disk.
pub(crate) struct CacheReader<'a> {
    table: Rc<TableCache>,
    phase: u64,
    scan: Scan<'a>,
    disk: Option<DiskSide<'a>>,
    state: State<'a>,
    buffer: VecDeque<Fragment>,
}

enum State<'a> {
    Cached(Cached<'a>),
    Disk(Box<Disk<'a>>),
    /// The sstables are needed, and were not given.
    NeedsDisk,
    End,
}

/// In the cache.
struct Cached<'a> {
    /// Where a range scan goes on.
    ring: Option<RingPosition>,
    /// Partitions to take in one go next.
    run: usize,
    current: Option<Current<'a>>,
    /// It has told something.
    has_told: bool,
}

/// A partition whose end has not been buffered yet.
struct Current<'a> {
    partition: Rc<CachedPartition>,
    slices: &'a [Slice],
    cursor: Cursor,
    batch: usize,
}

/// In the sstables.
struct Disk<'a> {
    source: Box<dyn FragmentSource + 'a>,
    filler: Option<Filler<'a>>,
    /// The partition in the midst of which the reader changed over.
    joint: Option<Joint>,
}

/// Where cache and sstables meet inside a partition.
struct Joint {
    key: DecoratedKey,
    at: Position,
    /// The range deletion that the cache announced last.
    open: Option<Deletion>,
    /// The sstables have begun the partition.
    has_begun: bool,
    /// The rest of the partition is not wanted.
    is_skipped: bool,
}

impl<'a> CacheReader<'a> {
    /// Scans `table`. Without a disk side it ends in [`Step::Load`] where the cache does not know.
    pub(crate) fn new(table: Rc<TableCache>, scan: Scan<'a>, disk: Option<DiskSide<'a>>) -> CacheReader<'a> {
        let ring = TableCache::range_of(&scan).map(|range| range.start.clone());
        CacheReader {
            phase: table.phase(),
            table,
            scan,
            disk,
            state: State::Cached(Cached {
                ring,
                run: RUN_MIN,
                current: None,
                has_told: false,
            }),
            buffer: VecDeque::new(),
        }
    }

    fn is_cache_valid(&self) -> bool {
        self.table.phase() == self.phase && self.table.is_used()
    }

    /// Buffers more from the cache, or leaves it.
    fn go_on_in_cache(&mut self) {
        let is_valid = self.is_cache_valid();
        let State::Cached(cached) = &mut self.state else {
            return;
        };
        if let Some(current) = &mut cached.current {
            match current.fill(is_valid, self.scan.reversed, &mut self.buffer) {
                Walked::Paused => {}
                Walked::Through => {
                    self.buffer.push_back(Fragment::PartitionEnd);
                    self.end_partition_in_cache();
                }
                Walked::Gap => self.leave_cache(),
            }
            return;
        }
        match (self.scan.target, &mut cached.ring) {
            (ReadTarget::Partition(key), _) => {
                let found = self.table.partition(key).filter(|_| is_valid);
                match found {
                    Some(partition) if partition.is_absent() => self.end_in_cache(),
                    Some(partition) => self.begin(partition),
                    None => self.leave_cache(),
                }
            }
            (ReadTarget::Range(range), Some(ring)) => {
                match next_in_ring(&self.table, range, ring, is_valid) {
                    NextInRing::Partition(partition) => self.begin(partition),
                    NextInRing::End => self.end_in_cache(),
                    NextInRing::Unknown => self.leave_cache(),
                }
            }
            (ReadTarget::Range(_), None) => self.state = State::End,
        }
    }

    fn end_partition_in_cache(&mut self) {
        match &mut self.state {
            State::Cached(Cached { ring: None, .. }) => self.end_in_cache(),
            State::Cached(cached) => cached.current = None,
            _ => {}
        }
    }

    fn end_in_cache(&mut self) {
        self.table.cache.note_hit();
        self.state = State::End;
    }

    fn begin(&mut self, partition: Rc<CachedPartition>) {
        let State::Cached(cached) = &mut self.state else {
            return;
        };
        partition.note_use();
        let key = partition.key().clone();
        {
            let state = partition.state.borrow();
            self.buffer
                .push_back(Fragment::PartitionStart(key.clone(), state.deletion));
            if let Some(row) = &state.static_row {
                self.buffer.push_back(Fragment::StaticRow((**row).clone()));
            }
        }
        cached.has_told = true;
        cached.current = Some(Current {
            partition,
            slices: slices_of(&self.scan, &key),
            cursor: Cursor::default(),
            batch: BATCH_MIN,
        });
        if let Some(ring) = &mut cached.ring {
            *ring = RingPosition::AfterKey(key);
        }
    }

    /// Goes on in the sstables.
    fn leave_cache(&mut self) {
        let State::Cached(cached) = std::mem::replace(&mut self.state, State::NeedsDisk) else {
            return;
        };
        let Some(disk) = &self.disk else { return };
        if disk.sstables.is_empty() && cached.current.is_none() {
            self.state = State::End;
            return;
        }
        self.table.cache.note_miss();
        let joint = cached
            .current
            .as_ref()
            .map(|current| current.joint(self.scan.reversed));
        let scan = rest_of(self.scan, &cached, disk.rest);
        let mut sources: Vec<Box<dyn FragmentSource + 'a>> = disk
            .sstables
            .iter()
            .map(|sstable| -> Box<dyn FragmentSource + 'a> {
                let (sstable, caches) = (sstable.clone(), disk.caches_blocks);
                Box::new(SstableReader::new(sstable, scan, caches, disk.disk_bytes).looking_in_cache())
            })
            .collect();
        let source = match (sources.pop(), sources.is_empty()) {
            // One source is in normal form already.
            (Some(only), true) => only,
            (last, _) => {
                sources.extend(last);
                Box::new(Merge::new(sources, scan.reversed))
            }
        };
        let fills = disk.fills
            && match self.scan.target {
                ReadTarget::Partition(key) => cached.current.is_some() || self.table.cache.admits(key),
                ReadTarget::Range(_) => true,
            };
        let filler = fills.then(|| Filler::new(self.table.clone(), self.phase, scan));
        self.state = State::Disk(Box::new(Disk {
            source,
            filler,
            joint,
        }));
    }

    /// Buffers the next fragment of the sstables; false when they must load first.
    fn go_on_in_disk(&mut self) -> Result<bool> {
        let State::Disk(disk) = &mut self.state else {
            return Ok(true);
        };
        match disk.source.step()? {
            Step::Load => return Ok(false),
            Step::Fragment(fragment) => disk.take(fragment, &mut self.buffer),
            Step::End => {
                disk.end_joint(&mut self.buffer);
                if let Some(filler) = &mut disk.filler {
                    filler.finish();
                }
                self.state = State::End;
            }
        }
        Ok(true)
    }
}

impl FragmentSource for CacheReader<'_> {
    fn step(&mut self) -> Result<Step> {
        loop {
            if let Some(fragment) = self.buffer.pop_front() {
                return Ok(Step::Fragment(fragment));
            }
            match &mut self.state {
                State::Cached(_) => self.go_on_in_cache(),
                // Most of what comes from the sstables is neither changed nor kept.
                State::Disk(disk) if disk.joint.is_none() && disk.filler.is_none() => {
                    let step = disk.source.step()?;
                    if matches!(step, Step::End) {
                        self.state = State::End;
                    }
                    return Ok(step);
                }
                State::Disk(_) => {
                    if !self.go_on_in_disk()? {
                        return Ok(Step::Load);
                    }
                }
                State::NeedsDisk => return Ok(Step::Load),
                State::End => return Ok(Step::End),
            }
        }
    }

    fn run(&mut self, before: Option<&DecoratedKey>, answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        let is_valid = self.is_cache_valid();
        match &mut self.state {
            State::Disk(disk) if self.buffer.is_empty() && disk.joint.is_none() && disk.filler.is_none() => {
                disk.source.run(before, answer)
            }
            State::Cached(Cached {
                ring: Some(ring),
                run,
                current: None,
                has_told,
            }) if is_valid && self.buffer.is_empty() => {
                let size = *run;
                *run = (size * 2).min(RUN_MAX);
                let flow = self.table.answer_run(&self.scan, ring, before, size, answer);
                *has_told |= flow.is_some();
                Ok(flow)
            }
            _ => Ok(None),
        }
    }

    fn hand_over(&mut self, key: &DecoratedKey, answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        match &mut self.state {
            State::Disk(disk) if self.buffer.is_empty() && disk.joint.is_none() && disk.filler.is_none() => {
                disk.source.hand_over(key, answer)
            }
            _ => Ok(None),
        }
    }

    fn load(&mut self) -> LocalFuture<'_, Result<()>> {
        match &mut self.state {
            State::Disk(disk) => disk.source.load(),
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn skip_partition(&mut self) {
        let end = self
            .buffer
            .iter()
            .position(|fragment| *fragment == Fragment::PartitionEnd);
        self.buffer.drain(..end.map_or(self.buffer.len(), |end| end + 1));
        if end.is_some() {
            return;
        }
        match &mut self.state {
            State::Cached(_) => self.end_partition_in_cache(),
            State::Disk(disk) => disk.skip_partition(),
            State::NeedsDisk | State::End => {}
        }
    }
}

impl Drop for CacheReader<'_> {
    fn drop(&mut self) {
        // The reader wanted no more than the cache knew.
        if let State::Cached(cached) = &self.state
            && cached.has_told
        {
            self.table.cache.note_hit();
        }
    }
}

impl Disk<'_> {
    fn take(&mut self, fragment: Fragment, buffer: &mut VecDeque<Fragment>) {
        if let Some(filler) = &mut self.filler {
            filler.take(&fragment);
        }
        let Some(joint) = &mut self.joint else {
            buffer.push_back(fragment);
            return;
        };
        match fragment {
            Fragment::PartitionStart(key, _) if !joint.has_begun && key == joint.key => {
                joint.has_begun = true;
                if joint.is_skipped {
                    self.joint = None;
                    self.skip_partition();
                }
            }
            Fragment::StaticRow(_) if joint.has_begun => {}
            Fragment::DeletionChange(position, deletion) if joint.has_begun && position == joint.at => {
                if deletion != joint.open {
                    buffer.push_back(Fragment::DeletionChange(position, deletion));
                }
                self.joint = None;
            }
            Fragment::PartitionEnd => self.end_joint(buffer),
            // The partition is no longer there: a compaction has purged it.
            Fragment::PartitionStart(..) => {
                self.end_joint(buffer);
                buffer.push_back(fragment);
            }
            other => {
                joint.close(buffer);
                self.joint = None;
                buffer.push_back(other);
            }
        }
    }

    /// The partition of the joint has nothing more.
    fn end_joint(&mut self, buffer: &mut VecDeque<Fragment>) {
        if let Some(joint) = self.joint.take()
            && !joint.is_skipped
        {
            joint.close(buffer);
            buffer.push_back(Fragment::PartitionEnd);
        }
    }

    fn skip_partition(&mut self) {
        match &mut self.joint {
            Some(joint) if !joint.has_begun => joint.is_skipped = true,
            _ => {
                self.joint = None;
                self.source.skip_partition();
                if let Some(filler) = &mut self.filler {
                    filler.skip();
                }
            }
        }
    }
}

impl Joint {
    /// Ends the range deletion that the cache announced.
    fn close(&self, buffer: &mut VecDeque<Fragment>) {
        if self.open.is_some() {
            buffer.push_back(Fragment::DeletionChange(self.at.clone(), None));
        }
    }
}

impl Current<'_> {
    fn fill(&mut self, is_valid: bool, reversed: bool, buffer: &mut VecDeque<Fragment>) -> Walked {
        let state = self.partition.state.borrow();
        if !is_valid || state.is_detached {
            return Walked::Gap;
        }
        let batch = self.batch;
        self.batch = (batch * 2).min(BATCH_MAX);
        walk(
            &state,
            self.slices,
            reversed,
            &mut self.cursor,
            batch,
            &mut |met| {
                buffer.push_back(match met {
                    Met::Row(key, row) => Fragment::Row(key.clone(), row.clone()),
                    Met::Change(position, deletion) => Fragment::DeletionChange(position, deletion),
                });
                true
            },
        )
    }

    fn rest(&self, reversed: bool) -> Vec<Slice> {
        self.cursor.rest(self.slices, reversed)
    }

    fn joint(&self, reversed: bool) -> Joint {
        let rest = self.rest(reversed);
        let next = if reversed {
            rest.last().map(|slice| slice.end.clone())
        } else {
            rest.first().map(|slice| slice.start.clone())
        };
        Joint {
            key: self.partition.key().clone(),
            at: next.unwrap_or_else(Position::after_all),
            open: self.cursor.open,
            has_begun: false,
            is_skipped: false,
        }
    }
}

enum NextInRing {
    Partition(Rc<CachedPartition>),
    End,
    Unknown,
}

/// The next partition of a range that is in the cache, with nothing on disk before it.
fn next_in_ring(
    table: &TableCache,
    range: &PartitionRange,
    ring: &mut RingPosition,
    is_valid: bool,
) -> NextInRing {
    loop {
        if *ring == range.end {
            return NextInRing::End;
        }
        let (next, is_known) = table.next(ring);
        if !is_known || !is_valid {
            return NextInRing::Unknown;
        }
        let Some(next) = next.filter(|next| range.end.cmp_key(next.key()).is_gt()) else {
            return NextInRing::End;
        };
        if next.is_bound() {
            *ring = RingPosition::BeforeToken(next.key().token);
            next.note_use();
        } else if next.is_absent() {
            *ring = RingPosition::AfterKey(next.key().clone());
            next.note_use();
        } else {
            return NextInRing::Partition(next);
        }
    }
}

/// The scan that reads what the cache has not told.
fn rest_of<'a>(scan: Scan<'a>, cached: &Cached<'a>, room: &'a RestScan) -> Scan<'a> {
    let (target, slices, first) = match (scan.target, &cached.current, &cached.ring) {
        (ReadTarget::Partition(_), None, _) => return scan,
        (ReadTarget::Partition(_), Some(current), _) => {
            (scan.target.clone(), current.rest(scan.reversed), None)
        }
        (ReadTarget::Range(range), _, Some(ring)) if *ring == range.start => return scan,
        (ReadTarget::Range(range), current, ring) => {
            let start = match (current, ring) {
                (Some(current), _) => RingPosition::BeforeKey(current.partition.key().clone()),
                (None, Some(ring)) => ring.clone(),
                (None, None) => range.start.clone(),
            };
            let end = range.end.clone();
            let first = current.as_ref().map(|current| current.rest(scan.reversed));
            (
                ReadTarget::Range(PartitionRange { start, end }),
                scan.slices.to_vec(),
                first,
            )
        }
    };
    let rest = room.0.get_or_init(|| Rest {
        target,
        slices,
        first_partition_slices: first,
    });
    Scan {
        target: &rest.target,
        slices: &rest.slices,
        first_partition_slices: rest.first_partition_slices.as_deref(),
        reversed: scan.reversed,
    }
}
