//! Counters: a sum over the replicas that counted.
//!
//! A counter column is stored as a multi-cell column with one cell per *leader* (the replica that performed the
//! update): path = the leader's id, value = what that leader has counted (8 bytes, big-endian), timestamp = the
//! leader's clock. So counters merge, are deleted and purged as collections are, by the same algebra. Two rules keep
//! them right: only the leader itself writes its cell, as read-modify-write under a lock; and its clock never stands
//! still: the new timestamp is the larger of the present time and one more than the old one.

use bytes::Bytes;
use uuid::Uuid;

use crate::cell::Cell;
use crate::row::Collection;
use crate::timestamp::{Timestamp, UnixSeconds};

/// The counter's value; None when nobody has counted (or all was deleted). Wraps as Cassandra's does.
pub fn counter_value(counter: &Collection, now: UnixSeconds) -> Option<i64> {
    let counts = counter.cells.iter().filter_map(|(_, cell)| count_of(cell, now));
    counts.fold(None, |sum, count| Some(sum.unwrap_or(0i64).wrapping_add(count)))
}

/// The change that `leader` writes to add `delta`, given what it has stored.
pub fn counter_update(stored: Option<&Collection>, leader: Uuid, delta: i64, now_micros: i64) -> Collection {
    let path = Bytes::copy_from_slice(leader.as_bytes());
    let own = stored.and_then(|counter| counter.cells.iter().find(|(leader, _)| *leader == path));
    let seconds = UnixSeconds(now_micros.div_euclid(1_000_000));
    let count = own.and_then(|(_, cell)| count_of(cell, seconds)).unwrap_or(0);
    let floor = own.map_or(i64::MIN, |(_, cell)| cell.timestamp.0 + 1);
    let floor = floor.max(
        stored
            .and_then(|c| c.deletion)
            .map_or(i64::MIN, |d| d.timestamp.0 + 1),
    );
    let value = Bytes::copy_from_slice(&count.wrapping_add(delta).to_be_bytes());
    Collection {
        deletion: None,
        cells: vec![(path, Cell::live(Timestamp(now_micros.max(floor)), value))],
    }
}

fn count_of(cell: &Cell, now: UnixSeconds) -> Option<i64> {
    let value = cell.value(now)?;
    Some(i64::from_be_bytes(value.as_ref().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_add_up_and_a_deletion_starts_over() {
        let (a, b, now) = (Uuid::from_u128(1), Uuid::from_u128(2), UnixSeconds(0));
        let mut counter = counter_update(None, a, 5, 100);
        counter.merge(counter_update(Some(&counter), a, -2, 50));
        counter.merge(counter_update(Some(&counter), b, 10, 100));
        assert_eq!(counter_value(&counter, now), Some(13));
        let deletion = crate::Deletion {
            timestamp: Timestamp(200),
            deleted_at: now,
        };
        counter.merge(Collection {
            deletion: Some(deletion),
            cells: Vec::new(),
        });
        assert_eq!(counter_value(&counter, now), None);
        counter.merge(counter_update(Some(&counter), a, 1, 150));
        assert_eq!(counter_value(&counter, now), Some(1));
    }
}
