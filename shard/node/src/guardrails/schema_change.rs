//! What a change of the schema comes to.

use ceto_cql::CqlError;
use ceto_model::{CqlType, Keyspace, Schema, Table, UserType};

use super::{Guardrails, Warnings, enabled, is_system, recommended, violated};

/// A default that never ends data, in tables whose sstables are dropped by their age.
const ZERO_TTL: &str =
    "0 default_time_to_live on a table with TimeWindowCompactionStrategy compaction strategy";
const ZERO_TTL_REASON: &str = "It is suspicious to use default_time_to_live set to 0 with such compaction strategy. Please \
     keep in mind that data will not start to automatically expire after they are older than a respective compaction \
     window unit of a certain size. Please set TTL for your INSERT or UPDATE statements if you expect data to be expired \
     as table settings will not do it. ";

impl Guardrails {
    /// A schema change, by what the schema was and would be.
    pub(crate) fn check_change(
        &self,
        old: &Schema,
        new: &Schema,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let of_users = |schema: &Schema| -> Vec<std::sync::Arc<Keyspace>> {
            let keyspaces = schema.keyspaces().filter(|keyspace| !is_system(&keyspace.name));
            keyspaces.cloned().collect()
        };
        let (before, after) = (of_users(old), of_users(new));
        if before
            .iter()
            .any(|keyspace| new.keyspace(&keyspace.name).is_none())
        {
            enabled(
                self.drop_keyspace_enabled,
                "drop_keyspace_enabled",
                "DROP KEYSPACE functionality",
            )?;
        }
        let tables = after.iter().map(|keyspace| keyspace.tables.len()).sum();
        for keyspace in &after {
            let previous = old.keyspace(&keyspace.name).map(|keyspace| &**keyspace);
            if previous.is_none() {
                self.check_keyspace_count(keyspace, after.len(), warnings)?;
            }
            if previous.is_none_or(|previous| previous.replication != keyspace.replication) {
                self.check_replication(keyspace, warnings)?;
            }
            self.check_tables(previous, keyspace, tables, warnings)?;
            self.check_views(previous, keyspace, warnings)?;
            self.check_indexes(previous, keyspace, warnings)?;
            for user_type in keyspace.types.values() {
                let own = previous.and_then(|previous| previous.types.get(&user_type.name));
                if own.is_none_or(|own| own.fields.len() < user_type.fields.len()) {
                    self.check_user_type(user_type, warnings)?;
                }
            }
        }
        Ok(())
    }

    fn check_views(
        &self,
        previous: Option<&Keyspace>,
        keyspace: &Keyspace,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let is_old = |name: &str| previous.is_some_and(|previous| previous.tables.contains_key(name));
        for view in keyspace.tables.values().filter(|table| !is_old(&table.name)) {
            let Some(definition) = &view.view else { continue };
            if !self.materialized_views_enabled {
                return Err(CqlError::invalid(
                    "Materialized views are disabled. Enable in ceto.yaml to use (materialized_views_enabled).",
                ));
            }
            let (count, name, base) = (
                keyspace.views_of(definition.base).count() as i64,
                &view.name,
                &definition.base_name,
            );
            let threshold = self.materialized_views_per_table;
            threshold.check_maximum("materialized_views_per_table", count, warnings, |threshold, warns| match warns {
                true => format!(
                    "Creating materialized view {name} on table {base}, current number of views {count} exceeds \
                     warning threshold of {threshold}."
                ),
                false => format!(
                    "Tables cannot have more than {threshold} materialized views, aborting the creation of \
                     materialized view {name} on table {base}"
                ),
            })?;
        }
        Ok(())
    }

