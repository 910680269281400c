//! An open sstable: what is kept of it in memory, and its removal.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use ceto_env::{Disk, Env, ReadFile, TaskQueue};
use ceto_model::{DecoratedKey, PartitionRange, ReadTarget, Slice};
use xxhash_rust::xxh3::Xxh3;

use super::block::{Block, read_block};
use super::block_cache::{BlockCache, CacheKey, Cached};
use super::descriptor::{Component, Descriptor};
use super::digest::{Digest, check_toc};
use super::filter::BloomFilter;
use super::index::{FOOTER_SIZE, Location, Summary, read_page};
use super::reader::SstableReader;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::reader::{Fragment, FragmentSource, Scan, Step};

/// Largest small component (filter, statistics, digest, contents) that is read, in bytes.
const COMPONENT_MAX: u64 = 1 << 32;
/// An sstable whose content is less than one part in this many of the block cache is small.
const SMALL_TABLE: u64 = 16;
/// Bytes read at a time when a whole file is checked.
const VERIFY_SIZE: usize = 1 << 20;

/// An immutable table on disk.
pub(crate) struct Sstable {
    pub(crate) descriptor: Descriptor,
    pub(crate) statistics: Statistics,
    pub(crate) summary: Summary,
    pub(crate) first: DecoratedKey,
    pub(crate) last: DecoratedKey,
    filter: Option<BloomFilter>,
    data: Rc<dyn ReadFile>,
    index: Rc<dyn ReadFile>,
    id: u64,
    cache: Rc<BlockCache>,
    env: Rc<dyn Env>,
    /// Taken part in by a compaction.
    pub(crate) is_compacting: Cell<bool>,
    /// A compaction could not read it: it is left alone.
    pub(crate) is_suspect: Cell<bool>,
    true_positives: Cell<u64>,
    false_positives: Cell<u64>,
    /// What must outlive the files; set when they are to be removed with the last reader.
    removal: RefCell<Option<Rc<dyn std::any::Any>>>,
}

impl Sstable {
    /// Opens an sstable and checks all of it but Data's blocks and the row index, which are checked when read.
    pub(crate) async fn open(
        env: Rc<dyn Env>,
        descriptor: Descriptor,
        cache: Rc<BlockCache>,
    ) -> Result<Rc<Sstable>> {
        let path = descriptor.path(Component::Toc);
        check_toc(&env.disk().read_file(&path, COMPONENT_MAX).await?, &path)?;
        Sstable::open_uncommitted(env, descriptor, cache).await
    }

    /// Opens an sstable that has no table of contents yet.
    pub(crate) async fn open_uncommitted(
        env: Rc<dyn Env>,
        descriptor: Descriptor,
        cache: Rc<BlockCache>,
    ) -> Result<Rc<Sstable>> {
        let disk = env.disk();
        let read = async |component: Component| -> Result<Bytes> {
            Ok(disk.read_file(&descriptor.path(component), COMPONENT_MAX).await?)
        };
        let digest = Digest::decode(
            &read(Component::Digest).await?,
            &descriptor.path(Component::Digest),
        )?;
        let statistics = Statistics::decode(
            &read(Component::Statistics).await?,
            &descriptor.path(Component::Statistics),
        )?;
        let filter = read_filter(&*disk, &descriptor, &digest).await?;
        let index = disk.open(&descriptor.path(Component::Index)).await?;
        let summary = read_summary(&*index).await?;
        let data = disk.open(&descriptor.path(Component::Data)).await?;
        for (component, file) in [(Component::Data, &data), (Component::Index, &index)] {
            if digest.get(component).map(|(size, _)| size) != Some(file.size()) {
                return Err(Error::corrupt(
                    file.path(),
                    file.size(),
                    "file size differs from the digest's",
                ));
            }
        }
        Ok(Rc::new(Sstable {
            first: DecoratedKey::new(statistics.first_key.clone()),
            last: DecoratedKey::new(statistics.last_key.clone()),
            descriptor,
            statistics,
            summary,
            filter,
            data,
            index,
            // Unique among the sstables that this process opens: 64 random bits.
            id: env.random(),
            cache,
            env,
            is_compacting: Cell::new(false),
            is_suspect: Cell::new(false),
            true_positives: Cell::new(0),
            false_positives: Cell::new(0),
            removal: RefCell::default(),
        }))
    }

