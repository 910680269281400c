//! The workload: every kind of mutation and of read, on tables small enough that they collide.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ceto_cluster::Random;
use ceto_model::comparable::{bound_after, bound_before};
use ceto_model::key::{COMPONENT, KEY_END};
use ceto_model::read::{ColumnSelection, ResumePoint, Slices};
use ceto_model::schema::{ReplicationOptions, TableBuilder};
use ceto_model::{
    Cell, CellState, ClusteringKey, Collection, ColumnData, ColumnId, ColumnKind, CqlType, DecoratedKey,
    Deletion, Expiry, Keyspace, Liveness, Mutation, Partition, PartitionKey, PartitionRange, Position,
    RangeTombstone, ReadCommand, ReadLimits, ReadResult, ReadTarget, RingPosition, Row, Schema, Slice, Table,
    TableId, Timestamp, Token, Ttl, UnixSeconds,
};
use uuid::Uuid;

use super::indexes::{Entries, INDEXED, definition};

/// Tables, counted from 0.
pub const TABLES: u8 = 2;
/// Partitions of a table, counted from 0.
pub const PARTITIONS: u8 = 7;
/// Rows of a partition, counted from 0.
pub const ROWS: u8 = 5;
/// Paths in the map, counted from 0.
pub const PATHS: u8 = 3;
/// The static column.
pub const STATIC: u32 = 2;
/// The plain columns.
pub const PLAIN: [u32; 2] = [3, 4];
/// The map.
pub const MAP: u32 = 5;
/// Microseconds between the timestamps of two writes: each has some of its own.
const TIMESTAMP_STEP: i64 = 16;

/// Identity of a table.
pub fn table_id(table: u8) -> TableId {
    TableId(Uuid::from_u128(0x7ab1e + u128::from(table)))
}

/// The key of a partition.
pub fn key(partition: u8) -> DecoratedKey {
    DecoratedKey::new(PartitionKey(Bytes::from(vec![b'p', partition])))
}

fn partition_of(key: &DecoratedKey) -> Option<u8> {
    key.key.0.get(1).copied()
}

/// The key of a row.
pub fn clustering(row: u8) -> ClusteringKey {
    ClusteringKey(Bytes::from(vec![COMPONENT, row, KEY_END]))
}

fn rows(first: u8, last: u8) -> Slice {
    Slice {
        start: Position(bound_before(&[COMPONENT, first])),
        end: Position(bound_after(&[COMPONENT, last])),
    }
}

/// Options of a table that a seed picks.
#[derive(Clone, Debug)]
pub struct TableShape {
    /// Class of the compaction strategy.
    pub strategy: &'static str,
    /// Class of the compressor; empty for none.
    pub compressor: &'static str,
    /// Seconds.
    pub gc_grace: u32,
    /// Milliseconds; 0 for never.
    pub flush_period: u32,
    /// The table has an index.
    pub is_indexed: bool,
}

impl TableShape {
    /// Of `random`.
    pub fn draw(random: &mut Random) -> TableShape {
        let strategies = [
            "SizeTieredCompactionStrategy",
            "LeveledCompactionStrategy",
            "TimeWindowCompactionStrategy",
            "IncrementalCompactionStrategy",
            "UnifiedCompactionStrategy",
        ];
        let compressors = [
            "LZ4Compressor",
            "ZstdCompressor",
            "SnappyCompressor",
            "DeflateCompressor",
            "",
        ];
        TableShape {
            strategy: random.pick(&strategies).copied().unwrap_or_default(),
            compressor: random.pick(&compressors).copied().unwrap_or_default(),
            gc_grace: random.between(30..=60) as u32,
            flush_period: if random.chance(1, 3) { 3000 } else { 0 },
            is_indexed: false,
        }
    }

