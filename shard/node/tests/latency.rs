//! What requests take is measured within a turn too, where the event loop's clock stands still.
#![allow(clippy::unwrap_used)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_env::memory::MemoryEnv;
use ceto_env::{Clock, Disk, Env, Tasks};
use ceto_model::Consistency;
use ceto_native::{Execute, Prepare, QueryParameters, Request, Response, Values};
use ceto_node::options::Limits;
use support::{Client, World, encode};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(1);
const KEYS: i32 = 10;

/// A world where each look at the clock finds that time has passed, though the turn is the same.
struct SlowTurns {
    env: Rc<MemoryEnv>,
    looks: Cell<u32>,
}

impl Env for SlowTurns {
    fn clock(&self) -> &dyn Clock {
        self
    }

    fn disk(&self) -> Rc<dyn Disk> {
        self.env.disk()
    }

    fn tasks(&self) -> &dyn Tasks {
        self.env.tasks()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }
}

impl Clock for SlowTurns {
    fn now(&self) -> Instant {
        self.env.clock().now()
    }

    fn read(&self) -> Instant {
        self.looks.set(self.looks.get() + 1);
        self.now() + TICK * self.looks.get()
    }

    fn unix_micros(&self) -> i64 {
        self.env.clock().unix_micros()
    }
}

/// Count and sum (in seconds) of what one kind of request took at one place.
fn latencies(world: &World, place: &str, kind: &str) -> (f64, f64) {
    let samples = world.node.samples();
    let sum_of = |suffix: &str| {
        let ours = samples.iter().filter(|sample| {
            let has = |label, value: &str| sample.labels.contains(&(label, value.to_owned()));
            sample.name == "ceto_request_seconds"
                && sample.suffix == suffix
                && has("place", place)
                && has("kind", kind)
        });
        ours.map(|sample| sample.value).sum::<f64>()
    };
    (sum_of("_count"), sum_of("_sum"))
}

fn prepare(world: &World, client: &mut Client, text: &str) -> Bytes {
    let request = Prepare {
        query: text.to_owned(),
        keyspace: None,
    };
    client.send(&encode(0, Request::Prepare(request)));
    match world.answers(client, 1).remove(0) {
        Response::Prepared(prepared) => prepared.id,
        other => panic!("{other:?}"),
    }
}

/// An EXECUTE that is answered before the call returns.
fn execute(client: &mut Client, id: &Bytes, key: i32) {
    let mut parameters = QueryParameters::new(Consistency::One);
    parameters.values = Values::builder().value(&key.to_be_bytes()).build();
    let request = Execute {
        id: id.clone(),
        result_metadata_id: None,
        parameters,
    };
    client.send(&encode(0, Request::Execute(request)));
    let answers = client.read();
    assert!(
        matches!(answers[..], [Response::Void | Response::Rows(_)]),
        "{answers:?}"
    );
}

#[test]
fn requests_that_are_answered_within_a_turn_take_their_time() {
    let world = World::boot_on(Limits::default(), |env| {
        Rc::new(SlowTurns {
            env,
            looks: Cell::new(0),
        })
    });
    world.fill(0, 0);
    let mut client = world.connect();
    let insert = prepare(&world, &mut client, "INSERT INTO ks.t (k, c) VALUES (?, 0)");
    let select = prepare(&world, &mut client, "SELECT c FROM ks.t WHERE k = ?");
    let places = [
        ("coordinator", "write"),
        ("replica", "write"),
        ("coordinator", "read"),
        ("replica", "read"),
    ];
    let before = places.map(|(place, kind)| latencies(&world, place, kind));
    (0..KEYS).for_each(|key| execute(&mut client, &insert, key));
    (0..KEYS).for_each(|key| execute(&mut client, &select, key));
    for ((place, kind), (count, sum)) in places.into_iter().zip(before) {
        let (count_after, sum_after) = latencies(&world, place, kind);
        assert_eq!(count_after - count, f64::from(KEYS), "{place} {kind}");
        let least = TICK.as_secs_f64() * f64::from(KEYS) * 0.999;
        assert!(sum_after - sum >= least, "{place} {kind}: {}", sum_after - sum);
    }
    let figures = world.node.table_figures();
    let table = figures.iter().find(|figures| figures.table == "t").unwrap();
    let tick = u64::try_from(TICK.as_nanos()).unwrap();
    assert_eq!((table.reads, table.writes), (10, 10));
    assert_eq!((table.read_nanos, table.write_nanos), (10 * tick, 10 * tick));
}
