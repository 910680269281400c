//! Types as written to types: user-defined types are looked up, what is inside a frozen type is frozen, and what may not
//! stand inside what is refused.
//!
//! Grammar lets through more than makes sense, and definitions refer to each other, so this is also where size is
//! bounded: a type is refused when it nests too deep, or when writing it out with all definitions would take more than
//! [`TYPE_NODES_MAX`] types. All code that walks types relies on it.

use super::type_use::{expanded_size, for_each_leaf};
use crate::CqlError;
use crate::ast::{QualifiedName, RawType};
use ceto_model::type_text::{DEPTH_MAX, depth, parse_marshal_class};
use ceto_model::{CqlType, UserType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many types a type may consist of, those inside its user-defined types counted at each place of use.
pub const TYPE_NODES_MAX: usize = 4096;

/// The user-defined types of one keyspace: a statement can use no others.
#[derive(Clone, Copy)]
pub(crate) struct TypeScope<'a> {
    /// The keyspace of the statement.
    pub(crate) keyspace: &'a str,
    /// Its types.
    pub(crate) types: &'a BTreeMap<Arc<str>, Arc<UserType>>,
}

/// The type that is written, its user-defined types looked up.
///
/// # Errors
/// `Invalid`, when a type is unknown or of another keyspace, may not be where it is, or the whole is too deep or large.
pub(crate) fn resolve_type(raw: &RawType, scope: TypeScope<'_>) -> Result<CqlType, CqlError> {
    let resolved = scope.resolve(raw, false)?;
    check_size(&resolved, raw)?;
    Ok(resolved)
}

/// As [`resolve_type`], for a place that holds a value as a whole: a bind marker or a type hint.
pub(crate) fn resolve_frozen_type(raw: &RawType, scope: TypeScope<'_>) -> Result<CqlType, CqlError> {
    let resolved = scope.resolve(raw, true)?;
    check_size(&resolved, raw)?;
    Ok(resolved)
}

/// Refuses a type that is too deep or too large.
pub(super) fn check_size(cql_type: &CqlType, shown: &dyn std::fmt::Display) -> Result<(), CqlError> {
    if depth(cql_type) > DEPTH_MAX {
        return Err(CqlError::invalid(format!(
            "Type {shown} nests deeper than {DEPTH_MAX} levels"
        )));
    }
    if expanded_size(cql_type) > TYPE_NODES_MAX {
        return Err(CqlError::invalid(format!(
            "Type {shown} consists of more than {TYPE_NODES_MAX} types"
        )));
    }
    Ok(())
}