    fn table(&self, table: u8) -> Table {
        let mut builder = TableBuilder::new(table_id(table), "ks", &format!("t{table}"));
        builder.add_column("k", ColumnKind::PartitionKey, CqlType::Blob);
        builder.add_column("c", ColumnKind::Clustering, CqlType::Blob);
        builder.add_column("s", ColumnKind::Static, CqlType::Blob);
        builder.add_column("v", ColumnKind::Regular, CqlType::Blob);
        builder.add_column("w", ColumnKind::Regular, CqlType::Blob);
        builder.add_column("m", ColumnKind::Regular, CqlType::Blob);
        let options = &mut builder.options;
        options.gc_grace_seconds = self.gc_grace;
        options.memtable_flush_period_in_ms = self.flush_period;
        options.compaction.insert("class".into(), self.strategy.into());
        if self.strategy.starts_with("SizeTiered") {
            options.compaction.insert("min_threshold".into(), "2".into());
        } else {
            options.compaction.remove("min_threshold");
            options.compaction.remove("max_threshold");
        }
        if self.compressor.is_empty() {
            options.compression = [("enabled".to_owned(), "false".to_owned())].into();
        } else {
            options.compression.insert("class".into(), self.compressor.into());
            options
                .compression
                .insert("chunk_length_in_kb".into(), "4".into());
        }
        if self.is_indexed {
            builder.indexes = vec![definition(table)];
        }
        builder.build()
    }
}

/// The schema with tables of these shapes.
pub fn schema(shapes: &[TableShape]) -> Arc<Schema> {
    let tables = shapes.iter().zip(0..).map(|(shape, at)| {
        let table = Arc::new(shape.table(at));
        (table.name.clone(), table)
    });
    let keyspace = Keyspace {
        name: "ks".into(),
        durable_writes: true,
        replication: ReplicationOptions::default(),
        tables: tables.collect(),
        types: Default::default(),
        functions: Default::default(),
        is_virtual: false,
    };
    Arc::new(Schema::default().with_keyspace(keyspace, Uuid::from_u128(1)))
}

/// A place that can hold one value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Slot {
    /// Table.
    pub table: u8,
    /// Partition.
    pub partition: u8,
    /// Row; None for the static row.
    pub row: Option<u8>,
    /// Part of the row.
    pub part: Part,
}

/// A part of a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The mark that INSERT leaves.
    Marker,
    /// A column.
    Column(u32),
    /// An element of the map.
    Element(u8),
}

/// A value or deletion of a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Unique among all versions of a slot.
    pub timestamp: i64,
    /// None for a deletion.
    pub value: Option<Bytes>,
    /// First second at which the value is no longer there.
    pub expires_at: Option<i64>,
}

/// What a write changes, one of several things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Static,
    Insert(u8),
    Set(u8, u32),
    Unset(u8, u32),
    Put(u8, u8),
    Remove(u8, u8),
    Replace(u8, u8),
    DeleteRow(u8),
    DeleteRows(u8, u8),
    DeletePartition,
}

/// A write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Table.
    pub table: u8,
    /// Partition.
    pub partition: u8,
    /// What each slot becomes.
    pub effects: Vec<(Slot, Version)>,
    /// As the engine takes it.
    pub mutation: Mutation,
}

/// Draws operations.
#[derive(Debug)]
pub struct Workload {
    random: Random,
    value_max: u64,
    deletions: u64,
    /// Those used so far.
    timestamps: BTreeSet<i64>,
    writes: u64,
}

/// Microseconds by which a write's timestamp may lie in the past.
const LATENESS_MAX: u64 = 3_000_000;

impl Workload {
    /// Of `seed`.
    pub fn new(seed: u64) -> Workload {
        let mut random = Random::salted(seed, "storage workload");
        Workload {
            value_max: *random.pick(&[40, 300, 300, 2500]).unwrap_or(&300),
            deletions: random.between(5..=40),
            random,
            timestamps: BTreeSet::new(),
            writes: 0,
        }
    }

    /// The stream of choices.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The next write, at `now` microseconds.
    pub fn write(&mut self, now: i64) -> Write {
        let table = self.random.below(TABLES.into()) as u8;
        let partition = self.random.below(PARTITIONS.into()) as u8;
        let mut write = Writing {
            table,
            partition,
            now,
            effects: Vec::new(),
            content: Partition::default(),
        };
        // Not too old for gc grace, never used before.
        let late = if self.random.chance(1, 3) {
            self.random.below(LATENESS_MAX) as i64
        } else {
            0
        };
        self.writes += 1;
        let mut timestamp = (now - late) / TIMESTAMP_STEP * TIMESTAMP_STEP;
        while !self.timestamps.insert(timestamp) {
            timestamp += TIMESTAMP_STEP;
        }
        for at in 0..1 + self.random.below(3) as i64 {
            let change = self.change();
            let ttl = self
                .random
                .chance(1, 8)
                .then(|| self.random.between(1..=40) as u32);
            let size = if self.random.chance(1, 10) {
                self.value_max * 2
            } else {
                self.value_max
            };
            let value = value(self.writes, at, self.random.below(size));
            write.apply(change, timestamp + at * 4, ttl, &value);
        }
        let mut mutation = Mutation::new(table_id(table), key(partition));
        mutation.partition = write.content;
        Write {
            table,
            partition,
            effects: write.effects,
            mutation,
        }
    }

