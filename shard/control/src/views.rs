//! The admin API's part about materialized views.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use ceto_node::views::BuildStatus;
use serde::Deserialize;
use serde_json::json;

use crate::admin::{Admin, Answer, Failure};

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new().route("/v1/views/build", get(build))
}

/// A view.
#[derive(Deserialize)]
struct View {
    keyspace: String,
    view: String,
}

async fn build(State(admin): State<Admin>, Query(query): Query<View>) -> Answer {
    let schema = admin.schema().await?;
    let found = schema.table(&query.keyspace, &query.view);
    let Some(id) = found.filter(|table| table.is_view()).map(|table| table.id) else {
        let text = format!("Unknown materialized view {}.{}", query.keyspace, query.view);
        return Err(Failure(StatusCode::NOT_FOUND, text));
    };
    let status = admin
        .shards()
        .on(0, move |node| {
            Box::pin(async move { node.view_build_status(id).await })
        })
        .await?;
    let status = status.map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let (name, rows) = match status {
        BuildStatus::Built => ("SUCCESS", None),
        BuildStatus::Building(rows) => ("STARTED", Some(rows)),
        BuildStatus::Unknown => ("UNKNOWN", None),
    };
    Ok(Json(
        json!({ "host": admin.address(), "status": name, "rows": rows }),
    ))
}
