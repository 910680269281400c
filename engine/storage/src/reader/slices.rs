//! Cutting the rows and deletion changes of a partition to slices.

use std::cmp::Ordering;

use ceto_model::{Deletion, Position, RangeTombstone, Slice};

use super::Fragment;

/// Lets through what lies in the slices of a scan. Fed with rows and deletion changes in reading order, it opens and
/// closes the deletions that reach over a slice's bounds.
pub(crate) struct SliceFilter<'a> {
    slices: &'a [Slice],
    reversed: bool,
    /// Slices entered or passed so far.
    passed: usize,
    /// Inside the slice number `passed - 1`.
    is_inside: bool,
    /// What holds at the place reached.
    open: Option<Deletion>,
}

impl<'a> SliceFilter<'a> {
    /// Before the first fragment of a partition.
    pub(crate) fn new(slices: &'a [Slice], reversed: bool) -> SliceFilter<'a> {
        SliceFilter {
            slices,
            reversed,
            passed: 0,
            is_inside: false,
            open: None,
        }
    }

    /// Slice number `at` in reading order: its first and last bound in that order.
    fn bounds(&self, at: usize) -> Option<(&'a Position, &'a Position)> {
        if self.reversed {
            let slice = self
                .slices
                .len()
                .checked_sub(at + 1)
                .and_then(|at| self.slices.get(at))?;
            Some((&slice.end, &slice.start))
        } else {
            self.slices.get(at).map(|slice| (&slice.start, &slice.end))
        }
    }

    fn order(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.reversed { b.cmp(a) } else { a.cmp(b) }
    }

    /// The bound at which the next slice begins, when no slice is open; None at the end.
    pub(crate) fn next_start(&self) -> Option<&'a Position> {
        if self.is_inside {
            return None;
        }
        self.bounds(self.passed).map(|(start, _)| start)
    }

    /// Nothing more will pass.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_inside && self.passed == self.slices.len()
    }

    /// A slice is open: what comes next in the stream may pass.
    pub(crate) fn is_inside(&self) -> bool {
        self.is_inside
    }

    /// Says which deletion holds where the stream goes on after a jump over what no slice wants.
    pub(crate) fn jump(&mut self, open: Option<Deletion>) {
        debug_assert!(!self.is_inside, "a jump inside a slice");
        self.open = open;
    }

    /// Goes on to a row at `place`; true when it lies in a slice.
    pub(crate) fn advance(&mut self, place: &[u8], out: &mut impl Extend<Fragment>) -> bool {
        self.move_to(place, out);
        self.is_inside
    }

    /// Goes on to a deletion change.
    pub(crate) fn change(
        &mut self,
        position: Position,
        deletion: Option<Deletion>,
        out: &mut impl Extend<Fragment>,
    ) {
        self.move_to(&position.0, out);
        self.open = deletion;
        if self.is_inside {
            out.extend([Fragment::DeletionChange(position, deletion)]);
        }
    }

    /// Opens and closes the slices that begin or end at or before `place`.
    fn move_to(&mut self, place: &[u8], out: &mut impl Extend<Fragment>) {
        loop {
            if self.is_inside {
                let Some((_, end)) = self.bounds(self.passed - 1) else {
                    return;
                };
                if self.order(&end.0, place) == Ordering::Greater {
                    return;
                }
                if self.bounds(self.passed).is_some_and(|(start, _)| start == end) {
                    self.passed += 1;
                } else {
                    self.close(end, out);
                }
            } else {
                let Some((start, end)) = self.bounds(self.passed) else {
                    return;
                };
                if self.order(&start.0, place) != Ordering::Less {
                    return;
                }
                self.passed += 1;
                self.is_inside = self.order(&start.0, &end.0) == Ordering::Less;
                if let Some(open) = self.open.filter(|_| self.is_inside) {
                    out.extend([Fragment::DeletionChange(start.clone(), Some(open))]);
                }
            }
        }
    }

    fn close(&mut self, end: &Position, out: &mut impl Extend<Fragment>) {
        self.is_inside = false;
        if self.open.is_some() {
            out.extend([Fragment::DeletionChange(end.clone(), None)]);
        }
    }

    /// At the end of the partition: what is open is closed.
    pub(crate) fn finish(&mut self, out: &mut impl Extend<Fragment>) {
        // A deletion that reaches to here covers slices that no row or change has opened yet.
        let last: &[u8] = if self.reversed { &[] } else { &[0xff] };
        if self.open.is_some() {
            self.move_to(last, out);
        }
        if self.is_inside
            && let Some((_, end)) = self.bounds(self.passed - 1)
        {
            self.close(end, out);
        }
        self.passed = self.slices.len();
    }
}

