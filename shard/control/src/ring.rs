//! The admin API's part about the cluster: its nodes, their tokens and ranges, and what gossip says of them.
//!
//! Answers are of what this node knows; no other node is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ceto_cluster::Ring;
use ceto_cluster::replication::{ReplicaMap, Strategy};
use ceto_cluster::ring::NodeIndex;
use ceto_internode::HostId;
use ceto_model::{Keyspace, Schema, Token};
use ceto_node::system::definitions::SYSTEM_KEYSPACES;
use ceto_node::topology::Topology;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admin::{Admin, Answer, Failure, keyspace_exists};
use crate::cluster::gossip::GossipNode;
use crate::cluster::members::{Member, MemberChange, MemberState};
use crate::cluster::{Cluster, ClusterView};

/// What `nodetool status` and `ring` print where keyspaces are replicated in several ways.
const MEANINGLESS: &str = "Non-system keyspaces don't have the same replication settings, effective ownership information is meaningless";

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/node/status", get(status))
        .route("/v1/cluster", get(describe))
        .route("/v1/cluster/gossip", get(gossip))
        .route("/v1/cluster/phi", get(phi))
        .route("/v1/cluster/ring", get(ring))
        .route("/v1/cluster/ranges", get(ranges))
        .route("/v1/cluster/assassinate", post(assassinate))
}

#[derive(Deserialize)]
struct Wanted {
    keyspace: Option<String>,
}

/// What the answers are made of.
pub(crate) struct Known {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) view: ClusterView,
    topology: Arc<Topology>,
    pub(crate) schema: Arc<Schema>,
    /// Bytes that this node has on disk.
    load: u64,
}

impl Known {
    pub(crate) async fn of(admin: &Admin) -> Result<Known, Failure> {
        let cluster = admin.cluster.get().cloned().ok_or_else(|| {
            let text = "the node does not know its cluster yet: it is still starting";
            Failure(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
        })?;
        let topology = admin
            .shards
            .on(0, |node| Box::pin(async move { node.topology() }))
            .await?;
        let view = cluster.view().borrow().clone();
        Ok(Known {
            view,
            cluster,
            topology,
            schema: admin.schema().await?,
            load: admin.tables().await?.iter().map(|table| table.disk_bytes).sum(),
        })
    }

    pub(crate) fn own(&self) -> Uuid {
        self.cluster.own().host
    }

    /// The members; a node that is none yet counts itself.
    fn members(&self) -> Vec<&Member> {
        let members = &self.view.members.nodes;
        let own = self.cluster.own();
        let newcomer = (!members.contains_key(&own.host)).then_some(own);
        members.values().chain(newcomer).collect()
    }

    pub(crate) fn is_alive(&self, host: Uuid) -> bool {
        host == self.own() || self.view.is_alive(host)
    }

    fn load(&self, host: Uuid) -> Option<u64> {
        match host == self.own() {
            true => Some(self.load),
            false => self.view.gossip.get(&host)?.value("LOAD")?.parse().ok(),
        }
    }

    fn schema_version(&self, host: Uuid) -> Option<Uuid> {
        match host == self.own() {
            true => Some(self.schema.version),
            false => self.view.schema_version(host),
        }
    }

    fn map(&self, keyspace: &Keyspace) -> ReplicaMap {
        let strategy = Strategy::from_options(&keyspace.replication).unwrap_or(Strategy::Local);
        ReplicaMap::new(self.topology.ring.clone(), strategy, HostId(self.own()))
    }

    /// What each node holds, 0 to 1: of the keyspace that is `wanted`, or of all when they are replicated in one way;
    /// otherwise what each has tokens for, and why.
    fn ownership(&self, wanted: &Wanted) -> Result<(BTreeMap<Uuid, f64>, Option<&'static str>), Failure> {
        if let Some(name) = &wanted.keyspace {
            keyspace_exists(&self.schema, name)?;
            let keyspace = self
                .schema
                .keyspace(name)
                .filter(|keyspace| !keyspace.replication.is_local());
            let map = keyspace.map(|keyspace| self.map(keyspace));
            return Ok((ownership(&self.topology.ring, map.as_ref()), None));
        }
        let is_of_clients = |keyspace: &&Arc<Keyspace>| !SYSTEM_KEYSPACES.contains(&&*keyspace.name);
        let mut of_clients = self.schema.keyspaces().filter(is_of_clients);
        let Some(first) = of_clients.next() else {
            return Ok((ownership(&self.topology.ring, None), None));
        };
        if of_clients.any(|other| other.replication != first.replication) {
            return Ok((ownership(&self.topology.ring, None), Some(MEANINGLESS)));
        }
        Ok((ownership(&self.topology.ring, Some(&self.map(first))), None))
    }
}

/// The share of all tokens before the token at `at` of the ring and after the one before.
fn share(ring: &Ring, at: usize) -> f64 {
    let tokens = ring.tokens();
    let before = tokens[(at + tokens.len() - 1) % tokens.len()].0;
    match tokens[at].0.0.wrapping_sub(before.0) as u64 {
        0 => 1.0,
        width => width as f64 / 2.0_f64.powi(64),
    }
}

fn ownership(ring: &Ring, map: Option<&ReplicaMap>) -> BTreeMap<Uuid, f64> {
    let mut owned: BTreeMap<Uuid, f64> = ring.nodes().iter().map(|node| (node.host.0, 0.0)).collect();
    for (at, (token, node)) in ring.tokens().iter().enumerate() {
        let share = share(ring, at);
        let mut add = |host: Uuid| *owned.entry(host).or_default() += share;
        match map {
            None => add(ring.node(*node).host.0),
            Some(map) => map
                .replicas(*token)
                .natural()
                .iter()
                .for_each(|replica| add(replica.host.0)),
        }
    }
    owned
}

fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Normal => "normal",
        MemberState::Joining | MemberState::Arriving => "joining",
        MemberState::Leaving | MemberState::Departing => "leaving",
    }
}

