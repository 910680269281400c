//! SELECT against plain logic: random restrictions, orders, limits and pages, and the same question asked of a list of
//! rows by brute force.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use std::cmp::Ordering;
use std::fmt::Write;
use support::Database;

/// k, a, b, c
type Row = [i32; 4];

/// What a WHERE clause demands of the clustering columns.
#[derive(Clone, Debug)]
enum Demand {
    Equal(usize, i32),
    In(usize, Vec<i32>),
    Slice(usize, &'static str, i32),
    /// From this column on, as a tuple.
    TupleSlice(usize, &'static str, Vec<i32>),
    TupleIn(usize, Vec<Vec<i32>>),
}

fn holds(operator: &str, order: Ordering) -> bool {
    match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }
}

impl Demand {
    fn accepts(&self, row: &Row) -> bool {
        match self {
            Self::Equal(column, value) => row[*column] == *value,
            Self::In(column, values) => values.contains(&row[*column]),
            Self::Slice(column, operator, value) => holds(operator, row[*column].cmp(value)),
            Self::TupleSlice(column, operator, values) => {
                holds(operator, row[*column..*column + values.len()].cmp(values))
            }
            Self::TupleIn(column, tuples) => tuples
                .iter()
                .any(|tuple| row[*column..*column + tuple.len()] == **tuple),
        }
    }

    fn text(&self) -> String {
        let names = ["k", "a", "b", "c"];
        let tuple = |values: &[i32]| {
            let values: Vec<String> = values.iter().map(i32::to_string).collect();
            format!("({})", values.join(", "))
        };
        match self {
            Self::Equal(column, value) => format!("{} = {value}", names[*column]),
            Self::In(column, values) => format!("{} IN {}", names[*column], tuple(values)),
            Self::Slice(column, operator, value) => format!("{} {operator} {value}", names[*column]),
            Self::TupleSlice(column, operator, values) => {
                let columns = names[*column..*column + values.len()].join(", ");
                format!("({columns}) {operator} {}", tuple(values))
            }
            Self::TupleIn(column, tuples) => {
                let width = tuples.first().map_or(1, Vec::len);
                let columns = names[*column..*column + width].join(", ");
                let tuples: Vec<String> = tuples.iter().map(|values| tuple(values)).collect();
                format!("({columns}) IN ({})", tuples.join(", "))
            }
        }
    }
}

fn value() -> impl Strategy<Value = i32> {
    0..4i32
}

fn slice(column: usize) -> impl Strategy<Value = Vec<Demand>> {
    let lower = prop_oneof![Just(">"), Just(">=")];
    let upper = prop_oneof![Just("<"), Just("<=")];
    let single = move |(operator, value)| Demand::Slice(column, operator, value);
    let tuple = move |(operator, values)| Demand::TupleSlice(column, operator, values);
    let width = 4 - column;
    let values = || prop::collection::vec(value(), 1..=width);
    prop_oneof![
        (lower.clone(), value())
            .prop_map(single)
            .prop_map(|demand| vec![demand]),
        (upper.clone(), value())
            .prop_map(single)
            .prop_map(|demand| vec![demand]),
        (
            (lower.clone(), value()).prop_map(single),
            (upper.clone(), value()).prop_map(single)
        )
            .prop_map(|(lower, upper)| vec![lower, upper]),
        (
            (lower, values()).prop_map(tuple),
            (upper, values()).prop_map(tuple)
        )
            .prop_map(|(lower, upper)| vec![lower, upper]),
    ]
}

/// Restrictions of leading clustering columns, as CQL allows them without filtering.
fn demands() -> impl Strategy<Value = Vec<Demand>> {
    let fix = |column: usize| {
        prop_oneof![
            value().prop_map(move |value| Demand::Equal(column, value)),
            prop::collection::vec(value(), 2..4).prop_map(move |values| Demand::In(column, values)),
        ]
    };
    let tuples = || prop::collection::vec(prop::collection::vec(value(), 2), 1..4);
    prop_oneof![
        Just(Vec::new()),
        slice(1),
        fix(1).prop_map(|demand| vec![demand]),
        (fix(1), slice(2)).prop_map(|(first, rest)| [vec![first], rest].concat()),
        (fix(1), fix(2)).prop_map(|(first, second)| vec![first, second]),
        (fix(1), fix(2), slice(3)).prop_map(|(first, second, rest)| [vec![first, second], rest].concat()),
        (fix(1), fix(2), fix(3)).prop_map(|(first, second, third)| vec![first, second, third]),
        tuples().prop_map(|tuples| vec![Demand::TupleIn(1, tuples)]),
        (fix(1), tuples()).prop_map(|(first, tuples)| vec![first, Demand::TupleIn(2, tuples)]),
    ]
}

#[derive(Clone, Debug)]
struct Question {
    keys: Vec<i32>,
    demands: Vec<Demand>,
    reversed: bool,
    limit: Option<usize>,
    per_partition: Option<usize>,
    page: Option<u32>,
}

fn question() -> impl Strategy<Value = Question> {
    (
        prop_oneof![Just(vec![0]), Just(vec![1]), Just(vec![0, 1]), Just(vec![7, 1])],
        demands(),
        any::<bool>(),
        prop::option::of(1..6usize),
        prop::option::of(1..4usize),
        prop::option::of(1..4u32),
    )
        .prop_map(|(keys, demands, reversed, limit, per_partition, page)| Question {
            reversed: reversed && keys.len() == 1,
            keys,
            demands,
            limit,
            per_partition,
            page,
        })
}

impl Question {
    fn text(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(i32::to_string).collect();
        let mut text = format!("SELECT k, a, b, c FROM t WHERE k IN ({})", keys.join(", "));
        for demand in &self.demands {
            let _ = write!(text, " AND {}", demand.text());
        }
        if self.reversed {
            text.push_str(" ORDER BY a DESC");
        }
        if let Some(limit) = self.per_partition {
            let _ = write!(text, " PER PARTITION LIMIT {limit}");
        }
        if let Some(limit) = self.limit {
            let _ = write!(text, " LIMIT {limit}");
        }
        text
    }

