//! Several nodes of one shard or more in one thread and one virtual time, with links in memory that can be cut.
#![allow(clippy::unwrap_used, dead_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ceto_cluster::{Ring, RingNode};
use ceto_env::memory::{MemoryDisk, MemoryEnv};
use ceto_env::{
    Acceptor, Connector, Env, LocalFuture, Mailbox, Network, Placement, Protocol, Route, Socket, TaskQueue,
};
use ceto_internode::HostId;
use ceto_model::{Consistency, Schema, Token};
use ceto_native::Response;
use ceto_node::control::ControlRequest;
use ceto_node::message::ShardMessage;
use ceto_node::options::{Limits, NodeOptions};
use ceto_node::system::definitions::system_schema;
use ceto_node::system::schema_rows;
use ceto_node::topology::{Peer, PeerState, Topology};
use ceto_node::{Node, NodeParts};
use uuid::Uuid;

use super::{Client, options, query_at};

/// One way of a link.
const LATENCY: Duration = Duration::from_micros(100);

/// Connects the nodes of a thread.
#[derive(Default)]
pub(crate) struct Switch {
    env: RefCell<Weak<MemoryEnv>>,
    /// Of each address, by shard.
    listeners: RefCell<BTreeMap<SocketAddr, BTreeMap<u16, Acceptor>>>,
    sockets: RefCell<Vec<Weak<Wire>>>,
    /// Bytes to or from these go nowhere, and nobody is told.
    silent: RefCell<Vec<IpAddr>>,
}

impl Switch {
    fn later(self: &Rc<Self>, after: Duration, work: impl FnOnce() + 'static) {
        let Some(env) = self.env.borrow().upgrade() else {
            return;
        };
        let time = env.tasks().sleep(after);
        env.tasks().spawn(
            TaskQueue::Statement,
            Box::pin(async move {
                time.await;
                work();
            }),
        );
    }

    fn is_silent(&self, wire: &Wire) -> bool {
        let silent = self.silent.borrow();
        silent.contains(&wire.local.ip()) || silent.contains(&wire.remote.ip())
    }
}

/// One end of a connection.
struct Wire {
    this: Weak<Wire>,
    switch: Rc<Switch>,
    other: RefCell<Weak<Wire>>,
    protocol: RefCell<Option<Box<dyn Protocol>>>,
    output: RefCell<BytesMut>,
    on_its_way: Cell<bool>,
    is_paused: Cell<bool>,
    is_closed: Cell<bool>,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Wire {
    fn new(switch: &Rc<Switch>, local: SocketAddr, remote: SocketAddr) -> Rc<Wire> {
        let wire = Rc::new_cyclic(|this| Wire {
            this: this.clone(),
            switch: switch.clone(),
            other: RefCell::default(),
            protocol: RefCell::default(),
            output: RefCell::default(),
            on_its_way: Cell::default(),
            is_paused: Cell::default(),
            is_closed: Cell::default(),
            local,
            remote,
        });
        switch.sockets.borrow_mut().push(Rc::downgrade(&wire));
        wire
    }

    fn ship(&self) {
        if self.on_its_way.replace(true) {
            return;
        }
        let this = self.this.clone();
        self.switch.later(LATENCY, move || {
            if let Some(wire) = this.upgrade() {
                wire.on_its_way.set(false);
                wire.arrive();
            }
        });
    }

    fn arrive(&self) {
        let other = self.other.borrow().upgrade();
        let Some(other) = other.filter(|other| !other.is_closed.get()) else {
            // As a host answers that knows nothing of the connection.
            if !self.switch.is_silent(self) && !self.is_closed.replace(true) {
                self.told();
            }
            return;
        };
        if self.switch.is_silent(self) || other.is_paused.get() || self.output.borrow().is_empty() {
            return;
        }
        let bytes = self.output.take();
        other.call(|protocol| protocol.received(&bytes));
        self.call(|protocol| protocol.drained());
    }

    fn call(&self, call: impl FnOnce(&mut dyn Protocol)) {
        let protocol = self.protocol.borrow_mut().take();
        if let Some(mut protocol) = protocol {
            call(&mut *protocol);
            *self.protocol.borrow_mut() = Some(protocol);
        }
    }

    /// Both ends hear of the end.
    fn end(&self) {
        if self.is_closed.replace(true) {
            return;
        }
        let (this, other) = (self.this.clone(), self.other.borrow().clone());
        self.switch.later(LATENCY, move || {
            if let Some(other) = other.upgrade()
                && !other.switch.is_silent(&other)
            {
                other.is_closed.set(true);
                other.told();
            }
            if let Some(wire) = this.upgrade() {
                wire.told();
            }
        });
    }

    fn told(&self) {
        let protocol = self.protocol.borrow_mut().take();
        if let Some(mut protocol) = protocol {
            protocol.closed();
        }
    }
}

impl Socket for Wire {
    fn write(&self, bytes: &[u8]) {
        self.write_with(&mut |out| out.extend_from_slice(bytes));
    }

