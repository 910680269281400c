//! What the system tables look like, in a notation of one line per table:
//! `name: column type, ...`; `!` after a type marks a partition key column, `+` a clustering column.
//!
//! Table ids are derived from the names, so they are the same on every node and after every restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceto_model::schema::{ReplicationOptions, TableBuilder};
use ceto_model::{ColumnKind, Keyspace, Schema, Table, TableId};
use uuid::Uuid;

/// Keyspace of node-local facts.
pub const SYSTEM: &str = "system";
/// Table of [`SYSTEM`] whose rows are settings.
pub const CONFIG: &str = "config";
/// Table of [`SYSTEM`] that is stored, where the others are made up.
pub const COMPACTION_HISTORY: &str = "compaction_history";
/// Which materialized views are built.
pub const BUILT_VIEWS: &str = "built_views";
/// How far builds of materialized views are.
pub const VIEW_BUILDS: &str = "view_builds_in_progress";
/// View rows that a write is about to change, by the base's partition key.
pub const VIEW_UPDATES: &str = "view_updates";
/// Copies of logged batches of other coordinators, until they are done.
pub const BATCHES: &str = "batches";
/// What this node has promised, accepted and seen committed of conditional updates, by the partition's key.
pub const PAXOS: &str = "paxos";
/// Keyspace that holds the schema.
pub const SYSTEM_SCHEMA: &str = "system_schema";
/// Keyspace of roles and what is granted to them.
pub const SYSTEM_AUTH: &str = "system_auth";
/// Keyspace of traces.
pub const SYSTEM_TRACES: &str = "system_traces";
/// What nodes tell each other of their maintenance.
pub const SYSTEM_DISTRIBUTED: &str = "system_distributed";
/// How far each node is with the build of each materialized view.
pub const VIEW_BUILD_STATUS: &str = "view_build_status";
/// Keyspace that describes the virtual tables.
pub const SYSTEM_VIRTUAL_SCHEMA: &str = "system_virtual_schema";
/// Keyspace of virtual tables for operators.
pub const SYSTEM_VIEWS: &str = "system_views";

/// Every keyspace that no client may change.
pub const SYSTEM_KEYSPACES: [&str; 7] = [
    SYSTEM,
    SYSTEM_AUTH,
    SYSTEM_DISTRIBUTED,
    SYSTEM_SCHEMA,
    SYSTEM_TRACES,
    SYSTEM_VIRTUAL_SCHEMA,
    SYSTEM_VIEWS,
];

/// Table options as columns of `system_schema.tables` and `views`.
const OPTIONS: &str = "additional_write_policy text, allow_auto_snapshot boolean, bloom_filter_fp_chance double, \
    caching frozen<map<text, text>>, cdc boolean, comment text, compaction frozen<map<text, text>>, \
    compression frozen<map<text, text>>, crc_check_chance double, dclocal_read_repair_chance double, \
    default_time_to_live int, extensions frozen<map<text, blob>>, gc_grace_seconds int, id uuid, \
    incremental_backups boolean, max_index_interval int, memtable text, memtable_flush_period_in_ms int, \
    min_index_interval int, read_repair text, read_repair_chance double, speculative_retry text";

const SYSTEM_TABLES: &[&str] = &[
    "local: key text!, bootstrapped text, broadcast_address inet, broadcast_port int, cluster_name text, \
     cql_version text, data_center text, gossip_generation int, host_id uuid, listen_address inet, listen_port int, \
     native_protocol_version text, partitioner text, rack text, release_version text, rpc_address inet, \
     rpc_port int, schema_version uuid, tokens set<text>, truncated_at map<uuid, blob>",
    "peers: peer inet!, data_center text, host_id uuid, preferred_ip inet, rack text, release_version text, \
     rpc_address inet, schema_version uuid, tokens set<text>",
    "peers_v2: peer inet!, peer_port int+, data_center text, host_id uuid, native_address inet, native_port int, \
     preferred_ip inet, preferred_port int, rack text, release_version text, schema_version uuid, tokens set<text>",
    "size_estimates: keyspace_name text!, table_name text+, range_start text+, range_end text+, \
     mean_partition_size bigint, partitions_count bigint",
    "table_estimates: keyspace_name text!, table_name text+, range_type text+, range_start text+, range_end text+, \
     mean_partition_size bigint, partitions_count bigint",
    "compaction_history: id uuid!, bytes_in bigint, bytes_out bigint, columnfamily_name text, compacted_at timestamp, \
     compaction_properties frozen<map<text, text>>, keyspace_name text, rows_merged map<int, bigint>",
    "built_views: keyspace_name text!, view_name text+, status_replicated boolean, view_id uuid",
    "view_builds_in_progress: keyspace_name text!, view_name text+, start_token text+, end_token text+, \
     keys_built bigint, last_token text, view_id uuid",
    "view_updates: base_key blob!, base_id uuid+, part int+, view_rows blob",
    "paxos: row_key blob!, cf_id uuid+, in_progress_ballot timeuuid, most_recent_commit blob, \
     most_recent_commit_at timeuuid, proposal blob, proposal_ballot timeuuid",
    "batches: id timeuuid!, mutations blob, version int",
    "config: name text!, source text, type text, value text",
    "IndexInfo: table_name text!, index_name text+, value blob",
];

