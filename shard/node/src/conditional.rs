//! Writes that read first: IF, and operations on list positions.
//!
//! The partitions are locked on the shards that own them, read, judged by the plan, and written with a timestamp above
//! everything read. So conditional writes to one partition happen one after the other, over all shards of the node.
//! The consensus round between replicas will take the lock's place.

use std::rc::Rc;

use bytes::BytesMut;
use ceto_cluster::consistency::{validate_for_write, validate_serial};
use ceto_cql::{ConditionalWrite, Outcome};
use ceto_model::read::{ReadCommand, ReadResult, ReadTarget};
use ceto_model::{ColumnData, DecoratedKey, Partition, Row, TableId};
use ceto_native::response::RowsHeader;
use ceto_native::{EncodedColumns, ErrorMessage, Response, RowsEncoder};

use crate::answer::{cql_error, invalid};
use crate::execute::{Answer, NodeRandom, RequestContext};
use crate::node::Node;
use crate::prepared::column_specs;
use crate::shard_metrics::Operation;

/// Runs a write that reads first.
pub(crate) async fn run(
    context: &RequestContext,
    plan: Box<ConditionalWrite>,
) -> Result<Answer, ErrorMessage> {
    if plan.is_conditional()
        && let Some(serial) = context.serial_consistency
    {
        validate_serial(serial).map_err(invalid)?;
    }
    validate_for_write(context.consistency).map_err(invalid)?;
    let locks = lock_all(&context.node, plan.reads()).await;
    let outcome = run_locked(context, &plan).await;
    unlock_all(&context.node, locks).await;
    let outcome = outcome?;
    context.record(Operation::CoordinatorWrite, None);
    Ok(answer(context, &outcome))
}

async fn run_locked(context: &RequestContext, plan: &ConditionalWrite) -> Result<Outcome, ErrorMessage> {
    let schema = context.node.schema();
    let mut results = Vec::with_capacity(plan.reads().len());
    for command in plan.reads() {
        let Some(table) = schema.table_by_id(command.table) else {
            return Err(invalid(format!(
                "Table with id {} does not exist any more",
                command.table
            )));
        };
        results.push(crate::select::read(context, table, command.clone()).await?);
    }
    let random = NodeRandom::new(&context.node);
    let mut plan_context = context.plan_context(&random);
    let newest = results.iter().filter_map(newest_timestamp).max();
    plan_context.now_micros = context
        .node
        .next_timestamp()
        .max(newest.map_or(i64::MIN, |newest| newest.saturating_add(1)));
    let mut outcome = plan.decide(&results, &plan_context).map_err(cql_error)?;
    if let Some(write) = outcome.write.take() {
        crate::execute::check_writes(context, &write, !plan.is_conditional())?;
        crate::modify::write(context, write).await?;
    }
    Ok(outcome)
}

fn answer(context: &RequestContext, outcome: &Outcome) -> Answer {
    if outcome.columns.is_empty() {
        return context.message(Response::Void);
    }
    let columns = EncodedColumns::encode(context.dialect.version, &column_specs(&outcome.columns));
    // The columns depend on the outcome, so clients never have them already.
    let header = RowsHeader {
        columns: &columns,
        skip_metadata: false,
        new_metadata_id: None,
    };
    let mut encoder = RowsEncoder::begin(BytesMut::new(), header);
    for row in &outcome.rows {
        encoder.row(row.iter().map(|cell| cell.as_deref()));
    }
    Answer::Result {
        prefix: context.prefix(),
        body: encoder.finish(None),
        share: None,
    }
}

/// The newest write that a result shows, microseconds.
fn newest_timestamp(result: &ReadResult) -> Option<i64> {
    let of_row = |row: &Row| {
        let cells = row.columns.iter().filter_map(|(_, data)| match data {
            ColumnData::Cell(cell) => Some(cell.timestamp.0),
            ColumnData::Collection(collection) => {
                let cells = collection.cells.iter().map(|(_, cell)| cell.timestamp.0);
                cells
                    .chain(collection.deletion.map(|deletion| deletion.timestamp.0))
                    .max()
            }
        });
        let own = row
            .liveness
            .map(|l| l.timestamp.0)
            .into_iter()
            .chain(row.deletion.map(|d| d.timestamp.0));
        cells.chain(own).max()
    };
    let of_partition = |partition: &Partition| {
        let rows = partition
            .rows
            .iter()
            .map(|(_, row)| row)
            .chain([&partition.static_row]);
        let ranges = partition
            .range_tombstones
            .iter()
            .map(|tombstone| tombstone.deletion);
        let deletions = ranges
            .chain(partition.deletion)
            .map(|deletion| deletion.timestamp.0);
        rows.filter_map(of_row).chain(deletions).max()
    };
    result
        .partitions
        .iter()
        .filter_map(|part| of_partition(&part.partition))
        .max()
}

/// A lock held on the shard that owns its partition.
struct RemoteLock {
    shard: u16,
    guard: usize,
}

/// Locks the partitions of all reads, in one order for everybody.
async fn lock_all(node: &Rc<Node>, reads: &[ReadCommand]) -> Vec<RemoteLock> {
    let partition = |read: &ReadCommand| match &read.target {
        ReadTarget::Partition(key) => Some((read.table, key.clone())),
        ReadTarget::Range(_) => None,
    };
    let mut partitions: Vec<(TableId, DecoratedKey)> = reads.iter().filter_map(partition).collect();
    partitions.sort();
    partitions.dedup();
    let mut locks = Vec::with_capacity(partitions.len());
    for (table, key) in partitions {
        let shard = key.token.shard(node.shard_count());
        let guard = node
            .on_shard(shard, move |node| {
                Box::pin(async move { node.hold_lock(table, key).await })
            })
            .await;
        locks.push(RemoteLock { shard, guard });
    }
    locks
}

async fn unlock_all(node: &Rc<Node>, locks: Vec<RemoteLock>) {
    for RemoteLock { shard, guard } in locks {
        node.on_shard(shard, move |node| {
            Box::pin(async move { node.release_lock(guard) })
        })
        .await;
    }
}

impl Node {
    /// Takes a lock and keeps it until [`Node::release_lock`].
    async fn hold_lock(&self, table: TableId, key: DecoratedKey) -> usize {
        let guard = self.locks.lock(table, key).await;
        self.held_locks.borrow_mut().insert(guard)
    }

    fn release_lock(&self, guard: usize) {
        let guard = self.held_locks.borrow_mut().try_remove(guard);
        drop(guard);
    }
}
