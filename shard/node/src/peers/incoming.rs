//! A link that a peer has dialled: its requests are served here, and answers go back by it.
//!
//! While as many of its requests are under way as may, or as many bytes of answers wait, it is not read; what the peer sends
//! then waits with the peer, within the peer's own bound.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use bytes::BytesMut;
use ceto_env::{Protocol, Socket, TaskQueue};
use ceto_internode::HostId;
use ceto_internode::frame::{BODY_MAX, Compression, put_frame};
use ceto_internode::handshake::{Channel, Hello};
use ceto_internode::link::{Link, LinkError, LinkEvent};
use tracing::warn;

use super::{ANSWER_BYTES_MAX, DIAL_TIMEOUT, INCOMING_MAX, Node, REQUESTS_MAX};
use crate::control::ControlRequest;

/// A link that was accepted and greeted well.
pub(super) struct Incoming {
    socket: Rc<dyn Socket>,
    compression: Compression,
    /// Requests under way.
    requests: Cell<usize>,
    is_paused: Cell<bool>,
}

impl Incoming {
    /// Sends an answer. False when it is larger than any frame.
    pub(super) fn answer(&self, body: &[u8]) -> bool {
        self.requests.set(self.requests.get().saturating_sub(1));
        let fits = body.len() <= BODY_MAX;
        if fits {
            let compression = self.compression;
            self.socket.write_with(&mut |out| {
                put_frame(out, body, compression);
            });
        }
        self.go_on();
        fits
    }

    fn is_full(&self) -> bool {
        self.requests.get() >= REQUESTS_MAX || self.socket.unsent() >= ANSWER_BYTES_MAX
    }

    /// Reads again when much of what was under way is done.
    fn go_on(&self) {
        if self.is_paused.get()
            && self.requests.get() <= REQUESTS_MAX / 2
            && self.socket.unsent() <= ANSWER_BYTES_MAX / 2
        {
            self.is_paused.set(false);
            self.socket.resume();
        }
    }

    pub(super) fn close(&self) {
        self.socket.abort();
    }
}

/// The reader of an accepted connection.
struct Accepted {
    node: Weak<Node>,
    socket: Rc<dyn Socket>,
    protocol: Link,
    is_greeted: Rc<Cell<bool>>,
    is_counted: bool,
    peer: Option<Greeted>,
}

/// Who is at the other end.
struct Greeted {
    host: HostId,
    shard: u16,
    address: SocketAddr,
    channel: Channel,
    link: Rc<Incoming>,
}

/// The protocol of a connection to the port of links.
pub(super) fn accept(node: Weak<Node>, socket: Rc<dyn Socket>) -> Box<dyn Protocol> {
    let Some(own) = node.upgrade() else {
        socket.abort();
        return Box::new(Nobody);
    };
    let open = &own.peers.incoming_open;
    if open.get() >= INCOMING_MAX {
        own.peers.figures.refused.increment();
        socket.abort();
        return Box::new(Nobody);
    }
    open.set(open.get() + 1);
    socket.receive_whatever_is_unsent();
    let is_greeted = Rc::new(Cell::new(false));
    let (greeted, waiting, env) = (is_greeted.clone(), Rc::downgrade(&socket), own.env.clone());
    let task = async move {
        env.tasks().sleep(DIAL_TIMEOUT).await;
        if let Some(socket) = waiting.upgrade().filter(|_| !greeted.get()) {
            socket.abort();
        }
    };
    own.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
    Box::new(Accepted {
        protocol: Link::accept(own.identity()),
        node,
        socket,
        is_greeted,
        is_counted: true,
        peer: None,
    })
}

/// Of a connection that is closed already.
struct Nobody;

impl Protocol for Nobody {
    fn received(&mut self, _: &[u8]) {}

    fn closed(&mut self) {}
}

impl Accepted {
    fn greeted(&mut self, node: &Rc<Node>, hello: &Hello) {
        self.is_greeted.set(true);
        node.peers.figures.accepted.increment();
        let link = Rc::new(Incoming {
            socket: self.socket.clone(),
            compression: self.protocol.compression(),
            requests: Cell::new(0),
            is_paused: Cell::new(false),
        });
        if hello.channel != Channel::Control {
            let mut incoming = node.peers.incoming.borrow_mut();
            incoming.insert((hello.host, hello.shard, hello.channel), link.clone());
        }
        self.peer = Some(Greeted {
            host: hello.host,
            shard: hello.shard,
            address: hello.address,
            channel: hello.channel,
            link,
        });
    }

    fn take(&mut self, node: &Rc<Node>, event: LinkEvent) {
        let body = match event {
            LinkEvent::Accepted(hello) => return self.greeted(node, &hello),
            LinkEvent::Welcomed(_) => return,
            LinkEvent::Frame(body) => body,
        };
        let Some(peer) = &self.peer else { return };
        node.count_received(peer.channel, body.len());
        if peer.channel == Channel::Control {
            let message = ControlRequest::PeerMessage {
                from: peer.host,
                from_address: peer.address,
                body,
            };
            if node.ask_control(message).is_err() {
                node.peers.figures.control_dropped.increment();
            }
            return;
        }
        let link = peer.link.clone();
        link.requests.set(link.requests.get() + 1);
        if let Err(error) = node.take_from_peer(peer.host, body) {
            node.peers.figures.broken.increment();
            warn!(peer = %peer.address, %error, "a node sent bytes that are no message");
            return self.socket.abort();
        }
        if link.is_full() && !link.is_paused.replace(true) {
            node.peers.figures.paused.increment();
            link.socket.pause();
        }
    }
}

impl Protocol for Accepted {
    fn received(&mut self, bytes: &[u8]) {
        let Some(node) = self.node.upgrade() else {
            return self.socket.abort();
        };
        self.protocol.received(bytes);
        loop {
            let mut out = BytesMut::new();
            let next = self.protocol.next(&mut out);
            if !out.is_empty() {
                self.socket.write(&out);
            }
            match next {
                Ok(None) => return,
                Ok(Some(event)) => self.take(&node, event),
                Err(error) => {
                    let figures = &node.peers.figures;
                    match &error {
                        LinkError::RefusedThere(_) | LinkError::RefusedHere(..) => {
                            figures.refused.increment()
                        }
                        LinkError::Greeting(_) | LinkError::Frame(_) => figures.broken.increment(),
                    }
                    warn!(from = %self.socket.peer(), "a link is refused: {error}");
                    // The reason still goes out.
                    return self.socket.close();
                }
            }
        }
    }

    fn drained(&mut self) {
        self.sent();
    }

    fn sent(&mut self) {
        if let Some(peer) = &self.peer {
            peer.link.go_on();
        }
    }

    fn closed(&mut self) {
        self.is_greeted.set(true);
        let Some(node) = self.node.upgrade() else { return };
        if std::mem::take(&mut self.is_counted) {
            let open = &node.peers.incoming_open;
            open.set(open.get().saturating_sub(1));
        }
        let Some(peer) = self.peer.take() else { return };
        let mut incoming = node.peers.incoming.borrow_mut();
        let key = (peer.host, peer.shard, peer.channel);
        if incoming.get(&key).is_some_and(|own| Rc::ptr_eq(own, &peer.link)) {
            incoming.remove(&key);
        }
    }
}
