//! The workload: writes, deletions, point reads and scans on a table small enough that they collide.

use std::ops::RangeInclusive;

use bytes::Bytes;
use ceto_cluster::Random;
use ceto_cluster::coordinator::{ReadOptions, ReadRepair};
use ceto_model::comparable::{bound_after, bound_before};
use ceto_model::key::{COMPONENT, KEY_END};
use ceto_model::read::{ColumnSelection, Slices};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, ColumnId, Consistency, DecoratedKey, Deletion, Mutation, PartitionKey,
    PartitionRange, Position, RangeTombstone, ReadCommand, ReadLimits, ReadTarget, Slice, TableId, Timestamp,
    UnixSeconds,
};
use uuid::Uuid;

/// The one table.
pub const TABLE: TableId = TableId(Uuid::from_u128(0x7ab1e));
/// Partitions, counted from 0.
pub const PARTITIONS: u8 = 8;
/// Rows of a partition, counted from 0.
pub const ROWS: u8 = 5;
/// Columns of a row, counted from 1.
pub const COLUMNS: RangeInclusive<u32> = 1..=2;

/// The key of a partition.
pub fn key(partition: u8) -> DecoratedKey {
    DecoratedKey::new(PartitionKey(Bytes::from(vec![b'p', partition])))
}

/// The partition of a key.
pub fn partition_of(key: &DecoratedKey) -> Option<u8> {
    key.key.0.get(1).copied()
}

/// The key of a row.
pub fn clustering(row: u8) -> ClusteringKey {
    ClusteringKey(Bytes::from(vec![COMPONENT, row, KEY_END]))
}

/// The row of a key.
pub fn row_of(key: &ClusteringKey) -> Option<u8> {
    key.0.get(1).copied()
}

/// What a write changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// One cell gets a value.
    Set {
        /// Of this row.
        row: u8,
        /// And this column.
        column: u32,
    },
    /// A row is deleted.
    DeleteRow(u8),
    /// Rows from the first to the second are deleted.
    DeleteRows(u8, u8),
    /// The partition is deleted.
    DeletePartition,
}

impl Change {
    /// It touches this row.
    pub fn touches(self, own_row: u8, own_column: u32) -> bool {
        match self {
            Self::Set { row, column } => row == own_row && column == own_column,
            Self::DeleteRow(row) => row == own_row,
            Self::DeleteRows(first, last) => (first..=last).contains(&own_row),
            Self::DeletePartition => true,
        }
    }

    /// It deletes.
    pub fn is_deletion(self) -> bool {
        !matches!(self, Self::Set { .. })
    }
}

/// A write.
#[derive(Clone, Debug)]
pub struct WriteOperation {
    /// Where.
    pub partition: u8,
    /// What.
    pub change: Change,
    /// Written by nobody else.
    pub value: Bytes,
    /// From the coordinator's wall clock.
    pub timestamp: Timestamp,
    /// Level.
    pub consistency: Consistency,
}

impl WriteOperation {
    /// As a mutation.
    pub fn mutation(&self) -> Mutation {
        let mut mutation = Mutation::new(TABLE, key(self.partition));
        let deletion = Deletion {
            timestamp: self.timestamp,
            deleted_at: UnixSeconds(self.timestamp.0 / 1_000_000),
        };
        let partition = &mut mutation.partition;
        match self.change {
            Change::Set { row, column } => {
                let cell = ColumnData::Cell(Cell::live(self.timestamp, self.value.clone()));
                partition
                    .row_mut(clustering(row))
                    .merge_column(ColumnId(column), cell);
            }
            Change::DeleteRow(row) => partition.row_mut(clustering(row)).delete(deletion),
            Change::DeleteRows(first, last) => {
                let slice = rows(first, last);
                partition.delete_range(RangeTombstone { slice, deletion });
            }
            Change::DeletePartition => partition.deletion = Some(deletion),
        }
        mutation
    }
}

/// The slice of rows from the first to the last, both included.
fn rows(first: u8, last: u8) -> Slice {
    Slice {
        start: Position(bound_before(&[COMPONENT, first])),
        end: Position(bound_after(&[COMPONENT, last])),
    }
}

/// A read.
#[derive(Clone, Debug)]
pub struct ReadOperation {
    /// One partition; None for all.
    pub partition: Option<u8>,
    /// Rows.
    pub rows: RangeInclusive<u8>,
    /// From the last row to the first.
    pub reversed: bool,
    /// Most rows of the answer.
    pub limit: u64,
    /// Level.
    pub consistency: Consistency,
    /// Of the table.
    pub options: ReadOptions,
}

