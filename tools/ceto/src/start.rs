//! Starting a node: folders, identity, shards, control thread; and ending it.
//!
//! The calling thread becomes the control thread. SIGTERM and SIGINT drain: no new connections or requests, what is in
//! flight is answered, memtables are flushed, and the process ends with status 0.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceto_control::boot::{BootError, ControlOptions};
use ceto_control::governor::MemoryBounds;
use ceto_control::joined::ClusterSettings;
use ceto_control::settings::Reconfigure;
use ceto_node::message::{ShardDoor, ShardMessage, Task};
use ceto_node::options::{CommitlogSync, FunctionOptions, Limits, NodeOptions, StorageSettings};
use ceto_node::settings::Settings;
use ceto_node::{Node, NodeParts};
use ceto_runtime::{Origin, RuntimeOptions, ShardContext};

use crate::config::{Config, SyncMode};
use crate::identity::{self, Identity};
use crate::memory::MemorySplit;
use crate::{logging, runtime_metrics};

/// A node takes so many connections however few files it may open.
const MAX_SOCKETS_LEAST: usize = 16;

/// Why a node did not start, or did not end well. One line.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The command or the configuration is wrong: exit status 2.
    Usage(String),
    /// Anything else: exit status 1.
    Failed(String),
}

impl StartError {
    pub(crate) fn file(verb: &str, path: &Path, error: &std::io::Error) -> StartError {
        StartError::Failed(format!("cannot {verb} {}: {error}", path.display()))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

/// Which other nodes there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Neighbours {
    /// None: nothing listens for them.
    None,
    /// Those that the configuration leads to.
    Configured,
    /// Nodes of one machine that are to see each other at once.
    Close,
}

/// Between two rounds of gossip, as in Cassandra.
const GOSSIP_INTERVAL: Duration = Duration::from_secs(1);

/// The same between nodes of one machine.
const CLOSE_GOSSIP_INTERVAL: Duration = Duration::from_millis(200);

fn cluster_settings(config: &Config, neighbours: Neighbours) -> Result<ClusterSettings, StartError> {
    let own = SocketAddr::new(
        config.broadcast_address.unwrap_or(config.listen_address),
        config.storage_port,
    );
    let seeds = match neighbours {
        Neighbours::None => vec![own],
        _ => config
            .seeds
            .resolve(config.storage_port)
            .map_err(StartError::Failed)?,
    };
    Ok(ClusterSettings {
        seeds,
        phi_threshold: config.phi_convict_threshold,
        gossip_interval: match neighbours {
            Neighbours::Close => CLOSE_GOSSIP_INTERVAL,
            _ => GOSSIP_INTERVAL,
        },
        auto_bootstrap: config.auto_bootstrap,
        replaces: config.replace_address_first_boot,
        has_peers: neighbours != Neighbours::None,
        broadcast_rpc_address: config.broadcast_rpc_address.unwrap_or(config.rpc_address),
    })
}

/// Runs a node until it is told to stop. `log_level` holds unless `CETO_LOG` is set.
pub(crate) fn run(config: &Config, log_level: &str, neighbours: Neighbours) -> Result<(), StartError> {
    #[allow(clippy::disallowed_methods)] // the process starts here
    let started = Instant::now();
    ceto_runtime::set_up_allocator();
    let config = &Config {
        log_levels: logging::start(config.log_format, &config.log_levels, log_level),
        ..config.clone()
    };
    let max_sockets = max_sockets();
    let cluster = cluster_settings(config, neighbours)?;
    let data = &config.data_file_directories[0];
    std::fs::create_dir_all(data).map_err(|error| StartError::file("create", data, &error))?;
    let _lock = identity::lock(data)?;
    let identity = Identity::load_or_create(
        data,
        &config.cluster_name,
        config.num_tokens,
        config.initial_token.as_ref().map(|tokens| &*tokens.0),
    )?;
    let shards = match config.shards {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256) as u16),
        shards => shards,
    };
    let memory = MemorySplit::of(config, shards);
    tracing::info!(?memory, "memory");
    let mut options = node_options(config, &identity, &memory);
    // Some sockets more than connections: for those that are told why they are refused.
    let max_connections = max_sockets - max_sockets / 8;
    if options.settings.limits.max_connections > max_connections {
        tracing::warn!(
            "at most {max_connections} client connections: the limit of open files allows no more (raise `ulimit -n` or \
             LimitNOFILE)"
        );
        options.settings.limits.max_connections = max_connections;
    }
    let options = Arc::new(options);
    let runtime_options = RuntimeOptions {
        shards,
        pin: config.pin_shards,
        max_connections: max_sockets,
        watchdog: Some(config.stall_watchdog_timeout.duration()),
        ..RuntimeOptions::default()
    };
    let node_options = options.clone();
    let runtime = ceto_runtime::start(&runtime_options, move |context: ShardContext<ShardMessage>| {
        let options = node_options.clone();
        Box::pin(async move { serve_shard(context, options).await })
    })
    .map_err(|error| StartError::Failed(error.to_string()))?;
    let door = shard_door(&runtime.control());
    let bounds = MemoryBounds {
        limit: memory.limit,
        storage: memory.storage,
    };
    let control = control_options(config, bounds, cluster);
    let announce = move |native: SocketAddr, shard_aware: SocketAddr| {
        announce(&control_texts(native, shard_aware), started)
    };
    let max_connections = options.settings.limits.max_connections;
    let reconfigure = reconfigure(config, memory, max_connections, log_level);
    let outcome = ceto_control::boot::run(door, options, control, reconfigure, announce);
    let joined = runtime.join();
    match outcome {
        Err(BootError(text)) => Err(StartError::Failed(text)),
        Ok(()) => joined.map_err(|error| StartError::Failed(error.to_string())),
    }
}

