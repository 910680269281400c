//! EXPLAIN and EXPLAIN ANALYZE: the steps of a plan as rows, and with ANALYZE what running it has cost.
//!
//! ANALYZE runs the statement as it would run without EXPLAIN, writes included, up to the end of the page that the client
//! asks for; its rows are counted and thrown away.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_cluster::consistency::validate_for_read;
use ceto_cql::describe::DescribeRows;
use ceto_cql::plan::explain::ExplainStep;
use ceto_cql::{Plan, Prepared, RowSink, SelectPlan};
use ceto_model::read::{ReadResult, ReadTarget, ReadWork};
use ceto_model::{TableId, Token};
use ceto_native::ErrorMessage;

use crate::answer::{cql_error, invalid};
use crate::execute::{Answer, NodeRandom, RequestContext};
use crate::node::Node;

/// Reads that are shown one by one; the others are one row.
const READS_SHOWN: usize = 64;

/// One row of the answer.
struct Line {
    stage: &'static str,
    shard: Option<u16>,
    time: Option<Duration>,
    detail: String,
}

/// Answers EXPLAIN for `plan`, which `statement` was planned to.
pub(crate) async fn run(
    context: &RequestContext,
    statement: &Prepared,
    plan: Plan,
) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    check(context, statement, &plan)?;
    let steps = {
        let random = NodeRandom::new(node);
        let plan_context = context.plan_context(&random);
        statement.explain_steps(&plan, &node.schema(), &plan_context)
    };
    let mut lines: Vec<Line> = steps.into_iter().map(|step| line_of(node, step)).collect();
    if statement.explain().is_some_and(|explain| explain.analyze) {
        let before = figures(node, statement).await;
        let began = now(node);
        match plan {
            Plan::Read(plan) => analyze_read(context, plan, &mut lines).await?,
            Plan::Write(plan) => {
                let partitions = plan.mutations.len() + plan.counters.len();
                crate::modify::write(context, plan).await?;
                let detail = format!("{partitions} partitions written and acknowledged");
                lines.push(measured("ran: write", None, now(node) - began, detail));
            }
            Plan::Conditional(plan) => {
                crate::conditional::run(context, plan).await?;
                let detail = "locked, read and decided; written where the conditions hold";
                lines.push(measured("ran: write", None, now(node) - began, detail));
            }
            _ => {}
        }
        let took = now(node) - began;
        for (shard, (before, after)) in before.iter().zip(&figures(node, statement).await).enumerate() {
            lines.push(Line {
                stage: "shard",
                shard: u16::try_from(shard).ok(),
                time: None,
                detail: after.since(before),
            });
        }
        lines.push(measured("ran: all", None, took, "without parsing and planning"));
    }
    Ok(crate::ddl::rows(context, &rows_of(statement, &lines)))
}

/// What the statement would be refused for without EXPLAIN.
fn check(context: &RequestContext, statement: &Prepared, plan: &Plan) -> Result<(), ErrorMessage> {
    match plan {
        Plan::Read(plan) => {
            validate_for_read(context.consistency).map_err(invalid)?;
            crate::select::check_guardrails(context, plan)
        }
        _ if statement.table().is_some_and(|table| table.is_virtual) => {
            Err(invalid("EXPLAIN is not supported for changes of virtual tables"))
        }
        Plan::Write(plan) => crate::execute::check_writes(context, plan, statement.features().user_timestamp),
        _ => Ok(()),
    }
}

/// What a shard has counted of a table and of its caches.
#[derive(Clone, Copy)]
struct Figures {
    reads: u64,
    sstables: u64,
    /// Lookups that bloom filters let through for nothing.
    false_positives: u64,
    row_cache: (u64, u64),
    block_cache: (u64, u64),
}

impl Figures {
    fn of(node: &Node, table: Option<TableId>) -> Figures {
        let tables = node.table_figures();
        let own = tables.iter().find(|figures| Some(figures.id) == table);
        let row_cache = node.row_cache_figures();
        Figures {
            reads: own.map_or(0, |own| own.reads),
            sstables: own.map_or(0, |own| own.sstables),
            false_positives: own.map_or(0, |own| own.filter_false_positives),
            row_cache: (row_cache.hits, row_cache.misses),
            block_cache: node.block_cache_lookups(),
        }
    }

    /// What has come since: by this statement, and by others that ran meanwhile.
    fn since(&self, before: &Figures) -> String {
        format!(
            "{} reads of {} sstables there are, {} let through by bloom filters for nothing; row cache: {} hits, {} misses; \
             block cache: {} hits, {} misses",
            self.reads.saturating_sub(before.reads),
            self.sstables,
            self.false_positives.saturating_sub(before.false_positives),
            self.row_cache.0.saturating_sub(before.row_cache.0),
            self.row_cache.1.saturating_sub(before.row_cache.1),
            self.block_cache.0.saturating_sub(before.block_cache.0),
            self.block_cache.1.saturating_sub(before.block_cache.1),
        )
    }
}

