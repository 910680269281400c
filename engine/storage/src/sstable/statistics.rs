//! What an sstable says about itself.
//!
//! ```text
//! Statistics.db ::= head flatbuffer xxh3:8         xxh3: of everything before it
//! ```
//!
//! The fields of the flatbuffer's table are the constants in `field`, in order; new ones go to the end. It is written
//! with the flatbuffers builder and read by `flat`, which checks every offset.

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use ceto_model::{PartitionKey, Position, Slice, TableId, Timestamp};
use flatbuffers::{FlatBufferBuilder, VOffsetT};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::compression::{Codec, Compression, Training};
use super::descriptor::Component;
use super::flat::FlatTable;
use super::head::{HEAD_SIZE, check_head, write_head};
use super::serialization_header::SerializationHeader;
use crate::commitlog::ReplayPosition;
use crate::error::{Error, Result};

const IDENTIFIER: &str = "CTST";

/// Counts, ranges and provenance of an sstable.
#[derive(Clone, PartialEq, Debug)]
pub struct Statistics {
    /// Its table.
    pub table: TableId,
    /// Shard that it was written for.
    pub shard: u16,
    /// Shards of the node then: all partitions in it are this shard's under this number.
    pub shard_count: u16,
    /// Partitions.
    pub partitions: u64,
    /// Rows, static rows not counted.
    pub rows: u64,
    /// Cells.
    pub cells: u64,
    /// Tombstones: of cells, rows, ranges and partitions.
    pub tombstones: u64,
    /// Oldest timestamp in it.
    pub min_timestamp: Timestamp,
    /// Newest timestamp in it.
    pub max_timestamp: Timestamp,
    /// Second at which the last of it is dead; `i64::MAX` when some of it lives for ever.
    pub max_expiry: i64,
    /// Bytes of Data on disk.
    pub data_size: u64,
    /// Bytes of Data before compression.
    pub raw_size: u64,
    /// Bytes of the largest partition before compression.
    pub largest_partition: u64,
    /// Key of the first partition.
    pub first_key: PartitionKey,
    /// Key of the last partition.
    pub last_key: PartitionKey,
    /// How its blocks were compressed.
    pub compression: Compression,
    /// Wanted false positive chance of its filter.
    pub bloom_filter_fp_chance: f64,
    /// Everything of this table and shard before this place of the commitlog is in this sstable or an older one. None
    /// when it was not made from memtables.
    pub flushed_through: Option<ReplayPosition>,
    /// Microseconds since the Unix epoch.
    pub created_at: i64,
    /// Level, for strategies that have levels.
    pub level: u32,
    /// When it was repaired, in microseconds; 0: never.
    pub repaired_at: i64,
    /// Session of the incremental repair that it takes part in.
    pub pending_repair: Option<Uuid>,
    /// What wrote it.
    pub origin: Origin,
    /// Sstables of one run do not overlap and count as one for strategies that have runs.
    pub run: Option<Uuid>,
    /// Number of tombstones by the second they were made, and of what expires by the second it does, rounded up; sorted.
    pub tombstone_times: Vec<(i64, u64)>,
    /// Number of partitions by the number of bits of their size in bytes before compression.
    pub partition_sizes: Vec<u64>,
    /// Number of partitions by the number of bits of their number of cells.
    pub cell_counts: Vec<u64>,
    /// Number of cells and row markers with TTL by the number of bits of their TTL in seconds.
    pub ttls: Vec<u64>,
    /// Least and greatest TTL in seconds; (0, 0) when there is none.
    pub ttl_range: (u32, u32),
    /// First and last second at which something in it was deleted or expires; None when nothing was and does.
    pub deletion_times: Option<(i64, i64)>,
    /// Partition tombstones.
    pub partition_deletions: u64,
    /// Static rows.
    pub static_rows: u64,
    /// First and last clustering position over all partitions, of rows and range tombstones. None: there are neither.
    pub clustering_bounds: Option<(Position, Position)>,
    /// Names and types of the columns. None when it was written without knowing the schema.
    pub header: Option<Rc<SerializationHeader>>,
}

/// What wrote an sstable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Origin {
    /// Not known.
    #[default]
    Unknown = 0,
    /// A memtable that became full, or was asked to.
    Flush = 1,
    /// A compaction.
    Compaction = 2,
    /// The node's number of shards changed.
    Reshard = 3,
    /// Another node sent it.
    Streaming = 4,
    /// What was still readable of a damaged one.
    Scrub = 5,
}

