//! Rows of the virtual tables, made from what the node knows at the moment of the read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ceto_model::evaluate::evaluate;
use ceto_model::read::{ReadCommand, ReadResult};
use ceto_model::value::Value;
use ceto_model::{DecoratedKey, Partition, Schema, Table, Timestamp, UnixSeconds};

use super::definitions::{CONFIG, SYSTEM, SYSTEM_VIEWS, SYSTEM_VIRTUAL_SCHEMA};
use super::estimates;
use super::row::{SystemRow, text, text_map, text_set};
use super::schema_rows::column_row;
use crate::figures::TableFigures;
use crate::options::{CQL_VERSION, NodeOptions, RELEASE_VERSION};
use crate::settings::Setting;
use crate::topology::{Peer, PeerState};

/// One client connection, as `system_views.clients` shows it.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// Its address.
    pub address: std::net::SocketAddr,
    /// STARTUP options.
    pub options: BTreeMap<String, String>,
    /// `ready` once STARTUP was answered.
    pub stage: &'static str,
    /// Keyspace in use.
    pub keyspace: Option<String>,
    /// The role that has logged in.
    pub role: Option<String>,
    /// Protocol version.
    pub protocol_version: u8,
    /// Requests so far.
    pub requests: u64,
    /// Shard that serves it.
    pub shard: u16,
}

/// What the virtual tables are made of.
pub struct VirtualSource<'a> {
    /// The node's settings.
    pub options: &'a NodeOptions,
    /// This node's tokens.
    pub tokens: &'a [i64],
    /// The present schema.
    pub schema: &'a Schema,
    /// The other nodes.
    pub peers: &'a [Peer],
    /// Present connections (only read for `clients`).
    pub clients: &'a [ClientRow],
    /// All settings.
    pub settings: &'a [Setting],
    /// Figures of tables, of all shards together (only read for the tables of estimates).
    pub figures: &'a [TableFigures],
    /// Keyspace and name of each index that is built on all shards (only read for `IndexInfo`).
    pub built_indexes: &'a [(String, String)],
    /// Seconds since the epoch at which the node started.
    pub started: i64,
}

/// Answers a read of the virtual table `table`.
pub fn read(table: &Table, command: &ReadCommand, source: &VirtualSource<'_>) -> ReadResult {
    let mut partitions: BTreeMap<DecoratedKey, Partition> = BTreeMap::new();
    for row in rows(table, source) {
        let mutation = row.insert(table, Timestamp(0), UnixSeconds(0));
        partitions
            .entry(mutation.key)
            .or_default()
            .merge(mutation.partition);
    }
    evaluate(command, &partitions)
}

fn rows(table: &Table, source: &VirtualSource<'_>) -> Vec<SystemRow> {
    match (&*table.keyspace, &*table.name) {
        (SYSTEM, "local") => vec![local(source)],
        (SYSTEM, "peers") => members(source).map(peer).collect(),
        (SYSTEM, "peers_v2") => members(source).map(peer_v2).collect(),
        (SYSTEM_VIRTUAL_SCHEMA, "keyspaces") => virtual_keyspaces(source)
            .map(|ks| keyspace_row(&ks.name))
            .collect(),
        (SYSTEM_VIRTUAL_SCHEMA, "tables") => virtual_tables(source).map(table_row).collect(),
        (SYSTEM_VIRTUAL_SCHEMA, "columns") => virtual_tables(source)
            .flat_map(|table| table.columns().iter().map(|column| virtual_column(table, column)))
            .collect(),
        (SYSTEM_VIEWS, "clients") => source.clients.iter().map(client).collect(),
        (SYSTEM_VIEWS, "settings") => source
            .settings
            .iter()
            .map(|setting| {
                SystemRow::default()
                    .with("name", text(&setting.name))
                    .with("value", text(&setting.value))
            })
            .collect(),
        (SYSTEM, CONFIG) => source
            .settings
            .iter()
            .map(|setting| {
                SystemRow::default()
                    .with("name", text(&setting.name))
                    .with("source", text(setting.source))
                    .with("type", text(setting.kind))
                    .with("value", text(&setting.value))
            })
            .collect(),
        (SYSTEM, "IndexInfo") => source
            .built_indexes
            .iter()
            .map(|(keyspace, index)| {
                SystemRow::default()
                    .with("table_name", text(keyspace))
                    .with("index_name", text(index))
                    .with("value", Value::Blob(Default::default()))
            })
            .collect(),
        (SYSTEM, "size_estimates") => estimates::rows(source, &[]),
        (SYSTEM, "table_estimates") => estimates::rows(source, &["local_primary", "primary"]),
        _ => Vec::new(),
    }
}

