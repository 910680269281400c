//! The life of segment files: spare, active, closed, free, and spare again.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ceto_env::{Env, Segment, TaskQueue};

use super::format::SegmentHeader;
use super::replay::{SegmentFile, free_file_name, segment_file_name};
use super::writer::{Active, Commitlog};
use super::{ReplayPosition, SegmentFiles};
use crate::error::Result;
use crate::options::StorageOptions;
use crate::poison::Poison;
use crate::sstable::{Codec, Compressor};
use crate::wait::Event;

/// Segments made ahead.
const SPARES: usize = 1;
/// Released segment files kept for the next spares; more are removed.
const FREE_MAX: usize = 2;
/// Bytes of the first segment after a start, at most.
const FIRST_SEGMENT_MAX: u32 = 1 << 20;
/// Time between tries to make a segment on a full disk.
const RETRY: Duration = Duration::from_millis(500);

/// A segment that waits to become active.
pub(super) struct Spare {
    pub(super) id: u64,
    pub(super) segment: Rc<dyn Segment>,
}

/// A segment that takes no more entries.
pub(super) struct Closed {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Until it is synced.
    pub(super) segment: Option<Rc<dyn Segment>>,
}

/// Figures of a commitlog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommitlogStats {
    /// Segments that hold entries.
    pub segments: u64,
    /// Bytes of all segment files, spare and free ones too.
    pub disk_bytes: u64,
    /// Entries appended since start.
    pub appends: u64,
    /// Bytes appended since start, as they are stored.
    pub appended_bytes: u64,
    /// Bytes of their mutations before compression.
    pub raw_bytes: u64,
    /// Syncs since start.
    pub syncs: u64,
    /// Bytes appended and not synced yet are behind this position.
    pub synced: ReplayPosition,
}

impl Commitlog {
    /// Opens the log of a shard. The segments it finds stay until they are released; new entries go to new ones, with
    /// ids from `first_segment` on at least.
    pub(crate) async fn open(
        env: Rc<dyn Env>,
        options: &StorageOptions,
        first_segment: u64,
        poison: Poison,
    ) -> Result<(Rc<Commitlog>, Vec<SegmentFile>)> {
        let disk = env.disk();
        let found = SegmentFiles::list(&*disk, &options.commitlog_dir).await?;
        let last_id = found.last_id();
        let own = |files: Vec<SegmentFile>| -> Vec<SegmentFile> {
            files
                .into_iter()
                .filter(|file| file.shard == options.shard)
                .collect()
        };
        for (_, path) in found
            .temporary
            .iter()
            .filter(|(shard, _)| *shard == options.shard)
        {
            disk.remove_file(path).await?;
        }
        let (files, free) = (own(found.segments), own(found.free));
        let end = ReplayPosition {
            segment: last_id,
            offset: u32::MAX,
        };
        // Ids follow the clock, so that they grow even when somebody empties the folder.
        let next_id = u64::try_from(env.clock().unix_micros())
            .unwrap_or(0)
            .max(last_id + 1)
            .max(first_segment);
        let log = Rc::new(Commitlog {
            dir: options.commitlog_dir.clone(),
            shard: options.shard,
            shard_count: options.shard_count,
            segment_size: options.commitlog_segment_size,
            mutation_max: options.mutation_max(),
            compressor: RefCell::new(compressor_of(options)),
            segments_max: options.segments_max(),
            mode: options.commitlog_sync,
            poison,
            active: RefCell::default(),
            end: Cell::new(end),
            closed: RefCell::new(files.iter().map(Closed::of_file).collect()),
            free: RefCell::new(free.iter().map(Closed::of_file).collect()),
            spares: RefCell::default(),
            next_id: Cell::new(next_id),
            life: next_id,
            no_spare_because: RefCell::default(),
            spare_wanted: Event::default(),
            spare_changed: Event::default(),
            synced: Cell::new(end),
            sync_wanted: Event::default(),
            is_sync_asked: Cell::default(),
            sync_done: Event::default(),
            syncs: Cell::default(),
            sync_failures: Cell::default(),
            last_sync_failure: RefCell::default(),
            appends: Cell::default(),
            appended_bytes: Cell::default(),
            has_switched: Cell::default(),
            is_closed: Cell::default(),
            scratch: RefCell::default(),
            compressed: RefCell::default(),
            raw_bytes: Cell::default(),
            is_starved: Cell::default(),
            releasable: Cell::default(),
            env,
        });
        let (id, path) = log.next_path();
        match log
            .create(id, &path, log.segment_size.min(FIRST_SEGMENT_MAX))
            .await
        {
            // There may be a segment to recycle.
            Err(error) if error.is_disk_full() => log.make_spare().await.map(|_| ())?,
            created => created?,
        }
        log.start();
        Ok((log, files))
    }

