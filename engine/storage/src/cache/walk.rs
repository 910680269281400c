//! Walking over what is known of a cached partition, slice by slice, in either direction.
//!
//! Yields the same rows and deletion changes as any source (see `reader`), as far as they are known: at the first gap
//! of which nothing is known the walk stops, and says where to go on from disk.

use ceto_model::{ClusteringKey, Deletion, Position, Row, Slice};

use super::entries::{Entry, Gap, is_just_after, is_just_before, is_key};
use super::partition::State;
use crate::reader::{after_row, before_row};

/// What a walk meets.
pub(super) enum Met<'a> {
    Row(&'a ClusteringKey, &'a Row),
    Change(Position, Option<Deletion>),
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Walked {
    /// All slices are done.
    Through,
    /// The visitor wanted no more for now.
    Paused,
    /// What comes next is not known.
    Gap,
}

/// Where a walk stands.
#[derive(Clone, Default, Debug)]
pub(super) struct Cursor {
    /// Slices done, in reading order.
    pub(super) done: usize,
    /// Where to go on inside the next slice: a place reached, or none at its beginning.
    pub(super) at: Option<Position>,
    /// The range deletion that was last announced.
    pub(super) open: Option<Deletion>,
}

impl Cursor {
    /// The slices not walked over yet, in clustering order; the one that was begun is cut.
    pub(super) fn rest(&self, slices: &[Slice], reversed: bool) -> Vec<Slice> {
        let left = slices.len() - self.done;
        let mut rest = if reversed {
            slices[..left].to_vec()
        } else {
            slices[self.done..].to_vec()
        };
        let begun = if reversed {
            rest.last_mut()
        } else {
            rest.first_mut()
        };
        if let (Some(slice), Some(at)) = (begun, &self.at) {
            let bound = beyond(&at.0, reversed);
            if reversed {
                slice.end = bound;
            } else {
                slice.start = bound;
            }
        }
        rest
    }
}

/// The bound behind a place, in reading order.
fn beyond(place: &[u8], reversed: bool) -> Position {
    if !is_key(place) {
        return Position(bytes::Bytes::copy_from_slice(place));
    }
    let key = ClusteringKey(bytes::Bytes::copy_from_slice(place));
    if reversed {
        before_row(&key)
    } else {
        after_row(&key)
    }
}

/// Goes on from the cursor until all slices are done, `places_max` places were met, the visitor says false, or nothing
/// is known.
pub(super) fn walk(
    state: &State,
    slices: &[Slice],
    reversed: bool,
    cursor: &mut Cursor,
    places_max: usize,
    visit: &mut dyn FnMut(Met<'_>) -> bool,
) -> Walked {
    let mut walk = Walk {
        reversed,
        open: cursor.open,
        places_left: places_max,
        visit,
    };
    while let Some(slice) = slice_number(slices, reversed, cursor.done) {
        let from = cursor.at.take();
        let next = slice_number(slices, reversed, cursor.done + 1);
        let walked = if slice.is_empty() {
            Walked::Through
        } else if reversed {
            walk.backward(state, slice, from, next, cursor)
        } else {
            walk.forward(state, slice, from, next, cursor)
        };
        cursor.open = walk.open;
        if walked != Walked::Through {
            return walked;
        }
        cursor.done += 1;
    }
    Walked::Through
}

/// Slice number `done` in reading order.
fn slice_number(slices: &[Slice], reversed: bool, done: usize) -> Option<&Slice> {
    let at = if reversed {
        slices.len().checked_sub(done + 1)?
    } else {
        done
    };
    slices.get(at)
}

struct Walk<'v> {
    reversed: bool,
    open: Option<Deletion>,
    places_left: usize,
    visit: &'v mut dyn FnMut(Met<'_>) -> bool,
}

