//! Why a request could not be answered as asked: the coordinator's errors of the native protocol, with their counts.

use std::fmt;

use ceto_internode::{FailureReason, HostId};
use ceto_model::{Consistency, WriteType};

/// The coordinator's verdict on a request that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestError {
    /// Too few replicas are alive; nothing was asked of any of them.
    Unavailable {
        /// As asked for.
        consistency: Consistency,
        /// Replicas needed.
        required: u32,
        /// Replicas alive among those that count.
        alive: u32,
    },
    /// Too few replicas acknowledged in time. The write may still have happened and may yet.
    WriteTimeout {
        /// As asked for.
        consistency: Consistency,
        /// Acknowledgements that count.
        received: u32,
        /// Acknowledgements needed.
        required: u32,
        /// Kind of write.
        write_type: WriteType,
    },
    /// So many replicas failed that the rest cannot suffice. The write may have happened on some.
    WriteFailure {
        /// As asked for.
        consistency: Consistency,
        /// Acknowledgements that count.
        received: u32,
        /// Acknowledgements needed.
        required: u32,
        /// Who failed and why.
        failures: Vec<(HostId, FailureReason)>,
        /// Kind of write.
        write_type: WriteType,
    },
    /// Too few replicas answered in time.
    ReadTimeout {
        /// As asked for.
        consistency: Consistency,
        /// Answers that count.
        received: u32,
        /// Answers needed.
        required: u32,
        /// Rows, not only digests, were among them.
        data_present: bool,
    },
    /// So many replicas failed that the rest cannot suffice.
    ReadFailure {
        /// As asked for.
        consistency: Consistency,
        /// Answers that count.
        received: u32,
        /// Answers needed.
        required: u32,
        /// Who failed and why.
        failures: Vec<(HostId, FailureReason)>,
        /// Rows, not only digests, were among the answers.
        data_present: bool,
    },
    /// A conditional update was accepted by some replicas and refused by others: it may happen or not, whichever the next
    /// conditional update or serial read of its partition finds.
    CasWriteUnknown {
        /// The serial level.
        consistency: Consistency,
        /// Replicas that accepted it.
        received: u32,
        /// Replicas that would have decided it.
        required: u32,
    },
    /// The shard coordinates as many requests as it may.
    Overloaded {
        /// That many.
        in_flight_max: usize,
    },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { consistency, .. } => {
                write!(f, "Cannot achieve consistency level {consistency}")
            }
            Self::WriteTimeout { received, .. } | Self::ReadTimeout { received, .. } => {
                write!(f, "Operation timed out - received only {received} responses.")
            }
            Self::WriteFailure {
                received, failures, ..
            }
            | Self::ReadFailure {
                received, failures, ..
            } => {
                let count = failures.len();
                write!(
                    f,
                    "Operation failed - received {received} responses and {count} failures"
                )?;
                for (i, (host, reason)) in failures.iter().enumerate() {
                    let separator = if i == 0 { ": " } else { ", " };
                    write!(f, "{separator}{reason:?} from {host}")?;
                }
                Ok(())
            }
            Self::CasWriteUnknown { received, .. } => write!(
                f,
                "CAS operation result is unknown - proposal accepted by {received} but not a quorum."
            ),
            Self::Overloaded { in_flight_max } => write!(
                f,
                "Coordinator shard has {in_flight_max} requests in flight, its maximum"
            ),
        }
    }
}

impl std::error::Error for RequestError {}

/// Another replica may be able to do what one could not: the cause lies there, not in what was asked.
pub(super) fn another_may_do_better(reason: FailureReason) -> bool {
    !matches!(reason, FailureReason::TooManyTombstones | FailureReason::ReadSize)
}

/// All replicas that failed did so by running out of time, which counts as a timeout.
pub(crate) fn only_timeouts(failures: &[(HostId, FailureReason)]) -> bool {
    failures
        .iter()
        .all(|(_, reason)| *reason == FailureReason::Timeout)
}