async fn status(State(admin): State<Admin>, Query(wanted): Query<Wanted>) -> Answer {
    let known = Known::of(&admin).await?;
    let (owned, note) = known.ownership(&wanted)?;
    let node = |member: &&Member| {
        json!({
            "datacenter": member.datacenter,
            "rack": member.rack,
            "address": member.internode.ip().to_string(),
            "host_id": member.host.to_string(),
            "up": known.is_alive(member.host),
            "state": state_name(member.state),
            "load_bytes": known.load(member.host),
            "tokens": member.tokens.len(),
            "owns": owned.get(&member.host).filter(|_| note.is_none()),
        })
    };
    let nodes: Vec<Value> = known.members().iter().map(node).collect();
    Ok(Json(
        json!({ "nodes": nodes, "owns_effective": note.is_none(), "note": note }),
    ))
}

async fn describe(State(admin): State<Admin>) -> Answer {
    let known = Known::of(&admin).await?;
    let nodes: Vec<Value> = known
        .members()
        .iter()
        .map(|member| {
            json!({
                "address": member.internode.ip().to_string(),
                "port": member.internode.port(),
                "datacenter": member.datacenter,
                "up": known.is_alive(member.host),
                "state": state_name(member.state),
                "schema_version": known.schema_version(member.host).map(|version| version.to_string()),
                "release_version": member.release_version,
            })
        })
        .collect();
    let keyspaces: BTreeMap<&str, Value> = known
        .schema
        .keyspaces()
        .filter(|keyspace| !keyspace.is_virtual)
        .map(|keyspace| (&*keyspace.name, replication(keyspace)))
        .collect();
    Ok(Json(json!({
        "name": admin.cluster_name(),
        "nodes": nodes,
        "keyspaces": keyspaces,
    })))
}

fn replication(keyspace: &Keyspace) -> Value {
    let options = keyspace.replication.0.iter().filter(|(name, _)| *name != "class");
    let options: BTreeMap<&String, &String> = options.collect();
    json!({ "class": keyspace.replication.strategy(), "options": options })
}

async fn gossip(State(admin): State<Admin>) -> Answer {
    let known = Known::of(&admin).await?;
    let view = known.cluster.gossip.view().await;
    let node = |(host, node): (&Uuid, &GossipNode)| {
        let values: BTreeMap<&str, Value> = node
            .values
            .iter()
            .map(|(key, (value, version))| (&**key, json!({ "value": value, "version": version })))
            .collect();
        json!({
            "host_id": host.to_string(),
            "address": node.address.ip().to_string(),
            "generation": node.generation,
            "heartbeat": node.heartbeat,
            "values": values,
        })
    };
    Ok(Json(
        json!({ "nodes": view.iter().map(node).collect::<Vec<_>>() }),
    ))
}

async fn phi(State(admin): State<Admin>) -> Answer {
    let known = Known::of(&admin).await?;
    let phi = known.cluster.gossip.phi().await;
    let others = known
        .members()
        .into_iter()
        .filter(|member| member.host != known.own());
    let nodes: Vec<Value> = others
        .filter_map(|member| {
            let phi = phi.get(&member.host)?;
            Some(json!({ "address": member.internode.ip().to_string(), "phi": phi }))
        })
        .collect();
    Ok(Json(json!({ "nodes": nodes })))
}

