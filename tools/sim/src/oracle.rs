//! The oracle: knows every write that was attempted and what was promised about it, and judges reads by that.
//!
//! Checkers, numbered as everywhere in this project:
//! 1. a read at R with R + W > RF sees every write acknowledged at W before it began, or a newer one;
//! 2. no read returns a value that nobody wrote, nor one older than what a read that ended before it began has made
//!    sure of;
//! 3. after healing and repair, replicas of a partition are equal, and each cell holds an attempted write no older
//!    than the newest acknowledged one;
//! 6. each request gets exactly one answer, in time, and nothing is left behind.
//!
//! Whether W and R overlap is decided per data center too, so LOCAL_QUORUM with LOCAL_QUORUM counts in one data center
//! and EACH_QUORUM with LOCAL_QUORUM in any.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use ceto_cluster::{ReplicaMap, Strategy};
use ceto_model::read::ResumePoint;
use ceto_model::{CellState, ColumnData, Consistency, Partition, ReadResult, Timestamp};

use crate::workload::{
    COLUMNS, PARTITIONS, ROWS, ReadOperation, WriteOperation, clustering, key, partition_of, row_of,
};

/// Something that must not happen did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Number of the checker; 0 for a cluster that makes no progress though it could.
    pub checker: u8,
    /// What.
    pub text: String,
}

impl Violation {
    /// Of `checker`.
    pub fn new(checker: u8, text: String) -> Violation {
        Violation { checker, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checker {}: {}", self.checker, self.text)
    }
}

/// One write to one cell, in the order in which writes win: by time, deletions before values, then by value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Version {
    timestamp: Timestamp,
    is_deletion: bool,
    value: Bytes,
}

impl Version {
    fn of(write: &WriteOperation) -> Version {
        let is_deletion = write.change.is_deletion();
        Version {
            timestamp: write.timestamp,
            is_deletion,
            value: if is_deletion {
                Bytes::new()
            } else {
                write.value.clone()
            },
        }
    }
}

/// How many replicas surely have (or were surely asked for) something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guarantee {
    total: u32,
    by_datacenter: Vec<u32>,
}

impl Guarantee {
    /// What an answer at `consistency` means, from a coordinator with this map.
    pub fn of(consistency: Consistency, map: &ReplicaMap) -> Guarantee {
        let mut by_datacenter = vec![0; map.ring().datacenter_names().count()];
        let mut set = |datacenter: ceto_cluster::Datacenter, count| {
            if let Some(own) = by_datacenter.get_mut(usize::from(datacenter.0)) {
                *own = count;
            }
        };
        let required = map.required(consistency);
        let total = match consistency {
            Consistency::Any => 0,
            Consistency::LocalOne | Consistency::LocalQuorum => {
                set(map.local_datacenter(), required);
                required
            }
            Consistency::EachQuorum => {
                map.each_quorum()
                    .iter()
                    .for_each(|(datacenter, count)| set(*datacenter, *count));
                required
            }
            _ => required,
        };
        Guarantee { total, by_datacenter }
    }
}

#[derive(Clone, Debug)]
struct Promise {
    version: Version,
    since: Duration,
    guarantee: Guarantee,
    /// Made by a read that returned it, not by the write itself.
    by_read: bool,
}

#[derive(Clone, Default, Debug)]
struct History {
    attempted: BTreeSet<Version>,
    promised: Vec<Promise>,
}

type CellId = (u8, u8, u32);

/// All cells' histories.
#[derive(Debug)]
pub struct Oracle {
    cells: BTreeMap<CellId, History>,
    factors: Vec<u32>,
}

/// A read that was begun.
#[derive(Clone, Debug)]
pub struct PendingRead {
    /// What.
    pub operation: ReadOperation,
    /// When.
    pub began: Duration,
    /// What its answer means.
    pub guarantee: Guarantee,
}

impl Oracle {
    /// Of a keyspace with this replication.
    pub fn new(map: &ReplicaMap) -> Oracle {
        let factors = map
            .ring()
            .datacenter_names()
            .map(|name| match map.strategy() {
                Strategy::NetworkTopology { .. } => map.strategy().local_replication_factor(name),
                _ => map.strategy().replication_factor(),
            })
            .collect();
        Oracle {
            cells: cells().map(|cell| (cell, History::default())).collect(),
            factors,
        }
    }

    fn touched(&mut self, write: &WriteOperation) -> impl Iterator<Item = &mut History> {
        let (partition, change) = (write.partition, write.change);
        self.cells
            .iter_mut()
            .filter(move |((own, row, column), _)| *own == partition && change.touches(*row, *column))
            .map(|(_, history)| history)
    }

    /// A write was begun: from now on it may be seen.
    pub fn attempt(&mut self, write: &WriteOperation) {
        let version = Version::of(write);
        self.touched(write).for_each(|history| {
            history.attempted.insert(version.clone());
        });
    }

    /// A write was acknowledged: from now on it, or something newer, must be seen.
    pub fn acknowledge(&mut self, write: &WriteOperation, now: Duration, guarantee: &Guarantee) {
        let version = Version::of(write);
        self.touched(write).for_each(|history| {
            history.promised.push(Promise {
                version: version.clone(),
                since: now,
                guarantee: guarantee.clone(),
                by_read: false,
            });
        });
    }

