//! The mailbox mesh: a bounded lane from every shard to every other, and a door for the control thread.
//!
//! ```text
//!   shard 0 --lane--> shard 1        overflow (sender's side, bounded) -> lane (bounded) -> receiver's callback
//!   shard 1 --lane--> shard 0        control thread --stack (bounded)-> each shard
//! ```
//!
//! Messages leave at the end of the sender's turn, in one batch per lane, and a sleeping receiver is woken once per
//! batch. Order is kept per lane. Nothing is dropped: a message is delivered or given back to its sender. A shard that
//! sends to itself gets the message in its next turn.

mod spsc;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ceto_env::Mailbox;

use crate::handle::ShardHandle;
use crate::metrics::RuntimeMetrics;
use crate::ring::Ring;
use crate::stack::Stack;
use spsc::{Consumer, Producer};

/// Messages taken from one lane before the next one has its turn.
const BATCH: usize = 256;
/// Messages between two looks at the clock.
const CLOCK_INTERVAL: usize = 16;

/// Where a message comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A shard of this node, maybe this one.
    Shard(u16),
    /// A [`ControlHandle`].
    Control,
}

/// Takes a shard's messages, one by one, in the shard's own thread.
pub type Receiver<M> = Rc<dyn Fn(Origin, M)>;

/// What the event loop knows of a mailbox, whatever its messages are.
pub(crate) trait MailboxPort {
    /// Delivers what came in, until `deadline`.
    fn receive(&self, deadline: Instant);
    /// Publishes what was sent, and wakes who sleeps through `ring`.
    fn flush(&self, ring: &Ring);
    /// Something came in.
    fn has_incoming(&self) -> bool;
    /// Something sent is not published yet.
    fn has_outgoing(&self) -> bool;
}

/// What lies between the threads before the shards start: one seat per shard.
pub(crate) struct Seat<M> {
    outgoing: Vec<Option<Producer<M>>>,
    incoming: Vec<Option<Consumer<M>>>,
    control: Arc<Stack<M>>,
}

/// Lanes between all of `shards`, each of `capacity` messages.
pub(crate) fn mesh<M: Send>(shards: u16, capacity: usize) -> Vec<Seat<M>> {
    let count = usize::from(shards);
    let mut seats: Vec<Seat<M>> = (0..count)
        .map(|_| Seat {
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
            control: Arc::new(Stack::new(capacity)),
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (producer, consumer) = spsc::ring(capacity);
            seats[from].outgoing[to] = Some(producer);
            seats[to].incoming[from] = Some(consumer);
        }
    }
    seats
}

struct Outgoing<M> {
    lane: Option<Producer<M>>,
    overflow: VecDeque<M>,
}

struct Incoming<M> {
    from: usize,
    lane: Consumer<M>,
}

/// One shard's end of the mesh.
pub(crate) struct Port<M> {
    shard: u16,
    outgoing: RefCell<Vec<Outgoing<M>>>,
    incoming: RefCell<Vec<Incoming<M>>>,
    /// Messages to itself, and what was taken from the control door and waits its turn.
    own: RefCell<VecDeque<M>>,
    from_control: RefCell<VecDeque<M>>,
    control: Arc<Stack<M>>,
    receiver: RefCell<Option<Receiver<M>>>,
    overflow_bound: usize,
    unpublished: Cell<bool>,
    handles: Arc<[Arc<ShardHandle>]>,
    metrics: Arc<RuntimeMetrics>,
}

impl<M> Port<M> {
    pub(crate) fn new(
        seat: Seat<M>,
        shard: u16,
        overflow_bound: usize,
        handles: Arc<[Arc<ShardHandle>]>,
    ) -> Self {
        let metrics = Arc::clone(&handles[usize::from(shard)].metrics);
        Self {
            shard,
            outgoing: RefCell::new(
                seat.outgoing
                    .into_iter()
                    .map(|lane| Outgoing {
                        lane,
                        overflow: VecDeque::new(),
                    })
                    .collect(),
            ),
            incoming: RefCell::new(
                seat.incoming
                    .into_iter()
                    .enumerate()
                    .filter_map(|(from, lane)| Some(Incoming { from, lane: lane? }))
                    .collect(),
            ),
            own: RefCell::default(),
            from_control: RefCell::default(),
            control: seat.control,
            receiver: RefCell::default(),
            overflow_bound,
            unpublished: Cell::new(false),
            handles,
            metrics,
        }
    }

