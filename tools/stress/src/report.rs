//! What a run prints: a line for each interval, the results, and the distribution of latencies, in cassandra-stress's
//! columns and labels. The columns of garbage collection are there for scripts that count columns; they are zero.

use std::fmt::Write;
use std::time::Duration;

use crate::measure::{Latencies, Measurements, Uncertainty};

const COLUMNS: [&str; 19] = [
    "type",
    "total ops",
    "op/s",
    "pk/s",
    "row/s",
    "mean",
    "med",
    ".95",
    ".99",
    ".999",
    "max",
    "time",
    "stderr",
    "errors",
    "gc: #",
    "max ms",
    "sum ms",
    "sdv ms",
    "mb",
];
/// Widths of the columns behind the first.
const WIDTHS: [usize; 18] = [10, 8, 8, 8, 8, 8, 8, 8, 8, 8, 7, 9, 7, 7, 8, 8, 8, 8];
const FIRST_WIDTH: usize = 20;
/// Quantiles of the distribution's table, each halving what is above.
const TABLE_HALVINGS: i32 = 14;

/// The heading of the interval lines.
pub(crate) fn heading() -> String {
    line(COLUMNS[0], COLUMNS[1..].iter().map(|name| (*name).to_owned()))
}

fn line(first: &str, cells: impl Iterator<Item = String>) -> String {
    let mut text = format!("{:<FIRST_WIDTH$}", format!("{first},"));
    for (index, (cell, width)) in cells.zip(WIDTHS).enumerate() {
        let separator = if index == 0 { "" } else { "," };
        let _ = write!(text, "{separator}{cell:>width$}");
    }
    text
}

/// Follows a run interval by interval.
#[derive(Default)]
pub(crate) struct Progress {
    total: Measurements,
    uncertainty: Uncertainty,
}

impl Progress {
    /// The lines of an interval that was `length` long and ended `elapsed` after the start.
    pub(crate) fn interval(
        &mut self,
        interval: &Measurements,
        length: Duration,
        elapsed: Duration,
    ) -> Vec<String> {
        self.total.add(interval);
        let all = interval.total();
        let deviation = self.uncertainty.update(rate(all.operations(), length));
        let kinds = interval.each();
        let mut lines = Vec::new();
        if kinds.len() > 1 {
            let totals = self.total.each();
            for (operation, latencies) in kinds {
                let total = totals.iter().find(|(other, _)| *other == operation);
                let total = total.map_or(0, |(_, latencies)| latencies.operations());
                lines.push(interval_line(
                    operation.name(),
                    total,
                    latencies,
                    length,
                    elapsed,
                    deviation,
                ));
            }
        }
        let total = self.total.total().operations();
        lines.push(interval_line("total", total, &all, length, elapsed, deviation));
        lines
    }

    /// Everything so far.
    pub(crate) fn total(&self) -> &Measurements {
        &self.total
    }
}

fn rate(operations: u64, length: Duration) -> f64 {
    operations as f64 / length.as_secs_f64().max(1e-9)
}

fn interval_line(
    name: &str,
    total: u64,
    latencies: &Latencies,
    length: Duration,
    elapsed: Duration,
    deviation: f64,
) -> String {
    let rate = format!("{:.0}", rate(latencies.operations(), length));
    let quantile = |quantile: f64| format!("{:.1}", latencies.quantile_ms(quantile));
    let cells = [
        total.to_string(),
        rate.clone(),
        rate.clone(),
        rate,
        format!("{:.1}", latencies.mean_ms()),
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
        quantile(0.999),
        format!("{:.1}", latencies.max_ms()),
        format!("{:.1}", elapsed.as_secs_f64()),
        format!("{deviation:.5}"),
        latencies.errors.to_string(),
    ];
    let collections = std::iter::repeat_n("0".to_owned(), 5);
    line(name, cells.into_iter().chain(collections))
}

