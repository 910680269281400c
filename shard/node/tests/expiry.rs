//! Expiry through the front door, second by second: whichever way a client asks, what dies is there before its second and
//! gone from it on. A model says what is there.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use ceto_env::Env;
use ceto_native::Response;
use ceto_node::MajorCompaction;
use ceto_node::options::Limits;
use support::{Client, World};

const PARTITIONS: i32 = 3;
const ROWS: i32 = 5;
const VALUES: i32 = 3;
/// Seconds in which writes come, and in which answers are compared.
const WRITING: i64 = 16;
const CHECKING: i64 = 40;
/// Longest life, in seconds.
const LIFE_MAX: i64 = 20;

/// First second in which it is gone; None: it stays.
type Death = Option<i64>;

#[derive(Clone, Default, Debug)]
struct Row {
    marker: Option<Death>,
    /// Of `v` and `w`.
    cells: [Option<(i32, Death)>; 2],
    map: BTreeMap<i32, (i32, Death)>,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<(i32, i32), Row>,
    statics: BTreeMap<i32, (i32, Death)>,
}

fn is_there(death: Death, now: i64) -> bool {
    death.is_none_or(|death| death > now)
}

fn live<T: Copy>(cell: Option<(T, Death)>, now: i64) -> Option<T> {
    cell.filter(|(_, death)| is_there(*death, now))
        .map(|(value, _)| value)
}

impl Row {
    fn cell(&self, column: usize, now: i64) -> Option<i32> {
        live(self.cells[column], now)
    }

    fn map(&self, now: i64) -> Vec<(i32, i32)> {
        let entries = self.map.iter();
        entries
            .filter_map(|(key, cell)| Some((*key, live(Some(*cell), now)?)))
            .collect()
    }

    fn is_live(&self, now: i64) -> bool {
        self.marker.is_some_and(|death| is_there(death, now))
            || (0..2).any(|column| self.cell(column, now).is_some())
            || !self.map(now).is_empty()
    }
}

impl Model {
    fn row(&mut self, place: (i32, i32)) -> &mut Row {
        self.rows.entry(place).or_default()
    }

    fn live_rows(&self, now: i64) -> impl DoubleEndedIterator<Item = (i32, i32, &Row)> {
        let rows = self.rows.iter().filter(move |(_, row)| row.is_live(now));
        rows.map(|((k, c), row)| (*k, *c, row))
    }

    fn static_value(&self, k: i32, now: i64) -> Option<i32> {
        live(self.statics.get(&k).copied(), now)
    }

    /// Every row as `SELECT JSON` writes it, those too that are nothing but a static value.
    fn documents(&self, now: i64) -> Vec<String> {
        let text = |value: Option<i32>| value.map_or("null".to_owned(), |value| value.to_string());
        let mut all = Vec::new();
        for k in 0..PARTITIONS {
            let s = self.static_value(k, now);
            let mut has_rows = false;
            for (_, c, row) in self.live_rows(now).filter(|(own, ..)| *own == k) {
                has_rows = true;
                let map: Vec<String> = row
                    .map(now)
                    .iter()
                    .map(|(key, value)| format!("\"{key}\": {value}"))
                    .collect();
                let map = match map.is_empty() {
                    true => "null".to_owned(),
                    false => format!("{{{}}}", map.join(", ")),
                };
                let (v, w) = (text(row.cell(0, now)), text(row.cell(1, now)));
                all.push(format!(
                    r#"{{"k": {k}, "c": {c}, "s": {}, "v": {v}, "w": {w}, "m": {map}}}"#,
                    text(s)
                ));
            }
            if !has_rows && s.is_some() {
                all.push(format!(
                    r#"{{"k": {k}, "c": null, "s": {}, "v": null, "w": null, "m": null}}"#,
                    text(s)
                ));
            }
        }
        all.sort();
        all
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: i32) -> i32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as i32
    }
}

struct Test {
    world: World,
    client: Client,
    model: Model,
    dice: Dice,
}

