//! The admin API's part about hints: whether they are kept, delivered, for whom they wait. What is changed holds until the next
//! start.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ceto_internode::HostId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, Answer, Failure};

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/hints", get(hints))
        .route("/v1/hints/enable", post(enable))
        .route("/v1/hints/pause", post(pause))
        .route("/v1/hints/truncate", post(truncate))
}

async fn hints(State(admin): State<Admin>) -> Answer {
    let (is_enabled, is_paused, disabled, topology) = admin
        .shards()
        .on(0, |node| {
            Box::pin(async move {
                let (is_enabled, is_paused) = (node.keeps_hints(), node.hints_are_paused());
                (
                    is_enabled,
                    is_paused,
                    node.datacenters_without_hints(),
                    node.topology(),
                )
            })
        })
        .await?;
    let per_shard = admin
        .shards()
        .on_all(|node| Box::pin(async move { node.pending_hints() }))
        .await?;
    let mut by_host: BTreeMap<HostId, (usize, u64)> = BTreeMap::new();
    for pending in per_shard.into_iter().flatten() {
        let sum = by_host.entry(pending.host).or_default();
        *sum = (sum.0 + pending.files, sum.1 + pending.bytes);
    }
    let pending = by_host.into_iter().map(|(host, (files, bytes))| {
        let peer = topology.peer(host);
        let of_peer = |text: &dyn Fn(&ceto_node::topology::Peer) -> String| peer.map(text);
        json!({
            "host_id": host.to_string(),
            "address": of_peer(&|peer| peer.internode.ip().to_string()),
            "rack": of_peer(&|peer| peer.rack.to_string()),
            "datacenter": of_peer(&|peer| peer.datacenter.to_string()),
            "is_alive": peer.map(|peer| peer.is_alive),
            "files": files,
            "bytes": bytes,
        })
    });
    Ok(Json(json!({
        "enabled": is_enabled,
        "paused": is_paused,
        "disabled_datacenters": disabled,
        "pending": pending.collect::<Vec<Value>>(),
    })))
}

#[derive(Deserialize)]
struct Enable {
    enabled: bool,
}

async fn enable(State(admin): State<Admin>, Query(wanted): Query<Enable>) -> Answer {
    let done = admin.shards().on_all(move |node| {
        node.enable_hints(wanted.enabled);
        Box::pin(async {})
    });
    done.await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct Pause {
    paused: bool,
}

async fn pause(State(admin): State<Admin>, Query(wanted): Query<Pause>) -> Answer {
    let done = admin.shards().on_all(move |node| {
        node.pause_hints(wanted.paused);
        Box::pin(async {})
    });
    done.await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct Truncate {
    /// Of the node; all nodes without it.
    address: Option<String>,
}

async fn truncate(State(admin): State<Admin>, Query(wanted): Query<Truncate>) -> Answer {
    let topology = admin
        .shards()
        .on(0, |node| Box::pin(async move { node.topology() }))
        .await?;
    let host = match &wanted.address {
        None => None,
        Some(address) => {
            let is_meant = |peer: &&ceto_node::topology::Peer| {
                let own = peer.internode;
                own.ip().to_string() == *address || own.to_string() == *address
            };
            let peer = topology.peers.iter().find(is_meant);
            let unknown = || {
                let text = format!("no other node of the cluster has the address {address}");
                Failure(StatusCode::NOT_FOUND, text)
            };
            Some(peer.ok_or_else(unknown)?.host)
        }
    };
    let done = admin.shards().on_all(move |node| {
        let kept = node.pending_hints().into_iter().map(|pending| pending.host);
        let meant: Vec<HostId> = kept.filter(|own| host.is_none_or(|host| host == *own)).collect();
        meant.into_iter().for_each(|host| node.forget_hints(host));
        Box::pin(async {})
    });
    done.await?;
    Ok(Json(json!({})))
}
