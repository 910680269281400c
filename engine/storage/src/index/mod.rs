//! Secondary indexes of a shard: hidden tables beside the tables they index.
//!
//! What an entry is, and why none is ever missing, is told in `ceto_model::index`. Here:
//! - A write adds its entries to the memtables of the indexes in the step in which it comes into the table's own, under
//!   its own place in the commitlog. The commitlog has only the write: a replay makes the entries again, for those
//!   indexes that do not have them in sstables yet.
//! - An index that is new, or whose files cannot be trusted, is built from the table while writes go on ([`build`]). Until
//!   then reads do without it.
//! - A read walks over entries and reads the rows that they point at ([`read`]). Entries that tell no truth any more are
//!   deleted then.
//! - A compaction does not look for such entries: it would have to read the row of every entry it meets, from anywhere in the
//!   table, and as often as the entry is compacted; the read that walks over an entry has its row anyway.
//!
//! Table and index are flushed apart, and a power loss may take what the commitlog has not synced. So neither comes to disk
//! before the log: a row whose entry was in memory only would not be found, nor one that lost what an entry was deleted for.
//! For the same reason a build ends with a sync of the log, and a start writes what a killed process left to the kernel anew.
//!
//! An index of vectors has no entries: it is a graph in memory ([`vector`]), built anew after each start.
//!
//! One partition for each index, ordered by value, and not one for each value: so a range of values is a slice, and an
//! index is one thing to build, check and drop. Sstables have row indexes within partitions, so a slice of a large
//! partition costs what a partition of its own would, but for the bloom filter.
//!
//! Trust: a file `ceto-built-<shard>` in the index's folder says for how many shards it was built. Without it, or for
//! another number, the files of the shard are removed and the index is built anew. So nobody has to move entries when
//! the number of shards changes, and a build that a crash interrupts starts again. Tables that are not in the commitlog
//! have no such file: after a crash nobody could say which entries are missing.

mod build;
mod nearest;
mod read;
mod vector;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ceto_env::Disk;
use ceto_model::{Index, Mutation, Table, TableId};
use uuid::Uuid;

use crate::commitlog::ReplayPosition;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::recovery::TableFiles;
use crate::sstable::remove_files;
use crate::table::{TableStore, add, table_dir};
use crate::truncation::Truncation;
pub(crate) use vector::VectorGraph;

/// What the names of files that say that an index is built begin with.
const BUILT: &str = "ceto-built-";
/// Largest file that says that an index is built, in bytes.
const BUILT_SIZE_MAX: u64 = 64;
/// The graph of one index of vectors may have one part in this many of a shard's memory.
const VECTORS_PART: usize = 2;

/// An index of a table on one shard.
pub(crate) struct IndexStore {
    definition: RefCell<Arc<Index>>,
    /// The hidden table.
    pub(crate) store: Rc<TableStore>,
    /// Has an entry for everything in the table.
    pub(crate) is_built: Cell<bool>,
    pub(crate) is_building: Cell<bool>,
    /// How far the build is that runs, or the last of those that run.
    pub(crate) progress: Cell<Option<BuildProgress>>,
    /// Of an index of vectors: what it has in place of entries.
    pub(crate) vectors: Option<RefCell<VectorGraph>>,
}

/// A build that runs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct BuildProgress {
    pub(crate) id: Uuid,
    pub(crate) started: Instant,
    /// Part of the ring that has been read, from 0 to 1.
    pub(crate) done: f64,
}

impl IndexStore {
    /// The definition it has now.
    pub(crate) fn definition(&self) -> Arc<Index> {
        self.definition.borrow().clone()
    }

    fn built_path(&self) -> PathBuf {
        built_path(&self.store.dir, self.store.shard)
    }

    /// Says on disk that it is built.
    async fn note_built(&self, disk: &dyn Disk, shard_count: u16) -> Result<()> {
        let text = format!("shards {shard_count}\n");
        Ok(disk.write_file(&self.built_path(), text.as_bytes()).await?)
    }

    /// Takes that back: what is on disk is not to be trusted until it is said again.
    pub(crate) async fn distrust(&self, disk: &dyn Disk) -> Result<()> {
        remove_built(disk, &self.built_path()).await
    }
}

fn built_path(dir: &Path, shard: u16) -> PathBuf {
    dir.join(format!("{BUILT}{shard}"))
}

/// Takes back for all shards that the index of this folder is built.
pub(crate) async fn distrust_all(disk: &dyn Disk, dir: &Path) -> Result<()> {
    for entry in disk.list_dir(dir).await? {
        if entry.name.starts_with(BUILT) {
            remove_built(disk, &dir.join(entry.name)).await?;
        }
    }
    Ok(())
}

