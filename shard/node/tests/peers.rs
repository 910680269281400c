//! Three nodes: reads and writes over links at every level, and what clients are told when a node is gone.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ceto_model::{Consistency, WriteType};
use ceto_native::error::Progress;
use ceto_native::{ErrorReason, Response};
use ceto_node::options::Limits;
use support::Client;
use support::cluster::Cluster;

fn cluster(replication_factor: u32) -> Cluster {
    cluster_of(&[1, 1, 1], replication_factor)
}

fn cluster_of(shards: &[u16], replication_factor: u32) -> Cluster {
    let limits = Limits {
        read_timeout: Duration::from_secs(1),
        range_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(1),
        truncate_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let cluster = Cluster::boot_with(shards, limits);
    let mut client = cluster.connect(0);
    for text in [
        format!(
            "CREATE KEYSPACE ks WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': {replication_factor}}}"
        ),
        "CREATE TABLE ks.t (k int PRIMARY KEY, v text) WITH speculative_retry = 'NONE'".to_owned(),
    ] {
        let answer = cluster.ask(&mut client, Consistency::One, &text);
        assert!(matches!(answer, Response::SchemaChange(_)), "{answer:?}");
    }
    cluster
}

fn insert(cluster: &Cluster, client: &mut Client, level: Consistency, key: i32) -> Response {
    let text = format!("INSERT INTO ks.t (k, v) VALUES ({key}, 'value {key}')");
    cluster.ask(client, level, &text)
}

fn written(answer: &Response) {
    assert!(matches!(answer, Response::Void), "{answer:?}");
}

fn count(answer: &Response) -> u32 {
    match answer {
        Response::Rows(rows) => rows.row_count(),
        other => panic!("{other:?}"),
    }
}

fn reason(answer: Response) -> ErrorReason {
    match answer {
        Response::Error(error) => error.reason,
        other => panic!("no error: {other:?}"),
    }
}

fn two_of_three() -> Progress {
    Progress {
        consistency: Consistency::All,
        received: 2,
        block_for: 3,
    }
}

const LEVELS: [Consistency; 8] = [
    Consistency::One,
    Consistency::Two,
    Consistency::Three,
    Consistency::Quorum,
    Consistency::All,
    Consistency::LocalQuorum,
    Consistency::EachQuorum,
    Consistency::LocalOne,
];

#[test]
fn every_node_writes_and_reads_at_every_level() {
    for replicas in 1..=3 {
        let cluster = cluster(replicas);
        let mut clients: Vec<Client> = (0..3).map(|at| cluster.connect(at)).collect();
        let mut key = 0;
        for level in LEVELS {
            let needed = match level {
                Consistency::Two => 2,
                Consistency::Three => 3,
                _ => 1,
            };
            if needed > replicas {
                continue;
            }
            for writer in 0..3 {
                key += 1;
                written(&insert(&cluster, &mut clients[writer], level, key));
                let text = format!("SELECT v FROM ks.t WHERE k = {key}");
                for (reader, client) in clients.iter_mut().enumerate() {
                    let answer = cluster.ask(client, Consistency::All, &text);
                    assert_eq!(count(&answer), 1, "{replicas} {level} {key} {writer} {reader}");
                }
                let answer = cluster.ask(&mut clients[(writer + 1) % 3], level, &text);
                assert_eq!(count(&answer), 1);
            }
        }
        let all = cluster.ask(&mut clients[1], Consistency::One, "SELECT k FROM ks.t");
        assert_eq!(count(&all), key as u32, "a scan over nodes finds each row once");
        let page = cluster.ask_page(
            &mut clients[2],
            Consistency::Quorum,
            "SELECT k FROM ks.t",
            Some(5),
        );
        assert_eq!(count(&page), 5);
        let applied: f64 = (0..3)
            .map(|at| cluster.metric(at, "ceto_replica_writes_total"))
            .sum();
        assert!(
            applied >= f64::from(key * replicas as i32),
            "each replica has each row"
        );
        assert!(cluster.metric(0, "ceto_peer_links_open") >= 2.0);
    }
}

#[test]
fn quorum_goes_on_without_a_node_and_the_other_levels_say_what_is_missing() {
    let mut cluster = cluster(3);
    let mut client = cluster.connect(0);
    written(&insert(&cluster, &mut client, Consistency::All, 1));
    cluster.kill(2);
    // Nobody has noticed yet: requests fail over at once, and timeouts count who has answered.
    for key in 2..20 {
        written(&insert(&cluster, &mut client, Consistency::Quorum, key));
        let text = format!("SELECT v FROM ks.t WHERE k = {key}");
        assert_eq!(count(&cluster.ask(&mut client, Consistency::Quorum, &text)), 1);
    }
    let timeout = reason(insert(&cluster, &mut client, Consistency::All, 20));
    assert_eq!(
        timeout,
        ErrorReason::WriteTimeout {
            progress: two_of_three(),
            write_type: WriteType::Simple,
            contentions: None,
        }
    );
    let text = "SELECT v FROM ks.t WHERE k = 2";
    let timeout = reason(cluster.ask(&mut client, Consistency::All, text));
    assert!(
        matches!(timeout, ErrorReason::ReadTimeout { progress, .. } if progress == two_of_three()),
        "{timeout:?}"
    );
    cluster.detect(2, false);
    for text in [text, "INSERT INTO ks.t (k, v) VALUES (1, 'x')"] {
        let unavailable = reason(cluster.ask(&mut client, Consistency::All, text));
        assert_eq!(
            unavailable,
            ErrorReason::Unavailable {
                consistency: Consistency::All,
                required: 3,
                alive: 2
            }
        );
    }
    assert_eq!(
        count(&cluster.ask(&mut client, Consistency::Quorum, "SELECT k FROM ks.t")),
        20
    );
}

/// A node that hangs is not seen by its connections: only time tells.
#[test]
fn a_node_that_does_not_answer_costs_a_timeout_with_exact_counts_and_no_more() {
    let cluster = cluster(3);
    let mut client = cluster.connect(0);
    written(&insert(&cluster, &mut client, Consistency::All, 1));
    cluster.silence(1, true);
    let began = cluster.env.elapsed();
    let timeout = reason(insert(&cluster, &mut client, Consistency::All, 2));
    let took = cluster.env.elapsed() - began;
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_millis(1100),
        "{took:?}"
    );
    assert!(
        matches!(
            timeout,
            ErrorReason::WriteTimeout { progress, .. } if progress == two_of_three()
        ),
        "{timeout:?}"
    );
    written(&insert(&cluster, &mut client, Consistency::Quorum, 3));
    cluster.silence(1, false);
    cluster.run(Duration::from_millis(10));
    written(&insert(&cluster, &mut client, Consistency::All, 4));
}

