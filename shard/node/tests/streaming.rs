//! A node pulls what another one has: everything comes over, in pieces, past lost links, and is there afterwards.
#![allow(clippy::unwrap_used)]

mod support;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_internode::{HostId, TokenPart};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, Consistency, DecoratedKey, Mutation, PartitionKey, TableId, Timestamp,
    Token,
};
use ceto_native::Response;
use ceto_node::options::Limits;
use ceto_node::stream::{Pull, PullProgress, PullSummary, StreamError};
use support::Client;
use support::cluster::Cluster;

const ALL: TokenPart = TokenPart {
    after: Token::MIN,
    up_to: Token::MAX,
};

fn ask(cluster: &Cluster, client: &mut Client, level: Consistency, text: &str) -> Response {
    let answer = cluster.ask(client, level, text);
    assert!(!matches!(answer, Response::Error(_)), "{text}: {answer:?}");
    answer
}

/// Three nodes without hints, and a keyspace of which each has all.
fn cluster(shards: &[u16], tables: &[&str]) -> Cluster {
    let cluster = Cluster::boot_with(shards, Limits::default());
    cluster.without_hints();
    let mut client = cluster.connect(0);
    let keyspace =
        "CREATE KEYSPACE ks WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 3}";
    ask(&cluster, &mut client, Consistency::One, keyspace);
    for table in tables {
        ask(&cluster, &mut client, Consistency::One, table);
    }
    cluster
}

fn leave(cluster: &mut Cluster, at: usize) {
    cluster.kill(at);
    cluster.detect(at, false);
}

fn come_back(cluster: &mut Cluster, at: usize) {
    cluster.revive(at);
    cluster.detect(at, true);
}

fn table(cluster: &Cluster, name: &str) -> TableId {
    cluster.members[0].node.schema().table("ks", name).unwrap().id
}

fn host(cluster: &Cluster, at: usize) -> HostId {
    HostId(cluster.members[at].options.host_id)
}

/// What `to` pulls of `from`.
fn pull(cluster: &Cluster, name: &str, from: usize, to: usize) -> Pull {
    assert_ne!(from, to);
    Pull {
        table: table(cluster, name),
        from: host(cluster, from),
        parts: vec![ALL],
    }
}

fn run(cluster: &Cluster, at: usize, pull: Pull) -> Result<PullSummary, StreamError> {
    let node = cluster.members[at].shards.last().unwrap().clone();
    let progress = Arc::new(PullProgress::default());
    let parts = pull.parts.len();
    let outcome = cluster.env.block_on(node.pull(pull, progress.clone())).unwrap();
    if let Ok(summary) = &outcome {
        assert_eq!(
            (summary.bytes, summary.partitions, summary.rows, parts),
            (
                progress.bytes(),
                progress.partitions(),
                progress.rows(),
                progress.parts_done()
            )
        );
    }
    outcome
}