impl Origin {
    const ALL: [Origin; 6] = [
        Origin::Unknown,
        Origin::Flush,
        Origin::Compaction,
        Origin::Reshard,
        Origin::Streaming,
        Origin::Scrub,
    ];

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Unknown => "unknown",
            Origin::Flush => "flush",
            Origin::Compaction => "compaction",
            Origin::Reshard => "reshard",
            Origin::Streaming => "streaming",
            Origin::Scrub => "scrub",
        }
    }
}

impl Default for Statistics {
    /// Of an sstable that holds nothing.
    fn default() -> Statistics {
        Statistics {
            table: TableId(Uuid::nil()),
            shard: 0,
            shard_count: 1,
            partitions: 0,
            rows: 0,
            cells: 0,
            tombstones: 0,
            min_timestamp: Timestamp(i64::MAX),
            max_timestamp: Timestamp(i64::MIN),
            max_expiry: i64::MIN,
            data_size: 0,
            raw_size: 0,
            largest_partition: 0,
            first_key: PartitionKey(Bytes::new()),
            last_key: PartitionKey(Bytes::new()),
            compression: Compression::default(),
            bloom_filter_fp_chance: 0.01,
            flushed_through: None,
            created_at: 0,
            level: 0,
            repaired_at: 0,
            pending_repair: None,
            origin: Origin::Unknown,
            run: None,
            tombstone_times: Vec::new(),
            partition_sizes: Vec::new(),
            cell_counts: Vec::new(),
            ttls: Vec::new(),
            ttl_range: (0, 0),
            deletion_times: None,
            partition_deletions: 0,
            static_rows: 0,
            clustering_bounds: None,
            header: None,
        }
    }
}

/// Field numbers in the flatbuffer table. Never change one.
///
/// `TABLE`, `RUN` and `PENDING_REPAIR` are the 16 bytes of a UUID (`[ubyte]`), the keys and positions `[ubyte]`,
/// `KEYSPACE` and `TABLE_NAME` UTF-8 (`[ubyte]`), the histograms `TOMBSTONE_TIMES` (seconds and count in turn),
/// `PARTITION_SIZES`, `CELL_COUNTS` and `TTLS` (count of the values with so many bits) `[ulong]`, `COLUMNS` a vector of
/// tables (`serialization_header`). All others are `ulong`, absent when 0; signed ones in two's complement,
/// `BLOOM_FILTER_FP_CHANCE` and `MIN_COMPRESS_RATIO` the bits of a binary64, `CODEC` as in blocks, `ORIGIN` as in
/// [`Origin`]. `MIN_DELETION_TIME` and its maximum are there together or not at all, as are the two positions, and the
/// last three.
mod field {
    pub(super) const TABLE: u16 = 0;
    pub(super) const SHARD: u16 = 1;
    pub(super) const SHARD_COUNT: u16 = 2;
    pub(super) const PARTITIONS: u16 = 3;
    pub(super) const ROWS: u16 = 4;
    pub(super) const CELLS: u16 = 5;
    pub(super) const TOMBSTONES: u16 = 6;
    pub(super) const MIN_TIMESTAMP: u16 = 7;
    pub(super) const MAX_TIMESTAMP: u16 = 8;
    pub(super) const MAX_EXPIRY: u16 = 9;
    pub(super) const DATA_SIZE: u16 = 10;
    pub(super) const RAW_SIZE: u16 = 11;
    pub(super) const LARGEST_PARTITION: u16 = 12;
    pub(super) const FIRST_KEY: u16 = 13;
    pub(super) const LAST_KEY: u16 = 14;
    pub(super) const CODEC: u16 = 15;
    pub(super) const CHUNK_LENGTH: u16 = 16;
    pub(super) const COMPRESSION_LEVEL: u16 = 17;
    pub(super) const BLOOM_FILTER_FP_CHANCE: u16 = 18;
    pub(super) const FLUSHED_SEGMENT: u16 = 19;
    pub(super) const FLUSHED_OFFSET: u16 = 20;
    pub(super) const CREATED_AT: u16 = 21;
    pub(super) const LEVEL: u16 = 22;
    pub(super) const REPAIRED_AT: u16 = 23;
    pub(super) const TOMBSTONE_TIMES: u16 = 24;
    pub(super) const PARTITION_SIZES: u16 = 25;
    pub(super) const CELL_COUNTS: u16 = 26;
    pub(super) const TTLS: u16 = 27;
    pub(super) const MIN_TTL: u16 = 28;
    pub(super) const MAX_TTL: u16 = 29;
    pub(super) const MIN_DELETION_TIME: u16 = 30;
    pub(super) const MAX_DELETION_TIME: u16 = 31;
    pub(super) const PARTITION_DELETIONS: u16 = 32;
    pub(super) const STATIC_ROWS: u16 = 33;
    pub(super) const FIRST_POSITION: u16 = 34;
    pub(super) const LAST_POSITION: u16 = 35;
    pub(super) const ORIGIN: u16 = 36;
    pub(super) const RUN: u16 = 37;
    pub(super) const PENDING_REPAIR: u16 = 38;
    pub(super) const MIN_COMPRESS_RATIO: u16 = 39;
    pub(super) const KEYSPACE: u16 = 40;
    pub(super) const TABLE_NAME: u16 = 41;
    pub(super) const COLUMNS: u16 = 42;
}

