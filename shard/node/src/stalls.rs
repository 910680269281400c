//! Peers that hold memory others wait for, and do not move: they are cut.
//!
//! A client may read its answers and send its requests as slowly as it likes while nobody minds. But memory that answers
//! and requests may take is bounded, and with a few clients that stop in the middle nobody else would get any for ever.
//! So while somebody waits, a connection that owes much and has not moved [`SMALL`](crate::response_memory::SMALL) bytes
//! for [`PATIENCE`] is closed. Never: a connection is cut while nobody waits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ceto_env::TaskQueue;

use crate::node::Node;
use crate::response_memory::SMALL;

/// How long a peer may stand still while others wait for the memory that it holds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// How a peer moved what it owes, as of the last looks.
#[derive(Default)]
pub(crate) struct Progress {
    moved: Cell<u64>,
    at: Cell<Option<Instant>>,
}

impl Progress {
    /// The peer owes `owed` bytes, and of all it ever owed it has moved `moved`: next to nothing for `patience`.
    pub(crate) fn is_stalled(&self, owed: usize, moved: u64, now: Instant, patience: Duration) -> bool {
        match self.at.get() {
            _ if owed <= SMALL => self.at.set(None),
            Some(at) if moved - self.moved.get() < SMALL as u64 => {
                return now.saturating_duration_since(at) >= patience;
            }
            _ => {
                self.moved.set(moved);
                self.at.set(Some(now));
            }
        }
        false
    }
}

/// Looks after the connections while somebody waits for memory. Nothing happens when that is done already.
pub(crate) fn watch(node: &Rc<Node>) {
    if node.watches_stalls.replace(true) {
        return;
    }
    let watching = node.clone();
    node.env.tasks().spawn(
        TaskQueue::Control,
        Box::pin(async move {
            while watching.response_memory.has_waiters() || watching.request_memory.has_waiters() {
                look(&watching);
                watching.env.tasks().sleep(LOOK).await;
            }
            watching.watches_stalls.set(false);
        }),
    );
}

fn look(node: &Rc<Node>) {
    let now = node.env.clock().now();
    let connections: Vec<_> = node
        .connections
        .borrow()
        .iter()
        .filter_map(|(_, c)| c.upgrade())
        .collect();
    for connection in connections {
        if connection.is_stalled(now, PATIENCE) {
            node.metrics.connections_stalled.increment();
            tracing::info!(
                peer = %connection.peer(),
                "closed a connection that stood still while others waited for the memory of its answers or its request \
                 (native_transport_max_response_data_in_flight, native_transport_max_request_data_in_flight)"
            );
            connection.abort();
        }
    }
    if let Some(since) = now.checked_sub(node.settings().limits.read_timeout) {
        node.response_memory.expire(since);
    }
}
