//! Typing of access to parts of values: elements, slices, and what cells know beside their value.

use super::typing::{PartialKind, Typing};
use super::{CellPart, Expression, Raw, element};
use crate::CqlError;
use crate::ast::CellMetadata;
use ceto_model::{ColumnKind, CqlType};
use std::sync::Arc;

impl Typing<'_, '_> {
    pub(super) fn element<'r>(
        &mut self,
        operand: &'r Raw<'r>,
        key: &'r Raw<'r>,
    ) -> Result<PartialKind<'r>, CqlError> {
        let partial = self.infer(operand)?;
        let (operand, collection) = self.settle(partial)?;
        let (key_type, value_type) = element::key_and_value(&collection)?;
        let key = self.key(&collection, key_type, key)?;
        let expression = Expression::Element {
            collection,
            operand: Box::new(operand),
            key: Box::new(key),
        };
        Ok(PartialKind::Typed(expression, value_type))
    }

    pub(super) fn slice<'r>(
        &mut self,
        operand: &'r Raw<'r>,
        from: Option<&'r Raw<'r>>,
        to: Option<&'r Raw<'r>>,
    ) -> Result<PartialKind<'r>, CqlError> {
        let partial = self.infer(operand)?;
        let (operand, collection) = self.settle(partial)?;
        if !matches!(collection, CqlType::Set { .. } | CqlType::Map { .. }) {
            return Err(CqlError::Invalid(format!(
                "Slice selection is only allowed on sets and maps, but the operand is a {collection}"
            )));
        }
        let (key_type, _) = element::key_and_value(&collection)?;
        let mut bound = |raw: Option<&'r Raw<'r>>| {
            raw.map(|raw| self.key(&collection, key_type.clone(), raw).map(Box::new))
                .transpose()
        };
        let (from, to) = (bound(from)?, bound(to)?);
        let expression = Expression::Slice {
            operand: Box::new(operand),
            from,
            to,
            collection: collection.clone(),
        };
        Ok(PartialKind::Typed(expression, collection))
    }

    fn key<'r>(
        &mut self,
        collection: &CqlType,
        key_type: CqlType,
        key: &'r Raw<'r>,
    ) -> Result<Expression, CqlError> {
        let name = match collection {
            CqlType::List { .. } | CqlType::Vector { .. } => "idx",
            CqlType::Set { .. } => "value",
            _ => "key",
        };
        let receiver = self.receiver(name, key_type);
        let partial = self.infer(key)?;
        self.assign(partial, &receiver)
    }

    pub(super) fn cell_metadata<'r>(
        &mut self,
        kind: CellMetadata,
        operand: &'r Raw<'r>,
    ) -> Result<PartialKind<'r>, CqlError> {
        let (name, part) = match operand {
            Raw::Column(name) => (*name, None),
            Raw::Element { operand: inner, .. } | Raw::Field { operand: inner, .. } => match &**inner {
                Raw::Column(name) => (*name, Some(operand)),
                _ => return Err(unsupported_metadata(kind, operand)),
            },
            _ => return Err(unsupported_metadata(kind, operand)),
        };
        let (index, column) = self.column(name)?;
        let (column_kind, column_type) = (column.kind, column.cql_type.clone());
        if !matches!(column_kind, ColumnKind::Static | ColumnKind::Regular) {
            return Err(CqlError::Invalid(format!(
                "Cannot use selection function {} on PRIMARY KEY part {name}",
                kind.name()
            )));
        }
        if column_type == CqlType::Counter && kind == CellMetadata::Ttl {
            return Err(CqlError::Invalid(format!(
                "Cannot use selection function {} on counters",
                kind.name()
            )));
        }
        let single = if kind == CellMetadata::Ttl {
            CqlType::Int
        } else {
            CqlType::Bigint
        };
        let part = match (part, column_type.is_multicell()) {
            (None, _) => CellPart::Whole,
            (Some(_), false) => return Err(unsupported_metadata(kind, operand)),
            (Some(Raw::Field { field, .. }), true) => {
                CellPart::Field(element::find_field(&column_type, field)?.0)
            }
            (Some(Raw::Element { key, .. }), true) if !matches!(column_type, CqlType::List { .. }) => {
                let (key_type, _) = element::key_and_value(&column_type)?;
                let key = self.key(&column_type, key_type.clone(), key)?;
                CellPart::Element {
                    key_type,
                    key: Box::new(key),
                }
            }
            _ => return Err(unsupported_metadata(kind, operand)),
        };
        let is_list = matches!(part, CellPart::Whole)
            && column_type.is_multicell()
            && kind != CellMetadata::MaxWritetime;
        let cql_type = match is_list {
            true => CqlType::List {
                element: Arc::new(single),
                frozen: false,
            },
            false => single,
        };
        let expression = Expression::CellMetadata {
            kind,
            column: index,
            part,
        };
        Ok(PartialKind::Typed(expression, cql_type))
    }
}

fn unsupported_metadata(kind: CellMetadata, operand: &Raw<'_>) -> CqlError {
    CqlError::Invalid(format!(
        "Cannot use selection function {} on {}: only columns and elements of collections that are not frozen have \
         it",
        kind.name(),
        operand.text()
    ))
}
