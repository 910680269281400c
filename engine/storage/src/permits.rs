//! Permits of reads that go to disk: a bound of their number and of the memory they hold.
//!
//! A read that finds all it needs in memory takes none. Another one waits in line until there is a permit, and has cost
//! nothing but its place there when it gives up; the line has a bound too. A read that was admitted goes on, also when it
//! comes to need more memory than was left: but then it ends its page early, and nobody else is admitted.
//!
//! Never: lets one read overtake another in the line; keeps a place for a read that was given up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use ceto_env::Tasks;

use crate::error::{Error, Result};
use crate::wait::{Event, either};

/// Memory that a read is expected to hold: its answer's beginning, and what is read ahead.
const EXPECTED_MEMORY: usize = 128 << 10;

/// Bounds of the reads of one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PermitLimits {
    /// Reads at the same time.
    pub(crate) count: usize,
    /// Bytes that they hold together.
    pub(crate) memory: usize,
    /// Reads that wait.
    pub(crate) queue: usize,
    /// How long a read waits at most.
    pub(crate) wait: Duration,
}

/// The permits of one shard.
pub(crate) struct ReadPermits(Rc<Inner>);

struct Inner {
    limits: PermitLimits,
    count: Cell<usize>,
    memory: Cell<usize>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
    admitted: Cell<u64>,
    queued: Cell<u64>,
    timed_out: Cell<u64>,
    refused: Cell<u64>,
    cut_short: Cell<u64>,
}

#[derive(Default)]
struct Waiter {
    is_admitted: Cell<bool>,
    is_gone: Cell<bool>,
    event: Event,
}

/// Figures of the reads of one shard that go to disk. Counts are since start, sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadStats {
    /// Reads that have a permit.
    pub running: u64,
    /// Bound of it.
    pub running_max: u64,
    /// Reads that wait for one.
    pub waiting: u64,
    /// Memory that reads with a permit hold.
    pub bytes: u64,
    /// Bound of it.
    pub bytes_max: u64,
    /// Reads that got a permit.
    pub admitted: u64,
    /// Of these, and of those that gave up: reads that had to wait.
    pub queued: u64,
    /// Reads that gave up waiting.
    pub timed_out: u64,
    /// Reads that found the line full.
    pub refused: u64,
    /// Pages that ended early for want of memory.
    pub cut_short: u64,
}

/// Allows one read; given back when it is dropped.
pub(crate) struct Permit {
    permits: Rc<Inner>,
    memory: Cell<usize>,
}

impl ReadPermits {
    pub(crate) fn new(limits: PermitLimits) -> ReadPermits {
        ReadPermits(Rc::new(Inner {
            limits,
            count: Cell::new(0),
            memory: Cell::new(0),
            queue: RefCell::default(),
            admitted: Cell::new(0),
            queued: Cell::new(0),
            timed_out: Cell::new(0),
            refused: Cell::new(0),
            cut_short: Cell::new(0),
        }))
    }

    /// Waits for a permit.
    pub(crate) async fn acquire(&self, tasks: &dyn Tasks) -> Result<Permit> {
        let inner = &self.0;
        if inner.line_is_empty() && inner.has_room() {
            return Ok(inner.admit());
        }
        if inner.queue.borrow().len() >= inner.limits.queue {
            add(&inner.refused);
            return Err(Error::Overloaded {
                limit: "waiting_reads_max",
                max: inner.limits.queue,
            });
        }
        add(&inner.queued);
        let place = Place {
            inner: inner.clone(),
            waiter: Rc::default(),
        };
        inner.queue.borrow_mut().push_back(place.waiter.clone());
        let admission = place.waiter.event.listen();
        either(admission, tasks.sleep(inner.limits.wait)).await;
        if place.waiter.is_admitted.replace(false) {
            return Ok(Permit {
                permits: inner.clone(),
                memory: Cell::new(EXPECTED_MEMORY),
            });
        }
        add(&inner.timed_out);
        Err(Error::ReadWaitedTooLong {
            waited: inner.limits.wait,
            running: inner.count.get(),
            memory: inner.memory.get(),
        })
    }

    /// Bytes that reads hold.
    pub(crate) fn memory(&self) -> usize {
        self.0.memory.get()
    }

    /// Figures.
    pub(crate) fn stats(&self) -> ReadStats {
        let inner = &self.0;
        let waiting = inner.queue.borrow().iter().filter(|w| !w.is_gone.get()).count();
        ReadStats {
            running: inner.count.get() as u64,
            running_max: inner.limits.count as u64,
            waiting: waiting as u64,
            bytes: inner.memory.get() as u64,
            bytes_max: inner.limits.memory as u64,
            admitted: inner.admitted.get(),
            queued: inner.queued.get(),
            timed_out: inner.timed_out.get(),
            refused: inner.refused.get(),
            cut_short: inner.cut_short.get(),
        }
    }
}

impl Inner {
    fn has_room(&self) -> bool {
        // One is always let in, whatever it will need.
        self.count.get() == 0
            || self.count.get() < self.limits.count
                && self.memory.get() + EXPECTED_MEMORY <= self.limits.memory
    }

    /// Nobody waits; those who gave up leave the line.
    fn line_is_empty(&self) -> bool {
        let mut queue = self.queue.borrow_mut();
        while queue.front().is_some_and(|first| first.is_gone.get()) {
            queue.pop_front();
        }
        queue.is_empty()
    }

    fn count_in(&self) {
        add(&self.admitted);
        self.count.set(self.count.get() + 1);
        self.memory.set(self.memory.get() + EXPECTED_MEMORY);
    }

