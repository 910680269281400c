//! Sockets: echo in many shapes, slow readers, placement, ends.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ceto_env::{LocalFuture, Placement, Protocol, Socket, TaskQueue};
use ceto_runtime::{ControlHandle, Runtime, RuntimeOptions, ShardContext, start};
use support::{options, wait_until};

/// What a test wants to see of all protocols.
#[derive(Default)]
struct Seen {
    opened: [AtomicU64; 4],
    closed: AtomicU64,
    drained: AtomicU64,
    received: AtomicU64,
}

type MakeProtocol = fn(Rc<dyn Socket>, &ShardTools) -> Box<dyn Protocol>;

/// What a protocol of a test may use.
#[derive(Clone)]
struct ShardTools {
    env: Rc<dyn ceto_env::Env>,
    seen: Arc<Seen>,
    shard: u16,
}

struct Server {
    address: SocketAddr,
    runtime: Runtime<u64>,
    control: ControlHandle<u64>,
    seen: Arc<Seen>,
}

const END: u64 = 0;
const STOP_ACCEPTING: u64 = 1;

impl Server {
    fn start(options: &RuntimeOptions, placement: Placement, make: MakeProtocol) -> Self {
        let (send, addresses): (_, Receiver<SocketAddr>) = channel();
        let seen: Arc<Seen> = Arc::default();
        let shared = Arc::clone(&seen);
        let runtime = start(options, move |context: ShardContext<u64>| {
            let tools = ShardTools {
                env: Rc::clone(&context.env),
                seen: Arc::clone(&shared),
                shard: context.shard,
            };
            let send = send.clone();
            Box::pin(async move {
                let acceptor = Rc::new(move |socket| {
                    tools.seen.opened[usize::from(tools.shard)].fetch_add(1, Ordering::SeqCst);
                    make(socket, &tools)
                });
                let address = "127.0.0.1:0".parse().unwrap();
                send.send(context.network.listen(address, placement, acceptor).unwrap())
                    .unwrap();
                let done = Rc::new(Cell::new(false));
                let (finished, network) = (Rc::clone(&done), Rc::clone(&context.network));
                context.receive(Rc::new(move |_, message| match message {
                    END => finished.set(true),
                    _ => network.stop_accepting(),
                }));
                while !done.get() {
                    context.env.tasks().sleep(Duration::from_millis(2)).await;
                }
            }) as LocalFuture<'static, ()>
        })
        .unwrap();
        let bound: Vec<_> = (0..options.shards)
            .map(|_| addresses.recv_timeout(Duration::from_secs(10)).unwrap())
            .collect();
        assert!(
            bound.iter().all(|address| *address == bound[0]),
            "all shards see one address"
        );
        Self {
            address: bound[0],
            control: runtime.control(),
            runtime,
            seen,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn tell(&self, message: u64) {
        for shard in 0..self.control.shard_count() {
            self.control.send(shard, message).unwrap();
        }
    }

    fn end(self) -> Arc<Seen> {
        self.tell(END);
        self.runtime.join().unwrap();
        self.seen
    }

    fn sum(&self, counter: impl Fn(&ceto_runtime::RuntimeMetrics) -> u64) -> u64 {
        (0..self.control.shard_count())
            .map(|shard| counter(&self.control.metrics(shard)))
            .sum()
    }
}

/// Answers every byte with itself.
struct Echo {
    socket: Rc<dyn Socket>,
    seen: Arc<Seen>,
}

impl Echo {
    fn make(socket: Rc<dyn Socket>, tools: &ShardTools) -> Box<dyn Protocol> {
        Box::new(Self {
            socket,
            seen: Arc::clone(&tools.seen),
        })
    }
}

impl Protocol for Echo {
    fn received(&mut self, bytes: &[u8]) {
        self.seen.received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        self.socket.write(bytes);
    }

    fn drained(&mut self) {
        self.seen.drained.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&mut self) {
        self.seen.closed.fetch_add(1, Ordering::SeqCst);
        // Harmless after the end.
        self.socket.write(b"lost");
        self.socket.close();
    }
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|place| ((place * 31 + seed * 17 + (place >> 8)) % 251) as u8)
        .collect()
}

fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.to_vec();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    thread.join().unwrap();
    assert!(got == bytes, "echo differs");
}

