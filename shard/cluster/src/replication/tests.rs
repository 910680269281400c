#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use ceto_internode::TokenPart;
use ceto_model::schema::ReplicationOptions;
use ceto_model::{Consistency, PartitionRange, RingPosition, Token};
use indexmap::IndexMap;

use super::moves::{Gain, Sources, copies, gains, share};
use super::*;
use crate::random::Random;
use crate::ring::tests::{host, node};
use crate::ring::{Datacenter, HostId, Ring, RingNode, random_tokens};

fn simple(replication_factor: u32) -> Strategy {
    Strategy::Simple { replication_factor }
}

fn network(datacenters: &[(&str, u32)]) -> Strategy {
    let datacenters = datacenters
        .iter()
        .map(|(name, replicas)| ((*name).to_owned(), *replicas));
    Strategy::NetworkTopology {
        datacenters: datacenters.collect(),
    }
}

fn map(nodes: &[RingNode], strategy: Strategy) -> ReplicaMap {
    ReplicaMap::new(
        Arc::new(Ring::new(nodes.iter().cloned()).unwrap()),
        strategy,
        host(1),
    )
}

fn natural(map: &ReplicaMap, token: i64) -> Vec<HostId> {
    map.replicas(Token(token))
        .natural()
        .iter()
        .map(|replica| replica.host)
        .collect()
}

/// The expectation of Cassandra's SimpleStrategyTest: nodes at 0, 10, ... 40; the replicas of a key between two of
/// them are the following nodes in order.
#[test]
fn simple_strategy_takes_the_next_nodes_clockwise() {
    let nodes: Vec<_> = (0..5)
        .map(|i| node(i as u128 + 1, "dc", "r", &[10 * i]))
        .collect();
    for replicas in 1..=5 {
        let map = map(&nodes, simple(replicas));
        for i in 0..5u128 {
            let expected: Vec<_> = (0..u128::from(replicas))
                .map(|j| host((i + j + 1) % 5 + 1))
                .collect();
            assert_eq!(natural(&map, 10 * i as i64 + 5), expected);
        }
    }
    assert_eq!(
        natural(&map(&nodes, simple(9)), 5).len(),
        5,
        "no more than there are nodes"
    );
    assert!(natural(&map(&nodes, simple(0)), 5).is_empty());
    assert!(natural(&map(&[], simple(1)), 5).is_empty());
}

/// The ring of Cassandra's SimpleStrategyTest.testMultiDCSimpleStrategyEndpoints and its counts.
#[test]
fn simple_strategy_crosses_data_centers() {
    let nodes = [
        node(1, "DC1", "RAC1", &[-6639341390736545756, -2688160409776496397]),
        node(2, "DC1", "RAC1", &[-2506475074448728501, 8473270337963525440]),
        node(4, "DC2", "RAC1", &[-3736333188524231709, 8673615181726552074]),
    ];
    let map = map(&nodes, simple(3));
    let sets: Vec<_> = nodes
        .iter()
        .flat_map(|node| &node.tokens)
        .map(|token| natural(&map, token.0))
        .collect();
    for id in [1, 2, 4] {
        assert_eq!(sets.iter().filter(|set| set[0] == host(id)).count(), 2);
        assert_eq!(sets.iter().filter(|set| set.contains(&host(id))).count(), 6);
    }
}

/// The ring of Cassandra's NetworkTopologyStrategyTest, tokens read as hexadecimal numbers, racks as in its topology
/// file; with or without its third data center.
fn three_datacenters(with_third: bool) -> Vec<RingNode> {
    let mut nodes = vec![
        node(1, "DC1", "RAC1", &[0x123]),
        node(2, "DC1", "RAC1", &[0x234]),
        node(3, "DC1", "RAC2", &[0x345]),
        node(4, "DC2", "RAC1", &[0x789]),
        node(5, "DC2", "RAC1", &[0x890]),
        node(6, "DC1", "RAC2", &[0x90A]),
        node(7, "DC2", "RAC2", &[0xABC]),
    ];
    if with_third {
        nodes.push(node(8, "DC3", "RAC1", &[0x456]));
        nodes.push(node(9, "DC3", "RAC2", &[0x567]));
        nodes.push(node(10, "DC3", "RAC1", &[0x0AB]));
    }
    nodes
}

