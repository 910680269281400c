//! One connection: what it owes its peer, what it has been told, and when it ends.
//!
//! At most one receive (multishot) and one send are with the kernel. Callers change flags and buffers and put the
//! connection on the dirty list; [`NetworkRing::flush`](super::NetworkRing::flush) takes the next steps once per turn.
//!
//! ```text
//!   open --close()--> closing --output sent--> lingering --peer's end, or time--> dead --kernel done--> gone
//!     \                                                                            ^
//!      `------------- error, output bound, ring's end -----------------------------'
//! ```
//!
//! Lingering: our side is shut, and what the peer still sends is thrown away, because closing over unread bytes would
//! make the kernel drop the answers that are on their way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Weak;

use bytes::BytesMut;
use ceto_env::{Protocol, Socket};

use super::NetworkRing;

/// Output above which receiving stops until the peer has read.
const HOLD_ABOVE: usize = 1 << 20;
/// Output below which receiving goes on.
const RELEASE_BELOW: usize = 1 << 18;

/// Output is written to the last buffer until it is so long; then a new one is begun, so that much output is never moved.
const FULL_BUFFER: usize = 64 << 10;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// Both ways.
    Open,
    /// Writes are refused; what was written goes out.
    Closing,
    /// Our side is shut; waiting for the peer's end.
    Lingering,
    /// Both sides are shut; waiting for the kernel's last completions.
    Dead,
    /// The protocol was told; nothing follows.
    Gone,
}

/// One connection of this shard.
pub(super) struct Connection {
    pub(super) network: Weak<NetworkRing>,
    /// Payload of its completions.
    pub(super) key: u64,
    pub(super) stream: RefCell<Option<TcpStream>>,
    pub(super) protocol: RefCell<Option<Box<dyn Protocol>>>,
    peer: SocketAddr,
    local: SocketAddr,
    pub(super) phase: Cell<Phase>,
    /// On the dirty list.
    pub(super) dirty: Cell<bool>,
    /// The protocol wants nothing now.
    pub(super) paused: Cell<bool>,
    /// The peer does not read enough for more requests.
    pub(super) held_back: Cell<bool>,
    /// The protocol bounds its output itself.
    never_held_back: Cell<bool>,
    /// The peer has ended its side.
    pub(super) peer_ended: Cell<bool>,
    pub(super) receiving: Cell<bool>,
    pub(super) cancelling: Cell<bool>,
    /// Received while paused. At most what the receive buffers hold: the first such bytes cancel the receive.
    pub(super) held: RefCell<Vec<u8>>,
    /// Written and not with the kernel. No buffer is empty.
    pub(super) output: RefCell<VecDeque<BytesMut>>,
    /// Bytes of `output`.
    pub(super) queued: Cell<usize>,
    /// With the kernel while `sending_now`; not touched meanwhile.
    pub(super) sending: RefCell<BytesMut>,
    /// Bytes of `sending` that the kernel has taken.
    pub(super) sent: Cell<usize>,
    pub(super) sending_now: Cell<bool>,
}

impl Connection {
    pub(super) fn new(
        network: Weak<NetworkRing>,
        key: u64,
        stream: TcpStream,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        Self {
            network,
            key,
            stream: RefCell::new(Some(stream)),
            protocol: RefCell::new(None),
            peer,
            local,
            phase: Cell::new(Phase::Open),
            dirty: Cell::new(false),
            paused: Cell::new(false),
            held_back: Cell::new(false),
            never_held_back: Cell::new(false),
            peer_ended: Cell::new(false),
            receiving: Cell::new(false),
            cancelling: Cell::new(false),
            held: RefCell::default(),
            output: RefCell::default(),
            queued: Cell::new(0),
            sending: RefCell::default(),
            sent: Cell::new(0),
            sending_now: Cell::new(false),
        }
    }

    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.stream.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Puts the connection on the list of those whose next steps are taken at the end of the turn.
    pub(super) fn mark(&self) {
        if !self.dirty.replace(true)
            && let Some(network) = self.network.upgrade()
        {
            network.mark(self.key);
        }
    }

