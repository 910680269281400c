//! One client connection: bytes in, requests to [`start`](crate::execute), answers out.
//!
//! `serve` is where every request enters the node. It decodes what has arrived, starts each request and returns; a
//! request that needs no wait is answered before the next is looked at, the others run as tasks and answer when they
//! are done, in any order.
//!
//! Bounds: requests in flight per connection and per shard, answers under way and unread per connection, length of a
//! frame (all in [`Limits`](crate::options::Limits)), time of a turn. A connection above its own bound is not read (the
//! client feels TCP's back-pressure); a shard above its bound answers Overloaded. What bounds the memory of all answers
//! of a shard: [`response_memory`](crate::response_memory).
//!
//! Never: blocks, or holds a borrow across an await.
//!
//! Its parts: `handshake` for STARTUP, `output` for what is sent.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ceto_cql::access::Performer;
use ceto_env::{LocalFuture, Protocol, Socket, TaskQueue};
use ceto_native::{
    Dialect, Direction, Envelope, ErrorMessage, ErrorReason, EventType, FrameDecoder, FrameEncoder,
    LengthLimit, ProtocolVersion, Request, RequestMessage, Response, Violation,
};

use crate::execute::{Answer, Started, start};
use crate::node::Node;
use crate::request_memory::{RequestBytes, SMALL_REQUEST};
use crate::response_memory::{SMALL, Unsent};
use crate::stalls::Progress;
use crate::system::virtual_rows::ClientRow;

mod handshake;
mod output;

/// Length of a frame before STARTUP has been answered, bytes: a stranger gets no more.
const STARTUP_FRAME_SIZE_MAX: u32 = 100_000;

/// Small requests that are started between two looks at the clock.
const REQUESTS_PER_LOOK: u32 = 16;
/// Bytes of a request and its answer together up to which both are taken to be quick.
const SMALL_EXCHANGE: usize = 4 << 10;

/// The reading side of a connection, owned by the network.
pub struct Connection {
    state: Rc<ConnectionState>,
}

/// What the reading side, running requests and events share.
pub struct ConnectionState {
    node: Rc<Node>,
    socket: Rc<dyn Socket>,
    key: Cell<usize>,
    decoder: RefCell<FrameDecoder>,
    encoder: RefCell<FrameEncoder>,
    stage: Cell<Stage>,
    /// The role that has logged in.
    role: RefCell<Option<Arc<str>>>,
    /// What it may do, as it was when that was asked last.
    performer: RefCell<Option<Rc<Performer>>>,
    keyspace: RefCell<Option<Arc<str>>>,
    startup: RefCell<BTreeMap<String, String>>,
    events: Cell<u8>,
    in_flight: Cell<usize>,
    /// Bytes that running requests have of the memory of answers.
    held: Cell<usize>,
    unsent: Unsent,
    requests: Cell<u64>,
    /// Bytes taken for the request that arrives.
    receiving: Cell<usize>,
    received: Cell<u64>,
    arrival: Progress,
    /// There was no memory for the request that arrives; it is paused until then.
    waits_for_memory: Cell<bool>,
    throws_on_overload: Cell<bool>,
    is_paused: Cell<bool>,
    /// A task will go on serving; it is paused until then.
    has_turn_ahead: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connected,
    /// After AUTHENTICATE.
    Authenticating,
    /// The password is being compared.
    LoggingIn,
    Ready,
    Closed,
}

impl Protocol for Connection {
    fn received(&mut self, bytes: &[u8]) {
        self.state.node.metrics.bytes_received.add(bytes.len() as u64);
        self.state
            .received
            .set(self.state.received.get() + bytes.len() as u64);
        self.state.decoder.borrow_mut().feed(bytes);
        self.state.serve();
    }

    fn drained(&mut self) {
        self.state.settle();
        self.state.resume();
    }

    fn sent(&mut self) {
        self.state.settle();
        self.state.resume();
    }

