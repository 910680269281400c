//! What a node is told at start: its name, place, addresses, folders and limits.
//!
//! Field names are the keys of `ceto.yaml` (and of cassandra.yaml where they mean the same). Units last.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use ceto_cql::ExpirationOverflow;
pub use ceto_cql::access::AccessRules;
pub use ceto_storage::{CommitFailurePolicy, Compression, ReplayFailurePolicy};
use uuid::Uuid;

use crate::hints::HintOptions;
use crate::settings::Settings;

/// Cassandra version that clients are told: drivers choose their schema parser by it, and cqlsh 6.2 warns when it is
/// another than the one it was built against.
pub const RELEASE_VERSION: &str = "5.0.0";
/// CQL version.
pub const CQL_VERSION: &str = "3.4.7";

/// A node's settings, the same on each of its shards.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Nodes of another cluster are refused.
    pub cluster_name: String,
    /// Data center.
    pub datacenter: String,
    /// Rack.
    pub rack: String,
    /// Identity; survives restarts.
    pub host_id: Uuid,
    /// Where sstables lie.
    pub data_directory: PathBuf,
    /// Where commitlog segments lie.
    pub commitlog_directory: PathBuf,
    /// What drivers connect to.
    pub rpc_address: IpAddr,
    /// CQL port.
    pub native_port: u16,
    /// CQL port where the source port chooses the shard.
    pub shard_aware_port: u16,
    /// Where links of other nodes are accepted, and from where they are made.
    pub listen_address: IpAddr,
    /// Where other nodes are told to reach this one.
    pub broadcast_address: IpAddr,
    /// Port of links between nodes.
    pub storage_port: u16,
    /// `internode_compression`.
    pub internode_compression: InternodeCompression,
    /// Writes that other nodes have missed.
    pub hints: HintOptions,
    /// The node's tokens, sorted.
    pub tokens: Vec<i64>,
    /// What can change later ([`crate::settings`]), as it is at the start.
    pub settings: Settings,
    /// Storage settings.
    pub storage: StorageSettings,
    /// `authenticator` and `authorizer`.
    pub access: AccessRules,
    /// User-defined functions.
    pub functions: FunctionOptions,
}

/// Which links between nodes compress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InternodeCompression {
    /// None of them.
    None,
    /// Those to other data centers.
    #[default]
    Datacenters,
    /// All.
    All,
}

/// What user-defined functions may do.
#[derive(Clone, Copy, Debug)]
pub struct FunctionOptions {
    /// `user_defined_functions_enabled`: without, none is made and none runs.
    pub enabled: bool,
    /// `user_defined_functions_warn_timeout` of one call: longer ones are logged.
    pub warn_timeout: Duration,
    /// `user_defined_functions_fail_timeout` of one call, by the clock; steps bound it before.
    pub fail_timeout: Duration,
}

impl Default for FunctionOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            warn_timeout: Duration::from_millis(20),
            fail_timeout: Duration::from_millis(100),
        }
    }
}

