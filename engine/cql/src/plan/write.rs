//! INSERT, UPDATE, DELETE and BATCH to mutations.
//!
//! Every mutation of a plan is one partition's whole change: statements of a batch that meet in a partition are merged.
//! What depends on present data (IF, list positions) is not planned here but by [`super::condition`].

use super::cells::{Parameters, RowTarget};
use super::condition::ConditionalWrite;
use super::indexed::check_indexed_values;
use super::{Plan, PlanContext, expiration};
use crate::ast::BatchKind;
use crate::bound::check_values;
use crate::expression::{Evaluation, Expression, of_value};
use crate::prepare::assignment::OperationKind;
use crate::prepare::batch::{PreparedBatch, check_kinds, virtual_in_batch};
use crate::prepare::modification::{Attributes, PreparedModification, Target};
use crate::prepare::{Prepared, PreparedKind};
use crate::restrictions::clustering::{Rows, key_too_long, row_key};
use crate::restrictions::partition::{Keys, decorated_key, decorated_key_of_one};
use crate::restrictions::{Components, present};
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::comparable::{KEY_END, encode_clustering, encode_prefix};
use ceto_model::key::KEY_SIZE_MAX;
use ceto_model::timestamp::{Expiry, Ttl};
use ceto_model::{
    ClusteringKey, Collection, ColumnId, DecoratedKey, Liveness, Mutation, RangeTombstone, Row, Table,
    TableId, Timestamp,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What kind of write it is: decides the guarantee and the write type of a timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteKind {
    /// One statement.
    Simple,
    /// Applied in full eventually, once accepted.
    LoggedBatch,
    /// No such promise.
    UnloggedBatch,
    /// Adds to counters.
    Counter,
}

/// A write.
#[derive(Clone, PartialEq, Debug)]
pub struct WritePlan {
    /// Which kind.
    pub kind: WriteKind,
    /// At most one per partition of a table.
    pub mutations: SmallVec<[Mutation; 1]>,
    /// At most one per partition of a table; only with [`WriteKind::Counter`].
    pub counters: Vec<CounterUpdate>,
    /// USING TIMEOUT, in nanoseconds.
    pub timeout_nanos: Option<i64>,
}

/// What is added to the counters of one partition. The replica that leads the write reads what it has counted, and writes
/// the sums (see `ceto_model::counter`).
#[derive(Clone, PartialEq, Debug)]
pub struct CounterUpdate {
    /// The table.
    pub table: TableId,
    /// The partition.
    pub key: DecoratedKey,
    /// Static counters.
    pub statics: RowIncrements,
    /// Counters of rows, sorted, each row once.
    pub rows: Vec<(ClusteringKey, RowIncrements)>,
}

/// By column, what is added; each column once.
pub type RowIncrements = Vec<(ColumnId, i64)>;

/// One statement of a batch that is not text but prepared statements.
pub struct BatchItem<'a> {
    /// An INSERT, UPDATE or DELETE.
    pub prepared: &'a Prepared,
    /// One per variable.
    pub values: &'a [BoundValue],
}

/// A BATCH of the native protocol.
pub fn plan_batch(
    kind: BatchKind,
    items: &[BatchItem<'_>],
    context: &PlanContext<'_>,
) -> Result<Plan, CqlError> {
    let mut statements = Vec::with_capacity(items.len());
    for item in items {
        let (PreparedKind::Modification(modification), None) = (&item.prepared.kind, item.prepared.explain())
        else {
            return Err(CqlError::invalid(
                "Invalid statement in batch: only UPDATE, INSERT and DELETE statements are allowed.",
            ));
        };
        if modification.table.is_virtual {
            return Err(virtual_in_batch());
        }
        statements.push((modification, check_values(item.prepared, item.values)?));
    }
    check_kinds(kind, statements.iter().map(|(modification, _)| &***modification))?;
    let write_kind = kind_of(kind, statements.iter().map(|(modification, _)| *modification));
    let mut builder = WriteBuilder::new(context, None);
    if statements
        .iter()
        .any(|(modification, _)| modification.is_conditional() || needs_read(modification))
    {
        let statements = statements
            .into_iter()
            .map(|(m, values)| (Arc::clone(m), values.into_owned()));
        return ConditionalWrite::plan(write_kind, statements.collect(), context, None);
    }
    for (modification, values) in &statements {
        builder.add(modification, values, None)?;
    }
    Ok(Plan::Write(builder.finish(write_kind)))
}

/// An unlogged batch of counter statements is a counter batch.
fn kind_of<'m>(
    kind: BatchKind,
    mut statements: impl Iterator<Item = &'m Arc<PreparedModification>>,
) -> WriteKind {
    match kind {
        BatchKind::Logged => WriteKind::LoggedBatch,
        BatchKind::Unlogged if statements.any(|statement| statement.is_counter()) => WriteKind::Counter,
        BatchKind::Unlogged => WriteKind::UnloggedBatch,
        BatchKind::Counter => WriteKind::Counter,
    }
}

