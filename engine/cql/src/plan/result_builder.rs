//! Rows that were read to rows of the result: filters, projection, groups, order and limits.
//!
//! Rows go to the [`RowSink`] as they come, unless they must be sorted or grouped first. A plain projection copies
//! nothing and allocates nothing per row.
//!
//! Invariants: a page ends between two rows (or groups); no row is given twice, whatever the pages.

use super::group::{Group, prefix_of};
use super::ranking::Ranking;
use super::result_row::{RowSink, json_row};
use super::row_view::{KeyBuffers, RowView};
use crate::expression::{Evaluation, Expression, RowSource};
use crate::paging::PagingState;
use crate::plan::PlanContext;
use crate::prepare::select::PreparedSelect;
use crate::prepare::selection::Projection;
use crate::restrictions::filter::{ReadyFilter, Scope};
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::read::PartitionResult;
use ceto_model::{ClusteringKey, DecoratedKey, Position, ReadResult, Row, Table, UnixSeconds, value};
use smallvec::SmallVec;
use std::cmp::Ordering;

/// Rows that ORDER BY over several partitions sorts at most.
const SORT_ROWS: usize = 1_000_000;

/// The result under construction.
#[derive(Debug)]
pub(super) struct ResultBuilder {
    /// Values of the request; kept only when rows are computed.
    pub(super) values: SmallVec<[BoundValue; 1]>,
    pub(super) filters: Vec<ReadyFilter>,
    /// Rows that LIMIT still allows.
    pub(super) remaining: u64,
    /// Rows that the page still takes.
    pub(super) page_left: u64,
    /// A page ends at so many bytes of cells; without pages there is no bound.
    pub(super) page_bytes_max: u64,
    pub(super) per_partition: u64,
    /// The partition that is being read: rows of the result so far, and whether any row was seen.
    pub(super) current: Option<DecoratedKey>,
    pub(super) in_partition: u64,
    pub(super) saw_row: bool,
    /// Where the page ended.
    pub(super) page_end: Option<PagingState>,
    pub(super) row_count: u64,
    page_bytes: u64,
    group: Option<Box<Group>>,
    sorted: Vec<SortRow>,
    /// Of an order by similarity.
    pub(super) ranking: Option<Ranking>,
}

/// The bounds of a result: numbers of rows.
pub(super) struct Limits {
    pub(super) rows: u64,
    pub(super) per_partition: u64,
    pub(super) page: Option<u64>,
    /// A page is cut short when its cells have so many bytes.
    pub(super) page_bytes: u64,
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
pub(super) enum Step {
    Go,
    Stop,
}

impl ResultBuilder {
    pub(super) fn new(values: SmallVec<[BoundValue; 1]>, filters: Vec<ReadyFilter>, limits: &Limits) -> Self {
        Self {
            values,
            filters,
            remaining: limits.rows,
            page_left: limits.page.unwrap_or(u64::MAX),
            page_bytes_max: limits.page.map_or(u64::MAX, |_| limits.page_bytes),
            per_partition: limits.per_partition,
            current: None,
            in_partition: 0,
            saw_row: false,
            page_end: None,
            row_count: 0,
            page_bytes: 0,
            group: None,
            sorted: Vec::new(),
            ranking: None,
        }
    }

    /// Rows that are ranked by similarity.
    pub(super) fn ranked(&self) -> u64 {
        self.ranking.as_ref().map_or(0, |ranking| ranking.len() as u64)
    }

    /// Forgets the rows that are ranked: all are read again.
    pub(super) fn start_again(&mut self) {
        if let Some(ranking) = &mut self.ranking {
            ranking.clear();
        }
        self.current = None;
    }

