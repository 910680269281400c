//! Which index answers a SELECT, and whether the rest may be filtered.
//!
//! Cassandra's rule: where an index is used, everything that is restricted (but for a partition key that names
//! partitions and the clustering columns that follow it) must be answered by indexes that work together, else the
//! statement needs ALLOW FILTERING. Storage-attached indexes of a table work together, any other index works alone.
//!
//! One index is searched; all restrictions that are not keys are tested on the rows it finds, those that other indexes
//! could answer too. What an index finds needs the test anyway: a replica may have no such index yet.

use super::filter::{Filter, FilterTest};
use super::merge::{Bound, Demand, Merged};
use super::present;
use crate::CqlError;
use crate::expression::{Evaluation, Expression};
use bytes::Bytes;
use ceto_model::comparable::{bound_after, bound_before};
use ceto_model::read::{IndexSearch, IndexTerms};
use ceto_model::schema::{IndexDefinition, IndexTarget};
use ceto_model::{Column, ColumnKind, CqlType, Index, Position, Table};
use std::sync::Arc;

/// Largest value, in bytes, that is searched for in an index that is not storage-attached.
const VALUE_MAX: usize = 65_535;

/// The index that is searched, and what for.
#[derive(Clone, Debug)]
pub(crate) struct IndexChoice {
    pub(crate) index: Arc<Index>,
    search: Search,
}

#[derive(Clone, Debug)]
enum Search {
    /// One value; of map entries key and value.
    Values(Vec<Expression>),
    Range {
        lower: Option<Bound<Expression>>,
        upper: Option<Bound<Expression>>,
    },
}

/// How a restriction asks for a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Equal,
    Slice,
    Contains,
    ContainsKey,
    Entry,
    /// What no index answers.
    Other,
}

/// One restriction, with the indexes (by number) that answer it.
struct Item {
    column: usize,
    kind: ColumnKind,
    ask: Ask,
    search: Option<Search>,
    answered_by: Vec<usize>,
}

/// What indexes could do for a statement; made before its restrictions are shared out.
pub(super) struct Candidates {
    items: Vec<Item>,
    indexes: Vec<Arc<Index>>,
}

/// What the shared-out restrictions are like.
pub(super) struct Shape {
    /// Partitions are named by values of the whole key.
    pub(super) names_partitions: bool,
    /// The partition key is not restricted, not even by its token.
    pub(super) has_free_partition: bool,
    /// Some of the partition key's restrictions can only be tested.
    pub(super) filters_partition: bool,
    /// Some of the clustering columns' restrictions can only be tested.
    pub(super) filters_clustering: bool,
    /// Partitions are named by IN.
    pub(super) has_in: bool,
}

/// The verdict.
pub(super) struct Verdict {
    pub(super) choice: Option<IndexChoice>,
    pub(super) needs_filtering: bool,
}

impl Candidates {
    pub(super) fn of(table: &Table, merged: &Merged) -> Candidates {
        let indexes: Vec<Arc<Index>> = table.indexes().to_vec();
        let mut items = Vec::new();
        let mut add = |column: usize, ask: Ask, search: Option<Search>| {
            let Some(restricted) = table.columns().get(column) else {
                return;
            };
            let answers = |index: &Arc<Index>| answers(index, restricted, ask);
            items.push(Item {
                column,
                kind: restricted.kind,
                ask,
                search,
                answered_by: (0..indexes.len()).filter(|at| answers(&indexes[*at])).collect(),
            });
        };
        for (column, demand) in &merged.single {
            match demand {
                Demand::Equal(value) => add(*column, Ask::Equal, Some(Search::Values(vec![value.clone()]))),
                Demand::In(_) => add(*column, Ask::Other, None),
                Demand::Slice { lower, upper } => {
                    let (lower, upper) = (lower.clone(), upper.clone());
                    add(*column, Ask::Slice, Some(Search::Range { lower, upper }));
                }
            }
        }
        for (columns, _) in &merged.multi {
            columns.iter().for_each(|column| add(*column, Ask::Other, None));
        }
        for filter in &merged.filters {
            let (ask, values) = match &filter.test {
                FilterTest::Contains(value) => (Ask::Contains, vec![value.clone()]),
                FilterTest::ContainsKey(value) => (Ask::ContainsKey, vec![value.clone()]),
                FilterTest::Entry { key, value } => (Ask::Entry, vec![key.clone(), value.clone()]),
                _ => (Ask::Other, Vec::new()),
            };
            for column in &filter.columns {
                add(*column, ask, Some(Search::Values(values.clone())));
            }
        }
        Candidates { items, indexes }
    }

