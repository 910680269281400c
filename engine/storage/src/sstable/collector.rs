//! Counting what goes into an sstable.

use std::collections::BTreeMap;

use bytes::Bytes;
use ceto_model::{CellState, ColumnData, Deletion, Expiry, PartitionKey, Position, Row, Timestamp};

use super::plain::Copied;
use super::statistics::Statistics;

/// Distinct tombstone times kept; beyond it neighbours are joined.
const TOMBSTONE_TIMES_MAX: usize = 128;

/// Collects the figures of [`Statistics`] while an sstable is written.
pub(crate) struct Collector {
    pub(crate) partitions: u64,
    pub(crate) rows: u64,
    cells: u64,
    tombstones: u64,
    min_timestamp: i64,
    max_timestamp: i64,
    max_expiry: i64,
    largest_partition: u64,
    first_key: Option<PartitionKey>,
    cells_before_partition: u64,
    tombstones_before_partition: u64,
    cell_counts: Vec<u64>,
    ttls: Vec<u64>,
    ttl_range: Option<(u32, u32)>,
    deletion_times: Option<(i64, i64)>,
    partition_deletions: u64,
    static_rows: u64,
    first_position: Option<Bytes>,
    last_position: Option<Bytes>,
    tombstone_times: BTreeMap<i64, u64>,
    /// Tombstone times are rounded up to a multiple of it, in seconds.
    rounding: i64,
    partition_sizes: Vec<u64>,
}

impl Default for Collector {
    fn default() -> Collector {
        Collector {
            partitions: 0,
            rows: 0,
            cells: 0,
            tombstones: 0,
            min_timestamp: i64::MAX,
            max_timestamp: i64::MIN,
            max_expiry: i64::MIN,
            largest_partition: 0,
            first_key: None,
            cells_before_partition: 0,
            tombstones_before_partition: 0,
            cell_counts: vec![0; 64],
            ttls: vec![0; 33],
            ttl_range: None,
            deletion_times: None,
            partition_deletions: 0,
            static_rows: 0,
            first_position: None,
            last_position: None,
            tombstone_times: BTreeMap::new(),
            rounding: 60,
            partition_sizes: vec![0; 64],
        }
    }
}

impl Collector {
    pub(crate) fn start_partition(&mut self, key: &[u8], deletion: Option<Deletion>) {
        self.partitions += 1;
        self.first_key
            .get_or_insert_with(|| PartitionKey(Bytes::copy_from_slice(key)));
        if let Some(deletion) = deletion {
            self.partition_deletions += 1;
            self.deletion(deletion);
        }
    }

    /// `last` is where the partition's last row or deletion change lies. Returns how many tombstones it has.
    pub(crate) fn end_partition(&mut self, raw_size: u64, last: Option<&[u8]>) -> u64 {
        self.largest_partition = self.largest_partition.max(raw_size);
        count_bits(&mut self.partition_sizes, raw_size);
        count_bits(&mut self.cell_counts, self.cells - self.cells_before_partition);
        self.cells_before_partition = self.cells;
        if last > self.last_position.as_deref() {
            self.last_position = last.map(Bytes::copy_from_slice);
        }
        let tombstones = self.tombstones - self.tombstones_before_partition;
        self.tombstones_before_partition = self.tombstones;
        tombstones
    }

    /// Counts rows that were copied as they are.
    pub(crate) fn copied(&mut self, copied: &Copied<'_>) {
        self.rows += copied.rows;
        self.cells += copied.cells;
        self.min_timestamp = self.min_timestamp.min(copied.min_timestamp);
        self.max_timestamp = self.max_timestamp.max(copied.max_timestamp);
        // Nothing of them expires.
        self.max_expiry = i64::MAX;
        self.first_position(copied.first);
    }

    /// Notes where the first row or deletion change of a partition lies.
    pub(crate) fn first_position(&mut self, place: &[u8]) {
        if self
            .first_position
            .as_ref()
            .is_none_or(|first| place < &first[..])
        {
            self.first_position = Some(Bytes::copy_from_slice(place));
        }
    }

    pub(crate) fn static_row(&mut self, row: &Row) {
        self.static_rows += 1;
        self.row(row);
    }

    pub(crate) fn deletion(&mut self, deletion: Deletion) {
        self.timestamp(deletion.timestamp);
        self.tombstone(deletion.deleted_at.0);
    }

    pub(crate) fn row(&mut self, row: &Row) {
        if let Some(liveness) = &row.liveness {
            self.timestamp(liveness.timestamp);
            match liveness.expiry {
                None => self.max_expiry = i64::MAX,
                Some(expiry) => self.expiring(expiry),
            }
        }
        row.deletion.iter().for_each(|deletion| self.deletion(*deletion));
        for (_, data) in &row.columns {
            match data {
                ColumnData::Cell(cell) => self.cell(cell.timestamp, &cell.state),
                ColumnData::Collection(collection) => {
                    collection
                        .deletion
                        .iter()
                        .for_each(|deletion| self.deletion(*deletion));
                    collection
                        .cells
                        .iter()
                        .for_each(|(_, cell)| self.cell(cell.timestamp, &cell.state));
                }
            }
        }
    }

