//! The tally: which answers count for a consistency level, and when there are enough.

use ceto_model::Consistency;
use smallvec::SmallVec;

use crate::replication::{Replica, ReplicaMap};
use crate::ring::Datacenter;

/// Counts answers. Invariant: `received` never exceeds `required`, so that an error shown to a client never says that
/// there were enough.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tally {
    required: u32,
    received: u32,
    scope: Scope,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Scope {
    /// Every replica counts.
    Everywhere,
    /// Replicas of one data center count.
    Within(Datacenter),
    /// Each data center still wants so many.
    Each(SmallVec<[(Datacenter, u32); 4]>),
}

impl Tally {
    pub(crate) fn new(map: &ReplicaMap, consistency: Consistency) -> Tally {
        let each = map.each_quorum();
        let scope = if consistency == Consistency::EachQuorum && !each.is_empty() {
            Scope::Each(each.into())
        } else if consistency.is_datacenter_local() {
            Scope::Within(map.local_datacenter())
        } else {
            Scope::Everywhere
        };
        Tally {
            required: map.required(consistency),
            received: 0,
            scope,
        }
    }

    /// The same for a write that goes to nodes that are about to be replicas: as many answers more, so that whichever nodes
    /// the level is asked of later, before or after they are, have the write among them.
    pub(crate) fn for_write(map: &ReplicaMap, consistency: Consistency, pending: &[Replica]) -> Tally {
        let mut tally = Tally::new(map, consistency);
        // One that would be content with a hint.
        if consistency == Consistency::Any {
            return tally;
        }
        for replica in pending {
            let counts = match &mut tally.scope {
                Scope::Everywhere => true,
                Scope::Within(own) => *own == replica.datacenter,
                Scope::Each(each) => {
                    let wanted = each.iter_mut().find(|(own, _)| *own == replica.datacenter);
                    wanted.map(|(_, wanted)| *wanted += 1).is_some()
                }
            };
            tally.required += u32::from(counts);
        }
        tally
    }

    /// Answers needed.
    pub(crate) fn required(&self) -> u32 {
        self.required
    }

    /// Answers that counted.
    pub(crate) fn received(&self) -> u32 {
        self.received
    }

    /// There are enough.
    pub(crate) fn is_met(&self) -> bool {
        self.received >= self.required
    }

    /// An answer from `datacenter` would count.
    pub(crate) fn wants(&self, datacenter: Datacenter) -> bool {
        !self.is_met()
            && match &self.scope {
                Scope::Everywhere => true,
                Scope::Within(own) => *own == datacenter,
                Scope::Each(each) => each.iter().any(|(own, wanted)| *own == datacenter && *wanted > 0),
            }
    }

    /// Counts an answer from `datacenter`, if it counts.
    pub(crate) fn count(&mut self, datacenter: Datacenter) {
        if !self.wants(datacenter) {
            return;
        }
        self.received += 1;
        if let Scope::Each(each) = &mut self.scope {
            each.iter_mut()
                .filter(|(own, _)| *own == datacenter)
                .for_each(|(_, wanted)| *wanted -= 1);
        }
    }

    /// There would be enough if all of `replicas` answered.
    pub(crate) fn can_be_met<'a>(&self, replicas: impl IntoIterator<Item = &'a Replica>) -> bool {
        let mut probe = self.clone();
        replicas
            .into_iter()
            .for_each(|replica| probe.count(replica.datacenter));
        probe.is_met()
    }

    /// What is needed and how many of `alive` count, when they are too few.
    pub(crate) fn shortage(&self, alive: &[Replica]) -> Option<(u32, u32)> {
        if self.can_be_met(alive) {
            return None;
        }
        let within = |datacenter| {
            alive
                .iter()
                .filter(|replica| replica.datacenter == datacenter)
                .count() as u32
        };
        Some(match &self.scope {
            Scope::Everywhere => (self.required, alive.len() as u32),
            Scope::Within(own) => (self.required, within(*own)),
            Scope::Each(each) => each
                .iter()
                .map(|(datacenter, wanted)| (*wanted, within(*datacenter)))
                .find(|(wanted, alive)| alive < wanted)
                .unwrap_or((self.required, alive.len() as u32)),
        })
    }

    /// The first of `candidates` that suffice, and the others that could stand in for them; None when they do not
    /// suffice.
    pub(crate) fn choose(&self, candidates: &[Replica]) -> Option<(Chosen, Chosen)> {
        let mut probe = self.clone();
        let (mut chosen, mut spare) = (Chosen::new(), Chosen::new());
        for replica in candidates {
            if probe.wants(replica.datacenter) {
                probe.count(replica.datacenter);
                chosen.push(*replica);
            } else if self.wants(replica.datacenter) {
                spare.push(*replica);
            }
        }
        probe.is_met().then_some((chosen, spare))
    }
}

/// Some replicas of one token.
pub(crate) type Chosen = SmallVec<[Replica; 4]>;