    fn answer(&self, rows: &[Row], b_descends: bool) -> Vec<Row> {
        let mut keys = self.keys.clone();
        keys.sort_unstable();
        let mut answer = Vec::new();
        for key in keys {
            let accepted =
                |row: &&Row| row[0] == key && self.demands.iter().all(|demand| demand.accepts(row));
            let mut own: Vec<Row> = rows.iter().filter(accepted).copied().collect();
            own.sort_unstable_by_key(|[_, a, b, c]| (*a, if b_descends { -b } else { *b }, *c));
            own.dedup();
            if self.reversed {
                own.reverse();
            }
            own.truncate(self.per_partition.unwrap_or(usize::MAX));
            answer.extend(own);
        }
        answer.truncate(self.limit.unwrap_or(usize::MAX));
        answer
    }
}

fn database(rows: &[Row], b_descends: bool) -> Database {
    let mut database = Database::new();
    let order = if b_descends { "DESC" } else { "ASC" };
    let create = format!(
        "CREATE TABLE t (k int, a int, b int, c int, PRIMARY KEY (k, a, b, c)) \
         WITH CLUSTERING ORDER BY (a ASC, b {order}, c ASC)"
    );
    database.run(&create).unwrap();
    for [k, a, b, c] in rows {
        database
            .run(&format!("INSERT INTO t (k, a, b, c) VALUES ({k}, {a}, {b}, {c})"))
            .unwrap();
    }
    database
}

fn ints(row: &[Option<Vec<u8>>]) -> Row {
    let cell = |index: usize| i32::from_be_bytes(row[index].as_deref().unwrap().try_into().unwrap());
    [cell(0), cell(1), cell(2), cell(3)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn select_answers_as_plain_logic(
        rows in prop::collection::vec([0..2i32, 0..4, 0..4, 0..4], 0..40),
        b_descends in any::<bool>(),
        questions in prop::collection::vec(question(), 8),
    ) {
        let mut database = database(&rows, b_descends);
        for question in questions {
            let answer = database.execute(&question.text(), &[], question.page).unwrap();
            let found: Vec<Row> = answer.rows.iter().map(|row| ints(row)).collect();
            prop_assert_eq!(found, question.answer(&rows, b_descends), "{}", question.text());
            let page = question.page.map_or(usize::MAX, |page| page as usize);
            prop_assert!(answer.pages.iter().all(|rows| *rows <= page));
        }
    }

    #[test]
    fn deletions_delete_what_their_restrictions_select(
        rows in prop::collection::vec([0..2i32, 0..4, 0..4, 0..4], 0..40),
        b_descends in any::<bool>(),
        demands in demands(),
    ) {
        let mut database = database(&rows, b_descends);
        let where_clause: String = demands.iter().map(|demand| format!(" AND {}", demand.text())).collect();
        database.run(&format!("DELETE FROM t WHERE k = 0{where_clause}")).unwrap();
        let mut expected: Vec<Row> =
            rows.into_iter().filter(|row| row[0] != 0 || !demands.iter().all(|demand| demand.accepts(row))).collect();
        expected.sort_unstable();
        expected.dedup();
        let mut found: Vec<Row> =
            database.run("SELECT k, a, b, c FROM t").unwrap().rows.iter().map(|row| ints(row)).collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected, "{}", where_clause);
    }
}