#[test]
fn echo_over_many_connections() {
    let server = Server::start(&options(2), Placement::LeastConnected, Echo::make);
    let mut streams: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for round in 0..5 {
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&pattern(100, number + round)).unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut got = [0; 100];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got[..], pattern(100, number + round));
        }
    }
    let opened: Vec<_> = server.seen.opened[..2]
        .iter()
        .map(|count| count.load(Ordering::SeqCst))
        .collect();
    assert_eq!(opened, [100, 100], "least connected spreads evenly");
    assert_eq!(server.sum(|metrics| metrics.connections_open.get()), 200);
    drop(streams);
    wait_until("all closed", || server.seen.closed.load(Ordering::SeqCst) == 200);
    wait_until("none open", || {
        server.sum(|metrics| metrics.connections_open.get()) == 0
    });
    assert_eq!(server.sum(|metrics| metrics.bytes_received.get()), 200 * 5 * 100);
    assert_eq!(server.sum(|metrics| metrics.bytes_sent.get()), 200 * 5 * 100);
    let seen = server.end();
    assert_eq!(seen.closed.load(Ordering::SeqCst), 200, "closed is told once");
}

#[test]
fn large_pipelined_data_comes_back_whole() {
    let server = Server::start(&options(1), Placement::LeastConnected, Echo::make);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let mut stream = server.connect();
            std::thread::spawn(move || exchange(&mut stream, &pattern(20 << 20, number)))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(server.sum(|metrics| metrics.receives.get()) > 1000);
    assert!(server.seen.drained.load(Ordering::SeqCst) > 0);
    server.end();
}

/// Answers a number of requested bytes, 4 bytes little-endian, with that many bytes.
struct Fountain {
    socket: Rc<dyn Socket>,
    request: Vec<u8>,
}

impl Fountain {
    fn make(socket: Rc<dyn Socket>, _: &ShardTools) -> Box<dyn Protocol> {
        Box::new(Self {
            socket,
            request: Vec::new(),
        })
    }
}

impl Protocol for Fountain {
    fn received(&mut self, bytes: &[u8]) {
        self.request.extend_from_slice(bytes);
        while let Some((number, _)) = self.request.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*number) as usize;
            self.request.drain(..4);
            self.socket.write(&pattern(length, 1));
        }
    }

    fn closed(&mut self) {}
}

