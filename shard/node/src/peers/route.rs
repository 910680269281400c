//! Who gets what: requests go to the peer's shard that owns the token, answers to the shard that asked.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ceto_cluster::coordinator::Actions;
use ceto_internode::frame::Compression;
use ceto_internode::handshake::Channel;
use ceto_internode::{Call, FailureReason, HostId, Message, RepairMessage, StreamMessage, encode};
use ceto_model::read::ReadTarget;

use super::outgoing::{Outgoing, Target};
use super::{CONTROL_LINKS_MAX, CONTROL_MESSAGE_MAX, Destination, Node, PeerSendError};
use crate::options::InternodeCompression;
use crate::topology::{Peer, Topology};

impl Node {
    /// Sends a message of the control thread to the control thread of the node at `to`, whose internode address that is.
    /// Call it on shard 0. What is taken may be lost; what arrives of one connection arrives in order. The link is made
    /// when it is needed, and kept.
    ///
    /// # Errors
    /// When it cannot be taken; nothing is sent then.
    pub fn send_control(self: &Rc<Self>, to: SocketAddr, body: Bytes) -> Result<(), PeerSendError> {
        if body.len() > CONTROL_MESSAGE_MAX {
            return Err(PeerSendError::TooLarge);
        }
        let link = self.link(Destination::Control(to), || {
            Some(Target {
                address: to,
                host: None,
                shard: None,
                channel: Channel::Control,
                compression: Compression::None,
            })
        });
        let sent = link.ok_or(PeerSendError::NoLink)?.send(self, &body);
        self.count_outcome(sent)
    }

    /// Performs a coordinator's wish to send. What cannot be sent has failed, and the core is told so.
    pub(crate) fn send_to_peer(self: &Rc<Self>, to: HostId, message: Message, actions: &mut Actions) {
        if let Err(error) = self.send_message(to, &message) {
            self.feed_failure(to, message.exchange(), error.reason(), actions);
        }
    }

    /// Sends a request to the shard that is to serve it, an answer to the shard that has asked.
    ///
    /// # Errors
    /// When a request cannot be taken. Answers that cannot be sent are dropped.
    pub(crate) fn send_message(self: &Rc<Self>, to: HostId, message: &Message) -> Result<(), PeerSendError> {
        self.with_encoded(message, |scratch| match asked_shard(message) {
            Asked::Request(shard_of) => self.send_request(to, shard_of, channel_of(message), scratch),
            Asked::Answer => {
                self.send_answer(to, message, scratch);
                Ok(())
            }
        })
    }

