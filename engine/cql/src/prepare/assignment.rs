//! What INSERT, UPDATE and DELETE do to one column.

use super::Preparation;
use crate::ast::{AssignmentOperation, ColumnPart, Deletion, Name, Term};
use crate::expression::{Expression, find_field, prepare_term};
use crate::{ColumnSpecification, CqlError};
use ceto_model::{Column, ColumnId, ColumnKind, CqlType, Table};

/// An operation on one column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnOperation {
    pub(crate) column: ColumnId,
    pub(crate) is_static: bool,
    pub(crate) cql_type: CqlType,
    pub(crate) kind: OperationKind,
}

/// See [`ColumnOperation`].
#[derive(Clone, Debug)]
pub(crate) enum OperationKind {
    /// `a = value`
    Set(Expression),
    /// `DELETE a`
    Delete,
    /// `c = c + value`, or `-`.
    Count { delta: Expression, negative: bool },
    /// `l = l + value`
    Append(Expression),
    /// `l = value + l`
    Prepend(Expression),
    /// `l = l - values`: all equal elements.
    RemoveValues(Expression),
    /// `l[i] = value`
    SetIndex { index: Expression, value: Expression },
    /// `DELETE l[i]`
    DeleteIndex(Expression),
    /// `s = s + values`, `m = m + entries`
    AddElements(Expression),
    /// `s = s - values`, `m = m - keys`
    RemoveElements(Expression),
    /// `m[k] = value`
    SetKey { key: Expression, value: Expression },
    /// `DELETE m[k]`, `DELETE s[v]`
    DeleteKey(Expression),
    /// `u.f = value`
    SetField { field: usize, value: Expression },
    /// `DELETE u.f`
    DeleteField(usize),
}

impl OperationKind {
    /// Depends on what the column holds.
    pub(crate) fn needs_read(&self) -> bool {
        matches!(
            self,
            Self::RemoveValues(_) | Self::SetIndex { .. } | Self::DeleteIndex(_)
        )
    }
}

impl ColumnOperation {
    pub(crate) fn new(column: &Column, kind: OperationKind) -> Self {
        Self {
            column: column.id,
            is_static: column.kind == ColumnKind::Static,
            cql_type: column.cql_type.clone(),
            kind,
        }
    }

    /// One item of SET.
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Table,
        column: &Column,
        operation: &AssignmentOperation,
    ) -> Result<Self, CqlError> {
        let receiver = ColumnSpecification::of_column(table, column);
        let kind = match operation {
            AssignmentOperation::Set(term) => set(preparation, column, &receiver, term)?,
            AssignmentOperation::Add(term) => add(preparation, column, &receiver, term)?,
            AssignmentOperation::Subtract(term) => subtract(preparation, column, &receiver, term)?,
            AssignmentOperation::Prepend(term) => {
                check_multicell(column, &format!("{0} = {term} + {0}", column.name), "list")?;
                match column.cql_type {
                    CqlType::List { .. } => {
                        OperationKind::Prepend(prepare_term(preparation, term, &receiver)?)
                    }
                    _ => {
                        return Err(invalid_operation(
                            &format!("{0} = {term} + {0}", column.name),
                            "non list",
                            column,
                        ));
                    }
                }
            }
            AssignmentOperation::SetElement { key, value } => {
                set_element(preparation, column, &receiver, key, value)?
            }
            AssignmentOperation::SetField { field, value } => {
                let text = format!("{}.{field} = {value}", column.name);
                let CqlType::Udt { .. } = column.cql_type else {
                    return Err(invalid_operation(&text, "non-UDT", column));
                };
                if !column.cql_type.is_multicell() {
                    return Err(invalid_operation(&text, "frozen UDT", column));
                }
                let (field_index, field_type) = field_of(column, field)?;
                let receiver = receiver.derived(format!("{}.{field}", column.name), field_type);
                OperationKind::SetField {
                    field: field_index,
                    value: prepare_term(preparation, value, &receiver)?,
                }
            }
        };
        Ok(Self::new(column, kind))
    }

    /// One item of DELETE.
    pub(crate) fn prepare_deletion(
        preparation: &mut Preparation<'_>,
        table: &Table,
        column: &Column,
        deletion: &Deletion,
    ) -> Result<Self, CqlError> {
        let receiver = ColumnSpecification::of_column(table, column);
        let kind = match &deletion.part {
            ColumnPart::Whole => OperationKind::Delete,
            ColumnPart::Element(key) => {
                if !column.cql_type.is_collection() {
                    return Err(CqlError::Invalid(format!(
                        "Invalid deletion operation for non collection column {}",
                        column.name
                    )));
                }
                if !column.cql_type.is_multicell() {
                    return Err(CqlError::Invalid(format!(
                        "Invalid deletion operation for frozen collection column {}",
                        column.name
                    )));
                }
                let (name, key_type) = key_name(column);
                let key = prepare_term(preparation, key, &receiver.derived(name, key_type))?;
                match column.cql_type {
                    CqlType::List { .. } => OperationKind::DeleteIndex(key),
                    _ => OperationKind::DeleteKey(key),
                }
            }
            ColumnPart::Field(field) => {
                if !matches!(column.cql_type, CqlType::Udt { .. }) {
                    return Err(CqlError::Invalid(format!(
                        "Invalid field deletion operation for non-UDT column {}",
                        column.name
                    )));
                }
                if !matches!(column.cql_type, CqlType::Udt { frozen: false, .. }) {
                    return Err(CqlError::Invalid(format!(
                        "Frozen UDT column {} does not support field deletions",
                        column.name
                    )));
                }
                OperationKind::DeleteField(field_of(column, field)?.0)
            }
        };
        Ok(Self::new(column, kind))
    }
}

