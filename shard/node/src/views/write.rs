//! A write to a table with views: before, after, and what that means for the views.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ceto_env::TaskQueue;
use ceto_internode::FailureReason;
use ceto_model::codec::put_bytes;
use ceto_model::comparable::encode_clustering;
use ceto_model::read::{ColumnSelection, ReadCommand, ReadLimits, ReadTarget, Slices};
use ceto_model::view::{ViewUpdates, effective_row};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, DecoratedKey, Deletion, Liveness, Mutation, Partition, Slice, Table,
    TableId, Timestamp, UnixSeconds, View,
};

use super::gate::Inside;
use super::split::split;
use super::{Views, WRITES_MAX};
use crate::locks::PartitionGuard;
use crate::message::ReplicaFailure;
use crate::modify::at_once;
use crate::node::Node;
use crate::system::definitions::{SYSTEM, VIEW_UPDATES};

/// Bytes of rows that one write to a table with views may change: what a deletion covers is read.
const ROWS_SIZE_MAX: u64 = 64 << 20;
/// Bytes of one row of a note, about.
const NOTE_SIZE: usize = 256 << 10;
/// Between the first two attempts to write to a view; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A row of a view by its keys.
pub(super) type ViewRowKey = (TableId, DecoratedKey, ClusteringKey);

/// Rows of `system.view_updates` that tell of one write.
struct Note {
    key: DecoratedKey,
    rows: Vec<ClusteringKey>,
    timestamp: Timestamp,
}

/// A place among the writes under way.
struct UnderWay(Rc<Node>);

