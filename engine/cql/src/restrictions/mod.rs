//! WHERE: which partitions, which rows of them, and what must be tested on each row.
//!
//! Preparing turns relations into three parts:
//! - the partition key: keys, a token range, or everything ([`partition`]);
//! - leading clustering columns: steps that become slices ([`clustering`]);
//! - all the rest: filters, tested on the rows that come back ([`filter`]); SELECT only, with ALLOW FILTERING.
//!
//! Never: a restriction that is silently ignored. Each relation ends up in exactly one part.

pub(crate) mod clustering;
pub(crate) mod filter;
pub(crate) mod index;
mod merge;
pub(crate) mod partition;
mod relation;
pub(crate) mod view;

use crate::ast::{Name, WhereClause};
use crate::expression::Expression;
use crate::prepare::Preparation;
use crate::{BoundValue, CqlError};
use bytes::Bytes;
use ceto_model::{ColumnKind, CqlType, Table};
use clustering::ClusteringRestrictions;
use filter::{Filter, FilterTest};
use index::{Candidates, IndexChoice, Shape};
use merge::Merged;
use partition::PartitionRestrictions;
use smallvec::SmallVec;

/// The statement that a WHERE clause belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StatementKind {
    Select { allow_filtering: bool },
    Update,
    Delete,
}

