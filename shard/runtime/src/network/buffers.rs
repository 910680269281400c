//! Receive buffers that the kernel picks from: a ring of descriptors shared with it (group 0 of the shard's ring).
//!
//! ```text
//!   entries (one page-aligned array)                     memory
//!  +---------+--------+-------+---------------+        +----------+----------+--
//!  | address | length | index | tail (slot 0) |  ...   | buffer 0 | buffer 1 | ..
//!  +---------+--------+-------+---------------+        +----------+----------+--
//!     8 bytes    4        2        2
//! ```
//!
//! A buffer is with the kernel, or with us from its completion until [`ReceiveBuffers::give_back`]. Given back are
//! exactly the buffers that completions named.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::aligned::AlignedBuffer;
use crate::ring::Ring;

/// The shard's receive buffers.
pub(super) struct ReceiveBuffers {
    entries: AlignedBuffer,
    memory: AlignedBuffer,
    count: u16,
    size: usize,
    tail: Cell<u16>,
    unpublished: Cell<bool>,
}

impl ReceiveBuffers {
    /// `count` buffers (a power of two) of `size` bytes each.
    pub(super) fn new(count: u16, size: usize) -> Self {
        assert!(count.is_power_of_two(), "a ring has a power of two of entries");
        let buffers = Self {
            entries: AlignedBuffer::zeroed(usize::from(count) * size_of::<BufRingEntry>()),
            memory: AlignedBuffer::zeroed(usize::from(count) * size),
            count,
            size,
            tail: Cell::new(0),
            unpublished: Cell::new(false),
        };
        for index in 0..count {
            buffers.give_back(index);
        }
        buffers.publish();
        buffers
    }

    /// Shows the buffers to the kernel.
    pub(super) fn register(&self, ring: &Ring) -> io::Result<()> {
        // SAFETY: the entries are page-aligned, `count` long, and the network ring that owns them keeps its ring's
        // teardown before theirs (or leaks them).
        unsafe { ring.register_buffers(self.entries.as_ptr() as u64, self.count) }
    }

    /// What the kernel wrote to a buffer that a completion named. Empty when it names no buffer of ours.
    pub(super) fn received(&self, index: u16, length: usize) -> &[u8] {
        if index >= self.count || length > self.size {
            return &[];
        }
        let start = usize::from(index) * self.size;
        // SAFETY: inside the memory (checked above); the kernel is done with this buffer until it is given back, which
        // only happens after the slice's use.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(start), length) }
    }

    /// Hands a buffer to the kernel with the next [`Self::publish`].
    pub(super) fn give_back(&self, index: u16) {
        if index >= self.count {
            return;
        }
        let place = usize::from(self.tail.get() & (self.count - 1));
        // SAFETY: place < count entries; the kernel reads entries below the published tail only.
        unsafe {
            let entry = self.entries.as_ptr().cast::<BufRingEntry>().add(place);
            (*entry).set_addr(self.memory.as_ptr().add(usize::from(index) * self.size) as u64);
            (*entry).set_len(self.size as u32);
            (*entry).set_bid(index);
        }
        self.tail.set(self.tail.get().wrapping_add(1));
        self.unpublished.set(true);
    }

    /// Shows what was given back to the kernel.
    pub(super) fn publish(&self) {
        if !self.unpublished.replace(false) {
            return;
        }
        // SAFETY: the tail lies in the first entry of the ring, is 2-aligned, and is only ever accessed atomically.
        let tail =
            unsafe { &*BufRingEntry::tail(self.entries.as_ptr().cast::<BufRingEntry>()).cast::<AtomicU16>() };
        tail.store(self.tail.get(), Ordering::Release);
    }
}
