//! Materialized views after crashes in the middle of a write: whatever of it has reached the disk, the views show what the
//! base has.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use ceto_model::codec::put_bytes;
use ceto_model::comparable::encode_clustering;
use ceto_model::view::{ViewUpdates, effective_row};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, DecoratedKey, Liveness, Mutation, Partition, PartitionKey, Timestamp,
    UnixSeconds, View,
};
use ceto_native::Response;
use ceto_node::options::Limits;
use support::World;

fn int(value: i32) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

fn rows(world: &World, text: &str) -> u32 {
    let mut client = world.connect();
    match world.ask(&mut client, text) {
        Response::Rows(rows) => rows.row_count(),
        other => panic!("{text}: {other:?}"),
    }
}

fn world() -> World {
    let world = World::boot(Limits::default());
    let mut client = world.connect();
    for text in [
        "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE TABLE ks.t (k int, c int, v int, w int, PRIMARY KEY (k, c))",
        "CREATE MATERIALIZED VIEW ks.by_v AS SELECT * FROM ks.t WHERE v IS NOT NULL AND k IS NOT NULL AND c IS NOT NULL \
         PRIMARY KEY (v, k, c)",
        "CREATE MATERIALIZED VIEW ks.turned AS SELECT k, c, w FROM ks.t WHERE k IS NOT NULL AND c IS NOT NULL \
         PRIMARY KEY (c, k)",
    ] {
        let answer = world.ask(&mut client, text);
        assert!(matches!(answer, Response::SchemaChange(_)), "{text}: {answer:?}");
    }
    let text = "INSERT INTO ks.t (k, c, v, w) VALUES (1, 2, 5, 7) USING TIMESTAMP 100";
    assert!(matches!(world.ask(&mut client, text), Response::Void));
    world.run(Duration::from_secs(1));
    world
}

/// The row (1, 2) with these cells.
fn content(world: &World, cells: &[(&str, i32, i64)]) -> Partition {
    let schema = world.node.schema();
    let base = schema.table("ks", "t").unwrap();
    let mut partition = Partition::default();
    let key = ClusteringKey(encode_clustering(base.clustering_types(), &[int(2)]).unwrap());
    let row = partition.row_mut(key);
    for (name, value, timestamp) in cells {
        let cell = Cell::live(Timestamp(*timestamp), int(*value));
        row.merge_column(base.column(name).unwrap().id, ColumnData::Cell(cell));
    }
    partition
}

