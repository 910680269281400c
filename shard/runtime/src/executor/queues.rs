//! The run queues: which task queue runs next.
//!
//! Each queue has a virtual time that advances by the time its tasks ran divided by its shares; the ready queue with
//! the least virtual time runs. A queue that becomes ready after a pause starts at the least virtual time of those that
//! were busy, so that sleeping earns no credit. Ties go to the earlier queue, and statements come first.

use std::collections::VecDeque;
use std::time::Duration;

use ceto_env::TaskQueue;

use super::TaskId;
use crate::metrics::queue_index;

const COUNT: usize = TaskQueue::QUEUES.len();

/// Bounds of a queue's shares.
const MIN_SHARES: u32 = 1;
const MAX_SHARES: u32 = 1000;

struct RunQueue {
    ready: VecDeque<TaskId>,
    shares: u32,
    /// Nanoseconds run, times [`MAX_SHARES`], divided by the shares of the time.
    virtual_time: u64,
}

/// Ready tasks of one shard.
pub(super) struct RunQueues {
    queues: [RunQueue; COUNT],
    /// Virtual time that a queue starts from when it becomes ready.
    floor: u64,
}

impl RunQueues {
    pub(super) fn new() -> Self {
        let queues = TaskQueue::QUEUES.map(|queue| RunQueue {
            ready: VecDeque::new(),
            shares: queue.initial_shares().clamp(MIN_SHARES, MAX_SHARES),
            virtual_time: 0,
        });
        Self { queues, floor: 0 }
    }

    pub(super) fn push(&mut self, queue: TaskQueue, task: TaskId) {
        let queue = &mut self.queues[queue_index(queue)];
        if queue.ready.is_empty() {
            queue.virtual_time = queue.virtual_time.max(self.floor);
        }
        queue.ready.push_back(task);
    }

    pub(super) fn pop(&mut self, queue: TaskQueue) -> Option<TaskId> {
        self.queues[queue_index(queue)].ready.pop_front()
    }

    /// The queue that should run now.
    pub(super) fn next(&mut self) -> Option<TaskQueue> {
        let (place, queue) = self
            .queues
            .iter()
            .enumerate()
            .filter(|(_, queue)| !queue.ready.is_empty())
            .min_by_key(|(_, queue)| queue.virtual_time)?;
        self.floor = self.floor.max(queue.virtual_time);
        Some(TaskQueue::QUEUES[place])
    }

    /// Charges a queue for time that its tasks ran.
    pub(super) fn charge(&mut self, queue: TaskQueue, ran: Duration) {
        let queue = &mut self.queues[queue_index(queue)];
        let cost = ran.as_nanos() as u64 * u64::from(MAX_SHARES) / u64::from(queue.shares);
        queue.virtual_time = queue.virtual_time.saturating_add(cost);
    }

    pub(super) fn set_shares(&mut self, queue: TaskQueue, shares: u32) -> u32 {
        let shares = shares.clamp(MIN_SHARES, MAX_SHARES);
        self.queues[queue_index(queue)].shares = shares;
        shares
    }

    pub(super) fn shares(&self, queue: TaskQueue) -> u32 {
        self.queues[queue_index(queue)].shares
    }

    pub(super) fn ready(&self, queue: TaskQueue) -> usize {
        self.queues[queue_index(queue)].ready.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.ready.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_micros(200);

    /// Runs the two queues, both always ready, and counts their turns.
    fn turns(queues: &mut RunQueues, first: TaskQueue, second: TaskQueue, total: usize) -> (usize, usize) {
        let mut counts = (0, 0);
        for _ in 0..total {
            for queue in [first, second] {
                if queues.ready(queue) == 0 {
                    queues.push(queue, TaskId::default());
                }
            }
            let next = queues.next().expect("both are ready");
            queues.pop(next);
            queues.charge(next, TICK);
            if next == first {
                counts.0 += 1;
            } else {
                counts.1 += 1;
            }
        }
        counts
    }

    #[test]
    fn time_follows_shares() {
        let mut queues = RunQueues::new();
        let (statement, compaction) = turns(&mut queues, TaskQueue::Statement, TaskQueue::Compaction, 1100);
        assert!((990..=1010).contains(&statement), "{statement} : {compaction}");
        queues.set_shares(TaskQueue::Compaction, 1000);
        let (statement, compaction) = turns(&mut queues, TaskQueue::Statement, TaskQueue::Compaction, 1000);
        assert!((480..=520).contains(&statement), "{statement} : {compaction}");
    }

    #[test]
    fn a_pause_earns_no_credit() {
        let mut queues = RunQueues::new();
        for _ in 0..1000 {
            queues.push(TaskQueue::Statement, TaskId::default());
            let next = queues.next().expect("one is ready");
            queues.pop(next);
            queues.charge(next, TICK);
        }
        let (statement, control) = turns(&mut queues, TaskQueue::Statement, TaskQueue::Control, 300);
        assert!((195..=205).contains(&statement), "{statement} : {control}");
    }

    #[test]
    fn shares_are_clamped() {
        let mut queues = RunQueues::new();
        assert_eq!(queues.set_shares(TaskQueue::Control, 0), 1);
        assert_eq!(queues.set_shares(TaskQueue::Control, 5000), 1000);
        assert_eq!(queues.shares(TaskQueue::Control), 1000);
    }
}
