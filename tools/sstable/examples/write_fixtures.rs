//! Writes the fixtures of the present version of the sstable format: run by hand once per version, never again.
//!
//! ```text
//! cargo run -p ceto-sstable --example write_fixtures
//! ```
//!
//! Each goes to `tools/sstable/fixtures/<version>/<name>/` with the dump that tests compare (`dump.jsonl`). What is there
//! is left alone: files of a released version never change.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "run by hand")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_model::comparable::{bound_after, bound_before, encode_clustering, encode_component, encode_prefix};
use ceto_model::counter::counter_update;
use ceto_model::schema::{ReplicationOptions, TableBuilder};
use ceto_model::value::from_json_text;
use ceto_model::{
    Cell, ClusteringKey, Collection, ColumnData, ColumnKind, CqlType, DecoratedKey, Deletion, Expiry,
    Keyspace, Liveness, Mutation, PartitionKey, Position, RangeTombstone, Row, Schema, Slice, Table, TableId,
    Timestamp, Ttl, UnixSeconds, UserType, UserTypeField,
};
use ceto_sstable::{DumpOptions, FileEnv, dump};
use ceto_storage::offline::{SstableFiles, find};
use ceto_storage::{Database, StorageOptions};
use uuid::Uuid;

/// Microseconds: 2023-11-14T22:13:20Z.
const WRITTEN_AT: i64 = 1_700_000_000_000_000;
const SECOND: UnixSeconds = UnixSeconds(1_700_000_000);
/// The moment that dumps of fixtures are of.
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/a");
    for class in [
        "LZ4Compressor",
        "ZstdCompressor",
        "SnappyCompressor",
        "DeflateCompressor",
        "ZstdDictionaryCompressor",
        "",
    ] {
        let name = match class.strip_suffix("Compressor") {
            Some(codec) => codec.to_lowercase(),
            None => "uncompressed".to_owned(),
        };
        let table = readings(class);
        // A dictionary needs something to learn from.
        let rows = if class.contains("Dictionary") { 700 } else { 40 };
        write(&root, &name, &table, reading_writes(&table, rows));
    }
    let table = large();
    write(&root, "large_partition", &table, large_writes(&table));
    let table = everything();
    write(&root, "everything", &table, everything_writes(&table));
    let table = all_types();
    write(&root, "types", &table, type_writes(&table));
    let table = counters();
    write(&root, "counters", &table, counter_writes(&table));
}

// --- tables ----------------------------------------------------------------------------------------------------------

fn table(number: u128, name: &str, options: &[(&str, &str)]) -> TableBuilder {
    let mut builder = TableBuilder::new(TableId(Uuid::from_u128(number)), "fixtures", name);
    builder.options.compression = options
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    builder
}

fn readings(class: &str) -> Table {
    let options = [
        ("class", class),
        ("chunk_length_in_kb", "1"),
        ("training_max_dictionary_size", "4KiB"),
    ];
    let options = if class.is_empty() {
        &[("enabled", "false")][..]
    } else {
        &options[..]
    };
    let mut builder = table(1, "readings", options);
    builder.add_column("sensor", ColumnKind::PartitionKey, CqlType::Text);
    builder.add_column("at", ColumnKind::Clustering, CqlType::Int);
    builder.add_column("value", ColumnKind::Regular, CqlType::Double);
    builder.add_column("note", ColumnKind::Regular, CqlType::Text);
    builder.build()
}

fn large() -> Table {
    let mut builder = table(
        2,
        "large",
        &[("class", "LZ4Compressor"), ("chunk_length_in_kb", "1")],
    );
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Int);
    builder.add_column("c", ColumnKind::Clustering, CqlType::Text);
    builder.add_column("s", ColumnKind::Static, CqlType::Text);
    builder.add_column("v", ColumnKind::Regular, CqlType::Int);
    builder.build()
}

fn address() -> CqlType {
    let field = |name: &str, cql_type: CqlType| UserTypeField {
        name: name.into(),
        cql_type,
    };
    CqlType::Udt {
        definition: Arc::new(UserType {
            keyspace: "fixtures".into(),
            name: "address".into(),
            fields: vec![field("street", CqlType::Text), field("number", CqlType::Int)],
        }),
        frozen: false,
    }
}