impl TypeScope<'_> {
    /// `frozen`: the type is inside a frozen one, or was written as `frozen<raw>`.
    fn resolve(self, raw: &RawType, frozen: bool) -> Result<CqlType, CqlError> {
        Ok(match raw {
            RawType::Native(native) => native.clone(),
            RawType::Custom(class) => match custom(class)? {
                cql_type if frozen => cql_type.freeze(),
                cql_type => cql_type,
            },
            RawType::List(element) => CqlType::List {
                element: self.element(raw, element, frozen)?,
                frozen,
            },
            RawType::Set(element) => {
                self.refuse(element, &CqlType::Duration, || match frozen {
                    true => format!("Durations are not allowed inside sets: frozen<{raw}>"),
                    false => format!("Durations are not allowed inside sets: {raw}"),
                })?;
                CqlType::Set {
                    element: self.element(raw, element, frozen)?,
                    frozen,
                }
            }
            RawType::Map(key, value) => {
                // in Cassandra's order: the value, then the key
                self.check_element(raw, value, frozen)?;
                self.refuse(key, &CqlType::Counter, || {
                    format!("Counters are not allowed inside collections: {raw}")
                })?;
                self.refuse(key, &CqlType::Duration, || {
                    format!("Durations are not allowed as map keys: {raw}")
                })?;
                CqlType::Map {
                    key: self.element(raw, key, frozen)?,
                    value: self.element(raw, value, frozen)?,
                    frozen,
                }
            }
            RawType::Tuple(elements) => {
                let elements = elements.iter().map(|element| {
                    self.refuse(element, &CqlType::Counter, || {
                        "Counters are not allowed inside tuples".to_owned()
                    })?;
                    self.resolve(element, true)
                });
                CqlType::Tuple(elements.collect::<Result<_, _>>()?)
            }
            RawType::Vector { element, dimension } => {
                self.refuse(element, &CqlType::Counter, || {
                    "Counters are not allowed inside vectors".to_owned()
                })?;
                CqlType::Vector {
                    element: Arc::new(self.resolve(element, true)?),
                    dimension: vector_dimension(*dimension)?,
                }
            }
            RawType::UserType(name) => CqlType::Udt {
                definition: self.user_type(name)?,
                frozen,
            },
            RawType::Frozen(inner) => match &**inner {
                RawType::Native(_) | RawType::Custom(_) => {
                    return Err(CqlError::invalid(format!(
                        "frozen<> is only allowed on collections, tuples, and user-defined types (got {inner})"
                    )));
                }
                inner => self.resolve(inner, true)?,
            },
        })
    }

    /// What stands inside a collection; it is always frozen, but in a collection that is not it must say so.
    fn element(self, outer: &RawType, element: &RawType, frozen: bool) -> Result<Arc<CqlType>, CqlError> {
        self.check_element(outer, element, frozen)?;
        self.resolve(element, true).map(Arc::new)
    }

    fn check_element(self, outer: &RawType, element: &RawType, frozen: bool) -> Result<(), CqlError> {
        match element {
            RawType::List(_) | RawType::Set(_) | RawType::Map(..) if !frozen => Err(CqlError::invalid(
                format!("Non-frozen collections are not allowed inside collections: {outer}"),
            )),
            RawType::UserType(_) if !frozen => Err(CqlError::invalid(format!(
                "Non-frozen UDTs are not allowed inside collections: {outer}"
            ))),
            element => self.refuse(element, &CqlType::Counter, || {
                format!("Counters are not allowed inside collections: {outer}")
            }),
        }
    }

    fn refuse(
        self,
        raw: &RawType,
        refused: &CqlType,
        message: impl FnOnce() -> String,
    ) -> Result<(), CqlError> {
        match raw {
            RawType::Native(native) if native == refused => Err(CqlError::Invalid(message())),
            _ => Ok(()),
        }
    }

    fn user_type(self, name: &QualifiedName) -> Result<Arc<UserType>, CqlError> {
        let own = self.keyspace;
        if let Some(other) = name.keyspace.as_deref()
            && other != own
        {
            return Err(CqlError::invalid(format!(
                "Statement on keyspace {own} cannot refer to a user type in keyspace {other}; user types can only be \
                 used in the keyspace they are defined in"
            )));
        }
        let found = self.types.get(&name.name).cloned();
        found.ok_or_else(|| CqlError::invalid(format!("Unknown type {own}.{}", name.name)))
    }
}

fn vector_dimension(dimension: i32) -> Result<u16, CqlError> {
    if dimension <= 0 {
        return Err(CqlError::invalid(format!(
            "vectors may only have positive dimensions; given {dimension}"
        )));
    }
    u16::try_from(dimension).map_err(|_| {
        CqlError::invalid(format!(
            "vectors may have at most {} dimensions; given {dimension}",
            u16::MAX
        ))
    })
}

/// A type by its Java class. Classes that CQL has a name for are that type, so they are shown by it.
fn custom(class: &str) -> Result<CqlType, CqlError> {
    let cql_type = match parse_marshal_class(class) {
        Ok((_, true)) => {
            return Err(CqlError::syntax(format!(
                "Error setting type {class}: the order of a column is said by WITH CLUSTERING ORDER BY"
            )));
        }
        Ok((cql_type, false)) => cql_type,
        Err(error) => return Err(CqlError::syntax(format!("Cannot parse type {class}: {error}"))),
    };
    let mut unknown = None;
    for_each_leaf(&cql_type, &mut |leaf| match leaf {
        CqlType::Custom(class) => unknown = Some(format!("Unable to find abstract-type class '{class}'")),
        CqlType::Udt { definition, .. } => {
            unknown = Some(format!(
                "user-defined types are used by name: {}",
                definition.name
            ));
        }
        _ => {}
    });
    match unknown {
        Some(why) => Err(CqlError::syntax(format!("Error setting type {class}: {why}"))),
        None => Ok(cql_type),
    }
}
