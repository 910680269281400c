//! From what happened to what the client is told: planner and coordinator errors to protocol errors, schema changes to
//! protocol events.

use ceto_cluster::coordinator::RequestError;
use ceto_cql::{CqlError, SchemaChangeEvent, SchemaChangeKind, SchemaChangeTarget};
use ceto_internode::{FailureReason, HostId};
use ceto_native::error::{Failures, Progress};
use ceto_native::response::{SchemaChangeKind as NativeChange, SchemaTarget};
use ceto_native::{ErrorMessage, ErrorReason, SchemaChange};

use crate::node::Node;
use crate::pump::RequestFailure;

/// A planner's error.
pub fn cql_error(error: CqlError) -> ErrorMessage {
    let (reason, message) = match error {
        CqlError::Syntax(message) => (ErrorReason::Syntax, message),
        CqlError::Invalid(message) => (ErrorReason::Invalid, message),
        CqlError::Config(message) => (ErrorReason::Config, message),
        CqlError::Unauthorized(message) => (ErrorReason::Unauthorized, message),
        CqlError::AlreadyExists { keyspace, table } => {
            let message = if table.is_empty() {
                format!("Cannot add existing keyspace \"{keyspace}\"")
            } else {
                format!("Cannot add already existing table \"{table}\" to keyspace \"{keyspace}\"")
            };
            (ErrorReason::AlreadyExists { keyspace, table }, message)
        }
        CqlError::FunctionFailure {
            keyspace,
            name,
            argument_types,
            message,
        } => (
            ErrorReason::FunctionFailure {
                keyspace,
                function: name,
                argument_types,
            },
            message,
        ),
        CqlError::Unprepared { id } => return unprepared(&id),
    };
    ErrorMessage { reason, message }
}

/// EXECUTE or BATCH of a statement that is not prepared here; drivers prepare it again.
pub fn unprepared(id: &[u8]) -> ErrorMessage {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let message = format!(
        "Prepared query with ID {hex} not found (either the query was not prepared on this host (maybe the host has \
         been restarted?) or you have prepared too many queries and it has been evicted from the internal cache)"
    );
    ErrorMessage {
        reason: ErrorReason::Unprepared {
            id: id.to_vec().into(),
        },
        message,
    }
}

/// Invalid, with a text.
pub fn invalid(message: impl Into<String>) -> ErrorMessage {
    ErrorMessage {
        reason: ErrorReason::Invalid,
        message: message.into(),
    }
}

/// A fault of the server.
pub fn server_error(message: impl Into<String>) -> ErrorMessage {
    ErrorMessage {
        reason: ErrorReason::Server,
        message: message.into(),
    }
}

/// Refused for load.
pub fn overloaded(message: impl Into<String>) -> ErrorMessage {
    ErrorMessage {
        reason: ErrorReason::Overloaded,
        message: message.into(),
    }
}

/// A coordinator's error; `cause` is what the failing replica said.
pub fn request_error(node: &Node, failure: RequestFailure) -> ErrorMessage {
    let RequestFailure { error, cause } = failure;
    let mut message = error.to_string();
    if let Some(cause) = cause {
        message = format!("{message} ({cause})");
    }
    let progress = |consistency, received: u32, required: u32| Progress {
        consistency,
        received: received as i32,
        block_for: required as i32,
    };
    let reason = match error {
        RequestError::Unavailable {
            consistency,
            required,
            alive,
        } => ErrorReason::Unavailable {
            consistency,
            required: required as i32,
            alive: alive as i32,
        },
        RequestError::WriteTimeout {
            consistency,
            received,
            required,
            write_type,
        } => ErrorReason::WriteTimeout {
            progress: progress(consistency, received, required),
            write_type,
            contentions: None,
        },
        RequestError::WriteFailure {
            consistency,
            received,
            required,
            failures,
            write_type,
        } => {
            if is_overload(&failures) {
                return overloaded(message);
            }
            ErrorReason::WriteFailure {
                progress: progress(consistency, received, required),
                failures: native_failures(node, failures),
                write_type,
            }
        }
        RequestError::ReadTimeout {
            consistency,
            received,
            required,
            data_present,
        } => ErrorReason::ReadTimeout {
            progress: progress(consistency, received, required),
            data_present,
        },
        RequestError::ReadFailure {
            consistency,
            received,
            required,
            failures,
            data_present,
        } => {
            if is_overload(&failures) {
                return overloaded(message);
            }
            ErrorReason::ReadFailure {
                progress: progress(consistency, received, required),
                failures: native_failures(node, failures),
                data_present,
            }
        }
        RequestError::CasWriteUnknown {
            consistency,
            received,
            required,
        } => ErrorReason::CasWriteUnknown {
            progress: progress(consistency, received, required),
        },
        RequestError::Overloaded { .. } => ErrorReason::Overloaded,
    };
    ErrorMessage { reason, message }
}

/// Every failed replica shed load: the client may try again later, nothing is broken.
fn is_overload(failures: &[(HostId, FailureReason)]) -> bool {
    failures
        .iter()
        .all(|(_, reason)| *reason == FailureReason::Overloaded)
}

fn native_failures(node: &Node, failures: Vec<(HostId, FailureReason)>) -> Failures {
    let address = node.options.rpc_address;
    let code = |reason: FailureReason| {
        // Reasons above those of the protocol are ours; clients get "unknown".
        let code = reason as u16;
        ceto_native::error::FailureReason(if code < 64 { code } else { 0 })
    };
    Failures::new(
        failures
            .into_iter()
            .map(|(_, reason)| (address, code(reason)))
            .collect(),
    )
}

/// A schema change as drivers hear of it.
pub fn schema_change(event: &SchemaChangeEvent) -> SchemaChange {
    SchemaChange {
        change: match event.change {
            SchemaChangeKind::Created => NativeChange::Created,
            SchemaChangeKind::Updated => NativeChange::Updated,
            SchemaChangeKind::Dropped => NativeChange::Dropped,
        },
        keyspace: event.keyspace.clone(),
        target: match &event.target {
            SchemaChangeTarget::Keyspace => SchemaTarget::Keyspace,
            SchemaChangeTarget::Table(name) => SchemaTarget::Table(name.clone()),
            SchemaChangeTarget::Type(name) => SchemaTarget::Type(name.clone()),
            SchemaChangeTarget::Function { name, argument_types } => SchemaTarget::Function {
                name: name.clone(),
                argument_types: argument_types.clone(),
            },
            SchemaChangeTarget::Aggregate { name, argument_types } => SchemaTarget::Aggregate {
                name: name.clone(),
                argument_types: argument_types.clone(),
            },
        },
    }
}
