//! CQL types: what a column, a bind marker or a function argument may hold.
//!
//! A type is a value, cheap to clone (nested types are shared), equal by structure. Two notions matter everywhere:
//! - *frozen*: the value is one cell, replaced as a whole. A collection or UDT column that is not frozen is
//!   *multi-cell*: it has one cell per element or field (see [`CqlType::is_multicell`]).
//! - *name*: [`std::fmt::Display`] gives the CQL text that `system_schema` stores and `DESCRIBE` prints.
//!
//! Never: knows how a value is laid out. That is `value`'s work.

use std::fmt;
use std::sync::Arc;

/// A CQL type.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CqlType {
    /// US-ASCII string.
    Ascii,
    /// 64-bit signed integer.
    Bigint,
    /// Arbitrary bytes.
    Blob,
    /// true or false.
    Boolean,
    /// 64-bit counter.
    Counter,
    /// Days, 2^31 being 1970-01-01.
    Date,
    /// Arbitrary-precision decimal.
    Decimal,
    /// IEEE 754 binary64.
    Double,
    /// Months, days, nanoseconds. Has no order, so it is never part of a key.
    Duration,
    /// The type of no value; only in result metadata of custom types.
    Empty,
    /// IEEE 754 binary32.
    Float,
    /// IPv4 or IPv6 address.
    Inet,
    /// 32-bit signed integer.
    Int,
    /// 16-bit signed integer.
    Smallint,
    /// UTF-8 string (`varchar` is a synonym).
    Text,
    /// Nanoseconds since midnight.
    Time,
    /// Milliseconds since 1970-01-01T00:00Z.
    Timestamp,
    /// Version 1 UUID, ordered by its time.
    Timeuuid,
    /// 8-bit signed integer.
    Tinyint,
    /// Any UUID.
    Uuid,
    /// Arbitrary-precision integer.
    Varint,
    /// Ordered elements, duplicates allowed.
    List {
        /// Type of the elements.
        element: Arc<CqlType>,
        /// One cell for the whole value.
        frozen: bool,
    },
    /// Sorted distinct elements.
    Set {
        /// Type of the elements.
        element: Arc<CqlType>,
        /// One cell for the whole value.
        frozen: bool,
    },
    /// Entries sorted by key.
    Map {
        /// Type of the keys.
        key: Arc<CqlType>,
        /// Type of the values.
        value: Arc<CqlType>,
        /// One cell for the whole value.
        frozen: bool,
    },
    /// Fixed sequence of typed elements; always frozen.
    Tuple(Arc<[CqlType]>),
    /// User-defined type.
    Udt {
        /// The definition.
        definition: Arc<UserType>,
        /// One cell for the whole value.
        frozen: bool,
    },
    /// Fixed number of elements of one type; always frozen.
    Vector {
        /// Type of the elements.
        element: Arc<CqlType>,
        /// Number of elements, at least 1.
        dimension: u16,
    },
    /// The class CompositeType: components of these types, from the left; has no CQL name. See `value::composite`.
    Composite(Arc<[CqlType]>),
    /// The class DynamicCompositeType: each component says its type, by one of these aliases or by class; sorted by alias.
    DynamicComposite(Arc<[(u8, CqlType)]>),
    /// A Java marshal class without a CQL name.
    Custom(Arc<str>),
}

/// A user-defined type: `CREATE TYPE keyspace.name (field type, ...)`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UserType {
    /// Keyspace it belongs to.
    pub keyspace: Arc<str>,
    /// Name, as stored (not quoted).
    pub name: Arc<str>,
    /// Fields in order of definition; a field is never removed, only renamed or appended.
    pub fields: Vec<UserTypeField>,
}

/// One field of a [`UserType`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UserTypeField {
    /// Name, as stored (not quoted).
    pub name: Arc<str>,
    /// Its type as it was defined; a collection or UDT that is not frozen is one inside a frozen value all the same.
    pub cql_type: CqlType,
}

impl CqlType {
    /// Not frozen, so one cell per element or field.
    pub fn is_multicell(&self) -> bool {
        match self {
            Self::List { frozen, .. }
            | Self::Set { frozen, .. }
            | Self::Map { frozen, .. }
            | Self::Udt { frozen, .. } => !frozen,
            _ => false,
        }
    }

