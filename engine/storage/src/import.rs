//! Taking in sstables that somebody has put into a table's folder, or into another one.
//!
//! Each shard takes the part it owns. Where an sstable was written by this table for exactly this shard, and says
//! nothing about the commitlog that the table does not know already, that is a link under a new number; else the
//! shard's partitions are written anew. What is taken in twice merges away, so a crash in between does no harm.
//!
//! Invariants: never takes what the table itself is writing, or is about to remove; never lets the commitlog
//! positions of another node's sstable hide entries of this one's log. `check_import` comes before, for every sstable of a
//! request: where one is damaged, none is taken.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::Disk;
use ceto_model::{PartitionRange, ReadTarget, Slice, TableId};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::reader::{Fragment, FragmentSource, Scan, Step};
use crate::recovery::TableFiles;
use crate::snapshot::{link_as, verify_notes};
use crate::sstable::{
    Component, Descriptor, HeaderColumn, SerializationHeader, Sstable, SstableReader, SstableWriter,
    remove_files, write_toc,
};
use crate::table::TableStore;
use crate::transaction::Transaction;

/// A file that is about to be removed is gone after this.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(1);

impl Database {
    /// Whole sstables in the table's folder that the table does not know, of this shard or (on the first shard) of one
    /// that does not exist.
    pub async fn unknown_sstables(&self, table: TableId) -> Result<Vec<Descriptor>> {
        let table = self.table(table)?;
        let first = self.unknown_now(&table).await?;
        if first.is_empty() {
            return Ok(first);
        }
        self.env.tasks().sleep(REMOVAL_PATIENCE).await;
        let second = self.unknown_now(&table).await?;
        Ok(first.into_iter().filter(|found| second.contains(found)).collect())
    }

    async fn unknown_now(&self, table: &TableStore) -> Result<Vec<Descriptor>> {
        let disk = self.env.disk();
        let files = TableFiles::list(&*disk, &table.dir).await?;
        let mut replaced = Vec::new();
        for path in files.transactions() {
            replaced.extend(Transaction::replaced_by(&*disk, path).await?);
        }
        let (shard, count) = (self.options.shard, self.options.shard_count);
        let is_ours = |other: u16| other == shard || (other >= count && shard == 0);
        let unknown = files.sstables.into_iter().filter(|descriptor| {
            is_ours(descriptor.shard)
                && !(descriptor.shard == shard && table.knows(descriptor.generation))
                && !replaced.contains(descriptor)
        });
        Ok(unknown.collect())
    }

    /// All sstables in a folder that `table` is to take. Error: one of them has no table of contents, or the folder is the
    /// table's own.
    pub async fn sstables_in(&self, table: TableId, dir: &Path) -> Result<Vec<Descriptor>> {
        if self.table(table)?.dir == dir {
            let text = format!("{} is the table's own folder: use refresh", dir.display());
            return Err(Error::Layout(text.into()));
        }
        let files = TableFiles::list(&*self.env.disk(), dir).await?;
        if let Some(part) = files.incomplete().next() {
            let toc = part.path(Component::Toc);
            let text = format!(
                "{} is missing: copy all files of the sstable, or take its others away",
                toc.display()
            );
            return Err(Error::Layout(text.into()));
        }
        Ok(files.sstables.into_iter().collect())
    }

    /// What lies beside the sstables of a snapshot is whole: its manifest, and the schema that the manifest knows.
    pub async fn check_snapshot_notes(&self, dir: &Path) -> Result<()> {
        verify_notes(&*self.env.disk(), dir).await
    }

    /// Whether `import_sstable` may take an sstable: it opens, and its columns are the table's. With `verify` every block and
    /// digest is checked.
    pub async fn check_import(&self, table: TableId, from: &Descriptor, verify: bool) -> Result<()> {
        let table = self.table(table)?;
        let sstable = Sstable::open(self.env.clone(), from.clone(), self.cache.clone()).await?;
        self.check_table(&table, &sstable)?;
        if verify {
            sstable.verify().await?;
        }
        Ok(())
    }

