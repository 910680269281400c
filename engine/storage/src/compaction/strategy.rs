//! Which sstables are compacted together.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::size_tiered::SizeTiered;
use crate::sstable::{Sstable, Statistics};

/// What a strategy knows of an sstable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Bytes of Data.
    pub(crate) size: u64,
    pub(crate) statistics: &'a Statistics,
}

impl<'a> Candidate<'a> {
    pub(crate) fn of(sstable: &'a Rc<Sstable>) -> Candidate<'a> {
        Candidate {
            size: sstable.data_size(),
            statistics: &sstable.statistics,
        }
    }
}

/// Chooses what to compact.
pub(crate) trait CompactionStrategy {
    /// The candidates (by index) to be compacted next, at `now`; tombstones made before `gc_before` may go. Seconds
    /// since the Unix epoch.
    fn next(&self, candidates: &[Candidate<'_>], now: i64, gc_before: i64) -> Option<Vec<usize>>;
    /// How many compactions it would start, had it the means.
    fn pending(&self, candidates: &[Candidate<'_>]) -> usize;
}

/// The strategy that a table's `compaction` option asks for. Classes that are known but have no implementation of
/// their own yet are compacted by size.
pub(crate) fn strategy_of(options: &BTreeMap<String, String>) -> Box<dyn CompactionStrategy> {
    Box::new(SizeTiered::from_options(options).unwrap_or_default())
}

/// Options that every strategy has.
const COMMON: [&str; 9] = [
    "class",
    "enabled",
    "log_all",
    "max_threshold",
    "min_threshold",
    "only_purge_repaired_tombstones",
    "provide_overlapping_tombstones",
    "tombstone_compaction_interval",
    "tombstone_threshold",
];
const SIZE_TIERED: [&str; 4] = [
    "bucket_high",
    "bucket_low",
    "min_sstable_size",
    "unchecked_tombstone_compaction",
];
const LEVELED: [&str; 4] = [
    "fanout_size",
    "single_sstable_uplevel",
    "sstable_size_in_mb",
    "unchecked_tombstone_compaction",
];
const TIME_WINDOW: [&str; 5] = [
    "compaction_window_size",
    "compaction_window_unit",
    "expired_sstable_check_frequency_seconds",
    "timestamp_resolution",
    "unsafe_aggressive_sstable_expiration",
];
const UNIFIED: [&str; 9] = [
    "base_shard_count",
    "expired_sstable_check_frequency_seconds",
    "flush_size_override",
    "max_sstables_to_compact",
    "min_sstable_size",
    "overlap_inclusion_method",
    "scaling_parameters",
    "sstable_growth",
    "target_sstable_size",
];

/// Checks a table's `compaction` option; the text says what is wrong with it.
pub fn validate_compaction(options: &BTreeMap<String, String>) -> Result<(), String> {
    let class = options
        .get("class")
        .ok_or("Missing sub-option 'class' for the 'compaction' option")?;
    let name = class.rsplit('.').next().unwrap_or(class);
    let own: Vec<&str> = match name {
        "SizeTieredCompactionStrategy" => SIZE_TIERED.to_vec(),
        "LeveledCompactionStrategy" => [&LEVELED[..], &SIZE_TIERED].concat(),
        "TimeWindowCompactionStrategy" => [&TIME_WINDOW[..], &SIZE_TIERED].concat(),
        "IncrementalCompactionStrategy" => [
            &["sstable_size_in_mb", "space_amplification_goal"],
            &SIZE_TIERED[..],
        ]
        .concat(),
        "UnifiedCompactionStrategy" => [&UNIFIED[..], &["unchecked_tombstone_compaction"]].concat(),
        _ => return Err(format!("Unable to find compaction strategy class '{class}'")),
    };
    let unknown: Vec<&str> = options
        .keys()
        .map(String::as_str)
        .filter(|key| !COMMON.contains(key) && !own.contains(key))
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "Properties specified [{}] are not understood by {name}",
            unknown.join(", ")
        ));
    }
    SizeTiered::from_options(options).map(|_| ())
}
