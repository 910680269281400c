//! Cells: one value of one column (or of one element of a multi-cell column), and how two of them merge.
//!
//! Merge is a choice by a total order (greater timestamp; on a tie tombstone over value, expiring over not expiring,
//! later death, greater bytes), as Cassandra's `Cells.reconcile`: so it is commutative, associative and idempotent.
//! Counters merge shard by shard instead, by the greatest clock of each.

use bytes::Bytes;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::timestamp::{Expiry, Timestamp, UnixSeconds};

/// A value with the time it was written, or the mark of its deletion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Orders writes.
    pub timestamp: Timestamp,
    /// What was written.
    pub state: CellState,
}

/// What a cell holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CellState {
    /// A value, in wire bytes.
    Live(Bytes),
    /// A value that dies.
    Expiring {
        /// Wire bytes.
        value: Bytes,
        /// When.
        expiry: Expiry,
    },
    /// Deleted.
    Tombstone {
        /// When it was deleted, for gc grace.
        deleted_at: UnixSeconds,
    },
    /// A counter's shards.
    Counter(CounterShards),
}

/// The part of a counter that each replica's leader counted, sorted by leader.
pub type CounterShards = SmallVec<[CounterShard; 1]>;

/// One leader's count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CounterShard {
    /// Who counted.
    pub leader: Uuid,
    /// Grows by one with each update; the greater one wins.
    pub clock: i64,
    /// The leader's sum.
    pub count: i64,
}

impl Cell {
    /// A value without TTL.
    pub fn live(timestamp: Timestamp, value: Bytes) -> Cell {
        Cell {
            timestamp,
            state: CellState::Live(value),
        }
    }

    /// A value with or without TTL.
    pub fn with_expiry(timestamp: Timestamp, value: Bytes, expiry: Option<Expiry>) -> Cell {
        let state = match expiry {
            Some(expiry) => CellState::Expiring { value, expiry },
            None => CellState::Live(value),
        };
        Cell { timestamp, state }
    }

    /// A deletion.
    pub fn tombstone(timestamp: Timestamp, deleted_at: UnixSeconds) -> Cell {
        Cell {
            timestamp,
            state: CellState::Tombstone { deleted_at },
        }
    }

    /// Holds a value at `now`.
    pub fn is_live(&self, now: UnixSeconds) -> bool {
        match &self.state {
            CellState::Live(_) | CellState::Counter(_) => true,
            CellState::Expiring { expiry, .. } => !expiry.is_expired(now),
            CellState::Tombstone { .. } => false,
        }
    }

    /// The value at `now` in wire bytes (a counter's sum is computed).
    pub fn value(&self, now: UnixSeconds) -> Option<Bytes> {
        match &self.state {
            CellState::Live(value) => Some(value.clone()),
            CellState::Expiring { value, expiry } => (!expiry.is_expired(now)).then(|| value.clone()),
            CellState::Tombstone { .. } => None,
            CellState::Counter(shards) => Some(Bytes::copy_from_slice(&counter_sum(shards).to_be_bytes())),
        }
    }

    /// Expiry, when written with TTL.
    pub fn expiry(&self) -> Option<Expiry> {
        match &self.state {
            CellState::Expiring { expiry, .. } => Some(*expiry),
            _ => None,
        }
    }

    /// The time that gc grace counts from: of a tombstone its making, of an expired cell its writing, else None.
    pub fn deleted_at(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        match &self.state {
            CellState::Tombstone { deleted_at } => Some(*deleted_at),
            CellState::Expiring { expiry, .. } if expiry.is_expired(now) => Some(expiry.deleted_at()),
            _ => None,
        }
    }

    /// Merges `other` in.
    pub fn merge(&mut self, other: Cell) {
        if let (CellState::Counter(mine), CellState::Counter(theirs)) = (&mut self.state, &other.state) {
            merge_counters(mine, theirs);
            self.timestamp = self.timestamp.max(other.timestamp);
        } else if other.supersedes(self) {
            *self = other;
        }
    }

    /// The total order of the merge; equal cells do not supersede each other.
    fn supersedes(&self, other: &Cell) -> bool {
        // A counter that was deleted stays deleted, whatever the timestamps: its shards cannot be told apart from
        // increments made before the deletion.
        let rank = |cell: &Cell| match &cell.state {
            CellState::Counter(_) => 0,
            CellState::Live(_) => 1,
            CellState::Expiring { .. } => 2,
            CellState::Tombstone { .. } => 3,
        };
        match (&self.state, &other.state) {
            (CellState::Tombstone { .. }, CellState::Counter(_)) => return true,
            (CellState::Counter(_), CellState::Tombstone { .. }) => return false,
            _ => {}
        }
        let order = self
            .timestamp
            .cmp(&other.timestamp)
            .then_with(|| rank(self).cmp(&rank(other)))
            .then_with(|| match (&self.state, &other.state) {
                (CellState::Tombstone { deleted_at: a }, CellState::Tombstone { deleted_at: b }) => a.cmp(b),
                (
                    CellState::Expiring {
                        value: a,
                        expiry: a_expiry,
                    },
                    CellState::Expiring {
                        value: b,
                        expiry: b_expiry,
                    },
                ) => a_expiry.cmp(b_expiry).then_with(|| a.cmp(b)),
                (CellState::Live(a), CellState::Live(b)) => a.cmp(b),
                _ => std::cmp::Ordering::Equal,
            });
        order.is_gt()
    }

    /// Bytes of memory beyond the struct itself.
    pub fn heap_size(&self) -> usize {
        match &self.state {
            CellState::Live(value) | CellState::Expiring { value, .. } => value.len(),
            CellState::Tombstone { .. } => 0,
            CellState::Counter(shards) if shards.spilled() => shards.len() * size_of::<CounterShard>(),
            CellState::Counter(_) => 0,
        }
    }
}

/// The counter's value: the sum over its leaders, wrapping as Cassandra's does.
pub fn counter_sum(shards: &[CounterShard]) -> i64 {
    shards.iter().fold(0, |sum, shard| sum.wrapping_add(shard.count))
}

fn merge_counters(mine: &mut CounterShards, theirs: &[CounterShard]) {
    for shard in theirs {
        match mine.binary_search_by(|probe| probe.leader.cmp(&shard.leader)) {
            Ok(at) => {
                if let Some(own) = mine.get_mut(at)
                    && (shard.clock, shard.count) > (own.clock, own.count)
                {
                    *own = shard.clone();
                }
            }
            Err(at) => mine.insert(at, shard.clone()),
        }
    }
}