    /// Some restriction is one that an index answers.
    pub(super) fn has_any(&self) -> bool {
        self.items.iter().any(|item| !item.answered_by.is_empty())
    }

    pub(super) fn judge(self, shape: &Shape) -> Result<Verdict, CqlError> {
        let is_answered = |item: &Item| !item.answered_by.is_empty();
        let is_of = |item: &Item, kind: ColumnKind| item.kind == kind;
        let others = |item: &Item| !matches!(item.kind, ColumnKind::PartitionKey | ColumnKind::Clustering);
        let walks = !shape.names_partitions;
        let has_clustering_index = self
            .items
            .iter()
            .any(|item| is_of(item, ColumnKind::Clustering) && is_answered(item));
        let tests_clustering = shape.has_free_partition
            || shape.filters_partition
            || shape.filters_clustering
            || walks && has_clustering_index;
        let uses_index = tests_clustering || self.items.iter().any(others);
        if !uses_index {
            return Ok(Verdict {
                choice: None,
                needs_filtering: false,
            });
        }
        if shape.has_in {
            return Err(CqlError::invalid(
                "Select on indexed columns and with IN clause for the PRIMARY KEY are not supported",
            ));
        }
        let tested: Vec<&Item> = self
            .items
            .iter()
            .filter(|item| match item.kind {
                ColumnKind::PartitionKey => shape.filters_partition,
                ColumnKind::Clustering => tests_clustering,
                _ => true,
            })
            .collect();
        Ok(Verdict {
            needs_filtering: !self.groups().iter().any(|group| self.is_complete(group, &tested)),
            choice: self.choose(),
        })
    }

    /// Indexes that answer together.
    fn groups(&self) -> Vec<Vec<usize>> {
        let is_attached = |at: &usize| self.indexes[*at].definition.is_storage_attached();
        let (attached, alone): (Vec<usize>, Vec<usize>) = (0..self.indexes.len()).partition(is_attached);
        let mut groups: Vec<Vec<usize>> = alone.into_iter().map(|at| vec![at]).collect();
        if !attached.is_empty() {
            groups.push(attached);
        }
        groups
    }

    /// The indexes of a group answer all that is tested.
    fn is_complete(&self, group: &[usize], tested: &[&Item]) -> bool {
        let is_collection_ask =
            |item: &Item| matches!(item.ask, Ask::Contains | Ask::ContainsKey | Ask::Entry);
        tested.iter().all(|item| {
            let same: Vec<&&Item> = tested
                .iter()
                .filter(|other| {
                    other.column == item.column && is_collection_ask(item) == is_collection_ask(other)
                })
                .collect();
            let is_repeated = same.iter().filter(|other| other.ask == item.ask).count() > 1;
            group.iter().any(|at| {
                let is_attached = self.indexes[*at].definition.is_storage_attached();
                let answers_one = same.iter().any(|other| other.answered_by.contains(at));
                answers_one && (is_attached || !is_repeated)
            })
        })
    }

    /// A search for a value before one for a range, and what is not a key before keys.
    fn choose(&self) -> Option<IndexChoice> {
        let rank = |item: &&Item| {
            let is_key = matches!(item.kind, ColumnKind::PartitionKey | ColumnKind::Clustering);
            (item.ask == Ask::Slice, is_key)
        };
        let best = self
            .items
            .iter()
            .filter(|item| !item.answered_by.is_empty())
            .min_by_key(rank)?;
        Some(IndexChoice {
            index: self.indexes.get(*best.answered_by.first()?)?.clone(),
            search: best.search.clone()?,
        })
    }

