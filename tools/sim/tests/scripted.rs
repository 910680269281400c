//! Short stories about clusters, told on the fixture.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use ceto_cluster::Strategy;
use ceto_cluster::coordinator::RequestError;
use ceto_model::Consistency::*;
use ceto_model::WriteType;
use ceto_sim::Cluster;
use ceto_sim::script::Refusal;

fn value(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn pair_reads_on_one_node_what_was_written_on_the_other() {
    let mut pair = Cluster::pair();
    pair.write(0, All, 1, "a").unwrap();
    assert_eq!(pair.read(1, One, 1), Ok(value("a")));
    pair.delete(1, All, 1).unwrap();
    assert_eq!(pair.read(0, One, 1), Ok(None));
    assert_eq!(pair.read(0, One, 2), Ok(None));
}

#[test]
fn pair_cut_apart_serves_one_and_refuses_all() {
    let mut pair = Cluster::pair();
    pair.isolate(1);
    // Nobody has noticed yet: the coordinator waits in vain, and hints when it gives up.
    let timeout = RequestError::WriteTimeout {
        consistency: All,
        received: 1,
        required: 2,
        write_type: WriteType::Simple,
    };
    assert_eq!(pair.write(0, All, 1, "a"), Err(Refusal::Error(timeout)));
    assert_eq!(pair.hints(0), [1]);
    pair.settle();
    let unavailable = RequestError::Unavailable {
        consistency: Quorum,
        required: 2,
        alive: 1,
    };
    assert_eq!(
        pair.write(0, Quorum, 1, "b"),
        Err(Refusal::Error(unavailable.clone()))
    );
    assert_eq!(pair.read(0, Quorum, 1), Err(Refusal::Error(unavailable)));
    assert_eq!(pair.write(0, One, 1, "c"), Ok(()));
    assert_eq!(pair.hints(0), [1, 1], "the refused write left none");
    assert_eq!(pair.read(1, One, 1), Ok(None));
    pair.heal();
    pair.world.drain_hints();
    assert_eq!(pair.read(1, One, 1), Ok(value("c")));
}

#[test]
fn a_quorum_outlives_one_node_and_heals_it_by_reading() {
    let mut cluster = Cluster::simple(3);
    cluster.write(0, All, 1, "old").unwrap();
    cluster.isolate(2);
    cluster.write(0, Quorum, 1, "new").unwrap();
    cluster.heal();
    assert_eq!(cluster.held(2, 1), value("old"));
    assert_eq!(cluster.read(2, One, 1), Ok(value("old")), "ONE may be stale");
    assert_eq!(cluster.read(2, Quorum, 1), Ok(value("new")));
    assert_eq!(cluster.held(2, 1), value("new"), "read repair");
}

#[test]
fn deletions_win_over_what_a_node_missed() {
    let mut cluster = Cluster::simple(3);
    cluster.write(0, All, 1, "a").unwrap();
    cluster.isolate(2);
    cluster.delete(0, Quorum, 1).unwrap();
    cluster.heal();
    assert_eq!(cluster.held(2, 1), value("a"));
    assert_eq!(cluster.read(2, All, 1), Ok(None));
    assert_eq!(cluster.held(2, 1), None);
}

#[test]
fn one_way_cuts_time_out_where_answers_are_lost() {
    let mut cluster = Cluster::simple(3);
    cluster.cut(1, 0);
    cluster.cut(2, 0);
    let timeout = RequestError::WriteTimeout {
        consistency: Quorum,
        received: 1,
        required: 2,
        write_type: WriteType::Simple,
    };
    assert_eq!(cluster.write(0, Quorum, 1, "a"), Err(Refusal::Error(timeout)));
    assert_eq!(cluster.held(1, 1), value("a"), "it did happen there");
    assert_eq!(cluster.read(1, Quorum, 1), Ok(value("a")));
}

#[test]
fn speculation_hides_a_node_that_nobody_missed_yet() {
    let mut asked_in_vain = 0;
    for away in [1, 2] {
        let mut cluster = Cluster::simple(3);
        cluster.write(0, All, 1, "a").unwrap();
        cluster.isolate(away);
        let timeout = RequestError::ReadTimeout {
            consistency: Quorum,
            received: 1,
            required: 2,
            data_present: true,
        };
        let mut impatient = Cluster::simple(3);
        impatient.options.speculate_after = Some(Duration::from_millis(10));
        impatient.write(0, All, 1, "a").unwrap();
        impatient.isolate(away);
        let began = impatient.world.now();
        assert_eq!(impatient.read(0, Quorum, 1), Ok(value("a")));
        assert!(impatient.world.now() - began < Duration::from_millis(20));
        match cluster.read(0, Quorum, 1) {
            Ok(read) => assert_eq!(read, value("a")),
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Error(timeout));
                asked_in_vain += 1;
            }
        }
    }
    assert_eq!(asked_in_vain, 1, "a quorum asks one peer");
}

