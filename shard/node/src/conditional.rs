//! Writes that read first: IF, and operations on list positions.
//!
//! On a node that is alone the partitions are locked on the shards that own them, read, judged by the plan, and written; what
//! has a condition, with a timestamp above everything read. So conditional writes to one partition happen one after the
//! other, over all shards of the node. Over several nodes Paxos decides ([`crate::paxos`]), and the plan is the judge there.
//! Operations on list positions have no condition: they read at the statement's level, and write with an ordinary timestamp,
//! as in Cassandra.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use ceto_cluster::consistency::{validate_for_conditional_commit, validate_for_write, validate_serial};
use ceto_cluster::paxos::{PartitionId, PaxosKind, PaxosReply};
use ceto_cluster::{ReplicaMap, Strategy};
use ceto_cql::{ConditionalWrite, Outcome};
use ceto_model::read::{ReadCommand, ReadResult, ReadTarget};
use ceto_model::{
    ColumnData, Consistency, DecoratedKey, Mutation, Partition, Row, Table, TableId, Timestamp,
};
use ceto_native::response::RowsHeader;
use ceto_native::{EncodedColumns, ErrorMessage, Response, RowsEncoder};

use crate::answer::{cql_error, invalid, request_error, server_error};
use crate::execute::{Answer, NodeRandom, RequestContext};
use crate::node::Node;
use crate::paxos::{PaxosOperation, PaxosStep};
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
    if plan.is_conditional()
        && let Some(table) = table_of(context, &plan)?
        && is_decided_by_paxos(&context.node, &table)
    {
        let outcome = decide(context, &plan, table).await?;
        context.record(Operation::CoordinatorWrite, None);
        return Ok(answer(context, &outcome));
    }
    validate_for_write(context.consistency).map_err(invalid)?;
    let locks = lock_all(&context.node, plan.reads()).await;
    let outcome = run_locked(context, &plan).await;
    unlock_all(&context.node, locks).await;
    let outcome = outcome?;
    context.record(Operation::CoordinatorWrite, None);
    Ok(answer(context, &outcome))
}

/// Whether conditions on this table are decided by all of its replicas: it may have some on other nodes.
pub(crate) fn is_decided_by_paxos(node: &Node, table: &Table) -> bool {
    let is_replicated = |map: &ReplicaMap| *map.strategy() != Strategy::Local;
    node.has_peers()
        && node
            .replication(&table.keyspace)
            .is_some_and(|map| is_replicated(&map))
}

fn table_of(context: &RequestContext, plan: &ConditionalWrite) -> Result<Option<Arc<Table>>, ErrorMessage> {
    let Some(read) = plan.reads().first() else {
        return Ok(None);
    };
    let schema = context.node.schema();
    match schema.table_by_id(read.table) {
        Some(table) => Ok(Some(table.clone())),
        None => Err(invalid(format!(
            "Table with id {} does not exist any more",
            read.table
        ))),
    }
}

/// Decides a conditional write by Paxos.
async fn decide(
    context: &RequestContext,
    plan: &ConditionalWrite,
    table: Arc<Table>,
) -> Result<Outcome, ErrorMessage> {
    let node = &context.node;
    if node.has_views(table.id) {
        return Err(invalid(crate::ddl::VIEWS_NEED_ONE_NODE));
    }
    if let Some(map) = node.replication(&table.keyspace) {
        validate_for_conditional_commit(context.consistency, map.strategy()).map_err(invalid)?;
    }
    let Some(ReadTarget::Partition(key)) = plan.reads().first().map(|read| &read.target) else {
        return Err(server_error("a condition without a partition"));
    };
    let partition = PartitionId {
        table: table.id,
        key: key.clone(),
    };
    let kind = PaxosKind::Cas(context.consistency);
    let serial = context.serial_consistency.unwrap_or(Consistency::Serial);
    let owner = partition.key.token.shard(node.shard_count());
    let mut step = begin(context, &table, kind, serial, partition.clone()).await;
    let mut judged = None;
    loop {
        let (request, timestamp, consistency) = match step {
            PaxosStep::Examine {
                request,
                timestamp,
                consistency,
            } => (request, timestamp, consistency),
            PaxosStep::Ended(PaxosReply::Cas(Ok(_))) => {
                return judged.unwrap_or_else(|| Err(server_error("a condition was decided and not judged")));
            }
            PaxosStep::Ended(PaxosReply::Cas(Err(error)) | PaxosReply::Read(Err(error))) => {
                return Err(match judged {
                    Some(Err(own)) => own,
                    _ => request_error(node, error.into()),
                });
            }
            PaxosStep::Ended(PaxosReply::Read(Ok(()))) => {
                return Err(server_error("a conditional update ended as a read"));
            }
        };
        let (change, outcome) = match judge(context, plan, &table, timestamp, consistency).await {
            Ok((change, outcome)) => (change, Ok(outcome)),
            // Nothing is changed then, and the client hears why.
            Err(error) => (None, Err(error)),
        };
        judged = Some(outcome);
        step = node
            .on_shard(owner, move |node| {
                Box::pin(async move { node.paxos_examined(request, Ok(change)).await })
            })
            .await;
    }
}