    /// The rows of one partition. `is_cut`: the read stopped inside it.
    pub(super) fn take_partition(
        &mut self,
        select: &PreparedSelect,
        result: &PartitionResult,
        is_cut: bool,
        now: UnixSeconds,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<Step, CqlError> {
        let mut buffers = KeyBuffers::default();
        if select.needs_partition_columns {
            buffers.set_partition(&select.table, &result.key)?;
        }
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
        let of_partition = |scope| scope < Scope::Row;
        if !self.accepts(&result.key, &place.view(&buffers, None), of_partition)? {
            return Ok(Step::Go);
        }
        for (clustering, row) in &result.partition.rows {
            // One row of a partition stands for all of them.
            if select.distinct && self.saw_row {
                break;
            }
            self.saw_row = true;
            if self.in_partition >= self.per_partition {
                break;
            }
            if select.needs_clustering_columns {
                buffers.set_clustering(&select.table, Some(clustering))?;
            }
            let view = place.view(&buffers, Some(row));
            if !self.accepts(&result.key, &view, |scope| scope == Scope::Row)? {
                continue;
            }
            if self.take_row(select, &result.key, Some(clustering), &view, context, sink)? == Step::Stop {
                return Ok(Step::Stop);
            }
        }
        let stands_alone =
            !self.saw_row && !is_cut && !static_row.is_empty() && !select.restrictions.restricts_clustering;
        if stands_alone {
            buffers.set_clustering(&select.table, None)?;
            let view = place.view(&buffers, None);
            if self.accepts(&result.key, &view, |scope| scope == Scope::Row)? {
                return self.take_row(select, &result.key, None, &view, context, sink);
            }
        }
        Ok(Step::Go)
    }

    fn accepts(
        &self,
        key: &DecoratedKey,
        view: &RowView<'_>,
        scope: impl Fn(Scope) -> bool,
    ) -> Result<bool, CqlError> {
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
        select: &PreparedSelect,
        key: &DecoratedKey,
        clustering: Option<&ClusteringKey>,
        view: &RowView<'_>,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<Step, CqlError> {
        if select.is_grouped() {
            return self.take_grouped(select, key, clustering, view, context, sink);
        }
        match &select.selection.projection {
            Projection::Columns(columns) if !select.is_sorted() && !select.json => {
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
                if let Some(ranking) = &self.ranking {
                    if let Some(likeness) = ranking.likeness(view)? {
                        let values = self.project(projection, view, context)?;
                        self.ranking
                            .iter_mut()
                            .for_each(|ranking| ranking.take(likeness, &values));
                    }
                    return Ok(Step::Go);
                }
                let values = self.project(projection, view, context)?;
                if !select.order.is_empty() {
                    let order = order_values(select, view)?;
                    return self.hold(SortRow { order, values });
                }
                self.give(select, values, sink)?;
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

    fn give(
        &mut self,
        select: &PreparedSelect,
        values: Vec<Option<Bytes>>,
        sink: &mut impl RowSink,
    ) -> Result<(), CqlError> {
        sink.start_row();
        self.row_count += 1;
        if select.json {
            let json = json_row(&select.selection.columns, &values)?;
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
        if self.page_left == 0 || self.page_bytes >= self.page_bytes_max {
            let is_finished = clustering.is_none() || self.in_partition >= self.per_partition;
            self.page_end = Some(PagingState {
                key: key.clone(),
                place: clustering
                    .filter(|_| !is_finished)
                    .map(|key| Position(key.0.clone())),
                remaining: self.remaining,
                in_partition: self.in_partition,
                saw_row: true,
            });
            return Step::Stop;
        }
        Step::Go
    }

    /// A full page that ends where the whole answer ends has no next page. `is_last_read`: no other read would follow.
    pub(super) fn drop_page_end_at_the_end(&mut self, result: &ReadResult, is_last_read: bool) {
        let Some(end) = &self.page_end else { return };
        let at_the_last = result.partitions.last().is_some_and(|last| {
            last.key == end.key
                && match &end.place {
                    None => true,
                    Some(place) => last
                        .partition
                        .rows
                        .last()
                        .is_some_and(|(own, _)| own.0 == place.0),
                }
        });
        if at_the_last && result.resume.is_none() && is_last_read && self.group.is_none() {
            self.page_end = None;
        }
    }

    /// Keeps a row until all rows are there.
    fn hold(&mut self, row: SortRow) -> Result<Step, CqlError> {
        if self.sorted.len() >= SORT_ROWS {
            return Err(CqlError::Invalid(format!(
                "ORDER BY over several partitions sorts at most {SORT_ROWS} rows: add a restriction or drop the ORDER \
                 BY"
            )));
        }
        self.sorted.push(row);
        self.in_partition += 1;
        Ok(Step::Go)
    }

    fn take_grouped(
        &mut self,
        select: &PreparedSelect,
        key: &DecoratedKey,
        clustering: Option<&ClusteringKey>,
        view: &RowView<'_>,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<Step, CqlError> {
        let key_columns = select.table.partition_key().len();
        let prefix = match &select.group_by {
            Some(grouping) => {
                let mut prefix = prefix_of(view, grouping.columns.saturating_sub(key_columns));
                // Of a row, that is: a partition without rows is a group of its own.
                if let (Some(by), Some(_)) = (&grouping.by, clustering) {
                    let value = by.value(&Evaluation {
                        values: &self.values,
                        context,
                        row: Some(view),
                    })?;
                    prefix.push(u8::from(value.is_some()));
                    prefix.extend_from_slice(&value.unwrap_or_default());
                }
                prefix
            }
            None => Vec::new(),
        };
        let continues = self.group.as_ref().is_some_and(|group| {
            let same_partition = group.last.as_ref().is_some_and(|(last, _)| last == key);
            select.group_by.is_none() || group.prefix == prefix && same_partition
        });
        if !continues && self.group.is_some() {
            if self.finish_group(select, context, sink)? == Step::Stop {
                return Ok(Step::Stop);
            }
            if self.in_partition >= self.per_partition {
                return Ok(Step::Go);
            }
        }
        let (expressions, aggregates) = (&select.group_expressions, select.selection.aggregates());
        let evaluation = Evaluation {
            values: &self.values,
            context,
            row: Some(view),
        };
        let group = self
            .group
            .get_or_insert_with(|| Box::new(Group::new(expressions, aggregates)));
        if !continues {
            group.prefix = prefix;
            group.start(expressions, &evaluation)?;
            group.order = order_values(select, view)?;
        }
        group.add(aggregates, &evaluation)?;
        group.last = Some((key.clone(), clustering.cloned()));
        Ok(Step::Go)
    }

    /// The group is complete: its row goes out.
    fn finish_group(
        &mut self,
        select: &PreparedSelect,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<Step, CqlError> {
        let Some(group) = self.group.take() else {
            return Ok(Step::Go);
        };
        let aggregates = select.selection.aggregates();
        let row = group.finish(&select.group_expressions, aggregates, &self.values, context)?;
        let Some((key, clustering)) = &group.last else {
            self.give(select, row, sink)?;
            return Ok(Step::Go);
        };
        // Groups count for their own partition, which may be the one before.
        let is_current = self.current.as_ref() == Some(key);
        let before = self.in_partition;
        let step = if select.order.is_empty() {
            self.give(select, row, sink)?;
            self.count(key, clustering.as_ref())
        } else {
            self.hold(SortRow {
                order: group.order,
                values: row,
            })?
        };
        if !is_current {
            self.in_partition = before;
        }
        Ok(step)
    }

    /// Everything was read: the last group and sorted rows go out.
    pub(super) fn finish(
        &mut self,
        select: &PreparedSelect,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<(), CqlError> {
        // An aggregate over no rows is a row all the same.
        if self.group.is_none() && select.selection.is_aggregate() && select.group_by.is_none() {
            let group = Group::new(&select.group_expressions, select.selection.aggregates());
            self.group = Some(Box::new(group));
        }
        if self.group.is_some() && self.page_end.is_none() {
            self.finish_group(select, context, sink)?;
            // A page that is full now is the last one.
            self.page_end = None;
        }
        if let Some(ranking) = &mut self.ranking {
            for values in ranking.finish() {
                self.give(select, values, sink)?;
            }
            return Ok(());
        }
        let mut sorted = std::mem::take(&mut self.sorted);
        sorted.sort_by(|a, b| compare(select, a, b));
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        for row in sorted.into_iter().take(limit) {
            self.give(select, row.values, sink)?;
        }
        Ok(())
    }
}

fn order_values(select: &PreparedSelect, view: &RowView<'_>) -> Result<Vec<Option<Bytes>>, CqlError> {
    let columns = select.order.iter();
    columns.map(|(column, _)| view.value(*column)).collect()
}

fn compare(select: &PreparedSelect, a: &SortRow, b: &SortRow) -> Ordering {
    let mut parts = select.order.iter().zip(a.order.iter().zip(&b.order));
    let found = parts.find_map(|((column, descending), (a, b))| {
        let cql_type = &select.table.columns().get(*column)?.cql_type;
        let order = match (a, b) {
            (Some(a), Some(b)) => value::compare(cql_type, a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        let order = if *descending { order.reverse() } else { order };
        order.is_ne().then_some(order)
    });
    found.unwrap_or(Ordering::Equal)
}
