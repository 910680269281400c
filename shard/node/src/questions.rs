//! Questions to other nodes that wait for an answer each, beside those that protocol cores count.
//!
//! A question is answered once, by whom it was put to, or ends with the link to it. Never: an answer of an earlier life of
//! this node taken for one of this, a question whose asker is gone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ceto_internode::{ExchangeId, HostId, RequestId};
use rustc_hash::FxHashMap;

use crate::slots::{Answer, Slots};

/// Open questions of one kind, with answers of type `T`.
pub(crate) struct Questions<T> {
    waiting: Slots<T>,
    /// By serial: who is asked, and the slot of the answer.
    open: RefCell<FxHashMap<u32, (HostId, u32)>>,
    last_serial: Cell<Option<u32>>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self {
            waiting: Slots::default(),
            open: RefCell::default(),
            last_serial: Cell::default(),
        }
    }
}

/// An open question; forgotten when nobody waits any more.
pub(crate) struct Question<T> {
    of: Rc<Questions<T>>,
    serial: u32,
    shard: u16,
}

impl<T> Question<T> {
    /// What its answer has to repeat.
    pub(crate) fn exchange(&self) -> ExchangeId {
        ExchangeId {
            request: RequestId {
                shard: self.shard,
                slot: 0,
                serial: self.serial,
            },
            round: 0,
        }
    }
}

impl<T> Drop for Question<T> {
    fn drop(&mut self) {
        if let Some((_, slot)) = self.of.open.borrow_mut().remove(&self.serial) {
            self.of.waiting.cancel(slot);
        }
    }
}

impl<T> Questions<T> {
    /// Questions that wait for an answer.
    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Opens a question of `shard` to a peer. Serials begin anywhere in each life of the process.
    pub(crate) fn open(
        self: &Rc<Self>,
        to: HostId,
        shard: u16,
        random: impl FnOnce() -> u64,
    ) -> (Question<T>, Answer<T>) {
        let last = self.last_serial.get();
        let serial = last.unwrap_or_else(|| random() as u32).wrapping_add(1);
        self.last_serial.set(Some(serial));
        let (slot, answer) = self.waiting.open();
        self.open.borrow_mut().insert(serial, (to, slot));
        let of = self.clone();
        (Question { of, serial, shard }, answer)
    }

    /// Brings an answer; one that nobody waits for is dropped.
    pub(crate) fn answer(&self, exchange: ExchangeId, from: HostId, answer: T) {
        self.finish(exchange.request.serial, from, answer);
    }

    fn finish(&self, serial: u32, from: HostId, answer: T) {
        let mut open = self.open.borrow_mut();
        if open.get(&serial).is_some_and(|(asked, _)| *asked == from)
            && let Some((_, slot)) = open.remove(&serial)
        {
            drop(open);
            self.waiting.answer(slot, answer);
        }
    }

    /// No answer of this peer will come.
    pub(crate) fn lost(&self, peer: HostId, answer: impl Fn() -> T) {
        let serials: Vec<u32> = {
            let open = self.open.borrow();
            let of_peer = open.iter().filter(|(_, (asked, _))| *asked == peer);
            of_peer.map(|(serial, _)| *serial).collect()
        };
        for serial in serials {
            self.finish(serial, peer, answer());
        }
    }
}
