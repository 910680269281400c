//! Bind variables: what a statement declares, and what a request gives for them.

use crate::ast::{BindMarker, Name};
use crate::{ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::value;
use std::borrow::Cow;

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
}

impl BindVariables {
    pub(crate) fn new(names: Vec<Option<Name>>) -> Self {
        Self {
            specifications: vec![None; names.len()],
            names,
        }
    }

    /// The marker stands for a value of `receiver`; a name of its own wins over the receiver's.
    pub(crate) fn bind(&mut self, marker: BindMarker, receiver: &ColumnSpecification) {
        let mut specification = receiver.clone();
        if let Some(Some(name)) = self.names.get(marker.index) {
            specification.name = name.clone();
        }
        if let Some(slot) = self.specifications.get_mut(marker.index) {
            *slot = Some(specification);
        }
    }

    /// All variables in order of appearance.
    pub(crate) fn finish(self) -> Result<Vec<ColumnSpecification>, CqlError> {
        self.specifications
            .into_iter()
            .map(|s| {
                s.ok_or_else(|| CqlError::invalid("Cannot infer the type of a bind marker: use a type hint"))
            })
            .collect()
    }
}

/// Checks the values of a request against the variables, and puts sets and maps into their canonical order. Borrowed
/// while nothing had to be changed.
pub(crate) fn check_values<'a>(
    variables: &[ColumnSpecification],
    values: &'a [BoundValue],
) -> Result<Cow<'a, [BoundValue]>, CqlError> {
    if variables.len() != values.len() {
        return Err(CqlError::Invalid(format!(
            "Invalid amount of bind variables: there were {} markers(?) in CQL but {} bound variables",
            variables.len(),
            values.len()
        )));
    }
    let mut checked = Cow::Borrowed(values);
    for (index, (variable, value)) in variables.iter().zip(values).enumerate() {
        let BoundValue::Bytes(bytes) = value else { continue };
        let canonical = value::canonical(&variable.cql_type, bytes)
            .map_err(|error| CqlError::Invalid(error.to_string()))?;
        if let Cow::Owned(sorted) = canonical
            && let Some(slot) = checked.to_mut().get_mut(index)
        {
            *slot = BoundValue::Bytes(sorted.into());
        }
    }
    Ok(checked)
}
