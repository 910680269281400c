//! Range tombstones: deletions of all rows between two positions of a partition.
//!
//! [`RangeTombstones`] is a set in *normal form*: sorted, disjoint, neighbours with the same deletion joined. Where
//! several deletions overlap only the strongest is kept. Two sets that saw the same deletions in any order are equal;
//! so the merge is commutative, associative and idempotent.

use crate::key::{ClusteringKey, Position, Slice};
use crate::timestamp::Deletion;

/// One deleted range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeTombstone {
    /// What is deleted.
    pub slice: Slice,
    /// By what.
    pub deletion: Deletion,
}

/// So few are added to a set each by itself, more by rebuilding the set.
const ADDED_ONE_BY_ONE: usize = 4;

/// Deleted ranges of one partition in normal form.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeTombstones(Vec<RangeTombstone>);

impl RangeTombstones {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, RangeTombstone> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No range is deleted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The deletion that covers `key`.
    pub fn covering(&self, key: &ClusteringKey) -> Option<Deletion> {
        let after = self
            .0
            .partition_point(|tombstone| tombstone.slice.start.0 < key.0);
        let candidate = self.0.get(after.checked_sub(1)?)?;
        candidate.slice.contains(key).then_some(candidate.deletion)
    }

    /// The parts of the tombstones that lie inside `slice`, cut to it, in order.
    pub fn within<'a>(&'a self, slice: &'a Slice) -> impl Iterator<Item = RangeTombstone> + 'a {
        let first = self
            .0
            .partition_point(|tombstone| tombstone.slice.end <= slice.start);
        self.0
            .iter()
            .skip(first)
            .take_while(|tombstone| tombstone.slice.start < slice.end)
            .map(|tombstone| RangeTombstone {
                slice: Slice {
                    start: tombstone.slice.start.clone().max(slice.start.clone()),
                    end: tombstone.slice.end.clone().min(slice.end.clone()),
                },
                deletion: tombstone.deletion,
            })
    }

    /// Adds one; an empty slice adds nothing.
    pub fn add(&mut self, tombstone: RangeTombstone) {
        if tombstone.slice.is_empty() {
            return;
        }
        let first = self.0.partition_point(|t| t.slice.end < tombstone.slice.start);
        let last = self.0.partition_point(|t| t.slice.start <= tombstone.slice.end);
        let touched: Vec<RangeTombstone> = self.0.drain(first..last).collect();
        let mut rebuilt = Vec::with_capacity(touched.len() * 2 + 1);
        let mut rest = Some(tombstone.slice);
        for old in touched {
            let Some(mut new) = rest.take() else {
                push_joined(&mut rebuilt, old);
                continue;
            };
            let (old_slice, old_deletion) = (old.slice, old.deletion);
            // Left of the overlap: whichever starts first, alone.
            if old_slice.start < new.start {
                let end = old_slice.end.clone().min(new.start.clone());
                push(&mut rebuilt, old_slice.start.clone(), end, old_deletion);
            } else if new.start < old_slice.start {
                let end = new.end.clone().min(old_slice.start.clone());
                push(&mut rebuilt, new.start.clone(), end.clone(), tombstone.deletion);
                new.start = end;
            }
            // The overlap: the stronger one.
            let start = old_slice.start.clone().max(new.start.clone());
            let end = old_slice.end.clone().min(new.end.clone());
            if start < end {
                push(
                    &mut rebuilt,
                    start,
                    end.clone(),
                    old_deletion.max(tombstone.deletion),
                );
            }
            // Right of the overlap: the old one ends here, the new one goes on to the next.
            if new.end < old_slice.end {
                let start = new.end.clone().max(old_slice.start.clone());
                push(&mut rebuilt, start, old_slice.end, old_deletion);
            } else {
                new.start = new.start.max(old_slice.end);
                rest = Some(new);
            }
        }
        if let Some(new) = rest {
            push(&mut rebuilt, new.start, new.end, tombstone.deletion);
        }
        self.0.splice(first..first, rebuilt);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: RangeTombstones) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        if other.0.len() <= ADDED_ONE_BY_ONE {
            other.0.into_iter().for_each(|tombstone| self.add(tombstone));
            return;
        }
        // In order of their starts each touches only the end of what is there: the cost is linear.
        let mut both = std::mem::take(&mut self.0);
        both.extend(other.0);
        both.sort_by(|a, b| a.slice.start.cmp(&b.slice.start));
        self.0.reserve(both.len());
        both.into_iter().for_each(|tombstone| self.add(tombstone));
    }

    /// Drops those that a partition deletion makes redundant.
    pub fn shadow_by_wider(&mut self, deletion: Deletion) {
        self.0.retain(|tombstone| tombstone.deletion > deletion);
    }

    /// Keeps those that `keep` wants.
    pub fn retain(&mut self, keep: impl FnMut(&RangeTombstone) -> bool) {
        self.0.retain(keep);
    }

    /// Bytes of memory, roughly.
    pub fn memory_size(&self) -> usize {
        self.0
            .iter()
            .map(|t| size_of::<RangeTombstone>() + t.slice.start.0.len() + t.slice.end.0.len())
            .sum()
    }
}

impl FromIterator<RangeTombstone> for RangeTombstones {
    fn from_iter<I: IntoIterator<Item = RangeTombstone>>(tombstones: I) -> Self {
        let mut set = Self::new();
        tombstones.into_iter().for_each(|tombstone| set.add(tombstone));
        set
    }
}

fn push(out: &mut Vec<RangeTombstone>, start: Position, end: Position, deletion: Deletion) {
    if start < end {
        push_joined(
            out,
            RangeTombstone {
                slice: Slice { start, end },
                deletion,
            },
        );
    }
}

fn push_joined(out: &mut Vec<RangeTombstone>, tombstone: RangeTombstone) {
    match out.last_mut() {
        Some(last) if last.slice.end == tombstone.slice.start && last.deletion == tombstone.deletion => {
            last.slice.end = tombstone.slice.end;
        }
        _ => out.push(tombstone),
    }
}
