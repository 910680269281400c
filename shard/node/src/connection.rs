//! One client connection: bytes in, requests to [`start`](crate::execute), answers out.
//!
//! `serve` is where every request enters the node. It decodes what has arrived, starts each request and returns; a
//! request that needs no wait is answered before the next is looked at, the others run as tasks and answer when they
//! are done, in any order.
//!
//! Bounds: requests in flight per connection and per shard, unread output per connection, length of a frame (all in
//! [`Limits`](crate::options::Limits)). A connection above its own bound is not read (the client feels TCP's
//! back-pressure); a shard above its bound answers Overloaded.
//!
//! Never: blocks, or holds a borrow across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use ceto_env::{LocalFuture, Protocol, Socket, TaskQueue};
use ceto_native::request::Startup;
use ceto_native::{
    Compression, Dialect, Direction, Envelope, ErrorMessage, ErrorReason, Event, EventType, FrameDecoder,
    FrameEncoder, Opcode, ProtocolVersion, Request, RequestMessage, Response, ResponseMessage, Violation,
};

use crate::execute::{Answer, Started, start};
use crate::node::Node;
use crate::system::virtual_rows::ClientRow;

/// Length of a frame before STARTUP has been answered, bytes: a stranger gets no more.
const STARTUP_FRAME_SIZE_MAX: u32 = 100_000;

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
    keyspace: RefCell<Option<Arc<str>>>,
    startup: RefCell<BTreeMap<String, String>>,
    events: Cell<u8>,
    in_flight: Cell<usize>,
    requests: Cell<u64>,
    is_paused: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connected,
    Ready,
    Closed,
}

impl Protocol for Connection {
    fn received(&mut self, bytes: &[u8]) {
        self.state.node.metrics.bytes_received.add(bytes.len() as u64);
        self.state.decoder.borrow_mut().feed(bytes);
        self.state.serve();
    }

    fn drained(&mut self) {
        self.state.resume();
    }

