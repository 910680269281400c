//! A link that this shard dials: made when it is first needed, kept, and dialled again after a pause when it was lost.
//!
//! ```text
//!   idle --first message--> dialling --welcome--> open --lost--> idle
//!     ^                        `---failed---> resting ---time---'
//! ```
//!
//! What is sent while it is dialled waits, within the queue's bound. When a dial fails or an open link is lost, the
//! coordinator is told that the peer's answers will not come. A link that rests takes nothing: who asks learns it at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ceto_env::{Protocol, Route, Socket, TaskQueue};
use ceto_internode::HostId;
use ceto_internode::frame::{BODY_MAX, Compression, framed_size, put_frame};
use ceto_internode::handshake::{Channel, Hello, LINK_VERSION, LINK_VERSION_OLDEST, Welcome};
use ceto_internode::link::{Link, LinkError, LinkEvent};
use tracing::{info, warn};

use super::{DIAL_TIMEOUT, FIRST_PAUSE, LONGEST_PAUSE, Node, PeerSendError, QUEUE_BYTES_MAX};

/// Where a link leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// Who must be there; anybody when absent.
    pub(super) host: Option<HostId>,
    /// The shard wanted there and the number of shards; any when absent.
    pub(super) shard: Option<(u16, u16)>,
    pub(super) channel: Channel,
    pub(super) compression: Compression,
}

enum State {
    Idle,
    /// Since then; what waits, and its bytes.
    Dialling(VecDeque<Vec<u8>>, usize),
    Open(Rc<dyn Socket>, Compression),
    /// Until then.
    Resting(Instant),
}

/// A link that is dialled here.
pub(super) struct Outgoing {
    node: Weak<Node>,
    pub(super) target: Target,
    state: RefCell<State>,
    /// The pause after the next failure.
    pause: Cell<Duration>,
    /// The last failure was logged, and no dial succeeded since.
    is_warned: Cell<bool>,
    /// When something was sent last.
    pub(super) used: Cell<Instant>,
    /// Counts dials, so that the end of an earlier connection is not taken for the end of a later one.
    dial: Cell<u64>,
}