/// Some operation depends on what the column holds.
pub(super) fn needs_read(modification: &PreparedModification) -> bool {
    modification
        .operations
        .iter()
        .any(|operation| operation.kind.needs_read())
}

/// A single INSERT, UPDATE or DELETE.
pub(super) fn plan_single(
    modification: &Arc<PreparedModification>,
    values: &[BoundValue],
    context: &PlanContext<'_>,
) -> Result<Plan, CqlError> {
    let kind = if modification.is_counter() {
        WriteKind::Counter
    } else {
        WriteKind::Simple
    };
    if modification.is_conditional() || needs_read(modification) {
        let statements = vec![(modification.clone(), values.to_vec())];
        return ConditionalWrite::plan(kind, statements, context, None);
    }
    let mut builder = WriteBuilder::new(context, None);
    builder.add(modification, values, None)?;
    Ok(Plan::Write(builder.finish(kind)))
}

/// A BATCH whose statements are text.
pub(super) fn plan_prepared_batch(
    batch: &PreparedBatch,
    values: &[BoundValue],
    context: &PlanContext<'_>,
) -> Result<Plan, CqlError> {
    let evaluation = Evaluation::new(values, context);
    let timestamp = batch.attributes.timestamp(&evaluation)?;
    let kind = kind_of(batch.kind, batch.statements.iter());
    if batch
        .statements
        .iter()
        .any(|m| m.is_conditional() || needs_read(m))
    {
        let statements = batch
            .statements
            .iter()
            .map(|m| (m.clone(), values.to_vec()))
            .collect();
        return ConditionalWrite::plan(kind, statements, context, timestamp);
    }
    let mut builder = WriteBuilder::new(context, timestamp);
    for statement in &batch.statements {
        builder.add(statement, values, None)?;
    }
    builder.timeout_nanos = batch.attributes.timeout_nanos(&evaluation)?;
    Ok(Plan::Write(builder.finish(kind)))
}

impl Attributes {
    /// USING TIMESTAMP; None: not given.
    fn timestamp(&self, evaluation: &Evaluation<'_>) -> Result<Option<Timestamp>, CqlError> {
        let Some(timestamp) = &self.timestamp else {
            return Ok(None);
        };
        let bytes = match timestamp.evaluate(evaluation)? {
            BoundValue::Unset => return Ok(None),
            BoundValue::Null => return Err(CqlError::invalid("Invalid null value of timestamp")),
            BoundValue::Bytes(bytes) => bytes,
        };
        let timestamp = bytes.as_ref().try_into().map(i64::from_be_bytes);
        match timestamp.map(Timestamp) {
            Ok(Timestamp::MIN) => Err(CqlError::Invalid(format!(
                "Out of bound timestamp, must be in [{}, {}]",
                i64::MIN + 1,
                i64::MAX
            ))),
            Ok(timestamp) => Ok(Some(timestamp)),
            Err(_) => Err(CqlError::invalid("Invalid timestamp value")),
        }
    }

    /// USING TTL in seconds; 0 is none at all. `default`: the table's.
    fn ttl(&self, evaluation: &Evaluation<'_>, default: u32) -> Result<Option<Ttl>, CqlError> {
        let ttl = match &self.ttl {
            None => default,
            Some(ttl) => match ttl.evaluate(evaluation)? {
                BoundValue::Unset => default,
                BoundValue::Null => 0,
                BoundValue::Bytes(bytes) => {
                    let ttl = bytes.as_ref().try_into().map(i32::from_be_bytes);
                    let ttl = ttl.map_err(|_| CqlError::invalid("Invalid TTL value"))?;
                    u32::try_from(ttl).map_err(|_| {
                        CqlError::Invalid(format!("A TTL must be greater or equal to 0, but was {ttl}"))
                    })?
                }
            },
        };
        if ttl > Ttl::MAX.0 {
            return Err(CqlError::Invalid(format!(
                "ttl is too large. requested ({ttl}) maximum ({})",
                Ttl::MAX.0
            )));
        }
        Ok((ttl > 0).then_some(Ttl(ttl)))
    }

