//! The read path of one shard.
//!
//! A read of one partition is tried without waiting first: when memtables and the row cache suffice, or no sstable can
//! have the partition, no future is made. Otherwise, and for ranges, memtables and a reader of cache and sstables are
//! merged, with the loads awaited. A read that bypasses the cache merges memtables and sstables.

use std::cell::Cell;

use ceto_model::read::{ReadCommand, ReadResult};
use ceto_model::{DecoratedKey, PartitionRange, ReadTarget};

use crate::cache::{CacheLookup, CacheReader, DiskSide, RestScan};
use crate::database::Database;
use crate::error::Result;
use crate::memtable::MemtableReader;
use crate::reader::{Answer, Flow, Fragment, FragmentSource, Merge, Scan, Step};
use crate::sstable::{Sstable, SstableReader};
use crate::table::{TableStore, View, add};
use crate::wait::Pace;

type Sources<'a> = Vec<Box<dyn FragmentSource + 'a>>;

impl Database {
    /// Reads, when everything needed is in memory; None when a disk read is needed ([`Database::read`] does it).
    pub fn try_read(&self, command: &ReadCommand) -> Option<Result<ReadResult>> {
        if command.index.is_some() {
            return None;
        }
        // Ranges may be long, and a long read must give way now and then.
        let ReadTarget::Partition(key) = &command.target else {
            return None;
        };
        let table = match self.table(command.table) {
            Ok(table) => table,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = table.check_readable() {
            return Some(Err(error));
        }
        let definition = table.definition();
        let mut answer = Answer::new(command, &definition);
        let view = table.view();
        let read = if view.sstables.is_empty()
            && view.is_at_rest()
            && view.active.answer(key, scan_of(command), &mut answer)
        {
            Ok(true)
        } else if uses_cache(&table, command) {
            read_cached(&table, &view, key, command, &mut answer)
        } else {
            read_uncached(&view, key, command, &mut answer)
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
        table.check_readable()?;
        // Without a permit of its own: the reads that it is made of take theirs.
        if let Some(search) = &command.index
            && let Some(result) = self.read_by_index(&table, search, command).await?
        {
            return Ok(result);
        }
        let permit = self.permits.acquire(self.env.tasks()).await?;
        add(&table.counters.reads, 1);
        let definition = table.definition().clone();
        let mut answer = Answer::new(command, &definition);
        let (disk_bytes, rest) = (Cell::new(0), RestScan::default());
        let mut source = {
            let sources = sources(&table, command, &disk_bytes, &rest, &mut answer);
            merged(sources, command.reversed)
        };
        let mut pace = Pace::default();
        let mut is_between_partitions = matches!(command.target, ReadTarget::Range(_));
        loop {
            let run = match is_between_partitions {
                true => source.run(None, &mut answer)?,
                false => None,
            };
            let turn = if let Some(flow) = run {
                if flow == Flow::Stop {
                    break;
                }
                self.env.tasks().yield_if_due()
            } else {
                match source.step()? {
                    Step::End => break,
                    Step::Load => source.load().await?,
                    Step::Fragment(fragment) => {
                        is_between_partitions = fragment == Fragment::PartitionEnd;
                        match answer.push(fragment) {
                            Flow::Continue => {}
                            Flow::NextPartition => {
                                source.skip_partition();
                                is_between_partitions = true;
                            }
                            Flow::Stop => break,
                        }
                    }
                }
                pace.step(self.env.tasks())
            };
            if !permit.hold(answer.memory()) && answer.cut_short() {
                permit.note_cut();
            }
            if let Some(turn) = turn {
                turn.await;
            }
        }
        drop(source);
        answer.work().disk_bytes = disk_bytes.get();
        Ok(answer.finish())
    }
}

fn uses_cache(table: &TableStore, command: &ReadCommand) -> bool {
    !command.bypass_cache && table.cache.is_used()
}

/// Reads a partition from memtables and cache; false when that does not do.
fn read_cached<'a>(
    table: &TableStore,
    view: &View,
    key: &DecoratedKey,
    command: &'a ReadCommand,
    answer: &mut Answer<'a>,
) -> Result<bool> {
    let scan = scan_of(command);
    let mut sources = Sources::new();
    add_memtables(view, key, scan, &mut sources);
    let is_missing = if sources.is_empty() {
        match table.cache.answer(key, scan, answer) {
            CacheLookup::Answered => {
                table.cache.note_hit();
                return Ok(true);
            }
            CacheLookup::Incomplete => return Ok(false),
            CacheLookup::Missing => true,
        }
    } else {
        !table.cache.contains(key)
    };
    if !is_missing {
        sources.push(Box::new(CacheReader::new(table.cache.clone(), scan, None)));
    } else if view.sstables.iter().any(|sstable| sstable.may_contain(key)) {
        return Ok(false);
    } else if view.is_at_rest() && view.active.answer(key, scan, answer) {
        return Ok(true);
    }
    pump_all(sources, command.reversed, answer)
}

/// Reads a partition from memtables and cached blocks; false when that does not do.
fn read_uncached<'a>(
    view: &View,
    key: &DecoratedKey,
    command: &'a ReadCommand,
    answer: &mut Answer<'a>,
) -> Result<bool> {
    let disk_bytes = Cell::new(0);
    let mut sources = Sources::new();
    let may_matter = |sstable: &&std::rc::Rc<Sstable>| {
        sstable.may_contain(key) && sstable.statistics.may_matter_to(&command.slices)
    };
    for sstable in view.sstables.iter().filter(may_matter) {
        answer.work().sstables += 1;
        sources.push(Box::new(SstableReader::new(
            sstable.clone(),
            scan_of(command),
            !command.bypass_cache,
            &disk_bytes,
        )));
    }
    if sources.is_empty() && view.is_at_rest() && view.active.answer(key, scan_of(command), answer) {
        return Ok(true);
    }
    add_memtables(view, key, scan_of(command), &mut sources);
    pump_all(sources, command.reversed, answer)
}

