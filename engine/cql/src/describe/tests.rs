//! What DESCRIBE prints makes the schema that it was printed from.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::ast::{Describe, DescribeTarget};
use crate::options::{altered_table_options, test_properties};
use crate::schema_change::tests::Session;
use ceto_model::schema::{DroppedColumn, ReplicationOptions, TableBuilder, TableOptions};
use ceto_model::{
    Column, ColumnId, ColumnKind, CqlType, Keyspace, Schema, Table, TableId, UserType, UserTypeField,
};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// The statements of DESCRIBE SCHEMA.
fn statements(schema: &Schema, with_internals: bool) -> Vec<String> {
    let describe = Describe {
        target: DescribeTarget::Schema { full: false },
        with_internals,
    };
    let cluster = ClusterDescription {
        name: "",
        partitioner: "",
        snitch: "",
        range_ownership: &|_| Vec::new(),
        access: None,
    };
    let answer = DescribeRequest::new(describe, None)
        .rows(schema, &cluster)
        .unwrap();
    let texts = answer
        .rows
        .iter()
        .map(|row| String::from_utf8(row[3].as_ref().unwrap().to_vec()).unwrap());
    // the names that are generated have no line breaks, so a statement ends with a line
    texts
        .flat_map(|text| {
            let parts = text
                .split(";\n")
                .map(|part| format!("{};", part.trim_end_matches(';')));
            parts.collect::<Vec<_>>()
        })
        .collect()
}

/// Names that must be quoted, and some that need not.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9_]{0,6}",
        "[A-Za-z0-9_]{1,6}",
        "\\PC{1,5}",
        select(vec![
            "select",
            "table",
            "key",
            "ttl",
            "json",
            "int",
            "list",
            "map",
            "tuple",
            "true",
            "null",
            "nan",
            "p1y",
            "P1Y",
            "token",
            "count",
            "writetime",
            "frozen",
            "static",
            "e1",
            "0x1",
            "a\"b",
            "''",
            "$$",
            "--",
            "empty",
            "byte",
            "5bc52802-de25-35ed-aeab-188eecebb090",
        ])
        .prop_map(str::to_owned),
    ]
}

/// Names of keyspaces and tables.
fn plain_name() -> impl Strategy<Value = String> {
    prop_oneof!["[A-Za-z0-9_]{1,48}", "[a-z]{1,3}", Just("table".to_owned())]
}

fn scalar() -> impl Strategy<Value = CqlType> {
    select(vec![
        CqlType::Ascii,
        CqlType::Bigint,
        CqlType::Blob,
        CqlType::Boolean,
        CqlType::Date,
        CqlType::Decimal,
        CqlType::Double,
        CqlType::Float,
        CqlType::Inet,
        CqlType::Int,
        CqlType::Smallint,
        CqlType::Text,
        CqlType::Time,
        CqlType::Timestamp,
        CqlType::Timeuuid,
        CqlType::Tinyint,
        CqlType::Uuid,
        CqlType::Varint,
    ])
}

/// A type that holds a value as a whole; a user-defined type is drawn from `types` later, by its index.
#[derive(Clone, Debug)]
enum Shape {
    Scalar(CqlType),
    List(Box<Shape>),
    Set(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Tuple(Vec<Shape>),
    Vector(Box<Shape>, u16),
    User(usize),
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![4 => scalar().prop_map(Shape::Scalar), 1 => (0..8usize).prop_map(Shape::User)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|element| Shape::List(Box::new(element))),
            inner.clone().prop_map(|element| Shape::Set(Box::new(element))),
            (inner.clone(), inner.clone())
                .prop_map(|(key, value)| Shape::Map(Box::new(key), Box::new(value))),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Shape::Tuple),
            (inner, 1..5u16).prop_map(|(element, dimension)| Shape::Vector(Box::new(element), dimension)),
        ]
    })
}