    fn write_with(&self, fill: &mut dyn FnMut(&mut BytesMut)) {
        if !self.is_closed.get() {
            fill(&mut self.output.borrow_mut());
            self.ship();
        }
    }

    fn unsent(&self) -> usize {
        self.output.borrow().len()
    }

    fn pause(&self) {
        self.is_paused.set(true);
    }

    fn resume(&self) {
        self.is_paused.set(false);
        if let Some(other) = self.other.borrow().upgrade() {
            other.ship();
        }
    }

    fn close(&self) {
        let this = self.this.clone();
        // What was written arrives first.
        self.switch.later(2 * LATENCY, move || {
            if let Some(wire) = this.upgrade() {
                wire.end();
            }
        });
    }

    fn abort(&self) {
        self.end();
    }

    fn peer(&self) -> SocketAddr {
        self.remote
    }

    fn local(&self) -> SocketAddr {
        self.local
    }
}

/// One shard's sockets.
struct Port {
    switch: Rc<Switch>,
    shard: u16,
    clients: RefCell<Option<Acceptor>>,
}

/// The shards of one node.
#[derive(Default)]
struct Mesh {
    env: RefCell<Weak<MemoryEnv>>,
    shards: RefCell<Vec<Weak<Node>>>,
}

/// One shard's way to the others.
struct Door {
    mesh: Rc<Mesh>,
    shard: u16,
    count: u16,
}

impl Mailbox<ShardMessage> for Door {
    fn send(&self, to: u16, message: ShardMessage) -> Result<(), ShardMessage> {
        let env = self.mesh.env.borrow().upgrade();
        let shard = self.mesh.shards.borrow().get(usize::from(to)).cloned();
        let (Some(env), Some(shard)) = (env, shard.and_then(|shard| shard.upgrade())) else {
            return Err(message);
        };
        let task = async move { shard.receive(message) };
        env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
        Ok(())
    }

    fn shard_count(&self) -> u16 {
        self.count
    }

    fn shard(&self) -> u16 {
        self.shard
    }

    fn depth(&self, _: u16) -> usize {
        0
    }
}

impl Network for Port {
    fn listen(
        &self,
        address: SocketAddr,
        placement: Placement,
        acceptor: Acceptor,
    ) -> io::Result<SocketAddr> {
        if address.port() == INTERNODE {
            let mut listeners = self.switch.listeners.borrow_mut();
            listeners.entry(address).or_default().insert(self.shard, acceptor);
        } else if placement == Placement::LeastConnected {
            *self.clients.borrow_mut() = Some(acceptor);
        }
        Ok(address)
    }

    fn connect(&self, route: Route, connector: Connector) -> LocalFuture<'static, io::Result<()>> {
        let switch = self.switch.clone();
        let env = switch.env.borrow().upgrade().unwrap();
        Box::pin(async move {
            let local = SocketAddr::new(route.local.unwrap(), 40_000);
            let unheard = |ip| switch.silent.borrow().contains(&ip);
            if unheard(local.ip()) || unheard(route.remote.ip()) {
                env.tasks().sleep(route.timeout).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            env.tasks().sleep(LATENCY).await;
            let acceptor = {
                let listeners = switch.listeners.borrow();
                let shards = listeners.get(&route.remote);
                let shards = shards.ok_or(io::ErrorKind::ConnectionRefused)?;
                let wanted = route.shard.map_or(0, |(shard, _)| shard);
                shards[&(wanted % shards.len() as u16)].clone()
            };
            let near = Wire::new(&switch, local, route.remote);
            let far = Wire::new(&switch, route.remote, local);
            *near.other.borrow_mut() = Rc::downgrade(&far);
            *far.other.borrow_mut() = Rc::downgrade(&near);
            let protocol = acceptor(far.clone());
            *far.protocol.borrow_mut() = Some(protocol);
            let protocol = connector(near.clone());
            *near.protocol.borrow_mut() = Some(protocol);
            Ok(())
        })
    }

