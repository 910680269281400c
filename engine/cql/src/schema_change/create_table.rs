//! CREATE TABLE.

use super::type_use::uses_duration;
use super::types::{TypeScope, resolve_type};
use super::{Action, SchemaChange, keyspace, names};
use crate::CqlError;
use crate::ast::{CreateTable, Name, PrimaryKey};
use crate::options::{new_table_options, table_id};
use ceto_model::schema::TableBuilder;
use ceto_model::{ColumnKind, CqlType, Keyspace, Schema, Table, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug)]
pub(super) struct CreateTableChange {
    pub(super) name: Arc<str>,
    /// Unless the statement gives another.
    id: Uuid,
    pub(super) create: CreateTable,
}

/// How many columns a table may have.
pub(super) const COLUMNS_MAX: usize = 16_384;

/// How many of them may be in its primary key.
const KEY_COLUMNS_MAX: usize = 256;

/// The columns that are not yet placed, by name.
type ColumnTypes = BTreeMap<Name, CqlType>;

pub(super) fn prepare(
    create: &CreateTable,
    session_keyspace: Option<&str>,
    id: Uuid,
) -> Result<SchemaChange, CqlError> {
    let keyspace = names::keyspace_of(&create.name, session_keyspace)?;
    let shown = format!("{keyspace}.{}", create.name.name);
    check_column_count(&shown, create.columns.len())?;
    check_written_once(create, &shown)?;
    match create.primary_keys.as_slice() {
        [key] if key.partition_key.len() + key.clustering.len() > KEY_COLUMNS_MAX => {
            return Err(CqlError::invalid(format!(
                "Table '{shown}' cannot have more than {KEY_COLUMNS_MAX} columns in its PRIMARY KEY"
            )));
        }
        [_] => {}
        [] => {
            return Err(CqlError::invalid(format!(
                "No PRIMARY KEY specifed for table '{shown}' (exactly one required)"
            )));
        }
        _ => {
            return Err(CqlError::invalid(format!(
                "Multiple PRIMARY KEY specified for table '{shown}' (exactly one required)"
            )));
        }
    }
    if create.columns.iter().any(|column| column.mask.is_some()) {
        return Err(masking_disabled());
    }
    Ok(SchemaChange {
        keyspace,
        action: Action::CreateTable(Arc::new(CreateTableChange {
            name: create.name.name.clone(),
            id,
            create: create.clone(),
        })),
    })
}

/// The answer to MASKED WITH.
pub(super) fn masking_disabled() -> CqlError {
    CqlError::invalid(
        "Cannot mask columns because dynamic data masking is not enabled. You can enable it with the \
         dynamic_data_masking_enabled property on cassandra.yaml",
    )
}

/// Refuses more columns than a table may have.
pub(super) fn check_column_count(shown: &str, count: usize) -> Result<(), CqlError> {
    if count <= COLUMNS_MAX {
        return Ok(());
    }
    Err(CqlError::invalid(format!(
        "Table '{shown}' cannot have more than {COLUMNS_MAX} columns"
    )))
}

fn check_written_once(create: &CreateTable, shown: &str) -> Result<(), CqlError> {
    let mut columns = BTreeSet::new();
    for column in &create.columns {
        if !columns.insert(&column.name) {
            return Err(CqlError::invalid(format!(
                "Duplicate column '{}' declaration for table '{shown}'",
                column.name
            )));
        }
    }
    let mut ordered = BTreeSet::new();
    for order in &create.options.clustering_order {
        if !ordered.insert(&order.column) {
            return Err(CqlError::invalid(format!(
                "Duplicate column '{}' in CLUSTERING ORDER BY clause for table '{shown}'",
                order.column
            )));
        }
    }
    Ok(())
}

pub(super) fn create(
    schema: &Schema,
    keyspace_name: &str,
    change: &CreateTableChange,
) -> Result<Option<Schema>, CqlError> {
    let keyspace = keyspace::existing(schema, keyspace_name)?;
    if keyspace.tables.contains_key(&change.name) {
        return already_exists(keyspace_name, &change.name, change.create.if_not_exists);
    }
    let table = build(keyspace, change)?;
    Ok(Some(with_new_table(schema, keyspace, table)?))
}

