//! One io_uring with receive buffers that the kernel picks from: what both the bare echo and the load run on.
//!
//! Set up as the server's own ring is (one issuer, deferred task work), so that the comparison is with the same kernel
//! interface. All `unsafe` of this crate that touches memory is here.
//!
//! ```text
//!   entries (page-aligned)                               memory
//!  +---------+--------+-------+---------------+        +----------+----------+--
//!  | address | length | index | tail (slot 0) |  ...   | buffer 0 | buffer 1 | ..
//!  +---------+--------+-------+---------------+        +----------+----------+--
//!     8 bytes    4        2        2
//! ```
//!
//! Never: a buffer is read while the kernel owns it, or handed back twice; a ring is dropped (its owner is leaked, one per
//! process), so that the kernel never writes to freed memory.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Slots of the submission queue; a fuller turn submits in between.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Slots of the completion queue.
const COMPLETION_ENTRIES: u32 = 8192;
/// Receive buffers, a power of two, and the size of each.
const RECEIVE_BUFFERS: u16 = 256;
const RECEIVE_BUFFER_SIZE: usize = 16 << 10;
/// Longest wait that lets completed sends lie (see [`Ring::wait`]).
const UNHURRIED_WAIT: Duration = Duration::from_millis(5);

/// What a completion is for. The payload beside it is the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A multishot accept.
    Accept = 1,
    /// A multishot receive.
    Receive = 2,
    /// A send.
    Send = 3,
}

const PAYLOAD_BITS: u32 = 56;

fn user_data(kind: Kind, connection: usize) -> u64 {
    (kind as u64) << PAYLOAD_BITS | connection as u64
}

/// A completion queue entry, copied out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    user_data: u64,
    /// Bytes, a descriptor, or a negative error number.
    pub(crate) result: i32,
    flags: u32,
}

impl Completion {
    pub(crate) fn kind(&self) -> Kind {
        match self.user_data >> PAYLOAD_BITS {
            1 => Kind::Accept,
            2 => Kind::Receive,
            _ => Kind::Send,
        }
    }

    pub(crate) fn connection(&self) -> usize {
        (self.user_data & ((1 << PAYLOAD_BITS) - 1)) as usize
    }

    /// The multishot operation goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that holds the data.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

fn pages(bytes: usize) -> Vec<Page> {
    vec![Page([0; 4096]); bytes.div_ceil(size_of::<Page>())]
}

/// The ring and its receive buffers.
pub(crate) struct Ring {
    uring: IoUring,
    entries: Vec<Page>,
    memory: Vec<Page>,
    tail: u16,
    /// Sends pushed since the last submission.
    sends: usize,
}

impl Ring {
    /// Sets the ring up. To be called on the thread that will use it.
    pub(crate) fn new() -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSION_ENTRIES)?;
        let mut ring = Ring {
            uring,
            entries: pages(usize::from(RECEIVE_BUFFERS) * size_of::<BufRingEntry>()),
            memory: pages(usize::from(RECEIVE_BUFFERS) * RECEIVE_BUFFER_SIZE),
            tail: 0,
            sends: 0,
        };
        for index in 0..RECEIVE_BUFFERS {
            ring.give_back(index);
        }
        ring.publish();
        let address = ring.entries.as_ptr() as u64;
        // SAFETY: the entries are page-aligned, as many as said, never resized, never freed.
        unsafe {
            ring.uring
                .submitter()
                .register_buf_ring_with_flags(address, RECEIVE_BUFFERS, 0, 0)?;
        }
        Ok(ring)
    }

    /// Accepts connections of this listening socket until the ring ends.
    pub(crate) fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(types::Fd(listener))
            .build()
            .user_data(user_data(Kind::Accept, 0));
        // SAFETY: the entry points to nothing.
        unsafe { self.push(&entry) }
    }

    /// Receives from this socket until a completion says otherwise.
    pub(crate) fn receive(&mut self, connection: usize, socket: RawFd) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(types::Fd(socket), 0)
            .build()
            .user_data(user_data(Kind::Receive, connection));
        // SAFETY: the buffers that the kernel picks from live as long as the process.
        unsafe { self.push(&entry) }
    }

    /// Sends all of `bytes`, most often while it is submitted.
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until the completion.
    pub(crate) unsafe fn send(&mut self, connection: usize, socket: RawFd, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(socket), bytes.as_ptr(), length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(user_data(Kind::Send, connection));
        self.sends += 1;
        // SAFETY: passed on to the caller.
        unsafe { self.push(&entry) }
    }

    /// # Safety
    /// Everything the entry points to stays valid until its (last) completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Submits what is queued and has pending completions posted, without waiting. No system call if there is neither.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.publish();
        self.sends = 0;
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            drop(queue);
            std::hint::spin_loop();
            return Ok(());
        }
        drop(queue);
        ended(self.uring.submit())
    }

    /// Submits what is queued and waits for a completion other than those of the sends just queued: those are done
    /// while they are submitted and would end the wait for nothing. A send that is not done is seen after 5 ms.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.publish();
        let sends = std::mem::take(&mut self.sends);
        if sends == 0 {
            return ended(self.uring.submit_and_wait(1));
        }
        let timeout = types::Timespec::from(UNHURRIED_WAIT);
        ended(
            self.uring
                .submitter()
                .submit_with_args(sends + 1, &types::SubmitArgs::new().timespec(&timeout)),
        )
    }

    /// Copies every posted completion to the end of `into`.
    pub(crate) fn reap(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.uring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// What the kernel wrote to a buffer that a completion named and that was not given back since.
    pub(crate) fn received(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(
            buffer < RECEIVE_BUFFERS && length <= RECEIVE_BUFFER_SIZE,
            "the kernel names buffers that it was given"
        );
        let start = usize::from(buffer) * RECEIVE_BUFFER_SIZE;
        // SAFETY: within the memory (checked above), which is initialised; the kernel is through with this buffer.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<u8>().add(start), length) }
    }

    /// Hands a buffer to the kernel at the next submission.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        assert!(
            buffer < RECEIVE_BUFFERS,
            "the kernel names buffers that it was given"
        );
        let place = usize::from(self.tail & (RECEIVE_BUFFERS - 1));
        // SAFETY: place and buffer are below the number of entries and buffers; the kernel reads entries below the
        // published tail only.
        unsafe {
            let address = self
                .memory
                .as_mut_ptr()
                .cast::<u8>()
                .add(usize::from(buffer) * RECEIVE_BUFFER_SIZE);
            let entry = &mut *self.entries.as_mut_ptr().cast::<BufRingEntry>().add(place);
            entry.set_addr(address as u64);
            entry.set_len(RECEIVE_BUFFER_SIZE as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        let first = self.entries.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the tail lies in the first entry, is aligned, and is only ever accessed atomically.
        let tail = unsafe { &*BufRingEntry::tail(first).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

/// A wait that ended without a completion is no error.
fn ended(outcome: io::Result<usize>) -> io::Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}