    fn change(&mut self) -> Change {
        let row = self.random.below(ROWS.into()) as u8;
        let path = self.random.below(PATHS.into()) as u8;
        let column = self.random.pick(&PLAIN).copied().unwrap_or_default();
        if self.random.chance(self.deletions, 100) {
            return match self.random.below(12) {
                0 => Change::DeletePartition,
                1..=3 => {
                    let last = row + self.random.below(u64::from(ROWS - row)) as u8;
                    Change::DeleteRows(row, last)
                }
                4..=6 => Change::DeleteRow(row),
                7..=9 => Change::Unset(row, column),
                _ => Change::Remove(row, path),
            };
        }
        match self.random.below(10) {
            0 => Change::Static,
            1..=3 => Change::Insert(row),
            4..=6 => Change::Set(row, column),
            7 => Change::Replace(row, path),
            _ => Change::Put(row, path),
        }
    }

    /// The next read.
    pub fn read(&mut self) -> Read {
        let partition = (!self.random.chance(1, 4)).then(|| self.random.below(PARTITIONS.into()) as u8);
        let first = self.random.below(ROWS.into()) as u8;
        Read {
            table: self.random.below(TABLES.into()) as u8,
            partition,
            rows: if self.random.chance(1, 2) {
                (0, ROWS - 1)
            } else {
                (first, first + self.random.below(u64::from(ROWS - first)) as u8)
            },
            reversed: self.random.chance(1, 3),
            page: self.random.chance(1, 3).then(|| self.random.between(1..=6)),
            bypass_cache: self.random.chance(1, 8),
            entries: None,
        }
    }
}

/// Written by nobody else: the number of the write stands in it.
fn value(write: u64, change: i64, padding: u64) -> Bytes {
    let mut value = format!("{write}.{change}:").into_bytes();
    // Not too easy to compress.
    let mut pad = Random::new(write);
    value.extend((0..padding).map(|_| pad.next() as u8 & 15));
    value.into()
}

struct Writing {
    table: u8,
    partition: u8,
    now: i64,
    effects: Vec<(Slot, Version)>,
    content: Partition,
}

impl Writing {
    fn slot(&self, row: Option<u8>, part: Part) -> Slot {
        Slot {
            table: self.table,
            partition: self.partition,
            row,
            part,
        }
    }

    fn set(&mut self, row: Option<u8>, part: Part, timestamp: i64, ttl: Option<u32>, value: Bytes) {
        let expires_at = ttl.map(|ttl| self.now.div_euclid(1_000_000) + i64::from(ttl));
        let version = Version {
            timestamp,
            value: Some(value),
            expires_at,
        };
        self.effects.push((self.slot(row, part), version));
    }

    fn unset(&mut self, row: Option<u8>, part: Part, timestamp: i64) {
        let version = Version {
            timestamp,
            value: None,
            expires_at: None,
        };
        self.effects.push((self.slot(row, part), version));
    }

    fn unset_row(&mut self, row: u8, timestamp: i64) {
        parts().for_each(|part| self.unset(Some(row), part, timestamp));
    }

