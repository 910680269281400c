//! The admin API's verbs for snapshots, incremental backups and loading sstables.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ceto_model::{Schema, TableId};
use ceto_node::{ImportOptions, SnapshotDetails, SnapshotRequest};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, Answer, Failure, keyspace_exists};

/// The shortest life of a snapshot that expires: Cassandra's default for its own bound.
const TTL_MIN: Duration = Duration::from_secs(60);

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/snapshots", get(list).post(take))
        .route("/v1/snapshots/clear", post(clear))
        .route("/v1/tables/refresh", post(refresh))
        .route("/v1/tables/import", post(import))
        .route("/v1/backup/status", get(backup_status))
        .route("/v1/backup/enable", post(enable_backup))
        .route("/v1/backup/disable", post(disable_backup))
}

fn bad_request(text: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, text.into())
}

fn failed(text: String) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Names separated by commas.
fn names(text: Option<&str>) -> Vec<String> {
    let parts = text.unwrap_or_default().split(',');
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// What to take a snapshot of: tables as `keyspace.table,...`, or keyspaces, or one keyspace's table, or everything.
#[derive(Deserialize)]
struct Take {
    tag: String,
    keyspaces: Option<String>,
    table: Option<String>,
    tables: Option<String>,
    #[serde(default)]
    skip_flush: bool,
    ttl_seconds: Option<u64>,
}

impl Take {
    fn resolve(&self, schema: &Schema) -> Result<Vec<TableId>, Failure> {
        let keyspaces = names(self.keyspaces.as_deref());
        let find = |keyspace: &str, table: &str| {
            let found = schema.table(keyspace, table).filter(|table| !table.is_virtual);
            let text = format!("Unknown keyspace/cf pair ({keyspace}.{table})");
            found
                .map(|table| table.id)
                .ok_or(Failure(StatusCode::NOT_FOUND, text))
        };
        if let Some(tables) = &self.tables {
            let pairs = names(Some(tables));
            let split = pairs.iter().map(|pair| match pair.split_once('.') {
                Some((keyspace, table)) => find(keyspace, table),
                None => Err(bad_request(format!("'{pair}' is not keyspace.table"))),
            });
            return split.collect();
        }
        for keyspace in &keyspaces {
            keyspace_exists(schema, keyspace)?;
        }
        if let Some(table) = &self.table {
            return match &keyspaces[..] {
                [keyspace] => Ok(vec![find(keyspace, table)?]),
                _ => Err(bad_request(
                    "When specifying the table for a snapshot, you must specify one and only one keyspace",
                )),
            };
        }
        let all = schema.tables().filter(|table| !table.is_virtual);
        let wanted = all
            .filter(|table| keyspaces.is_empty() || keyspaces.iter().any(|name| **name == *table.keyspace));
        Ok(wanted.map(|table| table.id).collect())
    }
}

async fn take(State(admin): State<Admin>, Query(query): Query<Take>) -> Answer {
    let ttl = query.ttl_seconds.map(Duration::from_secs);
    if ttl.is_some_and(|ttl| ttl < TTL_MIN) {
        let text = format!("ttl for snapshot must be at least {} seconds", TTL_MIN.as_secs());
        return Err(bad_request(text));
    }
    let schema: Arc<Schema> = admin.schema().await?;
    let request = SnapshotRequest {
        tables: query.resolve(&schema)?,
        tag: query.tag,
        flush: !query.skip_flush,
        ttl,
    };
    let taken = admin.shards.on(0, move |node| {
        Box::pin(async move { node.take_snapshot(request).await })
    });
    taken.await?.map_err(bad_request)?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    no_ttl: bool,
    #[serde(default)]
    ephemeral: bool,
}

async fn list(State(admin): State<Admin>, Query(query): Query<List>) -> Answer {
    let listed = admin
        .shards
        .on(0, |node| Box::pin(async move { node.snapshots().await }));
    let snapshots = listed.await?.map_err(failed)?;
    let is_wanted = |snapshot: &&SnapshotDetails| {
        !(query.no_ttl && snapshot.expires_at.is_some()) && (query.ephemeral || !snapshot.is_ephemeral)
    };
    let documents: Vec<Value> = snapshots.iter().filter(is_wanted).map(document).collect();
    let true_bytes: u64 = snapshots.iter().map(|snapshot| snapshot.true_bytes).sum();
    Ok(Json(
        json!({ "snapshots": documents, "total_true_size_bytes": true_bytes }),
    ))
}

fn document(snapshot: &SnapshotDetails) -> Value {
    json!({
        "name": snapshot.tag,
        "keyspace": snapshot.keyspace,
        "table": snapshot.table,
        "true_size_bytes": snapshot.true_bytes,
        "disk_size_bytes": snapshot.disk_bytes,
        "created_at": snapshot.created_at.map(ceto_node::instant_text),
        "expires_at": snapshot.expires_at.map(ceto_node::instant_text),
        "ephemeral": snapshot.is_ephemeral,
    })
}

#[derive(Deserialize)]
struct Clear {
    tag: Option<String>,
    keyspaces: Option<String>,
}

async fn clear(State(admin): State<Admin>, Query(query): Query<Clear>) -> Answer {
    let keyspaces = names(query.keyspaces.as_deref());
    let cleared = admin.shards.on(0, move |node| {
        Box::pin(async move { node.clear_snapshots(&keyspaces, query.tag.as_deref()).await })
    });
    let count = cleared.await?.map_err(failed)?;
    Ok(Json(json!({ "cleared": count })))
}

/// A table, and where to load sstables from.
#[derive(Deserialize)]
struct Load {
    keyspace: String,
    table: String,
    directory: Option<PathBuf>,
    #[serde(default)]
    no_verify: bool,
    #[serde(default)]
    copy_data: bool,
}

impl Load {
    async fn table(&self, admin: &Admin) -> Result<TableId, Failure> {
        let schema = admin.schema().await?;
        let found = schema
            .table(&self.keyspace, &self.table)
            .filter(|table| !table.is_virtual)
            .map(|table| table.id);
        let text = format!("Unknown keyspace/cf pair ({}.{})", self.keyspace, self.table);
        found.ok_or(Failure(StatusCode::NOT_FOUND, text))
    }
}

async fn refresh(State(admin): State<Admin>, Query(query): Query<Load>) -> Answer {
    let table = query.table(&admin).await?;
    let loaded = admin
        .shards
        .on(0, move |node| Box::pin(async move { node.refresh(table).await }));
    let count = loaded.await?.map_err(failed)?;
    Ok(Json(json!({ "sstables": count })))
}

async fn import(State(admin): State<Admin>, Query(query): Query<Load>) -> Answer {
    let table = query.table(&admin).await?;
    let directory = query
        .directory
        .filter(|directory| directory.is_absolute())
        .ok_or_else(|| bad_request("the directory must be an absolute path on the node's machine"))?;
    let options = ImportOptions {
        verify: !query.no_verify,
        copy: query.copy_data,
    };
    let loaded = admin.shards.on(0, move |node| {
        Box::pin(async move { node.import(table, directory, options).await })
    });
    let count = loaded.await?.map_err(failed)?;
    Ok(Json(json!({ "sstables": count })))
}

async fn backup_status(State(admin): State<Admin>) -> Answer {
    let asked = admin
        .shards
        .on_all(|node| Box::pin(async move { node.incremental_backups() }));
    let is_running = asked.await?.into_iter().all(|is_on| is_on);
    Ok(Json(json!({ "running": is_running })))
}

async fn enable_backup(State(admin): State<Admin>) -> Answer {
    set_backup(&admin, true).await
}

async fn disable_backup(State(admin): State<Admin>) -> Answer {
    set_backup(&admin, false).await
}

async fn set_backup(admin: &Admin, is_on: bool) -> Answer {
    let changes = [("incremental_backups".to_owned(), is_on.to_string())];
    admin.settings.change(&changes).await?;
    Ok(Json(json!({})))
}
