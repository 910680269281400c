//! EXPLAIN: what a statement would do, in steps.
//!
//! The steps are those of the plan that would run, for the values that are given: they are made of it, not of the
//! statement's text, but for restrictions and orders, which are shown as they are written.
//!
//! Never: a read or a write.

use super::{Plan, PlanContext};
use crate::ast::{Ordering, OrderingKind, Relation, RelationSubject, Select, Statement};
use crate::prepare::select::PreparedSelect;
use crate::prepare::{Prepared, PreparedKind};
use crate::restrictions::index::IndexChoice;
use crate::{ColumnSpecification, CqlError, SelectPlan, WriteKind, WritePlan};
use ceto_model::schema::IndexDefinition;
use ceto_model::value::format_literal;
use ceto_model::{CqlType, DecoratedKey, Mutation, PartitionRange, ReadTarget, Schema, Table, Token};
use std::fmt::Write;
use std::sync::Arc;

/// So many partitions are shown one by one.
const PARTITIONS_SHOWN: usize = 16;
/// Characters of a key that are shown.
const KEY_SHOWN: usize = 120;

/// EXPLAIN before a statement.
#[derive(Clone, PartialEq, Debug)]
pub struct Explain {
    /// EXPLAIN ANALYZE: the statement is run and measured.
    pub analyze: bool,
    /// What follows EXPLAIN.
    pub(crate) statement: Statement,
}

impl Explain {
    /// # Errors
    /// `Invalid` for statements that have no plan.
    pub(crate) fn new(analyze: bool, statement: &Statement) -> Result<Explain, CqlError> {
        match statement {
            Statement::Select(_) | Statement::Modification(_) | Statement::Batch(_) => Ok(Explain {
                analyze,
                statement: statement.clone(),
            }),
            _ => Err(CqlError::invalid(
                "EXPLAIN takes SELECT, INSERT, UPDATE, DELETE and BATCH only",
            )),
        }
    }
}

/// One step of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExplainStep {
    /// What kind of step.
    pub stage: &'static str,
    /// Where it is done, when that is one partition's place.
    pub token: Option<Token>,
    /// What it does.
    pub detail: String,
}

impl ExplainStep {
    /// A step that is not one partition's.
    pub fn new(stage: &'static str, detail: impl Into<String>) -> ExplainStep {
        ExplainStep {
            stage,
            token: None,
            detail: detail.into(),
        }
    }
}

/// The columns of the answer to EXPLAIN.
pub(crate) fn explain_columns() -> Vec<ColumnSpecification> {
    let column = |name: &str, cql_type| ColumnSpecification {
        keyspace: "system".into(),
        table: "explain".into(),
        name: name.into(),
        cql_type,
    };
    vec![
        column("step", CqlType::Int),
        column("stage", CqlType::Text),
        column("shard", CqlType::Int),
        column("time_us", CqlType::Bigint),
        column("detail", CqlType::Text),
    ]
}

impl Prepared {
    /// What EXPLAIN asks for; None without it.
    pub fn explain(&self) -> Option<&Explain> {
        self.explain.as_deref()
    }

    /// The steps of `plan`, which this statement was planned to.
    pub fn explain_steps(&self, plan: &Plan, schema: &Schema, context: &PlanContext<'_>) -> Vec<ExplainStep> {
        let mut steps = Vec::new();
        match (plan, &self.kind) {
            (Plan::Read(plan), PreparedKind::Select(select)) => {
                let text = match self.explain.as_deref().map(|explain| &explain.statement) {
                    Some(Statement::Select(text)) => Some(&**text),
                    _ => None,
                };
                explain_select(plan, select, text, context, &mut steps);
            }
            (Plan::Write(plan), _) => explain_write(plan, schema, &mut steps),
            (Plan::Conditional(plan), _) => {
                for command in plan.reads() {
                    let (Some(table), ReadTarget::Partition(key)) =
                        (schema.table_by_id(command.table), &command.target)
                    else {
                        continue;
                    };
                    steps.push(ExplainStep {
                        stage: "lock, read",
                        token: Some(key.token),
                        detail: format!(
                            "{}, {}, under the partition's lock",
                            partition(table, key),
                            counted(command.slices.len(), "slice")
                        ),
                    });
                }
                let detail = match plan.is_conditional() {
                    true => "what the conditions find decides whether anything is written",
                    false => "list elements are found by what is read; then it is written",
                };
                steps.push(ExplainStep::new("decide", detail));
                for table in self.written() {
                    explain_kept(table, schema, &mut steps);
                }
            }
            _ => {}
        }
        steps
    }