    fn stop_accepting(&self) {}

    fn connections(&self) -> usize {
        0
    }
}

const INTERNODE: u16 = 7000;

/// A node of the cluster.
pub(crate) struct Member {
    /// Its first shard.
    pub(crate) node: Rc<Node>,
    pub(crate) shards: Vec<Rc<Node>>,
    port: Rc<Port>,
    pub(crate) options: NodeOptions,
    /// Control messages that came: from whom, and what.
    pub(crate) messages: Rc<RefCell<Vec<(HostId, SocketAddr, Bytes)>>>,
}

/// Several nodes.
pub(crate) struct Cluster {
    pub(crate) env: Rc<MemoryEnv>,
    pub(crate) switch: Rc<Switch>,
    pub(crate) members: Vec<Member>,
    alive: Vec<bool>,
}

fn member_options(at: usize, limits: Limits) -> NodeOptions {
    let ip: IpAddr = [127, 0, 0, at as u8 + 1].into();
    let tokens: Vec<i64> = (0..8)
        .map(|turn| i64::MIN.wrapping_add(((turn * 8 + at as i64) << 58) + 77))
        .collect();
    NodeOptions {
        host_id: Uuid::from_u128(at as u128 + 1),
        data_directory: PathBuf::from(format!("/node{at}")),
        commitlog_directory: PathBuf::from(format!("/node{at}/commitlog")),
        rpc_address: ip,
        listen_address: ip,
        broadcast_address: ip,
        storage_port: INTERNODE,
        tokens,
        ..options(limits)
    }
}

impl Cluster {
    pub(crate) fn boot(count: usize, limits: Limits) -> Cluster {
        Cluster::boot_with(&vec![1; count], limits)
    }

    /// Nodes with so many shards.
    pub(crate) fn boot_with(shards: &[u16], limits: Limits) -> Cluster {
        let env = MemoryEnv::new(MemoryDisk::new(1), 1);
        let switch = Rc::new(Switch::default());
        *switch.env.borrow_mut() = Rc::downgrade(&env);
        let members: Vec<Member> = shards
            .iter()
            .enumerate()
            .map(|(at, count)| boot_member(&env, &switch, member_options(at, limits.clone()), *count))
            .collect();
        let nodes: Vec<Weak<Node>> = members
            .iter()
            .flat_map(|member| member.shards.iter().map(Rc::downgrade))
            .collect();
        for member in &members {
            control(member, &nodes, &env);
        }
        let cluster = Cluster {
            env,
            switch,
            alive: vec![true; members.len()],
            members,
        };
        cluster.install();
        cluster
    }

    /// Every node learns who is there.
    fn install(&self) {
        let ring = Arc::new(Ring::new(self.members.iter().map(|member| ring_node(&member.options))).unwrap());
        for own in &self.members {
            let peers = self.members.iter().zip(&self.alive);
            let peers = peers
                .filter(|(member, _)| member.options.host_id != own.options.host_id)
                .map(|(member, is_alive)| peer(member, *is_alive))
                .collect();
            let topology = Arc::new(Topology {
                ring: ring.clone(),
                other: None,
                peers,
            });
            for shard in &own.shards {
                shard.install_topology(topology.clone());
            }
        }
    }

    /// The nodes' failure detectors find out.
    pub(crate) fn detect(&mut self, at: usize, is_alive: bool) {
        self.alive[at] = is_alive;
        self.install();
    }