/// How many clients' sockets the process may have open, so that descriptors are left for files.
fn max_sockets() -> usize {
    match ceto_runtime::raise_open_files_limit() {
        Ok(limit) => ceto_runtime::connections_within(limit).max(MAX_SOCKETS_LEAST),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            usize::MAX
        }
    }
}

fn control_texts(native: SocketAddr, shard_aware: SocketAddr) -> String {
    format!("ready: CQL {native}, shard-aware {shard_aware}")
}

/// The line that tells a script that clients can come.
fn announce(text: &str, started: Instant) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; that is no reason to end.
    let _ = writeln!(
        out,
        "{text} (pid {}, {} ms)",
        std::process::id(),
        started.elapsed().as_millis()
    );
    let _ = out.flush();
}

/// One shard's life, on its own thread.
async fn serve_shard(context: ShardContext<ShardMessage>, options: Arc<NodeOptions>) {
    let metrics = context.metrics.clone();
    let node = Node::new(NodeParts {
        env: context.env.clone(),
        network: context.network.clone(),
        mailbox: context.mailbox.clone(),
        options,
        runtime_samples: Box::new(move |samples| runtime_metrics::add(&metrics, samples)),
    });
    let receiver = node.clone();
    context.receive(std::rc::Rc::new(move |_: Origin, message| {
        receiver.receive(message)
    }));
    node.ended().await;
}

/// The way from the control thread to the shards.
fn shard_door(control: &ceto_runtime::ControlHandle<ShardMessage>) -> ShardDoor {
    let count = control.shard_count();
    let control = control.clone();
    let send = move |shard: u16, task: Task| {
        let mut message = ShardMessage::Run(task);
        // The door is bounded; the control thread may wait, a shard never does.
        while let Err(back) = control.send(shard, message) {
            if control.has_ended(shard) {
                // Who waits for the task learns it when the task is dropped.
                return;
            }
            message = back;
            std::thread::yield_now();
        }
    };
    ShardDoor {
        count,
        send: Arc::new(send),
    }
}

fn control_options(config: &Config, memory: MemoryBounds, cluster: ClusterSettings) -> ControlOptions {
    ControlOptions {
        admin: SocketAddr::new(config.api_address, config.api_port),
        metrics: SocketAddr::new(config.prometheus_address, config.prometheus_port),
        drain_timeout: Duration::from_secs(30),
        memory,
        cluster,
    }
}