/// The type of a shape; what is inside is always frozen.
fn type_of(shape: &Shape, frozen: bool, types: &[Arc<UserType>]) -> CqlType {
    let inner = |shape: &Shape| Arc::new(type_of(shape, true, types));
    match shape {
        Shape::Scalar(scalar) => scalar.clone(),
        Shape::List(element) => CqlType::List {
            element: inner(element),
            frozen,
        },
        Shape::Set(element) => CqlType::Set {
            element: inner(element),
            frozen,
        },
        Shape::Map(key, value) => CqlType::Map {
            key: inner(key),
            value: inner(value),
            frozen,
        },
        Shape::Tuple(elements) => CqlType::Tuple(
            elements
                .iter()
                .map(|element| type_of(element, true, types))
                .collect(),
        ),
        Shape::Vector(element, dimension) => CqlType::Vector {
            element: inner(element),
            dimension: *dimension,
        },
        Shape::User(index) => match types.get(index % types.len().max(1)) {
            Some(definition) => CqlType::Udt {
                definition: definition.clone(),
                // a field that is not frozen cannot be in a column that is not
                frozen: frozen
                    || definition
                        .fields
                        .iter()
                        .any(|field| field.cql_type.is_multicell()),
            },
            None => CqlType::Int,
        },
    }
}

fn options() -> impl Strategy<Value = TableOptions> {
    let texts = vec![
        "gc_grace_seconds = 5",
        "comment = 'it''s -- /* $$ \"quoted\"'",
        "compaction = {'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': 5}",
        "compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'minutes'}",
        "compaction = {'class': 'UnifiedCompactionStrategy', 'sstable_growth': '0.5'}",
        "compression = {'enabled': 'false'}",
        "compression = {'class': 'ZstdCompressor', 'chunk_length_in_kb': 4, 'min_compress_ratio': 1.25}",
        "caching = {'keys': 'ALL', 'rows_per_partition': 10}",
        "bloom_filter_fp_chance = 0.0001",
        "crc_check_chance = 0.3",
        "extensions = {'a''b': 0xff, 'empty': 0x}",
        "speculative_retry = 'MIN(0.5p,3ms)' AND additional_write_policy = 'NEVER'",
        "read_repair = 'NONE' AND cdc = true AND allow_auto_snapshot = false AND incremental_backups = false",
        "min_index_interval = 1 AND max_index_interval = 1 AND memtable_flush_period_in_ms = 7",
        "default_time_to_live = 9 AND memtable = 'skiplist'",
    ];
    prop::collection::vec(select(texts), 0..4).prop_map(|texts| {
        texts.iter().fold(TableOptions::default(), |options, text| {
            altered_table_options(&options, &test_properties(text)).unwrap()
        })
    })
}

#[derive(Clone, Debug)]
struct TableDraft {
    id: u128,
    columns: Vec<(String, Shape, bool, bool)>,
    partition_key: usize,
    clustering: usize,
    dropped: Vec<(String, Shape, bool)>,
    is_counter: bool,
    options: TableOptions,
}

fn table_draft() -> impl Strategy<Value = TableDraft> {
    (
        any::<u128>(),
        prop::collection::vec((name(), shape(), any::<bool>(), any::<bool>()), 1..7),
        (1..3usize, 0..3usize),
        prop::collection::vec((name(), shape(), any::<bool>()), 0..3),
        prop::bool::weighted(0.1),
        options(),
    )
        .prop_map(
            |(id, columns, (partition_key, clustering), dropped, is_counter, options)| TableDraft {
                id,
                columns,
                partition_key,
                clustering,
                dropped,
                is_counter,
                options,
            },
        )
}

fn build_table(keyspace: &str, name: &str, draft: &TableDraft, types: &[Arc<UserType>]) -> Table {
    let mut builder = TableBuilder::new(TableId(Uuid::from_u128(draft.id)), keyspace, name);
    builder.options = draft.options.clone();
    if draft.is_counter {
        builder.options.default_time_to_live = 0;
    }
    let mut names = BTreeSet::new();
    for (i, (name, shape, is_static, descending)) in draft.columns.iter().enumerate() {
        if !names.insert(name.clone()) {
            continue;
        }
        let kind = if i < draft.partition_key {
            ColumnKind::PartitionKey
        } else if i < draft.partition_key + draft.clustering {
            ColumnKind::Clustering
        } else if *is_static
            && builder
                .columns
                .iter()
                .any(|column| column.kind == ColumnKind::Clustering)
        {
            ColumnKind::Static
        } else {
            ColumnKind::Regular
        };
        let is_key = matches!(kind, ColumnKind::PartitionKey | ColumnKind::Clustering);
        let cql_type = if draft.is_counter && !is_key {
            CqlType::Counter
        } else {
            type_of(shape, is_key, types)
        };
        builder.add_column(name, kind, cql_type);
        if let Some(column) = builder.columns.last_mut() {
            column.descending = *descending && kind == ColumnKind::Clustering;
        }
    }
    for (dropped_at, (name, shape, is_static)) in (1..).zip(&draft.dropped) {
        let mut others = builder.columns.iter();
        if draft.is_counter || others.any(|other| *other.name == **name) || !names.insert(name.clone()) {
            continue;
        }
        let has_clustering = builder
            .columns
            .iter()
            .any(|column| column.kind == ColumnKind::Clustering);
        builder.dropped.push(DroppedColumn {
            id: ColumnId(builder.next_column_id),
            name: name.as_str().into(),
            kind: if *is_static && has_clustering {
                ColumnKind::Static
            } else {
                ColumnKind::Regular
            },
            cql_type: type_of(shape, false, &[]),
            dropped_at,
        });
        builder.next_column_id += 1;
    }
    builder.dropped.sort_by(|a, b| a.name.cmp(&b.name));
    // every other one has come back
    for dropped in builder.dropped.clone().iter().step_by(2) {
        builder.add_column(&dropped.name, dropped.kind, dropped.cql_type.clone());
    }
    builder.build()
}

