//! CREATE INDEX and DROP INDEX.

use super::type_use::uses_duration;
use super::vector_index::{VECTOR_OPTIONS, check_vectors};
use super::{Action, SchemaChange, keyspace, names};
use crate::CqlError;
use crate::ast::{CreateIndex, Drop, IndexTargetKind, Properties};
use crate::options::PropertyReader;
use ceto_model::schema::{
    CLASS_NAME, IndexDefinition, IndexTarget, TARGET, TableBuilder, is_storage_attached,
};
use ceto_model::types::quote_identifier;
use ceto_model::{Column, ColumnKind, CqlType, Keyspace, Schema, Table, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// The class that USING names for what is made without it.
const LEGACY: &str = "legacy_local_table";
/// Options of a storage-attached index of texts.
const TEXT_OPTIONS: [&str; 3] = ["case_sensitive", "normalize", "ascii"];

#[derive(Clone, Debug)]
pub(super) struct CreateIndexChange {
    pub(super) table: Arc<str>,
    id: Uuid,
    /// `class_name` and what WITH OPTIONS gives; empty when the index is not custom.
    options: BTreeMap<String, String>,
    create: CreateIndex,
}

pub(super) fn prepare(
    create: &CreateIndex,
    session_keyspace: Option<&str>,
    id: Uuid,
) -> Result<SchemaChange, CqlError> {
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&create.table, session_keyspace)?,
        action: Action::CreateIndex(Arc::new(CreateIndexChange {
            table: create.table.name.clone(),
            id,
            options: options(create)?,
            create: create.clone(),
        })),
    })
}

fn options(create: &CreateIndex) -> Result<BTreeMap<String, String>, CqlError> {
    let written = written_options(&create.properties)?;
    let class = create.using.as_deref();
    let class = class.filter(|class| !class.eq_ignore_ascii_case(LEGACY));
    if create.custom && create.using.is_none() {
        return Err(CqlError::invalid(
            "CUSTOM index requires specifying the index class",
        ));
    }
    let Some(class) = class else {
        if !create.properties.0.is_empty() {
            return Err(CqlError::invalid("Cannot specify options for a non-CUSTOM index"));
        }
        return Ok(BTreeMap::new());
    };
    for reserved in [CLASS_NAME, TARGET] {
        if written.contains_key(reserved) {
            return Err(CqlError::Invalid(format!(
                "Cannot specify {reserved} as a CUSTOM option"
            )));
        }
    }
    if class.ends_with("SASIIndex") {
        return Err(CqlError::invalid(
            "SASI indexes are disabled. Enable in cassandra.yaml to use.",
        ));
    }
    if !is_storage_attached(class) {
        return Err(CqlError::Config(format!(
            "Unable to find custom indexer class '{class}'"
        )));
    }
    let unknown: Vec<&str> = written
        .keys()
        .map(String::as_str)
        .filter(|name| !TEXT_OPTIONS.contains(name) && !VECTOR_OPTIONS.contains(name))
        .collect();
    if !unknown.is_empty() {
        return Err(CqlError::Config(format!(
            "Properties specified [{}] are not understood by StorageAttachedIndex",
            unknown.join(", ")
        )));
    }
    for (name, value) in written
        .iter()
        .filter(|(name, _)| TEXT_OPTIONS.contains(&name.as_str()))
    {
        if !["true", "false"].contains(&value.trim().to_ascii_lowercase().as_str()) {
            return Err(CqlError::Invalid(format!(
                "Illegal value for boolean option '{name}': {value}"
            )));
        }
    }
    let mut options = written;
    options.insert(CLASS_NAME.to_owned(), class.to_owned());
    Ok(options)
}

fn written_options(properties: &Properties) -> Result<BTreeMap<String, String>, CqlError> {
    let reader = PropertyReader::new(properties, &["options"])?;
    let entries = reader.map("options")?.unwrap_or_default().iter();
    Ok(entries
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect())
}

