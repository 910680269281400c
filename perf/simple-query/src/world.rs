//! A node of one shard in a world of memory: the whole of it but sockets, files and the kernel.
//!
//! Time stands still while operations run, so no timer fires among them; what an operation has to wait for (a new
//! commitlog segment) is run to its end and counted. The seed makes each run execute the same instructions.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_env::{Env, Mailbox, TaskQueue};
use ceto_model::Consistency;
use ceto_native::request::Startup;
use ceto_native::{
    Direction, Execute, FrameDecoder, FrameEncoder, Prepare, ProtocolVersion, Query, QueryParameters,
    Request, RequestMessage, Response, ResponseMessage, Values,
};
use ceto_node::control::ControlRequest;
use ceto_node::message::ShardMessage;
use ceto_node::options::{NodeOptions, StorageSettings};
use ceto_node::system::definitions::system_schema;
use ceto_node::system::schema_rows;
use ceto_node::{Node, NodeParts};
use uuid::Uuid;

use crate::client::{Connection, MemoryNetwork};

const SEED: u64 = 1;
/// How often the clock is looked at while an answer is waited for.
const POLL: Duration = Duration::from_micros(1);
const VERSION: ProtocolVersion = ProtocolVersion::V4;
/// The longest answer that is accepted, in bytes.
const MAXIMUM_ANSWER_BYTES: u32 = 1 << 20;

/// A mailbox without other shards.
struct Alone;

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

/// A booted node and a client of it.
pub(crate) struct World {
    env: Rc<MemoryEnv>,
    connection: Connection,
    /// Answers that were not there when the request had been delivered.
    pub(crate) waits: u64,
}

impl World {
    /// Boots a node and connects.
    pub(crate) fn boot() -> Result<World, String> {
        let env = MemoryEnv::new(MemoryDisk::new(SEED), SEED);
        let network = Rc::new(MemoryNetwork::default());
        let parts = NodeParts {
            env: env.clone(),
            network: network.clone(),
            mailbox: Rc::new(Alone),
            options: Arc::new(options()),
            runtime_samples: Box::new(|_| {}),
        };
        let booted = env.block_on(async {
            let node = Node::new(parts);
            node.open_storage().await?;
            node.finish_recovery(Arc::new(system_schema())).await?;
            Ok::<_, String>(node)
        });
        let node = booted.ok_or("the node hangs while it boots")??;
        change_schema_by(&node, &env);
        node.listen()?;
        let connection = network.connect().ok_or("the node does not listen")?;
        let mut world = World {
            env,
            connection,
            waits: 0,
        };
        let options = vec![("CQL_VERSION".to_owned(), "3.0.0".to_owned())];
        match world.ask(Request::Startup(Startup { options }))? {
            Response::Ready => Ok(world),
            other => Err(format!("STARTUP was answered with {:?}", other.opcode())),
        }
    }

    /// Runs a statement.
    pub(crate) fn query(&mut self, text: &str) -> Result<Response, String> {
        self.ask(Request::Query(Query {
            query: text.to_owned(),
            parameters: QueryParameters::new(Consistency::One),
        }))
    }

    /// Prepares a statement; returns its id.
    pub(crate) fn prepare(&mut self, text: &str) -> Result<Bytes, String> {
        match self.ask(Request::Prepare(Prepare {
            query: text.to_owned(),
            keyspace: None,
        }))? {
            Response::Prepared(prepared) => Ok(prepared.id),
            other => Err(format!("PREPARE was answered with {:?}", other.opcode())),
        }
    }

    /// One request and its answer; an ERROR is an error.
    fn ask(&mut self, request: Request) -> Result<Response, String> {
        let request = encode(request)?;
        self.run(&request, |answer| {
            let mut decoder = FrameDecoder::new(Direction::Response, MAXIMUM_ANSWER_BYTES);
            decoder.feed(answer);
            let envelope = decoder
                .next_envelope()
                .map_err(|violation| violation.to_string())?;
            let envelope = envelope.ok_or_else(|| "half an answer".to_owned())?;
            let message = ResponseMessage::decode(VERSION.into(), &envelope);
            match message.map_err(|violation| violation.to_string())?.response {
                Response::Error(error) => Err(format!("{}: {}", error.code().name(), error.message)),
                response => Ok(response),
            }
        })
    }

    /// Delivers the bytes of a request, and lets `look` see those of the answer. This is what is measured.
    pub(crate) fn run<T>(
        &mut self,
        request: &[u8],
        look: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, String> {
        self.connection.deliver(request);
        let socket = self.connection.socket();
        if !socket.is_answered() {
            self.waits += 1;
            let answer = async {
                while !socket.is_answered() {
                    self.env.tasks().sleep(POLL).await;
                }
            };
            self.env.block_on(answer).ok_or("the node hangs")?;
        }
        socket.take(look)
    }
}

/// The bytes of a request.
pub(crate) fn encode(request: Request) -> Result<Bytes, String> {
    let mut output = BytesMut::new();
    FrameEncoder::new(VERSION)
        .writer(&mut output)
        .request(1, &RequestMessage::new(request))
        .map_err(|violation| violation.to_string())?;
    Ok(output.freeze())
}

/// The bytes of an EXECUTE.
pub(crate) fn encode_execute(id: &Bytes, values: Values) -> Result<Bytes, String> {
    let mut parameters = QueryParameters::new(Consistency::LocalOne);
    parameters.values = values;
    parameters.skip_metadata = true;
    encode(Request::Execute(Execute {
        id: id.clone(),
        result_metadata_id: None,
        parameters,
    }))
}

/// Stands in for the control thread: a change is installed at once, and not stored.
fn change_schema_by(node: &Rc<Node>, env: &Rc<MemoryEnv>) {
    let (node_of_door, env) = (Rc::downgrade(node), Rc::downgrade(env));
    node.set_control(Box::new(move |request| {
        let (Some(node), Some(env)) = (node_of_door.upgrade(), env.upgrade()) else {
            return Err(request);
        };
        let ControlRequest::ChangeSchema { change, slot, .. } = request else {
            panic!("a shard's storage has failed");
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

fn options() -> NodeOptions {
    NodeOptions {
        cluster_name: "simple-query".to_owned(),
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
        tokens: (0..16).map(|index| i64::MIN + index * (1 << 60)).collect(),
        settings: Default::default(),
        storage: StorageSettings::default(),
        access: Default::default(),
        functions: Default::default(),
    }
}
