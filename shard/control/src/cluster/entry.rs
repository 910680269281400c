//! How a node becomes a member: it founds a cluster, joins one, or comes back.
//!
//! - A node that has been a member goes on as what it is.
//! - The first of the seeds founds the cluster, after none of the other seeds said that there is one already.
//! - Every other node asks the seeds until one takes it in. It never founds anything: seeds that cannot be reached are
//!   waited for.
//!
//! The leader takes a node in: it checks that name, address and tokens are free, sends it the schema, the roles and the
//! members, and then makes it a member. Whichever of them crashes in between, the node asks again. Where there is data, the new
//! member is joining first ([`super::moves`]).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use uuid::Uuid;

use super::Cluster;
use super::members::{Member, MemberChange, MemberState};
use super::peers::{CallError, Verb};

/// How long a seed has to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_millis(1000);

/// How often the other seeds are asked before a cluster is founded.
const HELLO_TRIES: u32 = 3;

/// How long taking a node in may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the newcomer has to receive the cluster's state.
const TEACH_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a member has to say whether it holds data.
const DATA_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two tries to join.
const JOIN_INTERVAL: Duration = Duration::from_millis(300);

/// Between two lines in the log that say what is waited for.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    cluster_name: String,
    host: Uuid,
    /// The cluster that it is a member of.
    group: Option<Uuid>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct JoinRequest {
    cluster_name: String,
    member: Member,
    auto_bootstrap: bool,
    /// The dead member that it takes the place of.
    #[serde(default)]
    replaces: Option<IpAddr>,
    /// It was sent to who leads, and is not sent on.
    is_forwarded: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) enum JoinAnswer {
    /// It is a member.
    Accepted,
    /// Ask again later.
    NotYet(String),
    /// It cannot be one.
    Refused(String),
}

impl Cluster {
    pub(super) fn hello(&self) -> Hello {
        Hello {
            cluster_name: self.options.cluster_name.clone(),
            host: self.own().host,
            group: self.group.id(),
        }
    }

    /// Makes this node a member, or takes it back as one; waits as long as that takes.
    ///
    /// # Errors
    /// Why the cluster refuses this node, with the cure.
    pub async fn enter(&self) -> Result<(), String> {
        let members = self.group.members();
        if members.removed.contains(&self.own().host) {
            return Err(
                "This node was decommissioned and will not rejoin the ring unless all existing data is removed and the node is \
                 bootstrapped again; delete its data folder"
                    .to_owned(),
            );
        }
        if members.nodes.contains_key(&self.own().host) {
            info!("this node is a member of the cluster already");
        } else if self.founds() && !self.finds_cluster().await? {
            self.found().await?;
        } else {
            self.join().await?;
        }
        Ok(())
    }

    /// Has the members know where this node is now, once there is a majority: after a restart with another address,
    /// another port or another number of shards.
    pub async fn announce_surroundings(&self) {
        loop {
            if self.group.members().knows(self.own()) {
                return;
            }
            let mut member = self.own().clone();
            let Some(known) = self.group.members().nodes.remove(&member.host) else {
                return;
            };
            (member.state, member.replaces, member.tokens) = (known.state, known.replaces, known.tokens);
            match self.group.change_members(&MemberChange::Put(member)).await {
                Ok(()) => return,
                Err(reason) => warn!(%reason, "the other nodes do not know yet where this node is now"),
            }
            tokio::time::sleep(COMPLAINT_INTERVAL).await;
        }
    }

    fn other_seeds(&self) -> Vec<SocketAddr> {
        let own = self.own().internode;
        self.seeds().iter().copied().filter(|seed| *seed != own).collect()
    }

    /// Whether this node is the one that makes the cluster, where there is none.
    fn founds(&self) -> bool {
        self.seeds().first() == Some(&self.own().internode)
    }

