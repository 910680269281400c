//! How much memory the process may use, and how it is shared out at the start.
//!
//! `memory_limit` is a bound of the process's resident memory as the kernel counts it: anonymous pages, and mapped ones
//! that have been touched (the program, and of each commitlog segment the last mebibyte). The page cache behind the
//! commitlog is the kernel's and not counted; sstables are read and written around it.
//!
//! ```text
//! memory_limit ::= process: 20 MiB for code and control thread, 24 MiB for each shard (buffers of network and disk), at most
//!                |          two fifths of the limit
//!                | largest: three of the largest mutations (in a memtable, a block, and that compressed), at most a quarter
//!                | requests that arrive or run: a sixteenth
//!                | answers that are made or not read: an eighth
//!                | of the rest: a fifth for what no figure counts: the allocator's gaps, buffers of flushes and compactions
//!                |              storage: memtables, caches, reads, indexes
//! ```
//!
//! These are budgets of what is counted. That the process stays within its limit whatever the fifth is worth under the
//! load at hand, is the governor's work (`ceto_control::governor`).

use std::path::{Path, PathBuf};

use crate::config::{Config, DataSize};

/// What the process needs for anything but data, in bytes: beside its shards, and for each of them (measured: a node of one
/// shard that holds nothing has 28 MiB resident after its start, and 44 MiB after it has been busy).
const PROCESS: u64 = 20 << 20;
const PROCESS_OF_SHARD: u64 = 24 << 20;
/// So many of the largest mutations are under way beside what is counted.
const LARGEST_UNDER_WAY: u64 = 3;
/// Without `memory_limit`, and when the machine does not say what it has.
const UNKNOWN_MACHINE: u64 = 1 << 30;
const FILE_CACHE_MAX: u64 = 512 << 20;
const REQUESTS_MAX: u64 = 256 << 20;
const REQUESTS_OF_ADDRESS_MAX: u64 = 64 << 20;
const RESPONSES_MAX: u64 = 256 << 20;

/// Bytes for each part, of all shards together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemorySplit {
    /// What the process may have resident.
    pub(crate) limit: u64,
    /// Of it: everything that storage counts.
    pub(crate) storage: u64,
    /// Of storage's part at most: memtables.
    pub(crate) memtables: u64,
    /// Of it at most: rows.
    pub(crate) row_cache: u64,
    /// Of it at most: blocks of sstables.
    pub(crate) file_cache: u64,
    /// Requests that arrive or run.
    pub(crate) requests: u64,
    /// The same for one client address.
    pub(crate) requests_per_address: u64,
    /// Answers that are made or not read.
    pub(crate) responses: u64,
}

impl MemorySplit {
    /// As configured, on this machine, for so many shards.
    pub(crate) fn of(config: &Config, shards: u16) -> MemorySplit {
        let limit = match config.memory_limit {
            Some(limit) => limit.bytes(),
            None => available().unwrap_or(UNKNOWN_MACHINE) / 2,
        };
        MemorySplit::within(limit, config, shards)
    }

    fn within(limit: u64, config: &Config, shards: u16) -> MemorySplit {
        let given = |size: Option<DataSize>| size.map(DataSize::bytes);
        let process = (PROCESS + PROCESS_OF_SHARD * u64::from(shards)).min(limit / 5 * 2);
        let requests = given(config.native_transport_max_request_data_in_flight)
            .unwrap_or((limit / 16).min(REQUESTS_MAX));
        let responses = given(config.native_transport_max_response_data_in_flight)
            .unwrap_or((limit / 8).min(RESPONSES_MAX));
        let segment = config.commitlog_segment_size.bytes();
        let mutation = given(config.max_mutation_size).unwrap_or(segment / 2);
        let largest = mutation.saturating_mul(LARGEST_UNDER_WAY).min(limit / 4);
        let rest = limit.saturating_sub(process + largest + requests + responses);
        // Who asks for large requests and answers still gets a database.
        let storage = (rest / 5 * 4).max(limit / 4);
        let memtables = given(config.memtable_heap_space).unwrap_or(storage / 2);
        MemorySplit {
            limit,
            // Who asks for more memtables than that gets them.
            storage: storage.max(memtables),
            memtables,
            row_cache: given(config.row_cache_size).unwrap_or(storage),
            file_cache: given(config.file_cache_size).unwrap_or((storage / 8).min(FILE_CACHE_MAX)),
            requests,
            requests_per_address: given(config.native_transport_max_request_data_in_flight_per_ip)
                .unwrap_or(requests.min(REQUESTS_OF_ADDRESS_MAX)),
            responses,
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
        let split = MemorySplit::within(512 * MIB, &Config::default(), 2);
        let storage = (512 - 68 - 48 - 32 - 64) * MIB / 5 * 4;
        let expected = MemorySplit {
            limit: 512 * MIB,
            storage,
            memtables: storage / 2,
            row_cache: storage,
            file_cache: storage / 8,
            requests: 32 * MIB,
            requests_per_address: 32 * MIB,
            responses: 64 * MIB,
        };
        assert_eq!(split, expected);
        let config = Config::parse("memtable_heap_space: 400MiB\nrow_cache_size: 0MiB").unwrap();
        let split = MemorySplit::within(512 * MIB, &config, 2);
        assert_eq!(
            (split.storage, split.memtables, split.row_cache),
            (400 * MIB, 400 * MIB, 0)
        );
    }

    #[test]
    fn small_limits_and_large_shares_leave_storage_something() {
        let split = MemorySplit::within(64 * MIB, &Config::default(), 16);
        assert!(split.storage >= 16 * MIB, "{split:?}");
        let config = Config::parse("native_transport_max_request_data_in_flight: 1GiB").unwrap();
        let split = MemorySplit::within(512 * MIB, &config, 2);
        assert_eq!((split.storage, split.requests), (128 * MIB, 1024 * MIB));
        // What clients may hold does not grow with the machine.
        let split = MemorySplit::within(512 << 30, &Config::default(), 64);
        assert_eq!((split.requests, split.responses), (256 * MIB, 256 * MIB));
        assert_eq!(split.requests_per_address, 64 * MIB);
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
