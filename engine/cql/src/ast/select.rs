//! SELECT.

use super::{Name, QualifiedName, Selectable, Term, WhereClause};

/// `SELECT selection FROM table ..`
#[derive(Clone, PartialEq, Debug)]
pub struct Select {
    /// `SELECT JSON`
    pub json: bool,
    /// `SELECT DISTINCT`
    pub distinct: bool,
    /// What is returned.
    pub selection: Selection,
    /// The table or materialized view.
    pub table: QualifiedName,
    /// WHERE, maybe empty.
    pub where_clause: WhereClause,
    /// GROUP BY, maybe empty.
    pub group_by: Vec<Selectable>,
    /// ORDER BY, maybe empty.
    pub order_by: Vec<Ordering>,
    /// PER PARTITION LIMIT: an integer literal or a bind marker.
    pub per_partition_limit: Option<Term>,
    /// LIMIT: an integer literal or a bind marker.
    pub limit: Option<Term>,
    /// ALLOW FILTERING
    pub allow_filtering: bool,
    /// BYPASS CACHE: the read neither uses nor fills the row cache (extension).
    pub bypass_cache: bool,
    /// USING TIMEOUT: a duration literal or a bind marker (extension).
    pub timeout: Option<Term>,
}

/// The select clause.
#[derive(Clone, PartialEq, Debug)]
pub enum Selection {
    /// `*`
    All,
    /// `*` and what stands behind it; an extension.
    AllAnd(Vec<Selector>),
    /// At least one selector.
    Selectors(Vec<Selector>),
}

/// `selectable [AS alias]`
#[derive(Clone, PartialEq, Debug)]
pub struct Selector {
    /// What is computed.
    pub selectable: Selectable,
    /// Name of the result column.
    pub alias: Option<Name>,
}

/// One item of ORDER BY.
#[derive(Clone, PartialEq, Debug)]
pub struct Ordering {
    /// The column.
    pub column: Name,
    /// How it orders.
    pub kind: OrderingKind,
    /// DESC
    pub descending: bool,
}

/// How an ORDER BY item compares rows.
#[derive(Clone, PartialEq, Debug)]
pub enum OrderingKind {
    /// By the column's value.
    Value,
    /// `ANN OF vector`: by similarity to the vector, approximately.
    NearestTo(Term),
}
