//! A simulated node: the production coordinator, a replica in memory, hints, and clocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ceto_cluster::coordinator::{Actions, Coordinator, Limits};
use ceto_cluster::{Datacenter, ReplicaMap};
use ceto_internode::RequestId;
use ceto_model::Mutation;

use crate::clock::Clock;
use crate::replica::Replica;
use crate::serial::SerialPart;
use crate::shape::host;
use crate::world::Ticket;

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its index among the nodes.
    pub at: usize,
    /// Runs.
    pub is_up: bool,
    /// Grows with each restart.
    pub life: u32,
    /// Its clocks.
    pub clock: Clock,
    /// Its rows.
    pub replica: Replica,
    /// What others missed, by node; on disk.
    pub hints: Vec<(usize, Arc<Mutation>)>,
    /// Where rows lie, as it sees it.
    pub map: Arc<ReplicaMap>,
    pub(crate) coordinator: Coordinator,
    pub(crate) actions: Actions,
    pub(crate) serial: SerialPart,
    pub(crate) tickets: BTreeMap<RequestId, Ticket>,
    /// When its next timer event is scheduled.
    pub(crate) timer_at: Option<Duration>,
    /// Peers that it was told are dead.
    pub(crate) suspects: Vec<bool>,
}

impl Node {
    pub(crate) fn new(
        at: usize,
        nodes: usize,
        clock: Clock,
        replica: Replica,
        map: ReplicaMap,
        seed: u64,
    ) -> Node {
        let serial = SerialPart::new(host(at), seed, &clock);
        Node {
            at,
            is_up: true,
            life: 0,
            clock,
            replica,
            hints: Vec::new(),
            map: Arc::new(map),
            coordinator: Coordinator::new(host(at), Limits::default(), seed),
            actions: Actions::new(),
            serial,
            tickets: BTreeMap::new(),
            timer_at: None,
            suspects: vec![false; nodes],
        }
    }

    /// Its data center.
    pub fn datacenter(&self) -> Datacenter {
        self.map.local_datacenter()
    }

    /// Requests that its coordinator holds.
    pub fn in_flight(&self) -> usize {
        self.coordinator.in_flight()
    }

    /// Conditional updates and serial reads that it holds, and questions that its acceptor has not answered.
    pub fn serial_in_flight(&self) -> usize {
        self.serial.in_flight()
    }

    /// What a process loses when it dies: requests and opinions. Rows, hints and what acceptors stored are on disk.
    pub(crate) fn lose_memory(&mut self, seed: u64, now: Duration) {
        self.coordinator = Coordinator::new(host(self.at), Limits::default(), seed);
        self.actions = Actions::new();
        self.timer_at = None;
        self.suspects.fill(false);
        self.serial.lose_memory(host(self.at), seed, &self.clock, now);
        self.replica.crash();
    }
}