fn keyspace() -> impl Strategy<Value = Keyspace> {
    let fields = prop::collection::vec((name(), shape(), any::<bool>()), 1..4);
    (
        plain_name(),
        any::<bool>(),
        prop::collection::btree_map(name(), fields, 0..4),
        prop::collection::btree_map(plain_name(), table_draft(), 0..4),
    )
        .prop_map(|(name, durable_writes, type_drafts, table_drafts)| {
            let keyspace: Arc<str> = name.as_str().into();
            let mut types: Vec<Arc<UserType>> = Vec::new();
            for (name, fields) in type_drafts {
                let mut names = BTreeSet::new();
                let fields = fields.iter().filter(|(name, ..)| names.insert(name.clone()));
                let field = |(name, shape, frozen): &(String, Shape, bool)| UserTypeField {
                    name: name.as_str().into(),
                    cql_type: type_of(shape, *frozen || matches!(shape, Shape::User(_)), &types),
                };
                let definition = UserType {
                    keyspace: keyspace.clone(),
                    name: name.as_str().into(),
                    fields: fields.map(field).collect(),
                };
                types.push(Arc::new(definition));
            }
            let table = |(name, draft): (&String, &TableDraft)| {
                let table = build_table(&keyspace, name, draft, &types);
                (table.name.clone(), Arc::new(table))
            };
            let tables: BTreeMap<_, _> = table_drafts.iter().map(table).collect();
            let class = "org.apache.cassandra.locator.NetworkTopologyStrategy";
            let replication = [("class", class), ("it's", "3"), ("a", "1")];
            Keyspace {
                name: keyspace.clone(),
                durable_writes,
                replication: ReplicationOptions(
                    replication.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                ),
                tables,
                types: types
                    .iter()
                    .map(|user_type| (user_type.name.clone(), user_type.clone()))
                    .collect(),
                functions: Default::default(),
                is_virtual: false,
            }
        })
}

/// A column without its id, which depends on the order in which columns came.
fn content(column: &Column) -> Column {
    Column {
        id: ColumnId(0),
        ..column.clone()
    }
}

