//! The admin API of compaction: what `ceto nodetool` asks for about it. The documents are described in
//! `tools/nodetool/src/api.rs`.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ceto_model::{TableId, Token};
use ceto_node::{CompactionFigures, MajorCompaction};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, Answer, Failure, Scope, on_each};

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/node/compact", post(compact))
        .route("/v1/node/cleanup", post(cleanup))
        .route("/v1/node/scrub", post(scrub))
        .route("/v1/node/upgradesstables", post(upgrade))
        .route("/v1/node/garbagecollect", post(garbage_collect))
        .route("/v1/compaction/files", post(compact_files))
        .route("/v1/compaction/stats", get(statistics))
        .route("/v1/compaction/history", get(history))
        .route("/v1/compaction/stop", post(stop))
        .route("/v1/compaction/throughput", get(throughput).post(set_throughput))
        .route("/v1/compaction/automatic", get(automatic).post(set_automatic))
}

#[derive(Deserialize)]
struct CompactOptions {
    #[serde(default)]
    split_output: bool,
    start_token: Option<i64>,
    end_token: Option<i64>,
}

async fn compact(
    State(admin): State<Admin>,
    Query(scope): Query<Scope>,
    Query(options): Query<CompactOptions>,
) -> Answer {
    let tables = scope.resolve(&admin).await?;
    let tokens = match (options.start_token, options.end_token) {
        (None, None) => None,
        (start, end) => Some((start.map_or(Token::MIN, Token), end.map_or(Token::MAX, Token))),
    };
    let what = MajorCompaction {
        splits_output: options.split_output,
        tokens,
    };
    on_each(&admin, tables, move |node, table| {
        Box::pin(async move { node.compact(table, what).await })
    })
    .await
}

async fn cleanup(State(admin): State<Admin>, Query(scope): Query<Scope>) -> Answer {
    let tables = scope.resolve(&admin).await?;
    on_each(&admin, tables, |node, table| {
        Box::pin(async move { node.cleanup(table).await })
    })
    .await
}

async fn scrub(State(admin): State<Admin>, Query(scope): Query<Scope>) -> Answer {
    let tables = scope.resolve(&admin).await?;
    on_each(&admin, tables, |node, table| {
        Box::pin(async move { node.scrub(table).await })
    })
    .await
}

#[derive(Deserialize)]
struct UpgradeOptions {
    #[serde(default)]
    all: bool,
}

async fn upgrade(
    State(admin): State<Admin>,
    Query(scope): Query<Scope>,
    Query(options): Query<UpgradeOptions>,
) -> Answer {
    let tables = scope.resolve(&admin).await?;
    on_each(&admin, tables, move |node, table| {
        Box::pin(async move { node.upgrade(table, options.all).await })
    })
    .await
}

#[derive(Deserialize)]
struct GarbageOptions {
    granularity: Option<String>,
}

async fn garbage_collect(
    State(admin): State<Admin>,
    Query(scope): Query<Scope>,
    Query(options): Query<GarbageOptions>,
) -> Answer {
    let tables = scope.resolve(&admin).await?;
    let cells = match options.granularity.as_deref().unwrap_or("ROW") {
        word if word.eq_ignore_ascii_case("ROW") => false,
        word if word.eq_ignore_ascii_case("CELL") => true,
        word => {
            let text = format!("{word} is not a granularity; it is ROW or CELL");
            return Err(Failure(StatusCode::BAD_REQUEST, text));
        }
    };
    on_each(&admin, tables, move |node, table| {
        Box::pin(async move { node.garbage_collect(table, cells).await })
    })
    .await
}

#[derive(Deserialize)]
struct Files {
    /// Separated by commas.
    files: String,
}

async fn compact_files(State(admin): State<Admin>, Query(files): Query<Files>) -> Answer {
    let files: Vec<String> = files
        .files
        .split(',')
        .map(|file| file.trim().to_owned())
        .filter(|file| !file.is_empty())
        .collect();
    let asked = files.clone();
    let unknown = admin.shards().on_all(move |node| {
        let unknown = asked.iter().filter(|file| !node.has_data_file(file));
        let unknown: Vec<String> = unknown.cloned().collect();
        Box::pin(async move { unknown })
    });
    let unknown = unknown.await?;
    if let Some(file) = files
        .iter()
        .find(|file| unknown.iter().all(|files| files.contains(file)))
    {
        let text = format!("{file} is no Data file of this node's sstables");
        return Err(Failure(StatusCode::NOT_FOUND, text));
    }
    let results = admin.shards().on_all(move |node| {
        let files = files.clone();
        Box::pin(async move { node.compact_files(&files).await })
    });
    done(results.await?)
}

