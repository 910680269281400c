//! Delivery: files of hints to nodes that are up, oldest first.
//!
//! One task for each target; what it has sent and has no answer for is bounded, by count and by bytes. A file is removed
//! when all of it has been taken. When one of its hints fails the delivery rests and begins with that file again, which
//! changes nothing where a hint has been taken already.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_env::{LocalFuture, TaskQueue};
use ceto_internode::{Call, HostId};
use tracing::{info, warn};

use super::segment::{FileName, Hint, Hints};
use super::{FILE_SIZE, Node};
use crate::peers::CallResult;

/// Time between looks at what is to be delivered.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Looks between syncs of what was written.
const LOOKS_PER_SYNC: u32 = 10;
/// Hints of one target that are sent and not answered.
const WINDOW: usize = 128;
/// Their bytes; one more hint is sent when there is none.
const WINDOW_BYTES: usize = 2 << 20;
/// Rest after a failed delivery: at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of the largest file: one hint may be as large as a mutation.
const FILE_MAX: u64 = 1 << 30;

/// What is sent and not answered.
#[derive(Default)]
struct Window {
    calls: VecDeque<(LocalFuture<'static, CallResult>, usize)>,
    bytes: usize,
}

impl Window {
    fn is_full(&self, next: usize) -> bool {
        !self.calls.is_empty() && (self.calls.len() >= WINDOW || self.bytes + next > WINDOW_BYTES)
    }

