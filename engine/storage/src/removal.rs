//! Truncating and dropping tables.

use std::any::Any;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use ceto_env::{DiskError, Env, TaskQueue};
use ceto_model::{TableId, Timestamp};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::sstable::{Descriptor, remove_files};
use crate::table::{Era, TableStore, View};
use crate::truncation::Truncation;
use crate::wait::{Event, carried_through};

/// Free bytes that a truncation wants to see: a record and its temporary file, a block each.
const RECORD_SPACE: u64 = 16 << 10;

impl Database {
    /// Removes all that the table holds now, whatever its timestamps; `truncated_at` is noted with it. Writes that come
    /// while it runs may or may not survive, later ones do. Given up in its middle it goes on by itself.
    pub async fn truncate(&self, table: TableId, truncated_at: Timestamp) -> Result<()> {
        let table = self.table(table)?;
        self.poison.check()?;
        self.check_space(&table).await?;
        let this = self.this.upgrade().expect("a method of a living database runs");
        let work = async move { this.truncate_store(&table, truncated_at).await };
        carried_through(self.env.tasks(), TaskQueue::Statement, work).await
    }

    async fn truncate_store(&self, table: &Rc<TableStore>, truncated_at: Timestamp) -> Result<()> {
        let indexes = table.indexes.borrow().clone();
        // Until all of it is done an index may have what its table has not: a crash in between has it built anew.
        for index in &indexes {
            index.distrust(&*self.env.disk()).await?;
        }
        for index in &indexes {
            index.store.take_record().await;
        }
        table.take_record().await;
        // In one step, so that no write comes between the table and its indexes.
        let cleared: Vec<_> = std::iter::once(table)
            .chain(indexes.iter().map(|index| &index.store))
            .map(|store| (store, self.clear(store, truncated_at), store.era()))
            .collect();
        for vectors in indexes.iter().filter_map(|index| index.vectors.as_ref()) {
            vectors.borrow_mut().clear();
        }
        let mut outcome = Ok(());
        for (store, cleared, era) in cleared {
            let done = self.make_void(store, cleared, |truncation| {
                Rc::new(VoidFiles {
                    env: self.env.clone(),
                    table: store.clone(),
                    era,
                    truncation,
                })
            });
            // After a failure too: each has to give its record back.
            outcome = outcome.and(done.await);
        }
        outcome?;
        for index in indexes.iter().filter(|index| index.is_built.get()) {
            self.trust_index(table, index).await?;
        }
        Ok(())
    }

    /// Forgets a table and removes its files, when no reader uses them any more. Fine when it is not known.
    pub async fn drop_table(&self, table: TableId) -> Result<()> {
        let Ok(table) = self.table(table) else {
            return Ok(());
        };
        let indexes = std::mem::take(&mut *table.indexes.borrow_mut());
        let mut outcome = Ok(());
        for index in indexes {
            // After a failure too: what stays known would be flushed into a folder that is gone.
            outcome = outcome.and(self.drop_index(&index).await);
        }
        outcome.and(self.drop_store(&table).await)
    }

    /// Forgets a table that nothing hangs on any more. Given up in its middle it goes on by itself.
    pub(crate) async fn drop_store(&self, table: &Rc<TableStore>) -> Result<()> {
        self.tables.borrow_mut().remove(&table.id);
        table.is_dropped.set(true);
        let this = self.this.upgrade().expect("a method of a living database runs");
        let table = table.clone();
        let work = async move { this.clear_dropped(&table).await };
        carried_through(self.env.tasks(), TaskQueue::Statement, work).await
    }

    async fn clear_dropped(&self, table: &TableStore) -> Result<()> {
        let now = Timestamp(self.env.clock().unix_micros());
        table.take_record().await;
        let cleared = self.clear(table, now);
        // Before anything of it goes: whoever creates the table again must not get back what the commitlog has.
        let end = [(table.id, cleared.truncation.position)];
        let oldest = self.commitlog.oldest_segment();
        if let Err(error) = self.dropped.note(&*self.env.disk(), end, oldest).await {
            tracing::warn!("a dropped table cannot be created again until this is written: {error}");
        }
        self.make_void(table, cleared, |_| {
            Rc::new(Folder {
                env: self.env.clone(),
                database: self.this.clone(),
                dir: table.dir.clone(),
                shard: table.shard,
            })
        })
        .await
    }

