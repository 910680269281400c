//! Sstables without a node: what tools show, check and salvage.
//!
//! Nothing here needs the schema: what a table's columns are called stands in its Statistics. Never: changes a file that
//! counts; a scrub writes a new sstable and keeps the old files in a folder beside.

mod scrub;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use ceto_env::{Disk, Env};
use ceto_model::{PartitionRange, ReadTarget, Slice};

pub use scrub::{Loss, Scrubbed, scrub};
pub use verify::verify;

use super::block_cache::BlockCache;
use super::descriptor::{Component, Descriptor};
use super::head::unknown_version;
use super::reader::SstableReader;
use super::statistics::Statistics;
use super::table::Sstable;
use crate::error::{Error, Result};
use crate::reader::{Fragment, FragmentSource, Scan, Step};

/// What a visitor of fragments wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visit {
    /// The next fragment.
    Go,
    /// The next partition.
    SkipPartition,
    /// Nothing more.
    Stop,
}

/// An sstable opened by a tool.
pub struct SstableFiles {
    sstable: Rc<Sstable>,
}

impl SstableFiles {
    /// Opens an sstable that counts. Error: it is damaged where that shows at once, or is of another version.
    pub async fn open(env: Rc<dyn Env>, descriptor: Descriptor) -> Result<SstableFiles> {
        let sstable = Sstable::open(env, descriptor, Rc::new(BlockCache::new(0))).await?;
        Ok(SstableFiles { sstable })
    }

    /// What it says about itself.
    pub fn statistics(&self) -> &Statistics {
        &self.sstable.statistics
    }

    /// Its files and their sizes in bytes.
    pub async fn sizes(&self, disk: &dyn Disk) -> Result<Vec<(Component, u64)>> {
        let mut sizes = Vec::new();
        for component in Component::ALL {
            match disk.open(&self.sstable.descriptor.path(component)).await {
                Ok(file) => sizes.push((component, file.size())),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sizes)
    }

    /// Shows the fragments of one partition, or of a range of them, to `visit`, in order.
    pub async fn visit(&self, target: &ReadTarget, mut visit: impl FnMut(Fragment) -> Visit) -> Result<()> {
        let (slices, bytes_read) = ([Slice::full()], Cell::new(0));
        let scan = Scan {
            target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let mut reader = SstableReader::new(self.sstable.clone(), scan, false, &bytes_read);
        loop {
            let fragment = match reader.step()? {
                Step::End => return Ok(()),
                Step::Load => {
                    reader.load().await?;
                    continue;
                }
                Step::Fragment(fragment) => fragment,
            };
            match visit(fragment) {
                Visit::Go => {}
                Visit::SkipPartition => reader.skip_partition(),
                Visit::Stop => return Ok(()),
            }
        }
    }

    /// Shows every fragment.
    pub async fn visit_all(&self, visit: impl FnMut(Fragment) -> Visit) -> Result<()> {
        self.visit(&ReadTarget::Range(PartitionRange::full()), visit)
            .await
    }
}

/// Checks what a snapshot has noted beside its sstables: the manifest, and the schema by the manifest's checksum. A folder
/// without a manifest is none of a snapshot.
pub async fn verify_notes(disk: &dyn Disk, dir: &Path) -> Result<()> {
    crate::snapshot::verify_notes(disk, dir).await
}

/// The sstables that a path means: all that count in a table's folder, or the one that a file belongs to. Sorted by
/// shard and generation.
pub async fn find(disk: &dyn Disk, path: &Path) -> Result<Vec<Descriptor>> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(version) = Descriptor::other_version(name) {
        return Err(unknown_version(path, version));
    }
    if let Some((descriptor, Some(_))) = Descriptor::parse(parent.unwrap_or(Path::new(".")), name) {
        return Ok(vec![descriptor]);
    }
    let mut found = Vec::new();
    for entry in disk.list_dir(path).await? {
        if let Some(version) = Descriptor::other_version(&entry.name) {
            return Err(unknown_version(&path.join(&entry.name), version));
        }
        if let Some((descriptor, Some(Component::Toc))) = Descriptor::parse(path, &entry.name) {
            found.push(descriptor);
        }
    }
    if found.is_empty() {
        let text = format!("{} holds no sstable", path.display());
        return Err(Error::Layout(text.into()));
    }
    found.sort_unstable();
    Ok(found)
}
