//! INSERT, UPDATE and DELETE: which rows, and what happens to which columns of them.

use super::Preparation;
use super::assignment::{ColumnOperation, OperationKind};
use super::insert_json::InsertJson;
use crate::ast::{
    ColumnCondition, ColumnPart, Condition, Delete, Insert, InsertContent, Modification, Name, Operand,
    Operator, Update, Using,
};
use crate::expression::{Expression, find_field, key_and_value, prepare_term, undefined_column};
use crate::restrictions::{InValues, Restrictions, StatementKind};
use crate::{ColumnSpecification, CqlError};
use ceto_model::{Column, ColumnKind, CqlType, Table};
use std::sync::Arc;

/// A prepared INSERT, UPDATE or DELETE.
#[derive(Clone, Debug)]
pub(crate) struct PreparedModification {
    pub(crate) table: Arc<Table>,
    pub(crate) target: Target,
    pub(crate) operations: Vec<ColumnOperation>,
    pub(crate) attributes: Attributes,
    pub(crate) condition: PreparedCondition,
}

/// Which rows are modified.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// INSERT: the key's columns. No clustering columns: only the static row.
    Insert {
        partition: Vec<Expression>,
        clustering: Option<Vec<Expression>>,
    },
    /// INSERT JSON
    InsertJson(InsertJson),
    /// UPDATE
    Update(Restrictions),
    /// DELETE
    Delete(Restrictions),
}

/// USING
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) timestamp: Option<Expression>,
    pub(crate) ttl: Option<Expression>,
    pub(crate) timeout: Option<Expression>,
}

/// IF
#[derive(Clone, Debug)]
pub(crate) enum PreparedCondition {
    None,
    NotExists,
    Exists,
    Columns(Vec<PreparedColumnCondition>),
}

/// `column[part] operator value`
#[derive(Clone, Debug)]
pub(crate) struct PreparedColumnCondition {
    /// Index in the table's columns.
    pub(crate) column: usize,
    pub(crate) part: ConditionPart,
    /// Type of what is compared.
    pub(crate) cql_type: CqlType,
    pub(crate) operator: Operator,
    pub(crate) value: ConditionValue,
}

/// The part of a column that is compared.
#[derive(Clone, Debug)]
pub(crate) enum ConditionPart {
    Whole,
    Element(Expression),
    Field(usize),
}

/// What it is compared with.
#[derive(Clone, Debug)]
pub(crate) enum ConditionValue {
    One(Expression),
    Many(InValues<Expression>),
}

/// True for the virtual table whose rows are settings: writing one changes it.
pub fn is_settings(table: &Table) -> bool {
    &*table.keyspace == "system" && &*table.name == "config"
}

impl PreparedModification {
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        modification: &Modification,
    ) -> Result<Self, CqlError> {
        let table = preparation.find_table(modification.table())?;
        if table.is_virtual && !is_settings(&table) {
            return Err(CqlError::invalid(
                "Modification is not supported by virtual tables",
            ));
        }
        check_writable(&table)?;
        let prepared = match modification {
            Modification::Insert(insert) => prepare_insert(preparation, table, insert),
            Modification::Update(update) => prepare_update(preparation, table, update),
            Modification::Delete(delete) => prepare_delete(preparation, table, delete),
        }?;
        prepared.check_counters(modification.using())?;
        if prepared.is_conditional() && prepared.table.is_virtual {
            return Err(CqlError::invalid(
                "Conditional updates are not supported by virtual tables",
            ));
        }
        if prepared.is_conditional() && prepared.attributes.timestamp.is_some() {
            return Err(CqlError::invalid(
                "Cannot provide custom timestamp for conditional updates",
            ));
        }
        Ok(prepared)
    }

    /// Has IF.
    pub(crate) fn is_conditional(&self) -> bool {
        !matches!(self.condition, PreparedCondition::None)
    }

    /// Writes columns of the static row.
    pub(crate) fn writes_static_columns(&self) -> bool {
        match &self.target {
            Target::InsertJson(_) => !self.table.statics().is_empty(),
            _ => self.operations.iter().any(|operation| operation.is_static),
        }
    }

    /// Adds to counters.
    pub(crate) fn is_counter(&self) -> bool {
        self.table.is_counter
    }

    fn check_counters(&self, using: &Using) -> Result<(), CqlError> {
        if !self.table.is_counter {
            return Ok(());
        }
        let message = match &self.target {
            Target::Insert { .. } | Target::InsertJson(_) => {
                "INSERT statements are not allowed on counter tables, use UPDATE instead"
            }
            _ if self.is_conditional() => "Conditional updates are not supported on counter tables",
            Target::Update(_) if using.timestamp.is_some() => {
                "Cannot provide custom timestamp for counter updates"
            }
            Target::Update(_) if using.ttl.is_some() => "Cannot provide custom TTL for counter updates",
            _ => return Ok(()),
        };
        Err(CqlError::invalid(message))
    }

    /// Touches nothing but static columns.
    pub(crate) fn is_only_static(&self) -> bool {
        !self.operations.is_empty() && self.operations.iter().all(|operation| operation.is_static)
    }
}

