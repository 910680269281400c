//! Soak of the runtime: echo over sockets at 10, 50 and 100 % load while every shard compacts (in pretence), writes files and
//! syncs a segment. Fails when a turn took over a second, a round trip hung, or an answer was wrong.
//!
//! `cargo run --release -p ceto-runtime --example soak -- [SECONDS PER LOAD] [SHARDS] [FOLDER]`
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ceto_env::{Env, Mailbox, Placement, Protocol, Socket, TaskQueue};
use ceto_runtime::{ControlHandle, Runtime, RuntimeOptions, ShardContext, start};

/// Client threads, and connections of each.
const CLIENTS: usize = 4;
const CONNECTIONS: usize = 16;
/// Bytes of a request and of its answer. The first byte tells whether it hops to another shard and back.
const FRAME: usize = 64;
/// A turn longer than this fails the soak.
const LONGEST_TURN: Duration = Duration::from_secs(1);
/// A round trip longer than this is a hang.
const HANG: Duration = Duration::from_secs(10);
/// Written by one pretended flush.
const FLUSH_SIZE: usize = 8 << 20;

/// Between shards, and from the main thread (`End`).
enum Message {
    /// A frame that wants to come back: its shard, the connection's number there, its bytes.
    Hop(u16, u64, [u8; FRAME]),
    /// A frame that came back.
    Back(u64, [u8; FRAME]),
    End,
}

/// What a shard's protocols share.
struct Shard {
    number: u16,
    mailbox: Rc<dyn Mailbox<Message>>,
    /// Sockets by number, for frames that come back.
    sockets: RefCell<std::collections::BTreeMap<u64, Rc<dyn Socket>>>,
    next: Cell<u64>,
}

impl Shard {
    fn take(&self, message: Message) {
        match message {
            Message::Hop(from, socket, frame) => self.send(from, Message::Back(socket, frame)),
            Message::Back(socket, frame) => {
                if let Some(socket) = self.sockets.borrow().get(&socket) {
                    socket.write(&frame);
                }
            }
            Message::End => {}
        }
    }

    fn send(&self, to: u16, message: Message) {
        assert!(
            self.mailbox.send(to, message).is_ok(),
            "the mailbox holds more than all clients send"
        );
    }
}

struct Echo {
    socket: Rc<dyn Socket>,
    shard: Rc<Shard>,
    number: u64,
    partial: Vec<u8>,
}

impl Echo {
    fn new(socket: Rc<dyn Socket>, shard: &Rc<Shard>) -> Self {
        let number = shard.next.get();
        shard.next.set(number + 1);
        shard.sockets.borrow_mut().insert(number, Rc::clone(&socket));
        Self {
            socket,
            shard: Rc::clone(shard),
            number,
            partial: Vec::new(),
        }
    }
}

impl Protocol for Echo {
    fn received(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let whole = self.partial.len() - self.partial.len() % FRAME;
        for frame in self.partial[..whole].chunks_exact(FRAME) {
            if frame[0].is_multiple_of(4) {
                let to = (self.shard.number + 1) % self.shard.mailbox.shard_count();
                let frame = frame.try_into().unwrap();
                self.shard
                    .send(to, Message::Hop(self.shard.number, self.number, frame));
            } else {
                self.socket.write(frame);
            }
        }
        self.partial.drain(..whole);
    }

    fn closed(&mut self) {
        self.shard.sockets.borrow_mut().remove(&self.number);
    }
}

/// Keeps its queue busy, as a compaction does.
async fn compact(env: Rc<dyn Env>, end: Rc<Cell<bool>>) {
    let mut rounds = 0_u64;
    while !end.get() {
        let started = Instant::now();
        while started.elapsed() < Duration::from_micros(20) {
            std::hint::spin_loop();
        }
        rounds += 1;
        if rounds.is_multiple_of(5000) {
            env.tasks().sleep(Duration::from_millis(20)).await;
        }
        if let Some(turn) = env.tasks().yield_if_due() {
            turn.await;
        }
    }
}

