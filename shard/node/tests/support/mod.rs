//! A node of one shard in memory, and clients whose sockets take what the test lets them take.
#![allow(clippy::unwrap_used, dead_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_env::{Acceptor, Env, Mailbox, Network, Placement, Protocol, Socket, TaskQueue};
use ceto_model::Consistency;
use ceto_native::request::Startup;
use ceto_native::{
    Direction, FrameDecoder, FrameEncoder, ProtocolVersion, Query, QueryParameters, Request, RequestMessage,
    Response, ResponseMessage, Values,
};
use ceto_node::control::ControlRequest;
use ceto_node::message::ShardMessage;
use ceto_node::options::{Limits, NodeOptions, StorageSettings};
use ceto_node::system::definitions::system_schema;
use ceto_node::system::schema_rows;
use ceto_node::{Node, NodeParts};
use uuid::Uuid;

pub(crate) mod cluster;

const VERSION: ProtocolVersion = ProtocolVersion::V4;

pub(crate) struct Alone;

impl Mailbox<ShardMessage> for Alone {
    fn send(&self, _: u16, message: ShardMessage) -> Result<(), ShardMessage> {
        Err(message)
    }

    fn shard_count(&self) -> u16 {
        1
    }

    fn shard(&self) -> u16 {
        0
    }

    fn depth(&self, _: u16) -> usize {
        0
    }
}

#[derive(Default)]
struct MemoryNetwork {
    acceptor: RefCell<Option<Acceptor>>,
}

impl Network for MemoryNetwork {
    fn listen(&self, address: SocketAddr, _: Placement, acceptor: Acceptor) -> io::Result<SocketAddr> {
        self.acceptor.borrow_mut().get_or_insert(acceptor);
        Ok(address)
    }

    fn stop_accepting(&self) {}

    fn connections(&self) -> usize {
        1
    }
}

pub(crate) struct MemorySocket {
    output: RefCell<BytesMut>,
    pub(crate) is_paused: Cell<bool>,
    pub(crate) is_closed: Cell<bool>,
    pub(crate) is_aborted: Cell<bool>,
    peer: SocketAddr,
}

impl Socket for MemorySocket {
    fn write(&self, bytes: &[u8]) {
        self.output.borrow_mut().extend_from_slice(bytes);
    }

    fn write_with(&self, fill: &mut dyn FnMut(&mut BytesMut)) {
        fill(&mut self.output.borrow_mut());
    }

    fn unsent(&self) -> usize {
        self.output.borrow().len()
    }

    fn pause(&self) {
        self.is_paused.set(true);
    }

    fn resume(&self) {
        self.is_paused.set(false);
    }

    fn close(&self) {
        self.is_closed.set(true);
    }

    fn abort(&self) {
        self.is_aborted.set(true);
        self.is_closed.set(true);
    }

    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn local(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9042))
    }
}

/// A client's end.
pub(crate) struct Client {
    pub(crate) socket: Rc<MemorySocket>,
    protocol: Option<Box<dyn Protocol>>,
    /// Sent, and not received by the server because it paused.
    held: Vec<u8>,
    decoder: FrameDecoder,
}

impl Client {
    /// A connection to whoever accepts.
    pub(crate) fn connect_raw(acceptor: &Acceptor, address: [u8; 4]) -> Client {
        let socket = Rc::new(MemorySocket {
            output: RefCell::default(),
            is_paused: Cell::default(),
            is_closed: Cell::default(),
            is_aborted: Cell::default(),
            peer: SocketAddr::from((address, 40_000)),
        });
        let protocol = Some(acceptor(socket.clone()));
        let decoder = FrameDecoder::new(Direction::Response, 256 << 20);
        Client {
            socket,
            protocol,
            held: Vec::new(),
            decoder,
        }
    }

    /// Greets the server; it must be ready.
    pub(crate) fn start_up(&mut self, extra: &[(&str, &str)]) {
        let mut options = vec![("CQL_VERSION".to_owned(), "3.0.0".to_owned())];
        options.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        self.send(&encode(0, Request::Startup(Startup { options })));
        assert!(matches!(self.read()[..], [Response::Ready]));
    }

