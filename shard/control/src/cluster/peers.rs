//! Messages between control threads: requests with answers, notices, and gossip, over a channel that may lose them.
//!
//! ```text
//! message ::= kind:u8 content
//! gossip   (1)  chitchat's own form
//! request  (2)  id:u64 verb:u8 body        answered by
//! answer   (3)  id:u64 body                of the same id
//! notice   (4)  verb:u8 body               answered by nobody
//! ```
//!
//! Bodies are JSON. The channel beneath carries opaque bytes, keeps the order of what it does not lose, and says who
//! sent them.
//!
//! Bounds: [`REQUESTS_MAX`] requests wait for answers, a message has [`MESSAGE_BYTES_MAX`] bytes; more is refused, as if
//! it were lost.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use uuid::Uuid;

/// Requests of this node that wait for an answer.
pub const REQUESTS_MAX: usize = 1024;

/// A message has so many bytes at most.
pub const MESSAGE_BYTES_MAX: usize = ceto_node::peers::CONTROL_MESSAGE_MAX;

/// Gossip messages that wait; more are lost.
pub const GOSSIP_MAX: usize = 256;

/// The way to other nodes' control threads.
pub trait PeerChannel: Send + Sync + 'static {
    /// Sends `body` to the node with the internode address `to`. It may be lost.
    fn send(&self, to: SocketAddr, body: Bytes);
}

/// What came from another node.
#[derive(Clone, Debug)]
pub struct PeerMessage {
    /// Who sent it.
    pub from: Uuid,
    /// Its internode address.
    pub address: SocketAddr,
    /// What.
    pub body: Bytes,
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verb {
    /// Raft: entries and heartbeats.
    Append = 1,
    /// Raft: an election.
    Vote = 2,
    /// Raft: a part of a snapshot.
    Snapshot = 3,
    /// A command for the leader.
    Propose = 4,
    /// A node wants to be a member.
    Join = 5,
    /// Notice: the sender's schema version.
    SchemaVersion = 6,
    /// Notice: the receiver is refused, with the reason.
    Refused = 7,
    /// Who are you, and are you a member of a cluster?
    Hello = 8,
    /// How far the log is decided, for the leader.
    Decided = 9,
    /// Does the receiver hold rows of clients?
    HoldsData = 10,
    /// Does the receiver act by a change of the members, and has it ended what it began before?
    Installed = 11,
    /// The receiver is to copy what it will own; how far is it?
    Gain = 12,
}

impl Verb {
    fn of(code: u8) -> Option<Verb> {
        [
            Verb::Append,
            Verb::Vote,
            Verb::Snapshot,
            Verb::Propose,
            Verb::Join,
            Verb::SchemaVersion,
            Verb::Refused,
            Verb::Hello,
            Verb::Decided,
            Verb::HoldsData,
            Verb::Installed,
            Verb::Gain,
        ]
        .into_iter()
        .find(|verb| *verb as u8 == code)
    }
}

const GOSSIP: u8 = 1;
const REQUEST: u8 = 2;
const ANSWER: u8 = 3;
const NOTICE: u8 = 4;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// None came in time.
    TimedOut,
    /// Too many requests wait.
    Busy,
    /// The answer makes no sense.
    Malformed(String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::TimedOut => f.write_str("no answer in time"),
            CallError::Busy => f.write_str("too many requests wait for answers"),
            CallError::Malformed(text) => write!(f, "the answer makes no sense: {text}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Answers requests: the body of the answer, or None for none.
pub type Handler =
    Arc<dyn Fn(Verb, PeerMessage) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>> + Send + Sync>;

/// Requests and answers of one node.
pub struct Peers {
    channel: Arc<dyn PeerChannel>,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Bytes>>>,
    gossip: mpsc::Sender<(SocketAddr, Bytes)>,
}

impl Peers {
    /// Over `channel`; gossip that comes goes to the receiver.
    pub fn new(channel: Arc<dyn PeerChannel>) -> (Arc<Peers>, mpsc::Receiver<(SocketAddr, Bytes)>) {
        let (gossip, gossips) = mpsc::channel(GOSSIP_MAX);
        let peers = Peers {
            channel,
            // Answers to a former life of this process must not pass for answers to this one.
            next: AtomicU64::new(Uuid::new_v4().as_u64_pair().1),
            waiting: Mutex::default(),
            gossip,
        };
        (Arc::new(peers), gossips)
    }

    fn send(&self, to: SocketAddr, message: Bytes) {
        match message.len() <= MESSAGE_BYTES_MAX {
            true => self.channel.send(to, message),
            false => {
                warn!(%to, bytes = message.len(), "a message to another control thread is too long; it is not sent")
            }
        }
    }

    /// Asks the node at `to`, and waits for the answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        to: SocketAddr,
        verb: Verb,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, CallError> {
        let malformed = |error: serde_json::Error| CallError::Malformed(error.to_string());
        let body = serde_json::to_vec(question).map_err(malformed)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().expect("nobody panics with the lock");
            if waiting.len() >= REQUESTS_MAX {
                return Err(CallError::Busy);
            }
            waiting.insert(id, sender);
        }
        // Also when the caller stops waiting.
        let _forget = Forget { peers: self, id };
        let mut message = BytesMut::with_capacity(body.len() + 10);
        message.put_u8(REQUEST);
        message.put_u64(id);
        message.put_u8(verb as u8);
        message.put_slice(&body);
        self.send(to, message.freeze());
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(body)) => serde_json::from_slice(&body).map_err(malformed),
            Ok(Err(_)) | Err(_) => Err(CallError::TimedOut),
        }
    }

