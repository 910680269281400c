//! Running something on a shard from the control thread, and waiting for its result.

use std::rc::Rc;

use ceto_node::message::{ShardDoor, Task};
use ceto_node::{LocalFuture, Node};
use tokio::sync::oneshot;

/// The shards of this node, seen from outside.
#[derive(Clone)]
pub struct Shards(ShardDoor);

/// The shard has ended (the node is shutting down).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardGone;

impl std::fmt::Display for ShardGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the node is shutting down")
    }
}

impl std::error::Error for ShardGone {}

impl Shards {
    /// The shards behind `door`.
    pub fn new(door: ShardDoor) -> Shards {
        Shards(door)
    }

    /// How many.
    pub fn count(&self) -> u16 {
        self.0.count
    }

    /// Runs `work` on `shard` and waits for what it returns.
    pub async fn on<R: Send + 'static>(
        &self,
        shard: u16,
        work: impl FnOnce(Rc<Node>) -> LocalFuture<'static, R> + Send + 'static,
    ) -> Result<R, ShardGone> {
        self.ask(shard, work).await.map_err(|_| ShardGone)
    }

    /// Runs `work` on every shard at once and waits for all results, in shard order.
    pub async fn on_all<R: Send + 'static>(
        &self,
        work: impl Fn(Rc<Node>) -> LocalFuture<'static, R> + Clone + Send + 'static,
    ) -> Result<Vec<R>, ShardGone> {
        let asked: Vec<_> = (0..self.count())
            .map(|shard| self.ask(shard, work.clone()))
            .collect();
        let mut results = Vec::with_capacity(asked.len());
        for answer in asked {
            results.push(answer.await.map_err(|_| ShardGone)?);
        }
        Ok(results)
    }

    /// Drains the node in two steps, each on all shards: nobody serves any more, then nobody's storage takes writes. In one
    /// step a shard that is done early would refuse what the requests of the others bring to it.
    pub async fn drain(&self) -> Result<Result<(), String>, ShardGone> {
        self.on_all(|node| Box::pin(async move { node.stop_serving().await }))
            .await?;
        let outcomes = self
            .on_all(|node| Box::pin(async move { node.drain_storage().await }))
            .await?;
        Ok(outcomes.into_iter().collect())
    }

    /// Sends `work`; the receiver gets what it returns.
    fn ask<R: Send + 'static>(
        &self,
        shard: u16,
        work: impl FnOnce(Rc<Node>) -> LocalFuture<'static, R> + Send + 'static,
    ) -> oneshot::Receiver<R> {
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move |node| {
            let future = work(node);
            Box::pin(async move {
                // The asker may have stopped waiting; that is no concern of the shard.
                let _ = reply.send(future.await);
            })
        });
        (self.0.send)(shard, task);
        answer
    }
}
