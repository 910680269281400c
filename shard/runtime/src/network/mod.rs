//! Sockets of one shard, on the shard's ring.
//!
//! One multishot accept per listening socket (on shard 0), one multishot receive per connection with buffers that the
//! kernel picks when bytes arrive, one send per connection and turn. So an idle connection holds no buffer, and a turn
//! that serves many requests of a connection answers them with one send.
//!
//! Never: two sends of one connection with the kernel at once, a buffer freed while the kernel may use it, a protocol
//! called within a call of itself, bytes received while a protocol is paused handed to it.

mod buffers;
mod connection;
mod listener;
mod outgoing;

use std::cell::{Cell, RefCell};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::FromRawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ceto_env::{Acceptor, Connector, LocalFuture, Network, Placement, Protocol, Route, Socket, TaskQueue};
use io_uring::{opcode, types};
use slab::Slab;

use crate::error::Error;
use crate::executor::Executor;
use crate::metrics::RuntimeMetrics;
use crate::ring::{Completion, Kind, user_data};
use buffers::ReceiveBuffers;
use connection::{Connection, Phase};
pub(crate) use listener::Listeners;
pub(crate) use outgoing::OutgoingSocket;

/// Receive buffers of a shard, and the size of each.
const RECEIVE_BUFFERS: u16 = 256;
const RECEIVE_BUFFER_SIZE: usize = 16 << 10;
/// Output buffers kept for reuse, and the largest kept.
const POOLED_BUFFERS: usize = 128;
const POOLED_BUFFER_SIZE: usize = 32 << 10;
/// Size of a fresh output buffer.
const OUTPUT_BUFFER_SIZE: usize = 4 << 10;
/// Sends up to this size do not end a sleep when they are done (see `Ring::wait`).
const UNHURRIED_SEND: usize = 16 << 10;
/// Most bytes of one send that waits for the peer, so that a peer that reads slowly is seen to read.
const WAITING_SEND_MAX: usize = 256 << 10;
/// Most sockets on their way from the accepting shard to another, or waiting there for the shard to listen; more are
/// closed.
pub(crate) const MAX_SOCKETS_UNDERWAY: usize = 4096;
/// Pause of accepting when the process has no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Ports between the source ports of two connections: prime, so that a class is used up before a port comes again.
const PORT_STEP: u32 = 7919;
/// How long the end of a peer's side is waited for after ours was shut.
const LINGER: Duration = Duration::from_secs(1);

/// A socket on its way from the accepting shard to its own.
pub(crate) struct AcceptedSocket {
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
}

/// The sockets of one shard.
pub(crate) struct NetworkRing {
    this: Weak<NetworkRing>,
    executor: Weak<Executor>,
    ring: Rc<crate::ring::Ring>,
    shard: u16,
    metrics: Arc<RuntimeMetrics>,
    listeners: Arc<Listeners>,
    /// This shard's acceptors, in the order of the listeners.
    acceptors: RefCell<Vec<Acceptor>>,
    /// Sockets whose listener this shard has not called for yet.
    early: RefCell<Vec<AcceptedSocket>>,
    /// Multishot accepts with the kernel.
    accepting: Cell<usize>,
    stopped: Cell<bool>,
    /// Failing accepts were logged, and none succeeded since.
    accept_warned: Cell<bool>,
    /// Shard that gets the next connection when several have equally few.
    next_shard: Cell<usize>,
    connections: RefCell<Slab<Rc<Connection>>>,
    next_generation: Cell<u32>,
    /// Where the search of a source port begins.
    next_port: Cell<u32>,
    /// No connection begins any more.
    closed: Cell<bool>,
    dirty: RefCell<Vec<u64>>,
    /// Some send of this turn should be looked at as soon as it is done.
    hurried: Cell<bool>,
    pool: RefCell<Vec<BytesMut>>,
    output_bound: usize,
    max_connections: usize,
    buffers: std::mem::ManuallyDrop<ReceiveBuffers>,
    leaked: Cell<bool>,
}

