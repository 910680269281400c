//! One shard's part of a node: what it holds, and what arrives for it.
//!
//! A [`Node`] lives on its shard's thread and is reached by connections, the mailbox and tasks of that shard only. It
//! is opened with the system tables' schema, learns the whole schema from the control thread, listens, and ends when
//! told.
//!
//! Its parts: `calls` between shards, `schema` for the schema's way in, `drain` for its end.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceto_cluster::ReplicaMap;
use ceto_cluster::coordinator::{Coordinator, Limits as CoordinatorLimits};
use ceto_cql::access::AccessControl;
use ceto_env::{Env, Mailbox, Network, Placement, TaskQueue};
use ceto_internode::{FailureReason, HostId};
use ceto_model::read::ReadResult;
use ceto_model::{Mutation, Schema, TableId, Timestamp};
use ceto_storage::{Database, StorageOptions};
use rustc_hash::FxHashMap;
use slab::Slab;
use tracing::error;

use crate::batchlog::Batchlog;
use crate::connection::{Connection, ConnectionState};
use crate::control::{ControlDoor, ControlRequest, SchemaOutcome};
use crate::figures::{ReplayFigures, RowCacheFigures, TableFigures};
use crate::functions::Functions;
use crate::hints::HintStore;
use crate::locks::{PartitionGuard, PartitionLocks};
use crate::message::{ReplicaFailure, ShardMessage};
use crate::metrics::{Sample, Samples};
use crate::options::{CommitlogSync, NodeOptions};
use crate::paxos::PaxosPump;
use crate::peers::Peers;
use crate::prepared::PreparedCache;
use crate::pump::Pump;
use crate::replica::TableTimes;
use crate::request_memory::RequestMemory;
use crate::response_memory::ResponseMemory;
use crate::settings::Settings;
use crate::shard_metrics::ShardMetrics;
use crate::slots::Slots;
use crate::spare_body::SpareBody;
use crate::speculation::ReadLatencies;
use crate::stream::Streams;
use crate::system::definitions::system_schema;
use crate::topology::Topology;
use crate::views::Views;

mod calls;
mod drain;
mod schema;

pub(crate) use schema::replica_maps;

/// Time between log lines about tombstones, on each shard.
const TOMBSTONE_LOG_PERIOD: Duration = Duration::from_secs(1);

/// What a node is made of.
pub struct NodeParts {
    /// Clock, files, tasks.
    pub env: Rc<dyn Env>,
    /// Sockets.
    pub network: Rc<dyn Network>,
    /// The other shards.
    pub mailbox: Rc<dyn Mailbox<ShardMessage>>,
    /// Settings.
    pub options: Arc<NodeOptions>,
    /// Adds the event loop's samples.
    pub runtime_samples: Box<dyn Fn(&mut Samples)>,
}