/// The index of this name, with its table.
pub(crate) fn find_index<'k>(
    keyspace: &'k Keyspace,
    name: &str,
) -> Option<(&'k Arc<Table>, &'k IndexDefinition)> {
    keyspace.tables.values().find_map(|table| {
        let index = table
            .indexes()
            .iter()
            .find(|index| *index.definition.name == *name)?;
        Some((table, &index.definition))
    })
}

pub(super) fn create(
    schema: &Schema,
    keyspace_name: &str,
    change: &CreateIndexChange,
) -> Result<Option<Schema>, CqlError> {
    let create = &change.create;
    let keyspace = keyspace::existing(schema, keyspace_name)?;
    let Some(table) = keyspace.tables.get(&change.table) else {
        return Err(CqlError::Invalid(format!(
            "Table '{}' doesn't exist",
            change.table
        )));
    };
    if let Some(name) = &create.name
        && find_index(keyspace, name).is_some()
    {
        if create.if_not_exists {
            return Ok(None);
        }
        return Err(CqlError::Invalid(format!("Index '{name}' already exists")));
    }
    if table.is_virtual {
        return Err(CqlError::invalid(
            "Secondary indexes are not supported on virtual tables",
        ));
    }
    if table.is_view() {
        return Err(CqlError::invalid(
            "Secondary indexes on materialized views aren't supported",
        ));
    }
    if table.is_counter {
        return Err(CqlError::invalid(
            "Secondary indexes on counter tables aren't supported",
        ));
    }
    let target = target(table, change)?;
    let (column, kind) = target;
    check_target(table, column, kind)?;
    let mut options = change.options.clone();
    let name = match &create.name {
        Some(name) => name.clone(),
        None => available_name(keyspace, &table.to_builder(), &change.table, &column.name),
    };
    if !options.is_empty() {
        check_storage_attached(table, column, kind, &options)?;
        check_vectors(&name, column, &options)?;
    } else if matches!(column.cql_type, CqlType::Vector { .. }) {
        return Err(CqlError::Invalid(format!(
            "Cannot create index on vector column {}: only a storage-attached one (USING 'sai') finds what is near",
            quote_identifier(&column.name)
        )));
    }
    options.insert(TARGET.to_owned(), target_text(&column.name, kind));
    let is_same = |index: &&Arc<ceto_model::Index>| index.definition.options == options;
    if let Some(same) = table.indexes().iter().find(is_same) {
        if create.if_not_exists {
            return Ok(None);
        }
        return Err(CqlError::Invalid(format!(
            "Index {name} is a duplicate of existing index {}",
            same.definition.name
        )));
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(CqlError::Config(format!("Illegal index name {name}")));
    }
    let definition = IndexDefinition {
        name,
        id: TableId(change.id),
        column: column.name.clone(),
        target: kind,
        options,
    };
    if definition.is_storage_attached() {
        let same = table.indexes().iter().find(|index| {
            let other = &index.definition;
            other.is_storage_attached() && (&other.column, other.target) == (&definition.column, kind)
        });
        if same.is_some() {
            return Err(CqlError::Invalid(format!(
                "Cannot create more than one storage-attached index on the same column: {}",
                definition.column
            )));
        }
    }
    let mut builder = table.to_builder();
    builder.indexes.push(definition);
    Ok(Some(with_table(schema, keyspace, builder.build())))
}

fn with_table(schema: &Schema, keyspace: &Keyspace, table: Table) -> Schema {
    let mut keyspace = keyspace.clone();
    keyspace.tables.insert(table.name.clone(), Arc::new(table));
    schema.with_keyspace(keyspace, Uuid::nil())
}