    fn closed(&mut self) {
        self.state.stage.set(Stage::Closed);
        let memory = &self.state.node.response_memory;
        self.state.unsent.settle(0, memory);
        memory.cancel(self.state.key.get());
        let memory = &self.state.node.request_memory;
        memory.forget(&self.state);
        memory.give_back(self.state.peer().ip(), self.state.receiving.take());
        self.state
            .node
            .connections
            .borrow_mut()
            .try_remove(self.state.key.get());
        self.state.node.metrics.connections_closed.increment();
    }
}

impl Connection {
    /// Takes over an accepted socket.
    pub fn accept(node: Rc<Node>, socket: Rc<dyn Socket>) -> Box<dyn Protocol> {
        node.metrics.connections_opened.increment();
        let state = Rc::new(ConnectionState {
            decoder: RefCell::new(FrameDecoder::new(
                Direction::Request,
                LengthLimit::BeforeStartup(STARTUP_FRAME_SIZE_MAX),
            )),
            encoder: RefCell::new(FrameEncoder::new(ProtocolVersion::GREATEST)),
            socket,
            key: Cell::new(usize::MAX),
            stage: Cell::new(Stage::Connected),
            role: RefCell::default(),
            performer: RefCell::default(),
            keyspace: RefCell::default(),
            startup: RefCell::default(),
            events: Cell::new(0),
            in_flight: Cell::new(0),
            held: Cell::new(0),
            unsent: Unsent::default(),
            requests: Cell::new(0),
            receiving: Cell::new(0),
            received: Cell::new(0),
            arrival: Progress::default(),
            waits_for_memory: Cell::new(false),
            throws_on_overload: Cell::new(false),
            is_paused: Cell::new(false),
            has_turn_ahead: Cell::new(false),
            node,
        });
        let share = state
            .node
            .settings()
            .limits
            .max_connections
            .div_ceil(usize::from(state.node.shard_count()));
        let is_full = state.node.connections.borrow().len() >= share;
        if is_full {
            state.node.metrics.connections_refused.increment();
            let error = ErrorMessage {
                message: "Too many connections; raise native_transport_max_concurrent_connections".to_owned(),
                reason: ErrorReason::Overloaded,
            };
            state.respond(0, &error.into());
            state.stage.set(Stage::Closed);
            state.socket.close();
        } else {
            state
                .key
                .set(state.node.connections.borrow_mut().insert(Rc::downgrade(&state)));
        }
        Box::new(Connection { state })
    }
}

impl ConnectionState {
    /// Decodes and starts every request that has arrived, up to the connection's bounds and the end of its turn.
    pub fn serve(self: &Rc<Self>) {
        let mut until_look = REQUESTS_PER_LOOK;
        while self.stage.get() != Stage::Closed {
            if self.is_above_bounds() {
                return self.pause();
            }
            let envelope = self.decoder.borrow_mut().next_envelope();
            match envelope {
                Ok(Some(envelope)) => {
                    let unsent = self.unsent.bytes();
                    self.begin(&envelope);
                    // Small ones are quick; after a larger one the clock is looked at.
                    let is_small =
                        envelope.body.len() + self.unsent.bytes().saturating_sub(unsent) < SMALL_EXCHANGE;
                    until_look = if is_small { until_look - 1 } else { 0 };
                    if until_look == 0 {
                        until_look = REQUESTS_PER_LOOK;
                        if let Some(turn) = self.node.env.tasks().yield_if_due() {
                            return self.serve_later(turn);
                        }
                    }
                }
                Ok(None) if self.skips_what_arrives() => {}
                Ok(None) => return,
                Err(violation) => self.refuse(violation.stream().unwrap_or(0), &violation),
            }
        }
    }

