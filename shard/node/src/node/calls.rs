//! What shards of one node ask of each other: messages in, questions and answers out.

use std::rc::Rc;
use std::time::Duration;

use ceto_env::{LocalFuture, TaskQueue};

use super::Node;
use crate::message::{ShardMessage, Task};

impl Node {
    /// Takes a message from another shard or the control thread.
    pub fn receive(self: &Rc<Self>, message: ShardMessage) {
        match message {
            ShardMessage::Apply {
                from,
                reply_to,
                mutation,
            } => {
                let node = self.clone();
                self.run_now(TaskQueue::Statement, async move {
                    let result = node.clone().apply_here(*mutation).await;
                    node.send(from, ShardMessage::Applied { reply_to, result });
                });
            }
            ShardMessage::Read { from, slot, command } => {
                let node = self.clone();
                self.run_now(TaskQueue::Statement, async move {
                    let result = node.read_here(&command).await.map(Box::new);
                    node.send(from, ShardMessage::ReadDone { slot, result });
                });
            }
            ShardMessage::Applied { reply_to, result } => self.applied(reply_to, result),
            ShardMessage::ReadDone { slot, result } => {
                self.reads.answer(slot, result);
            }
            ShardMessage::Run(task) => self.run_now(TaskQueue::Control, task(self.clone())),
            ShardMessage::Answer { slot, value } => {
                self.answers.answer(slot, value);
            }
        }
    }

    /// Polls once at once; only what has to wait becomes a task.
    fn run_now(&self, queue: TaskQueue, work: impl Future<Output = ()> + 'static) {
        let mut work: LocalFuture<'static, ()> = Box::pin(work);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if work.as_mut().poll(&mut context).is_pending() {
            self.env.tasks().spawn(queue, work);
        }
    }

    /// Sends an answer. Answers are as many as questions, and questions are bounded, so a refused answer waits.
    fn send(self: &Rc<Self>, to: u16, message: ShardMessage) {
        if let Err(mut message) = self.mailbox.send(to, message) {
            let node = self.clone();
            let retry = async move {
                loop {
                    node.env.tasks().sleep(Duration::from_millis(1)).await;
                    match node.mailbox.send(to, message) {
                        Ok(()) => return,
                        Err(back) => message = back,
                    }
                }
            };
            self.env.tasks().spawn(TaskQueue::Statement, Box::pin(retry));
        }
    }

    /// Runs `work` on `shard` of this node and returns what it returns.
    pub async fn on_shard<R: Send + 'static>(
        self: &Rc<Self>,
        shard: u16,
        work: impl FnOnce(Rc<Node>) -> LocalFuture<'static, R> + Send + 'static,
    ) -> R {
        if shard == self.shard() {
            return work(self.clone()).await;
        }
        self.ask(shard, work).await
    }

    /// Runs `work` on every shard of this node at once; results in no order.
    pub async fn on_all_shards<R: Send + 'static>(
        self: &Rc<Self>,
        work: impl Fn(Rc<Node>) -> LocalFuture<'static, R> + Clone + Send + 'static,
    ) -> Vec<R> {
        let others = (0..self.shard_count()).filter(|shard| *shard != self.shard());
        let asked: Vec<_> = others.map(|shard| self.ask(shard, work.clone())).collect();
        let mut results = vec![work(self.clone()).await];
        for answer in asked {
            results.push(answer.await);
        }
        results
    }

    /// Sends `work` to another shard; the question is on its way when this returns.
    pub(crate) fn ask<R: Send + 'static>(
        self: &Rc<Self>,
        shard: u16,
        work: impl FnOnce(Rc<Node>) -> LocalFuture<'static, R> + Send + 'static,
    ) -> LocalFuture<'static, R> {
        let (slot, answer) = self.answers.open();
        let from = self.shard();
        let task: Task = Box::new(move |node: Rc<Node>| {
            let running = work(node.clone());
            Box::pin(async move {
                let value = Box::new(running.await);
                node.send(from, ShardMessage::Answer { slot, value });
            })
        });
        self.send(shard, ShardMessage::Run(task));
        Box::pin(async move {
            let value = answer.await;
            *value
                .downcast::<R>()
                .unwrap_or_else(|_| unreachable!("a slot's answer has its question's type"))
        })
    }
}
