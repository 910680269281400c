//! Reading an sstable as a stream of fragments.
//!
//! Goes from entry to entry of the partition index. A block of small partitions is searched and taken partition by partition;
//! a large partition is entered through its row index and taken block by block, in either direction ([`large`]).

mod large;

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use ceto_env::LocalFuture;
use ceto_model::codec::{DecodeError, Decoder};
use ceto_model::{DecoratedKey, Position, ReadTarget, RingPosition, Slice, Token};

use super::block::{BLOCK_HEADER_SIZE, Block, BlockHeader, BlockKind};
use super::head::HEAD_SIZE;
use super::index::{Cursor, IndexPage, Location, SummaryEntry};
use super::items::Items;
use super::parse::{self, Partitions};
use super::plain::EncodedPartition;
use super::row::Base;
use super::table::{Caching, Sstable};
use crate::error::{Error, Result};
use crate::reader::{Answer, Flow, Fragment, FragmentSource, Scan, SliceFilter, Step, slices_of};

use large::Large;

/// Bytes read at once by a scan over many blocks: at first, so that a short page costs little, and at most.
const READ_AHEAD_MIN: usize = 32 << 10;
const READ_AHEAD_MAX: usize = 256 << 10;

/// A scan of an sstable.
pub(crate) struct SstableReader<'a> {
    sstable: Rc<Sstable>,
    scan: Scan<'a>,
    caches: bool,
    /// Blocks that are cached are taken from there.
    looks_in_cache: bool,
    /// Entry of the partition index to visit next.
    cursor: Cursor,
    /// Where the scan begins.
    start: Token,
    /// And where it ends, at the latest.
    end: Token,
    /// The partition page that was used last, by number.
    leaf: Option<(usize, IndexPage)>,
    place: Place<'a>,
    buffer: VecDeque<Fragment>,
    /// What `step` waits for.
    wanted: Option<Wanted>,
    /// The last block and page loaded, by offset.
    block: Option<(u64, Block)>,
    page: Option<(u64, Bytes)>,
    /// Bytes of Data read ahead, from an offset.
    ahead: (u64, Bytes),
    /// How much a scan reads next time.
    read_ahead: usize,
    /// The block taken last was not the first of its run: the one wanted now follows it in reading order.
    goes_on: bool,
    /// Counts the bytes read from disk.
    disk_bytes: &'a Cell<u64>,
    /// A lookup of one partition has found it, or has been counted as vain.
    is_lookup_noted: bool,
    /// Whole partitions are wanted, from their first row to the last.
    takes_all: bool,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// A block of Data; a length of 0 is not known.
    Block(Location),
    /// A page of Index.
    Page(Location),
}

