//! CREATE, ALTER and DROP KEYSPACE.
//!
//! Whether the data centers of a replication exist is the ring's to know: the options pass through as they are written,
//! only the class gets its full name.

use super::{Action, SchemaChange};
use crate::CqlError;
use crate::ast::{AlterKeyspace, CreateKeyspace, Properties};
use crate::options::{Entries, PropertyReader, replication_options};
use ceto_model::schema::ReplicationOptions;
use ceto_model::{Keyspace, Schema};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug)]
pub(super) struct CreateKeyspaceChange {
    if_not_exists: bool,
    pub(super) replication: ReplicationOptions,
    durable_writes: bool,
}

#[derive(Clone, Debug)]
pub(super) struct AlterKeyspaceChange {
    if_exists: bool,
    /// None: stays.
    pub(super) replication: Option<ReplicationOptions>,
    /// None: stays.
    durable_writes: Option<bool>,
}

const REPLICATION: &str = "replication";
const DURABLE_WRITES: &str = "durable_writes";
/// ScyllaDB's: how a keyspace is spread over nodes and shards. Data is spread by tokens here, so it says nothing.
const TABLETS: &str = "tablets";

/// The two options of a keyspace that mean something. `{}` is no replication.
fn options(properties: &Properties) -> Result<(Option<ReplicationOptions>, Option<bool>), CqlError> {
    let reader = PropertyReader::new(properties, &[REPLICATION, DURABLE_WRITES, TABLETS])?;
    check_tablets(reader.map(TABLETS)?.unwrap_or_default())?;
    let replication = match reader.map(REPLICATION)? {
        Some(entries) if !entries.is_empty() => Some(replication_options(entries)?),
        _ => None,
    };
    Ok((replication, reader.boolean(DURABLE_WRITES)?))
}

/// # Errors
/// `Config` for keys and values that ScyllaDB's documentation does not have.
fn check_tablets(entries: &Entries) -> Result<(), CqlError> {
    for (name, value) in entries {
        let is_right = match &**name {
            "enabled" => matches!(value.to_ascii_lowercase().as_str(), "true" | "false"),
            "initial" => value.parse::<u32>().is_ok(),
            _ => {
                let text = format!("Unknown tablets option '{name}': it has 'enabled' and 'initial'");
                return Err(CqlError::Config(text));
            }
        };
        if !is_right {
            return Err(CqlError::Config(format!(
                "Invalid value {value} for tablets option '{name}'"
            )));
        }
    }
    Ok(())
}

pub(super) fn prepare_create(create: &CreateKeyspace) -> Result<SchemaChange, CqlError> {
    let (replication, durable_writes) = options(&create.properties)?;
    let replication = match (replication, create.properties.get(REPLICATION)) {
        (Some(replication), _) => replication,
        (None, Some(_)) => return Err(CqlError::config("Missing replication strategy class")),
        (None, None) => return Err(CqlError::invalid("Missing mandatory option 'replication'")),
    };
    Ok(SchemaChange {
        keyspace: create.name.clone(),
        action: Action::CreateKeyspace(CreateKeyspaceChange {
            if_not_exists: create.if_not_exists,
            replication,
            durable_writes: durable_writes.unwrap_or(true),
        }),
    })
}

pub(super) fn prepare_alter(alter: &AlterKeyspace) -> Result<SchemaChange, CqlError> {
    let (replication, durable_writes) = options(&alter.properties)?;
    Ok(SchemaChange {
        keyspace: alter.name.clone(),
        action: Action::AlterKeyspace(AlterKeyspaceChange {
            if_exists: alter.if_exists,
            replication,
            durable_writes,
        }),
    })
}

fn check_not_local(replication: &ReplicationOptions) -> Result<(), CqlError> {
    if replication.is_local() {
        return Err(CqlError::invalid(
            "Unable to use given strategy class: LocalStrategy is reserved for internal use.",
        ));
    }
    Ok(())
}

pub(super) fn create(
    schema: &Schema,
    name: &Arc<str>,
    create: &CreateKeyspaceChange,
) -> Result<Option<Schema>, CqlError> {
    if schema.keyspace(name).is_some() {
        if create.if_not_exists {
            return Ok(None);
        }
        return Err(CqlError::AlreadyExists {
            keyspace: name.to_string(),
            table: String::new(),
        });
    }
    check_not_local(&create.replication)?;
    let keyspace = Keyspace {
        name: name.clone(),
        durable_writes: create.durable_writes,
        replication: create.replication.clone(),
        tables: BTreeMap::new(),
        types: BTreeMap::new(),
        functions: Default::default(),
        is_virtual: false,
    };
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

pub(super) fn alter(
    schema: &Schema,
    name: &str,
    alter: &AlterKeyspaceChange,
) -> Result<Option<Schema>, CqlError> {
    let Some(present) = schema.keyspace(name) else {
        return missing(name, alter.if_exists);
    };
    let mut keyspace = Keyspace::clone(present);
    if let Some(replication) = &alter.replication {
        check_not_local(replication)?;
        keyspace.replication = replication.clone();
    }
    if let Some(durable_writes) = alter.durable_writes {
        keyspace.durable_writes = durable_writes;
    }
    let changes =
        keyspace.replication != present.replication || keyspace.durable_writes != present.durable_writes;
    Ok(changes.then(|| schema.with_keyspace(keyspace, Uuid::nil())))
}

pub(super) fn drop(schema: &Schema, name: &str, if_exists: bool) -> Result<Option<Schema>, CqlError> {
    match schema.keyspace(name) {
        Some(_) => Ok(Some(schema.without_keyspace(name, Uuid::nil()))),
        None => missing(name, if_exists),
    }
}

fn missing(name: &str, if_exists: bool) -> Result<Option<Schema>, CqlError> {
    if if_exists {
        return Ok(None);
    }
    Err(CqlError::invalid(format!("Keyspace '{name}' doesn't exist")))
}

/// The keyspace that a table or type is created in.
pub(super) fn existing<'s>(schema: &'s Schema, name: &str) -> Result<&'s Arc<Keyspace>, CqlError> {
    let found = schema.keyspace(name);
    found.ok_or_else(|| CqlError::invalid(format!("Keyspace '{name}' doesn't exist")))
}
