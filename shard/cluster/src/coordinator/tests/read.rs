use super::*;

#[test]
fn a_read_of_the_only_replica_passes_through() {
    let mut bench = Bench::simple(1, 1);
    bench.write(Consistency::One, set(1, 1, 1)).unwrap();
    let mut out = Actions::new();
    let map = bench.map.clone();
    let context = RequestContext {
        replication: &map,
        consistency: Consistency::Quorum,
        deadline: bench.start,
    };
    let full = select(ReadTarget::Range(PartitionRange::full()));
    for command in [one(1), full] {
        bench
            .coordinator
            .begin_read(
                bench.start,
                context,
                ReadOptions::default(),
                command.clone(),
                &mut out,
            )
            .unwrap();
        let Some(Action::Read {
            reply_to,
            kind: AnswerKind::Data,
            command: asked,
        }) = out.pop()
        else {
            panic!("expected Read");
        };
        assert_eq!(asked, command, "tombstones are not asked for");
        let result = evaluate(&asked, &bench.stores[&host(1)]);
        assert_eq!(result.partitions.len(), 1);
        bench.coordinator.read_done(
            bench.start,
            reply_to,
            AnswerKind::Data,
            Ok(result.clone()),
            &mut out,
        );
        let Some(Action::Reply { reply, .. }) = out.pop() else {
            panic!("expected Reply");
        };
        assert_eq!(reply, Reply::Read(Ok(result)));
    }
}

#[test]
fn a_digest_mismatch_is_reconciled_and_repaired() {
    let mut bench = Bench::simple(3, 3);
    apply(bench.stores.get_mut(&host(1)).unwrap(), set(1, 1, 10));
    apply(bench.stores.get_mut(&host(2)).unwrap(), set(1, 2, 20));
    for id in 1..=3 {
        apply(bench.stores.get_mut(&host(id)).unwrap(), set(1, 3, 5));
    }
    let result = bench
        .read(Consistency::All, ReadOptions::default(), one(1))
        .unwrap();
    assert_eq!(result.partitions[0].partition.rows.len(), 3);
    let whole = bench.stores[&host(1)].clone();
    assert!(bench.stores.values().all(|store| *store == whole));
    assert_eq!(bench.mutations_sent, 2, "host 1 repaired itself");
    bench.mutations_sent = 0;
    bench
        .read(Consistency::All, ReadOptions::default(), one(1))
        .unwrap();
    assert_eq!(bench.mutations_sent, 0, "nothing is left to repair");
}

#[test]
fn read_repair_none_merges_and_leaves_replicas_alone() {
    let mut bench = Bench::simple(3, 3);
    apply(bench.stores.get_mut(&host(2)).unwrap(), set(1, 2, 20));
    let options = ReadOptions {
        read_repair: ReadRepair::None,
        ..ReadOptions::default()
    };
    let result = bench.read(Consistency::All, options, one(1)).unwrap();
    assert_eq!(result.partitions[0].partition.rows.len(), 1);
    assert!(bench.stores[&host(1)].is_empty());
}

#[test]
fn a_slow_replica_is_stood_in_for() {
    let mut bench = Bench::simple(3, 3);
    for consistency in [Consistency::One, Consistency::Quorum] {
        bench.silent = vec![if consistency == Consistency::One {
            host(1)
        } else {
            nearest_peer(&bench)
        }];
        let slow = bench.read(consistency, ReadOptions::default(), one(1));
        assert!(matches!(slow, Err(RequestError::ReadTimeout { .. })), "{slow:?}");
        let options = ReadOptions {
            speculate_after: Some(Duration::from_millis(10)),
            ..ReadOptions::default()
        };
        assert!(bench.read(consistency, options, one(1)).is_ok());
    }
}

fn nearest_peer(bench: &Bench) -> HostId {
    bench.map.replicas(key(1).token).nearest()[1].host
}

/// Nobody waits for a replica whose connection is gone: the next one is asked at once, without speculation.
#[test]
fn a_lost_replica_is_stood_in_for_at_once() {
    let mut bench = Bench::simple(3, 3);
    apply(bench.stores.get_mut(&host(1)).unwrap(), set(1, 1, 1));
    for id in 1..=3 {
        apply(bench.stores.get_mut(&host(id)).unwrap(), set(1, 2, 2));
    }
    bench.cut_off = vec![nearest_peer(&bench)];
    // Host 1 has a row that the other lacks: rows are compared, merged and repaired around the lost one.
    let result = bench
        .read(Consistency::Quorum, ReadOptions::default(), one(1))
        .unwrap();
    assert_eq!(result.partitions[0].partition.rows.len(), 2);
    assert_eq!(bench.mutations_sent, 1);
    bench.cut_off = vec![host(2), host(3)];
    let timeout = RequestError::ReadTimeout {
        consistency: Consistency::Quorum,
        received: 1,
        required: 2,
        data_present: true,
    };
    assert_eq!(
        bench.read(Consistency::Quorum, ReadOptions::default(), one(1)),
        Err(timeout)
    );
    let mut bench = Bench::simple(4, 2);
    let key = (0..=255u8)
        .find(|id| !bench.map.is_replica(host(1), key(*id).token))
        .unwrap();
    let first = bench.map.replicas(super::key(key).token).nearest()[0].host;
    bench.cut_off = vec![first];
    assert!(
        bench
            .read(Consistency::One, ReadOptions::default(), one(key))
            .is_ok()
    );
}

