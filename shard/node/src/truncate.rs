//! TRUNCATE: all data of a table goes, on every shard, after a snapshot where `auto_snapshot` wants one.
//!
//! A client waits for `truncate_request_timeout` at most. The truncation itself is never given up halfway: a shard that
//! had done it and one that had not would show a table that nobody has written.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ceto_env::TaskQueue;
use ceto_model::{TableId, Timestamp};
use ceto_native::{ErrorMessage, ErrorReason, Response};

use crate::execute::{Answer, RequestContext};
use crate::node::Node;
use crate::slots::Slots;

/// Drops all data of a table, on every shard.
pub(crate) async fn run(context: &RequestContext, table: TableId) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    let outcomes = Slots::default();
    let (slot, outcome) = outcomes.open();
    let (shard, timestamp) = (node.clone(), Timestamp(context.now_micros));
    let work = async move {
        let outcome = shard.truncate(table, timestamp).await;
        outcomes.answer(slot, outcome);
    };
    node.env.tasks().spawn(TaskQueue::Statement, Box::pin(work));
    let deadline = context.deadline(node.settings().limits.truncate_timeout);
    let left = deadline.saturating_duration_since(node.env.clock().now());
    match first(outcome, node.env.tasks().sleep(left)).await {
        Some(Ok(())) => Ok(context.message(Response::Void)),
        Some(Err(cause)) => Err(failed(&cause)),
        None => Err(failed(
            "Truncate timed out - received only 0 responses; it goes on (truncate_request_timeout)",
        )),
    }
}

fn failed(cause: &str) -> ErrorMessage {
    ErrorMessage {
        reason: ErrorReason::Truncate,
        message: format!("Error during truncate: {cause}"),
    }
}

/// What `future` comes to, or None when `end` comes first.
async fn first<T>(future: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut end) = (pin!(future), pin!(end));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => end.as_mut().poll(context).map(|()| None),
    })
    .await
}

impl Node {
    /// Its views are truncated with a table; writes to it wait meanwhile, so that none has half of it voided.
    async fn truncate(self: &Rc<Self>, table: TableId, timestamp: Timestamp) -> Result<(), String> {
        self.snapshot_before_truncate(table).await?;
        let schema = self.schema();
        let Some(views) = schema.views_of(table).cloned() else {
            return self.truncate_everywhere(table, timestamp).await;
        };
        self.on_all_shards(move |node| Box::pin(async move { node.stop_view_writes(table).await }))
            .await;
        let mut outcome = self.truncate_everywhere(table, timestamp).await;
        for view in views.iter() {
            if outcome.is_ok() {
                outcome = self.truncate_everywhere(view.table.id, timestamp).await;
            }
        }
        self.on_all_shards(move |node| Box::pin(async move { node.resume_view_writes(table) }))
            .await;
        outcome
    }

    /// Drops all data of one table on every shard.
    pub(crate) async fn truncate_everywhere(
        self: &Rc<Self>,
        table: TableId,
        timestamp: Timestamp,
    ) -> Result<(), String> {
        let outcomes = self.on_all_shards(move |node| {
            Box::pin(async move {
                let database = node.database().map_err(|failure| failure.message)?;
                let truncated = database.truncate(table, timestamp).await;
                truncated.map_err(|error| error.to_string())
            })
        });
        outcomes.await.into_iter().collect()
    }
}