    fn apply(&mut self, change: Change, timestamp: i64, ttl: Option<u32>, value: &Bytes) {
        let seconds = UnixSeconds(self.now.div_euclid(1_000_000));
        let stamp = Timestamp(timestamp);
        let deletion = Deletion {
            timestamp: stamp,
            deleted_at: seconds,
        };
        let expiry = ttl.map(|ttl| Expiry::after(seconds, Ttl(ttl)));
        let live = |stamp| Cell::with_expiry(stamp, value.clone(), expiry);
        let tombstone = Cell::tombstone(stamp, seconds);
        let mut content = Partition::default();
        let mut put = |row: u8, column: u32, data: ColumnData| {
            content
                .row_mut(clustering(row))
                .merge_column(ColumnId(column), data);
        };
        let element = |path: u8, cell: Cell, deletion: Option<Deletion>| {
            let mut map = Collection::default();
            if let Some(deletion) = deletion {
                map.delete(deletion);
            }
            map.merge_cell(Bytes::from(vec![path]), cell);
            ColumnData::Collection(map)
        };
        match change {
            Change::Static => {
                self.set(None, Part::Column(STATIC), timestamp, ttl, value.clone());
                content
                    .static_row
                    .merge_column(ColumnId(STATIC), ColumnData::Cell(live(stamp)));
            }
            Change::Insert(row) => {
                for column in PLAIN {
                    self.set(Some(row), Part::Column(column), timestamp, ttl, value.clone());
                    put(row, column, ColumnData::Cell(live(stamp)));
                }
                self.set(Some(row), Part::Marker, timestamp, ttl, Bytes::new());
                content.row_mut(clustering(row)).merge(Row {
                    liveness: Some(Liveness {
                        timestamp: stamp,
                        expiry,
                    }),
                    ..Row::default()
                });
            }
            Change::Set(row, column) => {
                self.set(Some(row), Part::Column(column), timestamp, ttl, value.clone());
                put(row, column, ColumnData::Cell(live(stamp)));
            }
            Change::Unset(row, column) => {
                self.unset(Some(row), Part::Column(column), timestamp);
                put(row, column, ColumnData::Cell(tombstone));
            }
            Change::Put(row, path) => {
                self.set(Some(row), Part::Element(path), timestamp, ttl, value.clone());
                put(row, MAP, element(path, live(stamp), None));
            }
            Change::Remove(row, path) => {
                self.unset(Some(row), Part::Element(path), timestamp);
                put(row, MAP, element(path, tombstone, None));
            }
            Change::Replace(row, path) => {
                (0..PATHS).for_each(|path| self.unset(Some(row), Part::Element(path), timestamp));
                self.set(Some(row), Part::Element(path), timestamp + 1, ttl, value.clone());
                put(
                    row,
                    MAP,
                    element(path, live(Timestamp(timestamp + 1)), Some(deletion)),
                );
            }
            Change::DeleteRow(row) => {
                self.unset_row(row, timestamp);
                content.row_mut(clustering(row)).delete(deletion);
            }
            Change::DeleteRows(first, last) => {
                (first..=last).for_each(|row| self.unset_row(row, timestamp));
                let slice = rows(first, last);
                content.delete_range(RangeTombstone { slice, deletion });
            }
            Change::DeletePartition => {
                self.unset(None, Part::Column(STATIC), timestamp);
                (0..ROWS).for_each(|row| self.unset_row(row, timestamp));
                content.deletion = Some(deletion);
            }
        }
        self.content.merge(content);
    }
}

/// The parts of a row.
pub fn parts() -> impl Iterator<Item = Part> {
    let columns = PLAIN.into_iter().map(Part::Column);
    let elements = (0..PATHS).map(Part::Element);
    std::iter::once(Part::Marker).chain(columns).chain(elements)
}

/// The slots of a partition.
pub fn slots(table: u8, partition: u8) -> impl Iterator<Item = Slot> {
    let slot = move |row, part| Slot {
        table,
        partition,
        row,
        part,
    };
    let rows = (0..ROWS).flat_map(move |row| parts().map(move |part| slot(Some(row), part)));
    std::iter::once(slot(None, Part::Column(STATIC))).chain(rows)
}

/// A read.
#[derive(Clone, Debug)]
pub struct Read {
    /// Table.
    pub table: u8,
    /// One partition; None for all.
    pub partition: Option<u8>,
    /// First and last row.
    pub rows: (u8, u8),
    /// From the last row to the first.
    pub reversed: bool,
    /// Rows of a page; None for all in one.
    pub page: Option<u64>,
    /// Past the cache.
    pub bypass_cache: bool,
    /// By these entries of the table's index; None: without it.
    pub entries: Option<Entries>,
}

