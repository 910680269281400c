//! Group 0: the Raft group that orders changes of the schema, of roles and of the members.
//!
//! Every member has all of its log ([`log`]) and applies it to its own tables ([`machine`]). A few vote, the others learn
//! ([`super::members::choose_voters`]). Any node proposes; what is proposed elsewhere than at the leader is sent there.
//!
//! Never: a command applied that was planned against another state, an answer before this node has applied it.

mod log;
mod machine;
mod network;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use self::log::{Applied, GroupFile};
use self::machine::Machine;
use self::network::Network;
use self::types::Raft;
use super::members::{MemberChange, Members, choose_voters};
use super::peers::{CallError, PeerMessage, Peers, Verb};

pub use self::machine::{Step, Tables};
pub use self::network::Addresses;
pub use self::types::{Change, Command, EventRecord, MutationBytes, Outcome, Position, TableWrites};

/// How long a proposal waits for a leader, and for its outcome.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the leader has for one try.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two looks at who leads.
const LEADER_POLL: Duration = Duration::from_millis(20);

/// Applied entries between two snapshots.
const SNAPSHOT_ENTRIES: u64 = 1000;

/// Entries that stay in the log behind a snapshot.
const KEPT_ENTRIES: u64 = 200;

/// Bytes of a command's mutations at most: several commands and their hexadecimal form fit one message.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// Times of the Raft group.
#[derive(Clone, Copy, Debug)]
pub struct GroupTimes {
    /// Between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// Without a heartbeat for this long, at most twice, a voter wants to lead.
    pub election: Duration,
}

impl Default for GroupTimes {
    fn default() -> GroupTimes {
        GroupTimes {
            heartbeat: Duration::from_millis(500),
            election: Duration::from_millis(2000),
        }
    }
}

/// Whether failure detection holds a member to be down.
pub type IsDown = Arc<dyn Fn(Uuid) -> bool + Send + Sync>;

/// Why a change did not happen; one line for a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProposeError {
    /// Too few voters are up.
    NoMajority {
        /// Voters that are up.
        up: usize,
        /// Voters.
        voters: usize,
    },
    /// No leader, or no answer of it, in time. The change may still happen.
    TimedOut,
    /// This node does not lead; asked again elsewhere.
    NotLeader,
    /// This node is no member of a cluster yet.
    NoGroup,
    /// The group's file failed, or the node ends.
    Failed(String),
}

impl std::fmt::Display for ProposeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoMajority { up, voters } => write!(
                f,
                "changes of the schema, of roles and of the cluster need a majority of the {voters} nodes that vote on them, \
                 and {up} of these are up; start the others"
            ),
            Self::TimedOut => f.write_str(
                "the nodes that vote on changes of the schema, of roles and of the cluster did not answer in time; the change \
                 may or may not happen",
            ),
            Self::NotLeader => f.write_str("another node leads"),
            Self::NoGroup => f.write_str("this node has not joined a cluster yet"),
            Self::Failed(text) => write!(f, "the change could not be ordered: {text}"),
        }
    }
}

impl std::error::Error for ProposeError {}

/// This node's part of group 0.
#[derive(Clone)]
pub struct Group {
    host: Uuid,
    raft: Raft,
    applied: watch::Receiver<Arc<Applied>>,
    peers: Arc<Peers>,
    addresses: Addresses,
    is_down: IsDown,
    was_used: bool,
}

/// What a leader is asked.
enum Ask<'a> {
    Propose(&'a Command),
    Decided,
}

/// What a leader answers to a proposal: the entry's index and what came of it.
type Answer = Result<(u64, Outcome), ProposeError>;

impl Group {
    /// Opens the file `path` and goes on where it ends. A new node is in no group yet: see [`Group::found`].
    ///
    /// # Errors
    /// When the file cannot be read or made.
    pub async fn start(
        path: &Path,
        host: Uuid,
        times: GroupTimes,
        tables: Arc<dyn Tables>,
        peers: Arc<Peers>,
        addresses: Addresses,
        is_down: IsDown,
    ) -> Result<Group, String> {
        let path = path.to_owned();
        let file = tokio::task::spawn_blocking(move || GroupFile::open(&path));
        let file = file.await.map_err(|error| error.to_string())?;
        let file = file.map_err(|error| error.to_string())?;
        let was_used = file.is_used().map_err(|error| error.to_string())?;
        let machine = Machine::new(file.clone(), tables).map_err(|error| error.to_string())?;
        let applied = machine.watch();
        let millis = |time: Duration| time.as_millis() as u64;
        let config = openraft::Config {
            cluster_name: "group0".to_owned(),
            heartbeat_interval: millis(times.heartbeat),
            election_timeout_min: millis(times.election),
            election_timeout_max: millis(times.election * 2),
            install_snapshot_timeout: 10_000,
            max_payload_entries: 4,
            replication_lag_threshold: SNAPSHOT_ENTRIES * 2,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
            snapshot_max_chunk_size: 512 << 10,
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            ..openraft::Config::default()
        };
        let config = config.validate().map_err(|error| error.to_string())?;
        let network = Network {
            peers: peers.clone(),
            addresses: addresses.clone(),
        };
        let raft = Raft::new(host, Arc::new(config), network, file, machine).await;
        let raft = raft.map_err(|error| error.to_string())?;
        Ok(Group {
            host,
            raft,
            applied,
            peers,
            addresses,
            is_down,
            was_used,
        })
    }

