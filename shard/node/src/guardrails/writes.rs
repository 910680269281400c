//! What is written: sizes of values and collections, and how far timestamps are from now.

use ceto_cql::CqlError;
use ceto_model::{Cell, CellState, ColumnData, CqlType, Mutation, Partition, Row, Schema, Table, Timestamp};

use super::{Guardrails, Threshold, Warnings, is_system};

const TOO_NEW: &str = "Timestamps too far in the future can lead to data that can't be easily overwritten";
const TOO_OLD: &str = "Timestamps too far in the past can cause writes can be unexpectedly lost";

impl Guardrails {
    /// Writes that are about to be done. `user_timestamp`: the statement gives one.
    pub(crate) fn check_writes(
        &self,
        schema: &Schema,
        mutations: &[Mutation],
        user_timestamp: bool,
        now_micros: i64,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let sizes = [
            self.column_value_size,
            self.collection_size,
            self.items_per_collection,
        ];
        let has_sizes = sizes.iter().any(|threshold| threshold.is_on());
        for mutation in mutations {
            let Some(table) = schema.table_by_id(mutation.table) else {
                continue;
            };
            if is_system(&table.keyspace) {
                continue;
            }
            self.check_terms(table, mutation, warnings)?;
            if has_sizes {
                self.check_sizes(table, mutation, warnings)?;
            }
            if user_timestamp {
                self.check_timestamps(table, &mutation.partition, now_micros, warnings)?;
            }
        }
        Ok(())
    }

    /// What storage-attached indexes take.
    fn check_terms(
        &self,
        table: &Table,
        mutation: &Mutation,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let indexes = table.indexes().iter();
        for index in indexes.filter(|index| index.definition.is_storage_attached()) {
            let Some(size) = index.largest_value(table, &mutation.key, &mutation.partition) else {
                continue;
            };
            let column = &index.definition.column;
            let (guardrail, threshold) = match table.column(column).map(|column| &column.cql_type) {
                Some(CqlType::Vector { .. }) => ("sai_vector_term_size", self.sai_vector_term_size),
                Some(CqlType::Tuple(_) | CqlType::Udt { .. }) => {
                    ("sai_frozen_term_size", self.sai_frozen_term_size)
                }
                Some(
                    CqlType::List { frozen: true, .. }
                    | CqlType::Set { frozen: true, .. }
                    | CqlType::Map { frozen: true, .. },
                ) => ("sai_frozen_term_size", self.sai_frozen_term_size),
                _ => ("sai_string_term_size", self.sai_string_term_size),
            };
            threshold.check_value(guardrail, column, size, warnings)?;
        }
        Ok(())
    }

    fn check_sizes(
        &self,
        table: &Table,
        mutation: &Mutation,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let partition_key = table.partition_key();
        let components = mutation.key.key.components(partition_key.len());
        for (column, value) in partition_key.iter().zip(components.iter().flatten()) {
            self.check_value(&column.name, &column.cql_type, value, warnings)?;
        }
        let content = &mutation.partition;
        for (key, row) in &content.rows {
            let components = ceto_model::comparable::decode_clustering(table.clustering_types(), &key.0);
            for (column, value) in table.clustering().iter().zip(components.iter().flatten()) {
                self.check_value(&column.name, &column.cql_type, value, warnings)?;
            }
            self.check_row(table, row, warnings)?;
        }
        self.check_row(table, &content.static_row, warnings)
    }

    fn check_row(&self, table: &Table, row: &Row, warnings: &mut Warnings) -> Result<(), CqlError> {
        for (id, data) in &row.columns {
            let Some(column) = table.column_by_id(*id) else {
                continue;
            };
            match data {
                ColumnData::Cell(cell) => {
                    if let Some(value) = value_of(cell) {
                        self.check_value(&column.name, &column.cql_type, value, warnings)?;
                    }
                }
                ColumnData::Collection(collection) if column.cql_type.is_collection() => {
                    let live = collection
                        .cells
                        .iter()
                        .filter_map(|(path, cell)| Some((path, value_of(cell)?)));
                    let sizes: Vec<usize> = live
                        .map(|(path, value)| match column.cql_type {
                            // What orders a list's elements is not the client's.
                            CqlType::List { .. } => value.len(),
                            _ => path.len() + value.len(),
                        })
                        .collect();
                    self.check_collection(&column.name, sizes.iter().sum(), sizes.len(), warnings)?;
                }
                ColumnData::Collection(_) => {}
            }
        }
        Ok(())
    }