/// The summary at the end of a run.
pub(crate) fn results(total: &Measurements, elapsed: Duration) -> String {
    let all = total.total();
    let mut text = "\nResults:\n".to_owned();
    let mut row = |label: &str, unit: &str, figure: &dyn Fn(&Latencies) -> String| {
        let kinds: Vec<String> = total
            .each()
            .iter()
            .map(|(operation, latencies)| format!("{}: {}{unit}", operation.name(), figure(latencies)))
            .collect();
        let _ = writeln!(
            text,
            "{label:<26}: {:>8}{unit} [{}]",
            figure(&all),
            kinds.join(", ")
        );
    };
    let per_second = |latencies: &Latencies| grouped(rate(latencies.operations(), elapsed) as u64);
    row("Op rate", " op/s", &per_second);
    row("Partition rate", " pk/s", &per_second);
    row("Row rate", " row/s", &per_second);
    row("Latency mean", " ms", &|latencies| {
        format!("{:.3}", latencies.mean_ms())
    });
    for (label, quantile) in [
        ("Latency median", 0.5),
        ("Latency 95th percentile", 0.95),
        ("Latency 99th percentile", 0.99),
        ("Latency 99.9th percentile", 0.999),
    ] {
        row(label, " ms", &|latencies| {
            format!("{:.3}", latencies.quantile_ms(quantile))
        });
    }
    row("Latency max", " ms", &|latencies| {
        format!("{:.3}", latencies.max_ms())
    });
    row("Total partitions", "", &|latencies| {
        grouped(latencies.operations())
    });
    row("Total errors", "", &|latencies| grouped(latencies.errors));
    let seconds = elapsed.as_secs();
    let clock = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    let _ = writeln!(text, "{:<26}: {clock}", "Total operation time");
    text
}

/// The distribution of latencies as HdrHistogram prints it.
pub(crate) fn distribution(latencies: &Latencies) -> String {
    let mut text = format!(
        "\n{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let total = latencies.operations();
    if total == 0 {
        return text;
    }
    let mut above = 0;
    for halving in 0..=TABLE_HALVINGS * 2 {
        // Two steps for each halving of what lies above.
        let quantile = 1.0 - 0.5_f64.powf(f64::from(halving) / 2.0);
        let value = latencies.histogram.value_at_quantile(quantile);
        let count = latencies.histogram.count_between(0, value);
        if halving > 0 && count == above {
            continue;
        }
        above = count;
        let inverse = 1.0 / (1.0 - quantile);
        let _ = writeln!(
            text,
            "{:>12.3} {quantile:>14.12} {count:>10} {inverse:>14.2}",
            value as f64 / 1e6
        );
    }
    let _ = writeln!(
        text,
        "{:>12.3} {:>14.12} {total:>10} {:>14}",
        latencies.max_ms(),
        1.0,
        "inf"
    );
    let deviation_ms = latencies.histogram.stdev() / 1e6;
    let _ = writeln!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {deviation_ms:>12.3}]",
        latencies.mean_ms()
    );
    let _ = writeln!(
        text,
        "#[Max     = {:>12.3}, Total count    = {total:>12}]",
        latencies.max_ms()
    );
    text
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;
    use crate::options::Operation;

    fn measurements(operations: &[Operation]) -> Measurements {
        let mut measurements = Measurements::default();
        for index in 1..=1000_u64 {
            for operation in operations {
                measurements.record(&Sample {
                    operation: *operation,
                    latency_ns: index * 10_000,
                    failed: index == 1,
                });
            }
        }
        measurements
    }

    #[test]
    fn an_interval_has_a_line_for_each_kind_and_their_total() {
        let mut progress = Progress::default();
        let second = Duration::from_secs(1);
        let both = measurements(&[Operation::Read, Operation::Write]);
        progress.interval(&both, second, second);
        let lines = progress.interval(&both, second, second * 2);
        let cells: Vec<Vec<&str>> = lines
            .iter()
            .map(|line| line.split(',').map(str::trim).collect())
            .collect();
        assert_eq!(cells[0][..5], ["WRITE", "2000", "1000", "1000", "1000"]);
        assert_eq!(cells[1][0], "READ");
        assert_eq!(
            cells[2],
            [
                "total", "4000", "2000", "2000", "2000", "5.0", "5.0", "9.5", "9.9", "10.0", "10.0", "2.0",
                "0.00000", "2", "0", "0", "0", "0", "0"
            ]
        );
        assert_eq!(heading().split(',').count(), cells[2].len());
        assert_eq!(
            progress
                .interval(&measurements(&[Operation::Read]), second, second)
                .len(),
            1
        );
    }

    #[test]
    fn results_have_cassandra_stress_labels() {
        let text = results(&measurements(&[Operation::Write]), Duration::from_millis(500));
        for expected in [
            "Op rate                   :    2,000 op/s [WRITE: 2,000 op/s]",
            "Latency 99th percentile   :    9.904 ms [WRITE: 9.904 ms]",
            "Total partitions          :    1,000 [WRITE: 1,000]",
            "Total errors              :        1 [WRITE: 1]",
            "Total operation time      : 00:00:00",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn the_distribution_ends_with_everything() {
        let text = distribution(&measurements(&[Operation::Write]).total());
        assert!(
            text.contains("10.002 1.000000000000       1000            inf"),
            "{text}"
        );
        assert!(text.lines().count() > 10);
        assert_eq!(distribution(&Latencies::new()).lines().count(), 3);
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
    }
}
