//! The members of the cluster, as group 0 knows them: who they are, where they stand, which tokens are theirs.
//!
//! Changed only by group 0's commands, so that all nodes see the same members in the same order. Kept in group 0's own
//! file rather than in a table, for it is needed before a storage engine is open. Whether a member is up is not in here:
//! that is gossip's.
//!
//! A member comes and goes in steps, so that each write and each read in between meet in a quorum:
//!
//! ```text
//!              read are        written too
//! Joining      the old owners  it           while it copies what it will own
//! Arriving     it              the old owners   until all coordinators know that it is read
//! Normal       it
//! Leaving      it              the new owners   while these copy what it owns
//! Departing    the new owners  it           until all coordinators know that it is not read any more
//! ```
//!
//! A dead member goes from Leaving at once; who replaces one has no old owner to write to.
//!
//! Never: two members with a token in common (but for one and who replaces it) or with one address, a host id that comes back
//! after it was removed, two members that come or go at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Members a cluster has at most: gossip's digest of more does not fit one message.
pub const MEMBERS_MAX: usize = 1000;

/// Host ids of former members that are remembered, the latest: they are refused when they come back.
pub const REMOVED_MAX: usize = 1000;

/// Tokens of one member at most (`num_tokens`).
pub const TOKENS_MAX: usize = 1536;

/// Where a member is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MemberState {
    /// It owns its tokens.
    Normal,
    /// It will own them, and copies what they stand for; it is not in the ring yet.
    Joining,
    /// It is in the ring; who owned its tokens before is written too.
    Arriving,
    /// It gives its data away; it is in the ring.
    Leaving,
    /// It is in the ring no more, but written too.
    Departing,
}

impl MemberState {
    /// Its tokens are read from it.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Normal | Self::Arriving | Self::Leaving)
    }

    fn may_become(self, next: MemberState) -> bool {
        use MemberState::{Arriving, Departing, Joining, Leaving, Normal};
        self == next
            || matches!(
                (self, next),
                (Joining, Arriving) | (Arriving, Normal) | (Normal, Leaving) | (Leaving, Departing | Normal)
            )
    }

    /// Its tokens are its own in the other of the two rings that are written while a member comes or goes.
    fn is_in_other(self) -> bool {
        matches!(self, Self::Normal | Self::Joining | Self::Departing)
    }
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Identity.
    pub host: Uuid,
    /// Where other nodes reach it (`broadcast_address`, `storage_port`).
    pub internode: SocketAddr,
    /// Where clients reach it.
    pub rpc: IpAddr,
    /// Its CQL port.
    pub native_port: u16,
    /// Its shards, at least 1.
    pub shards: u16,
    /// Data center.
    pub datacenter: String,
    /// Rack.
    pub rack: String,
    /// Its tokens, sorted.
    pub tokens: Vec<i64>,
    /// What clients are told of its version.
    pub release_version: String,
    /// Where it is in its life.
    pub state: MemberState,
    /// The member whose place and tokens it takes.
    #[serde(default)]
    pub replaces: Option<Uuid>,
}

impl Member {
    /// Where it is reached and what it runs; what may be another after a restart.
    fn surroundings(&self) -> (SocketAddr, IpAddr, u16, u16, &str) {
        (
            self.internode,
            self.rpc,
            self.native_port,
            self.shards,
            &self.release_version,
        )
    }
}

/// A change of the members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MemberChange {
    /// A node becomes a member (in the state that its record says), or a member says where it is now.
    Put(Member),
    /// A member is in another state.
    SetState(Uuid, MemberState),
    /// A member is none any more, and does not come back.
    Remove(Uuid),
}

/// All members.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Members {
    /// By host id.
    pub nodes: BTreeMap<Uuid, Member>,
    /// Former members, the oldest first.
    pub removed: Vec<Uuid>,
}