/// Keyspaces that statements of their own change: those on the schema, and those on roles.
const CHANGED_BY_STATEMENTS: [&str; 2] = ["system_schema", "system_auth"];

/// Refuses tables that are not written as others are.
pub(crate) fn check_writable(table: &Table) -> Result<(), CqlError> {
    if table.is_view() {
        return Err(CqlError::invalid("Cannot directly modify a materialized view"));
    }
    if CHANGED_BY_STATEMENTS.contains(&&*table.keyspace) {
        return Err(CqlError::Unauthorized(format!(
            "{} keyspace is not user-modifiable.",
            table.keyspace
        )));
    }
    Ok(())
}

fn find<'t>(table: &'t Table, name: &Name) -> Result<(usize, &'t Column), CqlError> {
    let index = table.column_index(name);
    let found = index.and_then(|index| Some((index, table.columns().get(index)?)));
    found.ok_or_else(|| undefined_column(table, name))
}

impl Attributes {
    pub(crate) fn prepare(preparation: &mut Preparation<'_>, using: &Using) -> Result<Self, CqlError> {
        let (keyspace, table) = preparation.subject();
        let mut one = |term: &Option<crate::ast::Term>, name: &str, cql_type| {
            let receiver = ColumnSpecification {
                keyspace: keyspace.clone(),
                table: table.clone(),
                name: name.into(),
                cql_type,
            };
            term.as_ref()
                .map(|term| prepare_term(preparation, term, &receiver))
                .transpose()
        };
        Ok(Self {
            timestamp: one(&using.timestamp, "[timestamp]", CqlType::Bigint)?,
            ttl: one(&using.ttl, "[ttl]", CqlType::Int)?,
            timeout: one(&using.timeout, "[timeout]", CqlType::Duration)?,
        })
    }
}