#[test]
fn whatever_of_a_write_survives_the_views_show_what_the_base_has() {
    // Bits: the base's write, and each of the views' mutations, which are written behind it.
    for survives in (0..16u32).filter(|survives| *survives == 0 || survives & 1 != 0) {
        let world = world();
        let schema = world.node.schema();
        let base = schema.table("ks", "t").unwrap();
        let views = schema.views_of(base.id).unwrap();
        let key = DecoratedKey::new(PartitionKey(int(1)));
        let mut before = content(&world, &[("v", 5, 100), ("w", 7, 100)]);
        before.rows[0].1.liveness = Some(Liveness {
            timestamp: Timestamp(100),
            expiry: None,
        });
        let written = content(&world, &[("v", 6, 200), ("w", 8, 200)]);
        let mut after = before.clone();
        after.merge(written.clone());
        let row = before.rows[0].0.clone();
        let own = View::base_key(base, &key, &row).unwrap();
        let mut noted = Vec::new();
        let mut updates = ViewUpdates::default();
        for view in views.iter() {
            let project = |content: &Partition| view.project(&own, &effective_row(content, &row));
            for projected in [project(&before), project(&after)].into_iter().flatten() {
                put_bytes(&mut noted, view.table.id.0.as_bytes());
                put_bytes(&mut noted, &projected.key.key.0);
                put_bytes(&mut noted, &projected.clustering.0);
            }
            view.change(project(&before), project(&after), UnixSeconds(1), &mut updates);
        }
        let notes = schema.table("system", "view_updates").unwrap();
        let note_key: [&[u8]; 2] = [base.id.0.as_bytes(), &[0; 4]];
        let note_key = encode_clustering(notes.clustering_types(), &note_key).unwrap();
        let mut note = Mutation::new(notes.id, key.clone());
        let note_row = note.partition.row_mut(ClusteringKey(note_key));
        // Above the deletion of the note of the first write.
        let timestamp = Timestamp(i64::MAX / 2);
        note_row.liveness = Some(Liveness {
            timestamp,
            expiry: None,
        });
        let cell = Cell::live(timestamp, noted.into());
        note_row.merge_column(notes.column("view_rows").unwrap().id, ColumnData::Cell(cell));
        let mut mutations = vec![note];
        let mut write = Mutation::new(base.id, key.clone());
        write.partition = written;
        let updates = updates.into_mutations();
        assert_eq!(updates.len(), 3);
        let all = std::iter::once(write).chain(updates).enumerate();
        let survivors = all.filter(|(bit, _)| survives & (1 << bit) != 0);
        mutations.extend(survivors.map(|(_, mutation)| mutation));
        let node = world.node.clone();
        let replayed = world.env.block_on(async move {
            for mutation in mutations {
                node.apply_durably(vec![mutation]).await.unwrap();
            }
            node.replay_view_updates().await
        });
        assert_eq!(replayed.unwrap(), Ok(()), "{survives:b}");
        let (there, gone, w) = match survives & 1 {
            1 => (6, 5, 8),
            _ => (5, 6, 7),
        };
        let count = |text: String| rows(&world, &text);
        assert_eq!(
            count(format!("SELECT * FROM ks.by_v WHERE v = {there}")),
            1,
            "{survives:b}"
        );
        assert_eq!(
            count(format!("SELECT * FROM ks.by_v WHERE v = {gone}")),
            0,
            "{survives:b}"
        );
        let filtered = format!("SELECT * FROM ks.by_v WHERE v = {there} AND w = {w} ALLOW FILTERING");
        assert_eq!(count(filtered), 1, "{survives:b}");
        let filtered = format!("SELECT * FROM ks.turned WHERE c = 2 AND w = {w} ALLOW FILTERING");
        assert_eq!(count(filtered), 1, "{survives:b}");
        assert_eq!(count("SELECT * FROM system.view_updates".to_owned()), 0);
        assert_eq!(world.metric("ceto_view_updates_replayed_total"), 1.0);
    }
}

#[test]
fn a_write_leaves_no_note_and_a_truncation_takes_the_views_along() {
    let world = world();
    let mut client = world.connect();
    for text in [
        "UPDATE ks.t SET v = 6 WHERE k = 1 AND c = 2",
        "INSERT INTO ks.t (k, c, v) VALUES (1, 3, 6)",
        "DELETE FROM ks.t WHERE k = 1 AND c > 2",
    ] {
        assert!(matches!(world.ask(&mut client, text), Response::Void), "{text}");
    }
    assert_eq!(rows(&world, "SELECT * FROM ks.by_v WHERE v = 6"), 1);
    assert_eq!(rows(&world, "SELECT * FROM ks.by_v"), 1);
    assert_eq!(rows(&world, "SELECT * FROM ks.turned"), 1);
    assert_eq!(rows(&world, "SELECT * FROM system.view_updates"), 0);
    assert_eq!(rows(&world, "SELECT * FROM system.built_views"), 2);
    assert!(matches!(world.ask(&mut client, "TRUNCATE ks.t"), Response::Void));
    for table in ["t", "by_v", "turned"] {
        assert_eq!(rows(&world, &format!("SELECT * FROM ks.{table}")), 0, "{table}");
    }
    // The row marker comes back, and with it the row of the view that has no more than that.
    let text = "INSERT INTO ks.t (k, c) VALUES (1, 2)";
    assert!(matches!(world.ask(&mut client, text), Response::Void));
    assert_eq!(rows(&world, "SELECT * FROM ks.turned"), 1);
    assert_eq!(rows(&world, "SELECT * FROM ks.by_v"), 0);
}
