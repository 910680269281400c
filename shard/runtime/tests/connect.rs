//! Connections that a shard makes: to the shard it wants, refused, too late, and with both ends full.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ceto_env::{LocalFuture, Placement, Protocol, Route, Socket};
use ceto_runtime::{Runtime, ShardContext, start};
use support::{Event, options, run};

fn route(remote: SocketAddr) -> Route {
    Route {
        remote,
        local: None,
        shard: None,
        timeout: Duration::from_secs(10),
    }
}

/// Keeps what it received; sends back what it gets when it is an echo.
struct Reader {
    socket: Rc<dyn Socket>,
    is_echo: bool,
    received: Rc<RefCell<Vec<u8>>>,
    wanted: usize,
    done: Event,
}

impl Protocol for Reader {
    fn received(&mut self, bytes: &[u8]) {
        if self.is_echo {
            self.socket.write(bytes);
            return;
        }
        self.received.borrow_mut().extend_from_slice(bytes);
        if self.received.borrow().len() >= self.wanted {
            self.done.set();
        }
    }

    fn closed(&mut self) {
        self.done.set();
    }
}

fn reader(socket: Rc<dyn Socket>, is_echo: bool) -> Reader {
    Reader {
        socket,
        is_echo,
        received: Rc::default(),
        wanted: 0,
        done: Event::default(),
    }
}

/// Echo servers on so many shards; counts connections by shard.
fn echo(shards: u16, opened: Arc<[AtomicUsize; 8]>) -> (SocketAddr, Runtime<u64>) {
    let (send, addresses) = channel();
    let runtime = start(&options(shards), move |context: ShardContext<u64>| {
        let (send, opened) = (send.clone(), opened.clone());
        Box::pin(async move {
            let shard = usize::from(context.shard);
            let acceptor = Rc::new(move |socket: Rc<dyn Socket>| {
                opened[shard].fetch_add(1, Ordering::SeqCst);
                socket.receive_whatever_is_unsent();
                Box::new(reader(socket, true)) as Box<dyn Protocol>
            });
            let address = "127.0.0.1:0".parse().unwrap();
            let bound = context
                .network
                .listen(address, Placement::SourcePort, acceptor)
                .unwrap();
            // The first shard's address is enough for the test.
            let _ = send.send(bound);
            let done = Rc::new(Cell::new(false));
            let finished = done.clone();
            context.receive(Rc::new(move |_, _| finished.set(true)));
            while !done.get() {
                context.env.tasks().sleep(Duration::from_millis(2)).await;
            }
        }) as LocalFuture<'static, ()>
    })
    .unwrap();
    (addresses.recv_timeout(Duration::from_secs(10)).unwrap(), runtime)
}

fn end(runtime: Runtime<u64>) {
    let control = runtime.control();
    for shard in 0..control.shard_count() {
        control.send(shard, 0).unwrap();
    }
    runtime.join().unwrap();
}

#[test]
fn a_connection_reaches_the_shard_that_was_asked_for_and_carries_bytes_both_ways() {
    let opened: Arc<[AtomicUsize; 8]> = Arc::default();
    let (address, server) = echo(3, opened.clone());
    let echoed = run(move |context: ShardContext<u64>| async move {
        let mut echoed = Vec::new();
        for wanted in [2, 0, 1, 2] {
            let received: Rc<RefCell<Vec<u8>>> = Rc::default();
            let (done, sink) = (Event::default(), received.clone());
            let signal = done.clone();
            let made = context.network.connect(
                Route {
                    local: Some([127, 0, 0, 1].into()),
                    shard: Some((wanted, 3)),
                    ..route(address)
                },
                Box::new(move |socket| {
                    socket.write(&[wanted as u8; 5]);
                    Box::new(Reader {
                        received: sink,
                        wanted: 5,
                        done: signal,
                        ..reader(socket, false)
                    })
                }),
            );
            made.await.unwrap();
            done.wait().await;
            echoed.push(received.borrow().clone());
        }
        assert_eq!(context.network.connections(), 4);
        echoed
    });
    assert_eq!(echoed, [vec![2; 5], vec![0; 5], vec![1; 5], vec![2; 5]]);
    let counts: Vec<usize> = opened.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    assert_eq!(counts, [1, 1, 2, 0, 0, 0, 0, 0]);
    end(server);
}

#[test]
fn a_refused_connection_says_so() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kind = run(move |context: ShardContext<u64>| async move {
        let never = Box::new(|_: Rc<dyn Socket>| -> Box<dyn Protocol> { panic!("nobody is there") });
        context
            .network
            .connect(route(port), never)
            .await
            .unwrap_err()
            .kind()
    });
    assert_eq!(kind, std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn who_does_not_answer_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: a plain call on an open descriptor; a queue without room makes the kernel ignore further peers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let started = Instant::now();
    let kind = run(move |context: ShardContext<u64>| async move {
        let never = Box::new(|_: Rc<dyn Socket>| -> Box<dyn Protocol> { panic!("nobody answers") });
        let route = Route {
            timeout: Duration::from_millis(200),
            ..route(address)
        };
        context.network.connect(route, never).await.unwrap_err().kind()
    });
    assert_eq!(kind, std::io::ErrorKind::TimedOut);
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "given up, not waited out"
    );
}

/// Both ends write more than a mebibyte before they read: who stopped receiving for unsent output would wait for ever.
#[test]
fn full_ends_do_not_wait_for_each_other() {
    const BYTES: usize = 12 << 20;
    let (address, server) = echo(1, Arc::default());
    let total = Arc::new(Mutex::new(0));
    let sum = total.clone();
    run(move |context: ShardContext<u64>| {
        let sum = sum.clone();
        async move {
            let (done, received) = (Event::default(), Rc::new(RefCell::new(Vec::new())));
            let (signal, sink) = (done.clone(), received.clone());
            let made = context.network.connect(
                route(address),
                Box::new(move |socket| {
                    socket.receive_whatever_is_unsent();
                    socket.write_buffer(bytes::BytesMut::from(&vec![7u8; BYTES][..]));
                    Box::new(Reader {
                        received: sink,
                        wanted: BYTES,
                        done: signal,
                        ..reader(socket, false)
                    })
                }),
            );
            made.await.unwrap();
            done.wait().await;
            *sum.lock().unwrap() = received.borrow().len();
        }
    });
    assert_eq!(*total.lock().unwrap(), BYTES);
    end(server);
}