impl Walk<'_> {
    fn forward(
        &mut self,
        state: &State,
        slice: &Slice,
        from: Option<Position>,
        next_slice: Option<&Slice>,
        cursor: &mut Cursor,
    ) -> Walked {
        let (start, end) = (from.as_ref().unwrap_or(&slice.start), &slice.end);
        let next_start = next_slice.map(|next| &next.start);
        let mut at: &[u8] = &start.0;
        for (place, entry) in state.entries.after(at) {
            if **place >= *end.0 {
                return self.finish(at, entry.gap, end, next_start, cursor);
            }
            // Between a row and the bounds beside it there is nothing.
            if !is_just_before(at, place) && !is_just_after(place, at) {
                match entry.gap {
                    Gap::Known(deletion) => self.change(at, deletion),
                    Gap::Unknown => return stop(cursor, at),
                }
            }
            if !self.place(place, entry) {
                cursor.at = Some(Position(place.clone()));
                return Walked::Paused;
            }
            at = place;
        }
        self.finish(at, state.tail, end, next_start, cursor)
    }

    fn backward(
        &mut self,
        state: &State,
        slice: &Slice,
        from: Option<Position>,
        next_slice: Option<&Slice>,
        cursor: &mut Cursor,
    ) -> Walked {
        let (start, end) = (&slice.start, from.as_ref().unwrap_or(&slice.end));
        let mut at: &[u8] = &end.0;
        // The gap before a place is told by the next one, or by that place itself.
        let mut gap = match state.entries.get(at) {
            Some(entry) => entry.gap,
            None => state
                .entries
                .after(at)
                .next()
                .map_or(state.tail, |(_, entry)| entry.gap),
        };
        let mut places = state.entries.before(at);
        while let Some((place, entry)) = places.next_back() {
            if **place <= *start.0 {
                break;
            }
            if !is_just_after(at, place) && !is_just_before(place, at) {
                match gap {
                    Gap::Known(deletion) => self.change(at, deletion),
                    Gap::Unknown => return stop(cursor, at),
                }
            }
            if !self.place(place, entry) {
                cursor.at = Some(Position(place.clone()));
                return Walked::Paused;
            }
            at = place;
            gap = entry.gap;
        }
        self.finish(at, gap, start, next_slice.map(|next| &next.end), cursor)
    }

    /// Meets a place inside a slice; false when the visitor wants no more.
    fn place(&mut self, place: &bytes::Bytes, entry: &Entry) -> bool {
        entry.note_use();
        self.places_left = self.places_left.saturating_sub(1);
        if !is_key(place) {
            return self.places_left > 0;
        }
        if entry.covering != self.open {
            let key = ClusteringKey(place.clone());
            let position = if self.reversed {
                after_row(&key)
            } else {
                before_row(&key)
            };
            self.change(&position.0, entry.covering);
        }
        match &entry.row {
            Some(row) => (self.visit)(Met::Row(&ClusteringKey(place.clone()), row)) && self.places_left > 0,
            None => self.places_left > 0,
        }
    }

    /// The last gap of a slice, from the place reached to the slice's `end` in reading order.
    fn finish(
        &mut self,
        at: &[u8],
        gap: Gap,
        end: &Position,
        next_start: Option<&Position>,
        cursor: &mut Cursor,
    ) -> Walked {
        let is_beside = if self.reversed {
            is_just_before(&end.0, at)
        } else {
            is_just_after(&end.0, at)
        };
        if !is_beside {
            match gap {
                Gap::Known(deletion) => self.change(at, deletion),
                Gap::Unknown => return stop(cursor, at),
            }
        }
        if next_start != Some(end) {
            self.change(&end.0, None);
        }
        Walked::Through
    }

    /// From `at` on, in reading order, this range deletion holds.
    fn change(&mut self, at: &[u8], deletion: Option<Deletion>) {
        if self.open != deletion {
            self.open = deletion;
            (self.visit)(Met::Change(beyond(at, self.reversed), deletion));
        }
    }
}

fn stop(cursor: &mut Cursor, at: &[u8]) -> Walked {
    cursor.at = Some(Position(bytes::Bytes::copy_from_slice(at)));
    Walked::Gap
}
