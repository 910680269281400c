//! The memory of answers: what running reads build up, and what clients have not taken yet.
//!
//! ```text
//!   take --read, read, ...--> answer written --kernel takes bytes--> given back
//!    |  `-- share of the request: estimate, corrected when more is known --'
//!    `-- none left: waits, small ones apart from large ones
//! ```
//!
//! A shard has [`ResponseMemory`] of `native_transport_max_response_data_in_flight` divided by the shards. A read takes
//! its [`Share`] of it before it reads, and gives it back when its answer is written; from then on what the socket has
//! not sent counts. A quarter is kept for small answers of connections that owe little, so that a few clients that do
//! not read stop large answers at most, until [`stalls`](crate::stalls) cuts them.
//!
//! An answer without pages may need more than was estimated. It waits for that like for its first share, but one
//! answer at a time may go over the bound: so two that hold half of what they need never wait for each other.
//!
//! Bounds: the memory itself plus one answer (and one row per running read, whose size nobody knows before it is read);
//! waiting requests, of which each is one of `native_transport_max_requests_per_shard`, wait for at most the read
//! timeout.
//!
//! Never: a share that outlives its request, or a waiting request that holds the processor.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ceto_native::{ErrorMessage, ErrorReason};

use crate::connection::ConnectionState;
use crate::metrics::{Counter, Samples};
use crate::stalls::Progress;

/// Up to this many bytes an answer is small, and a connection owes little.
pub(crate) const SMALL: usize = 64 << 10;
/// What is estimated for an answer of a few rows, bytes.
pub(crate) const FEW_ROWS: usize = 16 << 10;
/// What one more read may add to an answer, bytes.
pub(crate) const READ: usize = 1 << 20;

/// A shard's memory of answers.
pub(crate) struct ResponseMemory {
    limit: usize,
    used: Cell<usize>,
    small: RefCell<VecDeque<Rc<Waiter>>>,
    large: RefCell<VecDeque<Rc<Waiter>>>,
    /// One answer is over the bound.
    has_overdraft: Cell<bool>,
    waits: Counter,
    expired: Counter,
}

struct Waiter {
    connection: usize,
    bytes: usize,
    /// Holds a share already.
    grows: bool,
    since: Instant,
    outcome: Cell<Outcome>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Waiting,
    Granted,
    /// Granted over the bound.
    Overdraft,
    /// The connection is gone.
    Cancelled,
    /// Waited too long.
    Expired,
    Taken,
}

impl ResponseMemory {
    /// Of `limit` bytes.
    pub(crate) fn new(limit: usize) -> ResponseMemory {
        ResponseMemory {
            limit,
            used: Cell::new(0),
            small: RefCell::default(),
            large: RefCell::default(),
            has_overdraft: Cell::new(false),
            waits: Counter::default(),
            expired: Counter::default(),
        }
    }

