//! Rows of system tables by column name: to mutations and back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use ceto_model::comparable::{decode_clustering, encode_clustering};
use ceto_model::value::Value;
use ceto_model::{
    Cell, ClusteringKey, Collection, ColumnData, ColumnKind, CqlType, DecoratedKey, Deletion, Liveness,
    Mutation, PartitionKey, Row, Table, TableId, Timestamp, UnixSeconds,
};
use uuid::Uuid;

/// A row of a system table: column names and values, in no order; a column left out is null.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SystemRow(pub Vec<(&'static str, Option<Value>)>);

impl SystemRow {
    /// Adds a column.
    pub fn with(mut self, column: &'static str, value: impl Into<Option<Value>>) -> SystemRow {
        self.0.push((column, value.into()));
        self
    }

    fn wire(&self, column: &str, cql_type: &CqlType) -> Option<Vec<u8>> {
        let (_, value) = self.0.iter().find(|(name, _)| *name == column)?;
        let wire = value.as_ref()?.to_wire(cql_type);
        Some(wire.unwrap_or_else(|error| panic!("system column {column}: {error}")))
    }

    /// The partition and clustering key of this row in `table`.
    ///
    /// # Panics
    /// When a key column is missing: the rows are made by this crate.
    pub fn key(&self, table: &Table) -> (DecoratedKey, ClusteringKey) {
        let wire = |column: &ceto_model::Column| {
            let value = self.wire(&column.name, &column.cql_type);
            value.unwrap_or_else(|| panic!("system table {} needs {}", table.name, column.name))
        };
        let partition: Vec<_> = table.partition_key().iter().map(wire).collect();
        let clustering: Vec<_> = table.clustering().iter().map(wire).collect();
        let clustering =
            encode_clustering(table.clustering_types(), &clustering).expect("values are of their types");
        (
            DecoratedKey::new(PartitionKey::from_components(&partition)),
            ClusteringKey(clustering),
        )
    }

    /// The insert of this row: every regular column is written, null ones as tombstones, so that nothing of an
    /// older version shows through.
    pub fn insert(&self, table: &Table, timestamp: Timestamp, now: UnixSeconds) -> Mutation {
        let (key, clustering) = self.key(table);
        let mut mutation = Mutation::new(table.id, key);
        let row = mutation.partition.row_mut(clustering);
        row.liveness = Some(Liveness {
            timestamp,
            expiry: None,
        });
        for column in table.regulars() {
            let data = self.column_data(column, timestamp, now);
            row.merge_column(column.id, data);
        }
        mutation
    }

    fn column_data(&self, column: &ceto_model::Column, timestamp: Timestamp, now: UnixSeconds) -> ColumnData {
        let wire = self.wire(&column.name, &column.cql_type);
        if !column.cql_type.is_multicell() {
            return ColumnData::Cell(match wire {
                Some(wire) => Cell::live(timestamp, wire.into()),
                None => Cell::tombstone(timestamp, now),
            });
        }
        let deletion = Some(Deletion {
            timestamp: Timestamp(timestamp.0 - 1),
            deleted_at: now,
        });
        let mut collection = Collection {
            deletion,
            cells: Vec::new(),
        };
        let value = wire.map(|wire| Value::decode(&column.cql_type, &wire).expect("just encoded"));
        for (path, value) in elements(&column.cql_type, value) {
            collection.merge_cell(path, Cell::live(timestamp, value));
        }
        ColumnData::Collection(collection)
    }

    /// The deletion of this row.
    pub fn delete(&self, table: &Table, timestamp: Timestamp, now: UnixSeconds) -> Mutation {
        let (key, clustering) = self.key(table);
        let mut mutation = Mutation::new(table.id, key);
        mutation.partition.row_mut(clustering).delete(Deletion {
            timestamp,
            deleted_at: now,
        });
        mutation
    }
}

