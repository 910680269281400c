//! Helper threads for the file system calls that block and that a ring cannot do, or does no better: open, rename,
//! list, preallocation, closing of removed files.
//!
//! A call's result comes back through the shard's inbox and is taken in the shard's next turn. A shard never waits for
//! these threads; the future of its call does. A call whose future was dropped still runs to its end.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use slab::Slab;

use crate::handle::ShardHandle;

type Job = Box<dyn FnOnce() + Send>;

/// Where jobs are sent.
#[derive(Clone)]
pub(crate) struct BlockingPool {
    jobs: Sender<Job>,
}

/// The threads, to be joined after the last sender is gone.
pub(crate) struct BlockingThreads(Vec<JoinHandle<()>>);

impl BlockingPool {
    /// Threads that are called `ceto-NAME-NUMBER`.
    pub(crate) fn start(name: &str, threads: usize) -> io::Result<(Self, BlockingThreads)> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..threads.max(1))
            .map(|number| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new()
                    .name(format!("ceto-{name}-{number}"))
                    .spawn(move || serve(&queue))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok((Self { jobs }, BlockingThreads(threads)))
    }

    /// Runs a job some time soon, without news of its end. When the threads are gone it is dropped, which at the end of
    /// the process is as good.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }
}

impl BlockingThreads {
    pub(crate) fn join(self) {
        for thread in self.0 {
            let _ = thread.join();
        }
    }
}

fn serve(queue: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting: the threads queue up for it, no shard does.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

enum CallSlot {
    Waiting(Option<Waker>),
    Done(Box<dyn Any + Send>),
    Abandoned,
}

thread_local! {
    /// Calls that tasks of this thread's shard wait for.
    static CALLS: RefCell<Slab<CallSlot>> = const { RefCell::new(Slab::new()) };
}

/// A result on its way back to the shard's thread.
pub(crate) struct BlockingDone {
    call: usize,
    value: Box<dyn Any + Send>,
}

impl BlockingDone {
    /// Hands the result to the call's future. On the shard's thread.
    pub(crate) fn deliver(self) {
        let waker = CALLS.with_borrow_mut(|calls| {
            let slot = calls.get_mut(self.call)?;
            match std::mem::replace(slot, CallSlot::Abandoned) {
                CallSlot::Waiting(waker) => {
                    *slot = CallSlot::Done(self.value);
                    waker
                }
                CallSlot::Abandoned | CallSlot::Done(_) => {
                    calls.remove(self.call);
                    None
                }
            }
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A call under way on a helper thread.
pub(crate) struct Call<T> {
    slot: Option<usize>,
    value: PhantomData<fn() -> T>,
}

/// Runs `job` on a helper thread for the shard of this thread.
pub(crate) fn call<T: Send + 'static>(
    pool: &BlockingPool,
    shard: &Arc<ShardHandle>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Call<T> {
    let slot = CALLS.with_borrow_mut(|calls| calls.insert(CallSlot::Waiting(None)));
    let shard = Arc::clone(shard);
    pool.run(move || {
        let done = BlockingDone {
            call: slot,
            value: Box::new(job()),
        };
        if shard.blocking.push(done).is_ok() {
            shard.wake();
        }
    });
    Call {
        slot: Some(slot),
        value: PhantomData,
    }
}

impl<T: 'static> Future for Call<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let key = self.slot.expect("a call is not polled after its end");
        let value = CALLS.with_borrow_mut(|calls| match &mut calls[key] {
            CallSlot::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                None
            }
            _ => Some(calls.remove(key)),
        });
        match value {
            None => Poll::Pending,
            Some(CallSlot::Done(value)) => {
                self.slot = None;
                Poll::Ready(*value.downcast().expect("a call returns the type it was made for"))
            }
            Some(_) => unreachable!("only a dropped future abandons its slot"),
        }
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        let Some(key) = self.slot.take() else { return };
        let value = CALLS.try_with(|calls| {
            let mut calls = calls.borrow_mut();
            match calls.get_mut(key) {
                Some(slot @ CallSlot::Waiting(_)) => Some(std::mem::replace(slot, CallSlot::Abandoned)),
                Some(_) => Some(calls.remove(key)),
                None => None,
            }
        });
        drop(value);
    }
}