/// Named bounds of what clients can make a shard hold, each with a metric and an error that names it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `native_transport_max_frame_size`, bytes.
    pub max_frame_size: usize,
    /// `native_transport_max_concurrent_connections` over all shards; further ones get an error and are closed.
    pub max_connections: usize,
    /// `native_transport_max_requests_per_connection`: in flight; beyond it the connection is not read.
    pub max_requests_per_connection: usize,
    /// `native_transport_max_requests_per_shard`: in flight; beyond it requests get Overloaded.
    pub max_requests_per_shard: usize,
    /// `native_transport_max_output_per_connection`, bytes unread by the client; beyond it the connection is not read.
    pub max_output_per_connection: usize,
    /// `native_transport_max_response_data_in_flight`, bytes of answers under way and unread over all shards; beyond it
    /// reads wait.
    pub max_response_memory: usize,
    /// `native_transport_max_request_data_in_flight`, bytes of requests that arrive or run over all shards; beyond it
    /// larger requests are not received.
    pub max_request_memory: usize,
    /// `native_transport_max_request_data_in_flight_per_ip`: the same for one client address.
    pub max_request_memory_per_address: usize,
    /// `prepared_statements_cache_entries` per shard; the least recently used go.
    pub max_prepared_statements: usize,
    /// `read_request_timeout`.
    pub read_timeout: Duration,
    /// `range_request_timeout`.
    pub range_timeout: Duration,
    /// `write_request_timeout`.
    pub write_timeout: Duration,
    /// `counter_write_request_timeout`.
    pub counter_write_timeout: Duration,
    /// `truncate_request_timeout`.
    pub truncate_timeout: Duration,
    /// `batch_size_fail_threshold`, bytes.
    pub batch_size_fail: usize,
    /// `batch_size_warn_threshold`, bytes.
    pub batch_size_warn: usize,
    /// `tombstone_warn_threshold`.
    pub tombstone_warn: u64,
    /// `tombstone_failure_threshold`.
    pub tombstone_fail: u64,
    /// `query_tombstone_page_limit`: a page ends after so many; at most `tombstone_fail`.
    pub tombstones_per_page: u64,
    /// `unlogged_batch_across_partitions_warn_threshold`.
    pub unlogged_batch_partitions_warn: usize,
    /// `max_page_size`, bytes of rows in one page; larger pages are cut short.
    pub max_page_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_size: 16 << 20,
            max_connections: 20_000,
            max_requests_per_connection: 2048,
            max_requests_per_shard: 16_384,
            max_output_per_connection: 16 << 20,
            max_response_memory: 256 << 20,
            max_request_memory: 256 << 20,
            max_request_memory_per_address: 64 << 20,
            max_prepared_statements: 10_000,
            read_timeout: Duration::from_secs(5),
            range_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(2),
            counter_write_timeout: Duration::from_secs(5),
            truncate_timeout: Duration::from_secs(60),
            batch_size_fail: 50 << 10,
            batch_size_warn: 5 << 10,
            tombstone_warn: 1000,
            tombstone_fail: 100_000,
            tombstones_per_page: 100_000,
            unlogged_batch_partitions_warn: 10,
            max_page_bytes: 1 << 20,
        }
    }
}

/// How the commitlog is synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitlogSync {
    /// Acknowledge when the kernel has the write; sync every so often.
    Periodic(Duration),
    /// Acknowledge after a sync; writes that come while one runs share the next.
    Batch,
    /// Acknowledge after a sync; at most one per window.
    Group(Duration),
}

/// Storage settings.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// `commitlog_sync`.
    pub commitlog_sync: CommitlogSync,
    /// `commitlog_segment_size`, bytes.
    pub commitlog_segment_size: u64,
    /// `commitlog_total_space`, bytes of all shards.
    pub commitlog_total_space: u64,
    /// `max_mutation_size`, bytes; None for half a segment.
    pub max_mutation_size: Option<u64>,
    /// `commitlog_compression`.
    pub commitlog_compression: Option<Compression>,
    /// `commit_failure_policy`.
    pub commit_failure_policy: CommitFailurePolicy,
    /// `commitlog_replay_failure_policy`.
    pub replay_failure_policy: ReplayFailurePolicy,
    /// `auto_snapshot`: before tables are truncated or dropped.
    pub auto_snapshot: bool,
    /// `auto_snapshot_ttl`: how long these are kept; for ever when absent.
    pub auto_snapshot_ttl: Option<Duration>,
    /// Bytes of memtables, caches, reads and open sstables of all shards.
    pub memory_space: u64,
    /// `memtable_heap_space`, bytes of all shards.
    pub memtable_space: u64,
    /// `concurrent_compactors`, of each shard.
    pub concurrent_compactors: u32,
    /// `row_cache_size`, bytes of all shards.
    pub row_cache_space: u64,
    /// `file_cache_size`, bytes of all shards.
    pub file_cache_space: u64,
    /// `concurrent_reads`, of each shard.
    pub concurrent_reads: usize,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            commitlog_sync: CommitlogSync::Periodic(Duration::from_secs(10)),
            commitlog_segment_size: 32 << 20,
            commitlog_total_space: 8 << 30,
            max_mutation_size: None,
            auto_snapshot: true,
            auto_snapshot_ttl: None,
            commitlog_compression: None,
            commit_failure_policy: CommitFailurePolicy::default(),
            replay_failure_policy: ReplayFailurePolicy::default(),
            memory_space: 2 << 30,
            memtable_space: 1 << 30,
            concurrent_compactors: 2,
            row_cache_space: u64::MAX,
            file_cache_space: 256 << 20,
            concurrent_reads: 128,
        }
    }
}
