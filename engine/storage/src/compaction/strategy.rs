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
    // The options were checked when the table was made; should they be wrong all the same, the defaults are not.
    Box::new(SizeTiered::from_options(options).unwrap_or_default())
}
