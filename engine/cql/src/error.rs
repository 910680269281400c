//! What can be wrong with a CQL request, one variant per kind the native protocol knows.
//!
//! The texts are Cassandra's where drivers and tests match them. Never: a protocol code (that mapping is in
//! `net/native`), never a server-side fault: whatever this crate returns is the client's to correct.

use std::fmt;

/// A request that cannot be carried out as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CqlError {
    /// The text is not CQL. Opens with `line L:C` when one token is to blame: lines count from 1, columns from 0.
    Syntax(String),
    /// The statement is CQL, but contradicts the schema, its own parts or the bound values.
    Invalid(String),
    /// A schema option that is unknown or out of range.
    Config(String),
    /// CREATE of something that exists, without IF NOT EXISTS.
    AlreadyExists {
        /// The keyspace that exists, or that holds the table.
        keyspace: String,
        /// The table, or empty when it is the keyspace itself that exists.
        table: String,
    },
    /// The role lacks a permission.
    Unauthorized(String),
    /// A function failed while running.
    FunctionFailure {
        /// Keyspace of the function.
        keyspace: String,
        /// Name of the function.
        name: String,
        /// CQL names of its argument types.
        argument_types: Vec<String>,
        /// What it reported.
        message: String,
    },
    /// EXECUTE or BATCH names a statement that is not prepared here (any more).
    Unprepared {
        /// The statement id as the client sent it.
        id: Vec<u8>,
    },
}

impl CqlError {
    /// A [`CqlError::Syntax`].
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::Syntax(message.into())
    }

    /// A [`CqlError::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// A [`CqlError::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config(message.into())
    }
}

/// The message that goes to the client.
impl fmt::Display for CqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message)
            | Self::Invalid(message)
            | Self::Config(message)
            | Self::Unauthorized(message) => f.write_str(message),
            Self::AlreadyExists { keyspace, table } if table.is_empty() => {
                write!(f, "Cannot add existing keyspace \"{keyspace}\"")
            }
            Self::AlreadyExists { keyspace, table } => {
                write!(
                    f,
                    "Cannot add already existing table \"{table}\" to keyspace \"{keyspace}\""
                )
            }
            Self::FunctionFailure {
                keyspace,
                name,
                argument_types,
                message,
            } => {
                write!(
                    f,
                    "execution of '{keyspace}.{name}[{}]' failed: {message}",
                    argument_types.join(", ")
                )
            }
            Self::Unprepared { id } => {
                f.write_str("Prepared query with ID ")?;
                for byte in id {
                    write!(f, "{byte:02x}")?;
                }
                f.write_str(
                    " not found (either the query was not prepared on this host (maybe the host has been \
                     restarted?) or you have prepared too many queries and it has been evicted from the internal \
                     cache)",
                )
            }
        }
    }
}

impl std::error::Error for CqlError {}