#[test]
fn a_slow_reader_holds_back_its_own_requests_only() {
    let server = Server::start(&options(1), Placement::LeastConnected, Fountain::make);
    let mut slow = server.connect();
    const ANSWER: usize = 1 << 20;
    // More requests than fit in one receive, so that holding back can show.
    for _ in 0..40 {
        slow.write_all(&(ANSWER as u32).to_le_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    wait_until("held back", || {
        server.sum(|metrics| metrics.output_pauses.get()) > 0
    });
    let mut quick = server.connect();
    let started = Instant::now();
    quick.write_all(&10_u32.to_le_bytes()).unwrap();
    let mut answer = [0; 10];
    quick.read_exact(&mut answer).unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    let expected = pattern(ANSWER, 1);
    let mut got = vec![0; ANSWER];
    for _ in 0..40 {
        slow.read_exact(&mut got).unwrap();
        assert!(got == expected);
    }
    assert_eq!(server.sum(|metrics| metrics.output_overflows.get()), 0);
    server.end();
}

#[test]
fn output_over_its_bound_cuts_the_connection() {
    let mut options = options(1);
    options.output_bound = 8 << 20;
    let server = Server::start(&options, Placement::LeastConnected, Fountain::make);
    let mut stream = server.connect();
    stream.write_all(&(64_u32 << 20).to_le_bytes()).unwrap();
    wait_until("cut", || {
        server.sum(|metrics| metrics.output_overflows.get()) == 1
    });
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20);
    wait_until("none open", || {
        server.sum(|metrics| metrics.connections_open.get()) == 0
    });
    server.end();
}

/// Takes three bytes, pauses for a while, and goes on.
struct Pausing {
    socket: Rc<dyn Socket>,
    tools: ShardTools,
    paused: Rc<Cell<bool>>,
}

impl Pausing {
    fn make(socket: Rc<dyn Socket>, tools: &ShardTools) -> Box<dyn Protocol> {
        Box::new(Self {
            socket,
            tools: tools.clone(),
            paused: Rc::default(),
        })
    }
}

impl Protocol for Pausing {
    fn received(&mut self, bytes: &[u8]) {
        assert!(!self.paused.get(), "received while paused");
        self.socket.write(bytes);
        self.socket.pause();
        self.paused.set(true);
        let (socket, paused, env) = (
            Rc::clone(&self.socket),
            Rc::clone(&self.paused),
            Rc::clone(&self.tools.env),
        );
        self.tools.env.tasks().spawn(
            TaskQueue::Statement,
            Box::pin(async move {
                env.tasks().sleep(Duration::from_millis(3)).await;
                paused.set(false);
                socket.resume();
            }),
        );
    }

    fn closed(&mut self) {}
}

#[test]
fn nothing_is_received_while_paused_and_nothing_is_lost() {
    let server = Server::start(&options(1), Placement::LeastConnected, Pausing::make);
    let mut stream = server.connect();
    exchange(&mut stream, &pattern(3 << 20, 5));
    for round in 0..20 {
        exchange(&mut stream, &pattern(10, round));
    }
    server.end();
}

#[test]
fn half_closed_peers_get_their_answers() {
    let server = Server::start(&options(1), Placement::LeastConnected, Echo::make);
    let mut stream = server.connect();
    let bytes = pattern(2 << 20, 3);
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    thread.join().unwrap();
    assert!(got == bytes);
    wait_until("closed", || server.seen.closed.load(Ordering::SeqCst) == 1);
    server.end();
}

/// Answers and closes, whatever else the peer sends.
struct OneAnswer(Rc<dyn Socket>);

impl OneAnswer {
    fn make(socket: Rc<dyn Socket>, _: &ShardTools) -> Box<dyn Protocol> {
        Box::new(Self(socket))
    }
}

impl Protocol for OneAnswer {
    fn received(&mut self, _: &[u8]) {
        self.0.write(&pattern(1 << 20, 9));
        self.0.close();
        self.0.write(b"after the end");
    }

    fn closed(&mut self) {}
}

#[test]
fn close_sends_everything_first_even_over_unread_requests() {
    let server = Server::start(&options(1), Placement::LeastConnected, OneAnswer::make);
    for _ in 0..10 {
        let mut stream = server.connect();
        stream.write_all(&pattern(200_000, 0)).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == pattern(1 << 20, 9), "{} bytes", got.len());
    }
    wait_until("none open", || {
        server.sum(|metrics| metrics.connections_open.get()) == 0
    });
    server.end();
}

#[test]
fn a_peer_that_stays_silent_after_close_is_dropped() {
    let server = Server::start(&options(1), Placement::LeastConnected, OneAnswer::make);
    let mut stream = server.connect();
    stream.write_all(b"x").unwrap();
    // Never read, never closed.
    wait_until("gone", || {
        server.sum(|metrics| metrics.connections_open.get()) == 0
    });
    drop(stream);
    server.end();
}

/// Answers from a task, some turns later.
struct Later {
    socket: Rc<dyn Socket>,
    tools: ShardTools,
    order: Rc<RefCell<u64>>,
}

impl Later {
    fn make(socket: Rc<dyn Socket>, tools: &ShardTools) -> Box<dyn Protocol> {
        Box::new(Self {
            socket,
            tools: tools.clone(),
            order: Rc::default(),
        })
    }
}

