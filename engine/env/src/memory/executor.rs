//! Tasks on the calling thread; a seeded choice says which ready one runs next.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{MemoryDisk, Random};
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
#[derive(Clone)]
pub(crate) struct Timers {
    wakers: Rc<RefCell<BTreeMap<(Duration, u64), Waker>>>,
    next: Rc<Cell<u64>>,
    elapsed: Rc<Cell<Duration>>,
}

impl Timers {
    pub(crate) fn sleep(&self, duration: Duration) -> Sleep {
        let number = self.next.get();
        self.next.set(number + 1);
        Sleep {
            due: (self.elapsed.get() + duration, number),
            timers: self.clone(),
        }
    }
}

pub(crate) struct Executor {
    ready: Ready,
    tasks: RefCell<BTreeMap<u64, LocalFuture<'static, ()>>>,
    next_task: Cell<u64>,
    timers: Timers,
    random: Random,
    trace: Cell<u64>,
    turns: Cell<u64>,
}

impl Executor {
    pub(crate) fn new(seed: u64, elapsed: Rc<Cell<Duration>>) -> Executor {
        Executor {
            ready: Ready::default(),
            tasks: RefCell::default(),
            next_task: Cell::new(MAIN + 1),
            timers: Timers {
                wakers: Rc::default(),
                next: Rc::default(),
                elapsed,
            },
            random: Random::new(seed),
            trace: Cell::new(0xcbf2_9ce4_8422_2325),
            turns: Cell::new(0),
        }
    }

    pub(crate) fn timers(&self) -> Timers {
        self.timers.clone()
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.get()
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
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
            let timers = std::mem::take(&mut *self.timers.wakers.borrow_mut());
            if tasks.is_empty() && timers.is_empty() {
                break;
            }
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn is_turn_over(&self) -> bool {
        self.random.below(8) == 0
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

    fn note_turn(&self, task: u64) {
        self.turns.set(self.turns.get() + 1);
        let time = self.timers.elapsed.get().as_nanos() as u64;
        let feed = |hash: u64, number: u64| {
            (hash ^ number)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(29)
        };
        self.trace.set(feed(feed(self.trace.get(), time), task));
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>, disk: &MemoryDisk) -> Option<T> {
        let mut main = pin!(future);
        self.waker(MAIN).wake();
        let elapsed = &self.timers.elapsed;
        let deadline = elapsed.get() + PATIENCE;
        while !disk.has_crashed() && elapsed.get() < deadline {
            let Some(id) = self.next_ready() else {
                self.advance_to_next_timer()?;
                continue;
            };
            self.note_turn(id);
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
    fn advance_to_next_timer(&self) -> Option<()> {
        let ((due, _), waker) = self.timers.wakers.borrow_mut().pop_first()?;
        let elapsed = &self.timers.elapsed;
        elapsed.set(elapsed.get().max(due));
        waker.wake();
        Some(())
    }
}

pub(crate) struct Sleep {
    due: (Duration, u64),
    timers: Timers,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timers.elapsed.get() >= self.due.0 {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        self.timers.wakers.borrow_mut().insert(self.due, waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Ok(mut wakers) = self.timers.wakers.try_borrow_mut() {
            wakers.remove(&self.due);
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