    /// Takes this shard's part of an sstable into a table. The files stay.
    pub async fn import_sstable(&self, table: TableId, from: &Descriptor) -> Result<()> {
        let table = self.table(table)?;
        self.poison.check()?;
        let sstable = Sstable::open(self.env.clone(), from.clone(), self.cache.clone()).await?;
        self.check_table(&table, &sstable)?;
        let count = self.options.shard_count;
        let is_of_this_layout = sstable.statistics.shard_count == count;
        if is_of_this_layout && sstable.first.token.shard(count) != self.options.shard {
            return Ok(());
        }
        let through = sstable.statistics.flushed_through.unwrap_or_default();
        let may_be_linked = is_of_this_layout
            && sstable.statistics.table == table.id
            && sstable.statistics.level == 0
            && through <= table.flushed_through.get();
        // Files under the table's own next numbers would be overwritten.
        table.skip_generation(from.generation);
        let era = table.era();
        let taken = if may_be_linked {
            let descriptor = table.next_descriptor();
            let linked = link_committed(&*self.env.disk(), from, &descriptor).await;
            self.or_removed(&descriptor, linked).await?;
            Some(descriptor)
        } else {
            self.rewrite(&table, &sstable).await?
        };
        let Some(descriptor) = taken else { return Ok(()) };
        let taken = Sstable::open(self.env.clone(), descriptor.clone(), self.cache.clone()).await?;
        if !table.is_in(&era) {
            if let Err(error) = remove_files(&*self.env.disk(), &descriptor).await {
                // The truncation's record stays for it.
                std::mem::forget(era);
                return Err(error);
            }
            return Err(Error::Layout("the table was truncated meanwhile".into()));
        }
        let indexes = table.indexes.borrow().clone();
        for index in &indexes {
            index.distrust(&*self.env.disk()).await?;
        }
        table.add_sstables([taken]);
        table.has_changed.set(true);
        self.compact_when_due(&table);
        for index in &indexes {
            self.rebuild(&table, index).await?;
        }
        Ok(())
    }

    /// Removes the files of an sstable that all shards have taken their part of.
    pub async fn remove_imported(&self, from: &Descriptor) -> Result<()> {
        remove_files(&*self.env.disk(), from).await
    }

    /// Sstables name columns by numbers: they mean the same in the same table, or in one whose columns have the same
    /// numbers, names and types.
    fn check_table(&self, table: &TableStore, sstable: &Sstable) -> Result<()> {
        let of = sstable.statistics.table;
        if of == table.id {
            return Ok(());
        }
        let own = SerializationHeader::of(&table.definition());
        let is_same = |column: &HeaderColumn| {
            let found = own.column(column.id);
            found.is_some_and(|own| {
                (&own.name, own.kind, &own.type_class) == (&column.name, column.kind, &column.type_class)
            })
        };
        let fits = sstable
            .statistics
            .header
            .as_ref()
            .is_some_and(|header| header.columns.iter().all(is_same));
        if fits {
            return Ok(());
        }
        let text = format!(
            "{} is of the table with id {of}, whose columns are not those of {} ({}): create the table from the \
             snapshot's schema.cql",
            sstable.data_path().display(),
            table.name(),
            table.id
        );
        Err(Error::Layout(text.into()))
    }

    /// What was begun under `descriptor` goes when it failed.
    async fn or_removed<T>(&self, descriptor: &Descriptor, result: Result<T>) -> Result<T> {
        if result.is_err()
            && let Err(error) = remove_files(&*self.env.disk(), descriptor).await
        {
            tracing::warn!("{error}; the next start removes it");
        }
        result
    }

    /// This shard's partitions of an sstable as a new one; None when there are none.
    async fn rewrite(&self, table: &TableStore, sstable: &Rc<Sstable>) -> Result<Option<Descriptor>> {
        let descriptor = table.next_descriptor();
        let rewritten = self.rewrite_as(table, sstable, descriptor.clone()).await;
        self.or_removed(&descriptor, rewritten).await
    }

    async fn rewrite_as(
        &self,
        table: &TableStore,
        sstable: &Rc<Sstable>,
        descriptor: Descriptor,
    ) -> Result<Option<Descriptor>> {
        let disk = self.env.disk();
        let options = self.writer_options(table, sstable.statistics.partitions, None);
        let mut writer = SstableWriter::create(disk.clone(), descriptor, options).await?;
        let (target, slices) = (ReadTarget::Range(PartitionRange::full()), [Slice::full()]);
        let scan = Scan {
            target: &target,
            slices: &slices,
            first_partition_slices: None,
            reversed: false,
        };
        let disk_bytes = Cell::new(0);
        let mut reader = SstableReader::new(sstable.clone(), scan, false, &disk_bytes);
        let (shard, count) = (self.options.shard, self.options.shard_count);
        let mut is_ours = false;
        loop {
            let fragment = match reader.step()? {
                Step::End => break,
                Step::Load => {
                    reader.load().await?;
                    continue;
                }
                Step::Fragment(fragment) => fragment,
            };
            if let Fragment::PartitionStart(key, _) = &fragment {
                is_ours = key.token.shard(count) == shard;
            }
            if is_ours {
                writer.push(fragment)?;
            }
            if writer.is_full() {
                writer.write_out().await?;
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        let descriptor = writer.finish().await?;
        if let Some(descriptor) = &descriptor {
            write_toc(&*disk, descriptor).await?;
        }
        Ok(descriptor)
    }
}

/// Links an sstable under another name so that after a crash it is there whole, or without its table of contents.
async fn link_committed(disk: &dyn Disk, from: &Descriptor, to: &Descriptor) -> Result<()> {
    link_as(disk, from, to, false).await?;
    disk.sync_dir(&to.dir).await?;
    disk.hard_link(&from.path(Component::Toc), &to.path(Component::Toc))
        .await?;
    Ok(disk.sync_dir(&to.dir).await?)
}
