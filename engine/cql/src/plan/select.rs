//! SELECT, executed: which reads to do, and what their answers become.
//!
//! The node asks [`SelectPlan::command`] what to read, gives the answer to [`SelectPlan::feed`], and so on until there is
//! no command; then [`SelectPlan::finish`]. Rows go to a [`RowSink`] as they come, unless they must be sorted first.
//! Limits are pushed into the commands only where every row that is read is a row of the result.
//!
//! Invariants: rows of one partition arrive together or with the partition named again; a page ends between two rows
//! (or groups); no row is given twice, whatever the pages.

use super::group::{Group, prefix_of};
use super::result_row::{RowSink, json_row};
use super::row_view::{KeyBuffers, RowView};
use crate::expression::{Evaluation, Expression};
use crate::paging::PagingState;
use crate::plan::PlanContext;
use crate::prepare::select::PreparedSelect;
use crate::prepare::selection::Projection;
use crate::restrictions::filter::{ReadyFilter, Scope};
use crate::restrictions::partition::Keys;
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::comparable::{BOUND_AFTER, BOUND_BEFORE};
use ceto_model::read::{PartitionResult, ReadLimits, ReadTarget, ResumePoint, Slices};
use ceto_model::{
    ClusteringKey, CqlType, DecoratedKey, PartitionRange, Position, ReadCommand, ReadResult, RingPosition,
    Row, Table, UnixSeconds, value,
};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::sync::Arc;

/// Rows that one read returns at most when not every row is one of the result.
const SCAN_ROWS: u64 = 10_000;
/// Bytes that one read returns about.
const READ_BYTES: u64 = 1 << 20;
/// Tombstones that one read walks over at most.
const READ_TOMBSTONES: u64 = 100_000;
/// A page is cut short when its cells have so many bytes.
const PAGE_BYTES: u64 = 16 << 20;
/// Rows that ORDER BY over several partitions sorts at most.
const SORT_ROWS: usize = 1_000_000;

/// A SELECT under way.
#[derive(Debug)]
pub struct SelectPlan {
    select: Arc<PreparedSelect>,
    /// Of the request; kept only when rows are computed.
    values: SmallVec<[BoundValue; 2]>,
    filters: Vec<ReadyFilter>,
    /// Named partitions; empty for a range.
    keys: Keys,
    next_key: usize,
    /// Rows of each partition.
    slices: Slices,
    command: Option<ReadCommand>,
    /// Rows that LIMIT still allows.
    remaining: u64,
    /// Rows that the page still takes.
    page_left: u64,
    page_bytes: u64,
    per_partition: u64,
    /// The partition that is being read: rows of the result so far, and whether any row was seen.
    current: Option<DecoratedKey>,
    in_partition: u64,
    saw_row: bool,
    /// Where the page ended.
    page_end: Option<PagingState>,
    paged: bool,
    group: Option<Group>,
    sorted: Vec<SortRow>,
    buffers: KeyBuffers,
    row_count: u64,
    timeout_nanos: Option<i64>,
}

/// A row that waits to be sorted.
#[derive(Debug)]
struct SortRow {
    order: Vec<Option<Bytes>>,
    values: Vec<Option<Bytes>>,
}

/// The partition that a row is in.
struct Place<'a> {
    table: &'a Table,
    static_row: &'a Row,
    now: UnixSeconds,
}

impl<'a> Place<'a> {
    fn view(&self, keys: &'a KeyBuffers, row: Option<&'a Row>) -> RowView<'a> {
        RowView {
            table: self.table,
            keys,
            static_row: self.static_row,
            row,
            now: self.now,
        }
    }
}

/// Go on, or the page (or all of the answer) is complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Go,
    Stop,
}

