//! Gossip: who is up, and what each node says about itself.
//!
//! `chitchat` (Scuttlebutt, and a phi-accrual failure detector) over [`Peers`]. It carries what may be late or lost: load,
//! schema version, addresses, whether a node serves clients. Who is a member, and with which tokens, is group 0's.
//!
//! Keys are named as `nodetool gossipinfo` of Cassandra names them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig,
    Serializable, spawn_chitchat,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tracing::debug;
use uuid::Uuid;

use super::peers::Peers;

/// The key by which a node says that it ends.
pub const SHUTDOWN: &str = "SHUTDOWN";

/// A node that has been down for this long is forgotten by gossip (group 0 still knows it).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3 * 24 * 3600);

/// Cassandra's phi is logarithmic to base 10 and chitchat's is linear: one is this many of the other.
const PHI_FACTOR: f64 = std::f64::consts::LN_10;

/// How gossip goes.
#[derive(Clone, Debug)]
pub struct GossipOptions {
    /// Cluster name.
    pub cluster_name: String,
    /// This node.
    pub host: Uuid,
    /// Its internode address, as others reach it.
    pub address: SocketAddr,
    /// Grows with each start.
    pub generation: u64,
    /// Where to begin.
    pub seeds: Vec<SocketAddr>,
    /// Between two rounds.
    pub interval: Duration,
    /// As Cassandra's `phi_convict_threshold`.
    pub phi_threshold: f64,
}

/// What is known of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GossipNode {
    /// Where it is reached.
    pub address: SocketAddr,
    /// Of its last start.
    pub generation: u64,
    /// Rounds since.
    pub heartbeat: u64,
    /// Failure detection holds it to be up, and it has not said that it ends.
    pub is_alive: bool,
    /// What it says, with the version of each.
    pub values: BTreeMap<String, (String, u64)>,
}

impl GossipNode {
    /// What it says under `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(value, _)| value.as_str())
    }
}

/// What gossip knows: by host id.
pub type GossipView = BTreeMap<Uuid, GossipNode>;

struct PeerTransport {
    peers: Arc<Peers>,
    received: Mutex<Option<mpsc::Receiver<(SocketAddr, Bytes)>>>,
}

#[async_trait::async_trait]
impl Transport for PeerTransport {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let received = self.received.lock().await.take();
        let received = received.ok_or_else(|| anyhow::anyhow!("gossip runs already"))?;
        Ok(Box::new(PeerSocket {
            peers: self.peers.clone(),
            received,
        }))
    }
}

struct PeerSocket {
    peers: Arc<Peers>,
    received: mpsc::Receiver<(SocketAddr, Bytes)>,
}

#[async_trait::async_trait]
impl Socket for PeerSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let mut body = Vec::new();
        message.serialize(&mut body);
        self.peers.gossip(to, &body);
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, body)) = self.received.recv().await else {
                return Err(anyhow::anyhow!("the node ends"));
            };
            match ChitchatMessage::deserialize(&mut &body[..]) {
                Ok(message) => return Ok((from, message)),
                Err(error) => debug!(%from, %error, "malformed gossip"),
            }
        }
    }
}

/// When a node's heartbeat was last seen to grow.
type Heard = std::sync::Mutex<BTreeMap<Uuid, (u64, u64, Instant)>>;

/// This node's gossip.
pub struct Gossip {
    handle: ChitchatHandle,
    heard: Heard,
    interval: Duration,
}

impl Gossip {
    /// Begins to gossip, and says `values` of this node.
    ///
    /// # Errors
    /// When it runs already.
    pub async fn start(
        options: GossipOptions,
        peers: Arc<Peers>,
        received: mpsc::Receiver<(SocketAddr, Bytes)>,
        values: Vec<(String, String)>,
    ) -> Result<Gossip, String> {
        let transport = PeerTransport {
            peers,
            received: Mutex::new(Some(received)),
        };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(options.host.to_string(), options.generation, options.address),
            cluster_id: options.cluster_name,
            gossip_interval: options.interval,
            listen_addr: options.address,
            seed_nodes: options.seeds.iter().map(SocketAddr::to_string).collect(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: options.phi_threshold * PHI_FACTOR,
                max_interval: options.interval * 10,
                initial_interval: options.interval,
                dead_node_grace_period: FORGOTTEN_AFTER,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: FORGOTTEN_AFTER,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let started = spawn_chitchat(config, values, &transport).await;
        Ok(Gossip {
            handle: started.map_err(|error| error.to_string())?,
            heard: Heard::default(),
            interval: options.interval,
        })
    }

    /// Says something of this node.
    pub async fn say(&self, values: &[(&str, String)]) {
        self.handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                for (key, value) in values {
                    if state.get(key) != Some(value.as_str()) {
                        state.set(*key, value.clone());
                    }
                }
            })
            .await;
    }

    /// Gossips with the node at `to` now.
    pub fn greet(&self, to: SocketAddr) {
        // It comes in a later round otherwise.
        let _ = self.handle.gossip(to);
    }

    /// What is known of all nodes, this one among them.
    pub async fn view(&self) -> GossipView {
        self.handle
            .with_chitchat(|chitchat| {
                let mut view = GossipView::new();
                let live: Vec<ChitchatId> = chitchat.live_nodes().cloned().collect();
                for (id, state) in chitchat.node_states() {
                    let Ok(host) = id.node_id.parse::<Uuid>() else {
                        continue;
                    };
                    if view
                        .get(&host)
                        .is_some_and(|known| known.generation > id.generation_id)
                    {
                        continue;
                    }
                    let values: BTreeMap<_, _> = state
                        .key_values()
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .map(|(key, value)| {
                            let version = state.get_versioned(&key).map_or(0, |value| value.version);
                            (key, (value, version))
                        })
                        .collect();
                    let node = GossipNode {
                        address: id.gossip_advertise_addr,
                        generation: id.generation_id,
                        heartbeat: u64::from(state.heartbeat()),
                        is_alive: live.contains(id) && !values.contains_key(SHUTDOWN),
                        values,
                    };
                    view.insert(host, node);
                }
                view
            })
            .await
    }

    /// Waits until who is up, or what somebody says, may have changed.
    pub async fn changed(&self) {
        let mut live = self.handle.chitchat().lock().await.live_nodes_watcher();
        live.mark_unchanged();
        // An error means that gossip ends.
        let _ = live.changed().await;
    }

    /// For each node how much speaks against its being up, in the measure of `phi_convict_threshold`: the time since its
    /// heartbeat was last seen to grow, in gossip's intervals. As exact as this is called often.
    pub async fn phi(&self) -> BTreeMap<Uuid, f64> {
        let (view, now) = (self.view().await, Instant::now());
        let mut heard = self.heard.lock().expect("nobody panics with the lock");
        heard.retain(|host, _| view.contains_key(host));
        view.iter()
            .map(|(host, node)| {
                let is_new = |(generation, heartbeat, _): &(u64, u64, Instant)| {
                    (*generation, *heartbeat) != (node.generation, node.heartbeat)
                };
                if heard.get(host).is_none_or(is_new) {
                    heard.insert(*host, (node.generation, node.heartbeat, now));
                }
                let since = heard
                    .get(host)
                    .map_or(0.0, |heard| now.duration_since(heard.2).as_secs_f64());
                (*host, since / self.interval.as_secs_f64() / PHI_FACTOR)
            })
            .collect()
    }

    /// Tells others that this node ends, and ends gossip.
    pub async fn shut_down(&self, live: &[SocketAddr]) {
        self.say(&[(SHUTDOWN, "true".to_owned())]).await;
        for address in live {
            self.greet(*address);
        }
    }
}
