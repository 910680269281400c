//! Calls: what this node asks one other node to do, beside the coordinator's reads and writes; and what others ask of it.
//!
//! A call is answered once, or ends with its time, or with its link. Never: a call sent twice, or an answer of an earlier
//! life of this node taken for one of this.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ceto_env::TaskQueue;
use ceto_internode::call::FAILURE_TEXT_MAX;
use ceto_internode::{Call, CallOutcome, ExchangeId, FailureReason, HostId, Message, RequestId};
use rustc_hash::FxHashMap;

use super::Node;
use crate::message::ReplicaFailure;
use crate::race::first;
use crate::slots::Slots;

/// Calls of one shard that may wait for an answer.
const CALLS_MAX: usize = 16_384;

/// What a call has come to.
pub(crate) type CallResult = Result<(), ReplicaFailure>;

/// The calls of one shard.
#[derive(Default)]
pub(super) struct Calls {
    waiting: Slots<CallResult>,
    /// By serial: who is asked, and the slot of the answer.
    open: RefCell<FxHashMap<u32, (HostId, u32)>>,
    last_serial: Cell<Option<u32>>,
}

/// An open call; forgotten when nobody waits any more.
struct OpenCall {
    node: Rc<Node>,
    serial: u32,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let calls = &self.node.peers.calls;
        if let Some((_, slot)) = calls.open.borrow_mut().remove(&self.serial) {
            calls.waiting.cancel(slot);
        }
    }
}

impl Calls {
    /// Calls that wait for an answer.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    fn finish(&self, serial: u32, from: HostId, outcome: CallResult) {
        let mut open = self.open.borrow_mut();
        if open.get(&serial).is_some_and(|(asked, _)| *asked == from)
            && let Some((_, slot)) = open.remove(&serial)
        {
            drop(open);
            self.waiting.answer(slot, outcome);
        }
    }

    pub(super) fn lost(&self, peer: HostId) {
        let serials: Vec<u32> = {
            let open = self.open.borrow();
            let of_peer = open.iter().filter(|(_, (asked, _))| *asked == peer);
            of_peer.map(|(serial, _)| *serial).collect()
        };
        for serial in serials {
            let text = "the link to the node was lost";
            self.finish(
                serial,
                peer,
                Err(ReplicaFailure::new(FailureReason::Timeout, text)),
            );
        }
    }
}

impl Node {
    /// Asks a peer to do something, and waits until it is done or `timeout` is over. The call is on its way when this
    /// returns.
    pub(crate) fn call(
        self: &Rc<Self>,
        to: HostId,
        call: Call,
        timeout: Duration,
    ) -> impl Future<Output = CallResult> + use<> {
        let begun = self.begin_call(to, call);
        let node = self.clone();
        async move {
            let (open, answer) = begun?;
            let outcome = first(answer, node.env.tasks().sleep(timeout)).await;
            drop(open);
            outcome.unwrap_or_else(|| {
                let text = "no answer of the node in time";
                Err(ReplicaFailure::new(FailureReason::Timeout, text))
            })
        }
    }

    fn begin_call(
        self: &Rc<Self>,
        to: HostId,
        call: Call,
    ) -> Result<(OpenCall, crate::slots::Answer<CallResult>), ReplicaFailure> {
        let calls = &self.peers.calls;
        if calls.len() >= CALLS_MAX {
            let text = format!("{CALLS_MAX} calls to other nodes wait for answers on this shard");
            return Err(ReplicaFailure::new(FailureReason::Overloaded, text));
        }
        let last = calls.last_serial.get();
        let serial = last.unwrap_or_else(|| self.env.random() as u32).wrapping_add(1);
        calls.last_serial.set(Some(serial));
        let (slot, answer) = calls.waiting.open();
        calls.open.borrow_mut().insert(serial, (to, slot));
        let open = OpenCall {
            node: self.clone(),
            serial,
        };
        let exchange = ExchangeId {
            request: RequestId {
                shard: self.shard(),
                slot: 0,
                serial,
            },
            round: 0,
        };
        if let Err(error) = self.send_message(to, &Message::Call { exchange, call }) {
            return Err(ReplicaFailure::new(error.reason(), error.to_string()));
        }
        Ok((open, answer))
    }

    /// Calls of this peer are not answered any more.
    pub(crate) fn calls_lost(&self, peer: HostId) {
        self.peers.calls.lost(peer);
    }

    /// Takes the answer to a call.
    pub(super) fn take_outcome(&self, from: HostId, exchange: ExchangeId, outcome: CallOutcome) {
        let outcome = match outcome {
            CallOutcome::Done => Ok(()),
            CallOutcome::Failed { reason, text } => Err(ReplicaFailure::new(reason, text)),
        };
        self.peers.calls.finish(exchange.request.serial, from, outcome);
    }

    /// Does what a peer asks for, and answers.
    pub(super) fn take_call(self: &Rc<Self>, from: HostId, exchange: ExchangeId, call: Call) {
        let node = self.clone();
        let task = async move {
            let outcome = match node.clone().serve_call(call).await {
                Ok(()) => CallOutcome::Done,
                Err(mut failure) => {
                    let end = failure.message.floor_char_boundary(FAILURE_TEXT_MAX);
                    failure.message.truncate(end);
                    CallOutcome::Failed {
                        reason: failure.reason,
                        text: failure.message,
                    }
                }
            };
            node.answer_peer(from, &Message::Called { exchange, outcome });
        };
        self.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
    }

    async fn serve_call(self: Rc<Self>, call: Call) -> CallResult {
        match call {
            Call::Apply(mutation) => {
                let mutation = Arc::unwrap_or_clone(mutation);
                self.apply_on_owner(mutation).await
            }
            Call::Count {
                consistency,
                within_micros,
                increments,
            } => {
                let within = Duration::from_micros(within_micros);
                let deadline = self.env.clock().now() + within.min(super::CALL_TIME_MAX);
                self.count_for_peer(Arc::unwrap_or_clone(increments), consistency, deadline)
                    .await
            }
            Call::Truncate { table, timestamp } => {
                let truncated = self.truncate(table, timestamp).await;
                truncated.map_err(|text| ReplicaFailure::new(FailureReason::Unknown, text))
            }
        }
    }

    /// Applies to the storage of whichever shard of this node owns the token.
    pub(crate) async fn apply_on_owner(
        self: &Rc<Self>,
        mutation: ceto_model::Mutation,
    ) -> Result<(), ReplicaFailure> {
        let owner = mutation.key.token.shard(self.shard_count());
        if owner == self.shard() {
            self.note_batch(&mutation);
            return self.clone().apply_here(mutation).await;
        }
        self.on_shard(owner, move |node| {
            node.note_batch(&mutation);
            Box::pin(node.apply_here(mutation))
        })
        .await
    }
}