impl NetworkRing {
    pub(crate) fn new(
        executor: &Rc<Executor>,
        listeners: Arc<Listeners>,
        output_bound: usize,
        max_connections: usize,
    ) -> Result<Rc<Self>, Error> {
        let buffers = ReceiveBuffers::new(RECEIVE_BUFFERS, RECEIVE_BUFFER_SIZE);
        buffers
            .register(&executor.ring)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Error::RingRefused(source),
                _ => Error::RingTooOld {
                    what: "provide receive buffers",
                    source,
                },
            })?;
        Ok(Rc::new_cyclic(|this| Self {
            this: this.clone(),
            executor: Rc::downgrade(executor),
            ring: Rc::clone(&executor.ring),
            shard: executor.handle.shard,
            metrics: Arc::clone(&executor.handle.metrics),
            listeners,
            acceptors: RefCell::default(),
            early: RefCell::default(),
            accepting: Cell::new(0),
            stopped: Cell::new(false),
            accept_warned: Cell::new(false),
            next_shard: Cell::new(0),
            connections: RefCell::default(),
            next_generation: Cell::new(0),
            next_port: Cell::new(std::process::id().wrapping_mul(PORT_STEP)),
            closed: Cell::new(false),
            dirty: RefCell::default(),
            hurried: Cell::new(false),
            pool: RefCell::default(),
            output_bound,
            max_connections,
            buffers: std::mem::ManuallyDrop::new(buffers),
            leaked: Cell::new(false),
        }))
    }

    pub(super) fn metrics(&self) -> &RuntimeMetrics {
        &self.metrics
    }

    fn output_bound(&self) -> usize {
        self.output_bound
    }

    fn mark(&self, key: u64) {
        self.dirty.borrow_mut().push(key);
    }

    fn take_buffer(&self) -> BytesMut {
        self.pool
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| BytesMut::with_capacity(OUTPUT_BUFFER_SIZE))
    }

    fn give_buffer(&self, mut buffer: BytesMut) {
        let mut pool = self.pool.borrow_mut();
        if buffer.capacity() > 0 && buffer.capacity() <= POOLED_BUFFER_SIZE && pool.len() < POOLED_BUFFERS {
            buffer.clear();
            pool.push(buffer);
        }
    }

    /// Connections have steps to take at the end of the turn.
    pub(crate) fn has_output(&self) -> bool {
        !self.dirty.borrow().is_empty()
    }

    /// No send of this turn needs to be looked at soon.
    pub(crate) fn take_unhurried(&self) -> bool {
        !self.hurried.get()
    }

    /// Takes the next steps of every connection that has some.
    pub(crate) fn flush(&self) {
        self.buffers.publish();
        self.hurried.set(false);
        // Steps may mark connections again; they are taken in the same flush, and a connection is quiet after a few.
        loop {
            let mut marked = std::mem::take(&mut *self.dirty.borrow_mut());
            if marked.is_empty() {
                return;
            }
            for key in marked.drain(..) {
                if let Some(connection) = self.connection(key) {
                    connection.dirty.set(false);
                    self.step(&connection);
                }
            }
            let mut dirty = self.dirty.borrow_mut();
            if dirty.is_empty() {
                *dirty = marked;
                return;
            }
        }
    }

    fn connection(&self, key: u64) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        let connection = connections.get(key as u32 as usize)?;
        (connection.key == key).then(|| Rc::clone(connection))
    }

    /// Takes every step that a connection's flags ask for.
    fn step(&self, connection: &Rc<Connection>) {
        if connection.phase.get() < Phase::Dead {
            if connection.takes_bytes() && !connection.held.borrow().is_empty() {
                let held = std::mem::take(&mut *connection.held.borrow_mut());
                connection.with_protocol(|protocol| protocol.received(&held));
            }
            // All that was received has been delivered, and no more will come: answer what was asked, then end.
            if connection.peer_ended.get() && connection.held.borrow().is_empty() {
                connection.close();
            }
            if !connection.sending_now.get() && !connection.output.borrow().is_empty() {
                self.start_send(connection);
            }
            if connection.phase.get() == Phase::Closing && !connection.sending_now.get() {
                self.linger(connection);
            }
            if connection.phase.get() == Phase::Lingering && connection.peer_ended.get() {
                connection.kill();
            }
        }
        if connection.wants_receive() {
            if !connection.receiving.get() {
                self.start_receive(connection);
            }
        } else if connection.receiving.get()
            && !connection.held.borrow().is_empty()
            && !connection.cancelling.replace(true)
        {
            self.ring.push_cancel(user_data(Kind::Receive, connection.key));
        }
        if connection.phase.get() == Phase::Dead
            && !connection.receiving.get()
            && !connection.sending_now.get()
        {
            self.remove(connection);
        }
    }

    fn start_receive(&self, connection: &Connection) {
        let Some(descriptor) = connection.descriptor() else {
            return;
        };
        connection.receiving.set(true);
        let entry = opcode::RecvMulti::new(types::Fd(descriptor), 0)
            .build()
            .user_data(user_data(Kind::Receive, connection.key));
        // SAFETY: the buffers the kernel picks are ours until the ring's end (or leaked).
        unsafe { self.ring.push(entry) };
    }

    /// Sends the first buffer of the output, first without waiting.
    fn start_send(&self, connection: &Connection) {
        let Some(output) = connection.output.borrow_mut().pop_front() else {
            return;
        };
        let length = output.len();
        connection.queued.set(connection.queued.get() - length);
        let spent = std::mem::replace(&mut *connection.sending.borrow_mut(), output);
        self.give_buffer(spent);
        connection.sent.set(0);
        if length > UNHURRIED_SEND || connection.phase.get() != Phase::Open {
            self.hurried.set(true);
        }
        self.push_send(connection, libc::MSG_DONTWAIT);
        self.ring.count_instant();
    }

    /// Sends what is left of `sending`. With `MSG_DONTWAIT` the send completes as it is submitted; else when all is taken.
    fn push_send(&self, connection: &Connection, flags: i32) {
        let Some(descriptor) = connection.descriptor() else {
            return;
        };
        connection.sending_now.set(true);
        let sending = connection.sending.borrow();
        let rest = &sending[connection.sent.get()..];
        let most = match flags & libc::MSG_WAITALL {
            0 => u32::MAX as usize,
            _ => WAITING_SEND_MAX,
        };
        let length = rest.len().min(most) as u32;
        let entry = opcode::Send::new(types::Fd(descriptor), rest.as_ptr(), length)
            .flags(flags | libc::MSG_NOSIGNAL)
            .build()
            .user_data(user_data(Kind::Send, connection.key));
        self.metrics.sends.add(1);
        // SAFETY: `sending` is not touched until the completion, and the connection stays in the table until then.
        unsafe { self.ring.push(entry) };
    }

    /// Shuts our side, and gives the peer a while to end its own.
    fn linger(&self, connection: &Rc<Connection>) {
        connection.phase.set(Phase::Lingering);
        connection.held.borrow_mut().clear();
        if connection.peer_ended.get() {
            return;
        }
        if let Some(stream) = connection.stream.borrow().as_ref() {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let Some(executor) = self.executor.upgrade() else {
            return;
        };
        let network = self.this.clone();
        let key = connection.key;
        let time = executor.sleep(LINGER);
        executor.spawn(
            TaskQueue::Control,
            Box::pin(async move {
                time.await;
                if let Some(connection) = network.upgrade().and_then(|network| network.connection(key)) {
                    connection.kill();
                }
            }),
        );
    }

    /// The kernel is through with a dead connection: tell its protocol, close its socket, forget it.
    fn remove(&self, connection: &Rc<Connection>) {
        connection.phase.set(Phase::Gone);
        let protocol = connection.protocol.borrow_mut().take();
        if let Some(mut protocol) = protocol {
            protocol.closed();
        }
        drop(connection.stream.borrow_mut().take());
        self.connections
            .borrow_mut()
            .try_remove(connection.key as u32 as usize);
        connection.sent.set(0);
        connection.queued.set(0);
        connection.output.take();
        let sending = std::mem::take(&mut *connection.sending.borrow_mut());
        self.give_buffer(sending);
        self.metrics.connections_closed.add(1);
        self.metrics.connections_open.subtract_shared(1);
    }

    /// Takes a completion of one of the socket operations.
    pub(crate) fn complete(&self, completion: Completion) {
        match completion.kind() {
            Kind::Accept => self.accepted(completion),
            Kind::Receive => self.received(completion),
            Kind::Send => self.sent(completion),
            _ => {}
        }
    }

    fn received(&self, completion: Completion) {
        if let Some(connection) = self.connection(completion.payload()) {
            self.received_by(&connection, completion);
        }
        if let Some(buffer) = completion.buffer() {
            self.buffers.give_back(buffer);
        }
    }

    fn received_by(&self, connection: &Connection, completion: Completion) {
        if !completion.more() {
            connection.receiving.set(false);
            connection.cancelling.set(false);
            connection.mark();
        }
        match completion.result {
            length @ 1.. => {
                let Some(buffer) = completion.buffer() else { return };
                let bytes = self.buffers.received(buffer, length as usize);
                self.metrics.receives.add(1);
                self.metrics.bytes_received.add(bytes.len() as u64);
                if connection.takes_bytes() && connection.held.borrow().is_empty() {
                    connection.with_protocol(|protocol| protocol.received(bytes));
                } else if connection.phase.get() == Phase::Open {
                    connection.held.borrow_mut().extend_from_slice(bytes);
                    connection.mark();
                }
            }
            0 => {
                connection.peer_ended.set(true);
                connection.mark();
            }
            error => match -error {
                libc::ENOBUFS => self.metrics.receive_buffer_shortages.add(1),
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                _ => connection.kill(),
            },
        }
    }

    fn sent(&self, completion: Completion) {
        let Some(connection) = self.connection(completion.payload()) else {
            return;
        };
        connection.sending_now.set(false);
        connection.mark();
        match completion.result {
            length @ 0.. => {
                self.metrics.bytes_sent.add(length as u64);
                connection.sent.set(connection.sent.get() + length as usize);
            }
            error if matches!(-error, libc::EAGAIN | libc::EINTR) => {}
            _ => {
                connection.kill();
                return;
            }
        }
        if connection.sent.get() < connection.sending.borrow().len() {
            if connection.phase.get() < Phase::Dead {
                self.push_send(&connection, libc::MSG_WAITALL);
                connection.tell_sent();
            }
            return;
        }
        connection.sent.set(0);
        let spent = std::mem::take(&mut *connection.sending.borrow_mut());
        self.give_buffer(spent);
        connection.release();
        connection.tell_sent();
    }

    fn accepted(&self, completion: Completion) {
        let place = completion.payload() as usize;
        if !completion.more() {
            self.accepting.set(self.accepting.get() - 1);
        }
        if completion.result >= 0 {
            // SAFETY: the kernel just made this descriptor for us and nothing else owns it.
            let stream = unsafe { TcpStream::from_raw_fd(completion.result) };
            self.accept_warned.set(false);
            self.place(stream, place);
        } else if -completion.result != libc::ECANCELED {
            self.metrics.accept_errors.add(1);
        }
        if completion.more() || self.stopped.get() {
            return;
        }
        match -completion.result {
            ..=0 | libc::ECONNABORTED | libc::EPROTO | libc::EINTR | libc::EAGAIN => self.accept(place),
            libc::ECANCELED => {}
            error => self.accept_later(place, error),
        }
    }

    fn accept(&self, place: usize) {
        let Some((descriptor, _)) = self.listeners.get(place) else {
            return;
        };
        if self.stopped.get() {
            return;
        }
        self.accepting.set(self.accepting.get() + 1);
        let entry = opcode::AcceptMulti::new(types::Fd(descriptor))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(user_data(Kind::Accept, place as u64));
        // SAFETY: the entry points to nothing.
        unsafe { self.ring.push(entry) };
    }

    /// Without descriptors (or memory) accepting would fail in a loop: wait until some may be free.
    fn accept_later(&self, place: usize, error: i32) {
        if !self.accept_warned.replace(true) {
            let error = std::io::Error::from_raw_os_error(error);
            tracing::warn!(
                shard = self.shard,
                "cannot accept connections: {error} (for too many open files raise `ulimit -n` or LimitNOFILE)"
            );
        }
        let Some(executor) = self.executor.upgrade() else {
            return;
        };
        let network = self.this.clone();
        let time = executor.sleep(ACCEPT_RETRY);
        executor.spawn(
            TaskQueue::Control,
            Box::pin(async move {
                time.await;
                if let Some(network) = network.upgrade() {
                    network.accept(place);
                }
            }),
        );
    }

    /// Sends an accepted socket to the shard that will serve it.
    fn place(&self, stream: TcpStream, listener: usize) {
        // No address: the peer is gone already.
        let Ok(peer) = stream.peer_addr() else { return };
        let Some(executor) = self.executor.upgrade() else {
            return;
        };
        let Some((_, placement)) = self.listeners.get(listener) else {
            return;
        };
        let handles = &executor.handles;
        let open: u64 = handles
            .iter()
            .map(|handle| handle.metrics.connections_open.get())
            .sum();
        if open >= self.max_connections as u64 {
            self.metrics.connections_refused.add(1);
            return;
        }
        let shard = match placement {
            Placement::SourcePort => usize::from(peer.port()) % handles.len(),
            Placement::LeastConnected => {
                let first = self.next_shard.get();
                (0..handles.len())
                    .map(|step| (first + step) % handles.len())
                    .min_by_key(|shard| handles[*shard].metrics.connections_open.get())
                    .unwrap_or(0)
            }
        };
        self.next_shard.set((shard + 1) % handles.len());
        let target = &handles[shard];
        target.metrics.connections_open.add_shared(1);
        let socket = AcceptedSocket {
            stream,
            peer,
            listener,
        };
        if shard == usize::from(self.shard) {
            self.adopt(socket);
        } else if target.sockets.push(socket).is_ok() {
            target.wake();
        } else {
            target.metrics.connections_open.subtract_shared(1);
            self.metrics.accept_errors.add(1);
        }
    }

    /// Begins to serve a socket that was placed here.
    pub(crate) fn adopt(&self, socket: AcceptedSocket) {
        let acceptor = self.acceptors.borrow().get(socket.listener).cloned();
        let Some(acceptor) = acceptor else {
            let mut early = self.early.borrow_mut();
            if early.len() < MAX_SOCKETS_UNDERWAY {
                early.push(socket);
            } else {
                self.metrics.connections_open.subtract_shared(1);
            }
            return;
        };
        let local = if self.stopped.get() {
            None
        } else {
            socket.stream.local_addr().ok()
        };
        let Some(local) = local else {
            self.metrics.connections_open.subtract_shared(1);
            return;
        };
        self.metrics.connections_accepted.add(1);
        self.serve(socket.stream, (socket.peer, local), |socket| acceptor(socket));
    }

    /// Begins to serve an open socket whose ends are known, and that is counted already.
    fn serve(
        &self,
        stream: TcpStream,
        (peer, local): (SocketAddr, SocketAddr),
        make: impl FnOnce(Rc<dyn Socket>) -> Box<dyn Protocol>,
    ) {
        let generation = self.next_generation.get();
        self.next_generation.set((generation + 1) & 0xff_ffff);
        let connection = {
            let mut connections = self.connections.borrow_mut();
            let entry = connections.vacant_entry();
            let key = u64::from(generation) << 32 | entry.key() as u64;
            let connection = Rc::new(Connection::new(self.this.clone(), key, stream, peer, local));
            entry.insert(Rc::clone(&connection));
            connection
        };
        let protocol = make(Rc::clone(&connection) as Rc<dyn Socket>);
        *connection.protocol.borrow_mut() = Some(protocol);
        connection.mark();
    }

    /// Ends everything; [`Self::is_quiet`] tells when the kernel is through.
    pub(crate) fn close_all(&self) {
        self.closed.set(true);
        self.stop_accepting();
        for socket in self.early.take() {
            drop(socket);
            self.metrics.connections_open.subtract_shared(1);
        }
        let connections: Vec<_> = self
            .connections
            .borrow()
            .iter()
            .map(|(_, connection)| Rc::clone(connection))
            .collect();
        for connection in connections {
            connection.kill();
        }
        let acceptors = self.acceptors.take();
        drop(acceptors);
    }

    /// The kernel has nothing of ours any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.accepting.get() == 0 && self.connections.borrow().is_empty()
    }

    /// Gives up waiting for the kernel: what it may still write to is never freed.
    pub(crate) fn leak(&self) {
        self.leaked.set(true);
        std::mem::forget(std::mem::take(&mut *self.connections.borrow_mut()));
    }
}

