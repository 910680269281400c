use super::*;

#[test]
fn a_write_to_the_only_replica_is_applied_here_without_a_copy() {
    let mut bench = Bench::simple(1, 1);
    let mut out = Actions::new();
    let map = bench.map.clone();
    let context = RequestContext {
        replication: &map,
        consistency: Consistency::Quorum,
        deadline: bench.start,
    };
    let request = bench
        .coordinator
        .begin_write(context, WriteType::Simple, set(1, 1, 1), &mut out)
        .unwrap();
    let Some(Action::Apply { reply_to, mutation }) = out.pop() else {
        panic!("expected Apply");
    };
    assert!(out.is_empty());
    assert_eq!(mutation, set(1, 1, 1));
    bench.coordinator.applied(bench.start, reply_to, Ok(()), &mut out);
    let reply = Reply::Write(Ok(()));
    assert_eq!(out.pop(), Some(Action::Reply { request, reply }));
    assert_eq!(bench.coordinator.in_flight(), 0);
    assert_eq!(
        bench.coordinator.next_timeout(),
        None,
        "its timer is gone with it"
    );
    bench.coordinator.applied(bench.start, reply_to, Ok(()), &mut out);
    assert!(out.is_empty(), "a second outcome is not a second reply");
}

#[test]
fn writes_wait_for_as_many_replicas_as_their_level_says() {
    use Consistency::*;
    // For each level: how many of three replicas may be silent before it times out, and what it says then.
    for (level, may_be_silent, required) in [
        (One, 2, 1),
        (Two, 1, 2),
        (Three, 0, 3),
        (Quorum, 1, 2),
        (All, 0, 3),
        (LocalQuorum, 1, 2),
    ] {
        for silent in 0..=3usize {
            let mut bench = Bench::simple(3, 3);
            bench.silent = [3, 2, 1].into_iter().take(silent).map(host).collect();
            let outcome = bench.write(level, set(1, 1, 1));
            if silent <= may_be_silent {
                assert_eq!(outcome, Ok(()), "{level} with {silent} silent");
            } else {
                let received = 3 - silent as u32;
                let expected = RequestError::WriteTimeout {
                    consistency: level,
                    received,
                    required,
                    write_type: WriteType::Simple,
                };
                assert_eq!(outcome, Err(expected));
            }
            bench.hints.sort();
            let mut expected: Vec<_> = bench
                .silent
                .iter()
                .copied()
                .filter(|own| *own != host(1))
                .collect();
            expected.sort();
            assert_eq!(bench.hints, expected, "a silent peer gets its hint");
        }
    }
}

