//! `system.size_estimates` and `system.table_estimates`: partitions and their mean size by token range, by which analytics
//! jobs cut a table into splits.
//!
//! From the statistics of live sstables, as in Cassandra: what is in memtables is not counted, and a partition in two
//! sstables counts twice until they are compacted. Tokens are spread evenly, so a range is given its share by its width.

use ceto_model::Keyspace;
use ceto_model::value::Value;

use super::row::{SystemRow, text};
use super::virtual_rows::VirtualSource;
use crate::figures::TableFigures;

/// The token before all others; as the end of a range it stands for the end of the ring.
const MINIMUM_TOKEN: i64 = i64::MIN;

/// A row for each table of clients, range and range type; without range types, as `size_estimates` has it.
pub(super) fn rows(source: &VirtualSource<'_>, range_types: &[&'static str]) -> Vec<SystemRow> {
    let ranges = primary_ranges(source.tokens);
    let is_local = |keyspace: &Keyspace| keyspace.is_virtual || keyspace.replication.is_local();
    let keyspaces = source.schema.keyspaces().filter(|keyspace| !is_local(keyspace));
    let tables = keyspaces.flat_map(|keyspace| keyspace.tables.values());
    let mut rows = Vec::new();
    for table in tables {
        let Some(figures) = source.figures.iter().find(|figures| figures.id == table.id) else {
            continue;
        };
        for range in &ranges {
            let row = || row(figures, range);
            match range_types {
                [] => rows.push(row()),
                types => rows.extend(types.iter().map(|name| row().with("range_type", text(*name)))),
            }
        }
    }
    rows
}

/// Tokens after `start` up to and with `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TokenRange {
    start: i64,
    end: i64,
}

impl TokenRange {
    /// The part of the ring.
    fn share(self) -> f64 {
        let end = if self.end == MINIMUM_TOKEN {
            i128::from(i64::MAX) + 1
        } else {
            i128::from(self.end)
        };
        (end - i128::from(self.start)) as f64 / (u64::MAX as f64)
    }
}

/// The ranges that a single node with these tokens is the first replica of: all of them. None wraps around.
fn primary_ranges(tokens: &[i64]) -> Vec<TokenRange> {
    let mut ends = tokens.to_vec();
    ends.push(MINIMUM_TOKEN);
    ends.sort_unstable();
    ends.dedup();
    let next = ends.iter().cycle().skip(1);
    ends.iter()
        .zip(next)
        .map(|(start, end)| TokenRange {
            start: *start,
            end: *end,
        })
        .collect()
}

fn row(figures: &TableFigures, range: &TokenRange) -> SystemRow {
    let mean = figures
        .uncompressed_bytes
        .checked_div(figures.partitions_estimate)
        .unwrap_or(0);
    let partitions = figures.partitions_estimate as f64 * range.share();
    SystemRow::default()
        .with("keyspace_name", text(&figures.keyspace))
        .with("table_name", text(&figures.table))
        .with("range_start", text(range.start.to_string()))
        .with("range_end", text(range.end.to_string()))
        .with("mean_partition_size", Value::Bigint(mean.cast_signed()))
        .with("partitions_count", Value::Bigint(partitions.round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_ring_once() {
        for tokens in [vec![], vec![0], vec![5, -7, i64::MAX], vec![i64::MIN, 3]] {
            let ranges = primary_ranges(&tokens);
            let all: f64 = ranges.iter().map(|range| range.share()).sum();
            assert!((all - 1.0).abs() < 1e-9, "{tokens:?}: {all}");
            assert_eq!(ranges.first().map(|range| range.start), Some(MINIMUM_TOKEN));
            assert_eq!(ranges.last().map(|range| range.end), Some(MINIMUM_TOKEN));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
