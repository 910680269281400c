//! fjall: LZ4 on every level, leveled compaction as it comes. It has no direct reads, so what it read is dropped from
//! the page cache, and the kernel is told not to read ahead.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Outcome, Store};
use crate::protocol::{Durability, Setup};
use crate::rows::Key;

/// Reads between two looks at the page cache, when the cache is smaller than the data.
const READS_PER_DROP: u64 = 256;

pub(super) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    durability: Durability,
    folder: PathBuf,
    /// The data does not fit the cache: reads shall go to the device.
    reads_disk: bool,
    reads: AtomicU64,
}

impl Fjall {
    pub(super) fn open(setup: &Setup, cache_size: usize, durability: Durability) -> Outcome<Fjall> {
        let failed = |error: fjall::Error| error.to_string();
        let database = Database::builder(&setup.folder)
            .cache_size(cache_size as u64)
            .worker_threads(2)
            .open()
            .map_err(failed)?;
        let block_size = u32::try_from(setup.block_size).map_err(|_| "blocks are too large".to_owned())?;
        let options = || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                .data_block_size_policy(BlockSizePolicy::all(block_size))
                .max_memtable_size(setup.memtable_size as u64 / 2)
        };
        let keyspace = database.keyspace("storage", options).map_err(failed)?;
        let data_size = setup.rows * (setup.value_size as u64 + 16);
        Ok(Fjall {
            database,
            keyspace,
            durability,
            folder: setup.folder.clone(),
            reads_disk: (cache_size as u64) < data_size,
            reads: AtomicU64::new(0),
        })
    }

    /// Files of tables that this process has open.
    fn open_tables(&self) -> Vec<RawFd> {
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
            return Vec::new();
        };
        let mut descriptors = Vec::new();
        for entry in entries.flatten() {
            let is_table = std::fs::read_link(entry.path()).is_ok_and(|path| {
                path.starts_with(&self.folder) && path.components().any(|part| part.as_os_str() == "tables")
            });
            if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && is_table
            {
                descriptors.push(number);
            }
        }
        descriptors
    }

    fn note_read(&self) {
        if self.reads_disk && self.reads.fetch_add(1, Relaxed).is_multiple_of(READS_PER_DROP) {
            self.forget_page_cache();
        }
    }
}

impl Store for Fjall {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.keyspace
            .insert(key, value)
            .map_err(|error| error.to_string())?;
        if self.durability == Durability::Device {
            let synced = self.database.persist(PersistMode::SyncData);
            synced.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<bool> {
        self.note_read();
        match self.keyspace.get(key).map_err(|error| error.to_string())? {
            Some(value) => look(&value).map(|()| true),
            None => Ok(false),
        }
    }

    fn scan(&self, from: &Key, rows: u64, look: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        self.note_read();
        for row in self.keyspace.range(&from[..]..).take(rows as usize) {
            look(&row.value().map_err(|error| error.to_string())?)?;
        }
        Ok(())
    }

    fn flush(&self) -> Outcome<()> {
        self.keyspace
            .rotate_memtable_and_wait()
            .map_err(|error| error.to_string())
    }

    fn is_busy(&self) -> Outcome<bool> {
        let is_busy = || self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0;
        // A worker takes up the next compaction a moment after the last one.
        for _ in 0..20 {
            if is_busy() {
                return Ok(true);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(false)
    }

    fn compact(&self) -> Outcome<()> {
        self.keyspace.major_compact().map_err(|error| error.to_string())
    }

    fn forget_page_cache(&self) {
        for descriptor in self.open_tables() {
            // SAFETY: advice on a descriptor number touches no memory; on one that was closed meanwhile it fails.
            unsafe {
                libc::posix_fadvise(descriptor, 0, 0, libc::POSIX_FADV_RANDOM);
                libc::posix_fadvise(descriptor, 0, 0, libc::POSIX_FADV_DONTNEED);
            }
        }
    }
}
