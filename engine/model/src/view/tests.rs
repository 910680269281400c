//! Views against a model that knows nothing of how they are kept: what a query of the base shows, put in the view's
//! order.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::schema::{Column, TableBuilder, ViewDefinition};
use crate::timestamp::Ttl;
use crate::types::CqlType;
use uuid::Uuid;

fn base() -> Table {
    let mut builder = TableBuilder::new(TableId(Uuid::from_u128(1)), "ks", "base");
    builder.add_column("p", ColumnKind::PartitionKey, CqlType::Int);
    builder.add_column("c", ColumnKind::Clustering, CqlType::Int);
    builder.add_column("a", ColumnKind::Regular, CqlType::Int);
    builder.add_column("b", ColumnKind::Regular, CqlType::Int);
    let set = CqlType::Set {
        element: Arc::new(CqlType::Int),
        frozen: false,
    };
    builder.add_column("s", ColumnKind::Regular, set);
    builder.build()
}

/// A view with these key columns, the first being the partition key, and these others.
fn view(base: &Table, key: &[&str], others: &[&str]) -> View {
    let mut builder = TableBuilder::new(TableId(Uuid::from_u128(2)), "ks", "view");
    builder.view = Some(Arc::new(ViewDefinition {
        base: base.id,
        base_name: base.name.clone(),
        include_all: false,
        where_clause: "".into(),
    }));
    for (at, name) in key.iter().chain(others).enumerate() {
        let kind = match at {
            0 => ColumnKind::PartitionKey,
            at if at < key.len() => ColumnKind::Clustering,
            _ => ColumnKind::Regular,
        };
        builder.columns.push(Column {
            kind,
            position: at.saturating_sub(1) as u16,
            ..base.column(name).unwrap().clone()
        });
    }
    View::new(&Arc::new(Table::view_of(base, builder).unwrap()), base).unwrap()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn int(value: u64) -> Bytes {
    Bytes::copy_from_slice(&(value as i32).to_be_bytes())
}

fn clustering(base: &Table, value: u64) -> ClusteringKey {
    ClusteringKey(encode_clustering(base.clustering_types(), &[int(value)]).unwrap())
}

/// A write as CQL could make it, with any timestamp.
fn write(base: &Table, random: &mut Random, now: UnixSeconds) -> Partition {
    let timestamp = Timestamp(random.below(12) as i64);
    let deletion = Deletion {
        timestamp,
        deleted_at: now,
    };
    let expiry = (random.below(3) == 0).then(|| Expiry::after(now, Ttl(1 + random.below(6) as u32)));
    let mut partition = Partition::default();
    let key = clustering(base, random.below(2));
    match random.below(10) {
        0 => partition.deletion = Some(deletion),
        1 => partition.delete_range(RangeTombstone {
            slice: Slice::of_row(&key),
            deletion,
        }),
        2 => partition.row_mut(key).delete(deletion),
        kind => {
            let row = partition.row_mut(key);
            if kind < 6 {
                row.liveness = Some(Liveness { timestamp, expiry });
            }
            for name in ["a", "b"] {
                let cell = match random.below(4) {
                    0 => Cell::tombstone(timestamp, now),
                    1 | 2 => Cell::with_expiry(timestamp, int(random.below(2)), expiry),
                    _ => continue,
                };
                row.merge_column(base.column(name).unwrap().id, ColumnData::Cell(cell));
            }
            if random.below(3) == 0 {
                let path = {
                    let mut out = Vec::new();
                    crate::comparable::encode_component(
                        &CqlType::Int,
                        false,
                        &int(random.below(3)),
                        &mut out,
                    )
                    .unwrap();
                    Bytes::from(out)
                };
                let deletion = (random.below(2) == 0).then_some(Deletion {
                    timestamp: Timestamp(timestamp.0 - 1),
                    deleted_at: now,
                });
                let cells = vec![(path, Cell::with_expiry(timestamp, Bytes::new(), expiry))];
                let set = Collection { deletion, cells };
                row.merge_column(base.column("s").unwrap().id, ColumnData::Collection(set));
            }
        }
    }
    partition.normalize();
    partition
}

type Shown = BTreeMap<Vec<Bytes>, Vec<Option<Vec<Bytes>>>>;

/// Live values of a row: one list per column.
fn values(row: &Row, columns: &[ColumnId], now: UnixSeconds) -> Vec<Option<Vec<Bytes>>> {
    let value = |id: &ColumnId| match row.column(*id)? {
        ColumnData::Cell(cell) => cell.value(now).map(|value| vec![value]),
        ColumnData::Collection(collection) => {
            let live = collection.cells.iter().filter(|(_, cell)| cell.is_live(now));
            let paths: Vec<Bytes> = live.map(|(path, _)| path.clone()).collect();
            (!paths.is_empty()).then_some(paths)
        }
    };
    columns.iter().map(value).collect()
}

/// What the view should show: from what a query of the base shows.
fn expected(base: &Table, content: &Partition, key: &[&str], others: &[ColumnId], now: UnixSeconds) -> Shown {
    let mut shown = Shown::new();
    for (clustering, row) in &content.rows {
        if !row.is_live(now) {
            continue;
        }
        let c = decode_clustering(base.clustering_types(), &clustering.0).unwrap();
        let of_key = |name: &&str| match *name {
            "p" => Some(int(7)),
            "c" => Some(c[0].clone()),
            name => values(row, &[base.column(name).unwrap().id], now)[0]
                .as_ref()
                .map(|v| v[0].clone()),
        };
        if let Some(key) = key.iter().map(of_key).collect::<Option<Vec<_>>>() {
            shown.insert(key, values(row, others, now));
        }
    }
    shown
}

fn shown(
    view: &View,
    partitions: &BTreeMap<DecoratedKey, Partition>,
    others: &[ColumnId],
    now: UnixSeconds,
) -> Shown {
    let mut shown = Shown::new();
    for (key, partition) in partitions {
        for (clustering, row) in partition.rows.iter().filter(|(_, row)| row.is_live(now)) {
            let mut own = key.key.components(1).unwrap().into_vec();
            let rest = decode_clustering(view.table.clustering_types(), &clustering.0).unwrap();
            own.extend(rest.into_iter().take(view.clustering.len()));
            let twice = shown.insert(own, values(row, others, now));
            assert!(twice.is_none(), "two rows of one key");
        }
    }
    shown
}

fn compare(key: &[&str], others: &[&str], seeds: std::ops::Range<u64>) {
    let base = base();
    let view = view(&base, key, others);
    let ids: Vec<ColumnId> = others.iter().map(|name| base.column(name).unwrap().id).collect();
    let partition_key = DecoratedKey::new(PartitionKey(int(7)));
    for seed in seeds {
        let mut random = Random(seed);
        let (mut content, mut views) = (Partition::default(), BTreeMap::<DecoratedKey, Partition>::new());
        let mut delayed = Vec::new();
        let mut now = UnixSeconds(1000);
        for _ in 0..14 {
            now.0 += random.below(3) as i64;
            let mut after = content.clone();
            after.merge(write(&base, &mut random, now));
            let mut updates = ViewUpdates::default();
            for value in 0..2 {
                let row = clustering(&base, value);
                let own = View::base_key(&base, &partition_key, &row).unwrap();
                let project = |content: &Partition| view.project(&own, &effective_row(content, &row));
                view.change(project(&content), project(&after), now, &mut updates);
            }
            content = after;
            // What a replay, or a build, does beside the writes changes nothing.
            if random.below(4) == 0 {
                for value in 0..2 {
                    let row = clustering(&base, value);
                    let own = View::base_key(&base, &partition_key, &row).unwrap();
                    if let Some(row) = view.project(&own, &effective_row(&content, &row)) {
                        view.restore(row, &mut updates);
                    }
                }
            }
            for mutation in updates.into_mutations() {
                if random.below(5) == 0 {
                    delayed.push(mutation);
                    continue;
                }
                views.entry(mutation.key).or_default().merge(mutation.partition);
            }
            if delayed.is_empty() {
                let wanted = expected(&base, &content, key, &ids, now);
                assert_eq!(shown(&view, &views, &ids, now), wanted, "seed {seed}, {key:?}");
            }
        }
        for mutation in delayed {
            views.entry(mutation.key).or_default().merge(mutation.partition);
        }
        for later in 0..10 {
            let now = UnixSeconds(now.0 + later);
            let wanted = expected(&base, &content, key, &ids, now);
            assert_eq!(
                shown(&view, &views, &ids, now),
                wanted,
                "seed {seed}, {key:?}, +{later} s"
            );
        }
    }
}

#[test]
fn a_view_by_a_regular_column_shows_what_the_base_shows() {
    compare(&["a", "p", "c"], &["b", "s"], 0..3000);
    compare(&["a", "p", "c"], &[], 0..1000);
    compare(&["c", "a", "p"], &["s"], 0..1000);
}

#[test]
fn a_view_in_another_order_shows_what_the_base_shows() {
    compare(&["c", "p"], &["a", "b", "s"], 0..2000);
    compare(&["c", "p"], &["b"], 0..2000);
    compare(&["c", "p"], &[], 0..2000);
}

#[test]
fn rows_written_over_with_the_same_key_leave_one_tombstone() {
    let base = base();
    let view = view(&base, &["a", "p", "c"], &["b"]);
    let key = DecoratedKey::new(PartitionKey(int(7)));
    let row = clustering(&base, 0);
    let own = View::base_key(&base, &key, &row).unwrap();
    let mut content = Partition::default();
    let mut views = Partition::default();
    for timestamp in 1..50 {
        let before = view.project(&own, &effective_row(&content, &row));
        let mut written = Partition::default();
        for name in ["a", "b"] {
            let cell = Cell::live(Timestamp(timestamp), int(1));
            let id = base.column(name).unwrap().id;
            written
                .row_mut(row.clone())
                .merge_column(id, ColumnData::Cell(cell));
        }
        content.merge(written);
        let mut updates = ViewUpdates::default();
        let after = view.project(&own, &effective_row(&content, &row));
        view.change(before, after, UnixSeconds(timestamp), &mut updates);
        updates
            .into_mutations()
            .into_iter()
            .for_each(|mutation| views.merge(mutation.partition));
    }
    assert_eq!((views.rows.len(), views.range_tombstones.len()), (1, 1));
}

#[test]
fn the_base_row_of_a_view_row_is_found() {
    let base = base();
    let view = view(&base, &["a", "c", "p"], &[]);
    let (key, row) = (DecoratedKey::new(PartitionKey(int(7))), clustering(&base, 3));
    let mut content = Row::default();
    let cell = Cell::live(Timestamp(1), int(9));
    content.merge_column(base.column("a").unwrap().id, ColumnData::Cell(cell));
    let own = View::base_key(&base, &key, &row).unwrap();
    let projected = view.project(&own, &content).unwrap();
    assert_eq!(
        view.base_row_of(&base, &projected.key, &projected.clustering),
        Some((key, row))
    );
    assert_eq!(view.check_key(&projected), Ok(()));
}