    async fn oldest(&mut self) -> Option<CallResult> {
        let (call, size) = self.calls.pop_front()?;
        self.bytes -= size;
        Some(call.await)
    }
}

impl Node {
    /// Starts the task that looks for something to deliver.
    pub(super) fn run_deliveries(self: &Rc<Self>) {
        if self.hints.is_running.replace(true) {
            return;
        }
        let node = Rc::downgrade(self);
        let env = self.env.clone();
        let task = async move {
            let mut looks = 0;
            loop {
                env.tasks().sleep(LOOK_PERIOD).await;
                let Some(node) = node.upgrade().filter(|node| !node.is_storage_draining()) else {
                    return;
                };
                looks += 1;
                node.begin_deliveries();
                if looks % LOOKS_PER_SYNC == 0 {
                    node.sync_hints().await;
                }
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    /// Lets power loss take nothing that is written by now.
    async fn sync_hints(self: &Rc<Self>) {
        let dirty: Vec<_> = {
            let mut targets = self.hints.targets.borrow_mut();
            let dirty = targets.values_mut().filter(|target| target.is_dirty);
            dirty
                .filter_map(|target| {
                    target.is_dirty = false;
                    target.open.as_ref().map(|(_, file, _)| file.clone())
                })
                .collect()
        };
        for file in dirty {
            if let Err(error) = file.sync().await {
                warn!(%error, "hints may be lost when the power fails");
            }
        }
    }

    fn begin_deliveries(self: &Rc<Self>) {
        if self.hints.is_paused.get() {
            return;
        }
        let now = self.env.clock().now();
        let topology = self.topology();
        let mut ready = Vec::new();
        for (host, target) in self.hints.targets.borrow_mut().iter_mut() {
            let is_alive = topology.peer(*host).is_some_and(|peer| peer.is_alive);
            let rests = target.rests_until.is_some_and(|until| now < until);
            let has_some = target.open.is_some() || !target.full.is_empty();
            if is_alive && !rests && has_some && !target.is_delivering {
                target.seal();
                target.is_delivering = true;
                ready.push(*host);
            }
        }
        for host in ready {
            let node = self.clone();
            let task = async move { node.deliver_to(host).await };
            self.env.tasks().spawn(TaskQueue::Streaming, Box::pin(task));
        }
    }

    async fn deliver_to(self: Rc<Self>, host: HostId) {
        let began = self.env.clock().now();
        let mut count = 0;
        let mut outcome = Ok(());
        while let Some(name) = self.next_file(host) {
            match self.deliver_file(&name, &mut count).await {
                Ok(bytes) => self.file_delivered(name, bytes).await,
                Err(why) => {
                    outcome = Err(why);
                    break;
                }
            }
        }
        let mut targets = self.hints.targets.borrow_mut();
        let Some(target) = targets.get_mut(&host) else {
            return;
        };
        target.is_delivering = false;
        match outcome {
            Ok(()) => {
                target.pause = Duration::ZERO;
                if count > 0 {
                    let took = self.env.clock().now() - began;
                    info!(%host, hints = count, ?took, "hints delivered");
                }
            }
            Err(why) => {
                target.pause = (target.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                target.rests_until = Some(self.env.clock().now() + target.pause);
                info!(%host, hints = count, "delivery of hints rests: {why}");
            }
        }
    }

    fn next_file(&self, host: HostId) -> Option<FileName> {
        if self.hints.is_paused.get() {
            return None;
        }
        let targets = self.hints.targets.borrow();
        targets.get(&host)?.full.first().copied()
    }

    /// Delivers one file; answers its size.
    async fn deliver_file(self: &Rc<Self>, name: &FileName, count: &mut u64) -> Result<u64, String> {
        let path = self.hint_path(name);
        let read = self.env.disk().read_file(&path, FILE_MAX).await;
        let file = match read {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(0),
            Err(error) => return Err(error.to_string()),
        };
        let size = file.len() as u64;
        let hints = match Hints::open(file) {
            Ok(hints) => hints,
            Err(why) => {
                warn!(path = %path.display(), "{why}; it is removed");
                return Ok(size);
            }
        };
        let mut window = Window::default();
        let mut outcome = Ok(());
        let (began, mut sent) = (self.env.clock().now(), 0);
        for hint in hints {
            if self.is_outdated(&hint) {
                self.hints.outdated.increment();
                continue;
            }
            while outcome.is_ok() && window.is_full(hint.size) {
                outcome = self.note_delivery(window.oldest().await, count);
            }
            if outcome.is_err() {
                break;
            }
            sent += hint.size as u64;
            self.keep_pace(began, sent).await;
            self.send_hint(name.host, hint, &mut window);
            if let Some(turn) = self.env.tasks().yield_if_due() {
                turn.await;
            }
        }
        while let Some(answer) = window.oldest().await {
            outcome = outcome.and(self.note_delivery(Some(answer), count));
        }
        outcome.map(|()| size)
    }

    fn send_hint(self: &Rc<Self>, host: HostId, hint: Hint, window: &mut Window) {
        let timeout = self.settings().limits.write_timeout;
        let call = self.call(host, Call::Apply(hint.mutation.into()), timeout);
        window.bytes += hint.size;
        window.calls.push_back((Box::pin(call), hint.size));
    }

    fn note_delivery(&self, answer: Option<CallResult>, count: &mut u64) -> Result<(), String> {
        match answer {
            None => Ok(()),
            Some(Ok(())) => {
                self.hints.delivered.increment();
                *count += 1;
                Ok(())
            }
            Some(Err(failure)) => {
                self.hints.failed.increment();
                Err(failure.message)
            }
        }
    }

    /// Waits while more has been sent than `hinted_handoff_throttle` allows.
    async fn keep_pace(&self, began: Instant, sent: u64) {
        let Some(throttle) = self.options.hints.throttle.filter(|throttle| *throttle > 0) else {
            return;
        };
        let due = began + Duration::from_secs_f64(sent as f64 / throttle as f64);
        let now = self.env.clock().now();
        if due > now {
            self.env.tasks().sleep(due - now).await;
        }
    }

    /// It must not reach its replica any more.
    fn is_outdated(&self, hint: &Hint) -> bool {
        let schema = self.schema();
        let Some(table) = schema.table_by_id(hint.mutation.table) else {
            return true;
        };
        let age_seconds = (self.env.clock().unix_micros() - hint.created) / 1_000_000;
        let truncated = self.hints.truncated.borrow().get(&hint.mutation.table).copied();
        age_seconds > i64::from(table.options.gc_grace_seconds)
            || truncated.is_some_and(|at| hint.created <= at)
    }

    async fn file_delivered(self: &Rc<Self>, name: FileName, size: u64) {
        if let Some(target) = self.hints.targets.borrow_mut().get_mut(&name.host) {
            target.full.remove(&name);
            target.bytes = match target.full.is_empty() && target.open.is_none() && target.queue.is_empty() {
                true => 0,
                false => target.bytes.saturating_sub(size.min(FILE_SIZE)),
            };
        }
        if let Err(error) = self.env.disk().remove_file(&self.hint_path(&name)).await {
            warn!(%error, "a file of hints stays; it will be delivered again");
        }
    }
}
