//! What the rows are: everything that was ever written, and at each read the rules of reconciliation applied to all of
//! it. Slow, and short enough to be seen to be right.

use super::table::{Kind, Table, Type, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Where in a column a cell lies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Path {
    Whole,
    /// Element of a set, key of a map.
    Key(Value),
    /// Place of a list's element among all that the list ever had.
    Place(i64),
}

/// One end of a range: the value, and whether it belongs to the range.
pub(crate) type Bound = Option<(Value, bool)>;

/// Rows by their clustering keys: with a prefix, and the next column between two bounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) prefix: Vec<Value>,
    pub(crate) low: Bound,
    pub(crate) high: Bound,
}

impl Rows {
    pub(crate) fn contain(&self, clustering: &[Value]) -> bool {
        if clustering[..self.prefix.len()] != self.prefix[..] {
            return false;
        }
        let Some(next) = clustering.get(self.prefix.len()) else {
            return true;
        };
        let is_above = self
            .low
            .as_ref()
            .is_none_or(|(low, inclusive)| next > low || *inclusive && next == low);
        let is_below = self
            .high
            .as_ref()
            .is_none_or(|(high, inclusive)| next < high || *inclusive && next == high);
        is_above && is_below
    }
}

/// One thing that a statement does to a partition. `row`: None is the static row.
#[derive(Clone, Debug)]
pub(crate) enum What {
    DeletePartition,
    DeleteRows(Rows),
    /// An INSERT was here.
    Marker {
        row: Vec<Value>,
    },
    /// None deletes.
    Cell {
        row: Option<Vec<Value>>,
        column: usize,
        path: Path,
        value: Option<Value>,
    },
    /// Deletes all cells of a collection.
    DeleteCollection {
        row: Option<Vec<Value>>,
        column: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) key: Vec<Value>,
    pub(crate) timestamp: i64,
    /// Second from which it counts as deleted.
    pub(crate) expires: Option<i64>,
    pub(crate) what: What,
}

/// A cell that is alive.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) value: Value,
    pub(crate) timestamp: i64,
}

/// The live cells of a row, by column and path.
pub(crate) type Cells = BTreeMap<usize, BTreeMap<Path, Live>>;

/// A row as a query finds it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) key: Vec<Value>,
    /// None: the partition has a static row only.
    pub(crate) clustering: Option<Vec<Value>>,
    /// Of the row and of the static row.
    pub(crate) cells: Cells,
}