    /// Tells the node at `to` something.
    pub fn notify<N: Serialize>(&self, to: SocketAddr, verb: Verb, notice: &N) {
        if let Ok(body) = serde_json::to_vec(notice) {
            let mut message = BytesMut::with_capacity(body.len() + 2);
            message.put_u8(NOTICE);
            message.put_u8(verb as u8);
            message.put_slice(&body);
            self.send(to, message.freeze());
        }
    }

    /// Sends a message of gossip.
    pub fn gossip(&self, to: SocketAddr, body: &[u8]) {
        let mut message = BytesMut::with_capacity(body.len() + 1);
        message.put_u8(GOSSIP);
        message.put_slice(body);
        self.send(to, message.freeze());
    }

    /// Takes what came; requests and notices go to `handler`. What makes no sense is dropped.
    pub fn receive(self: &Arc<Self>, message: PeerMessage, handler: &Handler) {
        let mut body = message.body.clone();
        if body.is_empty() {
            return;
        }
        match body.get_u8() {
            GOSSIP => {
                // Gossip comes again.
                let _ = self.gossip.try_send((message.address, body));
            }
            REQUEST if body.len() >= 9 => {
                let (id, verb) = (body.get_u64(), Verb::of(body.get_u8()));
                let Some(verb) = verb else { return };
                let (peers, address) = (self.clone(), message.address);
                let answer = handler(verb, PeerMessage { body, ..message });
                tokio::spawn(async move {
                    if let Some(answer) = answer.await {
                        let mut message = BytesMut::with_capacity(answer.len() + 9);
                        message.put_u8(ANSWER);
                        message.put_u64(id);
                        message.put_slice(&answer);
                        peers.send(address, message.freeze());
                    }
                });
            }
            ANSWER if body.len() >= 8 => {
                let id = body.get_u64();
                let waiting = self
                    .waiting
                    .lock()
                    .expect("nobody panics with the lock")
                    .remove(&id);
                if let Some(waiting) = waiting {
                    // Who asked may have stopped waiting.
                    let _ = waiting.send(body);
                }
            }
            NOTICE if !body.is_empty() => {
                if let Some(verb) = Verb::of(body.get_u8()) {
                    tokio::spawn(handler(verb, PeerMessage { body, ..message }));
                }
            }
            _ => {}
        }
    }
}

struct Forget<'a> {
    peers: &'a Peers,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut waiting = self.peers.waiting.lock().expect("nobody panics with the lock");
        waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Loop(mpsc::UnboundedSender<Bytes>);

    impl PeerChannel for Loop {
        fn send(&self, _to: SocketAddr, body: Bytes) {
            self.0.send(body).unwrap();
        }
    }

    fn message(body: Bytes) -> PeerMessage {
        PeerMessage {
            from: Uuid::nil(),
            address: SocketAddr::from(([127, 0, 0, 1], 7000)),
            body,
        }
    }

    #[tokio::test]
    async fn long_questions_have_long_answers_and_nonsense_has_none() {
        let (sender, mut sent) = mpsc::unbounded_channel();
        let (peers, _gossip) = Peers::new(Arc::new(Loop(sender)));
        let echo: Handler =
            Arc::new(|_, message: PeerMessage| Box::pin(async move { Some(message.body.to_vec()) }));
        let receiver = peers.clone();
        tokio::spawn(async move {
            while let Some(body) = sent.recv().await {
                // Heads that are cut off, too.
                for end in 0..body.len().min(9) {
                    receiver.receive(message(body.slice(..end)), &echo);
                }
                receiver.receive(message(body), &echo);
            }
        });
        let to = SocketAddr::from(([127, 0, 0, 1], 7000));
        for size in [1, 100_000] {
            let question = "x".repeat(size);
            let answer: String = peers
                .call(to, Verb::Hello, &question, Duration::from_secs(20))
                .await
                .unwrap();
            assert!(answer == question);
        }
        assert!(peers.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_lost_question_is_forgotten() {
        struct Hole;
        impl PeerChannel for Hole {
            fn send(&self, _to: SocketAddr, _body: Bytes) {}
        }
        let (peers, _gossip) = Peers::new(Arc::new(Hole));
        let to = SocketAddr::from(([127, 0, 0, 1], 7000));
        let answer = peers.call::<_, ()>(to, Verb::Hello, &(), Duration::from_millis(20));
        assert_eq!(answer.await, Err(CallError::TimedOut));
        assert!(peers.waiting.lock().unwrap().is_empty());
    }
}
