//! Modifications: the text of a statement, and what it does.

use super::model::{Bound, Effect, Model, Path, Rows, What};
use super::table::{Dice, Kind, Table, Type, Value};

/// A statement that writes.
pub(crate) struct Write {
    pub(crate) text: String,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    Done(Vec<Effect>),
    /// A conditional statement: whether it is applied, and what it does then.
    Conditional(bool, Vec<Effect>),
    /// The server answers Invalid.
    Invalid,
}

/// What writes are drawn from.
pub(crate) struct Writer<'a> {
    pub(crate) dice: &'a mut Dice,
    pub(crate) table: &'a Table,
    pub(crate) model: &'a Model,
    /// Seconds.
    pub(crate) now: i64,
    /// Grows with each statement; of the order of microseconds since 1970, far above the timestamps that statements name.
    pub(crate) clock: &'a mut i64,
    pub(crate) list_places: &'a mut i64,
}

/// USING.
#[derive(Clone)]
struct Stamp {
    timestamp: i64,
    named: Option<i64>,
    ttl: Option<i64>,
}

impl Stamp {
    fn text(&self) -> String {
        let named = self.named.map(|named| format!("TIMESTAMP {named}"));
        let ttl = self.ttl.map(|ttl| format!("TTL {ttl}"));
        let all: Vec<String> = named.into_iter().chain(ttl).collect();
        match all.is_empty() {
            true => String::new(),
            false => format!(" USING {}", all.join(" AND ")),
        }
    }
}

/// Timestamps that nobody names in earnest.
const EXTREMES: [i64; 6] = [-1, 0, i64::MIN + 2, 1 << 62, i64::MAX - 1, i64::MAX];

/// A part of a batch, or a statement by itself.
type Part = Result<(String, Vec<Effect>), ()>;

