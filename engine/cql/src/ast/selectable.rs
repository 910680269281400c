//! What SELECT computes: terms plus references to columns.

use super::{ArithmeticOperator, Name, QualifiedName, RawType, Term};
use ceto_model::CqlType;

/// An expression over the columns of a row.
#[derive(Clone, PartialEq, Debug)]
pub enum Selectable {
    /// `a`
    Column(Name),
    /// A literal, `null` or a bind marker; no other term occurs here.
    Term(Term),
    /// `count(*)`
    CountRows,
    /// `writetime(a)`, `maxwritetime(a)`, `ttl(a)`
    CellMetadata {
        /// Which of them.
        kind: CellMetadata,
        /// The argument: a [`Selectable::Column`] below any number of elements, slices and fields.
        operand: Box<Selectable>,
    },
    /// `CAST(a AS type)`
    Cast {
        /// What is converted.
        operand: Box<Selectable>,
        /// The native type to convert to.
        target: CqlType,
    },
    /// `f(a, b)`, `token(k)`, `count(a)`
    Function {
        /// Name as written.
        name: QualifiedName,
        /// Arguments in order.
        arguments: Vec<Selectable>,
    },
    /// `a + b`
    Operation {
        /// The operator.
        operator: ArithmeticOperator,
        /// Left operand.
        left: Box<Selectable>,
        /// Right operand.
        right: Box<Selectable>,
    },
    /// `-a`
    Negation(Box<Selectable>),
    /// `a.field`
    Field {
        /// The user-defined type value.
        operand: Box<Selectable>,
        /// The field.
        field: Name,
    },
    /// `a[key]`
    Element {
        /// The collection.
        operand: Box<Selectable>,
        /// Key or index.
        key: Term,
    },
    /// `a[from..to]`, one bound at least
    Slice {
        /// The collection.
        operand: Box<Selectable>,
        /// Lower bound, included.
        from: Option<Term>,
        /// Upper bound, included.
        to: Option<Term>,
    },
    /// `(type) a`
    TypeHint {
        /// The type.
        raw_type: RawType,
        /// What has it.
        operand: Box<Selectable>,
    },
    /// `(a)` or `(a, b)`: one element may be mere parentheses or a tuple of one, the expected type decides.
    Tuple(Vec<Selectable>),
    /// `[a, b]`: a list or a vector.
    List(Vec<Selectable>),
    /// `{a, b}`, maybe empty
    Set(Vec<Selectable>),
    /// `{a: b}`: a map, or a user-defined type when the expected type says so and all keys are columns.
    MapOrUserType(Vec<(Selectable, Selectable)>),
}

/// What a cell knows beside its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CellMetadata {
    /// Write timestamp, microseconds.
    Writetime,
    /// The greatest write timestamp among the cells of a column.
    MaxWritetime,
    /// Remaining seconds to live.
    Ttl,
}

impl CellMetadata {
    /// Name of the function.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writetime => "writetime",
            Self::MaxWritetime => "maxwritetime",
            Self::Ttl => "ttl",
        }
    }
}
