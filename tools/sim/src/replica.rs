//! A replica in memory. What it has applied survives a crash, as a commitlog makes it.
//!
//! Its fault switch breaks it on purpose, so that tests can prove that the checkers see it.

use std::collections::BTreeMap;

use ceto_cluster::Random;
use ceto_model::evaluate::evaluate;
use ceto_model::{DecoratedKey, Mutation, Partition, ReadCommand, ReadResult};

/// A way of being broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplicaFault {
    /// Not broken.
    #[default]
    None,
    /// Acknowledges one mutation of eight without applying it.
    LosesWrites,
    /// Acknowledges at once and applies much later: as if the coordinator counted acknowledgements that were not there.
    AppliesLate,
    /// Forgets its newest rows when it crashes.
    ForgetsAtCrash,
    /// Answers one read of eight from what it had long ago.
    ReadsThePast,
    /// Lets whatever comes last win, whatever its timestamp.
    LastArrivalWins,
    /// Ignores deletions.
    IgnoresDeletions,
    /// Invents a value now and then.
    CorruptsValues,
}

/// One replica's rows.
#[derive(Debug, Default)]
pub struct Replica {
    rows: BTreeMap<DecoratedKey, Partition>,
    /// An old copy, for [`ReplicaFault::ReadsThePast`] and [`ReplicaFault::ForgetsAtCrash`].
    past: BTreeMap<DecoratedKey, Partition>,
    applied: u64,
    fault: ReplicaFault,
}

/// Mutations between two old copies.
const PAST_EVERY: u64 = 40;

impl Replica {
    /// Empty.
    pub fn new(fault: ReplicaFault) -> Replica {
        Replica {
            fault,
            ..Replica::default()
        }
    }

    /// How it is broken.
    pub fn fault(&self) -> ReplicaFault {
        self.fault
    }

    /// What it holds.
    pub fn rows(&self) -> &BTreeMap<DecoratedKey, Partition> {
        &self.rows
    }

    /// Merges a mutation in.
    pub fn apply(&mut self, mut mutation: Mutation, random: &mut Random) {
        self.applied += 1;
        match self.fault {
            ReplicaFault::LosesWrites if random.chance(1, 8) => return,
            ReplicaFault::LastArrivalWins => {
                self.rows.insert(mutation.key, mutation.partition);
                return;
            }
            ReplicaFault::IgnoresDeletions => {
                mutation.partition.deletion = None;
                mutation.partition.range_tombstones.retain(|_| false);
                mutation
                    .partition
                    .rows
                    .iter_mut()
                    .for_each(|(_, row)| row.deletion = None);
            }
            ReplicaFault::ReadsThePast | ReplicaFault::ForgetsAtCrash if self.applied % PAST_EVERY == 1 => {
                self.past = self.rows.clone();
            }
            _ => {}
        }
        self.rows
            .entry(mutation.key)
            .or_default()
            .merge(mutation.partition);
    }

    /// Answers a read.
    pub fn read(&self, command: &ReadCommand, random: &mut Random) -> ReadResult {
        let source = match self.fault {
            ReplicaFault::ReadsThePast if random.chance(1, 8) => &self.past,
            _ => &self.rows,
        };
        let mut result = evaluate(command, source);
        if self.fault == ReplicaFault::CorruptsValues && random.chance(1, 8) {
            corrupt(&mut result);
        }
        result
    }

    /// Crashes and comes back.
    pub fn crash(&mut self) {
        if self.fault == ReplicaFault::ForgetsAtCrash {
            self.rows = self.past.clone();
        }
    }
}

fn corrupt(result: &mut ReadResult) {
    let cells = result
        .partitions
        .iter_mut()
        .flat_map(|part| &mut part.partition.rows)
        .flat_map(|(_, row)| &mut row.columns);
    for (_, data) in cells {
        if let ceto_model::ColumnData::Cell(cell) = data
            && let ceto_model::CellState::Live(value) = &mut cell.state
        {
            *value = bytes::Bytes::from_static(b"nobody wrote this");
            cell.timestamp.0 += 1;
        }
    }
}
