//! The admin API on port 10000: health checks and what `ceto nodetool` asks for, as JSON.
//!
//! `/health` answers 200 while the process and its shards turn; `/ready` only while clients are served, writes of every
//! shard included. The documents are described in `tools/nodetool/src/api.rs`, which reads them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ceto_model::{Schema, TableId};
use ceto_node::options::{NodeOptions, RELEASE_VERSION};
use ceto_node::{Node, ReplayFigures, RowCacheFigures, TableFigures};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::cluster::Cluster;
use crate::governor::GovernorFigures;
use crate::process;
use crate::pulls::Pulls;
use crate::settings::SettingsService;
use crate::shards::{ShardGone, Shards};

/// A shard that does not answer for this long fails `/health`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What the routes share.
#[derive(Clone)]
pub struct Admin {
    pub(crate) shards: Shards,
    options: Arc<NodeOptions>,
    started: SystemTime,
    is_serving: Arc<AtomicBool>,
    memory: Arc<GovernorFigures>,
    pub(crate) settings: SettingsService,
    serving_changes: Arc<tokio::sync::Mutex<()>>,
    /// The cluster, once its part here runs.
    pub(crate) cluster: Arc<OnceLock<Arc<Cluster>>>,
    /// What this node copies from others.
    pub(crate) pulls: Pulls,
}

impl Admin {
    /// Answers for this node; `is_serving` tells whether clients are accepted.
    pub fn new(
        shards: Shards,
        options: Arc<NodeOptions>,
        is_serving: Arc<AtomicBool>,
        memory: Arc<GovernorFigures>,
        settings: SettingsService,
    ) -> Admin {
        #[allow(clippy::disallowed_methods)] // the control thread is outside of the simulator
        let started = SystemTime::now();
        let pulls = Pulls::new(shards.clone(), options.host_id, is_serving.clone());
        Admin {
            pulls,
            shards,
            options,
            started,
            is_serving,
            memory,
            settings,
            serving_changes: Arc::default(),
            cluster: Arc::default(),
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/v1/node/info", get(info))
            .route("/v1/node/version", get(version))
            .route("/v1/tables/stats", get(table_statistics))
            .route("/v1/node/flush", post(flush))
            .route("/v1/node/drain", post(drain))
            .route("/v1/node/binary", get(binary_status).post(set_binary))
            .merge(crate::backup::routes())
            .merge(crate::compaction::routes())
            .merge(crate::endpoints::routes())
            .merge(crate::hints::routes())
            .merge(crate::indexes::routes())
            .merge(crate::moves::routes())
            .merge(crate::ring::routes())
            .merge(crate::settings::routes())
            .merge(crate::views::routes())
            .with_state(self)
    }

    pub(crate) async fn tables(&self) -> Result<Vec<TableFigures>, ShardGone> {
        let per_shard = self
            .shards
            .on_all(|node| Box::pin(async move { node.table_figures() }))
            .await?;
        let mut tables: BTreeMap<(String, String), TableFigures> = BTreeMap::new();
        for figures in per_shard.into_iter().flatten() {
            match tables.entry((figures.keyspace.clone(), figures.table.clone())) {
                std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().add(&figures),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(figures);
                }
            }
        }
        Ok(tables.into_values().collect())
    }

    /// Time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }

    /// The shards that take no writes, and why.
    async fn write_refusals(&self) -> Result<Vec<(usize, String)>, ShardGone> {
        let per_shard = self
            .shards
            .on_all(|node| Box::pin(async move { node.write_refusal() }))
            .await?;
        let refusals = per_shard.into_iter().enumerate();
        Ok(refusals
            .filter_map(|(shard, refusal)| Some((shard, refusal?)))
            .collect())
    }

    /// Name of the cluster.
    pub(crate) fn cluster_name(&self) -> &str {
        &self.options.cluster_name
    }

    /// The node's address, as nodetool shows it.
    pub(crate) fn address(&self) -> String {
        self.options.rpc_address.to_string()
    }

    /// The shards behind it.
    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    pub(crate) async fn schema(&self) -> Result<Arc<Schema>, ShardGone> {
        self.shards
            .on(0, |node| Box::pin(async move { node.schema() }))
            .await
    }
}

