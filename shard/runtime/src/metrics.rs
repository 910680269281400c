//! Counters of one shard's runtime: written by the shard, read by any thread.
//!
//! Every counter has one writer (its shard) unless its line says otherwise, so adding is a plain load and store.
//! A reader sees each counter by itself, never a consistent set: sums may be off by the turn under way.

use std::sync::atomic::{AtomicU64, Ordering};

use ceto_env::TaskQueue;

/// A number that only its shard writes.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// For the few counters that several threads write.
    pub(crate) fn add_shared(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn subtract_shared(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// What a shard's time goes to: the six task queues, then what the runtime itself does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activity {
    /// Tasks of one queue.
    Queue(TaskQueue),
    /// Protocol calls: bytes in, drained, closed.
    Network,
    /// Messages of other shards and of the control thread.
    Mailbox,
}

impl Activity {
    /// Number of activities.
    pub const COUNT: usize = 8;

    /// Every activity, in the order of [`RuntimeMetrics`]' arrays.
    pub const ALL: [Activity; Self::COUNT] = [
        Self::Queue(TaskQueue::Statement),
        Self::Queue(TaskQueue::MemtableFlush),
        Self::Queue(TaskQueue::Compaction),
        Self::Queue(TaskQueue::Streaming),
        Self::Queue(TaskQueue::Maintenance),
        Self::Queue(TaskQueue::Control),
        Self::Network,
        Self::Mailbox,
    ];

    /// Place in [`RuntimeMetrics`]' arrays.
    pub fn index(self) -> usize {
        match self {
            Self::Queue(queue) => queue_index(queue),
            Self::Network => 6,
            Self::Mailbox => 7,
        }
    }

    /// Name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue(queue) => queue.name(),
            Self::Network => "network",
            Self::Mailbox => "mailbox",
        }
    }
}

/// Place of a task queue in arrays.
pub(crate) fn queue_index(queue: TaskQueue) -> usize {
    match queue {
        TaskQueue::Statement => 0,
        TaskQueue::MemtableFlush => 1,
        TaskQueue::Compaction => 2,
        TaskQueue::Streaming => 3,
        TaskQueue::Maintenance => 4,
        TaskQueue::Control => 5,
    }
}

/// Counters and gauges of one shard.
#[derive(Default, Debug)]
pub struct RuntimeMetrics {
    /// Turns of the event loop.
    pub turns: Counter,
    /// Times the shard slept in the kernel.
    pub parks: Counter,
    /// Nanoseconds asleep.
    pub parked_nanos: Counter,
    /// Times freed memory was given back to the kernel.
    pub memory_give_backs: Counter,
    /// Times the shard found work while it spun instead of sleeping.
    pub spin_hits: Counter,
    /// Turns over the stall limit, by the activity that took most of the turn ([`Activity::ALL`]).
    pub stalls: [Counter; Activity::COUNT],
    /// Longest turn since start, in nanoseconds.
    pub longest_turn_nanos: Counter,
    /// Nanoseconds run, by activity.
    pub run_nanos: [Counter; Activity::COUNT],
    /// Tasks polled, by task queue ([`TaskQueue::QUEUES`]).
    pub tasks_polled: [Counter; 6],
    /// Gauge: tasks ready to run, by task queue.
    pub tasks_ready: [Counter; 6],
    /// Gauge: shares, by task queue.
    pub shares: [Counter; 6],
    /// Gauge: tasks alive.
    pub tasks_alive: Counter,
    /// Gauge: timers set.
    pub timers: Counter,

    /// Messages handed to shards. Over all shards, sent less received is what waits in the mailboxes.
    pub mailbox_sent: Counter,
    /// Messages taken in from shards.
    pub mailbox_received: Counter,
    /// Messages taken in from the control thread.
    pub control_received: Counter,
    /// Messages refused because ring and overflow were full.
    pub mailbox_full: Counter,
    /// Gauge: messages that wait in this shard's overflow.
    pub mailbox_overflow: Counter,
    /// Other shards woken from sleep by this shard.
    pub wakeups_sent: Counter,
    /// Wake-ups of this shard from sleep by threads that are no shards. Several writers.
    pub wakeups_received: Counter,

    /// Connections taken over from the listening sockets.
    pub connections_accepted: Counter,
    /// Gauge: open connections, with those on their way from the accepting shard. Several writers.
    pub connections_open: Counter,
    /// Connections closed.
    pub connections_closed: Counter,
    /// Connections closed as they came because there were as many as may be.
    pub connections_refused: Counter,
    /// Failed accepts (no file descriptors left and the like).
    pub accept_errors: Counter,
    /// Bytes received.
    pub bytes_received: Counter,
    /// Bytes handed to the kernel.
    pub bytes_sent: Counter,
    /// Receive completions with data.
    pub receives: Counter,
    /// Send operations.
    pub sends: Counter,
    /// Times the kernel found no receive buffer.
    pub receive_buffer_shortages: Counter,
    /// Connections cut because their peer did not read and the output bound was reached.
    pub output_overflows: Counter,
    /// Times receiving was held back because much output waited.
    pub output_pauses: Counter,

    /// Reads from files.
    pub disk_reads: Counter,
    /// Bytes read from files.
    pub disk_read_bytes: Counter,
    /// Writes to files.
    pub disk_writes: Counter,
    /// Bytes written to files.
    pub disk_written_bytes: Counter,
    /// Syncs of files.
    pub disk_syncs: Counter,
    /// Calls done on the helper threads (open, rename, list...).
    pub disk_calls: Counter,
    /// Failed disk operations of any kind.
    pub disk_errors: Counter,
}
