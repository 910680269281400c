//! Inside a large partition: through its row index to the block where a slice begins, then from block to block.

use ceto_model::codec::Decoder;
use ceto_model::key::BOUND_BEFORE;
use ceto_model::{DecoratedKey, Position, ReadTarget, Slice};

use super::super::block::BlockKind;
use super::super::index::{Location, SummaryEntry, find_entry};
use super::super::items::Items;
use super::super::parse::{self, Header};
use super::{Place, READ_AHEAD_MIN, SstableReader};
use crate::error::{Error, Result};
use crate::reader::{Fragment, SliceFilter, slices_of};

/// Greatest height of a row index: what a damaged one may cost in reads.
const ROW_INDEX_HEIGHT_MAX: u64 = 32;

/// Inside a large partition.
pub(super) struct Large<'a> {
    filter: SliceFilter<'a>,
    root: Option<Location>,
    /// Where to read next.
    next: Next,
    /// The block that follows, in reading order, the one taken last.
    neighbour: Option<Location>,
    /// Nothing that is left lies before it; known until the first block is taken.
    not_before: Option<Position>,
}

impl Large<'_> {
    /// The block to be read when the row index led to `found`: never one that was taken before. (A slice may begin
    /// behind the last item of the block in whose range it lies.)
    fn behind_last(&self, found: Location, reversed: bool) -> Location {
        match self.neighbour {
            Some(neighbour) if !reversed && found.offset < neighbour.offset => neighbour,
            Some(neighbour) if reversed && found.offset > neighbour.offset => neighbour,
            _ => found,
        }
    }
}

enum Next {
    /// Looking for the block that holds this position, in the root page.
    Root(Position),
    /// The same, in a page at this height.
    Page(Position, Location, u64),
    /// This block.
    Block(Location),
}

enum Progress {
    Moved,
    MustLoad,
    Ended,
}

impl<'a> SstableReader<'a> {
    /// Enters a large partition; false when something must be loaded first.
    pub(super) fn enter_large(&mut self, entry: &SummaryEntry) -> Result<bool> {
        let first_slice = match self.scan.first_partition_slices {
            Some(first) => first.first(),
            None => self.scan.slices.first(),
        };
        let reads_from_front = !self.scan.reversed
            && first_slice.is_some_and(|slice: &Slice| slice.start.0[..] == [BOUND_BEFORE]);
        let header = if reads_from_front {
            // The first block has the header too.
            let Some(block) = self.block_at(entry.data)? else {
                return Ok(false);
            };
            let header = parse::split_base(&block.raw)
                .and_then(|(raw, base)| parse::header(&mut Decoder::new(raw), base));
            self.block = Some((entry.data.offset, block));
            header.map_err(self.decode_error(entry.data.offset))?
        } else {
            let Some(root) = entry.root else { return Ok(true) };
            let Some(page) = self.page_at(root) else {
                return Ok(false);
            };
            let header =
                parse::root_page(page).and_then(|(base, mut decoder)| parse::header(&mut decoder, base));
            let path = self.sstable.index_path();
            header.map_err(|error| Error::decode(path, root.offset, &error))?
        };
        self.next_entry();
        let key = header.decorated_key();
        match self.scan.target {
            ReadTarget::Partition(wanted) if *wanted != key => return Ok(true),
            ReadTarget::Partition(_) => {}
            ReadTarget::Range(range) if range.start.cmp_key(&key).is_gt() => return Ok(true),
            ReadTarget::Range(range) if range.end.cmp_key(&key).is_lt() => {
                self.place = Place::End;
                return Ok(true);
            }
            ReadTarget::Range(_) => {}
        }
        let slices = slices_of(&self.scan, &key);
        self.start(key, header);
        let filter = SliceFilter::new(slices, self.scan.reversed);
        let Some(start) = filter.next_start().cloned() else {
            self.end_large();
            return Ok(true);
        };
        let is_at_front = !self.scan.reversed && start.0[..] == [BOUND_BEFORE];
        self.place = Place::Large(Large {
            filter,
            root: entry.root,
            next: if is_at_front {
                Next::Block(entry.data)
            } else {
                Next::Root(start)
            },
            neighbour: None,
            not_before: None,
        });
        Ok(true)
    }

    fn start(&mut self, key: DecoratedKey, header: Header) {
        self.note_lookup(true);
        self.buffer
            .push_back(Fragment::PartitionStart(key, header.deletion));
        self.buffer.extend(header.static_row.map(Fragment::StaticRow));
    }

    fn end_large(&mut self) {
        self.buffer.push_back(Fragment::PartitionEnd);
        self.place = match self.scan.target {
            ReadTarget::Partition(_) => Place::End,
            ReadTarget::Range(_) => Place::Entry,
        };
    }

