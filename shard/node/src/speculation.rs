//! When a read that waits for other nodes asks one more replica: `speculative_retry` and the latencies it goes by.
//!
//! Each shard keeps the latencies of a table's reads over nodes in buckets that are halved once a second or so, and
//! works the wait out at the same time, not for each read. Never: a wait while this node is alone, or before a table has
//! been read often enough to know what is slow.

use std::time::{Duration, Instant};

use ceto_cluster::coordinator::SpeculativeRetry;
use ceto_model::{Table, TableId};

use crate::node::Node;

/// Reads of a table without which a percentile means nothing.
const READS_MIN: u32 = 50;
/// Time between looks at a table's latencies.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Each bucket ends at twice its predecessor's end; the first at 64 us, the last beyond a minute.
const BUCKETS: usize = 21;
const FIRST_BUCKET_MICROS: u64 = 64;
/// Counts above which all are halved, so that the past is forgotten.
const COUNT_MAX: u32 = 4096;

/// What a table's reads take, and what follows from it.
#[derive(Default)]
pub(crate) struct ReadLatencies {
    buckets: [u32; BUCKETS],
    count: u32,
    /// When the wait is worked out again.
    next_look: Option<Instant>,
    wait: Option<Duration>,
}

impl ReadLatencies {
    fn record(&mut self, took: Duration) {
        let units = took.as_micros() as u64 / FIRST_BUCKET_MICROS;
        let at = (u64::BITS - units.leading_zeros()) as usize;
        if let Some(bucket) = self.buckets.get_mut(at.min(BUCKETS - 1)) {
            *bucket += 1;
        }
        self.count += 1;
        if self.count >= COUNT_MAX {
            self.buckets.iter_mut().for_each(|bucket| *bucket /= 2);
            self.count = self.buckets.iter().sum();
        }
    }

    /// The end of the bucket where the percentile lies, shortened in proportion to its place there.
    fn at(&self, percentile: f64) -> Option<Duration> {
        if self.count < READS_MIN {
            return None;
        }
        let wanted = percentile / 100.0 * f64::from(self.count);
        let mut below = 0.0;
        for (at, count) in self.buckets.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= wanted {
                let end = FIRST_BUCKET_MICROS << at;
                let start = if at == 0 { 0 } else { end / 2 };
                let part = ((wanted - below) / count).clamp(0.0, 1.0);
                let micros = start as f64 + (end - start) as f64 * part;
                return Some(Duration::from_micros(micros as u64));
            }
            below += count;
        }
        None
    }
}

impl Node {
    /// How long a read of `table` waits before it asks one more replica.
    pub(crate) fn speculates_after(&self, table: &Table) -> Option<Duration> {
        if !self.has_peers() {
            return None;
        }
        let now = self.env.clock().now();
        let mut all = self.read_latencies.borrow_mut();
        let own = all.entry(table.id).or_default();
        if own.next_look.is_none_or(|at| at <= now) {
            own.next_look = Some(now + LOOK_PERIOD);
            let policy = SpeculativeRetry::parse(&table.options.speculative_retry);
            own.wait = policy.and_then(|policy| policy.wait(|percentile| own.at(percentile)));
        }
        own.wait
    }

    /// Learns what a read over nodes took.
    pub(crate) fn note_coordinated_read(&self, table: TableId, took: Duration) {
        if self.has_peers() {
            let mut all = self.read_latencies.borrow_mut();
            all.entry(table).or_default().record(took);
        }
    }

    pub(crate) fn has_peers(&self) -> bool {
        !self.topology.borrow().peers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_follow_the_reads() {
        let mut latencies = ReadLatencies::default();
        for _ in 0..READS_MIN - 1 {
            latencies.record(Duration::from_millis(1));
        }
        assert_eq!(latencies.at(50.0), None, "too few to tell");
        for _ in 0..1000 {
            latencies.record(Duration::from_millis(1));
        }
        for _ in 0..30 {
            latencies.record(Duration::from_millis(80));
        }
        let within = |percentile, from: u64, to: u64| {
            let wait = latencies.at(percentile).expect("known");
            assert!(
                wait >= Duration::from_micros(from) && wait <= Duration::from_micros(to),
                "{percentile}: {wait:?}"
            );
        };
        within(50.0, 512, 1024 + 64);
        within(99.0, 65_000, 132_000);
        for _ in 0..20_000 {
            latencies.record(Duration::from_micros(100));
        }
        let later = latencies.at(99.0).expect("known");
        assert!(
            later < Duration::from_millis(3),
            "the past is forgotten: {later:?}"
        );
    }
}