    fn check_indexes(
        &self,
        previous: Option<&Keyspace>,
        keyspace: &Keyspace,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        for table in keyspace.tables.values() {
            let before = previous.and_then(|previous| previous.tables.get(&table.name));
            let is_old = |name: &str| {
                let before = before.iter().flat_map(|before| before.indexes());
                before.into_iter().any(|index| *index.definition.name == *name)
            };
            let count = table.indexes().len();
            let mut definitions = table.indexes().iter().map(|index| &index.definition);
            let Some(created) = definitions.find(|definition| !is_old(&definition.name)) else {
                continue;
            };
            enabled(
                self.secondary_indexes_enabled,
                "secondary_indexes",
                "Creating secondary indexes",
            )?;
            let what = format!("{} on table {}", created.name, table.name);
            let threshold = self.secondary_indexes_per_table;
            threshold.check_maximum("secondary_indexes_per_table", count as i64, warnings, |threshold, warns| match warns {
                true => format!(
                    "Creating secondary index {what}, current number of indexes {count} exceeds warning threshold of \
                     {threshold}."
                ),
                false => format!(
                    "Tables cannot have more than {threshold} secondary indexes, aborting the creation of secondary \
                     index {what}"
                ),
            })?;
        }
        Ok(())
    }

    fn check_keyspace_count(
        &self,
        created: &Keyspace,
        count: usize,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let name = &created.name;
        self.keyspaces.check_maximum("keyspaces", count as i64, warnings, |threshold, warns| match warns {
            true => format!(
                "Creating keyspace {name}, current number of keyspaces {count} exceeds warning threshold of {threshold}."
            ),
            false => {
                format!("Cannot have more than {threshold} keyspaces, aborting the creation of keyspace {name}")
            }
        })
    }

