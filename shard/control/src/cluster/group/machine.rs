//! Group 0's state machine: the system tables, and the members.
//!
//! A command holds the position it was planned against; when another one came in between it changes nothing and its
//! proposer plans anew. What a command writes is durable in the tables before the machine's position is noted, so a
//! crash in between applies it a second time, with the same timestamps, which changes nothing.
//!
//! A snapshot is what the tables hold, written anew with the highest timestamp of a command; it takes the place of all
//! that a node has.

use std::future::Future;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;

use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{AnyError, BasicNode, EntryPayload, OptionalSend, StorageIOError};
use redb::Durability;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};
use uuid::Uuid;

use super::log::{Applied, FileError, GroupFile};
use super::types::{
    Change, Command, Entry, LogId, MutationBytes, Outcome, SnapshotData, StorageError, StoredMembership,
    TableWrites, TypeConfig,
};

/// What a step on the tables gives.
pub type Step<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// The system tables, as the machine sees them.
pub trait Tables: Send + Sync + 'static {
    /// Makes the writes of the command `id` durable, and installs what holds then.
    fn apply(&self, id: Uuid, writes: TableWrites) -> Step<'_, ()>;

    /// All that the tables hold, as writes with `timestamp`.
    fn contents(&self, timestamp: i64) -> Step<'_, MutationBytes>;

    /// Has the tables hold exactly `contents`, which [`Tables::contents`] gave with `timestamp`.
    fn replace(&self, contents: MutationBytes, timestamp: i64) -> Step<'_, ()>;
}

#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta<Uuid, BasicNode>,
    applied: Applied,
    contents: MutationBytes,
}

/// The machine.
#[derive(Clone)]
pub(crate) struct Machine {
    file: GroupFile,
    tables: Arc<dyn Tables>,
    applied: Arc<watch::Sender<Arc<Applied>>>,
    /// Held while a command is applied or a snapshot is taken.
    turn: Arc<Mutex<()>>,
}

impl Machine {
    /// Goes on where the file says.
    pub(crate) fn new(file: GroupFile, tables: Arc<dyn Tables>) -> Result<Machine, FileError> {
        let applied = file.applied()?;
        Ok(Machine {
            file,
            tables,
            applied: Arc::new(watch::channel(Arc::new(applied)).0),
            turn: Arc::default(),
        })
    }

    /// Where it is, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        self.applied.subscribe()
    }

    fn now(&self) -> Arc<Applied> {
        self.applied.borrow().clone()
    }

    async fn command(&self, applied: &mut Applied, at: LogId, command: Command) -> Result<Outcome, String> {
        if applied.recent.contains(&command.id) {
            return Ok(Outcome::Applied);
        }
        match command.change {
            Change::Tables(writes) => {
                if command.planned_against != applied.position.tables {
                    return Ok(Outcome::Conflict);
                }
                let timestamp = writes.timestamp;
                self.tables.apply(command.id, writes).await?;
                applied.position.tables = at.index;
                applied.position.timestamp = applied.position.timestamp.max(timestamp);
            }
            Change::Members(change) => {
                if command.planned_against != applied.position.members {
                    return Ok(Outcome::Conflict);
                }
                match applied.members.after(&change) {
                    Ok(members) => applied.members = members,
                    Err(refusal) => return Ok(Outcome::Refused(refusal)),
                }
                applied.position.members = at.index;
                // The first member's command is another one in each cluster.
                applied.group = applied.group.or(Some(command.id));
            }
        }
        applied.remember(command.id);
        Ok(Outcome::Applied)
    }

    async fn advance(&self, entry: Entry) -> Result<Outcome, String> {
        let mut applied = (*self.now()).clone();
        let at = entry.log_id;
        let outcome = match entry.payload {
            EntryPayload::Blank => Outcome::Applied,
            EntryPayload::Normal(command) => self.command(&mut applied, at, command).await?,
            EntryPayload::Membership(membership) => {
                applied.membership = StoredMembership::new(Some(at), membership);
                Outcome::Applied
            }
        };
        applied.last = Some(at);
        let saved = self.file.save_applied(&applied, Durability::None).await;
        saved.map_err(|error| error.to_string())?;
        self.applied.send_replace(Arc::new(applied));
        Ok(outcome)
    }

    async fn take_snapshot(&self) -> Result<StoredSnapshot, String> {
        let _turn = self.turn.lock().await;
        let applied = self.now();
        let contents = self.tables.contents(applied.position.timestamp).await?;
        let snapshot_id = match &applied.last {
            Some(last) => format!("{}-{}", last.leader_id, last.index),
            None => "empty".to_owned(),
        };
        let snapshot = StoredSnapshot {
            meta: SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id,
            },
            applied: (*applied).clone(),
            contents,
        };
        let saved = self.file.save_snapshot(&snapshot, None).await;
        saved.map_err(|error| error.to_string())?;
        Ok(snapshot)
    }
}

#[allow(clippy::result_large_err)] // the library's error
fn to_snapshot(stored: &StoredSnapshot) -> Result<Snapshot<TypeConfig>, StorageError> {
    let bytes = serde_json::to_vec(stored).map_err(|error| StorageIOError::read_snapshot(None, &error))?;
    Ok(Snapshot {
        meta: stored.meta.clone(),
        snapshot: Box::new(Cursor::new(bytes)),
    })
}

fn apply_failed(at: LogId, text: String) -> StorageError {
    StorageIOError::apply(at, AnyError::error(text)).into()
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let stored = self.take_snapshot().await;
        let stored = stored.map_err(|text| StorageIOError::write_snapshot(None, AnyError::error(text)))?;
        to_snapshot(&stored)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.now();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let _turn = self.turn.lock().await;
        let mut outcomes = Vec::new();
        for entry in entries {
            let at = entry.log_id;
            let outcome = self.advance(entry).await;
            outcomes.push(outcome.map_err(|text| apply_failed(at, text))?);
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<Uuid, BasicNode>,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError> {
        let _turn = self.turn.lock().await;
        let failed = |text: String| -> StorageError {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::error(text)).into()
        };
        let mut stored: StoredSnapshot =
            serde_json::from_slice(snapshot.get_ref()).map_err(|error| failed(error.to_string()))?;
        stored.meta = meta.clone();
        let before = self.now();
        if before.group.is_some() && before.group != stored.applied.group {
            warn!("the state of another cluster was refused");
            return Err(failed("it is another cluster's".to_owned()));
        }
        let timestamp = stored.applied.position.timestamp;
        let replaced = self.tables.replace(stored.contents.clone(), timestamp).await;
        replaced.map_err(failed)?;
        let saved = self.file.save_snapshot(&stored, Some(&stored.applied)).await;
        saved.map_err(|error| failed(error.to_string()))?;
        info!(
            members = stored.applied.members.nodes.len(),
            "the cluster's schema and members were received"
        );
        self.applied.send_replace(Arc::new(stored.applied));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let stored: Option<StoredSnapshot> = self
            .file
            .snapshot()
            .map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        stored.as_ref().map(to_snapshot).transpose()
    }
}
