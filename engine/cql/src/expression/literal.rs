//! Constants: text to wire bytes, once the type is known.

use super::assignment::literal_fits;
use super::of_value;
use crate::ast::{Literal, LiteralKind};
use crate::{ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::value::wire::put_value;
use ceto_model::{CqlType, value};

/// The bytes of a literal that stands for `receiver`.
pub(crate) fn prepare_literal(literal: &Literal, receiver: &ColumnSpecification) -> Result<Bytes, CqlError> {
    if !literal_fits(literal.kind, &receiver.cql_type) {
        return Err(CqlError::Invalid(format!(
            "Invalid {} constant ({}) for \"{}\" of type {}",
            literal.kind.name(),
            literal.text,
            receiver.name,
            receiver.cql_type
        )));
    }
    parse_literal(literal.kind, &literal.text, &receiver.cql_type)
}

/// The bytes of a literal's text as a value of a native type.
pub(crate) fn parse_literal(kind: LiteralKind, text: &str, cql_type: &CqlType) -> Result<Bytes, CqlError> {
    if let CqlType::Tuple(types) = cql_type {
        return parse_tuple(kind, text, types);
    }
    // A blob in hexadecimal digits is a blob also where a custom type is asked for.
    let read_as = match (kind, cql_type) {
        (LiteralKind::Hex, CqlType::Custom(_)) => &CqlType::Blob,
        (_, CqlType::Counter) => &CqlType::Bigint,
        _ => cql_type,
    };
    let value = value::parse_literal(read_as, text).map_err(of_value)?;
    Ok(value.to_wire(read_as).map_err(of_value)?.into())
}

/// A tuple as a string: elements with colons between them, `@` for null; `\` before a colon or `@` takes its meaning.
/// Elements may be missing at the end.
fn parse_tuple(kind: LiteralKind, text: &str, types: &[CqlType]) -> Result<Bytes, CqlError> {
    let mut elements = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(last) = elements.last_mut() else { break };
        match character {
            ':' => elements.push(String::new()),
            '\\' if characters.peek() == Some(&':') => last.extend(characters.next()),
            other => last.push(other),
        }
    }
    if elements.len() > types.len() {
        return Err(CqlError::Invalid(format!(
            "Invalid tuple literal: too many elements. Type {} expects {} but got {}",
            CqlType::Tuple(types.into()),
            types.len(),
            elements.len()
        )));
    }
    let mut wire = Vec::new();
    for (element, cql_type) in elements.iter().zip(types) {
        match element.as_str() {
            "@" => put_value(&mut wire, None),
            text => {
                let value = parse_literal(kind, &text.replace("\\@", "@"), cql_type)?;
                put_value(&mut wire, Some(&value));
            }
        }
    }
    Ok(wire.into())
}
