//! What a shard counts of streaming.

use std::cell::Cell;

use super::Streams;
use crate::metrics::{Counter, Samples};

/// Counters of one shard.
#[derive(Default)]
pub(super) struct StreamFigures {
    pub(super) pages_sent: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) pages_received: Counter,
    pub(super) bytes_received: Counter,
    pub(super) rows_received: Counter,
    /// Pages asked for again.
    pub(super) retries: Counter,
    /// Pulls that run.
    pub(super) pulls: Cell<usize>,
}

impl Streams {
    /// Adds everything to `samples`.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        let figures = &self.figures;
        for (direction, pages, bytes) in [
            ("outgoing", &figures.pages_sent, &figures.bytes_sent),
            ("incoming", &figures.pages_received, &figures.bytes_received),
        ] {
            let labels = [("direction", direction)];
            let help = "Pages of tables streamed to other nodes and from them.";
            samples.counter("ceto_stream_pages_total", help, &labels, pages.get());
            let help = "Bytes of these pages.";
            samples.counter("ceto_stream_bytes_total", help, &labels, bytes.get());
        }
        samples.counter(
            "ceto_stream_rows_received_total",
            "Rows streamed from other nodes and applied.",
            &[],
            figures.rows_received.get(),
        );
        samples.counter(
            "ceto_stream_retries_total",
            "Pages asked for again: the link was lost, the source busy, or they could not be applied.",
            &[],
            figures.retries.get(),
        );
        samples.gauge(
            "ceto_stream_pulls_running",
            "Tables that are being pulled from other nodes.",
            &[],
            figures.pulls.get() as f64,
        );
        samples.gauge(
            "ceto_stream_pages_asked",
            "Pages asked for and not here yet.",
            &[],
            self.pages.len() as f64,
        );
        samples.gauge(
            "ceto_stream_fetches_waiting",
            "Pages that other nodes wait for.",
            &[],
            self.source.waiting() as f64,
        );
    }
}
