//! The schema's way into a shard: what is stored of it, what is installed, what clients hear of it.

use std::rc::Rc;
use std::sync::Arc;

use ceto_cluster::{ReplicaMap, Strategy};
use ceto_internode::HostId;
use ceto_model::read::{ColumnSelection, ReadCommand, ReadLimits, ReadTarget, ResumePoint};
use ceto_model::{Keyspace, PartitionRange, Schema, Slice, TableId, UnixSeconds};
use ceto_native::Event;
use rustc_hash::FxHashMap;
use tracing::error;

use super::Node;
use crate::system::definitions::{SYSTEM_AUTH, SYSTEM_SCHEMA};
use crate::system::schema_rows::{StoredSchema, TABLES};
use crate::topology::Topology;

impl Node {
    /// What this shard has stored in `system_schema`.
    pub async fn stored_schema(self: &Rc<Self>) -> Result<StoredSchema, String> {
        let system = self.schema();
        let mut stored = StoredSchema::default();
        for name in TABLES {
            let table = system
                .table(SYSTEM_SCHEMA, name)
                .expect("a table of system_schema");
            stored.0.insert(name, self.read_whole_table(table.id).await?);
        }
        Ok(stored)
    }

    pub(crate) async fn read_whole_table(
        self: &Rc<Self>,
        table: TableId,
    ) -> Result<Vec<(ceto_model::DecoratedKey, ceto_model::Partition)>, String> {
        let command = ReadCommand {
            table,
            target: ReadTarget::Range(PartitionRange::full()),
            slices: [Slice::full()].into_iter().collect(),
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::All,
            now: UnixSeconds(self.env.clock().unix_seconds()),
            limits: ReadLimits::NONE,
            keep_tombstones: false,
            bypass_cache: true,
            index: None,
        };
        let result = self
            .read_here(&command)
            .await
            .map_err(|failure| failure.message)?;
        match result.resume {
            None => {}
            Some(ResumePoint::Inside(..) | ResumePoint::Ring(_)) => {
                return Err("a read without limits stopped early".to_owned());
            }
        }
        Ok(result
            .partitions
            .into_iter()
            .map(|part| (part.key, part.partition))
            .collect())
    }

    /// Takes the recovered schema, replays the rest of the commitlog, and finds the hints and batches of earlier
    /// lives.
    pub async fn finish_recovery(self: &Rc<Self>, schema: Arc<Schema>) -> Result<(), String> {
        let database = self.database().map_err(|failure| failure.message)?;
        self.set_schema(schema.clone());
        database
            .finish_recovery(schema)
            .await
            .map_err(|error| error.to_string())?;
        self.open_hints().await?;
        self.open_batchlog().await
    }

    /// Takes a new schema: storage follows (tables that are gone lose their data), statements are prepared again when
    /// they are next used.
    pub async fn install_schema(self: &Rc<Self>, schema: Arc<Schema>) {
        let old = self.schema();
        let Some(database) = self.database.get() else {
            self.set_schema(schema);
            return;
        };
        self.set_schema(schema.clone());
        let new = schema.clone();
        if let Err(error) = database.set_schema(schema).await {
            error!(%error, "storage did not take a schema change in full");
        }
        for table in old
            .tables()
            .filter(|table| !table.is_virtual && self.schema().table_by_id(table.id).is_none())
        {
            self.table_times.borrow_mut().remove(&table.id);
            self.read_latencies.borrow_mut().remove(&table.id);
            if let Err(error) = database.drop_table(table.id).await {
                error!(%error, keyspace = %table.keyspace, table = %table.name, "files of a dropped table remain");
            }
        }
        self.build_new_views(&old, &new);
    }

    fn set_schema(&self, schema: Arc<Schema>) {
        *self.replication.borrow_mut() =
            replica_maps(&schema, &self.topology(), HostId(self.options.host_id));
        self.views.set_schema(&schema);
        *self.schema.borrow_mut() = schema;
    }

    /// Tells this shard's clients that have registered for it.
    pub fn notify_schema_change(&self, event: &ceto_cql::SchemaChangeEvent) {
        let event = Event::SchemaChange(crate::answer::schema_change(event));
        let connections: Vec<_> = self
            .connections
            .borrow()
            .iter()
            .filter_map(|(_, c)| c.upgrade())
            .collect();
        for connection in connections {
            connection.notify(&event);
        }
    }
}

/// The replica map of each keyspace.
pub(crate) fn replica_maps(
    schema: &Schema,
    topology: &Topology,
    local: HostId,
) -> FxHashMap<Arc<str>, Arc<ReplicaMap>> {
    let (ring, other) = (&topology.ring, topology.other.as_deref());
    let map = |keyspace: &Arc<Keyspace>| {
        // Each node has all roles: the control threads keep them alike.
        if *keyspace.name == *SYSTEM_AUTH {
            let map = ReplicaMap::new(ring.clone(), Strategy::Local, local);
            return (keyspace.name.clone(), Arc::new(map));
        }
        let strategy = Strategy::from_options(&keyspace.replication).unwrap_or_else(|error| {
            error!(%error, keyspace = %keyspace.name, "replication options of the stored schema; using one replica");
            Strategy::Local
        });
        (
            keyspace.name.clone(),
            Arc::new(ReplicaMap::between(ring.clone(), other, strategy, local)),
        )
    };
    schema.keyspaces().map(map).collect()
}