#[test]
fn network_topology_strategy_fills_each_data_center() {
    let strategy = network(&[("DC1", 3), ("DC2", 2), ("DC3", 1)]);
    let replicas = natural(&map(&three_datacenters(true), strategy.clone()), 0x123);
    assert_eq!(replicas.len(), 6);
    assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 6);
    assert_eq!(strategy.replication_factor(), 6);
    assert_eq!(strategy.local_replication_factor("DC2"), 2);

    let strategy = network(&[("DC1", 3), ("DC2", 3), ("DC3", 0)]);
    let replicas = natural(&map(&three_datacenters(false), strategy), 0x123);
    // DC1 has two racks for three replicas: one of each rack, and the first rack repeat on the way.
    let expected: Vec<_> = [1, 2, 3, 4, 5, 7].map(host).into();
    assert_eq!(replicas, expected);
}

/// NetworkTopologyStrategyTest.testLargeCluster: sizes must come out exactly on many racks.
#[test]
fn network_topology_strategy_scales_to_many_racks() {
    let mut nodes = Vec::new();
    for (datacenter, (racks, endpoints)) in [(2i64, 128), (4, 256), (8, 512)].into_iter().enumerate() {
        for rack in 0..racks {
            for endpoint in 1..=endpoints / racks {
                let token = endpoint << 16 | rack << 8 | datacenter as i64;
                let id = token as u128;
                nodes.push(node(id, &datacenter.to_string(), &format!("r{rack}"), &[token]));
            }
        }
    }
    let map = map(&nodes, network(&[("0", 2), ("1", 6), ("2", 6)]));
    for token in [0x123456, 0x200000, 0x000402, 0xffffff, 0x400200] {
        let replicas = natural(&map, token);
        assert_eq!(replicas.len(), 14);
        assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 14);
        let racks = |datacenter: Datacenter| {
            let nodes = replicas.iter().map(|host| map.ring().index_of(*host).unwrap());
            nodes
                .map(|node| map.ring().location(node))
                .filter(|location| location.datacenter == datacenter)
                .collect::<BTreeSet<_>>()
                .len()
        };
        assert_eq!(racks(map.ring().datacenter("0").unwrap()), 2);
        assert_eq!(racks(map.ring().datacenter("1").unwrap()), 4);
        assert_eq!(racks(map.ring().datacenter("2").unwrap()), 6);
    }
}

/// The rule as it was first written down, one data center at a time: take nodes of new racks, put aside the others,
/// and once every rack has been met take those put aside in their order.
fn placed_one_by_one(ring: &Ring, start: usize, name: &str, replicas: usize) -> BTreeSet<HostId> {
    let datacenter = ring.datacenter(name).unwrap();
    let rack_count = ring.rack_count(datacenter);
    let (mut taken, mut aside, mut racks) = (Vec::new(), Vec::new(), BTreeSet::new());
    for index in ring.walk(start) {
        let (host, location) = (ring.node(index).host, ring.location(index));
        if location.datacenter != datacenter || taken.contains(&host) || taken.len() == replicas {
            continue;
        }
        if racks.len() == rack_count {
            taken.push(host);
        } else if racks.insert(location.rack) {
            taken.push(host);
            if racks.len() == rack_count {
                for host in aside.drain(..) {
                    if taken.len() < replicas && !taken.contains(&host) {
                        taken.push(host);
                    }
                }
            }
        } else {
            aside.push(host);
        }
    }
    taken.into_iter().collect()
}

#[test]
fn network_topology_strategy_agrees_with_the_rule_told_simply() {
    let mut random = Random::new(11);
    for _ in 0..200 {
        let mut nodes: Vec<RingNode> = Vec::new();
        let racks = random.between(1..=4);
        for id in 0..random.between(1..=12) {
            let ring = Ring::new(nodes.iter().cloned()).unwrap();
            let datacenter = *random.pick(&["east", "west"]).unwrap();
            let rack = format!("r{}", random.below(racks));
            let mut joined = node(u128::from(id) + 1, datacenter, &rack, &[]);
            joined.tokens = random_tokens(&mut random, 4, &ring);
            nodes.push(joined);
        }
        let factors = [("east", random.below(6) as u32), ("west", random.below(6) as u32)];
        let map = map(&nodes, network(&factors));
        for start in 0..map.ring().tokens().len() {
            let token = map.ring().tokens()[start].0;
            let expected: BTreeSet<_> = factors
                .iter()
                .filter(|(name, _)| map.ring().datacenter(name).is_some())
                .flat_map(|(name, replicas)| placed_one_by_one(map.ring(), start, name, *replicas as usize))
                .collect();
            let placed: BTreeSet<_> = natural(&map, token.0).into_iter().collect();
            assert_eq!(placed, expected, "{nodes:?} {factors:?} at {token}");
        }
    }
}

