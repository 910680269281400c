//! Runs shards for a test.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Poll, Waker};
use std::time::Duration;

use ceto_env::LocalFuture;
use ceto_runtime::{Runtime, RuntimeOptions, ShardContext, start};

/// Options of tests: unpinned, because tests run beside each other.
pub(crate) fn options(shards: u16) -> RuntimeOptions {
    RuntimeOptions {
        shards,
        pin: false,
        abort_on_panic: false,
        ..RuntimeOptions::default()
    }
}

/// Runs `main` on every shard of `options` to its end and returns what the shards returned, by shard.
pub(crate) fn run_with<T, F, R>(options: &RuntimeOptions, main: F) -> Vec<T>
where
    T: Send + 'static,
    F: Fn(ShardContext<u64>) -> R + Send + Sync + 'static,
    R: Future<Output = T> + 'static,
{
    let (send, receive) = channel::<(u16, T)>();
    let main = Arc::new(main);
    let runtime: Runtime<u64> = start(options, move |context: ShardContext<u64>| {
        let (shard, send) = (context.shard, send.clone());
        let value = main(context);
        Box::pin(async move {
            let value = value.await;
            send.send((shard, value)).expect("the test waits");
        }) as LocalFuture<'static, ()>
    })
    .expect("io_uring is there");
    runtime.join().expect("shards end well");
    let mut values: Vec<(u16, T)> = receive.try_iter().collect();
    values.sort_by_key(|(shard, _)| *shard);
    values.into_iter().map(|(_, value)| value).collect()
}

/// Runs `main` on one shard.
pub(crate) fn run<T, F, R>(main: F) -> T
where
    T: Send + 'static,
    F: Fn(ShardContext<u64>) -> R + Send + Sync + 'static,
    R: Future<Output = T> + 'static,
{
    run_with(&options(1), main).pop().expect("one shard")
}

/// Something that happens once, and that a task waits for without polling.
#[derive(Clone, Default)]
pub(crate) struct Event(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl Event {
    pub(crate) fn set(&self) {
        self.0.0.set(true);
        if let Some(waker) = self.0.1.take() {
            waker.wake();
        }
    }

    pub(crate) async fn wait(&self) {
        poll_fn(|cx| {
            if self.0.0.get() {
                return Poll::Ready(());
            }
            *self.0.1.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Waits until `condition` holds, and fails after ten seconds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("not in ten seconds: {what}");
}
