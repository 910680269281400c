//! An open sstable: what is kept of it in memory, and its removal.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use ceto_env::{Disk, Env, ReadFile, TaskQueue};
use ceto_model::{DecoratedKey, PartitionRange, ReadTarget, Slice};
use xxhash_rust::xxh3::Xxh3;

use super::block::{Block, BlockHeader, Memory, read_block};
use super::block_cache::{BlockCache, CacheKey, Cached};
use super::descriptor::{Component, Descriptor};
use super::dictionary::Dictionary;
use super::digest::{Digest, check_toc};
use super::filter::BloomFilter;
use super::head::{HEAD_SIZE, check_head};
use super::index::{FOOTER_SIZE, IndexPage, Location, PartitionIndex, Tail, read_page};
use super::reader::SstableReader;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::reader::{Fragment, FragmentSource, Scan, Step};

/// Largest small component (filter, statistics, digest, contents) that is read, in bytes.
pub(super) const COMPONENT_MAX: u64 = 1 << 32;
/// An sstable whose content is less than one part in this many of the block cache is small.
const SMALL_TABLE: u64 = 16;
/// Bytes read at a time when a whole file is checked.
const VERIFY_SIZE: usize = 1 << 20;
/// An index file up to this size is read as a whole when it is opened, in bytes; of a larger one its end.
const INDEX_END_SIZE: u64 = 64 << 10;
/// Index pages kept in memory are read together when no more than this many bytes lie between them.
const PAGE_GAP_MAX: u64 = 16 << 10;

/// What becomes of a block that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caching {
    Never,
    /// The cache keeps it when it has room or was asked for it before.
    Admitted,
    /// The cache keeps it.
    Always,
}

