//! One table, prepared point reads and writes of it, over and over.
//!
//! A row is a key of 8 bytes and five values of 34: the row that in-process benchmarks of other servers use. Requests
//! are encoded beforehand, so that only the server is measured.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_native::Values;

use crate::allocator::Allocated;
use crate::world::{World, encode_execute};

const KEYSPACE: &str = "CREATE KEYSPACE ceto_perf \
     WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
const TABLE: &str = "CREATE TABLE ceto_perf.simple_query \
     (key blob PRIMARY KEY, c0 blob, c1 blob, c2 blob, c3 blob, c4 blob)";
const READ: &str = "SELECT c0, c1, c2, c3, c4 FROM ceto_perf.simple_query WHERE key = ?";
const WRITE: &str = "INSERT INTO ceto_perf.simple_query (key, c0, c1, c2, c3, c4) VALUES (?, ?, ?, ?, ?, ?)";

/// Bytes of a value, and how many a row has.
const VALUE_LENGTH: usize = 34;
const VALUE_COUNT: usize = 5;
/// Bytes of the header before the body of an answer.
const HEADER_LENGTH: usize = 9;
/// How the body of an answer to a read begins: rows, metadata left out, five columns, one row.
const ONE_ROW: [u8; 16] = [0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, VALUE_COUNT as u8, 0, 0, 0, 1];
/// How the body of an answer to a write begins: nothing to say.
const VOID: [u8; 4] = [0, 0, 0, 1];

/// What each operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Operation {
    /// Reads one row by its key.
    Read,
    /// Writes one row.
    Write,
}

impl Operation {
    /// In the names of workloads.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn answer(self) -> &'static [u8] {
        match self {
            Self::Read => &ONE_ROW,
            Self::Write => &VOID,
        }
    }
}

/// What some operations cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
    pub(crate) allocations: u64,
    pub(crate) allocated_bytes: u64,
    /// Answers that were not there at once.
    pub(crate) waits: u64,
}

/// A node with a loaded table, and requests for each row of it.
pub(crate) struct Workload {
    world: World,
    requests: Vec<Bytes>,
    answer: &'static [u8],
    random: u64,
}

impl Workload {
    /// Boots a node and writes `rows` rows.
    pub(crate) fn load(operation: Operation, rows: u64) -> Result<Workload, String> {
        let mut world = World::boot()?;
        world.query(KEYSPACE)?;
        world.query(TABLE)?;
        let id = world.prepare(WRITE)?;
        let writes: Vec<Bytes> = (0..rows.max(1))
            .map(|key| write(&id, key))
            .collect::<Result<_, _>>()?;
        for request in &writes {
            world.run(request, |answer| check(answer, &VOID))?;
        }
        let requests = match operation {
            Operation::Write => writes,
            Operation::Read => {
                let id = world.prepare(READ)?;
                let read =
                    |key: u64| encode_execute(&id, Values::builder().value(&key.to_be_bytes()).build());
                (0..rows.max(1)).map(read).collect::<Result<_, _>>()?
            }
        };
        world.waits = 0;
        Ok(Workload {
            world,
            requests,
            answer: operation.answer(),
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// Runs operations on rows chosen at random. A function of its own, so that a profiler finds it by name.
    #[inline(never)]
    pub(crate) fn run(&mut self, operations: u64) -> Result<Cost, String> {
        let (begin, allocated, waits) = (Instant::now(), Allocated::so_far(), self.world.waits);
        for _ in 0..operations {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let row = (u128::from(self.random) * self.requests.len() as u128) >> 64;
            let expected = self.answer;
            self.world
                .run(&self.requests[row as usize], |answer| check(answer, expected))?;
        }
        let now = Allocated::so_far();
        Ok(Cost {
            operations,
            time: begin.elapsed(),
            allocations: now.count - allocated.count,
            allocated_bytes: now.bytes - allocated.bytes,
            waits: self.world.waits - waits,
        })
    }
}

fn write(id: &Bytes, key: u64) -> Result<Bytes, String> {
    let mut values = Values::builder().value(&key.to_be_bytes());
    for column in 0..VALUE_COUNT {
        values = values.value(&[b'a' + column as u8; VALUE_LENGTH]);
    }
    encode_execute(id, values.build())
}

fn check(answer: &[u8], expected: &[u8]) -> Result<(), String> {
    match answer.get(HEADER_LENGTH..) {
        Some(body) if body.starts_with(expected) => Ok(()),
        _ => Err(format!("an answer is not what was asked for: {answer:?}")),
    }
}