    /// Somebody waits for memory.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.small.borrow().is_empty() || !self.large.borrow().is_empty()
    }

    fn queue(&self, is_small: bool) -> &RefCell<VecDeque<Rc<Waiter>>> {
        if is_small { &self.small } else { &self.large }
    }

    /// The bound of small or of large answers.
    fn bound(&self, is_small: bool) -> usize {
        if is_small {
            self.limit
        } else {
            self.limit - self.limit / 4
        }
    }

    /// An answer that is larger than all memory must still be possible: alone.
    fn fits(&self, bytes: usize, is_small: bool) -> bool {
        let used = self.used.get();
        used == 0 || used + bytes <= self.bound(is_small)
    }

    fn try_take(&self, bytes: usize, is_small: bool) -> bool {
        let fits = self.fits(bytes, is_small) && self.queue(is_small).borrow().is_empty();
        if fits {
            self.used.set(self.used.get() + bytes);
        }
        fits
    }

    /// What is used has become more or less.
    pub(crate) fn change(&self, before: usize, after: usize) {
        self.used.set(self.used.get() + after - before);
        if after < before {
            self.admit();
        }
    }

    fn end_overdraft(&self) {
        self.has_overdraft.set(false);
        self.admit();
    }

    /// Lets those go on for whom there is memory now.
    fn admit(&self) {
        for is_small in [true, false] {
            let mut queue = self.queue(is_small).borrow_mut();
            while let Some(waiter) = queue.front() {
                let outcome = if self.fits(waiter.bytes, is_small) {
                    Outcome::Granted
                } else if waiter.grows && !self.has_overdraft.replace(true) {
                    Outcome::Overdraft
                } else {
                    break;
                };
                self.used.set(self.used.get() + waiter.bytes);
                waiter.decide(outcome);
                queue.pop_front();
            }
        }
    }

    /// Ends the waits of a connection that is gone.
    pub(crate) fn cancel(&self, connection: usize) {
        self.end_waits(Outcome::Cancelled, |waiter| waiter.connection == connection);
    }

    /// Ends the waits that began before `since`.
    pub(crate) fn expire(&self, since: Instant) {
        self.end_waits(Outcome::Expired, |waiter| waiter.since < since);
    }

    fn end_waits(&self, outcome: Outcome, ends: impl Fn(&Waiter) -> bool) {
        for queue in [&self.small, &self.large] {
            queue.borrow_mut().retain(|waiter| {
                let ends = ends(waiter);
                if ends {
                    waiter.decide(outcome);
                }
                !ends
            });
        }
        self.admit();
    }

    async fn wait(
        &self,
        connection: &Rc<ConnectionState>,
        bytes: usize,
        is_small: bool,
        grows: bool,
    ) -> Result<Outcome, ErrorMessage> {
        self.waits.increment();
        let waiter = Rc::new(Waiter {
            connection: connection.key(),
            bytes,
            grows,
            since: connection.node().env.clock().now(),
            outcome: Cell::new(Outcome::Waiting),
            waker: RefCell::default(),
        });
        // Those that hold memory go first: they will give some back.
        match grows {
            true => self.queue(is_small).borrow_mut().push_front(waiter.clone()),
            false => self.queue(is_small).borrow_mut().push_back(waiter.clone()),
        }
        self.admit();
        crate::stalls::watch(connection.node());
        let waiting = Waiting { memory: self, waiter };
        match waiting.await {
            Outcome::Expired => {
                self.expired.increment();
                Err(ErrorMessage {
                    reason: ErrorReason::Overloaded,
                    message: "Too much memory is taken by answers that clients have not read yet \
                              (native_transport_max_response_data_in_flight); try again later or use smaller pages"
                        .to_owned(),
                })
            }
            Outcome::Cancelled => Err(cancelled()),
            outcome => Ok(outcome),
        }
    }

    /// Adds its samples.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        samples.gauge(
            "ceto_response_memory_bytes",
            "Memory of answers under way and not sent.",
            &[],
            self.used.get() as f64,
        );
        samples.gauge(
            "ceto_response_memory_limit_bytes",
            "Bound of the memory of answers (native_transport_max_response_data_in_flight by shards).",
            &[],
            self.limit as f64,
        );
        let waiting = self.small.borrow().len() + self.large.borrow().len();
        samples.gauge(
            "ceto_response_memory_waiting",
            "Requests that wait for memory of answers.",
            &[],
            waiting as f64,
        );
        samples.counter(
            "ceto_response_memory_waits_total",
            "Times a request had to wait for memory of answers.",
            &[],
            self.waits.get(),
        );
        samples.counter(
            "ceto_response_memory_expired_total",
            "Requests answered Overloaded because memory of answers did not come free in time.",
            &[],
            self.expired.get(),
        );
    }
}

impl Waiter {
    fn decide(&self, outcome: Outcome) {
        self.outcome.set(outcome);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// The future of a waiter.
struct Waiting<'a> {
    memory: &'a ResponseMemory,
    waiter: Rc<Waiter>,
}

impl Future for Waiting<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match self.waiter.outcome.get() {
            Outcome::Waiting => {
                *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(self.waiter.outcome.replace(Outcome::Taken)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        match self.waiter.outcome.get() {
            Outcome::Waiting => {
                for queue in [&self.memory.small, &self.memory.large] {
                    queue
                        .borrow_mut()
                        .retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
                }
            }
            Outcome::Granted => self.memory.change(self.waiter.bytes, 0),
            Outcome::Overdraft => {
                self.memory.change(self.waiter.bytes, 0);
                self.memory.end_overdraft();
            }
            _ => {}
        }
    }
}

/// What a running read has of the memory of answers.
pub struct Share {
    connection: Rc<ConnectionState>,
    bytes: usize,
    is_overdraft: bool,
}

impl Share {
    /// Takes `bytes`, if they are there now.
    pub(crate) fn try_take(connection: &Rc<ConnectionState>, bytes: usize) -> Option<Share> {
        let memory = &connection.node().response_memory;
        memory
            .try_take(bytes, connection.is_small(bytes))
            .then(|| Share::taken(connection, bytes, false))
    }

