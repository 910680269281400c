//! A client of one connection without a socket: bytes go into the node's protocol, answers come out of a buffer.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use ceto_env::{Acceptor, Network, Placement, Protocol, Socket};

/// Where clients would come from and go to.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Keeps what the node listens with.
#[derive(Default)]
pub(crate) struct MemoryNetwork {
    acceptor: RefCell<Option<Acceptor>>,
}

impl MemoryNetwork {
    /// A connection, once the node listens.
    pub(crate) fn connect(&self) -> Option<Connection> {
        let acceptor = self.acceptor.borrow().clone()?;
        let socket = Rc::new(MemorySocket::default());
        let protocol = acceptor(socket.clone());
        Some(Connection { socket, protocol })
    }
}

impl Network for MemoryNetwork {
    fn listen(&self, address: SocketAddr, _: Placement, acceptor: Acceptor) -> io::Result<SocketAddr> {
        self.acceptor.borrow_mut().get_or_insert(acceptor);
        Ok(address)
    }

    fn stop_accepting(&self) {
        self.acceptor.borrow_mut().take();
    }

    fn connections(&self) -> usize {
        1
    }
}

/// The server's end: a buffer.
#[derive(Default)]
pub(crate) struct MemorySocket {
    output: RefCell<BytesMut>,
    is_closed: Cell<bool>,
}

impl Socket for MemorySocket {
    fn write(&self, bytes: &[u8]) {
        self.output.borrow_mut().extend_from_slice(bytes);
    }

    fn write_with(&self, fill: &mut dyn FnMut(&mut BytesMut)) {
        fill(&mut self.output.borrow_mut());
    }

    fn unsent(&self) -> usize {
        0
    }

    fn pause(&self) {}

    fn resume(&self) {}

    fn close(&self) {
        self.is_closed.set(true);
    }

    fn peer(&self) -> SocketAddr {
        LOOPBACK
    }

    fn local(&self) -> SocketAddr {
        LOOPBACK
    }
}

/// The client's end.
pub(crate) struct Connection {
    socket: Rc<MemorySocket>,
    protocol: Box<dyn Protocol>,
}

impl Connection {
    /// Delivers bytes to the node, which handles them before this returns, but for what has to wait.
    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        self.protocol.received(bytes);
    }

    /// The server's end, to be looked at while something is waited for.
    pub(crate) fn socket(&self) -> Rc<MemorySocket> {
        self.socket.clone()
    }
}

impl MemorySocket {
    /// The answer has come, or none will.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_closed.get() || !self.output.borrow().is_empty()
    }

    /// Lets `look` see what came, and forgets it.
    pub(crate) fn take<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let mut output = self.output.borrow_mut();
        let seen = look(&output);
        output.clear();
        seen
    }
}