impl Members {
    /// The members after `change`.
    ///
    /// # Errors
    /// What is against it, with its cure, for the log of the node that asks.
    pub fn after(&self, change: &MemberChange) -> Result<Members, String> {
        let mut next = self.clone();
        match change {
            MemberChange::Put(member) => {
                self.check(member)?;
                next.nodes.insert(member.host, member.clone());
            }
            MemberChange::SetState(host, state) => {
                if *state == MemberState::Leaving {
                    self.check_nobody_moves(*host)?;
                }
                let Some(member) = next.nodes.get_mut(host) else {
                    return Err(format!("{host} is no member of the cluster"));
                };
                if !member.state.may_become(*state) {
                    return Err(format!(
                        "{host} is {:?} and cannot become {state:?}",
                        member.state
                    ));
                }
                member.state = *state;
                let replaced = member.replaces;
                if *state == MemberState::Normal {
                    member.replaces = None;
                }
                if state.is_read()
                    && let Some(replaced) = replaced
                {
                    next.remove(replaced);
                }
            }
            MemberChange::Remove(host) => {
                if !next.remove(*host) {
                    return Err(format!("{host} is no member of the cluster"));
                }
            }
        }
        Ok(next)
    }

    fn remove(&mut self, host: Uuid) -> bool {
        if self.nodes.remove(&host).is_none() {
            return false;
        }
        self.removed.push(host);
        let surplus = self.removed.len().saturating_sub(REMOVED_MAX);
        self.removed.drain(..surplus);
        true
    }

    /// The member that comes or goes at present.
    pub fn moving(&self) -> Option<&Member> {
        self.nodes
            .values()
            .find(|member| member.state != MemberState::Normal)
    }

    fn check_nobody_moves(&self, but: Uuid) -> Result<(), String> {
        match self.moving() {
            Some(other) if other.host != but => Err(format!(
                "{} ({}) {} at present, and only one node comes or goes at a time; wait until it has finished, or end it by \
                 nodetool abortdecommission or removenode",
                other.internode.ip(),
                other.host,
                match other.state {
                    MemberState::Joining | MemberState::Arriving => "is joining",
                    _ => "is leaving",
                }
            )),
            _ => Ok(()),
        }
    }

    /// The tokens that are a member's in the ring that is read.
    pub fn tokens_read<'a>(&self, member: &'a Member) -> &'a [i64] {
        if member.state.is_read() {
            &member.tokens
        } else {
            &[]
        }
    }

    /// The tokens that are a member's in the other ring; the two differ only while a member comes or goes.
    pub fn tokens_other<'a>(&self, member: &'a Member) -> &'a [i64] {
        let is_replaced = self
            .nodes
            .values()
            .any(|other| other.replaces == Some(member.host) && other.state == MemberState::Joining);
        // Nobody is left of whom who has replaced another could be one of two.
        let has_replaced = member.replaces.is_some() && member.state == MemberState::Arriving;
        match (member.state.is_in_other() && !is_replaced) || has_replaced {
            true => &member.tokens,
            false => &[],
        }
    }

    /// Whether `member` can be one.
    fn check(&self, member: &Member) -> Result<(), String> {
        if self.removed.contains(&member.host) {
            return Err(format!(
                "host id {} was removed from the cluster; delete the node's data folder to join as a new node",
                member.host
            ));
        }
        if member.tokens.len() > TOKENS_MAX || !member.tokens.is_sorted() || member.shards == 0 {
            return Err(format!("{} has impossible tokens or shards", member.host));
        }
        if member.tokens.is_empty() {
            return Err(format!(
                "{} has no tokens; set num_tokens to 1 or more",
                member.host
            ));
        }
        if let Some(before) = self.nodes.get(&member.host) {
            if before.tokens != member.tokens {
                return Err(format!("{} has other tokens than when it joined", member.host));
            }
            if (&before.datacenter, &before.rack) != (&member.datacenter, &member.rack) {
                return Err(format!(
                    "{} joined as {}:{} and is {}:{} now; a node cannot move to another data center or rack",
                    member.host, before.datacenter, before.rack, member.datacenter, member.rack
                ));
            }
        } else if self.nodes.len() >= MEMBERS_MAX {
            return Err(format!(
                "the cluster has {MEMBERS_MAX} nodes, which is the most it can have"
            ));
        }
        if !self.nodes.contains_key(&member.host) {
            self.check_nobody_moves(member.host)?;
        }
        let is_other = |other: &&Member| other.host != member.host && Some(other.host) != member.replaces;
        let others = || self.nodes.values().filter(is_other);
        if let Some(other) = others().find(|other| other.internode == member.internode) {
            return Err(format!(
                "a node with address {} already exists ({}); remove it first, or start with its data folder",
                member.internode, other.host
            ));
        }
        let taken: BTreeSet<i64> = others().flat_map(|other| other.tokens.iter().copied()).collect();
        match member.tokens.iter().find(|token| taken.contains(token)) {
            Some(token) => Err(format!(
                "token {token} is another node's; choose another initial_token"
            )),
            None => Ok(()),
        }
    }

    /// Whether `member` is known as it is.
    pub fn knows(&self, member: &Member) -> bool {
        self.nodes
            .get(&member.host)
            .is_some_and(|known| known.surroundings() == member.surroundings())
    }
}