/// One shard of a node.
pub struct Node {
    pub(crate) env: Rc<dyn Env>,
    pub(crate) network: Rc<dyn Network>,
    pub(crate) mailbox: Rc<dyn Mailbox<ShardMessage>>,
    pub(crate) options: Arc<NodeOptions>,
    /// See [`Node::settings`].
    pub(crate) settings: RefCell<Rc<Settings>>,
    runtime_samples: Box<dyn Fn(&mut Samples)>,
    pub(crate) metrics: ShardMetrics,
    pub(crate) functions: Functions,
    /// Open once [`Node::open_storage`] has been called.
    database: OnceCell<Rc<Database>>,
    storage: StorageOptions,
    schema: RefCell<Arc<Schema>>,
    pub(crate) replication: RefCell<FxHashMap<Arc<str>, Arc<ReplicaMap>>>,
    pub(crate) topology: RefCell<Arc<Topology>>,
    pub(crate) peers: Peers,
    pub(crate) hints: HintStore,
    pub(crate) batchlog: Batchlog,
    pub(crate) pump: Pump,
    pub(crate) paxos: PaxosPump,
    pub(crate) streams: Streams,
    pub(crate) prepared: PreparedCache,
    pub(crate) connections: RefCell<Slab<Weak<ConnectionState>>>,
    pub(crate) requests_in_flight: Cell<usize>,
    pub(crate) spare_body: SpareBody,
    pub(crate) response_memory: ResponseMemory,
    pub(crate) request_memory: RequestMemory,
    /// The task of [`crate::stalls`] runs.
    pub(crate) watches_stalls: Cell<bool>,
    /// Reads of other shards that this one waits for.
    pub(crate) reads: Slots<Result<Box<ReadResult>, ReplicaFailure>>,
    answers: Slots<Box<dyn Any + Send>>,
    pub(crate) locks: PartitionLocks,
    pub(crate) views: Views,
    /// Locks held for other shards.
    pub(crate) held_locks: RefCell<Slab<PartitionGuard>>,
    /// Comparisons of passwords that this shard waits for.
    pub(crate) logins: Slots<Option<bool>>,
    /// Roles and what is granted to them.
    pub(crate) access: RefCell<Arc<AccessControl>>,
    /// Changes of the schema, or of roles, that this shard waits for.
    pub(crate) outcomes: Slots<SchemaOutcome>,
    control: RefCell<Option<ControlDoor>>,
    pub(crate) started: i64,
    last_timestamp: Cell<i64>,
    /// On shard 0: when the next snapshot expires, in milliseconds since the epoch.
    pub(crate) next_snapshot_expiry: Cell<Option<i64>>,
    pub(crate) table_times: RefCell<FxHashMap<TableId, TableTimes>>,
    pub(crate) read_latencies: RefCell<FxHashMap<TableId, ReadLatencies>>,
    /// When a log line about tombstones was written last.
    tombstones_logged: Cell<Option<Instant>>,
    /// Bytes that storage does without.
    withheld_memory: Cell<usize>,
    /// The task that removes expired snapshots runs.
    expires_snapshots: Cell<bool>,
    is_draining: Cell<bool>,
    is_storage_draining: Cell<bool>,
    /// How the drain ended.
    drained: RefCell<Option<Result<(), String>>>,
    end: Slots<()>,
    end_slot: Cell<Option<u32>>,
    ended: RefCell<Option<crate::slots::Answer<()>>>,
}

impl Node {
    /// A node that knows the system tables' schema and has no storage yet.
    pub fn new(parts: NodeParts) -> Rc<Node> {
        let schema = Arc::new(system_schema());
        let storage = storage_options(&parts);
        let local = HostId(parts.options.host_id);
        let topology = Topology::alone(&parts.options);
        let coordinator = Coordinator::new(local, CoordinatorLimits::default(), parts.env.random())
            .of_shard(parts.mailbox.shard());
        let paxos = PaxosPump::new(
            local,
            parts.mailbox.shard(),
            parts.env.random(),
            parts.env.clock().now(),
            Timestamp(parts.env.clock().unix_micros()),
        );
        let end = Slots::default();
        let (end_slot, ended) = end.open();
        let shards = usize::from(parts.mailbox.shard_count());
        let limits = &parts.options.settings.limits;
        let response_memory = ResponseMemory::new(limits.max_response_memory / shards);
        let request_memory = RequestMemory::new(
            limits.max_request_memory / shards,
            limits.max_request_memory_per_address / shards,
        );
        let env = parts.env.clone();
        let functions = Functions::new(parts.options.functions, Rc::new(move || env.clock().read()));
        Rc::new(Node {
            functions,
            started: parts.env.clock().unix_seconds(),
            prepared: PreparedCache::new(limits.max_prepared_statements),
            env: parts.env,
            network: parts.network,
            mailbox: parts.mailbox,
            settings: RefCell::new(Rc::new(parts.options.settings.clone())),
            options: parts.options,
            runtime_samples: parts.runtime_samples,
            metrics: ShardMetrics::default(),
            database: OnceCell::new(),
            storage,
            replication: RefCell::new(replica_maps(&schema, &topology, local)),
            schema: RefCell::new(schema),
            topology: RefCell::new(Arc::new(topology)),
            peers: Peers::default(),
            hints: HintStore::default(),
            batchlog: Batchlog::default(),
            pump: Pump::new(coordinator),
            paxos,
            streams: Streams::default(),
            connections: RefCell::default(),
            requests_in_flight: Cell::new(0),
            spare_body: SpareBody::default(),
            response_memory,
            request_memory,
            watches_stalls: Cell::new(false),
            reads: Slots::default(),
            answers: Slots::default(),
            locks: PartitionLocks::default(),
            views: Views::default(),
            held_locks: RefCell::default(),
            logins: Slots::default(),
            access: RefCell::default(),
            outcomes: Slots::default(),
            control: RefCell::default(),
            last_timestamp: Cell::new(0),
            next_snapshot_expiry: Cell::new(None),
            table_times: RefCell::default(),
            read_latencies: RefCell::default(),
            tombstones_logged: Cell::new(None),
            withheld_memory: Cell::new(0),
            expires_snapshots: Cell::new(false),
            is_draining: Cell::new(false),
            is_storage_draining: Cell::new(false),
            drained: RefCell::default(),
            end,
            end_slot: Cell::new(Some(end_slot)),
            ended: RefCell::new(Some(ended)),
        })
    }

