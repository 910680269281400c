//! SELECT: reads for the plan until it wants no more, rows straight into the body of the answer.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ceto_cluster::consistency::validate_for_read;
use ceto_cluster::coordinator::{ReadOptions, ReadRepair, RequestContext as CoordinatorContext};
use ceto_cql::{RowSink, SelectPlan};
use ceto_model::read::{ReadCommand, ReadResult, ReadTarget};
use ceto_model::{Consistency, Table};
use ceto_native::error::{Failures, Progress};
use ceto_native::response::RowsHeader;
use ceto_native::{ErrorMessage, ErrorReason, RowsEncoder};
use tracing::{error, warn};

use crate::answer::{cql_error, invalid, request_error};
use crate::connection::ConnectionState;
use crate::execute::{Answer, NodeRandom, RequestContext, Started};
use crate::prepared::Entry;
use crate::response_memory::{self, Share};
use crate::shard_metrics::Operation;
use crate::system::virtual_rows::{self, VirtualSource};

/// Starts a SELECT: what can be read from memory without a wait is read now.
pub(crate) fn start(
    context: RequestContext,
    connection: &Rc<ConnectionState>,
    entry: Rc<Entry>,
    plan: Box<SelectPlan>,
    client_metadata_id: Option<&Bytes>,
) -> Result<Started, ErrorMessage> {
    validate_for_read(context.consistency).map_err(invalid)?;
    if let Some(warning) = plan.warning() {
        context.warn(warning.to_owned());
    }
    check_guardrails(&context, &plan)?;
    let estimate = estimate(&context, &entry, &plan);
    let Some(share) = Share::try_take(connection, estimate) else {
        let (connection, client_metadata_id) = (connection.clone(), client_metadata_id.cloned());
        return Ok(Started::later(async move {
            let share = Share::take(&connection, estimate).await?;
            let metadata_id = client_metadata_id.as_ref();
            RunningSelect::begin(context, entry, plan, metadata_id, share)
                .run()
                .await
        }));
    };
    let mut select = RunningSelect::begin(context, entry, plan, client_metadata_id, share);
    Ok(match select.advance()? {
        true => Started::Done(select.finish()),
        false => Started::later(select.run()),
    })
}

/// The memory that the answer will take, in bytes: what the statement's answers took of late, else a page and what
/// the read that completes it brings too much.
fn estimate(context: &RequestContext, entry: &Entry, plan: &SelectPlan) -> usize {
    let page = context.node.settings().limits.max_page_bytes;
    let page =
        usize::try_from(page).map_or(usize::MAX / 4, |page| page.saturating_add(response_memory::READ));
    match entry.answer_bytes() {
        0 if plan.has_few_rows() => response_memory::FEW_ROWS,
        0 => page,
        learned => learned.min(page),
    }
}

/// Pages and IN restrictions larger than the operator allows.
pub(crate) fn check_guardrails(context: &RequestContext, plan: &SelectPlan) -> Result<(), ErrorMessage> {
    if context.is_exempt {
        return Ok(());
    }
    let settings = context.node.settings();
    let guardrails = &settings.guardrails;
    let warnings = &mut *context.warnings.borrow_mut();
    if let Some(page_size) = context.page_size {
        guardrails
            .check_page_size(plan.table(), page_size, warnings)
            .map_err(cql_error)?;
    }
    let partitions = plan.named_partitions();
    if partitions > 1 {
        guardrails
            .check_partition_keys(plan.table(), partitions, warnings)
            .map_err(cql_error)?;
        guardrails
            .check_cartesian_product(plan.table(), "partition key", partitions, warnings)
            .map_err(cql_error)?;
    }
    let rows = plan.named_rows();
    if rows > 1 {
        guardrails
            .check_cartesian_product(plan.table(), "clustering key", rows, warnings)
            .map_err(cql_error)?;
    }
    if plan.searches_all_partitions() {
        guardrails.check_index_query(plan.table()).map_err(cql_error)?;
    }
    Ok(())
}

/// A SELECT under way.
struct RunningSelect {
    context: RequestContext,
    entry: Rc<Entry>,
    plan: Box<SelectPlan>,
    rows: Rows,
    work: Walked,
    reads: u64,
    /// The memory of the answer.
    share: Share,
    /// With user-defined functions: rows of one read, so few that their calls take about [`CALLS_TIME`].
    rows_max: Option<u64>,
}

/// Time that the calls of user-defined functions over the rows of one read are to take, about.
const CALLS_TIME: Duration = Duration::from_millis(1);
/// Rows of the first read of a statement with such functions, and of any.
const CALLED_ROWS_FIRST: u64 = 16;
const CALLED_ROWS_MAX: u64 = 1024;

