//! Types as Java marshal classes.
//!
//! ```text
//! type  ::= class | class '(' parameters ')'          class: with or without the package
//! ListType(type) SetType(type) MapType(type,type) TupleType(type,...) VectorType(type , dimension)
//! UserType(keyspace,hex name,hex field:type,...)
//! FrozenType(type)      around a frozen collection or user type that is in nothing frozen itself
//! ReversedType(type)    around a descending clustering column
//! CompositeType(type,...) DynamicCompositeType(alias=>type,...)        alias: one character
//! ```
//!
//! Any other class with all its parameters is a [`CqlType::Custom`] of that text.

use super::{Cursor, TypeTextError};
use crate::{CqlType, UserType, UserTypeField};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The package of all marshal classes, with its last point.
pub const MARSHAL_PACKAGE: &str = "org.apache.cassandra.db.marshal.";

/// The class of a type; `reversed` for a descending clustering column.
pub fn marshal_class(cql_type: &CqlType, reversed: bool) -> String {
    let mut out = String::new();
    if reversed {
        out.push_str(MARSHAL_PACKAGE);
        out.push_str("ReversedType(");
    }
    put_class(cql_type, false, &mut out);
    if reversed {
        out.push(')');
    }
    out
}

/// The simple name of the class of a type without parameters.
fn simple_class(cql_type: &CqlType) -> Option<&'static str> {
    Some(match cql_type {
        CqlType::Ascii => "AsciiType",
        CqlType::Bigint => "LongType",
        CqlType::Blob => "BytesType",
        CqlType::Boolean => "BooleanType",
        CqlType::Counter => "CounterColumnType",
        CqlType::Date => "SimpleDateType",
        CqlType::Decimal => "DecimalType",
        CqlType::Double => "DoubleType",
        CqlType::Duration => "DurationType",
        CqlType::Empty => "EmptyType",
        CqlType::Float => "FloatType",
        CqlType::Inet => "InetAddressType",
        CqlType::Int => "Int32Type",
        CqlType::Smallint => "ShortType",
        CqlType::Text => "UTF8Type",
        CqlType::Time => "TimeType",
        CqlType::Timestamp => "TimestampType",
        CqlType::Timeuuid => "TimeUUIDType",
        CqlType::Tinyint => "ByteType",
        CqlType::Uuid => "UUIDType",
        CqlType::Varint => "IntegerType",
        _ => return None,
    })
}

/// Inverse of [`simple_class`].
fn simple_type(class: &str) -> Option<CqlType> {
    Some(match class {
        "AsciiType" => CqlType::Ascii,
        "LongType" => CqlType::Bigint,
        "BytesType" => CqlType::Blob,
        "BooleanType" => CqlType::Boolean,
        "CounterColumnType" => CqlType::Counter,
        "SimpleDateType" => CqlType::Date,
        "DecimalType" => CqlType::Decimal,
        "DoubleType" => CqlType::Double,
        "DurationType" => CqlType::Duration,
        "EmptyType" => CqlType::Empty,
        "FloatType" => CqlType::Float,
        "InetAddressType" => CqlType::Inet,
        "Int32Type" => CqlType::Int,
        "ShortType" => CqlType::Smallint,
        "UTF8Type" => CqlType::Text,
        "TimeType" => CqlType::Time,
        // DateType is what timestamps were once.
        "TimestampType" | "DateType" => CqlType::Timestamp,
        "TimeUUIDType" => CqlType::Timeuuid,
        "ByteType" => CqlType::Tinyint,
        "UUIDType" => CqlType::Uuid,
        "IntegerType" => CqlType::Varint,
        _ => return None,
    })
}