impl Read {
    /// All of a table.
    pub fn whole(table: u8) -> Read {
        Read {
            table,
            partition: None,
            rows: (0, ROWS - 1),
            reversed: false,
            page: None,
            bypass_cache: false,
            entries: None,
        }
    }

    /// The answer says something about this slot. Whether the static row of a partition without rows in the slice comes
    /// along is not for this workload to say.
    pub fn covers(&self, slot: &Slot) -> bool {
        let is_whole = self.rows == (0, ROWS - 1) && self.page.is_none() && self.entries.is_none();
        slot.table == self.table
            && (self.entries.is_none() || slot.part == Part::Column(INDEXED))
            && self.partition.is_none_or(|own| own == slot.partition)
            && match slot.row {
                Some(row) => (self.rows.0..=self.rows.1).contains(&row),
                None => is_whole,
            }
    }

    /// As a command.
    pub fn command(&self, now: UnixSeconds) -> ReadCommand {
        ReadCommand {
            table: table_id(self.table),
            target: match self.partition {
                Some(partition) => ReadTarget::Partition(key(partition)),
                None => ReadTarget::Range(PartitionRange::full()),
            },
            slices: Slices::from_elem(rows(self.rows.0, self.rows.1), 1),
            first_partition_slices: None,
            reversed: self.reversed,
            columns: ColumnSelection::All,
            now,
            limits: ReadLimits {
                rows: self.page.unwrap_or(u64::MAX),
                ..ReadLimits::NONE
            },
            keep_tombstones: false,
            bypass_cache: self.bypass_cache,
            index: None,
        }
    }

    /// The command for what follows a page that ended at `resume`.
    pub fn next_page(&self, command: &ReadCommand, resume: ResumePoint) -> ReadCommand {
        let mut next = command.clone();
        let (start, first) = match resume {
            ResumePoint::Ring(start) => (start, None),
            ResumePoint::Inside(key, bound) => {
                let mut rest = rows(self.rows.0, self.rows.1);
                if self.reversed {
                    rest.end = bound;
                } else {
                    rest.start = bound;
                }
                (RingPosition::BeforeKey(key), Some(Slices::from_elem(rest, 1)))
            }
        };
        match (&next.target, first) {
            (ReadTarget::Partition(_), Some(rest)) => next.slices = rest,
            (ReadTarget::Partition(_), None) => next.slices.clear(),
            (ReadTarget::Range(_), first) => {
                let end = RingPosition::AfterToken(Token::MAX);
                next.target = ReadTarget::Range(PartitionRange { start, end });
                next.first_partition_slices = first;
            }
        }
        next
    }
}

/// The live values in an answer.
pub fn found(table: u8, result: &ReadResult, now: UnixSeconds) -> Vec<(Slot, i64, Bytes)> {
    let mut found = Vec::new();
    for answer in &result.partitions {
        let partition = partition_of(&answer.key).unwrap_or(u8::MAX);
        let slot = |row, part| Slot {
            table,
            partition,
            row,
            part,
        };
        let content = &answer.partition;
        let rows = content.rows.iter().map(|(key, row)| (key.0.get(1).copied(), row));
        for (at, row) in std::iter::once((None, &content.static_row)).chain(rows) {
            if let Some(liveness) = row.liveness.filter(|liveness| liveness.is_live(now)) {
                found.push((slot(at, Part::Marker), liveness.timestamp.0, Bytes::new()));
            }
            for (column, data) in &row.columns {
                let mut add = |part, cell: &Cell| {
                    if let CellState::Live(value) | CellState::Expiring { value, .. } = &cell.state
                        && cell.is_live(now)
                    {
                        found.push((slot(at, part), cell.timestamp.0, value.clone()));
                    }
                };
                match data {
                    ColumnData::Cell(cell) => add(Part::Column(column.0), cell),
                    ColumnData::Collection(map) => map.cells.iter().for_each(|(path, cell)| {
                        add(Part::Element(path.first().copied().unwrap_or(u8::MAX)), cell);
                    }),
                }
            }
        }
    }
    found
}

/// The slots of a table.
pub fn slots_of(table: u8) -> impl Iterator<Item = Slot> {
    (0..PARTITIONS).flat_map(move |partition| slots(table, partition))
}
