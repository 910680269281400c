//! Which keyspace a statement means, and which names are names.

use crate::CqlError;
use crate::ast::QualifiedName;
use std::sync::Arc;

/// Longest name of a keyspace or table, in bytes.
pub(crate) const NAME_LENGTH_MAX: usize = 48;

/// Keyspaces of the system, which statements cannot change.
const SYSTEM_KEYSPACES: [&str; 7] = [
    "system",
    "system_auth",
    "system_distributed",
    "system_schema",
    "system_traces",
    "system_views",
    "system_virtual_schema",
];

/// Belongs to the system.
pub(crate) fn is_system_keyspace(name: &str) -> bool {
    SYSTEM_KEYSPACES.contains(&name)
}

/// The keyspace that is written, else the session's.
pub(super) fn keyspace_of(
    name: &QualifiedName,
    session_keyspace: Option<&str>,
) -> Result<Arc<str>, CqlError> {
    match (&name.keyspace, session_keyspace) {
        (Some(keyspace), _) => Ok(keyspace.clone()),
        (None, Some(keyspace)) => Ok(keyspace.into()),
        (None, None) => Err(CqlError::invalid(
            "No keyspace has been specified. USE a keyspace, or explicitly specify keyspace.tablename",
        )),
    }
}

/// Refuses the system's keyspaces.
pub(super) fn check_modifiable(keyspace: &str) -> Result<(), CqlError> {
    if is_system_keyspace(keyspace) {
        return Err(CqlError::Unauthorized(format!(
            "{keyspace} keyspace is not user-modifiable."
        )));
    }
    Ok(())
}

/// Letters, digits and underscores, one at least.
pub(super) fn is_valid_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() <= NAME_LENGTH_MAX && name.bytes().all(is_part)
}

/// Refuses what cannot be the name of a keyspace.
pub(super) fn check_keyspace_name(name: &str) -> Result<(), CqlError> {
    if is_valid_name(name) {
        return Ok(());
    }
    Err(CqlError::invalid(format!(
        "Keyspace name must not be empty, more than {NAME_LENGTH_MAX} characters long, or contain \
         non-alphanumeric-underscore characters (got '{name}')"
    )))
}

/// Refuses what cannot be the name of a table.
pub(super) fn check_table_name(keyspace: &str, name: &str) -> Result<(), CqlError> {
    if is_valid_name(name) {
        return Ok(());
    }
    Err(CqlError::config(format!(
        "{keyspace}.{name}: Table name must not be empty, more than {NAME_LENGTH_MAX} characters long, or contain \
         non-alphanumeric-underscore characters (got \"{name}\")"
    )))
}