#[test]
fn the_nearest_replicas_come_first() {
    let nodes = [
        node(9, "west", "r1", &[1]),
        node(3, "east", "r2", &[2]),
        node(2, "east", "r1", &[3]),
        node(1, "east", "r1", &[4]),
    ];
    let map = map(&nodes, simple(4));
    let nearest: Vec<_> = map
        .replicas(Token(0))
        .nearest()
        .iter()
        .map(|replica| replica.host)
        .collect();
    assert_eq!(nearest, [1, 2, 3, 9].map(host));
}

#[test]
fn local_strategy_is_each_node_alone() {
    let map = map(&three_datacenters(true), Strategy::Local);
    assert_eq!(natural(&map, 77), [host(1)]);
    assert_eq!(map.required(Consistency::Quorum), 1);
    let (part, _) = map.first_part(&PartitionRange::full()).unwrap();
    assert_eq!(part, PartitionRange::full());
}

#[test]
fn a_range_is_cut_where_its_replicas_change() {
    let nodes = [
        node(1, "dc", "r", &[-50, 10]),
        node(2, "dc", "r", &[0, 20]),
        node(3, "dc", "r", &[30, 40]),
    ];
    let map = map(&nodes, simple(1));
    let mut rest = PartitionRange::full();
    let mut parts = Vec::new();
    while let Some((part, set)) = map.first_part(&rest) {
        rest.start = part.end.clone();
        parts.push((part.end, set.single().unwrap().host));
    }
    let after = |token| RingPosition::AfterToken(Token(token));
    let expected = [
        (after(-50), host(1)),
        (after(0), host(2)),
        (after(10), host(1)),
        (after(20), host(2)),
        (after(40), host(3)),
        (after(i64::MAX), host(1)),
    ];
    assert_eq!(parts, expected);

    let inside = PartitionRange {
        start: after(12),
        end: RingPosition::BeforeToken(Token(18)),
    };
    let (part, set) = map.first_part(&inside).unwrap();
    assert_eq!((part, set.single().unwrap().host), (inside, host(2)));
    let empty = PartitionRange {
        start: after(12),
        end: after(12),
    };
    assert!(map.first_part(&empty).is_none());
}