fn node_options(config: &Config, identity: &Identity, memory: &MemorySplit) -> NodeOptions {
    let data = &config.data_file_directories[0];
    NodeOptions {
        cluster_name: config.cluster_name.clone(),
        datacenter: config.datacenter.clone(),
        rack: config.rack.clone(),
        host_id: identity.host_id,
        data_directory: data.clone(),
        commitlog_directory: config
            .commitlog_directory
            .clone()
            .unwrap_or_else(|| data.join("commitlog")),
        rpc_address: config.rpc_address,
        native_port: config.native_transport_port,
        shard_aware_port: config.native_shard_aware_transport_port,
        listen_address: config.listen_address,
        broadcast_address: config.broadcast_address.unwrap_or(config.listen_address),
        storage_port: config.storage_port,
        internode_compression: config.internode_compression.into(),
        hints: config.hints(),
        tokens: identity.tokens.clone(),
        settings: settings(config, memory),
        access: config.access_rules().unwrap_or_default(),
        functions: FunctionOptions {
            enabled: config.user_defined_functions_enabled,
            warn_timeout: config.user_defined_functions_warn_timeout.duration(),
            fail_timeout: config.user_defined_functions_fail_timeout.duration(),
        },
        storage: StorageSettings {
            commitlog_sync: match config.commitlog_sync {
                SyncMode::Periodic => CommitlogSync::Periodic(config.commitlog_sync_period.duration()),
                SyncMode::Batch => CommitlogSync::Batch,
                SyncMode::Group => CommitlogSync::Group(config.commitlog_sync_group_window.duration()),
            },
            commitlog_segment_size: config.commitlog_segment_size.bytes(),
            commitlog_total_space: config.commitlog_total_space.bytes(),
            max_mutation_size: config.max_mutation_size.map(crate::config::DataSize::bytes),
            // The configuration was checked.
            commitlog_compression: config
                .commitlog_compression
                .as_ref()
                .and_then(|compression| compression.compression().ok()),
            commit_failure_policy: config.commit_failure_policy.into(),
            replay_failure_policy: config.commitlog_replay_failure_policy.into(),
            auto_snapshot: config.auto_snapshot,
            auto_snapshot_ttl: config.auto_snapshot_ttl.map(crate::config::Period::duration),
            concurrent_compactors: config.concurrent_compactors,
            memory_space: memory.storage,
            memtable_space: memory.memtables,
            row_cache_space: memory.row_cache,
            file_cache_space: memory.file_cache,
            concurrent_reads: config.concurrent_reads as usize,
        },
    }
}

/// What can change later.
fn settings(config: &Config, memory: &MemorySplit) -> Settings {
    let size = |size: crate::config::DataSize| usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    let connections = config.native_transport_max_concurrent_connections;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let limits = Limits {
        max_frame_size: size(config.native_transport_max_frame_size),
        max_connections: usize::try_from(connections).unwrap_or(Limits::default().max_connections),
        max_requests_per_connection: config.native_transport_max_requests_per_connection as usize,
        max_requests_per_shard: config.native_transport_max_requests_per_shard as usize,
        max_output_per_connection: size(config.native_transport_max_output_per_connection),
        max_response_memory: bytes(memory.responses),
        max_request_memory: bytes(memory.requests),
        max_request_memory_per_address: bytes(memory.requests_per_address),
        max_prepared_statements: config.prepared_statements_cache_entries as usize,
        read_timeout: config.read_request_timeout.duration(),
        range_timeout: config.range_request_timeout.duration(),
        write_timeout: config.write_request_timeout.duration(),
        counter_write_timeout: config.counter_write_request_timeout.duration(),
        truncate_timeout: config.truncate_request_timeout.duration(),
        batch_size_warn: size(config.batch_size_warn_threshold),
        batch_size_fail: size(config.batch_size_fail_threshold),
        tombstone_warn: config.tombstone_warn_threshold,
        tombstone_fail: config.tombstone_failure_threshold,
        tombstones_per_page: config
            .query_tombstone_page_limit
            .map_or(config.tombstone_failure_threshold, |limit| {
                limit.min(config.tombstone_failure_threshold)
            }),
        unlogged_batch_partitions_warn: config.unlogged_batch_across_partitions_warn_threshold as usize,
        max_page_bytes: config.max_page_size.bytes(),
    };
    Settings {
        limits,
        guardrails: config.guardrails.clone(),
        expiration_overflow: config.expiration_date_overflow_policy.into(),
        merges_bind_variables: config.cql_duplicate_bind_variable_names_refer_to_same_variable,
        compaction_throughput: config.compaction_throughput.bytes_per_second(),
        stream_throughput: config.stream_throughput_outbound.bytes_per_second(),
        incremental_backups: config.incremental_backups,
        traced_below: (config.trace_probability * u64::MAX as f64) as u64,
        shown: config.shown(config),
    }
}

/// The way of changes of settings: of the configuration that the node has started with.
fn reconfigure(
    started: &Config,
    memory: MemorySplit,
    max_connections: usize,
    log_level: &str,
) -> Reconfigure {
    let (started, mut present) = (started.clone(), started.clone());
    let log_level = log_level.to_owned();
    Box::new(move |changes| {
        let config = present.with(changes).map_err(|error| error.to_string())?;
        let mut settings = settings(&config, &memory);
        settings.limits.max_connections = max_connections;
        settings.shown = config.shown(&started);
        if config.log_levels != present.log_levels {
            logging::set_levels(&config.log_levels, &log_level);
        }
        present = config;
        Ok(settings)
    })
}
