//! The cluster, as the control thread sees it: who the members are, who is up, and in which order the schema, roles and
//! the members themselves change.
//!
//! - [`peers`]: requests, answers and notices between control threads.
//! - [`gossip`]: liveness, and what nodes say about themselves.
//! - [`group`]: the log that orders changes (group 0).
//! - [`members`]: who the members are.
//! - [`enter`](Cluster::enter): founding a cluster, joining one, coming back.
//! - [`moves`]: how members come and go once there is data.
//!
//! Never: a node that founds a cluster because it reached nobody, or a change that a minority decides.
//!
//! Works over any [`PeerChannel`] and any [`Tables`]; knows no shard.

mod entry;
pub mod gossip;
pub mod group;
pub mod members;
pub mod moves;
pub mod peers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use uuid::Uuid;

use self::gossip::{Gossip, GossipOptions, GossipView};
use self::group::{Group, GroupTimes, Tables};
use self::members::{Member, Members};
use self::moves::{Data, Operation};
use self::peers::{Handler, PeerChannel, PeerMessage, Peers, Verb};

/// How long after its start a node gives others the benefit of the doubt before it has heard of them.
const DOUBT: Duration = Duration::from_secs(10);

/// How long a node that comes back waits to hear of the other members before it serves clients.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Between two looks at who should vote.
const VOTERS_INTERVAL: Duration = Duration::from_secs(1);

/// Under this key of gossip a node says where it is in its life: BOOT until it serves for the first time since its start, then
/// NORMAL with its first token.
pub(crate) const STATUS: &str = "STATUS_WITH_PORT";

/// What it says, with its first token, while it copies what it will own and is written already.
pub(crate) const BOOTING: &str = "BOOT,";

/// The key by which a node says whether it takes connections of clients.
pub(crate) const RPC_READY: &str = "RPC_READY";

/// What a cluster's part is made with.
pub struct ClusterOptions {
    /// Cluster name.
    pub cluster_name: String,
    /// This node, as it will be a member.
    pub member: Member,
    /// Internode addresses where a new node asks; the first founds the cluster.
    pub seeds: Vec<SocketAddr>,
    /// Group 0's file.
    pub file: PathBuf,
    /// Grows with each start.
    pub generation: u64,
    /// Between two rounds of gossip.
    pub gossip_interval: Duration,
    /// `phi_convict_threshold`.
    pub phi_threshold: f64,
    /// Times of group 0.
    pub times: GroupTimes,
    /// `auto_bootstrap`.
    pub auto_bootstrap: bool,
    /// `replace_address_first_boot`: the internode address of the dead member whose place a new one takes.
    pub replaces: Option<IpAddr>,
    /// A request that was begun this long ago has ended.
    pub requests_end: Duration,
}

/// What is known of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterView {
    /// The members.
    pub members: Members,
    /// Grows with each change of them.
    pub members_position: u64,
    /// What gossip knows.
    pub gossip: GossipView,
    /// Schema versions as their nodes told them at once; newer than gossip's.
    pub schema_versions: BTreeMap<Uuid, Uuid>,
}

impl ClusterView {
    /// Whether a node is up.
    pub fn is_alive(&self, host: Uuid) -> bool {
        self.gossip.get(&host).is_some_and(|node| node.is_alive)
    }

    /// Whether a node is up and has said that it takes requests for the tokens it owns.
    pub fn serves(&self, host: Uuid) -> bool {
        self.gossip.get(&host).is_some_and(|node| {
            let status = node.value(STATUS);
            let serves = |status: &str| status.starts_with("NORMAL") || status.starts_with(BOOTING);
            node.is_alive && status.is_some_and(serves)
        })
    }

    /// A node's schema version, as far as it is known.
    pub fn schema_version(&self, host: Uuid) -> Option<Uuid> {
        let told = self.schema_versions.get(&host).copied();
        told.or_else(|| self.gossip.get(&host)?.value("SCHEMA")?.parse().ok())
    }
}

/// The view that closures of other tasks look at.
#[derive(Clone)]
struct Shared {
    view: Arc<watch::Sender<ClusterView>>,
    started: Instant,
    own: Uuid,
    /// Where nodes that are no members yet are reached.
    newcomers: Arc<RwLock<BTreeMap<Uuid, SocketAddr>>>,
}