impl Drop for NetworkRing {
    fn drop(&mut self) {
        if !self.leaked.get() && self.is_quiet() {
            // SAFETY: dropped once, here; no receive is under way, so that the kernel writes to no buffer any more.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

impl Network for NetworkRing {
    fn listen(
        &self,
        address: SocketAddr,
        placement: Placement,
        acceptor: Acceptor,
    ) -> std::io::Result<SocketAddr> {
        let place = self.acceptors.borrow().len();
        self.stopped.set(false);
        // A failed listener keeps its place, so that all shards count alike.
        self.acceptors.borrow_mut().push(acceptor);
        let bound = self.listeners.listen(place, address, placement)?;
        if self.shard == 0 {
            self.accept(place);
        }
        let (now, later) = self
            .early
            .take()
            .into_iter()
            .partition(|socket| socket.listener == place);
        *self.early.borrow_mut() = later;
        let now: Vec<AcceptedSocket> = now;
        for socket in now {
            self.adopt(socket);
        }
        Ok(bound)
    }

    fn connect(&self, route: Route, connector: Connector) -> LocalFuture<'static, std::io::Result<()>> {
        let this = self.this.clone();
        Box::pin(async move {
            let stream = Self::open(this.clone(), route).await?;
            let local = stream.local_addr()?;
            let network = this.upgrade().filter(|network| !network.closed.get());
            let network = network.ok_or(std::io::ErrorKind::NotConnected)?;
            network.metrics.connections_open.add_shared(1);
            network.serve(stream, (route.remote, local), connector);
            Ok(())
        })
    }

    fn stop_accepting(&self) {
        if self.stopped.replace(true) || self.shard != 0 {
            return;
        }
        for place in 0..self.acceptors.borrow().len() {
            self.ring.push_cancel(user_data(Kind::Accept, place as u64));
        }
        self.listeners.close();
    }

    fn connections(&self) -> usize {
        self.connections.borrow().len()
    }
}
