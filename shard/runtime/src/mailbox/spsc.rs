//! A bounded ring from one producer to one consumer: the lane of one ordered pair of shards.
//!
//! ```text
//!   slots   | .. | taken | a | b | c | written | .. |      head <= tail <= written, written - head <= capacity
//!                        ^ head      ^ tail    ^ written
//!                        (consumer)  (published) (producer's own)
//! ```
//!
//! The producer writes slots ahead of `tail` and publishes a whole batch with one store at the end of its turn; the
//! consumer never sees a slot that is not published. Neither side ever waits, locks or allocates after creation. Both
//! positions run freely and wrap; the slot is the position modulo the capacity, a power of two.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// On a cache line of its own, and not on its neighbour's prefetched pair either.
#[repr(align(128))]
struct Aligned<T>(T);

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Next position to take; only the consumer writes it.
    head: Aligned<AtomicUsize>,
    /// First position not published; only the producer writes it.
    tail: Aligned<AtomicUsize>,
    /// The producer has more than the ring takes and wants to hear of free slots.
    producer_waits: Aligned<AtomicBool>,
}

// SAFETY: a slot is accessed by the producer only while its position is in tail..head+capacity and by the consumer
// only while it is in head..tail; the Release stores and Acquire loads of head and tail order the two.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the values themselves are Send.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> *mut MaybeUninit<T> {
        self.slots[position & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let head = *self.head.0.get_mut();
        let tail = *self.tail.0.get_mut();
        let mut position = head;
        while position != tail {
            // SAFETY: positions in head..tail hold published, untaken values; both ends are gone.
            unsafe { (*self.slot(position)).assume_init_drop() };
            position = position.wrapping_add(1);
        }
    }
}

/// The writing end.
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Position after the last written slot; not yet published above `tail`.
    written: usize,
    published: usize,
    /// The consumer's head as last seen.
    seen_head: usize,
}

/// The reading end.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The producer's tail as last seen.
    seen_tail: usize,
}

/// A ring of `capacity` slots, rounded up to a power of two.
pub(crate) fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(2).next_power_of_two();
    let shared = Arc::new(Shared {
        slots: (0..capacity)
            .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
            .collect(),
        head: Aligned(AtomicUsize::new(0)),
        tail: Aligned(AtomicUsize::new(0)),
        producer_waits: Aligned(AtomicBool::new(false)),
    });
    let producer = Producer {
        shared: Arc::clone(&shared),
        written: 0,
        published: 0,
        seen_head: 0,
    };
    (
        producer,
        Consumer {
            shared,
            head: 0,
            seen_tail: 0,
        },
    )
}

impl<T> Producer<T> {
    /// Writes a value that the consumer sees after [`Self::publish`]; gives it back when the ring is full.
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.written.wrapping_sub(self.seen_head) == capacity {
            self.seen_head = self.shared.head.0.load(Ordering::Acquire);
            if self.written.wrapping_sub(self.seen_head) == capacity {
                return Err(value);
            }
        }
        // SAFETY: written - head < capacity, so the consumer has taken what was here, and it looks at no slot at or
        // above tail.
        unsafe { (*self.shared.slot(self.written)).write(value) };
        self.written = self.written.wrapping_add(1);
        Ok(())
    }

    /// Shows everything written to the consumer. True when there was something new.
    pub(crate) fn publish(&mut self) -> bool {
        if self.published == self.written {
            return false;
        }
        self.shared.tail.0.store(self.written, Ordering::Release);
        self.published = self.written;
        true
    }

    /// Values written and not yet taken.
    pub(crate) fn len(&self) -> usize {
        self.written
            .wrapping_sub(self.shared.head.0.load(Ordering::Relaxed))
    }

    /// Asks the consumer to report the next free slots ([`Consumer::producer_waits`]). The caller pushes once more
    /// afterwards: slots that came free before the consumer could see the request are not reported.
    pub(crate) fn wait_for_slots(&self) {
        self.shared.producer_waits.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // What was written but not published is published now, so that it is dropped with the ring (or taken).
        self.publish();
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest published value.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.head == self.seen_tail && self.is_empty() {
            return None;
        }
        // SAFETY: head < tail: the slot is published and untaken, and the Acquire load of tail made its content visible.
        let value = unsafe { (*self.shared.slot(self.head)).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Nothing is published.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.seen_tail = self.shared.tail.0.load(Ordering::Acquire);
        self.head == self.seen_tail
    }

    /// True once after the producer asked to hear of free slots: it has to be woken. Called after a batch of pops.
    pub(crate) fn producer_waits(&self) -> bool {
        // With the fence in wait_for_slots: either the request is seen here, or the freed slots are seen there.
        fence(Ordering::SeqCst);
        self.shared.producer_waits.0.load(Ordering::Relaxed)
            && self.shared.producer_waits.0.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[test]
    fn published_only_and_in_order() {
        let (mut producer, mut consumer) = ring(4);
        producer.push(1).unwrap();
        producer.push(2).unwrap();
        assert!(consumer.pop().is_none(), "not yet published");
        assert!(producer.publish());
        assert!(!producer.publish());
        assert_eq!(
            (consumer.pop(), consumer.pop(), consumer.pop()),
            (Some(1), Some(2), None)
        );
    }

    #[test]
    fn full_gives_back_and_recovers() {
        let (mut producer, mut consumer) = ring(2);
        producer.push(1).unwrap();
        producer.push(2).unwrap();
        assert_eq!(producer.push(3), Err(3));
        assert_eq!(producer.len(), 2);
        producer.publish();
        assert!(!consumer.producer_waits());
        producer.wait_for_slots();
        assert_eq!(consumer.pop(), Some(1));
        assert!(consumer.producer_waits());
        assert!(!consumer.producer_waits());
        producer.push(3).unwrap();
        producer.publish();
        assert_eq!((consumer.pop(), consumer.pop()), (Some(2), Some(3)));
    }

    #[test]
    fn wraps_many_times() {
        let (mut producer, mut consumer) = ring(4);
        for round in 0..100 {
            for step in 0..3 {
                producer.push(round * 3 + step).unwrap();
            }
            producer.publish();
            for step in 0..3 {
                assert_eq!(consumer.pop(), Some(round * 3 + step));
            }
        }
    }

    #[test]
    fn values_left_are_dropped_once() {
        let value = Arc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..5 {
            producer.push(Arc::clone(&value)).unwrap();
        }
        producer.publish();
        producer.push(Arc::clone(&value)).unwrap();
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&value), 6);
        drop(producer);
        drop(consumer);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn two_threads_lose_nothing() {
        let count: usize = if cfg!(miri) { 300 } else { 1_000_000 };
        let (mut producer, mut consumer) = ring(64);
        let sender = std::thread::spawn(move || {
            for value in 0..count {
                let mut boxed = Box::new(value);
                while let Err(back) = producer.push(boxed) {
                    producer.publish();
                    std::thread::yield_now();
                    boxed = back;
                }
                if value % 7 == 0 {
                    producer.publish();
                }
            }
        });
        for expected in 0..count {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        sender.join().unwrap();
        assert!(consumer.pop().is_none());
    }
}