    /// Sends a request to one shard of a peer, whatever it owns.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub(crate) fn ask_shard(
        self: &Rc<Self>,
        to: HostId,
        shard: u16,
        message: &Message,
    ) -> Result<(), PeerSendError> {
        self.with_encoded(message, |scratch| {
            self.send_request(to, |_| Some(shard), channel_of(message), scratch)
        })
    }

    /// Answers a peer. How many bytes that takes, should they be sent.
    pub(crate) fn answer_peer(self: &Rc<Self>, to: HostId, message: &Message) -> usize {
        self.with_encoded(message, |scratch| self.send_answer(to, message, scratch))
    }

    fn with_encoded<R>(&self, message: &Message, send: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut scratch = std::mem::take(&mut *self.peers.scratch.borrow_mut());
        scratch.clear();
        encode(&mut scratch, message);
        let sent = send(&mut scratch);
        const KEPT: usize = 1 << 20;
        if scratch.capacity() <= KEPT {
            *self.peers.scratch.borrow_mut() = scratch;
        }
        sent
    }

    fn send_request(
        self: &Rc<Self>,
        to: HostId,
        shard_of: impl Fn(u16) -> Option<u16>,
        channel: Channel,
        body: &[u8],
    ) -> Result<(), PeerSendError> {
        let sent = self.dispatch(to, shard_of, channel, body);
        self.count_outcome(sent)
    }

    fn dispatch(
        self: &Rc<Self>,
        to: HostId,
        shard_of: impl Fn(u16) -> Option<u16>,
        channel: Channel,
        body: &[u8],
    ) -> Result<(), PeerSendError> {
        let topology = self.topology.borrow().clone();
        let peer = topology.peer(to).ok_or(PeerSendError::NoLink)?;
        let count = peer.shard_count.max(1);
        // What no shard owns is spread.
        let shard = shard_of(count).unwrap_or_else(|| self.shard() % count);
        let destination = Destination::Shard(to, shard, channel);
        let link = self.link(destination, || Some(self.target(peer, shard, channel)));
        link.ok_or(PeerSendError::NoLink)?.send(self, body)
    }

    fn target(&self, peer: &Peer, shard: u16, channel: Channel) -> Target {
        let compresses = match self.options.internode_compression {
            InternodeCompression::None => false,
            InternodeCompression::All => true,
            InternodeCompression::Datacenters => *peer.datacenter != *self.options.datacenter,
        };
        Target {
            address: peer.internode,
            host: Some(peer.host),
            shard: Some((shard, peer.shard_count.max(1))),
            channel,
            compression: if compresses {
                Compression::Lz4
            } else {
                Compression::None
            },
        }
    }

    /// The link to a destination, which is made where it is not there.
    fn link(
        self: &Rc<Self>,
        destination: Destination,
        target: impl FnOnce() -> Option<Target>,
    ) -> Option<Rc<Outgoing>> {
        let mut outgoing = self.peers.outgoing.borrow_mut();
        if let Some(link) = outgoing.get(&destination) {
            return Some(link.clone());
        }
        if matches!(destination, Destination::Control(_)) {
            let controls = outgoing
                .iter()
                .filter(|(key, _)| matches!(key, Destination::Control(_)));
            if controls.clone().count() >= CONTROL_LINKS_MAX {
                let oldest = controls
                    .min_by_key(|(_, link)| link.used.get())
                    .map(|(key, _)| *key);
                if let Some(gone) = oldest.and_then(|key| outgoing.remove(&key)) {
                    gone.close();
                }
            }
        }
        let link = Outgoing::new(self, target()?);
        outgoing.insert(destination, link.clone());
        Some(link)
    }

    fn count_outcome(&self, sent: Result<(), PeerSendError>) -> Result<(), PeerSendError> {
        match sent {
            Ok(()) => {}
            Err(PeerSendError::NoLink) => self.peers.figures.unreachable.increment(),
            Err(PeerSendError::QueueFull | PeerSendError::TooLarge) => {
                self.peers.figures.overflows.increment()
            }
        }
        sent
    }

    /// Answers go back by the link of the shard that asked. Without one, the asker has lost its link too and does not wait.
    fn send_answer(self: &Rc<Self>, to: HostId, message: &Message, scratch: &mut Vec<u8>) -> usize {
        let (exchange, channel) = (message.exchange(), channel_of(message));
        let size = scratch.len();
        let link = self
            .peers
            .incoming
            .borrow()
            .get(&(to, exchange.request.shard, channel))
            .cloned();
        let Some(link) = link else {
            self.peers.figures.answers_dropped.increment();
            return size;
        };
        if !link.answer(scratch) {
            scratch.clear();
            let reason = FailureReason::ReadSize;
            encode(scratch, &too_large(message, reason));
            link.answer(scratch);
        }
        self.count_sent(channel, scratch.len());
        size
    }

    /// Takes a message of a peer.
    pub(super) fn take_from_peer(
        self: &Rc<Self>,
        from: HostId,
        body: Bytes,
    ) -> Result<(), ceto_internode::Error> {
        let size = body.len();
        match ceto_internode::decode(body)? {
            Message::Call { exchange, call } => self.take_call(from, exchange, call),
            Message::Called { exchange, outcome } => self.take_outcome(from, exchange, outcome),
            Message::Paxos { exchange, body } => self.handle_paxos(from, exchange, body),
            Message::Stream { exchange, body } => self.take_stream(from, exchange, body, size),
            message => self.handle_peer_message(from, message),
        }
        Ok(())
    }

    /// Answers of this peer that are awaited by links of this channel will not come.
    pub(super) fn answers_lost(self: &Rc<Self>, peer: HostId, channel: Channel) {
        match channel {
            Channel::Statements => self.peer_lost(peer),
            Channel::Bulk => self.stream_lost(peer),
            Channel::Control => {}
        }
    }

    /// Links that a new topology makes useless are closed, and peers that are back are dialled without a pause.
    pub(crate) fn update_links(self: &Rc<Self>, old: &Topology, new: &Arc<Topology>) {
        let mut gone = Vec::new();
        self.peers.outgoing.borrow_mut().retain(|destination, link| {
            let Destination::Shard(host, shard, channel) = *destination else {
                return true;
            };
            let peer = new.peer(host).filter(|peer| peer.is_alive);
            let keeps = peer.is_some_and(|peer| self.target(peer, shard, channel) == link.target);
            if !keeps {
                gone.push((host, channel, link.clone()));
            }
            keeps
        });
        for (host, channel, link) in gone {
            link.close();
            self.answers_lost(host, channel);
        }
        let was_down = |peer: &Peer| !old.peer(peer.host).is_some_and(|old| old.is_alive);
        let back = new.peers.iter().filter(|peer| peer.is_alive && was_down(peer));
        let outgoing = self.peers.outgoing.borrow();
        for peer in back {
            let control = outgoing.get(&Destination::Control(peer.internode));
            control.into_iter().for_each(|link| link.forget_failures());
        }
    }
}

