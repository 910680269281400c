//! Terms, selectables, types and relations as CQL text: for result column names, error texts and the stored WHERE
//! clause of materialized views.
//!
//! Names of columns print bare in selectables (result column names show them so) and quoted where needed in
//! WHERE clauses (those are parsed again).

use super::{
    ColumnPart, CustomIndexExpression, Literal, LiteralKind, Name, Operand, Operator, QualifiedName, RawType,
    Relation, RelationSubject, Selectable, Term, WhereClause,
};
use ceto_model::types::quote_identifier;
use std::fmt::{self, Display, Formatter};

fn write_list<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
    }
    Ok(())
}

fn write_pairs<K: Display, V: Display>(f: &mut Formatter<'_>, pairs: &[(K, V)]) -> fmt::Result {
    f.write_str("{")?;
    for (i, (key, value)) in pairs.iter().enumerate() {
        write!(f, "{}{key}: {value}", if i == 0 { "" } else { ", " })?;
    }
    f.write_str("}")
}

fn write_names(f: &mut Formatter<'_>, names: &[Name]) -> fmt::Result {
    f.write_str("(")?;
    for (i, name) in names.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { ", " }, quote_identifier(name))?;
    }
    f.write_str(")")
}

/// Quoted where needed; `token` is reserved, but not as the name of a function.
fn write_function_name(f: &mut Formatter<'_>, name: &QualifiedName) -> fmt::Result {
    if let Some(keyspace) = &name.keyspace {
        write!(f, "{}.", quote_identifier(keyspace))?;
    }
    match &*name.name {
        "token" => f.write_str("token"),
        other => f.write_str(&quote_identifier(other)),
    }
}

/// `keyspace.name`, without quotes.
impl Display for QualifiedName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.keyspace {
            Some(keyspace) => write!(f, "{keyspace}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.kind {
            LiteralKind::String => write!(f, "'{}'", self.text.replace('\'', "''")),
            _ => f.write_str(&self.text),
        }
    }
}

/// CQL text that parses to the same term, save that every bind marker is `?`.
impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => literal.fmt(f),
            Self::Null => f.write_str("NULL"),
            Self::Marker(_) => f.write_str("?"),
            Self::List(elements) => {
                f.write_str("[")?;
                write_list(f, elements)?;
                f.write_str("]")
            }
            Self::Set(elements) => {
                f.write_str("{")?;
                write_list(f, elements)?;
                f.write_str("}")
            }
            Self::Map(entries) => write_pairs(f, entries),
            Self::UserType(fields) => {
                f.write_str("{")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    write!(
                        f,
                        "{}{}: {value}",
                        if i == 0 { "" } else { ", " },
                        quote_identifier(name)
                    )?;
                }
                f.write_str("}")
            }
            Self::Tuple(elements) => {
                f.write_str("(")?;
                write_list(f, elements)?;
                f.write_str(")")
            }
            Self::Function { name, arguments } => {
                write_function_name(f, name)?;
                f.write_str("(")?;
                write_list(f, arguments)?;
                f.write_str(")")
            }
            Self::Operation {
                operator,
                left,
                right,
            } => write!(f, "{left} {} {right}", operator.symbol()),
            Self::Negation(term) => write!(f, "- {term}"),
            Self::TypeHint { raw_type, term } => write!(f, "({raw_type}) {term}"),
            Self::Cast { term, target } => write!(f, "CAST({term} AS {target})"),
        }
    }
}

/// The name that a result column gets when it has no alias and its functions are not resolved further.
impl Display for Selectable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(name) => f.write_str(name),
            Self::Term(term) => term.fmt(f),
            Self::CountRows => f.write_str("count(*)"),
            Self::CellMetadata { kind, operand } => write!(f, "{}({operand})", kind.name()),
            Self::Cast { operand, target } => write!(f, "cast({operand} as {target})"),
            Self::Function { name, arguments } => {
                write!(f, "{name}(")?;
                write_list(f, arguments)?;
                f.write_str(")")
            }
            Self::Operation {
                operator,
                left,
                right,
            } => write!(f, "{left} {} {right}", operator.symbol()),
            Self::Negation(operand) => write!(f, "-{operand}"),
            Self::Field { operand, field } => write!(f, "{operand}.{field}"),
            Self::Element { operand, key } => write!(f, "{operand}[{key}]"),
            Self::Slice { operand, from, to } => {
                write!(f, "{operand}[")?;
                if let Some(from) = from {
                    write!(f, "{from}")?;
                }
                f.write_str("..")?;
                if let Some(to) = to {
                    write!(f, "{to}")?;
                }
                f.write_str("]")
            }
            Self::TypeHint { raw_type, operand } => write!(f, "({raw_type}){operand}"),
            Self::Tuple(elements) => {
                f.write_str("(")?;
                write_list(f, elements)?;
                f.write_str(")")
            }
            Self::List(elements) => {
                f.write_str("[")?;
                write_list(f, elements)?;
                f.write_str("]")
            }
            Self::Set(elements) => {
                f.write_str("{")?;
                write_list(f, elements)?;
                f.write_str("}")
            }
            Self::MapOrUserType(entries) => write_pairs(f, entries),
        }
    }
}

impl Display for RawType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(native) => native.fmt(f),
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Set(element) => write!(f, "set<{element}>"),
            Self::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Self::Tuple(elements) => {
                f.write_str("tuple<")?;
                write_list(f, elements)?;
                f.write_str(">")
            }
            Self::Vector { element, dimension } => write!(f, "vector<{element}, {dimension}>"),
            Self::UserType(QualifiedName { keyspace, name }) => {
                if let Some(keyspace) = keyspace {
                    write!(f, "{}.", quote_identifier(keyspace))?;
                }
                f.write_str(&quote_identifier(name))
            }
            Self::Frozen(inner) => write!(f, "frozen<{inner}>"),
            Self::Custom(class) => write!(f, "'{class}'"),
        }
    }
}

impl Display for Operator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

impl Display for RelationSubject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(name) => f.write_str(&quote_identifier(name)),
            Self::Columns(names) => write_names(f, names),
            Self::Token(names) => {
                f.write_str("token")?;
                write_names(f, names)
            }
            Self::Element { column, key } => write!(f, "{}[{key}]", quote_identifier(column)),
        }
    }
}

impl Display for ColumnPart {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Element(key) => write!(f, "[{key}]"),
            Self::Field(field) => write!(f, ".{}", quote_identifier(field)),
        }
    }
}

impl Display for Relation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.subject, self.operator)?;
        match (&self.operand, self.operator) {
            (Operand::Terms(bounds), Operator::Between) => {
                for (i, bound) in bounds.iter().enumerate() {
                    write!(f, "{}{bound}", if i == 0 { "" } else { " AND " })?;
                }
                Ok(())
            }
            (Operand::Terms(terms), _) => {
                f.write_str("(")?;
                write_list(f, terms)?;
                f.write_str(")")
            }
            (Operand::Term(term), _) => term.fmt(f),
            (Operand::InMarker(_), _) => f.write_str("?"),
        }
    }
}

impl Display for CustomIndexExpression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "expr({}, {})", quote_identifier(&self.index.name), self.term)
    }
}

/// CQL text without the word WHERE.
impl Display for WhereClause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for relation in &self.relations {
            write!(f, "{separator}{relation}")?;
            separator = " AND ";
        }
        for expression in &self.expressions {
            write!(f, "{separator}{expression}")?;
            separator = " AND ";
        }
        Ok(())
    }
}