async fn remove_built(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove_file(path).await {
        Err(error) if error.is_not_found() => return Ok(()),
        removed => removed?,
    }
    let dir = path.parent().expect("the file lies in the folder of an index");
    match disk.sync_dir(dir).await {
        // Another shard was done with the dropped index first, and removed the folder.
        Err(error) if error.is_not_found() => Ok(()),
        synced => Ok(synced?),
    }
}

impl Database {
    /// Adds what a write means to the indexes of its table.
    pub(crate) fn insert_entries(
        &self,
        table: &TableStore,
        mutation: &Mutation,
        position: Option<ReplayPosition>,
    ) {
        let indexes = table.indexes.borrow();
        if indexes.is_empty() {
            return;
        }
        let base = table.definition();
        for index in &*indexes {
            if let Some(vectors) = &index.vectors {
                self.insert_vectors(index, &mut vectors.borrow_mut(), mutation);
                continue;
            }
            // A replay: it has the entries already.
            if position.is_some_and(|position| position < index.store.flushed_through.get()) {
                continue;
            }
            let definition = index.definition.borrow();
            if let Some(entries) = definition.entries(&base, &mutation.key, &mutation.partition) {
                let mut mutation = Mutation::new(definition.id(), definition.key());
                mutation.partition = entries;
                self.insert_quietly(&index.store, mutation, position);
                table.active().note_part();
            }
        }
    }

    /// Takes the vectors of a write into a graph. One that comes to need too much memory is given up.
    fn insert_vectors(&self, index: &IndexStore, vectors: &mut VectorGraph, mutation: &Mutation) {
        vectors.apply(mutation);
        if vectors.is_given_up() {
            index.is_built.set(false);
        }
        // In the next second all of them are added up.
        let memory = self.vector_memory.get().max(vectors.memory());
        self.vector_memory.set(memory);
    }

    /// Adds up the memory of the graphs of vectors.
    pub(crate) fn measure_vectors(&self) {
        let tables = self.tables.borrow();
        let of_table = |table: &Rc<TableStore>| -> usize {
            let indexes = table.indexes.borrow();
            let graphs = indexes.iter().filter_map(|index| index.vectors.as_ref());
            graphs.map(|graph| graph.borrow().memory()).sum()
        };
        self.vector_memory.set(tables.values().map(of_table).sum());
    }

    /// Applies to a hidden table's memtable.
    fn insert_quietly(&self, store: &TableStore, mutation: Mutation, position: Option<ReplayPosition>) {
        let grown = {
            let memtable = store.active();
            memtable.note_write(|| self.env.clock().now());
            memtable.apply(mutation, position)
        };
        self.memory.set(self.memory.get().saturating_add_signed(grown));
        add(&store.counters.writes, 1);
    }

    /// Opens the hidden table of an index.
    pub(crate) async fn open_index(&self, index: &Arc<Index>, is_durable: bool) -> Result<Rc<IndexStore>> {
        let dir = table_dir(&self.options.data_dir, &index.table);
        let disk = self.env.disk();
        let path = built_path(&dir, self.options.shard);
        let wanted = format!("shards {}\n", self.options.shard_count);
        let is_built = match disk.read_file(&path, BUILT_SIZE_MAX).await {
            Err(error) if error.is_not_found() => false,
            text => text?.as_ref() == wanted.as_bytes() && is_durable,
        };
        if !is_built {
            self.clear_index(&dir).await?;
        }
        let store = self.open_table(&index.table).await?;
        store.is_durable.set(is_durable);
        let vectors = index.vectors().map(|(column, dimension, similarity)| {
            let memory_max = self.options.memory_space / VECTORS_PART;
            RefCell::new(VectorGraph::new(column, dimension, similarity, memory_max))
        });
        Ok(Rc::new(IndexStore {
            definition: RefCell::new(index.clone()),
            vectors,
            store,
            is_built: Cell::new(is_built),
            is_building: Cell::new(false),
            progress: Cell::new(None),
        }))
    }

