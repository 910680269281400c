//! The end of a shard in two steps: clients first, then storage.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tracing::warn;

use super::Node;

/// How long a drain waits for the requests in flight; they have deadlines of their own, most of them shorter.
const IN_FLIGHT_PATIENCE: Duration = Duration::from_secs(5);
/// Time between looks during a drain.
const DRAIN_LOOK: Duration = Duration::from_millis(2);

impl Node {
    /// First step of a drain: stops accepting, lets what is in flight finish (for [`IN_FLIGHT_PATIENCE`] at most), closes
    /// connections. Storage goes on: requests that other shards still have in flight may come to it.
    pub async fn stop_serving(self: &Rc<Self>) {
        self.is_draining.set(true);
        self.network.stop_accepting();
        let began = self.env.clock().now();
        while self.requests_in_flight.get() > 0 {
            if self.env.clock().now() - began > IN_FLIGHT_PATIENCE {
                let requests = self.requests_in_flight.get();
                warn!(
                    requests,
                    "draining without waiting any longer for requests in flight"
                );
                break;
            }
            self.env.tasks().sleep(DRAIN_LOOK).await;
        }
        self.close_connections();
    }

    /// Accepts clients again after [`Self::stop_serving`].
    ///
    /// # Errors
    /// When storage is drained, or an address is taken by now.
    pub fn resume_serving(self: &Rc<Self>) -> Result<(SocketAddr, SocketAddr), String> {
        if self.is_storage_draining.get() {
            return Err("the node is drained; start it again".to_owned());
        }
        self.is_draining.set(false);
        if self.peers.listening.get().is_some() {
            self.listen_for_peers()?;
        }
        self.listen()
    }

    /// Second step of a drain, when no shard serves any more: flushes everything and takes no more writes. Asked a second
    /// time it waits for the first.
    pub async fn drain_storage(self: &Rc<Self>) -> Result<(), String> {
        if self.is_storage_draining.replace(true) {
            loop {
                if let Some(outcome) = &*self.drained.borrow() {
                    return outcome.clone();
                }
                self.env.tasks().sleep(DRAIN_LOOK).await;
            }
        }
        self.close_links();
        let outcome = match self.database.get() {
            Some(database) => database.drain().await.map_err(|error| error.to_string()),
            None => Ok(()),
        };
        *self.drained.borrow_mut() = Some(outcome.clone());
        outcome
    }

    /// Clients get no more answers: the node is being drained.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Storage takes no more writes, for good.
    pub(crate) fn is_storage_draining(&self) -> bool {
        self.is_storage_draining.get()
    }

    fn close_connections(&self) {
        let connections: Vec<_> = self
            .connections
            .borrow()
            .iter()
            .filter_map(|(_, c)| c.upgrade())
            .collect();
        connections.iter().for_each(|connection| connection.close());
    }
}
