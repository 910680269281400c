//! Writes that depend on what is there: IF, and operations on list positions.
//!
//! The node reads [`ConditionalWrite::reads`], with the partition locked against other conditional writes, and gives the
//! answers to [`ConditionalWrite::decide`]: that says what to write, and what to tell the client.
//!
//! All conditions of a batch are tested against the same state: before any of its statements.

use super::row_view::{KeyBuffers, RowView, collection_value};
use super::write::{Located, LocatedRows, PresentRows, WriteBuilder, WriteKind, WritePlan};
use super::{Plan, PlanContext};
use crate::ast::Operator;
use crate::expression::{Evaluation, Expression, RowSource, element_of, field_of, of_value};
use crate::prepare::modification::{
    ConditionPart, ConditionValue, PreparedColumnCondition, PreparedCondition, PreparedModification,
};
use crate::restrictions::InValues;
use crate::restrictions::clustering::{Rows, row_key};
use crate::{BoundValue, ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::comparable::KEY_END;
use ceto_model::read::{ColumnSelection, ReadLimits, ReadTarget, Slices};
use ceto_model::value::compare;
use ceto_model::value::wire::Elements;
use ceto_model::{
    ClusteringKey, Collection, ColumnData, ColumnId, ColumnKind, CqlType, DecoratedKey, Partition,
    ReadCommand, ReadResult, Row, Slice, Table, TableId, Timestamp, UnixSeconds,
};
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Name of the result column that says whether the conditions held.
const APPLIED: &str = "[applied]";

/// A write that first reads.
#[derive(Debug)]
pub struct ConditionalWrite {
    kind: WriteKind,
    statements: Vec<(Arc<PreparedModification>, Vec<BoundValue>)>,
    timestamp: Option<Timestamp>,
    reads: Vec<ReadCommand>,
    is_conditional: bool,
    is_batch: bool,
    /// The last read is the first row of the partition: what a rejected batch shows whose conditions are all static.
    shows_first_row: bool,
}

/// What a [`ConditionalWrite`] comes to.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// To be applied; None: the conditions do not hold.
    pub write: Option<WritePlan>,
    /// Columns of the answer; none: answer Void.
    pub columns: Vec<ColumnSpecification>,
    /// Rows of the answer.
    pub rows: Vec<Vec<Option<Bytes>>>,
}

impl ConditionalWrite {
    pub(super) fn plan(
        kind: WriteKind,
        statements: Vec<(Arc<PreparedModification>, Vec<BoundValue>)>,
        context: &PlanContext<'_>,
        timestamp: Option<Timestamp>,
    ) -> Result<Plan, CqlError> {
        let is_conditional = statements.iter().any(|(statement, _)| statement.is_conditional());
        let mut reads: Vec<ReadCommand> = Vec::new();
        for (statement, values) in &statements {
            let located = statement.locate(&Evaluation::new(values, context))?;
            for key in &located.keys {
                let slices = slices_of(statement, &located.rows);
                let target = ReadTarget::Partition(key.clone());
                match reads
                    .iter_mut()
                    .find(|r| r.table == statement.table.id && r.target == target)
                {
                    Some(read) => read.slices.extend(slices),
                    None => reads.push(read_of(&statement.table, target, slices, context)),
                }
            }
        }
        if is_conditional && reads.len() > 1 {
            return Err(CqlError::invalid(
                "Batch with conditions cannot span multiple partitions",
            ));
        }
        let rows_of_conditions = check_conditions(&statements, context)?;
        let is_batch = kind != WriteKind::Simple;
        let shows_first_row = is_conditional && is_batch && rows_of_conditions.iter().all(Option::is_none);
        for read in &mut reads {
            read.slices.sort_by(|a, b| a.start.cmp(&b.start));
            read.slices.dedup();
        }
        if let (true, Some(first)) = (shows_first_row, reads.first().cloned()) {
            reads.push(ReadCommand {
                slices: Slices::from_iter([Slice::full()]),
                limits: ReadLimits {
                    rows: 1,
                    ..ReadLimits::NONE
                },
                ..first
            });
        }
        Ok(Plan::Conditional(Box::new(Self {
            kind,
            is_batch,
            shows_first_row,
            statements,
            timestamp,
            reads,
            is_conditional,
        })))
    }

    /// What to read: each from one partition, all of them to be locked until the write is applied.
    pub fn reads(&self) -> &[ReadCommand] {
        &self.reads
    }

    /// Has IF; else only positions of list elements are asked for, and the answer is Void.
    pub fn is_conditional(&self) -> bool {
        self.is_conditional
    }

