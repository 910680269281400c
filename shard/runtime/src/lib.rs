//! Runs the shards of a node on Linux: one thread per core, each with one io_uring for sockets, files and wake-ups, and
//! implements `env` on it. All `unsafe` code of the project lives here.
//!
//! ```text
//!   Executor::turn   completions -> inboxes -> timers -> task queues -> one send per connection, one batch per lane
//!   Ring             one io_uring                     NetworkRing   sockets        LinuxDisk   files, helper threads
//!   mailbox          a lane per pair of shards        ShardHandle   doorbell, seen by other threads
//! ```
//!
//! Never: a lock between shards while requests run, a blocking call on a shard's thread, a queue without a bound, a
//! sleep while something is ready.
//!
//! Read next: `executor` for the loop, `ring` for who owns what the kernel writes to, `network` for the life of a
//! connection.

mod aligned;
mod allocator;
mod disk;
mod env;
mod error;
mod executor;
mod handle;
mod limits;
mod mailbox;
mod metrics;
mod network;
mod ring;
mod signals;
mod stack;
mod start;
mod watchdog;

pub use allocator::{Allocator, set_up_allocator};
pub use error::Error;
pub use limits::{connections_within, raise_open_files_limit};
pub use mailbox::{ControlHandle, Origin, Receiver};
pub use metrics::{Activity, Counter, RuntimeMetrics};
pub use signals::terminate;
pub use start::{MAX_SHARDS, Runtime, RuntimeOptions, ShardContext, start};
pub use watchdog::WATCHDOG_EXIT_STATUS;