    fn start(self: &Rc<Self>) {
        let tasks = self.env.tasks();
        let (spares, syncs) = (self.clone(), self.clone());
        tasks.spawn(
            TaskQueue::Maintenance,
            Box::pin(async move { spares.keep_spares().await }),
        );
        tasks.spawn(
            TaskQueue::Statement,
            Box::pin(async move { syncs.keep_synced().await }),
        );
    }

    /// Ends the tasks.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        self.spare_wanted.notify();
        self.sync_wanted.notify();
    }

    async fn keep_spares(&self) {
        while !self.is_closed.get() {
            let wanted = self.spare_wanted.listen();
            match self.make_spare().await {
                Ok(true) => {}
                Ok(false) if self.no_spare_because.borrow().is_some() => {
                    self.env.tasks().sleep(RETRY).await;
                }
                Ok(false) => wanted.await,
                Err(error) => {
                    let goes_on = self.poison.note_commit_failure(&error);
                    *self.no_spare_because.borrow_mut() = Some(error);
                    self.spare_changed.notify();
                    if !goes_on {
                        return;
                    }
                    self.env.tasks().sleep(RETRY).await;
                }
            }
        }
    }

    /// Does one step towards the wanted number of spare and free segments. False when there is nothing to do, or
    /// when the disk is full.
    async fn make_spare(&self) -> Result<bool> {
        if self.mark_free().await? {
            return Ok(true);
        }
        let needs_spare = self.needs_spare();
        let free = self.free.borrow_mut().pop_front();
        // What a start found comes on top of the segment that it makes itself.
        let has_room = self.segment_count() < self.segments_max;
        let result = match free {
            Some(free) if has_room && needs_spare && free.size == u64::from(self.segment_size) => {
                self.recycle(free).await.map(|()| true)
            }
            Some(free) if !has_room || needs_spare || self.free.borrow().len() >= FREE_MAX => {
                self.remove(free).await.map(|()| true)
            }
            Some(free) => {
                self.free.borrow_mut().push_front(free);
                return Ok(false);
            }
            None if needs_spare && has_room => {
                let (id, path) = self.next_path();
                self.create(id, &path, self.segment_size).await.map(|()| true)
            }
            None => return Ok(false),
        };
        let failure = match result {
            Err(error) if error.is_disk_full() => Some(error),
            other => {
                *self.no_spare_because.borrow_mut() = None;
                self.spare_changed.notify();
                return other;
            }
        };
        if self.no_spare_because.borrow().is_none() {
            tracing::error!(
                "cannot make a commitlog segment: {}",
                failure.as_ref().expect("just matched")
            );
        }
        *self.no_spare_because.borrow_mut() = failure;
        self.spare_changed.notify();
        Ok(false)
    }

    /// Fails when a write has found no room and there will be none: the disk is full, or has failed.
    pub(crate) fn check_room(&self) -> Result<()> {
        match &*self.no_spare_because.borrow() {
            Some(error) if self.is_starved.get() => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The next segment is made when the active one is half full: a start and an idle shard do without it.
    fn needs_spare(&self) -> bool {
        let is_due = || match &*self.active.borrow() {
            None => true,
            Some(active) => active.is_half_full() || self.is_starved.get(),
        };
        self.spares.borrow().len() < SPARES && is_due()
    }

    fn next_path(&self) -> (u64, PathBuf) {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        (id, self.dir.join(segment_file_name(self.shard, id)))
    }

    async fn create(&self, id: u64, path: &Path, size: u32) -> Result<()> {
        let disk = self.env.disk();
        let segment = disk.create_segment(path, u64::from(size)).await?;
        self.add_spare(id, segment).await
    }

    async fn recycle(&self, mut old: Closed) -> Result<()> {
        let (id, path) = self.next_path();
        self.rename_free(&mut old).await?;
        let disk = self.env.disk();
        match disk
            .recycle_segment(&old.path, &path, u64::from(self.segment_size))
            .await
        {
            Ok(segment) => self.add_spare(id, segment).await,
            Err(error) => {
                self.free.borrow_mut().push_front(old);
                Err(error.into())
            }
        }
    }

    /// Gives a released segment the name of one that holds nothing, so that no start replays it; false when all have it.
    pub(crate) async fn mark_free(&self) -> Result<bool> {
        let unmarked = |free: &Closed| free.path != self.free_path(free.id);
        let found = self.free.borrow().iter().position(unmarked);
        let taken = found.and_then(|at| self.free.borrow_mut().remove(at));
        let Some(mut free) = taken else {
            return Ok(false);
        };
        let renamed = self.rename_free(&mut free).await;
        self.free.borrow_mut().push_back(free);
        renamed.map(|()| true)
    }

    fn free_path(&self, id: u64) -> PathBuf {
        self.dir.join(free_file_name(self.shard, id))
    }

    async fn rename_free(&self, old: &mut Closed) -> Result<()> {
        let free = self.free_path(old.id);
        if old.path != free {
            let disk = self.env.disk();
            disk.rename(&old.path, &free).await?;
            old.path = free;
            disk.sync_dir(&self.dir).await?;
        }
        Ok(())
    }

    async fn add_spare(&self, id: u64, segment: Rc<dyn Segment>) -> Result<()> {
        let header = SegmentHeader {
            id,
            shard: self.shard,
            shard_count: self.shard_count,
            size: segment.size(),
            life: self.life,
        };
        segment.write(0, &header.encode());
        self.env.disk().sync_dir(&self.dir).await?;
        self.is_starved.set(false);
        self.spares.borrow_mut().push_back(Spare { id, segment });
        Ok(())
    }

    async fn remove(&self, old: Closed) -> Result<()> {
        let disk = self.env.disk();
        match disk.remove_file(&old.path).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        Ok(disk.sync_dir(&self.dir).await?)
    }

    pub(super) fn close_segment(&self, full: Active) {
        self.closed.borrow_mut().push_back(Closed {
            id: full.id,
            path: full.segment.path().to_path_buf(),
            size: full.segment.size(),
            segment: Some(full.segment),
        });
    }

    /// Releases the segments before `needed`: nothing in them is needed any more.
    pub(crate) fn release_before(&self, needed: u64) {
        let releasable = needed.min(self.end.get().segment);
        self.releasable.set(self.releasable.get().max(releasable));
        if !self.release_synced() {
            self.is_sync_asked.set(true);
            self.sync_wanted.notify();
        }
    }

    /// Releases what may go and is synced; false when something is not. An unsynced segment stays, though nothing of it
    /// is needed: later segments vouch for it, and torn by a power loss it would pass for a corrupt one.
    pub(super) fn release_synced(&self) -> bool {
        let mut closed = self.closed.borrow_mut();
        let mut is_any = false;
        let mut is_all = true;
        while let Some(oldest) = closed.front()
            && oldest.id < self.releasable.get()
        {
            if oldest.segment.is_some() {
                is_all = false;
                break;
            }
            self.free.borrow_mut().extend(closed.pop_front());
            is_any = true;
        }
        if is_any {
            self.spare_wanted.notify();
        }
        is_all
    }

    /// No segment before it is left that a start would replay.
    pub(crate) fn oldest_segment(&self) -> u64 {
        let closed = self.closed.borrow().front().map(|segment| segment.id);
        let free = self.free.borrow();
        let unmarked = free.iter().filter(|free| free.path != self.free_path(free.id));
        let released = unmarked.map(|free| free.id).min();
        let active = self.end.get().segment;
        closed.into_iter().chain(released).fold(active, u64::min)
    }

    /// Segments before it were written by earlier processes.
    pub(crate) fn first_own_segment(&self) -> u64 {
        self.life
    }

    /// When the log nears its size limit: the segment up to which tables should be flushed.
    pub(crate) fn pressure(&self) -> Option<u64> {
        let closed = self.closed.borrow();
        let used = closed.len() + SPARES + 1;
        if used * 4 < self.segments_max * 3 {
            return None;
        }
        closed.get(closed.len() / 2).map(|segment| segment.id)
    }

    fn segment_count(&self) -> usize {
        let active = usize::from(self.active.borrow().is_some());
        active + self.closed.borrow().len() + self.spares.borrow().len() + self.free.borrow().len()
    }

    /// Figures since start.
    pub(crate) fn stats(&self) -> CommitlogStats {
        let held: u64 = self.closed.borrow().iter().map(|segment| segment.size).sum();
        let free: u64 = self.free.borrow().iter().map(|segment| segment.size).sum();
        let active = u64::from(self.active.borrow().is_some());
        let active_bytes = self
            .active
            .borrow()
            .as_ref()
            .map_or(0, |active| active.segment.size());
        let spare: u64 = self
            .spares
            .borrow()
            .iter()
            .map(|spare| spare.segment.size())
            .sum();
        CommitlogStats {
            segments: active + self.closed.borrow().len() as u64,
            disk_bytes: held + free + active_bytes + spare,
            appends: self.appends.get(),
            appended_bytes: self.appended_bytes.get(),
            raw_bytes: self.raw_bytes.get(),
            syncs: self.syncs.get(),
            synced: self.synced.get(),
        }
    }
}

/// Entries have no dictionary: they are compressed before any table's is known.
fn compressor_of(options: &StorageOptions) -> Option<Compressor> {
    let compression = options.commitlog_compression;
    (compression.codec != Codec::None).then(|| Compressor::new(compression, None))
}

impl Closed {
    fn of_file(file: &SegmentFile) -> Closed {
        Closed {
            id: file.id,
            path: file.path.clone(),
            size: file.size,
            segment: None,
        }
    }
}
