//! Materialized views of this node's tables: kept with each write, built over what was there before, and put right after
//! a crash.
//!
//! **A write** to a table with views takes, on the shard that owns the partition, that partition's lock; reads the rows
//! that it may change; works out what becomes of the views ([`ceto_model::view`]); and applies, in this order: a *note* of
//! the view rows concerned (`system.view_updates`, in the base partition's own place of the ring), the write itself, the
//! changes of the views on the shards that own them. Then the note is deleted and the write acknowledged. So what is
//! acknowledged is in the views.
//!
//! **A crash** in the middle leaves the note. At the next start, before clients are served, the view rows in it are
//! compared with the base as it is, and put right ([`replay`]). The note names rows and holds no content: it does not
//! matter how often it is replayed. Views are written when the base's write is as safe as `commitlog_sync` makes it.
//!
//! **A build** ([`build`]) goes over the base once, page by page, beside the writes: under the same locks, and all that it
//! writes is what the base has at that moment.
//!
//! **What cannot be written** (a full disk, a shard that is overloaded) is tried again until it is there; the lock is kept
//! meanwhile. The client is told of a timeout after `write_request_timeout`. At most [`WRITES_MAX`] writes are under way on
//! a shard; more are answered Overloaded.
//!
//! Never: a view write that waits for another partition's lock, so no circle of waiting; a lock held over the wait of
//! a client.

mod build;
mod gate;
mod replay;
mod split;
mod write;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ceto_cql::ViewFilter;
use ceto_model::view::{BaseKey, ViewRow};
use ceto_model::{Row, Schema, TableId, View};
use rustc_hash::FxHashMap;

pub use build::BuildStatus;
pub(crate) use split::split;

use crate::locks::PartitionLocks;
use crate::metrics::{Counter, Samples};
use crate::node::Node;

/// Writes to tables with views under way on one shard.
const WRITES_MAX: usize = 8192;

/// The views' part of one shard.
#[derive(Default)]
pub(crate) struct Views {
    /// Of base partitions whose views are being changed.
    locks: PartitionLocks,
    gates: gate::Gates,
    /// WHERE clauses that leave rows out, by view.
    filters: RefCell<FxHashMap<TableId, Rc<ViewFilter>>>,
    under_way: Cell<usize>,
    /// Held by each write that waits for storage: a build begins when those that did not know of the view are done.
    waiting_writes: RefCell<Rc<()>>,
    /// Views whose build runs, led by this shard, with how far it is.
    builds: RefCell<FxHashMap<TableId, Rc<build::Progress>>>,
    /// Base writes that changed views.
    writes: Counter,
    /// Mutations of views.
    updates: Counter,
    /// Base writes refused for [`WRITES_MAX`].
    refused: Counter,
    /// Failed attempts to write to a view.
    failures: Counter,
    /// Writes that are tried again and again.
    retrying: Cell<usize>,
    /// Rows that builds have gone over.
    built_rows: Counter,
    /// Notes that were found at the start.
    replayed: Counter,
}

impl Views {
    /// Takes a new schema: the clauses of its views.
    pub(crate) fn set_schema(&self, schema: &Schema) {
        let mut filters = FxHashMap::default();
        for table in schema.tables() {
            let Some(definition) = &table.view else { continue };
            let Some(base) = schema.table_by_id(definition.base) else {
                continue;
            };
            match ViewFilter::new(schema, base, &definition.where_clause) {
                Ok(filter) if filter.is_trivial() => {}
                Ok(filter) => {
                    filters.insert(table.id, Rc::new(filter));
                }
                Err(error) => {
                    tracing::error!(%error, view = %table.name, "the WHERE clause of a view cannot be read");
                }
            }
        }
        *self.filters.borrow_mut() = filters;
    }

    /// The row of a view that a base row has.
    fn project(&self, view: &View, key: &BaseKey, row: &Row) -> Option<ViewRow> {
        let projected = view.project(key, row)?;
        match self.filters.borrow().get(&view.table.id) {
            Some(filter) if !filter.accepts(key, row) => None,
            _ => Some(projected),
        }
    }

    /// Held while a write waits for storage.
    pub(crate) fn waiting_write(&self) -> Rc<()> {
        self.waiting_writes.borrow().clone()
    }

    pub(crate) fn add_to(&self, samples: &mut Samples) {
        let counters = [
            (
                "ceto_view_base_writes_total",
                "Writes that changed materialized views.",
                &self.writes,
            ),
            (
                "ceto_view_updates_total",
                "Mutations of materialized views.",
                &self.updates,
            ),
            (
                "ceto_view_writes_refused_total",
                "Writes to tables with views refused because too many were under way.",
                &self.refused,
            ),
            (
                "ceto_view_update_failures_total",
                "Failed attempts to write to a view; each is repeated.",
                &self.failures,
            ),
            (
                "ceto_view_build_rows_total",
                "Rows that builds of views have gone over.",
                &self.built_rows,
            ),
            (
                "ceto_view_updates_replayed_total",
                "Unfinished view updates found at the start.",
                &self.replayed,
            ),
        ];
        for (name, help, counter) in counters {
            samples.counter(name, help, &[], counter.get());
        }
        let gauges = [
            (
                "ceto_view_writes_under_way",
                "Writes to tables with views under way.",
                &self.under_way,
            ),
            (
                "ceto_view_updates_retrying",
                "Writes whose view updates are tried again and again.",
                &self.retrying,
            ),
        ];
        for (name, help, value) in gauges {
            samples.gauge(name, help, &[], value.get() as f64);
        }
    }
}

impl Node {
    /// Lets no write to a table with views begin on this shard, and waits for those under way.
    pub(crate) async fn stop_view_writes(self: &Rc<Self>, base: TableId) {
        self.views.gates.close(&self.env, base).await;
    }

    /// Ends one [`Node::stop_view_writes`].
    pub(crate) fn resume_view_writes(&self, base: TableId) {
        self.views.gates.open(base);
    }
}
