//! What goes wrong in a body.

use std::fmt;
use std::time::Duration;

/// Why a body does not compile, or a call gave no result. The text is for the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FunctionError {
    /// The body is no text of its language, or lacks what a body must have.
    Body(String),
    /// It took more steps than a call may take.
    Steps {
        /// How many it may take.
        limit: u64,
    },
    /// It took longer than a call may take.
    Time {
        /// How long it may take.
        limit: Duration,
    },
    /// It needed more memory than a call may have.
    Memory {
        /// Bytes that it may have.
        limit: usize,
    },
    /// It reported an error or trapped.
    Failed(String),
    /// Its result is no value of the return type.
    Result(String),
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(text) | Self::Failed(text) => f.write_str(text),
            Self::Steps { limit } => write!(
                f,
                "the function ran for more than {limit} steps and was stopped; does it loop for ever?"
            ),
            Self::Time { limit } => write!(
                f,
                "the function ran for more than {} ms and was stopped; it has to handle less data",
                limit.as_millis()
            ),
            Self::Memory { limit } => write!(
                f,
                "the function needed more than {} KiB of memory and was stopped",
                limit / 1024
            ),
            Self::Result(text) => write!(f, "the result of the function is not of its return type: {text}"),
        }
    }
}

impl std::error::Error for FunctionError {}