/// An immutable table on disk.
pub(crate) struct Sstable {
    pub(crate) descriptor: Descriptor,
    pub(crate) statistics: Statistics,
    pub(crate) index: PartitionIndex,
    pub(crate) first: DecoratedKey,
    pub(crate) last: DecoratedKey,
    filter: Option<BloomFilter>,
    dictionary: Option<Rc<Dictionary>>,
    data: Rc<dyn ReadFile>,
    index_file: Rc<dyn ReadFile>,
    /// Bytes of index pages that count against the shard's bound.
    pinned: usize,
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
        let toc = descriptor.path(Component::Toc);
        let digest = descriptor.path(Component::Digest);
        let disk = env.disk();
        let content = disk.read_file(&toc, COMPONENT_MAX).await?;
        let files = Digest::decode(&disk.read_file(&digest, COMPONENT_MAX).await?, &digest)?;
        check_toc(&content, &files, &toc)?;
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
        let dictionary = match digest.get(Component::Dictionary) {
            Some(_) => {
                let path = descriptor.path(Component::Dictionary);
                let bytes = disk.read_file(&path, COMPONENT_MAX).await?;
                Some(Rc::new(Dictionary::decode(&bytes, &path)?))
            }
            None => None,
        };
        let index_file = disk.open(&descriptor.path(Component::Index)).await?;
        let data = disk.open(&descriptor.path(Component::Data)).await?;
        for (component, file) in [(Component::Data, &data), (Component::Index, &index_file)] {
            if digest.get(component).map(|(size, _)| size) != Some(file.size()) {
                return Err(Error::corrupt(
                    file.path(),
                    file.size(),
                    "file size differs from the digest's",
                ));
            }
        }
        let head = data.read_at(0, HEAD_SIZE.min(data.size() as usize)).await?;
        check_head(Component::Data, &head, data.path())?;
        let pages = PartitionPages::open(index_file.clone()).await?;
        let (index, pinned) = pages.into_index(&cache).await?;
        Ok(Rc::new(Sstable {
            first: DecoratedKey::new(statistics.first_key.clone()),
            last: DecoratedKey::new(statistics.last_key.clone()),
            descriptor,
            statistics,
            index,
            filter,
            dictionary,
            data,
            index_file,
            pinned,
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

    /// Bytes of memory of its index and its dictionary.
    pub(crate) fn index_memory(&self) -> usize {
        let dictionary = self.dictionary.as_ref();
        self.index.memory() + dictionary.map_or(0, |dictionary| dictionary.memory())
    }

    /// What its blocks may be compressed with.
    pub(crate) fn dictionary(&self) -> Option<&Rc<Dictionary>> {
        self.dictionary.as_ref()
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
        self.index_file.path()
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

    /// Checks the block at the front of `bytes`, and keeps it in the cache as `caching` says.
    pub(crate) fn block(&self, bytes: &Bytes, offset: u64, caching: Caching) -> Result<Block> {
        let key = self.cache_key(false, offset);
        let keeps = match caching {
            Caching::Never => false,
            Caching::Admitted => {
                BlockHeader::read(bytes).is_ok_and(|header| self.cache.admits(key, header.raw_length))
            }
            Caching::Always => true,
        };
        let memory = if keeps { Memory::Own } else { Memory::Shared };
        let block = read_block(bytes, offset, self.dictionary.as_deref(), memory)
            .map_err(|what| Error::corrupt(self.data.path(), offset, what))?;
        if keeps {
            self.cache.insert(key, Cached::Block(block.clone()));
        }
        Ok(block)
    }

    /// Reads a page of Index, and keeps it in the cache.
    pub(crate) async fn read_page(&self, location: Location, caches: bool) -> Result<Bytes> {
        let content = read_page_at(&*self.index_file, location).await?;
        if caches {
            self.cache.insert(
                self.cache_key(true, location.offset),
                Cached::Page(content.clone()),
            );
        }
        Ok(content)
    }

    /// A partition page of Index, which is not kept in the cache.
    pub(super) async fn index_page(&self, location: Location) -> Result<IndexPage> {
        let content = self.read_page(location, false).await?;
        IndexPage::new(content, location.offset, self.index_path())
    }

    /// The disk that it lies on.
    pub(super) fn disk(&self) -> Rc<dyn Disk> {
        self.env.disk()
    }

    /// Decodes every partition and every page of the index, and compares all files with the digest.
    pub(crate) async fn verify(self: &Rc<Self>) -> Result<()> {
        let path = self.descriptor.path(Component::Digest);
        let disk = self.env.disk();
        let digest = disk.read_file(&path, COMPONENT_MAX).await?;
        let digest = Digest::decode(&digest, &path)?;
        self.verify_partitions().await?;
        for component in digest.components() {
            let file = disk.open(&self.descriptor.path(component)).await?;
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
        self.cache.unpin(self.pinned);
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

/// An index file whose top has been read.
pub(crate) struct PartitionPages {
    pub(crate) index: PartitionIndex,
    file: Rc<dyn ReadFile>,
    /// The end of the file, from an offset on.
    end: (u64, Bytes),
    top_offset: u64,
}

impl PartitionPages {
    /// Reads the top.
    pub(crate) async fn open(file: Rc<dyn ReadFile>) -> Result<PartitionPages> {
        let size = file.size();
        let start = size.saturating_sub(INDEX_END_SIZE.max(FOOTER_SIZE as u64));
        let end = file.read_at(start, (size - start) as usize).await?;
        let head = match start {
            0 => end.slice(..HEAD_SIZE.min(end.len())),
            _ => file.read_at(0, HEAD_SIZE).await?,
        };
        check_head(Component::Index, &head, file.path())?;
        let footer = &end[end.len().saturating_sub(FOOTER_SIZE)..];
        let tail = Tail::read(footer, size, file.path())?;
        let mut pages = PartitionPages {
            index: PartitionIndex::default(),
            top_offset: tail.offset,
            end: (start, end),
            file,
        };
        let top = pages.read(tail.offset, tail.length).await?;
        pages.index = PartitionIndex::read(&top, &tail, pages.file.path())?;
        Ok(pages)
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Bytes of the file; those of its end without a read.
    async fn read(&self, offset: u64, length: u64) -> Result<Bytes> {
        let (start, end) = &self.end;
        match offset.checked_sub(*start) {
            Some(at) => Ok(end.slice(at as usize..(at + length) as usize)),
            None => Ok(self.file.read_at(offset, length as usize).await?),
        }
    }

    /// The content of a page.
    pub(crate) async fn page(&self, location: Location) -> Result<Bytes> {
        read_page_at(&*self.file, location).await
    }

    /// All partition pages.
    async fn all(&self) -> Result<Vec<IndexPage>> {
        let mut pages = Vec::with_capacity(self.index.pages().len());
        for run in self
            .index
            .pages()
            .chunk_by(|a, b| b.offset.saturating_sub(a.end()) <= PAGE_GAP_MAX)
        {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            let content = self.read(first.offset, last.end() - first.offset).await?;
            for page in run {
                let at = (page.offset - first.offset) as usize;
                // A copy, so that what lies between pages is not kept.
                let bytes = Bytes::copy_from_slice(&content[at..at + page.length as usize]);
                let content = read_page(&bytes, page.offset, self.path())?;
                pages.push(IndexPage::new(content, page.offset, self.path())?);
            }
        }
        let entries: u64 = pages.iter().map(|page| page.len() as u64).sum();
        if entries != self.index.entries() {
            let what = format!("{entries} entries in the pages, not {}", self.index.entries());
            return Err(Error::corrupt(self.path(), self.top_offset, what));
        }
        Ok(pages)
    }

    /// The index, with its pages when they may be kept in memory; the bytes that count against the shard's bound.
    async fn into_index(mut self, cache: &BlockCache) -> Result<(PartitionIndex, usize)> {
        let pinned = self.index.pages_size();
        if !cache.pin(pinned) {
            return Ok((self.index, 0));
        }
        match self.all().await {
            Ok(pages) => {
                self.index.keep(pages);
                Ok((self.index, pinned))
            }
            Err(error) => {
                cache.unpin(pinned);
                Err(error)
            }
        }
    }
}

async fn read_page_at(file: &dyn ReadFile, location: Location) -> Result<Bytes> {
    if location.end() > file.size() {
        let what = "index page lies behind the file's end";
        return Err(Error::corrupt(file.path(), location.offset, what));
    }
    let page = file.read_at(location.offset, location.length as usize).await?;
    read_page(&page, location.offset, file.path())
}
