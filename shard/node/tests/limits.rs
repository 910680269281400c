//! What clients can make a shard hold: answers that nobody reads, requests that never end.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use ceto_native::Response;
use ceto_node::options::Limits;
use support::{Client, World, query};

const MEBIBYTE: usize = 1 << 20;
const PAGE: &str = "SELECT v FROM ks.t WHERE k = 0";
const ROW: &str = "SELECT c FROM ks.t WHERE k = 0 AND c = 1";

/// So many pages of 1 MiB asked for at once, none read.
fn ask_for_pages(client: &mut Client, count: i16) {
    let requests: Vec<u8> = (0..count)
        .flat_map(|stream| query(stream, PAGE, Some(5000), Vec::new()))
        .collect();
    client.send(&requests);
}

fn world_with_pages(limits: Limits) -> World {
    let world = World::boot(limits);
    world.fill(24, 100_000);
    world
}

fn is_rows(answer: &Response) -> bool {
    matches!(answer, Response::Rows(_))
}

#[test]
fn one_client_that_does_not_read_holds_its_own_bound_and_a_page() {
    let limits = Limits {
        max_output_per_connection: 4 * MEBIBYTE,
        ..Limits::default()
    };
    let world = world_with_pages(limits);
    let mut slow = world.connect();
    ask_for_pages(&mut slow, 200);
    world.run(Duration::from_secs(3));
    assert!(slow.unread() < 6 * MEBIBYTE, "{} bytes", slow.unread());
    assert!(world.metric("ceto_connections_paused_total") > 0.0);
    let answers = world.answers(&mut slow, 200);
    assert!(answers.iter().all(is_rows));
    assert_eq!(world.metric("ceto_response_memory_bytes"), 0.0);
}

#[test]
fn a_page_of_stored_rows_has_its_bound_in_bytes() {
    let world = world_with_pages(Limits {
        max_page_bytes: 300_000,
        ..Limits::default()
    });
    let mut client = world.connect();
    ask_for_pages(&mut client, 1);
    let Response::Rows(rows) = world.answers(&mut client, 1).remove(0) else {
        panic!("rows")
    };
    assert_eq!(rows.row_count(), 3);
}

#[test]
fn many_clients_that_do_not_read_hold_the_shards_bound_together() {
    let limits = Limits {
        max_response_memory: 16 * MEBIBYTE,
        ..Limits::default()
    };
    let world = world_with_pages(limits);
    world
        .env
        .block_on(world.node.flush(table(&world)))
        .unwrap()
        .unwrap();
    let mut slow: Vec<Client> = (0..30).map(|_| world.connect()).collect();
    slow.iter_mut().for_each(|client| ask_for_pages(client, 20));
    world.run(Duration::from_secs(2));
    let unread: usize = slow.iter().map(Client::unread).sum();
    assert!(unread > 8 * MEBIBYTE && unread <= 17 * MEBIBYTE, "{unread} bytes");
    assert!(world.metric("ceto_response_memory_waiting") > 0.0);
    // Small answers come all the same.
    let mut quick = world.connect();
    assert!(is_rows(&world.ask(&mut quick, ROW)));
    // Everybody gets everything in the end.
    let mut missing: Vec<usize> = vec![20; slow.len()];
    for _ in 0..10_000 {
        for (client, missing) in slow.iter_mut().zip(&mut missing) {
            let answers = client.read();
            assert!(answers.iter().all(is_rows));
            *missing -= answers.len();
        }
        world.run(Duration::from_micros(100));
    }
    assert_eq!(missing.iter().sum::<usize>(), 0);
    assert_eq!(world.metric("ceto_response_memory_bytes"), 0.0);
    assert_eq!(world.metric("ceto_connections_stalled_total"), 0.0);
}

#[test]
fn clients_that_stand_still_are_cut_when_others_wait_for_their_memory() {
    let limits = Limits {
        max_response_memory: 16 * MEBIBYTE,
        ..Limits::default()
    };
    let world = world_with_pages(limits);
    let mut still: Vec<Client> = (0..20).map(|_| world.connect()).collect();
    still.iter_mut().for_each(|client| ask_for_pages(client, 20));
    world.run(Duration::from_secs(1));
    let mut other = world.connect();
    ask_for_pages(&mut other, 1);
    world.run(Duration::from_secs(7));
    let cut = still.iter_mut().filter(|client| client.socket.is_aborted.get());
    let cut: Vec<_> = cut.map(Client::leave).collect();
    assert!(!cut.is_empty());
    assert_eq!(world.metric("ceto_connections_stalled_total"), cut.len() as f64);
    assert!(!other.socket.is_aborted.get());
    assert_eq!(world.answers(&mut other, 1).len(), 1, "an answer, or Overloaded");
    // Who waited too long was told.
    assert!(world.metric("ceto_response_memory_expired_total") > 0.0);
}

#[test]
fn answers_without_pages_are_made_one_after_the_other_when_memory_is_short() {
    let limits = Limits {
        max_response_memory: 4 * MEBIBYTE,
        ..Limits::default()
    };
    let world = world_with_pages(limits);
    let mut clients: Vec<Client> = (0..10).map(|_| world.connect()).collect();
    for client in &mut clients {
        client.send(&query(1, PAGE, None, Vec::new()));
    }
    for client in &mut clients {
        let answers = world.answers(client, 1);
        let [Response::Rows(rows)] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert_eq!(rows.row_count(), 24);
    }
    assert_eq!(world.metric("ceto_response_memory_bytes"), 0.0);
}