    fn timeout_nanos(&self, evaluation: &Evaluation<'_>) -> Result<Option<i64>, CqlError> {
        match &self.timeout {
            Some(timeout) => super::select::evaluate_timeout(timeout, evaluation),
            None => Ok(None),
        }
    }
}

/// The rows of the partitions that a statement modifies, in wire values where present data matter.
pub(super) struct Located {
    pub(super) keys: Keys,
    pub(super) rows: LocatedRows,
    /// INSERT JSON: the value of every column.
    pub(super) json: Option<Vec<BoundValue>>,
}

/// See [`Located`].
#[derive(Clone, PartialEq, Debug)]
pub(super) enum LocatedRows {
    /// Only the static row.
    Static,
    /// The whole partition.
    Partition,
    /// Rows and ranges.
    Rows(SmallVec<[Rows; 1]>),
}

impl PreparedModification {
    /// When what it writes dies; None: never.
    fn expiry(&self, evaluation: &Evaluation<'_>) -> Result<Option<Expiry>, CqlError> {
        let default = self.table.options.default_time_to_live;
        let ttl = self.attributes.ttl(evaluation, default)?;
        let is_default = self.attributes.ttl.is_none();
        ttl.map(|ttl| expiration::expiry(evaluation.context, &self.table, ttl, is_default))
            .transpose()
    }

    /// Evaluates which rows are meant.
    pub(super) fn locate(&self, evaluation: &Evaluation<'_>) -> Result<Located, CqlError> {
        let located = |keys, rows| Located {
            keys,
            rows,
            json: None,
        };
        match &self.target {
            Target::Insert {
                partition,
                clustering,
            } => {
                let keys = self.insert_key(partition, evaluation)?;
                let rows = match clustering {
                    None => LocatedRows::Static,
                    Some(clustering) if clustering.is_empty() => self.row_of(&[])?,
                    Some(clustering) => {
                        let values = clustering.iter().zip(self.table.clustering());
                        let values: Result<Components, _> = values
                            .map(|(value, column)| present(value.evaluate(evaluation)?, &column.name))
                            .collect();
                        self.row_of(&values?)?
                    }
                };
                Ok(located(keys, rows))
            }
            Target::InsertJson(json) => {
                let values = json.values(&self.table, evaluation)?;
                let key_value = |column: &ceto_model::Column, index: usize| {
                    present(
                        values.get(index).cloned().unwrap_or(BoundValue::Null),
                        &column.name,
                    )
                };
                let columns = self.table.partition_key().iter().enumerate();
                let key: Result<Components, _> =
                    columns.map(|(index, column)| key_value(column, index)).collect();
                let first = self.table.partition_key().len();
                let columns = self.table.clustering().iter().enumerate();
                let row: Result<Components, _> = columns
                    .map(|(index, column)| key_value(column, first + index))
                    .collect();
                Ok(Located {
                    keys: SmallVec::from_buf([decorated_key(&key?)?]),
                    rows: self.row_of(&row?)?,
                    json: Some(values),
                })
            }
            Target::Update(restrictions) => {
                let keys = restrictions.partition.keys(evaluation)?;
                let rows = match restrictions.clustering.names_rows()
                    && !self.is_static_target(restrictions.clustering.is_empty())
                {
                    true => LocatedRows::Rows(restrictions.clustering.rows(evaluation)?),
                    false => LocatedRows::Static,
                };
                Ok(located(keys, rows))
            }
            Target::Delete(restrictions) => {
                let keys = restrictions.partition.keys(evaluation)?;
                let whole = restrictions.clustering.is_empty() && !self.names_rows_without_clustering();
                let rows = match (whole, self.is_only_static()) {
                    (_, true) if restrictions.clustering.is_empty() => LocatedRows::Static,
                    (true, _) => LocatedRows::Partition,
                    _ => LocatedRows::Rows(restrictions.clustering.rows(evaluation)?),
                };
                Ok(located(keys, rows))
            }
        }
    }

    /// Only static columns of a table with clustering columns are set, and no row is named.
    fn is_static_target(&self, no_clustering: bool) -> bool {
        self.is_only_static() && no_clustering && !self.table.clustering().is_empty()
    }

    /// DELETE of columns in a table without clustering columns: the row, not the partition.
    fn names_rows_without_clustering(&self) -> bool {
        self.table.clustering().is_empty() && !self.operations.is_empty()
    }