impl Statistics {
    /// The share of its content that are tombstones made, and cells that expired, before the second `before`: now less
    /// gc grace. Never too high by rounding.
    pub fn droppable_tombstone_ratio(&self, before: i64) -> f64 {
        self.droppable_tombstones(before) as f64 / (self.cells + self.rows).max(1) as f64
    }

    /// How many tombstones were made, and cells expired, before the second `before`. At most what it is.
    pub fn droppable_tombstones(&self, before: i64) -> u64 {
        let times = self.tombstone_times.iter().filter(|(time, _)| *time < before);
        times.map(|(_, count)| *count).sum()
    }

    /// False: no row, range tombstone, static row or partition tombstone in it can matter to a read of these slices.
    pub fn may_matter_to(&self, slices: &[Slice]) -> bool {
        if self.partition_deletions > 0 || self.static_rows > 0 {
            return true;
        }
        let Some((first, last)) = &self.clustering_bounds else {
            // Partitions without content: they can only come from a later version.
            return true;
        };
        slices
            .iter()
            .any(|slice| slice.start <= *last && *first <= slice.end)
    }

    /// Its file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let mut vectors = vec![
            (field::TABLE, builder.create_vector(self.table.0.as_bytes())),
            (field::FIRST_KEY, builder.create_vector(&self.first_key.0[..])),
            (field::LAST_KEY, builder.create_vector(&self.last_key.0[..])),
        ];
        if let Some((first, last)) = &self.clustering_bounds {
            vectors.push((field::FIRST_POSITION, builder.create_vector(&first.0[..])));
            vectors.push((field::LAST_POSITION, builder.create_vector(&last.0[..])));
        }
        for (number, id) in [
            (field::RUN, self.run),
            (field::PENDING_REPAIR, self.pending_repair),
        ] {
            vectors.extend(id.map(|id| (number, builder.create_vector(id.as_bytes()))));
        }
        if let Some(header) = &self.header {
            vectors.push((field::KEYSPACE, builder.create_vector(header.keyspace.as_bytes())));
            vectors.push((field::TABLE_NAME, builder.create_vector(header.table.as_bytes())));
        }
        let times: Vec<u64> = self
            .tombstone_times
            .iter()
            .flat_map(|(time, count)| [*time as u64, *count])
            .collect();
        let histograms = [
            (field::TOMBSTONE_TIMES, builder.create_vector(&times)),
            (
                field::PARTITION_SIZES,
                builder.create_vector(&self.partition_sizes),
            ),
            (field::CELL_COUNTS, builder.create_vector(&self.cell_counts)),
            (field::TTLS, builder.create_vector(&self.ttls)),
        ];
        let columns = self
            .header
            .as_ref()
            .map(|header| header.put_columns(&mut builder));
        let start = builder.start_table();
        for (number, value) in self.numbers() {
            builder.push_slot::<u64>(slot(number), value, 0);
        }
        if let Some((first, last)) = self.deletion_times {
            builder.push_slot_always(slot(field::MIN_DELETION_TIME), first as u64);
            builder.push_slot_always(slot(field::MAX_DELETION_TIME), last as u64);
        }
        for (number, vector) in vectors {
            builder.push_slot_always(slot(number), vector);
        }
        for (number, vector) in histograms {
            builder.push_slot_always(slot(number), vector);
        }
        if let Some(columns) = columns {
            builder.push_slot_always(slot(field::COLUMNS), columns);
        }
        let root = builder.end_table(start);
        builder.finish(root, Some(IDENTIFIER));
        let mut bytes = write_head(Component::Statistics).to_vec();
        bytes.extend_from_slice(builder.finished_data());
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// The fields that are numbers.
    fn numbers(&self) -> Vec<(u16, u64)> {
        let flushed = self.flushed_through.unwrap_or_default();
        vec![
            (field::SHARD, u64::from(self.shard)),
            (field::SHARD_COUNT, u64::from(self.shard_count)),
            (field::PARTITIONS, self.partitions),
            (field::ROWS, self.rows),
            (field::CELLS, self.cells),
            (field::TOMBSTONES, self.tombstones),
            (field::MIN_TIMESTAMP, self.min_timestamp.0 as u64),
            (field::MAX_TIMESTAMP, self.max_timestamp.0 as u64),
            (field::MAX_EXPIRY, self.max_expiry as u64),
            (field::DATA_SIZE, self.data_size),
            (field::RAW_SIZE, self.raw_size),
            (field::LARGEST_PARTITION, self.largest_partition),
            (field::CODEC, self.compression.codec as u64),
            (field::CHUNK_LENGTH, self.compression.chunk_length as u64),
            (field::COMPRESSION_LEVEL, i64::from(self.compression.level) as u64),
            (
                field::MIN_COMPRESS_RATIO,
                self.compression.min_compress_ratio.to_bits(),
            ),
            (
                field::BLOOM_FILTER_FP_CHANCE,
                self.bloom_filter_fp_chance.to_bits(),
            ),
            (field::FLUSHED_SEGMENT, flushed.segment),
            (field::FLUSHED_OFFSET, u64::from(flushed.offset)),
            (field::CREATED_AT, self.created_at as u64),
            (field::LEVEL, u64::from(self.level)),
            (field::REPAIRED_AT, self.repaired_at as u64),
            (field::MIN_TTL, u64::from(self.ttl_range.0)),
            (field::MAX_TTL, u64::from(self.ttl_range.1)),
            (field::PARTITION_DELETIONS, self.partition_deletions),
            (field::STATIC_ROWS, self.static_rows),
            (field::ORIGIN, self.origin as u64),
        ]
    }

    /// Reads its file.
    pub(crate) fn decode(bytes: &Bytes, file: &Path) -> Result<Statistics> {
        let damaged = |what: &str| Error::corrupt(file, 0, what);
        check_head(Component::Statistics, bytes, file)?;
        let (content, checksum) = bytes
            .split_last_chunk::<8>()
            .ok_or_else(|| damaged("statistics are cut short"))?;
        if xxh3_64(content) != u64::from_le_bytes(*checksum) {
            return Err(damaged("statistics checksum mismatch"));
        }
        content
            .get(HEAD_SIZE..)
            .and_then(|content| FlatTable::root(content, IDENTIFIER))
            .and_then(|table| Statistics::from_table(&table))
            .ok_or_else(|| damaged("statistics are not what they should be"))
    }

    fn from_table(table: &FlatTable<'_>) -> Option<Statistics> {
        let number = |field| table.u64(field);
        let key = |field| Some(PartitionKey(Bytes::copy_from_slice(table.bytes(field)?)));
        let position = |field| Some(Position(Bytes::copy_from_slice(table.bytes(field)?)));
        let id = |field| match table.bytes(field) {
            Some(bytes) => Uuid::from_slice(bytes).map(Some).ok(),
            None => Some(None),
        };
        let header = match table.tables(field::COLUMNS) {
            Some(columns) => Some(Rc::new(SerializationHeader {
                keyspace: table.text(field::KEYSPACE)?.into(),
                table: table.text(field::TABLE_NAME)?.into(),
                columns: SerializationHeader::columns(columns)?,
            })),
            None => None,
        };
        let segment = number(field::FLUSHED_SEGMENT);
        let origin = u8::try_from(number(field::ORIGIN)).unwrap_or_default();
        let times = table.u64s(field::TOMBSTONE_TIMES)?;
        Some(Statistics {
            table: TableId(Uuid::from_slice(table.bytes(field::TABLE)?).ok()?),
            shard: number(field::SHARD).try_into().ok()?,
            shard_count: number(field::SHARD_COUNT).try_into().ok()?,
            partitions: number(field::PARTITIONS),
            rows: number(field::ROWS),
            cells: number(field::CELLS),
            tombstones: number(field::TOMBSTONES),
            min_timestamp: Timestamp(number(field::MIN_TIMESTAMP) as i64),
            max_timestamp: Timestamp(number(field::MAX_TIMESTAMP) as i64),
            max_expiry: number(field::MAX_EXPIRY) as i64,
            data_size: number(field::DATA_SIZE),
            raw_size: number(field::RAW_SIZE),
            largest_partition: number(field::LARGEST_PARTITION),
            first_key: key(field::FIRST_KEY)?,
            last_key: key(field::LAST_KEY)?,
            compression: Compression {
                codec: Codec::from_number(number(field::CODEC).try_into().ok()?)?,
                chunk_length: number(field::CHUNK_LENGTH).try_into().ok()?,
                level: (number(field::COMPRESSION_LEVEL) as i64).try_into().ok()?,
                min_compress_ratio: f64::from_bits(number(field::MIN_COMPRESS_RATIO)),
                training: Training::default(),
            },
            bloom_filter_fp_chance: f64::from_bits(number(field::BLOOM_FILTER_FP_CHANCE)),
            flushed_through: (segment != 0).then_some(ReplayPosition {
                segment,
                offset: number(field::FLUSHED_OFFSET).try_into().ok()?,
            }),
            created_at: number(field::CREATED_AT) as i64,
            level: number(field::LEVEL).try_into().ok()?,
            repaired_at: number(field::REPAIRED_AT) as i64,
            tombstone_times: times
                .chunks_exact(2)
                .map(|pair| (pair[0] as i64, pair[1]))
                .collect(),
            partition_sizes: table.u64s(field::PARTITION_SIZES)?,
            cell_counts: table.u64s(field::CELL_COUNTS)?,
            ttls: table.u64s(field::TTLS)?,
            ttl_range: (
                number(field::MIN_TTL).try_into().ok()?,
                number(field::MAX_TTL).try_into().ok()?,
            ),
            deletion_times: table.has(field::MIN_DELETION_TIME).then(|| {
                (
                    number(field::MIN_DELETION_TIME) as i64,
                    number(field::MAX_DELETION_TIME) as i64,
                )
            }),
            partition_deletions: number(field::PARTITION_DELETIONS),
            static_rows: number(field::STATIC_ROWS),
            clustering_bounds: position(field::FIRST_POSITION).zip(position(field::LAST_POSITION)),
            origin: Origin::ALL
                .into_iter()
                .find(|known| *known as u8 == origin)
                .unwrap_or_default(),
            run: id(field::RUN)?,
            pending_repair: id(field::PENDING_REPAIR)?,
            header,
        })
    }
}

