//! Counters: each write is led by one replica of its partition, which knows what it has counted itself, adds, and
//! replicates the sum.
//!
//! This node leads where it is a replica, else the nearest replica that is alive does. The shard that owns the partition
//! reads and writes under the partition's lock, and its own storage has the sum before anybody else is asked, so that
//! the next increment finds it whatever becomes of the other replicas.
//!
//! Never: an increment that is tried again by itself. A client that is told of a timeout does not know whether it
//! counted, as in Cassandra.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use ceto_cluster::consistency::validate_for_counter_write;
use ceto_cluster::coordinator::{RequestContext as CoordinatorContext, RequestError};
use ceto_cql::{CounterUpdate, RowIncrements};
use ceto_internode::{Call, FailureReason, HostId};
use ceto_model::counter::counter_update;
use ceto_model::read::{ColumnSelection, ReadCommand, ReadLimits, ReadTarget, Slices};
use ceto_model::{
    Cell, CellState, ClusteringKey, ColumnData, Consistency, Mutation, Partition, Row, Slice, TableId,
    Timestamp, UnixSeconds, WriteType,
};
use ceto_native::{ErrorMessage, ErrorReason};

use crate::answer::{invalid, request_error, server_error};
use crate::execute::RequestContext;
use crate::message::ReplicaFailure;
use crate::modify::write_one;
use crate::node::Node;
use crate::pump::RequestFailure;

/// Adds to the counters of one partition.
pub(crate) async fn add(context: &RequestContext, update: CounterUpdate) -> Result<(), ErrorMessage> {
    let node = &context.node;
    let schema = node.schema();
    let Some(table) = schema.table_by_id(update.table) else {
        return Err(invalid(format!(
            "Table with id {} does not exist any more",
            update.table
        )));
    };
    let consistency = context.consistency;
    validate_for_counter_write(consistency, &table.name).map_err(invalid)?;
    let deadline = context.deadline(node.settings().limits.counter_write_timeout);
    if node.has_peers() {
        let Some(replication) = node.replication(&table.keyspace) else {
            return Err(invalid(format!("Keyspace {} does not exist", table.keyspace)));
        };
        let coordinator = CoordinatorContext {
            replication: &replication,
            consistency,
            deadline,
        };
        let leader = node.pump.counter_leader(&coordinator, update.key.token);
        let leader = leader.map_err(|error| request_error(node, error.into()))?;
        if leader != HostId(node.options.host_id) {
            let required = replication.required(consistency);
            return add_at(node, leader, update, (consistency, required), deadline).await;
        }
    }
    let owner = update.key.token.shard(node.shard_count());
    node.on_shard(owner, move |node| {
        Box::pin(async move { node.lead_counters(update, consistency, deadline).await })
    })
    .await
}

/// Lets another node lead.
async fn add_at(
    node: &Rc<Node>,
    leader: HostId,
    update: CounterUpdate,
    (consistency, required): (Consistency, u32),
    deadline: Instant,
) -> Result<(), ErrorMessage> {
    let left = deadline.saturating_duration_since(node.env.clock().now());
    let call = Call::Count {
        consistency,
        within_micros: u64::try_from(left.as_micros()).unwrap_or(u64::MAX),
        increments: increments_of(update).into(),
    };
    let Err(failure) = node.call(leader, call, left).await else {
        return Ok(());
    };
    let (received, write_type) = (0, WriteType::Counter);
    let error = match failure.reason {
        FailureReason::Timeout => RequestError::WriteTimeout {
            consistency,
            received,
            required,
            write_type,
        },
        reason => RequestError::WriteFailure {
            consistency,
            received,
            required,
            failures: vec![(leader, reason)],
            write_type,
        },
    };
    let cause = Some(failure.message);
    Err(request_error(node, RequestFailure { error, cause }))
}

/// Increments as they travel: cells of eight bytes.
fn increments_of(update: CounterUpdate) -> Mutation {
    let row_of = |increments: RowIncrements| {
        let mut row = Row::default();
        for (column, delta) in increments {
            let value = Bytes::copy_from_slice(&delta.to_be_bytes());
            row.merge_column(column, ColumnData::Cell(Cell::live(Timestamp(0), value)));
        }
        row
    };
    let mut mutation = Mutation::new(update.table, update.key);
    mutation.partition.static_row = row_of(update.statics);
    for (key, increments) in update.rows {
        *mutation.partition.row_mut(key) = row_of(increments);
    }
    mutation
}

