//! ERROR messages: every error code with its body, in the form of each version. The only place where errors meet
//! their codes.
//!
//! ```text
//! ERROR    | code i32 | message [string] | body of the code |
//! 0x1000   | consistency u16 | required i32 | alive i32 |
//! 0x1100   | consistency u16 | received i32 | block for i32 | write type [string] | contentions u16, v5 CAS only |
//! 0x1200   | consistency u16 | received i32 | block for i32 | data present u8 |
//! 0x1300   | consistency u16 | received i32 | block for i32 | failures | data present u8 |
//! 0x1400   | keyspace [string] | function [string] | argument types [string list] |
//! 0x1500   | consistency u16 | received i32 | block for i32 | failures | write type [string] |
//! 0x1700   | consistency u16 | received i32 | block for i32 |
//! 0x2400   | keyspace [string] | table [string], empty for a keyspace |
//! 0x2500   | prepared id [short bytes] |
//! 0xF000   | operation u8, 0 read, 1 write | rejected by coordinator u8 |
//! failures | v4: count i32 | v5: count i32 | ( address [inetaddr] | reason u16 )* |
//! ```
//!
//! What a version does not know is sent as what it knows best: before v4 failures are timeouts, function and CDC
//! failures are invalid requests; before v5 an unknown CAS result is a CAS write timeout; a rate limit that the
//! client has not asked to hear of is a configuration error.

use std::fmt;
use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use ceto_model::{Consistency, WriteType};

use crate::version::{Dialect, ProtocolVersion};
use crate::violation::Violation;
use crate::wire::{Reader, put_consistency, put_ip_address, put_short_bytes, put_string, put_string_list};

/// The code of an error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i32)]
#[allow(missing_docs)] // the names are the specification's
pub enum ErrorCode {
    ServerError = 0x0000,
    ProtocolError = 0x000A,
    BadCredentials = 0x0100,
    Unavailable = 0x1000,
    Overloaded = 0x1001,
    IsBootstrapping = 0x1002,
    TruncateError = 0x1003,
    WriteTimeout = 0x1100,
    ReadTimeout = 0x1200,
    ReadFailure = 0x1300,
    FunctionFailure = 0x1400,
    WriteFailure = 0x1500,
    CdcWriteFailure = 0x1600,
    CasWriteUnknown = 0x1700,
    SyntaxError = 0x2000,
    Unauthorized = 0x2100,
    Invalid = 0x2200,
    ConfigError = 0x2300,
    AlreadyExists = 0x2400,
    Unprepared = 0x2500,
    RateLimit = 0xF000,
}

impl ErrorCode {
    /// Every code, ascending.
    pub const ALL: [ErrorCode; 21] = [
        Self::ServerError,
        Self::ProtocolError,
        Self::BadCredentials,
        Self::Unavailable,
        Self::Overloaded,
        Self::IsBootstrapping,
        Self::TruncateError,
        Self::WriteTimeout,
        Self::ReadTimeout,
        Self::ReadFailure,
        Self::FunctionFailure,
        Self::WriteFailure,
        Self::CdcWriteFailure,
        Self::CasWriteUnknown,
        Self::SyntaxError,
        Self::Unauthorized,
        Self::Invalid,
        Self::ConfigError,
        Self::AlreadyExists,
        Self::Unprepared,
        Self::RateLimit,
    ];

    /// The error of a code.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.code() == code)
    }

    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// A name for logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerError => "server_error",
            Self::ProtocolError => "protocol_error",
            Self::BadCredentials => "bad_credentials",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::IsBootstrapping => "is_bootstrapping",
            Self::TruncateError => "truncate_error",
            Self::WriteTimeout => "write_timeout",
            Self::ReadTimeout => "read_timeout",
            Self::ReadFailure => "read_failure",
            Self::FunctionFailure => "function_failure",
            Self::WriteFailure => "write_failure",
            Self::CdcWriteFailure => "cdc_write_failure",
            Self::CasWriteUnknown => "cas_write_unknown",
            Self::SyntaxError => "syntax_error",
            Self::Unauthorized => "unauthorized",
            Self::Invalid => "invalid",
            Self::ConfigError => "config_error",
            Self::AlreadyExists => "already_exists",
            Self::Unprepared => "unprepared",
            Self::RateLimit => "rate_limit",
        }
    }
}