fn options(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn prepared(pairs: &[(&str, &str)], previous: Option<&[(&str, &str)]>) -> Result<Prepared, ReplicationError> {
    let ring = Ring::new([node(1, "east", "r", &[1]), node(2, "west", "r", &[2])]).unwrap();
    let previous = previous.map(|pairs| ReplicationOptions(options(pairs)));
    prepare("ks", &options(pairs), previous.as_ref(), &ring)
}

#[test]
fn options_are_refused_with_cassandras_texts() {
    let cases: [(&[(&str, &str)], &str); 10] = [
        (
            &[("replication_factor", "1")],
            "Missing replication strategy class",
        ),
        (
            &[("class", "Nowhere")],
            "Unable to find replication strategy class 'org.apache.cassandra.locator.Nowhere'",
        ),
        (
            &[("class", "com.example.Own")],
            "Unable to find replication strategy class 'com.example.Own'",
        ),
        (
            &[("class", "SimpleStrategy"), ("replication_factor", "three")],
            "For input string: \"three\"",
        ),
        (
            &[("class", "SimpleStrategy"), ("replication_factor", "-1")],
            "Replication factor must be non-negative, found -1",
        ),
        (
            &[
                ("class", "SimpleStrategy"),
                ("replication_factor", "1"),
                ("east", "1"),
            ],
            "Unrecognized strategy option {east} passed to SimpleStrategy for keyspace ks",
        ),
        (
            &[("class", "NetworkTopologyStrategy"), ("north", "1")],
            "Unrecognized strategy option {north} passed to NetworkTopologyStrategy for keyspace ks: the data centers of the cluster are east, west",
        ),
        (
            &[("class", "NetworkTopologyStrategy"), ("east", "0")],
            "Configuration for at least one datacenter must be present",
        ),
        (
            &[("class", "NetworkTopologyStrategy"), ("Replication_Factor", "1")],
            "replication_factor should not appear as an option at construction time for NetworkTopologyStrategy",
        ),
        (
            &[("class", "NetworkTopologyStrategy"), ("east", "3/1")],
            "Transient replication is not enabled on this node",
        ),
    ];
    for (pairs, text) in cases {
        assert_eq!(
            prepared(pairs, None),
            Err(ReplicationError::Config(text.to_owned())),
            "{pairs:?}"
        );
    }
    let local = prepared(&[("class", "LocalStrategy")], None).unwrap_err();
    assert_eq!(
        local,
        ReplicationError::Invalid(
            "Unable to use given strategy class: LocalStrategy is reserved for internal use.".to_owned()
        )
    );
    let bare = Strategy::from_options(&ReplicationOptions(options(&[("class", "SimpleStrategy")])));
    assert_eq!(
        bare,
        Err(ReplicationError::Config(
            "SimpleStrategy requires a replication_factor strategy option.".to_owned()
        ))
    );
}

#[test]
fn missing_options_are_filled_in() {
    let simple_class = "org.apache.cassandra.locator.SimpleStrategy";
    let network_class = "org.apache.cassandra.locator.NetworkTopologyStrategy";
    let network = |pairs: &[(&str, &str)]| {
        let mut all = vec![("class", network_class)];
        all.extend(pairs);
        options(&all)
    };
    let filled = |pairs: &[(&str, &str)], previous| prepared(pairs, previous).unwrap().options.0;
    assert_eq!(
        filled(&[("class", "SimpleStrategy")], None),
        options(&[("class", simple_class), ("replication_factor", "1")])
    );
    let nts = ("class", "NetworkTopologyStrategy");
    assert_eq!(filled(&[nts], None), network(&[("east", "1"), ("west", "1")]));
    assert_eq!(
        filled(&[nts, ("replication_factor", "1")], None),
        network(&[("east", "1"), ("west", "1")])
    );
    assert_eq!(
        filled(&[("east", "1"), ("replication_factor", "0"), nts], None),
        network(&[("east", "1")]),
        "a named data center keeps its own; a data center with none is left out"
    );
    let altered = prepared(
        &[nts, ("replication_factor", "2")],
        Some(&[("class", network_class), ("east", "1")]),
    );
    assert_eq!(
        altered.unwrap().options.0,
        network(&[("east", "1"), ("west", "2")]),
        "expansion leaves alone what was there"
    );
    let altered = filled(
        &[nts],
        Some(&[("class", simple_class), ("replication_factor", "1")]),
    );
    assert_eq!(altered, network(&[("east", "1"), ("west", "1")]));
}

#[test]
fn more_replicas_than_nodes_are_warned_of() {
    let simple = prepared(&[("class", "SimpleStrategy"), ("replication_factor", "3")], None).unwrap();
    assert_eq!(
        simple.warnings,
        ["Your replication factor 3 for keyspace ks is higher than the number of nodes 2"]
    );
    let network = prepared(&[("class", "NetworkTopologyStrategy"), ("east", "2")], None).unwrap();
    assert_eq!(
        network.warnings,
        [
            "Your replication factor 2 for keyspace ks is higher than the number of nodes 1 for datacenter east"
        ]
    );
    assert_eq!(
        Strategy::from_options(&network.options).unwrap(),
        network.strategy
    );
}

/// Two rings of the same nodes: `present` without the tokens of `joining`, and what is made of it.
fn joining_ring(random: &mut Random, nodes: u128, joining: u128, leaves: bool) -> (Arc<Ring>, Arc<Ring>) {
    let all: Vec<RingNode> = (1..=nodes)
        .map(|id| {
            let tokens: Vec<i64> = random_tokens(random, 4, &Ring::default())
                .iter()
                .map(|token| token.0)
                .collect();
            let datacenter = if id % 2 == 0 { "east" } else { "west" };
            node(id, datacenter, if id % 3 == 0 { "r1" } else { "r2" }, &tokens)
        })
        .collect();
    let mut without = all.clone();
    without[joining as usize - 1].tokens.clear();
    let ring = |nodes: Vec<RingNode>| Arc::new(Ring::new(nodes).unwrap());
    match leaves {
        true => (ring(all), ring(without)),
        false => (ring(without), ring(all)),
    }
}

#[test]
fn who_will_be_a_replica_is_written_and_copies_from_who_loses() {
    let mut random = Random::new(11);
    for round in 0..60u128 {
        let (present, future) = joining_ring(&mut random, 7, round % 7 + 1, round % 2 == 0);
        let strategy = match round % 3 {
            0 => simple(3),
            1 => network(&[("east", 3), ("west", 2)]),
            _ => network(&[("east", 1)]),
        };
        let now = ReplicaMap::new(present.clone(), strategy.clone(), host(1));
        let then = ReplicaMap::new(future.clone(), strategy.clone(), host(1));
        let both = ReplicaMap::between(present.clone(), Some(&future), strategy.clone(), host(1));
        let all = |_| true;
        let gains: Vec<Vec<Gain>> = (1..=7)
            .map(|id| gains(host(id), &strategy, (&present, &future), Sources::Losers, all).unwrap())
            .collect();
        let edges = both.ends().iter().flat_map(|end| [end.0.wrapping_add(1), end.0]);
        let tokens: Vec<i64> = edges.chain((0..200).map(|_| random.next() as i64)).collect();
        for token in tokens.into_iter().filter(|token| *token != i64::MIN) {
            let (before, after) = (natural(&now, token), natural(&then, token));
            let set = both.replicas(Token(token));
            assert_eq!(natural(&both, token), before, "reads do not change");
            let pending: BTreeSet<_> = set.pending().iter().map(|replica| replica.host).collect();
            let expected: BTreeSet<_> = after
                .iter()
                .copied()
                .filter(|own| !before.contains(own))
                .collect();
            assert_eq!(pending, expected);
            for replica in set.pending() {
                let at = present.index_of(replica.host).unwrap();
                assert_eq!(replica.datacenter, present.location(at).datacenter);
            }
            for id in 1..=7u128 {
                let holds = |part: &&TokenPart| part.after.0 < token && token <= part.up_to.0;
                let from: Vec<HostId> = gains[id as usize - 1]
                    .iter()
                    .flat_map(|gain| gain.parts.iter().filter(holds).map(|_| gain.from))
                    .collect();
                let losers: Vec<_> = before.iter().filter(|own| !after.contains(own)).collect();
                match pending.contains(&host(id)) && !before.is_empty() {
                    false => assert!(from.is_empty()),
                    true => {
                        assert_eq!(from.len(), 1, "once, from one");
                        assert!(before.contains(&from[0]));
                        assert!(losers.is_empty() || losers.contains(&&from[0]));
                    }
                }
            }
        }
    }
}

#[test]
fn a_part_without_a_source_is_named() {
    let nodes = |third: &[i64]| {
        let all = [
            node(1, "dc", "r", &[0]),
            node(2, "dc", "r", &[100]),
            node(3, "dc", "r", third),
        ];
        Ring::new(all).unwrap()
    };
    let (present, future) = (nodes(&[]), nodes(&[50]));
    let gained = |sources, down: u128| {
        let is_up = |own| own != host(down);
        gains(host(3), &simple(1), (&present, &future), sources, is_up)
    };
    let part = TokenPart {
        after: Token(0),
        up_to: Token(50),
    };
    let from = host(2);
    let parts = vec![part];
    assert_eq!(gained(Sources::Losers, 1), Ok(vec![Gain { from, parts }]));
    let lost = gained(Sources::Any, 2).unwrap_err();
    assert_eq!((lost.part, &lost.down[..]), (part, &[host(2)][..]));
    assert!(lost.to_string().contains("(0, 50] is up"), "{lost}");
    // With two replicas the other one would do, but not when the quorum's answers are to be kept.
    let gained = |sources| {
        let is_up = |own| own != host(1);
        gains(host(3), &simple(2), (&present, &future), sources, is_up)
    };
    assert!(gained(Sources::Losers).is_err());
    assert_eq!(gained(Sources::Any).unwrap()[0].from, host(2));
    let all = copies(host(1), &simple(2), &present, |_| true).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(share(&all[0].parts), 1.0);
}
