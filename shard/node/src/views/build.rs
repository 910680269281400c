//! Builds of views over what their bases hold.
//!
//! One shard leads a build: it reads the base page by page over the whole ring, and has the shards that own the rows
//! project them as they are at that moment, under their partitions' locks. How far it is stands in
//! `system.view_builds_in_progress`, as a token: it resumes there after a restart, with any number of shards. A view that
//! is built has a row in `system.built_views`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::TaskQueue;
use ceto_model::read::{ColumnSelection, ReadCommand, ReadLimits, ReadTarget, ResumePoint, Slices};
use ceto_model::value::Value;
use ceto_model::view::{ViewUpdates, effective_row};
use ceto_model::{
    DecoratedKey, Mutation, PartitionRange, RingPosition, Schema, Slice, TableId, Timestamp, Token,
    UnixSeconds, View,
};
use tracing::{info, warn};

use crate::node::Node;
use crate::system::definitions::{BUILT_VIEWS, SYSTEM, SYSTEM_DISTRIBUTED, VIEW_BUILD_STATUS, VIEW_BUILDS};
use crate::system::row::{StoredRow, SystemRow, text};

/// Rows of one page.
const PAGE_ROWS: u64 = 500;
/// Bytes of one page, about.
const PAGE_BYTES: u64 = 512 << 10;
/// Between two attempts of a page that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two notes of how far a build is.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// Time between looks at shards that are not ready for a build.
const LOOK: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 2_500;

/// How far a build is.
#[derive(Default)]
pub(super) struct Progress {
    rows: Cell<u64>,
}

/// What is known of a view's build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BuildStatus {
    /// It has all that its base has.
    Built,
    /// It is being built; so many rows of the base have been gone over since the start of the node.
    Building(u64),
    /// Nobody builds it.
    Unknown,
}

impl Node {
    /// Starts the builds that this shard leads, of views that are not built. `rebuild`: also of those that count as built
    /// and may not be trusted after a start, for their keyspace has no commitlog.
    pub async fn start_view_builds(self: &Rc<Self>) -> Result<(), String> {
        let schema = self.schema();
        for view in schema.tables().filter(|table| table.is_view()) {
            if self.leader(view.id) != self.shard() {
                continue;
            }
            let durable = schema
                .keyspace(&view.keyspace)
                .is_none_or(|keyspace| keyspace.durable_writes);
            if !durable {
                self.forget_build(&schema, view.id).await?;
                self.truncate_everywhere(view.id, Timestamp(self.next_timestamp()))
                    .await?;
            } else if self.is_view_built(&schema, view.id).await? {
                continue;
            }
            self.start_view_build(view.id);
        }
        Ok(())
    }

    /// The shard that leads the build of a view.
    fn leader(&self, view: TableId) -> u16 {
        (view.0.as_u128() % u128::from(self.shard_count())) as u16
    }

    /// Takes note of views that have come with a schema change.
    pub(crate) fn build_new_views(self: &Rc<Self>, old: &Schema, new: &Schema) {
        for table in new.tables() {
            if table.is_view() && old.table_by_id(table.id).is_none() && self.leader(table.id) == self.shard()
            {
                self.start_view_build(table.id);
            }
        }
        for table in old.tables() {
            if table.is_view() && new.table_by_id(table.id).is_none() && self.leader(table.id) == self.shard()
            {
                self.views.builds.borrow_mut().remove(&table.id);
                let (node, old, id) = (self.clone(), old.clone(), table.id);
                let task = async move {
                    if let Err(error) = node.forget_build(&old, id).await {
                        warn!("the rows that tell of a dropped view's build remain: {error}");
                    }
                };
                self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
            }
        }
    }