    /// This shard.
    pub fn shard(&self) -> u16 {
        self.mailbox.shard()
    }

    /// Shards of this node.
    pub fn shard_count(&self) -> u16 {
        self.mailbox.shard_count()
    }

    /// The present schema.
    pub fn schema(&self) -> Arc<Schema> {
        self.schema.borrow().clone()
    }

    /// The replicas of a keyspace's tokens.
    pub(crate) fn replication(&self, keyspace: &str) -> Option<Arc<ReplicaMap>> {
        self.replication.borrow().get(keyspace).cloned()
    }

    pub(crate) fn database(&self) -> Result<&Rc<Database>, ReplicaFailure> {
        let closed = || ReplicaFailure::new(FailureReason::StorageRefused, "storage is not open yet");
        self.database.get().ok_or_else(closed)
    }

    /// Microseconds since the epoch, larger at each call on this shard, so that two writes never tie by accident.
    pub(crate) fn next_timestamp(&self) -> i64 {
        let now = self.env.clock().unix_micros().max(self.last_timestamp.get() + 1);
        self.last_timestamp.set(now);
        now
    }

    /// From now on timestamps are above `last`.
    pub(crate) fn note_timestamp(&self, last: Timestamp) {
        self.last_timestamp.set(self.last_timestamp.get().max(last.0));
    }

    /// The table has materialized views.
    pub(crate) fn has_views(&self, table: TableId) -> bool {
        self.schema.borrow().views_of(table).is_some()
    }

    // ---- the control thread's calls -----------------------------------------------------------------------------

    /// Makes the files of all shards fit the present number of shards. Called on one shard, before any opens.
    pub async fn reshard(&self) -> Result<(), String> {
        ceto_storage::reshard(self.env.clone(), &self.storage)
            .await
            .map_err(|error| error.to_string())
    }

    /// Opens this shard's storage with the system tables' schema.
    pub async fn open_storage(self: &Rc<Self>) -> Result<(), String> {
        let opened = Database::open(self.env.clone(), self.storage.clone(), self.schema()).await;
        let database = opened.map_err(|error| error.to_string())?;
        self.watch(&database);
        self.note_compactions(&database);
        self.database
            .set(database)
            .map_err(|_| "storage is open already".to_owned())
    }

