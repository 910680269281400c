//! Laws of reconciliation, on random replicas.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::coordinator::continuation::after;

fn stored_partitions() -> impl proptest::strategy::Strategy<Value = Partition> {
    let row = (0u8..8, 0u8..4, 0i64..6);
    let range = (0u8..8, 0u8..8, 0i64..5);
    (
        vec(row, 0..8),
        proptest::option::weighted(0.2, range),
        proptest::option::weighted(0.1, 0i64..5),
        proptest::option::weighted(0.3, 0i64..6),
    )
        .prop_map(|(rows, range, deletion, static_cell)| {
            let mut partition = Partition::default();
            let cell = |timestamp: i64| {
                ColumnData::Cell(Cell::live(
                    Timestamp(timestamp),
                    Bytes::from(timestamp.to_string()),
                ))
            };
            let made = |timestamp| Deletion {
                timestamp: Timestamp(timestamp),
                deleted_at: NOW,
            };
            for (at, kind, timestamp) in rows {
                let mut row = Row::default();
                match kind {
                    0 => row.merge_column(ColumnId(1), cell(timestamp)),
                    1 => row.merge_column(ColumnId(2), cell(timestamp)),
                    2 => {
                        row.liveness = Some(Liveness {
                            timestamp: Timestamp(timestamp),
                            expiry: None,
                        });
                    }
                    _ => row.delete(made(timestamp)),
                }
                partition.row_mut(clustering(at)).merge(row);
            }
            if let Some((start, end, timestamp)) = range {
                let bound = |at, last| Position(Bytes::from(vec![COMPONENT, at, last]));
                partition.delete_range(RangeTombstone {
                    slice: Slice {
                        start: bound(start.min(end), BOUND_BEFORE),
                        end: bound(start.max(end), BOUND_AFTER),
                    },
                    deletion: made(timestamp),
                });
            }
            partition.deletion = deletion.map(made);
            if let Some(timestamp) = static_cell {
                partition.static_row.merge_column(ColumnId(9), cell(timestamp));
            }
            partition.normalize();
            partition
        })
}

fn stores() -> impl proptest::strategy::Strategy<Value = Vec<Vec<Partition>>> {
    vec(vec(stored_partitions(), 5), 3)
}

fn some_command() -> impl proptest::strategy::Strategy<Value = ReadCommand> {
    let limit = |most: u64| prop_oneof![2 => Just(u64::MAX), 3 => 1..most];
    let slices = prop_oneof![
        3 => Just(Slices::from_elem(Slice::full(), 1)),
        1 => Just(Slices::from_elem(
            Slice {
                start: Position(Bytes::from_static(&[COMPONENT, 2, BOUND_BEFORE])),
                end: Position(Bytes::from_static(&[COMPONENT, 5, BOUND_AFTER])),
            },
            1
        )),
    ];
    let columns = prop_oneof![
        Just(ColumnSelection::All),
        Just(ColumnSelection::Only(vec![ColumnId(1)])),
    ];
    (
        proptest::option::of(0u8..5),
        limit(12),
        limit(4),
        limit(4),
        slices,
        columns,
        any::<bool>(),
    )
        .prop_map(
            |(single, rows, rows_per_partition, partitions, slices, columns, reversed)| {
                let target = match single {
                    Some(id) => ReadTarget::Partition(key(id)),
                    None => ReadTarget::Range(PartitionRange::full()),
                };
                let mut command = select(target);
                command.limits.rows = rows;
                command.limits.rows_per_partition = rows_per_partition;
                command.limits.partitions = partitions;
                command.slices = slices;
                command.columns = columns;
                command.reversed = reversed && single.is_some();
                command
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Reading at ALL answers what a single replica that had seen everything would answer, and afterwards replicas
    /// agree on what was read.
    #[test]
    fn reconciled_replicas_answer_as_one(stored in stores(), command in some_command(), nodes in 3usize..5) {
        let mut bench = Bench::simple(nodes, 3);
        let mut whole = Store::new();
        for (at, partitions) in stored.into_iter().enumerate() {
            for (id, partition) in partitions.into_iter().enumerate() {
                let key = key(id as u8);
                let replica = bench.map.replicas(key.token).natural()[at].host;
                if partition.is_empty() {
                    continue;
                }
                whole.entry(key.clone()).or_default().merge(partition.clone());
                bench.stores.get_mut(&replica).unwrap().insert(key, partition);
            }
        }
        let expected = evaluate(&command, &whole);
        let result = bench.read(Consistency::All, ReadOptions::default(), command.clone()).unwrap();
        prop_assert_eq!(&result.partitions, &expected.partitions);
        if let (None, Some(point)) = (&result.resume, &expected.resume) {
            let rest = after(command.clone(), point).unwrap();
            prop_assert!(evaluate(&rest, &whole).partitions.is_empty(), "there is more: {point:?}");
        }
        let again = bench.read(Consistency::All, ReadOptions::default(), command).unwrap();
        prop_assert_eq!(&again.partitions, &result.partitions);
    }

    /// Paging through with a small page gives the same rows as reading all at once.
    #[test]
    fn pages_join_to_the_whole(stored in stores(), page in 1u64..5) {
        let mut bench = Bench::simple(3, 3);
        let mut whole = Store::new();
        for (at, partitions) in stored.into_iter().enumerate() {
            for (id, partition) in partitions.into_iter().enumerate() {
                let key = key(id as u8);
                whole.entry(key.clone()).or_default().merge(partition.clone());
                bench.stores.get_mut(&host(at as u128 + 1)).unwrap().insert(key, partition);
            }
        }
        let full = select(ReadTarget::Range(PartitionRange::full()));
        let rows = |result: &ReadResult| -> Vec<_> {
            result
                .partitions
                .iter()
                .flat_map(|part| part.partition.rows.iter().map(|(at, row)| (part.key.clone(), at.clone(), row.clone())))
                .collect()
        };
        let expected = rows(&evaluate(&full, &whole));
        let mut command = full;
        let mut pages = Vec::new();
        loop {
            command.limits.rows = page;
            let result = bench.read(Consistency::All, ReadOptions::default(), command.clone()).unwrap();
            pages.extend(rows(&result));
            let Some(resume) = result.resume else { break };
            match after(command, &resume) {
                Some(rest) => command = rest,
                None => break,
            }
        }
        prop_assert_eq!(pages, expected);
    }
}
