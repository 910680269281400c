//! Types as written, user-defined types not yet looked up.

use super::QualifiedName;
use ceto_model::CqlType;

/// A type as written.
#[derive(Clone, PartialEq, Debug)]
pub enum RawType {
    /// A scalar type (`varchar` is already [`CqlType::Text`]).
    Native(CqlType),
    /// `list<element>`
    List(Box<RawType>),
    /// `set<element>`
    Set(Box<RawType>),
    /// `map<key, value>`
    Map(Box<RawType>, Box<RawType>),
    /// `tuple<..>`, at least one element.
    Tuple(Vec<RawType>),
    /// `vector<element, dimension>`
    Vector {
        /// Type of the elements.
        element: Box<RawType>,
        /// As written, so maybe zero or negative.
        dimension: i32,
    },
    /// `name` or `keyspace.name`
    UserType(QualifiedName),
    /// `frozen<inner>`; `inner` is a collection, tuple, vector, user-defined type or frozen itself.
    Frozen(Box<RawType>),
    /// `'java.class.Name'`
    Custom(Box<str>),
}