    /// Sets who takes the messages. Until then they wait in their lanes.
    pub(crate) fn set_receiver(&self, receiver: Receiver<M>) {
        *self.receiver.borrow_mut() = Some(receiver);
    }

    /// Forgets the receiver (and with it what it holds).
    pub(crate) fn close(&self) {
        let receiver = self.receiver.borrow_mut().take();
        drop(receiver);
    }

    /// Delivers up to a batch that `next` yields. Returns how many, and whether there is time for more.
    fn deliver(
        &self,
        receiver: &Receiver<M>,
        origin: Origin,
        deadline: Instant,
        mut next: impl FnMut() -> Option<M>,
    ) -> (usize, bool) {
        let counter = match origin {
            Origin::Shard(_) => &self.metrics.mailbox_received,
            Origin::Control => &self.metrics.control_received,
        };
        for delivered in 0..BATCH {
            if delivered % CLOCK_INTERVAL == CLOCK_INTERVAL - 1 && Instant::now() >= deadline {
                return (delivered, false);
            }
            let Some(message) = next() else {
                return (delivered, true);
            };
            counter.add(1);
            receiver(origin, message);
        }
        (BATCH, true)
    }
}

impl<M> Mailbox<M> for Port<M> {
    fn send(&self, to: u16, message: M) -> Result<(), M> {
        if to == self.shard {
            let mut own = self.own.borrow_mut();
            if own.len() >= self.overflow_bound {
                self.metrics.mailbox_full.add(1);
                return Err(message);
            }
            own.push_back(message);
            self.metrics.mailbox_sent.add(1);
            return Ok(());
        }
        let mut outgoing = self.outgoing.borrow_mut();
        let Some(Outgoing {
            lane: Some(lane),
            overflow,
        }) = outgoing.get_mut(usize::from(to))
        else {
            return Err(message);
        };
        let refused = if overflow.is_empty() {
            lane.push(message)
        } else {
            Err(message)
        };
        if let Err(message) = refused {
            if overflow.len() >= self.overflow_bound {
                self.metrics.mailbox_full.add(1);
                return Err(message);
            }
            overflow.push_back(message);
            self.metrics.mailbox_overflow.add(1);
        }
        self.metrics.mailbox_sent.add(1);
        self.unpublished.set(true);
        Ok(())
    }

    fn shard_count(&self) -> u16 {
        self.handles.len() as u16
    }

    fn shard(&self) -> u16 {
        self.shard
    }

    fn depth(&self, to: u16) -> usize {
        if to == self.shard {
            return self.own.borrow().len();
        }
        match self.outgoing.borrow().get(usize::from(to)) {
            Some(Outgoing {
                lane: Some(lane),
                overflow,
            }) => lane.len() + overflow.len(),
            _ => 0,
        }
    }
}

impl<M> MailboxPort for Port<M> {
    fn receive(&self, deadline: Instant) {
        let Some(receiver) = self.receiver.borrow().clone() else {
            return;
        };
        // Only what lay here before: a message to itself that a receiver sends is for the next turn.
        let mut left = self.own.borrow().len();
        let own = || {
            left = left.checked_sub(1)?;
            self.own.borrow_mut().pop_front()
        };
        if !self
            .deliver(&receiver, Origin::Shard(self.shard), deadline, own)
            .1
        {
            return;
        }
        if self.from_control.borrow().is_empty()
            && let Some(messages) = self.control.take_all()
        {
            *self.from_control.borrow_mut() = messages.into();
        }
        let control = || self.from_control.borrow_mut().pop_front();
        if !self.deliver(&receiver, Origin::Control, deadline, control).1 {
            return;
        }
        let lanes = self.incoming.borrow().len();
        for lane in 0..lanes {
            let from = self.incoming.borrow()[lane].from;
            let next = || self.incoming.borrow_mut()[lane].lane.pop();
            let (delivered, in_time) = self.deliver(&receiver, Origin::Shard(from as u16), deadline, next);
            if delivered > 0 && self.incoming.borrow()[lane].lane.producer_waits() {
                self.handles[from].wake();
            }
            if !in_time {
                // The next turn starts with the lanes that had no chance.
                self.incoming.borrow_mut().rotate_left(lane + 1);
                return;
            }
        }
    }