    /// list, set or map, frozen or not.
    pub fn is_collection(&self) -> bool {
        matches!(self, Self::List { .. } | Self::Set { .. } | Self::Map { .. })
    }

    /// The same type with its outermost layer (and all inside) frozen.
    pub fn freeze(&self) -> CqlType {
        let frozen = true;
        match self {
            Self::List { element, .. } => Self::List {
                element: Arc::new(element.freeze()),
                frozen,
            },
            Self::Set { element, .. } => Self::Set {
                element: Arc::new(element.freeze()),
                frozen,
            },
            Self::Map { key, value, .. } => Self::Map {
                key: Arc::new(key.freeze()),
                value: Arc::new(value.freeze()),
                frozen,
            },
            Self::Udt { definition, .. } => Self::Udt {
                definition: definition.clone(),
                frozen,
            },
            other => other.clone(),
        }
    }

    /// True if `name` of `keyspace` is this UDT or occurs anywhere inside.
    pub fn references(&self, keyspace: &str, name: &str) -> bool {
        match self {
            Self::List { element, .. } | Self::Set { element, .. } | Self::Vector { element, .. } => {
                element.references(keyspace, name)
            }
            Self::Map { key, value, .. } => {
                key.references(keyspace, name) || value.references(keyspace, name)
            }
            Self::Tuple(elements) | Self::Composite(elements) => {
                elements.iter().any(|e| e.references(keyspace, name))
            }
            Self::DynamicComposite(aliases) => aliases.iter().any(|(_, e)| e.references(keyspace, name)),
            Self::Udt { definition, .. } => {
                (&*definition.keyspace == keyspace && &*definition.name == name)
                    || definition
                        .fields
                        .iter()
                        .any(|f| f.cql_type.references(keyspace, name))
            }
            _ => false,
        }
    }

    /// May be a component of a composite: all that has values of its own.
    pub(crate) fn is_value_of_composite(&self) -> bool {
        !matches!(self, Self::Counter | Self::Custom(_))
    }

    /// A dynamic composite, or made of one.
    pub(crate) fn holds_dynamic_composite(&self) -> bool {
        match self {
            Self::List { element, .. } | Self::Set { element, .. } | Self::Vector { element, .. } => {
                element.holds_dynamic_composite()
            }
            Self::Map { key, value, .. } => key.holds_dynamic_composite() || value.holds_dynamic_composite(),
            Self::Tuple(elements) | Self::Composite(elements) => {
                elements.iter().any(Self::holds_dynamic_composite)
            }
            Self::Udt { definition, .. } => definition
                .fields
                .iter()
                .any(|f| f.cql_type.holds_dynamic_composite()),
            Self::DynamicComposite(_) => true,
            _ => false,
        }
    }

    /// The fixed size of a non-null, non-empty value in bytes, or None when values vary in size.
    pub fn fixed_size(&self) -> Option<usize> {
        match self {
            Self::Boolean | Self::Tinyint => Some(1),
            Self::Smallint => Some(2),
            Self::Int | Self::Float | Self::Date => Some(4),
            Self::Bigint | Self::Counter | Self::Double | Self::Time | Self::Timestamp => Some(8),
            Self::Uuid | Self::Timeuuid => Some(16),
            Self::Vector { element, dimension } => {
                element.fixed_size().map(|size| size * usize::from(*dimension))
            }
            _ => None,
        }
    }
}