enum Place<'a> {
    /// Before the entry at `cursor`.
    Entry,
    /// In a block of small partitions, before number `next`.
    Block {
        partitions: Partitions,
        next: usize,
        offset: u64,
        /// Of the partition whose start was told, all the rest: its place in the block, and what is wanted of it.
        rest: Option<(Range<usize>, &'a [Slice])>,
    },
    Large(Large<'a>),
    End,
}

impl<'a> SstableReader<'a> {
    /// Scans `sstable`; blocks read are kept in the cache when `caches`, their bytes added to `disk_bytes`.
    pub(crate) fn new(
        sstable: Rc<Sstable>,
        scan: Scan<'a>,
        caches: bool,
        disk_bytes: &'a Cell<u64>,
    ) -> SstableReader<'a> {
        let (start, end) = match scan.target {
            ReadTarget::Partition(key) => (key.token, key.token),
            ReadTarget::Range(range) => (range.start.token(), range.end.token()),
        };
        SstableReader {
            cursor: sstable.index.seek(start),
            start,
            end,
            leaf: None,
            sstable,
            scan,
            caches,
            looks_in_cache: caches,
            place: Place::Entry,
            buffer: VecDeque::new(),
            wanted: None,
            block: None,
            page: None,
            ahead: (0, Bytes::new()),
            read_ahead: READ_AHEAD_MIN,
            goes_on: false,
            disk_bytes,
            is_lookup_noted: false,
            takes_all: !scan.reversed
                && scan.slices == [Slice::full()]
                && scan.first_partition_slices.is_none(),
        }
    }

    /// Takes blocks from the cache although those read are not kept there: for a scan that would push out what others
    /// need.
    pub(crate) fn looking_in_cache(mut self) -> Self {
        self.looks_in_cache = true;
        self
    }

    /// What becomes of blocks that are read.
    fn caching(&self) -> Caching {
        match self.scan.target {
            _ if !self.caches => Caching::Never,
            ReadTarget::Partition(_) => Caching::Admitted,
            ReadTarget::Range(_) => Caching::Always,
        }
    }

    /// Counts what the bloom filter was good for.
    fn note_lookup(&mut self, found: bool) {
        if matches!(self.scan.target, ReadTarget::Partition(_)) && !self.is_lookup_noted {
            self.is_lookup_noted = true;
            self.sstable.note_lookup(found);
        }
    }

    fn decode_error(&self, offset: u64) -> impl Fn(DecodeError) -> Error + use<> {
        let sstable = self.sstable.clone();
        move |error| Error::decode(sstable.data_path(), offset, &error)
    }

    /// The block at a location, when it is in memory; else notes that it is wanted.
    fn block_at(&mut self, location: Location) -> Result<Option<Block>> {
        let offset = location.offset;
        if let Some((_, block)) = self.block.take_if(|(own, _)| *own == offset) {
            return Ok(Some(block));
        }
        let (start, ahead) = &self.ahead;
        if let Some(at) = offset.checked_sub(*start).and_then(|at| usize::try_from(at).ok())
            && at < ahead.len()
        {
            let bytes = ahead.slice(at..);
            if BlockHeader::read(&bytes).is_ok_and(|header| header.length() <= bytes.len()) {
                return self.sstable.block(&bytes, offset, self.caching()).map(Some);
            }
        }
        if self.looks_in_cache
            && let Some(block) = self.sstable.cached_block(offset)
        {
            return Ok(Some(block));
        }
        self.wanted = Some(Wanted::Block(location));
        Ok(None)
    }

    fn page_at(&mut self, location: Location) -> Option<Bytes> {
        if let Some((offset, page)) = &self.page
            && *offset == location.offset
        {
            return Some(page.clone());
        }
        let page = self.sstable.cached_page(location.offset);
        if page.is_none() {
            self.wanted = Some(Wanted::Page(location));
        }
        page
    }

    async fn load_wanted(&mut self) -> Result<()> {
        match self.wanted.take() {
            None => {}
            Some(Wanted::Page(location)) => {
                let page = self.sstable.read_page(location, self.caches).await?;
                self.note_read(u64::from(location.length));
                self.page = Some((location.offset, page));
            }
            Some(Wanted::Block(location)) => {
                let block = self.load_block(location).await?;
                self.block = Some((location.offset, block));
            }
        }
        Ok(())
    }

    async fn load_block(&mut self, location: Location) -> Result<Block> {
        let is_scan = self.goes_on || matches!(self.scan.target, ReadTarget::Range(_));
        let mut length = location.length as usize;
        let mut start = location.offset;
        if is_scan || length == 0 {
            let ahead = self.read_ahead;
            self.read_ahead = (ahead * 2).min(READ_AHEAD_MAX);
            if self.goes_on && self.scan.reversed {
                // What comes next lies before it.
                let behind = ahead.saturating_sub(length) as u64;
                start = location.offset.saturating_sub(behind).max(HEAD_SIZE as u64);
                length += (location.offset - start) as usize;
            } else {
                length = length.max(ahead);
            }
        }
        let mut bytes = self.read_data(start, length).await?;
        let at = (location.offset - start) as usize;
        let header = BlockHeader::read(bytes.get(at..).unwrap_or_default())
            .map_err(|what| Error::corrupt(self.sstable.data_path(), location.offset, what))?;
        if at + header.length() > bytes.len() {
            (start, bytes) = (
                location.offset,
                self.read_data(location.offset, header.length()).await?,
            );
        }
        let own = bytes.slice((location.offset - start) as usize..);
        let block = self.sstable.block(&own, location.offset, self.caching())?;
        self.ahead = (start, bytes);
        Ok(block)
    }

    fn note_read(&self, bytes: u64) {
        self.disk_bytes.set(self.disk_bytes.get() + bytes);
    }

    async fn read_data(&mut self, offset: u64, length: usize) -> Result<Bytes> {
        let left = self.sstable.data_size().saturating_sub(offset);
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        if length < BLOCK_HEADER_SIZE {
            return Err(Error::corrupt(
                self.sstable.data_path(),
                offset,
                "the index points behind the data",
            ));
        }
        self.note_read(length as u64);
        self.sstable.read_data(offset, length).await
    }

    /// The entry at the cursor, which may have to be loaded first.
    fn current_entry(&mut self) -> Result<Visit> {
        loop {
            let number = self.cursor.page;
            // A page that begins behind the scan's end need not be loaded.
            if self
                .sstable
                .index
                .first_token(number)
                .is_none_or(|first| first > self.end)
            {
                return Ok(Visit::End);
            }
            let page = match self.sstable.index.resident().get(number) {
                Some(page) => page,
                None => {
                    let Some(location) = self.sstable.index.pages().get(number).copied() else {
                        return Ok(Visit::End);
                    };
                    if self.leaf.as_ref().is_none_or(|(own, _)| *own != number) {
                        let Some(content) = self.page_at(location) else {
                            return Ok(Visit::MustLoad);
                        };
                        let page = IndexPage::new(content, location.offset, self.sstable.index_path())?;
                        self.leaf = Some((number, page));
                    }
                    let Some((_, page)) = &self.leaf else {
                        return Ok(Visit::End);
                    };
                    page
                }
            };
            let slot = self.cursor.slot.unwrap_or_else(|| page.seek(self.start));
            match page.get(slot) {
                Some(entry) => {
                    self.cursor.slot = Some(slot);
                    return Ok(Visit::Entry(entry));
                }
                None => {
                    self.cursor = Cursor {
                        page: number + 1,
                        slot: Some(0),
                    };
                }
            }
        }
    }

    /// The entry at the cursor has been entered.
    fn next_entry(&mut self) {
        self.cursor.slot = self.cursor.slot.map(|slot| slot + 1);
    }

    /// Enters the next entry; false when something must be loaded first.
    fn enter_entry(&mut self) -> Result<bool> {
        let entry = match self.current_entry()? {
            Visit::Entry(entry) if entry.token <= self.end => entry,
            Visit::MustLoad => return Ok(false),
            Visit::Entry(_) | Visit::End => {
                self.place = Place::End;
                return Ok(true);
            }
        };
        self.goes_on = false;
        if entry.root.is_some() {
            return self.enter_large(&entry);
        }
        let Some(block) = self.block_at(entry.data)? else {
            return Ok(false);
        };
        let offset = entry.data.offset;
        if block.kind != BlockKind::Partitions {
            return Err(Error::corrupt(
                self.sstable.data_path(),
                offset,
                "not a block of partitions",
            ));
        }
        let in_block = self.decode_error(offset);
        let partitions = Partitions::new(&block.raw).map_err(&in_block)?;
        let next = match self.scan.target {
            ReadTarget::Partition(key) => match partitions.find(key).map_err(&in_block)? {
                Ok(at) => at,
                Err(_) => partitions.len(),
            },
            ReadTarget::Range(range) => first_inside(&partitions, &range.start).map_err(&in_block)?,
        };
        self.place = Place::Block {
            partitions,
            next,
            offset,
            rest: None,
        };
        self.next_entry();
        Ok(true)
    }

    /// Takes the next partition of a block of small ones, or the rest of one.
    fn next_in_block(&mut self) -> Result<()> {
        let Place::Block {
            partitions,
            next,
            offset,
            rest,
        } = &mut self.place
        else {
            return Ok(());
        };
        let (offset, at) = (*offset, *next);
        if let Some((items, slices)) = rest.take() {
            let (decoder, base) = (partitions.decoder_of(items), partitions.base);
            return self.take_items(decoder, base, slices, offset);
        }
        if at >= partitions.len() {
            self.place = Place::Entry;
            return Ok(());
        }
        *next += 1;
        if let ReadTarget::Range(range) = self.scan.target
            && let Some((key, items)) = partitions.bare(at)
        {
            let key = DecoratedKey::new(key);
            if range.end.cmp_key(&key).is_lt() {
                self.place = Place::End;
                return Ok(());
            }
            *rest = Some((items, slices_of(&self.scan, &key)));
            self.buffer.push_back(Fragment::PartitionStart(key, None));
            return Ok(());
        }
        let base = partitions.base;
        let in_block = |error| Error::decode(self.sstable.data_path(), offset, &error);
        let mut decoder = partitions.decoder(at).map_err(in_block)?;
        let header = parse::header(&mut decoder, base).map_err(in_block)?;
        let key = header.decorated_key();
        if let ReadTarget::Range(range) = self.scan.target
            && range.end.cmp_key(&key).is_lt()
        {
            self.place = Place::End;
            return Ok(());
        }
        let slices = slices_of(&self.scan, &key);
        self.buffer
            .push_back(Fragment::PartitionStart(key, header.deletion));
        self.buffer.extend(header.static_row.map(Fragment::StaticRow));
        self.take_items(decoder, base, slices, offset)?;
        if matches!(self.scan.target, ReadTarget::Partition(_)) {
            self.note_lookup(true);
            self.place = Place::End;
        }
        Ok(())
    }

    /// Takes the items of the partition in a block of small ones whose start was buffered last.
    fn take_items(&mut self, decoder: Decoder, base: Base, slices: &'a [Slice], offset: u64) -> Result<()> {
        let mut filter = SliceFilter::new(slices, self.scan.reversed);
        let items = Items {
            decoder,
            base,
            open: None,
        };
        items
            .take(&mut filter, self.scan.reversed, &mut self.buffer)
            .map_err(|error| Error::decode(self.sstable.data_path(), offset, &error))?;
        filter.finish(&mut self.buffer);
        self.buffer.push_back(Fragment::PartitionEnd);
        Ok(())
    }
}

