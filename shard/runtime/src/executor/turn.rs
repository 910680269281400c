//! The turns of the event loop, and the account of where their time goes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ceto_env::TaskQueue;

use super::{Executor, YIELD_AFTER, YIELD_BACKGROUND_AFTER, is_background};
use crate::metrics::{Activity, queue_index};
use crate::ring::{Completion, Kind};

/// A turn of tasks, or of completions, ends after this, so that the kernel is asked again.
const BUDGET: Duration = Duration::from_micros(500);
/// Completions between two looks at the clock.
const CLOCK_INTERVAL: usize = 4;
/// A turn longer than this is a stall: counted, and logged with what took most of it.
const STALL_LIMIT: Duration = Duration::from_millis(10);
/// Between two stall lines in the log; those between are counted in the next.
const STALL_LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Longest sleep.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// What a shard does is looked back on so often, to tell whether it is idle.
const IDLE_WINDOW: Duration = Duration::from_secs(1);
/// A shard that slept for all but so much of a window is idle.
const IDLE_SHARE: u64 = 20;
/// Bytes sent, received, read and written since freed memory was last given back that make another time worth it.
const GIVE_BACK_AFTER: u64 = 1 << 20;
/// Weight of a new idle gap in their running mean, as a power of two.
const GAP_SHIFT: u32 = 3;
/// How long the end of a shard waits for the kernel to give buffers back.
const FAREWELL: Duration = Duration::from_secs(5);

/// Clock and account of a turn.
pub(super) struct TurnClock {
    now: Cell<Instant>,
    turn_started: Cell<Instant>,
    /// Time of this turn by activity.
    spent: RefCell<[Duration; Activity::COUNT]>,
    stalls_unlogged: Cell<u64>,
    stall_logged: Cell<Option<Instant>>,
    /// Running mean of the time between running out of work and getting some.
    mean_gap: Cell<Duration>,
    /// When the window began, and how long the shard had slept by then.
    window: Cell<(Instant, u64)>,
    /// Bytes moved when freed memory was last given back.
    moved_at_give_back: Cell<u64>,
}

impl TurnClock {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            now: Cell::new(now),
            turn_started: Cell::new(now),
            spent: RefCell::default(),
            stalls_unlogged: Cell::new(0),
            stall_logged: Cell::new(None),
            mean_gap: Cell::new(Duration::MAX),
            window: Cell::new((now, 0)),
            moved_at_give_back: Cell::new(0),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    fn read(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    fn spend(&self, activity: Activity, time: Duration) {
        self.spent.borrow_mut()[activity.index()] += time;
    }
}

impl Executor {
    /// Runs turns until `done`, then ends everything that is left.
    pub(crate) fn run(self: &Rc<Self>, done: &Cell<bool>) {
        self.ring.push_bell(self.handle.bell());
        self.handle.set_ring(Some(self.ring.descriptor()));
        let mut completions = VecDeque::new();
        while !done.get() {
            self.turn(&mut completions);
            if done.get() {
                break;
            }
            self.enter_kernel(&completions);
        }
        self.end(&mut completions);
    }

    fn turn(self: &Rc<Self>, completions: &mut VecDeque<Completion>) {
        let started = self.clock.read();
        self.clock.turn_started.set(started);
        self.take_completions(completions);
        self.take_inboxes();
        self.expire_timers();
        self.run_tasks();
        self.send_output();
        self.account();
    }

    /// Protocols and waiting operations get what the kernel completed.
    fn take_completions(self: &Rc<Self>, completions: &mut VecDeque<Completion>) {
        self.ring.reap(completions);
        if completions.is_empty() {
            return;
        }
        let started = self.clock.now();
        // Protocols may poll requests themselves; those yield like tasks do.
        self.task_started.set(started);
        let network = self.network.get().expect("attached before it runs");
        for handled in 1.. {
            let Some(completion) = completions.pop_front() else {
                break;
            };
            match completion.kind() {
                Kind::Operation => self.ring.complete(completion),
                Kind::Accept | Kind::Receive | Kind::Send => network.complete(completion),
                Kind::Bell if !completion.more() && completion.result < 0 => {
                    // The watch on the bell ended: set it up again. (Messages between rings have a result of 0.)
                    self.ring.push_bell(self.handle.bell());
                }
                Kind::Bell | Kind::Ignored => {}
                Kind::Wake => {
                    if let Some(handle) = self.handles.get(completion.payload() as usize) {
                        handle.ring_bell();
                    }
                }
            }
            if handled % CLOCK_INTERVAL == 0 {
                let now = self.clock.read();
                self.task_started.set(now);
                if now - started > BUDGET {
                    break;
                }
            }
        }
        let ended = self.clock.read();
        self.clock.spend(Activity::Network, ended - started);
    }