fn local(source: &VirtualSource<'_>) -> SystemRow {
    let options = source.options;
    SystemRow::default()
        .with("key", text("local"))
        .with("bootstrapped", text("COMPLETED"))
        .with("broadcast_address", Value::Inet(options.broadcast_address))
        .with("broadcast_port", Value::Int(i32::from(options.storage_port)))
        .with("cluster_name", text(&options.cluster_name))
        .with("cql_version", text(CQL_VERSION))
        .with("data_center", text(&options.datacenter))
        .with(
            "gossip_generation",
            Value::Int(i32::try_from(source.started).unwrap_or(i32::MAX)),
        )
        .with("host_id", Value::Uuid(options.host_id))
        .with("listen_address", Value::Inet(options.listen_address))
        .with("listen_port", Value::Int(i32::from(options.storage_port)))
        .with("native_protocol_version", text("5"))
        .with("partitioner", text(ceto_model::token::PARTITIONER))
        .with("rack", text(&options.rack))
        .with("release_version", text(RELEASE_VERSION))
        .with("rpc_address", Value::Inet(options.rpc_address))
        .with("rpc_port", Value::Int(i32::from(options.native_port)))
        .with("schema_version", Value::Uuid(source.schema.version))
        .with("tokens", text_set(source.tokens.iter().map(i64::to_string)))
}

/// Nodes that clients are told of: those that serve.
fn members<'a>(source: &'a VirtualSource<'_>) -> impl Iterator<Item = &'a Peer> {
    source
        .peers
        .iter()
        .filter(|peer| peer.state != PeerState::Joining)
}

fn peer_of_any_version(peer: &Peer) -> SystemRow {
    SystemRow::default()
        .with("peer", Value::Inet(peer.internode.ip()))
        .with("data_center", text(&*peer.datacenter))
        .with("host_id", Value::Uuid(peer.host.0))
        .with("preferred_ip", Value::Inet(peer.internode.ip()))
        .with("rack", text(&*peer.rack))
        .with("release_version", text(&*peer.release_version))
        .with("schema_version", Value::Uuid(peer.schema_version))
        .with(
            "tokens",
            text_set(peer.tokens.iter().map(|token| token.0.to_string())),
        )
}

fn peer(peer: &Peer) -> SystemRow {
    peer_of_any_version(peer).with("rpc_address", Value::Inet(peer.rpc))
}

fn peer_v2(peer: &Peer) -> SystemRow {
    let port = || Value::Int(i32::from(peer.internode.port()));
    peer_of_any_version(peer)
        .with("peer_port", port())
        .with("preferred_port", port())
        .with("native_address", Value::Inet(peer.rpc))
        .with("native_port", Value::Int(i32::from(peer.native_port)))
}

fn virtual_keyspaces<'a>(
    source: &'a VirtualSource<'_>,
) -> impl Iterator<Item = &'a std::sync::Arc<ceto_model::Keyspace>> {
    source.schema.keyspaces().filter(|keyspace| keyspace.is_virtual)
}

fn virtual_tables<'a>(source: &'a VirtualSource<'_>) -> impl Iterator<Item = &'a Table> {
    virtual_keyspaces(source).flat_map(|keyspace| keyspace.tables.values().map(|table| &**table))
}

fn keyspace_row(name: &str) -> SystemRow {
    SystemRow::default().with("keyspace_name", text(name))
}

fn table_row(table: &Table) -> SystemRow {
    keyspace_row(&table.keyspace)
        .with("table_name", text(&*table.name))
        .with("comment", text(&table.options.comment))
}

/// As in `system_schema.columns`, without the columns that `system_virtual_schema.columns` does not have.
fn virtual_column(table: &Table, column: &ceto_model::Column) -> SystemRow {
    let mut row = column_row(table, column);
    row.0.retain(|(name, _)| *name != "column_id");
    row
}

fn client(client: &ClientRow) -> SystemRow {
    let option = |name: &str| client.options.get(name).map(text);
    SystemRow::default()
        .with("address", Value::Inet(IpAddr::to_canonical(&client.address.ip())))
        .with("port", Value::Int(i32::from(client.address.port())))
        .with("client_options", text_map(&client.options))
        .with("connection_stage", text(client.stage))
        .with("driver_name", option("DRIVER_NAME"))
        .with("driver_version", option("DRIVER_VERSION"))
        .with("hostname", text(client.address.ip().to_string()))
        .with("keyspace_name", client.keyspace.as_ref().map(text))
        .with("protocol_version", Value::Int(i32::from(client.protocol_version)))
        .with("request_count", Value::Bigint(client.requests as i64))
        .with("shard", Value::Int(i32::from(client.shard)))
        .with("username", text(client.role.as_deref().unwrap_or("anonymous")))
}
