//! How much memory the process may use, and how it is shared out.
//!
//! ```text
//! memory_limit ::= 64 MiB for code, connections and threads
//!                | a quarter of the rest for what no figure counts: the allocator's gaps, buffers, segments in use
//!                | storage: memtables, caches, reads, indexes
//! ```

use std::path::{Path, PathBuf};

use crate::config::Config;

/// What the process needs before it holds any data, in bytes.
const PROCESS: u64 = 64 << 20;
/// Without `memory_limit`, and when the machine does not say what it has.
const UNKNOWN_MACHINE: u64 = 1 << 30;
const FILE_CACHE_MAX: u64 = 512 << 20;

/// Bytes for each part, of all shards together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemorySplit {
    /// Everything that storage counts.
    pub(crate) storage: u64,
    /// Of it at most: memtables.
    pub(crate) memtables: u64,
    /// Of it at most: rows.
    pub(crate) row_cache: u64,
    /// Of it at most: blocks of sstables.
    pub(crate) file_cache: u64,
}

impl MemorySplit {
    /// As configured, on this machine.
    pub(crate) fn of(config: &Config) -> MemorySplit {
        let limit = match config.memory_limit {
            Some(limit) => limit.bytes(),
            None => available().unwrap_or(UNKNOWN_MACHINE) / 2,
        };
        MemorySplit::within(limit, config)
    }

    fn within(limit: u64, config: &Config) -> MemorySplit {
        let storage = (limit - PROCESS.min(limit / 4)) / 4 * 3;
        let given = |size: Option<crate::config::DataSize>| size.map(|size| size.bytes());
        let memtables = given(config.memtable_heap_space).unwrap_or(storage / 2);
        MemorySplit {
            // Who asks for more memtables than that gets them.
            storage: storage.max(memtables),
            memtables,
            row_cache: given(config.row_cache_size).unwrap_or(storage),
            file_cache: given(config.file_cache_size).unwrap_or((storage / 8).min(FILE_CACHE_MAX)),
        }
    }
}

/// Memory of the machine or of the control group that this process runs in, whichever is smaller, in bytes.
fn available() -> Option<u64> {
    let machine = machine_memory(&read("/proc/meminfo".as_ref())?)?;
    let group = control_group().and_then(|folder| group_limit(&folder));
    Some(group.map_or(machine, |group| group.min(machine)))
}

#[allow(clippy::disallowed_methods)] // before any shard runs
fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Folder of this process's group (version 2).
fn control_group() -> Option<PathBuf> {
    let groups = read("/proc/self/cgroup".as_ref())?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// The smallest limit of a group and of those that it lies in.
fn group_limit(folder: &Path) -> Option<u64> {
    let limits = folder
        .ancestors()
        .take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    limits
        .filter_map(|folder| read(&folder.join("memory.max"))?.trim().parse::<u64>().ok())
        .min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_limit_is_shared_out() {
        let split = MemorySplit::within(512 * MIB, &Config::default());
        let expected = MemorySplit {
            storage: 336 * MIB,
            memtables: 168 * MIB,
            row_cache: 336 * MIB,
            file_cache: 42 * MIB,
        };
        assert_eq!(split, expected);
        let config = Config::parse("memtable_heap_space: 400MiB\nrow_cache_size: 0MiB").unwrap();
        let split = MemorySplit::within(512 * MIB, &config);
        assert_eq!(
            (split.storage, split.memtables, split.row_cache),
            (400 * MIB, 400 * MIB, 0)
        );
        assert!(MemorySplit::within(64 * MIB, &Config::default()).storage >= 36 * MIB);
    }

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(
            machine_memory("MemTotal:       24584316 kB\nMemFree: 1 kB\n"),
            Some(24_584_316 << 10)
        );
        assert_eq!(machine_memory("MemTotal: lots"), None);
        assert!(available().is_none_or(|bytes| bytes > 16 * MIB));
    }
}