/// A field's offset in a vtable.
pub(super) fn slot(number: u16) -> VOffsetT {
    4 + 2 * number
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_file_round_trips_and_damage_is_noticed() {
        let statistics = Statistics {
            table: TableId(Uuid::from_u128(0x1234)),
            shard: 2,
            shard_count: 3,
            partitions: 10,
            rows: 100,
            cells: 1000,
            tombstones: 5,
            min_timestamp: Timestamp(-7),
            max_timestamp: Timestamp(1 << 60),
            max_expiry: i64::MAX,
            data_size: 4096,
            raw_size: 9999,
            largest_partition: 500,
            first_key: PartitionKey(Bytes::from_static(b"a")),
            last_key: PartitionKey(Bytes::new()),
            compression: Compression {
                codec: Codec::Zstd,
                chunk_length: 4096,
                level: -3,
                min_compress_ratio: 1.25,
                training: Training::default(),
            },
            bloom_filter_fp_chance: 0.01,
            flushed_through: Some(ReplayPosition {
                segment: 9,
                offset: 64,
            }),
            created_at: 1,
            level: 4,
            repaired_at: 0,
            tombstone_times: vec![(-1, 2), (3600, 7)],
            partition_sizes: vec![0, 0, 5, 5],
            pending_repair: Some(Uuid::from_u128(7)),
            origin: Origin::Scrub,
            run: Some(Uuid::from_u128(8)),
            cell_counts: vec![1, 2, 3],
            ttls: vec![0, 9],
            ttl_range: (1, 3600),
            deletion_times: Some((0, 0)),
            partition_deletions: 3,
            static_rows: 4,
            clustering_bounds: Some((Position::before_all(), Position::after_all())),
            header: Some(Rc::new(SerializationHeader::of(&crate::testing::table_named(
                TableId(Uuid::from_u128(0x1234)),
                "named",
                |_| {},
            )))),
        };
        let file = Path::new("Statistics.db");
        let empty = Statistics::default();
        assert_eq!(Statistics::decode(&empty.encode().into(), file).unwrap(), empty);
        let bytes = statistics.encode();
        assert_eq!(
            Statistics::decode(&bytes.clone().into(), file).unwrap(),
            statistics
        );
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Statistics::decode(&damaged.clone().into(), file).is_err());
            assert!(Statistics::decode(&bytes[..at].to_vec().into(), file).is_err());
            // Also without the checksum's protection no byte makes the reader panic.
            damaged.truncate(bytes.len() - 8);
            if let Some(table) = FlatTable::root(&damaged[HEAD_SIZE..], IDENTIFIER) {
                let _ = Statistics::from_table(&table);
            }
        }
        assert!((statistics.droppable_tombstone_ratio(3600) - 2.0 / 1100.0).abs() < 1e-9);
    }
}
