//! The cluster's part of a real node: its channel goes over the shards' links, its tables are the shards' tables, and what
//! it knows of the members is installed on every shard.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_cluster::{Ring, RingNode};
use ceto_internode::HostId;
use ceto_model::Token;
use ceto_node::options::{NodeOptions, RELEASE_VERSION};
use ceto_node::topology::{Peer, PeerState, Topology};
use tracing::{error, warn};
use uuid::Uuid;

use crate::boot::BootError;
use crate::cluster::group::GroupTimes;
use crate::cluster::members::{Member, MemberState, Members};
use crate::cluster::peers::PeerChannel;
use crate::cluster::{BOOTING, Cluster, ClusterOptions, ClusterView, Inbox, RPC_READY, STATUS};
use crate::pulls::Pulls;
use crate::schema::{SchemaService, SystemTables, now_micros};
use crate::shards::Shards;

/// Between two times that a node says how much it holds.
const LOAD_INTERVAL: Duration = Duration::from_secs(60);

/// Name of group 0's file in the data folder.
const FILE: &str = "group0.redb";

/// What the configuration says of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// Internode addresses where a new node asks; the first founds the cluster.
    pub seeds: Vec<SocketAddr>,
    /// `phi_convict_threshold`.
    pub phi_threshold: f64,
    /// Between two rounds of gossip.
    pub gossip_interval: Duration,
    /// `auto_bootstrap`.
    pub auto_bootstrap: bool,
    /// `replace_address_first_boot`.
    pub replaces: Option<IpAddr>,
    /// Other nodes may come; without, nothing listens for them.
    pub has_peers: bool,
    /// Where clients of other nodes are told to reach this one (`broadcast_rpc_address`).
    pub broadcast_rpc_address: IpAddr,
}

struct ShardChannel(Shards);

impl PeerChannel for ShardChannel {
    fn send(&self, to: SocketAddr, body: Bytes) {
        let shards = self.0.clone();
        tokio::spawn(async move {
            // What is not taken is lost, and comes again.
            let _ = shards
                .on(0, move |node| {
                    Box::pin(async move { node.send_control(to, body) })
                })
                .await;
        });
    }
}

fn own_member(options: &NodeOptions, settings: &ClusterSettings, shards: u16) -> Member {
    Member {
        host: options.host_id,
        internode: SocketAddr::new(options.broadcast_address, options.storage_port),
        rpc: settings.broadcast_rpc_address,
        native_port: options.native_port,
        shards,
        datacenter: options.datacenter.clone(),
        rack: options.rack.clone(),
        tokens: options.tokens.clone(),
        release_version: RELEASE_VERSION.to_owned(),
        state: MemberState::Joining,
        replaces: None,
    }
}

/// Starts the cluster's part; what other nodes send is to go to the inbox.
///
/// # Errors
/// When group 0's file cannot be read or made.
pub async fn start(
    options: &NodeOptions,
    settings: &ClusterSettings,
    shards: &Shards,
    tables: &Arc<SystemTables>,
    pulls: &Pulls,
) -> Result<(Arc<Cluster>, Inbox), BootError> {
    let limits = &options.settings.limits;
    let cluster = ClusterOptions {
        cluster_name: options.cluster_name.clone(),
        member: own_member(options, settings, shards.count()),
        seeds: settings.seeds.clone(),
        file: options.data_directory.join(FILE),
        generation: (now_micros() / 1_000_000) as u64,
        gossip_interval: settings.gossip_interval,
        phi_threshold: settings.phi_threshold,
        times: GroupTimes::default(),
        auto_bootstrap: settings.auto_bootstrap,
        replaces: settings.replaces,
        requests_end: limits.write_timeout.max(limits.counter_write_timeout),
    };
    let channel = Arc::new(ShardChannel(shards.clone()));
    let started = Cluster::start(cluster, channel, tables.clone(), Arc::new(pulls.clone())).await;
    started.map_err(BootError)
}

/// Makes this node a member, installs what is known of the others, and copies what it will own; returns when clients can be
/// served.
///
/// # Errors
/// When the cluster refuses this node, or it cannot listen.
pub async fn enter(
    cluster: &Arc<Cluster>,
    settings: &ClusterSettings,
    shards: &Shards,
    tables: &Arc<SystemTables>,
    first: &SchemaService,
) -> Result<(), BootError> {
    if settings.has_peers {
        let listening = shards.on_all(|node| Box::pin(async move { node.listen_for_peers() }));
        for outcome in listening.await? {
            outcome.map_err(BootError)?;
        }
    }
    cluster.enter().await.map_err(BootError)?;
    let own = cluster.own().host;
    // A member whose group has no leader serves data all the same.
    if cluster.group.members().nodes.len() <= 1 || cluster.group.position().tables == 0 {
        let put = first.put_first_things().await;
        put.map_err(|error| BootError(error.to_string()))?;
    }
    let mut view = cluster.view();
    // The view follows the group's members.
    let is_known = view.wait_for(|view| view.members.nodes.contains_key(&own));
    is_known.await?;
    // Nodes that start together wait for each other: each says that it serves its tokens before it serves clients.
    say_ready(cluster, false).await;
    tokio::join!(cluster.settled(), cluster.catch_up());
    let first = view.borrow_and_update().clone();
    install(&first, cluster, shards).await;
    let (topology, installing) = ((view, shards.clone()), Arc::downgrade(cluster));
    tokio::spawn(async move {
        let (mut view, shards) = topology;
        while view.changed().await.is_ok() {
            let view = view.borrow_and_update().clone();
            let Some(cluster) = installing.upgrade() else {
                return;
            };
            install(&view, &cluster, &shards).await;
        }
    });
    let (follower, mut version) = (Arc::downgrade(cluster), tables.version());
    tokio::spawn(async move {
        loop {
            let now = *version.borrow_and_update();
            let Some(cluster) = follower.upgrade() else { return };
            cluster.say_schema_version(now).await;
            drop(cluster);
            if version.changed().await.is_err() {
                return;
            }
        }
    });
    let (loaded, asked) = (Arc::downgrade(cluster), shards.clone());
    tokio::spawn(async move {
        loop {
            let Some(cluster) = loaded.upgrade() else { return };
            let figures = asked.on_all(|node| Box::pin(async move { node.table_figures() }));
            if let Ok(figures) = figures.await {
                let load: u64 = figures.iter().flatten().map(|table| table.disk_bytes).sum();
                cluster.gossip.say(&[("LOAD", load.to_string())]).await;
            }
            drop(cluster);
            tokio::time::sleep(LOAD_INTERVAL).await;
        }
    });
    let announced = cluster.clone();
    tokio::spawn(async move { announced.announce_surroundings().await });
    cluster.arrive().await.map_err(BootError)
}

