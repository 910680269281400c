//! SELECT: reads for the plan until it wants no more, rows straight into the body of the answer.

use bytes::BytesMut;
use ceto_cluster::consistency::validate_for_read;
use ceto_cluster::coordinator::{ReadOptions, ReadRepair, RequestContext as CoordinatorContext};
use ceto_cql::{RowSink, SelectPlan};
use ceto_model::Table;
use ceto_model::read::{ReadCommand, ReadResult, ReadTarget};
use ceto_native::error::{Failures, Progress};
use ceto_native::response::RowsHeader;
use ceto_native::{ErrorMessage, ErrorReason, RowsEncoder};
use tracing::{error, warn};

use crate::answer::{cql_error, invalid, request_error};
use crate::execute::{Answer, NodeRandom, RequestContext};
use crate::prepared::Entry;
use crate::shard_metrics::Operation;
use crate::system::virtual_rows::{self, VirtualSource};

/// Capacity of a result's buffer at its start, bytes.
const RESULT_CAPACITY: usize = 512;

/// Runs a SELECT.
pub(crate) async fn run(
    context: &RequestContext,
    entry: &Entry,
    mut plan: Box<SelectPlan>,
    client_metadata_id: Option<&[u8]>,
) -> Result<Answer, ErrorMessage> {
    validate_for_read(context.consistency).map_err(invalid)?;
    if let Some(warning) = plan.warning() {
        context.warn(warning.to_owned());
    }
    let random = NodeRandom(&context.node);
    let plan_context = context.plan_context(&random);
    let mut body = BytesMut::with_capacity(RESULT_CAPACITY);
    let mut rows = Rows::begin(context, entry, client_metadata_id, &mut body);
    let mut work = Walked::default();
    let tombstones_max = context.node.options.limits.tombstone_fail;
    while let Some(command) = plan.command() {
        let mut command = command.clone();
        if plan.has_short_pages() {
            let left = tombstones_max.saturating_sub(work.tombstones).max(1);
            command.limits.tombstones = command.limits.tombstones.min(left);
        }
        let result = read(context, plan.table(), command).await?;
        work.add(&result);
        if work.tombstones > tombstones_max && !plan.has_short_pages() && !plan.is_one_row() {
            return Err(too_many_tombstones(context, plan.table(), work.tombstones));
        }
        plan.feed(&result, &plan_context, &mut rows).map_err(cql_error)?;
        if work.tombstones >= tombstones_max && plan.end_page(&result) {
            context.node.metrics.short_pages.increment();
            context.trace(|| format!("Page ends after {} tombstones", work.tombstones));
        }
    }
    plan.finish(&plan_context, &mut rows).map_err(cql_error)?;
    warn_of_tombstones(context, plan.table(), work);
    rows.finish(plan.paging_state().as_deref());
    let metrics = &context.node.metrics;
    metrics.rows_returned.add(plan.row_count());
    metrics
        .latency(Operation::CoordinatorRead)
        .record(context.node.env.clock().now() - context.started);
    context.trace(|| format!("{} rows", plan.row_count()));
    Ok(Answer::Result {
        prefix: context.prefix(),
        body,
    })
}

/// One read of the plan.
pub(crate) async fn read(
    context: &RequestContext,
    table: &Table,
    command: ReadCommand,
) -> Result<ReadResult, ErrorMessage> {
    if table.is_virtual {
        return Ok(read_virtual(context, table, &command).await);
    }
    let node = &context.node;
    let Some(replication) = node.replication(&table.keyspace) else {
        return Err(invalid(format!("Keyspace {} does not exist", table.keyspace)));
    };
    let limits = &node.options.limits;
    let timeout = match &command.target {
        ReadTarget::Partition(_) => limits.read_timeout,
        ReadTarget::Range(_) => limits.range_timeout,
    };
    context.trace(|| match &command.target {
        ReadTarget::Partition(key) => format!(
            "Executing single-partition query on {} (token {}, shard {})",
            table.name,
            key.token,
            key.token.shard(node.shard_count())
        ),
        ReadTarget::Range(_) => format!("Executing range scan on {}", table.name),
    });
    let coordinator = CoordinatorContext {
        replication: &replication,
        consistency: context.consistency,
        deadline: context.deadline(timeout),
    };
    let read_repair = match table.options.read_repair.as_str() {
        "NONE" => ReadRepair::None,
        _ => ReadRepair::Blocking,
    };
    let options = ReadOptions {
        read_repair,
        speculate_after: None,
    };
    let result = node
        .read(coordinator, &options, command)
        .await
        .map_err(|failure| request_error(node, failure))?;
    context.trace(|| {
        let work = result.work;
        format!(
            "Read {} live rows and {} tombstones, {} sstables",
            work.live_rows, work.tombstones, work.sstables
        )
    });
    Ok(result)
}

