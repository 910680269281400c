//! The Rust driver against a node: definitions, types, prepared statements, paging, batches, shards, errors.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use ceto_client_tests::Server;
use futures::{StreamExt, TryStreamExt, stream};
use scylla::client::Compression;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::unprepared::Statement;
use scylla::value::{
    Counter, CqlDate, CqlDecimal, CqlDuration, CqlTime, CqlTimestamp, CqlTimeuuid, CqlValue, CqlVarint,
    MaybeUnset,
};
use uuid::Uuid;

async fn connect(server: &Server) -> Session {
    SessionBuilder::new()
        .known_node(server.address())
        .build()
        .await
        .unwrap()
}

/// A node and a session in a keyspace.
async fn start(shards: u16) -> (Server, Session) {
    let server = Server::start(shards);
    let session = connect(&server).await;
    run(
        &session,
        "CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
    )
    .await;
    session.use_keyspace("k", false).await.unwrap();
    (server, session)
}

async fn run(session: &Session, text: &str) {
    session
        .query_unpaged(text, ())
        .await
        .unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// The values of the first column.
async fn column(session: &Session, text: &str) -> Vec<CqlValue> {
    let result = session
        .query_unpaged(text, ())
        .await
        .unwrap()
        .into_rows_result()
        .unwrap();
    let rows = result.rows::<scylla::value::Row>().unwrap();
    rows.map(|row| row.unwrap().columns.into_iter().next().unwrap().unwrap())
        .collect()
}

fn values() -> Vec<(&'static str, CqlValue)> {
    let text = |text: &str| CqlValue::Text(text.to_owned());
    let uuid = Uuid::parse_str("50554d6e-29bb-11e5-b345-feff819cdc9f").unwrap();
    vec![
        ("ascii", CqlValue::Ascii("plain".to_owned())),
        ("bigint", CqlValue::BigInt(i64::MIN)),
        ("blob", CqlValue::Blob(vec![0, 255, 127])),
        ("boolean", CqlValue::Boolean(true)),
        ("date", CqlValue::Date(CqlDate((1 << 31) + 19_782))),
        (
            "decimal",
            CqlValue::Decimal(CqlDecimal::from_signed_be_bytes_and_exponent(vec![0xff, 0x01], 7)),
        ),
        ("double", CqlValue::Double(-1.5e300)),
        (
            "duration",
            CqlValue::Duration(CqlDuration {
                months: 1,
                days: 2,
                nanoseconds: 3,
            }),
        ),
        ("float", CqlValue::Float(0.5)),
        ("inet", CqlValue::Inet("2001:db8::1".parse().unwrap())),
        ("int", CqlValue::Int(i32::MIN)),
        ("smallint", CqlValue::SmallInt(32767)),
        ("text", text("grüße, 世界")),
        ("time", CqlValue::Time(CqlTime(86_399_999_999_999))),
        ("timestamp", CqlValue::Timestamp(CqlTimestamp(-1))),
        ("timeuuid", CqlValue::Timeuuid(CqlTimeuuid::from(uuid))),
        ("tinyint", CqlValue::TinyInt(-128)),
        ("uuid", CqlValue::Uuid(uuid)),
        (
            "varint",
            CqlValue::Varint(CqlVarint::from_signed_bytes_be(vec![
                0x80, 0, 0, 0, 0, 0, 0, 0, 0,
            ])),
        ),
        (
            "list<int>",
            CqlValue::List(vec![CqlValue::Int(3), CqlValue::Int(1)]),
        ),
        ("set<text>", CqlValue::Set(vec![text("a"), text("b")])),
        (
            "map<text, bigint>",
            CqlValue::Map(vec![(text("a"), CqlValue::BigInt(1))]),
        ),
        (
            "map<int, frozen<list<frozen<set<int>>>>>",
            CqlValue::Map(vec![(
                CqlValue::Int(1),
                CqlValue::List(vec![CqlValue::Set(vec![CqlValue::Int(5)])]),
            )]),
        ),
        (
            "tuple<int, text>",
            CqlValue::Tuple(vec![Some(CqlValue::Int(1)), None]),
        ),
        (
            "vector<float, 2>",
            CqlValue::Vector(vec![CqlValue::Float(1.0), CqlValue::Float(-2.5)]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_back() {
    let (_server, session) = start(1).await;
    for (number, (name, value)) in values().into_iter().enumerate() {
        run(
            &session,
            &format!("CREATE TABLE t{number} (k int PRIMARY KEY, v {name})"),
        )
        .await;
        let insert = session
            .prepare(format!("INSERT INTO t{number} (k, v) VALUES (?, ?)"))
            .await
            .unwrap();
        session
            .execute_unpaged(&insert, (0, &value))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = column(&session, &format!("SELECT v FROM t{number} WHERE k = 0")).await;
        assert_eq!(found, [value], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_defined_types_counters_null_and_unset() {
    let (_server, session) = start(2).await;
    run(&session, "CREATE TYPE phone (country int, number text)").await;
    run(
        &session,
        "CREATE TABLE t (k int PRIMARY KEY, p frozen<phone>, v text)",
    )
    .await;
    run(
        &session,
        "INSERT INTO t (k, p, v) VALUES (0, {country: 49, number: '1'}, 'kept')",
    )
    .await;
    let phone = column(&session, "SELECT p FROM t WHERE k = 0").await.remove(0);
    let insert = session
        .prepare("INSERT INTO t (k, p, v) VALUES (?, ?, ?)")
        .await
        .unwrap();
    session
        .execute_unpaged(&insert, (1, &phone, None::<String>))
        .await
        .unwrap();
    assert_eq!(
        column(&session, "SELECT p FROM t WHERE k = 1").await,
        std::slice::from_ref(&phone)
    );
    session
        .execute_unpaged(&insert, (0, &phone, MaybeUnset::<String>::Unset))
        .await
        .unwrap();
    assert_eq!(
        column(&session, "SELECT v FROM t WHERE k = 0").await,
        [CqlValue::Text("kept".to_owned())]
    );
    run(&session, "CREATE TABLE n (k int PRIMARY KEY, n counter)").await;
    for _ in 0..3 {
        run(&session, "UPDATE n SET n = n + 2 WHERE k = 0").await;
    }
    assert_eq!(
        column(&session, "SELECT n FROM n WHERE k = 0").await,
        [CqlValue::Counter(Counter(6))]
    );
}

async fn fill(session: &Session, partitions: i32, rows: i32) {
    run(
        session,
        "CREATE TABLE t (k int, c int, v text, PRIMARY KEY (k, c))",
    )
    .await;
    let insert = Arc::new(
        session
            .prepare("INSERT INTO t (k, c, v) VALUES (?, ?, ?)")
            .await
            .unwrap(),
    );
    let all = (0..partitions).flat_map(|key| (0..rows).map(move |row| (key, row)));
    stream::iter(all)
        .map(|(key, row)| {
            let insert = Arc::clone(&insert);
            async move {
                session
                    .execute_unpaged(&insert, (key, row, format!("{key}/{row}")))
                    .await
            }
        })
        .buffer_unordered(100)
        .try_for_each(|_| async { Ok(()) })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_hold_every_row_once() {
    let (_server, session) = start(2).await;
    fill(&session, 10, 30).await;
    for size in [1, 7, 30, 299, 300, 301] {
        let mut select = session.prepare("SELECT k, c FROM t").await.unwrap();
        select.set_page_size(size);
        let mut found: Vec<(i32, i32)> = Vec::new();
        let mut state = PagingState::start();
        loop {
            let (result, next) = session.execute_single_page(&select, (), state).await.unwrap();
            let rows = result.into_rows_result().unwrap();
            found.extend(rows.rows::<(i32, i32)>().unwrap().map(Result::unwrap));
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => break,
            }
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 300, "pages of {size}");
        let streamed = session
            .execute_iter(select, ())
            .await
            .unwrap()
            .rows_stream::<(i32, i32)>()
            .unwrap();
        assert_eq!(
            streamed
                .try_fold(0, |count, _| async move { Ok(count + 1) })
                .await
                .unwrap(),
            300
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_take_no_hop_and_shards_work_alike() {
    let (server, session) = start(2).await;
    run(&session, "CREATE TABLE t (k int PRIMARY KEY, v int)").await;
    let insert = session
        .prepare("INSERT INTO t (k, v) VALUES (?, ?)")
        .await
        .unwrap();
    let select = session.prepare("SELECT v FROM t WHERE k = ?").await.unwrap();
    // The driver opens one connection to each shard in the background, beside the one it controls the node with.
    server
        .eventually("a connection to each shard", || async {
            let state = session.get_cluster_state();
            let nodes = state.get_nodes_info();
            let sharder = nodes.first().and_then(|node| node.sharder());
            let open = server.metric("ceto_connections", "shard");
            sharder.is_some_and(|sharder| sharder.nr_shards.get() == 2)
                && open.values().sum::<f64>() >= 3.0
                && open.values().all(|count| *count >= 1.0)
        })
        .await;
    let executed = || server.metric("ceto_requests_total", "shard");
    let hops = || {
        server
            .metric("ceto_replica_hops_total", "shard")
            .values()
            .sum::<f64>()
    };
    let (before, hops_before) = (executed(), hops());
    for key in 0..2000 {
        session.execute_unpaged(&insert, (key, key)).await.unwrap();
        let result = session
            .execute_unpaged(&select, (key,))
            .await
            .unwrap()
            .into_rows_result()
            .unwrap();
        assert_eq!(result.single_row::<(i32,)>().unwrap(), (key,));
    }
    assert_eq!(hops() - hops_before, 0.0, "hops between shards");
    let served: BTreeMap<_, _> = executed()
        .into_iter()
        .map(|(shard, count)| (shard.clone(), count - before[&shard]))
        .collect();
    let (least, all) = (
        served.values().copied().fold(f64::MAX, f64::min),
        served.values().sum::<f64>(),
    );
    assert!(all >= 4000.0 && least / all > 0.45, "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches() {
    let (_server, session) = start(2).await;
    run(&session, "CREATE TABLE t (k int PRIMARY KEY, v int)").await;
    run(&session, "CREATE TABLE n (k int PRIMARY KEY, n counter)").await;
    for kind in [BatchType::Logged, BatchType::Unlogged] {
        let mut batch = Batch::new(kind);
        batch.append_statement("INSERT INTO t (k, v) VALUES (?, ?)");
        batch.append_statement(
            session
                .prepare("INSERT INTO t (k, v) VALUES (?, 2)")
                .await
                .unwrap(),
        );
        batch.append_statement("DELETE FROM t WHERE k = 3");
        session.batch(&batch, ((1, 1), (2,), ())).await.unwrap();
        assert_eq!(column(&session, "SELECT v FROM t").await.len(), 2);
    }
    let mut batch = Batch::new(BatchType::Counter);
    batch.append_statement("UPDATE n SET n = n + 1 WHERE k = 0");
    batch.append_statement("UPDATE n SET n = n + 4 WHERE k = 0");
    session.batch(&batch, ((), ())).await.unwrap();
    assert_eq!(
        column(&session, "SELECT n FROM n").await,
        [CqlValue::Counter(Counter(5))]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_prepared_again_after_the_table_has_changed() {
    let (_server, session) = start(2).await;
    fill(&session, 3, 3).await;
    let select = session
        .prepare("SELECT * FROM t WHERE k = ? AND c = ?")
        .await
        .unwrap();
    run(&session, "ALTER TABLE t ADD w int").await;
    run(&session, "INSERT INTO t (k, c, w) VALUES (1, 1, 5)").await;
    let result = session
        .execute_unpaged(&select, (1, 1))
        .await
        .unwrap()
        .into_rows_result()
        .unwrap();
    let row = result.single_row::<scylla::value::Row>().unwrap();
    assert_eq!(row.columns[2], Some(CqlValue::Text("1/1".to_owned())));
    run(&session, "DROP TABLE t").await;
    fill(&session, 3, 3).await;
    assert!(
        session
            .execute_unpaged(&select, (2, 2))
            .await
            .unwrap()
            .into_rows_result()
            .unwrap()
            .rows_num()
            == 1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_connections_carry_large_values() {
    let server = Server::start(2);
    for compression in [Compression::Lz4, Compression::Snappy] {
        let builder = SessionBuilder::new()
            .known_node(server.address())
            .compression(Some(compression));
        let session = builder.build().await.unwrap();
        run(&session, "CREATE KEYSPACE IF NOT EXISTS k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}").await;
        run(
            &session,
            "CREATE TABLE IF NOT EXISTS k.t (k int PRIMARY KEY, v blob)",
        )
        .await;
        let insert = session
            .prepare("INSERT INTO k.t (k, v) VALUES (?, ?)")
            .await
            .unwrap();
        for size in [0, 1, 1000, 1 << 17, 2 << 20] {
            let value: Vec<u8> = (0..size).map(|index: u32| (index * 7 % 251) as u8).collect();
            session
                .execute_unpaged(&insert, (size as i32, &value))
                .await
                .unwrap();
            let found = column(&session, &format!("SELECT v FROM k.t WHERE k = {size}")).await;
            assert!(found == [CqlValue::Blob(value)], "{size} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_session_sees_schema_changes() {
    let (server, session) = start(1).await;
    let other = connect(&server).await;
    run(&session, "CREATE TABLE seen (k int PRIMARY KEY)").await;
    let table = |session: &Session| {
        session
            .get_cluster_state()
            .get_keyspace("k")
            .and_then(|keyspace| keyspace.tables.get("seen").cloned())
    };
    server
        .eventually("the table is seen", || async {
            other.refresh_metadata().await.unwrap();
            table(&other).is_some()
        })
        .await;
    run(&session, "ALTER TABLE seen ADD v text").await;
    session.await_schema_agreement().await.unwrap();
    other.refresh_metadata().await.unwrap();
    assert!(table(&other).unwrap().columns.contains_key("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracing_and_warnings() {
    let (_server, session) = start(1).await;
    run(&session, "CREATE TABLE t (k int PRIMARY KEY)").await;
    let mut statement = Statement::new("SELECT count(*) FROM t");
    statement.set_tracing(true);
    let result = session.query_unpaged(statement, ()).await.unwrap();
    assert!(
        result
            .warnings()
            .any(|text| text.contains("Aggregation query used without partition key"))
    );
    let tracing = session
        .get_tracing_info(&result.tracing_id().unwrap())
        .await
        .unwrap();
    assert!(tracing.duration.is_some() && !tracing.events.is_empty());
}

/// The server's error of a statement that must fail.
async fn failure(session: &Session, statement: impl Into<Statement>) -> DbError {
    match session.query_unpaged(statement, ()).await {
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_their_codes_and_bodies() {
    let (_server, session) = start(1).await;
    run(&session, "CREATE TABLE t (k int PRIMARY KEY)").await;
    assert_eq!(failure(&session, "SELEC 1").await, DbError::SyntaxError);
    assert_eq!(failure(&session, "SELECT * FROM nosuch").await, DbError::Invalid);
    assert_eq!(
        failure(&session, "DROP TABLE system.local").await,
        DbError::Unauthorized
    );
    let exists = DbError::AlreadyExists {
        keyspace: "k".to_owned(),
        table: "t".to_owned(),
    };
    assert_eq!(
        failure(&session, "CREATE TABLE t (k int PRIMARY KEY)").await,
        exists
    );
    let strategy = "CREATE KEYSPACE bad WITH replication = {'class': 'NoSuchStrategy'}";
    assert_eq!(failure(&session, strategy).await, DbError::ConfigError);
    let mut select = Statement::new("SELECT * FROM t WHERE k = 1");
    select.set_consistency(Consistency::Three);
    let unavailable = DbError::Unavailable {
        consistency: Consistency::Three,
        required: 3,
        alive: 1,
    };
    assert_eq!(failure(&session, select).await, unavailable);
}
