//! The memory of requests: those that are arriving, and those that run.
//!
//! A request of more than [`SMALL_REQUEST`] bytes takes its bytes before the rest of it is received, and gives them back
//! when it is answered. When there are none - on the shard, or for the client's address - the connection is not read
//! until there are, or, when the client has asked for that at STARTUP (`THROW_ON_OVERLOAD`), the request is answered
//! Overloaded and skipped, as in Cassandra. Smaller ones are received whatever is there.
//!
//! Bounds: `native_transport_max_request_data_in_flight` and `native_transport_max_request_data_in_flight_per_ip`, divided
//! by the shards, but at least one request; beside them [`SMALL_REQUEST`] for each connection. A peer that stops in the
//! middle of a request while others wait is cut ([`stalls`](crate::stalls)).
//!
//! Never: a request that has its bytes waits for others.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::{Rc, Weak};

use rustc_hash::FxHashMap;

use crate::connection::ConnectionState;
use crate::metrics::{Counter, Samples};
use crate::node::Node;

/// Up to this many bytes a request is received without asking.
pub(crate) const SMALL_REQUEST: usize = 16 << 10;

/// A shard's memory of requests.
pub(crate) struct RequestMemory {
    limit: usize,
    limit_of_address: usize,
    used: Cell<usize>,
    by_address: RefCell<FxHashMap<IpAddr, usize>>,
    waiting: RefCell<VecDeque<Waiter>>,
    waits: Counter,
    pub(crate) shed: Counter,
}

struct Waiter {
    connection: Weak<ConnectionState>,
    address: IpAddr,
    bytes: usize,
}

impl RequestMemory {
    /// Of `limit` bytes, `limit_of_address` of them for one client address.
    pub(crate) fn new(limit: usize, limit_of_address: usize) -> RequestMemory {
        RequestMemory {
            limit,
            limit_of_address,
            used: Cell::new(0),
            by_address: RefCell::default(),
            waiting: RefCell::default(),
            waits: Counter::default(),
            shed: Counter::default(),
        }
    }

    /// Connections wait.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// A request that is larger than the bound must still be possible: alone.
    fn fits(used: usize, bytes: usize, limit: usize) -> bool {
        used == 0 || used + bytes <= limit
    }

    fn fits_address(&self, address: IpAddr, bytes: usize) -> bool {
        let used = self.by_address.borrow().get(&address).copied().unwrap_or(0);
        Self::fits(used, bytes, self.limit_of_address)
    }

    /// Takes `bytes`, if they are there now.
    pub(crate) fn try_take(&self, address: IpAddr, bytes: usize) -> bool {
        let fits = Self::fits(self.used.get(), bytes, self.limit)
            && self.fits_address(address, bytes)
            && self.waiting.borrow().is_empty();
        if fits {
            self.take(address, bytes);
        }
        fits
    }

    /// Takes `bytes`, whether they are there or not: they have been received already.
    pub(crate) fn take(&self, address: IpAddr, bytes: usize) {
        self.used.set(self.used.get() + bytes);
        *self.by_address.borrow_mut().entry(address).or_default() += bytes;
    }

    /// Gives `bytes` back.
    pub(crate) fn give_back(&self, address: IpAddr, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.used.set(self.used.get() - bytes);
        let mut by_address = self.by_address.borrow_mut();
        if let Some(own) = by_address.get_mut(&address) {
            *own -= bytes;
            if *own == 0 {
                by_address.remove(&address);
            }
        }
        drop(by_address);
        self.admit();
    }

    /// The connection goes on when there are `bytes` for it.
    pub(crate) fn wait(&self, connection: &Rc<ConnectionState>, address: IpAddr, bytes: usize) {
        self.waits.increment();
        self.waiting.borrow_mut().push_back(Waiter {
            connection: Rc::downgrade(connection),
            address,
            bytes,
        });
        self.admit();
    }

    /// A connection is gone.
    pub(crate) fn forget(&self, connection: &ConnectionState) {
        self.waiting
            .borrow_mut()
            .retain(|waiter| !std::ptr::eq(waiter.connection.as_ptr(), connection));
        self.admit();
    }

    /// Lets connections go on, the one that waits longest first. An address above its own bound holds nobody else up.
    fn admit(&self) {
        let mut at = 0;
        loop {
            let waiter = {
                let mut waiting = self.waiting.borrow_mut();
                let Some(waiter) = waiting.get(at) else { return };
                if !Self::fits(self.used.get(), waiter.bytes, self.limit) {
                    return;
                }
                if !self.fits_address(waiter.address, waiter.bytes) {
                    at += 1;
                    continue;
                }
                waiting.remove(at)
            };
            let Some(waiter) = waiter else { return };
            if let Some(connection) = waiter.connection.upgrade() {
                self.take(waiter.address, waiter.bytes);
                connection.may_receive(waiter.bytes);
            }
        }
    }

    /// Adds its samples.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        samples.gauge(
            "ceto_request_memory_bytes",
            "Memory of requests that arrive or run.",
            &[],
            self.used.get() as f64,
        );
        samples.gauge(
            "ceto_request_memory_limit_bytes",
            "Bound of the memory of requests (native_transport_max_request_data_in_flight by shards).",
            &[],
            self.limit as f64,
        );
        samples.gauge(
            "ceto_request_memory_waiting",
            "Connections that are not read until there is memory for their request.",
            &[],
            self.waiting.borrow().len() as f64,
        );
        samples.counter(
            "ceto_request_memory_waits_total",
            "Times a connection was not read because there was no memory for its request.",
            &[],
            self.waits.get(),
        );
        samples.counter(
            "ceto_request_memory_shed_total",
            "Requests answered Overloaded because there was no memory for them (THROW_ON_OVERLOAD).",
            &[],
            self.shed.get(),
        );
    }
}

/// The bytes of a request that runs.
pub(crate) struct RequestBytes {
    node: Rc<Node>,
    address: IpAddr,
    bytes: usize,
}

impl RequestBytes {
    /// `bytes` that were taken.
    pub(crate) fn taken(node: &Rc<Node>, address: IpAddr, bytes: usize) -> RequestBytes {
        RequestBytes {
            node: node.clone(),
            address,
            bytes,
        }
    }
}

impl Drop for RequestBytes {
    fn drop(&mut self) {
        self.node.request_memory.give_back(self.address, self.bytes);
    }
}