/// `in_frozen`: something around it is frozen already, so that FrozenType is not written again.
fn put_class(cql_type: &CqlType, in_frozen: bool, out: &mut String) {
    if let CqlType::Custom(class) = cql_type {
        out.push_str(class);
        return;
    }
    let (is_frozen, name) = match cql_type {
        CqlType::List { frozen, .. } => (*frozen, "ListType("),
        CqlType::Set { frozen, .. } => (*frozen, "SetType("),
        CqlType::Map { frozen, .. } => (*frozen, "MapType("),
        CqlType::Udt { frozen, .. } => (*frozen, "UserType("),
        // Always frozen, so it is not said.
        CqlType::Tuple(_) => (false, "TupleType("),
        CqlType::Vector { .. } => (false, "VectorType("),
        CqlType::Composite(_) => (false, "CompositeType("),
        CqlType::DynamicComposite(_) => (false, "DynamicCompositeType("),
        _ => (false, ""),
    };
    let says_frozen = is_frozen && !in_frozen;
    if says_frozen {
        out.push_str(MARSHAL_PACKAGE);
        out.push_str("FrozenType(");
    }
    out.push_str(MARSHAL_PACKAGE);
    out.push_str(name);
    let in_frozen = in_frozen || is_frozen;
    match cql_type {
        CqlType::List { element, .. } | CqlType::Set { element, .. } => put_class(element, in_frozen, out),
        CqlType::Map { key, value, .. } => {
            put_class(key, in_frozen, out);
            out.push(',');
            put_class(value, in_frozen, out);
        }
        CqlType::Tuple(elements) => {
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                put_class(element, true, out);
            }
        }
        // The classes of components stand for themselves, so they say what is frozen.
        CqlType::Composite(elements) => {
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                put_class(element, false, out);
            }
        }
        CqlType::DynamicComposite(aliases) => {
            for (index, (alias, element)) in aliases.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push(char::from(*alias));
                out.push_str("=>");
                put_class(element, false, out);
            }
        }
        CqlType::Udt { definition, .. } => {
            out.push_str(&definition.keyspace);
            out.push(',');
            put_hex(&definition.name, out);
            for field in &definition.fields {
                out.push(',');
                put_hex(&field.name, out);
                out.push(':');
                put_class(&field.cql_type, in_frozen, out);
            }
        }
        CqlType::Vector { element, dimension } => {
            put_class(element, in_frozen, out);
            write!(out, " , {dimension}").expect("a String takes any text");
        }
        _ => out.push_str(simple_class(cql_type).unwrap_or_default()),
    }
    if !name.is_empty() {
        out.push(')');
    }
    if says_frozen {
        out.push(')');
    }
}

fn put_hex(name: &str, out: &mut String) {
    for byte in name.bytes() {
        write!(out, "{byte:02x}").expect("a String takes any text");
    }
}

/// Reads a class and its parameters; the answer's second part: it was in a ReversedType.
pub fn parse_marshal_class(text: &str) -> Result<(CqlType, bool), TypeTextError> {
    let mut parser = Parser {
        cursor: Cursor::new(text),
    };
    let (cql_type, reversed) = parser.parse_any()?;
    parser.cursor.finish(&cql_type)?;
    Ok((cql_type, reversed))
}

struct Parser<'a> {
    cursor: Cursor<'a>,
}

fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_' | '&')
}

