//! Sans-IO protocol cores of the data path: who holds what, and what a coordinator does about it.
//!
//! Never: a disk, a socket, a clock, a thread, or a lock. A core takes events and the present moment as arguments and
//! answers with actions in a buffer; the node performs them in production, the simulator in tests. Random numbers come
//! from a seeded generator that the core owns.
//!
//! Read next: `ring` and `replication` for where a token lives, `coordinator` for reads and writes, `paxos` for
//! conditional updates, `repair` for finding what replicas lack.

pub mod consistency;
pub mod coordinator;
pub mod paxos;
pub mod random;
pub mod repair;
pub mod replication;
pub mod ring;

pub use coordinator::{Action, Actions, Coordinator, Reply, ReplyTo, RequestContext, RequestError};
pub use paxos::{Paxos, PaxosAction, PaxosActions};
pub use random::Random;
pub use replication::{Replica, ReplicaMap, ReplicaSet, ReplicationError, Strategy};
pub use ring::{Datacenter, HostId, Ring, RingNode};