    /// Decides, given the answers to [`Self::reads`] in their order.
    pub fn decide(&self, results: &[ReadResult], context: &PlanContext<'_>) -> Result<Outcome, CqlError> {
        let state = State {
            reads: &self.reads,
            results,
            now: context.now_seconds,
        };
        if self.is_conditional {
            for (statement, values) in &self.statements {
                let evaluation = Evaluation::new(values, context);
                if !state.holds(statement, &evaluation)? {
                    return self.rejected(&state, context);
                }
            }
        }
        // Conditional writes are ordered by the node, so the client's clock does not count.
        let timestamp = match self.is_conditional {
            true => Some(Timestamp(context.now_micros)),
            false => self.timestamp,
        };
        let mut builder = WriteBuilder::new(context, timestamp);
        for (statement, values) in &self.statements {
            builder.add(statement, values, Some(&state))?;
        }
        let (columns, rows) = match (self.is_conditional, self.statements.first()) {
            (true, Some((statement, _))) => (
                vec![applied_column(&statement.table)],
                vec![vec![Some(Bytes::from_static(&[1]))]],
            ),
            _ => (Vec::new(), Vec::new()),
        };
        Ok(Outcome {
            write: Some(builder.finish(self.kind)),
            columns,
            rows,
        })
    }

    /// The answer that shows why the conditions did not hold.
    fn rejected(&self, state: &State<'_>, context: &PlanContext<'_>) -> Result<Outcome, CqlError> {
        let Some((first, _)) = self.statements.first() else {
            return Err(CqlError::invalid("a conditional write without statements"));
        };
        let table = &first.table;
        let shown = self.shown_columns(table);
        let mut key = None;
        let mut clusterings: BTreeSet<ClusteringKey> = BTreeSet::new();
        for (statement, values) in &self.statements {
            if statement.is_conditional() {
                let located = statement.locate(&Evaluation::new(values, context))?;
                clusterings.extend(condition_row(statement, &located));
                key = key.or_else(|| located.keys.into_iter().next());
            }
        }
        if self.shows_first_row {
            clusterings = state.first_row_of_last_read().into_iter().collect();
        }
        let mut rows: Vec<Vec<Option<Bytes>>> = Vec::new();
        for place in key.iter().flat_map(|key| state.places(table, key, &clusterings)) {
            // A partition with nothing but static content is worth a row where a statement is about that.
            if place.row.is_some() || self.is_about_static_columns(table) {
                rows.push(place.show(table, &shown, state.now)?);
            }
        }
        let mut columns = vec![applied_column(table)];
        if rows.is_empty() {
            rows.push(vec![Some(Bytes::from_static(&[0]))]);
        } else {
            let shown = shown.iter().filter_map(|index| table.columns().get(*index));
            columns.extend(shown.map(|column| ColumnSpecification::of_column(table, column)));
        }
        Ok(Outcome {
            write: None,
            columns,
            rows,
        })
    }

    /// Columns beside [`APPLIED`] of a rejected write: a batch's rows are told apart by their keys; conditions follow in
    /// the order in which they were written, in each statement those of static columns last.
    fn shown_columns(&self, table: &Table) -> Vec<usize> {
        let mut shown = IndexSet::<usize, FxBuildHasher>::default();
        if self.is_batch {
            shown.extend(0..table.partition_key().len() + table.clustering().len());
        }
        for (statement, _) in &self.statements {
            match &statement.condition {
                PreparedCondition::None => {}
                PreparedCondition::Exists | PreparedCondition::NotExists => {
                    return (0..table.columns().len()).collect();
                }
                PreparedCondition::Columns(conditions) => {
                    let (statics, others): (Vec<usize>, Vec<usize>) = conditions
                        .iter()
                        .map(|condition| condition.column)
                        .partition(|column| is_static(table, *column));
                    shown.extend(others.into_iter().chain(statics));
                }
            }
        }
        shown.into_iter().collect()
    }

    /// A statement writes static columns or has conditions of them.
    fn is_about_static_columns(&self, table: &Table) -> bool {
        self.statements.iter().any(|(statement, _)| {
            let conditions = match &statement.condition {
                PreparedCondition::Columns(conditions) => conditions.as_slice(),
                _ => &[],
            };
            statement.writes_static_columns() || conditions.iter().any(|own| is_static(table, own.column))
        })
    }
}

fn is_static(table: &Table, column: usize) -> bool {
    let column = table.columns().get(column);
    column.is_some_and(|column| column.kind == ColumnKind::Static)
}