/// Why a replica failed (v5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FailureReason(pub u16);

impl FailureReason {
    /// Anything else.
    pub const UNKNOWN: FailureReason = FailureReason(0);
    /// The read walked over too many tombstones.
    pub const READ_TOO_MANY_TOMBSTONES: FailureReason = FailureReason(1);
    /// The replica gave up after its deadline.
    pub const TIMEOUT: FailureReason = FailureReason(2);
    /// The replica does not know the table or a column.
    pub const INCOMPATIBLE_SCHEMA: FailureReason = FailureReason(3);
    /// The read was too big.
    pub const READ_SIZE: FailureReason = FailureReason(4);
    /// The replica is down.
    pub const NODE_DOWN: FailureReason = FailureReason(5);
    /// The index is not available on the replica.
    pub const INDEX_NOT_AVAILABLE: FailureReason = FailureReason(6);
}

/// Replicas that failed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    /// How many.
    pub count: i32,
    /// Which and why: as many as `count`, or none when decoded from v4, which does not say.
    pub reasons: Vec<(IpAddr, FailureReason)>,
}

impl Failures {
    /// These replicas.
    pub fn new(reasons: Vec<(IpAddr, FailureReason)>) -> Failures {
        Failures {
            count: i32::try_from(reasons.len()).unwrap_or(i32::MAX),
            reasons,
        }
    }
}

/// How far a request came that needed several replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Of the request.
    pub consistency: Consistency,
    /// Replicas that answered.
    pub received: i32,
    /// Replicas that had to answer.
    pub block_for: i32,
}

/// What went wrong, with the body of its code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ErrorReason {
    /// A bug or an unforeseen failure of the server.
    Server,
    /// The client broke the protocol.
    Protocol,
    /// The credentials are wrong.
    BadCredentials,
    /// Too few replicas are alive to begin.
    Unavailable {
        /// Of the request.
        consistency: Consistency,
        /// Replicas that had to be alive.
        required: i32,
        /// Replicas alive.
        alive: i32,
    },
    /// The coordinator has too much to do.
    Overloaded,
    /// The coordinator is still joining.
    IsBootstrapping,
    /// TRUNCATE failed.
    Truncate,
    /// Too few replicas acknowledged a write in time.
    WriteTimeout {
        /// How far it came.
        progress: Progress,
        /// Kind of write.
        write_type: WriteType,
        /// CAS: how often another proposal won. On the wire in v5 only.
        contentions: Option<u16>,
    },
    /// Too few replicas answered a read in time.
    ReadTimeout {
        /// How far it came.
        progress: Progress,
        /// The replica asked for the data itself has answered.
        data_present: bool,
    },
    /// Replicas failed to read.
    ReadFailure {
        /// How far it came.
        progress: Progress,
        /// Those that failed.
        failures: Failures,
        /// The replica asked for the data itself has answered.
        data_present: bool,
    },
    /// A user-defined function failed.
    FunctionFailure {
        /// Of the function.
        keyspace: String,
        /// Its name.
        function: String,
        /// Its argument types, as CQL.
        argument_types: Vec<String>,
    },
    /// Replicas failed to write.
    WriteFailure {
        /// How far it came.
        progress: Progress,
        /// Those that failed.
        failures: Failures,
        /// Kind of write.
        write_type: WriteType,
    },
    /// The space for change data capture is full.
    CdcWriteFailure,
    /// A conditional write has neither been applied for sure nor not applied for sure.
    CasWriteUnknown {
        /// How far it came.
        progress: Progress,
    },
    /// The statement does not parse.
    Syntax,
    /// The role may not do this.
    Unauthorized,
    /// The statement makes no sense.
    Invalid,
    /// The statement asks for what the configuration does not have.
    Config,
    /// The keyspace or table exists.
    AlreadyExists {
        /// The keyspace, or that of the table.
        keyspace: String,
        /// The table, empty if it is about a keyspace.
        table: String,
    },
    /// The prepared statement is not known (any more); the client prepares it again.
    Unprepared {
        /// As in the request.
        id: Bytes,
    },
    /// A rate limit rejected the request.
    RateLimit {
        /// A write, not a read.
        write: bool,
        /// By the coordinator itself, not by a replica.
        rejected_by_coordinator: bool,
    },
}