/// The changes that a sorted list of disjoint deleted ranges amounts to, from the first to the last.
pub(crate) fn changes_of(
    tombstones: impl Iterator<Item = RangeTombstone>,
) -> impl Iterator<Item = (Position, Option<Deletion>)> {
    let mut tombstones = tombstones.peekable();
    let mut pending_end: Option<Position> = None;
    std::iter::from_fn(move || {
        if let Some(end) = pending_end.take() {
            let continues = tombstones.peek().is_some_and(|next| next.slice.start == end);
            if !continues {
                return Some((end, None));
            }
        }
        let next = tombstones.next()?;
        pending_end = Some(next.slice.end);
        Some((next.slice.start, Some(next.deletion)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use ceto_model::{ClusteringKey, Row, Timestamp, UnixSeconds};

    use super::*;

    fn at(byte: u8) -> Position {
        Position(Bytes::from(vec![byte]))
    }

    fn slice(start: u8, end: u8) -> Slice {
        Slice {
            start: at(start),
            end: at(end),
        }
    }

    fn deletion(timestamp: i64) -> Deletion {
        Deletion {
            timestamp: Timestamp(timestamp),
            deleted_at: UnixSeconds(0),
        }
    }

    fn row(key: u8) -> Fragment {
        Fragment::Row(ClusteringKey(Bytes::from(vec![key])), Row::default())
    }

    fn change(position: u8, timestamp: Option<i64>) -> Fragment {
        Fragment::DeletionChange(at(position), timestamp.map(deletion))
    }

    fn filtered(slices: &[Slice], reversed: bool, input: &[Fragment]) -> Vec<Fragment> {
        let mut out = Vec::new();
        let mut filter = SliceFilter::new(slices, reversed);
        for fragment in input {
            match fragment {
                Fragment::Row(key, _) if filter.advance(&key.0, &mut out) => out.push(fragment.clone()),
                Fragment::DeletionChange(position, deletion) => {
                    filter.change(position.clone(), *deletion, &mut out);
                }
                _ => {}
            }
        }
        filter.finish(&mut out);
        out
    }

    #[test]
    fn deletions_are_cut_to_the_slices() {
        let input = [change(5, Some(1)), row(8), change(40, None), row(50)];
        let slices = [slice(7, 10), slice(20, 30), slice(35, 60)];
        let expected = [
            change(7, Some(1)),
            row(8),
            change(10, None),
            change(20, Some(1)),
            change(30, None),
            change(35, Some(1)),
            change(40, None),
            row(50),
        ];
        assert_eq!(filtered(&slices, false, &input), expected);
    }

    #[test]
    fn reversed_deletions_are_cut_to_the_slices() {
        let input = [row(50), change(40, Some(1)), row(8), change(5, None)];
        let slices = [slice(7, 10), slice(20, 30), slice(35, 60)];
        let expected = [
            row(50),
            change(40, Some(1)),
            change(35, None),
            change(30, Some(1)),
            change(20, None),
            change(10, Some(1)),
            row(8),
            change(7, None),
        ];
        assert_eq!(filtered(&slices, true, &input), expected);
    }

    #[test]
    fn touching_slices_are_one() {
        let input = [change(5, Some(1)), row(8), change(40, None)];
        let slices = [slice(7, 10), slice(10, 30)];
        let expected = [change(7, Some(1)), row(8), change(30, None)];
        assert_eq!(filtered(&slices, false, &input), expected);
    }

    #[test]
    fn touching_ranges_change_once() {
        let tombstone = |start, end, timestamp| RangeTombstone {
            slice: slice(start, end),
            deletion: deletion(timestamp),
        };
        let list = vec![tombstone(1, 3, 1), tombstone(3, 4, 2), tombstone(6, 7, 1)];
        let changes: Vec<_> = changes_of(list.into_iter()).collect();
        let expected = [
            (at(1), Some(deletion(1))),
            (at(3), Some(deletion(2))),
            (at(4), None),
            (at(6), Some(deletion(1))),
            (at(7), None),
        ];
        assert_eq!(changes, expected);
    }
}
