//! Messages between the shards of one node (and its control thread).
//!
//! Bounded single-producer single-consumer rings, one per ordered pair of shards. Messages of one pair arrive in
//! order, each exactly once. They leave the sender at the end of its turn, in a batch; the receiver is woken only
//! when it sleeps.

/// Sends messages of type `M` to other shards.
pub trait Mailbox<M> {
    /// Hands `message` to shard `to`. When the ring to that shard is full the message waits in the sender's
    /// overflow, up to its bound; beyond it the message comes back as `Err` and the caller answers Overloaded.
    fn send(&self, to: u16, message: M) -> Result<(), M>;
    /// Number of shards of this node.
    fn shard_count(&self) -> u16;
    /// This shard.
    fn shard(&self) -> u16;
    /// Messages waiting towards `to`.
    fn depth(&self, to: u16) -> usize;
}