/// What [`increments_of`] made; None when it did not.
fn update_of(mutation: Mutation) -> Option<CounterUpdate> {
    let increments = |row: &Row| -> Option<RowIncrements> {
        let cells = row.columns.iter().map(|(column, data)| match data {
            ColumnData::Cell(cell) => {
                let CellState::Live(delta) = &cell.state else {
                    return None;
                };
                Some((*column, i64::from_be_bytes(delta.as_ref().try_into().ok()?)))
            }
            ColumnData::Collection(_) => None,
        });
        cells.collect()
    };
    let rows = mutation.partition.rows.iter();
    Some(CounterUpdate {
        table: mutation.table,
        statics: increments(&mutation.partition.static_row)?,
        rows: rows
            .map(|(key, row)| Some((key.clone(), increments(row)?)))
            .collect::<Option<_>>()?,
        key: mutation.key,
    })
}

impl Node {
    /// Leads a write of counters that another node coordinates.
    pub(crate) async fn count_for_peer(
        self: &Rc<Self>,
        increments: Mutation,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<(), ReplicaFailure> {
        let Some(update) = update_of(increments) else {
            let text = "increments of counters that are none";
            return Err(ReplicaFailure::new(FailureReason::Unknown, text));
        };
        let owner = update.key.token.shard(self.shard_count());
        let led = self.on_shard(owner, move |node| {
            Box::pin(async move { node.lead_counters(update, consistency, deadline).await })
        });
        led.await.map_err(|error| {
            let reason = match error.reason {
                ErrorReason::WriteTimeout { .. } => FailureReason::Timeout,
                ErrorReason::Overloaded => FailureReason::Overloaded,
                ErrorReason::Invalid => FailureReason::IncompatibleSchema,
                _ => FailureReason::Unknown,
            };
            ReplicaFailure::new(reason, error.message)
        })
    }

    /// Reads what this node has counted, and writes the new sums.
    async fn lead_counters(
        self: &Rc<Self>,
        update: CounterUpdate,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<(), ErrorMessage> {
        let _guard = self.locks.lock(update.table, update.key.clone()).await;
        if self.env.clock().now() >= deadline {
            return Err(counter_timeout(consistency));
        }
        let slices = update.rows.iter().map(|(key, _)| Slice::of_row(key)).collect();
        let stored = self.read_for_update(update.table, &update.key, slices).await?;
        let mut mutation = Mutation::new(update.table, update.key);
        let now = self.next_timestamp();
        let row_of = |key: &ClusteringKey| {
            let at = stored.rows.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
            stored.rows.get(at).map(|(_, row)| row)
        };
        mutation.partition.static_row = self.new_sums(Some(&stored.static_row), &update.statics, now);
        for (key, increments) in &update.rows {
            *mutation.partition.row_mut(key.clone()) = self.new_sums(row_of(key), increments, now);
        }
        if self.has_peers() {
            let applied = self.clone().apply_here(mutation.clone()).await;
            applied.map_err(|failure| server_error(failure.message))?;
        }
        write_one(self, consistency, deadline, WriteType::Counter, mutation).await
    }

    fn new_sums(&self, stored: Option<&Row>, increments: &RowIncrements, now: i64) -> Row {
        let mut row = Row::default();
        for (column, delta) in increments {
            let own = stored
                .and_then(|row| row.column(*column))
                .and_then(|data| match data {
                    ColumnData::Collection(counter) => Some(counter),
                    ColumnData::Cell(_) => None,
                });
            let counter = counter_update(own, self.options.host_id, *delta, now);
            row.merge_column(*column, ColumnData::Collection(counter));
        }
        row
    }

    /// Rows of a partition as this shard has them, tombstones too. The caller holds the partition's lock.
    pub(crate) async fn read_for_update(
        self: &Rc<Self>,
        table: TableId,
        key: &ceto_model::DecoratedKey,
        mut slices: Slices,
    ) -> Result<Partition, ErrorMessage> {
        slices.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let command = ReadCommand {
            table,
            target: ReadTarget::Partition(key.clone()),
            slices,
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::All,
            now: UnixSeconds(self.env.clock().unix_seconds()),
            limits: ReadLimits::NONE,
            keep_tombstones: true,
            bypass_cache: false,
            index: None,
        };
        let result = self
            .read_here(&command)
            .await
            .map_err(|failure| server_error(failure.message))?;
        Ok(result
            .partitions
            .into_iter()
            .next()
            .map(|part| part.partition)
            .unwrap_or_default())
    }
}

fn counter_timeout(consistency: Consistency) -> ErrorMessage {
    let progress = ceto_native::error::Progress {
        consistency,
        received: 0,
        block_for: 1,
    };
    ErrorMessage {
        reason: ErrorReason::WriteTimeout {
            progress,
            write_type: WriteType::Counter,
            contentions: None,
        },
        message: "Operation timed out waiting for other updates of the same counters".to_owned(),
    }
}