    fn written(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.iter()
    }
}

fn explain_select(
    plan: &SelectPlan,
    select: &PreparedSelect,
    text: Option<&Select>,
    context: &PlanContext<'_>,
    steps: &mut Vec<ExplainStep>,
) {
    let table = &select.table;
    if plan.command().is_none() {
        steps.push(ExplainStep::new(
            "read",
            "nothing: no row can satisfy the restrictions",
        ));
        return;
    }
    let is_searched = select.restrictions.index.is_some() || select.nearest.is_some();
    explain_reads(plan, table, is_searched, steps);
    let relations: &[Relation] = text.map_or(&[], |text| &text.where_clause.relations);
    if !select.distinct && (!select.restrictions.clustering.is_empty() || select.reversed) {
        let slices = counted(plan.named_rows(), "slice");
        let of_key = relations.iter().filter(|relation| {
            is_about(relation, |name| {
                table.clustering().iter().any(|column| *column.name == *name)
            }) && !is_filtered(select, table, relation)
        });
        let mut detail = format!("{slices} of each partition");
        add_relations(&mut detail, of_key);
        if select.reversed {
            detail.push_str(", from the last to the first");
        }
        steps.push(ExplainStep::new("rows", detail));
    }
    explain_indexes(select, table, relations, steps);
    let tested: Vec<&Relation> = relations
        .iter()
        .filter(|relation| is_filtered(select, table, relation))
        .collect();
    if !select.restrictions.filters.is_empty() {
        let mut detail = "each row that is read is tested".to_owned();
        add_relations(&mut detail, tested.into_iter());
        if select.restrictions.index.is_none() {
            detail.push_str(" (ALLOW FILTERING: rows that do not pass are read for nothing)");
        }
        steps.push(ExplainStep::new("filter", detail));
    }
    if let Some(grouping) = &select.group_by {
        let and_more = match grouping.by {
            Some(_) => " and a function of the next",
            None => "",
        };
        steps.push(ExplainStep::new(
            "group",
            format!(
                "by the first {} of the primary key{and_more}, as rows come",
                counted(grouping.columns, "column")
            ),
        ));
    }
    if !select.selection.aggregates().is_empty() {
        let count = select.selection.aggregates().len();
        steps.push(ExplainStep::new(
            "aggregate",
            format!("{}, one row a group", counted(count, "aggregate")),
        ));
    }
    if select.nearest.is_some() {
        steps.push(ExplainStep::new("sort", "by similarity to the vector, in memory"));
    } else if !select.order.is_empty() {
        let orders = text.map_or(&[][..], |text| &text.order_by);
        let mut detail = "rows of all partitions, in memory: no pages".to_owned();
        for ordering in orders {
            let _ = write!(detail, "; {}", order_text(ordering));
        }
        steps.push(ExplainStep::new("sort", detail));
    }
    let mut limits = Vec::new();
    if let Some(limit) = text.and_then(|text| text.limit.as_ref()) {
        limits.push(format!("LIMIT {limit}"));
    }
    if let Some(limit) = text.and_then(|text| text.per_partition_limit.as_ref()) {
        limits.push(format!("PER PARTITION LIMIT {limit}"));
    }
    match context.page_size {
        Some(size) => limits.push(format!("pages of {}", counted(size as usize, "row"))),
        None => limits.push("no pages".to_owned()),
    }
    steps.push(ExplainStep::new("limit", limits.join(", ")));
}

