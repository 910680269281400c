//! Going on after the place where a read stopped: the order of such places, and the command for the rest.

use std::cmp::Ordering;

use ceto_model::comparable::{bound_after, bound_before};
use ceto_model::evaluate::slices_of;
use ceto_model::read::{ResumePoint, Slices};
use ceto_model::{
    ClusteringKey, DecoratedKey, PartitionKey, PartitionRange, Position, ReadCommand, ReadTarget,
    RingPosition, Slice, Token,
};

/// Which of two places comes first in the order of reading.
pub(super) fn compare(a: &ResumePoint, b: &ResumePoint, reversed: bool) -> Ordering {
    ring_rank(a).cmp(&ring_rank(b)).then_with(|| match (a, b) {
        (ResumePoint::Row(_, a), ResumePoint::Row(_, b)) if reversed => b.cmp(a),
        (ResumePoint::Row(_, a), ResumePoint::Row(_, b)) => a.cmp(b),
        _ => Ordering::Equal,
    })
}

/// Order on the ring: before a token, then its keys (before, within, after each), then after the token.
fn ring_rank(point: &ResumePoint) -> (Token, u8, Option<&PartitionKey>, u8) {
    match point {
        ResumePoint::Row(key, _) => (key.token, 1, Some(&key.key), 1),
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
        ResumePoint::Row(..) => ring_rank(point) >= rank,
        ResumePoint::Ring(_) => ring_rank(point) > rank,
    }
}

/// The slice of rows up to and including `row`, in the order of reading.
pub(super) fn up_to(row: &ClusteringKey, reversed: bool) -> Slice {
    let mut slice = Slice::full();
    if reversed {
        slice.start = Position(bound_before(prefix(row)));
    } else {
        slice.end = Position(bound_after(prefix(row)));
    }
    slice
}

/// The components of a key without its last byte, which only closes it.
fn prefix(row: &ClusteringKey) -> &[u8] {
    row.0.split_last().map_or(&[], |(_, components)| components)
}

fn slices_after(slices: &Slices, row: &ClusteringKey, reversed: bool) -> Slices {
    let done = up_to(row, reversed);
    slices
        .iter()
        .map(|slice| {
            let mut rest = slice.clone();
            if reversed {
                rest.end = rest.end.min(done.start.clone());
            } else {
                rest.start = rest.start.max(done.end.clone());
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
        (ReadTarget::Partition(_), ResumePoint::Row(_, row)) => {
            rest.slices = slices_after(&rest.slices, row, rest.reversed);
            if rest.slices.is_empty() {
                return None;
            }
        }
        (ReadTarget::Partition(_), ResumePoint::Ring(_)) => return None,
        (ReadTarget::Range(range), ResumePoint::Row(key, row)) => {
            let slices = slices_after(slices_of(&rest, key), row, rest.reversed);
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
