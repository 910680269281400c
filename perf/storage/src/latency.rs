//! Latencies of operations that are due at a fixed rate. They count from the moment an operation was due, so that one
//! that keeps others waiting is not counted once only.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Latencies, in nanoseconds.
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        // One nanosecond to a minute.
        Latencies(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order"))
    }
}

impl Latencies {
    /// An operation that was due ends now.
    pub(crate) fn note(&mut self, due: Instant) {
        self.0.saturating_record((due.elapsed().as_nanos() as u64).max(1));
    }

    #[cfg(any(feature = "rocksdb", feature = "fjall"))]
    pub(crate) fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// Figures, their names ending in `suffix`.
    pub(crate) fn figures(&self, suffix: &str, into: &mut Map<String, Value>) {
        into.insert(format!("reads_{suffix}"), json!(self.0.len()));
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let micros = self.0.value_at_quantile(quantile) as f64 / 1000.0;
            into.insert(format!("{name}_us_{suffix}"), json!(micros));
        }
    }
}

/// When operations are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    next: Instant,
    period: Duration,
}

impl Schedule {
    /// From now on, so many each second.
    pub(crate) fn new(rate: u64) -> Schedule {
        Schedule {
            next: Instant::now(),
            period: Duration::from_secs(1) / rate.max(1) as u32,
        }
    }

    /// When the next one is due.
    pub(crate) fn take(&mut self) -> Instant {
        let due = self.next;
        self.next += self.period;
        due
    }
}
