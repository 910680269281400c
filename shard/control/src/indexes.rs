//! The admin API's part about secondary indexes.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::admin::{Admin, Answer, Failure};

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new().route("/v1/indexes/rebuild", post(rebuild))
}

/// Indexes of a table, by name.
#[derive(Deserialize)]
struct Indexes {
    keyspace: String,
    table: String,
    /// Separated by commas.
    indexes: String,
}

async fn rebuild(State(admin): State<Admin>, Query(query): Query<Indexes>) -> Answer {
    let schema = admin.schema().await?;
    let Some(table) = schema.table(&query.keyspace, &query.table) else {
        let text = format!("Unknown keyspace/cf pair ({}.{})", query.keyspace, query.table);
        return Err(Failure(StatusCode::NOT_FOUND, text));
    };
    // nodetool takes `table.index` too.
    let own = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let names: Vec<String> = query.indexes.split(',').map(own).collect();
    for name in &names {
        let is_known = |index: &std::sync::Arc<ceto_model::Index>| *index.definition.name == **name;
        if !table.indexes().iter().any(is_known) {
            let text = format!("Table {}.{} has no index {name}", query.keyspace, query.table);
            return Err(Failure(StatusCode::NOT_FOUND, text));
        }
    }
    let id = table.id;
    let rebuilt = admin.shards().on_all(move |node| {
        let names = names.clone();
        Box::pin(async move { node.rebuild_indexes(id, &names).await })
    });
    match rebuilt.await?.into_iter().find_map(Result::err) {
        None => Ok(Json(json!({}))),
        Some(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}
