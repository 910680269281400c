//! A world in memory: virtual clock, seeded random numbers, a disk that fails as disks do, an executor on this thread.
//!
//! Everything that happens follows from the seed: which ready task runs next, how long a disk call takes, which one
//! fails, what a crash leaves behind. So a test that failed fails again. Each concern draws from a stream of its own, so
//! that a change in one leaves the others as they were. Never: real time passes, a real file is touched.
//!
//! The [`MemoryDisk`] outlives the [`MemoryEnv`] that uses it, as a machine's disk outlives its processes.
//!
//! Read next: `files` for what a crash does to files and names, `faults` for what may go wrong while running.

mod access;
mod disk;
mod executor;
mod faults;
mod files;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use disk::MemoryDisk;
use executor::Executor;
pub use faults::{Fault, Flaw, Latency, Operation, Spread};

use crate::{Clock, Disk, Env, LocalFuture, TaskQueue, Tasks};

/// A seeded source of random numbers (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Cell::new(seed))
    }

    /// The stream of `seed` for one concern.
    pub(crate) fn salted(seed: u64, concern: &str) -> Random {
        let salt = concern.bytes().fold(0xcbf2_9ce4_8422_2325u64, |salt, byte| {
            (salt ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Random::new(Random::new(seed ^ salt).next())
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound` (0 for a bound of 0).
    pub(crate) fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True in half of all cases.
    pub(crate) fn toss(&self) -> bool {
        self.below(2) == 0
    }
}

/// An environment whose outside is memory: one process on one machine.
pub struct MemoryEnv {
    clock: MemoryClock,
    disk: Rc<MemoryDisk>,
    executor: Executor,
    random: Random,
}

impl MemoryEnv {
    /// A process on `disk`, with its own executor and random numbers; its clock begins anew.
    pub fn new(disk: Rc<MemoryDisk>, seed: u64) -> Rc<MemoryEnv> {
        MemoryEnv::with_clock(disk, seed, MemoryClock::new())
    }

    /// The next process on the same machine: nothing of this one is left, but time goes on.
    pub fn reboot(&self, seed: u64) -> Rc<MemoryEnv> {
        MemoryEnv::with_clock(self.disk.clone(), seed, self.clock.clone())
    }

    fn with_clock(disk: Rc<MemoryDisk>, seed: u64, clock: MemoryClock) -> Rc<MemoryEnv> {
        let executor = Executor::new(seed, clock.elapsed.clone());
        disk.attach(executor.timers());
        Rc::new(MemoryEnv {
            executor,
            random: Random::new(seed ^ 0x5eed),
            clock,
            disk,
        })
    }

    /// Runs `future` and every spawned task until `future` is done. None when the disk crashed on the way, when
    /// nothing can run any more, or after a day of virtual time.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.executor.block_on(future, &self.disk)
    }

    /// Drops every task: the process is dead.
    pub fn kill(&self) {
        self.executor.clear();
    }

    /// The disk with its faults.
    pub fn memory_disk(&self) -> &Rc<MemoryDisk> {
        &self.disk
    }

    /// Moves the clock.
    pub fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    /// Virtual time since the machine's first process.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed.get()
    }

    /// A hash over which task ran when: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.executor.trace()
    }

    /// Task turns so far.
    pub fn turns(&self) -> u64 {
        self.executor.turns()
    }
}

impl Env for MemoryEnv {
    fn clock(&self) -> &dyn Clock {
        &self.clock
    }

    fn disk(&self) -> Rc<dyn Disk> {
        self.disk.clone()
    }

    fn tasks(&self) -> &dyn Tasks {
        &self.executor
    }

    fn random(&self) -> u64 {
        self.random.next()
    }
}

/// A clock that moves only when all tasks wait for it.
#[derive(Clone)]
pub(crate) struct MemoryClock {
    start: Instant,
    elapsed: Rc<Cell<Duration>>,
}

impl MemoryClock {
    /// 2023-11-14, so that timestamps look like timestamps.
    const UNIX_MICROS_AT_START: i64 = 1_700_000_000_000_000;

    #[allow(clippy::disallowed_methods)] // An Instant comes from nowhere else; only differences to it are used.
    fn new() -> MemoryClock {
        MemoryClock {
            start: Instant::now(),
            elapsed: Rc::default(),
        }
    }

    fn advance(&self, duration: Duration) {
        self.elapsed.set(self.elapsed.get() + duration);
    }
}

impl Clock for MemoryClock {
    fn now(&self) -> Instant {
        self.start + self.elapsed.get()
    }

    fn unix_micros(&self) -> i64 {
        Self::UNIX_MICROS_AT_START + self.elapsed.get().as_micros() as i64
    }
}

impl Tasks for Executor {
    fn spawn(&self, _queue: TaskQueue, task: LocalFuture<'static, ()>) {
        self.add(task);
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        Box::pin(self.timers().sleep(duration))
    }

    fn yield_if_due(&self) -> Option<LocalFuture<'static, ()>> {
        self.is_turn_over()
            .then(|| Box::pin(executor::Yield::once()) as _)
    }

    fn set_shares(&self, _queue: TaskQueue, _shares: u32) {}
}