    /// Takes `bytes` as soon as they are there. The error is the client's answer.
    pub(crate) async fn take(connection: &Rc<ConnectionState>, bytes: usize) -> Result<Share, ErrorMessage> {
        if let Some(share) = Share::try_take(connection, bytes) {
            return Ok(share);
        }
        let memory = &connection.node().response_memory;
        let outcome = memory
            .wait(connection, bytes, connection.is_small(bytes), false)
            .await?;
        Ok(Share::taken(connection, bytes, outcome == Outcome::Overdraft))
    }

    fn taken(connection: &Rc<ConnectionState>, bytes: usize, is_overdraft: bool) -> Share {
        connection.change_held(0, bytes);
        Share {
            connection: connection.clone(),
            bytes,
            is_overdraft,
        }
    }

    /// The answer has grown to `bytes`.
    pub(crate) fn correct(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.connection.change_held(self.bytes, bytes);
            self.connection.node().response_memory.change(self.bytes, bytes);
            self.bytes = bytes;
        }
    }

    /// Grows to `bytes`, if they are there now.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return true;
        };
        let has_grown = self.connection.node().response_memory.try_take(more, false);
        if has_grown {
            self.connection.change_held(self.bytes, bytes);
            self.bytes = bytes;
        }
        has_grown
    }

    /// Grows to `bytes` as soon as there is memory, and lets others run when it is their turn. Call before each read
    /// but the first. The error is the client's answer.
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), ErrorMessage> {
        let node = self.connection.node();
        if let Some(turn) = node.env.tasks().yield_if_due() {
            turn.await;
        }
        if self.connection.is_closed() {
            return Err(cancelled());
        }
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let memory = &node.response_memory;
        if self.is_overdraft {
            memory.change(self.bytes, bytes);
        } else if !memory.try_take(more, false) {
            let outcome = memory.wait(&self.connection, more, false, true).await?;
            self.is_overdraft = outcome == Outcome::Overdraft;
        }
        self.connection.change_held(self.bytes, bytes);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.connection.change_held(self.bytes, 0);
        let memory = &self.connection.node().response_memory;
        memory.change(self.bytes, 0);
        if self.is_overdraft && !self.connection.take_over_overdraft() {
            memory.end_overdraft();
        }
    }
}

/// A connection's unsent bytes, which count like shares.
#[derive(Default)]
pub(crate) struct Unsent {
    bytes: Cell<usize>,
    /// Some of them are over the bound.
    is_overdraft: Cell<bool>,
    /// Bytes that went out.
    sent: Cell<u64>,
    progress: Progress,
}

impl Unsent {
    /// Bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// The socket has `bytes` now.
    pub(crate) fn settle(&self, bytes: usize, memory: &ResponseMemory) {
        let before = self.bytes.replace(bytes);
        if bytes == before {
            return;
        }
        if bytes < before {
            self.sent.set(self.sent.get() + (before - bytes) as u64);
        }
        memory.change(before, bytes);
        if bytes == 0 && self.is_overdraft.replace(false) {
            memory.end_overdraft();
        }
    }

    /// The answer over the bound is here now; false when all of it has been sent.
    pub(crate) fn take_over_overdraft(&self) -> bool {
        self.is_overdraft.set(self.bytes.get() > 0);
        self.is_overdraft.get()
    }

    /// For [`stalls`](crate::stalls): the peer owes much and has taken next to nothing for `patience`.
    pub(crate) fn is_stalled(&self, now: Instant, patience: Duration) -> bool {
        self.progress
            .is_stalled(self.bytes.get(), self.sent.get(), now, patience)
    }
}

/// Nobody waits for the answer any more; it is not sent.
fn cancelled() -> ErrorMessage {
    ErrorMessage {
        reason: ErrorReason::Server,
        message: "The connection is closed".to_owned(),
    }
}
