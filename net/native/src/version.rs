//! Protocol versions, and the extensions that a connection may have switched on beside its version.
//!
//! Both together are a [`Dialect`]: the one argument that every encoder and decoder of a body takes.

use std::fmt;

/// A version of the native protocol that this crate speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)] // the names are the specification's
pub enum ProtocolVersion {
    V3 = 3,
    V4 = 4,
    V5 = 5,
    /// In beta, as in Cassandra 5: for clients that ask for it with the flag. It is version 5 still.
    V6 = 6,
}

impl ProtocolVersion {
    /// Every version, ascending.
    pub const ALL: [ProtocolVersion; 4] = [Self::V3, Self::V4, Self::V5, Self::V6];
    /// The lowest version served.
    pub const LOWEST: ProtocolVersion = Self::V3;
    /// The greatest version that is not in beta; answers to requests of an unknown version carry it.
    pub const GREATEST: ProtocolVersion = Self::V5;

    /// The version of the low seven bits of a header's first byte.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::V3),
            4 => Some(Self::V4),
            5 => Some(Self::V5),
            6 => Some(Self::V6),
            _ => None,
        }
    }

    /// 3 to 6.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The name in the PROTOCOL_VERSIONS list of a SUPPORTED message: `4/v4`.
    pub fn supported_name(self) -> &'static str {
        match self {
            Self::V3 => "3/v3",
            Self::V4 => "4/v4",
            Self::V5 => "5/v5",
            Self::V6 => "6/v6-beta",
        }
    }

    /// Clients must say that they know that it may change ([`crate::envelope::flags::USE_BETA`]).
    pub fn is_beta(self) -> bool {
        self > Self::GREATEST
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.number())
    }
}

/// Protocol extensions a client switched on by echoing their keys of SUPPORTED in STARTUP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Extensions {
    /// `SCYLLA_RATE_LIMIT_ERROR`: the client knows the rate limit error; others get a configuration error.
    pub rate_limit_error: bool,
    /// `SCYLLA_LWT_ADD_METADATA_MARK`: prepared conditional statements carry [`Extensions::LWT_MARK`].
    pub lwt_mark: bool,
    /// `SCYLLA_USE_METADATA_ID`: result metadata ids as in v5, on v3 and v4 too.
    pub metadata_id: bool,
}

impl Extensions {
    /// The bit in the flags of a prepared statement's metadata that marks it as conditional.
    pub const LWT_MARK: u32 = 0x8000_0000;
}

/// What two ends of a connection have agreed to speak.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dialect {
    /// The version in every header.
    pub version: ProtocolVersion,
    /// Switched on in STARTUP.
    pub extensions: Extensions,
}

impl Dialect {
    /// A version without extensions.
    pub const fn new(version: ProtocolVersion) -> Self {
        let extensions = Extensions {
            rate_limit_error: false,
            lwt_mark: false,
            metadata_id: false,
        };
        Dialect { version, extensions }
    }

    /// PREPARED and EXECUTE carry the id of the result metadata.
    pub fn has_metadata_id(self) -> bool {
        self.version >= ProtocolVersion::V5 || self.extensions.metadata_id
    }
}

impl From<ProtocolVersion> for Dialect {
    fn from(version: ProtocolVersion) -> Self {
        Dialect::new(version)
    }
}