#[test]
fn failures_end_a_write_as_soon_as_it_cannot_succeed() {
    let mut bench = Bench::simple(3, 3);
    bench.failing = vec![host(2), host(3)];
    let error = bench.write(Consistency::Quorum, set(1, 1, 1)).unwrap_err();
    let RequestError::WriteFailure {
        received,
        required,
        mut failures,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    failures.sort();
    assert_eq!(
        (received, required),
        (0, 2),
        "it fails before this node has done its own part"
    );
    assert_eq!(
        failures,
        [2, 3].map(|id| (host(id), FailureReason::StorageRefused))
    );
    assert_eq!(bench.hints.len(), 2, "what failed is hinted");
    assert_eq!(bench.write(Consistency::One, set(1, 1, 1)), Ok(()));
}

#[test]
fn dead_replicas_make_a_request_unavailable_before_anything_is_done() {
    let mut bench = Bench::simple(3, 3);
    bench.coordinator.set_alive(host(2), false);
    assert_eq!(bench.write(Consistency::Quorum, set(1, 1, 1)), Ok(()));
    assert_eq!(bench.hints, [host(2)], "hinted at once");
    bench.coordinator.set_alive(host(3), false);
    let unavailable = RequestError::Unavailable {
        consistency: Consistency::Quorum,
        required: 2,
        alive: 1,
    };
    assert_eq!(
        bench.write(Consistency::Quorum, set(1, 1, 2)),
        Err(unavailable.clone())
    );
    assert_eq!(
        bench.read(Consistency::Quorum, ReadOptions::default(), one(1)),
        Err(unavailable)
    );
    assert_eq!(bench.hints.len(), 1, "no hint for a write that was refused");
    assert_eq!(bench.write(Consistency::LocalOne, set(1, 1, 2)), Ok(()));
    bench.coordinator.set_alive(host(3), true);
    assert_eq!(bench.write(Consistency::Quorum, set(1, 1, 3)), Ok(()));
}

#[test]
fn any_is_satisfied_by_a_hint() {
    // Keys whose only replica is not the coordinator.
    let mut bench = Bench::simple(3, 1);
    let id = (0..255)
        .find(|id| bench.map.replicas(key(*id).token).single().unwrap().host == host(2))
        .unwrap();
    bench.coordinator.set_alive(host(2), false);
    assert!(matches!(
        bench.write(Consistency::One, set(id, 1, 1)),
        Err(RequestError::Unavailable { alive: 0, .. })
    ));
    assert_eq!(bench.write(Consistency::Any, set(id, 1, 1)), Ok(()));
    assert_eq!(bench.hints, [host(2)]);
    let mut nobody = Bench::simple(3, 0);
    assert!(matches!(
        nobody.write(Consistency::Any, set(id, 1, 1)),
        Err(RequestError::Unavailable { .. })
    ));
}

#[test]
fn each_quorum_wants_its_quorum_in_every_data_center() {
    let strategy = Replication::NetworkTopology {
        datacenters: vec![("east".to_owned(), 3), ("west".to_owned(), 3)],
    };
    let mut bench = Bench::new(6, strategy.clone());
    bench.silent = vec![host(2), host(4)];
    assert_eq!(bench.write(Consistency::EachQuorum, set(1, 1, 1)), Ok(()));
    bench.silent = vec![host(4), host(5)];
    let timeout = RequestError::WriteTimeout {
        consistency: Consistency::EachQuorum,
        received: 3,
        required: 4,
        write_type: WriteType::Simple,
    };
    assert_eq!(bench.write(Consistency::EachQuorum, set(1, 1, 2)), Err(timeout));
    assert_eq!(bench.write(Consistency::LocalQuorum, set(1, 1, 2)), Ok(()));
    bench.silent.clear();
    assert!(
        bench
            .read(Consistency::EachQuorum, ReadOptions::default(), one(1))
            .is_ok()
    );
    bench.coordinator.set_alive(host(5), false);
    bench.coordinator.set_alive(host(6), false);
    let unavailable = RequestError::Unavailable {
        consistency: Consistency::EachQuorum,
        required: 2,
        alive: 1,
    };
    assert_eq!(
        bench.read(Consistency::EachQuorum, ReadOptions::default(), one(1)),
        Err(unavailable)
    );
    assert!(
        bench
            .read(Consistency::LocalQuorum, ReadOptions::default(), one(1))
            .is_ok()
    );
    bench.coordinator.set_alive(host(2), false);
    bench.coordinator.set_alive(host(3), false);
    let unavailable = RequestError::Unavailable {
        consistency: Consistency::LocalQuorum,
        required: 2,
        alive: 1,
    };
    assert_eq!(
        bench.write(Consistency::LocalQuorum, set(1, 1, 3)),
        Err(unavailable)
    );
}

#[test]
fn requests_beyond_the_bound_are_refused() {
    let mut bench = Bench::simple(3, 3);
    let limits = Limits {
        in_flight_max: 2,
        lingering_max: 1,
    };
    bench.coordinator = Coordinator::new(host(1), limits, 1);
    let map = bench.map.clone();
    let context = RequestContext {
        replication: &map,
        consistency: Consistency::One,
        deadline: bench.start + Duration::from_secs(1),
    };
    let mut out = Actions::new();
    let begin = |coordinator: &mut Coordinator, out: &mut Actions| {
        coordinator.begin_write(context, WriteType::Simple, set(1, 1, 1), out)
    };
    bench.silent = vec![host(2), host(3)];
    begin(&mut bench.coordinator, &mut out).unwrap();
    bench.run(bench.start, &mut out);
    assert_eq!(
        (bench.coordinator.in_flight(), bench.coordinator.lingering()),
        (1, 1)
    );
    assert!(bench.hints.is_empty());
    begin(&mut bench.coordinator, &mut out).unwrap();
    assert_eq!(
        begin(&mut bench.coordinator, &mut Actions::new()),
        Err(RequestError::Overloaded { in_flight_max: 2 })
    );
    bench.run(bench.start, &mut out);
    assert_eq!(
        (bench.coordinator.in_flight(), bench.coordinator.lingering()),
        (1, 1)
    );
    assert_eq!(
        bench.hints.len(),
        2,
        "slow replicas are hinted at once beyond the bound"
    );
    assert_eq!(bench.replies.len(), 2);
}

#[test]
fn answers_to_an_earlier_life_are_not_taken() {
    let mut bench = Bench::simple(3, 3);
    let map = bench.map.clone();
    let context = RequestContext {
        replication: &map,
        consistency: Consistency::All,
        deadline: bench.start + Duration::from_secs(1),
    };
    let (mut old, mut new) = (Actions::new(), Actions::new());
    bench
        .coordinator
        .begin_write(context, WriteType::Simple, set(1, 1, 1), &mut old)
        .unwrap();
    bench.coordinator = Coordinator::new(host(1), Limits::default(), 2);
    bench
        .coordinator
        .begin_write(context, WriteType::Simple, set(1, 2, 1), &mut new)
        .unwrap();
    bench.run(bench.start, &mut old);
    assert!(bench.replies.is_empty(), "{:?}", bench.replies);
    bench.run(bench.start, &mut new);
    assert_eq!(bench.replies, [Reply::Write(Ok(()))]);
}

/// A write knows at once that a replica's connection is gone: the replica gets its hint, and the client its timeout when
/// there are too few others.
#[test]
fn a_lost_replica_is_hinted_at_once() {
    let mut bench = Bench::simple(3, 3);
    bench.cut_off = vec![host(2)];
    assert_eq!(bench.write(Consistency::Quorum, set(1, 1, 1)), Ok(()));
    assert_eq!(std::mem::take(&mut bench.hints), [host(2)]);
    let timeout = RequestError::WriteTimeout {
        consistency: Consistency::All,
        received: 2,
        required: 3,
        write_type: WriteType::Simple,
    };
    assert_eq!(bench.write(Consistency::All, set(1, 1, 2)), Err(timeout));
    assert_eq!(bench.hints, [host(2)]);
}

/// Node 4 gets the tokens of node 3's place: it is written, counts, is hinted, and one answer more is needed.
#[test]
fn a_node_that_is_about_to_be_a_replica_is_written_as_one() {
    use Consistency::*;
    let moving = || {
        let mut bench = Bench::simple(4, 3);
        let tokens = |third: &[i64], fourth: &[i64]| {
            let all = [(1, &[-9][..]), (2, &[0]), (3, third), (4, fourth)];
            Ring::new(all.map(|(id, tokens)| node(id, "east", "r", tokens))).unwrap()
        };
        let (present, future) = (tokens(&[9], &[]), tokens(&[], &[9]));
        let strategy = Replication::Simple {
            replication_factor: 3,
        };
        let map = ReplicaMap::between(Arc::new(present), Some(&future), strategy, host(1));
        assert_eq!(map.replicas(key(1).token).pending().len(), 1);
        bench.map = Arc::new(map);
        bench
    };
    for (level, required) in [(One, 2), (Quorum, 3), (All, 4), (LocalQuorum, 3), (EachQuorum, 3)] {
        let mut bench = moving();
        bench.silent = (4 + 1 - required..=4).map(host).collect();
        let received = 4 - bench.silent.len() as u32;
        let expected = RequestError::WriteTimeout {
            consistency: level,
            received,
            required: required as u32,
            write_type: WriteType::Simple,
        };
        let outcome = bench.write(level, set(1, 1, 1));
        match received >= required as u32 {
            true => assert_eq!(outcome, Ok(()), "{level}"),
            false => assert_eq!(outcome, Err(expected), "{level}"),
        }
        assert!(bench.hints.contains(&host(4)), "{level}: it is hinted too");
    }
    let mut bench = moving();
    bench.coordinator.set_alive(host(4), false);
    assert_eq!(
        bench.write(Quorum, set(1, 1, 1)),
        Ok(()),
        "the three others are enough"
    );
    assert_eq!(bench.hints, [host(4)]);
    bench.coordinator.set_alive(host(3), false);
    let unavailable = RequestError::Unavailable {
        consistency: Quorum,
        required: 3,
        alive: 2,
    };
    assert_eq!(bench.write(Quorum, set(1, 1, 1)), Err(unavailable));
}