/// What a read that may wait is merged of.
fn sources<'a>(
    table: &TableStore,
    command: &'a ReadCommand,
    disk_bytes: &'a Cell<u64>,
    rest: &'a RestScan,
    answer: &mut Answer<'_>,
) -> Sources<'a> {
    let view = table.view();
    let scan = scan_of(command);
    let mut sources = Sources::new();
    let (sstables, is_small) = match &command.target {
        ReadTarget::Partition(key) => {
            add_memtables(&view, key, scan, &mut sources);
            // The row cache is told of more than the slices.
            let takes_all = uses_cache(table, command);
            let may_have = |sstable: &&std::rc::Rc<Sstable>| {
                sstable.may_contain(key) && (takes_all || sstable.statistics.may_matter_to(&command.slices))
            };
            (view.sstables.iter().filter(may_have).cloned().collect(), true)
        }
        ReadTarget::Range(range) => {
            for memtable in view.memtables() {
                sources.push(Box::new(MemtableReader::new(memtable.clone(), scan)));
            }
            // A scan of a large table would only push others' blocks and rows out.
            (
                sstables_of(&view, range),
                view.sstables.iter().all(|sstable| sstable.fits_cache()),
            )
        }
    };
    answer.work().sstables += sstables.len() as u32;
    let content = || {
        view.sstables
            .iter()
            .map(|sstable| sstable.statistics.raw_size)
            .sum()
    };
    let is_scan = matches!(command.target, ReadTarget::Range(_));
    let caches_blocks = !command.bypass_cache && is_small;
    if !uses_cache(table, command) {
        for sstable in sstables {
            let reader = SstableReader::new(sstable, scan, caches_blocks, disk_bytes);
            sources.push(Box::new(if command.bypass_cache {
                reader
            } else {
                reader.looking_in_cache()
            }));
        }
        return sources;
    }
    let disk = DiskSide {
        sstables,
        caches_blocks,
        fills: !is_scan || table.cache.takes_scans(content()),
        disk_bytes,
        rest,
    };
    sources.push(Box::new(CacheReader::new(table.cache.clone(), scan, Some(disk))));
    sources
}

fn scan_of(command: &ReadCommand) -> Scan<'_> {
    Scan {
        target: &command.target,
        slices: &command.slices,
        first_partition_slices: command.first_partition_slices.as_deref(),
        reversed: command.reversed,
    }
}

/// What all sources yield together.
fn merged(mut sources: Sources<'_>, reversed: bool) -> Box<dyn FragmentSource + '_> {
    match (sources.pop(), sources.is_empty()) {
        // One source is in normal form already.
        (Some(only), true) => only,
        (last, _) => {
            sources.extend(last);
            Box::new(Merge::new(sources, reversed))
        }
    }
}

/// Moves fragments from the merge of all sources to the answer; false when one must load.
fn pump_all(sources: Sources<'_>, reversed: bool, answer: &mut Answer<'_>) -> Result<bool> {
    pump(&mut *merged(sources, reversed), answer)
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

/// The memtables that hold the partition.
fn add_memtables<'a>(view: &View, key: &DecoratedKey, scan: Scan<'a>, sources: &mut Sources<'a>) {
    for memtable in view.memtables().filter(|memtable| memtable.contains(key)) {
        sources.push(Box::new(MemtableReader::new(memtable.clone(), scan)));
    }
}

/// The sstables that may hold something of a range.
fn sstables_of(view: &View, range: &PartitionRange) -> Vec<std::rc::Rc<Sstable>> {
    let (start, end) = (range.start.token(), range.end.token());
    let overlaps =
        |sstable: &&std::rc::Rc<Sstable>| sstable.first.token <= end && start <= sstable.last.token;
    view.sstables.iter().filter(overlaps).cloned().collect()
}
