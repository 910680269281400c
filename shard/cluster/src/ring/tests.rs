#![allow(clippy::unwrap_used)]

use uuid::Uuid;

use super::*;
use crate::random::Random;

pub(crate) fn host(id: u128) -> HostId {
    HostId(Uuid::from_u128(id))
}

pub(crate) fn node(id: u128, datacenter: &str, rack: &str, tokens: &[i64]) -> RingNode {
    RingNode {
        host: host(id),
        datacenter: datacenter.into(),
        rack: rack.into(),
        tokens: tokens.iter().copied().map(Token).collect(),
    }
}

#[test]
fn a_token_is_owned_by_the_next_one_clockwise() {
    let ring = Ring::new([node(1, "dc", "r", &[-100, 50]), node(2, "dc", "r", &[0])]).unwrap();
    let owner = |token| {
        ring.node(ring.walk(ring.owner_at(Token(token)).unwrap()).next().unwrap())
            .host
    };
    assert_eq!(owner(-101), host(1));
    assert_eq!(owner(-100), host(1));
    assert_eq!(owner(-99), host(2));
    assert_eq!(owner(0), host(2));
    assert_eq!(owner(50), host(1));
    assert_eq!(owner(51), host(1), "past the last token the first one owns");
    assert_eq!(owner(i64::MIN), host(1));
    assert_eq!(ring.walk(1).count(), 3);
    assert_eq!(Ring::default().owner_at(Token(1)), None);
}

#[test]
fn a_token_or_host_cannot_be_there_twice() {
    let twice = Ring::new([node(1, "dc", "r", &[7]), node(2, "dc", "r", &[7])]).unwrap_err();
    assert_eq!(
        twice,
        RingError::TokenTwice {
            token: Token(7),
            first: host(1),
            second: host(2)
        }
    );
    let twice = Ring::new([node(1, "dc", "r", &[7]), node(1, "dc", "r", &[8])]).unwrap_err();
    assert_eq!(twice, RingError::HostTwice(host(1)));
}

#[test]
fn only_nodes_with_tokens_count_as_members() {
    let ring = Ring::new([
        node(1, "east", "a", &[1]),
        node(2, "east", "a", &[2]),
        node(3, "east", "b", &[]),
        node(4, "west", "a", &[4]),
    ])
    .unwrap();
    let (east, west) = (ring.datacenter("east").unwrap(), ring.datacenter("west").unwrap());
    assert_eq!((ring.node_count(east), ring.rack_count(east)), (2, 1));
    assert_eq!((ring.node_count(west), ring.rack_count(west)), (1, 1));
    assert_ne!(
        ring.location(NodeIndex(0)).rack,
        ring.location(NodeIndex(3)).rack,
        "racks of one name in two data centers"
    );
    assert_eq!(ring.node_count(Datacenter::NOWHERE), 0);
}

#[test]
fn random_tokens_are_free_and_spread() {
    let mut random = Random::new(5);
    let mut nodes: Vec<RingNode> = Vec::new();
    for id in 0..6 {
        let ring = Ring::new(nodes.iter().cloned()).unwrap();
        let tokens = random_tokens(&mut random, NUM_TOKENS_DEFAULT, &ring);
        assert_eq!(tokens.len(), NUM_TOKENS_DEFAULT);
        let mut joined = node(id, "dc", "r", &[]);
        joined.tokens = tokens;
        nodes.push(joined);
    }
    let ring = Ring::new(nodes).unwrap();
    assert_eq!(ring.tokens().len(), 6 * NUM_TOKENS_DEFAULT);
    let negative = ring.tokens().iter().filter(|(token, _)| token.0 < 0).count();
    assert!(
        (28..=68).contains(&negative),
        "{negative} of 96 tokens in one half"
    );
}
