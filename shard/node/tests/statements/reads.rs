//! Queries: the text of one, and the rows that it answers, found by looking at every row that there is.

use super::model::{Bound, Found, Model, Path, Rows};
use super::table::{Dice, Kind, Table, Type, Value};
use super::writes::draw_bound;
use ceto_model::{DecoratedKey, PartitionKey};
use std::collections::BTreeSet;

/// Cells as the protocol has them; None is null.
pub(crate) type Answer = Vec<Vec<Option<Vec<u8>>>>;

/// A statement that reads.
pub(crate) struct Read {
    pub(crate) text: String,
    pub(crate) expected: Answer,
    /// The order is that of a view, which is not the model's.
    pub(crate) in_any_order: bool,
}

/// What is selected of a row.
enum Selected {
    Column(usize),
    Writetime(usize),
}

/// What of all rows together.
enum Aggregate {
    Count,
    Min(usize),
    Max(usize),
}

enum Test {
    Compare(usize, &'static str, Value),
    Contains(usize, Value),
    ContainsKey(usize, Value),
}

impl Test {
    fn column(&self) -> usize {
        match self {
            Test::Compare(column, ..) | Test::Contains(column, _) | Test::ContainsKey(column, _) => *column,
        }
    }

    fn text(&self, table: &Table) -> String {
        let name = table.name(self.column());
        match self {
            Test::Compare(_, operator, value) => format!("{name} {operator} {}", value.cql()),
            Test::Contains(_, value) => format!("{name} CONTAINS {}", value.cql()),
            Test::ContainsKey(_, value) => format!("{name} CONTAINS KEY {}", value.cql()),
        }
    }

    fn accepts(&self, table: &Table, row: &Found) -> bool {
        let Some(present) = row.value(table, self.column()) else {
            return false;
        };
        match (self, present) {
            (Test::Compare(_, operator, value), present) => match *operator {
                "=" => present == *value,
                "<" => present < *value,
                ">=" => present >= *value,
                _ => unreachable!("not an operator of tests"),
            },
            (Test::Contains(_, value), Value::List(items)) => items.contains(value),
            (Test::Contains(_, value), Value::Set(items)) => items.contains(value),
            (Test::Contains(_, value), Value::Map(entries)) => entries.values().any(|own| own == value),
            (Test::ContainsKey(_, value), Value::Map(entries)) => entries.contains_key(value),
            _ => false,
        }
    }
}

fn token_order(table: &Table, key: &[Value]) -> DecoratedKey {
    let wires: Vec<Vec<u8>> = key.iter().map(Value::wire).collect();
    assert_eq!(wires.len(), table.partition_key().count());
    DecoratedKey::new(PartitionKey::from_components(&wires))
}

fn draw_test(dice: &mut Dice, table: &Table, column: usize) -> Test {
    let cql_type = table.columns[column].cql_type;
    match cql_type {
        Type::Map if dice.one_in(2) => Test::ContainsKey(column, Type::Int.value(dice)),
        Type::Map => Test::Contains(column, Type::Text.value(dice)),
        Type::List | Type::Set => Test::Contains(column, Type::Int.value(dice)),
        Type::FrozenList if dice.one_in(2) => Test::Contains(column, Type::Int.value(dice)),
        Type::Boolean => Test::Compare(column, "=", cql_type.value(dice)),
        _ => {
            let operator = *dice.pick(&["=", "=", "<", ">="]);
            Test::Compare(column, operator, cql_type.value(dice))
        }
    }
}

/// The clustering columns that are restricted.
#[derive(Default)]
struct Place {
    rows: Rows,
    /// Instead of bounds of the column behind the prefix.
    any_of: Option<Vec<Value>>,
    text: Vec<String>,
}

impl Place {
    fn draw(dice: &mut Dice, table: &Table) -> Place {
        let mut place = Place::default();
        if dice.one_in(2) {
            return place;
        }
        let columns: Vec<usize> = table.clustering().collect();
        let prefix = dice.below(columns.len() + 1);
        place.rows.prefix = table.draw_clustering(dice)[..prefix].to_vec();
        for (column, value) in columns.iter().zip(&place.rows.prefix) {
            place
                .text
                .push(format!("{} = {}", table.name(*column), value.cql()));
        }
        let Some(next) = columns.get(prefix) else {
            return place;
        };
        let cql_type = table.columns[*next].cql_type;
        if dice.one_in(3) {
            let values: Vec<Value> = (0..1 + dice.below(3)).map(|_| cql_type.value(dice)).collect();
            let texts: Vec<String> = values.iter().map(Value::cql).collect();
            place
                .text
                .push(format!("{} IN ({})", table.name(*next), texts.join(", ")));
            place.any_of = Some(values);
            return place;
        }
        let ends: [(&mut Bound, [&str; 2]); 2] = [
            (&mut place.rows.low, [">", ">="]),
            (&mut place.rows.high, ["<", "<="]),
        ];
        for (bound, operators) in ends {
            let text = draw_bound(dice, table, *next, bound, operators);
            place.text.extend(text.strip_prefix(" AND ").map(str::to_owned));
        }
        place
    }

