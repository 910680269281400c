//! The control thread's life: recover the schema, install it, serve, and end.
//!
//! Boot:
//! 1. make the files fit the number of shards, then open storage on each with the system tables' schema;
//! 2. collect what each shard has stored in `system_schema`, and build the schema of it;
//! 3. install it on every shard, which then replays the rest of its commitlog;
//! 4. write the rows that describe the system keyspaces themselves, if they are missing or old;
//! 5. collect what is stored in `system_auth`;
//! 6. found, join or come back to the cluster, and install what it knows;
//! 7. make the first superuser where one is needed;
//! 8. listen.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use ceto_model::Schema;
use ceto_node::control::{ControlRequest, StorageFailure};
use ceto_node::message::ShardDoor;
use ceto_node::options::NodeOptions;
use ceto_node::system::definitions::system_schema;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::admin::Admin;
use crate::governor::{self, MemoryBounds};
use crate::joined::{self, ClusterSettings};
use crate::metrics;
use crate::passwords::Passwords;
use crate::schema::{Requests, SchemaService, SystemTables, stored_access, stored_schema};
use crate::settings::{Reconfigure, SettingsService};
use crate::shards::Shards;

/// Requests of shards and messages of other nodes that may wait; a shard that wants to add one more answers Overloaded.
const REQUESTS_MAX: usize = 4096;

/// Storage failures that may wait; one is enough.
const FAILURES_MAX: usize = 16;

/// Addresses and times of the control thread.
#[derive(Clone)]
pub struct ControlOptions {
    /// Admin API.
    pub admin: SocketAddr,
    /// Prometheus metrics.
    pub metrics: SocketAddr,
    /// How long requests in flight may take at the end.
    pub drain_timeout: Duration,
    /// What the governor keeps the process to.
    pub memory: MemoryBounds,
    /// The cluster.
    pub cluster: ClusterSettings,
}

/// Why the node did not start, or ended; one line.
#[derive(Debug)]
pub struct BootError(pub String);

impl<E: std::error::Error> From<E> for BootError {
    fn from(error: E) -> Self {
        BootError(error.to_string())
    }
}

/// Boots and serves until SIGTERM or SIGINT. `announce` is told the CQL addresses once clients are accepted.
pub fn run(
    door: ShardDoor,
    options: Arc<NodeOptions>,
    control: ControlOptions,
    reconfigure: Reconfigure,
    announce: impl FnOnce(SocketAddr, SocketAddr),
) -> Result<(), BootError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shards = Shards::new(door);
    let outcome = runtime.block_on(serve(shards.clone(), options, control, reconfigure, announce));
    // Whatever happened, the shards end.
    let ended = runtime.block_on(shards.on_all(|node| Box::pin(async move { node.end() })));
    outcome.and(ended.map(|_| ()).map_err(BootError::from))
}

async fn serve(
    shards: Shards,
    options: Arc<NodeOptions>,
    control: ControlOptions,
    reconfigure: Reconfigure,
    announce: impl FnOnce(SocketAddr, SocketAddr),
) -> Result<(), BootError> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let is_serving = Arc::new(AtomicBool::new(false));
    let memory = governor::start(control.memory, shards.clone());
    let settings = SettingsService::new(reconfigure, shards.clone());
    let admin = Admin::new(
        shards.clone(),
        options.clone(),
        is_serving.clone(),
        memory.clone(),
        settings.clone(),
    );
    let shown_cluster = admin.cluster.clone();
    let pulls = admin.pulls.clone();
    start_http(control.admin, "api_port", admin.router()).await?;
    start_http(
        control.metrics,
        "prometheus_port",
        metrics::router(shards.clone(), memory),
    )
    .await?;
    let schema = boot(&shards).await?;
    put_views_right(&shards).await?;
    let access = stored_access(&shards, &schema).await.map_err(BootError)?;
    let tables = SystemTables::new(schema, Arc::new(access), shards.clone());
    let tables = Arc::new(tables);
    tables.install_recovered().await.map_err(BootError)?;
    let (door, requests) = mpsc::channel(REQUESTS_MAX);
    let (report, mut failures) = mpsc::channel(FAILURES_MAX);
    install_control_door(&shards, door).await?;
    let (cluster, inbox) = joined::start(&options, &control.cluster, &shards, &tables, &pulls).await?;
    let passwords = Passwords::new();
    let service = SchemaService::new(
        tables.clone(),
        cluster.clone(),
        options.clone(),
        passwords.clone(),
        shards.clone(),
    );
    let taken = Requests {
        requests,
        failures: report,
        settings,
        inbox,
        passwords,
    };
    tokio::spawn(taken.run(service.clone()));
    // Nodes that are no members yet show what they wait for, too.
    let _ = shown_cluster.set(cluster.clone());
    let entered = tokio::select! {
        entered = joined::enter(&cluster, &control.cluster, &shards, &tables, &service) => entered.map(|()| true),
        reason = cluster.refused() => Err(BootError(format!("the cluster refuses this node: {reason}"))),
        _ = terminate.recv() => Ok(false),
        _ = interrupt.recv() => Ok(false),
    };
    if !entered? {
        cluster.shut_down().await;
        return drain(&shards, control.drain_timeout).await;
    }
    let (native, shard_aware) = listen(&shards, &options).await?;
    is_serving.store(true, Ordering::Release);
    joined::say_ready(&cluster, true).await;
    joined::serving(&cluster);
    announce(native, shard_aware);
    info!(%native, %shard_aware, shards = shards.count(), "serving clients");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            reason = cluster.refused() => {
                error!(%reason, "the cluster refuses this node; it ends");
                is_serving.store(false, Ordering::Release);
                drain(&shards, control.drain_timeout).await?;
                return Err(BootError(format!("the cluster refuses this node: {reason}")));
            }
            Some(failure) = failures.recv() => {
                is_serving.store(false, Ordering::Release);
                joined::say_ready(&cluster, false).await;
                obey(failure, &shards).await?;
            }
        }
    }
    info!("draining");
    is_serving.store(false, Ordering::Release);
    cluster.shut_down().await;
    drain(&shards, control.drain_timeout).await
}