    /// Sends bytes; what the server does not want yet waits.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.push();
    }

    /// As the network does: some bytes at a time, none while it is paused.
    fn push(&mut self) {
        while !self.socket.is_paused.get()
            && !self.held.is_empty()
            && let Some(protocol) = &mut self.protocol
        {
            let rest = self.held.split_off(self.held.len().min(16 << 10));
            protocol.received(&std::mem::replace(&mut self.held, rest));
        }
    }

    /// Bytes that the server does not want yet.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes that wait for this client to take them.
    pub(crate) fn unread(&self) -> usize {
        self.socket.unsent()
    }

    /// Takes everything that is there; returns the complete answers.
    pub(crate) fn read(&mut self) -> Vec<Response> {
        let taken = self.socket.output.take();
        if !taken.is_empty() {
            self.decoder.feed(&taken);
            if let Some(protocol) = &mut self.protocol {
                protocol.drained();
            }
        }
        self.push();
        let mut answers = Vec::new();
        while let Some(envelope) = self.decoder.next_envelope().unwrap() {
            answers.push(
                ResponseMessage::decode(VERSION.into(), &envelope)
                    .unwrap()
                    .response,
            );
        }
        answers
    }

    /// The connection breaks.
    pub(crate) fn leave(&mut self) {
        self.socket.is_closed.set(true);
        self.socket.output.take();
        if let Some(mut protocol) = self.protocol.take() {
            protocol.closed();
        }
    }
}

pub(crate) struct World {
    pub(crate) env: Rc<MemoryEnv>,
    pub(crate) node: Rc<Node>,
    network: Rc<MemoryNetwork>,
}

impl World {
    pub(crate) fn boot(limits: Limits) -> World {
        World::boot_on(limits, |env| env)
    }

    /// With an env that is made of the one in memory.
    pub(crate) fn boot_on(limits: Limits, wrap: impl Fn(Rc<MemoryEnv>) -> Rc<dyn Env>) -> World {
        World::boot_as(options(limits), wrap)
    }

    /// With all options.
    pub(crate) fn boot_as(options: NodeOptions, wrap: impl Fn(Rc<MemoryEnv>) -> Rc<dyn Env>) -> World {
        let env = MemoryEnv::new(MemoryDisk::new(1), 1);
        let network = Rc::new(MemoryNetwork::default());
        let parts = NodeParts {
            env: wrap(env.clone()),
            network: network.clone(),
            mailbox: Rc::new(Alone),
            options: Arc::new(options),
            runtime_samples: Box::new(|_| {}),
        };
        let node = env.block_on(async {
            let node = Node::new(parts);
            node.open_storage().await.unwrap();
            node.finish_recovery(Arc::new(system_schema())).await.unwrap();
            node
        });
        let node = node.unwrap();
        change_schema_by(&node, &env);
        node.listen().unwrap();
        World { env, node, network }
    }

    /// A client before STARTUP.
    pub(crate) fn connect_raw(&self, address: [u8; 4]) -> Client {
        let acceptor = self.network.acceptor.borrow().clone().unwrap();
        Client::connect_raw(&acceptor, address)
    }

    pub(crate) fn connect_with(&self, address: [u8; 4], extra: &[(&str, &str)]) -> Client {
        let mut client = self.connect_raw(address);
        client.start_up(extra);
        client
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_with([127, 0, 0, 1], &[])
    }

    /// Lets tasks run for a while of virtual time.
    pub(crate) fn run(&self, time: Duration) {
        self.env.block_on(self.env.tasks().sleep(time)).unwrap();
    }

    /// Sends a statement and waits for its answer.
    pub(crate) fn ask(&self, client: &mut Client, text: &str) -> Response {
        client.send(&query(0, text, None, Vec::new()));
        self.answers(client, 1).remove(0)
    }

    /// Reads until there are so many answers.
    pub(crate) fn answers(&self, client: &mut Client, count: usize) -> Vec<Response> {
        let mut answers = client.read();
        for _ in 0..100_000 {
            if answers.len() >= count {
                return answers;
            }
            self.run(Duration::from_micros(100));
            answers.extend(client.read());
        }
        panic!("{} of {count} answers", answers.len());
    }