    /// The turn is over: what has arrived is served in the next one.
    fn serve_later(self: &Rc<Self>, turn: LocalFuture<'static, ()>) {
        self.has_turn_ahead.set(true);
        self.socket.pause();
        let connection = self.clone();
        let rest = async move {
            turn.await;
            connection.has_turn_ahead.set(false);
            connection.serve();
            if !connection.is_held_back() {
                connection.socket.resume();
            }
        };
        self.node.env.tasks().spawn(TaskQueue::Statement, Box::pin(rest));
    }

    fn is_held_back(&self) -> bool {
        self.is_paused.get() || self.has_turn_ahead.get() || self.waits_for_memory.get()
    }

    /// Takes memory for the request that is under way, or pauses until there is some. True when the request was
    /// answered Overloaded and is skipped instead.
    fn skips_what_arrives(self: &Rc<Self>) -> bool {
        let Some(under_way) = self.decoder.borrow().under_way() else {
            return false;
        };
        let taken = self.receiving.get();
        if under_way.length <= SMALL_REQUEST.max(taken) || self.waits_for_memory.get() {
            return false;
        }
        let (memory, address) = (&self.node.request_memory, self.peer().ip());
        self.receiving.set(0);
        memory.give_back(address, taken);
        if memory.try_take(address, under_way.length) {
            self.receiving.set(under_way.length);
            return false;
        }
        if let Some(stream) = under_way.stream
            && self.throws_on_overload.get()
        {
            memory.shed.increment();
            let message = "The request is larger than what is left of the memory of requests \
                           (native_transport_max_request_data_in_flight, \
                           native_transport_max_request_data_in_flight_per_ip)"
                .to_owned();
            let reason = ErrorReason::Overloaded;
            self.respond(stream, &ErrorMessage { message, reason }.into());
            self.decoder.borrow_mut().skip_under_way();
            return true;
        }
        self.waits_for_memory.set(true);
        self.socket.pause();
        memory.wait(self, address, under_way.length);
        crate::stalls::watch(&self.node);
        false
    }

    /// `bytes` were taken for the request that this connection waits to receive.
    pub(crate) fn may_receive(&self, bytes: usize) {
        self.receiving.set(bytes);
        self.waits_for_memory.set(false);
        if !self.is_held_back() {
            self.socket.resume();
        }
    }

    /// What the request that has arrived has of the memory of requests.
    fn request_bytes(&self, length: usize) -> Option<RequestBytes> {
        let taken = self.receiving.replace(0);
        if taken == 0 && length <= SMALL_EXCHANGE {
            return None;
        }
        let address = self.peer().ip();
        // A request that was compressed is larger than what was taken for it.
        if length > taken {
            self.node.request_memory.take(address, length - taken);
        }
        Some(RequestBytes::taken(&self.node, address, taken.max(length)))
    }

    fn is_above_bounds(&self) -> bool {
        let limits = &self.node.settings().limits;
        self.in_flight.get() >= limits.max_requests_per_connection
            || self.held.get() + self.unsent.bytes() > limits.max_output_per_connection
    }

    /// Accounts for what the socket has sent, or has to send.
    fn settle(&self) {
        self.unsent
            .settle(self.socket.unsent(), &self.node.response_memory);
    }

    fn pause(&self) {
        if !self.is_paused.replace(true) {
            self.node.metrics.connections_paused.increment();
            self.socket.pause();
        }
    }

    fn resume(self: &Rc<Self>) {
        if self.is_paused.get() && !self.has_turn_ahead.get() && !self.is_above_bounds() {
            self.is_paused.set(false);
            self.serve();
            if !self.is_held_back() {
                self.socket.resume();
            }
        }
    }

    fn refuse(&self, stream: i16, violation: &Violation) {
        let error = ErrorMessage::from(violation);
        self.respond(stream, &error.into());
        if violation.is_fatal() {
            self.stage.set(Stage::Closed);
            self.socket.close();
        }
    }

