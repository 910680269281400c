//! Types as text, in the two languages that stored schemas and drivers use.
//!
//! - *CQL*, as in `system_schema`: `map<text, frozen<list<int>>>`. Written by [`CqlType`]'s `Display`, read by
//!   [`parse_cql_type`], which asks the caller for the definitions of user-defined types.
//! - *Java marshal classes*, as in the result metadata of vectors, descending clustering columns and Cassandra's
//!   sstables: `org.apache.cassandra.db.marshal.MapType(...)`. Written by [`marshal_class`], read by
//!   [`parse_marshal_class`]; definitions of user-defined types are part of the text.
//!
//! Invariants:
//! - What one side writes the other reads to an equal type.
//! - No text makes a type that nests deeper than [`DEPTH_MAX`]. All code that walks types or values of types recurses on
//!   the strength of this.

mod cql;
mod marshal;

#[cfg(test)]
mod tests;

use crate::{CqlType, UserType};
use std::fmt;
use std::sync::Arc;

pub use cql::parse_cql_type;
pub use marshal::{MARSHAL_PACKAGE, marshal_class, parse_marshal_class};

/// How deep types may nest, fields of user-defined types included.
pub const DEPTH_MAX: usize = 64;

/// A text is no type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypeTextError {
    /// The whole text.
    pub text: String,
    /// Where it went wrong: offset in bytes.
    pub offset: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for TypeTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            text,
            offset,
            message,
        } = self;
        write!(f, "{message} (in type '{text}' at {offset})")
    }
}

impl std::error::Error for TypeTextError {}

/// How deep a type nests: 1 for int, 2 for `list<int>`. Stops counting soon after [`DEPTH_MAX`].
pub fn depth(cql_type: &CqlType) -> usize {
    depth_below(cql_type, DEPTH_MAX + 1, &mut Vec::new())
}

/// Definitions share field types, so each is walked once: `known` are the depths found so far.
fn depth_below(cql_type: &CqlType, limit: usize, known: &mut Vec<(*const UserType, usize)>) -> usize {
    let Some(limit) = limit.checked_sub(1) else {
        return 0;
    };
    let below = match cql_type {
        CqlType::List { element, .. } | CqlType::Set { element, .. } | CqlType::Vector { element, .. } => {
            depth_below(element, limit, known)
        }
        CqlType::Map { key, value, .. } => {
            depth_below(key, limit, known).max(depth_below(value, limit, known))
        }
        CqlType::Tuple(elements) | CqlType::Composite(elements) => deepest(elements.iter(), limit, known),
        CqlType::DynamicComposite(aliases) => {
            deepest(aliases.iter().map(|(_, aliased)| aliased), limit, known)
        }
        CqlType::Udt { definition, .. } => {
            let identity = Arc::as_ptr(definition);
            match known.iter().find(|(other, _)| *other == identity) {
                Some((_, depth)) => *depth,
                None => {
                    let fields = definition.fields.iter().map(|field| &field.cql_type);
                    let depth = deepest(fields, limit, known);
                    known.push((identity, depth));
                    depth
                }
            }
        }
        _ => 0,
    };
    1 + below
}

fn deepest<'t>(
    types: impl Iterator<Item = &'t CqlType>,
    limit: usize,
    known: &mut Vec<(*const UserType, usize)>,
) -> usize {
    types
        .map(|cql_type| depth_below(cql_type, limit, known))
        .max()
        .unwrap_or(0)
}

/// A text and how far it was read.
struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    depth: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            offset: 0,
            depth: 0,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn error(&self, message: impl Into<String>) -> TypeTextError {
        TypeTextError {
            text: self.text.to_owned(),
            offset: self.offset,
            message: message.into(),
        }
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// Takes `expected`, after blanks, if it is next.
    fn take(&mut self, expected: char) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(expected);
        if found {
            self.offset += expected.len_utf8();
        }
        found
    }

    fn expect(&mut self, expected: char) -> Result<(), TypeTextError> {
        if self.take(expected) {
            Ok(())
        } else {
            Err(self.error(format!("expected '{expected}'")))
        }
    }

    /// The longest run of characters that `belongs` accepts, after blanks.
    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        self.skip_blanks();
        let rest = self.rest();
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.offset += length;
        rest.get(..length).unwrap_or_default()
    }

    /// A character repeated is itself: the text between two `quote`s, after the first of them.
    fn quoted(&mut self, quote: char) -> Result<String, TypeTextError> {
        let mut out = String::new();
        loop {
            let Some(length) = self.rest().find(quote) else {
                return Err(self.error(format!("missing closing {quote}")));
            };
            out.push_str(self.rest().get(..length).unwrap_or_default());
            self.offset += length + quote.len_utf8();
            if !self.rest().starts_with(quote) {
                return Ok(out);
            }
            out.push(quote);
            self.offset += quote.len_utf8();
        }
    }

    /// The dimension of a vector.
    fn dimension(&mut self) -> Result<u16, TypeTextError> {
        let digits = self.word(|c| c.is_ascii_digit() || c == '-');
        match digits.parse::<i64>() {
            Ok(number @ 1..) => {
                u16::try_from(number).map_err(|_| self.error("vectors may have at most 65535 dimensions"))
            }
            Ok(number) => Err(self.error(format!(
                "vectors may only have positive dimensions; given {number}"
            ))),
            Err(_) => Err(self.error("expected the dimension of a vector")),
        }
    }

    /// One level down: before the parameters of a type are read.
    fn enter(&mut self) -> Result<(), TypeTextError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("types may nest at most {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        Ok(())
    }

    /// One level up: after the parameters of a type.
    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// All was read, and the type, with the definitions in it, is not too deep.
    fn finish(&mut self, cql_type: &CqlType) -> Result<(), TypeTextError> {
        self.skip_blanks();
        if !self.rest().is_empty() {
            return Err(self.error("unexpected text after the type"));
        }
        if depth(cql_type) > DEPTH_MAX {
            return Err(self.error(format!("types may nest at most {DEPTH_MAX} deep")));
        }
        Ok(())
    }
}
