//! The admin API's documents, as nodetool reads them.
//!
//! The server answers on its admin port (10000) with JSON. Every answer is one object. A failure is a status of 400
//! or above with [`Failure`]. The server may send more keys than these and may leave out any key that is marked
//! `default`: nodetool reads what it knows. Sizes are bytes, counts are since the node started, a sum over all shards.
//!
//! ```text
//! GET  /v1/node/info                                NodeInfo
//! GET  /v1/node/status[?keyspace=K]                 ClusterStatus
//! GET  /v1/cluster                                  ClusterDescription
//! GET  /v1/cluster/gossip                           GossipState
//! GET  /v1/cluster/phi                              Suspicions
//! GET  /v1/cluster/ring[?keyspace=K]                RingList
//! GET  /v1/cluster/ranges?keyspace=K                RangeList
//! POST /v1/cluster/assassinate?address=A            Done, once the node is no member any more
//! GET  /v1/cluster/moves                            Moves
//! POST /v1/cluster/decommission[?force=true]        Done, once the node has left; with &dry_run=true DryRun
//! POST /v1/cluster/decommission/abort[?host=H]      Done
//! POST /v1/cluster/remove?host=H                    Done, once the node is removed; with &dry_run=true DryRun
//! POST /v1/cluster/remove/force                     Done
//! POST /v1/cluster/rebuild[?datacenter=D&keyspace=K] Done, once it is here; with &dry_run=true DryRun
//! GET  /v1/node/version                             Version
//! GET  /v1/tables/stats[?keyspace=K[&table=T]]      TableStatistics
//! POST /v1/node/flush[?keyspace=K[&table=T]]        Done, once the sstables are on disk
//! POST /v1/node/compact[?keyspace=K[&table=T]][&split_output=true][&start_token=N][&end_token=N]
//!                                                   Done, once the tables are compacted
//! POST /v1/node/cleanup[?keyspace=K[&table=T]]      Done; likewise scrub, upgradesstables[&all=true],
//!                                                   garbagecollect[&granularity=ROW|CELL]
//! POST /v1/compaction/files?files=A,B               Done, once these Data files are compacted
//! GET  /v1/compaction/stats                         CompactionStatistics
//! GET  /v1/compaction/history                       CompactionHistory
//! POST /v1/compaction/stop[?id=ID|type=TYPE]        Stopped
//! GET  /v1/compaction/throughput                    Throughput
//! POST /v1/compaction/throughput?bytes_per_second=N Done; 0 for no limit
//! GET  /v1/compaction/automatic[?keyspace=K[&table=T]]                  AutomaticCompactions
//! POST /v1/compaction/automatic?enabled=true|false[&keyspace=K[&table=T]]  Done
//! GET  /v1/cluster/endpoints?keyspace=K&table=T&key=KEY  Endpoints
//! GET  /v1/hints                                    Hints
//! POST /v1/hints/enable?enabled=true|false          Done, until the next start
//! POST /v1/hints/pause?paused=true|false            Done, until the next start
//! POST /v1/hints/truncate[?address=A]               Done
//! GET  /v1/settings                                 SettingList
//! POST /v1/settings?KEY=VALUE[&KEY=VALUE]           Done, once all of them hold on all shards, until the next start
//! GET  /v1/guardrails                               GuardrailList
//! GET  /v1/views/build?keyspace=K&view=V             ViewBuild
//! GET  /v1/node/binary                              Serving
//! POST /v1/node/binary?enabled=true|false           Done, once clients are served or not
//! POST /v1/node/drain                               Done, once everything is flushed and no client is served
//! ```
//!
//! An unknown keyspace or table is status 404 with the text nodetool shows, for example
//! `Keyspace [k] does not exist.`. Names in the query string are percent-encoded.
//!
//! ```text
//! NodeInfo         { "host_id": "5f3c...", "gossip_active": true, "native_transport_active": true,
//!                    "load_bytes": 106947, "uncompressed_load_bytes": 204800, "generation": 1784962426,
//!                    "uptime_seconds": 17, "memory_used_bytes": 41943040, "memory_limit_bytes": 1073741824,
//!                    "off_heap_bytes": 0, "datacenter": "datacenter1", "rack": "rack1", "exceptions": 0,
//!                    "key_cache": CACHE, "row_cache": CACHE, "counter_cache": CACHE, "percent_repaired": 100.0,
//!                    "tokens": ["-9187343239835811840", ...], "bootstrap_state": "COMPLETED", "shards": 2 }
//! CACHE            { "entries": 0, "size_bytes": 0, "capacity_bytes": 0, "hits": 0, "requests": 0,
//!                    "save_period_seconds": 0 }
//! ClusterStatus    { "nodes": [ { "datacenter": "datacenter1", "rack": "rack1", "address": "127.0.0.1",
//!                    "host_id": "5f3c...", "up": true, "state": "normal", "load_bytes": 106947, "tokens": 16,
//!                    "owns": 1.0 } ], "owns_effective": true, "note": null }
//! Version          { "release_version": "5.0.0", "ceto_version": "0.1.0" }
//! TableStatistics  { "total_tables": 46, "keyspaces": [ { "name": "k", "tables": [ TABLE, ... ] } ] }
//! TABLE            the fields of struct Table
//! Done             { }
//! Failure          { "error": "Keyspace [k] does not exist." }
//! ```

