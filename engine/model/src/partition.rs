//! What one partition holds in memory: the content of a mutation, and of a read's result.
//!
//! Normal form: rows sorted by clustering key; nothing that the partition deletion, a range tombstone or the row's own
//! tombstone shadows. `merge` keeps it and is commutative, associative and idempotent.

use crate::key::ClusteringKey;
use crate::range_tombstone::{RangeTombstone, RangeTombstones};
use crate::row::Row;
use crate::timestamp::Deletion;

/// The content of one partition (or of a write to it).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Partition {
    /// Deletes everything in it that is not newer.
    pub deletion: Option<Deletion>,
    /// Static columns.
    pub static_row: Row,
    /// Sorted by key.
    pub rows: Vec<(ClusteringKey, Row)>,
    /// Deleted ranges.
    pub range_tombstones: RangeTombstones,
}

impl Partition {
    /// Holds nothing, not even a tombstone.
    pub fn is_empty(&self) -> bool {
        self.deletion.is_none()
            && self.static_row.is_empty()
            && self.rows.is_empty()
            && self.range_tombstones.is_empty()
    }

    /// The row of `key`, made when missing. For building; call [`Partition::normalize`] at the end when deletions
    /// are involved.
    pub fn row_mut(&mut self, key: ClusteringKey) -> &mut Row {
        let at = match self.rows.last() {
            Some((last, _)) if *last < key => self.rows.len(),
            _ => match self.rows.binary_search_by(|(own, _)| own.cmp(&key)) {
                Ok(at) => return &mut self.rows[at].1,
                Err(at) => at,
            },
        };
        self.rows.insert(at, (key, Row::default()));
        &mut self.rows[at].1
    }

    /// Adds a range tombstone. For building.
    pub fn delete_range(&mut self, tombstone: RangeTombstone) {
        self.range_tombstones.add(tombstone);
    }

    /// Merges another version in.
    pub fn merge(&mut self, other: Partition) {
        self.deletion = Deletion::strongest(self.deletion, other.deletion);
        self.static_row.merge(other.static_row);
        self.range_tombstones.merge(other.range_tombstones);
        if self.rows.is_empty() {
            self.rows = other.rows;
        } else if !other.rows.is_empty() {
            self.merge_rows(other.rows);
        }
        self.normalize();
    }

    fn merge_rows(&mut self, other: Vec<(ClusteringKey, Row)>) {
        let mine = std::mem::take(&mut self.rows);
        self.rows.reserve(mine.len() + other.len());
        let (mut mine, mut theirs) = (mine.into_iter().peekable(), other.into_iter().peekable());
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => break,
            };
            match order {
                std::cmp::Ordering::Less => self.rows.extend(mine.next()),
                std::cmp::Ordering::Greater => self.rows.extend(theirs.next()),
                std::cmp::Ordering::Equal => {
                    if let (Some((key, mut row)), Some((_, other))) = (mine.next(), theirs.next()) {
                        row.merge(other);
                        self.rows.push((key, row));
                    }
                }
            }
        }
    }

    /// Restores the normal form after building.
    pub fn normalize(&mut self) {
        if let Some(deletion) = self.deletion {
            self.range_tombstones.shadow_by_wider(deletion);
            self.static_row.shadow_by_wider(deletion);
        }
        if self.deletion.is_none() && self.range_tombstones.is_empty() {
            return;
        }
        let (deletion, tombstones) = (self.deletion, &self.range_tombstones);
        self.rows.retain_mut(|(key, row)| {
            let wider = Deletion::strongest(deletion, tombstones.covering(key));
            if let Some(wider) = wider {
                row.shadow_by_wider(wider);
            }
            !row.is_empty()
        });
    }

    /// Bytes of memory, roughly.
    pub fn memory_size(&self) -> usize {
        let rows = self
            .rows
            .iter()
            .map(|(key, row)| size_of::<ClusteringKey>() + key.0.len() + row.memory_size());
        size_of::<Partition>()
            + self.static_row.memory_size()
            + self.range_tombstones.memory_size()
            + rows.sum::<usize>()
    }
}
