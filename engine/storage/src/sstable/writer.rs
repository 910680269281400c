//! Writing an sstable from a stream of fragments.
//!
//! [`SstableWriter::push`] takes fragments without waiting; when [`SstableWriter::is_full`] says so the caller awaits
//! [`SstableWriter::write_out`]. Nothing of it counts before the table of contents is written, last of all
//! ([`write_toc`]); what a crash leaves before that is removed at the next start.

use std::rc::Rc;

use bytes::Bytes;
use ceto_env::{Disk, WriteFile};
use ceto_model::key::BOUND_BEFORE;
use ceto_model::{ClusteringKey, DecoratedKey, Deletion, Row, TableId, Token};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::block::{BlockKind, write_block};
use super::collector::Collector;
use super::compression::{Codec, Compression, Compressor, RAW_BLOCK_MAX};
use super::descriptor::{Component, Descriptor};
use super::dictionary::Dictionary;
use super::digest::{Digest, toc};
use super::filter::BloomFilter;
use super::head::write_head;
use super::index::{Location, PartitionIndexBuilder, RowIndexBuilder, SummaryEntry};
use super::items::{ITEM_END, put_change_item, put_header, put_row_item};
use super::partition_limits::PartitionLimits;
use super::plain::{EncodedPartition, copy_items};
use super::row::{BASE_SIZE, TimeWriter};
use super::serialization_header::SerializationHeader;
use super::statistics::{Origin, Statistics};
use crate::commitlog::ReplayPosition;
use crate::error::{Error, Result};
use crate::reader::Fragment;
use crate::wait::join_all;

/// Bytes kept before they are handed to the disk.
const WRITE_SIZE: usize = 256 << 10;
/// Tokens added to the filter in one go: each has its line somewhere else in memory, and the processor fetches the lines of
/// several at a time when nothing is done between.
const FILTERED_AT_ONCE: usize = 64;

/// Partitions of one sstable that the log is told of.
const LOGGED_MAX: usize = 100;
/// Largest digest, in bytes.
const DIGEST_SIZE_MAX: u64 = 4 << 10;

/// How an sstable is to be written.
#[derive(Clone, Debug)]
pub(crate) struct WriterOptions {
    pub(crate) table: TableId,
    pub(crate) shard_count: u16,
    pub(crate) compression: Compression,
    pub(crate) bloom_filter_fp_chance: f64,
    /// Partitions that will come, at most, roughly.
    pub(crate) expected_partitions: u64,
    pub(crate) flushed_through: Option<ReplayPosition>,
    pub(crate) created_at: i64,
    pub(crate) level: u32,
    pub(crate) repaired_at: i64,
    pub(crate) pending_repair: Option<Uuid>,
    pub(crate) origin: Origin,
    pub(crate) run: Option<Uuid>,
    /// For blocks of [`Codec::ZstdDictionary`]; None: one is trained on the first part of the content.
    pub(crate) dictionary: Option<Rc<Dictionary>>,
    /// Names and types of the columns, when they are known.
    pub(crate) header: Option<Rc<SerializationHeader>>,
    /// What is logged of its partitions, when the columns are known.
    pub(crate) limits: Rc<PartitionLimits>,
}

impl WriterOptions {
    /// For an sstable of a table, with defaults for all that can have one.
    pub(crate) fn new(table: TableId) -> WriterOptions {
        WriterOptions {
            table,
            shard_count: 1,
            compression: Compression::default(),
            bloom_filter_fp_chance: 0.01,
            expected_partitions: 1,
            flushed_through: None,
            created_at: 0,
            level: 0,
            repaired_at: 0,
            pending_repair: None,
            origin: Origin::Unknown,
            run: None,
            dictionary: None,
            header: None,
            limits: Rc::default(),
        }
    }
}

