//! Checking everything about an sstable, and naming every fault with file and offset.

use std::path::Path;
use std::rc::Rc;

use ceto_env::Env;
use ceto_model::{DecoratedKey, Deletion};
use xxhash_rust::xxh3::Xxh3;

use super::super::block_cache::BlockCache;
use super::super::descriptor::{Component, Descriptor};
use super::super::digest::{Digest, check_toc};
use super::super::head::check_head;
use super::super::parse::Header;
use super::super::table::Sstable;
use super::walk::{Content, Items, Walked, content, open_data};
use crate::error::{Error, Result};
use crate::reader::Fragment;

/// Faults told of one sstable; more are not looked for.
const FAULTS_MAX: usize = 100;
/// Bytes read at once.
const READ_SIZE: usize = 1 << 20;
/// Largest text component, in bytes.
const TEXT_MAX: u64 = 1 << 16;

/// Checks all checksums, the digests of all files, the order of partitions and rows, and that the index leads to every
/// partition. The faults found, none when the sstable is sound.
pub async fn verify(env: Rc<dyn Env>, descriptor: &Descriptor) -> Vec<Error> {
    let mut faults = Faults::default();
    verify_files(&env, descriptor, &mut faults).await;
    let mut order = Order::new(descriptor);
    verify_blocks(&env, descriptor, &mut order, &mut faults).await;
    let cache = Rc::new(BlockCache::new(0));
    match Sstable::open(env, descriptor.clone(), cache).await {
        Err(error) => faults.add(error),
        Ok(sstable) => {
            if faults.list.is_empty() {
                order.check_statistics(&sstable, &mut faults);
                faults.add_failed(sstable.verify().await);
            }
        }
    }
    faults.list
}

#[derive(Default)]
struct Faults {
    list: Vec<Error>,
}

impl Faults {
    /// Notes a fault; one that is known already is not told again.
    fn add(&mut self, error: Error) {
        let text = error.to_string();
        let is_known = self.list.iter().any(|known| known.to_string() == text);
        if self.list.len() < FAULTS_MAX && !is_known {
            self.list.push(error);
        }
    }

    fn add_failed(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.add(error);
        }
    }
}

/// Table of contents, digest, and the files that it lists.
async fn verify_files(env: &Rc<dyn Env>, descriptor: &Descriptor, faults: &mut Faults) {
    let disk = env.disk();
    let path = descriptor.path(Component::Digest);
    let digest = match disk.read_file(&path, TEXT_MAX).await {
        Ok(bytes) => Digest::decode(&bytes, &path),
        Err(error) => Err(error.into()),
    };
    let digest = match digest {
        Ok(digest) => digest,
        Err(error) => return faults.add(error),
    };
    let path = descriptor.path(Component::Toc);
    match disk.read_file(&path, TEXT_MAX).await {
        Ok(bytes) => faults.add_failed(check_toc(&bytes, &digest, &path)),
        Err(error) => faults.add(error.into()),
    }
    for component in digest.components() {
        let path = descriptor.path(component);
        let result = verify_file(env, &path, component, &digest).await;
        faults.add_failed(result);
    }
}

async fn verify_file(env: &Rc<dyn Env>, path: &Path, component: Component, digest: &Digest) -> Result<()> {
    let file = env.disk().open(path).await?;
    let mut hash = Xxh3::new();
    let mut offset = 0;
    while offset < file.size() {
        let length = READ_SIZE.min((file.size() - offset) as usize);
        let bytes = file.read_at(offset, length).await?;
        if offset == 0 {
            check_head(component, &bytes, path)?;
        }
        hash.update(&bytes);
        offset += length as u64;
    }
    let Some((size, checksum)) = digest.get(component) else {
        return Ok(());
    };
    if size != file.size() {
        let what = format!("file has {} bytes, its digest says {size}", file.size());
        return Err(Error::corrupt(path, size.min(file.size()), what));
    }
    if checksum != hash.digest() {
        return Err(Error::corrupt(path, 0, "file differs from its digest"));
    }
    Ok(())
}