impl Shared {
    fn address(&self, host: Uuid) -> Option<SocketAddr> {
        let view = self.view.borrow();
        let gossiped = view.gossip.get(&host).map(|node| node.address);
        let member = || view.members.nodes.get(&host).map(|member| member.internode);
        let newcomers = || {
            let newcomers = self.newcomers.read().expect("nobody panics with the lock");
            newcomers.get(&host).copied()
        };
        gossiped.or_else(member).or_else(newcomers)
    }

    fn is_down(&self, host: Uuid) -> bool {
        let view = self.view.borrow();
        match view.gossip.get(&host) {
            Some(node) if node.is_alive => false,
            // Seen by nobody yet: it may come.
            _ => self.started.elapsed() >= DOUBT,
        }
    }
}

/// A notice of a node's schema version.
#[derive(Serialize, Deserialize)]
struct SchemaVersion(Uuid);

/// This node's part of the cluster.
pub struct Cluster {
    options: ClusterOptions,
    peers: Arc<Peers>,
    /// Group 0.
    pub group: Group,
    /// Gossip.
    pub gossip: Gossip,
    shared: Shared,
    data: Arc<dyn Data>,
    /// The change of the members that all shards act by, and since when.
    installed: watch::Sender<Option<(u64, Instant)>>,
    /// What this node does, or did last, to have a member come or go.
    operation: std::sync::Mutex<Option<Operation>>,
    /// This node was a member, and is none any more because it was asked to leave.
    has_left: AtomicBool,
    /// Held while a node is taken in.
    admitting: Mutex<()>,
    refusal: watch::Sender<Option<String>>,
}

/// What the channel brings goes in here, from the first moment on.
pub struct Inbox {
    cluster: Arc<std::sync::OnceLock<std::sync::Weak<Cluster>>>,
    peers: Arc<Peers>,
    handler: Handler,
}

impl Inbox {
    /// Takes a message of another node. A former member is told that it is none, and not heard.
    pub fn receive(&self, message: PeerMessage) {
        let Some(cluster) = self.cluster.get().and_then(std::sync::Weak::upgrade) else {
            return;
        };
        let is_removed = cluster
            .shared
            .view
            .borrow()
            .members
            .removed
            .contains(&message.from);
        if !is_removed {
            return self.peers.receive(message, &self.handler);
        }
        let text = format!(
            "host id {} was removed from the cluster; delete the node's data folder to join as a new node",
            message.from
        );
        self.peers.notify(message.address, Verb::Refused, &text);
    }
}

impl Cluster {
    /// Starts gossip, and group 0 where it was. [`Cluster::enter`] makes this node a member. What the channel brings is to
    /// go to the inbox.
    ///
    /// # Errors
    /// When group 0's file cannot be read or made.
    pub async fn start(
        options: ClusterOptions,
        channel: Arc<dyn PeerChannel>,
        tables: Arc<dyn Tables>,
        data: Arc<dyn Data>,
    ) -> Result<(Arc<Cluster>, Inbox), String> {
        let (peers, gossips) = Peers::new(channel);
        let own = options.member.host;
        let shared = Shared {
            view: Arc::new(watch::channel(ClusterView::default()).0),
            started: Instant::now(),
            own,
            newcomers: Arc::default(),
        };
        let (looking, doubting) = (shared.clone(), shared.clone());
        let group = Group::start(
            &options.file,
            own,
            options.times,
            tables,
            peers.clone(),
            Arc::new(move |host| looking.address(host)),
            Arc::new(move |host| doubting.is_down(host)),
        )
        .await?;
        shared
            .view
            .send_modify(|view| (view.members, view.members_position) = group.members_at());
        let known = group.members();
        let mut seeds = options.seeds.clone();
        seeds.extend(known.nodes.values().map(|member| member.internode));
        seeds.sort_unstable();
        seeds.dedup();
        let gossip = GossipOptions {
            cluster_name: options.cluster_name.clone(),
            host: own,
            address: options.member.internode,
            generation: options.generation,
            seeds,
            interval: options.gossip_interval,
            phi_threshold: options.phi_threshold,
        };
        let gossip = Gossip::start(gossip, peers.clone(), gossips, own_values(&options.member)).await?;
        let cluster = Arc::new(Cluster {
            options,
            peers: peers.clone(),
            group,
            gossip,
            shared,
            data,
            installed: watch::channel(None).0,
            operation: std::sync::Mutex::default(),
            has_left: AtomicBool::new(false),
            admitting: Mutex::default(),
            refusal: watch::channel(None).0,
        });
        let link = Arc::new(std::sync::OnceLock::new());
        // The cell is new.
        let _ = link.set(Arc::downgrade(&cluster));
        let linked = link.clone();
        let handler: Handler = Arc::new(move |verb, message| {
            let cluster = linked.get().and_then(std::sync::Weak::upgrade);
            Box::pin(async move { cluster?.answer(verb, message).await })
        });
        let inbox = Inbox {
            cluster: link,
            peers,
            handler,
        };
        tokio::spawn(watch_view(Arc::downgrade(&cluster)));
        tokio::spawn(watch_voters(Arc::downgrade(&cluster)));
        Ok((cluster, inbox))
    }

