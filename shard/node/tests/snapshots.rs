//! Snapshots that a node takes by itself, and lets go.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ceto_env::memory::{Fault, Operation};
use ceto_native::Response;
use ceto_node::options::Limits;
use ceto_storage::SnapshotDetails;
use support::{World, options};

const TTL: Duration = Duration::from_secs(3600);

/// A table that was truncated, with automatic snapshots that live for an hour.
fn truncated() -> (World, SnapshotDetails) {
    let mut options = options(Limits::default());
    options.storage.auto_snapshot = true;
    options.storage.auto_snapshot_ttl = Some(TTL);
    let world = World::boot_as(options, |env| env);
    world.fill(20, 100);
    let mut client = world.connect();
    let answer = world.ask(&mut client, "TRUNCATE ks.t");
    assert!(matches!(answer, Response::Void), "{answer:?}");
    let found = snapshots(&world);
    assert_eq!(found.len(), 1, "{found:?}");
    let taken = found[0].clone();
    (world, taken)
}

fn snapshots(world: &World) -> Vec<SnapshotDetails> {
    world.env.block_on(world.node.snapshots()).unwrap().unwrap()
}

#[test]
fn an_automatic_snapshot_shows_its_size_and_goes_when_its_time_is_over() {
    let (world, taken) = truncated();
    assert!(
        taken.tag.starts_with("truncated-") && taken.tag.ends_with("-t"),
        "{taken:?}"
    );
    let life = taken.expires_at.unwrap() - taken.created_at.unwrap();
    assert_eq!(life, TTL.as_millis() as i64);
    // The table has given its files up.
    world.run(Duration::from_secs(5));
    let kept = &snapshots(&world)[0];
    assert!(
        kept.true_bytes > 0 && kept.disk_bytes >= kept.true_bytes,
        "{kept:?}"
    );
    world.run(TTL - Duration::from_secs(60));
    assert_eq!(snapshots(&world).len(), 1);
    world.run(Duration::from_secs(120));
    assert_eq!(snapshots(&world), []);
}

#[test]
fn an_expired_snapshot_that_could_not_be_removed_goes_later() {
    let (world, taken) = truncated();
    world.run(TTL - Duration::from_secs(60));
    world.env.memory_disk().inject(Fault {
        operation: Operation::Remove,
        path_contains: taken.tag.clone(),
        kind: std::io::ErrorKind::Other,
        count: 1,
    });
    world.run(Duration::from_secs(90));
    assert_eq!(world.env.memory_disk().failed_operations(), 1);
    assert_eq!(snapshots(&world).len(), 1, "it is still there");
    world.run(Duration::from_secs(120));
    assert_eq!(snapshots(&world), []);
}
