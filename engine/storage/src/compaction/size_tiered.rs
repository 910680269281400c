//! Size-tiered compaction: sstables of about the same size are compacted together when there are enough of them.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::strategy::{Candidate, CompactionStrategy};

/// The strategy with its options; names and defaults are Cassandra's.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SizeTiered {
    is_enabled: bool,
    min_threshold: usize,
    max_threshold: usize,
    bucket_low: f64,
    bucket_high: f64,
    /// Sstables smaller than this, in bytes, count as of one size.
    min_sstable_size: u64,
    tombstone_threshold: f64,
    /// Age in seconds below which an sstable is not compacted for its tombstones alone.
    tombstone_compaction_interval: i64,
    unchecked_tombstone_compaction: bool,
}

impl Default for SizeTiered {
    fn default() -> SizeTiered {
        SizeTiered {
            is_enabled: true,
            min_threshold: 4,
            max_threshold: 32,
            bucket_low: 0.5,
            bucket_high: 1.5,
            min_sstable_size: 50 << 20,
            tombstone_threshold: 0.2,
            tombstone_compaction_interval: 86_400,
            unchecked_tombstone_compaction: false,
        }
    }
}

fn parse<T: FromStr>(
    options: &BTreeMap<String, String>,
    name: &str,
    kind: &str,
    default: T,
) -> Result<T, String> {
    match options.get(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{text} is not a parsable {kind} for {name}")),
    }
}

fn parse_flag(options: &BTreeMap<String, String>, name: &str, default: bool) -> Result<bool, String> {
    match options.get(name).map(|text| text.to_ascii_lowercase()) {
        None => Ok(default),
        Some(text) if text == "true" => Ok(true),
        Some(text) if text == "false" => Ok(false),
        Some(text) => Err(format!(
            "'{name}' should either be 'true' or 'false', not '{text}'"
        )),
    }
}

impl SizeTiered {
    /// Reads a table's `compaction` option.
    pub(crate) fn from_options(options: &BTreeMap<String, String>) -> Result<SizeTiered, String> {
        let default = SizeTiered::default();
        let strategy = SizeTiered {
            is_enabled: parse_flag(options, "enabled", default.is_enabled)?,
            min_threshold: parse(options, "min_threshold", "int (base10)", default.min_threshold)?,
            max_threshold: parse(options, "max_threshold", "int (base10)", default.max_threshold)?,
            bucket_low: parse(options, "bucket_low", "double", default.bucket_low)?,
            bucket_high: parse(options, "bucket_high", "double", default.bucket_high)?,
            min_sstable_size: parse_size(options, default.min_sstable_size)?,
            tombstone_threshold: parse(
                options,
                "tombstone_threshold",
                "double",
                default.tombstone_threshold,
            )?,
            tombstone_compaction_interval: parse(
                options,
                "tombstone_compaction_interval",
                "long (base10)",
                default.tombstone_compaction_interval,
            )?,
            unchecked_tombstone_compaction: parse_flag(options, "unchecked_tombstone_compaction", false)?,
        };
        strategy.check()?;
        Ok(strategy)
    }

    fn check(&self) -> Result<(), String> {
        if self.min_threshold < 2 {
            return Err(format!(
                "Min compaction threshold cannot be less than 2 (got {}); to disable compaction set enabled to false",
                self.min_threshold
            ));
        }
        if self.max_threshold < self.min_threshold {
            return Err(format!(
                "Max compaction threshold ({}) cannot be less than the min ({})",
                self.max_threshold, self.min_threshold
            ));
        }
        let is_usable = |value: f64| value.is_finite() && value >= 0.0;
        if !is_usable(self.bucket_low) || !is_usable(self.bucket_high) || self.bucket_high <= self.bucket_low
        {
            return Err(format!(
                "bucket_high value ({}) is less than or equal to the bucket_low value ({})",
                self.bucket_high, self.bucket_low
            ));
        }
        if !self.tombstone_threshold.is_finite() || self.tombstone_threshold < 0.0 {
            return Err(format!(
                "tombstone_threshold must be greater than 0, but was {}",
                self.tombstone_threshold
            ));
        }
        if self.tombstone_compaction_interval < 0 {
            return Err(format!(
                "tombstone_compaction_interval must be greater than 0, but was {}",
                self.tombstone_compaction_interval
            ));
        }
        Ok(())
    }