mod cluster;
mod moves;

pub use cluster::*;
pub use moves::*;

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/cluster/endpoints`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Endpoints {
    /// Addresses of a partition's replicas, the primary one first.
    pub endpoints: Vec<String>,
}

/// Answer of `GET /v1/hints`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Hints {
    /// Hints are kept.
    pub enabled: bool,
    /// None are delivered.
    #[serde(default)]
    pub paused: bool,
    /// Data centers whose nodes get none.
    #[serde(default)]
    pub disabled_datacenters: Vec<String>,
    /// Those that wait.
    pub pending: Vec<PendingHints>,
}

/// Hints that wait for one node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PendingHints {
    /// The node.
    pub host_id: String,
    /// Where other nodes reach it; this and the next ones are absent when it is not known any more.
    pub address: Option<String>,
    /// Rack.
    pub rack: Option<String>,
    /// Data center.
    pub datacenter: Option<String>,
    /// It is held to be up.
    pub is_alive: Option<bool>,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Answer of `GET /v1/settings`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SettingList {
    /// All keys of the configuration.
    pub settings: Vec<Setting>,
}

/// A key of the configuration.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Setting {
    /// The key.
    pub name: String,
    /// As it is written in `ceto.yaml`.
    pub value: String,
    /// `bool`, `integer`, `list` or `text`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// `default`, `yaml`, or `live` once it has been changed.
    #[serde(default)]
    pub source: String,
}

/// Answer of `GET /v1/guardrails`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct GuardrailList {
    /// All of them.
    pub guardrails: Vec<Guardrail>,
}

/// A guardrail.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Guardrail {
    /// As `setguardrailsconfig` names it.
    pub name: String,
    /// `flags`, `thresholds` or `values`.
    pub category: String,
    /// One, or for thresholds two: that which fails, that which warns.
    pub keys: Vec<GuardrailKey>,
}

/// A key of the configuration that is a guardrail's.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct GuardrailKey {
    /// The key.
    pub name: String,
    /// Its value.
    pub value: serde_json::Value,
}

/// Answer of `GET /v1/node/info`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's identity, a UUID in its text form.
    pub host_id: String,
    /// Whether the node takes part in gossip. A single node does.
    #[serde(default)]
    pub gossip_active: bool,
    /// Whether the node accepts CQL connections.
    #[serde(default)]
    pub native_transport_active: bool,
    /// Bytes of all live sstables on disk.
    #[serde(default)]
    pub load_bytes: u64,
    /// The same before compression.
    #[serde(default)]
    pub uncompressed_load_bytes: u64,
    /// Second since the epoch at which this process joined.
    #[serde(default)]
    pub generation: i64,
    /// Seconds since the process started.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Memory in use by the process.
    #[serde(default)]
    pub memory_used_bytes: u64,
    /// The most the process may use.
    #[serde(default)]
    pub memory_limit_bytes: u64,
    /// Memory of memtables, filters and indexes that is accounted beside the caches.
    #[serde(default)]
    pub off_heap_bytes: u64,
    /// The node's data centre.
    pub datacenter: String,
    /// The node's rack.
    pub rack: String,
    /// Requests that failed by a fault of the server's own.
    #[serde(default)]
    pub exceptions: u64,
    /// Partition key to sstable position.
    #[serde(default)]
    pub key_cache: Cache,
    /// Rows.
    #[serde(default)]
    pub row_cache: Cache,
    /// Counter values.
    #[serde(default)]
    pub counter_cache: Cache,
    /// Share of the data that is marked repaired, 0 to 100.
    #[serde(default = "all_repaired")]
    pub percent_repaired: f64,
    /// The node's tokens as decimal numbers; empty while it has not joined.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// `NEEDS_BOOTSTRAP`, `IN_PROGRESS`, `COMPLETED` or `DECOMMISSIONED`.
    #[serde(default = "bootstrap_completed")]
    pub bootstrap_state: String,
    /// The last bootstrap failed and can be resumed.
    #[serde(default)]
    pub bootstrap_failed: bool,
    /// The node is leaving.
    #[serde(default)]
    pub decommissioning: bool,
    /// The last attempt to leave failed.
    #[serde(default)]
    pub decommission_failed: bool,
    /// Number of shards of the node.
    #[serde(default)]
    pub shards: u32,
    /// The shards that take no writes.
    #[serde(default)]
    pub write_refusals: Vec<WriteRefusal>,
}

/// A shard whose disk has failed or is full.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct WriteRefusal {
    /// Its number.
    pub shard: u32,
    /// Cause and cure, one line.
    pub reason: String,
}

fn all_repaired() -> f64 {
    100.0
}

fn bootstrap_completed() -> String {
    "COMPLETED".to_owned()
}

/// One cache of [`NodeInfo`]; a cache that the node has not is all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Number of entries.
    pub entries: u64,
    /// Memory in use.
    pub size_bytes: u64,
    /// Memory it may use.
    pub capacity_bytes: u64,
    /// Requests answered from the cache.
    pub hits: u64,
    /// Requests.
    pub requests: u64,
    /// Seconds between two saves to disk; 0: never saved.
    pub save_period_seconds: u64,
}

/// Answer of `GET /v1/node/status`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Every node the answering one knows, in any order.
    pub nodes: Vec<NodeStatus>,
    /// Whether [`NodeStatus::owns`] counts replicas (a keyspace was given, or all keyspaces agree).
    #[serde(default)]
    pub owns_effective: bool,
    /// A line to print below the table, for example why ownership is not effective.
    #[serde(default)]
    pub note: Option<String>,
}

/// One node of [`ClusterStatus`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its data centre.
    pub datacenter: String,
    /// Its rack.
    pub rack: String,
    /// Its broadcast address, without a port.
    pub address: String,
    /// Its identity.
    pub host_id: String,
    /// Whether the failure detector holds it for alive.
    pub up: bool,
    /// What it does in the ring.
    #[serde(default)]
    pub state: NodeState,
    /// Bytes of live sstables; absent when not known.
    #[serde(default)]
    pub load_bytes: Option<u64>,
    /// Number of tokens.
    #[serde(default)]
    pub tokens: u32,
    /// Share of the data it holds, 0 to 1; absent when not known.
    #[serde(default)]
    pub owns: Option<f64>,
}

/// What a node does in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// A full member.
    #[default]
    Normal,
    /// Streams its data away to leave.
    Leaving,
    /// Streams data in to join.
    Joining,
    /// Changes its token.
    Moving,
}

/// Answer of `GET /v1/node/version`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Version {
    /// The Cassandra release whose behaviour clients may count on, as in `system.local`.
    pub release_version: String,
    /// This program's own version.
    #[serde(default)]
    pub ceto_version: Option<String>,
}

/// Answer of `GET /v1/tables/stats`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct TableStatistics {
    /// Number of tables on the node, asked for or not.
    #[serde(default)]
    pub total_tables: u64,
    /// The keyspaces asked for.
    pub keyspaces: Vec<Keyspace>,
}

/// One keyspace of [`TableStatistics`]. Its own figures are the sums over its tables.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Keyspace {
    /// Its name.
    pub name: String,
    /// Its tables that were asked for.
    pub tables: Vec<Table>,
}

/// One table of [`Keyspace`], summed over all shards.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    /// Its name; required.
    pub name: String,
    /// Whether it holds an index.
    pub is_index: bool,
    /// Live sstables.
    pub sstable_count: u64,
    /// Live sstables of an older format version.
    pub old_sstable_count: u64,
    /// Size of the greatest live sstable.
    pub max_sstable_size_bytes: u64,
    /// Live sstables by level, only under a levelled strategy.
    pub sstables_in_each_level: Vec<u64>,
    /// Bytes of live sstables.
    pub space_used_live_bytes: u64,
    /// Bytes of live sstables and of those that wait for deletion.
    pub space_used_total_bytes: u64,
    /// Bytes that only snapshots keep.
    pub space_used_by_snapshots_bytes: u64,
    /// Compressed size over uncompressed size; -1 without an sstable.
    pub sstable_compression_ratio: f64,
    /// Number of partitions, an estimate.
    pub partitions_estimate: u64,
    /// Cells in the memtables.
    pub memtable_cell_count: u64,
    /// Bytes of data in the memtables.
    pub memtable_data_bytes: u64,
    /// Bytes that the memtables take in memory.
    pub memtable_memory_bytes: u64,
    /// How often a memtable was replaced to be flushed.
    pub memtable_switch_count: u64,
    /// Reads that were sent to a second replica before the first had answered.
    pub speculative_retries: u64,
    /// Reads served by this replica.
    pub local_read_count: u64,
    /// Sum of their latencies.
    pub local_read_latency_total_us: u64,
    /// Writes applied by this replica.
    pub local_write_count: u64,
    /// Sum of their latencies.
    pub local_write_latency_total_us: u64,
    /// Memtables waiting for a flush or being flushed.
    pub pending_flushes: u64,
    /// Bytes marked repaired.
    pub bytes_repaired: u64,
    /// Bytes not marked repaired.
    pub bytes_unrepaired: u64,
    /// Bytes in a repair that is not finished.
    pub bytes_pending_repair: u64,
    /// Filters that said yes for a partition their sstable has not.
    pub bloom_filter_false_positives: u64,
    /// False positives over all that filters let through.
    pub bloom_filter_false_ratio: f64,
    /// Bytes of the filters on disk.
    pub bloom_filter_space_bytes: u64,
    /// Bytes of the filters in memory.
    pub bloom_filter_memory_bytes: u64,
    /// Bytes of partition index kept in memory.
    pub index_memory_bytes: u64,
    /// Bytes of block offsets kept in memory.
    pub compression_metadata_memory_bytes: u64,
    /// Size of the smallest partition.
    pub partition_minimum_bytes: u64,
    /// Size of the greatest partition.
    pub partition_maximum_bytes: u64,
    /// Mean size of a partition.
    pub partition_mean_bytes: u64,
    /// Live cells per read, mean over five minutes; absent without a read.
    pub live_cells_per_slice_average: Option<f64>,
    /// The most live cells of a read in five minutes; absent when nobody counts.
    pub live_cells_per_slice_maximum: Option<u64>,
    /// Tombstones per read, mean over five minutes; absent without a read.
    pub tombstones_per_slice_average: Option<f64>,
    /// The most tombstones of a read in five minutes; absent when nobody counts.
    pub tombstones_per_slice_maximum: Option<u64>,
    /// Share of tombstones that are old enough to be dropped.
    pub droppable_tombstone_ratio: f64,
}

/// `GET /v1/snapshots`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshots {
    /// By keyspace, table and name.
    pub snapshots: Vec<Snapshot>,
    /// Bytes that only snapshots keep.
    pub total_true_size_bytes: u64,
}

/// A snapshot of one table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// The table's keyspace.
    pub keyspace: String,
    /// The table.
    pub table: String,
    /// Bytes that only it keeps.
    pub true_size_bytes: u64,
    /// Bytes of all its files.
    pub disk_size_bytes: u64,
    /// ISO 8601, UTC; absent without a manifest.
    pub created_at: Option<String>,
    /// Likewise; absent when it is kept for ever.
    pub expires_at: Option<String>,
    /// Taken by a repair.
    pub ephemeral: bool,
}

/// Answer of `GET /v1/node/binary`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Serving {
    /// Clients are served.
    pub running: bool,
}

/// `GET /v1/backup/status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupStatus {
    /// Incremental backups are on.
    pub running: bool,
}