/// The row of each condition (None: the static row). One row cannot be wanted both there and not there.
fn check_conditions(
    statements: &[(Arc<PreparedModification>, Vec<BoundValue>)],
    context: &PlanContext<'_>,
) -> Result<Vec<Option<ClusteringKey>>, CqlError> {
    let mut rows = Vec::new();
    let mut conditions: Vec<&PreparedCondition> = Vec::new();
    for (statement, values) in statements {
        let condition = &statement.condition;
        if !statement.is_conditional() {
            continue;
        }
        let row = condition_row(statement, &statement.locate(&Evaluation::new(values, context))?);
        let others = rows.iter().zip(&conditions).filter(|(own, _)| **own == row);
        for (_, other) in others {
            let message = match (*other, condition) {
                (PreparedCondition::Exists, PreparedCondition::NotExists)
                | (PreparedCondition::NotExists, PreparedCondition::Exists) => {
                    "Cannot mix IF EXISTS and IF NOT EXISTS conditions for the same row"
                }
                (PreparedCondition::Columns(_), PreparedCondition::Exists) => {
                    "Cannot mix IF conditions and IF EXISTS for the same row"
                }
                (PreparedCondition::Columns(_), PreparedCondition::NotExists)
                | (PreparedCondition::Exists | PreparedCondition::NotExists, PreparedCondition::Columns(_)) => {
                    "Cannot mix IF conditions and IF NOT EXISTS for the same row"
                }
                _ => continue,
            };
            return Err(CqlError::invalid(message));
        }
        rows.push(row);
        conditions.push(condition);
    }
    Ok(rows)
}

fn applied_column(table: &Table) -> ColumnSpecification {
    ColumnSpecification::new(table, APPLIED, CqlType::Boolean)
}

fn read_of(table: &Table, target: ReadTarget, slices: Slices, context: &PlanContext<'_>) -> ReadCommand {
    ReadCommand {
        table: table.id,
        target,
        slices,
        first_partition_slices: None,
        reversed: false,
        columns: ColumnSelection::All,
        now: context.now_seconds,
        limits: ReadLimits::NONE,
        keep_tombstones: false,
        bypass_cache: false,
        index: None,
    }
}

fn slices_of(statement: &PreparedModification, rows: &LocatedRows) -> Slices {
    match rows {
        LocatedRows::Rows(rows) => rows
            .iter()
            .map(|row| match row {
                Rows::Slice(slice) => slice.clone(),
                Rows::Row(key) => Slice::of_row(key),
            })
            .collect(),
        LocatedRows::Partition => only_row(&statement.table).iter().map(Slice::of_row).collect(),
        LocatedRows::Static => Slices::new(),
    }
}

/// The row of a partition that cannot have more than one.
fn only_row(table: &Table) -> Option<ClusteringKey> {
    table.clustering().is_empty().then(|| row_key(&[KEY_END]))
}

/// The one row that a conditional statement is about; None: the static row.
fn row_of(statement: &PreparedModification, located: &Located) -> Option<ClusteringKey> {
    match &located.rows {
        LocatedRows::Rows(rows) => rows.iter().find_map(|row| match row {
            Rows::Row(key) => Some(key.clone()),
            Rows::Slice(_) => None,
        }),
        LocatedRows::Partition => only_row(&statement.table),
        LocatedRows::Static => None,
    }
}

/// The row that a statement's condition is about; None: the static row.
fn condition_row(statement: &PreparedModification, located: &Located) -> Option<ClusteringKey> {
    if let PreparedCondition::Columns(conditions) = &statement.condition
        && conditions
            .iter()
            .all(|own| is_static(&statement.table, own.column))
    {
        return None;
    }
    row_of(statement, located)
}

/// What was read.
struct State<'a> {
    reads: &'a [ReadCommand],
    results: &'a [ReadResult],
    now: UnixSeconds,
}

impl PresentRows for State<'_> {
    fn list(&self, key: &DecoratedKey, row: Option<&ClusteringKey>, column: ColumnId) -> Option<&Collection> {
        // Keys of different tables never meet in one statement's look-up: the column id is of the statement's table.
        let partition = self
            .results
            .iter()
            .flat_map(|result| &result.partitions)
            .find(|p| p.key == *key)?;
        let row = match row {
            Some(row) => find_row(&partition.partition, row)?,
            None => &partition.partition.static_row,
        };
        match row.column(column)? {
            ColumnData::Collection(collection) => Some(collection),
            ColumnData::Cell(_) => None,
        }
    }
}

