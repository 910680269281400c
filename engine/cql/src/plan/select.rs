//! SELECT, executed: which reads to do, one after the other.
//!
//! The node asks [`SelectPlan::command`] what to read, gives the answer to [`SelectPlan::feed`], and so on until there is
//! no command; then [`SelectPlan::finish`]. What rows become is `result_builder`'s matter. Limits are pushed into the
//! commands only where every row that is read is a row of the result.

use super::ranking::Ranking;
use super::result_builder::{Limits, ResultBuilder, Step};
use super::result_row::RowSink;
use super::row_view::KeyBuffers;
use crate::expression::{Evaluation, Expression};
use crate::paging::PagingState;
use crate::plan::PlanContext;
use crate::prepare::select::PreparedSelect;
use crate::prepare::selection::Projection;
use crate::restrictions::partition::Keys;
use crate::{BoundValue, CqlError};
use ceto_model::comparable::KEY_END;
use ceto_model::read::{IndexSearch, IndexTerms, ReadLimits, ReadTarget, ResumePoint, Slices};
use ceto_model::{
    ClusteringKey, CqlType, DecoratedKey, PartitionRange, Position, ReadCommand, ReadResult, RingPosition,
    Slice, Table, UnixSeconds, value,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Rows that one read returns at most when not every row is one of the result.
const SCAN_ROWS: u64 = 10_000;
/// The same for few wanted rows that an index finds.
const INDEXED_ROWS: u64 = 16;
/// Bytes that one read returns about.
const READ_BYTES: u64 = 1 << 20;
/// Tombstones that one read walks over at most.
const READ_TOMBSTONES: u64 = 100_000;

/// Where filters are to be passed, so many times the rows that are wanted are searched for, and at least so many.
const NEAREST_SPARE: u64 = 8;
const NEAREST_MIN: u64 = 100;

/// So many rows are few.
const FEW: u64 = 8;

/// A SELECT under way.
#[derive(Debug)]
pub struct SelectPlan {
    select: Arc<PreparedSelect>,
    /// Named partitions; empty for a range.
    keys: Keys,
    next_key: usize,
    /// Rows of each partition that is still to come; of the last named one the command has them.
    slices: Slices,
    command: Option<ReadCommand>,
    builder: ResultBuilder,
    timeout_nanos: Option<i64>,
    /// What is searched for in an index.
    index: Option<Box<IndexSearch>>,
    /// Of a search for the nearest vectors with filters: what to do when too few of what it finds pass them.
    retry: Option<Box<Retry>>,
    warning: Option<String>,
}

/// A read that finds everything, exact and slower than the one that is tried first.
#[derive(Debug)]
struct Retry {
    /// Rows that the first try finds when there are as many.
    tried: u64,
    found: u64,
    range: PartitionRange,
    index: Option<Box<IndexSearch>>,
}

impl SelectPlan {
    /// Evaluates restrictions and limits.
    pub(crate) fn new(
        select: Arc<PreparedSelect>,
        values: &[BoundValue],
        context: &PlanContext<'_>,
    ) -> Result<Box<Self>, CqlError> {
        let evaluation = Evaluation::new(values, context);
        let restrictions = &select.restrictions;
        let limits = limits(&select, &evaluation)?;
        let mut filters = Vec::new();
        for filter in &restrictions.filters {
            filters.push(filter.ready(&select.table, &evaluation)?);
        }
        let slices = match select.distinct {
            true => SmallVec::from_buf([Slice::full()]),
            false => restrictions.clustering.slices(&evaluation)?,
        };
        let timeout_nanos = match &select.timeout {
            Some(timeout) => evaluate_timeout(timeout, &evaluation)?,
            None => None,
        };
        let index = match &restrictions.index {
            None => None,
            Some(choice) => Some(choice.search(&evaluation)?),
        };
        let finds_nothing = matches!(index, Some(None));
        // IN () and bounds that exclude each other name no row, and so no static row either.
        let names_nothing = slices.is_empty() && !restrictions.clustering.is_empty();
        let kept_values = match select.selection.projection {
            Projection::Columns(_) => SmallVec::new(),
            Projection::Expressions { .. } => values.iter().cloned().collect(),
        };
        let ranking = match &select.nearest {
            None => None,
            Some(nearest) => {
                nearest.check_limit(limits.rows)?;
                Some(Ranking::new(nearest, nearest.vector(&evaluation)?, limits.rows))
            }
        };
        let mut builder = ResultBuilder::new(kept_values, filters, &limits);
        builder.ranking = ranking;
        let mut plan = Box::new(Self {
            keys: match restrictions.partition.is_range() {
                true => Keys::new(),
                false => restrictions.partition.keys(&evaluation)?,
            },
            next_key: 0,
            slices,
            command: None,
            builder,
            timeout_nanos,
            index: index.flatten().map(Box::new),
            retry: None,
            warning: None,
            select,
        });
        plan.search_nearest(&evaluation)?;
        match context.paging_state {
            Some(state) => plan.resume_page(PagingState::decode(state)?, &evaluation)?,
            None if plan.select.restrictions.partition.is_range() => {
                if let Some(range) = plan.select.restrictions.partition.range(&evaluation)? {
                    plan.set_range(range, None, context.now_seconds);
                }
            }
            None => plan.advance_key(context.now_seconds),
        }
        if names_nothing || finds_nothing {
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
        self.builder.page_end.as_ref().map(PagingState::encode)
    }

    /// Rows given to the sink so far.
    pub fn row_count(&self) -> u64 {
        self.builder.row_count
    }

    /// The table that is read.
    pub fn table(&self) -> &Arc<Table> {
        &self.select.table
    }

    /// How many partitions are named; 0: a range.
    pub fn named_partitions(&self) -> usize {
        self.keys.len()
    }

    /// The partitions that are named; none: a range.
    pub(crate) fn keys(&self) -> &[DecoratedKey] {
        &self.keys
    }

    /// How many rows, or ranges of them, of each partition are named.
    pub fn named_rows(&self) -> usize {
        self.slice_count()
    }

    /// An index is asked, for all partitions.
    pub fn searches_all_partitions(&self) -> bool {
        self.select.restrictions.index.is_some() && self.select.restrictions.partition.is_range()
    }

    /// USING TIMEOUT, in nanoseconds.
    pub fn timeout_nanos(&self) -> Option<i64> {
        self.timeout_nanos
    }

    /// The answer has a few rows at most.
    pub fn has_few_rows(&self) -> bool {
        let wanted = self.builder.remaining.min(self.builder.page_left);
        let select = &*self.select;
        let each = match select.distinct || select.table.clustering().is_empty() {
            true => 1,
            false if select.restrictions.clustering.names_rows() => self.slice_count().max(1),
            false => usize::MAX,
        };
        let named = self.keys.len().saturating_mul(each);
        wanted <= FEW || (1..=FEW as usize).contains(&named)
    }

    /// Slices of each partition: of the last named one the command has them.
    fn slice_count(&self) -> usize {
        let asked = self.command.as_ref().map_or(0, |command| command.slices.len());
        asked.max(self.slices.len())
    }

    /// What the client should be told beside the rows, in Cassandra's words.
    pub fn warning(&self) -> Option<&str> {
        if let Some(warning) = &self.warning {
            return Some(warning);
        }
        if self.select.selection.aggregates().is_empty() {
            return None;
        }
        if self.is_range() {
            return Some("Aggregation query used without partition key");
        }
        let many = self.keys.len() > 1;
        many.then_some("Aggregation query used on multiple partition keys (IN restriction)")
    }

    /// Takes the answer to [`Self::command`] and moves on to the next.
    pub fn feed(
        &mut self,
        result: &ReadResult,
        context: &PlanContext<'_>,
        sink: &mut impl RowSink,
    ) -> Result<(), CqlError> {
        let Some(now) = self.command.as_ref().map(|command| command.now) else {
            return Ok(());
        };
        let last = result.partitions.len().saturating_sub(1);
        for (index, partition) in result.partitions.iter().enumerate() {
            let is_cut = index == last && resumes_inside(result.resume.as_ref(), &partition.key);
            let step = self
                .builder
                .take_partition(&self.select, partition, is_cut, now, context, sink)?;
            if step == Step::Stop {
                let no_more_keys = self.is_range() || self.next_key >= self.keys.len();
                self.builder.drop_page_end_at_the_end(result, no_more_keys);
                self.command = None;
                return Ok(());
            }
        }
        if let Some(retry) = &mut self.retry {
            let rows = result
                .partitions
                .iter()
                .map(|part| part.partition.rows.len() as u64);
            retry.found += rows.sum::<u64>();
        }
        match &result.resume {
            Some(resume) => self.continue_after(resume, now),
            None if self.is_range() && self.has_too_few() => {
                let retry = self.retry.take().expect("it says that too few were found");
                self.builder.start_again();
                self.index = retry.index;
                self.set_range(retry.range, None, now);
            }
            None if self.is_range() => self.command = None,
            None => self.advance_key(now),
        }
        Ok(())
    }

    /// Lets the graph of vectors find the rows, where it can.
    fn search_nearest(&mut self, evaluation: &Evaluation<'_>) -> Result<(), CqlError> {
        let (Some(nearest), Some(ranking)) = (&self.select.nearest, &self.builder.ranking) else {
            return Ok(());
        };
        let limit = self.builder.remaining;
        if let Some(page) = evaluation
            .context
            .page_size
            .filter(|page| u64::from(*page) < limit && *page > 0)
        {
            self.warning = Some(format!(
                "Top-K queries do not support paging and the page size is set to {page}, which is less than LIMIT \
                 {limit}. The page size has been set to {limit} to match the LIMIT."
            ));
        }
        // The rows of named partitions are few, and compared all.
        if !self.select.restrictions.partition.is_range() {
            return Ok(());
        }
        let has_filters = !self.select.restrictions.filters.is_empty();
        let count = match has_filters {
            true => (limit * NEAREST_SPARE).max(NEAREST_MIN),
            false => limit,
        };
        let search = IndexSearch {
            index: nearest.index.id(),
            terms: IndexTerms::Nearest {
                vector: ranking.wire.clone(),
                count: u32::try_from(count).unwrap_or(u32::MAX),
            },
        };
        let other = self.index.replace(Box::new(search));
        if has_filters && let Some(range) = self.select.restrictions.partition.range(evaluation)? {
            self.retry = Some(Box::new(Retry {
                tried: count,
                found: 0,
                range,
                index: other,
            }));
        }
        Ok(())
    }

    /// The nearest rows are not enough, and there may be more.
    fn has_too_few(&self) -> bool {
        let Some(retry) = &self.retry else { return false };
        retry.found >= retry.tried && self.builder.ranked() < self.builder.remaining
    }

    /// Gives out what was held back: sorted rows, the last group. Call once, when there is no command.
    pub fn finish(&mut self, context: &PlanContext<'_>, sink: &mut impl RowSink) -> Result<(), CqlError> {
        self.builder.finish(&self.select, context, sink)
    }

    /// The answer comes in pages that may end after any read, see [`Self::end_page`].
    pub fn has_short_pages(&self) -> bool {
        self.builder.page_bytes_max < u64::MAX && !self.select.is_grouped() && !self.select.is_sorted()
    }

    /// The answer is one row of many, read piece by piece.
    pub fn is_one_row(&self) -> bool {
        self.select.selection.is_aggregate() && self.select.group_by.is_none()
    }

    /// Ends the page where the read of `result`, fed just now, stopped, however few rows it has. False, and nothing
    /// happens, when there is nothing more to read or the place is none that a page can end at.
    pub fn end_page(&mut self, result: &ReadResult) -> bool {
        if !self.has_short_pages() || self.command.is_none() {
            return false;
        }
        let (key, place) = match &result.resume {
            Some(ResumePoint::Inside(key, at)) => (key, Some(at)),
            Some(ResumePoint::Ring(RingPosition::AfterKey(key))) => (key, None),
            _ => return false,
        };
        let is_current = self.builder.current.as_ref() == Some(key);
        self.builder.page_end = Some(PagingState {
            key: key.clone(),
            place: place.cloned(),
            remaining: self.builder.remaining,
            in_partition: if is_current { self.builder.in_partition } else { 0 },
            saw_row: is_current && self.builder.saw_row,
        });
        self.command = None;
        true
    }

    fn is_range(&self) -> bool {
        self.select.restrictions.partition.is_range()
    }

    #[inline]
    fn make_command(
        &self,
        target: ReadTarget,
        slices: Slices,
        first: Option<Slices>,
        now: UnixSeconds,
    ) -> ReadCommand {
        let select = &*self.select;
        let wanted = self.builder.remaining.min(self.builder.page_left);
        let direct = select.is_direct();
        ReadCommand {
            table: select.table.id,
            target,
            slices,
            first_partition_slices: first,
            reversed: select.reversed,
            columns: select.read_columns.clone(),
            now,
            limits: ReadLimits {
                rows: match (direct && !select.distinct, &self.index) {
                    (true, _) => wanted,
                    (false, _) if select.nearest.is_some() => SCAN_ROWS,
                    // Each row that an index finds is a read of its own, and most of them are rows of the result.
                    (false, Some(_)) if !select.is_grouped() => wanted.clamp(INDEXED_ROWS, SCAN_ROWS),
                    _ => SCAN_ROWS,
                },
                rows_per_partition: if direct {
                    self.builder.per_partition
                } else {
                    u64::MAX
                },
                partitions: if direct && select.distinct {
                    wanted
                } else {
                    u64::MAX
                },
                bytes: READ_BYTES,
                tombstones: READ_TOMBSTONES,
            },
            keep_tombstones: false,
            bypass_cache: select.bypass_cache,
            index: self.index.clone(),
        }
    }

    /// On to the next named partition.
    fn advance_key(&mut self, now: UnixSeconds) {
        let key = self.keys.get(self.next_key).cloned();
        self.next_key += 1;
        // Commands are large: none is moved more often than it must be.
        self.command = None;
        if let Some(key) = key {
            let slices = match self.next_key < self.keys.len() {
                true => self.slices.clone(),
                false => std::mem::take(&mut self.slices),
            };
            self.command = Some(self.make_command(ReadTarget::Partition(key), slices, None, now));
        }
    }

    fn set_range(&mut self, range: PartitionRange, first: Option<Slices>, now: UnixSeconds) {
        let target = ReadTarget::Range(range);
        self.command = Some(self.make_command(target, self.slices.clone(), first, now));
    }

    /// The read stopped early: the same again from there.
    fn continue_after(&mut self, resume: &ResumePoint, now: UnixSeconds) {
        let Some(command) = self.command.take() else {
            return;
        };
        let is_full = self.builder.in_partition >= self.builder.per_partition;
        match (command.target, resume) {
            (ReadTarget::Partition(key), ResumePoint::Inside(_, at)) => {
                let slices = cut(&command.slices, at, self.select.reversed);
                if slices.is_empty() || is_full {
                    return self.advance_key(now);
                }
                self.command = Some(self.make_command(ReadTarget::Partition(key), slices, None, now));
            }
            (ReadTarget::Partition(key), ResumePoint::Ring(RingPosition::BeforeKey(at))) if *at == key => {
                self.command = Some(self.make_command(ReadTarget::Partition(key), command.slices, None, now));
            }
            (ReadTarget::Partition(_), ResumePoint::Ring(_)) => self.advance_key(now),
            (ReadTarget::Range(range), ResumePoint::Inside(key, at)) => {
                let first = cut(&self.slices, at, self.select.reversed);
                let (start, first) = match first.is_empty() || is_full {
                    true => (RingPosition::AfterKey(key.clone()), None),
                    false => (RingPosition::BeforeKey(key.clone()), Some(first)),
                };
                self.set_range(
                    PartitionRange {
                        start,
                        end: range.end,
                    },
                    first,
                    now,
                );
            }
            (ReadTarget::Range(range), ResumePoint::Ring(start)) => {
                let start = start.clone();
                self.set_range(
                    PartitionRange {
                        start,
                        end: range.end,
                    },
                    None,
                    now,
                );
            }
        }
    }

    /// Goes on where an earlier page ended.
    fn resume_page(&mut self, state: PagingState, evaluation: &Evaluation<'_>) -> Result<(), CqlError> {
        let invalid = || CqlError::invalid("Invalid value for the paging state");
        let now = evaluation.context.now_seconds;
        self.builder.remaining = self.builder.remaining.min(state.remaining);
        if let Some(place) = &state.place {
            KeyBuffers::default()
                .check_place(&self.select.table, place)
                .map_err(|_| invalid())?;
        }
        let rest = state
            .place
            .as_ref()
            .map(|place| cut(&self.slices, place, self.select.reversed));
        let rest = rest.filter(|slices| !slices.is_empty());
        if rest.is_some() {
            self.builder.current = Some(state.key.clone());
            self.builder.in_partition = state.in_partition;
            self.builder.saw_row = state.saw_row;
        }
        if self.is_range() {
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
                now,
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
                self.command = Some(self.make_command(target, slices, None, now));
            }
            None => self.advance_key(now),
        }
        Ok(())
    }
}

fn limits(select: &PreparedSelect, evaluation: &Evaluation<'_>) -> Result<Limits, CqlError> {
    let rows = evaluate_limit(select.limit.as_ref(), evaluation, "LIMIT")?;
    let per_partition = evaluate_limit(
        select.per_partition_limit.as_ref(),
        evaluation,
        "PER PARTITION LIMIT",
    )?;
    let is_one_row = select.selection.is_aggregate() && select.group_by.is_none();
    let page = evaluation
        .context
        .page_size
        .filter(|size| *size > 0 && !is_one_row && select.nearest.is_none());
    if page.is_some() && !select.order.is_empty() {
        return Err(CqlError::invalid(
            "Cannot page queries with both ORDER BY and a IN restriction on the partition key; you must either remove \
             the ORDER BY or the IN and sort client side, or disable paging for this query",
        ));
    }
    Ok(Limits {
        rows,
        per_partition: if select.distinct { 1 } else { per_partition },
        page: page.map(u64::from),
        page_bytes: evaluation.context.page_bytes_max,
    })
}

fn resumes_inside(resume: Option<&ResumePoint>, key: &DecoratedKey) -> bool {
    match resume {
        Some(ResumePoint::Inside(own, _)) => own == key,
        Some(ResumePoint::Ring(RingPosition::BeforeKey(own))) => own == key,
        _ => false,
    }
}

/// What is left of `slices` after (or, reversed, before) a row.
fn cut(slices: &Slices, place: &Position, reversed: bool) -> Slices {
    let beside = match place.0.last() {
        Some(&KEY_END) => Position::behind_row(&ClusteringKey(place.0.clone()), reversed),
        _ => place.clone(),
    };
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