    /// The sum of a metric's samples.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let samples = self.node.samples();
        samples
            .iter()
            .filter(|sample| sample.name == name)
            .map(|sample| sample.value)
            .sum()
    }

    /// A table `ks.t` with one partition of `rows` values of `size` bytes each.
    pub(crate) fn fill(&self, rows: i32, size: usize) {
        let mut client = self.connect();
        let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
        self.ask(
            &mut client,
            &format!("CREATE KEYSPACE ks WITH replication = {replication}"),
        );
        self.ask(
            &mut client,
            "CREATE TABLE ks.t (k int, c int, v blob, PRIMARY KEY (k, c))",
        );
        for row in 0..rows {
            let values = vec![Bytes::copy_from_slice(&row.to_be_bytes()), vec![7; size].into()];
            client.send(&query(
                0,
                "INSERT INTO ks.t (k, c, v) VALUES (0, ?, ?)",
                None,
                values,
            ));
            let answer = self.answers(&mut client, 1).remove(0);
            assert!(matches!(answer, Response::Void), "{answer:?}");
        }
    }
}

pub(crate) fn encode(stream: i16, request: Request) -> BytesMut {
    let mut output = BytesMut::new();
    FrameEncoder::new(VERSION)
        .writer(&mut output)
        .request(stream, &RequestMessage::new(request))
        .unwrap();
    output
}

/// The bytes of a QUERY.
pub(crate) fn query(stream: i16, text: &str, page_size: Option<i32>, values: Vec<Bytes>) -> BytesMut {
    let mut parameters = QueryParameters::new(Consistency::One);
    parameters.page_size = page_size;
    if !values.is_empty() {
        let builder = values
            .iter()
            .fold(Values::builder(), |builder, value| builder.value(value));
        parameters.values = builder.build();
    }
    encode(
        stream,
        Request::Query(Query {
            query: text.to_owned(),
            parameters,
        }),
    )
}

/// The bytes of a QUERY at a level.
pub(crate) fn query_at(consistency: Consistency, text: &str, page_size: Option<i32>) -> BytesMut {
    let mut parameters = QueryParameters::new(consistency);
    parameters.page_size = page_size;
    encode(
        0,
        Request::Query(Query {
            query: text.to_owned(),
            parameters,
        }),
    )
}

fn change_schema_by(node: &Rc<Node>, env: &Rc<MemoryEnv>) {
    let (node_of_door, env) = (Rc::downgrade(node), Rc::downgrade(env));
    node.set_control(Box::new(move |request| {
        let (Some(node), Some(env)) = (node_of_door.upgrade(), env.upgrade()) else {
            return Err(request);
        };
        let ControlRequest::ChangeSchema { change, slot, .. } = request else {
            return Err(request);
        };
        let now = env.clock().unix_micros();
        env.tasks().spawn(
            TaskQueue::Control,
            Box::pin(async move {
                let outcome = match change.apply(&node.schema(), now) {
                    Ok(Some(mut next)) => {
                        next.version = schema_rows::version(&next);
                        let event = change.event(&node.schema());
                        node.install_schema(Arc::new(next)).await;
                        Ok(Some(event))
                    }
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                node.schema_changed(slot, outcome);
            }),
        );
        Ok(())
    }));
}

pub(crate) fn options(limits: Limits) -> NodeOptions {
    NodeOptions {
        cluster_name: "limits".to_owned(),
        datacenter: "datacenter1".to_owned(),
        rack: "rack1".to_owned(),
        host_id: Uuid::from_u128(1),
        data_directory: PathBuf::from("/data"),
        commitlog_directory: PathBuf::from("/data/commitlog"),
        rpc_address: [127, 0, 0, 1].into(),
        native_port: 9042,
        shard_aware_port: 19042,
        listen_address: [127, 0, 0, 1].into(),
        broadcast_address: [127, 0, 0, 1].into(),
        storage_port: 7000,
        internode_compression: Default::default(),
        hints: Default::default(),
        tokens: (0_i64..16)
            .map(|index| i64::MIN.wrapping_add(index << 60))
            .collect(),
        settings: ceto_node::settings::Settings {
            limits,
            ..Default::default()
        },
        access: Default::default(),
        functions: Default::default(),
        storage: StorageSettings::default(),
    }
}