    fn accepts(&self, row: &Found) -> bool {
        let Some(clustering) = &row.clustering else {
            return self.text.is_empty();
        };
        let next = clustering.get(self.rows.prefix.len());
        self.rows.contain(clustering)
            && self
                .any_of
                .as_ref()
                .is_none_or(|values| next.is_some_and(|next| values.contains(next)))
    }
}

pub(crate) fn draw(dice: &mut Dice, table: &Table, model: &Model, now: i64) -> Read {
    match table.viewed {
        Some(viewed) if dice.one_in(5) => return draw_of_view(dice, table, model, now, viewed),
        _ => {}
    }
    let clustering: Vec<usize> = table.clustering().collect();
    let mut keys: Vec<Vec<Value>> = model.keys();
    let mut wheres = Vec::new();
    let names_one = dice.one_in(2);
    let names_several = !names_one && dice.one_in(4);
    if names_one || names_several {
        // IN of the last column only.
        let key = table.draw_key(dice);
        let columns: Vec<usize> = table.partition_key().collect();
        let last = columns.len() - 1;
        for (column, value) in columns[..last].iter().zip(&key) {
            wheres.push(format!("{} = {}", table.name(*column), value.cql()));
        }
        let mut values = vec![key[last].clone()];
        if names_several {
            values.extend((0..dice.below(3)).map(|_| table.draw_key_part(dice, last)));
        }
        let texts: Vec<String> = values.iter().map(Value::cql).collect();
        let name = table.name(columns[last]);
        wheres.push(match names_several {
            true => format!("{name} IN ({})", texts.join(", ")),
            false => format!("{name} = {}", texts[0]),
        });
        keys.retain(|own| own[..last] == key[..last] && values.contains(&own[last]));
    }
    // With IN the order is that of the values, else that of the ring.
    match names_several {
        true => keys.sort(),
        false => keys.sort_by_key(|key| token_order(table, key)),
    }
    let distinct = clustering.len() + table.of(|kind| kind == Kind::Static).count() > 0 && dice.one_in(10);
    let place = match clustering.is_empty() || distinct {
        true => Place::default(),
        false => Place::draw(dice, table),
    };
    // Without a partition, clustering columns are filtered.
    let mut allows_filtering = !(names_one || names_several || place.text.is_empty());
    wheres.extend(place.text.iter().cloned());
    let mut tests: Vec<Test> = Vec::new();
    let filtered: Vec<usize> = table
        .of(|kind| kind == Kind::Regular || kind == Kind::Static)
        .filter(|column| !(distinct || names_several && table.columns[*column].is_indexed))
        .collect();
    if !filtered.is_empty() && dice.one_in(3) {
        for _ in 0..1 + dice.below(2) {
            let column = *dice.pick(&filtered);
            if tests.iter().all(|test| test.column() != column) {
                tests.push(draw_test(dice, table, column));
            }
        }
        let by_index =
            matches!(&tests[..], [Test::Compare(column, "=", _)] if table.columns[*column].is_indexed);
        allows_filtering |= !(by_index && wheres.is_empty());
    }
    wheres.extend(tests.iter().map(|test| test.text(table)));
    let uses_index = tests
        .iter()
        .any(|test| matches!(test, Test::Compare(column, "=", _) if table.columns[*column].is_indexed));
    let reversed = names_one && !distinct && !clustering.is_empty() && !uses_index && dice.one_in(4);
    let mut found: Vec<Found> = Vec::new();
    let per_partition = (!distinct && dice.one_in(6)).then(|| 1 + dice.below(3));
    for key in &keys {
        let mut rows = model.rows(table, key, now);
        rows.retain(|row| place.accepts(row) && tests.iter().all(|test| test.accepts(table, row)));
        if reversed {
            rows.reverse();
        }
        rows.truncate(if distinct {
            1
        } else {
            per_partition.unwrap_or(usize::MAX)
        });
        found.extend(rows);
    }
    let aggregate = match per_partition.is_none() && !distinct && dice.one_in(8) {
        true => {
            let scalars: Vec<usize> = table
                .of(|kind| place.text.is_empty() || matches!(kind, Kind::Clustering { .. } | Kind::Regular))
                .filter(|column| {
                    matches!(
                        table.columns[*column].cql_type,
                        Type::Int | Type::Bigint | Type::Text
                    )
                })
                .collect();
            Some(match (dice.below(3), scalars.is_empty()) {
                (0, _) | (_, true) => Aggregate::Count,
                (1, false) => Aggregate::Min(*dice.pick(&scalars)),
                _ => Aggregate::Max(*dice.pick(&scalars)),
            })
        }
        false => None,
    };
    let limit = dice.one_in(4).then(|| 1 + dice.below(6));
    let (selection, expected) = match aggregate {
        Some(aggregate) => answer_of_all(&aggregate, table, &found),
        None => {
            found.truncate(limit.unwrap_or(usize::MAX));
            // Clustering columns may not be restricted by a query of the static row alone.
            let of_rows = (!place.text.is_empty()).then(|| *dice.pick(&clustering));
            answer_of_each(dice, table, &found, distinct, of_rows)
        }
    };
    let mut text = format!("SELECT {selection} FROM ks.t");
    if !wheres.is_empty() {
        text.push_str(&format!(" WHERE {}", wheres.join(" AND ")));
    }
    if reversed {
        let Kind::Clustering { descending } = table.columns[clustering[0]].kind else {
            unreachable!("a clustering column")
        };
        let direction = if descending { "ASC" } else { "DESC" };
        text.push_str(&format!(" ORDER BY {} {direction}", table.name(clustering[0])));
    }
    if let Some(rows) = per_partition {
        text.push_str(&format!(" PER PARTITION LIMIT {rows}"));
    }
    if let Some(rows) = limit {
        text.push_str(&format!(" LIMIT {rows}"));
    }
    if allows_filtering {
        text.push_str(" ALLOW FILTERING");
    }
    Read {
        text,
        expected,
        in_any_order: false,
    }
}

fn answer_of_all(aggregate: &Aggregate, table: &Table, found: &[Found]) -> (String, Answer) {
    let values = |column: usize| -> BTreeSet<Value> {
        found.iter().filter_map(|row| row.value(table, column)).collect()
    };
    let (selection, cell) = match aggregate {
        Aggregate::Count => (
            "count(*)".to_owned(),
            Some((found.len() as i64).to_be_bytes().to_vec()),
        ),
        Aggregate::Min(column) => (
            format!("min({})", table.name(*column)),
            values(*column).first().map(Value::wire),
        ),
        Aggregate::Max(column) => (
            format!("max({})", table.name(*column)),
            values(*column).last().map(Value::wire),
        ),
    };
    (selection, vec![vec![cell]])
}

/// `always`: a column that is selected in any case.
fn answer_of_each(
    dice: &mut Dice,
    table: &Table,
    found: &[Found],
    distinct: bool,
    always: Option<usize>,
) -> (String, Answer) {
    let all = 0..table.columns.len();
    let chosen: Vec<usize> = match distinct {
        true => all
            .filter(|column| match table.columns[*column].kind {
                Kind::Partition => true,
                Kind::Static => dice.one_in(2),
                _ => false,
            })
            .collect(),
        false => {
            let always = always.unwrap_or_else(|| dice.below(table.columns.len()));
            all.filter(|column| *column == always || dice.one_in(2)).collect()
        }
    };
    let selected: Vec<Selected> = chosen
        .into_iter()
        .map(|column| {
            let Column { kind, cql_type } = Column::of(table, column);
            let has_one_cell = matches!(kind, Kind::Static | Kind::Regular) && !cql_type.is_multi_cell();
            match has_one_cell && !distinct && dice.one_in(4) {
                true => Selected::Writetime(column),
                false => Selected::Column(column),
            }
        })
        .collect();
    let texts: Vec<String> = selected
        .iter()
        .map(|selected| match selected {
            Selected::Column(column) => table.name(*column).to_owned(),
            Selected::Writetime(column) => format!("writetime({})", table.name(*column)),
        })
        .collect();
    let cell = |row: &Found, selected: &Selected| match selected {
        Selected::Column(column) => row.value(table, *column).map(|value| value.wire()),
        Selected::Writetime(column) => {
            let cell = row.cells.get(column)?.get(&Path::Whole)?;
            Some(cell.timestamp.to_be_bytes().to_vec())
        }
    };
    let rows = found
        .iter()
        .map(|row| selected.iter().map(|selected| cell(row, selected)).collect());
    (
        format!("{}{}", if distinct { "DISTINCT " } else { "" }, texts.join(", ")),
        rows.collect(),
    )
}

struct Column {
    kind: Kind,
    cql_type: Type,
}

impl Column {
    fn of(table: &Table, column: usize) -> Column {
        let column = &table.columns[column];
        Column {
            kind: column.kind,
            cql_type: column.cql_type,
        }
    }
}

/// The rows of the view are those of the table that have the column.
fn draw_of_view(dice: &mut Dice, table: &Table, model: &Model, now: i64, viewed: usize) -> Read {
    let columns: Vec<usize> = table.of(|kind| kind != Kind::Static).collect();
    // A view's row can have an empty key, but nobody can ask for it.
    let wanted = dice.one_in(2).then(|| table.columns[viewed].cql_type.value(dice));
    let wanted = wanted.filter(|wanted| !wanted.wire().is_empty());
    let mut expected = Answer::new();
    for key in model.keys() {
        for row in model.rows(table, &key, now) {
            let Some(value) = row.value(table, viewed) else {
                continue;
            };
            if row.clustering.is_some() && wanted.as_ref().is_none_or(|wanted| *wanted == value) {
                let cells = columns
                    .iter()
                    .map(|column| row.value(table, *column).map(|value| value.wire()));
                expected.push(cells.collect());
            }
        }
    }
    let names: Vec<&str> = columns.iter().map(|column| table.name(*column)).collect();
    let mut text = format!("SELECT {} FROM ks.by_value", names.join(", "));
    if let Some(wanted) = wanted {
        text.push_str(&format!(" WHERE {} = {}", table.name(viewed), wanted.cql()));
    }
    Read {
        text,
        expected,
        in_any_order: true,
    }
}