#[test]
fn a_crash_loses_the_request_and_keeps_the_rows() {
    let mut cluster = Cluster::simple(3);
    cluster.write(1, Quorum, 1, "a").unwrap();
    cluster.crash(1);
    assert_eq!(cluster.write(1, One, 1, "b"), Err(Refusal::Lost));
    cluster.settle();
    assert_eq!(cluster.read(0, Quorum, 1), Ok(value("a")));
    cluster.heal();
    assert_eq!(cluster.held(1, 1), value("a"));
}

#[test]
fn data_centers_part_and_local_levels_go_on() {
    let strategy = Strategy::NetworkTopology {
        datacenters: vec![("dc1".to_owned(), 3), ("dc2".to_owned(), 3)],
    };
    let mut cluster = Cluster::new(&[3, 3], strategy);
    cluster.write(0, EachQuorum, 1, "a").unwrap();
    for left in 0..3 {
        for right in 3..6 {
            cluster.cut(left, right);
            cluster.cut(right, left);
        }
    }
    cluster.settle();
    cluster.write(0, LocalQuorum, 1, "left").unwrap();
    cluster.write(4, LocalQuorum, 1, "right").unwrap();
    assert_eq!(cluster.read(2, LocalQuorum, 1), Ok(value("left")));
    assert_eq!(cluster.read(5, LocalQuorum, 1), Ok(value("right")));
    let each = RequestError::Unavailable {
        consistency: EachQuorum,
        required: 2,
        alive: 0,
    };
    assert_eq!(cluster.write(0, EachQuorum, 1, "x"), Err(Refusal::Error(each)));
    let quorum = RequestError::Unavailable {
        consistency: Quorum,
        required: 4,
        alive: 3,
    };
    assert_eq!(cluster.read(0, Quorum, 1), Err(Refusal::Error(quorum)));
    cluster.heal();
    assert_eq!(
        cluster.read(0, Quorum, 1),
        Ok(value("right")),
        "the newer one wins"
    );
    assert_eq!(cluster.read(0, All, 1), Ok(value("right")));
    assert_eq!(cluster.read(1, One, 1), Ok(value("right")));
}

#[test]
fn any_is_kept_by_a_hint_until_the_replica_is_back() {
    let strategy = Strategy::NetworkTopology {
        datacenters: vec![("dc2".to_owned(), 1)],
    };
    let mut cluster = Cluster::new(&[1, 1], strategy);
    cluster.crash(1);
    cluster.settle();
    assert_eq!(cluster.write(0, Any, 1, "a"), Ok(()));
    assert!(cluster.write(0, One, 1, "b").is_err());
    assert_eq!(cluster.hints(0), [1]);
    cluster.heal();
    cluster.world.drain_hints();
    assert_eq!(cluster.read(0, One, 1), Ok(value("a")));
}