    /// Decodes one request and starts it.
    fn begin(self: &Rc<Self>, envelope: &Envelope) {
        let stream = envelope.header.stream;
        self.requests.set(self.requests.get() + 1);
        let request_bytes = self.request_bytes(envelope.body.len());
        if self.stage.get() == Stage::Connected {
            self.encoder
                .borrow_mut()
                .set_dialect(Dialect::new(envelope.header.version));
        }
        // Large, and so not moved again.
        let mut decoded = RequestMessage::decode(self.dialect(), envelope);
        let message = match &mut decoded {
            Ok(message) => message,
            Err(violation) => return self.respond(stream, &ErrorMessage::from(&*violation).into()),
        };
        let is_handshake = matches!(message.request, Request::Startup(_) | Request::Options);
        if self.stage.get() == Stage::Connected && !is_handshake {
            let text = format!(
                "Unexpected message {}, expecting STARTUP or OPTIONS",
                message.request.opcode().name()
            );
            return self.protocol_error(stream, text);
        }
        let is_login = matches!(self.stage.get(), Stage::Authenticating | Stage::LoggingIn);
        if is_login && !matches!(message.request, Request::AuthResponse(_)) {
            let text = format!(
                "Unexpected message {}, expecting SASL_RESPONSE",
                message.request.opcode().name()
            );
            return self.protocol_error(stream, text);
        }
        match &message.request {
            Request::Options => {
                self.respond(stream, &Response::Supported(self.node.supported_options()).into())
            }
            Request::Startup(startup) => self.start_up(stream, startup),
            Request::Register(types) => {
                let mask = types
                    .iter()
                    .fold(self.events.get(), |mask, t| mask | event_bit(*t));
                self.events.set(mask);
                self.respond(stream, &Response::Ready.into());
            }
            Request::AuthResponse(token) if self.stage.get() == Stage::Authenticating => {
                self.log_in(stream, token.clone());
            }
            Request::AuthResponse(_) => {
                self.protocol_error(
                    stream,
                    "Unexpected message AUTH_RESPONSE: no authentication is under way".to_owned(),
                );
            }
            Request::Query(_) | Request::Prepare(_) | Request::Execute(_) | Request::Batch(_) => {
                self.start_request(stream, message, request_bytes);
            }
        }
    }

    fn protocol_error(&self, stream: i16, message: String) {
        self.respond(
            stream,
            &ErrorMessage {
                message,
                reason: ErrorReason::Protocol,
            }
            .into(),
        );
    }