impl SelectPlan {
    /// Evaluates restrictions and limits.
    pub(crate) fn new(
        select: Arc<PreparedSelect>,
        values: &[BoundValue],
        context: &PlanContext<'_>,
    ) -> Result<Self, CqlError> {
        let evaluation = Evaluation::new(values, context);
        let limit = evaluate_limit(select.limit.as_ref(), &evaluation, "LIMIT")?;
        let per_partition = evaluate_limit(
            select.per_partition_limit.as_ref(),
            &evaluation,
            "PER PARTITION LIMIT",
        )?;
        let restrictions = &select.restrictions;
        let filters: Result<Vec<_>, _> = restrictions
            .filters
            .iter()
            .map(|filter| filter.ready(&select.table, &evaluation))
            .collect();
        let slices = match select.distinct {
            true => SmallVec::from_elem(ceto_model::Slice::full(), 1),
            false => restrictions.clustering.slices(&evaluation)?,
        };
        let timeout_nanos = match &select.timeout {
            Some(timeout) => evaluate_timeout(timeout, &evaluation)?,
            None => None,
        };
        let is_whole = select.selection.is_aggregate() && select.group_by.is_none();
        let page_size = context.page_size.filter(|size| *size > 0 && !is_whole);
        if page_size.is_some() && !select.order.is_empty() {
            return Err(CqlError::invalid(
                "Cannot page queries with both ORDER BY and a IN restriction on the partition key; you must either \
                 remove the ORDER BY or the IN and sort client side, or disable paging for this query",
            ));
        }
        let keeps_values = matches!(select.selection.projection, Projection::Expressions { .. });
        let mut plan = Self {
            values: if keeps_values {
                values.iter().cloned().collect()
            } else {
                SmallVec::new()
            },
            filters: filters?,
            keys: if restrictions.partition.is_range() {
                Keys::new()
            } else {
                restrictions.partition.keys(&evaluation)?
            },
            next_key: 0,
            slices,
            command: None,
            remaining: limit,
            page_left: page_size.map_or(u64::MAX, u64::from),
            page_bytes: 0,
            per_partition: if select.distinct { 1 } else { per_partition },
            current: None,
            in_partition: 0,
            saw_row: false,
            page_end: None,
            paged: page_size.is_some(),
            group: None,
            sorted: Vec::new(),
            buffers: KeyBuffers::default(),
            row_count: 0,
            timeout_nanos,
            select,
        };
        match context.paging_state {
            Some(state) => plan.resume_page(PagingState::decode(state)?, &evaluation)?,
            None if plan.select.restrictions.partition.is_range() => {
                if let Some(range) = plan.select.restrictions.partition.range(&evaluation)? {
                    plan.set_range(range, None, &evaluation);
                }
            }
            None => plan.advance_key(context),
        }
        // IN () and bounds that exclude each other name no row; a partition may still have a static row.
        if plan.slices.is_empty() && !plan.select.restrictions.clustering.is_empty() {
            plan.command = None;
        }
        Ok(plan)
    }

    /// What to read next; None: nothing more, call [`Self::finish`].
    pub fn command(&self) -> Option<&ReadCommand> {
        self.command.as_ref()
    }

    /// The columns of the result.
    pub fn result_columns(&self) -> &[crate::ColumnSpecification] {
        &self.select.result_columns
    }

    /// Where the next page starts; None: this was the last one. Known after [`Self::finish`].
    pub fn paging_state(&self) -> Option<Vec<u8>> {
        self.page_end.as_ref().map(PagingState::encode)
    }

    /// Rows given to the sink so far.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// The table that is read.
    pub fn table(&self) -> &Arc<Table> {
        &self.select.table
    }

    /// USING TIMEOUT, in nanoseconds.
    pub fn timeout_nanos(&self) -> Option<i64> {
        self.timeout_nanos
    }

