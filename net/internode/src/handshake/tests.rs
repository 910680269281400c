#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn hello() -> Hello {
    Hello {
        oldest: LINK_VERSION_OLDEST,
        newest: LINK_VERSION,
        channel: Channel::Statements,
        compression: Compression::Lz4,
        shard: 3,
        shard_count: 8,
        host: HostId(Uuid::from_u128(1)),
        wanted: Some(HostId(Uuid::from_u128(2))),
        address: "10.1.2.3:7000".parse().unwrap(),
        cluster: "Test Cluster".to_owned(),
    }
}

fn identity() -> Identity {
    Identity {
        host: HostId(Uuid::from_u128(2)),
        cluster: "Test Cluster".to_owned(),
        shard: 1,
        shard_count: 2,
        compression: Compression::Lz4,
    }
}

fn any_hello() -> impl Strategy<Value = Hello> {
    let addresses = prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from)
    ];
    let numbers = (any::<u8>(), 0usize..3, any::<bool>(), 0u16..500, 1u16..500);
    let hosts = (any::<u128>(), prop::option::of(1u128..));
    (numbers, hosts, addresses, "\\PC{0,60}").prop_map(|(numbers, hosts, address, cluster)| {
        let (newest, channel, lz4, shard, more) = numbers;
        Hello {
            oldest: LINK_VERSION_OLDEST,
            newest,
            channel: Channel::ALL[channel],
            compression: if lz4 { Compression::Lz4 } else { Compression::None },
            shard,
            shard_count: shard + more,
            host: HostId(Uuid::from_u128(hosts.0)),
            wanted: hosts.1.map(|wanted| HostId(Uuid::from_u128(wanted))),
            address,
            cluster,
        }
    })
}

proptest! {
    #[test]
    fn a_hello_comes_back_byte_by_byte(hello in any_hello()) {
        let mut bytes = BytesMut::new();
        put_hello(&mut bytes, &hello);
        let mut input = BytesMut::new();
        for (at, byte) in bytes.iter().enumerate() {
            prop_assert_eq!(take_hello(&mut input).unwrap(), None, "after {} bytes", at);
            input.put_u8(*byte);
        }
        prop_assert_eq!(take_hello(&mut input).unwrap(), Some(hello));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), right: bool) {
        let mut input = BytesMut::new();
        if right {
            greet(&mut input, |body| body.put_slice(&bytes));
        } else {
            input.put_slice(&bytes);
        }
        let mut again = input.clone();
        let _ = take_hello(&mut input);
        let _ = take_answer(&mut again);
    }

    #[test]
    fn a_flipped_bit_is_found(at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = BytesMut::new();
        put_hello(&mut bytes, &hello());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A longer length waits for bytes that do not come.
        prop_assert!(!matches!(take_hello(&mut bytes), Ok(Some(_))));
    }
}

#[test]
fn answers_come_back() {
    let welcome = identity().judge(&hello());
    let refusal = Err(Refusal {
        kind: RefusalKind::NotWelcome,
        host: HostId(Uuid::from_u128(9)),
        reason: "because".to_owned(),
    });
    for answer in [welcome, refusal] {
        let mut bytes = BytesMut::new();
        put_answer(&mut bytes, &answer);
        assert_eq!(take_answer(&mut bytes).unwrap(), Some(answer));
    }
}

#[test]
fn a_hello_is_welcome_with_what_both_can() {
    let welcome = identity().judge(&hello()).unwrap();
    assert_eq!(
        (
            welcome.version,
            welcome.compression,
            welcome.shard,
            welcome.shard_count
        ),
        (LINK_VERSION, Compression::Lz4, 1, 2)
    );
    let plain = Identity {
        compression: Compression::None,
        ..identity()
    };
    assert_eq!(plain.judge(&hello()).unwrap().compression, Compression::None);
}

#[test]
fn refusals_name_the_reason() {
    let refused = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello();
        change(&mut hello);
        let refusal = identity().judge(&hello).unwrap_err();
        (refusal.kind, refusal.reason)
    };
    let (kind, reason) = refused(&|hello| hello.cluster = "Other".to_owned());
    assert_eq!(kind, RefusalKind::OtherCluster);
    assert!(
        reason.contains("'Other'") && reason.contains("'Test Cluster'") && reason.contains("cluster_name")
    );
    assert_eq!(
        refused(&|hello| hello.host = identity().host).0,
        RefusalKind::Myself
    );
    let other = HostId(Uuid::from_u128(77));
    assert_eq!(
        refused(&|hello| hello.wanted = Some(other)).0,
        RefusalKind::OtherHost
    );
    assert_eq!(refused(&|hello| hello.newest = 0).0, RefusalKind::Version);
}

/// A node of a version that this one does not know is told so, whatever its greeting looks like otherwise.
#[test]
fn a_later_version_is_refused_by_its_version() {
    let mut bytes = BytesMut::new();
    greet(&mut bytes, |body| {
        body.put_slice(&[LINK_VERSION + 1, LINK_VERSION + 3, 200, 200])
    });
    let hello = take_hello(&mut bytes).unwrap().unwrap();
    assert_eq!(identity().judge(&hello).unwrap_err().kind, RefusalKind::Version);
}

#[test]
fn another_protocol_is_told_from_ours_by_its_first_bytes() {
    let mut bytes = BytesMut::from(&b"GET / HTTP/1.1"[..]);
    assert_eq!(take_hello(&mut bytes), Err(GreetingError::Magic));
}
