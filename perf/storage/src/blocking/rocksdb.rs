//! RocksDB: direct reads, direct flushes and compactions, LZ4 on every level, leveled compaction as it comes.

use rocksdb::properties::{
    COMPACTION_PENDING, MEM_TABLE_FLUSH_PENDING, NUM_RUNNING_COMPACTIONS, NUM_RUNNING_FLUSHES,
};
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompressionType, FlushOptions,
    Options, WriteOptions,
};

use super::{Outcome, Store};
use crate::protocol::{Durability, Setup};
use crate::rows::Key;

/// As our filters: one wrong answer in a hundred.
const BITS_PER_KEY: f64 = 10.0;
/// Flushes and compactions at a time, the default.
const BACKGROUND_JOBS: i32 = 2;

/// RocksDB's defaults for its rate limiter.
const RATE_REFILL_MICROS: i64 = 100_000;
const RATE_FAIRNESS: i32 = 10;

pub(super) struct Rocks {
    db: DB,
    write: WriteOptions,
}

impl Rocks {
    pub(super) fn open(setup: &Setup, cache_size: usize, durability: Durability) -> Outcome<Rocks> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(cache_size));
        table.set_block_size(setup.block_size);
        table.set_bloom_filter(BITS_PER_KEY, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(setup.memtable_size / 2);
        options.set_max_write_buffer_number(2);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_use_direct_reads(true);
        options.set_use_direct_io_for_flush_and_compaction(true);
        if let Ok(limit @ 1..) = i64::try_from(setup.compaction_throughput) {
            options.set_ratelimiter(limit, RATE_REFILL_MICROS, RATE_FAIRNESS);
        }
        let db = DB::open(&options, &setup.folder).map_err(|error| error.to_string())?;
        let mut write = WriteOptions::default();
        write.set_sync(durability == Durability::Device);
        Ok(Rocks { db, write })
    }
}

impl Store for Rocks {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        let outcome = self.db.put_opt(key, value, &self.write);
        outcome.map_err(|error| error.to_string())
    }

    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<bool> {
        match self.db.get_pinned(key).map_err(|error| error.to_string())? {
            Some(value) => look(&value).map(|()| true),
            None => Ok(false),
        }
    }

    fn scan(&self, from: &Key, rows: u64, look: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek(from);
        for _ in 0..rows {
            let Some(value) = iterator.value() else { break };
            look(value)?;
            iterator.next();
        }
        iterator.status().map_err(|error| error.to_string())
    }

    fn flush(&self) -> Outcome<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options).map_err(|error| error.to_string())
    }

    fn is_busy(&self) -> Outcome<bool> {
        let properties = [
            COMPACTION_PENDING,
            MEM_TABLE_FLUSH_PENDING,
            NUM_RUNNING_COMPACTIONS,
            NUM_RUNNING_FLUSHES,
        ];
        for property in properties {
            let value = self.db.property_int_value(property);
            if value.map_err(|error| error.to_string())?.unwrap_or(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn compact(&self) -> Outcome<()> {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }
}