fn everything() -> Table {
    let mut builder = table(3, "everything", &[("class", "LZ4Compressor")]);
    builder.options.bloom_filter_fp_chance = 1.0;
    builder.add_column("a", ColumnKind::PartitionKey, CqlType::Int);
    builder.add_column("b", ColumnKind::PartitionKey, CqlType::Text);
    builder.add_column("c", ColumnKind::Clustering, CqlType::Int);
    builder.add_column("d", ColumnKind::Clustering, CqlType::Text);
    builder.columns[2].descending = true;
    builder.add_column("s", ColumnKind::Static, CqlType::Text);
    builder.add_column("v", ColumnKind::Regular, CqlType::Int);
    let (text, int) = (Arc::new(CqlType::Text), Arc::new(CqlType::Int));
    let list = CqlType::List {
        element: int.clone(),
        frozen: false,
    };
    builder.add_column("list", ColumnKind::Regular, list);
    let set = CqlType::Set {
        element: text.clone(),
        frozen: false,
    };
    builder.add_column("set", ColumnKind::Regular, set);
    let map = CqlType::Map {
        key: text.clone(),
        value: int,
        frozen: false,
    };
    builder.add_column("map", ColumnKind::Regular, map);
    builder.add_column("udt", ColumnKind::Regular, address());
    let frozen = CqlType::List {
        element: text,
        frozen: true,
    };
    builder.add_column("frozen", ColumnKind::Regular, frozen);
    builder.build()
}

/// Each type with a value of it as JSON.
fn types() -> Vec<(&'static str, CqlType, &'static str)> {
    let int = Arc::new(CqlType::Int);
    vec![
        ("ascii", CqlType::Ascii, "\"plain\""),
        ("bigint", CqlType::Bigint, "-9223372036854775808"),
        ("blob", CqlType::Blob, "\"0x00ff\""),
        ("boolean", CqlType::Boolean, "true"),
        ("date", CqlType::Date, "\"2024-02-29\""),
        ("decimal", CqlType::Decimal, "-12.345"),
        ("double", CqlType::Double, "0.1"),
        ("duration", CqlType::Duration, "\"1mo2d3ns\""),
        ("float", CqlType::Float, "1.5"),
        ("inet", CqlType::Inet, "\"2001:db8::1\""),
        ("int", CqlType::Int, "-1"),
        ("smallint", CqlType::Smallint, "32767"),
        ("text", CqlType::Text, "\"gr\u{fc}n \\\"quoted\\\"\""),
        ("time", CqlType::Time, "\"13:14:15.000000016\""),
        ("timestamp", CqlType::Timestamp, "\"2024-02-29 12:00:00.123Z\""),
        (
            "timeuuid",
            CqlType::Timeuuid,
            "\"5b6962dd-3f90-11e4-8ffe-00259075e5a0\"",
        ),
        ("tinyint", CqlType::Tinyint, "-128"),
        ("uuid", CqlType::Uuid, "\"123e4567-e89b-42d3-a456-426614174000\""),
        ("varint", CqlType::Varint, "123456789012345678901234567890"),
        (
            "tuple",
            CqlType::Tuple([CqlType::Int, CqlType::Text].into()),
            "[7, null]",
        ),
        (
            "vector",
            CqlType::Vector {
                element: Arc::new(CqlType::Float),
                dimension: 2,
            },
            "[0.5, -0.5]",
        ),
        (
            "map",
            CqlType::Map {
                key: int.clone(),
                value: int,
                frozen: true,
            },
            "{\"1\": 2}",
        ),
        (
            "udt",
            address().freeze(),
            "{\"street\": \"Long Lane\", \"number\": 5}",
        ),
    ]
}