/// What the cursor points at.
enum Visit {
    Entry(SummaryEntry),
    MustLoad,
    End,
}

impl FragmentSource for SstableReader<'_> {
    fn step(&mut self) -> Result<Step> {
        loop {
            if let Some(fragment) = self.buffer.pop_front() {
                return Ok(Step::Fragment(fragment));
            }
            let has_moved = match &self.place {
                Place::Entry => self.enter_entry()?,
                Place::Block { .. } => self.next_in_block().map(|()| true)?,
                Place::Large(_) => self.next_in_large()?,
                Place::End => {
                    self.note_lookup(false);
                    return Ok(Step::End);
                }
            };
            if !has_moved {
                return Ok(Step::Load);
            }
        }
    }

    fn load(&mut self) -> LocalFuture<'_, Result<()>> {
        Box::pin(self.load_wanted())
    }

    fn not_before(&self) -> Option<Position> {
        self.large_not_before()
    }

    fn skip_partition(&mut self) {
        self.buffer.clear();
        match (&mut self.place, self.scan.target) {
            (Place::Block { rest, .. }, _) => *rest = None,
            (Place::Large(_), ReadTarget::Partition(_)) => self.place = Place::End,
            (Place::Large(_), ReadTarget::Range(_)) => self.place = Place::Entry,
            (Place::Entry | Place::End, _) => {}
        }
    }

    fn run(&mut self, before: Option<&DecoratedKey>, answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        let ReadTarget::Range(range) = self.scan.target else {
            return Ok(None);
        };
        if !self.buffer.is_empty() || !self.takes_all {
            return Ok(None);
        }
        let mut flow = None;
        // To the end of the block at most.
        while let Place::Block {
            partitions,
            next,
            rest: None,
            ..
        } = &mut self.place
        {
            let Some((key, items)) = partitions.bare(*next) else {
                break;
            };
            let key = DecoratedKey::new(key);
            if before.is_some_and(|before| key >= *before) || range.end.cmp_key(&key).is_lt() {
                break;
            }
            let Some((clustering, row)) = partitions.only_plain_row(items) else {
                break;
            };
            *next += 1;
            flow = Some(answer.plain_partition(key, clustering, row));
            if flow == Some(Flow::Stop) {
                break;
            }
        }
        Ok(flow)
    }

    fn hand_over(&mut self, key: &DecoratedKey, answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        if !self.buffer.is_empty() || !self.takes_all {
            return Ok(None);
        }
        let Place::Block { partitions, rest, .. } = &mut self.place else {
            return Ok(None);
        };
        let found = rest
            .as_ref()
            .and_then(|(items, _)| partitions.only_plain_row(items.clone()));
        Ok(found.map(|(clustering, row)| {
            *rest = None;
            answer.plain_partition(key.clone(), clustering, row)
        }))
    }

    fn encoded(&self) -> Option<EncodedPartition<'_>> {
        let is_told = self.buffer.is_empty() && self.takes_all;
        match &self.place {
            Place::Block {
                partitions,
                rest: Some((items, _)),
                ..
            } if is_told => Some(EncodedPartition {
                items: partitions.bytes(items.clone()),
                base: partitions.base,
            }),
            _ => None,
        }
    }
}

/// The number of the first partition behind a point of the ring.
fn first_inside(partitions: &Partitions, start: &RingPosition) -> std::result::Result<usize, DecodeError> {
    let (mut low, mut high) = (0, partitions.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if start.cmp_key(&partitions.key(middle)?).is_lt() {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}
