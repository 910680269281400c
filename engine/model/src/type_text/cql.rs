//! CQL type text to types.
//!
//! ```text
//! type ::= native | 'list' '<' type '>' | 'set' '<' type '>' | 'map' '<' type ',' type '>'
//!        | 'tuple' '<' type ( ',' type )* '>' | 'vector' '<' type ',' integer '>'
//!        | 'frozen' '<' type '>' | ( identifier '.' )? identifier | "'" marshal class "'"
//! identifier ::= letters, digits and '_', folded to lower case | '"' anything '"'
//! ```

use super::{Cursor, TypeTextError, parse_marshal_class};
use crate::{CqlType, UserType};
use std::sync::Arc;

/// Finds the user-defined type of a keyspace and name.
type Resolve<'a> = dyn Fn(&str, &str) -> Option<Arc<UserType>> + 'a;

/// Reads CQL type text. A user-defined type without keyspace belongs to `keyspace`; `resolve(keyspace, name)` finds its
/// definition.
pub fn parse_cql_type(text: &str, keyspace: &str, resolve: &Resolve<'_>) -> Result<CqlType, TypeTextError> {
    let mut parser = Parser {
        cursor: Cursor::new(text),
        keyspace,
        resolve,
    };
    let cql_type = parser.parse()?;
    parser.cursor.finish(&cql_type)?;
    Ok(cql_type)
}

/// The type of a CQL name in lower case, if it has no parameters.
fn native_type(name: &str) -> Option<CqlType> {
    Some(match name {
        "ascii" => CqlType::Ascii,
        "bigint" => CqlType::Bigint,
        "blob" => CqlType::Blob,
        "boolean" => CqlType::Boolean,
        "counter" => CqlType::Counter,
        "date" => CqlType::Date,
        "decimal" => CqlType::Decimal,
        "double" => CqlType::Double,
        "duration" => CqlType::Duration,
        "empty" => CqlType::Empty,
        "float" => CqlType::Float,
        "inet" => CqlType::Inet,
        "int" => CqlType::Int,
        "smallint" => CqlType::Smallint,
        "text" | "varchar" => CqlType::Text,
        "time" => CqlType::Time,
        "timestamp" => CqlType::Timestamp,
        "timeuuid" => CqlType::Timeuuid,
        "tinyint" => CqlType::Tinyint,
        "uuid" => CqlType::Uuid,
        "varint" => CqlType::Varint,
        _ => return None,
    })
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    keyspace: &'a str,
    resolve: &'a Resolve<'a>,
}

enum Identifier {
    Bare(String),
    Quoted(String),
}

impl Parser<'_> {
    fn parse(&mut self) -> Result<CqlType, TypeTextError> {
        if self.cursor.take('\'') {
            let class = self.cursor.quoted('\'')?;
            return parse_marshal_class(&class).map(|(cql_type, _)| cql_type);
        }
        let name = match self.identifier()? {
            Identifier::Quoted(name) => return self.user_type(name),
            Identifier::Bare(name) => name,
        };
        match name.as_str() {
            "list" | "set" | "map" | "tuple" | "vector" | "frozen" if self.cursor.take('<') => {
                self.cursor.enter()?;
                let cql_type = self.parameters(&name)?;
                self.cursor.leave();
                self.cursor.expect('>')?;
                Ok(cql_type)
            }
            _ => match native_type(&name) {
                Some(native) => Ok(native),
                None => self.user_type(name),
            },
        }
    }

    /// What stands between `<` and `>`. Whatever is inside a collection, tuple or vector is frozen, written or not.
    fn parameters(&mut self, constructor: &str) -> Result<CqlType, TypeTextError> {
        let frozen = false;
        match constructor {
            "list" => Ok(CqlType::List {
                element: self.element()?,
                frozen,
            }),
            "set" => Ok(CqlType::Set {
                element: self.element()?,
                frozen,
            }),
            "map" => {
                let key = self.element()?;
                self.cursor.expect(',')?;
                let value = self.element()?;
                Ok(CqlType::Map { key, value, frozen })
            }
            "tuple" => {
                let mut elements = vec![self.parse()?.freeze()];
                while self.cursor.take(',') {
                    elements.push(self.parse()?.freeze());
                }
                Ok(CqlType::Tuple(elements.into()))
            }
            "vector" => {
                let element = self.element()?;
                self.cursor.expect(',')?;
                let dimension = self.cursor.dimension()?;
                Ok(CqlType::Vector { element, dimension })
            }
            _ => match self.parse()? {
                inner @ (CqlType::List { .. }
                | CqlType::Set { .. }
                | CqlType::Map { .. }
                | CqlType::Tuple(_)
                | CqlType::Udt { .. }
                | CqlType::Vector { .. }
                | CqlType::Composite(_)
                | CqlType::DynamicComposite(_)
                | CqlType::Custom(_)) => Ok(inner.freeze()),
                inner => Err(self.cursor.error(format!(
                    "frozen<> is only allowed on collections, tuples, and user-defined types (got {inner})"
                ))),
            },
        }
    }

    fn element(&mut self) -> Result<Arc<CqlType>, TypeTextError> {
        Ok(Arc::new(self.parse()?.freeze()))
    }

    fn identifier(&mut self) -> Result<Identifier, TypeTextError> {
        if self.cursor.take('"') {
            return self.cursor.quoted('"').map(Identifier::Quoted);
        }
        match self.cursor.word(|c| c.is_ascii_alphanumeric() || c == '_') {
            "" => Err(self.cursor.error("expected a type")),
            word => Ok(Identifier::Bare(word.to_ascii_lowercase())),
        }
    }

    /// `first` is the name, or the keyspace if a point and the name follow. Not frozen: as declared.
    fn user_type(&mut self, first: String) -> Result<CqlType, TypeTextError> {
        let (keyspace, name) = if self.cursor.take('.') {
            let (Identifier::Bare(name) | Identifier::Quoted(name)) = self.identifier()?;
            (first, name)
        } else {
            (self.keyspace.to_owned(), first)
        };
        match (self.resolve)(&keyspace, &name) {
            Some(definition) => Ok(CqlType::Udt {
                definition,
                frozen: false,
            }),
            None => Err(self.cursor.error(format!("Unknown type {keyspace}.{name}"))),
        }
    }
}
