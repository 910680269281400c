//! Random tables and statements against a model: a seed draws a table, with indexes and a view, and statements by the
//! thousand, each of which a real node (all but its sockets and disk) and a plain list of all writes answer.
//!
//! A failure names its seed: `CETO_STATEMENT_SEEDS=17..18 cargo test -p ceto-node --test statements` runs that one alone,
//! and `CETO_STATEMENT_COUNT` changes how many statements each seed has. It lies here rather than in `tools/sim` because it
//! is about the meaning of statements, from their text to the bytes of the rows; there, disks and machines fail.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod model;
mod reads;
mod table;
mod writes;

use ceto_env::Env;
use ceto_model::Consistency;
use ceto_native::{Query, QueryParameters, Request, Response};
use ceto_node::MajorCompaction;
use ceto_node::options::Limits;
use model::Model;
use reads::{Answer, Read};
use std::time::Duration;
use support::{Client, World, encode};
use table::{Dice, Table};
use writes::{Outcome, Writer};

/// Seeds that every run has.
const SEEDS: std::ops::Range<u64> = 0..24;
const STATEMENTS: usize = 1000;

struct Run {
    seed: u64,
    world: World,
    client: Client,
    dice: Dice,
    table: Table,
    model: Model,
    clock: i64,
    list_places: i64,
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let world = World::boot(Limits::default());
        let client = world.connect();
        let mut dice = Dice(seed);
        let table = Table::draw(&mut dice);
        let mut run = Run {
            seed,
            world,
            client,
            dice,
            table,
            model: Model::default(),
            clock: 1 << 50,
            list_places: 0,
            log: Vec::new(),
        };
        let keyspace =
            "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
        for text in std::iter::once(keyspace.to_owned()).chain(run.table.statements()) {
            let answer = run.ask(&text, None, None);
            assert!(matches!(answer, Response::SchemaChange(_)), "{text}: {answer:?}");
            run.log.push(text);
        }
        // Index and view are built.
        run.world.run(Duration::from_secs(1));
        run
    }

    fn ask(&mut self, text: &str, page_size: Option<i32>, paging_state: Option<bytes::Bytes>) -> Response {
        let mut parameters = QueryParameters::new(Consistency::One);
        parameters.page_size = page_size;
        parameters.paging_state = paging_state;
        let query = text.to_owned();
        self.client
            .send(&encode(0, Request::Query(Query { query, parameters })));
        self.world.answers(&mut self.client, 1).remove(0)
    }

    /// Seconds; with enough of the second left for a statement.
    fn now(&self) -> i64 {
        let clock = self.world.env.clock();
        if clock.unix_micros() % 1_000_000 > 800_000 {
            self.world.run(Duration::from_millis(300));
        }
        clock.unix_micros() / 1_000_000
    }

    fn fail(&self, text: &str, complaint: &str) -> ! {
        let start = self.log.len().saturating_sub(400);
        eprintln!("{}", self.log[..self.log.len().min(5)].join(";\n"));
        eprintln!("..\n{};", self.log[start..].join(";\n"));
        panic!("seed {}: {text}: {complaint}", self.seed);
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0 => self.flush_or_compact(),
            1 => self.world.run(Duration::from_secs(1 + self.dice.below(8) as u64)),
            2..24 => self.write(),
            _ => self.read(),
        }
    }

    fn flush_or_compact(&mut self) {
        let node = self.world.node.clone();
        let tables: Vec<_> = ["t", "by_value"]
            .iter()
            .filter_map(|name| Some(node.schema().table("ks", name)?.id))
            .collect();
        let compacts = self.dice.one_in(3);
        let done = self.world.env.block_on(async move {
            for table in tables {
                match compacts {
                    true => node.compact(table, MajorCompaction::default()).await.unwrap(),
                    false => node.flush(table).await.unwrap(),
                }
            }
        });
        done.unwrap();
    }

    fn write(&mut self) {
        let now = self.now();
        let write = Writer {
            dice: &mut self.dice,
            table: &self.table,
            model: &self.model,
            now,
            clock: &mut self.clock,
            list_places: &mut self.list_places,
        }
        .draw();
        self.log.push(write.text.clone());
        let answer = self.ask(&write.text, None, None);
        match (write.outcome, answer) {
            (Outcome::Done(effects), Response::Void) => self.model.apply(effects),
            (Outcome::Invalid, Response::Error(error)) if error.message.contains("list") => {}
            (Outcome::Conditional(applies, effects), Response::Rows(rows)) => {
                let applied = rows.iter().next().unwrap().cell(0) == Some(&[1]);
                if applied != applies {
                    self.fail(&write.text, &format!("applied is {applied}"));
                }
                if applies {
                    self.model.apply(effects);
                }
            }
            (_, answer) => self.fail(&write.text, &format!("{answer:?}")),
        }
    }

    fn read(&mut self) {
        let now = self.now();
        let mut read: Read = reads::draw(&mut self.dice, &self.table, &self.model, now);
        let page_size = self.dice.one_in(2).then(|| 1 + self.dice.below(5) as i32);
        let mut found = Answer::new();
        let mut paging_state = None;
        loop {
            let rows = match self.ask(&read.text, page_size, paging_state) {
                Response::Rows(rows) => rows,
                other => self.fail(&read.text, &format!("{other:?}")),
            };
            found.extend(
                rows.iter()
                    .map(|row| row.cells().map(|cell| cell.map(<[u8]>::to_vec)).collect()),
            );
            paging_state = rows.metadata.paging_state.clone();
            if paging_state.is_none() {
                break;
            }
        }
        if self.world.env.clock().unix_micros() / 1_000_000 != now {
            // Something may have expired meanwhile.
            return;
        }
        if read.in_any_order {
            found.sort();
            read.expected.sort();
        }
        if !same(&found, &read.expected) {
            let complaint = format!(
                "page size {page_size:?}\n found {found:?}\n wants {:?}",
                read.expected
            );
            self.fail(&read.text, &complaint);
        }
    }
}

/// Timestamps that the server gave are not known here, only that they are large: two large ones are the same.
fn same(found: &Answer, expected: &Answer) -> bool {
    let is_large = |cell: &Option<Vec<u8>>| match cell.as_deref() {
        Some(bytes) => <[u8; 8]>::try_from(bytes).is_ok_and(|bytes| i64::from_be_bytes(bytes) > 1 << 49),
        None => false,
    };
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| found == expected || is_large(found) && is_large(expected))
        })
}

#[test]
fn statements_mean_what_the_model_says() {
    let seeds = match std::env::var("CETO_STATEMENT_SEEDS") {
        Ok(text) => {
            let (start, end) = text.split_once("..").expect("CETO_STATEMENT_SEEDS is START..END");
            start.parse().unwrap()..end.parse().unwrap()
        }
        Err(_) => SEEDS,
    };
    let count = std::env::var("CETO_STATEMENT_COUNT").map_or(STATEMENTS, |count| count.parse().unwrap());
    for seed in seeds {
        // Seen when the test fails.
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..count {
            run.step();
        }
    }
}
