//! How members come and go once there is data: who will own tokens copies what they stand for, while writes go to the old
//! owners and to the new ones.
//!
//! A change goes through the states of a member ([`super::members`]). After each step whoever drives it waits until every
//! member that is up acts by it and has ended the requests that it began before: without, a coordinator that is late would
//! write to the old owners only, after the new ones have copied.
//!
//! - A node that joins drives itself, and so does one that leaves.
//! - A node that was asked to remove a dead one drives that.
//! - Each node that gains tokens plans and copies by itself; the driver asks it how far it is, again and again, and the first
//!   question begins it. So whoever crashes, the next question or the next driver begins anew what is missing.
//!
//! Never: a member that is read before it has what it owns, one that is gone before others have it, two changes at a time.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::members::{Member, MemberChange, MemberState};
use super::peers::{CallError, Verb};
use super::{Cluster, ClusterView};

/// Between two questions of how far others are.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long another node has to answer one.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Rounds of gossip before what has failed is begun anew: time for the nodes to hear of each other.
const RETRY_ROUNDS: u32 = 5;

/// For so many heartbeats of group 0 a node that has left goes on to take part in it.
const GOODBYE_HEARTBEATS: u32 = 3;

/// Between two lines in the log that say what is waited for.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Something that comes later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the cluster asks of this node's data.
pub trait Data: Send + Sync + 'static {
    /// There are rows of clients.
    fn holds_any(&self) -> Later<bool>;

    /// How far this node is with copying what it will own. Begins that when `session` is a new one; ends it when nobody comes
    /// or goes any more.
    fn gain(&self, session: Uuid, view: watch::Receiver<ClusterView>) -> Later<Gained>;

    /// Clients are served no more, and what is kept for other nodes is let go.
    fn withdraw(&self) -> Later<()>;
}

/// How far a node is with copying.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Gained {
    /// Parts of the ring to copy, counted for each table.
    pub parts: u64,
    /// Of these are here.
    pub parts_done: u64,
    /// Bytes that came, by who sent them.
    pub received: BTreeMap<Uuid, u64>,
    /// It has ended; a failure is begun anew by another session.
    pub outcome: Option<Result<(), String>>,
}

/// A node is to copy what it will own.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct GainRequest {
    session: Uuid,
    /// The change of the members that makes it necessary.
    position: u64,
}

/// A member that comes or goes, as the driver sees it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who comes or goes.
    pub host: Uuid,
    /// Since when.
    pub started: Instant,
    /// How far those are that copy.
    pub gained: BTreeMap<Uuid, Gained>,
    /// How it ended.
    pub outcome: Option<Result<(), String>>,
}

