//! Where ballots come from: the wall clock, never backwards, and above every ballot that is known to be in the way.

use std::time::Instant;

use ceto_internode::Ballot;
use ceto_model::Timestamp;

use crate::random::Random;

#[derive(Debug)]
pub(super) struct Ballots {
    at: Instant,
    wall: Timestamp,
    last: i64,
    proposer: u64,
}

impl Ballots {
    /// Ballots of one life of one shard: 62 random bits tell it from all others.
    pub(super) fn new(at: Instant, wall: Timestamp, random: &mut Random) -> Ballots {
        Ballots {
            at,
            wall,
            last: i64::MIN,
            proposer: random.next() & Ballot::PROPOSER_MASK,
        }
    }

    /// Sets the clock that ballots are read from.
    pub(super) fn set(&mut self, at: Instant, wall: Timestamp) {
        (self.at, self.wall) = (at, wall);
    }

    /// Wall time in microseconds.
    pub(super) fn wall(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.at).as_micros();
        self.wall
            .0
            .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// A ballot later than all before and than `above`.
    pub(super) fn next(&mut self, now: Instant, above: Ballot) -> Ballot {
        let floor = self.last.max(above.micros).saturating_add(1);
        self.last = self.wall(now).max(floor);
        Ballot {
            micros: self.last,
            proposer: self.proposer,
        }
    }
}
