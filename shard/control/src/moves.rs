//! The admin API's part about nodes that come and go: decommission, removenode, rebuild, and how far such a thing is.
//!
//! What is ordered runs on when who ordered it stops waiting; the answer comes when it has ended. With `dry_run` nothing happens,
//! and the answer says what would move where.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ceto_cluster::replication::Strategy;
use ceto_node::system::definitions::SYSTEM_AUTH;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admin::{Admin, Answer, Failure, keyspace_exists};
use crate::cluster::Cluster;
use crate::cluster::members::{Member, MemberChange, MemberState, Members};
use crate::cluster::moves::{Gained, Operation};
use crate::pulls::{KeyspaceGain, by_source, plan, plan_rebuild};
use crate::ring::Known;

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/cluster/moves", get(progress))
        .route("/v1/cluster/decommission", post(decommission))
        .route("/v1/cluster/decommission/abort", post(abort_decommission))
        .route("/v1/cluster/remove", post(remove))
        .route("/v1/cluster/remove/force", post(remove_by_force))
        .route("/v1/cluster/rebuild", post(rebuild))
}

fn refused(text: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, text.into())
}

fn failed(text: String) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// As `nodetool info` and `system.local` name it.
pub(crate) fn bootstrap_state(admin: &Admin) -> &'static str {
    let Some(cluster) = admin.cluster.get() else {
        return "NEEDS_BOOTSTRAP";
    };
    match cluster.group.members().nodes.get(&cluster.own().host) {
        _ if cluster.has_left() => "DECOMMISSIONED",
        None => "NEEDS_BOOTSTRAP",
        Some(member) if member.state == MemberState::Joining => "IN_PROGRESS",
        Some(_) => "COMPLETED",
    }
}

/// Whether this node is leaving, and whether it was to leave and did not.
pub(crate) fn decommissioning(admin: &Admin) -> (bool, bool) {
    let Some(cluster) = admin.cluster.get() else {
        return (false, false);
    };
    let own = cluster
        .operation()
        .filter(|operation| operation.host == cluster.own().host);
    let is_failure = |operation: &Operation| matches!(operation.outcome, Some(Err(_)));
    let has_stayed = mode(cluster) == "NORMAL";
    (
        mode(cluster) == "LEAVING",
        has_stayed && own.as_ref().is_some_and(is_failure),
    )
}

/// As Cassandra names a node's mode of operation.
fn mode(cluster: &Cluster) -> &'static str {
    let state = cluster
        .group
        .members()
        .nodes
        .get(&cluster.own().host)
        .map(|own| own.state);
    match state {
        _ if cluster.has_left() => "DECOMMISSIONED",
        None => "STARTING",
        Some(MemberState::Joining | MemberState::Arriving) => "JOINING",
        Some(MemberState::Normal) => "NORMAL",
        Some(MemberState::Leaving | MemberState::Departing) => "LEAVING",
    }
}

fn address_in(members: &Members, host: Uuid) -> String {
    match members.nodes.get(&host) {
        Some(member) => member.internode.ip().to_string(),
        None => host.to_string(),
    }
}

fn gained_document(members: &Members, gained: &Gained, seconds: f64) -> Value {
    let received: BTreeMap<String, u64> = gained
        .received
        .iter()
        .map(|(from, bytes)| (address_in(members, *from), *bytes))
        .collect();
    let left = gained.parts.saturating_sub(gained.parts_done) as f64;
    let is_known = gained.outcome.is_none() && gained.parts_done > 0;
    json!({
        "parts": gained.parts,
        "parts_done": gained.parts_done,
        "received_bytes": received,
        "seconds_left": is_known.then(|| (seconds / gained.parts_done as f64 * left).ceil() as u64),
        "has_ended": gained.outcome.is_some(),
        "failure": gained.outcome.as_ref().and_then(|outcome| outcome.as_ref().err()),
    })
}