/// A failed call: status and one line for the operator.
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<ShardGone> for Failure {
    fn from(gone: ShardGone) -> Self {
        Failure(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())
    }
}

pub(crate) type Answer = Result<Json<Value>, Failure>;

async fn health(State(admin): State<Admin>) -> Response {
    let turned = admin.shards.on_all(|_| Box::pin(async {}));
    match tokio::time::timeout(HEALTH_TIMEOUT, turned).await {
        Ok(Ok(_)) => Json(json!({ "status": "healthy" })).into_response(),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "a shard does not answer" })),
        )
            .into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let document = if admin.is_serving.load(Ordering::Acquire) {
        match tokio::time::timeout(HEALTH_TIMEOUT, admin.write_refusals()).await {
            Ok(Ok(refusals)) if refusals.is_empty() => {
                return Json(json!({ "status": "ready" })).into_response();
            }
            Ok(Ok(refusals)) => {
                json!({ "status": "writes are refused", "shards": refusal_documents(&refusals) })
            }
            _ => json!({ "status": "a shard does not answer" }),
        }
    } else {
        why_not_serving(&admin).await
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(document)).into_response()
}

fn refusal_documents(refusals: &[(usize, String)]) -> Vec<Value> {
    let document = |(shard, reason): &(usize, String)| json!({ "shard": shard, "reason": reason });
    refusals.iter().map(document).collect()
}

async fn why_not_serving(admin: &Admin) -> Value {
    let asked = admin
        .shards
        .on_all(|node| Box::pin(async move { node.replay_progress() }));
    if let Ok(Ok(shards)) = tokio::time::timeout(HEALTH_TIMEOUT, asked).await
        && shards.iter().any(|shard| shard.is_running)
    {
        let sum = |figure: fn(&ReplayFigures) -> u64| shards.iter().map(figure).sum::<u64>();
        return json!({
            "status": "replaying the commitlog",
            "segments_done": sum(|shard| shard.segments_done),
            "segments": sum(|shard| shard.segments),
            "bytes_done": sum(|shard| shard.bytes_done),
            "bytes": sum(|shard| shard.bytes),
            "entries": sum(|shard| shard.entries),
        });
    }
    match tokio::time::timeout(HEALTH_TIMEOUT, admin.write_refusals()).await {
        // `commit_failure_policy: stop` ends the serving of clients, and this is why.
        Ok(Ok(refusals)) if !refusals.is_empty() => {
            json!({ "status": "not serving clients", "shards": refusal_documents(&refusals) })
        }
        _ => json!({ "status": "not serving clients" }),
    }
}

async fn version() -> Json<Value> {
    Json(json!({ "release_version": RELEASE_VERSION, "ceto_version": env!("CARGO_PKG_VERSION") }))
}

async fn info(State(admin): State<Admin>) -> Answer {
    let tables = admin.tables().await?;
    let figures = process::figures();
    let generation = admin
        .started
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let memtables: u64 = tables.iter().map(|table| table.memtable_bytes).sum();
    let per_shard = admin
        .shards
        .on_all(|node| Box::pin(async move { node.row_cache_figures() }))
        .await?;
    let mut row_cache = RowCacheFigures::default();
    per_shard.iter().for_each(|shard| row_cache.add(shard));
    let faults = admin
        .shards
        .on_all(|node| Box::pin(async move { node.faults() }))
        .await?;
    let options = &admin.options;
    let (is_leaving, has_failed_to_leave) = crate::moves::decommissioning(&admin);
    let tokens = admin
        .cluster
        .get()
        .map_or_else(|| options.tokens.clone(), |cluster| cluster.tokens());
    Ok(Json(json!({
        "host_id": options.host_id.to_string(),
        "gossip_active": admin.cluster.get().is_some(),
        "native_transport_active": admin.is_serving.load(Ordering::Acquire),
        "load_bytes": tables.iter().map(|table| table.disk_bytes).sum::<u64>(),
        "uncompressed_load_bytes": tables.iter().map(|table| table.uncompressed_bytes).sum::<u64>(),
        "generation": generation,
        "uptime_seconds": admin.uptime().as_secs(),
        "memory_used_bytes": figures.resident_bytes,
        "memory_limit_bytes": admin.memory.limit(),
        "off_heap_bytes": memtables,
        "datacenter": options.datacenter,
        "rack": options.rack,
        "exceptions": faults.iter().sum::<u64>(),
        "row_cache": {
            "entries": row_cache.rows,
            "size_bytes": row_cache.bytes,
            "capacity_bytes": row_cache.bytes_max,
            "hits": row_cache.hits,
            "requests": row_cache.hits + row_cache.misses,
        },
        "tokens": tokens.iter().map(i64::to_string).collect::<Vec<_>>(),
        "bootstrap_state": crate::moves::bootstrap_state(&admin),
        "decommissioning": is_leaving,
        "decommission_failed": has_failed_to_leave,
        "shards": admin.shards.count(),
        "write_refusals": refusal_documents(&admin.write_refusals().await?),
    })))
}

