//! A cluster for scripted tests: says in one line who writes, reads, is cut off or comes back.

use std::time::Duration;

use bytes::Bytes;
use ceto_cluster::coordinator::{ReadOptions, Reply, RequestError};
use ceto_cluster::{Random, Strategy};
use ceto_model::{CellState, ColumnData, Consistency, Partition, Timestamp};

use crate::replica::ReplicaFault;
use crate::shape::Shape;
use crate::workload::{Change, ReadOperation, WriteOperation, key};
use crate::world::{Completion, World};

/// For ever, as scripts go.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);
/// Timeout of a request.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// Nodes counted from 0; one cell per partition; time passes only while something is awaited.
#[derive(Debug)]
pub struct Cluster {
    /// What it is made of.
    pub world: World,
    /// How reads are done.
    pub options: ReadOptions,
    written: u64,
}

/// Why a scripted request gave nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The coordinator's error.
    Error(RequestError),
    /// The coordinator is down, or went down.
    Lost,
}

impl Cluster {
    /// Nodes of each data center (`dc1`, `dc2`, ...), and the keyspace's replication.
    pub fn new(datacenters: &[usize], strategy: Strategy) -> Cluster {
        let shape = Shape::new(&mut Random::new(1), datacenters, 4, strategy);
        let mut world = World::new(1, &shape, ReplicaFault::None);
        world.set_instant_work();
        Cluster {
            world,
            options: ReadOptions::default(),
            written: 0,
        }
    }

    /// Two nodes that both hold everything.
    pub fn pair() -> Cluster {
        Cluster::simple(2)
    }

    /// So many nodes that all hold everything.
    pub fn simple(nodes: usize) -> Cluster {
        Cluster::new(
            &[nodes],
            Strategy::Simple {
                replication_factor: nodes as u32,
            },
        )
    }

    /// Writes a value, newer than all before, and waits for the outcome.
    ///
    /// # Errors
    /// The coordinator's, or that it was lost.
    pub fn write(
        &mut self,
        node: usize,
        consistency: Consistency,
        partition: u8,
        value: &str,
    ) -> Result<(), Refusal> {
        self.change(
            node,
            consistency,
            partition,
            Change::Set { row: 0, column: 1 },
            value,
        )
    }

    /// Deletes a partition's cell and waits for the outcome.
    ///
    /// # Errors
    /// The coordinator's, or that it was lost.
    pub fn delete(&mut self, node: usize, consistency: Consistency, partition: u8) -> Result<(), Refusal> {
        self.change(node, consistency, partition, Change::DeleteRow(0), "")
    }

    fn change(
        &mut self,
        node: usize,
        consistency: Consistency,
        partition: u8,
        change: Change,
        value: &str,
    ) -> Result<(), Refusal> {
        self.written += 1;
        let write = WriteOperation {
            partition,
            change,
            value: Bytes::copy_from_slice(value.as_bytes()),
            timestamp: Timestamp(self.written as i64),
            consistency,
        };
        let began = self
            .world
            .begin_write(node, consistency, write.mutation(), TIMEOUT);
        began.map_err(refusal)?;
        match self.await_reply()? {
            Reply::Write(outcome) => outcome.map_err(Refusal::Error),
            Reply::Read(_) => unreachable!("a write is answered as a write"),
        }
    }

    /// Reads a partition's value and waits for it.
    ///
    /// # Errors
    /// The coordinator's, or that it was lost.
    pub fn read(
        &mut self,
        node: usize,
        consistency: Consistency,
        partition: u8,
    ) -> Result<Option<String>, Refusal> {
        let read = ReadOperation {
            partition: Some(partition),
            rows: 0..=0,
            reversed: false,
            limit: u64::MAX,
            consistency,
            options: self.options,
        };
        let command = read.command(self.world.nodes()[node].clock.seconds(self.world.now()));
        let began = self
            .world
            .begin_read(node, consistency, self.options, command, TIMEOUT);
        began.map_err(refusal)?;
        match self.await_reply()? {
            Reply::Read(Ok(result)) => Ok(result
                .partitions
                .first()
                .and_then(|part| value_of(&part.partition))),
            Reply::Read(Err(error)) => Err(Refusal::Error(error)),
            Reply::Write(_) => unreachable!("a read is answered as a read"),
        }
    }

    fn await_reply(&mut self) -> Result<Reply, Refusal> {
        loop {
            match self.world.take_completion() {
                Some((_, Completion::Reply(reply))) => return Ok(reply),
                Some((_, Completion::Lost)) => return Err(Refusal::Lost),
                Some((_, Completion::Serial(_))) => unreachable!("scripts begin no conditional updates"),
                None => self.world.step(),
            }
        }
    }

    /// Cuts a node off from all others, in both directions. The others notice after a while: see
    /// [`Cluster::settle`].
    pub fn isolate(&mut self, node: usize) {
        for other in (0..self.world.nodes().len()).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.world.cut(from, to, FOR_EVER);
    }

    /// Crashes a node.
    pub fn crash(&mut self, node: usize) {
        self.world.crash(node, FOR_EVER);
    }

    /// Ends all trouble, and waits until everybody has noticed.
    pub fn heal(&mut self) {
        self.world.heal();
        self.settle();
    }

    /// Waits until everything under way has ended and nodes have made up their minds about each other.
    pub fn settle(&mut self) {
        self.world.run_until(self.world.now() + 3 * TIMEOUT);
    }

    /// What a node's own replica holds.
    pub fn held(&self, node: usize, partition: u8) -> Option<String> {
        let rows = self.world.nodes()[node].replica.rows();
        rows.get(&key(partition)).and_then(value_of)
    }

    /// For whom a node keeps hints.
    pub fn hints(&self, node: usize) -> Vec<usize> {
        let hints = self.world.nodes()[node].hints.iter();
        hints.map(|(replica, _)| *replica).collect()
    }
}

fn refusal(error: Option<RequestError>) -> Refusal {
    error.map_or(Refusal::Lost, Refusal::Error)
}

fn value_of(partition: &Partition) -> Option<String> {
    let (_, row) = partition.rows.first()?;
    let (_, ColumnData::Cell(cell)) = row.columns.first()? else {
        return None;
    };
    match &cell.state {
        CellState::Live(value) => Some(String::from_utf8_lossy(value).into_owned()),
        _ => None,
    }
}
