//! CREATE, ALTER and DROP TYPE.
//!
//! A changed definition is put in the place of the old one wherever it is used, so that all places share it: in other
//! types, in columns. Dropped columns hold no definitions.

use super::type_use::{TypeMap, in_order_of_use, uses_type, with_definitions};
use super::types::{TypeScope, check_size, resolve_type};
use super::{Action, SchemaChange, aggregate, function, keyspace, names};
use crate::CqlError;
use crate::access::Resource;
use crate::ast::{self, AlterType, CreateType, FieldDefinition, Name, RawType};
use ceto_model::types::quote_identifier;
use ceto_model::{CqlType, Keyspace, Schema, Table, UserType, UserTypeField};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug)]
pub(super) struct CreateTypeChange {
    pub(super) name: Arc<str>,
    if_not_exists: bool,
    fields: Vec<FieldDefinition>,
}

#[derive(Clone, Debug)]
pub(super) struct AlterTypeChange {
    pub(super) name: Arc<str>,
    if_exists: bool,
    change: ast::AlterTypeChange,
}

pub(super) fn prepare_create(
    create: &CreateType,
    session_keyspace: Option<&str>,
) -> Result<SchemaChange, CqlError> {
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&create.name, session_keyspace)?,
        action: Action::CreateType(Arc::new(CreateTypeChange {
            name: create.name.name.clone(),
            if_not_exists: create.if_not_exists,
            fields: create.fields.clone(),
        })),
    })
}

pub(super) fn prepare_alter(
    alter: &AlterType,
    session_keyspace: Option<&str>,
) -> Result<SchemaChange, CqlError> {
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&alter.name, session_keyspace)?,
        action: Action::AlterType(Arc::new(AlterTypeChange {
            name: alter.name.name.clone(),
            if_exists: alter.if_exists,
            change: alter.change.clone(),
        })),
    })
}