/// Does what `commit_failure_policy` wants done.
async fn obey(failure: StorageFailure, shards: &Shards) -> Result<(), BootError> {
    match failure {
        StorageFailure::StopServing(text) => {
            error!(failure = %text, "clients are served no more (commit_failure_policy: stop); restart the node");
            let stopped = shards.on_all(|node| Box::pin(async move { node.stop_serving().await }));
            stopped.await?;
            Ok(())
        }
        StorageFailure::Die(text) => Err(BootError(format!(
            "the commitlog has failed (commit_failure_policy: die): {text}"
        ))),
    }
}

/// Finishes the updates of materialized views that a crash interrupted, and goes on with their builds.
async fn put_views_right(shards: &Shards) -> Result<(), BootError> {
    let replayed = shards
        .on_all(|node| Box::pin(async move { node.replay_view_updates().await }))
        .await?;
    for replayed in replayed {
        replayed.map_err(BootError)?;
    }
    let started = shards
        .on_all(|node| Box::pin(async move { node.start_view_builds().await }))
        .await?;
    for started in started {
        started.map_err(BootError)?;
    }
    Ok(())
}

/// Recovers the schema, installs it everywhere and finishes recovery.
pub async fn boot(shards: &Shards) -> Result<Arc<Schema>, BootError> {
    let system = system_schema();
    shards
        .on(0, |node| Box::pin(async move { node.reshard().await }))
        .await?
        .map_err(BootError)?;
    for opened in shards
        .on_all(|node| Box::pin(async move { node.open_storage().await }))
        .await?
    {
        opened.map_err(BootError)?;
    }
    let stored = stored_schema(shards).await.map_err(BootError)?;
    let schema = Arc::new(stored.build(&system)?);
    let installed = schema.clone();
    let recovered = shards.on_all(move |node| {
        let schema = installed.clone();
        Box::pin(async move { node.finish_recovery(schema).await })
    });
    for outcome in recovered.await? {
        outcome.map_err(BootError)?;
    }
    let tables = SystemTables::new(schema.clone(), Arc::default(), shards.clone());
    tables
        .describe_system_keyspaces(&stored, &system)
        .await
        .map_err(BootError)?;
    Ok(schema)
}

async fn install_control_door(shards: &Shards, door: mpsc::Sender<ControlRequest>) -> Result<(), BootError> {
    shards
        .on_all(move |node| {
            let door = door.clone();
            Box::pin(async move {
                node.set_control(Box::new(move |request| {
                    door.try_send(request).map_err(|e| e.into_inner())
                }))
            })
        })
        .await?;
    Ok(())
}

async fn listen(shards: &Shards, options: &NodeOptions) -> Result<(SocketAddr, SocketAddr), BootError> {
    let native = SocketAddr::new(options.rpc_address, options.native_port);
    let shard_aware = SocketAddr::new(options.rpc_address, options.shard_aware_port);
    let mut bound = (native, shard_aware);
    for outcome in shards
        .on_all(|node| Box::pin(async move { node.listen() }))
        .await?
    {
        bound = outcome.map_err(BootError)?;
    }
    Ok(bound)
}

async fn start_http(address: SocketAddr, key: &str, router: Router) -> Result<(), BootError> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let key = match error.kind() {
            ErrorKind::AddrNotAvailable => key.replace("port", "address"),
            _ => key.to_owned(),
        };
        BootError(format!("cannot listen on {address}: {error}; change {key}"))
    })?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            error!(%error, %address, "the HTTP server ended");
        }
    });
    Ok(())
}

/// Stops accepting, lets what is in flight finish, closes connections, flushes.
async fn drain(shards: &Shards, timeout: Duration) -> Result<(), BootError> {
    match tokio::time::timeout(timeout, shards.drain()).await {
        Ok(outcome) => outcome?.map_err(BootError),
        Err(_) => Err(BootError(format!(
            "drain took longer than {} s; unflushed writes stay in the commitlog",
            timeout.as_secs()
        ))),
    }
}
