//! Counters of one shard, and the samples that the control thread exposes.
//!
//! Counters are plain cells: only their shard touches them. A scrape is a task on each shard that renders
//! [`Sample`]s; the control thread adds the `shard` label and sums.

use std::cell::Cell;
use std::time::Duration;

/// A number that only grows.
#[derive(Default, Debug)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// The sum.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Upper bounds of the latency buckets, microseconds: a factor of 1.3 to 3 between neighbours, 1 us to 20 s.
const BUCKETS_US: [u64; 32] = [
    1,
    2,
    5,
    10,
    20,
    30,
    50,
    100,
    150,
    200,
    300,
    500,
    750,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    10_000,
    15_000,
    20_000,
    30_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    u64::MAX,
];

/// The same in nanoseconds: what is compared with each latency.
const BUCKETS_NANOS: [u64; BUCKETS_US.len()] = {
    let mut bounds = BUCKETS_US;
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = bounds[at].saturating_mul(1_000);
        at += 1;
    }
    bounds
};

/// Latencies in buckets.
#[derive(Default, Debug)]
pub struct Histogram {
    buckets: [Cell<u64>; BUCKETS_US.len()],
    sum_nanos: Cell<u64>,
    count: Cell<u64>,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, latency: Duration) {
        let nanos = nanos(latency);
        let at = BUCKETS_NANOS.partition_point(|bound| *bound < nanos);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.set(bucket.get() + 1);
        }
        self.sum_nanos.set(self.sum_nanos.get().saturating_add(nanos));
        self.count.set(self.count.get() + 1);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Their sum, nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.sum_nanos.get()
    }
}

/// A duration in nanoseconds; 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}

/// How a sample behaves, in Prometheus' words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SampleKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// One value of one series (of one bucket, for histograms).
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// Metric family, without the `_bucket`, `_sum` or `_count` of a histogram.
    pub name: &'static str,
    /// What the family means.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: SampleKind,
    /// Appended to the name: `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: &'static str,
    /// Labels but `shard`.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

/// Collects samples.
#[derive(Default)]
pub struct Samples(pub Vec<Sample>);

impl Samples {
    /// Adds a counter.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.push(name, help, SampleKind::Counter, "", labels, value as f64);
    }

    /// Adds a counter of seconds.
    pub fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.push(name, help, SampleKind::Counter, "", labels, value);
    }

    /// Adds a gauge.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.push(name, help, SampleKind::Gauge, "", labels, value);
    }

    /// Adds a histogram in seconds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        histogram: &Histogram,
    ) {
        let mut cumulative = 0;
        for (bound, count) in BUCKETS_US.iter().zip(&histogram.buckets) {
            cumulative += count.get();
            let bound = if *bound == u64::MAX {
                "+Inf".to_owned()
            } else {
                format!("{}", *bound as f64 / 1_000_000.0)
            };
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.push(
                name,
                help,
                SampleKind::Histogram,
                "_bucket",
                &labels,
                cumulative as f64,
            );
        }
        let sum = histogram.sum_nanos.get() as f64 / 1e9;
        self.push(name, help, SampleKind::Histogram, "_sum", labels, sum);
        self.push(
            name,
            help,
            SampleKind::Histogram,
            "_count",
            labels,
            histogram.count.get() as f64,
        );
    }

    fn push(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: SampleKind,
        suffix: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        let labels = labels.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        self.0.push(Sample {
            name,
            help,
            kind,
            suffix,
            labels,
            value,
        });
    }
}
