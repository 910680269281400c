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
    let limits = Limits {
        read_timeout: Duration::from_secs(1),
        range_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let cluster = Cluster::boot(3, limits);
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
    cluster.members[2].node.listen_for_peers().unwrap();
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
