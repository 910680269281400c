#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use ceto_model::read::{ColumnSelection, ReadCommand, ReadLimits, ReadTarget};
use ceto_model::schema::{ReplicationOptions, TableBuilder};
use ceto_model::{
    ColumnKind, CqlType, DecoratedKey, Keyspace, Mutation, Partition, PartitionRange, Schema, Slice, TableId,
    Timestamp, UnixSeconds, UserType, UserTypeField,
};
use uuid::Uuid;

use super::definitions::{SYSTEM, SYSTEM_SCHEMA, system_schema};
use super::schema_rows::{StoredSchema, TABLES, difference};
use super::virtual_rows::{VirtualSource, read};
use crate::options::{NodeOptions, StorageSettings};
use crate::topology::{Peer, PeerState};

/// Stored partitions, as the storage engine would keep them.
#[derive(Default)]
struct Stored(BTreeMap<(TableId, DecoratedKey), Partition>);

impl Stored {
    fn apply(&mut self, mutations: Vec<Mutation>) {
        for mutation in mutations {
            self.0
                .entry((mutation.table, mutation.key))
                .or_default()
                .merge(mutation.partition);
        }
    }

    fn read(&self, system: &Schema) -> StoredSchema {
        let mut stored = StoredSchema::default();
        for name in TABLES {
            let id = system.table(SYSTEM_SCHEMA, name).unwrap().id;
            let rows = self.0.iter().filter(|((table, _), _)| *table == id);
            // What a read answers: live rows only.
            let rows = rows.map(|((_, key), partition)| {
                let mut partition = partition.clone();
                partition.rows.retain(|(_, row)| row.is_live(UnixSeconds(0)));
                (key.clone(), partition)
            });
            stored.0.insert(name, rows.collect());
        }
        stored
    }
}

fn user_type(name: &str, fields: &[(&str, CqlType)]) -> Arc<UserType> {
    let fields = fields.iter().map(|(name, t)| UserTypeField {
        name: (*name).into(),
        cql_type: t.clone(),
    });
    Arc::new(UserType {
        keyspace: "shop".into(),
        name: name.into(),
        fields: fields.collect(),
    })
}

fn shop() -> Keyspace {
    let inner = user_type("zip", &[("code", CqlType::Int)]);
    let inner_type = CqlType::Udt {
        definition: inner.clone(),
        frozen: true,
    };
    let outer = user_type("Address", &[("street", CqlType::Text), ("zip", inner_type)]);
    let mut builder = TableBuilder::new(TableId(Uuid::from_u128(9)), "shop", "orders");
    builder.add_column("id", ColumnKind::PartitionKey, CqlType::Uuid);
    builder.add_column("at", ColumnKind::Clustering, CqlType::Timestamp);
    builder.add_column("owner", ColumnKind::Static, CqlType::Text);
    builder.add_column(
        "to",
        ColumnKind::Regular,
        CqlType::Udt {
            definition: outer.clone(),
            frozen: false,
        },
    );
    builder.add_column(
        "lines",
        ColumnKind::Regular,
        CqlType::List {
            element: Arc::new(CqlType::Int),
            frozen: false,
        },
    );
    builder.columns[1].descending = true;
    builder.options.comment = "it's here".to_owned();
    builder.options.extensions.insert("x".to_owned(), vec![0, 255]);
    let table = Arc::new(builder.build());
    let replication = [
        ("class", "org.apache.cassandra.locator.SimpleStrategy"),
        ("replication_factor", "1"),
    ];
    let replication = replication.map(|(k, v)| (k.to_owned(), v.to_owned()));
    Keyspace {
        name: "shop".into(),
        durable_writes: true,
        replication: ReplicationOptions(replication.into_iter().collect()),
        tables: [(table.name.clone(), table)].into_iter().collect(),
        types: [(inner.name.clone(), inner), (outer.name.clone(), outer)]
            .into_iter()
            .collect(),
        functions: Default::default(),
        is_virtual: false,
    }
}