    /// Whether another seed is a member of a cluster.
    async fn finds_cluster(&self) -> Result<bool, String> {
        // A group that was begun here is finished here.
        if self.group.was_used() {
            return Ok(false);
        }
        for _ in 0..HELLO_TRIES {
            let others = self.other_seeds();
            if others.is_empty() {
                return Ok(false);
            }
            let mut answers = Vec::new();
            for seed in others {
                let peers = self.peers.clone();
                answers.push(tokio::spawn(async move {
                    let answer: Result<Hello, CallError> =
                        peers.call(seed, Verb::Hello, &(), HELLO_TIMEOUT).await;
                    answer
                }));
            }
            let mut heard = 0;
            let asked = answers.len();
            for answer in answers {
                let Ok(Ok(hello)) = answer.await else { continue };
                heard += 1;
                if hello.cluster_name == self.options.cluster_name && hello.group.is_some() {
                    return Ok(true);
                }
            }
            if heard == asked {
                return Ok(false);
            }
        }
        Ok(false)
    }

    async fn found(&self) -> Result<(), String> {
        self.group.found(self.own().internode).await?;
        let mut member = self.own().clone();
        member.state = MemberState::Normal;
        self.group.change_members(&MemberChange::Put(member)).await?;
        info!(cluster = %self.options.cluster_name, "this node has founded the cluster");
        Ok(())
    }

    async fn join(&self) -> Result<(), String> {
        let request = JoinRequest {
            cluster_name: self.options.cluster_name.clone(),
            member: self.own().clone(),
            auto_bootstrap: self.options.auto_bootstrap,
            replaces: self.options.replaces,
            is_forwarded: false,
        };
        let mut complained = tokio::time::Instant::now() - COMPLAINT_INTERVAL;
        loop {
            let mut reasons = Vec::new();
            for seed in self.other_seeds() {
                // Whoever does not say who it is does not take anybody in.
                let hello: Result<Hello, CallError> =
                    self.peers.call(seed, Verb::Hello, &(), HELLO_TIMEOUT).await;
                if let Err(error) = hello {
                    reasons.push(format!("{seed}: {error}"));
                    continue;
                }
                let answer = self.peers.call(seed, Verb::Join, &request, JOIN_TIMEOUT);
                // An answer may be lost although the node was taken in.
                let answer = tokio::select! {
                    answer = answer => answer,
                    () = self.is_member() => Ok(JoinAnswer::Accepted),
                };
                match answer {
                    Ok(JoinAnswer::Accepted) => {
                        self.is_member().await;
                        info!(cluster = %self.options.cluster_name, %seed, "the cluster has taken this node in");
                        return Ok(());
                    }
                    Ok(JoinAnswer::Refused(text)) => {
                        return Err(format!("the cluster refuses this node: {text}"));
                    }
                    Ok(JoinAnswer::NotYet(text)) => reasons.push(format!("{seed}: {text}")),
                    Err(error) => reasons.push(format!("{seed}: {error}")),
                }
            }
            if complained.elapsed() >= COMPLAINT_INTERVAL {
                complained = tokio::time::Instant::now();
                warn!(
                    reasons = reasons.join("; "),
                    "waiting for a seed that takes this node in; a node founds a cluster of its own only when its own address is \
                     the first of `seeds`"
                );
            }
            tokio::time::sleep(JOIN_INTERVAL).await;
        }
    }

    async fn is_member(&self) {
        let own = self.own().host;
        let mut changes = self.group.changes();
        if !changes.until(|members| members.nodes.contains_key(&own)).await {
            // The node ends.
            std::future::pending::<()>().await;
        }
    }

    /// Answers a node that wants to be a member.
    pub(super) async fn admit(&self, asked: JoinRequest) -> JoinAnswer {
        if asked.cluster_name != self.options.cluster_name {
            return JoinAnswer::Refused(format!(
                "it is cluster {}, and the node's cluster_name is {}",
                self.options.cluster_name, asked.cluster_name
            ));
        }
        if self.group.id().is_none() {
            return JoinAnswer::NotYet("it has not joined a cluster itself yet".to_owned());
        }
        match self.group.leader().await {
            Some(leader) if leader == self.own().host => self.take_in(asked).await,
            Some(leader) if !asked.is_forwarded => {
                let Some(address) = self.shared.address(leader) else {
                    return JoinAnswer::NotYet("where its leader is, is not known".to_owned());
                };
                let forwarded = JoinRequest {
                    is_forwarded: true,
                    ..asked
                };
                let answer: Result<JoinAnswer, CallError> = self
                    .peers
                    .call(address, Verb::Join, &forwarded, JOIN_TIMEOUT)
                    .await;
                answer.unwrap_or_else(|error| JoinAnswer::NotYet(format!("its leader: {error}")))
            }
            _ => JoinAnswer::NotYet("the nodes that vote have no leader at the moment".to_owned()),
        }
    }

