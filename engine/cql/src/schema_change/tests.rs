//! Golden tests: `golden/NAME.cql` holds statements separated by blank lines, run one after the other on one schema;
//! `golden/NAME.out` what each answers. `UPDATE_EXPECT=1 cargo test -p ceto-cql` writes the latter anew.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::ast::Statement;
use crate::describe::{ClusterDescription, DescribeRequest};
use crate::parse_statement;
use ceto_model::schema::{Column, TableBuilder};
use ceto_model::{ColumnId, ColumnKind, CqlType, Keyspace, TableId};
use expect_test::{ExpectFile, expect_file};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A schema and one who changes it.
pub(crate) struct Session {
    pub(crate) schema: Schema,
    keyspace: Option<Arc<str>>,
    /// Tables made so far, for ids.
    tables: u128,
}

/// When columns are dropped in tests, microseconds.
const NOW: i64 = 1_700_000_000_000_000;

impl Session {
    pub(crate) fn new() -> Session {
        let system = Keyspace {
            name: "system".into(),
            durable_writes: true,
            replication: ReplicationOptions(
                [(
                    "class".to_owned(),
                    "org.apache.cassandra.locator.LocalStrategy".to_owned(),
                )]
                .into(),
            ),
            tables: BTreeMap::new(),
            types: BTreeMap::new(),
            functions: Default::default(),
            is_virtual: false,
        };
        let mut view = TableBuilder::new(TableId(Uuid::from_u128(1)), "system_views", "clients");
        view.is_virtual = true;
        view.options.comment = "currently connected clients".to_owned();
        view.add_column("address", ColumnKind::PartitionKey, CqlType::Inet);
        view.add_column("port", ColumnKind::Clustering, CqlType::Int);
        view.add_column("username", ColumnKind::Regular, CqlType::Text);
        let views = Keyspace {
            name: "system_views".into(),
            tables: [("clients".into(), Arc::new(view.build()))].into(),
            is_virtual: true,
            ..system.clone()
        };
        let schema = Schema::default()
            .with_keyspace(system, Uuid::nil())
            .with_keyspace(views, Uuid::nil());
        Session {
            schema,
            keyspace: None,
            tables: 0,
        }
    }

    /// What a statement answers; the schema changes if it says so.
    pub(crate) fn run(&mut self, text: &str) -> Result<String, CqlError> {
        match parse_statement(text)?.statement {
            Statement::Use(keyspace) => {
                self.keyspace = Some(keyspace);
                Ok("ok".to_owned())
            }
            Statement::Describe(describe) => {
                let cluster = ClusterDescription {
                    name: "Test Cluster",
                    partitioner: "org.apache.cassandra.dht.Murmur3Partitioner",
                    snitch: "org.apache.cassandra.locator.SimpleSnitch",
                    range_ownership: &|_| vec![("5".to_owned(), vec!["127.0.0.1".to_owned()])],
                    access: None,
                };
                let request = DescribeRequest::new(describe, self.keyspace.clone());
                let answer = request.rows(&self.schema, &cluster)?;
                let rows = answer.rows.iter().map(|row| {
                    let cells = row.iter().map(|cell| {
                        String::from_utf8_lossy(cell.as_deref().unwrap_or_default()).replace('\0', ".")
                    });
                    cells.collect::<Vec<_>>().join(" | ")
                });
                let names: Vec<&str> = answer.columns.iter().map(|column| &*column.name).collect();
                Ok([names.join(" | ")]
                    .into_iter()
                    .chain(rows)
                    .collect::<Vec<_>>()
                    .join("\n"))
            }
            statement => {
                self.tables += 1;
                let id = Uuid::from_u128(0xceb0_0000 + self.tables);
                let keyspace = self.keyspace.as_deref();
                let change = SchemaChange::prepare(&statement, keyspace, id).expect("a schema statement")?;
                let Some(next) = change.apply(&self.schema, NOW)? else {
                    return Ok("nothing to do".to_owned());
                };
                assert_eq!(next.version, Uuid::nil());
                check_invariants(&next);
                let event = change.event(&self.schema);
                self.schema = next;
                Ok(format!(
                    "{:?} {} {:?}",
                    event.change, event.keyspace, event.target
                ))
            }
        }
    }
}