    /// Removes this shard's files of an index; the first shard also those of shards that do not exist any more.
    async fn clear_index(&self, dir: &Path) -> Result<()> {
        let disk = self.env.disk();
        let files = match TableFiles::list(&*disk, dir).await {
            Err(error) if error.is_not_found() => return Ok(()),
            files => files?,
        };
        let (own, count) = (self.options.shard, self.options.shard_count);
        let is_ours = |shard: u16| shard == own || (own == 0 && shard >= count);
        let mut shards: Vec<u16> = files.sstables.iter().map(|descriptor| descriptor.shard).collect();
        shards.extend(&files.truncated);
        shards.push(own);
        shards.sort_unstable();
        shards.dedup();
        let mut files = files;
        for shard in shards.into_iter().filter(|shard| is_ours(*shard)) {
            remove_built(&*disk, &built_path(dir, shard)).await?;
            files = files.finish_interrupted(&*disk, dir, Some(shard)).await?;
            for descriptor in files
                .sstables
                .iter()
                .filter(|descriptor| descriptor.shard == shard)
            {
                remove_files(&*disk, descriptor).await?;
            }
            if files.truncated.contains(&shard) {
                match Truncation::remove(&*disk, dir, shard).await {
                    Err(crate::Error::Disk(error)) if error.is_not_found() => {}
                    removed => removed?,
                }
            }
            files = TableFiles::list(&*disk, dir).await?;
        }
        Ok(())
    }

    /// Gives a table the indexes of its definition; those that it had and has no more are to be dropped.
    pub(crate) async fn set_indexes(&self, definition: &Arc<Table>, is_durable: bool) -> Result<()> {
        let table = self.table(definition.id)?;
        let mut opened = Vec::new();
        for index in definition.indexes() {
            let known = table.index(index.id());
            if let Some(known) = known {
                *known.definition.borrow_mut() = index.clone();
                known.store.define(index.table.clone());
                if !is_durable {
                    known.distrust(&*self.env.disk()).await?;
                }
                known.store.is_durable.set(is_durable);
            } else {
                let index = self.open_index(index, is_durable).await?;
                index.store.is_recovered.set(self.recovery.borrow().is_none());
                opened.push(index);
            }
        }
        let is_wanted = |index: &Rc<IndexStore>| {
            let id = index.store.id;
            definition.indexes().iter().any(|wanted| wanted.id() == id)
        };
        let gone: Vec<Rc<IndexStore>> = {
            let mut indexes = table.indexes.borrow_mut();
            // Another call may have opened it meanwhile.
            opened.retain(|new: &Rc<IndexStore>| !indexes.iter().any(|known| known.store.id == new.store.id));
            let mut tables = self.tables.borrow_mut();
            for index in &opened {
                tables.insert(index.store.id, index.store.clone());
            }
            indexes.extend(opened.iter().cloned());
            let (kept, gone) = indexes.drain(..).partition(is_wanted);
            *indexes = kept;
            gone
        };
        for index in gone {
            self.drop_index(&index).await?;
        }
        if self.recovery.borrow().is_none() {
            for index in opened {
                self.build_when_due(&table, &index).await?;
            }
        }
        Ok(())
    }

    /// What an index has is on its way to disk with what its table has: a later start may trust it.
    pub(crate) async fn trust_index(&self, table: &TableStore, index: &IndexStore) -> Result<()> {
        if !table.is_durable.get() || index.store.is_dropped.get() || index.vectors.is_some() {
            return Ok(());
        }
        index
            .note_built(&*self.env.disk(), self.options.shard_count)
            .await
    }

    /// Forgets an index that its table does not have any more, and removes its files.
    pub(crate) async fn drop_index(&self, index: &IndexStore) -> Result<()> {
        let distrusted = index.distrust(&*self.env.disk()).await;
        distrusted.and(self.drop_store(&index.store).await)
    }

    /// Builds the indexes of these names anew, while what they have goes on to be used. Error: there is none of that name.
    pub async fn rebuild_indexes(&self, table: TableId, names: &[String]) -> Result<()> {
        let table = self.table(table)?;
        let mut wanted = Vec::new();
        for name in names {
            let indexes = table.indexes.borrow();
            let found = indexes
                .iter()
                .find(|index| *index.definition.borrow().definition.name == **name);
            let Some(found) = found else {
                let text = format!("{} has no index {name} that could be built", table.name());
                return Err(Error::Layout(text.into()));
            };
            wanted.push(found.clone());
        }
        for index in wanted {
            self.rebuild(&table, &index).await?;
        }
        Ok(())
    }

    /// The indexes of a table, each with whether it is built on this shard; None when there is no such table.
    pub fn index_states(&self, table: TableId) -> Option<Vec<(Arc<str>, bool)>> {
        let table = self.table(table).ok()?;
        let indexes = table.indexes.borrow();
        let state = |index: &Rc<IndexStore>| {
            let name = index.definition.borrow().definition.name.clone();
            (name, index.is_built.get())
        };
        Some(indexes.iter().map(state).collect())
    }
}