/// Which tables a verb is about.
#[derive(Deserialize)]
pub(crate) struct Scope {
    keyspace: Option<String>,
    table: Option<String>,
}

pub(crate) fn keyspace_exists(schema: &Schema, keyspace: &str) -> Result<(), Failure> {
    match schema.keyspace(keyspace) {
        Some(_) => Ok(()),
        None => Err(Failure(
            StatusCode::NOT_FOUND,
            format!("Keyspace [{keyspace}] does not exist."),
        )),
    }
}

impl Scope {
    /// The tables on disk that are meant.
    pub(crate) async fn resolve(&self, admin: &Admin) -> Result<Vec<TableId>, Failure> {
        let schema = admin.schema().await?;
        if let Some(keyspace) = &self.keyspace {
            keyspace_exists(&schema, keyspace)?;
            if let Some(table) = &self.table
                && schema.table(keyspace, table).is_none()
            {
                let text = format!("Unknown keyspace/cf pair ({keyspace}.{table})");
                return Err(Failure(StatusCode::NOT_FOUND, text));
            }
        } else if self.table.is_some() {
            return Err(Failure(
                StatusCode::BAD_REQUEST,
                "a table needs its keyspace".to_owned(),
            ));
        }
        let wanted = |table: &&Arc<ceto_model::Table>| {
            self.keyspace
                .as_ref()
                .is_none_or(|keyspace| *keyspace == *table.keyspace)
                && self.table.as_ref().is_none_or(|name| *name == *table.name)
                && !table.is_virtual
        };
        Ok(schema.tables().filter(wanted).map(|table| table.id).collect())
    }
}

async fn flush(State(admin): State<Admin>, Query(scope): Query<Scope>) -> Answer {
    let tables = scope.resolve(&admin).await?;
    on_each(&admin, tables, |node, table| {
        Box::pin(async move { node.flush(table).await })
    })
    .await
}

