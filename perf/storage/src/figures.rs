//! Figures of several rounds, and ratios within them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::protocol::{Engine, Report};
use crate::rows::KEY_SIZE;

/// By name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// What a report says, in the units of the results.
pub(crate) fn figures_of(report: &Report, rows: u64, value_size: usize) -> Figures {
    let row_size = (KEY_SIZE + value_size) as f64;
    let operations = report.operations as f64;
    let cost = &report.cost;
    let mut figures = Figures::new();
    let mut set = |name: &str, value: f64| {
        if value.is_finite() {
            figures.insert(name.to_owned(), value);
        }
    };
    set("operations_per_second", operations / cost.seconds);
    set("cpu_us_per_operation", cost.cpu_seconds * 1e6 / operations);
    set(
        "write_amplification",
        cost.written_bytes as f64 / (operations * row_size),
    );
    set(
        "read_amplification",
        cost.read_bytes as f64 / (operations * row_size),
    );
    set(
        "space_amplification",
        report.data_bytes as f64 / (rows as f64 * row_size),
    );
    if report.accepted_seconds > 0.0 {
        set("accepted_per_second", operations / report.accepted_seconds);
    }
    if let Some(allocations) = report.allocations {
        set("allocations_per_operation", allocations as f64 / operations);
    }
    for (name, value) in &report.figures {
        if let Some(value) = value.as_f64() {
            set(name, value);
        }
    }
    figures
}

/// Rounds of one workload: of each engine its figures.
#[derive(Default)]
pub(crate) struct Rounds(BTreeMap<&'static str, Vec<Figures>>);

impl Rounds {
    pub(crate) fn add(&mut self, engine: Engine, figures: Figures) {
        self.0.entry(engine.name()).or_default().push(figures);
    }

    /// Median, lowest and highest of each of the figures named, engine by engine, and the ratios of ours to the better
    /// peer's.
    pub(crate) fn summary(&self, names: &[&str]) -> Map<String, Value> {
        let mut all = Map::new();
        for (engine, rounds) in &self.0 {
            let mut own = Map::new();
            for name in names {
                let values = rounds.iter().filter_map(|figures| figures.get(*name).copied());
                if let Some(spread) = spread(values.collect()) {
                    own.insert((*name).to_owned(), spread);
                }
            }
            all.insert((*engine).to_owned(), own.into());
        }
        let mut ratios = Map::new();
        for name in names {
            if let Some(spread) = spread(self.ratios(name)) {
                ratios.insert((*name).to_owned(), spread);
            }
        }
        if !ratios.is_empty() {
            all.insert("ratio".to_owned(), ratios.into());
        }
        all
    }

    /// Round by round: ours over that of the better peer.
    fn ratios(&self, name: &str) -> Vec<f64> {
        let rounds = |engine: &str| self.0.get(engine).map_or(&[][..], Vec::as_slice);
        let ours = rounds(Engine::Ceto.name()).iter();
        let ratios = ours.enumerate().filter_map(|(round, figures)| {
            let peers = [Engine::Rocksdb, Engine::Fjall].map(Engine::name);
            let peers = peers
                .iter()
                .filter_map(|peer| rounds(peer).get(round)?.get(name).copied());
            let best = peers.reduce(if more_is_better(name) { f64::max } else { f64::min })?;
            Some(figures.get(name)? / best)
        });
        ratios.filter(|ratio| ratio.is_finite()).collect()
    }
}

fn more_is_better(name: &str) -> bool {
    name.ends_with("_per_second") || name.ends_with("_per_cpu_second")
}

fn spread(mut values: Vec<f64>) -> Option<Value> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.first()?, values.last()?);
    let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    Some(json!({"median": rounded(median), "low": rounded(*low), "high": rounded(*high)}))
}

/// To four digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_to_the_better_peer_of_the_same_round() {
        let mut rounds = Rounds::default();
        for (engine, rate, cpu) in [
            (Engine::Ceto, 100.0, 2.0),
            (Engine::Rocksdb, 50.0, 1.0),
            (Engine::Fjall, 80.0, 4.0),
        ] {
            let figures = [("a_per_second".to_owned(), rate), ("cpu".to_owned(), cpu)];
            rounds.add(engine, figures.into());
        }
        let summary = rounds.summary(&["a_per_second", "cpu"]);
        assert_eq!(summary["ratio"]["a_per_second"]["median"], 1.25);
        assert_eq!(summary["ratio"]["cpu"]["median"], 2.0);
        assert_eq!(summary["fjall"]["cpu"]["low"], 4.0);
    }

    #[test]
    fn a_median_stands_between_the_middle_ones() {
        assert_eq!(
            spread(vec![4.0, 1.0, 2.0, 3.0]).expect("not empty")["median"],
            2.5
        );
        assert_eq!(spread(vec![]), None);
    }
}