impl ErrorReason {
    /// Its code in the newest version.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Server => ErrorCode::ServerError,
            Self::Protocol => ErrorCode::ProtocolError,
            Self::BadCredentials => ErrorCode::BadCredentials,
            Self::Unavailable { .. } => ErrorCode::Unavailable,
            Self::Overloaded => ErrorCode::Overloaded,
            Self::IsBootstrapping => ErrorCode::IsBootstrapping,
            Self::Truncate => ErrorCode::TruncateError,
            Self::WriteTimeout { .. } => ErrorCode::WriteTimeout,
            Self::ReadTimeout { .. } => ErrorCode::ReadTimeout,
            Self::ReadFailure { .. } => ErrorCode::ReadFailure,
            Self::FunctionFailure { .. } => ErrorCode::FunctionFailure,
            Self::WriteFailure { .. } => ErrorCode::WriteFailure,
            Self::CdcWriteFailure => ErrorCode::CdcWriteFailure,
            Self::CasWriteUnknown { .. } => ErrorCode::CasWriteUnknown,
            Self::Syntax => ErrorCode::SyntaxError,
            Self::Unauthorized => ErrorCode::Unauthorized,
            Self::Invalid => ErrorCode::Invalid,
            Self::Config => ErrorCode::ConfigError,
            Self::AlreadyExists { .. } => ErrorCode::AlreadyExists,
            Self::Unprepared { .. } => ErrorCode::Unprepared,
            Self::RateLimit { .. } => ErrorCode::RateLimit,
        }
    }

    /// What a client of this dialect can be told, if it is not the reason itself.
    pub(crate) fn fallback(&self, dialect: Dialect) -> Option<ErrorReason> {
        let version = dialect.version;
        match self {
            Self::ReadFailure {
                progress,
                data_present,
                ..
            } if version < ProtocolVersion::V4 => Some(Self::ReadTimeout {
                progress: *progress,
                data_present: *data_present,
            }),
            Self::WriteFailure {
                progress, write_type, ..
            } if version < ProtocolVersion::V4 => Some(Self::WriteTimeout {
                progress: *progress,
                write_type: *write_type,
                contentions: None,
            }),
            Self::FunctionFailure { .. } | Self::CdcWriteFailure if version < ProtocolVersion::V4 => {
                Some(Self::Invalid)
            }
            Self::CasWriteUnknown { progress } if version < ProtocolVersion::V5 => Some(Self::WriteTimeout {
                progress: *progress,
                write_type: WriteType::Cas,
                contentions: None,
            }),
            Self::RateLimit { .. } if !dialect.extensions.rate_limit_error => Some(Self::Config),
            _ => None,
        }
    }
}

/// The body of an ERROR message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorMessage {
    /// What went wrong.
    pub reason: ErrorReason,
    /// The same for people.
    pub message: String,
}

impl ErrorMessage {
    /// An error.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> ErrorMessage {
        ErrorMessage {
            reason,
            message: message.into(),
        }
    }

    /// Its code in the newest version; older ones may be told another.
    pub fn code(&self) -> ErrorCode {
        self.reason.code()
    }

    /// Appends the body.
    pub fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        let fallback = self.reason.fallback(dialect);
        let reason = fallback.as_ref().unwrap_or(&self.reason);
        out.put_i32(reason.code().code());
        put_string(out, &self.message);
        encode_reason(reason, dialect, out);
    }

    /// Reads a body.
    pub fn decode(dialect: Dialect, reader: &mut Reader<'_>) -> Result<ErrorMessage, Violation> {
        let reading = "an error code";
        let code = reader.i32(reading)?;
        let code = ErrorCode::from_code(code).ok_or_else(|| Violation::UnknownCode {
            reading,
            offset: reader.position(),
            code: i64::from(code),
        })?;
        let message = reader.string("an error message")?.to_owned();
        let reason = decode_reason(code, dialect, reader)?;
        Ok(ErrorMessage { reason, message })
    }
}