    fn admit(self: &Rc<Self>) -> Permit {
        self.count_in();
        Permit {
            permits: self.clone(),
            memory: Cell::new(EXPECTED_MEMORY),
        }
    }

    fn give_back(&self, memory: usize) {
        self.count.set(self.count.get() - 1);
        self.memory.set(self.memory.get() - memory);
        while !self.line_is_empty() && self.has_room() {
            if let Some(first) = self.queue.borrow_mut().pop_front() {
                self.count_in();
                first.is_admitted.set(true);
                first.event.notify();
            }
        }
    }
}

impl Permit {
    /// Notes how much the read holds now beside what every read is expected to. False: that is too much for all reads
    /// together, and it should come to an end.
    pub(crate) fn hold(&self, more: usize) -> bool {
        let new = EXPECTED_MEMORY.max(more);
        let permits = &self.permits;
        let old = self.memory.replace(new);
        permits.memory.set(permits.memory.get() + new - old);
        new == EXPECTED_MEMORY || permits.memory.get() <= permits.limits.memory
    }

    /// The read's page was cut short.
    pub(crate) fn note_cut(&self) {
        add(&self.permits.cut_short);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.give_back(self.memory.get());
    }
}

/// A place in the line, given up when it is dropped.
struct Place {
    inner: Rc<Inner>,
    waiter: Rc<Waiter>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiter.is_gone.set(true);
        self.inner.line_is_empty();
        // Admitted in the moment in which it was given up.
        if self.waiter.is_admitted.get() {
            self.inner.give_back(EXPECTED_MEMORY);
        }
    }
}

fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ceto_env::{Env, TaskQueue};

    use super::*;
    use crate::testing::machine;

    fn limits(count: usize, memory: usize, queue: usize) -> PermitLimits {
        PermitLimits {
            count,
            memory,
            queue,
            wait: Duration::from_secs(5),
        }
    }

    #[test]
    fn reads_wait_in_line_and_give_up_without_a_trace() {
        let (_, env) = machine(1);
        env.block_on(async {
            let permits = Rc::new(ReadPermits::new(limits(2, 1 << 30, 3)));
            let first = permits.acquire(env.tasks()).await.unwrap();
            let second = permits.acquire(env.tasks()).await.unwrap();
            let order = Rc::new(RefCell::new(Vec::new()));
            for number in 0..4 {
                let (permits, order, own) = (permits.clone(), order.clone(), env.clone());
                let task = async move {
                    let permit = permits.acquire(own.tasks()).await;
                    order.borrow_mut().push((number, permit.is_ok()));
                    own.tasks().sleep(Duration::from_secs(1)).await;
                };
                env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
                env.tasks().sleep(Duration::from_millis(1)).await;
            }
            // The line holds three.
            assert_eq!(*order.borrow(), [(3, false)]);
            let stats = permits.stats();
            assert_eq!((stats.running, stats.waiting, stats.refused), (2, 3, 1));
            drop(first);
            env.tasks().sleep(Duration::from_millis(10)).await;
            assert_eq!(order.borrow()[1..], [(0, true)]);
            env.tasks().sleep(Duration::from_secs(2)).await;
            assert_eq!(order.borrow()[1..], [(0, true), (1, true), (2, true)]);
            drop(second);
            env.tasks().sleep(Duration::from_secs(5)).await;
            assert_eq!(permits.stats().running, 0);
            assert_eq!(permits.memory(), 0);
        })
        .unwrap();
        env.kill();
    }

    #[test]
    fn a_read_that_waited_too_long_leaves_the_line() {
        let (_, env) = machine(2);
        env.block_on(async {
            let permits = ReadPermits::new(limits(1, 1 << 30, 10));
            let first = permits.acquire(env.tasks()).await.unwrap();
            let error = permits.acquire(env.tasks()).await.err().unwrap();
            assert!(error.to_string().contains("concurrent_reads"), "{error}");
            // One that is dropped while it waits, as when a client is gone.
            let mut given_up = Box::pin(permits.acquire(env.tasks()));
            either(
                async {
                    let _ = given_up.as_mut().await;
                },
                env.tasks().sleep(Duration::from_secs(1)),
            )
            .await;
            drop(given_up);
            let stats = permits.stats();
            assert_eq!((stats.waiting, stats.timed_out, stats.queued), (0, 1, 2));
            drop(first);
            drop(permits.acquire(env.tasks()).await.unwrap());
            assert_eq!((permits.stats().running, permits.memory()), (0, 0));
        })
        .unwrap();
        env.kill();
    }

    #[test]
    fn memory_bounds_them_too() {
        let (_, env) = machine(3);
        env.block_on(async {
            let permits = ReadPermits::new(limits(100, 4 * EXPECTED_MEMORY, 0));
            let first = permits.acquire(env.tasks()).await.unwrap();
            let second = permits.acquire(env.tasks()).await.unwrap();
            assert!(first.hold(1000));
            assert!(first.hold(3 * EXPECTED_MEMORY));
            // All is taken: nobody else comes in, and who wants more is told to stop.
            assert!(permits.acquire(env.tasks()).await.is_err());
            assert!(!second.hold(2 * EXPECTED_MEMORY));
            drop(first);
            assert!(second.hold(2 * EXPECTED_MEMORY));
            let third = permits.acquire(env.tasks()).await.unwrap();
            drop((second, third));
            // One is let in however little there is.
            let none = ReadPermits::new(limits(1, 0, 0));
            let only = none.acquire(env.tasks()).await.unwrap();
            assert!(only.hold(1000));
        })
        .unwrap();
        env.kill();
    }
}