    /// What other threads left at the door.
    fn take_inboxes(self: &Rc<Self>) {
        for id in self.handle.wakes.take_all().unwrap_or_default() {
            if let Some(queue) = self.tasks.queue(id) {
                self.schedule(queue, id);
            }
        }
        for done in self.handle.blocking.take_all().unwrap_or_default() {
            done.deliver();
        }
        if let Some(sockets) = self.handle.sockets.take_all() {
            let network = self.network.get().expect("attached before it runs");
            for socket in sockets {
                network.adopt(socket);
            }
        }
        let mailbox = self.mailbox.get().expect("attached before it runs");
        if mailbox.has_incoming() {
            let started = self.clock.now();
            self.task_started.set(started);
            mailbox.receive(started + BUDGET);
            self.clock.spend(Activity::Mailbox, self.clock.read() - started);
        }
    }

    fn expire_timers(&self) {
        let now = self.clock.now();
        loop {
            let waker = self.timers.borrow_mut().expired(now);
            match waker {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Runs ready tasks, the most deserving queue first.
    fn run_tasks(self: &Rc<Self>) {
        let turn_end = self.clock.now() + BUDGET;
        self.yielded.set(false);
        loop {
            let Some(queue) = self.queues.borrow_mut().next() else {
                return;
            };
            if is_background(queue) && self.ring.has_unsubmitted() {
                // The disk reads of statements do not wait for a slice of something else.
                self.check(self.ring.submit());
            }
            let started = self.clock.now();
            let ended = self.run_slice(queue, started);
            let ran = ended - started;
            self.queues.borrow_mut().charge(queue, ran);
            self.clock.spend(Activity::Queue(queue), ran);
            if self.yielded.replace(false)
                || ended >= turn_end
                || self.has_output()
                || self.ring.has_completions()
                || is_background(queue) && self.is_timer_due(ended)
            {
                return;
            }
        }
    }

    /// Polls tasks of one queue until it is empty or its slice is over. Returns the time.
    fn run_slice(self: &Rc<Self>, queue: TaskQueue, started: Instant) -> Instant {
        self.slice.set(match is_background(queue) {
            true => YIELD_BACKGROUND_AFTER,
            false => YIELD_AFTER,
        });
        let mut now = started;
        let mut polled = 0;
        while now - started < self.slice.get() && !self.yielded.get() {
            let Some(id) = self.queues.borrow_mut().pop(queue) else {
                break;
            };
            let Some(mut body) = self.tasks.take(id) else {
                continue;
            };
            polled += 1;
            self.task_started.set(now);
            let poll = body.future.as_mut().poll(&mut Context::from_waker(&body.waker));
            match poll {
                Poll::Ready(()) => self.tasks.remove(id, body),
                Poll::Pending => self.tasks.put_back(id, body),
            }
            now = self.clock.read();
        }
        self.slice.set(YIELD_AFTER);
        self.handle.metrics.tasks_polled[queue_index(queue)].add(polled);
        now
    }

    fn is_timer_due(&self, now: Instant) -> bool {
        let next = self.timers.borrow().next_deadline();
        next.is_some_and(|deadline| deadline <= now)
    }

    fn has_output(&self) -> bool {
        self.network.get().is_some_and(|network| network.has_output())
            || self.mailbox.get().is_some_and(|mailbox| mailbox.has_outgoing())
    }

    fn send_output(&self) {
        if let Some(network) = self.network.get() {
            network.flush();
        }
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.flush(&self.ring);
        }
    }

    /// Ends the account of a turn.
    fn account(&self) {
        let metrics = &self.handle.metrics;
        metrics.turns.add(1);
        self.handle.ticks.fetch_add(1, Ordering::Relaxed);
        let spent = self.clock.spent.take();
        for (activity, time) in Activity::ALL.iter().zip(&spent) {
            if !time.is_zero() {
                metrics.run_nanos[activity.index()].add(time.as_nanos() as u64);
            }
        }
        let length = self.clock.now() - self.clock.turn_started.get();
        if length.as_nanos() as u64 > metrics.longest_turn_nanos.get() {
            metrics.longest_turn_nanos.set(length.as_nanos() as u64);
        }
        if length > STALL_LIMIT {
            self.stalled(length, &spent);
        }
        for queue in TaskQueue::QUEUES {
            metrics.tasks_ready[queue_index(queue)].set(self.queues.borrow().ready(queue) as u64);
        }
        metrics.tasks_alive.set(self.tasks.len() as u64);
        metrics.timers.set(self.timers.borrow().len() as u64);
    }

    #[cold]
    fn stalled(&self, length: Duration, spent: &[Duration; Activity::COUNT]) {
        let metrics = &self.handle.metrics;
        let culprit = Activity::ALL
            .into_iter()
            .max_by_key(|activity| spent[activity.index()]);
        let culprit = culprit.unwrap_or(Activity::Network);
        metrics.stalls[culprit.index()].add(1);
        let now = self.clock.now();
        let unlogged = self.clock.stalls_unlogged.get();
        if self
            .clock
            .stall_logged
            .get()
            .is_some_and(|logged| now - logged < STALL_LOG_INTERVAL)
        {
            self.clock.stalls_unlogged.set(unlogged + 1);
            return;
        }
        self.clock.stall_logged.set(Some(now));
        self.clock.stalls_unlogged.set(0);
        tracing::warn!(
            shard = self.handle.shard,
            task_queue = culprit.name(),
            turn_ms = length.as_millis() as u64,
            not_logged = unlogged,
            "stall: a turn of the event loop was over {} ms",
            STALL_LIMIT.as_millis()
        );
    }

    /// Submits, and sleeps when there is nothing to do.
    fn enter_kernel(&self, completions: &VecDeque<Completion>) {
        let busy = !completions.is_empty() || self.is_runnable();
        if busy {
            if self.ring.needs_enter() || self.ring.has_backlog() {
                self.check(self.ring.submit());
            }
            return;
        }
        let idle_since = self.clock.now();
        if self.spin(idle_since) {
            self.observe_gap(idle_since);
            return;
        }
        self.give_back_when_idle(idle_since);
        self.handle.prepare_sleep();
        if self.is_runnable() {
            self.handle.awake();
            self.check(self.ring.submit());
            return;
        }
        let until_timer = self
            .timers
            .borrow()
            .next_deadline()
            .map_or(HEARTBEAT, |deadline| {
                deadline
                    .saturating_duration_since(idle_since)
                    .max(Duration::from_nanos(1))
            });
        let unhurried = self.network.get().is_none_or(|network| network.take_unhurried());
        let outcome = self.ring.wait(until_timer.min(HEARTBEAT), unhurried);
        self.handle.awake();
        self.check(outcome);
        let metrics = &self.handle.metrics;
        metrics.parks.add(1);
        metrics
            .parked_nanos
            .add(self.observe_gap(idle_since).as_nanos() as u64);
    }

    /// Gives freed memory back to the kernel once the shard has been idle for a while: the buffers of a burst are not
    /// kept for ever.
    fn give_back_when_idle(&self, now: Instant) {
        let (started, parked) = self.clock.window.get();
        let length = now.saturating_duration_since(started);
        if length < IDLE_WINDOW {
            return;
        }
        let metrics = &self.handle.metrics;
        let parked_now = metrics.parked_nanos.get();
        self.clock.window.set((now, parked_now));
        let busy = (length.as_nanos() as u64).saturating_sub(parked_now - parked);
        let moved = metrics.bytes_sent.get()
            + metrics.bytes_received.get()
            + metrics.disk_read_bytes.get()
            + metrics.disk_written_bytes.get();
        if busy * IDLE_SHARE > length.as_nanos() as u64
            || moved - self.clock.moved_at_give_back.get() < GIVE_BACK_AFTER
        {
            return;
        }
        self.clock.moved_at_give_back.set(moved);
        crate::allocator::give_back_freed();
        metrics.memory_give_backs.add(1);
    }

    fn is_runnable(&self) -> bool {
        !self.queues.borrow().is_empty()
            || self.handle.has_work()
            || self.mailbox.get().is_some_and(|mailbox| mailbox.has_incoming())
    }

    /// Looks for work for a while instead of sleeping, when work tends to come that soon. True when it found some.
    fn spin(&self, since: Instant) -> bool {
        if self.spin.is_zero() || self.clock.mean_gap.get() > self.spin {
            return false;
        }
        if self.ring.needs_enter() {
            self.check(self.ring.submit());
        }
        while since.elapsed() < self.spin {
            if self.ring.has_completions() || self.is_runnable() {
                if self.ring.needs_enter() {
                    self.check(self.ring.submit());
                }
                self.handle.metrics.spin_hits.add(1);
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Takes an idle time into the running mean and returns it.
    fn observe_gap(&self, since: Instant) -> Duration {
        let gap = since.elapsed();
        let mean = self.clock.mean_gap.get().min(HEARTBEAT);
        self.clock
            .mean_gap
            .set(mean - (mean / (1 << GAP_SHIFT)) + gap.min(HEARTBEAT) / (1 << GAP_SHIFT));
        gap
    }

    /// The ring is the shard's only way to the world: without it the process cannot go on.
    fn check(&self, outcome: std::io::Result<()>) {
        if let Err(error) = outcome {
            panic!("the ring of shard {} failed: {error}", self.handle.shard);
        }
    }

    /// Drops tasks, closes connections, and waits until the kernel has let go of every buffer.
    fn end(self: &Rc<Self>, completions: &mut VecDeque<Completion>) {
        let network = self.network.get().expect("attached before it runs");
        let mailbox = self.mailbox.get().expect("attached before it runs");
        self.send_output();
        self.handle.ended.store(true, Ordering::Relaxed);
        self.tasks.clear();
        network.close_all();
        let started = Instant::now();
        loop {
            network.flush();
            mailbox.flush(&self.ring);
            self.ring.reap(completions);
            while let Some(completion) = completions.pop_front() {
                match completion.kind() {
                    Kind::Operation => self.ring.complete(completion),
                    Kind::Accept | Kind::Receive | Kind::Send => network.complete(completion),
                    Kind::Bell | Kind::Ignored | Kind::Wake => {}
                }
            }
            self.tasks.clear();
            if self.ring.operations_running() == 0 && network.is_quiet() {
                break;
            }
            if started.elapsed() > FAREWELL {
                self.ring.leak_operations();
                network.leak();
                break;
            }
            self.check(self.ring.wait(Duration::from_millis(10), false));
        }
        self.handle.set_ring(None);
    }
}