impl Outgoing {
    pub(super) fn new(node: &Rc<Node>, target: Target) -> Rc<Outgoing> {
        Rc::new(Outgoing {
            node: Rc::downgrade(node),
            target,
            state: RefCell::new(State::Idle),
            pause: Cell::new(FIRST_PAUSE),
            is_warned: Cell::new(false),
            used: Cell::new(node.env.clock().now()),
            dial: Cell::new(0),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open(..))
    }

    /// Bytes that wait.
    pub(super) fn queued(&self) -> usize {
        match &*self.state.borrow() {
            State::Dialling(_, bytes) => *bytes,
            State::Open(socket, _) => socket.unsent(),
            State::Idle | State::Resting(_) => 0,
        }
    }

    /// Sends a message, now or when the link is there.
    pub(super) fn send(self: &Rc<Self>, node: &Rc<Node>, body: &[u8]) -> Result<(), PeerSendError> {
        if body.len() > BODY_MAX {
            return Err(PeerSendError::TooLarge);
        }
        let fits = |waiting: usize| waiting == 0 || waiting + framed_size(body.len()) <= QUEUE_BYTES_MAX;
        let now = node.env.clock().now();
        let mut state = self.state.borrow_mut();
        match &mut *state {
            State::Open(socket, compression) => {
                if !fits(socket.unsent()) {
                    return Err(PeerSendError::QueueFull);
                }
                let (socket, compression) = (socket.clone(), *compression);
                drop(state);
                socket.write_with(&mut |out| {
                    put_frame(out, body, compression);
                });
            }
            State::Dialling(queue, bytes) => {
                if !fits(*bytes) {
                    return Err(PeerSendError::QueueFull);
                }
                *bytes += framed_size(body.len());
                queue.push_back(body.to_vec());
            }
            State::Resting(until) if now < *until => return Err(PeerSendError::NoLink),
            State::Idle | State::Resting(_) => {
                *state = State::Dialling([body.to_vec()].into(), framed_size(body.len()));
                drop(state);
                self.start_dialling(node);
            }
        }
        self.used.set(now);
        node.count_sent(self.target.channel, body.len());
        Ok(())
    }

    fn start_dialling(self: &Rc<Self>, node: &Rc<Node>) {
        let dial = self.dial.get() + 1;
        self.dial.set(dial);
        let (link, env) = (self.clone(), node.env.clone());
        let route = Route {
            remote: self.target.address,
            local: Some(node.options.listen_address).filter(|own| !own.is_unspecified()),
            shard: self.target.shard,
            timeout: DIAL_TIMEOUT,
        };
        let protocol_link = self.clone();
        let made = node.network.connect(
            route,
            Box::new(move |socket| Dialled::greet(protocol_link, dial, socket)),
        );
        let task = async move {
            if let Err(error) = made.await {
                return link.failed(dial, &error.to_string());
            }
            env.tasks().sleep(DIAL_TIMEOUT).await;
            link.failed(dial, "no answer to the greeting in time");
        };
        node.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
    }

    /// A dial has failed, unless it has succeeded meanwhile.
    fn failed(self: &Rc<Self>, dial: u64, why: &str) {
        if self.dial.get() != dial || !matches!(*self.state.borrow(), State::Dialling(..)) {
            return;
        }
        let Some(node) = self.node.upgrade() else { return };
        let pause = self.pause.get();
        // Not all shards of all nodes at once.
        let jitter = Duration::from_nanos(node.env.random() % (pause.as_nanos() as u64 / 2).max(1));
        let until = node.env.clock().now() + pause + jitter;
        *self.state.borrow_mut() = State::Resting(until);
        self.pause.set((pause * 2).min(LONGEST_PAUSE));
        node.peers.figures.dials_failed.increment();
        if !self.is_warned.replace(true) {
            let (address, channel) = (self.target.address, self.target.channel.name());
            warn!(%address, channel, "cannot link to a node: {why}");
        }
        self.tell_lost(&node);
    }

    /// An open link is gone.
    fn lost(self: &Rc<Self>, dial: u64, why: &str) {
        if self.dial.get() != dial {
            return;
        }
        if matches!(*self.state.borrow(), State::Dialling(..)) {
            return self.failed(dial, why);
        }
        if !self.is_open() {
            return;
        }
        *self.state.borrow_mut() = State::Idle;
        let Some(node) = self.node.upgrade() else { return };
        node.peers.figures.lost.increment();
        info!(address = %self.target.address, channel = self.target.channel.name(), "link to a node lost: {why}");
        self.tell_lost(&node);
    }

    fn tell_lost(&self, node: &Rc<Node>) {
        if let Some(host) = self.target.host {
            node.answers_lost(host, self.target.channel);
        }
    }

    fn opened(self: &Rc<Self>, dial: u64, socket: &Rc<dyn Socket>, welcome: &Welcome) -> Result<(), String> {
        if let Some((shard, count)) = self.target.shard
            && (welcome.shard, welcome.shard_count) != (shard, count)
        {
            return Err(format!(
                "shard {} of {} answered, {shard} of {count} was wanted: the node has another number of shards than it \
                 told the cluster",
                welcome.shard, welcome.shard_count
            ));
        }
        if self.dial.get() != dial {
            return Err("it was given up meanwhile".to_owned());
        }
        let state = self
            .state
            .replace(State::Open(socket.clone(), welcome.compression));
        if let State::Dialling(queue, _) = state {
            for body in queue {
                socket.write_with(&mut |out| {
                    put_frame(out, &body, welcome.compression);
                });
            }
        }
        self.pause.set(FIRST_PAUSE);
        self.is_warned.set(false);
        if let Some(node) = self.node.upgrade() {
            node.peers.figures.dialled.increment();
        }
        Ok(())
    }

    /// The next message may dial at once.
    pub(super) fn forget_failures(&self) {
        self.pause.set(FIRST_PAUSE);
        let mut state = self.state.borrow_mut();
        if matches!(*state, State::Resting(_)) {
            *state = State::Idle;
        }
    }

    /// Ends it; what waits is lost, and nobody is told.
    pub(super) fn close(&self) {
        self.dial.set(self.dial.get() + 1);
        if let State::Open(socket, _) = self.state.replace(State::Idle) {
            socket.abort();
        }
    }
}

/// The reader of a dialled connection.
struct Dialled {
    link: Rc<Outgoing>,
    dial: u64,
    socket: Rc<dyn Socket>,
    protocol: Link,
    why: String,
}

impl Dialled {
    fn greet(link: Rc<Outgoing>, dial: u64, socket: Rc<dyn Socket>) -> Box<dyn Protocol> {
        // What is written is bounded by the queue; reading must not stop, or two full ends would wait for each other.
        socket.receive_whatever_is_unsent();
        let mut out = BytesMut::new();
        let protocol = match link.node.upgrade() {
            Some(node) => Link::dial(&hello(&node, &link.target), &mut out),
            None => Link::dial(&nobody(&link.target), &mut BytesMut::new()),
        };
        socket.write(&out);
        Box::new(Dialled {
            link,
            dial,
            socket,
            protocol,
            why: "the other end has closed it".to_owned(),
        })
    }