    fn insert_key(&self, partition: &[Expression], evaluation: &Evaluation<'_>) -> Result<Keys, CqlError> {
        if let ([value], [column]) = (partition, self.table.partition_key()) {
            let component = present(value.evaluate(evaluation)?, &column.name)?;
            return Ok(SmallVec::from_buf([decorated_key_of_one(component)?]));
        }
        let values = partition.iter().zip(self.table.partition_key());
        let values: Result<Components, _> = values
            .map(|(value, column)| present(value.evaluate(evaluation)?, &column.name))
            .collect();
        Ok(SmallVec::from_buf([decorated_key(&values?)?]))
    }

    fn row_of(&self, values: &[Bytes]) -> Result<LocatedRows, CqlError> {
        let size = values.iter().map(Bytes::len).sum();
        if size > KEY_SIZE_MAX {
            return Err(key_too_long(size));
        }
        let key = match values {
            [] => row_key(&[KEY_END]),
            // A dense table's row, with columns left out at the end.
            values if values.len() < self.table.clustering().len() => {
                let prefix = encode_prefix(self.table.clustering_types(), values).map_err(of_value)?;
                row_key(&[&prefix[..], &[KEY_END]].concat())
            }
            values => {
                let encoded = encode_clustering(self.table.clustering_types(), values);
                ClusteringKey(encoded.map_err(of_value)?)
            }
        };
        Ok(LocatedRows::Rows(SmallVec::from_buf([Rows::Row(key)])))
    }

    /// INSERT, which says that the row is there. With COMPACT STORAGE its columns say so, if there are any.
    fn writes_liveness(&self) -> bool {
        matches!(self.target, Target::Insert { .. } | Target::InsertJson(_))
            && (!self.table.is_compact || self.table.regulars().is_empty())
    }
}

/// The present content of the rows that operations on list positions look at.
pub(super) trait PresentRows {
    /// The cells of a list column.
    fn list(&self, key: &DecoratedKey, row: Option<&ClusteringKey>, column: ColumnId) -> Option<&Collection>;
}

/// Gathers the mutations of one plan.
pub(super) struct WriteBuilder<'c, 'a> {
    context: &'c PlanContext<'a>,
    /// Of the batch.
    timestamp: Option<Timestamp>,
    mutations: SmallVec<[Mutation; 1]>,
    counters: Vec<CounterUpdate>,
    pub(super) timeout_nanos: Option<i64>,
}

impl<'c, 'a> WriteBuilder<'c, 'a> {
    pub(super) fn new(context: &'c PlanContext<'a>, timestamp: Option<Timestamp>) -> Self {
        Self {
            context,
            timestamp,
            mutations: SmallVec::new(),
            counters: Vec::new(),
            timeout_nanos: None,
        }
    }

    pub(super) fn finish(self, kind: WriteKind) -> WritePlan {
        let mutations = match self.mutations.len() {
            0 | 1 => self.mutations,
            _ => one_per_partition(self.mutations),
        };
        WritePlan {
            kind,
            mutations,
            counters: one_update_per_partition(self.counters),
            timeout_nanos: self.timeout_nanos,
        }
    }

    /// Adds one statement. `present_rows`: what operations on list positions need.
    pub(super) fn add(
        &mut self,
        modification: &PreparedModification,
        values: &[BoundValue],
        present_rows: Option<&dyn PresentRows>,
    ) -> Result<(), CqlError> {
        let evaluation = Evaluation::new(values, self.context);
        let located = modification.locate(&evaluation)?;
        let own = modification.attributes.timestamp(&evaluation)?.or(self.timestamp);
        let parameters = Parameters {
            timestamp: own.unwrap_or_else(|| self.context.write_timestamp()),
            expiry: modification.expiry(&evaluation)?,
            now: self.context.now_seconds,
        };
        if let Some(timeout) = modification.attributes.timeout_nanos(&evaluation)? {
            self.timeout_nanos = Some(timeout);
        }
        if modification.is_counter() && matches!(modification.target, Target::Update(_)) {
            return self.add_counters(modification, &located, &evaluation);
        }
        for key in &located.keys {
            self.add_partition(
                modification,
                key,
                &located,
                &parameters,
                &evaluation,
                present_rows,
            )?;
        }
        Ok(())
    }