async fn ring(State(admin): State<Admin>, Query(wanted): Query<Wanted>) -> Answer {
    let known = Known::of(&admin).await?;
    let (owned, note) = known.ownership(&wanted)?;
    let ring = &known.topology.ring;
    let token = |(token, node): &(Token, NodeIndex)| {
        let host = ring.node(*node).host.0;
        let member = known.view.members.nodes.get(&host)?;
        Some(json!({
            "token": token.0.to_string(),
            "address": member.internode.ip().to_string(),
            "datacenter": member.datacenter,
            "rack": member.rack,
            "up": known.is_alive(host),
            "state": state_name(member.state),
            "load_bytes": known.load(host),
            "owns": owned.get(&host).filter(|_| note.is_none()),
        }))
    };
    let tokens: Vec<Value> = ring.tokens().iter().filter_map(token).collect();
    Ok(Json(json!({ "tokens": tokens, "note": note })))
}

async fn ranges(State(admin): State<Admin>, Query(wanted): Query<Wanted>) -> Answer {
    let known = Known::of(&admin).await?;
    let name = wanted.keyspace.unwrap_or_default();
    keyspace_exists(&known.schema, &name)?;
    let keyspace = known
        .schema
        .keyspace(&name)
        .filter(|keyspace| !keyspace.replication.is_local());
    let map = keyspace.map(|keyspace| known.map(keyspace)).ok_or_else(|| {
        let text = format!("Keyspace {name} is not replicated: each node has its own");
        Failure(StatusCode::BAD_REQUEST, text)
    })?;
    let tokens = known.topology.ring.tokens();
    let ranges: Vec<Value> = tokens
        .iter()
        .enumerate()
        .map(|(at, (end, _))| {
            let start = tokens[(at + tokens.len() - 1) % tokens.len()].0;
            let replicas: Vec<Value> = map
                .replicas(*end)
                .natural()
                .iter()
                .filter_map(|replica| {
                    let member = known.view.members.nodes.get(&replica.host.0)?;
                    Some(json!({
                        "address": member.internode.ip().to_string(),
                        "rpc_address": member.rpc.to_string(),
                        "datacenter": member.datacenter,
                        "rack": member.rack,
                    }))
                })
                .collect();
            json!({ "start": start.0.to_string(), "end": end.0.to_string(), "replicas": replicas })
        })
        .collect();
    Ok(Json(json!({
        "schema_version": known.schema.version.to_string(),
        "ranges": ranges,
    })))
}

#[derive(Deserialize)]
struct Victim {
    address: String,
}

/// Makes a node that is down a former member. Its data is not moved: what it alone held is lost, and the others hold what
/// it held with them until a repair.
async fn assassinate(State(admin): State<Admin>, Query(victim): Query<Victim>) -> Answer {
    let known = Known::of(&admin).await?;
    let members = known.members();
    let found = members
        .iter()
        .find(|member| member.internode.ip().to_string() == victim.address);
    let Some(member) = found else {
        let text = format!("{} is no node of the cluster", victim.address);
        return Err(Failure(StatusCode::NOT_FOUND, text));
    };
    if known.is_alive(member.host) {
        let text = format!("{} is alive; stop it first", victim.address);
        return Err(Failure(StatusCode::BAD_REQUEST, text));
    }
    let removed = known
        .cluster
        .group
        .change_members(&MemberChange::Remove(member.host))
        .await;
    removed.map_err(|text| Failure(StatusCode::INTERNAL_SERVER_ERROR, text))?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ceto_cluster::RingNode;

    fn ring(tokens: &[(u8, i64)]) -> Arc<Ring> {
        let node = |(host, token): &(u8, i64)| RingNode {
            host: HostId(Uuid::from_u128(u128::from(*host))),
            datacenter: "dc".into(),
            rack: "rack".into(),
            tokens: vec![Token(*token)],
        };
        Arc::new(Ring::new(tokens.iter().map(node)).unwrap())
    }

    #[test]
    fn shares_are_the_way_to_the_token_before() {
        let alone = ring(&[(1, 7)]);
        assert_eq!(ownership(&alone, None)[&Uuid::from_u128(1)], 1.0);
        let two = ring(&[(1, i64::MIN / 2), (2, i64::MAX / 2 + 1)]);
        let owned = ownership(&two, None);
        assert_eq!(owned.values().copied().collect::<Vec<_>>(), [0.5, 0.5]);
        let three = ring(&[(1, 0), (2, 1 << 62), (3, -1 << 62)]);
        let owned: Vec<f64> = ownership(&three, None).values().copied().collect();
        assert_eq!(owned, [0.25, 0.25, 0.5]);
        let strategy = Strategy::Simple {
            replication_factor: 2,
        };
        let map = ReplicaMap::new(three.clone(), strategy, HostId(Uuid::from_u128(1)));
        let owned: Vec<f64> = ownership(&three, Some(&map)).values().copied().collect();
        assert_eq!(owned, [0.75, 0.5, 0.75]);
    }
}
