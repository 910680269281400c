//! Locks of single partitions, for what reads before it writes: counters, conditions, list positions.
//!
//! A lock is taken on the shard that owns the partition, so it orders all such writes of this node. First come, first
//! served. Bound: one waiter per request in flight.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ceto_model::{DecoratedKey, TableId};
use rustc_hash::FxHashMap;

type LockKey = (TableId, DecoratedKey);

/// The locks of one shard.
#[derive(Clone, Default)]
pub(crate) struct PartitionLocks {
    held: Rc<RefCell<FxHashMap<LockKey, Queue>>>,
}

#[derive(Default)]
struct Queue {
    /// Who holds the lock.
    holder: u64,
    next_ticket: u64,
    waiting: VecDeque<(u64, Option<Waker>)>,
}

/// Holds a partition's lock until dropped.
pub(crate) struct PartitionGuard {
    locks: PartitionLocks,
    key: LockKey,
}

struct Acquire<'a> {
    locks: &'a PartitionLocks,
    key: Option<LockKey>,
    ticket: u64,
}

impl PartitionLocks {
    /// Waits for the lock of a partition.
    pub(crate) async fn lock(&self, table: TableId, key: DecoratedKey) -> PartitionGuard {
        let key = (table, key);
        let ticket = {
            let mut held = self.held.borrow_mut();
            match held.get_mut(&key) {
                None => {
                    held.insert(
                        key.clone(),
                        Queue {
                            holder: 0,
                            next_ticket: 1,
                            waiting: VecDeque::new(),
                        },
                    );
                    None
                }
                Some(queue) => {
                    let ticket = queue.next_ticket;
                    queue.next_ticket += 1;
                    queue.waiting.push_back((ticket, None));
                    Some(ticket)
                }
            }
        };
        match ticket {
            None => PartitionGuard {
                locks: self.clone(),
                key,
            },
            Some(ticket) => {
                Acquire {
                    locks: self,
                    key: Some(key),
                    ticket,
                }
                .await
            }
        }
    }

    fn release(&self, key: &LockKey) {
        let mut held = self.held.borrow_mut();
        let Some(queue) = held.get_mut(key) else { return };
        match queue.waiting.pop_front() {
            Some((ticket, waker)) => {
                queue.holder = ticket;
                drop(held);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            None => {
                held.remove(key);
            }
        }
    }
}

impl Future for Acquire<'_> {
    type Output = PartitionGuard;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<PartitionGuard> {
        let ticket = self.ticket;
        let Some(key) = self.key.take() else {
            return Poll::Pending;
        };
        let mut held = self.locks.held.borrow_mut();
        let Some(queue) = held.get_mut(&key) else {
            return Poll::Pending;
        };
        if queue.holder == ticket {
            drop(held);
            return Poll::Ready(PartitionGuard {
                locks: self.locks.clone(),
                key,
            });
        }
        if let Some((_, waker)) = queue.waiting.iter_mut().find(|(own, _)| *own == ticket) {
            *waker = Some(context.waker().clone());
        }
        drop(held);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut held = self.locks.held.borrow_mut();
        let Some(queue) = held.get_mut(&key) else { return };
        if queue.holder == self.ticket {
            // The lock was handed over while its receiver went away.
            drop(held);
            return self.locks.release(&key);
        }
        queue.waiting.retain(|(ticket, _)| *ticket != self.ticket);
    }
}

impl Drop for PartitionGuard {
    fn drop(&mut self) {
        self.locks.release(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ceto_model::PartitionKey;
    use uuid::Uuid;

    type Locking<'a> = Pin<Box<dyn Future<Output = PartitionGuard> + 'a>>;

    fn poll(future: &mut Locking<'_>) -> Option<PartitionGuard> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => None,
        }
    }

    fn key(name: &'static [u8]) -> DecoratedKey {
        DecoratedKey::new(PartitionKey(bytes::Bytes::from_static(name)))
    }

    #[test]
    fn waiters_come_in_order_and_may_go_away() {
        let locks = PartitionLocks::default();
        let table = TableId(Uuid::nil());
        let lock = || -> Locking<'_> { Box::pin(locks.lock(table, key(b"a"))) };
        let (mut first, mut second, mut third, mut fourth) = (lock(), lock(), lock(), lock());
        let held = poll(&mut first);
        assert!(held.is_some());
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none() && poll(&mut fourth).is_none());
        let mut other: Locking<'_> = Box::pin(locks.lock(table, key(b"b")));
        assert!(poll(&mut other).is_some(), "another partition is free");
        drop(second);
        drop(held);
        assert!(poll(&mut fourth).is_none(), "third is before fourth");
        drop(third); // the lock was its own already, and goes on
        let held = poll(&mut fourth);
        assert!(held.is_some());
        drop((held, other));
        assert!(locks.held.borrow().is_empty());
    }
}