/// `is_searched`: an index finds the rows.
fn explain_reads(plan: &SelectPlan, table: &Table, is_searched: bool, steps: &mut Vec<ExplainStep>) {
    let keys = plan.keys();
    for key in keys.iter().take(PARTITIONS_SHOWN) {
        steps.push(ExplainStep {
            stage: "read",
            token: Some(key.token),
            detail: partition(table, key),
        });
    }
    if keys.len() > PARTITIONS_SHOWN {
        let more = keys.len() - PARTITIONS_SHOWN;
        steps.push(ExplainStep::new(
            "read",
            format!("{} more of {}", counted(more, "partition"), name(table)),
        ));
    }
    if let Some(ReadTarget::Range(range)) = plan.command().map(|command| &command.target) {
        let what = match range == &PartitionRange::full() {
            true => "all partitions".to_owned(),
            false => format!(
                "partitions with tokens from {} to {}",
                range.start.token().0,
                range.end.token().0
            ),
        };
        let how = match is_searched {
            true => "the rows that an index finds",
            false => "in the order of their tokens",
        };
        steps.push(ExplainStep::new(
            "read",
            format!("{what} of {}, {how}", name(table)),
        ));
    }
}

fn explain_indexes(
    select: &PreparedSelect,
    table: &Table,
    relations: &[Relation],
    steps: &mut Vec<ExplainStep>,
) {
    let chosen = select.restrictions.index.as_ref().map(IndexChoice::definition);
    if let Some(chosen) = chosen {
        let of_column = relations
            .iter()
            .filter(|relation| is_about(relation, |name| *name == *chosen.column));
        let mut detail = format!("{} finds the rows", index_name(chosen));
        add_relations(&mut detail, of_column);
        steps.push(ExplainStep::new("index", detail));
    }
    for index in table.indexes() {
        let definition = &index.definition;
        if chosen.is_some_and(|chosen| chosen.name == definition.name) {
            continue;
        }
        let is_restricted = relations
            .iter()
            .any(|relation| is_about(relation, |name| *name == *definition.column));
        let reason = match (index.vectors().is_some(), is_restricted, chosen.is_some()) {
            (true, ..) if select.nearest.is_some() => {
                steps.push(ExplainStep::new(
                    "index",
                    format!("{} finds the nearest vectors", index_name(definition)),
                ));
                continue;
            }
            (true, ..) => "it answers ORDER BY .. ANN OF only",
            (_, false, _) => "its column is not restricted",
            (_, true, true) => "one index is searched; its restriction is tested on the rows",
            (_, true, false) => "the partition key finds the rows, or it has no such search",
        };
        steps.push(ExplainStep::new(
            "index",
            format!("{} is not used: {reason}", index_name(definition)),
        ));
    }
}

fn explain_write(plan: &WritePlan, schema: &Schema, steps: &mut Vec<ExplainStep>) {
    match plan.kind {
        WriteKind::Simple => {}
        WriteKind::LoggedBatch => {
            steps.push(ExplainStep::new(
                "batch",
                "logged: applied in full, or not at all",
            ));
        }
        WriteKind::UnloggedBatch => {
            steps.push(ExplainStep::new("batch", "unlogged: each partition by itself"));
        }
        WriteKind::Counter => {
            steps.push(ExplainStep::new(
                "counter",
                "each partition's present sums are read under its lock, and the new ones written",
            ));
        }
    }
    let mut tables: Vec<&Arc<Table>> = Vec::new();
    let counters = plan.counters.iter().map(|update| {
        let detail = counted(update.rows.len(), "row");
        (update.table, &update.key, detail)
    });
    let mutations = plan
        .mutations
        .iter()
        .map(|mutation| (mutation.table, &mutation.key, content(mutation)));
    let total = plan.mutations.len() + plan.counters.len();
    for (id, key, content) in mutations.chain(counters).take(PARTITIONS_SHOWN) {
        let Some(table) = schema.table_by_id(id) else {
            continue;
        };
        if !tables.iter().any(|other| other.id == table.id) {
            tables.push(table);
        }
        steps.push(ExplainStep {
            stage: "write",
            token: Some(key.token),
            detail: format!("{}: {content}", partition(table, key)),
        });
    }
    if total > PARTITIONS_SHOWN {
        let more = counted(total - PARTITIONS_SHOWN, "partition");
        steps.push(ExplainStep::new("write", format!("{more} more")));
    }
    for table in tables {
        explain_kept(table, schema, steps);
    }
}