    /// The group's identity; None for a node that is in none.
    pub fn id(&self) -> Option<Uuid> {
        self.applied.borrow().group
    }

    /// Whether the file was there with something in it when it was opened.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    /// What commands are planned against.
    pub fn position(&self) -> Position {
        self.applied.borrow().position
    }

    /// The members.
    pub fn members(&self) -> Members {
        self.applied.borrow().members.clone()
    }

    /// The members, and which change made them so.
    pub fn members_at(&self) -> (Members, u64) {
        let applied = self.applied.borrow();
        (applied.members.clone(), applied.position.members)
    }

    /// Told when anything was applied.
    pub fn changes(&self) -> GroupChanges {
        GroupChanges(self.applied.clone())
    }

    /// Who leads, as far as this node knows.
    pub async fn leader(&self) -> Option<Uuid> {
        self.raft.current_leader().await
    }

    /// Who votes and who learns.
    pub fn voters(&self) -> BTreeSet<Uuid> {
        self.raft
            .metrics()
            .borrow()
            .membership_config
            .voter_ids()
            .collect()
    }

    fn learners(&self) -> BTreeSet<Uuid> {
        let metrics = self.raft.metrics();
        let nodes: BTreeSet<Uuid> = metrics
            .borrow()
            .membership_config
            .nodes()
            .map(|(host, _)| *host)
            .collect();
        nodes
    }

