//! The acceptor's rules on one partition's state. Pure: what to answer, what to store, what to apply.
//!
//! ```text
//! promised    highest ballot taken part in; never falls
//! accepted    proposal of the highest ballot accepted, until it or a newer one is known to be chosen
//! committed   newest proposal known to be chosen
//! promised >= accepted.ballot, promised >= committed.ballot, accepted.ballot > committed.ballot
//! ```
//!
//! Every request may come late, and preparations and commits may come twice: repeating one gives the same answer and
//! changes nothing. Of proposals links must deliver no copies, as a TCP connection does not: a proposer takes a refusal for
//! proof that its proposal is not there, which a copy that comes after the proposal was accepted and passed over would belie.

use std::sync::Arc;

use ceto_internode::{Ballot, PaxosMessage, Proposal};
use ceto_model::Mutation;

/// An acceptor's state of one partition, as `system.paxos` keeps it. The default is that of a partition never proposed for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AcceptorState {
    /// No ballot below it is taken part in.
    pub promised: Ballot,
    /// Accepted, not known to be chosen.
    pub accepted: Option<Proposal>,
    /// Newest known to be chosen.
    pub committed: Option<Proposal>,
}

/// What follows from a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The answer, to be sent once the state is stored.
    pub answer: PaxosMessage,
    /// The state has changed and must be stored.
    pub is_changed: bool,
    /// To be applied to the table before the state is stored.
    pub apply: Option<Arc<Mutation>>,
}

impl Verdict {
    fn unchanged(answer: PaxosMessage) -> Verdict {
        Verdict {
            answer,
            is_changed: false,
            apply: None,
        }
    }

    fn changed(answer: PaxosMessage) -> Verdict {
        Verdict {
            is_changed: true,
            ..Verdict::unchanged(answer)
        }
    }
}

impl AcceptorState {
    fn committed_ballot(&self) -> Ballot {
        self.committed
            .as_ref()
            .map_or(Ballot::default(), |committed| committed.ballot)
    }

    /// Is asked to promise `ballot`.
    pub fn prepare(&mut self, ballot: Ballot) -> Verdict {
        if ballot < self.promised {
            return Verdict::unchanged(PaxosMessage::Refused {
                promised: self.promised,
            });
        }
        let is_changed = ballot > self.promised;
        self.promised = ballot;
        Verdict {
            is_changed,
            ..Verdict::unchanged(PaxosMessage::Promised {
                accepted: self.accepted.clone(),
                committed: self.committed.clone(),
            })
        }
    }

    /// Is asked to accept `proposal`.
    pub fn propose(&mut self, proposal: Proposal) -> Verdict {
        if proposal.ballot < self.promised {
            return Verdict::unchanged(PaxosMessage::Refused {
                promised: self.promised,
            });
        }
        let is_known = self.committed_ballot() == proposal.ballot
            || self
                .accepted
                .as_ref()
                .is_some_and(|accepted| accepted.ballot == proposal.ballot);
        if is_known {
            return Verdict::unchanged(PaxosMessage::Accepted);
        }
        self.promised = proposal.ballot;
        self.accepted = Some(proposal);
        Verdict::changed(PaxosMessage::Accepted)
    }

    /// Learns that `proposal` is chosen. Asks for no promise: what is chosen is chosen.
    pub fn commit(&mut self, proposal: Proposal) -> Verdict {
        let committed = self.committed_ballot();
        if proposal.ballot == committed {
            return Verdict::unchanged(PaxosMessage::Committed);
        }
        let apply = (!proposal.is_empty()).then(|| proposal.mutation.clone());
        if proposal.ballot < committed {
            // It was missed here; the newer one stands.
            return Verdict {
                apply,
                ..Verdict::unchanged(PaxosMessage::Committed)
            };
        }
        self.promised = self.promised.max(proposal.ballot);
        self.accepted
            .take_if(|accepted| accepted.ballot <= proposal.ballot);
        self.committed = Some(proposal);
        Verdict {
            apply,
            ..Verdict::changed(PaxosMessage::Committed)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ceto_model::{DecoratedKey, PartitionKey, TableId};
    use uuid::Uuid;

    use super::*;

    fn ballot(micros: i64) -> Ballot {
        Ballot { micros, proposer: 1 }
    }

    fn proposal(micros: i64) -> Proposal {
        let key = DecoratedKey::new(PartitionKey(Bytes::from_static(b"k")));
        let mut mutation = Mutation::new(TableId(Uuid::from_u128(1)), key);
        mutation.partition.deletion = Some(ceto_model::Deletion {
            timestamp: ballot(micros).timestamp(),
            deleted_at: ceto_model::UnixSeconds(1),
        });
        Proposal {
            ballot: ballot(micros),
            mutation: Arc::new(mutation),
        }
    }

    #[test]
    fn lower_ballots_are_refused_after_a_promise_and_equal_ones_are_not() {
        let mut state = AcceptorState::default();
        assert!(state.prepare(ballot(5)).is_changed);
        assert!(!state.prepare(ballot(5)).is_changed, "the same message twice");
        let refused = Verdict::unchanged(PaxosMessage::Refused { promised: ballot(5) });
        assert_eq!(state.prepare(ballot(4)), refused);
        assert_eq!(state.propose(proposal(4)), refused);
        assert_eq!(state.propose(proposal(5)).answer, PaxosMessage::Accepted);
        assert!(!state.propose(proposal(5)).is_changed);
        let promised = PaxosMessage::Promised {
            accepted: Some(proposal(5)),
            committed: None,
        };
        assert_eq!(state.prepare(ballot(7)).answer, promised);
    }

    #[test]
    fn a_commit_ends_what_it_supersedes_and_nothing_newer() {
        let mut state = AcceptorState::default();
        state.propose(proposal(5));
        let verdict = state.commit(proposal(5));
        assert_eq!(verdict.apply, Some(proposal(5).mutation));
        assert_eq!(state.accepted, None);
        assert_eq!(state.commit(proposal(5)).apply, None, "once is enough");
        assert!(
            !state.propose(proposal(5)).is_changed,
            "a late proposal is not accepted anew"
        );
        state.propose(proposal(9));
        let verdict = state.commit(proposal(7));
        assert!(verdict.apply.is_some());
        assert_eq!(state.accepted, Some(proposal(9)));
        let verdict = state.commit(proposal(6));
        assert!(verdict.apply.is_some() && !verdict.is_changed);
        assert_eq!(state.committed, Some(proposal(7)));
        assert_eq!(state.promised, ballot(9));
    }

    #[test]
    fn a_commit_is_a_promise() {
        let mut state = AcceptorState::default();
        state.commit(proposal(5));
        assert!(matches!(
            state.prepare(ballot(4)).answer,
            PaxosMessage::Refused { .. }
        ));
    }
}
