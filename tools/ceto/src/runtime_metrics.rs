//! The event loop's counters under their Prometheus names.

use ceto_env::TaskQueue;
use ceto_node::metrics::Samples;
use ceto_runtime::{Activity, RuntimeMetrics};

/// Adds one shard's counters.
pub(crate) fn add(metrics: &RuntimeMetrics, samples: &mut Samples) {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let count = |samples: &mut Samples, name, help, value: u64| samples.counter(name, help, &[], value);
    count(
        samples,
        "ceto_turns_total",
        "Turns of the event loop.",
        metrics.turns.get(),
    );
    count(
        samples,
        "ceto_parks_total",
        "Times the shard slept in the kernel.",
        metrics.parks.get(),
    );
    count(
        samples,
        "ceto_memory_give_backs_total",
        "Times an idle shard gave freed memory back to the kernel.",
        metrics.memory_give_backs.get(),
    );
    samples.seconds(
        "ceto_parked_seconds_total",
        "Time asleep.",
        &[],
        seconds(metrics.parked_nanos.get()),
    );
    let longest = seconds(metrics.longest_turn_nanos.get());
    samples.gauge(
        "ceto_longest_turn_seconds",
        "Longest turn since start.",
        &[],
        longest,
    );
    for activity in Activity::ALL {
        let labels = [("activity", activity.name())];
        let (stalls, run) = (
            &metrics.stalls[activity.index()],
            &metrics.run_nanos[activity.index()],
        );
        samples.counter(
            "ceto_stalls_total",
            "Turns over 10 ms, by what took most of it.",
            &labels,
            stalls.get(),
        );
        samples.seconds(
            "ceto_activity_seconds_total",
            "Time run, by activity.",
            &labels,
            seconds(run.get()),
        );
    }
    for (at, queue) in TaskQueue::QUEUES.iter().enumerate() {
        let labels = [("queue", queue.name())];
        let polled = metrics.tasks_polled[at].get();
        samples.counter("ceto_task_queue_polls_total", "Tasks polled.", &labels, polled);
        let ready = metrics.tasks_ready[at].get() as f64;
        samples.gauge("ceto_task_queue_ready", "Tasks ready to run.", &labels, ready);
        samples.gauge(
            "ceto_task_queue_shares",
            "Shares.",
            &labels,
            metrics.shares[at].get() as f64,
        );
    }
    samples.gauge(
        "ceto_tasks",
        "Tasks alive.",
        &[],
        metrics.tasks_alive.get() as f64,
    );
    count(
        samples,
        "ceto_mailbox_sent_total",
        "Messages to other shards: hops.",
        metrics.mailbox_sent.get(),
    );
    let received = metrics.mailbox_received.get();
    count(
        samples,
        "ceto_mailbox_received_total",
        "Messages from shards and the control thread.",
        received,
    );
    count(
        samples,
        "ceto_mailbox_full_total",
        "Messages refused for lack of room.",
        metrics.mailbox_full.get(),
    );
    let overflow = metrics.mailbox_overflow.get() as f64;
    samples.gauge(
        "ceto_mailbox_depth",
        "Messages that wait at the sender.",
        &[],
        overflow,
    );
    count(
        samples,
        "ceto_wakeups_sent_total",
        "Other shards woken from sleep.",
        metrics.wakeups_sent.get(),
    );
    add_network(metrics, samples);
    add_disk(metrics, samples);
}

fn add_network(metrics: &RuntimeMetrics, samples: &mut Samples) {
    let open = metrics.connections_open.get() as f64;
    samples.gauge("ceto_network_connections", "Open sockets.", &[], open);
    let mut count = |name, help, value: u64| samples.counter(name, help, &[], value);
    count(
        "ceto_network_accepted_total",
        "Sockets accepted.",
        metrics.connections_accepted.get(),
    );
    count(
        "ceto_network_closed_total",
        "Sockets closed.",
        metrics.connections_closed.get(),
    );
    count(
        "ceto_network_refused_total",
        "Connections closed as they came, to keep file descriptors for files.",
        metrics.connections_refused.get(),
    );
    count(
        "ceto_network_accept_errors_total",
        "Failed accepts.",
        metrics.accept_errors.get(),
    );
    count(
        "ceto_network_received_bytes_total",
        "Bytes received.",
        metrics.bytes_received.get(),
    );
    count(
        "ceto_network_sent_bytes_total",
        "Bytes sent.",
        metrics.bytes_sent.get(),
    );
    count(
        "ceto_network_receives_total",
        "Receive completions with data.",
        metrics.receives.get(),
    );
    count(
        "ceto_network_sends_total",
        "Send operations.",
        metrics.sends.get(),
    );
    let shortages = metrics.receive_buffer_shortages.get();
    count(
        "ceto_network_receive_buffer_shortages_total",
        "Times no receive buffer was free.",
        shortages,
    );
    count(
        "ceto_network_output_overflows_total",
        "Connections cut for unread output.",
        metrics.output_overflows.get(),
    );
}

fn add_disk(metrics: &RuntimeMetrics, samples: &mut Samples) {
    let mut count = |name, help, value: u64| samples.counter(name, help, &[], value);
    count(
        "ceto_disk_reads_total",
        "Reads from files.",
        metrics.disk_reads.get(),
    );
    count(
        "ceto_disk_read_bytes_total",
        "Bytes read from files.",
        metrics.disk_read_bytes.get(),
    );
    count(
        "ceto_disk_writes_total",
        "Writes to files.",
        metrics.disk_writes.get(),
    );
    count(
        "ceto_disk_written_bytes_total",
        "Bytes written to files.",
        metrics.disk_written_bytes.get(),
    );
    count(
        "ceto_disk_syncs_total",
        "Syncs of files.",
        metrics.disk_syncs.get(),
    );
    count(
        "ceto_disk_errors_total",
        "Failed disk operations.",
        metrics.disk_errors.get(),
    );
}