#[test]
fn read_errors_carry_exact_counts() {
    let mut bench = Bench::simple(3, 3);
    bench.silent = vec![host(2), host(3)];
    let timeout = RequestError::ReadTimeout {
        consistency: Consistency::All,
        received: 1,
        required: 3,
        data_present: true,
    };
    assert_eq!(
        bench.read(Consistency::All, ReadOptions::default(), one(1)),
        Err(timeout)
    );
    bench.silent = vec![host(1)];
    let timeout = RequestError::ReadTimeout {
        consistency: Consistency::All,
        received: 2,
        required: 3,
        data_present: false,
    };
    assert_eq!(
        bench.read(Consistency::All, ReadOptions::default(), one(1)),
        Err(timeout)
    );
    bench.silent.clear();
    bench.failing = vec![nearest_peer(&bench)];
    let failure = RequestError::ReadFailure {
        consistency: Consistency::Quorum,
        received: 1,
        required: 2,
        failures: vec![(nearest_peer(&bench), FailureReason::TooManyTombstones)],
        data_present: true,
    };
    assert_eq!(
        bench.read(Consistency::Quorum, ReadOptions::default(), one(1)),
        Err(failure)
    );
    bench.failing = vec![host(1)];
    assert!(matches!(
        bench.read(Consistency::One, ReadOptions::default(), one(1)),
        Err(RequestError::ReadFailure {
            received: 0,
            required: 1,
            data_present: false,
            ..
        })
    ));
}

#[test]
fn rows_deleted_elsewhere_do_not_shorten_a_limited_read() {
    let mut bench = Bench::simple(3, 3);
    // Host 1 missed the deletion of rows 0 to 9.
    for row in 0..20 {
        for id in 1..=3 {
            apply(bench.stores.get_mut(&host(id)).unwrap(), set(1, row, 1));
        }
        if row < 10 {
            for id in 2..=3 {
                apply(bench.stores.get_mut(&host(id)).unwrap(), delete(1, row, 2));
            }
        }
    }
    let mut command = one(1);
    command.limits.rows = 3;
    let result = bench
        .read(Consistency::All, ReadOptions::default(), command.clone())
        .unwrap();
    let rows: Vec<_> = result.partitions[0]
        .partition
        .rows
        .iter()
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!(rows, [10, 11, 12].map(clustering));
    assert!(result.resume.is_some());
    command.reversed = true;
    command.limits.rows = 12;
    let result = bench
        .read(Consistency::All, ReadOptions::default(), command)
        .unwrap();
    let rows: Vec<_> = result.partitions[0]
        .partition
        .rows
        .iter()
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!(rows, (10..20).rev().map(clustering).collect::<Vec<_>>());
    assert_eq!(result.resume, None);
}

#[test]
fn a_range_over_many_parts_stops_at_its_limits() {
    let mut bench = Bench::simple(4, 1);
    let mut whole = Store::new();
    for id in 0..40 {
        let replica = bench.map.replicas(key(id).token).single().unwrap().host;
        apply(bench.stores.get_mut(&replica).unwrap(), set(id, 1, 1));
        apply(&mut whole, set(id, 1, 1));
    }
    let mut command = select(ReadTarget::Range(PartitionRange::full()));
    let all = bench
        .read(Consistency::One, ReadOptions::default(), command.clone())
        .unwrap();
    assert_eq!(all.partitions, evaluate(&command, &whole).partitions);
    assert_eq!((all.partitions.len(), all.resume), (40, None));
    command.limits.rows = 7;
    let page = bench
        .read(Consistency::One, ReadOptions::default(), command.clone())
        .unwrap();
    assert_eq!(page.partitions, evaluate(&command, &whole).partitions);
    assert!(page.resume.is_some());
    let empty = RingPosition::AfterToken(key(1).token);
    command.target = ReadTarget::Range(PartitionRange {
        start: empty.clone(),
        end: empty,
    });
    let none = bench
        .read(Consistency::One, ReadOptions::default(), command)
        .unwrap();
    assert_eq!((none.partitions.len(), none.resume), (0, None));
}