/// An sstable being written.
pub(crate) struct SstableWriter {
    descriptor: Descriptor,
    options: WriterOptions,
    disk: Rc<dyn Disk>,
    data: Output,
    index: Output,
    /// Whole partitions, then the beginning of the current one.
    raw: Vec<u8>,
    /// Where partitions begin in `raw`, the current one not counted.
    offsets: Vec<u32>,
    /// Token of the first partition in `raw`, and whether the partition before it has the same.
    first_token: Option<(Token, bool)>,
    last_token: Option<Token>,
    current: Option<Current>,
    /// Key of the current partition, or of the last one.
    key: Vec<u8>,
    /// Where its last row or deletion change lies; empty before the first.
    last_place: Vec<u8>,
    partitions: PartitionIndexBuilder,
    filter: Option<BloomFilter>,
    /// Tokens that are not in the filter yet.
    filtered: Vec<Token>,
    collector: Collector,
    compressor: Compressor,
    /// Of the block being filled.
    times: TimeWriter,
    raw_size: u64,
    /// Fragments held back until a dictionary is trained on them.
    sample: Option<Sample>,
    /// Partitions that the log was told of.
    logged: usize,
}

/// The beginning of an sstable that a dictionary is to be trained on.
#[derive(Default)]
struct Sample {
    fragments: Vec<Fragment>,
    /// Their bytes, as blocks will have them.
    encoded: Vec<u8>,
    times: TimeWriter,
}

/// The partition being written.
struct Current {
    token: Token,
    deletion: Option<Deletion>,
    /// Where it begins in `raw`.
    start: usize,
    has_header: bool,
    open: Option<Deletion>,
    /// Once it has outgrown a block.
    large: Option<Large>,
    raw_size: u64,
}

struct Large {
    first_block: Location,
    previous_length: u32,
    /// Position of the first item of the block being filled.
    block_start: Option<Bytes>,
    index: RowIndexBuilder,
    /// The partition's header, for the root of the row index.
    header: Vec<u8>,
}

/// A component written front to back, with its checksum.
struct Output {
    file: Box<dyn WriteFile>,
    pending: Vec<u8>,
    /// Bytes handed to the file.
    written: u64,
    hash: Box<Xxh3>,
}

impl Output {
    async fn create(disk: &dyn Disk, descriptor: &Descriptor, component: Component) -> Result<Output> {
        Ok(Output {
            file: disk.create(&descriptor.path(component)).await?,
            pending: write_head(component).to_vec(),
            written: 0,
            hash: Box::new(Xxh3::new()),
        })
    }