impl Writer<'_> {
    pub(crate) fn draw(mut self) -> Write {
        *self.clock += 10;
        if !self.table.has_extremes && self.dice.one_in(8) {
            return self.conditional();
        }
        if self.dice.one_in(8) {
            return self.batch();
        }
        let stamp = self.stamp();
        match self.part(&stamp) {
            Ok((text, effects)) => Write {
                text,
                outcome: Outcome::Done(effects),
            },
            Err(()) => self.invalid(),
        }
    }

    /// An element of a list that is not there.
    fn invalid(&mut self) -> Write {
        let lists: Vec<usize> = self
            .table
            .of(|kind| matches!(kind, Kind::Static | Kind::Regular))
            .filter(|column| self.table.columns[*column].cql_type == Type::List)
            .collect();
        let column = *self.dice.pick(&lists);
        let (key, row) = (
            self.table.draw_key(self.dice),
            self.table.draw_clustering(self.dice),
        );
        let own_row = (self.table.columns[column].kind == Kind::Regular).then_some(&row[..]);
        let place = format!("{}[77]", self.table.name(column));
        Write {
            text: format!(
                "UPDATE ks.t SET {place} = 1 WHERE {}",
                self.names_row(&key, own_row)
            ),
            outcome: Outcome::Invalid,
        }
    }

    /// Timestamps meet each other often; with a TTL they do not, for then the rules say more than the model does.
    fn stamp(&mut self) -> Stamp {
        let ttl = self.dice.one_in(6).then(|| 1 + self.dice.below(30) as i64);
        let named = match ttl {
            Some(_) => None,
            None if self.table.has_extremes && self.dice.one_in(50) => Some(*self.dice.pick(&EXTREMES)),
            None => self.dice.one_in(2).then(|| 1 + self.dice.below(60) as i64),
        };
        Stamp {
            timestamp: named.unwrap_or(*self.clock),
            named,
            ttl,
        }
    }

    fn part(&mut self, stamp: &Stamp) -> Part {
        match self.dice.below(10) {
            0..4 => Ok(self.insert(stamp)),
            4..8 => self.update(stamp),
            _ => self.delete(stamp),
        }
    }

    fn batch(&mut self) -> Write {
        let named = self.dice.one_in(2).then(|| 1 + self.dice.below(60) as i64);
        let stamp = Stamp {
            timestamp: named.unwrap_or(*self.clock),
            named: None,
            ttl: None,
        };
        let using = named
            .map(|named| format!(" USING TIMESTAMP {named}"))
            .unwrap_or_default();
        let (mut texts, mut all) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.dice.below(3) {
            // What is read before a batch is read before all of it, so lists' elements are left alone.
            let part = match self.dice.one_in(3) {
                true => Ok(self.insert(&stamp)),
                false => self.delete_without_reading(&stamp),
            };
            if let Ok((text, effects)) = part {
                texts.push(text);
                all.extend(effects);
            }
        }
        let kind = *self.dice.pick(&["", "UNLOGGED "]);
        Write {
            text: format!("BEGIN {kind}BATCH{using} {}; APPLY BATCH", texts.join("; ")),
            outcome: Outcome::Done(all),
        }
    }

    fn effect(&self, key: &[Value], stamp: &Stamp, what: What) -> Effect {
        let may_expire = matches!(what, What::Marker { .. } | What::Cell { value: Some(_), .. });
        Effect {
            key: key.to_vec(),
            timestamp: stamp.timestamp,
            expires: stamp.ttl.filter(|_| may_expire).map(|ttl| self.now + ttl),
            what,
        }
    }

    /// `column = value`, null too; a collection's old elements go.
    fn set_whole(
        &mut self,
        key: &[Value],
        row: Option<&[Value]>,
        column: usize,
        stamp: &Stamp,
    ) -> (String, Vec<Effect>) {
        let cql_type = self.table.columns[column].cql_type;
        let value = (!self.dice.one_in(6)).then(|| cql_type.value(self.dice));
        let row = row.map(<[Value]>::to_vec);
        let mut effects = Vec::new();
        if cql_type.is_multi_cell() {
            let before = Stamp {
                // Below what replaces them.
                timestamp: stamp.timestamp - 1,
                ..stamp.clone()
            };
            let what = What::DeleteCollection {
                row: row.clone(),
                column,
            };
            effects.push(self.effect(key, &before, what));
            if let Some(value) = &value {
                let elements = self.elements(value);
                effects.extend(self.cells(key, row.as_deref(), column, elements, stamp));
            }
        } else {
            let what = What::Cell {
                row,
                column,
                path: Path::Whole,
                value: value.clone(),
            };
            effects.push(self.effect(key, stamp, what));
        }
        (value.map_or("null".to_owned(), |value| value.cql()), effects)
    }

    /// A collection's elements under their paths; those of a list behind all that there are.
    fn elements(&mut self, value: &Value) -> Vec<(Path, Value)> {
        match value {
            Value::List(items) => {
                let places = items.iter().map(|item| {
                    *self.list_places += 1;
                    (Path::Place(*self.list_places), item.clone())
                });
                places.collect()
            }
            Value::Set(items) => items
                .iter()
                .map(|item| (Path::Key(item.clone()), item.clone()))
                .collect(),
            Value::Map(entries) => {
                let entries = entries.iter();
                entries
                    .map(|(key, value)| (Path::Key(key.clone()), value.clone()))
                    .collect()
            }
            _ => unreachable!("not a collection"),
        }
    }

    fn cells(
        &self,
        key: &[Value],
        row: Option<&[Value]>,
        column: usize,
        elements: Vec<(Path, Value)>,
        stamp: &Stamp,
    ) -> Vec<Effect> {
        let cells = elements.into_iter().map(|(path, value)| {
            let what = What::Cell {
                row: row.map(<[Value]>::to_vec),
                column,
                path,
                value: Some(value),
            };
            self.effect(key, stamp, what)
        });
        cells.collect()
    }

    fn insert(&mut self, stamp: &Stamp) -> (String, Vec<Effect>) {
        self.insert_if(stamp, "")
    }

    fn insert_if(&mut self, stamp: &Stamp, condition: &str) -> (String, Vec<Effect>) {
        let (key, row) = (
            self.table.draw_key(self.dice),
            self.table.draw_clustering(self.dice),
        );
        let mut names: Vec<String> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        for (column, value) in self
            .table
            .partition_key()
            .chain(self.table.clustering())
            .zip(key.iter().chain(&row))
        {
            names.push(self.table.name(column).to_owned());
            values.push(value.cql());
        }
        let mut effects = vec![self.effect(&key, stamp, What::Marker { row: row.clone() })];
        for column in self.table.of(|kind| matches!(kind, Kind::Static | Kind::Regular)) {
            if self.dice.one_in(2) {
                let own_row = (self.table.columns[column].kind == Kind::Regular).then_some(&row[..]);
                let (text, more) = self.set_whole(&key, own_row, column, stamp);
                names.push(self.table.name(column).to_owned());
                values.push(text);
                effects.extend(more);
            }
        }
        let (names, values) = (names.join(", "), values.join(", "));
        let text = format!(
            "INSERT INTO ks.t ({names}) VALUES ({values}){condition}{}",
            stamp.text()
        );
        (text, effects)
    }

    /// `k = .. AND c = ..`
    fn names_row(&self, key: &[Value], row: Option<&[Value]>) -> String {
        let columns = self.table.partition_key().chain(self.table.clustering());
        let values = key.iter().chain(row.into_iter().flatten());
        let tests: Vec<String> = columns
            .zip(values)
            .map(|(column, value)| format!("{} = {}", self.table.name(column), value.cql()))
            .collect();
        tests.join(" AND ")
    }

    /// Columns to be set: static ones alone, or regular ones.
    fn draw_columns(&mut self) -> (bool, Vec<usize>) {
        let statics: Vec<usize> = self.table.of(|kind| kind == Kind::Static).collect();
        let is_static = !statics.is_empty() && self.dice.one_in(4);
        let columns = match is_static {
            true => statics,
            false => self.table.of(|kind| kind == Kind::Regular).collect(),
        };
        let always = *self.dice.pick(&columns);
        let chosen = columns
            .into_iter()
            .filter(|column| *column == always || self.dice.one_in(3))
            .collect();
        (is_static, chosen)
    }

    fn update(&mut self, stamp: &Stamp) -> Part {
        self.update_if(stamp, None)
    }

    /// Of any row or of this one, and then not of the static row.
    fn update_if(&mut self, stamp: &Stamp, row_wanted: Option<(&[Value], &[Value])>) -> Part {
        let (mut key, mut row) = (
            self.table.draw_key(self.dice),
            self.table.draw_clustering(self.dice),
        );
        if let Some((key_wanted, own)) = row_wanted {
            (key, row) = (key_wanted.to_vec(), own.to_vec());
        }
        let (mut is_static, mut columns) = self.draw_columns();
        while row_wanted.is_some() && is_static {
            (is_static, columns) = self.draw_columns();
        }
        let own_row = (!is_static).then_some(&row[..]);
        let (mut texts, mut effects) = (Vec::new(), Vec::new());
        for column in columns {
            let name = self.table.name(column).to_owned();
            let is_multi_cell = self.table.columns[column].cql_type.is_multi_cell();
            if is_multi_cell && !self.dice.one_in(4) {
                let (text, more) = self.change_collection(&key, own_row, column, stamp)?;
                texts.push(text);
                effects.extend(more);
            } else {
                let (value, more) = self.set_whole(&key, own_row, column, stamp);
                texts.push(format!("{name} = {value}"));
                effects.extend(more);
            }
        }
        let place = self.names_row(&key, own_row);
        let text = format!(
            "UPDATE ks.t{} SET {} WHERE {place}",
            stamp.text(),
            texts.join(", ")
        );
        Ok((text, effects))
    }

    /// Adds to a collection, takes from it, or sets one element. Error: there is no such element.
    fn change_collection(
        &mut self,
        key: &[Value],
        row: Option<&[Value]>,
        column: usize,
        stamp: &Stamp,
    ) -> Part {
        let name = self.table.name(column).to_owned();
        let cql_type = self.table.columns[column].cql_type;
        let value = cql_type.value(self.dice);
        let (cells, _) = self.model.row(self.table, key, row, self.now);
        let present = cells.get(&column).cloned().unwrap_or_default();
        let gone = |path: Path| What::Cell {
            row: row.map(<[Value]>::to_vec),
            column,
            path,
            value: None,
        };
        match (self.dice.below(4), cql_type) {
            (0, Type::List) => {
                let places: Vec<Path> = present.keys().cloned().collect();
                if places.is_empty() {
                    return Err(());
                }
                let at = self.dice.below(places.len());
                let element = (!self.dice.one_in(4)).then(|| Type::Int.value(self.dice));
                let what = What::Cell {
                    row: row.map(<[Value]>::to_vec),
                    column,
                    path: places[at].clone(),
                    value: element.clone(),
                };
                let element = element.map_or("null".to_owned(), |element| element.cql());
                Ok((
                    format!("{name}[{at}] = {element}"),
                    vec![self.effect(key, stamp, what)],
                ))
            }
            (1, Type::List) => {
                let Value::List(items) = &value else {
                    unreachable!()
                };
                let hit = present.iter().filter(|(_, cell)| items.contains(&cell.value));
                let effects = hit.map(|(path, _)| self.effect(key, stamp, gone(path.clone())));
                Ok((format!("{name} = {name} - {}", value.cql()), effects.collect()))
            }
            (2, Type::List) => {
                let Value::List(items) = &value else {
                    unreachable!()
                };
                *self.list_places += 1;
                let first = *self.list_places * -1000;
                let places = (first..).map(Path::Place).zip(items.iter().cloned());
                let effects = self.cells(key, row, column, places.collect(), stamp);
                Ok((format!("{name} = {} + {name}", value.cql()), effects))
            }
            (0, Type::Map) => {
                let (at, element) = (Type::Int.value(self.dice), Type::Text.value(self.dice));
                let text = format!("{name}[{}] = {}", at.cql(), element.cql());
                Ok((
                    text,
                    self.cells(key, row, column, vec![(Path::Key(at), element)], stamp),
                ))
            }
            (1, Type::Set | Type::Map) => {
                let items: Vec<Value> = match Type::Set.value(self.dice) {
                    Value::Set(items) => items.into_iter().collect(),
                    _ => unreachable!(),
                };
                let text = Value::Set(items.iter().cloned().collect()).cql();
                let effects = items
                    .into_iter()
                    .map(|item| self.effect(key, stamp, gone(Path::Key(item))));
                Ok((format!("{name} = {name} - {text}"), effects.collect()))
            }
            _ => {
                let elements = self.elements(&value);
                let effects = self.cells(key, row, column, elements, stamp);
                Ok((format!("{name} = {name} + {}", value.cql()), effects))
            }
        }
    }

    fn delete(&mut self, stamp: &Stamp) -> Part {
        let stamp = Stamp {
            ttl: None,
            ..stamp.clone()
        };
        self.delete_without_reading(&stamp)
    }

    fn delete_without_reading(&mut self, stamp: &Stamp) -> Part {
        let key = self.table.draw_key(self.dice);
        let using = stamp.text();
        let partition = self.names_row(&key, None);
        match self.dice.below(8) {
            0 => {
                let effect = self.effect(&key, stamp, What::DeletePartition);
                Ok((format!("DELETE FROM ks.t{using} WHERE {partition}"), vec![effect]))
            }
            1..4 => {
                let (rows, text) = self.draw_rows();
                let what = match text.is_empty() {
                    true => What::DeletePartition,
                    false => What::DeleteRows(rows),
                };
                let effect = self.effect(&key, stamp, what);
                let text = format!("DELETE FROM ks.t{using} WHERE {partition}{text}");
                Ok((text, vec![effect]))
            }
            _ => {
                let row = self.table.draw_clustering(self.dice);
                let (is_static, columns) = self.draw_columns();
                let own_row = (!is_static).then_some(&row[..]);
                let effects = columns.iter().map(|column| {
                    let row = own_row.map(<[Value]>::to_vec);
                    let column = *column;
                    let what = match self.table.columns[column].cql_type.is_multi_cell() {
                        true => What::DeleteCollection { row, column },
                        false => What::Cell {
                            row,
                            column,
                            path: Path::Whole,
                            value: None,
                        },
                    };
                    self.effect(&key, stamp, what)
                });
                let effects: Vec<Effect> = effects.collect();
                let names: Vec<&str> = columns.iter().map(|column| self.table.name(*column)).collect();
                let place = self.names_row(&key, own_row);
                Ok((
                    format!("DELETE {} FROM ks.t{using} WHERE {place}", names.join(", ")),
                    effects,
                ))
            }
        }
    }

    /// Rows by a prefix of their keys, and a range of the next column; with the text behind the partition key's.
    fn draw_rows(&mut self) -> (Rows, String) {
        let columns: Vec<usize> = self.table.clustering().collect();
        let clustering = self.table.draw_clustering(self.dice);
        let prefix = self.dice.below(columns.len() + 1);
        let mut rows = Rows {
            prefix: clustering[..prefix].to_vec(),
            ..Rows::default()
        };
        let mut text = String::new();
        for (column, value) in columns.iter().zip(&rows.prefix) {
            text.push_str(&format!(" AND {} = {}", self.table.name(*column), value.cql()));
        }
        if let Some(next) = columns.get(prefix) {
            for (bound, operators) in [(&mut rows.low, [">", ">="]), (&mut rows.high, ["<", "<="])] {
                text.push_str(&draw_bound(self.dice, self.table, *next, bound, operators));
            }
        }
        (rows, text)
    }

    fn conditional(&mut self) -> Write {
        let stamp = Stamp {
            timestamp: *self.clock,
            named: None,
            ttl: None,
        };
        if self.dice.one_in(3) {
            let (text, effects) = self.insert_if(&stamp, " IF NOT EXISTS");
            let What::Marker { row } = &effects[0].what else {
                unreachable!("an INSERT begins with its marker")
            };
            let (_, is_there) = self.model.row(self.table, &effects[0].key, Some(row), self.now);
            return Write {
                text,
                outcome: Outcome::Conditional(!is_there, effects),
            };
        }
        let (key, row) = (
            self.table.draw_key(self.dice),
            self.table.draw_clustering(self.dice),
        );
        let (cells, is_there) = self.model.row(self.table, &key, Some(&row), self.now);
        let scalars: Vec<usize> = self
            .table
            .of(|kind| kind == Kind::Regular)
            .filter(|column| !self.table.columns[*column].cql_type.is_multi_cell())
            .collect();
        let (condition, holds) = match scalars.is_empty() || self.dice.one_in(4) {
            true => ("EXISTS".to_owned(), is_there),
            false => {
                let column = *self.dice.pick(&scalars);
                let value = self.table.columns[column].cql_type.value(self.dice);
                let present = cells.get(&column).and_then(|cells| cells.get(&Path::Whole));
                let present = present.map(|cell| &cell.value);
                let name = self.table.name(column);
                match self.dice.below(4) {
                    0 => (format!("{name} != {}", value.cql()), present != Some(&value)),
                    1 => (format!("{name} = null"), present.is_none()),
                    2 => {
                        let text = format!("{name} >= {}", value.cql());
                        (text, present.is_some_and(|present| *present >= value))
                    }
                    _ => (format!("{name} = {}", value.cql()), present == Some(&value)),
                }
            }
        };
        let part = match self.dice.one_in(3) {
            true => {
                let effect = self.effect(
                    &key,
                    &stamp,
                    What::DeleteRows(Rows {
                        prefix: row.clone(),
                        ..Rows::default()
                    }),
                );
                let text = format!("DELETE FROM ks.t WHERE {}", self.names_row(&key, Some(&row)));
                Ok((text, vec![effect]))
            }
            false => self.update_if(&stamp, Some((&key, &row))),
        };
        match part {
            Ok((text, effects)) => Write {
                text: format!("{text} IF {condition}"),
                outcome: Outcome::Conditional(holds, effects),
            },
            Err(()) => self.invalid(),
        }
    }
}

/// Perhaps one end of a range, as text that begins with AND.
pub(crate) fn draw_bound(
    dice: &mut Dice,
    table: &Table,
    column: usize,
    bound: &mut Bound,
    operators: [&str; 2],
) -> String {
    if dice.one_in(2) {
        return String::new();
    }
    let (value, inclusive) = (table.columns[column].cql_type.value(dice), dice.one_in(2));
    let operator = operators[usize::from(inclusive)];
    let text = format!(" AND {} {operator} {}", table.name(column), value.cql());
    *bound = Some((value, inclusive));
    text
}