    /// Tells the control thread of a failure of this shard's storage that concerns the whole node.
    fn watch(self: &Rc<Self>, database: &Database) {
        let (node, failed) = (Rc::downgrade(self), database.failed());
        let task = async move {
            let failure = failed.await;
            if let Some(node) = node.upgrade()
                && node.ask_control(ControlRequest::StorageFailed(failure)).is_err()
            {
                error!("storage has failed and the control thread could not be told");
            }
        };
        self.env.tasks().spawn(TaskQueue::Control, Box::pin(task));
    }

    /// How far the replay of this shard's commitlog is.
    pub fn replay_progress(&self) -> ReplayFigures {
        let progress = &self.storage.replay_progress;
        let ((segments_done, segments), (bytes_done, bytes)) = (progress.segments(), progress.bytes());
        ReplayFigures {
            is_running: progress.is_running(),
            segments_done,
            segments,
            bytes_done,
            bytes,
            entries: progress.entries(),
        }
    }

    /// Bytes of the largest mutation.
    pub(crate) fn mutation_max(&self) -> usize {
        self.storage.mutation_max()
    }

    /// Applies mutations that this shard owns, all or none of them, and syncs them.
    pub async fn apply_durably(self: &Rc<Self>, mutations: Vec<Mutation>) -> Result<(), ReplicaFailure> {
        let synced = self.database()?.write_together(mutations).await;
        synced.map_err(|error| ReplicaFailure::new(FailureReason::StorageRefused, error.to_string()))
    }

    /// Sets the way to the control thread.
    pub fn set_control(&self, door: ControlDoor) {
        *self.control.borrow_mut() = Some(door);
    }

    /// Asks the control thread; gives the request back when it cannot be taken.
    pub(crate) fn ask_control(&self, request: ControlRequest) -> Result<(), ControlRequest> {
        match &*self.control.borrow() {
            Some(door) => door(request),
            None => Err(request),
        }
    }

    /// Accepts clients on both CQL ports; answers the bound addresses.
    pub fn listen(self: &Rc<Self>) -> Result<(SocketAddr, SocketAddr), String> {
        let address = |port| SocketAddr::new(self.options.rpc_address, port);
        let native = address(self.options.native_port);
        let shard_aware = address(self.options.shard_aware_port);
        let listen = |address: SocketAddr, placement, key: &str| {
            let node = self.clone();
            let acceptor: ceto_env::Acceptor =
                Rc::new(move |socket| Connection::accept(node.clone(), socket));
            self.network
                .listen(address, placement, acceptor)
                .map_err(|error| {
                    let key = match error.kind() {
                        ErrorKind::AddrNotAvailable => "rpc_address",
                        _ => key,
                    };
                    format!("cannot listen on {address}: {error}; change {key}")
                })
        };
        let native = listen(native, Placement::LeastConnected, "native_transport_port")?;
        let shard_aware = listen(
            shard_aware,
            Placement::SourcePort,
            "native_shard_aware_transport_port",
        )?;
        if self.shard() == 0 && !self.expires_snapshots.replace(true) {
            self.start_expiring_snapshots();
        }
        Ok((native, shard_aware))
    }