    /// Starts a request that runs statements. What needs no wait is answered here; the rest is polled once before it
    /// becomes a task.
    fn start_request(
        self: &Rc<Self>,
        stream: i16,
        message: &mut RequestMessage,
        bytes: Option<RequestBytes>,
    ) {
        let node = &self.node;
        if node.is_draining() {
            let message = "The node is shutting down".to_owned();
            return self.respond(
                stream,
                &ErrorMessage {
                    message,
                    reason: ErrorReason::Overloaded,
                }
                .into(),
            );
        }
        if node.requests_in_flight.get() >= node.settings().limits.max_requests_per_shard {
            node.metrics.requests_shed.increment();
            let message =
                "Too many requests in flight on this shard (native_transport_max_requests_per_shard)"
                    .to_owned();
            return self.respond(
                stream,
                &ErrorMessage {
                    message,
                    reason: ErrorReason::Overloaded,
                }
                .into(),
            );
        }
        node.requests_in_flight.set(node.requests_in_flight.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        match start(node, self, message) {
            Started::Done(outcome) => self.finish(stream, outcome),
            Started::Waits(rest) => {
                let connection = self.clone();
                let mut request: LocalFuture<'static, ()> = Box::pin(async move {
                    let outcome = rest.await;
                    drop(bytes);
                    connection.finish(stream, outcome);
                });
                let context = &mut Context::from_waker(Waker::noop());
                if request.as_mut().poll(context).is_pending() {
                    node.env.tasks().spawn(TaskQueue::Statement, request);
                }
            }
        }
    }

    /// Answers a request that runs no more.
    fn finish(self: &Rc<Self>, stream: i16, outcome: Result<Answer, ErrorMessage>) {
        match outcome {
            Ok(answer) => self.answer(stream, answer),
            Err(error) => self.respond(stream, &error.into()),
        }
        self.node
            .requests_in_flight
            .set(self.node.requests_in_flight.get() - 1);
        self.in_flight.set(self.in_flight.get() - 1);
        if self.is_paused.get() {
            self.resume();
        }
    }

    /// What the connection speaks.
    pub fn dialect(&self) -> Dialect {
        self.encoder.borrow().dialect()
    }

    /// The keyspace of the last USE.
    pub fn keyspace(&self) -> Option<Arc<str>> {
        self.keyspace.borrow().clone()
    }

    /// USE.
    pub fn set_keyspace(&self, keyspace: Arc<str>) {
        *self.keyspace.borrow_mut() = Some(keyspace);
    }

    /// What the client may do now.
    pub(crate) fn performer(&self) -> Rc<Performer> {
        let mut known = self.performer.borrow_mut();
        match &*known {
            Some(performer) if self.node.is_up_to_date(performer) => performer.clone(),
            _ => {
                let performer = self.node.performer(self.role.borrow().clone());
                known.insert(performer).clone()
            }
        }
    }

    /// The client's address.
    pub fn peer(&self) -> std::net::SocketAddr {
        self.socket.peer()
    }

    /// The server's side is going away: what is in flight is still answered.
    pub fn close(&self) {
        self.socket.close();
    }

    /// The shard that serves it.
    pub(crate) fn node(&self) -> &Rc<Node> {
        &self.node
    }

    /// Its place among the shard's connections.
    pub(crate) fn key(&self) -> usize {
        self.key.get()
    }

    /// No answer reaches the client any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.stage.get() == Stage::Closed
    }

    /// The connection owes little, and with `more` it still will.
    pub(crate) fn is_small(&self, more: usize) -> bool {
        self.held.get() + self.unsent.bytes() + more <= SMALL
    }

    /// A running request has `after` bytes of the memory of answers instead of `before`.
    pub(crate) fn change_held(&self, before: usize, after: usize) {
        self.held.set(self.held.get() + after - before);
    }

    /// See [`Unsent::take_over_overdraft`].
    pub(crate) fn take_over_overdraft(&self) -> bool {
        self.unsent.take_over_overdraft()
    }

    /// See [`crate::stalls`].
    pub(crate) fn is_stalled(&self, now: Instant, patience: Duration) -> bool {
        let (owed, received) = (self.receiving.get(), self.received.get());
        if self.is_closed() {
            return false;
        }
        self.node.response_memory.has_waiters() && self.unsent.is_stalled(now, patience)
            || self.node.request_memory.has_waiters()
                && self.arrival.is_stalled(owed, received, now, patience)
    }

    /// Closes at once.
    pub(crate) fn abort(&self) {
        self.stage.set(Stage::Closed);
        self.socket.abort();
    }

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// The connection as `system_views.clients` shows it.
    pub fn client_row(&self) -> ClientRow {
        ClientRow {
            address: self.socket.peer(),
            options: self.startup.borrow().clone(),
            stage: if self.stage.get() == Stage::Ready {
                "ready"
            } else {
                "established"
            },
            keyspace: self
                .keyspace
                .borrow()
                .as_ref()
                .map(|keyspace| keyspace.to_string()),
            role: self.role.borrow().as_ref().map(|role| role.to_string()),
            protocol_version: self.dialect().version.number(),
            requests: self.requests.get(),
            shard: self.node.shard(),
        }
    }
}

fn event_bit(event: EventType) -> u8 {
    match event {
        EventType::TopologyChange => 1,
        EventType::StatusChange => 2,
        EventType::SchemaChange => 4,
    }
}