fn prepare_insert(
    preparation: &mut Preparation<'_>,
    table: Arc<Table>,
    insert: &Insert,
) -> Result<PreparedModification, CqlError> {
    let condition = match insert.if_not_exists {
        true => PreparedCondition::NotExists,
        false => PreparedCondition::None,
    };
    let (columns, values) = match &insert.content {
        InsertContent::Values { columns, values } => (columns, values),
        InsertContent::Json { value, default } => {
            let json = InsertJson::prepare(preparation, &table, value, *default);
            return Ok(PreparedModification {
                target: Target::InsertJson(json),
                operations: Vec::new(),
                attributes: Attributes::prepare(preparation, &insert.using)?,
                condition,
                table,
            });
        }
    };
    if columns.len() != values.len() {
        return Err(CqlError::invalid("Unmatched column names/values"));
    }
    let mut key: Vec<Option<Expression>> = vec![None; table.partition_key().len() + table.clustering().len()];
    let mut operations = Vec::with_capacity(columns.len());
    for (at, (name, term)) in columns.iter().zip(values).enumerate() {
        let (index, column) = find(&table, name)?;
        if columns.iter().take(at).any(|other| other == name) {
            return Err(CqlError::invalid("The column names contains duplicates"));
        }
        let receiver = ColumnSpecification::of_column(&table, column);
        let value = match (key.get_mut(index), &column.cql_type) {
            (Some(slot), _) => {
                *slot = Some(prepare_term(preparation, term, &receiver)?);
                continue;
            }
            (None, CqlType::Counter) => {
                return Err(CqlError::invalid(
                    "INSERT statements are not allowed on counter tables, use UPDATE instead",
                ));
            }
            (None, _) => prepare_term(preparation, term, &receiver)?,
        };
        operations.push(ColumnOperation::new(column, OperationKind::Set(value)));
    }
    operations.sort_by_key(|operation| operation.column);
    let clustering = key.split_off(table.partition_key().len());
    let partition = complete(key, table.partition_key(), "partition key parts")?;
    let only_static = !operations.is_empty() && operations.iter().all(|operation| operation.is_static);
    check_compact_insert(&table, &operations)?;
    let clustering = match clustering.iter().any(Option::is_some) || !only_static {
        true if table.is_dense() => Some(leading(clustering, table.clustering())?),
        true => Some(complete(clustering, table.clustering(), "clustering keys")?),
        false if table.clustering().is_empty() => Some(Vec::new()),
        false => None,
    };
    Ok(PreparedModification {
        target: Target::Insert {
            partition,
            clustering,
        },
        operations,
        attributes: Attributes::prepare(preparation, &insert.using)?,
        condition,
        table,
    })
}

fn complete(
    values: Vec<Option<Expression>>,
    columns: &[Column],
    what: &str,
) -> Result<Vec<Expression>, CqlError> {
    let missing: Vec<&str> = columns
        .iter()
        .zip(&values)
        .filter(|(_, value)| value.is_none())
        .map(|(column, _)| &*column.name)
        .collect();
    if missing.is_empty() {
        return Ok(values.into_iter().flatten().collect());
    }
    Err(CqlError::Invalid(format!(
        "Some {what} are missing: {}",
        missing.join(", ")
    )))
}

/// A row of a table with COMPACT STORAGE is there while a column is: the key alone makes none, unless there is no other
/// column.
fn check_compact_insert(table: &Table, operations: &[ColumnOperation]) -> Result<(), CqlError> {
    let is_mandatory = table.is_compact && operations.is_empty();
    let name = match table.regulars() {
        [] => return Ok(()),
        _ if !is_mandatory => return Ok(()),
        [value] if table.is_dense() => &*value.name,
        // What Cassandra calls the hidden column of a table without clustering columns.
        _ => "value",
    };
    Err(CqlError::Invalid(format!(
        "Column {name} is mandatory for this COMPACT STORAGE table"
    )))
}

/// The clustering columns of a dense table, of which those at the end may be left out.
fn leading(mut values: Vec<Option<Expression>>, columns: &[Column]) -> Result<Vec<Expression>, CqlError> {
    let count = values.iter().take_while(|value| value.is_some()).count();
    let gap = columns
        .iter()
        .zip(&values)
        .skip(count)
        .find(|(_, value)| value.is_some());
    match (columns.get(count), gap) {
        (Some(missing), Some((column, _))) => Err(CqlError::Invalid(format!(
            "PRIMARY KEY column \"{}\" cannot be restricted as preceding column \"{}\" is not restricted",
            column.name, missing.name
        ))),
        (Some(_), None) if count == 0 => complete(values, columns, "clustering keys"),
        _ => {
            values.truncate(count);
            Ok(values.into_iter().flatten().collect())
        }
    }
}

