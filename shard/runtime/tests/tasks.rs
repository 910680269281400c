//! Tasks, timers, yielding, shares, stalls.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ceto_env::TaskQueue;
use ceto_runtime::Activity;
use support::{run, run_with};

#[test]
fn spawned_tasks_run_to_their_end() {
    let sum = run(|context| async move {
        let sum = Rc::new(Cell::new(0));
        for number in 1..=100 {
            let (sum, env) = (Rc::clone(&sum), Rc::clone(&context.env));
            let task = async move {
                env.tasks().sleep(Duration::from_micros(number % 7)).await;
                sum.set(sum.get() + number);
            };
            context
                .env
                .tasks()
                .spawn(TaskQueue::QUEUES[number as usize % 6], Box::pin(task));
        }
        while sum.get() < 5050 {
            context.env.tasks().sleep(Duration::from_millis(1)).await;
        }
        sum.get()
    });
    assert_eq!(sum, 5050);
}

#[test]
fn timers_fire_in_order_and_not_early() {
    let order = run(|context| async move {
        let order = Rc::new(RefCell::new(Vec::new()));
        let started = Instant::now();
        for millis in [30_u64, 10, 20, 0] {
            let (order, env) = (Rc::clone(&order), Rc::clone(&context.env));
            let task = async move {
                env.tasks().sleep(Duration::from_millis(millis)).await;
                order
                    .borrow_mut()
                    .push((millis, started.elapsed() >= Duration::from_millis(millis)));
            };
            context.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
        }
        context.env.tasks().sleep(Duration::from_millis(60)).await;
        order.take()
    });
    assert_eq!(order, [(0, true), (10, true), (20, true), (30, true)]);
}