    /// The process ends without a word: its sockets are reset and nobody listens.
    pub(crate) fn kill(&self, at: usize) {
        let ip = self.members[at].options.listen_address;
        self.switch
            .listeners
            .borrow_mut()
            .retain(|address, _| address.ip() != ip);
        let sockets: Vec<_> = self
            .switch
            .sockets
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for socket in sockets.iter().filter(|socket| socket.local.ip() == ip) {
            socket.end();
        }
        self.run(Duration::from_millis(1));
    }

    /// It listens again, after [`Self::kill`].
    pub(crate) fn revive(&self, at: usize) {
        for shard in &self.members[at].shards {
            shard.listen_for_peers().unwrap();
        }
    }

    /// No node keeps hints.
    pub(crate) fn without_hints(&self) {
        for shard in self.members.iter().flat_map(|member| &member.shards) {
            shard.enable_hints(false);
        }
    }

    /// The process is killed and starts again with what is on its disk; the schema is as it was.
    pub(crate) fn restart(&mut self, at: usize) {
        self.kill(at);
        let (options, shards) = {
            let old = &self.members[at];
            (old.options.clone(), old.shards.len() as u16)
        };
        let schema = self.members[at].node.schema();
        let member = boot_member_as(&self.env, &self.switch, options, shards, schema);
        self.members[at] = member;
        let nodes: Vec<Weak<Node>> = self
            .members
            .iter()
            .flat_map(|member| member.shards.iter().map(Rc::downgrade))
            .collect();
        for member in &self.members {
            control(member, &nodes, &self.env);
        }
        self.install();
    }

    /// Nothing gets to this node or from it any more, or again.
    pub(crate) fn silence(&self, at: usize, is_silent: bool) {
        let ip = self.members[at].options.listen_address;
        self.switch.silent.borrow_mut().retain(|own| *own != ip);
        if is_silent {
            self.switch.silent.borrow_mut().push(ip);
        } else {
            let sockets: Vec<_> = self
                .switch
                .sockets
                .borrow()
                .iter()
                .filter_map(Weak::upgrade)
                .collect();
            sockets.iter().for_each(|socket| socket.ship());
        }
    }

    pub(crate) fn connect(&self, at: usize) -> Client {
        let acceptor = self.members[at].port.clients.borrow().clone().unwrap();
        let mut client = Client::connect_raw(&acceptor, [127, 0, 0, 100]);
        client.start_up(&[]);
        client
    }

    pub(crate) fn run(&self, time: Duration) {
        self.env.block_on(self.env.tasks().sleep(time)).unwrap();
    }

    /// Sends a statement and waits for its answer, however long.
    pub(crate) fn ask(&self, client: &mut Client, consistency: Consistency, text: &str) -> Response {
        self.ask_page(client, consistency, text, None)
    }

    pub(crate) fn ask_page(
        &self,
        client: &mut Client,
        consistency: Consistency,
        text: &str,
        page_size: Option<i32>,
    ) -> Response {
        client.send(&query_at(consistency, text, page_size));
        for _ in 0..1_000_000 {
            if let Some(answer) = client.read().pop() {
                return answer;
            }
            self.run(Duration::from_micros(100));
        }
        panic!("no answer to {text}");
    }

    /// Sends a statement by all clients at once.
    pub(crate) fn ask_all(
        &self,
        clients: &mut [Client],
        consistency: Consistency,
        text: &str,
    ) -> Vec<Response> {
        for client in clients.iter_mut() {
            client.send(&query_at(consistency, text, None));
        }
        let mut answers: Vec<Option<Response>> = clients.iter().map(|_| None).collect();
        for _ in 0..1_000_000 {
            for (client, answer) in clients.iter_mut().zip(&mut answers) {
                if let Some(read) = client.read().pop() {
                    *answer = Some(read);
                }
            }
            if answers.iter().all(Option::is_some) {
                return answers.into_iter().flatten().collect();
            }
            self.run(Duration::from_micros(100));
        }
        panic!("no answers to {text}");
    }