fn prepare_update(
    preparation: &mut Preparation<'_>,
    table: Arc<Table>,
    update: &Update,
) -> Result<PreparedModification, CqlError> {
    let attributes = Attributes::prepare(preparation, &update.using)?;
    let mut operations = Vec::with_capacity(update.assignments.len());
    for assignment in &update.assignments {
        let (_, column) = find(&table, &assignment.column)?;
        if column.is_primary_key() {
            return Err(CqlError::Invalid(format!(
                "PRIMARY KEY part {} found in SET part",
                column.name
            )));
        }
        operations.push(ColumnOperation::prepare(
            preparation,
            &table,
            column,
            &assignment.operation,
        )?);
    }
    let only_static = operations.iter().all(|operation| operation.is_static);
    let restrictions = Restrictions::prepare(
        preparation,
        &table,
        &update.where_clause,
        StatementKind::Update,
        only_static && !restricts_regular_condition(&table, &update.condition),
    )?;
    let condition = PreparedCondition::prepare(preparation, &table, &update.condition)?;
    check_conditional_in(&restrictions, &condition, "updates")?;
    Ok(PreparedModification {
        target: Target::Update(restrictions),
        operations,
        attributes,
        condition,
        table,
    })
}

/// A condition on a column of rows needs the row's key, even if only static columns are written.
fn restricts_regular_condition(table: &Table, condition: &Condition) -> bool {
    match condition {
        Condition::Columns(conditions) => conditions.iter().any(|condition| {
            table
                .column(&condition.column)
                .is_some_and(|column| column.kind == ColumnKind::Regular)
        }),
        _ => false,
    }
}

fn prepare_delete(
    preparation: &mut Preparation<'_>,
    table: Arc<Table>,
    delete: &Delete,
) -> Result<PreparedModification, CqlError> {
    let mut operations = Vec::with_capacity(delete.deletions.len());
    for deletion in &delete.deletions {
        let (_, column) = find(&table, &deletion.column)?;
        if column.is_primary_key() {
            return Err(CqlError::Invalid(format!(
                "Invalid identifier {} for deletion (should not be a PRIMARY KEY part)",
                column.name
            )));
        }
        operations.push(ColumnOperation::prepare_deletion(
            preparation,
            &table,
            column,
            deletion,
        )?);
    }
    let attributes = Attributes::prepare(preparation, &delete.using)?;
    let only_static = !operations.is_empty()
        && operations.iter().all(|operation| operation.is_static)
        && !restricts_regular_condition(&table, &delete.condition);
    let restrictions = Restrictions::prepare(
        preparation,
        &table,
        &delete.where_clause,
        StatementKind::Delete,
        only_static,
    )?;
    let has_regular = operations.iter().any(|operation| !operation.is_static);
    let condition = PreparedCondition::prepare(preparation, &table, &delete.condition)?;
    check_conditional_in(&restrictions, &condition, "deletions")?;
    let conditional = !matches!(condition, PreparedCondition::None);
    if conditional && !restrictions.clustering.names_rows() {
        let purpose = match (
            has_regular || operations.is_empty(),
            restricts_regular_condition(&table, &delete.condition),
        ) {
            (true, _) => Some("delete non static columns"),
            (false, true) => Some("use IF condition on non static columns"),
            (false, false) => None,
        };
        if let Some(purpose) = purpose {
            return Err(CqlError::Invalid(format!(
                "DELETE statements must restrict all PRIMARY KEY columns with equality relations in order to {purpose}"
            )));
        }
    }
    if has_regular && !restrictions.clustering.names_rows() {
        return Err(CqlError::invalid(
            "Range deletions are not supported for specific columns",
        ));
    }
    Ok(PreparedModification {
        target: Target::Delete(restrictions),
        operations,
        attributes,
        condition,
        table,
    })
}

fn check_conditional_in(
    restrictions: &Restrictions,
    condition: &PreparedCondition,
    what: &str,
) -> Result<(), CqlError> {
    if matches!(condition, PreparedCondition::None) {
        return Ok(());
    }
    if restrictions.partition.has_in() {
        return Err(CqlError::Invalid(format!(
            "IN on the partition key is not supported with conditional {what}"
        )));
    }
    if restrictions.clustering.has_in() {
        return Err(CqlError::Invalid(format!(
            "IN on the clustering key columns is not supported with conditional {what}"
        )));
    }
    Ok(())
}