impl Protocol for Later {
    fn received(&mut self, bytes: &[u8]) {
        let (socket, env, bytes) = (
            Rc::clone(&self.socket),
            Rc::clone(&self.tools.env),
            bytes.to_vec(),
        );
        *self.order.borrow_mut() += 1;
        let delay = Duration::from_micros(*self.order.borrow() % 3 * 100);
        self.tools.env.tasks().spawn(
            TaskQueue::Statement,
            Box::pin(async move {
                env.tasks().sleep(delay).await;
                socket.write_with(&mut |output| output.extend_from_slice(&bytes));
            }),
        );
    }

    fn closed(&mut self) {}
}

#[test]
fn answers_from_tasks_leave_at_once() {
    let server = Server::start(&options(1), Placement::LeastConnected, Later::make);
    let mut stream = server.connect();
    let started = Instant::now();
    for round in 0..500 {
        let bytes = pattern(50, round);
        stream.write_all(&bytes).unwrap();
        let mut got = [0; 50];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got[..], bytes);
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "an answer waited for a heartbeat"
    );
    server.end();
}

#[test]
fn source_port_names_the_shard() {
    let server = Server::start(&options(3), Placement::SourcePort, Echo::make);
    let mut expected = [0; 4];
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = server.connect();
        expected[usize::from(stream.local_addr().unwrap().port() % 3)] += 1;
        exchange(&mut stream, b"hello");
        streams.push(stream);
    }
    let opened = [0, 1, 2, 3].map(|shard: usize| server.seen.opened[shard].load(Ordering::SeqCst));
    assert_eq!(opened, expected);
    server.end();
}

#[test]
fn after_stop_accepting_old_connections_stay() {
    let server = Server::start(&options(2), Placement::LeastConnected, Echo::make);
    let mut old: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for stream in &mut old {
        exchange(stream, b"before");
    }
    server.tell(STOP_ACCEPTING);
    let address = server.address;
    wait_until("refused", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    for stream in &mut old {
        exchange(stream, b"after");
    }
    server.end();
}

#[test]
fn the_end_closes_connections() {
    let server = Server::start(&options(2), Placement::LeastConnected, Echo::make);
    let mut streams: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for stream in &mut streams {
        exchange(stream, b"hello");
    }
    let seen = server.end();
    assert_eq!(seen.closed.load(Ordering::SeqCst), 10);
    for mut stream in streams {
        let mut rest = Vec::new();
        assert!(matches!(stream.read_to_end(&mut rest), Ok(0) | Err(_)));
    }
}

#[test]
fn more_senders_than_receive_buffers() {
    let server = Server::start(&options(1), Placement::LeastConnected, Echo::make);
    let streams: Vec<_> = (0..600).map(|_| server.connect()).collect();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = streams
        .chunks(150)
        .enumerate()
        .map(|(chunk, streams)| {
            let mut streams: Vec<_> = streams.iter().map(|stream| stream.try_clone().unwrap()).collect();
            let failures = Arc::clone(&failures);
            std::thread::spawn(move || {
                for round in 0..4 {
                    for stream in &mut streams {
                        stream.write_all(&pattern(40_000, chunk + round)).unwrap();
                    }
                    for stream in &mut streams {
                        let mut got = vec![0; 40_000];
                        stream.read_exact(&mut got).unwrap();
                        if got != pattern(40_000, chunk + round) {
                            failures.lock().unwrap().push(chunk);
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(failures.lock().unwrap().is_empty());
    server.end();
}

#[test]
fn a_taken_address_is_an_error_on_every_shard() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let outcomes = support::run_with(&options(2), move |context| async move {
        let acceptor = Rc::new(|_| -> Box<dyn Protocol> { unreachable!("nothing is accepted") });
        let outcome = context
            .network
            .listen(address, Placement::LeastConnected, acceptor);
        outcome.map_err(|error| error.kind())
    });
    assert_eq!(outcomes, [Err(ErrorKind::AddrInUse), Err(ErrorKind::AddrInUse)]);
}
