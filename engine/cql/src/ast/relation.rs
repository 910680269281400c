//! WHERE clauses.

use super::{BindMarker, Name, QualifiedName, Term};

/// The conjunction after WHERE; empty when there is none.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WhereClause {
    /// In order of appearance.
    pub relations: Vec<Relation>,
    /// `expr(index, term)` in order of appearance.
    pub expressions: Vec<CustomIndexExpression>,
}

impl WhereClause {
    /// No restriction at all.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.expressions.is_empty()
    }
}

/// `subject operator operand`
#[derive(Clone, PartialEq, Debug)]
pub struct Relation {
    /// Left side.
    pub subject: RelationSubject,
    /// What must hold.
    pub operator: Operator,
    /// Right side.
    pub operand: Operand,
}

/// The left side of a [`Relation`].
#[derive(Clone, PartialEq, Debug)]
pub enum RelationSubject {
    /// `a`: any operator.
    Column(Name),
    /// `(a, b)`: comparison, IN, NOT IN, BETWEEN. At least one column.
    Columns(Vec<Name>),
    /// `token(a, b)`: comparison, BETWEEN. At least one column.
    Token(Vec<Name>),
    /// `a[key]`: comparison.
    Element {
        /// The collection column.
        column: Name,
        /// Key or index.
        key: Term,
    },
}

/// The right side of a [`Relation`] or [`super::ColumnCondition`].
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    /// One term. [`Term::Null`] for IS NOT NULL.
    Term(Term),
    /// IN (..), maybe empty; or exactly two terms for BETWEEN.
    Terms(Vec<Term>),
    /// IN ?: the whole list is bound.
    InMarker(BindMarker),
}

/// What a relation or condition demands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Between,
    Contains,
    ContainsKey,
    NotContains,
    NotContainsKey,
    Like,
    IsNotNull,
}

impl Operator {
    /// As written in CQL; IS NOT NULL without its NULL.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "IN",
            Self::NotIn => "NOT IN",
            Self::Between => "BETWEEN",
            Self::Contains => "CONTAINS",
            Self::ContainsKey => "CONTAINS KEY",
            Self::NotContains => "NOT CONTAINS",
            Self::NotContainsKey => "NOT CONTAINS KEY",
            Self::Like => "LIKE",
            Self::IsNotNull => "IS NOT",
        }
    }

    /// `= != < <= > >=`
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessOrEqual
                | Self::Greater
                | Self::GreaterOrEqual
        )
    }

    /// `< <= > >=`
    pub fn is_slice(self) -> bool {
        matches!(
            self,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual
        )
    }
}

/// `expr(index, term)`: asks a custom index.
#[derive(Clone, PartialEq, Debug)]
pub struct CustomIndexExpression {
    /// The index; never has a keyspace part.
    pub index: QualifiedName,
    /// What it is asked.
    pub term: Term,
}

/// All of a column, or one part of it.
#[derive(Clone, PartialEq, Debug)]
pub enum ColumnPart {
    /// `a`
    Whole,
    /// `a[key]`
    Element(Term),
    /// `a.field`
    Field(Name),
}
