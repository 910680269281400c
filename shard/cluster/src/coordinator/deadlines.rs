//! Deadlines of requests in flight, earliest first.
//!
//! A binary heap that is cleaned lazily: the entry of a request that has ended stays until it surfaces or until such
//! entries outnumber the others, so ending a request costs nothing. Bound: twice the requests in flight, plus
//! [`SLACK`], times the timers of one request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use ceto_internode::RequestId;

/// Stale entries that are always allowed, so that a short heap is not rebuilt at each turn.
const SLACK: usize = 256;

#[derive(Clone, Default, Debug)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, RequestId)>>,
}

impl Deadlines {
    /// Arms a timer of `request`.
    pub(crate) fn arm(&mut self, at: Instant, request: RequestId) {
        self.heap.push(Reverse((at, request)));
    }

    /// The earliest timer; it may belong to a request that has ended since.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the earliest timer if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<RequestId> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, request))| request)
    }

    /// Called when a request has ended: drops timers of ended requests from the top, and all of them when they have
    /// become the most.
    pub(crate) fn clean(&mut self, in_flight: usize, is_in_flight: impl Fn(RequestId) -> bool) {
        while let Some(Reverse((_, request))) = self.heap.peek() {
            if is_in_flight(*request) {
                break;
            }
            self.heap.pop();
        }
        if self.heap.len() > 4 * in_flight + SLACK {
            self.heap.retain(|Reverse((_, request))| is_in_flight(*request));
        }
    }
}