fn all_types() -> Table {
    let mut builder = table(4, "types", &[("class", "LZ4Compressor")]);
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Text);
    for (name, cql_type, _) in types() {
        // Types that have an order are clustering columns too.
        if cql_type != CqlType::Duration {
            builder.add_column(&format!("c_{name}"), ColumnKind::Clustering, cql_type.freeze());
        }
    }
    for (name, cql_type, _) in types() {
        builder.add_column(&format!("v_{name}"), ColumnKind::Regular, cql_type);
    }
    builder.build()
}

fn counters() -> Table {
    let mut builder = table(5, "counters", &[("class", "LZ4Compressor")]);
    builder.add_column("k", ColumnKind::PartitionKey, CqlType::Int);
    builder.add_column("hits", ColumnKind::Regular, CqlType::Counter);
    builder.build()
}

// --- writes ----------------------------------------------------------------------------------------------------------

fn wire(cql_type: &CqlType, json: &str) -> Bytes {
    let value = from_json_text(cql_type, json).unwrap().unwrap();
    let mut out = Vec::new();
    value.encode(cql_type, &mut out).unwrap();
    out.into()
}

fn mutation(table: &Table, key: &[&str]) -> Mutation {
    let columns = table.partition_key().iter();
    let components: Vec<Bytes> = columns
        .zip(key)
        .map(|(column, json)| wire(&column.cql_type, json))
        .collect();
    Mutation::new(
        table.id,
        DecoratedKey::new(PartitionKey::from_components(&components)),
    )
}

fn prefix(table: &Table, json: &[&str]) -> Vec<Bytes> {
    let columns = table.clustering().iter();
    columns
        .zip(json)
        .map(|(column, json)| wire(&column.cql_type, json))
        .collect()
}

fn clustering(table: &Table, json: &[&str]) -> ClusteringKey {
    ClusteringKey(encode_clustering(table.clustering_types(), &prefix(table, json)).unwrap())
}

fn deletion(offset: i64) -> Deletion {
    Deletion {
        timestamp: Timestamp(WRITTEN_AT + offset),
        deleted_at: UnixSeconds(SECOND.0 + offset),
    }
}

/// Deletes the rows whose keys begin with `first` up to those that begin with `last`, or before these.
fn delete_range(table: &Table, partition: &mut Mutation, first: &[&str], last: (&[&str], bool), at: i64) {
    let encoded = |json: &[&str]| encode_prefix(table.clustering_types(), &prefix(table, json)).unwrap();
    let end = match last.1 {
        true => bound_after(&encoded(last.0)),
        false => bound_before(&encoded(last.0)),
    };
    partition.partition.delete_range(RangeTombstone {
        slice: Slice {
            start: Position(bound_before(&encoded(first))),
            end: Position(end),
        },
        deletion: deletion(at),
    });
}

fn inserted(offset: i64, expiry: Option<Expiry>) -> Row {
    Row {
        liveness: Some(Liveness {
            timestamp: Timestamp(WRITTEN_AT + offset),
            expiry,
        }),
        ..Row::default()
    }
}

fn set(table: &Table, row: &mut Row, name: &str, cell: impl FnOnce(&CqlType) -> ColumnData) {
    let column = table.column(name).unwrap();
    row.merge_column(column.id, cell(&column.cql_type));
}

fn live(row: &mut Row, table: &Table, name: &str, json: &str, offset: i64) {
    set(table, row, name, |cql_type| {
        ColumnData::Cell(Cell::live(Timestamp(WRITTEN_AT + offset), wire(cql_type, json)))
    });
}

fn reading_writes(table: &Table, rows: i64) -> Vec<Mutation> {
    let mut writes = Vec::new();
    for sensor in 0..5 {
        let mut write = mutation(table, &[&format!("\"sensor-{sensor}\"")]);
        for at in 0..rows / 5 {
            let mut row = inserted(at, None);
            live(&mut row, table, "value", &format!("{}.25", at * sensor), at);
            let note = format!("\"reading number {at} of the sensor in room {sensor}, as it was sent\"");
            live(&mut row, table, "note", &note, at);
            *write.partition.row_mut(clustering(table, &[&at.to_string()])) = row;
        }
        writes.push(write);
    }
    writes
}

