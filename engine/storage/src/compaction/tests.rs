//! What size-tiered compaction chooses, and which options it takes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ceto_model::Timestamp;

use super::size_tiered::SizeTiered;
use super::strategy::{Candidate, CompactionStrategy};
use crate::sstable::Statistics;
use crate::testing::TABLE;

const MIB: u64 = 1 << 20;

fn statistics(timestamps: (i64, i64), tombstones: u64) -> Statistics {
    Statistics {
        table: TABLE,
        partitions: 10,
        rows: 50,
        cells: 50,
        tombstones,
        min_timestamp: Timestamp(timestamps.0),
        max_timestamp: Timestamp(timestamps.1),
        max_expiry: 0,
        tombstone_times: vec![(1000, tombstones)],
        ..Statistics::default()
    }
}

fn options(pairs: &[(&str, &str)]) -> Result<SizeTiered, String> {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    SizeTiered::from_options(&pairs.collect::<BTreeMap<_, _>>())
}

fn chosen(strategy: &SizeTiered, sizes: &[u64]) -> Option<Vec<usize>> {
    let statistics = statistics((0, 10), 0);
    let candidates = sizes.iter().map(|size| Candidate {
        size: *size,
        statistics: &statistics,
    });
    let candidates: Vec<_> = candidates.collect();
    strategy.next(&candidates, 0, 0).map(|mut chosen| {
        chosen.sort_unstable();
        chosen
    })
}

#[test]
fn sstables_of_a_size_are_compacted_together_when_there_are_enough() {
    let strategy = SizeTiered::default();
    assert_eq!(chosen(&strategy, &[]), None);
    assert_eq!(chosen(&strategy, &[MIB, 2 * MIB, 3 * MIB]), None);
    // All small ones count as of one size.
    assert_eq!(
        chosen(&strategy, &[MIB, 30 * MIB, 1, 7 * MIB]),
        Some(vec![0, 1, 2, 3])
    );
    let sizes = [100, 1000, 110, 120, 1100, 90, 5000].map(|size| size * MIB);
    assert_eq!(chosen(&strategy, &sizes), Some(vec![0, 2, 3, 5]));
    // The fuller bucket first.
    let sizes = [100, 100, 100, 100, 900, 900, 900, 900, 900].map(|size| size * MIB);
    assert_eq!(chosen(&strategy, &sizes), Some(vec![4, 5, 6, 7, 8]));
    assert_eq!(chosen(&strategy, &[100 * MIB; 50]).unwrap().len(), 32);
    let wide = options(&[
        ("min_threshold", "2"),
        ("bucket_high", "3"),
        ("max_threshold", "3"),
    ])
    .unwrap();
    assert_eq!(
        chosen(&wide, &[100 * MIB, 200 * MIB, 290 * MIB, 300 * MIB])
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        chosen(&options(&[("enabled", "false")]).unwrap(), &[MIB; 10]),
        None
    );
}

#[test]
fn an_sstable_of_old_tombstones_is_compacted_alone() {
    let day = 86_400;
    let strategy = SizeTiered::default();
    let (many, few) = (statistics((100, 200), 40), statistics((150, 300), 10));
    let candidate = |statistics| Candidate {
        size: MIB,
        statistics,
    };
    assert_eq!(
        strategy.next(&[candidate(&few), candidate(&many)], 2 * day, 2000),
        None,
        "older data lies elsewhere"
    );
    assert_eq!(strategy.next(&[candidate(&many)], 2 * day, 2000), Some(vec![0]));
    assert_eq!(
        strategy.next(&[candidate(&many)], day / 2, 2000),
        None,
        "too young"
    );
    assert_eq!(
        strategy.next(&[candidate(&many)], 2 * day, 900),
        None,
        "in gc grace"
    );
    assert_eq!(strategy.next(&[candidate(&few)], 2 * day, 2000), None, "too few");
    let unchecked = options(&[("unchecked_tombstone_compaction", "true")]).unwrap();
    assert_eq!(
        unchecked.next(&[candidate(&few), candidate(&many)], 2 * day, 2000),
        Some(vec![1])
    );
}

#[test]
fn pending_compactions_are_counted() {
    let statistics = statistics((0, 10), 0);
    let candidate = |size| Candidate {
        size,
        statistics: &statistics,
    };
    let strategy = SizeTiered::default();
    assert_eq!(strategy.pending(&[candidate(MIB); 3]), 0);
    assert_eq!(strategy.pending(&[candidate(MIB); 4]), 1);
    assert_eq!(strategy.pending(&[candidate(MIB); 33]), 2);
}

#[test]
fn wrong_options_are_named() {
    for (name, value, text) in [
        (
            "min_threshold",
            "x",
            "x is not a parsable int (base10) for min_threshold",
        ),
        (
            "min_threshold",
            "1",
            "Min compaction threshold cannot be less than 2",
        ),
        (
            "max_threshold",
            "3",
            "Max compaction threshold (3) cannot be less than the min (4)",
        ),
        (
            "bucket_high",
            "0.2",
            "bucket_high value (0.2) is less than or equal to the bucket_low value (0.5)",
        ),
        ("bucket_low", "NaN", "bucket_high value"),
        (
            "min_sstable_size",
            "-1",
            "min_sstable_size must be non negative: -1",
        ),
        (
            "tombstone_threshold",
            "-0.1",
            "tombstone_threshold must be greater than 0",
        ),
        (
            "tombstone_compaction_interval",
            "-1",
            "tombstone_compaction_interval must be greater than 0",
        ),
        ("enabled", "maybe", "'enabled' should either be 'true' or 'false'"),
    ] {
        let error = options(&[(name, value)]).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(options(&[]), Ok(SizeTiered::default()));
}
