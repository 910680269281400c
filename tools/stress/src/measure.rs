//! What was measured: a histogram and an error count for each operation, over an interval or over the whole run.

use hdrhistogram::Histogram;

use crate::options::Operation;

/// The longest latency told apart, in nanoseconds: an hour.
const MAXIMUM_LATENCY_NS: u64 = 3_600_000_000_000;
/// Significant decimal digits of a latency.
const PRECISION: u8 = 3;

/// One finished operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) operation: Operation,
    pub(crate) latency_ns: u64,
    pub(crate) failed: bool,
}

/// Latencies and errors of one kind of operation.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    pub(crate) histogram: Histogram<u64>,
    pub(crate) errors: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, MAXIMUM_LATENCY_NS, PRECISION).expect("the bounds are valid");
        Latencies { histogram, errors: 0 }
    }

    /// Operations, failed ones too.
    pub(crate) fn operations(&self) -> u64 {
        self.histogram.len()
    }

    pub(crate) fn add(&mut self, other: &Latencies) {
        self.histogram
            .add(&other.histogram)
            .expect("all histograms have the same bounds");
        self.errors += other.errors;
    }

    pub(crate) fn mean_ms(&self) -> f64 {
        self.histogram.mean() / 1e6
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1e6
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.histogram.max() as f64 / 1e6
    }
}

/// Everything measured in an interval, by operation. Holds only the operations that occurred.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measurements {
    by_operation: Vec<(Operation, Latencies)>,
}

impl Measurements {
    pub(crate) fn record(&mut self, sample: &Sample) {
        let latencies = self.of(sample.operation);
        latencies.histogram.saturating_record(sample.latency_ns.max(1));
        latencies.errors += u64::from(sample.failed);
    }

    fn of(&mut self, operation: Operation) -> &mut Latencies {
        let place = match self
            .by_operation
            .iter()
            .position(|(other, _)| *other == operation)
        {
            Some(place) => place,
            None => {
                self.by_operation.push((operation, Latencies::new()));
                self.by_operation.len() - 1
            }
        };
        &mut self.by_operation[place].1
    }

    pub(crate) fn add(&mut self, other: &Measurements) {
        for (operation, latencies) in &other.by_operation {
            self.of(*operation).add(latencies);
        }
    }

    /// Empties it and returns what it held.
    pub(crate) fn take(&mut self) -> Measurements {
        std::mem::take(self)
    }

    /// By operation, in the order of [`Operation::ALL`].
    pub(crate) fn each(&self) -> Vec<(Operation, &Latencies)> {
        let find = |operation: Operation| {
            self.by_operation
                .iter()
                .find(move |(other, _)| *other == operation)
        };
        Operation::ALL
            .into_iter()
            .filter_map(|operation| find(operation).map(|(_, latencies)| (operation, latencies)))
            .collect()
    }

    /// All operations together.
    pub(crate) fn total(&self) -> Latencies {
        let mut total = Latencies::new();
        self.by_operation
            .iter()
            .for_each(|(_, latencies)| total.add(latencies));
        total
    }
}

/// How sure the mean of a series is: its standard error as a share of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uncertainty {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Uncertainty {
    /// Adds one value of the series and returns the relative standard error so far (NaN before the second).
    pub(crate) fn update(&mut self, value: f64) -> f64 {
        self.count += 1.0;
        let distance = value - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
        (self.squares / (self.count - 1.0)).sqrt() / self.count.sqrt() / self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(operation: Operation, latency_ns: u64, failed: bool) -> Sample {
        Sample {
            operation,
            latency_ns,
            failed,
        }
    }

    #[test]
    fn intervals_add_up() {
        let mut total = Measurements::default();
        for round in 1..=10_u64 {
            let mut interval = Measurements::default();
            for index in 1..=100 {
                interval.record(&sample(Operation::Read, index * 1_000_000, index == 100));
            }
            interval.record(&sample(Operation::Write, round, false));
            assert_eq!(interval.total().operations(), 101);
            total.add(&interval.take());
            assert_eq!(interval.total().operations(), 0);
        }
        let each = total.each();
        assert_eq!((each[0].0, each[1].0), (Operation::Write, Operation::Read));
        let reads = each[1].1;
        assert_eq!((reads.operations(), reads.errors), (1000, 10));
        assert!((reads.quantile_ms(0.99) - 99.0).abs() < 0.1 && (reads.mean_ms() - 50.5).abs() < 0.1);
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_kept() {
        let mut measurements = Measurements::default();
        measurements.record(&sample(Operation::Write, u64::MAX, false));
        measurements.record(&sample(Operation::Write, 0, false));
        assert_eq!(measurements.total().operations(), 2);
    }

    #[test]
    fn uncertainty_falls_with_equal_values() {
        let mut uncertainty = Uncertainty::default();
        assert!(uncertainty.update(10.0).is_nan());
        let second = uncertainty.update(20.0);
        assert!((second - 1.0 / 3.0).abs() < 1e-9, "{second}");
        assert!(uncertainty.update(15.0) < second);
    }
}
