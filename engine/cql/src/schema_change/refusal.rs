//! Schema statements that are CQL but cannot be carried out yet.

use crate::CqlError;
use crate::ast::Statement;

/// The refusal of a schema statement of this kind; None when it is no schema statement.
pub(super) fn not_supported(statement: &Statement) -> Option<CqlError> {
    let what = match statement {
        Statement::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
        Statement::AlterMaterializedView(_) => "ALTER MATERIALIZED VIEW",
        Statement::DropMaterializedView(_) => "DROP MATERIALIZED VIEW",
        Statement::CreateTrigger(_) => "CREATE TRIGGER",
        Statement::DropTrigger(_) => "DROP TRIGGER",
        Statement::CreateFunction(_) => "CREATE FUNCTION",
        Statement::DropFunction(_) => "DROP FUNCTION",
        Statement::CreateAggregate(_) => "CREATE AGGREGATE",
        Statement::DropAggregate(_) => "DROP AGGREGATE",
        Statement::CreateRole(role) if role.is_user => "CREATE USER",
        Statement::CreateRole(_) => "CREATE ROLE",
        Statement::AlterRole(role) if role.is_user => "ALTER USER",
        Statement::AlterRole(_) => "ALTER ROLE",
        Statement::DropRole(role) if role.is_user => "DROP USER",
        Statement::DropRole(_) => "DROP ROLE",
        Statement::GrantRole(_) => "GRANT ROLE",
        Statement::RevokeRole(_) => "REVOKE ROLE",
        Statement::GrantPermissions(_) => "GRANT",
        Statement::RevokePermissions(_) => "REVOKE",
        Statement::ListPermissions(_) => "LIST PERMISSIONS",
        Statement::ListRoles(_) => "LIST ROLES",
        Statement::ListUsers => "LIST USERS",
        Statement::ListSuperusers => "LIST SUPERUSERS",
        Statement::AddIdentity(_) => "ADD IDENTITY",
        Statement::DropIdentity(_) => "DROP IDENTITY",
        Statement::CreateServiceLevel(_) => "CREATE SERVICE LEVEL",
        Statement::AlterServiceLevel(_) => "ALTER SERVICE LEVEL",
        Statement::DropServiceLevel(_) => "DROP SERVICE LEVEL",
        Statement::AttachServiceLevel(_) => "ATTACH SERVICE LEVEL",
        Statement::DetachServiceLevel(_) => "DETACH SERVICE LEVEL",
        Statement::ListServiceLevels(_) => "LIST SERVICE LEVELS",
        _ => return None,
    };
    Some(CqlError::invalid(format!("{what} is not supported yet")))
}