fn large_writes(table: &Table) -> Vec<Mutation> {
    let mut writes = Vec::new();
    for (k, rows) in [("1", 3), ("2", 400), ("3", 3)] {
        let mut write = mutation(table, &[k]);
        live(&mut write.partition.static_row, table, "s", "\"static\"", 0);
        let name = |number: i64| format!("\"{number:05}-{}\"", "long name ".repeat(20));
        for number in 0..rows {
            let mut row = inserted(number, None);
            live(&mut row, table, "v", &number.to_string(), number);
            *write.partition.row_mut(clustering(table, &[&name(number)])) = row;
        }
        // Over many blocks, and within one.
        delete_range(table, &mut write, &["\"00100\""], (&["\"00150\""], false), -5);
        delete_range(table, &mut write, &[&name(151)], (&[&name(151)], true), 7_000_000);
        write.partition.normalize();
        writes.push(write);
    }
    writes
}

fn everything_writes(table: &Table) -> Vec<Mutation> {
    let mut writes = Vec::new();
    let mut write = mutation(table, &["1", "\"rows\""]);
    live(&mut write.partition.static_row, table, "s", "\"static\"", 1);
    for (c, d) in [("1", "\"a\""), ("1", "\"b\""), ("2", "\"a\""), ("3", "\"\"")] {
        let mut row = inserted(10, None);
        live(&mut row, table, "v", c, 10);
        live(&mut row, table, "frozen", "[\"x\", \"y\"]", 12);
        *write.partition.row_mut(clustering(table, &[c, d])) = row;
    }
    let deleted = write.partition.row_mut(clustering(table, &["9", "\"deleted\""]));
    deleted.delete(deletion(20));
    let row = write.partition.row_mut(clustering(table, &["8", "\"null\""]));
    *row = inserted(30, None);
    set(table, row, "v", |_| {
        ColumnData::Cell(Cell::tombstone(Timestamp(WRITTEN_AT + 30), SECOND))
    });
    delete_range(table, &mut write, &["7"], (&["5"], true), 40);
    delete_range(table, &mut write, &["5", "\"m\""], (&["4"], false), 41);
    writes.push(write);

    let mut write = mutation(table, &["2", "\"ttl\""]);
    for (c, ttl) in [("1", 60), ("2", 600_000_000)] {
        let expiry = Expiry::after(SECOND, Ttl(ttl));
        let row = write.partition.row_mut(clustering(table, &[c, "\"\""]));
        *row = inserted(50, Some(expiry));
        set(table, row, "v", |cql_type| {
            let value = wire(cql_type, c);
            ColumnData::Cell(Cell::with_expiry(Timestamp(WRITTEN_AT + 50), value, Some(expiry)))
        });
    }
    writes.push(write);

    let mut write = mutation(table, &["3", "\"collections\""]);
    let row = write.partition.row_mut(clustering(table, &["1", "\"\""]));
    *row = inserted(60, None);
    for (name, elements) in [
        ("list", [("", "10"), ("", "20")]),
        ("set", [("\"a\"", ""), ("\"b\"", "")]),
        ("map", [("\"a\"", "1"), ("\"b\"", "2")]),
        ("udt", [("", "\"Long Lane\""), ("", "7")]),
    ] {
        set(table, row, name, |cql_type| collection(cql_type, elements));
    }
    writes.push(write);

    let mut write = mutation(table, &["4", "\"partition tombstone\""]);
    write.partition.deletion = Some(deletion(70));
    writes.push(write);
    writes
}

