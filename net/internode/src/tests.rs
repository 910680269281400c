//! Messages round-trip; hostile bytes are refused without a panic.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use ceto_model::key::{BOUND_AFTER, COMPONENT, KEY_END};
use ceto_model::read;
use ceto_model::read::{ColumnSelection, IndexSearch, IndexTerms, PartitionResult, ReadWork, ResumePoint};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, ColumnId, Consistency, DecoratedKey, Deletion, Mutation, Partition,
    PartitionKey, PartitionRange, Position, RangeTombstone, ReadCommand, ReadLimits, ReadResult, ReadTarget,
    RingPosition, Slice, TableId, Timestamp, Token, UnixSeconds,
};
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use crate::*;

fn key(byte: u8) -> DecoratedKey {
    DecoratedKey::new(PartitionKey(Bytes::from(vec![b'k', byte])))
}

fn clustering(byte: u8) -> ClusteringKey {
    ClusteringKey(Bytes::from(vec![COMPONENT, byte, KEY_END]))
}

fn partitions() -> impl Strategy<Value = Partition> {
    let row = (0u8..9, 0i64..5, any::<u8>());
    let deletion = proptest::option::of((0i64..5, 0i64..5).prop_map(|(timestamp, deleted_at)| Deletion {
        timestamp: Timestamp(timestamp),
        deleted_at: UnixSeconds(deleted_at),
    }));
    (vec(row, 0..5), deletion).prop_map(|(rows, deletion)| {
        let mut partition = Partition::default();
        for (at, timestamp, value) in rows {
            let cell = Cell::live(Timestamp(timestamp), Bytes::from(vec![value]));
            partition
                .row_mut(clustering(at))
                .merge_column(ColumnId(1), ColumnData::Cell(cell));
        }
        if let Some(deletion) = deletion {
            let slice = Slice {
                start: Position(Bytes::from_static(&[COMPONENT, 3, BOUND_AFTER])),
                end: Position::after_all(),
            };
            partition.delete_range(RangeTombstone { slice, deletion });
        }
        partition.normalize();
        partition
    })
}

fn positions() -> impl Strategy<Value = RingPosition> {
    prop_oneof![
        any::<i64>().prop_map(|token| RingPosition::BeforeToken(Token(token))),
        any::<i64>().prop_map(|token| RingPosition::AfterToken(Token(token))),
        any::<u8>().prop_map(|byte| RingPosition::BeforeKey(key(byte))),
        any::<u8>().prop_map(|byte| RingPosition::AfterKey(key(byte))),
    ]
}

fn slices() -> impl Strategy<Value = read::Slices> {
    vec((any::<u8>(), any::<u8>()), 0..3).prop_map(|bounds| {
        let position = |byte| Position(Bytes::from(vec![COMPONENT, byte, BOUND_AFTER]));
        bounds
            .into_iter()
            .map(|(start, end)| Slice {
                start: position(start),
                end: position(end),
            })
            .collect()
    })
}

fn commands() -> impl Strategy<Value = ReadCommand> {
    let target = prop_oneof![
        any::<u8>().prop_map(|byte| ReadTarget::Partition(key(byte))),
        (positions(), positions()).prop_map(|(start, end)| ReadTarget::Range(PartitionRange { start, end })),
    ];
    let columns = prop_oneof![
        Just(ColumnSelection::All),
        proptest::collection::btree_set(any::<u32>(), 0..4)
            .prop_map(|ids| ColumnSelection::Only(ids.into_iter().map(ColumnId).collect())),
    ];
    let limits =
        any::<[u64; 5]>().prop_map(
            |[rows, rows_per_partition, partitions, bytes, tombstones]| ReadLimits {
                rows,
                rows_per_partition,
                partitions,
                bytes,
                tombstones,
            },
        );
    let flags = any::<[bool; 5]>();
    let slices = (slices(), proptest::option::of(slices()));
    (target, slices, columns, limits, flags, any::<i64>()).prop_map(
        |(target, (slices, first_partition_slices), columns, limits, flags, now)| ReadCommand {
            table: TableId(Uuid::from_u128(9)),
            target,
            slices,
            first_partition_slices,
            reversed: flags[0],
            columns,
            now: UnixSeconds(now),
            limits,
            keep_tombstones: flags[1],
            bypass_cache: flags[2],
            index: flags[3].then(|| {
                let (start, end) = (Position(vec![1].into()), Position(vec![2, 3].into()));
                Box::new(IndexSearch {
                    index: TableId(Uuid::from_u128(7)),
                    terms: match (flags[4], flags[0]) {
                        (true, true) => IndexTerms::Nearest {
                            vector: vec![6; 8].into(),
                            count: 700,
                        },
                        (true, false) => IndexTerms::Value(vec![4, 5].into()),
                        (false, _) => IndexTerms::Between(start, end),
                    },
                })
            }),
        },
    )
}

