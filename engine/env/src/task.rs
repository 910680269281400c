//! Tasks of one shard, in queues with shares (scheduling groups).
//!
//! A queue that has work gets processor time in proportion to its shares; an idle queue costs nothing. A task that
//! loops over data (compaction, flush, a long scan) calls [`Tasks::yield_if_due`] once per item: it is cheap, and
//! gives the processor away after 200 us.

use std::time::Duration;

use crate::LocalFuture;

/// The task queues of a shard; each is a line in the metrics `task_queue_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TaskQueue {
    /// Client requests and answers to peers: 1000 shares.
    Statement,
    /// Memtables to sstables: 200 shares, raised under memory pressure.
    MemtableFlush,
    /// Compaction: 50 to 1000 shares, set by the backlog controller.
    Compaction,
    /// Streaming and repair: 200 shares.
    Streaming,
    /// Snapshots, file removal, cleanup: 100 shares.
    Maintenance,
    /// Mailbox of the control thread, schema changes, metrics: 500 shares.
    Control,
}

impl TaskQueue {
    /// Every queue.
    pub const QUEUES: [TaskQueue; 6] = [
        Self::Statement,
        Self::MemtableFlush,
        Self::Compaction,
        Self::Streaming,
        Self::Maintenance,
        Self::Control,
    ];

    /// Name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Statement => "statement",
            Self::MemtableFlush => "memtable_flush",
            Self::Compaction => "compaction",
            Self::Streaming => "streaming",
            Self::Maintenance => "maintenance",
            Self::Control => "control",
        }
    }

    /// Shares at start.
    pub fn initial_shares(self) -> u32 {
        match self {
            Self::Statement => 1000,
            Self::MemtableFlush | Self::Streaming => 200,
            Self::Compaction | Self::Maintenance => 100,
            Self::Control => 500,
        }
    }
}

/// Spawning, sleeping, yielding.
pub trait Tasks {
    /// Starts a task that runs to its end on its own. A panic in it ends the process.
    fn spawn(&self, queue: TaskQueue, task: LocalFuture<'static, ()>);
    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()>;
    /// None while the current task has run for less than 200 us since it was last scheduled; else a future that
    /// lets the other queues run. So the cheap path allocates nothing:
    /// `if let Some(turn) = tasks.yield_if_due() { turn.await }`.
    fn yield_if_due(&self) -> Option<LocalFuture<'static, ()>>;
    /// Changes a queue's shares (1 to 1000).
    fn set_shares(&self, queue: TaskQueue, shares: u32);
}