    /// Builds the views of a table anew, because it got rows by another way than writes.
    pub(crate) async fn rebuild_views_of(self: &Rc<Self>, base: TableId) -> Result<(), String> {
        let schema = self.schema();
        let views: Vec<TableId> = schema
            .views_of(base)
            .map(|views| views.iter().map(|view| view.table.id).collect())
            .unwrap_or_default();
        if views.is_empty() {
            return Ok(());
        }
        // Rows that came may have moved others' places in the views, which nobody has noted.
        self.on_all_shards(move |node| Box::pin(async move { node.stop_view_writes(base).await }))
            .await;
        let mut truncated = Ok(());
        for view in &views {
            let timestamp = Timestamp(self.next_timestamp());
            truncated = truncated.and(self.truncate_everywhere(*view, timestamp).await);
        }
        self.on_all_shards(move |node| Box::pin(async move { node.resume_view_writes(base) }))
            .await;
        truncated?;
        for view in views {
            let leader = self.leader(view);
            let work = move |node: Rc<Node>| -> ceto_env::LocalFuture<'static, Result<(), String>> {
                Box::pin(async move {
                    let schema = node.schema();
                    node.views.builds.borrow_mut().remove(&view);
                    node.forget_build(&schema, view).await?;
                    node.start_view_build(view);
                    Ok(())
                })
            };
            self.on_shard(leader, work).await?;
        }
        Ok(())
    }

    fn start_view_build(self: &Rc<Self>, view: TableId) {
        let progress = Rc::new(Progress::default());
        let mut builds = self.views.builds.borrow_mut();
        builds.insert(view, progress.clone());
        let node = self.clone();
        let task = async move {
            let mut failures = 0u32;
            while node.leads(view, &progress) {
                match node.clone().build_view(view, &progress).await {
                    Ok(()) => break,
                    Err(error) => {
                        if failures.is_multiple_of(60) {
                            warn!("the build of a materialized view goes on in a second: {error}");
                        }
                        failures += 1;
                        node.env.tasks().sleep(RETRY).await;
                    }
                }
            }
            if node.leads(view, &progress) {
                node.views.builds.borrow_mut().remove(&view);
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    /// This build of the view still counts.
    fn leads(&self, view: TableId, progress: &Rc<Progress>) -> bool {
        let builds = self.views.builds.borrow();
        builds.get(&view).is_some_and(|own| Rc::ptr_eq(own, progress))
    }

    async fn build_view(self: Rc<Self>, view: TableId, progress: &Rc<Progress>) -> Result<(), String> {
        let ready = move |node: Rc<Node>| -> ceto_env::LocalFuture<'static, Result<(), String>> {
            Box::pin(async move { node.ready_to_build(view).await })
        };
        for ready in self.on_all_shards(ready).await {
            ready?;
        }
        let schema = self.schema();
        let Some(table) = schema.table_by_id(view) else {
            return Ok(());
        };
        let (keyspace, name) = (table.keyspace.clone(), table.name.clone());
        let Some(base) = table.view.as_ref().map(|view| view.base) else {
            return Ok(());
        };
        let mut range = PartitionRange::full();
        if let Some(token) = self.build_position(&schema, view).await? {
            range.start = RingPosition::AfterToken(token);
        } else {
            self.note_build(&schema, view, None, 0).await?;
            self.announce_build(&schema, view, Some("STARTED")).await?;
        }
        info!(%keyspace, view = %name, "the build of a materialized view starts");
        let mut first_slices = None;
        let mut noted = self.env.clock().now();
        loop {
            if !self.leads(view, progress) || self.schema().table_by_id(view).is_none() {
                return Ok(());
            }
            let command = page(
                base,
                range.clone(),
                first_slices.take(),
                self.env.clock().unix_seconds(),
            );
            let result = self
                .read_all_shards(command)
                .await
                .map_err(|failure| failure.message)?;
            let mut by_shard: BTreeMap<u16, Vec<(DecoratedKey, Slice)>> = BTreeMap::new();
            let mut rows = 0;
            let mut last = None;
            for part in result.partitions {
                let of = &part.partition.rows;
                let (Some((first, _)), Some((end, _))) = (of.first(), of.last()) else {
                    continue;
                };
                rows += of.len() as u64;
                let slice = Slice {
                    start: Slice::of_row(first).start,
                    end: Slice::of_row(end).end,
                };
                last = Some(part.key.token);
                let shard = part.key.token.shard(self.shard_count());
                by_shard.entry(shard).or_default().push((part.key, slice));
            }
            for (shard, partitions) in by_shard {
                let work = move |node: Rc<Node>| -> ceto_env::LocalFuture<'static, Result<(), String>> {
                    Box::pin(async move { node.build_partitions(view, base, partitions).await })
                };
                self.on_shard(shard, work).await?;
            }
            progress.rows.set(progress.rows.get() + rows);
            self.views.built_rows.add(rows);
            match result.resume {
                None => break,
                Some(ResumePoint::Ring(position)) => range.start = position,
                Some(ResumePoint::Inside(key, start)) => {
                    let behind = Slice {
                        start,
                        end: ceto_model::Position::after_all(),
                    };
                    first_slices = Some(std::iter::once(behind).collect());
                    range.start = RingPosition::BeforeKey(key);
                }
            }
            let now = self.env.clock().now();
            if now.saturating_duration_since(noted) >= NOTE_EVERY {
                noted = now;
                // Before the last partition: the page may have ended inside it.
                let token = last.and_then(|token: Token| token.0.checked_sub(1)).map(Token);
                self.note_build(&schema, view, token, progress.rows.get()).await?;
            }
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        self.finish_build(&schema, view).await?;
        info!(%keyspace, view = %name, rows = progress.rows.get(), "a materialized view is built");
        Ok(())
    }

    /// Waits until this shard has the view, and writes that did not know of it are done.
    async fn ready_to_build(self: Rc<Self>, view: TableId) -> Result<(), String> {
        let mut looks = 0;
        while self.schema().table_by_id(view).is_none() {
            looks += 1;
            if looks > LOOKS_MAX {
                return Err(format!("shard {} does not know the view", self.shard()));
            }
            self.env.tasks().sleep(LOOK).await;
        }
        let earlier = self.views.waiting_writes.replace(Rc::new(()));
        while Rc::strong_count(&earlier) > 1 {
            self.env.tasks().sleep(LOOK).await;
        }
        Ok(())
    }

    /// Projects rows of this shard into a view.
    async fn build_partitions(
        self: Rc<Self>,
        view: TableId,
        base: TableId,
        partitions: Vec<(DecoratedKey, Slice)>,
    ) -> Result<(), String> {
        for (key, slice) in partitions {
            let _inside = self.views.gates.enter(&self.env, base).await;
            let _guard = self.views.locks.lock(base, key.clone()).await;
            let schema = self.schema();
            let (Some(table), Some(views)) = (schema.table_by_id(base), schema.views_of(base)) else {
                return Ok(());
            };
            let Some(view) = views.iter().find(|own| own.table.id == view) else {
                return Ok(());
            };
            let slices = std::iter::once(slice).collect();
            let read = self.read_for_views(base, &key, slices).await;
            let partition = read.map_err(|failure| failure.message)?;
            let mut updates = ViewUpdates::default();
            for (clustering, _) in &partition.rows {
                let Some(base_key) = View::base_key(table, &key, clustering) else {
                    continue;
                };
                let row = effective_row(&partition, clustering);
                if ceto_model::view::has_data(&row)
                    && let Some(projected) = self.views.project(view, &base_key, &row)
                {
                    view.restore(projected, &mut updates);
                }
            }
            self.write_all_to_views(updates).await?;
        }
        Ok(())
    }

    /// What is known of a view's build, asked on the shard that leads it.
    pub async fn view_build_status(self: &Rc<Self>, view: TableId) -> Result<BuildStatus, String> {
        let leader = self.leader(view);
        let work = move |node: Rc<Node>| -> ceto_env::LocalFuture<'static, Result<BuildStatus, String>> {
            Box::pin(async move {
                let running = node
                    .views
                    .builds
                    .borrow()
                    .get(&view)
                    .map(|progress| progress.rows.get());
                if let Some(rows) = running {
                    return Ok(BuildStatus::Building(rows));
                }
                let schema = node.schema();
                match node.is_view_built(&schema, view).await? {
                    true => Ok(BuildStatus::Built),
                    false => Ok(BuildStatus::Unknown),
                }
            })
        };
        self.on_shard(leader, work).await
    }

    // ---- the system tables ------------------------------------------------------------------------------------------

    async fn is_view_built(self: &Rc<Self>, schema: &Schema, view: TableId) -> Result<bool, String> {
        let row = built_row(schema, view)?;
        let is_own = |row: &StoredRow<'_>| (row.uuid("view_id") == Some(view.0)).then_some(());
        Ok(self
            .system_row(schema, BUILT_VIEWS, &row, is_own)
            .await?
            .is_some())
    }

    /// The token behind which a build goes on.
    async fn build_position(
        self: &Rc<Self>,
        schema: &Schema,
        view: TableId,
    ) -> Result<Option<Token>, String> {
        let row = progress_row(schema, view)?;
        let token = |row: &StoredRow<'_>| {
            let is_own = row.uuid("view_id") == Some(view.0);
            row.text("last_token").parse().ok().filter(|_| is_own).map(Token)
        };
        self.system_row(schema, VIEW_BUILDS, &row, token).await
    }

    async fn note_build(
        self: &Rc<Self>,
        schema: &Schema,
        view: TableId,
        token: Option<Token>,
        rows: u64,
    ) -> Result<(), String> {
        let row = progress_row(schema, view)?
            .with("last_token", token.map(|token| text(token.0.to_string())))
            .with("keys_built", Value::Bigint(rows as i64))
            .with("view_id", Value::Uuid(view.0));
        self.write_system_row(schema, VIEW_BUILDS, &row, true).await
    }

    async fn finish_build(self: &Rc<Self>, schema: &Schema, view: TableId) -> Result<(), String> {
        let row = built_row(schema, view)?
            .with("status_replicated", Value::Boolean(true))
            .with("view_id", Value::Uuid(view.0));
        self.write_system_row(schema, BUILT_VIEWS, &row, true).await?;
        self.announce_build(schema, view, Some("SUCCESS")).await?;
        let row = progress_row(schema, view)?;
        self.write_system_row(schema, VIEW_BUILDS, &row, false).await
    }

    async fn forget_build(self: &Rc<Self>, schema: &Schema, view: TableId) -> Result<(), String> {
        let row = built_row(schema, view)?;
        self.write_system_row(schema, BUILT_VIEWS, &row, false).await?;
        self.announce_build(schema, view, None).await?;
        let row = progress_row(schema, view)?;
        self.write_system_row(schema, VIEW_BUILDS, &row, false).await
    }

    /// What other nodes, and operators, are told.
    async fn announce_build(
        self: &Rc<Self>,
        schema: &Schema,
        view: TableId,
        status: Option<&str>,
    ) -> Result<(), String> {
        let row = built_row(schema, view)?
            .with("host_id", Value::Uuid(self.options.host_id))
            .with("status", status.map(text));
        self.write_system_row(schema, VIEW_BUILD_STATUS, &row, status.is_some())
            .await
    }

    /// Writes or deletes a row of a system table, durably, on the shard that owns it.
    async fn write_system_row(
        self: &Rc<Self>,
        schema: &Schema,
        name: &str,
        row: &SystemRow,
        is_there: bool,
    ) -> Result<(), String> {
        let keyspace = match name {
            VIEW_BUILD_STATUS => SYSTEM_DISTRIBUTED,
            _ => SYSTEM,
        };
        let Some(table) = schema.table(keyspace, name) else {
            return Err(format!("{keyspace}.{name} is missing"));
        };
        let (timestamp, now) = (
            Timestamp(self.next_timestamp()),
            UnixSeconds(self.env.clock().unix_seconds()),
        );
        let mutation: Mutation = match is_there {
            true => row.insert(table, timestamp, now),
            false => row.delete(table, timestamp, now),
        };
        let shard = mutation.key.token.shard(self.shard_count());
        let work = move |node: Rc<Node>| -> ceto_env::LocalFuture<'static, Result<(), String>> {
            Box::pin(async move {
                node.apply_durably(vec![mutation])
                    .await
                    .map_err(|failure| failure.message)
            })
        };
        self.on_shard(shard, work).await
    }

    /// What `take` makes of a stored row with the key of `row`.
    async fn system_row<T: 'static>(
        self: &Rc<Self>,
        schema: &Schema,
        name: &str,
        row: &SystemRow,
        take: impl Fn(&StoredRow<'_>) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(table) = schema.table(SYSTEM, name) else {
            return Err(format!("system.{name} is missing"));
        };
        let (key, clustering) = row.key(table);
        let shard = key.token.shard(self.shard_count());
        let command = ReadCommand {
            table: table.id,
            target: ReadTarget::Partition(key.clone()),
            slices: std::iter::once(Slice::of_row(&clustering)).collect(),
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::All,
            now: UnixSeconds(self.env.clock().unix_seconds()),
            limits: ReadLimits::NONE,
            keep_tombstones: false,
            bypass_cache: false,
            index: None,
        };
        let now = command.now;
        let result = self
            .read_on(shard, command)
            .await
            .map_err(|failure| failure.message)?;
        let found = result.partitions.iter().find_map(|part| {
            let (clustering, row) = part.partition.rows.first()?;
            take(&StoredRow::new(table, &part.key, clustering, row, now)?)
        });
        Ok(found)
    }
}

/// One page of the base.
fn page(
    table: TableId,
    range: PartitionRange,
    first_partition_slices: Option<Slices>,
    now: i64,
) -> ReadCommand {
    ReadCommand {
        table,
        target: ReadTarget::Range(range),
        slices: std::iter::once(Slice::full()).collect(),
        first_partition_slices,
        reversed: false,
        columns: ColumnSelection::Only(Vec::new()),
        now: UnixSeconds(now),
        limits: ReadLimits {
            rows: PAGE_ROWS,
            bytes: PAGE_BYTES,
            ..ReadLimits::NONE
        },
        keep_tombstones: false,
        bypass_cache: true,
        index: None,
    }
}

fn built_row(schema: &Schema, view: TableId) -> Result<SystemRow, String> {
    let table = schema.table_by_id(view).ok_or("the view is gone")?;
    Ok(SystemRow::default()
        .with("keyspace_name", text(&*table.keyspace))
        .with("view_name", text(&*table.name)))
}

/// The whole ring is one range.
fn progress_row(schema: &Schema, view: TableId) -> Result<SystemRow, String> {
    Ok(built_row(schema, view)?
        .with("start_token", text(i64::MIN.to_string()))
        .with("end_token", text(i64::MIN.to_string())))
}