/// Index and type of a field of a column.
fn field_of(column: &Column, field: &Name) -> Result<(usize, CqlType), CqlError> {
    find_field(&column.cql_type, field).map_err(|_| {
        CqlError::Invalid(format!(
            "UDT column {} does not have a field named {field}",
            column.name
        ))
    })
}

/// Name and type of what stands in brackets.
fn key_name(column: &Column) -> (String, CqlType) {
    match &column.cql_type {
        CqlType::Map { key, .. } => (format!("key({})", column.name), (**key).clone()),
        CqlType::Set { element, .. } => (format!("value({})", column.name), (**element).clone()),
        _ => (format!("idx({})", column.name), CqlType::Int),
    }
}

fn invalid_operation(text: &str, what: &str, column: &Column) -> CqlError {
    CqlError::Invalid(format!(
        "Invalid operation ({text}) for {what} column {}",
        column.name
    ))
}

fn check_multicell(column: &Column, text: &str, what: &str) -> Result<(), CqlError> {
    if column.cql_type.is_collection() && !column.cql_type.is_multicell() {
        return Err(invalid_operation(text, &format!("frozen {what}"), column));
    }
    Ok(())
}

fn set(
    preparation: &mut Preparation<'_>,
    column: &Column,
    receiver: &ColumnSpecification,
    term: &Term,
) -> Result<OperationKind, CqlError> {
    if column.cql_type == CqlType::Counter {
        return Err(CqlError::Invalid(format!(
            "Cannot set the value of counter column {} (counters can only be incremented/decremented, not set)",
            column.name
        )));
    }
    Ok(OperationKind::Set(prepare_term(preparation, term, receiver)?))
}

fn add(
    preparation: &mut Preparation<'_>,
    column: &Column,
    receiver: &ColumnSpecification,
    term: &Term,
) -> Result<OperationKind, CqlError> {
    let text = format!("{0} = {0} + {term}", column.name);
    check_multicell(column, &text, "collection")?;
    Ok(match &column.cql_type {
        CqlType::Counter => OperationKind::Count {
            delta: prepare_term(preparation, term, receiver)?,
            negative: false,
        },
        CqlType::List { .. } => OperationKind::Append(prepare_term(preparation, term, receiver)?),
        CqlType::Set { .. } | CqlType::Map { .. } => {
            OperationKind::AddElements(prepare_term(preparation, term, receiver)?)
        }
        CqlType::Tuple(_) | CqlType::Udt { .. } => return Err(invalid_operation(&text, "tuple", column)),
        _ => return Err(invalid_operation(&text, "non counter", column)),
    })
}

fn subtract(
    preparation: &mut Preparation<'_>,
    column: &Column,
    receiver: &ColumnSpecification,
    term: &Term,
) -> Result<OperationKind, CqlError> {
    let text = format!("{0} = {0} - {term}", column.name);
    check_multicell(column, &text, "collection")?;
    Ok(match &column.cql_type {
        CqlType::Counter => OperationKind::Count {
            delta: prepare_term(preparation, term, receiver)?,
            negative: true,
        },
        CqlType::List { .. } => OperationKind::RemoveValues(prepare_term(preparation, term, receiver)?),
        CqlType::Set { .. } => OperationKind::RemoveElements(prepare_term(preparation, term, receiver)?),
        CqlType::Map { key, .. } => {
            // The values of the map do not matter: its keys are given as a set.
            let keys = CqlType::Set {
                element: key.clone(),
                frozen: false,
            };
            let keys = receiver.derived(receiver.name.clone(), keys);
            OperationKind::RemoveElements(prepare_term(preparation, term, &keys)?)
        }
        _ => return Err(invalid_operation(&text, "non counter", column)),
    })
}

fn set_element(
    preparation: &mut Preparation<'_>,
    column: &Column,
    receiver: &ColumnSpecification,
    key: &Term,
    value: &Term,
) -> Result<OperationKind, CqlError> {
    let text = format!("{}[{key}] = {value}", column.name);
    if !column.cql_type.is_collection() {
        return Err(invalid_operation(&text, "non collection", column));
    }
    check_multicell(column, &text, "collection")?;
    let value_type = match &column.cql_type {
        CqlType::List { element, .. } => element,
        CqlType::Map { value, .. } => value,
        _ => return Err(invalid_operation(&text, "set", column)),
    };
    let (name, key_type) = key_name(column);
    let key = prepare_term(preparation, key, &receiver.derived(name, key_type))?;
    let value_receiver = receiver.derived(format!("value({})", column.name), (**value_type).clone());
    let value = prepare_term(preparation, value, &value_receiver)?;
    Ok(match column.cql_type {
        CqlType::List { .. } => OperationKind::SetIndex { index: key, value },
        _ => OperationKind::SetKey { key, value },
    })
}