    fn size(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    async fn write_out(&mut self) -> Result<()> {
        self.hash.update(&self.pending);
        self.file.append(&self.pending).await?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl SstableWriter {
    /// Creates the files.
    pub(crate) async fn create(
        disk: Rc<dyn Disk>,
        descriptor: Descriptor,
        options: WriterOptions,
    ) -> Result<Self> {
        let data = Output::create(&*disk, &descriptor, Component::Data).await?;
        let index = Output::create(&*disk, &descriptor, Component::Index).await?;
        let is_sampled = options.compression.codec == Codec::ZstdDictionary && options.dictionary.is_none();
        Ok(SstableWriter {
            compressor: Compressor::new(options.compression, options.dictionary.as_deref()),
            sample: is_sampled.then(Sample::default),
            filter: BloomFilter::new(options.expected_partitions, options.bloom_filter_fp_chance),
            filtered: Vec::with_capacity(FILTERED_AT_ONCE),
            descriptor,
            options,
            disk,
            data,
            index,
            raw: Vec::new(),
            offsets: Vec::new(),
            first_token: None,
            last_token: None,
            current: None,
            key: Vec::new(),
            last_place: Vec::new(),
            partitions: PartitionIndexBuilder::default(),
            collector: Collector::default(),
            times: TimeWriter::default(),
            raw_size: 0,
            logged: 0,
        })
    }

    /// Bytes of Data so far.
    pub(crate) fn size(&self) -> u64 {
        self.data.size()
    }

    /// Enough is buffered to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.data.pending.len() + self.index.pending.len() >= WRITE_SIZE
    }

    /// Hands what is buffered to the disk.
    pub(crate) async fn write_out(&mut self) -> Result<()> {
        if !self.data.pending.is_empty() {
            self.data.write_out().await?;
        }
        if !self.index.pending.is_empty() {
            self.index.write_out().await?;
        }
        Ok(())
    }

    /// Takes the next fragment of a stream in ring order.
    ///
    /// # Panics
    /// When the stream does not follow the grammar.
    pub(crate) fn push(&mut self, fragment: Fragment) -> Result<()> {
        let Some(sample) = &mut self.sample else {
            return self.write(fragment);
        };
        sample.add(fragment);
        if sample.encoded.len() >= self.options.compression.training.sample_size_max {
            return self.train();
        }
        Ok(())
    }

    /// Trains the dictionary on what was held back, and writes that.
    fn train(&mut self) -> Result<()> {
        let Some(sample) = self.sample.take() else {
            return Ok(());
        };
        let (compression, trained_at) = (self.options.compression, self.options.created_at);
        let dictionary = Dictionary::train(&sample.encoded, compression.training, trained_at);
        self.compressor = Compressor::new(compression, dictionary.as_ref());
        self.options.dictionary = dictionary.map(Rc::new);
        sample
            .fragments
            .into_iter()
            .try_for_each(|fragment| self.write(fragment))
    }

    fn write(&mut self, fragment: Fragment) -> Result<()> {
        match fragment {
            Fragment::PartitionStart(key, deletion) => {
                self.start_partition(&key, deletion);
                Ok(())
            }
            Fragment::StaticRow(row) => {
                self.collector.static_row(&row);
                self.write_header(Some(&row));
                Ok(())
            }
            Fragment::Row(key, row) => self.write_row(&key, &row),
            Fragment::DeletionChange(position, deletion) => {
                deletion
                    .iter()
                    .for_each(|deletion| self.collector.deletion(*deletion));
                self.write_header(None);
                self.start_item(&position.0);
                put_change_item(&mut self.times, &mut self.raw, &position.0, deletion);
                self.current().open = deletion;
                self.end_item()
            }
            Fragment::PartitionEnd => self.end_partition(),
        }
    }

    /// Takes a row, as [`SstableWriter::push`] does, leaving it where it is.
    pub(crate) fn push_row(&mut self, key: &ClusteringKey, row: &Row) -> Result<()> {
        if self.sample.is_some() {
            return self.push(Fragment::Row(key.clone(), row.clone()));
        }
        self.write_row(key, row)
    }

    fn write_row(&mut self, key: &ClusteringKey, row: &Row) -> Result<()> {
        self.collector.rows += 1;
        self.collector.row(row);
        self.write_header(None);
        self.start_item(&key.0);
        put_row_item(&mut self.times, &mut self.raw, (&key.0, row));
        self.end_item()
    }

    fn current(&mut self) -> &mut Current {
        self.current.as_mut().expect("fragments lie inside partitions")
    }

    /// Takes a partition's start, as [`SstableWriter::push`] does, leaving its key where it is.
    pub(crate) fn push_start(&mut self, key: &DecoratedKey, deletion: Option<Deletion>) -> Result<()> {
        if self.sample.is_some() {
            return self.push(Fragment::PartitionStart(key.clone(), deletion));
        }
        self.start_partition(key, deletion);
        Ok(())
    }

    /// Takes a whole partition as it lies in a block of another sstable. False: it must be pushed fragment by fragment,
    /// and nothing was written.
    pub(crate) fn push_encoded(&mut self, key: &DecoratedKey, encoded: EncodedPartition<'_>) -> Result<bool> {
        if self.sample.is_some() || encoded.items.len() > self.options.compression.chunk_length {
            return Ok(false);
        }
        let (start, times) = (self.raw.len(), self.times);
        put_header(&mut self.times, &mut self.raw, (&key.key.0, None, None));
        let copied = copy_items(encoded, &mut self.times, &mut self.raw);
        let fits = self.raw.len() - start < self.options.compression.chunk_length;
        let Some(copied) = copied.filter(|_| fits) else {
            self.raw.truncate(start);
            self.times = times;
            return Ok(false);
        };
        self.start_partition(key, None);
        let current = self.current();
        (current.start, current.has_header) = (start, true);
        self.collector.copied(&copied);
        self.last_place.extend_from_slice(copied.last);
        self.end_partition()?;
        Ok(true)
    }

    fn start_partition(&mut self, key: &DecoratedKey, deletion: Option<Deletion>) {
        assert!(self.current.is_none(), "a partition begins inside another");
        assert!(self.last_token <= Some(key.token), "partitions out of order");
        self.collector.start_partition(&key.key.0, deletion);
        self.key.clear();
        self.key.extend_from_slice(&key.key.0);
        self.last_place.clear();
        self.filtered.push(key.token);
        if self.filtered.len() == FILTERED_AT_ONCE {
            self.add_to_filter();
        }
        self.first_token
            .get_or_insert((key.token, self.last_token == Some(key.token)));
        self.current = Some(Current {
            token: key.token,
            deletion,
            start: self.raw.len(),
            has_header: false,
            open: None,
            large: None,
            raw_size: 0,
        });
    }

    fn write_header(&mut self, static_row: Option<&Row>) {
        let current = self.current.as_mut().expect("fragments lie inside partitions");
        if current.has_header {
            assert!(static_row.is_none(), "a static row behind others");
            return;
        }
        current.has_header = true;
        let header = (&self.key[..], current.deletion, static_row);
        put_header(&mut self.times, &mut self.raw, header);
    }

    fn add_to_filter(&mut self) {
        let tokens = self.filtered.drain(..);
        if let Some(filter) = &mut self.filter {
            tokens.for_each(|token| filter.add(token));
        }
    }

    /// Notes where a partition's content begins, and a block of a large partition.
    fn start_item(&mut self, place: &Bytes) {
        let current = self.current.as_mut().expect("fragments lie inside partitions");
        if self.last_place.is_empty() {
            self.collector.first_position(place);
        }
        self.last_place.clear();
        self.last_place.extend_from_slice(place);
        if let Some(large) = &mut current.large {
            large.block_start.get_or_insert_with(|| place.clone());
        }
    }

    fn end_item(&mut self) -> Result<()> {
        let chunk_length = self.options.compression.chunk_length;
        let current = self.current();
        let start = if current.large.is_some() { 0 } else { current.start };
        if self.raw.len() - start < chunk_length {
            return Ok(());
        }
        if start > 0 {
            self.cut_partitions_before_current();
        }
        self.cut_large_block()
    }

    fn end_partition(&mut self) -> Result<()> {
        self.write_header(None);
        self.raw.push(ITEM_END);
        let current = self.current();
        assert!(
            current.open.is_none(),
            "a partition ends with an open range deletion"
        );
        let (token, start, is_large) = (current.token, current.start, current.large.is_some());
        if is_large {
            self.cut_large_block()?;
            self.end_large();
        } else {
            self.offsets.push(start as u32);
        }
        let current = self.current.take().expect("checked above");
        let in_block = if is_large { 0 } else { self.raw.len() - start };
        let size = current.raw_size + in_block as u64;
        let last = (!self.last_place.is_empty()).then_some(&self.last_place[..]);
        let tombstones = self.collector.end_partition(size, last);
        if let Some(header) = self
            .options
            .header
            .as_deref()
            .filter(|_| self.logged < LOGGED_MAX)
            && self.options.limits.judge(header, &self.key, size, tombstones)
        {
            self.logged += 1;
        }
        self.last_token = Some(token);
        if self.raw.len() >= self.options.compression.chunk_length {
            self.cut_partitions();
            self.times = TimeWriter::default();
        }
        Ok(())
    }

    /// Writes the whole partitions in `raw`, and moves the beginning of the current one to its front; its times keep
    /// their base.
    fn cut_partitions_before_current(&mut self) {
        let current = self.current.as_mut().expect("called inside a partition");
        let start = std::mem::take(&mut current.start);
        let token = current.token;
        let rest = self.raw.split_off(start);
        self.cut_partitions();
        self.raw = rest;
        self.first_token = Some((token, self.last_token == Some(token)));
    }

    /// Writes the whole partitions in `raw`, which is then empty.
    fn cut_partitions(&mut self) {
        if self.offsets.is_empty() {
            return;
        }
        let count = self.offsets.len() as u32;
        self.offsets
            .iter()
            .for_each(|offset| self.raw.extend_from_slice(&offset.to_le_bytes()));
        self.raw.extend_from_slice(&count.to_le_bytes());
        let block = self.write_raw(BlockKind::Partitions, 0);
        self.offsets.clear();
        self.add_to_summary(block, None);
    }

    /// Writes `raw`, which holds a part of the current partition, as a block of it.
    fn cut_large_block(&mut self) -> Result<()> {
        if self.raw.len() > RAW_BLOCK_MAX - BASE_SIZE {
            let text = format!(
                "a row of {} bytes exceeds what an sstable can hold",
                self.raw.len()
            );
            return Err(Error::Layout(text.into()));
        }
        let raw_length = self.raw.len() as u64;
        let large = self.current().large.take();
        let (kind, previous_length) = match &large {
            None => (BlockKind::LargeFirst, 0),
            Some(large) => (BlockKind::LargeMore, large.previous_length),
        };
        let header = if large.is_none() {
            self.current_header()
        } else {
            Vec::new()
        };
        let block = self.write_raw(kind, previous_length);
        let base = self.index.written;
        let mut large = large.unwrap_or_else(|| Large {
            first_block: block,
            previous_length: 0,
            block_start: Some(Bytes::from_static(&[BOUND_BEFORE])),
            index: RowIndexBuilder::default(),
            header,
        });
        large.previous_length = block.length;
        if let Some(position) = large.block_start.take() {
            large.index.add(position, block, base, &mut self.index.pending);
        }
        // The next block begins with the deletion that is open here.
        let current = self.current.as_mut().expect("called inside a partition");
        self.times = TimeWriter::default();
        self.times.put_deletion_option(&mut self.raw, current.open);
        current.raw_size += raw_length;
        current.large = Some(large);
        Ok(())
    }

    /// The header of the current partition, whose beginning is at the front of `raw`, with its base before it.
    fn current_header(&self) -> Vec<u8> {
        let mut decoder = ceto_model::codec::Decoder::new(Bytes::copy_from_slice(&self.raw));
        let header = super::parse::header(&mut decoder, self.times.base())
            .expect("the writer's own bytes are well formed");
        let (mut times, mut bytes) = (TimeWriter::default(), vec![0; BASE_SIZE]);
        let header = (&header.key.0[..], header.deletion, header.static_row.as_ref());
        put_header(&mut times, &mut bytes, header);
        bytes[..BASE_SIZE].copy_from_slice(&times.base().encode());
        bytes
    }

    fn end_large(&mut self) {
        let current = self.current.as_mut().expect("called inside a partition");
        if let Some(large) = current.large.take() {
            let root = large
                .index
                .finish(&large.header, self.index.written, &mut self.index.pending);
            self.add_to_summary(large.first_block, Some(root));
        }
        self.raw.clear();
        self.times = TimeWriter::default();
    }

    fn add_to_summary(&mut self, data: Location, root: Option<Location>) {
        let (token, continues_token) = self.first_token.take().expect("a block holds a partition");
        let entry = SummaryEntry {
            token,
            data,
            root,
            continues_token,
        };
        let index = &mut self.index;
        self.partitions.add(entry, index.written, &mut index.pending);
    }

    fn write_raw(&mut self, kind: BlockKind, previous_length: u32) -> Location {
        let offset = self.data.size();
        self.raw.extend_from_slice(&self.times.base().encode());
        let (compressor, raw) = (&mut self.compressor, &self.raw);
        let length = write_block(
            compressor,
            (kind, raw),
            previous_length,
            offset,
            &mut self.data.pending,
        );
        self.raw_size += self.raw.len() as u64;
        self.raw.clear();
        Location { offset, length }
    }

    /// Writes all components but the table of contents, durably. None when no partition came: nothing is left then.
    pub(crate) async fn finish(mut self) -> Result<Option<Descriptor>> {
        self.train()?;
        if self.collector.partitions == 0 {
            self.abandon().await?;
            return Ok(None);
        }
        self.cut_partitions();
        self.add_to_filter();
        let index = &mut self.index;
        std::mem::take(&mut self.partitions).finish(index.written, &mut index.pending);
        self.write_out().await?;
        let mut digest = Digest::default();
        digest.add(Component::Data, self.data.written, self.data.hash.digest());
        digest.add(Component::Index, self.index.written, self.index.hash.digest());
        let statistics = self.statistics();
        let mut small = vec![(Component::Statistics, statistics.encode())];
        if let Some(mut filter) = self.filter.take() {
            filter.fit(self.options.expected_partitions, statistics.partitions);
            small.push((Component::Filter, filter.encode()));
        }
        if let Some(dictionary) = &self.options.dictionary {
            small.push((Component::Dictionary, dictionary.encode()));
        }
        small
            .iter()
            .for_each(|(component, content)| digest.add_content(*component, content));
        small.push((Component::Digest, digest.encode()));
        let SstableWriter {
            disk,
            descriptor,
            data,
            index,
            ..
        } = self;
        let finish = |file: Box<dyn WriteFile>| -> ceto_env::LocalFuture<'_, Result<()>> {
            Box::pin(async move { Ok(file.finish().await.map(|_| ())?) })
        };
        let mut writes = vec![finish(data.file), finish(index.file)];
        for (component, content) in small {
            let (disk, path) = (disk.clone(), descriptor.path(component));
            writes.push(Box::pin(async move {
                let mut file = disk.create(&path).await?;
                file.append(&content).await?;
                Ok(file.finish().await.map(|_| ())?)
            }));
        }
        join_all(writes).await?;
        disk.sync_dir(&descriptor.dir).await?;
        Ok(Some(descriptor))
    }

    fn statistics(&mut self) -> Statistics {
        let options = &self.options;
        let mut statistics = Statistics {
            table: options.table,
            shard: self.descriptor.shard,
            shard_count: options.shard_count,
            data_size: self.data.written,
            raw_size: self.raw_size,
            compression: options.compression,
            bloom_filter_fp_chance: options.bloom_filter_fp_chance,
            flushed_through: options.flushed_through,
            created_at: options.created_at,
            level: options.level,
            repaired_at: options.repaired_at,
            pending_repair: options.pending_repair,
            origin: options.origin,
            run: options.run,
            header: options.header.clone(),
            ..Statistics::default()
        };
        std::mem::take(&mut self.collector).fill(&self.key, &mut statistics);
        statistics
    }

    /// What it holds is not all that the sstables had which it is made from.
    pub(crate) fn forget_provenance(&mut self) {
        self.options.flushed_through = None;
        self.options.repaired_at = 0;
        self.options.pending_repair = None;
    }

    /// Gives up: removes the files.
    pub(crate) async fn abandon(self) -> Result<()> {
        let SstableWriter {
            disk,
            descriptor,
            data,
            index,
            ..
        } = self;
        drop((data, index));
        for component in Component::ALL {
            match disk.remove_file(&descriptor.path(component)).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes a finished sstable count.
pub(crate) async fn write_toc(disk: &dyn Disk, descriptor: &Descriptor) -> Result<()> {
    let path = descriptor.path(Component::Digest);
    let digest = Digest::decode(&disk.read_file(&path, DIGEST_SIZE_MAX).await?, &path)?;
    Ok(disk
        .write_file(&descriptor.path(Component::Toc), toc(&digest).as_bytes())
        .await?)
}

impl Sample {
    fn add(&mut self, fragment: Fragment) {
        let (times, out) = (&mut self.times, &mut self.encoded);
        match &fragment {
            Fragment::PartitionStart(key, deletion) => put_header(times, out, (&key.key.0, *deletion, None)),
            Fragment::StaticRow(row) => times.put_row(out, row),
            Fragment::Row(key, row) => put_row_item(times, out, (&key.0, row)),
            Fragment::DeletionChange(position, deletion) => {
                put_change_item(times, out, &position.0, *deletion);
            }
            Fragment::PartitionEnd => out.push(ITEM_END),
        }
        self.fragments.push(fragment);
    }
}
