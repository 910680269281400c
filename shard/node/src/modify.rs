//! INSERT, UPDATE, DELETE and BATCH: the plan's mutations to the pump.
//!
//! The partitions of a batch are written at the same time. Counters go by `counters`.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ceto_cluster::consistency::validate_for_write;
use ceto_cluster::coordinator::RequestContext as CoordinatorContext;
use ceto_cql::{WriteKind, WritePlan};
use ceto_model::value::format_literal;
use ceto_model::{Consistency, Mutation, Schema, WriteType};
use ceto_native::ErrorMessage;

use crate::answer::{invalid, request_error};
use crate::batchlog::LoggedBatch;
use crate::execute::{Answer, RequestContext, Started};
use crate::node::Node;
use crate::pump::BegunWrite;
use crate::shard_metrics::Operation;

/// Characters of each key component in an error text.
const KEY_TEXT_MAX: usize = 256;

/// Partitions of one request that are written at the same time; others get their turn between so many and the next.
const WRITES_AT_ONCE: usize = 128;

/// Starts a write without conditions: one of one partition that is acknowledged at once is done.
pub(crate) fn start(context: RequestContext, mut plan: WritePlan) -> Started {
    let is_one = plan.mutations.len() == 1;
    if is_one && let Err(error) = check_mutation_sizes(&context, &plan) {
        return Started::Done(Err(error));
    }
    let only = match plan.mutations.len() {
        1 if plan.kind == WriteKind::Simple && context.trace.is_none() => plan.mutations.pop(),
        _ => None,
    };
    let Some(mutation) = only else {
        return Started::later(async move {
            write(&context, plan).await?;
            Ok(acknowledge(&context, None))
        });
    };
    if let Err(error) = validate_for_write(context.consistency) {
        return Started::Done(Err(invalid(error)));
    }
    let timeout = timeout_of(plan.timeout_nanos, context.node.settings().limits.write_timeout);
    let deadline = context.deadline(timeout);
    match begin_one(
        &context.node,
        context.consistency,
        deadline,
        WriteType::Simple,
        mutation,
    ) {
        Err(error) => Started::Done(Err(error)),
        Ok(BegunWrite::Done(at)) => Started::Done(Ok(acknowledge(&context, Some(at)))),
        Ok(BegunWrite::Waits(request)) => Started::later(async move {
            let node = &context.node;
            let outcome = node.write_reply(request).await;
            outcome.map_err(|failure| request_error(node, failure))?;
            Ok(acknowledge(&context, None))
        }),
    }
}

/// `done`: when the write was, if the clock has been read for that.
fn acknowledge(context: &RequestContext, done: Option<Instant>) -> Answer {
    context.record(Operation::CoordinatorWrite, done);
    Answer::Void(context.prefix())
}

/// Carries a plan's writes out.
pub(crate) async fn write(context: &RequestContext, plan: WritePlan) -> Result<(), ErrorMessage> {
    check_batch_size(context, &plan)?;
    check_mutation_sizes(context, &plan)?;
    let write_type = match plan.kind {
        WriteKind::Simple => WriteType::Simple,
        WriteKind::LoggedBatch => WriteType::Batch,
        WriteKind::UnloggedBatch => WriteType::UnloggedBatch,
        WriteKind::Counter => WriteType::Counter,
    };
    if plan.kind == WriteKind::Counter {
        let updates = plan
            .counters
            .into_iter()
            .map(|update| crate::counters::add(context, update));
        for outcome in at_once(updates).await {
            outcome?;
        }
    } else {
        validate_for_write(context.consistency).map_err(invalid)?;
    }
    let timeout = timeout_of(plan.timeout_nanos, context.node.settings().limits.write_timeout);
    let deadline = context.deadline(timeout);
    let consistency = context.consistency;
    let mut mutations = plan.mutations;
    if mutations.len() <= 1 {
        return match mutations.pop() {
            Some(mutation) => write_one(&context.node, consistency, deadline, write_type, mutation).await,
            None => Ok(()),
        };
    }
    // A part of it must not be all that becomes of it when this node dies.
    let logged = match write_type == WriteType::Batch && context.node.has_peers() {
        true => Some(LoggedBatch::write(context, &mutations).await?),
        false => None,
    };
    let mut outcome = Ok(());
    let mut mutations = mutations.into_iter().peekable();
    while mutations.peek().is_some() {
        let some = mutations.by_ref().take(WRITES_AT_ONCE);
        let some = some.map(|mutation| write_one(&context.node, consistency, deadline, write_type, mutation));
        // As if all had been begun at once: a failed one does not keep the others from being written.
        for written in at_once(some).await {
            outcome = outcome.and(written);
        }
        if let Some(turn) = context.node.env.tasks().yield_if_due() {
            turn.await;
        }
    }
    // What is not done yet is done by those who keep it.
    if let Some(logged) = logged.filter(|_| outcome.is_ok()) {
        logged.forget();
    }
    outcome
}

fn timeout_of(asked_nanos: Option<i64>, default: Duration) -> Duration {
    asked_nanos
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map_or(default, Duration::from_nanos)
}

/// Writes one partition.
pub(crate) async fn write_one(
    node: &Rc<Node>,
    consistency: Consistency,
    deadline: Instant,
    write_type: WriteType,
    mutation: Mutation,
) -> Result<(), ErrorMessage> {
    match begin_one(node, consistency, deadline, write_type, mutation)? {
        BegunWrite::Done(_) => Ok(()),
        BegunWrite::Waits(request) => {
            let outcome = node.write_reply(request).await;
            outcome.map_err(|failure| request_error(node, failure))
        }
    }
}

