//! What other threads can reach of a shard: its doorbell and its inboxes.
//!
//! Sleeping and waking: a shard that finds nothing to do sets `sleeping`, looks at every inbox once more, and waits in
//! the kernel. A sender fills an inbox, then looks at `sleeping`. Both sides have a sequentially consistent fence
//! between their two steps, so that either the shard sees the message or the sender sees the sleep. Only the sender
//! that turns `sleeping` off rings, so that one sleep costs one wake-up.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering, fence};

use crate::disk::BlockingDone;
use crate::executor::TaskId;
use crate::metrics::RuntimeMetrics;
use crate::network::{AcceptedSocket, MAX_SOCKETS_UNDERWAY};
use crate::stack::Stack;

/// The part of a shard that is shared between threads. Never locked.
pub(crate) struct ShardHandle {
    pub(crate) shard: u16,
    sleeping: AtomicBool,
    bell: OwnedFd,
    /// Descriptor of the shard's ring, -1 while there is none.
    ring: AtomicI32,
    /// Tasks woken by other threads. No bound of its own: at most one entry per task and wake.
    pub(crate) wakes: Stack<TaskId>,
    /// Sockets accepted for this shard.
    pub(crate) sockets: Stack<AcceptedSocket>,
    /// Results of calls made on helper threads. Bounded by the calls under way.
    pub(crate) blocking: Stack<BlockingDone>,
    /// Counts turns, for the watchdog.
    pub(crate) ticks: AtomicU64,
    /// The shard has left its loop.
    pub(crate) ended: AtomicBool,
    pub(crate) metrics: Arc<RuntimeMetrics>,
}

impl ShardHandle {
    pub(crate) fn new(shard: u16) -> io::Result<Self> {
        // SAFETY: a plain call without pointers.
        let bell = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if bell < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            shard,
            sleeping: AtomicBool::new(false),
            // SAFETY: eventfd just returned this descriptor and nothing else owns it.
            bell: unsafe { OwnedFd::from_raw_fd(bell) },
            ring: AtomicI32::new(-1),
            wakes: Stack::new(usize::MAX),
            sockets: Stack::new(MAX_SOCKETS_UNDERWAY),
            blocking: Stack::new(usize::MAX),
            ticks: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            metrics: Arc::default(),
        })
    }

    /// Descriptor that becomes readable when the bell is rung.
    pub(crate) fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Descriptor of the shard's ring, for messages between rings.
    pub(crate) fn ring(&self) -> Option<RawFd> {
        match self.ring.load(Ordering::Relaxed) {
            -1 => None,
            descriptor => Some(descriptor),
        }
    }

    pub(crate) fn set_ring(&self, descriptor: Option<RawFd>) {
        self.ring.store(descriptor.unwrap_or(-1), Ordering::Relaxed);
    }

    /// First half of going to sleep; the shard looks at its inboxes after it.
    pub(crate) fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake again, or never slept.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// True for the one sender that has to ring. Called after an inbox was filled.
    pub(crate) fn claim_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel)
    }

    /// Rings if the shard sleeps. Called after an inbox was filled.
    pub(crate) fn wake(&self) {
        if self.claim_wake() {
            self.ring_bell();
        }
    }

    /// Ends the current or next wait of the shard.
    pub(crate) fn ring_bell(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the descriptor is open as long as self and the buffer has the 8 bytes an eventfd wants. The write fails
        // only when the counter is at its end, and then the bell has been rung.
        unsafe { libc::write(self.bell(), one.as_ptr().cast(), one.len()) };
        self.metrics.wakeups_received.add_shared(1);
    }

    /// Something for the shard lies in one of the inboxes here.
    pub(crate) fn has_work(&self) -> bool {
        !self.wakes.is_empty() || !self.sockets.is_empty() || !self.blocking.is_empty()
    }
}