    fn cell(&mut self, timestamp: Timestamp, state: &CellState) {
        self.cells += 1;
        self.timestamp(timestamp);
        match state {
            CellState::Live(_) => self.max_expiry = i64::MAX,
            CellState::Expiring { expiry, .. } => self.expiring(*expiry),
            CellState::Tombstone { deleted_at } => self.tombstone(deleted_at.0),
        }
    }

    fn timestamp(&mut self, timestamp: Timestamp) {
        self.min_timestamp = self.min_timestamp.min(timestamp.0);
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
    }

    fn tombstone(&mut self, deleted_at: i64) {
        self.tombstones += 1;
        self.max_expiry = self.max_expiry.max(deleted_at);
        self.tombstone_time(deleted_at);
    }

    /// What expires counts as a tombstone from then on.
    fn expiring(&mut self, expiry: Expiry) {
        let (expires_at, ttl) = (expiry.expires_at.0, expiry.ttl.0);
        self.max_expiry = self.max_expiry.max(expires_at);
        count_bits(&mut self.ttls, u64::from(ttl));
        let (least, greatest) = self.ttl_range.unwrap_or((ttl, ttl));
        self.ttl_range = Some((least.min(ttl), greatest.max(ttl)));
        self.tombstone_time(expires_at);
    }

    fn tombstone_time(&mut self, time: i64) {
        let (first, last) = self.deletion_times.unwrap_or((time, time));
        self.deletion_times = Some((first.min(time), last.max(time)));
        let rounded = round_up(time, self.rounding);
        *self.tombstone_times.entry(rounded).or_default() += 1;
        while self.tombstone_times.len() > TOMBSTONE_TIMES_MAX {
            self.rounding = self.rounding.saturating_mul(2);
            let mut joined = BTreeMap::new();
            for (time, count) in &self.tombstone_times {
                *joined.entry(round_up(*time, self.rounding)).or_default() += count;
            }
            self.tombstone_times = joined;
        }
    }

    /// Fills in the figures of what ended with this partition.
    pub(crate) fn fill(self, last_key: &[u8], statistics: &mut Statistics) {
        statistics.partitions = self.partitions;
        statistics.rows = self.rows;
        statistics.cells = self.cells;
        statistics.tombstones = self.tombstones;
        statistics.min_timestamp = Timestamp(self.min_timestamp);
        statistics.max_timestamp = Timestamp(self.max_timestamp);
        statistics.max_expiry = self.max_expiry;
        statistics.largest_partition = self.largest_partition;
        if let Some(first) = self.first_key {
            statistics.first_key = first;
            statistics.last_key = PartitionKey(Bytes::copy_from_slice(last_key));
        }
        statistics.tombstone_times = self.tombstone_times.into_iter().collect();
        statistics.partition_sizes = trimmed(self.partition_sizes);
        statistics.cell_counts = trimmed(self.cell_counts);
        statistics.ttls = trimmed(self.ttls);
        statistics.ttl_range = self.ttl_range.unwrap_or_default();
        statistics.deletion_times = self.deletion_times;
        statistics.partition_deletions = self.partition_deletions;
        statistics.static_rows = self.static_rows;
        let bounds = self.first_position.zip(self.last_position);
        statistics.clustering_bounds = bounds.map(|(first, last)| (Position(first), Position(last)));
    }
}

/// Counts a value in a histogram by its number of bits.
fn count_bits(histogram: &mut [u64], value: u64) {
    let bits = 64 - value.leading_zeros();
    if let Some(count) = histogram.get_mut(bits as usize) {
        *count += 1;
    }
}

/// Without the zeros at its end.
fn trimmed(mut histogram: Vec<u64>) -> Vec<u64> {
    histogram.truncate(
        histogram
            .iter()
            .rposition(|count| *count > 0)
            .map_or(0, |last| last + 1),
    );
    histogram
}

fn round_up(time: i64, unit: i64) -> i64 {
    match time.rem_euclid(unit) {
        0 => time,
        rest => time.saturating_add(unit - rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstone_times_stay_few_and_lose_none() {
        let mut collector = Collector::default();
        for i in 0..10_000 {
            collector.tombstone(i * 977);
        }
        assert!(collector.tombstone_times.len() <= TOMBSTONE_TIMES_MAX);
        assert_eq!(collector.tombstone_times.values().sum::<u64>(), 10_000);
        assert!(
            collector
                .tombstone_times
                .last_key_value()
                .is_some_and(|(last, _)| *last >= 9_999 * 977)
        );
        assert_eq!(round_up(-5, 60), 0);
    }
}
