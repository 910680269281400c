//! Time. Nothing else in the engine may ask the operating system for it.

use std::time::Instant;

/// The two clocks of a node.
pub trait Clock {
    /// Monotonic time, for deadlines and durations; cheap, and as old as the turn of the event loop at most.
    fn now(&self) -> Instant;
    /// The same, read anew: for what is measured within a turn.
    fn read(&self) -> Instant {
        self.now()
    }
    /// Microseconds since the Unix epoch. May jump; used for write timestamps and expiry only.
    fn unix_micros(&self) -> i64;
    /// Seconds since the Unix epoch.
    fn unix_seconds(&self) -> i64 {
        self.unix_micros().div_euclid(1_000_000)
    }
}