#[test]
fn a_replica_that_missed_writes_is_repaired_by_a_read() {
    let cluster = cluster(3);
    cluster.without_hints();
    let mut client = cluster.connect(0);
    written(&insert(&cluster, &mut client, Consistency::All, 1));
    cluster.silence(2, true);
    written(&cluster.ask(
        &mut client,
        Consistency::Quorum,
        "UPDATE ks.t SET v = 'new' WHERE k = 1",
    ));
    // What was on its way is lost: the links break.
    cluster.kill(2);
    cluster.silence(2, false);
    cluster.revive(2);
    cluster.run(Duration::from_secs(10));
    let read = |client: &mut Client, level| cluster.ask(client, level, "SELECT v FROM ks.t WHERE k = 1");
    let mut behind = cluster.connect(2);
    let shown = |answer: &Response| format!("{answer:?}").contains("value 1");
    assert!(
        shown(&read(&mut behind, Consistency::One)),
        "it has missed the write"
    );
    let _broken = read(&mut client, Consistency::All);
    let repaired = read(&mut client, Consistency::All);
    assert!(count(&repaired) == 1 && !shown(&repaired), "{repaired:?}");
    assert!(
        !shown(&read(&mut behind, Consistency::One)),
        "the read has repaired it"
    );
}

#[test]
fn control_messages_arrive_in_order_with_their_sender() {
    let cluster = cluster(1);
    let to = "127.0.0.3:7000".parse().unwrap();
    for number in 0..100u8 {
        cluster.members[0]
            .node
            .send_control(to, vec![number; 100].into())
            .unwrap();
    }
    cluster.run(Duration::from_millis(50));
    let messages = cluster.members[2].messages.borrow();
    assert_eq!(messages.len(), 100);
    for (number, (from, address, body)) in messages.iter().enumerate() {
        assert_eq!(from.0.as_u128(), 1);
        assert_eq!(*address, "127.0.0.1:7000".parse().unwrap());
        assert_eq!(body[..], [number as u8; 100]);
    }
    // Nobody there: it is taken, then lost, then refused for a while.
    let nowhere = "127.0.0.77:7000".parse().unwrap();
    let node = &cluster.members[0].node;
    node.send_control(nowhere, vec![1].into()).unwrap();
    cluster.run(Duration::from_millis(10));
    assert!(node.send_control(nowhere, vec![1].into()).is_err());
}

