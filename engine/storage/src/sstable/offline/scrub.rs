//! Salvaging what is readable of an sstable.
//!
//! Data is walked from front to back without trust in the index. What an intact block holds is written again; what lies
//! in damaged ones is lost and told. The rest of a large partition whose beginning is lost keeps its key when the index
//! still tells it. A range deletion that was open where something is lost ends there and, if it is open again behind the
//! gap, begins there again: never does one cover more than it did.
//!
//! The old files move to `pre-scrub` in the same folder: first under second names, then the new table of contents is
//! written, then the old names are removed. A crash in between leaves the old sstable, or both, which merge to the same.

use std::path::PathBuf;
use std::rc::Rc;

use ceto_env::{Disk, Env};
use ceto_model::{DecoratedKey, Deletion, Position, TableId};

use super::super::descriptor::{Component, Descriptor, Generation};
use super::super::index::{IndexPage, Location};
use super::super::parse::{self, Header};
use super::super::statistics::{Origin, Statistics};
use super::super::table::{PartitionPages, Sstable, remove_files};
use super::super::writer::{SstableWriter, WriterOptions, write_toc};
use super::walk::{Content, Items, Walked, content, open_data};
use crate::error::{Error, Result};
use crate::reader::{Fragment, after_row, before_row};

/// Folder that takes the old files.
const KEPT_DIR: &str = "pre-scrub";

/// Something that could not be saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// In this file.
    pub file: PathBuf,
    /// From here on.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Why, and what of.
    pub what: String,
}

/// What a scrub did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scrubbed {
    /// The new sstable; None when nothing could be saved.
    pub output: Option<Descriptor>,
    /// Where the old files are now.
    pub kept_in: PathBuf,
    /// Partitions in the new one.
    pub partitions: u64,
    /// Rows in the new one.
    pub rows: u64,
    /// Partitions and rows that the old one had by its statistics, when these can be read.
    pub had: Option<(u64, u64)>,
    /// What is lost. Empty: nothing.
    pub lost: Vec<Loss>,
}

/// Writes a new sstable from whatever is readable of one, in its place. No node may use the folder meanwhile. `table` is
/// for an sstable whose statistics are lost.
pub async fn scrub(env: Rc<dyn Env>, descriptor: &Descriptor, table: TableId) -> Result<Scrubbed> {
    let disk = env.disk();
    let statistics = Sstable::read_statistics(&*disk, descriptor).await;
    let mut options = match &statistics {
        Ok(statistics) => options_of(statistics),
        Err(_) => WriterOptions {
            expected_partitions: 1 << 20,
            ..WriterOptions::new(table)
        },
    };
    options.created_at = env.clock().unix_micros();
    let output = Descriptor {
        generation: next_generation(&*disk, descriptor).await?,
        ..descriptor.clone()
    };
    let mut salvage = Salvage {
        data: descriptor.path(Component::Data),
        owners: owners(&env, descriptor).await,
        writer: SstableWriter::create(disk.clone(), output.clone(), options).await?,
        last_key: None,
        inside: None,
        partitions: 0,
        rows: 0,
        lost: Vec::new(),
    };
    if let Err(error) = &statistics {
        salvage.lose_component(descriptor, Component::Statistics, error);
    }
    if let Err(error) = salvage.run(&env, descriptor).await {
        salvage.writer.abandon().await?;
        return Err(error);
    }
    let Salvage {
        mut writer,
        partitions,
        rows,
        lost,
        ..
    } = salvage;
    if lost
        .iter()
        .any(|loss| loss.file == descriptor.path(Component::Data))
    {
        // What is lost may be in the commitlog still, and repair must look at the rest again.
        writer.forget_provenance();
    }
    let output = writer.finish().await?;
    let kept_in = keep_old(&*disk, descriptor).await?;
    if let Some(output) = &output {
        write_toc(&*disk, output).await?;
    }
    remove_files(&*disk, descriptor).await?;
    Ok(Scrubbed {
        output,
        kept_in,
        partitions,
        rows,
        had: statistics
            .ok()
            .map(|statistics| (statistics.partitions, statistics.rows)),
        lost,
    })
}

