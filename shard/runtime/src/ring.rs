//! One io_uring per shard, for sockets, files and wake-ups alike.
//!
//! Never used by another thread than the one that made it (SINGLE_ISSUER). Completions are posted only while the shard
//! itself is in `io_uring_enter` (DEFER_TASKRUN), so no interrupt breaks into running tasks; where the kernel lacks
//! that, COOP_TASKRUN comes near it.
//!
//! A completion says what it is for in its 64 bits of user data:
//!
//! ```text
//!   63     56 55                                            0
//!  +---------+-----------------------------------------------+
//!  |  kind   |  payload: slot of an operation, a connection   |
//!  +---------+-----------------------------------------------+
//! ```
//!
//! One-shot operations (files) are futures: [`Operation`]. What the kernel still reads or writes is owned by the
//! operation's slot, not by the future, so that a dropped future frees nothing under the kernel's hands.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use crate::disk::Held;
use crate::error::Error;

/// Slots of the submission queue; a fuller turn submits in between.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Slots of the completion queue; the kernel keeps what does not fit.
const COMPLETION_ENTRIES: u32 = 8192;
/// Longest wait that lets completed sends lie (see [`Ring::wait`]).
const UNHURRIED_WAIT: Duration = Duration::from_millis(5);

/// What a completion is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nothing waits for it: cancellations.
    Ignored = 0,
    /// A one-shot operation; the payload is its slot.
    Operation = 1,
    /// The doorbell; the payload is unused.
    Bell = 2,
    /// A multishot accept; the payload is the listener.
    Accept = 3,
    /// A multishot receive; the payload is the connection.
    Receive = 4,
    /// A send; the payload is the connection.
    Send = 5,
    /// A wake-up of another shard that failed; the payload is that shard.
    Wake = 6,
}

const PAYLOAD_BITS: u32 = 56;

pub(crate) fn user_data(kind: Kind, payload: u64) -> u64 {
    debug_assert!(payload >> PAYLOAD_BITS == 0, "payload too large");
    (kind as u64) << PAYLOAD_BITS | payload
}

/// A completion queue entry, copied out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Completion {
    pub(crate) fn kind(&self) -> Kind {
        match (self.user_data >> PAYLOAD_BITS) as u8 {
            1 => Kind::Operation,
            2 => Kind::Bell,
            3 => Kind::Accept,
            4 => Kind::Receive,
            5 => Kind::Send,
            6 => Kind::Wake,
            _ => Kind::Ignored,
        }
    }

    pub(crate) fn payload(&self) -> u64 {
        self.user_data & ((1 << PAYLOAD_BITS) - 1)
    }

    /// The multishot operation goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that holds the data.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

enum Slot {
    Running {
        waker: Option<Waker>,
        held: Held,
    },
    Done {
        result: i32,
        held: Held,
    },
    /// Its future is gone; what it held goes when the kernel is through with it.
    Abandoned {
        held: Held,
    },
}

/// The ring of one shard.
pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    /// What found the submission queue full while the kernel took nothing more.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    operations: RefCell<Slab<Slot>>,
    /// Sends pushed since the last submission that complete while they are submitted.
    instant: Cell<u32>,
}