impl Test {
    fn new(seed: u64) -> Test {
        let world = World::boot(Limits::default());
        let mut client = world.connect();
        for text in [
            "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
            "CREATE TABLE ks.t (k int, c int, s int static, v int, w int, m map<int, int>, PRIMARY KEY (k, c)) \
             WITH gc_grace_seconds = 3",
            "CREATE INDEX by_v ON ks.t (v)",
            "CREATE INDEX by_s ON ks.t (s)",
            "CREATE INDEX by_m ON ks.t (keys(m))",
            "CREATE MATERIALIZED VIEW ks.by_w AS SELECT k, c, v, w FROM ks.t WHERE w IS NOT NULL AND k IS NOT NULL AND \
             c IS NOT NULL PRIMARY KEY (w, k, c)",
        ] {
            let answer = world.ask(&mut client, text);
            assert!(matches!(answer, Response::SchemaChange(_)), "{text}: {answer:?}");
        }
        Test {
            world,
            client,
            model: Model::default(),
            dice: Dice(seed),
        }
    }

    fn now(&self) -> i64 {
        self.world.env.clock().unix_seconds()
    }

    fn rows(&mut self, text: &str) -> Vec<Vec<Option<Vec<u8>>>> {
        match self.world.ask(&mut self.client, text) {
            Response::Rows(rows) => rows
                .iter()
                .map(|row| row.cells().map(|cell| cell.map(<[u8]>::to_vec)).collect())
                .collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Rows of numbers.
    fn numbers(&mut self, text: &str) -> Vec<Vec<Option<i64>>> {
        let number = |cell: Vec<u8>| match cell.len() {
            4 => i64::from(i32::from_be_bytes(cell.try_into().unwrap())),
            _ => i64::from_be_bytes(cell.try_into().unwrap()),
        };
        let rows = self.rows(text).into_iter();
        rows.map(|row| row.into_iter().map(|cell| cell.map(number)).collect())
            .collect()
    }

    fn expect(&mut self, text: &str, mut expected: Vec<Vec<Option<i64>>>, is_ordered: bool) {
        let now = self.now();
        let mut found = self.numbers(text);
        if !is_ordered {
            found.sort();
            expected.sort();
        }
        assert_eq!(found, expected, "second {now}: {text}");
    }

    fn void(&mut self, text: &str) {
        let answer = self.world.ask(&mut self.client, text);
        assert!(matches!(answer, Response::Void), "{text}: {answer:?}");
    }

    /// One write of some kind, with a life of its own.
    fn write(&mut self) {
        let now = self.now();
        let place = (self.dice.below(PARTITIONS), self.dice.below(ROWS));
        let (k, c) = place;
        let life = 1 + i64::from(self.dice.below(LIFE_MAX as i32));
        let has_life = self.dice.below(7) > 0;
        let death = has_life.then_some(now + life);
        let using = if has_life {
            format!("USING TTL {life}")
        } else {
            String::new()
        };
        let (x, y) = (self.dice.below(VALUES), self.dice.below(VALUES));
        match self.dice.below(9) {
            0 | 1 => {
                self.void(&format!(
                    "INSERT INTO ks.t (k, c, v, w) VALUES ({k}, {c}, {x}, {y}) {using}"
                ));
                let row = self.model.row(place);
                row.marker = Some(death);
                row.cells = [Some((x, death)), Some((y, death))];
            }
            2 => {
                let json = format!(r#"{{"k": {k}, "c": {c}, "w": {y}}}"#);
                self.void(&format!("INSERT INTO ks.t JSON '{json}' DEFAULT UNSET {using}"));
                let row = self.model.row(place);
                row.marker = Some(death);
                row.cells[1] = Some((y, death));
            }
            3 => {
                self.void(&format!(
                    "UPDATE ks.t {using} SET v = {x} WHERE k = {k} AND c = {c}"
                ));
                self.model.row(place).cells[0] = Some((x, death));
            }
            4 => {
                self.void(&format!(
                    "UPDATE ks.t {using} SET w = {y} WHERE k = {k} AND c = {c}"
                ));
                self.model.row(place).cells[1] = Some((y, death));
            }
            5 => {
                self.void(&format!(
                    "UPDATE ks.t {using} SET m[{x}] = {y} WHERE k = {k} AND c = {c}"
                ));
                self.model.row(place).map.insert(x, (y, death));
            }
            6 => {
                self.void(&format!("UPDATE ks.t {using} SET s = {x} WHERE k = {k}"));
                self.model.statics.insert(k, (x, death));
            }
            7 => {
                self.void(&format!("DELETE w FROM ks.t WHERE k = {k} AND c = {c}"));
                self.model.row(place).cells[1] = None;
            }
            _ => {
                let text = format!("INSERT INTO ks.t (k, c, v) VALUES ({k}, {c}, {x}) IF NOT EXISTS {using}");
                let is_applied = !self.model.rows.get(&place).is_some_and(|row| row.is_live(now));
                assert_eq!(self.is_applied(&text), is_applied, "second {now}: {text}");
                if is_applied {
                    let row = self.model.row(place);
                    row.marker = Some(death);
                    row.cells[0] = Some((x, death));
                }
            }
        }
    }

    fn is_applied(&mut self, text: &str) -> bool {
        let rows = self.rows(text);
        rows[0][0].as_deref() == Some(&[1])
    }

    fn check(&mut self) {
        let now = self.now();
        let found = self.rows("SELECT JSON k, c, s, v, w, m FROM ks.t");
        let text = |row: Vec<Option<Vec<u8>>>| String::from_utf8(row[0].clone().unwrap()).unwrap();
        let mut found: Vec<String> = found.into_iter().map(text).collect();
        found.sort();
        assert_eq!(found, self.model.documents(now), "second {now}");
        let wide = i64::from;
        let count = self.model.documents(now).len();
        self.expect("SELECT count(*) FROM ks.t", vec![vec![Some(count as i64)]], true);
        for k in 0..PARTITIONS {
            let rows = self.model.live_rows(now).filter(|(own, ..)| *own == k);
            let rows: Vec<(i32, Row)> = rows.map(|(_, c, row)| (c, row.clone())).collect();
            let s = self.model.static_value(k, now).map(wide);
            // A slice shows no partition of which there is only a static value.
            let found: Vec<_> = rows.iter().map(|(c, _)| vec![Some(wide(*c)), s]).collect();
            let slice = format!("SELECT c, s FROM ks.t WHERE k = {k} AND c >= 0");
            self.expect(&slice, found.clone(), true);
            self.expect(
                &format!("{slice} LIMIT 2"),
                found[..found.len().min(2)].to_vec(),
                true,
            );
            let back = found.into_iter().rev().collect();
            self.expect(&format!("{slice} ORDER BY c DESC"), back, true);
            let lives = rows.iter().map(|(c, row)| {
                let left = |cell: Option<(i32, Death)>| {
                    let (_, death) = cell.filter(|(_, death)| is_there(*death, now))?;
                    Some(death? - now)
                };
                let written = |column: usize| row.cell(column, now).map(|_| 1);
                vec![Some(wide(*c)), left(row.cells[0]), left(row.cells[1]), written(0)]
            });
            let lives: Vec<Vec<Option<i64>>> = lives.collect();
            let text = format!(
                "SELECT c, ttl(v), ttl(w), writetime(v) FROM ks.t WHERE k = {k} AND c IN (0, 1, 2, 3, 4)"
            );
            let mut found = self.numbers(&text);
            for row in &mut found {
                // Of the time of the write only that there is one.
                row[3] = row[3].map(|_| 1);
            }
            assert_eq!(found, lives, "second {now}: {text}");
        }
        for x in 0..VALUES {
            let of = |column: usize| -> Vec<Vec<Option<i64>>> {
                let rows = self.model.live_rows(now);
                let wanted = rows.filter(|(_, _, row)| row.cell(column, now) == Some(x));
                wanted
                    .map(|(k, c, _)| vec![Some(wide(k)), Some(wide(c))])
                    .collect()
            };
            let (by_v, by_w) = (of(0), of(1));
            let has_key = |row: &Row| row.map(now).iter().any(|(key, _)| *key == x);
            let by_m = self.model.live_rows(now).filter(|(_, _, row)| has_key(row));
            let by_m: Vec<_> = by_m.map(|(k, c, _)| vec![Some(wide(k)), Some(wide(c))]).collect();
            let of_view = self.model.live_rows(now);
            let of_view = of_view.filter(|(_, _, row)| row.cell(1, now) == Some(x));
            let of_view =
                of_view.map(|(k, c, row)| vec![Some(wide(k)), Some(wide(c)), row.cell(0, now).map(wide)]);
            let of_view: Vec<_> = of_view.collect();
            let by_s: Vec<_> = (0..PARTITIONS)
                .filter(|k| self.model.static_value(*k, now) == Some(x))
                .map(|k| vec![Some(wide(k))])
                .collect();
            self.expect(&format!("SELECT k, c FROM ks.t WHERE v = {x}"), by_v, false);
            self.expect(
                &format!("SELECT k, c FROM ks.t WHERE m CONTAINS KEY {x}"),
                by_m,
                false,
            );
            let filtering = format!("SELECT k, c FROM ks.t WHERE w = {x} ALLOW FILTERING");
            self.expect(&filtering, by_w, false);
            self.expect(
                &format!("SELECT k, c, v FROM ks.by_w WHERE w = {x}"),
                of_view,
                false,
            );
            let mut found = self.numbers(&format!("SELECT k FROM ks.t WHERE s = {x}"));
            found.sort();
            found.dedup();
            assert_eq!(found, by_s, "second {now}: by a static value");
        }
    }

    /// A condition is true before the second and false from it on; what it does when it is true shows nowhere else.
    fn check_conditions(&mut self) {
        let now = self.now();
        let place = (self.dice.below(PARTITIONS), self.dice.below(ROWS));
        let x = self.dice.below(VALUES);
        let (k, c) = place;
        let row = self.model.rows.get(&place).cloned().unwrap_or_default();
        let where_ = format!("WHERE k = {k} AND c = {c}");
        let conditions = [
            (format!("v = {x}"), row.cell(0, now) == Some(x)),
            ("v = null".to_owned(), row.cell(0, now).is_none()),
            (
                format!("m[{x}] != null"),
                row.map(now).iter().any(|(key, _)| *key == x),
            ),
            (format!("s = {x}"), self.model.static_value(k, now) == Some(x)),
            ("EXISTS".to_owned(), row.is_live(now)),
        ];
        for (condition, is_true) in conditions {
            // An element that is not there is deleted.
            let text = format!("DELETE m[77] FROM ks.t {where_} IF {condition}");
            assert_eq!(self.is_applied(&text), is_true, "second {now}: {text}");
        }
    }

    fn maintain(&mut self, second: i64) {
        let schema = self.world.node.schema();
        let table = schema.table("ks", "t").unwrap().id;
        let view = schema.table("ks", "by_w").unwrap().id;
        let node = self.world.node.clone();
        for table in [table, view] {
            match second % 7 {
                3 => {
                    let flushed = self.world.env.block_on(node.flush(table));
                    flushed.unwrap().unwrap();
                }
                5 => {
                    let what = MajorCompaction::default();
                    let compacted = self.world.env.block_on(node.compact(table, what));
                    compacted.unwrap().unwrap();
                }
                _ => {}
            }
        }
    }

    /// To just behind the beginning of the next second.
    fn next_second(&mut self) {
        let micros = self.world.env.clock().unix_micros().rem_euclid(1_000_000) as u64;
        self.world.run(Duration::from_micros(1_000_000 - micros + 1000));
    }
}

#[test]
fn whichever_way_a_client_asks_what_dies_is_gone_at_its_second() {
    for seed in 0..40 {
        let mut test = Test::new(seed);
        for second in 0..CHECKING {
            test.next_second();
            let now = test.now();
            test.check();
            if second < WRITING {
                for _ in 0..6 {
                    test.write();
                }
                // Views are written behind their base.
                test.world.run(Duration::from_millis(10));
                test.check();
            }
            test.check_conditions();
            test.maintain(second);
            test.check();
            assert_eq!(test.now(), now, "a second is enough for all of it");
        }
    }
}