impl StatementKind {
    fn name(self) -> &'static str {
        match self {
            Self::Select { .. } => "SELECT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// A prepared WHERE clause.
#[derive(Clone, Debug)]
pub(crate) struct Restrictions {
    pub(crate) partition: PartitionRestrictions,
    pub(crate) clustering: ClusteringRestrictions,
    pub(crate) filters: Vec<Filter>,
    /// The index that finds the rows.
    pub(crate) index: Option<IndexChoice>,
    /// Some clustering column is restricted, be it by a filter.
    pub(crate) restricts_clustering: bool,
    /// Some regular column is restricted.
    pub(crate) restricts_regular: bool,
    /// Rows have to pass tests on several columns that can change, beyond what an index answers.
    pub(crate) intersects_mutable: bool,
}

/// The right side of IN.
#[derive(Clone, Debug)]
pub(crate) enum InValues<T> {
    /// IN (a, b)
    List(Vec<T>),
    /// IN ?: a list of `element`s.
    Bound { list: Expression, element: CqlType },
}

/// The right side of a relation on several columns: one expression each, or a tuple as a whole.
#[derive(Clone, Debug)]
pub(crate) enum TupleValue {
    Elements(Vec<Expression>),
    Whole { tuple: Expression, count: usize },
}

/// Wire bytes of some leading columns.
pub(crate) type Components = SmallVec<[Bytes; 4]>;

pub(crate) const ALLOW_FILTERING: &str = "Cannot execute this query as it might involve data filtering and thus may \
     have unpredictable performance. If you want to execute this query despite the performance unpredictability, use \
     ALLOW FILTERING";

/// Why `expr(index, ..)` cannot be asked, in Cassandra's order: it takes a custom index with a language of its own, which
/// storage-attached ones have not.
fn refuse_expression(table: &Table, index: &Name, has_others: bool, kind: StatementKind) -> CqlError {
    let is_select = matches!(kind, StatementKind::Select { .. });
    let found = table
        .indexes()
        .iter()
        .find(|known| *known.definition.name == **index);
    CqlError::Invalid(match found {
        _ if !is_select => {
            "Custom index expressions cannot be used in WHERE clauses for UPDATE or DELETE statements"
                .to_owned()
        }
        _ if has_others => "Multiple custom index expressions in a single query are not supported".to_owned(),
        None => format!(
            "Invalid index expression, index {index} not found for {}.{}",
            table.keyspace, table.name
        ),
        Some(known) if known.definition.is_custom() => {
            format!("Index {index} does not support custom expressions")
        }
        Some(_) => {
            format!("Only CUSTOM indexes may be used in custom index expressions, {index} is not valid")
        }
    })
}

/// More than one column is tested whose value can change; one static column beside any other will do.
fn is_mutable_intersection(table: &Table, filters: &[Filter]) -> bool {
    let kinds = || {
        let columns = filters.iter().flat_map(|filter| &filter.columns);
        columns.map(|column| table.columns()[*column].kind)
    };
    let is_key = |kind: &ColumnKind| matches!(kind, ColumnKind::PartitionKey | ColumnKind::Clustering);
    let has_static = kinds().any(|kind| kind == ColumnKind::Static);
    kinds().filter(|kind| !is_key(kind)).count() > 1 || has_static && kinds().count() > 1
}

impl Restrictions {
    /// Prepares the clause of `kind` on `table`. `only_statics`: the statement reads or writes only static columns.
    pub(crate) fn prepare(
        preparation: &mut Preparation<'_>,
        table: &Table,
        clause: &WhereClause,
        kind: StatementKind,
        only_statics: bool,
    ) -> Result<Self, CqlError> {
        if let [first, others @ ..] = clause.expressions.as_slice() {
            return Err(refuse_expression(
                table,
                &first.index.name,
                !others.is_empty(),
                kind,
            ));
        }
        let mut merged = Merged::default();
        for relation in &clause.relations {
            relation::prepare(preparation, table, relation, kind, &mut merged)?;
        }
        let restricts = |kind| merged.restricts(table, kind);
        let restricts_clustering = restricts(ColumnKind::Clustering);
        let restricts_regular = restricts(ColumnKind::Regular);
        let restricts_partition = restricts(ColumnKind::PartitionKey);
        if kind
            != (StatementKind::Select {
                allow_filtering: true,
            })
            && kind
                != (StatementKind::Select {
                    allow_filtering: false,
                })
        {
            check_primary_key_only(table, &merged)?;
        }
        if matches!(kind, StatementKind::Select { .. }) {
            crate::prepare::nearest::check_restricted(table, merged.columns())?;
        }
        let candidates = match kind {
            StatementKind::Select { .. } if !table.indexes().is_empty() => {
                Some(Candidates::of(table, &merged)).filter(Candidates::has_any)
            }
            _ => None,
        };
        let written_kind = kind;
        // What an index answers, and what is restricted beside it, is told below from what needs ALLOW FILTERING.
        let kind = match candidates {
            Some(_) => StatementKind::Select {
                allow_filtering: true,
            },
            None => kind,
        };
        let has_free_partition = merged.token.is_none() && !merged.restricts(table, ColumnKind::PartitionKey);
        let mut filters = Vec::new();
        let partition = PartitionRestrictions::prepare(table, &mut merged, kind, &mut filters)?;
        if only_statics && restricts_clustering {
            return Err(CqlError::Invalid(match kind {
                StatementKind::Select { .. } => {
                    "Cannot restrict clustering columns when selecting only static columns".to_owned()
                }
                other => format!(
                    "Invalid restrictions on clustering columns since the {} statement modifies only static columns",
                    other.name()
                ),
            }));
        }
        let clustering = ClusteringRestrictions::prepare(table, &mut merged, kind, only_statics, &filters)?;
        let mut index = None;
        let mut needs_filtering = true;
        let mut analyzing = Vec::new();
        if let Some(candidates) = candidates {
            let is_test = |filter: &Filter| !matches!(filter.test, FilterTest::Token(..));
            let shape = Shape {
                names_partitions: !partition.is_range(),
                has_free_partition,
                filters_partition: filters.iter().any(is_test) || partition.is_range() && restricts_partition,
                filters_clustering: merged.restricts(table, ColumnKind::Clustering),
                has_in: partition.has_in(),
            };
            analyzing = candidates.analyzing();
            let verdict = candidates.judge(&shape)?;
            let may_filter = written_kind
                == (StatementKind::Select {
                    allow_filtering: true,
                });
            if verdict.needs_filtering && !may_filter {
                return Err(CqlError::invalid(ALLOW_FILTERING));
            }
            index = verdict.choice;
            needs_filtering = verdict.needs_filtering || index.is_none();
        }
        merged.into_filters(&mut filters);
        let intersects_mutable = needs_filtering && is_mutable_intersection(table, &filters);
        index::analyze(&mut filters, &analyzing);
        let restrictions = Self {
            index,
            partition,
            clustering,
            filters,
            restricts_clustering,
            restricts_regular,
            intersects_mutable,
        };
        if kind
            == (StatementKind::Select {
                allow_filtering: false,
            })
        {
            restrictions.check_without_filtering()?;
        }
        Ok(restrictions)
    }

    fn check_without_filtering(&self) -> Result<(), CqlError> {
        let scans = self.partition.is_range();
        // The token of a named partition is known without reading.
        let is_test = |filter: &Filter| !matches!(filter.test, FilterTest::Token(..));
        if self.filters.iter().any(is_test) || scans && self.restricts_clustering {
            return Err(CqlError::invalid(ALLOW_FILTERING));
        }
        Ok(())
    }
}

fn check_primary_key_only(table: &Table, merged: &Merged) -> Result<(), CqlError> {
    let others: Vec<&str> = merged
        .columns()
        .filter_map(|index| table.columns().get(index))
        .filter(|column| !column.is_primary_key())
        .map(|column| &*column.name)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(CqlError::Invalid(format!(
        "Non PRIMARY KEY columns found in where clause: {} ",
        others.join(", ")
    )))
}

/// Neither null nor unset, as a key demands.
pub(crate) fn present(value: BoundValue, column: &str) -> Result<Bytes, CqlError> {
    match value {
        BoundValue::Bytes(bytes) => Ok(bytes),
        BoundValue::Null => Err(CqlError::Invalid(format!(
            "Invalid null value in condition for column {column}"
        ))),
        BoundValue::Unset => Err(CqlError::Invalid(format!(
            "Invalid unset value for column {column}"
        ))),
    }
}
