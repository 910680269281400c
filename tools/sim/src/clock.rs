//! A node's own idea of time: a monotonic clock that drifts, and a wall clock that is off and may jump.

use std::time::{Duration, Instant};

use ceto_model::{Timestamp, UnixSeconds};

/// Wall time at virtual time zero, in microseconds since the Unix epoch.
const WALL_START: i64 = 1_700_000_000_000_000;

/// One node's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Where monotonic clocks count from; only differences matter.
    base: Instant,
    /// Parts per million that it runs too fast (or too slow).
    drift: i64,
    /// Microseconds that the wall clock is ahead (or behind).
    offset: i64,
}

impl Clock {
    /// A clock. `drift` in parts per million, `offset` in microseconds.
    pub fn new(base: Instant, drift: i64, offset: i64) -> Clock {
        Clock { base, drift, offset }
    }

    fn drifted(&self, virtual_time: Duration) -> Duration {
        let nanoseconds = virtual_time.as_nanos() as i128;
        let drifted = nanoseconds + nanoseconds * i128::from(self.drift) / 1_000_000;
        Duration::from_nanos(drifted.max(0) as u64)
    }

    /// The monotonic clock at a virtual time.
    pub fn monotonic(&self, virtual_time: Duration) -> Instant {
        self.base + self.drifted(virtual_time)
    }

    /// A virtual time at which the monotonic clock has reached `instant`, at most some microseconds late.
    pub fn virtual_time(&self, instant: Instant) -> Duration {
        let local = instant.saturating_duration_since(self.base).as_nanos() as i128;
        let nanoseconds = local * 1_000_000 / (1_000_000 + i128::from(self.drift));
        Duration::from_nanos(nanoseconds as u64) + Duration::from_micros(2)
    }

    /// The wall clock at a virtual time, for write timestamps.
    pub fn timestamp(&self, virtual_time: Duration) -> Timestamp {
        Timestamp(WALL_START + self.drifted(virtual_time).as_micros() as i64 + self.offset)
    }

    /// The wall clock in whole seconds.
    pub fn seconds(&self, virtual_time: Duration) -> UnixSeconds {
        UnixSeconds(self.timestamp(virtual_time).0 / 1_000_000)
    }

    /// Sets the wall clock forward or back by `microseconds`.
    pub fn jump(&mut self, microseconds: i64) {
        self.offset += microseconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_never_found_early() {
        #[allow(clippy::disallowed_methods)] // any fixed point will do
        let base = Instant::now();
        for drift in [-50_000, -7, 0, 13, 50_000] {
            let clock = Clock::new(base, drift, 0);
            for nanoseconds in [1, 999, 1_234_567, 987_654_321, 77_777_777_777] {
                let instant = base + Duration::from_nanos(nanoseconds);
                let at = clock.virtual_time(instant);
                assert!(clock.monotonic(at) >= instant, "drift {drift}");
                assert!(clock.monotonic(at) - instant < Duration::from_micros(4));
            }
        }
    }
}