impl Found {
    pub(crate) fn value(&self, table: &Table, column: usize) -> Option<Value> {
        let clustering_start = table.partition_key().count();
        match table.columns[column].kind {
            Kind::Partition => Some(self.key[column].clone()),
            Kind::Clustering { .. } => self
                .clustering
                .as_ref()
                .map(|key| key[column - clustering_start].clone()),
            Kind::Static | Kind::Regular => {
                let cells = self.cells.get(&column)?;
                let mut values = cells.values().map(|cell| cell.value.clone());
                Some(match table.columns[column].cql_type {
                    Type::List => Value::List(values.collect()),
                    Type::Set => Value::Set(values.collect()),
                    Type::Map => Value::Map(
                        cells
                            .iter()
                            .filter_map(|(path, cell)| match path {
                                Path::Key(key) => Some((key.clone(), cell.value.clone())),
                                _ => None,
                            })
                            .collect(),
                    ),
                    _ => values.next()?,
                })
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Model {
    partitions: BTreeMap<Vec<Value>, Vec<Effect>>,
}

impl Model {
    pub(crate) fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.partitions
                .entry(effect.key.clone())
                .or_default()
                .push(effect);
        }
    }

    pub(crate) fn keys(&self) -> Vec<Vec<Value>> {
        self.partitions.keys().cloned().collect()
    }

    /// The live cells of a row (None: of the static row), and whether it is there.
    pub(crate) fn row(&self, table: &Table, key: &[Value], row: Option<&[Value]>, now: i64) -> (Cells, bool) {
        let nothing = Vec::new();
        let effects = self.partitions.get(key).unwrap_or(&nothing);
        let is_alive = |effect: &Effect| effect.expires.is_none_or(|expires| now < expires);
        let deleted = effects
            .iter()
            .filter(|effect| match (&effect.what, row) {
                (What::DeletePartition, _) => true,
                (What::DeleteRows(rows), Some(row)) => rows.contain(row),
                _ => false,
            })
            .map(|effect| effect.timestamp)
            .max()
            .unwrap_or(i64::MIN);
        let marker = effects
            .iter()
            .filter(|effect| matches!(&effect.what, What::Marker { row: own } if Some(&own[..]) == row))
            .filter(|effect| effect.timestamp > deleted)
            .max_by_key(|effect| (effect.timestamp, !is_alive(effect)));
        let mut cells = Cells::new();
        for column in 0..table.columns.len() {
            let deleted = effects
                .iter()
                .filter(|effect| {
                    matches!(&effect.what, What::DeleteCollection { row: own, column: of }
                        if own.as_deref() == row && *of == column)
                })
                .map(|effect| effect.timestamp)
                .fold(deleted, i64::max);
            let mut best: BTreeMap<Path, (i64, bool, Vec<u8>, Option<Value>)> = BTreeMap::new();
            for effect in effects.iter().filter(|effect| effect.timestamp > deleted) {
                let What::Cell {
                    row: own,
                    column: of,
                    path,
                    value,
                } = &effect.what
                else {
                    continue;
                };
                if own.as_deref() != row || *of != column {
                    continue;
                }
                let value = value.clone().filter(|_| is_alive(effect));
                let bytes = value.as_ref().map(Value::wire).unwrap_or_default();
                // The newest wins; of two, a deletion; of two values, the greater.
                let rank = (effect.timestamp, value.is_none(), bytes, value);
                let present = best.entry(path.clone()).or_insert_with(|| rank.clone());
                if (rank.0, rank.1, &rank.2) > (present.0, present.1, &present.2) {
                    *present = rank;
                }
            }
            let live: BTreeMap<Path, Live> = best
                .into_iter()
                .filter_map(|(path, (timestamp, _, _, value))| {
                    value.map(|value| (path, Live { value, timestamp }))
                })
                .collect();
            if !live.is_empty() {
                cells.insert(column, live);
            }
        }
        let is_there = marker.is_some_and(is_alive) || !cells.is_empty();
        (cells, is_there)
    }

    /// The clustering keys that were ever written in a partition.
    fn mentioned(&self, key: &[Value]) -> BTreeSet<Vec<Value>> {
        let effects = self.partitions.get(key).into_iter().flatten();
        let rows = effects.filter_map(|effect| match &effect.what {
            What::Marker { row } | What::Cell { row: Some(row), .. } => Some(row.clone()),
            _ => None,
        });
        rows.collect()
    }

    /// The rows of a partition in the order of the table; each with the cells of the static row. A static row stands alone
    /// when there is no other.
    pub(crate) fn rows(&self, table: &Table, key: &[Value], now: i64) -> Vec<Found> {
        let (statics, _) = self.row(table, key, None, now);
        let mut found = Vec::new();
        for clustering in self.mentioned(key) {
            let (mut cells, is_there) = self.row(table, key, Some(&clustering), now);
            if is_there {
                cells.extend(statics.clone());
                found.push(Found {
                    key: key.to_vec(),
                    clustering: Some(clustering),
                    cells,
                });
            }
        }
        let descending: Vec<bool> = table
            .clustering()
            .map(|column| table.columns[column].kind == Kind::Clustering { descending: true })
            .collect();
        found.sort_by(|a, b| {
            let pairs = a.clustering.iter().flatten().zip(b.clustering.iter().flatten());
            let orders = pairs
                .zip(&descending)
                .map(|((a, b), descending)| match descending {
                    true => b.cmp(a),
                    false => a.cmp(b),
                });
            orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        if found.is_empty() && !statics.is_empty() {
            found.push(Found {
                key: key.to_vec(),
                clustering: None,
                cells: statics,
            });
        }
        found
    }
}