#[test]
fn a_dropped_timer_is_forgotten() {
    let timers = run(|context| async move {
        let mut sleep = context.env.tasks().sleep(Duration::from_secs(3600));
        poll_fn(|cx| {
            assert!(sleep.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(sleep);
        context.env.tasks().sleep(Duration::from_millis(1)).await;
        context.env.tasks().sleep(Duration::from_millis(1)).await;
        context.metrics.timers.get()
    });
    assert!(timers <= 1, "{timers}");
}

#[test]
fn other_threads_wake_tasks() {
    let rounds = run(|context| async move {
        let mut rounds = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        for round in 0..300_u64 {
            let flag = Arc::new(AtomicBool::new(false));
            let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
            let (their_flag, their_waker) = (Arc::clone(&flag), Arc::clone(&waker));
            let thread = std::thread::spawn(move || {
                if round % 3 == 0 {
                    std::thread::sleep(Duration::from_micros(round * 3));
                }
                their_flag.store(true, Ordering::SeqCst);
                if let Some(waker) = their_waker.lock().unwrap().take() {
                    waker.wake();
                }
            });
            poll_fn(|cx| {
                if flag.load(Ordering::SeqCst) {
                    return Poll::Ready(());
                }
                *waker.lock().unwrap() = Some(cx.waker().clone());
                if flag.load(Ordering::SeqCst) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            thread.join().unwrap();
            rounds += 1;
        }
        assert!(
            Instant::now() < deadline,
            "woken by the heartbeat rather than by the threads"
        );
        drop(context);
        rounds
    });
    assert_eq!(rounds, 300);
}

#[test]
fn wakers_outlive_their_tasks_harmlessly() {
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    let kept = Arc::clone(&waker);
    run(move |context| {
        let kept = Arc::clone(&kept);
        async move {
            let first = Arc::clone(&kept);
            let task = poll_fn(move |cx| {
                *first.lock().unwrap() = Some(cx.waker().clone());
                Poll::Ready(())
            });
            context.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
            context.env.tasks().sleep(Duration::from_millis(1)).await;
            // The slot is taken by another task now; the old waker must not touch it.
            let polls = Rc::new(Cell::new(0));
            let count = Rc::clone(&polls);
            let task = poll_fn(move |_| {
                count.set(count.get() + 1);
                Poll::<()>::Pending
            });
            context.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
            context.env.tasks().sleep(Duration::from_millis(1)).await;
            let old = kept.lock().unwrap().take().unwrap();
            old.wake_by_ref();
            context.env.tasks().sleep(Duration::from_millis(1)).await;
            assert_eq!(polls.get(), 1);
            *kept.lock().unwrap() = Some(old);
        }
    });
    // The shard is gone.
    waker.lock().unwrap().take().unwrap().wake();
}

/// Spins in a queue until `stop`, in rounds of about 20 us; counts its turns after `due`.
async fn burn(
    context: Rc<dyn ceto_env::Env>,
    due: Rc<Cell<Instant>>,
    late: Rc<Cell<u64>>,
    stop: Rc<Cell<bool>>,
) {
    while !stop.get() {
        let started = Instant::now();
        while started.elapsed() < Duration::from_micros(20) {
            std::hint::spin_loop();
        }
        if let Some(turn) = context.tasks().yield_if_due() {
            late.set(late.get() + u64::from(Instant::now() >= due.get()));
            turn.await;
        }
    }
}

#[test]
fn busy_queues_share_time_by_shares_and_timers_are_punctual() {
    let (spent, late) = run(|context| async move {
        let stop = Rc::new(Cell::new(false));
        let (due, late) = (Rc::new(Cell::new(Instant::now())), Rc::new(Cell::new(0)));
        for queue in [TaskQueue::Statement, TaskQueue::Compaction] {
            let env = Rc::clone(&context.env);
            let task = burn(env, Rc::clone(&due), Rc::clone(&late), Rc::clone(&stop));
            context.env.tasks().spawn(queue, Box::pin(task));
        }
        context.env.tasks().set_shares(TaskQueue::Compaction, 250);
        // Other processes take time from the queues too: so time is what the shard's own account says, and lateness is
        // counted in turns.
        let mut turns_late = Vec::new();
        for _ in 0..200 {
            due.set(Instant::now() + Duration::from_millis(2));
            late.set(0);
            context.env.tasks().sleep(Duration::from_millis(2)).await;
            turns_late.push(late.get());
        }
        stop.set(true);
        turns_late.sort();
        let spent = [TaskQueue::Statement, TaskQueue::Compaction]
            .map(|queue| context.metrics.run_nanos[Activity::Queue(queue).index()].get());
        (spent, turns_late[turns_late.len() / 2])
    });
    let ratio = spent[0] as f64 / spent[1] as f64;
    assert!((2.5..=6.0).contains(&ratio), "4:1 by shares, got {spent:?}");
    assert!(
        late <= 4,
        "turns of the busy queues after a timer is due: {late} (median)"
    );
}

#[test]
fn stalls_are_counted_with_their_queue() {
    let stalls = run(|context| async move {
        let task = async {
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(40) {}
        };
        context.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
        context.env.tasks().sleep(Duration::from_millis(60)).await;
        let metrics = context.metrics;
        (metrics.stalls[4].get(), metrics.longest_turn_nanos.get())
    });
    assert_eq!(stalls.0, 1, "maintenance is the fifth activity");
    assert!(stalls.1 >= 40_000_000);
}

#[test]
fn an_idle_shard_sleeps() {
    let (parks, cpu) = run(|context| async move {
        let before = thread_cpu();
        let parks = context.metrics.parks.get();
        context.env.tasks().sleep(Duration::from_secs(2)).await;
        (context.metrics.parks.get() - parks, thread_cpu() - before)
    });
    assert!(parks <= 20, "{parks} sleeps in two seconds");
    assert!(
        cpu < Duration::from_millis(20),
        "{cpu:?} of processor time in two idle seconds"
    );
}

fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_panic_is_reported_by_join() {
    let runtime =
        ceto_runtime::start::<u64, _>(&support::options(1), |_| Box::pin(async { panic!("on purpose") }));
    let outcome = runtime.unwrap().join();
    assert!(
        matches!(outcome, Err(ceto_runtime::Error::ShardPanicked(0))),
        "{outcome:?}"
    );
}

#[test]
fn more_shards_than_cores() {
    let mut options = support::options(5);
    options.pin = true;
    let shards = run_with(&options, |context| async move { context.shard });
    assert_eq!(shards, [0, 1, 2, 3, 4]);
}

#[test]
fn bad_options_are_refused() {
    let outcome = ceto_runtime::start::<u64, _>(&support::options(0), |_| Box::pin(async {}));
    assert!(outcome.is_err());
}