impl fmt::Display for ErrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({:#06x}): {}",
            self.code().name(),
            self.code().code(),
            self.message
        )
    }
}

impl std::error::Error for ErrorMessage {}

impl From<&Violation> for ErrorMessage {
    fn from(violation: &Violation) -> Self {
        ErrorMessage::new(ErrorReason::Protocol, violation.to_string())
    }
}

fn encode_progress(progress: &Progress, out: &mut BytesMut) {
    put_consistency(out, progress.consistency);
    out.put_i32(progress.received);
    out.put_i32(progress.block_for);
}

fn encode_failures(failures: &Failures, dialect: Dialect, out: &mut BytesMut) {
    if dialect.version < ProtocolVersion::V5 {
        out.put_i32(failures.count);
        return;
    }
    out.put_i32(i32::try_from(failures.reasons.len()).expect("a request has few replicas"));
    for (address, reason) in &failures.reasons {
        put_ip_address(out, *address);
        out.put_u16(reason.0);
    }
}

fn encode_reason(reason: &ErrorReason, dialect: Dialect, out: &mut BytesMut) {
    match reason {
        ErrorReason::Unavailable {
            consistency,
            required,
            alive,
        } => {
            put_consistency(out, *consistency);
            out.put_i32(*required);
            out.put_i32(*alive);
        }
        ErrorReason::WriteTimeout {
            progress,
            write_type,
            contentions,
        } => {
            encode_progress(progress, out);
            put_string(out, write_type.name());
            if let Some(contentions) = contentions
                && *write_type == WriteType::Cas
                && dialect.version >= ProtocolVersion::V5
            {
                out.put_u16(*contentions);
            }
        }
        ErrorReason::ReadTimeout {
            progress,
            data_present,
        } => {
            encode_progress(progress, out);
            out.put_u8(u8::from(*data_present));
        }
        ErrorReason::ReadFailure {
            progress,
            failures,
            data_present,
        } => {
            encode_progress(progress, out);
            encode_failures(failures, dialect, out);
            out.put_u8(u8::from(*data_present));
        }
        ErrorReason::FunctionFailure {
            keyspace,
            function,
            argument_types,
        } => {
            put_string(out, keyspace);
            put_string(out, function);
            put_string_list(out, argument_types);
        }
        ErrorReason::WriteFailure {
            progress,
            failures,
            write_type,
        } => {
            encode_progress(progress, out);
            encode_failures(failures, dialect, out);
            put_string(out, write_type.name());
        }
        ErrorReason::CasWriteUnknown { progress } => encode_progress(progress, out),
        ErrorReason::AlreadyExists { keyspace, table } => {
            put_string(out, keyspace);
            put_string(out, table);
        }
        ErrorReason::Unprepared { id } => put_short_bytes(out, id),
        ErrorReason::RateLimit {
            write,
            rejected_by_coordinator,
        } => {
            out.put_u8(u8::from(*write));
            out.put_u8(u8::from(*rejected_by_coordinator));
        }
        ErrorReason::Server
        | ErrorReason::Protocol
        | ErrorReason::BadCredentials
        | ErrorReason::Overloaded
        | ErrorReason::IsBootstrapping
        | ErrorReason::Truncate
        | ErrorReason::CdcWriteFailure
        | ErrorReason::Syntax
        | ErrorReason::Unauthorized
        | ErrorReason::Invalid
        | ErrorReason::Config => {}
    }
}

fn decode_progress(reader: &mut Reader<'_>) -> Result<Progress, Violation> {
    Ok(Progress {
        consistency: reader.consistency()?,
        received: reader.i32("the number of replicas that answered")?,
        block_for: reader.i32("the number of replicas that had to answer")?,
    })
}