    fn overlap(&self, write: &Guarantee, read: &Guarantee) -> bool {
        let total: u32 = self.factors.iter().sum();
        let within = self
            .factors
            .iter()
            .zip(write.by_datacenter.iter().zip(&read.by_datacenter));
        write.total + read.total > total
            || within
                .into_iter()
                .any(|(factor, (write, read))| write + read > *factor)
    }

    /// Judges the answer to a read, and remembers what it has made sure of.
    pub fn check_read(&mut self, read: &PendingRead, result: &ReadResult, now: Duration) -> Vec<Violation> {
        let returned = versions(result);
        let mut violations = Vec::new();
        let mut seen = Vec::new();
        for (cell, history) in &self.cells {
            if !is_covered(cell, &read.operation, result.resume.as_ref()) {
                continue;
            }
            let version = returned.get(cell);
            let required = history
                .promised
                .iter()
                .filter(|promise| {
                    promise.since < read.began && self.overlap(&promise.guarantee, &read.guarantee)
                })
                .max_by(|a, b| a.version.cmp(&b.version));
            if let Err((checker, text)) = judge(history, version, required) {
                let text = format!(
                    "read at {} begun at {:?} of cell {cell:?}: {text}",
                    read.operation.consistency, read.began
                );
                violations.push(Violation::new(checker, text));
            }
            seen.extend(version.map(|version| (*cell, version.clone())));
        }
        for (cell, version) in seen {
            if let Some(history) = self.cells.get_mut(&cell) {
                history.promised.push(Promise {
                    version,
                    since: now,
                    guarantee: read.guarantee.clone(),
                    by_read: true,
                });
            }
        }
        violations
    }

    /// Judges what a replica holds of a partition at the end.
    pub fn check_final(&self, partition: u8, content: &Partition) -> Vec<Violation> {
        let held = cells_of(partition, content);
        let mut violations = Vec::new();
        for (cell, history) in self.cells.iter().filter(|((own, ..), _)| *own == partition) {
            let required = history.promised.iter().max_by(|a, b| a.version.cmp(&b.version));
            if let Err((_, text)) = judge(history, held.get(cell), required) {
                violations.push(Violation::new(3, format!("at the end, cell {cell:?}: {text}")));
            }
        }
        violations
    }
}

/// Whether a cell may be as it was found.
fn judge(history: &History, found: Option<&Version>, required: Option<&Promise>) -> Result<(), (u8, String)> {
    if let Some(found) = found
        && !history.attempted.contains(found)
    {
        return Err((2, format!("{found:?} was written by nobody")));
    }
    let Some(Promise {
        version,
        since,
        by_read,
        ..
    }) = required
    else {
        return Ok(());
    };
    let is_new_enough = match found {
        Some(found) => found >= version,
        None => {
            version.is_deletion
                || history
                    .attempted
                    .range(version..)
                    .any(|attempted| attempted.is_deletion)
        }
    };
    if is_new_enough {
        return Ok(());
    }
    let how = if *by_read { "read" } else { "acknowledged" };
    let checker = if *by_read { 2 } else { 1 };
    Err((
        checker,
        format!("found {found:?}, but {version:?} was {how} at {since:?}"),
    ))
}

fn cells() -> impl Iterator<Item = CellId> {
    (0..PARTITIONS).flat_map(|partition| {
        (0..ROWS).flat_map(move |row| COLUMNS.map(move |column| (partition, row, column)))
    })
}

fn versions(result: &ReadResult) -> BTreeMap<CellId, Version> {
    let parts = result
        .partitions
        .iter()
        .filter_map(|part| Some((partition_of(&part.key)?, &part.partition)));
    parts
        .flat_map(|(partition, content)| cells_of(partition, content))
        .collect()
}

fn cells_of(partition: u8, content: &Partition) -> BTreeMap<CellId, Version> {
    let mut cells = BTreeMap::new();
    for (clustering, row) in &content.rows {
        for (column, data) in &row.columns {
            if let (Some(at), ColumnData::Cell(cell)) = (row_of(clustering), data)
                && let CellState::Live(value) = &cell.state
            {
                let version = Version {
                    timestamp: cell.timestamp,
                    is_deletion: false,
                    value: value.clone(),
                };
                cells.insert((partition, at, column.0), version);
            }
        }
    }
    cells
}

/// The answer says something about the cell: it lies in the read's rows, and before the place where the read stopped.
fn is_covered(cell: &CellId, read: &ReadOperation, resume: Option<&ResumePoint>) -> bool {
    let (partition, row, _) = *cell;
    if read.partition.is_some_and(|own| own != partition) || !read.rows.contains(&row) {
        return false;
    }
    let key = key(partition);
    match resume {
        None => true,
        Some(ResumePoint::Ring(position)) => position.cmp_key(&key).is_gt(),
        Some(ResumePoint::Inside(own, _)) if *own != key => key < *own,
        Some(ResumePoint::Inside(_, bound)) if read.reversed => clustering(row).0 > bound.0,
        Some(ResumePoint::Inside(_, bound)) => clustering(row).0 < bound.0,
    }
}