/// Writes, reads back and removes files, as flushes and compactions do.
async fn flush(env: Rc<dyn Env>, folder: PathBuf, end: Rc<Cell<bool>>) {
    let disk = env.disk();
    let block: Vec<u8> = (0..64 << 10).map(|place| (place % 251) as u8).collect();
    let mut number = 0;
    while !end.get() {
        let path = folder.join(format!("data-{number}"));
        number += 1;
        let mut file = disk.create(&path).await.unwrap();
        for _ in 0..FLUSH_SIZE / block.len() {
            file.append(&block).await.unwrap();
            if let Some(turn) = env.tasks().yield_if_due() {
                turn.await;
            }
        }
        file.finish().await.unwrap();
        let file = disk.open(&path).await.unwrap();
        for _ in 0..50 {
            let offset = env.random() % (FLUSH_SIZE as u64 - 4096);
            let got = file.read_at(offset, 4096).await.unwrap();
            let start = offset as usize % block.len();
            let count = (block.len() - start).min(4096);
            assert!(
                got[..count] == block[start..start + count],
                "a read differs from what was written"
            );
        }
        disk.remove_file(&path).await.unwrap();
        env.tasks().sleep(Duration::from_millis(50)).await;
    }
}

/// Appends to a segment and syncs it, as the commitlog does.
async fn log(env: Rc<dyn Env>, folder: PathBuf, end: Rc<Cell<bool>>) {
    const SIZE: u64 = 4 << 20;
    let disk = env.disk();
    let mut path = folder.join("segment-0");
    let mut segment = disk.create_segment(&path, SIZE).await.unwrap();
    for round in 1_u64.. {
        for offset in (0..SIZE).step_by(64 << 10) {
            segment.write(offset, &round.to_le_bytes());
            segment.sync().await.unwrap();
            env.tasks().sleep(Duration::from_millis(5)).await;
            if end.get() {
                return;
            }
        }
        let next = folder.join(format!("segment-{round}"));
        segment = disk.recycle_segment(&path, &next, SIZE).await.unwrap();
        path = next;
    }
}

/// One shard until the end.
async fn serve(
    context: ShardContext<Message>,
    folder: PathBuf,
    listening: std::sync::mpsc::Sender<SocketAddr>,
) {
    let folder = folder.join(context.shard.to_string());
    context.env.disk().create_dir_all(&folder).await.unwrap();
    let end = Rc::new(Cell::new(false));
    let shard = Rc::new(Shard {
        number: context.shard,
        mailbox: Rc::clone(&context.mailbox),
        sockets: RefCell::default(),
        next: Cell::new(0),
    });
    let (receiver, ending) = (Rc::clone(&shard), Rc::clone(&end));
    context.receive(Rc::new(move |_, message| match message {
        Message::End => ending.set(true),
        message => receiver.take(message),
    }));
    let acceptor = Rc::new(move |socket| Box::new(Echo::new(socket, &shard)) as Box<dyn Protocol>);
    let address = "127.0.0.1:0".parse().unwrap();
    listening
        .send(
            context
                .network
                .listen(address, Placement::LeastConnected, acceptor)
                .unwrap(),
        )
        .unwrap();
    let env = Rc::clone(&context.env);
    let tasks = env.tasks();
    tasks.spawn(
        TaskQueue::Compaction,
        Box::pin(compact(Rc::clone(&env), Rc::clone(&end))),
    );
    tasks.spawn(
        TaskQueue::MemtableFlush,
        Box::pin(flush(Rc::clone(&env), folder.clone(), Rc::clone(&end))),
    );
    tasks.spawn(
        TaskQueue::Maintenance,
        Box::pin(log(Rc::clone(&env), folder, Rc::clone(&end))),
    );
    while !end.get() {
        tasks.sleep(Duration::from_millis(10)).await;
    }
}

/// What the clients saw of one load.
#[derive(Default)]
struct Outcome {
    micros: Vec<u32>,
    failure: Option<String>,
}