/// The mutations that turn the stored rows `old` into `new`, each given with the name of its table, which `table` finds:
/// rows that are new or differ are inserted, rows that are gone are deleted.
pub fn difference(
    old: &[(&'static str, SystemRow)],
    new: &[(&'static str, SystemRow)],
    table: &dyn Fn(&str) -> Arc<Table>,
    timestamp: Timestamp,
    now: UnixSeconds,
) -> Vec<Mutation> {
    let by_key = |rows: &[(&'static str, SystemRow)]| -> BTreeMap<_, _> {
        rows.iter()
            .map(|(name, row)| ((*name, row.key(&table(name))), row.clone()))
            .collect()
    };
    let (old, new) = (by_key(old), by_key(new));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let deletions = gone.map(|((name, _), row)| row.delete(&table(name), timestamp, now));
    let changed = new.iter().filter(|(key, row)| old.get(*key) != Some(*row));
    let inserts = changed.map(|((name, _), row)| row.insert(&table(name), timestamp, now));
    let mut mutations: BTreeMap<(TableId, DecoratedKey), Mutation> = BTreeMap::new();
    for mutation in deletions.chain(inserts) {
        match mutations.entry((mutation.table, mutation.key.clone())) {
            Entry::Occupied(mut entry) => entry.get_mut().merge(mutation),
            Entry::Vacant(entry) => {
                entry.insert(mutation);
            }
        }
    }
    mutations.into_values().collect()
}

/// Cells of a set<text> or map column: path in comparable encoding, value in wire bytes.
fn elements(cql_type: &CqlType, value: Option<Value>) -> Vec<(Bytes, Bytes)> {
    let path = |cql_type: &CqlType, value: &Value| {
        let wire = value.to_wire(cql_type).expect("elements are of their type");
        let mut path = Vec::new();
        ceto_model::comparable::encode_component(cql_type, false, &wire, &mut path).expect("just encoded");
        Bytes::from(path)
    };
    match (cql_type, value) {
        (CqlType::Set { element, .. }, Some(Value::Set(elements))) => elements
            .iter()
            .map(|value| (path(element, value), Bytes::new()))
            .collect(),
        (
            CqlType::Map {
                key,
                value: value_type,
                ..
            },
            Some(Value::Map(entries)),
        ) => entries
            .iter()
            .map(|(k, v)| {
                (
                    path(key, k),
                    v.to_wire(value_type).expect("values are of their type").into(),
                )
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A stored row of a system table, read by column name.
pub struct StoredRow<'a> {
    table: &'a Table,
    partition_key: Vec<Bytes>,
    clustering: Vec<Bytes>,
    row: &'a Row,
    now: UnixSeconds,
}

impl<'a> StoredRow<'a> {
    /// None when the keys are not of this table: the caller reports it.
    pub fn new(
        table: &'a Table,
        key: &DecoratedKey,
        clustering: &ClusteringKey,
        row: &'a Row,
        now: UnixSeconds,
    ) -> Option<StoredRow<'a>> {
        let partition_key = key.key.components(table.partition_key().len())?.into_vec();
        let clustering = decode_clustering(table.clustering_types(), &clustering.0)
            .ok()?
            .into_vec();
        Some(StoredRow {
            table,
            partition_key,
            clustering,
            row,
            now,
        })
    }

    fn value(&self, name: &str) -> Option<Value> {
        let column = self.table.column(name)?;
        let position = usize::from(column.position);
        let wire = match column.kind {
            ColumnKind::PartitionKey => self.partition_key.get(position).cloned(),
            ColumnKind::Clustering => self.clustering.get(position).cloned(),
            ColumnKind::Static | ColumnKind::Regular => match self.row.column(column.id)? {
                ColumnData::Cell(cell) => cell.value(self.now),
                ColumnData::Collection(_) => None,
            },
        }?;
        Value::decode(&column.cql_type, &wire).ok()
    }

    /// A text column; empty when null.
    pub fn text(&self, name: &str) -> String {
        match self.value(name) {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        }
    }

    /// An int column.
    pub fn int(&self, name: &str) -> Option<i32> {
        match self.value(name) {
            Some(Value::Int(value)) => Some(value),
            _ => None,
        }
    }

    /// A bigint column.
    pub fn bigint(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Bigint(value)) => Some(value),
            _ => None,
        }
    }

    /// A map<int, bigint> column; empty when null.
    pub fn counts(&self, name: &str) -> Vec<(i32, i64)> {
        let Some(column) = self.table.column(name) else {
            return Vec::new();
        };
        let (Some(ColumnData::Collection(cells)), CqlType::Map { key, value, .. }) =
            (self.row.column(column.id), &column.cql_type)
        else {
            return Vec::new();
        };
        let entry = |(path, cell): &(Bytes, Cell)| {
            let path = ceto_model::comparable::decode_component(key, false, &mut &path[..]).ok()?;
            let count = Value::decode(value, &cell.value(self.now)?).ok()?;
            match (Value::decode(key, &path).ok()?, count) {
                (Value::Int(key), Value::Bigint(count)) => Some((key, count)),
                _ => None,
            }
        };
        cells.cells.iter().filter_map(entry).collect()
    }

    /// A boolean column.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        match self.value(name) {
            Some(Value::Boolean(value)) => Some(value),
            _ => None,
        }
    }

    /// A double column.
    pub fn double(&self, name: &str) -> Option<f64> {
        match self.value(name) {
            Some(Value::Double(value)) => Some(value),
            _ => None,
        }
    }

    /// A uuid column.
    pub fn uuid(&self, name: &str) -> Option<Uuid> {
        match self.value(name) {
            Some(Value::Uuid(value)) => Some(value),
            _ => None,
        }
    }

    /// A timestamp column in milliseconds.
    pub fn timestamp(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Timestamp(value)) => Some(value),
            _ => None,
        }
    }

    /// A frozen<list<text>> column; empty when null.
    pub fn text_list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(values)) => values.into_iter().filter_map(into_text).collect(),
            _ => Vec::new(),
        }
    }

    /// A set<text> column; None when null.
    pub fn text_set(&self, name: &str) -> Option<Vec<String>> {
        if let Some(column) = self.table.column(name)
            && let (Some(ColumnData::Collection(cells)), CqlType::Set { element, .. }) =
                (self.row.column(column.id), &column.cql_type)
        {
            let is_live = |(path, cell): &(Bytes, Cell)| {
                cell.value(self.now)?;
                let path = ceto_model::comparable::decode_component(element, false, &mut &path[..]).ok()?;
                into_text(Value::decode(element, &path).ok()?)
            };
            return Some(cells.cells.iter().filter_map(is_live).collect());
        }
        match self.value(name) {
            Some(Value::Set(values)) => Some(values.into_iter().filter_map(into_text).collect()),
            _ => None,
        }
    }

    /// A frozen<map<text, text>> column; empty when null.
    pub fn text_map(&self, name: &str) -> Vec<(String, String)> {
        match self.value(name) {
            Some(Value::Map(entries)) => entries
                .into_iter()
                .filter_map(|(k, v)| Some((into_text(k)?, into_text(v)?)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// A frozen<map<text, blob>> column; empty when null.
    pub fn blob_map(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        match self.value(name) {
            Some(Value::Map(entries)) => entries
                .into_iter()
                .filter_map(|(k, v)| match v {
                    Value::Blob(bytes) => Some((into_text(k)?, bytes.to_vec())),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn into_text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// A text value.
pub fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

/// A frozen<map<text, text>> value.
pub fn text_map<'a>(entries: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    Value::Map(entries.into_iter().map(|(k, v)| (text(k), text(v))).collect())
}

/// A frozen<list<text>> value.
pub fn text_list(values: impl IntoIterator<Item = String>) -> Value {
    Value::List(values.into_iter().map(Value::Text).collect())
}

/// A set<text> value.
pub fn text_set(values: impl IntoIterator<Item = String>) -> Value {
    Value::Set(values.into_iter().map(Value::Text).collect())
}