async fn read_virtual(context: &RequestContext, table: &Table, command: &ReadCommand) -> ReadResult {
    let node = &context.node;
    let clients = if &*table.name == "clients" {
        let per_shard = node
            .on_all_shards(|node| Box::pin(async move { node.client_rows() }))
            .await;
        per_shard.into_iter().flatten().collect()
    } else {
        Vec::new()
    };
    let figures = match &*table.name {
        "size_estimates" | "table_estimates" => node.table_figures_of_all_shards().await,
        _ => Vec::new(),
    };
    let schema = node.schema();
    let source = VirtualSource {
        options: &node.options,
        schema: &schema,
        clients: &clients,
        settings: &node.settings,
        figures: &figures,
        started: node.started,
    };
    virtual_rows::read(table, command, &source)
}

/// What the reads of a request have walked over.
#[derive(Clone, Copy, Default)]
struct Walked {
    live_rows: u64,
    tombstones: u64,
}

impl Walked {
    fn add(&mut self, result: &ReadResult) {
        self.live_rows += result.work.live_rows;
        self.tombstones += result.work.tombstones;
    }
}

/// Only for reads without pages: a page ends early instead.
fn too_many_tombstones(context: &RequestContext, table: &Table, tombstones: u64) -> ErrorMessage {
    let limit = context.node.options.limits.tombstone_fail;
    let metrics = &context.node.metrics;
    metrics.tombstone_failures.increment();
    let message = format!(
        "Scanned over {tombstones} tombstones in {}.{}; the query was aborted (tombstone_failure_threshold is {limit})",
        table.keyspace, table.name
    );
    let progress = Progress {
        consistency: context.consistency,
        received: 0,
        block_for: 1,
    };
    let reason = ceto_native::error::FailureReason::READ_TOO_MANY_TOMBSTONES;
    let failures = Failures::new(vec![(context.node.options.rpc_address, reason)]);
    if context.node.may_log_tombstones() {
        error!("{message}");
    }
    ErrorMessage {
        reason: ErrorReason::ReadFailure {
            progress,
            failures,
            data_present: false,
        },
        message,
    }
}

fn warn_of_tombstones(context: &RequestContext, table: &Table, walked: Walked) {
    if walked.tombstones <= context.node.options.limits.tombstone_warn {
        return;
    }
    context.node.metrics.tombstone_warnings.increment();
    let text = format!(
        "Read {} live rows and {} tombstone cells for query on {}.{} (see tombstone_warn_threshold)",
        walked.live_rows, walked.tombstones, table.keyspace, table.name
    );
    if context.node.may_log_tombstones() {
        warn!("{text}");
    }
    context.warn(text);
}

/// Rows into the body of the answer.
struct Rows<'a> {
    encoder: RowsEncoder<'a>,
    is_row_open: bool,
}

impl<'a> Rows<'a> {
    fn begin(
        context: &RequestContext,
        entry: &'a Entry,
        client_metadata_id: Option<&[u8]>,
        body: &'a mut BytesMut,
    ) -> Rows<'a> {
        let is_stale = context.dialect.has_metadata_id()
            && client_metadata_id.is_some_and(|id| *id != entry.result_metadata_id[..]);
        let header = RowsHeader {
            columns: entry.encoded_columns(context.dialect.version),
            skip_metadata: context.skip_metadata,
            new_metadata_id: is_stale.then_some(&entry.result_metadata_id[..]),
        };
        Rows {
            encoder: RowsEncoder::begin(body, header),
            is_row_open: false,
        }
    }

    fn end_row(&mut self) {
        if std::mem::take(&mut self.is_row_open) {
            self.encoder.end_row();
        }
    }

    fn finish(mut self, paging_state: Option<&[u8]>) {
        self.end_row();
        self.encoder.finish(paging_state);
    }
}

impl RowSink for Rows<'_> {
    fn start_row(&mut self) {
        self.end_row();
        self.is_row_open = true;
    }

    fn cell(&mut self, value: Option<&[u8]>) {
        self.encoder.cell(value);
    }
}