fn results() -> impl Strategy<Value = ReadResult> {
    let resume = prop_oneof![
        Just(None),
        any::<u8>().prop_map(|byte| Some(ResumePoint::Inside(key(byte), Position(clustering(byte).0)))),
        positions().prop_map(|position| Some(ResumePoint::Ring(position))),
    ];
    let work = any::<(u64, u64, u32, u64)>();
    (
        vec((any::<u8>(), partitions()), 0..3),
        resume,
        any::<bool>(),
        work,
    )
        .prop_map(
            |(partitions, resume, reversed, (live_rows, tombstones, sstables, disk_bytes))| ReadResult {
                partitions: partitions
                    .into_iter()
                    .map(|(byte, mut partition)| {
                        if reversed {
                            partition.rows.reverse();
                        }
                        let key = key(byte);
                        PartitionResult { key, partition }
                    })
                    .collect(),
                resume,
                work: ReadWork {
                    live_rows,
                    tombstones,
                    sstables,
                    disk_bytes,
                },
            },
        )
}

fn ballots() -> impl Strategy<Value = Ballot> + Clone {
    any::<(i64, u64)>().prop_map(|(micros, proposer)| Ballot {
        micros,
        proposer: proposer & Ballot::PROPOSER_MASK,
    })
}

fn paxos_messages(mutation: BoxedStrategy<Arc<Mutation>>) -> impl Strategy<Value = PaxosMessage> {
    let proposal = (ballots(), mutation).prop_map(|(ballot, mutation)| Proposal { ballot, mutation });
    let proposals = proptest::option::of(proposal.clone());
    prop_oneof![
        (ballots(), any::<u8>()).prop_map(|(ballot, byte)| PaxosMessage::Prepare {
            ballot,
            table: TableId(Uuid::from_u128(9)),
            key: key(byte),
        }),
        (proposals.clone(), proposals)
            .prop_map(|(accepted, committed)| PaxosMessage::Promised { accepted, committed }),
        ballots().prop_map(|promised| PaxosMessage::Refused { promised }),
        proposal
            .clone()
            .prop_map(|proposal| PaxosMessage::Propose { proposal }),
        proposal.prop_map(|proposal| PaxosMessage::Commit { proposal }),
        Just(PaxosMessage::Accepted),
        Just(PaxosMessage::Committed),
        proptest::sample::select(&FailureReason::ALL[..]).prop_map(|reason| PaxosMessage::Failed { reason }),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    let exchange = any::<(u16, u32, u32, u32)>().prop_map(|(shard, slot, serial, round)| ExchangeId {
        request: RequestId { shard, slot, serial },
        round,
    });
    let mutation = partitions()
        .prop_map(|partition| {
            Arc::new(Mutation {
                table: TableId(Uuid::from_u128(7)),
                key: key(1),
                partition,
            })
        })
        .boxed();
    let kind = prop_oneof![Just(AnswerKind::Data), Just(AnswerKind::Digest)].boxed();
    let paxos = paxos_messages(mutation.clone()).boxed();
    let part = any::<(i64, i64)>().prop_map(|(a, b)| TokenPart {
        after: Token(a.min(b)),
        up_to: Token(a.max(b)),
    });
    let hash = any::<(u128, u64)>().prop_map(|(hash, partitions)| PartHash { hash, partitions });
    let repairs = prop_oneof![
        (any::<i64>(), vec(part, 0..5)).prop_map(|(now, parts)| RepairMessage::Hash {
            table: TableId(Uuid::from_u128(7)),
            now: UnixSeconds(now),
            parts,
        }),
        vec(hash, 0..5).prop_map(|hashes| RepairMessage::Hashes { hashes }),
        Just(RepairMessage::Failed {
            reason: FailureReason::Overloaded
        }),
    ]
    .boxed();
    let streams = prop_oneof![
        (any::<(i64, i64)>(), results(), any::<u32>()).prop_map(|((a, b), page, bytes)| {
            StreamMessage::Fetch {
                table: TableId(Uuid::from_u128(7)),
                part: TokenPart {
                    after: Token(a.min(b)),
                    up_to: Token(a.max(b)),
                },
                from: page.resume,
                bytes,
            }
        }),
        results().prop_map(|page| StreamMessage::Page(ReadResult {
            work: ReadWork::default(),
            ..page
        })),
        "\\PC{0,40}".prop_map(|text| StreamMessage::Failed {
            reason: FailureReason::StorageRefused,
            text
        }),
    ]
    .boxed();
    let answer = prop_oneof![
        results().prop_map(ReadAnswer::Data),
        any::<u128>().prop_map(|digest| ReadAnswer::Digest(Digest(digest))),
    ]
    .boxed();
    let reason = proptest::sample::select(&FailureReason::ALL[..]).boxed();
    let call = prop_oneof![
        mutation.clone().prop_map(Call::Apply),
        (
            proptest::sample::select(&Consistency::LEVELS[..]),
            any::<u64>(),
            mutation.clone()
        )
            .prop_map(|(consistency, within_micros, increments)| Call::Count {
                consistency,
                within_micros,
                increments
            }),
        any::<(u128, i64)>().prop_map(|(table, timestamp)| Call::Truncate {
            table: TableId(Uuid::from_u128(table)),
            timestamp: Timestamp(timestamp),
        }),
    ]
    .boxed();
    let outcome = prop_oneof![
        Just(CallOutcome::Done),
        (reason.clone(), "\\PC{0,40}").prop_map(|(reason, text)| CallOutcome::Failed { reason, text }),
    ]
    .boxed();
    exchange.prop_flat_map(move |exchange| {
        prop_oneof![
            mutation
                .clone()
                .prop_map(move |mutation| Message::Mutate { exchange, mutation }),
            Just(Message::MutateAck { exchange }),
            (kind.clone(), commands()).prop_map(move |(kind, command)| Message::Read {
                exchange,
                kind,
                command: Arc::new(command)
            }),
            answer
                .clone()
                .prop_map(move |answer| Message::ReadResponse { exchange, answer }),
            reason
                .clone()
                .prop_map(move |reason| Message::Failure { exchange, reason }),
            paxos
                .clone()
                .prop_map(move |body| Message::Paxos { exchange, body }),
            repairs
                .clone()
                .prop_map(move |body| Message::Repair { exchange, body }),
            streams
                .clone()
                .prop_map(move |body| Message::Stream { exchange, body }),
            call.clone()
                .prop_map(move |call| Message::Call { exchange, call }),
            outcome
                .clone()
                .prop_map(move |outcome| Message::Called { exchange, outcome }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn messages_round_trip_and_hostile_bytes_are_refused(
        message in messages(),
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut bytes = Vec::new();
        encode(&mut bytes, &message);
        prop_assert_eq!(&decode(bytes.clone().into()).unwrap(), &message);
        let short = bytes[..cut.index(bytes.len())].to_vec();
        prop_assert!(decode(short.into()).is_err());
        let mut long = bytes.clone();
        long.push(0);
        prop_assert!(decode(long.into()).is_err());
        let at = flip.0.index(bytes.len());
        bytes[at] ^= flip.1;
        let _ = decode(bytes.into());
    }

    #[test]
    fn noise_is_refused_without_a_panic(noise in vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![codec::VERSION];
        bytes.extend(noise);
        let _ = decode(bytes.into());
    }

    #[test]
    fn ballots_are_timeuuids(micros in -12_219_292_800_000_000i64..100_000_000_000_000_000, proposer: u64) {
        let ballot = Ballot { micros, proposer: proposer & Ballot::PROPOSER_MASK };
        let uuid = ballot.to_timeuuid();
        prop_assert_eq!(uuid.get_version_num(), 1);
        prop_assert_eq!(Ballot::from_timeuuid(uuid), Some(ballot));
    }

    #[test]
    fn digests_tell_answers_apart(a in results(), b in results()) {
        let mut scratch = Vec::new();
        let same = a.partitions == b.partitions && a.resume == b.resume;
        prop_assert_eq!(Digest::of(&a, &mut scratch) == Digest::of(&b, &mut scratch), same);
        let other_work = ReadResult { work: ReadWork::default(), ..a.clone() };
        prop_assert_eq!(Digest::of(&a, &mut scratch), Digest::of(&other_work, &mut scratch));
    }
}

#[test]
fn only_timeuuids_are_ballots() {
    assert_eq!(Ballot::from_timeuuid(Uuid::from_u128(u128::MAX)), None);
    assert_eq!(Ballot::from_timeuuid(Uuid::nil()), None);
    // 2020-01-01T00:01:25.606400Z, as Python's uuid module reads it.
    let uuid: Uuid = "da4e4000-2c29-11ea-8080-808080808080".parse().unwrap();
    let ballot = Ballot::from_timeuuid(uuid).unwrap();
    assert_eq!(ballot.micros, 1_577_836_885_606_400);
    assert_eq!(ballot.to_timeuuid(), uuid);
}

#[test]
fn another_version_is_named() {
    assert_eq!(
        decode(Bytes::from_static(&[9, 2, 0, 0, 0])),
        Err(Error::Version { got: 9 })
    );
}

#[test]
fn long_texts_of_failures_are_cut_at_a_character() {
    let exchange = ExchangeId {
        request: RequestId {
            shard: 0,
            slot: 0,
            serial: 0,
        },
        round: 0,
    };
    let outcome = CallOutcome::Failed {
        reason: FailureReason::Unknown,
        text: "x".to_owned() + &"\u{e9}".repeat(call::FAILURE_TEXT_MAX),
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, &Message::Called { exchange, outcome });
    match decode(bytes.into()).unwrap() {
        Message::Called {
            outcome: CallOutcome::Failed { text, .. },
            ..
        } => assert_eq!(text.len(), call::FAILURE_TEXT_MAX - 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reasons_of_later_versions_read_as_unknown() {
    for reason in FailureReason::ALL {
        assert_eq!(FailureReason::from_code(reason.code()), reason);
    }
    assert_eq!(FailureReason::from_code(200), FailureReason::Unknown);
    assert_eq!(FailureReason::StorageRefused.protocol_code(), 0);
    assert_eq!(FailureReason::NodeDown.protocol_code(), 5);
}
