//! A lock-free stack that any thread pushes to and one thread empties at once, in the order of the pushes: wake-ups
//! of tasks by other threads, messages of the control thread, accepted sockets on their way to their shard.
//!
//! A push is one allocation and one compare-and-swap; neither side ever waits for the other. Nodes are only ever
//! taken all at once, so that no node can be freed while another thread looks at it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

struct Node<T> {
    value: T,
    next: *mut Node<T>,
}

/// Many pushers, one taker.
pub(crate) struct Stack<T> {
    head: AtomicPtr<Node<T>>,
    length: AtomicUsize,
    bound: usize,
}

// SAFETY: values move from the pushing thread to the taking one and are never shared; the list itself is only
// touched through atomics.
unsafe impl<T: Send> Send for Stack<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Stack<T> {}

impl<T> Stack<T> {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            length: AtomicUsize::new(0),
            bound,
        }
    }

    /// Adds a value, or gives it back when `bound` values wait.
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        if self.length.fetch_add(1, Ordering::Relaxed) >= self.bound {
            self.length.fetch_sub(1, Ordering::Relaxed);
            return Err(value);
        }
        let node = Box::into_raw(Box::new(Node {
            value,
            next: ptr::null_mut(),
        }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node came from Box::into_raw above and is not yet visible to another thread.
            unsafe { (*node).next = head };
            match self
                .head
                .compare_exchange_weak(head, node, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(current) => head = current,
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire).is_null()
    }

    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Takes everything, oldest first. `None` when there is nothing, without an allocation.
    pub(crate) fn take_all(&self) -> Option<Vec<T>> {
        if self.is_empty() {
            return None;
        }
        let mut node = self.head.swap(ptr::null_mut(), Ordering::AcqRel);
        let mut values = Vec::new();
        while !node.is_null() {
            // SAFETY: the swap made this thread the only owner of the whole chain, and every node of it came from
            // Box::into_raw.
            let owned = unsafe { Box::from_raw(node) };
            node = owned.next;
            values.push(owned.value);
        }
        self.length.fetch_sub(values.len(), Ordering::Relaxed);
        values.reverse();
        Some(values)
    }
}

impl<T> Drop for Stack<T> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[test]
    fn keeps_order_and_bound() {
        let stack = Stack::new(3);
        assert!(stack.take_all().is_none());
        for value in 0..3 {
            stack.push(value).unwrap();
        }
        assert_eq!(stack.push(9), Err(9));
        assert_eq!(stack.take_all(), Some(vec![0, 1, 2]));
        assert_eq!(stack.len(), 0);
        stack.push(4).unwrap();
        assert_eq!(stack.take_all(), Some(vec![4]));
    }

    #[test]
    fn values_left_are_dropped() {
        let value = Arc::new(());
        let stack = Stack::new(8);
        stack.push(Arc::clone(&value)).unwrap();
        drop(stack);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn many_pushers_lose_nothing() {
        let rounds: usize = if cfg!(miri) { 50 } else { 20_000 };
        let stack = Arc::new(Stack::new(usize::MAX));
        let pushers: Vec<_> = (0..4)
            .map(|pusher| {
                let stack = Arc::clone(&stack);
                std::thread::spawn(move || {
                    for round in 0..rounds {
                        stack.push((pusher, round)).unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        let mut taken = 0;
        while taken < 4 * rounds {
            for (pusher, round) in stack.take_all().unwrap_or_default() {
                let expected: &mut usize = &mut next[pusher];
                assert_eq!(round, *expected, "each pusher's values arrive in order");
                *expected += 1;
                taken += 1;
            }
            std::thread::yield_now();
        }
        for pusher in pushers {
            pusher.join().unwrap();
        }
        assert!(stack.is_empty());
    }
}