    fn add_partition(
        &mut self,
        modification: &PreparedModification,
        key: &DecoratedKey,
        located: &Located,
        parameters: &Parameters,
        evaluation: &Evaluation<'_>,
        present_rows: Option<&dyn PresentRows>,
    ) -> Result<(), CqlError> {
        let mut mutation = Mutation::new(modification.table.id, key.clone());
        let partition = &mut mutation.partition;
        let is_delete =
            matches!(modification.target, Target::Delete(_)) && modification.operations.is_empty();
        let target = |row| RowTarget {
            key,
            row,
            parameters,
            evaluation,
            present_rows,
        };
        match &located.rows {
            LocatedRows::Partition => partition.deletion = Some(parameters.deletion()),
            LocatedRows::Static => {
                target(None).fill(modification, located, &mut partition.static_row)?;
            }
            LocatedRows::Rows(rows) => {
                for row in rows {
                    match row {
                        Rows::Slice(slice) => partition.delete_range(RangeTombstone {
                            slice: slice.clone(),
                            deletion: parameters.deletion(),
                        }),
                        Rows::Row(clustering) => {
                            check_compact_row(&modification.table, clustering)?;
                            let mut content = Row::default();
                            if is_delete {
                                content.deletion = Some(parameters.deletion());
                            } else {
                                target(Some(clustering)).fill(modification, located, &mut content)?;
                            }
                            if modification.writes_liveness() {
                                content.liveness = Some(Liveness {
                                    timestamp: parameters.timestamp,
                                    expiry: parameters.expiry,
                                });
                            }
                            if !content.is_empty() {
                                partition.rows.push((clustering.clone(), content));
                            }
                        }
                    }
                }
                if modification.table.has_statics() && !is_delete {
                    target(None).fill(modification, located, &mut partition.static_row)?;
                }
            }
        }
        check_indexed_values(&modification.table, &mutation)?;
        self.push(mutation);
        Ok(())
    }

    fn push(&mut self, mutation: Mutation) {
        if !mutation.partition.is_empty() {
            self.mutations.push(mutation);
        }
    }

    fn add_counters(
        &mut self,
        modification: &PreparedModification,
        located: &Located,
        evaluation: &Evaluation<'_>,
    ) -> Result<(), CqlError> {
        let mut statics = RowIncrements::new();
        let mut regular = RowIncrements::new();
        for operation in &modification.operations {
            let OperationKind::Count { delta, negative } = &operation.kind else {
                return Err(CqlError::invalid(
                    "Counter columns can only be incremented or decremented",
                ));
            };
            let delta = match delta.evaluate(evaluation)? {
                BoundValue::Unset => continue,
                BoundValue::Null => {
                    return Err(CqlError::invalid("Invalid null value for counter increment"));
                }
                BoundValue::Bytes(bytes) => bytes.as_ref().try_into().map(i64::from_be_bytes),
            };
            let delta = delta.map_err(|_| CqlError::invalid("Invalid empty value for counter increment"))?;
            if *negative && delta == i64::MIN {
                return Err(CqlError::Invalid(format!(
                    "The negation of {delta} overflows supported counter precision (signed 8 bytes integer)"
                )));
            }
            let delta = if *negative { -delta } else { delta };
            let increments = if operation.is_static {
                &mut statics
            } else {
                &mut regular
            };
            add_increment(increments, operation.column, delta);
        }
        let regular = match &located.rows {
            LocatedRows::Rows(rows) => rows.as_slice(),
            _ => &[],
        }
        .iter()
        .filter_map(|row| match row {
            Rows::Row(clustering) => Some((clustering.clone(), regular.clone())),
            Rows::Slice(_) => None,
        });
        let rows: Vec<_> = regular.collect();
        self.counters.extend(located.keys.iter().map(|key| CounterUpdate {
            table: modification.table.id,
            key: key.clone(),
            statics: statics.clone(),
            rows: rows.clone(),
        }));
        Ok(())
    }
}

/// One mutation per partition. Neighbours are merged in rounds, so that many statements on one partition cost n log n,
/// whatever the order of their rows.
fn one_per_partition(mut mutations: SmallVec<[Mutation; 1]>) -> SmallVec<[Mutation; 1]> {
    mutations.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    loop {
        let before = mutations.len();
        let mut merged = SmallVec::with_capacity(before);
        let mut rest = mutations.into_iter().peekable();
        while let Some(mut mutation) = rest.next() {
            if let Some(other) = rest.next_if(|next| next.table == mutation.table && next.key == mutation.key)
            {
                mutation.merge(other);
            }
            merged.push(mutation);
        }
        if merged.len() == before {
            return merged;
        }
        mutations = merged;
    }
}

