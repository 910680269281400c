//! Which sstables hold nothing that is still needed, and which are worth compacting for their tombstones alone.

use ceto_model::Timestamp;

use super::options::Common;
use super::strategy::{Candidate, Moment};

/// Those of the candidates `among` that may be dropped as a whole: all in them is dead and past its gc grace, and
/// nothing outside of what is dropped is as old as what they shadow.
pub(super) fn expired(candidates: &[Candidate<'_>], among: &[usize], moment: &Moment) -> Vec<usize> {
    let is_dead = |at: &usize| candidates[*at].statistics.max_expiry < moment.gc_before;
    let mut gone: Vec<usize> = among.iter().copied().filter(is_dead).collect();
    if gone.is_empty() {
        return gone;
    }
    let mut is_gone = vec![false; candidates.len()];
    gone.iter().for_each(|at| is_gone[*at] = true);
    loop {
        let shadows = |at: usize| {
            let newest = candidates[at].statistics.max_timestamp;
            moment.memtables_oldest <= newest
                || candidates.iter().enumerate().any(|(other, candidate)| {
                    !is_gone[other]
                        && candidate.statistics.min_timestamp <= newest
                        && candidate.overlaps(&candidates[at])
                })
        };
        let kept: Vec<usize> = gone.iter().copied().filter(|at| shadows(*at)).collect();
        if kept.is_empty() {
            return gone;
        }
        // One that stays may be what another one shadows.
        kept.iter().for_each(|at| is_gone[*at] = false);
        gone.retain(|at| is_gone[*at]);
    }
}

/// Enough of this sstable is tombstones that would go if it were compacted alone.
pub(super) fn is_worth_compacting(
    candidates: &[Candidate<'_>],
    at: usize,
    common: &Common,
    moment: &Moment,
) -> bool {
    let candidate = &candidates[at];
    let statistics = candidate.statistics;
    let age = moment.now - statistics.created_at.div_euclid(1_000_000);
    // Not twice within a second: what could not be dropped just now cannot be dropped now.
    if candidate.is_busy || age < common.tombstone_compaction_interval.max(1) {
        return false;
    }
    let ratio = statistics.droppable_tombstone_ratio(moment.gc_before);
    if ratio <= common.tombstone_threshold {
        return false;
    }
    common.unchecked_tombstone_compaction
        || ratio * (1.0 - overlapped_share(candidates, at)) > common.tombstone_threshold
}

/// The part of an sstable's token range where others hold data as old as its tombstones may be.
fn overlapped_share(candidates: &[Candidate<'_>], at: usize) -> f64 {
    let own = &candidates[at];
    let newest: Timestamp = own.statistics.max_timestamp;
    let is_older = |(other, candidate): &(usize, &Candidate<'_>)| {
        *other != at && candidate.statistics.min_timestamp <= newest && candidate.overlaps(own)
    };
    let overlapping = candidates.iter().enumerate().filter(is_older);
    let mut ranges: Vec<(i128, i128)> = overlapping
        .map(|(_, candidate)| {
            let start = candidate.tokens.0.max(own.tokens.0);
            let end = candidate.tokens.1.min(own.tokens.1);
            (i128::from(start.0), i128::from(end.0))
        })
        .collect();
    ranges.sort_unstable();
    let whole = i128::from(own.tokens.1.0) - i128::from(own.tokens.0.0) + 1;
    let (mut covered, mut reached) = (0i128, i128::MIN);
    for (start, end) in ranges {
        let start = start.max(reached);
        if end >= start {
            covered += end - start + 1;
            reached = end + 1;
        }
    }
    covered as f64 / whole as f64
}