    /// Groups of candidates of about the same size, smallest first.
    fn buckets(&self, candidates: &[Candidate<'_>]) -> Vec<Vec<usize>> {
        let mut by_size: Vec<usize> = (0..candidates.len()).collect();
        by_size.sort_by_key(|at| candidates[*at].size);
        let mut buckets: Vec<(f64, Vec<usize>)> = Vec::new();
        let min = self.min_sstable_size as f64;
        for at in by_size {
            let size = candidates[at].size as f64;
            let fits = |average: f64| {
                (size > average * self.bucket_low && size < average * self.bucket_high)
                    || (size < min && average < min)
            };
            match buckets.iter_mut().find(|(average, _)| fits(*average)) {
                Some((average, members)) => {
                    *average = (*average * members.len() as f64 + size) / (members.len() + 1) as f64;
                    members.push(at);
                }
                None => buckets.push((size, vec![at])),
            }
        }
        buckets.into_iter().map(|(_, members)| members).collect()
    }

    /// An sstable worth compacting alone, because much of it is tombstones that may go.
    fn tombstone_compaction(&self, candidates: &[Candidate<'_>], now: i64, gc_before: i64) -> Option<usize> {
        (0..candidates.len()).find(|at| {
            let statistics = candidates[*at].statistics;
            let age = now - statistics.created_at.div_euclid(1_000_000);
            age >= self.tombstone_compaction_interval
                && statistics.droppable_tombstone_ratio(gc_before) > self.tombstone_threshold
                && (self.unchecked_tombstone_compaction || !has_older_data(candidates, *at))
        })
    }
}

/// Another sstable holds data as old as this one's tombstones: compacting it alone may drop none.
fn has_older_data(candidates: &[Candidate<'_>], at: usize) -> bool {
    let newest = candidates[at].statistics.max_timestamp;
    candidates
        .iter()
        .enumerate()
        .any(|(other, candidate)| other != at && candidate.statistics.min_timestamp <= newest)
}

/// `min_sstable_size` in bytes.
fn parse_size(options: &BTreeMap<String, String>, default: u64) -> Result<u64, String> {
    let size: i64 = parse(options, "min_sstable_size", "int (base10)", default as i64)?;
    u64::try_from(size).map_err(|_| format!("min_sstable_size must be non negative: {size}"))
}

impl CompactionStrategy for SizeTiered {
    fn next(&self, candidates: &[Candidate<'_>], now: i64, gc_before: i64) -> Option<Vec<usize>> {
        if !self.is_enabled {
            return None;
        }
        let full = self
            .buckets(candidates)
            .into_iter()
            .filter(|bucket| bucket.len() >= self.min_threshold);
        // The fullest first: it saves reads the most sstables; of two the one of smaller sstables.
        let best = full.min_by_key(|bucket| {
            let size: u64 = bucket.iter().map(|at| candidates[*at].size).sum();
            (
                std::cmp::Reverse(bucket.len().min(self.max_threshold)),
                size / bucket.len() as u64,
            )
        });
        match best {
            Some(mut bucket) => {
                bucket.truncate(self.max_threshold);
                Some(bucket)
            }
            None => self
                .tombstone_compaction(candidates, now, gc_before)
                .map(|at| vec![at]),
        }
    }

    fn pending(&self, candidates: &[Candidate<'_>]) -> usize {
        if !self.is_enabled {
            return 0;
        }
        let buckets = self.buckets(candidates);
        let full = buckets.iter().filter(|bucket| bucket.len() >= self.min_threshold);
        full.map(|bucket| bucket.len().div_ceil(self.max_threshold)).sum()
    }
}