/// Whom a message is for.
enum Asked<F> {
    /// A replica: the shard that does the work, of so many.
    Request(F),
    /// The coordinator that asked.
    Answer,
}

fn asked_shard(message: &Message) -> Asked<impl Fn(u16) -> Option<u16> + use<>> {
    let token = match message {
        Message::Mutate { mutation, .. } => Some(mutation.key.token),
        Message::Read { command, .. } => match &command.target {
            ReadTarget::Partition(key) => Some(key.token),
            ReadTarget::Range(_) => None,
        },
        Message::Paxos { body, .. } => match body.token() {
            None => return Asked::Answer,
            token => token,
        },
        // Any shard will do: it asks the others of its node.
        Message::Repair { body, .. } => match body {
            RepairMessage::Hash { .. } => None,
            RepairMessage::Hashes { .. } | RepairMessage::Failed { .. } => return Asked::Answer,
        },
        Message::Stream { body, .. } => match body {
            StreamMessage::Fetch { .. } => None,
            StreamMessage::Page(_) | StreamMessage::Failed { .. } => return Asked::Answer,
        },
        Message::Call { call, .. } => match call {
            Call::Apply(mutation) => Some(mutation.key.token),
            Call::Count { increments, .. } => Some(increments.key.token),
            Call::Truncate { .. } => None,
        },
        Message::MutateAck { .. }
        | Message::ReadResponse { .. }
        | Message::Failure { .. }
        | Message::Called { .. } => return Asked::Answer,
    };
    Asked::Request(move |count| token.map(|token| token.shard(count)))
}

/// The channel that a message takes, and its answer.
fn channel_of(message: &Message) -> Channel {
    match message {
        Message::Stream { .. } => Channel::Bulk,
        _ => Channel::Statements,
    }
}

/// Instead of an answer that is larger than any frame.
fn too_large(message: &Message, reason: FailureReason) -> Message {
    let exchange = message.exchange();
    match message {
        Message::Stream { .. } => Message::Stream {
            exchange,
            body: StreamMessage::Failed {
                reason,
                text: "a row is larger than a message between nodes may be".to_owned(),
            },
        },
        _ => Message::Failure { exchange, reason },
    }
}