/// What is kept with the writes to a table.
fn explain_kept(table: &Arc<Table>, schema: &Schema, steps: &mut Vec<ExplainStep>) {
    for index in table.indexes() {
        let detail = format!(
            "{} gets its entries with the write",
            index_name(&index.definition)
        );
        steps.push(ExplainStep::new("index", detail));
    }
    let views = schema.keyspace(&table.keyspace);
    for view in views.iter().flat_map(|keyspace| keyspace.views_of(table.id)) {
        let detail = format!(
            "{}: the rows concerned are read under the partition's lock, and the difference is written to the view",
            name(view)
        );
        steps.push(ExplainStep::new("view", detail));
    }
}

fn content(mutation: &Mutation) -> String {
    let content = &mutation.partition;
    if content.deletion.is_some() {
        return "the partition is deleted".to_owned();
    }
    let deleted = content
        .rows
        .iter()
        .filter(|(_, row)| row.deletion.is_some())
        .count();
    let columns: usize = content.rows.iter().map(|(_, row)| row.columns.len()).sum();
    let mut parts = Vec::new();
    if content.rows.len() > deleted {
        let rows = counted(content.rows.len() - deleted, "row");
        parts.push(format!("{rows} with {}", counted(columns, "column")));
    }
    if deleted > 0 {
        parts.push(format!("{} deleted", counted(deleted, "row")));
    }
    if !content.static_row.is_empty() {
        let columns = content.static_row.columns.len();
        parts.push(counted(columns, "static column"));
    }
    let ranges = content.range_tombstones.iter().count();
    if ranges > 0 {
        parts.push(format!("{} of rows deleted", counted(ranges, "range")));
    }
    match parts.is_empty() {
        true => "nothing".to_owned(),
        false => parts.join(", "),
    }
}

/// The relation names only columns that `is` says.
fn is_about(relation: &Relation, is: impl Fn(&str) -> bool) -> bool {
    match &relation.subject {
        RelationSubject::Column(name) | RelationSubject::Element { column: name, .. } => is(name),
        RelationSubject::Columns(names) => names.iter().all(|name| is(name)),
        RelationSubject::Token(_) => false,
    }
}

/// Rows are tested for the relation.
fn is_filtered(select: &PreparedSelect, table: &Table, relation: &Relation) -> bool {
    let tested = |name: &str| {
        let index = table.column_index(name);
        let filters = select.restrictions.filters.iter();
        let mut columns = filters.flat_map(|filter| filter.columns.iter().copied());
        columns.any(|column| Some(column) == index)
    };
    is_about(relation, tested)
}

fn add_relations<'r>(detail: &mut String, relations: impl Iterator<Item = &'r Relation>) {
    for (index, relation) in relations.enumerate() {
        let before = if index == 0 { ": " } else { " AND " };
        let _ = write!(detail, "{before}{relation}");
    }
}

fn order_text(ordering: &Ordering) -> String {
    match &ordering.kind {
        OrderingKind::NearestTo(_) => format!("{} by similarity", ordering.column),
        OrderingKind::Value if ordering.descending => format!("{} DESC", ordering.column),
        OrderingKind::Value => format!("{} ASC", ordering.column),
    }
}

/// `keyspace.table`
fn name(table: &Table) -> String {
    format!("{}.{}", table.keyspace, table.name)
}

fn index_name(definition: &IndexDefinition) -> String {
    let kind = match definition.is_storage_attached() {
        true => "storage-attached index",
        false => "index",
    };
    format!("{kind} {} on {}", definition.name, definition.column)
}

fn partition(table: &Table, key: &DecoratedKey) -> String {
    let columns = table.partition_key();
    let values = key.key.components(columns.len()).unwrap_or_default();
    let mut text = format!("partition of {} with ", name(table));
    for (index, (column, value)) in columns.iter().zip(&values).enumerate() {
        let value = format_literal(&column.cql_type, value).unwrap_or_else(|_| "?".to_owned());
        let shown: String = value.chars().take(KEY_SHOWN).collect();
        let _ = write!(
            text,
            "{}{} = {shown}",
            if index == 0 { "" } else { " AND " },
            column.name
        );
    }
    let _ = write!(text, ", token {}", key.token.0);
    text
}

/// `1 row`, `2 rows`
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