    /// What an sstable says about itself, without opening it.
    pub(crate) async fn read_statistics(disk: &dyn Disk, descriptor: &Descriptor) -> Result<Statistics> {
        let path = descriptor.path(Component::Statistics);
        Statistics::decode(&disk.read_file(&path, COMPONENT_MAX).await?, &path)
    }

    /// No compaction has it, and none failed to read it.
    pub(crate) fn may_be_compacted(&self) -> bool {
        !self.is_compacting.get() && !self.is_suspect.get()
    }

    /// `path` is one of its files.
    pub(crate) fn has_file(&self, path: &Path) -> bool {
        Component::ALL
            .into_iter()
            .any(|component| self.descriptor.path(component) == path)
    }

    /// False: has nothing of this partition.
    pub(crate) fn may_contain(&self, key: &DecoratedKey) -> bool {
        self.first.token <= key.token
            && key.token <= self.last.token
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.may_contain(key.token))
    }

    /// Counts an answer of the filter.
    pub(crate) fn note_lookup(&self, found: bool) {
        let counter = if found {
            &self.true_positives
        } else {
            &self.false_positives
        };
        counter.set(counter.get() + 1);
    }

    /// Lookups that found the partition, and those that the filter sent in vain.
    pub(crate) fn lookups(&self) -> (u64, u64) {
        (self.true_positives.get(), self.false_positives.get())
    }

    /// Bytes of memory of its index.
    pub(crate) fn index_memory(&self) -> usize {
        self.summary.memory()
    }

    /// Bytes of memory of its filter.
    pub(crate) fn filter_memory(&self) -> usize {
        self.filter.as_ref().map_or(0, BloomFilter::memory)
    }

    /// Path of Data.
    pub(crate) fn data_path(&self) -> &Path {
        self.data.path()
    }

    /// Path of Index.
    pub(crate) fn index_path(&self) -> &Path {
        self.index.path()
    }

    /// Bytes of Data.
    pub(crate) fn data_size(&self) -> u64 {
        self.data.size()
    }

    /// Small enough to be kept in the cache as a whole.
    pub(crate) fn fits_cache(&self) -> bool {
        self.statistics.raw_size <= self.cache.capacity() as u64 / SMALL_TABLE
    }

    /// A block of Data, when it is cached.
    pub(crate) fn cached_block(&self, offset: u64) -> Option<Block> {
        match self.cache.get(self.cache_key(false, offset)) {
            Some(Cached::Block(block)) => Some(block),
            _ => None,
        }
    }

    /// A page of Index, when it is cached.
    pub(crate) fn cached_page(&self, offset: u64) -> Option<Bytes> {
        match self.cache.get(self.cache_key(true, offset)) {
            Some(Cached::Page(page)) => Some(page),
            _ => None,
        }
    }

    fn cache_key(&self, is_index: bool, offset: u64) -> CacheKey {
        CacheKey {
            sstable: self.id,
            is_index,
            offset,
        }
    }

    /// Bytes of Data, unchecked.
    pub(crate) async fn read_data(&self, offset: u64, length: usize) -> Result<Bytes> {
        Ok(self.data.read_at(offset, length).await?)
    }

    /// Checks the block at the front of `bytes`, and keeps it in the cache.
    pub(crate) fn block(&self, bytes: &Bytes, offset: u64, caches: bool) -> Result<Block> {
        let block =
            read_block(bytes, offset).map_err(|what| Error::corrupt(self.data.path(), offset, what))?;
        if caches {
            // A block stored uncompressed is a slice of what was read, which may be much more.
            let mut kept = block.clone();
            if bytes.len() > block.length as usize {
                kept.raw = Bytes::copy_from_slice(&kept.raw);
            }
            self.cache
                .insert(self.cache_key(false, offset), Cached::Block(kept));
        }
        Ok(block)
    }

    /// Reads a page of Index, and keeps it in the cache.
    pub(crate) async fn read_page(&self, location: Location, caches: bool) -> Result<Bytes> {
        let page = self
            .index
            .read_at(location.offset, location.length as usize)
            .await?;
        let content = read_page(&page, location.offset, self.index.path())?;
        if caches {
            self.cache.insert(
                self.cache_key(true, location.offset),
                Cached::Page(content.clone()),
            );
        }
        Ok(content)
    }

    /// Compares Data and Index with the digest, and decodes every partition.
    pub(crate) async fn verify(self: &Rc<Self>) -> Result<()> {
        let path = self.descriptor.path(Component::Digest);
        let digest = self.env.disk().read_file(&path, COMPONENT_MAX).await?;
        let digest = Digest::decode(&digest, &path)?;
        self.verify_partitions().await?;
        for (component, file) in [(Component::Data, &self.data), (Component::Index, &self.index)] {
            let mut hash = Xxh3::new();
            let mut offset = 0;
            while offset < file.size() {
                let length = VERIFY_SIZE.min((file.size() - offset) as usize);
                hash.update(&file.read_at(offset, length).await?);
                offset += length as u64;
                if let Some(turn) = self.env.tasks().yield_if_due() {
                    turn.await;
                }
            }
            if digest.get(component) != Some((file.size(), hash.digest())) {
                return Err(Error::corrupt(file.path(), 0, "file differs from its digest"));
            }
        }
        Ok(())
    }

    /// Reads everything; the partitions must be as many as the statistics say.
    async fn verify_partitions(self: &Rc<Self>) -> Result<()> {
        let (target, slices) = (ReadTarget::Range(PartitionRange::full()), [Slice::full()]);
        let disk_bytes = Cell::new(0);
        let scan = Scan {
            target: &target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let mut reader = SstableReader::new(self.clone(), scan, false, &disk_bytes);
        let mut partitions = 0;
        loop {
            match reader.step()? {
                Step::End => break,
                Step::Load => reader.load().await?,
                Step::Fragment(Fragment::PartitionEnd) => partitions += 1,
                Step::Fragment(_) => {}
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        if partitions != self.statistics.partitions {
            let what = format!("{partitions} partitions, not {}", self.statistics.partitions);
            return Err(Error::corrupt(self.data.path(), 0, what));
        }
        Ok(())
    }

    /// The files are no longer part of the table: they are removed when the last reader is done. `until` is dropped
    /// after that.
    pub(crate) fn remove_when_unused(&self, until: Rc<dyn std::any::Any>) {
        *self.removal.borrow_mut() = Some(until);
    }
}

impl Drop for Sstable {
    fn drop(&mut self) {
        let Some(until) = self.removal.borrow_mut().take() else {
            return;
        };
        let (disk, descriptor) = (self.env.disk(), self.descriptor.clone());
        let removal = async move {
            if let Err(error) = remove_files(&*disk, &descriptor).await {
                tracing::warn!("cannot remove an sstable that is not needed any more: {error}");
                // Kept for the next start, which will try again.
                std::mem::forget(until);
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(removal));
    }
}

/// Removes all files of an sstable, durably; fine when some are missing.
pub(crate) async fn remove_files(disk: &dyn Disk, descriptor: &Descriptor) -> Result<()> {
    for component in Component::ALL.into_iter().rev() {
        match disk.remove_file(&descriptor.path(component)).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(disk.sync_dir(&descriptor.dir).await?)
}

/// A damaged filter costs reads, not answers: the sstable is used without.
async fn read_filter(
    disk: &dyn Disk,
    descriptor: &Descriptor,
    digest: &Digest,
) -> Result<Option<BloomFilter>> {
    if digest.get(Component::Filter).is_none() {
        return Ok(None);
    }
    let path = descriptor.path(Component::Filter);
    let bytes = match disk.read_file(&path, COMPONENT_MAX).await {
        Err(error) if error.is_not_found() => {
            tracing::warn!("{error}; reads go on without it");
            return Ok(None);
        }
        bytes => bytes?,
    };
    match BloomFilter::decode(&bytes, &path) {
        Ok(filter) => Ok(Some(filter)),
        Err(error) => {
            tracing::warn!("{error}; reads go on without it");
            Ok(None)
        }
    }
}

async fn read_summary(index: &dyn ReadFile) -> Result<Summary> {
    let size = index.size();
    let start = size.saturating_sub(FOOTER_SIZE as u64);
    let footer = index.read_at(start, (size - start) as usize).await?;
    let (offset, length) = Summary::locate(&footer, size, index.path())?;
    let bytes = index.read_at(offset, (size - offset) as usize).await?;
    debug_assert_eq!(bytes.len() as u64, length + FOOTER_SIZE as u64);
    Summary::decode(&bytes, offset, index.path())
}