impl ReadOperation {
    /// As a command.
    pub fn command(&self, now: UnixSeconds) -> ReadCommand {
        ReadCommand {
            table: TABLE,
            target: match self.partition {
                Some(partition) => ReadTarget::Partition(key(partition)),
                None => ReadTarget::Range(PartitionRange::full()),
            },
            slices: Slices::from_elem(rows(*self.rows.start(), *self.rows.end()), 1),
            first_partition_slices: None,
            reversed: self.reversed,
            columns: ColumnSelection::All,
            now,
            limits: ReadLimits {
                rows: self.limit,
                ..ReadLimits::NONE
            },
            keep_tombstones: false,
            bypass_cache: false,
            index: None,
        }
    }
}

/// Draws operations.
#[derive(Debug)]
pub struct Workload {
    random: Random,
    write_levels: Vec<Consistency>,
    read_levels: Vec<Consistency>,
    deletions: u64,
    options: ReadOptions,
    values: u64,
}

impl Workload {
    /// Of `seed`: picks its levels and its mix.
    pub fn new(seed: u64) -> Workload {
        use Consistency::*;
        let mut random = Random::salted(seed, "workload");
        let strong: [(Consistency, Consistency); 5] = [
            (Quorum, Quorum),
            (All, One),
            (One, All),
            (LocalQuorum, LocalQuorum),
            (EachQuorum, LocalQuorum),
        ];
        let (write, read) = random.pick(&strong).copied().unwrap_or((Quorum, Quorum));
        let (mut write_levels, mut read_levels) = (vec![write], vec![read]);
        if random.chance(1, 3) {
            let any_write = [
                Any,
                One,
                Two,
                Three,
                Quorum,
                All,
                LocalQuorum,
                EachQuorum,
                LocalOne,
            ];
            let any_read = [One, Two, Three, Quorum, All, LocalQuorum, EachQuorum, LocalOne];
            write_levels.extend(random.pick(&any_write));
            read_levels.extend(random.pick(&any_read));
        }
        let speculate_after = random
            .chance(1, 2)
            .then(|| std::time::Duration::from_millis(random.between(1..=100)));
        let options = ReadOptions {
            read_repair: ReadRepair::Blocking,
            speculate_after,
        };
        Workload {
            deletions: random.below(40),
            random,
            write_levels,
            read_levels,
            options,
            values: 0,
        }
    }

    /// Whether the next operation is a write.
    pub fn wants_write(&mut self) -> bool {
        self.random.chance(1, 2)
    }

    /// A number below `bound`, for choices about clients.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// The next write, stamped with the coordinator's time.
    pub fn write(&mut self, timestamp: Timestamp) -> WriteOperation {
        self.values += 1;
        let row = self.random.below(u64::from(ROWS)) as u8;
        let change = if self.random.chance(self.deletions, 100) {
            match self.random.below(8) {
                0 => Change::DeletePartition,
                1 | 2 => {
                    let last = row + self.random.below(u64::from(ROWS - row)) as u8;
                    Change::DeleteRows(row, last)
                }
                _ => Change::DeleteRow(row),
            }
        } else {
            let column =
                self.random
                    .between(u64::from(*COLUMNS.start())..=u64::from(*COLUMNS.end())) as u32;
            Change::Set { row, column }
        };
        WriteOperation {
            partition: self.random.below(u64::from(PARTITIONS)) as u8,
            change,
            value: Bytes::from(format!("v{}", self.values)),
            timestamp,
            consistency: self
                .random
                .pick(&self.write_levels)
                .copied()
                .unwrap_or(Consistency::Quorum),
        }
    }

    /// The next read.
    pub fn read(&mut self) -> ReadOperation {
        let partition = (!self.random.chance(1, 5)).then(|| self.random.below(u64::from(PARTITIONS)) as u8);
        let first = self.random.below(u64::from(ROWS)) as u8;
        let rows = if self.random.chance(1, 2) {
            0..=ROWS - 1
        } else {
            first..=first + self.random.below(u64::from(ROWS - first)) as u8
        };
        ReadOperation {
            partition,
            rows,
            reversed: partition.is_some() && self.random.chance(1, 3),
            limit: if self.random.chance(1, 2) {
                self.random.between(1..=12)
            } else {
                u64::MAX
            },
            consistency: self
                .random
                .pick(&self.read_levels)
                .copied()
                .unwrap_or(Consistency::Quorum),
            options: self.options,
        }
    }
}