    fn check_replication(&self, keyspace: &Keyspace, warnings: &mut Warnings) -> Result<(), CqlError> {
        if keyspace.replication.strategy() == "SimpleStrategy" {
            enabled(self.simplestrategy_enabled, "simplestrategy", "SimpleStrategy")?;
        }
        let name = &keyspace.name;
        let options = keyspace.replication.0.iter().filter(|(key, _)| *key != "class");
        let factors = options.filter_map(|(_, value)| value.split('/').next()?.parse::<i64>().ok());
        for factor in factors {
            let text = |side: &'static str| {
                move |threshold: i64, warns: bool| {
                    let kind = if warns { "warning" } else { "failure" };
                    format!(
                        "The keyspace {name} has a replication factor of {factor}, {side} the {kind} threshold of \
                         {threshold}."
                    )
                }
            };
            let minimum = self.minimum_replication_factor;
            minimum.check_minimum("minimum_replication_factor", factor, warnings, text("below"))?;
            let maximum = self.maximum_replication_factor;
            maximum.check_maximum("maximum_replication_factor", factor, warnings, text("above"))?;
        }
        Ok(())
    }

    fn check_tables(
        &self,
        previous: Option<&Keyspace>,
        keyspace: &Keyspace,
        count: usize,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let before = |table: &Table| {
            let own = previous?.tables.get(&table.name)?;
            (own.id == table.id).then_some(&**own)
        };
        let is_gone = |table: &Table| {
            keyspace
                .tables
                .get(&table.name)
                .is_none_or(|now| now.id != table.id)
        };
        if previous.is_some_and(|previous| previous.tables.values().any(|table| is_gone(table))) {
            self.check_truncate()?;
        }
        for table in keyspace.tables.values() {
            let own = before(table);
            if own.is_some_and(|own| std::ptr::eq(own, &**table)) {
                continue;
            }
            self.check_table(own, table, warnings)?;
            if own.is_none() {
                let name = &table.name;
                self.tables.check_maximum("tables", count as i64, warnings, |threshold, warns| match warns {
                    true => format!(
                        "Creating table {name}, current number of tables {count} exceeds warning threshold of {threshold}."
                    ),
                    false => {
                        format!("Cannot have more than {threshold} tables, aborting the creation of table {name}")
                    }
                })?;
            }
        }
        Ok(())
    }

    fn check_table(
        &self,
        previous: Option<&Table>,
        table: &Table,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if !table.is_view() && previous.is_some_and(|previous| previous.columns() != table.columns()) {
            enabled(
                self.alter_table_enabled,
                "alter_table",
                "User access to ALTER TABLE statement for column mutation",
            )?;
        }
        if previous.is_none() && table.is_compact {
            enabled(
                self.compact_tables_enabled,
                "compact_tables",
                "Creation of new COMPACT STORAGE tables",
            )?;
        }
        let is_uncompressed = |table: &Table| {
            table
                .options
                .compression
                .get("enabled")
                .is_some_and(|text| text == "false")
        };
        if is_uncompressed(table) && !previous.is_some_and(is_uncompressed) {
            enabled(
                self.uncompressed_tables_enabled,
                "uncompressed_tables_enabled",
                "Uncompressed table",
            )?;
        }
        self.check_vectors(previous, table, warnings)?;
        self.check_time_windows(previous, table, warnings)?;
        let count = table.shown_columns().count();
        if previous.is_some_and(|previous| previous.shown_columns().count() >= count) {
            return Ok(());
        }
        let name = &table.name;
        let threshold = self.columns_per_table;
        threshold.check_maximum("columns_per_table", count as i64, warnings, |threshold, warns| match warns {
            true => format!("The table {name} has {count} columns, this exceeds the warning threshold of {threshold}."),
            false => {
                format!("Tables cannot have more than {threshold} columns, but {count} provided for table {name}")
            }
        })
    }

    fn check_vectors(
        &self,
        previous: Option<&Table>,
        table: &Table,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if table.is_view() {
            return Ok(());
        }
        let is_old = |name: &str| previous.is_some_and(|previous| previous.column(name).is_some());
        for column in table.shown_columns().filter(|column| !is_old(&column.name)) {
            let Some(dimensions) = largest_vector(&column.cql_type) else {
                continue;
            };
            enabled(self.vector_type_enabled, "vector_type", "Vector type")?;
            let name = &column.name;
            self.vector_dimensions
                .check_maximum("vector_dimensions", dimensions, warnings, |threshold, warns| {
                    format!(
                        "{name} has a vector of {dimensions} dimensions, this exceeds the {} threshold of {threshold}.",
                        if warns { "warning" } else { "failure" }
                    )
                })?;
        }
        Ok(())
    }

    /// Asked when the table is made, and whenever an ALTER changes its options.
    fn check_time_windows(
        &self,
        previous: Option<&Table>,
        table: &Table,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let class = table.options.compaction.get("class");
        let has_windows = class.is_some_and(|class| class.ends_with("TimeWindowCompactionStrategy"));
        let is_same = previous.is_some_and(|previous| previous.options == table.options);
        if !has_windows || table.options.default_time_to_live != 0 || is_same {
            return Ok(());
        }
        let guardrail = "zero_ttl_on_twcs";
        if !self.zero_ttl_on_twcs_enabled {
            return Err(violated(
                guardrail,
                &format!("{ZERO_TTL} is not allowed. {ZERO_TTL_REASON}"),
            ));
        }
        if self.zero_ttl_on_twcs_warned {
            warnings.push(recommended(guardrail, ZERO_TTL, ZERO_TTL_REASON));
        }
        Ok(())
    }

    fn check_user_type(&self, user_type: &UserType, warnings: &mut Warnings) -> Result<(), CqlError> {
        let (name, count) = (&user_type.name, user_type.fields.len());
        let threshold = self.fields_per_udt;
        threshold.check_maximum("fields_per_udt", count as i64, warnings, |threshold, warns| match warns {
            true => format!("The user type {name} has {count} columns, this exceeds the warning threshold of {threshold}."),
            false => format!(
                "User types cannot have more than {threshold} columns, but {count} provided for user type {name}"
            ),
        })
    }
}

/// Dimensions of the largest vector in a type.
fn largest_vector(cql_type: &CqlType) -> Option<i64> {
    let largest = |types: &mut dyn Iterator<Item = &CqlType>| types.filter_map(largest_vector).max();
    match cql_type {
        CqlType::Vector { element, dimension } => largest_vector(element).max(Some(i64::from(*dimension))),
        CqlType::List { element, .. } | CqlType::Set { element, .. } => largest_vector(element),
        CqlType::Map { key, value, .. } => largest(&mut [&**key, &**value].into_iter()),
        CqlType::Tuple(elements) => largest(&mut elements.iter()),
        _ => None,
    }
}
