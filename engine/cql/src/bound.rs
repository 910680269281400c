//! Bind variables: what a statement declares, and what a request gives for them.

use crate::ast::{BindMarker, Name};
use crate::expression::of_value;
use crate::{ColumnSpecification, CqlError, Prepared};
use bytes::Bytes;
use ceto_model::{CqlType, value};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

/// The value that a request gives for one bind variable, or that an expression evaluates to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoundValue {
    /// No value.
    Null,
    /// Leave as it is.
    Unset,
    /// Wire bytes.
    Bytes(Bytes),
}

impl BoundValue {
    /// The bytes; None for null and unset.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Null | Self::Unset => None,
        }
    }

    /// Null, or unset.
    pub(crate) fn is_unset(&self) -> bool {
        *self == Self::Unset
    }
}

impl From<Option<Bytes>> for BoundValue {
    fn from(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::Null, Self::Bytes)
    }
}

/// Collects what the bind markers of a statement stand for, while it is being prepared.
#[derive(Debug)]
pub(crate) struct BindVariables {
    names: Vec<Option<Name>>,
    specifications: Vec<Option<ColumnSpecification>>,
    /// Names of the receivers, which a variable's own name hides; several where markers of one name are one variable.
    columns: Vec<SmallVec<[Arc<str>; 1]>>,
    /// A variable that was given to receivers of different types.
    conflict: Option<String>,
}

impl BindVariables {
    pub(crate) fn new(names: Vec<Option<Name>>) -> Self {
        Self {
            specifications: vec![None; names.len()],
            columns: vec![SmallVec::new(); names.len()],
            names,
            conflict: None,
        }
    }

    /// The marker stands for a value of `receiver`; a name of its own wins over the receiver's.
    pub(crate) fn bind(&mut self, marker: BindMarker, receiver: &ColumnSpecification) {
        let mut specification = receiver.clone();
        if let Some(Some(name)) = self.names.get(marker.index) {
            specification.name = name.clone();
        }
        if let Some(slot) = self.columns.get_mut(marker.index) {
            slot.push(receiver.name.clone());
        }
        if let Some(slot) = self.specifications.get_mut(marker.index) {
            if let Some(other) = slot
                .as_ref()
                .filter(|other| other.cql_type != specification.cql_type)
            {
                self.conflict = Some(format!(
                    "Bind variable {} is used as {} and as {}",
                    specification.name, other.cql_type, specification.cql_type
                ));
            }
            *slot = Some(specification);
        }
    }

    /// For each variable the names of what it stands for.
    pub(crate) fn columns(&self) -> Vec<SmallVec<[Arc<str>; 1]>> {
        self.columns.clone()
    }

    /// All variables in order of appearance.
    pub(crate) fn finish(self) -> Result<Vec<ColumnSpecification>, CqlError> {
        if let Some(conflict) = self.conflict {
            return Err(CqlError::Invalid(conflict));
        }
        self.specifications
            .into_iter()
            .map(|s| {
                s.ok_or_else(|| CqlError::invalid("Cannot infer the type of a bind marker: use a type hint"))
            })
            .collect()
    }
}

/// What has to be done with the value of a variable before it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ValueCheck {
    /// Any bytes will do.
    Nothing,
    /// Is it a value of the type?
    Validate,
    /// That, and its sets and maps must be sorted.
    Sort,
}

impl ValueCheck {
    /// For values of this type.
    pub(crate) fn of(cql_type: &CqlType) -> Self {
        match cql_type {
            CqlType::Blob | CqlType::Custom(_) => Self::Nothing,
            other if holds_set_or_map(other) => Self::Sort,
            _ => Self::Validate,
        }
    }
}

fn holds_set_or_map(cql_type: &CqlType) -> bool {
    match cql_type {
        CqlType::Set { .. } | CqlType::Map { .. } => true,
        CqlType::List { element, .. } | CqlType::Vector { element, .. } => holds_set_or_map(element),
        CqlType::Tuple(elements) => elements.iter().any(holds_set_or_map),
        CqlType::Udt { definition, .. } => definition
            .fields
            .iter()
            .any(|field| holds_set_or_map(&field.cql_type)),
        _ => false,
    }
}

/// Checks the values of a request against the variables, and puts sets and maps into their canonical order. Borrowed
/// while nothing had to be changed.
pub(crate) fn check_values<'a>(
    prepared: &Prepared,
    values: &'a [BoundValue],
) -> Result<Cow<'a, [BoundValue]>, CqlError> {
    let variables = prepared.variables();
    if variables.len() != values.len() {
        return Err(CqlError::Invalid(format!(
            "Invalid amount of bind variables: there were {} markers(?) in CQL but {} bound variables",
            variables.len(),
            values.len()
        )));
    }
    let mut checked = Cow::Borrowed(values);
    let checks = variables.iter().zip(prepared.value_checks());
    for (index, ((variable, check), value)) in checks.zip(values).enumerate() {
        let BoundValue::Bytes(bytes) = value else { continue };
        match check {
            ValueCheck::Nothing => {}
            ValueCheck::Validate => value::validate(&variable.cql_type, bytes).map_err(of_value)?,
            ValueCheck::Sort => {
                let canonical = value::canonical(&variable.cql_type, bytes).map_err(of_value)?;
                if let Cow::Owned(sorted) = canonical
                    && let Some(slot) = checked.to_mut().get_mut(index)
                {
                    *slot = BoundValue::Bytes(sorted.into());
                }
            }
        }
    }
    Ok(checked)
}