impl UnderWay {
    fn enter(node: &Rc<Node>) -> Option<UnderWay> {
        let count = &node.views.under_way;
        if count.get() >= WRITES_MAX {
            node.views.refused.increment();
            return None;
        }
        count.set(count.get() + 1);
        Some(UnderWay(node.clone()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let count = &self.0.views.under_way;
        count.set(count.get() - 1);
    }
}

/// Counts a write that is tried again.
struct Retrying<'a>(&'a std::cell::Cell<usize>);

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Node {
    /// Applies a write of this shard to a table with views, and to the views.
    pub(crate) async fn apply_with_views(self: Rc<Self>, mutation: Mutation) -> Result<(), ReplicaFailure> {
        let Some(under_way) = UnderWay::enter(&self) else {
            return Err(ReplicaFailure::new(
                FailureReason::Overloaded,
                format!("{WRITES_MAX} writes to tables with materialized views are under way on this shard"),
            ));
        };
        let inside = self.views.gates.enter(&self.env, mutation.table).await;
        let guard = self.views.locks.lock(mutation.table, mutation.key.clone()).await;
        let schema = self.schema();
        let (Some(base), Some(views)) = (
            schema.table_by_id(mutation.table),
            schema.views_of(mutation.table),
        ) else {
            return self.apply_plainly(mutation).await;
        };
        let slices = touched(&mutation.partition);
        if slices.is_empty() {
            return self.apply_plainly(mutation).await;
        }
        let before = self.read_for_views(base.id, &mutation.key, slices).await?;
        let now = UnixSeconds(self.env.clock().unix_seconds());
        let (updates, rows) = changes(&self.views, base, views, &mutation, &before, now)?;
        if updates.is_empty() {
            return self.apply_plainly(mutation).await;
        }
        let note = self.make_note(base, &mutation.key, rows).await?;
        if let Err(failure) = self.clone().apply_plainly(mutation).await {
            self.delete_note(&note).await;
            return Err(failure);
        }
        self.views.writes.increment();
        let max = self.mutation_max() / 2;
        let updates = updates.into_mutations().into_iter();
        let updates: Vec<Mutation> = updates.flat_map(|mutation| split(mutation, max)).collect();
        self.deliver(updates, note, (inside, guard, under_way)).await
    }

    /// Writes to the views until it is done, at first while the write waits, then behind it.
    async fn deliver(
        self: Rc<Self>,
        updates: Vec<Mutation>,
        note: Note,
        held: (Inside, PartitionGuard, UnderWay),
    ) -> Result<(), ReplicaFailure> {
        let deadline = self.env.clock().now() + self.settings().limits.write_timeout;
        let mut pause = RETRY_MIN;
        let mut left = self.write_to_views(updates).await;
        while !left.is_empty() && !held.0.is_void() && self.env.clock().now() < deadline {
            self.env.tasks().sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
            left = self.write_to_views(left).await;
        }
        if left.is_empty() || held.0.is_void() {
            self.delete_note(&note).await;
            return Ok(());
        }
        let node = self.clone();
        let task = async move {
            let count = &node.views.retrying;
            count.set(count.get() + 1);
            let _retrying = Retrying(count);
            while !left.is_empty() && !held.0.is_void() {
                node.env.tasks().sleep(RETRY_MAX).await;
                left = node.write_to_views(left).await;
            }
            node.delete_note(&note).await;
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
        Err(ReplicaFailure::new(
            FailureReason::Timeout,
            "the write is done, but a materialized view of its table cannot be written yet; that is tried again",
        ))
    }

    /// Applies mutations of views on the shards that own them; those that failed come back.
    pub(super) async fn write_to_views(self: &Rc<Self>, updates: Vec<Mutation>) -> Vec<Mutation> {
        let schema = self.schema();
        let mut by_shard: BTreeMap<u16, Vec<Mutation>> = BTreeMap::new();
        for update in updates {
            // A view that is gone needs nothing any more.
            if schema.table_by_id(update.table).is_some() {
                let shard = update.key.token.shard(self.shard_count());
                by_shard.entry(shard).or_default().push(update);
            }
        }
        let asked = by_shard.into_iter().map(|(shard, updates)| async move {
            let kept = updates.clone();
            let work = move |node: Rc<Node>| -> ceto_env::LocalFuture<'static, Vec<bool>> {
                Box::pin(async move { node.apply_view_updates(updates).await })
            };
            let done = self.on_shard(shard, work).await;
            let failed = kept.into_iter().zip(done).filter(|(_, done)| !done);
            failed.map(|(update, _)| update).collect::<Vec<_>>()
        });
        at_once(asked).await.into_iter().flatten().collect()
    }

    /// Applies mutations of views that this shard owns; whether each is there.
    async fn apply_view_updates(self: Rc<Self>, updates: Vec<Mutation>) -> Vec<bool> {
        let applied = updates
            .into_iter()
            .map(|update| self.clone().apply_plainly(update));
        let outcomes = at_once(applied).await;
        let note = |outcome: Result<(), ReplicaFailure>| {
            self.views.updates.increment();
            if let Err(failure) = &outcome {
                self.views.failures.increment();
                tracing::debug!(%failure, "a view cannot be written now");
            }
            outcome.is_ok()
        };
        outcomes.into_iter().map(note).collect()
    }

    /// Rows of a base partition as they are, tombstones too. The caller holds the partition's lock.
    pub(super) async fn read_for_views(
        self: &Rc<Self>,
        table: TableId,
        key: &DecoratedKey,
        slices: Slices,
    ) -> Result<Partition, ReplicaFailure> {
        let command = ReadCommand {
            table,
            target: ReadTarget::Partition(key.clone()),
            slices,
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::All,
            now: UnixSeconds(self.env.clock().unix_seconds()),
            limits: ReadLimits {
                bytes: ROWS_SIZE_MAX,
                ..ReadLimits::NONE
            },
            keep_tombstones: true,
            bypass_cache: false,
            index: None,
        };
        let result = self.read_here(&command).await?;
        if result.resume.is_some() {
            let max = ROWS_SIZE_MAX >> 20;
            return Err(ReplicaFailure::new(
                FailureReason::Overloaded,
                format!(
                    "the write changes more than {max} MiB of rows of a table with materialized views; delete smaller \
                     ranges"
                ),
            ));
        }
        let partition = result.partitions.into_iter().next();
        Ok(partition.map(|part| part.partition).unwrap_or_default())
    }

    /// Notes view rows that are about to change. One write to a partition is under way at a time, so a note overwrites
    /// the deleted one of the write before.
    async fn make_note(
        self: &Rc<Self>,
        base: &Table,
        key: &DecoratedKey,
        rows: BTreeSet<ViewRowKey>,
    ) -> Result<Note, ReplicaFailure> {
        let schema = self.schema();
        let Some(table) = schema.table(SYSTEM, VIEW_UPDATES) else {
            return Err(ReplicaFailure::new(
                FailureReason::Unknown,
                "system.view_updates is missing",
            ));
        };
        let timestamp = Timestamp(self.next_timestamp());
        let mut note = Note {
            key: key.clone(),
            rows: Vec::new(),
            timestamp,
        };
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let mut content = Vec::new();
            while content.len() < NOTE_SIZE
                && let Some((view, key, clustering)) = rows.next()
            {
                put_bytes(&mut content, view.0.as_bytes());
                put_bytes(&mut content, &key.key.0);
                put_bytes(&mut content, &clustering.0);
            }
            let part = (note.rows.len() as i32).to_be_bytes();
            let clustering: [&[u8]; 2] = [base.id.0.as_bytes(), &part];
            let clustering = encode_clustering(table.clustering_types(), &clustering)
                .expect("a uuid and an int are values of their types");
            let mut mutation = Mutation::new(table.id, key.clone());
            let row = mutation.partition.row_mut(ClusteringKey(clustering.clone()));
            row.liveness = Some(Liveness {
                timestamp,
                expiry: None,
            });
            for column in table.regulars() {
                let cell = Cell::live(timestamp, std::mem::take(&mut content).into());
                row.merge_column(column.id, ColumnData::Cell(cell));
            }
            note.rows.push(ClusteringKey(clustering));
            self.clone().apply_plainly(mutation).await?;
        }
        Ok(note)
    }