fn done(results: Vec<Result<(), String>>) -> Answer {
    match results.into_iter().find_map(Result::err) {
        None => Ok(Json(json!({}))),
        Some(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

async fn figures(admin: &Admin) -> Result<Vec<CompactionFigures>, Failure> {
    let figures = admin
        .shards()
        .on_all(|node| Box::pin(async move { node.compaction_figures() }));
    Ok(figures.await?.into_iter().flatten().collect())
}

async fn statistics(State(admin): State<Admin>) -> Answer {
    let figures = figures(&admin).await?;
    let sum = |figure: &dyn Fn(&CompactionFigures) -> u64| figures.iter().map(figure).sum::<u64>();
    let running = figures.iter().enumerate().flat_map(|(shard, figures)| {
        let document = move |(keyspace, table, running): &(String, String, ceto_node::CompactionStats)| {
            json!({
                "id": running.id.to_string(),
                "compaction_type": running.kind,
                "keyspace": keyspace,
                "table": table,
                "shard": shard,
                "completed_bytes": running.read_bytes,
                "total_bytes": running.total_bytes,
                "written_bytes": running.written_bytes,
                "elapsed_ms": running.elapsed.as_millis() as u64,
            })
        };
        figures.running.iter().map(document).collect::<Vec<Value>>()
    });
    let pending = figures.iter().flat_map(|figures| &figures.pending);
    let mut by_table: std::collections::BTreeMap<(&str, &str), u64> = std::collections::BTreeMap::new();
    for (keyspace, table, count) in pending {
        *by_table.entry((keyspace, table)).or_default() += count;
    }
    let pending: Vec<Value> = by_table
        .iter()
        .map(|((keyspace, table), tasks)| json!({ "keyspace": keyspace, "table": table, "tasks": tasks }))
        .collect();
    Ok(Json(json!({
        "concurrent_compactors": sum(&|figures| figures.storage.concurrent_compactions),
        "completed": sum(&|figures| figures.storage.completed_compactions),
        "compacted_bytes": sum(&|figures| figures.compacted_bytes),
        "uptime_seconds": admin.uptime().as_secs(),
        "aborted": sum(&|figures| figures.storage.aborted_compactions),
        "reduced": sum(&|figures| figures.storage.reduced_compactions),
        "throughput_bytes_per_second": sum(&|figures| figures.storage.compaction_throughput),
        "backlog_bytes": sum(&|figures| figures.storage.compaction_backlog_bytes),
        "pending": pending,
        "running": running.collect::<Vec<Value>>(),
    })))
}

async fn history(State(admin): State<Admin>) -> Answer {
    let results = admin
        .shards()
        .on_all(|node| Box::pin(async move { node.compaction_history().await }))
        .await?;
    let mut rows = Vec::new();
    for result in results {
        rows.extend(result.map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error))?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.compacted_at_ms));
    let document = |row: &ceto_node::HistoryRow| {
        json!({
            "id": row.id.to_string(),
            "keyspace": row.keyspace,
            "table": row.table,
            "compacted_at_ms": row.compacted_at_ms,
            "bytes_in": row.bytes_in,
            "bytes_out": row.bytes_out,
            "rows_merged": row.partitions_merged,
            "properties": row.properties,
        })
    };
    Ok(Json(
        json!({ "compactions": rows.iter().map(document).collect::<Vec<Value>>() }),
    ))
}

#[derive(Deserialize)]
struct StopOptions {
    id: Option<String>,
    r#type: Option<String>,
}

async fn stop(State(admin): State<Admin>, Query(options): Query<StopOptions>) -> Answer {
    let stopped = admin.shards().on_all(move |node| {
        let (id, kind) = (options.id.clone(), options.r#type.clone());
        Box::pin(async move { node.stop_compactions(id.as_deref(), kind.as_deref()) })
    });
    let stopped: usize = stopped.await?.into_iter().sum();
    Ok(Json(json!({ "stopped": stopped })))
}

async fn throughput(State(admin): State<Admin>) -> Answer {
    let figures = figures(&admin).await?;
    let all: u64 = figures
        .iter()
        .map(|figures| figures.storage.compaction_throughput)
        .sum();
    Ok(Json(json!({ "bytes_per_second": all })))
}

#[derive(Deserialize)]
struct Throughput {
    bytes_per_second: u64,
}

async fn set_throughput(State(admin): State<Admin>, Query(wanted): Query<Throughput>) -> Answer {
    let rate = format!("{}B/s", wanted.bytes_per_second);
    let changes = [("compaction_throughput".to_owned(), rate)];
    admin.settings.change(&changes).await?;
    Ok(Json(json!({})))
}

async fn automatic(State(admin): State<Admin>, Query(scope): Query<Scope>) -> Answer {
    let tables = scope.resolve(&admin).await?;
    let asked = tables.clone();
    let answers = admin.shards().on(0, move |node| {
        Box::pin(async move {
            let state = |table: &TableId| node.has_automatic_compaction(*table).unwrap_or(false);
            asked.iter().map(state).collect::<Vec<bool>>()
        })
    });
    let states = answers.await?;
    let schema = admin.schema().await?;
    let named = tables.iter().zip(states).filter_map(|(id, is_on)| {
        let table = schema.table_by_id(*id)?;
        Some(json!({ "keyspace": &*table.keyspace, "table": &*table.name, "running": is_on }))
    });
    Ok(Json(json!({ "tables": named.collect::<Vec<Value>>() })))
}

#[derive(Deserialize)]
struct Automatic {
    enabled: bool,
}

async fn set_automatic(
    State(admin): State<Admin>,
    Query(scope): Query<Scope>,
    Query(wanted): Query<Automatic>,
) -> Answer {
    let tables = scope.resolve(&admin).await?;
    on_each(&admin, tables, move |node, table| {
        Box::pin(async move { node.set_automatic_compaction(table, wanted.enabled) })
    })
    .await
}
