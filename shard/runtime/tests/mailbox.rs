//! Messages between shards, and from other threads.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ceto_env::LocalFuture;
use ceto_runtime::{Origin, ShardContext, start};
use support::{options, run_with};

#[test]
fn every_message_arrives_once_and_in_order() {
    const SHARDS: u16 = 4;
    const MESSAGES: u64 = 20_000;
    let mut options = options(SHARDS);
    // Small, so that lanes fill, overflow and refuse.
    options.mailbox_capacity = 64;
    options.mailbox_overflow = 256;
    let outcomes = run_with(&options, |context: ShardContext<u64>| async move {
        let got = Rc::new(RefCell::new(vec![0_u64; SHARDS.into()]));
        let disorder = Rc::new(Cell::new(0));
        let (seen, wrong) = (Rc::clone(&got), Rc::clone(&disorder));
        context.receive(Rc::new(move |origin, message| {
            let Origin::Shard(from) = origin else {
                panic!("nobody else sends")
            };
            let next = &mut seen.borrow_mut()[usize::from(from)];
            wrong.set(wrong.get() + u64::from(*next != message));
            *next += 1;
        }));
        let mut refused = 0;
        for message in 0..MESSAGES {
            for to in 0..SHARDS {
                while context.mailbox.send(to, message).is_err() {
                    refused += 1;
                    context.env.tasks().sleep(Duration::from_micros(50)).await;
                }
            }
            if message % 97 == 0 {
                context
                    .env
                    .tasks()
                    .sleep(Duration::from_micros(message % 5))
                    .await;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while got.borrow().iter().any(|count| *count < MESSAGES) && Instant::now() < deadline {
            context.env.tasks().sleep(Duration::from_millis(1)).await;
        }
        // The others may still wait for what is sent from here.
        while (0..SHARDS).any(|to| context.mailbox.depth(to) > 0) && Instant::now() < deadline {
            context.env.tasks().sleep(Duration::from_millis(1)).await;
        }
        (
            got.take(),
            disorder.get(),
            refused,
            context.metrics.mailbox_received.get(),
        )
    });
    assert_eq!(outcomes.len(), usize::from(SHARDS));
    for (got, disorder, _, received) in outcomes {
        assert_eq!(got, vec![MESSAGES; SHARDS.into()]);
        assert_eq!(disorder, 0);
        assert_eq!(received, MESSAGES * u64::from(SHARDS));
    }
}

#[test]
fn a_full_mailbox_refuses_and_recovers() {
    let mut options = options(2);
    options.mailbox_capacity = 4;
    options.mailbox_overflow = 4;
    let outcomes = run_with(&options, |context: ShardContext<u64>| async move {
        let got = Rc::new(Cell::new(0_u64));
        if context.shard == 1 {
            let count = Rc::clone(&got);
            // Nobody takes messages for a while.
            context.env.tasks().sleep(Duration::from_millis(50)).await;
            context.receive(Rc::new(move |_, message| {
                assert_eq!(message, count.get());
                count.set(count.get() + 1);
            }));
            while got.get() < 8 {
                context.env.tasks().sleep(Duration::from_millis(1)).await;
            }
            return (got.get(), 0, 0);
        }
        let mut accepted = 0;
        while context.mailbox.send(1, accepted).is_ok() {
            accepted += 1;
        }
        let depth = context.mailbox.depth(1);
        while context.mailbox.depth(1) > 0 {
            context.env.tasks().sleep(Duration::from_millis(1)).await;
        }
        (accepted, depth as u64, context.metrics.mailbox_full.get())
    });
    assert_eq!(outcomes, [(8, 8, 1), (8, 0, 0)]);
}

#[test]
fn sleeping_shards_are_woken_at_once() {
    const ROUNDS: u64 = 2000;
    let outcomes = run_with(&options(2), |context: ShardContext<u64>| async move {
        let other = 1 - context.shard;
        let mailbox = Rc::clone(&context.mailbox);
        let last = Rc::new(Cell::new(0));
        let seen = Rc::clone(&last);
        context.receive(Rc::new(move |_, message| {
            seen.set(message);
            if message < ROUNDS {
                mailbox.send(other, message + 1).unwrap();
            }
        }));
        let started = Instant::now();
        if context.shard == 0 {
            context.mailbox.send(other, 1).unwrap();
        }
        while last.get() < ROUNDS - 1 {
            context.env.tasks().sleep(Duration::from_millis(20)).await;
        }
        (started.elapsed(), context.metrics.parks.get())
    });
    for (elapsed, parks) in outcomes {
        // A lost wake-up costs up to a second (the heartbeat).
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?} for {ROUNDS} hops");
        assert!(parks > 0);
    }
}

#[test]
fn the_control_thread_posts_and_gets_answers() {
    type Question = (u64, Sender<(u16, u64)>);
    let runtime = start(&options(3), |context: ShardContext<Option<Question>>| {
        Box::pin(async move {
            let done = Rc::new(Cell::new(false));
            let finished = Rc::clone(&done);
            let shard = context.shard;
            context.receive(Rc::new(move |origin, question| {
                assert_eq!(origin, Origin::Control);
                match question {
                    Some((number, answer)) => answer.send((shard, number * 2)).unwrap(),
                    None => finished.set(true),
                }
            }));
            while !done.get() {
                context.env.tasks().sleep(Duration::from_millis(5)).await;
            }
        }) as LocalFuture<'static, ()>
    })
    .unwrap();
    let control = runtime.control();
    assert_eq!(control.shard_count(), 3);
    let threads: Vec<_> = (0..3_u64)
        .map(|thread| {
            let control = control.clone();
            std::thread::spawn(move || {
                for number in 0..500 {
                    let shard = ((number + thread) % 3) as u16;
                    let (answer, answers) = channel();
                    assert!(control.send(shard, Some((number, answer))).is_ok());
                    let got = answers.recv_timeout(Duration::from_secs(10)).unwrap();
                    assert_eq!(got, (shard, number * 2));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(control.send(3, None).is_err(), "no such shard");
    for shard in 0..3 {
        assert!(control.metrics(shard).control_received.get() >= 499);
        assert!(control.send(shard, None).is_ok());
    }
    runtime.join().unwrap();
    assert!(control.send(0, None).is_err(), "the shard has ended");
}
