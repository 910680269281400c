//! Reads by a secondary index, compared with the oracle like all others.
//!
//! Whatever an index finds is tested by reading the row, so it can only find too little: a read by all of its entries must find
//! every row that has a value in the indexed column, and so must two reads of its entries below and from some value.

use std::collections::BTreeMap;

use ceto_cluster::Random;
use ceto_model::comparable::encode_component;
use ceto_model::index::Index;
use ceto_model::read::{IndexSearch, IndexTerms};
use ceto_model::schema::{IndexDefinition, IndexTarget};
use ceto_model::{CqlType, Position, RingPosition, TableId, Token};
use uuid::Uuid;

use super::workload::{PARTITIONS, PLAIN, ROWS, Read};

/// The indexed column.
pub const INDEXED: u32 = PLAIN[1];
/// Its name.
pub const COLUMN: &str = "w";
/// What every index's name, and so its folder's, begins with.
pub const PREFIX: &str = "by_w_";

/// Identity of the index of a table.
pub fn index_id(table: u8) -> TableId {
    TableId(Uuid::from_u128(0x1de4 << 16 | u128::from(table)))
}

/// The index of a table.
pub fn definition(table: u8) -> IndexDefinition {
    IndexDefinition {
        name: format!("{PREFIX}{table}").into(),
        id: index_id(table),
        column: COLUMN.into(),
        target: IndexTarget::Simple,
        options: BTreeMap::new(),
    }
}

/// Which entries are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entries {
    /// All at once.
    All,
    /// Those of values that begin with less than this byte, and then the others. Only while nobody writes: a value may move
    /// from one part to the other.
    InTwo(u8),
}

impl Entries {
    /// One after the other.
    pub fn searches(self, table: u8) -> Vec<IndexSearch> {
        let (first, last) = (Position::before_all(), Position::after_all());
        let parts = match self {
            Entries::All => vec![(first, last)],
            Entries::InTwo(byte) => {
                let mut value = Vec::new();
                encode_component(&CqlType::Blob, false, &[byte], &mut value).expect("a blob is encoded");
                let middle = Index::position(&value, &RingPosition::BeforeToken(Token::MIN));
                vec![(first, middle.clone()), (middle, last)]
            }
        };
        let search = |(first, last)| IndexSearch {
            index: index_id(table),
            terms: IndexTerms::Between(first, last),
        };
        parts.into_iter().map(search).collect()
    }
}

/// Which tables have an index, and who reads by it.
#[derive(Default)]
pub struct Indexes {
    random: Option<Random>,
    tables: Vec<u8>,
}

impl Indexes {
    /// Of `seed`, on at least one of so many tables.
    pub fn new(seed: u64, tables: u8) -> Indexes {
        let mut random = Random::salted(seed, "storage indexes of a run");
        let first = random.below(tables.into()) as u8;
        let chosen = (0..tables).filter(|table| *table == first || random.chance(1, 2));
        Indexes {
            tables: chosen.collect(),
            random: Some(random),
        }
    }

    /// The tables that have one.
    pub fn tables(&self) -> &[u8] {
        &self.tables
    }

    /// The stream of choices.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.as_mut().map_or(0, |random| random.below(bound))
    }

    /// The next read; none without an index.
    pub fn read(&mut self) -> Option<Read> {
        let random = self.random.as_mut()?;
        let table = *random.pick(&self.tables)?;
        let first = random.below(ROWS.into()) as u8;
        Some(Read {
            partition: random.chance(1, 3).then(|| random.below(PARTITIONS.into()) as u8),
            rows: if random.chance(2, 3) {
                (0, ROWS - 1)
            } else {
                (first, first + random.below(u64::from(ROWS - first)) as u8)
            },
            bypass_cache: random.chance(1, 8),
            entries: Some(Entries::All),
            ..Read::whole(table)
        })
    }

    /// All of a table by its index, once and in two parts.
    pub fn whole(&mut self, table: u8) -> [Read; 2] {
        // Values begin with the digits of a number.
        let middle = b'1' + self.below(9) as u8;
        [Entries::All, Entries::InTwo(middle)].map(|entries| Read {
            entries: Some(entries),
            ..Read::whole(table)
        })
    }
}