fn begin_one(
    node: &Rc<Node>,
    consistency: Consistency,
    deadline: Instant,
    write_type: WriteType,
    mutation: Mutation,
) -> Result<BegunWrite, ErrorMessage> {
    let schema = node.schema();
    let Some(table) = schema.table_by_id(mutation.table) else {
        return Err(invalid(format!(
            "Table with id {} does not exist any more",
            mutation.table
        )));
    };
    if node.has_peers() && schema.views_of(mutation.table).is_some() {
        return Err(invalid(crate::ddl::VIEWS_NEED_ONE_NODE));
    }
    if let Some(views) = schema.views_of(mutation.table)
        && let Some(size) = views
            .iter()
            .find_map(|view| view.oversized_value(&mutation.partition))
    {
        return Err(invalid(format!(
            "Key length of {size} is longer than maximum of 65535 in a materialized view of {}.{}",
            table.keyspace, table.name
        )));
    }
    let Some(replication) = node.replication(&table.keyspace) else {
        return Err(invalid(format!("Keyspace {} does not exist", table.keyspace)));
    };
    let coordinator = CoordinatorContext {
        replication: &replication,
        consistency,
        deadline,
    };
    node.begin_write(coordinator, write_type, mutation)
        .map_err(|failure| request_error(node, failure))
}

/// A warning of an unlogged batch over many partitions.
fn unlogged_batch(schema: &Schema, mutations: &[Mutation]) -> String {
    let tables = mutations
        .iter()
        .filter_map(|mutation| schema.table_by_id(mutation.table));
    let mut names: Vec<String> = tables
        .map(|table| format!("{}.{}", table.keyspace, table.name))
        .collect();
    names.sort_unstable();
    names.dedup();
    format!(
        "Unlogged batch covering {} partitions detected against table{} [{}]. You should use a logged batch for atomicity, \
         or asynchronous writes for performance.",
        mutations.len(),
        if names.len() == 1 { "" } else { "s" },
        names.join(", ")
    )
}

/// Batches over several partitions cost the coordinator memory: large ones are warned of, larger ones refused.
fn check_batch_size(context: &RequestContext, plan: &WritePlan) -> Result<(), ErrorMessage> {
    let is_batch = matches!(plan.kind, WriteKind::LoggedBatch | WriteKind::UnloggedBatch);
    if !is_batch || plan.mutations.len() < 2 {
        return Ok(());
    }
    let settings = context.node.settings();
    let limits = &settings.limits;
    let partitions = plan.mutations.len();
    if plan.kind == WriteKind::UnloggedBatch && partitions > limits.unlogged_batch_partitions_warn {
        context.warn(unlogged_batch(&context.node.schema(), &plan.mutations));
    }
    let mut encoded = Vec::new();
    plan.mutations
        .iter()
        .for_each(|mutation| ceto_model::codec::put_mutation(&mut encoded, mutation));
    let size = encoded.len();
    if size > limits.batch_size_fail {
        let message = format!(
            "Batch too large: {size} bytes over {} partitions, batch_size_fail_threshold is {} bytes",
            plan.mutations.len(),
            limits.batch_size_fail
        );
        return Err(invalid(message));
    }
    if size > limits.batch_size_warn {
        let over = size - limits.batch_size_warn;
        context.warn(format!(
            "Batch over {} partitions is of size {size}, exceeding specified threshold of {} by {over} \
             (batch_size_warn_threshold).",
            plan.mutations.len(),
            limits.batch_size_warn
        ));
    }
    Ok(())
}

/// Refuses what the commitlog would refuse, before any replica is asked.
pub(crate) fn check_mutation_sizes(context: &RequestContext, plan: &WritePlan) -> Result<(), ErrorMessage> {
    let max = context.node.mutation_max();
    // What a mutation takes in memory is more than what it takes encoded, and cheap to know.
    for mutation in plan
        .mutations
        .iter()
        .filter(|mutation| mutation.memory_size() > max)
    {
        let mut encoded = Vec::new();
        ceto_model::codec::put_mutation(&mut encoded, mutation);
        if encoded.len() > max {
            return Err(invalid(oversized(
                &context.node.schema(),
                mutation,
                encoded.len(),
                max,
            )));
        }
    }
    Ok(())
}

fn oversized(schema: &Schema, mutation: &Mutation, size: usize, max: usize) -> String {
    let Some(table) = schema.table_by_id(mutation.table) else {
        return format!("Rejected an oversized mutation ({size}/{max})");
    };
    let columns = table.partition_key();
    let components = mutation.key.key.components(columns.len()).unwrap_or_default();
    let key: Vec<String> = columns
        .iter()
        .zip(&components)
        .map(|(column, value)| {
            let literal = format_literal(&column.cql_type, value).unwrap_or_default();
            literal.trim_matches('\'').chars().take(KEY_TEXT_MAX).collect()
        })
        .collect();
    format!(
        "Rejected an oversized mutation ({size}/{max}) for keyspace: {}. Top keys are: {}.{} (see max_mutation_size)",
        table.keyspace,
        table.name,
        key.join(":")
    )
}

/// Starts all futures, then waits for all of them; results in their order.
pub(crate) async fn at_once<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<Running<'_, T>> = futures.map(|future| Running::start(Box::pin(future))).collect();
    let mut results = Vec::with_capacity(running.len());
    for future in running.drain(..) {
        results.push(match future {
            Running::Done(result) => result,
            Running::Waits(future) => future.await,
        });
    }
    results
}

enum Running<'a, T> {
    Done(T),
    Waits(Pin<Box<dyn Future<Output = T> + 'a>>),
}

impl<'a, T> Running<'a, T> {
    fn start(mut future: Pin<Box<dyn Future<Output = T> + 'a>>) -> Running<'a, T> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Running::Done(result),
            Poll::Pending => Running::Waits(future),
        }
    }
}
