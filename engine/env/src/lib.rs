//! The one door to the outside: disk, clock, random numbers, tasks, mailbox, sockets (LevelDB's `Env`).
//!
//! Everything above takes an [`Rc<dyn Env>`](Env) and so runs the same on Linux (`shard/runtime`) and in the
//! simulator (`tools/sim`). Object-safe throughout: no type parameter of a backend leaks into the callers.
//!
//! One `Env` belongs to one shard: nothing here is `Send` except what crosses the [`mailbox`], and futures are
//! [`LocalFuture`]s.
//!
//! Read next: `disk` for the durability rules, `task` for the task queues.

pub mod clock;
pub mod disk;
pub mod mailbox;
pub mod memory;
pub mod network;
pub mod task;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

pub use clock::Clock;
pub use disk::{Disk, DiskError, RECYCLED_HEAD, ReadFile, Segment, WriteFile};
pub use mailbox::Mailbox;
pub use network::{Acceptor, Connector, Network, Placement, Protocol, Route, Socket};
pub use task::{TaskQueue, Tasks};

/// A boxed future that stays on its shard.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a shard sees of the world.
pub trait Env {
    /// Time.
    fn clock(&self) -> &dyn Clock;
    /// Files.
    fn disk(&self) -> Rc<dyn Disk>;
    /// Tasks and timers of this shard.
    fn tasks(&self) -> &dyn Tasks;
    /// 64 random bits, not for secrets. Seeded in the simulator.
    fn random(&self) -> u64;
    /// Gives memory that this shard has freed back to the kernel. Takes time in proportion to what the shard holds: for
    /// idle moments, and for when memory is short.
    fn give_back_memory(&self) {}
}
