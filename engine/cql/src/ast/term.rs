//! Terms: values as written, without any reference to a column.

use super::{Name, QualifiedName, RawType};
use ceto_model::CqlType;

/// A value as written in VALUES, SET, WHERE, IF, USING or LIMIT.
#[derive(Clone, PartialEq, Debug)]
pub enum Term {
    /// `1`, `'a'`, `true`, `0x00`, ...
    Literal(Literal),
    /// `null`
    Null,
    /// `?` or `:name`
    Marker(BindMarker),
    /// `[a, b]`: a list or a vector.
    List(Vec<Term>),
    /// `{a, b}`: a set. Empty braces are this too, though they may mean an empty map.
    Set(Vec<Term>),
    /// `{a: b, c: d}`, never empty.
    Map(Vec<(Term, Term)>),
    /// `{field: value}` with bare names as keys; never empty, every field once (the last one written wins).
    UserType(Vec<(Name, Term)>),
    /// `(a, b)`; one element is a tuple of one.
    Tuple(Vec<Term>),
    /// `f(a, b)`
    Function {
        /// Name as written.
        name: QualifiedName,
        /// Arguments in order.
        arguments: Vec<Term>,
    },
    /// `a + b`
    Operation {
        /// The operator.
        operator: ArithmeticOperator,
        /// Left operand.
        left: Box<Term>,
        /// Right operand.
        right: Box<Term>,
    },
    /// `- a` (a sign that touches digits belongs to the literal)
    Negation(Box<Term>),
    /// `(type) a`: says which type the term has, converts nothing.
    TypeHint {
        /// The type.
        raw_type: RawType,
        /// The term.
        term: Box<Term>,
    },
    /// `CAST(a AS type)`: converts.
    Cast {
        /// The term.
        term: Box<Term>,
        /// The native type to convert to.
        target: CqlType,
    },
}

/// A constant, still as text: only its receiver decides what it means (`1` may become a decimal, `'2020-01-01'` a date).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Literal {
    /// Which kind of token it was.
    pub kind: LiteralKind,
    /// Its text; for strings without the quotes.
    pub text: Box<str>,
}

/// Kinds of [`Literal`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LiteralKind {
    /// `'..'` or `$$..$$`
    String,
    /// `-?[0-9]+`
    Integer,
    /// Has a point or an exponent, or is `NaN`, `Infinity`, `-Infinity`.
    Float,
    /// `true`, `false` in any case.
    Boolean,
    /// `1h30m`, `PT1H30M`, `P0001-02-03T04:05:06`, optionally negative.
    Duration,
    /// 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// `0x` and hexadecimal digits, maybe none and maybe an odd number of them.
    Hex,
}

impl LiteralKind {
    /// The name that error texts use, as in `Invalid STRING constant (a) for "v" of type int`.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "STRING",
            Self::Integer => "INTEGER",
            Self::Float => "FLOAT",
            Self::Boolean => "BOOLEAN",
            Self::Duration => "DURATION",
            Self::Uuid => "UUID",
            Self::Hex => "HEX",
        }
    }
}

/// A place for a value that comes with the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BindMarker {
    /// Index into [`super::ParsedStatement::bind_variables`].
    pub index: usize,
}

/// `+ - * / %`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ArithmeticOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl ArithmeticOperator {
    /// As written.
    pub fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract => '-',
            Self::Multiply => '*',
            Self::Divide => '/',
            Self::Modulo => '%',
        }
    }
}