impl Cluster {
    /// This node has left the cluster because it was asked to.
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// What this node does, or did last, to have a member come or go.
    pub fn operation(&self) -> Option<Operation> {
        self.operation
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    /// All shards act by the members of `view`.
    pub fn set_installed(&self, view: &ClusterView) {
        let position = view.members_position;
        self.installed.send_if_modified(|installed| {
            let is_new = installed.is_none_or(|(before, _)| before != position);
            if is_new {
                *installed = Some((position, Instant::now()));
            }
            is_new
        });
    }

    /// This node acts by the change of the members at `position`, and no request is under way that does not.
    pub(super) fn has_installed(&self, position: u64) -> bool {
        let installed = *self.installed.borrow();
        let rests = |since: Instant| since.elapsed() >= self.options.requests_end;
        installed.is_some_and(|(own, since)| own >= position && rests(since))
    }

    /// Answers the driver of a change.
    pub(super) async fn gain(&self, asked: GainRequest) -> Gained {
        let view = self.shared.view.subscribe();
        // It has not heard of the change yet.
        if view.borrow().members_position < asked.position {
            return Gained::default();
        }
        self.data.gain(asked.session, view).await
    }

    fn others(&self) -> Vec<(Uuid, SocketAddr)> {
        let own = self.own().host;
        let members = self.group.members();
        let others = members.nodes.values().filter(|member| member.host != own);
        others
            .map(|member| {
                (
                    member.host,
                    self.shared.address(member.host).unwrap_or(member.internode),
                )
            })
            .collect()
    }

    /// Waits until every member that is up acts by the present members.
    async fn all_act_by_it(&self) {
        let position = self.group.position().members;
        let mut complained = Instant::now();
        loop {
            let mut waiting = Vec::new();
            if !self.has_installed(position) {
                waiting.push(self.own().internode);
            }
            for (host, address) in self.others() {
                // Who is down coordinates nothing, and learns of it before it does.
                if self.shared.is_down(host) {
                    continue;
                }
                let answer = self
                    .peers
                    .call(address, Verb::Installed, &position, ASK_TIMEOUT)
                    .await;
                if !matches!(answer, Ok(true)) {
                    waiting.push(address);
                }
            }
            if waiting.is_empty() {
                return;
            }
            if complained.elapsed() >= COMPLAINT_INTERVAL {
                complained = Instant::now();
                info!(
                    ?waiting,
                    "waiting for nodes to act by the new members of the cluster"
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// This node copies what it will own.
    pub fn is_joining(&self) -> bool {
        self.state_of(self.own().host) == Some(MemberState::Joining)
    }

    fn retry_pause(&self) -> Duration {
        self.options.gossip_interval * RETRY_ROUNDS
    }

    fn state_of(&self, host: Uuid) -> Option<MemberState> {
        self.group.members().nodes.get(&host).map(|member| member.state)
    }

    /// Has `host` go on from one state to the next, however long that takes.
    async fn go_on(&self, host: Uuid, from: MemberState, to: MemberState) {
        while self.state_of(host) == Some(from) {
            let changed = self.group.change_members(&MemberChange::SetState(host, to)).await;
            let Err(reason) = changed else { return };
            warn!(%reason, state = ?to, "a node cannot go on yet");
            tokio::time::sleep(self.retry_pause()).await;
        }
    }

    fn begin(&self, host: Uuid) {
        *self.operation.lock().expect("nobody panics with the lock") = Some(Operation {
            host,
            started: Instant::now(),
            gained: BTreeMap::new(),
            outcome: None,
        });
    }

    fn note(&self, change: impl FnOnce(&mut Operation)) {
        let mut operation = self.operation.lock().expect("nobody panics with the lock");
        if let Some(operation) = operation.as_mut() {
            change(operation);
        }
    }

    fn end(&self, outcome: Result<(), String>) -> Result<(), String> {
        let told = outcome.clone();
        self.note(move |operation| operation.outcome = Some(told));
        outcome
    }

    /// A new member copies what it will own, unless it has done so in an earlier life. When this returns it is read; that it
    /// is one like all others is for [`Cluster::settle_in`].
    ///
    /// # Errors
    /// When it was removed meanwhile.
    pub async fn arrive(&self) -> Result<(), String> {
        let own = self.own().host;
        if self.state_of(own) != Some(MemberState::Joining) {
            return Ok(());
        }
        info!("JOINING: copying what this node will own");
        self.begin(own);
        self.all_act_by_it().await;
        while self.state_of(own) == Some(MemberState::Joining) {
            match self.copy_here().await {
                Ok(()) => self.go_on(own, MemberState::Joining, MemberState::Arriving).await,
                Err(reason) => {
                    warn!(%reason, "copying what this node will own has failed; it is tried again");
                    tokio::time::sleep(self.retry_pause()).await;
                }
            }
        }
        let outcome = match self.state_of(own) {
            None => Err("this node was removed from the cluster while it joined".to_owned()),
            Some(_) => {
                self.all_act_by_it().await;
                info!("this node has what it owns");
                Ok(())
            }
        };
        self.end(outcome)
    }

    /// The former owners are written no more; to be called once clients are served.
    pub async fn settle_in(&self) {
        let own = self.own().host;
        if self.state_of(own) == Some(MemberState::Arriving) {
            self.all_act_by_it().await;
            self.go_on(own, MemberState::Arriving, MemberState::Normal).await;
        }
    }

    async fn copy_here(&self) -> Result<(), String> {
        let (session, own) = (Uuid::new_v4(), self.own().host);
        loop {
            let gained = self.data.gain(session, self.shared.view.subscribe()).await;
            let outcome = gained.outcome.clone();
            self.note(|operation| {
                operation.gained.insert(own, gained);
            });
            match outcome {
                Some(outcome) => return outcome,
                None => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// This node leaves: others copy what it owns, clients are served no more, it is no member any more. Goes on with what an
    /// earlier life has begun.
    ///
    /// # Errors
    /// When another node comes or goes, or this one was asked to stay after all.
    pub async fn decommission(&self) -> Result<(), String> {
        let own = self.own().host;
        if !matches!(
            self.state_of(own),
            Some(MemberState::Leaving | MemberState::Departing)
        ) {
            let leaving = MemberChange::SetState(own, MemberState::Leaving);
            self.group.change_members(&leaving).await?;
        }
        info!("LEAVING: the others copy what this node owns");
        self.begin(own);
        let outcome = self.leave(own).await;
        self.end(outcome)
    }

    async fn leave(&self, own: Uuid) -> Result<(), String> {
        self.all_act_by_it().await;
        if self.state_of(own) == Some(MemberState::Leaving) {
            self.have_others_copy(own).await?;
            self.go_on(own, MemberState::Leaving, MemberState::Departing)
                .await;
        }
        if self.state_of(own) != Some(MemberState::Departing) {
            return Err("this node was asked to stay".to_owned());
        }
        self.all_act_by_it().await;
        self.data.withdraw().await;
        self.has_left.store(true, Ordering::Release);
        // The answer may be lost with the membership.
        while self.refusal.borrow().is_none() && self.state_of(own).is_some() {
            let mut refusal = self.refusal.subscribe();
            let remove = MemberChange::Remove(own);
            let removed = tokio::select! {
                removed = self.group.change_members(&remove) => removed,
                _ = refusal.wait_for(Option::is_some) => Ok(()),
            };
            if let Err(reason) = removed {
                warn!(%reason, "this node is a member still");
                tokio::time::sleep(self.retry_pause()).await;
            }
        }
        info!("DECOMMISSIONED");
        // The others are to hear that it was decided: this node may have led until now.
        tokio::time::sleep(self.options.times.heartbeat * GOODBYE_HEARTBEATS).await;
        self.shut_down().await;
        Ok(())
    }

    /// Has the others copy what a dead node owns, from those that have it too; then it is no member any more.
    ///
    /// # Errors
    /// When it is up or no member, another node comes or goes, or the change was ended meanwhile.
    pub async fn remove_node(&self, host: Uuid) -> Result<(), String> {
        let Some(state) = self.state_of(host) else {
            return Err(format!("Host ID not found: {host}"));
        };
        // It has nothing that others need.
        if matches!(state, MemberState::Joining | MemberState::Departing) {
            return self.group.change_members(&MemberChange::Remove(host)).await;
        }
        let leaving = MemberChange::SetState(host, MemberState::Leaving);
        self.group.change_members(&leaving).await?;
        info!(%host, "the others copy what a dead node owned");
        self.begin(host);
        self.all_act_by_it().await;
        let outcome = match self.have_others_copy(host).await {
            Ok(()) => self.group.change_members(&MemberChange::Remove(host)).await,
            Err(reason) => Err(reason),
        };
        self.end(outcome)
    }

    /// Asks every other member than `host` how far it is, until all have what they gain.
    async fn have_others_copy(&self, host: Uuid) -> Result<(), String> {
        let own = self.own().host;
        let position = self.group.position().members;
        let mut sessions: BTreeMap<Uuid, (Uuid, Option<Instant>)> = BTreeMap::new();
        let mut complained = Instant::now();
        loop {
            if self.state_of(host) != Some(MemberState::Leaving) {
                return Err(format!("{host} does not leave any more"));
            }
            let mut others = self.others();
            others.extend((own != host).then_some((own, self.own().internode)));
            others.retain(|(other, _)| *other != host);
            let (mut are_done, mut silent) = (true, Vec::new());
            for (other, address) in others {
                let (session, rests_until) = sessions.entry(other).or_insert((Uuid::new_v4(), None));
                if rests_until.is_some_and(|until| Instant::now() < until) {
                    are_done = false;
                    continue;
                }
                *rests_until = None;
                let asked = GainRequest {
                    session: *session,
                    position,
                };
                let gained = match other == own {
                    true => self.gain(asked).await,
                    false => {
                        let answer: Result<Gained, CallError> =
                            self.peers.call(address, Verb::Gain, &asked, ASK_TIMEOUT).await;
                        if answer.is_err() {
                            silent.push(address);
                        }
                        answer.unwrap_or_default()
                    }
                };
                match &gained.outcome {
                    Some(Ok(())) => {}
                    None => are_done = false,
                    Some(Err(reason)) => {
                        are_done = false;
                        warn!(%reason, node = %address, "a node could not copy what it gains; it tries again");
                        (*session, *rests_until) =
                            (Uuid::new_v4(), Some(Instant::now() + self.retry_pause()));
                    }
                }
                self.note(|operation| {
                    operation.gained.insert(other, gained);
                });
            }
            if are_done {
                return Ok(());
            }
            if !silent.is_empty() && complained.elapsed() >= COMPLAINT_INTERVAL {
                complained = Instant::now();
                warn!(
                    ?silent,
                    "waiting for nodes that are to copy what they gain: start them"
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// A member that leaves stays.
    ///
    /// # Errors
    /// When it does not leave.
    pub async fn stay(&self, host: Uuid) -> Result<(), String> {
        match self.state_of(host) {
            Some(MemberState::Leaving) => {
                let normal = MemberChange::SetState(host, MemberState::Normal);
                self.group.change_members(&normal).await
            }
            _ => Err(format!(
                "{host} is not leaving, or has given its data away already"
            )),
        }
    }

    /// The member with this internode IP address or host id.
    pub fn find_member(&self, name: &str) -> Option<Member> {
        let members = self.group.members();
        let named = |member: &&Member| {
            member.host.to_string() == name.to_ascii_lowercase() || member.internode.ip().to_string() == name
        };
        members.nodes.values().find(named).cloned()
    }
}