/// Does something with each of the tables, on all shards at once; the first failure is the answer.
pub(crate) async fn on_each<V>(admin: &Admin, tables: Vec<TableId>, verb: V) -> Answer
where
    V: Fn(Rc<Node>, TableId) -> ceto_node::LocalFuture<'static, Result<(), String>> + Copy + Send + 'static,
{
    let results = admin.shards.on_all(move |node| {
        let tables = tables.clone();
        Box::pin(async move {
            for table in tables {
                verb(node.clone(), table).await?;
            }
            Ok::<(), String>(())
        })
    });
    let failed = results.await?.into_iter().find_map(Result::err);
    match failed {
        None => Ok(Json(json!({}))),
        Some(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

async fn binary_status(State(admin): State<Admin>) -> Answer {
    Ok(Json(
        json!({ "running": admin.is_serving.load(Ordering::Acquire) }),
    ))
}

#[derive(Deserialize)]
struct Binary {
    enabled: bool,
}

/// Stops or resumes the serving of clients; nothing happens when it is as wanted.
async fn set_binary(State(admin): State<Admin>, Query(wanted): Query<Binary>) -> Answer {
    let _one_at_a_time = admin.serving_changes.lock().await;
    match (admin.is_serving.load(Ordering::Acquire), wanted.enabled) {
        (true, false) => {
            admin.is_serving.store(false, Ordering::Release);
            let stopped = admin
                .shards
                .on_all(|node| Box::pin(async move { node.stop_serving().await }));
            stopped.await?;
        }
        (false, true) => {
            if admin.cluster.get().is_some_and(|cluster| cluster.has_left()) {
                let text = "the node was decommissioned and has nothing to serve";
                return Err(Failure(StatusCode::BAD_REQUEST, text.to_owned()));
            }
            if !admin.write_refusals().await?.is_empty() {
                let text = "a shard takes no writes (nodetool info tells why); restart the node";
                return Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, text.to_owned()));
            }
            let resumed = admin
                .shards
                .on_all(|node| Box::pin(async move { node.resume_serving().map(|_| ()) }));
            let failed = resumed.await?.into_iter().find_map(Result::err);
            if let Some(error) = failed {
                let stopped = admin
                    .shards
                    .on_all(|node| Box::pin(async move { node.stop_serving().await }));
                stopped.await?;
                return Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error));
            }
            admin.is_serving.store(true, Ordering::Release);
        }
        _ => {}
    }
    Ok(Json(json!({})))
}

async fn drain(State(admin): State<Admin>) -> Answer {
    admin.is_serving.store(false, Ordering::Release);
    match admin.shards.drain().await? {
        Ok(()) => Ok(Json(json!({}))),
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

async fn table_statistics(State(admin): State<Admin>, Query(scope): Query<Scope>) -> Answer {
    let wanted = scope.resolve(&admin).await?;
    let tables = admin.tables().await?;
    let total = tables.len();
    let mut keyspaces: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for table in tables.iter().filter(|table| wanted.contains(&table.id)) {
        keyspaces
            .entry(&table.keyspace)
            .or_default()
            .push(table_document(table));
    }
    let keyspaces: Vec<Value> = keyspaces
        .into_iter()
        .map(|(name, tables)| json!({ "name": name, "tables": tables }))
        .collect();
    Ok(Json(json!({ "total_tables": total, "keyspaces": keyspaces })))
}

fn table_document(table: &TableFigures) -> Value {
    let ratio = if table.uncompressed_bytes == 0 {
        -1.0
    } else {
        table.disk_bytes as f64 / table.uncompressed_bytes as f64
    };
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let positives = table.filter_false_positives + table.filter_true_positives;
    json!({
        "name": table.table,
        "sstable_count": table.sstables,
        "max_sstable_size_bytes": table.largest_sstable_bytes,
        "space_used_live_bytes": table.disk_bytes,
        "space_used_total_bytes": table.disk_bytes,
        "sstable_compression_ratio": ratio,
        "partitions_estimate": table.partitions_estimate,
        "memtable_cell_count": table.memtable_cells,
        "memtable_data_bytes": table.memtable_bytes,
        "memtable_memory_bytes": table.memtable_bytes,
        "memtable_switch_count": table.flushes,
        "local_read_count": table.reads,
        "local_read_latency_total_us": table.read_nanos / 1000,
        "local_write_count": table.writes,
        "local_write_latency_total_us": table.write_nanos / 1000,
        "pending_flushes": table.pending_flushes,
        "bytes_unrepaired": table.disk_bytes,
        "bloom_filter_false_positives": table.filter_false_positives,
        "bloom_filter_false_ratio": share(table.filter_false_positives, positives),
        "bloom_filter_space_bytes": table.filter_bytes,
        "bloom_filter_memory_bytes": table.filter_bytes,
        "index_memory_bytes": table.index_bytes,
        "partition_minimum_bytes": table.smallest_partition_bytes,
        "partition_maximum_bytes": table.largest_partition_bytes,
        "partition_mean_bytes": table.uncompressed_bytes / table.sstable_partitions.max(1),
        "droppable_tombstone_ratio": share(table.droppable_tombstones, table.cells_and_rows),
    })
}

#[cfg(test)]
mod tests;