/// By shard.
async fn figures(node: &Rc<Node>, statement: &Prepared) -> Vec<Figures> {
    let table = statement.table().map(|table| table.id);
    node.on_all_shards(move |node| Box::pin(async move { Figures::of(&node, table) }))
        .await
}

/// What running has cost.
fn measured(stage: &'static str, shard: Option<u16>, time: Duration, detail: impl Into<String>) -> Line {
    Line {
        stage,
        shard,
        time: Some(time),
        detail: detail.into(),
    }
}

fn now(node: &Node) -> Instant {
    node.env.clock().read()
}

fn shard_of(node: &Node, token: Token) -> u16 {
    token.shard(node.shard_count())
}

fn line_of(node: &Node, step: ExplainStep) -> Line {
    let reads_all = step.stage == "read" && step.token.is_none() && node.shard_count() > 1;
    Line {
        stage: step.stage,
        shard: step.token.map(|token| shard_of(node, token)),
        time: None,
        detail: match reads_all {
            true => format!("{}, on all {} shards", step.detail, node.shard_count()),
            false => step.detail,
        },
    }
}

fn rows_of(statement: &Prepared, lines: &[Line]) -> DescribeRows {
    let int = |number: i32| Bytes::copy_from_slice(&number.to_be_bytes());
    let row = |(index, line): (usize, &Line)| {
        let micros = line
            .time
            .map(|time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
        vec![
            Some(int(i32::try_from(index + 1).unwrap_or(i32::MAX))),
            Some(Bytes::from_static(line.stage.as_bytes())),
            line.shard.map(|shard| int(i32::from(shard))),
            micros.map(|micros| Bytes::copy_from_slice(&micros.to_be_bytes())),
            Some(Bytes::from(line.detail.clone().into_bytes())),
        ]
    };
    DescribeRows {
        columns: statement.result_columns().to_vec(),
        rows: lines.iter().enumerate().map(row).collect(),
    }
}

/// Rows that nobody wants to have.
struct Counted {
    rows: u64,
    bytes: usize,
}

impl RowSink for Counted {
    fn start_row(&mut self) {
        self.rows += 1;
    }

    fn cell(&mut self, value: Option<&[u8]>) {
        self.bytes += value.map_or(0, <[u8]>::len);
    }
}

async fn analyze_read(
    context: &RequestContext,
    mut plan: Box<SelectPlan>,
    lines: &mut Vec<Line>,
) -> Result<(), ErrorMessage> {
    let node = &context.node;
    let table = plan.table().clone();
    let mut sink = Counted { rows: 0, bytes: 0 };
    let (mut reads, mut rest) = (0, (Duration::ZERO, ReadWork::default()));
    let (mut making, mut tombstones) = (Duration::ZERO, 0);
    while let Some(command) = plan.command().cloned() {
        let shard = match &command.target {
            ReadTarget::Partition(key) => Some(shard_of(node, key.token)),
            ReadTarget::Range(_) => None,
        };
        let began = now(node);
        let result = crate::select::read(context, &table, command).await?;
        let took = now(node) - began;
        reads += 1;
        tombstones += result.work.tombstones;
        if reads <= READS_SHOWN {
            lines.push(measured("ran: read", shard, took, work_text(&result.work)));
        } else {
            rest.0 += took;
            add(&mut rest.1, &result.work);
        }
        let began = now(node);
        feed(context, &mut plan, &result, &mut sink)?;
        making += now(node) - began;
        let page_max = node.settings().limits.tombstones_per_page;
        if tombstones >= page_max {
            plan.end_page(&result);
        }
    }
    if reads > READS_SHOWN {
        let detail = format!("{} more reads: {}", reads - READS_SHOWN, work_text(&rest.1));
        lines.push(measured("ran: read", None, rest.0, detail));
    }
    let began = now(node);
    {
        let random = NodeRandom::new(node);
        let plan_context = context.plan_context(&random);
        plan.finish(&plan_context, &mut sink).map_err(cql_error)?;
    }
    making += now(node) - began;
    let more = match plan.paging_state().is_some() {
        true => "; there are more pages",
        false => "",
    };
    let detail = format!("{} rows of {} bytes{more}", sink.rows, sink.bytes);
    lines.push(measured("ran: rows", Some(node.shard()), making, detail));
    Ok(())
}

fn feed(
    context: &RequestContext,
    plan: &mut SelectPlan,
    result: &ReadResult,
    sink: &mut Counted,
) -> Result<(), ErrorMessage> {
    let random = NodeRandom::new(&context.node);
    let plan_context = context.plan_context(&random);
    plan.feed(result, &plan_context, sink).map_err(cql_error)
}

fn add(total: &mut ReadWork, work: &ReadWork) {
    total.live_rows += work.live_rows;
    total.tombstones += work.tombstones;
    total.sstables += work.sstables;
    total.disk_bytes += work.disk_bytes;
}

fn work_text(work: &ReadWork) -> String {
    format!(
        "{} live rows, {} tombstones, {} sstables read, {} bytes from disk",
        work.live_rows, work.tombstones, work.sstables, work.disk_bytes
    )
}
