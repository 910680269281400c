//! Cells: one value of one column (or of one element of a multi-cell column), and how two of them merge.
//!
//! Merge is a choice by a total order (greater timestamp; on a tie tombstone over value, expiring over not expiring,
//! later death, greater bytes), as Cassandra's `Cells.reconcile`: so it is commutative, associative and idempotent.

use bytes::Bytes;

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
            CellState::Live(_) => true,
            CellState::Expiring { expiry, .. } => !expiry.is_expired(now),
            CellState::Tombstone { .. } => false,
        }
    }

    /// The value at `now` in wire bytes.
    pub fn value(&self, now: UnixSeconds) -> Option<Bytes> {
        match &self.state {
            CellState::Live(value) => Some(value.clone()),
            CellState::Expiring { value, expiry } => (!expiry.is_expired(now)).then(|| value.clone()),
            CellState::Tombstone { .. } => None,
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
        if other.supersedes(self) {
            *self = other;
        }
    }

    /// The total order of the merge; equal cells do not supersede each other.
    fn supersedes(&self, other: &Cell) -> bool {
        let rank = |cell: &Cell| match &cell.state {
            CellState::Live(_) => 0,
            CellState::Expiring { .. } => 1,
            CellState::Tombstone { .. } => 2,
        };
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
        }
    }
}
