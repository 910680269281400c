//! `env` on Linux, for one shard.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ceto_env::{Clock, Disk, Env, LocalFuture, TaskQueue, Tasks};

use crate::disk::LinuxDisk;
use crate::executor::Executor;

/// One shard's [`Env`].
pub(crate) struct LinuxEnv {
    executor: Rc<Executor>,
    disk: Rc<LinuxDisk>,
    /// State of a 64-bit permutation generator (splitmix).
    random: Cell<u64>,
}

impl LinuxEnv {
    pub(crate) fn new(executor: Rc<Executor>, disk: LinuxDisk) -> Self {
        Self {
            executor,
            disk: Rc::new(disk),
            random: Cell::new(seed()),
        }
    }
}

/// Random bits of the kernel's.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the buffer has the length that is given. On failure the clock has to do: these bits guard no secret.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        u64::from_ne_bytes(bytes)
    } else {
        unix_micros() as u64
    }
}

fn unix_micros() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

impl Env for LinuxEnv {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn disk(&self) -> Rc<dyn Disk> {
        Rc::clone(&self.disk) as Rc<dyn Disk>
    }

    fn tasks(&self) -> &dyn Tasks {
        self
    }

    fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn give_back_memory(&self) {
        crate::allocator::give_back_freed();
    }
}

impl Clock for LinuxEnv {
    /// As of when the current task (or protocol call's turn) began to run: at most a task's time old.
    fn now(&self) -> Instant {
        self.executor.now()
    }

    fn read(&self) -> Instant {
        Instant::now()
    }

    fn unix_micros(&self) -> i64 {
        unix_micros()
    }
}

impl Tasks for LinuxEnv {
    fn spawn(&self, queue: TaskQueue, task: LocalFuture<'static, ()>) {
        self.executor.spawn(queue, task);
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        Box::pin(self.executor.sleep(duration))
    }

    fn yield_if_due(&self) -> Option<LocalFuture<'static, ()>> {
        self.executor
            .yield_is_due()
            .then(|| Box::pin(self.executor.yield_now()) as LocalFuture<'static, ()>)
    }

    fn set_shares(&self, queue: TaskQueue, shares: u32) {
        self.executor.set_shares(queue, shares);
    }
}
