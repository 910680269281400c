//! One shard's event loop: an executor over one ring.
//!
//! A turn is: take completions (protocols run), inboxes and timers; run ready tasks until there is output to send, the
//! kernel has something new, a task gave its turn away, or the budget is used up; then send output and messages, and
//! enter the kernel once - to wait when nothing is ready. So the answers of a turn leave together, and nothing that is
//! ready waits longer than a budget for the kernel to be asked.
//!
//! Absences: no lock is taken, no other thread's allocation is waited for, nothing ready is left when the shard
//! sleeps (see [`ShardHandle`]), and no sleep is longer than the heartbeat, so that a turn counter that stands still means
//! a stuck shard.
//!
//! An executor of our own, because measured against a bare loop on the same ring at half load, glommio's cost 1.7 to
//! 2 times its processor time (its parking takes several kernel calls over three rings), and its files' completions wait on
//! another ring than the sockets'.

mod queues;
mod tasks;
mod timers;
mod turn;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ceto_env::{LocalFuture, TaskQueue};

use crate::handle::ShardHandle;
use crate::mailbox::MailboxPort;
use crate::network::NetworkRing;
use crate::ring::Ring;
pub(crate) use tasks::TaskId;
use timers::{TimerKey, Timers};
use turn::TurnClock;

/// A task that has run this long gives its turn away at its next [`Executor::yield_if_due`].
pub(crate) const YIELD_AFTER: Duration = Duration::from_micros(200);
/// The same for work that no client waits for: a request meets it up to three times, at its arrival, at its disk read and at
/// that one's completion.
const YIELD_BACKGROUND_AFTER: Duration = Duration::from_micros(40);

/// No client waits for what this queue's tasks do.
fn is_background(queue: TaskQueue) -> bool {
    match queue {
        TaskQueue::Statement | TaskQueue::Control => false,
        TaskQueue::MemtableFlush | TaskQueue::Compaction | TaskQueue::Streaming | TaskQueue::Maintenance => {
            true
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

/// The event loop of one shard.
pub(crate) struct Executor {
    pub(crate) handle: Arc<ShardHandle>,
    pub(crate) handles: Arc<[Arc<ShardHandle>]>,
    pub(crate) ring: Rc<Ring>,
    tasks: tasks::Tasks,
    queues: RefCell<queues::RunQueues>,
    timers: RefCell<Timers>,
    /// When the task being polled was started.
    task_started: Cell<Instant>,
    /// How long it may run.
    slice: Cell<Duration>,
    /// The task being polled gave its turn away.
    yielded: Cell<bool>,
    clock: TurnClock,
    network: OnceCell<Rc<NetworkRing>>,
    mailbox: OnceCell<Rc<dyn MailboxPort>>,
    /// Longest time to spin for work before sleeping.
    spin: Duration,
}

impl Executor {
    pub(crate) fn new(
        handles: Arc<[Arc<ShardHandle>]>,
        shard: u16,
        ring: Rc<Ring>,
        spin: Duration,
    ) -> Rc<Self> {
        let handle = Arc::clone(&handles[usize::from(shard)]);
        let executor = Rc::new(Self {
            clock: TurnClock::new(),
            handle,
            handles,
            ring,
            tasks: tasks::Tasks::default(),
            queues: RefCell::new(queues::RunQueues::new()),
            timers: RefCell::default(),
            task_started: Cell::new(Instant::now()),
            slice: Cell::new(YIELD_AFTER),
            yielded: Cell::new(false),
            network: OnceCell::new(),
            mailbox: OnceCell::new(),
            spin,
        });
        for queue in TaskQueue::QUEUES {
            let shares = executor.queues.borrow().shares(queue);
            executor.set_shares(queue, shares);
        }
        executor
    }

    /// Joins the network ring and the mailbox to the loop.
    pub(crate) fn attach(&self, network: Rc<NetworkRing>, mailbox: Rc<dyn MailboxPort>) {
        assert!(
            self.network.set(network).is_ok() && self.mailbox.set(mailbox).is_ok(),
            "attached once"
        );
    }

    /// Makes this the executor of the thread, for wakers.
    pub(crate) fn enter_thread(self: &Rc<Self>) {
        CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(self)));
    }

    /// Undoes [`Self::enter_thread`].
    pub(crate) fn leave_thread(&self) {
        let executor = CURRENT.with(|current| current.borrow_mut().take());
        drop(executor);
    }

    fn with_current<R>(action: impl FnOnce(&Rc<Executor>) -> R) -> Option<R> {
        CURRENT
            .try_with(|current| current.borrow().as_ref().map(action))
            .ok()
            .flatten()
    }

    /// Starts a task that runs to its end on its own.
    pub(crate) fn spawn(&self, queue: TaskQueue, future: LocalFuture<'static, ()>) {
        let id = self.tasks.insert(queue, &self.handle, future);
        self.schedule(queue, id);
    }

    fn schedule(&self, queue: TaskQueue, id: TaskId) {
        self.queues.borrow_mut().push(queue, id);
    }

    /// Completes at `now + duration`.
    pub(crate) fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        // A time beyond the clock's end is as good as never.
        let now = Instant::now();
        let deadline = now
            .checked_add(duration)
            .unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        Sleep {
            executor: Rc::clone(self),
            deadline,
            key: None,
        }
    }

    /// The task being polled has run for its slice.
    pub(crate) fn yield_is_due(&self) -> bool {
        self.task_started.get().elapsed() >= self.slice.get()
    }

    /// Lets the loop take a turn before the task goes on.
    pub(crate) fn yield_now(self: &Rc<Self>) -> YieldNow {
        YieldNow {
            executor: Rc::clone(self),
            done: false,
        }
    }

    pub(crate) fn set_shares(&self, queue: TaskQueue, shares: u32) {
        let shares = self.queues.borrow_mut().set_shares(queue, shares);
        self.handle.metrics.shares[crate::metrics::queue_index(queue)].set(shares.into());
    }

    /// Time, as of the last thing that began to run.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// See [`Executor::sleep`].
pub(crate) struct Sleep {
    executor: Rc<Executor>,
    deadline: Instant,
    key: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timers = self.executor.timers.borrow_mut();
        let Some(key) = &self.key else {
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            let key = timers.set(self.deadline, context.waker().clone());
            drop(timers);
            self.key = Some(key);
            return Poll::Pending;
        };
        match timers.waker(key) {
            Some(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            let waker = self.executor.timers.borrow_mut().cancel(key);
            drop(waker);
        }
    }
}

/// See [`Executor::yield_now`].
pub(crate) struct YieldNow {
    executor: Rc<Executor>,
    done: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.done {
            return Poll::Ready(());
        }
        self.done = true;
        self.executor.yielded.set(true);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