/// The answer when a table of this name exists.
pub(super) fn already_exists(
    keyspace: &str,
    table: &str,
    if_not_exists: bool,
) -> Result<Option<Schema>, CqlError> {
    if if_not_exists {
        return Ok(None);
    }
    Err(CqlError::AlreadyExists {
        keyspace: keyspace.to_owned(),
        table: table.to_owned(),
    })
}

/// The schema with one table more.
pub(super) fn with_new_table(schema: &Schema, keyspace: &Keyspace, table: Table) -> Result<Schema, CqlError> {
    names::check_table_name(&keyspace.name, &table.name)?;
    if let Some(other) = schema.table_by_id(table.id) {
        return Err(CqlError::config(format!(
            "Table id {} is that of table {}.{} already",
            table.id, other.keyspace, other.name
        )));
    }
    let mut keyspace = keyspace.clone();
    keyspace.tables.insert(table.name.clone(), Arc::new(table));
    Ok(schema.with_keyspace(keyspace, Uuid::nil()))
}

fn build(keyspace: &Keyspace, change: &CreateTableChange) -> Result<Table, CqlError> {
    let create = &change.create;
    let options = new_table_options(&create.options.properties)?;
    let id = table_id(&create.options.properties)?.unwrap_or(change.id);
    let scope = TypeScope {
        keyspace: &keyspace.name,
        types: &keyspace.types,
    };
    let mut columns = ColumnTypes::new();
    for column in &create.columns {
        columns.insert(column.name.clone(), resolve_type(&column.raw_type, scope)?);
    }
    if columns.values().any(is_multicell_in_multicell) {
        return Err(CqlError::invalid(
            "Non-frozen UDTs with nested non-frozen collections are not supported",
        ));
    }
    let statics: BTreeSet<&Name> = create
        .columns
        .iter()
        .filter(|column| column.is_static)
        .map(|column| &column.name)
        .collect();
    let primary_key = create.primary_keys.first().expect("prepare has seen one");
    check_primary_key(&change.name, primary_key, &columns, &statics)?;
    check_clustering_order(create, primary_key)?;

    let mut builder = TableBuilder::new(TableId(id), &keyspace.name, &change.name);
    add_primary_key(&mut builder, create, primary_key, &mut columns);
    if create.options.compact_storage {
        check_compact(&columns, !statics.is_empty(), !primary_key.clustering.is_empty())?;
        builder.is_compact = true;
    } else if primary_key.clustering.is_empty() && !statics.is_empty() {
        return Err(static_without_clustering());
    }
    if columns.values().any(|cql_type| *cql_type == CqlType::Counter) {
        if columns.values().any(|cql_type| *cql_type != CqlType::Counter) {
            return Err(CqlError::invalid(
                "Cannot mix counter and non counter columns in the same table",
            ));
        }
        if options.default_time_to_live > 0 {
            return Err(counters_do_not_expire());
        }
    }
    for (name, cql_type) in columns {
        let kind = if statics.contains(&name) {
            ColumnKind::Static
        } else {
            ColumnKind::Regular
        };
        builder.add_column(&name, kind, cql_type);
    }
    builder.options = options;
    Ok(builder.build())
}

/// What COMPACT STORAGE can hold; `columns` are those outside of the primary key.
fn check_compact(columns: &ColumnTypes, has_statics: bool, is_dense: bool) -> Result<(), CqlError> {
    let problem = if columns.values().any(CqlType::is_multicell) {
        "Non-frozen collections and UDTs are not supported with COMPACT STORAGE".to_owned()
    } else if has_statics {
        "Static columns are not supported in COMPACT STORAGE tables".to_owned()
    } else if !is_dense && columns.is_empty() {
        "No definition found that is not part of the PRIMARY KEY".to_owned()
    } else if is_dense && columns.len() > 1 {
        let names: Vec<&str> = columns.keys().map(|name| &**name).collect();
        format!(
            "COMPACT STORAGE with composite PRIMARY KEY allows no more than one column not part of the PRIMARY KEY \
             (got: {})",
            names.join(", ")
        )
    } else {
        return Ok(());
    };
    Err(CqlError::Invalid(problem))
}