fn options_of(statistics: &Statistics) -> WriterOptions {
    WriterOptions {
        shard_count: statistics.shard_count,
        compression: statistics.compression,
        bloom_filter_fp_chance: statistics.bloom_filter_fp_chance,
        expected_partitions: statistics.partitions,
        flushed_through: statistics.flushed_through,
        level: statistics.level,
        repaired_at: statistics.repaired_at,
        pending_repair: statistics.pending_repair,
        origin: Origin::Scrub,
        header: statistics.header.clone(),
        ..WriterOptions::new(statistics.table)
    }
}

/// A number that no sstable of the folder has.
async fn next_generation(disk: &dyn Disk, descriptor: &Descriptor) -> Result<Generation> {
    let mut last = descriptor.generation.0;
    for entry in disk.list_dir(&descriptor.dir).await? {
        if let Some((other, _)) = Descriptor::parse(&descriptor.dir, &entry.name) {
            last = last.max(other.generation.0);
        }
    }
    Ok(Generation(last + 1))
}

/// Gives the old files second names in a folder for them.
async fn keep_old(disk: &dyn Disk, descriptor: &Descriptor) -> Result<PathBuf> {
    let dir = kept_dir(disk, descriptor).await?;
    disk.create_dir_all(&dir).await?;
    let kept = Descriptor {
        dir: dir.clone(),
        ..descriptor.clone()
    };
    for component in Component::ALL {
        let (from, to) = (descriptor.path(component), kept.path(component));
        match disk.hard_link(&from, &to).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    disk.sync_dir(&dir).await?;
    disk.sync_dir(&descriptor.dir).await?;
    Ok(dir)
}

/// The first of `pre-scrub`, `pre-scrub-2`... that has no files of these names: numbers can come again.
async fn kept_dir(disk: &dyn Disk, descriptor: &Descriptor) -> Result<PathBuf> {
    for number in 1u32.. {
        let name = match number {
            1 => KEPT_DIR.to_owned(),
            number => format!("{KEPT_DIR}-{number}"),
        };
        let dir = descriptor.dir.join(name);
        let entries = match disk.list_dir(&dir).await {
            Err(error) if error.is_not_found() => return Ok(dir),
            entries => entries?,
        };
        let start = format!("{}-", descriptor.prefix());
        if !entries.iter().any(|entry| entry.name.starts_with(&start)) {
            return Ok(dir);
        }
    }
    Err(Error::Layout("no folder is left for the old files".into()))
}

/// Large partitions by the offset of their first block, with their headers where these can be read. None when the index
/// does not tell all of them.
async fn owners(env: &Rc<dyn Env>, descriptor: &Descriptor) -> Option<Vec<(u64, Option<Header>)>> {
    let file = env.disk().open(&descriptor.path(Component::Index)).await.ok()?;
    let pages = PartitionPages::open(file).await.ok()?;
    let mut owners = Vec::new();
    for location in pages.index.pages() {
        let content = pages.page(*location).await.ok()?;
        let page = IndexPage::new(content, location.offset, pages.path()).ok()?;
        for entry in (0..page.len()).filter_map(|slot| page.get(slot)) {
            if let Some(root) = entry.root {
                owners.push((entry.data.offset, root_header(&pages, root).await));
            }
        }
    }
    Some(owners)
}

async fn root_header(pages: &PartitionPages, root: Location) -> Option<Header> {
    let content = pages.page(root).await.ok()?;
    let (base, mut decoder) = parse::root_page(content).ok()?;
    parse::header(&mut decoder, base).ok()
}

struct Salvage {
    data: PathBuf,
    owners: Option<Vec<(u64, Option<Header>)>>,
    writer: SstableWriter,
    last_key: Option<DecoratedKey>,
    inside: Option<Inside>,
    partitions: u64,
    rows: u64,
    lost: Vec<Loss>,
}

/// The partition being written.
struct Inside {
    /// The first block of a large one.
    first_block: u64,
    /// Where its last item lies, and whether that is a row.
    last: Option<(bytes::Bytes, bool)>,
    /// The range deletion that holds behind everything that was written.
    written: Option<Deletion>,
    /// A change that is not written yet: what it begins may turn out to be lost.
    pending: Option<(Position, Option<Deletion>)>,
    /// Something is missing behind the last item.
    has_gap: bool,
}

impl Scrubbed {
    /// Nothing is lost.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }
}

impl Salvage {
    async fn run(&mut self, env: &Rc<dyn Env>, descriptor: &Descriptor) -> Result<()> {
        let mut walk = open_data(env, descriptor).await?;
        while let Some(walked) = walk.next().await {
            match walked {
                Walked::Damaged { offset, length, what } => {
                    self.lose(offset, length, what);
                    if let Some(inside) = &mut self.inside {
                        inside.has_gap = true;
                    }
                }
                Walked::Block { offset, block } => {
                    let length = u64::from(block.length);
                    match content(&block) {
                        Ok(content) => self.block(offset, length, content)?,
                        Err(error) => self.lose(offset, length, &error.to_string()),
                    }
                }
            }
            if self.writer.is_full() {
                self.writer.write_out().await?;
            }
            if let Some(turn) = env.tasks().yield_if_due() {
                turn.await;
            }
        }
        self.end_partition()
    }

    fn lose(&mut self, offset: u64, length: u64, what: &str) {
        self.lost.push(Loss {
            file: self.data.clone(),
            offset,
            length,
            what: what.to_owned(),
        });
    }

    fn lose_component(&mut self, descriptor: &Descriptor, component: Component, error: &Error) {
        self.lost.push(Loss {
            file: descriptor.path(component),
            offset: 0,
            length: 0,
            what: format!("{error}; what it said is lost, not the data"),
        });
    }

    fn block(&mut self, offset: u64, length: u64, content: Content) -> Result<()> {
        match content {
            Content::Partitions(partitions) => {
                self.end_partition()?;
                for partition in partitions {
                    match partition {
                        Err(error) => self.lose(offset, 0, &error.to_string()),
                        Ok((header, fragments)) => {
                            if self.start_partition(offset, header)? {
                                self.items(offset, fragments)?;
                                self.end_partition()?;
                            }
                        }
                    }
                }
                Ok(())
            }
            Content::First(header, items) => {
                self.end_partition()?;
                match self.start_partition(offset, header)? {
                    true => self.more(offset, None, items),
                    false => Ok(()),
                }
            }
            Content::More(open, items) => {
                if !self.enter_owner(offset)? {
                    self.lose(offset, length, "the beginning of its partition is lost");
                    return Ok(());
                }
                self.more(offset, open, items)
            }
        }
    }

    /// Makes the large partition that a block belongs to the current one; false when it is not known.
    fn enter_owner(&mut self, offset: u64) -> Result<bool> {
        let owner = self.owners.as_ref().map(|owners| {
            let behind = owners.partition_point(|(first, _)| *first <= offset);
            behind.checked_sub(1).and_then(|at| owners.get(at)).cloned()
        });
        match (owner, &self.inside) {
            // Without the index only what follows without a gap is known to belong.
            (None, Some(inside)) => Ok(!inside.has_gap),
            (None | Some(None), _) => Ok(false),
            (Some(Some((first, _))), Some(inside)) if inside.first_block == first => Ok(true),
            (Some(Some((_, None))), _) => Ok(false),
            (Some(Some((first, Some(header)))), _) => {
                self.end_partition()?;
                let has_started = self.start_partition(first, header)?;
                if let Some(inside) = &mut self.inside {
                    inside.has_gap = true;
                }
                Ok(has_started)
            }
        }
    }

    /// False: it is not where it may be, and lost.
    fn start_partition(&mut self, offset: u64, header: Header) -> Result<bool> {
        let key = header.decorated_key();
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            self.lose(offset, 0, &format!("partition {:?} is out of order", key.key));
            return Ok(false);
        }
        self.last_key = Some(key.clone());
        self.partitions += 1;
        self.writer.push(Fragment::PartitionStart(key, header.deletion))?;
        if let Some(row) = header.static_row {
            self.writer.push(Fragment::StaticRow(row))?;
        }
        self.inside = Some(Inside {
            first_block: offset,
            last: None,
            written: None,
            pending: None,
            has_gap: false,
        });
        Ok(true)
    }

    /// A block of the current large partition.
    fn more(&mut self, offset: u64, open: Option<Deletion>, items: Items) -> Result<()> {
        if self.inside.as_ref().is_some_and(|inside| inside.has_gap) {
            self.close_deletion()?;
            if let (Some(open), Some(Fragment::Row(key, _))) = (open, items.fragments.first()) {
                self.change(before_row(key), Some(open))?;
            }
            if let Some(inside) = &mut self.inside {
                inside.has_gap = false;
            }
        }
        self.items(offset, items.fragments)?;
        if items.is_last {
            self.end_partition()?;
        }
        Ok(())
    }

    fn items(&mut self, offset: u64, fragments: Vec<Fragment>) -> Result<()> {
        for fragment in fragments {
            let (place, is_row) = match &fragment {
                Fragment::Row(key, _) => (key.0.clone(), true),
                Fragment::DeletionChange(position, _) => (position.0.clone(), false),
                _ => continue,
            };
            let Some(inside) = &mut self.inside else {
                return Ok(());
            };
            if inside.last.as_ref().is_some_and(|(last, _)| *last >= place) {
                self.lose(offset, 0, "a row is out of order");
                continue;
            }
            match fragment {
                Fragment::DeletionChange(position, deletion) => self.change(position, deletion)?,
                row => {
                    self.flush_change()?;
                    self.rows += 1;
                    self.writer.push(row)?;
                }
            }
            if let Some(inside) = &mut self.inside {
                inside.last = Some((place, is_row));
            }
        }
        Ok(())
    }

    /// Takes a change of the open deletion; it is written with what follows it.
    fn change(&mut self, position: Position, deletion: Option<Deletion>) -> Result<()> {
        let is_behind = |inside: &Inside| inside.last.as_ref().is_none_or(|(last, _)| *last < position.0);
        if !self.inside.as_ref().is_some_and(is_behind) {
            return Ok(());
        }
        self.flush_change()?;
        if let Some(inside) = &mut self.inside {
            inside.last = Some((position.0.clone(), false));
            inside.pending = Some((position, deletion));
        }
        Ok(())
    }

    fn flush_change(&mut self) -> Result<()> {
        let Some(inside) = &mut self.inside else {
            return Ok(());
        };
        match inside.pending.take() {
            Some((position, deletion)) if deletion != inside.written => {
                inside.written = deletion;
                self.writer.push(Fragment::DeletionChange(position, deletion))
            }
            _ => Ok(()),
        }
    }

    /// Ends the open deletion behind the last item: what it covered from there on is not known.
    fn close_deletion(&mut self) -> Result<()> {
        let Some(inside) = &mut self.inside else {
            return Ok(());
        };
        let end = match (inside.pending.take(), &inside.last) {
            (Some((position, _)), _) => Some(position),
            (None, Some((row, true))) => Some(after_row(&ceto_model::ClusteringKey(row.clone()))),
            // A change that was written, with nothing behind it: it is the end of a deletion.
            (None, _) => None,
        };
        if let (Some(end), true) = (end, inside.written.is_some()) {
            inside.written = None;
            inside.last = Some((end.0.clone(), false));
            self.writer.push(Fragment::DeletionChange(end, None))?;
        }
        Ok(())
    }

    fn end_partition(&mut self) -> Result<()> {
        let Some(inside) = &self.inside else {
            return Ok(());
        };
        let ends_open = match &inside.pending {
            Some((_, deletion)) => deletion.is_some(),
            None => inside.written.is_some(),
        };
        match ends_open {
            true => self.close_deletion()?,
            false => self.flush_change()?,
        }
        self.inside = None;
        self.writer.push(Fragment::PartitionEnd)
    }
}