/// A collection with two elements, over a deletion of what was there before. An element without a value in JSON has
/// none.
fn collection(cql_type: &CqlType, elements: [(&str, &str); 2]) -> ColumnData {
    let mut collection = Collection {
        deletion: Some(deletion(59)),
        cells: Vec::new(),
    };
    for (number, (path, value)) in elements.into_iter().enumerate() {
        let component = |cql_type: &CqlType| {
            let mut out = Vec::new();
            encode_component(cql_type, false, &wire(cql_type, path), &mut out).unwrap();
            Bytes::from(out)
        };
        let (path, value_type) = match cql_type {
            CqlType::Set { element, .. } => (component(element), None),
            CqlType::Map { key, value, .. } => (component(key), Some((**value).clone())),
            CqlType::List { element, .. } => {
                let id = Uuid::from_u128(0x5b69_62dd_3f90_11e4_8ffe_0025_9075_e5a0 + number as u128);
                (Bytes::copy_from_slice(id.as_bytes()), Some((**element).clone()))
            }
            CqlType::Udt { definition, .. } => {
                let field = (number as u16).to_be_bytes();
                (
                    Bytes::copy_from_slice(&field),
                    Some(definition.fields[number].cql_type.clone()),
                )
            }
            other => panic!("{other} is no collection"),
        };
        let value = value_type.map_or(Bytes::new(), |cql_type| wire(&cql_type, value));
        collection.merge_cell(path, Cell::live(Timestamp(WRITTEN_AT + 60), value));
    }
    ColumnData::Collection(collection)
}

fn type_writes(table: &Table) -> Vec<Mutation> {
    let mut write = mutation(table, &["\"all types\""]);
    let keys: Vec<&str> = types()
        .into_iter()
        .filter(|(_, cql_type, _)| *cql_type != CqlType::Duration)
        .map(|(.., json)| json)
        .collect();
    let mut row = inserted(0, None);
    for (name, _, json) in types() {
        live(&mut row, table, &format!("v_{name}"), json, 0);
    }
    *write.partition.row_mut(clustering(table, &keys)) = row;
    vec![write]
}

fn counter_writes(table: &Table) -> Vec<Mutation> {
    let mut writes = Vec::new();
    for (k, counts) in [("1", &[(1, 5), (2, -3)][..]), ("2", &[(1, i64::MAX)])] {
        let mut write = mutation(table, &[k]);
        for (leader, count) in counts {
            let update = counter_update(None, Uuid::from_u128(*leader), *count, WRITTEN_AT);
            let row = write.partition.row_mut(clustering(table, &[]));
            set(table, row, "hits", |_| ColumnData::Collection(update));
        }
        writes.push(write);
    }
    writes
}

// --- files -----------------------------------------------------------------------------------------------------------

fn write(root: &Path, name: &str, table: &Table, writes: Vec<Mutation>) {
    let dir = root.join(name);
    if dir.exists() {
        println!("{} is there already", dir.display());
        return;
    }
    let disk = MemoryDisk::new(1);
    let env = MemoryEnv::new(disk.clone(), 1);
    let table = Arc::new(table.clone());
    let keyspace = Keyspace {
        name: table.keyspace.clone(),
        durable_writes: true,
        replication: ReplicationOptions::default(),
        tables: [(table.name.clone(), table.clone())].into(),
        types: Default::default(),
        functions: Default::default(),
        is_virtual: false,
    };
    let schema = Arc::new(Schema::default().with_keyspace(keyspace, Uuid::from_u128(1)));
    env.block_on(async {
        let options = StorageOptions::new("/ceto", 0, 1);
        let database = Database::open(env.clone(), options, schema.clone())
            .await
            .unwrap();
        database.finish_recovery(schema).await.unwrap();
        for write in writes {
            database.write(write).await.unwrap();
        }
        database.flush(Some(table.id)).await.unwrap();
    })
    .unwrap();
    fs::create_dir_all(&dir).unwrap();
    for file in disk.files() {
        let file_name = file.file_name().unwrap().to_str().unwrap();
        if file_name.starts_with("ceto-a-") {
            fs::write(dir.join(file_name), disk.content(&file).unwrap()).unwrap();
        }
    }
    fs::write(dir.join("dump.jsonl"), dumped(&dir)).unwrap();
    println!("wrote {}", dir.display());
}

fn dumped(dir: &Path) -> Vec<u8> {
    let env = FileEnv::new();
    FileEnv::block_on(async {
        let mut out = Vec::new();
        for descriptor in find(&*ceto_env::Env::disk(&*env), dir).await.unwrap() {
            let files = SstableFiles::open(env.clone(), descriptor).await.unwrap();
            dump(&files, &DumpOptions::default(), NOW, &mut out)
                .await
                .unwrap();
        }
        out
    })
}