    /// Refuses on a full disk, while nothing has been done.
    async fn check_space(&self, table: &TableStore) -> Result<()> {
        let free = self.env.disk().free_space(&table.dir).await?;
        if free >= RECORD_SPACE {
            return Ok(());
        }
        Err(DiskError {
            operation: "write a truncation's record in",
            path: table.dir.clone(),
            source: ErrorKind::StorageFull.into(),
        }
        .into())
    }

    /// Forgets what a table holds, in memory. The caller has its record.
    fn clear(&self, table: &TableStore, truncated_at: Timestamp) -> Cleared {
        // From here on the record makes void what lies before it; a crash before the removals are done ends in them.
        let truncation = Truncation {
            generation: table.last_generation(),
            position: self.commitlog.end(),
            truncated_at: truncated_at.0,
            last_number: table.last_generation().0,
        };
        let (removed, past) = table.clear(truncation.position);
        for memtable in removed.memtables() {
            self.memory
                .set(self.memory.get().saturating_sub(memtable.memory()));
        }
        let flushing = removed.flushing.iter().map(|flushing| &flushing.memtable);
        for memtable in flushing.chain(&removed.merging) {
            self.flushes.forget(memtable.memory());
        }
        self.clean_cache();
        self.room.notify();
        Cleared {
            truncation,
            removed,
            unreadable: table.unreadable.take(),
            past,
        }
    }

    /// Makes void on disk what was cleared, and gives the table's record back. What `until` returns is dropped when all
    /// files that are void now are gone, those that are being written too.
    async fn make_void(
        &self,
        table: &TableStore,
        cleared: Cleared,
        until: impl FnOnce(Truncation) -> Rc<dyn Any>,
    ) -> Result<()> {
        let Cleared {
            truncation,
            removed,
            unreadable,
            past,
        } = cleared;
        let disk = self.env.disk();
        let written = truncation.write(&*disk, &table.dir, table.shard).await;
        let written = match written {
            // Its folder may be gone: another shard was done first, and this one had no file there. And it does without a
            // record, for it is no longer in the schema: what is removed now may be the space that is needed.
            Err(error) if table.is_dropped.get() && (error.is_not_found() || error.is_disk_full()) => Ok(()),
            written => written,
        };
        if let Err(error) = written {
            // Memory says one thing and disk another: the next start finds all as it was.
            self.poison.stop_writes(&error);
            std::mem::forget(past);
            table.give_record_back();
            return Err(error);
        }
        let until = until(truncation);
        table.give_record_back();
        past.end(until.clone());
        for sstable in removed.sstables {
            sstable.remove_when_unused(until.clone());
        }
        for (descriptor, _) in unreadable {
            if let Err(error) = remove_files(&*disk, &descriptor).await {
                tracing::warn!("cannot remove an sstable that is void: {error}");
                // The record stays, so that the next start removes it.
                std::mem::forget(until.clone());
            }
        }
        self.release_segments();
        Ok(())
    }
}

/// What a table held, and the record that makes it void.
struct Cleared {
    truncation: Truncation,
    removed: View,
    unreadable: Vec<(Descriptor, Error)>,
    past: Rc<Era>,
}

/// Held by the sstables that a truncation has made void. When their files are gone the record says so.
struct VoidFiles {
    env: Rc<dyn Env>,
    table: Rc<TableStore>,
    /// What began with it.
    era: Rc<Era>,
    truncation: Truncation,
}