/// Sends on all connections of a client in turn, at `rate` requests per second or as fast as answers come.
fn client(address: SocketAddr, rate: Option<f64>, time: Duration, stop: &AtomicBool) -> Outcome {
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(HANG)).unwrap();
            stream
        })
        .collect();
    let mut outcome = Outcome::default();
    let started = Instant::now();
    let mut sent = 0_u64;
    while started.elapsed() < time && !stop.load(Ordering::Relaxed) {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(sent as f64 / rate);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        let round = Instant::now();
        for stream in &mut streams {
            let frame = [sent as u8; FRAME];
            sent += 1;
            stream.write_all(&frame).unwrap();
        }
        for (place, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; FRAME];
            let expected = [(sent - CONNECTIONS as u64 + place as u64) as u8; FRAME];
            match stream.read_exact(&mut answer) {
                Ok(()) if answer == expected => outcome.micros.push(round.elapsed().as_micros() as u32),
                Ok(()) => outcome.failure = Some("an answer differs from its request".to_owned()),
                Err(error) => outcome.failure = Some(format!("no answer in {HANG:?}: {error}")),
            }
        }
        if outcome.failure.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
    }
    outcome
}

/// All clients at once. Returns the requests per second, or what failed.
fn load(address: SocketAddr, rate: Option<f64>, time: Duration) -> Result<(f64, Vec<u32>), String> {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let stop = Arc::clone(&stop);
            let rate = rate.map(|rate| rate / CLIENTS as f64);
            std::thread::spawn(move || client(address, rate, time, &stop))
        })
        .collect();
    let mut micros = Vec::new();
    let mut failure = None;
    for client in clients {
        let outcome = client.join().map_err(|_| "a client panicked".to_owned())?;
        micros.extend(outcome.micros);
        failure = failure.or(outcome.failure);
    }
    micros.sort_unstable();
    match failure {
        Some(failure) => Err(failure),
        None if micros.is_empty() => Err("no answers".to_owned()),
        None => Ok((micros.len() as f64 / time.as_secs_f64(), micros)),
    }
}

/// Prints the shards' counters and tells the longest turn.
fn longest_turn(control: &ControlHandle<Message>) -> Duration {
    let mut longest = 0;
    for shard in 0..control.shard_count() {
        let metrics = control.metrics(shard);
        longest = longest.max(metrics.longest_turn_nanos.get());
        println!(
            "  shard {shard}: turns {} sleeps {} stalls {} longest turn {:.1} ms, messages {} wake-ups {}, file writes {} syncs {}",
            metrics.turns.get(),
            metrics.parks.get(),
            metrics.stalls.iter().map(ceto_runtime::Counter::get).sum::<u64>(),
            metrics.longest_turn_nanos.get() as f64 / 1e6,
            metrics.mailbox_received.get(),
            metrics.wakeups_sent.get(),
            metrics.disk_writes.get(),
            metrics.disk_syncs.get(),
        );
    }
    Duration::from_nanos(longest)
}

fn soak(time: Duration, address: SocketAddr, control: &ControlHandle<Message>) -> Result<(), String> {
    let (full, _) = load(address, None, Duration::from_secs(3).min(time))?;
    for percent in [10.0, 50.0, 100.0] {
        let rate = (percent < 100.0).then_some(full * percent / 100.0);
        let (reached, micros) = load(address, rate, time)?;
        let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize];
        println!(
            "{percent:3.0} %: {reached:.0}/s p50 {} us p99 {} us p99.9 {} us max {} us",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
        let longest = longest_turn(control);
        if longest > LONGEST_TURN {
            return Err(format!("a turn took {longest:?}"));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(10, |text| text.parse().unwrap());
    let shards = arguments.next().map_or(2, |text| text.parse().unwrap());
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("ceto-soak-{}", std::process::id()));
    let (listening, addresses) = channel();
    let options = RuntimeOptions {
        shards,
        ..RuntimeOptions::default()
    };
    let place = folder.clone();
    let runtime: Runtime<Message> = start(&options, move |context| {
        Box::pin(serve(context, place.clone(), listening.clone()))
    })
    .unwrap();
    let address = addresses.recv().unwrap();
    let outcome = soak(Duration::from_secs(seconds), address, &runtime.control());
    for shard in 0..shards {
        let _ = runtime.control().send(shard, Message::End);
    }
    let ended = runtime.join();
    let _ = std::fs::remove_dir_all(&folder);
    match (outcome, ended) {
        (Ok(()), Ok(())) => {
            println!("soak passed");
            ExitCode::SUCCESS
        }
        (Err(failure), _) => {
            eprintln!("soak failed: {failure}");
            ExitCode::FAILURE
        }
        (_, Err(error)) => {
            eprintln!("soak failed: {error}");
            ExitCode::FAILURE
        }
    }
}