/// Answer of `GET /v1/compaction/stats`: sums over all shards.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionStatistics {
    /// Compactions that may run at the same time.
    pub concurrent_compactors: u64,
    /// Compactions done.
    pub completed: u64,
    /// Bytes that they read.
    pub compacted_bytes: u64,
    /// Time in which that was.
    pub uptime_seconds: u64,
    /// Compactions stopped on request.
    pub aborted: u64,
    /// Compactions that left sstables out for want of disk space.
    pub reduced: u64,
    /// What compactions may write; 0 for no limit.
    pub throughput_bytes_per_second: u64,
    /// Bytes that would have to be written now until nothing is left to do.
    pub backlog_bytes: u64,
    /// Compactions that should run and do not yet, by table.
    pub pending: Vec<PendingCompactions>,
    /// Compactions that run.
    pub running: Vec<RunningCompaction>,
}

/// Compactions of a table that should run and do not yet.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PendingCompactions {
    /// Its keyspace.
    pub keyspace: String,
    /// Its name.
    pub table: String,
    /// How many.
    pub tasks: u64,
}

/// A compaction that runs on one shard.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunningCompaction {
    /// A UUID.
    pub id: String,
    /// What it is.
    pub compaction_type: String,
    /// Of its table.
    pub keyspace: String,
    /// Its table.
    pub table: String,
    /// Where it runs.
    pub shard: u64,
    /// Bytes read.
    pub completed_bytes: u64,
    /// Bytes to be read in all.
    pub total_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Since its start.
    pub elapsed_ms: u64,
}

