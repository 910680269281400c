//! Time. Nothing else in the engine may ask the operating system for it.

use std::time::Instant;

/// The two clocks of a node.
pub trait Clock {
    /// Monotonic time, for deadlines and durations.
    fn now(&self) -> Instant;
    /// Microseconds since the Unix epoch. May jump; used for write timestamps and expiry only.
    fn unix_micros(&self) -> i64;
    /// Seconds since the Unix epoch.
    fn unix_seconds(&self) -> i64 {
        self.unix_micros().div_euclid(1_000_000)
    }
}
