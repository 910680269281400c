//! The read path of one shard.
//!
//! A read of one partition is tried without waiting first: when memtables, bloom filters, indexes and cached blocks
//! suffice, no future is made. Otherwise, and for ranges, the same sources are asked again with their loads awaited.

use std::cell::Cell;

use ceto_model::read::{ReadCommand, ReadResult};
use ceto_model::{DecoratedKey, PartitionRange, ReadTarget};

use crate::database::Database;
use crate::error::Result;
use crate::memtable::MemtableReader;
use crate::reader::{Answer, Flow, FragmentSource, Merge, Scan, Step};
use crate::sstable::{Sstable, SstableReader};
use crate::table::{View, add};

type Sources<'a> = Vec<Box<dyn FragmentSource + 'a>>;

impl Database {
    /// Reads, when everything needed is in memory; None when a disk read is needed ([`Database::read`] does it).
    pub fn try_read(&self, command: &ReadCommand) -> Option<Result<ReadResult>> {
        // Ranges may be long, and a long read must give way now and then.
        let ReadTarget::Partition(key) = &command.target else {
            return None;
        };
        let table = match self.table(command.table) {
            Ok(table) => table,
            Err(error) => return Some(Err(error)),
        };
        let definition = table.definition();
        let mut answer = Answer::new(command, &definition);
        let disk_bytes = Cell::new(0);
        let view = table.view();
        let scan = scan_of(command);
        let mut sources = sstable_sources(&view, key, command, &disk_bytes, &mut answer);
        let is_in_active = sources.is_empty() && view.flushing.is_empty();
        let read = if is_in_active && view.active.answer(key, scan, &mut answer) {
            Ok(true)
        } else {
            add_memtables(&view, key, scan, &mut sources);
            match (sources.pop(), sources.is_empty()) {
                // One source is in normal form already.
                (Some(mut only), true) => pump(&mut *only, &mut answer),
                (last, _) => {
                    sources.extend(last);
                    pump(&mut Merge::new(sources, command.reversed), &mut answer)
                }
            }
        };
        match read {
            Ok(true) => {
                add(&table.counters.reads, 1);
                Some(Ok(answer.finish()))
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads.
    pub async fn read(&self, command: &ReadCommand) -> Result<ReadResult> {
        if let Some(result) = self.try_read(command) {
            return result;
        }
        let table = self.table(command.table)?;
        add(&table.counters.reads, 1);
        let definition = table.definition().clone();
        let mut answer = Answer::new(command, &definition);
        let disk_bytes = Cell::new(0);
        let sources = match &command.target {
            ReadTarget::Partition(key) => {
                let view = table.view();
                let mut sources = sstable_sources(&view, key, command, &disk_bytes, &mut answer);
                add_memtables(&view, key, scan_of(command), &mut sources);
                sources
            }
            ReadTarget::Range(range) => {
                range_sources(&table.view(), range, command, &disk_bytes, &mut answer)
            }
        };
        let mut merge = Merge::new(sources, command.reversed);
        loop {
            match merge.step()? {
                Step::End => break,
                Step::Load => merge.load().await?,
                Step::Fragment(fragment) => match answer.push(fragment) {
                    Flow::Continue => {}
                    Flow::NextPartition => merge.skip_partition(),
                    Flow::Stop => break,
                },
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        drop(merge);
        answer.work().disk_bytes = disk_bytes.get();
        Ok(answer.finish())
    }
}

fn scan_of(command: &ReadCommand) -> Scan<'_> {
    Scan {
        target: &command.target,
        slices: &command.slices,
        first_partition_slices: command.first_partition_slices.as_deref(),
        reversed: command.reversed,
    }
}

/// Moves fragments from a source to the answer; false when the source must load.
fn pump(source: &mut dyn FragmentSource, answer: &mut Answer<'_>) -> Result<bool> {
    loop {
        match source.step()? {
            Step::End => return Ok(true),
            Step::Load => return Ok(false),
            Step::Fragment(fragment) => match answer.push(fragment) {
                Flow::Continue => {}
                Flow::NextPartition => source.skip_partition(),
                Flow::Stop => return Ok(true),
            },
        }
    }
}

/// The sstables that may hold the partition.
fn sstable_sources<'a>(
    view: &View,
    key: &DecoratedKey,
    command: &'a ReadCommand,
    disk_bytes: &'a Cell<u64>,
    answer: &mut Answer<'_>,
) -> Sources<'a> {
    let scan = scan_of(command);
    let mut sources = Sources::new();
    for sstable in view.sstables.iter().filter(|sstable| sstable.may_contain(key)) {
        answer.work().sstables += 1;
        let caches = !command.bypass_cache;
        sources.push(Box::new(SstableReader::new(
            sstable.clone(),
            scan,
            caches,
            disk_bytes,
        )));
    }
    sources
}

/// The memtables that hold the partition.
fn add_memtables<'a>(view: &View, key: &DecoratedKey, scan: Scan<'a>, sources: &mut Sources<'a>) {
    for memtable in view.memtables().filter(|memtable| memtable.contains(key)) {
        sources.push(Box::new(MemtableReader::new(memtable.clone(), scan)));
    }
}

fn range_sources<'a>(
    view: &View,
    range: &PartitionRange,
    command: &'a ReadCommand,
    disk_bytes: &'a Cell<u64>,
    answer: &mut Answer<'_>,
) -> Sources<'a> {
    let scan = scan_of(command);
    let mut sources = Sources::new();
    for memtable in view.memtables() {
        sources.push(Box::new(MemtableReader::new(memtable.clone(), scan)));
    }
    let (start, end) = (range.start.token(), range.end.token());
    let overlaps =
        |sstable: &&std::rc::Rc<Sstable>| sstable.first.token <= end && start <= sstable.last.token;
    for sstable in view.sstables.iter().filter(overlaps) {
        answer.work().sstables += 1;
        // A scan of a large table would only push others' blocks out.
        let caches = !command.bypass_cache && sstable.fits_cache();
        sources.push(Box::new(SstableReader::new(
            sstable.clone(),
            scan,
            caches,
            disk_bytes,
        )));
    }
    sources
}