/// Nodes that vote in group 0 at most; the others only learn.
pub const VOTERS_MAX: usize = 5;

/// Which members are to vote: an odd number up to [`VOTERS_MAX`], spread over data centers and there over racks.
/// Who votes now goes on where that is as good; who is not `alive` only where too few others are.
pub fn choose_voters(
    members: &Members,
    voters: &BTreeSet<Uuid>,
    is_alive: impl Fn(Uuid) -> bool,
) -> BTreeSet<Uuid> {
    let candidates: Vec<&Member> = members
        .nodes
        .values()
        .filter(|member| member.state == MemberState::Normal)
        .collect();
    let wanted = match candidates.len().min(VOTERS_MAX) {
        0 => 0,
        count => count - (1 - count % 2),
    };
    let mut chosen: Vec<&Member> = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        let same = |of: &dyn Fn(&Member) -> bool| chosen.iter().filter(|other| of(other)).count();
        let best = candidates
            .iter()
            .filter(|member| !chosen.iter().any(|other| other.host == member.host))
            .min_by_key(|member| {
                (
                    !is_alive(member.host),
                    same(&|other| other.datacenter == member.datacenter),
                    same(&|other| other.datacenter == member.datacenter && other.rack == member.rack),
                    !voters.contains(&member.host),
                    member.host,
                )
            });
        match best {
            Some(best) => chosen.push(best),
            None => break,
        }
    }
    chosen.iter().map(|member| member.host).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn member(number: u8, datacenter: &str, rack: &str) -> Member {
        Member {
            host: Uuid::from_u128(u128::from(number)),
            internode: SocketAddr::from(([127, 0, 0, number], 7000)),
            rpc: IpAddr::from([127, 0, 0, number]),
            native_port: 9042,
            shards: 1,
            datacenter: datacenter.to_owned(),
            rack: rack.to_owned(),
            tokens: vec![i64::from(number)],
            release_version: "5.0.0".to_owned(),
            state: MemberState::Normal,
            replaces: None,
        }
    }

    fn members(list: &[Member]) -> Members {
        list.iter().fold(Members::default(), |members, member| {
            members.after(&MemberChange::Put(member.clone())).unwrap()
        })
    }

    #[test]
    fn a_member_is_refused_with_the_reason() {
        let all = members(&[member(1, "a", "r"), member(2, "a", "r")]);
        let refused = |member: Member| all.after(&MemberChange::Put(member)).unwrap_err();
        let mut third = member(3, "a", "r");
        third.tokens = vec![2];
        assert!(refused(third).contains("token 2 is another node's"));
        let mut third = member(3, "a", "r");
        third.internode = member(1, "a", "r").internode;
        assert!(refused(third).contains("already exists"));
        assert!(refused(member(1, "b", "r")).contains("cannot move"));
        let all = all
            .after(&MemberChange::Remove(member(2, "a", "r").host))
            .unwrap();
        let back = all.after(&MemberChange::Put(member(2, "a", "r"))).unwrap_err();
        assert!(back.contains("was removed"), "{back}");
        // Another port after a restart is no obstacle.
        let mut moved = member(1, "a", "r");
        moved.native_port = 9999;
        assert!(!all.knows(&moved));
        assert!(
            all.after(&MemberChange::Put(moved.clone()))
                .unwrap()
                .knows(&moved)
        );
    }

    #[test]
    fn one_comes_or_goes_at_a_time_and_is_written_before_it_is_read() {
        use MemberState::{Arriving, Departing, Joining, Leaving, Normal};
        let host = |number: u8| Uuid::from_u128(u128::from(number));
        let put = |number: u8, state| {
            let mut member = member(number, "a", "r");
            member.state = state;
            MemberChange::Put(member)
        };
        let all = members(&[member(1, "a", "r"), member(2, "a", "r")]);
        let all = all.after(&put(3, Joining)).unwrap();
        assert_eq!(all.moving().unwrap().host, host(3));
        let rings = |members: &Members, number: u8| {
            let member = &members.nodes[&host(number)];
            (
                !members.tokens_read(member).is_empty(),
                !members.tokens_other(member).is_empty(),
            )
        };
        let set = |members: &Members, number: u8, state| {
            members.after(&MemberChange::SetState(host(number), state))
        };
        assert_eq!(
            [1, 3].map(|number| rings(&all, number)),
            [(true, true), (false, true)]
        );
        let refused = all.after(&put(4, Joining)).unwrap_err();
        assert!(refused.contains("is joining at present"), "{refused}");
        assert!(set(&all, 1, Leaving).is_err());
        assert!(all.after(&put(3, Joining)).is_ok(), "it may say where it is");
        let all = set(&all, 3, Arriving).unwrap();
        assert_eq!(rings(&all, 3), (true, false));
        let all = set(&all, 3, Normal).unwrap();
        assert_eq!(rings(&all, 3), (true, true));
        let all = set(&all, 1, Leaving).unwrap();
        assert_eq!(rings(&all, 1), (true, false));
        assert!(all.after(&put(4, Joining)).unwrap_err().contains("is leaving"));
        let gone = set(&all, 1, Departing).unwrap();
        assert_eq!(rings(&gone, 1), (false, true));
        assert!(set(&gone, 1, Normal).is_err());
        assert!(
            set(&all, 1, Normal).unwrap().moving().is_none(),
            "it may stay after all"
        );
    }

    #[test]
    fn who_replaces_another_takes_its_tokens_when_it_arrives() {
        use MemberState::{Arriving, Joining, Normal};
        let mut heir = member(3, "a", "r");
        (heir.tokens, heir.state, heir.replaces) = (vec![2], Joining, Some(member(2, "a", "r").host));
        let (old, new) = (heir.replaces.unwrap(), heir.host);
        let all = members(&[member(1, "a", "r"), member(2, "a", "r"), heir]);
        let tokens = |members: &Members, host| {
            let member = &members.nodes[&host];
            [
                members.tokens_read(member).len(),
                members.tokens_other(member).len(),
            ]
        };
        assert_eq!((tokens(&all, old), tokens(&all, new)), ([1, 0], [0, 1]));
        let all = all.after(&MemberChange::SetState(new, Arriving)).unwrap();
        assert!(all.removed.contains(&old) && !all.nodes.contains_key(&old));
        assert_eq!(tokens(&all, new), [1, 1]);
        let all = all.after(&MemberChange::SetState(new, Normal)).unwrap();
        assert_eq!(all.nodes[&new].replaces, None);
    }

    #[test]
    fn voters_are_few_odd_spread_and_alive() {
        let alive = |_: Uuid| true;
        let count = |count: u8| {
            let list: Vec<_> = (1..=count).map(|n| member(n, "a", "r")).collect();
            choose_voters(&members(&list), &BTreeSet::new(), alive).len()
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 9].map(count), [1, 1, 3, 3, 5, 5, 5]);
        let list: Vec<_> = (1..=9)
            .map(|n| member(n, ["a", "b", "c"][usize::from(n) / 4], "r"))
            .collect();
        let all = members(&list);
        let chosen = choose_voters(&all, &BTreeSet::new(), alive);
        let datacenters: BTreeSet<_> = chosen.iter().map(|host| &all.nodes[host].datacenter).collect();
        assert_eq!(datacenters.len(), 3);
        let dead = *chosen.first().unwrap();
        let others = choose_voters(&all, &chosen, |host| host != dead);
        assert!(!others.contains(&dead));
        assert_eq!(chosen.difference(&others).count(), 1, "the others go on");
    }
}