    /// A value in one piece.
    fn check_value(
        &self,
        column: &str,
        cql_type: &CqlType,
        value: &[u8],
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        self.column_value_size
            .check_value("column_value_size", column, value.len(), warnings)?;
        if !cql_type.is_collection() {
            return Ok(());
        }
        // A frozen collection begins with the number of its elements.
        let count = value.first_chunk().map_or(0, |count| i32::from_be_bytes(*count));
        self.check_collection(column, value.len(), usize::try_from(count).unwrap_or(0), warnings)
    }

    fn check_collection(
        &self,
        column: &str,
        size: usize,
        items: usize,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let kind = |warns: bool| if warns { "warning" } else { "failure" };
        self.collection_size
            .check_maximum("collection_size", size as i64, warnings, |threshold, warns| {
                format!(
                    "Detected collection {column} of size {size}, this exceeds the {} threshold of {threshold}.",
                    kind(warns)
                )
            })?;
        self.items_per_collection
            .check_maximum("items_per_collection", items as i64, warnings, |threshold, warns| {
                format!(
                    "Detected collection {column} with {items} items, this exceeds the {} threshold of {threshold}.",
                    kind(warns)
                )
            })
    }

    fn check_timestamps(
        &self,
        table: &Table,
        content: &Partition,
        now_micros: i64,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if !self.maximum_timestamp.is_on() && !self.minimum_timestamp.is_on() {
            return Ok(());
        }
        // One statement has one timestamp; a batch may have several.
        let Some((lowest, highest)) = timestamps(content) else {
            return Ok(());
        };
        let name = &table.name;
        let at = |side: i64, age: i64| match age {
            ..0 => age,
            age => now_micros.saturating_add(side * age.saturating_mul(1000)),
        };
        let kind = |warns: bool| if warns { "warning" } else { "failure" };
        let newest = self.maximum_timestamp;
        let newest = Threshold {
            warn: at(1, newest.warn),
            fail: at(1, newest.fail),
        };
        newest.check_maximum("maximum_timestamp", highest, warnings, |threshold, warns| {
            format!(
                "The modification to table {name} has a timestamp {highest} after the maximum allowable {} threshold \
                 {threshold}. {TOO_NEW}",
                kind(warns)
            )
        })?;
        let oldest = self.minimum_timestamp;
        let oldest = Threshold {
            warn: at(-1, oldest.warn),
            fail: at(-1, oldest.fail),
        };
        oldest.check_minimum("minimum_timestamp", lowest, warnings, |threshold, warns| {
            format!(
                "The modification to table {name} has a timestamp {lowest} before the minimum allowable {} threshold \
                 {threshold}. {TOO_OLD}",
                kind(warns)
            )
        })
    }
}

impl Threshold {
    fn check_value(
        self,
        guardrail: &str,
        column: &str,
        size: usize,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        self.check_maximum(guardrail, size as i64, warnings, |threshold, warns| {
            format!(
                "Value of column '{column}' has size {size}, this exceeds the {} threshold of {threshold}.",
                if warns { "warning" } else { "failure" }
            )
        })
    }
}

fn value_of(cell: &Cell) -> Option<&[u8]> {
    match &cell.state {
        CellState::Live(value) | CellState::Expiring { value, .. } => Some(value),
        CellState::Tombstone { .. } => None,
    }
}

/// The lowest and the highest timestamp of what is written.
fn timestamps(content: &Partition) -> Option<(i64, i64)> {
    let mut all: Vec<Timestamp> = Vec::new();
    all.extend(content.deletion.iter().map(|deletion| deletion.timestamp));
    let rows = content.rows.iter().map(|(_, row)| row);
    for row in rows.chain([&content.static_row]) {
        all.extend(row.liveness.iter().map(|liveness| liveness.timestamp));
        all.extend(row.deletion.iter().map(|deletion| deletion.timestamp));
        for (_, data) in &row.columns {
            match data {
                ColumnData::Cell(cell) => all.push(cell.timestamp),
                ColumnData::Collection(collection) => {
                    all.extend(collection.cells.iter().map(|(_, cell)| cell.timestamp));
                    if collection.cells.is_empty() {
                        all.extend(collection.deletion.iter().map(|deletion| deletion.timestamp));
                    }
                }
            }
        }
    }
    all.extend(
        content
            .range_tombstones
            .iter()
            .map(|range| range.deletion.timestamp),
    );
    let (lowest, highest) = (all.iter().min()?, all.iter().max()?);
    Some((lowest.0, highest.0))
}
