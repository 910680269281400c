//! Going through Data from front to back without the index, past what is damaged.
//!
//! Behind a damaged block the walk tries every byte as the beginning of the next one; the checksum, which depends on the
//! place, says when it is found.

use std::rc::Rc;

use bytes::Bytes;
use ceto_env::{Env, ReadFile};
use ceto_model::codec::{DecodeError, Decoder};

use super::super::block::{BLOCK_HEADER_SIZE, Block, BlockHeader, BlockKind, Memory, read_block};
use super::super::dictionary::Dictionary;
use super::super::head::HEAD_SIZE;
use super::super::parse::{self, Header, Item, Partitions};
use crate::error::Result;
use crate::reader::Fragment;
use ceto_model::Deletion;

/// Bytes read at once.
const WINDOW: usize = 1 << 20;
/// What is read when a larger read failed, in bytes: one sector.
const SECTOR: u64 = 4096;

/// What lies at a place of Data.
pub(super) enum Walked {
    /// An intact block.
    Block { offset: u64, block: Block },
    /// Bytes that are none.
    Damaged {
        offset: u64,
        length: u64,
        what: &'static str,
    },
}

/// A walk.
pub(super) struct DataWalk {
    env: Rc<dyn Env>,
    file: Rc<dyn ReadFile>,
    dictionary: Option<Rc<Dictionary>>,
    offset: u64,
    window: (u64, Bytes),
}

impl DataWalk {
    pub(super) fn new(
        env: Rc<dyn Env>,
        file: Rc<dyn ReadFile>,
        dictionary: Option<Rc<Dictionary>>,
    ) -> DataWalk {
        DataWalk {
            env,
            file,
            dictionary,
            offset: HEAD_SIZE as u64,
            window: (0, Bytes::new()),
        }
    }

    /// The next block, or the damage before it. None behind the end.
    pub(super) async fn next(&mut self) -> Option<Walked> {
        let start = self.offset;
        if start >= self.file.size() {
            return None;
        }
        let what = match self.block_at(start).await {
            Ok(block) => {
                self.offset = start + u64::from(block.length);
                return Some(Walked::Block { offset: start, block });
            }
            Err(what) => what,
        };
        let mut at = start + 1;
        while at < self.file.size() {
            match self.block_at(at).await {
                Ok(_) => break,
                Err(UNREADABLE) => at = (at / SECTOR + 1) * SECTOR,
                Err(_) => at += 1,
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        self.offset = at.min(self.file.size());
        Some(Walked::Damaged {
            offset: start,
            length: self.offset - start,
            what,
        })
    }

    async fn block_at(&mut self, offset: u64) -> std::result::Result<Block, &'static str> {
        let header = BlockHeader::read(&self.bytes(offset, BLOCK_HEADER_SIZE).await?)?;
        if offset + header.length() as u64 > self.file.size() {
            return Err("block is cut short");
        }
        let bytes = self.bytes(offset, header.length()).await?;
        read_block(&bytes, offset, self.dictionary.as_deref(), Memory::Shared)
    }

    /// Bytes from the window; fewer than asked for at the file's end.
    async fn bytes(&mut self, offset: u64, length: usize) -> std::result::Result<Bytes, &'static str> {
        let left = usize::try_from(self.file.size() - offset).unwrap_or(usize::MAX);
        let length = length.min(left);
        let (start, window) = &self.window;
        if let Some(at) = offset.checked_sub(*start).and_then(|at| usize::try_from(at).ok())
            && at.checked_add(length).is_some_and(|end| end <= window.len())
        {
            return Ok(window.slice(at..at + length));
        }
        let wanted = length.max(WINDOW).min(left);
        let bytes = match self.file.read_at(offset, wanted).await {
            Ok(bytes) => bytes,
            Err(_) => {
                let sector = ((offset / SECTOR + 1) * SECTOR - offset) as usize;
                let wanted = length.max(sector).min(left);
                let bytes = self.file.read_at(offset, wanted).await;
                bytes.map_err(|_| UNREADABLE)?
            }
        };
        self.window = (offset, bytes.clone());
        Ok(bytes.slice(..length))
    }
}

const UNREADABLE: &str = "the disk cannot read it";

/// What an intact block holds.
pub(super) enum Content {
    /// Whole partitions; for one that cannot be decoded, why.
    Partitions(Vec<std::result::Result<(Header, Vec<Fragment>), DecodeError>>),
    /// The beginning of a large partition.
    First(Header, Items),
    /// More of it, and the deletion that is open where it begins.
    More(Option<Deletion>, Items),
}

/// Rows and deletion changes of a block of a large partition.
pub(super) struct Items {
    pub(super) fragments: Vec<Fragment>,
    /// The partition's end was behind them.
    pub(super) is_last: bool,
}

/// Decodes a block.
pub(super) fn content(block: &Block) -> std::result::Result<Content, DecodeError> {
    if block.kind == BlockKind::Partitions {
        let partitions = Partitions::new(&block.raw)?;
        let one = |at: usize| {
            let mut decoder = partitions.decoder(at)?;
            let header = parse::header(&mut decoder, partitions.base)?;
            let items = items(&mut decoder, partitions.base)?;
            match items.is_last {
                true => Ok((header, items.fragments)),
                false => Err(DecodeError {
                    what: "end of a partition",
                    remaining: 0,
                }),
            }
        };
        return Ok(Content::Partitions((0..partitions.len()).map(one).collect()));
    }
    let (raw, base) = parse::split_base(&block.raw)?;
    let mut decoder = Decoder::new(raw);
    if block.kind == BlockKind::LargeFirst {
        let header = parse::header(&mut decoder, base)?;
        return Ok(Content::First(header, items(&mut decoder, base)?));
    }
    let open = base.deletion_option(&mut decoder)?;
    Ok(Content::More(open, items(&mut decoder, base)?))
}

fn items(decoder: &mut Decoder, base: super::super::row::Base) -> std::result::Result<Items, DecodeError> {
    let mut fragments = Vec::new();
    while decoder.remaining() > 0 {
        match Item::read(decoder, base)? {
            Item::End => {
                return Ok(Items {
                    fragments,
                    is_last: true,
                });
            }
            Item::Row(key, length) => {
                fragments.push(Fragment::Row(key, parse::row_content(decoder, length, base)?));
            }
            Item::Change(position, deletion) => fragments.push(Fragment::DeletionChange(position, deletion)),
        }
    }
    Ok(Items {
        fragments,
        is_last: false,
    })
}

/// Opens Data and the dictionary of an sstable, whatever else of it is damaged.
pub(super) async fn open_data(env: &Rc<dyn Env>, descriptor: &super::Descriptor) -> Result<DataWalk> {
    let disk = env.disk();
    let file = disk.open(&descriptor.path(super::Component::Data)).await?;
    let path = descriptor.path(super::Component::Dictionary);
    let dictionary = match disk.read_file(&path, 1 << 24).await {
        Ok(bytes) => Dictionary::decode(&bytes, &path).ok().map(Rc::new),
        Err(_) => None,
    };
    Ok(DataWalk::new(env.clone(), file, dictionary))
}
