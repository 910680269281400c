//! ALTER TABLE and DROP TABLE.
//!
//! A column is dropped by remembering it: its cells may lie on disk for long. A column that comes back under the same
//! name has the same id; of its cells those count that are newer than the drop.

use super::create_table::{
    check_column_count, counters_do_not_expire, is_multicell_in_multicell, masking_disabled,
    static_without_clustering,
};
use super::index::dependent_indexes;
use super::type_use::without_definitions;
use super::types::{TypeScope, resolve_type};
use super::{Action, SchemaChange, names, view};
use crate::CqlError;
use crate::ast::{self, AlterColumnMask, AlterTable, ColumnDefinition, Name};
use crate::options::altered_table_options;
use ceto_model::schema::{DroppedColumn, TableBuilder};
use ceto_model::types::quote_identifier;
use ceto_model::{ColumnKind, CqlType, Keyspace, Schema, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug)]
pub(super) struct AlterTableChange {
    pub(super) name: Arc<str>,
    if_exists: bool,
    pub(super) change: ast::AlterTableChange,
}

pub(super) fn prepare(alter: &AlterTable, session_keyspace: Option<&str>) -> Result<SchemaChange, CqlError> {
    let keyspace = names::keyspace_of(&alter.name, session_keyspace)?;
    let masks = match &alter.change {
        ast::AlterTableChange::AlterMask(mask) => mask.mask.is_some(),
        ast::AlterTableChange::AddColumns { columns, .. } => {
            columns.iter().any(|column| column.mask.is_some())
        }
        _ => false,
    };
    if masks {
        return Err(masking_disabled());
    }
    Ok(SchemaChange {
        keyspace,
        action: Action::AlterTable(Arc::new(AlterTableChange {
            name: alter.name.name.clone(),
            if_exists: alter.if_exists,
            change: alter.change.clone(),
        })),
    })
}

/// `keyspace.table`, quoted where needed.
fn shown(table: &Table) -> String {
    format!(
        "{}.{}",
        quote_identifier(&table.keyspace),
        quote_identifier(&table.name)
    )
}

fn find<'s>(schema: &'s Schema, keyspace: &str, table: &str) -> Option<(&'s Arc<Keyspace>, &'s Arc<Table>)> {
    let keyspace = schema.keyspace(keyspace)?;
    Some((keyspace, keyspace.tables.get(table)?))
}

fn missing(keyspace: &str, table: &str, if_exists: bool) -> Result<Option<Schema>, CqlError> {
    if if_exists {
        return Ok(None);
    }
    Err(CqlError::invalid(format!(
        "Table '{keyspace}.{table}' doesn't exist"
    )))
}

