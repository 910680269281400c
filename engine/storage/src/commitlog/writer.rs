//! Appending.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use ceto_env::{Env, Segment};
use ceto_model::Mutation;
use ceto_model::codec::put_mutation;

use super::ReplayPosition;
use super::format::{
    COMPRESSED, ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE, TOGETHER, compress_entry, entry_size, put_end,
    seal_entry,
};
use super::segments::{Closed, Spare};
use crate::error::{Error, Result};
use crate::options::CommitlogSync;
use crate::poison::Poison;
use crate::sstable::Compressor;
use crate::wait::Event;

/// Scratch space kept between appends, in bytes.
const SCRATCH_MAX: usize = 1 << 20;

/// One shard's commitlog.
pub(crate) struct Commitlog {
    pub(super) env: Rc<dyn Env>,
    pub(super) dir: PathBuf,
    pub(super) shard: u16,
    pub(super) shard_count: u16,
    pub(super) segment_size: u32,
    pub(super) mutation_max: usize,
    /// None: entries are stored as they are.
    pub(super) compressor: RefCell<Option<Compressor>>,
    pub(super) segments_max: usize,
    pub(super) mode: CommitlogSync,
    pub(super) poison: Poison,

    pub(super) active: RefCell<Option<Active>>,
    /// Behind the last entry, also while no segment is active.
    pub(super) end: Cell<ReplayPosition>,
    /// Full segments, oldest first.
    pub(super) closed: RefCell<VecDeque<Closed>>,
    /// Released segment files, oldest first.
    pub(super) free: RefCell<VecDeque<Closed>>,
    pub(super) spares: RefCell<VecDeque<Spare>>,
    pub(super) next_id: Cell<u64>,
    /// Id of the first segment made since start.
    pub(super) life: u64,
    /// Why there is no spare; None when one is just being made.
    pub(super) no_spare_because: RefCell<Option<Error>>,
    pub(super) spare_wanted: Event,
    /// A spare was made, or cannot be made.
    pub(super) spare_changed: Event,

    /// Everything before it is on the device.
    pub(super) synced: Cell<ReplayPosition>,
    pub(super) sync_wanted: Event,
    /// In periodic mode: the period is over, or somebody waits for a sync.
    pub(super) is_sync_asked: Cell<bool>,
    pub(super) sync_done: Event,
    pub(super) syncs: Cell<u64>,
    pub(super) sync_failures: Cell<u64>,
    pub(super) last_sync_failure: RefCell<Option<Error>>,
    pub(super) appends: Cell<u64>,
    pub(super) appended_bytes: Cell<u64>,

    pub(super) has_switched: Cell<bool>,
    pub(super) is_closed: Cell<bool>,
    pub(super) scratch: RefCell<Vec<u8>>,
    /// Where entries are compressed.
    pub(super) compressed: RefCell<Vec<u8>>,
    /// Bytes of entries' mutations before compression.
    pub(super) raw_bytes: Cell<u64>,
    /// Segments before it are not needed any more.
    pub(super) releasable: Cell<u64>,
    /// A write waits for a segment.
    pub(super) is_starved: Cell<bool>,
}

/// The segment that appends go to.
pub(super) struct Active {
    pub(super) id: u64,
    pub(super) segment: Rc<dyn Segment>,
    pub(super) size: u32,
    pub(super) offset: u32,
    pub(super) synced_through: u32,
}

impl Active {
    fn has_room(&self, needed: u32) -> bool {
        self.size - self.offset >= needed
    }

    /// It is time to have a next one.
    pub(super) fn is_half_full(&self) -> bool {
        self.offset >= self.size / 2
    }
}

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Appended {
    /// It stands here.
    At(ReplayPosition),
    /// Nothing was written: wait for a segment, then try again.
    NoRoom,
}

impl Commitlog {
    /// Encoded bytes of the largest mutation.
    pub(crate) fn mutation_max(&self) -> usize {
        self.mutation_max
    }

    /// Behind the last entry.
    pub(crate) fn end(&self) -> ReplayPosition {
        self.end.get()
    }

    /// Appends one entry: these mutations, of which a replay finds all or none. The kernel has it when this returns.
    pub(crate) fn append(&self, mutations: &[Mutation]) -> Result<Appended> {
        let entry = &mut *self.scratch.borrow_mut();
        entry.clear();
        entry.resize(ENTRY_HEADER_SIZE, 0);
        for mutation in mutations {
            put_mutation(entry, mutation);
        }
        let size = entry.len() - ENTRY_HEADER_SIZE;
        let max = match mutations {
            [_] => self.mutation_max(),
            // The bound is of one; several have to fit as well.
            _ => self.segment_size as usize / 2,
        };
        if size > max {
            entry.shrink_to(SCRATCH_MAX);
            return Err(Error::MutationTooLarge { size, max });
        }
        let is_compressed = match &mut *self.compressor.borrow_mut() {
            Some(compressor) => compress_entry(compressor, entry, &mut self.compressed.borrow_mut()),
            None => false,
        };
        let needed = entry_size(entry.len() - ENTRY_HEADER_SIZE) as u32;
        let mut active = self.active.borrow_mut();
        // More than once only when the small first segment is too small for this entry.
        while !active.as_ref().is_some_and(|active| active.has_room(needed)) {
            if !self.activate_spare(&mut active)? {
                return Ok(Appended::NoRoom);
            }
        }
        let active = active.as_mut().expect("a spare was activated");
        let was_half_full = active.is_half_full();
        let position = ReplayPosition {
            segment: active.id,
            offset: active.offset,
        };
        let flags =
            if is_compressed { COMPRESSED } else { 0 } | if mutations.len() > 1 { TOGETHER } else { 0 };
        seal_entry(entry, position, active.synced_through, flags);
        put_end(entry, (active.size - active.offset - needed) as usize);
        active.segment.write(u64::from(position.offset), entry);
        active.offset += needed;
        self.end.set(ReplayPosition {
            segment: active.id,
            offset: active.offset,
        });
        self.appends.set(self.appends.get() + 1);
        self.appended_bytes
            .set(self.appended_bytes.get() + u64::from(needed));
        self.raw_bytes.set(self.raw_bytes.get() + size as u64);
        if !was_half_full && active.is_half_full() {
            self.spare_wanted.notify();
        }
        entry.shrink_to(SCRATCH_MAX);
        self.compressed.borrow_mut().shrink_to(SCRATCH_MAX);
        Ok(Appended::At(position))
    }

    /// False when there is no spare yet; an error when there will be none.
    fn activate_spare(&self, active: &mut Option<Active>) -> Result<bool> {
        let Some(spare) = self.spares.borrow_mut().pop_front() else {
            self.is_starved.set(true);
            self.spare_wanted.notify();
            return match &*self.no_spare_because.borrow() {
                Some(error) => Err(error.clone()),
                None => Ok(false),
            };
        };
        if let Some(full) = active.take() {
            self.close_segment(full);
        }
        *active = Some(Active {
            id: spare.id,
            size: u32::try_from(spare.segment.size()).unwrap_or(u32::MAX),
            segment: spare.segment,
            offset: SEGMENT_HEADER_SIZE,
            synced_through: SEGMENT_HEADER_SIZE,
        });
        self.has_switched.set(true);
        self.spare_wanted.notify();
        Ok(true)
    }

    /// True once after each change of segments.
    pub(crate) fn take_segment_switch(&self) -> bool {
        self.has_switched.replace(false)
    }

    /// Completes when a try to append may end differently.
    pub(crate) fn room(&self) -> impl Future<Output = ()> + 'static {
        self.spare_changed.listen()
    }
}
