//! This shard's links to other nodes.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;

use crate::node::Node;

/// Bytes of the largest control message.
pub const CONTROL_MESSAGE_MAX: usize = 16 << 20;

/// Why a message to a peer was not taken. A message that was taken may be lost all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerSendError {
    /// No link can be made: the node does not listen for peers.
    NoLink,
    /// As much waits for this peer as may.
    QueueFull,
    /// Larger than [`CONTROL_MESSAGE_MAX`].
    TooLarge,
}

impl fmt::Display for PeerSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLink => f.write_str("no link: this node does not listen for other nodes"),
            Self::QueueFull => f.write_str("the queue of control messages to this node is full"),
            Self::TooLarge => write!(f, "a control message has at most {CONTROL_MESSAGE_MAX} bytes"),
        }
    }
}

impl std::error::Error for PeerSendError {}

impl Node {
    /// Sends a message of the control thread to the control thread of the node at `to`, whose internode address that is.
    /// Call it on shard 0. What is taken may be lost; what arrives of one connection arrives in order. The link is made
    /// when it is needed, and kept.
    ///
    /// # Errors
    /// When it cannot be taken; nothing is sent then.
    pub fn send_control(self: &Rc<Self>, to: SocketAddr, body: Bytes) -> Result<(), PeerSendError> {
        let _ = (to, body);
        Err(PeerSendError::NoLink)
    }

    /// Accepts links of other nodes on `listen_address` and `storage_port`. Every shard calls it, before [`Node::listen`].
    ///
    /// # Errors
    /// With the address and the setting to change.
    pub fn listen_for_peers(self: &Rc<Self>) -> Result<SocketAddr, String> {
        Err("links to other nodes are not there yet".to_owned())
    }
}