    async fn delete_note(self: &Rc<Self>, note: &Note) {
        self.delete_note_rows(&note.key, &note.rows, note.timestamp).await;
    }

    /// Deletes notes; should that fail, they are replayed at the next start, which changes nothing.
    pub(super) async fn delete_note_rows(
        self: &Rc<Self>,
        key: &DecoratedKey,
        rows: &[ClusteringKey],
        timestamp: Timestamp,
    ) {
        let schema = self.schema();
        let Some(table) = schema.table(SYSTEM, VIEW_UPDATES) else {
            return;
        };
        let mut mutation = Mutation::new(table.id, key.clone());
        for row in rows {
            mutation.partition.row_mut(row.clone()).delete(Deletion {
                timestamp,
                deleted_at: UnixSeconds(self.env.clock().unix_seconds()),
            });
        }
        // Nobody waits until this is synced.
        if let Err(failure) = self.begin_plain_apply(mutation) {
            tracing::debug!(%failure, "a note of view updates stays");
        }
    }
}

/// What of a partition a write may change rows in: in order, without overlaps.
fn touched(partition: &Partition) -> Slices {
    if partition.deletion.is_some() {
        return std::iter::once(Slice::full()).collect();
    }
    let rows = partition.rows.iter().map(|(key, _)| Slice::of_row(key));
    let ranges = partition
        .range_tombstones
        .iter()
        .map(|tombstone| tombstone.slice.clone());
    let mut slices: Vec<Slice> = rows.chain(ranges).collect();
    slices.sort_unstable_by(|a, b| a.start.cmp(&b.start));
    let mut joined: Slices = Slices::new();
    for slice in slices {
        match joined.last_mut() {
            Some(last) if slice.start <= last.end => last.end = last.end.clone().max(slice.end),
            _ => joined.push(slice),
        }
    }
    joined
}

/// The changes of all views by a write to the rows `before`, and the view rows concerned.
fn changes(
    state: &Views,
    base: &Table,
    views: &[View],
    mutation: &Mutation,
    before: &Partition,
    now: UnixSeconds,
) -> Result<(ViewUpdates, BTreeSet<ViewRowKey>), ReplicaFailure> {
    let mut after = before.clone();
    after.merge(mutation.partition.clone());
    let written = mutation.partition.rows.iter();
    let keys: BTreeSet<&ClusteringKey> = written.chain(&before.rows).map(|(key, _)| key).collect();
    let mut updates = ViewUpdates::default();
    let mut rows = BTreeSet::new();
    for clustering in keys {
        let Some(key) = View::base_key(base, &mutation.key, clustering) else {
            continue;
        };
        let (old, new) = (
            effective_row(before, clustering),
            effective_row(&after, clustering),
        );
        if old == new {
            continue;
        }
        for view in views {
            let (old, new) = (state.project(view, &key, &old), state.project(view, &key, &new));
            if old == new {
                continue;
            }
            if let Some(new) = &new
                && let Err(too_large) = view.check_key(new)
            {
                let text = format!(
                    "Key length of {} is longer than maximum of 65535 in materialized view {}",
                    too_large.size, view.table.name
                );
                return Err(ReplicaFailure::new(FailureReason::Unknown, text));
            }
            for row in old.iter().chain(&new) {
                rows.insert((view.table.id, row.key.clone(), row.clustering.clone()));
            }
            view.change(old, new, now, &mut updates);
        }
    }
    Ok((updates, rows))
}