/// Answer of `GET /v1/views/build`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ViewBuild {
    /// The node's address.
    pub host: String,
    /// `SUCCESS`, `STARTED` or `UNKNOWN`.
    pub status: String,
    /// Rows of the base that the build has gone over since the node started, while it runs.
    pub rows: Option<u64>,
}

/// Answer of `GET /v1/compaction/history`, the latest first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionHistory {
    /// As in `system.compaction_history`.
    pub compactions: Vec<PastCompaction>,
}

/// A compaction that is done.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PastCompaction {
    /// A UUID.
    pub id: String,
    /// Of its table.
    pub keyspace: String,
    /// Its table.
    pub table: String,
    /// Milliseconds since the Unix epoch.
    pub compacted_at_ms: i64,
    /// Bytes of its inputs.
    pub bytes_in: u64,
    /// Bytes of its outputs.
    pub bytes_out: u64,
    /// How many partitions were in how many of the inputs.
    pub rows_merged: Vec<(u32, u64)>,
    /// Names and values.
    pub properties: Vec<(String, String)>,
}

/// Answer of `POST /v1/compaction/stop`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stopped {
    /// How many compactions.
    pub stopped: u64,
}

/// Answer of `GET /v1/compaction/throughput`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Throughput {
    /// 0 for no limit.
    pub bytes_per_second: u64,
}

/// Answer of `GET /v1/compaction/automatic`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AutomaticCompactions {
    /// The tables asked for.
    pub tables: Vec<AutomaticCompaction>,
}

/// Whether a table's compactions start by themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AutomaticCompaction {
    /// Its keyspace.
    pub keyspace: String,
    /// Its name.
    pub table: String,
    /// They do.
    pub running: bool,
}

/// Answer of the POST requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {}

/// Body of every answer with a status of 400 or above.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Failure {
    /// One line for the operator.
    pub error: String,
}
