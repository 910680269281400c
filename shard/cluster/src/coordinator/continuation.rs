//! Going on after the place where a read stopped: the order of such places, and the command for the rest.

use std::cmp::Ordering;

use ceto_model::evaluate::slices_of;
use ceto_model::read::{ResumePoint, Slices};
use ceto_model::{
    DecoratedKey, PartitionKey, PartitionRange, Position, ReadCommand, ReadTarget, RingPosition, Slice, Token,
};

/// Which of two places comes first in the order of reading.
pub(super) fn compare(a: &ResumePoint, b: &ResumePoint, reversed: bool) -> Ordering {
    ring_rank(a).cmp(&ring_rank(b)).then_with(|| match (a, b) {
        (ResumePoint::Inside(_, a), ResumePoint::Inside(_, b)) if reversed => b.cmp(a),
        (ResumePoint::Inside(_, a), ResumePoint::Inside(_, b)) => a.cmp(b),
        _ => Ordering::Equal,
    })
}

/// Order on the ring: before a token, then its keys (before, within, after each), then after the token.
fn ring_rank(point: &ResumePoint) -> (Token, u8, Option<&PartitionKey>, u8) {
    match point {
        ResumePoint::Inside(key, _) => (key.token, 1, Some(&key.key), 1),
        ResumePoint::Ring(position) => match position {
            RingPosition::BeforeToken(token) => (*token, 0, None, 0),
            RingPosition::BeforeKey(key) => (key.token, 1, Some(&key.key), 0),
            RingPosition::AfterKey(key) => (key.token, 1, Some(&key.key), 2),
            RingPosition::AfterToken(token) => (*token, 2, None, 0),
        },
    }
}

/// All of `key`'s partition, or a part of it, comes before this place.
pub(super) fn reaches(point: &ResumePoint, key: &DecoratedKey) -> bool {
    let rank = (key.token, 1, Some(&key.key), 1);
    match point {
        ResumePoint::Inside(..) => ring_rank(point) >= rank,
        ResumePoint::Ring(_) => ring_rank(point) > rank,
    }
}

/// The slice of rows up to `at`, in the order of reading.
pub(super) fn up_to(at: &Position, reversed: bool) -> Slice {
    let mut slice = Slice::full();
    if reversed {
        slice.start = at.clone();
    } else {
        slice.end = at.clone();
    }
    slice
}

fn slices_after(slices: &Slices, at: &Position, reversed: bool) -> Slices {
    slices
        .iter()
        .map(|slice| {
            let mut rest = slice.clone();
            if reversed {
                rest.end = rest.end.min(at.clone());
            } else {
                rest.start = rest.start.max(at.clone());
            }
            rest
        })
        .filter(|slice| !slice.is_empty())
        .collect()
}

/// The command for what comes after `point`, limits unchanged; None when nothing does.
pub(super) fn after(command: ReadCommand, point: &ResumePoint) -> Option<ReadCommand> {
    let mut rest = command;
    match (&rest.target, point) {
        (ReadTarget::Partition(_), ResumePoint::Inside(_, at)) => {
            rest.slices = slices_after(&rest.slices, at, rest.reversed);
            if rest.slices.is_empty() {
                return None;
            }
        }
        (ReadTarget::Partition(_), ResumePoint::Ring(_)) => return None,
        (ReadTarget::Range(range), ResumePoint::Inside(key, at)) => {
            let slices = slices_after(slices_of(&rest, key), at, rest.reversed);
            let start = if slices.is_empty() {
                RingPosition::AfterKey(key.clone())
            } else {
                RingPosition::BeforeKey(key.clone())
            };
            let end = range.end.clone();
            rest.first_partition_slices = (!slices.is_empty()).then_some(slices);
            rest.target = ReadTarget::Range(PartitionRange { start, end });
        }
        (ReadTarget::Range(range), ResumePoint::Ring(position)) => {
            let (start, end) = (position.clone(), range.end.clone());
            rest.first_partition_slices = None;
            rest.target = ReadTarget::Range(PartitionRange { start, end });
        }
    }
    Some(rest)
}
