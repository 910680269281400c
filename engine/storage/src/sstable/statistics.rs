//! What an sstable says about itself.
//!
//! Statistics.db is a flatbuffer (its table's fields are the constants in `field`, in order; new ones go to the end)
//! followed by the xxh3 of its bytes. It is written with the flatbuffers builder and read by `flat`, which checks
//! every offset.

use std::path::Path;

use bytes::Bytes;
use ceto_model::{PartitionKey, TableId, Timestamp};
use flatbuffers::{FlatBufferBuilder, VOffsetT};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::compression::{Codec, Compression};
use super::flat::FlatTable;
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
    /// Number of tombstones by the second they were made, rounded up; sorted.
    pub tombstone_times: Vec<(i64, u64)>,
    /// Number of partitions by the number of bits of their size in bytes.
    pub partition_sizes: Vec<u64>,
}

/// Field numbers in the flatbuffer table. Never change one.
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
}

impl Statistics {
    /// The share of cells that are tombstones made before `before`.
    pub fn droppable_tombstone_ratio(&self, before: i64) -> f64 {
        let times = self.tombstone_times.iter().filter(|(time, _)| *time < before);
        let droppable: u64 = times.map(|(_, count)| *count).sum();
        droppable as f64 / (self.cells + self.rows).max(1) as f64
    }

    /// Its file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let table = builder.create_vector(self.table.0.as_bytes());
        let first_key = builder.create_vector(&self.first_key.0[..]);
        let last_key = builder.create_vector(&self.last_key.0[..]);
        let times: Vec<u64> = self
            .tombstone_times
            .iter()
            .flat_map(|(time, count)| [*time as u64, *count])
            .collect();
        let times = builder.create_vector(&times);
        let sizes = builder.create_vector(&self.partition_sizes);
        let start = builder.start_table();
        let slots = [
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
                field::BLOOM_FILTER_FP_CHANCE,
                self.bloom_filter_fp_chance.to_bits(),
            ),
            (
                field::FLUSHED_SEGMENT,
                self.flushed_through.map_or(0, |at| at.segment),
            ),
            (
                field::FLUSHED_OFFSET,
                self.flushed_through.map_or(0, |at| u64::from(at.offset)),
            ),
            (field::CREATED_AT, self.created_at as u64),
            (field::LEVEL, u64::from(self.level)),
            (field::REPAIRED_AT, self.repaired_at as u64),
        ];
        for (number, value) in slots {
            builder.push_slot::<u64>(slot(number), value, 0);
        }
        for (number, vector) in [
            (field::TABLE, table),
            (field::FIRST_KEY, first_key),
            (field::LAST_KEY, last_key),
        ] {
            builder.push_slot_always(slot(number), vector);
        }
        for (number, vector) in [(field::TOMBSTONE_TIMES, times), (field::PARTITION_SIZES, sizes)] {
            builder.push_slot_always(slot(number), vector);
        }
        let root = builder.end_table(start);
        builder.finish(root, Some(IDENTIFIER));
        let mut bytes = builder.finished_data().to_vec();
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads its file.
    pub(crate) fn decode(bytes: &Bytes, file: &Path) -> Result<Statistics> {
        let damaged = |what: &str| Error::corrupt(file, 0, what);
        let (content, checksum) = bytes
            .split_last_chunk::<8>()
            .ok_or_else(|| damaged("statistics are cut short"))?;
        if xxh3_64(content) != u64::from_le_bytes(*checksum) {
            return Err(damaged("statistics checksum mismatch"));
        }
        FlatTable::root(content, IDENTIFIER)
            .and_then(|table| Statistics::from_table(&table))
            .ok_or_else(|| damaged("statistics are not what they should be"))
    }

    fn from_table(table: &FlatTable<'_>) -> Option<Statistics> {
        let number = |field| table.u64(field);
        let key = |field| Some(PartitionKey(Bytes::copy_from_slice(table.bytes(field)?)));
        let segment = number(field::FLUSHED_SEGMENT);
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
        })
    }
}

/// A field's offset in a vtable.
fn slot(number: u16) -> VOffsetT {
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
        };
        let bytes = statistics.encode();
        let file = Path::new("Statistics.db");
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
            if let Some(table) = FlatTable::root(&damaged, IDENTIFIER) {
                let _ = Statistics::from_table(&table);
            }
        }
        assert!((statistics.droppable_tombstone_ratio(3600) - 2.0 / 1100.0).abs() < 1e-9);
    }
}
