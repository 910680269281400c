//! Guardrails: what an operator forbids, or wants clients to be warned of, beyond what the database could do.
//!
//! Names, thresholds and texts are Cassandra's. A threshold of -1 is none; a flag that is true forbids nothing. What a schema
//! change comes to is judged by the schema before and after it, so no statement can slip past. System keyspaces are exempt.
//!
//! Never: looks at a row.

use ceto_cql::{CqlError, StatementFeatures};
use ceto_model::{Keyspace, Schema, Table, UserType};

use crate::system::definitions::SYSTEM_KEYSPACES;

/// From where on to warn, and from where on to refuse; -1: never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// Beyond it the client is warned.
    pub warn: i64,
    /// Beyond it the request is refused.
    pub fail: i64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { warn: -1, fail: -1 }
    }
}

/// The guardrails of a node; by default none.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are Cassandra's
pub struct Guardrails {
    pub keyspaces: Threshold,
    pub tables: Threshold,
    pub columns_per_table: Threshold,
    pub fields_per_udt: Threshold,
    pub materialized_views_per_table: Threshold,
    pub page_size: Threshold,
    pub partition_keys_in_select: Threshold,
    pub minimum_replication_factor: Threshold,
    pub maximum_replication_factor: Threshold,
    pub allow_filtering_enabled: bool,
    pub alter_table_enabled: bool,
    pub compact_tables_enabled: bool,
    pub drop_keyspace_enabled: bool,
    pub drop_truncate_table_enabled: bool,
    pub group_by_enabled: bool,
    pub materialized_views_enabled: bool,
    pub read_before_write_list_operations_enabled: bool,
    pub simplestrategy_enabled: bool,
    pub uncompressed_tables_enabled: bool,
    pub user_timestamps_enabled: bool,
}

impl Default for Guardrails {
    fn default() -> Self {
        Self {
            keyspaces: Threshold::default(),
            tables: Threshold::default(),
            columns_per_table: Threshold::default(),
            fields_per_udt: Threshold::default(),
            materialized_views_per_table: Threshold::default(),
            page_size: Threshold::default(),
            partition_keys_in_select: Threshold::default(),
            minimum_replication_factor: Threshold::default(),
            maximum_replication_factor: Threshold::default(),
            allow_filtering_enabled: true,
            alter_table_enabled: true,
            compact_tables_enabled: true,
            drop_keyspace_enabled: true,
            drop_truncate_table_enabled: true,
            group_by_enabled: true,
            materialized_views_enabled: true,
            read_before_write_list_operations_enabled: true,
            simplestrategy_enabled: true,
            uncompressed_tables_enabled: true,
            user_timestamps_enabled: true,
        }
    }
}

/// What a client is told beside its answer.
type Warnings = Vec<String>;

impl Guardrails {
    /// A statement on a table of `keyspace`, as it was prepared.
    pub(crate) fn check_statement(
        &self,
        features: StatementFeatures,
        keyspace: &str,
    ) -> Result<(), CqlError> {
        if features == StatementFeatures::default() || is_system(keyspace) {
            return Ok(());
        }
        let flags = [
            (
                features.allow_filtering && !self.allow_filtering_enabled,
                "allow_filtering",
                "Querying with ALLOW FILTERING is not allowed. ALLOW FILTERING can potentially visit all the data in the \
                 table and have unpredictable performance.",
            ),
            (
                features.group_by && !self.group_by_enabled,
                "group_by",
                "GROUP BY functionality is not allowed",
            ),
            (
                features.user_timestamp && !self.user_timestamps_enabled,
                "user_timestamps",
                "User provided timestamps (USING TIMESTAMP) is not allowed",
            ),
            (
                features.list_read && !self.read_before_write_list_operations_enabled,
                "read_before_write_list_operations",
                "List operation requiring read before write is not allowed",
            ),
        ];
        refuse_first(&flags)
    }

    /// TRUNCATE.
    pub(crate) fn check_truncate(&self) -> Result<(), CqlError> {
        enabled(
            self.drop_truncate_table_enabled,
            "drop_truncate_table_enabled",
            "DROP and TRUNCATE TABLE functionality",
        )
    }

    /// The rows per page that a client asks for.
    pub(crate) fn check_page_size(
        &self,
        table: &Table,
        page_size: u32,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if is_system(&table.keyspace) {
            return Ok(());
        }
        let name = &table.name;
        self.page_size.check_maximum("page_size", i64::from(page_size), warnings, |threshold, warns| {
            match warns {
                true => format!("Query for table {name} with page size {page_size} exceeds warning threshold of {threshold}."),
                false => format!("Aborting query for table {name}, page size {page_size} exceeds fail threshold of {threshold}."),
            }
        })
    }

    /// The partitions that a SELECT names.
    pub(crate) fn check_partition_keys(
        &self,
        table: &Table,
        count: usize,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if is_system(&table.keyspace) {
            return Ok(());
        }
        let name = &table.name;
        let value = count as i64;
        let threshold = self.partition_keys_in_select;
        threshold.check_maximum("partition_keys_in_select", value, warnings, |threshold, warns| match warns {
            true => format!(
                "Query with partition keys in IN clause on table {name}, with number of partition keys {count} exceeds \
                 warning threshold of {threshold}."
            ),
            false => format!(
                "Aborting query with partition keys in IN clause on table {name}, number of partition keys {count} exceeds \
                 fail threshold of {threshold}."
            ),
        })
    }

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

impl Threshold {
    fn check_maximum(
        self,
        guardrail: &str,
        value: i64,
        warnings: &mut Warnings,
        text: impl Fn(i64, bool) -> String,
    ) -> Result<(), CqlError> {
        self.check(guardrail, |threshold| value > threshold, warnings, text)
    }

    fn check_minimum(
        self,
        guardrail: &str,
        value: i64,
        warnings: &mut Warnings,
        text: impl Fn(i64, bool) -> String,
    ) -> Result<(), CqlError> {
        self.check(guardrail, |threshold| value < threshold, warnings, text)
    }

    fn check(
        self,
        guardrail: &str,
        is_beyond: impl Fn(i64) -> bool,
        warnings: &mut Warnings,
        text: impl Fn(i64, bool) -> String,
    ) -> Result<(), CqlError> {
        let is_beyond = |threshold: i64| threshold >= 0 && is_beyond(threshold);
        if is_beyond(self.fail) {
            return Err(violated(guardrail, &text(self.fail, false)));
        }
        if is_beyond(self.warn) {
            warnings.push(violation(guardrail, &text(self.warn, true)));
        }
        Ok(())
    }
}

fn is_system(keyspace: &str) -> bool {
    SYSTEM_KEYSPACES.contains(&keyspace)
}

fn enabled(is_enabled: bool, guardrail: &str, what: &str) -> Result<(), CqlError> {
    match is_enabled {
        true => Ok(()),
        false => Err(violated(guardrail, &format!("{what} is not allowed"))),
    }
}

/// The first that is set.
fn refuse_first(flags: &[(bool, &str, &str)]) -> Result<(), CqlError> {
    match flags.iter().find(|(is_violated, ..)| *is_violated) {
        Some((_, guardrail, text)) => Err(violated(guardrail, text)),
        None => Ok(()),
    }
}

fn violated(guardrail: &str, text: &str) -> CqlError {
    CqlError::Invalid(violation(guardrail, text))
}

fn violation(guardrail: &str, text: &str) -> String {
    format!("Guardrail {guardrail} violated: {text}")
}

#[cfg(test)]
mod tests;