#[test]
fn clients_see_the_other_nodes() {
    let cluster = cluster(1);
    let mut client = cluster.connect(1);
    for table in ["peers", "peers_v2"] {
        let answer = cluster.ask(
            &mut client,
            Consistency::One,
            &format!("SELECT * FROM system.{table}"),
        );
        assert_eq!(count(&answer), 2, "{table}");
    }
}

/// The first cell of the first row.
fn first_cell(answer: &Response) -> Option<Vec<u8>> {
    match answer {
        Response::Rows(rows) => rows.iter().next()?.cell(0).map(<[u8]>::to_vec),
        other => panic!("{other:?}"),
    }
}

fn make(cluster: &Cluster, client: &mut Client, text: &str) {
    let answer = cluster.ask(client, Consistency::One, text);
    assert!(matches!(answer, Response::SchemaChange(_)), "{answer:?}");
}

#[test]
fn nodes_of_different_numbers_of_shards_write_count_and_read_together() {
    for replicas in 1..=3 {
        let cluster = cluster_of(&[1, 2, 3], replicas);
        let mut clients: Vec<Client> = (0..3).map(|at| cluster.connect(at)).collect();
        make(
            &cluster,
            &mut clients[0],
            "CREATE TABLE ks.c (k int PRIMARY KEY, n counter)",
        );
        for key in 0..30 {
            let writer = &mut clients[key as usize % 3];
            written(&insert(&cluster, writer, Consistency::All, key));
            for client in &mut clients {
                let text = format!("UPDATE ks.c SET n = n + {key} WHERE k = {}", key % 4);
                written(&cluster.ask(client, Consistency::Quorum, &text));
            }
        }
        for client in &mut clients {
            let all = cluster.ask(client, Consistency::Quorum, "SELECT k FROM ks.t");
            assert_eq!(count(&all), 30, "{replicas}");
            for key in 0..4i64 {
                let sum: i64 = (0..30).filter(|n| n % 4 == key).sum::<i64>() * 3;
                let text = format!("SELECT n FROM ks.c WHERE k = {key}");
                let counted = cluster.ask(client, Consistency::All, &text);
                assert_eq!(
                    first_cell(&counted),
                    Some(sum.to_be_bytes().to_vec()),
                    "{replicas} {key}"
                );
            }
        }
        let used: Vec<f64> = (0..3)
            .map(|at| cluster.members[2].shards[at].samples())
            .map(|samples| {
                let writes = samples
                    .iter()
                    .filter(|sample| sample.name == "ceto_replica_writes_total");
                writes.map(|sample| sample.value).sum()
            })
            .collect();
        assert!(used.iter().all(|writes| *writes > 0.0), "{used:?}");
        let hops = cluster.metric(1, "ceto_replica_hops_total");
        assert!(hops < 200.0, "peers ask the shard that owns a token: {hops} hops");
    }
}