/// What a node has itself, as clients see it.
fn own(cluster: &Cluster, at: usize, text: &str) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut client = cluster.connect(at);
    match ask(cluster, &mut client, Consistency::One, text) {
        Response::Rows(rows) => {
            let columns = rows.iter().map(|row| {
                let cells = (0..).map_while(|at| (at < 8).then(|| row.cell(at).map(<[u8]>::to_vec)));
                cells.collect()
            });
            columns.collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Sets what all shards of a node may stream, in bytes per second.
fn throttle(cluster: &Cluster, at: usize, rate: u64) {
    for shard in &cluster.members[at].shards {
        let mut settings = (*shard.settings()).clone();
        settings.stream_throughput = rate;
        shard.install_settings(&Arc::new(settings));
    }
}

/// Rows of `ks.t (k blob PRIMARY KEY, v blob)` at one node only, of so many bytes.
fn fill(cluster: &Cluster, at: usize, count: u32, size: usize) {
    let schema = cluster.members[at].node.schema();
    let definition = schema.table("ks", "t").unwrap();
    let column = definition.column("v").unwrap().id;
    let shards = &cluster.members[at].shards;
    let mut by_shard: Vec<Vec<Mutation>> = vec![Vec::new(); shards.len()];
    for number in 0..count {
        let key = DecoratedKey::new(PartitionKey(Bytes::copy_from_slice(&number.to_be_bytes())));
        let shard = usize::from(key.token.shard(shards.len() as u16));
        let mut mutation = Mutation::new(definition.id, key);
        let value = Bytes::from(vec![number as u8; size]);
        mutation
            .partition
            .row_mut(ClusteringKey(Bytes::from_static(&[0x38])))
            .merge_column(column, ColumnData::Cell(Cell::live(Timestamp(7), value)));
        by_shard[shard].push(mutation);
    }
    for (shard, mutations) in shards.iter().zip(by_shard) {
        for some in mutations.chunks((4 << 20) / (size + 100)) {
            let node: Rc<_> = shard.clone();
            let written = node.apply_durably(some.to_vec());
            cluster.env.block_on(written).unwrap().unwrap();
        }
    }
}

const PLAIN: &str = "CREATE TABLE ks.t (k blob PRIMARY KEY, v blob)";

fn rows(cluster: &Cluster, at: usize) -> i64 {
    let mut client = cluster.connect(at);
    match ask(
        cluster,
        &mut client,
        Consistency::One,
        "SELECT COUNT(*) FROM ks.t",
    ) {
        Response::Rows(rows) => {
            i64::from_be_bytes(rows.iter().next().unwrap().cell(0).unwrap().try_into().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_comes_over_with_its_times_and_what_is_deleted_stays_so() {
    const TABLE: &str =
        "CREATE TABLE ks.all (k int, c int, s text STATIC, v text, m map<int, text>, PRIMARY KEY (k, c))";
    const ROWS: &str = "SELECT k, c, s, v, m, writetime(v), ttl(v), writetime(s) FROM ks.all";
    for shards in [[1, 1, 1], [2, 3, 1], [3, 1, 2]] {
        let mut cluster = cluster(&shards, &[TABLE, "CREATE INDEX by_v ON ks.all (v)"]);
        let mut client = cluster.connect(1);
        let mut write = |cluster: &Cluster, level, text: String| {
            ask(cluster, &mut client, level, &text);
        };
        // What node 0 has before it misses the rest.
        for k in 0..12 {
            for c in 0..6 {
                let insert = format!(
                    "INSERT INTO ks.all (k, c, s, v, m) VALUES ({k}, {c}, 'old', 'old', {{1: 'a', 2: 'b'}})"
                );
                write(&cluster, Consistency::All, insert);
            }
        }
        leave(&mut cluster, 0);
        for k in 0..12 {
            let changes = [
                format!("DELETE FROM ks.all WHERE k = {k} AND c = 0"),
                format!("DELETE v FROM ks.all WHERE k = {k} AND c = 1"),
                format!("DELETE FROM ks.all WHERE k = {k} AND c > 3 AND c < 5"),
                format!("UPDATE ks.all USING TTL 5000 SET v = 'short' WHERE k = {k} AND c = 2"),
                format!("UPDATE ks.all SET m = {{7: 'new'}} WHERE k = {k} AND c = 3"),
                format!(
                    "INSERT INTO ks.all (k, c, v) VALUES ({k}, 9, 'new') USING TIMESTAMP 1234567890123456"
                ),
                match k % 3 {
                    0 => format!("DELETE FROM ks.all WHERE k = {k}"),
                    1 => format!("UPDATE ks.all SET s = 'new' WHERE k = {k}"),
                    _ => format!("DELETE s FROM ks.all WHERE k = {k}"),
                },
            ];
            for change in changes {
                write(&cluster, Consistency::Quorum, change);
            }
        }
        for k in 100..140 {
            write(
                &cluster,
                Consistency::Quorum,
                format!("UPDATE ks.all SET s = 'alone' WHERE k = {k}"),
            );
        }
        // A part of it is in sstables.
        let id = table(&cluster, "all");
        let node = cluster.members[1].node.clone();
        cluster.env.block_on(node.flush(id)).unwrap().unwrap();
        write(
            &cluster,
            Consistency::Quorum,
            "DELETE FROM ks.all WHERE k = 2 AND c = 2".to_owned(),
        );
        come_back(&mut cluster, 0);
        assert_ne!(own(&cluster, 0, ROWS), own(&cluster, 1, ROWS));
        let summary = run(&cluster, 0, pull(&cluster, "all", 1, 0)).unwrap();
        assert_eq!(summary.partitions, 52, "{shards:?} {summary:?}");
        assert_eq!(own(&cluster, 0, ROWS), own(&cluster, 1, ROWS), "{shards:?}");
        for v in ["old", "short", "new"] {
            let found = format!("SELECT k, c FROM ks.all WHERE v = '{v}'");
            assert_eq!(
                own(&cluster, 0, &found),
                own(&cluster, 1, &found),
                "{v}: the index is written too"
            );
        }
        // A second time it changes nothing, and survives a kill.
        run(&cluster, 0, pull(&cluster, "all", 1, 0)).unwrap();
        cluster.restart(0);
        assert_eq!(own(&cluster, 0, ROWS), own(&cluster, 1, ROWS));
    }
}

#[test]
fn partitions_larger_than_a_page_come_in_pieces() {
    const WIDE: &str = "CREATE TABLE ks.wide (k int, c int, s text STATIC, v text, PRIMARY KEY (k, c))";
    let mut cluster = cluster(&[2, 3, 1], &[WIDE]);
    leave(&mut cluster, 0);
    let mut client = cluster.connect(1);
    let value = "x".repeat(20_000);
    for c in 0..300 {
        let text = format!("INSERT INTO ks.wide (k, c, s, v) VALUES (1, {c}, 's', '{value}')");
        ask(&cluster, &mut client, Consistency::Quorum, &text);
    }
    for c in (0..300).step_by(7) {
        let text = format!("DELETE FROM ks.wide WHERE k = 1 AND c >= {c} AND c < {}", c + 2);
        ask(&cluster, &mut client, Consistency::Quorum, &text);
    }
    come_back(&mut cluster, 0);
    let before = cluster.metric(0, "ceto_stream_pages_total");
    let summary = run(&cluster, 0, pull(&cluster, "wide", 1, 0)).unwrap();
    let pages = cluster.metric(0, "ceto_stream_pages_total") - before;
    assert!((4.0..12.0).contains(&pages), "{pages} pages of {summary:?}");
    assert_eq!(summary.partitions, 1);
    let text = "SELECT c, s, v, writetime(v) FROM ks.wide WHERE k = 1";
    assert_eq!(own(&cluster, 0, text), own(&cluster, 1, text));
}

#[test]
fn a_hundred_thousand_rows_are_counted() {
    for shards in [[2, 3, 1], [3, 1, 1]] {
        let cluster = cluster(&shards, &[PLAIN]);
        fill(&cluster, 1, 100_000, 20);
        // In parts, as a node takes them over.
        let step = u64::MAX / 16;
        let bounds: Vec<i64> = (0..17)
            .map(|at| {
                if at == 16 {
                    i64::MAX
                } else {
                    i64::MIN.wrapping_add((step * at) as i64)
                }
            })
            .collect();
        let parts = bounds.windows(2).map(|pair| TokenPart {
            after: Token(pair[0]),
            up_to: Token(pair[1]),
        });
        let mut pull = pull(&cluster, "t", 1, 0);
        pull.parts = parts.collect();
        let summary = run(&cluster, 0, pull).unwrap();
        assert_eq!((summary.partitions, summary.rows), (100_000, 100_000));
        assert_eq!(rows(&cluster, 0), 100_000);
    }
}

#[test]
fn a_link_that_breaks_is_made_again_and_one_that_stays_broken_ends_it_with_what_is_done() {
    let mut cluster = cluster(&[2, 2, 1], &[PLAIN]);
    fill(&cluster, 1, 3000, 2000);
    throttle(&cluster, 1, 2 << 20);
    let node = cluster.members[0].node.clone();
    let start = |parts: Vec<TokenPart>| {
        let pull = Pull {
            parts,
            ..pull(&cluster, "t", 1, 0)
        };
        let (node, progress) = (node.clone(), Arc::new(PullProgress::default()));
        let outcome = Rc::new(std::cell::RefCell::new(None));
        let (there, shared) = (outcome.clone(), progress.clone());
        let task = async move {
            *there.borrow_mut() = Some(node.pull(pull, shared).await);
        };
        ceto_env::Env::tasks(&*cluster.env).spawn(ceto_env::TaskQueue::Streaming, Box::pin(task));
        (outcome, progress)
    };
    let halves = vec![
        TokenPart {
            after: Token::MIN,
            up_to: Token(0),
        },
        TokenPart {
            after: Token(0),
            up_to: Token::MAX,
        },
    ];
    let began = cluster.env.elapsed();
    let (outcome, progress) = start(halves.clone());
    cluster.run(Duration::from_millis(600));
    assert!(progress.bytes() > 0 && progress.parts_done() < 2);
    for _ in 0..2 {
        cluster.kill(1);
        cluster.run(Duration::from_millis(300));
        cluster.revive(1);
        cluster.run(Duration::from_millis(500));
    }
    cluster.run(Duration::from_secs(20));
    let summary = outcome.take().unwrap().unwrap();
    assert_eq!(summary.rows, 3000);
    assert_eq!(rows(&cluster, 0), 3000);
    assert!(cluster.metric(0, "ceto_stream_retries_total") >= 2.0);
    let took = cluster.env.elapsed() - began;
    assert!(took >= Duration::from_secs(2), "6 MB at 2 MiB/s: {took:?}");

    // Once more, and the source does not come back.
    let (outcome, progress) = start(halves.clone());
    while progress.parts_done() < 1 {
        cluster.run(Duration::from_millis(10));
    }
    cluster.run(Duration::from_millis(100));
    cluster.kill(1);
    cluster.run(Duration::from_secs(180));
    let error = outcome.take().unwrap().unwrap_err();
    assert_eq!(error.done, halves[..1]);
    assert!(
        error.text.contains("streaming ks.t from 127.0.0.2 has failed"),
        "{error}"
    );
    // Who is told to stop asks for no more.
    throttle(&cluster, 1, 256 << 10);
    cluster.revive(1);
    cluster.run(Duration::from_secs(6));
    let (outcome, progress) = start(halves[1..].to_vec());
    cluster.run(Duration::from_millis(500));
    progress.stop();
    cluster.run(Duration::from_secs(2));
    let error = outcome.take().unwrap().unwrap_err();
    assert!(error.text.contains("it was stopped"), "{error}");
    cluster.detect(1, false);
}

#[test]
fn what_cannot_be_streamed_is_refused_with_a_reason() {
    let cluster = cluster(&[1, 2, 1], &[PLAIN]);
    fill(&cluster, 1, 1000, 2000);
    let refused = |pull: Pull| run(&cluster, 0, pull).unwrap_err().text;
    let nobody = Pull {
        from: HostId(uuid::Uuid::from_u128(77)),
        ..pull(&cluster, "t", 1, 0)
    };
    assert!(refused(nobody).contains("is no node of the cluster"));
    let system = cluster.members[0]
        .node
        .schema()
        .table("system", "local")
        .unwrap()
        .id;
    let own = Pull {
        table: system,
        ..pull(&cluster, "t", 1, 0)
    };
    assert_eq!(refused(own), "system.local is each node's own and not streamed");

    // A table that is dropped while it is streamed.
    throttle(&cluster, 1, 1 << 20);
    let (node, pull) = (cluster.members[0].node.clone(), pull(&cluster, "t", 1, 0));
    let outcome = Rc::new(std::cell::RefCell::new(None));
    let there = outcome.clone();
    let task = async move {
        *there.borrow_mut() = Some(node.pull(pull, Arc::default()).await);
    };
    ceto_env::Env::tasks(&*cluster.env).spawn(ceto_env::TaskQueue::Streaming, Box::pin(task));
    cluster.run(Duration::from_millis(300));
    ask(
        &cluster,
        &mut cluster.connect(2),
        Consistency::One,
        "DROP TABLE ks.t",
    );
    cluster.run(Duration::from_secs(5));
    let error = outcome.take().unwrap().unwrap_err();
    assert!(error.text.contains("dropped"), "{error}");
}

#[test]
fn a_cleanup_drops_what_belongs_to_others() {
    let cluster = cluster(&[2, 1, 1], &[PLAIN]);
    let mut client = cluster.connect(0);
    fill(&cluster, 1, 3000, 20);
    run(&cluster, 0, pull(&cluster, "t", 1, 0)).unwrap();
    let kept = || {
        let shards = cluster.members[0].shards.iter();
        let tables = shards.flat_map(|shard| shard.table_figures());
        let own = tables.filter(|table| table.table == "t");
        own.map(|table| table.sstable_partitions).sum::<u64>()
    };
    let clean = || {
        for shard in &cluster.members[0].shards {
            let (shard, table) = (shard.clone(), table(&cluster, "t"));
            cluster.env.block_on(shard.cleanup(table)).unwrap().unwrap();
        }
    };
    clean();
    assert_eq!(kept(), 3000, "everything is replicated to all");
    let one = "ALTER KEYSPACE ks WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1}";
    ask(&cluster, &mut client, Consistency::One, one);
    clean();
    assert!(
        (2100..2400).contains(&kept()),
        "three quarters of the ring are its own: {}",
        kept()
    );
    let insert = "INSERT INTO ks.t (k, v) VALUES (0x77, 0x77)";
    ask(&cluster, &mut client, Consistency::All, insert);
}