impl Ring {
    /// Sets the ring up. To be called on the thread that will use it.
    pub(crate) fn new() -> Result<Self, Error> {
        let uring = IoUring::builder()
            .dontfork()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_clamp()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSION_ENTRIES)
            .or_else(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => IoUring::builder()
                    .dontfork()
                    .setup_cqsize(COMPLETION_ENTRIES)
                    .setup_clamp()
                    .setup_submit_all()
                    .setup_coop_taskrun()
                    .setup_taskrun_flag()
                    .build(SUBMISSION_ENTRIES),
                _ => Err(error),
            })
            .map_err(Error::RingRefused)?;
        // A filter may allow the set-up and forbid this.
        uring.submit().map_err(Error::RingRefused)?;
        let features = uring.params();
        if !features.is_feature_ext_arg() || !features.is_feature_nodrop() {
            return Err(Error::RingTooOld {
                what: "wait with a timeout",
                source: io::Error::from_raw_os_error(libc::ENOSYS),
            });
        }
        Ok(Self {
            uring: RefCell::new(uring),
            backlog: RefCell::default(),
            operations: RefCell::default(),
            instant: Cell::new(0),
        })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.uring.borrow().as_raw_fd()
    }

    /// Makes `entries` buffers of a buffer ring known to the kernel as group 0.
    ///
    /// # Safety
    /// The page-aligned memory at `address` holds `entries` descriptors and outlives this ring.
    pub(crate) unsafe fn register_buffers(&self, address: u64, entries: u16) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        unsafe {
            self.uring
                .borrow()
                .submitter()
                .register_buf_ring_with_flags(address, entries, 0, 0)
        }
    }

    /// Queues an entry for the next submission.
    ///
    /// # Safety
    /// Everything the entry points to stays valid until its (last) completion.
    pub(crate) unsafe fn push(&self, entry: squeue::Entry) {
        if self.backlog.borrow().is_empty() {
            // SAFETY: passed on to the caller.
            if unsafe { self.uring.borrow_mut().submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: let the kernel take it. Errors show again at the end of the turn.
            let _ = self.uring.borrow().submit();
            // SAFETY: as above.
            if unsafe { self.uring.borrow_mut().submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.borrow_mut().push_back(entry);
    }

    /// Says that an entry just pushed completes during its submission, whatever its outcome.
    pub(crate) fn count_instant(&self) {
        self.instant.set(self.instant.get() + 1);
    }

    /// Wakes shard `shard` through its ring, with the next submission. Only a failure makes a completion here.
    pub(crate) fn push_wake(&self, shard: u16, ring: RawFd) {
        let entry = opcode::MsgRingData::new(types::Fd(ring), 0, user_data(Kind::Bell, 0), None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Kind::Wake, u64::from(shard)));
        // SAFETY: the entry points to nothing.
        unsafe { self.push(entry) };
    }

    /// Watches the doorbell until told otherwise; each ring of it makes one completion.
    pub(crate) fn push_bell(&self, bell: RawFd) {
        let entry = opcode::PollAdd::new(types::Fd(bell), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data(Kind::Bell, 0));
        // SAFETY: the entry points to nothing.
        unsafe { self.push(entry) };
    }

    /// Cancels the operation with this user data.
    pub(crate) fn push_cancel(&self, target: u64) {
        let entry = opcode::AsyncCancel::new(target)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Kind::Ignored, 0));
        // SAFETY: the entry points to nothing.
        unsafe { self.push(entry) };
    }

    /// Starts a one-shot operation.
    ///
    /// # Safety
    /// Everything the entry points to is owned by `held`.
    pub(crate) unsafe fn start(self: &Rc<Self>, entry: squeue::Entry, held: Held) -> Operation {
        let slot = self
            .operations
            .borrow_mut()
            .insert(Slot::Running { waker: None, held });
        let entry = entry.user_data(user_data(Kind::Operation, slot as u64));
        // SAFETY: the slot keeps `held` until the completion was seen.
        unsafe { self.push(entry) };
        Operation {
            ring: Rc::clone(self),
            slot: Some(slot),
        }
    }

    /// Operations the kernel has not completed.
    pub(crate) fn operations_running(&self) -> usize {
        let operations = self.operations.borrow();
        operations
            .iter()
            .filter(|(_, slot)| !matches!(slot, Slot::Done { .. }))
            .count()
    }

    /// Forgets, without freeing, what the kernel may still write to. For the end of a shard that cannot wait longer.
    pub(crate) fn leak_operations(&self) {
        std::mem::forget(std::mem::take(&mut *self.operations.borrow_mut()));
    }

    /// Ends a one-shot operation and wakes its task.
    pub(crate) fn complete(&self, completion: Completion) {
        let key = completion.payload() as usize;
        let mut operations = self.operations.borrow_mut();
        let Some(slot) = operations.get_mut(key) else {
            return;
        };
        match std::mem::replace(slot, Slot::Abandoned { held: Held::Nothing }) {
            Slot::Running { waker, held } => {
                *slot = Slot::Done {
                    result: completion.result,
                    held,
                };
                drop(operations);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Slot::Abandoned { held } => {
                operations.remove(key);
                drop(operations);
                drop(held);
            }
            done @ Slot::Done { .. } => *slot = done,
        }
    }

    /// Copies every posted completion to the end of `into`.
    pub(crate) fn reap(&self, into: &mut VecDeque<Completion>) {
        let mut uring = self.uring.borrow_mut();
        into.extend(uring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// There is something to submit, or the kernel has completions to post.
    pub(crate) fn needs_enter(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let submission = uring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// There is something to submit.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        !self.uring.borrow_mut().submission().is_empty()
    }

    /// Completions are posted or about to be.
    pub(crate) fn has_completions(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        if !uring.completion().is_empty() {
            return true;
        }
        let submission = uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Submits what is queued and has pending completions posted, without waiting.
    pub(crate) fn submit(&self) -> io::Result<()> {
        self.enter(0, None)
    }

    /// Submits what is queued and waits for a completion, at most `timeout`.
    ///
    /// Sends that complete while they are submitted do not end the wait when `unhurried`: they would, each time, for no
    /// more than to free a buffer. They are seen at the next completion, or after five milliseconds.
    pub(crate) fn wait(&self, timeout: Duration, unhurried: bool) -> io::Result<()> {
        let instant = self.instant.get();
        if unhurried && instant > 0 {
            self.enter(instant as usize + 1, Some(timeout.min(UNHURRIED_WAIT)))
        } else {
            self.enter(1, Some(timeout))
        }
    }

    fn enter(&self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.submit_backlog();
        self.instant.set(0);
        let uring = self.uring.borrow();
        let outcome = match timeout {
            Some(timeout) => {
                let timeout = types::Timespec::from(timeout);
                uring
                    .submitter()
                    .submit_with_args(want, &types::SubmitArgs::new().timespec(&timeout))
            }
            None => uring.submit(),
        };
        match outcome {
            Ok(_) => Ok(()),
            // The wait ended, a signal came, or completions have to be reaped first: all of them a next turn.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn submit_backlog(&self) {
        let mut backlog = self.backlog.borrow_mut();
        while let Some(entry) = backlog.front() {
            // SAFETY: the caller of push vouched for the entry until its completion, which cannot have come yet.
            if unsafe { self.uring.borrow_mut().submission().push(entry) }.is_err() {
                let _ = self.uring.borrow().submit();
                // SAFETY: as above.
                if unsafe { self.uring.borrow_mut().submission().push(entry) }.is_err() {
                    return;
                }
            }
            backlog.pop_front();
        }
    }

    /// Something waits for room in the submission queue.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.borrow().is_empty()
    }
}

/// A one-shot operation under way: resolves to the kernel's result and what was held for it.
pub(crate) struct Operation {
    ring: Rc<Ring>,
    slot: Option<usize>,
}

impl Operation {
    /// Asks the kernel to give the operation up; it completes with an error then, or as it would have.
    pub(crate) fn cancel(&self) {
        if let Some(slot) = self.slot {
            self.ring.push_cancel(user_data(Kind::Operation, slot as u64));
        }
    }
}

impl Future for Operation {
    type Output = (i32, Held);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.slot.expect("an operation is not polled after its end");
        let mut operations = self.ring.operations.borrow_mut();
        match operations
            .get_mut(key)
            .expect("the slot lives as long as its future")
        {
            Slot::Running { waker, .. } => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            Slot::Done { .. } => {
                let Slot::Done { result, held } = operations.remove(key) else {
                    unreachable!("matched above")
                };
                drop(operations);
                self.slot = None;
                Poll::Ready((result, held))
            }
            Slot::Abandoned { .. } => unreachable!("only a dropped future abandons its slot"),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Some(key) = self.slot.take() else { return };
        let mut operations = self.ring.operations.borrow_mut();
        let Some(slot) = operations.get_mut(key) else {
            return;
        };
        match std::mem::replace(slot, Slot::Abandoned { held: Held::Nothing }) {
            Slot::Running { held, .. } | Slot::Abandoned { held } => {
                // Files are read and written in no time, but a connect may wait for minutes.
                if matches!(held, Held::Socket(_)) {
                    self.ring.push_cancel(user_data(Kind::Operation, key as u64));
                }
                *slot = Slot::Abandoned { held };
            }
            Slot::Done { held, .. } => {
                operations.remove(key);
                drop(operations);
                drop(held);
            }
        }
    }
}