    fn flush(&self, ring: &Ring) {
        if !self.unpublished.get() {
            return;
        }
        let mut waiting = 0;
        for (to, target) in self.outgoing.borrow_mut().iter_mut().enumerate() {
            let Some(lane) = &mut target.lane else { continue };
            drain_overflow(lane, &mut target.overflow);
            if !target.overflow.is_empty() {
                lane.wait_for_slots();
                drain_overflow(lane, &mut target.overflow);
            }
            waiting += target.overflow.len();
            if lane.publish() {
                let handle = &self.handles[to];
                if handle.claim_wake() {
                    self.metrics.wakeups_sent.add(1);
                    match handle.ring() {
                        Some(descriptor) => ring.push_wake(to as u16, descriptor),
                        None => handle.ring_bell(),
                    }
                }
            }
        }
        self.metrics.mailbox_overflow.set(waiting as u64);
        // With overflow left, the receiver wakes this shard when it has taken something.
        self.unpublished.set(waiting > 0);
    }

    fn has_incoming(&self) -> bool {
        if self.receiver.borrow().is_none() {
            return false;
        }
        !self.own.borrow().is_empty()
            || !self.from_control.borrow().is_empty()
            || !self.control.is_empty()
            || self
                .incoming
                .borrow_mut()
                .iter_mut()
                .any(|incoming| !incoming.lane.is_empty())
    }

    fn has_outgoing(&self) -> bool {
        self.unpublished.get()
    }
}

fn drain_overflow<M>(lane: &mut Producer<M>, overflow: &mut VecDeque<M>) {
    while let Some(message) = overflow.pop_front() {
        if let Err(message) = lane.push(message) {
            overflow.push_front(message);
            return;
        }
    }
}

/// Posts messages to shards from any thread: the control thread's door.
///
/// Answers travel in what `M` carries (a one-shot channel, say): a shard that completes it wakes the other thread by
/// that channel's own means.
pub struct ControlHandle<M> {
    inboxes: Arc<[Arc<Stack<M>>]>,
    handles: Arc<[Arc<ShardHandle>]>,
}

impl<M> Clone for ControlHandle<M> {
    fn clone(&self) -> Self {
        Self {
            inboxes: Arc::clone(&self.inboxes),
            handles: Arc::clone(&self.handles),
        }
    }
}

impl<M: Send> ControlHandle<M> {
    pub(crate) fn new(seats: &[Seat<M>], handles: Arc<[Arc<ShardHandle>]>) -> Self {
        Self {
            inboxes: seats.iter().map(|seat| Arc::clone(&seat.control)).collect(),
            handles,
        }
    }

    /// Posts a message. It comes back when the shard does not exist, has ended, or has its bound of messages waiting.
    pub fn send(&self, shard: u16, message: M) -> Result<(), M> {
        let place = usize::from(shard);
        let (Some(inbox), Some(handle)) = (self.inboxes.get(place), self.handles.get(place)) else {
            return Err(message);
        };
        if handle.ended.load(Ordering::Relaxed) {
            return Err(message);
        }
        inbox.push(message)?;
        handle.wake();
        Ok(())
    }

    /// Number of shards.
    pub fn shard_count(&self) -> u16 {
        self.handles.len() as u16
    }

    /// Whether a shard has ended: it takes no message any more.
    pub fn has_ended(&self, shard: u16) -> bool {
        let handle = self.handles.get(usize::from(shard));
        handle.is_none_or(|handle| handle.ended.load(Ordering::Relaxed))
    }

    /// Messages that wait in the door of a shard.
    pub fn depth(&self, shard: u16) -> usize {
        self.inboxes
            .get(usize::from(shard))
            .map_or(0, |inbox| inbox.len())
    }

    /// Counters of a shard.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn metrics(&self, shard: u16) -> Arc<RuntimeMetrics> {
        Arc::clone(&self.handles[usize::from(shard)].metrics)
    }
}