/// What holds of every schema.
fn check_invariants(schema: &Schema) {
    for keyspace in schema.keyspaces() {
        for user_type in keyspace.types.values() {
            for field in &user_type.fields {
                check_definitions(&field.cql_type, keyspace);
            }
        }
        for table in keyspace.tables.values() {
            let ids: BTreeSet<ColumnId> = table.columns().iter().map(|column| column.id).collect();
            let dropped: BTreeSet<ColumnId> = table.dropped.iter().map(|column| column.id).collect();
            for column in &table.dropped {
                let same_id = table.column_by_id(column.id).map(|column| &*column.name);
                assert!(same_id.is_none_or(|name| name == &*column.name));
                let same_name = table.column(&column.name).map(|column| column.id);
                assert!(same_name.is_none_or(|id| id == column.id));
            }
            assert_eq!(ids.len(), table.columns().len());
            let own = table
                .columns()
                .iter()
                .filter(|column| !(column.is_hidden && column.is_primary_key()));
            let own: BTreeSet<ColumnId> = own.map(|column| column.id).collect();
            assert!(own.iter().chain(&dropped).all(|id| id.0 < table.next_column_id));
            let check = |column: &Column| check_definitions(&column.cql_type, keyspace);
            table.columns().iter().for_each(check);
        }
    }
}

/// Every definition in use is the keyspace's own.
fn check_definitions(cql_type: &CqlType, keyspace: &Keyspace) {
    type_use::for_each_definition(cql_type, &mut |definition| {
        assert!(Arc::ptr_eq(definition, &keyspace.types[&definition.name]));
    });
}

fn check_golden(statements: &str, expected: ExpectFile) {
    let mut session = Session::new();
    let mut out = String::new();
    let statements = statements.split("\n\n").map(str::trim);
    for statement in statements.filter(|statement| !statement.is_empty()) {
        let answer = session
            .run(statement)
            .unwrap_or_else(|error| format!("{error:?}"));
        writeln!(out, "> {}\n{answer}\n", statement.replace('\n', "\n> ")).unwrap();
    }
    expected.assert_eq(&out);
}

macro_rules! golden {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let statements = include_str!(concat!("golden/", stringify!($name), ".cql"));
            check_golden(statements, expect_file![concat!("golden/", stringify!($name), ".out")]);
        }
    )*};
}

golden!(keyspaces tables alter_table copy_table user_types types options describe indexes views refusals);

fn chain_of_types(
    session: &mut Session,
    count: usize,
    field: impl Fn(usize) -> String,
) -> Result<usize, CqlError> {
    session.run("CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy'}")?;
    session.run("USE ks")?;
    session.run("CREATE TYPE t0 (a int)")?;
    for i in 1..count {
        if let Err(error) = session.run(&format!("CREATE TYPE t{i} ({})", field(i - 1))) {
            assert!(matches!(error, CqlError::Invalid(_)), "{error:?}");
            return Ok(i);
        }
    }
    Ok(count)
}

#[test]
fn types_are_bounded_in_depth() {
    let mut session = Session::new();
    let made = chain_of_types(&mut session, 100, |i| format!("a frozen<t{i}>")).unwrap();
    assert!((10..=80).contains(&made), "{made}");
    // the deepest one fits where it is, but not one level deeper
    let deepest = format!("t{}", made - 1);
    session.run("CREATE TYPE inner (a int)").unwrap();
    session.run("CREATE TYPE outer (a frozen<inner>)").unwrap();
    session
        .run(&format!("ALTER TYPE inner ADD b frozen<{deepest}>"))
        .unwrap_err();
}

