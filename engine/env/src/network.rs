//! Sockets of one shard, accepted or made, in callback form: the network ring calls [`Protocol::received`] with the bytes that came
//! in, the protocol appends its answers with [`Socket::write`], and they leave in one send per socket at the end of
//! the turn. A protocol never blocks: what must wait is spawned as a task that keeps the `Rc<dyn Socket>`.
//!
//! Back-pressure: a protocol that has too much in flight calls [`Socket::pause`]; the ring stops receiving for that
//! socket. A peer that does not read lets [`Socket::unsent`] grow; [`Protocol::sent`] tells when it fell,
//! [`Protocol::drained`] when it fell to zero.
//! Without any of the protocol's doing, receiving stops while a mebibyte or more is unsent, and a connection whose
//! output passes the runtime's bound is cut.
//!
//! Ends: when the peer ends its side, what was written by the end of that turn still goes out, then the connection
//! closes; requests that are not answered by then are lost, as they are for a peer that closed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::LocalFuture;

/// Which shard serves an accepted connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// The shard with the fewest connections.
    LeastConnected,
    /// `peer port % shards` (the shard-aware port).
    SourcePort,
}

/// Makes the protocol of a new connection. Called on the shard that will serve it.
pub type Acceptor = Rc<dyn Fn(Rc<dyn Socket>) -> Box<dyn Protocol>>;

/// Makes the protocol of a connection that this shard has made.
pub type Connector = Box<dyn FnOnce(Rc<dyn Socket>) -> Box<dyn Protocol>>;

/// A connection to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where to.
    pub remote: SocketAddr,
    /// This end's address; any when absent.
    pub local: Option<IpAddr>,
    /// The shard wanted there and the number of shards there, where connections are placed by [`Placement::SourcePort`]:
    /// this end's port is chosen so.
    pub shard: Option<(u16, u16)>,
    /// Longest wait for the other end.
    pub timeout: Duration,
}

/// One connection's reader.
pub trait Protocol {
    /// Bytes arrived; they are valid only during the call. Never called within another call of the protocol, nor
    /// while it is paused.
    fn received(&mut self, bytes: &[u8]);
    /// Everything written has been handed to the kernel. May be a few milliseconds late for small outputs.
    fn drained(&mut self) {}
    /// The kernel has taken some of what was written, and more waits.
    fn sent(&mut self) {}
    /// The connection is gone; called once, nothing after it.
    fn closed(&mut self);
}

/// One connection's writer. Writing to a closed socket does nothing.
pub trait Socket {
    /// Appends to the output, to be sent at the end of the turn.
    fn write(&self, bytes: &[u8]);
    /// Appends to the output without a copy through a buffer of the caller's. `fill` only appends, and does not write to
    /// this socket by another way.
    fn write_with(&self, fill: &mut dyn FnMut(&mut bytes::BytesMut));
    /// Appends a whole buffer, without a copy. For large ones.
    fn write_buffer(&self, buffer: bytes::BytesMut) {
        self.write(&buffer);
    }
    /// Bytes written but not yet taken by the kernel.
    fn unsent(&self) -> usize;
    /// Stops receiving.
    fn pause(&self);
    /// Receives again.
    fn resume(&self);
    /// Sends what is written, then closes. Writes after it do nothing.
    fn close(&self);
    /// Closes at once; what is written and not sent is lost.
    fn abort(&self) {
        self.close();
    }
    /// From now on receiving does not stop while much is unsent. For protocols that bound themselves what they write: where
    /// both ends stopped for it, none would ever go on.
    fn receive_whatever_is_unsent(&self) {}
    /// The other end.
    fn peer(&self) -> SocketAddr;
    /// This end.
    fn local(&self) -> SocketAddr;
}

/// Listening.
pub trait Network {
    /// Listens on `address`. Every shard calls it with the same arguments in the same order; connections are spread
    /// over the shards by `placement`. Returns the bound address (for port 0). A failure is the same on every shard, and
    /// keeps its place in the order.
    fn listen(&self, address: SocketAddr, placement: Placement, acceptor: Acceptor)
    -> io::Result<SocketAddr>;
    /// Makes a connection that this shard serves. Completes when it is open and `connector` has been called.
    ///
    /// # Errors
    /// When there is no other end, or none that answers in time; or where connections cannot be made at all.
    fn connect(&self, route: Route, connector: Connector) -> LocalFuture<'static, io::Result<()>> {
        let (_, _) = (route, connector);
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
    /// Stops accepting, on every listening socket; open connections stay. Called on every shard. To accept again, listen
    /// again.
    fn stop_accepting(&self);
    /// Open connections of this shard.
    fn connections(&self) -> usize;
}