#[test]
fn counters_need_a_leader_and_go_on_without_a_node() {
    let mut cluster = cluster(3);
    let mut client = cluster.connect(0);
    make(
        &cluster,
        &mut client,
        "CREATE TABLE ks.c (k int PRIMARY KEY, n counter)",
    );
    cluster.kill(2);
    cluster.detect(2, false);
    let add = "UPDATE ks.c SET n = n + 1 WHERE k = 1";
    for _ in 0..10 {
        written(&cluster.ask(&mut client, Consistency::Quorum, add));
    }
    let unavailable = reason(cluster.ask(&mut client, Consistency::All, add));
    assert!(
        matches!(
            unavailable,
            ErrorReason::Unavailable {
                required: 3,
                alive: 2,
                ..
            }
        ),
        "{unavailable:?}"
    );
    let text = "SELECT n FROM ks.c WHERE k = 1";
    let counted = cluster.ask(&mut client, Consistency::Quorum, text);
    assert_eq!(first_cell(&counted), Some(10i64.to_be_bytes().to_vec()));
}

#[test]
fn truncate_empties_all_nodes_and_wants_all_of_them() {
    let mut cluster = cluster(1);
    let mut client = cluster.connect(0);
    for key in 0..20 {
        written(&insert(&cluster, &mut client, Consistency::One, key));
    }
    cluster.detect(1, false);
    let refused = reason(cluster.ask(&mut client, Consistency::One, "TRUNCATE ks.t"));
    assert_eq!(
        refused,
        ErrorReason::Unavailable {
            consistency: Consistency::All,
            required: 3,
            alive: 2
        }
    );
    cluster.detect(1, true);
    assert_eq!(
        count(&cluster.ask(&mut client, Consistency::One, "SELECT k FROM ks.t")),
        20
    );
    written(&cluster.ask(&mut client, Consistency::One, "TRUNCATE ks.t"));
    assert_eq!(
        count(&cluster.ask(&mut client, Consistency::One, "SELECT k FROM ks.t")),
        0
    );
    // A node that hangs is not known to be down: the client hears of it in time.
    cluster.silence(2, true);
    let answer = cluster.ask(&mut client, Consistency::One, "TRUNCATE ks.t");
    assert_eq!(reason(answer), ErrorReason::Truncate);
}

#[test]
fn an_index_does_not_show_what_a_quorum_has_overwritten() {
    let cluster = cluster(3);
    cluster.without_hints();
    let mut client = cluster.connect(0);
    make(&cluster, &mut client, "CREATE INDEX by_v ON ks.t (v)");
    cluster.run(Duration::from_millis(100));
    for key in 0..4 {
        let text = format!("INSERT INTO ks.t (k, v) VALUES ({key}, 'old')");
        written(&cluster.ask(&mut client, Consistency::All, &text));
    }
    cluster.silence(2, true);
    for text in [
        "UPDATE ks.t SET v = 'new' WHERE k = 1",
        "DELETE FROM ks.t WHERE k = 2",
    ] {
        written(&cluster.ask(&mut client, Consistency::Quorum, text));
    }
    cluster.kill(2);
    cluster.silence(2, false);
    cluster.revive(2);
    cluster.run(Duration::from_secs(10));
    let mut behind = cluster.connect(2);
    let find = |client: &mut Client, level, value: &str| {
        let text = format!("SELECT k FROM ks.t WHERE v = '{value}'");
        count(&cluster.ask(client, level, &text))
    };
    assert_eq!(
        find(&mut behind, Consistency::One, "old"),
        4,
        "it has missed two writes"
    );
    assert_eq!(find(&mut behind, Consistency::Quorum, "old"), 2);
    assert_eq!(find(&mut behind, Consistency::Quorum, "new"), 1);
    assert_eq!(
        find(&mut behind, Consistency::One, "old"),
        2,
        "the rows were repaired when they were read"
    );
}

