//! TRUNCATE: all data of a table goes, on every shard of every node, after a snapshot where `auto_snapshot` wants one.
//!
//! A node that is down would bring the data back, so all must be up.
//!
//! A client waits for `truncate_request_timeout` at most. The truncation itself is never given up halfway: a shard that
//! had done it and one that had not would show a table that nobody has written.

use std::rc::Rc;
use std::time::Duration;

use ceto_env::TaskQueue;
use ceto_internode::Call;
use ceto_model::{Consistency, TableId, Timestamp};
use ceto_native::{ErrorMessage, ErrorReason, Response};

use crate::execute::{Answer, RequestContext};
use crate::node::Node;
use crate::race::first;
use crate::slots::Slots;

/// Drops all data of a table, on every shard.
pub(crate) async fn run(context: &RequestContext, table: TableId) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    check_all_alive(node)?;
    let deadline = context.deadline(node.settings().limits.truncate_timeout);
    let left = deadline.saturating_duration_since(node.env.clock().now());
    let outcomes = Slots::default();
    let (slot, outcome) = outcomes.open();
    let (shard, timestamp) = (node.clone(), Timestamp(context.now_micros));
    let work = async move {
        let elsewhere = shard.truncate_on_peers(table, timestamp, left);
        let outcome = shard.truncate(table, timestamp).await;
        outcomes.answer(slot, outcome.and(elsewhere.await));
    };
    node.env.tasks().spawn(TaskQueue::Statement, Box::pin(work));
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

/// Refuses while a node is down.
fn check_all_alive(node: &Node) -> Result<(), ErrorMessage> {
    let topology = node.topology();
    let down: Vec<String> = topology
        .peers
        .iter()
        .filter(|peer| !peer.is_alive)
        .map(|peer| peer.internode.ip().to_string())
        .collect();
    if down.is_empty() {
        return Ok(());
    }
    let required = topology.peers.len() + 1;
    Err(ErrorMessage {
        reason: ErrorReason::Unavailable {
            consistency: Consistency::All,
            required: required as i32,
            alive: (required - down.len()) as i32,
        },
        message: format!(
            "Cannot achieve consistency level ALL: a table is truncated on all nodes, and {} is down",
            down.join(", ")
        ),
    })
}

impl Node {
    /// Asks all other nodes to truncate; they are asked when this returns.
    fn truncate_on_peers(
        self: &Rc<Self>,
        table: TableId,
        timestamp: Timestamp,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), String>> + use<> {
        let topology = self.topology();
        let asked: Vec<_> = topology
            .peers
            .iter()
            .map(|peer| {
                let call = Call::Truncate { table, timestamp };
                (peer.internode, self.call(peer.host, call, timeout))
            })
            .collect();
        async move {
            let mut outcome = Ok(());
            for (address, call) in asked {
                if let Err(failure) = call.await {
                    outcome = outcome.and(Err(format!("{address}: {failure}")));
                }
            }
            outcome
        }
    }

    /// Its views are truncated with a table; writes to it wait meanwhile, so that none has half of it voided.
    pub(crate) async fn truncate(
        self: &Rc<Self>,
        table: TableId,
        timestamp: Timestamp,
    ) -> Result<(), String> {
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
                node.hints_truncated(table, timestamp.0);
                let database = node.database().map_err(|failure| failure.message)?;
                let truncated = database.truncate(table, timestamp).await;
                truncated.map_err(|error| error.to_string())
            })
        });
        outcomes.await.into_iter().collect()
    }
}
