//! Slots: where answers of other shards meet the tasks that wait for them.
//!
//! A slot lives from the question to the answer, whether or not somebody still waits (a request that timed out does
//! not): so a late answer can never reach another question. Never: a slot without an answer on its way, so the number
//! of slots is bounded by the mailbox.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Open questions with answers of type `T`.
pub(crate) struct Slots<T> {
    open: Rc<RefCell<Slab<Slot<T>>>>,
}

enum Slot<T> {
    Waiting(Option<Waker>),
    Answered(T),
    /// Nobody waits any more; the answer will be dropped.
    Abandoned,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            open: Rc::new(RefCell::new(Slab::new())),
        }
    }
}

impl<T> Slots<T> {
    /// Opens a slot: its number for the question, and the future of its answer.
    pub(crate) fn open(&self) -> (u32, Answer<T>) {
        let key = self.open.borrow_mut().insert(Slot::Waiting(None));
        (
            key as u32,
            Answer {
                open: self.open.clone(),
                key,
            },
        )
    }

    /// Brings an answer. False when there is no such open slot, which is a bug of the sender.
    pub(crate) fn answer(&self, slot: u32, value: T) -> bool {
        let mut open = self.open.borrow_mut();
        let waker = match open.get_mut(slot as usize) {
            Some(state @ Slot::Waiting(_)) => match std::mem::replace(state, Slot::Answered(value)) {
                Slot::Waiting(waker) => waker,
                _ => None,
            },
            Some(Slot::Abandoned) => {
                open.remove(slot as usize);
                None
            }
            _ => return false,
        };
        drop(open);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// The question could not be sent.
    pub(crate) fn cancel(&self, slot: u32) {
        self.open.borrow_mut().try_remove(slot as usize);
    }

    /// Questions without an answer; for tests.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len()
    }
}

/// The future of an answer.
pub(crate) struct Answer<T> {
    open: Rc<RefCell<Slab<Slot<T>>>>,
    key: usize,
}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut open = self.open.borrow_mut();
        match open.get_mut(self.key) {
            Some(Slot::Waiting(waker)) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => match open.try_remove(self.key) {
                Some(Slot::Answered(value)) => Poll::Ready(value),
                // Cancelled, or polled again after the answer: never happens to an awaited future.
                _ => Poll::Pending,
            },
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let Ok(mut open) = self.open.try_borrow_mut() else {
            return;
        };
        match open.get_mut(self.key) {
            Some(state @ Slot::Waiting(_)) => *state = Slot::Abandoned,
            Some(Slot::Answered(_)) => {
                open.remove(self.key);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn poll<T>(answer: &mut Answer<T>) -> Poll<T> {
        Pin::new(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_reaches_its_question_only() {
        let slots = Slots::default();
        let (a, mut first) = slots.open();
        let (b, mut second) = slots.open();
        assert!(slots.answer(b, "b"));
        assert!(poll(&mut first).is_pending());
        assert_eq!(poll(&mut second), Poll::Ready("b"));
        drop(second);
        assert!(slots.answer(a, "a"));
        assert!(!slots.answer(a, "twice"));
        assert_eq!(poll(&mut first), Poll::Ready("a"));
        drop(first);
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn a_late_answer_is_dropped_and_its_slot_freed() {
        let slots = Slots::default();
        let (a, first) = slots.open();
        drop(first);
        let (b, mut second) = slots.open();
        assert_ne!(a, b);
        assert!(slots.answer(a, 1));
        assert_eq!(slots.len(), 1);
        assert!(slots.answer(b, 2));
        assert_eq!(poll(&mut second), Poll::Ready(2));
    }
}