/// One update per partition, in which each row stands once.
fn one_update_per_partition(mut updates: Vec<CounterUpdate>) -> Vec<CounterUpdate> {
    updates.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    updates.dedup_by(|next, kept| {
        let is_same = next.table == kept.table && next.key == kept.key;
        if is_same {
            add_increments(&mut kept.statics, &next.statics);
            kept.rows.append(&mut next.rows);
        }
        is_same
    });
    for update in &mut updates {
        update.rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        update.rows.dedup_by(|(next, increments), (kept, sums)| {
            let is_same = next == kept;
            if is_same {
                add_increments(sums, increments);
            }
            is_same
        });
    }
    updates
}

fn add_increments(sums: &mut RowIncrements, increments: &RowIncrements) {
    for (column, delta) in increments {
        add_increment(sums, *column, *delta);
    }
}

/// The only clustering column of a dense table cannot be empty.
fn check_compact_row(table: &Table, clustering: &ClusteringKey) -> Result<(), CqlError> {
    /// An empty component is one byte, and another ends the key.
    const EMPTY_KEY_LENGTH: usize = 2;
    match table.clustering() {
        [only] if table.is_compact && clustering.0.len() == EMPTY_KEY_LENGTH => Err(CqlError::Invalid(
            format!("Invalid empty or null value for column {}", only.name),
        )),
        _ => Ok(()),
    }
}

fn add_increment(increments: &mut RowIncrements, column: ColumnId, delta: i64) {
    match increments.iter_mut().find(|(own, _)| *own == column) {
        Some((_, sum)) => *sum = sum.wrapping_add(delta),
        None => increments.push((column, delta)),
    }
}

#[cfg(test)]
mod tests {
    use ceto_model::{Cell, ColumnData, PartitionKey};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn key(number: u8) -> DecoratedKey {
        DecoratedKey::new(PartitionKey(vec![number].into()))
    }

    fn mutation(partition: u8, row: u8, timestamp: i64) -> Mutation {
        let mut mutation = Mutation::new(TableId(Uuid::nil()), key(partition));
        let cell = Cell::live(Timestamp(timestamp), Bytes::from(vec![row]));
        let content = mutation
            .partition
            .row_mut(ClusteringKey(vec![0x40, row, 0x38].into()));
        content.merge_column(ColumnId(1), ColumnData::Cell(cell));
        mutation
    }

    proptest! {
        #[test]
        fn statements_on_one_partition_become_one_mutation(
            parts in proptest::collection::vec((0u8..4, 0u8..20, 0i64..5), 0..60),
        ) {
            let all = parts.iter().map(|(partition, row, time)| mutation(*partition, *row, *time));
            let mut expected: Vec<Mutation> = Vec::new();
            for mutation in all.clone() {
                match expected.iter_mut().find(|own| own.key == mutation.key) {
                    Some(own) => own.merge(mutation),
                    None => expected.push(mutation),
                }
            }
            expected.sort_by(|a, b| a.key.cmp(&b.key));
            prop_assert_eq!(one_per_partition(all.collect()).to_vec(), expected);
        }

        #[test]
        fn increments_of_one_counter_become_their_sum(
            parts in proptest::collection::vec((0u8..3, 0u8..5, -9i64..9), 0..40),
        ) {
            let updates = parts.iter().map(|(partition, row, delta)| CounterUpdate {
                table: TableId(Uuid::nil()),
                key: key(*partition),
                statics: vec![(ColumnId(0), *delta)],
                rows: vec![(ClusteringKey(vec![*row].into()), vec![(ColumnId(1), *delta)])],
            });
            let merged = one_update_per_partition(updates.collect());
            for partition in 0..3 {
                let of = |row: Option<u8>| -> i64 {
                    let wanted = parts.iter().filter(|p| p.0 == partition && row.is_none_or(|row| p.1 == row));
                    wanted.map(|p| p.2).sum()
                };
                let Some(update) = merged.iter().find(|update| update.key == key(partition)) else {
                    prop_assert!(parts.iter().all(|part| part.0 != partition));
                    continue;
                };
                prop_assert_eq!(&update.statics, &vec![(ColumnId(0), of(None))]);
                prop_assert!(update.rows.is_sorted_by(|a, b| a.0 < b.0));
                for (row, increments) in &update.rows {
                    prop_assert_eq!(increments, &vec![(ColumnId(1), of(row.0.first().copied()))]);
                }
            }
            prop_assert!(merged.is_sorted_by(|a, b| a.key < b.key));
        }
    }
}