/// A user type that is not frozen, with a field that is not frozen.
pub(super) fn is_multicell_in_multicell(cql_type: &CqlType) -> bool {
    match cql_type {
        CqlType::Udt {
            definition,
            frozen: false,
        } => definition
            .fields
            .iter()
            .any(|field| field.cql_type.is_multicell()),
        _ => false,
    }
}

pub(super) fn static_without_clustering() -> CqlError {
    CqlError::invalid(
        "Static columns are only useful (and thus allowed) if the table has at least one clustering column",
    )
}

pub(super) fn counters_do_not_expire() -> CqlError {
    CqlError::invalid("Cannot set default_time_to_live on a table with counters")
}

fn check_primary_key(
    table: &str,
    primary_key: &PrimaryKey,
    columns: &ColumnTypes,
    statics: &BTreeSet<&Name>,
) -> Result<(), CqlError> {
    let mut seen = BTreeSet::new();
    for name in primary_key.partition_key.iter().chain(&primary_key.clustering) {
        let problem = match columns.get(name) {
            None => format!("Unknown column '{name}' referenced in PRIMARY KEY for table '{table}'"),
            Some(_) if !seen.insert(name) => {
                format!("Duplicate column '{name}' in PRIMARY KEY clause for table '{table}'")
            }
            Some(cql_type) if cql_type.is_multicell() => {
                let kind = if cql_type.is_collection() {
                    "collection"
                } else {
                    "user-defined"
                };
                format!("Invalid non-frozen {kind} type {cql_type} for PRIMARY KEY column '{name}'")
            }
            Some(CqlType::Counter) => {
                format!("counter type is not supported for PRIMARY KEY column '{name}'")
            }
            Some(cql_type) if uses_duration(cql_type) => {
                format!("duration type is not supported for PRIMARY KEY column '{name}'")
            }
            Some(_) if statics.contains(name) => {
                format!("Static column '{name}' cannot be part of the PRIMARY KEY")
            }
            Some(_) => continue,
        };
        return Err(CqlError::Invalid(problem));
    }
    Ok(())
}

fn check_clustering_order(create: &CreateTable, primary_key: &PrimaryKey) -> Result<(), CqlError> {
    let written = &create.options.clustering_order;
    if written.len() > primary_key.clustering.len() {
        return Err(CqlError::invalid(
            "Only clustering columns can be defined in CLUSTERING ORDER directive",
        ));
    }
    for (order, column) in written.iter().zip(&primary_key.clustering) {
        if order.column == *column {
            continue;
        }
        return Err(CqlError::Invalid(
            if written.iter().any(|order| order.column == *column) {
                format!(
                    "The order of columns in the CLUSTERING ORDER directive must match that of the clustering columns \
                     ({column} must appear before {})",
                    order.column
                )
            } else {
                format!("Missing CLUSTERING ORDER for column {column}")
            },
        ));
    }
    Ok(())
}

/// Moves the columns of the primary key from `columns` to the table.
fn add_primary_key(
    builder: &mut TableBuilder,
    create: &CreateTable,
    primary_key: &PrimaryKey,
    columns: &mut ColumnTypes,
) {
    let parts = [
        (&primary_key.partition_key, ColumnKind::PartitionKey),
        (&primary_key.clustering, ColumnKind::Clustering),
    ];
    for (names, kind) in parts {
        for name in names {
            let cql_type = columns.remove(name).expect("the primary key was checked");
            builder.add_column(name, kind, cql_type);
        }
    }
    // the order that is written follows that of the columns
    let orders = create.options.clustering_order.iter();
    let clustering = builder
        .columns
        .iter_mut()
        .filter(|column| column.kind == ColumnKind::Clustering);
    for (column, order) in clustering.zip(orders) {
        column.descending = order.descending;
    }
}