#[test]
fn a_schema_survives_being_stored_changed_and_read_back() {
    let system = system_schema();
    let mut stored = Stored::default();
    stored.apply(difference(
        None,
        Some(&shop()),
        &system,
        Timestamp(1),
        UnixSeconds(1),
    ));
    let schema = stored.read(&system).build(&system).unwrap();
    assert_eq!(**schema.keyspace("shop").unwrap(), shop());

    // Drop a column and the table's comment, add a table.
    let mut changed = shop();
    let mut builder = changed.tables["orders"].to_builder();
    builder.options.comment = String::new();
    let lines = builder
        .columns
        .iter()
        .position(|column| &*column.name == "lines")
        .unwrap();
    let column = builder.columns.remove(lines);
    builder.dropped.push(ceto_model::schema::DroppedColumn {
        id: column.id,
        name: column.name,
        kind: column.kind,
        cql_type: column.cql_type,
        dropped_at: 5_000,
    });
    let mut second = TableBuilder::new(TableId(Uuid::from_u128(10)), "shop", "Other");
    second.add_column("K", ColumnKind::PartitionKey, CqlType::Blob);
    let compact = |number: u128, name: &str, keys: usize, others: usize| {
        let mut table = TableBuilder::new(TableId(Uuid::from_u128(number)), "shop", name);
        table.is_compact = true;
        table.add_column("k", ColumnKind::PartitionKey, CqlType::Blob);
        for key in 0..keys {
            table.add_column(&format!("c{key}"), ColumnKind::Clustering, CqlType::Text);
        }
        for other in 0..others {
            table.add_column(&format!("value{other}"), ColumnKind::Regular, CqlType::Int);
        }
        table.build()
    };
    let tables = [
        builder.build(),
        second.build(),
        compact(11, "narrow", 0, 2),
        compact(12, "dense", 1, 1),
        compact(13, "denser", 2, 1),
        compact(14, "only_keys", 2, 0),
    ];
    for table in tables {
        changed.tables.insert(table.name.clone(), Arc::new(table));
    }
    stored.apply(difference(
        Some(&shop()),
        Some(&changed),
        &system,
        Timestamp(2),
        UnixSeconds(2),
    ));
    let reread = stored.read(&system).build(&system).unwrap();
    assert_eq!(**reread.keyspace("shop").unwrap(), changed);
    assert_ne!(reread.version, schema.version);
    assert_eq!(
        reread.version,
        stored.read(&system).build(&system).unwrap().version
    );

    stored.apply(difference(
        Some(&changed),
        None,
        &system,
        Timestamp(3),
        UnixSeconds(3),
    ));
    assert!(
        stored
            .read(&system)
            .build(&system)
            .unwrap()
            .keyspace("shop")
            .is_none()
    );
}

fn options() -> NodeOptions {
    NodeOptions {
        cluster_name: "Test Cluster".to_owned(),
        datacenter: "datacenter1".to_owned(),
        rack: "rack1".to_owned(),
        host_id: Uuid::from_u128(1),
        data_directory: "/nowhere".into(),
        commitlog_directory: "/nowhere".into(),
        rpc_address: [127, 0, 0, 1].into(),
        native_port: 9042,
        shard_aware_port: 19042,
        listen_address: [127, 0, 0, 1].into(),
        broadcast_address: [127, 0, 0, 1].into(),
        storage_port: 7000,
        internode_compression: Default::default(),
        hints: Default::default(),
        tokens: vec![-1, 5],
        settings: Default::default(),
        storage: StorageSettings::default(),
        access: Default::default(),
        functions: Default::default(),
    }
}

fn read_all(table: (&str, &str)) -> ceto_model::ReadResult {
    let schema = system_schema();
    let table = schema.table(table.0, table.1).unwrap();
    let command = ReadCommand {
        table: table.id,
        target: ReadTarget::Range(PartitionRange::full()),
        slices: [Slice::full()].into_iter().collect(),
        first_partition_slices: None,
        reversed: false,
        columns: ColumnSelection::All,
        now: UnixSeconds(0),
        limits: ReadLimits::NONE,
        keep_tombstones: false,
        bypass_cache: false,
        index: None,
    };
    let options = options();
    let source = VirtualSource {
        options: &options,
        tokens: &options.tokens,
        schema: &schema,
        peers: &peers(),
        clients: &[],
        settings: &[],
        figures: &[],
        built_indexes: &[],
        started: 7,
    };
    read(table, &command, &source)
}

/// One that serves and one that joins.
fn peers() -> Vec<Peer> {
    [(2, PeerState::Normal), (3, PeerState::Joining)]
        .map(|(id, state)| Peer {
            host: ceto_internode::HostId(Uuid::from_u128(u128::from(id))),
            internode: std::net::SocketAddr::from(([127, 0, 0, id], 7000)),
            rpc: [127, 0, 0, id].into(),
            native_port: 9042,
            shard_count: 2,
            datacenter: "dc".into(),
            rack: "rack".into(),
            tokens: vec![ceto_model::Token(i64::from(id))],
            release_version: "5.0.0".into(),
            schema_version: Uuid::nil(),
            is_alive: true,
            serves_clients: true,
            state,
        })
        .to_vec()
}

#[test]
fn virtual_tables_answer_reads() {
    let local = read_all((SYSTEM, "local"));
    assert_eq!(local.partitions.len(), 1);
    assert_eq!(&local.partitions[0].key.key.0[..], b"local");
    for table in ["peers", "peers_v2"] {
        let peers = read_all((SYSTEM, table)).partitions;
        assert_eq!(peers.len(), 1, "a node that joins is not shown");
        assert_eq!(peers[0].key.key.0[..], [127, 0, 0, 2]);
    }
    let columns = read_all(("system_virtual_schema", "columns"));
    let rows: usize = columns.partitions.iter().map(|p| p.partition.rows.len()).sum();
    assert!(rows > 15, "{rows} columns of virtual tables");
}