pub(super) fn create(
    schema: &Schema,
    keyspace_name: &str,
    create: &CreateTypeChange,
) -> Result<Option<Schema>, CqlError> {
    let keyspace = keyspace::existing(schema, keyspace_name)?;
    let name = &create.name;
    if keyspace.types.contains_key(name) {
        if create.if_not_exists {
            return Ok(None);
        }
        return Err(CqlError::invalid(format!(
            "A user type with name '{name}' already exists"
        )));
    }
    let mut seen = BTreeSet::new();
    for field in &create.fields {
        if !seen.insert(&field.name) {
            return Err(CqlError::invalid(format!(
                "Duplicate field name '{}' in type '{name}'",
                field.name
            )));
        }
    }
    for field in &create.fields {
        match &field.raw_type {
            RawType::Native(CqlType::Counter) => {
                return Err(CqlError::invalid("A user type cannot contain counters"));
            }
            RawType::UserType(_) => {
                return Err(CqlError::invalid("A user type cannot contain non-frozen UDTs"));
            }
            _ => {}
        }
    }
    let scope = TypeScope {
        keyspace: keyspace_name,
        types: &keyspace.types,
    };
    let field = |field: &FieldDefinition| {
        Ok::<_, CqlError>(UserTypeField {
            name: field.name.clone(),
            cql_type: resolve_type(&field.raw_type, scope)?,
        })
    };
    let created = UserType {
        keyspace: keyspace.name.clone(),
        name: name.clone(),
        fields: create.fields.iter().map(field).collect::<Result<_, _>>()?,
    };
    check_definition(&Arc::new(created.clone()))?;
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.types.insert(name.clone(), Arc::new(created));
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

/// Refuses a definition that makes a type too deep or too large.
fn check_definition(definition: &Arc<UserType>) -> Result<(), CqlError> {
    let as_type = CqlType::Udt {
        definition: definition.clone(),
        frozen: false,
    };
    check_size(&as_type, &as_type)
}

pub(super) fn alter(
    schema: &Schema,
    keyspace_name: &str,
    alter: &AlterTypeChange,
) -> Result<Option<Schema>, CqlError> {
    let name = &alter.name;
    let found = schema
        .keyspace(keyspace_name)
        .and_then(|keyspace| Some((keyspace, keyspace.types.get(name)?)));
    let Some((keyspace, user_type)) = found else {
        if alter.if_exists {
            return Ok(None);
        }
        return Err(CqlError::invalid(format!(
            "Type {keyspace_name}.{name} doesn't exist"
        )));
    };
    let changed = match &alter.change {
        ast::AlterTypeChange::AlterFieldType { .. } => {
            return Err(CqlError::invalid("Altering field types is no longer supported"));
        }
        ast::AlterTypeChange::AddField { if_not_exists, field } => {
            add_field(keyspace, user_type, field, *if_not_exists)?
        }
        ast::AlterTypeChange::RenameFields { if_exists, renames } => {
            rename_fields(user_type, renames, *if_exists)?
        }
    };
    match changed {
        Some(changed) => {
            let aggregates = keyspace.functions.aggregates().filter(|aggregate| {
                aggregate.initial_condition.is_some() && uses_type(&aggregate.state_type, name)
            });
            let names: Vec<String> = aggregates
                .map(|aggregate| format!("{keyspace_name}.{}", aggregate.name))
                .collect();
            if !names.is_empty() {
                return Err(CqlError::invalid(format!(
                    "Cannot alter user type {} as it is still used as an INITCOND by aggregates {}",
                    shown(user_type),
                    names.join(", ")
                )));
            }
            let keyspace = with_definition(keyspace, changed)?;
            Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
        }
        None => Ok(None),
    }
}

/// Functions and aggregates whose arguments are of a type that is another in `after`, as permissions name them there.
pub(super) fn renamed(before: &Keyspace, after: &Keyspace) -> Vec<(Resource, Resource)> {
    let functions = before.functions.functions();
    let functions = functions.map(|function| (&function.name, &function.argument_types));
    let aggregates = before.functions.aggregates();
    let aggregates = aggregates.map(|aggregate| (&aggregate.name, &aggregate.argument_types));
    let named = functions.chain(aggregates).map(|(name, types)| {
        let changed: Vec<CqlType> = types
            .iter()
            .map(|cql_type| with_definitions(cql_type, &after.types))
            .collect();
        (
            Resource::function(&before.name, name, types),
            Resource::function(&before.name, name, &changed),
        )
    });
    named.filter(|(old, new)| old != new).collect()
}

/// `keyspace.name`, quoted where needed.
fn shown(user_type: &UserType) -> String {
    format!(
        "{}.{}",
        quote_identifier(&user_type.keyspace),
        quote_identifier(&user_type.name)
    )
}

fn add_field(
    keyspace: &Keyspace,
    user_type: &UserType,
    field: &FieldDefinition,
    if_not_exists: bool,
) -> Result<Option<UserType>, CqlError> {
    let FieldDefinition { name, raw_type } = field;
    if user_type.fields.iter().any(|existing| existing.name == *name) {
        if if_not_exists {
            return Ok(None);
        }
        return Err(CqlError::invalid(format!(
            "Cannot add field {name} to type {}: a field with name {name} already exists",
            shown(user_type)
        )));
    }
    match raw_type {
        RawType::Native(CqlType::Counter) => {
            return Err(CqlError::invalid("A user type cannot contain counters"));
        }
        RawType::UserType(other) if other.name != user_type.name => {
            return Err(CqlError::invalid("A user type cannot contain non-frozen UDTs"));
        }
        _ => {}
    }
    let scope = TypeScope {
        keyspace: &keyspace.name,
        types: &keyspace.types,
    };
    let cql_type = resolve_type(raw_type, scope)?;
    if uses_type(&cql_type, &user_type.name) {
        return Err(CqlError::invalid(format!(
            "Cannot add new field {name} of type {raw_type} to user type {} as it would create a circular reference",
            shown(user_type)
        )));
    }
    let is_in_partition_key = |table: &&Arc<Table>| {
        let mut columns = table.partition_key().iter();
        columns.any(|column| uses_type(&column.cql_type, &user_type.name))
    };
    let tables: Vec<String> = keyspace
        .tables
        .values()
        .filter(is_in_partition_key)
        .map(|table| {
            format!(
                "{}.{}",
                quote_identifier(&table.keyspace),
                quote_identifier(&table.name)
            )
        })
        .collect();
    if !tables.is_empty() {
        return Err(CqlError::invalid(format!(
            "Cannot add new field {name} of type {raw_type} to user type {} as the type is being used in partition \
             key by the following tables: {}",
            shown(user_type),
            tables.join(", ")
        )));
    }
    let mut changed = user_type.clone();
    changed.fields.push(UserTypeField {
        name: name.clone(),
        cql_type,
    });
    Ok(Some(changed))
}

fn rename_fields(
    user_type: &UserType,
    renames: &[(Name, Name)],
    if_exists: bool,
) -> Result<Option<UserType>, CqlError> {
    let mut changed = user_type.clone();
    // of two new names for one field the last one counts
    let renames: BTreeMap<&Name, &Name> = renames.iter().map(|(from, to)| (from, to)).collect();
    for (from, to) in renames {
        let position = user_type.fields.iter().position(|field| field.name == *from);
        match position.and_then(|position| changed.fields.get_mut(position)) {
            Some(field) => field.name = to.clone(),
            None if if_exists => {}
            None => {
                return Err(CqlError::invalid(format!(
                    "Unkown field {from} in user type {}",
                    shown(user_type)
                )));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for field in &changed.fields {
        if !seen.insert(&field.name) {
            return Err(CqlError::invalid(format!(
                "Duplicate field name {} in type {}",
                field.name,
                shown(user_type)
            )));
        }
    }
    Ok((changed != *user_type).then_some(changed))
}

/// The keyspace with a definition changed wherever it is used.
fn with_definition(keyspace: &Keyspace, changed: UserType) -> Result<Keyspace, CqlError> {
    let mut types = TypeMap::new();
    for user_type in in_order_of_use(&keyspace.types) {
        let definition = if user_type.name == changed.name {
            Arc::new(changed.clone())
        } else if user_type
            .fields
            .iter()
            .any(|field| uses_type(&field.cql_type, &changed.name))
        {
            let mut rebuilt = UserType::clone(user_type);
            for field in &mut rebuilt.fields {
                field.cql_type = with_definitions(&field.cql_type, &types);
            }
            Arc::new(rebuilt)
        } else {
            user_type.clone()
        };
        check_definition(&definition)?;
        types.insert(definition.name.clone(), definition);
    }
    let mut next = keyspace.clone();
    for old in keyspace
        .functions
        .functions()
        .filter(|old| function::uses(old, &changed.name))
    {
        next.functions.remove_function(&old.name, &old.argument_types);
        next.functions.put_function(function::with_types(old, &types));
    }
    for old in keyspace
        .functions
        .aggregates()
        .filter(|old| aggregate::uses(old, &changed.name))
    {
        next.functions.remove_aggregate(&old.name, &old.argument_types);
        next.functions.put_aggregate(aggregate::with_types(old, &types));
    }
    for table in next.tables.values_mut() {
        let mut columns = table.columns().iter();
        if !table.is_view() && columns.any(|column| uses_type(&column.cql_type, &changed.name)) {
            *table = Arc::new(with_column_types(table, &types)?);
        }
    }
    let bases: Vec<_> = next
        .tables
        .values()
        .filter(|table| !table.is_view())
        .cloned()
        .collect();
    bases.iter().for_each(|base| next.refresh_views(base));
    next.types = types;
    Ok(next)
}

fn with_column_types(table: &Table, types: &TypeMap) -> Result<Table, CqlError> {
    let mut builder = table.to_builder();
    for column in &mut builder.columns {
        column.cql_type = with_definitions(&column.cql_type, types);
        check_size(&column.cql_type, &column.cql_type)?;
    }
    Ok(builder.build())
}

pub(super) fn drop(
    schema: &Schema,
    keyspace_name: &str,
    name: &str,
    if_exists: bool,
) -> Result<Option<Schema>, CqlError> {
    let keyspace = schema
        .keyspace(keyspace_name)
        .filter(|keyspace| keyspace.types.contains_key(name));
    let Some(keyspace) = keyspace else {
        if if_exists {
            return Ok(None);
        }
        return Err(CqlError::invalid(format!(
            "Type '{keyspace_name}.{name}' doesn't exist"
        )));
    };
    let in_use = |kind: &str, users: Vec<&str>| {
        if users.is_empty() {
            return Ok(());
        }
        Err(CqlError::invalid(format!(
            "Cannot drop user type '{keyspace_name}.{name}' as it is still used by {kind} {}",
            users.join(", ")
        )))
    };
    let types = keyspace.types.values().filter(|user_type| {
        let mut fields = user_type.fields.iter();
        fields.any(|field| uses_type(&field.cql_type, name))
    });
    let functions = keyspace.functions.functions();
    let functions = functions.filter(|function| function::uses(function, name));
    let aggregates = keyspace.functions.aggregates();
    let aggregates = aggregates.filter(|aggregate| aggregate::uses(aggregate, name));
    let names: Vec<String> = functions
        .map(|function| function.name.clone())
        .chain(aggregates.map(|aggregate| aggregate.name.clone()))
        .map(|function| format!("{keyspace_name}.{function}"))
        .collect();
    in_use("functions", names.iter().map(String::as_str).collect())?;
    in_use("user types", types.map(|user_type| &*user_type.name).collect())?;
    let tables = keyspace.tables.values().filter(|table| !table.is_view());
    let tables = tables.filter(|table| {
        let mut columns = table.columns().iter();
        columns.any(|column| uses_type(&column.cql_type, name))
    });
    in_use("tables", tables.map(|table| &*table.name).collect())?;
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.types.remove(name);
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}
