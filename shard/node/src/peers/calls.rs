//! Calls: what this node asks one other node to do, beside the coordinator's reads and writes; and what others ask of it.
//!
//! A call is answered once, or ends with its time, or with its link. Never: a call sent twice.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ceto_env::TaskQueue;
use ceto_internode::call::FAILURE_TEXT_MAX;
use ceto_internode::{Call, CallOutcome, ExchangeId, FailureReason, HostId, Message};

use super::Node;
use crate::message::ReplicaFailure;
use crate::questions::Question;
use crate::race::first;
use crate::slots::Answer;

/// Calls of one shard that may wait for an answer.
const CALLS_MAX: usize = 16_384;

/// What a call has come to.
pub(crate) type CallResult = Result<(), ReplicaFailure>;

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
    ) -> Result<(Question<CallResult>, Answer<CallResult>), ReplicaFailure> {
        let calls = &self.peers.calls;
        if calls.len() >= CALLS_MAX {
            let text = format!("{CALLS_MAX} calls to other nodes wait for answers on this shard");
            return Err(ReplicaFailure::new(FailureReason::Overloaded, text));
        }
        let (open, answer) = calls.open(to, self.shard(), || self.env.random());
        let exchange = open.exchange();
        if let Err(error) = self.send_message(to, &Message::Call { exchange, call }) {
            return Err(ReplicaFailure::new(error.reason(), error.to_string()));
        }
        Ok((open, answer))
    }

    /// Calls of this peer are not answered any more.
    pub(crate) fn calls_lost(&self, peer: HostId) {
        let text = "the link to the node was lost";
        let lost = || Err(ReplicaFailure::new(FailureReason::Timeout, text));
        self.peers.calls.lost(peer, lost);
    }

    /// Takes the answer to a call.
    pub(super) fn take_outcome(&self, from: HostId, exchange: ExchangeId, outcome: CallOutcome) {
        let outcome = match outcome {
            CallOutcome::Done => Ok(()),
            CallOutcome::Failed { reason, text } => Err(ReplicaFailure::new(reason, text)),
        };
        self.peers.calls.answer(exchange, from, outcome);
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