    /// The sum of a metric's samples on one node.
    pub(crate) fn metric(&self, at: usize, name: &str) -> f64 {
        let shards = self.members[at].shards.iter();
        let samples = shards.flat_map(|shard| shard.samples());
        let own = samples.filter(|sample| sample.name == name);
        own.map(|sample| sample.value).sum()
    }
}

fn ring_node(options: &NodeOptions) -> RingNode {
    ceto_node::topology::local_ring_node(options)
}

fn peer(member: &Member, is_alive: bool) -> Peer {
    let options = &member.options;
    Peer {
        host: HostId(options.host_id),
        internode: SocketAddr::new(options.broadcast_address, options.storage_port),
        rpc: options.rpc_address,
        native_port: options.native_port,
        shard_count: member.shards.len() as u16,
        datacenter: options.datacenter.as_str().into(),
        rack: options.rack.as_str().into(),
        tokens: options.tokens.iter().map(|token| Token(*token)).collect(),
        release_version: "5.0.0".into(),
        schema_version: Uuid::nil(),
        is_alive,
        serves_clients: true,
        state: PeerState::Normal,
    }
}

fn boot_member(env: &Rc<MemoryEnv>, switch: &Rc<Switch>, options: NodeOptions, count: u16) -> Member {
    boot_member_as(env, switch, options, count, Arc::new(system_schema()))
}

fn boot_member_as(
    env: &Rc<MemoryEnv>,
    switch: &Rc<Switch>,
    options: NodeOptions,
    count: u16,
    schema: Arc<Schema>,
) -> Member {
    let mesh = Rc::new(Mesh::default());
    *mesh.env.borrow_mut() = Rc::downgrade(env);
    let shards = (0..count).map(|shard| {
        let port = Rc::new(Port {
            switch: switch.clone(),
            shard,
            clients: RefCell::default(),
        });
        let mailbox = Rc::new(Door {
            mesh: mesh.clone(),
            shard,
            count,
        });
        let parts = NodeParts {
            env: env.clone(),
            network: port.clone(),
            mailbox,
            options: Arc::new(options.clone()),
            runtime_samples: Box::new(|_| {}),
        };
        (Node::new(parts), port)
    });
    let (shards, ports): (Vec<_>, Vec<_>) = shards.unzip();
    *mesh.shards.borrow_mut() = shards.iter().map(Rc::downgrade).collect();
    for shard in &shards {
        let opened = async {
            shard.open_storage().await.unwrap();
            shard.finish_recovery(schema.clone()).await.unwrap();
        };
        env.block_on(opened).unwrap();
    }
    for shard in &shards {
        shard.listen_for_peers().unwrap();
        shard.listen().unwrap();
    }
    Member {
        node: shards[0].clone(),
        shards,
        port: ports[0].clone(),
        options,
        messages: Rc::default(),
    }
}

/// Schema changes are installed on all nodes at once; messages of peers are kept.
fn control(member: &Member, nodes: &[Weak<Node>], env: &Rc<MemoryEnv>) {
    for shard in &member.shards {
        control_shard(shard, member, nodes, env);
    }
}

fn control_shard(own: &Rc<Node>, member: &Member, nodes: &[Weak<Node>], env: &Rc<MemoryEnv>) {
    let (shard, nodes) = (own, nodes.to_vec());
    let (own, env, messages) = (Rc::downgrade(own), Rc::downgrade(env), member.messages.clone());
    shard.set_control(Box::new(move |request| {
        let (Some(own), Some(env)) = (own.upgrade(), env.upgrade()) else {
            return Err(request);
        };
        let (change, slot) = match request {
            ControlRequest::PeerMessage {
                from,
                from_address,
                body,
            } => {
                messages.borrow_mut().push((from, from_address, body));
                return Ok(());
            }
            ControlRequest::ChangeSchema { change, slot, .. } => (change, slot),
            other => return Err(other),
        };
        let now = env.clock().unix_micros();
        let nodes = nodes.clone();
        env.tasks().spawn(
            TaskQueue::Control,
            Box::pin(async move {
                let outcome = match change.apply(&own.schema(), now) {
                    Ok(Some(mut next)) => {
                        next.version = schema_rows::version(&next);
                        let event = change.event(&own.schema());
                        let next = Arc::new(next);
                        for node in nodes.iter().filter_map(Weak::upgrade) {
                            node.install_schema(next.clone()).await;
                        }
                        Ok(Some(event))
                    }
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                own.schema_changed(slot, outcome);
            }),
        );
        Ok(())
    }));
}
