//! What the links of a shard count.

use ceto_internode::handshake::Channel;

use super::{Node, Peers};
use crate::metrics::{Counter, Samples};

/// Counters of one shard's links.
#[derive(Default)]
pub(super) struct PeerFigures {
    pub(super) dialled: Counter,
    pub(super) dials_failed: Counter,
    pub(super) accepted: Counter,
    /// Links refused, here or there, because the nodes are not of one cluster, or not of versions that fit.
    pub(super) refused: Counter,
    pub(super) lost: Counter,
    /// Links ended for bytes that mean nothing.
    pub(super) broken: Counter,
    /// Times an incoming link was not read for its bounds.
    pub(super) paused: Counter,
    /// Messages not taken because as much waited as may.
    pub(super) overflows: Counter,
    /// Messages that found no link.
    pub(super) unreachable: Counter,
    /// Control messages that found the control thread's queue full.
    pub(super) control_dropped: Counter,
    pub(super) answers_dropped: Counter,
    pub(super) messages_sent: [Counter; 3],
    pub(super) messages_received: [Counter; 3],
    pub(super) bytes_sent: [Counter; 3],
    pub(super) bytes_received: [Counter; 3],
}

/// The place of a channel's counters.
pub(super) fn place(channel: Channel) -> usize {
    match channel {
        Channel::Statements => 0,
        Channel::Bulk => 1,
        Channel::Control => 2,
    }
}

impl Peers {
    /// Adds everything to `samples`.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        let figures = &self.figures;
        for channel in Channel::ALL {
            let (at, labels) = (place(channel), [("channel", channel.name())]);
            for (name, help, counters) in [
                (
                    "ceto_peer_messages_sent_total",
                    "Messages sent to other nodes.",
                    &figures.messages_sent,
                ),
                (
                    "ceto_peer_messages_received_total",
                    "Messages received from other nodes.",
                    &figures.messages_received,
                ),
                (
                    "ceto_peer_bytes_sent_total",
                    "Bytes of messages sent to other nodes, before compression.",
                    &figures.bytes_sent,
                ),
                (
                    "ceto_peer_bytes_received_total",
                    "Bytes of messages received from other nodes, after decompression.",
                    &figures.bytes_received,
                ),
            ] {
                samples.counter(name, help, &labels, counters[at].get());
            }
        }
        for (event, counter) in [
            ("dialled", &figures.dialled),
            ("dial_failed", &figures.dials_failed),
            ("accepted", &figures.accepted),
            ("refused", &figures.refused),
            ("lost", &figures.lost),
            ("broken", &figures.broken),
            ("paused", &figures.paused),
        ] {
            samples.counter(
                "ceto_peer_links_total",
                "What has happened to links between nodes.",
                &[("event", event)],
                counter.get(),
            );
        }
        for (reason, counter) in [
            ("queue_full", &figures.overflows),
            ("no_link", &figures.unreachable),
            ("control_queue_full", &figures.control_dropped),
            ("answer_without_link", &figures.answers_dropped),
        ] {
            samples.counter(
                "ceto_peer_messages_dropped_total",
                "Messages between nodes that were not sent, or not taken.",
                &[("reason", reason)],
                counter.get(),
            );
        }
        samples.gauge(
            "ceto_peer_calls_waiting",
            "Calls to other nodes that wait for an answer: hints, truncations, counters led elsewhere.",
            &[],
            self.calls.len() as f64,
        );
        let outgoing = self.outgoing.borrow();
        let open = outgoing.values().filter(|link| link.is_open()).count();
        let queued: usize = outgoing.values().map(|link| link.queued()).sum();
        let direction = |name| [("direction", name)];
        let (out, into) = (direction("outgoing"), direction("incoming"));
        let help = "Open links between nodes.";
        samples.gauge("ceto_peer_links_open", help, &out, open as f64);
        samples.gauge(
            "ceto_peer_links_open",
            help,
            &into,
            self.incoming_open.get() as f64,
        );
        samples.gauge(
            "ceto_peer_queue_bytes",
            "Bytes that wait on outgoing links.",
            &[],
            queued as f64,
        );
    }
}

impl Node {
    pub(super) fn count_sent(&self, channel: Channel, bytes: usize) {
        let (figures, at) = (&self.peers.figures, place(channel));
        figures.messages_sent[at].increment();
        figures.bytes_sent[at].add(bytes as u64);
    }

    pub(super) fn count_received(&self, channel: Channel, bytes: usize) {
        let (figures, at) = (&self.peers.figures, place(channel));
        figures.messages_received[at].increment();
        figures.bytes_received[at].add(bytes as u64);
    }
}