impl RunningSelect {
    fn begin(
        context: RequestContext,
        entry: Rc<Entry>,
        plan: Box<SelectPlan>,
        client_metadata_id: Option<&Bytes>,
        share: Share,
    ) -> RunningSelect {
        let rows = Rows::begin(&context, &entry, client_metadata_id.map(|id| &id[..]));
        let rows_max = entry.statement.calls_functions().then_some(CALLED_ROWS_FIRST);
        RunningSelect {
            context,
            entry,
            plan,
            rows,
            work: Walked::default(),
            reads: 0,
            share,
            rows_max,
        }
    }

    /// The plan's next read; one that may end its page early walks over no more tombstones than are left.
    fn command(&self) -> Option<Cow<'_, ReadCommand>> {
        let command = self.plan.command()?;
        let max = self.context.node.settings().limits.tombstones_per_page;
        let left = max.saturating_sub(self.work.tombstones).max(1);
        let tombstones = match self.plan.has_short_pages() {
            true => command.limits.tombstones.min(left),
            false => command.limits.tombstones,
        };
        let rows = command.limits.rows.min(self.rows_max.unwrap_or(u64::MAX));
        if (rows, tombstones) == (command.limits.rows, command.limits.tombstones) {
            return Some(Cow::Borrowed(command));
        }
        let mut command = command.clone();
        command.limits.tombstones = tombstones;
        command.limits.rows = rows;
        Some(Cow::Owned(command))
    }

    /// Reads what is in memory here; true when nothing is left to be read.
    fn advance(&mut self) -> Result<bool, ErrorMessage> {
        while self.plan.command().is_some() {
            if self.reads > 0 && !self.may_go_on() {
                return Ok(false);
            }
            let Some(command) = self.command() else {
                break;
            };
            match read_now(&self.context, self.plan.table(), &command) {
                Some(result) => self.take(&result)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// There is memory for another read, and time in this turn.
    fn may_go_on(&mut self) -> bool {
        let wanted = self.wanted();
        self.share.try_grow(wanted) && self.context.node.env.tasks().yield_if_due().is_none()
    }

    /// Bytes of the answer so far, and what the next read may add.
    fn wanted(&self) -> usize {
        match self.reads {
            0 => 0,
            _ => self.rows.encoder.length() + response_memory::READ,
        }
    }

    async fn run(mut self) -> Result<Answer, ErrorMessage> {
        while self.plan.command().is_some() {
            let wanted = self.wanted();
            self.share.grow(wanted).await?;
            let Some(command) = self.command() else {
                break;
            };
            let result = read(&self.context, self.plan.table(), command.into_owned()).await?;
            self.take(&result)?;
            if self.rows_max.is_some()
                && let Some(turn) = self.context.node.env.tasks().yield_if_due()
            {
                turn.await;
            }
        }
        self.finish()
    }

    /// Fits the rows of the next read to how long the last took to evaluate.
    fn learn_rows_max(&mut self, started: Instant) {
        if let Some(rows) = &mut self.rows_max {
            let ended = self.context.node.env.clock().read();
            let took = ended.saturating_duration_since(started);
            *rows = match took > CALLS_TIME {
                true => (*rows / 4).max(1),
                false => (*rows * 2).min(CALLED_ROWS_MAX),
            };
        }
    }

    fn take(&mut self, result: &ReadResult) -> Result<(), ErrorMessage> {
        self.reads += 1;
        let (max, page_max) = {
            let settings = self.context.node.settings();
            (
                settings.limits.tombstone_fail,
                settings.limits.tombstones_per_page,
            )
        };
        self.work.add(result);
        let tombstones = self.work.tombstones;
        if tombstones > max && !self.plan.has_short_pages() && !self.plan.is_one_row() {
            return Err(too_many_tombstones(&self.context, self.plan.table(), tombstones));
        }
        let random = NodeRandom::new(&self.context.node);
        let plan_context = self.context.plan_context(&random);
        let started = self.rows_max.map(|_| self.context.node.env.clock().read());
        self.plan
            .feed(result, &plan_context, &mut self.rows)
            .map_err(cql_error)?;
        if let Some(started) = started {
            self.learn_rows_max(started);
        }
        self.share.correct(self.rows.encoder.length());
        if tombstones >= page_max && self.plan.end_page(result) {
            self.context.node.metrics.short_pages.increment();
            self.context
                .trace(|| format!("Page ends after {tombstones} tombstones"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Answer, ErrorMessage> {
        let random = NodeRandom::new(&self.context.node);
        let plan_context = self.context.plan_context(&random);
        self.plan
            .finish(&plan_context, &mut self.rows)
            .map_err(cql_error)?;
        warn_of_tombstones(&self.context, self.plan.table(), self.work);
        let body = self.rows.finish(self.plan.paging_state().as_deref());
        self.share.correct(body.len());
        self.entry.learn_answer_bytes(body.len());
        let (context, plan) = (&self.context, &self.plan);
        context.node.metrics.rows_returned.add(plan.row_count());
        context.record(Operation::CoordinatorRead, None);
        context.trace(|| format!("{} rows", plan.row_count()));
        Ok(Answer::Result {
            prefix: context.prefix(),
            body,
            share: Some(self.share),
        })
    }
}

/// One read of the plan, if this shard can answer it alone and from memory. What it cannot, and what fails, goes by
/// [`read`].
fn read_now(context: &RequestContext, table: &Table, command: &ReadCommand) -> Option<ReadResult> {
    let node = &context.node;
    let is_decided = context.consistency.is_serial() && node.has_peers();
    if table.is_virtual || context.trace.is_some() || is_decided {
        return None;
    }
    let replication = node.replication(&table.keyspace)?;
    let coordinator = CoordinatorContext {
        replication: &replication,
        consistency: context.consistency,
        deadline: context.deadline(node.settings().limits.read_timeout),
    };
    node.read_now(&coordinator, &read_options(node, table), command)
}

fn read_options(node: &crate::node::Node, table: &Table) -> ReadOptions {
    let read_repair = match table.options.read_repair.as_str() {
        "NONE" => ReadRepair::None,
        _ => ReadRepair::Blocking,
    };
    ReadOptions {
        read_repair,
        speculate_after: node.speculates_after(table),
    }
}

/// One read of the plan. At SERIAL, what is being decided about the partition is decided first.
pub(crate) async fn read(
    context: &RequestContext,
    table: &Arc<Table>,
    command: ReadCommand,
) -> Result<ReadResult, ErrorMessage> {
    if table.is_virtual {
        return Ok(read_virtual(context, table, &command).await);
    }
    if context.consistency.is_serial()
        && let ReadTarget::Partition(key) = &command.target
        && crate::conditional::is_decided_by_paxos(&context.node, table)
    {
        crate::conditional::settle(context, table, key).await?;
    }
    read_at(context, table, command, context.consistency).await
}

/// One read at a level.
pub(crate) async fn read_at(
    context: &RequestContext,
    table: &Table,
    command: ReadCommand,
    consistency: Consistency,
) -> Result<ReadResult, ErrorMessage> {
    let node = &context.node;
    let Some(replication) = node.replication(&table.keyspace) else {
        return Err(invalid(format!("Keyspace {} does not exist", table.keyspace)));
    };
    let limits = &node.settings().limits;
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
        consistency,
        deadline: context.deadline(timeout),
    };
    let began = node.has_peers().then(|| node.env.clock().read());
    let options = read_options(node, table);
    let result = match node.reads_candidates(&coordinator, &command) {
        true => Box::pin(node.read_by_index(coordinator, &options, table, command)).await,
        false => node.read(coordinator, &options, command).await,
    };
    let result = result.map_err(|failure| request_error(node, failure))?;
    if let Some(began) = began {
        let took = node.env.clock().read().saturating_duration_since(began);
        node.note_coordinated_read(table.id, took);
    }
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
    let built_indexes = match &*table.name {
        "IndexInfo" => node.built_indexes_of_all_shards().await,
        _ => Vec::new(),
    };
    let schema = node.schema();
    let settings = node.settings();
    let topology = node.topology();
    let source = VirtualSource {
        options: &node.options,
        tokens: &node.tokens(),
        schema: &schema,
        peers: &topology.peers,
        clients: &clients,
        settings: &settings.shown,
        figures: &figures,
        built_indexes: &built_indexes,
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
    let limit = context.node.settings().limits.tombstone_fail;
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
    if walked.tombstones <= context.node.settings().limits.tombstone_warn {
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
struct Rows {
    encoder: RowsEncoder,
    is_row_open: bool,
}

impl Rows {
    fn begin(context: &RequestContext, entry: &Entry, client_metadata_id: Option<&[u8]>) -> Rows {
        let is_stale = context.dialect.has_metadata_id()
            && client_metadata_id.is_some_and(|id| *id != entry.result_metadata_id[..]);
        let header = RowsHeader {
            columns: entry.encoded_columns(context.dialect.version),
            skip_metadata: context.skip_metadata,
            new_metadata_id: is_stale.then_some(&entry.result_metadata_id[..]),
        };
        Rows {
            encoder: RowsEncoder::begin(context.node.spare_body.take(), header),
            is_row_open: false,
        }
    }

    fn end_row(&mut self) {
        if std::mem::take(&mut self.is_row_open) {
            self.encoder.end_row();
        }
    }

    fn finish(mut self, paging_state: Option<&[u8]>) -> BytesMut {
        self.end_row();
        self.encoder.finish(paging_state)
    }
}

impl RowSink for Rows {
    fn start_row(&mut self) {
        self.end_row();
        self.is_row_open = true;
    }

    fn cell(&mut self, value: Option<&[u8]>) {
        self.encoder.cell(value);
    }
}