    /// Whether there are rows of clients on any member; one that does not answer may have some.
    async fn members_hold_data(&self) -> bool {
        if self.data.holds_any().await {
            return true;
        }
        let own = self.own().host;
        for host in self.group.members().nodes.keys().filter(|host| **host != own) {
            let Some(address) = self.shared.address(*host) else {
                return true;
            };
            let answer: Result<bool, CallError> =
                self.peers.call(address, Verb::HoldsData, &(), DATA_TIMEOUT).await;
            if answer.unwrap_or(true) {
                return true;
            }
        }
        false
    }

    /// Gives a new member the place of the dead one at `address`.
    fn replace(&self, member: &mut Member, address: IpAddr, auto_bootstrap: bool) -> Result<(), String> {
        let members = self.group.members();
        let Some(old) = members.nodes.values().find(|old| old.internode.ip() == address) else {
            return Err(format!(
                "Cannot replace_address {address} because it doesn't exist in gossip"
            ));
        };
        if self.shared.view.borrow().is_alive(old.host) || old.host == self.own().host {
            return Err(format!(
                "Cannot replace a live node: {address} is up; stop it, or decommission it"
            ));
        }
        if !auto_bootstrap {
            return Err("a node that replaces another copies its data: set auto_bootstrap: true".to_owned());
        }
        if (&old.datacenter, &old.rack) != (&member.datacenter, &member.rack) {
            return Err(format!(
                "{address} is {}:{}, and who replaces it must be there, too",
                old.datacenter, old.rack
            ));
        }
        (member.tokens, member.replaces) = (old.tokens.clone(), Some(old.host));
        Ok(())
    }

    async fn take_in(&self, asked: JoinRequest) -> JoinAnswer {
        let Ok(_turn) = self.admitting.try_lock() else {
            return JoinAnswer::NotYet("another node is joining".to_owned());
        };
        let mut member = asked.member;
        let members = self.group.members();
        if members.nodes.contains_key(&member.host) {
            return JoinAnswer::Accepted;
        }
        if let Some(other) = members.moving() {
            return JoinAnswer::NotYet(format!(
                "{} is joining or leaving, and only one node comes or goes at a time",
                other.internode.ip()
            ));
        }
        member.state = match asked.replaces {
            Some(address) => match self.replace(&mut member, address, asked.auto_bootstrap) {
                Ok(()) => MemberState::Joining,
                Err(refusal) => return JoinAnswer::Refused(refusal),
            },
            // Where there are no rows, there are none to copy.
            None => match asked.auto_bootstrap && self.members_hold_data().await {
                true => MemberState::Joining,
                false => MemberState::Normal,
            },
        };
        if let Err(refusal) = members.after(&MemberChange::Put(member.clone())) {
            return JoinAnswer::Refused(refusal);
        }
        {
            let mut newcomers = self
                .shared
                .newcomers
                .write()
                .expect("nobody panics with the lock");
            // One at a time: whoever did not become a member is of no interest any more.
            newcomers.clear();
            newcomers.insert(member.host, member.internode);
        }
        if let Err(reason) = self
            .group
            .teach(member.host, member.internode, TEACH_TIMEOUT)
            .await
        {
            return JoinAnswer::NotYet(reason);
        }
        match self.group.change_members(&MemberChange::Put(member)).await {
            Ok(()) => JoinAnswer::Accepted,
            Err(reason) => JoinAnswer::NotYet(reason),
        }
    }
}