/// The one column and the part of it that is to be indexed.
fn target<'t>(table: &'t Table, change: &CreateIndexChange) -> Result<(&'t Column, IndexTarget), CqlError> {
    let is_custom = !change.options.is_empty();
    let mut targets = Vec::new();
    for written in &change.create.targets {
        let column = table
            .column(&written.column)
            .ok_or_else(|| crate::expression::undefined_column(table, &written.column))?;
        let is_collection = matches!(
            column.cql_type,
            CqlType::List { .. } | CqlType::Set { .. } | CqlType::Map { .. }
        );
        let kind = match written.kind {
            IndexTargetKind::Simple if is_collection => IndexTarget::Values,
            IndexTargetKind::Simple => IndexTarget::Simple,
            IndexTargetKind::Values => IndexTarget::Values,
            IndexTargetKind::Keys => IndexTarget::Keys,
            IndexTargetKind::Entries => IndexTarget::Entries,
            IndexTargetKind::Full => IndexTarget::Full,
        };
        targets.push((column, kind));
    }
    match targets.as_slice() {
        [] if is_custom => Err(CqlError::invalid("Missing target column")),
        [] => Err(CqlError::invalid(
            "Only CUSTOM indexes can be created without specifying a target column",
        )),
        [one] => Ok(*one),
        _ if !is_custom => Err(CqlError::invalid("Only CUSTOM indexes support multiple columns")),
        several => {
            let mut seen = BTreeSet::new();
            for (column, _) in several {
                if !seen.insert(&column.name) {
                    return Err(CqlError::Invalid(format!(
                        "Duplicate column '{}' in index target list",
                        column.name
                    )));
                }
            }
            let all: Vec<String> = several
                .iter()
                .map(|(column, kind)| target_text(&column.name, *kind))
                .collect();
            Err(CqlError::Invalid(format!(
                "A storage-attached index cannot be created over multiple columns: {}",
                all.join(", ")
            )))
        }
    }
}

/// `column`, `values(column)`, ..
fn target_text(column: &str, kind: IndexTarget) -> String {
    match kind {
        IndexTarget::Simple => quote_identifier(column),
        other => format!("{}({})", other.name(), quote_identifier(column)),
    }
}

fn check_target(table: &Table, column: &Column, kind: IndexTarget) -> Result<(), CqlError> {
    let name = quote_identifier(&column.name);
    let refuse = |text: String| Err(CqlError::Invalid(text));
    let is_map = matches!(column.cql_type, CqlType::Map { .. });
    let is_collection = matches!(
        column.cql_type,
        CqlType::List { .. } | CqlType::Set { .. } | CqlType::Map { .. }
    );
    let is_frozen_collection = is_collection && !column.cql_type.is_multicell();
    if uses_duration(&column.cql_type) {
        return refuse(format!(
            "Secondary indexes are not supported on {}",
            match column.cql_type {
                _ if is_collection => "collections containing durations",
                CqlType::Tuple(_) => "tuples containing durations",
                CqlType::Udt { .. } => "UDTs containing durations",
                _ => "duration columns",
            }
        ));
    }
    if table.is_compact && column.is_primary_key() {
        return refuse(
            "Secondary indexes are not supported on PRIMARY KEY columns in COMPACT STORAGE tables".to_owned(),
        );
    }
    if table.is_dense() {
        return refuse(
            "Secondary indexes are not supported on compact value column of COMPACT STORAGE tables"
                .to_owned(),
        );
    }
    if column.kind == ColumnKind::PartitionKey && table.partition_key().len() == 1 {
        return refuse(format!(
            "Cannot create secondary index on the only partition key column {name}"
        ));
    }
    if is_frozen_collection && kind != IndexTarget::Full {
        return refuse(format!(
            "Cannot create {}() index on frozen column {name}. Frozen collections are immutable and must be fully \
             indexed by using the 'full({name})' modifier",
            kind.name()
        ));
    }
    if !is_frozen_collection && kind == IndexTarget::Full {
        return refuse("full() indexes can only be created on frozen collections".to_owned());
    }
    if !is_collection && kind != IndexTarget::Simple {
        return refuse(format!(
            "Cannot create {}() index on {name}. Non-collection columns only support simple indexes",
            kind.name()
        ));
    }
    let wants_map = matches!(kind, IndexTarget::Keys | IndexTarget::Entries);
    if wants_map && !(is_map && column.cql_type.is_multicell()) {
        return refuse(format!(
            "Cannot create index on {} of column {name} with non-map type",
            kind.name()
        ));
    }
    if matches!(column.cql_type, CqlType::Udt { .. }) && column.cql_type.is_multicell() {
        return refuse(format!("Cannot create index on non-frozen UDT column {name}"));
    }
    Ok(())
}