    /// What is known of the cluster, now and later.
    pub fn view(&self) -> watch::Receiver<ClusterView> {
        self.shared.view.subscribe()
    }

    /// This node.
    pub fn own(&self) -> &Member {
        &self.options.member
    }

    /// This node's tokens: who replaces another has those of the other.
    pub fn tokens(&self) -> Vec<i64> {
        match self.group.members().nodes.remove(&self.own().host) {
            Some(member) => member.tokens,
            None => self.own().tokens.clone(),
        }
    }

    /// Where a new node asks.
    pub fn seeds(&self) -> &[SocketAddr] {
        &self.options.seeds
    }

    /// Waits until the cluster refuses this node, and says why. One that has left is not refused.
    pub async fn refused(&self) -> String {
        let mut refusal = self.refusal.subscribe();
        let refused = refusal.wait_for(Option::is_some).await;
        if self.has_left() {
            drop(refused);
            return std::future::pending().await;
        }
        refused
            .ok()
            .and_then(|refused| refused.clone())
            .unwrap_or_default()
    }

    /// Tells all members this node's schema version.
    pub async fn say_schema_version(&self, version: Uuid) {
        self.gossip.say(&[("SCHEMA", version.to_string())]).await;
        let addresses: Vec<SocketAddr> = {
            let view = self.shared.view.borrow();
            let others = view.members.nodes.keys().filter(|host| **host != self.shared.own);
            others.filter_map(|host| self.shared.address(*host)).collect()
        };
        for address in addresses {
            self.peers
                .notify(address, Verb::SchemaVersion, &SchemaVersion(version));
        }
    }

    /// Waits until all other members are known to serve, or have had the time to say so: a client that asks this node earlier
    /// would be told that there are too few replicas.
    pub async fn settled(&self) {
        let mut view = self.view();
        let own = self.shared.own;
        let heard = view.wait_for(|view| {
            let others = view.members.nodes.keys().filter(|host| **host != own);
            let mut others = others.copied();
            others.all(|host| view.serves(host))
        });
        if tokio::time::timeout(SETTLE_MAX, heard).await.is_err() {
            tracing::info!("this node serves without having heard of all others");
        }
    }

    /// Waits until this node knows of all changes that were decided before, or there was time for it: who comes back must not write
    /// to former owners.
    pub async fn catch_up(&self) {
        if self.group.members().nodes.len() <= 1 {
            return;
        }
        if let Ok(Err(reason)) = tokio::time::timeout(SETTLE_MAX, self.group.catch_up()).await {
            tracing::info!(%reason, "this node serves by the members that it knew before");
        }
    }

    /// Waits until all members that are up have the schema `version`, or `timeout` is over.
    pub async fn agreement(&self, version: Uuid, timeout: Duration) {
        let mut view = self.view();
        let own = self.shared.own;
        let agreed = view.wait_for(|view| {
            let others = view.members.nodes.keys().filter(|host| **host != own);
            others
                .filter(|host| view.is_alive(**host))
                .all(|host| view.schema_version(*host) == Some(version))
        });
        // Who does not have it in time has it later.
        let _ = tokio::time::timeout(timeout, agreed).await;
    }

    /// Ends this node's part: tells the others, and stops.
    pub async fn shut_down(&self) {
        let live: Vec<SocketAddr> = {
            let view = self.shared.view.borrow();
            let others = view
                .gossip
                .iter()
                .filter(|(host, node)| **host != self.shared.own && node.is_alive);
            others.map(|(_, node)| node.address).collect()
        };
        self.gossip.shut_down(&live).await;
        self.group.shut_down().await;
    }