fn assert_alike(one: &Schema, other: &Schema, with_internals: bool) {
    let names = |schema: &Schema| -> Vec<Arc<str>> {
        schema.keyspaces().map(|keyspace| keyspace.name.clone()).collect()
    };
    assert_eq!(names(one), names(other));
    for (one, other) in one.keyspaces().zip(other.keyspaces()) {
        assert_eq!(one.types, other.types);
        assert_eq!(
            (one.durable_writes, &one.replication),
            (other.durable_writes, &other.replication)
        );
        assert_eq!(
            one.tables.keys().collect::<Vec<_>>(),
            other.tables.keys().collect::<Vec<_>>()
        );
        for (one, other) in one.tables.values().zip(other.tables.values()) {
            let columns = |table: &Table| -> Vec<Column> { table.columns().iter().map(content).collect() };
            assert_eq!(columns(one), columns(other));
            assert_eq!(one.options, other.options);
            if with_internals {
                let dropped = |table: &Table| -> Vec<_> {
                    let without_id = |dropped: &DroppedColumn| DroppedColumn {
                        id: ColumnId(0),
                        ..dropped.clone()
                    };
                    table.dropped.iter().map(without_id).collect()
                };
                assert_eq!(one.id, other.id);
                assert_eq!(dropped(one), dropped(other));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_described_schema_is_made_again(
        keyspaces in prop::collection::vec(keyspace(), 1..3),
        with_internals in any::<bool>(),
    ) {
        let mut session = Session::new();
        let empty = session.schema.clone();
        let mut schema = empty.clone();
        let mut ids = BTreeSet::new();
        for keyspace in keyspaces {
            if keyspace.tables.values().all(|table| ids.insert(table.id)) {
                schema = schema.with_keyspace(keyspace, Uuid::nil());
            }
        }
        let texts = statements(&schema, with_internals);
        for text in &texts {
            if let Err(error) = session.run(text) {
                return Err(TestCaseError::fail(format!("{error}\n{text}")));
            }
        }
        assert_alike(&schema, &session.schema, with_internals);
        // ids of tables and the times of drops are part of the text only with internals
        prop_assert_eq!(statements(&session.schema, with_internals), texts);
    }
}

#[test]
fn functions_are_described_as_cassandra_does() {
    let mut session = Session::new();
    let replication = "replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
    let texts = [
        "CREATE FUNCTION \"Ks\".plus(\"A\" int, b frozen<tuple<int, text>>)\n    RETURNS NULL ON NULL INPUT\n    \
         RETURNS int\n    LANGUAGE lua\n    AS $$ return \"it's\" $$;",
        "CREATE FUNCTION \"Ks\".plus(l list<frozen<list<int>>>)\n    CALLED ON NULL INPUT\n    RETURNS \
         set<text>\n    LANGUAGE lua\n    AS 'return \"it''s $$\"';",
        "CREATE FUNCTION \"Ks\".\"to text\"(s map<int, \"My type\">)\n    CALLED ON NULL INPUT\n    RETURNS \
         text\n    LANGUAGE lua\n    AS $$return s$$;",
        "CREATE FUNCTION \"Ks\".\"up date\"(s map<int, \"My type\">, v int)\n    CALLED ON NULL INPUT\n    \
         RETURNS map<int, \"My type\">\n    LANGUAGE lua\n    AS $$return s$$;",
        "CREATE AGGREGATE \"Ks\".\"a,b\"(int)\n    SFUNC \"up date\"\n    STYPE map<int, \"My type\">\n    \
         FINALFUNC \"to text\"\n    INITCOND {1: {\"F\": 'x'}};",
    ];
    session
        .run(&format!("CREATE KEYSPACE \"Ks\" WITH {replication}"))
        .unwrap();
    session
        .run("CREATE TYPE \"Ks\".\"My type\" (\"F\" text)")
        .unwrap();
    for text in texts {
        let text = text
            .replace("frozen<tuple<int, text>>", "tuple<int, text>")
            .replace("map<int, \"My type\">", "map<int, frozen<\"My type\">>");
        session.run(&text).unwrap();
    }
    let described = session.run("DESCRIBE KEYSPACE \"Ks\"").unwrap();
    for text in texts {
        let text = text
            .replace("frozen<tuple<int, text>>", "tuple<int, text>")
            .replace("map<int, \"My type\">", "map<int, frozen<\"My type\">>");
        assert!(described.contains(&text), "{text}\n{described}");
    }
    let names = session.run("DESCRIBE FUNCTIONS").unwrap();
    assert_eq!(
        names,
        "keyspace_name | type | name\n\"Ks\" | function | plus(int, tuple<int, text>)\n\"Ks\" | function | \
         plus(list<frozen<list<int>>>)\n\"Ks\" | function | \"to text\"(map<int, frozen<\"My type\">>)\n\"Ks\" | \
         function | \"up date\"(map<int, frozen<\"My type\">>, int)"
    );
    let names = session.run("DESCRIBE AGGREGATES").unwrap();
    assert_eq!(
        names,
        "keyspace_name | type | name\n\"Ks\" | aggregate | \"a,b\"(int)"
    );
    // The text of a keyspace makes it again.
    let before = session.schema.keyspace("Ks").unwrap().functions.clone();
    let mut again = Session::new();
    for statement in described.split(" | ").filter(|part| part.starts_with("CREATE")) {
        let statement = statement.rsplit_once(";\n").map_or(statement, |(text, _)| text);
        again.run(statement.trim_end_matches(';')).unwrap();
    }
    assert_eq!(again.schema.keyspace("Ks").unwrap().functions, before);
    let missing = session.run("DESCRIBE FUNCTION \"Ks\".absent").unwrap_err();
    assert_eq!(
        missing.to_string(),
        "User defined function 'absent' not found in 'Ks'"
    );
}
