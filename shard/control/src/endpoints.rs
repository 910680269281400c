//! The admin API's answer to where a partition lies.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::admin::{Admin, Answer, Failure};

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new().route("/v1/cluster/endpoints", get(endpoints))
}

#[derive(Deserialize)]
struct Wanted {
    keyspace: String,
    table: String,
    key: String,
}

async fn endpoints(State(admin): State<Admin>, Query(wanted): Query<Wanted>) -> Answer {
    let asked = admin.shards().on(0, move |node| {
        Box::pin(async move { node.endpoints(&wanted.keyspace, &wanted.table, &wanted.key) })
    });
    let endpoints = asked
        .await?
        .map_err(|text| Failure(StatusCode::BAD_REQUEST, text))?;
    Ok(Json(json!({ "endpoints": endpoints })))
}
