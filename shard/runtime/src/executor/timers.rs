//! Timers of one shard: the earliest first, cancelled by dropping their future.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Instant;

/// Deadline and a number that tells equal deadlines apart.
pub(super) type TimerKey = (Instant, u64);

/// Set timers.
#[derive(Default)]
pub(super) struct Timers {
    set: BTreeMap<TimerKey, Waker>,
    next_number: u64,
}

impl Timers {
    pub(super) fn set(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        let key = (deadline, self.next_number);
        self.next_number += 1;
        self.set.insert(key, waker);
        key
    }

    /// The waker to wake when the timer runs out, while it has not.
    pub(super) fn waker(&mut self, key: &TimerKey) -> Option<&mut Waker> {
        self.set.get_mut(key)
    }

    pub(super) fn cancel(&mut self, key: &TimerKey) -> Option<Waker> {
        self.set.remove(key)
    }

    /// The next timer that has run out by `now`.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Waker> {
        let first = self.set.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.set.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    pub(super) fn len(&self) -> usize {
        self.set.len()
    }
}