    fn closed(&mut self) {
        self.state.stage.set(Stage::Closed);
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
            decoder: RefCell::new(FrameDecoder::new(Direction::Request, STARTUP_FRAME_SIZE_MAX)),
            encoder: RefCell::new(FrameEncoder::new(ProtocolVersion::GREATEST)),
            socket,
            key: Cell::new(usize::MAX),
            stage: Cell::new(Stage::Connected),
            keyspace: RefCell::default(),
            startup: RefCell::default(),
            events: Cell::new(0),
            in_flight: Cell::new(0),
            requests: Cell::new(0),
            is_paused: Cell::new(false),
            node,
        });
        let share = state
            .node
            .options
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
    /// Decodes and starts every request that has arrived, up to the connection's bounds.
    pub fn serve(self: &Rc<Self>) {
        while self.stage.get() != Stage::Closed {
            if self.is_above_bounds() {
                return self.pause();
            }
            let envelope = self.decoder.borrow_mut().next_envelope();
            match envelope {
                Ok(Some(envelope)) => self.begin(&envelope),
                Ok(None) => return,
                Err(violation) => self.refuse(violation.stream().unwrap_or(0), &violation),
            }
        }
    }

    fn is_above_bounds(&self) -> bool {
        let limits = &self.node.options.limits;
        self.in_flight.get() >= limits.max_requests_per_connection
            || self.socket.unsent() > limits.max_output_per_connection
    }

    fn pause(&self) {
        if !self.is_paused.replace(true) {
            self.node.metrics.connections_paused.increment();
            self.socket.pause();
        }
    }

    fn resume(self: &Rc<Self>) {
        if self.is_paused.get() && !self.is_above_bounds() {
            self.is_paused.set(false);
            self.serve();
            if !self.is_paused.get() {
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
        if self.stage.get() == Stage::Connected {
            self.encoder
                .borrow_mut()
                .set_dialect(Dialect::new(envelope.header.version));
        }
        let message = match RequestMessage::decode(self.dialect(), envelope) {
            Ok(message) => message,
            Err(violation) => return self.respond(stream, &ErrorMessage::from(&violation).into()),
        };
        let is_handshake = matches!(message.request, Request::Startup(_) | Request::Options);
        if self.stage.get() == Stage::Connected && !is_handshake {
            let text = format!(
                "Unexpected message {}, expecting STARTUP or OPTIONS",
                message.request.opcode().name()
            );
            return self.protocol_error(stream, text);
        }
        match message.request {
            Request::Options => {
                self.respond(stream, &Response::Supported(self.node.supported_options()).into())
            }
            Request::Startup(startup) => self.start_up(stream, &startup),
            Request::Register(types) => {
                let mask = types
                    .iter()
                    .fold(self.events.get(), |mask, t| mask | event_bit(*t));
                self.events.set(mask);
                self.respond(stream, &Response::Ready.into());
            }
            Request::AuthResponse(_) => {
                self.protocol_error(
                    stream,
                    "Unexpected message AUTH_RESPONSE: no authentication is under way".to_owned(),
                );
            }
            Request::Query(_) | Request::Prepare(_) | Request::Execute(_) | Request::Batch(_) => {
                self.start_request(stream, message);
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

    fn start_up(&self, stream: i16, startup: &Startup) {
        if self.stage.get() == Stage::Ready {
            return self.protocol_error(
                stream,
                "Unexpected message STARTUP, the connection is ready".to_owned(),
            );
        }
        let Some(version) = startup.option("CQL_VERSION") else {
            return self.protocol_error(stream, "Missing value CQL_VERSION in STARTUP message".to_owned());
        };
        // Greater ones are fine: the Rust driver asks for 4.0.0.
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < 3) {
            return self.protocol_error(
                stream,
                format!("CQL version {version} is not supported by the binary protocol (supported versions are >= 3.0.0)"),
            );
        }
        let dialect = self.dialect();
        let compression = match startup.compression(dialect.version) {
            Ok(compression) => compression,
            Err(violation) => return self.respond(stream, &ErrorMessage::from(&violation).into()),
        };
        let mut dialect = dialect;
        dialect.extensions.lwt_mark = startup.option("SCYLLA_LWT_ADD_METADATA_MARK").is_some();
        dialect.extensions.metadata_id = startup.option("SCYLLA_USE_METADATA_ID").is_some();
        *self.startup.borrow_mut() = startup.options.iter().cloned().collect();
        self.respond(stream, &Response::Ready.into());
        self.switch_to(dialect, compression);
        self.stage.set(Stage::Ready);
    }

    /// What STARTUP has agreed on holds from here on: READY itself was still sent plain.
    fn switch_to(&self, dialect: Dialect, compression: Compression) {
        let mut decoder = self.decoder.borrow_mut();
        let mut encoder = self.encoder.borrow_mut();
        encoder.set_dialect(dialect);
        decoder.set_max_length(u32::try_from(self.node.options.limits.max_frame_size).unwrap_or(u32::MAX));
        decoder.set_compression(compression);
        encoder.set_compression(compression);
        if dialect.version >= ProtocolVersion::V5 {
            decoder.start_framing();
            encoder.start_framing();
        }
    }

    /// Starts a request that runs statements. What needs no wait is answered here; the rest is polled once before it
    /// becomes a task.
    fn start_request(self: &Rc<Self>, stream: i16, message: RequestMessage) {
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
        if node.requests_in_flight.get() >= node.options.limits.max_requests_per_shard {
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

    fn answer(&self, stream: i16, answer: Answer) {
        match answer {
            Answer::Message(message) => self.respond(stream, &message),
            Answer::Void(prefix) => {
                let response = Response::Void;
                self.respond(stream, &ResponseMessage { prefix, response });
            }
            Answer::Result { prefix, body } => {
                let dialect = self.dialect();
                let flags = prefix.flags(dialect);
                self.send(stream, Opcode::Result, flags, |out| {
                    prefix.encode(dialect, out);
                    out.extend_from_slice(&body);
                });
                self.node.spare_body.give(body);
            }
        }
    }

    /// Sends a message.
    pub fn respond(&self, stream: i16, message: &ResponseMessage) {
        if let Response::Error(error) = &message.response {
            self.node.metrics.count_error(error.reason.code());
        }
        let dialect = self.dialect();
        self.send(stream, message.response.opcode(), message.flags(dialect), |out| {
            message.encode(dialect, out)
        });
    }

    fn send(&self, stream: i16, opcode: Opcode, flags: u8, fill: impl Fn(&mut bytes::BytesMut)) {
        if self.stage.get() == Stage::Closed {
            return;
        }
        let mut encoder = self.encoder.borrow_mut();
        let mut too_large = None;
        self.socket.write_with(&mut |out| {
            let before = out.len();
            let mut writer = encoder.writer(out);
            if let Err(violation) = writer.envelope(opcode, stream, flags, &fill) {
                too_large = Some(violation);
            }
            drop(writer);
            self.node.metrics.bytes_sent.add((out.len() - before) as u64);
        });
        drop(encoder);
        if let Some(violation) = too_large {
            let message =
                format!("The answer is too large for the protocol: {violation}; use a smaller page size");
            self.respond(
                stream,
                &ErrorMessage {
                    message,
                    reason: ErrorReason::Server,
                }
                .into(),
            );
        }
    }

    /// Sends an event if the client has registered for its type.
    pub fn notify(&self, event: &Event) {
        if self.stage.get() == Stage::Ready && self.events.get() & event_bit(event.event_type()) != 0 {
            self.respond(-1, &Response::Event(event.clone()).into());
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

    /// The client's address.
    pub fn peer(&self) -> std::net::SocketAddr {
        self.socket.peer()
    }

    /// The server's side is going away: what is in flight is still answered.
    pub fn close(&self) {
        self.socket.close();
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
