//! Group 0's file: its log, its vote, and where its state machine is. `group0.redb` in the data folder.
//!
//! ```text
//! log    index: u64 -> entry                 JSON, as the Raft library describes it
//! state  "vote"     -> vote                  saved before it is answered
//!        "purged"   -> log id                entries up to here are gone
//!        "applied"  -> Applied               where the state machine is, and the members
//!        "snapshot" -> Snapshot              the last snapshot: what a node that is far behind is sent
//! ```
//!
//! Log, vote and snapshots are synced when they are written. What was applied is not: commands are idempotent and are
//! applied again after a crash.
//!
//! Writes go on another thread, one at a time, for a sync takes milliseconds.
//!
//! Never: an entry acknowledged before it is synced, a hole in the log.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, StorageIOError};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::types::{Entry, LogId, Position, StorageError, StoredMembership, TypeConfig, Vote};
use crate::cluster::members::Members;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

/// Memory for redb's pages: the file is small and rarely read.
const CACHE_BYTES: usize = 1 << 20;

/// Commands that are known when they are proposed again.
const RECENT_MAX: usize = 64;

/// Where the state machine is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) position: Position,
    pub(crate) members: Members,
    /// Chosen by the node that founded the cluster; two clusters of the same name differ in it.
    pub(crate) group: Option<uuid::Uuid>,
    /// The last commands that were applied, at most [`RECENT_MAX`], the oldest first: one that is proposed again, because
    /// its proposer did not hear what came of it, is known.
    pub(crate) recent: Vec<uuid::Uuid>,
}

impl Applied {
    /// Notes a command that was applied.
    pub(crate) fn remember(&mut self, command: uuid::Uuid) {
        self.recent.push(command);
        let surplus = self.recent.len().saturating_sub(RECENT_MAX);
        self.recent.drain(..surplus);
    }
}

/// Group 0's file, open.
#[derive(Clone)]
pub(crate) struct GroupFile {
    database: Arc<Database>,
    /// Held while something is written: Raft's writes must not overtake each other.
    writing: Arc<Mutex<()>>,
}

/// Why the file could not be read or written; one line.
#[derive(Debug)]
pub(crate) struct FileError(String);

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "group 0's file: {}", self.0)
    }
}

impl std::error::Error for FileError {}

fn failed(error: impl std::fmt::Display) -> FileError {
    FileError(error.to_string())
}

/// Changes of one transaction.
#[derive(Default)]
struct Batch {
    entries: Vec<(u64, Vec<u8>)>,
    /// Indexes whose entries go.
    removed: Option<(Bound<u64>, Bound<u64>)>,
    state: Vec<(&'static str, Vec<u8>)>,
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, FileError> {
    serde_json::to_vec(value).map_err(failed)
}

impl GroupFile {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<GroupFile, FileError> {
        let named = |error: &dyn std::fmt::Display| FileError(format!("{}: {error}", path.display()));
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| named(&error))?;
        let file = GroupFile {
            database: Arc::new(database),
            writing: Arc::default(),
        };
        if file.read_state::<Applied>("applied").is_err() {
            // The first start: the tables are made.
            file.write_now(Batch::default(), Durability::Immediate)
                .map_err(|error| named(&error))?;
        }
        Ok(file)
    }

    fn write_now(&self, batch: Batch, durability: Durability) -> Result<(), FileError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(durability).map_err(failed)?;
        {
            let mut log = transaction.open_table(LOG).map_err(failed)?;
            if let Some(range) = batch.removed {
                log.retain_in::<u64, _>(range, |_, _| false).map_err(failed)?;
            }
            for (index, entry) in &batch.entries {
                log.insert(index, entry.as_slice()).map_err(failed)?;
            }
            let mut state = transaction.open_table(STATE).map_err(failed)?;
            for (key, value) in &batch.state {
                state.insert(key, value.as_slice()).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }

    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), FileError> {
        let _turn = self.writing.lock().await;
        let file = self.clone();
        let written = tokio::task::spawn_blocking(move || file.write_now(batch, durability));
        written.await.map_err(failed)?
    }

    fn read_state<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, FileError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(STATE).map_err(failed)?;
        match table.get(key).map_err(failed)? {
            Some(value) => serde_json::from_slice(value.value()).map(Some).map_err(failed),
            None => Ok(None),
        }
    }

    fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, FileError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(LOG).map_err(failed)?;
        let mut entries = Vec::new();
        for entry in table.range(range).map_err(failed)? {
            let (_, value) = entry.map_err(failed)?;
            entries.push(serde_json::from_slice(value.value()).map_err(failed)?);
        }
        Ok(entries)
    }

    /// Where the state machine was at the last sync.
    pub(crate) fn applied(&self) -> Result<Applied, FileError> {
        Ok(self.read_state("applied")?.unwrap_or_default())
    }

    /// Notes where the state machine is.
    pub(crate) async fn save_applied(
        &self,
        applied: &Applied,
        durability: Durability,
    ) -> Result<(), FileError> {
        let batch = Batch {
            state: vec![("applied", json(applied)?)],
            ..Batch::default()
        };
        self.write(batch, durability).await
    }

    /// Keeps a snapshot in the place of the last one; with `applied`, where the state machine is thereby.
    pub(crate) async fn save_snapshot<S: Serialize>(
        &self,
        snapshot: &S,
        applied: Option<&Applied>,
    ) -> Result<(), FileError> {
        let mut state = vec![("snapshot", json(snapshot)?)];
        if let Some(applied) = applied {
            state.push(("applied", json(applied)?));
        }
        let batch = Batch {
            state,
            ..Batch::default()
        };
        self.write(batch, Durability::Immediate).await
    }

    /// The last snapshot.
    pub(crate) fn snapshot<S: DeserializeOwned>(&self) -> Result<Option<S>, FileError> {
        self.read_state("snapshot")
    }

    /// Whether there is a log or a vote: the node has been in a group.
    pub(crate) fn is_used(&self) -> Result<bool, FileError> {
        Ok(self.read_state::<Vote>("vote")?.is_some())
    }
}

fn reading(error: &FileError) -> StorageError {
    StorageIOError::read_logs(error).into()
}

fn writing(error: &FileError) -> StorageError {
    StorageIOError::write_logs(error).into()
}

impl RaftLogReader<TypeConfig> for GroupFile {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(range).map_err(|error| reading(&error))
    }
}

impl RaftLogStorage<TypeConfig> for GroupFile {
    type LogReader = GroupFile;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let read = || {
            let purged: Option<LogId> = self.read_state("purged")?;
            let transaction = self.database.begin_read().map_err(failed)?;
            let table = transaction.open_table(LOG).map_err(failed)?;
            let last = match table.last().map_err(failed)? {
                Some((_, value)) => {
                    let entry: Entry = serde_json::from_slice(value.value()).map_err(failed)?;
                    Some(entry.log_id)
                }
                None => purged,
            };
            Ok(LogState {
                last_purged_log_id: purged,
                last_log_id: last,
            })
        };
        read().map_err(|error| reading(&error))
    }

    async fn get_log_reader(&mut self) -> GroupFile {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let save = async {
            let batch = Batch {
                state: vec![("vote", json(vote)?)],
                ..Batch::default()
            };
            self.write(batch, Durability::Immediate).await
        };
        save.await
            .map_err(|error: FileError| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.read_state("vote")
            .map_err(|error| StorageIOError::read_vote(&error).into())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded: Result<BTreeMap<u64, Vec<u8>>, FileError> = entries
            .into_iter()
            .map(|entry| Ok((entry.log_id.index, json(&entry)?)))
            .collect();
        let batch = Batch {
            entries: encoded.map_err(|error| writing(&error))?.into_iter().collect(),
            ..Batch::default()
        };
        let written = self.write(batch, Durability::Immediate).await;
        written.map_err(|error| writing(&error))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let batch = Batch {
            removed: Some((Bound::Included(log_id.index), Bound::Unbounded)),
            ..Batch::default()
        };
        let written = self.write(batch, Durability::Immediate).await;
        written.map_err(|error| writing(&error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let purge = async {
            let batch = Batch {
                removed: Some((Bound::Unbounded, Bound::Included(log_id.index))),
                state: vec![("purged", json(&log_id)?)],
                ..Batch::default()
            };
            self.write(batch, Durability::Immediate).await
        };
        purge.await.map_err(|error: FileError| writing(&error))
    }
}