impl Drop for VoidFiles {
    fn drop(&mut self) {
        let (disk, table) = (self.env.disk(), self.table.clone());
        let (era, truncation) = (self.era.clone(), self.truncation.without_files());
        let record = async move {
            // A later truncation has a record of its own.
            if !table.is_in(&era) || table.is_recording.replace(true) {
                return;
            }
            let written = async {
                // A compaction may have noted since how far the commitlog is in sstables.
                let noted = Truncation::read(&*disk, &table.dir, table.shard).await?;
                let truncation = Truncation {
                    position: truncation.position.max(noted.position),
                    ..truncation
                };
                truncation.write(&*disk, &table.dir, table.shard).await
            };
            if let Err(error) = written.await {
                tracing::warn!("the record of a truncation stays as it is: {error}");
            }
            table.give_record_back();
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(record));
    }
}

/// Nothing to do is as good as done.
fn unless_not_found(error: Error) -> Result<()> {
    if error.is_not_found() { Ok(()) } else { Err(error) }
}

/// The folder of a dropped table, removed when nothing of it is used any more and the other shards are done too; not
/// when the table was created again meanwhile.
struct Folder {
    env: Rc<dyn Env>,
    database: Weak<Database>,
    dir: PathBuf,
    shard: u16,
}

impl Drop for Folder {
    fn drop(&mut self) {
        let (disk, dir, shard) = (self.env.disk(), self.dir.clone(), self.shard);
        let database = self.database.clone();
        let removal = async move {
            let Some(database) = database.upgrade() else {
                return;
            };
            let Some(_leaving) = database.leave(&dir) else {
                return;
            };
            let record = Truncation::remove(&*disk, &dir, shard).await;
            if let Err(error) = record.or_else(unless_not_found) {
                tracing::warn!("a dropped table's record remains: {error}");
            }
            // Fails while other shards have files there; the last one succeeds.
            if let Err(error) = disk.remove_dir(&dir).await {
                tracing::debug!("{error}");
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(removal));
    }
}

/// Folders between two tables: one is opened in it, or the dropped one's is removed, but not both.
#[derive(Default)]
pub(crate) struct FoldersInHand {
    dirs: RefCell<Vec<PathBuf>>,
    changed: Event,
}

/// A folder in hand.
pub(crate) struct FolderInHand {
    database: Rc<Database>,
    dir: PathBuf,
}

impl Drop for FolderInHand {
    fn drop(&mut self) {
        let folders = &self.database.folders;
        folders.dirs.borrow_mut().retain(|dir| *dir != self.dir);
        folders.changed.notify();
    }
}

impl Database {
    fn take_folder(&self, dir: &Path) -> Option<FolderInHand> {
        let mut dirs = self.folders.dirs.borrow_mut();
        if dirs.iter().any(|other| other == dir) {
            return None;
        }
        dirs.push(dir.to_path_buf());
        Some(FolderInHand {
            database: self.this.upgrade()?,
            dir: dir.to_path_buf(),
        })
    }

    /// The folder, for a dropped table's removal: unless another table is in it, or on its way.
    fn leave(&self, dir: &Path) -> Option<FolderInHand> {
        let is_used = self.tables.borrow().values().any(|table| table.dir == dir);
        self.take_folder(dir).filter(|_| !is_used)
    }

    /// The folder, for a table that is opened in it.
    pub(crate) async fn enter(&self, dir: &Path) -> FolderInHand {
        loop {
            let changed = self.folders.changed.listen();
            if let Some(folder) = self.take_folder(dir) {
                return folder;
            }
            changed.await;
        }
    }

    /// Makes the folder of a table whose id was dropped before: other shards may be about to remove it as the dropped
    /// table's, which they cannot once this shard has a file in it.
    pub(crate) async fn hold_folder(&self, dir: &Path) -> Result<()> {
        let (disk, shard) = (self.env.disk(), self.options.shard);
        loop {
            disk.create_dir_all(dir).await?;
            let record = Truncation::read(&*disk, dir, shard).await?;
            match record.write(&*disk, dir, shard).await {
                Err(error) if error.is_not_found() => {}
                written => return written,
            }
        }
    }
}