async fn begin(
    context: &RequestContext,
    table: &Arc<Table>,
    kind: PaxosKind,
    serial_consistency: Consistency,
    partition: PartitionId,
) -> PaxosStep {
    let node = &context.node;
    let deadline = context.deadline(node.settings().limits.write_timeout);
    let owner = partition.key.token.shard(node.shard_count());
    let operation = PaxosOperation {
        kind,
        serial_consistency,
        partition,
        deadline,
    };
    let table = table.clone();
    node.on_shard(owner, move |node| {
        Box::pin(async move { node.begin_paxos(table, operation).await })
    })
    .await
}

/// Reads what the conditions are about, and what becomes of it: the change if they hold, and what the client is told.
async fn judge(
    context: &RequestContext,
    plan: &ConditionalWrite,
    table: &Table,
    timestamp: Timestamp,
    consistency: Consistency,
) -> Result<(Option<Mutation>, Outcome), ErrorMessage> {
    let mut results = Vec::with_capacity(plan.reads().len());
    for command in plan.reads() {
        results.push(crate::select::read_at(context, table, command.clone(), consistency).await?);
    }
    let random = NodeRandom::new(&context.node);
    let mut plan_context = context.plan_context(&random);
    plan_context.now_micros = timestamp.0;
    let mut outcome = plan.decide(&results, &plan_context).map_err(cql_error)?;
    let Some(write) = outcome.write.take() else {
        return Ok((None, outcome));
    };
    crate::execute::check_writes(context, &write, false)?;
    crate::modify::check_mutation_sizes(context, &write)?;
    // All statements are of one partition; a change that changes nothing is one, too.
    let key = match plan.reads().first().map(|read| &read.target) {
        Some(ReadTarget::Partition(key)) => key.clone(),
        _ => return Err(server_error("a condition without a partition")),
    };
    let mut change = Mutation::new(table.id, key);
    for mutation in write.mutations {
        if (mutation.table, &mutation.key) != (change.table, &change.key) {
            return Err(invalid("Batch with conditions cannot span multiple partitions"));
        }
        change.merge(mutation);
    }
    Ok((Some(change), outcome))
}

/// Has everything decided that was proposed for a partition before this moment, as a read at SERIAL needs.
pub(crate) async fn settle(
    context: &RequestContext,
    table: &Arc<Table>,
    key: &DecoratedKey,
) -> Result<(), ErrorMessage> {
    let partition = PartitionId {
        table: table.id,
        key: key.clone(),
    };
    match begin(context, table, PaxosKind::Read, context.consistency, partition).await {
        PaxosStep::Ended(PaxosReply::Read(outcome)) => {
            outcome.map_err(|error| request_error(&context.node, error.into()))
        }
        _ => Err(server_error(
            "a read at SERIAL was taken for a conditional update",
        )),
    }
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
    plan_context.now_micros = context.node.next_timestamp();
    if plan.is_conditional()
        && let Some(newest) = results.iter().filter_map(newest_timestamp).max()
    {
        plan_context.now_micros = plan_context.now_micros.max(newest.saturating_add(1));
    }
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