/// What moves at present, as far as this node has to do with it.
async fn progress(State(admin): State<Admin>) -> Answer {
    let cluster = admin.cluster.get().ok_or_else(|| {
        let text = "the node does not know its cluster yet: it is still starting";
        Failure(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
    })?;
    let members = cluster.group.members();
    let operation = cluster.operation().map(|operation| {
        let seconds = operation.started.elapsed().as_secs_f64();
        let nodes: BTreeMap<String, Value> = operation
            .gained
            .iter()
            .map(|(host, gained)| {
                (
                    address_in(&members, *host),
                    gained_document(&members, gained, seconds),
                )
            })
            .collect();
        json!({
            "host_id": operation.host.to_string(),
            "address": address_in(&members, operation.host),
            "nodes": nodes,
            "has_ended": operation.outcome.is_some(),
            "failure": operation.outcome.and_then(Result::err),
        })
    });
    let own = admin.pulls.gained();
    let receiving = own.map(|(gained, seconds)| gained_document(&members, &gained, seconds));
    let moving = members.moving().filter(|_| !cluster.has_left());
    let moving = moving.map(|member| {
        json!({
            "host_id": member.host.to_string(),
            "address": member.internode.ip().to_string(),
            "is_joining": matches!(member.state, MemberState::Joining | MemberState::Arriving),
        })
    });
    Ok(Json(json!({
        "mode": mode(cluster),
        "moving": moving,
        "operation": operation,
        "receiving": receiving,
    })))
}

/// The lines of a dry run.
fn moves(members: &Members, host: Uuid, plan: &[KeyspaceGain]) -> Vec<Value> {
    let line = |((from, keyspace), share): ((Uuid, Arc<str>), f64)| {
        json!({
            "to": address_in(members, host),
            "from": address_in(members, from),
            "keyspace": &*keyspace,
            "share": share,
        })
    };
    by_source(plan).into_iter().map(line).collect()
}

/// What each member would copy when the members were changed so.
fn what_moves(known: &Known, change: &MemberChange) -> Answer {
    let members = known.view.members.after(change).map_err(refused)?;
    let mut lines = Vec::new();
    for host in members.nodes.keys() {
        let plan = plan(&known.schema, &members, *host, |own| known.is_alive(own)).map_err(refused)?;
        lines.extend(moves(&members, *host, &plan));
    }
    Ok(Json(json!({ "moves": lines })))
}

#[derive(Deserialize)]
struct Decommission {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
}

async fn decommission(State(admin): State<Admin>, Query(wanted): Query<Decommission>) -> Answer {
    let known = Known::of(&admin).await?;
    let members = &known.view.members;
    let Some(own) = members.nodes.get(&known.own()) else {
        return Err(refused("local node is not a member of the token ring yet"));
    };
    let is_resumed = matches!(own.state, MemberState::Leaving | MemberState::Departing);
    if own.state != MemberState::Normal && !is_resumed {
        let mode = mode(&known.cluster);
        let text = format!("Node in {mode} state; wait for status to become normal or restart");
        return Err(refused(text));
    }
    if is_resumed
        && known
            .cluster
            .operation()
            .is_some_and(|operation| operation.outcome.is_none())
    {
        return Err(refused("Node is still decommissioning."));
    }
    if members.nodes.len() < 2 {
        return Err(refused(
            "no other normal nodes in the ring; decommission would be pointless",
        ));
    }
    if !wanted.force && !is_resumed {
        replicas_remain(&known, own)?;
    }
    if wanted.dry_run {
        return what_moves(&known, &MemberChange::SetState(own.host, MemberState::Leaving));
    }
    let leaver = known.cluster.clone();
    let left = tokio::spawn(async move { leaver.decommission().await });
    done(left).await
}

/// The answer of what runs on without who asked for it.
async fn done(running: tokio::task::JoinHandle<Result<(), String>>) -> Answer {
    match running.await {
        Ok(Ok(())) => Ok(Json(json!({}))),
        Ok(Err(reason)) => Err(failed(reason)),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Refuses when a keyspace would have fewer replicas than it wants.
fn replicas_remain(known: &Known, leaver: &Member) -> Result<(), Failure> {
    let members = || known.view.members.nodes.values();
    for keyspace in known.schema.keyspaces() {
        // Each node has all roles.
        if keyspace.is_virtual || *keyspace.name == *SYSTEM_AUTH {
            continue;
        }
        let (wanted, nodes) = match Strategy::from_options(&keyspace.replication) {
            Ok(Strategy::Simple { replication_factor }) => (replication_factor, members().count()),
            Ok(strategy @ Strategy::NetworkTopology { .. }) => {
                let near = members().filter(|member| member.datacenter == leaver.datacenter);
                (
                    strategy.local_replication_factor(&leaver.datacenter),
                    near.count(),
                )
            }
            Ok(Strategy::Local) | Err(_) => continue,
        };
        if nodes <= wanted as usize {
            return Err(refused(format!(
                "Not enough live nodes to maintain replication factor in keyspace {} (RF = {wanted}, N = {nodes}). Perform a \
                 forceful decommission to ignore.",
                keyspace.name
            )));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Named {
    host: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

async fn abort_decommission(State(admin): State<Admin>, Query(named): Query<Named>) -> Answer {
    let known = Known::of(&admin).await?;
    let host = match &named.host {
        Some(name) => find(&known, name)?.host,
        None => known.own(),
    };
    known.cluster.stay(host).await.map_err(refused)?;
    Ok(Json(json!({})))
}

fn find(known: &Known, name: &str) -> Result<Member, Failure> {
    let member = known.cluster.find_member(name);
    member.ok_or_else(|| Failure(StatusCode::NOT_FOUND, "Host ID not found.".to_owned()))
}

async fn remove(State(admin): State<Admin>, Query(named): Query<Named>) -> Answer {
    let known = Known::of(&admin).await?;
    let member = find(&known, named.host.as_deref().unwrap_or_default())?;
    if member.host == known.own() {
        return Err(refused("Cannot remove self"));
    }
    if known.is_alive(member.host) {
        return Err(refused(format!(
            "Node {} is alive and owns this ID. Use decommission command to remove it from the ring",
            member.internode
        )));
    }
    if known
        .cluster
        .operation()
        .is_some_and(|operation| operation.outcome.is_none())
    {
        return Err(refused(
            "This node is already processing a removal. Wait for it to complete, or use 'removenode force' if this has failed.",
        ));
    }
    if named.dry_run {
        return what_moves(&known, &MemberChange::SetState(member.host, MemberState::Leaving));
    }
    let cluster = known.cluster.clone();
    let removed = tokio::spawn(async move { cluster.remove_node(member.host).await });
    done(removed).await
}

/// Ends a removal that does not get on: what was not copied yet is not.
async fn remove_by_force(State(admin): State<Admin>) -> Answer {
    let known = Known::of(&admin).await?;
    let Some(member) = known
        .view
        .members
        .moving()
        .filter(|moving| !known.is_alive(moving.host))
    else {
        return Err(refused("No nodes to remove by force"));
    };
    let removed = known
        .cluster
        .group
        .change_members(&MemberChange::Remove(member.host))
        .await;
    removed.map_err(failed)?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct Rebuild {
    datacenter: Option<String>,
    keyspace: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

async fn rebuild(State(admin): State<Admin>, Query(wanted): Query<Rebuild>) -> Answer {
    let known = Known::of(&admin).await?;
    if let Some(keyspace) = &wanted.keyspace {
        keyspace_exists(&known.schema, keyspace)?;
    }
    let members = &known.view.members;
    if let Some(datacenter) = &wanted.datacenter
        && !members
            .nodes
            .values()
            .any(|member| member.datacenter == *datacenter)
    {
        let mut known: Vec<&str> = members.nodes.values().map(|member| &*member.datacenter).collect();
        known.sort_unstable();
        known.dedup();
        return Err(refused(format!(
            "Provided datacenter '{datacenter}' is not a valid datacenter, available datacenters are: {}",
            known.join(",")
        )));
    }
    let may_give = |host: Uuid| {
        let is_there = |datacenter: &String| {
            let member = members.nodes.get(&host);
            member.is_some_and(|member| member.datacenter == *datacenter)
        };
        known.is_alive(host) && wanted.datacenter.as_ref().is_none_or(is_there)
    };
    let only = wanted.keyspace.as_deref();
    let plan = plan_rebuild(&known.schema, members, known.own(), only, may_give).map_err(refused)?;
    if wanted.dry_run {
        return Ok(Json(json!({ "moves": moves(members, known.own(), &plan) })));
    }
    let pulls = admin.pulls.clone();
    done(tokio::spawn(async move { pulls.rebuild(plan).await })).await
}
