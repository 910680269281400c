//! What the fuzzers run: one module for each target, each with a `run` that panics when a decoder breaks its promise and
//! with `seeds` that decode well, for mutation to start from.
//!
//! Every target takes its settings from the first bytes of its input, so that libFuzzer mutates them too.
//!
//! Promises checked: no panic; what decodes can be encoded; encoding what was decoded reaches a fixed point after one
//! round; input in pieces means the same as input in one piece.

pub mod frame;
pub mod mutate;
pub mod request;
pub mod response;
pub mod value;

use ceto_native::{Dialect, Extensions, ProtocolVersion};

/// A target of this crate.
pub struct Target {
    /// As in `ci/fuzz/run`.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Inputs that decode well.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: [Target; 4] = [
    Target {
        name: "frame",
        run: frame::run,
        seeds: frame::seeds,
    },
    Target {
        name: "request",
        run: request::run,
        seeds: request::seeds,
    },
    Target {
        name: "response",
        run: response::run,
        seeds: response::seeds,
    },
    Target {
        name: "value",
        run: value::run,
        seeds: value::seeds,
    },
];

/// The dialect that a byte of settings stands for.
pub(crate) fn dialect(setting: u8) -> Dialect {
    let version = ProtocolVersion::ALL[usize::from(setting % 3)];
    let extensions = Extensions {
        rate_limit_error: setting & 0x10 != 0,
        lwt_mark: setting & 0x20 != 0,
        metadata_id: setting & 0x40 != 0,
    };
    Dialect { version, extensions }
}

/// Settings of each version, without and with all extensions: [`dialect`] reads them.
pub(crate) const DIALECT_SETTINGS: [u8; 6] = [0, 1, 2, 0x72, 0x70, 0x71];