    /// Makes this node the only voter of a new group.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn found(&self, address: std::net::SocketAddr) -> Result<(), String> {
        if !self
            .raft
            .is_initialized()
            .await
            .map_err(|error| error.to_string())?
        {
            let nodes = BTreeMap::from([(self.host, BasicNode::new(address))]);
            self.raft
                .initialize(nodes)
                .await
                .map_err(|error| error.to_string())?;
        }
        let host = self.host;
        let waiting = self.raft.wait(Some(PROPOSAL_TIMEOUT));
        let leads = waiting.metrics(
            |metrics| {
                metrics.current_leader == Some(host) && metrics.membership_config.voter_ids().count() > 0
            },
            "the founder leads",
        );
        leads.await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Whether a majority of the voters may be up, in each of the configurations that hold.
    fn majority(&self) -> Result<(), ProposeError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let configurations = metrics.membership_config.membership().get_joint_config();
        if configurations.is_empty() {
            return Err(ProposeError::NoGroup);
        }
        for voters in configurations {
            let is_up = |host: &&Uuid| **host == self.host || !(self.is_down)(**host);
            let up = voters.iter().filter(is_up).count();
            if up * 2 <= voters.len() {
                let voters = voters.len();
                return Err(ProposeError::NoMajority { up, voters });
            }
        }
        Ok(())
    }

    /// Has `command` ordered, and waits until this node has applied it.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.with_leader(&Ask::Propose(&command)).await
    }

    /// Waits until this node has applied all that was decided before.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn catch_up(&self) -> Result<(), ProposeError> {
        self.with_leader(&Ask::Decided).await.map(|_| ())
    }

    /// Asks who leads until there is an answer, and waits until this node has applied the log so far.
    async fn with_leader(&self, ask: &Ask<'_>) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + PROPOSAL_TIMEOUT;
        let (index, outcome) = loop {
            if Instant::now() >= deadline {
                return Err(ProposeError::TimedOut);
            }
            self.majority()?;
            let answer = match self.raft.current_leader().await {
                None => Err(ProposeError::NotLeader),
                Some(leader) => match (ask, leader == self.host) {
                    // The same command a second time does no harm: it is known by its id.
                    (Ask::Propose(command), true) => self.lead((*command).clone()).await,
                    (Ask::Propose(command), false) => self.forward(leader, Verb::Propose, *command).await,
                    (Ask::Decided, true) => self.decided().await,
                    (Ask::Decided, false) => self.forward(leader, Verb::Decided, &()).await,
                },
            };
            match answer {
                Ok(answer) => break answer,
                Err(ProposeError::NotLeader | ProposeError::TimedOut) => {
                    tokio::time::sleep(LEADER_POLL).await
                }
                Err(error) => return Err(error),
            }
        };
        let mut applied = self.applied.clone();
        let is_there = applied.wait_for(|applied| applied.last.is_some_and(|last| last.index >= index));
        match tokio::time::timeout_at(deadline, is_there).await {
            Ok(Ok(_)) => Ok(outcome),
            Ok(Err(_)) => Err(ProposeError::Failed("the node ends".to_owned())),
            Err(_) => Err(ProposeError::TimedOut),
        }
    }

    /// At this node, which leads: how far the log was decided when this was called.
    async fn decided(&self) -> Answer {
        match tokio::time::timeout(FORWARD_TIMEOUT, self.raft.ensure_linearizable()).await {
            Ok(Ok(last)) => Ok((last.map_or(0, |last| last.index), Outcome::Applied)),
            Ok(Err(RaftError::APIError(_))) => Err(ProposeError::NotLeader),
            Ok(Err(error)) => Err(ProposeError::Failed(error.to_string())),
            Err(_) => Err(ProposeError::TimedOut),
        }
    }

    /// Proposes at this node, which leads.
    async fn lead(&self, command: Command) -> Answer {
        match tokio::time::timeout(FORWARD_TIMEOUT, self.raft.client_write(command)).await {
            Ok(Ok(written)) => Ok((written.log_id.index, written.data)),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(ProposeError::NotLeader)
            }
            Ok(Err(error)) => Err(ProposeError::Failed(error.to_string())),
            Err(_) => Err(ProposeError::TimedOut),
        }
    }

    async fn forward<Q: Serialize>(&self, leader: Uuid, verb: Verb, question: &Q) -> Answer {
        let Some(address) = (self.addresses)(leader) else {
            return Err(ProposeError::NotLeader);
        };
        let answer: Result<Answer, CallError> =
            self.peers.call(address, verb, question, FORWARD_TIMEOUT).await;
        answer.unwrap_or(Err(ProposeError::TimedOut))
    }

    /// Answers other members' requests of group 0; None when they make no sense.
    pub async fn answer(&self, verb: Verb, message: &PeerMessage) -> Option<Vec<u8>> {
        let answer = match verb {
            Verb::Propose => self.lead(serde_json::from_slice(&message.body).ok()?).await,
            Verb::Decided => self.decided().await,
            _ => return network::answer(&self.raft, verb, message).await,
        };
        serde_json::to_vec(&answer).ok()
    }

    /// Changes the members; planned anew when another change comes first.
    ///
    /// # Errors
    /// A line that says why not.
    pub async fn change_members(&self, change: &MemberChange) -> Result<(), String> {
        loop {
            let planned_against = self.position().members;
            self.members().after(change)?;
            let command = Command {
                id: Uuid::new_v4(),
                planned_against,
                change: Change::Members(change.clone()),
            };
            match self.propose(command).await {
                Ok(Outcome::Applied) => return Ok(()),
                Ok(Outcome::Conflict) => {}
                Ok(Outcome::Refused(text)) => return Err(text),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Has the leader send the group's state to a node that will be a member, and waits until it has it.
    ///
    /// # Errors
    /// When it is not there in time, or this node does not lead.
    pub async fn teach(
        &self,
        host: Uuid,
        address: std::net::SocketAddr,
        timeout: Duration,
    ) -> Result<(), String> {
        let taught = self.raft.add_learner(host, BasicNode::new(address), true);
        match tokio::time::timeout(timeout, taught).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("{address} did not receive the cluster's state in time")),
        }
    }

    /// On the leader: has those vote that should, and forgets who is no member any more. To be called now and then.
    pub async fn put_voters_right(&self) {
        if self.raft.current_leader().await != Some(self.host) || self.majority().is_err() {
            return;
        }
        let (members, voters) = (self.members(), self.voters());
        if members.nodes.is_empty() {
            return;
        }
        let wanted = choose_voters(&members, &voters, |host| {
            host == self.host || !(self.is_down)(host)
        });
        let known = self.learners();
        let wanted: BTreeSet<Uuid> = wanted.into_iter().filter(|host| known.contains(host)).collect();
        if wanted.is_empty() {
            return;
        }
        if wanted != voters {
            let changed = self
                .change_raft(ChangeMembers::ReplaceAllVoters(wanted.clone()))
                .await;
            if changed {
                info!(voters = ?wanted, "who votes on changes of the schema and of the cluster has changed");
            }
            return;
        }
        let gone: BTreeSet<Uuid> = known
            .into_iter()
            .filter(|host| members.removed.contains(host) && !voters.contains(host))
            .collect();
        if !gone.is_empty() {
            self.change_raft(ChangeMembers::RemoveNodes(gone)).await;
        }
    }

    async fn change_raft(&self, change: ChangeMembers<Uuid, BasicNode>) -> bool {
        match tokio::time::timeout(PROPOSAL_TIMEOUT, self.raft.change_membership(change, true)).await {
            Ok(Ok(_)) => true,
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            )))) => false,
            Ok(Err(error)) => {
                warn!(%error, "who votes could not be changed");
                false
            }
            Err(_) => false,
        }
    }

    /// Ends this node's part.
    pub async fn shut_down(&self) {
        // It ends anyway.
        let _ = self.raft.shutdown().await;
    }
}

/// What the group has applied changes.
pub struct GroupChanges(watch::Receiver<Arc<Applied>>);

impl GroupChanges {
    /// Waits for the next change; false when the group has ended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Waits until the members are as `holds` wants them; false when the group has ended.
    pub async fn until(&mut self, mut holds: impl FnMut(&Members) -> bool) -> bool {
        self.0.wait_for(|applied| holds(&applied.members)).await.is_ok()
    }
}