const SCHEMA_TABLES: &[&str] = &[
    "keyspaces: keyspace_name text!, durable_writes boolean, replication frozen<map<text, text>>",
    "tables: keyspace_name text!, table_name text+, flags frozen<set<text>>, OPTIONS",
    "columns: keyspace_name text!, table_name text+, column_name text+, clustering_order text, \
     column_name_bytes blob, kind text, position int, type text, column_id int",
    "column_masks: keyspace_name text!, table_name text+, column_name text+, function_keyspace text, \
     function_name text, function_argument_types frozen<list<text>>, function_argument_values frozen<list<text>>, \
     function_argument_nulls frozen<list<boolean>>",
    "dropped_columns: keyspace_name text!, table_name text+, column_name text+, dropped_time timestamp, kind text, \
     type text, column_id int",
    "types: keyspace_name text!, type_name text+, field_names frozen<list<text>>, field_types frozen<list<text>>",
    "functions: keyspace_name text!, function_name text+, argument_types frozen<list<text>>+, \
     argument_names frozen<list<text>>, body text, called_on_null_input boolean, language text, return_type text",
    "aggregates: keyspace_name text!, aggregate_name text+, argument_types frozen<list<text>>+, final_func text, \
     initcond text, return_type text, state_func text, state_type text",
    "triggers: keyspace_name text!, table_name text+, trigger_name text+, options frozen<map<text, text>>",
    "indexes: keyspace_name text!, table_name text+, index_name text+, kind text, options frozen<map<text, text>>, \
     table_id uuid",
    "views: keyspace_name text!, view_name text+, base_table_id uuid, base_table_name text, \
     include_all_columns boolean, where_clause text, OPTIONS",
];

/// As Cassandra's, and two more: what service levels there are, and which role has which.
const AUTH_TABLES: &[&str] = &[
    "roles: role text!, can_login boolean, is_superuser boolean, member_of set<text>, salted_hash text",
    "role_members: role text!, member text+",
    "role_permissions: role text!, resource text+, permissions set<text>",
    "resource_role_permissons_index: resource text!, role text+",
    "network_permissions: role text!, dcs frozen<set<text>>",
    "role_attributes: role text!, name text+, value text",
    "service_levels: service_level text!, timeout text, workload_type text",
];

const TRACES_TABLES: &[&str] = &[
    "sessions: session_id uuid!, client inet, command text, coordinator inet, coordinator_port int, duration int, \
     parameters map<text, text>, request text, started_at timestamp",
    "events: session_id uuid!, event_id timeuuid+, activity text, source inet, source_elapsed int, source_port int, \
     thread text",
];

const DISTRIBUTED_TABLES: &[&str] =
    &["view_build_status: keyspace_name text!, view_name text!, host_id uuid+, status text"];

const VIRTUAL_SCHEMA_TABLES: &[&str] = &[
    "keyspaces: keyspace_name text!",
    "tables: keyspace_name text!, table_name text+, comment text",
    "columns: keyspace_name text!, table_name text+, column_name text+, clustering_order text, \
     column_name_bytes blob, kind text, position int, type text",
];

const VIEWS_TABLES: &[&str] = &[
    "clients: address inet!, port int+, client_options frozen<map<text, text>>, connection_stage text, \
     driver_name text, driver_version text, hostname text, keyspace_name text, protocol_version int, \
     request_count bigint, shard int, username text",
    "settings: name text!, value text",
];