/// What a storage-attached index asks of its column.
fn check_storage_attached(
    table: &Table,
    column: &Column,
    kind: IndexTarget,
    options: &BTreeMap<String, String>,
) -> Result<(), CqlError> {
    let indexed: Vec<&CqlType> = match (&column.cql_type, kind) {
        (CqlType::Map { key, .. }, IndexTarget::Keys) => vec![key],
        (CqlType::Map { key, value, .. }, IndexTarget::Entries) => vec![key, value],
        (CqlType::Map { value, .. }, IndexTarget::Values) => vec![value],
        (CqlType::List { element, .. } | CqlType::Set { element, .. }, IndexTarget::Values) => vec![element],
        (cql_type, _) => vec![cql_type],
    };
    for cql_type in &indexed {
        let is_frozen = matches!(
            cql_type,
            CqlType::List { .. }
                | CqlType::Set { .. }
                | CqlType::Map { .. }
                | CqlType::Tuple(_)
                | CqlType::Udt { .. }
        );
        if matches!(
            cql_type,
            CqlType::Blob
                | CqlType::Duration
                | CqlType::Composite(_)
                | CqlType::DynamicComposite(_)
                | CqlType::Custom(_)
        ) && !is_frozen
        {
            return Err(CqlError::Invalid(format!("Unsupported type: {cql_type}")));
        }
    }
    if TEXT_OPTIONS.iter().any(|name| options.contains_key(*name)) {
        if table.column(&column.name).is_some_and(Column::is_primary_key) {
            return Err(CqlError::Invalid(format!(
                "Cannot specify index analyzer on primary key column: {}",
                column.name
            )));
        }
        if let Some(other) = indexed
            .iter()
            .find(|cql_type| !matches!(cql_type, CqlType::Text | CqlType::Ascii))
        {
            return Err(CqlError::Invalid(format!("CQL type {other} cannot be analyzed.")));
        }
    }
    Ok(())
}

/// `table_column_idx`, with a number behind it when that is taken.
pub(super) fn available_name(keyspace: &Keyspace, own: &TableBuilder, table: &str, column: &str) -> Arc<str> {
    let name = format!("{table}_{column}_idx");
    let base: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    let is_own = |name: &str| own.indexes.iter().any(|index| *index.name == *name);
    let is_taken = |name: &str| is_own(name) || find_index(keyspace, name).is_some();
    if !is_taken(&base) {
        return base.into();
    }
    let numbered = (1..).map(|number| format!("{base}_{number}"));
    let mut free = numbered.filter(|name| !is_taken(name));
    free.next().expect("there are more numbers than indexes").into()
}

pub(super) fn prepare_drop(drop: &Drop, session_keyspace: Option<&str>) -> Result<SchemaChange, CqlError> {
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&drop.name, session_keyspace)?,
        action: Action::DropIndex {
            name: drop.name.name.clone(),
            if_exists: drop.if_exists,
        },
    })
}

pub(super) fn drop_index(
    schema: &Schema,
    keyspace_name: &str,
    name: &str,
    if_exists: bool,
) -> Result<Option<Schema>, CqlError> {
    let keyspace = schema.keyspace(keyspace_name);
    let Some((keyspace, (table, _))) =
        keyspace.and_then(|keyspace| Some((keyspace, find_index(keyspace, name)?)))
    else {
        if if_exists {
            return Ok(None);
        }
        return Err(CqlError::Invalid(format!(
            "Index '{keyspace_name}.{name}' doesn't exist'"
        )));
    };
    let mut builder = table.to_builder();
    builder.indexes.retain(|index| *index.name != *name);
    Ok(Some(with_table(schema, keyspace, builder.build())))
}

/// Names of the indexes on a column, for the refusal to change it.
pub(super) fn dependent_indexes(table: &Table, column: &str) -> Option<String> {
    let names: Vec<&str> = table
        .indexes()
        .iter()
        .filter(|index| *index.definition.column == *column)
        .map(|index| &*index.definition.name)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}
