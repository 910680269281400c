//! Tasks and their wakers.
//!
//! A task's future lives in the shard's table and is polled and dropped by the shard's thread only. What a waker
//! shares between threads is the small [`TaskHandle`]: which task, and whether it is scheduled already. So a waker may go
//! to any thread, and no future ever does.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use ceto_env::{LocalFuture, TaskQueue};
use slab::Slab;

use super::Executor;
use crate::handle::ShardHandle;

/// Most tasks alive on a shard. Requests are limited long before; more means a leak, and the process ends.
const MAX_TASKS: usize = 1 << 22;

/// A task: its place in the table, and which of the place's tasks it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct TaskId {
    slot: u32,
    generation: u32,
}

/// The part of a task that wakers reach.
pub(super) struct TaskHandle {
    id: TaskId,
    queue: TaskQueue,
    /// Set from the wake until the poll begins; for ever once the task is done.
    scheduled: AtomicBool,
    shard: Arc<ShardHandle>,
}

impl Wake for TaskHandle {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = Executor::with_current(|executor| {
            let same = Arc::ptr_eq(&executor.handle, &self.shard);
            if same {
                executor.schedule(self.queue, self.id);
            }
            same
        });
        if here != Some(true) && self.shard.wakes.push(self.id).is_ok() {
            self.shard.wake();
        }
    }
}

/// What is polled.
pub(super) struct TaskBody {
    pub(super) future: LocalFuture<'static, ()>,
    pub(super) waker: Waker,
    pub(super) handle: Arc<TaskHandle>,
}

struct TaskSlot {
    generation: u32,
    queue: TaskQueue,
    /// None while it is being polled.
    body: Option<TaskBody>,
}

/// All tasks of a shard.
#[derive(Default)]
pub(super) struct Tasks {
    slots: RefCell<Slab<TaskSlot>>,
    next_generation: std::cell::Cell<u32>,
}

impl Tasks {
    /// Adds a task, scheduled: the caller queues its id.
    pub(super) fn insert(
        &self,
        queue: TaskQueue,
        shard: &Arc<ShardHandle>,
        future: LocalFuture<'static, ()>,
    ) -> TaskId {
        let mut slots = self.slots.borrow_mut();
        assert!(
            slots.len() < MAX_TASKS,
            "more than {MAX_TASKS} tasks on shard {}",
            shard.shard
        );
        let generation = self.next_generation.get();
        self.next_generation.set(generation.wrapping_add(1));
        let entry = slots.vacant_entry();
        let id = TaskId {
            slot: entry.key() as u32,
            generation,
        };
        let handle = Arc::new(TaskHandle {
            id,
            queue,
            scheduled: AtomicBool::new(true),
            shard: Arc::clone(shard),
        });
        let waker = Waker::from(Arc::clone(&handle));
        entry.insert(TaskSlot {
            generation,
            queue,
            body: Some(TaskBody {
                future,
                waker,
                handle,
            }),
        });
        id
    }

    /// The queue of a task that is alive.
    pub(super) fn queue(&self, id: TaskId) -> Option<TaskQueue> {
        let slots = self.slots.borrow();
        let slot = slots.get(id.slot as usize)?;
        (slot.generation == id.generation).then_some(slot.queue)
    }

    /// Takes a task out to poll it; wakes from now on schedule it again.
    pub(super) fn take(&self, id: TaskId) -> Option<TaskBody> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let body = slot.body.take()?;
        body.handle.scheduled.store(false, Ordering::Release);
        Some(body)
    }

    /// Puts a pending task back.
    pub(super) fn put_back(&self, id: TaskId, body: TaskBody) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(id.slot as usize) {
            slot.body = Some(body);
        }
    }

    /// Removes a task that is done.
    pub(super) fn remove(&self, id: TaskId, body: TaskBody) {
        body.handle.scheduled.store(true, Ordering::Release);
        self.slots.borrow_mut().try_remove(id.slot as usize);
        drop(body);
    }

    /// Drops every task. Their destructors may still spawn: those go as well.
    pub(super) fn clear(&self) {
        loop {
            let slots = std::mem::take(&mut *self.slots.borrow_mut());
            if slots.is_empty() {
                return;
            }
            for (_, slot) in slots {
                if let Some(body) = slot.body {
                    body.handle.scheduled.store(true, Ordering::Release);
                    drop(body);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.borrow().len()
    }
}
