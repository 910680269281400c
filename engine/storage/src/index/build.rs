//! Filling an index from its table, while both are written and read.
//!
//! Writes that come during a build index themselves, and entries carry the timestamps of the cells they stand for, so
//! whatever comes first the result is the same. Entries of a build are not in the commitlog: they are flushed, and only
//! then the index counts as built.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::TaskQueue;
use ceto_model::key::Position;
use ceto_model::read::{
    ColumnSelection, PartitionResult, ReadCommand, ReadLimits, ReadTarget, ResumePoint, Slices,
};
use ceto_model::{Mutation, PartitionRange, RingPosition, Row, Slice, Token, UnixSeconds};

use super::{BuildProgress, IndexStore, VectorGraph};
use crate::database::Database;
use crate::error::Result;
use crate::table::TableStore;

/// Rows of the table that one read of a build returns at most.
const ROWS: u64 = 1000;
/// Bytes that it returns about.
const BYTES: u64 = 256 << 10;
/// Time between tries of a build that fails.
const RETRY: Duration = Duration::from_secs(10);

impl Database {
    /// Builds an index of a table, unless it is built: at once when there is nothing to do, else in the background.
    pub(crate) async fn build_when_due(&self, table: &Rc<TableStore>, index: &Rc<IndexStore>) -> Result<()> {
        if index.is_built.get() || index.is_building.replace(true) {
            return Ok(());
        }
        let is_empty = {
            let view = table.view();
            view.sstables.is_empty() && view.memtables().next().is_none()
        };
        if is_empty {
            let built = self.finish_build(table, index).await;
            index.is_building.set(false);
            return built;
        }
        let this = self.this.upgrade().expect("a method of a living database runs");
        let (table, index) = (table.clone(), index.clone());
        let task = async move {
            while !index.store.is_dropped.get() && !this.is_closed.get() {
                let Err(error) = this.build(&table, &index).await else {
                    return;
                };
                tracing::warn!("index {}: the build starts again: {error}", index.store.name());
                this.env.tasks().sleep(RETRY).await;
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
        Ok(())
    }

    async fn build(&self, table: &Rc<TableStore>, index: &Rc<IndexStore>) -> Result<()> {
        let progress = BuildProgress {
            id: self.random_id(),
            started: self.env.clock().now(),
            done: 0.0,
        };
        index.progress.set(Some(progress));
        let built = self.build_from(table, index, progress).await;
        // Another build may have begun meanwhile.
        if index.progress.get().is_some_and(|own| own.id == progress.id) {
            index.progress.set(None);
        }
        built
    }

    async fn build_from(
        &self,
        table: &Rc<TableStore>,
        index: &Rc<IndexStore>,
        mut progress: BuildProgress,
    ) -> Result<()> {
        tracing::info!("index {}: the build starts", index.store.name());
        let (mut start, mut first_slices) = (PartitionRange::full().start, None);
        let mut rows = 0;
        loop {
            if index.store.is_dropped.get() || self.is_closed.get() {
                return Ok(());
            }
            self.wait_for_room().await?;
            let range = PartitionRange {
                start,
                ..PartitionRange::full()
            };
            let command = self.build_command(table, range, first_slices.take());
            let result = self.read(&command).await?;
            let (base, definition) = (table.definition().clone(), index.definition());
            for part in &result.partitions {
                if let Some(vectors) = &index.vectors {
                    if self.build_vectors(table, vectors, part).await {
                        continue;
                    }
                    tracing::warn!(
                        "index {}: its vectors need more than half of the shard's memory; queries compare all rows \
                         instead (raise memory_limit, then nodetool rebuild_index)",
                        index.store.name()
                    );
                    index.is_building.set(false);
                    return Ok(());
                }
                if let Some(entries) = definition.entries(&base, &part.key, &part.partition) {
                    let mut mutation = Mutation::new(definition.id(), definition.key());
                    mutation.partition = entries;
                    self.insert_quietly(&index.store, mutation, None);
                }
            }
            self.flush_when_due();
            rows += result.work.live_rows;
            if let Some(last) = result.partitions.last() {
                // All tokens together are as many as 64 bits can say.
                let before = i128::from(last.key.token.0) - i128::from(Token::MIN.0);
                progress.done = before as f64 / 2f64.powi(64);
                index.progress.set(Some(progress));
            }
            match result.resume {
                None => break,
                Some(ResumePoint::Ring(position)) => start = position,
                Some(ResumePoint::Inside(key, bound)) => {
                    let behind = Slice {
                        start: bound,
                        end: Position::after_all(),
                    };
                    first_slices = Some(std::iter::once(behind).collect());
                    start = RingPosition::BeforeKey(key);
                }
            }
        }
        if index.vectors.is_none() {
            // Of rows that a power loss could still bring back the build has seen nothing.
            self.sync().await?;
        }
        self.finish_build(table, index).await?;
        tracing::info!("index {}: built from {rows} rows", index.store.name());
        Ok(())
    }

    /// Takes a partition's rows into a graph, and gives way between them: each takes as long as many reads. False: the
    /// graph was given up.
    async fn build_vectors(
        &self,
        table: &TableStore,
        vectors: &RefCell<VectorGraph>,
        part: &PartitionResult,
    ) -> bool {
        let content = &part.partition;
        let mut row = Mutation::new(table.id, part.key.clone());
        row.partition.static_row = content.static_row.clone();
        vectors.borrow_mut().apply(&row);
        row.partition.static_row = Row::default();
        for (key, content) in &content.rows {
            row.partition.rows = vec![(key.clone(), content.clone())];
            vectors.borrow_mut().apply(&row);
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        !vectors.borrow().is_given_up()
    }

    fn build_command(
        &self,
        table: &TableStore,
        range: PartitionRange,
        first_partition_slices: Option<Slices>,
    ) -> ReadCommand {
        ReadCommand {
            table: table.id,
            target: ReadTarget::Range(range),
            slices: std::iter::once(Slice::full()).collect(),
            first_partition_slices,
            reversed: false,
            columns: ColumnSelection::All,
            now: UnixSeconds(self.env.clock().unix_seconds()),
            limits: ReadLimits {
                rows: ROWS,
                bytes: BYTES,
                ..ReadLimits::NONE
            },
            keep_tombstones: false,
            bypass_cache: true,
            index: None,
        }
    }

    /// Everything is in the index: gets it to disk, and says so.
    async fn finish_build(&self, table: &TableStore, index: &IndexStore) -> Result<()> {
        if self.tables.borrow().contains_key(&index.store.id) {
            self.flush(Some(index.store.id)).await?;
        }
        if index.store.is_dropped.get() {
            return Ok(());
        }
        self.trust_index(table, index).await?;
        index.is_built.set(true);
        index.is_building.set(false);
        Ok(())
    }

    /// Builds an index anew from the start, while what it has goes on to be used.
    pub(crate) async fn rebuild(&self, table: &Rc<TableStore>, index: &Rc<IndexStore>) -> Result<()> {
        index.distrust(&*self.env.disk()).await?;
        if let Some(vectors) = &index.vectors {
            vectors.borrow_mut().try_again();
        }
        self.build(table, index).await
    }

    /// Waits until memtables have room.
    async fn wait_for_room(&self) -> Result<()> {
        loop {
            let room = self.room.listen();
            self.poison.check()?;
            if self.memory.get() < self.memtable_limit.get() {
                return Ok(());
            }
            self.flushes.check_disk()?;
            room.await;
        }
    }
}
