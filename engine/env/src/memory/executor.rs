//! Tasks on the calling thread; a seeded choice says which ready one runs next.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{MemoryClock, MemoryDisk, Random};
use crate::LocalFuture;

/// Virtual time after which `block_on` gives up: what is not done by then waits for ever, beside tasks that tick.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// The task that `block_on` was called with.
const MAIN: u64 = 0;

/// Ids of tasks to be polled. Behind a lock only because a `Waker` must be `Send`; nothing else ever holds it.
type Ready = Arc<Mutex<VecDeque<u64>>>;

struct TaskWaker {
    task: u64,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&self.task) {
            ready.push_back(self.task);
        }
    }
}

/// Wakers by the time (since the start) at which they are due, and a number that tells equal times apart.
type Timers = Rc<RefCell<BTreeMap<(Duration, u64), Waker>>>;

pub(crate) struct Executor {
    ready: Ready,
    tasks: RefCell<BTreeMap<u64, LocalFuture<'static, ()>>>,
    next_task: Cell<u64>,
    timers: Timers,
    next_timer: Cell<u64>,
    elapsed: Rc<Cell<Duration>>,
    random: Random,
}

impl Executor {
    pub(crate) fn new(seed: u64) -> Executor {
        Executor {
            ready: Ready::default(),
            tasks: RefCell::default(),
            next_task: Cell::new(MAIN + 1),
            timers: Timers::default(),
            next_timer: Cell::new(0),
            elapsed: Rc::default(),
            random: Random::new(seed),
        }
    }

    pub(crate) fn add(&self, task: LocalFuture<'static, ()>) {
        let id = self.next_task.get();
        self.next_task.set(id + 1);
        self.tasks.borrow_mut().insert(id, task);
        self.waker(id).wake();
    }

    pub(crate) fn clear(&self) {
        // Out of the cell first: dropping a task may spawn or wake others.
        loop {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            let timers = std::mem::take(&mut *self.timers.borrow_mut());
            if tasks.is_empty() && timers.is_empty() {
                break;
            }
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn is_turn_over(&self) -> bool {
        self.random.below(8) == 0
    }

    pub(crate) fn sleep_for(&self, duration: Duration) -> Sleep {
        let number = self.next_timer.get();
        self.next_timer.set(number + 1);
        Sleep {
            due: (self.elapsed.get() + duration, number),
            timers: self.timers.clone(),
            elapsed: self.elapsed.clone(),
        }
    }

    fn waker(&self, task: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker {
            task,
            ready: self.ready.clone(),
        }))
    }

    fn next_ready(&self) -> Option<u64> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.random.below(ready.len() as u64) as usize;
        ready.swap_remove_back(at)
    }

    pub(crate) fn block_on<T>(
        &self,
        future: impl Future<Output = T>,
        clock: &MemoryClock,
        disk: &MemoryDisk,
    ) -> Option<T> {
        let mut main = pin!(future);
        self.waker(MAIN).wake();
        let deadline = clock.elapsed() + PATIENCE;
        while !disk.has_crashed() && clock.elapsed() < deadline {
            self.elapsed.set(clock.elapsed());
            let Some(id) = self.next_ready() else {
                self.advance_to_next_timer(clock)?;
                continue;
            };
            let waker = self.waker(id);
            let context = &mut Context::from_waker(&waker);
            if id == MAIN {
                if let Poll::Ready(value) = main.as_mut().poll(context) {
                    return Some(value);
                }
                continue;
            }
            let task = self.tasks.borrow_mut().remove(&id);
            if let Some(mut task) = task
                && task.as_mut().poll(context).is_pending()
            {
                self.tasks.borrow_mut().insert(id, task);
            }
        }
        None
    }

    /// None when no timer is left.
    fn advance_to_next_timer(&self, clock: &MemoryClock) -> Option<()> {
        let ((due, _), waker) = self.timers.borrow_mut().pop_first()?;
        clock.advance(due.saturating_sub(clock.elapsed()));
        self.elapsed.set(clock.elapsed());
        waker.wake();
        Some(())
    }
}

pub(crate) struct Sleep {
    due: (Duration, u64),
    timers: Timers,
    elapsed: Rc<Cell<Duration>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.elapsed.get() >= self.due.0 {
            return Poll::Ready(());
        }
        self.timers.borrow_mut().insert(self.due, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Ok(mut timers) = self.timers.try_borrow_mut() {
            timers.remove(&self.due);
        }
    }
}

/// Gives the other tasks some turns.
pub(crate) struct Yield {
    turns: u64,
}

impl Yield {
    pub(crate) fn once() -> Yield {
        Yield { turns: 1 }
    }

    pub(crate) fn turns(turns: u64) -> Yield {
        Yield { turns }
    }
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.turns == 0 {
            return Poll::Ready(());
        }
        self.turns -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