impl Parser<'_> {
    /// A type inside another.
    fn parse(&mut self) -> Result<CqlType, TypeTextError> {
        self.parse_any().map(|(cql_type, _)| cql_type)
    }

    fn frozen(&mut self) -> Result<CqlType, TypeTextError> {
        Ok(self.parse()?.freeze())
    }

    fn parse_any(&mut self) -> Result<(CqlType, bool), TypeTextError> {
        self.cursor.skip_blanks();
        let start = self.cursor.offset;
        let class = match self.cursor.word(is_identifier) {
            "" => return Err(self.cursor.error("expected a class")),
            class => class,
        };
        let name = class.strip_prefix(MARSHAL_PACKAGE).unwrap_or(class);
        if let Some(simple) = simple_type(name) {
            return Ok((simple, false));
        }
        if !self.cursor.take('(') {
            return Ok((self.custom(start), false));
        }
        self.cursor.enter()?;
        let mut reversed = false;
        let parsed = match name {
            "FrozenType" => self.frozen()?,
            "ReversedType" => {
                reversed = true;
                self.parse()?
            }
            "ListType" => CqlType::List {
                element: self.frozen()?.into(),
                frozen: false,
            },
            "SetType" => CqlType::Set {
                element: self.frozen()?.into(),
                frozen: false,
            },
            "MapType" => {
                let key = self.frozen()?.into();
                self.cursor.expect(',')?;
                let value = self.frozen()?.into();
                CqlType::Map {
                    key,
                    value,
                    frozen: false,
                }
            }
            "TupleType" => {
                let mut elements = vec![self.frozen()?];
                while self.cursor.take(',') {
                    elements.push(self.frozen()?);
                }
                CqlType::Tuple(elements.into())
            }
            "VectorType" => {
                let element = self.frozen()?.into();
                self.cursor.expect(',')?;
                let dimension = self.cursor.dimension()?;
                CqlType::Vector { element, dimension }
            }
            "UserType" => self.user_type()?,
            "CompositeType" => {
                let mut components = vec![self.component()?];
                while self.cursor.take(',') {
                    components.push(self.component()?);
                }
                CqlType::Composite(components.into())
            }
            "DynamicCompositeType" => CqlType::DynamicComposite(self.aliases()?.into()),
            _ => {
                self.skip_parameters()?;
                self.cursor.leave();
                return Ok((self.custom(start), false));
            }
        };
        self.cursor.leave();
        self.cursor.expect(')')?;
        Ok((parsed, reversed))
    }

    /// A component of a composite: a type that has values, frozen.
    fn component(&mut self) -> Result<CqlType, TypeTextError> {
        match self.parse_any()? {
            (_, true) => Err(self.cursor.error("a component cannot be reversed")),
            (component, false) if component.is_value_of_composite() => Ok(component.freeze()),
            (component, false) => Err(self
                .cursor
                .error(format!("a component cannot be of type {component}"))),
        }
    }

    /// Aliases up to the closing `)`, sorted; the last type of an alias counts, as in Cassandra.
    fn aliases(&mut self) -> Result<Vec<(u8, CqlType)>, TypeTextError> {
        let mut aliases = BTreeMap::new();
        self.cursor.skip_blanks();
        while !self.cursor.rest().starts_with(')') {
            let alias = match *self.cursor.word(is_identifier).as_bytes() {
                [alias] => alias,
                _ => return Err(self.cursor.error("An alias should be a single character")),
            };
            self.cursor.expect('=')?;
            self.cursor.expect('>')?;
            aliases.insert(alias, self.component()?);
            if !self.cursor.take(',') {
                break;
            }
            self.cursor.skip_blanks();
        }
        Ok(aliases.into_iter().collect())
    }

    /// The class from `start` to here, with its package.
    fn custom(&self, start: usize) -> CqlType {
        let text = self
            .cursor
            .text
            .get(start..self.cursor.offset)
            .unwrap_or_default();
        let text = text.trim_end();
        let name = text.split('(').next().unwrap_or_default();
        if name.contains('.') {
            CqlType::Custom(text.into())
        } else {
            CqlType::Custom(format!("{MARSHAL_PACKAGE}{text}").into())
        }
    }

    /// To the `)` that belongs to the `(` just taken.
    fn skip_parameters(&mut self) -> Result<(), TypeTextError> {
        let mut open = 1_usize;
        for (at, c) in self.cursor.rest().char_indices() {
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                _ => {}
            }
            if open == 0 {
                self.cursor.offset += at + 1;
                return Ok(());
            }
        }
        Err(self.cursor.error("missing ')'"))
    }

    fn user_type(&mut self) -> Result<CqlType, TypeTextError> {
        let keyspace = self.cursor.word(is_identifier).into();
        self.cursor.expect(',')?;
        let name = self.hex_name()?;
        let mut fields = Vec::new();
        while self.cursor.take(',') {
            let name = self.hex_name()?;
            self.cursor.expect(':')?;
            let cql_type = self.frozen()?;
            fields.push(UserTypeField { name, cql_type });
        }
        let definition = Arc::new(UserType {
            keyspace,
            name,
            fields,
        });
        Ok(CqlType::Udt {
            definition,
            frozen: false,
        })
    }

    fn hex_name(&mut self) -> Result<Arc<str>, TypeTextError> {
        let word = self.cursor.word(is_identifier);
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let bytes: Option<Vec<u8>> = word
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            })
            .collect();
        bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Arc::from)
            .ok_or_else(|| {
                self.cursor
                    .error(format!("'{word}' is not a name in hexadecimal digits"))
            })
    }
}