fn decode_failures(dialect: Dialect, reader: &mut Reader<'_>) -> Result<Failures, Violation> {
    let reading = "the failures of replicas";
    if dialect.version < ProtocolVersion::V5 {
        return Ok(Failures {
            count: reader.i32(reading)?,
            reasons: Vec::new(),
        });
    }
    let count = reader.count(reading)? as usize;
    let mut reasons = Vec::with_capacity(reader.capacity(count, 7));
    for _ in 0..count {
        let address = reader.ip_address(reading)?;
        reasons.push((address, FailureReason(reader.u16(reading)?)));
    }
    Ok(Failures::new(reasons))
}

fn decode_write_type(reader: &mut Reader<'_>) -> Result<WriteType, Violation> {
    let reading = "a write type";
    let name = reader.string(reading)?;
    WriteType::ALL
        .into_iter()
        .find(|write_type| write_type.name() == name)
        .ok_or_else(|| Violation::UnknownName {
            reading,
            name: crate::compression::shorten(name),
        })
}

fn decode_reason(
    code: ErrorCode,
    dialect: Dialect,
    reader: &mut Reader<'_>,
) -> Result<ErrorReason, Violation> {
    let data_present = "whether data is present";
    Ok(match code {
        ErrorCode::ServerError => ErrorReason::Server,
        ErrorCode::ProtocolError => ErrorReason::Protocol,
        ErrorCode::BadCredentials => ErrorReason::BadCredentials,
        ErrorCode::Unavailable => ErrorReason::Unavailable {
            consistency: reader.consistency()?,
            required: reader.i32("the number of replicas required")?,
            alive: reader.i32("the number of replicas alive")?,
        },
        ErrorCode::Overloaded => ErrorReason::Overloaded,
        ErrorCode::IsBootstrapping => ErrorReason::IsBootstrapping,
        ErrorCode::TruncateError => ErrorReason::Truncate,
        ErrorCode::WriteTimeout => {
            let progress = decode_progress(reader)?;
            let write_type = decode_write_type(reader)?;
            let contended = write_type == WriteType::Cas
                && dialect.version >= ProtocolVersion::V5
                && reader.remaining() > 0;
            let contentions = if contended {
                Some(reader.u16("the number of contentions")?)
            } else {
                None
            };
            ErrorReason::WriteTimeout {
                progress,
                write_type,
                contentions,
            }
        }
        ErrorCode::ReadTimeout => ErrorReason::ReadTimeout {
            progress: decode_progress(reader)?,
            data_present: reader.u8(data_present)? != 0,
        },
        ErrorCode::ReadFailure => ErrorReason::ReadFailure {
            progress: decode_progress(reader)?,
            failures: decode_failures(dialect, reader)?,
            data_present: reader.u8(data_present)? != 0,
        },
        ErrorCode::FunctionFailure => ErrorReason::FunctionFailure {
            keyspace: reader.string("the keyspace of a function")?.to_owned(),
            function: reader.string("the name of a function")?.to_owned(),
            argument_types: reader.string_list("the argument types of a function")?,
        },
        ErrorCode::WriteFailure => ErrorReason::WriteFailure {
            progress: decode_progress(reader)?,
            failures: decode_failures(dialect, reader)?,
            write_type: decode_write_type(reader)?,
        },
        ErrorCode::CdcWriteFailure => ErrorReason::CdcWriteFailure,
        ErrorCode::CasWriteUnknown => ErrorReason::CasWriteUnknown {
            progress: decode_progress(reader)?,
        },
        ErrorCode::SyntaxError => ErrorReason::Syntax,
        ErrorCode::Unauthorized => ErrorReason::Unauthorized,
        ErrorCode::Invalid => ErrorReason::Invalid,
        ErrorCode::ConfigError => ErrorReason::Config,
        ErrorCode::AlreadyExists => ErrorReason::AlreadyExists {
            keyspace: reader.string("the keyspace that exists")?.to_owned(),
            table: reader.string("the table that exists")?.to_owned(),
        },
        ErrorCode::Unprepared => ErrorReason::Unprepared {
            id: reader.short_bytes("the id of a prepared statement")?,
        },
        ErrorCode::RateLimit => ErrorReason::RateLimit {
            write: reader.u8("the kind of operation")? != 0,
            rejected_by_coordinator: reader.u8("who rejected the operation")? != 0,
        },
    })
}

#[cfg(test)]
mod tests;
