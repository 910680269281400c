//! INSERT, UPDATE, DELETE and BATCH.

use super::{BindMarker, ColumnPart, Name, Operand, Operator, QualifiedName, Term, WhereClause};

/// A statement that writes rows.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Modification {
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
}

impl Modification {
    /// The table it writes to.
    pub fn table(&self) -> &QualifiedName {
        match self {
            Self::Insert(insert) => &insert.table,
            Self::Update(update) => &update.table,
            Self::Delete(delete) => &delete.table,
        }
    }

    /// Its USING clause.
    pub fn using(&self) -> &Using {
        match self {
            Self::Insert(insert) => &insert.using,
            Self::Update(update) => &update.using,
            Self::Delete(delete) => &delete.using,
        }
    }
}

/// The USING clause; all None when there is none.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Using {
    /// TIMESTAMP, microseconds: an integer literal or a bind marker.
    pub timestamp: Option<Term>,
    /// TTL, seconds: an integer literal or a bind marker. Never set on DELETE.
    pub ttl: Option<Term>,
    /// TIMEOUT: a duration literal or a bind marker (extension).
    pub timeout: Option<Term>,
}

/// `INSERT INTO table ..`
#[derive(Clone, PartialEq, Debug)]
pub struct Insert {
    /// Where to.
    pub table: QualifiedName,
    /// What.
    pub content: InsertContent,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// USING
    pub using: Using,
}

/// What an INSERT writes.
#[derive(Clone, PartialEq, Debug)]
pub enum InsertContent {
    /// `(a, b) VALUES (1, 2)`: the two lists may differ in length, which is an Invalid request.
    Values {
        /// Column names, at least one.
        columns: Vec<Name>,
        /// Values, at least one.
        values: Vec<Term>,
    },
    /// `JSON '{..}' [DEFAULT NULL | UNSET]`
    Json {
        /// The document.
        value: JsonValue,
        /// What becomes of columns that it lacks.
        default: JsonDefault,
    },
}

/// The document of INSERT JSON.
#[derive(Clone, PartialEq, Debug)]
pub enum JsonValue {
    /// A string literal.
    Literal(Box<str>),
    /// A bind marker of type text.
    Marker(BindMarker),
}

/// What INSERT JSON does with a column that the document lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsonDefault {
    /// Deletes it.
    Null,
    /// Leaves it as it is.
    Unset,
}

/// `UPDATE table SET .. WHERE ..`
#[derive(Clone, PartialEq, Debug)]
pub struct Update {
    /// Where to.
    pub table: QualifiedName,
    /// USING
    pub using: Using,
    /// At least one; a column that is set as a whole occurs once.
    pub assignments: Vec<Assignment>,
    /// Which rows; never empty.
    pub where_clause: WhereClause,
    /// IF
    pub condition: Condition,
}

/// One item of SET.
#[derive(Clone, PartialEq, Debug)]
pub struct Assignment {
    /// The column.
    pub column: Name,
    /// What happens to it.
    pub operation: AssignmentOperation,
}

/// How an [`Assignment`] changes its column.
#[derive(Clone, PartialEq, Debug)]
pub enum AssignmentOperation {
    /// `a = term`
    Set(Term),
    /// `a = a + term`, `a += term`; `a = a -1` arrives here with a negative literal.
    Add(Term),
    /// `a = a - term`, `a -= term`
    Subtract(Term),
    /// `a = term + a`
    Prepend(Term),
    /// `a[key] = value`
    SetElement {
        /// Key or index.
        key: Term,
        /// New value.
        value: Term,
    },
    /// `a.field = value`
    SetField {
        /// The field.
        field: Name,
        /// New value.
        value: Term,
    },
}

/// The IF clause of UPDATE and DELETE.
#[derive(Clone, PartialEq, Debug)]
pub enum Condition {
    /// No IF.
    None,
    /// IF EXISTS
    Exists,
    /// IF a = 1 AND ..; at least one.
    Columns(Vec<ColumnCondition>),
}

/// `column[part] operator operand` after IF.
#[derive(Clone, PartialEq, Debug)]
pub struct ColumnCondition {
    /// The column.
    pub column: Name,
    /// The part of it that is compared.
    pub part: ColumnPart,
    /// Comparison, IN, CONTAINS or CONTAINS KEY (the last two only for the whole column).
    pub operator: Operator,
    /// What it is compared with.
    pub operand: Operand,
}

/// `DELETE [a, b[k], c.f] FROM table WHERE ..`
#[derive(Clone, PartialEq, Debug)]
pub struct Delete {
    /// Empty: whole rows, ranges or partitions, as the WHERE clause says.
    pub deletions: Vec<Deletion>,
    /// Where from.
    pub table: QualifiedName,
    /// USING
    pub using: Using,
    /// Which rows; never empty.
    pub where_clause: WhereClause,
    /// IF
    pub condition: Condition,
}

/// One column, or a part of one, that a DELETE removes.
#[derive(Clone, PartialEq, Debug)]
pub struct Deletion {
    /// The column.
    pub column: Name,
    /// The part of it.
    pub part: ColumnPart,
}

/// `BEGIN [UNLOGGED | COUNTER] BATCH .. APPLY BATCH`
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    /// Which guarantee.
    pub kind: BatchKind,
    /// USING of the batch itself.
    pub using: Using,
    /// Maybe empty.
    pub statements: Vec<Modification>,
}

/// Kinds of [`Batch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchKind {
    /// Applied in full eventually, once accepted.
    Logged,
    /// No such promise.
    Unlogged,
    /// Counter updates.
    Counter,
}