pub(super) fn drop_table(
    schema: &Schema,
    keyspace_name: &str,
    name: &str,
    if_exists: bool,
) -> Result<Option<Schema>, CqlError> {
    let Some((keyspace, table)) = find(schema, keyspace_name, name) else {
        return missing(keyspace_name, name, if_exists);
    };
    if table.is_view() {
        return Err(CqlError::invalid(
            "Cannot use DROP TABLE on a materialized view. Please use DROP MATERIALIZED VIEW instead.",
        ));
    }
    let views: Vec<&str> = keyspace.views_of(table.id).map(|view| &*view.name).collect();
    if !views.is_empty() {
        return Err(CqlError::invalid(format!(
            "Cannot drop a table when materialized views still depend on it ({})",
            views.join(", ")
        )));
    }
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.tables.remove(name);
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

pub(super) fn alter(
    schema: &Schema,
    keyspace_name: &str,
    alter: &AlterTableChange,
    now_micros: i64,
) -> Result<Option<Schema>, CqlError> {
    let Some((keyspace, table)) = find(schema, keyspace_name, &alter.name) else {
        return missing(keyspace_name, &alter.name, alter.if_exists);
    };
    if table.is_view() {
        return Err(CqlError::invalid(
            "Cannot use ALTER TABLE on a materialized view; use ALTER MATERIALIZED VIEW instead",
        ));
    }
    let altered = match &alter.change {
        ast::AlterTableChange::AlterColumnType { .. } => {
            return Err(CqlError::invalid("Altering column types is no longer supported"));
        }
        ast::AlterTableChange::AlterMask(mask) => {
            check_masked_column(table, mask)?;
            return Ok(None);
        }
        ast::AlterTableChange::AddColumns {
            if_not_exists,
            columns,
        } => add_columns(keyspace, table, columns, *if_not_exists)?,
        ast::AlterTableChange::DropColumns {
            if_exists,
            columns,
            timestamp,
        } => drop_columns(
            keyspace,
            table,
            columns,
            *if_exists,
            timestamp.unwrap_or(now_micros),
        )?,
        ast::AlterTableChange::RenameColumns { if_exists, renames } => {
            rename_columns(table, renames, *if_exists)?
        }
        ast::AlterTableChange::DropCompactStorage => {
            return Err(CqlError::invalid(
                "DROP COMPACT STORAGE is disabled. Enable in cassandra.yaml to use.",
            ));
        }
        ast::AlterTableChange::Properties(properties) => {
            let mut builder = table.to_builder();
            builder.options = altered_table_options(&table.options, properties)?;
            if table.is_counter && builder.options.default_time_to_live > 0 {
                return Err(counters_do_not_expire());
            }
            view::check_base_options(keyspace, table, builder.options.gc_grace_seconds)?;
            builder
        }
    };
    let altered = altered.build();
    if altered == **table {
        return Ok(None);
    }
    let mut keyspace = Keyspace::clone(keyspace);
    if let ast::AlterTableChange::RenameColumns { renames, .. } = &alter.change {
        view::rename_in_clauses(&mut keyspace, table, renames)?;
    }
    keyspace.refresh_views(&altered);
    keyspace.tables.insert(altered.name.clone(), Arc::new(altered));
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

/// DROP MASKED: no column has a mask, so there is nothing to do but to complain.
fn check_masked_column(table: &Table, mask: &AlterColumnMask) -> Result<(), CqlError> {
    if table.column(&mask.column).is_some() || mask.if_exists {
        return Ok(());
    }
    Err(CqlError::invalid(format!(
        "Column with name '{}' doesn't exist on table '{}'",
        mask.column, table.name
    )))
}

/// Has counters, or had nothing else until all of them were dropped.
fn is_counter_table(table: &Table) -> bool {
    let keys_only = table.statics().is_empty() && table.regulars().is_empty();
    let had_counters = table
        .dropped
        .iter()
        .any(|column| column.cql_type == CqlType::Counter);
    table.is_counter || (keys_only && had_counters)
}

fn add_columns(
    keyspace: &Keyspace,
    table: &Table,
    columns: &[ColumnDefinition],
    if_not_exists: bool,
) -> Result<TableBuilder, CqlError> {
    let scope = TypeScope {
        keyspace: &keyspace.name,
        types: &keyspace.types,
    };
    if table.is_compact {
        return Err(CqlError::invalid(
            "Cannot add new column to a COMPACT STORAGE table",
        ));
    }
    let mut names: BTreeSet<&str> = table.columns().iter().map(|column| &*column.name).collect();
    let mut builder = table.to_builder();
    for column in columns {
        let name = &column.name;
        let cql_type = resolve_type(&column.raw_type, scope)?;
        if !names.insert(name) {
            if if_not_exists {
                continue;
            }
            return Err(CqlError::invalid(format!(
                "Column with name '{name}' already exists"
            )));
        }
        if column.is_static && table.clustering().is_empty() {
            return Err(static_without_clustering());
        }
        if is_multicell_in_multicell(&cql_type) {
            return Err(CqlError::invalid(format!(
                "Non-frozen UDTs with nested non-frozen collections are not supported for column {name}"
            )));
        }
        check_against_dropped(table, column, &cql_type)?;
        check_counters(table, name, &cql_type)?;
        let kind = if column.is_static {
            ColumnKind::Static
        } else {
            ColumnKind::Regular
        };
        builder.add_column(name, kind, cql_type);
        if let Some(dropped) = table.dropped.iter().find(|dropped| dropped.name == *name)
            && let Some(added) = builder.columns.last_mut()
        {
            added.id = dropped.id;
        }
        check_column_count(&shown(table), builder.columns.len())?;
    }
    Ok(builder)
}

fn check_counters(table: &Table, name: &str, added: &CqlType) -> Result<(), CqlError> {
    let place = format!("{}.{}", table.keyspace, table.name);
    match (is_counter_table(table), *added == CqlType::Counter) {
        (true, false) => Err(CqlError::config(format!(
            "{place}: Cannot have a non counter column (\"{name}\") in a counter table"
        ))),
        (false, true) => Err(CqlError::config(format!(
            "{place}: Cannot have a counter column (\"{name}\") in a non counter table"
        ))),
        _ => Ok(()),
    }
}

fn check_against_dropped(table: &Table, column: &ColumnDefinition, added: &CqlType) -> Result<(), CqlError> {
    let name = &column.name;
    let Some(dropped) = table.dropped.iter().find(|dropped| dropped.name == *name) else {
        return Ok(());
    };
    if !is_compatible(added, &dropped.cql_type) {
        return Err(CqlError::invalid(format!(
            "Cannot re-add previously dropped column '{name}' of type {added}, incompatible with previous type {}",
            dropped.cql_type
        )));
    }
    let was_static = dropped.kind == ColumnKind::Static;
    if was_static != column.is_static {
        let kind = |is_static| if is_static { "STATIC" } else { "REGULAR" };
        return Err(CqlError::invalid(format!(
            "Cannot re-add previously dropped column '{name}' of kind {}, incompatible with previous kind {}",
            kind(column.is_static),
            kind(was_static)
        )));
    }
    if is_counter_table(table) {
        return Err(CqlError::invalid(format!(
            "Cannot re-add previously dropped counter column {name}"
        )));
    }
    Ok(())
}

/// Values of `previous` may be read as values of `added`: what Cassandra asks of a column that comes back.
fn is_compatible(added: &CqlType, previous: &CqlType) -> bool {
    let (added, previous) = (without_definitions(added), without_definitions(previous));
    if added == previous {
        return true;
    }
    match (&added, &previous) {
        (CqlType::Blob, previous) => {
            !previous.is_multicell() && previous.fixed_size().is_none() && *previous != CqlType::Counter
        }
        (CqlType::Text, CqlType::Ascii)
        | (CqlType::Uuid, CqlType::Timeuuid)
        | (CqlType::Bigint, CqlType::Timestamp)
        | (CqlType::Timestamp | CqlType::Time, CqlType::Bigint)
        | (CqlType::Date, CqlType::Int) => true,
        (CqlType::Tuple(added), CqlType::Tuple(previous)) => {
            added.len() >= previous.len()
                && added
                    .iter()
                    .zip(previous.iter())
                    .all(|(added, previous)| is_compatible(added, previous))
        }
        (
            CqlType::List { element, frozen },
            CqlType::List {
                element: previous,
                frozen: was_frozen,
            },
        )
        | (
            CqlType::Set { element, frozen },
            CqlType::Set {
                element: previous,
                frozen: was_frozen,
            },
        ) => frozen == was_frozen && is_compatible(element, previous),
        (
            CqlType::Map { key, value, frozen },
            CqlType::Map {
                key: previous_key,
                value: previous,
                frozen: was_frozen,
            },
        ) => frozen == was_frozen && is_compatible(key, previous_key) && is_compatible(value, previous),
        _ => false,
    }
}

fn drop_columns(
    keyspace: &Keyspace,
    table: &Table,
    columns: &[Name],
    if_exists: bool,
    dropped_at: i64,
) -> Result<TableBuilder, CqlError> {
    if table.is_compact {
        return Err(CqlError::invalid(
            "Cannot drop columns from a COMPACT STORAGE table",
        ));
    }
    let mut dropped = BTreeMap::new();
    for name in columns {
        let Some(column) = table.column(name) else {
            if if_exists {
                continue;
            }
            return Err(CqlError::invalid(format!(
                "Column {name} was not found in table '{}'",
                shown(table)
            )));
        };
        if column.is_primary_key() {
            return Err(CqlError::invalid(format!(
                "Cannot drop PRIMARY KEY column {name}"
            )));
        }
        if let Some(indexes) = dependent_indexes(table, name) {
            return Err(CqlError::invalid(format!(
                "Cannot drop column {name} because it has dependent secondary indexes ({indexes})"
            )));
        }
        if keyspace.views_of(table.id).next().is_some() {
            return Err(CqlError::invalid(format!(
                "Cannot drop column {name} on base table {} with materialized views",
                table.name
            )));
        }
        if let CqlType::Udt { frozen: false, .. } = column.cql_type {
            return Err(CqlError::invalid(format!(
                "Cannot drop non-frozen column {name} of user type {}",
                column.cql_type
            )));
        }
        dropped.insert(
            column.name.clone(),
            DroppedColumn {
                id: column.id,
                name: name.clone(),
                kind: column.kind,
                cql_type: without_definitions(&column.cql_type),
                dropped_at,
            },
        );
    }
    let mut builder = table.to_builder();
    builder
        .columns
        .retain(|column| !dropped.contains_key(&column.name));
    // one per name, the latest, as Cassandra: with an earlier USING TIMESTAMP more can come back than before
    let earlier = table
        .dropped
        .iter()
        .filter(|earlier| !dropped.contains_key(&earlier.name));
    builder.dropped = earlier.cloned().chain(dropped.values().cloned()).collect();
    builder.dropped.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(builder)
}

fn rename_columns(
    table: &Table,
    renames: &[(Name, Name)],
    if_exists: bool,
) -> Result<TableBuilder, CqlError> {
    let mut builder = table.to_builder();
    // of two new names for one column the last one counts
    let renames: BTreeMap<&Name, &Name> = renames.iter().map(|(from, to)| (from, to)).collect();
    for (from, to) in renames {
        let Some(column) = table.column(from) else {
            if if_exists {
                continue;
            }
            return Err(CqlError::invalid(format!(
                "Undefined column name {} in table {}",
                quote_identifier(from),
                shown(table)
            )));
        };
        if !column.is_primary_key() {
            return Err(CqlError::invalid(format!(
                "Cannot rename non PRIMARY KEY column {from}"
            )));
        }
        if table.column(to).is_some() || builder.columns.iter().any(|other| other.name == *to) {
            return Err(CqlError::invalid(format!(
                "Cannot rename column {from} to {to} in table '{}'; another column with that name already exists",
                shown(table)
            )));
        }
        if let Some(indexes) = dependent_indexes(table, from) {
            return Err(CqlError::invalid(format!(
                "Can't rename column {from} because it has dependent secondary indexes ({indexes})"
            )));
        }
        for renamed in &mut builder.columns {
            if renamed.id == column.id {
                renamed.name = to.clone();
            }
        }
    }
    Ok(builder)
}