    /// The protocol takes bytes now.
    pub(super) fn takes_bytes(&self) -> bool {
        self.phase.get() == Phase::Open && !self.paused.get() && !self.held_back.get()
    }

    /// A receive should be with the kernel.
    pub(super) fn wants_receive(&self) -> bool {
        !self.peer_ended.get() && (self.takes_bytes() || self.phase.get() == Phase::Lingering)
    }

    /// Calls the protocol, when it is there and has not been told of the end.
    pub(super) fn with_protocol(&self, call: impl FnOnce(&mut dyn Protocol)) {
        if let Some(protocol) = self.protocol.borrow_mut().as_deref_mut() {
            call(protocol);
        }
    }

    /// Tells the protocol that the kernel has taken bytes.
    pub(super) fn tell_sent(&self) {
        if self.phase.get() != Phase::Open {
            return;
        }
        match self.unsent() {
            0 => self.with_protocol(|protocol| protocol.drained()),
            _ => self.with_protocol(|protocol| protocol.sent()),
        }
    }

    /// Shuts both sides; the kernel then ends what is under way.
    pub(super) fn kill(&self) {
        if self.phase.get() >= Phase::Dead {
            return;
        }
        self.phase.set(Phase::Dead);
        if let Some(stream) = self.stream.borrow().as_ref() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.mark();
    }

    /// Applies the bounds of the output after more was written.
    fn written(&self) {
        let Some(network) = self.network.upgrade() else {
            return;
        };
        let unsent = self.unsent();
        if unsent > HOLD_ABOVE && !self.never_held_back.get() && !self.held_back.replace(true) {
            network.metrics().output_pauses.add(1);
        }
        if unsent > network.output_bound() {
            network.metrics().output_overflows.add(1);
            self.kill();
        }
        self.mark();
    }

    /// Receives again once enough output is gone.
    pub(super) fn release(&self) {
        if self.held_back.get() && self.unsent() < RELEASE_BELOW {
            self.held_back.set(false);
            self.mark();
        }
    }
}

impl Socket for Connection {
    fn write(&self, bytes: &[u8]) {
        self.write_with(&mut |output| output.extend_from_slice(bytes));
    }

    fn write_with(&self, fill: &mut dyn FnMut(&mut BytesMut)) {
        if self.phase.get() != Phase::Open {
            return;
        }
        let mut output = self.output.borrow_mut();
        let (mut buffer, before) = match output.pop_back() {
            Some(last) if last.len() < FULL_BUFFER => {
                let length = last.len();
                (last, length)
            }
            last => {
                output.extend(last);
                let fresh = self.network.upgrade().map(|network| network.take_buffer());
                (fresh.unwrap_or_default(), 0)
            }
        };
        fill(&mut buffer);
        self.queued.set(self.queued.get() + buffer.len() - before);
        if buffer.is_empty() {
            return;
        }
        output.push_back(buffer);
        drop(output);
        self.written();
    }

    fn write_buffer(&self, buffer: BytesMut) {
        if self.phase.get() != Phase::Open || buffer.is_empty() {
            return;
        }
        self.queued.set(self.queued.get() + buffer.len());
        self.output.borrow_mut().push_back(buffer);
        self.written();
    }

    fn unsent(&self) -> usize {
        self.queued.get() + self.sending.borrow().len() - self.sent.get()
    }

    fn pause(&self) {
        self.paused.set(true);
    }

    fn resume(&self) {
        if self.paused.replace(false) {
            self.mark();
        }
    }

    fn close(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Closing);
            self.mark();
        }
    }

    fn abort(&self) {
        self.kill();
    }

    fn receive_whatever_is_unsent(&self) {
        self.never_held_back.set(true);
        if self.held_back.replace(false) {
            self.mark();
        }
    }

    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn local(&self) -> SocketAddr {
        self.local
    }
}
