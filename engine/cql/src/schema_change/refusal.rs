//! Statements that are CQL but cannot be carried out yet.

use crate::CqlError;
use crate::ast::Statement;

/// The refusal of a statement of this kind; None when it is carried out, by whoever.
pub(super) fn not_supported(statement: &Statement) -> Option<CqlError> {
    let what = match statement {
        Statement::CreateTrigger(_) => "CREATE TRIGGER",
        Statement::DropTrigger(_) => "DROP TRIGGER",
        Statement::AddIdentity(_) => "ADD IDENTITY",
        Statement::DropIdentity(_) => "DROP IDENTITY",
        _ => return None,
    };
    Some(CqlError::invalid(format!("{what} is not supported yet")))
}