    /// Where the block that is wanted begins, when all before it was passed over.
    pub(super) fn large_not_before(&self) -> Option<Position> {
        match &self.place {
            Place::Large(large) => large.not_before.clone(),
            _ => None,
        }
    }

    /// Goes on inside a large partition; false when something must be loaded first.
    pub(super) fn next_in_large(&mut self) -> Result<bool> {
        let Place::Large(mut large) = std::mem::replace(&mut self.place, Place::End) else {
            return Ok(true);
        };
        let result = self.go_on_in_large(&mut large);
        match result {
            Ok(Progress::Ended) => {
                large.filter.finish(&mut self.buffer);
                self.end_large();
                Ok(true)
            }
            Ok(Progress::Moved) => {
                self.place = Place::Large(large);
                Ok(true)
            }
            Ok(Progress::MustLoad) => {
                self.place = Place::Large(large);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn go_on_in_large(&mut self, large: &mut Large<'a>) -> Result<Progress> {
        let (position, page, height) = match &large.next {
            Next::Block(location) => return self.take_large_block(*location, large),
            Next::Root(position) => {
                let Some(root) = large.root else {
                    return Ok(Progress::Ended);
                };
                (position.clone(), root, None)
            }
            Next::Page(position, page, height) => (position.clone(), *page, Some(*height)),
        };
        let Some(content) = self.page_at(page) else {
            return Ok(Progress::MustLoad);
        };
        let path = self.sstable.index_path();
        let in_page = |error| Error::decode(path, page.offset, &error);
        let (decoder, height) = match height {
            Some(height) => (Decoder::new(content), height),
            None => {
                let (base, mut decoder) = parse::root_page(content).map_err(in_page)?;
                parse::header(&mut decoder, base).map_err(in_page)?;
                let height = decoder.varint("row index height").map_err(in_page)?;
                if height > ROW_INDEX_HEIGHT_MAX {
                    let what = format!("a row index of height {height}");
                    return Err(Error::corrupt(path, page.offset, what));
                }
                (decoder, height)
            }
        };
        let (begins, found) = find_entry(decoder, &position).map_err(in_page)?;
        large.next = match height {
            0 => {
                let is_first = large.neighbour.is_none() && !self.scan.reversed;
                if is_first {
                    // The first block's entry says nothing of where its rows begin; the sstable knows for all partitions.
                    let bounds = &self.sstable.statistics.clustering_bounds;
                    let first = bounds.as_ref().map(|(first, _)| first.clone());
                    let known = first.into_iter().chain([begins]).max();
                    large.not_before = known.filter(|known| *known > position);
                }
                let block = large.behind_last(found, self.scan.reversed);
                self.goes_on = large
                    .neighbour
                    .is_some_and(|neighbour| neighbour.offset == block.offset);
                if !self.goes_on {
                    self.read_ahead = READ_AHEAD_MIN;
                }
                Next::Block(block)
            }
            height => Next::Page(position, found, height - 1),
        };
        Ok(Progress::Moved)
    }

    fn take_large_block(&mut self, location: Location, large: &mut Large<'a>) -> Result<Progress> {
        let Some(block) = self.block_at(location)? else {
            return Ok(Progress::MustLoad);
        };
        large.not_before = None;
        let in_block = self.decode_error(location.offset);
        let (raw, base) = parse::split_base(&block.raw).map_err(&in_block)?;
        let mut decoder = Decoder::new(raw);
        let open = match block.kind {
            BlockKind::LargeFirst => parse::header(&mut decoder, base).map(|_| None),
            BlockKind::LargeMore => base.deletion_option(&mut decoder),
            BlockKind::Partitions => {
                let what = "not a block of a large partition";
                return Err(Error::corrupt(self.sstable.data_path(), location.offset, what));
            }
        };
        let open = open.map_err(&in_block)?;
        let reversed = self.scan.reversed;
        let items = Items { decoder, base, open };
        let is_last = items.take(&mut large.filter, reversed, &mut self.buffer);
        let is_last = is_last.map_err(&in_block)?;
        let is_at_end = if reversed {
            block.kind == BlockKind::LargeFirst
        } else {
            is_last
        };
        if is_at_end || large.filter.is_done() {
            return Ok(Progress::Ended);
        }
        let neighbour = if reversed {
            let length = block.previous_length;
            let offset = location
                .offset
                .checked_sub(u64::from(length))
                .filter(|_| length > 0);
            let offset = offset.ok_or_else(|| {
                Error::corrupt(
                    self.sstable.data_path(),
                    location.offset,
                    "no block before this one",
                )
            })?;
            Location { offset, length }
        } else {
            Location {
                offset: location.offset + u64::from(block.length),
                length: 0,
            }
        };
        large.neighbour = Some(neighbour);
        large.next = match large.filter.next_start() {
            Some(start) => Next::Root(start.clone()),
            None => {
                self.goes_on = true;
                Next::Block(neighbour)
            }
        };
        Ok(Progress::Moved)
    }
}