    async fn answer(self: Arc<Self>, verb: Verb, message: PeerMessage) -> Option<Vec<u8>> {
        let is_member = self
            .shared
            .view
            .borrow()
            .members
            .nodes
            .contains_key(&message.from);
        match verb {
            Verb::Append | Verb::Vote | Verb::Snapshot | Verb::Propose | Verb::Decided => {
                self.group.answer(verb, &message).await
            }
            Verb::HoldsData => serde_json::to_vec(&self.data.holds_any().await).ok(),
            Verb::Installed => {
                let position = serde_json::from_slice(&message.body).ok()?;
                serde_json::to_vec(&self.has_installed(position)).ok()
            }
            Verb::Gain => {
                let asked = serde_json::from_slice(&message.body).ok()?;
                serde_json::to_vec(&self.gain(asked).await).ok()
            }
            Verb::Hello => serde_json::to_vec(&self.hello()).ok(),
            Verb::Join => {
                let asked = serde_json::from_slice(&message.body).ok()?;
                serde_json::to_vec(&self.admit(asked).await).ok()
            }
            Verb::SchemaVersion => {
                let SchemaVersion(version) = serde_json::from_slice(&message.body).ok()?;
                if is_member {
                    self.shared.view.send_if_modified(|view| {
                        view.schema_versions.insert(message.from, version) != Some(version)
                    });
                }
                None
            }
            Verb::Refused => {
                let text: String = serde_json::from_slice(&message.body).ok()?;
                if is_member || self.group.id().is_none() {
                    self.refusal.send_replace(Some(text));
                }
                None
            }
        }
    }
}

/// What a node says of itself, under Cassandra's names.
fn own_values(member: &Member) -> Vec<(String, String)> {
    let with_port = |port| SocketAddr::new(member.rpc, port).to_string();
    [
        ("HOST_ID", member.host.to_string()),
        ("DC", member.datacenter.clone()),
        ("RACK", member.rack.clone()),
        ("RELEASE_VERSION", member.release_version.clone()),
        ("NET_VERSION", "1".to_owned()),
        ("INTERNAL_ADDRESS_AND_PORT", member.internode.to_string()),
        ("NATIVE_ADDRESS_AND_PORT", with_port(member.native_port)),
        ("RPC_ADDRESS", member.rpc.to_string()),
        ("SHARDS", member.shards.to_string()),
        (RPC_READY, "false".to_owned()),
        (STATUS, "BOOT".to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Keeps the view true.
async fn watch_view(cluster: std::sync::Weak<Cluster>) {
    let Some(mut changes) = cluster.upgrade().map(|cluster| cluster.group.changes()) else {
        return;
    };
    loop {
        let interval = {
            let Some(cluster) = cluster.upgrade() else { return };
            let gossip = cluster.gossip.view().await;
            let (members, position) = cluster.group.members_at();
            cluster.shared.view.send_if_modified(|view| {
                // Heartbeats alone are nothing new to anybody.
                let is_same = view.members_position == position && says_the_same(&view.gossip, &gossip);
                for (host, node) in &gossip {
                    let before = view.gossip.get(host).and_then(|node| node.value("SCHEMA"));
                    if node.value("SCHEMA") != before {
                        // Gossip has something newer, or it will.
                        if let Some(version) = node.value("SCHEMA").and_then(|text| text.parse().ok()) {
                            view.schema_versions.insert(*host, version);
                        }
                    }
                }
                (view.members, view.members_position) = (members, position);
                view.gossip = gossip;
                !is_same
            });
            cluster.gossip.phi().await;
            cluster.options.gossip_interval
        };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            is_open = changes.changed() => if !is_open { return },
        }
    }
}

fn says_the_same(one: &GossipView, other: &GossipView) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((host, node), (other_host, other))| {
            host == other_host
                && (node.address, node.generation, node.is_alive)
                    == (other.address, other.generation, other.is_alive)
                && node.values == other.values
        })
}

/// Has those vote that should.
async fn watch_voters(cluster: std::sync::Weak<Cluster>) {
    loop {
        tokio::time::sleep(VOTERS_INTERVAL).await;
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.group.put_voters_right().await;
    }
}