#[test]
fn what_cannot_be_right_over_several_nodes_is_refused() {
    let cluster = cluster(3);
    let mut client = cluster.connect(0);
    for (text, said) in [(
        "CREATE MATERIALIZED VIEW ks.m AS SELECT * FROM ks.t WHERE v IS NOT NULL AND k IS NOT NULL PRIMARY KEY (v, k)",
        "views",
    )] {
        match cluster.ask(&mut client, Consistency::Quorum, text) {
            Response::Error(error) => assert!(error.message.contains(said), "{}", error.message),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(
        count(&cluster.ask(&mut client, Consistency::All, "SELECT k FROM ks.t")),
        0
    );
    let one = "BEGIN BATCH INSERT INTO ks.t (k, v) VALUES (1, 'x'); UPDATE ks.t SET v = 'y' WHERE k = 1; APPLY BATCH";
    written(&cluster.ask(&mut client, Consistency::Quorum, one));
}

/// Writes to a node that does not read: they wait within their bound, then fail for that node alone.
#[test]
fn a_node_that_hangs_costs_bounded_memory() {
    let cluster = cluster(3);
    let mut client = cluster.connect(0);
    written(&insert(&cluster, &mut client, Consistency::All, 1));
    cluster.silence(1, true);
    let value = "x".repeat(1 << 20);
    for key in 0..40 {
        let text = format!("INSERT INTO ks.t (k, v) VALUES ({key}, '{value}')");
        written(&cluster.ask(&mut client, Consistency::Quorum, &text));
    }
    let queued = cluster.metric(0, "ceto_peer_queue_bytes");
    assert!(queued > 0.0 && queued <= f64::from(16 << 20), "{queued}");
    assert!(cluster.metric(0, "ceto_peer_messages_dropped_total") >= 20.0);
}

/// The values of `ks.t` that a node has itself.
fn own_rows(cluster: &Cluster, at: usize) -> u32 {
    let mut client = cluster.connect(at);
    count(&cluster.ask(&mut client, Consistency::One, "SELECT k FROM ks.t"))
}

#[test]
fn a_node_that_comes_back_gets_what_it_missed() {
    for shards in [[1, 1, 1], [2, 3, 1]] {
        let mut cluster = cluster_of(&shards, 3);
        let mut client = cluster.connect(0);
        written(&insert(&cluster, &mut client, Consistency::All, 1));
        cluster.kill(2);
        // Before anybody has noticed, and after: both leave hints.
        for key in 2..150 {
            if key == 50 {
                cluster.detect(2, false);
            }
            written(&insert(&cluster, &mut client, Consistency::Quorum, key));
        }
        cluster.run(Duration::from_millis(200));
        let stored = cluster.metric(0, "ceto_hints_stored_total");
        assert_eq!(stored, 148.0);
        assert!(cluster.metric(0, "ceto_hints_bytes") > 0.0);
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.metric(0, "ceto_hints_delivered_total"), 0.0);
        cluster.revive(2);
        cluster.detect(2, true);
        cluster.run(Duration::from_secs(15));
        assert_eq!(cluster.metric(0, "ceto_hints_delivered_total"), stored);
        assert_eq!(cluster.metric(0, "ceto_hints_bytes"), 0.0);
        assert_eq!(cluster.metric(0, "ceto_hints_files"), 0.0);
        assert_eq!(own_rows(&cluster, 2), 149, "{shards:?}");
    }
}

#[test]
fn hints_outlive_the_node_that_keeps_them_and_any_is_content_with_them() {
    let mut cluster = cluster(1);
    let mut client = cluster.connect(0);
    for at in [1, 2] {
        cluster.kill(at);
        cluster.detect(at, false);
    }
    for key in 0..60 {
        written(&insert(&cluster, &mut client, Consistency::Any, key));
    }
    let stored = cluster.metric(0, "ceto_hints_stored_total");
    assert!(stored > 10.0, "{stored}");
    cluster.restart(0);
    for at in [1, 2] {
        cluster.revive(at);
        cluster.detect(at, true);
    }
    cluster.run(Duration::from_secs(15));
    assert_eq!(cluster.metric(0, "ceto_hints_delivered_total"), stored);
    assert_eq!(own_rows(&cluster, 1), 60);
}

#[test]
fn hints_do_not_bring_back_what_was_truncated_nor_wait_for_who_has_left() {
    let mut cluster = cluster(3);
    let mut client = cluster.connect(0);
    cluster.kill(2);
    cluster.detect(2, false);
    for key in 0..20 {
        written(&insert(&cluster, &mut client, Consistency::Quorum, key));
    }
    for shard in cluster.members[0].shards.iter().chain(&cluster.members[1].shards) {
        shard.pause_hints(true);
    }
    cluster.revive(2);
    cluster.detect(2, true);
    cluster.run(Duration::from_secs(12));
    written(&cluster.ask(&mut client, Consistency::One, "TRUNCATE ks.t"));
    cluster.members[0].node.pause_hints(false);
    cluster.run(Duration::from_secs(15));
    assert_eq!(own_rows(&cluster, 2), 0);
    assert_eq!(cluster.metric(0, "ceto_hints_outdated_total"), 20.0);
    assert_eq!(cluster.metric(0, "ceto_hints_bytes"), 0.0);

    cluster.kill(2);
    cluster.detect(2, false);
    written(&insert(&cluster, &mut client, Consistency::Quorum, 1));
    assert!(
        cluster.metric(0, "ceto_hints_bytes") > 0.0 || cluster.metric(0, "ceto_hints_queued_bytes") > 0.0
    );
    cluster.members[0]
        .node
        .install_topology(std::sync::Arc::new(ceto_node::topology::Topology::alone(
            &cluster.members[0].options,
        )));
    cluster.run(Duration::from_millis(100));
    assert_eq!(cluster.metric(0, "ceto_hints_bytes"), 0.0);
}

/// A conditional update that lost a contest in the middle: nobody knows yet whether it happened.
fn is_unknown(answer: &Response) -> bool {
    matches!(
        answer,
        Response::Error(error) if matches!(error.reason, ErrorReason::WriteTimeout { write_type: WriteType::Cas, .. })
    )
}

/// `[applied]` of a conditional update.
fn applied(answer: &Response) -> bool {
    match answer {
        Response::Rows(_) => first_cell(answer) == Some(vec![1]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn conditional_updates_of_all_nodes_are_decided_one_after_the_other() {
    for (shards, replicas) in [([1, 1, 1], 3), ([1, 1, 1], 1), ([2, 1, 3], 3), ([2, 1, 3], 2)] {
        let cluster = cluster_of(&shards, replicas);
        let mut clients: Vec<Client> = (0..3).map(|at| cluster.connect(at)).collect();
        make(
            &cluster,
            &mut clients[0],
            "CREATE TABLE ks.n (k int PRIMARY KEY, n int)",
        );
        for key in 0..10 {
            let text = format!("INSERT INTO ks.n (k, n) VALUES ({key}, 0) IF NOT EXISTS");
            let answers = cluster.ask_all(&mut clients, Consistency::Quorum, &text);
            let known = answers.iter().filter(|answer| !is_unknown(answer));
            let (count, known) = (
                known.clone().filter(|answer| applied(answer)).count(),
                known.count(),
            );
            let is_right = count == 1 || (count == 0 && known < 3);
            assert!(is_right, "{shards:?} {replicas} {answers:?}");
            let read = cluster.ask(
                &mut clients[0],
                Consistency::Serial,
                &format!("SELECT n FROM ks.n WHERE k = {key}"),
            );
            assert_eq!(u32::from(known < 3).max(self::count(&read)), 1);
        }
        let (mut won, mut unknown) = (0, 0);
        for turn in 0..40 {
            let text = format!("UPDATE ks.n SET n = {} WHERE k = 1 IF n = {won}", won + 1);
            let answers = cluster.ask_all(&mut clients, Consistency::Quorum, &text);
            let known = answers.iter().filter(|answer| !is_unknown(answer));
            let (count, known) = (
                known.clone().filter(|answer| applied(answer)).count(),
                known.count(),
            );
            assert!(count <= 1, "{turn}: {answers:?}");
            let reader = &mut clients[turn % 3];
            let read = cluster.ask(reader, Consistency::Serial, "SELECT n FROM ks.n WHERE k = 1");
            let after = i32::from_be_bytes(first_cell(&read).unwrap().try_into().unwrap());
            match (count, known) {
                (1, _) => assert_eq!(after, won + 1),
                (_, 3) => panic!("one of three that want the same wins: {answers:?}"),
                _ => assert!((won..=won + 1).contains(&after)),
            }
            unknown += 3 - known;
            won = after;
        }
        assert!(won >= 30 && unknown < 20, "{won} {unknown}");
        let batch = "BEGIN BATCH UPDATE ks.n SET n = 7 WHERE k = 2 IF n = 0; UPDATE ks.n SET n = 8 WHERE k = 2; APPLY BATCH";
        assert!(applied(&cluster.ask(&mut clients[2], Consistency::One, batch)));
        assert!(!applied(&cluster.ask(&mut clients[1], Consistency::One, batch)));
    }
}

#[test]
fn conditional_updates_go_on_without_a_node_and_it_catches_up() {
    let mut cluster = cluster(3);
    let mut client = cluster.connect(0);
    let insert = |key: i32| format!("INSERT INTO ks.t (k, v) VALUES ({key}, 'x') IF NOT EXISTS");
    assert!(applied(&cluster.ask(
        &mut client,
        Consistency::Quorum,
        &insert(1)
    )));
    cluster.kill(2);
    assert!(applied(&cluster.ask(
        &mut client,
        Consistency::Quorum,
        &insert(2)
    )));
    cluster.detect(2, false);
    assert!(applied(&cluster.ask(
        &mut client,
        Consistency::Quorum,
        &insert(3)
    )));
    assert!(!applied(&cluster.ask(
        &mut client,
        Consistency::Quorum,
        &insert(3)
    )));
    cluster.kill(1);
    cluster.detect(1, false);
    let unavailable = reason(cluster.ask(&mut client, Consistency::Quorum, &insert(4)));
    assert_eq!(
        unavailable,
        ErrorReason::Unavailable {
            consistency: Consistency::Serial,
            required: 2,
            alive: 1
        }
    );
    for at in [1, 2] {
        cluster.revive(at);
        cluster.detect(at, true);
    }
    cluster.run(Duration::from_secs(15));
    assert_eq!(own_rows(&cluster, 2), 3);
    // What an acceptor has promised outlives its process.
    let states = |at| {
        let mut client = cluster.connect(at);
        count(&cluster.ask(
            &mut client,
            Consistency::One,
            "SELECT row_key, in_progress_ballot FROM system.paxos",
        ))
    };
    let before = states(1);
    assert!(before >= 3, "{before}");
    cluster.restart(1);
    let mut client = cluster.connect(1);
    assert!(!applied(&cluster.ask(
        &mut client,
        Consistency::Quorum,
        &insert(3)
    )));
    assert!(applied(&cluster.ask(
        &mut client,
        Consistency::Quorum,
        &insert(5)
    )));
}

/// A hanging acceptor is waited for, and no longer than the request may take.
#[test]
fn a_condition_that_no_quorum_decides_ends_in_time() {
    let cluster = cluster(3);
    let mut client = cluster.connect(0);
    for at in [1, 2] {
        cluster.silence(at, true);
    }
    let began = cluster.env.elapsed();
    let text = "INSERT INTO ks.t (k, v) VALUES (1, 'x') IF NOT EXISTS";
    let timeout = reason(cluster.ask(&mut client, Consistency::Quorum, text));
    let took = cluster.env.elapsed() - began;
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(
        matches!(
            timeout,
            ErrorReason::WriteTimeout {
                write_type: WriteType::Cas,
                ..
            }
        ),
        "{timeout:?}"
    );
}

fn batch_of(keys: std::ops::Range<i32>) -> String {
    let inserts = keys.map(|key| format!("INSERT INTO ks.t (k, v) VALUES ({key}, 'x');"));
    format!("BEGIN BATCH {} APPLY BATCH", inserts.collect::<String>())
}

fn batches_kept(cluster: &Cluster) -> f64 {
    (0..3).map(|at| cluster.metric(at, "ceto_batchlog_batches")).sum()
}

#[test]
fn logged_batches_are_done_and_forgotten() {
    for shards in [[1, 1, 1], [2, 1, 3]] {
        let mut cluster = cluster_of(&shards, 3);
        let mut client = cluster.connect(0);
        written(&cluster.ask(&mut client, Consistency::Quorum, &batch_of(0..20)));
        cluster.run(Duration::from_millis(10));
        assert_eq!(cluster.metric(0, "ceto_batchlog_written_total"), 1.0);
        assert_eq!(batches_kept(&cluster), 0.0);
        cluster.run(Duration::from_secs(30));
        let replayed: f64 = (0..3)
            .map(|at| cluster.metric(at, "ceto_batchlog_replayed_total"))
            .sum();
        assert_eq!(replayed, 0.0);
        for at in 0..3 {
            assert_eq!(own_rows(&cluster, at), 20);
        }
        // Refused before anybody keeps a copy.
        cluster.kill(1);
        cluster.detect(1, false);
        let refused = reason(cluster.ask(&mut client, Consistency::All, &batch_of(20..25)));
        assert!(matches!(refused, ErrorReason::Unavailable { .. }), "{refused:?}");
        assert_eq!(cluster.metric(0, "ceto_batchlog_written_total"), 1.0);
        written(&cluster.ask(&mut client, Consistency::Quorum, &batch_of(20..25)));
    }
}

/// At whatever moment the coordinator dies: all of a batch happens, or nothing.
#[test]
fn a_batch_of_a_dead_coordinator_is_done_in_full_or_not_at_all() {
    let mut complete = 0;
    for step in 0..10 {
        let mut cluster = cluster(3);
        let mut client = cluster.connect(0);
        written(&insert(&cluster, &mut client, Consistency::All, 1000));
        client.send(&support::query_at(Consistency::Quorum, &batch_of(0..20), None));
        cluster.run(Duration::from_micros(50 * step));
        cluster.silence(0, true);
        cluster.kill(0);
        cluster.run(Duration::from_millis(100));
        cluster.detect(0, false);
        cluster.run(Duration::from_secs(40));
        let rows = [own_rows(&cluster, 1) - 1, own_rows(&cluster, 2) - 1];
        assert!(rows == [20, 20] || rows == [0, 0], "{step}: {rows:?}");
        assert_eq!(cluster.metric(1, "ceto_batchlog_batches"), 0.0);
        complete += u32::from(rows[0] == 20);
    }
    assert!((1..10).contains(&complete), "{complete} of 10");
}

/// Copies that a node keeps outlive its process.
#[test]
fn a_copy_of_a_batch_outlives_the_node_that_keeps_it() {
    let mut cluster = cluster(3);
    let mut client = cluster.connect(0);
    written(&insert(&cluster, &mut client, Consistency::All, 1000));
    client.send(&support::query_at(Consistency::Quorum, &batch_of(0..20), None));
    cluster.run(Duration::from_micros(250));
    cluster.silence(0, true);
    cluster.kill(0);
    assert!(batches_kept(&cluster) >= 2.0, "both have a copy");
    assert!(own_rows(&cluster, 1) < 21, "and it is not done");
    cluster.detect(0, false);
    cluster.restart(1);
    cluster.run(Duration::from_secs(40));
    let replayed = [1, 2].map(|at| cluster.metric(at, "ceto_batchlog_replayed_total"));
    assert_eq!(replayed, [1.0, 1.0]);
    assert_eq!((own_rows(&cluster, 1), own_rows(&cluster, 2)), (21, 21));
}

#[test]
fn every_node_says_where_a_partition_lies() {
    let cluster = cluster(2);
    let mut client = cluster.connect(0);
    make(
        &cluster,
        &mut client,
        "CREATE TABLE ks.two (a int, b text, PRIMARY KEY ((a, b)))",
    );
    let ask = |at: usize, table: &str, key: &str| cluster.members[at].node.endpoints("ks", table, key);
    for key in 0..10 {
        let found = ask(0, "t", &key.to_string()).unwrap();
        assert_eq!(found.len(), 2);
        assert!((1..3).all(|at| ask(at, "t", &key.to_string()).as_ref() == Ok(&found)));
    }
    assert_eq!(ask(1, "two", "7:x").unwrap().len(), 2);
    assert_eq!(
        ask(1, "two", "7").unwrap_err(),
        "'7' has 1 of the key's 2 columns; write them with a : between"
    );
    assert!(ask(1, "t", "seven").unwrap_err().starts_with("'seven' is no k: "));
    assert_eq!(
        ask(1, "none", "7").unwrap_err(),
        "Unknown table 'none' in keyspace 'ks'"
    );
    let unknown = cluster.members[1].node.endpoints("nowhere", "t", "7");
    assert_eq!(unknown.unwrap_err(), "Unknown keyspace 'nowhere'");
}