/// What is left to do once clients are served: the former owners are let go, and who was about to leave goes on.
pub fn serving(cluster: &Arc<Cluster>) {
    let cluster = cluster.clone();
    tokio::spawn(async move {
        cluster.settle_in().await;
        let members = cluster.group.members();
        let state = members.nodes.get(&cluster.own().host).map(|member| member.state);
        if matches!(state, Some(MemberState::Leaving | MemberState::Departing))
            && let Err(reason) = cluster.decommission().await
        {
            warn!(%reason, "this node does not leave");
        }
    });
}

/// Tells the other nodes that this one takes requests for its tokens, and whether clients are served here.
pub async fn say_ready(cluster: &Cluster, is_ready: bool) {
    let tokens: Vec<String> = cluster.tokens().iter().map(i64::to_string).collect();
    let state = if cluster.is_joining() { BOOTING } else { "NORMAL," };
    let status = format!("{state}{}", tokens.first().map_or("", String::as_str));
    let values = [
        (STATUS, status),
        ("TOKENS", tokens.join(",")),
        (RPC_READY, is_ready.to_string()),
    ];
    cluster.gossip.say(&values).await;
}

fn tokens(tokens: &[i64]) -> Vec<Token> {
    tokens.iter().map(|token| Token(*token)).collect()
}

fn ring<'a>(members: &'a Members, owned: impl Fn(&'a Member) -> &'a [i64]) -> Result<Arc<Ring>, String> {
    let ring = Ring::new(members.nodes.values().map(|member| RingNode {
        host: HostId(member.host),
        datacenter: member.datacenter.as_str().into(),
        rack: member.rack.as_str().into(),
        tokens: tokens(owned(member)),
    }));
    ring.map(Arc::new).map_err(|error| error.to_string())
}

/// The ring that is read, and the one that is written too while a member comes or goes.
pub(crate) fn rings(members: &Members) -> Result<(Arc<Ring>, Option<Arc<Ring>>), String> {
    let present = ring(members, |member| members.tokens_read(member))?;
    let other = match members.moving() {
        Some(_) => Some(ring(members, |member| members.tokens_other(member))?),
        None => None,
    };
    Ok((present, other))
}

/// What a view says, for the shards.
fn topology(view: &ClusterView, own: Uuid) -> Result<Topology, String> {
    let members = view.members.nodes.values();
    let (ring, other) = rings(&view.members)?;
    let peer = |member: &Member| {
        let gossiped = view.gossip.get(&member.host);
        Peer {
            host: HostId(member.host),
            internode: gossiped.map_or(member.internode, |node| node.address),
            rpc: member.rpc,
            native_port: member.native_port,
            shard_count: member.shards,
            datacenter: member.datacenter.as_str().into(),
            rack: member.rack.as_str().into(),
            tokens: tokens(&member.tokens),
            release_version: member.release_version.as_str().into(),
            schema_version: view.schema_version(member.host).unwrap_or_default(),
            is_alive: view.serves(member.host),
            serves_clients: gossiped.is_some_and(|node| node.value(RPC_READY) == Some("true")),
            state: match member.state {
                MemberState::Normal => PeerState::Normal,
                MemberState::Joining | MemberState::Arriving => PeerState::Joining,
                MemberState::Leaving | MemberState::Departing => PeerState::Leaving,
            },
        }
    };
    let mut peers: Vec<Peer> = members.filter(|member| member.host != own).map(peer).collect();
    peers.sort_unstable_by_key(|peer| peer.host);
    Ok(Topology { ring, other, peers })
}

async fn install(view: &ClusterView, cluster: &Cluster, shards: &Shards) {
    let topology = match topology(view, cluster.own().host) {
        Ok(topology) => Arc::new(topology),
        Err(error) => return error!(%error, "the members make no ring"),
    };
    let installed = shards.on_all(move |node| {
        let topology = topology.clone();
        Box::pin(async move { node.install_topology(topology) })
    });
    match installed.await {
        Ok(_) => cluster.set_installed(view),
        Err(_) => warn!("the node ends before it knows its members"),
    }
}