    fn end(&mut self, why: String) {
        self.why = why;
        self.socket.abort();
    }

    fn take(&mut self, node: &Rc<Node>, event: LinkEvent) {
        match event {
            LinkEvent::Welcomed(welcome) => {
                if let Err(why) = self.link.opened(self.dial, &self.socket, &welcome) {
                    self.end(why);
                }
            }
            LinkEvent::Frame(body) => {
                node.count_received(self.link.target.channel, body.len());
                if let Some(from) = self.link.target.host
                    && let Err(error) = node.take_from_peer(from, body)
                {
                    node.peers.figures.broken.increment();
                    self.end(error.to_string());
                }
            }
            LinkEvent::Accepted(_) => {}
        }
    }
}

impl Protocol for Dialled {
    fn received(&mut self, bytes: &[u8]) {
        let Some(node) = self.link.node.upgrade() else {
            return self.socket.abort();
        };
        self.protocol.received(bytes);
        loop {
            let mut out = BytesMut::new();
            match self.protocol.next(&mut out) {
                Ok(None) => return,
                Ok(Some(event)) => self.take(&node, event),
                Err(error) => {
                    let figures = &node.peers.figures;
                    match error {
                        LinkError::RefusedThere(_) | LinkError::RefusedHere(..) => {
                            figures.refused.increment()
                        }
                        LinkError::Greeting(_) | LinkError::Frame(_) => figures.broken.increment(),
                    }
                    return self.end(error.to_string());
                }
            }
        }
    }

    fn closed(&mut self) {
        self.link.lost(self.dial, &self.why);
    }
}

fn hello(node: &Node, target: &Target) -> Hello {
    let identity = node.identity();
    Hello {
        shard: identity.shard,
        shard_count: identity.shard_count,
        host: identity.host,
        address: node.internode_address(),
        cluster: identity.cluster,
        ..nobody(target)
    }
}

/// What is said before anything of the node is known.
fn nobody(target: &Target) -> Hello {
    Hello {
        oldest: LINK_VERSION_OLDEST,
        newest: LINK_VERSION,
        channel: target.channel,
        compression: target.compression,
        shard: 0,
        shard_count: 1,
        host: HostId(uuid::Uuid::nil()),
        wanted: target.host,
        address: target.address,
        cluster: String::new(),
    }
}
