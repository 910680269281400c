//! Measurements of several rounds to medians with their spread, as text for people and JSON for perf/results.ndjson.

use std::fmt;

use serde_json::{Value, json};

use crate::load::Measured;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) operations_per_second: f64,
    /// Server processor time per operation, in microseconds.
    pub(crate) server_us: f64,
    /// Share of its core that the server used. Well below 1 in a closed loop: the client was the limit.
    pub(crate) server_busy: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Round {
    pub(crate) fn new(measured: &Measured) -> Round {
        let operations = measured.operations.max(1) as f64;
        let server = measured.server_time.as_secs_f64();
        let quantile = |quantile: f64| measured.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Round {
            operations_per_second: measured.operations as f64 / measured.time.as_secs_f64(),
            server_us: server * 1e6 / operations,
            server_busy: server / measured.time.as_secs_f64(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:9.0} op/s  server {:6.3} us/op ({:3.0} % busy)  p50 {:7.1} us  p99 {:7.1} us",
            self.operations_per_second,
            self.server_us,
            self.server_busy * 100.0,
            self.p50_us,
            self.p99_us
        )
    }
}

/// A median and what it is the median of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// None of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let (below, above) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Spread {
            median: (below + above) / 2.0,
            lowest,
            highest,
        })
    }

    fn json(self) -> Value {
        let rounded = |value: f64| {
            // Four significant digits: more is noise.
            let scale = 10f64.powf(3.0 - value.abs().max(1e-9).log10().floor());
            (value * scale).round() / scale
        };
        json!({"median": rounded(self.median), "low": rounded(self.lowest), "high": rounded(self.highest)})
    }
}

/// The rounds of one server under one workload.
pub(crate) fn summary(rounds: &[Round]) -> Value {
    let spread = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure)).map(Spread::json);
    json!({
        "operations_per_second": spread(|round| round.operations_per_second),
        "server_us_per_operation": spread(|round| round.server_us),
        "server_busy": spread(|round| round.server_busy),
        "p50_us": spread(|round| round.p50_us),
        "p99_us": spread(|round| round.p99_us),
    })
}

/// A figure of one server over the other's, round by round.
pub(crate) fn ratio(rounds: &[Round], base: &[Round], figure: fn(&Round) -> f64) -> Option<Spread> {
    Spread::of(
        rounds
            .iter()
            .zip(base)
            .map(|(round, base)| figure(round) / figure(base)),
    )
}

/// The ratios that the targets are set for.
pub(crate) fn ratios(rounds: &[Round], base: &[Round]) -> Value {
    json!({
        "server_us_per_operation": ratio(rounds, base, |round| round.server_us).map(Spread::json),
        "p99": ratio(rounds, base, |round| round.p99_us).map(Spread::json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                lowest: 1.0,
                highest: 3.0
            })
        );
        assert_eq!(
            spread(&[4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median),
            Some(2.5)
        );
    }

    #[test]
    fn four_digits_are_kept() {
        let spread = Spread {
            median: 123_456.0,
            lowest: 0.012_345_6,
            highest: 0.0,
        };
        assert_eq!(
            spread.json(),
            json!({"median": 123_500.0, "low": 0.012_35, "high": 0.0})
        );
    }
}
