//! TRUNCATE on a disk that takes its time.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ceto_env::memory::{Latency, Spread};
use ceto_native::{ErrorReason, Response};
use ceto_node::options::Limits;
use support::World;

const TIMEOUT: Duration = Duration::from_secs(1);

fn world() -> World {
    let world = World::boot(Limits {
        truncate_timeout: TIMEOUT,
        ..Limits::default()
    });
    world.fill(3, 10);
    world
}

fn rows(world: &World) -> u32 {
    let mut client = world.connect();
    match world.ask(&mut client, "SELECT c FROM ks.t") {
        Response::Rows(rows) => rows.row_count(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_truncation_in_time_is_answered_when_it_is_done() {
    let world = world();
    let mut client = world.connect();
    let answer = world.ask(&mut client, "TRUNCATE ks.t");
    assert!(matches!(answer, Response::Void), "{answer:?}");
    assert_eq!(rows(&world), 0);
}

#[test]
fn a_truncation_that_takes_too_long_is_an_error_and_ends_all_the_same() {
    let world = world();
    let slow = Spread {
        least: 10 * TIMEOUT,
        usual: Duration::ZERO,
    };
    world.env.memory_disk().set_latency(Some(Latency {
        sync: slow,
        write: slow,
        ..Latency::SOLID_STATE
    }));
    let mut client = world.connect();
    let began = world.env.elapsed();
    let Response::Error(error) = world.ask(&mut client, "TRUNCATE ks.t") else {
        panic!("no error");
    };
    let waited = world.env.elapsed() - began;
    assert!(waited >= TIMEOUT && waited < 2 * TIMEOUT, "{waited:?}");
    assert_eq!(error.reason, ErrorReason::Truncate);
    assert!(
        error
            .message
            .starts_with("Error during truncate: Truncate timed out - received only 0 responses"),
        "{}",
        error.message
    );
    world.env.memory_disk().set_latency(None);
    world.run(100 * TIMEOUT);
    assert_eq!(rows(&world), 0);
}