    /// Takes the answer to [`Self::command`] and moves on to the next.
    pub fn feed(
        &mut self,
        result: &ReadResult,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<(), CqlError> {
        let Some(command) = self.command.take() else {
            return Ok(());
        };
        let last = result.partitions.len().saturating_sub(1);
        let mut step = Step::Go;
        for (index, partition) in result.partitions.iter().enumerate() {
            let is_cut = index == last && resumes_inside(result.resume.as_ref(), &partition.key);
            step = self.feed_partition(partition, is_cut, command.now, context, sink)?;
            if step == Step::Stop {
                break;
            }
        }
        match (step, &result.resume) {
            (Step::Stop, _) => {
                self.drop_page_end_at_the_end(result);
            }
            (Step::Go, Some(resume)) => self.continue_after(command, resume, context),
            (Step::Go, None) => {
                if !self.select.restrictions.partition.is_range() {
                    self.advance_key(context);
                }
            }
        }
        Ok(())
    }

    /// Gives out what was held back: sorted rows, the last group. Call once, when there is no command.
    pub fn finish(&mut self, context: &PlanContext<'_>, sink: &mut impl RowSink) -> Result<(), CqlError> {
        let is_whole = self.select.selection.is_aggregate() && self.select.group_by.is_none();
        if self.group.is_none()
            && is_whole
            && let Projection::Expressions {
                expressions,
                aggregates,
            } = &self.select.selection.projection
        {
            self.group = Some(Group::new(expressions, aggregates));
        }
        if self.group.is_some() && self.page_end.is_none() {
            self.finish_group(context, sink)?;
            // Everything was read: a page that is full now is the last one.
            self.page_end = None;
        }
        let mut sorted = std::mem::take(&mut self.sorted);
        sorted.sort_by(|a, b| self.compare(a, b));
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        for row in sorted.into_iter().take(limit) {
            self.give(row.values, sink)?;
        }
        Ok(())
    }

    fn feed_partition(
        &mut self,
        result: &PartitionResult,
        is_cut: bool,
        now: UnixSeconds,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<Step, CqlError> {
        let select = self.select.clone();
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.set_partition(&select.table, &result.key)?;
        if self.current.as_ref() != Some(&result.key) {
            self.current = Some(result.key.clone());
            self.in_partition = 0;
            self.saw_row = false;
        }
        let static_row = &result.partition.static_row;
        let place = Place {
            table: &select.table,
            static_row,
            now,
        };
        let accepted = self.accepts(&result.key, &place.view(&buffers, None), |scope| {
            scope < Scope::Row
        })?;
        let mut step = Step::Go;
        if accepted {
            let needs_clustering = self.needs_clustering();
            for (clustering, row) in &result.partition.rows {
                self.saw_row = true;
                if self.in_partition >= self.per_partition {
                    break;
                }
                if needs_clustering {
                    buffers.set_clustering(&select.table, Some(clustering))?;
                }
                let view = place.view(&buffers, Some(row));
                if !self.filters.is_empty()
                    && !self.accepts(&result.key, &view, |scope| scope == Scope::Row)?
                {
                    continue;
                }
                step = self.take_row(&result.key, Some(clustering), &view, context, sink)?;
                if step == Step::Stop {
                    break;
                }
            }
            let stands_alone = !self.saw_row
                && !is_cut
                && !static_row.is_empty()
                && !select.restrictions.restricts_clustering;
            if stands_alone {
                buffers.set_clustering(&select.table, None)?;
                let view = place.view(&buffers, None);
                if self.accepts(&result.key, &view, |scope| scope == Scope::Row)? {
                    step = self.take_row(&result.key, None, &view, context, sink)?;
                }
            }
        }
        self.buffers = buffers;
        Ok(step)
    }

    fn needs_clustering(&self) -> bool {
        let table = &self.select.table;
        let first = table.partition_key().len();
        let range = first..first + table.clustering().len();
        !range.is_empty()
            && (self.select.group_by.is_some()
                || !self.select.order.is_empty()
                || !self.filters.is_empty()
                || self
                    .select
                    .selection
                    .used
                    .iter()
                    .any(|index| range.contains(index)))
    }

    fn accepts(
        &self,
        key: &DecoratedKey,
        view: &RowView<'_>,
        scope: impl Fn(Scope) -> bool,
    ) -> Result<bool, CqlError> {
        use crate::expression::RowSource;
        for filter in self.filters.iter().filter(|filter| scope(filter.scope())) {
            if !filter.accepts(key.token, &|column| view.value(column))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A row that passed all filters. `clustering` None: the partition has only static columns.
    fn take_row(
        &mut self,
        key: &DecoratedKey,
        clustering: Option<&ClusteringKey>,
        view: &RowView<'_>,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<Step, CqlError> {
        let select = self.select.clone();
        if select.group_by.is_some() || select.selection.is_aggregate() {
            return self.take_grouped(key, clustering, view, context, sink);
        }
        match &select.selection.projection {
            Projection::Columns(columns) if select.order.is_empty() && !select.json => {
                sink.start_row();
                for column in columns {
                    let size = view.with_value(*column, |wire| {
                        sink.cell(wire);
                        wire.map_or(0, <[u8]>::len)
                    })?;
                    self.page_bytes += size as u64;
                }
                self.row_count += 1;
            }
            projection => {
                let values = self.project(projection, view, context)?;
                if !select.order.is_empty() {
                    return self.hold(values, view);
                }
                self.give(values, sink)?;
            }
        }
        Ok(self.count(key, clustering))
    }

    fn project(
        &self,
        projection: &Projection,
        view: &RowView<'_>,
        context: &PlanContext<'_>,
    ) -> Result<Vec<Option<Bytes>>, CqlError> {
        let evaluation = Evaluation {
            values: &self.values,
            context,
            row: Some(view),
        };
        match projection {
            Projection::Columns(columns) => columns
                .iter()
                .map(|column| Expression::Column(*column).value(&evaluation))
                .collect(),
            Projection::Expressions { expressions, .. } => expressions
                .iter()
                .map(|expression| expression.value(&evaluation))
                .collect(),
        }
    }

    fn give(&mut self, values: Vec<Option<Bytes>>, sink: &mut impl RowSink) -> Result<(), CqlError> {
        sink.start_row();
        self.row_count += 1;
        if self.select.json {
            let json = json_row(&self.select.selection.columns, &values)?;
            self.page_bytes += json.len() as u64;
            sink.cell(Some(json.as_bytes()));
            return Ok(());
        }
        for value in &values {
            self.page_bytes += value.as_ref().map_or(0, Bytes::len) as u64;
            sink.cell(value.as_deref());
        }
        Ok(())
    }

    /// Counts a row of the result against all limits; notes where the page ended when it is full.
    fn count(&mut self, key: &DecoratedKey, clustering: Option<&ClusteringKey>) -> Step {
        self.in_partition += 1;
        self.remaining -= 1;
        self.page_left -= 1;
        if self.remaining == 0 {
            return Step::Stop;
        }
        if self.page_left == 0 || self.paged && self.page_bytes >= PAGE_BYTES {
            let is_finished = clustering.is_none() || self.in_partition >= self.per_partition;
            self.page_end = Some(PagingState {
                key: key.clone(),
                clustering: clustering.filter(|_| !is_finished).cloned(),
                remaining: self.remaining,
                in_partition: self.in_partition,
            });
            return Step::Stop;
        }
        Step::Go
    }

    /// A full page that ends where the whole answer ends has no next page.
    fn drop_page_end_at_the_end(&mut self, result: &ReadResult) {
        let Some(end) = &self.page_end else { return };
        let at_the_last = result.partitions.last().is_some_and(|last| {
            last.key == end.key
                && match &end.clustering {
                    None => true,
                    Some(clustering) => last
                        .partition
                        .rows
                        .last()
                        .is_some_and(|(own, _)| own == clustering),
                }
        });
        let no_more_keys = self.select.restrictions.partition.is_range() || self.next_key >= self.keys.len();
        if at_the_last && result.resume.is_none() && no_more_keys && self.group.is_none() {
            self.page_end = None;
        }
    }

    fn hold(&mut self, values: Vec<Option<Bytes>>, view: &RowView<'_>) -> Result<Step, CqlError> {
        use crate::expression::RowSource;
        if self.sorted.len() >= SORT_ROWS {
            return Err(CqlError::Invalid(format!(
                "ORDER BY over several partitions sorts at most {SORT_ROWS} rows: add a restriction or drop the ORDER \
                 BY"
            )));
        }
        let order: Result<Vec<_>, _> = self
            .select
            .order
            .iter()
            .map(|(column, _)| view.value(*column))
            .collect();
        self.sorted.push(SortRow {
            order: order?,
            values,
        });
        self.in_partition += 1;
        Ok(Step::Go)
    }

    fn compare(&self, a: &SortRow, b: &SortRow) -> Ordering {
        let mut parts = self.select.order.iter().zip(a.order.iter().zip(&b.order));
        let found = parts.find_map(|((column, descending), (a, b))| {
            let cql_type = &self.select.table.columns().get(*column)?.cql_type;
            let order = match (a, b) {
                (Some(a), Some(b)) => value::compare(cql_type, a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            };
            let order = if *descending { order.reverse() } else { order };
            order.is_ne().then_some(order)
        });
        found.unwrap_or(Ordering::Equal)
    }

    fn take_grouped(
        &mut self,
        key: &DecoratedKey,
        clustering: Option<&ClusteringKey>,
        view: &RowView<'_>,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<Step, CqlError> {
        let select = self.select.clone();
        let plain: Vec<Expression>;
        let (expressions, aggregates): (&[Expression], &[_]) = match &select.selection.projection {
            Projection::Expressions {
                expressions,
                aggregates,
            } => (expressions, aggregates),
            Projection::Columns(columns) => {
                plain = columns.iter().map(|column| Expression::Column(*column)).collect();
                (&plain, &[])
            }
        };
        let grouped_clustering = select
            .group_by
            .map(|count| count.saturating_sub(select.table.partition_key().len()));
        let prefix = grouped_clustering.map_or_else(Vec::new, |count| prefix_of(view, count));
        let continues = match &self.group {
            None => false,
            Some(group) => {
                select.group_by.is_none()
                    || group.prefix == prefix && group.last.as_ref().is_some_and(|(last, _)| last == key)
            }
        };
        if !continues && self.group.is_some() {
            let step = self.finish_group(context, sink)?;
            if step == Step::Stop {
                return Ok(step);
            }
            if self.in_partition >= self.per_partition {
                return Ok(Step::Go);
            }
        }
        let evaluation = Evaluation {
            values: &self.values,
            context,
            row: Some(view),
        };
        let group = self
            .group
            .get_or_insert_with(|| Group::new(expressions, aggregates));
        if !continues {
            group.prefix = prefix;
            group.start(expressions, &evaluation)?;
        }
        group.add(aggregates, &evaluation)?;
        group.last = Some((key.clone(), clustering.cloned()));
        Ok(Step::Go)
    }

    /// The group is complete: its row goes out.
    fn finish_group(&mut self, context: &PlanContext<'_>, sink: &mut impl RowSink) -> Result<Step, CqlError> {
        let Some(group) = self.group.take() else {
            return Ok(Step::Go);
        };
        let select = self.select.clone();
        let row = match &select.selection.projection {
            Projection::Expressions {
                expressions,
                aggregates,
            } => group.finish(expressions, aggregates, &self.values, context)?,
            Projection::Columns(columns) => {
                let plain: Vec<_> = columns.iter().map(|column| Expression::Column(*column)).collect();
                group.finish(&plain, &[], &self.values, context)?
            }
        };
        self.give(row, sink)?;
        match &group.last {
            Some((key, clustering)) => {
                // Groups count for their own partition, which may be the one before.
                let is_current = self.current.as_ref() == Some(key);
                let before = self.in_partition;
                let step = self.count(key, clustering.as_ref());
                if !is_current {
                    self.in_partition = before;
                }
                Ok(step)
            }
            None => Ok(Step::Go),
        }
    }

    /// Every row that is read is a row of the result.
    fn is_direct(&self) -> bool {
        self.filters.is_empty()
            && self.select.group_by.is_none()
            && !self.select.selection.is_aggregate()
            && self.select.order.is_empty()
    }

    fn make_command(
        &self,
        target: ReadTarget,
        slices: Slices,
        first: Option<Slices>,
        now: UnixSeconds,
    ) -> ReadCommand {
        let wanted = self.remaining.min(self.page_left);
        let direct = self.is_direct();
        let limits = ReadLimits {
            rows: if direct && !self.select.distinct {
                wanted
            } else {
                SCAN_ROWS
            },
            rows_per_partition: if direct { self.per_partition } else { u64::MAX },
            partitions: if direct && self.select.distinct {
                wanted
            } else {
                u64::MAX
            },
            bytes: READ_BYTES,
            tombstones: READ_TOMBSTONES,
        };
        ReadCommand {
            table: self.select.table.id,
            target,
            slices,
            first_partition_slices: first,
            reversed: self.select.reversed,
            columns: self.select.read_columns.clone(),
            now,
            limits,
            keep_tombstones: false,
            bypass_cache: self.select.bypass_cache,
        }
    }

    /// On to the next named partition.
    fn advance_key(&mut self, context: &PlanContext<'_>) {
        let key = self.keys.get(self.next_key).cloned();
        self.next_key += 1;
        self.command = key.map(|key| {
            let target = ReadTarget::Partition(key);
            self.make_command(target, self.slices.clone(), None, context.now_seconds)
        });
    }

    fn set_range(&mut self, range: PartitionRange, first: Option<Slices>, evaluation: &Evaluation<'_>) {
        let target = ReadTarget::Range(range);
        let now = evaluation.context.now_seconds;
        self.command = Some(self.make_command(target, self.slices.clone(), first, now));
    }

    /// The read stopped early: the same again from there.
    fn continue_after(&mut self, command: ReadCommand, resume: &ResumePoint, context: &PlanContext<'_>) {
        let now = context.now_seconds;
        match (command.target, resume) {
            (ReadTarget::Partition(key), ResumePoint::Row(_, row)) => {
                let slices = cut(&self.slices, row, self.select.reversed);
                let is_full = self.in_partition >= self.per_partition;
                if slices.is_empty() || is_full {
                    return self.advance_key(context);
                }
                self.command = Some(self.make_command(ReadTarget::Partition(key), slices, None, now));
            }
            (ReadTarget::Partition(key), ResumePoint::Ring(RingPosition::BeforeKey(at))) if *at == key => {
                self.command = Some(self.make_command(ReadTarget::Partition(key), command.slices, None, now));
            }
            (ReadTarget::Partition(_), ResumePoint::Ring(_)) => self.advance_key(context),
            (ReadTarget::Range(range), ResumePoint::Row(key, row)) => {
                let first = cut(&self.slices, row, self.select.reversed);
                let is_full = self.in_partition >= self.per_partition;
                let (start, first) = match first.is_empty() || is_full {
                    true => (RingPosition::AfterKey(key.clone()), None),
                    false => (RingPosition::BeforeKey(key.clone()), Some(first)),
                };
                let target = ReadTarget::Range(PartitionRange {
                    start,
                    end: range.end,
                });
                self.command = Some(self.make_command(target, self.slices.clone(), first, now));
            }
            (ReadTarget::Range(range), ResumePoint::Ring(start)) => {
                let target = ReadTarget::Range(PartitionRange {
                    start: start.clone(),
                    end: range.end,
                });
                self.command = Some(self.make_command(target, self.slices.clone(), None, now));
            }
        }
    }

    /// Goes on where an earlier page ended.
    fn resume_page(&mut self, state: PagingState, evaluation: &Evaluation<'_>) -> Result<(), CqlError> {
        let invalid = || CqlError::invalid("Invalid value for the paging state");
        self.remaining = self.remaining.min(state.remaining);
        if let Some(clustering) = &state.clustering {
            self.buffers
                .set_clustering(&self.select.table, Some(clustering))
                .map_err(|_| invalid())?;
        }
        let rest = state
            .clustering
            .as_ref()
            .map(|row| cut(&self.slices, row, self.select.reversed));
        let rest = rest.filter(|slices| !slices.is_empty());
        if rest.is_some() {
            self.current = Some(state.key.clone());
            self.in_partition = state.in_partition;
            self.saw_row = true;
        }
        if self.select.restrictions.partition.is_range() {
            let Some(range) = self.select.restrictions.partition.range(evaluation)? else {
                return Ok(());
            };
            if !range.contains(&state.key) {
                return Err(invalid());
            }
            let start = match rest {
                Some(_) => RingPosition::BeforeKey(state.key),
                None => RingPosition::AfterKey(state.key),
            };
            self.set_range(
                PartitionRange {
                    start,
                    end: range.end,
                },
                rest,
                evaluation,
            );
            return Ok(());
        }
        let at = self
            .keys
            .iter()
            .position(|key| *key == state.key)
            .ok_or_else(invalid)?;
        self.next_key = at + 1;
        match rest {
            Some(slices) => {
                let target = ReadTarget::Partition(state.key);
                let now = evaluation.context.now_seconds;
                self.command = Some(self.make_command(target, slices, None, now));
            }
            None => self.advance_key(evaluation.context),
        }
        Ok(())
    }
}

fn resumes_inside(resume: Option<&ResumePoint>, key: &DecoratedKey) -> bool {
    match resume {
        Some(ResumePoint::Row(own, _)) => own == key,
        Some(ResumePoint::Ring(RingPosition::BeforeKey(own))) => own == key,
        _ => false,
    }
}

/// What is left of `slices` after (or, reversed, before) a row.
fn cut(slices: &Slices, row: &ClusteringKey, reversed: bool) -> Slices {
    let mut beside = row.0.to_vec();
    if let Some(last) = beside.last_mut() {
        *last = if reversed { BOUND_BEFORE } else { BOUND_AFTER };
    }
    let beside = Position(beside.into());
    let cut = slices.iter().map(|slice| {
        let mut slice = slice.clone();
        match reversed {
            true => slice.end = slice.end.min(beside.clone()),
            false => slice.start = slice.start.max(beside.clone()),
        }
        slice
    });
    cut.filter(|slice| !slice.is_empty()).collect()
}

fn evaluate_limit(
    limit: Option<&Expression>,
    evaluation: &Evaluation<'_>,
    name: &str,
) -> Result<u64, CqlError> {
    let Some(limit) = limit else { return Ok(u64::MAX) };
    match limit.evaluate(evaluation)? {
        BoundValue::Unset => Ok(u64::MAX),
        BoundValue::Null => Err(CqlError::Invalid(format!("Invalid null value of {name}"))),
        BoundValue::Bytes(bytes) => check_limit(&bytes, name),
    }
}

/// The number of rows in the wire bytes of an int.
pub(crate) fn check_limit(wire: &[u8], name: &str) -> Result<u64, CqlError> {
    let name = match name {
        "[limit]" => "LIMIT",
        "[per_partition_limit]" => "PER PARTITION LIMIT",
        other => other,
    };
    let limit = wire.try_into().map(i32::from_be_bytes);
    let limit = limit.map_err(|_| CqlError::Invalid(format!("Invalid {name} value")))?;
    match u64::try_from(limit) {
        Ok(limit @ 1..) => Ok(limit),
        _ => Err(CqlError::Invalid(format!("{name} must be strictly positive"))),
    }
}

/// Nanoseconds of a USING TIMEOUT.
pub(crate) fn evaluate_timeout(
    timeout: &Expression,
    evaluation: &Evaluation<'_>,
) -> Result<Option<i64>, CqlError> {
    let Some(wire) = timeout.value(evaluation)? else {
        return Ok(None);
    };
    match value::Value::decode(&CqlType::Duration, &wire).map_err(crate::expression::of_value)? {
        value::Value::Duration(duration)
            if duration.months() == 0 && duration.days() == 0 && duration.nanoseconds() >= 0 =>
        {
            Ok(Some(duration.nanoseconds()))
        }
        _ => Err(CqlError::invalid(
            "Timeout values must be non-negative and shorter than a day",
        )),
    }
}