    /// This shard's samples.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Samples::default();
        (self.runtime_samples)(&mut samples);
        self.metrics.add_to(&mut samples);
        self.views.add_to(&mut samples);
        self.functions.add_to(&mut samples);
        self.response_memory.add_to(&mut samples);
        self.request_memory.add_to(&mut samples);
        self.peers.add_to(&mut samples);
        self.hints.add_to(&mut samples);
        self.batchlog.add_to(&mut samples);
        self.paxos.add_to(&mut samples);
        self.streams.add_to(&mut samples);
        let open = self.connections.borrow().len() as f64;
        samples.gauge("ceto_connections", "Open client connections.", &[], open);
        let in_flight = self.requests_in_flight.get() as f64;
        samples.gauge(
            "ceto_requests_in_flight",
            "Requests of clients that are not answered yet.",
            &[],
            in_flight,
        );
        let coordinated = self.pump.in_flight() as f64;
        samples.gauge(
            "ceto_coordinator_in_flight",
            "Requests at the coordinator.",
            &[],
            coordinated,
        );
        let prepared = self.prepared.len() as f64;
        samples.gauge("ceto_prepared_statements", "Prepared statements.", &[], prepared);
        crate::figures::add_replay(&self.replay_progress(), &mut samples);
        if let Some(database) = self.database.get() {
            crate::figures::add_storage_samples(database, &self.schema(), &mut samples);
        }
        samples.0
    }

    /// Figures of this shard's tables.
    pub fn table_figures(&self) -> Vec<TableFigures> {
        match self.database.get() {
            Some(database) => {
                crate::figures::table_figures(database, &self.schema(), &self.table_times.borrow())
            }
            None => Vec::new(),
        }
    }

    /// Figures of the node's tables.
    pub(crate) async fn table_figures_of_all_shards(self: &Rc<Self>) -> Vec<TableFigures> {
        let per_shard = self
            .on_all_shards(|node| Box::pin(async move { node.table_figures() }))
            .await;
        let mut tables: Vec<TableFigures> = Vec::new();
        for figures in per_shard.into_iter().flatten() {
            match tables.iter_mut().find(|own| own.id == figures.id) {
                Some(own) => own.add(&figures),
                None => tables.push(figures),
            }
        }
        tables
    }

    /// Figures of this shard's row cache.
    pub fn row_cache_figures(&self) -> RowCacheFigures {
        self.database
            .get()
            .map_or_else(RowCacheFigures::default, |database| RowCacheFigures::of(database))
    }

    /// Lookups of this shard's block cache that found something, and that did not.
    pub(crate) fn block_cache_lookups(&self) -> (u64, u64) {
        self.database.get().map_or((0, 0), |database| {
            let stats = database.stats();
            (stats.block_cache_hits, stats.block_cache_misses)
        })
    }

    /// Why this shard takes no writes, when it does not.
    pub fn write_refusal(&self) -> Option<String> {
        let refused = self.database.get()?.check_writes().err();
        refused.map(|error| error.to_string())
    }

    /// Writes a table's memtable out.
    pub async fn flush(self: &Rc<Self>, table: TableId) -> Result<(), String> {
        let database = self.database().map_err(|failure| failure.message)?;
        database
            .flush(Some(table))
            .await
            .map_err(|error| error.to_string())
    }

    /// Storage does without so many bytes of its budget; when these are more than before, what is free goes back to the
    /// kernel.
    pub fn withhold_memory(&self, bytes: usize) {
        if let Some(database) = self.database.get() {
            let before = self.withheld_memory.replace(bytes);
            database.withhold(bytes);
            if bytes > before {
                self.env.give_back_memory();
            }
        }
    }

    /// At most one log line about tombstones in [`TOMBSTONE_LOG_PERIOD`]; every one is counted.
    pub(crate) fn may_log_tombstones(&self) -> bool {
        let now = self.env.clock().now();
        let is_due = |at: Instant| now.saturating_duration_since(at) >= TOMBSTONE_LOG_PERIOD;
        let may = self.tombstones_logged.get().is_none_or(is_due);
        if may {
            self.tombstones_logged.set(Some(now));
        }
        may
    }

    /// Ends [`Node::ended`].
    pub fn end(&self) {
        if let Some(slot) = self.end_slot.take() {
            self.end.answer(slot, ());
        }
    }

    /// Completes when the node is told to end.
    pub async fn ended(&self) {
        let ended = self.ended.borrow_mut().take();
        if let Some(ended) = ended {
            ended.await;
        }
    }

    /// This shard's connections, for `system_views.clients`.
    pub(crate) fn client_rows(&self) -> Vec<crate::system::virtual_rows::ClientRow> {
        let connections = self.connections.borrow();
        connections
            .iter()
            .filter_map(|(_, c)| c.upgrade())
            .map(|c| c.client_row())
            .collect()
    }

    /// What SUPPORTED says.
    pub(crate) fn supported_options(&self) -> Vec<(String, Vec<String>)> {
        let versions = ceto_native::ProtocolVersion::ALL
            .iter()
            .map(|v| v.supported_name().to_owned())
            .collect();
        let one = |value: String| vec![value];
        [
            ("CQL_VERSION", one(crate::options::CQL_VERSION.to_owned())),
            ("COMPRESSION", vec!["lz4".to_owned(), "snappy".to_owned()]),
            ("PROTOCOL_VERSIONS", versions),
            ("SCYLLA_SHARD", one(self.shard().to_string())),
            ("SCYLLA_NR_SHARDS", one(self.shard_count().to_string())),
            (
                "SCYLLA_SHARDING_ALGORITHM",
                one("biased-token-round-robin".to_owned()),
            ),
            (
                "SCYLLA_SHARDING_IGNORE_MSB",
                one(ceto_model::token::SHARDING_IGNORE_MSB.to_string()),
            ),
            (
                "SCYLLA_PARTITIONER",
                one(ceto_model::token::PARTITIONER.to_owned()),
            ),
            (
                "SCYLLA_SHARD_AWARE_PORT",
                one(self.options.shard_aware_port.to_string()),
            ),
        ]
        .map(|(key, values)| (key.to_owned(), values))
        .into_iter()
        .collect()
    }
}

