//! Roles, grants and service levels as the statements that make them again, for DESCRIBE SCHEMA WITH INTERNALS.

use super::AccessControl;
use ceto_model::types::quote_identifier;
use std::sync::Arc;

/// The role that a new cluster has.
const DEFAULT_SUPERUSER: &str = "cassandra";

/// One element of what DESCRIBE shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessElement {
    /// `role`, `grant_role`, `grant_permission`, `service_level`, `service_level_attachment`
    pub kind: &'static str,
    /// Of the role or service level, quoted where needed.
    pub name: String,
    /// The statement.
    pub text: String,
}

/// Everything in an order in which it can be made again. Passwords are not shown: nobody needs them to make the same
/// permissions, and a hash is worth stealing.
pub fn access_elements(access: &AccessControl) -> Vec<AccessElement> {
    let quote = |name: &Arc<str>| quote_identifier(name);
    let element = |kind, name: &Arc<str>, text| AccessElement {
        kind,
        name: quote(name),
        text,
    };
    let roles = access.roles.iter().map(|(name, role)| {
        // A new cluster has it already.
        let if_not_exists = if &**name == DEFAULT_SUPERUSER {
            "IF NOT EXISTS "
        } else {
            ""
        };
        let text = format!(
            "CREATE ROLE {if_not_exists}{} WITH LOGIN = {} AND SUPERUSER = {};",
            quote(name),
            role.can_login,
            role.is_superuser
        );
        element("role", name, text)
    });
    let memberships = access.roles.iter().flat_map(|(name, role)| {
        let granted = role.member_of.iter();
        granted.map(move |granted| {
            let text = format!("GRANT {} TO {};", quote(granted), quote(name));
            element("grant_role", granted, text)
        })
    });
    let permissions = access.permissions.iter().flat_map(|(role, granted)| {
        granted.iter().flat_map(move |(resource, permissions)| {
            permissions.iter().map(move |permission| {
                let (permission, resource) = (permission.name(), resource.cql_text());
                let text = format!("GRANT {permission} ON {resource} TO {};", quote(role));
                element("grant_permission", role, text)
            })
        })
    });
    let levels = access.service_levels.iter().map(|(name, level)| {
        let text = format!("CREATE SERVICE LEVEL {}{};", quote(name), level.options_text());
        element("service_level", name, text)
    });
    let attachments = access.roles.iter().filter_map(|(name, role)| {
        let level = role.service_level.as_ref()?;
        let text = format!("ATTACH SERVICE LEVEL {} TO {};", quote(level), quote(name));
        Some(element("service_level_attachment", level, text))
    });
    roles
        .chain(memberships)
        .chain(permissions)
        .chain(levels)
        .chain(attachments)
        .collect()
}
