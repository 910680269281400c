//! Mutations merge commutatively, associatively and idempotently, and their binary form round-trips.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use ceto_model::codec::{Decoder, put_mutation};
use ceto_model::key::{BOUND_AFTER, BOUND_BEFORE, COMPONENT, KEY_END};
use ceto_model::*;
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

fn deletions() -> impl Strategy<Value = Deletion> {
    (0i64..6, 0i64..3).prop_map(|(t, d)| Deletion {
        timestamp: Timestamp(t),
        deleted_at: UnixSeconds(d),
    })
}

fn cells() -> impl Strategy<Value = Cell> {
    (0i64..6, 0u8..3, 0u8..3, 0i64..3).prop_map(|(timestamp, kind, value, seconds)| {
        let (timestamp, value) = (Timestamp(timestamp), Bytes::from(vec![value]));
        match kind {
            0 => Cell::live(timestamp, value),
            1 => Cell::tombstone(timestamp, UnixSeconds(seconds)),
            _ => Cell::with_expiry(
                timestamp,
                value,
                Some(Expiry::after(UnixSeconds(seconds), Ttl(10))),
            ),
        }
    })
}

fn collections() -> impl Strategy<Value = Collection> {
    (proptest::option::of(deletions()), vec((0u8..4, cells()), 0..4)).prop_map(|(deletion, cells)| {
        let mut collection = Collection::default();
        cells
            .into_iter()
            .for_each(|(path, cell)| collection.merge_cell(Bytes::from(vec![path]), cell));
        deletion
            .into_iter()
            .for_each(|deletion| collection.delete(deletion));
        collection
    })
}

/// Columns 0 and 1 are single cells, 2 a collection.
fn rows() -> impl Strategy<Value = Row> {
    let liveness = (0i64..6, proptest::option::of(0i64..3)).prop_map(|(timestamp, written)| Liveness {
        timestamp: Timestamp(timestamp),
        expiry: written.map(|at| Expiry::after(UnixSeconds(at), Ttl(10))),
    });
    let option = proptest::option::of::<BoxedStrategy<Cell>>;
    (
        proptest::option::of(liveness),
        proptest::option::of(deletions()),
        option(cells().boxed()),
        option(cells().boxed()),
        proptest::option::of(collections()),
    )
        .prop_map(|(liveness, deletion, a, b, collection)| {
            let mut row = Row {
                liveness,
                ..Row::default()
            };
            let cells = [(0, a), (1, b)];
            for (id, cell) in cells {
                cell.into_iter()
                    .for_each(|cell| row.merge_column(ColumnId(id), ColumnData::Cell(cell)));
            }
            if let Some(collection) = collection.filter(|c| c.deletion.is_some() || !c.cells.is_empty()) {
                row.merge_column(ColumnId(2), ColumnData::Collection(collection));
            }
            deletion.into_iter().for_each(|deletion| row.delete(deletion));
            row
        })
}

fn key(component: u8) -> ClusteringKey {
    ClusteringKey(Bytes::from(vec![COMPONENT, component, KEY_END]))
}

fn slices() -> impl Strategy<Value = Slice> {
    let bounds = prop_oneof![Just(BOUND_BEFORE), Just(BOUND_AFTER)];
    let position =
        (0u8..5, bounds).prop_map(|(component, bound)| Position(vec![COMPONENT, component, bound].into()));
    (position.clone(), position).prop_map(|(a, b)| Slice {
        start: a.clone().min(b.clone()),
        end: a.max(b),
    })
}

fn partitions() -> impl Strategy<Value = Partition> {
    let range = (slices(), deletions()).prop_map(|(slice, deletion)| RangeTombstone { slice, deletion });
    let rows = vec((0u8..5, rows()), 0..4);
    (
        proptest::option::weighted(0.3, deletions()),
        rows,
        vec(range, 0..4),
    )
        .prop_map(|(deletion, rows, ranges)| {
            let mut partition = Partition {
                deletion,
                ..Partition::default()
            };
            for (component, row) in rows {
                if !row.is_empty() {
                    partition.row_mut(key(component)).merge(row);
                }
            }
            ranges.into_iter().for_each(|range| partition.delete_range(range));
            partition.normalize();
            partition
        })
}

fn merged(parts: &[&Partition]) -> Partition {
    let mut all = Partition::default();
    parts.iter().for_each(|part| all.merge((*part).clone()));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn partitions_merge_in_any_order_and_number(a in partitions(), b in partitions(), c in partitions()) {
        let left = merged(&[&merged(&[&a, &b]), &c]);
        let right = merged(&[&a, &merged(&[&b, &c])]);
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(&left, &merged(&[&c, &b, &a]));
        prop_assert_eq!(&left, &merged(&[&left, &a, &b, &left]));
    }

    #[test]
    fn range_tombstones_answer_as_the_list_they_were_made_from(
        ranges in vec((slices(), deletions()), 0..8),
        probe in 0u8..5,
    ) {
        let set: RangeTombstones =
            ranges.iter().map(|(slice, deletion)| RangeTombstone { slice: slice.clone(), deletion: *deletion }).collect();
        let expected = ranges.iter().filter(|(slice, _)| slice.contains(&key(probe))).map(|(_, d)| *d).max();
        prop_assert_eq!(set.covering(&key(probe)), expected);
        let list: Vec<_> = set.iter().collect();
        for pair in list.windows(2) {
            prop_assert!(pair[0].slice.end <= pair[1].slice.start);
            prop_assert!(pair[0].slice.end != pair[1].slice.start || pair[0].deletion != pair[1].deletion);
        }
    }

    #[test]
    fn merging_sets_of_ranges_is_adding_their_ranges(
        a in vec((slices(), deletions()), 0..20),
        b in vec((slices(), deletions()), 0..20),
    ) {
        let set = |ranges: &[(Slice, Deletion)]| -> RangeTombstones {
            let tombstone = |(slice, deletion): &(Slice, Deletion)| RangeTombstone {
                slice: slice.clone(),
                deletion: *deletion,
            };
            ranges.iter().map(tombstone).collect()
        };
        let mut merged = set(&a);
        merged.merge(set(&b));
        prop_assert_eq!(merged, set(&[a, b].concat()));
    }

    #[test]
    fn mutations_round_trip_and_hostile_bytes_are_refused(
        partition in partitions(),
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let key = DecoratedKey::new(PartitionKey(Bytes::from_static(b"key")));
        let mutation = Mutation { table: TableId(Uuid::from_u128(7)), key, partition };
        let mut bytes = Vec::new();
        put_mutation(&mut bytes, &mutation);
        let mut decoder = Decoder::new(bytes.clone().into());
        prop_assert_eq!(decoder.mutation().unwrap(), mutation);
        decoder.finish("mutation").unwrap();
        let short = bytes[..cut.index(bytes.len())].to_vec();
        prop_assert!(Decoder::new(short.into()).mutation().is_err());
        let at = flip.0.index(bytes.len());
        bytes[at] ^= flip.1;
        let _ = Decoder::new(bytes.into()).mutation();
    }
}