impl fmt::Display for CqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Ascii => "ascii",
            Self::Bigint => "bigint",
            Self::Blob => "blob",
            Self::Boolean => "boolean",
            Self::Counter => "counter",
            Self::Date => "date",
            Self::Decimal => "decimal",
            Self::Double => "double",
            Self::Duration => "duration",
            Self::Empty => "empty",
            Self::Float => "float",
            Self::Inet => "inet",
            Self::Int => "int",
            Self::Smallint => "smallint",
            Self::Text => "text",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timeuuid => "timeuuid",
            Self::Tinyint => "tinyint",
            Self::Uuid => "uuid",
            Self::Varint => "varint",
            Self::List { element, frozen } => {
                return write_frozen(f, *frozen, |f| write!(f, "list<{element}>"));
            }
            Self::Set { element, frozen } => {
                return write_frozen(f, *frozen, |f| write!(f, "set<{element}>"));
            }
            Self::Map { key, value, frozen } => {
                return write_frozen(f, *frozen, |f| write!(f, "map<{key}, {value}>"));
            }
            Self::Tuple(elements) => {
                return write_frozen(f, true, |f| {
                    f.write_str("tuple<")?;
                    for (i, element) in elements.iter().enumerate() {
                        write!(f, "{}{element}", if i == 0 { "" } else { ", " })?;
                    }
                    f.write_str(">")
                });
            }
            Self::Udt { definition, frozen } => {
                return write_frozen(f, *frozen, |f| f.write_str(&quote_type_name(&definition.name)));
            }
            Self::Vector { element, dimension } => return write!(f, "vector<{element}, {dimension}>"),
            Self::Composite(_) | Self::DynamicComposite(_) => {
                return write!(f, "'{}'", crate::type_text::marshal_class(self, false));
            }
            Self::Custom(class) => return write!(f, "'{class}'"),
        };
        f.write_str(name)
    }
}

fn write_frozen(
    f: &mut fmt::Formatter<'_>,
    frozen: bool,
    inner: impl FnOnce(&mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    if !frozen {
        return inner(f);
    }
    f.write_str("frozen<")?;
    inner(f)?;
    f.write_str(">")
}

/// An identifier as CQL text: bare when it is lower case and no reserved word, else in double quotes.
pub fn quote_identifier(name: &str) -> String {
    let bare = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && RESERVED_WORDS.binary_search(&name).is_err();
    if bare {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Words that cannot be identifiers without quotes: Cassandra's `ReservedKeywords`, and the two boolean constants, which
/// are no names either. Sorted.
pub const RESERVED_WORDS: &[&str] = &[
    "add",
    "allow",
    "alter",
    "and",
    "apply",
    "asc",
    "authorize",
    "batch",
    "begin",
    "by",
    "columnfamily",
    "create",
    "delete",
    "desc",
    "describe",
    "drop",
    "entries",
    "execute",
    "false",
    "from",
    "full",
    "grant",
    "if",
    "in",
    "index",
    "infinity",
    "insert",
    "into",
    "is",
    "keyspace",
    "limit",
    "materialized",
    "modify",
    "nan",
    "norecursive",
    "not",
    "null",
    "of",
    "on",
    "or",
    "order",
    "primary",
    "rename",
    "revoke",
    "schema",
    "select",
    "set",
    "table",
    "to",
    "token",
    "true",
    "truncate",
    "unlogged",
    "update",
    "use",
    "using",
    "view",
    "where",
    "with",
];

/// A user-defined type's name as CQL text: like [`quote_identifier`], but what would read as another type, or may be a
/// name elsewhere but not of a type, is quoted too.
fn quote_type_name(name: &str) -> String {
    if TYPE_WORDS.binary_search(&name).is_ok() {
        format!("\"{name}\"")
    } else {
        quote_identifier(name)
    }
}

/// Words that name other types, or that the grammar keeps from being type names. Sorted.
const TYPE_WORDS: &[&str] = &[
    "ascii",
    "bigint",
    "bitstring",
    "blob",
    "boolean",
    "byte",
    "cast",
    "complex",
    "count",
    "counter",
    "date",
    "decimal",
    "distinct",
    "double",
    "duration",
    "empty",
    "enum",
    "float",
    "frozen",
    "inet",
    "int",
    "interval",
    "json",
    "list",
    "macaddr",
    "map",
    "maxwritetime",
    "set",
    "smallint",
    "text",
    "time",
    "timestamp",
    "timeuuid",
    "tinyint",
    "ttl",
    "tuple",
    "uuid",
    "varchar",
    "varint",
    "vector",
    "writetime",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted() {
        assert!(RESERVED_WORDS.is_sorted());
        assert!(TYPE_WORDS.is_sorted());
    }

    #[test]
    fn quotes_what_would_not_read_back() {
        for (name, text) in [
            ("users", "users"),
            ("key", "key"),
            ("int", "int"),
            ("select", "\"select\""),
            ("true", "\"true\""),
            ("Users", "\"Users\""),
            ("1st", "\"1st\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_identifier(name), text);
        }
        assert_eq!(quote_type_name("int"), "\"int\"");
        assert_eq!(quote_type_name("address"), "address");
    }
}