/// The schema of a node that has none: the system keyspaces.
pub fn system_schema() -> Schema {
    let keyspaces = [
        (SYSTEM, SYSTEM_TABLES, None, true),
        (SYSTEM_SCHEMA, SCHEMA_TABLES, None, false),
        (SYSTEM_AUTH, AUTH_TABLES, Some(1), false),
        (SYSTEM_TRACES, TRACES_TABLES, Some(2), false),
        (SYSTEM_DISTRIBUTED, DISTRIBUTED_TABLES, None, false),
        (SYSTEM_VIRTUAL_SCHEMA, VIRTUAL_SCHEMA_TABLES, None, true),
        (SYSTEM_VIEWS, VIEWS_TABLES, None, true),
    ];
    keyspaces.into_iter().fold(
        Schema::default(),
        |schema, (name, tables, replicas, is_virtual)| {
            schema.with_keyspace(keyspace(name, tables, replicas, is_virtual), Uuid::nil())
        },
    )
}

/// `replicas`: None for what each node has of its own.
fn keyspace(name: &str, tables: &[&str], replicas: Option<u8>, has_virtual_tables: bool) -> Keyspace {
    let strategy = if replicas.is_some() {
        "SimpleStrategy"
    } else {
        "LocalStrategy"
    };
    let class = format!("org.apache.cassandra.locator.{strategy}");
    let mut replication = vec![("class".to_owned(), class)];
    replication.extend(replicas.map(|replicas| ("replication_factor".to_owned(), replicas.to_string())));
    let tables: BTreeMap<Arc<str>, Arc<Table>> = tables
        .iter()
        .map(|definition| {
            Arc::new(table(
                name,
                definition,
                has_virtual_tables && !is_stored(name, definition),
            ))
        })
        .map(|table| (table.name.clone(), table))
        .collect();
    Keyspace {
        name: name.into(),
        durable_writes: true,
        replication: ReplicationOptions(replication.into_iter().collect()),
        tables,
        types: BTreeMap::new(),
        functions: Default::default(),
        // `system` itself is listed among the ordinary keyspaces, as in Cassandra.
        is_virtual: has_virtual_tables && name != SYSTEM,
    }
}

/// A table on disk in a keyspace of virtual ones.
fn is_stored(keyspace: &str, definition: &str) -> bool {
    let stored = [
        COMPACTION_HISTORY,
        BUILT_VIEWS,
        VIEW_BUILDS,
        VIEW_UPDATES,
        PAXOS,
        BATCHES,
    ];
    let name = definition.split(':').next();
    keyspace == SYSTEM && name.is_some_and(|name| stored.contains(&name))
}

fn table(keyspace: &str, definition: &str, is_virtual: bool) -> Table {
    let (name, columns) = definition
        .split_once(": ")
        .expect("a definition is `name: columns`");
    let id = TableId(Uuid::new_v3(
        &Uuid::NAMESPACE_OID,
        format!("{keyspace}.{name}").as_bytes(),
    ));
    let mut builder = TableBuilder::new(id, keyspace, name);
    builder.is_virtual = is_virtual;
    builder.options.gc_grace_seconds = match keyspace {
        SYSTEM_SCHEMA => 7 * 24 * 3600,
        SYSTEM_AUTH => 90 * 24 * 3600,
        _ => 0,
    };
    let columns = columns.replace("OPTIONS", OPTIONS);
    for column in split_columns(&columns) {
        let (name, type_text) = column.trim().split_once(' ').expect("a column is `name type`");
        let (kind, type_text) = match type_text.as_bytes().last() {
            Some(b'!') => (ColumnKind::PartitionKey, &type_text[..type_text.len() - 1]),
            Some(b'+') => (ColumnKind::Clustering, &type_text[..type_text.len() - 1]),
            _ => (ColumnKind::Regular, type_text),
        };
        let cql_type =
            super::schema_rows::parse_type(type_text, &|_| None).expect("a type of the definitions");
        builder.add_column(name, kind, cql_type);
    }
    builder.build()
}

/// Splits at the commas that stand outside of `<>`.
fn split_columns(columns: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in columns.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&columns[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&columns[start..]);
    parts
}