fn find_row<'p>(partition: &'p Partition, key: &ClusteringKey) -> Option<&'p Row> {
    let at = partition.rows.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
    partition.rows.get(at).map(|(_, row)| row)
}

impl State<'_> {
    /// What the reads say of one partition.
    fn partitions(&self, table: TableId, key: &DecoratedKey) -> impl Iterator<Item = &Partition> {
        let of_table = self.reads.iter().zip(self.results);
        of_table
            .filter(move |(read, _)| read.table == table)
            .flat_map(|(_, result)| &result.partitions)
            .filter(move |partition| partition.key == *key)
            .map(|partition| &partition.partition)
    }

    fn partition(&self, table: TableId, key: &DecoratedKey) -> Option<&Partition> {
        self.partitions(table, key).next()
    }

    fn first_row_of_last_read(&self) -> Option<ClusteringKey> {
        let partition = self.results.last()?.partitions.first()?;
        partition.partition.rows.first().map(|(row, _)| row.clone())
    }

    fn holds(&self, statement: &PreparedModification, evaluation: &Evaluation<'_>) -> Result<bool, CqlError> {
        let located = statement.locate(evaluation)?;
        let clustering = row_of(statement, &located);
        let partition = located
            .keys
            .first()
            .and_then(|key| self.partition(statement.table.id, key));
        let row = match (&clustering, partition) {
            (Some(clustering), Some(partition)) => find_row(partition, clustering),
            (None, Some(partition)) => Some(&partition.static_row).filter(|row| !row.is_empty()),
            (_, None) => None,
        };
        match &statement.condition {
            PreparedCondition::None => Ok(true),
            PreparedCondition::Exists => Ok(row.is_some()),
            PreparedCondition::NotExists => Ok(row.is_none()),
            PreparedCondition::Columns(conditions) => {
                for condition in conditions {
                    let column = statement.table.columns().get(condition.column);
                    let is_static = column.is_some_and(|column| column.kind == ColumnKind::Static);
                    let row = if is_static {
                        partition.map(|partition| &partition.static_row)
                    } else {
                        row
                    };
                    let data = column.and_then(|column| row?.column(column.id));
                    let whole_type = column.map_or(&CqlType::Empty, |column| &column.cql_type);
                    if !self.column_holds(condition, whole_type, data, evaluation)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    fn column_holds(
        &self,
        condition: &PreparedColumnCondition,
        whole_type: &CqlType,
        data: Option<&ColumnData>,
        evaluation: &Evaluation<'_>,
    ) -> Result<bool, CqlError> {
        let whole = match data {
            None => None,
            Some(ColumnData::Cell(cell)) => cell.value(self.now),
            Some(ColumnData::Collection(collection)) => {
                collection_value(whole_type, collection, self.now)?.map(Bytes::from)
            }
        };
        let own = match (&condition.part, whole) {
            (_, None) => None,
            (ConditionPart::Whole, whole) => whole,
            (ConditionPart::Field(index), Some(whole)) => field_of(&whole, *index)?,
            (ConditionPart::Element(key), Some(whole)) => match wanted(key, evaluation)? {
                Some(key) => element_of(whole_type, &whole, &key)?,
                None => {
                    return Err(CqlError::invalid("Invalid null value for element access"));
                }
            },
        };
        match &condition.value {
            ConditionValue::One(value) => {
                let is_contains = matches!(condition.operator, Operator::Contains | Operator::ContainsKey);
                let wanted = match is_contains && value.evaluate(evaluation)?.is_unset() {
                    true => return Ok(false),
                    false => wanted(value, evaluation)?,
                };
                test(condition.operator, &condition.cql_type, own, wanted)
            }
            ConditionValue::Many(InValues::List(values)) => {
                for value in values {
                    let wanted = match value.evaluate(evaluation)? {
                        BoundValue::Unset => continue,
                        given => given.bytes().cloned(),
                    };
                    if test(Operator::Equal, &condition.cql_type, own.clone(), wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            ConditionValue::Many(InValues::Bound { list, element }) => {
                let Some(wire) = wanted(list, evaluation)? else {
                    return Err(CqlError::invalid("Invalid null list in IN condition"));
                };
                let list_type = CqlType::List {
                    element: Arc::new(element.clone()),
                    frozen: false,
                };
                for value in Elements::new(&list_type, &wire).map_err(of_value)? {
                    let wanted = Some(wire.slice_ref(value.map_err(of_value)?));
                    if test(Operator::Equal, &condition.cql_type, own.clone(), wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// The rows of these keys that are there; if none is, the static row if it is there.
    fn places<'s>(
        &'s self,
        table: &Table,
        key: &'s DecoratedKey,
        clusterings: &'s BTreeSet<ClusteringKey>,
    ) -> Vec<Place<'s>> {
        let Some(partition) = self.partition(table.id, key) else {
            return Vec::new();
        };
        let place = |row| Place {
            key,
            static_row: &partition.static_row,
            row,
        };
        let find = |clustering| {
            let mut partitions = self.partitions(table.id, key);
            let row = partitions.find_map(|partition| find_row(partition, clustering))?;
            Some((clustering, row))
        };
        let rows: Vec<_> = clusterings
            .iter()
            .filter_map(find)
            .map(|row| place(Some(row)))
            .collect();
        match rows.is_empty() && !partition.static_row.is_empty() {
            true => vec![place(None)],
            false => rows,
        }
    }
}

/// A row that a rejected write shows.
struct Place<'a> {
    key: &'a DecoratedKey,
    static_row: &'a Row,
    row: Option<(&'a ClusteringKey, &'a Row)>,
}

impl Place<'_> {
    /// A row of the answer: not applied, and these columns.
    fn show(&self, table: &Table, shown: &[usize], now: UnixSeconds) -> Result<Vec<Option<Bytes>>, CqlError> {
        let mut keys = KeyBuffers::default();
        keys.set_partition(table, self.key)?;
        keys.set_clustering(table, self.row.map(|(clustering, _)| clustering))?;
        let view = RowView {
            table,
            keys: &keys,
            static_row: self.static_row,
            row: self.row.map(|(_, row)| row),
            now,
        };
        let values = shown.iter().map(|index| view.value(*index));
        std::iter::once(Ok(Some(Bytes::from_static(&[0]))))
            .chain(values)
            .collect()
    }
}

fn wanted(value: &Expression, evaluation: &Evaluation<'_>) -> Result<Option<Bytes>, CqlError> {
    match value.evaluate(evaluation)? {
        BoundValue::Bytes(bytes) => Ok(Some(bytes)),
        BoundValue::Null => Ok(None),
        BoundValue::Unset => Err(CqlError::invalid("Invalid 'unset' value in condition")),
    }
}

/// `own operator wanted`, both maybe null.
fn test(
    operator: Operator,
    cql_type: &CqlType,
    own: Option<Bytes>,
    wanted: Option<Bytes>,
) -> Result<bool, CqlError> {
    if let Operator::Contains | Operator::ContainsKey = operator {
        let Some(wanted) = wanted else {
            return Err(compared_with_null(operator));
        };
        return own.map_or(Ok(false), |own| contains(operator, cql_type, &own, &wanted));
    }
    // A collection that is not frozen and has no elements is null, and compares as one without elements.
    let is_multicell = cql_type.is_multicell() && cql_type.is_collection();
    let own = match own {
        None if is_multicell && wanted.is_some() => Some(Bytes::from_static(&[0; 4])),
        own => own,
    };
    let order = match (own, wanted) {
        (own, None) => {
            return match operator {
                Operator::Equal => Ok(own.is_none()),
                Operator::NotEqual => Ok(own.is_some()),
                _ => Err(compared_with_null(operator)),
            };
        }
        (None, Some(_)) => return Ok(operator == Operator::NotEqual),
        (Some(own), Some(wanted)) => compare(cql_type, &own, &wanted),
    };
    Ok(match operator {
        Operator::Equal => order == Ordering::Equal,
        Operator::NotEqual => order != Ordering::Equal,
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        other => {
            return Err(CqlError::Invalid(format!(
                "{} is not supported in IF conditions",
                other.symbol()
            )));
        }
    })
}

fn compared_with_null(operator: Operator) -> CqlError {
    CqlError::Invalid(format!(
        "Invalid comparison with null for operator \"{}\"",
        operator.symbol()
    ))
}

fn contains(operator: Operator, cql_type: &CqlType, own: &Bytes, wanted: &[u8]) -> Result<bool, CqlError> {
    let (element, skip, step) = match (cql_type, operator) {
        (CqlType::Map { key, .. }, Operator::ContainsKey) => (key, 0, 2),
        (CqlType::Map { value, .. }, _) => (value, 1, 2),
        (CqlType::List { element, .. } | CqlType::Set { element, .. }, _) => (element, 0, 1),
        _ => return Ok(false),
    };
    for value in Elements::new(cql_type, own)
        .map_err(of_value)?
        .skip(skip)
        .step_by(step)
    {
        if compare(element, value.map_err(of_value)?, wanted).is_eq() {
            return Ok(true);
        }
    }
    Ok(false)
}