/// Reads from disk hold at most one part in this many of storage's memory.
const READS_PART: usize = 8;
/// Writes that wait for room hold at most one part in this many of the memtables' memory.
const WAITING_WRITES_PART: usize = 8;

fn storage_options(parts: &NodeParts) -> StorageOptions {
    let settings = &parts.options.storage;
    let (shard, count) = (parts.mailbox.shard(), parts.mailbox.shard_count());
    let per_shard = u64::from(count);
    let mut options = StorageOptions::new(&parts.options.data_directory, shard, count);
    options.commitlog_dir = parts.options.commitlog_directory.clone();
    options.commitlog_segment_size = u32::try_from(settings.commitlog_segment_size).unwrap_or(u32::MAX);
    options.commitlog_total_space = settings.commitlog_total_space / per_shard;
    options.max_mutation_size = settings
        .max_mutation_size
        .map(|max| u32::try_from(max).unwrap_or(u32::MAX));
    if let Some(compression) = settings.commitlog_compression {
        options.commitlog_compression = compression;
    }
    options.commit_failure_policy = settings.commit_failure_policy;
    options.replay_failure_policy = settings.replay_failure_policy;
    options.incremental_backups = parts.options.settings.incremental_backups;
    options.partition_limits = parts.options.settings.guardrails.partition_limits();
    options.compaction_throughput = match parts.options.settings.compaction_throughput {
        0 => 0,
        // A shard that may write nothing would never be done.
        all => (all / per_shard).max(1),
    };
    options.concurrent_compactions = settings.concurrent_compactors.max(1) as usize;
    let share = |bytes: u64| usize::try_from(bytes / per_shard).unwrap_or(usize::MAX);
    options.memory_space = share(settings.memory_space);
    options.memtable_space = share(settings.memtable_space);
    options.row_cache_size = share(settings.row_cache_space).min(options.memory_space);
    options.block_cache_size = share(settings.file_cache_space);
    options.read_space = options.memory_space / READS_PART;
    options.waiting_writes_space = options.memtable_space / WAITING_WRITES_PART;
    options.concurrent_reads = settings.concurrent_reads;
    options.write_wait_max = parts.options.settings.limits.write_timeout;
    options.read_wait_max = parts.options.settings.limits.read_timeout;
    options.commitlog_sync = match settings.commitlog_sync {
        CommitlogSync::Periodic(period) => ceto_storage::CommitlogSync::Periodic { period },
        CommitlogSync::Batch => ceto_storage::CommitlogSync::Batch,
        CommitlogSync::Group(window) => ceto_storage::CommitlogSync::Group { window },
    };
    options
}
