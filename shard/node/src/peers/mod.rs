//! This shard's links to other nodes: what the pump and the control thread send to peers, and what comes from them.
//!
//! ```text
//!   this shard                                                       a peer's shard that owns the token
//!   outgoing link, dialled when it is first needed   --requests-->   incoming link
//!   (one per channel and shard of the peer)          <--answers---
//! ```
//!
//! Answers go back by the link that brought the question, or by one that goes to the shard that asked. Each link has a
//! bound of what waits on it: beyond it a request fails at once (a write is hinted then, a read asks another
//! replica), and an incoming link is not read until its answers are taken.
//!
//! Never: a message sent twice, a request that hangs because its link is gone (the coordinator is told), a wait of the
//! shard for a peer.
//!
//! Read next: `outgoing` for dialling, `incoming` for what a peer is served, `route` for who gets what, `calls` for what is
//! asked beside reads and writes.

mod calls;
mod figures;
mod incoming;
mod outgoing;
mod route;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ceto_internode::frame::Compression;
use ceto_internode::handshake::{Channel, Identity};
use ceto_internode::{FailureReason, HostId};
use rustc_hash::FxHashMap;

use crate::node::Node;
use crate::questions::Questions;
pub(crate) use calls::CallResult;
use figures::PeerFigures;
use incoming::Incoming;
use outgoing::Outgoing;

/// Bytes of the largest control message.
pub const CONTROL_MESSAGE_MAX: usize = 16 << 20;
/// Bytes that may wait on one outgoing link of a channel; one more message is taken by an empty one, whatever its size.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of answers that may wait on one incoming link before it is not read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Requests of one incoming link that may be under way before it is not read.
const REQUESTS_MAX: usize = 4096;
/// Links that other nodes may have to this shard; more are refused.
const INCOMING_MAX: usize = 4096;
/// Control links of a node, dialled by the addresses that gossip names; the longest unused gives way.
const CONTROL_LINKS_MAX: usize = 1024;
/// How long a connection and its greeting may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that a peer may ask something to take.
const CALL_TIME_MAX: Duration = Duration::from_secs(3600);
/// Pause after a dial that failed: at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a message to a peer was not taken. A message that was taken may be lost all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerSendError {
    /// There is no link, and it is too early to dial again.
    NoLink,
    /// As much waits for this peer as may.
    QueueFull,
    /// Larger than [`CONTROL_MESSAGE_MAX`], or than any frame.
    TooLarge,
}

impl fmt::Display for PeerSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLink => f.write_str("no link to this node, and it is too early to dial again"),
            Self::QueueFull => f.write_str("the queue of messages to this node is full"),
            Self::TooLarge => write!(f, "a control message has at most {CONTROL_MESSAGE_MAX} bytes"),
        }
    }
}

impl std::error::Error for PeerSendError {}

impl PeerSendError {
    /// What a coordinator makes of it.
    pub(crate) fn reason(self) -> FailureReason {
        match self {
            Self::NoLink => FailureReason::Timeout,
            Self::QueueFull | Self::TooLarge => FailureReason::Overloaded,
        }
    }
}

/// Which link a message takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Destination {
    /// A shard of a peer.
    Shard(HostId, u16, Channel),
    /// Whoever is reached there.
    Control(SocketAddr),
}

/// The links of one shard.
#[derive(Default)]
pub(crate) struct Peers {
    outgoing: RefCell<FxHashMap<Destination, Rc<Outgoing>>>,
    /// By the host and shard that have dialled, and the channel. A newer link of the same takes the place.
    incoming: RefCell<FxHashMap<(HostId, u16, Channel), Rc<Incoming>>>,
    incoming_open: Cell<usize>,
    /// For encoding messages.
    scratch: RefCell<Vec<u8>>,
    calls: Rc<Questions<CallResult>>,
    figures: PeerFigures,
    /// Where links are accepted.
    pub(crate) listening: Cell<Option<SocketAddr>>,
}

impl Node {
    /// What this shard says of itself on links.
    fn identity(&self) -> Identity {
        Identity {
            host: HostId(self.options.host_id),
            cluster: self.options.cluster_name.clone(),
            shard: self.shard(),
            shard_count: self.shard_count(),
            // Whoever dials decides, who knows where both ends stand.
            compression: Compression::Lz4,
        }
    }

    /// Where other nodes reach this one.
    fn internode_address(&self) -> SocketAddr {
        SocketAddr::new(self.options.broadcast_address, self.options.storage_port)
    }

    /// Accepts links of other nodes on `listen_address` and `storage_port`. Every shard calls it, before
    /// [`Node::listen`]; with port 0 the bound one is answered.
    ///
    /// # Errors
    /// With the address and the setting to change.
    pub fn listen_for_peers(self: &Rc<Self>) -> Result<SocketAddr, String> {
        let address = SocketAddr::new(self.options.listen_address, self.options.storage_port);
        let node = Rc::downgrade(self);
        let acceptor: ceto_env::Acceptor = Rc::new(move |socket| incoming::accept(node.clone(), socket));
        let bound = self
            .network
            .listen(address, ceto_env::Placement::SourcePort, acceptor)
            .map_err(|error| {
                let key = match error.kind() {
                    std::io::ErrorKind::AddrNotAvailable => "listen_address",
                    _ => "storage_port",
                };
                format!("cannot listen for other nodes on {address}: {error}; change {key}")
            })?;
        self.peers.listening.set(Some(bound));
        Ok(bound)
    }

    /// Ends every link, as at a drain.
    pub(crate) fn close_links(self: &Rc<Self>) {
        let outgoing = std::mem::take(&mut *self.peers.outgoing.borrow_mut());
        for link in outgoing.values() {
            link.close();
        }
        let incoming = std::mem::take(&mut *self.peers.incoming.borrow_mut());
        for link in incoming.values() {
            link.close();
        }
    }
}
