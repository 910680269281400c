//! Writes of two tables that are one: after every start both parts of each are there, or neither.
//!
//! They go to tables of their own, where nothing is deleted or written twice: so what one table has of a write, the other must
//! have too, whatever was acknowledged.

use bytes::Bytes;
use ceto_cluster::Random;
use ceto_model::{Cell, ColumnData, ColumnId, Liveness, Mutation, Row, Timestamp};

use super::workload::{PARTITIONS, PLAIN, TABLES, clustering, key, table_id};

/// The two tables.
pub const PAIR_TABLES: [u8; 2] = [TABLES, TABLES + 1];
/// Most writes of a run: rows have one byte for their number.
const PAIRS_MAX: usize = PARTITIONS as usize * 256;

/// The writes of a run.
#[derive(Default)]
pub struct Pairs {
    random: Option<Random>,
    /// Whether each was acknowledged.
    written: Vec<bool>,
    /// The engine is broken: it writes the parts one after the other.
    pub is_split: bool,
}

/// One write.
pub struct Pair {
    /// Counted from 0.
    pub number: usize,
    /// Where both parts are.
    pub partition: u8,
    /// The parts.
    pub parts: Vec<Mutation>,
}

fn place(number: usize) -> (u8, u8) {
    let partitions = usize::from(PARTITIONS);
    ((number % partitions) as u8, (number / partitions) as u8)
}

impl Pairs {
    /// Of `seed`.
    pub fn new(seed: u64, is_split: bool) -> Pairs {
        Pairs {
            random: Some(Random::salted(seed, "storage pairs of a run")),
            written: Vec::new(),
            is_split,
        }
    }

    /// There are some in this run.
    pub fn is_on(&self) -> bool {
        self.random.is_some()
    }

    /// The stream of choices.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.as_mut().map_or(0, |random| random.below(bound))
    }

    /// The next write, at `now` microseconds; None when there were enough.
    pub fn begin(&mut self, now: i64) -> Option<Pair> {
        let number = self.written.len();
        if number >= PAIRS_MAX {
            return None;
        }
        self.written.push(false);
        let ((partition, row), size) = (place(number), self.below(300));
        let value = Bytes::from(vec![number as u8; size as usize]);
        let part = |table| {
            let mut mutation = Mutation::new(table_id(table), key(partition));
            let mut content = Row {
                liveness: Some(Liveness {
                    timestamp: Timestamp(now),
                    expiry: None,
                }),
                ..Row::default()
            };
            let cell = Cell::live(Timestamp(now), value.clone());
            content.merge_column(ColumnId(PLAIN[0]), ColumnData::Cell(cell));
            mutation.partition.row_mut(clustering(row)).merge(content);
            mutation
        };
        Some(Pair {
            number,
            partition,
            parts: PAIR_TABLES.into_iter().map(part).collect(),
        })
    }

    /// It survives everything from now on.
    pub fn acknowledge(&mut self, number: usize) {
        self.written[number] = true;
    }

    /// What is wrong with the rows that each table has of a partition.
    pub fn check(&self, partition: u8, rows: [&[u8]; 2]) -> Vec<String> {
        let own = (0..self.written.len()).filter(|number| place(*number).0 == partition);
        let wrong = own.filter_map(|number| {
            let row = place(number).1;
            let [a, b] = rows.map(|rows| rows.contains(&row));
            if a != b {
                return Some(format!(
                    "of write {number} in two tables one has its part: {a}, {b}"
                ));
            }
            let is_lost = self.written[number] && !a;
            is_lost.then(|| format!("write {number} in two tables was acknowledged and is gone"))
        });
        wrong.collect()
    }
}
