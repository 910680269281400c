//! Terms and selectables as one tree, so that both are typed by one set of rules.
//!
//! The two differ in syntax only: a selectable may name columns. Borrowed from the syntax tree; as deep as that.

use crate::ast::{
    ArithmeticOperator, BindMarker, CellMetadata, Literal, Name, QualifiedName, RawType, Selectable, Term,
};
use ceto_model::CqlType;
use std::cell::OnceCell;
use std::sync::Arc;

/// A term or selectable.
#[derive(Clone, Debug)]
pub(crate) enum Raw<'a> {
    Literal(&'a Literal),
    Null,
    Marker(BindMarker),
    Column(&'a Name),
    CountRows,
    CellMetadata {
        kind: CellMetadata,
        operand: Box<Raw<'a>>,
    },
    Cast {
        operand: Box<Raw<'a>>,
        target: &'a CqlType,
    },
    Function {
        name: &'a QualifiedName,
        /// The keyspace of the function that it means, once that is known.
        resolved: OnceCell<Arc<str>>,
        arguments: Vec<Raw<'a>>,
    },
    Operation {
        operator: ArithmeticOperator,
        left: Box<Raw<'a>>,
        right: Box<Raw<'a>>,
    },
    Negation(Box<Raw<'a>>),
    Field {
        operand: Box<Raw<'a>>,
        field: &'a Name,
    },
    Element {
        operand: Box<Raw<'a>>,
        key: Box<Raw<'a>>,
    },
    Slice {
        operand: Box<Raw<'a>>,
        from: Option<Box<Raw<'a>>>,
        to: Option<Box<Raw<'a>>>,
    },
    TypeHint {
        raw_type: &'a RawType,
        operand: Box<Raw<'a>>,
    },
    Tuple(Vec<Raw<'a>>),
    List(Vec<Raw<'a>>),
    Set(Vec<Raw<'a>>),
    Map(Vec<(Raw<'a>, Raw<'a>)>),
    UserType(Vec<(&'a Name, Raw<'a>)>),
}

fn boxed<'a, T>(from: &'a T) -> Box<Raw<'a>>
where
    Raw<'a>: From<&'a T>,
{
    Box::new(Raw::from(from))
}

fn all<'a, T>(from: &'a [T]) -> Vec<Raw<'a>>
where
    Raw<'a>: From<&'a T>,
{
    from.iter().map(Raw::from).collect()
}

impl<'a> From<&'a Term> for Raw<'a> {
    fn from(term: &'a Term) -> Self {
        match term {
            Term::Literal(literal) => Self::Literal(literal),
            Term::Null => Self::Null,
            Term::Marker(marker) => Self::Marker(*marker),
            Term::List(elements) => Self::List(all(elements)),
            Term::Set(elements) => Self::Set(all(elements)),
            Term::Map(entries) => Self::Map(entries.iter().map(|(k, v)| (k.into(), v.into())).collect()),
            Term::UserType(fields) => {
                Self::UserType(fields.iter().map(|(name, value)| (name, value.into())).collect())
            }
            Term::Tuple(elements) => Self::Tuple(all(elements)),
            Term::Function { name, arguments } => Self::Function {
                name,
                resolved: OnceCell::new(),
                arguments: all(arguments),
            },
            Term::Operation {
                operator,
                left,
                right,
            } => Self::Operation {
                operator: *operator,
                left: boxed(left.as_ref()),
                right: boxed(right.as_ref()),
            },
            Term::Negation(operand) => Self::Negation(boxed(operand.as_ref())),
            Term::TypeHint { raw_type, term } => Self::TypeHint {
                raw_type,
                operand: boxed(term.as_ref()),
            },
            Term::Cast { term, target } => Self::Cast {
                operand: boxed(term.as_ref()),
                target,
            },
        }
    }
}

impl<'a> From<&'a Selectable> for Raw<'a> {
    fn from(selectable: &'a Selectable) -> Self {
        let bound = |term: &'a Option<Term>| term.as_ref().map(boxed);
        match selectable {
            Selectable::Column(name) => Self::Column(name),
            Selectable::Term(term) => term.into(),
            Selectable::CountRows => Self::CountRows,
            Selectable::CellMetadata { kind, operand } => Self::CellMetadata {
                kind: *kind,
                operand: boxed(operand.as_ref()),
            },
            Selectable::Cast { operand, target } => Self::Cast {
                operand: boxed(operand.as_ref()),
                target,
            },
            Selectable::Function { name, arguments } => Self::Function {
                name,
                resolved: OnceCell::new(),
                arguments: all(arguments),
            },
            Selectable::Operation {
                operator,
                left,
                right,
            } => Self::Operation {
                operator: *operator,
                left: boxed(left.as_ref()),
                right: boxed(right.as_ref()),
            },
            Selectable::Negation(operand) => Self::Negation(boxed(operand.as_ref())),
            Selectable::Field { operand, field } => Self::Field {
                operand: boxed(operand.as_ref()),
                field,
            },
            Selectable::Element { operand, key } => Self::Element {
                operand: boxed(operand.as_ref()),
                key: boxed(key),
            },
            Selectable::Slice { operand, from, to } => Self::Slice {
                operand: boxed(operand.as_ref()),
                from: bound(from),
                to: bound(to),
            },
            Selectable::TypeHint { raw_type, operand } => Self::TypeHint {
                raw_type,
                operand: boxed(operand.as_ref()),
            },
            Selectable::Tuple(elements) => Self::Tuple(all(elements)),
            Selectable::List(elements) => Self::List(all(elements)),
            Selectable::Set(elements) => Self::Set(all(elements)),
            Selectable::MapOrUserType(entries) => {
                Self::Map(entries.iter().map(|(k, v)| (k.into(), v.into())).collect())
            }
        }
    }
}

impl Raw<'_> {
    /// The keyspace of a called function, as far as it is known: native functions are in `system`.
    pub(crate) fn keyspace_of<'n>(name: &'n QualifiedName, resolved: &'n OnceCell<Arc<str>>) -> &'n str {
        let resolved = resolved.get().map(|keyspace| &**keyspace);
        resolved.or(name.keyspace.as_deref()).unwrap_or("system")
    }

    /// A map whose keys are all bare names can be a UDT.
    pub(crate) fn as_user_type(&self) -> Option<Vec<(&Name, &Raw<'_>)>> {
        match self {
            Self::UserType(fields) => Some(fields.iter().map(|(name, value)| (*name, value)).collect()),
            Self::Map(entries) if !entries.is_empty() => entries
                .iter()
                .map(|(key, value)| match key {
                    Raw::Column(name) => Some((*name, value)),
                    _ => None,
                })
                .collect(),
            _ => None,
        }
    }

    /// As text, for error texts and the names of result columns: native functions carry their keyspace.
    pub(crate) fn text(&self) -> String {
        let list = |items: &[Raw<'_>]| items.iter().map(Raw::text).collect::<Vec<_>>().join(", ");
        match self {
            Self::Literal(literal) => literal.to_string(),
            Self::Null => "NULL".to_owned(),
            Self::Marker(_) => "?".to_owned(),
            Self::Column(name) => (**name).to_string(),
            Self::CountRows => "count".to_owned(),
            Self::CellMetadata { kind, operand } => format!("{}({})", kind.name(), operand.text()),
            Self::Cast { operand, target } => format!("cast({} as {target})", operand.text()),
            Self::Function {
                name,
                resolved,
                arguments,
            } => {
                let keyspace = Self::keyspace_of(name, resolved);
                format!("{keyspace}.{}({})", name.name, list(arguments))
            }
            Self::Operation {
                operator,
                left,
                right,
            } => {
                format!("{} {} {}", left.text(), operator.symbol(), right.text())
            }
            Self::Negation(operand) => format!("-{}", operand.text()),
            Self::Field { operand, field } => format!("{}.{field}", operand.text()),
            Self::Element { operand, key } => format!("{}[{}]", operand.text(), key.text()),
            Self::Slice { operand, from, to } => {
                let bound = |bound: &Option<Box<Raw<'_>>>| bound.as_ref().map_or(String::new(), |b| b.text());
                format!("{}[{}..{}]", operand.text(), bound(from), bound(to))
            }
            Self::TypeHint { raw_type, operand } => format!("({raw_type}){}", operand.text()),
            Self::Tuple(elements) => format!("({})", list(elements)),
            Self::List(elements) => format!("[{}]", list(elements)),
            Self::Set(elements) => format!("{{{}}}", list(elements)),
            Self::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| format!("{}: {}", key.text(), value.text()))
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
            Self::UserType(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", value.text()))
                    .collect();
                format!("{{{}}}", fields.join(", "))
            }
        }
    }
}