#[test]
fn types_are_bounded_in_size() {
    let mut session = Session::new();
    let two = |i: usize| format!("a frozen<t{i}>, b frozen<t{i}>, c frozen<t{i}>");
    let made = chain_of_types(&mut session, 100, two).unwrap();
    assert!((4..=10).contains(&made), "{made}");
    // growth of an inner type is growth of those that use it
    let wide: Vec<String> = (0..types::TYPE_NODES_MAX / 2)
        .map(|i| format!("f{i} int"))
        .collect();
    session
        .run(&format!("CREATE TYPE wide ({})", wide.join(", ")))
        .unwrap();
    let error = session.run("ALTER TYPE t0 ADD w frozen<wide>").unwrap_err();
    assert!(error.to_string().contains("consists of more than"), "{error}");
}

#[test]
fn a_replication_can_be_completed() {
    let text = "CREATE KEYSPACE ks WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}";
    let statement = parse_statement(text).unwrap().statement;
    let change = SchemaChange::prepare(&statement, None, Uuid::nil())
        .unwrap()
        .unwrap();
    let mut replication = change.replication().unwrap().clone();
    assert_eq!(
        replication.0["class"],
        "org.apache.cassandra.locator.NetworkTopologyStrategy"
    );
    replication.0.insert("dc2".to_owned(), "1".to_owned());
    let next = change
        .with_replication(replication.clone())
        .apply(&Schema::default(), NOW)
        .unwrap()
        .unwrap();
    assert_eq!(next.keyspace("ks").unwrap().replication, replication);
    // not a schema statement
    let select = parse_statement("SELECT * FROM t").unwrap().statement;
    assert!(SchemaChange::prepare(&select, None, Uuid::nil()).is_none());
}

#[test]
fn a_column_that_comes_back_keeps_its_id() {
    let mut session = Session::new();
    for statement in [
        "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy'}",
        "USE ks",
        "CREATE TYPE u (a int, b text)",
        "CREATE TABLE t (k int PRIMARY KEY, v frozen<u>, w int)",
        "ALTER TABLE t DROP v",
        "ALTER TABLE t ADD v frozen<u>",
        "ALTER TABLE t DROP v USING TIMESTAMP 5",
        "DROP TYPE u",
        "ALTER TABLE t ADD x int",
    ] {
        session
            .run(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let table = session.schema.table("ks", "t").unwrap();
    assert_eq!(table.dropped.len(), 1);
    let dropped = &table.dropped[0];
    assert_eq!((dropped.id, dropped.dropped_at), (ColumnId(1), 5));
    assert_eq!(
        dropped.cql_type,
        CqlType::Tuple([CqlType::Int, CqlType::Text].into())
    );
    assert_eq!(table.column("x").unwrap().id, ColumnId(4));
}

#[test]
fn columns_are_bounded() {
    let mut session = Session::new();
    session
        .run("CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy'}")
        .unwrap();
    let columns =
        |range: std::ops::Range<usize>| range.map(|i| format!("c{i} int")).collect::<Vec<_>>().join(", ");
    let many = create_table::COLUMNS_MAX;
    let create = |count| format!("CREATE TABLE ks.t ({}, PRIMARY KEY (c0))", columns(0..count));
    assert!(session.run(&create(many + 1)).is_err());
    session.run(&create(many)).unwrap();
    assert!(session.run("ALTER TABLE ks.t ADD one_more int").is_err());
    let names: Vec<String> = (1..many).map(|i| format!("c{i}")).collect();
    session
        .run(&format!("ALTER TABLE ks.t DROP ({})", names.join(", ")))
        .unwrap();
    session
        .run(&format!("ALTER TABLE ks.t ADD ({})", columns(1..many)))
        .unwrap();
    let wide = format!(
        "CREATE TABLE ks.u ({}, PRIMARY KEY (c0, {}))",
        columns(0..300),
        names[..299].join(", ")
    );
    let error = session.run(&wide).unwrap_err().to_string();
    assert!(error.contains("in its PRIMARY KEY"), "{error}");
}
