//! Values and paging states that no client should send: the answer may be an error, never a panic, and never a cell that
//! cannot be read back.

#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use ceto_cql::{BoundValue, Plan, PlanContext, RandomSource};
use proptest::prelude::*;
use support::Database;

struct Zero;

impl RandomSource for Zero {
    fn next_u64(&self) -> u64 {
        0
    }
}

const STATEMENTS: [&str; 22] = [
    "INSERT INTO t (k, c, i, x, de, du, ip, l, s, m, u, fl, tp, v) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "UPDATE t USING TTL ? AND TIMESTAMP ? SET l = l + ?, s = s - ?, m = m - ? WHERE k = ? AND c = ?",
    "UPDATE t SET l[?] = ?, m[?] = ?, u.a = ? WHERE k = ? AND c IN ?",
    "DELETE l[?], m[?], s[?] FROM t WHERE k = ? AND c = ?",
    "DELETE FROM t WHERE k IN ? AND c > ? AND c <= ?",
    "INSERT INTO t JSON ?",
    "UPDATE t SET i = ? WHERE k = ? AND c = ? IF l = ? AND m[?] = ? AND i IN ? AND s CONTAINS ?",
    "UPDATE n SET n = n + ? WHERE k = ?",
    "SELECT * FROM t WHERE k = ? AND c >= ?",
    "SELECT * FROM t WHERE k IN ? AND (c) IN ?",
    "SELECT * FROM t WHERE token(k) > ? AND token(k) <= ? LIMIT ?",
    "SELECT * FROM t WHERE k = ? PER PARTITION LIMIT ? LIMIT ?",
    "SELECT * FROM t WHERE i = ? AND l CONTAINS ? AND m[?] = ? AND fl = ? AND tp = ? AND v = ? ALLOW FILTERING",
    "SELECT i + (int) ?, de * (decimal) ?, du, m[?], s[?..], u.a FROM t",
    "SELECT sum(i), max(l), avg(de), count(*) FROM t WHERE de > ? ALLOW FILTERING",
    "SELECT tojson(m), tojson(u), cast(de AS int), fl, tp FROM t WHERE k = ?",
    "SELECT JSON * FROM t WHERE k = ?",
    "SELECT totimestamp((timeuuid) ?), floor((timestamp) ?, (duration) ?), blobasint((blob) ?) FROM t",
    "SELECT similarity_cosine(v, ?), map_keys(m), collection_sum(l) FROM t",
    "SELECT k, c, count(*) FROM t GROUP BY k, c",
    "SELECT (timestamp) ? + (duration) ?, (date) ? - (duration) ? FROM t",
    "BEGIN BATCH UPDATE t SET i = ? WHERE k = ? AND c = ?; DELETE FROM t WHERE k = ? AND c < ?; APPLY BATCH",
];

fn database() -> Database {
    let mut database = Database::new();
    for statement in [
        "CREATE TYPE ut (a int, b frozen<list<text>>)",
        "CREATE TABLE t (k int, c text, i int, x text, de decimal, du duration, ip inet, l list<int>, s set<text>, \
         m map<text, int>, u ut, fl frozen<map<int, frozen<set<text>>>>, tp tuple<int, text, frozen<list<int>>>, \
         v vector<float, 2>, PRIMARY KEY (k, c))",
        "CREATE TABLE n (k int PRIMARY KEY, n counter)",
        "INSERT INTO t (k, c, i, de, l, s, m, u, fl, tp, v) VALUES (1, 'x', 2, 3.5, [1, 2], {'a'}, {'b': 1}, \
         {a: 1, b: ['c']}, {1: {'x'}}, (1, 'a', [1]), [1, 2])",
    ] {
        database.run(statement).unwrap();
    }
    database
}

fn value() -> impl Strategy<Value = BoundValue> {
    let bytes = |bytes: Vec<u8>| BoundValue::Bytes(Bytes::from(bytes));
    prop_oneof![
        Just(BoundValue::Null),
        Just(BoundValue::Unset),
        prop::collection::vec(any::<u8>(), 0..24).prop_map(bytes),
        any::<i32>().prop_map(move |number| bytes(number.to_be_bytes().to_vec())),
        any::<i64>().prop_map(move |number| bytes(number.to_be_bytes().to_vec())),
        "[a-z]{0,3}".prop_map(move |text| bytes(text.into_bytes())),
        Just(bytes(b"{\"k\": 1, \"c\": \"y\", \"i\": 5}".to_vec())),
        // A collection that claims more than it has, and one with a good element.
        (0..4i32, prop::collection::vec(any::<u8>(), 0..5)).prop_map(move |(count, element)| {
            let mut wire = count.to_be_bytes().to_vec();
            wire.extend_from_slice(&(element.len() as i32).to_be_bytes());
            wire.extend_from_slice(&element);
            bytes(wire)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_value_is_a_panic(index in 0..STATEMENTS.len(), values in prop::collection::vec(value(), 16)) {
        let mut database = database();
        let statement = STATEMENTS[index];
        let count = database.prepare(statement).unwrap().variables().len();
        let _ = database.execute(statement, &values[..count.min(values.len())], None);
        // Whatever was written can be read.
        for table in ["t", "n"] {
            database.run(&format!("SELECT * FROM {table}")).unwrap();
            database.run(&format!("SELECT JSON * FROM {table}")).unwrap();
        }
    }

    #[test]
    fn no_paging_state_is_a_panic(state in prop::collection::vec(any::<u8>(), 0..64), flips in prop::collection::vec(any::<u8>(), 0..3)) {
        let mut database = database();
        for c in ["a", "b", "c"] {
            database.run(&format!("INSERT INTO t (k, c) VALUES (1, '{c}')")).unwrap();
        }
        for text in ["SELECT k, c FROM t", "SELECT k, c FROM t WHERE k IN (1, 2)"] {
            let prepared = database.prepare(text).unwrap();
            prop_assert!(prepared.plan(&[], &second_page(&state)).is_err());
            // A state of a page, changed: an error, as no changed byte goes unnoticed.
            let mut real = first_page(&mut database, text);
            let length = real.len();
            flips.iter().for_each(|at| real[usize::from(*at) % length] ^= 0x40);
            let changed = real != first_page(&mut database, text);
            let plan = prepared.plan(&[], &second_page(&real));
            prop_assert_eq!(plan.is_err(), changed);
            if let Ok(plan) = plan {
                prop_assert!(matches!(plan, Plan::Read(_)));
            }
        }
    }
}

fn first_page(database: &mut Database, text: &str) -> Vec<u8> {
    database.first_page(text, 1).expect("there is a second page")
}

fn second_page(state: &[u8]) -> PlanContext<'_> {
    let mut context = PlanContext::new(1, &Zero);
    context.page_size = Some(1);
    context.paging_state = Some(state);
    context
}
