//! Prometheus exposition (text format 0.0.4): one series per shard, or sums over the node with `?aggregate=node`.
//!
//! A scrape runs one short task on each shard. Series of one family stand together, with one HELP and TYPE line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ceto_node::metrics::{Sample, SampleKind, Samples};
use serde::Deserialize;

use crate::governor::GovernorFigures;
use crate::process;
use crate::shards::Shards;

/// The metrics server's routes.
pub fn router(shards: Shards, memory: Arc<GovernorFigures>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state((shards, memory))
}

#[derive(Deserialize)]
struct Parameters {
    aggregate: Option<String>,
}

async fn scrape(
    State((shards, memory)): State<(Shards, Arc<GovernorFigures>)>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let per_node = match parameters.aggregate.as_deref() {
        None => false,
        Some("node") => true,
        Some(other) => {
            let text = format!("unknown aggregate '{other}'; the only one is 'node'\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    match exposition(&shards, &memory, per_node).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, format!("{gone}\n")).into_response(),
    }
}

/// The text of a scrape.
async fn exposition(
    shards: &Shards,
    memory: &GovernorFigures,
    per_node: bool,
) -> Result<String, crate::shards::ShardGone> {
    let per_shard = shards
        .on_all(|node| Box::pin(async move { node.samples() }))
        .await?;
    let mut families = Families::default();
    for (shard, samples) in per_shard.into_iter().enumerate() {
        let label = (!per_node).then(|| shard.to_string());
        samples
            .into_iter()
            .for_each(|sample| families.add(sample, label.as_deref()));
    }
    process_samples(memory)
        .into_iter()
        .for_each(|sample| families.add(sample, None));
    Ok(families.text())
}

fn process_samples(memory: &GovernorFigures) -> Vec<Sample> {
    let figures = process::figures();
    let mut samples = Samples::default();
    memory.add_to(&mut samples);
    let gauge = |samples: &mut Samples, name, help, value| samples.gauge(name, help, &[], value);
    gauge(
        &mut samples,
        "process_resident_memory_bytes",
        "Resident memory.",
        figures.resident_bytes as f64,
    );
    gauge(
        &mut samples,
        "process_virtual_memory_bytes",
        "Address space.",
        figures.virtual_bytes as f64,
    );
    gauge(
        &mut samples,
        "process_open_fds",
        "Open file descriptors.",
        figures.open_files as f64,
    );
    gauge(
        &mut samples,
        "process_threads",
        "Threads.",
        figures.threads as f64,
    );
    let mut counter = |name, help, value: f64| {
        samples.0.push(Sample {
            name,
            help,
            kind: SampleKind::Counter,
            suffix: "",
            labels: Vec::new(),
            value,
        });
    };
    counter(
        "process_cpu_seconds_total",
        "Processor time, user and system.",
        figures.cpu_seconds,
    );
    counter(
        "process_read_bytes_total",
        "Bytes read from storage devices.",
        figures.read_bytes as f64,
    );
    counter(
        "process_write_bytes_total",
        "Bytes written to storage devices.",
        figures.write_bytes as f64,
    );
    samples.0
}

/// Families by name; each with its series in order of arrival.
#[derive(Default)]
struct Families(BTreeMap<&'static str, Family>);

struct Family {
    help: &'static str,
    kind: SampleKind,
    series: Vec<(String, f64)>,
    by_name: BTreeMap<String, usize>,
}

impl Families {
    /// Adds a sample; equal series (when shards are summed up) are added together.
    fn add(&mut self, sample: Sample, shard: Option<&str>) {
        let family = self.0.entry(sample.name).or_insert_with(|| Family {
            help: sample.help,
            kind: sample.kind,
            series: Vec::new(),
            by_name: BTreeMap::new(),
        });
        let series = series_name(&sample, shard);
        match family.by_name.get(&series) {
            Some(at) => {
                if let Some((_, value)) = family.series.get_mut(*at) {
                    *value += sample.value;
                }
            }
            None => {
                family.by_name.insert(series.clone(), family.series.len());
                family.series.push((series, sample.value));
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            let kind = match family.kind {
                SampleKind::Counter => "counter",
                SampleKind::Gauge => "gauge",
                SampleKind::Histogram => "histogram",
            };
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (series, value) in &family.series {
                let _ = writeln!(text, "{series} {value}");
            }
        }
        text
    }
}

fn series_name(sample: &Sample, shard: Option<&str>) -> String {
    let mut name = format!("{}{}", sample.name, sample.suffix);
    let shard = shard.map(|shard| ("shard", shard));
    let labels = shard
        .into_iter()
        .chain(sample.labels.iter().map(|(key, value)| (*key, value.as_str())));
    for (i, (key, value)) in labels.enumerate() {
        let value = value
            .replace('\\', r"\\")
            .replace('"', "\\\"")
            .replace('\n', r"\n");
        let _ = write!(name, "{}{key}=\"{value}\"", if i == 0 { '{' } else { ',' });
    }
    if name.contains('{') {
        name.push('}');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(value: u64) -> Vec<Sample> {
        let mut samples = Samples::default();
        samples.counter("ceto_requests_total", "Requests.", &[("kind", "a\"b")], value);
        samples.0
    }

    #[test]
    fn series_are_labelled_by_shard_or_summed() {
        let mut per_shard = Families::default();
        let mut per_node = Families::default();
        for (shard, value) in [("0", 1), ("1", 2)] {
            samples(value)
                .into_iter()
                .for_each(|sample| per_shard.add(sample, Some(shard)));
            samples(value)
                .into_iter()
                .for_each(|sample| per_node.add(sample, None));
        }
        assert_eq!(
            per_shard.text(),
            "# HELP ceto_requests_total Requests.\n# TYPE ceto_requests_total counter\n\
             ceto_requests_total{shard=\"0\",kind=\"a\\\"b\"} 1\nceto_requests_total{shard=\"1\",kind=\"a\\\"b\"} 2\n"
        );
        assert!(
            per_node
                .text()
                .ends_with("ceto_requests_total{kind=\"a\\\"b\"} 3\n")
        );
    }
}