    /// The analyzed indexes that give tests on a column their sense.
    pub(super) fn analyzing(&self) -> Vec<(usize, Arc<Index>)> {
        let analyzed = self.items.iter().flat_map(|item| {
            let indexes = item.answered_by.iter().filter_map(|at| self.indexes.get(*at));
            let indexes = indexes.filter(|index| index.definition.is_analyzed());
            indexes.map(|index| (item.column, index.clone()))
        });
        analyzed.collect()
    }
}

/// The index answers a restriction of this kind on the column.
fn answers(index: &Index, column: &Column, ask: Ask) -> bool {
    let definition = &index.definition;
    if definition.column != column.name || index.vectors().is_some() {
        return false;
    }
    let is_attached = definition.is_storage_attached();
    match (definition.target, ask) {
        (IndexTarget::Simple | IndexTarget::Full, Ask::Equal) => true,
        (IndexTarget::Simple, Ask::Slice) => is_attached && is_ordered(&column.cql_type),
        (IndexTarget::Values, Ask::Contains)
        | (IndexTarget::Keys, Ask::ContainsKey)
        | (IndexTarget::Entries, Ask::Entry) => true,
        _ => false,
    }
}

/// Storage-attached indexes find ranges of it.
fn is_ordered(cql_type: &CqlType) -> bool {
    matches!(
        cql_type,
        CqlType::Tinyint
            | CqlType::Smallint
            | CqlType::Int
            | CqlType::Bigint
            | CqlType::Varint
            | CqlType::Float
            | CqlType::Double
            | CqlType::Decimal
            | CqlType::Date
            | CqlType::Time
            | CqlType::Timestamp
            | CqlType::Timeuuid
            | CqlType::Uuid
            | CqlType::Inet
    )
}

impl IndexChoice {
    /// Of the index that is searched.
    pub(crate) fn definition(&self) -> &IndexDefinition {
        &self.index.definition
    }

    /// What is searched for; None when no row can have it.
    pub(crate) fn search(&self, evaluation: &Evaluation<'_>) -> Result<Option<IndexSearch>, CqlError> {
        let definition = &self.index.definition;
        let value = |expression: &Expression| -> Result<Bytes, CqlError> {
            let value = present(expression.evaluate(evaluation)?, &definition.column)?;
            if value.len() > VALUE_MAX && !definition.is_storage_attached() {
                return Err(CqlError::invalid(
                    "Index expression values may not be larger than 64K",
                ));
            }
            Ok(value)
        };
        let encoded =
            |expression: &Expression| Ok::<_, CqlError>(self.index.encode_value(&[value(expression)?]));
        let terms = match &self.search {
            Search::Values(values) => {
                let values = values.iter().map(value).collect::<Result<Vec<_>, _>>()?;
                self.index.encode_value(&values).map(IndexTerms::Value)
            }
            Search::Range { lower, upper } => {
                let start = match lower {
                    None => Some(Position::before_all()),
                    Some(bound) => encoded(&bound.value)?.map(|value| {
                        Position(if bound.inclusive {
                            bound_before(&value)
                        } else {
                            bound_after(&value)
                        })
                    }),
                };
                let end = match upper {
                    None => Some(Position::after_all()),
                    Some(bound) => encoded(&bound.value)?.map(|value| {
                        Position(if bound.inclusive {
                            bound_after(&value)
                        } else {
                            bound_before(&value)
                        })
                    }),
                };
                start.zip(end).map(|(start, end)| IndexTerms::Between(start, end))
            }
        };
        Ok(terms.map(|terms| IndexSearch {
            index: self.index.id(),
            terms,
        }))
    }
}

/// Gives the tests on analyzed columns their sense: values are compared in the form that the index has them in.
pub(super) fn analyze(filters: &mut [Filter], analyzing: &[(usize, Arc<Index>)]) {
    for filter in filters {
        let [column] = filter.columns.as_slice() else {
            continue;
        };
        let found = analyzing.iter().find(|(analyzed, _)| analyzed == column);
        filter.analysis = found.map(|(_, index)| index.clone());
    }
}
