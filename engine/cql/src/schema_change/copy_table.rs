//! CREATE TABLE LIKE: a new table with the columns and options of another, and none of its data.

use super::create_table::{already_exists, with_new_table};
use super::index::available_name;
use super::type_use::{for_each_definition, with_definitions};
use super::{Action, SchemaChange, names};
use crate::CqlError;
use crate::ast::{CopyTable, Properties};
use crate::options::{altered_table_options, table_id};
use ceto_model::schema::TableBuilder;
use ceto_model::{Keyspace, Schema, Table, TableId, UserType};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug)]
pub(super) struct CopyTableChange {
    pub(super) name: Arc<str>,
    id: Uuid,
    if_not_exists: bool,
    source_keyspace: Arc<str>,
    source: Arc<str>,
    with_indexes: bool,
    pub(super) properties: Properties,
}

pub(super) fn prepare(
    copy: &CopyTable,
    session_keyspace: Option<&str>,
    id: Uuid,
) -> Result<SchemaChange, CqlError> {
    let mut properties = copy.properties.clone();
    let id = table_id(&properties)?.unwrap_or(id);
    properties.0.retain(|property| &*property.name != "id");
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&copy.name, session_keyspace)?,
        action: Action::CopyTable(Arc::new(CopyTableChange {
            name: copy.name.name.clone(),
            id,
            if_not_exists: copy.if_not_exists,
            source_keyspace: names::keyspace_of(&copy.source, session_keyspace)?,
            source: copy.source.name.clone(),
            with_indexes: copy.with_indexes,
            properties,
        })),
    })
}

pub(super) fn copy(
    schema: &Schema,
    keyspace_name: &str,
    copy: &CopyTableChange,
) -> Result<Option<Schema>, CqlError> {
    let Some(source_keyspace) = schema.keyspace(&copy.source_keyspace) else {
        return Err(CqlError::invalid(format!(
            "Source Keyspace '{}' doesn't exist",
            copy.source_keyspace
        )));
    };
    let Some(source) = source_keyspace.tables.get(&copy.source) else {
        return Err(CqlError::invalid(format!(
            "Source Table '{}.{}' doesn't exist",
            copy.source_keyspace, copy.source
        )));
    };
    if source.is_virtual {
        return Err(CqlError::invalid(format!(
            "Cannot use CREATE TABLE LIKE on a virtual table '{}.{}'.",
            copy.source_keyspace, copy.source
        )));
    }
    if source.is_view() {
        return Err(CqlError::invalid(format!(
            "Cannot use CREATE TABLE LIKE on a materialized view '{}.{}'.",
            copy.source_keyspace, copy.source
        )));
    }
    let Some(keyspace) = schema.keyspace(keyspace_name) else {
        return Err(CqlError::invalid(format!(
            "Target Keyspace '{keyspace_name}' doesn't exist"
        )));
    };
    if keyspace.tables.contains_key(&copy.name) {
        return already_exists(keyspace_name, &copy.name, copy.if_not_exists);
    }
    if source_keyspace.name != keyspace.name {
        check_types(source_keyspace, source, keyspace)?;
    }
    let mut builder = TableBuilder::new(TableId(copy.id), &keyspace.name, &copy.name);
    for column in source.columns() {
        let cql_type = with_definitions(&column.cql_type, &keyspace.types);
        builder.add_column(&column.name, column.kind, cql_type);
        if let Some(added) = builder.columns.last_mut() {
            added.descending = column.descending;
        }
    }
    builder.options = altered_table_options(&source.options, &copy.properties)?;
    if copy.with_indexes {
        let target = keyspace;
        for index in source.indexes() {
            let mut definition = index.definition.clone();
            definition.name = available_name(target, &builder, &copy.name, &definition.column);
            definition.id = TableId(Uuid::new_v3(&copy.id, definition.name.as_bytes()));
            builder.indexes.push(definition);
        }
    }
    Ok(Some(with_new_table(schema, keyspace, builder.build())?))
}

/// Refuses unless the target keyspace has the user types of the table, alike.
fn check_types(source_keyspace: &Keyspace, source: &Table, target: &Keyspace) -> Result<(), CqlError> {
    let mut used = BTreeSet::new();
    for column in source.columns() {
        for_each_definition(&column.cql_type, &mut |definition| {
            add_used(definition, &mut used);
        });
    }
    let mut missing = Vec::new();
    for name in used {
        match (source_keyspace.types.get(name), target.types.get(name)) {
            (Some(source), Some(target)) if is_alike(source, target) => {}
            (Some(_), Some(_)) => {
                return Err(CqlError::invalid(format!(
                    "Target keyspace '{}' has same UDT name '{name}' as source keyspace '{}' but with different \
                     structure.",
                    target.name, source_keyspace.name
                )));
            }
            _ => missing.push(name),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(CqlError::invalid(format!(
        "UDTs {} do not exist in target keyspace '{}'.",
        missing.join(", "),
        target.name
    )))
}

fn add_used<'t>(definition: &'t UserType, used: &mut BTreeSet<&'t str>) {
    if !used.insert(&definition.name) {
        return;
    }
    for field in &definition.fields {
        for_each_definition(&field.cql_type, &mut |inner| add_used(inner, used));
    }
}

/// Same fields, written the same; types within are compared on their own.
fn is_alike(one: &UserType, other: &UserType) -> bool {
    let text = |definition: &UserType| -> Vec<(Arc<str>, String)> {
        let fields = definition.fields.iter();
        fields
            .map(|field| (field.name.clone(), field.cql_type.to_string()))
            .collect()
    };
    text(one) == text(other)
}