#[test]
fn requests_of_a_closed_connection_cost_nothing_more() {
    let limits = Limits {
        max_response_memory: 8 * MEBIBYTE,
        ..Limits::default()
    };
    let world = world_with_pages(limits);
    let mut clients: Vec<Client> = (0..20).map(|_| world.connect()).collect();
    clients.iter_mut().for_each(|client| ask_for_pages(client, 100));
    world.run(Duration::from_secs(1));
    let reads = world.metric("ceto_replica_reads_total");
    clients.iter_mut().for_each(Client::leave);
    world.run(Duration::from_secs(1));
    assert!(world.metric("ceto_replica_reads_total") - reads < 20.0);
    assert_eq!(world.metric("ceto_requests_in_flight"), 0.0);
    assert_eq!(world.metric("ceto_response_memory_bytes"), 0.0);
}

#[test]
fn a_turn_ends_though_more_requests_have_arrived() {
    let world = world_with_pages(Limits {
        max_output_per_connection: 1 << 30,
        ..Limits::default()
    });
    let mut client = world.connect();
    ask_for_pages(&mut client, 100);
    assert!(client.unread() < 100 * MEBIBYTE, "all in one turn");
    assert_eq!(world.answers(&mut client, 100).len(), 100);
}

/// A request of `size` bytes that is a syntax error once it is complete.
fn long_request(stream: i16, size: usize) -> Vec<u8> {
    query(stream, &" ".repeat(size), None, Vec::new()).to_vec()
}

#[test]
fn requests_that_never_end_hold_the_bound_of_their_address() {
    let limits = Limits {
        max_request_memory: 16 * MEBIBYTE,
        max_request_memory_per_address: 8 * MEBIBYTE,
        ..Limits::default()
    };
    let world = World::boot(limits);
    let request = long_request(1, 4 * MEBIBYTE);
    let mut accepted = 0;
    let mut stuck: Vec<Client> = (0..50).map(|_| world.connect()).collect();
    for client in &mut stuck {
        client.send(&request[..request.len() - 50]);
        accepted += request.len() - 50 - client.held();
    }
    assert!(
        accepted > 4 * MEBIBYTE && accepted < 10 * MEBIBYTE,
        "{accepted} bytes"
    );
    assert!(world.metric("ceto_request_memory_waiting") > 40.0);
    // Small requests, and those of another address, are not held up.
    assert!(matches!(
        world.ask(&mut world.connect(), "SELECT"),
        Response::Error(_)
    ));
    let mut other = world.connect_with([127, 0, 0, 2], &[]);
    other.send(&request);
    assert_eq!(other.held(), 0);
    assert!(matches!(world.answers(&mut other, 1)[..], [Response::Error(_)]));
    // One that ends makes room for the next; those that stand still are cut in the end.
    let waiting = world.metric("ceto_request_memory_waiting");
    stuck[0].send(&request[request.len() - 50..]);
    assert_eq!(world.answers(&mut stuck[0], 1).len(), 1);
    assert_eq!(world.metric("ceto_request_memory_waiting"), waiting - 1.0);
    for _ in 0..60 {
        world.run(Duration::from_secs(6));
        for client in stuck.iter_mut().filter(|client| client.socket.is_aborted.get()) {
            client.leave();
        }
        stuck.iter_mut().for_each(|client| drop(client.read()));
    }
    assert!(world.metric("ceto_connections_stalled_total") > 40.0);
    assert_eq!(world.metric("ceto_request_memory_waiting"), 0.0);
    stuck.iter_mut().for_each(Client::leave);
    assert_eq!(world.metric("ceto_request_memory_bytes"), 0.0);
}

#[test]
fn clients_that_want_it_are_told_that_there_is_no_memory_for_their_request() {
    let limits = Limits {
        max_request_memory: 4 * MEBIBYTE,
        ..Limits::default()
    };
    let world = World::boot(limits);
    let request = long_request(1, 3 * MEBIBYTE);
    let mut stuck = world.connect();
    stuck.send(&request[..MEBIBYTE]);
    let mut client = world.connect_with([127, 0, 0, 2], &[("THROW_ON_OVERLOAD", "1")]);
    client.send(&request);
    client.send(&query(2, "SELECT key FROM system.local", None, Vec::new()));
    let answers = world.answers(&mut client, 2);
    let [Response::Error(error), Response::Rows(_)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(error.code(), ceto_native::ErrorCode::Overloaded);
    assert_eq!(world.metric("ceto_request_memory_shed_total"), 1.0);
    stuck.leave();
    client.send(&request);
    let Response::Error(error) = world.answers(&mut client, 1).remove(0) else {
        panic!("an error")
    };
    assert_ne!(error.code(), ceto_native::ErrorCode::Overloaded);
    assert_eq!(world.metric("ceto_request_memory_bytes"), 0.0);
}

fn table(world: &World) -> ceto_model::TableId {
    world.node.schema().table("ks", "t").unwrap().id
}