impl PreparedCondition {
    fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Table,
        condition: &Condition,
    ) -> Result<Self, CqlError> {
        match condition {
            Condition::None => Ok(Self::None),
            Condition::Exists => Ok(Self::Exists),
            Condition::Columns(conditions) => {
                let prepared = conditions
                    .iter()
                    .map(|condition| PreparedColumnCondition::prepare(preparation, table, condition));
                Ok(Self::Columns(prepared.collect::<Result<_, _>>()?))
            }
        }
    }
}

impl PreparedColumnCondition {
    fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Table,
        condition: &ColumnCondition,
    ) -> Result<Self, CqlError> {
        let (index, column) = find(table, &condition.column)?;
        if column.is_primary_key() {
            return Err(CqlError::Invalid(format!(
                "PRIMARY KEY column '{}' cannot have IF conditions",
                column.name
            )));
        }
        let whole = ColumnSpecification::of_column(table, column);
        let (part, receiver) = match &condition.part {
            ColumnPart::Whole => (ConditionPart::Whole, whole),
            ColumnPart::Element(key) => {
                let (key_type, value_type) = match &column.cql_type {
                    CqlType::List { .. } | CqlType::Map { .. } => key_and_value(&column.cql_type)?,
                    CqlType::Set { .. } => {
                        return Err(CqlError::Invalid(format!(
                            "Invalid element access syntax for set column {}",
                            column.name
                        )));
                    }
                    _ => {
                        return Err(CqlError::Invalid(format!(
                            "Invalid element access syntax for non-collection column {}",
                            column.name
                        )));
                    }
                };
                let name = if matches!(column.cql_type, CqlType::List { .. }) {
                    "idx"
                } else {
                    "key"
                };
                let key_receiver = whole.derived(format!("{name}({})", column.name), key_type);
                let key = prepare_term(preparation, key, &key_receiver)?;
                (
                    ConditionPart::Element(key),
                    whole.derived(format!("value({})", column.name), value_type),
                )
            }
            ColumnPart::Field(field) => {
                let (field_index, field_type) = find_field(&column.cql_type, field)?;
                (
                    ConditionPart::Field(field_index),
                    whole.derived(format!("{}.{field}", column.name), field_type),
                )
            }
        };
        let cql_type = receiver.cql_type.clone();
        if condition.operator.is_slice() && cql_type == CqlType::Duration {
            return Err(CqlError::invalid(
                "Slice conditions ( > ) are not supported on durations",
            ));
        }
        let compared = match (condition.operator, &cql_type) {
            (Operator::Contains, CqlType::List { element, .. } | CqlType::Set { element, .. }) => {
                receiver.derived(format!("value({})", column.name), (**element).clone())
            }
            (Operator::Contains, CqlType::Map { value, .. }) => {
                receiver.derived(format!("value({})", column.name), (**value).clone())
            }
            (Operator::ContainsKey, CqlType::Map { key, .. }) => {
                receiver.derived(format!("key({})", column.name), (**key).clone())
            }
            (Operator::Contains | Operator::ContainsKey, _) => {
                return Err(CqlError::Invalid(format!(
                    "Cannot use {} on non-collection column {}",
                    condition.operator.symbol(),
                    column.name
                )));
            }
            _ => receiver,
        };
        let value = match &condition.operand {
            Operand::Term(term) => ConditionValue::One(prepare_term(preparation, term, &compared)?),
            Operand::Terms(terms) if condition.operator == Operator::In => {
                let values = terms
                    .iter()
                    .map(|term| prepare_term(preparation, term, &compared));
                ConditionValue::Many(InValues::List(values.collect::<Result<_, _>>()?))
            }
            Operand::InMarker(marker) => {
                let element = compared.cql_type.freeze();
                let list = CqlType::List {
                    element: Arc::new(element.clone()),
                    frozen: false,
                };
                let list =
                    preparation.bind(*marker, &compared.derived(format!("in({})", compared.name), list));
                ConditionValue::Many(InValues::Bound { list, element })
            }
            Operand::Terms(_) => {
                return Err(CqlError::Invalid(format!(
                    "{} is not supported in IF conditions",
                    condition.operator.symbol()
                )));
            }
        };
        Ok(Self {
            column: index,
            part,
            cql_type,
            operator: condition.operator,
            value,
        })
    }
}