async fn verify_blocks(
    env: &Rc<dyn Env>,
    descriptor: &Descriptor,
    order: &mut Order<'_>,
    faults: &mut Faults,
) {
    let path = descriptor.path(Component::Data);
    let mut walk = match open_data(env, descriptor).await {
        Ok(walk) => walk,
        Err(error) => return faults.add(error),
    };
    while let Some(walked) = walk.next().await {
        match walked {
            Walked::Damaged {
                offset, length, what, ..
            } => {
                order.forget();
                faults.add(Error::corrupt(&path, offset, format!("{what} ({length} bytes)")));
            }
            Walked::Block { offset, block } => {
                let checked = match content(&block) {
                    Ok(content) => order.block(content).map_err(str::to_owned),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(what) = checked {
                    order.forget();
                    faults.add(Error::corrupt(&path, offset, what));
                }
            }
        }
        if let Some(turn) = env.tasks().yield_if_due() {
            turn.await;
        }
    }
    if order.inside.is_some() {
        let what = "the last partition has no end";
        faults.add(Error::corrupt(&path, 0, what));
    }
}

/// The order of what lies in Data.
struct Order<'a> {
    descriptor: &'a Descriptor,
    first: Option<DecoratedKey>,
    last: Option<DecoratedKey>,
    /// Inside a large partition: where its last item lies, and the deletion that is open.
    inside: Option<Inside>,
    partitions: u64,
    rows: u64,
}

#[derive(Default)]
struct Inside {
    place: Option<bytes::Bytes>,
    open: Option<Deletion>,
}

type Checked = std::result::Result<(), &'static str>;

impl<'a> Order<'a> {
    fn new(descriptor: &'a Descriptor) -> Order<'a> {
        Order {
            descriptor,
            first: None,
            last: None,
            inside: None,
            partitions: 0,
            rows: 0,
        }
    }

    /// Behind damage a partition may go on whose beginning was lost.
    fn forget(&mut self) {
        self.inside = None;
    }

    fn block(&mut self, content: Content) -> Checked {
        match content {
            Content::Partitions(partitions) => {
                if self.inside.is_some() {
                    return Err("a large partition has no end before the next block of partitions");
                }
                for partition in partitions {
                    let (header, fragments) = partition.map_err(|error| error.what)?;
                    self.start(&header)?;
                    self.items(Items {
                        fragments,
                        is_last: true,
                    })?;
                }
                Ok(())
            }
            Content::First(header, items) => {
                if self.inside.is_some() {
                    return Err("a large partition has no end before the next one");
                }
                self.start(&header)?;
                self.items(items)
            }
            Content::More(open, items) => {
                let Some(inside) = &self.inside else {
                    return Err("a block goes on with a partition that has no beginning");
                };
                if inside.open != open {
                    return Err("a block begins with another range deletion than the one before ended with");
                }
                self.items(items)
            }
        }
    }

    fn start(&mut self, header: &Header) -> Checked {
        let key = header.decorated_key();
        self.inside = Some(Inside::default());
        self.partitions += 1;
        self.first.get_or_insert_with(|| key.clone());
        let is_in_order = self.last.as_ref().is_none_or(|last| *last < key);
        self.last = Some(key);
        match is_in_order {
            true => Ok(()),
            false => Err("partitions are out of order"),
        }
    }

    fn items(&mut self, items: Items) -> Checked {
        let Some(inside) = &mut self.inside else {
            return Ok(());
        };
        for fragment in items.fragments {
            let place = match fragment {
                Fragment::Row(key, _) => {
                    self.rows += 1;
                    key.0
                }
                Fragment::DeletionChange(position, deletion) => {
                    inside.open = deletion;
                    position.0
                }
                _ => continue,
            };
            if inside.place.as_ref().is_some_and(|last| *last >= place) {
                return Err("rows are out of order");
            }
            inside.place = Some(place);
        }
        if items.is_last {
            let is_open = inside.open.is_some();
            self.inside = None;
            if is_open {
                return Err("a partition ends with an open range deletion");
            }
        }
        Ok(())
    }

    fn check_statistics(&self, sstable: &Sstable, faults: &mut Faults) {
        let path = self.descriptor.path(Component::Statistics);
        let statistics = &sstable.statistics;
        let mut differ = |what: &str, said: String, found: String| {
            if said != found {
                let what = format!("statistics say {what} {said}, Data holds {found}");
                faults.add(Error::corrupt(&path, 0, what));
            }
        };
        let count = |number: u64| number.to_string();
        differ("partitions", count(statistics.partitions), count(self.partitions));
        differ("rows", count(statistics.rows), count(self.rows));
        let key = |key: Option<&DecoratedKey>| key.map_or(String::new(), |key| format!("{:?}", key.key));
        differ("first key", key(Some(&sstable.first)), key(self.first.as_ref()));
        differ("last key", key(Some(&sstable.last)), key(self.last.as_ref()));
    }
}
