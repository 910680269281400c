//! Waiting within one shard.
//!
//! Never: wakes another shard, loses a wake-up between a check and the wait (a [`Listener`] hears every
//! notification made after it was created).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ceto_env::{LocalFuture, TaskQueue, Tasks};

/// Gives the processor away now and then in a loop over small things: asking for the time costs as much as some of them
/// do, so it is asked once for several.
#[derive(Default)]
pub(crate) struct Pace(u32);

impl Pace {
    /// Steps between two looks at the clock; a step is a fragment or the like, well below a microsecond when it is cheap.
    const STEPS: u32 = 16;

    /// To be called once for each step; a future to be awaited when it is time to give way.
    pub(crate) fn step(&mut self, tasks: &dyn Tasks) -> Option<LocalFuture<'static, ()>> {
        self.0 += 1;
        if self.0 < Pace::STEPS {
            return None;
        }
        self.0 = 0;
        tasks.yield_if_due()
    }
}

/// Something that happens now and then. Its waiters are requests and tasks, which have their own bounds.
#[derive(Clone, Default)]
pub(crate) struct Event(Rc<Inner>);

#[derive(Default)]
struct Inner {
    times: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
}

impl Event {
    /// Wakes everyone who listens.
    pub(crate) fn notify(&self) {
        self.0.times.set(self.0.times.get() + 1);
        let waiters = std::mem::take(&mut *self.0.waiters.borrow_mut());
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Completes at the next notification.
    pub(crate) fn listen(&self) -> Listener {
        Listener {
            event: self.0.clone(),
            since: self.0.times.get(),
            registered: None,
        }
    }
}

pub(crate) struct Listener {
    event: Rc<Inner>,
    since: u64,
    registered: Option<Waker>,
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.event.times.get() != self.since {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if !self.registered.as_ref().is_some_and(|own| own.will_wake(waker)) {
            self.event.waiters.borrow_mut().push(waker.clone());
            self.registered = Some(waker.clone());
        }
        Poll::Pending
    }
}

/// What `work` comes to. It is a task of its own: it goes on when whoever waits for it here is given up.
pub(crate) async fn carried_through<T: 'static>(
    tasks: &dyn Tasks,
    queue: TaskQueue,
    work: impl Future<Output = T> + 'static,
) -> T {
    let (result, done) = (Rc::new(RefCell::new(None)), Event::default());
    let (slot, ended) = (result.clone(), done.clone());
    let task = async move {
        let outcome = work.await;
        *slot.borrow_mut() = Some(outcome);
        ended.notify();
    };
    tasks.spawn(queue, Box::pin(task));
    loop {
        let end = done.listen();
        if let Some(outcome) = result.take() {
            return outcome;
        }
        end.await;
    }
}

/// Completes when either does.
pub(crate) async fn either(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    poll_fn(|context| {
        if a.as_mut().poll(context).is_ready() || b.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Runs all at once; the first error wins, after all are done.
pub(crate) async fn join_all<E>(
    futures: Vec<LocalFuture<'_, std::result::Result<(), E>>>,
) -> std::result::Result<(), E> {
    let mut running: Vec<Option<LocalFuture<'_, _>>> = futures.into_iter().map(Some).collect();
    let mut first_error = None;
    poll_fn(|context| {
        let mut is_pending = false;
        for slot in &mut running {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(context) {
                Poll::Ready(result) => {
                    *slot = None;
                    if let Err(error) = result {
                        first_error.get_or_insert(error);
                    }
                }
                Poll::Pending => is_pending = true,
            }
        }
        if is_pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    first_error.map_or(Ok(()), Err)
}
