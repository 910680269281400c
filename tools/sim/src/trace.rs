//! The trace: a hash over all that happened, in order. Two runs of one seed must agree on it.

use std::time::Duration;

/// FNV-1a over every event.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
        }
    }
}

impl Trace {
    /// Adds an event.
    pub fn add(&mut self, at: Duration, kind: u8, node: usize, bytes: &[u8]) {
        self.events += 1;
        self.feed(&(at.as_nanos() as u64).to_le_bytes());
        self.feed(&[kind, node as u8]);
        self.feed(bytes);
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }
}
